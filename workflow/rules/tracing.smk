# Causal tracing: noise at the first block's input, the clean state restored cell by cell.


rule trace_noise:
    input:
        model="results/model.json",
        images=encoded_pictures_of,
        states="results/states/{shard}.safetensors",
        tokens="results/tokens/{shard}.csv",
        answers="results/answers/{shard}.csv",
    output:
        table="results/tracing/{site}/noise_{noise_levels}/{shard}.csv",
        floor="results/floor/{site}/noise_{noise_levels}/{shard}.csv",
        facts="results/tracing/{site}/noise_{noise_levels}/{shard}.json",
    log:
        "results/logs/trace_noise/{site}/noise_{noise_levels}/{shard}.log",
    benchmark:
        "results/benchmarks/trace_noise/{site}/noise_{noise_levels}/{shard}.tsv"
    conda:
        "../../envs/model.yaml"
    resources:
        gpu=GPUS,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        rows=rows_of,
        noise_levels=lambda wildcards: NOISE_LEVELS[wildcards.noise_levels],
        samples=config["tracing"]["samples"],
        seed=config["tracing"]["seed"],
        dtype=config["model"]["dtype"],
        code=code_of("trace_noise.py"),
    message:
        "tracing noise level {wildcards.noise_levels}, {wildcards.site}, shard {wildcards.shard}"
    script:
        "../scripts/trace_noise.py"
