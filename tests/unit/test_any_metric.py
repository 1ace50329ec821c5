"""Effects, intervals, tests and marks of any metric, against plain loops and a planted truth."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import summarize_effects

from blip_tracing.machinery.tables import write_table
from blip_tracing.meaning.effects import HALVES, MEASURED, OF_POSITIONS, measure_cells
from blip_tracing.meaning.statistics import max_t_test
from blip_tracing.meaning.summary import Rules, finish_experiment, summarize_family
from blip_tracing.vocabulary.corruptions import KINDS, PLACES, Corruption
from blip_tracing.vocabulary.experiment import BASE, SOURCE, Experiment, Run, described
from blip_tracing.vocabulary.metrics import ALWAYS, METRICS, columns_of, further_of
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.sites import SITES
from blip_tracing.vocabulary.tables import FEW_PICTURES, INCLUDED, NO_OP, UNRELATED

SITE = next(iter(SITES))
LEVEL, DRAWS = 5.0, 6
BASE_RUN, SOURCE_RUN = Run(BASE, BASE), Run(SOURCE, SOURCE)
NOISY = Run(
    "noisy", BASE, Corruption(next(iter(KINDS)), next(iter(PLACES)), (LEVEL,), DRAWS, seed=0)
)
PATCHING = Experiment("patching", BASE_RUN, SOURCE_RUN, (SITE,))
TRACING = Experiment("tracing", NOISY, BASE_RUN, (SITE,))
NOISING = Experiment("noising", BASE_RUN, NOISY, (SITE,))
# Noise in the base question's run, into which the other question's states go.
CROSSED = Experiment("crossed", NOISY, SOURCE_RUN, (SITE,))
EXPERIMENTS = (PATCHING, TRACING, NOISING, CROSSED)
FURTHER = further_of(METRICS, "logit")
ROLES, LAYERS = ("before", "at", "after"), 2
# Where an effect is planted.
PLANTED = (1, "at")


def rules_of(metric: str, least: float = 0.02) -> Rules:
    return Rules(0.05, least, resamples=300, seed=0, metric=metric, further=FURTHER)


# --- what a metric says of its change


@pytest.mark.parametrize(
    ("metric", "signs"),
    [
        # Of patching to the source answer, tracing to the base one, noising away from it.
        ("probability", (1, 1, -1)),
        ("logit", (1, 1, -1)),
        ("logit_difference", (-1, 1, -1)),
        ("answer_probability", (1, 1, -1)),
        ("rank", (-1, -1, 1)),
        ("kl", (-1, -1, -1)),
    ],
)
def test_an_effect_moves_a_metric_as_its_row_says(metric: str, signs: tuple[int, ...]) -> None:
    asked = (PATCHING, TRACING, NOISING)
    assert tuple(METRICS[metric].towards(experiment) for experiment in asked) == signs


def test_readers_see_the_logit_difference_of_the_followed_answer() -> None:
    difference = METRICS["logit_difference"]
    assert [difference.rises(each) for each in (PATCHING, TRACING, NOISING)] == [1, 1, -1]
    assert METRICS["rank"].rises(PATCHING) == -1


def test_what_is_followed_has_its_column() -> None:
    assert METRICS["rank"].column(SOURCE) == "rank_source"
    assert METRICS["probability"].column(BASE) == "p_base"
    assert {METRICS["kl"].column(followed) for followed in (BASE, SOURCE)} == {"kl"}


def test_further_metrics_are_those_beyond_what_effects_need_and_the_tested_one() -> None:
    assert further_of(["probability", "logit"], "probability") == ()
    assert further_of(["probability", "logit", "logit_difference"], "logit_difference") == ()
    assert further_of(["logit", "probability"], "logit") == ("logit",)
    assert further_of(reversed(METRICS), "probability") == ("answer_probability", "rank", "kl")


# --- changes and contrasts, cell by cell


def scores(random: np.random.Generator) -> dict[str, float]:
    """A number for each column of each metric."""
    return {name: float(np.float32(random.uniform(0.1, 0.9))) for name in columns_of(METRICS)}


def tables_of(experiment: Experiment) -> dict[str, pd.DataFrame]:
    """Made-up scores of two examples at two layers, with two nulls a cell."""
    random = np.random.default_rng(0)
    variants = [{"noise_level": LEVEL, "draw": n} for n in range(DRAWS)]
    at = variants if experiment.levels else [{}]
    runs, cells, controls = [], [], []
    for example in ("one", "two"):
        named = {"example": example, "answer_id": 1, "answer": "word"}
        runs += [{**named, "run": run, **scores(random)} for run in (BASE, SOURCE)]
        runs += [{**named, "run": NOISY.name, **variant, **scores(random)} for variant in variants]
        there = {"example": example, "site": SITE}
        controls.append({**there, "control": NO_OP, "layer": 0, **at[0], **scores(random)})
        for layer, variant in product(range(LAYERS), at):
            cell = {**there, "layer": layer, "position": 0, **variant}
            cells.append({**cell, "token": "word", **scores(random)})
            controls += [
                {**cell, "control": UNRELATED, "donor_number": donor, **scores(random)}
                for donor in range(2)
            ]
    return {
        "cells": pd.DataFrame(cells),
        "controls": pd.DataFrame(controls),
        "runs": pd.DataFrame(runs),
    }


def number_of(row: Any, metric: str, followed: str) -> float:
    """A row's number, by the definition of its columns."""
    if metric == "logit_difference":
        return row["logit_base"] - row["logit_source"]
    prefix = {"probability": "p", "logit": "logit", "rank": "rank"}.get(metric)
    return row[f"{prefix}_{followed}"] if prefix else row[metric]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda each: each.name)
