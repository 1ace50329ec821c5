"""Published averages over examples whose noise was drawn afresh in every cell, and a run's.

A published mean of n examples holds one draw of each. Of the same examples a run has S draws, which
its cells share. So the two differ by what draws vary within an example alone: where σ² is the mean
of that variance over examples, by σ² (1/n + 1/(n S)) in variance. For a run of other examples the
variance between examples comes to it. Each number is held against the 95 % interval that this
gives; a map as a whole against simulated replications in which the run's own draws are the truth,
since its cells share theirs and fall outside together (as `compare` has it of the tutorial). Where
the run's draws are fresh too, simulated cells fall outside one by one.

Where nothing is drawn, each number must lie in its interval, about twice what its last digit
leaves open: a level that was solved for from a floor of as many digits moves all cells together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from blip_tracing.errors import InputError
from blip_tracing.meaning.replication.compare import AGREES, CANNOT_TELL, DIFFERS, LEAST_P, WORLDS
from blip_tracing.meaning.replication.published_averages import (
    CLEAN,
    DECODER_OUTPUT,
    ENCODER_OUTPUT,
    FLOOR,
    MEAN,
)

VERDICTS = [
    "quantity", "title", "compared", "agree", "expected", "p", "largest", "bound", "verdict",
    "where",
]  # fmt: skip
# Of a number: how many standard errors the interval of 95 % reaches.
REACH = 1.96
# A map agrees where 95 % intervals keep every cell within so much of the published one.
BOUND = 0.05
# Fewer draws tell little of what they vary by.
FEWEST_DRAWS = 5
# What rounding may do to a probability that is the same by construction.
ROUNDING = 1e-5
# At most so much of the total effect is what a place has that carries nothing.
NOTHING = 0.05
# What is less of the clean probability is hidden.
HIDDEN = 0.5
# From the numbers to how far off simulated replications lie, and how many numbers agree in them.
Simulation = Callable[[pd.DataFrame], tuple[np.ndarray, np.ndarray]]
MET, MISSED, ABSENT = "met", "missed", "not in the run"


@dataclass(frozen=True)
class Averaged:
    """A run's probabilities of the followed answer, as averages of examples are made of.

    cells: (example, site, layer, position, draw) → p, one column p; floor: (example, draw) → p;
    clean: example → p; drawn: whether the draws are of noise, not the same each time; fresh:
    whether each cell has draws of its own, which no other shares.
    """

    cells: pd.Series
    floor: pd.Series
    clean: pd.Series
    drawn: bool = True
    fresh: bool = False


def averaged(
    cells: pd.DataFrame,
    runs: pd.DataFrame,
    run: str,
    level: float,
    drawn: bool = True,
    fresh: bool = False,
) -> Averaged:
    """A run at one level of its noise; tables as the workflow writes them, of base questions.

    cells: those of its experiments, one below the other; run: the corrupted run's name.
    """
    keys = ["example", "site", "layer", "position", "draw"]
    at_level = cells[np.isclose(cells["noise_level"], level)].set_index(keys)
    noisy = runs[(runs["run"] == run) & np.isclose(runs["noise_level"], level)]
    return Averaged(
        at_level["p_base"].astype(float),
        noisy.set_index(["example", "draw"])["p_base"].astype(float),
        runs[runs["run"] == "base"].set_index("example")["p_base"].astype(float),
        drawn,
        fresh,
    )


def compare_averages(
    published: pd.DataFrame, run: Averaged, same_examples: bool, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every published average beside the run's, and a verdict on each map.

    same_examples: whether the run's examples are those published. The numbers have their columns,
    and reproduced, standard_error, low, high (missing where the run has too few draws, or no such
    cell). The verdicts: quantity (the map), title, compared, agree (inside their intervals),
    expected (to be: the mean of simulated replications), p (the share of these that lies as far
    off), both missing where nothing is drawn, largest (difference), bound (largest difference that
    is not refused), verdict, where (the number farthest outside, in words, or "").
    """
    numbers = published.assign(reproduced=np.nan, standard_error=np.nan)
    verdicts = []
    generator = np.random.default_rng(seed)
    for name, part, draws in _groups(published, run):
        means, errors = _expected(draws, part["examples"].to_numpy(), same_examples)
        numbers.loc[part.index, "reproduced"] = means
        numbers.loc[part.index, "standard_error"] = np.hypot(errors, part["error"] + ROUNDING)
        told = name == CLEAN or not run.drawn or draws.shape[1] >= FEWEST_DRAWS
        simulate = partial(_simulated, draws, same_examples, run.fresh, generator)
        judged = _judged(numbers.loc[part.index], simulate if run.drawn else None, told)
        absent = int(((published["site"] == name) & (published["quantity"] == MEAN)).sum())
        absent -= len(part) if absent else 0
        verdicts.append({"quantity": name, "title": _title(name), **_of_part(judged, absent)})
    reach = REACH * numbers["standard_error"]
    numbers = numbers.assign(low=numbers["reproduced"] - reach, high=numbers["reproduced"] + reach)
    return numbers, pd.DataFrame(verdicts, columns=VERDICTS)


