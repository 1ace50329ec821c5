"""Intervals and tests of means over examples, with the picture as the unit.

Examples that share a picture are not independent of each other, so pictures are what is resampled
and what changes its sign, with all its examples. A mean is over examples, each counting once.

Shapes: examples N, pictures P, cells M; NaN where an example lacks a cell. `pictures`: the picture
of each example; None where each example has its own. Nothing depends on the pictures' order but
through the names by which they are sorted.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from scipy.stats import t as student

from blip_tracing.vocabulary.tables import FEWEST_PICTURES, SIGNIFICANT

CONFIDENCE = 0.95
TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
# What the columns of a mean and of its interval's ends are called behind its name.
ENDS = ("", "_low", "_high")
# The power that the smallest detectable effect is found with.
POWER = 0.8
# Numbers in a block of resamples, or of cells, which bounds its memory: 16 MB an array.
NUMBERS_A_BLOCK = 2_000_000
# Relative to a cell's own error or statistic: what differs by less differs by rounding alone.
ROUNDING = 1e-9
# Of the data's own error: a resample of one mode alone has less, and would end an interval nowhere.
LEAST_SPREAD = 0.05
# Draws of t behind the smallest detectable effect; more change its second digit by nothing.
POWER_DRAWS = 20_000


class MaxT(NamedTuple):
    """The statistic t and the family-wise p of each cell, both (M,)."""

    t: np.ndarray
    p: np.ndarray


class Interval(NamedTuple):
    """An estimate and the ends of its 95 % interval; NaN where there is none."""

    value: float = np.nan
    low: float = np.nan
    high: float = np.nan


class Units(NamedTuple):
    """Each picture's sum and number of examples, by cell: both (P, M)."""

    sums: np.ndarray
    counts: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """The mean over examples: (M,), NaN where none has the cell."""
        return self.sums.sum(axis=0) / _or_nan(self.counts.sum(axis=0))

    @property
    def pictures(self) -> np.ndarray:
        """How many pictures have the cell: (M,)."""
        return (self.counts > 0).sum(axis=0)


def by_picture(
    values: np.ndarray,
    pictures: Sequence[str] | None = None,
    weights: np.ndarray | None = None,
) -> Units:
    """Sum values (N, M) over the examples of each picture.

    weights: how much each example counts, (N,), above zero; as one where they are left out.
    """
    there = ~np.isnan(values)
    counts = there * (1.0 if weights is None else weights[:, None])
    filled = np.where(there, values, 0.0) * counts
    if pictures is None:
        return Units(filled, counts)
    unit, names = pd.factorize(np.asarray(pictures, dtype=object), sort=True)
    shape = (len(names), len(values))
    belongs = csr_matrix((np.ones(len(values)), (unit, np.arange(len(values)))), shape=shape)
    return Units(belongs @ filled, belongs @ counts)


