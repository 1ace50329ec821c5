"""Collect the shards' tables and facts into whole tables with their provenance beside them."""

from typing import Any

from blip_tracing.logs import log_to
from blip_tracing.provenance import merge_facts, write_facts
from blip_tracing.tables import concatenate, write_table


def main(snakemake: Any) -> None:
    """Write each table of the stage, in the sheet's order of examples, and its jobs' facts."""
    with log_to(snakemake.log[0]):
        for name in snakemake.params.tables:
            table = concatenate(snakemake.input[name], snakemake.params.examples)
            write_table(table, snakemake.output[name])
        write_facts(merge_facts(snakemake.input.facts), snakemake.output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
