"""Tables and facts on disk, and how the sheet becomes jobs."""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from project import ROOT

from blip_tracing.errors import InputError
from blip_tracing.given.pictures import pictures_of
from blip_tracing.given.plan import cut, group, level_label
from blip_tracing.given.provenance import merge_facts, write_facts
from blip_tracing.machinery.files import check_files
from blip_tracing.machinery.tables import cells_table, collect_tables, read_table, write_table
from blip_tracing.meaning.replication.compare import (
    ABSENT,
    AGREES,
    CANNOT_TELL,
    DIFFERS,
    INSIDE,
    OUTSIDE,
    SHOWN,
    TITLES,
    TOO_FEW,
    UNSEEDED,
)
from blip_tracing.meaning.replication.published import QUANTITIES
from blip_tracing.vocabulary.experiment import QUESTIONS
from blip_tracing.vocabulary.metrics import METRICS
from blip_tracing.vocabulary.sites import SITES
from blip_tracing.vocabulary.tables import CONTROLS, REASONS, TABLES

FORMATS = ("csv", "parquet")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_float32_comes_back_as_it_was(tmp_path, suffix):
    values = np.random.default_rng(0).random(1000, dtype=np.float32) ** 8
    write_table(pd.DataFrame({"example": "a", "p_base": values}), tmp_path / f"table.{suffix}")
    found = read_table(tmp_path / f"table.{suffix}")["p_base"].to_numpy(dtype=np.float32)
    assert np.array_equal(found, values)


@pytest.mark.parametrize(
    "word", ["null", "nan", "NA", "None", "", "007", "1e3", '"', ",", "Ж", "水"]
)
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_token_comes_back_as_a_word(tmp_path, word, suffix):
    path = tmp_path / f"table.{suffix}"
    write_table(pd.DataFrame({"example": [word], "token": [word]}), path)
    assert read_table(path).to_dict("records") == [{"example": word, "token": word}]


def test_the_manual_reads_words_as_words_and_empty_cells_as_missing(tmp_path):
    """As it stands there. By pandas' defaults these words would be missing numbers."""
    words = ["null", "nan", "NA", "None", "none", "n/a"]
    path = tmp_path / "table.csv"
    table = pd.DataFrame({"answer": words, "noise_level": [0.5, np.nan] * 3})
    write_table(table, path)
    assert pd.read_csv(path)["answer"].isna().any()
    manual = (ROOT / "config/README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^table = pandas\.read_csv\(.*\)$", manual, re.MULTILINE)
    given = {"pandas": pd, "path": path}
    exec(line, given)
    pd.testing.assert_frame_equal(given["table"], table, check_dtype=False)


def test_no_word_of_the_workflows_own_reads_as_missing():
    """Of those that tables hold whatever the sheet: what a default reader makes of them."""
    own = [
        *CONTROLS, *REASONS, *TABLES, *SITES, *METRICS, *QUESTIONS, *QUANTITIES,
        *TITLES, AGREES, DIFFERS, CANNOT_TELL, INSIDE, OUTSIDE, UNSEEDED, ABSENT, TOO_FEW, SHOWN,
    ]  # fmt: skip
    read = pd.read_csv(io.StringIO("\n".join(["word", *(f'"{word}"' for word in own)])))
    assert read["word"].isna().sum() == 0, set(own) - set(read["word"])


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_missing_number_is_missing_and_a_missing_word_is_empty(tmp_path, suffix):
    path = tmp_path / f"table.{suffix}"
    table = pd.DataFrame({"token": ["", "a"], "noise_level": [np.nan, 1.0], "layer": [None, 3]})
    write_table(table.astype({"layer": "Int32"}), path)
    found = read_table(path)
    assert found["token"].tolist() == ["", "a"]
    assert found[["noise_level", "layer"]].isna().to_numpy().tolist() == [[True] * 2, [False] * 2]


