"""Figures of methods side by side."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from plotnine import ggplot

from blip_tracing.drawing.analyses.role_maps import role_maps
from blip_tracing.drawing.figures import (
    LINE_HEIGHT,
    PAGE_WIDTH,
    STRIP_HEIGHT,
    STRIP_SIZE,
    TEXT_SIZE,
    TICK_SIZE,
    TITLE_SIZE,
    print_style,
    wrap_text,
)
from blip_tracing.drawing.palette import HAIRLINE, INK, PALE_INK, fill, ink_on
from blip_tracing.telling.words import printable
from blip_tracing.vocabulary.analyses import QUANTITY_WORDS, orientation
from blip_tracing.vocabulary.experiment import Experiment
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.sites import SITES
from blip_tracing.vocabulary.tables import INCLUDED

# Inches, of a correlation's cell and of the names beside and below them.
CELL_WIDTH, CELL_HEIGHT = 0.8, 0.56
SIDE_WIDTH, FOOT_LINES, MARGIN = 0.95, 4, 0.1
SMALL_SIZE = 5.5
WITHOUT = "#EEEEEE"
Row = Mapping[Hashable, Any]
Pairs = Mapping[tuple[str, str], Row]


def correlations_by_metric(compared: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """The methods' correlations with one another, a panel a metric.

    compared: the rows of maps of the table `methods` at a site.
    """
    alike = compared[compared["first_quantity"] == compared["second_quantity"]]
    panels = {
        f"by {QUANTITY_WORDS[str(quantity)]}": _pairs(rows, "first", "second")
        for quantity, rows in alike.groupby("first_quantity", sort=False)
    }
    return correlation_figure(panels, methods, "How alike the methods’ maps are")


def correlations_by_method(compared: pd.DataFrame, quantities: Sequence[str]) -> Figure:
    """The metrics' correlations with one another, a panel a method; rows as above."""
    alone = compared[compared["first"] == compared["second"]]
    words = [QUANTITY_WORDS[quantity] for quantity in quantities]
    named = alone.assign(
        **{f"{end}_quantity": alone[f"{end}_quantity"].map(QUANTITY_WORDS)
           for end in ("first", "second")}
    )  # fmt: skip
    panels = {
        str(method): _pairs(rows, "first_quantity", "second_quantity")
        for method, rows in named.groupby("first", sort=False)
    }
    return correlation_figure(panels, words, "How alike the metrics’ maps are")


def _pairs(rows: pd.DataFrame, first: str, second: str) -> Pairs:
    return {(row[first], row[second]): row for row in rows.to_dict("records")}


