"""The figures of a run beside published numbers, in the reports' look, each for one example.

Every function takes the comparison (as `replication.compare` makes it), the run's tables and the
example, and returns a figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from mizani.breaks import breaks_extended
from plotnine import (
    aes,
    after_stat,
    element_blank,
    element_line,
    facet_wrap,
    geom_blank,
    geom_density,
    geom_point,
    geom_rect,
    geom_segment,
    geom_text,
    geom_violin,
    geom_vline,
    ggplot,
    labs,
    scale_color_manual,
    scale_shape_manual,
    scale_x_continuous,
    scale_y_continuous,
    stat_ecdf,
    theme,
)

from blip_tracing.drawing.figures import (
    FACET_GAP,
    TICK_SIZE,
    look,
    maps,
    ordered,
    ruled_above_legend,
    titled_frame,
)
from blip_tracing.drawing.palette import BLUE, HAIRLINE, INK, ORANGE, changes
from blip_tracing.meaning.replication.compare import (
    DIFFERS,
    OUTSIDE,
    SHIFTED,
    Tables,
    best_shift,
    correlation,
    draws_of,
    redrawn,
)
from blip_tracing.telling.words import pair_of, position_labels, printable, rows_of

PUBLISHED, RUN = "published", "this run"
NONE_OF_IT = "this run has none of it"
STEPS = 4
# A map of differences no larger than this is white, not a map of rounding.
LEAST_SCALE = 0.01
PREDICTED = 2000
# No facet's axis is shorter, nor leaves less of it beside what it shows.
LEAST_RANGE, MARGIN = 0.01, 0.08
# How many ticks to ask for, in turn, until two are not too near the ends.
FEW = (4, 5, 6, 8)
# Where a facet has its bar and dot, and its words; its density is 1 at most.
BAR, WORDS = 0.05, 0.5

Draw = Callable[[pd.DataFrame, Tables, str], ggplot]


def patching(compared: pd.DataFrame, run: Tables, example: str) -> ggplot:
    """The patching map as published and as the run has it, at both sites where both were run."""
    rows = _patching_rows(compared, example)
    cells = pd.concat(
        [
            rows[rows["quantity"] == "patching"].assign(
                panel=PUBLISHED, p=lambda part: part["published"]
            ),
            rows.assign(panel=rows["run_panel"], p=rows["reproduced"]),
        ]
    )
    pair = pair_of(run["runs"], example)
    return maps(
        cells.assign(panel=ordered(cells["panel"], list(cells["panel"].unique()))),
        _labels(run, example, patched=True),
        title=f"{pair.example}: the patching map, published and of this run",
        subtitle=[
            f"base: “{pair.base_question}”",
            f"source: “{pair.source_question}”",
            *_missing(cells),
        ],
        legend=f"p({_token(rows)})",
    )


def patching_difference(compared: pd.DataFrame, run: Tables, example: str) -> ggplot:
    """The run's patching map minus the published one; crosses where that is beyond the bound."""
    rows = _patching_rows(compared, example)
    cells = rows.assign(
        panel=ordered(rows["run_panel"], list(rows["run_panel"].unique())),
        p=rows["reproduced"] - rows["published"],
    )
    wrong = cells[cells["verdict"] == DIFFERS]
    pair = pair_of(run["runs"], example)
    plot = maps(
        cells,
        _labels(run, example, patched=True),
        title=f"{pair.example}: the patching map, this run minus published",
        subtitle=[
            f"{len(wrong)} of {len(cells)} cells differ by more than the published error"
            + (", marked ×" if len(wrong) else ""),
            *_fit(rows[rows["quantity"] == "patching"]),
            *_missing(cells),
        ],
        legend=f"difference in p({_token(rows)})",
        levels=difference_levels(cells["p"]),
        colors=changes(),
    )
    return plot + _crosses(wrong)


def mean_cells(compared: pd.DataFrame, run: Tables, example: str) -> ggplot:
    """The map of means over the iterations, published and of the run; crosses: outside."""
    rows = rows_of(compared, example=example, quantity="mean_cell")
    cells = pd.concat(
        [rows.assign(panel=name, p=rows[column]) for name, column in _columns().items()]
    )
    cells = cells.assign(panel=ordered(cells["panel"], list(_columns())))
    pair = pair_of(run["runs"], example)
    plot = maps(
        cells,
        _labels(run, example),
        title=f"{pair.example}: p({_token(rows)}) with one clean block_input restored, mean over "
        "noise draws",
        subtitle=[
            f"“{pair.base_question}”",
            f"σ = {rows['noise_level'].iloc[0]:g}; ×: published outside the run’s prediction "
            "interval",
            *_fit(rows),
            *_missing(cells),
        ],
        legend=f"p({_token(rows)})",
    )
    return plot + _crosses(cells[cells["verdict"] == OUTSIDE])


