"""The tables in `results/tables/`: what each holds, in the one place that says it."""

from __future__ import annotations

from dataclasses import dataclass

from blip_tracing.vocabulary.analyses import ANALYSES


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
    Table("families", "a map of means: what was tested, on how much, and what it could find"),
    Table("negatives", "a negative control of the run itself, and the marks that it got"),
    Table("run_means", "means of p(base answer) over examples, of every run, with intervals"),
    Table("excluded", "what averages leave out, and why"),
    Table("published", "each published number beside the run's"),
    Table("verdicts", "a verdict on each published quantity"),
    Table("expectations", "what a run that replicates published averages must show, and does"),
    *(Table(analysis.name, analysis.rows) for analysis in ANALYSES.values()),
    Table("halves", "an example, and which half of the sheet it is in"),
    *(
        Table(analysis.verdicts, f"a conclusion of `{analysis.name}`")
        for analysis in ANALYSES.values()
    ),
)
# What the column `control` of the table `controls` holds, in its order.
NO_OP, CEILING, UNRELATED = "no_op", "ceiling", "unrelated"
ALL_HEADS, ALL_CONTRIBUTIONS = "all_heads", "all_contributions"
CONTROLS = (NO_OP, CEILING, ALL_HEADS, ALL_CONTRIBUTIONS, UNRELATED)
# Why an example or a cell is left out of averages: the column `reason` of `excluded`, in its order.
ONE_ANSWER = "both questions have one answer"
NOT_OWN = "a followed answer is not the model's own"
SMALL_PRIMARY = "total effect at the primary level below the threshold"
SMALL_EFFECT = "total effect below the threshold"
SMALL_RANGE = "logit differences of reference and target too close"
WITHOUT_ROLE = "no role"
WITHOUT_NULL = "no unrelated example"
REASONS = (
    ONE_ANSWER, NOT_OWN, SMALL_PRIMARY, SMALL_EFFECT, SMALL_RANGE, WITHOUT_ROLE, WITHOUT_NULL,
)  # fmt: skip
# The level of tests, over a family. With n units no two-sided p is below 2 / 2ⁿ, and an interval
# tells little that the points do not.
SIGNIFICANT = 0.05
FEWEST_PICTURES = 6
# Why a map of means is not tested: the column `reason` of `families`.
FEW_PICTURES = "fewer than six pictures"
NO_NULL = WITHOUT_NULL
FEW_NULLS = "fewer than six pictures with an unrelated example"
NOTHING_HIDDEN = "the corruption hid nothing"
FALSE_MARKS = "marks on negative controls"
# The negative controls of the run itself: the column `control` of `negatives`.
HIDES_NOTHING = "a corruption that hides nothing"
EQUAL_TOKENS = "equal tokens"
SAME_ANSWER = "one answer"
UNRELATED_SOURCE = "unrelated donor as source"
# Which examples a mean is over: the column `among` of `summary`.
INCLUDED = "included"
TABLES = {table.name: table for table in _ROWS}


def meaning_of(name: str) -> str:
    """What a row of a table is; one that is called after an experiment has a row a cell."""
    return (
        TABLES[name].meaning if name in TABLES else "both answers' scores after each intervention"
    )
