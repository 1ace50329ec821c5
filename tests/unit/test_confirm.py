"""Claims of one half meet the other: what is planted is confirmed, and nothing else is."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from blip_tracing.drawing.analyses.confirm import claims_figure
from blip_tracing.drawing.figures import save_figure
from blip_tracing.given.claims import Use
from blip_tracing.meaning.analyses.confirm import (
    CONFIRMED,
    KNOWN_BEFOREHAND,
    NOT_CONFIRMED,
    NOT_TESTED,
    NOTHING_STANDS_OUT,
    PASSED,
    TABLE,
    confirm_claims,
    draw_claims,
    predicted_low,
    shrinkage,
    verdicts_of,
    why_nothing,
)
from blip_tracing.meaning.evidence import VERDICTS, Evidence
from blip_tracing.meaning.statistics import holm
from blip_tracing.meaning.summary import Rules
from blip_tracing.vocabulary.corruptions import Corruption
from blip_tracing.vocabulary.experiment import Experiment, Run
from blip_tracing.vocabulary.tables import FEW_NULLS, FEW_PICTURES, NO_NULL

SITE = "encoder.block_output"
LEAST = 0.02
RULES = Rules(total_effect=0.05, least_effect=LEAST, resamples=300, seed=0)
FIRST = Use(times=1, before=0, seen=0)
NOISE = Corruption("gaussian", "question.embeddings", (5.0,), draws=10, seed=0)
CLEAN, NOISY = Run("base", "base"), Run("noisy", "base", NOISE)
EXPERIMENTS = {
    "tracing": Experiment("tracing", NOISY, CLEAN, (SITE,)),
    "taking": Experiment("taking", CLEAN, NOISY, (SITE,)),
}
PLACES = list(product(range(3), ("noun", "[SEP]")))
Cell = tuple[int, str]


def rows_of(
    changes: Mapping[Cell, np.ndarray],
    experiment: str = "tracing",
    contrasts: Mapping[Cell, np.ndarray] | None = None,
    pictures: list[str] | None = None,
    known: Mapping[Cell, str] | None = None,
    included: bool = True,
    head: int = -1,
) -> pd.DataFrame:
    """`role_means` of one half, of these changes in probability by cell, an example each."""
    contrasts = changes if contrasts is None else contrasts
    names = [f"e{number}" for number in range(len(next(iter(changes.values()))))]
    values = np.concatenate(list(changes.values()))
    places = [place for place in changes for _ in names]
    return pd.DataFrame(
        {
            "experiment": experiment,
            "example": names * len(changes),
            "site": SITE,
            "level": 0,
            "noise_level": 5.0,
            "picture": (pictures or names) * len(changes),
            "group": "",
            "included": included,
            "layer": [layer for layer, _ in places],
            "head": head,
            "token_role": [role for _, role in places],
            "known": [(known or {}).get(place, "") for place in places],
            "probability": 0.4 + values,
            "probability_change": values,
            "contrast": np.concatenate([contrasts[place] for place in changes]),
        }
    )


def half(path: Path, *rows: pd.DataFrame, claims: int = 3) -> Evidence:
    """The evidence of one half."""
    pd.concat(rows).to_parquet(path)
    return Evidence(
        settings={"experiments": list(dict.fromkeys(rows[0]["experiment"])), "claims": claims},
        experiments=EXPERIMENTS,
        primary=dict.fromkeys(EXPERIMENTS, 0),
        rules=RULES,
        role_means=[str(path)],
        cell_means=[],
        runs=pd.DataFrame(),
    )


def noise(
    seed: int, pictures: int = 8, planted: Mapping[Cell, float] | None = None, spread: float = 0.05
) -> dict[Cell, np.ndarray]:
    """Changes about zero, and about what is planted."""
    random = np.random.default_rng(seed)
    return {
        place: random.normal((planted or {}).get(place, 0.0), spread, pictures) for place in PLACES
    }


def met(tmp_path: Path, one: pd.DataFrame, other: pd.DataFrame, use: Use = FIRST) -> pd.DataFrame:
    """The table of what one half claims and the other says."""
    claims = draw_claims(half(tmp_path / "one.parquet", one), 8)
    return confirm_claims(claims, half(tmp_path / "other.parquet", other), use, "d" * 64)


def flipped_p(values: np.ndarray, least: float = LEAST) -> float:
    """The share of all sign flips whose one-sided t reaches the data's own."""
    moved = values - least
    own = stats.ttest_1samp(moved, 0).statistic
    flips = [
        stats.ttest_1samp(moved * signs, 0).statistic
        for signs in product((1, -1), repeat=len(moved))
    ]
    return float(np.mean(np.array(flips) >= own * (1 - 1e-9)))


