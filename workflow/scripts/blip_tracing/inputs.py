"""Checks of what a researcher gives: configuration, sheet, pictures, checkpoint.

Light enough to run while the Snakefile is parsed, so that bad input stops before any job starts.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend
from tokenizers import Tokenizer

from blip_tracing.checkpoint import CONFIG, text_layers, text_positions
from blip_tracing.errors import InputError
from blip_tracing.files import sha256_of
from blip_tracing.pictures import identify_picture, is_url, picture_path
from blip_tracing.tokens import answer_token_id, load_tokenizer, tokenize, unknown_words

REQUIRED_COLUMNS = ("example", "image", "base_question", "source_question")
OPTIONAL_COLUMNS = ("base_answer", "source_answer", "image_sha256")
COLUMNS = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
QUESTIONS = ("base_question", "source_question")
ANSWERS = ("base_answer", "source_answer")

SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")
ROW = "row"

KINDS = {
    "object": "a group of keys",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a finite number",
}


# --- the configuration


def check_config(config: dict[str, Any], schema: dict[str, Any], source: str) -> None:
    """Check a configuration, defaults filled in or not, against its schema.

    Stricter than the schema alone: 6.0 is no whole number, infinity and NaN are no numbers, and
    report.draws_at is one of tracing.noise_levels (unless nothing is traced).
    Raises InputError on the first fault: `source: key: what is wrong; mend`. An unknown key goes
    before a missing one, since it is often the missing one misspelt.
    """
    rank = {"additionalProperties": 0, "required": 1}
    faults = sorted(
        _strict_validator(schema).iter_errors(config),
        key=lambda fault: rank.get(fault.validator, 2),
    )
    if faults:
        raise InputError(f"{source}: {_explain(faults[0])}")
    _check_draws_at(config, schema, source)


def _strict_validator(schema: dict[str, Any]) -> Any:
    types = Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: type(value) is int,
            "number": lambda _, value: type(value) in (int, float) and math.isfinite(value),
        }
    )
    return extend(Draft202012Validator, type_checker=types)(schema)


def _explain(fault: ValidationError) -> str:
    key = _dotted(fault.absolute_path)
    value, rule = fault.instance, fault.validator_value
    match fault.validator:
        case "additionalProperties":
            known = list(fault.schema["properties"])
            unknown = next(name for name in value if name not in known)
            return _unknown(_dotted([*fault.absolute_path, unknown]), str(unknown), known, "key")
        case "required":
            missing = next(name for name in rule if name not in value)
            meaning = fault.schema["properties"][missing]["description"]
            return f"{_dotted([*fault.absolute_path, missing])} is missing: give {meaning}"
        case "type":
            return f"{key}: {_as_given(value)}, not {KINDS[rule]}{_number_hint(value, rule)}"
        case "enum":
            return f"{key}: {value!r} is unknown; known are {', '.join(rule)}"
        case "uniqueItems":
            twice = next(item for n, item in enumerate(value) if item in value[:n])
            return f"{key}: {twice!r} is given twice; keep it once"
        case "minItems" | "minLength":
            return f"{key}: is empty; give {fault.schema['description']}"
        case _:
            return f"{key}: {fault.message}"


def _dotted(path: Iterable[str | int]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in path]
    return "".join(parts).removeprefix(".")


def _unknown(shown: str, name: str, known: Sequence[str], kind: str) -> str:
    close = difflib.get_close_matches(name.lower(), known, n=1)
    mend = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    return f"{shown} is not a known {kind}; {mend}"


def _as_given(value: object) -> str:
    match value:
        case None:
            return "is empty"
        case dict():
            return "is a group of keys"
        case list():
            return "is a list"
        case bool():
            return f"{str(value).lower()} is a yes or no"
        case str():
            return f"{value!r} is text"
        case _:
            return f"{value!r} is a number"


def _number_hint(value: object, expected: str) -> str:
    """YAML reads 1e-1 as text, which nobody expects."""
    if not isinstance(value, str) or expected not in ("integer", "number"):
        return ""
    try:
        number = float(value)
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    return f"; write {int(number) if number.is_integer() else number} without quotes"


def _check_draws_at(config: dict[str, Any], schema: dict[str, Any], source: str) -> None:
    levels = _configured(config, schema, "tracing", "noise_levels")
    level = _configured(config, schema, "report", "draws_at")
    if _configured(config, schema, "tracing", "sites") and level not in levels:
        raise InputError(
            f"{source}: report.draws_at: {level} is not in tracing.noise_levels; "
            f"give one of {', '.join(map(str, levels))}"
        )


def _configured(config: dict[str, Any], schema: dict[str, Any], group: str, key: str) -> Any:
    default = schema["properties"][group]["properties"][key]["default"]
    return config.get(group, {}).get(key, default)


# --- the sheet


def load_sheet(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read and check the examples sheet.

    Returns a frame of text, its columns COLUMNS in that order whatever the file's, cells stripped,
    absent optional cells "", checksums in lower case. Its index, named "row", holds each row's
    line number in the file (the header is line 1, as in a spreadsheet).
    Raises InputError on the first fault: `file, row N (example 'name'), column: what; mend`.
    """
    sheet_path = os.fspath(path)
    lines = _read_lines(sheet_path)
    if not lines:
        raise InputError(f"{sheet_path}: is empty; its first line names the columns {_listed()}")
    (_, header), *rows = lines
    header = _check_header(header, sheet_path)
    if not rows:
        raise InputError(f"{sheet_path}: has no rows below its header; add an example")
    records = [_record(cells, header, f"{sheet_path}, row {row}") for row, cells in rows]
    index = pd.Index([row for row, _ in rows], name=ROW)
    sheet = pd.DataFrame(records, index=index, columns=list(COLUMNS), dtype=str)
    sheet["image_sha256"] = sheet["image_sha256"].str.lower()
    _check_rows(sheet, sheet_path)
    # Where rows share a picture it is fetched once, so a checksum in one row holds for all.
    sheet["image_sha256"] = sheet.groupby("image")["image_sha256"].transform("max")
    return sheet


