"""Words and numbers as every page, figure and table writes them; nothing here draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import pandas as pd

from blip_tracing.telling.fonts import letters
from blip_tracing.vocabulary.experiment import BASE, QUESTIONS

CLEAN_RUN = "clean run"
# The same intervention with an unrelated example's state, as a line of a chart is called.
NULL_LINE = "unrelated state"
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

    def asked(self, question: str) -> str:
        """`“what is it” → ball`; of one question about two pictures, which picture it is about."""
        same = question != BASE and self.base_question == self.source_question
        picture = " about the source picture" if same else ""
        return f"“{self.text(question)}”{picture} → {self.answer(question)}"


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
        # Where no token is brought, the cell is empty.
        arrow = f" ← {source}" if isinstance(source, str) and source not in ("", token) else ""
        labels[int(position)] = printable(f"{position} {token}{arrow}")
    return labels


def with_differences(
    base: str, source: str
) -> tuple[tuple[tuple[str, bool], ...], tuple[tuple[str, bool], ...]]:
    """Both questions, word by word, and whether each differs from the other question's there."""
    words = base.split(), source.split()
    same: tuple[set[int], set[int]] = (set(), set())
    for block in SequenceMatcher(None, *words, autojunk=False).get_matching_blocks():
        same[0].update(range(block.a, block.a + block.size))
        same[1].update(range(block.b, block.b + block.size))
    first, second = (
        tuple((word, place not in alike) for place, word in enumerate(of_question))
        for of_question, alike in zip(words, same, strict=True)
    )
    return first, second


def listed(words: Iterable[str]) -> str:
    """`a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def runs_of_numbers(numbers: Sequence[int]) -> str:
    """`0`, `0 and 1`, `0 to 2`, `0 to 2 and 5`: of ascending whole numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [f"{run[0]} to {run[-1]}" if len(run) > 2 else listed(map(str, run)) for run in runs]
    return listed(words)


def percent(share: float) -> str:
    """`33 %`; `< 1 %` and `> 99 %` where rounding would say nothing or everything."""
    if 0 < share < 0.005:
        return "< 1 %"
    if 0.995 < share < 1:
        return "> 99 %"
    return f"{100 * share:.0f} %"


def level_words(level: float, sign: str) -> str:
    """`σ = 5`; nothing where nothing is corrupted. sign: what a level is called."""
    return "" if pd.isna(level) else f"{sign} = {level:g}"


def level_noun(sign: str) -> str:
    """What a level is, in a sentence, by what it is called: `noise level`, `factor`."""
    return "noise level" if sign == "σ" else sign


def level_axis(sign: str) -> str:
    """What an axis of levels is called: `noise level σ`, `factor`."""
    return f"{level_noun(sign)} σ" if sign == "σ" else sign


def p_words(value: float) -> str:
    """A p-value; nothing for NaN."""
    if pd.isna(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def how_many(number: float, noun: str) -> str:
    """`1 draw`, `10 draws`."""
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def signed(value: float, digits: int = 3) -> str:
    """`+0.412`, `−0.412`, `0.000`; nothing for NaN."""
    if pd.isna(value):
        return ""
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else f"{0:.{digits}f}"


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
