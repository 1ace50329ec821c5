"""How the sheet becomes jobs: shards of rows, shards of pictures, labels of noise levels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")
Row = dict[str, str]

NULL_BLOCK = 16


def cut(items: Sequence[Item], size: int) -> dict[str, list[Item]]:
    """Cut items into shards of `size` in order, keyed "0000", "0001", …

    What is added at the end changes the last shard alone, or makes a new one.
    """
    starts = range(0, len(items), size)
    return {f"{n:04d}": list(items[start : start + size]) for n, start in enumerate(starts)}


@dataclass(frozen=True)
class Place:
    """Words a shard's name in a rule's message: `{PLACE:{wildcards.shard}}` is "3 of 12"."""

    shards: int

    def __format__(self, shard: str) -> str:
        return f"{int(shard) + 1} of {self.shards}"


def pictures_of(rows: Sequence[Row]) -> list[str]:
    """The sheet's distinct pictures in order of first appearance."""
    return list(dict.fromkeys(row["image"] for row in rows))


def group(values: Sequence[Item], size: int, label: Callable[[Item], str]) -> dict[str, list[Item]]:
    """Cut values into groups of `size` in order, keyed by their labels: "0.5", or "0.1-20.0"."""
    parts = cut(values, size).values()
    return {"-".join(dict.fromkeys((label(part[0]), label(part[-1])))): part for part in parts}


def noise_label(level: float) -> str:
    """A noise level as it stands in file names: 1 and 1.0 are both "1.0"."""
    return repr(float(level))


def unrelated_rows(rows: Sequence[Row]) -> dict[str, Row]:
    """Example → the sheet's row that is its null: a near one with another picture.

    It is looked for in the example's own block of 16 rows first, so that shards of 16 rows, or of
    a multiple, do not need each other; blocks of one picture take what the sheet has, and a sheet
    of one picture has none. It does not depend on the size of a shard.
    """
    nulls = _nearest_with_another_picture(rows)
    for block in cut(rows, NULL_BLOCK).values():
        nulls |= _nearest_with_another_picture(block)
    return nulls


def _nearest_with_another_picture(rows: Sequence[Row]) -> dict[str, Row]:
    """Example → the nearest row before with another picture, else the first one after."""
    nulls: dict[str, Row] = {}
    before = None
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        if before is not None:
            nulls[row["example"]] = before
        if following is not None and following["image"] != row["image"]:
            before = row
    other = next((row for row in rows if row["image"] != rows[0]["image"]), None)
    if other is not None:
        nulls.update({row["example"]: other for row in rows if row["example"] not in nulls})
    return nulls
