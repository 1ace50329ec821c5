"""Intervals hold the truth as often as they claim; the test finds what is there, seldom else."""

from itertools import product

import numpy as np
import pytest

from blip_tracing.meaning.statistics import max_t_test, mean_intervals

STUDIES, RESAMPLES = 2000, 1000


def simulate(
    shape: str, examples: int, draws: int, within: float, studies: int, seed: int
) -> np.ndarray:
    """Studies whose true mean is 0: (examples, draws, studies).

    Examples vary with standard deviation 1, the draws of an example with `within`; both are
    normal, or skewed: exponential.
    """
    random = np.random.default_rng(seed)

    def vary(size: tuple[int, ...]) -> np.ndarray:
        return random.normal(size=size) if shape == "normal" else random.exponential(size=size) - 1

    return vary((examples, 1, studies)) + within * vary((examples, draws, studies))


def coverage(studies: np.ndarray, seed: int) -> float:
    """The share of studies whose interval holds the true mean 0."""
    low, high = mean_intervals(studies, RESAMPLES, seed)[["low", "high"]].to_numpy().T
    return float(np.mean((low <= 0) & (high >= 0)))


@pytest.mark.parametrize("shape", ["normal", "skewed"])
@pytest.mark.parametrize(
    ("examples", "within"), [(30, 1.0), (30, 3.0), (12, 1.0), (8, 1.0), (8, 3.0)]
)
def test_intervals_over_examples_and_draws_hold_the_mean_in_95_of_100_studies(
    shape: str, examples: int, within: float
) -> None:
    assert 0.93 <= coverage(simulate(shape, examples, 10, within, STUDIES, 1), 2) <= 0.97


@pytest.mark.parametrize("examples", [2, 4, 5, 12])
def test_intervals_over_examples_alone_hold_the_mean_in_95_of_100_studies(examples: int) -> None:
    """Patches have no draws; few examples widen the interval, they do not spoil it."""
    assert 0.93 <= coverage(simulate("normal", examples, 1, 1.0, STUDIES, 1), 2) <= 0.97


def test_intervals_of_one_example_are_over_its_draws() -> None:
    studies = simulate("normal", 1, 10, 1.0, STUDIES, 1)
    truth = simulate("normal", 1, 10, 0.0, STUDIES, 1)[:, :1]
    assert 0.93 <= coverage(studies - truth, 2) <= 0.97
    assert set(mean_intervals(studies, 100, 0)["examples"]) == {1}


def test_one_example_and_one_draw_have_a_mean_and_no_interval() -> None:
    found = mean_intervals(np.array([[[0.5, np.nan]]]), 100, 0)
    assert found["mean"].tolist()[0] == 0.5
    assert found["mean"].isna().tolist() == [False, True]
    assert found[["low", "high"]].isna().to_numpy().all()
    assert found[["examples", "draws"]].to_numpy().tolist() == [[1, 1], [0, 0]]


def test_a_mean_is_over_the_examples_that_have_the_cell() -> None:
    """Two cells with gaps: an example that lacks one of them, draws that lack the other."""
    values = simulate("normal", 8, 3, 1.0, 3, 0)
    values[[2, 5], :, 1] = np.nan
    values[:, 1:, 2] = np.nan
    found = mean_intervals(values, 200, 0)
    for cell, kept in enumerate(
        (values[..., 0], values[[0, 1, 3, 4, 6, 7], :, 1], values[:, :1, 2])
    ):
        alone = mean_intervals(kept[..., None], 200, 0).iloc[0]
        assert alone["mean"] == pytest.approx(kept.mean(axis=1).mean())
        assert (alone["examples"], alone["draws"]) == kept.shape
        assert found.iloc[cell].to_numpy() == pytest.approx(alone.to_numpy())


def test_where_nothing_varies_the_interval_is_its_mean() -> None:
    found = mean_intervals(np.full((6, 2, 1), 0.25), 200, 0)
    assert found[["mean", "low", "high"]].to_numpy().tolist() == [[0.25, 0.25, 0.25]]


def test_resamples_are_seeded() -> None:
    values = simulate("skewed", 10, 4, 1.0, 2, 0)
    first, again, other = (mean_intervals(values, 200, seed) for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


def t_statistic(values: np.ndarray) -> float:
    return float(values.mean() / (values.std(ddof=1) / np.sqrt(len(values))))


def test_p_is_the_share_of_sign_flips_whose_largest_t_reaches_the_cells() -> None:
    """All 64 of them, written out; one example lacks a cell."""
    values = np.random.default_rng(3).normal(0.8, 1.0, size=(6, 3))
    values[4, 2] = np.nan
    cells = [cell[~np.isnan(cell)] for cell in values.T]
    expected_t = [t_statistic(cell) for cell in cells]
    largest = [
        max(
            abs(t_statistic(column[~np.isnan(column)]))
            for column in (values * np.array(signs)[:, None]).T
        )
        for signs in product((1, -1), repeat=len(values))
    ]
    t, p = max_t_test(values, 1000, 0)
    assert t == pytest.approx(expected_t)
    assert p == pytest.approx(
        [np.mean([flip >= abs(t) - 1e-9 for flip in largest]) for t in expected_t]
    )


def test_random_sign_flips_come_near_to_all_of_them() -> None:
    values = np.random.default_rng(4).normal(0.5, 1.0, size=(12, 4))
    every, some = (max_t_test(values, resamples, 0).p for resamples in (4096, 4000))
    assert some == pytest.approx(every, abs=0.03)
    assert not np.array_equal(every, some)


def test_a_family_without_effects_is_seldom_found_to_have_any() -> None:
    """One false find in twenty families of thirty dependent cells, whatever the number of cells."""
    random = np.random.default_rng(0)
    studies, examples = 600, 12
    finds = 0
    for study in range(studies):
        shared = random.standard_t(4, size=(examples, 1))
        values = shared + random.standard_t(4, size=(examples, 30))
        finds += bool((max_t_test(values, 400, study).p <= 0.05).any())
    assert finds / studies == pytest.approx(0.05, abs=0.025)


def test_a_planted_effect_is_found_and_its_neighbours_are_not() -> None:
    values = np.random.default_rng(0).normal(size=(20, 30))
    values[:, 7] += 2.0
    t, p = max_t_test(values, 2000, 0)
    assert (p <= 0.05).nonzero()[0].tolist() == [7]
    assert t.argmax() == 7


@pytest.mark.parametrize(
    ("values", "t", "p"),
    [
        ([[0.0, np.nan], [0.0, 1.0]], [0.0, np.nan], [1.0, np.nan]),
        ([[1.0]], [np.nan], [np.nan]),
    ],
)
def test_a_cell_without_effect_is_not_found_and_one_of_one_example_is_not_tested(
    values: list[list[float]], t: list[float], p: list[float]
) -> None:
    found = max_t_test(np.array(values), 100, 0)
    assert found.t == pytest.approx(t, nan_ok=True)
    assert found.p == pytest.approx(p, nan_ok=True)
