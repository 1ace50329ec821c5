"""What the notebooks of analyses show: conclusions, which those of experiments have none of.

Apart from `shown`, so that no experiment's page depends on how conclusions are drawn.
"""

import pandas as pd
from IPython.display import HTML, display

from blip_tracing.printing.shown import macros
from blip_tracing.telling.analysed import in_words
from blip_tracing.telling.words import printable


def show_verdicts(verdicts: pd.DataFrame) -> None:
    """Show an analysis's conclusions in the notebook, in words."""
    display(HTML(macros().table(in_words(verdicts))))


def show_survivors(verdicts: pd.DataFrame, verdict: str) -> None:
    """Show in bold, of everything that is told about, what has this verdict."""
    found = {
        printable(str(about)): [
            printable(said) for said in rows.loc[rows["verdict"] == verdict, "statement"]
        ]
        for about, rows in verdicts.groupby("about", sort=False)
    }
    display(HTML(macros().survivors(found)))
