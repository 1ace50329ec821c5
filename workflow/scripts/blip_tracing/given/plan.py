"""What is to be made of a configuration and a sheet: shards, jobs and files, without Snakemake."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from blip_tracing.given.pictures import is_url, picture_path
from blip_tracing.vocabulary.experiment import (
    CLEAN,
    QUESTIONS,
    Experiment,
    Run,
    described,
    experiments_of,
)
from blip_tracing.vocabulary.sites import SITES
from blip_tracing.vocabulary.tables import CONTROLS, REASONS, TABLES

Item = TypeVar("Item")
Row = dict[str, str]

NULL_BLOCK = 16
# What the job that answers a shard's questions writes.
CLEAN_FILES = {
    "baseline": "results/baseline/{shard}.csv",
    "tokens": "results/tokens/{shard}.csv",
    "runs": "results/runs/clean/{shard}.parquet",
    "states": "results/clean/{shard}.safetensors",
    "facts": "results/clean/{shard}.json",
}
IMAGES = {"states": "safetensors", "facts": "json"}


# A table that is made with another, whose facts vouch for it.
MADE_WITH = {"run_means": "summary", "verdicts": "published"}
# An experiment's figures of an example: one, or several where a run is corrupted.
ANSWERS = "answers"
NOISY_FIGURES = ("means", "levels", "draws", "mean")


@dataclass(frozen=True)
class Page:
    """A report: the notebook that makes it, and the tables that it reads."""

    notebook: str
    tables: list[str]


@dataclass(frozen=True)
class Part:
    """What one job of an experiment does for a shard: some layers, at some levels (none: ())."""

    layers: list[int]
    levels: list[float]


class Plan:
    """Everything that follows from a checked configuration and the rows of its sheet.

    shards: name → rows; picture_shards: name → pictures; unrelated: example → the row that is its
    null; checksums: picture → the sheet's checksum, if any; remote_pictures:
    file name → the row that names its address.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        rows: Sequence[Row],
        known: Callable[[str, dict[str, Any]], dict[str, Any]] = lambda wildcard, values: values,
    ) -> None:
        """Plan; nothing is read or written.

        known: makes the mapping of a wildcard's values, by the wildcard's name, which may refuse
        one that is not there in words of its own.
        """
        self.config, self.rows = config, list(rows)
        self.examples = [row["example"] for row in rows]
        self._known = known
        self.shards = known("shard", cut(self.rows, config["shard_size"]))
        pictures = cut(pictures_of(self.rows), config["shard_size"])
        self.picture_shards = known("shard", pictures)
        self.unrelated = unrelated_rows(self.rows)
        self.checksums = {row["image"]: row["image_sha256"] for row in rows}
        self.remote_pictures = {
            Path(picture_path(row["image"])).name: row
            for row in reversed(self.rows)
            if is_url(row["image"])
        }
        self.experiments: dict[str, Experiment] = known("experiment", experiments_of(config))
        self._shard_of = {
            row["example"]: shard for shard, part in self.shards.items() for row in part
        }
        self._picture_shard_of = {
            image: shard for shard, images in self.picture_shards.items() for image in images
        }

    @cached_property
    def corrupted(self) -> dict[str, Run]:
        """The corrupted runs that an experiment uses, by name."""
        runs = (experiment.corrupted for experiment in self.experiments.values())
        return {run.name: run for run in runs if run}

    @property
    def averaged_runs(self) -> list[Run]:
        """The runs whose means are told: each that a corrupted one is of, and that one."""
        runs = [Run(run.question, run.question) for run in self.corrupted.values()]
        return list(dict.fromkeys([*runs, *self.corrupted.values()]))

    @cached_property
    def parts(self) -> dict[str, dict[str, Part]]:
        """Experiment → the label of each of its jobs → what that job does."""
        layers = list(range(self.config["model"]["layers"]["encoder"]))
        planned = {}
        for name, experiment in self.experiments.items():
            if run := experiment.corrupted:
                levels = group(run.levels, self.config["noise_levels_per_job"], level_label)
                planned[name] = {
                    f"levels_{label}": Part(layers, part) for label, part in levels.items()
                }
            else:
                groups = group(layers, self.config["layers_per_job"], str)
                planned[name] = {
                    f"layers_{label}": Part(part, []) for label, part in groups.items()
                }
            planned[name] = self._known("part", planned[name])
        return self._known("experiment", planned)

    @property
    def at_once(self) -> bool:
        """Whether one job does all that runs the model: what is planned is one of each."""
        return len(self.shards) == len(self.picture_shards) == 1 and all(
            len(parts) == 1 for parts in self.parts.values()
        )

    # The files of a shard.

    def unrelated_to(self, shard: str) -> dict[str, str]:
        """Example → the unrelated example that is its null, for the rows of a shard."""
        return {
            row["example"]: self.unrelated[row["example"]]["example"]
            for row in self.shards[shard]
            if row["example"] in self.unrelated
        }

    def null_pictures(self, experiment: str, shard: str) -> dict[str, str]:
        """Example → the picture of its unrelated example, where the null is run again for it.

        That is inside a block; between blocks its states are kept, and no picture is needed.
        """
        sites = self.experiments[experiment].sites
        if all(SITES[site].boundary is not None for site in sites):
            return {}
        return {
            row["example"]: self.unrelated[row["example"]]["image"]
            for row in self.shards[shard]
            if row["example"] in self.unrelated
        }

    def picture_files(self, shard: str, suffix: str, experiment: str | None = None) -> list[str]:
        """The files, by suffix, of the picture shards that hold the pictures of a shard's rows.

        experiment: with those that its null needs.
        """
        images = {row["image"] for row in self.shards[shard]}
        if experiment is not None:
            images.update(self.null_pictures(experiment, shard).values())
        shards = {self._picture_shard_of[image] for image in images}
        return [f"results/images/{name}.{suffix}" for name in sorted(shards)]

    def clean_files(self, shard: str, suffix: str) -> list[str]:
        """The clean runs of a shard, and of those that hold its unrelated examples after it."""
        others = {self._shard_of[name] for name in self.unrelated_to(shard).values()}
        shards = [shard, *sorted(others - {shard})]
        return [f"results/clean/{name}.{suffix}" for name in shards]

    def clean_facts(self, shard: str, experiment: str) -> list[str]:
        """What vouches for the files that a shard's interventions begin from."""
        return self.picture_files(shard, "json", experiment) + self.clean_files(shard, "json")

    def cell_files(self, experiment: str, shard: str, folder: str, suffix: str) -> list[str]:
        """The files of an experiment's jobs for a shard."""
        return [
            f"results/{folder}/{experiment}/{part}/{shard}.{suffix}"
            for part in self.parts[experiment]
        ]

    def run_files(self, shard: str, suffix: str) -> list[str]:
        """The scores of all runs of a shard without an intervention, or their facts."""
        folder = f"results/{CLEAN}" if suffix == "json" else f"results/runs/{CLEAN}"
        runs = [f"results/runs/{name}/{shard}.{suffix}" for name in self.corrupted]
        return [f"{folder}/{shard}.{suffix}", *runs]

    # Whole tables.

    @cached_property
    def tables(self) -> list[str]:
        """The tables that are collected from shards."""
        if not self.experiments:
            return ["baseline", "tokens", "runs"]
        return [
            "baseline", "tokens", "runs", *self.experiments, "controls", "effects", "excluded",
        ]  # fmt: skip

    def table_parts(self, table: str) -> list[str]:
        """The files that a whole table is collected from, shard after shard."""
        return [path for shard in self.shards for path in self._table_parts(table, shard, False)]

    def table_facts(self, table: str) -> list[str]:
        """The facts of the jobs that wrote them."""
        return [path for shard in self.shards for path in self._table_parts(table, shard, True)]

    def _table_parts(self, table: str, shard: str, facts: bool) -> list[str]:
        suffix = "json" if facts else "parquet"
        if table in self.experiments:
            return self.cell_files(table, shard, "cells", suffix)
        if table == "runs":
            return self.run_files(shard, suffix)
        if table == "controls":
            folder = "cells" if facts else "controls"
            return [
                path
                for experiment in self.experiments
                for path in self.cell_files(experiment, shard, folder, suffix)
            ]
        if table in ("baseline", "tokens"):
            return [f"results/{CLEAN}/{shard}.json" if facts else f"results/{table}/{shard}.csv"]
        if facts:
            return [f"results/effects/{shard}.json"]
        return [f"results/{table}/{shard}.{'csv' if table == 'excluded' else 'parquet'}"]

    @cached_property
    def orders(self) -> dict[str, list]:
        """In which order a table's rows are, whatever the shards and the jobs."""
        sites = (site for experiment in self.experiments.values() for site in experiment.sites)
        return {
            "example": self.examples,
            "run": [*QUESTIONS, *self.corrupted],
            "experiment": list(self.experiments),
            "site": list(dict.fromkeys(sites)),
            "control": list(CONTROLS),
            "reason": list(REASONS),
        }

    # Pages.

    @cached_property
    def shown(self) -> list[Row]:
        """The rows whose examples are drawn one by one."""
        return self.rows[: self.config["report"]["examples"]]

    @cached_property
    def pages(self) -> dict[str, Page]:
        """The reports that a notebook makes, by name, in the order of telling."""
        pages = {"baseline": Page("baseline", ["runs", "baseline", "tokens"])}
        for name in self.experiments:
            tables = ["runs", name, "tokens", "summary", "run_means"]
            pages[name] = Page("experiment", tables)
        if self.config["published"]:
            compared = ["runs", "baseline", "tokens", *self.experiments]
            pages["replication"] = Page("replication", ["published", "verdicts", *compared])
        return pages

    @property
    def told(self) -> list[str]:
        """The tables that the run's story is read from."""
        told = list(self.tables)
        if self.experiments:
            told += ["summary", "run_means"]
        return told + (["published", "verdicts"] if self.config["published"] else [])

    def facts(self, tables: Iterable[str]) -> list[str]:
        """What vouches for whole tables."""
        stages = dict.fromkeys(MADE_WITH.get(name, name) for name in tables)
        return [f"results/tables/{stage}.provenance.json" for stage in stages]

    def figures(self, example: str) -> list[str]:
        """The figures of an example, in the order of telling, without ending."""
        figures = [f"reports/figures/baseline/{example}"]
        for name, experiment in self.experiments.items():
            for site in experiment.sites:
                kinds = NOISY_FIGURES if experiment.corrupted else [ANSWERS]
                figures += [f"reports/figures/{name}/{kind}_{site}_{example}" for kind in kinds]
        return figures

    def picture_facts(self, rows: Iterable[Row]) -> list[str]:
        """What says which pictures were encoded for these rows."""
        shards = {self._picture_shard_of[row["image"]] for row in rows}
        return [f"results/images/{shard}.json" for shard in sorted(shards)]

    @cached_property
    def timed_on_device(self) -> dict[str, str]:
        """The log of each job that runs the model → its facts, which name the device."""
        if self.at_once:
            return {"results/logs/measure_at_once.log": self.job_files()["clean"]["facts"]}
        jobs = {f"encode_images/{shard}": f"images/{shard}" for shard in self.picture_shards}
        for shard in self.shards:
            jobs[f"answer_questions/{shard}"] = f"{CLEAN}/{shard}"
            for run in self.corrupted:
                jobs[f"run_corrupted/{run}/{shard}"] = f"runs/{run}/{shard}"
            for name, parts in self.parts.items():
                for part in parts:
                    jobs[f"intervene/{name}/{part}/{shard}"] = f"cells/{name}/{part}/{shard}"
        return {f"results/logs/{log}.log": f"results/{facts}.json" for log, facts in jobs.items()}

    @cached_property
    def timed(self) -> dict[str, str]:
        """The log of each other job → what it wrote."""
        files = {"fetch_model": "results/model.json", "tell_story": "reports/index.html"}
        files |= {
            f"fetch_image/{name}": f"results/pictures/{name}" for name in self.remote_pictures
        }
        files |= {f"render/{page}": f"reports/{page}.html" for page in self.pages}
        for table in self.tables:
            rule = "collect_cells" if self.is_large(table) else "collect_table"
            files[f"{rule}/{table}"] = self.table(table)
        if self.experiments:
            files["summarize_effects"] = self.table("summary")
            files |= {
                f"measure_effects/{shard}": f"results/effects/{shard}.json" for shard in self.shards
            }
        if self.config["published"]:
            files["compare_published"] = self.table("published")
        return {f"results/logs/{log}.log": path for log, path in files.items()}

    # What jobs are asked, in plain lists and dictionaries.

    def asked(self, experiment: str, part: str) -> dict[str, Any]:
        """The experiment as one of its jobs does it."""
        return described(self.experiments[experiment].at(self.parts[experiment][part].levels))

    def job_files(self) -> dict[str, Any]:
        """What the one job that does all writes, step by step; there is one shard."""
        (shard,), (pictures,) = self.shards, self.picture_shards
        cells = {
            name: {
                "table": self.cell_files(name, shard, "cells", "parquet")[0],
                "controls": self.cell_files(name, shard, "controls", "parquet")[0],
                "facts": self.cell_files(name, shard, "cells", "json")[0],
            }
            for name in self.experiments
        }
        return {
            "images": {name: f"results/images/{pictures}.{end}" for name, end in IMAGES.items()},
            "clean": {name: path.format(shard=shard) for name, path in CLEAN_FILES.items()},
            "runs": {
                name: {"table": f"results/runs/{name}/{shard}.parquet",
                       "facts": f"results/runs/{name}/{shard}.json"}
                for name in self.corrupted
            },
            "cells": cells,
        }  # fmt: skip

    def is_large(self, table: str) -> bool:
        """Whether a table has a row a cell."""
        return table in self.experiments or TABLES[table].large

    def table(self, name: str) -> str:
        """Where a whole table lies; those with a row a cell are in the configured format."""
        suffix = self.config["tables"]["format"] if self.is_large(name) else "csv"
        return f"results/tables/{name}.{suffix}"


