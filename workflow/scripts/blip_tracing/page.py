"""The story as one web page that needs nothing but itself: no network, no other file.

Maps are drawn by plotly's JavaScript, which lies in the page once, and answer to the pointer.
The same story gives the same bytes.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import plotly.graph_objects as go
from fontTools import subset
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.font_manager import FontProperties, findfont
from plotly.offline import get_plotlyjs

from blip_tracing.figures import (
    BLUE,
    CLEAN_RUN,
    FONT,
    HAIRLINE,
    INK,
    ORANGE,
    PALE_INK,
    PALETTE,
)
from blip_tracing.pictures import open_picture
from blip_tracing.story import CELLS, NOTHING_RESTORED, Map, MapGroup, Story, with_interval

# Pixels. Nothing is wider than a printed page, so that printing needs no new layout.
NARROWEST, WIDEST = 190, 680
PICTURE_SIDE = 360
CELL_WIDTHS = {1: 34, 2: 20}
CELL_HEIGHT = 21
LETTER_WIDTH = 6.5
MARGIN = 24
AXIS_HEIGHT = 38
TEXT_SIZE = 11
STOPS = 8
# Of the places of two noise levels.
SIDE_STEP = 0.07

# Neither a menu nor a logo over the maps.
CONFIG = {"displayModeBar": False, "displaylogo": False, "responsive": True}
FACES = {"normal": (FONT, "normal"), "bold": (FONT, "bold"), "mono": (f"{FONT} Mono", "normal")}
DIGITS = 4


@dataclass(frozen=True)
class Links:
    """Where a reader finds more, as addresses relative to the page.

    tables, reports: label → address; figures: example → label → address.
    """

    tables: Mapping[str, str]
    reports: Mapping[str, str]
    figures: Mapping[str, Mapping[str, str]]


def page_of(story: Story, links: Links, template: str | os.PathLike[str]) -> str:
    """The story as HTML, by a Jinja template."""
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
    letters = "".join(sorted(set(page.render(content, fonts={}, plotly=""))))
    fonts = {face: font_address(face, letters) for face in FACES}
    return page.render(content, fonts=fonts, plotly=get_plotlyjs())


def content_of(story: Story, links: Links) -> dict[str, Any]:
    """What the template shows, by the names that it uses."""
    groups = [*story.averages, *(group for example in story.examples for group in example.maps)]
    plots = {one.name: map_figure(one, group) for group in groups for one in group.maps}
    if not story.means.empty:
        plots["means"] = means_figure(story.means)
    return {
        "story": story,
        "links": links,
        "widths": {one.name: map_width(one, group) for group in groups for one in group.maps},
        "heights": {name: plot.layout.height for name, plot in plots.items()},
        "pictures": {
            example.picture: picture_address(example.picture) for example in story.examples
        },
        "means": means_table(story.means),
        "clean": clean_runs(story.means),
        "verdicts": verdicts_table(story.verdicts),
        "controls": controls_table(story.controls),
        "plots": embedded({name: plot.to_plotly_json() for name, plot in plots.items()}),
        "settings": embedded({"template": look().to_plotly_json(), "config": CONFIG}),
        "colors": {
            "ink": INK, "pale": PALE_INK, "line": HAIRLINE, "link": BLUE, "warning": ORANGE
        },
        "scale": color_scale(),
        "font": FONT,
    }  # fmt: skip


# ---- plots -------------------------------------------------------------------------------------


def map_figure(one: Map, group: MapGroup) -> go.Figure:
    """A heatmap that says on hovering what a cell is; marked cells bear a dot."""
    cells = one.cells
    layers = sorted(cells["layer"].unique())
    rows = cells.drop_duplicates("place").sort_values("place")
    told = [_told(cell, group) for cell in cells.to_dict("records")]
    grid = cells.assign(told=told).pivot(index="place", columns="layer", values=["value", "told"])
    figure = go.Figure(
        go.Heatmap(
            x=[int(layer) for layer in layers],
            y=[int(place) for place in rows["place"]],
            z=_numbers(grid["value"]),
            customdata=grid["told"].fillna("").to_numpy().tolist(),
            hoverinfo="none",
            hoverongaps=False,
            colorscale=color_scale(),
            zmin=-group.limit,
            zmax=group.limit,
            showscale=False,
            xgap=1,
            ygap=1,
        )
    )
    marked = cells[cells["marked"]]
    if len(marked):
        figure.add_trace(
            go.Scatter(
                x=marked["layer"].astype(int).tolist(),
                y=marked["place"].astype(int).tolist(),
                mode="markers",
                hoverinfo="skip",
                marker={"color": "white", "size": 8, "line": {"color": INK, "width": 1.5}},
            )
        )
    figure.update_layout(
        height=len(rows) * CELL_HEIGHT + AXIS_HEIGHT,
        # Shows between the cells, and where a role has none.
        plot_bgcolor=HAIRLINE,
        xaxis={
            "title": {"text": "layer", "standoff": 4},
            "range": [int(layers[0]) - 0.5, int(layers[-1]) + 0.5],
            "tickvals": [int(layer) for layer in layers[:: 1 + (len(layers) - 1) // 16]],
        },
        yaxis={
            "range": [len(rows) - 0.5, -0.5],
            "tickvals": [int(place) for place in rows["place"]],
            # Plotly takes some tags and entities for markup.
            "ticktext": [escape(label, quote=False) for label in rows["label"]],
        },
    )
    return figure


def map_width(one: Map, group: MapGroup) -> int:
    """The pixels that a map takes where there is room."""
    letters = one.cells["label"].str.len().max()
    cell = CELL_WIDTHS[min(len(group.maps), 2)]
    wanted = MARGIN + round(letters * LETTER_WIDTH) + one.cells["layer"].nunique() * cell
    return max(NARROWEST, min(WIDEST, wanted))


def _told(cell: Mapping[Hashable, Any], group: MapGroup) -> str:
    """What the page shows of a cell that is pointed at: lines of text."""
    details = {name: text for name, text in cell.items() if name not in CELLS and text}
    lines = {
        group.measure: with_interval(cell["value"], cell["low"], cell["high"]),
        **{str(name): text for name, text in details.items()},
    }
    head = f"layer {cell['layer']}, {cell['label']}"
    return "\n".join([head, *(f"{name}: {text}" for name, text in lines.items())])


def means_figure(means: pd.DataFrame) -> go.Figure:
    """Mean by noise level, a line a run with its intervals; the clean run is the same at all."""
    levels = sorted(means["noise_level"].dropna().unique())
    places = {level: place for place, level in enumerate(levels)}
    figure = go.Figure()
    for number, (run, rows) in enumerate(means.groupby("run", sort=False)):
        if run == CLEAN_RUN:
            across = [-SIDE_STEP, len(levels) - 1 + SIDE_STEP]
            rows = pd.concat([rows] * len(across))
        else:
            # Side by side, so that no interval hides another.
            across = [places[level] + (number - 1) * SIDE_STEP for level in rows["noise_level"]]
        figure.add_trace(
            go.Scatter(
                x=across,
                y=_numbers(rows["mean"]),
                name=run,
                customdata=[_told_mean(row) for row in rows.to_dict("records")],
                hoverinfo="none",
                **_line(str(run), number, rows),
            )
        )
    figure.update_layout(
        height=330,
        xaxis={
            "title": {"text": "noise level σ"},
            "tickvals": list(places.values()),
            "ticktext": [f"{level:g}" for level in levels],
        },
        yaxis={
            "title": {"text": "mean p(base answer)", "standoff": 10},
            "range": [0, 1.02],
            "showgrid": True,
        },
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        showlegend=True,
    )
    return figure


def _line(run: str, number: int, rows: pd.DataFrame) -> dict[str, Any]:
    """How a run's line looks; the restored sites share a colour and differ in their dashes."""
    if run == CLEAN_RUN:
        return {"mode": "lines", "line": {"color": INK, "dash": "dot", "width": 1.5}}
    if run == NOTHING_RESTORED:
        line, symbol = {"color": ORANGE, "dash": "dash", "width": 2}, "square"
    else:
        first = number == 1
        line = {"color": BLUE, "dash": "solid" if first else "dashdot", "width": 2}
        symbol = "circle" if first else "circle-open"
    interval = {
        "type": "data",
        "symmetric": False,
        "array": _numbers(rows["high"] - rows["mean"]),
        "arrayminus": _numbers(rows["mean"] - rows["low"]),
        "thickness": 1.2,
        "width": 4,
    }
    marker = {"size": 7, "symbol": symbol}
    return {"mode": "lines+markers", "line": line, "marker": marker, "error_y": interval}


