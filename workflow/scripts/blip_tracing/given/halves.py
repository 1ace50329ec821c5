"""Which half of a sheet a row is of: the one that claims are drawn from, or the one they meet.

Rows that share a picture are no two observations, so they are in one half together; which of the
two, a hash of the picture's name says. It knows of no other row, so that a row which is added moves
none that are there. (One that joins two pictures as `image` and `source_image` makes them one, and
may move them.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from blip_tracing.given.pictures import PICTURES
from blip_tracing.given.places import named

EXPLORING, CONFIRMING = "exploring", "confirming"
HALVES = (EXPLORING, CONFIRMING)
HASH_BYTES = 8


def units_of(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Example → the unit of resampling and of sign flips: rows that share a picture are one.

    Either picture counts, and whoever shares one with any of them; it is named after one.
    """
    leader: dict[str, str] = {}

    def lead(picture: str) -> str:
        while (above := leader.setdefault(picture, picture)) != picture:
            leader[picture] = leader[above]  # the way is shorter the next time
            picture = above
        return picture

    for row in rows:
        if source := row.get("source_image"):
            leader[lead(source)] = lead(row["image"])
    return {row["example"]: lead(row["image"]) for row in rows}


def unit_names(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Example → its unit, called after the first of its pictures by name.

    The name depends neither on the order of rows nor on the folder that the study lies in.
    """
    units = units_of(rows)
    names: dict[str, str] = {}
    for row in rows:
        unit = units[row["example"]]
        for picture in (row[column] for column in PICTURES if row.get(column)):
            names[unit] = min(_name(picture), names.get(unit, _name(picture)))
    return {example: names[unit] for example, unit in units.items()}


def halves_of(rows: Sequence[Mapping[str, str]], share: float, salt: str) -> dict[str, str]:
    """Example → its half. share: of pictures that explore, in the long run; salt: another split."""
    return {
        example: EXPLORING if _place(name, salt) < share else CONFIRMING
        for example, name in unit_names(rows).items()
    }


def pictures_in(rows: Sequence[Mapping[str, str]], halves: Mapping[str, str]) -> dict[str, int]:
    """How many units each half has."""
    names = unit_names(rows)
    return {
        half: len({names[example] for example, own in halves.items() if own == half})
        for half in HALVES
    }


def _place(name: str, salt: str) -> float:
    """Where a unit lies between 0 and 1, evenly over names."""
    digest = hashlib.sha256(f"{salt}\0{name}".encode()).digest()
    return int.from_bytes(digest[:HASH_BYTES]) / 256**HASH_BYTES


def _name(picture: str) -> str:
    """A picture as a sheet names it, wherever the study and the workflow lie."""
    return next(iter(named([picture])[0]), picture)
