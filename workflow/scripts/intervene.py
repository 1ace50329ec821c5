"""Put the donor's states into the receiver's run: an experiment's cells, for a shard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from blip_tracing.engine.cells import Batch, Measured, measure
from blip_tracing.engine.clean_runs import (
    DONOR_KEYS,
    CleanFiles,
    CleanRuns,
    Null,
    Row,
)
from blip_tracing.engine.controls import Control, check_control, tolerance_of
from blip_tracing.engine.scores import Scores
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import cells_table, sort_rows, write_table
from blip_tracing.meaning.roles import roles_of
from blip_tracing.models.loaded import Loaded, open_model
from blip_tracing.vocabulary.experiment import Experiment, experiment_from
from blip_tracing.vocabulary.metrics import columns_of
from blip_tracing.vocabulary.sites import SITES, places_of
from blip_tracing.vocabulary.tables import UNRELATED

# Columns that say which run of the receiver, and where in it, in the order of the tables.
RUN = ["noise_level", "draw"]
PLACE = ["layer", "position"]


@dataclass(frozen=True)
class Asked:
    """What a job does: an experiment, at the levels that it has here, in some layers.

    null_draws: draws, from the first, at which the null is measured too, None for all; dtype: the
    model's, for what rounding may do to a control.
    """

    experiment: Experiment
    layers: list[int]
    null_draws: int | None
    metrics: list[str]
    dtype: str

    @property
    def variants(self) -> dict[str, list]:
        """The axes of the receiver's variants; none where nothing is corrupted."""
        return self._variants(self.experiment.draws)

    @property
    def null_variants(self) -> dict[str, list]:
        """Those at which the null is measured."""
        draws = self.experiment.draws
        return self._variants(draws if self.null_draws is None else self.null_draws)

    def _variants(self, draws: int) -> dict[str, list]:
        if self.experiment.corrupted is None:
            return {}
        return {"noise_level": list(self.experiment.levels), "draw": list(range(draws))}


@dataclass(frozen=True)
class CellsOutput:
    """Where a job's cells are written."""

    table: str
    controls: str
    facts: str


def measure_batch(
    loaded: Loaded, runs: CleanRuns, asked: Asked, batch: Batch
) -> list[pd.DataFrame]:
    """The cells of a batch of examples, and the controls beside them."""
    experiment = asked.experiment
    names = places_of(experiment.sites, asked.layers)
    places = {place: f"{site} layer {layer}" for place, ((site, layer), *_) in names.items()}
    measured = measure(loaded.traced, batch, experiment, places, asked.null_draws, asked.metrics)
    of_site = {
        site: [measured[SITES[site].place(layer)] for layer in asked.layers]
        for site in experiment.sites
    }
    return [
        pd.concat([cell_rows(parts, runs, asked, site, batch) for site, parts in of_site.items()]),
        pd.concat(
            [control_rows(parts, runs, asked, site, batch) for site, parts in of_site.items()]
        ),
    ]


def cell_rows(
    parts: Sequence[Measured], runs: CleanRuns, asked: Asked, site: str, batch: Batch
) -> pd.DataFrame:
    """One site's cells: a row an example, level, draw, layer and position."""
    axes = {"example": batch.examples, **asked.variants}
    rows = arrange([part.cells for part in parts], axes, asked.layers).assign(site=site)
    experiment = asked.experiment
    ends = {"token": experiment.receiver.question}
    if experiment.donor.question != experiment.receiver.question:
        ends["source_token"] = experiment.donor.question
    for column, question in ends.items():
        rows[column] = words_at(runs, batch.examples, question, rows)
    return rows[["example", "site", *PLACE, *ends, *asked.variants, *columns_of(asked.metrics)]]


