"""The reports' figures, all in one style, each for one example.

Every function takes whole tables (as `tables.read_table` reads them), picks the example's rows and
returns a figure; `save_figure` writes it to files and `show_figure` also shows it in a notebook.
Figures grow with the number of layers, tokens and facets, so that text keeps its printed size.
Maps can also be given the width of a journal's column; they then have no title, and grow in height
alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font
from matplotlib.ft2font import FT2Font
from matplotlib.patches import Patch
from mizani.transforms import pseudo_log_trans
from plotnine import (
    aes,
    element_blank,
    element_line,
    element_rect,
    element_text,
    facet_wrap,
    geom_hline,
    geom_line,
    geom_linerange,
    geom_point,
    geom_tile,
    ggplot,
    guide_legend,
    guides,
    labs,
    scale_color_manual,
    scale_fill_gradientn,
    scale_linetype_manual,
    scale_shape_manual,
    scale_x_continuous,
    scale_y_continuous,
    scale_y_reverse,
    theme,
    theme_minimal,
)

from blip_tracing.drawing.palette import BLUE, GAINS, GREY, HAIRLINE, INK, ORANGE, PALE_INK
from blip_tracing.given.pictures import small_picture
from blip_tracing.machinery.files import written_whole
from blip_tracing.telling.fonts import FONT, font_file
from blip_tracing.telling.phrases import (
    amount_words,
    corrupted_words,
    level_sign,
    put_words,
    restored_words,
)
from blip_tracing.telling.places import is_drawn_by_head, mean_words, row_labels, rows_words
from blip_tracing.telling.words import (
    CLEAN_RUN,
    Pair,
    level_axis,
    level_noun,
    pair_of,
    printable,
    rows_of,
)
from blip_tracing.vocabulary.experiment import QUESTIONS, Experiment

TITLE_SIZE, TEXT_SIZE, STRIP_SIZE, TICK_SIZE = 9.0, 7.5, 7.0, 6.5
TENTHS = [tenth / 10 for tenth in range(11)]

FORMATS = ("pdf", "svg", "png")
# Twice a screen's 96 dots an inch: `show_figure` halves it, so the page shows the printed size.
PNG_DPI = 192
# Dates and random ids out, so that the same table gives the same bytes; text stays text.
STYLE: Any = {
    "font.family": FONT,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "blip-causal-tracing",
    # A question may hold dollar signs.
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": PALE_INK,
    "ytick.color": INK,
}
UNDATED: dict[str, dict[str, None]] = {
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
    "png": {},
}

# Inches. A figure fills a page's text width where its facets allow.
PAGE_WIDTH, PAGE_HEIGHT = 7.2, 9.6
TILE_HEIGHT = 0.18
TILE_WIDTH, WIDEST_TILE = 0.155, 0.4
FACET_GAP = 0.1
STRIP_HEIGHT = 0.24
LINE_HEIGHT = 0.165
# Of tick labels, which stand closer where the width is given.
LOWEST_TILE, NARROWEST_TILE, LAYER_WIDTH = 0.11, 0.07, 0.15
# Of a given width, what the tokens beside the maps may take before they break into lines.
LABEL_SHARE = 0.36
# Of the layers' numbers, the axis title and the colour bar below the facets.
FOOT_HEIGHT = 0.85
SWATCH_WIDTH = 0.22
# Of a chart: what is beside it, save the words of its legend.
LEGEND_MARGIN = 0.95


# ---- the figures -------------------------------------------------------------------------------


def baseline(
    baseline: pd.DataFrame, runs: pd.DataFrame, example: str, picture: str | os.PathLike[str]
) -> Figure:
    """The picture with its two questions and the most probable first answer tokens of each."""
    pair = pair_of(runs, example)
    rows = rows_of(baseline, example=example).sort_values("rank")
    asked = [("base", pair.base_question), ("source", pair.source_question)]
    # One question can have two answers only where it is about two pictures.
    pictured = ", source picture" if pair.base_question == pair.source_question else ""
    bars = [rows[rows["question"] == question] for question, _ in asked]
    label_width = 0.12 + max(text_width(printable(word), TEXT_SIZE) for word in rows["token"])
    picture_width, bar_width, gap = 2.1, 1.6, 0.2
    width = picture_width + 2 * (gap + label_width + bar_width) + 0.1
    questions = [
        wrap_text(f"“{question}”", TEXT_SIZE, label_width + bar_width) for _, question in asked
    ]
    title = wrap_text(
        f"{pair.example}: the most probable first answer tokens", TITLE_SIZE, width - 0.2
    )
    bars_height = 0.19 * max(len(data) for data in bars) + 0.1
    head = 0.15 + LINE_HEIGHT * (title.count("\n") + 1) + 0.1
    asked_height = LINE_HEIGHT * (2 + max(question.count("\n") for question in questions)) + 0.12
    foot = 0.65
    height = head + asked_height + bars_height + foot

    with print_style():
        figure = Figure(figsize=(width, height))

        def axes_at(left: float, panel_width: float, top: float, panel_height: float) -> Axes:
            bottom = height - top - panel_height
            return figure.add_axes(
                (left / width, bottom / height, panel_width / width, panel_height / height)
            )

        figure.text(0.1 / width, 1 - 0.12 / height, title, size=TITLE_SIZE, va="top")
        _draw_picture(axes_at(0.1, picture_width, head, asked_height + bars_height), picture)
        for number, ((role, _), data) in enumerate(zip(asked, bars, strict=True)):
            left = picture_width + 0.1 + gap + number * (gap + label_width + bar_width)
            top = 1 - head / height
            figure.text(
                left / width, top, f"{role} question{pictured if number else ''}", size=TEXT_SIZE,
                va="top", color=PALE_INK,
            )  # fmt: skip
            figure.text(
                left / width,
                top - LINE_HEIGHT / height,
                questions[number],
                size=TEXT_SIZE,
                va="top",
                linespacing=1.3,
            )
            _draw_bars(
                axes_at(left + label_width, bar_width, head + asked_height, bars_height), data, pair
            )
        _draw_answer_key(figure, pair)
    return figure


def answer_maps(
    cells: pd.DataFrame,
    runs: pd.DataFrame,
    experiment: Experiment,
    example: str,
    site: str,
    width: float | None = None,
) -> ggplot:
    """Both answers' probabilities for every cell of a site, the followed answer's first.

    At a site of heads a cell is a head: the mean over all positions, and what it does at the tokens
    that the donor brings, where there are such. cells: the experiment's table; width: of a
    journal's column, in inches; no title then.
    """
    pair = pair_of(runs, example)
    rows = rows_of(cells, example=example, site=site)
    questions = sorted(QUESTIONS, key=lambda question: question != experiment.followed)
    panels = {f"{question} answer: p({pair.answer(question)})": question for question in questions}
    labels, views = _views(rows, experiment, site)
    drawn = {
        ", ".join(filter(None, [panel, view])): seen.assign(p=seen[f"p_{question}"])
        for panel, question in panels.items()
        for view, seen in views.items()
    }
    long = pd.concat([seen.assign(panel=panel) for panel, seen in drawn.items()])
    return maps(
        long.assign(panel=ordered(long["panel"], list(drawn))),
        labels,
        side=rows_words(experiment, site),
        title=f"{pair.example}: {put_words(experiment, site)}",
        subtitle=[f"{question}: {pair.asked(question)}" for question in QUESTIONS],
        legend="probability",
        width=width,
    )


def level_maps(
    cells: pd.DataFrame,
    runs: pd.DataFrame,
    experiment: Experiment,
    example: str,
    site: str,
    width: float | None = None,
) -> ggplot:
    """p(followed answer) for every cell, mean over the draws, one facet a noise level.

    cells: the experiment's table; width: of a journal's column, in inches; no title then.
    """
    pair = pair_of(runs, example)
    rows = rows_of(cells, example=example, site=site)
    labels, views = _views(rows, experiment, site)
    over, seen = next(iter(views.items()))
    means = _mean_cells(seen, experiment)
    draws = _draws(rows)
    return maps(
        means.assign(
            panel=_means_in_strips(means, "noise_level", f"{level_sign(experiment)} = {{:g}}")
        ),
        labels,
        side=rows_words(experiment, site),
        title=_restored(pair, experiment, site),
        subtitle=[
            f"“{pair.text(experiment.receiver.question)}”",
            f"{f'{over} and {draws}' if over else f'mean over {draws}'}, "
            f"by {level_axis(level_sign(experiment))}",
        ],
        legend=f"p({pair.answer(experiment.followed)})",
        width=width,
    )


def draw_maps(
    cells: pd.DataFrame,
    runs: pd.DataFrame,
    experiment: Experiment,
    example: str,
    site: str,
    noise_level: float,
) -> ggplot:
    """p(followed answer) for every cell at one noise level, one facet a draw."""
    pair = pair_of(runs, example)
    rows = _at_level(rows_of(cells, example=example, site=site), noise_level)
    labels, views = _views(rows, experiment, site)
    over, seen = next(iter(views.items()))
    drawn = seen.assign(p=seen[f"p_{experiment.followed}"])
    draws = f"{_draws(rows)} of the noise"
    return maps(
        drawn.assign(panel=_means_in_strips(drawn, "draw", "draw {}")),
        labels,
        side=rows_words(experiment, site),
        title=_restored(pair, experiment, site),
        subtitle=[
            f"“{pair.text(experiment.receiver.question)}”",
            f"{amount_words(experiment, noise_level)}, {', '.join(filter(None, [draws, over]))}",
        ],
        legend=f"p({pair.answer(experiment.followed)})",
    )


def mean_map(
    cells: pd.DataFrame,
    runs: pd.DataFrame,
    experiment: Experiment,
    example: str,
    site: str,
    noise_level: float,
) -> ggplot:
    """p(followed answer) for every cell at one noise level, mean over the draws."""
    rows = rows_of(cells, example=example, site=site)
    at_level = _at_level(rows, noise_level)
    return level_maps(at_level, runs, experiment, example, site)


def level_means(
    cells: pd.DataFrame, runs: pd.DataFrame, experiment: Experiment, example: str, site: str
) -> ggplot:
    """Mean p(followed answer) by noise level: one cell restored, against nothing and clean."""
    pair = pair_of(runs, example)
    answer, score = pair.answer(experiment.followed), f"p_{experiment.followed}"
    rows = rows_of(cells, example=example, site=site)
    levels = sorted(rows["noise_level"].unique())
    ends = {run.name: rows_of(runs, example=example, run=run.name)
            for run in (experiment.receiver, experiment.donor)}  # fmt: skip
    clean = next(run for run in (experiment.donor, experiment.receiver) if not run.corruption)
    noisy_run = next(run for run in (experiment.receiver, experiment.donor) if run.corruption)
    parts = {
        CLEAN_RUN: pd.DataFrame({"noise_level": levels, "mean": ends[clean.name][score].iloc[0]}),
        restored_words(experiment, site): _mean_and_range(rows, score),
        corrupted_words(experiment): _mean_and_range(ends[noisy_run.name], score),
    }
    means = pd.concat([data.assign(run=run) for run, data in parts.items()])
    means["run"] = ordered(means["run"], list(parts))
    clean_mean = means[means["run"] == CLEAN_RUN]
    noisy_means = means[means["run"] != CLEAN_RUN]
    draws = f"mean over all cells and {_draws(rows)}"
    beside = LEGEND_MARGIN + max(text_width(run, TICK_SIZE) for run in parts)
    width = max(5.6, beside + 0.4 * len(levels))
    plot = (
        ggplot(noisy_means, aes("noise_level", "mean", color="run", linetype="run", shape="run"))
        + geom_hline(aes(yintercept="mean", color="run", linetype="run"), data=clean_mean, size=0.7)
        + geom_linerange(
            aes(ymin="low", ymax="high"), linetype="solid", alpha=0.45, size=1.6, show_legend=False
        )
        + geom_point(size=1.6)
        + log_axis(levels, width - beside)
        + scale_y_continuous(limits=(0, 1), breaks=[0, 0.25, 0.5, 0.75, 1], minor_breaks=[])
        + scale_color_manual(values=[INK, BLUE, ORANGE], limits=list(parts))
        + scale_linetype_manual(values=["dotted", "solid", "dashed"], limits=list(parts))
        + scale_shape_manual(values=["None", "o", "s"], limits=list(parts))
        + labs(x=level_axis(level_sign(experiment)), y=f"p({answer})")
        + look()
        + titled_frame(
            width,
            2.3,
            title=f"{pair.example}: mean p({answer}) by {level_noun(level_sign(experiment))}",
            subtitle=[
                f"“{pair.text(experiment.receiver.question)}”",
                f"{draws}; bars: lowest and highest draw" if rows["draw"].nunique() > 1 else draws,
            ],
        )
        + theme(
            panel_grid_major=element_line(color=HAIRLINE, size=0.4),
            panel_grid_minor=element_blank(),
            legend_title=element_blank(),
            legend_position="right",
        )
    )
    return plot + geom_line(size=0.7) if len(levels) > 1 else plot


# ---- files -------------------------------------------------------------------------------------


@contextmanager
def print_style() -> Iterator[None]:
    """Matplotlib's own defaults with this project's style, whatever the user's settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def save_figure(
    plot: ggplot | Figure, stem: str | os.PathLike[str], formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Draw once, write `stem` with each format's ending, and close the figure.

    The same tables give the same bytes.
    """
    files = [Path(f"{os.fspath(stem)}.{kind}") for kind in formats]
    with print_style():
        figure = deepcopy(plot).draw() if isinstance(plot, ggplot) else plot
        try:
            # Places everything; with a layout engine, even "none", each format does so twice again.
            figure.draw_without_rendering()
            figure.set_layout_engine(None)
            for kind, path in zip(formats, files, strict=True):
                with written_whole(path) as file:
                    figure.savefig(file, format=kind, dpi=PNG_DPI, metadata=UNDATED[kind])
        finally:
            plt.close(figure)
    return files


def show_figure(plot: ggplot | Figure, stem: str | os.PathLike[str], caption: str) -> None:
    """Save the figure in every format and show it in the notebook, once, at its printed size."""
    from IPython.display import Image, display

    png = next(path for path in save_figure(plot, stem) if path.suffix == ".png")
    display(Image(filename=str(png), retina=True, alt=caption))


# ---- parts of figures --------------------------------------------------------------------------


def maps(
    cells: pd.DataFrame,
    labels: dict[int, str],
    title: str,
    subtitle: list[str],
    legend: str,
    width: float | None = None,
    side: str = "position and token",
    levels: Sequence[float] = TENTHS,
    colors: Sequence[str] = GAINS,
    mark: str = "",
) -> ggplot:
    """Layer × position heatmaps of column `p`, a facet for each `panel`.

    labels: of the positions, whose axis is called `side`; levels: the values that the legend
    shows, from the lowest to the highest; colors: evenly from the lowest to the highest; mark: the
    shape that stands where column `marked` is true, "" for none; width: in inches, without a title,
    else as wide as the content asks.
    """
    layers = sorted(cells["layer"].unique())
    strips = list(cells["panel"].cat.categories)
    if width is None:
        size = _map_size(len(layers), list(labels.values()), strips, legend)
        frame = titled_frame(size.width, size.height, title, subtitle)
    else:
        labels = {
            place: wrap_text(label, TICK_SIZE, LABEL_SHARE * width)
            for place, label in labels.items()
        }
        size = _map_size_within(width, len(layers), list(labels.values()), strips)
        wrapped = {strip: wrap_text(strip, STRIP_SIZE, size.panel_width) for strip in strips}
        cells = cells.assign(panel=cells["panel"].cat.rename_categories(wrapped))
        frame = bare_frame(size.width, size.height)
    marked = cells[cells["marked"]] if mark else cells.iloc[:0]
    return (
        ggplot(cells, aes("layer", "position", fill="p"))
        + geom_tile(color=HAIRLINE, size=0.3)
        + (
            [geom_point(data=marked, shape=mark, fill="white", color=INK, size=1.3, stroke=0.3)]
            if len(marked)
            else []
        )
        + facet_wrap("panel", ncol=size.columns)
        + scale_x_continuous(
            breaks=layers[:: math.ceil(LAYER_WIDTH * len(layers) / size.panel_width)],
            minor_breaks=[],
            expand=(0, 0),
        )
        + scale_y_reverse(
            breaks=list(labels), labels=list(labels.values()), minor_breaks=[], expand=(0, 0)
        )
        + scale_fill_gradientn(
            list(colors),
            limits=(levels[0], levels[-1]),
            breaks=list(levels),
            labels=_every_second(levels),
        )
        # Not a continuous bar: plotnine sizes that for one resolution, but we save in three.
        + guides(fill=guide_legend(nrow=1))
        + labs(x="layer", y=side if _fits_beside(side, labels) else "", fill=legend)
        + look()
        + frame
        + theme(
            panel_grid=element_blank(),
            legend_position="bottom",
            legend_text_position="bottom",
            legend_key_width=size.swatch_width(len(levels)) * 72,
            legend_key_height=9,
            legend_key_spacing_x=0,
            legend_box_spacing=0.1 / size.width,
            panel_spacing=FACET_GAP / size.width,
        )
    )


def _fits_beside(side: str, labels: dict[int, str]) -> bool:
    """Whether an axis title is no longer than its axis, with what is free above and below it."""
    return text_width(side, TEXT_SIZE) <= len(labels) * TILE_HEIGHT + 2 * STRIP_HEIGHT


@dataclass(frozen=True)
class _MapSize:
    """Columns of facets, and inches: a facet's width and the figure's size without its titles."""

    columns: int
    panel_width: float
    width: float
    height: float

    def swatch_width(self, swatches: int) -> float:
        """Of the legend, which stays below the facets, with room for half a number at its ends."""
        return min(SWATCH_WIDTH, self.columns * self.panel_width / (swatches + 1))


def _map_size(layers: int, labels: list[str], strips: list[str], legend: str) -> _MapSize:
    margin = 0.5 + max(text_width(label, TICK_SIZE) for label in labels)
    narrowest = max(
        layers * TILE_WIDTH, 0.1 + max(text_width(strip, STRIP_SIZE) for strip in strips)
    )
    facet_height = len(labels) * TILE_HEIGHT + STRIP_HEIGHT + FACET_GAP
    columns = _columns(
        len(strips), narrowest + FACET_GAP, facet_height, PAGE_WIDTH - margin, PAGE_HEIGHT - 1.5
    )
    room = (PAGE_WIDTH - margin) / columns - FACET_GAP
    legend_width = 0.4 + text_width(legend, TEXT_SIZE) + len(TENTHS) * SWATCH_WIDTH
    panel = max(
        narrowest,
        min(room, layers * WIDEST_TILE),
        legend_width / columns - FACET_GAP,
    )
    return _MapSize(
        columns=columns,
        panel_width=panel,
        width=margin + columns * (panel + FACET_GAP),
        height=math.ceil(len(strips) / columns) * facet_height + FOOT_HEIGHT,
    )


def _map_size_within(width: float, layers: int, labels: list[str], strips: list[str]) -> _MapSize:
    """The size at a given width; tiles are lower than else where the page ends."""
    lines = [line for label in labels for line in label.split("\n")]
    room = width - 0.5 - max(text_width(line, TICK_SIZE) for line in lines)
    strip_width = 0.1 + max(text_width(strip, STRIP_SIZE) for strip in strips)
    narrowest = min(max(layers * NARROWEST_TILE, strip_width), room - FACET_GAP)
    lowest = LOWEST_TILE * max(label.count("\n") + 1 for label in labels)

    def facet_height(tile: float) -> float:
        return len(labels) * tile + STRIP_HEIGHT + FACET_GAP

    page = PAGE_HEIGHT - FOOT_HEIGHT
    columns = _columns(len(strips), narrowest + FACET_GAP, facet_height(lowest), room, page)
    rows = math.ceil(len(strips) / columns)
    panel = room / columns - FACET_GAP
    over = max(wrap_text(strip, STRIP_SIZE, panel).count("\n") for strip in strips) * LINE_HEIGHT
    tile = (page / rows - facet_height(0) - over) / len(labels)
    tile = max(lowest, min(TILE_HEIGHT, tile))
    return _MapSize(columns, panel, width, rows * (facet_height(tile) + over) + FOOT_HEIGHT)


def _columns(
    facets: int, facet_width: float, facet_height: float, page_width: float, page_height: float
) -> int:
    """The number of columns with which the facets print largest on one page."""

    def scale(columns: int) -> float:
        rows = math.ceil(facets / columns)
        return min(1, page_width / (columns * facet_width), page_height / (rows * facet_height))

    columns = max(range(1, facets + 1), key=lambda count: (round(scale(count), 2), count))
    rows = math.ceil(facets / columns)
    # As many facets in the last row as can be.
    return math.ceil(facets / rows)


def titled_frame(width: float, height: float, title: str, subtitle: list[str]) -> list[Any]:
    """Title, subtitle and the figure's size: the height is that of what stands below them."""
    head = wrap_text(title, TITLE_SIZE, width - 0.2)
    below = "\n".join(wrap_text(line, TEXT_SIZE, width - 0.2) for line in subtitle)
    full_height = height + LINE_HEIGHT * (head.count("\n") + below.count("\n") + 2) + 0.2
    # plotnine multiplies margins between things above one another by width over height.
    point = full_height / width
    return [
        labs(title=head, subtitle=below),
        theme(
            figure_size=(width, full_height),
            plot_margin=0.08 / width,
            plot_title=element_text(size=TITLE_SIZE, ha="left", margin={"b": 5 * point}),
            plot_subtitle=element_text(
                size=TEXT_SIZE,
                color=PALE_INK,
                ha="left",
                linespacing=1.3,
                margin={"b": 7 * point},
            ),
            axis_title_x=element_text(margin={"t": 4 * point}),
        ),
    ]


