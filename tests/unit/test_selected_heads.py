"""Heads that stand out at one token: the published rule, and what it keeps of nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from blip_tracing.errors import InputError
from blip_tracing.given.settings import fill_config
from blip_tracing.meaning.analyses.selected_heads import analyse, shared_by_chance
from blip_tracing.meaning.evidence import Evidence
from blip_tracing.meaning.statistics import chosen_frequencies
from blip_tracing.meaning.summary import Rules
from blip_tracing.vocabulary.analyses import HEAD_SCORES
from blip_tracing.vocabulary.experiment import BASE, SOURCE, Experiment, Run

LAYERS, HEADS, EXAMPLES = 6, 4, 24
CROSS, SELF = "encoder.cross_attention_heads", "encoder.self_attention_heads"
ROLE = "right answer"
RULES = Rules(total_effect=0.05, least_effect=0.02, resamples=400, seed=0)
CLEAN = {name: Run(name, name) for name in (BASE, SOURCE)}
ENDS = {"swap": (SOURCE, BASE), "back": (BASE, SOURCE)}
Head = tuple[int, int]
Changes = Mapping[Head, float]


def asked(name: str, sites: Sequence[str] = (CROSS,)) -> Experiment:
    receiver, donor = ENDS[name]
    return Experiment(name, CLEAN[receiver], CLEAN[donor], tuple(sites))


def heads_of(
    experiment: Experiment,
    changes: Changes,
    seed: int,
    spread: float = 0.01,
    pictures: int = EXAMPLES,
    level: float = 0.0,
    null: float = 0.0,
) -> pd.DataFrame:
    """`role_means` of every head at one token: changes of probability, of logits ten times as much.

    level: what every head does; changes: what some do beside it; null: the share of it that an
    unrelated state does too. The logits' difference is of base minus source, as the tables have it.
    """
    random = np.random.default_rng(seed)
    sign = 1 if experiment.donor.question == BASE else -1
    rows = []
    for number, site, layer, head in product(
        range(EXAMPLES), experiment.sites, range(LAYERS), range(HEADS)
    ):
        change = level + changes.get((layer, head), 0.0) + random.normal(0, spread)
        rows.append(
            {
                "experiment": experiment.name, "example": f"e{number}", "site": site, "level": 0,
                "noise_level": np.nan, "picture": f"{number % pictures}.png", "group": "one",
                "included": True, "layer": layer, "head": head, "token_role": ROLE, "known": "",
                "probability": 0.3 + change, "probability_change": change,
                "logit_difference_change": sign * 10 * change, "normalised": 2 * change,
                "contrast": (1 - null) * change,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def found(
    folder: Path, tables: Sequence[pd.DataFrame], **settings: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The analysis of these experiments' heads: its table and its verdicts."""
    path = folder / "role_means.parquet"
    pd.concat(tables).to_parquet(path)
    names = [table["experiment"].iloc[0] for table in tables]
    sites = {table["experiment"].iloc[0]: table["site"].unique() for table in tables}
    given = {
        "experiments": names, "role": ROLE, "score": "logit_difference_change", "deviations": 2,
        "expected_at": CROSS, "expected": [],
    }  # fmt: skip
    return analyse(
        Evidence(
            settings={**given, **settings},
            experiments={name: asked(name, list(sites[name])) for name in names},
            primary=dict.fromkeys(names, 0),
            rules=RULES,
            role_means=[str(path)],
            cell_means=[],
            runs=pd.DataFrame(),
        )
    )


def heads_where(table: pd.DataFrame, column: str) -> set[Head]:
    there = table.loc[table[column].astype(bool), ["layer", "head"]]
    return {(int(layer), int(head)) for layer, head in there.to_numpy()}


def saying(verdicts: pd.DataFrame, words: str) -> Any:
    (row,) = verdicts[verdicts["statement"].str.contains(words)].itertuples()
    return row


PLANTED = {(5, 3): 0.3, (3, 0): 0.3}