def mean_intervals(
    values: np.ndarray,
    resamples: int,
    seed: int,
    pictures: Sequence[str] | None = None,
    lowest: np.ndarray | float = -np.inf,
    highest: np.ndarray | float = np.inf,
    *,
    weights: np.ndarray | None = None,
) -> pd.DataFrame:
    """Means over examples with 95 % intervals whose unit is the picture.

    values: (N, M); lowest, highest: the ends of each cell's range, scalars or (M,), infinite where
    it has none; weights: how much each example counts, (N,), so that shares which count as what
    they are shares of have the ratio of means. Returns one row a cell: mean, low, high, examples,
    pictures; low and high are NaN where fewer than six pictures have it, mean too where none has.

    Bounded quantities have Gaffke's interval: the observed values and one more, at the end of the
    range, are weighted by Dirichlet(1, …, 1); an end is the 2.5 % quantile of that mean, towards
    the end that was added (Gaffke 2005, Three test statistics for a nonparametric one-sided
    hypothesis on the mean of a nonnegative variable; Learned-Miller & Thomas 2020, A new
    confidence interval for the mean of a bounded random variable). The added value stands for the
    rare one that a sample may lack, which no bootstrap knows of. Of values that are 0 and 1 it is
    the interval of Clopper and Pearson. Pictures of several examples are weighted as one: the mean
    is the ratio of weighted sums and numbers, the added one a picture of the average number.

    Simulated (1,500 studies each, 6, 12 and 30 pictures, a range of 1) it held the mean in 96 to
    100 % of bimodal studies, of 15 and 5 % revivals, of saturated and of normal values, and of one
    to three alike examples a picture; where the range is that of a change from a reference which
    varies (see `summary`), in 95 to 100 %. Its mean width at 12: 0.53 bimodal, 0.37 revivals, 0.30
    saturated, 0.27 normal, where the bootstrap's is 0.13.

    Others have a studentized bootstrap of pictures (Efron & Tibshirani 1993, An Introduction to
    the Bootstrap, section 12.5; the ratio's error by Davison & Hinkley 1997, Bootstrap Methods and
    their Application, section 2.7), in which no resample's error is taken for less than a
    twentieth of the data's. In the same simulations it held the mean in 92 to 95 % of normal and
    exponential studies and 96 to 100 % of bimodal ones, but, at 6, 12 and 30, in 63, 86 and 98 % of
    15 % revivals, 26, 46 and 78 % of 5 % revivals and 28, 47 and 76 % of saturated values: a sample
    that lacks the rare value has no spread.
    """
    units = by_picture(values, pictures, weights)
    cells = values.shape[1]
    ends = np.full((2, cells), np.nan)
    low, high = (np.broadcast_to(np.asarray(end, float), cells) for end in (lowest, highest))
    told = units.pictures >= FEWEST_PICTURES
    bounded = told & np.isfinite(low) & np.isfinite(high)
    for chosen, interval in (
        (bounded, lambda part: _gaffke(part, low[bounded], high[bounded], resamples, seed)),
        (told & ~bounded, lambda part: _bootstrap_t(part, resamples, seed)),
    ):
        if chosen.any():
            ends[:, chosen] = interval(Units(units.sums[:, chosen], units.counts[:, chosen]))
    return pd.DataFrame(
        {
            "mean": units.mean,
            "low": ends[0],
            "high": ends[1],
            "examples": (~np.isnan(values)).sum(axis=0),
            "pictures": units.pictures,
        }
    )


def named_means(means: pd.DataFrame, name: str) -> pd.DataFrame:
    """The columns mean, low and high of `mean_intervals` as a table has several of them."""
    return means[["mean", "low", "high"]].set_axis([f"{name}{end}" for end in ENDS], axis=1)


def max_t_test(
    values: np.ndarray,
    resamples: int,
    seed: int,
    pictures: Sequence[str] | None = None,
    least: float = 0.0,
    sides: int = 2,
) -> MaxT:
    """Test of every cell for values above `least`, corrected for the whole family of cells.

    values: (N, M). The null hypothesis is that a cell's values less `least`, summed by picture,
    lie symmetrically about zero or below: then a picture's might as well have the opposite signs,
    those of all its cells at once, so that dependence between cells is kept. (It is a hypothesis
    about symmetry: a skewed cell whose mean is `least` can be found.) p is the share of sign flips
    whose largest |t| in the family reaches the cell's own: the single-step max-T procedure of
    Westfall & Young (1993), Resampling-Based Multiple Testing; it is 1 where t is not above zero,
    so that a family errs upwards in 2.5 of 100 cases at p < 0.05. sides: 1 compares with the
    largest t instead of |t|, which spends all 5 there. All sign flips are tried where there are no
    more than `resamples`, else so many random ones and the data's own. t and p are NaN for a cell
    that fewer than two pictures have.
    """
    sums, counts = by_picture(values - least, pictures)
    present = (counts > 0).sum(axis=0)
    tested = present >= 2
    statistic, p = np.full((2, values.shape[1]), np.nan)
    if not tested.any():
        return MaxT(statistic, p)
    cells, present = sums[:, tested], present[tested]
    found = _t(np.ones((1, len(cells))), cells, present)[0]
    flips = _largest(cells, present, resamples, seed, sides)
    reached = (flips[:, None] >= np.abs(found) * (1 - ROUNDING)).sum(axis=0)
    data_itself = 0 if len(flips) == 2 ** len(cells) else 1
    statistic[tested] = found
    p[tested] = np.where(found > 0, (reached + data_itself) / (len(flips) + data_itself), 1.0)
    return MaxT(statistic, p)


