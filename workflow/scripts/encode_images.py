"""Encode a shard of pictures once: the vision model's last states, one tensor a picture."""

from typing import Any

from blip_tracing.checkpoint import Checkpoint
from blip_tracing.logs import log_to
from blip_tracing.model import choose_device, encode_pictures, load_model, use_threads
from blip_tracing.pictures import open_picture, picture_path
from blip_tracing.tensors import write_tensors


def main(snakemake: Any) -> None:
    """Write states (S, D) under each picture's name in the sheet."""
    with log_to(snakemake.log[0]):
        use_threads(snakemake.threads)
        checkpoint = Checkpoint.from_json(snakemake.input.model)
        model = load_model(
            checkpoint.directory, choose_device(snakemake.config["device"]), snakemake.params.dtype
        )
        states = {
            image: encode_pictures(
                model, checkpoint.directory, [open_picture(picture_path(image))]
            )[0]
            for image in snakemake.params.images
        }
        write_tensors(states, snakemake.output[0])


if "snakemake" in globals():
    main(globals()["snakemake"])
