"""The default graph, run for real on the miniature: every cell is the plain loop's."""

import json
import shutil
from collections import Counter

import oracle
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image, ImageChops, ImageStat
from project import ROOT, copy_project, planned_jobs, run, snakemake
from transformers import BlipForQuestionAnswering
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from blip_tracing.inputs import load_sheet
from blip_tracing.noise import draw_noise
from blip_tracing.pictures import open_picture
from blip_tracing.tables import read_table
from blip_tracing.tokens import load_tokenizer

pytestmark = pytest.mark.workflow

CHECKPOINT = ROOT / "resources/miniature/checkpoint"
SHEET = load_sheet(ROOT / "config/examples.tsv")


class Example:
    """One row of the default sheet, as the unmodified model sees it."""

    def __init__(self, row, model, processor, tokenizer):
        picture = open_picture(ROOT / row["image"])
        self.model = model
        pixels = processor(images=picture, return_tensors="pt")["pixel_values"]
        self.image = oracle.image_states(model, pixels)
        self.base = tokenizer.encode(row["base_question"]).ids
        self.source = tokenizer.encode(row["source_question"]).ids
        clean = [oracle.answer_logits(model, ids, self.image) for ids in (self.base, self.source)]
        self.answers = [int(logits.argmax()) for logits in clean]

    def states(self, role, site):
        """The clean run's states (L, T, D) at a site of every layer."""
        ids = getattr(self, role)
        layers = range(len(self.model.text_encoder.encoder.layer))
        return torch.stack(
            [oracle.site_states(self.model, ids, self.image, site, layer) for layer in layers]
        )


@pytest.fixture(scope="module")
def examples():
    model = BlipForQuestionAnswering.from_pretrained(CHECKPOINT).eval()
    processor = BlipImageProcessorPil.from_pretrained(CHECKPOINT)
    tokenizer = load_tokenizer(CHECKPOINT)
    return {
        row["example"]: Example(row, model, processor, tokenizer)
        for row in SHEET.to_dict("records")
    }


@pytest.fixture(scope="module")
def tables(default_run):
    names = ("baseline", "answers", "tokens", "patching", "tracing", "floor", "controls")
    return {name: read_table(default_run / f"results/tables/{name}.csv") for name in names}


def assert_agree(rows: pd.DataFrame, truth: torch.Tensor, answers: list[int], roles: list[str]):
    """Probabilities of the rows' answers within 1e-5 of the truth's logits (rows, V)."""
    probabilities = truth.softmax(-1)
    for role, answer in zip(roles, answers, strict=False):
        found = torch.tensor(rows[f"p_{role}"].to_numpy(), dtype=torch.float32)
        torch.testing.assert_close(found, probabilities[:, answer], atol=1e-5, rtol=0)
        found = torch.tensor(rows[f"logit_{role}"].to_numpy(), dtype=torch.float32)
        torch.testing.assert_close(found, truth[:, answer], atol=1e-3, rtol=0)


def test_the_columns_are_the_stable_interface(tables):
    columns = {name: " ".join(table.columns) for name, table in tables.items()}
    assert columns["baseline"] == "example role question rank token token_id logit probability"
    assert columns["patching"] == (
        "example site layer position token source_token p_base p_source logit_base logit_source"
    )
    assert columns["tracing"] == (
        "example site noise_level sample layer position token "
        "p_base logit_base p_source logit_source"
    )
    assert columns["floor"] == (
        "example noise_level sample p_base logit_base p_source logit_source"
    )


def test_every_question_has_its_ten_most_likely_tokens(tables, examples):
    for name, example in examples.items():
        for role in ("base", "source"):
            asked = tables["baseline"]
            rows = asked[(asked["example"] == name) & (asked["role"] == role)]
            logits = oracle.answer_logits(example.model, getattr(example, role), example.image)
            best = logits.topk(10)
            assert rows["rank"].tolist() == list(range(1, 11))
            assert rows["token_id"].tolist() == best.indices.tolist()
            assert rows["logit"].tolist() == pytest.approx(best.values.tolist(), abs=1e-4)
            expected = logits.softmax(-1)[best.indices].tolist()
            assert rows["probability"].tolist() == pytest.approx(expected, abs=1e-5)