def left_out_tests(
    values: np.ndarray,
    resamples: int,
    seed: int,
    pictures: Sequence[str] | None = None,
    least: float = 0.0,
) -> np.ndarray:
    """The p of `max_t_test` with each picture left out in turn: (P, M), pictures sorted by name.

    values: (N, M). One set of sign flips serves all, in which the picture left out has no say, so
    that where all flips are tried the p are those of the rest alone. NaN for a cell that fewer than
    six of the rest have.
    """
    sums, counts = by_picture(values - least, pictures)
    there = counts > 0
    signs = _signs(len(sums), resamples, seed)
    data_itself = 0 if len(signs) == 2 ** len(sums) else 1
    flipped, squares = signs @ sums, sums**2
    p = np.full(sums.shape, np.nan)
    for left_out, own in enumerate(sums):
        present = there.sum(axis=0) - there[left_out]
        tested = present >= FEWEST_PICTURES
        if not tested.any():
            continue
        length = np.sqrt((present * np.delete(squares, left_out, axis=0).sum(axis=0))[tested])
        scale = np.where(length > 0, length, 1)

        def t_of(totals: np.ndarray, present: np.ndarray, scale: np.ndarray) -> np.ndarray:
            ratio = totals / scale
            return ratio * np.sqrt((present - 1) / np.maximum(1 - ratio**2, ROUNDING))

        rest = flipped[:, tested] - signs[:, [left_out]] * own[tested]
        largest = np.abs(t_of(rest, present[tested], scale)).max(axis=1)
        found = t_of((sums.sum(axis=0) - own)[tested], present[tested], scale)
        reached = (largest[:, None] >= np.abs(found) * (1 - ROUNDING)).sum(axis=0)
        share = (reached + data_itself) / (len(signs) + data_itself)
        p[left_out, tested] = np.where(found > 0, share, 1.0)
    return p


def equivalence_test(
    values: np.ndarray,
    least: float,
    resamples: int,
    seed: int,
    pictures: Sequence[str] | None = None,
) -> np.ndarray:
    """The family-wise p of each cell (M,) that its mean is within ± `least`.

    The larger of two one-sided tests' (Schuirmann 1987, A comparison of the two one-sided tests
    procedure and the power approach for assessing equivalence), each a `max_t_test`.
    """
    upward, downward = (
        max_t_test(sign * values, resamples, seed, pictures, -least).p for sign in (1, -1)
    )
    return np.maximum(upward, downward)


