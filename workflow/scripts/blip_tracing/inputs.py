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
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend
from tokenizers import Tokenizer

from blip_tracing.checkpoint import CONFIG, read_architecture
from blip_tracing.contents import content_digest
from blip_tracing.errors import InputError
from blip_tracing.files import read_bytes
from blip_tracing.pictures import identify_picture, is_url
from blip_tracing.roles import check_roles
from blip_tracing.tokens import (
    answer_token_id,
    check_vocabulary,
    load_tokenizer,
    tokenize,
    unknown_words,
)

REQUIRED_COLUMNS = ("example", "image", "base_question", "source_question")
OPTIONAL_COLUMNS = ("base_answer", "source_answer", "image_sha256")
COLUMNS = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
QUESTIONS = ("base_question", "source_question")
ANSWERS = ("base_answer", "source_answer")

SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# File systems end names at 255 bytes, and an example's name is a part of its figures' names.
LONGEST_NAME = 100
SHA256 = re.compile(r"[0-9a-f]{64}")
ROW = "row"
QUOTES = 'close or remove its double quotes (")'
# What an editor does not show, and what would end an error's one line: control characters and the
# separators of lines and paragraphs.
UNSEEN = ("Cc", "Zl", "Zp")
LONGEST_SHOWN = 80
LARGEST = 2**63 - 1
LONGEST_TEXT = 4096
# Whole numbers up to here are written out rather than with an exponent.
LONGEST_DIGITS = 10**16
LEVELS = "tracing.noise_levels"
# Below the one, noise is lost in float32; beyond the other, its squares in a layer norm overflow.
LEAST_LEVEL, LARGEST_LEVEL = 1e-30, 1e18
# Of the tables' FLOAT_FORMAT.
TABLE_DIGITS = 9

KINDS = {
    "object": "a group of keys",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a finite number",
}


# --- the configuration


def check_config(config: dict[str, Any], schema: dict[str, Any]) -> None:
    """Check a configuration, defaults filled in or not, against its schema.

    Stricter than the schema alone: 6.0 is no whole number, infinity and NaN are no numbers, text
    holds no control characters, paths hold no braces, no two of tracing.noise_levels have one
    label, report.draws_at is one of them and controls.null_samples no more than tracing.samples
    (unless nothing is traced), and the rules of effects.roles are such that roles can be told by
    them.
    Raises InputError on the first fault: `key: what is wrong; mend`. An unknown key goes
    before a missing one, since it is often the missing one misspelt.
    """
    try:
        _check_schema(config, schema)
        _check_text(config)
        _check_paths(config)
        if _configured(config, schema, "tracing", "sites"):
            _check_levels(_configured(config, schema, "tracing", "noise_levels"))
            _check_draws(config, schema)
        check_roles(_configured(config, schema, "effects", "roles"))
    except RecursionError as error:  # YAML lets a list hold itself
        raise InputError("is nested without end; write out what is meant") from error


def _check_schema(config: dict[str, Any], schema: dict[str, Any]) -> None:
    rank = {"additionalProperties": 0, "required": 1}
    faults = sorted(
        _strict_validator(schema).iter_errors(config),
        key=lambda fault: rank.get(fault.validator, 2),
    )
    if faults:
        raise InputError(_explain(faults[0]))


def _strict_validator(schema: dict[str, Any]) -> Any:
    types = Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: type(value) is int and abs(value) <= LARGEST,
            "number": lambda _, value: type(value) in (int, float) and _is_finite(value),
        }
    )
    return extend(Draft202012Validator, type_checker=types)(schema)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float holds
        return False


def _check_text(value: object, path: tuple[str | int, ...] = ()) -> None:
    match value:
        case dict():
            for key, inner in value.items():
                _check_text(inner, (*path, key))
        case list():
            for index, inner in enumerate(value):
                _check_text(inner, (*path, index))
        case str() if fault := _text_fault(value):
            raise InputError(f"{_dotted(path)}: {fault}")


def _check_paths(config: dict[str, Any]) -> None:
    paths = {"model.name": config["model"]["name"], "examples": config["examples"]}
    for key, path in {**paths, "published": config.get("published", "")}.items():
        try:
            check_path(path)
        except InputError as error:
            raise InputError(f"{key}: {error}") from error