def _of_part(judged: dict[str, object], absent: int) -> dict[str, object]:
    """The verdict on a map of which so many averages are not in the run: no agreement with it."""
    if not absent:
        return judged
    said = f"{absent} of the published averages are not in the run"
    verdict = CANNOT_TELL if judged["verdict"] == AGREES else judged["verdict"]
    where = "; ".join(filter(None, [str(judged["where"]), said]))
    return {**judged, "verdict": verdict, "where": where}


def _title(name: str) -> str:
    """A map, or what is no map, in words."""
    if name == CLEAN:
        return "the clean run"
    return name if name.startswith(FLOOR) else f"cells of {name}"


def _groups(
    published: pd.DataFrame, run: Averaged
) -> Iterator[tuple[str, pd.DataFrame, np.ndarray]]:
    """Each map's numbers that the run has, and its draws (E, S, C); then floors and clean."""
    wide = run.cells.unstack("draw")
    for site, part in published[published["quantity"] == MEAN].groupby("site", sort=False):
        known = wide[wide.index.get_level_values("site") == site].droplevel("site")
        # Those that every example has: questions may be of other lengths than the published.
        places = known.unstack("example").dropna().index
        keys = pd.MultiIndex.from_frame(part[["layer", "position"]].astype(int))
        part = part[keys.isin(places)]
        if len(part):
            keys = pd.MultiIndex.from_frame(part[["layer", "position"]].astype(int))
            yield str(site), part, _draws(known, keys)
    floors = published[published["quantity"] == FLOOR]
    for index in floors.index:
        draws = run.floor.unstack("draw").to_numpy()[..., None]
        yield f"floor {floors.loc[index, 'site']}".strip(), floors.loc[[index]], draws
    clean = published[published["quantity"] == CLEAN]
    if len(clean):
        yield CLEAN, clean, run.clean.to_numpy()[:, None, None]


def _draws(known: pd.DataFrame, keys: pd.MultiIndex) -> np.ndarray:
    """(E, S, C) of the cells (layer, position)."""
    examples = known.index.get_level_values("example").unique()
    parts = [known.loc[example].reindex(keys).to_numpy().T for example in examples]
    return np.stack(parts)


