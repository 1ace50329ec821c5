# Baseline QA: each question answered with no intervention; the states that patches resume from.


rule answer_baseline:
    input:
        model="results/model.json",
        images=encoded_pictures_of("safetensors"),
        facts=encoded_pictures_of("json"),
    output:
        baseline="results/baseline/{shard}.csv",
        answers="results/answers/{shard}.csv",
        tokens="results/tokens/{shard}.csv",
        states="results/states/{shard}.safetensors",
        facts="results/baseline/{shard}.json",
    log:
        "results/logs/answer_baseline/{shard}.log",
    conda:
        "../../envs/model.yaml"
    resources:
        gpu=GPUS,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        rows=rows_of,
        model=model_contents,
        dtype=config["model"]["dtype"],
        code=code_of("answer_baseline.py"),
    message:
        "answering the questions, shard {PLACE:{wildcards.shard}}"
    script:
        "../scripts/answer_baseline.py"
