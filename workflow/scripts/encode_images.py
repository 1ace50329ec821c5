"""Encode a shard of pictures once: the vision model's last states, one tensor a picture."""

from collections.abc import Mapping
from typing import Any

from blip_tracing.errors import InputError
from blip_tracing.files import sha256_of
from blip_tracing.logs import log_to
from blip_tracing.model import encode_pictures, model_of, name_device
from blip_tracing.pictures import open_picture, picture_path
from blip_tracing.provenance import describe_job, write_facts
from blip_tracing.tensors import write_tensors


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


def main(snakemake: Any) -> None:
    """Write states (S, D) under each picture's name in the sheet."""
    output, params = snakemake.output, snakemake.params
    with log_to(snakemake.log[0]), model_of(snakemake) as (checkpoint, model):
        paths = {image: picture_path(image) for image in params.images}
        pictures = (open_picture(path) for path in paths.values())
        states = encode_pictures(model, checkpoint.directory, pictures)
        write_tensors(dict(zip(paths, states, strict=True)), output.states)
        digests = {image: sha256_of([path]) for image, path in paths.items()}
        check_expected(digests, params.contents)
        facts = describe_job(
            checkpoint,
            name_device(model.device),
            params.dtype,
            params.code,
            [output.states],
            pictures=digests,
        )
        write_facts(facts, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
