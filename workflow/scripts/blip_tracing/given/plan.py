"""What is to be made of a configuration and a sheet: shards, jobs and files, without Snakemake."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from blip_tracing.given.halves import CONFIRMING, HALVES, halves_of, unit_names, units_of
from blip_tracing.given.pictures import PICTURES, is_url, picture_path, pictures_of
from blip_tracing.vocabulary.analyses import ANALYSES, CONFIRM, Analysis
from blip_tracing.vocabulary.corruptions import DEVIATIONS, PICTURE_PIXELS
from blip_tracing.vocabulary.experiment import (
    BASE,
    CLEAN,
    PICTURE_ONLY,
    QUESTIONS,
    SOURCE,
    Experiment,
    Run,
    described,
    experiments_of,
)
from blip_tracing.vocabulary.metrics import further_of
from blip_tracing.vocabulary.multiverse import MULTIVERSE
from blip_tracing.vocabulary.regions import picture_roles
from blip_tracing.vocabulary.sites import ENCODER, SITES, VISION, towers_of
from blip_tracing.vocabulary.tables import CONTROLS, REASONS, TABLES
from blip_tracing.vocabulary.views import figure_names

Item = TypeVar("Item")
Row = dict[str, str]
Words = tuple[str, ...]

NULL_BLOCK = 16
# What the exploring half says, before the confirming one is measured.
CLAIMS = "results/claims.json"
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
MADE_WITH = {
    "families": "summary", "negatives": "summary", "run_means": "summary",
    "verdicts": "published", "expectations": "published",
    **{table: each.name for each in ANALYSES.values() for table in each.tables},
}  # fmt: skip


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


@dataclass(frozen=True)
class Pool:
    """The rows that can be an example's null; relaxed: the question that they may ask, or ""."""

    rows: list[Row]
    relaxed: str


