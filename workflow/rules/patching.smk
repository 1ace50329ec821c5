# The vanilla intervention: the source question's states in the base question's run.


rule patch_layer:
    input:
        model="results/model.json",
        images=encoded_pictures_of,
        states="results/states/{shard}.safetensors",
        tokens="results/tokens/{shard}.csv",
        answers="results/answers/{shard}.csv",
    output:
        table="results/patching/{site}/layers_{layers}/{shard}.csv",
        facts="results/patching/{site}/layers_{layers}/{shard}.json",
    log:
        "results/logs/patch_layer/{site}/layers_{layers}/{shard}.log",
    benchmark:
        "results/benchmarks/patch_layer/{site}/layers_{layers}/{shard}.tsv"
    conda:
        "../../envs/model.yaml"
    resources:
        gpu=GPUS,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        rows=rows_of,
        layers=lambda wildcards: LAYERS[wildcards.layers],
        dtype=config["model"]["dtype"],
        code=code_of("patch_layer.py"),
    message:
        "patching layer {wildcards.layers}, {wildcards.site}, shard {wildcards.shard}"
    script:
        "../scripts/patch_layer.py"
