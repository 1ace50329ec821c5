"""Maps of layers and roles, or layers and heads, as the analyses' tables have them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from plotnine import ggplot

from blip_tracing.drawing.figures import TENTHS, maps, ordered
from blip_tracing.drawing.journal_figures import colour_levels
from blip_tracing.drawing.palette import GAINS, changes
from blip_tracing.telling.words import printable

# The end of the scale is no less: what is seen of smaller numbers is rounding.
LEAST_LIMIT = 0.1


def role_maps(
    panels: Mapping[str, pd.DataFrame],
    roles: Sequence[str],
    title: str,
    subtitle: Sequence[str],
    legend: str,
    shares: bool = False,
) -> ggplot:
    """Changes by layer and role, a facet a panel, all on one scale; marked cells have a ring.

    panels: strip → layer, head (missing or −1 at a site without), token_role, value, marked;
    roles: in the order of rows, those that are there being drawn; shares: whether values are from
    0 to 1, and not changes about none.
    """
    cells = pd.concat([rows.assign(panel=strip) for strip, rows in panels.items()])
    cells, labels = placed(cells.assign(p=cells["value"]), roles)
    limit = max(LEAST_LIMIT, float(np.ceil(cells["p"].abs().max() * 10) / 10))
    return maps(
        cells.assign(panel=ordered(cells["panel"], list(panels))),
        labels,
        title=title,
        subtitle=list(subtitle),
        legend=legend,
        side="role",
        levels=TENTHS if shares else colour_levels(limit),
        colors=GAINS if shares else changes(),
        mark="o",
    )


def placed(cells: pd.DataFrame, roles: Sequence[str]) -> tuple[pd.DataFrame, dict[int, str]]:
    """The cells with the row that each is drawn in, `position`, and the rows' labels.

    Rows are in the order of roles, a role's heads below each other.
    """
    head = cells["head"].fillna(-1).astype(int) if "head" in cells else -1
    cells = cells.assign(head=head)
    named = [*dict.fromkeys([*roles, *cells["token_role"]])]
    keys = cells[["token_role", "head"]].drop_duplicates()
    keys = keys.sort_values("head").sort_values(
        "token_role", key=lambda column: column.map(named.index), kind="stable"
    )
    places = {key: number for number, key in enumerate(keys.itertuples(index=False, name=None))}
    labels = {
        place: printable(role if number < 0 else f"{role}, head {number}")
        for (role, number), place in places.items()
    }
    own = cells[["token_role", "head"]].itertuples(index=False, name=None)
    return cells.assign(position=[places[key] for key in own]), labels
