"""What suffices and what is needed: gates that are planted, and worlds in which nothing is so.

A world says how sure the model is of the answer by which places have their clean state. Effects
follow from it: of a place restored where all others are corrupted, and of one corrupted where all
others are clean. An unrelated state says nothing of the answer, so that it does what corrupting
does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from refusals import refusal, with_key

from blip_tracing.drawing.analyses.directions import LEGEND, effects_figure, example_figure
from blip_tracing.given.settings import fill_config
from blip_tracing.meaning.analyses.directions import (
    BOTH,
    KNOWN,
    MEANINGS,
    NECESSARY,
    NEITHER,
    NOT_APART,
    REDUNDANT,
    RESTORING,
    SUFFICIENT,
    TAKING,
    UNTESTED,
    Direction,
    Sides,
    analyse,
    kinds_in_example,
    tell,
)
from blip_tracing.meaning.evidence import VERDICTS, Evidence
from blip_tracing.meaning.summary import Rules
from blip_tracing.vocabulary.corruptions import KINDS, PLACES, Corruption
from blip_tracing.vocabulary.experiment import BASE, Experiment, Run
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.sites import SITES
from blip_tracing.vocabulary.tables import FALSE_MARKS, FEW_PICTURES, NO_NULL, NO_OP

RULES = Rules(total_effect=0.05, least_effect=0.02, resamples=400, seed=0)
SITE = "encoder.block_output"
HEADS = "encoder.self_attention_heads"
ROLES = ("[CLS]", "differing word", "[SEP]")
LEVEL = 3.0
NOISY = Run("noisy", BASE, Corruption(next(iter(KINDS)), next(iter(PLACES)), (LEVEL,), 5, seed=0))
CLEAN = Run(BASE, BASE)
PAIR = {"sufficient": "restoring", "necessary": "taking"}
EXPERIMENTS = {
    "restoring": Experiment("restoring", NOISY, CLEAN, (SITE,)),
    "taking": Experiment("taking", CLEAN, NOISY, (SITE,)),
}
# What a model is sure of with each place clean (1) or corrupted (0): the log-odds of the answer.
World = Callable[[Sequence[int]], float]


def sure(yes: bool, high: float = 4.0, low: float = -4.0) -> float:
    return high if yes else low


def both_needed(clean: Sequence[int]) -> float:
    """An AND gate of the first two places."""
    return sure(bool(clean[0] and clean[1]))


def either(clean: Sequence[int]) -> float:
    """An OR gate: two copies of the answer."""
    return sure(bool(clean[0] or clean[1]))


def only_first(clean: Sequence[int]) -> float:
    """One place carries the answer."""
    return sure(bool(clean[0]))


def added(clean: Sequence[int]) -> float:
    """Two places carry half of the log-odds each, of an answer that is surer than it was unsure."""
    return -2.0 + 5.0 * (clean[0] + clean[1])


def nothing(_: Sequence[int]) -> float:
    return 4.0


class Made(NamedTuple):
    """An example's effects at a cell: those of `role_means`."""

    probability: float
    probability_change: float
    contrast: float
    normalised: float
    first_null: float
    second_null: float


def probability(log_odds: float) -> float:
    return float(1 / (1 + np.exp(-log_odds)))


def effect_of(world: World, place: int, name: str, jitter: float) -> Made:
    """jitter: of this example and cell, in the log-odds; half of it of the unrelated state too."""
    before = [0, 0, 0] if name == "restoring" else [1, 1, 1]
    after, target = list(before), [1 - state for state in before]
    after[place] = target[place]
    unrelated = list(before)
    unrelated[place] = 0
    reference, found, null = (world(state) for state in (before, after, unrelated))
    found, null = found + jitter, null + jitter / 2
    reach = world(target) - reference
    change = probability(found) - probability(reference)
    return Made(
        probability(found),
        change,
        probability(found) - probability(null),
        (found - reference) / reach if reach else np.nan,
        *[probability(null) - probability(reference)] * 2,
    )


