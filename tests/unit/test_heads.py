"""Cells of heads, windows and joint positions: effects, means, marks, each against a plain loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from measure_effects import Measured, Shard, measure_experiment
from summarize_effects import summarize

from blip_tracing.machinery.tables import write_table
from blip_tracing.meaning.beside import joint_of, singles_of, sum_over_windows
from blip_tracing.meaning.effects import HALVES, MEASURED, QUANTITIES, show_heads
from blip_tracing.meaning.roles import Known, assign_roles, role_names
from blip_tracing.meaning.statistics import max_t_test, mean_intervals
from blip_tracing.meaning.summary import Rules, finish_experiment, maps_of, summarize_family
from blip_tracing.vocabulary.experiment import (
    BASE,
    BY_ROLE,
    SOURCE,
    TOGETHER,
    Experiment,
    Run,
    described,
)
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.sites import SITES, window_of
from blip_tracing.vocabulary.tables import INCLUDED, UNRELATED

RULES = Rules(total_effect=0.05, least_effect=0.02, resamples=300, seed=0)
STREAM = "encoder.block_output"
HEADS_SITE = next(name for name, site in SITES.items() if site.heads)
LAYERS, HEADS, DONORS = 2, 3, 2
TOKENS = ["[CLS]", "what", "shirt", "here", "[SEP]"]
OTHERS = ["[CLS]", "what", "animal", "here", "[SEP]"]
# The word "here" has no role.
ROLES = [
    {"role": "start", "token": r"\[CLS\]"},
    {"role": "it", "pair": "differs"},
    {"role": "frame", "token": r"what|\[SEP\]"},
]
OF_POSITION = ["start", "frame", "it", "", "frame"]
CLEAN, OTHER = Run(BASE, BASE), Run(SOURCE, SOURCE)
ASKED = Experiment("patching", CLEAN, OTHER, (STREAM, HEADS_SITE))


def scores(p_source: float) -> dict[str, float]:
    return {"p_base": 0.5, "p_source": p_source, "logit_base": 1.0, "logit_source": 2.0 * p_source}


def made_up(examples: int) -> dict[str, pd.DataFrame]:
    """The tables of an experiment at a stream and at heads, all probabilities of the source's."""
    random = np.random.default_rng(0)
    tables: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("runs", "baseline", "tokens", "cells", "controls", "examples")
    }
    for number in range(examples):
        example = {"example": f"e{number}"}
        tables["examples"].append({**example, "picture": f"{number}.png", "group": "one"})
        for answer, (question, words, p) in enumerate(((BASE, TOKENS, 0.1), (SOURCE, OTHERS, 0.9))):
            run = {"run": question, "answer_id": answer, "answer": f"answer {answer}"}
            tables["runs"].append({**example, **run, **scores(p)})
            first = {"question": question, "rank": 1, "token_id": answer}
            tables["baseline"].append({**example, **first})
            tables["tokens"] += [
                {**example, "question": question, "position": at, "token": word}
                for at, word in enumerate(words)
            ]
        for site, layer in product(ASKED.sites, range(LAYERS)):
            heads = range(HEADS) if SITES[site].heads else [None]
            for head, (position, token) in product(heads, enumerate(TOKENS)):
                cell = {**example, "site": site, "layer": layer, "head": head,
                        "position": position}  # fmt: skip
                tables["cells"].append({**cell, "token": token, **scores(random.random())})
                tables["controls"] += [
                    {**cell, "control": UNRELATED, "donor_number": donor, "matched": True,
                     **scores(random.random())}
                    for donor in range(DONORS)
                ]  # fmt: skip
    frames = {name: pd.DataFrame(rows) for name, rows in tables.items()}
    whole = {"head": "Int32", "layer": "Int32"}
    for name in ("cells", "controls"):
        frames[name] = frames[name].astype(whole)
    return frames


