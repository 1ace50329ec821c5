"""Put the donor's states into the receiver's run: an experiment's cells, for a shard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import torch

from blip_tracing.engine.cells import Batch, Measured, measure
from blip_tracing.engine.clean_runs import (
    DONOR_KEYS,
    CleanFiles,
    CleanRuns,
    Corrupted,
    Null,
    Row,
)
from blip_tracing.engine.controls import Control, check_control, tolerance_of
from blip_tracing.engine.positions import (
    SOURCE_TOKEN,
    TOKEN,
    Positions,
    positions_of,
)
from blip_tracing.engine.scores import Scores
from blip_tracing.given.tokens import load_tokenizer, token_name
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import cells_table, sort_rows, write_table
from blip_tracing.meaning.roles import roles_by
from blip_tracing.models.loaded import Loaded, open_model
from blip_tracing.vocabulary.experiment import BY_ROLE, QUESTIONS, Experiment, experiment_from
from blip_tracing.vocabulary.metrics import columns_of
from blip_tracing.vocabulary.roles import DECODER_ROLES, ask_answers
from blip_tracing.vocabulary.sites import (
    DECODER,
    ENCODER,
    SITES,
    VISION,
    Place,
    Site,
    places_of,
)
from blip_tracing.vocabulary.tables import UNRELATED

# Columns that say which run of the receiver, and where in it, in the order of the tables.
RUN = ["noise_level", "draw"]
PLACE = ["layer", "head", "position"]


@dataclass(frozen=True)
class Asked:
    """What a job does: an experiment, at the levels that it has here, in some layers.

    null_draws: draws, from the first, at which the null is measured too, None for all; dtype: the
    model's, for what rounding may do to a control; roles: tower → its roles, in the order of their
    numbers.
    """

    experiment: Experiment
    layers: list[int]
    null_draws: int | None
    metrics: list[str]
    dtype: str
    roles: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def place(self) -> list[str]:
        """The columns that say where a cell is; heads are told where a site has them."""
        heads = any(SITES[site].heads for site in self.experiment.sites)
        return [name for name in PLACE if heads or name != "head"]

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


@dataclass(frozen=True)
class Part:
    """What a job measured at one site: of its layers in order; positions: what they are called."""

    site: Site
    layers: list[int]
    measured: list[Measured]
    heads: list[int]
    positions: Positions

    def arrange(self, scores: Sequence[Scores], axes: Mapping[str, list]) -> pd.DataFrame:
        """A row a cell of the layers' scores, each (G, M, U): M variants are axes after example."""
        joined = Scores.stack(scores, dim=2)
        columns = {name: values.numpy() for name, values in joined.columns.items()}
        units = next(iter(columns.values())).shape[-1]
        inside = {"head": self.heads} if self.site.heads else {}
        positions = list(range(units // len(self.heads) if inside else units))
        rows = cells_table({**axes, "layer": self.layers, **inside, "position": positions}, columns)
        return rows if inside else rows.assign(head=None)


def measure_batch(
    loaded: Loaded, runs: CleanRuns, asked: Asked, batch: Batch
) -> list[pd.DataFrame]:
    """The cells of a batch of examples, and the controls beside them."""
    experiment, model = asked.experiment, loaded.traced
    layers = {
        site: [layer for layer in asked.layers if layer < model.layers[SITES[site].tower]]
        for site in experiment.sites
    }
    names: dict[Place, tuple[str, int]] = {}
    for site in experiment.sites:
        for place, ((_, layer), *_) in places_of([site], layers[site], experiment.window).items():
            names.setdefault(place, (site, layer))
    called = {place: f"{site} layer {layer}" for place, (site, layer) in names.items()}
    towers = dict.fromkeys(SITES[site].tower for site in experiment.sites)
    answers = followed_answers(loaded, experiment, batch)
    positions = {
        tower: positions_of(
            runs,
            experiment,
            tower,
            batch.examples,
            asked.roles.get(tower, ()),
            batch.images.shape[1],
            answers,
        )
        for tower in towers
    }
    if experiment.positions == BY_ROLE:
        numbers = {tower: torch.tensor(found.numbers) for tower, found in positions.items()}
        batch = replace(batch, roles=numbers)
    measured = measure(model, batch, experiment, called, asked.null_draws, asked.metrics)
    parts = [
        Part(
            SITES[site],
            layers[site],
            [measured[SITES[site].place(layer, experiment.window)] for layer in layers[site]],
            list(experiment.heads or range(model.heads[SITES[site].tower])),
            positions[SITES[site].tower],
        )
        for site in experiment.sites
        if layers[site]
    ]
    return [
        pd.concat([rows(part, runs, asked, batch) for part in parts], ignore_index=True)
        for rows in (cell_rows, control_rows)
    ]


def cell_rows(part: Part, runs: CleanRuns, asked: Asked, batch: Batch) -> pd.DataFrame:
    """One site's cells: a row an example, level, draw, layer, head and position."""
    axes = {"example": batch.examples, **asked.variants}
    rows = part.arrange([found.cells for found in part.measured], axes)
    rows = part.positions.name(rows).assign(site=part.site.name)
    words = [name for name in (TOKEN, SOURCE_TOKEN) if name in rows]
    order = ["example", "site", *asked.place, *words, *asked.variants, *columns_of(asked.metrics)]
    return rows[order].astype({"head": "Int32"} if "head" in asked.place else {})


def followed_answers(loaded: Loaded, experiment: Experiment, batch: Batch) -> list[list[str]]:
    """The tokens of each example's followed answer that the decoder reads: all but the last.

    As many of each as of the longest answer of the batch, "" for those that one has not.
    """
    followed = batch.answers[:, QUESTIONS.index(experiment.followed)]
    most = followed.shape[-1] - 1
    if not most:
        return [[] for _ in followed]
    tokenizer = load_tokenizer(loaded.checkpoint.directory)
    read = [
        [token_name(tokenizer, token) for token in answer if token >= 0][:-1]
        for answer in followed.tolist()
    ]
    return [[*names, *[""] * (most - len(names))] for names in read]


def control_rows(part: Part, runs: CleanRuns, asked: Asked, batch: Batch) -> pd.DataFrame:
    """One site's controls, checked, and its null: their part of the table.

    Raises MeasurementError when a control misses its outcome by more than rounding explains.
    """
    variants, site = asked.variants, part.site.name
    kept = part.site.kept and asked.experiment.window == 1
    first = {axis: labels if axis != "draw" else [0] for axis, labels in variants.items()}
    tables = []
    for name in dict.fromkeys(name for found in part.measured for name in found.controls):
        known = [
            (layer, found.controls[name])
            for layer, found in zip(part.layers, part.measured, strict=True)
            if name in found.controls
        ]
        control = Control.stack([of_layer for _, of_layer in known], dim=2)
        axes = {"example": batch.examples, **first, "layer": [layer for layer, _ in known]}
        tolerance = tolerance_of(name, asked.dtype, kept)
        flat = {axis: labels for axis, labels in axes.items() if axis != "draw"}
        if not variants:
            control = Control(control.scores[:, 0], control.difference[:, 0], control.effect[:, 0])
        check_control(control, name, flat, site, tolerance)
        columns = {key: values.numpy() for key, values in control.scores.columns.items()}
        told = {"difference": control.difference.numpy(), "effect": control.effect.numpy()}
        rows = cells_table(axes, {**columns, **told})
        rows = rows.assign(donor=rows["example"], donor_token="", donor_role="")
        tables.append(rows.assign(control=name, tolerance=tolerance))
    if part.measured[0].null:
        tables.append(null_rows(part, runs, asked, batch).assign(control=UNRELATED))
    whole = pd.concat(tables, ignore_index=True)
    whole = whole.assign(experiment=asked.experiment.name, site=site)
    place = asked.place
    order = [
        "experiment", "example", "control", "donor", "donor_number", "donor_token", "donor_role",
        "matched", "site", *RUN, *place, *columns_of(asked.metrics), "difference", "tolerance",
        "effect",
    ]  # fmt: skip
    types = dict.fromkeys(("donor_number", "draw", *place), "Int32") | {"noise_level": "float64"}
    types |= dict.fromkeys(("difference", "tolerance", "effect"), "float32")
    return whole.reindex(columns=order).astype({**types, "matched": "boolean"})


def null_rows(part: Part, runs: CleanRuns, asked: Asked, batch: Batch) -> pd.DataFrame:
    """One site's null: a row an example, level and draw (or donor), layer, head and position."""
    count = len(runs.donors[batch.examples[0]])
    axes = asked.null_variants or {"donor_number": list(range(count))}
    nulls = [found.null for found in part.measured if found.null]
    rows = part.arrange(nulls, {"example": batch.examples, **axes})
    if asked.variants:
        rows["donor_number"] = rows["draw"] % count
    else:  # as layers of other jobs follow on
        rows = sort_rows(rows, {"example": batch.examples, "layer": part.layers})
    rows = part.positions.name(rows).drop(columns=list(part.positions.names))
    donors = part.positions.donors(runs, batch.examples)
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
        roles_by(described["roles"]),
        ask_answers(described["roles"]),
    )


def corrupted_of(experiment: Experiment) -> Corrupted | None:
    """The corrupted run that is one end of an experiment, if any, and how its roles are told."""
    run = experiment.corrupted
    if run is None or run.corruption is None:
        return None
    rules = run.corruption.role_rules
    return Corrupted(run, roles_by(rules), ask_answers(rules))


def role_orders(described: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Tower → its roles, in the order of their numbers; described: as `Plan.null_of` has it."""
    return {
        ENCODER: [rule["role"] for rule in described["roles"]],
        DECODER: DECODER_ROLES,
        VISION: described["picture_roles"],
    }


def intervene_shard(
    loaded: Loaded,
    files: CleanFiles,
    rows: Sequence[Row],
    null: Null,
    asked: Asked,
    output: CellsOutput,
) -> None:
    """Measure a shard's cells and write them, their controls and facts."""
    first_layer = max(0, min(asked.layers) - asked.experiment.window // 2)
    noisy = corrupted_of(asked.experiment)
    runs = CleanRuns(loaded.traced, files, rows, null, first_layer, noisy)
    variants = max(1, len(asked.experiment.levels)) * asked.experiment.draws

    def work(batch: Batch) -> list[pd.DataFrame]:
        return measure_batch(loaded, runs, asked, batch)

    experiment = asked.experiment
    cells, controls = runs.measure(variants, work, experiment.name, experiment.in_pictures)
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
        role_orders(params.null),
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