def write_world(
    folder: Path,
    worlds: Sequence[World],
    examples: int = 12,
    pictures: int = 0,
    jitter: float = 0.1,
    groups: Sequence[str] = ("one",),
    site: str = SITE,
    total: float | None = None,
    only_in: str = "",
    **columns: Any,
) -> Evidence:
    """The evidence of a map whose layers are the worlds; columns: of all rows, as they are given.

    only_in: the group in which the worlds hold; in others nothing does.
    """
    random = np.random.default_rng(0)
    rows, cells = [], []
    for n, name in product(range(examples), EXPERIMENTS):
        group = groups[n % len(groups)]
        of_example = {
            "experiment": name, "site": site, "level": 0, "noise_level": LEVEL,
            "example": f"example-{n:02}", "picture": f"picture-{n % (pictures or examples):02}",
            "group": group, "included": True,
        }  # fmt: skip
        effect = 0.96 if total is None else total
        cells.append({**of_example, "total_effect": effect if name == "restoring" else -effect})
        heads = range(2) if SITES[site].heads else [-1]
        for (layer, world), (place, role), head in product(
            enumerate(worlds), enumerate(ROLES), heads
        ):
            holds = only_in in ("", group)
            made = effect_of(world if holds else nothing, place, name, random.normal(0, jitter))
            at_cell = {"layer": layer, "head": head, "token_role": role, "known": ""}
            rows.append({**of_example, **at_cell, **made._asdict(), **columns})
    role_means, cell_means = pd.DataFrame(rows), pd.DataFrame(cells)
    if SITES[site].heads:
        by_head = role_means.groupby(
            [*of_example, "layer", "head", "known"], as_index=False, sort=False
        )[[*Made._fields]].mean()  # fmt: skip
        role_means = pd.concat([role_means, by_head.assign(token_role=ALL)])
    paths = {}
    for table, means in {"role_means": role_means, "cell_means": cell_means}.items():
        paths[table] = [str(folder / f"{table}.parquet")]
        means.to_parquet(paths[table][0])
    asked = {name: replace(asked, sites=(site,)) for name, asked in EXPERIMENTS.items()}
    return Evidence(
        {"pairs": [PAIR]}, asked, dict.fromkeys(asked, 0), RULES, **paths, runs=pd.DataFrame()
    )


def at(table: pd.DataFrame, layer: int, place: int, group: str = ALL) -> pd.Series:
    of_layer, of_role = table["layer"] == layer, table["token_role"] == ROLES[place]
    rows = table[of_layer & of_role & (table["group"] == group)]
    assert len(rows) == 1
    return rows.iloc[0]


def said(verdicts: pd.DataFrame, statement: str) -> pd.Series:
    rows = verdicts[verdicts["statement"] == statement]
    assert len(rows) == 1
    return rows.iloc[0]


def no_claim(table: pd.DataFrame) -> bool:
    return bool(
        table["kind"].isin([NEITHER, UNTESTED, KNOWN]).all()
        and (table[["apart", "apart_logits"]] == NOT_APART).all(axis=None)
    )


# --- gates that are planted


def test_gates_are_told_by_both_directions_together(tmp_path: Path) -> None:
    """Heimersheim & Nanda 2024, sections 2.3 and 2.4, and the place that is both."""
    table, verdicts = analyse(write_world(tmp_path, [both_needed, either, only_first]))
    kinds = [[at(table, layer, place)["kind"] for place in range(3)] for layer in range(3)]
    assert kinds == [
        [NECESSARY, NECESSARY, NEITHER],
        [REDUNDANT, REDUNDANT, NEITHER],
        [BOTH, NEITHER, NEITHER],
    ]
    apart = [[at(table, layer, place)["apart"] for place in range(3)] for layer in range(3)]
    assert apart == [
        [TAKING, TAKING, NOT_APART],
        [RESTORING, RESTORING, NOT_APART],
        [NOT_APART, NOT_APART, NOT_APART],
    ]
    assert (table["apart_logits"] == table["apart"]).all()
    assert list(verdicts.columns) == VERDICTS
    counts = {kind: said(verdicts, meaning)["value"] for kind, meaning in MEANINGS.items()}
    assert counts == {BOTH: 1, SUFFICIENT: 0, NECESSARY: 2, REDUNDANT: 2}
    # Twelve pictures without a loss: 1 − 0.05^(1/12).
    assert "fewer than 22 % of pictures" in said(verdicts, MEANINGS[REDUNDANT])["verdict"]


def test_a_null_that_destroys_as_much_hides_no_necessity(tmp_path: Path) -> None:
    """The unrelated state takes all that corrupting takes: it is told beside, with its test."""
    table, verdicts = analyse(write_world(tmp_path, [only_first]))
    row = at(table, 0, 0)
    assert row["kind"] == BOTH
    assert abs(row["taken"] - row["unrelated_taken"]) < 0.05
    assert row["p_unrelated_takes"] < 0.05
    beside = verdicts[verdicts["statement"].str.contains("unrelated")]
    assert beside["verdict"].tolist() == ["1 of 1 places"]


