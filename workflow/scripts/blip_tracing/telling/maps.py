"""The heatmaps of a run: of averages by layer and role, and of examples by layer and position."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from blip_tracing.meaning.effects import by_level
from blip_tracing.meaning.marks import FEWEST_DRAWS
from blip_tracing.meaning.statistics import CONFIDENCE, FEWEST_PICTURES
from blip_tracing.telling.findings import named_heads, reasons_words
from blip_tracing.telling.phrases import (
    amount_words,
    followed_words,
    level_sign,
    reference_of,
    title_of,
)
from blip_tracing.telling.places import (
    all_states_words,
    is_drawn_by_head,
    mean_words,
    role_state_words,
    role_words,
    row_labels,
    rows_words,
    state_words,
)
from blip_tracing.telling.told import (
    CELLS,
    FIRST,
    MARK,
    OWN_MARK,
    Map,
    MapGroup,
    Run,
    at_level,
    is_known,
    is_true,
    role_of,
    sites_of,
)
from blip_tracing.telling.words import (
    p_words,
    pair_of,
    percent,
    printable,
    signed,
    with_interval,
)
from blip_tracing.vocabulary.experiment import EACH, Experiment
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.tables import CEILING, NO_OP, NOTHING_HIDDEN
from blip_tracing.vocabulary.views import is_drawn_over_picture, side_by_side

# The ends of a scale of colours.
LIMITS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
# Of a scale of colours, what cannot be told from white.
FAINT = 0.05
# What other experiments say of a change: column of the summary → what it is called.
SUM_OF_SINGLES = "sum_of_singles"
BESIDE = {SUM_OF_SINGLES: "sum of the single layers", "joint": "all of the role together"}
KNOWN = {
    NO_OP: "the same state: nothing can change",
    CEILING: "all of the donor's run: it must turn",
}
# A region's name, as `r2c5` of a grid or `p2c5` of all patches.
REGION = re.compile(r"[rp](\d+)c(\d+)")


def limits_of(run: Run) -> dict[str, float]:
    """The end of each measure's scale of colours: one for all maps, no less than any value."""
    if not run.experiments:
        return {measure.name: 1.0 for measure in run.measures}
    summary, effects = run.tables["summary"], run.tables["effects"]
    shown = summary[(summary["group"] == ALL) & summary["layer"].notna()]
    return {
        measure.name: round_limit(
            np.fmax(
                shown.loc[shown["quantity"] == measure.quantity, "mean"].abs().max(),
                effects[measure.quantity].abs().max(),
            ),
            measure.bounded,
        )
        for measure in run.measures
    }


def round_limit(most: float, bounded: bool) -> float:
    """A round number no less than this; at most 1 of what is bounded by it."""
    if bounded:
        return next((limit for limit in LIMITS if limit >= most), LIMITS[-1])
    if not most > 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(most))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= most))


# ---- averages over examples --------------------------------------------------------------------


def average_maps(run: Run) -> Iterator[MapGroup]:
    """Maps layer × role of mean changes, one group an experiment and site, of included examples.

    At a site of heads they are layer × head, over all positions, beside those at the words that
    differ; the map of a window stands beside the sum of its single layers, where that is known.
    """
    limits = limits_of(run)
    for experiment, site in sites_of(run):
        mine = families_of(run, experiment, site)
        level = run.primary(experiment)["noise_level"]
        maps = tuple(
            _average_map(run, experiment, family, level)
            for family in mine.to_dict("records")
            if len(run.summary(family, "probability_change"))
        )
        if not maps:
            # No example is included.
            continue
        count = int(mine["included"].max())
        answer = followed_words(experiment)
        mean = f"Mean over {count} examples of the change" if count > 1 else "Change"
        over = mean_words(experiment, site) if is_drawn_by_head(site) else ""
        put = role_state_words(experiment, site)
        yield MapGroup(
            title=title_of(experiment, site),
            measure=FIRST.change_words(answer),
            answer=answer,
            rows="head" if is_drawn_by_head(site) else "role",
            limits=limits,
            caption=(
                f"{mean} in {FIRST.words.format(answer)} when {put} is put in"
                f"{f', {over}' if over else ''}. {reference_of(experiment)}{_beside_words(maps)}"
            ),
            marks=family_marks(run, experiment, mine),
            mark=MARK,
            maps=maps,
            idle=idle_words(maps, level_sign(experiment)),
            sign=level_sign(experiment),
        )


