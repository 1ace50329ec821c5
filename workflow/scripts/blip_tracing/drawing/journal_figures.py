"""The supplement's figures: the reports' look at the widths of a journal's columns.

They have no titles: their captions say what they show. Text keeps its printed size at both widths.
Nothing is white in a map, and its lightness falls as values go from there, so that a greyscale
print tells what is large; of changes of both signs losses are orange, gains purple.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from plotnine import (
    aes,
    element_blank,
    element_line,
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
    scale_y_continuous,
    theme,
)

from blip_tracing.drawing.figures import (
    answer_maps,
    bare_frame,
    level_maps,
    log_axis,
    log_places,
    look,
    maps,
    ordered,
)
from blip_tracing.drawing.palette import HAIRLINE, INK, LINES, ORANGE, PALETTE
from blip_tracing.telling.phrases import put_words, run_words
from blip_tracing.telling.story import MapGroup, Story
from blip_tracing.telling.words import CLEAN_RUN, is_corrupted_alone, pair_of
from blip_tracing.vocabulary.experiment import Experiment

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
MOST_COLOURS, LEAST_COLOURED = 10, 0.005
# Matplotlib's name: from orange over white to purple.
BOTH_SIGNS = "PuOr"


@dataclass(frozen=True)
class JournalFigure:
    """A figure: its file's name without ending, its caption, and how to draw it at a width."""

    name: str
    caption: str
    draw: Callable[[float], ggplot]


def journal_figures(
    story: Story,
    tables: Mapping[str, pd.DataFrame],
    examples: Sequence[str],
    experiments: Sequence[Experiment],
) -> Iterator[JournalFigure]:
    """The main figures: of all examples together first, then of these examples one by one.

    tables: `runs` and those of the experiments.
    """
    for group in story.averages:
        yield JournalFigure(
            f"roles_{group.title.replace(', ', '_').replace(' ', '_').lower()}",
            f"{group.caption} {group.marks}".rstrip(),
            partial(role_maps, group),
        )
    if not story.means.empty:
        yield JournalFigure("noise_levels", story.means_caption, partial(mean_levels, story.means))
    for example in examples:
        for experiment in experiments:
            for site in experiment.sites:
                yield _of_example(example, tables, experiment, site)


def _of_example(
    example: str, tables: Mapping[str, pd.DataFrame], experiment: Experiment, site: str
) -> JournalFigure:
    cells, runs = tables[experiment.name], tables["runs"]
    pair = pair_of(runs, example)
    answer = pair.answer(experiment.followed)
    over = "; mean over the draws of the noise" if experiment.draws > 1 else ""
    draw = level_maps if experiment.corrupted else answer_maps
    return JournalFigure(
        f"{experiment.name}_{site}_{example}",
        f"{pair.example}: probability of {answer} in {run_words(experiment.receiver)} "
        f"(“{pair.text(experiment.receiver.question)}”) with {put_words(experiment, site)} "
        f"(“{pair.text(experiment.donor.question)}”), at each layer and token position{over}.",
        partial(draw, cells, runs, experiment, example, site),
    )


def role_maps(group: MapGroup, width: float) -> ggplot:
    """A group of the story's maps, a facet each, with circles in the marked cells.

    width: inches.
    """
    titles = [part.title or group.title for part in group.maps]
    cells = pd.concat(
        [part.cells.assign(panel=title) for title, part in zip(titles, group.maps, strict=True)]
    )
    cells = cells.rename(columns={"value": "p", "place": "position"})
    cells["panel"] = ordered(cells["panel"], titles)
    rows = cells.drop_duplicates("position").sort_values("position")
    levels = colour_levels(cells["p"])
    return maps(
        cells,
        dict(zip(rows["position"], rows["label"], strict=True)),
        title="",
        subtitle=[],
        legend=group.measure,
        width=width,
        side=group.rows,
        levels=levels,
        palette=BOTH_SIGNS if levels[0] < 0 else PALETTE,
    ) + geom_point(
        data=cells[cells["marked"]], shape="o", fill="white", color=INK, size=1.3, stroke=0.3
    )


def colour_levels(values: pd.Series) -> list[float]:
    """Round numbers, evenly apart, that hold the values: from zero, or as far to both of its sides
    where one of them, rounded, is negative.
    """
    most = max(values.abs().max(), LEAST_COLOURED)
    least = -most if values.min() <= -LEAST_COLOURED else 0
    levels = MaxNLocator(MOST_COLOURS, steps=[1, 2, 2.5, 5, 10]).tick_values(least, most)
    return [round(float(level), 6) for level in levels]


def mean_levels(means: pd.DataFrame, width: float) -> ggplot:
    """Mean p(base answer) by noise level with 95 % intervals, of the story's `means`.

    width: inches.
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
        + labs(x="noise level σ", y="p(base answer)")
        + look()
        + bare_frame(width, MEANS_HEIGHT + more * NAME_HEIGHT)
        + theme(
            panel_grid_major=element_line(color=HAIRLINE, size=0.4),
            panel_grid_minor=element_blank(),
            legend_title=element_blank(),
            legend_position="bottom",
            legend_box_spacing=0.1 / width,
        )
    )
    return plot + geom_line(size=0.7, position=beside) if len(levels) > 1 else plot


def cycled(looks: Iterable[Any], count: int) -> list[Any]:
    """So many of the looks, from the first again after the last."""
    return list(islice(cycle(looks), count))