def cut(items: Sequence[Item], size: int) -> dict[str, list[Item]]:
    """Cut items into shards of `size` in order, keyed "0000", "0001", …

    What is added at the end changes the last shard alone, or makes a new one.
    """
    starts = range(0, len(items), size)
    return {f"{n:04d}": list(items[start : start + size]) for n, start in enumerate(starts)}


def pictures_of(rows: Sequence[Row]) -> list[str]:
    """The sheet's distinct pictures in order of first appearance."""
    return list(dict.fromkeys(row["image"] for row in rows))


def group(values: Sequence[Item], size: int, label: Callable[[Item], str]) -> dict[str, list[Item]]:
    """Cut values into groups of `size` in order, keyed by their labels: "0.5", or "0.1-20.0"."""
    parts = cut(values, size).values()
    return {"-".join(dict.fromkeys((label(part[0]), label(part[-1])))): part for part in parts}


def level_label(level: float) -> str:
    """A level as it stands in file names: 1 and 1.0 are both "1.0"."""
    return repr(float(level))


def unrelated_rows(rows: Sequence[Row]) -> dict[str, Row]:
    """Example → the sheet's row that is its null: a near one with another picture.

    It is looked for in the example's own block of 16 rows first, so that shards of 16 rows, or of
    a multiple, do not need each other; blocks of one picture take what the sheet has, and a sheet
    of one picture has none. It does not depend on the size of a shard.
    """
    nulls = _nearest_with_another_picture(rows)
    for block in cut(rows, NULL_BLOCK).values():
        nulls |= _nearest_with_another_picture(block)
    return nulls


def _nearest_with_another_picture(rows: Sequence[Row]) -> dict[str, Row]:
    """Example → the nearest row before with another picture, else the first one after."""
    nulls: dict[str, Row] = {}
    before = None
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        if before is not None:
            nulls[row["example"]] = before
        if following is not None and following["image"] != row["image"]:
            before = row
    other = next((row for row in rows if row["image"] != rows[0]["image"]), None)
    if other is not None:
        nulls.update({row["example"]: other for row in rows if row["example"] not in nulls})
    return nulls
