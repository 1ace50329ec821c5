"""Trace some noise levels, for a shard: corrupt the input, restore each (layer, position)."""

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
from blip_tracing.experiments import Batch, Traced, trace_noise
from blip_tracing.logs import log_to
from blip_tracing.noise import draw_samples
from blip_tracing.provenance import describe_job, write_facts
from blip_tracing.shards import CleanRuns, open_model
from blip_tracing.tables import cells_table, write_table

SCORES = ["p_base", "logit_base", "p_source", "logit_source"]


def trace_batch(
    model: ResumableBlip,
    runs: CleanRuns,
    site: str,
    noise_levels: list[float],
    params: Any,
    batch: Batch,
) -> list[pd.DataFrame]:
    """The traced cells of a batch of examples, their floor, and the controls beside them.

    params: the job's `samples`, `null_samples`, `seed` and `dtype`.
    """
    tokens = batch.states["base"].shape[2]
    noise = torch.stack(
        [
            draw_samples(params.seed, example, params.samples, tokens, model.width)
            for example in batch.examples
        ]
    )
    traced = trace_noise(model, batch, site, noise_levels, noise, params.null_samples)
    floor_axes: dict[str, list] = {
        "example": batch.examples,
        "noise_level": noise_levels,
        "sample": list(range(params.samples)),
    }
    places = {"layer": list(range(len(model.blocks))), "position": list(range(tokens))}
    cells = cells_table({**floor_axes, **places}, score_columns(traced.cells))
    of_example = np.repeat(np.arange(len(batch.examples)), len(cells) // len(batch.examples))
    words = np.array([runs.tokens[example, "base"] for example in batch.examples])
    cells = cells.assign(site=site, token=words[of_example, cells["position"]])
    floor = cells_table(floor_axes, score_columns(traced.floor))
    order = ["example", "site", "noise_level", "sample", "layer", "position", "token"]
    return [
        cells[order + SCORES],
        floor[[*floor_axes, *SCORES]],
        controls_of(traced, runs, site, {**floor_axes, **places}, params.dtype),
    ]


def controls_of(
    traced: Traced, runs: CleanRuns, site: str, axes: dict[str, list], dtype: str
) -> pd.DataFrame:
    """The controls whose outcome is known, checked, and the null."""
    known = {axis: axes[axis] for axis in ("example", "noise_level", "layer")}
    outcomes = {NO_OP: traced.no_op, "all_restored": traced.all_restored}
    tables = [
        table.assign(sample=0) for table in known_outcomes("tracing", site, known, outcomes, dtype)
    ]
    if traced.null:
        drawn = {**axes, "sample": list(range(traced.null.probability.shape[2]))}
        null = null_control(traced.null)
        tables.append(control_rows("tracing", "null", site, drawn, null, donors=runs.unrelated))
    rank = {level: number for number, level in enumerate(axes["noise_level"])}
    # Level by level, as jobs of one level each would write them.
    return pd.concat(tables).sort_values(
        "noise_level", key=lambda levels: levels.map(rank), kind="stable"
    )


def main(snakemake: Any) -> None:
    """Trace each example of the shard at one site and some noise levels."""
    output, params = snakemake.output, snakemake.params
    with log_to(snakemake.log[0]), open_model(snakemake) as loaded, torch.inference_mode():
        noise_levels = [float(level) for level in params.noise_levels]
        site = params.site
        runs = CleanRuns(loaded.model, snakemake, ["base"])
        trace = partial(trace_batch, loaded.model, runs, site, noise_levels, params)
        cells, floor, controls = runs.measure(
            len(noise_levels) * params.samples, trace, f"tracing {site}"
        )
        for table, path in (
            (cells, output.table), (floor, output.floor), (controls, output.controls)
        ):  # fmt: skip
            write_table(table, path)
        facts = describe_job(
            loaded.checkpoint,
            loaded.device_name,
            params.dtype,
            params.code,
            [output.table, output.floor, output.controls],
            seed=params.seed,
        )
        write_facts(facts, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
