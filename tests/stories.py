"""A made-up run, told: what the tests of the story and of its page begin from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthetic_tables import (
    ASKED,
    write_derived_tables,
    write_pictures,
    write_tables,
    write_verdicts,
)

from blip_tracing.page import Links, page_of
from blip_tracing.runs import count_controls
from blip_tracing.story import Run, tell
from blip_tracing.tables import read_table

TEMPLATE = Path(__file__).resolve().parents[1] / "workflow/report/story.html.j2"
SITES = ("block_input", "block_output")
NOISE_LEVELS = (0.0, 0.5, 2.0)
LAYERS, SAMPLES = 3, 6
CONFIG: dict[str, Any] = {
    "model": {"name": "a-lab/blip", "revision": "main", "layers": LAYERS, "dtype": "float32"},
    "device": "auto",
    "examples": "config/some.tsv",
    "patching": {"sites": list(SITES)},
    "tracing": {
        "sites": list(SITES),
        "noise_levels": list(NOISE_LEVELS),
        "samples": SAMPLES,
        "seed": 3,
    },
    "effects": {
        "total_effect": 0.05,
        "resamples": 200,
        "roles": [{"role": role} for role in ("[CLS]", "before noun", "noun", "[SEP]")],
    },
    "report": {"examples": 2, "draws_at": 0.5},
    "published": "",
}
SHOWN = ("animal_shirt", "ball_kite")
FACTS: dict[str, Any] = {
    "model": "a-lab/blip",
    "commit": "0123456789abcdef",
    "weights_sha256": "ab" * 32,
    "device": "cpu",
    "dtype": "float32",
    "python": "3.11.9",
    "packages": {"torch": "2.9.0", "pyvene": "0.1.8"},
}


def links_of(*examples: str) -> Links:
    """Links to a table, a report and a figure of each example."""
    return Links(
        tables={"patching.csv": "../results/tables/patching.csv"},
        reports={"patching.html": "patching.html", "patching.ipynb": "patching.ipynb"},
        figures={
            name: {f"baseline_{name}.pdf": f"figures/baseline_{name}.pdf"} for name in examples
        },
    )


def made_up_run(
    folder: Path, with_null: bool = True, shown: Sequence[str] = SHOWN, **changes: Any
) -> Run:
    """A run of three examples, two of them shown; changes: of the settings of `write_tables`."""
    settings: dict[str, Any] = {
        "sites": SITES, "layers": LAYERS, "noise_levels": NOISE_LEVELS, "samples": SAMPLES,
        **changes,
    }  # fmt: skip
    tables = write_tables(folder / "tables", **settings)
    write_verdicts(write_derived_tables(tables, with_null))
    of_cells = ("patching", "tracing", "effects")
    pictures = write_pictures(folder / "pictures", settings.get("asked", ASKED))
    names = [path.stem for path in tables.iterdir() if path.stem != "controls"]
    read = {
        name: read_table(tables / f"{name}.csv", shown if name in of_cells else None)
        for name in names
    }
    return Run(
        config=CONFIG,
        config_files=["config/my study.yaml"],
        pictures={name: pictures[name] for name in shown},
        tables={**read, "controls": count_controls(tables / "controls.csv")},
        provenance={"baseline": FACTS, "tracing": {**FACTS, "device": ["cpu", "cuda"]}},
    )


def write_page(run: Run, page: Path) -> str:
    """Write the page of a run; the answer is its text."""
    text = page_of(tell(run), links_of(*run.pictures), TEMPLATE)
    page.write_text(text, encoding="utf-8")
    return text
