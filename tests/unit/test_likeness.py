"""How alike maps are is told as far as their noise lets it be told, and no further."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from scipy.stats import t as student

from blip_tracing.meaning.likeness import (
    AGREE,
    CANNOT_TELL,
    DIFFER,
    Likeness,
    likeness,
    rank_correlation,
    stepped_up,
    verdict_of,
)
from blip_tracing.meaning.statistics import equivalence_test, jackknife, ratio_interval

ALIKE, CELLS = 0.8, 30
MANY, FEW = 24, 12


def compare(first: np.ndarray, second: np.ndarray) -> Likeness:
    return likeness(first, second, [f"{n:03d}" for n in range(len(first))], 200, 0)


def verdict(first: np.ndarray, second: np.ndarray) -> str:
    return verdict_of(compare(first, second), ALIKE)


def noise(seed: int, pictures: int, size: float = 0.5) -> np.ndarray:
    return size * np.random.default_rng(seed).normal(size=(pictures, CELLS))


def truth(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.linspace(0, 1, CELLS))


# --- its parts, against plain computations


def test_rank_correlation_is_scipys_with_ties_and_gaps() -> None:
    random = np.random.default_rng(1)
    first, second = random.integers(0, 6, (2, 40, 12)).astype(float)
    first[5, :3] = second[7, 2] = np.nan
    found = rank_correlation(first, second)
    for row, (one, other) in enumerate(zip(first, second, strict=True)):
        there = ~(np.isnan(one) | np.isnan(other))
        assert found[row] == pytest.approx(spearmanr(one[there], other[there])[0]), row


def test_rounding_makes_no_ranks() -> None:
    """Cells that differ by less than rounding are alike: of such a map nothing is correlated."""
    alike = 0.25 + 1e-13 * np.arange(CELLS)
    assert np.isnan(rank_correlation(alike, truth()))


def test_the_jackknife_of_a_mean_has_the_errors_of_a_mean() -> None:
    values = np.random.default_rng(2).normal(size=(9, 2))
    without = [np.delete(values, n, axis=0).mean(axis=0) for n in range(9)]
    mean, covariance = jackknife(np.array([values.mean(axis=0), *without]))
    assert mean == pytest.approx(values.mean(axis=0))
    assert covariance == pytest.approx(np.cov(values.T) / 9)


def test_the_interval_of_a_ratio_ends_where_student_refuses_it() -> None:
    values, covariance = np.array([3.0, 2.0]), np.array([[0.2, 0.05], [0.05, 0.1]])
    found = ratio_interval(values, covariance, 10)
    assert found.value == 1.5
    for ratio in (found.low, found.high):
        weights = np.array([1, -ratio])
        t = (weights @ values) / np.sqrt(weights @ covariance @ weights)
        assert abs(t) == pytest.approx(student.ppf(0.975, 10))
    assert found.low < 1.5 < found.high


@pytest.mark.parametrize("below", [0.5, 0.0, -2.0])
def test_there_is_no_ratio_to_what_may_be_zero_or_less(below: float) -> None:
    found = ratio_interval(np.array([3.0, below]), np.diag([0.2, 0.1]), 10)
    assert all(np.isnan(found))


def test_reliability_is_the_share_of_variance_that_is_the_maps() -> None:
    """Of normal cells, signal over signal and the noise of so many pictures' mean."""
    random = np.random.default_rng(3)
    of_cells = random.normal(size=400)
    pictures = of_cells + 3 * random.normal(size=(FEW, 400))
    found = likeness(pictures, -pictures, [f"{n:02d}" for n in range(FEW)], 100, 0)
    expected = 1 / (1 + 9 / FEW)
    assert found.first.value == pytest.approx(expected, abs=0.06)
    assert found.first.low < expected < found.first.high
    assert stepped_up(np.array([0.5, -0.2])) == pytest.approx([2 / 3, 0])


def test_a_correlation_of_one_or_nearly_has_a_short_interval() -> None:
    """Though Fisher's z of 1 is beyond all bounds; and the interval holds the correlation."""
    shown = truth() + noise(5, FEW, 0.02)
    for size in (0.0, 1e-3):
        rho = compare(shown, shown**3 + noise(6, FEW, size)).rho
        assert 0.95 < rho.low <= rho.value <= rho.high <= 1.0
        assert rho.value > 0.99


