"""The examples of published methods, made from their datasets' files as the methods made theirs.

Palit et al. (2023): the first rows of `color_coco_qa.csv` of a number of words and word pieces.
NOTICE (Golovanevsky et al. 2025): prompts of two choices about SVO-Probes (Hendricks and Nematzadeh
2021) and MIT-States (Isola et al. 2015), whose other run sees another picture (SIP) or reads other
choices (STR). NOTICE's own sheets are not published, and its prompts were reworded by a language
model; here they are its templates as they stand. All chance comes from the seed and a row's number.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tokenizers import Tokenizer

from blip_tracing.errors import InputError
from blip_tracing.given.pairs import Drop, Question, Reason, chance, read_table_of_text
from blip_tracing.given.tokens import tokenize

# Palit et al.: `len(question.split()) == 7`; a question of another number of pieces than 9 breaks
# their sum of matrices and is skipped; the loop ends at 200.
PALIT_WORDS, PALIT_PIECES, PALIT_EXAMPLES = 7, 9, 200
SVO_COLUMNS = ("pos_triplet", "neg_triplet", "pos_image_id", "neg_image_id")
ROLES = ("subject", "verb", "object")
# NOTICE's templates of the choice in each role; P and N stand for the positive and negative word.
SVO_TEMPLATES = {
    "subject": "is {P} or {N} {verb} {object}?",
    "verb": "is {subject} {P} or {N} {object}?",
    "object": "is {subject} {verb} {P} or {N}?",
}
MIT_TEMPLATE = "Is this {noun} {first} or {second}?"
# Of replacements that make a question of another length so many are tried.
REPLACEMENTS_TRIED = 50
PERSON, NO_ADJECTIVE = "person", "adj"
IMAGE, TEXT = "image", "text"


@dataclass(frozen=True)
class Choice:
    """An example of two choices: what the clean run sees and is asked, and what may stand instead.

    row: of the dataset; image, other_image: paths; prompt: the question, its two words being
    `words`, the right one for `image` first or not; answer, other: the right and the wrong word;
    group: what the choice is of; vocabulary: words that may replace both.
    """

    row: int
    name: str
    image: str
    other_image: str
    prompt: str
    words: tuple[str, str]
    answer: str
    other: str
    group: str
    vocabulary: Sequence[str]


# ---- Palit et al. ------------------------------------------------------------------------------


def palit_examples(
    dataset: pd.DataFrame,
    tokenizer: Tokenizer,
    words: int = PALIT_WORDS,
    pieces: int = PALIT_PIECES,
    count: int = PALIT_EXAMPLES,
) -> tuple[list[Question], list[Drop]]:
    """The first `count` questions of so many words and word pieces, [CLS] and [SEP] included.

    Nothing else is asked of a row: neither its answer nor that it is the first of its kind.
    dataset: as `read_dataset` gives it.
    """
    kept: list[Question] = []
    dropped = []
    for row, picture, text, answer in dataset.itertuples(index=False):
        tokens = tuple(token for token, *_ in tokenize(tokenizer, text))
        if len(kept) == count:
            dropped.append(Drop(row, text, Reason.FULL))
        elif not (picture.isascii() and picture.isdecimal()):
            dropped.append(Drop(row, text, Reason.PICTURE_ID, picture))
        elif len(text.split()) != words:
            dropped.append(Drop(row, text, Reason.WORDS, str(len(text.split()))))
        elif len(tokens) != pieces:
            dropped.append(Drop(row, text, Reason.PIECES, str(len(tokens))))
        else:
            kept.append(Question(row, int(picture), text, answer, tokens))
    return kept, dropped


def palit_sheet(questions: Sequence[Question], pictures: str) -> pd.DataFrame:
    """Their sheet; the source question has the last word of the next one that ends otherwise.

    (The publication has no other question. One is needed for roles and for a second answer.)
    """
    rows = []
    for number, base in enumerate(questions):
        after = (*questions[number + 1 :], *questions[:number])
        other = next((q for q in after if q.tokens[-2] != base.tokens[-2]), None)
        if other is None:
            raise InputError(
                f"all questions end in {base.tokens[-2]!r}, so that none has another to be held "
                "against; give more rows"
            )
        start = base.text.rsplit(maxsplit=1)[0]
        rows.append(
            {
                "example": f"{base.picture}_{base.row}",
                "image": pictures.format(id=base.picture),
                "base_question": base.text,
                "source_question": f"{start} {other.text.split()[-1]}",
            }
        )
    return pd.DataFrame(rows)


# ---- NOTICE ------------------------------------------------------------------------------------


def svo_choices(path: str | os.PathLike[str], pictures: str) -> list[Choice | Drop]:
    """The choices of SVO-Probes, two a row: each of its pictures once as the clean one.

    pictures: the path of a picture, {id} for its id. Rows with a person are left out, as in
    NOTICE, and those whose triplets differ in none or several words.
    Raises InputError where the file is no such table.
    """
    table = read_table_of_text(path, SVO_COLUMNS)
    triplets = [table[f"{end}_triplet"].str.split(",") for end in ("pos", "neg")]
    vocabulary = {
        role: sorted({t[place].strip() for side in triplets for t in side if len(t) == len(ROLES)})
        for place, role in enumerate(ROLES)
    }
    choices: list[Choice | Drop] = []
    for row, *cells in table.itertuples(index=False):
        positive, negative = ([word.strip() for word in cell.split(",")] for cell in cells[:2])
        what = f"{cells[0]} / {cells[1]}"
        same_length = len(positive) == len(negative) == len(ROLES)
        differing = [n for n in range(len(ROLES)) if same_length and positive[n] != negative[n]]
        if len(differing) != 1:
            choices.append(Drop(row, what, Reason.TRIPLETS))
        elif PERSON in (*positive, *negative):
            choices.append(Drop(row, what, Reason.PERSON))
        else:
            (place,) = differing
            role, words = ROLES[place], (positive[place], negative[place])
            known = dict(zip(ROLES, positive, strict=True))
            prompt = SVO_TEMPLATES[role].format(P=words[0], N=words[1], **known)
            images = [pictures.format(id=image) for image in cells[2:]]
            for side, end in enumerate(("pos", "neg")):
                choices.append(
                    Choice(
                        row, f"{row}_{end}", images[side], images[1 - side], prompt, words,
                        words[side], words[1 - side], role, vocabulary[role],
                    )
                )  # fmt: skip
    return choices


def mit_choices(
    folder: str | os.PathLike[str], seed: int, adjectives: Iterable[str] = ()
) -> list[Choice | Drop]:
    """The choices of MIT-States: of a picture in `<adjective> <noun>/` its adjective or another.

    The other is by chance one of those that the noun has pictures of, and its picture one of
    these; no picture is taken twice. adjectives: those that are asked about, all if none.
    Raises InputError where the folder has none of such folders.
    """
    states = _mit_folders(folder)
    allowed = set(adjectives)
    free = {key: list(files) for key, files in states.items()}
    asked = {adjective for adjective, _ in states if adjective in allowed or not allowed}
    vocabulary = sorted(asked)
    nouns: dict[str, list[str]] = defaultdict(list)
    for adjective, noun in states:
        if adjective in asked:
            nouns[noun].append(adjective)
    pictures = [(key, file) for key, files in states.items() for file in files]
    choices: list[Choice | Drop] = []
    for row, ((adjective, noun), file) in enumerate(pictures):
        what = f"{adjective} {noun}/{file.name}"
        others = [a for a in nouns[noun] if a != adjective and free[a, noun]]
        if adjective not in nouns[noun]:
            choices.append(Drop(row, what, Reason.ADJECTIVE))
        elif file not in free[adjective, noun]:
            choices.append(Drop(row, what, Reason.TAKEN))
        elif not others:
            choices.append(Drop(row, what, Reason.NO_OTHER))
        else:
            free[adjective, noun].remove(file)
            other = others[chance(seed, "adjective", row) % len(others)]
            pool = free[other, noun]
            shown = pool.pop(chance(seed, "picture", row) % len(pool))
            first = chance(seed, "order", row) % 2 == 0
            words = (adjective, other) if first else (other, adjective)
            prompt = MIT_TEMPLATE.format(noun=noun, first=words[0], second=words[1])
            choices.append(
                Choice(
                    row, f"{row}", str(file), str(shown), prompt, words, adjective, other,
                    "right word first" if first else "right word second", vocabulary,
                )
            )  # fmt: skip
    return choices


def _mit_folders(folder: str | os.PathLike[str]) -> dict[tuple[str, str], list[Path]]:
    """(adjective, noun) → its pictures, in order of their names; `adj` stands for no adjective."""
    states = {}
    for inner in sorted(path for path in Path(folder).glob("* *") if path.is_dir()):
        adjective, noun = inner.name.split(" ", 1)
        files = sorted(file for file in inner.iterdir() if file.is_file())
        if adjective != NO_ADJECTIVE and files:
            states[adjective, noun] = files
    if not states:
        raise InputError(
            f"{folder}: has no folder like 'ripe apple' with pictures; give MIT-States' images"
        )
    return states


def choice_row(
    choice: Choice, change: str, tokenizer: Tokenizer, seed: int
) -> dict[str, str] | Drop:
    """A row of the sheet: the other run sees the other picture, or reads two other words.

    The other words are by chance of the choice's vocabulary, neither being one of its own, such
    that the question keeps its number of tokens.
    """
    row = {
        "example": choice.name,
        "image": choice.image,
        "base_question": choice.prompt,
        "source_question": choice.prompt,
        "base_answer": choice.answer,
        "source_answer": choice.other,
        "source_image": "",
        "group": choice.group,
    }
    if change == IMAGE:
        return row | {"source_image": choice.other_image}
    length = len(tokenize(tokenizer, choice.prompt))
    for prompt in _other_prompts(choice, seed):
        if len(tokenize(tokenizer, prompt)) == length:
            return row | {"source_question": prompt}
    return Drop(choice.row, choice.prompt, Reason.NO_REPLACEMENT)


def _other_prompts(choice: Choice, seed: int) -> Iterator[str]:
    """The prompt with other words in place of its two, as often as they are tried."""
    left = [word for word in choice.vocabulary if word not in choice.words]
    if len(left) < len(choice.words):
        return
    pair = " or ".join(choice.words)
    for attempt in range(REPLACEMENTS_TRIED):
        first = chance(seed, f"first {choice.name} {attempt}", choice.row) % len(left)
        second = chance(seed, f"second {choice.name} {attempt}", choice.row) % (len(left) - 1)
        others = [word for at, word in enumerate(left) if at != first]
        yield choice.prompt.replace(pair, f"{left[first]} or {others[second]}")
