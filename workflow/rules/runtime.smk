# Runtime: what every job took, collected from the benchmark files that Snakemake writes.


# Benchmark file → what its job wrote. Of a job that runs the model it is the facts, which name the
# device.
TIMED_ON_DEVICE = {
    f"results/benchmarks/{rule}/{part}.tsv": f"results/{folder}/{part}.json"
    for rule, folder, parts in [
        ("encode_images", "images", PICTURE_SHARDS),
        ("answer_baseline", "baseline", BASELINE_SHARDS),
        ("patch_layer", "patching", PATCHING_SHARDS),
        ("trace_noise", "tracing", TRACING_SHARDS),
    ]
    for part in parts
}
TIMED = {
    "results/benchmarks/tell_story.tsv": "reports/index.html",
    **{
        f"results/benchmarks/render_{name}.tsv": f"reports/{name}.html"
        for name in ["baseline", *EXPERIMENTS]
    },
}
if EXPERIMENTS:
    TIMED["results/benchmarks/summarize_effects.tsv"] = table("summary")
    TIMED |= {
        f"results/benchmarks/measure_effects/{part}.tsv": f"results/effects/{part}.json"
        for part in SHARDS
    }
if config["published"]:
    TIMED["results/benchmarks/compare_published.tsv"] = table("published")
    TIMED["results/benchmarks/render_replication.tsv"] = "reports/replication.html"


# Waits for what the jobs wrote and reads the benchmark files that are there. Were those its input,
# one that was deleted would be made again: by rerunning its job, the model's included.
rule collect_runtimes:
    input:
        facts=TIMED_ON_DEVICE.values(),
        others=TIMED.values(),
    output:
        "results/runtimes.csv",
    log:
        "results/logs/collect_runtimes.log",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        benchmarks=[*TIMED_ON_DEVICE, *TIMED],
        code=code_of("collect_runtimes.py"),
    message:
        "collecting what the jobs took"
    script:
        "../scripts/collect_runtimes.py"


rule render_runtime:
    input:
        notebook="workflow/notebooks/runtime.ipynb",
        table="results/runtimes.csv",
    output:
        notebook="reports/runtime.ipynb",
        page=page_in_report("runtime", caption="runtime"),
        figures=figures_in_report("runtime"),
    log:
        "results/logs/render_runtime.log",
    conda:
        "../../envs/report.yaml"
    params:
        parameters={"tables": {"runtimes": "results/runtimes.csv"}},
        n=len(EXAMPLES),
        code=[code_of("render_report.py"), code_of("../notebooks/runtime.ipynb")],
    message:
        "rendering the report of what the jobs took"
    script:
        "../scripts/render_report.py"