def bare_frame(width: float, height: float) -> list[Any]:
    """The size of a figure whose title is its caption."""
    return [
        theme(
            figure_size=(width, height),
            plot_margin=0.06 / width,
            axis_title_x=element_text(margin={"t": 4 * height / width}),
            legend_title_position="top",
        )
    ]


def look() -> theme:
    """The one theme of all plots."""
    return theme_minimal(base_size=TEXT_SIZE, base_family=FONT) + theme(
        dpi=PNG_DPI,
        text=element_text(color=INK),
        plot_title_position="plot",
        axis_title=element_text(size=TEXT_SIZE),
        axis_text=element_text(size=TICK_SIZE, color=INK),
        strip_text=element_text(size=STRIP_SIZE, color=INK),
        legend_title=element_text(size=TEXT_SIZE),
        legend_text=element_text(size=TICK_SIZE),
        panel_border=element_rect(color=PALE_INK, size=0.5, fill=None),
    )


def ruled_above_legend(width: float) -> theme:
    """Of a chart of lines or points: fine rules behind them, an untitled legend below."""
    return theme(
        panel_grid_major=element_line(color=HAIRLINE, size=0.4),
        panel_grid_minor=element_blank(),
        legend_title=element_blank(),
        legend_position="bottom",
        legend_box_spacing=0.1 / width,
    )


