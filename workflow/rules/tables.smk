# Collection: the shards' tables become whole tables, with their provenance beside them.


BASELINE_SHARDS = collect("{shard}", shard=SHARDS)
PATCHING_SHARDS = collect(
    "{site}/layers_{layers}/{shard}",
    site=config["patching"]["sites"],
    layers=LAYERS,
    shard=SHARDS,
)
TRACING_SHARDS = collect(
    "{site}/noise_{noise_levels}/{shard}",
    site=config["tracing"]["sites"],
    noise_levels=NOISE_LEVELS,
    shard=SHARDS,
)
# Nothing is restored, so the floor is the same at every site.
FLOOR_SHARDS = collect(
    "{site}/noise_{noise_levels}/{shard}",
    site=config["tracing"]["sites"][:1],
    noise_levels=NOISE_LEVELS,
    shard=SHARDS,
)
TABLES = {
    "baseline": ["baseline", "answers", "tokens"],
    "patching": ["patching"],
    "tracing": ["tracing", "floor"],
}


rule collect_baseline:
    input:
        baseline=collect("results/baseline/{part}.csv", part=BASELINE_SHARDS),
        answers=collect("results/answers/{part}.csv", part=BASELINE_SHARDS),
        tokens=collect("results/tokens/{part}.csv", part=BASELINE_SHARDS),
        facts=collect("results/baseline/{part}.json", part=BASELINE_SHARDS),
    output:
        baseline="results/tables/baseline.csv",
        answers="results/tables/answers.csv",
        tokens="results/tables/tokens.csv",
        facts="results/tables/baseline.provenance.json",
    log:
        "results/logs/collect_baseline.log",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        tables=TABLES["baseline"],
        examples=EXAMPLES,
        code=code_of("collect_tables.py"),
    message:
        "collecting the answers"
    script:
        "../scripts/collect_tables.py"


rule collect_patching:
    input:
        patching=collect("results/patching/{part}.csv", part=PATCHING_SHARDS),
        facts=collect("results/patching/{part}.json", part=PATCHING_SHARDS),
    output:
        patching="results/tables/patching.csv",
        facts="results/tables/patching.provenance.json",
    log:
        "results/logs/collect_patching.log",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        tables=TABLES["patching"],
        examples=EXAMPLES,
        code=code_of("collect_tables.py"),
    message:
        "collecting the patches"
    script:
        "../scripts/collect_tables.py"


rule collect_tracing:
    input:
        tracing=collect("results/tracing/{part}.csv", part=TRACING_SHARDS),
        floor=collect("results/floor/{part}.csv", part=FLOOR_SHARDS),
        facts=collect("results/tracing/{part}.json", part=TRACING_SHARDS),
    output:
        tracing="results/tables/tracing.csv",
        floor="results/tables/floor.csv",
        facts="results/tables/tracing.provenance.json",
    log:
        "results/logs/collect_tracing.log",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        tables=TABLES["tracing"],
        examples=EXAMPLES,
        code=code_of("collect_tables.py"),
    message:
        "collecting the traces"
    script:
        "../scripts/collect_tables.py"
