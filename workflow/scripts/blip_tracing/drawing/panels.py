"""Figures of panels on one scale of changes: regions over their picture, and sites in a row.

Like maps they have a title in a notebook and none in print, where a width is given: their caption
says what they show. Colours are those of changes: none is white, losses orange, gains purple.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from blip_tracing.drawing.figures import (
    LABEL_SHARE,
    LAYER_WIDTH,
    LINE_HEIGHT,
    LOWEST_TILE,
    NARROWEST_TILE,
    PAGE_HEIGHT,
    PAGE_WIDTH,
    STRIP_SIZE,
    SWATCH_WIDTH,
    TEXT_SIZE,
    TICK_SIZE,
    TILE_HEIGHT,
    TITLE_SIZE,
    WIDEST_TILE,
    print_style,
    text_width,
    wrap_text,
)
from blip_tracing.drawing.palette import HAIRLINE, INK, PALE_INK, fill, ink_on
from blip_tracing.given.pictures import small_picture
from blip_tracing.telling.maps import regions_of, round_limit
from blip_tracing.telling.phrases import amount_words
from blip_tracing.telling.places import row_labels
from blip_tracing.telling.told import MARK, MapGroup, at_level
from blip_tracing.telling.words import brief, pair_of, rows_of
from blip_tracing.vocabulary.experiment import QUESTIONS, Experiment
from blip_tracing.vocabulary.views import side_by_side

# Of a picture's greys, what is kept behind the colours; the rest is lightened to white.
KEPT_GREY = 0.35
# Small letters are measured at this many times their size, where no pixel rounds them; on a screen
# they are wider by so much.
TENFOLD, HINTED = 10, 1.08
# Pixels of a panel's picture.
PANEL_PIXELS = 240
# Height by width, within which a picture keeps its shape.
LOWEST, HIGHEST = 0.5, 1.6
# Inches: of a panel's width, as they should be and at the least, and between things.
PANEL, SMALLEST_PANEL, LARGEST_PANEL = 0.86, 0.44, 1.5
MARGIN, GAP, LINE = 0.1, 0.12, 0.15
# What a site's name takes above its map at the least.
SLOT = 0.75
BAR = 0.15
# Of the colours' key with its numbers and its name.
KEY_HEIGHT = 0.62
# Of the layers' numbers and their name below a map.
AXIS_HEIGHT = 0.3
# Of the colours in the key, to each side of zero; finer grids have no rules between their regions.
LEVELS, FINE = 4, 12


@dataclass(frozen=True)
class Panel:
    """A map in a row: its title, its row names from the top, and its cells.

    cells: layer, place (the row), value, marked.
    """

    title: str
    labels: tuple[str, ...]
    cells: pd.DataFrame

    @property
    def layers(self) -> list[int]:
        """The layers across."""
        return sorted(int(layer) for layer in self.cells["layer"].unique())

    @property
    def heading(self) -> list[str]:
        """The title in lines: a site's tower stands alone."""
        tower, dot, component = self.title.partition(".")
        return [f"{tower}{dot}", component] if dot else [self.title]


@dataclass(frozen=True)
class Heading:
    """What stands above the panels in a notebook: lines of words."""

    title: str = ""
    below: Sequence[str] = ()

    def lines(self, width: float) -> list[tuple[str, float, str]]:
        """Each line with its size and colour, as wide as there is room."""
        found = [(line, TITLE_SIZE, INK) for line in _lines(self.title, TITLE_SIZE, width)]
        for words in self.below:
            found += [(line, TEXT_SIZE, PALE_INK) for line in _lines(words, TEXT_SIZE, width)]
        return found


# ---- of a table --------------------------------------------------------------------------------


def example_overlay(
    cells: pd.DataFrame,
    runs: pd.DataFrame,
    experiment: Experiment,
    example: str,
    site: str,
    pictures: Sequence[tuple[str, str | os.PathLike[str]]],
    noise_level: float,
) -> Figure:
    """How each region changes p(followed answer), over the picture.

    cells: the experiment's table; pictures: titles and paths, the receiver's first; noise_level:
    where a run is corrupted, the level that is drawn, mean over its draws.
    """
    rows = rows_of(cells, example=example, site=site)
    changes = _changes(rows, runs, experiment, example, noise_level)
    pair = pair_of(runs, example)
    return overlay(
        changes,
        regions_of(experiment, site, rows),
        pictures,
        round_limit(changes["value"].abs().max(), bounded=True),
        f"change in p({pair.answer(experiment.followed)})",
        heading=_heading(runs, experiment, example, site, noise_level),
    )


