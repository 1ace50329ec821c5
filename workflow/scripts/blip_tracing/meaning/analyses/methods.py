"""Methods side by side: do ways to hide the answer, and metrics, find the same places?

Noise and exchanged words found other places (Zhang & Nanda 2024, Towards best practices of
activation patching, sections 3 and 4), and a metric that saturates other ones than one that is
linear in logits. So maps of the same cells are compared: of two methods under each metric, and of
two metrics under each method. A low correlation is held against what the maps' noise allows
(`likeness`), so that few pictures are not read as disagreement. Where one method marks a cell that
the other shows to do nothing, or the opposite, they contradict each other.

Effects are positive where they go the donor's way. Two methods are compared on the examples
that both include; cells that are known beforehand in either do not count.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from blip_tracing.meaning.effects import whole_or_missing
from blip_tracing.meaning.evidence import VERDICTS, Evidence
from blip_tracing.meaning.likeness import (
    AGREE,
    CANNOT_TELL,
    DIFFER,
    SAME_NUMBERS,
    likeness,
    verdict_of,
)
from blip_tracing.meaning.marks import cell_tests, marks_of, of_enough
from blip_tracing.meaning.statistics import (
    ENDS,
    ROUNDING,
    SIGNIFICANT,
    equivalence_test,
    max_t_test,
    mean_intervals,
    selection_frequencies,
)
from blip_tracing.meaning.summary import CELL, TESTED, Arranged, Rules, arrange, known_of
from blip_tracing.vocabulary.analyses import QUANTITY_WORDS, orientation
from blip_tracing.vocabulary.experiment import Experiment
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.sites import SITES

MAPS, CONTRADICTION = "maps", "contradiction"
# What the second method says of a cell that the first marks.
NIL, OPPOSITE = "nil", "opposite"
SAME_CELL, OTHER_CELL = "the same cell", "another cell"
# How often resamples of pictures must choose a cell, for it to be the largest.
STABLE = 0.95
SIDES = ("first", "second")
TABLE = [
    "row", "site", "first", "second", "first_noise_level", "second_noise_level",
    "first_quantity", "second_quantity", *CELL,
    *(f"{side}_effect{end}" for side in SIDES for end in ENDS), "p_first", "p_second",
    *(f"rho{end}" for end in ENDS),
    *(f"{side}_reliability{end}" for side in SIDES for end in ENDS), "ceiling",
    *(f"agreement{end}" for end in ENDS), "first_largest", "second_largest", "largest", "cells",
    "pictures", "verdict",
]  # fmt: skip


@dataclass(frozen=True)
class Method:
    """An experiment at a site: label, what a reader calls it; rows: of included examples."""

    label: str
    experiment: Experiment
    noise_level: float
    rows: pd.DataFrame

    @property
    def examples(self) -> set[str]:
        """Those that it includes."""
        return set(self.rows["example"])


@dataclass(frozen=True)
class Side:
    """A method's effects on the examples and at the cells that a comparison is about."""

    method: Method
    arranged: Arranged

    def of(self, quantity: str) -> np.ndarray:
        """A quantity's effects (N, M), positive where they go the donor's way."""
        return orientation(self.method.experiment, quantity) * self.arranged.of(quantity)

    @property
    def pictures(self) -> list[str]:
        """Each example's."""
        return self.arranged.pictures


