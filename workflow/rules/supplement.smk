# The supplement: an archive to accompany a paper, made when it is asked for (`make supplement`).

from snakemake.common import __version__ as SNAKEMAKE_VERSION


rule write_supplement:
    input:
        **{name: table(name) for name in STORY_TABLES},
        facts=collect("results/tables/{group}.provenance.json", group=STORY_STAGES),
        pictures=SHOWN_PICTURES.values(),
        sheet=config["examples"],
        template="workflow/report/methods.md.j2",
        references="workflow/report/references.bib",
        # As they were when the supplement was written.
        project=[
            "Snakefile",
            "LICENSE",
            "requirements.txt",
            *map(str, sorted(Path("envs").glob("*.yaml"))),
            *map(str, sorted(Path("workflow/rules").glob("*.smk"))),
        ],
    output:
        archive="reports/supplement.zip",
    log:
        "results/logs/write_supplement.log",
    benchmark:
        "results/benchmarks/write_supplement.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        **STORY_PARAMS,
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
