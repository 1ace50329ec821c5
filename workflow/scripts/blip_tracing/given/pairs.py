"""Pairs of questions out of a dataset of pictures, questions and one-word answers.

The dataset has the form in which Palit et al. (2023) published theirs, drawn from COCO-QA (Ren et
al., 2015). Every row is tried once as a base question and is either paired or dropped with a
reason. All chance comes from the seed and the row's number, so that nothing depends on a library's
generator.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, islice

import pandas as pd
from tokenizers import Tokenizer

from blip_tracing.errors import InputError
from blip_tracing.given.tokens import UNKNOWN, answer_token_id, tokenize

# What the published files call the picture's id, the question and its answer.
COLUMNS = {
    "train_image_id_count": "picture",
    "question_count": "question",
    "answer_count": "answer",
}
# A spreadsheet's first row of data, below the header.
FIRST_ROW = 2
# Of a thousand possible source questions the model is asked no more than these.
SOURCES_TRIED = 5

# A picture and two questions' tokens, in no order.
EitherWay = tuple[int, frozenset[tuple[str, ...]]]


class Reason(StrEnum):
    """Why a row is not in the sheet, in the order in which rows are tried."""

    PICTURE_ID = "the picture's id is not a whole number"
    EMPTY = "there is no question or no answer"
    WORDS = "the question has another number of words"
    PIECES = "the question has another number of tokens"
    TRIPLETS = "its triplets do not differ in exactly one word"
    PERSON = "a person is in it"
    ADJECTIVE = "its adjective is not asked about"
    TAKEN = "its picture stands in an earlier example"
    NO_OTHER = "its noun has no picture left of another adjective"
    NO_REPLACEMENT = "no other words make a question of as many tokens"
    UNKNOWN_WORD = "the tokenizer does not know a word of the question"
    LENGTH = "the question is longer than the model reads"
    ANSWER = "the answer is not one known token"
    TWO_ANSWERS = "the same question about the picture has another answer in another row"
    REPEATED = "the same question about the picture stands in an earlier row"
    NO_PICTURE = "there is no such picture"
    ALONE = "no other question about the picture has as many tokens and another answer"
    UNLIKE = "no other question differs from it in exactly one token"
    WRONG = "the model answers it otherwise"
    SOURCES_WRONG = "the model answers its source questions otherwise"
    SOURCES_SAME = "the model gives its source questions the same answer"
    MIRRORED = "its pairs are in the sheet the other way round"
    FULL = "the sample was full before its turn"


@dataclass(frozen=True)
class Question:
    """A row that can be asked: `row` as a spreadsheet numbers it, `answer` as its one token."""

    row: int
    picture: int
    text: str
    answer: str
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """A base question and the source question that is asked about the base's picture."""

    base: Question
    source: Question

    @property
    def either_way(self) -> EitherWay:
        """What the pair shares with the one that swaps its questions."""
        return self.base.picture, frozenset((self.base.tokens, self.source.tokens))


@dataclass(frozen=True)
class Drop:
    """A row that is not in the sheet; `detail` is what the reason was found in."""

    row: int
    question: str
    reason: Reason
    detail: str = ""


# The model's first answer token to a question about a picture.
Ask = Callable[[int, str], str]
FindSources = Callable[[Question], list[Question]]


@dataclass(frozen=True)
class Pairing:
    """A way to find source questions.

    prepare: from all questions, a function that lists a base question's sources; none: the reason
    where there are none; serves: whether a base, a source and the model's answer to the source
    make a pair; refused: the reason where no source does.
    """

    prepare: Callable[[Sequence[Question]], FindSources]
    none: Reason
    serves: Callable[[Question, Question, str], bool]
    refused: Reason