def measure(tables: dict[str, pd.DataFrame], asked: Experiment = ASKED) -> Measured:
    known = Known(assign_roles(tables["tokens"], ROLES), role_names(ROLES, [""]))
    shard = Shard(tables["runs"], tables["baseline"], known, tables["examples"], {asked.name: 0})
    return measure_experiment(asked, tables["cells"], tables["controls"], shard, RULES)


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return made_up(3)


@pytest.fixture(scope="module")
def measured(tables: dict[str, pd.DataFrame]) -> Measured:
    return measure(tables)


def rows_of(table: pd.DataFrame) -> Iterator[Any]:
    return table.itertuples(index=False)


def key_of(row: Any) -> tuple[Any, ...]:
    """Where a row of a table is; a head that is missing, or −1, is none."""
    head = None if pd.isna(row.head) or row.head < 0 else int(row.head)
    return row.example, row.site, int(row.layer), head


def test_a_head_has_an_effect_and_a_null_of_its_own(
    tables: dict[str, pd.DataFrame], measured: Measured
) -> None:
    nulls: dict[tuple[Any, ...], list[float]] = {}
    for row in rows_of(tables["controls"]):
        nulls.setdefault((*key_of(row), row.position), []).append(row.p_source)
    found = {(*key_of(row), row.position): row for row in rows_of(measured.effects)}
    assert len(found) == len(measured.effects) == len(tables["cells"])
    for row in rows_of(tables["cells"]):
        key = (*key_of(row), row.position)
        effect, null = found[key], nulls[key]
        assert len(null) == DONORS
        assert effect.probability_change == pytest.approx(row.p_source - 0.1)
        assert effect.null_change == pytest.approx(sum(null) / DONORS - 0.1)
        assert effect.contrast == pytest.approx(row.p_source - sum(null) / DONORS)
        assert effect.token_role == OF_POSITION[row.position]
        assert effect.known == ""


def test_a_head_has_means_over_a_roles_positions_and_over_all_positions(
    tables: dict[str, pd.DataFrame], measured: Measured
) -> None:
    """Over all of them those without a role count too; a stream has no such row a layer."""
    expected: dict[tuple[Any, ...], list[float]] = {}
    for row in rows_of(tables["cells"]):
        key, change = key_of(row), row.p_source - 0.1
        if OF_POSITION[row.position]:
            expected.setdefault((*key, OF_POSITION[row.position]), []).append(change)
        if key[-1] is not None:
            expected.setdefault((*key, ALL), []).append(change)
    found = {(*key_of(row), row.token_role): row for row in rows_of(measured.role_means)}
    assert len(measured.role_means) == len(found)
    assert found.keys() == expected.keys()
    for key, changes in expected.items():
        assert found[key].probability_change == pytest.approx(sum(changes) / len(changes))
        assert found[key].largest_change == pytest.approx(max(changes))
        assert found[key].turned == float(max(changes) >= 0.4)


def test_tables_have_heads_where_a_site_of_heads_is_asked(measured: Measured) -> None:
    shown = show_heads(measured.effects, [ASKED])
    assert shown["head"].dtype == "Int64"
    assert shown.loc[shown["site"] == STREAM, "head"].isna().all()
    assert set(shown.loc[shown["site"] == HEADS_SITE, "head"]) == set(range(HEADS))
    alone = replace(ASKED, sites=(STREAM,))
    assert "head" not in show_heads(measured.effects, [alone])


