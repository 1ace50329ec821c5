"""Encode a shard of pictures once: the vision model's last states, one tensor a picture.

Beside them, where it is asked for, the pixels that the model reads.
"""

from collections.abc import Mapping
from typing import Any

from blip_tracing.engine.clean_runs import pixels_name
from blip_tracing.errors import InputError
from blip_tracing.given.pictures import open_picture, picture_path
from blip_tracing.machinery.files import sha256_of
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tensors import write_tensors
from blip_tracing.models.load import encode_pixels, process_pictures
from blip_tracing.models.loaded import Loaded, open_model


def check_expected(digests: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Check the digests of pictures, by name, against those expected; "" where none is.

    Raises InputError naming a picture that was replaced since.
    """
    for image, digest in digests.items():
        if expected[image] not in ("", digest):
            raise InputError(
                f"{picture_path(image)}: was replaced while the run was under way; "
                "give the same command again"
            )


def encode_shard(
    loaded: Loaded, images: Mapping[str, str], keep_pixels: bool, states: str, facts: str
) -> None:
    """Write states (S, D) under each picture's name in the sheet, and their facts.

    images: name → the digest that it must have, "" for any; keep_pixels: whether what the model
    reads of each, (3, height, width), is written too, from which the vision tower is run again.
    """
    paths = {image: picture_path(image) for image in images}
    opened = (open_picture(path) for path in paths.values())
    pictures = process_pictures(loaded.blip, loaded.checkpoint.directory, opened)
    tensors = {}
    for image, pixels in zip(paths, pictures, strict=True):
        tensors[image] = encode_pixels(loaded.blip, pixels)
        if keep_pixels:
            tensors[pixels_name(image)] = pixels
    write_tensors(tensors, states)
    digests = {image: sha256_of([path]) for image, path in paths.items()}
    check_expected(digests, images)
    loaded.vouch(facts, [states], pictures=digests)


def main(snakemake: Any) -> None:
    """Run as the script of the rule `encode_images`."""
    output, params = snakemake.output, snakemake.params
    with log_to(snakemake.log[0]), open_model([], **params.model, **params.place) as loaded:
        encode_shard(loaded, params.images, params.keep_pixels, output.states, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
