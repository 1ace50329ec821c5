"""The heatmaps of a run: of averages by layer and role, and of examples by layer and position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from blip_tracing.meaning.effects import by_level
from blip_tracing.meaning.marks import FEWEST_DRAWS
from blip_tracing.meaning.statistics import CONFIDENCE, FEWEST_PICTURES
from blip_tracing.telling.findings import reasons_words
from blip_tracing.telling.phrases import followed_words, reference_of, title_of
from blip_tracing.telling.told import (
    CELLS,
    MARK,
    OWN_MARK,
    Map,
    MapGroup,
    Run,
    at_level,
    is_known,
    is_true,
    sites_of,
)
from blip_tracing.telling.words import (
    level_words,
    p_words,
    pair_of,
    percent,
    position_labels,
    printable,
    signed,
    with_interval,
)
from blip_tracing.vocabulary.experiment import BASE, Experiment
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.tables import CEILING, NO_OP

# The ends of a scale of colours.
LIMITS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
# Column of a map → column of the tables.
COLUMNS = {
    "value": "probability_change",
    "log_odds": "log_odds_change",
    "logit_difference": "logit_difference_change",
}
KNOWN = {
    NO_OP: "the same state: nothing can change",
    CEILING: "asking the other question: it must turn",
}


def limits_of(run: Run) -> dict[str, float]:
    """The end of each measure's scale of colours: one for all maps, no less than any value."""
    if not run.experiments:
        return dict.fromkeys(COLUMNS, 1.0)
    summary, effects = run.tables["summary"], run.tables["effects"]
    shown = summary[(summary["group"] == ALL) & summary["layer"].notna()]
    return {
        measure: round_limit(
            max(
                shown.loc[shown["quantity"] == column, "mean"].abs().max(),
                effects[column].abs().max(),
            ),
            bounded=measure == "value",
        )
        for measure, column in COLUMNS.items()
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
    """Maps layer × role of mean changes, one group an experiment and site, of included examples."""
    limits = limits_of(run)
    for experiment, site in sites_of(run):
        families = run.tables["families"]
        mine = families[(families["experiment"] == experiment.name) & (families["site"] == site)]
        level = run.primary(experiment)["noise_level"]
        maps = tuple(
            Map(
                name=map_name("average", experiment.name, site, level=family["noise_level"]),
                title=_average_title(family),
                cells=_role_cells(run, experiment, family),
                level=family["noise_level"],
                primary=_same(family["noise_level"], level),
                idle=hid_nothing(run, experiment, family),
            )
            for family in mine.to_dict("records")
            if len(run.summary(family, "probability_change"))
        )
        if not maps:
            # No example is included.
            continue
        count = int(mine["included"].max())
        answer = followed_words(experiment)
        mean = f"Mean over {count} examples of the change" if count > 1 else "Change"
        yield MapGroup(
            title=title_of(experiment, site),
            measure=f"change in p({answer})",
            rows="role",
            limits=limits,
            caption=(
                f"{mean} in p({answer}) when the state of one layer at a token of the role (the "
                f"token's place in the question) is put in. {reference_of(experiment)}"
            ),
            marks=family_marks(run, experiment, mine),
            mark=MARK,
            maps=maps,
            idle=idle_words(maps),
        )


def hid_nothing(run: Run, experiment: Experiment, family: Mapping[Any, Any]) -> bool:
    """Whether the noise of a level hid nothing, on average, so that nothing can be restored."""
    if not experiment.corrupted:
        return False
    least = run.config["effects"]["total_effect"]
    small = experiment.direction * family["total_effect"] < least
    return bool(small or family["hidden_share"] == 0)


def idle_words(maps: tuple[Map, ...]) -> str:
    """`σ = 0.1, 0.5 and 1: the noise hid nothing, so there is nothing to restore.`"""
    levels = [f"{one.level:g}" for one in maps if one.idle]
    if not levels:
        return ""
    return f"σ = {', '.join(levels)}: the noise hid nothing, so there is nothing to bring back."


def _average_title(family: Mapping[Any, Any]) -> str:
    hidden = family["hidden_share"]
    parts = [
        level_words(family["noise_level"]),
        f"floor {family['reference']:.3f}",
        "" if np.isnan(hidden) else f"hid the answer in {percent(hidden)} of draws",
    ]
    return ", ".join(filter(None, parts))


def _role_cells(run: Run, experiment: Experiment, family: Mapping[Any, Any]) -> pd.DataFrame:
    """A map of averages, the roles in the configuration's order."""
    keys = ["layer", "token_role"]
    changes = run.summary(family, "probability_change").set_index(keys)
    roles = set(changes.index.get_level_values("token_role"))
    there = [role for role in run.roles if role in roles]

    def other(quantity: str) -> pd.DataFrame:
        return run.summary(family, quantity).set_index(keys).reindex(changes.index)

    contrast, hidden, turned = map(other, ("contrast", "hidden_change", "turned"))
    role = changes.index.get_level_values("token_role")
    sign = _towards_followed(experiment)
    cells = pd.DataFrame(
        {
            "layer": changes.index.get_level_values("layer").astype(int),
            "place": role.map(there.index),
            "label": role.map(printable),
            "value": changes["mean"],
            "log_odds": other(COLUMNS["log_odds"])["mean"],
            "logit_difference": sign * other(COLUMNS["logit_difference"])["mean"],
            "low": changes["low"],
            "high": changes["high"],
            "marked": is_true(changes["marked"]) & ~is_known(changes),
        },
        index=changes.index,
    )
    details: dict[str, Any] = {
        "known before": changes["known"].fillna("").map(lambda known: KNOWN.get(known, "")),
        "minus the null": [
            with_interval(*ends) for ends in contrast[["mean", "low", "high"]].to_numpy()
        ],
        "hidden": hidden["mean"].map(signed),
        "examples turned": ["" if np.isnan(share) else percent(share) for share in turned["mean"]],
        "p against the floor": changes["p_floor"].map(p_words),
        "p against the null": changes["p_null"].map(p_words),
        "p over all σ and sites": changes["p_study"].map(p_words),
        "largest in resamples": [
            "" if np.isnan(share) else percent(share) for share in changes["chosen"]
        ],
        "examples": changes["examples"].map("{:g}".format),
    }
    told = cells.assign(**details).reset_index(drop=True)
    return told.sort_values(["place", "layer"], ignore_index=True)


def marks_caption(run: Run) -> str:
    """What a mark of averages is; "" where nothing was tested."""
    if not run.experiments or not run.tables["families"]["tested"].any():
        return ""
    least = run.config["effects"]["least_effect"]
    return (
        f"{MARK} marks a mean change of at least {least:g} that is larger both than the floor (the "
        "receiver's own run, nothing put in) and than what an unrelated example's state does (the "
        "null): p < 0.05 in both of two tests, each by max-T with the signs of the pictures "
        "flipped, corrected for all layers and roles of a map. Cells whose outcome is known before "
        "are not tested. Intervals assume no more than that values are bounded, the tests that "
        "they are symmetric, so that a marked cell's interval may reach below 0."
    )


def family_marks(run: Run, experiment: Experiment, families: pd.DataFrame) -> str:
    """How many cells are marked at the primary level, or why none is."""
    tested = families[families["tested"]]
    if tested.empty:
        why = reasons_words(families)
        six = f" {FEWEST_PICTURES} are the least, about 12 it takes for large effects."
        return f"No cell is marked: {why}.{six if 'six pictures' in why else ''}"
    level = run.primary(experiment)["noise_level"]
    at = tested[at_level(tested["noise_level"], level)]
    shown = at if len(at) else tested
    marked, cells = int(shown["marked"].sum()), int(shown["cells"].sum())
    where = f" at {level_words(level)}" if len(at) and experiment.corrupted else ""
    power = shown["detectable"].dropna()
    could = (
        f" With {int(shown['pictures'].max())} pictures a mean change of {power.iloc[0]:.2f} is "
        "found with 80 % probability in a cell of the map's typical spread."
        if len(power)
        else ""
    )
    others = families[~families["tested"]]
    untested = f" Not tested: {reasons_words(others, of_all=False)}." if len(others) else ""
    verb = "is" if marked == 1 else "are"
    return f"{marked or 'None'} of {cells} cells {verb} marked{where}.{could}{untested}"


# ---- example by example ------------------------------------------------------------------------


def example_maps(run: Run, example: str) -> Iterator[MapGroup]:
    """The groups of maps layer × position of one example, an experiment and site each."""
    limits = limits_of(run)
    for experiment, site in sites_of(run):
        yield _example_group(run, example, experiment, site, limits)


def _example_group(
    run: Run, example: str, experiment: Experiment, site: str, limits: Mapping[str, float]
) -> MapGroup:
    answer = pair_of(run.tables["runs"], example).answer(experiment.followed)
    effects = run.tables["effects"]
    rows = effects[
        (effects["experiment"] == experiment.name)
        & (effects["example"] == example)
        & (effects["site"] == site)
    ]
    table = run.tables[experiment.name]
    labels = position_labels(table[table["example"] == example])
    intervals = _draw_intervals(run, example, experiment, site) if experiment.corrupted else None
    primary = run.primary(experiment)["noise_level"]
    floors = floors_of(run, example, experiment)
    level: Any
    maps = []
    for level, cells in rows.groupby("noise_level", dropna=False):
        floor, total = floors[level], float(cells["total_effect"].iloc[0])
        title = ", ".join(filter(None, [level_words(level), f"floor {floor:.3f}"]))
        small = bool(cells["below_threshold"].iloc[0]) and bool(experiment.corrupted)
        maps.append(
            Map(
                name=map_name("example", example, experiment.name, site, level=level),
                title=f"{title}, total effect {signed(total)}",
                cells=_cells(cells, labels, intervals, experiment),
                level=float(level),
                primary=_same(level, primary),
                idle=small,
            )
        )
    over = f", mean over {experiment.draws} noise draws" if experiment.draws > 1 else ""
    return MapGroup(
        title=title_of(experiment, site),
        measure=f"change in p({answer})",
        rows="position and token",
        limits=limits,
        caption=f"Change in p({answer}), the {followed_words(experiment)}{over}.",
        marks=_own_marks(run, experiment, rows),
        mark=OWN_MARK,
        maps=tuple(maps),
        idle=idle_words(tuple(maps)),
    )


def floors_of(run: Run, example: str, experiment: Experiment) -> dict[float, float]:
    """Noise level (NaN of what has none) → p(followed answer) of the receiver, over its draws."""
    runs = run.tables["runs"]
    alone = runs[(runs["run"] == experiment.receiver.name) & (runs["example"] == example)]
    means = alone.groupby("noise_level", dropna=False)[f"p_{experiment.followed}"].mean()
    if experiment.receiver.corruption:
        return dict(zip(map(float, means.index), map(float, means), strict=True))
    # The receiver is the same whatever the donor's level is.
    return _Everywhere(float(means.iloc[0]))


class _Everywhere(dict[float, float]):
    """The same floor at every level, NaN included."""

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = floor

    def __missing__(self, _: float) -> float:
        return self.floor


def _cells(
    cells: pd.DataFrame,
    labels: Mapping[int, str],
    intervals: pd.DataFrame | None,
    experiment: Experiment,
) -> pd.DataFrame:
    """A map of an example. cells: its effects."""
    places = {position: place for place, position in enumerate(sorted(labels))}
    if intervals is None:
        ends = pd.DataFrame(np.nan, index=cells.index, columns=["low", "high"])
    else:
        keys = ["noise_level", "layer", "position"]
        ends = cells[keys].join(intervals, on=keys)[["low", "high"]]
    table = cells.assign(
        place=cells["position"].map(places),
        label=cells["position"].map(labels),
        value=cells["probability_change"],
        log_odds=cells["log_odds_change"],
        logit_difference=_towards_followed(experiment) * cells["logit_difference_change"],
        low=ends["low"],
        high=ends["high"],
    )[CELLS]
    details = pd.DataFrame(
        {
            "null": cells["null_change"].map(signed),
            "hidden": cells["hidden_change"].map(signed),
        }
    )
    return table.join(details).sort_values(["place", "layer"], ignore_index=True)


def _draw_intervals(run: Run, example: str, experiment: Experiment, site: str) -> pd.DataFrame:
    """Intervals of the mean change over draws: low, high by noise level, layer and position."""
    table, runs = run.tables[experiment.name], run.tables["runs"]
    rows = by_level(
        table[(table["example"] == example) & (table["site"] == site)], experiment.levels
    )
    receiver = experiment.receiver
    alone = by_level(
        runs[(runs["run"] == receiver.name) & (runs["example"] == example)], receiver.levels
    )
    draw = ["level", "draw"] if receiver.corruption else []
    score = f"p_{experiment.followed}"
    reference = alone[[*draw, score]].rename(columns={score: "reference"})
    rows = rows.merge(reference, on=draw) if draw else rows.merge(reference, how="cross")
    changes = rows.assign(change=rows[score] - rows["reference"]).pivot(
        index="draw", columns=["noise_level", "layer", "position"], values="change"
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
    over = " at all σ together" if rows["noise_level"].nunique() > 1 else ""
    return f"{OWN_MARK} marks {marked} cells{over}." if marked else "No cell is marked."


def own_marks_caption(run: Run) -> str:
    """What a mark of one example is; "" where there is none."""
    if not is_true(run.tables["effects"]["marked"]).any():
        return ""
    return (
        f"{OWN_MARK} marks cells that stand out over the draws of this one example (paired t, "
        "p < 0.05 by max-T over the map), by at least "
        f"{run.config['effects']['least_effect']:g} and by more than the mean change that an "
        "unrelated example's state makes anywhere in the map; it says nothing of other examples."
    )


def _towards_followed(experiment: Experiment) -> int:
    """The tables have the base answer's logit minus the source answer's; maps the followed's."""
    return 1 if experiment.followed == BASE else -1


def _same(level: float, other: float) -> bool:
    return bool((np.isnan(level) and np.isnan(other)) or np.isclose(level, other, rtol=1e-9))


def map_name(*parts: str, level: float) -> str:
    """A map's name: the parts, and the noise level where there is one."""
    return "-".join([*parts, *([] if np.isnan(level) else [f"{level:g}"])])