@pytest.mark.parametrize(
    ("site", "positions", "roles"),
    [
        ("decoder.mlp", "each", {0: "[DEC]", 1: "answer", 2: "answer"}),
        ("decoder.mlp", "roles", {0: "[DEC]", 1: "answer"}),
        ("vision.mlp", "each", {0: "[CLS]", 1: "hat", 2: "background", 3: "ball", 4: "ball"}),
        ("vision.mlp", "roles", {0: "[CLS]", 1: "ball", 2: "hat", 3: "background"}),
        ("encoder.mlp", "roles", {0: "start", 1: "it", 2: "frame"}),
        ("encoder.mlp", "all", {0: ALL}),
        ("vision.mlp", "all", {0: ALL}),
    ],
)
def test_positions_of_every_tower_have_their_roles(
    tables: dict[str, pd.DataFrame], site: str, positions: str, roles: dict[int, str]
) -> None:
    """Of roles put in together the position is the number of the role, in the tower's order."""
    asked = Experiment("patching", CLEAN, OTHER, (site,), positions=positions, regions=2)
    cells = pd.DataFrame(
        [
            {"example": "e0", "site": site, "layer": 0, "position": at, "token": "",
             **scores(0.5)} for at in roles
        ]
    )  # fmt: skip
    boxes = "hat=0,0,0.5,0.5; ball=0,0.5,1,1"
    known = Known(
        assign_roles(tables["tokens"], ROLES),
        role_names(ROLES, ["ball=0,0,1,1", boxes]),
        {"e0": boxes},
        frozenset({"e0"}),
    )
    shard = Shard(tables["runs"], tables["baseline"], known, tables["examples"], {"patching": 0})
    nothing = tables["controls"].iloc[:0]
    found = measure_experiment(asked, cells, nothing, shard, RULES).effects
    assert found.set_index("position")["token_role"].to_dict() == roles


# --- families of heads