def test_every_patched_cell_is_the_plain_loops(tables, examples):
    assert len(tables["patching"]) == sum(6 * len(example.base) for example in examples.values())
    for (name, site), rows in tables["patching"].groupby(["example", "site"]):
        example = examples[name]
        donor = example.states("source", site)
        truth = [
            oracle.patched_logits(
                example.model,
                example.base,
                example.image,
                site,
                layer,
                position,
                donor[layer, position],
            )
            for layer, position in zip(rows["layer"], rows["position"], strict=True)
        ]
        assert_agree(rows, torch.stack(truth), example.answers, ["base", "source"])


def test_every_traced_cell_is_the_plain_loops(tables, examples):
    assert len(tables["tracing"]) == 7 * 10 * len(tables["patching"])
    for (name, site, level), rows in tables["tracing"].groupby(["example", "site", "noise_level"]):
        example = examples[name]
        clean = example.states("base", site)
        noise = [level * draw_noise(0, name, sample, len(example.base), 64) for sample in range(10)]
        truth = [
            oracle.restored_logits(
                example.model,
                example.base,
                example.image,
                noise[sample],
                site,
                layer,
                position,
                clean[layer, position],
            )
            for sample, layer, position in zip(
                rows["sample"], rows["layer"], rows["position"], strict=True
            )
        ]
        assert_agree(rows, torch.stack(truth), example.answers, ["base", "source"])


def test_every_floor_is_the_plain_loops(tables, examples):
    assert len(tables["floor"]) == 7 * 10 * len(examples)
    for name, rows in tables["floor"].groupby("example"):
        example = examples[name]
        truth = [
            oracle.corrupted_logits(
                example.model,
                example.base,
                example.image,
                level * draw_noise(0, name, sample, len(example.base), 64),
            )
            for level, sample in zip(rows["noise_level"], rows["sample"], strict=True)
        ]
        assert_agree(rows, torch.stack(truth), example.answers, ["base", "source"])


def test_controls_of_known_outcome_stand_beside_every_layer(tables, examples):
    known = tables["controls"].query("control != 'null'")
    counts = known.groupby(["experiment", "control"]).size().to_dict()
    patches = 6 * len(examples)
    assert counts == {
        ("patching", "ceiling"): patches,
        ("patching", "no_op"): patches,
        ("tracing", "all_restored"): 7 * patches,
        ("tracing", "no_op"): 7 * patches,
    }
    assert known["difference"].max() <= 1e-6


def test_every_null_is_the_plain_loops(tables, examples):
    """The nearest example before with another picture; the first has the second's."""
    names = list(examples)
    donors = dict(zip(names, [names[1], *names], strict=False))
    nulls = tables["controls"].query("control == 'null'")
    assert nulls.groupby("experiment").size().to_dict() == {
        "patching": len(tables["patching"]),
        "tracing": 7 * len(tables["patching"]),
    }
    nulls = nulls[nulls["noise_level"].isna() | (nulls["noise_level"] == 2)]
    for (name, site), rows in nulls.groupby(["example", "site"]):
        assert set(rows["donor"]) == {donors[name]}
        example = examples[name]
        donor = examples[donors[name]].states("base", site)
        noise = 2 * draw_noise(0, name, 0, len(example.base), 64)
        truth = []
        for row in rows.itertuples():
            layer, position = int(row.layer), int(row.position)
            state = donor[layer, min(position, donor.shape[1] - 1)]
            place = (site, layer, position, state)
            truth.append(
                oracle.patched_logits(example.model, example.base, example.image, *place)
                if row.experiment == "patching"
                else oracle.restored_logits(
                    example.model, example.base, example.image, noise, *place
                )
            )
        assert_agree(rows, torch.stack(truth), example.answers, ["base", "source"])


def test_the_map_has_the_published_shape(tables):
    """High at the noun in the early layers, spread over positions in the last."""
    rows = tables["patching"].query("example == 'animal_shirt' and site == 'block_input'")
    table = rows.pivot(index="position", columns="layer", values="p_source")
    noun = 7
    assert table.loc[noun, 0] > 0.9
    assert table.drop(noun)[0].max() < 0.1
    assert table[5].max() < table.loc[noun, 0]


def test_results_say_where_they_come_from(default_run):
    facts = json.loads((default_run / "results/tables/tracing.provenance.json").read_text())
    assert facts["model"] == "resources/miniature/checkpoint"
    assert len(facts["weights_sha256"]) == 64
    assert (facts["dtype"], facts["seed"]) == ("float32", 0)
    assert {"device", "commit", "python"} <= facts.keys()
    assert {"torch", "transformers", "pyvene"} <= facts["packages"].keys()