def log_axis(levels: list[float], inches: float) -> scale_x_continuous:
    """A logarithmic axis with the noise levels named; linear below the lowest if one is zero."""
    trans, places = log_places(levels)
    named = _apart(places, [f"{level:g}" for level in levels], inches)
    return scale_x_continuous(trans=trans, breaks=levels, labels=named, minor_breaks=[])


def log_places(levels: list[float]) -> tuple[Any, list[float]]:
    """The transformation of `log_axis`, and where it puts the noise levels, in powers of ten."""
    positive = [level for level in levels if level > 0]
    if len(positive) == len(levels):
        return "log10", [math.log10(level) for level in levels]
    trans = pseudo_log_trans(sigma=min(positive, default=1.0) / 2, base=10)
    return trans, [float(place) for place in trans.transform(pd.Series(levels))]


def _apart(places: list[float], names: list[str], inches: float) -> list[str]:
    """The names, with those blank that would run into the name before them."""
    scale = inches / ((places[-1] - places[0]) or 1.0)
    kept: list[str] = []
    free = -math.inf
    for place, name in zip(places, names, strict=True):
        half = text_width(name, TICK_SIZE) / 2
        fits = place * scale - half >= free
        kept.append(name if fits else "")
        free = place * scale + half + 0.06 if fits else free
    return kept


