"""The supplement's figures: the reports' look at the widths of a journal's columns.

They have no titles: their captions say what they show. Text keeps its printed size at both widths.
Maps are of changes: none is white, losses are orange, gains purple, darker the larger, and all have
one scale, that of the page.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from plotnine import (
    aes,
    geom_hline,
    geom_line,
    geom_linerange,
    geom_point,
    ggplot,
    guide_legend,
    guides,
    labs,
    position_dodge,
    scale_color_manual,
    scale_linetype_manual,
    scale_shape_manual,
    scale_x_continuous,
    scale_y_continuous,
)

from blip_tracing.drawing.figures import (
    bare_frame,
    log_axis,
    log_places,
    look,
    maps,
    ordered,
    ruled_above_legend,
)
from blip_tracing.drawing.palette import INK, LINES, ORANGE, changes
from blip_tracing.drawing.panels import group_figure
from blip_tracing.telling.told import MARK, DepthCurve, Map, MapGroup, Story
from blip_tracing.telling.words import (
    CLEAN_RUN,
    NULL_LINE,
    is_corrupted_alone,
    level_axis,
    level_words,
)
from blip_tracing.vocabulary.experiment import BASE, SOURCE

# Inches: 89 mm and 183 mm.
WIDTHS = {"one_column": 3.5, "two_columns": 7.2}
# With three lines of runs' names below the chart; more make it higher.
MEANS_HEIGHT, NAMED_LINES, NAME_HEIGHT = 2.9, 3, 0.19
# Of a run's name in print: its key, and a letter.
NAME_KEY, NAME_LETTER = 0.4, 0.055
# Of restored sites; orange is left to the run with nothing restored. Of colours, lines and shapes
# there are 4, 3 and 5, so that sixty sites differ.
SITE_LINES = ("solid", "dashdot", (0, (6, 2)))
SITE_SHAPES = ("o", "^", "D", "v", "P")
ALONE_SHAPES = ("s", "X", "*")
AXIS_MARGIN = 0.8
# So far two runs stand apart at a noise level, in powers of ten.
APART = 0.05
# Of the colours in a legend, to each side of zero.
LEVELS = 4
# Inches that a layer's number takes.
LAYER_ROOM = 0.25


@dataclass(frozen=True)
class JournalFigure:
    """A figure: its file's name without ending, its caption, and how to draw it at a width."""

    name: str
    caption: str
    draw: Callable[[float], ggplot | Figure]


def journal_figures(story: Story) -> Iterator[JournalFigure]:
    """The main figures: of all examples together first, then of the shown ones one by one."""
    for curve in story.depths:
        yield JournalFigure(
            f"depth_{file_name(curve.title)}",
            f"{curve.title}. {curve.caption}",
            partial(depth_curve, curve),
        )
    for group in story.averages:
        words = filter(None, (f"{group.title}.", group.caption, story.marks_caption, group.marks))
        yield JournalFigure(
            f"roles_{file_name(group.title)}", " ".join(words), partial(change_maps, group)
        )
    if not story.means.empty:
        draw = partial(mean_levels, story.means, story.floors, sign=story.sign)
        yield JournalFigure("noise_levels", story.means_caption, draw)
    for example in story.examples:
        pair = example.pair
        for group in example.maps:
            yield JournalFigure(
                f"{file_name(group.title)}_{pair.example}",
                f"{pair.example}: {pair.asked(BASE)}; {pair.asked(SOURCE)}. {group.title}. "
                f"{group.caption} {group.marks}",
                partial(change_maps, group),
            )


def file_name(title: str) -> str:
    """`Patching, encoder.mlp` as a part of a file's name."""
    return title.replace(", ", "_").replace(" ", "_").lower()


def change_maps(group: MapGroup, width: float) -> ggplot | Figure:
    """A group of the story's maps, with circles or diamonds in the marked cells.

    width: inches. A narrow figure has the map of the level that conclusions are drawn at alone; a
    wide one a facet a level, without those at which the noise hid nothing; each with what stands
    beside it. Over a picture that level alone is drawn.
    """
    told = [one for one in group.maps if not one.idle] or list(group.maps)
    primary = [one for one in told if one.primary] or told[:1]
    if group.regions or group.by_site:
        return group_figure(group, width, group.maps.index(primary[0]))
    if width <= WIDTHS["one_column"]:
        told = primary
    titled = {title: part for one in told for title, part in _titled(group, one)}
    titles = list(titled)
    cells = pd.concat([part.cells.assign(panel=title) for title, part in titled.items()])
    # The sum of several layers' effects may lie beyond the scale.
    cells["value"] = cells["value"].clip(-group.limit, group.limit)
    cells = cells.rename(columns={"value": "p", "place": "position"})
    cells["panel"] = ordered(cells["panel"], titles)
    rows = cells.drop_duplicates("position").sort_values("position")
    return maps(
        cells,
        dict(zip(rows["position"], rows["label"], strict=True)),
        title="",
        subtitle=[],
        legend=group.measure,
        width=width,
        side=group.rows,
        levels=colour_levels(group.limit),
        colors=changes(),
        mark="o" if group.mark == MARK else "D",
    )


def _titled(group: MapGroup, one: Map) -> Iterator[tuple[str, Map]]:
    """A map and those beside it, each by a title of its own among all levels."""
    yield one.title or group.title, one
    for other in one.beside:
        yield ", ".join(filter(None, [level_words(one.level, group.sign), other.title])), other


