"""Figures of heads that stand out at one token."""

import numpy as np
import pandas as pd
from plotnine import ggplot

from blip_tracing.drawing.figures import TENTHS, maps, ordered
from blip_tracing.vocabulary.analyses import HEAD_SCORES


def scores_figure(heads: pd.DataFrame, score: str) -> ggplot:
    """The mean absolute score of every head; rings: kept.

    heads: the table `selected_heads` of an experiment at a site; score: of HEAD_SCORES.
    """
    (threshold,) = heads["threshold"].unique()
    return _head_map(
        heads.assign(p=heads["score"], marked=heads["kept"]),
        float(heads["score"].max()),
        title="What each head scores",
        subtitle=[
            f"mean over examples of |{HEAD_SCORES[score]}|",
            f"rings: kept, from {threshold:.3g} on",
        ],
        legend="mean |score|",
    )


def shares_figure(heads: pd.DataFrame) -> ggplot:
    """How often every head is kept when pictures are drawn anew; rings: shown to stand out."""
    return _head_map(
        heads.assign(p=heads["kept_share"], marked=heads["shown"]),
        1.0,
        title="How often each head is kept",
        subtitle=["share of resamples of the pictures", "rings: kept in 95 % of them, and acting"],
        legend="share",
    )


def _head_map(
    cells: pd.DataFrame, highest: float, title: str, subtitle: list[str], legend: str
) -> ggplot:
    """Layer × head, from 0 to a highest value."""
    return maps(
        cells.assign(position=cells["head"], panel=ordered(pd.Series("", cells.index), [""])),
        {head: f"head {head}" for head in sorted(cells["head"].unique())},
        title=title,
        subtitle=subtitle,
        legend=legend,
        side="head",
        levels=[float(f"{_round_up(highest) * share:.3g}") for share in TENTHS],
        mark="o",
    )


def _round_up(number: float) -> float:
    """A number of two digits that is no less; 1 for 0."""
    if not number:
        return 1.0
    unit = 10.0 ** (np.floor(np.log10(number)) - 1)
    return float(np.ceil(number / unit) * unit)
