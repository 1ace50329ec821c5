"""Checks of what is given against each other: sheet and pictures, sheet and checkpoint.

Light enough to run while the Snakefile is parsed, so that bad input stops before any job starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from tokenizers import Tokenizer

from blip_tracing.errors import InputError
from blip_tracing.given.checkpoint import CONFIG, read_architecture
from blip_tracing.given.pictures import identify_picture, is_url
from blip_tracing.given.sheet import records_of, where_in
from blip_tracing.given.tokens import (
    answer_token_id,
    check_vocabulary,
    load_tokenizer,
    tokenize,
    unknown_words,
)
from blip_tracing.machinery.contents import content_digest
from blip_tracing.vocabulary.experiment import experiments_of

QUESTIONS = ("base_question", "source_question")
ANSWERS = ("base_answer", "source_answer")


def check_pictures(sheet: pd.DataFrame, sheet_path: str) -> None:
    """Check that every local picture is there, is a picture, and has the sheet's checksum.

    Only a picture's first bytes are read unless a checksum is given; addresses are left alone.
    Raises InputError on the first fault: `file, row N (example 'name'), image: what; mend`.
    """
    checked: set[tuple[str, str]] = set()
    for row, record in records_of(sheet):
        image, checksum = record["image"], record["image_sha256"]
        if is_url(image) or (image, checksum) in checked:
            continue
        checked.add((image, checksum))
        where = where_in(sheet_path, row, record)
        if "://" in image:
            raise InputError(f"{where}, image: {image}: is not http(s); download it, give its path")
        try:
            identify_picture(image)
        except InputError as error:
            raise InputError(f"{where}, image: {error}") from error
        if checksum and checksum != (found := content_digest([image])):
            raise InputError(
                f"{where}, image_sha256: the sha256 of {image} is {found}; "
                "mend the cell or replace the picture"
            )


def check_against_checkpoint(
    config: dict[str, Any],
    sheet: pd.DataFrame,
    checkpoint_dir: str | os.PathLike[str],
    sheet_path: str,
) -> list[str]:
    """Check configuration (defaults filled in) and sheet against the model that they name.

    The layers agree; the tokenizer's words are the model's; every question fits; given answers are
    one known token; and where an experiment is of both questions, those of a row have as many
    tokens. (Unequal pairs are refused rather than aligned: a patch of all positions is the
    source's run only between equals.)
    Returns one-line warnings: of answers that the tokenizer has no word for, and of each word that
    it does not know.
    Raises InputError on the first fault.
    """
    model = read_architecture(checkpoint_dir)
    found = {
        "encoder": model.text.layers,
        "decoder": model.text.layers,
        "vision": model.vision.layers,
    }
    _check_layers(config["model"]["layers"], found, checkpoint_dir)
    tokenizer = load_tokenizer(checkpoint_dir)
    paired = any(
        experiment.donor.question != experiment.receiver.question
        for experiment in experiments_of(config).values()
    )
    warnings = check_vocabulary(tokenizer, model.vocabulary, model.start, checkpoint_dir)
    for row, record in records_of(sheet):
        where = where_in(sheet_path, row, record)
        _check_lengths(tokenizer, record, model.positions, paired, where)
        _check_answers(tokenizer, record, where)
        warnings += _unknown_word_warnings(tokenizer, record, where)
    return warnings


def _check_layers(
    layers: Mapping[str, int], found: Mapping[str, int], checkpoint_dir: str | os.PathLike[str]
) -> None:
    for tower, number in layers.items():
        if number != found[tower]:
            raise InputError(
                f"model.layers.{tower} is {number}, but {Path(checkpoint_dir) / CONFIG} has "
                f"{found[tower]}; set model.layers.{tower} to {found[tower]}"
            )


def _check_lengths(
    tokenizer: Tokenizer, record: dict[str, str], limit: int, paired: bool, where: str
) -> None:
    tokens = {column: tokenize(tokenizer, record[column]) for column in QUESTIONS}
    lengths = {column: len(found) for column, found in tokens.items()}
    for column, length in lengths.items():
        if not any(text for _, _, text in tokens[column]):
            raise InputError(f"{where}, {column}: has no word that can be seen; ask something")
        if length > limit:
            raise InputError(
                f"{where}, {column}: has {length} tokens, the model reads {limit}; shorten it"
            )
    base, source = lengths.values()
    if paired and base != source:
        raise InputError(
            f"{where}: base_question has {base} tokens, source_question {source}, and an "
            "experiment puts one's states into the other's run, which needs equally many; reword "
            "one, or leave out that experiment"
        )


def _check_answers(tokenizer: Tokenizer, record: dict[str, str], where: str) -> None:
    for column in ANSWERS:
        try:
            if record[column]:
                answer_token_id(tokenizer, record[column])
        except InputError as error:
            raise InputError(
                f"{where}, {column}: {error}; give another, or none for the model's own"
            ) from error


def _unknown_word_warnings(tokenizer: Tokenizer, record: dict[str, str], where: str) -> list[str]:
    return [
        f"{where}, {column}: the tokenizer does not know {word!r}, which becomes [UNK]"
        for column in QUESTIONS
        for word in dict.fromkeys(unknown_words(tokenizer, record[column]))
    ]
