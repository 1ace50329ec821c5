"""The schema and the manual's marked tables are what the vocabulary gives."""

import json
import re

import pytest
import write_manual
from jsonschema import Draft202012Validator

from blip_tracing.vocabulary.config import keys_of
from blip_tracing.vocabulary.corruptions import KINDS, PLACES
from blip_tracing.vocabulary.metrics import METRICS
from blip_tracing.vocabulary.sites import SITES, TOWERS
from blip_tracing.vocabulary.tables import TABLES

MANUAL = write_manual.MANUAL.read_text(encoding="utf-8")


def test_the_schema_is_in_step() -> None:
    assert write_manual.SCHEMA.read_text(encoding="utf-8") == write_manual.schema(), "make manual"
    Draft202012Validator.check_schema(json.loads(write_manual.schema()))


def test_the_manual_is_in_step() -> None:
    assert write_manual.filled_in(MANUAL) == MANUAL, "make manual"


def test_what_stands_between_marks_is_replaced_and_nothing_else() -> None:
    tables = write_manual.tables()
    text = "before\n<!-- sites -->\nold\n| a |\n<!-- end -->\nafter <!-- no mark -->\n"
    filled = write_manual.filled_in(text + text.replace("sites", "metrics"))
    assert filled == "".join(
        f"before\n<!-- {name} -->\n{tables[name]}<!-- end -->\nafter <!-- no mark -->\n"
        for name in ("sites", "metrics")
    )
    assert write_manual.filled_in(filled) == filled


def test_an_unknown_mark_is_an_error() -> None:
    with pytest.raises(KeyError, match="zebra"):
        write_manual.filled_in("<!-- zebra -->\n<!-- end -->\n")


def test_every_mark_of_the_manual_is_closed() -> None:
    marks = re.findall(r"<!-- (\w+) -->", MANUAL)
    assert marks[1::2] == ["end"] * (len(marks) // 2)
    assert "end" not in marks[::2]
    assert len(marks) % 2 == 0


@pytest.mark.parametrize(
    ("mark", "names"),
    [
        ("keys", [key for key, _ in keys_of()]),
        ("sites", SITES),
        ("positions", TOWERS),
        ("corruptions", KINDS),
        ("places", PLACES),
        ("metrics", METRICS),
        ("tables", TABLES),
    ],
)
def test_every_row_of_the_vocabulary_has_one_of_its_table(mark: str, names: list[str]) -> None:
    _, _, *rows = write_manual.tables()[mark].splitlines()
    assert [re.match(r"\| `(.+?)` \|", row)[1] for row in rows] == list(names)  # type: ignore[index]
    columns = {row.replace("\\|", "").count(" | ") for row in rows}
    assert len(columns) == 1, "no cell holds what parts two"


def test_a_key_that_may_be_left_out_has_the_type_of_what_it_holds() -> None:
    rows = dict(line.split(" | ", 1) for line in write_manual.tables()["keys"].splitlines())
    assert rows["| `controls.null_draws`"].startswith("whole number | none | ")
