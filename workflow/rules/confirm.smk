# Explore, then confirm: what the exploring half claims is on the disk before a job derives effects of
# the confirming half or writes a table of it (they wait for CLAIMS), and is tested there once. Jobs
# that run the model do not wait: other claims would have them measure the same again, and of jobs
# behind an `ancient` input Snakemake overlooks that they are stale where the input's job runs.

from blip_tracing.given.halves import CONFIRMING, EXPLORING

# What both halves are read with. The ledger is no job's output, so that no job deletes it.
CONFIRM_PARAMS = {
    "settings": config["analyses"]["confirm"],
    "experiments": {name: described(asked) for name, asked in PLAN.experiments.items()},
    "primary": PLAN.primary_levels,
    "rules": PLAN.effect_rules,
    "ledger": "results/ledger",
}


def of_half(half, folder, suffix):
    """A file of each shard of a half."""
    return collect(f"results/{folder}/{{shard}}.{suffix}", shard=PLAN.shards_of(half))


# Asked for by its name, it measures the exploring half alone.
rule claims:
    input:
        role_means=of_half(EXPLORING, "role_means", "parquet"),
        facts=of_half(EXPLORING, "effects", "json"),
    output:
        CLAIMS,
    log:
        "results/logs/claims.log",
    conda:
        "../../envs/tables.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        **CONFIRM_PARAMS,
        halves=PLAN.described_halves,
        configuration={
            key: config[key] for key in ("model", "runs", "experiments", "controls", "effects")
        },
        code=code_of("claims.py"),
    message:
        "writing what the exploring half claims"
    script:
        "../scripts/claims.py"


rule confirm:
    input:
        claims=CLAIMS,
        exploring=of_half(EXPLORING, "role_means", "parquet"),
        confirming=of_half(CONFIRMING, "role_means", "parquet"),
        facts=collect("results/effects/{shard}.json", shard=PLAN.shards),
    output:
        table=report(
            "results/tables/confirm.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "confirm"},
        ),
        verdicts=report(
            "results/tables/confirm_verdicts.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "confirm_verdicts"},
        ),
        halves=report(
            "results/tables/halves.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "halves"},
        ),
        facts="results/tables/confirm.provenance.json",
    log:
        "results/logs/confirm.log",
    conda:
        "../../envs/tables.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        **CONFIRM_PARAMS,
        code=code_of("confirm.py"),
    message:
        "testing the claims on the confirming half"
    script:
        "../scripts/confirm.py"
