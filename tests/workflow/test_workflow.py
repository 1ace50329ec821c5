"""The default graph, run for real on the miniature: every cell is the plain loop's."""

import hashlib
import json
import shutil
from collections import Counter

import oracle
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image, ImageChops, ImageStat
from project import EXAMPLES, ROOT, copy_project, planned_jobs, run, snakemake
from transformers import BlipForQuestionAnswering
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from blip_tracing.engine.draws import draw_noise
from blip_tracing.given.pictures import open_picture
from blip_tracing.given.settings import fill_config
from blip_tracing.given.sheet import load_sheet
from blip_tracing.given.tokens import load_tokenizer
from blip_tracing.machinery.tables import read_table
from blip_tracing.meaning.roles import roles_of
from blip_tracing.vocabulary.experiment import PICTURE_ONLY, QUESTIONS, experiments_of
from blip_tracing.vocabulary.tables import CEILING, NO_OP, UNRELATED

pytestmark = pytest.mark.workflow

CHECKPOINT = ROOT / "resources/miniature/checkpoint"
SHEET = load_sheet(ROOT / "config/examples.tsv").head(EXAMPLES)
CONFIG = fill_config(yaml.safe_load((ROOT / "config/config.yaml").read_text()))
LAYERS = CONFIG["model"]["layers"]["encoder"]
TRACING = experiments_of(CONFIG)["tracing"]
LEVELS, DRAWS = TRACING.levels, TRACING.draws


class Example:
    """One row of the default sheet, as the unmodified model sees it."""

    def __init__(self, row, model, processor, tokenizer):
        picture = open_picture(ROOT / row["image"])
        self.model = model
        pixels = processor(images=picture, return_tensors="pt")["pixel_values"]
        self.image = oracle.image_states(model, pixels)
        self.texts = {question: row[f"{question}_question"] for question in QUESTIONS}
        self.ids = {question: tokenizer.encode(text).ids for question, text in self.texts.items()}
        self.base = self.ids["base"]
        self.clean = {
            question: oracle.answer_logits(model, ids, self.image)
            for question, ids in self.ids.items()
        }
        self.answers = [int(self.clean[question].argmax()) for question in QUESTIONS]
        self.words = [tokenizer.id_to_token(answer) for answer in self.answers]
        base, source = (list(map(tokenizer.id_to_token, ids)) for ids in self.ids.values())
        self.roles = roles_of(base, source, CONFIG["effects"]["roles"])

    def states(self, question, site):
        """The clean run's states (L, T, D) at a site of every layer."""
        ids = self.ids[question]
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
    names = ("baseline", "tokens", "runs", "patching", "tracing", "controls")
    return {name: read_table(default_run / f"results/tables/{name}.csv") for name in names}


def assert_agree(rows: pd.DataFrame, truth: list[torch.Tensor], answers: list[int]):
    """Probabilities of both answers within 1e-5 of the truth's logits (V,) of each row."""
    logits = torch.stack(truth)
    probabilities = logits.softmax(-1)
    for question, answer in zip(QUESTIONS, answers, strict=True):
        found = torch.tensor(rows[f"p_{question}"].to_numpy(), dtype=torch.float32)
        torch.testing.assert_close(found, probabilities[:, answer], atol=1e-5, rtol=0)
        found = torch.tensor(rows[f"logit_{question}"].to_numpy(), dtype=torch.float32)
        torch.testing.assert_close(found, logits[:, answer], atol=1e-3, rtol=0)


def test_the_columns_are_the_stable_interface(tables):
    columns = {name: " ".join(table.columns) for name, table in tables.items()}
    scores = "p_base p_source logit_base logit_source"
    assert columns["baseline"] == "example question text rank token token_id logit probability"
    assert columns["runs"] == (
        f"example run question text answer answer_id noise_level draw {scores} state_sd"
    )
    assert columns["controls"] == (
        "experiment example control donor donor_number donor_token donor_role matched site "
        f"noise_level draw layer position {scores} difference tolerance effect"
    )
    assert columns["patching"] == f"example site layer position token source_token {scores}"
    assert columns["tracing"] == f"example site layer position token noise_level draw {scores}"


