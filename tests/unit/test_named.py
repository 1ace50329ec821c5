"""The published methods' configurations: what each asks for is what the publication did."""

from typing import Any

import pytest
import yaml
from project import ROOT

from blip_tracing.given.plan import Plan
from blip_tracing.given.settings import fill_config
from blip_tracing.meaning.roles import roles_of
from blip_tracing.vocabulary.experiment import BASE, SOURCE, experiments_of
from blip_tracing.vocabulary.sites import SITES, window_of

NAMED = ("palit-2023", "rome-style", "notice-2025")
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
    told = (ROOT / "config/methods.md").read_text().split("\n## ")
    (section,) = (part for part in told if part.startswith(f"{name}.yaml"))
    for heading in ("**What was done there.**", "**What is done here.**", "**Where it differs"):
        assert heading in section


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


def test_romes_noise_is_of_three_deviations_on_the_noun_alone() -> None:
    config = config_of("rome-style")
    asked = experiments_of(config)
    noise = asked["states"].receiver.corruption
    assert noise
    assert (noise.kind, noise.at, noise.levels, noise.unit, noise.draws) == (
        "gaussian", "question.word_embeddings", (3.0,), "std", 10,
    )  # fmt: skip
    roles = roles_of(QUESTION, OTHER, noise.role_rules)
    assert [word for word, role in zip(QUESTION, roles, strict=True) if role == noise.role] == [
        "cat"
    ]
    assert len(config["effects"]["roles"]) == 6
    assert "" not in roles
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
    assert roles_of(question, question, rules) == [
        "[CLS]", "before or", "before or", "or", "after or", "after or", "after or", "?", "[SEP]",
    ]  # fmt: skip
