"""What a comparison with published averages says, in words."""

from collections.abc import Mapping
from typing import Any

import pandas as pd


def averages_in_words(verdicts: pd.DataFrame) -> pd.DataFrame:
    """The verdicts on maps of averages as a reader sees them.

    Columns: quantity, compared, agree, expected, largest, bound, p, verdict, where.
    """
    told = verdicts.assign(
        quantity=verdicts["title"],
        expected=_written(verdicts["expected"], "{:.1f}"),
        p=_written(verdicts["p"], "{:.3f}"),
        **{name: _written(verdicts[name], "{:.3f}") for name in ("largest", "bound")},
    ).fillna({"where": ""})
    return told[
        ["quantity", "compared", "agree", "expected", "largest", "bound", "p", "verdict", "where"]
    ]


def expectations_in_words(expectations: pd.DataFrame) -> pd.DataFrame:
    """What any faithful run shows, as a reader sees it: expectation, found, at most, verdict."""
    columns = ["expectation", "found", "bound", "verdict"]
    words = {name: _written(expectations[name], "{:.2g}") for name in ("found", "bound")}
    return expectations.assign(**words)[columns].rename(columns={"bound": "at most"})


def held_words(held: Mapping[str, Any], source: str) -> str:
    """What of the run is held against which table; held: a `Held` as a dictionary."""
    cells = "; ".join(f"{site} of {experiment}" for site, experiment in held["cells"].items())
    examples = "the same examples" if held["same_examples"] else "other examples"
    return (
        f"Published: {source}. Held against it: {cells}, in the run {held['run']} at level "
        f"{held['level']:g}, of {examples}."
    )


def _written(numbers: pd.Series, digits: str) -> list[str]:
    """Numbers in so many digits, "" for what is missing."""
    return ["" if pd.isna(number) else digits.format(number) for number in numbers]