def noise_means(compared: pd.DataFrame, run: Tables, example: str) -> ggplot:
    """Where the run's draws predict each noise level's mean, and where the published one is."""
    rows = rows_of(compared, example=example, quantity="noise_mean").sort_values("noise_level")
    strips = [
        f"σ = {level:g}, published {p:.4f}"
        for level, p in zip(rows["noise_level"], rows["published"], strict=True)
    ]
    rows = rows.assign(strip=ordered(pd.Series(strips, rows.index), strips))
    predicted = _predicted(rows, run).merge(rows[["noise_level", "strip"]])
    columns = min(4, len(strips))
    pair = pair_of(run["runs"], example)
    shade = geom_density(
        aes("p", after_stat("scaled")), data=predicted, fill=BLUE, color="none", alpha=0.3
    )
    there = rows.dropna(subset="low")
    lacking = rows[rows["low"].isna()].assign(
        # Beside the line, on its wider side.
        middle=lambda part: part["published"].map(lambda p: (p + (0 if p > 0.5 else 1)) / 2)
    )
    return (
        ggplot(rows)
        + geom_blank(aes("p"), data=_frames(rows, predicted))
        + ([] if predicted.empty else [shade])
        + geom_segment(aes("low", BAR, xend="high", yend=BAR), data=there, color=BLUE, size=1.4)
        # An interval of no length has a bar of none.
        + geom_point(aes("reproduced", BAR), data=there, color=BLUE, size=1.9)
        + geom_text(
            aes("middle", WORDS), data=lacking, label="not in\nthis run", color=INK, size=TICK_SIZE
        )
        + geom_vline(aes(xintercept="published"), color=ORANGE, size=0.8)
        + facet_wrap("strip", ncol=columns, scales="free_x")
        + scale_x_continuous(breaks=_inner_breaks, labels=_round, minor_breaks=[], expand=(0.03, 0))
        + scale_y_continuous(breaks=[], limits=(0, 1.05), expand=(0.03, 0))
        + labs(x=f"mean p({_token(rows)})", y="")
        + look()
        + titled_frame(
            0.6 + 1.65 * columns,
            0.5 + 1.25 * math.ceil(len(strips) / columns),
            title=f"{pair.example}: mean p({_token(rows)}) over all cells, by noise level",
            subtitle=["line: published", *_explained(predicted, "dot: its mean, bar")],
        )
        + theme(panel_grid=element_blank(), panel_spacing=FACET_GAP / (1.65 * columns))
    )


def iteration_means(compared: pd.DataFrame, run: Tables, example: str) -> ggplot:
    """Where the run's draws predict any iteration's mean, and where the published ones are."""
    rows = rows_of(compared, example=example, quantity="iteration_mean").sort_values("draw")
    samples = list(rows["draw"].astype(int))
    left, right = samples[0] - 1.5, samples[-1] + 0.6
    # All iterations are predicted alike.
    one = rows.iloc[:1].assign(place=left, left=left - 0.7, right=right)
    predicted = _predicted(rows, run).assign(place=left)
    marks = pd.concat(
        [
            rows.assign(place=samples, p=rows["published"], of=PUBLISHED),
            one.assign(p=one["reproduced"], of=RUN).dropna(subset="p"),
        ]
    )
    band = geom_rect(
        aes(xmin="left", xmax="right", ymin="low", ymax="high"),
        data=one.dropna(subset="low"),
        inherit_aes=False,
        fill=BLUE,
        # Outlined, so that an interval of no length is a line.
        color=BLUE,
        size=0.2,
        alpha=0.12,
    )
    shade = geom_violin(data=predicted, width=0.9, fill=BLUE, color="none", alpha=0.3)
    pair = pair_of(run["runs"], example)
    return (
        ggplot(marks, aes("place", "p"))
        + ([] if predicted.empty else [band, shade])
        + geom_point(aes(color="of", shape="of"), size=1.9)
        + scale_x_continuous(
            breaks=[left, *samples], labels=["predicted", *map(str, samples)], minor_breaks=[]
        )
        + scale_y_continuous(breaks=_probabilities, minor_breaks=[])
        + scale_color_manual(values=[ORANGE, BLUE], limits=[PUBLISHED, RUN])
        + scale_shape_manual(values=["D", "o"], limits=[PUBLISHED, RUN])
        + labs(x="published iteration", y=f"mean p({_token(rows)})")
        + look()
        + titled_frame(
            5.6,
            2.3,
            title=f"{pair.example}: mean p({_token(rows)}) over all cells at "
            f"σ = {one['noise_level'].iloc[0]:g}, by iteration",
            subtitle=_explained(predicted, "band"),
        )
        + theme(
            panel_grid_major=element_line(color=HAIRLINE, size=0.4),
            panel_grid_minor=element_blank(),
            legend_title=element_blank(),
            legend_position="right",
        )
    )


