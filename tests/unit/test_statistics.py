"""Intervals hold the truth as often as they claim; the test finds what is there, seldom else."""

import tracemalloc
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from blip_tracing.meaning.statistics import (
    by_picture,
    detectable_mean,
    heterogeneity_test,
    max_t_test,
    mean_intervals,
    resampled_means,
    selection_frequencies,
)

STUDIES, RESAMPLES = 1000, 1000
NUMBERS = (6, 12, 30)


def simulate(shape: str, examples: int, seed: int = 1) -> tuple[np.ndarray, float]:
    """Studies (examples, STUDIES) of a bounded or unbounded quantity, and its true mean."""
    random = np.random.default_rng(seed)
    size = (examples, STUDIES)
    chance = random.random(size)
    match shape:
        case "bimodal":  # the answer turns, or nothing happens
            return np.where(
                chance < 0.6, 0.97, 0.01 * random.random(size)
            ), 0.6 * 0.97 + 0.4 * 0.005
        case "rare":  # 15 % revivals
            return np.where(chance < 0.15, random.uniform(0.5, 1, size), 0.0), 0.15 * 0.75
        case "rarer":
            return np.where(chance < 0.05, random.uniform(0.5, 1, size), 0.0), 0.05 * 0.75
        case "saturated":
            return np.where(chance < 0.95, 0.998, 0.2), 0.95 * 0.998 + 0.05 * 0.2
        case "within":  # normal, far from either end
            return 0.5 + 0.1 * random.normal(size=size), 0.5
        case "normal":
            return random.normal(size=size), 0.0
        case "skewed":
            return random.exponential(size=size), 1.0
    raise ValueError(shape)


def coverage(studies: np.ndarray, truth: float, *limits: float, pictures: object = None) -> float:
    """The share of studies whose interval holds the truth."""
    found = mean_intervals(studies, RESAMPLES, 2, pictures, *limits)  # type: ignore[arg-type]
    return float(((found["low"] <= truth) & (found["high"] >= truth)).mean())


# --- intervals


@pytest.mark.parametrize("examples", NUMBERS)
@pytest.mark.parametrize("shape", ["bimodal", "rare", "rarer", "saturated", "within"])
def test_intervals_of_bounded_quantities_hold_the_mean_in_95_of_100_studies(
    shape: str, examples: int
) -> None:
    """However rare or saturated its values are; a bootstrap holds it in 26 of 100 at the worst."""
    studies, truth = simulate(shape, examples)
    assert coverage(studies, truth, 0.0, 1.0) >= 0.94


@pytest.mark.parametrize("examples", NUMBERS)
def test_intervals_of_examples_that_share_pictures_hold_the_mean(examples: int) -> None:
    """One to three examples of a picture, of one kind: alone they would be taken for many."""
    random = np.random.default_rng(3)
    sizes = random.integers(1, 4, examples)
    pictures = [f"{number:02d}" for number in np.repeat(np.arange(examples), sizes)]
    turned = random.beta(0.3, 0.3, (examples, STUDIES)).repeat(sizes, axis=0)
    studies = (random.random(turned.shape) < turned).astype(float)
    assert coverage(studies, 0.5, 0.0, 1.0, pictures=pictures) >= 0.94
    assert coverage(studies, 0.5, 0.0, 1.0) < 0.94 or examples == min(NUMBERS)


def test_a_bootstrap_misses_what_a_sample_lacks() -> None:
    """Why bounded quantities have none, and what the manual must not promise of the others."""
    studies, truth = simulate("saturated", 12)
    assert coverage(studies, truth) < 0.6
    assert coverage(studies, truth, 0.0, 1.0) >= 0.94


@pytest.mark.parametrize(("turned", "examples"), [(0, 6), (12, 12), (4, 12), (29, 30)])
def test_the_interval_of_a_share_is_clopper_and_pearsons(turned: int, examples: int) -> None:
    values = (np.arange(examples) < turned).astype(float)[:, None]
    found = mean_intervals(values, 40_000, 0, None, 0.0, 1.0).iloc[0]
    low = beta.ppf(0.025, turned, examples - turned + 1) if turned else 0.0
    high = beta.ppf(0.975, turned + 1, examples - turned) if turned < examples else 1.0
    assert found[["low", "high"]].tolist() == pytest.approx([low, high], abs=0.006)
    assert found["mean"] == turned / examples


@pytest.mark.parametrize("shape", ["normal", "skewed"])
@pytest.mark.parametrize("examples", NUMBERS)
def test_intervals_of_unbounded_quantities_hold_the_mean_of_even_values(
    shape: str, examples: int
) -> None:
    studies, truth = simulate(shape, examples)
    assert 0.9 <= coverage(studies, truth) <= 0.97


