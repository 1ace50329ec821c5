# All that runs the model as one job, where a sheet is one shard and each experiment one job: loading
# the libraries takes longer than a small model's work. It writes what the rules apart would write.

AT_ONCE = PLAN.job_files()


rule measure_at_once:
    input:
        model="results/model.json",
        pictures=[picture_input(image) for image in PLAN.picture_shards["0000"]],
    output:
        [path for step in ("images", "clean") for path in AT_ONCE[step].values()],
        [
            path
            for step in ("runs", "cells")
            for files in AT_ONCE[step].values()
            for path in files.values()
        ],
    log:
        "results/logs/measure_at_once.log",
    conda:
        "../../envs/model.yaml"
    resources:
        gpu=GPUS,
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        images=lambda wildcards: picture_contents(PLAN.picture_shards["0000"]),
        keep_pixels=PLAN.keeps_pixels,
        rows=PLAN.shards["0000"],
        null=PLAN.null_of("0000"),
        null_pictures={name: PLAN.null_pictures(name, "0000") for name in PLAN.experiments},
        runs={name: described(run) for name, run in PLAN.corrupted.items()},
        experiments={
            name: PLAN.asked(name, part) for name, parts in PLAN.parts.items() for part in parts
        },
        layers={name: part.layers for name, parts in PLAN.parts.items() for part in parts.values()},
        metrics=config["metrics"],
        files=AT_ONCE,
        model=model_for("measure_at_once.py"),
        place=place_of_model,
    message:
        "encoding, answering and intervening"
    script:
        "../scripts/measure_at_once.py"