# --- what is claimed


def test_the_clearest_places_are_claimed_in_their_order(tmp_path: Path) -> None:
    changes = noise(1, planted={(1, "noun"): 0.5, (2, "noun"): 0.3})
    evidence = half(tmp_path / "one.parquet", rows_of(changes))
    claims = draw_claims(evidence, 8)
    t = {
        place: stats.ttest_1samp(values, LEAST).statistic
        for place, values in changes.items()
        if values.mean() > LEAST
    }
    expected = sorted(t, key=lambda place: -t[place])[:3]
    assert [(claim["layer"], claim["token_role"]) for claim in claims] == expected
    assert [claim["claim"] for claim in claims] == list(range(1, 1 + len(expected)))
    first = claims[0]
    assert first["change"] == pytest.approx(changes[expected[0]].mean())
    assert first["change_low"] < first["change"] < first["change_high"]
    assert (first["pictures"], first["noise_level"], first["direction"]) == (8, 5.0, 1)
    assert first["described"]["name"] == "tracing"


def test_no_more_is_claimed_than_is_asked_for(tmp_path: Path) -> None:
    changes = noise(1, planted=dict.fromkeys(PLACES, 0.5))
    for count in (1, 2, len(PLACES) + 5):
        claims = draw_claims(half(tmp_path / "one.parquet", rows_of(changes), claims=count), 8)
        assert len(claims) == min(count, len(PLACES))


def test_cells_that_are_all_alike_are_claimed_in_the_maps_order(tmp_path: Path) -> None:
    same = np.linspace(0.3, 0.5, 8)
    claims = draw_claims(half(tmp_path / "a.parquet", rows_of(dict.fromkeys(PLACES, same))), 8)
    assert [claim["layer"] for claim in claims] == [0, 0, 1]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"changes": {place: np.full(8, 0.01) for place in PLACES}}, NOTHING_STANDS_OUT),
        ({"changes": {place: -np.linspace(0.1, 0.6, 8) for place in PLACES}}, NOTHING_STANDS_OUT),
        ({"contrasts": {place: np.zeros(8) for place in PLACES}}, NOTHING_STANDS_OUT),
        ({"contrasts": {place: np.full(8, np.nan) for place in PLACES}}, NO_NULL),
        ({"known": dict.fromkeys(PLACES, "ceiling")}, NOTHING_STANDS_OUT),
        ({"included": False}, FEW_PICTURES),
        ({"pictures": list("aabbcdde")}, FEW_PICTURES),
        ({"changes": {place: np.linspace(0.4, 0.6, 5) for place in PLACES}}, FEW_PICTURES),
    ],
    ids=[
        "below the least effect", "the other way", "an unrelated state does as much", "no null",
        "known beforehand", "nothing included", "five pictures of eight examples", "five pictures",
    ],
)  # fmt: skip
def test_what_must_not_be_claimed(tmp_path: Path, given: dict[str, Any], why: str) -> None:
    given = {"changes": {place: np.linspace(0.3, 0.7, 8) for place in PLACES}, **given}
    evidence = half(tmp_path / "one.parquet", rows_of(**given))
    assert draw_claims(evidence, 8) == []
    assert why_nothing(evidence) == why


def test_what_takes_the_answer_away_is_told_towards_it(tmp_path: Path) -> None:
    changes = noise(2, planted={(1, "noun"): -0.4})
    table = met(tmp_path, rows_of(changes, "taking"), rows_of(changes, "taking"))
    first = table.iloc[0]
    assert (first["layer"], first["token_role"], first["direction"]) == (1, "noun", -1)
    assert first["found_change"] == pytest.approx(-changes[1, "noun"].mean())
    assert first["found_change_low"] < first["found_change"] < first["found_change_high"]
    assert first["verdict"] == CONFIRMED


