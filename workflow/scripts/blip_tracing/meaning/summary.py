"""Means of effects over examples, tested and marked: the tables `summary`, `families`, `negatives`.

A family is a map of means: an experiment at a site and a level, its cells the layers and roles. At
a site of heads there are several, a role each and one of the means over all positions ("all"), the
cells of which are the layers and heads. One is summarized at a time; of those before, what the
tests over a whole experiment need is kept.

Beside a change may stand what other experiments of the same runs, site and positions say of it:
`sum_of_singles`, of a window, the sum of the changes of its layers put in one by one; `joint`, of a
mean over the positions of a role, the change where all of them are put in together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from blip_tracing.meaning.beside import JOINT, SUM_OF_SINGLES, joint_of, singles_of
from blip_tracing.meaning.effects import (
    HALVES,
    MEASURED,
    NO_HEAD,
    OF_POSITIONS,
    asks_heads,
    changes_of,
    whole_or_missing,
)
from blip_tracing.meaning.marks import PValues, cell_tests, marks_of, of_enough, why_untested
from blip_tracing.meaning.statistics import (
    ENDS,
    FEWEST_PICTURES,
    SIGNIFICANT,
    detectable_mean,
    heterogeneity_test,
    max_t_test,
    mean_intervals,
    named_means,
    selection_frequencies,
)
from blip_tracing.vocabulary.experiment import BY_ROLE, TOGETHER, Experiment
from blip_tracing.vocabulary.metrics import ALWAYS, METRICS, Metric
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.sites import window_of
from blip_tracing.vocabulary.tables import (
    CEILING,
    EQUAL_TOKENS,
    FALSE_MARKS,
    HIDES_NOTHING,
    INCLUDED,
    NO_OP,
    SAME_ANSWER,
    UNRELATED_SOURCE,
)

CELL = ["layer", "head", "token_role"]
KEYS = ["experiment", "site", "noise_level"]
# What is tested, where no other metric's change is asked for (`Rules.tested`).
TESTED = "probability_change"
# What stands beside a change in probability, and beside which quantities, each with its interval.
BESIDE = {SUM_OF_SINGLES: (TESTED,), JOINT: (TESTED, "largest_change")}
# What a row of the table has only where a cell of included examples is tested.
OF_CELLS = ["known", "p_floor", "p_null", "p_family", "p_study", "chosen", "marked"]
SUMMARY = [
    *KEYS, "group", "among", *CELL, "quantity", "mean", "low", "high", "examples", "pictures",
    "draws", *OF_CELLS, *(f"{name}{end}" for name in BESIDE for end in ENDS),
]  # fmt: skip
FAMILIES = [
    *KEYS, "token_role", "examples", "included", "pictures", "primary", "reference", "target",
    "total_effect", "hidden_share", "third_mass", "tested", "reason", "cells", "marked",
    "detectable", "matched_share", "heterogeneity_p", "damaged",
]  # fmt: skip
NEGATIVE = [*KEYS, "token_role", "control", "cells", "false_marks", "exceeded"]
# The metric in which damage shows: the probability of both answers together.
OF_BOTH = "answer_probability"
# Of a group of examples.
OF_GROUPS = [TESTED, "turned", "contrast"]


class Family(NamedTuple):
    """What is summarized, and tested, together."""

    experiment: str
    site: str
    level: int


@dataclass(frozen=True)
class Rules:
    """The configuration's numbers behind means and marks.

    metric: that is tested, in whose units `least_effect` is; further: the metrics whose changes are
    told beside those that are always there (`metrics.further_of`).
    """

    total_effect: float
    least_effect: float
    resamples: int
    seed: int
    metric: str = "probability"
    further: Sequence[str] = ()

    @property
    def tested(self) -> str:
        """The quantity that is tested."""
        return METRICS[self.metric].change

    @property
    def least_fall(self) -> float:
        """The least fall in probability that is told of."""
        return least_fall(METRICS[self.metric], self.least_effect, self.total_effect)


def least_fall(metric: Metric, least_effect: float, total_effect: float) -> float:
    """The least fall in probability that is told of: the least effect of the tested metric, where
    that is a probability, else the least total effect, which always is one.
    """
    return least_effect if metric.bounded else total_effect


@dataclass(frozen=True)
class Arranged:
    """A family's numbers: values (N, M, Q) of columns Q, and what its examples and cells are.

    Everything is sorted by name, so that nothing depends on the order of rows.
    """

    values: np.ndarray
    columns: list[str]
    examples: pd.DataFrame
    cells: pd.DataFrame

    def of(self, column: str) -> np.ndarray:
        """One column's values (N, M)."""
        return self.values[..., self.columns.index(column)]

    def among(self, chosen: np.ndarray | pd.Series) -> Arranged:
        """Those of some examples alone."""
        kept = np.asarray(chosen, dtype=bool)
        return Arranged(self.values[kept], self.columns, self.examples[kept], self.cells)

    def at(self, chosen: np.ndarray | pd.Series) -> Arranged:
        """Those at some cells alone."""
        kept = np.asarray(chosen, dtype=bool)
        return Arranged(self.values[:, kept], self.columns, self.examples, self.cells[kept])

    @property
    def names(self) -> list[str]:
        """The examples."""
        return self.examples["example"].tolist()

    @property
    def pictures(self) -> list[str]:
        """Each example's picture."""
        return self.examples["picture"].tolist()


