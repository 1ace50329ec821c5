"""The colours: nothing is white, losses and gains grow darker, and every number can be read."""

from __future__ import annotations

from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from blip_tracing.drawing.palette import GAINS, INK, LINES, LOSSES, ORANGE, PALETTE, fill, ink_on

SHARES = [step / 20 for step in range(21)]


def luminance(color: str) -> float:
    """By the WCAG's definition."""
    channels = np.array(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(first: str, second: str) -> float:
    darker, lighter = sorted([luminance(first), luminance(second)])
    return (lighter + 0.05) / (darker + 0.05)


def test_nothing_is_white_and_the_ends_are_the_palettes() -> None:
    assert fill(0) == "#ffffff"
    assert fill(1) == fill(2) == GAINS[-1]
    assert fill(-1) == LOSSES[-1].lower() == ORANGE.lower()
    assert fill(0.25) == GAINS[2]


def test_gains_are_the_figures_palette() -> None:
    purples = matplotlib.colormaps[PALETTE](np.linspace(0, 1, len(GAINS)))
    assert list(GAINS[1:]) == [to_hex(color) for color in purples[1:]]


@pytest.mark.parametrize("sign", [1, -1])
def test_larger_changes_are_darker(sign: int) -> None:
    steps = [luminance(fill(sign * share)) for share in SHARES]
    assert all(before > after for before, after in pairwise(steps))


def test_a_number_can_be_read_on_every_colour() -> None:
    for share in SHARES:
        for color in (fill(share), fill(-share)):
            assert contrast(ink_on(color), color) >= 4.5


def test_lines_differ_and_are_not_those_of_the_clean_run_and_the_floor() -> None:
    assert len({*LINES, INK, ORANGE}) == len(LINES) + 2
