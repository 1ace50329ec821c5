"""What one experiment's maps say in every way of asking: its universes of the analysis multiverse.

A universe is a map (a site, a level) asked in one combination of quantity, null, threshold and
seed. What it concludes is its top set: the places that pass the tests, change by the threshold at
least and, where only so many are asked for, are clearly among the largest. A map that cannot be
tested, or of which every place would be in the set, says nothing, and that is told apart from a
universe that looked and found none.

Shapes: examples N, pictures P, open cells M; what is done again without each picture has 1 + P
rows, all pictures first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from blip_tracing.meaning.effects import NO_HEAD
from blip_tracing.meaning.marks import of_enough, why_untested
from blip_tracing.meaning.statistics import (
    FEWEST_PICTURES,
    ROUNDING,
    SIGNIFICANT,
    by_picture,
    left_out_tests,
    max_t_test,
    mean_intervals,
)
from blip_tracing.meaning.summary import (
    CELL,
    TESTED,
    Arranged,
    Rules,
    arrange,
    has_to_bring,
    known_of,
)
from blip_tracing.vocabulary.analyses import orientation
from blip_tracing.vocabulary.experiment import TOGETHER, Experiment
from blip_tracing.vocabulary.multiverse import BEYOND, WITHOUT
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.sites import SITES
from blip_tracing.vocabulary.tables import FEW_PICTURES, NOTHING_HIDDEN

CONTRAST = "contrast"
# What tells a universe from others, and what stands in its rows, one an open cell.
CHOICES = ["corruption", "draw_seed", "experiment", "noise_level", "site", "quantity", "null",
           "threshold", "seed"]  # fmt: skip
UNIVERSES = [
    *CHOICES, "axes", "reason", "least", *CELL, "mean", "low", "high", "p", "found", "stays",
    "pictures", "overlap", "overlap_by_chance",
]  # fmt: skip
EVERY_PLACE = "every place is in the set"
NO_PLACE = "no place to test"
# Random halvings of the pictures behind the overlap of top sets.
HALVINGS = 200


class Threshold(NamedTuple):
    """The least change that counts: a number, or so many deviations above the map's mean."""

    name: str
    least: float
    deviations: float | None = None


class Asked(NamedTuple):
    """What one universe asks of a map."""

    quantity: str
    null: str
    threshold: Threshold
    seed: int


def universes_of(
    experiment: Experiment,
    role_means: pd.DataFrame,
    cell_means: pd.DataFrame,
    settings: Mapping[str, Any],
    rules: Rules,
) -> pd.DataFrame:
    """The universes of an experiment, a row an open cell, or one without a cell where none is.

    role_means, cell_means: those tables, of this experiment; settings: the analysis's. Columns
    UNIVERSES: least, the change that a cell's mean reaches in the set; p, the larger of its tests';
    stays, the share of pictures without each of which it is found still (NaN where fewer than
    seven are there, or it is not found); overlap, the mean overlap (Jaccard) of random halves' sets
    of as many places, beside that of sets drawn by chance.
    """
    parts: list[pd.DataFrame] = []
    for (site, level), of_roles in role_means.groupby(["site", "level"], sort=False):
        of_cells = cell_means[(cell_means["site"] == site) & (cell_means["level"] == level)]
        parts += _of_map(experiment, of_roles, of_cells, settings, rules)
    return pd.concat(parts, ignore_index=True).reindex(columns=UNIVERSES)


def _of_map(
    experiment: Experiment,
    of_roles: pd.DataFrame,
    of_cells: pd.DataFrame,
    settings: Mapping[str, Any],
    rules: Rules,
) -> Iterator[pd.DataFrame]:
    site = str(of_roles["site"].iloc[0])
    names = [measure["quantity"] for measure in settings["quantities"]]
    part = _open_cells(of_roles, list(dict.fromkeys([*names, TESTED, CONTRAST])))
    values = {
        name: orientation(experiment, name) * part.of(name)
        for name in dict.fromkeys([*names, CONTRAST])
    }
    total = of_cells.loc[of_cells["included"], "total_effect"].mean()
    hides = has_to_bring(experiment, total, rules)
    tests = _tests(values, part, rules)
    means_of = cache(lambda name: _intervals(values[name], part, rules))
    overlap_of = cache(lambda name, size: overlap(values[name], part.pictures, size, rules.seed))
    for asked in _ways(settings):
        cells = part.cells.assign(**means_of(asked.quantity), found=False)
        told: dict[str, Any] = {"least": np.nan, "reason": _why_silent(asked, part, values, hides)}
        if not told["reason"]:
            p, bound, found = _found(asked, values, part, tests, settings.get("top"), rules)
            cells = cells.assign(p=p[0], found=found[0])
            told["least"] = bound
            if found[0].sum() == (~np.isnan(p[0])).sum():
                told["reason"], cells["found"] = EVERY_PLACE, False
            elif found[0].any():
                told |= overlap_of(asked.quantity, int(found[0].sum()))
                if len(found) > 1 + FEWEST_PICTURES:
                    cells["stays"] = np.where(found[0], found[1:].mean(axis=0), np.nan)
        if cells.empty:
            cells = cells.reindex([0]).assign(found=False)
        yield cells.assign(
            **_run_of(experiment),
            experiment=experiment.name,
            noise_level=of_roles["noise_level"].iloc[0],
            site=site,
            axes=axes_of(experiment, site),
            quantity=asked.quantity,
            null=asked.null,
            threshold=asked.threshold.name,
            seed=asked.seed,
            **told,
        )


