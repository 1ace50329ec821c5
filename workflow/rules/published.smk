# Against what was published: each number beside the run's, a verdict on each quantity, a report.

from blip_tracing.published import check_run, figures_of, read_published

with ending_in_one_line():
    PUBLISHED = read_published(config["published"])
    check_run(PUBLISHED, config["published"], EXAMPLES, SITES)

PUBLISHED_EXAMPLES = list(PUBLISHED["example"].unique())
COMPARED_TABLES = ["answers", "tokens", "baseline", *EXPERIMENTS]
LABELS["replication"] = {
    f"replication_{figure}_{example}": {"example": example, "figure": figure.replace("_", " ")}
    for example in PUBLISHED_EXAMPLES
    for figure in figures_of(PUBLISHED, example)
}
FIGURES["replication"] = collect(
    "reports/figures/{stem}.{format}", stem=LABELS["replication"], format=FORMATS
)
REPLICATION = [
    *(table_in_report(name) for name in ("published", "verdicts")),
    "results/tables/published.provenance.json",
    "reports/replication.html",
    "reports/replication.ipynb",
    *FIGURES["replication"],
]


rule compare_published:
    input:
        **{name: table(name) for name in COMPARED_TABLES},
        published=ancient(config["published"]),
        facts=collect("results/tables/{group}.provenance.json", group=["baseline", *EXPERIMENTS]),
    output:
        published=table("published"),
        verdicts=table("verdicts"),
        facts="results/tables/published.provenance.json",
    log:
        "results/logs/compare_published.log",
    conda:
        "../../envs/tables.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        tables=COMPARED_TABLES,
        contents=contents_of(config["published"]),
        resamples=config["effects"]["resamples"],
        seed=config["tracing"]["seed"],
        code=code_of("compare_published.py"),
    message:
        "comparing with what was published"
    script:
        "../scripts/compare_published.py"


rule render_replication:
    input:
        notebook="workflow/notebooks/replication.ipynb",
        template="workflow/report/notebook.html.j2",
        tables=[table(name) for name in ["published", "verdicts", *COMPARED_TABLES]],
        facts=collect(
            "results/tables/{group}.provenance.json", group=["baseline", *EXPERIMENTS, "published"]
        ),
    output:
        notebook="reports/replication.ipynb",
        page=page_in_report("replication", caption="replication"),
        figures=figures_in_report("replication"),
    log:
        "results/logs/render_replication.log",
    conda:
        "../../envs/report.yaml"
    params:
        parameters={
            "tables": {name: table(name) for name in ["published", "verdicts", *COMPARED_TABLES]},
            "source": config["published"],
        },
        n=len(EXAMPLES),
        code=[code_of("render_report.py"), code_of("../notebooks/replication.ipynb")],
    message:
        "rendering the report of the replication"
    script:
        "../scripts/render_report.py"