def _draw_picture(axes: Axes, picture: str | os.PathLike[str]) -> None:
    # More than a printer shows at this size only makes the files heavy.
    axes.imshow(small_picture(picture, 800))
    axes.set_axis_off()
    axes.set_anchor("N")


def _draw_bars(axes: Axes, data: pd.DataFrame, pair: Pair) -> None:
    colors = {pair.source_answer_id: ORANGE, pair.base_answer_id: BLUE}
    places = range(len(data))
    axes.barh(
        places,
        data["probability"],
        height=0.7,
        color=[colors.get(token, GREY) for token in data["token_id"]],
    )
    for place, probability in zip(places, data["probability"], strict=True):
        axes.text(
            probability + 0.02, place, _short(probability), size=TICK_SIZE, va="center_baseline"
        )
    axes.set_yticks(places, [printable(token) for token in data["token"]], size=TEXT_SIZE)
    axes.set_ylim(len(data) - 0.4, -0.6)
    # Room for the number behind a bar that reaches 1.
    axes.set_xlim(0, 1.27)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], size=TICK_SIZE)
    axes.set_xlabel("probability", size=TEXT_SIZE, labelpad=2)
    axes.xaxis.set_label_coords(0.5 / 1.27, -0.24 / (0.19 * len(data) + 0.1))
    axes.tick_params(length=0, pad=3)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(PALE_INK)


