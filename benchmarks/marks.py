"""How often marks find what carries the answer, and nothing else, where that is known.

    python benchmarks/marks.py

Miniatures in which known places carry the answer (`tests/planted.py`) are measured with the engine.
Studies of 6, 12 and 30 of their examples are drawn by chance, and marked by the workflow's rule
(`meaning/marks.py`), by the same on other metrics, and by parts of it. Prints the manual's tables.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))

from planted import Plant
from planted_study import CELLS, Asked, Map, make_population, maps_of, measure_population

from blip_tracing.meaning.marks import cell_tests, marks_of, of_enough, why_untested
from blip_tracing.meaning.statistics import SIGNIFICANT, max_t_test
from blip_tracing.vocabulary.config import Effects

RULES = Effects()
# A change that is marked at least, by metric; of logits about what 0.02 is of probability.
LEAST = {"probability": RULES.least_effect, "log-odds": 0.1, "logit difference": 0.1}
PLANTS = (Plant(2, "[SEP]", 0), Plant(1, "[CLS]", 1), Plant(3, "is", 2), Plant(4, "[SEP]", 3))
LEVELS = (0.1, 1.0, 3.0, 10.0)
DRAWS = 5
SIZES = (6, 12, 30)
SIZE = 12

# Whether each cell is marked (M,), from its map, the examples of a study and a metric.
Rule = Callable[[Map, np.ndarray, str], np.ndarray]


@dataclass(frozen=True)
class Scored:
    """A study's marks: the share of the cells to find that were found, and the number of others.

    found: NaN where there is nothing to find.
    """

    found: float
    false: int


def mean_of_draws(values: np.ndarray) -> np.ndarray:
    """Values (N, S, M) averaged over draws; an example has all of a cell's or none."""
    return values.mean(axis=1)


def mark(of: Map, examples: np.ndarray, metric: str) -> np.ndarray:
    """The workflow's rule: above the reference, and beyond the null at all its draws."""
    change, contrast = (mean_of_draws(part[metric][examples]) for part in (of.change, of.contrast))
    if not _tested(of, examples):
        return np.zeros(len(CELLS), dtype=bool)
    p = cell_tests(change, contrast, None, LEAST[metric], RULES.resamples, RULES.seed)
    return marks_of(p, change, LEAST[metric])


def mark_above_floor(of: Map, examples: np.ndarray, metric: str) -> np.ndarray:
    """Half of the rule: above the reference alone."""
    change = mean_of_draws(of.change[metric][examples])
    if not _tested(of, examples):
        return np.zeros(len(CELLS), dtype=bool)
    enough = of_enough(change, None)
    return max_t_test(enough, RULES.resamples, RULES.seed, None, LEAST[metric]).p < SIGNIFICANT


def mark_beyond_null(of: Map, examples: np.ndarray, metric: str) -> np.ndarray:
    """The other half, as it once stood alone: another than the null of one draw, either way."""
    contrast = of.contrast[metric][examples][:, 0]
    p = [max_t_test(sign * contrast, RULES.resamples, RULES.seed).p for sign in (1, -1)]
    return np.fmin(*p) < SIGNIFICANT


def mark_beyond_whole_null(of: Map, examples: np.ndarray, metric: str) -> np.ndarray:
    """The same with the null of all draws and donors."""
    contrast = mean_of_draws(of.contrast[metric][examples])
    p = [max_t_test(sign * contrast, RULES.resamples, RULES.seed).p for sign in (1, -1)]
    return np.fmin(*p) < SIGNIFICANT


def _tested(of: Map, examples: np.ndarray) -> bool:
    hides = bool(of.total_effect[examples].mean() >= RULES.total_effect)
    return not why_untested(len(examples), len(examples), hides)


RECIPES: dict[str, tuple[Rule, str]] = {
    "the rule": (mark, "probability"),
    "the rule, log-odds": (mark, "log-odds"),
    "the rule, logit difference": (mark, "logit difference"),
    "above the floor alone": (mark_above_floor, "probability"),
    "against the null alone, all draws": (mark_beyond_whole_null, "probability"),
    "against the null alone, one draw": (mark_beyond_null, "probability"),
}


def carrying(planted: Plant) -> np.ndarray:
    """Which cells carry the answer (M,)."""
    carried = planted.carried_by()
    return np.array([carried[layer] == role for layer, role in CELLS])


