"""Methods that find the same places are said to agree, and what contradicts is found, not else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up_effects import CHANGES, RULES, evidence_of, role_means
from refusals import refusal, with_key
from scipy.stats import spearmanr
from synthetic_tables import NOISY, ROLES, made_up_experiments

from blip_tracing.drawing.analyses.methods import correlations_by_method, correlations_by_metric
from blip_tracing.given.settings import fill_config
from blip_tracing.meaning.analyses.methods import (
    CONTRADICTION,
    MAPS,
    OTHER_CELL,
    SAME_CELL,
    Method,
    analyse,
    largest_cell,
    shared_sides,
)
from blip_tracing.meaning.likeness import AGREE, CANNOT_TELL, DIFFER, SAME_NUMBERS
from blip_tracing.telling.analysed import contradictions_in_words
from blip_tracing.vocabulary.experiment import BASE, SOURCE, Experiment
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.tables import CEILING

ENDS = {"restoring": (NOISY, BASE), "taking": (BASE, NOISY), "exchanging": (BASE, SOURCE)}
EXPERIMENTS = made_up_experiments(noise_levels=(5.0,), ends=ENDS)
RESTORING, TAKING, EXCHANGING = EXPERIMENTS
MANY, LAYERS = 24, 6
HEADS = "encoder.self_attention_heads"
SHAPE = (LAYERS, len(ROLES))
CELLS = [(layer, role) for layer in range(LAYERS) for role in ROLES]


def truth(seed: int = 0) -> np.ndarray:
    """Effects of all cells from 0.03 to 0.6, in some order: (layers, roles)."""
    cells = np.linspace(0.03, 0.6, LAYERS * len(ROLES))
    return np.random.default_rng(seed).permutation(cells).reshape(SHAPE)


def with_noise(shown: np.ndarray, seed: int, examples: int = MANY, size: float = 0.05) -> Any:
    return shown + size * np.random.default_rng(seed).normal(size=(examples, *SHAPE))


def told(
    folder: Path, first: Any, second: Any, quantities: tuple[str, ...] = CHANGES[:1], **known: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Table and verdicts of restoring and exchanging, each of effects as `role_means` takes."""
    tables = [
        made if isinstance(made, pd.DataFrame) else role_means(experiment, made, ROLES, **known)
        for experiment, made in ((RESTORING, first), (EXCHANGING, second))
    ]
    settings = {
        "experiments": {"noise": "restoring", "words": "exchanging"},
        "quantities": list(quantities),
        "alike": 0.8,
    }
    return analyse(evidence_of(folder, tables, EXPERIMENTS, settings))


def said(verdicts: pd.DataFrame, statement: str) -> str:
    rows = verdicts[verdicts["statement"].str.startswith(statement)]
    return str(rows["verdict"].iloc[0]) if len(rows) else ""


def claims(verdicts: pd.DataFrame) -> set[str]:
    """What is claimed: all but that nothing can be told or is shown."""
    nothing = (CANNOT_TELL, SAME_NUMBERS, "no contradiction shown")
    words = verdicts.loc[~verdicts["statement"].str.startswith("rank correlation"), "verdict"]
    return {word for word in words if word not in nothing}


# --- what is there is found


def test_methods_of_one_map_agree_and_have_their_largest_effect_in_one_cell(tmp_path: Path) -> None:
    first = with_noise(truth(), 1)
    second = with_noise(truth() ** 2 / 0.6, 2)
    table, verdicts = told(tmp_path, first, second)
    assert said(verdicts, "agreement by probability") == AGREE
    row = table[table["row"] == MAPS].iloc[0]
    means = [of.mean(axis=0).ravel() for of in (first, second)]
    assert row["rho"] == pytest.approx(spearmanr(*means)[0])
    assert (row["cells"], row["pictures"]) == (len(CELLS), MANY)
    assert row["rho_low"] < row["rho"] < row["rho_high"]
    assert row["ceiling"] == pytest.approx(
        np.sqrt(row["first_reliability"] * row["second_reliability"])
    )


def test_the_largest_effect_is_told_by_its_cell(tmp_path: Path) -> None:
    one, other = truth(), truth()
    one[2, 3] = other[2, 3] = 0.95
    verdicts = told(tmp_path, with_noise(one, 1), with_noise(other, 2))[1]
    assert said(verdicts, "largest") == SAME_CELL
    other[2, 3], other[5, 0] = 0.1, 0.95
    table, verdicts = told(tmp_path, with_noise(one, 1), with_noise(other, 2))
    assert said(verdicts, "largest") == OTHER_CELL
    row = table[table["row"] == MAPS].iloc[0]
    assert row["first_largest"] == f"layer 2, {ROLES[3]}"
    assert row["second_largest"] == f"layer 5, {ROLES[0]}"