def _draw_answer_key(figure: Figure, pair: Pair) -> None:
    if pair.base_answer_id == pair.source_answer_id:
        meanings = {BLUE: f"both answers ({pair.base_answer})"}
    else:
        meanings = {
            BLUE: f"base answer ({pair.base_answer})",
            ORANGE: f"source answer ({pair.source_answer})",
        }
    meanings[GREY] = "other tokens"
    figure.legend(
        handles=[Patch(color=color, label=label) for color, label in meanings.items()],
        loc="lower right",
        ncols=3,
        frameon=False,
        fontsize=TEXT_SIZE,
        handlelength=1,
        handleheight=0.8,
    )


def _short(probability: float) -> str:
    return f"{probability:.3f}" if probability >= 0.0005 else "< 0.001"


def _every_second(numbers: Sequence[float]) -> list[str]:
    """The numbers in words, every second one blank, but not zero."""
    zero = min(range(len(numbers)), key=lambda place: abs(numbers[place]))
    return [
        f"{number:g}" if (place - zero) % 2 == 0 else "" for place, number in enumerate(numbers)
    ]


def _restored(pair: Pair, experiment: Experiment, site: str) -> str:
    return (
        f"{pair.example}: p({pair.answer(experiment.followed)}), {restored_words(experiment, site)}"
    )


