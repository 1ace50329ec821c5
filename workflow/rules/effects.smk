# Effects: what an intervention changes, cell by cell, and its means over examples with intervals.


# What one shard's experiments wrote: site after site, job after job.
PATCHING_PARTS = collect(
    "{site}/layers_{layers}/{{shard}}", site=config["patching"]["sites"], layers=LAYERS
)
TRACING_PARTS = collect(
    "{site}/noise_{noise_levels}/{{shard}}",
    site=config["tracing"]["sites"],
    noise_levels=NOISE_LEVELS,
)


rule measure_effects:
    input:
        answers="results/answers/{shard}.csv",
        tokens="results/tokens/{shard}.csv",
        patching=collect("results/patching/{part}.parquet", part=PATCHING_PARTS),
        patching_controls=collect("results/controls/patching/{part}.parquet", part=PATCHING_PARTS),
        tracing=collect("results/tracing/{part}.parquet", part=TRACING_PARTS),
        tracing_controls=collect("results/controls/tracing/{part}.parquet", part=TRACING_PARTS),
        # Of the first site: nothing is restored, so the floor is the same at every site.
        floor=collect("results/floor/{part}.parquet", part=TRACING_PARTS[: len(NOISE_LEVELS)]),
        facts=[
            "results/baseline/{shard}.json",
            *collect("results/patching/{part}.json", part=PATCHING_PARTS),
            *collect("results/tracing/{part}.json", part=TRACING_PARTS),
        ],
    output:
        effects="results/effects/{shard}.parquet",
        role_means="results/role_means/{shard}.parquet",
        excluded="results/excluded/{shard}.csv",
        facts="results/effects/{shard}.json",
    log:
        "results/logs/measure_effects/{shard}.log",
    # Two seconds: less than a scheduler needs to start it.
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        roles=config["effects"]["roles"],
        total_effect=config["effects"]["total_effect"],
        code=code_of("measure_effects.py"),
    message:
        "measuring the effects, shard {PLACE:{wildcards.shard}}"
    script:
        "../scripts/measure_effects.py"


rule summarize_effects:
    input:
        role_means=collect("results/role_means/{shard}.parquet", shard=SHARDS),
        facts=collect("results/effects/{shard}.json", shard=SHARDS),
    output:
        summary="results/tables/summary.csv",
        facts="results/tables/summary.provenance.json",
    log:
        "results/logs/summarize_effects.log",
    conda:
        "../../envs/tables.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        resamples=config["effects"]["resamples"],
        seed=config["tracing"]["seed"],
        code=code_of("summarize_effects.py"),
    message:
        "averaging the effects over the examples"
    script:
        "../scripts/summarize_effects.py"
