"""Tidy tables on disk, CSV or Parquet by their name's ending, whole or shard after shard.

CSV holds every digit of a float32; both give back what was written.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from blip_tracing.machinery.files import written_whole

# Nine significant digits give back any float32 exactly.
FLOAT_FORMAT = "%.9g"
# What pandas would guess otherwise: an example called 007, a token "1", levels that are all whole.
TEXT = (
    "example", "question", "text", "token", "source_token", "word", "answer", "run", "token_role",
    "site", "experiment", "control", "donor", "reason", "quantity", "verdict", "where",
    "group", "among", "known", "donor_token", "donor_role",
)  # fmt: skip
TYPES: dict[str, Any] = {**dict.fromkeys(TEXT, str), "noise_level": float, "matched": "boolean"}
PARQUET = ".parquet"

AppendRows = Callable[[pd.DataFrame], None]


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table, whole or not at all."""
    with table_writer(path) as append:
        append(table)


@contextmanager
def table_writer(path: str | os.PathLike[str]) -> Iterator[AppendRows]:
    """Give a function that appends rows to a table, which appears once all are written.

    All appended frames have the same columns of the same types.
    """
    rows_to = _parquet_rows if Path(path).suffix == PARQUET else _csv_rows
    with written_whole(path) as file, rows_to(file) as append:
        yield append


@contextmanager
def _csv_rows(file: BinaryIO) -> Iterator[AppendRows]:
    def append(rows: pd.DataFrame) -> None:
        first = file.tell() == 0
        rows.to_csv(file, index=False, header=first, float_format=FLOAT_FORMAT, lineterminator="\n")

    yield append


@contextmanager
def _parquet_rows(file: BinaryIO) -> Iterator[AppendRows]:
    writer: pq.ParquetWriter | None = None

    def append(rows: pd.DataFrame) -> None:
        nonlocal writer
        table = pa.Table.from_pandas(rows, preserve_index=False)
        writer = writer or pq.ParquetWriter(file, table.schema)
        writer.write_table(table)

    try:
        yield append
    finally:
        if writer:
            writer.close()


def read_table(path: str | os.PathLike[str], examples: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table that `write_table` wrote; a token such as "null" stays a word.

    examples: of these alone, where given; Parquet then reads no more than it must.
    """
    if Path(path).suffix == PARQUET:
        chosen = None if examples is None else [("example", "in", list(examples))]
        return pd.read_parquet(path, filters=chosen)
    # Numbers may be missing, as the noise level of a patch is; words may not.
    numbers = [name for name in pd.read_csv(path, nrows=0).columns if name not in TEXT]
    table = pd.read_csv(
        path,
        keep_default_na=False,
        na_values={name: [""] for name in numbers},
        dtype=TYPES,
        low_memory=False,  # else a column's type is guessed block by block
    )
    return table if examples is None else table[table["example"].isin(examples)]


def collect_tables(
    parts: Iterable[Sequence[str]],
    orders: Mapping[str, Sequence],
    path: str | os.PathLike[str],
    change: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows,
) -> None:
    """Join tables to one at `path`, rows in the orders of their columns' values, text untouched.

    parts: the files of one shard after the other; one shard is in memory at a time. orders: as
    `sort_rows` takes them; beyond them rows keep the order of their files, so that the result does
    not depend on how the sheet was cut into shards and an experiment into jobs. change: what is
    done to a shard's rows on the way.
    """
    with table_writer(path) as append:
        for files in parts:
            frames = [_read_part(file) for file in files]
            # What one part lacks, another has: the fullest says in which order.
            columns = max(frames, key=lambda frame: len(frame.columns)).columns
            rows = pd.concat(frames, ignore_index=True)[columns]
            append(sort_rows(change(rows), orders))


def sort_rows(rows: pd.DataFrame, orders: Mapping[str, Sequence]) -> pd.DataFrame:
    """The rows by the rank of their values, column after column, else in the order they have.

    orders: column → its values in order, the most important column first; those that the rows
    lack do not count.
    """
    ranks = pd.DataFrame(
        {
            column: rows[column].map({value: rank for rank, value in enumerate(values)})
            for column, values in orders.items()
            if column in rows
        }
    )
    order = ranks.sort_values(list(ranks.columns), kind="stable").index
    return rows.loc[order].reset_index(drop=True)


def _read_part(path: str) -> pd.DataFrame:
    if Path(path).suffix == PARQUET:
        return pd.read_parquet(path)
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def cells_table(axes: dict[str, list], values: dict[str, np.ndarray]) -> pd.DataFrame:
    """Turn arrays into a tidy table: one row a cell, one column an axis, then the values.

    axes: name → labels of that axis, in the order of the arrays' dimensions.
    values: name → array whose shape is the lengths of the axes.
    """
    index = pd.MultiIndex.from_product(list(axes.values()), names=list(axes))
    columns = {name: array.reshape(-1) for name, array in values.items()}
    return pd.DataFrame(columns, index=index).reset_index()