def families_of(run: Run, experiment: Experiment, site: str) -> pd.DataFrame:
    """The rows of `families` of an experiment at a site, of heads those at all positions."""
    families = run.tables["families"]
    mine = families[(families["experiment"] == experiment.name) & (families["site"] == site)]
    if not is_drawn_by_head(site) or "token_role" not in mine:
        return mine
    return mine[[role_of(family) == ALL for family in mine.to_dict("records")]]


def _average_map(
    run: Run, experiment: Experiment, family: Mapping[Any, Any], primary: float
) -> Map:
    level, site = family["noise_level"], family["site"]
    name = map_name("average", experiment.name, site, level=level)
    cells = _role_cells(run, experiment, family)
    title = _average_title(experiment, family)
    beside = []
    if is_drawn_by_head(site):
        over = mean_words(experiment, site)
        title = f"{title}, {over}" if over else title
        at_word = {**family, "token_role": run.differing_at(site)}
        if at_word["token_role"] and len(run.summary(at_word, "probability_change")):
            beside.append(
                Map(
                    f"{name}-word",
                    f"at the {printable(run.differing)}",
                    _role_cells(run, experiment, at_word),
                )
            )
    sums = _sums_of_singles(run, family, cells)
    if sums is not None:
        beside.append(Map(f"{name}-sum", "sum of the single layers", sums))
    return Map(
        name=name,
        title=title,
        cells=cells,
        level=level,
        primary=_same(level, primary),
        idle=hid_nothing(run, experiment, family),
        beside=tuple(beside),
    )


def _sums_of_singles(
    run: Run, family: Mapping[Any, Any], cells: pd.DataFrame
) -> pd.DataFrame | None:
    """The map of the sum of the single layers' effects; None where it is not known."""
    changes = run.summary(family, "probability_change")
    if SUM_OF_SINGLES not in changes or changes[SUM_OF_SINGLES].isna().all():
        return None
    sums = _ends(changes, SUM_OF_SINGLES).assign(label=_row_labels(changes, family["site"]))
    at = cells[["layer", "place", "label"]].merge(
        sums.assign(layer=changes["layer"].astype(int)), on=["layer", "label"]
    )
    unknown = {measure.name: np.nan for measure in run.measures[1:]}
    return at.assign(marked=False, **unknown)[[*CELLS, *further_names(run)]]


def further_names(run: Run) -> list[str]:
    """The measures of a run that not every run has."""
    return [measure.name for measure in run.measures if measure.name not in CELLS]


def _ends(changes: pd.DataFrame, column: str) -> pd.DataFrame:
    """value, low, high of what another experiment says; NaN where there is no interval."""
    names = {column: "value", f"{column}_low": "low", f"{column}_high": "high"}
    return changes.reindex(columns=list(names)).rename(columns=names)


def _row_labels(rows: pd.DataFrame, site: str) -> list[str]:
    """The name of each of the summary's rows, as a row of a map is called."""
    if is_drawn_by_head(site):
        return [f"head {head:g}" for head in rows["head"]]
    return [role_words(str(role), site) for role in rows["token_role"]]


def _beside_words(maps: Sequence[Map]) -> str:
    """What stands beside the maps, where the title does not say it all."""
    if not any(other.name.endswith("-sum") for one in maps for other in one.beside):
        return ""
    return (
        " Beside it, the sum of the effects that its single layers have when each is put in alone: "
        "what lies above it comes of putting them in together."
    )


def hid_nothing(run: Run, experiment: Experiment, family: Mapping[Any, Any]) -> bool:
    """Whether the noise of a level hid nothing, on average, so that nothing can be restored."""
    if not experiment.corrupted:
        return False
    least = run.config["effects"]["total_effect"]
    small = experiment.direction * family["total_effect"] < least
    return bool(small or family["hidden_share"] == 0)


