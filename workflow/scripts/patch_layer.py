"""Patch every position of some layers, for a shard: source activations into the base run."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from blip_tracing.controls import (
    NO_OP,
    control_rows,
    known_outcomes,
    null_control,
    score_columns,
)
from blip_tracing.engine import ResumableBlip
from blip_tracing.experiments import Batch, Scores, check_patches, patch_layer
from blip_tracing.logs import log_to
from blip_tracing.provenance import describe_job, write_facts
from blip_tracing.shards import ROLES, CleanRuns, open_model
from blip_tracing.tables import cells_table, write_table

# Rows an example and position: the source's patch and the null's.
RUNS = 2
COLUMNS = [
    "example", "site", "layer", "position", "token", "source_token",
    "p_base", "p_source", "logit_base", "logit_source",
]  # fmt: skip


def patch_batch(
    model: ResumableBlip, runs: CleanRuns, site: str, layers: list[int], dtype: str, batch: Batch
) -> list[pd.DataFrame]:
    """The patched cells of a batch of examples, and the controls beside them."""
    cells, controls = [], []
    for layer in layers:
        scores = patch_layer(model, batch, site, layer)
        cells.append(patched_rows(scores[:, :1], runs, site, layer, batch.examples))
        no_op, ceiling = (control[:, None] for control in check_patches(model, batch, site, layer))
        known: dict[str, list] = {"example": batch.examples, "layer": [layer]}
        outcomes = {NO_OP: no_op, "ceiling": ceiling}
        controls += known_outcomes("patching", site, known, outcomes, dtype)
        if "unrelated" in batch.states:
            axes = cell_axes(scores, layer, batch.examples)
            null = null_control(scores[:, 1:])
            controls.append(
                control_rows("patching", "null", site, axes, null, donors=runs.unrelated)
            )
    return [pd.concat(cells), pd.concat(controls)]


def cell_axes(scores: Scores, layer: int, examples: list[str]) -> dict[str, list]:
    """The labels of one layer's scores (G, 1, T, K)."""
    positions = list(range(scores.probability.shape[2]))
    return {"example": examples, "layer": [layer], "position": positions}


def patched_rows(
    scores: Scores, runs: CleanRuns, site: str, layer: int, examples: list[str]
) -> pd.DataFrame:
    """One row a position: probability and logit of the base and the source answer."""
    rows = cells_table(cell_axes(scores, layer, examples), score_columns(scores))
    base, source = (
        np.concatenate([runs.tokens[example, role] for example in examples]) for role in ROLES
    )
    return rows.assign(site=site, token=base, source_token=source)[COLUMNS]


def main(snakemake: Any) -> None:
    """Patch each example of the shard at one site and some layers."""
    output, params = snakemake.output, snakemake.params
    with log_to(snakemake.log[0]), open_model(snakemake) as loaded, torch.inference_mode():
        site, layers = params.site, params.layers
        runs = CleanRuns(loaded.model, snakemake, ROLES, min(layers))
        patch = partial(patch_batch, loaded.model, runs, site, layers, params.dtype)
        cells, controls = runs.measure(RUNS, patch, f"patching {site}")
        write_table(cells, output.table)
        write_table(controls, output.controls)
        files = [output.table, output.controls]
        facts = describe_job(
            loaded.checkpoint, loaded.device_name, params.dtype, params.code, files
        )
        write_facts(facts, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
