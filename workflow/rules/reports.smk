# Reports: papermill runs a notebook on the tables; figures are saved beside the page. What of all
# this Snakemake's own report shows (`snakemake --report report.zip`) is marked here too.


from blip_tracing.vocabulary.experiment import BY_ROLE
from blip_tracing.meaning.roles import role_names
from blip_tracing.vocabulary.views import is_drawn_over_picture


# The report's first page.
report: "../report/workflow.rst"


SHOWN = [row["example"] for row in PLAN.shown]
SHOWN_PICTURES = {row["example"]: picture_path(row["image"]) for row in PLAN.shown}
SHOWN_SOURCES = {
    row["example"]: picture_path(row["source_image"])
    for row in PLAN.shown
    if row.get("source_image")
}
# Of these pictures: as inputs, and the facts that say which pictures were answered about.
SHOWN_PICTURE_FILES = [picture_input(row["image"]) for row in PLAN.shown] + [
    picture_input(row["source_image"]) for row in PLAN.shown if row.get("source_image")
]
SHOWN_PICTURE_FACTS = PLAN.picture_facts(PLAN.shown)
ROLE_NAMES = dict(role_names(config["effects"]["roles"], PLAN.boxes))
# In order, of all towers.
ROLES = list(dict.fromkeys(role for names in ROLE_NAMES.values() for role in names))
PARAMETERS = {
    "baseline": {"examples": SHOWN, "pictures": SHOWN_PICTURES},
    "replication": REPLICATION if config["published"] else {},
    **{
        name: {
            "examples": SHOWN,
            "draws_at": config["report"]["draws_at"],
            "experiment": described(asked),
            **(
                {"pictures": SHOWN_PICTURES, "source_pictures": SHOWN_SOURCES}
                if any(is_drawn_over_picture(asked, site) for site in asked.sites)
                else {}
            ),
            # By which positions that are put in together are numbered.
            **({"roles": ROLE_NAMES} if asked.positions == BY_ROLE else {}),
        }
        for name, asked in PLAN.experiments.items()
    },
    **{
        name: {
            "settings": config["analyses"][name],
            "roles": ROLES,
            "experiments": {name: described(asked) for name, asked in PLAN.experiments.items()},
            **({"examples": SHOWN} if analysis.reads else {}),
        }
        for name, analysis in PLAN.analyses.items()
    },
}


# The pages that show pictures.
PICTURED = [page for page, given in PARAMETERS.items() if "pictures" in given]


rule render:
    input:
        notebook=notebook_of,
        template=own("report/notebook.html.j2"),
        shown=own("report/shown.html.j2"),
        tables=lambda wildcards: map(PLAN.table, PLAN.pages[wildcards.page].tables),
        facts=lambda wildcards: PLAN.facts(PLAN.pages[wildcards.page].tables),
        pictures=lambda wildcards: SHOWN_PICTURE_FILES if wildcards.page in PICTURED else [],
        picture_facts=lambda wildcards: SHOWN_PICTURE_FACTS if wildcards.page in PICTURED else [],
    output:
        notebook="reports/{page}.ipynb",
        page=report(
            "reports/{page}.html",
            caption="../report/page.rst",
            category="Reports",
            labels={"report": "{page}"},
        ),
        # PNG: in an SVG a browser that lacks the figures' font sets the text in another.
        figures=report(
            directory("reports/figures/{page}"),
            patterns=["{figure}.png"],
            caption="../report/figure.rst",
            category="Figures",
            subcategory="{page}",
            labels={"figure": "{figure}"},
        ),
    log:
        "results/logs/render/{page}.log",
    wildcard_constraints:
        page=one_of(PLAN.pages),
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        parameters=lambda wildcards: {
            **PARAMETERS[wildcards.page],
            "scripts": own("scripts"),
            "tables": {name: PLAN.table(name) for name in PLAN.pages[wildcards.page].tables},
            "figures": f"reports/figures/{wildcards.page}",
        },
        n=len(PLAN.examples),
        code=lambda wildcards: [
            code_of("render_report.py"),
            code_digest(notebook_of(wildcards)),
        ],
    message:
        "rendering the report {wildcards.page}"
    script:
        "../scripts/render_report.py"


use rule render as render_runtime with:
    input:
        notebook=own("notebooks/runtime.ipynb"),
        template=own("report/notebook.html.j2"),
        tables=["results/runtimes.csv"],
        facts=["results/runtimes.provenance.json"],
    output:
        notebook="reports/runtime.ipynb",
        page=report(
            "reports/runtime.html",
            caption="../report/runtime.rst",
            category="Reports",
            labels={"report": "runtime"},
        ),
        figures=report(
            directory("reports/figures/runtime"),
            patterns=["{figure}.png"],
            caption="../report/runtime.rst",
            category="Figures",
            subcategory="runtime",
            labels={"figure": "{figure}"},
        ),
    log:
        "results/logs/render_runtime.log",
    params:
        parameters={
            "tables": {"runtimes": "results/runtimes.csv"},
            "figures": "reports/figures/runtime",
            "scripts": own("scripts"),
        },
        n=len(PLAN.examples),
        code=[code_of("render_report.py"), code_digest(own("notebooks/runtime.ipynb"))],
    message:
        "rendering the report of what the jobs took"
