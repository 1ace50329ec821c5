# What comes from outside: the model, the pictures, and the pictures' states.


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
        url=lambda wildcards: REMOTE_PICTURES[wildcards.picture]["image"],
        sha256=lambda wildcards: REMOTE_PICTURES[wildcards.picture]["image_sha256"],
    message:
        "fetching {params.url}"
    script:
        "../scripts/fetch_image.py"


rule encode_images:
    input:
        model="results/model.json",
        pictures=lambda wildcards: [
            picture_input(image) for image in PICTURE_SHARDS[wildcards.shard]
        ],
    output:
        states="results/images/{shard}.safetensors",
        facts="results/images/{shard}.json",
    log:
        "results/logs/encode_images/{shard}.log",
    conda:
        "../../envs/model.yaml"
    resources:
        gpu=GPUS,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        images=lambda wildcards: PICTURE_SHARDS[wildcards.shard],
        contents=picture_contents,
        model=model_contents,
        dtype=config["model"]["dtype"],
        code=code_of("encode_images.py"),
    message:
        "encoding pictures, shard {PICTURE_PLACE:{wildcards.shard}}"
    script:
        "../scripts/encode_images.py"
