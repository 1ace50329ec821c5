"""Encode a shard of pictures once: the vision model's last states, one tensor a picture."""

from typing import Any

from blip_tracing.checkpoint import Checkpoint
from blip_tracing.logs import log_to
from blip_tracing.model import encode_pictures, load_model, use_device, use_threads
from blip_tracing.pictures import open_picture, picture_path
from blip_tracing.tensors import write_tensors


def main(snakemake: Any) -> None:
    """Write states (S, D) under each picture's name in the sheet."""
    places = snakemake.resources.get("jobs_per_gpu", 1)
    with log_to(snakemake.log[0]), use_device(snakemake.config["device"], places) as device:
        use_threads(snakemake.threads)
        directory = Checkpoint.from_json(snakemake.input.model).directory
        model = load_model(directory, device, snakemake.params.dtype)
        states = {
            image: encode_pictures(model, directory, [open_picture(picture_path(image))])[0]
            for image in snakemake.params.images
        }
        write_tensors(states, snakemake.output[0])


if "snakemake" in globals():
    main(globals()["snakemake"])