def test_every_question_has_its_ten_most_likely_tokens(tables, examples):
    for name, example in examples.items():
        for question, logits in example.clean.items():
            asked = tables["baseline"]
            rows = asked[(asked["example"] == name) & (asked["question"] == question)]
            best = logits.topk(10)
            assert set(rows["text"]) == {example.texts[question]}
            assert rows["rank"].tolist() == list(range(1, 11))
            assert rows["token_id"].tolist() == best.indices.tolist()
            assert rows["logit"].tolist() == pytest.approx(best.values.tolist(), abs=1e-4)
            expected = logits.softmax(-1)[best.indices].tolist()
            assert rows["probability"].tolist() == pytest.approx(expected, abs=1e-5)


def test_every_clean_run_is_the_plain_models(tables, examples):
    runs = tables["runs"]
    clean = runs[runs["noise_level"].isna() & (runs["run"] != PICTURE_ONLY)]
    assert clean["run"].tolist() == list(QUESTIONS) * len(examples)
    assert clean["question"].tolist() == clean["run"].tolist()
    for name, rows in clean.groupby("example"):
        example = examples[name]
        assert rows["text"].tolist() == list(example.texts.values())
        assert rows["answer_id"].tolist() == example.answers
        assert rows["answer"].tolist() == example.words
        assert_agree(rows, list(example.clean.values()), example.answers)


def test_the_picture_alone_is_the_plain_models_run_of_no_words(tables, examples):
    alone = tables["runs"][tables["runs"]["run"] == PICTURE_ONLY]
    assert alone["example"].tolist() == list(examples)
    assert alone["text"].tolist() == [""] * len(examples)
    for name, rows in alone.groupby("example"):
        example = examples[name]
        start, *_, end = example.base
        logits = oracle.answer_logits(example.model, [start, end], example.image)
        assert_agree(rows, [logits], example.answers)


def test_every_patched_cell_is_the_plain_loops(tables, examples):
    assert len(tables["patching"]) == sum(
        LAYERS * len(example.base) for example in examples.values()
    )
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
        assert_agree(rows, truth, example.answers)


@torch.inference_mode()
def restored_together(example, noise, site, layer, positions, states):
    """Logits (R, V) of R cells of a layer, each a row of one pass of the unmodified model.

    noise: (R, T, D), on the first block's input; at positions (R,) the states (R, D) are put back.
    """
    rows, model = len(noise), example.model

    def restore(given):
        given = given.clone()
        given[torch.arange(rows), positions] = states
        return given

    ids = torch.tensor([example.base] * rows)
    image = example.image.expand(rows, -1, -1)
    noisy = oracle.hook(model, "block_input", 0, lambda given: given + noise)
    restored = oracle.hook(model, site, layer, restore)
    question = model.text_encoder(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        encoder_hidden_states=image,
        encoder_attention_mask=torch.ones(image.shape[:-1], dtype=torch.long),
    ).last_hidden_state
    noisy.remove()
    restored.remove()
    return model.text_decoder(
        input_ids=torch.full((rows, 1), model.decoder_start_token_id),
        encoder_hidden_states=question,
        encoder_attention_mask=torch.ones_like(ids),
    ).logits[:, -1]


def test_every_traced_cell_is_the_plain_loops(tables, examples):
    """All cells of a layer in one pass, whose rows know nothing of one another, one also alone."""
    assert len(tables["tracing"]) == len(LEVELS) * DRAWS * len(tables["patching"])
    by_layer = tables["tracing"].groupby(["example", "site", "noise_level", "layer"])
    for number, ((name, site, level, layer), rows) in enumerate(by_layer):
        example = examples[name]
        clean = example.states("base", site)[layer]
        draws = [level * draw_noise(0, name, draw, len(example.base), 64) for draw in range(DRAWS)]
        noise = torch.stack([draws[draw] for draw in rows["draw"]])
        positions = torch.tensor(rows["position"].to_numpy())
        truth = restored_together(example, noise, site, layer, positions, clean[positions])
        alone = number % len(rows)
        position = int(positions[alone])
        torch.testing.assert_close(
            truth[alone],
            oracle.restored_logits(
                example.model, example.base, example.image, noise[alone], site, layer, position,
                clean[position],
            ),
            atol=1e-4,
            rtol=0,
        )  # fmt: skip
        assert_agree(rows, list(truth), example.answers)