def test_an_interval_of_two_modes_ends_somewhere() -> None:
    """A resample of one mode has next to no spread, in whose units all is far."""
    studies, truth = simulate("bimodal", 6)
    found = mean_intervals(studies, RESAMPLES, 2)
    assert (found["high"] - found["low"]).max() < 30
    assert coverage(studies, truth) >= 0.93


@pytest.mark.parametrize("pictures", [None, list("aabbccddee")])
def test_below_six_pictures_there_are_points_and_no_interval(pictures: list[str] | None) -> None:
    examples = 5 if pictures is None else 10
    found = mean_intervals(np.full((examples, 1), 0.5), 100, 0, pictures, 0.0, 1.0)
    assert found["mean"].tolist() == [0.5]
    assert found[["low", "high"]].isna().to_numpy().all()
    assert found[["examples", "pictures"]].to_numpy().tolist() == [[examples, 5]]


def test_a_mean_is_over_the_examples_that_have_the_cell() -> None:
    """Each example counts once, whatever its picture's others; a cell that none has is missing."""
    values = np.random.default_rng(0).random((9, 3))
    values[[2, 5], 1] = np.nan
    values[:, 2] = np.nan
    pictures = list("abcdefgaa")
    found = mean_intervals(values, 200, 0, pictures, 0.0, 1.0)
    assert found["mean"].tolist()[:2] == pytest.approx(
        [values[:, 0].mean(), values[[0, 1, 3, 4, 6, 7, 8], 1].mean()]
    )
    assert found["examples"].tolist() == [9, 7, 0]
    assert found["pictures"].tolist() == [7, 5, 0]
    assert found["low"].isna().tolist() == [False, True, True]
    assert np.isnan(found["mean"][2])


@pytest.mark.parametrize("limits", [(), (0.0, 1.0)])
def test_intervals_are_seeded_and_know_no_order(limits: tuple[float, ...]) -> None:
    values = np.random.default_rng(0).random((10, 4))
    pictures = list("abcdefghij")
    first, again, other = (mean_intervals(values, 200, n, pictures, *limits) for n in (1, 1, 2))
    turned = mean_intervals(values[::-1], 200, 1, pictures[::-1], *limits)
    assert first.equals(again)
    assert not first.equals(other)
    pd.testing.assert_frame_equal(turned, first)


def test_where_nothing_varies_the_bootstraps_interval_is_its_mean() -> None:
    found = mean_intervals(np.full((6, 1), 0.25), 200, 0)
    assert found[["mean", "low", "high"]].to_numpy().tolist() == [[0.25, 0.25, 0.25]]


# --- the test


def t_statistic(values: np.ndarray) -> float:
    return float(values.mean() / (values.std(ddof=1) / np.sqrt(len(values))))


@pytest.mark.parametrize("least", [0.0, 0.3])
@pytest.mark.parametrize("sides", [2, 1])
def test_p_is_the_share_of_sign_flips_whose_largest_t_reaches_the_cells(
    sides: int, least: float
) -> None:
    """All 64 of them, written out; one picture lacks a cell, and one has two examples."""
    values = np.random.default_rng(3).normal([0.8, 0.8, -0.8], 1.0, size=(7, 3))
    values[4, 1] = np.nan
    pictures = list("abcdefa")
    sums = np.array(
        [
            [np.sum(values[[p == name for p in pictures], cell] - least) for cell in range(3)]
            for name in "abcdef"
        ]
    )

    def all_t(signs: tuple[int, ...]) -> list[float]:
        flipped = (sums * np.array(signs)[:, None]).T
        return [t_statistic(column[~np.isnan(column)]) for column in flipped]

    largest = [
        max(abs(t) if sides == 2 else t for t in all_t(signs))
        for signs in product((1, -1), repeat=6)
    ]
    found = max_t_test(values, 1000, 0, pictures, least, sides)
    expected = all_t((1,) * 6)
    assert found.t == pytest.approx(expected)
    assert found.p == pytest.approx(
        [np.mean([f >= t - 1e-9 for f in largest]) if t > 0 else 1.0 for t in expected]
    )
    assert found.p[2] == 1.0, "an effect downwards is none"


