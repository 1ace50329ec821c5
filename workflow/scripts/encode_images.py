"""Encode a shard of pictures once: the vision model's last states, one tensor a picture."""

from typing import Any

from blip_tracing.logs import log_to
from blip_tracing.model import encode_pictures, model_of
from blip_tracing.pictures import open_picture, picture_path
from blip_tracing.tensors import write_tensors


def main(snakemake: Any) -> None:
    """Write states (S, D) under each picture's name in the sheet."""
    images = snakemake.params.images
    with log_to(snakemake.log[0]), model_of(snakemake) as (checkpoint, model):
        pictures = (open_picture(picture_path(image)) for image in images)
        states = encode_pictures(model, checkpoint.directory, pictures)
        write_tensors(dict(zip(images, states, strict=True)), snakemake.output[0])


if "snakemake" in globals():
    main(globals()["snakemake"])