def test_methods_of_other_maps_differ(tmp_path: Path) -> None:
    verdicts = told(tmp_path, with_noise(truth(0), 1), with_noise(truth(7), 2))[1]
    assert said(verdicts, "agreement by probability") == DIFFER


@pytest.mark.parametrize("quantity", CHANGES)
@pytest.mark.parametrize(("other", "signs"), [(TAKING, "---+"), (EXCHANGING, "++-+")])
def test_an_effect_is_positive_where_it_goes_the_donors_way(
    tmp_path: Path, quantity: str, other: Experiment, signs: str
) -> None:
    """Taking lowers the answer; the base answer's logit less the source's falls in exchanging."""
    second = with_noise(truth(), 2)
    turned = {
        name: second * (1 if sign == "+" else -1) for name, sign in zip(CHANGES, signs, strict=True)
    }
    tables = [
        role_means(RESTORING, with_noise(truth(), 1), ROLES),
        role_means(other, turned, ROLES),
    ]
    settings = {"experiments": {"a": "restoring", "b": other.name}, "quantities": [quantity],
                "alike": 0.8}  # fmt: skip
    verdicts = analyse(evidence_of(tmp_path, tables, EXPERIMENTS, settings))[1]
    assert said(verdicts, "agreement by") == AGREE


def test_metrics_that_rank_otherwise_are_told_of_each_method(tmp_path: Path) -> None:
    first = {name: with_noise(truth(), 1) for name in CHANGES}
    second = {**first, "logit_difference_change": with_noise(truth(7), 3)}
    second["probability_change"] = with_noise(truth(), 2)
    second["logit_difference_change"] *= -1  # of the answers, of which the source's is followed
    quantities = ("probability_change", "logit_difference_change")
    verdicts = told(tmp_path, first, second, quantities)[1]
    assert said(verdicts, "agreement by 2 metrics") == f"{AGREE}: 1, {DIFFER}: 1"
    own = verdicts[verdicts["about"].str.startswith("words at")].iloc[0]
    assert own["statement"] == "agreement by probability and by logit difference"
    assert own["verdict"] == DIFFER
    # Of the other method both metrics have the same numbers: nothing is compared.
    assert not verdicts["about"].str.startswith("noise at").any()


@pytest.mark.parametrize(("effect", "verdict"), [(0.0, "second nil"), (-0.2, "second opposite")])
def test_a_cell_that_one_marks_and_the_other_refutes_is_a_contradiction(
    tmp_path: Path, effect: float, verdict: str
) -> None:
    one, other = truth(), truth()
    one[3, 2], other[3, 2] = 0.4, effect
    first, second = with_noise(one, 1, size=0.004), with_noise(other, 2, size=0.004)
    table, verdicts = told(tmp_path, first, second)
    found = table[table["row"] == CONTRADICTION]
    assert list(zip(found["layer"], found["token_role"], strict=True)) == [(3, ROLES[2])]
    row = found.iloc[0]
    assert row["verdict"] == verdict
    assert row["first_effect"] == pytest.approx(first[:, 3, 2].mean())
    assert row["second_effect"] == pytest.approx(second[:, 3, 2].mean())
    assert row["second_effect_low"] < row["second_effect"] < row["second_effect_high"]
    assert max(row["p_first"], row["p_second"]) < 0.05
    counted = verdicts[verdicts["statement"].str.startswith("cells that one marks")].iloc[0]
    assert (counted["value"], counted["verdict"]) == (1, "contradict each other")


# --- what must not be said


def test_a_cell_that_varies_too_much_to_be_nothing_is_no_contradiction(tmp_path: Path) -> None:
    one, other = truth(), truth()
    one[3, 2], other[3, 2] = 0.4, 0.0
    second = with_noise(other, 2, size=0.004)
    second[:, 3, 2] = 0.2 * np.random.default_rng(5).normal(size=MANY)
    table, verdicts = told(tmp_path, with_noise(one, 1, size=0.004), second)
    assert not (table["row"] == CONTRADICTION).any()
    assert said(verdicts, "cells that one marks") == "no contradiction shown"