@pytest.mark.parametrize("score", HEAD_SCORES)
def test_a_head_is_kept_by_the_published_rule(tmp_path: Path, score: str) -> None:
    """Mean of absolute scores, two standard deviations above all heads', by a plain loop."""
    rows = heads_of(asked("back"), PLANTED, seed=1)
    table, _ = found(tmp_path, [rows], score=score)
    means = {
        (layer, head): np.mean([abs(value) for value in of[score]])
        for (layer, head), of in rows.groupby(["layer", "head"])
    }
    every = list(means.values())
    threshold = np.mean(every) + 2 * np.std(every)
    assert heads_where(table, "kept") == {head for head, mean in means.items() if mean >= threshold}
    rows_of_table: Any = table.itertuples()
    for row in rows_of_table:
        assert row.score == pytest.approx(means[row.layer, row.head])
        assert row.threshold == pytest.approx(threshold)
        assert row.score_low <= row.score <= row.score_high


def test_the_four_scores_are_those_of_the_answer_that_is_followed(tmp_path: Path) -> None:
    """Put into base, the source's answer gains what the base's loses."""
    for name in ENDS:
        table, _ = found(tmp_path, [heads_of(asked(name), PLANTED, seed=2)])
        one = table[(table["layer"] == 5) & (table["head"] == 3)].iloc[0]
        assert one["probability_change"] == pytest.approx(0.3, abs=0.02)
        assert one["logit_difference_change"] == pytest.approx(10 * one["probability_change"])
        assert one["normalised"] == pytest.approx(2 * one["probability_change"])
        assert one["probability"] == pytest.approx(0.3 + one["probability_change"])
        assert one["probability_change_low"] < 0.3 < one["probability_change_high"]


def test_heads_that_act_in_all_experiments_are_universal(tmp_path: Path) -> None:
    tables = [
        heads_of(asked("swap"), {**PLANTED, (0, 1): 0.3}, seed=3),
        heads_of(asked("back"), {**PLANTED, (1, 1): -0.3}, seed=4),
    ]
    expected = ["L5.H3", "L3.H0", "L0.H2"]
    table, verdicts = found(tmp_path, tables, expected=expected)
    assert heads_where(table, "universal") == set(PLANTED)
    assert heads_where(table[table["experiment"] == "swap"], "shown") == {*PLANTED, (0, 1)}
    # A head that takes the answer away acts as well.
    assert heads_where(table[table["experiment"] == "back"], "shown") == {*PLANTED, (1, 1)}
    common = saying(verdicts, "in all of swap, back")
    assert (common.value, common.verdict) == (2, "L3.H0, L5.H3, more than by chance")
    # Two of three choices each of 24 in common, or all three.
    chance = (comb(3, 2) * 21 + 1) / comb(24, 3)
    assert common.p == pytest.approx(chance)
    published = saying(verdicts, "of the published")
    assert (published.value, published.verdict) == (2, "L3.H0, L5.H3, more than by chance")
    assert published.p == pytest.approx(comb(22, 1) / comb(24, 3))


def test_heads_that_each_experiment_keeps_of_its_own_are_not_universal(tmp_path: Path) -> None:
    tables = [
        heads_of(asked("swap"), {(0, 1): 0.3, (1, 1): 0.3}, seed=5),
        heads_of(asked("back"), {(2, 1): 0.3, (4, 1): 0.3}, seed=6),
    ]
    table, verdicts = found(tmp_path, tables, expected=["L5.H3"])
    assert not table["universal"].any()
    assert saying(verdicts, "in all of").verdict == "none"
    assert saying(verdicts, "of the published").verdict == "none"


def test_where_every_head_does_the_same_none_is_shown_to_stand_out(tmp_path: Path) -> None:
    """All act; the rule keeps those that are highest by chance. 5 % of 20 studies may err: one."""
    kept, wrong = 0, 0
    for seed in range(20):
        table, verdicts = found(
            tmp_path, [heads_of(asked("swap"), {}, seed, spread=0.05, level=0.2)]
        )
        assert table["acts"].all()
        kept += int(table["kept"].sum())
        wrong += bool(table["shown"].any())
    assert kept > 5
    assert wrong <= 1
    assert saying(verdicts, "whichever pictures").verdict == "none is shown to"