def colour_levels(limit: float) -> list[float]:
    """What the legend of changes shows, evenly from -limit to limit, zero in the middle."""
    return [round(limit * step / LEVELS, 6) for step in range(-LEVELS, LEVELS + 1)]


def depth_curve(curve: DepthCurve, width: float) -> ggplot:
    """The share of examples that turns, by layer: a line a role, dashed the null's.

    width: inches.
    """
    runs = list(curve.lines["run"].unique())
    null = sum(run.startswith(NULL_LINE) for run in runs)
    roles = len(runs) - null
    columns = min(len(runs), max(1, int(width / (NAME_KEY + NAME_LETTER * max(map(len, runs))))))
    more = max(0, math.ceil(len(runs) / columns) - NAMED_LINES)
    rows = curve.lines.assign(run=ordered(curve.lines["run"], runs))
    layers = sorted(rows["layer"].unique())
    beside = position_dodge(width=0.4)
    every = math.ceil(LAYER_ROOM * len(layers) / width)
    plot = (
        ggplot(rows, aes("layer", "mean", color="run", linetype="run", shape="run"))
        + geom_linerange(
            aes(ymin="low", ymax="high"),
            data=rows.dropna(subset=["low", "high"]),
            linetype="solid",
            alpha=0.45,
            size=1.2,
            show_legend=False,
            position=beside,
        )
        + geom_point(size=1.6, position=beside)
        + scale_x_continuous(breaks=layers[::every], minor_breaks=[])
        + scale_y_continuous(limits=(0, 1), breaks=[0, 0.25, 0.5, 0.75, 1], minor_breaks=[])
        + scale_color_manual(values=[*cycled(LINES, roles), *[ORANGE] * null], limits=runs)
        + scale_linetype_manual(
            values=[*cycled(SITE_LINES, roles), *["dashed"] * null], limits=runs
        )
        + scale_shape_manual(
            values=[*cycled(SITE_SHAPES, roles), *cycled(ALONE_SHAPES, null)], limits=runs
        )
        + guides(color=guide_legend(ncol=columns))
        + labs(x="layer", y="share of examples turned")
        + look()
        + bare_frame(width, MEANS_HEIGHT + more * NAME_HEIGHT)
        + ruled_above_legend(width)
    )
    return plot + geom_line(size=0.7, position=beside) if len(layers) > 1 else plot


def mean_levels(means: pd.DataFrame, floors: pd.DataFrame, width: float, sign: str = "σ") -> ggplot:
    """Mean p(base answer) by noise level with 95 % intervals, of the story's `means`.

    floors: the story's: thin lines of single examples; width: inches; sign: what a level is called.
    """
    runs = list(means["run"].unique())
    # After the clean run, before the corrupted ones alone.
    alone = sum(map(is_corrupted_alone, runs))
    sites = len(runs) - 1 - alone
    name = NAME_KEY + NAME_LETTER * max(map(len, runs))
    columns = min(len(runs), max(1, int(width / name)))
    more = max(0, math.ceil(len(runs) / columns) - NAMED_LINES)
    means = means.assign(run=ordered(means["run"], runs))
    clean, noisy = means[means["run"] == CLEAN_RUN], means[means["run"] != CLEAN_RUN]
    levels = sorted(noisy["noise_level"].unique())
    _, places = log_places(levels)
    beside = position_dodge(width=min([APART * (sites + alone) / 2, *np.diff(places) / 2]))
    plot = (
        ggplot(noisy, aes("noise_level", "mean", color="run", linetype="run", shape="run"))
        + geom_hline(aes(yintercept="mean", color="run", linetype="run"), data=clean, size=0.7)
        + geom_linerange(
            aes(ymin="low", ymax="high"),
            data=noisy.dropna(subset=["low", "high"]),
            linetype="solid",
            alpha=0.45,
            size=1.6,
            show_legend=False,
            position=beside,
        )
        + geom_point(size=1.6, position=beside)
        + log_axis(levels, width - AXIS_MARGIN)
        + scale_y_continuous(limits=(0, 1), breaks=[0, 0.25, 0.5, 0.75, 1], minor_breaks=[])
        + scale_color_manual(values=[INK, *cycled(LINES, sites), *[ORANGE] * alone], limits=runs)
        + scale_linetype_manual(
            values=["dotted", *cycled(SITE_LINES, sites), *["dashed"] * alone], limits=runs
        )
        + scale_shape_manual(
            values=["None", *cycled(SITE_SHAPES, sites), *cycled(ALONE_SHAPES, alone)], limits=runs
        )
        + guides(color=guide_legend(ncol=columns))
        + labs(x=level_axis(sign), y="p(base answer)")
        + look()
        + bare_frame(width, MEANS_HEIGHT + more * NAME_HEIGHT)
        + ruled_above_legend(width)
    )
    if len(levels) == 1:
        return plot
    if len(floors):
        plot += geom_line(
            aes("noise_level", "mean", group="example"),
            data=floors,
            color=ORANGE,
            size=0.3,
            alpha=0.5,
            inherit_aes=False,
        )
    return plot + geom_line(size=0.7, position=beside)


def cycled(looks: Iterable[Any], count: int) -> list[Any]:
    """So many of the looks, from the first again after the last."""
    return list(islice(cycle(looks), count))
