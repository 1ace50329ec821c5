"""A wrong sheet is said in one line that names the file, the row and the mend."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest
import yaml
from project import ROOT
from refusals import GOOD_ROW, HEADER, SCHEMAS, refusal, write_sheet
from snakemake.utils import validate  # type: ignore[import-untyped]

from blip_tracing.errors import InputError
from blip_tracing.given.sheet import COLUMNS, REQUIRED_COLUMNS, load_sheet

SHEET_SCHEMA = yaml.safe_load((SCHEMAS / "examples.schema.yaml").read_text())


def sheet_refusal(path: Path) -> str:
    message = refusal(load_sheet, path)
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def test_the_schema_of_the_sheet_names_the_columns() -> None:
    assert tuple(SHEET_SCHEMA["properties"]) == COLUMNS
    assert tuple(SHEET_SCHEMA["required"]) == REQUIRED_COLUMNS


def test_a_sheet_is_text_in_known_columns_by_its_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "examples.tsv"
    path.write_bytes(
        "\ufeffsource_answer\texample\timage\tbase_question\tsource_question\t\t\r\n"
        "\r\n"
        " red\t007 \timages/a.png\twhat  is it?\twhat is she\t \r\n"
        "\t\t\r\n"
        '\tNA\timages/a.png\t"what is a ""shirt"""\tnull\r\n'
        "\r\n".encode()
    )
    sheet = load_sheet(path)
    assert list(sheet.columns) == list(COLUMNS)
    assert sheet.index.tolist() == [3, 5]
    assert sheet["example"].tolist() == ["007", "NA"]
    assert sheet["source_answer"].tolist() == ["red", ""]
    assert sheet["base_question"].tolist() == ["what  is it?", 'what is a "shirt"']
    assert sheet["source_question"].tolist() == ["what is she", "null"]
    assert (sheet[["base_answer", "image_sha256"]] == "").all(axis=None)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["Unix", "Windows", "old Mac"])
def test_a_line_ends_as_any_editor_ends_it(tmp_path: Path, end: str) -> None:
    path = tmp_path / "examples.tsv"
    path.write_bytes(end.join([HEADER, "", GOOD_ROW]).encode())
    assert load_sheet(path)["source_question"].to_dict() == {3: "what is the shirt"}


def test_snakemake_accepts_what_is_loaded_and_leaves_it_alone(tmp_path: Path) -> None:
    sheet = load_sheet(write_sheet(tmp_path, HEADER, GOOD_ROW))
    before = sheet.copy()
    validate(sheet, str(SCHEMAS / "examples.schema.yaml"))
    pd.testing.assert_frame_equal(sheet, before)


@pytest.mark.parametrize("name", ["examples.tsv", "blip-vqa-base.tsv"])
def test_the_shipped_sheets_begin_with_the_tutorials_pair(name: str) -> None:
    first = load_sheet(ROOT / "config" / name).iloc[0]
    assert first["example"] == "animal_shirt"
    assert first["base_question"] == "what is the color of the animal"
    assert first["source_question"] == "what is the color of the shirt"


def test_a_checksum_holds_for_all_rows_of_its_picture(tmp_path: Path) -> None:
    checksum = hashlib.sha256(b"").hexdigest()
    sheet = load_sheet(
        write_sheet(
            tmp_path,
            HEADER + "\timage_sha256",
            "a\tx.png\tq\tr",
            f"b\tx.png\tq\tr\t{checksum.upper()}",
            "c\ty.png\tq\tr",
        )
    )
    assert sheet["image_sha256"].tolist() == [checksum, checksum, ""]


def test_a_checksum_holds_for_a_picture_whichever_run_sees_it(tmp_path: Path) -> None:
    first, second = (hashlib.sha256(name).hexdigest() for name in (b"x", b"y"))
    header = HEADER + "\tsource_image\timage_sha256\tsource_image_sha256"
    sheet = load_sheet(
        write_sheet(
            tmp_path,
            header,
            f"a\tx.png\tq\tq\ty.png\t\t{second}",
            f"b\ty.png\tq\tq\tx.png\t\t{first}",
            "c\ty.png\tq\tr",
        )
    )
    assert sheet["image_sha256"].tolist() == [first, second, second]
    assert sheet["source_image_sha256"].tolist() == [second, first, ""]
    rows = ["a\tx.png\tq\tq\ty.png\t\t" + second, "b\ty.png\tq\tr\t\t" + first]
    assert sheet_refusal(write_sheet(tmp_path, header, *rows)) == (
        ", row 3 (example 'b'), image_sha256: row 2 gives the same image another; keep one"
    )
    alone = write_sheet(tmp_path, header, f"a\tx.png\tq\tq\t\t\t{second}")
    assert sheet_refusal(alone) == (
        ", row 2 (example 'a'), source_image_sha256: is of no picture; give the picture, or leave "
        "the cell empty"
    )


