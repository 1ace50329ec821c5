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
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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

SHIFTED = "patching_shifted"
# In the order of the verdicts.
TITLES = {
    "top_logit": QUANTITIES["top_logit"].title,
    "top_probability": QUANTITIES["top_probability"].title,
    "patching": QUANTITIES["patching"].title,
    SHIFTED: "cells of the patching map, block_output[ℓ − 1]",
    **{name: quantity.title for name, quantity in QUANTITIES.items() if quantity.unseeded},
}
EXPERIMENTS = {
    **{name: quantity.experiment for name, quantity in QUANTITIES.items()},
    SHIFTED: "patching",
}
AGREES, DIFFERS, INSIDE, OUTSIDE = "agrees", "differs", "inside", "outside"
UNSEEDED, ABSENT, TOO_FEW = "unseeded", "not in the run", "too few draws"
SHOWN = "unseeded, shown as a distribution"

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Redrawn:
    """Published means over fresh noise, and the run's draws of the same cells.

    rows: the labels of the published numbers; draws: probabilities (S, C), rows sharing noise;
    fresh: draws that each cell's mean is over; whole: whether a number is the mean of all cells;
    error: the published numbers' errors, (C,) or, of whole maps, one a number.
    """

    example: str
    rows: pd.Index
    draws: np.ndarray
    fresh: int
    whole: bool
    error: np.ndarray

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

    def publish(self, generator: np.random.Generator) -> np.ndarray:
        """The numbers, had their fresh noise been drawn from the run's draws."""
        draws, cells = self.draws.shape
        times = len(self.rows) if self.whole else 1
        picks = generator.integers(draws, size=(times, self.fresh, cells))
        return self.means(picks).reshape(-1)


# ---- number by number --------------------------------------------------------------------------


def compare(published: pd.DataFrame, run: Tables, resamples: int, seed: int) -> pd.DataFrame:
    """Every published number beside the run's.

    published: as `read_published` reads it; run: the tables baseline, runs, tokens and, as far
    as published numbers are of them, patching and tracing. Where the run patched block_output, its
    map is compared too (SHIFTED): block_output[ℓ − 1] is what flows into layer ℓ, and the figures'
    layer ℓ is the block's input.

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


def experiments_of(compared: pd.DataFrame) -> list[str]:
    """The experiments whose tables a comparison is with."""
    return sorted({"baseline", *(EXPERIMENTS[name] for name in compared["quantity"].unique())})


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


def judge(compared: pd.DataFrame, run: Tables, seed: int) -> pd.DataFrame:
    """A verdict on every quantity of a comparison that `compare` made.

    Columns: quantity, title, compared, agree (numbers within their bound, or inside their
    interval), expected (to agree: all, or over noise the mean of the simulated replications), p
    (over noise, the share of these that lie as far off), verdict, where (the worst number that does
    not agree, in words, or "").
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


def simulate(
    groups: Sequence[Redrawn], generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Replications of which the groups' own draws are the truth.

    Returns, each (WORLDS,), how many numbers lie outside their intervals, and how far off all are
    (`Redrawn.distance`, summed).
    """
    samples = {group.example: len(group.draws) for group in groups}
    outside, distances = np.zeros(WORLDS, dtype=int), np.zeros(WORLDS)
    for world in range(WORLDS):
        # Maps of one example share their draws, whatever the noise level.
        runs = {name: generator.integers(size, size=size) for name, size in samples.items()}
        for group in groups:
            run, published = runs[group.example], group.publish(generator)
            low, high = group.interval(run, RESAMPLES_A_WORLD, generator)
            outside[world] += (beyond(published, low, high) > group.error).sum()
            distances[world] += group.distance(published, run)
    return outside, distances


def _judged(
    numbers: pd.DataFrame, groups: Sequence[Redrawn], generator: np.random.Generator
) -> dict[str, object]:
    met = set(numbers["verdict"])
    agree = int(numbers["verdict"].isin([AGREES, INSIDE]).sum())
    facts: dict[str, object] = {
        "title": TITLES[numbers["quantity"].iloc[0]],
        "compared": len(numbers),
        "agree": agree,
        "expected": float(len(numbers)),
        "p": np.nan,
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
        return {**facts, "compared": 0, "expected": np.nan, "verdict": verdict, "where": ""}
    outside, distances = simulate(groups, generator)
    off = sum(
        group.distance(numbers["published"][group.rows].to_numpy(), np.arange(len(group.draws)))
        for group in groups
    )
    compared = int(numbers["verdict"].isin([INSIDE, OUTSIDE]).sum())
    p = float((1 + (distances >= off).sum()) / (1 + WORLDS))
    return {
        **facts,
        "compared": compared,
        "expected": compared - float(outside.mean()),
        "p": p,
        "verdict": AGREES if p >= LEAST_P else DIFFERS,
    }


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
