"""Published averages over examples whose noise was drawn afresh in every cell, and a run's.

A published mean of n examples holds one draw of each. Of the same examples a run has S draws, which
its cells share. So the two differ by what draws vary within an example alone: where σ² is the mean
of that variance over examples, by σ² (1/n + 1/(n S)) in variance. For a run of other examples the
variance between examples comes to it. Each number is held against the 95 % interval that this
gives; a map as a whole against simulated replications in which the run's own draws are the truth,
since its cells share theirs and fall outside together (as `compare` has it of the tutorial).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from blip_tracing.errors import InputError
from blip_tracing.meaning.replication.compare import AGREES, CANNOT_TELL, DIFFERS, LEAST_P, WORLDS

COLUMNS = ["quantity", "site", "layer", "position", "window", "examples", "value", "error"]
MEAN, FLOOR, CLEAN = "mean", "floor", "clean"
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
MET, MISSED, ABSENT = "met", "missed", "not in the run"


@dataclass(frozen=True)
class Averaged:
    """A run's probabilities of the followed answer, as averages of examples are made of.

    cells: (example, site, layer, position, draw) → p, one column p; floor: (example, draw) → p;
    clean: example → p; drawn: whether the draws are of noise, not the same each time.
    """

    cells: pd.Series
    floor: pd.Series
    clean: pd.Series
    drawn: bool = True


def read_averages(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table of published averages: COLUMNS (resources/published/README.md has them).

    Raises InputError where it is no such table.
    """
    try:
        table = pd.read_csv(path, dtype={"quantity": str, "site": str}, keep_default_na=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(f"{path}: cannot be read as CSV ({reason}); give such a table") from error
    if list(table) != COLUMNS:
        raise InputError(f"{path}: its columns are not {', '.join(COLUMNS)}; give such a table")
    return table.astype({"layer": "Int64", "position": "Int64"}).fillna({"site": ""})


def averaged(
    cells: pd.DataFrame, runs: pd.DataFrame, run: str, level: float, drawn: bool = True
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
    )


def compare_averages(
    published: pd.DataFrame, run: Averaged, same_examples: bool, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every published average beside the run's, and a verdict on each map.

    same_examples: whether the run's examples are those published. The numbers have their columns,
    and reproduced, standard_error, low, high (missing where the run has too few draws, or no such
    cell). The verdicts: site, compared, inside, p (of simulated replications the share that lies as
    far off), largest (difference), bound (largest difference that is not refused), verdict.
    """
    numbers = published.assign(reproduced=np.nan, standard_error=np.nan)
    verdicts = []
    generator = np.random.default_rng(seed)
    for name, part, draws in _groups(published, run):
        means, errors = _expected(draws, part["examples"].to_numpy(), same_examples)
        numbers.loc[part.index, "reproduced"] = means
        numbers.loc[part.index, "standard_error"] = np.hypot(errors, part["error"] + ROUNDING)
        told = name == CLEAN or not run.drawn or draws.shape[1] >= FEWEST_DRAWS
        judged = _judged(numbers.loc[part.index], draws, same_examples, told, generator)
        verdicts.append({"map": name, **judged})
    reach = REACH * numbers["standard_error"]
    numbers = numbers.assign(low=numbers["reproduced"] - reach, high=numbers["reproduced"] + reach)
    return numbers, pd.DataFrame(verdicts)


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


def _judged(
    numbers: pd.DataFrame,
    draws: np.ndarray,
    same_examples: bool,
    told: bool,
    generator: np.random.Generator,
) -> dict[str, object]:
    off = (numbers["value"] - numbers["reproduced"]).abs().to_numpy()
    errors = numbers["standard_error"].to_numpy()
    bound = float((off + REACH * errors).max())
    found = {
        "compared": len(numbers),
        "inside": int((off <= REACH * errors).sum()),
        "p": np.nan,
        "largest": float(off.max()),
        "bound": bound,
    }
    if not told:
        return {**found, "verdict": CANNOT_TELL}
    distances = _simulated(draws, numbers, same_examples, generator)
    p = float((distances >= ((off / errors) ** 2).sum()).mean())
    verdict = DIFFERS if p < LEAST_P else AGREES if bound <= BOUND else CANNOT_TELL
    return {**found, "p": p, "verdict": verdict}


def _simulated(
    draws: np.ndarray, numbers: pd.DataFrame, same_examples: bool, generator: np.random.Generator
) -> np.ndarray:
    """How far off replications lie of which the run's draws are the truth: (WORLDS,)."""
    examples, count, cells = draws.shape
    own = draws.mean(axis=1, keepdims=True)
    # As wide as the draws' expectation of their variance, which resampling them would make less.
    truth = own + (draws - own) * np.sqrt(count / max(count - 1, 1))
    size, among = int(numbers["examples"].iloc[0]), np.arange(examples)
    errors, rounding = numbers["standard_error"].to_numpy(), numbers["error"].to_numpy() + ROUNDING
    distances = np.empty(WORLDS)
    for world in range(WORLDS):
        ours, theirs = among, np.resize(among, size)
        if not same_examples:
            ours, theirs = (generator.integers(examples, size=n) for n in (examples, size))
        shared = generator.integers(count, size=(examples, count))
        run = truth[ours[:, None], shared].mean(axis=(0, 1))
        fresh = generator.integers(count, size=(size, cells))
        given = truth[theirs[:, None], fresh, np.arange(cells)].mean(axis=0)
        given = given + generator.uniform(-1, 1, cells) * rounding
        distances[world] = (((given - run) / errors) ** 2).sum()
    return distances


# ---- what any faithful run must show -----------------------------------------------------------


def structure_of(run: Averaged, layers: int, whole: pd.Series | None = None) -> pd.DataFrame:
    """Expectations that follow from the model and the corruption, as controls of a replication.

    The picture reaches the answer through the question encoder alone: so the clean run's last
    block output, at [DEC] in the decoder or at all positions of the encoder at once, gives the
    clean answer exactly. And the last encoder state of [SEP] is hardly read. whole: cells, as
    those of the run, of an experiment that puts in all positions at once.
    Columns: expectation, found, bound, verdict.
    """
    encoder, last = "encoder.block_output", layers - 1
    together = run.cells.iloc[:0] if whole is None else _at(whole, encoder, last, 0)
    of_encoder = run.cells[run.cells.index.get_level_values("site") == encoder]
    positions = of_encoder.index.get_level_values("position")
    end = _at(run.cells, encoder, last, int(positions.max())) if len(positions) else together[:0]
    floor, clean = float(run.floor.mean()), float(run.clean.mean())
    rows = [
        ("the corruption hides the answer: floor / clean", floor / clean, 0.5),
        (
            "the decoder's last block output gives the clean answer: largest difference",
            _largest(_at(run.cells, "decoder.block_output", last, 0), run.clean),
            ROUNDING,
        ),
        (
            "the encoder's last block output at all positions does so too: largest difference",
            _largest(together, run.clean),
            ROUNDING,
        ),
        (
            "[SEP] alone of it brings nothing back: share of the total effect",
            np.nan if end.empty else abs(float(end.mean()) - floor) / (clean - floor),
            NOTHING,
        ),
    ]
    return pd.DataFrame(
        [
            (what, found, bound, ABSENT if np.isnan(found) else MET if found <= bound else MISSED)
            for what, found, bound in rows
        ],
        columns=["expectation", "found", "bound", "verdict"],
    )


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