def _text_fault(text: str) -> str:
    """What no name, path, question or answer has, or ""."""
    if len(text) > LONGEST_TEXT:
        return f"has {len(text):,} characters; {LONGEST_TEXT:,} are the most"
    if unseen := _unseen(text):
        return f"holds {unseen}, which no editor shows; remove it"
    return ""


def _unseen(text: str) -> str:
    """The first character of a text that cannot be seen, by its number, or ""."""
    found = (character for character in text if unicodedata.category(character) in UNSEEN)
    return next((f"the control character U+{ord(character):04X}" for character in found), "")


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
        case "type" if rule == "integer" and type(value) is int:
            least = fault.schema.get("minimum", -LARGEST)
            return f"{key}: {_shown(value)} is not in the range from {least} to {LARGEST}"
        case "type":
            return f"{key}: {_as_given(value)}, not {KINDS[rule]}{_number_hint(value, rule)}"
        case "enum":
            return f"{key}: {_shown(value)} is unknown; known are {', '.join(rule)}"
        case "uniqueItems":
            twice = next(item for n, item in enumerate(value) if item in value[:n])
            return f"{key}: {_shown(twice)} is given twice; keep it once"
        case "minItems" | "minLength":
            return f"{key}: is empty; give {fault.schema['description']}"
        case "minimum":
            return f"{key}: {_shown(value)} is less than the minimum of {rule}"
        case "maximum":
            return f"{key}: {_shown(value)} is more than the maximum of {rule}"
        case _:
            return f"{key}: {_shortened(fault.message)}"


