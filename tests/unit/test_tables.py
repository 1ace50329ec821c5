"""Tables and facts on disk, and how the sheet becomes jobs."""

import json

import numpy as np
import pandas as pd
import pytest

from blip_tracing.errors import InputError
from blip_tracing.given.plan import cut, group, level_label, pictures_of, unrelated_rows
from blip_tracing.given.provenance import merge_facts, write_facts
from blip_tracing.machinery.files import check_files
from blip_tracing.machinery.tables import cells_table, collect_tables, read_table, write_table

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


def rows_of(pictures):
    return [{"example": str(n), "image": picture} for n, picture in enumerate(pictures)]


@pytest.mark.parametrize(
    ("pictures", "nulls"),
    [
        ("abc", "01 10 21"),
        ("aab", "02 12 21"),
        ("aba", "01 10 21"),
        ("abba", "01 10 20 32"),
        ("aaa", ""),
        ("a", ""),
    ],
)
def test_the_unrelated_example_is_the_nearest_before_with_another_picture(pictures, nulls):
    """The first rows, which have none before, take the first of another picture."""
    found = {name: row["example"] for name, row in unrelated_rows(rows_of(pictures)).items()}
    assert found == dict(pair[:2] for pair in nulls.split())


def test_rows_that_are_added_leave_the_others_unrelated_examples_alone():
    before = unrelated_rows(rows_of("aabcc"))
    after = unrelated_rows(rows_of("aabccda"))
    assert before.items() <= after.items()


def test_the_unrelated_example_is_in_the_same_sixteen_rows_if_they_have_one():
    """So a shard that fails costs that shard alone."""
    rows = rows_of([*"abcdefghijklmnop", *"qrs", *"t" * 13, *"uuu"])
    nulls = {name: int(row["example"]) for name, row in unrelated_rows(rows).items()}
    assert nulls["15"] == 14
    assert nulls["16"] == 17
    assert nulls["31"] == 18
    # The last block has one picture.
    assert nulls["32"] == nulls["34"] == 31
