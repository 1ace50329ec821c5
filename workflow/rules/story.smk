# The story: one page that tells the whole run, with everything that it shows inside it.

import os

STORY_TABLES = [name for group in COLLECTED for name in TABLES[group]]
if config["published"]:
    STORY_TABLES += ["published", "verdicts"]
STORY_STAGES = [*COLLECTED, *(["published"] if config["published"] else [])]
# What `read_run` reads the story from.
STORY_PARAMS = {
    "tables": STORY_TABLES,
    "config": config,
    "config_files": [os.path.relpath(path) for path in workflow.overwrite_configfiles],
    "overrides": OVERRIDES,
    "pictures": SHOWN_PICTURES,
}
STORY_REPORTS = [*REPORTS, *(["replication"] if config["published"] else [])]


rule tell_story:
    input:
        **{name: table(name) for name in STORY_TABLES},
        facts=collect("results/tables/{group}.provenance.json", group=STORY_STAGES),
        pictures=SHOWN_PICTURE_FILES,
        picture_facts=SHOWN_PICTURE_FACTS,
        template="workflow/report/story.html.j2",
        included=collect(
            "workflow/report/{file}", file=["maps.html.j2", "story.css.j2", "story.js"]
        ),
    output:
        page=page_in_report("index", "index"),
    log:
        "results/logs/tell_story.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        **STORY_PARAMS,
        contents=contents_of("workflow/report/story.html.j2"),
        # Linked to, not waited for.
        reports=collect("reports/{report}.{suffix}", report=STORY_REPORTS, suffix=["html", "ipynb"]),
        figures={example: printed_figures_of(example) for example in SHOWN},
        n=len(EXAMPLES),
        code=code_of("tell_story.py"),
    message:
        "telling the story on one page"
    script:
        "../scripts/tell_story.py"
