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
from blip_tracing.given.architecture import Architecture
from blip_tracing.given.checkpoint import CONFIG, read_architecture
from blip_tracing.given.halves import CONFIRMING, EXPLORING, HALVES, halves_of, pictures_in
from blip_tracing.given.pictures import PICTURES, identify_picture, is_url, pictures_of
from blip_tracing.given.sheet import records_of, where_in
from blip_tracing.given.text import closest, shown
from blip_tracing.given.tokens import (
    answer_token_ids,
    check_vocabulary,
    load_tokenizer,
    tokenize,
    unknown_words,
)
from blip_tracing.machinery.contents import content_digest
from blip_tracing.vocabulary.analyses import CONFIRM
from blip_tracing.vocabulary.corruptions import PICTURE_PIXELS, PICTURE_STATES
from blip_tracing.vocabulary.experiment import SOURCE, Experiment, experiments_of, runs_of
from blip_tracing.vocabulary.regions import PICTURE, picture_roles
from blip_tracing.vocabulary.sites import SITES, VISION, towers_of
from blip_tracing.vocabulary.tables import FEWEST_PICTURES, SIGNIFICANT

QUESTIONS = ("base_question", "source_question")
ANSWERS = ("base_answer", "source_answer")
OTHER_SPLIT = "add rows, or give another salt before anything is measured"


def check_pictures(sheet: pd.DataFrame, sheet_path: str) -> None:
    """Check that every local picture is there, is a picture, and has the sheet's checksum.

    Only a picture's first bytes are read unless a checksum is given; addresses are left alone.
    Raises InputError on the first fault: `file, row N (example 'name'), image: what; mend`.
    """
    checked: set[tuple[str, str]] = set()
    for row, record in records_of(sheet):
        where = where_in(sheet_path, row, record)
        for column, checksums in PICTURES.items():
            given = record[column], record[checksums]
            if record[column] and given not in checked:
                checked.add(given)
                _check_picture(*given, f"{where}, {column}", f"{where}, {checksums}")


def check_halves(config: Mapping[str, Any], sheet: pd.DataFrame, sheet_path: str) -> list[str]:
    """Check that both halves of a sheet that claims are to be confirmed on have pictures.

    Returns a warning, in one line, where the halves can claim or confirm nothing. Raises InputError
    where all pictures are in one.
    """
    asked = config["analyses"].get(CONFIRM)
    if not asked:
        return []
    rows = [record for _, record in records_of(sheet)]
    pictures = pictures_in(rows, halves_of(rows, asked["share"], asked["salt"]))
    for half in HALVES:
        if not pictures[half]:
            raise InputError(
                f"{sheet_path}: none of its {sum(pictures.values())} pictures fall into the {half} "
                f"half that analyses.confirm asks for; {OTHER_SPLIT}"
            )
    if min(pictures.values()) < FEWEST_PICTURES:
        return [
            f"analyses.confirm: {pictures[EXPLORING]} pictures explore and "
            f"{pictures[CONFIRMING]} confirm, where each half needs six; {OTHER_SPLIT}"
        ]
    # Of n pictures no p is below 2⁻ⁿ, and of all claims the first must be refused at a share of it.
    most = int(SIGNIFICANT * 2 ** pictures[CONFIRMING])
    if asked["claims"] > most:
        return [
            f"analyses.confirm.claims: {pictures[CONFIRMING]} pictures can confirm none of more "
            f"than {most} claims; give at most {most}"
        ]
    return []


def check_own_pictures(config: dict[str, Any], sheet: pd.DataFrame, sheet_path: str) -> None:
    """Check that at sites of the vision tower receiver and donor see different pictures.

    Raises InputError naming the experiment, where neither is of the other question and no picture's
    pixels are corrupted, or the first row whose source run has no picture of its own.
    """
    for name, experiment in experiments_of(config).items():
        seen = [site for site in experiment.sites if SITES[site].tower == VISION]
        if not seen:
            continue
        corruption = experiment.corrupted.corruption if experiment.corrupted else None
        at = [part.at for part in corruption.parts] if corruption else []
        if PICTURE_STATES in at:
            raise InputError(
                f"experiments.{name}: {PICTURE_STATES} lie behind {seen[0]}, which they leave as "
                f"it is; corrupt {PICTURE_PIXELS}, or leave out the sites of vision"
            )
        if PICTURE_PIXELS in at:
            continue
        questions = experiment.receiver.question, experiment.donor.question
        if len(set(questions)) == 1:
            raise InputError(
                f"experiments.{name}: receiver and donor see the same picture, so that they do not "
                f"differ at {seen[0]}; let one of them be of {SOURCE}, with a source_image"
            )
        for row, record in records_of(sheet):
            if len(pictures_of([record])) == 1:
                raise InputError(
                    f"{where_in(sheet_path, row, record)}, source_image: is the base run's "
                    f"picture, and experiment {name} puts what one picture gives at {seen[0]} into "
                    "another's run; name another picture, or leave out that experiment"
                )