def example_row(
    cells: pd.DataFrame,
    runs: pd.DataFrame,
    experiment: Experiment,
    example: str,
    noise_level: float,
) -> Figure:
    """How each cell changes p(followed answer), the sites side by side; as `example_overlay`."""
    panels = []
    for site in side_by_side(experiment):
        rows = rows_of(cells, example=example, site=site)
        changes = _changes(rows, runs, experiment, example, noise_level)
        labels = row_labels(rows, experiment, site)
        places = {number: place for place, number in enumerate(sorted(labels))}
        changes = changes.assign(place=changes["place"].map(places))
        panels.append(Panel(site, tuple(labels[number] for number in sorted(labels)), changes))
    largest = max(panel.cells["value"].abs().max() for panel in panels)
    pair = pair_of(runs, example)
    return site_row(
        panels,
        round_limit(largest, bounded=True),
        f"change in p({pair.answer(experiment.followed)})",
        heading=_heading(runs, experiment, example, "its sites side by side", noise_level),
    )


def _changes(
    rows: pd.DataFrame,
    runs: pd.DataFrame,
    experiment: Experiment,
    example: str,
    noise_level: float,
) -> pd.DataFrame:
    """layer, place (the position), value, marked: the mean change over the draws of a level."""
    score = f"p_{experiment.followed}"
    alone = rows_of(runs, example=example, run=experiment.receiver.name)
    if experiment.corrupted:
        rows = rows[at_level(rows["noise_level"], noise_level)]
    if experiment.receiver.corruption:
        alone = alone[at_level(alone["noise_level"], noise_level)]
    means = rows.groupby(["layer", "position"], as_index=False)[score].mean()
    changes = means.assign(value=means[score] - alone[score].mean(), marked=False)
    return changes.rename(columns={"position": "place"})


def _heading(
    runs: pd.DataFrame, experiment: Experiment, example: str, where: str, noise_level: float
) -> Heading:
    pair = pair_of(runs, example)
    level = amount_words(experiment, noise_level) if experiment.corrupted else ""
    draws = f"mean over {experiment.draws} draws" if experiment.draws > 1 else ""
    asked = [f"{question}: {pair.asked(question)}" for question in QUESTIONS]
    return Heading(
        f"{pair.example}: change in p({pair.answer(experiment.followed)}), {where}",
        [*asked, *filter(None, [", ".join(filter(None, [level, draws]))])],
    )


# ---- of the story ------------------------------------------------------------------------------


def group_figure(group: MapGroup, width: float, number: int = 0) -> Figure:
    """A group that is drawn over a picture, or has sites in a row, at the width in inches.

    number: of the group's maps, that which is drawn over the picture.
    """
    if not group.regions:
        panels = [Panel(one.title, tuple(_row_names(one.cells)), one.cells) for one in group.maps]
        return site_row(panels, group.limit, group.measure, group.mark, width)
    pictures = [("picture", group.picture), ("source picture", group.source_picture)]
    return overlay(
        group.maps[number].cells,
        group.regions,
        [named for named in pictures if named[1]],
        group.limit,
        group.measure,
        group.mark,
        width,
    )


def _row_names(cells: pd.DataFrame) -> list[str]:
    return cells.drop_duplicates("place").sort_values("place")["label"].tolist()


# ---- regions over the picture ------------------------------------------------------------------


