# The vanilla intervention: the source question's states in the base question's run.


rule patch_layer:
    input:
        model="results/model.json",
        images=encoded_pictures_of("safetensors"),
        states=clean_runs_of("results/states/{shard}.safetensors"),
        tokens="results/tokens/{shard}.csv",
        answers="results/answers/{shard}.csv",
        facts=facts_of_clean_runs,
    output:
        table="results/patching/{site}/layers_{layers}/{shard}.parquet",
        controls="results/controls/patching/{site}/layers_{layers}/{shard}.parquet",
        facts="results/patching/{site}/layers_{layers}/{shard}.json",
    log:
        "results/logs/patch_layer/{site}/layers_{layers}/{shard}.log",
    conda:
        "../../envs/model.yaml"
    resources:
        gpu=GPUS,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        rows=rows_of,
        unrelated=unrelated_to,
        site=lambda wildcards: SITES["patching"][wildcards.site],
        layers=lambda wildcards: LAYERS[wildcards.layers],
        model=model_contents,
        dtype=config["model"]["dtype"],
        code=code_of("patch_layer.py"),
    message:
        "patching layers {wildcards.layers}, {wildcards.site}, shard {PLACE:{wildcards.shard}}"
    script:
        "../scripts/patch_layer.py"
