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
CONTROL_SHARDS = [
    *collect("patching/{part}", part=PATCHING_SHARDS),
    *collect("tracing/{part}", part=TRACING_SHARDS),
]
TABLES = {
    "baseline": ["baseline", "answers", "tokens"],
    "patching": ["patching"],
    "tracing": ["tracing", "floor"],
    "controls": ["controls"],
    "effects": ["effects", "excluded"],
    "summary": ["summary"],
}
# An experiment without a site has no tables, and without an experiment there are no effects.
EXPERIMENTS = [name for name, sites in SITES.items() if sites]
COLLECTED = ["baseline", *EXPERIMENTS]
if EXPERIMENTS:
    COLLECTED += ["controls", "effects", "summary"]


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
        patching=collect("results/patching/{part}.parquet", part=PATCHING_SHARDS),
        facts=collect("results/patching/{part}.json", part=PATCHING_SHARDS),
    output:
        patching=table("patching"),
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
        tracing=collect("results/tracing/{part}.parquet", part=TRACING_SHARDS),
        floor=collect("results/floor/{part}.parquet", part=FLOOR_SHARDS),
        facts=collect("results/tracing/{part}.json", part=TRACING_SHARDS),
    output:
        tracing=table("tracing"),
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


rule collect_controls:
    input:
        controls=collect("results/controls/{part}.parquet", part=CONTROL_SHARDS),
        facts=collect("results/{part}.json", part=CONTROL_SHARDS),
    output:
        controls=table("controls"),
        facts="results/tables/controls.provenance.json",
    log:
        "results/logs/collect_controls.log",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        tables=TABLES["controls"],
        examples=EXAMPLES,
        code=code_of("collect_tables.py"),
    message:
        "collecting the controls"
    script:
        "../scripts/collect_tables.py"


rule collect_effects:
    input:
        effects=collect("results/effects/{part}.parquet", part=SHARDS),
        excluded=collect("results/excluded/{part}.csv", part=SHARDS),
        facts=collect("results/effects/{part}.json", part=SHARDS),
    output:
        effects=table("effects"),
        excluded=table("excluded"),
        facts="results/tables/effects.provenance.json",
    log:
        "results/logs/collect_effects.log",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        tables=TABLES["effects"],
        examples=EXAMPLES,
        code=code_of("collect_tables.py"),
    message:
        "collecting the effects"
    script:
        "../scripts/collect_tables.py"
