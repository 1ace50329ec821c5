# Causal tracing of BLIP: from pictures and pairs of questions to tables, figures and reports.

from snakemake.utils import min_version

min_version("9.0")


include: "workflow/rules/common.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/baseline.smk"
include: "workflow/rules/patching.smk"
include: "workflow/rules/tracing.smk"
include: "workflow/rules/effects.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/shown.smk"
include: "workflow/rules/reports.smk"


# Only a replication has published figures to be compared with.
if config["published"]:

    include: "workflow/rules/published.smk"


include: "workflow/rules/story.smk"
include: "workflow/rules/supplement.smk"
include: "workflow/rules/runtime.smk"


rule all:
    default_target: True
    input:
        [table_in_report(name) for group in COLLECTED for name in TABLES[group]],
        collect("results/tables/{group}.provenance.json", group=COLLECTED),
        collect("reports/{report}.{suffix}", report=REPORTS, suffix=["html", "ipynb"]),
        [FIGURES[report] for report in REPORTS],
        REPLICATION if config["published"] else [],
        "reports/index.html",
    params:
        n=len(EXAMPLES),


onsuccess:
    if Path("reports/index.html").exists():
        beside = ", ".join(STORY_REPORTS)
        logger.info(
            f"Reports: reports/index.html ({beside} beside it), tables in results/tables/"
        )
