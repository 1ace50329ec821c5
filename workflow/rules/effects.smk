# Effects: what an intervention changes, cell by cell, and its means over examples with intervals.


rule measure_effects:
    input:
        tokens="results/tokens/{shard}.csv",
        baseline="results/baseline/{shard}.csv",
        runs=lambda wildcards: PLAN.run_files(wildcards.shard, "parquet"),
        cells=lambda wildcards: [
            path
            for parts in cell_parts(wildcards.shard).values()
            for paths in parts
            for path in paths
        ],
        facts=lambda wildcards: [
            *PLAN.run_files(wildcards.shard, "json"),
            *(
                path
                for name in PLAN.experiments
                for path in PLAN.cell_files(name, wildcards.shard, "cells", "json")
            ),
        ],
        claims=lambda wildcards: PLAN.claims_before(wildcards.shard),
    output:
        effects="results/effects/{shard}.parquet",
        role_means="results/role_means/{shard}.parquet",
        cell_means="results/cell_means/{shard}.parquet",
        excluded="results/excluded/{shard}.csv",
        facts="results/effects/{shard}.json",
    log:
        "results/logs/measure_effects/{shard}.log",
    # Two seconds: less than a scheduler needs to start it.
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        experiments={name: described(asked) for name, asked in PLAN.experiments.items()},
        cells=lambda wildcards: cell_parts(wildcards.shard),
        examples=lambda wildcards: PLAN.described_examples(wildcards.shard),
        primary=PLAN.primary_levels,
        roles=config["effects"]["roles"],
        boxes=PLAN.boxes,
        rules=PLAN.effect_rules,
        code=code_of("measure_effects.py"),
    message:
        "measuring the effects, shard {wildcards.shard}"
    script:
        "../scripts/measure_effects.py"


rule summarize_effects:
    input:
        role_means=collect("results/role_means/{shard}.parquet", shard=PLAN.shards),
        cell_means=collect("results/cell_means/{shard}.parquet", shard=PLAN.shards),
        runs=PLAN.table_parts("runs"),
        facts=[
            *collect("results/effects/{shard}.json", shard=PLAN.shards),
            *PLAN.table_facts("runs"),
        ],
    output:
        summary=report(
            "results/tables/summary.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "summary"},
        ),
        families=report(
            "results/tables/families.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "families"},
        ),
        negatives=report(
            "results/tables/negatives.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "negatives"},
        ),
        run_means=report(
            "results/tables/run_means.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "run_means"},
        ),
        facts="results/tables/summary.provenance.json",
    log:
        "results/logs/summarize_effects.log",
    conda:
        "../../envs/tables.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        n=len(PLAN.examples),
        experiments={name: described(asked) for name, asked in PLAN.experiments.items()},
        primary=PLAN.primary_levels,
        pictures=PLAN.units,
        runs=[described(run) for run in PLAN.averaged_runs],
        rules=PLAN.effect_rules,
        code=code_of("summarize_effects.py"),
    message:
        "averaging the effects over the examples"
    script:
        "../scripts/summarize_effects.py"