def test_halves_that_add_up_in_logits_are_apart_in_probabilities_alone(tmp_path: Path) -> None:
    """Restoring either half brings 0.83, taking it 0.05: the softmax, and no gate."""
    table, verdicts = analyse(write_world(tmp_path, [added], total=0.88))
    row = at(table, 0, 0)
    assert row["restored"] - row["taken"] > 0.7
    assert abs(row["difference_logits"]) < 0.05
    assert (row["kind"], row["apart"], row["apart_logits"]) == (BOTH, RESTORING, NOT_APART)
    logits = verdicts[verdicts["statement"].str.contains("logit difference")]
    assert logits["verdict"].tolist() == ["not shown of any place"]


def test_numbers_are_those_of_a_plain_computation(tmp_path: Path) -> None:
    """Means, shares, and the p of necessity by trying every sign of eight pictures."""
    evidence = write_world(tmp_path, [only_first, either], examples=8, jitter=1.0)
    table, _ = analyse(evidence)
    rows = pd.read_parquet(evidence.role_means[0])
    totals = pd.read_parquet(evidence.cell_means[0]).drop_duplicates("example")["total_effect"]
    taken = {}
    for layer, (place, role) in product(range(2), enumerate(ROLES)):
        there = (rows["layer"] == layer) & (rows["token_role"] == role)
        losses = -rows[there & (rows["experiment"] == "taking")]["probability_change"]
        taken[layer, place] = losses.tolist()

    def t_of(values: Sequence[float], signs: Sequence[int]) -> float:
        signed = [sign * (value - 0.02) for sign, value in zip(signs, values, strict=True)]
        mean = sum(signed) / 8
        spread = (sum((value - mean) ** 2 for value in signed) / 7) ** 0.5
        return mean / (spread / 8**0.5)

    largest = [
        max(abs(t_of(values, signs)) for values in taken.values())
        for signs in product((1, -1), repeat=8)
    ]
    for (layer, place), values in taken.items():
        row = at(table, layer, place)
        assert row["taken"] == pytest.approx(sum(values) / 8)
        assert row["taken_share"] == pytest.approx(sum(values) / sum(totals))
        found = t_of(values, [1] * 8)
        reached = sum(other >= found * (1 - 1e-9) for other in largest) / len(largest)
        assert row["p_necessary"] == pytest.approx(reached if found > 0 else 1.0)
        assert row["taken_low"] <= row["taken"] <= row["taken_high"]
        assert row["difference"] == pytest.approx(row["restored_share"] - row["taken_share"])


# --- where nothing may be claimed


@pytest.mark.parametrize("jitter", [0.0, 0.05])
def test_where_nothing_is_carried_nothing_is_claimed(tmp_path: Path, jitter: float) -> None:
    """Cells that are all alike: noise that does nothing, or an untrained network."""
    table, verdicts = analyse(write_world(tmp_path, [nothing] * 4, jitter=jitter, normalised=0.0))
    assert no_claim(table)
    assert (verdicts["value"].dropna() == 0).all()
    assert not verdicts["verdict"].str.contains(r"\d of").any()


def test_below_six_pictures_nothing_is_tested_and_no_interval_told(tmp_path: Path) -> None:
    table, verdicts = analyse(write_world(tmp_path, [only_first, either], pictures=5))
    assert (table["kind"] == UNTESTED).all()
    assert no_claim(table)
    assert table.filter(regex="_low$|_high$|^p_").isna().all(axis=None)
    assert (verdicts["verdict"] == f"{UNTESTED}: {FEW_PICTURES}").all()


def test_without_an_included_example_that_is_said(tmp_path: Path) -> None:
    table, verdicts = analyse(write_world(tmp_path, [only_first], included=False))
    assert table.empty
    assert verdicts["verdict"].tolist() == [f"{UNTESTED}: no example included"]


def test_what_is_known_beforehand_is_no_finding(tmp_path: Path) -> None:
    table, verdicts = analyse(write_world(tmp_path, [only_first], known=NO_OP))
    assert (table["kind"] == KNOWN).all()
    assert no_claim(table)
    assert table.filter(regex="^p_").isna().all(axis=None)
    assert verdicts["verdict"].str.startswith(UNTESTED).all()