def _expected(
    draws: np.ndarray, published: np.ndarray, same_examples: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The run's means (C,), and the standard errors (C,) of their difference from the published."""
    examples, count, _ = draws.shape
    means = draws.mean(axis=(0, 1))
    within = draws.var(axis=1, ddof=1).mean(axis=0) if count > 1 else np.zeros(draws.shape[2])
    variance = within * (1 / published + 1 / (examples * count))
    if not same_examples:
        between = draws.mean(axis=1).var(axis=0, ddof=1)
        variance = (between + within) / published + between / examples
    return means, np.sqrt(variance)


def _judged(numbers: pd.DataFrame, simulate: Simulation | None, told: bool) -> dict[str, object]:
    off = (numbers["value"] - numbers["reproduced"]).abs().to_numpy()
    errors = numbers["standard_error"].to_numpy()
    bound = float((off + REACH * errors).max())
    found = {
        "compared": len(numbers),
        "agree": int((off <= REACH * errors).sum()),
        "expected": np.nan,
        "p": np.nan,
        "largest": float(off.max()),
        "bound": bound,
        "where": "",
    }
    if not told:
        return {**found, "verdict": CANNOT_TELL}
    if simulate is None:
        verdict = AGREES if found["agree"] == len(numbers) else DIFFERS
        return {**found, "verdict": verdict, "where": _where(numbers)}
    distances, inside = simulate(numbers)
    p = float((distances >= ((off / errors) ** 2).sum()).mean())
    verdict = DIFFERS if p < LEAST_P else AGREES if bound <= BOUND else CANNOT_TELL
    where = _where(numbers) if verdict != AGREES else ""
    return {**found, "expected": float(inside.mean()), "p": p, "verdict": verdict, "where": where}


def _where(numbers: pd.DataFrame) -> str:
    """The number that lies farthest outside its interval, in words; "" where all lie inside."""
    errors = REACH * numbers["standard_error"]
    beyond = ((numbers["value"] - numbers["reproduced"]).abs() / errors).sort_values()
    outside = int((beyond > 1).sum())
    if not outside:
        return ""
    worst = numbers.loc[beyond.index[-1]]
    low, high = (worst["reproduced"] + end * errors[worst.name] for end in (-1, 1))
    place = (
        "" if pd.isna(worst["layer"]) else f"layer {worst['layer']}, position {worst['position']}: "
    )
    more = f"; the worst of {outside}" if outside > 1 else ""
    return f"{place}published {worst['value']:.4f}, predicted {low:.4f} to {high:.4f}{more}"


def _simulated(
    draws: np.ndarray,
    same_examples: bool,
    own_draws: bool,
    generator: np.random.Generator,
    numbers: pd.DataFrame,
) -> tuple[np.ndarray, np.ndarray]:
    """How far off replications lie of which the run's draws are the truth, and how many numbers
    are inside their intervals then: both (WORLDS,).
    """
    examples, count, cells = draws.shape
    own = draws.mean(axis=1, keepdims=True)
    # As wide as the draws' expectation of their variance, which resampling them would make less.
    truth = own + (draws - own) * np.sqrt(count / max(count - 1, 1))
    size, among = int(numbers["examples"].iloc[0]), np.arange(examples)
    errors, rounding = numbers["standard_error"].to_numpy(), numbers["error"].to_numpy() + ROUNDING
    distances, inside = np.empty(WORLDS), np.empty(WORLDS)
    for world in range(WORLDS):
        ours, theirs = among, np.resize(among, size)
        if not same_examples:
            ours, theirs = (generator.integers(examples, size=n) for n in (examples, size))
        # Of a cell alone, or the same for all of them.
        drawn = generator.integers(count, size=(examples, count, cells if own_draws else 1))
        run = truth[ours[:, None, None], drawn, np.arange(cells)].mean(axis=(0, 1))
        fresh = generator.integers(count, size=(size, cells))
        given = truth[theirs[:, None], fresh, np.arange(cells)].mean(axis=0)
        given = given + generator.uniform(-1, 1, cells) * rounding
        off = (given - run) / errors
        distances[world], inside[world] = (off**2).sum(), (np.abs(off) <= REACH).sum()
    return distances, inside


# ---- what any faithful run must show -----------------------------------------------------------


def structure_of(
    run: Averaged,
    layers: int,
    whole: pd.Series | None = None,
    published: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Expectations that follow from the model and the corruption, as controls of a replication.

    The picture reaches the answer through the question encoder alone: so the clean run's last
    block output, at [DEC] in the decoder or at all positions of the encoder at once, gives the
    clean answer exactly. And the last encoder state of [SEP] is hardly read. That the corruption
    hides the answer, and how much [SEP] brings back, is asked where it is so of what was
    `published`. whole: cells, as those of the run, of an experiment that puts in all positions at
    once. Columns: expectation, found, bound, verdict.
    """
    last = layers - 1
    together = run.cells.iloc[:0] if whole is None else _at(whole, ENCODER_OUTPUT, last, 0)
    floor, clean = float(run.floor.mean()), float(run.clean.mean())
    rows = [
        (
            "the decoder's last block output gives the clean answer: largest difference",
            _largest(_at(run.cells, DECODER_OUTPUT, last, 0), run.clean),
            ROUNDING,
        ),
        (
            "the encoder's last block output at all positions does so too: largest difference",
            _largest(together, run.clean),
            ROUNDING,
        ),
    ]
    if published is None or _hides(published):
        hidden = ("the corruption hides the answer: floor / clean", floor / clean, HIDDEN)
        end = _last_position(run.cells, last)
        share = np.nan if end.empty else abs(float(end.mean()) - floor) / (clean - floor)
        rows = [
            hidden,
            *rows,
            ("[SEP] alone of it brings nothing back: share of the total effect", share, NOTHING),
        ]
    return pd.DataFrame(
        [
            (what, found, bound, ABSENT if np.isnan(found) else MET if found <= bound else MISSED)
            for what, found, bound in rows
        ],
        columns=["expectation", "found", "bound", "verdict"],
    )


def _hides(published: pd.DataFrame) -> bool:
    """Whether the published floors are below half of the published clean run."""
    of = published.groupby("quantity")["value"].max()
    return bool(of.get(FLOOR, np.nan) < HIDDEN * of.get(CLEAN, np.nan))


def _last_position(cells: pd.Series, layer: int) -> pd.Series:
    """Of the encoder's block output of a layer, the cells at the last position."""
    positions = cells[cells.index.get_level_values("site") == ENCODER_OUTPUT].index
    if positions.empty:
        return cells.iloc[:0]
    return _at(cells, ENCODER_OUTPUT, layer, int(positions.get_level_values("position").max()))


def _at(cells: pd.Series, site: str, layer: int, position: int) -> pd.Series:
    of = {name: cells.index.get_level_values(name) for name in ("site", "layer", "position")}
    return cells[(of["site"] == site) & (of["layer"] == layer) & (of["position"] == position)]


def _largest(cells: pd.Series, clean: pd.Series) -> float:
    if cells.empty:
        return np.nan
    examples = cells.index.get_level_values("example")
    return float(np.abs(cells.to_numpy() - clean.reindex(examples).to_numpy()).max())


def level_at(runs: pd.DataFrame, run: str, floor: float) -> float:
    """The level at which a run's answer has this probability, between two of its levels.

    Linear between neighbours; raises InputError where no two levels enclose it.
    """
    rows = runs[runs["run"] == run].groupby("noise_level")["p_base"].mean().sort_index()
    levels, found = rows.index.to_numpy(float), rows.to_numpy(float)
    for place in range(len(levels) - 1):
        low, high = found[place : place + 2]
        if min(low, high) <= floor <= max(low, high) and low != high:
            share = (floor - low) / (high - low)
            return float(levels[place] + share * (levels[place + 1] - levels[place]))
    raise InputError(
        f"runs.{run}.corrupt.levels: none beside each other have {floor} between them; their "
        f"answers have {', '.join(f'{p:.4f} at {x:g}' for x, p in zip(levels, found, strict=True))}"
    )


def floor_words(
    published: pd.DataFrame, runs: pd.DataFrame, run: str, verdicts: pd.DataFrame
) -> pd.DataFrame:
    """The verdicts, where a floor differs with the level at which the run's is as published."""
    floors = published[published["quantity"] == FLOOR]
    told = verdicts.set_index("quantity")["where"]
    for site, value in zip(floors["site"], floors["value"], strict=True):
        name = f"{FLOOR} {site}".strip()
        if (verdicts.loc[verdicts["quantity"] == name, "verdict"] == DIFFERS).any():
            try:
                met = f"it is at level {level_at(runs, run, value):.4f}"
            except InputError:
                met = "between no two of this run's levels it is"
            told[name] = f"{told[name]}; {met}"
    return verdicts.assign(where=told.to_numpy())