def _listed() -> str:
    return ", ".join(REQUIRED_COLUMNS)


def _read_text(path: str) -> str:
    mend = "save the sheet as tab-separated UTF-8 text"
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; mend examples in the config") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file") from error
    if b"\0" in content:
        raise InputError(f"{path}: is not UTF-8 text but a binary file or UTF-16; {mend}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, row {line}: is not UTF-8 text; {mend}") from error


def _read_lines(path: str) -> list[tuple[int, list[str]]]:
    """The lines that are not blank: (line number, stripped cells without the empty last ones)."""
    reader = csv.reader(io.StringIO(_read_text(path), newline=None), delimiter="\t")
    lines = []
    try:
        for row, cells in enumerate(reader, start=1):
            if any("\n" in cell for cell in cells):
                raise InputError(
                    f"{path}, row {row}: a cell goes on over the line's end; "
                    'close or remove its double quote (")'
                )
            stripped = _without_trailing_blanks([cell.strip() for cell in cells])
            if stripped:
                lines.append((row, stripped))
    except csv.Error as error:
        raise InputError(
            f"{path}, row {reader.line_num}: cannot be read ({error}); mend its quotes"
        ) from error
    return lines


def _without_trailing_blanks(cells: list[str]) -> list[str]:
    filled = [number for number, cell in enumerate(cells, start=1) if cell]
    return cells[: filled[-1]] if filled else []


def _check_header(header: list[str], sheet_path: str) -> list[str]:
    where = f"{sheet_path}, row 1"
    if len(header) == 1 and re.search("[,;]", header[0]):
        raise InputError(f"{where}: has no tabs; save the sheet as tab-separated text")
    for number, column in enumerate(header):
        if not column:
            raise InputError(f"{where}: column {number + 1} has no name; name or remove it")
        if column not in COLUMNS:
            raise InputError(f"{where}: {_unknown(repr(column), column, COLUMNS, 'column')}")
        if column in header[:number]:
            raise InputError(f"{where}: column {column} is there twice; remove one")
    for column in REQUIRED_COLUMNS:
        if column not in header:
            raise InputError(f"{where}: column {column} is missing; the sheet needs {_listed()}")
    return header


def _record(cells: list[str], header: list[str], where: str) -> dict[str, str]:
    if len(cells) > len(header):
        raise InputError(
            f"{where}: has {len(cells)} cells where the header has {len(header)} columns; "
            "remove the tabs too many"
        )
    padded = cells + [""] * (len(header) - len(cells))
    return dict.fromkeys(COLUMNS, "") | dict(zip(header, padded, strict=True))


def _check_rows(sheet: pd.DataFrame, sheet_path: str) -> None:
    row_of_name: dict[str, int] = {}
    checksum_of_image: dict[str, tuple[str, int]] = {}
    for row, record in _records(sheet):
        where = _where(sheet_path, row, record)
        for column in REQUIRED_COLUMNS:
            if not record[column]:
                raise InputError(f"{where}, {column}: is empty; fill it in or remove the row")
        if re.search("[{}]", picture_path(record["image"])):
            raise InputError(
                f"{where}, image: Snakemake takes {{ and }} in a path for wildcards; rename it"
            )
        _check_name(record["example"], row, row_of_name, where)
        _check_checksum(record, row, checksum_of_image, where)