def to_find(planted: Plant, of: Map, name: str) -> np.ndarray:
    """Which cells a map must show (M,): those that carry the answer, where anything was hidden.

    In patching the first layer is left out: there a word is the question itself, which is known.
    """
    hidden = of.total_effect.mean() >= RULES.total_effect
    return carrying(planted) & hidden & ~known(name)


def known(name: str) -> np.ndarray:
    """The cells that the rule leaves out, since patching them is asking a question (M,)."""
    return np.array([name == "patching" and layer == 0 for layer, _ in CELLS])


def without_known(of: Map, name: str) -> Map:
    """The map with those cells empty."""
    change, contrast = (
        {metric: np.where(known(name), np.nan, values) for metric, values in part.items()}
        for part in (of.change, of.contrast)
    )
    return Map(change, contrast, of.total_effect)


def score(
    of: Map, wanted: np.ndarray, recipe: str, size: int, studies: int, seed: int
) -> Iterator[Scored]:
    """Studies of so many examples, drawn from the population without replacement each."""
    rule, metric = RECIPES[recipe]
    random = np.random.default_rng(seed)
    for _ in range(studies):
        examples = np.sort(random.choice(len(of.total_effect), size=size, replace=False))
        marked = rule(of, examples, metric)
        found = float(marked[wanted].mean()) if wanted.any() else np.nan
        yield Scored(found, int(marked[~wanted].sum()))


def told(scores: Sequence[Scored]) -> str:
    """`found / studies with a false mark`, in per cent."""
    found = np.mean([each.found for each in scores])
    false = np.mean([each.false > 0 for each in scores])
    return f"{'–' if np.isnan(found) else f'{100 * found:.0f}'} / {100 * false:.0f}"


def label(name: str, level: float) -> str:
    """What a map is called."""
    return f"{name}, σ = {level:g}" if level else name


def largest_elsewhere(of: Map, wanted: np.ndarray) -> float:
    """The largest mean change of a cell that carries nothing, over the population."""
    mean = np.nanmean(of.change["probability"], axis=(0, 1))
    return float(np.nanmax(np.where(wanted, np.nan, mean)))


def print_tables(populations: dict[Plant, dict[tuple[str, float], Map]], studies: int) -> None:
    """Print the rule by size of study, and all recipes at one size, over all planted miniatures."""
    first = next(iter(populations.values()))

    def scores(key: tuple[str, float], recipe: str, size: int) -> str:
        found: list[Scored] = []
        for planted, maps in populations.items():
            of = without_known(maps[key], key[0])
            wanted = to_find(planted, of, key[0])
            whole = maps[key] if "null alone" in recipe else of
            found += score(whole, wanted, recipe, size, studies, seed=planted.seed)
        return told(found)

    print(
        "| map | total effect | largest change elsewhere | "
        + " | ".join(f"n = {n}" for n in SIZES)
        + " |"
    )
    print("| --- " * (3 + len(SIZES)) + "|")
    for key in first:
        total = np.mean([maps[key].total_effect.mean() for maps in populations.values()])
        other = max(
            largest_elsewhere(maps[key], carrying(planted)) for planted, maps in populations.items()
        )
        row = [
            label(*key),
            f"{total:.2f}",
            f"{other:.3f}",
            *(scores(key, "the rule", n) for n in SIZES),
        ]
        print(f"| {' | '.join(row)} |", flush=True)
    print()
    print(f"| n = {SIZE} | " + " | ".join(label(*key) for key in first) + " |")
    print("| --- " * (1 + len(first)) + "|")
    for recipe in RECIPES:
        row = [recipe, *(scores(key, recipe, SIZE) for key in first)]
        print(f"| {' | '.join(row)} |", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=120, help="of each planted miniature")
    parser.add_argument("--studies", type=int, default=100, help="of a size and miniature")
    parser.add_argument("--plants", type=int, default=len(PLANTS), help="how many miniatures")
    return parser.parse_args()


def main() -> None:
    """Plant, measure, mark, print."""
    arguments = parse()
    torch.set_num_threads(1)
    populations = {}
    for planted in PLANTS[: arguments.plants]:
        asked = Asked(arguments.examples, LEVELS, DRAWS, seed=planted.seed)
        population = make_population(planted, asked)
        populations[planted] = maps_of(list(measure_population(population, asked)), asked)
        print(f"{planted}: measured", file=sys.stderr, flush=True)
    print_tables(populations, arguments.studies)


if __name__ == "__main__":
    main()
