"""The sheet of examples: read, and checked as far as it can be by itself."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from difflib import SequenceMatcher

import pandas as pd

from blip_tracing.errors import InputError
from blip_tracing.given.pictures import PICTURES, is_url
from blip_tracing.given.text import shown, text_fault, unknown
from blip_tracing.machinery.files import read_bytes
from blip_tracing.vocabulary.regions import boxes_of
from blip_tracing.vocabulary.roles import ALL

REQUIRED_COLUMNS = ("example", "image", "base_question", "source_question")
OPTIONAL_COLUMNS = (
    "base_answer", "source_answer", "source_image", "boxes", "image_sha256", "source_image_sha256",
    "group",
)  # fmt: skip
COLUMNS = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)

SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# File systems end names at 255 bytes, and an example's name is a part of its figures' names.
LONGEST_NAME = 100
SHA256 = re.compile(r"[0-9a-f]{64}")
ROW = "row"
# What stands for the words that a template leaves open.
DIFFERING = "…"
QUOTES = 'close or remove its double quotes (")'


def load_sheet(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read and check the examples sheet.

    Returns a frame of text, its columns COLUMNS in that order whatever the file's, cells stripped,
    absent optional cells "", checksums in lower case, an absent group the questions' template.
    Its index, named "row", holds each row's line number in the file (the header is line 1, as in a
    spreadsheet).
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
    for checksum in PICTURES.values():
        sheet[checksum] = sheet[checksum].str.lower()
    checksums = _check_rows(sheet, sheet_path)
    # Where rows share a picture it is fetched once, so a checksum in one row holds for all.
    for image, checksum in PICTURES.items():
        sheet[checksum] = [checksums.get(picture, "") for picture in sheet[image]]
    templates = map(template_of, sheet["base_question"], sheet["source_question"])
    sheet["group"] = sheet["group"].where(sheet["group"] != "", list(templates))
    return sheet


def template_of(base: str, source: str) -> str:
    """The words that two questions share, in small letters, with … where they differ."""
    ours, theirs = (question.lower().split() for question in (base, source))
    blocks = SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes()
    parts = [" ".join(ours[i:j]) if kind == "equal" else DIFFERING for kind, i, j, *_ in blocks]
    return " ".join(parts)


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
            raise InputError(f"{where}: {unknown(shown(column), column, COLUMNS, 'column')}")
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


def _check_rows(sheet: pd.DataFrame, sheet_path: str) -> dict[str, str]:
    """Check the rows; return each picture's checksum, where a row gives one."""
    row_of_name: dict[str, int] = {}
    checksum_of_image: dict[str, tuple[str, int]] = {}
    for row, record in records_of(sheet):
        where = where_in(sheet_path, row, record)
        for column in REQUIRED_COLUMNS:
            if not record[column]:
                raise InputError(f"{where}, {column}: is empty; fill it in or remove the row")
        for column, cell in record.items():
            if fault := text_fault(cell):
                raise InputError(f"{where}, {column}: {fault}")
        if record["group"] == ALL:
            raise InputError(f"{where}, group: {ALL!r} is all examples; take another name")
        for image in PICTURES:
            _check_image(record[image], f"{where}, {image}")
        _check_name(record["example"], row, row_of_name, where)
        _check_boxes(record["boxes"], where)
        for image, checksum in PICTURES.items():
            at = f"{where}, {checksum}"
            _check_checksum(record[image], record[checksum], row, checksum_of_image, at)
    return {image: checksum for image, (checksum, _) in checksum_of_image.items()}


def _check_boxes(boxes: str, where: str) -> None:
    try:
        boxes_of(boxes)
    except InputError as error:
        raise InputError(f"{where}, boxes: {error}") from error


def _check_image(image: str, where: str) -> None:
    try:
        if is_url(image):
            # Imported here: it brings an HTTP client, which most sheets do not need.
            from blip_tracing.given.downloads import check_address

            check_address(image)
        else:
            check_path(image)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def check_path(path: str) -> None:
    """Check that Snakemake takes a path as it is; raises InputError."""
    if re.search("[{}]", path):
        raise InputError(f"{path}: Snakemake takes {{ and }} in a path for wildcards; rename it")


def records_of(sheet: pd.DataFrame) -> Iterator[tuple[int, dict[str, str]]]:
    return zip(sheet.index.tolist(), sheet.to_dict("records"), strict=True)  # type: ignore[arg-type]


def where_in(sheet_path: str, row: int, record: dict[str, str]) -> str:
    named = f" (example {shown(record['example'])})" if record["example"] else ""
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
    image: str, checksum: str, row: int, seen: dict[str, tuple[str, int]], where: str
) -> None:
    if not checksum:
        return
    if not image:
        raise InputError(f"{where}: is of no picture; give the picture, or leave the cell empty")
    if not SHA256.fullmatch(checksum):
        raise InputError(f"{where}: is not 64 hex digits; paste what `sha256sum` prints")
    earlier, earlier_row = seen.setdefault(image, (checksum, row))
    if earlier != checksum:
        raise InputError(f"{where}: row {earlier_row} gives the same image another; keep one")
