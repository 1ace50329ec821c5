"""All examples at a glance: a row each, and the share of them that turns, layer by layer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as ds

from blip_tracing.machinery.tables import PARQUET
from blip_tracing.meaning.effects import HALF
from blip_tracing.meaning.statistics import FEWEST_PICTURES, mean_intervals
from blip_tracing.telling.findings import places_words
from blip_tracing.telling.phrases import amount_words, level_sign, title_of, turns_words
from blip_tracing.telling.places import is_drawn_by_head, one_words, role_words, words_of
from blip_tracing.telling.told import (
    DepthCurve,
    Overview,
    OverviewRow,
    RowEffect,
    Run,
)
from blip_tracing.telling.words import (
    NULL_LINE,
    level_words,
    percent,
    printable,
    with_differences,
)
from blip_tracing.vocabulary.experiment import BASE, EACH, QUESTIONS, SOURCE, Experiment
from blip_tracing.vocabulary.tables import CEILING

_WORDS = ("experiment", "example", "group", "site", "token_role", "known")
_NUMBERS = ("noise_level", "probability_change", "null_change", "total_effect")
_CELL = ["experiment", "example", "group", "layer", "token_role"]
TURNS = [*_CELL, "change", "covered", "null", "null_covered", "total_effect", "included"]


def read_turns(path: str | os.PathLike[str], families: pd.DataFrame) -> pd.DataFrame:
    """Reduce a table of effects to where answers turn at the primary sites and levels.

    families: the table. A row an experiment, example, layer and role, of all examples: change and
    null, the largest of the role's positions in the direction of the total effect (change in
    probability, of the state and of an unrelated one's); covered and null_covered, the same as
    shares of the total effect, missing where that is below the threshold; total_effect and
    included. Only these families are read, since the table of a large sheet does not fit in memory.
    """
    types = {**dict.fromkeys(_WORDS, pa.string()), **dict.fromkeys(_NUMBERS, pa.float64())}
    csv = ds.CsvFileFormat(convert_options=pa.csv.ConvertOptions(column_types=types))
    kind: Any = "parquet" if Path(path).suffix == PARQUET else csv
    columns = [*_WORDS, *_NUMBERS, "layer", "below_threshold", "included"]
    effects = ds.dataset(path, format=kind)
    parts = [
        turns_of(effects.to_table(columns, filter=_is_of(family)).to_pandas())
        for family in families[families["primary"]].to_dict("records")
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=TURNS)


def _is_of(family: Mapping[Any, Any]) -> Any:
    level = family["noise_level"]
    at_level = (
        pc.field("noise_level").is_null(nan_is_null=True)
        if np.isnan(level)
        else pc.abs(pc.field("noise_level") - level) <= 1e-9 * level
    )
    mine = pc.field("experiment") == family["experiment"]
    return mine & (pc.field("site") == family["site"]) & at_level


def turns_of(effects: pd.DataFrame) -> pd.DataFrame:
    """The rows of one family, reduced as `read_turns` says."""
    towards = np.sign(effects["total_effect"])
    total = effects["total_effect"].abs().mask(effects["below_threshold"])
    table = effects.assign(
        change=towards * effects["probability_change"], null=towards * effects["null_change"]
    )
    table = table.assign(covered=table["change"] / total, null_covered=table["null"] / total)
    largest = dict.fromkeys(["change", "covered", "null", "null_covered"], "max")
    shared = dict.fromkeys(["total_effect", "included"], "first")
    return table.groupby(_CELL, sort=False).agg(largest | shared).reset_index()[TURNS]


# ---- a row an example --------------------------------------------------------------------------


def overview_of(run: Run) -> Overview | None:
    """The overview; None where there is no experiment."""
    if not run.experiments:
        return None
    noisy = next((asked for asked in run.experiments if asked.corrupted), None)
    level = float(run.primary(noisy)["noise_level"]) if noisy else np.nan
    floors = _floors(run, noisy, level)
    runs = run.tables["runs"]
    asked = {
        question: runs[runs["run"] == question].set_index("example").to_dict("index")
        for question in QUESTIONS
    }
    turns = {name: rows for name, rows in run.tables["turns"].groupby("experiment", sort=False)}
    of_each = {
        experiment.name: effects_by_example(
            turns.get(experiment.name), run.differing_in(experiment)
        )
        for experiment in run.experiments
    }
    groups = run.tables["turns"].drop_duplicates("example").set_index("example")["group"]
    flags = flags_of(run)
    grouped = groups.nunique() > 1
    none = RowEffect(np.nan, (), None, np.nan)
    rows = tuple(
        OverviewRow(
            example=printable(str(example)),
            shown=example in run.pictures,
            questions=with_differences(
                printable(base["text"]), printable(asked[SOURCE][example]["text"])
            ),
            answers=(
                printable(base["answer"]), printable(asked[SOURCE][example]["answer"])
            ),
            p_clean=float(base["p_base"]),
            floor=float(floors.get(example, np.nan)),
            effects=tuple(of_each[one.name].get(example, none) for one in run.experiments),
            group=printable(str(groups.get(example, ""))) if grouped else "",
            flags=flags.get(str(example), ()),
        )
        for example, base in asked[BASE].items()
    )  # fmt: skip
    return Overview(
        experiments=tuple(map(title_of, run.experiments)),
        rows=rows,
        level=level,
        grouped=grouped,
        caption=_caption(run, level, grouped),
    )


def _floors(run: Run, noisy: Experiment | None, level: float) -> pd.Series:
    if noisy is None or noisy.corrupted is None:
        return pd.Series(dtype=float)
    runs = run.tables["runs"]
    rows = runs[
        (runs["run"] == noisy.corrupted.name)
        & np.isclose(runs["noise_level"].fillna(np.inf), level, rtol=1e-9, atol=0)
    ]
    return rows.groupby("example")["p_base"].mean()


def effects_by_example(turns: pd.DataFrame | None, role: str) -> dict[Any, RowEffect]:
    """Example → what one experiment shows of it; turns: its rows.

    role: that of the words that differ, by layer; "" for the largest effect anywhere.
    """
    if turns is None:
        return {}
    found = {}
    for example, rows in turns.groupby("example", sort=False):
        there = rows[rows["token_role"] == role] if role else rows
        by_layer = there.groupby("layer")[["change", "covered"]].max()
        turned = by_layer.index[by_layer["covered"] >= HALF]
        found[example] = RowEffect(
            total_effect=float(rows["total_effect"].iloc[0]),
            changes=tuple(by_layer["change"]),
            depth=int(turned.max()) if len(turned) else None,
            null=float(rows["null"].max()),
        )
    return found


def flags_of(run: Run) -> dict[str, tuple[str, ...]]:
    """Example → why it is left out of averages, and whether the tokenizer lacks a word of it."""
    turns, excluded, tokens = (run.tables[name] for name in ("turns", "excluded", "tokens"))
    left_out = set(turns.loc[~turns["included"], "example"])
    rows = excluded[excluded["example"].isin(left_out)]
    flags = {
        str(name): list(dict.fromkeys(reasons))
        for name, reasons in rows.groupby("example")["reason"]
    }
    for example in tokens.loc[tokens["unknown"], "example"].unique():
        flags.setdefault(str(example), []).append("unknown word")
    return {name: tuple(words) for name, words in flags.items()}


def _caption(run: Run, level: float, grouped: bool) -> str:
    words = [
        "One row per example. Total effect: the difference in the followed answer's probability "
        "between the run that states are put into (the receiver) and the one that they come from "
        "(the donor)."
    ]
    roles = set(map(run.differing_in, run.experiments))
    if roles != {""}:
        elsewhere = "; of experiments without it, anywhere" if "" in roles else ""
        words.append(
            f"By layer: the largest change at the “{printable(run.differing)}”{elsewhere}. Turns "
            "to: the last layer at which that covers half of the total effect."
        )
    elif run.experiments:
        words.append(
            "By layer: the largest change anywhere. Turns to: the last layer at which that covers "
            "half of the total effect."
        )
    if not np.isnan(level):
        sign = level_sign(*(asked for asked in run.experiments if asked.followed == BASE))
        words.append(
            f"Floor: p(base answer) of the corrupted run at {level_words(level, sign)}, nothing "
            "restored, mean over the draws."
        )
    words.append("Null: the largest change that an unrelated example's state makes anywhere.")
    if grouped:
        words.append("Group: the kind of question.")
    return " ".join(words)


# ---- the share turned, by layer ----------------------------------------------------------------


def depth_curves(run: Run) -> Iterator[DepthCurve]:
    """A curve an experiment, at its primary site and level: a line a role, and the null's."""
    for experiment in run.experiments:
        primary = run.primary(experiment)
        site = primary["site"]
        turned = run.summary(primary, "turned")
        # A line a head would be a skein.
        if turned.empty or is_drawn_by_head(site):
            continue
        parts = [
            turned[turned["token_role"] == role]
            .sort_values("layer")
            .assign(run=role_words(role, site))
            for role in _in_order(turned["token_role"].unique(), run.roles_of(site))
        ]
        null = null_turned(run, experiment.name, run.differing_in(experiment))
        if not null.empty:
            parts.append(null.assign(run=NULL_LINE))
        lines = pd.concat(parts)[["run", "layer", "mean", "low", "high"]]
        count, level = int(turned["examples"].max()), primary["noise_level"]
        ends = (
            "Bars: exact 95 % intervals."
            if turned["low"].notna().any()
            else f"Below {FEWEST_PICTURES} pictures there are no intervals."
        )
        at = f" at {amount_words(experiment, level)}" if experiment.corrupted else ""
        yield DepthCurve(
            title=title_of(experiment, primary["site"]),
            caption=(
                f"Share of {count} examples in which {one_words(experiment, site)}{at} "
                f"{turns_words(experiment)}, that is, covers at least half of the total effect"
                f"{_largest_words(experiment, site)}. {_must_words(run, primary)}"
                f"{_null_words(run, experiment, null)}{ends}"
            ),
            lines=lines.reset_index(drop=True),
        )