class Towards(NamedTuple):
    """What is tested of some examples and cells, in the experiment's direction.

    change, contrast: (N, M); examples, pictures: the names of N.
    """

    change: np.ndarray
    contrast: np.ndarray
    examples: list[str]
    pictures: list[str]

    def tested(self, rules: Rules) -> PValues:
        """The p of each cell."""
        return cell_tests(
            self.change, self.contrast, self.pictures, rules.least_effect, rules.resamples,
            rules.seed,
        )  # fmt: skip


@dataclass(frozen=True)
class Parted:
    """A family's included examples at the cells of which nothing is known beforehand.

    known: what is known of each cell, (M,); tested: the quantity; sign: that of its effects.
    """

    arranged: Arranged
    known: np.ndarray
    tested: str
    sign: int

    @cached_property
    def included(self) -> Arranged:
        """The included examples, all cells."""
        return self.arranged.among(self.arranged.examples["included"])

    def towards(self, examples: Arranged, cells: np.ndarray) -> Towards:
        """Change and contrast of some examples and cells, above zero as they are to go."""
        chosen = examples.at(cells)
        change, contrast = (self.sign * chosen.of(name) for name in (self.tested, "contrast"))
        return Towards(change, contrast, chosen.names, chosen.pictures)

    @cached_property
    def open(self) -> Towards:
        """What is tested."""
        return self.towards(self.included, self.known == "")

    @property
    def groups(self) -> list[str]:
        """Each included example's group."""
        return self.included.examples["group"].tolist()

    @property
    def pictures_with_null(self) -> int:
        """How many pictures of included examples have a null."""
        there = ~np.isnan(self.open.contrast).all(axis=1)
        return self.included.among(there).examples["picture"].nunique()


@dataclass
class Summarized:
    """A family's rows of the tables, and what the tests over its experiment need of it.

    open: what is tested; cells: CELL and OF_CELLS, of all cells.
    """

    summary: pd.DataFrame
    facts: dict[str, Any]
    negatives: list[dict[str, Any]]
    open: Towards
    cells: pd.DataFrame


