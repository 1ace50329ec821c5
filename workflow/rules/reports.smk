# Reports: papermill runs a notebook on the tables; figures are saved beside the page.


REPORTS = ["baseline", *EXPERIMENTS, "runtime"]
SHOWN_TABLES = {
    page: {name: table(name) for name in [*names, "answers", "tokens"]}
    for page, names in {
        "baseline": ["baseline"],
        "patching": ["patching"],
        "tracing": ["tracing", "floor", "summary"],
    }.items()
}
# What vouches for them.
SHOWN_FACTS = {
    page: collect("results/tables/{group}.provenance.json", group=groups)
    for page, groups in {
        "baseline": ["baseline"],
        "patching": ["baseline", "patching"],
        "tracing": ["baseline", "tracing", "summary"],
    }.items()
}


rule render_baseline:
    input:
        notebook="workflow/notebooks/baseline.ipynb",
        template="workflow/report/notebook.html.j2",
        tables=SHOWN_TABLES["baseline"].values(),
        facts=SHOWN_FACTS["baseline"],
        pictures=SHOWN_PICTURE_FILES,
        picture_facts=SHOWN_PICTURE_FACTS,
    output:
        notebook="reports/baseline.ipynb",
        page=page_in_report("baseline"),
        figures=figures_in_report("baseline"),
    log:
        "results/logs/render_baseline.log",
    conda:
        "../../envs/report.yaml"
    params:
        parameters={
            "tables": SHOWN_TABLES["baseline"],
            "examples": SHOWN,
            "pictures": SHOWN_PICTURES,
        },
        n=len(EXAMPLES),
        code=[code_of("render_report.py"), code_of("../notebooks/baseline.ipynb")],
    message:
        "rendering the report of the answers"
    script:
        "../scripts/render_report.py"


rule render_patching:
    input:
        notebook="workflow/notebooks/patching.ipynb",
        template="workflow/report/notebook.html.j2",
        tables=SHOWN_TABLES["patching"].values(),
        facts=SHOWN_FACTS["patching"],
    output:
        notebook="reports/patching.ipynb",
        page=page_in_report("patching"),
        figures=figures_in_report("patching"),
    log:
        "results/logs/render_patching.log",
    conda:
        "../../envs/report.yaml"
    params:
        parameters={"tables": SHOWN_TABLES["patching"], "examples": SHOWN},
        n=len(EXAMPLES),
        code=[code_of("render_report.py"), code_of("../notebooks/patching.ipynb")],
    message:
        "rendering the report of the patches"
    script:
        "../scripts/render_report.py"


rule render_tracing:
    input:
        notebook="workflow/notebooks/tracing.ipynb",
        template="workflow/report/notebook.html.j2",
        tables=SHOWN_TABLES["tracing"].values(),
        facts=SHOWN_FACTS["tracing"],
    output:
        notebook="reports/tracing.ipynb",
        page=page_in_report("tracing"),
        figures=figures_in_report("tracing"),
    log:
        "results/logs/render_tracing.log",
    conda:
        "../../envs/report.yaml"
    params:
        parameters={
            "tables": SHOWN_TABLES["tracing"],
            "examples": SHOWN,
            "draws_at": config["report"]["draws_at"],
        },
        n=len(EXAMPLES),
        code=[code_of("render_report.py"), code_of("../notebooks/tracing.ipynb")],
    message:
        "rendering the report of the traces"
    script:
        "../scripts/render_report.py"