def idle_words(maps: Sequence[Map], sign: str) -> str:
    """`σ = 0.1, 1: the corruption hid nothing, so there is nothing to bring back or to test.`"""
    levels = [f"{one.level:g}" for one in maps if one.idle]
    if not levels:
        return ""
    return (
        f"{sign} = {', '.join(levels)}: {NOTHING_HIDDEN}, so there is nothing to bring back or to "
        "test."
    )


def _average_title(experiment: Experiment, family: Mapping[Any, Any]) -> str:
    hidden = family["hidden_share"]
    parts = [
        amount_words(experiment, family["noise_level"]),
        f"floor {family['reference']:.3f}",
        "" if np.isnan(hidden) else f"hid the answer in {percent(hidden)} of draws",
    ]
    return ", ".join(filter(None, parts))


def _role_cells(run: Run, experiment: Experiment, family: Mapping[Any, Any]) -> pd.DataFrame:
    """A map of averages, the roles in their order; at a site of heads a row a head."""
    site = family["site"]
    row_name = "head" if is_drawn_by_head(site) else "token_role"
    keys = ["layer", row_name]
    changes = run.summary(family, "probability_change")
    labels = _row_labels(changes, site)
    changes = changes.set_index(keys)
    rows = changes.index.get_level_values(row_name)
    there = list(dict.fromkeys(rows))
    if is_drawn_by_head(site):
        there = sorted(there)
    else:
        known = [role for role in run.roles_of(site) if role in there]
        there = [*known, *(role for role in there if role not in known)]

    def aligned(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.set_index(keys).reindex(changes.index)

    hidden, turned = (
        aligned(run.summary(family, quantity)) for quantity in ("hidden_change", "turned")
    )
    tests, contrast = (
        aligned(run.tested_changes(family, quantity)) for quantity in ("", "contrast")
    )
    others = {
        measure.name: measure.seen(experiment)
        * aligned(run.summary(family, measure.quantity))["mean"]
        for measure in run.measures[1:]
    }
    cells = pd.DataFrame(
        {
            "layer": changes.index.get_level_values("layer").astype(int),
            "place": rows.map(there.index),
            "label": labels,
            "value": changes["mean"],
            **others,
            "low": changes["low"],
            "high": changes["high"],
            "marked": is_true(tests["marked"]) & ~is_known(tests),
        },
        index=changes.index,
    )
    details: dict[str, Any] = {
        "known before": tests["known"].fillna("").map(lambda known: KNOWN.get(known, "")),
        **_tested_words(run, tests),
        f"minus the null{_of_tested(run)}": _intervals(contrast),
        "hidden": hidden["mean"].map(signed),
        "examples turned": ["" if np.isnan(share) else percent(share) for share in turned["mean"]],
        "p against the floor": tests["p_floor"].map(p_words),
        "p against the null": tests["p_null"].map(p_words),
        "p over all levels and sites": tests["p_study"].map(p_words),
        "largest in resamples": [
            "" if np.isnan(share) else percent(share) for share in tests["chosen"]
        ],
        "examples": changes["examples"].map("{:g}".format),
    }
    for column, words in BESIDE.items():
        if column in changes:
            details[words] = [with_interval(*ends) for ends in _ends(changes, column).to_numpy()]
    told = cells.assign(**details).reset_index(drop=True)
    return told.sort_values(["place", "layer"], ignore_index=True)


def _of_tested(run: Run) -> str:
    """`, rank`: the metric that is tested, where it is not the one that maps show at first."""
    return "" if run.tested is FIRST.metric else f", {run.tested.label}"


def _tested_words(run: Run, tests: pd.DataFrame) -> dict[str, list[str]]:
    """The tested change with its interval, where maps show another at first."""
    if run.tested is FIRST.metric:
        return {}
    return {f"tested: change in {run.tested.label}": _intervals(tests)}


def _intervals(rows: pd.DataFrame) -> list[str]:
    return [with_interval(*ends) for ends in rows[["mean", "low", "high"]].to_numpy()]


def measures_caption(run: Run) -> str:
    """What the measures of the maps are, and of which marks are."""
    notes = "; ".join(f"{measure.label}: {measure.note}" for measure in run.measures)
    return (
        f"What can be shown is the change in {notes}. Marks are of the change in "
        f"{run.tested.label}, whatever is shown."
    )


def marks_caption(run: Run) -> str:
    """What a mark of averages is; "" where nothing was tested."""
    if not run.experiments or not run.tables["families"]["tested"].any():
        return ""
    least = run.config["effects"]["least_effect"]
    intervals = (
        "assume no more than that values are bounded"
        if run.tested.bounded
        else "are from a studentized bootstrap, since nothing bounds the values; they assume that "
        "no rare value is missing"
    )
    return (
        f"{MARK} marks a mean change in {run.tested.label} of at least {least:g}{run.tested.unit} "
        "that is larger both than the floor (the receiver's own run, nothing put in) and than what "
        "an unrelated example's state does (the null): p < 0.05 in both of two tests, each by "
        "max-T with the signs of the pictures flipped, corrected for all layers and rows of a map. "
        f"Cells whose outcome is known before are not tested. Intervals {intervals}, the tests "
        "that they are symmetric, so that a marked cell's interval may reach beyond 0."
    )


def family_marks(run: Run, experiment: Experiment, families: pd.DataFrame) -> str:
    """How many cells are marked at the primary level, or why none is."""
    tested = families[families["tested"]]
    if tested.empty:
        why = reasons_words(families, level_sign(experiment))
        six = f" {FEWEST_PICTURES} are the least, about 12 it takes for large effects."
        return f"No cell is marked: {why}.{six if 'six pictures' in why else ''}"
    level = run.primary(experiment)["noise_level"]
    at = tested[at_level(tested["noise_level"], level)]
    shown = at if len(at) else tested
    marked, cells = int(shown["marked"].sum()), int(shown["cells"].sum())
    where = f" at {amount_words(experiment, level)}" if len(at) and experiment.corrupted else ""
    power = shown["detectable"].dropna()
    could = (
        f" With {int(shown['pictures'].max())} pictures a mean change of "
        f"{power.iloc[0]:.2f}{run.tested.unit} in {run.tested.label} is found with 80 % "
        "probability in a cell of the map's typical spread."
        if len(power)
        else ""
    )
    # Of the others the caption says so already.
    idle = [hid_nothing(run, experiment, family) for family in families.to_dict("records")]
    said = (families["reason"] == NOTHING_HIDDEN) & np.array(idle, bool)
    others = families[~families["tested"] & ~said]
    untested = (
        f" Not tested: {reasons_words(others, level_sign(experiment), of_all=False)}."
        if len(others)
        else ""
    )
    verb = "is" if marked == 1 else "are"
    what = "heads" if is_drawn_by_head(shown["site"].iloc[0]) else "cells"
    heads = named_heads(run, experiment, shown.iloc[0]) if marked else ""
    named = f": {heads}" if heads else ""
    known = int(is_known(run.tested_changes(shown.iloc[0])).sum())
    more = f" (the outcome of {known} more is known before)" if known else ""
    return (
        f"{marked or 'None'} of {cells} {what} {verb} marked{where}{more}{named}.{could}{untested}"
    )


# ---- example by example ------------------------------------------------------------------------


def example_maps(run: Run, example: str) -> Iterator[MapGroup]:
    """The groups of maps of one example, an experiment and site each.

    Sites whose maps are to be compared stand in one row first; where that holds all there is of
    them, since nothing has levels, they do not stand alone too.
    """
    limits = limits_of(run)
    for experiment in run.experiments:
        groups = {
            site: example_group(run, example, experiment, site, limits) for site in experiment.sites
        }
        row = side_by_side(experiment)
        if row:
            yield _row_of(run, experiment, [groups[site] for site in row])
        for site, group in groups.items():
            if site not in row or experiment.corrupted:
                yield group


def _row_of(run: Run, experiment: Experiment, groups: Sequence[MapGroup]) -> MapGroup:
    """The maps of several sites at the level that conclusions are drawn at, side by side."""
    primary = [next(one for one in group.maps if one.primary) for group in groups]
    sites = side_by_side(experiment)
    maps = tuple(
        replace(one, name=f"{one.name}-row", title=site, level=np.nan, beside=())
        for site, one in zip(sites, primary, strict=True)
    )
    plain = experiment.positions == EACH and experiment.window == 1
    put = "" if plain else f" Each time {all_states_words(experiment, sites)} is put in."
    return replace(
        groups[0],
        title=f"{title_of(experiment)}, side by side",
        rows=", or ".join(dict.fromkeys(group.rows for group in groups)),
        caption=(
            f"C{groups[0].measure[1:]}, the {followed_words(experiment)}{_over_draws(experiment)}, "
            f"site by site on one scale: {primary[0].title}.{put}"
            f"{_faint_words(maps, groups[0].limits)}"
        ),
        marks=_marks_of_row(groups, maps),
        maps=maps,
        idle=idle_words(primary, level_sign(experiment)),
        by_site=True,
    )


def _faint_words(maps: Sequence[Map], limits: Mapping[str, float]) -> str:
    """The largest change, where colours without numbers are too pale to show any."""
    values = pd.concat([one.cells["value"] for one in maps]).dropna()
    if values.empty or values.abs().max() >= FAINT * limits["value"]:
        return ""
    largest = signed(values.iloc[values.abs().argmax()])
    return f" No colour is to be seen: the largest change is {largest}."


def _marks_of_row(groups: Sequence[MapGroup], maps: Sequence[Map]) -> str:
    """How many cells of the row are marked, or why none is."""
    marked = sum(int(one.cells["marked"].sum()) for one in maps)
    if marked:
        return f"{OWN_MARK} marks {marked} cells."
    why = {group.marks for group in groups}
    return why.pop() if len(why) == 1 else "No cell is marked."


def example_group(
    run: Run, example: str, experiment: Experiment, site: str, limits: Mapping[str, float]
) -> MapGroup:
    """The maps of one example at a site, one a level; limits: of `limits_of`."""
    answer = pair_of(run.tables["runs"], example).answer(experiment.followed)
    effects = run.tables["effects"]
    rows = effects[
        (effects["experiment"] == experiment.name)
        & (effects["example"] == example)
        & (effects["site"] == site)
    ]
    primary = run.primary(experiment)["noise_level"]
    floors = floors_of(run, example, experiment)
    level: Any
    maps = []
    for level, cells in rows.groupby("noise_level", dropna=False):
        floor, total = floors[level], float(cells["total_effect"].iloc[0])
        title = ", ".join(filter(None, [amount_words(experiment, level), f"floor {floor:.3f}"]))
        small = bool(cells["below_threshold"].iloc[0]) and bool(experiment.corrupted)
        name = map_name("example", example, experiment.name, site, level=level)
        over = mean_words(experiment, site) if is_drawn_by_head(site) else ""
        maps.append(
            Map(
                name=name,
                title=f"{title}, total effect {signed(total)}{f', {over}' if over else ''}",
                cells=_example_cells(run, example, experiment, cells),
                level=float(level),
                primary=_same(level, primary),
                idle=small,
                beside=tuple(_at_words(run, example, experiment, cells, name)),
            )
        )
    plain = experiment.positions == EACH and experiment.window == 1
    put = "" if plain else state_words(experiment, site)
    grid = regions_of(experiment, site, rows)
    return MapGroup(
        title=title_of(experiment, site),
        measure=FIRST.change_words(answer),
        answer=answer,
        rows=rows_words(experiment, site),
        limits=limits,
        caption=(
            f"Change in {FIRST.words.format(answer)}, the {followed_words(experiment)}"
            f"{_over_draws(experiment)}"
            f"{f', when {put} is put in' if put else ''}."
            f"{_faint_words(maps, limits) if grid else ''}"
        ),
        marks=_own_marks(run, experiment, rows),
        mark=OWN_MARK,
        maps=tuple(maps),
        idle=idle_words(tuple(maps), level_sign(experiment)),
        sign=level_sign(experiment),
        regions=grid,
        picture=run.pictures[example] if grid else "",
        source_picture=run.source_pictures.get(example, "") if grid else "",
    )


def _over_draws(experiment: Experiment) -> str:
    return f", mean over {experiment.draws} noise draws" if experiment.draws > 1 else ""


def regions_of(experiment: Experiment, site: str, cells: pd.DataFrame) -> int:
    """How many regions a side a picture has, which single cells are drawn over; else 0.

    cells: with the tokens; of a picture cut into all its patches they say how many there are.
    """
    if not is_drawn_over_picture(experiment, site):
        return 0
    if experiment.regions:
        return experiment.regions
    found = [REGION.fullmatch(token) for token in cells["token"].unique()]
    return max(int(number) for match in found if match for number in match.groups())


def _at_words(
    run: Run, example: str, experiment: Experiment, cells: pd.DataFrame, name: str
) -> Iterator[Map]:
    """Of a map of heads, that at the words in which the questions differ, if there are any."""
    site = cells["site"].iloc[0]
    if not is_drawn_by_head(site) or experiment.positions != EACH:
        return
    there = cells[cells["token_role"] == run.differing_at(site)]
    if len(there):
        words = " ".join(map(str, there.drop_duplicates("position")["token"]))
        yield Map(
            f"{name}-word",
            f"at “{printable(words)}”",
            _example_cells(run, example, experiment, there),
        )


def floors_of(run: Run, example: str, experiment: Experiment) -> dict[float, float]:
    """Noise level (NaN of what has none) → p(followed answer) of the receiver, over its draws."""
    runs = run.tables["runs"]
    alone = runs[(runs["run"] == experiment.receiver.name) & (runs["example"] == example)]
    answered = f"p_{experiment.followed}"
    if not experiment.receiver.corruption:
        # The same whatever the donor's level is; where no run has one, nor has the table.
        return _Everywhere(float(alone[answered].iloc[0]))
    means = alone.groupby("noise_level")[answered].mean()
    return dict(zip(map(float, means.index), map(float, means), strict=True))


class _Everywhere(dict[float, float]):
    """The same floor at every level, NaN included."""

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = floor

    def __missing__(self, _: float) -> float:
        return self.floor


def _example_cells(
    run: Run, example: str, experiment: Experiment, cells: pd.DataFrame
) -> pd.DataFrame:
    """A map of an example; cells: its effects at a site and a level, at all or some positions.

    At a site of heads a row is a head: the mean over these positions, marked where there is one.
    """
    site = cells["site"].iloc[0]
    row = "head" if is_drawn_by_head(site) else "position"
    labels = row_labels(_with_sources(run, example, experiment, cells), experiment, site)
    keys = ["layer", row]
    one = cells.groupby(keys)["position"].transform("size").max() == 1
    numbers = [*(measure.quantity for measure in run.measures), "null_change", "hidden_change"]
    means = cells.groupby(keys, as_index=False)[numbers].mean()
    marked = cells.groupby(keys)["marked"].first().reindex(pd.MultiIndex.from_frame(means[keys]))
    if experiment.corrupted:
        ends = _draw_intervals(run, example, experiment, cells, row).reindex(marked.index)
    else:
        ends = pd.DataFrame(np.nan, marked.index, ["low", "high"])
    places = {number: place for place, number in enumerate(sorted(labels))}
    rows = means[row].astype(int)
    table = means.assign(
        place=rows.map(places),
        label=rows.map(labels),
        **{
            measure.name: measure.seen(experiment) * means[measure.quantity]
            for measure in run.measures
        },
        low=ends["low"].to_numpy(),
        high=ends["high"].to_numpy(),
        marked=is_true(marked).to_numpy() & bool(one),
    )[[*CELLS, *further_names(run)]]
    details = {
        "null": means["null_change"].map(signed),
        "hidden": means["hidden_change"].map(signed),
    }
    if is_drawn_over_picture(experiment, site):
        roles = cells.drop_duplicates("position").set_index("position")["token_role"]
        details = {"shows": rows.map(roles).fillna("").map(printable), **details}
    return table.assign(**details).sort_values(["place", "layer"], ignore_index=True)


def _with_sources(
    run: Run, example: str, experiment: Experiment, cells: pd.DataFrame
) -> pd.DataFrame:
    """The effects' cells with the tokens that the donor has there, which its own table knows."""
    table = run.tables[experiment.name]
    if "source_token" not in table:
        return cells
    site = cells["site"].iloc[0]
    mine = table[(table["example"] == example) & (table["site"] == site)]
    brought = mine.drop_duplicates("position").set_index("position")["source_token"]
    return cells.assign(source_token=cells["position"].map(brought))


def _draw_intervals(
    run: Run, example: str, experiment: Experiment, cells: pd.DataFrame, row: str
) -> pd.DataFrame:
    """Intervals of the mean change over draws: low, high by layer and row (position or head).

    cells: the effects of a site and a level, whose positions a head's change is the mean over.
    """
    table, runs = run.tables[experiment.name], run.tables["runs"]
    mine = (table["example"] == example) & (table["site"] == cells["site"].iloc[0])
    mine &= at_level(table["noise_level"], cells["noise_level"].iloc[0])
    mine &= table["position"].isin(cells["position"].unique())
    rows = by_level(table[mine], experiment.levels)
    receiver = experiment.receiver
    alone = by_level(
        runs[(runs["run"] == receiver.name) & (runs["example"] == example)], receiver.levels
    )
    draw = ["level", "draw"] if receiver.corruption else []
    score = f"p_{experiment.followed}"
    reference = alone[[*draw, score]].rename(columns={score: "reference"})
    rows = rows.merge(reference, on=draw) if draw else rows.merge(reference, how="cross")
    changes = rows.assign(change=rows[score] - rows["reference"]).pivot_table(
        index="draw", columns=["layer", row], values="change", aggfunc="mean"
    )
    return student_interval(changes).clip(-1, 1)


def student_interval(draws: pd.DataFrame) -> pd.DataFrame:
    """low, high: Student's 95 % interval of each column's mean, NaN of one draw."""
    count = len(draws)
    half = student.ppf((1 + CONFIDENCE) / 2, max(count - 1, 1)) * draws.sem()
    return pd.DataFrame({"low": draws.mean() - half, "high": draws.mean() + half})


def _own_marks(run: Run, experiment: Experiment, rows: pd.DataFrame) -> str:
    """What the marks of one example are, or why there are none."""
    if experiment.draws < FEWEST_DRAWS:
        draws = "no draws" if experiment.corrupted is None else "too few draws"
        return f"No cell is marked: there are {draws} by which one example could be tested."
    if rows["null_change"].isna().all():
        return "No cell is marked: the sheet has no unrelated example (another picture) for it."
    marked = int(is_true(rows["marked"]).sum())
    if not marked:
        return "No cell is marked."
    if is_drawn_by_head(rows["site"].iloc[0]):
        return f"{OWN_MARK} marks heads at single places alone; a mean over places is not tested."
    over = " at all levels together" if rows["noise_level"].nunique() > 1 else ""
    return f"{OWN_MARK} marks {marked} cells{over}."


def own_marks_caption(run: Run) -> str:
    """What a mark of one example is; "" where there is none."""
    if not is_true(run.tables["effects"]["marked"]).any():
        return ""
    return (
        f"{OWN_MARK} marks cells that stand out over the draws of this one example (paired t, "
        f"p < 0.05 by max-T over the map), by at least {run.config['effects']['least_effect']:g}"
        f"{run.tested.unit} of {run.tested.label} and by more than the mean change that an "
        "unrelated example's state makes anywhere in the map; it says nothing of other examples."
    )


def _same(level: float, other: float) -> bool:
    return bool((np.isnan(level) and np.isnan(other)) or np.isclose(level, other, rtol=1e-9))


def map_name(*parts: str, level: float) -> str:
    """A map's name: the parts, and the noise level where there is one."""
    return "-".join([*parts, *([] if np.isnan(level) else [f"{level:g}"])])
