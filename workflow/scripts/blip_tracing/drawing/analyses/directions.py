"""Figures of what suffices against what is needed."""

from collections.abc import Sequence

import pandas as pd
from plotnine import ggplot

from blip_tracing.drawing.analyses.role_maps import role_maps
from blip_tracing.meaning.analyses.directions import BOTH, NECESSARY, SUFFICIENT


def effects_figure(cells: pd.DataFrame, roles: Sequence[str]) -> ggplot:
    """Both effects of every place, side by side, and their difference.

    cells: the table `directions` of a pair at a site. Rings: sufficient, necessary; in the
    difference, where both are.
    """
    panels = {
        "restored alone": cells.assign(
            value=cells["restored"], marked=cells["kind"].isin([BOTH, SUFFICIENT])
        ),
        "corrupted alone": cells.assign(
            value=cells["taken"], marked=cells["kind"].isin([BOTH, NECESSARY])
        ),
        "the first less the second": cells.assign(
            value=cells["difference"], marked=cells["kind"] == BOTH
        ),
    }
    return role_maps(
        panels,
        roles,
        title="What a place brings back, and what it takes away",
        subtitle=["mean change in probability; rings: sufficient, necessary, both"],
        legend="change",
    )