def _told_mean(row: Mapping[Hashable, Any]) -> str:
    level = "" if pd.isna(row["noise_level"]) else f", σ = {row['noise_level']:g}"
    return f"{row['run']}{level}\n{_mean_and_interval(row)}"


def look() -> go.layout.Template:
    """The one theme of all plots."""
    axis = {
        "automargin": True,
        "fixedrange": True,
        "gridcolor": HAIRLINE,
        "linecolor": PALE_INK,
        "showgrid": False,
        "tickangle": 0,
        "zeroline": False,
    }
    return go.layout.Template(
        layout={
            "dragmode": False,
            "font": {"family": FONT, "size": TEXT_SIZE, "color": INK},
            "hovermode": "closest",
            "margin": {"l": 4, "r": 6, "t": 4, "b": 4, "pad": 2},
            "paper_bgcolor": "white",
            "showlegend": False,
            "plot_bgcolor": "white",
            "xaxis": axis,
            "yaxis": axis,
        }
    )


def color_scale() -> list[list[Any]]:
    """From a loss (orange) over nothing (white) to a gain, in the figures' own palette."""
    gains = matplotlib.colormaps[PALETTE]
    losses = matplotlib.colors.LinearSegmentedColormap.from_list("losses", ["white", ORANGE])
    down = [losses(1 - stop / STOPS) for stop in range(STOPS)]
    up = [gains(stop / STOPS) for stop in range(STOPS + 1)]
    # The palette begins a shade off white.
    colors = [*down, (1.0, 1.0, 1.0, 1.0), *up[1:]]
    return [
        [place / (len(colors) - 1), matplotlib.colors.to_hex(color)]
        for place, color in enumerate(colors)
    ]


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
    largest = ["" if pd.isna(off) else f"{off:.1g}" for off in controls["largest"]]
    table = controls.assign(largest=largest)[
        ["experiment", "control", "checked", "largest", "meaning"]
    ]
    return table.set_axis(
        ["experiment", "control", "runs", "largest difference", "what must come out"], axis=1
    )


