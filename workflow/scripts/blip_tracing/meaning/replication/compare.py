"""A run held against published numbers, number by number and quantity by quantity.

Deterministic numbers must lie within their error bound. The published noise was unseeded and drawn
afresh for every cell; the run's is seeded, and all cells of a draw share it. Every cell has the
same expectation either way, but the numbers themselves cannot be had again. So each published mean
is held against a 95 % prediction interval, by a bootstrap of two levels: the run's draws are
resampled together, and then each cell takes one of them at random for every fresh draw that the
published mean is over.

What such intervals are worth: the first level stands for our not knowing the expectation better
than S draws tell, and S draws tell little of rare high values. With ten draws, more than 5 % of
honest numbers fall outside (a cell that few draws revive is often missed by all of ours), and all
numbers are held against the same draws, so they fall outside together. A binomial count at 5 %
would take a faithful replication for a failed one. So a quantity is judged by what the same
procedure gives where the truth is known: in each of `WORLDS` simulated replications the run's own
draws are the truth, resampled draws are the run, and fresh draws of every cell are what was
published. How many numbers lie outside in the mean is what to expect; and the quantity differs
where hardly any of the simulations lies as far off as the published numbers do, by the sum of their
squared distances from the run's means over the variance that the run's draws predict (the count
alone would not tell a little outside from far outside). resources/published/README.md says how
often it errs.

That a quantity does not differ says little where little could have differed. So it agrees only
where it is shown to lie within a bound (`FACTOR`, and less than a layer); else the run cannot tell.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from blip_tracing.machinery.tables import read_table
from blip_tracing.meaning.replication.published import KEYS, QUANTITIES, WHOLE_NUMBERS

# What float32 sums of another machine or library may add to a published number's error.
TOLERANCES = {"top_logit": 1e-3}
PROBABILITY_TOLERANCE = 1e-5
TAILS = (0.025, 0.975)
WORLDS = 500
RESAMPLES_A_WORLD = 200
# Where fewer of the simulated replications lie as far off, the quantity differs.
LEAST_P = 0.01
# Fewer draws say too little of their own spread to judge by.
FEWEST_DRAWS = 5
# The bound within which a quantity over noise agrees: with 95 % confidence the mean of its numbers
# is off by less than this factor, and a map is nearer to the published one as it is than one layer
# off in either direction.
FACTOR = 1.5
CONFIDENT = 1.645
# Layers by which a map may be off to be found out.
SHIFTS = (-2, -1, 0, 1, 2)

SHIFTED = "patching_shifted"
# In the order of the verdicts.
TITLES = {
    "top_logit": QUANTITIES["top_logit"].title,
    "top_probability": QUANTITIES["top_probability"].title,
    "patching": QUANTITIES["patching"].title,
    SHIFTED: "cells of the patching map, block_output[ℓ − 1]",
    **{name: quantity.title for name, quantity in QUANTITIES.items() if quantity.unseeded},
}
AGREES, DIFFERS, CANNOT_TELL = "agrees", "differs", "cannot tell"
# Of a single number over noise, which is not judged alone.
INSIDE, OUTSIDE = "inside", "outside"
UNSEEDED, ABSENT, TOO_FEW = "unseeded", "not in the run", "too few draws"
SHOWN = "unseeded, shown as a distribution"

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Redrawn:
    """Published means over fresh noise, and the run's draws of the same cells.

    rows: the labels of the published numbers; draws: probabilities (S, C), rows sharing noise;
    fresh: draws that each cell's mean is over; whole: whether a number is the mean of all cells;
    error: the published numbers' errors, (C,) or, of whole maps, one a number; cells: the layer and
    position of each number of a map.
    """

    example: str
    rows: pd.Index
    draws: np.ndarray
    fresh: int
    whole: bool
    error: np.ndarray
    cells: pd.MultiIndex | None = None

    @cached_property
    def pairs(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """By a shift in layers, the cells that have a partner that many layers on, and these."""
        return {} if self.cells is None else pairs_of(self.cells)

    def means(self, chosen: np.ndarray) -> np.ndarray:
        """What is published where cells take these draws (N, fresh, C): (N, C), or whole (N, 1)."""
        cells = self.draws[chosen, np.arange(self.draws.shape[1])].mean(axis=1)
        return cells.mean(axis=1, keepdims=True) if self.whole else cells

    def predict(
        self, run: np.ndarray, resamples: int, generator: np.random.Generator
    ) -> np.ndarray:
        """Numbers as published, each from a resample of the draws `run` (S,): as `means`."""
        draws, cells = len(run), self.draws.shape[1]
        resampled = run[generator.integers(draws, size=(resamples, draws))]
        picks = generator.integers(draws, size=(resamples, self.fresh, cells))
        return self.means(resampled[np.arange(resamples)[:, None, None], picks])

    def interval(
        self, run: np.ndarray, resamples: int, generator: np.random.Generator
    ) -> np.ndarray:
        """The 95 % prediction interval (2, C or 1) by the draws `run` (S,)."""
        return np.quantile(self.predict(run, resamples, generator), TAILS, axis=0)

    def distance(self, published: np.ndarray, run: np.ndarray) -> float:
        """How far numbers lie from the means of the draws `run` (S,), in predicted variances.

        One variance for all cells: that of a cell without a high value among so few draws is no
        measure.
        """
        draws = self.draws[run]
        cells = draws.var(axis=0, ddof=1)
        if self.whole:
            means = draws.mean()
            shared = draws.mean(axis=1).var(ddof=1) / len(run)
            variance = cells.mean() / (self.fresh * draws.shape[1]) + shared
        else:
            means = draws.mean(axis=0)
            variance = cells.mean() * (1 / self.fresh + 1 / len(run))
        off = (published - means) ** 2
        return float((off / (variance + self.error**2)).sum())

    def mean(self, run: np.ndarray) -> np.ndarray:
        """What the draws `run` (S,) give in place of the published numbers, one for each."""
        means = self.draws[run].mean(axis=0)
        return np.full(len(self.rows), means.mean()) if self.whole else means

    def beside_a_layer_off(self) -> tuple[Redrawn, Redrawn]:
        """The map where it has a next layer, and there with the next layer's expectations.

        By as much as the draws' means differ from layer to layer, less what they would by chance.
        """
        here, there = self.pairs[1]
        steps = self.draws[:, there] - self.draws[:, here]
        means = steps.mean(axis=0)
        chance = steps.var(axis=0, ddof=1).mean() / len(steps)
        size = max((means**2).mean(), np.finfo(float).tiny)
        kept = np.sqrt(max(0.0, 1 - chance / size))
        part = replace(
            self,
            rows=self.rows[here],
            draws=self.draws[:, here],
            error=self.error[here],
            cells=None,
        )
        return part, replace(part, draws=part.draws + kept * means)

    def publish(self, generator: np.random.Generator) -> np.ndarray:
        """The numbers, had their fresh noise been drawn from the run's draws."""
        draws, cells = self.draws.shape
        times = len(self.rows) if self.whole else 1
        picks = generator.integers(draws, size=(times, self.fresh, cells))
        return self.means(picks).reshape(-1)


