"""Trace some noise levels, for a shard: corrupt the input, restore each (layer, position)."""

from typing import Any

import numpy as np
import pandas as pd
import torch

from blip_tracing.engine import ResumableBlip
from blip_tracing.experiments import trace_noise
from blip_tracing.logs import log_to
from blip_tracing.noise import draw_samples
from blip_tracing.provenance import describe_job, write_facts
from blip_tracing.shards import CleanRuns, open_model, read_clean_runs
from blip_tracing.tables import cells_table, write_table


def trace_example(
    model: ResumableBlip,
    runs: CleanRuns,
    site: str,
    noise_levels: list[float],
    samples: int,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row a (noise level, draw, layer, position); the floor: one a (noise level, draw)."""
    tokens = len(runs.base_tokens)
    noise = draw_samples(seed, runs.example, samples, tokens, model.width)
    floor, cells = trace_noise(
        model, runs.memory, site, noise_levels, runs.base, noise, runs.answer_ids[:1]
    )
    axes: dict[str, list] = {
        "example": [runs.example],
        "site": [site],
        "noise_level": noise_levels,
        "sample": list(range(samples)),
    }
    traced = cells_table(
        {**axes, "layer": list(range(len(model.blocks))), "position": list(range(tokens))},
        {"p_base": cells.probability.numpy(), "logit_base": cells.logit.numpy()},
    )
    traced.insert(6, "token", np.array(runs.base_tokens)[traced["position"]])
    del axes["site"]
    return traced, cells_table(
        axes, {"p_base": floor.probability.numpy(), "logit_base": floor.logit.numpy()}
    )


def main(snakemake: Any) -> None:
    """Trace each example of the shard at one site and some noise levels."""
    files, params = snakemake.input, snakemake.params
    with log_to(snakemake.log[0]), open_model(snakemake) as loaded, torch.inference_mode():
        noise_levels = [float(level) for level in params.noise_levels]
        pairs = [
            trace_example(
                loaded.model,
                runs,
                snakemake.wildcards.site,
                noise_levels,
                params.samples,
                params.seed,
            )
            for runs in read_clean_runs(loaded.model, files, params.rows)
        ]
        traced, floors = zip(*pairs, strict=True)
        write_table(pd.concat(traced), snakemake.output.table)
        write_table(pd.concat(floors), snakemake.output.floor)
        facts = describe_job(
            loaded.checkpoint, loaded.device_name, params.dtype, params.code, seed=params.seed
        )
        write_facts(facts, snakemake.output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