@pytest.mark.parametrize("suffix", FORMATS)
def test_some_examples_can_be_read_alone(tmp_path, suffix):
    path = tmp_path / f"table.{suffix}"
    write_table(pd.DataFrame({"example": ["b", "a", "b"], "layer": [0, 1, 2]}), path)
    assert read_table(path, ["b"])["layer"].tolist() == [0, 2]


def test_cells_are_one_row_each_in_the_order_of_the_axes():
    values = np.arange(6).reshape(2, 3)
    table = cells_table({"layer": [4, 5], "position": [0, 1, 2]}, {"p_base": values})
    assert table.columns.tolist() == ["layer", "position", "p_base"]
    assert [tuple(row) for row in table.to_numpy()] == [
        (4, 0, 0), (4, 1, 1), (4, 2, 2), (5, 0, 3), (5, 1, 4), (5, 2, 5),
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("part", FORMATS)
def test_shards_are_joined_in_the_sheets_order(tmp_path, part, suffix):
    """Two layers of two shards: all of an example's rows come together, layers in order."""
    shards: dict[str, list[str]] = {"0": [], "1": []}
    for layer in (0, 1):
        for shard, examples in (("0", ["b"]), ("1", ["a", "c"])):
            path = tmp_path / f"{layer}-{shard}.{part}"
            numbers = np.full(len(examples), 0.1 + layer, dtype=np.float32)
            write_table(pd.DataFrame({"example": examples, "layer": layer, "p": numbers}), path)
            shards[shard].append(str(path))
    orders = {"example": ["b", "a", "c"]}
    collect_tables(shards.values(), orders, tmp_path / f"whole.{suffix}")
    table = read_table(tmp_path / f"whole.{suffix}")
    assert table["example"].tolist() == ["b", "b", "a", "a", "c", "c"]
    assert [int(layer) for layer in table["layer"]] == [0, 1] * 3
    assert [float(p) for p in table["p"]] == pytest.approx([0.1, 1.1] * 3, abs=1e-7)


def test_facts_that_all_jobs_share_stay_one_and_others_are_listed(tmp_path):
    for name, device in (("a", "cpu"), ("b", "cuda"), ("c", "cpu")):
        facts = {"model": "m", "device": device, "files": {name: ""}}
        (tmp_path / name).write_text(json.dumps(facts))
    merged = merge_facts([str(tmp_path / name) for name in "abc"], [])
    assert merged == {"model": "m", "device": ["cpu", "cuda"], "files": {}}


@pytest.mark.parametrize("change", [lambda content: content[:-9], lambda content: b" " + content])
def test_a_file_cut_short_or_edited_is_noticed(tmp_path, change):
    table, facts = tmp_path / "table.csv", tmp_path / "facts.json"
    table.write_bytes(b"example,p_base\ncat,0.25\n")
    (tmp_path / "job.json").write_text(json.dumps({"files": {}}))
    write_facts(merge_facts([str(tmp_path / "job.json")], [str(table)]), facts)
    check_files([str(facts)], [str(table)])
    table.write_bytes(change(table.read_bytes()))
    with pytest.raises(InputError, match=r"is not what its job wrote .* delete it"):
        check_files([str(facts)], [str(table)])


def test_what_is_appended_touches_the_last_shard_alone():
    rows = list(range(10))
    before, after = cut(rows, 4), cut([*rows, 10], 4)
    assert {name: shard for name, shard in after.items() if before.get(name) != shard} == {
        "0002": [8, 9, 10]
    }
    assert list(cut([*rows, 10, 11, 12], 4)) == ["0000", "0001", "0002", "0003"]


def test_groups_are_named_by_what_they_hold():
    assert group(range(5), 2, str) == {"0-1": [0, 1], "2-3": [2, 3], "4": [4]}
    assert list(group([0.1, 1, 20], 1, level_label)) == ["0.1", "1.0", "20.0"]


def test_a_picture_that_several_rows_share_is_there_once():
    rows = [{"image": name} for name in ("b.png", "a.png", "b.png")]
    assert pictures_of(rows) == ["b.png", "a.png"]
