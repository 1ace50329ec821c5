"""Where a run's time goes: the jobs' times and memory, rule by rule, as a table and a figure."""

from __future__ import annotations

import pandas as pd
from plotnine import (
    aes,
    element_blank,
    element_text,
    facet_wrap,
    geom_blank,
    geom_segment,
    geom_text,
    ggplot,
    labs,
    scale_color_manual,
    scale_x_continuous,
    scale_y_discrete,
    theme,
)

from blip_tracing.drawing.figures import (
    BLUE,
    ORANGE,
    PAGE_WIDTH,
    TEXT_SIZE,
    TICK_SIZE,
    bare_frame,
    look,
    ordered,
)

TIME, MEMORY = "time, all jobs together", "memory, the job that took most"
# Inches a rule, points a bar, and what the words behind the longest bar may add to its length.
LINE_HEIGHT, BAR_SIZE, WORDS = 0.22, 3.5, 0.3
CPU, GPU = "cpu", "gpu"
COLORS = {CPU: BLUE, GPU: ORANGE}
# A number of three digits is written in the next larger unit.
LARGEST = 100


def by_rule(runtimes: pd.DataFrame) -> pd.DataFrame:
    """What the jobs of each rule took, the longest rule first.

    runtimes: the table, a row a job. Index rule; columns device, jobs, measured (those of
    which it is known), seconds and cpu_seconds (sums), share (of all rules' seconds), longest
    (seconds) and memory_mib (the highest), missing where nothing was measured.
    """
    rules = runtimes.groupby("rule").agg(
        device=("device", lambda names: ", ".join(sorted(set(names)))),
        jobs=("job", "size"),
        measured=("seconds", "count"),
        seconds=("seconds", lambda values: values.sum(min_count=1)),
        longest=("seconds", "max"),
        cpu_seconds=("cpu_seconds", lambda values: values.sum(min_count=1)),
        memory_mib=("memory_mib", "max"),
    )
    rules["share"] = rules["seconds"] / rules["seconds"].sum()
    return rules.sort_values("seconds", ascending=False)


def duration(seconds: float) -> str:
    """`7.2 s`, `12.5 min`, `3.4 h`; `–` where it was not measured."""
    if pd.isna(seconds):
        return "–"
    for unit, size in (("s", 1), ("min", 60)):
        if seconds / size < LARGEST:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 3600:.1f} h"


def memory(mib: float) -> str:
    """`512 MiB`, `3.2 GiB`; `–` where it was not measured."""
    if pd.isna(mib):
        return "–"
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"


def runtime_bars(rules: pd.DataFrame) -> ggplot:
    """The time of each rule's jobs and the peak memory of one of them, coloured by
    what the rule's jobs ran on.

    rules: as `by_rule` returns them.
    """
    named = rules.reset_index()
    # A cluster's GPUs may be of many kinds; the table names them.
    named["unit"] = named["device"].map(lambda device: CPU if device == CPU else GPU)
    panels = {TIME: ("seconds", duration), MEMORY: ("memory_mib", memory)}
    bars = pd.concat(
        named.assign(panel=panel, value=named[column].fillna(0), words=named[column].map(write))
        for panel, (column, write) in panels.items()
    )
    bars["panel"] = ordered(bars["panel"], list(panels))
    return (
        ggplot(bars, aes("value", "rule"))
        + geom_segment(aes(x=0, xend="value", yend="rule", color="unit"), size=BAR_SIZE)
        + geom_text(aes(label="' ' + words"), ha="left", size=TICK_SIZE)
        + geom_blank(aes(x="value * (1 + WORDS)"))
        + facet_wrap("panel", scales="free_x")
        + scale_color_manual(values=COLORS, limits=sorted(named["unit"].unique()))
        + scale_x_continuous(expand=(0, 0))
        + scale_y_discrete(limits=list(named["rule"])[::-1])
        + labs(color="on")
        + look()
        + bare_frame(PAGE_WIDTH, len(named) * LINE_HEIGHT + 0.8)
        + theme(
            panel_grid=element_blank(),
            panel_border=element_blank(),
            axis_title=element_blank(),
            axis_text_x=element_blank(),
            axis_text_y=element_text(size=TEXT_SIZE),
            legend_position="bottom",
            legend_title_position="left",
        )
    )
