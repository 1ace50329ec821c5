"""Figures of what is put in together against the sum of its parts."""

from collections.abc import Sequence

import pandas as pd
from plotnine import ggplot

from blip_tracing.drawing.analyses.role_maps import role_maps
from blip_tracing.meaning.analyses.synergy import ONE_PART, SUB, SUPER
from blip_tracing.vocabulary.analyses import QUANTITY_WORDS


def synergy_figure(cells: pd.DataFrame, roles: Sequence[str]) -> ggplot:
    """What is done together, the sum of the parts, and the difference, on one scale.

    cells: the table `synergy` of a pair of experiments at a site, of one quantity. Rings: where
    the difference is shown to be more than what counts, either way. What has one part is left out.
    """
    cells = cells[cells["known"] != ONE_PART]
    apart = cells["kind"].isin([SUPER, SUB])
    panels = {
        "together": cells.assign(value=cells["together"], marked=False),
        "sum of the parts": cells.assign(value=cells["sum"], marked=False),
        "the first less the second": cells.assign(value=cells["difference"], marked=apart),
    }
    words = QUANTITY_WORDS[cells["quantity"].iloc[0]]
    told = [f"mean change in {words}"]
    if apart.any():
        told += ["rings: more than the sum, or less"]
    return role_maps(
        panels,
        roles,
        title=f"Together against the sum of singles, by {words}",
        subtitle=["; ".join(told)],
        legend="change",
    )