def test_every_corrupted_run_is_the_plain_loops(tables, examples):
    corrupted = tables["runs"][tables["runs"]["run"] == TRACING.receiver.name]
    assert len(corrupted) == len(LEVELS) * DRAWS * len(examples)
    for name, rows in corrupted.groupby("example"):
        example = examples[name]
        assert set(rows["text"]) == {example.texts["base"]}
        assert set(rows["answer"]) == {example.words[0]}
        spread = example.states("base", "encoder.block_input")[0].double().numpy().std()
        assert rows["state_sd"].tolist() == pytest.approx([spread] * len(rows), rel=1e-5)
        truth = [
            oracle.corrupted_logits(
                example.model,
                example.base,
                example.image,
                level * draw_noise(0, name, draw, len(example.base), 64),
            )
            for level, draw in zip(rows["noise_level"], rows["draw"].astype(int), strict=True)
        ]
        assert_agree(rows, truth, example.answers)


def test_controls_of_known_outcome_stand_beside_every_layer(tables, examples):
    known = tables["controls"][tables["controls"]["control"] != UNRELATED]
    counts = known.groupby(["experiment", "control"]).size().to_dict()
    patches = LAYERS * len(examples)
    assert counts == {
        ("patching", CEILING): patches,
        ("patching", NO_OP): patches,
        ("tracing", CEILING): len(LEVELS) * patches,
        ("tracing", NO_OP): len(LEVELS) * patches,
    }
    assert known["difference"].max() <= 1e-6


def donors_of(name, examples):
    """By the rules, on a sheet of one block: the first come first."""
    sheet = SHEET.set_index("example")
    example = examples[name]
    questions = {text.lower() for text in example.texts.values()}
    donors = [
        other
        for other in examples
        if sheet.loc[other, "image"] != sheet.loc[name, "image"]
        and examples[other].texts["base"].lower() not in questions
        and examples[other].answers[0] not in example.answers
    ]
    roles = set(example.roles) - {""}

    def unlike(other):
        key = f"{CONFIG['controls']['seed']}\n{name}\n{other}".encode()
        distance = abs(len(examples[other].base) - len(example.base))
        lacks = not roles <= set(examples[other].roles)
        return lacks, distance, hashlib.sha256(key).digest()

    return sorted(donors, key=unlike)[: CONFIG["controls"]["donors"]]


def place_in(roles, others, at):
    """The donor's position for one of the receiver's, and whether it is of its role and place."""
    same = [place for place, role in enumerate(others) if role == roles[at] != ""]
    ordinal = roles[:at].count(roles[at])
    if same:
        return same[min(ordinal, len(same) - 1)], ordinal < len(same)
    return int(at / (len(roles) - 1) * (len(others) - 1) + 0.5), False


def test_every_null_is_the_plain_loops(tables, examples):
    """Each donor where nothing is drawn; with draws the donors in turn, at all of them."""
    donors = {name: donors_of(name, examples) for name in examples}
    assert all(donors.values())
    nulls = tables["controls"][tables["controls"]["control"] == UNRELATED]
    cells = {name: LAYERS * len(example.base) for name, example in examples.items()}
    assert nulls.groupby(["experiment", "example"]).size().to_dict() == {
        **{("patching", name): len(donors[name]) * cells[name] for name in examples},
        **{("tracing", name): len(LEVELS) * DRAWS * cells[name] for name in examples},
    }
    # One level, and draws that hold each donor.
    few = nulls["draw"] < 2 * CONFIG["controls"]["donors"]
    nulls = nulls[nulls["noise_level"].isna() | ((nulls["noise_level"] == 2) & few)]
    for (name, site), rows in nulls.groupby(["example", "site"]):
        example, states = examples[name], {}
        for donor in donors[name]:
            states[donor] = examples[donor].states("base", site)
        truth = []
        for row in rows.itertuples():
            layer, position = int(row.layer), int(row.position)
            traced = row.experiment == "tracing"
            number = int(row.draw) % len(donors[name]) if traced else int(row.donor_number)
            donor = donors[name][number]
            other, matched = place_in(example.roles, examples[donor].roles, position)
            assert (row.donor, row.donor_number) == (donor, number)
            assert row.donor_role == examples[donor].roles[other]
            assert row.matched == matched
            place = (site, layer, position, states[donor][layer, other])
            if traced:
                noise = 2 * draw_noise(0, name, int(row.draw), len(example.base), 64)
                truth.append(
                    oracle.restored_logits(
                        example.model, example.base, example.image, noise, *place
                    )
                )
            else:
                truth.append(
                    oracle.patched_logits(example.model, example.base, example.image, *place)
                )
        assert_agree(rows, truth, example.answers)


