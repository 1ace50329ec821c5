"""How the sheet becomes jobs: shards of rows, shards of pictures, labels of noise levels."""

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def cut(items: Sequence[Item], size: int) -> dict[str, list[Item]]:
    """Cut items into shards of `size` in order, keyed "0000", "0001", …

    What is added at the end changes the last shard alone, or makes a new one.
    """
    starts = range(0, len(items), size)
    return {f"{n:04d}": list(items[start : start + size]) for n, start in enumerate(starts)}


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
