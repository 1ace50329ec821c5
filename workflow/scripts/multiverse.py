"""Collect the experiments' universes, and conclude what all of them find."""

from typing import Any

from blip_tracing.given.provenance import merge_facts, write_facts
from blip_tracing.machinery.files import check_files
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import read_table, write_table
from blip_tracing.meaning.analyses.multiverse import conclude


def main(snakemake: Any) -> None:
    """Write the analysis's two tables and their facts."""
    files, output = snakemake.input, snakemake.output
    with log_to(snakemake.log[0]):
        check_files([*files.facts, files.summary_facts], [*files.universes, files.negatives])
        universes = [read_table(path) for path in files.universes]
        tables = conclude(universes, read_table(files.negatives))
        for path, table in zip(output[:2], tables, strict=True):
            write_table(table, path)
        write_facts(merge_facts(files.facts, output[:2]), output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
