"""How the sheet becomes jobs: shards of rows, shards of pictures, labels of noise levels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


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


def pictures_of(rows: Sequence[dict[str, str]]) -> list[str]:
    """The sheet's distinct pictures in order of first appearance."""
    return list(dict.fromkeys(row["image"] for row in rows))


def group(values: Sequence[Item], size: int, label: Callable[[Item], str]) -> dict[str, list[Item]]:
    """Cut values into groups of `size` in order, keyed by their labels: "0.5", or "0.1-20.0"."""
    parts = cut(values, size).values()
    return {"-".join(dict.fromkeys((label(part[0]), label(part[-1])))): part for part in parts}


def noise_label(level: float) -> str:
    """A noise level as it stands in file names: 1 and 1.0 are both "1.0"."""
    return repr(float(level))


def unrelated_rows(rows: Sequence[dict[str, str]]) -> dict[str, dict[str, str]]:
    """Example → the sheet's row that is its null: the nearest one before with another picture.

    The rows before the first change of picture take the row where it changes, and a sheet of one
    picture has none. So rows that are added at the end leave the others' nulls alone.
    """
    nulls: dict[str, dict[str, str]] = {}
    previous = None
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        if previous is not None:
            nulls[row["example"]] = previous
        if following is not None and following["image"] != row["image"]:
            previous = row
    changes = (row for row in rows if row["image"] != rows[0]["image"])
    first = next(changes, None)
    if first is not None:
        missing = (row["example"] for row in rows if row["example"] not in nulls)
        nulls.update(dict.fromkeys(missing, first))
    return nulls
