# Against published averages of many examples: each beside the run's, a verdict on each map, and what
# any faithful run must show.

from dataclasses import asdict

from blip_tracing.meaning.replication.published_averages import held_against, read_averages

with ending_in_one_line():
    HELD = held_against(
        read_averages(config["published"]),
        config["published"],
        PLAN.experiments,
        PLAN.primary_levels,
        config["averages"],
        len(PLAN.examples),
    )

AVERAGED = ["runs", *HELD.tables]
REPLICATION = {"source": config["published"], "held": asdict(HELD)}


rule compare_averages:
    input:
        **{name: PLAN.table(name) for name in AVERAGED},
        published=ancient(config["published"]),
        facts=PLAN.facts(AVERAGED),
    output:
        published=PLAN.table("published"),
        verdicts=PLAN.table("verdicts"),
        expectations=PLAN.table("expectations"),
        facts="results/tables/published.provenance.json",
    log:
        "results/logs/compare_averages.log",
    conda:
        "../../envs/tables.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        tables=AVERAGED,
        held=asdict(HELD),
        layers=config["model"]["layers"]["encoder"],
        contents=contents_of(config["published"]),
        seed=config["effects"]["seed"],
        code=code_of("compare_averages.py"),
    message:
        "comparing with published averages"
    script:
        "../scripts/compare_averages.py"