def axes_of(experiment: Experiment, site: str) -> str:
    """What a site's places are told by: those of sites with the same can be compared."""
    heads = " heads" if SITES[site].heads else ""
    together = ", all positions together" if experiment.positions == TOGETHER else ""
    return f"{SITES[site].tower}{heads}{together}"


def _run_of(experiment: Experiment) -> dict[str, Any]:
    """The corruption in words, and the seed of its draws."""
    run = experiment.corrupted
    if run is None or run.corruption is None:
        return {"corruption": "clean runs", "draw_seed": 0}
    one = run.corruption
    where = f"{one.at}, {one.role}" if one.role else one.at
    return {"corruption": f"{one.kind} at {where}", "draw_seed": one.seed}


def _open_cells(of_roles: pd.DataFrame, columns: list[str]) -> Arranged:
    """The included examples at the cells of which nothing is known beforehand.

    Of heads the roles' alone: the means over all positions are made of the same.
    """
    of_positions = (of_roles["head"] == NO_HEAD) | (of_roles["token_role"] != ALL)
    rows = of_roles[of_positions] if of_positions.any() else of_roles
    part = arrange(rows, columns)
    return part.among(part.examples["included"]).at(known_of(rows, part.cells) == "")


def _ways(settings: Mapping[str, Any]) -> Iterator[Asked]:
    for measure in settings["quantities"]:
        named = measure["least"]
        several = len(named) > 1
        thresholds = [
            Threshold(f"least change {number}" if several else "least change", least)
            for number, least in enumerate(named, 1)
        ]
        thresholds += [Threshold(f"mean + {k:g} sd", 0.0, k) for k in settings["spreads"]]
        for null, threshold, seed in product(settings["nulls"], thresholds, settings["seeds"]):
            yield Asked(measure["quantity"], null, threshold, seed)


def _why_silent(asked: Asked, part: Arranged, values: Mapping[str, np.ndarray], hides: bool) -> str:
    """Why a universe says nothing; empty where it can be tested."""
    pictures = part.examples["picture"].nunique()
    if not len(part.cells):
        return NO_PLACE
    if asked.null == WITHOUT:
        return FEW_PICTURES if pictures < FEWEST_PICTURES else "" if hides else NOTHING_HIDDEN
    with_null = ~np.isnan(values[CONTRAST]).all(axis=1)
    return why_untested(pictures, part.among(with_null).examples["picture"].nunique(), hides)


def _intervals(values: np.ndarray, part: Arranged, rules: Rules) -> dict[str, np.ndarray]:
    if not len(values):
        return {}
    means = mean_intervals(values, rules.resamples, rules.seed, part.pictures)
    return {name: means[name].to_numpy() for name in ("mean", "low", "high", "pictures")}


Tests = Callable[[str, float, int], np.ndarray]


def _tests(values: Mapping[str, np.ndarray], part: Arranged, rules: Rules) -> Tests:
    """The family-wise p (1 + P, M) by quantity, least change and seed, each computed once."""

    @cache
    def tests(name: str, least: float, seed: int) -> np.ndarray:
        enough = of_enough(values[name], part.pictures)
        whole = max_t_test(enough, rules.resamples, seed, part.pictures, least).p
        without = left_out_tests(enough, rules.resamples, seed, part.pictures, least)
        return np.vstack([whole, without])

    return tests