class Plan:
    """Everything that follows from a checked configuration and the rows of its sheet.

    shards: name → rows; picture_shards: name → pictures; pools: example → the rows that can be its
    null; groups: example → its group; checksums: picture → the sheet's checksum, if any;
    remote_pictures: file name → its address.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        rows: Sequence[Row],
        known: Callable[[str, dict[str, Any]], dict[str, Any]] = lambda wildcard, values: values,
        averages: bool = False,
    ) -> None:
        """Plan; nothing is read or written.

        known: makes the mapping of a wildcard's values, by the wildcard's name, which may refuse
        one that is not there in words of its own; averages: whether what is published are averages
        over examples.
        """
        self.config = config
        self.averages = averages
        # Apart from what jobs that run the model are asked: another group changes none of theirs.
        self.groups = {row["example"]: row.get("group", "") for row in rows}
        self.rows = [{key: row[key] for key in row if key != "group"} for row in rows]
        self.examples = [row["example"] for row in rows]
        self._known = known
        self.halves = self._halves()
        parts = self._parted()
        self.shards = known("shard", cut_each(parts, config["shard_size"]))
        pictures = {name: pictures_of(part) for name, part in parts.items()}
        self.picture_shards = known("shard", cut_each(pictures, config["shard_size"]))
        self.pools = {
            example: pool for part in parts.values() for example, pool in donor_pools(part).items()
        }
        self.checksums = {
            row.get(image, ""): row.get(checksum, "")
            for image, checksum in reversed(PICTURES.items())
            for row in rows
        }
        self.remote_pictures = {
            Path(picture_path(image)).name: image
            for image in pictures_of(self.rows)
            if is_url(image)
        }
        self.experiments: dict[str, Experiment] = known("experiment", experiments_of(config))
        self._shard_of = {
            row["example"]: shard for shard, part in self.shards.items() for row in part
        }
        self._picture_shard_of = {
            image: shard for shard, images in self.picture_shards.items() for image in images
        }

    def _halves(self) -> dict[str, str]:
        """Example → its half, where claims are to be confirmed; else nothing."""
        asked = self.config["analyses"].get(CONFIRM)
        return halves_of(self.rows, asked["share"], asked["salt"]) if asked else {}

    def _parted(self) -> dict[str, list[Row]]:
        """The rows of each half, by what its shards' names begin with; else all, by nothing."""
        if not self.halves:
            return {"": self.rows}
        return {
            f"{half}_": [row for row in self.rows if self.halves[row["example"]] == half]
            for half in HALVES
        }

    def half_of(self, shard: str) -> str:
        """The half that a shard's rows are of; "" where there are none."""
        return self.halves.get(self.shards[shard][0]["example"], "")

    def shards_of(self, half: str) -> list[str]:
        """The shards of a half."""
        return [shard for shard in self.shards if self.half_of(shard) == half]

    def claims_before(self, shard: str) -> list[str]:
        """What must be written before a shard's effects are: of the confirming half the claims."""
        return [CLAIMS] if self.half_of(shard) == CONFIRMING else []

    @property
    def described_halves(self) -> list[list[str]]:
        """Each example by name, its unit, as it is called in any order of rows, and its half."""
        names = unit_names(self.rows)
        return [[row, names[row], self.halves[row]] for row in sorted(self.halves)]

    @cached_property
    def corrupted(self) -> dict[str, Run]:
        """The corrupted runs that an experiment uses, by name."""
        runs = (experiment.corrupted for experiment in self.experiments.values())
        return {run.name: run for run in runs if run}

    @property
    def keeps_pixels(self) -> bool:
        """Whether pictures' pixels are kept, for runs that begin with them."""
        sites = chain.from_iterable(each.sites for each in self.experiments.values())
        corruptions = (run.corruption for run in self.corrupted.values())
        return any(SITES[site].tower == VISION for site in sites) or any(
            part.at == PICTURE_PIXELS
            for corruption in corruptions
            if corruption
            for part in corruption.parts
        )

    @property
    def averaged_runs(self) -> list[Run]:
        """The runs whose means are told: each that a corrupted one is of, and that one."""
        runs = [Run(run.question, run.question) for run in self.corrupted.values()]
        return list(dict.fromkeys([*runs, *self.corrupted.values()]))

    @cached_property
    def parts(self) -> dict[str, dict[str, Part]]:
        """Experiment → the label of each of its jobs → what that job does."""
        planned = {}
        for name, experiment in self.experiments.items():
            layers = self.layers_of(experiment)
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

    def layers_of(self, experiment: Experiment) -> list[int]:
        """The layers of the deepest tower that it has a site of; a shallower one ends before."""
        towers = towers_of(experiment.sites)
        return list(range(max(self.config["model"]["layers"][tower] for tower in towers)))

    @property
    def at_once(self) -> bool:
        """Whether one job does all that runs the model: what is planned is one of each."""
        return len(self.shards) == len(self.picture_shards) == 1 and all(
            len(parts) == 1 for parts in self.parts.values()
        )

    # The files of a shard.

    def null_of(self, shard: str) -> dict[str, Any]:
        """Where a shard's examples take their null from, and how it is chosen and measured.

        pools: example → the names of its pool (`donors`) and what had to give way (`relaxed`).
        """
        pools = {
            row["example"]: {
                "donors": [other["example"] for other in self.pools[row["example"]].rows],
                "relaxed": self.pools[row["example"]].relaxed,
            }
            for row in self.shards[shard]
            if row["example"] in self.pools
        }
        controls = self.config["controls"]
        return {
            "pools": pools,
            "donors": controls["donors"],
            "seed": controls["seed"],
            "draws": controls.get("null_draws"),
            "roles": self.config["effects"]["roles"],
            "picture_roles": picture_roles(row.get("boxes", "") for row in self.rows),
        }

    def null_pictures(self, experiment: str, shard: str) -> dict[str, str]:
        """Example of a pool → its picture, where its run is made again to be the null.

        That is in the vision tower and inside a block of the encoder; between its blocks the states
        are kept, and from them the decoder's are made: no picture is needed.
        """
        sites = [SITES[site] for site in self.experiments[experiment].sites]
        inner = any(site.tower == ENCODER and site.boundary is None for site in sites)
        if not inner and all(site.tower != VISION for site in sites):
            return {}
        return {other["example"]: other["image"] for other in self._donors_of(shard)}

    def _donors_of(self, shard: str) -> list[Row]:
        """The rows of all pools of a shard, each once."""
        pools = (self.pools.get(row["example"]) for row in self.shards[shard])
        return list({row["example"]: row for pool in pools if pool for row in pool.rows}.values())

    def picture_files(self, shard: str, suffix: str, experiment: str | None = None) -> list[str]:
        """The files, by suffix, of the picture shards that hold the pictures of a shard's rows.

        experiment: with those that its null needs.
        """
        images = set(pictures_of(self.shards[shard]))
        if experiment is not None:
            images.update(self.null_pictures(experiment, shard).values())
        shards = {self._picture_shard_of[image] for image in images}
        return [f"results/images/{name}.{suffix}" for name in sorted(shards)]

    def clean_files(self, shard: str, kind: str) -> list[str]:
        """The clean runs of a shard, and after it of those that hold its unrelated examples.

        kind: which of the files in CLEAN_FILES.
        """
        others = {self._shard_of[row["example"]] for row in self._donors_of(shard)}
        shards = [shard, *sorted(others - {shard})]
        return [CLEAN_FILES[kind].format(shard=name) for name in shards]

    def token_files(self, shard: str, experiment: str, kind: str = "tokens") -> list[str]:
        """The tokens that a shard's interventions read, the shard's own first, or their facts."""
        files = self.clean_files(shard, kind)
        return self._with_counted(files, self.experiments[experiment].corrupted, kind, shard)

    def corrupted_token_files(self, shard: str, run: str, kind: str = "tokens") -> list[str]:
        """The tokens that a shard's corrupted run reads, its own first, or their facts."""
        own = [CLEAN_FILES[kind].format(shard=shard)]
        return self._with_counted(own, self.corrupted[run], kind, shard)

    def _with_counted(self, files: list[str], run: Run | None, kind: str, shard: str) -> list[str]:
        """With all shards' where levels count in the standard deviation of the sheet's tokens.

        Of a sheet in halves with those of the same: the one must not wait for the other.
        """
        if run is None or run.corruption is None or run.corruption.unit != DEVIATIONS:
            return files
        alike = self.shards_of(self.half_of(shard))
        every = [CLEAN_FILES[kind].format(shard=name) for name in alike]
        return list(dict.fromkeys([*files, *every]))

    def clean_facts(self, shard: str, experiment: str) -> list[str]:
        """What vouches for the files that a shard's interventions begin from."""
        pictures = self.picture_files(shard, "json", experiment)
        return pictures + self.token_files(shard, experiment, "facts")

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

    def universe_parts(self, experiment: str) -> list[dict[str, Any]]:
        """What an experiment's universes are made of, a shard each: it depends on no other's.

        runs: those that the experiment is between; cells: pairs of cells and controls; examples: as
        described; facts: what vouches for these files.
        """
        return [self._universe_part(experiment, shard) for shard in self.shards]

    def _universe_part(self, experiment: str, shard: str) -> dict[str, Any]:
        run = self.experiments[experiment].corrupted
        folder = [f"results/runs/{run.name}/{shard}"] if run else []
        kinds = ("cells", "controls")
        cells = [self.cell_files(experiment, shard, kind, "parquet") for kind in kinds]
        return {
            "tokens": CLEAN_FILES["tokens"].format(shard=shard),
            "baseline": CLEAN_FILES["baseline"].format(shard=shard),
            "runs": [CLEAN_FILES["runs"].format(shard=shard), *(f"{at}.parquet" for at in folder)],
            "cells": [list(paths) for paths in zip(*cells, strict=True)],
            "examples": self.described_examples(shard),
            "facts": [
                CLEAN_FILES["facts"].format(shard=shard),
                *(f"{at}.json" for at in folder),
                *self.cell_files(experiment, shard, "cells", "json"),
            ],
        }

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
            "run": [*QUESTIONS, PICTURE_ONLY, *self.corrupted],
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
        for name, analysis in self.analyses.items():
            pages[name] = Page(name, [*analysis.tables, *analysis.reads])
        if self.averages:
            pages["replication"] = Page("averages", self.replicated)
        elif self.config["published"]:
            compared = ["runs", "baseline", "tokens", *self.experiments]
            pages["replication"] = Page("replication", [*self.replicated, *compared])
        return pages

    @property
    def replicated(self) -> list[str]:
        """The tables of the comparison with what was published."""
        if self.averages:
            return ["published", "verdicts", "expectations"]
        return ["published", "verdicts"] if self.config["published"] else []

    @cached_property
    def analyses(self) -> dict[str, Analysis]:
        """What is asked of several experiments together, by name."""
        asked = self.config["analyses"]
        return {name: analysis for name, analysis in ANALYSES.items() if name in asked}

    @property
    def told(self) -> list[str]:
        """The tables that the run's story is read from."""
        told = list(self.tables)
        if self.experiments:
            told += ["summary", "families", "negatives", "run_means"]
        for analysis in self.analyses.values():
            told += analysis.tables
        return told + self.replicated

    def facts(self, tables: Iterable[str]) -> list[str]:
        """What vouches for whole tables."""
        stages = dict.fromkeys(MADE_WITH.get(name, name) for name in tables)
        return [f"results/tables/{stage}.provenance.json" for stage in stages]

    def figures(self, example: str) -> list[str]:
        """The figures of an example, in the order of telling, without ending."""
        figures = [f"reports/figures/baseline/{example}"]
        for name, experiment in self.experiments.items():
            names = figure_names(experiment, example)
            figures += [f"reports/figures/{name}/{figure}" for figure in names]
        return figures

    def picture_facts(self, rows: Iterable[Row]) -> list[str]:
        """What says which pictures were encoded for these rows."""
        shards = {self._picture_shard_of[image] for image in pictures_of(rows)}
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
            if table == "effects":
                rule = "collect_effects"
            files[f"{rule}/{table}"] = self.table(table)
        if self.experiments:
            files["summarize_effects"] = self.table("summary")
            files |= {
                f"measure_effects/{shard}": f"results/effects/{shard}.json" for shard in self.shards
            }
        if MULTIVERSE in self.analyses:
            files |= {
                f"universes/{name}": f"results/universes/{name}.parquet"
                for name in self.config["analyses"][MULTIVERSE]["experiments"]
            }
        files |= {
            CONFIRM if name == CONFIRM else f"analyse/{name}": self.table(name)
            for name in self.analyses
        }
        if self.halves:
            files["claims"] = CLAIMS
        if self.config["published"]:
            kind = "averages" if self.averages else "published"
            files[f"compare_{kind}"] = self.table("published")
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

    @property
    def primary_levels(self) -> dict[str, int]:
        """Experiment → the number of the level that conclusions are drawn at; 0 without levels."""
        asked = self.config["effects"].get("primary_level")
        return {name: each.primary(asked) for name, each in self.experiments.items()}

    @property
    def effect_rules(self) -> dict[str, Any]:
        """The configuration's numbers behind means and marks, and the metrics that these are of."""
        names = ("total_effect", "least_effect", "resamples", "seed", "metric")
        rules = {name: self.config["effects"][name] for name in names}
        return {**rules, "further": list(further_of(self.config["metrics"], rules["metric"]))}

    def described_examples(self, shard: str) -> list[list[Any]]:
        """A shard's examples: name, unit, whether pictures are exchanged, group and boxes."""
        return [
            [row["example"], self.units[row["example"]],
             row.get("source_image") not in (None, "", row["image"]),
             self.groups[row["example"]], row.get("boxes", "")]
            for row in self.shards[shard]
        ]  # fmt: skip

    @cached_property
    def units(self) -> dict[str, str]:
        """Example → the unit of resampling and of sign flips: rows that share a picture are one."""
        return units_of(self.rows)

    @property
    def boxes(self) -> list[str]:
        """The sheet's distinct boxes in order of first appearance, "" where a row has none."""
        return list(dict.fromkeys(row.get("boxes", "") for row in self.rows))

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