def test_changes_are_from_the_reference_and_contrasts_from_the_null(
    experiment: Experiment, metric: str
) -> None:
    """A divergence from a run that `runs` does not score by comes from what got its own states."""
    tables, followed = tables_of(experiment), experiment.donor.question
    found = measure_cells(
        experiment, tables["cells"], tables["controls"], tables["runs"], metric, FURTHER
    )
    assert len(found) == len(tables["cells"])
    for (_, cell), (_, row) in zip(tables["cells"].iterrows(), found.iterrows(), strict=True):
        of_example = {name: part[part["example"] == cell["example"]]
                      for name, part in tables.items()}  # fmt: skip
        references = of_example["runs"][of_example["runs"]["run"] == experiment.receiver.name]
        if experiment.receiver.corruption:
            references = references[references["draw"] == cell["draw"]]
        controls = of_example["controls"]
        if metric == "kl" and experiment is not TRACING:
            unchanged = controls[controls["control"] == NO_OP]
            if experiment.levels:
                unchanged = unchanged[unchanged["draw"] == cell["draw"]]
            references = unchanged
        reference = number_of(references.iloc[0], metric, followed) if len(references) else math.nan
        after = number_of(cell, metric, followed)
        change = row[METRICS[metric].change]
        assert change == pytest.approx(after - reference, nan_ok=True)
        nulls = controls[(controls["control"] == UNRELATED) & (controls["layer"] == cell["layer"])]
        if experiment.levels:
            nulls = nulls[nulls["draw"] == cell["draw"]]
        values = [number_of(null, metric, followed) for _, null in nulls.iterrows()]
        assert len(values) == 2
        assert row["contrast"] == pytest.approx(after - np.mean(values))
        assert row["tested_null"] == pytest.approx(np.mean(values) - reference, nan_ok=True)
        halves = sorted(value - reference for value in values)
        assert sorted(row[HALVES]) == pytest.approx(halves, nan_ok=True)


# --- tests and marks


