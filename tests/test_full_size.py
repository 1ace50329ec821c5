"""The full replication's configuration, run whole on random weights of BLIP-base's shape.

Needs a folder with BERT's `vocab.txt` (30,522 words) and the tutorial's picture
`coco-000000458864.jpg`, named by the environment variable BLIP_VQA_BASE_FILES (neither ships with
the project), and about eight minutes on two cores, which FULL_SIZE=1 allows it.
"""

import os

import pytest
import yaml
from checkpoints import random_blip, save_checkpoint
from project import BLIP_FILES, copy_project, run
from transformers import BertTokenizerFast

from blip_tracing.tables import read_table
from blip_tracing.tokens import load_tokenizer

PICTURE, VOCABULARY = BLIP_FILES / "coco-000000458864.jpg", BLIP_FILES / "vocab.txt"

pytestmark = [
    pytest.mark.full_size,
    pytest.mark.skipif(
        not (PICTURE.is_file() and VOCABULARY.is_file()),
        reason="BLIP_VQA_BASE_FILES names no folder with vocab.txt and coco-000000458864.jpg",
    ),
    pytest.mark.skipif(os.environ.get("FULL_SIZE") != "1", reason="FULL_SIZE is not set to 1"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The full replication with its model and its picture replaced by local ones, run whole."""
    folder = tmp_path_factory.mktemp("full_size")
    words = [*VOCABULARY.read_text(encoding="utf-8").removesuffix("\n").split("\n")]
    blip = random_blip(
        len(words) + 2,
        hidden=768,
        image_text_hidden=256,
        layers=12,
        heads=12,
        intermediate=3072,
        positions=512,
        image_size=384,
        patch_size=16,
        initializer_range=0.05,
    )
    checkpoint = save_checkpoint(folder / "checkpoint", blip, [*words, "[DEC]", "[ENC]"])
    project = copy_project(folder / "project")
    config = yaml.safe_load((project / "config/blip-vqa-base.yaml").read_text())
    sheet = (project / config["examples"]).read_text()
    address = "http://images.cocodataset.org/train2017/000000458864.jpg"
    assert address in sheet
    (project / config["examples"]).write_text(sheet.replace(address, str(PICTURE.resolve())))
    assert config["model"]["name"] == "Salesforce/blip-vqa-base"
    config["model"]["name"] = str(checkpoint)
    (project / "config/here.yaml").write_text(yaml.safe_dump(config))
    print(run(project, "--configfile", "config/here.yaml"))
    return project, checkpoint


def test_the_questions_are_tokenised_as_in_the_tutorial(project):
    folder, checkpoint = project
    tokens = read_table(folder / "results/tables/tokens.csv")
    by_transformers = BertTokenizerFast.from_pretrained(checkpoint)
    for role, thing in (("base", "animal"), ("source", "shirt")):
        rows = tokens[tokens["role"] == role]
        assert len(rows) == 9
        question = f"what is the color of the {thing}"
        assert rows["token_id"].tolist() == by_transformers(question)["input_ids"]
    assert not tokens["unknown"].any()
    assert load_tokenizer(checkpoint).token_to_id("red") == 2417
    assert load_tokenizer(checkpoint).token_to_id("brown") == 2829


def test_all_cells_of_the_tutorial_are_there(project):
    tables = project[0] / "results/tables"
    cells = 12 * 9
    assert len(read_table(tables / "patching.csv")) == 2 * cells
    assert len(read_table(tables / "tracing.csv")) == 2 * 7 * 10 * cells
    assert len(read_table(tables / "floor.csv")) == 7 * 10
    assert len(read_table(tables / "baseline.csv")) == 20


def test_a_blocks_output_is_the_next_blocks_input(project):
    patching = read_table(project[0] / "results/tables/patching.csv").set_index(
        ["site", "layer", "position"]
    )["p_source"]
    for layer in range(11):
        shifted = patching["block_input", layer + 1].to_numpy()
        assert patching["block_output", layer].to_numpy() == pytest.approx(shifted, abs=1e-5)


def test_jobs_stay_under_four_gigabytes(project):
    peaks = {}
    for path in (project[0] / "results/benchmarks").rglob("*.tsv"):
        header, values = (line.split("\t") for line in path.read_text().splitlines()[:2])
        peak = dict(zip(header, values, strict=True))["max_rss"]
        peaks[path.name] = float("nan" if peak == "NA" else peak)
    assert peaks
    assert max(peaks.values()) < 4096, peaks
