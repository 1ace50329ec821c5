"""Figures of what was claimed and what became of it."""

from collections.abc import Hashable
from typing import Any

import pandas as pd
from plotnine import (
    aes,
    element_text,
    geom_point,
    geom_segment,
    geom_vline,
    ggplot,
    labs,
    scale_color_manual,
    scale_shape_manual,
    scale_y_continuous,
    theme,
)

from blip_tracing.drawing.figures import (
    PAGE_WIDTH,
    TICK_SIZE,
    look,
    ruled_above_legend,
    titled_frame,
    wrap_text,
)
from blip_tracing.drawing.palette import BLUE, INK, ORANGE
from blip_tracing.meaning.evidence import where_words
from blip_tracing.telling.words import printable

EXPLORED, FOUND = "exploring half", "confirming half"
# Of a claim's line: how far the halves lie apart, its height and its words' width in inches.
APART, CLAIM_HEIGHT, WORDS_WIDTH = 0.16, 0.42, 2.5


def claims_figure(claims: pd.DataFrame) -> ggplot:
    """Each claim's effect in both halves, with 95 % intervals, and what was predicted.

    claims: the table `confirm`, of one claim at least.
    """
    least = claims["least_effect"].iloc[0]
    places = -claims["claim"]
    parts = [
        pd.DataFrame(
            {
                "place": places + shift,
                "half": half,
                **{end: claims[f"{name}_change{suffix}"]
                   for end, suffix in (("mean", ""), ("low", "_low"), ("high", "_high"))},
            }
        )
        for half, name, shift in ((EXPLORED, "explored", APART), (FOUND, "found", -APART))
    ]  # fmt: skip
    effects = pd.concat(parts).dropna(subset="mean")
    predicted = pd.DataFrame({"place": places - APART, "low": claims["predicted_low"]})
    return (
        ggplot(effects, aes("mean", "place", color="half"))
        + geom_vline(xintercept=0, color=INK, size=0.4)
        + geom_vline(xintercept=least, color=INK, size=0.4, linetype="dotted")
        + geom_segment(
            aes(x="low", xend="high", yend="place"),
            data=effects.dropna(subset="low"),
            size=1.4,
            alpha=0.45,
        )
        + geom_point(aes("low", "place"), data=predicted, shape="|", color=INK, size=3)
        + geom_point(aes(shape="half"), size=2)
        + scale_y_continuous(
            breaks=list(places),
            labels=[_words_of(claim) for claim in claims.to_dict("records")],
            limits=(places.min() - 0.5, places.max() + 0.5),
            minor_breaks=[],
        )
        + scale_color_manual(values=[ORANGE, BLUE], limits=[EXPLORED, FOUND])
        + scale_shape_manual(values=["D", "o"], limits=[EXPLORED, FOUND])
        + labs(x="mean change in probability, in the experiment’s direction", y="")
        + look()
        + titled_frame(
            PAGE_WIDTH,
            0.9 + CLAIM_HEIGHT * len(claims),
            title="What was claimed, and what the other half says",
            subtitle=[
                "bars: 95 % over pictures; dotted: the least effect; |: what the confirming "
                "half’s mean exceeds in 95 of 100 studies, had the claim not been chosen"
            ],
        )
        + ruled_above_legend(PAGE_WIDTH)
        + theme(axis_text_y=element_text(multialignment="right"))
    )


def _words_of(claim: dict[Hashable, Any]) -> str:
    """A claim's place, and below it its verdict."""
    lines = printable(f"{claim['claim']}: {where_words(claim)}"), claim["verdict"]
    return "\n".join(wrap_text(line, TICK_SIZE, WORDS_WIDTH) for line in lines)