def correlation_figure(panels: Mapping[str, Pairs], names: Sequence[str], title: str) -> Figure:
    """Lower halves of correlation matrices: ρ, its interval and the verdict in each cell.

    panels: strip → pair of names → a row of maps; names: in the order of rows and columns.
    """
    steps = len(names) - 1
    panel = (steps * CELL_WIDTH, steps * CELL_HEIGHT)
    width = SIDE_WIDTH + panel[0]
    height = STRIP_HEIGHT + panel[1] + FOOT_LINES * 0.12
    across = max(1, min(len(panels), int((PAGE_WIDTH - MARGIN) // (width + MARGIN))))
    down = -(-len(panels) // across)
    wide = max(across * (width + MARGIN) + MARGIN, 3.6)
    told = wrap_text(
        "Spearman’s ρ over cells that are not known beforehand; below it its 95 % interval over "
        "pictures, what noisy copies of one map would have, and whether the two agree",
        TEXT_SIZE, wide - 2 * MARGIN,
    )  # fmt: skip
    head = 0.15 + LINE_HEIGHT * (told.count("\n") + 2)
    tall = head + down * height
    with print_style():
        figure = Figure(figsize=(wide, tall))
        figure.text(MARGIN / wide, 1 - 0.12 / tall, title, size=TITLE_SIZE, va="top")
        figure.text(
            MARGIN / wide, 1 - (0.12 + 1.15 * LINE_HEIGHT) / tall, told, size=TEXT_SIZE, va="top",
            color=PALE_INK, linespacing=1.3,
        )  # fmt: skip
        for number, (strip, pairs) in enumerate(panels.items()):
            row, column = divmod(number, across)
            left = MARGIN + column * (width + MARGIN) + SIDE_WIDTH
            top = head + row * height + STRIP_HEIGHT
            bottom = tall - top - panel[1]
            axes = figure.add_axes((left / wide, bottom / tall, panel[0] / wide, panel[1] / tall))
            _draw_panel(axes, strip, pairs, names)
    return figure


def _draw_panel(axes: Axes, strip: str, pairs: Pairs, names: Sequence[str]) -> None:
    steps = len(names) - 1
    axes.set_xlim(0, steps)
    axes.set_ylim(steps, 0)
    axes.set_title(printable(strip), size=STRIP_SIZE, loc="left", pad=4)
    for row in range(steps):
        for column in range(row + 1):
            pair = (names[column], names[row + 1])
            if pair in pairs:
                _draw_correlation(axes, row, column, pairs[pair])
    places = np.arange(steps) + 0.5
    sides = [wrap_text(printable(name), TICK_SIZE, SIDE_WIDTH - 0.1) for name in names[1:]]
    feet = [wrap_text(printable(name), TICK_SIZE, CELL_WIDTH - 0.06) for name in names[:-1]]
    axes.set_yticks(places, sides, size=TICK_SIZE)
    axes.set_xticks(places, feet, size=TICK_SIZE, color=INK)
    axes.tick_params(length=0, pad=3)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_correlation(axes: Axes, row: int, column: int, found: Row) -> None:
    rho = found["rho"]
    color = WITHOUT if np.isnan(rho) else fill(rho)
    axes.add_patch(Rectangle((column, row), 1, 1, facecolor=color, edgecolor=HAIRLINE, lw=0.6))
    ink = ink_on(color)
    lines = [("none" if np.isnan(rho) else _short(rho), TEXT_SIZE, 0.22)]
    if not np.isnan(found["rho_low"]):
        ends = f"{_short(found['rho_low'])} to {_short(found['rho_high'])}"
        lines.append((ends, SMALL_SIZE, 0.46))
        lines.append((f"one map: {_short(found['ceiling'])}", SMALL_SIZE, 0.65))
    lines.append((found["verdict"], SMALL_SIZE, 0.84))
    for text, size, down in lines:
        axes.text(column + 0.5, row + down, text, size=size, color=ink, ha="center", va="center")


def _short(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def effect_maps(
    summary: pd.DataFrame,
    experiments: Mapping[str, Experiment],
    site: str,
    quantity: str,
    roles: Sequence[str],
    levels: Mapping[str, float],
) -> ggplot:
    """The methods' maps of a quantity at a site, side by side, positive the donor's way.

    summary: that table; experiments: method → its experiment; levels: method → the noise level that
    its map is at, NaN where nothing is corrupted. Rings: marked cells.
    """
    chosen = summary[
        (summary["site"] == site) & (summary["quantity"] == quantity)
        & (summary["among"] == INCLUDED) & (summary["group"] == ALL) & summary["layer"].notna()
    ]  # fmt: skip
    if SITES[site].heads:
        chosen = chosen[chosen["token_role"] == ALL]
    panels = {}
    for method, experiment in experiments.items():
        own = chosen[chosen["experiment"] == experiment.name]
        own = own[np.isclose(own["noise_level"].astype(float), levels[method], equal_nan=True)]
        marked = own["marked"].astype(str).str.lower() == "true"
        panels[method] = own.assign(
            value=orientation(experiment, quantity) * own["mean"], marked=marked
        )
    words = QUANTITY_WORDS[quantity]
    rings = any(of["marked"].any() for of in panels.values())
    told = f"mean change in {words}, towards what is put in"
    return role_maps(
        panels,
        roles,
        title=f"The methods’ maps by {words}",
        subtitle=[f"{told}; rings: cells that are marked" if rings else told],
        legend="change",
    )