def overlay(
    cells: pd.DataFrame,
    side: int,
    pictures: Sequence[tuple[str, str | os.PathLike[str]]],
    limit: float,
    legend: str,
    mark: str = MARK,
    width: float = PAGE_WIDTH,
    heading: Heading | None = None,
) -> Figure:
    """The change at each region, drawn over the picture, a panel a layer on one scale.

    cells: layer, place (0 is [CLS], n the n-th of side² regions, row by row), value, marked;
    pictures: titles and paths, which stand first; the regions are the first one's. limit: the end
    of the scale; mark: which of both a mark is; width: inches.
    """
    layers = sorted(int(layer) for layer in cells["layer"].unique())
    first = small_picture(pictures[0][1], 2 * PANEL_PIXELS)
    ratio = min(HIGHEST, max(LOWEST, first.height / first.width))
    above = heading.lines(width - 2 * MARGIN) if heading else []
    head = MARGIN + LINE_HEIGHT * len(above)
    count = len(pictures) + len(layers)
    columns, panel = _panel_size(count, ratio, width, PAGE_HEIGHT - head - KEY_HEIGHT)
    names = [
        _wrapped(name, STRIP_SIZE, panel)
        for name in [*(name for name, _ in pictures), *(f"layer {layer}" for layer in layers)]
    ]
    strip = LINE * (1 + max(name.count("\n") for name in names))
    step = strip + ratio * panel + BAR + GAP
    height = head + step * math.ceil(count / columns) + KEY_HEIGHT
    with print_style():
        sheet = _Sheet(Figure(figsize=(width, height)), width, height)
        sheet.write(above)

        def place(number: int) -> tuple[float, float]:
            row, column = divmod(number, columns)
            return MARGIN + column * (panel + GAP), head + row * step

        for number, name in enumerate(names):
            left, top = place(number)
            sheet.words(left, top + strip - 0.03, name, STRIP_SIZE, va="bottom")
            axes = sheet.axes(left, top + strip, panel, ratio * panel)
            if number < len(pictures):
                axes.imshow(_resized(pictures[number][1], ratio), aspect="auto")
                continue
            of_layer = cells[cells["layer"] == layers[number - len(pictures)]]
            _draw_regions(axes, of_layer, side, _grey(pictures[0][1], ratio), limit, mark)
            bar = sheet.axes(left, top + strip + ratio * panel + 0.03, panel, BAR)
            _draw_cls(bar, of_layer, limit, mark)
        sheet.key(legend, limit)
    return sheet.figure


def _panel_size(count: int, ratio: float, width: float, room: float) -> tuple[int, float]:
    """Columns and a panel's width, so that all panels fit a page, as large as they should be."""
    within = width - 2 * MARGIN + GAP

    def size(columns: int) -> float:
        return min(LARGEST_PANEL, within / columns - GAP)

    columns = max(1, min(count, int(within / (PANEL + GAP))))
    while (
        size(columns + 1) >= SMALLEST_PANEL
        and math.ceil(count / columns) * (size(columns) * ratio + 2 * LINE + BAR + GAP) > room
    ):
        columns += 1
    # As many in the last row as can be.
    columns = math.ceil(count / math.ceil(count / columns))
    return columns, size(columns)


