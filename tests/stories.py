"""A made-up run, told: what the tests of the story and of its page begin from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from synthetic_tables import (
    ASKED,
    BOXES,
    DIFFERING,
    ENDS,
    LEAST_EFFECT,
    NOISY,
    ROLES,
    write_derived_tables,
    write_pictures,
    write_tables,
    write_verdicts,
)

from blip_tracing.machinery.tables import read_table
from blip_tracing.printing.page import Links, page_of
from blip_tracing.telling.finished_run import count_controls
from blip_tracing.telling.overview import read_turns
from blip_tracing.telling.story import tell
from blip_tracing.telling.told import Run
from blip_tracing.vocabulary.corruptions import KINDS, QUESTION_EMBEDDINGS
from blip_tracing.vocabulary.experiment import BASE
from blip_tracing.vocabulary.metrics import METRICS, NEEDED, further_of

TEMPLATE = Path(__file__).resolve().parents[1] / "workflow/report/story.html.j2"
SITES = ("encoder.block_input", "encoder.block_output")
# How an experiment's cells are made, by default.
PLAIN: dict[str, Any] = {"window": 1, "positions": "each", "heads": [], "regions": 6}
# Of a made-up metric's change, how many times that in probability it is.
FACTORS = {"logit": 6.0, "answer_probability": -0.5, "rank": -30.0, "kl": -3.0}
NOISE_LEVELS = (0.0, 0.5, 2.0)
LAYERS, DRAWS = 3, 6
CONFIG: dict[str, Any] = {
    "model": {
        "name": "a-lab/blip",
        "revision": "main",
        "layers": dict.fromkeys(("encoder", "decoder", "vision"), LAYERS),
        "dtype": "float32",
    },
    "device": "auto",
    "examples": "config/some.tsv",
    "runs": {
        NOISY: {
            "of": BASE,
            "corrupt": {
                "kind": next(iter(KINDS)),
                "at": QUESTION_EMBEDDINGS,
                "role": "",
                "unit": "absolute",
                "levels": list(NOISE_LEVELS),
                "draws": DRAWS,
                "seed": 3,
            },
        }
    },
    "experiments": {
        name: {"receiver": receiver, "donor": donor, "sites": list(SITES), **PLAIN}
        for name, (receiver, donor) in ENDS.items()
    },
    "metrics": list(NEEDED),
    "controls": {"null_draws": None, "donors": 5},
    "effects": {
        "total_effect": 0.05,
        "resamples": 200,
        "metric": NEEDED[0],
        "least_effect": LEAST_EFFECT,
        "roles": [
            {"role": role, **({"pair": "differs"} if role == DIFFERING else {})} for role in ROLES
        ],
        "seed": 3,
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


def with_experiments(config: Mapping[str, Any], **sites: Sequence[str]) -> dict[str, Any]:
    """The configuration with these experiments' sites changed; none leaves an experiment out."""
    changed = {
        name: {**config["experiments"][name], "sites": list(of_experiment)}
        for name, of_experiment in sites.items()
    }
    return {**config, "experiments": {**config["experiments"], **changed}}


def made_up_run(
    folder: Path,
    with_null: bool = True,
    shown: Sequence[str] = SHOWN,
    two_pictures: bool = False,
    **changes: Any,
) -> Run:
    """A run of three examples, two of them shown; changes: of the settings of `write_tables`.

    two_pictures: whether the source question is about a picture of its own.

    Its configuration is CONFIG with these sites, noise levels, draws, ends and settings.
    """
    settings: dict[str, Any] = {
        "sites": SITES, "layers": LAYERS, "noise_levels": NOISE_LEVELS, "draws": DRAWS,
        "ends": ENDS, "settings": {}, **changes,
    }  # fmt: skip
    tables = write_tables(folder / "tables", **settings)
    write_verdicts(write_derived_tables(tables, with_null, settings["ends"], settings["settings"]))
    of_cells = (*settings["ends"], "effects")
    asked = settings.get("asked", ASKED)
    pictures = write_pictures(folder / "pictures", asked)
    others = write_pictures(folder / "others", asked, (212, 190, 40)) if two_pictures else {}
    names = [path.stem for path in tables.iterdir() if path.stem != "controls"]
    read = {
        name: read_table(tables / f"{name}.csv", shown if name in of_cells else None)
        for name in names
    }
    read["turns"] = read_turns(tables / "effects.csv", read["families"])
    return Run(
        config=configured_as(settings),
        config_files=["config/my study.yaml"],
        pictures={name: pictures[name] for name in shown},
        source_pictures={name: others[name] for name in shown if name in others},
        boxes=(BOXES,),
        tables={**read, "controls": count_controls(tables / "controls.csv")},
        provenance={"baseline": FACTS, "tracing": {**FACTS, "device": ["cpu", "cuda"]}},
    )


def scored_by_all(run: Run, tested: str = NEEDED[0]) -> Run:
    """The run as all metrics would score it, one of them tested: `FACTORS` times what p changes."""
    effects, summary = run.tables["effects"].copy(), run.tables["summary"]
    changes = summary[summary["quantity"] == METRICS["probability"].change]
    told = {METRICS["probability"].change: changes}
    for name in further_of(METRICS, tested):
        change, factor = METRICS[name].change, FACTORS[name]
        effects[change] = factor * effects["probability_change"]
        ends = {end: factor * changes[end] for end in ("mean", "low", "high")}
        if factor < 0:
            ends["low"], ends["high"] = ends["high"], ends["low"]
        told[change] = changes.assign(quantity=change, **ends)
    rest = summary[~summary["quantity"].isin(told)]
    whole = pd.concat([*told.values(), rest], ignore_index=True)
    return replace(
        run,
        config={**run.config, "metrics": list(METRICS),
                "effects": {**run.config["effects"], "metric": tested}},
        tables={**run.tables, "effects": effects,
                "summary": _with_tests_of(whole, METRICS[tested].change)},
    )  # fmt: skip


def _with_tests_of(summary: pd.DataFrame, tested: str) -> pd.DataFrame:
    """The summary, its tests and marks those of another quantity's rows, cell by cell."""
    tests = ["known", "p_floor", "p_null", "p_family", "p_study", "chosen", "marked"]
    cell = ["experiment", "site", "noise_level", "group", "among", "layer", "token_role"]
    cell += ["head"] if "head" in summary else []
    of_p = summary[summary["quantity"] == METRICS["probability"].change]
    found = summary.drop(columns=tests).merge(
        of_p[[*cell, *tests]].assign(quantity=tested), on=[*cell, "quantity"], how="left"
    )
    return found[summary.columns]


def configured_as(settings: Mapping[str, Any]) -> dict[str, Any]:
    """CONFIG with the settings of `write_tables`."""
    noisy = CONFIG["runs"][NOISY]
    levels = {"levels": list(settings["noise_levels"]), "draws": settings["draws"]}
    experiments = {
        name: {"receiver": receiver, "donor": donor, "sites": list(settings["sites"]), **PLAIN,
               **{key: list(value) if isinstance(value, tuple) else value
                  for key, value in settings["settings"].get(name, {}).items()}}
        for name, (receiver, donor) in settings["ends"].items()
    }  # fmt: skip
    runs = {NOISY: {**noisy, "corrupt": {**noisy["corrupt"], **levels}}}
    return {**CONFIG, "runs": runs, "experiments": experiments}


def write_page(run: Run, page: Path) -> str:
    """Write the page of a run; the answer is its text."""
    text = page_of(tell(run), links_of(*run.pictures), TEMPLATE)
    page.write_text(text, encoding="utf-8")
    return text
