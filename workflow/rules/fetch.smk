# What comes from outside: the model and the pictures.


rule fetch_model:
    input:
        # Their contents decide, as a parameter.
        ancient(checkpoint_files(MODEL)) if is_local(MODEL) else [],
    output:
        "results/model.json",
    log:
        "results/logs/fetch_model.log",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        # Functions, since the linter takes a literal for the prefix of an input file.
        name=lambda wildcards: MODEL,
        revision=lambda wildcards: config["model"]["revision"],
        contents=model_contents,
    message:
        "fetching {params.name} and checking the sheet against it"
    script:
        "../scripts/fetch_model.py"


rule fetch_image:
    output:
        "results/pictures/{picture}",
    log:
        "results/logs/fetch_image/{picture}.log",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        url=lambda wildcards: PLAN.remote_pictures[wildcards.picture],
        sha256=lambda wildcards: PLAN.checksums[PLAN.remote_pictures[wildcards.picture]],
    message:
        "fetching {params.url}"
    script:
        "../scripts/fetch_image.py"