def tinted(grey: np.ndarray, values: np.ndarray, limit: float) -> np.ndarray:
    """Colours of values (k, k) over a picture's greys (h, w): (h, w, 3), all from 0 to 1.

    The colours are those of the scale where the picture is white, and darker as it is; a region
    without a value has the picture alone.
    """
    rows, columns = (np.arange(size) * len(values) // size for size in grey.shape)
    colours = np.array(
        [[to_rgb("white" if math.isnan(v) else fill(v / limit)) for v in row] for row in values]
    )
    light = 1 - KEPT_GREY * (1 - grey)
    return light[..., None] * colours[rows][:, columns]


def _draw_regions(
    axes: Axes, cells: pd.DataFrame, side: int, grey: np.ndarray, limit: float, mark: str
) -> None:
    """One layer's regions; the axes' unit is a region."""
    regions = cells[cells["place"] > 0]
    places = regions["place"].to_numpy(int) - 1
    values = np.full(side**2, np.nan)
    values[places] = regions["value"]
    image = tinted(grey, values.reshape(side, side), limit)
    axes.imshow(image, extent=(0, side, side, 0), aspect="auto", interpolation="nearest")
    if side <= FINE:
        for at in range(1, side):
            axes.axhline(at, color="white", linewidth=0.4, alpha=0.7)
            axes.axvline(at, color="white", linewidth=0.4, alpha=0.7)
    marked = places[regions["marked"].to_numpy(bool)]
    _draw_marks(axes, marked % side + 0.5, marked // side + 0.5, mark)


def _draw_cls(axes: Axes, cells: pd.DataFrame, limit: float, mark: str) -> None:
    """What is no region, in a bar with its number."""
    one = cells[cells["place"] == 0]
    if one.empty:
        axes.set_axis_off()
        return
    value = float(one["value"].iloc[0])
    colour = fill(value / limit)
    axes.set_facecolor(colour)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.text(
        0.5, 0.46, f"[CLS] {brief(value)}", size=TICK_SIZE, ha="center", va="center",
        color=ink_on(colour),
    )  # fmt: skip
    if one["marked"].iloc[0]:
        _draw_marks(axes, np.array([0.94]), np.array([0.5]), mark)


def _draw_marks(axes: Axes, x: np.ndarray, y: np.ndarray, mark: str) -> None:
    axes.scatter(
        x, y, s=7, marker="o" if mark == MARK else "D", color="white", edgecolor=INK,
        linewidth=0.5, zorder=3, clip_on=False,
    )  # fmt: skip


def _resized(path: str | os.PathLike[str], ratio: float) -> Image.Image:
    size = (PANEL_PIXELS, round(PANEL_PIXELS * ratio))
    return small_picture(path, 2 * PANEL_PIXELS).resize(size)


def _grey(path: str | os.PathLike[str], ratio: float) -> np.ndarray:
    return np.asarray(_resized(path, ratio).convert("L"), dtype=float) / 255


# ---- sites in a row ----------------------------------------------------------------------------


def site_row(
    panels: Sequence[Panel],
    limit: float,
    legend: str,
    mark: str = MARK,
    width: float = PAGE_WIDTH,
    heading: Heading | None = None,
) -> Figure:
    """Maps layer × place of several sites, side by side on one scale, each with its own rows.

    A map's row names stand beside it where they are not those of the map before it. limit: the end
    of the scale; width: inches.
    """
    panels = [_with_short_labels(panel, LABEL_SHARE * width) for panel in panels]
    above = heading.lines(width - 2 * MARGIN) if heading else []
    head = MARGIN + LINE_HEIGHT * len(above)
    rows = _rows_of(panels, width)
    tile = min(min(WIDEST_TILE, _tile_width(row, width)) for row in rows)
    tallest = [max(_lines_of(panel) for panel in row) for row in rows]
    titles = [max(len(_heading_lines(panel, tile)) for panel in row) for row in rows]
    fixed = head + KEY_HEIGHT + sum(LINE * lines + AXIS_HEIGHT + GAP for lines in titles)
    tile_height = max(LOWEST_TILE, min(TILE_HEIGHT, (PAGE_HEIGHT - fixed) / sum(tallest)))
    height = fixed + tile_height * sum(tallest)
    with print_style():
        sheet = _Sheet(Figure(figsize=(width, height)), width, height)
        sheet.write(above)
        top = head
        for row, lines, count in zip(rows, titles, tallest, strict=True):
            left = MARGIN
            for panel, labelled in _labelled(row):
                left += _label_width(panel) if labelled else 0
                across, down = tile * len(panel.layers), tile_height * _lines_of(panel)
                name = "\n".join(_heading_lines(panel, tile))
                sheet.words(left, top + LINE * lines - 0.03, name, STRIP_SIZE, va="bottom")
                axes = sheet.axes(left, top + LINE * lines, across, down)
                _draw_map(axes, panel, labelled, limit, mark, across)
                left += max(across, SLOT) + GAP
            top += LINE * lines + tile_height * count + AXIS_HEIGHT + GAP
        sheet.key(legend, limit)
    return sheet.figure


def _with_short_labels(panel: Panel, inches: float) -> Panel:
    labels = tuple(_wrapped(label, TICK_SIZE, inches) for label in panel.labels)
    return Panel(panel.title, labels, panel.cells)


def _lines_of(panel: Panel) -> int:
    """The height of a map, in tiles: rows whose names take lines are as high as all must be."""
    return len(panel.labels) * (1 + max(label.count("\n") for label in panel.labels))


def _heading_lines(panel: Panel, tile: float) -> list[str]:
    room = max(tile * len(panel.layers), SLOT)
    return [line for part in panel.heading for line in _lines(part, STRIP_SIZE, room)]


def _labelled(row: Sequence[Panel]) -> Iterator[tuple[Panel, bool]]:
    """Each panel of a row, and whether its row names stand beside it."""
    before: tuple[str, ...] = ()
    for panel in row:
        yield panel, panel.labels != before
        before = panel.labels


def _label_width(panel: Panel) -> float:
    lines = (line for label in panel.labels for line in label.split("\n"))
    return 0.1 + max(HINTED * text_width(line, TENFOLD * TICK_SIZE) / TENFOLD for line in lines)


def _tile_width(row: Sequence[Panel], width: float) -> float:
    """How wide a tile can be where these panels share a line."""
    return _room_for(row, width) / sum(len(panel.layers) for panel in row)


def _room_for(row: Sequence[Panel], width: float) -> float:
    """The inches of a line that row names and gaps leave to the maps."""
    labels = sum(_label_width(panel) for panel, labelled in _labelled(row) if labelled)
    return width - 2 * MARGIN - labels - GAP * (len(row) - 1)


def _fit(row: Sequence[Panel], width: float) -> bool:
    """Whether these panels share a line in which tiles and names have room."""
    tile = min(WIDEST_TILE, _tile_width(row, width))
    slots = sum(max(tile * len(panel.layers), SLOT) for panel in row)
    return tile >= NARROWEST_TILE and slots <= _room_for(row, width) + 1e-6


def _rows_of(panels: Sequence[Panel], width: float) -> list[list[Panel]]:
    """The panels in as few lines as have room for them, as even as can be."""
    for lines in range(1, len(panels) + 1):
        each = math.ceil(len(panels) / lines)
        rows = [list(panels[start : start + each]) for start in range(0, len(panels), each)]
        if all(_fit(row, width) for row in rows):
            break
    return rows


def _draw_map(
    axes: Axes, panel: Panel, labelled: bool, limit: float, mark: str, inches: float
) -> None:
    layers = panel.layers
    axes.set_xlim(0, len(layers))
    axes.set_ylim(len(panel.labels), 0)
    columns = panel.cells["layer"].map({layer: at for at, layer in enumerate(layers)})
    values = panel.cells["value"].to_numpy(float)
    for x, y, value in zip(columns, panel.cells["place"], values, strict=True):
        colour = "white" if math.isnan(value) else fill(value / limit)
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, edgecolor=HAIRLINE, linewidth=0.3))
    marked = panel.cells["marked"].to_numpy(bool)
    across, down = (axis.to_numpy(float)[marked] + 0.5 for axis in (columns, panel.cells["place"]))
    _draw_marks(axes, across, down, mark)
    every = math.ceil(LAYER_WIDTH * len(layers) / inches)
    named = [str(layer) for layer in layers[::every]]
    axes.set_xticks([at + 0.5 for at in range(0, len(layers), every)], named)
    axes.set_xlabel("layer", size=TEXT_SIZE, labelpad=1)
    if labelled:
        axes.set_yticks([at + 0.5 for at in range(len(panel.labels))], panel.labels)
    axes.tick_params(length=0, pad=2, labelsize=TICK_SIZE, labelcolor=INK)


