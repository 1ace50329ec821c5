"""Figures of where question and picture meet."""

from collections.abc import Sequence

import pandas as pd
from plotnine import (
    aes,
    element_blank,
    facet_wrap,
    geom_line,
    geom_linerange,
    geom_point,
    geom_text,
    geom_tile,
    ggplot,
    labs,
    position_dodge,
    scale_color_manual,
    scale_fill_manual,
    scale_linetype_manual,
    scale_shape_manual,
    scale_x_continuous,
    scale_y_reverse,
    theme,
)

from blip_tracing.drawing.analyses.role_maps import placed, role_maps
from blip_tracing.drawing.figures import (
    FOOT_HEIGHT,
    TICK_SIZE,
    TILE_HEIGHT,
    WIDEST_TILE,
    look,
    ordered,
    ruled_above_legend,
    text_width,
    titled_frame,
)
from blip_tracing.drawing.palette import BLUE, HAIRLINE, INK, ORANGE
from blip_tracing.meaning.analyses.fusion import (
    BOTH,
    FUSED,
    LOGITS,
    NEITHER,
    NOT_SHOWN,
    PICTURE,
    PROBABILITY,
    QUESTION,
    RESTORED,
    RUNS,
    run_statement,
)

CLEAN, CORRUPTED = "clean", "corrupted"
# What is corrupted where question and picture are these.
RUN_OF = {
    (CLEAN, CLEAN): NEITHER,
    (CORRUPTED, CLEAN): QUESTION,
    (CLEAN, CORRUPTED): PICTURE,
    (CORRUPTED, CORRUPTED): BOTH,
}
LETTERS = {QUESTION: "Q", PICTURE: "P", FUSED: "F", NOT_SHOWN: ""}
# Pale enough for the letters, which say the same.
COLORS = {QUESTION: "#a6cbe3", PICTURE: "#f0c3a0", FUSED: "#b9a9d6", NOT_SHOWN: "#ffffff"}
RUNS_WIDTH, RUNS_HEIGHT = 5.6, 2.4
# As wide as the title is on few lines.
NARROWEST = 4.6


def runs_figure(verdicts: pd.DataFrame) -> ggplot:
    """The means of the four runs on both scales with their intervals: parallel, they add up.

    verdicts: the table `fusion_verdicts`.
    """
    told = verdicts[verdicts["about"] == RUNS].set_index("statement")
    rows = [
        {"scale": scale, "question": f"question {question}", "picture": picture,
         **told.loc[run_statement(scale, run), ["value", "low", "high"]]}
        for scale in (PROBABILITY, LOGITS)
        for (question, picture), run in RUN_OF.items()
    ]  # fmt: skip
    data = pd.DataFrame(rows).astype(dict.fromkeys(["value", "low", "high"], "float64"))
    questions = [f"question {state}" for state in (CLEAN, CORRUPTED)]
    data = data.assign(
        scale=ordered(data["scale"], [PROBABILITY, LOGITS]),
        picture=ordered(data["picture"], [CLEAN, CORRUPTED]),
        question=ordered(data["question"], questions),
    )
    beside = position_dodge(width=0.12)
    spread = data.dropna(subset=["low", "high"])
    bars = "; bars: 95 % intervals over pictures" if len(spread) else ""
    return (
        ggplot(data, aes("picture", "value", color="question", group="question"))
        + geom_line(aes(linetype="question"), size=0.7, position=beside)
        + (
            [
                geom_linerange(
                    aes(ymin="low", ymax="high"), data=spread, alpha=0.45, size=1.6,
                    position=beside, show_legend=False,
                )
            ]
            if len(spread)
            else []
        )
        + geom_point(aes(shape="question"), size=1.6, position=beside)
        + facet_wrap("scale", scales="free_y", ncol=2)
        + scale_color_manual(values=[BLUE, ORANGE], limits=questions)
        + scale_linetype_manual(values=["solid", "dashed"], limits=questions)
        + scale_shape_manual(values=["o", "s"], limits=questions)
        + labs(x="picture", y="mean over examples")
        + look()
        + titled_frame(
            RUNS_WIDTH,
            RUNS_HEIGHT,
            title="What the runs give the answer, nothing restored",
            subtitle=[f"where both lines are parallel, question and picture add up{bars}"],
        )
        + ruled_above_legend(RUNS_WIDTH)
    )  # fmt: skip


def effects_figure(cells: pd.DataFrame, roles: Sequence[str]) -> ggplot:
    """What restoring a place does under each corruption, on one scale.

    cells: the table `fusion` at a site. Rings: places of a kind that restores there.
    """
    panels = {
        "question corrupted": (QUESTION, [QUESTION, FUSED]),
        "picture corrupted": (PICTURE, [PICTURE, FUSED]),
        "both corrupted": (BOTH, [FUSED]),
    }
    return role_maps(
        {
            strip: cells.assign(value=cells[RESTORED[end]], marked=cells["kind"].isin(kinds))
            for strip, (end, kinds) in panels.items()
        },
        roles,
        title="What restoring a place brings back",
        subtitle=["mean change in probability; rings: shown to carry what restores there"],
        legend="change",
    )


def kinds_figure(cells: pd.DataFrame, roles: Sequence[str]) -> ggplot:
    """What each place is shown to carry, in letters. cells: the table `fusion` at a site."""
    cells, labels = placed(cells.assign(letter=cells["kind"].map(LETTERS)), roles)
    cells["kind"] = ordered(cells["kind"], list(COLORS))
    layers = sorted(cells["layer"].unique())
    beside = 0.6 + max(text_width(label, TICK_SIZE) for label in labels.values())
    width = max(NARROWEST, beside + WIDEST_TILE * len(layers))
    return (
        ggplot(cells, aes("layer", "position", fill="kind"))
        + geom_tile(color=HAIRLINE, size=0.3)
        + geom_text(aes(label="letter"), color=INK, size=TICK_SIZE, show_legend=False)
        + scale_x_continuous(breaks=layers, minor_breaks=[], expand=(0, 0))
        + scale_y_reverse(
            breaks=list(labels), labels=list(labels.values()), minor_breaks=[], expand=(0, 0)
        )
        + scale_fill_manual(values=list(COLORS.values()), limits=list(COLORS), drop=False)
        + labs(x="layer", y="")
        + look()
        + titled_frame(
            width,
            TILE_HEIGHT * len(labels) + FOOT_HEIGHT,
            title="What a place carries of what the answer needs",
            subtitle=["Q: the question’s part; P: the picture’s; F: both, fused"],
        )
        + ruled_above_legend(width)
        + theme(panel_grid=element_blank())
    )
