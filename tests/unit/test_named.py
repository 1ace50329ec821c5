"""The published methods' configurations: what each asks for is what the publication did."""

from typing import Any

import pytest
import yaml
from project import ROOT

from blip_tracing.given.plan import Plan
from blip_tracing.given.settings import fill_config
from blip_tracing.given.sheet import load_sheet
from blip_tracing.meaning.roles import roles_of
from blip_tracing.vocabulary.experiment import BASE, SOURCE, experiments_of
from blip_tracing.vocabulary.sites import SITES, window_of

NAMED = ("palit-2023", "palit-2023-scale", "rome-style", "notice-2025")
QUESTION = ["[CLS]", "what", "is", "the", "color", "of", "the", "cat", "[SEP]"]
OTHER = [word.replace("cat", "dog") for word in QUESTION]


def config_of(name: str) -> dict[str, Any]:
    return fill_config(yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()))


@pytest.mark.parametrize("name", NAMED)
def test_it_can_be_planned_and_is_told_in_the_manual(name: str) -> None:
    config = config_of(name)
    row = {"example": "a", "image": "p.jpg", "base_question": "q", "source_question": "s",
           "base_answer": "", "source_answer": "", "source_image": "", "boxes": "",
           "image_sha256": "", "source_image_sha256": ""}  # fmt: skip
    plan = Plan(config, [row])
    assert set(plan.experiments) == set(config["experiments"])
    assert config["model"]["revision"] != "main"
    manual = (ROOT / "config/README.md").read_text()
    assert f"`{name}.yaml`" in manual


def test_palits_noise_is_multiplied_into_the_pictures_states() -> None:
    """By N(1, 5²); block outputs at each token, and at [DEC]."""
    asked = experiments_of(config_of("palit-2023"))
    noise = asked["encoder"].receiver.corruption
    assert noise
    assert (noise.kind, noise.at, noise.levels, noise.role) == (
        "multiplicative", "picture.states", (5.0,), "",
    )  # fmt: skip
    assert {name: (each.sites, each.positions) for name, each in asked.items()} == {
        "encoder": (("encoder.block_output",), "each"),
        "decoder": (("decoder.block_output",), "each"),
        "together": (("encoder.block_output",), "all"),
    }
    assert {(each.receiver.name, each.donor.name) for each in asked.values()} == {("noisy", BASE)}


def test_palits_noise_can_be_drawn_anew_for_every_cell_as_theirs_was() -> None:
    shown = (ROOT / "config/palit-2023.yaml").read_text()
    config = yaml.safe_load(shown.replace("      #   fresh: true\n", "      fresh: true\n"))
    asked = experiments_of(fill_config(config))
    assert all(each.fresh for each in asked.values())
    assert not any(each.fresh for each in experiments_of(config_of("palit-2023")).values())


def test_palits_older_state_is_a_constant_and_windows_of_states() -> None:
    asked = experiments_of(config_of("palit-2023-scale"))
    scale = asked["self_attention"].receiver.corruption
    assert scale
    assert (scale.kind, scale.at, scale.role, scale.draws) == ("scale", "picture.states", "", 1)
    assert {name: (each.sites, each.window, each.positions) for name, each in asked.items()} == {
        "self_attention": (("encoder.self_attention_state",), 3, "each"),
        "cross_attention": (("encoder.cross_attention_state",), 3, "each"),
    }
    assert {(each.receiver.name, each.donor.name) for each in asked.values()} == {("scaled", BASE)}
    sheet = load_sheet(ROOT / "config/palit-2023-scale.tsv")
    (row,) = sheet.to_dict("records")
    assert row["image"].endswith("train2017/000000220218.jpg")
    assert row["base_question"] == "what is the color of the character"
    # One word of the vocabulary for another, so that both have nine tokens.
    assert len(row["source_question"].split()) == 7
    # Windows as theirs: `layer - window // 2` to `layer - (-window // 2)`, cut at both ends.
    assert [*window_of(0, 3, 12)] == [0, 1]
    assert [*window_of(11, 3, 12)] == [10, 11]


def test_romes_noise_is_of_three_deviations_on_the_noun_alone() -> None:
    config = config_of("rome-style")
    asked = experiments_of(config)
    noise = asked["states"].receiver.corruption
    assert noise
    assert (noise.kind, noise.at, noise.levels, noise.unit, noise.draws) == (
        "gaussian", "question.word_embeddings", (3.0,), "std", 10,
    )  # fmt: skip
    for subject in (["cat"], ["big", "old", "fire", "truck"]):
        question = [*QUESTION[:-2], *subject, *QUESTION[-1:]]
        other = [*QUESTION[:-2], *(f"no {word}" for word in subject), *QUESTION[-1:]]
        found = roles_of(question, other, noise.role_rules)
        assert [
            word for word, role in zip(question, found, strict=True) if role == noise.role
        ] == subject
        parts = roles_of(question, other, config["effects"]["roles"])[-len(subject) - 1 :]
        of_subject = ["first subject token", *["middle subject tokens"] * 2, "last subject token"]
        assert parts == [*of_subject[-len(subject) :], "last token"]
    # From l - 5 to l + 4, as `causal_trace.py` has it.
    assert window_of(6, asked["windows"].window, 12) == range(1, 11)
    assert asked["single"].sites == asked["windows"].sites
    assert asked["single"].window == asked["states"].window == 1


def test_notice_puts_clean_states_and_heads_into_the_other_run() -> None:
    asked = experiments_of(config_of("notice-2025"))
    assert {(each.receiver.name, each.donor.name) for each in asked.values()} == {(SOURCE, BASE)}
    heads = asked["heads"]
    assert all(SITES[site].heads for site in heads.sites)
    assert heads.heads == ()
    question = ["[CLS]", "is", "girl", "or", "boy", "sit", "beach", "?", "[SEP]"]
    rules = config_of("notice-2025")["effects"]["roles"]
    # The right answer is either choice; the other is as the words around it.
    for right, girl, boy in (
        ([2], "right answer", "after or"),
        ([4], "before or", "right answer"),
    ):
        assert roles_of(question, question, rules, {"base": right, "source": [2]}) == [
            "[CLS]", "before or", girl, "or", boy, "after or", "after or", "?", "[SEP]",
        ]  # fmt: skip
