"""Patch every position of some layers, for a shard: source activations into the base run."""

from typing import Any

import pandas as pd
import torch

from blip_tracing.engine import ResumableBlip
from blip_tracing.experiments import patch_layer
from blip_tracing.logs import log_to
from blip_tracing.provenance import describe_job, write_facts
from blip_tracing.shards import CleanRuns, open_model, read_clean_runs
from blip_tracing.tables import write_table


def patch_example(model: ResumableBlip, runs: CleanRuns, site: str, layer: int) -> pd.DataFrame:
    """One row a position: probability and logit of the base and the source answer."""
    scores = patch_layer(model, runs.memory, site, layer, runs.base, runs.source, runs.answer_ids)
    probability, logit = scores.probability.numpy(), scores.logit.numpy()
    return pd.DataFrame(
        {
            "example": runs.example,
            "site": site,
            "layer": layer,
            "position": range(len(runs.base_tokens)),
            "token": runs.base_tokens,
            "source_token": runs.source_tokens,
            "p_base": probability[:, 0],
            "p_source": probability[:, 1],
            "logit_base": logit[:, 0],
            "logit_source": logit[:, 1],
        }
    )


def main(snakemake: Any) -> None:
    """Patch each example of the shard at one site and some layers."""
    files, params = snakemake.input, snakemake.params
    with log_to(snakemake.log[0]), open_model(snakemake) as loaded, torch.inference_mode():
        site, layers = snakemake.wildcards.site, params.layers
        tables = [
            patch_example(loaded.model, runs, site, layer)
            for runs in read_clean_runs(loaded.model, files, params.rows, min(layers))
            for layer in layers
        ]
        write_table(pd.concat(tables), snakemake.output.table)
        facts = describe_job(loaded.checkpoint, loaded.device_name, params.dtype, params.code)
        write_facts(facts, snakemake.output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