def maps_of(
    of_roles: pd.DataFrame, of_cells: pd.DataFrame
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """The maps of an experiment at a site and a level, each as `summarize_family` takes it.

    One of layers and roles; of heads one of the means over all positions, then one a role, of the
    examples that have it.
    """
    if (of_roles["head"] == NO_HEAD).all():
        yield of_roles, of_cells
        return
    roles = sorted(of_roles["token_role"].unique(), key=lambda role: (role != ALL, role))
    for role in roles:
        chosen = of_roles[of_roles["token_role"] == role]
        yield chosen, of_cells[of_cells["example"].isin(chosen["example"])]


def summarize_family(
    of_roles: pd.DataFrame,
    of_cells: pd.DataFrame,
    experiment: Experiment,
    primary: int,
    rules: Rules,
) -> Summarized:
    """Summarize one family, whatever the order of its rows.

    of_roles, of_cells: of `role_means` and `cell_means`; primary: the number of the experiment's
    primary level. Means are of all examples and of those included; tests, selection frequencies
    and heterogeneity of those included, over the cells of which nothing is known beforehand.
    """
    of_heads = (of_roles["head"] != NO_HEAD).any()
    role = of_roles["token_role"].iloc[0] if of_heads else ""
    level: dict[str, Any] = {key: of_cells[key].iloc[0] for key in KEYS}
    beside = [name for name in BESIDE if name in of_roles]
    numbers = [*MEASURED, *rules.further, *changes_of(rules.further), *OF_POSITIONS, *HALVES]
    arranged = arrange(of_roles, [*numbers, *beside])
    sign = METRICS[rules.metric].towards(experiment)
    part = Parted(arranged, known_of(of_roles, arranged.cells), rules.tested, sign)
    facts = family_facts(of_cells, experiment, primary)
    facts["primary"] &= role in ("", ALL)
    hides = has_to_bring(experiment, facts["total_effect"], rules)
    reason = why_untested(facts["pictures"], part.pictures_with_null, hides)
    if facts["pictures"] >= FEWEST_PICTURES:
        facts["heterogeneity_p"] = heterogeneity_test(
            part.open.change, part.groups, rules.resamples, rules.seed, part.open.pictures
        )
    if not reason:
        facts["detectable"] = detectable(part.open, rules)
    cells = tested_cells(part, not reason, rules)
    if not reason and can_be_damage(experiment, rules.further):
        facts["damaged"] = int(damaged_cells(part, experiment, rules).sum())
    facts |= {"tested": not reason, "reason": reason, "cells": int(cells["p_family"].count())}
    # The mean over all cells stands once, whatever the number of maps.
    whole_numbers = [*MEASURED, *rules.further, *changes_of(rules.further)]
    whole = arrange(of_cells, whole_numbers) if role in ("", ALL) else None
    rows = pd.concat(
        _summary_rows(arranged, whole, _draws_of(of_cells), experiment, rules), ignore_index=True
    )
    controls = _negatives(part, of_cells, experiment, hides, not reason)
    return Summarized(
        rows.assign(**level),
        {**level, "token_role": role, **facts},
        [{**level, "token_role": role, **counted} for counted in _count_marks(controls, rules)],
        part.open,
        cells,
    )


def has_to_bring(experiment: Experiment, total_effect: float, rules: Rules) -> bool:
    """Whether there is something to bring back, as there is wherever nothing is corrupted.

    total_effect: the mean over the included examples.
    """
    return experiment.corrupted is None or bool(
        experiment.direction * total_effect >= rules.total_effect
    )


def tested_cells(part: Parted, tested: bool, rules: Rules) -> pd.DataFrame:
    """All cells with what is known of them; the others' p, mark, and how often they are chosen."""
    known = part.known != ""
    cells = part.arranged.cells.assign(known=part.known, marked=False)
    cells[["p_floor", "p_null", "p_family", "chosen"]] = np.nan
    cells.loc[~known, "chosen"] = selection_frequencies(
        part.open.change, rules.resamples, rules.seed, part.open.pictures
    )
    if tested:
        p = part.open.tested(rules)
        marked = marks_of(p, part.open.change, rules.least_effect)
        cells.loc[~known, "p_floor"] = p.floor
        cells.loc[~known, "p_null"] = p.null
        cells.loc[~known, "p_family"] = p.both
        cells.loc[~known, "marked"] = marked
    return cells


def can_be_damage(experiment: Experiment, further: Sequence[str]) -> bool:
    """Whether it can be told that an intervention only damages: where it is to raise an answer.

    One that is to take an answer takes its probability from both that are followed anyway.
    """
    return experiment.direction > 0 and OF_BOTH in further


def damaged_cells(part: Parted, experiment: Experiment, rules: Rules) -> np.ndarray:
    """Of the cells of which nothing is known, those where both answers lose: (M,) of whether.

    The logit difference moves towards the followed answer there, and still the probability of
    either falls by more than `least_fall`: what a patch does that breaks what stood against the
    answer, rather than bring it (Heimersheim & Nanda 2024, How to use and interpret activation
    patching, section 4.2). Both are tested over the pictures, each by max-T over the cells, and
    both must be found: an intersection–union test, like that of a mark.
    """
    cells = part.included.at(part.known == "")
    difference, both = METRICS["logit_difference"], METRICS[OF_BOTH]
    moved = difference.towards(experiment) * cells.of(difference.change)
    fallen = -cells.of(both.change)

    def p_of(values: np.ndarray, least: float) -> np.ndarray:
        enough = of_enough(values, cells.pictures)
        return max_t_test(enough, rules.resamples, rules.seed, cells.pictures, least).p

    p = PValues(p_of(moved, 0.0), p_of(fallen, rules.least_fall))
    return marks_of(p, fallen, rules.least_fall)


def detectable(towards: Towards, rules: Rules) -> float:
    """The smallest mean change that both tests would find in 80 of 100 such samples, each alone."""
    return max(
        detectable_mean(
            of_enough(values, towards.pictures),
            rules.resamples,
            rules.seed,
            towards.pictures,
            rules.least_effect,
        )
        for values in (towards.change, towards.contrast)
    )


def finish_experiment(families: Sequence[Summarized], rules: Rules) -> tuple[pd.DataFrame, ...]:
    """The tables `summary`, `families` and `negatives` of one experiment.

    Its families are tested as one, their sign flips shared: p_study. A negative control that got
    more marks, over all families, than the level allows of its cells is exceeded, and then nothing
    of the experiment is marked.
    """
    negatives = pd.DataFrame(
        [row for family in families for row in family.negatives], columns=NEGATIVE
    )
    counts = negatives.groupby("control")[["false_marks", "cells"]].transform("sum")
    negatives["exceeded"] = counts["false_marks"] > SIGNIFICANT * counts["cells"]
    exceeded = bool(negatives["exceeded"].any())
    _add_study_p([family for family in families if family.facts["tested"]], rules)
    summaries, facts = [], []
    for family in families:
        found = family.cells.reindex(columns=[*CELL, *OF_CELLS])
        found["marked"] &= not exceeded
        told = found.assign(quantity=rules.tested, group=ALL, among=INCLUDED)
        rows = family.summary.merge(told, on=[*CELL, "quantity", "group", "among"], how="left")
        rows["marked"] = rows["marked"].eq(True)
        rows["known"] = rows["known"].fillna("")
        for number in ("layer", "head"):
            rows[number] = whole_or_missing(rows[number])
        summaries.append(rows.reindex(columns=SUMMARY))
        row = {**family.facts, "marked": int(found["marked"].sum())}
        if exceeded and row["tested"]:
            row |= {"tested": False, "reason": FALSE_MARKS}
        facts.append(row)
    whole = pd.DataFrame(facts).reindex(columns=FAMILIES)
    return pd.concat(summaries, ignore_index=True), whole, negatives[NEGATIVE]


def arrange(rows: pd.DataFrame, columns: Sequence[str]) -> Arranged:
    """A family's rows as arrays."""
    example, names = pd.factorize(rows["example"], sort=True)
    cell, cells = pd.factorize(pd.MultiIndex.from_frame(rows[CELL]), sort=True)
    values = np.full((len(names), len(cells), len(columns)), np.nan)
    values[example, cell] = rows[list(columns)].to_numpy("float64")
    told = ["example", "picture", "group", "included"]
    examples = rows[told].drop_duplicates().sort_values("example", ignore_index=True)
    return Arranged(values, list(columns), examples, cells.set_names(CELL).to_frame(index=False))


def known_of(of_roles: pd.DataFrame, cells: pd.DataFrame) -> np.ndarray:
    """What is known of each cell over the included examples (M,): "no_op", "ceiling" or "".

    A no-op is one in all of them; where some are ceilings, the mean is made of those too.
    """
    included = of_roles[of_roles["included"]]
    if included.empty:
        return np.full(len(cells), "")
    flags = included[CELL].assign(
        no_op=included["known"] == NO_OP, ceiling=included["known"] == CEILING
    )
    groups = flags.groupby(CELL)
    found = groups.agg(no_op=("no_op", "all"), ceiling=("ceiling", "any"))
    found = cells.join(found, on=CELL)
    return np.select([found["ceiling"].eq(True), found["no_op"].eq(True)], [CEILING, NO_OP], "")


def family_facts(of_cells: pd.DataFrame, experiment: Experiment, primary: int) -> dict[str, Any]:
    """What a family is a map of: its numbers of examples, and means over those included."""
    included = of_cells[of_cells["included"]].sort_values("example")
    means = ["reference", "target", "total_effect", "hidden_share", "third_mass", "matched_share"]
    first = of_cells.iloc[0]
    return {
        "primary": bool(first["level"] == primary and first["site"] == experiment.sites[0]),
        "examples": len(of_cells),
        "included": len(included),
        "pictures": included["picture"].nunique(),
        **{name: included[name].mean() for name in means},
        "detectable": np.nan,
        "heterogeneity_p": np.nan,
    }


def summarize(
    arranged: Arranged, quantities: Sequence[str], rules: Rules
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each quantity with its means and intervals, a row a cell."""
    for quantity in quantities:
        lowest, highest = _range_of(quantity, arranged, rules)
        yield (
            quantity,
            mean_intervals(
                arranged.of(quantity),
                rules.resamples,
                rules.seed,
                arranged.pictures,
                lowest,
                highest,
            ),
        )


def _draws_of(of_cells: pd.DataFrame) -> dict[str, int]:
    """How many draws a family's cells have, and its null's."""
    return {name: int(of_cells[name].max()) for name in ("draws", "null_draws")}


def _summary_rows(
    arranged: Arranged,
    whole: Arranged | None,
    draws: dict[str, int],
    experiment: Experiment,
    rules: Rules,
) -> Iterator[pd.DataFrame]:
    """The rows of all examples, of those included, and of each of several groups of these.

    whole: the means over all cells, if they are told here.
    """

    def rows_of(part: Arranged, quantities: Sequence[str], **told: str) -> Iterator[pd.DataFrame]:
        beside = _beside(part, experiment, rules)
        for quantity, means in summarize(part, quantities, rules):
            of_quantity = draws["null_draws" if quantity == "contrast" else "draws"]
            named = means.assign(**told, quantity=quantity, draws=of_quantity)
            there = [table for name, table in beside.items() if quantity in BESIDE[name]]
            rows = pd.concat([part.cells.reset_index(drop=True), named, *there], axis=1)
            yield rows[rows["examples"] > 0]

    measured = [*MEASURED, *changes_of(rules.further)]
    parts = [] if whole is None else [(whole, measured)]
    for among in (ALL, INCLUDED):
        for part, quantities in (*parts, (arranged, [*measured, *OF_POSITIONS])):
            chosen = part if among == ALL else part.among(part.examples["included"])
            yield from rows_of(chosen, quantities, group=ALL, among=among)
    included = arranged.among(arranged.examples["included"])
    groups = sorted(included.examples["group"].unique())
    for group in groups if len(groups) > 1 else []:
        chosen = included.among(included.examples["group"] == group)
        of_groups = list(dict.fromkeys([*OF_GROUPS, rules.tested]))
        yield from rows_of(chosen, of_groups, group=group, among=INCLUDED)


def _beside(part: Arranged, experiment: Experiment, rules: Rules) -> dict[str, pd.DataFrame]:
    """What other experiments say of each cell: its mean over examples and the interval's ends."""
    found = {}
    for name in BESIDE:
        if name not in part.columns:
            continue
        lowest, highest = _range_of(TESTED, part, rules)
        if name == SUM_OF_SINGLES:
            layers = int(part.cells["layer"].max()) + 1
            terms = np.array(
                [len(window_of(n, experiment.window, layers)) for n in part.cells["layer"]]
            )
            lowest, highest = terms * lowest, terms * highest
        means = mean_intervals(
            part.of(name), rules.resamples, rules.seed, part.pictures, lowest, highest
        )
        found[name] = named_means(means, name)
    return found


def _range_of(quantity: str, arranged: Arranged, rules: Rules) -> tuple[Any, Any]:
    """Where a quantity's range ends; a change's where its metric's does, from the reference."""
    if quantity in ("probability", "turned"):
        return 0.0, 1.0
    if quantity == "hidden_change":
        return -1.0, 1.0
    metric = _metric_of(quantity, rules)
    if metric is None or not metric.bounded:
        return -np.inf, np.inf
    other = "contrast" if quantity == "contrast" else metric.change
    beside = arranged.of(metric.name) - arranged.of(other)
    there = ~np.isnan(beside)
    before = np.where(there, beside, 0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    return metric.lowest - before, metric.highest - before


def _metric_of(quantity: str, rules: Rules) -> Metric | None:
    """The metric that a quantity is a change of; None where it is of none, as a logarithm is."""
    named = {METRICS[name].change: name for name in (*ALWAYS, *rules.further)}
    of = {**named, "largest_change": "probability", "contrast": rules.metric}
    return METRICS[of[quantity]] if quantity in of else None


def _negatives(
    part: Parted, of_cells: pd.DataFrame, experiment: Experiment, hides: bool, tested: bool
) -> Iterator[tuple[str, Towards]]:
    """The negative controls that a family can be asked for: what is marked there is so falsely.

    Noise that hides nothing: the family itself. Equal tokens: the cells that are no-ops by
    construction. One answer: pairs whose questions have one, where nothing is corrupted and the
    total effect is small too (noise does take their answer away, and restoring brings it back).
    Unrelated donor as source: one half of the nulls as the treatment, the other as its null.
    """
    if not hides:
        yield HIDES_NOTHING, part.open
    yield EQUAL_TOKENS, part.towards(part.included, part.known == NO_OP)
    if experiment.corrupted is None:
        pairs = of_cells["example"][of_cells["one_answer"] & of_cells["below_threshold"]]
        chosen = part.arranged.examples["example"].isin(pairs)
        yield SAME_ANSWER, part.towards(part.arranged.among(chosen), part.known != NO_OP)
    if tested:
        cells = part.included.at(part.known == "")
        first, second = (part.sign * cells.of(half) for half in HALVES)
        yield UNRELATED_SOURCE, Towards(first, first - second, cells.names, cells.pictures)


def _count_marks(controls: Iterator[tuple[str, Towards]], rules: Rules) -> Iterator[dict[str, Any]]:
    """The marks of each control that has six pictures and a null, counted."""
    for control, towards in controls:
        there = ~np.isnan(towards.contrast)
        pictures = {name for name, row in zip(towards.pictures, there, strict=True) if row.any()}
        if len(pictures) >= FEWEST_PICTURES:
            marks = marks_of(towards.tested(rules), towards.change, rules.least_effect)
            cells = int(there.any(axis=0).sum())
            yield {"control": control, "cells": cells, "false_marks": int(marks.sum())}


def _add_study_p(families: Sequence[Summarized], rules: Rules) -> None:
    """Test all cells of an experiment's families as one family: their cells get p_study."""
    if not families:
        return
    # The same examples are included at every level and site; a role may be one that some lack.
    shown = {
        name: picture
        for family in families
        for name, picture in zip(family.open.examples, family.open.pictures, strict=True)
    }
    names = sorted(shown)
    change, contrast = (
        np.concatenate(
            [
                pd.DataFrame(getattr(family.open, kind), index=family.open.examples).reindex(names)
                for family in families
            ],
            axis=1,
        )
        for kind in ("change", "contrast")
    )
    p = Towards(change, contrast, names, [shown[name] for name in names]).tested(rules).both
    ends = np.cumsum([family.open.change.shape[1] for family in families])
    for family, part in zip(families, np.split(p, ends[:-1]), strict=True):
        family.cells.loc[family.cells["known"] == "", "p_study"] = part


def never_told(experiments: Sequence[Experiment]) -> list[str]:
    """The columns of the summary that a run of these experiments never fills."""
    sites = [(asked, site) for asked in experiments for site in asked.sites]
    columns = [] if asks_heads(experiments) else ["head"]
    single = any(singles_of(asked, site, experiments) for asked, site in sites)
    joint = any(
        joint_of(asked, site, experiments, positions)
        for asked, site in sites
        for positions in (BY_ROLE, TOGETHER)
    )
    for name, told in ((SUM_OF_SINGLES, single), (JOINT, joint)):
        columns += [] if told else [f"{name}{end}" for end in ENDS]
    return columns