def analyse(evidence: Evidence) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every pair of maps with how alike they are, the contradictions, and what follows."""
    quantities = evidence.settings["quantities"]
    rows: list[dict[str, object]] = []
    for site, methods in _methods_by_site(evidence):
        for one, other in combinations(methods, 2):
            rows += _compare_methods(one, other, site, quantities, evidence)
        for method in methods:
            rows += _compare_metrics(method, site, quantities, evidence)
    table = pd.DataFrame(rows).reindex(columns=TABLE)
    for number in ("layer", "head"):
        table[number] = whole_or_missing(table[number])
    return table, pd.DataFrame(_verdicts(table, quantities), columns=VERDICTS)


def _methods_by_site(evidence: Evidence) -> Iterator[tuple[str, list[Method]]]:
    """The methods at each site that several of them have, at their primary levels."""
    named: Mapping[str, str] = evidence.settings["experiments"]
    asked = {label: evidence.experiments[name] for label, name in named.items()}
    for site in dict.fromkeys(site for experiment in asked.values() for site in experiment.sites):
        there = {label: each for label, each in asked.items() if site in each.sites}
        if len(there) < 2:
            continue
        methods = []
        for label, experiment in there.items():
            rows = evidence.by_role(evidence.primary_family(experiment.name, site))
            # Of heads the map is of the means over positions, as it is where marks are told.
            rows = rows[rows["token_role"] == ALL] if SITES[site].heads else rows
            level = rows["noise_level"].iloc[0]
            methods.append(Method(label, experiment, level, rows[rows["included"]]))
        yield site, methods


def _compare_methods(
    one: Method, other: Method, site: str, quantities: Sequence[str], evidence: Evidence
) -> Iterator[dict[str, object]]:
    sides = shared_sides(one, other, quantities)
    named = _named(one, other, site)
    for quantity in quantities:
        told = {**named, "first_quantity": quantity, "second_quantity": quantity}
        yield told | _compare_maps(sides, quantity, quantity, evidence)
    told = {**named, "first_quantity": TESTED, "second_quantity": TESTED}
    for row in contradictions(sides, evidence.rules):
        yield told | row


def _compare_metrics(
    method: Method, site: str, quantities: Sequence[str], evidence: Evidence
) -> Iterator[dict[str, object]]:
    sides = shared_sides(method, method, quantities)
    for one, other in combinations(quantities, 2):
        told = {**_named(method, method, site), "first_quantity": one, "second_quantity": other}
        yield told | _compare_maps(sides, one, other, evidence)


def _named(one: Method, other: Method, site: str) -> dict[str, object]:
    return {
        "site": site, "first": one.label, "second": other.label,
        "first_noise_level": one.noise_level, "second_noise_level": other.noise_level,
    }  # fmt: skip


def shared_sides(one: Method, other: Method, quantities: Sequence[str]) -> tuple[Side, Side]:
    """Both methods on the examples that both include, at the cells that neither knows."""
    both = one.examples & other.examples
    columns = list(dict.fromkeys([*quantities, TESTED, "contrast"]))
    arranged, unknown = [], []
    for method in (one, other):
        kept = method.rows[method.rows["example"].isin(both)]
        arranged.append(arrange(kept, columns))
        cells = arranged[-1].cells
        unknown.append(pd.MultiIndex.from_frame(cells[known_of(kept, cells) == ""]))
    common = unknown[0].intersection(unknown[1])
    sides = [
        Side(method, of.at(pd.MultiIndex.from_frame(of.cells).isin(common)))
        for method, of in zip((one, other), arranged, strict=True)
    ]
    return sides[0], sides[1]


def _compare_maps(
    sides: tuple[Side, Side], first: str, second: str, evidence: Evidence
) -> dict[str, object]:
    """How alike two maps are; the largest cells are of their changes in these quantities."""
    rules = evidence.rules
    one, other = sides[0].of(first), sides[1].of(second)
    found = likeness(one, other, sides[0].pictures, rules.resamples, rules.seed)
    largest = largest_cell(sides[0], one, rules), largest_cell(sides[1], other, rules)
    if _are_one(one, other):
        verdict, same_largest = SAME_NUMBERS, ""
    else:
        verdict = verdict_of(found, evidence.settings["alike"])
        same_largest = _same_cell(*largest)
    return {
        "row": MAPS,
        **_ends("rho", found.rho),
        **_ends("first_reliability", found.first),
        **_ends("second_reliability", found.second),
        "ceiling": found.ceiling,
        **_ends("agreement", found.agreement),
        "first_largest": largest[0],
        "second_largest": largest[1],
        "largest": same_largest,
        "cells": found.cells,
        "pictures": found.pictures,
        "verdict": verdict,
    }


def _are_one(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two maps are the same numbers."""
    return np.allclose(first, second, rtol=0, atol=ROUNDING, equal_nan=True)


def _ends(name: str, interval: Sequence[float]) -> dict[str, float]:
    return {f"{name}{end}": value for end, value in zip(ENDS, interval, strict=True)}


def largest_cell(side: Side, values: np.ndarray, rules: Rules) -> str:
    """The cell of the largest mean, in words; "" where none can be told.

    It must be marked, lest the largest of nothing be told, and be the largest in 95 of 100
    resamples of pictures, lest the next one might as well be.
    """
    frequency = selection_frequencies(values, rules.resamples, rules.seed, side.pictures)
    if not frequency.size or not np.nanmax(np.nan_to_num(frequency)) >= STABLE:
        return ""
    best = int(np.nanargmax(frequency))
    _, marked = marks(side, rules)
    return place_words(side.arranged.cells.iloc[best]) if marked[best] else ""


def place_words(cell: pd.Series) -> str:
    """A cell as it is told: `layer 3, head 1, differing word`."""
    head = "" if cell["head"] < 0 else f"head {cell['head']}, "
    return f"layer {cell['layer']}, {head}{cell['token_role']}"


def _same_cell(first: str, second: str) -> str:
    if not first or not second:
        return CANNOT_TELL
    return SAME_CELL if first == second else OTHER_CELL


def marks(side: Side, rules: Rules) -> tuple[np.ndarray, np.ndarray]:
    """The family-wise p of each cell's mark, and whether it is marked: both (M,)."""
    change = side.of(TESTED)
    p = cell_tests(
        change, side.of("contrast"), side.pictures, rules.least_effect, rules.resamples, rules.seed
    )
    return p.both, marks_of(p, change, rules.least_effect)


