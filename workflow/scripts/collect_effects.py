"""Collect the shards' effects, without marks where an experiment's negative controls got them."""

from typing import Any

import pandas as pd
from collect_table import by_shard

from blip_tracing.given.provenance import merge_facts, write_facts
from blip_tracing.machinery.files import check_files
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import collect_tables, read_table


def withheld(effects: pd.DataFrame, negatives: pd.DataFrame) -> pd.DataFrame:
    """The effects, none of them marked of an experiment that has an exceeded negative control."""
    exceeded = negatives.loc[negatives["exceeded"].astype(bool), "experiment"]
    kept = effects["marked"].astype(bool) & ~effects["experiment"].isin(exceeded)
    return effects.assign(marked=kept)


def main(snakemake: Any) -> None:
    """Write the table, in the sheet's order of examples, and its jobs' facts."""
    files, output = snakemake.input, snakemake.output
    with log_to(snakemake.log[0]):
        check_files([*files.facts, files.summary_facts], [*files.parts, files.negatives])
        negatives = read_table(files.negatives)
        collect_tables(
            by_shard(files.parts),
            snakemake.params.orders,
            output.table,
            lambda effects: withheld(effects, negatives),
        )
        write_facts(merge_facts(files.facts, [output.table]), output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
