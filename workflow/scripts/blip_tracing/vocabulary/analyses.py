"""What is asked of several experiments together: an analysis is a row of the table `ANALYSES`.

Each reads what the experiments' effects are by example, and makes two tables: its numbers, called
after it, and what it concludes from them, a verdict a row. Its settings are the group of its name
in the configuration (`analysis_groups.Analyses`), its work the module of its name in
`meaning/analyses/`, its page the notebook of its name.
"""

from __future__ import annotations

from dataclasses import dataclass

from blip_tracing.vocabulary.experiment import BASE, Experiment
from blip_tracing.vocabulary.multiverse import MULTIVERSE


@dataclass(frozen=True)
class Analysis:
    """name: its own everywhere; title, question: what a reader calls it; rows: of its table.

    own_rules: whether rules of its own make its tables rather than `analyse`; beside: further
    tables that are made with it; reads: others, of which its page draws the shown examples.
    """

    name: str
    title: str
    question: str
    rows: str
    own_rules: bool = False
    beside: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()

    @property
    def verdicts(self) -> str:
        """The table of its conclusions."""
        return f"{self.name}_verdicts"

    @property
    def tables(self) -> tuple[str, ...]:
        """All its tables, its numbers first."""
        return (self.name, self.verdicts, *self.beside)


# Asked of the halves of a sheet, one before the other: its rules and files are its own.
CONFIRM = "confirm"

# By what NOTICE scores a head, of each example, and what that is called (Golovanevsky et al. 2025;
# the four numbers of `BLIP/patching_utils.py`).
HEAD_SCORES = {
    "probability": "p(answer) with the head put in",
    "probability_change": "change in p(answer)",
    "logit_difference_change": "change in the difference of both answers' logits",
    "normalised": "share of the total difference of logits",
}
_ROWS = (
    Analysis(
        "directions",
        "Sufficient against necessary",
        "Which places bring the answer back by themselves, and which does it need?",
        "a place, with what restoring and what corrupting it alone does",
        reads=("effects", "runs"),
    ),
    Analysis(
        MULTIVERSE,
        "A multiverse of analyses",
        "Which places are found whichever way the question is asked, and which hang on a choice?",
        "a place in a universe: one combination of experiment, level, site, quantity, null, "
        "threshold and seed",
        own_rules=True,
    ),
    Analysis(
        "fusion",
        "Where question and picture meet",
        "Which places carry what the answer needs of the question, of the picture, or of both?",
        "a place, with what restoring it does where the question, the picture or both are hidden",
    ),
    Analysis(
        CONFIRM,
        "Explored, then confirmed",
        "Which claims, drawn from one half of the pictures, hold on the other?",
        "a claim, with its effect in the half that it was drawn from and in the one that tests it",
        own_rules=True,
        beside=("halves",),
    ),
    Analysis(
        "methods",
        "Methods side by side",
        "Do ways to hide the answer, and metrics, find the same places?",
        "a pair of maps and how alike they are, or a cell at which two methods contradict each "
        "other",
        reads=("summary",),
    ),
    Analysis(
        "synergy",
        "Together against the sum of singles",
        "Do places do more together than each does alone?",
        "what is put in together, on one scale: its effect, the sum of its parts', the difference",
    ),
    Analysis(
        "selected_heads",
        "Heads that stand out at one token",
        "Which heads does the published rule keep, and are those more than chance keeps?",
        "a head of an experiment at a site, with its score at one role, and whether it is kept",
    ),
)
ANALYSES = {analysis.name: analysis for analysis in _ROWS}
# The quantities by which maps are compared, in words; each a column of the effects.
QUANTITY_WORDS = {
    "probability_change": "probability",
    "log_odds_change": "log-odds",
    "logit_difference_change": "logit difference",
    "normalised": "normalised logit difference",
    "contrast": "probability beyond the null",
}


def orientation(experiment: Experiment, quantity: str) -> int:
    """The sign that makes a quantity positive where the receiver's run goes the donor's way.

    A logit difference is the base answer's less the source's, whichever is followed; a normalised
    one is a share of the way.
    """
    if quantity == "normalised":
        return 1
    if quantity == "logit_difference_change" and experiment.followed != BASE:
        return -experiment.direction
    return experiment.direction