def read_dataset(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a CSV of questions: row, picture, question, answer.

    Raises InputError as `read_table_of_text` does.
    """
    return read_table_of_text(path, list(COLUMNS)).rename(columns=COLUMNS)


def read_table_of_text(path: str | os.PathLike[str], columns: Sequence[str]) -> pd.DataFrame:
    """Read `row` and these columns of a CSV, all but `row` text in single spaces.

    `row` is the number that a spreadsheet shows (the header is row 1); other columns are ignored.
    Raises InputError when there is no such file, it is no CSV, or lacks a column.
    """
    try:
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, skip_blank_lines=False, encoding="utf-8-sig"
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file") from error
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: is not a table ({reason}); save it as comma-separated UTF-8 text"
        ) from error
    for column in columns:
        if column not in table:
            raise InputError(
                f"{path}: has no column {column}; its first line names {', '.join(columns)}"
            )
    cells = table[list(columns)].fillna("")
    cells = cells.apply(lambda column: column.str.split().str.join(" "))
    cells.insert(0, "row", range(FIRST_ROW, FIRST_ROW + len(cells)))
    return cells


def screen(
    dataset: pd.DataFrame, tokenizer: Tokenizer, positions: int, words: int | None = None
) -> tuple[list[Question], list[Drop]]:
    """Part a dataset's rows into those that can be asked and those that cannot.

    positions: the most tokens that the model reads; words: keep questions of exactly so many.
    """
    read = [
        read_question(row, picture, question, answer, tokenizer, positions, words)
        for row, picture, question, answer in dataset.itertuples(index=False)
    ]
    questions, dropped = part(read)
    questions, repeated = part(single_out(questions))
    return questions, dropped + repeated


def part(outcomes: Iterable[Question | Drop]) -> tuple[list[Question], list[Drop]]:
    """Part questions from dropped rows, each in order."""
    questions: list[Question] = []
    dropped: list[Drop] = []
    for outcome in outcomes:
        if isinstance(outcome, Drop):
            dropped.append(outcome)
        else:
            questions.append(outcome)
    return questions, dropped


def read_question(
    row: int,
    picture: str,
    question: str,
    answer: str,
    tokenizer: Tokenizer,
    positions: int,
    words: int | None,
) -> Question | Drop:
    """One row as a question, or why it cannot be asked."""
    if not (picture.isascii() and picture.isdecimal()):
        return Drop(row, question, Reason.PICTURE_ID, picture)
    if not question or not answer:
        return Drop(row, question, Reason.EMPTY)
    if words is not None and len(question.split()) != words:
        return Drop(row, question, Reason.WORDS, str(len(question.split())))
    tokens = tokenize(tokenizer, question)
    unknown = [word for token, _, word in tokens if token == UNKNOWN]
    if unknown:
        return Drop(row, question, Reason.UNKNOWN_WORD, " ".join(unknown))
    if len(tokens) > positions:
        return Drop(row, question, Reason.LENGTH, str(len(tokens)))
    try:
        answer_token = tokenizer.id_to_token(answer_token_id(tokenizer, answer)) or ""
    except InputError:
        return Drop(row, question, Reason.ANSWER, answer)
    return Question(row, int(picture), question, answer_token, tuple(token for token, *_ in tokens))


def single_out(questions: Iterable[Question]) -> Iterator[Question | Drop]:
    """Keep the first of the rows that ask the same about a picture, none if their answers differ.

    What is asked is the tokens: capitals may differ where the tokenizer folds them.
    """
    alike: dict[tuple[int, tuple[str, ...]], list[Question]] = defaultdict(list)
    for question in questions:
        alike[question.picture, question.tokens].append(question)
    for group in alike.values():
        first = group[0]
        if len({question.answer for question in group}) > 1:
            answers = " ".join(dict.fromkeys(question.answer for question in group))
            yield from (Drop(q.row, q.text, Reason.TWO_ANSWERS, answers) for q in group)
            continue
        yield first
        for question in group[1:]:
            yield Drop(question.row, question.text, Reason.REPEATED, f"row {first.row}")


# ---- ways to pair ------------------------------------------------------------------------------


def same_picture(questions: Sequence[Question]) -> FindSources:
    """Sources: the other questions about the picture, as long and with another answer."""
    about: dict[int, list[Question]] = defaultdict(list)
    for question in questions:
        about[question.picture].append(question)

    def find(base: Question) -> list[Question]:
        return [
            other
            for other in about[base.picture]
            if len(other.tokens) == len(base.tokens) and other.answer != base.answer
        ]

    return find


def one_token_off(questions: Sequence[Question]) -> FindSources:
    """Sources: all questions of the dataset that differ in exactly one token, wherever it stands.

    The symmetric token replacement of Palit et al. A wording is listed as often as it occurs, so
    that a common word is a more likely replacement than a rare one.
    """
    around: dict[tuple, dict[tuple[str, ...], list[Question]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for question in questions:
        for gap in gaps(question.tokens):
            around[gap][question.tokens].append(question)

    def find(base: Question) -> list[Question]:
        wordings = (around[gap].items() for gap in gaps(base.tokens))
        return list(
            chain.from_iterable(
                rows for tokens, rows in chain.from_iterable(wordings) if tokens != base.tokens
            )
        )

    return find


def gaps(tokens: tuple[str, ...]) -> list[tuple]:
    """The question with each token in turn left out: (what is before it, what is after it)."""
    return [(tokens[:place], tokens[place + 1 :]) for place in range(len(tokens))]


PAIRINGS = {
    "same-picture": Pairing(
        prepare=same_picture,
        none=Reason.ALONE,
        serves=lambda base, source, said: said == source.answer,
        refused=Reason.SOURCES_WRONG,
    ),
    # The dataset does not say what is right of a question moved to another picture.
    "swap-noun": Pairing(
        prepare=one_token_off,
        none=Reason.UNLIKE,
        serves=lambda base, source, said: said != base.answer,
        refused=Reason.SOURCES_SAME,
    ),
}


# ---- the sample --------------------------------------------------------------------------------


def draw_pairs(
    questions: Sequence[Question],
    pairing: Pairing,
    seed: int,
    sample: int | None = None,
    ask: Ask | None = None,
) -> Iterator[Pair | Drop]:
    """Try every question as a base, in an order that the seed decides, until `sample` are paired.

    A larger sample goes on where a smaller one ended. With `ask`, a pair is taken only if the
    model answers the base question as the dataset does, and its answer to the source question
    serves; the model is asked no more than needed. Two questions about a picture are paired
    one way alone.
    """
    find_sources = pairing.prepare(questions)
    taken: set[EitherWay] = set()
    for base in sorted(questions, key=lambda question: chance(seed, "base", question.row)):
        if len(taken) == sample:
            yield Drop(base.row, base.text, Reason.FULL)
            continue
        outcome = pair_up(base, find_sources(base), pairing, seed, taken, ask)
        if isinstance(outcome, Pair):
            taken.add(outcome.either_way)
        yield outcome


def pair_up(
    base: Question,
    sources: list[Question],
    pairing: Pairing,
    seed: int,
    taken: set[EitherWay],
    ask: Ask | None,
) -> Pair | Drop:
    """The base question with the first of its sources that serves, or why there is none."""
    if not sources:
        return Drop(base.row, base.text, pairing.none)
    pairs = (Pair(base, source) for source in in_turn(sources, chance(seed, "source", base.row)))
    fresh = list(islice((pair for pair in pairs if pair.either_way not in taken), SOURCES_TRIED))
    if not fresh:
        return Drop(base.row, base.text, Reason.MIRRORED)
    if not ask:
        return fresh[0]
    said = ask(base.picture, base.text)
    if said != base.answer:
        return Drop(base.row, base.text, Reason.WRONG, said)
    for pair in fresh:
        if pairing.serves(base, pair.source, ask(base.picture, pair.source.text)):
            return pair
    return Drop(base.row, base.text, pairing.refused)


def in_turn(sources: list[Question], start: int) -> Iterator[Question]:
    """One source of each wording, in order from any place round to it again."""
    start %= len(sources)
    worded = set()
    for source in chain(sources[start:], sources[:start]):
        if source.tokens not in worded:
            worded.add(source.tokens)
            yield source


def chance(seed: int, purpose: str, row: int) -> int:
    """A whole number by chance, the same for the same seed, purpose and row."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{purpose}\n{row}".encode()).digest()[:8])