def noise_cells(compared: pd.DataFrame, run: Tables, example: str) -> ggplot:
    """How the cells of each noise level are distributed, published and in all draws of the run."""
    rows = compared[
        (compared["example"] == example)
        & compared["quantity"].isin(["noise_cell", "iteration_cell"])
    ]
    parts = []
    for (quantity, level), part in rows.groupby(["quantity", "noise_level"]):
        samples = f", {part['draw'].nunique()} iterations" if quantity == "iteration_cell" else ""
        strip = f"σ = {level:g}{samples}"
        parts.append(_distribution(part, PUBLISHED, strip, part["published"]))
        parts.append(_distribution(part, RUN, strip, draws_of(run, part.iloc[0])))
    cells = pd.concat(parts)
    strips = list(dict.fromkeys(cells.sort_values(["iterated", "noise_level"])["strip"]))
    columns = min(4, len(strips))
    pair = pair_of(run["runs"], example)
    width = 1.2 + 1.5 * columns
    return (
        ggplot(cells.assign(strip=ordered(cells["strip"], strips)), aes("p", color="of"))
        + stat_ecdf(geom="step", size=0.7, pad=True)
        + facet_wrap("strip", ncol=columns)
        + scale_x_continuous(limits=(0, 1), breaks=[0, 0.5, 1], labels=["0", "0.5", "1"])
        + scale_y_continuous(limits=(0, 1), breaks=[0, 0.5, 1], labels=["0", "0.5", "1"])
        + scale_color_manual(values=[ORANGE, BLUE], limits=[PUBLISHED, RUN])
        + labs(x=f"p({_token(rows)})", y="share of cells up to p")
        + look()
        + titled_frame(
            width,
            0.6 + 1.35 * math.ceil(len(strips) / columns),
            title=f"{pair.example}: p({_token(rows)}) of all restored cells, by noise level",
            subtitle=[
                "cumulative: the share of cells whose probability is at most p",
                *([] if (cells["of"] == RUN).any() else [NONE_OF_IT]),
            ],
        )
        + ruled_above_legend(width)
    )


# In the order of the report, by the names of `published.FIGURES`.
FIGURES: dict[str, Draw] = {
    "patching": patching,
    "patching_difference": patching_difference,
    "noise_means": noise_means,
    "noise_cells": noise_cells,
    "iteration_means": iteration_means,
    "mean_cells": mean_cells,
}


# ---- parts -------------------------------------------------------------------------------------


def _columns() -> dict[str, str]:
    return {PUBLISHED: "published", RUN: "reproduced"}


def _token(rows: pd.DataFrame) -> str:
    return printable(str(rows["token"].iloc[0]))


def _labels(run: Tables, example: str, patched: bool = False) -> dict[int, str]:
    tokens = rows_of(run["tokens"], example=example).pivot(
        index="position", columns="question", values="token"
    )
    named = tokens.reset_index().rename(columns={"base": "token", "source": "source_token"})
    return position_labels(named if patched else named.drop(columns="source_token"))


def _patching_rows(compared: pd.DataFrame, example: str) -> pd.DataFrame:
    """Both sites' rows with the published layer; `run_panel` says which of the run's it is."""
    both = compared[compared["quantity"].isin(["patching", SHIFTED])]
    rows = rows_of(both, example=example)
    shifted = rows["quantity"] == SHIFTED
    return rows.assign(
        layer=rows["layer"] + shifted.astype(int),
        run_panel=np.where(shifted, f"{RUN}, block_output[ℓ − 1]", f"{RUN}, block_input[ℓ]"),
    )


