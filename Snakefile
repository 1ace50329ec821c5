# Causal tracing of BLIP: from pictures and pairs of questions to tables, figures and reports.

from snakemake.utils import min_version

min_version("9.0")


# A file given with --configfile stands alone: nothing of the default is merged into it.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/baseline.smk"
include: "workflow/rules/patching.smk"
include: "workflow/rules/tracing.smk"
include: "workflow/rules/effects.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/reports.smk"


rule all:
    default_target: True
    input:
        [table(name) for group in COLLECTED for name in TABLES[group]],
        collect("results/tables/{group}.provenance.json", group=COLLECTED),
        collect("reports/{report}.{suffix}", report=REPORTS, suffix=["html", "ipynb"]),
        [FIGURES[report] for report in REPORTS],
