# Runtime: what every job took, collected from what each left beside its log.


# Job's log → what the job wrote. Of a job that runs the model it is the facts, which name the
# device.
TIMED_ON_DEVICE = {
    f"results/logs/{rule}/{part}.log": f"results/{folder}/{part}.json"
    for rule, folder, parts in [
        ("encode_images", "images", PICTURE_SHARDS),
        ("answer_baseline", "baseline", BASELINE_SHARDS),
        ("patch_layer", "patching", PATCHING_SHARDS),
        ("trace_noise", "tracing", TRACING_SHARDS),
    ]
    for part in parts
}
TIMED = {
    "results/logs/fetch_model.log": "results/model.json",
    **{
        f"results/logs/fetch_image/{picture}.log": f"results/pictures/{picture}"
        for picture in REMOTE_PICTURES
    },
    "results/logs/tell_story.log": "reports/index.html",
    **{
        f"results/logs/render_{name}.log": f"reports/{name}.html"
        for name in ["baseline", *EXPERIMENTS]
    },
    **{
        f"results/logs/collect_{group}.log": f"results/tables/{group}.provenance.json"
        for group in COLLECTED
        if group != "summary"
    },
}
if EXPERIMENTS:
    TIMED["results/logs/summarize_effects.log"] = table("summary")
    TIMED |= {
        f"results/logs/measure_effects/{part}.log": f"results/effects/{part}.json"
        for part in SHARDS
    }
if config["published"]:
    TIMED["results/logs/compare_published.log"] = table("published")
    TIMED["results/logs/render_replication.log"] = "reports/replication.html"


# Waits for what the jobs wrote and reads what is there beside their logs. Were that its input, a
# file that was deleted would be made again: by rerunning its job, the model's included.
rule collect_runtimes:
    input:
        facts=TIMED_ON_DEVICE.values(),
        others=TIMED.values(),
    output:
        table="results/runtimes.csv",
        facts="results/runtimes.provenance.json",
    log:
        "results/logs/collect_runtimes.log",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        logs=[*TIMED_ON_DEVICE, *TIMED],
        code=code_of("collect_runtimes.py"),
    message:
        "collecting what the jobs took"
    script:
        "../scripts/collect_runtimes.py"


rule render_runtime:
    input:
        notebook="workflow/notebooks/runtime.ipynb",
        template="workflow/report/notebook.html.j2",
        tables=["results/runtimes.csv"],
        facts=["results/runtimes.provenance.json"],
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
