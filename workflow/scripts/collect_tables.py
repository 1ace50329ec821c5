"""Collect the shards' tables and facts into whole tables with their provenance beside them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from blip_tracing.files import check_files
from blip_tracing.logs import log_to
from blip_tracing.provenance import merge_facts, write_facts
from blip_tracing.tables import collect_tables


def by_shard(paths: Iterable[str]) -> list[list[str]]:
    """The files of one shard after the other, in their order; a file is called by its shard."""
    shards: dict[str, list[str]] = {}
    for path in paths:
        shards.setdefault(Path(path).stem, []).append(path)
    return list(shards.values())


def main(snakemake: Any) -> None:
    """Write each table of the stage, in the sheet's order of examples, and its jobs' facts."""
    files, output, params = snakemake.input, snakemake.output, snakemake.params
    with log_to(snakemake.log[0]):
        check_files(files.facts, [path for name in params.tables for path in files[name]])
        for name in params.tables:
            collect_tables(by_shard(files[name]), params.examples, output[name])
        facts = merge_facts(files.facts, [output[name] for name in params.tables])
        write_facts(facts, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
