"""The story as one web page that needs nothing but itself: no network, no other file.

It reads without JavaScript, which only moves labels and the keyboard's place. The same story gives
the same bytes. All HTML, CSS and JavaScript is in the template and the files beside it.
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from fontTools import subset
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from blip_tracing.drawing import palette
from blip_tracing.given.pictures import small_picture
from blip_tracing.telling.fonts import FILES, FONT, font_file
from blip_tracing.telling.story import CELLS, MARK, Map, MapGroup, Story
from blip_tracing.telling.words import (
    CLEAN_RUN,
    brief,
    is_corrupted_alone,
    unsigned,
    with_interval,
)

# Colours from nothing to the end of a scale; the page names each once.
STEPS = 20
# Pixels; screens show twice as many in a place.
PICTURE_SIDE = 360
# Of the place of a noise level, what a run's points are moved by, and all of them at most.
APART, SPREAD = 0.07, 0.4
# How restored sites' lines are dashed and their points shaped. Three, where there are four colours,
# so that twelve sites differ.
DASHES = ("whole", "dotted", "long")
SHAPES = ("disc", "ring", "diamond")


@dataclass(frozen=True)
class Links:
    """Where a reader finds more, as addresses relative to the page.

    tables, reports: label → address; figures: example → label → address.
    """

    tables: Mapping[str, str]
    reports: Mapping[str, str]
    figures: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Cell:
    """A cell of a map: its number, its step of colour (−STEPS to STEPS), and what it tells.

    told: the value with its interval, then a line a detail.
    """

    number: str
    step: int
    marked: bool
    told: str


@dataclass(frozen=True)
class Grid:
    """A map, row by row; a cell is None where a row has none at a layer."""

    layers: tuple[int, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]

    @property
    def letters(self) -> int:
        """Of the longest name of a row."""
        return max(len(label) for label, _ in self.rows)


@dataclass(frozen=True)
class Point:
    """A mean at a noise level: percent of the chart from the left and from the bottom.

    low, high: of its interval, or None.
    """

    x: float
    y: float
    low: float | None
    high: float | None
    told: str


@dataclass(frozen=True)
class Line:
    """A run in the chart by noise level, and how it looks."""

    run: str
    color: str
    dash: str
    shape: str
    points: tuple[Point, ...]


def page_of(story: Story, links: Links, template: str | os.PathLike[str]) -> str:
    """The story as HTML, by a Jinja template and the files that it includes from beside it."""
    path = Path(template)
    environment = Environment(
        loader=FileSystemLoader(path.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(path.name)
    content = content_of(story, links)
    # Which letters the fonts need is known once all words are there.
    letters = "".join(sorted(set(page.render(content, fonts={}))))
    return page.render(content, fonts={face: font_address(face, letters) for face in FILES})


def content_of(story: Story, links: Links) -> dict[str, Any]:
    """What the template shows, by the names that it uses."""
    groups = [*story.averages, *(group for example in story.examples for group in example.maps)]
    grids = {one.name: grid_of(one, group) for group in groups for one in group.maps}
    return {
        "story": story,
        "links": links,
        "grids": grids,
        "mark": MARK,
        "pictures": {
            example.picture: picture_address(example.picture) for example in story.examples
        },
        "lines": list(lines_of(story.means)),
        "levels": [f"{level:g}" for level in _levels(story.means)],
        "means": means_table(story.means),
        "clean": clean_runs(story.means),
        "verdicts": verdicts_table(story.verdicts),
        "controls": controls_table(story.controls),
        "fills": {step: palette.fill(step / STEPS) for step in range(-STEPS, STEPS + 1)},
        "palette": palette,
        "font": FONT,
    }


# ---- maps and the chart ------------------------------------------------------------------------


def grid_of(one: Map, group: MapGroup) -> Grid:
    """A map of the group as rows of cells."""
    layers = tuple(sorted(int(layer) for layer in one.cells["layer"].unique()))
    rows = []
    for _, cells in one.cells.groupby("place"):
        there = {cell["layer"]: cell_of(cell, group.limit) for cell in cells.to_dict("records")}
        rows.append((cells["label"].iloc[0], tuple(there.get(layer) for layer in layers)))
    return Grid(layers, tuple(rows))


def cell_of(cell: Mapping[Hashable, Any], limit: float) -> Cell:
    """limit: the value at the end of the scale of colours."""
    value = cell["value"]
    details = [f"{name}: {text}" for name, text in cell.items() if name not in CELLS and text]
    return Cell(
        number=brief(value),
        step=0 if math.isnan(value) else round(STEPS * max(-1, min(1, value / limit))),
        marked=cell["marked"],
        told="\n".join([with_interval(value, cell["low"], cell["high"]), *details]),
    )


def lines_of(means: pd.DataFrame) -> Iterator[Line]:
    """The runs of the chart in their order: as many as there are."""
    levels = _levels(means)
    runs = {str(run): rows for run, rows in means.groupby("run", sort=False)}
    noisy = [run for run in runs if run != CLEAN_RUN]
    apart = min(APART, SPREAD / max(1, len(noisy)))
    for run, rows in runs.items():
        if run == CLEAN_RUN:
            # The same at all noise levels.
            places = {level: float(place) for place, level in enumerate(levels)}
            rows = rows.drop(columns="noise_level").merge(
                pd.DataFrame({"noise_level": levels}), how="cross"
            )
        else:
            # Side by side, so that no interval hides another.
            side = apart * (noisy.index(run) - (len(noisy) - 1) / 2)
            places = {level: place + side for place, level in enumerate(levels)}
        points = tuple(
            _point(row, 100 * (places[row["noise_level"]] + 0.5) / len(levels))
            for row in rows.to_dict("records")
        )
        yield Line(run, *_look(run, noisy), points)


def _look(run: str, noisy: list[str]) -> tuple[str, str, str]:
    """Colour, dash and shape of a run's line; all restored sites look different."""
    if run == CLEAN_RUN:
        return palette.INK, "fine", "none"
    if is_corrupted_alone(run):
        return palette.ORANGE, "short", "square"
    number = noisy.index(run)
    return (
        palette.LINES[number % len(palette.LINES)],
        DASHES[number % len(DASHES)],
        SHAPES[number % len(SHAPES)],
    )


