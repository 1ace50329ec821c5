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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from fontTools import subset
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from blip_tracing.drawing import palette
from blip_tracing.given.pictures import small_picture
from blip_tracing.telling.fonts import FILES, FONT, font_file
from blip_tracing.telling.told import (
    CELLS,
    MEASURES,
    DepthCurve,
    Map,
    MapGroup,
    Overview,
    OverviewRow,
    RowEffect,
    Story,
)
from blip_tracing.telling.words import (
    CLEAN_RUN,
    NULL_LINE,
    brief,
    is_corrupted_alone,
    level_axis,
    level_noun,
    percent,
    signed,
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
# Regions a side, up to which each region tells all that is known of it; of more it would be much.
TOLD_IN_FULL = 12


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
    """A map, row by row; a cell is None where a row has none at a layer.

    others: of each further measure its numbers, cell by cell, `-` for none.
    """

    layers: tuple[int, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    others: Mapping[str, str]

    @property
    def letters(self) -> int:
        """Of the longest name of a row; the layers' own stands below them."""
        return max(len(label) for label in ("layer", *(label for label, _ in self.rows)))


@dataclass(frozen=True)
class Over:
    """A map drawn over a picture.

    panels: each layer with its regions, row by row; others: of each layer the further measures, as
    `Grid.others`; map, beside: what is no region, as a map of one row, and its grid.
    """

    panels: tuple[tuple[int, tuple[tuple[Cell | None, ...], ...]], ...]
    others: tuple[Mapping[str, str], ...]
    map: Map
    beside: Grid


@dataclass(frozen=True)
class Seen:
    """A picture behind regions: its class in the page's style, its address, height by width."""

    name: str
    address: str
    ratio: float


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


@dataclass(frozen=True)
class Chart:
    """Lines over places from left to right.

    thin: polylines of single examples behind them, as pairs of percent; unit: what a place's name
    follows in words.
    """

    lines: tuple[Line, ...]
    places: tuple[str, ...]
    unit: str
    across: str
    up: str
    thin: tuple[tuple[tuple[float, float], ...], ...] = ()


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
    if story.strip:
        groups.append(story.strip.map)
    mapped = [group for group in groups if not group.regions]
    over = [group for group in groups if group.regions]
    images = [picture for example in story.examples
              for picture in (example.picture, example.source_picture) if picture]  # fmt: skip
    return {
        "story": story,
        "links": links,
        "grids": {one.name: grid_of(one, group) for group in mapped for one in group.all_maps},
        "overlays": {one.name: over_of(one, group) for group in over for one in group.maps},
        "seen": seen_pictures(group.picture for group in over),
        "limits": groups[0].limits if groups else {},
        "measures": measures_of(groups[0].limits) if groups else [],
        "pictures": {picture: picture_address(picture) for picture in images},
        "depths": [(curve, depth_chart(curve)) for curve in story.depths],
        "noise": noise_chart(story) if len(story.means) else None,
        "means": means_table(story.means, story.sign),
        "clean": clean_runs(story.means),
        "verdicts": verdicts_table(story.verdicts),
        "controls": controls_table(story.controls),
        "fills": {step: palette.fill(step / STEPS) for step in range(-STEPS, STEPS + 1)},
        "palette": palette,
        "font": FONT,
        "asked": merged_questions,
        "lines_of_sites": lines_of_sites,
        "steps": strip_steps,
        "signed": signed,
        "level_noun": level_noun,
    }


def measures_of(limits: Mapping[str, float]) -> list[dict[str, Any]]:
    """What the page's script needs of each measure: its words, the end of its scale, its digits."""
    return [
        {
            "name": name,
            "words": MEASURES[name].change_words("{}"),
            "limit": limit,
            "digits": _digits(name) - 1,
        }
        for name, limit in limits.items()
    ]


# ---- the overview ------------------------------------------------------------------------------


def merged_questions(row: OverviewRow) -> list[tuple[str, str]]:
    """Both questions as one: runs of words, and what stands in their place in the source question.

    The latter is "" where both have the same words.
    """
    base, source = (list(question) for question in row.questions)
    parts: list[tuple[str, str]] = []
    while base or source:
        if base and source and not base[0][1] and not source[0][1]:
            parts.append((base.pop(0)[0], ""))
            source.pop(0)
            continue
        runs = [_pop_differing(words) for words in (base, source)]
        parts.append((runs[0] or "–", runs[1] or "–"))
    return parts


def _pop_differing(words: list[tuple[str, bool]]) -> str:
    taken = []
    while words and words[0][1]:
        taken.append(words.pop(0)[0])
    return " ".join(taken)


def strip_steps(effect: RowEffect, limit: float) -> list[str]:
    """The class of colour of each layer's change; "" where there is none to see."""
    return [colour_of(step_of(change, limit)) for change in effect.changes]


def step_of(value: float, limit: float) -> int:
    """The step of colour of a value; limit: the value at the end of the scale."""
    return 0 if math.isnan(value) else round(STEPS * max(-1, min(1, value / limit)))


def colour_of(step: int) -> str:
    """The class by which the page's style knows a step of colour."""
    return f"{'gain' if step > 0 else 'loss'}{abs(step)}" if step else ""


# ---- maps and the chart ------------------------------------------------------------------------


def grid_of(one: Map, group: MapGroup) -> Grid:
    """A map of the group as rows of cells."""
    layers = tuple(sorted(int(layer) for layer in one.cells["layer"].unique()))
    rows = []
    for _, cells in one.cells.groupby("place"):
        there = {cell["layer"]: cell_of(cell, group.limit) for cell in cells.to_dict("records")}
        rows.append((cells["label"].iloc[0], tuple(there.get(layer) for layer in layers)))
    others = {name: _numbers(one.cells, name, layers) for name in _switched(group)}
    return Grid(layers, tuple(rows), others)


def _numbers(cells: pd.DataFrame, measure: str, layers: tuple[int, ...]) -> str:
    table = cells.pivot(index="place", columns="layer", values=measure).reindex(columns=layers)
    return " ".join(_number(value, _digits(measure)) for value in table.to_numpy().flat)


def _switched(group: MapGroup) -> list[str]:
    """The measures that the page's switch shows in a group, beside the first."""
    return list(group.limits)[1:]


def _digits(measure: str) -> int:
    """Decimal places of a number that is told; a cell has room for one less."""
    return 3 if MEASURES[measure].bounded else 2


def _number(value: float, digits: int) -> str:
    # Adding 0 takes the sign from a rounded -0.
    return "-" if math.isnan(value) else f"{round(value, digits) + 0:g}"


def lines_of_sites(group: MapGroup) -> list[list[Map]]:
    """The maps of sites side by side, those with the same rows in one line."""
    lines: list[list[Map]] = []
    before: list[str] = []
    for one in group.maps:
        rows = one.cells.drop_duplicates("place").sort_values("place")["label"].tolist()
        if rows == before:
            lines[-1].append(one)
        else:
            lines.append([one])
        before = rows
    return lines


def over_of(one: Map, group: MapGroup) -> Over:
    """A map whose rows are [CLS] and then the regions of a picture."""
    side = group.regions
    regions = one.cells[one.cells["place"] > 0]
    panels, others = [], []
    layer: Any
    for layer, cells in regions.groupby("layer"):
        if side > TOLD_IN_FULL:
            cells = cells[[*CELLS, *(name for name in _switched(group) if name not in CELLS)]]
        there = {cell["place"]: cell_of(cell, group.limit) for cell in cells.to_dict("records")}
        places = [range(1 + row * side, 1 + (row + 1) * side) for row in range(side)]
        panels.append((int(layer), tuple(tuple(map(there.get, row)) for row in places)))
        by_place = cells.set_index("place").reindex(range(1, side**2 + 1))
        others.append(
            {
                name: " ".join(_number(value, _digits(name)) for value in by_place[name])
                for name in _switched(group)
            }
        )
    alone = replace(one, name=f"{one.name}-cls", title="", cells=one.cells[one.cells["place"] == 0])
    return Over(tuple(panels), tuple(others), alone, grid_of(alone, group))


def seen_pictures(paths: Iterable[str]) -> dict[str, Seen]:
    """The pictures that regions are drawn over, each once."""
    found = {}
    for number, path in enumerate(dict.fromkeys(paths)):
        picture = small_picture(path, PICTURE_SIDE)
        ratio = picture.height / picture.width
        found[path] = Seen(f"seen-{number}", picture_address(path, PICTURE_SIDE), ratio)
    return found


def cell_of(cell: Mapping[Hashable, Any], limit: float) -> Cell:
    """limit: the value at the end of the scale of colours."""
    value = cell["value"]
    details = [f"{name}: {text}" for name, text in cell.items()
               if name not in (*CELLS, *MEASURES) and text]  # fmt: skip
    return Cell(
        number=brief(value),
        step=step_of(value, limit),
        marked=cell["marked"],
        told="\n".join([with_interval(value, cell["low"], cell["high"]), *details]),
    )


def noise_chart(story: Story) -> Chart:
    """The means by noise level."""
    levels = _places(story.means, "noise_level")
    names = tuple(f"{level:g}" for level in levels)
    return Chart(
        tuple(lines_of(story.means, "noise_level")), names,
        f"{story.sign} = ", level_axis(story.sign),
        "mean p(base answer)", tuple(thin_lines(story.floors, levels)),
    )  # fmt: skip


def depth_chart(curve: DepthCurve) -> Chart:
    """The shares by layer."""
    names = tuple(f"{layer:g}" for layer in _places(curve.lines, "layer"))
    lines = tuple(lines_of(curve.lines, "layer"))
    return Chart(lines, names, "layer ", "layer", "share of examples turned")


def lines_of(rows: pd.DataFrame, across: str) -> Iterator[Line]:
    """The runs of a chart in their order: as many as there are; across: the column of places."""
    levels = _places(rows, across)
    runs = {str(run): of_run for run, of_run in rows.groupby("run", sort=False)}
    noisy = [run for run in runs if run != CLEAN_RUN]
    apart = min(APART, SPREAD / max(1, len(noisy)))
    for run, of_run in runs.items():
        if run == CLEAN_RUN:
            # The same at all places.
            places = {level: float(place) for place, level in enumerate(levels)}
            of_run = of_run.drop(columns=across).merge(pd.DataFrame({across: levels}), how="cross")
        else:
            # Side by side, so that no interval hides another.
            side = apart * (noisy.index(run) - (len(noisy) - 1) / 2)
            places = {level: place + side for place, level in enumerate(levels)}
        points = tuple(
            _point(row, 100 * (places[row[across]] + 0.5) / len(levels))
            for row in of_run.to_dict("records")
        )
        yield Line(run, *_look(run, noisy), points)


def thin_lines(
    floors: pd.DataFrame, levels: list[float]
) -> Iterator[tuple[tuple[float, float], ...]]:
    """A polyline an example."""
    places = {level: 100 * (place + 0.5) / len(levels) for place, level in enumerate(levels)}
    for _, rows in floors.groupby("example", sort=False):
        yield tuple(
            (places[level], 100 * mean)
            for level, mean in zip(rows["noise_level"], rows["mean"], strict=True)
        )


def _look(run: str, noisy: list[str]) -> tuple[str, str, str]:
    """Colour, dash and shape of a run's line; all restored sites look different."""
    if run == CLEAN_RUN:
        return palette.INK, "fine", "none"
    if is_corrupted_alone(run) or run.startswith(NULL_LINE):
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


def _places(rows: pd.DataFrame, across: str) -> list[float]:
    return sorted(rows[across].dropna().unique())


# ---- tables ------------------------------------------------------------------------------------


def overview_table(overview: Overview | None) -> pd.DataFrame:
    """The overview in words, of the examples that are shown one by one."""
    if overview is None:
        return pd.DataFrame()
    rows = []
    for row in overview.rows:
        if not row.shown:
            continue
        asked = " ".join(
            f"{ours} | {theirs}" if theirs else ours for ours, theirs in merged_questions(row)
        )
        told = {"example": row.example, "question": asked, "answers": " → ".join(row.answers),
                "p(base)": f"{row.p_clean:.2f}"}  # fmt: skip
        if not math.isnan(overview.level):
            told["floor"] = f"{row.floor:.2f}"
        for name, effect in zip(overview.experiments, row.effects, strict=True):
            told[f"{name}: total effect"] = signed(effect.total_effect, 2)
            told[f"{name}: turns to"] = "" if effect.depth is None else f"{effect.depth}"
            told[f"{name}: null"] = signed(effect.null, 2)
        told |= {"group": row.group} if overview.grouped else {}
        rows.append({**told, "flags": "; ".join(row.flags)})
    return pd.DataFrame(rows)


def means_table(means: pd.DataFrame, sign: str = "σ") -> pd.DataFrame:
    """The means in words: a row a noise level, a column a run; the clean run has no level.

    And of corrupted runs how large the noise is, and what it did. sign: what a level is called.
    """
    if means.empty:
        return pd.DataFrame()
    noisy = means[means["noise_level"].notna()]
    words = noisy.assign(text=[_mean_and_interval(row) for row in noisy.to_dict("records")])
    table = words.pivot(index="noise_level", columns="run", values="text")
    table = table[list(dict.fromkeys(words["run"]))].rename_axis(columns=None, index=sign)
    corrupted = noisy.dropna(subset="hidden").drop_duplicates("noise_level")
    of_level = corrupted.set_index("noise_level").reindex(table.index)
    if of_level["noise_in_sd"].notna().any():
        table.insert(0, "σ / sd", of_level["noise_in_sd"].map("{:.2g}".format, na_action="ignore"))
    table["hid the answer"] = of_level["hidden"].map(percent, na_action="ignore")
    table["third answers"] = of_level["third"].map(percent, na_action="ignore")
    return table.fillna("").rename(index="{:g}".format).reset_index()


def clean_runs(means: pd.DataFrame) -> list[str]:
    """The mean of the clean runs in words, if there is one."""
    clean = means[means["run"] == CLEAN_RUN]
    return [_mean_and_interval(row) for row in clean.to_dict("records")]


def verdicts_table(verdicts: pd.DataFrame | None) -> pd.DataFrame:
    """The verdicts in words."""
    if verdicts is None:
        return pd.DataFrame()
    if "bound" in verdicts:
        return verdicts
    return verdicts.assign(
        expected=["" if pd.isna(count) else round(count, 1) for count in verdicts["expected"]],
        shift=["" if pd.isna(layers) else f"{layers:g}" for layers in verdicts["shift"]],
        power=["" if pd.isna(share) else percent(share) for share in verdicts["power"]],
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


def picture_address(path: str | os.PathLike[str], side: int = 2 * PICTURE_SIDE) -> str:
    """The picture, no larger than a screen shows it, as a data address; side: in pixels."""
    picture = small_picture(path, side)
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