def family(
    experiment: Experiment, planted: dict[str, float], examples: int = 12, spread: float = 0.01
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The means of roles and cells of a family, changed in one cell alone.

    planted: metric → its change there, in the tables' sign. All is noisy by `spread`; a contrast
    is a change less a null that does nothing, so that the tests choose which metric's it is.
    """
    random = np.random.default_rng(1)
    metrics = (*ALWAYS, *FURTHER)
    told = {
        "experiment": experiment.name, "site": SITE, "group": "a kind", "included": True,
        "noise_level": LEVEL if experiment.levels else np.nan, "level": 0,
    }  # fmt: skip
    roles, cells = [], []
    for number in range(examples):
        named = {**told, "example": f"{number:03d}", "picture": f"{number:03d}.png"}
        for place in product(range(LAYERS), ROLES):
            changes = {
                name: random.normal(planted.get(name, 0.0) if place == PLANTED else 0.0, spread)
                for name in metrics
            }
            values = {
                **dict.fromkeys([*MEASURED, *OF_POSITIONS, *HALVES], 0.0),
                **{name: 0.5 + change for name, change in changes.items()},
                **{METRICS[name].change: change for name, change in changes.items()},
            }
            where = {"layer": place[0], "head": -1, "token_role": place[1], "known": ""}
            roles.append({**named, **where, **values})
        facts = {
            "reference": 0.5, "target": 0.5 + 0.4 * experiment.direction,
            "total_effect": 0.4 * experiment.direction, "logit_range": 1.0, "hidden_share": 1.0,
            "third_mass": 0.2, "matched_share": 1.0, "draws": DRAWS, "null_draws": DRAWS,
            "one_answer": False, "below_threshold": False,
        }  # fmt: skip
        whole = dict.fromkeys([*MEASURED, *metrics, *(METRICS[name].change for name in metrics)], 0)
        cells.append({**named, "layer": -1, "head": -1, "token_role": ALL, **whole, **facts})
    return pd.DataFrame(roles), pd.DataFrame(cells)


def summarized(
    experiment: Experiment, planted: dict[str, float], metric: str = "probability", **settings: Any
) -> tuple[pd.DataFrame, pd.Series]:
    """The summary, and the one row of `families`, of a planted family by a metric's tests."""
    of_roles, of_cells = family(experiment, planted, **settings)
    of_roles["contrast"] = of_roles[METRICS[metric].change]
    rules = rules_of(metric)
    part = summarize_family(of_roles, of_cells, experiment, 0, rules)
    summary, families, _ = finish_experiment([part], rules)
    return summary, families.iloc[0]


def marked_cells(summary: pd.DataFrame) -> set[tuple[str, int, str]]:
    rows = summary[summary["marked"]]
    return set(zip(rows["quantity"], rows["layer"], rows["token_role"], strict=True))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("experiment", [PATCHING, TRACING, NOISING], ids=lambda each: each.name)
def test_a_planted_change_is_marked_where_its_metric_is_tested(
    experiment: Experiment, metric: str
) -> None:
    """And not the other way round, nor where another metric is tested, nor where there is none."""
    towards = METRICS[metric].towards(experiment)
    summary, facts = summarized(experiment, {metric: 0.3 * towards}, metric)
    assert marked_cells(summary) == {(METRICS[metric].change, *PLANTED)}
    assert facts["tested"]
    for planted in ({metric: -0.3 * towards}, {}):
        assert not marked_cells(summarized(experiment, planted, metric)[0])
    other = "rank" if metric == "probability" else "probability"
    assert not marked_cells(summarized(experiment, {metric: 0.3 * towards}, other)[0])


def test_the_tests_are_max_t_over_the_tested_change_in_its_direction() -> None:
    planted = {"rank": -0.03}
    summary, _ = summarized(PATCHING, planted, "rank", spread=0.02)
    of_roles, _ = family(PATCHING, planted, spread=0.02)
    values = of_roles.pivot(index="example", columns=["layer", "token_role"], values="rank_change")
    p = max_t_test(-values.to_numpy(), 300, 0, list(values.index), 0.02).p
    rows = summary[(summary["quantity"] == "rank_change") & (summary["among"] == INCLUDED)]
    rows = rows[rows["layer"].notna()].set_index(["layer", "token_role"])
    assert rows.loc[list(values.columns), "p_floor"].tolist() == pytest.approx(list(p))
    others = summary[summary["quantity"] != "rank_change"]
    assert others[["p_floor", "p_null", "p_family", "chosen"]].isna().all(axis=None)


@pytest.mark.parametrize("metric", METRICS)
def test_five_pictures_have_neither_interval_nor_mark(metric: str) -> None:
    towards = METRICS[metric].towards(PATCHING)
    summary, facts = summarized(PATCHING, {metric: 0.3 * towards}, metric, examples=5)
    assert facts["reason"] == FEW_PICTURES
    assert not marked_cells(summary)
    assert summary["low"].isna().all()


def test_intervals_end_where_a_bounded_metric_does() -> None:
    """And only there: all six values are one, so that no bootstrap sees any spread."""
    planted = {"answer_probability": -0.5, "rank": -0.5}
    summary, _ = summarized(PATCHING, planted, examples=6, spread=0.0)
    at = summary[(summary["layer"] == 1) & (summary["token_role"] == "at")]
    rows = at[at["among"] == INCLUDED].set_index("quantity")
    # From 0.5 it can fall by no more, and may rise by as much.
    bounded, free = rows.loc["answer_probability_change"], rows.loc["rank_change"]
    assert bounded["mean"] == free["mean"] == -0.5
    assert bounded["low"] == pytest.approx(-0.5)
    assert -0.5 < bounded["high"] <= 0.5
    assert free["low"] == free["high"] == pytest.approx(-0.5)


def test_a_run_of_the_needed_metrics_has_no_further_quantities() -> None:
    of_roles, of_cells = family(PATCHING, {})
    rules = replace(rules_of("probability"), further=())
    part = summarize_family(of_roles, of_cells, PATCHING, 0, rules)
    summary, families, _ = finish_experiment([part], rules)
    assert not set(summary["quantity"]) & {METRICS[name].change for name in FURTHER}
    assert families["damaged"].isna().all()


# --- damage


GAIN = {"logit_difference": -0.3}  # towards the source answer
LOSS = {"answer_probability": -0.3}


def test_where_the_difference_rises_and_both_answers_lose_it_is_damage() -> None:
    assert summarized(PATCHING, {**GAIN, **LOSS})[1]["damaged"] == 1


@pytest.mark.parametrize(
    "planted",
    [
        {},
        GAIN,
        LOSS,
        {**GAIN, "answer_probability": 0.3},
        {"logit_difference": 0.3, **LOSS},
        {**GAIN, "answer_probability": -0.01},
    ],
    ids=["nothing", "gain alone", "loss alone", "both gain", "away", "less than the least"],
)
def test_no_damage_is_told_where_one_of_the_two_is_not_there(planted: dict[str, float]) -> None:
    assert summarized(PATCHING, planted)[1]["damaged"] == 0


def test_noise_about_nothing_is_no_damage() -> None:
    """Single means fall by much more than the least effect, by chance."""
    summary, facts = summarized(PATCHING, {}, spread=0.6)
    both = summary[summary["quantity"] == "answer_probability_change"]
    assert both["mean"].min() < -0.05
    assert facts["damaged"] == 0


def test_what_is_known_beforehand_is_no_damage() -> None:
    of_roles, of_cells = family(PATCHING, {**GAIN, **LOSS})
    of_roles["contrast"] = of_roles["probability_change"]
    of_roles.loc[(of_roles["layer"] == 1) & (of_roles["token_role"] == "at"), "known"] = "ceiling"
    part = summarize_family(of_roles, of_cells, PATCHING, 0, rules_of("probability"))
    assert part.facts["damaged"] == 0


def test_damage_is_not_asked_of_five_pictures_nor_where_an_answer_is_taken() -> None:
    assert math.isnan(summarized(PATCHING, {**GAIN, **LOSS}, examples=5)[1].get("damaged", np.nan))
    assert math.isnan(summarized(NOISING, {**GAIN, **LOSS})[1].get("damaged", np.nan))


def test_the_least_fall_is_a_probability_whatever_is_tested() -> None:
    assert rules_of("probability", 0.03).least_fall == 0.03
    assert rules_of("rank", 3).least_fall == 0.05


@pytest.mark.parametrize("further", [FURTHER, ()])
def test_the_tables_count_damage_only_where_it_can_be_told(tmp_path: Any, further: Any) -> None:
    of_roles, of_cells = family(PATCHING, {**GAIN, **LOSS})
    of_roles["contrast"] = of_roles["probability_change"]
    files = {name: str(tmp_path / f"{name}.parquet") for name in ("roles", "cells")}
    for name, table in (("roles", of_roles), ("cells", of_cells)):
        write_table(table, files[name])
    rules = replace(rules_of("probability"), further=further)
    asked = {PATCHING.name: described(PATCHING)}
    ((_, families, _),) = summarize_effects.summarize(
        [files["roles"]], [files["cells"]], asked, {PATCHING.name: 0}, rules
    )
    assert ("damaged" in families) == bool(further)
