"""Answer a question about several experiments: its table, and what is concluded from it."""

from importlib import import_module
from typing import Any

import pandas as pd

from blip_tracing.given.provenance import merge_facts, write_facts
from blip_tracing.machinery.files import check_files
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import read_table, write_table
from blip_tracing.meaning.evidence import Evidence


def main(snakemake: Any) -> None:
    """Write the analysis's two tables and their facts."""
    files, output, params = snakemake.input, snakemake.output, snakemake.params
    with log_to(snakemake.log[0]):
        check_files(files.facts, [*files.role_means, *files.cell_means, *files.runs])
        runs = pd.concat([read_table(path) for path in files.runs], ignore_index=True)
        evidence = Evidence.asked(params, files.role_means, files.cell_means, runs)
        # The rule's parameters have the digest of the module that is chosen here.
        module = import_module(f"blip_tracing.meaning.analyses.{snakemake.wildcards.analysis}")
        for path, table in zip(output[:2], module.analyse(evidence), strict=True):
            write_table(table, path)
        facts = merge_facts(files.facts, output[:2])
        write_facts({**facts, **params.rules, "settings": params.settings}, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
