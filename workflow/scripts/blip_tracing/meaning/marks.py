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
from blip_tracing.vocabulary.corruptions import PICTURE_PIXELS
from blip_tracing.vocabulary.experiment import Experiment
from blip_tracing.vocabulary.sites import (
    CROSS,
    DECODER,
    ENCODER,
    OWN,
    SELF,
    SITES,
    VISION,
    Site,
    window_of,
)
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
# What a corruption's place is of, before its point.
QUESTION, PICTURE = "question", "picture"


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


def known_cells(cells: pd.DataFrame, experiment: Experiment) -> pd.Series:
    """What is known of each cell before it is measured: "no_op", "ceiling" or "".

    cells: of all layers: site, layer, and what `cell_positions` says of the states put in.

    A no-op is a cell at which donor and receiver have the same state by construction: before the
    encoder's first block at equal tokens of clean runs, as far as its self-attention where all
    tokens are equal; before the decoder's first cross-attention, since [DEC] and the answer that
    is followed are the same in all runs; before the vision tower's first block at [CLS].

    A ceiling is a cell that makes the receiver's run the donor's: all that differs before the
    encoder's first block, or a whole stream where all that is read behind it is the donor's too:
    the picture by the encoder, up to its last cross-attention; the question's states by the
    decoder, up to its last; the question behind the vision tower. Of a window one such layer is
    enough, where a no-op needs all; one of all layers is a ceiling too where all that differs
    enters the tower at the site.
    """
    corrupted = {
        part.at
        for run in (experiment.receiver, experiment.donor)
        if run.corruption
        for part in run.corruption.parts
    }
    changed = {place.partition(".")[0] for place in corrupted}
    clean_question = QUESTION not in changed
    # What a corruption does to the picture is undone by none of the question's states.
    same_picture = cells["same_picture"] & (PICTURE not in changed)
    known = pd.Series(UNKNOWN, index=cells.index, dtype="str")
    for name in experiment.sites:
        site, rows = SITES[name], cells["site"] == name
        tower = cells["site"].isin([other for other in SITES if SITES[other].tower == site.tower])
        layers = int(cells.loc[tower, "layer"].max()) + 1
        windows = {n: window_of(n, experiment.window, layers) for n in range(layers)}
        reach = cells.loc[rows, "layer"]
        first, last = (reach.map({n: of[end] for n, of in windows.items()}) for end in (0, -1))
        at = cells[rows]
        no_op = (last == 0) & _same_at_first(site, at, clean_question)
        behind = (last == layers - 1) & (site.mixes == CROSS)
        everywhere = (first == 0) & (last == layers - 1) & site.entry
        if site.tower == ENCODER:
            ceiling = site.stream & (behind | same_picture[rows])
            ceiling |= everywhere & at["same_question"] & clean_question
        elif site.tower == DECODER:
            ceiling = (site.stream & behind) | everywhere
        else:
            # What is done to pixels lies before the tower.
            ceiling = site.stream & at["same_question"] & (corrupted <= {PICTURE_PIXELS})
        ceiling &= at["whole"]
        if site.tower == ENCODER and site.mixes == OWN:
            ceiling |= at["covers"] & (first == 0) & same_picture[rows] & clean_question
        known[rows] = np.select([no_op, ceiling], [NO_OP, CEILING], UNKNOWN)
    return known


def _same_at_first(site: Site, cells: pd.DataFrame, clean_question: bool) -> pd.Series:
    """Whether donor and receiver have the same states at a site of the first layer."""
    if site.tower == DECODER:
        return pd.Series(site.mixes < CROSS, index=cells.index)
    if site.tower == VISION:
        return cells["equal"] & (site.mixes == OWN)
    alike = {OWN: cells["equal"], SELF: cells["same_question"]}
    return alike.get(site.mixes, cells["equal"] & False) & clean_question