def _in_order(roles: Iterable[str], order: Sequence[str]) -> list[str]:
    """The roles that are there, in this order; others after them."""
    there = list(roles)
    known = [role for role in order if role in there]
    return [*known, *(role for role in there if role not in known)]


def _largest_words(experiment: Experiment, site: str) -> str:
    if experiment.positions != EACH:
        return ""
    return (
        f"; of a role with several {words_of(site).places} the one with the largest effect counts"
    )


def _must_words(run: Run, primary: Any) -> str:
    """Where the answer turns whatever the model is like."""
    changes = run.tested_changes(primary)
    there = changes[changes["known"] == CEILING]
    if there.empty:
        return ""
    return f"It must at {places_words(there)}, where all of the donor's run is put in. "


def null_turned(run: Run, experiment: str, role: str) -> pd.DataFrame:
    """layer, mean, low, high: the share of included examples that an unrelated state turns at the
    differing word (`role`; "" for anywhere), with its 95 % interval over pictures; empty without
    such a state.
    """
    turns = run.tables["turns"]
    rows = turns[
        (turns["experiment"] == experiment) & turns["included"] & turns["null_covered"].notna()
    ]
    if role:
        rows = rows[rows["token_role"] == role]
    most = rows.pivot_table("null_covered", "example", "layer", aggfunc="max")
    turned = (most >= HALF).astype(float).where(most.notna())
    rules, units = run.config["effects"], [run.units.get(name, name) for name in most.index]
    shares = mean_intervals(
        turned.to_numpy(), rules["resamples"], rules["seed"], units, lowest=0.0, highest=1.0
    )
    return shares[["mean", "low", "high"]].assign(layer=most.columns)


