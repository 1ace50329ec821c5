# Interventions: the states of an experiment's donor put into its receiver, cell by cell.


rule intervene:
    input:
        model="results/model.json",
        images=lambda wildcards: PLAN.picture_files(
            wildcards.shard, "safetensors", wildcards.experiment
        ),
        states=lambda wildcards: PLAN.clean_files(wildcards.shard, "states"),
        tokens=lambda wildcards: PLAN.token_files(wildcards.shard, wildcards.experiment),
        runs=lambda wildcards: PLAN.clean_files(wildcards.shard, "runs"),
        facts=lambda wildcards: PLAN.clean_facts(wildcards.shard, wildcards.experiment),
    output:
        table="results/cells/{experiment}/{part}/{shard}.parquet",
        controls="results/controls/{experiment}/{part}/{shard}.parquet",
        facts="results/cells/{experiment}/{part}/{shard}.json",
    log:
        "results/logs/intervene/{experiment}/{part}/{shard}.log",
    conda:
        "../../envs/model.yaml"
    resources:
        gpu=GPUS,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        rows=lambda wildcards: PLAN.shards[wildcards.shard],
        null=lambda wildcards: PLAN.null_of(wildcards.shard),
        null_pictures=lambda wildcards: PLAN.null_pictures(wildcards.experiment, wildcards.shard),
        experiment=lambda wildcards: PLAN.asked(wildcards.experiment, wildcards.part),
        layers=lambda wildcards: PLAN.parts[wildcards.experiment][wildcards.part].layers,
        metrics=config["metrics"],
        model=model_for("intervene.py"),
        place=place_of_model,
    message:
        "{wildcards.experiment}, {wildcards.part}, shard {wildcards.shard}"
    script:
        "../scripts/intervene.py"