@pytest.mark.parametrize("spread", [0.0, 1e-9, 0.005])
def test_where_nothing_is_there_nothing_is_shown(tmp_path: Path, spread: float) -> None:
    tables = [heads_of(asked(name), {}, seed=7, spread=spread) for name in ENDS]
    table, verdicts = found(tmp_path, tables, expected=["L5.H3"])
    assert not table["shown"].any()
    assert not (table["kept"].any() and spread == 0)
    assert set(verdicts["verdict"].iloc[[1, 3]]) == {"none is shown to"}
    assert not verdicts["verdict"].str.contains("more than").any()


def test_a_head_whose_unrelated_state_does_as_much_is_not_shown(tmp_path: Path) -> None:
    table, _ = found(tmp_path, [heads_of(asked("swap"), PLANTED, seed=8, null=1.0)])
    assert heads_where(table, "kept") == set(PLANTED)
    assert not table["shown"].any()


def test_below_six_pictures_nothing_is_shown_and_no_interval_given(tmp_path: Path) -> None:
    table, _ = found(tmp_path, [heads_of(asked("swap"), PLANTED, seed=9, pictures=5)])
    assert heads_where(table, "kept") == set(PLANTED)
    assert not table["shown"].any()
    assert table[["score_low", "kept_share", "p"]].isna().all().all()
    six, _ = found(tmp_path, [heads_of(asked("swap"), PLANTED, seed=9, pictures=12)])
    assert heads_where(six, "shown") == set(PLANTED)


def test_what_is_known_beforehand_is_not_kept(tmp_path: Path) -> None:
    rows = heads_of(asked("swap"), PLANTED, seed=10)
    rows.loc[(rows["layer"] == 5) & (rows["head"] == 3), "known"] = "ceiling"
    table, _ = found(tmp_path, [rows])
    assert heads_where(table, "kept") == {(3, 0)}


def test_examples_that_averages_leave_out_are_left_out(tmp_path: Path) -> None:
    rows = heads_of(asked("swap"), PLANTED, seed=11)
    wild = rows["example"] == "e0"
    rows.loc[wild, "logit_difference_change"] = 1e6
    rows.loc[wild, "included"] = False
    table, _ = found(tmp_path, [rows])
    assert table["score"].max() < 10
    assert (table["pictures"] == EXAMPLES - 1).all()


def test_without_a_token_of_the_role_nothing_is_said(tmp_path: Path) -> None:
    tables = [heads_of(asked(name), PLANTED, seed=12) for name in ENDS]
    tables[0]["token_role"] = "another"
    table, verdicts = found(tmp_path, tables, expected=["L5.H3"])
    assert set(table["experiment"]) == {"back"}
    assert not table["universal"].any()
    assert verdicts["verdict"].iloc[0] == "no included example has a token of this role"
    assert not verdicts["statement"].str.contains("in all of|published").any()
    nothing, said = found(tmp_path, tables[:1])
    assert nothing.empty
    assert len(said) == 1


def test_the_sites_of_one_experiment_are_told_apart(tmp_path: Path) -> None:
    rows = heads_of(asked("swap", (CROSS, SELF)), {}, seed=13)
    planted = (rows["site"] == SELF) & (rows["layer"] == 2) & (rows["head"] == 2)
    rows.loc[planted, ["probability_change", "contrast"]] += 0.4
    rows.loc[planted, "logit_difference_change"] += 4
    table, verdicts = found(tmp_path, [rows], expected=["L2.H2"])
    assert heads_where(table[table["site"] == SELF], "shown") == {(2, 2)}
    assert not table.loc[table["site"] == CROSS, "shown"].any()
    # Published are heads of cross-attention.
    assert not table.loc[table["site"] == SELF, "expected"].any()
    assert saying(verdicts, "of the published").verdict != "L2.H2, more than by chance"


@pytest.mark.parametrize(
    ("shared", "chosen"), [(0, [3, 4]), (1, [3, 4]), (2, [3, 4]), (3, [3, 3]), (1, [4, 4, 4])]
)
def test_chance_is_that_of_random_choices(shared: int, chosen: list[int]) -> None:
    random = np.random.default_rng(0)
    draws = [
        len(set.intersection(*(set(random.permutation(10)[:count].tolist()) for count in chosen)))
        for _ in range(8000)
    ]
    expected = np.mean([common >= shared for common in draws])
    assert shared_by_chance(shared, chosen, 10) == pytest.approx(expected, abs=0.02)


