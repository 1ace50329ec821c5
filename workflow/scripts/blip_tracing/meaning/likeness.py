"""How alike two maps of the same pictures are, and how alike their noise would let them be.

A low rank correlation of two maps may be no more than their noise. So beside it stands what it
would be at most were both one map: each map's reliability, from the correlation of the map of one
half of the pictures with that of the other. And what two maps share of a picture's own chances
looks like agreement. So maps are held against each other across halves too, the first method's of
one half of the pictures against the second's of the other, where nothing but what pictures have in
common can be alike. That correlation as a share of what each map has with itself across halves is
the agreement: 1 for two methods of which one is a rising function of the other, whatever their
noise (the correction for attenuation of Spearman 1904, The proof and measurement of association
between two things; across halves as Nili et al. 2014, A toolbox for representational similarity
analysis, have noise ceilings).

Shapes: examples N, pictures P, cells M, splits K; NaN where an example lacks a cell.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student

from blip_tracing.meaning.statistics import (
    FEWEST_PICTURES,
    ROUNDING,
    TAILS,
    Interval,
    Units,
    by_picture,
    jackknife,
    ratio_interval,
)

# With fewer cells a rank correlation takes a handful of values.
FEWEST_CELLS = 5
# Random halves of the pictures over which correlations across halves are averaged.
SPLITS = 50
# Groups of pictures of which one is left out at a time for the agreement's error.
GROUPS = 40
AGREE, DIFFER, CANNOT_TELL = "agree", "differ", "cannot tell"
# Two experiments that give the same numbers are one, and nothing is compared.
SAME_NUMBERS = "the same numbers"


class Likeness(NamedTuple):
    """What is told of two maps.

    rho: Spearman's, of both maps of all pictures; first, second: each map's reliability, of as many
    pictures; agreement: the correlation across halves as a share of what the maps allow.
    """

    rho: Interval = Interval()
    first: Interval = Interval()
    second: Interval = Interval()
    agreement: Interval = Interval()
    cells: int = 0
    pictures: int = 0

    @property
    def ceiling(self) -> float:
        """What rho would be in the mean, were both copies of one map with noise of their own.

        It may be above that where a picture's own chances are shared.
        """
        product = max(self.first.value, 0) * max(self.second.value, 0)
        return float(np.sqrt(product)) if product == product else np.nan


def likeness(
    first: np.ndarray,
    second: np.ndarray,
    pictures: Sequence[str],
    resamples: int,
    seed: int,
) -> Likeness:
    """Compare two maps (N, M) of the same examples and cells.

    Nothing is told below six pictures or five cells, a cell counting where six pictures have it in
    both; no correlation of a map whose cells are all alike. The interval of rho is
    Student's about the estimate, with the spread of Fisher's z over resamples of pictures, both
    maps together; its percentiles would lie too low, for a resample's maps have more noise than the
    data's. It says how rho varies with the pictures, noise and all; what the noise takes is told by
    the ceiling. Those of reliability and agreement are Student's, from the jackknife (of at most 40
    groups of pictures), the agreement's as Fieller (1954, Some problems in interval estimation) has
    that of a ratio, no further than −1 and 1: there is none where a map may not correlate with
    itself.

    Simulated (60 studies each of 6, 12 and 30 pictures and 30 cells, evenly spread or four fifths
    of them alike, with noise of their own or nearly all of it shared): of one map twice none was
    said to differ but one of 720; of true agreement 0.7 four of 720 to agree, of unrelated maps
    and of maps of nothing none, the latter in spite of a rho of 0.8 where the noise was shared.
    """
    units = [by_picture(values, pictures) for values in (first, second)]
    kept = np.minimum(*(of.pictures for of in units)) >= FEWEST_PICTURES
    units = [Units(of.sums[:, kept], of.counts[:, kept]) for of in units]
    cells, count = int(kept.sum()), len(units[0].sums)
    if cells < FEWEST_CELLS or count < FEWEST_PICTURES:
        return Likeness(cells=cells, pictures=count)
    halves = _across_halves(units[0], units[1], seed)
    allowed = np.sqrt(np.maximum(halves[:, 0], 0) * np.maximum(halves[:, 1], 0))
    ratio = ratio_interval(*jackknife(np.stack([halves[:, 2], allowed], axis=1)), len(halves) - 2)
    return Likeness(
        _resampled_rho(units[0], units[1], resamples, seed),
        _students(stepped_up(halves[:, 0])),
        _students(stepped_up(halves[:, 1])),
        Interval(*np.clip(ratio, -1.0, 1.0)),
        cells,
        count,
    )


def verdict_of(found: Likeness, alike: float) -> str:
    """Whether two maps agree, differ, or cannot be told by their noise."""
    if found.agreement.low >= alike:
        return AGREE
    return DIFFER if found.agreement.high < alike else CANNOT_TELL


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's ρ of each row of two (…, M): (…), over the cells that both have.

    NaN where one of the two is constant, to rounding, or fewer than five cells are there.
    """
    shape = first.shape[:-1]
    one, other = (values.reshape(-1, values.shape[-1]) for values in (first, second))
    there = ~(np.isnan(one) | np.isnan(other))
    whole = there.all(axis=1)
    found = np.full(len(one), np.nan)
    found[whole] = _of_ranks(one[whole], other[whole])
    for row in np.flatnonzero(~whole & (there.sum(axis=1) >= FEWEST_CELLS)):
        kept = there[row]
        found[row] = _of_ranks(one[row, kept][None], other[row, kept][None])[0]
    return found.reshape(shape)


