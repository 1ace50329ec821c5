"""Collect the shards' parts of a table into the whole table, with its provenance beside it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from blip_tracing.given.provenance import merge_facts, write_facts
from blip_tracing.machinery.files import check_files
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import collect_tables


def by_shard(paths: Iterable[str]) -> list[list[str]]:
    """The files of one shard after the other, in their order; a file is called by its shard."""
    shards: dict[str, list[str]] = {}
    for path in paths:
        shards.setdefault(Path(path).stem, []).append(path)
    return list(shards.values())


def main(snakemake: Any) -> None:
    """Write the table, in the sheet's order of examples, and its jobs' facts."""
    files, output = snakemake.input, snakemake.output
    with log_to(snakemake.log[0]):
        check_files(files.facts, files.parts)
        collect_tables(by_shard(files.parts), snakemake.params.orders, output.table)
        write_facts(merge_facts(files.facts, [output.table]), output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