def test_a_cell_that_is_not_beyond_the_null_contradicts_nobody(tmp_path: Path) -> None:
    """Any state does there what the method does: it is no mark."""
    first, second = with_noise(truth(), 1, size=0.004), with_noise(0 * truth(), 2, size=0.002)
    table, _ = told(tmp_path, role_means(RESTORING, first, ROLES, contrast=0.0), second)
    assert not (table["row"] == CONTRADICTION).any()


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_claimed_of_methods_that_find_nothing(tmp_path: Path, seed: int) -> None:
    """Their noise is the same, so that their maps correlate."""
    shared = with_noise(np.zeros(SHAPE), seed, examples=12)
    other = shared + 0.1 * with_noise(np.zeros(SHAPE), seed + 50, examples=12)
    table, verdicts = told(tmp_path, shared, other, CHANGES[:2])
    assert table["rho"].max() > 0.7
    assert claims(verdicts) <= {f"{CANNOT_TELL}: 2"}


def test_nothing_is_claimed_where_all_cells_are_alike(tmp_path: Path) -> None:
    varied = 0.3 + 0.05 * np.random.default_rng(0).normal(size=(MANY, 1, 1)) + np.zeros(SHAPE)
    table, verdicts = told(tmp_path, varied, with_noise(truth(), 1))
    maps = table[table["row"] == MAPS].iloc[0]
    assert np.isnan(maps["rho"])
    assert (maps["verdict"], maps["largest"], maps["first_largest"]) == (CANNOT_TELL,) * 2 + ("",)
    assert claims(verdicts) == set()


@pytest.mark.parametrize("pictures", [1, 5])
def test_nothing_is_claimed_of_fewer_than_six_pictures(tmp_path: Path, pictures: int) -> None:
    one, other = truth(), truth(7)
    one[3, 2], other[3, 2] = 0.9, 0.0
    verdicts = told(
        tmp_path, with_noise(one, 1, size=0.001), with_noise(other, 2, size=0.001),
        pictures=[f"{n % pictures}" for n in range(MANY)],
    )[1]  # fmt: skip
    assert claims(verdicts) == set()


def test_nothing_is_claimed_where_the_two_include_no_example_in_common(tmp_path: Path) -> None:
    halves = np.arange(MANY)[:, None, None] < MANY // 2
    first = role_means(RESTORING, with_noise(truth(), 1), ROLES, included=halves)
    second = role_means(EXCHANGING, with_noise(truth(), 2), ROLES, included=~halves)
    verdicts = told(tmp_path, first, second)[1]
    assert claims(verdicts) == set()


def test_nothing_is_claimed_where_the_noise_hides_nothing(tmp_path: Path) -> None:
    """Then no example is included."""
    first = role_means(RESTORING, with_noise(0 * truth(), 1), ROLES, included=False)
    second = role_means(EXCHANGING, with_noise(truth(), 2), ROLES)
    assert claims(told(tmp_path, first, second)[1]) == set()


def test_two_experiments_that_are_one_are_not_said_to_agree(tmp_path: Path) -> None:
    same = with_noise(truth(), 1)
    table, verdicts = told(tmp_path, same, same)
    assert said(verdicts, "agreement by") == SAME_NUMBERS
    assert len(verdicts) == 1
    assert claims(verdicts) == set()
    assert not (table["row"] == CONTRADICTION).any()


def test_what_is_known_beforehand_in_either_method_does_not_count(tmp_path: Path) -> None:
    """A ceiling of one is as large as can be, whatever the other does there."""
    one, other = truth(), truth()
    one[0, 2], other[0, 2] = 0.99, 0.0
    known = np.full(SHAPE, "", dtype=object)
    known[0, 2] = CEILING
    first = role_means(RESTORING, with_noise(one, 1, size=0.004), ROLES, known=known)
    second = role_means(EXCHANGING, with_noise(other, 2, size=0.004), ROLES)
    table, verdicts = told(tmp_path, first, second)
    assert table.loc[table["row"] == MAPS, "cells"].iloc[0] == len(CELLS) - 1
    assert not (table["row"] == CONTRADICTION).any()
    assert said(verdicts, "agreement by") == AGREE


def test_the_largest_of_what_is_not_marked_is_not_told() -> None:
    """One cell is always largest, but below the least effect."""
    small = np.full((MANY, *SHAPE), 0.0)
    small[:, 2, 3] = RULES.least_effect / 2
    rows = role_means(RESTORING, with_noise(0 * truth(), 1, size=1e-4) + small, ROLES)
    method = Method("noise", RESTORING, 5.0, rows)
    side = shared_sides(method, method, CHANGES[:1])[0]
    assert largest_cell(side, side.of(CHANGES[0]), RULES) == ""


