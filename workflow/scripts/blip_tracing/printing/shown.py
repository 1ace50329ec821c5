"""What the notebooks show beside figures and tables, by the template `report/shown.html.j2`."""

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML, display
from jinja2 import Environment, FileSystemLoader, StrictUndefined

REPORT = Path(__file__).parents[3] / "report"


def show_heading(text: str, level: int = 2) -> None:
    """Show a heading in the notebook, whatever characters the text holds."""
    display(HTML(macros().heading(text, level)))


def show_text(text: str) -> None:
    """Show a paragraph in the notebook, whatever characters the text holds."""
    display(HTML(macros().paragraph(text)))


def show_unknown_words(tokens: pd.DataFrame) -> None:
    """Show a warning in the notebook that names the words unknown to the tokenizer, if any."""
    unknown = tokens[tokens["unknown"]]
    if not unknown.empty:
        examples = unknown.groupby("word", sort=False)["example"].unique()
        display(HTML(macros().unknown_words(examples.to_dict())))


def show_table(rows: pd.DataFrame) -> None:
    """Show a table of words and numbers in the notebook, as it is."""
    display(HTML(macros().table(rows)))


@cache
def macros() -> Any:
    """The template's macros."""
    environment = Environment(
        loader=FileSystemLoader(REPORT), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True,
    )  # fmt: skip
    return environment.get_template("shown.html.j2").module