def _null_words(run: Run, experiment: Experiment, null: pd.DataFrame) -> str:
    if null.empty:
        return ""
    role = run.differing_in(experiment)
    where = f"at the {printable(role)} alone" if role else "anywhere"
    return (
        "Orange: the same with unrelated examples' states (the null, the mean over the donors) "
        f"{where}. "
    )


def group_table(run: Run) -> tuple[pd.DataFrame, str]:
    """The share turned at the differing word by group and layer, and how it is read.

    Empty where there is one group.
    """
    parts, tests = [], []
    for experiment in run.experiments:
        primary = run.primary(experiment)
        rows = _all_groups(run, primary)
        rows = rows[rows["token_role"] == run.differing]
        if rows["group"].nunique() < 2:
            continue
        wide = rows.pivot(index="group", columns="layer", values="mean")
        wide = wide.map(percent).set_axis([f"{layer:g}" for layer in wide.columns], axis=1)
        wide.insert(0, "examples", rows.groupby("group")["examples"].max())
        wide.insert(0, "group", [printable(str(name)) for name in wide.index])
        wide.insert(0, "experiment", title_of(experiment))
        parts.append(wide)
        p = primary["heterogeneity_p"]
        if not pd.isna(p):
            differ = "differ somewhere in the map" if p < 0.05 else "are not seen to differ"
            tests.append(f"{title_of(experiment)}: mean changes {differ} (p = {p:.3g}).")
    if not parts:
        return pd.DataFrame(), ""
    caption = (
        f"Share of examples in which one state at the “{printable(run.differing)}” turns the "
        "answer, by kind of question; columns are layers. " + " ".join(tests)
        + (" By permutation of the groups, over all cells of the map." if tests else "")
    )  # fmt: skip
    return pd.concat(parts, ignore_index=True), caption.strip()


def _all_groups(run: Run, primary: Any) -> pd.DataFrame:
    summary = run.tables["summary"]
    names = [name for name in summary["group"].unique() if name != "all"]
    parts = [run.summary(primary, "turned", str(name)) for name in names]
    return pd.concat(parts) if parts else summary.iloc[:0]
