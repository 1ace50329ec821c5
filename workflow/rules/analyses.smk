# Analyses: what several experiments together say. Each is a module of the library's
# `meaning/analyses` and a group of the configuration's `analyses`. Some have rules of their own.


rule analyse:
    input:
        role_means=collect("results/role_means/{shard}.parquet", shard=PLAN.shards),
        cell_means=collect("results/cell_means/{shard}.parquet", shard=PLAN.shards),
        runs=PLAN.table_parts("runs"),
        facts=[
            *collect("results/effects/{shard}.json", shard=PLAN.shards),
            *PLAN.table_facts("runs"),
        ],
    output:
        table=report(
            "results/tables/{analysis}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{analysis}"},
        ),
        verdicts=report(
            "results/tables/{analysis}_verdicts.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{analysis}_verdicts"},
        ),
        facts="results/tables/{analysis}.provenance.json",
    log:
        "results/logs/analyse/{analysis}.log",
    wildcard_constraints:
        analysis=one_of(name for name, each in PLAN.analyses.items() if not each.own_rules),
    conda:
        "../../envs/tables.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        settings=lambda wildcards: config["analyses"][wildcards.analysis],
        experiments={name: described(asked) for name, asked in PLAN.experiments.items()},
        primary=PLAN.primary_levels,
        rules=PLAN.effect_rules,
        code=lambda wildcards: [
            code_of("analyse.py"),
            code_of(f"blip_tracing/meaning/analyses/{wildcards.analysis}.py"),
        ],
    message:
        "analysing the effects: {wildcards.analysis}"
    script:
        "../scripts/analyse.py"