def _point(row: Mapping[Hashable, Any], x: float) -> Point:
    low, high = (None if pd.isna(row[end]) else 100 * row[end] for end in ("low", "high"))
    return Point(x, 100 * row["mean"], low, high, _mean_and_interval(row))


def _levels(means: pd.DataFrame) -> list[float]:
    return sorted(means["noise_level"].dropna().unique())


# ---- tables ------------------------------------------------------------------------------------


def means_table(means: pd.DataFrame) -> pd.DataFrame:
    """The means in words: a row a noise level, a column a run; the clean run has no level."""
    noisy = means[means["noise_level"].notna()]
    words = noisy.assign(text=[_mean_and_interval(row) for row in noisy.to_dict("records")])
    table = words.pivot(index="noise_level", columns="run", values="text")
    table = table[list(dict.fromkeys(words["run"]))].rename_axis(columns=None, index="σ")
    return table.rename(index="{:g}".format).reset_index()


def clean_runs(means: pd.DataFrame) -> list[str]:
    """The mean of the clean runs in words, if there is one."""
    clean = means[means["run"] == CLEAN_RUN]
    return [_mean_and_interval(row) for row in clean.to_dict("records")]


def verdicts_table(verdicts: pd.DataFrame | None) -> pd.DataFrame:
    """The verdicts in words."""
    if verdicts is None:
        return pd.DataFrame()
    return verdicts.assign(
        expected=["" if pd.isna(count) else round(count, 1) for count in verdicts["expected"]]
    )


def controls_table(controls: pd.DataFrame) -> pd.DataFrame:
    """The controls in words, the longest last, where a narrow screen may scroll to them."""
    written = {
        name: ["" if pd.isna(off) else f"{off:.1g}" for off in controls[name]]
        for name in ("effect", "largest")
    }
    idle = ["" if pd.isna(runs) else f"{runs}" for runs in controls["idle"]]
    table = controls.assign(idle=idle, **written)[
        ["experiment", "control", "checked", "idle", "effect", "largest", "meaning"]
    ]
    names = ["runs", "could not fail", "effect", "largest difference", "what must come out"]
    return table.set_axis(["experiment", "control", *names], axis=1)


def _mean_and_interval(row: Mapping[Hashable, Any]) -> str:
    return with_interval(row["mean"], row["low"], row["high"], unsigned)


# ---- what lies in the page ---------------------------------------------------------------------


def picture_address(path: str | os.PathLike[str]) -> str:
    """The picture, no larger than a screen shows it, as a data address."""
    picture = small_picture(path, 2 * PICTURE_SIDE)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return _address("image/jpeg", file.getvalue())


def font_address(face: str, letters: Iterable[str]) -> str:
    """A face of the figures' font, of these letters alone, as a data address."""
    options = subset.Options(flavor="woff", drop_tables=["FFTM"])
    font = subset.load_font(font_file(face), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(text=letters)
    subsetter.subset(font)
    file = io.BytesIO()
    subset.save_font(font, file, options)
    return _address("font/woff", file.getvalue())


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