def _records(sheet: pd.DataFrame) -> Iterator[tuple[int, dict[str, str]]]:
    return zip(sheet.index.tolist(), sheet.to_dict("records"), strict=True)  # type: ignore[arg-type]


def _where(sheet_path: str, row: int, record: dict[str, str]) -> str:
    named = f" (example {record['example']!r})" if record["example"] else ""
    return f"{sheet_path}, row {row}{named}"


def _check_name(name: str, row: int, row_of_name: dict[str, int], where: str) -> None:
    if not SAFE_NAME.fullmatch(name):
        raise InputError(
            f"{where}, example: files are called by it; use only letters (A-Z, a-z), digits, "
            "_, - and . and begin with a letter, a digit or _"
        )
    # Some file systems take Cat and cat for one file.
    earlier = row_of_name.setdefault(name.lower(), row)
    if earlier != row:
        raise InputError(
            f"{where}, example: row {earlier} has that name too (capitals do not count); "
            "give each row its own"
        )


def _check_checksum(
    record: dict[str, str], row: int, seen: dict[str, tuple[str, int]], where: str
) -> None:
    checksum = record["image_sha256"]
    if not checksum:
        return
    if not SHA256.fullmatch(checksum):
        raise InputError(
            f"{where}, image_sha256: is not 64 hex digits; paste what `sha256sum` prints"
        )
    earlier, earlier_row = seen.setdefault(record["image"], (checksum, row))
    if earlier != checksum:
        raise InputError(
            f"{where}, image_sha256: row {earlier_row} gives the same image another; keep one"
        )


# --- the pictures


def check_pictures(sheet: pd.DataFrame, sheet_path: str) -> None:
    """Check that every local picture is there, is a picture, and has the sheet's checksum.

    Only a picture's first bytes are read unless a checksum is given; addresses are left alone.
    Raises InputError on the first fault: `file, row N (example 'name'), image: what; mend`.
    """
    checked: set[tuple[str, str]] = set()
    for row, record in _records(sheet):
        image, checksum = record["image"], record["image_sha256"]
        if is_url(image) or (image, checksum) in checked:
            continue
        checked.add((image, checksum))
        where = _where(sheet_path, row, record)
        if "://" in image:
            raise InputError(f"{where}, image: {image}: is not http(s); download it, give its path")
        try:
            identify_picture(image)
        except InputError as error:
            raise InputError(f"{where}, image: {error}") from error
        if checksum and checksum != (found := sha256_of([image])):
            raise InputError(
                f"{where}, image_sha256: the sha256 of {image} is {found}; "
                "mend the cell or replace the picture"
            )


# --- the checkpoint


def check_against_checkpoint(
    config: dict[str, Any],
    sheet: pd.DataFrame,
    checkpoint_dir: str | os.PathLike[str],
    sheet_path: str,
) -> list[str]:
    """Check configuration (defaults filled in) and sheet against the model that they name.

    The layers agree; every question fits; given answers are one known token; and where
    patching.sites is not empty, both questions of a row have as many tokens. (Unequal pairs are
    refused rather than aligned: a patch of all positions is the source's run only between equals.)
    Returns one-line warnings, one for each word that the tokenizer does not know.
    Raises InputError on the first fault.
    """
    _check_layers(config["model"]["layers"], checkpoint_dir)
    tokenizer = load_tokenizer(checkpoint_dir)
    limit = text_positions(checkpoint_dir)
    patched = bool(config["patching"]["sites"])
    warnings: list[str] = []
    for row, record in _records(sheet):
        where = _where(sheet_path, row, record)
        _check_lengths(tokenizer, record, limit, patched, where)
        _check_answers(tokenizer, record, where)
        warnings += _unknown_word_warnings(tokenizer, record, where)
    return warnings


def _check_layers(layers: int, checkpoint_dir: str | os.PathLike[str]) -> None:
    found = text_layers(checkpoint_dir)
    if layers != found:
        raise InputError(
            f"model.layers is {layers}, but {Path(checkpoint_dir) / CONFIG} has {found} text "
            f"layers; set model.layers to {found}"
        )


def _check_lengths(
    tokenizer: Tokenizer, record: dict[str, str], limit: int, patched: bool, where: str
) -> None:
    lengths = {column: len(tokenize(tokenizer, record[column])) for column in QUESTIONS}
    for column, length in lengths.items():
        if length > limit:
            raise InputError(
                f"{where}, {column}: has {length} tokens, the model reads {limit}; shorten it"
            )
    base, source = lengths.values()
    if patched and base != source:
        raise InputError(
            f"{where}: base_question has {base} tokens, source_question {source}, and patching "
            "needs equally many; reword one, or set patching.sites to [] to trace only"
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
