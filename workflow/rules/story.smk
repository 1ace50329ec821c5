# The story: one page that tells the whole run, with everything that it shows inside it.

# What `read_run` reads the story from.
STORY_PARAMS = {
    "tables": PLAN.told,
    "config": config,
    "config_files": [os.path.relpath(path) for path in workflow.overwrite_configfiles],
    "overrides": OVERRIDES,
    "pictures": SHOWN_PICTURES,
    "source_pictures": SHOWN_SOURCES,
    "boxes": PLAN.boxes,
    "units": PLAN.units,
}


rule tell_story:
    input:
        **{name: PLAN.table(name) for name in PLAN.told},
        facts=PLAN.facts(PLAN.told),
        pictures=SHOWN_PICTURE_FILES,
        picture_facts=SHOWN_PICTURE_FACTS,
        template=own("report/story.html.j2"),
        method=[ancient(path) for path in [config["method"]] if path],
        included=[own(f"report/{name}") for name in ("maps.html.j2", "story.css.j2", "story.js")],
    output:
        page=report(
            "reports/index.html",
            caption="../report/index.rst",
            category="Reports",
            # Digits go before letters.
            labels={"report": "1 The whole run"},
        ),
    log:
        "results/logs/tell_story.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        **STORY_PARAMS,
        contents=contents_of(*filter(None, [own("report/story.html.j2"), config["method"]])),
        # Linked to, not waited for.
        reports=collect(
            "reports/{page}.{suffix}", page=[*PLAN.pages, "runtime"], suffix=["html", "ipynb"]
        ),
        figures={
            example: [f"{figure}.pdf" for figure in PLAN.figures(example)] for example in SHOWN
        },
        n=len(PLAN.examples),
        code=code_of("tell_story.py"),
    message:
        "telling the story on one page"
    script:
        "../scripts/tell_story.py"