def test_without_a_null_what_is_needed_is_told_and_what_suffices_is_not(tmp_path: Path) -> None:
    table, verdicts = analyse(write_world(tmp_path, [only_first], contrast=np.nan))
    assert [at(table, 0, place)["kind"] for place in range(3)] == [NECESSARY, UNTESTED, UNTESTED]
    assert said(verdicts, MEANINGS[BOTH])["verdict"] == f"{UNTESTED}: {NO_NULL}"
    assert said(verdicts, MEANINGS[NECESSARY])["value"] == 1


def test_where_unrelated_states_pass_for_a_treatment_nothing_is_said_to_suffice(
    tmp_path: Path,
) -> None:
    """One half of them brings 0.5, the other nothing: the test beyond the null is worth nothing."""
    evidence = write_world(tmp_path, [only_first], first_null=0.5, second_null=0.0)
    table, verdicts = analyse(evidence)
    assert at(table, 0, 0)["kind"] == NECESSARY
    assert table["p_sufficient"].isna().all()
    assert said(verdicts, MEANINGS[REDUNDANT])["verdict"] == f"{UNTESTED}: {FALSE_MARKS}"


# --- a family of cells by itself


def sides(restored: np.ndarray, taken: np.ndarray, groups: Sequence[str] = ("one",)) -> Sides:
    """Of changes (N, M) in probability, shares of the logits alike; unrelated states do nothing."""
    count, cells = restored.shape

    def direction(change: np.ndarray, rising: bool) -> Direction:
        before = np.full_like(change, 0.1 if rising else 0.9)
        none = np.zeros_like(change)
        return Direction(change, change, change / 0.8, none, none, before, rising)

    examples = pd.DataFrame({"example": [f"{n:03}" for n in range(count)]})
    return Sides(
        direction(restored, True),
        direction(taken, False),
        np.full(count, 0.8),
        examples.assign(
            picture=examples["example"], group=[groups[n % len(groups)] for n in range(count)]
        ),
        pd.DataFrame({"group": ALL, "layer": range(cells), "head": -1, "token_role": ALL}),
        np.full(cells, "", dtype=object),
    )


QUICK = replace(RULES, resamples=100)


def test_a_test_of_necessity_that_fails_shows_no_redundancy() -> None:
    """Losses about zero that scatter widely: nobody knows."""
    random = np.random.default_rng(3)
    taken = random.normal(0, 0.3, (12, 6))
    table, _ = tell(sides(np.full((12, 6), 0.5) + random.normal(0, 0.05, (12, 6)), taken), QUICK)
    assert (table["kind"] == SUFFICIENT).all()
    table, _ = tell(sides(np.full((12, 6), 0.5), taken / 100), QUICK)
    assert (table["kind"] == REDUNDANT).all()


def share_of_families(
    claimed: Callable[[pd.DataFrame], pd.Series], taken: float, same: bool
) -> float:
    """How many of 60 families of 12 pictures have a claim; cells scatter about `taken`."""
    finds = 0
    for study in range(60):
        random = np.random.default_rng(study)
        shared = random.normal(0, 0.05, (12, 1))
        noise = [random.normal(0, 0.1, (12, 20)) + shared for _ in range(2)]
        restored = (taken if same else 0.5) + noise[0]
        finds += bool(claimed(tell(sides(restored, taken + noise[1]), QUICK)[0]).any())
    return finds / 60


def test_places_are_falsely_told_apart_in_at_most_5_of_100_families() -> None:
    assert share_of_families(lambda of: of["apart"] != NOT_APART, 0.3, True) <= 0.05 + 0.06


@pytest.mark.parametrize("kinds", [(NECESSARY, BOTH), (REDUNDANT,)], ids=str)
def test_at_the_least_effect_itself_neither_need_nor_redundancy_is_claimed(
    kinds: tuple[str, ...],
) -> None:
    found = share_of_families(lambda of: of["kind"].isin(kinds), 0.02, False)
    assert found <= 0.05 + 0.06


def test_shares_count_examples_by_their_total_effect() -> None:
    """Half of a total effect of 0.8 in six, all of one of 0.1 in six: 3 of 5.4 and not 3 of 4."""
    world = sides(np.repeat([[0.4], [0.1]], 6, axis=0), np.zeros((12, 1)))
    total = np.repeat([0.8, 0.1], 6)
    table, _ = tell(replace(world, total=total), QUICK)
    assert table["restored_share"][0] == pytest.approx((6 * 0.4 + 6 * 0.1) / (6 * 0.8 + 6 * 0.1))
    assert table["difference"][0] == pytest.approx(table["restored_share"][0])