def test_reports_and_figures_are_there(default_run):
    for report in ("baseline", "patching", "tracing"):
        for suffix in ("html", "ipynb"):
            assert (default_run / f"reports/{report}.{suffix}").stat().st_size > 10_000
    for suffix in ("pdf", "svg", "png"):
        assert (
            len(list((default_run / "reports/figures").glob(f"*.{suffix}"))) == 6 * len(SHEET) + 1
        )


def test_the_readmes_figure_is_the_default_runs(default_run):
    """`make readme` copies it. Pixels, since a PNG's bytes depend on the machine's libraries."""
    figure = "reports/figures/patching_block_input_animal_shirt.png"
    shown, drawn = (
        Image.open(path).convert("RGB")
        for path in (ROOT / "resources/readme/patching.png", default_run / figure)
    )
    assert shown.size == drawn.size
    assert ImageStat.Stat(ImageChops.difference(shown, drawn)).mean == pytest.approx([0] * 3, abs=1)


# The whole of float32's rounding is in the logits, of which ten is a usual size; the others are
# probabilities, and shares and statistics of both.
ROUNDING = {
    **dict.fromkeys(("logit_base", "logit_source", "logit_difference"), 1e-5),
    **dict.fromkeys(("log_probability_change", "normalised", "t"), 1e-3),
    **dict.fromkeys(("mean", "low", "high", "value"), 1e-4),
    "p_family": 0.01,
}


def test_however_the_work_is_grouped_rows_are_the_same_and_numbers_to_rounding(
    default_run, tmp_path
):
    """Shards of three rows and one, jobs of few layers and levels; the default has one of each."""
    project = copy_project(tmp_path / "project")
    config = yaml.safe_load((project / "config/config.yaml").read_text())
    assert config["layers_per_job"] >= config["model"]["layers"]
    assert config["noise_levels_per_job"] >= len(config["tracing"]["noise_levels"])
    config |= {"shard_size": 3, "layers_per_job": 4, "noise_levels_per_job": 1}
    # At the two lower ones examples are left out for two reasons each.
    config["tracing"]["noise_levels"] = [0.5, 1, 5]
    config["report"]["draws_at"] = 5
    (project / "config/config.yaml").write_text(yaml.safe_dump(config))
    names = ["patching", "tracing", "floor", "controls", "effects", "excluded", "summary"]
    run(project, *(f"results/tables/{name}.csv" for name in names))
    for name in names:
        found, expected = (
            read_table(folder / f"results/tables/{name}.csv") for folder in (project, default_run)
        )
        if "noise_level" in expected:
            traced = expected["noise_level"].isin(config["tracing"]["noise_levels"])
            expected = expected[traced | expected["noise_level"].isna()].reset_index(drop=True)
        for column in map(str, expected):
            pd.testing.assert_series_equal(
                found[column], expected[column], rtol=0, atol=ROUNDING.get(str(column), 1e-6)
            )


def test_a_shard_that_fails_costs_that_shard_alone(tmp_path):
    """A picture of the second shard breaks off; once it is whole, that shard alone is computed."""
    project = copy_project(tmp_path / "project")
    rows = pd.concat([SHEET] * 8, ignore_index=True)
    for number, image in enumerate(rows["image"]):
        shutil.copy(project / image, project / f"picture-{number}.png")
    rows["image"] = [f"picture-{number}.png" for number in rows.index]
    rows["example"] = [f"example-{number}" for number in rows.index]
    rows.to_csv(project / "config/examples.tsv", sep="\t", index=False)
    config = (project / "config/config.yaml").read_text()
    config = config.replace("tracing:\n  sites: [block_input]", "tracing:\n  sites: []")
    (project / "config/config.yaml").write_text(config)
    picture = project / "picture-20.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])
    summary = "results/tables/summary.csv"
    failed = snakemake(project, summary)
    assert failed.returncode == 1
    assert "picture-20.png" in failed.stdout
    done = project / "results/patching/block_input/layers_0-5"
    assert [path.name for path in sorted(done.glob("*.parquet"))] == ["0000.parquet"]
    picture.write_bytes(whole)
    shard = ("encode_images", "answer_baseline", "patch_layer", "measure_effects")
    assert planned_jobs(project, summary) == Counter([*shard, "summarize_effects"])
    run(project, summary)
