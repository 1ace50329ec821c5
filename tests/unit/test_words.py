"""Words and numbers, written in one way wherever they stand, and by nothing that draws."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.font_manager import get_font

from blip_tracing.telling import words
from blip_tracing.telling.fonts import FILES, font_file, letters

LIBRARY = Path(words.__file__).parents[1]
# The document alone holds drawings.
TELLING = sorted(
    f"{room}.{file.stem}"
    for room in ("telling", "printing")
    for file in (LIBRARY / room).glob("[!_]*.py")
    if file.stem != "document"
)


@pytest.mark.parametrize("module", TELLING)
def test_what_is_told_is_told_without_a_plotting_library(module: str) -> None:
    asked = (
        f"import sys, blip_tracing.{module};"
        "print(*{'matplotlib', 'plotnine', 'plotly', 'reportlab'} & set(sys.modules))"
    )
    told = subprocess.run(
        [sys.executable, "-c", asked],
        cwd=LIBRARY.parent,
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout.split() == []


@pytest.mark.parametrize(
    ("numbers", "written"),
    [
        ((0.4124, 0.3, 0.5), "+0.412 (+0.300 to +0.500)"),
        ((-0.4124, -0.5, 0.0001), "−0.412 (−0.500 to 0.000)"),
        ((0.4124, np.nan, np.nan), "+0.412"),
        ((np.nan, np.nan, np.nan), ""),
    ],
)
def test_a_change_is_written_with_its_sign_and_the_interval_that_it_has(
    numbers: tuple[float, float, float], written: str
) -> None:
    assert words.with_interval(*numbers) == written


def test_a_probability_is_written_without_a_sign() -> None:
    assert words.with_interval(0.41, 0.3, 0.52, words.unsigned) == "0.410 (0.300 to 0.520)"
    assert words.with_interval(0.41, 0.3, 0.52, "{:g}".format, "{} [{}; {}]") == "0.41 [0.3; 0.52]"


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.414, ".41"), (-0.414, "−.41"), (0.999, "1"), (-1, "−1"), (0.004, "0"), (-0.004, "0"),
     (0.1, ".10"), (np.nan, "")],
)  # fmt: skip
def test_a_cells_number_is_brief(value: float, written: str) -> None:
    assert words.brief(value) == written


def test_one_thing_and_many_things_are_counted() -> None:
    assert words.how_many(1, "draw") == "1 draw"
    assert words.how_many(10, "draw") == "10 draws"


@pytest.mark.parametrize(
    ("numbers", "written"),
    [([0], "0"), ([0, 1], "0 and 1"), ([0, 1, 2], "0 to 2"), ([1, 5], "1 and 5"),
     ([0, 1, 2, 5], "0 to 2 and 5"), ([0, 1, 4, 6, 7, 8], "0 and 1, 4 and 6 to 8")],
)  # fmt: skip
def test_runs_of_layers_are_said_briefly(numbers: list[int], written: str) -> None:
    assert words.runs_of_numbers(numbers) == written


@pytest.mark.parametrize(
    ("share", "written"),
    [(0, "0 %"), (1, "100 %"), (0.333, "33 %"), (0.001, "< 1 %"), (0.999, "> 99 %")],
)
def test_a_share_says_nothing_and_all_only_of_these(share: float, written: str) -> None:
    assert words.percent(share) == written


def test_a_change_has_as_many_digits_as_asked() -> None:
    assert words.signed(0.4567, 2) == "+0.46"
    assert words.signed(-0.001, 2) == "0.00"


@pytest.mark.parametrize(
    ("base", "source", "differing"),
    [
        ("the color of the animal", "the color of the shirt", (["animal"], ["shirt"])),
        ("is it red", "is the box red", (["it"], ["the", "box"])),
        ("the top", "the top", ([], [])),
        ("a b", "c d e", (["a", "b"], ["c", "d", "e"])),
    ],
)
def test_words_in_which_two_questions_differ_are_found(
    base: str, source: str, differing: tuple[list[str], list[str]]
) -> None:
    questions = words.with_differences(base, source)
    assert tuple([word for word, differs in one if differs] for one in questions) == differing
    assert [" ".join(word for word, _ in one) for one in questions] == [base, source]


def test_characters_that_the_font_lacks_are_spelled_out() -> None:
    assert words.printable("größe σ 水\n") == "größe σ U+6C34U+000A"


def test_the_fonts_letters_are_those_that_figures_can_draw() -> None:
    drawn = get_font(font_file())
    everything = map(chr, range(sys.maxunicode + 1))
    assert letters() == {letter for letter in everything if drawn.get_char_index(ord(letter))}
    assert all(font_file(face).is_file() for face in FILES)


def test_rows_that_are_not_there_are_named() -> None:
    import pandas as pd

    table = pd.DataFrame({"example": ["a"], "site": ["in"]})
    assert len(words.rows_of(table, example="a", site="in")) == 1
    with pytest.raises(ValueError, match="no rows with example 'a', site 'out'"):
        words.rows_of(table, example="a", site="out")
