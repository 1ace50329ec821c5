"""What a mark means: a cell that lies above the reference and beyond what any state does.

An unrelated example's state is no neutral treatment: it can destroy what is there, so that a cell
that changes nothing lies far above it. So two hypotheses are tested, and a mark is where both are
refused (an intersection–union test: Berger 1982, Multiparameter hypothesis testing and acceptance
sampling): that the cell does not change the answer by more than `least`, and that it does so by no
more than `least` beyond the unrelated state. Both are family-wise and upward, so that together
they err in at most 5 of 100 families, whichever cells fail which.

Changes are in the experiment's direction: above zero towards what the intervention is to bring.
Shapes: examples N, cells M, draws S; NaN where an example lacks a cell.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from blip_tracing.meaning.statistics import (
    FEWEST_PICTURES,
    SIGNIFICANT,
    by_picture,
    max_t_test,
)
from blip_tracing.vocabulary.sites import SITES
from blip_tracing.vocabulary.tables import (
    CEILING,
    FEW_NULLS,
    FEW_PICTURES,
    NO_NULL,
    NO_OP,
    NOTHING_HIDDEN,
)

# With fewer draws no sign flip of an example's draws is rare enough: 2⁻⁵ is the first below 0.05.
FEWEST_DRAWS = 5
UNKNOWN = ""


class PValues(NamedTuple):
    """The family-wise p of each cell, (M,): above the reference, beyond the null, and both."""

    floor: np.ndarray
    null: np.ndarray

    @property
    def both(self) -> np.ndarray:
        """The larger of the two: that of the intersection–union test."""
        return np.maximum(self.floor, self.null)


def cell_tests(
    change: np.ndarray,
    contrast: np.ndarray,
    pictures: Sequence[str] | None,
    least: float,
    resamples: int,
    seed: int,
) -> PValues:
    """Test a family of cells, each for a change above `least` and for one beyond the null's.

    change, contrast: (N, M), each example's change from the reference, and its change less its
    null's. Families that are given side by side are one, their sign flips shared. A cell of fewer
    than six pictures is not tested, as `of_enough` says.
    """
    return PValues(
        *(
            max_t_test(of_enough(values, pictures), resamples, seed, pictures, least).p
            for values in (change, contrast)
        )
    )


def of_enough(values: np.ndarray, pictures: Sequence[str] | None) -> np.ndarray:
    """The values (N, M), NaN in the cells that fewer than six pictures have.

    Those can get no mark, since two of their few sign flips are always as far out as the data. In a
    family they would hide the others: where a change is alike in all of them, as that of a place
    which carries nothing is, its t under these flips is beyond any that a varied change has.
    """
    few = by_picture(values, pictures).pictures < FEWEST_PICTURES
    return np.where(few, np.nan, values)


def marks_of(p: PValues, change: np.ndarray, least: float) -> np.ndarray:
    """Which cells are marked (M,): both hypotheses refused, and at least so large in the mean."""
    with np.errstate(invalid="ignore"):
        there = (~np.isnan(change)).sum(axis=0)
        mean = np.nansum(change, axis=0) / np.where(there > 0, there, np.nan)
        return (p.both < SIGNIFICANT) & (mean >= least)


def why_untested(pictures: int, with_null: int, hides: bool) -> str:
    """Why a family is not tested; empty where it is.

    pictures, with_null: how many there are of included examples, and of those with a null; hides:
    whether the intervention has something to bring back, as it has wherever nothing is corrupted.
    """
    if pictures < FEWEST_PICTURES:
        return FEW_PICTURES
    if not with_null:
        return NO_NULL
    if with_null < FEWEST_PICTURES:
        return FEW_NULLS
    return "" if hides else NOTHING_HIDDEN


def map_test(change: np.ndarray, resamples: int, seed: int, least: float) -> np.ndarray:
    """The p of each cell of one example's map (M,), from its draws' changes (S, M).

    Upward, the draws as units, the map as the family; NaN below five draws.
    """
    if len(change) < FEWEST_DRAWS:
        return np.full(change.shape[1], np.nan)
    return max_t_test(change, resamples, seed, least=least, sides=1).p


def known_cells(cells: pd.DataFrame, corrupted: bool) -> pd.Series:
    """What is known of each cell before it is measured: "no_op", "ceiling" or "".

    cells: site, example, layer, token and source_token. Before the first block a clean state
    depends on token and position alone: at equal tokens the donor's is the receiver's own, and at
    the only differing one putting it in is asking the other question.
    """
    known = pd.Series(UNKNOWN, index=cells.index, dtype="str")
    if corrupted or "source_token" not in cells:
        return known
    places = {
        key: SITES[key[0]].place(int(key[1]))
        for key in set(zip(cells["site"], cells["layer"], strict=True))
    }
    first = pd.Series(
        [
            places[key].inner is None and places[key].index == 0
            for key in zip(cells["site"], cells["layer"], strict=True)
        ],
        index=cells.index,
    )
    differs = cells["token"] != cells["source_token"]
    differing = (differs & first).groupby([cells["example"], cells["site"]]).transform("sum")
    known[first & ~differs] = NO_OP
    known[first & differs & (differing == 1)] = CEILING
    return known