def jackknife(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimates (Q,) and their covariance (Q, Q) from values (1 + G, Q).

    values: of all units, then with each of G groups of them left out (Efron & Tibshirani 1993,
    chapter 11).
    """
    without = values[1:]
    moved = without - without.mean(axis=0)
    return values[0], moved.T @ moved * (len(without) - 1) / len(without)


def ratio_interval(values: np.ndarray, covariance: np.ndarray, freedom: int) -> Interval:
    """A ratio of two estimates (2,) with their covariance (2, 2), and Fieller's interval.

    NaN where the denominator may be zero or below: any ratio may be true then.
    """
    above, below = values
    critical = student.ppf(TAILS[1], freedom) ** 2
    squared = below**2 - critical * covariance[1, 1]
    if not (below > 0 and squared > 0):
        return Interval()
    middle = above * below - critical * covariance[0, 1]
    constant = above**2 - critical * covariance[0, 0]
    spread = np.sqrt(max(middle**2 - squared * constant, 0))
    return Interval(above / below, (middle - spread) / squared, (middle + spread) / squared)


def detectable_mean(
    values: np.ndarray,
    resamples: int,
    seed: int,
    pictures: Sequence[str] | None = None,
    least: float = 0.0,
) -> float:
    """The smallest mean that `max_t_test` would find at p < 0.05 in 80 of 100 such samples.

    values: (N, M), of two pictures at least. A cell of the family's typical spread (the root mean
    square over its cells) is meant, its t compared with the family's own critical value; t is
    taken to be noncentral, which holds for normal values. Infinite where nothing can be found.
    """
    sums, counts = by_picture(values - least, pictures)
    present = (counts > 0).sum(axis=0)
    tested = present >= 2
    if not tested.any():
        return np.inf
    cells = Units(sums[:, tested], counts[:, tested])
    flips = np.sort(_largest(cells.sums, present[tested], resamples, seed, 2))[::-1]
    data_itself = 0 if len(flips) == 2 ** len(sums) else 1
    allowed = int(np.ceil(SIGNIFICANT * (len(flips) + data_itself) - data_itself)) - 1
    if allowed < 2:  # the data's own flip and its opposite reach it always
        return np.inf
    freedom = len(sums) - 1
    random = np.random.default_rng(seed)
    spread = np.sqrt(random.chisquare(freedom, POWER_DRAWS) / freedom)
    needed = np.quantile(flips[allowed] * spread - random.normal(size=POWER_DRAWS), POWER)
    return float(least + needed * np.sqrt(np.mean(_error(cells) ** 2)))


def selection_frequencies(
    values: np.ndarray, resamples: int, seed: int, pictures: Sequence[str] | None = None
) -> np.ndarray:
    """The share of resamples of pictures in which each cell has the family's largest mean: (M,).

    Cells that are alike to rounding share one. What is often chosen cannot be told from the best:
    the frequencies say between which cells the data do not decide (Efron & Tibshirani 1993,
    chapter 6, of a statistic that is the name of a cell). NaN below six pictures.
    """
    units = by_picture(values, pictures)
    there = units.pictures > 0
    if len(units.sums) < FEWEST_PICTURES or not there.any():
        return np.full(values.shape[1], np.nan)
    chosen = np.zeros(values.shape[1])
    for means in _means_of_resamples(units, resamples, seed):
        means = np.where(np.isnan(means), -np.inf, means)
        best = means >= means.max(axis=1, keepdims=True) - ROUNDING
        chosen += (best / best.sum(axis=1, keepdims=True)).sum(axis=0)
    return np.where(there, chosen / resamples, np.nan)


def resampled_means(
    values: np.ndarray, resamples: int, seed: int, pictures: Sequence[str] | None = None
) -> np.ndarray:
    """The means over examples in each resample of pictures: (B, M), NaN where none has the cell.

    values: (N, M). The bootstrap distribution of whatever is made of means.
    """
    units = by_picture(values, pictures)
    return np.concatenate(list(_means_of_resamples(units, resamples, seed)))


def chosen_frequencies(
    values: np.ndarray,
    choose: Callable[[np.ndarray], np.ndarray],
    resamples: int,
    seed: int,
    pictures: Sequence[str] | None = None,
) -> np.ndarray:
    """The share of resamples of pictures in which each cell is chosen by the means: (M,).

    choose: from means (B, M) to which cells are chosen in each resample (B, M). NaN below six
    pictures. (Efron & Tibshirani 1993, chapter 6, of a statistic that is a set of cells.)
    """
    units = by_picture(values, pictures)
    if len(units.sums) < FEWEST_PICTURES:
        return np.full(values.shape[1], np.nan)
    chosen = np.zeros(values.shape[1])
    for means in _means_of_resamples(units, resamples, seed):
        chosen += choose(means).sum(axis=0)
    return chosen / resamples


def heterogeneity_test(
    values: np.ndarray,
    groups: Sequence[str],
    resamples: int,
    seed: int,
    pictures: Sequence[str] | None = None,
) -> float:
    """The p of groups that differ in some cell: NaN with one group, or where nothing varies.

    values: (N, M). The statistic is the largest share of a cell's variance that lies between
    groups, its distribution that under permuted labels. What is permuted is a picture's mean in a
    group: a picture in several groups has several, whose likeness makes groups look more alike, so
    that the test errs towards finding nothing.
    """
    of = [np.arange(len(values)) if pictures is None else pictures, groups]
    units = pd.DataFrame(values).groupby([np.asarray(key) for key in of]).mean()
    labels = pd.factorize(units.index.get_level_values(1), sort=True)[0]
    cells = units.to_numpy()[:, (units.max() - units.min() > ROUNDING).to_numpy()]
    if labels.max(initial=0) < 1 or not cells.size:
        return np.nan
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(labels.max() + 1))
    there = (~np.isnan(cells)).astype(float)
    centred = np.nan_to_num(cells - np.nanmean(cells, axis=0))
    total = (centred**2).sum(axis=0)

    def between(shuffled: np.ndarray) -> float:
        sums = np.add.reduceat(centred[shuffled], starts, axis=0)
        sizes = np.add.reduceat(there[shuffled], starts, axis=0)
        return float(np.max((sums**2 / np.maximum(sizes, 1)).sum(axis=0) / total))

    found = between(order)
    random = np.random.default_rng(seed)
    reached = sum(
        between(random.permutation(len(cells))) >= found - ROUNDING for _ in range(resamples)
    )
    return (reached + 1) / (resamples + 1)


def holm(p: np.ndarray) -> np.ndarray:
    """The p of a few tests (M,), corrected for all of them, NaN ones counting as not refused.

    Holm 1979, A simple sequentially rejective multiple test procedure: the smallest is multiplied
    by their number, the next by one less, and none is below one before it. It asks nothing of how
    the tests depend on each other.
    """
    order = np.argsort(np.where(np.isnan(p), np.inf, p), kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def _gaffke(
    units: Units, lowest: np.ndarray, highest: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
    """Both ends (2, M) of the interval of bounded values."""
    sums, counts = units
    size = counts.sum(axis=0) / (counts > 0).sum(axis=0)
    random = np.random.default_rng(seed)
    means: list[list[np.ndarray]] = [[], []]
    for size_of_block in _blocks(sums, resamples):
        weights = random.standard_exponential((size_of_block, len(sums) + 1))  # times their sum
        added = weights[:, :1] * size
        whole, number = weights[:, 1:] @ sums, weights[:, 1:] @ counts + added
        for end, bound in zip(means, (lowest, highest), strict=True):
            end.append((whole + added * bound) / number)
    return np.stack(
        [
            np.quantile(np.concatenate(end), tail, axis=0)
            for end, tail in zip(means, TAILS, strict=True)
        ]
    )


def _bootstrap_t(units: Units, resamples: int, seed: int) -> np.ndarray:
    """Both ends (2, M) of the studentized bootstrap's interval."""
    mean, error = units.mean, _error(units)
    counts = units.counts
    centred = units.sums - counts * mean
    blocks = []
    for weights in _resampled(centred, resamples, seed):
        number = _or_nan(weights @ counts)
        moved = (weights @ centred) / number
        squares = (
            weights @ centred**2
            - 2 * moved * (weights @ (centred * counts))
            + moved**2 * (weights @ counts**2)
        )
        present = weights @ (counts > 0)
        spread = np.sqrt(np.maximum(squares, 0) * present / np.maximum(present - 1, 1)) / number
        # Where all values of a cell are one, so are its interval's ends.
        spread = np.maximum(np.nan_to_num(spread), np.where(error > 0, LEAST_SPREAD * error, 1))
        blocks.append(np.nan_to_num(moved) / spread)
    below, above = np.quantile(np.concatenate(blocks), TAILS, axis=0)
    return np.stack([mean - above * error, mean - below * error])