def test_the_prediction_holds_for_what_was_not_chosen() -> None:
    """In 95 of 100 studies; of 2,000, chance alone moves it by one of 100."""
    random = np.random.default_rng(0)
    held = [
        random.normal(0.3, 0.2, 12).mean()
        > predicted_low(random.normal(0.3, 0.2, 8), list("abcdefgh"), 12)
        for _ in range(2000)
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


# --- what is confirmed


def test_a_planted_effect_is_confirmed_and_chance_is_not(tmp_path: Path) -> None:
    planted = {(1, "noun"): 0.4}
    one, other = (noise(seed, planted=planted) for seed in (3, 4))
    table = met(tmp_path, rows_of(one), rows_of(other))
    assert list(table) == TABLE
    places = list(zip(table["layer"], table["token_role"], strict=True))
    assert places[0] == (1, "noun")
    assert list(table["verdict"]) == [CONFIRMED, *[NOT_CONFIRMED] * (len(table) - 1)]
    p = np.array([flipped_p(other[place]) for place in places])
    assert table["p"].to_numpy() == pytest.approx(p)
    assert table["p_holm"].to_numpy() == pytest.approx(plain_holm(p))
    assert set(table["found_pictures"]) == {8}
    assert table["shrinkage"].to_numpy() == pytest.approx(
        [other[place].mean() - one[place].mean() for place in places]
    )


def test_either_hypothesis_that_is_not_refused_leaves_it_unconfirmed(tmp_path: Path) -> None:
    one = noise(3, planted={(1, "noun"): 0.4})
    alike = noise(5)  # beyond the null's nothing is left
    table = met(tmp_path, rows_of(one), rows_of(one, contrasts=alike))
    first = table.iloc[0]
    assert first["p_floor"] < 0.01
    assert first["p_null"] == pytest.approx(flipped_p(alike[1, "noun"]), abs=0.6)
    assert first["p"] == max(first["p_floor"], first["p_null"])
    assert first["verdict"] == NOT_CONFIRMED


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"pictures": 5}, FEW_PICTURES),
        ({"shown": list("aabbcdde")}, FEW_PICTURES),
        ({"null": 0}, NO_NULL),
        ({"null": 5}, FEW_NULLS),
        ({"known": "no_op"}, KNOWN_BEFOREHAND),
        ({"role": "another"}, FEW_PICTURES),
        ({"included": False}, FEW_PICTURES),
    ],
)
def test_what_cannot_be_tested_is_never_confirmed(
    tmp_path: Path, given: dict[str, Any], reason: str
) -> None:
    """However large the effect is there."""
    place = (1, given.get("role", "noun"))
    count = given.get("pictures", 8)
    changes = {place: np.linspace(0.8, 0.9, count)}
    contrast = changes[place].copy()
    contrast[given.get("null", count) :] = np.nan
    other = rows_of(
        changes, contrasts={place: contrast}, pictures=given.get("shown"),
        known={place: given.get("known", "")}, included=given.get("included", True),
    )  # fmt: skip
    one = rows_of({(1, "noun"): np.linspace(0.8, 0.9, 8)})
    (row,) = met(tmp_path, one, other).to_dict("records")
    assert (row["verdict"], row["reason"]) == (NOT_TESTED, reason)
    assert np.isnan(row["p"])
    assert np.isnan(row["p_holm"])


@pytest.mark.parametrize("use", [Use(2, 1, 0), Use(1, 0, 3)], ids=["used before", "explored"])
def test_nothing_is_confirmed_on_pictures_that_were_known(tmp_path: Path, use: Use) -> None:
    planted = {(1, "noun"): 0.4}
    one, other = (rows_of(noise(seed, planted=planted)) for seed in (3, 4))
    table = met(tmp_path, one, other, use)
    assert table["verdict"].iloc[0] == PASSED
    assert CONFIRMED not in set(table["verdict"])
    told = verdicts_of(table, use, [0.0] * 4, {"exploring": 8, "confirming": 8}, "", "d" * 64)
    assert not told["verdict"].isin([CONFIRMED, "used once"]).any()
    assert told["verdict"].str.contains("no p here confirms").sum() == 1


def test_a_claim_of_a_head_meets_that_head(tmp_path: Path) -> None:
    planted = {(1, "noun"): 0.4}
    heads = [
        pd.concat(
            [rows_of(noise(seed + head, planted=planted if head == 1 else None), head=head)
             for head in range(2)]
        )
        for seed in (3, 13)
    ]  # fmt: skip
    first = met(tmp_path, heads[0], heads[1]).iloc[0]
    assert (first["layer"], first["head"], first["verdict"]) == (1, 1, CONFIRMED)