def difference_levels(differences: pd.Series) -> list[float]:
    """Of a legend: from the largest difference below to as much above, zero in the middle."""
    largest = max(LEAST_SCALE, float(differences.abs().max(skipna=True) or 0))
    digits = -int(np.floor(np.log10(largest)))
    top = np.ceil(largest * 10**digits) / 10**digits
    return [round(step * top / STEPS, digits + 1) for step in range(-STEPS, STEPS + 1)]


def _frames(rows: pd.DataFrame, predicted: pd.DataFrame) -> pd.DataFrame:
    """Both ends of each facet's axis, as rows of `strip` and `p`.

    They hold all that the facet shows, and are probabilities. Where the run has nothing to show
    beside the published mean they are 0 and 1.
    """
    parts = []
    for strip, part in rows.groupby("strip", observed=True):
        shown = pd.concat(
            [
                part[["published", "low", "high", "reproduced"]].stack(),
                predicted.loc[predicted["strip"] == strip, "p"],
            ]
        )
        low, high = (0.0, 1.0) if part["low"].isna().all() else (shown.min(), shown.max())
        margin = max(MARGIN * (high - low), (LEAST_RANGE - (high - low)) / 2)
        ends = np.clip([low - margin, high + margin], 0, 1)
        parts.append(pd.DataFrame({"strip": strip, "p": ends}))
    frames = pd.concat(parts)
    return frames.assign(strip=ordered(frames["strip"], list(rows["strip"])))


def _probabilities(limits: tuple[float, float]) -> list[float]:
    """A few round numbers, all of them probabilities."""
    return [tick for tick in breaks_extended(5)(limits) if 0 <= tick <= 1]


def _inner_breaks(limits: tuple[float, float]) -> list[float]:
    """Two round numbers or a few, none so near an end that it meets the next facet's."""
    low, high = limits
    margin = 0.12 * (high - low)
    low, high = max(0, low) + margin, min(1, high) - margin
    for number in FEW:
        ticks = [tick for tick in breaks_extended(number)(limits) if low < tick < high]
        if len(ticks) > 1:
            break
    return ticks


def _round(ticks: list[float]) -> list[str]:
    return [f"{tick:.6g}" for tick in ticks]


def _crosses(cells: pd.DataFrame) -> geom_point:
    return geom_point(
        aes("layer", "position"), data=cells, shape="x", color=INK, size=1.2, show_legend=False
    )


def _fit(rows: pd.DataFrame) -> list[str]:
    """How alike a published map and the run's are, and whether a shift makes them more so."""
    there = rows.dropna(subset="reproduced")
    if there.empty:
        return []
    r = correlation(*(there[name].to_numpy(float) for name in ("published", "reproduced")))
    alike = "" if np.isnan(r) else f"correlation {r:.2f}; "
    shift = best_shift(rows)
    layers = "layer" if abs(shift) == 1 else "layers"
    where = "with no shift" if shift == 0 else f"{shift:+.0f} {layers} off"
    return [f"{alike}closest {where}"]


def _missing(cells: pd.DataFrame) -> list[str]:
    count = cells["p"].isna().sum()
    return [f"{count} of the cells, grey, are not in the run"] if count else []


def _explained(predicted: pd.DataFrame, interval: str) -> list[str]:
    if predicted.empty:
        return [NONE_OF_IT]
    return [f"shaded: where this run’s draws predict it; {interval}: 95 % of that"]


def _predicted(rows: pd.DataFrame, run: Tables) -> pd.DataFrame:
    """Means as published, had they been drawn from the run's draws: PREDICTED of each row's."""
    generator = np.random.default_rng(0)
    parts = [pd.DataFrame({"noise_level": [], "p": []}, dtype=float)]
    for group in redrawn(rows, run):
        means = group.predict(np.arange(len(group.draws)), PREDICTED, generator)[:, 0]
        level = rows.loc[group.rows[0], "noise_level"]
        parts.append(pd.DataFrame({"noise_level": level, "p": means}))
    return pd.concat(parts)


def _distribution(
    part: pd.DataFrame, of: str, strip: str, values: pd.Series | pd.DataFrame
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "p": values.to_numpy(float).ravel(),
            "of": of,
            "strip": strip,
            "noise_level": part["noise_level"].iloc[0],
            "iterated": part["quantity"].iloc[0] == "iteration_cell",
        }
    )
