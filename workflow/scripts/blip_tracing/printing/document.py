"""The story as a PDF: text that can be selected, fonts embedded, the same bytes for the same story.

All layout is in the Typst template; here is what it is given.
"""

import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib
import pandas as pd
import typst
from matplotlib.figure import Figure
from plotnine import ggplot

from blip_tracing.drawing.figures import save_figure
from blip_tracing.drawing.journal_figures import WIDTHS, depth_curve, mean_levels
from blip_tracing.drawing.palette import GAINS, HAIRLINE, INK, LOSSES, PALE_INK
from blip_tracing.drawing.panels import group_figure
from blip_tracing.given.pictures import small_picture
from blip_tracing.printing.page import (
    clean_runs,
    controls_table,
    means_table,
    overview_table,
    verdicts_table,
)
from blip_tracing.telling.fonts import FONT
from blip_tracing.telling.told import Example, MapGroup, Measure, Overview, Story
from blip_tracing.telling.words import brief, level_noun, listed, printable

PICTURE_PIXELS = 500
NOTHING = "–"
FONTS = Path(matplotlib.get_data_path(), "fonts/ttf")


def write_document(
    story: Story, template: str | os.PathLike[str], destination: str | os.PathLike[str]
) -> None:
    """Write the story's pages, by a Typst template, to a PDF.

    Raises typst.TypstError where the template is wrong.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        content = json.dumps(content_of(story, folder), ensure_ascii=False)
        # The font lacks a line break, but in JSON that is two of its letters.
        (folder / "story.json").write_text(printable(content), encoding="utf-8")
        # Whatever fonts a machine has, these alone are used.
        fonts = typst.Fonts(False, False, [FONTS])
        page = shutil.copy(template, folder)
        typst.Compiler(str(page), folder, fonts).compile(
            output=os.fspath(destination), format="pdf", timestamp=0
        )


def content_of(story: Story, folder: Path) -> dict[str, Any]:
    """What the template shows, by the names that it uses; its pictures are put into the folder."""
    return {
        **{name: value for name, value in vars(story).items() if isinstance(value, str)},
        "measures_caption": measures_words(story.measures),
        "findings": story.findings,
        "methods": story.methods,
        "examples": [
            shown_example(example, folder, f"{number}")
            for number, example in enumerate(story.examples)
        ],
        "strip": shown_strip(story, folder),
        "overview": columns_of(overview_table(story.overview)),
        "overview_caption": overview_caption(story.overview),
        "depths": [
            {
                "title": curve.title,
                "caption": curve.caption,
                "chart": drawn(
                    depth_curve(curve, WIDTHS["two_columns"]), folder / f"depth_{number}"
                ),
            }
            for number, curve in enumerate(story.depths)
        ],
        "averages": [shown_maps(group, folder) for group in story.averages],
        "groups": columns_of(story.groups),
        "facts": story.facts.to_numpy().tolist(),
        "versions": story.versions.to_numpy().tolist(),
        "chart": None if story.means.empty else drawn(
            mean_levels(story.means, story.floors, WIDTHS["two_columns"], story.sign),
            folder / "noise_levels",
        ),
        "means": columns_of(means_table(story.means, story.sign)),
        "level": level_noun(story.sign),
        "clean": clean_runs(story.means),
        "verdicts": columns_of(verdicts_table(story.verdicts)),
        "expectations": columns_of(story.expectations) if len(story.expectations) else [],
        "published_method": asdict(story.published_method) if story.published_method else None,
        "analyses": [
            {
                "title": answered.title,
                "question": answered.question,
                "verdicts": columns_of(answered.verdicts),
            }
            for answered in story.analyses
        ],
        "able": columns_of(story.able),
        "negatives": columns_of(story.negatives),
        "controls": columns_of(controls_table(story.controls)),
        "excluded": columns_of(story.excluded),
        "font": FONT,
        "colors": {
            "ink": INK, "pale": PALE_INK, "line": HAIRLINE,
            "gains": list(GAINS),
            "losses": list(LOSSES),
        },
    }  # fmt: skip


def measures_words(measures: Sequence[Measure]) -> str:
    """Which measure the maps show, and where the others are seen."""
    first, *others = (measure.label for measure in measures)
    return f"Maps are of the change in {first}; the run's page shows that in {listed(others)} too."


def overview_caption(overview: Overview | None) -> str:
    """The caption of the overview, which has no more than the examples that are shown."""
    if overview is None:
        return ""
    shown, all_rows = sum(row.shown for row in overview.rows), len(overview.rows)
    which = "" if shown == all_rows else f"The {shown} of {all_rows} examples that are shown here. "
    return which + overview.caption


def drawn(plot: ggplot | Figure, stem: Path) -> str:
    """Draw a chart beside the template; the answer is the file's name."""
    (path,) = save_figure(plot, stem, ["svg"])
    return path.name