def contradictions(sides: tuple[Side, Side], rules: Rules) -> Iterator[dict[str, object]]:
    """The cells that one of two methods marks, where the other shows nothing or the opposite.

    Nothing is shown, not merely not found, where the change is less than `least_effect` both ways,
    family-wise (two one-sided tests); the opposite where it is below zero, family-wise.
    """
    if _are_one(sides[0].of(TESTED), sides[1].of(TESTED)):
        return
    cells, pictures = sides[0].arranged.cells.to_dict("records"), sides[0].pictures
    marked = [marks(side, rules) for side in sides]
    refuted = [refutations(side.of(TESTED), pictures, rules) for side in sides]
    means = [
        mean_intervals(side.of(TESTED), rules.resamples, rules.seed, pictures).to_dict("records")
        for side in sides
    ]
    for number, cell in enumerate(cells):
        for marking, refuting in ((0, 1), (1, 0)):
            verdict = refuted[refuting][1][number]
            if not (marked[marking][1][number] and verdict):
                continue
            p = {marking: marked[marking][0][number], refuting: refuted[refuting][0][number]}
            yield {
                "row": CONTRADICTION,
                **{name: cell[name] for name in CELL},
                **_effect("first", means[0][number]),
                **_effect("second", means[1][number]),
                "p_first": p[0],
                "p_second": p[1],
                "pictures": min(of[number]["pictures"] for of in means),
                "verdict": f"{SIDES[refuting]} {verdict}",
            }


def _effect(side: str, means: Mapping[Hashable, Any]) -> dict[str, float]:
    return _ends(f"{side}_effect", [means[name] for name in ("mean", "low", "high")])


def refutations(
    change: np.ndarray, pictures: Sequence[str], rules: Rules
) -> tuple[np.ndarray, list[str]]:
    """The family-wise p of each cell (M,) that does nothing or the opposite, and which it does."""

    enough = of_enough(change, pictures)
    opposite = max_t_test(-enough, rules.resamples, rules.seed, pictures).p
    within = equivalence_test(enough, rules.least_effect, rules.resamples, rules.seed, pictures)
    verdicts = [
        NIL if near < SIGNIFICANT else OPPOSITE if away < SIGNIFICANT else ""
        for near, away in zip(within, opposite, strict=True)
    ]
    return np.where(within < SIGNIFICANT, within, opposite), verdicts


def _verdicts(table: pd.DataFrame, quantities: Sequence[str]) -> Iterator[list[object]]:
    for (site, one, other), rows in table.groupby(["site", "first", "second"], sort=False):
        compared = rows[rows["row"] == MAPS]
        if one == other:
            yield from _of_metrics(compared, f"{one} at {site}")
        else:
            yield from _of_methods(rows, quantities, f"{one} and {other} at {site}")


def _of_methods(
    rows: pd.DataFrame, quantities: Sequence[str], about: str
) -> Iterator[list[object]]:
    compared = rows[rows["row"] == MAPS]
    first = compared.iloc[0]
    pictures = first["pictures"]
    by, nothing = f"by {QUANTITY_WORDS[quantities[0]]}", [np.nan] * 4
    if first["verdict"] == SAME_NUMBERS:
        yield [about, f"agreement {by}", *nothing, pictures, SAME_NUMBERS]
        return
    ceiling = first["ceiling"]
    beside = "" if np.isnan(ceiling) else f"{ceiling:.2f} were they noisy copies of one map"
    yield [about, f"rank correlation {by}", *_told(first, "rho"), np.nan, pictures, beside]
    yield [
        about, f"agreement {by}, as a share of what noise allows", *_told(first, "agreement"),
        np.nan, pictures, first["verdict"],
    ]  # fmt: skip
    if len(compared) > 1:
        counted = _counted(compared["verdict"])
        yield [about, f"agreement by {len(compared)} metrics", *nothing, pictures, counted]
    yield [about, "largest effect in", *nothing, pictures, first["largest"]]
    contradicting = rows[rows["row"] == CONTRADICTION]
    # Each side of a contradiction is a claim of its own: the weaker of the two tests decides.
    p = contradicting[["p_first", "p_second"]].max(axis=1).min()
    yield [
        about, "cells that one marks and the other shows to do nothing, or the opposite",
        len(contradicting), np.nan, np.nan, p, pictures,
        "contradict each other" if len(contradicting) else "no contradiction shown",
    ]  # fmt: skip


def _of_metrics(compared: pd.DataFrame, about: str) -> Iterator[list[object]]:
    """The pair of metrics that agrees least, of those whose agreement can be told."""
    there = compared.dropna(subset="agreement")
    there = there[there["verdict"] != SAME_NUMBERS]
    if there.empty:
        return
    least = there.iloc[int(there["agreement"].argmin())]
    names = [QUANTITY_WORDS[least[f"{side}_quantity"]] for side in SIDES]
    statement = f"agreement by {names[0]} and by {names[1]}"
    if len(compared) > 1:
        statement += f", the least of {len(compared)} pairs"
    told = _told(least, "agreement")
    yield [about, statement, *told, np.nan, least["pictures"], least["verdict"]]


def _told(row: pd.Series, name: str) -> list[float]:
    return [row[f"{name}{end}"] for end in ENDS]


def _counted(verdicts: pd.Series) -> str:
    counts = verdicts.value_counts()
    order = (AGREE, DIFFER, CANNOT_TELL, SAME_NUMBERS)
    return ", ".join(f"{name}: {counts[name]}" for name in order if name in counts)
