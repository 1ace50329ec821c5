"""Tables and facts on disk, and how the sheet becomes jobs."""

import json

import numpy as np
import pandas as pd
import pytest

from blip_tracing.graph import cut, group, noise_label, pictures_of
from blip_tracing.provenance import merge_facts
from blip_tracing.tables import cells_table, concatenate, read_table, write_table


def test_a_float32_comes_back_as_it_was(tmp_path):
    values = np.random.default_rng(0).random(1000, dtype=np.float32) ** 8
    write_table(pd.DataFrame({"example": "a", "p_base": values}), tmp_path / "table.csv")
    found = read_table(tmp_path / "table.csv")["p_base"].to_numpy(dtype=np.float32)
    assert np.array_equal(found, values)


@pytest.mark.parametrize(
    "word", ["null", "nan", "NA", "None", "", "007", "1e3", '"', ",", "Ж", "水"]
)
def test_a_token_comes_back_as_a_word(tmp_path, word):
    write_table(pd.DataFrame({"example": [word], "token": [word]}), tmp_path / "table.csv")
    assert read_table(tmp_path / "table.csv").to_dict("records") == [
        {"example": word, "token": word}
    ]


def test_cells_are_one_row_each_in_the_order_of_the_axes():
    values = np.arange(6).reshape(2, 3)
    table = cells_table({"layer": [4, 5], "position": [0, 1, 2]}, {"p_base": values})
    assert table.columns.tolist() == ["layer", "position", "p_base"]
    assert [tuple(row) for row in table.to_numpy()] == [
        (4, 0, 0), (4, 1, 1), (4, 2, 2), (5, 0, 3), (5, 1, 4), (5, 2, 5),
    ]  # fmt: skip


def test_shards_are_joined_in_the_sheets_order_with_their_text_untouched(tmp_path):
    """Two layers of two shards: all of an example's rows come together, layers in order."""
    paths = []
    for layer in (0, 1):
        for shard, examples in (("0", ["b"]), ("1", ["a", "c"])):
            path = tmp_path / f"{layer}-{shard}.csv"
            rows = "".join(f"{example},{layer},0.30000001{layer}\n" for example in examples)
            path.write_text(f"example,layer,p_base\n{rows}")
            paths.append(str(path))
    table = concatenate(paths, ["b", "a", "c"])
    assert table["example"].tolist() == ["b", "b", "a", "a", "c", "c"]
    assert table["layer"].tolist() == ["0", "1"] * 3
    assert table["p_base"].tolist() == ["0.300000010", "0.300000011"] * 3


def test_facts_that_all_jobs_share_stay_one_and_others_are_listed(tmp_path):
    for name, device in (("a", "cpu"), ("b", "cuda"), ("c", "cpu")):
        (tmp_path / name).write_text(json.dumps({"model": "m", "device": device}))
    merged = merge_facts([str(tmp_path / name) for name in "abc"])
    assert merged == {"model": "m", "device": ["cpu", "cuda"]}


def test_what_is_appended_touches_the_last_shard_alone():
    rows = list(range(10))
    before, after = cut(rows, 4), cut([*rows, 10], 4)
    assert {name: shard for name, shard in after.items() if before.get(name) != shard} == {
        "0002": [8, 9, 10]
    }
    assert list(cut([*rows, 10, 11, 12], 4)) == ["0000", "0001", "0002", "0003"]


def test_groups_are_named_by_what_they_hold():
    assert group(range(5), 2, str) == {"0-1": [0, 1], "2-3": [2, 3], "4": [4]}
    assert list(group([0.1, 1, 20], 1, noise_label)) == ["0.1", "1.0", "20.0"]


def test_a_picture_that_several_rows_share_is_there_once():
    rows = [{"image": name} for name in ("b.png", "a.png", "b.png")]
    assert pictures_of(rows) == ["b.png", "a.png"]