def words_at(
    runs: CleanRuns, examples: Sequence[str], question: str, rows: pd.DataFrame
) -> np.ndarray:
    """The token at each row's position; rows: as many an example, one example after the other."""
    words = np.array([runs.tokens[example, question] for example in examples])
    return words[np.repeat(np.arange(len(examples)), len(rows) // len(examples)), rows["position"]]


def arrange(
    scores: Sequence[Scores], axes: Mapping[str, list], layers: Sequence[int]
) -> pd.DataFrame:
    """A row a cell of the layers' scores, each (G, M, T): M variants are the axes after example."""
    joined = Scores.stack(scores, dim=2)
    columns = {name: values.numpy() for name, values in joined.columns.items()}
    positions = list(range(next(iter(columns.values())).shape[-1]))
    return cells_table({**axes, "layer": list(layers), "position": positions}, columns)


def control_rows(
    parts: Sequence[Measured], runs: CleanRuns, asked: Asked, site: str, batch: Batch
) -> pd.DataFrame:
    """One site's controls, checked, and its null: their part of the table.

    Raises MeasurementError when a control misses its outcome by more than rounding explains.
    """
    variants = asked.variants
    first = {axis: labels if axis != "draw" else [0] for axis, labels in variants.items()}
    tables = []
    for name in dict.fromkeys(name for part in parts for name in part.controls):
        known = [
            (layer, part.controls[name])
            for layer, part in zip(asked.layers, parts, strict=True)
            if name in part.controls
        ]
        control = Control.stack([of_layer for _, of_layer in known], dim=2)
        axes = {"example": batch.examples, **first, "layer": [layer for layer, _ in known]}
        tolerance = tolerance_of(name, asked.dtype)
        flat = {axis: labels for axis, labels in axes.items() if axis != "draw"}
        if not variants:
            control = Control(control.scores[:, 0], control.difference[:, 0], control.effect[:, 0])
        check_control(control, name, flat, site, tolerance)
        columns = {key: values.numpy() for key, values in control.scores.columns.items()}
        told = {"difference": control.difference.numpy(), "effect": control.effect.numpy()}
        rows = cells_table(axes, {**columns, **told})
        rows = rows.assign(donor=rows["example"], donor_token="", donor_role="")
        tables.append(rows.assign(control=name, tolerance=tolerance))
    if parts[0].null:
        tables.append(null_rows(parts, runs, asked, batch).assign(control=UNRELATED))
    whole = pd.concat(tables, ignore_index=True)
    whole = whole.assign(experiment=asked.experiment.name, site=site)
    order = [
        "experiment", "example", "control", "donor", "donor_number", "donor_token", "donor_role",
        "matched", "site", *RUN, *PLACE, *columns_of(asked.metrics), "difference", "tolerance",
        "effect",
    ]  # fmt: skip
    types = dict.fromkeys(("donor_number", "draw", *PLACE), "Int32") | {"noise_level": "float64"}
    types |= dict.fromkeys(("difference", "tolerance", "effect"), "float32")
    return whole.reindex(columns=order).astype({**types, "matched": "boolean"})


def null_rows(
    parts: Sequence[Measured], runs: CleanRuns, asked: Asked, batch: Batch
) -> pd.DataFrame:
    """One site's null: a row an example, level and draw (or donor), layer and position."""
    count = len(runs.donors[batch.examples[0]])
    axes = asked.null_variants or {"donor_number": list(range(count))}
    nulls = [part.null for part in parts if part.null]
    rows = arrange(nulls, {"example": batch.examples, **axes}, asked.layers)
    if asked.variants:
        rows["donor_number"] = rows["draw"] % count
    else:  # as layers of other jobs follow on
        rows = sort_rows(rows, {"example": batch.examples, "layer": asked.layers})
    donors = runs.donor_table(batch.examples)
    return rows.merge(donors, how="left", on=DONOR_KEYS, validate="many_to_one")


def null_of(
    described: Mapping[str, Any], pictures: Mapping[str, str], experiment: Experiment
) -> Null:
    """The null as the rule describes it, and roles as `effects.roles` tells them.

    described: pools, donors, seed, draws and roles, as `Plan.null_of` has them.
    """
    return Null(
        described["pools"],
        pictures,
        described["donors"],
        described["seed"],
        experiment.receiver.question,
        partial(roles_of, rules=described["roles"]),
    )


def intervene_shard(
    loaded: Loaded,
    files: CleanFiles,
    rows: Sequence[Row],
    null: Null,
    asked: Asked,
    output: CellsOutput,
) -> None:
    """Measure a shard's cells and write them, their controls and facts."""
    runs = CleanRuns(loaded.traced, files, rows, null, first_layer=min(asked.layers))
    variants = max(1, len(asked.experiment.levels)) * asked.experiment.draws

    def work(batch: Batch) -> list[pd.DataFrame]:
        return measure_batch(loaded, runs, asked, batch)

    cells, controls = runs.measure(variants, work, asked.experiment.name)
    write_table(cells, output.table)
    write_table(controls, output.controls)
    corrupted = asked.experiment.corrupted
    seed = {"seed": corrupted.corruption.seed} if corrupted and corrupted.corruption else {}
    loaded.vouch(output.facts, [output.table, output.controls], **seed)


def main(snakemake: Any) -> None:
    """Run as the script of the rule `intervene`."""
    files, params = snakemake.input, snakemake.params
    asked = Asked(
        experiment_from(params.experiment),
        params.layers,
        params.null["draws"],
        params.metrics,
        params.model["dtype"],
    )
    clean = CleanFiles(files.images, files.states, files.tokens, files.runs, files.facts)
    with (
        log_to(snakemake.log[0]),
        open_model(files.facts, **params.model, **params.place) as loaded,
        torch.inference_mode(),
    ):
        intervene_shard(
            loaded,
            clean,
            params.rows,
            null_of(params.null, params.null_pictures, asked.experiment),
            asked,
            CellsOutput(**snakemake.output),
        )


if "snakemake" in globals():
    main(globals()["snakemake"])
