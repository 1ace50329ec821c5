"""What the analyses of several experiments conclude, in words."""

from collections.abc import Iterator

import pandas as pd

from blip_tracing.telling.told import Answered, Run
from blip_tracing.telling.words import printable
from blip_tracing.vocabulary.analyses import ANALYSES

DIGITS = "{:.3g}"


def analyses_of(run: Run) -> Iterator[Answered]:
    """Each analysis that the run was asked for."""
    for name, analysis in ANALYSES.items():
        if analysis.verdicts in run.tables:
            told = in_words(run.tables[analysis.verdicts])
            yield Answered(name, analysis.title, analysis.question, told)


def in_words(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Conclusions as a reader sees them: about, statement, value with its interval, p, verdict."""
    ends = verdicts[["value", "low", "high"]].to_numpy(float)
    return pd.DataFrame(
        {
            "about": verdicts["about"].map(printable),
            "statement": verdicts["statement"].map(printable),
            "value (95 % interval)": [_with_interval(*of) for of in ends],
            "p": ["" if p != p else f"{p:.3f}" for p in verdicts["p"]],
            "pictures": verdicts["pictures"],
            "verdict": verdicts["verdict"].map(printable),
        }
    )


def _with_interval(value: float, low: float, high: float) -> str:
    if value != value:
        return ""
    told = DIGITS.format(value)
    return told if low != low else f"{told} ({DIGITS.format(low)} to {DIGITS.format(high)})"
