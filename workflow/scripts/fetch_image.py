"""Fetch one picture by its address."""

from typing import Any

from blip_tracing.given.downloads import download_picture
from blip_tracing.machinery.logs import log_to


def main(snakemake: Any) -> None:
    """Run as the script of rule `fetch_image`."""
    with log_to(snakemake.log[0]):
        download_picture(snakemake.params.url, snakemake.output[0], snakemake.params.sha256)


if "snakemake" in globals():
    main(globals()["snakemake"])
