"""A picture's positions: [CLS] and the regions of a grid; what they are called, and their roles."""

from __future__ import annotations

from collections.abc import Iterable

from blip_tracing.errors import InputError
from blip_tracing.vocabulary.roles import ALL

CLS = "[CLS]"
# What lies on none of a picture's boxes, and what lies on a picture without boxes.
BACKGROUND, PICTURE = "background", "picture"
RESERVED = (CLS, BACKGROUND, PICTURE, ALL)
# Left, top, right and bottom, as fractions of a picture's width and height.
Box = tuple[float, float, float, float]


def grid_side(side: int, regions: int) -> int:
    """How many regions a row of the grid has; side: of the grid of patches; regions: 0 for each."""
    return regions or side


def region_patches(side: int, regions: int) -> list[list[int]]:
    """The states of each position: [CLS]'s (0), then of each region those of its patches.

    side: of the grid of patches, whose states are numbered from 1, row by row; regions: of the grid
    of regions, at most as large, 0 for one a patch. A patch is of the region that its centre is in.
    """
    count = grid_side(side, regions)
    positions: list[list[int]] = [[0], *([] for _ in range(count**2))]
    # The centre's place times the grid's size, in whole numbers: (row + 1/2) / side · count.
    of = [(2 * number + 1) * count // (2 * side) for number in range(side)]
    for row in range(side):
        for column in range(side):
            positions[1 + of[row] * count + of[column]].append(1 + row * side + column)
    return positions


def region_names(side: int, regions: int) -> list[str]:
    """What each position is called: [CLS], then row and column, `r1c1`, or of a patch `p1c1`."""
    count, letter = grid_side(side, regions), "r" if regions else "p"
    counted = range(1, count + 1)
    return [CLS, *(f"{letter}{row}c{column}" for row in counted for column in counted)]


def region_roles(side: int, regions: int, boxes: str) -> list[str]:
    """The role of each position: [CLS], the name of the box that it lies on, else `background`.

    boxes: the sheet's cell, as `boxes_of` reads it; where it is empty, all but [CLS] are `picture`.
    A region lies on the box that covers most of it, and at least half.
    """
    count, found = grid_side(side, regions), boxes_of(boxes)
    if not found:
        return [CLS, *[PICTURE] * count**2]
    roles = [CLS]
    for row in range(count):
        for column in range(count):
            region = (column / count, row / count, (column + 1) / count, (row + 1) / count)
            covered = {name: _overlap(region, box) * count**2 for name, box in found.items()}
            largest = max(covered, key=lambda name: covered[name])
            roles.append(largest if covered[largest] >= 0.5 else BACKGROUND)
    return roles


def picture_roles(boxes: Iterable[str]) -> list[str]:
    """All roles of the positions of a sheet's pictures, in order, whichever an example has.

    boxes: the sheet's cells.
    """
    cells = list(boxes)
    names = dict.fromkeys(name for cell in cells for name in boxes_of(cell))
    rest = [PICTURE] if "" in cells or not cells else []
    return [CLS, *names, *([BACKGROUND] if names else []), *rest]


def boxes_of(cell: str) -> dict[str, Box]:
    """The boxes of a sheet's cell, `name=x0,y0,x1,y1; name=…`, by name; none of an empty one.

    Raises InputError for what is no such text, a name given twice or kept for another role, and a
    box that lies outside of the picture or has no area.
    """
    boxes: dict[str, Box] = {}
    for part in filter(None, map(str.strip, cell.split(";"))):
        name, equals, numbers = (piece.strip() for piece in part.partition("="))
        if not (name and equals):
            raise InputError(f"{part!r} names no box; write name=x0,y0,x1,y1; name=…")
        if name in RESERVED:
            raise InputError(f"{name!r} is the name of another role; take another")
        if name in boxes:
            raise InputError(f"{name!r} is given twice; name each box once")
        boxes[name] = _box(name, numbers)
    return boxes


def _box(name: str, numbers: str) -> Box:
    try:
        left, top, right, bottom = map(float, numbers.split(","))
    except ValueError as error:
        raise InputError(
            f"{name}={numbers} is no box; give left, top, right and bottom as fractions"
        ) from error
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):  # nor is a number that is none
        raise InputError(
            f"{name}={numbers}: is not left < right and top < bottom between 0 and 1; give "
            "fractions of the picture's width and height"
        )
    return left, top, right, bottom


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)