# --- groups, heads


def test_a_gate_of_one_group_is_told_of_that_group(tmp_path: Path) -> None:
    evidence = write_world(
        tmp_path, [only_first], examples=24, groups=("color", "thing"), only_in="color"
    )
    table, verdicts = analyse(evidence)
    assert at(table, 0, 0, "color")["kind"] == BOTH
    assert at(table, 0, 0, "thing")["kind"] == NEITHER
    assert at(table, 0, 0, "color")["pictures"] == 12
    assert said(verdicts, "group color: kinds")["verdict"].startswith("both 1, sufficient 0")
    assert said(verdicts, "groups differ in what is restored or taken")["verdict"] == "yes"


def test_groups_that_are_alike_are_not_said_to_differ(tmp_path: Path) -> None:
    evidence = write_world(tmp_path, [only_first], examples=24, groups=("color", "thing"))
    table, verdicts = analyse(evidence)
    assert {at(table, 0, 0, group)["kind"] for group in ("color", "thing")} == {BOTH}
    assert said(verdicts, "groups differ in what is restored or taken")["verdict"] == "not shown"


def test_a_group_of_five_pictures_is_not_told(tmp_path: Path) -> None:
    groups = [*["color", "thing"] * 5, "color"]
    table, verdicts = analyse(
        write_world(tmp_path, [only_first], examples=11, groups=groups, only_in="color")
    )
    assert set(table["group"]) == {ALL, "color"}
    assert said(verdicts, "groups thing")["verdict"] == f"{UNTESTED}: {FEW_PICTURES}"
    assert not verdicts["statement"].str.contains("differ in what").any()


def test_heads_have_a_map_of_means_and_one_of_roles(tmp_path: Path) -> None:
    table, verdicts = analyse(write_world(tmp_path, [only_first, nothing], site=HEADS))
    assert len(table) == 2 * 2 * (len(ROLES) + 1)
    roles = table[table["token_role"] != ALL]
    kinds = roles[(roles["layer"] == 0) & (roles["token_role"] == ROLES[0])]["kind"]
    assert kinds.tolist() == [BOTH, BOTH]
    assert verdicts["about"].unique().tolist() == [
        f"restoring and taking at {HEADS}, mean over positions",
        f"restoring and taking at {HEADS}, role by role",
    ]


# --- one example


def test_one_example_is_told_by_its_own_draws() -> None:
    restored = pd.DataFrame(
        {"marked": [True, True, False, False, True], "known": [""] * 4 + [NO_OP]}
    )
    taken = pd.DataFrame({"p_map": [0.01, 0.5, 0.01, np.nan, 0.01], "known": ""})
    kinds = kinds_in_example(restored, taken).tolist()
    assert kinds == [BOTH, SUFFICIENT, NECESSARY, NEITHER, KNOWN]


# --- figures


def test_the_map_of_kinds_has_a_letter_a_place_and_explains_those_alone(tmp_path: Path) -> None:
    table, _ = analyse(write_world(tmp_path, [both_needed, either, only_first]))
    plot = effects_figure(table, ROLES, SITE)
    letters = plot.data[plot.data["letter"] != ""]
    written = letters.set_index(["layer", "token_role"])["letter"]
    assert written.to_dict() == {
        (0, ROLES[0]): "N", (0, ROLES[1]): "N", (1, ROLES[0]): "R", (1, ROLES[1]): "R",
        (2, ROLES[0]): "B",
    }  # fmt: skip
    told = plot.labels.subtitle.replace("\n", " ")
    assert all((LEGEND[letter] in told) == (letter in "NRB") for letter in "BNR")
    ringed = plot.data[plot.data["marked"]]
    assert set(ringed["layer"]) == {0, 1}
    assert "rings: the two differ (4 of 4 in logits too)" in told


def test_a_map_without_a_claim_has_neither_letters_nor_rings(tmp_path: Path) -> None:
    table, _ = analyse(write_world(tmp_path, [nothing], normalised=0.0))
    plot = effects_figure(table, ROLES, SITE)
    assert (plot.data["letter"] == "").all()
    assert not plot.data["marked"].any()
    assert "no place is shown" in plot.labels.subtitle
    assert "rings" not in plot.labels.subtitle