def _found(
    asked: Asked,
    values: Mapping[str, np.ndarray],
    part: Arranged,
    tests: Tests,
    top: int | None,
    rules: Rules,
) -> tuple[np.ndarray, float, np.ndarray]:
    """The p (1 + P, M), the least mean of all pictures' set, and the sets (1 + P, M)."""
    change = values[asked.quantity]
    p = tests(asked.quantity, asked.threshold.least, asked.seed)
    if asked.null == BEYOND:
        # The null is measured in probability, whose unit the least change has there alone.
        least = asked.threshold.least if asked.quantity == TESTED else 0.0
        p = np.maximum(p, tests(CONTRAST, least, asked.seed))
    means = _means(change, part.pictures)
    bound = np.full(len(means), asked.threshold.least)
    if asked.threshold.deviations is not None:
        told = np.where(np.isnan(p), np.nan, means)
        bound = _above_mean(told, asked.threshold.deviations)
    with np.errstate(invalid="ignore"):
        found = (p < SIGNIFICANT) & (means >= bound[:, None])
    if top is not None:
        largest = np.vstack([_largest(row, top) for row in np.where(np.isnan(p), np.nan, means)])
        found &= largest
        # Asked of all pictures alone: without one, that a place leads is enough.
        found[0] &= _clearly_above(change, part.pictures, found[0], largest[0], asked.seed, rules)
    return p, float(bound[0]), found


def _above_mean(means: np.ndarray, deviations: float) -> np.ndarray:
    """The mean of each row's cells and so many of their standard deviations more: (R,)."""
    there = ~np.isnan(means)
    count = np.maximum(there.sum(axis=1), 1)
    mean = np.where(there, means, 0).sum(axis=1) / count
    squares = np.where(there, (means - mean[:, None]) ** 2, 0).sum(axis=1) / count
    return mean + deviations * np.sqrt(squares)


def _means(values: np.ndarray, pictures: list[str]) -> np.ndarray:
    """The means over examples, of all and without each picture: (1 + P, M)."""
    sums, counts = by_picture(values, pictures)
    rest = np.vstack([sums.sum(axis=0), sums.sum(axis=0) - sums])
    number = np.vstack([counts.sum(axis=0), counts.sum(axis=0) - counts])
    return rest / np.where(number > 0, number, np.nan)


def _largest(means: np.ndarray, top: int) -> np.ndarray:
    """Which cells (M,) are the largest so many; none of those that tie for the last place."""
    ranked = np.sort(np.where(np.isnan(means), -np.inf, means))[::-1]
    if top >= len(ranked):
        return ~np.isnan(means)
    cut = ranked[top]
    return np.nan_to_num(means, nan=-np.inf) > cut + ROUNDING * abs(np.nan_to_num(cut))


def _clearly_above(
    change: np.ndarray,
    pictures: list[str],
    found: np.ndarray,
    largest: np.ndarray,
    seed: int,
    rules: Rules,
) -> np.ndarray:
    """Which of the cells found (M,) are larger than every cell beside the largest, by a test.

    Only then is a place known to be among the first so many: where all are alike, some are
    always the largest of a sample (Mogstad, Romano, Shaikh & Wilhelm 2024, Inference for ranks
    with applications to mobility across neighbourhoods and academic achievement across countries).
    """
    inside, outside = np.flatnonzero(found), np.flatnonzero(~largest)
    tested = outside[by_picture(change[:, outside], pictures).pictures >= FEWEST_PICTURES]
    clear = np.zeros(len(found), dtype=bool)
    clear[inside] = True
    if inside.size and tested.size:
        above = (change[:, inside, None] - change[:, None, tested]).reshape(len(change), -1)
        above = of_enough(above, pictures)
        p = max_t_test(above, rules.resamples, seed, pictures, sides=1).p
        clear[inside] = (p < SIGNIFICANT).reshape(inside.size, tested.size).all(axis=1)
    return clear


def overlap(values: np.ndarray, pictures: list[str], size: int, seed: int) -> dict[str, float]:
    """The mean overlap of random halves' largest cells, `size` each, and that by chance.

    values: (N, M). Overlap is what both have over what either has (Jaccard). Cells that tie are
    ranked at random in each half, so that cells all alike overlap by chance.
    """
    units = by_picture(values, pictures)
    count, cells = units.sums.shape
    random = np.random.default_rng(seed)
    shares = []
    for _ in range(HALVINGS):
        half = np.isin(np.arange(count), random.permutation(count)[: count // 2])
        first, second = (
            _first_of(units.sums[chosen], units.counts[chosen], size, random)
            for chosen in (half, ~half)
        )
        both = len(first & second)
        shares.append(both / (2 * size - both))
    common = np.arange(size + 1)
    by_chance = hypergeom.pmf(common, cells, size, size) * common / (2 * size - common)
    return {"overlap": float(np.mean(shares)), "overlap_by_chance": float(by_chance.sum())}


def _first_of(
    sums: np.ndarray, counts: np.ndarray, size: int, random: np.random.Generator
) -> set[int]:
    """The cells of the largest means, so many; ties in random order."""
    number = counts.sum(axis=0)
    means = np.where(number > 0, sums.sum(axis=0) / np.maximum(number, 1), -np.inf)
    order = random.permutation(len(means))
    return set(order[np.argsort(-means[order], kind="stable")[:size]].tolist())
