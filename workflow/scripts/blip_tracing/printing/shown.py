"""What the notebooks show beside figures and tables, by the template `report/shown.html.j2`."""

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML, display
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from blip_tracing.telling.analysed import in_words
from blip_tracing.telling.words import printable

REPORT = Path(__file__).parents[3] / "report"


def show_heading(text: str, level: int = 2) -> None:
    """Show a heading in the notebook, whatever characters the text holds."""
    display(HTML(_macros().heading(text, level)))


def show_text(text: str) -> None:
    """Show a paragraph in the notebook, whatever characters the text holds."""
    display(HTML(_macros().paragraph(text)))


def show_unknown_words(tokens: pd.DataFrame) -> None:
    """Show a warning in the notebook that names the words unknown to the tokenizer, if any."""
    unknown = tokens[tokens["unknown"]]
    if not unknown.empty:
        examples = unknown.groupby("word", sort=False)["example"].unique()
        display(HTML(_macros().unknown_words(examples.to_dict())))


def show_verdicts(verdicts: pd.DataFrame) -> None:
    """Show an analysis's conclusions in the notebook, in words."""
    display(HTML(_macros().table(in_words(verdicts))))


def show_survivors(verdicts: pd.DataFrame, verdict: str) -> None:
    """Show in bold, of everything that is told about, what has this verdict."""
    found = {
        printable(str(about)): [
            printable(said) for said in rows.loc[rows["verdict"] == verdict, "statement"]
        ]
        for about, rows in verdicts.groupby("about", sort=False)
    }
    display(HTML(_macros().survivors(found)))


def show_table(rows: pd.DataFrame) -> None:
    """Show a table of words and numbers in the notebook, as it is."""
    display(HTML(_macros().table(rows)))


@cache
def _macros() -> Any:
    environment = Environment(
        loader=FileSystemLoader(REPORT), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True,
    )  # fmt: skip
    return environment.get_template("shown.html.j2").module
