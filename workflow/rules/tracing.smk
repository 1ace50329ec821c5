# Causal tracing: noise at the first block's input, the clean state restored cell by cell.


rule trace_noise:
    input:
        model="results/model.json",
        images=encoded_pictures_of("safetensors"),
        states=clean_runs_of("results/states/{shard}.safetensors"),
        tokens="results/tokens/{shard}.csv",
        answers="results/answers/{shard}.csv",
        facts=facts_of_clean_runs,
    output:
        table="results/tracing/{site}/noise_{noise_levels}/{shard}.parquet",
        floor="results/floor/{site}/noise_{noise_levels}/{shard}.parquet",
        controls="results/controls/tracing/{site}/noise_{noise_levels}/{shard}.parquet",
        facts="results/tracing/{site}/noise_{noise_levels}/{shard}.json",
    log:
        "results/logs/trace_noise/{site}/noise_{noise_levels}/{shard}.log",
    conda:
        "../../envs/model.yaml"
    resources:
        gpu=GPUS,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        rows=rows_of,
        unrelated=unrelated_to,
        site=lambda wildcards: SITES["tracing"][wildcards.site],
        noise_levels=lambda wildcards: NOISE_LEVELS[wildcards.noise_levels],
        samples=config["tracing"]["samples"],
        null_samples=config["controls"]["null_samples"],
        seed=config["tracing"]["seed"],
        model=model_contents,
        dtype=config["model"]["dtype"],
        code=code_of("trace_noise.py"),
    message:
        "tracing noise levels {wildcards.noise_levels}, {wildcards.site}, shard {PLACE:{wildcards.shard}}"
    script:
        "../scripts/trace_noise.py"