def shown_strip(story: Story, folder: Path) -> dict[str, Any] | None:
    """The first example at a glance: its number among the examples is 0."""
    if story.strip is None:
        return None
    return {
        "questions": story.strip.questions,
        "caption": story.strip.caption,
        "map": shown_maps(story.strip.map, folder),
    }


def shown_example(example: Example, folder: Path, number: str) -> dict[str, Any]:
    """An example; its pictures are written to files, no larger than a printer shows them.

    number: its own among the examples.
    """
    pictures = {"picture": example.picture, "source_picture": example.source_picture}
    for name, path in pictures.items():
        if path:
            file = folder / f"{name}_{number}.jpg"
            small_picture(path, PICTURE_PIXELS).save(file, quality=85)
            pictures[name] = file.name
    probabilities = example.answers["probability"].map("{:.3f}".format)
    return {
        "pair": asdict(example.pair),
        **pictures,
        "answers": example.answers.assign(probability=probabilities).to_dict("records"),
        "unknown_words": example.unknown_words,
        "maps": [shown_maps(group, folder) for group in example.maps],
    }


def shown_maps(group: MapGroup, folder: Path) -> dict[str, Any]:
    """A group whose maps are rows of cells: value (None where there is none), number, marked.

    What is drawn over a picture, or in a row of sites, is a drawing in the folder: its maps have a
    title and `drawing`.
    """
    told = [(number, one) for number, one in enumerate(group.maps) if not one.idle]
    if group.regions or group.by_site:
        maps = [
            {
                "title": "" if group.by_site else one.title,
                "drawing": drawn(
                    group_figure(group, WIDTHS["two_columns"], number), folder / one.name
                ),
            }
            for number, one in (told[:1] if group.by_site else told)
        ]
    else:
        maps = [
            {"title": shown.title, **rows_of(shown.cells)}
            for _, one in told
            for shown in one.with_beside()
        ]
    return {**vars(group), "limit": group.limit, "maps": maps}


def rows_of(cells: pd.DataFrame) -> dict[str, Any]:
    layers = sorted(int(layer) for layer in cells["layer"].unique())
    rows = []
    for _, row in cells.groupby("place"):
        values = row.set_index("layer")[["value", "marked"]].reindex(layers)
        shown = [
            {
                "value": None if math.isnan(value) else value,
                "number": brief(value),
                "marked": marked is True,
            }
            for value, marked in values.itertuples(index=False)
        ]
        rows.append({"label": row["label"].iloc[0], "cells": shown})
    return {"layers": layers, "rows": rows}


def columns_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The table as words, column by column: name, words, and whether there are numbers."""
    return [
        {
            "name": name,
            "words": list(map(word, table[name])),
            "number": any(isinstance(value, int | float) for value in table[name].tolist()),
        }
        for name in table
    ]


def word(value: Any) -> str:
    """A number with commas between thousands, a dash for what is missing."""
    if value == "" or pd.isna(value):
        return NOTHING
    return value if isinstance(value, str) else f"{value:,}"
