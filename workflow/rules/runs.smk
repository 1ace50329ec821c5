# Runs without an intervention: the clean ones, from which all resume, and the corrupted ones.


rule encode_images:
    input:
        model="results/model.json",
        pictures=lambda wildcards: [
            picture_input(image) for image in PLAN.picture_shards[wildcards.shard]
        ],
    output:
        **{name: f"results/images/{{shard}}.{suffix}" for name, suffix in IMAGES.items()},
    log:
        "results/logs/encode_images/{shard}.log",
    conda:
        "../../envs/model.yaml"
    resources:
        gpu=GPUS,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        images=lambda wildcards: picture_contents(PLAN.picture_shards[wildcards.shard]),
        keep_pixels=PLAN.keeps_pixels,
        model=model_for("encode_images.py"),
        place=place_of_model,
    message:
        "encoding pictures, shard {wildcards.shard}"
    script:
        "../scripts/encode_images.py"


rule answer_questions:
    input:
        model="results/model.json",
        images=lambda wildcards: PLAN.picture_files(wildcards.shard, "safetensors"),
        facts=lambda wildcards: PLAN.picture_files(wildcards.shard, "json"),
    output:
        **CLEAN_FILES,
    log:
        "results/logs/answer_questions/{shard}.log",
    conda:
        "../../envs/model.yaml"
    resources:
        gpu=GPUS,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        rows=lambda wildcards: PLAN.shards[wildcards.shard],
        metrics=config["metrics"],
        model=model_for("answer_questions.py"),
        place=place_of_model,
    message:
        "answering the questions, shard {wildcards.shard}"
    script:
        "../scripts/answer_questions.py"


rule run_corrupted:
    input:
        model="results/model.json",
        images=lambda wildcards: PLAN.picture_files(wildcards.shard, "safetensors"),
        states=["results/clean/{shard}.safetensors"],
        tokens=lambda wildcards: PLAN.corrupted_token_files(wildcards.shard, wildcards.run),
        runs=["results/runs/clean/{shard}.parquet"],
        facts=lambda wildcards: [
            *PLAN.picture_files(wildcards.shard, "json"),
            *PLAN.corrupted_token_files(wildcards.shard, wildcards.run, "facts"),
        ],
    output:
        table="results/runs/{run}/{shard}.parquet",
        facts="results/runs/{run}/{shard}.json",
    log:
        "results/logs/run_corrupted/{run}/{shard}.log",
    conda:
        "../../envs/model.yaml"
    resources:
        gpu=GPUS,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        rows=lambda wildcards: PLAN.shards[wildcards.shard],
        run=lambda wildcards: described(PLAN.corrupted[wildcards.run]),
        metrics=config["metrics"],
        model=model_for("run_corrupted.py"),
        place=place_of_model,
    message:
        "running {wildcards.run}, nothing put in, shard {wildcards.shard}"
    script:
        "../scripts/run_corrupted.py"