def check_corrupted_regions(config: dict[str, Any], sheet: pd.DataFrame, sheet_path: str) -> None:
    """Check that every picture has the region that alone is corrupted, where a run names one.

    Raises InputError naming the run's key where no row's boxes name it, or the first row that has
    none of it, or whose source run sees a picture that its boxes are not of.
    """
    for name, run in runs_of(config).items():
        corruption = run.corruption
        if not corruption or not corruption.role or not corruption.on_patches:
            continue
        key, role = f"runs.{name}.corrupt.role", corruption.role
        _, *known = picture_roles(sheet["boxes"])
        if not sheet["boxes"].any() and role not in known:
            raise InputError(
                f"{key}: {shown(role)} is a region of a picture, and no row of {sheet_path} has "
                "boxes; add them to the sheet, or leave it out"
            )
        if role not in known:
            raise InputError(f"{key}: {shown(role)} is no box of a row; {closest(role, known)}")
        for row, record in records_of(sheet):
            where, own = where_in(sheet_path, row, record), picture_roles([record["boxes"]])
            if role not in own:
                raise InputError(
                    f"{where}, boxes: has no {shown(role)}, where alone {name} is corrupted; add "
                    "it, or leave the example out"
                )
            if run.question == SOURCE and len(pictures_of([record])) > 1 and role != PICTURE:
                raise InputError(
                    f"{where}, source_image: is what {name} sees, and boxes are of image; leave "
                    f"out {key}, or corrupt a run of base"
                )


def _check_picture(image: str, checksum: str, where: str, where_checksum: str) -> None:
    if is_url(image):
        return
    if "://" in image:
        raise InputError(f"{where}: {image}: is not http(s); download it, give its path")
    try:
        identify_picture(image)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if checksum and checksum != (found := content_digest([image])):
        raise InputError(
            f"{where_checksum}: the sha256 of {image} is {found}; "
            "mend the cell or replace the picture"
        )


def check_against_checkpoint(
    config: dict[str, Any],
    sheet: pd.DataFrame,
    checkpoint_dir: str | os.PathLike[str],
    sheet_path: str,
) -> list[str]:
    """Check configuration (defaults filled in) and sheet against the model that they name.

    The layers agree; heads and regions that are asked for are there; the tokenizer's words are the
    model's; every question fits; given answers are of known words; and where an experiment is of
    both questions, those of a row have as many tokens. (Unequal pairs are refused rather than
    aligned: a patch of all positions is the source's run only between equals.)
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
    for experiment in experiments_of(config).values():
        _check_parts(experiment, model)
    tokenizer = load_tokenizer(checkpoint_dir)
    paired = any(
        experiment.donor.question != experiment.receiver.question
        for experiment in experiments_of(config).values()
    )
    warnings = check_vocabulary(tokenizer, model.vocabulary, model.start, checkpoint_dir)
    for row, record in records_of(sheet):
        where = where_in(sheet_path, row, record)
        _check_lengths(tokenizer, record, model.positions, paired, where)
        _check_answers(tokenizer, record, model.positions, where)
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


def _check_parts(experiment: Experiment, model: Architecture) -> None:
    """Check that every head and every region of an experiment is one."""
    place = f"experiments.{experiment.name}"
    for tower in towers_of(experiment.sites, with_heads=True):
        heads = model.tower(tower).heads
        for number, head in enumerate(experiment.heads):
            if head >= heads:
                raise InputError(
                    f"{place}.heads[{number}]: {head} is not a head of the {tower} tower, which "
                    f"has {heads}, counted from 0; give at most {heads - 1}"
                )
    if VISION in towers_of(experiment.sites) and experiment.regions > model.side:
        raise InputError(
            f"{place}.regions: {experiment.regions} is more than the {model.side} patches that a "
            f"picture has across; give at most {model.side}, or 0 for every patch"
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


def _check_answers(tokenizer: Tokenizer, record: dict[str, str], limit: int, where: str) -> None:
    mend = "give another, or none for the model's own"
    for column in ANSWERS:
        if not record[column]:
            continue
        try:
            length = len(answer_token_ids(tokenizer, record[column]))
        except InputError as error:
            raise InputError(f"{where}, {column}: {error}; {mend}") from error
        if length > limit:
            raise InputError(
                f"{where}, {column}: has {length} tokens, the model answers {limit} at most; {mend}"
            )


def _unknown_word_warnings(tokenizer: Tokenizer, record: dict[str, str], where: str) -> list[str]:
    return [
        f"{where}, {column}: the tokenizer does not know {word!r}, which becomes [UNK]"
        for column in QUESTIONS
        for word in dict.fromkeys(unknown_words(tokenizer, record[column]))
    ]