def test_a_family_of_many_cells_is_tested_in_bounded_memory() -> None:
    """Part by part it has the largest t of the whole: of 5,000 heads, or regions."""
    values = np.random.default_rng(0).normal(size=(10, 5000))
    values[:, [3, 4000]] += 4
    tracemalloc.start()
    found = max_t_test(values, 2000, 0).p
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6, "one number a flip and cell is 41 MB, and there were four of them"
    signs = np.array(list(product((1, -1), repeat=10)))
    largest = np.full(len(signs), -np.inf)
    for cell in values.T:
        flipped = signs * cell
        t = flipped.mean(axis=1) / (flipped.std(axis=1, ddof=1) / np.sqrt(10))
        largest = np.maximum(largest, np.abs(t))
    for cell in (3, 4000):
        t = values[:, cell].mean() / (values[:, cell].std(ddof=1) / np.sqrt(10))
        assert found[cell] == pytest.approx((largest >= t - 1e-9).mean())


def test_random_sign_flips_come_near_to_all_of_them() -> None:
    values = np.random.default_rng(4).normal(0.5, 1.0, size=(12, 4))
    every, some = (max_t_test(values, resamples, 0).p for resamples in (4096, 4000))
    assert some == pytest.approx(every, abs=0.03)
    assert not np.array_equal(every, some)


def false_finds(examples_a_picture: int, by_pictures: bool) -> float:
    """How often a family without effects has any: 12 pictures, thirty dependent cells."""
    random = np.random.default_rng(0)
    pictures = [f"{number:02d}" for number in range(12) for _ in range(examples_a_picture)]
    finds, studies = 0, 400
    for study in range(studies):
        shared = random.standard_t(4, size=(12, 30)).repeat(examples_a_picture, axis=0)
        values = shared + random.standard_t(4, size=(len(pictures), 30))
        found = max_t_test(values, 400, study, pictures if by_pictures else None)
        finds += bool((found.p < 0.05).any())
    return finds / studies


@pytest.mark.parametrize("examples_a_picture", [1, 3])
def test_a_family_without_effects_is_seldom_found_to_have_any(examples_a_picture: int) -> None:
    """Upwards, in at most 2.5 of 100 families and chance, whatever the number of cells."""
    assert false_finds(examples_a_picture, by_pictures=True) <= 0.025 + 0.02


def test_examples_of_one_picture_taken_for_many_find_what_is_not_there() -> None:
    assert false_finds(3, by_pictures=False) > 0.1


def test_a_planted_effect_is_found_and_its_neighbours_are_not() -> None:
    values = np.random.default_rng(0).normal(size=(20, 30))
    values[:, 7] += 2.0
    t, p = max_t_test(values, 2000, 0)
    assert (p < 0.05).nonzero()[0].tolist() == [7]
    assert t.argmax() == 7


def test_what_is_sure_but_small_is_no_find() -> None:
    values = 0.01 + 0.001 * np.random.default_rng(0).normal(size=(20, 3))
    values[:, 2] += 0.04
    assert (max_t_test(values, 2000, 0).p < 0.05).tolist() == [True, True, True]
    assert (max_t_test(values, 2000, 0, least=0.02).p < 0.05).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("values", "t", "p"),
    [
        ([[0.0, np.nan], [0.0, 1.0]], [0.0, np.nan], [1.0, np.nan]),
        ([[1.0]], [np.nan], [np.nan]),
    ],
)
def test_a_cell_without_effect_is_not_found_and_one_of_one_picture_is_not_tested(
    values: list[list[float]], t: list[float], p: list[float]
) -> None:
    found = max_t_test(np.array(values), 100, 0)
    assert found.t == pytest.approx(t, nan_ok=True)
    assert found.p == pytest.approx(p, nan_ok=True)


def test_sums_are_by_picture_in_the_order_of_names() -> None:
    values = np.array([[1.0, np.nan], [2.0, 3.0], [4.0, 5.0]])
    units = by_picture(values, ["b", "a", "b"])
    assert units.sums.tolist() == [[2, 3], [5, 5]]
    assert units.counts.tolist() == [[1, 1], [2, 1]]
    assert units.mean.tolist() == pytest.approx([7 / 3, 4])


# --- power


@pytest.mark.parametrize("examples", [12, 30])
def test_the_smallest_detectable_effect_is_found_in_80_of_100_studies(examples: int) -> None:
    """Planted in one of 24 normal cells; a fifth less is found clearly less often."""
    random = np.random.default_rng(5)
    found = {1.0: 0, 0.8: 0}
    studies = 150
    for study in range(studies):
        values = random.normal(size=(examples, 24))
        planted = detectable_mean(values, 400, study, least=0.1)
        for share in found:
            effect = np.zeros(24)
            effect[3] = share * planted
            sample = random.normal(size=(examples, 24)) + effect
            found[share] += max_t_test(sample, 400, study, least=0.1).p[3] < 0.05
    assert found[1.0] / studies == pytest.approx(0.8, abs=0.1)
    assert found[0.8] < found[1.0] - 0.1 * studies


