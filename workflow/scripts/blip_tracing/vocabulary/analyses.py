"""What is asked of several experiments together: an analysis is a row of the table `ANALYSES`.

Each reads what the experiments' effects are by example, and makes two tables: its numbers, called
after it, and what it concludes from them, a verdict a row. Its settings are the group of its name
in the configuration (`config.Analyses`), its work the module of its name in `meaning/analyses/`,
its page the notebook of its name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Analysis:
    """name: its own everywhere; title, question: what a reader calls it; rows: of its table."""

    name: str
    title: str
    question: str
    rows: str

    @property
    def verdicts(self) -> str:
        """The table of its conclusions."""
        return f"{self.name}_verdicts"


_ROWS = (
    Analysis(
        "directions",
        "Sufficient against necessary",
        "Which places bring the answer back by themselves, and which does it need?",
        "a place, with what restoring and what corrupting it alone does",
    ),
)
ANALYSES = {analysis.name: analysis for analysis in _ROWS}