def test_a_cell_is_equivalent_to_nothing_where_it_is_within_both_ways() -> None:
    """Not where it is beyond, nor where it varies too much to tell."""
    random = np.random.default_rng(4)
    spread = np.array([0.005, 0.005, 0.2])
    values = np.array([0.0, 0.1, 0.0]) + spread * random.normal(size=(FEW, 3))
    p = equivalence_test(values, 0.02, 2000, 0)
    assert (p < 0.05).tolist() == [True, False, False]
    assert (equivalence_test(-values, 0.02, 2000, 0) == p).all()


# --- what is said, and what must not be


@pytest.mark.parametrize("pictures", [FEW, MANY])
def test_a_map_and_a_rising_function_of_it_are_never_said_to_differ(pictures: int) -> None:
    """However low their noise makes the correlation."""
    verdicts, correlations = [], []
    for seed in range(20):
        shown = truth(seed)
        first = shown + noise(2 * seed, pictures)
        second = np.exp(2 * shown) + noise(2 * seed + 1, pictures, 3.0)
        found = compare(first, second)
        verdicts.append(verdict_of(found, ALIKE))
        correlations.append(found.rho.value)
    assert DIFFER not in verdicts
    assert np.mean(correlations) < 0.9


def test_what_agrees_is_found_with_enough_pictures() -> None:
    verdicts = [
        verdict(truth(seed) + noise(seed, MANY), truth(seed) ** 3 + noise(seed + 99, MANY, 0.3))
        for seed in range(10)
    ]
    assert verdicts.count(AGREE) >= 8


def test_unrelated_maps_differ_however_much_noise_they_share() -> None:
    """A picture's own chances, alike in both methods, are no agreement."""
    for seed in range(10):
        shared = noise(seed, MANY)
        first, second = truth(seed) + shared, truth(seed + 50) + shared
        assert verdict(first, second) == DIFFER, seed


def test_nothing_is_said_of_maps_of_nothing() -> None:
    """Though they correlate, where their noise is the same."""
    for seed in range(20):
        shared = noise(seed, FEW)
        found = compare(shared + noise(seed + 50, FEW, 0.1), shared)
        assert found.rho.value > 0.7
        assert verdict_of(found, ALIKE) == CANNOT_TELL, seed


def test_nothing_is_said_where_all_cells_are_alike() -> None:
    found = compare(np.full((FEW, CELLS), 0.3), truth() + noise(0, FEW))
    assert np.isnan(found.rho.value)
    assert verdict_of(found, ALIKE) == CANNOT_TELL


@pytest.mark.parametrize(("pictures", "cells"), [(5, CELLS), (FEW, 4), (0, CELLS)])
def test_nothing_is_said_of_fewer_than_six_pictures_or_five_cells(
    pictures: int, cells: int
) -> None:
    shown = (truth() + noise(0, pictures, 0.01))[:, :cells]
    found = compare(shown, shown**2)
    assert np.isnan(found.rho.value)
    assert verdict_of(found, ALIKE) == CANNOT_TELL


def test_examples_of_five_pictures_are_five_pictures() -> None:
    shown = truth() + noise(0, 20, 0.01)
    found = likeness(shown, shown**2, [f"{n % 5}" for n in range(20)], 100, 0)
    assert verdict_of(found, ALIKE) == CANNOT_TELL


def test_nothing_depends_on_the_order_of_examples() -> None:
    first, second = truth() + noise(0, FEW), truth() + noise(1, FEW)
    names, order = [f"{n:02d}" for n in range(FEW)], np.random.default_rng(0).permutation(FEW)
    found = likeness(first, second, names, 100, 0)
    turned = likeness(first[order], second[order], [names[n] for n in order], 100, 0)
    assert np.array(found[:4]).ravel() == pytest.approx(np.array(turned[:4]).ravel())


def test_a_cell_that_few_pictures_have_does_not_count() -> None:
    first, second = truth() + noise(0, FEW), truth() + noise(1, FEW)
    first[5:, 0] = np.nan
    assert compare(first, second).cells == CELLS - 1