def test_two_experiments_are_claimed_and_corrected_together(tmp_path: Path) -> None:
    halves = [
        pd.concat(
            [rows_of(noise(seed, planted={(1, "noun"): sign * 0.4}), name)
             for name, sign in (("tracing", 1), ("taking", -1))]
        )
        for seed in (3, 4)
    ]  # fmt: skip
    table = met(tmp_path, halves[0], halves[1])
    assert set(table["experiment"][table["verdict"] == CONFIRMED]) == {"tracing", "taking"}
    assert table["p_holm"].to_numpy() == pytest.approx(plain_holm(table["p"].to_numpy()))


def test_of_studies_with_nothing_planted_at_most_five_in_a_hundred_confirm(tmp_path: Path) -> None:
    """At the edge of both hypotheses, where they err most.

    Tested on the numbers that they were drawn from they err far more often.
    """
    places = list(product(range(12), ("noun", "[SEP]")))
    confirmed = reused = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        one, other = (
            half(
                tmp_path / f"{name}.parquet",
                rows_of({place: random.normal(LEAST, 0.05, 8) for place in places}),
            )
            for name in ("one", "other")
        )
        claims = draw_claims(one, 8)
        tables = [confirm_claims(claims, evidence, FIRST, "d") for evidence in (one, other)]
        found = [bool((table["verdict"] == CONFIRMED).any()) for table in tables]
        reused, confirmed = reused + found[0], confirmed + found[1]
    assert confirmed <= 200 * 0.05
    assert reused > 200 * 0.25


def test_what_was_chosen_shrinks_and_what_is_measured_anew_does_not_lie(tmp_path: Path) -> None:
    """All places carry the same: the largest of them is no larger than the others."""
    planted = dict.fromkeys(PLACES, 0.3)
    shrunk, found, whole = [], [], []
    for seed in range(40):
        one, other = (
            rows_of(noise(2 * seed + add, planted=planted, spread=0.15)) for add in (0, 1)
        )
        table = met(tmp_path, one, other)
        shrunk.append(table["shrinkage"].iloc[0])
        found.append(table["found_change"].iloc[0])
        halves = [half(tmp_path / f"{n}.parquet", of) for n, of in (("one", one), ("other", other))]
        every = draw_claims(half(tmp_path / "one.parquet", one, claims=len(PLACES)), 8)
        whole.append(shrinkage(every, *halves)[0])
    error = 0.15 / np.sqrt(8 * 40)
    assert np.mean(shrunk) < -4 * error
    assert np.mean(found) == pytest.approx(0.3, abs=4 * error)
    assert np.mean(whole) == pytest.approx(0, abs=4 * error)


def test_the_sizes_are_compared_as_welch_does(tmp_path: Path) -> None:
    planted = {(1, "noun"): 0.4, (2, "noun"): 0.3}
    given = {"one": noise(3, planted=planted), "other": noise(4, pictures=11, planted=planted)}
    halves = {name: half(tmp_path / name, rows_of(of)) for name, of in given.items()}
    claims = draw_claims(halves["one"], 8)[:2]
    assert {(claim["layer"], claim["token_role"]) for claim in claims} == set(planted)
    values = [np.mean([of[place] for place in planted], axis=0) for of in given.values()]
    test = stats.ttest_ind(values[1], values[0], equal_var=False)
    ends = test.confidence_interval()
    assert shrinkage(claims, *halves.values()) == pytest.approx(
        [values[1].mean() - values[0].mean(), ends.low, ends.high, 11]
    )


def test_sizes_of_few_pictures_have_no_interval(tmp_path: Path) -> None:
    place = {(1, "noun"): np.linspace(0.3, 0.5, 8)}
    few = {(1, "noun"): np.linspace(0.3, 0.5, 5)}
    one, other = (half(tmp_path / n, rows_of(of)) for n, of in (("a", place), ("b", few)))
    claims = draw_claims(one, 8)
    value, low, high, pictures = shrinkage(claims, one, other)
    assert value == pytest.approx(0)
    assert np.isnan([low, high]).all()
    assert pictures == 5