def cut_each(parts: Mapping[str, Sequence[Item]], size: int) -> dict[str, list[Item]]:
    """Cut each part for itself, keyed by its name and the shard's: a longer one moves no other."""
    return {
        f"{name}{number}": items
        for name, part in parts.items()
        for number, items in cut(part, size).items()
    }


def group(values: Sequence[Item], size: int, label: Callable[[Item], str]) -> dict[str, list[Item]]:
    """Cut values into groups of `size` in order, keyed by their labels: "0.5", or "0.1-20.0"."""
    parts = cut(values, size).values()
    return {"-".join(dict.fromkeys((label(part[0]), label(part[-1])))): part for part in parts}


def level_label(level: float) -> str:
    """A level as it stands in file names: 1 and 1.0 are both "1.0"."""
    return repr(float(level))


def donor_pools(rows: Sequence[Row]) -> dict[str, Pool]:
    """Example → the rows that can be its null, as far as is known before a model runs.

    They show none of its pictures and ask what the example asks in neither of its questions,
    compared as words. They are those of the example's own block of 16 rows, so that shards of 16
    rows, or of a multiple, do not need each other; of a block that has none, those of the nearest
    block before that has one, else of the nearest after. Where the whole sheet has none, the rule
    of the own base question gives way, then that of the source question; that of the pictures never
    does, so that a sheet of one picture has none. It does not depend on the size of a shard.
    """
    questions = [(words_of(row["base_question"]), words_of(row["source_question"])) for row in rows]
    asked = [
        (frozenset(pictures_of([row])), base)
        for row, (base, _) in zip(rows, questions, strict=True)
    ]
    pictures: dict[Words, set[frozenset[str]]] = {}
    for shown, words in asked:
        pictures.setdefault(words, set()).add(shown)
    blocks = list(cut(range(len(rows)), NULL_BLOCK).values())
    pools = {}
    for number, (base, source) in enumerate(questions):
        own, _ = asked[number]
        for relaxed, forbidden in (("", {base, source}), (BASE, {source}), (SOURCE, set())):
            others = (shown for words, shown in pictures.items() if words not in forbidden)
            if all(shown & own for shown in chain.from_iterable(others)):
                continue
            pool = _nearest(blocks, number, asked, forbidden)
            pools[rows[number]["example"]] = Pool([rows[other] for other in pool], relaxed)
            break
    return pools


def _nearest(
    blocks: Sequence[Sequence[int]],
    number: int,
    asked: Sequence[tuple[frozenset[str], Words]],
    forbidden: Collection[Words],
) -> list[int]:
    """The rows that pass, of one block: a row's own, else the nearest before, else after."""
    pictures, _ = asked[number]
    own = number // NULL_BLOCK
    for at in chain(range(own, -1, -1), range(own + 1, len(blocks))):
        pool = [
            row
            for row in blocks[at]
            if not asked[row][0] & pictures and asked[row][1] not in forbidden
        ]
        if pool:
            return pool
    return []


def words_of(question: str) -> Words:
    """A question as it is compared with others: capitals and punctuation do not count."""
    return tuple(re.findall(r"\w+", question.casefold()))