def pairs_of(cells: pd.MultiIndex) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """For each of SHIFTS, which cells (layer, position) have one that many layers on, and which."""
    layers, positions = (cells.get_level_values(level) for level in (0, 1))
    pairs = {}
    for shift in SHIFTS:
        moved = pd.MultiIndex.from_arrays([layers + shift, positions])
        partners = cells.get_indexer(moved)
        here = np.flatnonzero(partners >= 0)
        pairs[shift] = here, partners[here]
    return pairs


# ---- number by number --------------------------------------------------------------------------


def compare(published: pd.DataFrame, run: Tables, resamples: int, seed: int) -> pd.DataFrame:
    """Every published number beside the run's.

    published: as `read_published` reads it; run: as `as_published` gathers it. Where the run
    patched block_output, its map is compared too (SHIFTED): block_output[ℓ − 1] is what flows into
    layer ℓ, and the figures' layer ℓ is the block's input.

    Adds to the keys: place (the keys in words), published, error_bound (with the tolerance of the
    arithmetic), reproduced (over noise, the mean of the run's draws), low and high (the prediction
    interval, only where noise is averaged) and verdict. The same seed gives the same intervals.
    """
    rows = pd.concat([published, _shifted(published, run)], ignore_index=True)
    tolerance = rows["quantity"].map(TOLERANCES).fillna(PROBABILITY_TOLERANCE)
    compared = rows[list(KEYS)].assign(
        place=_places(rows, run["tokens"]),
        published=rows["value"],
        error_bound=rows["error"] + tolerance,
        reproduced=_reproduced(rows, run),
        low=np.nan,
        high=np.nan,
    )
    generator = np.random.default_rng(seed)
    for group in redrawn(compared, run):
        if len(group.draws) >= FEWEST_DRAWS:
            low, high = group.interval(np.arange(len(group.draws)), resamples, generator)
            compared.loc[group.rows, "low"] = np.broadcast_to(low, len(group.rows))
            compared.loc[group.rows, "high"] = np.broadcast_to(high, len(group.rows))
    return compared.assign(verdict=_verdicts(compared))


