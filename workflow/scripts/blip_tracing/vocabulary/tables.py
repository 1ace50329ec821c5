"""The tables in `results/tables/`: what each holds, in the one place that says it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table: a row a measurement.

    large: it has a row a cell, so that its format is configured; meaning: of a row.
    """

    name: str
    meaning: str
    large: bool = False


_ROWS = (
    Table("baseline", "the ten most likely first answer tokens of each question"),
    Table("tokens", "each token of both questions"),
    Table("runs", "how every run without an intervention scores both answers"),
    Table("controls", "runs whose outcome is known before, and the null", large=True),
    Table("effects", "what an intervention changes, cell by cell", large=True),
    Table("summary", "means of effects over examples, with intervals and tests"),
    Table("run_means", "means of p(base answer) over examples, of every run, with intervals"),
    Table("excluded", "what averages leave out, and why"),
    Table("published", "each published number beside the run's"),
    Table("verdicts", "a verdict on each published quantity"),
)
# What the column `control` of the table `controls` holds, in its order.
NO_OP, CEILING, NULL = "no_op", "ceiling", "null"
CONTROLS = (NO_OP, CEILING, NULL)
# Why an example or a cell is left out of averages: the column `reason` of `excluded`, in its order.
SMALL_EFFECT = "total effect below the threshold"
ONE_ANSWER = "both questions have one answer"
SMALL_RANGE = "logit differences of reference and target too close"
WITHOUT_ROLE = "no role"
WITHOUT_NULL = "no unrelated example"
REASONS = (SMALL_EFFECT, ONE_ANSWER, SMALL_RANGE, WITHOUT_ROLE, WITHOUT_NULL)
TABLES = {table.name: table for table in _ROWS}


def meaning_of(name: str) -> str:
    """What a row of a table is; one that is called after an experiment has a row a cell."""
    return (
        TABLES[name].meaning if name in TABLES else "both answers' scores after each intervention"
    )