def _error(units: Units) -> np.ndarray:
    """The standard error (M,) of the mean over examples, from the pictures' spread."""
    sums, counts = units
    residuals = sums - counts * units.mean
    present = (counts > 0).sum(axis=0)
    variance = (residuals**2).sum(axis=0) * present / np.maximum(present - 1, 1)
    return np.sqrt(variance) / counts.sum(axis=0)


def _resampled(sums: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each picture is drawn, (B, P) a block, in resamples with replacement."""
    random = np.random.default_rng(seed)
    chances = np.full(len(sums), 1 / len(sums))
    for size in _blocks(sums, resamples):
        yield random.multinomial(len(sums), chances, size=size).astype("float64")


def _means_of_resamples(units: Units, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """The means over examples in resamples of pictures, (B, M) a block; NaN where none is there."""
    for weights in _resampled(units.sums, resamples, seed):
        yield (weights @ units.sums) / _or_nan(weights @ units.counts)


def _blocks(sums: np.ndarray, resamples: int) -> Iterator[int]:
    """The sizes of blocks of resamples of sums (P, M); results do not depend on them."""
    size = max(1, NUMBERS_A_BLOCK // max(sums.shape))
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def _largest(
    cells: np.ndarray, present: np.ndarray, resamples: int, seed: int, sides: int
) -> np.ndarray:
    """The family's largest |t| (sides 1: t) under each sign flip."""
    signs = _signs(len(cells), resamples, seed)
    largest = np.full(len(signs), -np.inf)
    size = max(1, NUMBERS_A_BLOCK // len(signs))
    for start in range(0, cells.shape[1], size):
        block = slice(start, start + size)
        flipped = _t(signs, cells[:, block], present[block])
        flipped = (np.abs(flipped) if sides == 2 else flipped).max(axis=1)
        np.maximum(largest, flipped, out=largest)
    return largest


def _signs(units: int, resamples: int, seed: int) -> np.ndarray:
    """Sign flips (F, P): all where there are no more than `resamples`, else so many random ones."""
    if 2**units <= resamples:
        every = (np.arange(2**units)[:, None] >> np.arange(units)) & 1
        return 1.0 - 2.0 * every
    return 1.0 - 2.0 * np.random.default_rng(seed).integers(2, size=(resamples, units))


def _t(signs: np.ndarray, cells: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Student's t (F, M) of pictures' sums (P, M), gaps filled with 0, under signs (F, P).

    From the ratio of mean and root mean square, which alone changes with the signs.
    """
    length = np.sqrt(present * (cells**2).sum(axis=0))
    ratio = signs @ (cells / np.where(length > 0, length, 1))
    return ratio * np.sqrt((present - 1) / np.maximum(1 - ratio**2, ROUNDING))


def _or_nan(counts: np.ndarray) -> np.ndarray:
    return np.where(counts > 0, counts, np.nan)
