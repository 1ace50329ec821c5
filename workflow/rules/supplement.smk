# The supplement: an archive to accompany a paper, made when it is asked for (`make supplement`).

from snakemake.common import __version__ as SNAKEMAKE_VERSION

# Given files of which the archive holds what they were when it was written.
SUPPLEMENT_TEXTS = {
    "sheet": config["examples"],
    "methods": own("report/methods.md.j2"),
    "pages": own("report/story.typ"),
    "tables": own("report/tables.tex.j2"),
    "references": own("report/references.bib"),
}
PROJECT_FILES = [
    *(own(f"../{name}") for name in ("Snakefile", "LICENSE", "requirements.txt")),
    *(own(path) for path in sorted((WORKFLOW.parent / "envs").glob("*.yaml"))),
    *(own(path) for path in sorted((WORKFLOW / "rules").glob("*.smk"))),
]


rule write_supplement:
    input:
        **{name: PLAN.table(name) for name in PLAN.told},
        **SUPPLEMENT_TEXTS,
        facts=PLAN.facts(PLAN.told),
        pictures=SHOWN_PICTURE_FILES,
        picture_facts=SHOWN_PICTURE_FACTS,
        project=PROJECT_FILES,
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
        contents=contents_of(*SUPPLEMENT_TEXTS.values(), *PROJECT_FILES),
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