def test_a_source_picture_is_checked_as_a_picture_is(tmp_path: Path) -> None:
    header = HEADER + "\tsource_image"
    assert sheet_refusal(write_sheet(tmp_path, header, "a\tx.png\tq\tr\t{y}.png")) == (
        ", row 2 (example 'a'), source_image: {y}.png: Snakemake takes { and } in a path for "
        "wildcards; rename it"
    )
    address = sheet_refusal(write_sheet(tmp_path, header, "a\tx.png\tq\tr\thttp://*/a.png"))
    assert address.startswith(
        ", row 2 (example 'a'), source_image: http://*/a.png: is no address ("
    )


def test_a_wrong_box_names_its_row(tmp_path: Path) -> None:
    header = HEADER + "\tboxes"
    kept = load_sheet(write_sheet(tmp_path, header, "a\tx.png\tq\tr\tcat=0,0,1,1; hat=0,0,.5,1"))
    assert kept["boxes"].tolist() == ["cat=0,0,1,1; hat=0,0,.5,1"]
    wrong = write_sheet(tmp_path, header, "a\tx.png\tq\tr\tcat=0,0,1,2")
    assert sheet_refusal(wrong) == (
        ", row 2 (example 'a'), boxes: cat=0,0,1,2: is not left < right and top < bottom between 0 "
        "and 1; give fractions of the picture's width and height"
    )


@pytest.mark.parametrize(
    ("base", "source", "template"),
    [
        (
            "What is the color of the shirt",
            "what is the color of the hat",
            "what is the color of the …",
        ),
        ("what thing is white", "what thing  is green", "what thing is …"),
        ("what is it", "what is it", "what is it"),
        ("is the big red dog here", "is a cat here", "is … here"),
        ("dog", "cat", "…"),
    ],
)
def test_a_group_is_the_questions_template_where_none_is_given(
    tmp_path: Path, base: str, source: str, template: str
) -> None:
    sheet = load_sheet(
        write_sheet(
            tmp_path,
            HEADER + "\tgroup",
            f"a\tx.png\t{base}\t{source}",
            f"b\tx.png\t{base}\tr\tmine",
        )
    )
    assert sheet["group"].tolist() == [template, "mine"]
    without = load_sheet(write_sheet(tmp_path, HEADER, f"a\tx.png\t{base}\t{source}"))
    assert without["group"].tolist() == [template]


def test_no_group_is_called_as_all_examples_are(tmp_path: Path) -> None:
    path = write_sheet(tmp_path, HEADER + "\tgroup", "a\tx.png\tq\tr\tall")
    with pytest.raises(InputError, match=r"row 2 \(example 'a'\), group: 'all' is all examples"):
        load_sheet(path)


UNSAFE = (
    "files are called by it; use only letters (A-Z, a-z), digits, _, - and . "
    "and begin with a letter, a digit or _"
)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("two\tx.png\t \twhat", "base_question: is empty; fill it in or remove the row"),
        ("two\tx.png\twhat", "source_question: is empty; fill it in or remove the row"),
        ("two\t\twhat\twhat", "image: is empty; fill it in or remove the row"),
        ("a/b\tx.png\twhat\twhat", f"example: {UNSAFE}"),
        ("..\tx.png\twhat\twhat", f"example: {UNSAFE}"),
        ("chien_é\tx.png\twhat\twhat", f"example: {UNSAFE}"),
        (
            "One\tx.png\twhat\twhat",
            "example: row 2 has that name too (capitals do not count); give each row its own",
        ),
        (
            "two\tx.png\twhat\twhat\tnot hex",
            "image_sha256: is not 64 hex digits; paste what `sha256sum` prints",
        ),
        (
            "two\tone.png\twhat\twhat\t" + "0" * 64,
            "image_sha256: row 2 gives the same image another; keep one",
        ),
        (
            "two\tx.png\tw\x1bhat\twhat",
            "base_question: holds the control character U+001B, which no editor shows; remove it",
        ),
        (
            "two\tx.png\twhat\twh\u2028at",
            "source_question: holds the control character U+2028, which no editor shows; remove it",
        ),
        (
            "two\tx.png\twhat\t" + "what " * 1000,
            "source_question: has 4,999 characters; 4,096 are the most",
        ),
    ],
)
def test_a_wrong_cell_is_named_with_its_mend(tmp_path: Path, row: str, message: str) -> None:
    example = row.split("\t")[0]
    assert row_3_refusal(tmp_path, row) == f" (example {example!r}), {message}"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("\tx.png\twhat\twhat", ", example: is empty; fill it in or remove the row"),
        (
            "two\tx.png\twhat\twhat\t\t\tred",
            ": has 7 cells where the header has 5 columns; remove the tabs too many",
        ),
        (
            'two\tx.png\t"what\twhat',
            ': cannot be read (unexpected end of data); close or remove its double quotes (")',
        ),
        (
            'two\tx.png\t"what" is it\twhat',
            ": cannot be read (a tab expected after '\"'); close or remove its double quotes (\")",
        ),
        (
            'two\tx.png\t"what\nis"\twhat',
            ": a cell goes on over the line's end; close or remove its double quotes (\")",
        ),
    ],
)
def test_a_wrong_row_is_named_with_its_mend(tmp_path: Path, row: str, message: str) -> None:
    assert row_3_refusal(tmp_path, row) == message


