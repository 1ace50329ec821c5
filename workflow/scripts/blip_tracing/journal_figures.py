"""The supplement's figures: the reports' look at the widths of a journal's columns.

They have no titles: their captions say what they show. Text keeps its printed size at both widths,
and a greyscale print is legible, since a map's lightness falls as its values rise.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

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

from blip_tracing.effects import PATCHING, TRACING
from blip_tracing.figures import (
    BLUE,
    CLEAN_RUN,
    GREEN,
    HAIRLINE,
    INK,
    ORANGE,
    bare_frame,
    log_axis,
    log_places,
    look,
    maps,
    ordered,
    pair_of,
    patching_map,
    tracing_levels,
)
from blip_tracing.story import MapGroup, Story

# Inches: 89 mm and 183 mm.
WIDTHS = {"one_column": 3.5, "two_columns": 7.2}
# Narrower than this, the names of the runs stand below one another.
WIDE = 5.0
MEANS_HEIGHT = 2.9
AXIS_MARGIN = 0.8
# So far the runs stand apart at a noise level, in powers of ten.
APART = 0.05
MOST_COLOURS = 10


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
    sites: Mapping[str, Sequence[str]],
) -> Iterator[JournalFigure]:
    """The main figures: of all examples together first, then of these examples one by one.

    tables: answers and, of experiments that have sites, patching and tracing; sites: by experiment.
    """
    for group in story.averages:
        yield JournalFigure(
            f"roles_{group.title.replace(', ', '_').lower()}",
            f"{group.caption} {group.marks}".rstrip(),
            partial(role_maps, group),
        )
    if not story.means.empty:
        yield JournalFigure("noise_levels", story.means_caption, partial(mean_levels, story.means))
    for example in examples:
        yield from _of_example(example, tables, sites)


def _of_example(
    example: str, tables: Mapping[str, pd.DataFrame], sites: Mapping[str, Sequence[str]]
) -> Iterator[JournalFigure]:
    answers = tables["answers"]
    pair = pair_of(answers, example)
    for site in sites[PATCHING]:
        yield JournalFigure(
            f"patching_{site}_{example}",
            f"{pair.example}: the run of “{pair.base_question}” ({pair.base_answer}) with one "
            f"{site} taken from the run of “{pair.source_question}” ({pair.source_answer}), at "
            "each layer and token position.",
            partial(patching_map, tables["patching"], answers, example, site),
        )
    for site in sites[TRACING]:
        yield JournalFigure(
            f"tracing_{site}_{example}",
            f"{pair.example}: probability of {pair.base_answer} as the answer to "
            f"“{pair.base_question}” with noise of level σ at the input and one clean {site} "
            "restored, at each layer and token position; mean over the draws of the noise.",
            partial(tracing_levels, tables["tracing"], answers, example, site),
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
    return maps(
        cells,
        dict(zip(rows["position"], rows["label"], strict=True)),
        title="",
        subtitle=[],
        legend=group.measure,
        width=width,
        side=group.rows,
        levels=colour_levels(group),
    ) + geom_point(
        data=cells[cells["marked"]], shape="o", fill="white", color=INK, size=1.3, stroke=0.3
    )


def colour_levels(group: MapGroup) -> list[float]:
    """Round values, evenly apart, from the lowest of the group's or zero to the highest."""
    values = pd.concat([part.cells["value"] for part in group.maps])
    levels = MaxNLocator(MOST_COLOURS, steps=[1, 2, 2.5, 5, 10]).tick_values(
        min(0, values.min()), max(0, values.max())
    )
    return [round(float(level), 6) for level in levels]


def mean_levels(means: pd.DataFrame, width: float) -> ggplot:
    """Mean p(base answer) by noise level with 95 % intervals, of the story's `means`.

    width: inches.
    """
    runs = list(means["run"].unique())
    restored = [BLUE, GREEN][: len(runs) - 2]
    means = means.assign(run=ordered(means["run"], runs))
    clean, noisy = means[means["run"] == CLEAN_RUN], means[means["run"] != CLEAN_RUN]
    levels = sorted(noisy["noise_level"].unique())
    _, places = log_places(levels)
    beside = position_dodge(width=min([APART, *np.diff(places) / 2]))
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
        + scale_color_manual(values=[INK, *restored, ORANGE], limits=runs)
        + scale_linetype_manual(
            values=["dotted", *["solid", "dashdot"][: len(restored)], "dashed"], limits=runs
        )
        + scale_shape_manual(values=["None", *["o", "^"][: len(restored)], "s"], limits=runs)
        + guides(color=guide_legend(ncol=len(runs) if width > WIDE else 1))
        + labs(x="noise level σ", y="p(base answer)")
        + look()
        + bare_frame(width, MEANS_HEIGHT)
        + theme(
            panel_grid_major=element_line(color=HAIRLINE, size=0.4),
            panel_grid_minor=element_blank(),
            legend_title=element_blank(),
            legend_position="bottom",
            legend_box_spacing=0.1 / width,
        )
    )
    return plot + geom_line(size=0.7, position=beside) if len(levels) > 1 else plot