def _dotted(path: Iterable[object]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{_plain(part)}" for part in path]
    return _shortened("".join(parts).removeprefix("."))


def _plain(name: object) -> str:
    """A key as it is written, what cannot be seen in it by its number."""
    return str(name) if not _unseen(str(name)) else ascii(str(name))


def _shown(value: object) -> str:
    return _shortened(repr(value))


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


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
            return f"{_shown(value)} is text"
        case int() | float():
            return f"{_shown(value)} is a number"
        case _:  # YAML knows dates, sets and bytes too
            return f"{_shortened(str(value))} is a {type(value).__name__}"


def _number_hint(value: object, expected: str) -> str:
    """YAML reads 1e-1 as text, which nobody expects: how it is written to be read as a number."""
    if not isinstance(value, str) or expected not in ("integer", "number"):
        return ""
    try:
        number = float(value)
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    return f"; write {_written(number)} without quotes"


def _written(number: float) -> str:
    """A number as YAML reads it: with a point before an exponent, and a sign behind the e."""
    short = number.is_integer() and abs(number) < LONGEST_DIGITS
    return yaml.safe_dump(int(number) if short else number).splitlines()[0]


def _check_levels(levels: Sequence[float]) -> None:
    """Check that every table, path and figure can tell the noise levels apart."""
    places: dict[str, int] = {}
    for place, level in enumerate(levels):
        key = f"{LEVELS}[{place}]"
        if level and not LEAST_LEVEL <= level <= LARGEST_LEVEL:
            raise InputError(
                f"{key}: {level} is beyond what float32 computes with; "
                f"give 0, or {LEAST_LEVEL:g} to {LARGEST_LEVEL:g}"
            )
        kept = f"{level:.{TABLE_DIGITS}g}"
        if float(kept) != level:
            raise InputError(
                f"{key}: {level} has more than the {TABLE_DIGITS} digits that tables keep; "
                f"write {_written(float(kept))}"
            )
        label = f"{level:g}"
        if label.startswith("-"):
            raise InputError(f"{key}: {level} is zero with a sign; write 0")
        if places.setdefault(label, place) != place:
            raise InputError(
                f"{key}: {level} and {levels[places[label]]} are both called {label} "
                "in the figures; keep one"
            )


def _check_draws(config: dict[str, Any], schema: dict[str, Any]) -> None:
    levels = _configured(config, schema, "tracing", "noise_levels")
    level = _configured(config, schema, "report", "draws_at")
    if level not in levels:
        raise InputError(
            f"report.draws_at: {level} is not in tracing.noise_levels; "
            f"give one of {', '.join(map(str, levels))}"
        )
    samples = _configured(config, schema, "tracing", "samples")
    null_samples = _configured(config, schema, "controls", "null_samples")
    if null_samples > samples:
        raise InputError(
            f"controls.null_samples: {null_samples} is more than the {samples} of "
            f"tracing.samples, whose draws the null shares; give at most {samples}"
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
        content = read_bytes(path)
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
    text = io.StringIO(_read_text(path), newline=None)
    lines, row = [], 0
    try:
        for row, cells in enumerate(csv.reader(text, delimiter="\t", strict=True), start=1):
            if any("\n" in cell for cell in cells):
                raise InputError(f"{path}, row {row}: a cell goes on over the line's end; {QUOTES}")
            stripped = _without_trailing_blanks([cell.strip() for cell in cells])
            if stripped:
                lines.append((row, stripped))
    except csv.Error as error:
        reason = str(error).replace("'\t'", "a tab")
        raise InputError(f"{path}, row {row + 1}: cannot be read ({reason}); {QUOTES}") from error
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
            raise InputError(f"{where}: {_unknown(_shown(column), column, COLUMNS, 'column')}")
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
        for column, cell in record.items():
            if fault := _text_fault(cell):
                raise InputError(f"{where}, {column}: {fault}")
        _check_image(record["image"], where)
        _check_name(record["example"], row, row_of_name, where)
        _check_checksum(record, row, checksum_of_image, where)


def _check_image(image: str, where: str) -> None:
    try:
        if is_url(image):
            # Imported here: it brings an HTTP client, which most sheets do not need.
            from blip_tracing.downloads import check_address

            check_address(image)
        else:
            check_path(image)
    except InputError as error:
        raise InputError(f"{where}, image: {error}") from error


def check_path(path: str) -> None:
    """Check that Snakemake takes a path as it is; raises InputError."""
    if re.search("[{}]", path):
        raise InputError(f"{path}: Snakemake takes {{ and }} in a path for wildcards; rename it")


def _records(sheet: pd.DataFrame) -> Iterator[tuple[int, dict[str, str]]]:
    return zip(sheet.index.tolist(), sheet.to_dict("records"), strict=True)  # type: ignore[arg-type]


def _where(sheet_path: str, row: int, record: dict[str, str]) -> str:
    named = f" (example {_shown(record['example'])})" if record["example"] else ""
    return f"{sheet_path}, row {row}{named}"


def _check_name(name: str, row: int, row_of_name: dict[str, int], where: str) -> None:
    if not SAFE_NAME.fullmatch(name):
        raise InputError(
            f"{where}, example: files are called by it; use only letters (A-Z, a-z), digits, "
            "_, - and . and begin with a letter, a digit or _"
        )
    if len(name) > LONGEST_NAME:
        raise InputError(
            f"{where}, example: has {len(name)} characters and files are called by it; "
            f"{LONGEST_NAME} are the most"
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
        if checksum and checksum != (found := content_digest([image])):
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

    The layers agree; the tokenizer's words are the model's; every question fits; given answers are
    one known token; and where patching.sites is not empty, both questions of a row have as many
    tokens. (Unequal pairs are refused rather than aligned: a patch of all positions is the
    source's run only between equals.)
    Returns one-line warnings: of answers that the tokenizer has no word for, and of each word that
    it does not know.
    Raises InputError on the first fault.
    """
    model = read_architecture(checkpoint_dir)
    _check_layers(config["model"]["layers"], model.text.layers, checkpoint_dir)
    tokenizer = load_tokenizer(checkpoint_dir)
    patched = bool(config["patching"]["sites"])
    warnings = check_vocabulary(tokenizer, model.vocabulary, model.start, checkpoint_dir)
    for row, record in _records(sheet):
        where = _where(sheet_path, row, record)
        _check_lengths(tokenizer, record, model.positions, patched, where)
        _check_answers(tokenizer, record, where)
        warnings += _unknown_word_warnings(tokenizer, record, where)
    return warnings


def _check_layers(layers: int, found: int, checkpoint_dir: str | os.PathLike[str]) -> None:
    if layers != found:
        raise InputError(
            f"model.layers is {layers}, but {Path(checkpoint_dir) / CONFIG} has {found} text "
            f"layers; set model.layers to {found}"
        )


def _check_lengths(
    tokenizer: Tokenizer, record: dict[str, str], limit: int, patched: bool, where: str
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