def test_a_name_that_no_file_can_have_is_named(tmp_path: Path) -> None:
    message = row_3_refusal(tmp_path, f"{'n' * 101}\tx.png\twhat\twhat")
    assert message == (
        f" (example '{'n' * 79}…), example: has 101 characters and files are called by it; "
        "100 are the most"
    )


def row_3_refusal(folder: Path, row: str) -> str:
    first = "one\tone.png\twhat is it\twhat is she\t" + "a" * 64
    message = sheet_refusal(write_sheet(folder, HEADER + "\timage_sha256", first, row))
    assert message.startswith(", row 3")
    return message.removeprefix(", row 3")


NEEDED = "example, image, base_question, source_question"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "example\timage\tbase_question",
            f"column source_question is missing; the sheet needs {NEEDED}",
        ),
        (
            HEADER + "\tbase_anwser",
            "'base_anwser' is not a known column; did you mean base_answer?",
        ),
        (
            HEADER + "\tremark",
            f"'remark' is not a known column; known are {NEEDED}, "
            "base_answer, source_answer, source_image, boxes, image_sha256, source_image_sha256, "
            "group",
        ),
        (HEADER + "\texample", "column example is there twice; remove one"),
        (HEADER + "\t\tbase_answer", "column 5 has no name; name or remove it"),
        (HEADER.replace("\t", ","), "has no tabs; save the sheet as tab-separated text"),
    ],
)
def test_a_wrong_header_is_named_with_its_mend(tmp_path: Path, header: str, message: str) -> None:
    assert sheet_refusal(write_sheet(tmp_path, header, GOOD_ROW)) == f", row 1: {message}"


SAVE_AS_TEXT = "save the sheet as tab-separated UTF-8 text"
BINARY = f": is not UTF-8 text but a binary file or UTF-16; {SAVE_AS_TEXT}"
EMPTY = f": is empty; its first line names the columns {NEEDED}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", EMPTY),
        (b"\n \t\n", EMPTY),
        (HEADER.encode() + b"\n\n", ": has no rows below its header; add an example"),
        (b"PK\x03\x04\0\0", BINARY),
        (HEADER.encode("utf-16"), BINARY),
        (HEADER.encode() + b"\ncaf\xe9\t", f", row 2: is not UTF-8 text; {SAVE_AS_TEXT}"),
        (
            HEADER.encode() + b'\n"' + b"long " * 50_000,
            ", row 2: cannot be read (field larger than field limit (131072)); "
            'close or remove its double quotes (")',
        ),
    ],
    ids=["empty", "blank", "no rows", "zip", "UTF-16", "Latin-1", "endless cell"],
)
def test_what_is_no_sheet_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "examples.tsv"
    path.write_bytes(content)
    assert sheet_refusal(path) == message


def test_a_sheet_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    missing = ": there is no such file; mend examples in the config"
    assert sheet_refusal(tmp_path / "none.tsv") == missing
    assert sheet_refusal(tmp_path) == ": cannot be read (Is a directory); give a file"


@pytest.mark.parametrize(
    "address",
    [
        "http://[::1",
        "http://[foo]/a.png",
        "http://x:99999999/",
        "http://x:0/a.png",
        "http://x:port/a.png",
        "http://",
        "https:///a.png",
        "http://two words/a.png",
        "http://a..b/a.png",
        f"http://{'a' * 64}.org/a.png",
        "http://ex℀mple.org/a.png",
        "http://*/a.png",
    ],
)
def test_an_address_that_is_none_is_named(tmp_path: Path, address: str) -> None:
    message = sheet_refusal(write_sheet(tmp_path, HEADER, f"one	{address}	what	what"))
    assert message.startswith(f", row 2 (example 'one'), image: {address}: is no address (")


@pytest.mark.parametrize(
    "address",
    [
        "HTTP://x",
        "http://x/two words.png",
        "http://[::1]:8080/a.png",
        "https://bücher.example/ä.png?b={c}&d[e]=*",
        "http://user:word@x/a.png",
    ],
)
def test_an_address_of_any_kind_is_kept(tmp_path: Path, address: str) -> None:
    sheet = load_sheet(write_sheet(tmp_path, HEADER, f"one	{address}	what	what"))
    assert sheet["image"].tolist() == [address]