# --- what is told


def test_verdicts_say_what_was_found_and_what_the_rest_is(tmp_path: Path) -> None:
    planted = {(1, "noun"): 0.4}
    one, other = (rows_of(noise(seed, planted=planted)) for seed in (3, 4))
    table = met(tmp_path, one, other)
    pictures = {"exploring": 8, "confirming": 9}
    told = verdicts_of(table, FIRST, [-0.1, -0.2, -0.05, 8], pictures, "", "abc" * 20)
    assert list(told) == VERDICTS
    assert told["about"].iloc[0] == f"claim 1: tracing at {SITE}, layer 1, noun"
    assert told["verdict"].iloc[0] == CONFIRMED
    by = told.set_index("about")["verdict"]
    assert by["the claims, sha256 abcabcabcabc"] == f"1 of {len(table)}"
    assert by["the size of the claimed effects"] == "smaller than explored"
    assert by["the confirming half"] == "used once"
    assert by["all other numbers of this run"] == "exploratory"
    assert not told["pictures"].isna().any()


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([0.1, 0.05, 0.2, 8], "larger than explored"),
        ([-0.1, -0.2, 0.1, 8], "no difference shown"),
        ([-0.1, np.nan, np.nan, 5], FEW_PICTURES),
    ],
)
def test_sizes_are_told_only_as_far_as_they_are_shown(
    tmp_path: Path, sizes: list[float], said: str
) -> None:
    one = rows_of(noise(3, planted={(1, "noun"): 0.4}))
    told = verdicts_of(
        met(tmp_path, one, one), FIRST, sizes, {"exploring": 8, "confirming": 8}, "", "d" * 64
    )
    assert told.set_index("about")["verdict"]["the size of the claimed effects"] == said


def test_where_nothing_is_claimed_nothing_is_confirmed(tmp_path: Path) -> None:
    other = half(tmp_path / "other.parquet", rows_of(noise(4, planted={(1, "noun"): 0.4})))
    table = confirm_claims([], other, FIRST, "d" * 64)
    assert list(table) == TABLE
    assert table.empty
    told = verdicts_of(
        table, FIRST, [np.nan] * 4, {"exploring": 8, "confirming": 8}, FEW_PICTURES, "d" * 64
    )
    assert CONFIRMED not in set(told["verdict"])
    assert told["verdict"].iloc[0] == "nothing is claimed"
    assert told["statement"].iloc[0] == FEW_PICTURES


def test_the_figure_shows_each_claim_with_its_verdict(tmp_path: Path) -> None:
    """One that the confirming half lacks has a line of its own, with the exploring half alone."""
    planted = {(1, "noun"): 0.4, (2, "noun"): 0.3}
    one, other = (rows_of(noise(seed, planted=planted)) for seed in (3, 4))
    table = met(tmp_path, one, other[other["layer"] != 2])
    plot = claims_figure(table)
    save_figure(plot, tmp_path / "claims")
    assert (tmp_path / "claims.png").stat().st_size > 0
    counts = plot.data.groupby("half")["mean"].count()
    assert counts.to_dict() == {"exploring half": len(table), "confirming half": len(table) - 1}
    (scale,) = (scale for scale in plot.scales if "y" in scale.aesthetics)
    assert [label.split("\n")[-1] for label in scale.labels] == table["verdict"].tolist()
    assert {CONFIRMED, NOT_TESTED} <= set(table["verdict"])


# --- Holm's correction


def plain_holm(p: np.ndarray) -> np.ndarray:
    """Each p's least level at which step-down rejection reaches it."""
    corrected = {}
    largest = 0.0
    for rank, at in enumerate(np.argsort(p, kind="stable")):
        largest = max(largest, min(1.0, (len(p) - rank) * p[at]))
        corrected[at] = largest
    return np.array([corrected[at] for at in range(len(p))])


def test_holms_correction_is_the_published_one() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    random = np.random.default_rng(0)
    for size in range(1, 8):
        p = random.uniform(size=size)
        assert holm(p) == pytest.approx(plain_holm(p))
    assert holm(np.array([])).tolist() == []


def test_a_claim_that_cannot_be_tested_counts_among_those_corrected_for() -> None:
    assert holm(np.array([0.02, np.nan, 0.01])) == pytest.approx([0.04, np.nan, 0.03], nan_ok=True)
