# The supplement: an archive to accompany a paper, made when it is asked for (`make supplement`).

from snakemake.common import __version__ as SNAKEMAKE_VERSION

# Given files of which the archive holds what they were when it was written.
SUPPLEMENT_TEXTS = {
    "sheet": config["examples"],
    "methods": "workflow/report/methods.md.j2",
    "pages": "workflow/report/story.typ",
    "tables": "workflow/report/tables.tex.j2",
    "references": "workflow/report/references.bib",
}
PROJECT_FILES = [
    "Snakefile",
    "LICENSE",
    "requirements.txt",
    *map(str, sorted(Path("envs").glob("*.yaml"))),
    *map(str, sorted(Path("workflow/rules").glob("*.smk"))),
]


rule write_supplement:
    input:
        **{name: table(name) for name in STORY_TABLES},
        **SUPPLEMENT_TEXTS,
        facts=collect("results/tables/{group}.provenance.json", group=STORY_STAGES),
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
            "pictures": len(pictures_of(ROWS)),
            "given_answers": any(
                row.get(column) for row in ROWS for column in ["base_answer", "source_answer"]
            ),
            "snakemake": SNAKEMAKE_VERSION,
        },
        code=code_of("write_supplement.py"),
    message:
        "writing the supplement"
    script:
        "../scripts/write_supplement.py"
