"""What other experiments of the same runs say of a change, to stand beside it.

Of a window, the sum of the changes of its layers put in one by one: what they do together can be
more, where each alone is undone by the others, or less, where each does what all do. Of a mean over
the positions of a role, the change where all of them are put in together.
"""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from blip_tracing.vocabulary.experiment import BY_ROLE, EACH, TOGETHER, Experiment
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.sites import SITES, VISION, window_of

SUM_OF_SINGLES, JOINT = "sum_of_singles", "joint"
CHANGE = "probability_change"
# What rows of two experiments are joined by, within a site and a level.
JOINED = ["example", "layer", "head", "token_role"]


def singles_of(
    asked: Experiment, site: str, experiments: Iterable[Experiment]
) -> Experiment | None:
    """The first experiment that puts in single layers where `asked` puts in windows, if any."""
    if asked.window == 1:
        return None
    return _like(asked, site, experiments, asked.positions)


def joint_of(
    asked: Experiment, site: str, experiments: Iterable[Experiment], positions: str
) -> Experiment | None:
    """The first experiment that puts in positions together where `asked` does one by one, if any.

    positions: those of a role, or all.
    """
    if asked.positions != EACH:
        return None
    return _like(asked, site, experiments, positions, asked.window)


def _like(
    asked: Experiment, site: str, experiments: Iterable[Experiment], positions: str, window: int = 1
) -> Experiment | None:
    """The first of the same runs at a site, with these positions and window, and all its heads."""
    for other in experiments:
        heads = not other.heads or (asked.heads and set(asked.heads) <= set(other.heads))
        if (
            (other.receiver, other.donor) == (asked.receiver, asked.donor)
            and site in other.sites
            and (other.positions, other.window) == (positions, window)
            and (other.regions == asked.regions or SITES[site].tower != VISION)
            and (heads or not SITES[site].heads)
        ):
            return other
    return None


def add_beside(
    rows: pd.DataFrame,
    asked: Experiment,
    site: str,
    experiments: Iterable[Experiment],
    read: Callable[[Experiment], pd.DataFrame],
) -> pd.DataFrame:
    """A family's `role_means` with the columns that other experiments give it, where there are any.

    read: the other's `role_means` at the same site and level.
    """
    experiments = list(experiments)
    if single := singles_of(asked, site, experiments):
        rows = _joined(rows, SUM_OF_SINGLES, sum_over_windows(read(single), asked.window))
    parts = []
    for positions in (BY_ROLE, TOGETHER):
        if other := joint_of(asked, site, experiments, positions):
            found = read(other)
            # Of roles put in together "all" is a mean of heads over roles, which is nothing joint.
            parts.append(found[(found["token_role"] == ALL) == (positions == TOGETHER)])
    if parts:
        changes = pd.concat(parts).set_index(JOINED)[CHANGE]
        rows = _joined(rows, JOINT, changes)
    return rows


def sum_over_windows(singles: pd.DataFrame, window: int) -> pd.Series:
    """The sum of single layers' changes over the window about each layer, by JOINED.

    singles: `role_means` of all layers of a tower; missing where a layer of the window is.
    """
    layers = int(singles["layer"].max()) + 1
    windows = {layer: window_of(layer, window, layers) for layer in range(layers)}
    pairs = pd.DataFrame(
        [(layer, single) for layer, of in windows.items() for single in of],
        columns=["layer", "single"],
    )
    changes = singles[[*JOINED, CHANGE]].rename(columns={"layer": "single"})
    sums = changes.merge(pairs, on="single").groupby(JOINED)[CHANGE].agg(["sum", "count"])
    needed = sums.index.get_level_values("layer").map({n: len(of) for n, of in windows.items()})
    return sums["sum"].where(sums["count"].to_numpy() == needed.to_numpy())


def _joined(rows: pd.DataFrame, column: str, values: pd.Series) -> pd.DataFrame:
    found = values.reindex(pd.MultiIndex.from_frame(rows[JOINED]))
    return rows.assign(**{column: found.to_numpy(dtype="float64", na_value=np.nan)})
