"""All that runs the model, in one process: what a small model takes is mostly loading libraries."""

from typing import Any

import torch
from answer_questions import CleanOutput, answer_shard
from encode_images import encode_shard
from intervene import Asked, CellsOutput, intervene_shard, null_of, role_orders
from run_corrupted import corrupt_shard

from blip_tracing.engine.clean_runs import CleanFiles
from blip_tracing.machinery.logs import log_to
from blip_tracing.models.loaded import open_model
from blip_tracing.vocabulary.experiment import experiment_from, run_from


def main(snakemake: Any) -> None:
    """Run as the script of the rule `measure_at_once`."""
    params = snakemake.params
    with (
        log_to(snakemake.log[0]),
        open_model([], **params.model, **params.place) as loaded,
        torch.inference_mode(),
    ):
        images, clean = params.files["images"], CleanOutput(**params.files["clean"])
        encode_shard(loaded, params.images, params.keep_pixels, images["states"], images["facts"])
        answer_shard(
            loaded, params.rows, [images["states"]], [images["facts"]], params.metrics, clean
        )
        files = CleanFiles(
            [images["states"]],
            [clean.states],
            [clean.tokens],
            [clean.runs],
            [images["facts"], clean.facts],
        )
        for name, run in params.runs.items():
            corrupt_shard(
                loaded, files, params.rows, run_from(run), params.metrics,
                **params.files["runs"][name],
            )  # fmt: skip
        for name, experiment in params.experiments.items():
            asked = Asked(
                experiment_from(experiment),
                params.layers[name],
                params.null["draws"],
                params.metrics,
                params.model["dtype"],
                role_orders(params.null),
            )
            output = CellsOutput(**params.files["cells"][name])
            null = null_of(params.null, params.null_pictures[name], asked.experiment)
            intervene_shard(loaded, files, params.rows, null, asked, output)


if "snakemake" in globals():
    main(globals()["snakemake"])
