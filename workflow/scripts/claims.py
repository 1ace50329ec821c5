"""Write what the exploring half claims, before the confirming half is measured."""

from pathlib import Path
from typing import Any

from blip_tracing.given.claims import digest_of, read_claims, record_claims, write_claims
from blip_tracing.given.halves import CONFIRMING
from blip_tracing.given.provenance import merge_facts
from blip_tracing.machinery.files import check_files
from blip_tracing.machinery.logs import log_to
from blip_tracing.meaning.analyses.confirm import draw_claims, why_nothing
from blip_tracing.meaning.evidence import Evidence

MODEL = ("model", "revision", "commit", "weights_sha256", "settings_sha256")


def main(snakemake: Any) -> None:
    """Write the claims, and note in the ledger what they were drawn from."""
    files, params = snakemake.input, snakemake.params
    with log_to(snakemake.log[0]):
        check_files(files.facts, files.role_means)
        evidence = Evidence.asked(params, files.role_means)
        others = len({unit for _, unit, half in params.halves if half == CONFIRMING})
        claims = draw_claims(evidence, others)
        facts = merge_facts(files.facts, files.role_means)
        sealed = {
            "claims": claims,
            "why": "" if claims else why_nothing(evidence),
            "halves": params.halves,
            "rules": params.rules,
            "settings": params.settings,
            "configuration": digest_of(params.configuration),
            "code": params.code,
            **{key: facts[key] for key in MODEL},
            "files": facts["files"],
        }
        write_claims(sealed, snakemake.output[0])
        record_claims(read_claims(snakemake.output[0]), Path(params.ledger))


if "snakemake" in globals():
    main(globals()["snakemake"])