def test_heads_are_compared_by_their_means_over_positions(tmp_path: Path) -> None:
    """What a head does at the positions of one role is a part of that, and not counted twice."""
    asked = made_up_experiments((HEADS,), noise_levels=(5.0,), ends=ENDS)
    heads = np.broadcast_to(np.arange(len(ROLES)), (MANY, *SHAPE))
    tables = []
    for experiment, seed in ((asked[0], 1), (asked[2], 2)):
        made = with_noise(truth(), seed)
        tables.append(role_means(experiment, made, [ALL] * len(ROLES), head=heads))
        tables.append(role_means(experiment, -made, ROLES, head=heads))
    settings = {"experiments": {"noise": "restoring", "words": "exchanging"},
                "quantities": [CHANGES[0]], "alike": 0.8}  # fmt: skip
    table, verdicts = analyse(evidence_of(tmp_path, tables, asked, settings))
    assert table.loc[0, "cells"] == len(CELLS)
    assert said(verdicts, "agreement by") == AGREE


# --- how it is shown


def test_each_correlation_is_shown_with_what_is_told_of_it(tmp_path: Path) -> None:
    """Of a map whose cells are all alike that there is none."""
    alike = 0.3 + np.zeros((MANY, *SHAPE))
    for second, shown in ((with_noise(truth(7), 2), r"−?0\.\d\d"), (alike, "none")):
        table = told(tmp_path, with_noise(truth(), 1), second, CHANGES[:2])[0]
        compared = table[table["row"] == MAPS]
        figure = correlations_by_metric(compared, ["noise", "words"])
        assert [axes.get_title(loc="left") for axes in figure.axes] == [
            "by probability", "by log-odds"
        ]  # fmt: skip
        for axes, verdict in zip(figure.axes, compared["verdict"], strict=False):
            texts = [text.get_text() for text in axes.texts]
            assert re.fullmatch(shown, texts[0])
            assert texts[-1] == verdict
        assert len(correlations_by_method(compared, CHANGES[:2]).axes) == 2


def test_a_contradiction_is_told_from_the_method_that_marks(tmp_path: Path) -> None:
    one, other = truth(), truth()
    one[3, 2], other[3, 2] = 0.0, 0.4
    table = told(tmp_path, with_noise(one, 1, size=0.004), with_noise(other, 2, size=0.004))[0]
    (row,) = contradictions_in_words(table[table["row"] == CONTRADICTION]).to_dict("records")
    assert (row["marked by"], row["not so by"]) == ("words", "noise")
    assert (row["cell"], row["shown there"]) == (f"layer 3, {ROLES[2]}", "no effect")
    assert row["effect"].startswith("0.4 (0.39")


# --- how they are asked for


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"experiments": {"noise": "tracing"}},
            "analyses.methods.experiments: fewer than two methods are not compared; give another",
        ),
        (
            {"experiments": {"noise": "tracing", "words": "patchin"}},
            "analyses.methods.experiments.words: 'patchin' is not an experiment with a site; did "
            "you mean patching?",
        ),
        (
            {"experiments": {"noise": "tracing", "words": "tracing"}},
            "analyses.methods.experiments.words: tracing is another method's too; keep it once",
        ),
        (
            {"experiments": {"noise": "tracing", "words": "patching"}, "quantities": ["p"]},
            "analyses.methods.quantities[0]: 'p' is unknown; known are",
        ),
        (
            {"experiments": {"noise": "tracing", "words": "patching"}, "alike": 1.5},
            "analyses.methods.alike: 1.5 is more than the maximum of 1",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_line(settings: dict[str, Any], message: str) -> None:
    assert message in refusal(fill_config, with_key("analyses.methods", settings))


def test_methods_without_a_site_in_common_are_one_line() -> None:
    settings = {"experiments": {"noise": "tracing", "words": "patching"}}
    config = with_key("analyses.methods", settings)
    assert fill_config(config)["analyses"]["methods"]["alike"] == 0.8
    config["experiments"]["tracing"]["sites"] = ["encoder.mlp"]
    config["experiments"]["patching"]["sites"] = ["encoder.block_input"]
    assert refusal(fill_config, config) == (
        "analyses.methods.experiments: no two of them have a site in common; give them one"
    )