def read_compared(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read what `compare` gave and `write_table` wrote."""
    whole: dict[str, str] = dict.fromkeys(WHOLE_NUMBERS, "Int64")
    return read_table(path).astype(whole)


def as_published(tables: Tables, like: Mapping[str, Sequence[str]]) -> dict[str, pd.DataFrame]:
    """The run's tables in the published experiments' places.

    tables: runs, tokens, baseline and the experiments that `like` names; like: as
    `published.like_published` gives it. Where several experiments measured a site and noise level,
    the one with the most draws is taken.
    """
    run = {name: tables[name] for name in ("runs", "tokens", "baseline")}
    return run | {
        kind: _most_drawn([tables[name] for name in names]) for kind, names in like.items() if names
    }


def _most_drawn(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    rows = pd.concat([table.assign(of=number) for number, table in enumerate(tables)])
    keys = [key for key in ("example", "site", "noise_level") if key in rows]
    # Where nothing is drawn all have as many, and the first is taken.
    drawn = rows if "draw" in rows else rows.assign(draw=0)
    count = drawn.groupby([*keys, "of"])["draw"].nunique()
    best = pd.MultiIndex.from_tuples(count.groupby(keys).idxmax(), names=[*keys, "of"])
    kept = pd.MultiIndex.from_frame(rows[[*keys, "of"]]).isin(best)
    return rows[kept].drop(columns="of").reset_index(drop=True)


def redrawn(compared: pd.DataFrame, run: Tables) -> Iterator[Redrawn]:
    """The judged numbers over noise that the run has, those of the same draws together."""
    judged = [name for name, quantity in QUANTITIES.items() if quantity.judged]
    noisy = compared[compared["draws"].notna() & compared["quantity"].isin(judged)]
    keys = ["quantity", "example", "question", "token_id", "site", "noise_level", "draws"]
    for _, numbers in noisy.groupby(keys, sort=False):
        of = numbers.iloc[0]
        draws = draws_of(run, of)
        whole = bool(numbers["layer"].isna().all())
        if not whole:
            numbers = numbers[_cells(numbers).isin(draws.columns)]
            draws = draws[_cells(numbers)] if len(numbers) else draws.iloc[:0]
        if not draws.empty:
            yield Redrawn(
                example=of["example"],
                rows=numbers.index,
                draws=draws.to_numpy(float),
                fresh=int(of["draws"]),
                whole=whole,
                error=numbers["error_bound"].to_numpy(float),
                cells=None if whole else _cells(numbers),
            )


def draws_of(run: Tables, of: pd.Series) -> pd.DataFrame:
    """The run's map of a published number: a row a draw, a column a (layer, position).

    Empty where the run has none at that site and noise level, or followed another answer.
    """
    tracing = run["tracing"]
    rows = tracing[
        (tracing["example"] == of["example"])
        & (tracing["site"] == of["site"])
        & np.isclose(tracing["noise_level"], of["noise_level"])
    ]
    if not _follows(run, of):
        rows = rows.iloc[:0]
    return rows.pivot(index="draw", columns=["layer", "position"], values=f"p_{of['question']}")


def beyond(published: Any, low: Any, high: Any) -> Any:
    """How far numbers lie below `low` or above `high`; negative between them."""
    return np.maximum(low - published, published - high)


def _shifted(published: pd.DataFrame, run: Tables) -> pd.DataFrame:
    """The patching map as block_output has it; the input of layer 0 is no block's output."""
    of_inputs = (published["quantity"] == "patching") & (published["site"] == "encoder.block_input")
    rows = published[of_inputs & (published["layer"] > 0)]
    if rows.empty or "encoder.block_output" not in set(run["patching"]["site"]):
        return rows.iloc[:0]
    return rows.assign(quantity=SHIFTED, site="encoder.block_output", layer=rows["layer"] - 1)


def _reproduced(rows: pd.DataFrame, run: Tables) -> pd.Series:
    found = pd.Series(np.nan, index=rows.index)
    for quantity, column in (("top_logit", "logit"), ("top_probability", "probability")):
        answered = rows[rows["quantity"] == quantity]
        found[answered.index] = _looked_up(
            answered, run["baseline"], column, ["question", "token_id"]
        )
    patched = rows[rows["quantity"].isin(["patching", SHIFTED])]
    for _, part in patched.groupby(["example", "question", "token_id"]):
        if _follows(run, part.iloc[0]):
            column, keys = f"p_{part['question'].iloc[0]}", ["site", "layer", "position"]
            found[part.index] = _looked_up(part, run["patching"], column, keys)
    noisy = rows[rows["draws"].notna()]
    for _, part in noisy.groupby(["example", "question", "token_id", "site", "noise_level"]):
        cells = draws_of(run, part.iloc[0]).mean()
        whole = part["layer"].isna()
        found[part.index[whole]] = cells.mean()
        found[part.index[~whole]] = cells.reindex(_cells(part[~whole])).to_numpy()
    return found


def _looked_up(rows: pd.DataFrame, table: pd.DataFrame, column: str, keys: list[str]) -> np.ndarray:
    keys = ["example", *keys]
    return table.set_index(keys)[column].reindex(pd.MultiIndex.from_frame(rows[keys])).to_numpy()


def _follows(run: Tables, of: pd.Series) -> bool:
    """Whether the run's answer, whose probability it records, is that of the published number."""
    answers = run["runs"]
    asked = answers[(answers["example"] == of["example"]) & (answers["question"] == of["question"])]
    return bool((asked["answer_id"] == of["token_id"]).any())


def _cells(rows: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(rows[["layer", "position"]].astype(int))


def _verdicts(compared: pd.DataFrame) -> pd.Series:
    exact = compared["draws"].isna()
    judged = compared["quantity"].map(lambda name: name == SHIFTED or QUANTITIES[name].judged)
    off = (compared["reproduced"] - compared["published"]).abs()
    far = beyond(compared["published"], compared["low"], compared["high"])
    return pd.Series(
        np.select(
            [
                compared["reproduced"].isna(),
                exact & (off <= compared["error_bound"]),
                exact,
                ~judged,
                compared["low"].isna(),
                far <= compared["error_bound"],
            ],
            [ABSENT, AGREES, DIFFERS, UNSEEDED, TOO_FEW, INSIDE],
            OUTSIDE,
        ),
        index=compared.index,
    )


# ---- quantity by quantity ----------------------------------------------------------------------


class Worlds(NamedTuple):
    """Simulated replications, each array (WORLDS,) but for `gains`.

    outside: numbers outside their intervals; distances: how far off all are (`Redrawn.distance`,
    summed); ratios: log of the published numbers' mean over the run's; correlations: of the two, as
    Fisher's z (missing where either has no spread); gains: (WORLDS, 2), by how much a map fits
    worse one layer off, downwards and upwards (`_gain`, summed).
    """

    outside: np.ndarray
    distances: np.ndarray
    ratios: np.ndarray
    correlations: np.ndarray
    gains: np.ndarray


def judge(compared: pd.DataFrame, run: Tables, seed: int) -> pd.DataFrame:
    """A verdict on every quantity of a comparison that `compare` made.

    Columns: quantity, title, compared, agree (numbers within their bound, or inside their
    interval), expected (to agree: all, or over noise the mean of the simulated replications), p
    (over noise, the share of these that lie as far off), correlation of the published numbers with
    the run's, and over noise its 95 % interval (correlation_low, correlation_high), shift (of maps:
    the published layer ℓ looks most like the run's ℓ + shift, by squared distance), power (over
    noise, how often a run with half the probabilities, or a map one layer off, would differ, the
    lesser of the two, simulated from the run's own draws), verdict, where (the worst number that
    does not agree, in words, or "").
    """
    generator = np.random.default_rng(seed)
    groups = list(redrawn(compared, run))
    records = []
    for quantity in TITLES:
        numbers = compared[compared["quantity"] == quantity]
        if not numbers.empty:
            own = [group for group in groups if group.rows.isin(numbers.index).all()]
            records.append({"quantity": quantity, **_judged(numbers, own, generator)})
    return pd.DataFrame(records)


def simulate(groups: Sequence[Redrawn], generator: np.random.Generator) -> Worlds:
    """Replications of which the groups' own draws are the truth."""
    outside, distances = np.zeros(WORLDS, dtype=int), np.zeros(WORLDS)
    ratios, correlations, gains = np.zeros(WORLDS), np.zeros(WORLDS), np.zeros((WORLDS, 2))
    for world in range(WORLDS):
        runs = _resampled(groups, generator)
        given, found = [], []
        for group in groups:
            run, published = runs[group.example], group.publish(generator)
            low, high = group.interval(run, RESAMPLES_A_WORLD, generator)
            outside[world] += (beyond(published, low, high) > group.error).sum()
            distances[world] += group.distance(published, run)
            given.append(published)
            found.append(group.mean(run))
            gains[world] += _neighbours(published, found[-1], group.pairs)
        ratios[world] = _log_ratio(np.concatenate(given), np.concatenate(found))
        correlations[world] = _fisher(np.concatenate(given), np.concatenate(found))
    return Worlds(outside, distances, ratios, correlations, gains)


def power_of(groups: Sequence[Redrawn], generator: np.random.Generator) -> float:
    """How often a wrong run would differ: of half the probabilities or, of maps, one layer off.

    The truth is the groups' own draws; the lesser of the two. The threshold is that of as many
    faithful replications.
    """
    halved = [replace(group, draws=group.draws / 2) for group in groups]
    wrong: list[tuple[Sequence[Redrawn], Sequence[Redrawn]]] = [(groups, halved)]
    if all(group.pairs for group in groups):
        both = [group.beside_a_layer_off() for group in groups]
        wrong.append(([truth for truth, _ in both], [moved for _, moved in both]))
    found = []
    for truth, other in wrong:
        limit = np.quantile(_distances(truth, truth, generator), 1 - LEAST_P)
        found.append((_distances(truth, other, generator) > limit).mean())
    return float(min(found))


def _distances(
    truth: Sequence[Redrawn], judged: Sequence[Redrawn], generator: np.random.Generator
) -> np.ndarray:
    """Distances (WORLDS,) of numbers published of `truth` from runs of `judged`, cell by cell."""
    distances = np.zeros(WORLDS)
    for world in range(WORLDS):
        runs = _resampled(truth, generator)
        for of, against in zip(truth, judged, strict=True):
            distances[world] += against.distance(of.publish(generator), runs[of.example])
    return distances


def _resampled(groups: Sequence[Redrawn], generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws by example: its maps share them, whatever the noise level."""
    samples = {group.example: len(group.draws) for group in groups}
    return {name: generator.integers(size, size=size) for name, size in samples.items()}


def _log_ratio(published: np.ndarray, found: np.ndarray) -> float:
    """Log of the published numbers' mean over the run's, none of which is taken for nothing."""
    least = PROBABILITY_TOLERANCE
    return float(np.log(max(published.mean(), least) / max(found.mean(), least)))


def correlation(published: np.ndarray, found: np.ndarray) -> float:
    """Of published numbers and the run's; missing where either has no spread."""
    return float(np.tanh(_fisher(published, found)))


def _fisher(published: np.ndarray, found: np.ndarray) -> float:
    """Correlation as Fisher's z, which has a spread that hardly depends on it."""
    if len(published) < 3 or min(np.ptp(published), np.ptp(found)) == 0:
        return float("nan")
    limit = 1 - 1e-12
    return float(np.arctanh(np.clip(np.corrcoef(published, found)[0, 1], -limit, limit)))


def _gain(published: np.ndarray, found: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> float:
    """By how much larger the sum of squared distances is with a map moved, over the same cells."""
    here, there = pairs
    off, as_it_is = published[here] - found[there], published[here] - found[here]
    return float((off**2 - as_it_is**2).sum())


def _neighbours(
    published: np.ndarray, found: np.ndarray, pairs: Mapping[int, tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """`_gain` of one layer down and of one up, (2,); none of what is no map."""
    return np.array([_gain(published, found, pairs[k]) if pairs else 0.0 for k in (-1, 1)])


def best_shift(numbers: pd.DataFrame) -> float:
    """The shift of a map's layers, of SHIFTS, with the least mean squared distance to the run's.

    A shift is held against none on the cells that both have. Missing of numbers that are no map.
    """
    maps = numbers.dropna(subset=["layer", "reproduced"])
    if maps.empty:
        return float("nan")
    gains = dict.fromkeys(SHIFTS, 0.0)
    counts = dict.fromkeys(SHIFTS, 0)
    for _, part in maps.groupby(["example", "noise_level", "draw"], dropna=False):
        published, found = (part[name].to_numpy(float) for name in ("published", "reproduced"))
        for shift, pairs in pairs_of(_cells(part)).items():
            gains[shift] += _gain(published, found, pairs)
            counts[shift] += len(pairs[0])
    return min(SHIFTS, key=lambda shift: (gains[shift] / max(counts[shift], 1), abs(shift)))


def _judged(
    numbers: pd.DataFrame, groups: Sequence[Redrawn], generator: np.random.Generator
) -> dict[str, object]:
    met = set(numbers["verdict"])
    agree = int(numbers["verdict"].isin([AGREES, INSIDE]).sum())
    there = numbers.dropna(subset="reproduced")
    found = [there[name].to_numpy(float) for name in ("published", "reproduced")]
    facts: dict[str, object] = {
        "title": TITLES[numbers["quantity"].iloc[0]],
        "compared": len(numbers),
        "agree": agree,
        "expected": float(len(numbers)),
        "p": np.nan,
        "correlation": correlation(*found),
        "correlation_low": np.nan,
        "correlation_high": np.nan,
        "shift": best_shift(numbers),
        "power": np.nan,
        "verdict": AGREES if agree == len(numbers) else DIFFERS,
        "where": _where(numbers),
    }
    if numbers["draws"].isna().all():
        return facts
    if not met & {INSIDE, OUTSIDE}:
        verdict = next(
            text for word, text in ((UNSEEDED, SHOWN), (TOO_FEW, TOO_FEW), (ABSENT, ABSENT))
            if word in met
        )  # fmt: skip
        unknown = dict.fromkeys(("expected", "correlation", "shift"), np.nan)
        return {**facts, **unknown, "compared": 0, "verdict": verdict, "where": ""}
    compared = int(numbers["verdict"].isin([INSIDE, OUTSIDE]).sum())
    return {**facts, "compared": compared, **_over_noise(numbers, groups, generator)}


def _over_noise(
    numbers: pd.DataFrame, groups: Sequence[Redrawn], generator: np.random.Generator
) -> dict[str, object]:
    """What is judged by simulated replications: see `judge`."""
    worlds = simulate(groups, generator)
    given = [numbers["published"][group.rows].to_numpy() for group in groups]
    draws = [np.arange(len(group.draws)) for group in groups]
    means = [group.mean(run) for group, run in zip(groups, draws, strict=True)]
    off = sum(
        group.distance(published, run)
        for group, published, run in zip(groups, given, draws, strict=True)
    )
    p = float((1 + (worlds.distances >= off).sum()) / (1 + WORLDS))
    together = np.concatenate(given), np.concatenate(means)
    z = _fisher(*together)
    half = 1.96 * worlds.correlations.std()
    gains = np.sum(
        [
            _neighbours(published, mean, group.pairs)
            for group, published, mean in zip(groups, given, means, strict=True)
        ],
        axis=0,
    )
    within = _within_factor(_log_ratio(*together), worlds.ratios)
    if any(group.pairs for group in groups):
        within &= bool((gains > CONFIDENT * worlds.gains.std(axis=0)).all())
    return {
        "expected": sum(map(len, given)) - float(worlds.outside.mean()),
        "p": p,
        "correlation": np.tanh(z),
        "correlation_low": np.tanh(z - half),
        "correlation_high": np.tanh(z + half),
        "power": power_of(groups, generator),
        "verdict": DIFFERS if p < LEAST_P else AGREES if within else CANNOT_TELL,
    }


def _within_factor(ratio: float, simulated: np.ndarray) -> bool:
    """Whether the interval of a log ratio, by the errors of simulated ones, lies within FACTOR."""
    low, high = np.quantile(simulated, TAILS)
    return bool(max(abs(ratio - low), abs(ratio - high)) < np.log(FACTOR))


def disagreeing(compared: pd.DataFrame) -> pd.DataFrame:
    """The rows of a comparison that do not agree, deterministic before noisy, the worst first."""
    wrong = compared[compared["verdict"].isin([ABSENT, DIFFERS, OUTSIDE])]
    low = wrong["low"].fillna(wrong["reproduced"])
    high = wrong["high"].fillna(wrong["reproduced"])
    distance = beyond(wrong["published"], low, high) - wrong["error_bound"]
    ranked = wrong.assign(
        noisy=wrong["draws"].notna(), absent=wrong["verdict"] == ABSENT, distance=distance
    ).sort_values(["noisy", "absent", "distance"], ascending=[True, False, False], kind="stable")
    return ranked.drop(columns=["noisy", "absent", "distance"])


def top_tokens(compared: pd.DataFrame, example: str, role: str) -> pd.DataFrame:
    """A question's published tokens by rank: logit and probability, published and of the run."""
    sides = {}
    for kind in ("logit", "probability"):
        rows = compared[
            (compared["quantity"] == f"top_{kind}")
            & (compared["example"] == example)
            & (compared["question"] == role)
        ]
        numbers = rows.set_index(["rank", "token", "token_id"])[["published", "reproduced"]]
        numbers = numbers.rename(columns={"reproduced": "this run"})
        sides[kind] = numbers.assign(difference=numbers["this run"] - numbers["published"])
    return pd.concat(sides, axis=1).rename_axis(index={"token_id": "id"})


def _where(numbers: pd.DataFrame) -> str:
    """The worst number that does not agree and how many there are, in words."""
    wrong = disagreeing(numbers)
    if wrong.empty:
        return ""
    worst = wrong.iloc[0]
    more = f"; the worst of {len(wrong)}" if len(wrong) > 1 else ""
    if worst["verdict"] == ABSENT:
        more = more.replace("the worst", "one")
        return f"{worst['place']}: p({worst['token']}) is {ABSENT}{more}"
    digits = 5 if worst["quantity"] == "top_logit" else 4
    stated = f"{worst['place']}: published {worst['published']:.{digits}f}"
    if worst["verdict"] == OUTSIDE:
        return f"{stated}, predicted {worst['low']:.4f} to {worst['high']:.4f}{more}"
    return (
        f"{stated} ± {worst['error_bound']:.2g}, reproduced {worst['reproduced']:.{digits}f}{more}"
    )


# ---- words -------------------------------------------------------------------------------------


def _places(rows: pd.DataFrame, tokens: pd.DataFrame) -> list[str]:
    known = {
        (row["example"], row["question"], row["position"]): row["token"]
        for row in tokens.to_dict("records")
    }
    return [_place(row, known) for row in rows.to_dict("records")]


def _place(row: dict, tokens: dict[tuple[str, str, int], str]) -> str:
    """A number's keys, as one would say them: `layer 7, position 7 (animal ← shirt)`."""
    if pd.notna(row["rank"]):
        return f"{row['question']} question, rank {row['rank']} ({row['token']})"
    parts = []
    if pd.notna(row["noise_level"]):
        parts.append(f"σ = {row['noise_level']:g}")
    if pd.notna(row["draw"]):
        parts.append(f"iteration {row['draw']}")
    if pd.notna(row["layer"]):
        base, source = (
            tokens.get((row["example"], role, row["position"]), "?") for role in ("base", "source")
        )
        brings = f" ← {source}" if pd.isna(row["noise_level"]) and source != base else ""
        parts += [f"layer {row['layer']}", f"position {row['position']} ({base}{brings})"]
    place = ", ".join(parts)
    return f"{row['site']} {place}" if row["site"] == "encoder.block_output" else place
