"""Test the exploring half's claims on the confirming half, once."""

from pathlib import Path
from typing import Any

import pandas as pd

from blip_tracing.given.claims import read_claims, record_test
from blip_tracing.given.halves import CONFIRMING, EXPLORING, HALVES
from blip_tracing.given.provenance import merge_facts, write_facts
from blip_tracing.machinery.files import check_files
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import write_table
from blip_tracing.meaning.analyses.confirm import confirm_claims, shrinkage, verdicts_of
from blip_tracing.meaning.evidence import Evidence


def main(snakemake: Any) -> None:
    """Write the three tables and their facts; the ledger has the test before its outcome is."""
    files, output, params = snakemake.input, snakemake.output, snakemake.params
    with log_to(snakemake.log[0]):
        sealed = read_claims(files.claims)
        check_files(files.facts, [*files.exploring, *files.confirming])
        halves = pd.DataFrame(sealed["halves"], columns=["example", "picture", "half"])
        pictures = {
            half: halves.loc[halves["half"] == half, "picture"].nunique() for half in HALVES
        }
        use = record_test(sealed, Path(params.ledger))
        explored, other = (Evidence.asked(params, files[half]) for half in (EXPLORING, CONFIRMING))
        claims, digest = sealed["claims"], sealed["digest"]
        table = confirm_claims(claims, other, use, digest)
        sizes = shrinkage(claims, explored, other)
        write_table(table, output.table)
        write_table(
            verdicts_of(table, use, sizes, pictures, sealed["why"], digest), output.verdicts
        )
        write_table(halves, output.halves)
        facts = merge_facts(files.facts, [output.table, output.verdicts, output.halves])
        write_facts({**facts, **params.rules, "claims": sealed}, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