def _draws(rows: pd.DataFrame) -> str:
    count = rows["draw"].nunique()
    return f"{count} draws" if count > 1 else "one draw"


# ---- words on paper ----------------------------------------------------------------------------


@lru_cache
def _font() -> FT2Font:
    return get_font(font_file())


def text_width(text: str, size: float) -> float:
    """Inches that a line of text takes in print."""
    font = _font()
    font.set_size(size, 72)
    font.set_text(text)
    return font.get_width_height()[0] / 64 / 72


def wrap_text(text: str, size: float, inches: float) -> str:
    """The text broken between words into lines no wider than the inches."""
    lines = [""]
    for piece in (piece for word in text.split() for piece in _pieces(word, size, inches)):
        longer = f"{lines[-1]} {piece}".lstrip()
        if lines[-1] and text_width(longer, size) > inches:
            lines.append(piece)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _pieces(word: str, size: float, inches: float) -> list[str]:
    """The word, cut where it alone would be wider than the inches."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and text_width(pieces[-1] + letter, size) > inches:
            pieces.append("")
        pieces[-1] += letter
    return pieces


# ---- rows of tables ----------------------------------------------------------------------------


def _views(
    rows: pd.DataFrame, experiment: Experiment, site: str
) -> tuple[dict[int, str], dict[str, pd.DataFrame]]:
    """The names of a map's rows from the top, and what is drawn, by what it is of.

    The first view is of all positions. Column `position` is the row's place; at a site of heads
    rows are heads, of the mean over the positions.
    """
    named = row_labels(rows, experiment, site)
    places = {number: place for place, number in enumerate(sorted(named))}
    labels = {places[number]: label for number, label in named.items()}
    if not is_drawn_by_head(site):
        return labels, {"": rows.assign(position=rows["position"].map(places))}
    views = {mean_words(experiment, site): rows}
    if "source_token" in rows and rows["source_token"].nunique() > 1:
        there = rows[rows["token"] != rows["source_token"]]
        if len(there):
            words = " ".join(map(str, there.drop_duplicates("position")["token"]))
            views[f"at “{printable(words)}”"] = there
    keys = [name for name in ("noise_level", "draw", "layer", "head") if name in rows]
    scores = [f"p_{question}" for question in QUESTIONS]
    means = {
        view: seen.groupby(keys, as_index=False)[scores].mean() for view, seen in views.items()
    }
    return labels, {
        view: seen.assign(position=seen["head"].map(places), token="")
        for view, seen in means.items()
    }


def _at_level(rows: pd.DataFrame, noise_level: float) -> pd.DataFrame:
    # A CSV's reader may miss a number by its last bit.
    chosen = rows[np.isclose(rows["noise_level"], noise_level, rtol=1e-10, atol=0)]
    if chosen.empty:
        levels = ", ".join(f"{level:g}" for level in sorted(rows["noise_level"].unique()))
        raise ValueError(f"the table has no rows at noise level {noise_level:g}, only {levels}")
    return chosen


def _mean_cells(rows: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """Mean over the draws of every noise level, layer and position, as column `p`."""
    means = rows.groupby(["noise_level", "layer", "position", "token"])[f"p_{experiment.followed}"]
    return means.mean().rename("p").reset_index()


def _means_in_strips(cells: pd.DataFrame, by: str, name: str) -> pd.Series:
    """Each row's facet: the value of column `by` and the mean of its cells, in that order."""
    means = cells.groupby(by)["p"].mean()
    strips = {value: f"{name.format(value)}, mean {mean:.3f}" for value, mean in means.items()}
    return ordered(cells[by].map(strips), list(strips.values()))


def _mean_and_range(rows: pd.DataFrame, score: str) -> pd.DataFrame:
    """By noise level: the mean, and the means of the lowest and the highest draw."""
    draws = rows.groupby(["noise_level", "draw"])[score].mean()
    by_level = draws.groupby("noise_level").agg(mean="mean", low="min", high="max")
    return by_level.reset_index()


def ordered(values: pd.Series, order: list[str]) -> pd.Series:
    return values.astype(pd.CategoricalDtype(order, ordered=True))