# ---- the sheet ---------------------------------------------------------------------------------


def sheet_of(pairs: Iterable[Pair], pictures: str) -> pd.DataFrame:
    """The examples sheet, a row a pair, named by picture and row; `pictures` is their template.

    Answers are left to the model, whose own first answer token the workflow then follows.
    """
    return pd.DataFrame(
        [
            {
                "example": f"{pair.base.picture}_{pair.base.row}",
                "image": pictures.format(id=pair.base.picture),
                "base_question": pair.base.text,
                "source_question": pair.source.text,
            }
            for pair in pairs
        ]
    )


def check_template(pictures: str) -> None:
    """Check that a template of pictures' addresses or paths says where their id stands.

    Raises InputError.
    """
    try:
        differ = pictures.format(id=1) != pictures.format(id=2)
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"--pictures {pictures}: cannot be filled in ({error}); write {{id}} or {{id:012d}} "
            "where the picture's id stands"
        ) from error
    if not differ:
        raise InputError(f"--pictures {pictures}: names one picture for all; write {{id}} in it")


def log_of(dropped: Iterable[Drop]) -> pd.DataFrame:
    """The dropped rows in the dataset's order: row, question, reason, detail."""
    rows = sorted(dropped, key=lambda drop: drop.row)
    return pd.DataFrame(
        [(drop.row, drop.question, str(drop.reason), drop.detail) for drop in rows],
        columns=["row", "question", "reason", "detail"],
    )


def count_reasons(dropped: Iterable[Drop]) -> str:
    """How many rows were dropped for each reason, in the order in which rows are tried."""
    counts = dict.fromkeys(Reason, 0)
    for drop in dropped:
        counts[drop.reason] += 1
    return "; ".join(f"{count:,}: {reason}" for reason, count in counts.items() if count)
