"""Tidy tables on disk: CSV with every digit of a float32, read back as they were written."""

import os

import numpy as np
import pandas as pd

from blip_tracing.files import written_whole

# Nine significant digits give back any float32 exactly.
FLOAT_FORMAT = "%.9g"
# What pandas would guess otherwise: an example called 007, a token "1", levels that are all whole.
TYPES = {
    **dict.fromkeys(("example", "question", "token", "source_token", "word", "answer"), str),
    "noise_level": float,
}


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table as CSV, whole or not at all."""
    with written_whole(path) as file:
        table.to_csv(file, index=False, float_format=FLOAT_FORMAT, lineterminator="\n")


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table that `write_table` wrote; a token such as "null" stays a word."""
    return pd.read_csv(path, keep_default_na=False, dtype=TYPES, encoding="utf-8")


def concatenate(paths: list[str], examples: list[str]) -> pd.DataFrame:
    """Join shards' tables, rows in the sheet's order of examples, each cell's text untouched.

    The order within an example is that of `paths`, so the result does not depend on how the
    sheet was cut into shards.
    """
    parts = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths]
    table = pd.concat(parts, ignore_index=True)
    order = {example: rank for rank, example in enumerate(examples)}
    return table.sort_values(
        "example", key=lambda names: names.map(order), kind="stable", ignore_index=True
    )


def cells_table(axes: dict[str, list], values: dict[str, np.ndarray]) -> pd.DataFrame:
    """Turn arrays into a tidy table: one row a cell, one column an axis, then the values.

    axes: name → labels of that axis, in the order of the arrays' dimensions.
    values: name → array whose shape is the lengths of the axes.
    """
    index = pd.MultiIndex.from_product(list(axes.values()), names=list(axes))
    columns = {name: array.reshape(-1) for name, array in values.items()}
    return pd.DataFrame(columns, index=index).reset_index()
