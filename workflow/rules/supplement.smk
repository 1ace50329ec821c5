# The supplement: an archive to accompany a paper, made when it is asked for (`make supplement`).

from snakemake.common import __version__ as SNAKEMAKE_VERSION

from blip_tracing.given.origin import origin_of

# Given files of which the archive holds what they were when it was written.
SUPPLEMENT_TEXTS = {
    "methods_text": own("report/methods.md.j2"),
    "pages": own("report/story.typ"),
    "tables": own("report/tables.tex.j2"),
    "references": own("report/references.bib"),
}


rule write_supplement:
    input:
        **{name: PLAN.table(name) for name in PLAN.told},
        **SUPPLEMENT_TEXTS,
        facts=PLAN.facts(PLAN.told),
        pictures=SHOWN_PICTURE_FILES,
        picture_facts=SHOWN_PICTURE_FACTS,
        project=lambda wildcards: list(project_files().values()),
        given=lambda wildcards: [ancient(path) for path in given_files()[0].values()],
        method=[ancient(path) for path in [config["method"]] if path],
    output:
        archive="reports/supplement.zip",
    log:
        "results/logs/write_supplement.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        **STORY_PARAMS,
        contents=lambda wildcards: content_digest(
            [*SUPPLEMENT_TEXTS.values(), *project_files().values(), *given_files()[0].values()]
        ),
        project=lambda wildcards: list(project_files()),
        given=lambda wildcards: list(given_files()[0]),
        again=lambda wildcards: config_again(),
        lacking=lambda wildcards: lacking(),
        origin=lambda wildcards: origin_of(WORKFLOW.parent),
        facts={
            "pictures": len(PLAN.checksums),
            "given_answers": any(
                row.get(column) for row in PLAN.rows for column in ["base_answer", "source_answer"]
            ),
            "snakemake": SNAKEMAKE_VERSION,
        },
        code=code_of("write_supplement.py"),
    message:
        "writing the supplement"
    script:
        "../scripts/write_supplement.py"
