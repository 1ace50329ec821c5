# Causal tracing of BLIP: from pictures and pairs of questions to tables, figures and reports.


include: "workflow/rules/main.smk"


rule all:
    default_target: True
    input:
        TARGETS,
    message:
        "the reports and tables are there"