def test_five_pictures_can_find_nothing() -> None:
    assert detectable_mean(np.random.default_rng(0).normal(size=(5, 3)), 100, 0) == np.inf


# --- which cell


def test_how_often_a_cell_is_chosen_is_how_often_it_leads_in_resamples() -> None:
    values = np.random.default_rng(6).normal([0.5, 0.4, -1, 0.2], 1, size=(14, 4))
    random = np.random.default_rng(7)
    leaders = [values[random.integers(14, size=14)].mean(axis=0).argmax() for _ in range(4000)]
    chosen = selection_frequencies(values, 4000, 0)
    assert chosen == pytest.approx(np.bincount(leaders, minlength=4) / 4000, abs=0.03)
    assert chosen.sum() == pytest.approx(1)


def test_cells_that_are_one_share_and_one_that_none_has_is_not_chosen() -> None:
    values = np.random.default_rng(6).normal(size=(8, 1)) + np.zeros((1, 3))
    values[:, 2] = np.nan
    assert selection_frequencies(values, 100, 0) == pytest.approx([0.5, 0.5, np.nan], nan_ok=True)
    assert np.isnan(selection_frequencies(values[:5], 100, 0)).all()


# --- groups


def test_groups_that_differ_in_one_cell_are_found_and_others_as_seldom_as_claimed() -> None:
    random = np.random.default_rng(8)
    groups = list("aaabbbcccddd")
    values = random.normal(size=(12, 20))
    different = values.copy()
    different[:3, 4] += 6
    assert heterogeneity_test(different, groups, 1000, 0) < 0.05
    found = [
        heterogeneity_test(random.normal(size=(12, 20)), groups, 200, study) < 0.05
        for study in range(300)
    ]
    assert np.mean(found) == pytest.approx(0.05, abs=0.03)


def test_examples_of_one_picture_are_one_unit_of_their_group() -> None:
    """Two pictures that differ, many examples each, say nothing of their groups."""
    values = np.repeat([[0.0], [1.0]], 10, axis=0) + 0.01 * np.arange(20)[:, None]
    groups, pictures = list("a" * 10 + "b" * 10), ["x"] * 10 + ["y"] * 10
    assert heterogeneity_test(values, groups, 200, 0, pictures) > 0.5
    assert heterogeneity_test(values, groups, 200, 0) < 0.05


def test_one_group_and_what_never_varies_have_no_heterogeneity() -> None:
    values = np.random.default_rng(0).normal(size=(8, 2))
    assert np.isnan(heterogeneity_test(values, ["a"] * 8, 100, 0))
    assert np.isnan(heterogeneity_test(np.zeros((8, 2)), list("aaaabbbb"), 100, 0))


def test_an_example_that_counts_twice_is_two_of_one_picture() -> None:
    """Weights: a mean of shares by what they are shares of is the ratio of the sums."""
    random = np.random.default_rng(0)
    values, weights = random.normal(0.3, 0.2, (8, 3)), np.array([1.0, 2, 1, 2, 1, 1, 2, 1])
    values[0, 1] = np.nan
    pictures = [f"{n:02}" for n in range(8)]
    twice = np.repeat(np.arange(8), weights.astype(int))
    for ends in ((-np.inf, np.inf), (-1.0, 1.0)):
        weighted = mean_intervals(values, 300, 0, pictures, *ends, weights=weights)
        repeated = mean_intervals(values[twice], 300, 0, [pictures[n] for n in twice], *ends)
        told = ["mean", "low", "high", "pictures"]
        np.testing.assert_allclose(weighted[told], repeated[told], rtol=1e-9)
        assert weighted["examples"].tolist() == [8, 7, 8]
        assert repeated["examples"].tolist() == [11, 10, 11]
    shares, whole = values[:, 0], weights
    assert mean_intervals(values, 300, 0, weights=weights)["mean"][0] == pytest.approx(
        (shares * whole).sum() / whole.sum()
    )


def test_resampled_means_are_those_of_pictures_drawn_again() -> None:
    """Their spread is the plain bootstrap's, each picture with all its examples."""
    random = np.random.default_rng(1)
    values = random.normal(size=(12, 2))
    values[3, 1] = np.nan
    pictures = [f"p{number // 2}" for number in range(12)]
    found = resampled_means(values, 4000, 0, pictures)
    assert found.shape == (4000, 2)
    drawn = [
        np.concatenate([values[2 * n : 2 * n + 2] for n in random.integers(6, size=6)])
        for _ in range(4000)
    ]
    plain = np.array([np.nanmean(each, axis=0) for each in drawn])
    np.testing.assert_allclose(found.mean(0), plain.mean(0), atol=0.03)
    np.testing.assert_allclose(found.std(0), plain.std(0), rtol=0.06)