def head_means(
    change: np.ndarray, contrast: np.ndarray, roles: tuple[str, ...] = (ALL, "it", "frame")
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The means of a site of heads (N, roles, L, H): what `average_roles` and `_cells` return."""
    told = {"experiment": ASKED.name, "site": HEADS_SITE, "noise_level": np.nan, "level": 0,
            "group": "one", "included": True}  # fmt: skip
    rows, cells = [], []
    for number in range(len(change)):
        named = {**told, "example": f"{number:03d}", "picture": f"{number:03d}.png"}
        for (at, role), layer, head in product(
            enumerate(roles), range(change.shape[2]), range(change.shape[3])
        ):
            index = number, at, layer, head
            if math.isnan(change[index]):
                continue
            values = dict.fromkeys(QUANTITIES, 0.1) | dict.fromkeys(HALVES, 0.0)
            values |= {"probability": 0.1 + change[index], "probability_change": change[index],
                       "contrast": contrast[index]}  # fmt: skip
            place = {"layer": layer, "head": head, "token_role": role, "known": ""}
            rows.append({**named, **place, **values})
        facts = {
            "reference": 0.1, "target": 0.9, "total_effect": 0.8, "logit_range": 1.0,
            "hidden_share": np.nan, "third_mass": 0.2, "matched_share": 1.0, "draws": 1,
            "null_draws": 1, "one_answer": False, "below_threshold": False,
        }  # fmt: skip
        whole = dict.fromkeys(MEASURED, 0.1) | {"layer": -1, "head": -1, "token_role": ALL}
        cells.append({**named, **whole, **facts})
    return pd.DataFrame(rows), pd.DataFrame(cells)


def tell(of_roles: pd.DataFrame, of_cells: pd.DataFrame) -> tuple[pd.DataFrame, ...]:
    asked = replace(ASKED, sites=(HEADS_SITE,))
    families = [summarize_family(*means, asked, 0, RULES) for means in maps_of(of_roles, of_cells)]
    return finish_experiment(families, RULES)


def simulated(random: np.random.Generator, examples: int) -> np.ndarray:
    """Changes of no size, alike in neighbouring heads: 3 maps of 4 layers and 6 heads."""
    shared = random.normal(0, 0.03, (examples, 1, 4, 1))
    return shared + random.normal(0, 0.05, (examples, 3, 4, 6))


def test_heads_are_tested_over_all_layers_and_heads_of_a_role() -> None:
    """p_family within the map of a role, p_study over all maps; some lack a role."""
    random = np.random.default_rng(1)
    change = simulated(random, 8) + 0.03
    change[:, 1, 2, 4] += 0.4
    change[6:, 2] = np.nan
    contrast = change - simulated(random, 8)
    summary, families, _ = tell(*head_means(change, contrast))
    assert families["token_role"].tolist() == [ALL, "frame", "it"]
    assert families["cells"].tolist() == [24, 24, 24]
    assert families["included"].tolist() == [8, 6, 8]
    assert families["primary"].tolist() == [True, False, False]
    tested = summary[
        (summary["quantity"] == "probability_change") & (summary["among"] == INCLUDED)
    ].dropna(subset="layer")
    names = [f"{number:03d}.png" for number in range(8)]
    whole = []
    for at, role in enumerate((ALL, "it", "frame")):
        rows = tested[tested["token_role"] == role].sort_values(["layer", "head"])
        count = 6 if role == "frame" else 8
        p = np.maximum(
            *(
                max_t_test(values[:count, at].reshape(count, 24), 300, 0, names[:count], 0.02).p
                for values in (change, contrast)
            )
        )
        assert rows["p_family"].to_numpy() == pytest.approx(p)
        assert rows["mean"].to_numpy() == pytest.approx(
            np.nanmean(change[:, at], axis=0).reshape(24)
        )
        whole.append((rows, at))
    study = np.maximum(
        *(
            max_t_test(
                np.hstack([values[:, at].reshape(8, 24) for _, at in whole]), 300, 0, names, 0.02
            ).p
            for values in (change, contrast)
        )
    )
    found = np.concatenate([rows["p_study"].to_numpy() for rows, _ in whole])
    assert found == pytest.approx(study)
    marked = tested[tested["marked"]]
    assert list(marked[["token_role", "layer", "head"]].itertuples(index=False)) == [("it", 2, 4)]


def test_the_mean_over_all_cells_of_heads_stands_once() -> None:
    change = simulated(np.random.default_rng(2), 7)
    summary, *_ = tell(*head_means(change, change))
    keys = ["layer", "head", "token_role", "quantity", "group", "among"]
    assert not summary.duplicated(keys).any()
    assert summary["layer"].isna().sum() == 2 * len(MEASURED)


@pytest.mark.parametrize("examples", [6, 12, 30])
def test_heads_without_a_signal_are_marked_within_their_level(examples: int) -> None:
    """Of 24 heads that do by chance what any state does one is marked in 5 of 100 maps."""
    marked, maps = 0, 0
    for study in range(16):
        random = np.random.default_rng([study, examples])
        change = simulated(random, examples) + RULES.least_effect
        summary, families, _ = tell(*head_means(change, simulated(random, examples) + 0.02))
        assert families["tested"].all()
        marked += summary.loc[summary["marked"], "token_role"].nunique()
        maps += len(families)
    assert maps == 48
    assert marked <= 5  # in 19 of 20 such simulations, at their level


def test_an_untrained_networks_heads_are_not_marked() -> None:
    """Its changes are sure, since all heads are alike, and less than the least effect."""
    random = np.random.default_rng(0)
    change = 0.003 + 0.0003 * random.normal(size=(12, 3, 4, 6))
    summary, *_ = tell(*head_means(change, change))
    assert not summary["marked"].any()


# --- beside a change


def cell_rows(random: np.random.Generator, layers: int, examples: int) -> pd.DataFrame:
    """`role_means` of a stream: a change a layer and role, of roles that the last example lacks."""
    rows = [
        {"experiment": "one", "site": STREAM, "noise_level": np.nan, "level": 0,
         "example": f"{number:03d}", "picture": f"{number:03d}.png", "group": "one",
         "included": number > 0, "layer": layer, "head": -1, "token_role": role, "known": "",
         **dict.fromkeys(QUANTITIES, 0.1), **dict.fromkeys(HALVES, 0.0),
         "probability_change": change, "probability": 0.1 + change}
        for number, layer, role in product(range(examples), range(layers), ("it", "frame"))
        for change in [random.uniform(-0.1, 0.2)]
        if (number, role) != (examples - 1, "frame")
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("window", [2, 3, 5])
def test_the_sum_of_singles_is_over_the_layers_of_the_window(window: int) -> None:
    singles = cell_rows(np.random.default_rng(0), 4, 3)
    found = sum_over_windows(singles, window)
    change = {(row.example, row.layer, row.token_role): row.probability_change
              for row in rows_of(singles)}  # fmt: skip
    assert len(found) == len(change)
    for row in rows_of(found.rename("total").reset_index()):
        each = [
            change[row.example, single, row.token_role]
            for single in window_of(row.layer, window, 4)
        ]
        assert row.total == pytest.approx(sum(each))
        assert row.head == -1


def test_a_window_with_a_layer_that_is_not_there_has_no_sum() -> None:
    singles = cell_rows(np.random.default_rng(0), 4, 1)
    lacking = singles[(singles["layer"] != 1) | (singles["token_role"] != "it")]
    found = sum_over_windows(lacking, 2).loc["000"]
    role = found.index.get_level_values("token_role")
    layer = found.index.get_level_values("layer")
    assert found[(role == "it") & np.isin(layer, [1, 2])].isna().all()
    assert found[(role == "it") & np.isin(layer, [0, 3])].notna().all()


SINGLE = Experiment("single", CLEAN, OTHER, (STREAM, HEADS_SITE))
WINDOW = replace(SINGLE, name="window", window=3)
JOINT = replace(SINGLE, name="joint", positions=BY_ROLE)
WHOLE = replace(SINGLE, name="whole", positions=TOGETHER)


def test_what_stands_beside_is_of_the_same_runs_site_and_positions() -> None:
    every = [WINDOW, SINGLE, JOINT, WHOLE]
    assert singles_of(WINDOW, STREAM, every) == SINGLE
    assert joint_of(SINGLE, STREAM, every, BY_ROLE) == JOINT
    assert joint_of(SINGLE, STREAM, every, TOGETHER) == WHOLE
    assert singles_of(SINGLE, STREAM, every) is None, "no window"
    assert joint_of(JOINT, STREAM, every, TOGETHER) is None, "put in together itself"
    assert joint_of(WINDOW, STREAM, every, BY_ROLE) is None, "of another window"
    others: list[dict[str, Any]] = [
        {"receiver": OTHER}, {"donor": CLEAN}, {"sites": ("encoder.mlp",)}, {"window": 2},
        {"positions": BY_ROLE},
    ]  # fmt: skip
    for changed in others:
        assert singles_of(WINDOW, STREAM, [replace(SINGLE, **changed)]) is None
    few = replace(SINGLE, heads=(1,))
    assert singles_of(WINDOW, HEADS_SITE, [few]) is None
    assert singles_of(WINDOW, STREAM, [few]) == few
    assert singles_of(replace(WINDOW, heads=(1,)), HEADS_SITE, [few]) == few
    other_grid = replace(SINGLE, sites=("vision.mlp",), regions=3)
    assert singles_of(replace(WINDOW, sites=("vision.mlp",)), "vision.mlp", [other_grid]) is None


def summary_of(folder: Path, experiments: list[Experiment]) -> pd.DataFrame:
    """The summary of made-up means of these, 8 examples and 4 layers each."""
    roles, cells = [], []
    for number, asked in enumerate(experiments):
        rows = cell_rows(np.random.default_rng(number), 4, 8).assign(experiment=asked.name)
        roles.append(rows)
        _, whole = head_means(np.zeros((8, 3, 1, 1)), np.zeros((8, 3, 1, 1)))
        included = whole["example"] != "000"
        cells.append(whole.assign(experiment=asked.name, site=STREAM, included=included))
    paths = [str(folder / f"{name}.parquet") for name in ("roles", "cells")]
    for path, parts in zip(paths, (roles, cells), strict=True):
        write_table(pd.concat(parts, ignore_index=True), path)
    asked_for = {asked.name: described(asked) for asked in experiments}
    primary = dict.fromkeys(asked_for, 0)
    found = summarize([paths[0]], [paths[1]], asked_for, primary, RULES)
    return pd.concat([tables[0] for tables in found], ignore_index=True)


def at_stream(*asked: Experiment) -> list[Experiment]:
    return [replace(one, sites=(STREAM,)) for one in asked]


def test_a_window_has_the_sum_of_its_layers_beside_it(tmp_path: Path) -> None:
    """The mean over the same examples, whose interval has the range of as many changes."""
    summary = summary_of(tmp_path, at_stream(SINGLE, WINDOW))
    columns = ["sum_of_singles", "sum_of_singles_low", "sum_of_singles_high"]
    assert "head" not in summary
    assert not summary.columns.str.startswith("joint").any()
    rows = summary[(summary["experiment"] == "window") & summary["layer"].notna()]
    beside = (rows["quantity"] == "probability_change").to_numpy()
    assert rows.loc[beside, columns].notna().all(axis=None)
    assert rows.loc[~beside, columns].isna().all(axis=None)
    assert summary.loc[summary["experiment"] == "single", columns].isna().all(axis=None)
    singles = cell_rows(np.random.default_rng(0), 4, 8)
    change = {(row.example, row.layer, row.token_role): row for row in rows_of(singles)}
    windowed = cell_rows(np.random.default_rng(1), 4, 8)
    for row in rows_of(rows[beside]):
        named = [f"{n:03d}" for n in range(row.among == INCLUDED, 8)]
        layers = window_of(row.layer, 3, 4)
        sums = [
            sum(change[name, layer, row.token_role].probability_change for layer in layers)
            if (name, row.layer, row.token_role) in change else math.nan
            for name in named
        ]  # fmt: skip
        assert row.sum_of_singles == pytest.approx(np.nanmean(sums))
        cell = windowed[
            (windowed["layer"] == row.layer)
            & (windowed["token_role"] == row.token_role)
            & windowed["example"].isin(named)
        ]
        before = float((cell["probability"] - cell["probability_change"]).mean())
        ends = mean_intervals(
            np.array(sums)[:, None], 300, 0, [f"{name}.png" for name in named],
            -before * len(layers), (1 - before) * len(layers),
        ).iloc[0]  # fmt: skip
        assert (row.sum_of_singles_low, row.sum_of_singles_high) == pytest.approx(
            (ends["low"], ends["high"])
        )


def test_a_mean_over_positions_has_the_joint_change_beside_it(tmp_path: Path) -> None:
    """Beside the mean and beside the largest: the three stand at one cell's rows."""
    summary = summary_of(tmp_path, at_stream(SINGLE, JOINT))
    assert not summary.columns.str.startswith("sum_of_singles").any()
    joint = cell_rows(np.random.default_rng(1), 4, 8)
    rows = summary[(summary["experiment"] == "single") & summary["layer"].notna()]
    beside = rows["quantity"].isin(["probability_change", "largest_change"])
    assert rows.loc[~beside, "joint"].isna().all()
    for row in rows_of(rows[beside]):
        of_cell = (joint["layer"] == row.layer) & (joint["token_role"] == row.token_role)
        counted = joint[of_cell & (joint["included"] | (row.among == ALL))]
        assert row.joint == pytest.approx(counted["probability_change"].mean())
        assert row.joint_low < row.joint < row.joint_high
    of_joint = summary[summary["experiment"] == "joint"]
    assert of_joint["joint"].isna().all()
    same = of_joint[of_joint["quantity"] == "probability_change"].set_index(
        ["layer", "token_role", "among"]
    )["mean"]
    first = rows[rows["quantity"] == "probability_change"]
    for row in rows_of(first):
        assert row.joint == pytest.approx(same[row.layer, row.token_role, row.among])
