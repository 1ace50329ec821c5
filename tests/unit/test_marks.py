"""Marks are where something is restored: negative controls, a planted truth, whole families."""

from __future__ import annotations

from itertools import product
from typing import Any

import collect_effects
import numpy as np
import pandas as pd
import pytest

from blip_tracing.meaning.effects import HALVES, MEASURED, QUANTITIES
from blip_tracing.meaning.marks import cell_tests, map_test, marks_of, why_untested
from blip_tracing.meaning.statistics import max_t_test
from blip_tracing.meaning.summary import Rules, finish_experiment, summarize_family
from blip_tracing.vocabulary.corruptions import KINDS, PLACES, Corruption
from blip_tracing.vocabulary.experiment import BASE, SOURCE, Experiment, Run
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.sites import SITES
from blip_tracing.vocabulary.tables import (
    CEILING,
    EQUAL_TOKENS,
    FALSE_MARKS,
    FEW_PICTURES,
    HIDES_NOTHING,
    NO_NULL,
    NO_OP,
    NOTHING_HIDDEN,
    SAME_ANSWER,
    UNRELATED_SOURCE,
)

RULES = Rules(total_effect=0.05, least_effect=0.02, resamples=400, seed=0)
NUMBERS = (6, 12, 30)
CELLS = 24
SITE = next(iter(SITES))
CLEAN = Run(BASE, BASE)
LEVELS = (0.1, 5.0)
NOISY = Run("noisy", BASE, Corruption(next(iter(KINDS)), next(iter(PLACES)), LEVELS, 6, seed=0))
TRACING = Experiment("tracing", NOISY, CLEAN, (SITE,))
PATCHING = Experiment("patching", CLEAN, Run(SOURCE, SOURCE), (SITE,))


