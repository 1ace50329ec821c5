"""How an experiment's cells are looked at: which views of them there are at which of its sites."""

from __future__ import annotations

from blip_tracing.vocabulary.experiment import EACH, Experiment
from blip_tracing.vocabulary.sites import SITES, VISION

# The kinds of an experiment's figures of one example; the first part of a file's name.
ANSWERS, MEANS, LEVELS, DRAWS, MEAN = "answers", "means", "levels", "draws", "mean"
OVERLAY, COMPONENTS = "overlay", "components"


def is_drawn_over_picture(experiment: Experiment, site: str) -> bool:
    """Whether its cells are single regions of the picture, so that they are drawn over it."""
    place = SITES[site]
    return place.tower == VISION and not place.heads and experiment.positions == EACH


def side_by_side(experiment: Experiment) -> tuple[str, ...]:
    """The sites whose maps layer × position are read in one row, of all towers; () for no row.

    There is a row where the stream stands beside what a sublayer adds, or two sublayers beside one
    another: both sides of a block are one stream, which is no comparison.
    """
    sites = [
        site
        for site in experiment.sites
        if not SITES[site].heads and not is_drawn_over_picture(experiment, site)
    ]
    if len(sites) < 2 or all(SITES[site].boundary is not None for site in sites):
        return ()
    return tuple(sites)


def figure_kinds(experiment: Experiment, site: str) -> tuple[str, ...]:
    """The figures of one example at a site."""
    if is_drawn_over_picture(experiment, site):
        return (MEANS, OVERLAY) if experiment.corrupted else (OVERLAY,)
    return (MEANS, LEVELS, DRAWS, MEAN) if experiment.corrupted else (ANSWERS,)


def figure_names(experiment: Experiment, example: str) -> list[str]:
    """All figures of one example, without ending, in the order of telling."""
    row = [f"{COMPONENTS}_{example}"] if side_by_side(experiment) else []
    return row + [
        f"{kind}_{site}_{example}"
        for site in experiment.sites
        for kind in figure_kinds(experiment, site)
    ]
