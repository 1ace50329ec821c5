"""The full replication's configuration, run whole on random weights of BLIP-base's shape.

Needs a folder with BERT's `vocab.txt` (30,522 words) and the tutorial's picture
`coco-000000458864.jpg`, named by the environment variable BLIP_VQA_BASE_FILES (neither ships with
the project), and about eight minutes on two cores, which FULL_SIZE=1 allows it.
"""

import os

import pytest
import yaml
from checkpoints import random_blip, save_checkpoint, sharpen
from oracle import image_states, patched_logits, restored_logits, site_states
from project import BLIP_FILES, ROOT, copy_project, run
from transformers import BertTokenizerFast, BlipForQuestionAnswering
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from blip_tracing.engine.draws import draw_noise
from blip_tracing.given.pictures import open_picture
from blip_tracing.given.tokens import load_tokenizer
from blip_tracing.machinery.tables import read_table
from blip_tracing.telling.finished_run import count_controls
from blip_tracing.vocabulary.experiment import BASE, PICTURE_ONLY, SOURCE
from blip_tracing.vocabulary.tables import CEILING, NO_OP

CONFIG = "config/blip-vqa-base.yaml"
ASKED = yaml.safe_load((ROOT / CONFIG).read_text())["experiments"]
BLOCK_INPUT, BLOCK_OUTPUT = "encoder.block_input", "encoder.block_output"
LAYERS, TOKENS, NOUN, NOISE = 12, 9, 7, 1.0
BROWN, RED = 2829, 2417
# Of what the cells themselves move a logit by. Rounding is a hundredth of it.
TOLERANCE = 1e-3

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
    checkpoint = save_checkpoint(folder / "checkpoint", sharpen(blip), [*words, "[DEC]", "[ENC]"])
    project = copy_project(folder / "project")
    config = yaml.safe_load((project / CONFIG).read_text())
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
    for question, thing in ((BASE, "animal"), (SOURCE, "shirt")):
        rows = tokens[tokens["question"] == question]
        assert len(rows) == 9
        words = f"what is the color of the {thing}"
        assert rows["token_id"].tolist() == by_transformers(words)["input_ids"]
    assert not tokens["unknown"].any()
    assert load_tokenizer(checkpoint).token_to_id("red") == RED
    assert load_tokenizer(checkpoint).token_to_id("brown") == BROWN


def test_all_cells_of_the_tutorial_are_there(project):
    tables = project[0] / "results/tables"
    cells = LAYERS * TOKENS
    assert len(read_table(tables / "patching.csv")) == 2 * cells
    assert len(read_table(tables / "tracing.csv")) == 2 * 7 * 10 * cells
    runs = read_table(tables / "runs.csv")
    assert runs["run"].value_counts().to_dict() == {
        BASE: 1,
        SOURCE: 1,
        "noisy": 7 * 10,
        PICTURE_ONLY: 1,
        "noisy_at_1": 30,
    }
    assert len(read_table(tables / "baseline.csv")) == 20


def patching_maps(project):
    """The logit of the source answer by site: layers and positions."""
    patching = read_table(project[0] / "results/tables/patching.csv")
    return {
        site: cells.pivot(index="layer", columns="position", values="logit_source").to_numpy()
        for site, cells in patching.groupby("site")
    }


def furthest(cells, others):
    return abs(cells - others).max()


def test_a_blocks_output_is_the_next_blocks_input(project):
    maps = patching_maps(project)
    inputs, outputs = maps[BLOCK_INPUT], maps[BLOCK_OUTPUT]
    span = inputs.max() - inputs.min()
    assert span > 1, "the cells are too much alike to tell layers apart"
    assert furthest(outputs[:-1], inputs[1:]) <= TOLERANCE * span
    for layer in range(LAYERS - 1):
        assert furthest(inputs[layer], inputs[layer + 1]) > 10 * TOLERANCE * span


@pytest.fixture(scope="module")
def plain(project):
    """The unmodified model, its picture's states and both questions' tokens."""
    blip = BlipForQuestionAnswering.from_pretrained(project[1]).eval()
    processor = BlipImageProcessorPil.from_pretrained(project[1])
    pixels = processor(images=[open_picture(PICTURE)], return_tensors="pt")["pixel_values"]
    tokenizer = BertTokenizerFast.from_pretrained(project[1])
    base, source = (
        tokenizer(f"what is the color of the {thing}")["input_ids"] for thing in ("animal", "shirt")
    )
    return blip, image_states(blip, pixels), base, source


@pytest.mark.parametrize("site", ASKED["patching"]["sites"])
def test_patched_cells_agree_with_the_unmodified_model(project, plain, site):
    blip, image, base, source = plain
    found = patching_maps(project)[site]
    span = found.max() - found.min()
    for layer in (0, 5, LAYERS - 1):
        donor = site_states(blip, source, image, site, layer)
        for position in (NOUN, TOKENS - 1):
            truth = patched_logits(blip, base, image, site, layer, position, donor[position])
            assert abs(found[layer, position] - truth[RED].item()) <= TOLERANCE * span


@pytest.mark.parametrize("site", ASKED["tracing"]["sites"])
def test_traced_cells_agree_with_the_unmodified_model(project, plain, site):
    blip, image, base, _ = plain
    cells = read_table(project[0] / "results/tables/tracing.csv")
    cells = cells[(cells["site"] == site) & (cells["noise_level"] == NOISE) & (cells["draw"] == 0)]
    found = cells.pivot(index="layer", columns="position", values="logit_base").to_numpy()
    span = found.max() - found.min()
    assert span > 1
    noise = NOISE * draw_noise(0, "animal_shirt", 0, TOKENS, blip.config.text_config.hidden_size)
    for layer in (0, 5, LAYERS - 1):
        clean = site_states(blip, base, image, site, layer)
        for position in (NOUN, TOKENS - 1):
            truth = restored_logits(
                blip, base, image, noise, site, layer, position, clean[position]
            )
            assert abs(found[layer, position] - truth[BROWN].item()) <= TOLERANCE * span


def test_no_control_passes_because_there_is_nothing_to_miss(project):
    controls = count_controls(project[0] / "results/tables/controls.csv").dropna(subset="largest")
    patched = controls[controls["experiment"] == "patching"]
    assert set(patched["control"]) == {NO_OP, CEILING}
    assert (patched["idle"] == 0).all()
    assert (controls["idle"] < controls["checked"] / 2).all()
    assert (controls["effect"] > 0.01).all()


def test_jobs_stay_under_four_gigabytes(project):
    runtimes = read_table(project[0] / "results/runtimes.csv")
    peaks = runtimes.groupby("rule")["memory_mib"].max()
    assert peaks["answer_questions"] > 1024  # it holds all weights
    assert (peaks < 4096).all(), peaks