def test_the_map_has_the_published_shape(tables):
    """High at the noun in the early layers, spread over positions in the last."""
    rows = tables["patching"].query("example == 'animal_shirt' and site == 'encoder.block_input'")
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
        drawn = list((default_run / "reports/figures").rglob(f"*.{suffix}"))
        assert len(drawn) == 6 * len(SHEET) + 1


def test_the_readmes_figure_is_the_default_runs(default_run):
    """`make readme` copies it. Pixels, since a PNG's bytes depend on the machine's libraries."""
    figure = "reports/figures/patching/answers_encoder.block_input_animal_shirt.png"
    shown, drawn = (
        Image.open(path).convert("RGB")
        for path in (ROOT / "resources/readme/patching.png", default_run / figure)
    )
    assert shown.size == drawn.size
    assert ImageStat.Stat(ImageChops.difference(shown, drawn)).mean == pytest.approx([0] * 3, abs=1)


# The whole of float32's rounding is in the logits, of which ten is a usual size; the others are
# probabilities, and shares and statistics of both.
ROUNDING = {
    **dict.fromkeys(("logit", "logit_base", "logit_source", "logit_difference_change"), 5e-5),
    **dict.fromkeys(("log_probability_change", "log_odds_change", "normalised"), 1e-3),
    **dict.fromkeys(("mean", "low", "high", "value"), 1e-4),
    **dict.fromkeys(("p_map", "p_floor", "p_null", "p_family", "p_study", "chosen"), 0.01),
}


def test_jobs_apart_give_the_rows_of_the_one_job_and_its_numbers_to_rounding(default_run, tmp_path):
    """Shards of two rows, jobs of few layers and levels; by default one job measures all."""
    logs = [folder.stem for folder in (default_run / "results/logs").iterdir()]
    assert "measure_at_once" in logs
    project = copy_project(tmp_path / "project")
    config = yaml.safe_load((project / "config/config.yaml").read_text())
    config |= {"shard_size": 2, "layers_per_job": 3, "noise_levels_per_job": 2}
    # At the two lower ones examples are left out for two reasons each.
    levels = [0.5, 1, 5]
    config["runs"]["noisy"]["corrupt"]["levels"] = levels
    config["report"]["draws_at"] = 5
    (project / "config/config.yaml").write_text(yaml.safe_dump(config))
    names = [
        "baseline", "tokens", "runs", "patching", "tracing", "controls", "effects", "excluded",
        "summary", "families", "negatives", "run_means",
    ]  # fmt: skip
    assert {path.stem for path in (default_run / "results/tables").glob("*.csv")} == set(names)
    run(project, *(f"results/tables/{name}.csv" for name in names))
    logs = [folder.stem for folder in (project / "results/logs").iterdir()]
    assert {"encode_images", "answer_questions", "run_corrupted", "intervene"} <= set(logs)
    assert "measure_at_once" not in logs
    for name in names:
        found, expected = (
            read_table(folder / f"results/tables/{name}.csv") for folder in (project, default_run)
        )
        if "noise_level" in expected:
            traced = expected["noise_level"].isin(levels)
            expected = expected[traced | expected["noise_level"].isna()].reset_index(drop=True)
        assert list(found) == list(expected)
        # The one test over all levels has other levels here.
        for column in map(str, expected.columns.drop("p_study", errors="ignore")):
            pd.testing.assert_series_equal(
                found[column], expected[column], rtol=0, atol=ROUNDING.get(str(column), 1e-5)
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
    config = yaml.safe_load((project / "config/config.yaml").read_text())
    config["experiments"]["tracing"]["sites"] = []
    (project / "config/config.yaml").write_text(yaml.safe_dump(config))
    picture = project / "picture-20.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])
    summary = "results/tables/summary.csv"
    failed = snakemake(project, summary)
    assert failed.returncode == 1
    assert "picture-20.png" in failed.stdout
    done = project / "results/cells/patching/layers_0-5"
    assert [path.name for path in sorted(done.glob("*.parquet"))] == ["0000.parquet"]
    picture.write_bytes(whole)
    shard = ("encode_images", "answer_questions", "intervene", "measure_effects")
    assert planned_jobs(project, summary) == Counter([*shard, "summarize_effects"])
    run(project, summary)