def effects_of(name: str, site: str, change: float, heads: Sequence[int] = (-1,)) -> pd.DataFrame:
    """An example's effects at two layers and positions; the first of layer 0 is sure."""
    rows = [
        {"experiment": name, "example": "cat", "site": site, "noise_level": LEVEL, "layer": layer,
         "position": position, "head": head, "token": f"word {position}", "token_role": "before it",
         "probability_change": change if (layer, position) == (0, 0) else 0.0,
         "marked": (layer, position) == (0, 0), "known": "",
         "p_map": 0.01 if (layer, position) == (0, 0) else 0.9}
        for layer, position, head in product(range(2), range(2), heads)
    ]  # fmt: skip
    other = [{**row, "noise_level": 2 * LEVEL, "probability_change": 0.9} for row in rows]
    return pd.DataFrame([*rows, *other])


RUNS = pd.DataFrame(
    {"example": "cat", "run": [BASE, "source"], "text": ["what is it", "where is it"],
     "answer": ["a cat", "here"], "answer_id": [1, 2], "p_base": [0.9, 0.1]}
)  # fmt: skip


def test_an_example_is_drawn_in_both_directions_towards_what_each_is_to_do() -> None:
    effects = pd.concat([effects_of("restoring", SITE, 0.62), effects_of("taking", SITE, -0.4)])
    pair = {end: EXPERIMENTS[name] for end, name in PAIR.items()}
    plot = example_figure(effects, RUNS, pair, "cat", SITE, LEVEL)
    drawn = plot.data[(plot.data["layer"] == 0) & (plot.data["position"] == 0)]
    assert drawn["p"].tolist() == [0.62, 0.4, 0.0]
    assert drawn["letter"].tolist() == ["", "", "B"]
    assert [*plot.data["panel"].cat.categories] == [
        "restored alone, gain in p(a cat)",
        "corrupted alone, loss of p(a cat)",
        "what the place is, over the draws",
    ]
    assert "“what is it” → a cat" in plot.labels.subtitle
    assert (plot.data["p"].abs() <= 0.62).all()


def test_heads_of_an_example_are_means_of_which_nothing_is_said() -> None:
    effects = pd.concat(
        [effects_of(name, HEADS, change, range(2)) for name, change in
         (("restoring", 0.6), ("taking", -0.4))]
    )  # fmt: skip
    pair = {end: EXPERIMENTS[name] for end, name in PAIR.items()}
    plot = example_figure(effects, RUNS, pair, "cat", HEADS, LEVEL)
    at_layer = plot.data[plot.data["layer"] == 0]
    assert at_layer["p"].tolist() == pytest.approx([0.3, 0.3, 0.2, 0.2])
    assert (plot.data["letter"] == "").all()


# --- what can be asked


def asked(restoring: dict[str, Any], taking: dict[str, Any], pairs: int = 1) -> dict[str, Any]:
    config = with_key("analyses", {"directions": {"pairs": [PAIR] * pairs}})
    config["experiments"] = {
        "restoring": {"receiver": "noisy", "donor": "base", **restoring},
        "taking": {"receiver": "base", "donor": "noisy", **taking},
    }
    return config


@pytest.mark.parametrize(
    ("restoring", "taking", "told"),
    [
        ({}, {"receiver": "noisy", "donor": "base"}, "exchange receiver and donor"),
        ({"receiver": "base", "donor": "noisy"}, {"receiver": "noisy", "donor": "base"},
         "is not corrupted"),
        ({"receiver": "base", "donor": "source"}, {"receiver": "source", "donor": "base"},
         "is not corrupted"),
        ({"donor": "source"}, {"receiver": "source"}, "give one whose donor is base"),
        ({"window": 3}, {}, "differ in window"),
        ({}, {"positions": "roles"}, "differ in positions"),
        ({"sites": ["encoder.mlp"]}, {"sites": [SITE]}, "no site in common"),
    ],
)  # fmt: skip
def test_a_pair_that_says_nothing_of_the_same_places_is_refused(
    restoring: dict[str, Any], taking: dict[str, Any], told: str
) -> None:
    message = refusal(fill_config, asked(restoring, taking))
    assert message.startswith("analyses.directions.pairs[0]")
    assert told in message


def test_a_pair_is_asked_once() -> None:
    assert fill_config(asked({}, {}))["analyses"]["directions"]["pairs"] == [PAIR]
    assert "is given twice" in refusal(fill_config, asked({}, {}, pairs=2))