def test_a_share_of_resamples_is_that_of_a_plain_bootstrap() -> None:
    """Of pictures, each with all its examples."""
    random = np.random.default_rng(1)
    values = random.normal([0, 0, 0.3, 0.6], size=(20, 4))
    pictures = [f"{number // 2}" for number in range(20)]
    found = chosen_frequencies(
        values, lambda means: means == means.max(axis=1, keepdims=True), 4000, 0, pictures
    )
    counts = np.zeros(4)
    for _ in range(4000):
        drawn = random.integers(10, size=10)
        rows = np.concatenate([[2 * picture, 2 * picture + 1] for picture in drawn])
        counts[values[rows].mean(axis=0).argmax()] += 1
    assert found == pytest.approx(counts / 4000, abs=0.03)
    few = chosen_frequencies(values, lambda means: means > 0, 100, 0, ["a"] * 10 + ["b"] * 10)
    assert np.isnan(few).all()


# ---- what is refused ---------------------------------------------------------------------------


def config_of(settings: Mapping[str, Any], **experiments: Any) -> dict[str, Any]:
    heads = {"receiver": SOURCE, "donor": BASE, "sites": [CROSS]}
    return {
        "model": {"name": "m", "layers": {"encoder": 6, "decoder": 6, "vision": 3}},
        "examples": "examples.tsv",
        "experiments": {"heads": heads, **experiments},
        "analyses": {"selected_heads": {"experiments": ["heads"], "role": "[CLS]", **settings}},
    }


KEY = "analyses.selected_heads"
AGAIN = {"receiver": SOURCE, "donor": BASE, "sites": [CROSS, SELF]}


@pytest.mark.parametrize(
    ("settings", "experiments", "message"),
    [
        ({"role": "noun"}, {}, f"{KEY}.role: 'noun' is not a role; "),
        ({"experiments": ["hads"]}, {}, f"{KEY}.experiments[0]: 'hads' is not an experiment with"),
        ({"experiments": []}, {}, f"{KEY}.experiments: is empty; give experiments with sites of"),
        ({"expected": ["5.3"]}, {}, f"{KEY}.expected[0]: '5.3' is no head; write a layer and a"),
        ({"score": "kl"}, {}, f"{KEY}.score: 'kl' is unknown; known are probability, "),
        (
            {"experiments": ["heads", "again"]},
            {"again": AGAIN},
            f"{KEY}.experiments[1]: again does what heads does, so that they share their heads",
        ),
        (
            {"experiments": ["stream"]},
            {"stream": {"receiver": SOURCE, "donor": BASE}},
            f"{KEY}.experiments[0]: stream has no site of the question encoder's heads; add one",
        ),
        (
            {"experiments": ["some"]},
            {"some": {**AGAIN, "heads": [1]}},
            f"{KEY}.experiments[0]: some has some heads alone, and a head is held against all",
        ),
        (
            {"experiments": ["all"]},
            {"whole": {**AGAIN, "positions": "all"}},
            f"{KEY}.experiments[0]: 'all' is not an experiment",
        ),
        (
            {"experiments": ["whole"]},
            {"whole": {**AGAIN, "positions": "all"}},
            f"{KEY}.experiments[0]: whole puts in all positions at once; give one with each or",
        ),
    ],
)
def test_what_cannot_be_selected_from_is_refused_in_one_line(
    settings: dict[str, Any], experiments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as refused:
        fill_config(config_of(settings, **experiments))
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_heads_and_roles_that_are_there_are_let_pass() -> None:
    given = config_of({"expected": ["L5.H3"]}, back={**AGAIN, "receiver": BASE, "donor": SOURCE})
    given["analyses"]["selected_heads"]["experiments"] = ["heads", "back"]
    filled = fill_config(given)["analyses"]["selected_heads"]
    assert (filled["deviations"], filled["expected_at"]) == (2, CROSS)
