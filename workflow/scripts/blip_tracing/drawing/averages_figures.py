"""Figures of a run beside published averages over examples, a map a site."""

from __future__ import annotations

import pandas as pd
from plotnine import aes, geom_point, ggplot

from blip_tracing.drawing.figures import TENTHS, maps, ordered
from blip_tracing.drawing.palette import INK, changes
from blip_tracing.drawing.replication_figures import PUBLISHED, RUN, difference_levels
from blip_tracing.meaning.replication.published_averages import MEAN


def both_maps(numbers: pd.DataFrame, site: str) -> ggplot:
    """A site's averages as published and of the run, by layer and position.

    numbers: of `compare_averages`.
    """
    rows = _map_of(numbers, site)
    panels = {PUBLISHED: "value", RUN: "reproduced"}
    cells = pd.concat([rows.assign(panel=name, p=rows[column]) for name, column in panels.items()])
    return maps(
        cells.assign(panel=ordered(cells["panel"], list(panels)), marked=False),
        _positions(rows),
        title="Averages published and of this run",
        subtitle=[
            f"{site}: p(answer) with the clean state restored",
            f"mean over {rows['examples'].iloc[0]:,} examples there",
            *_missing(rows),
        ],
        legend="p(answer)",
        side="position",
        levels=TENTHS,
    )


def difference_map(numbers: pd.DataFrame, site: str) -> ggplot:
    """The run's averages minus the published ones; crosses: outside the run's interval."""
    rows = _map_of(numbers, site)
    difference = rows["reproduced"] - rows["value"]
    cells = rows.assign(p=difference, panel=ordered(pd.Series("", rows.index), [""]), marked=False)
    outside = cells[(cells["value"] < cells["low"]) | (cells["value"] > cells["high"])]
    plot = maps(
        cells,
        _positions(rows),
        title="This run minus what was published",
        subtitle=[
            site,
            f"{len(outside)} of {len(cells)} averages outside their 95 % interval"
            + (", marked ×" if len(outside) else ""),
            *_missing(rows),
        ],
        legend="difference in p(answer)",
        side="position",
        levels=difference_levels(difference),
        colors=changes(),
    )
    if outside.empty:
        return plot
    return plot + geom_point(
        aes("layer", "position"), data=outside, shape="x", color=INK, size=1.2, show_legend=False
    )


def _map_of(numbers: pd.DataFrame, site: str) -> pd.DataFrame:
    rows = numbers[(numbers["quantity"] == MEAN) & (numbers["site"] == site)]
    return rows.astype({"layer": int, "position": int})


def _positions(rows: pd.DataFrame) -> dict[int, str]:
    return {position: f"{position}" for position in sorted(rows["position"].unique())}


def _missing(rows: pd.DataFrame) -> list[str]:
    count = int(rows["reproduced"].isna().sum())
    return [f"{count} of them, grey, are not in the run"] if count else []