# ---- the sheet that panels stand on ------------------------------------------------------------


@dataclass(frozen=True)
class _Sheet:
    """A figure measured in inches from its upper left corner."""

    figure: Figure
    width: float
    height: float

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """A framed panel without ticks."""
        axes = self.figure.add_axes(
            (left / self.width, 1 - (top + height) / self.height,
             width / self.width, height / self.height)
        )  # fmt: skip
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color(PALE_INK)
            spine.set_linewidth(0.5)
        return axes

    def words(
        self, left: float, top: float, words: str, size: float, va: str = "top", color: str = INK
    ) -> None:
        """Words at a place."""
        self.figure.text(
            left / self.width, 1 - top / self.height, words, size=size, va=va, color=color,
            linespacing=1.2,
        )  # fmt: skip

    def write(self, lines: Sequence[tuple[str, float, str]]) -> None:
        """The lines at the head."""
        for number, (line, size, color) in enumerate(lines):
            self.words(MARGIN, MARGIN + number * LINE_HEIGHT - 0.03, line, size, color=color)

    def key(self, legend: str, limit: float) -> None:
        """What the colours mean, at the foot."""
        levels = [limit * step / LEVELS for step in range(-LEVELS, LEVELS + 1)]
        swatch = min(SWATCH_WIDTH, (self.width - 2 * MARGIN - 0.4) / len(levels))
        top = self.height - KEY_HEIGHT + 0.06
        self.words(MARGIN, top, legend, TEXT_SIZE)
        axes = self.axes(MARGIN + 0.15, top + 0.2, swatch * len(levels), 0.125)
        axes.set_xlim(0, len(levels))
        axes.set_ylim(0, 1)
        for at, level in enumerate(levels):
            axes.add_patch(Rectangle((at, 0), 1, 1, facecolor=fill(level / limit)))
        named = range(0, len(levels), 2)
        axes.set_xticks([at + 0.5 for at in named], [_signed(levels[at]) for at in named])
        axes.tick_params(length=0, pad=2, labelsize=TICK_SIZE, labelcolor=INK)


def _signed(level: float) -> str:
    return f"{level:+.3g}".replace("-", "−") if level else "0"


def _wrapped(words: str, size: float, inches: float) -> str:
    """Lines no wider than the inches on a screen too, whose pixels widen small letters."""
    return wrap_text(words, TENFOLD * size, TENFOLD * inches / HINTED)


def _lines(words: str, size: float, inches: float) -> list[str]:
    return _wrapped(words, size, inches).split("\n") if words else []
