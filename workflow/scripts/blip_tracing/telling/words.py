"""Words and numbers as every page, figure and table writes them; nothing here draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from blip_tracing.telling.fonts import letters
from blip_tracing.vocabulary.experiment import BASE, QUESTIONS

CLEAN_RUN = "clean run"
# A corrupted run alone: of an experiment that restores in it, and of one that only takes from it.
NOTHING_RESTORED, CORRUPTED_RUN = "nothing restored", "corrupted run"


@dataclass(frozen=True)
class Pair:
    """One example's two questions, their answers, and p(base answer) in the clean base run."""

    example: str
    base_question: str
    source_question: str
    base_answer: str
    source_answer: str
    base_answer_id: int
    source_answer_id: int
    p_clean: float

    def answer(self, question: str) -> str:
        """The answer that is followed for the base or the source question."""
        return self.base_answer if question == BASE else self.source_answer

    def text(self, question: str) -> str:
        """The words of the base or the source question."""
        return self.base_question if question == BASE else self.source_question


def pair_of(runs: pd.DataFrame, example: str) -> Pair:
    """The example's questions and answers, from the table `runs`."""
    rows = rows_of(runs, example=example).set_index("run")
    base, source = (rows.loc[[question]].iloc[0] for question in QUESTIONS)
    return Pair(
        example=printable(example),
        base_question=printable(base["text"]),
        source_question=printable(source["text"]),
        base_answer=printable(base["answer"]),
        source_answer=printable(source["answer"]),
        base_answer_id=int(base["answer_id"]),
        source_answer_id=int(source["answer_id"]),
        p_clean=float(base["p_base"]),
    )


def is_corrupted_alone(run: str) -> bool:
    """Whether a run by this name, among others by level, is a corrupted one alone."""
    return run.startswith((NOTHING_RESTORED, CORRUPTED_RUN))


def rows_of(table: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """The rows with these values; ValueError names them where there is none."""
    chosen = table
    for column, value in wanted.items():
        chosen = chosen[chosen[column] == value]
    if chosen.empty:
        named = ", ".join(f"{column} {value!r}" for column, value in wanted.items())
        raise ValueError(f"the table has no rows with {named}")
    return chosen


def printable(text: str) -> str:
    """The text with every character that the font lacks written as `U+4E2D`."""
    return "".join(letter if letter in letters() else f"U+{ord(letter):04X}" for letter in text)


def position_labels(cells: pd.DataFrame) -> dict[int, str]:
    """Position → `7 animal`, or `7 animal ← shirt` where a patch brings another token."""
    places = cells.drop_duplicates("position").sort_values("position")
    brought = places.get("source_token", places["token"])
    labels = {}
    for position, token, source in zip(places["position"], places["token"], brought, strict=True):
        arrow = f" ← {source}" if source and source != token else ""
        labels[int(position)] = printable(f"{position} {token}{arrow}")
    return labels


def how_many(number: float, noun: str) -> str:
    """`1 draw`, `10 draws`."""
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def signed(value: float) -> str:
    """`+0.412`, `−0.412`, `0.000`; nothing for NaN."""
    if pd.isna(value):
        return ""
    return f"{round(value, 3):+.3f}".replace("-", "−") if round(value, 3) else "0.000"


def unsigned(value: float) -> str:
    """`0.412`, of what is no change."""
    return f"{value:.3f}".replace("-", "−")


def brief(value: float) -> str:
    """As a cell has room for it: `.41`, `−.41`, `1`, `0`; nothing for NaN."""
    if pd.isna(value):
        return ""
    number = f"{abs(value):.2f}"
    written = {"0.00": "0", "1.00": "1"}.get(number, number.removeprefix("0"))
    return f"−{written}" if value < 0 and written != "0" else written


def with_interval(
    mean: float,
    low: float,
    high: float,
    write: Callable[[float], str] = signed,
    form: str = "{} ({} to {})",
) -> str:
    """`+0.412 (+0.301 to +0.523)`; the mean alone where there is no interval.

    write: how each number is written; form: how the three stand together.
    """
    if pd.isna(low):
        return write(mean)
    return form.format(write(mean), write(low), write(high))
