"""Find the model, fetching it where it is on the Hub, and check the inputs against it."""

import logging
from typing import Any

from blip_tracing.given.checkpoint import Checkpoint, resolve
from blip_tracing.given.checks import check_against_checkpoint
from blip_tracing.given.sheet import load_sheet
from blip_tracing.machinery.logs import log_to

logger = logging.getLogger(__name__)


def fetch_model(name: str, revision: str, config: dict[str, Any], sheet_path: str) -> Checkpoint:
    """The model, once configuration and sheet agree with it; unknown words are logged.

    A Hub model is not there while the graph is planned: this is the first that can be checked.
    Raises InputError when the model cannot be had or the inputs do not fit it.
    """
    checkpoint = resolve(name, revision)
    logger.info("%s is in %s", name, checkpoint.directory)
    sheet = load_sheet(sheet_path)
    for warning in check_against_checkpoint(config, sheet, checkpoint.directory, sheet_path):
        logger.warning(warning)
    return checkpoint


def main(snakemake: Any) -> None:
    """Run as the script of rule `fetch_model`."""
    with log_to(snakemake.log[0]):
        params = snakemake.params
        checkpoint = fetch_model(
            params.name, params.revision, snakemake.config, snakemake.config["examples"]
        )
        checkpoint.to_json(snakemake.output[0])


if "snakemake" in globals():
    main(globals()["snakemake"])
