"""Which patches a region has, what it is called, and on which of a picture's things it lies."""

import pytest
from refusals import refusal

from blip_tracing.vocabulary.regions import (
    boxes_of,
    picture_roles,
    region_names,
    region_patches,
    region_roles,
)


def test_a_grid_that_divides_the_patches_cuts_them_into_blocks():
    assert region_patches(4, 2) == [
        [0], [1, 2, 5, 6], [3, 4, 7, 8], [9, 10, 13, 14], [11, 12, 15, 16],
    ]  # fmt: skip


@pytest.mark.parametrize("side", [1, 5, 6, 24])
def test_every_patch_is_a_position_of_its_own_in_order(side):
    assert region_patches(side, 0) == [[number] for number in range(side**2 + 1)]
    assert region_patches(side, side) == region_patches(side, 0)


@pytest.mark.parametrize(("side", "regions"), [(24, 6), (24, 7), (5, 2), (5, 3), (7, 5)])
def test_a_patch_is_of_the_region_that_its_centre_is_in(side, regions):
    positions = region_patches(side, regions)
    assert len(positions) == regions**2 + 1
    for number in range(side**2):
        x, y = (number % side + 0.5) / side, (number // side + 0.5) / side
        holding = [
            at
            for at in range(regions**2)
            if at % regions / regions <= x < (at % regions + 1) / regions
            and at // regions / regions <= y < (at // regions + 1) / regions
        ]
        assert [at for at, patches in enumerate(positions) if number + 1 in patches] == [
            1 + holding[0]
        ]
    assert all(positions)


def test_positions_are_called_by_row_and_column():
    assert region_names(24, 2) == ["[CLS]", "r1c1", "r1c2", "r2c1", "r2c2"]
    assert region_names(2, 0) == ["[CLS]", "p1c1", "p1c2", "p2c1", "p2c2"]


def test_a_region_lies_on_the_box_that_covers_most_of_it_and_at_least_half():
    # Of the four quarters: the first half covered by a; the second more by b than by a; the third
    # by b, less than half; the last by nothing.
    boxes = "a=0,0,0.6,0.25; b = 0.55,0,1,0.45 ; c=0,0.8,0.49,1"
    assert region_roles(24, 2, boxes) == ["[CLS]", "a", "b", "background", "background"]


def test_without_boxes_all_of_a_picture_is_picture():
    assert region_roles(3, 0, "") == ["[CLS]", *["picture"] * 9]


def test_the_roles_of_a_sheet_come_in_order_of_first_appearance():
    cells = ["the shirt=0,0,1,1;hat=0,0,.5,.5", "cat=0,0,1,1; hat=0,0,1,1"]
    assert picture_roles(cells) == ["[CLS]", "the shirt", "hat", "cat", "background"]
    assert picture_roles([*cells, ""])[-2:] == ["background", "picture"]
    assert picture_roles(["", ""]) == ["[CLS]", "picture"]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("a", "'a' names no box; write name=x0,y0,x1,y1; name=…"),
        ("=0,0,1,1", "'=0,0,1,1' names no box; write name=x0,y0,x1,y1; name=…"),
        ("a=0,0,1", "a=0,0,1 is no box; give left, top, right and bottom as fractions"),
        ("a=0,0,1,x", "a=0,0,1,x is no box; give left, top, right and bottom as fractions"),
        ("a=0,0,1,1;a=0,0,1,1", "'a' is given twice; name each box once"),
        ("background=0,0,1,1", "'background' is the name of another role; take another"),
        *[
            (
                f"a={box}",
                f"a={box}: is not left < right and top < bottom between 0 and 1; give fractions "
                "of the picture's width and height",
            )
            for box in ("0,0,0,1", "0,.5,1,.4", "-.1,0,1,1", "0,0,1,480", "nan,0,1,1")
        ],
    ],
)
def test_a_wrong_box_is_said_in_one_line(cell, said):
    assert refusal(boxes_of, cell) == said