def stepped_up(correlation: np.ndarray) -> np.ndarray:
    """The reliability of a whole, from the correlation of its halves (Spearman 1910; Brown 1910).

    That of halves which are opposite in the mean is 0.
    """
    return 2 * np.maximum(correlation, 0) / (1 + np.maximum(correlation, 0))


def _of_ranks(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson's correlation (R,) of the ranks of rows (R, M) without gaps."""
    if not len(first):
        return np.empty(0)
    standard = []
    for values in (first, second):
        ranks = rankdata(np.round(values / ROUNDING) * ROUNDING, axis=1)
        centred = ranks - ranks.mean(axis=1, keepdims=True)
        length = np.sqrt((centred**2).sum(axis=1, keepdims=True))
        standard.append(centred / np.where(length > 0, length, np.nan))
    return np.clip((standard[0] * standard[1]).sum(axis=1), -1.0, 1.0)


def _maps(of: Units, weights: np.ndarray) -> np.ndarray:
    """The maps (…, M) of pictures weighted by (…, P); NaN in cells that none has."""
    counts = weights @ of.counts
    return (weights @ of.sums) / np.where(counts > 0, counts, np.nan)


def _resampled_rho(first: Units, second: Units, resamples: int, seed: int) -> Interval:
    whole = np.ones(len(first.sums))
    rho = float(rank_correlation(_maps(first, whole), _maps(second, whole)))
    if np.isnan(rho):
        return Interval()
    random = np.random.default_rng(seed)
    count = len(whole)
    weights = random.multinomial(count, np.full(count, 1 / count), size=resamples).astype("float64")
    cells = first.sums.shape[1]
    drawn = _z(rank_correlation(_maps(first, weights), _maps(second, weights)), cells)
    reach = student.ppf(TAILS[1], count - 1) * np.nanstd(drawn)
    low, high = (float(np.tanh(_z(rho, cells) + sign * reach)) for sign in (-1, 1))
    return Interval(rho, min(low, rho), max(high, rho))


def _z(correlation: np.ndarray | float, cells: int) -> np.ndarray:
    """Fisher's z; of 1 and −1, where it has none, that of half an exchange of two neighbours."""
    last = 1 - 6 / (cells * (cells**2 - 1))
    return np.arctanh(np.clip(correlation, -last, last))


def _across_halves(first: Units, second: Units, seed: int) -> np.ndarray:
    """Correlations of half maps, means over splits: (1 + G, 3).

    Of the first map with itself, of the second with itself, and of one with the other; of all
    pictures, then with each of G groups left out.
    """
    random = np.random.default_rng(seed)
    pictures = len(first.sums)
    half = np.argsort(random.random((SPLITS, pictures)), axis=1) < pictures // 2
    rows = []
    for kept in _leaving_out(pictures, random):
        one, other = (side * kept for side in (half, ~half))
        (a, a_too), (b, b_too) = ((_maps(of, one), _maps(of, other)) for of in (first, second))
        crossed = (rank_correlation(a, b_too) + rank_correlation(b, a_too)) / 2
        split = np.stack([rank_correlation(a, a_too), rank_correlation(b, b_too), crossed])
        rows.append(split.mean(axis=1))
    return np.array(rows)


def _leaving_out(pictures: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Which pictures are kept: all, then all but each group of a random order."""
    yield np.ones(pictures)
    for group in np.array_split(random.permutation(pictures), min(pictures, GROUPS)):
        kept = np.ones(pictures)
        kept[group] = 0
        yield kept


def _students(values: np.ndarray) -> Interval:
    """The estimate and Student's interval of values (1 + G,), no further than 0 and 1."""
    estimate, variance = jackknife(values[:, None])
    reach = student.ppf(TAILS[1], len(values) - 2) * np.sqrt(variance[0, 0])
    value = float(estimate[0])
    return Interval(value, max(value - reach, 0.0), min(value + reach, 1.0))