def marked(change: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    """The marks of one family, each example with a picture of its own."""
    p = cell_tests(change, contrast, None, RULES.least_effect, RULES.resamples, RULES.seed)
    return marks_of(p, change, RULES.least_effect)


def old_marks(contrast: np.ndarray) -> np.ndarray:
    """The rule before: the distance from the null alone, in either direction, however small."""
    signs = np.sign(contrast.mean(axis=0))
    return max_t_test(contrast * signs, RULES.resamples, RULES.seed).p < 0.05


def destroyed(random: np.random.Generator, examples: int) -> np.ndarray:
    """What an unrelated state does where the answer stands: in half of the examples it falls."""
    hit = random.random((examples, CELLS)) < 0.5
    return -np.where(hit, random.uniform(0.3, 1, (examples, CELLS)), 0.0)


def revivals(random: np.random.Generator, examples: int, share: float) -> np.ndarray:
    """Changes of an effect that is there in a share of the examples, as the miniature's are."""
    there = random.random((examples, CELLS)) < share
    return np.where(there, random.uniform(0.4, 1, there.shape), random.normal(0, 0.01, there.shape))


# --- negative controls, simulated


@pytest.mark.parametrize("examples", NUMBERS)
def test_noise_that_hides_nothing_leaves_nothing_to_mark(examples: int) -> None:
    """Changes of 0.0001 beside a null that destroys: the old rule marks most of the map."""
    old, studies = 0, 40
    for study in range(studies):
        random = np.random.default_rng(study)
        change = random.normal(0, 1e-4, (examples, CELLS))
        null = destroyed(random, examples)
        assert not marked(change, change - null).any()
        old += int(old_marks(change - null).sum())
    assert old / studies >= {6: 0, 12: 0.2, 30: 0.9}[examples] * CELLS


@pytest.mark.parametrize("examples", NUMBERS)
def test_a_patch_that_is_the_identity_is_not_marked(examples: int) -> None:
    random = np.random.default_rng(0)
    nothing = np.zeros((examples, CELLS))
    for null in (destroyed(random, examples), -destroyed(random, examples), nothing):
        assert not marked(nothing, nothing - null).any()


@pytest.mark.parametrize("examples", NUMBERS)
def test_an_untrained_network_gets_no_marks(examples: int) -> None:
    """Its changes are sure, since all cells are alike, and less than the least effect."""
    random = np.random.default_rng(0)
    change = 0.003 + random.normal(0, 0.0003, (examples, CELLS))
    null = random.normal(0, 0.0003, (examples, CELLS))
    assert not marked(change, change - null).any()
    assert old_marks(change - null).any()


def false_families(examples: int, studies: int, hypothesis: str) -> float:
    """The share of families with any mark where every cell fails one hypothesis or the other.

    Dependent cells; donor: the treatment does what any state does, and that is much; floor: it
    does nothing, and the null destroys; either: half of the cells fail the one, half the other.
    """
    finds = 0
    for study in range(studies):
        random = np.random.default_rng([study, examples])
        shared = random.normal(0, 0.1, (examples, 1))
        donor = revivals(random, examples, 0.4) + shared, revivals(random, examples, 0.4) + shared
        floor = random.normal(0, 0.2, (examples, CELLS)) + shared, destroyed(random, examples)
        half = (np.arange(CELLS) < CELLS // 2) | (hypothesis == "donor")
        half = half & (hypothesis != "floor")
        change = np.where(half, donor[0], floor[0] + RULES.least_effect)
        null = np.where(half, donor[1], floor[1])
        finds += bool(marked(change, change - null).any())
    return finds / studies


@pytest.mark.parametrize("hypothesis", ["donor", "floor", "either"])
@pytest.mark.parametrize("examples", NUMBERS)
def test_marks_are_false_in_at_most_5_of_100_families(examples: int, hypothesis: str) -> None:
    assert false_families(examples, 150, hypothesis) <= 0.05 + 0.03


def test_where_both_hypotheses_are_false_the_planted_cells_are_found() -> None:
    """Twelve examples, an effect in two cells that the null lacks."""
    found = np.zeros(CELLS)
    for study in range(20):
        random = np.random.default_rng(study)
        change = random.normal(0, 0.01, (12, CELLS))
        change[:, [3, 9]] += revivals(random, 12, 0.95)[:, :2]
        null = destroyed(random, 12)
        found += marked(change, change - null)
    assert (found[[3, 9]] >= 18).all()
    assert np.delete(found, [3, 9]).sum() == 0


def test_an_effect_downwards_is_no_mark() -> None:
    random = np.random.default_rng(0)
    change = -0.5 + random.normal(0, 0.01, (12, CELLS))
    assert not marked(change, change - destroyed(random, 12)).any()


# --- one example's map


@pytest.mark.parametrize("draws", [4, 5, 10])
def test_a_map_needs_five_draws(draws: int) -> None:
    change = 0.5 + np.random.default_rng(0).normal(0, 0.01, (draws, 3))
    p = map_test(change, 2000, 0, 0.02)
    assert np.isnan(p).all() if draws < 5 else (p < 0.05).all()


def test_a_map_without_an_effect_is_seldom_marked() -> None:
    """One-sided at 0.05: in 5 of 100 maps, and chance."""
    maps = np.random.default_rng(0).normal(size=(200, 10, 30))
    finds = sum(bool((map_test(drawn, 2000, 0, 0.0) < 0.05).any()) for drawn in maps)
    assert finds / 200 <= 0.05 + 0.035


# --- whole families


def family(
    experiment: Experiment,
    examples: int,
    seed: int = 0,
    change: float = 0.5,
    null: float = 0.0,
    halves: tuple[float, float] = (0.0, 0.0),
    level: int = 1,
    total: float = 0.8,
    known: str = "",
    included: bool = True,
    one_answer: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The means of roles and cells of a family: two layers, three roles; all of a change.

    The role "at" of layer 0 is known to be so, with no change if it is a no-op.
    """
    random = np.random.default_rng(seed)
    noise_level = LEVELS[level] if experiment.corrupted else np.nan
    told = {
        "experiment": experiment.name, "site": SITE, "noise_level": noise_level,
        "level": level if experiment.corrupted else 0, "group": "a kind", "included": included,
    }  # fmt: skip
    roles, cells = [], []
    for number in range(examples):
        named = {**told, "example": f"{number:03d}", "picture": f"{number:03d}.png"}
        for layer, role in product(range(2), ("before", "at", "after")):
            first = layer == 0 and role == "at"
            moved = 0.0 if first and known == NO_OP else change + random.normal(0, 0.01)
            values = dict.fromkeys(QUANTITIES, 0.1) | {
                "probability": 0.1 + moved, "probability_change": moved,
                "contrast": moved - null - random.normal(0, 0.01), "turned": float(moved > 0.4),
                **{half: mean + random.normal(0, 0.01)
                   for half, mean in zip(HALVES, halves, strict=True)},
            }  # fmt: skip
            place = {
                "layer": layer,
                "head": -1,
                "token_role": role,
                "known": known if first else "",
            }
            roles.append({**named, **place, **values})
        facts = {
            "reference": 0.1, "target": 0.1 + total, "total_effect": total, "logit_range": 1.0,
            "hidden_share": 1.0 if experiment.corrupted else np.nan, "third_mass": 0.2,
            "matched_share": 1.0, "draws": experiment.draws, "null_draws": experiment.draws,
            "one_answer": one_answer, "below_threshold": experiment.direction * total < 0.05,
        }  # fmt: skip
        whole = dict.fromkeys(MEASURED, 0.1)
        cells.append({**named, "layer": -1, "head": -1, "token_role": ALL, **whole, **facts})
    return pd.DataFrame(roles), pd.DataFrame(cells)


def told(
    experiment: Experiment, *families: tuple[pd.DataFrame, pd.DataFrame]
) -> tuple[pd.DataFrame, ...]:
    """The tables summary, families and negatives of these families."""
    primary = experiment.primary()
    parts = [summarize_family(*means, experiment, primary, RULES) for means in families]
    return finish_experiment(parts, RULES)


def only(negatives: pd.DataFrame, control: str) -> pd.Series:
    (row,) = (row for _, row in negatives.iterrows() if row["control"] == control)
    return row


def test_a_family_with_effects_is_marked_and_its_negative_controls_are_not() -> None:
    summary, families, negatives = told(TRACING, family(TRACING, 12))
    assert families[["tested", "reason", "cells", "marked"]].iloc[0].tolist() == [True, "", 6, 6]
    assert families["primary"].all()
    control = only(negatives, UNRELATED_SOURCE)
    assert control[["cells", "false_marks", "exceeded"]].tolist() == [6, 0, False]
    assert summary["marked"].sum() == 6
    assert summary.loc[summary["marked"], "p_study"].max() < 0.05


@pytest.mark.parametrize(
    ("examples", "changed", "reason"),
    [
        (5, {}, FEW_PICTURES),
        (12, {"included": False}, FEW_PICTURES),
        (12, {"null": np.nan}, NO_NULL),
        (12, {"total": 0.01}, NOTHING_HIDDEN),
        (12, {"total": -0.5}, NOTHING_HIDDEN),
    ],
)
def test_why_a_family_is_not_tested(examples: int, changed: dict[str, Any], reason: str) -> None:
    means = family(TRACING, examples, **changed)
    summary, families, _ = told(TRACING, means)
    row = families.iloc[0]
    assert (row["tested"], row["reason"], row["cells"], row["marked"]) == (False, reason, 0, 0)
    assert np.isnan(row["detectable"])
    assert summary[["p_floor", "p_null", "p_family", "p_study"]].isna().all(axis=None)
    assert not summary["marked"].any()


@pytest.mark.parametrize(
    ("pictures", "with_null", "hides", "reason"),
    [
        (6, 6, True, ""),
        (6, 5, True, "fewer than six pictures with an unrelated example"),
        (6, 0, False, NO_NULL),
        (5, 0, False, FEW_PICTURES),
    ],
)
def test_the_first_reason_is_told(pictures: int, with_null: int, hides: bool, reason: str) -> None:
    assert why_untested(pictures, with_null, hides) == reason


def test_what_is_known_is_outside_the_family_and_unmarked() -> None:
    """The ceiling turns the answer in all examples: it is asking the other question."""
    for known in (CEILING, NO_OP):
        summary, families, _ = told(PATCHING, family(PATCHING, 12, known=known, change=0.6))
        rows = summary[(summary["known"] == known)]
        assert rows[["layer", "token_role", "quantity"]].to_numpy().tolist() == [
            [0, "at", "probability_change"]
        ]
        assert rows[["p_family", "p_study", "chosen"]].isna().all(axis=None)
        assert not rows["marked"].any()
        assert families[["cells", "marked"]].iloc[0].tolist() == [5, 5]


def test_where_one_example_of_a_mean_is_a_ceiling_the_mean_is_known() -> None:
    roles, cells = family(PATCHING, 12)
    first = (roles["layer"] == 0) & (roles["token_role"] == "at")
    for count, known in ((0, ""), (1, CEILING), (12, CEILING)):
        roles["known"] = np.where(first & (roles["example"].astype(int) < count), CEILING, "")
        summary, *_ = told(PATCHING, (roles, cells))
        assert set(summary["known"]) == {"", known}


def test_the_negative_controls_of_a_run_are_counted_where_it_has_them() -> None:
    quiet = family(TRACING, 12, level=0, total=0.001, change=0.0, null=-0.5)
    loud = family(TRACING, 12, level=1)
    *_, negatives = told(TRACING, quiet, loud)
    assert negatives[["noise_level", "control", "cells", "false_marks"]].to_numpy().tolist() == [
        [0.1, HIDES_NOTHING, 6, 0],
        [5.0, UNRELATED_SOURCE, 6, 0],
    ]
    *_, negatives = told(PATCHING, family(PATCHING, 12, known=NO_OP, null=-0.5))
    assert only(negatives, EQUAL_TOKENS)[["cells", "false_marks"]].tolist() == [1, 0]
    small = family(PATCHING, 12, change=0.001, total=0.001, one_answer=True, included=False)
    *_, negatives = told(PATCHING, small)
    assert negatives["control"].tolist() == [SAME_ANSWER]
    assert negatives["false_marks"].tolist() == [0]
    # Of tracing one answer is no negative control: noise takes it away, and it comes back.
    *_, negatives = told(TRACING, family(TRACING, 12, one_answer=True, included=False))
    assert negatives.empty


@pytest.mark.parametrize(
    ("experiment", "changed", "control"),
    [
        (TRACING, {"halves": (0.5, 0.1)}, UNRELATED_SOURCE),
        (TRACING, {"total": 0.001}, HIDES_NOTHING),
        (PATCHING, {"total": 0.001, "one_answer": True, "included": False}, SAME_ANSWER),
    ],
)
def test_where_negative_controls_are_marked_nothing_of_the_experiment_is(
    experiment: Experiment, changed: dict, control: str
) -> None:
    good, bad = family(experiment, 12), family(experiment, 12, **{"level": 0, **changed})
    summary, families, negatives = told(experiment, good, bad)
    of_control = negatives[negatives["control"] == control]
    assert of_control["exceeded"].all()
    assert of_control["false_marks"].sum() > 0
    assert not summary["marked"].any()
    assert (families["marked"] == 0).all()
    assert FALSE_MARKS in set(families["reason"])
    assert not families["tested"].any()
    effects = pd.DataFrame({"experiment": [experiment.name, "other"], "marked": True})
    assert collect_effects.withheld(effects, negatives)["marked"].tolist() == [False, True]


def test_a_single_false_mark_among_many_controls_exceeds_nothing() -> None:
    """At 5 % of families by chance; what is looked at is the share of all their cells."""
    roles, cells = family(TRACING, 12)
    one = (roles["layer"] == 1) & (roles["token_role"] == "at")
    roles.loc[one, HALVES[0]] += 0.5
    others = [family(TRACING, 12, seed=seed) for seed in range(1, 5)]
    _, families, negatives = told(TRACING, (roles, cells), *others)
    assert negatives["false_marks"].sum() == 1
    assert not negatives["exceeded"].any()
    assert families["tested"].all()
    _, families, negatives = told(TRACING, (roles, cells), *others[:1])
    assert negatives["exceeded"].all()


def test_p_of_a_study_is_over_all_its_families() -> None:
    """A cell beside many of other levels is corrected for them too, not for levels untested."""
    few, many = (
        told(TRACING, *(family(TRACING, 6, seed, change=0.05) for seed in range(count)))[0]
        for count in (1, 6)
    )
    alone = few.dropna(subset="p_study")
    first = many[many["p_study"].notna()].iloc[: len(alone)]
    assert (alone["p_study"] == alone["p_family"]).all()
    assert (first["p_study"].to_numpy() >= alone["p_study"].to_numpy()).all()
    quiet = family(TRACING, 6, level=0, total=0.001, change=0.0)
    with_quiet, *_ = told(TRACING, quiet, family(TRACING, 6, 0, change=0.05))
    kept = with_quiet.dropna(subset="p_study")
    assert kept["p_study"].tolist() == alone["p_study"].tolist()