def _mean_and_interval(row: Mapping[Hashable, Any]) -> str:
    between = "" if pd.isna(row["low"]) else f" ({row['low']:.3f} to {row['high']:.3f})"
    return f"{row['mean']:.3f}{between}"


def _numbers(values: pd.DataFrame | pd.Series) -> list[Any]:
    """Rounded numbers as plain lists, None for NaN."""
    numbers = values.to_numpy(float).round(DIGITS).astype(object)
    numbers[values.isna()] = None
    return numbers.tolist()


# ---- what lies in the page ---------------------------------------------------------------------


def picture_address(path: str | os.PathLike[str]) -> str:
    """The picture, no larger than a screen shows it, as a data address."""
    picture = open_picture(path)
    picture.thumbnail((2 * PICTURE_SIDE, 2 * PICTURE_SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return _address("image/jpeg", file.getvalue())


def font_address(face: str, letters: str) -> str:
    """A face of the figures' font, of these letters alone, as a data address."""
    family, weight = FACES[face]
    options = subset.Options(flavor="woff", drop_tables=["FFTM"])
    font = subset.load_font(findfont(FontProperties(family=family, weight=weight)), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(text=letters)
    subsetter.subset(font)
    file = io.BytesIO()
    subset.save_font(font, file, options)
    return _address("font/woff", file.getvalue())


def embedded(content: Any) -> str:
    """JSON that cannot end the script element in which it stands."""
    written = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return written.replace("<", "\\u003c")


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
