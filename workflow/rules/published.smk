# Against what was published: each number beside the run's, a verdict on each quantity, a report.

from blip_tracing.meaning.replication.published import (
    check_run,
    like_published,
    read_published,
)

with ending_in_one_line():
    PUBLISHED = read_published(config["published"])
    check_run(PUBLISHED, config["published"], PLAN.examples, PLAN.experiments)

LIKE_PUBLISHED = like_published(PLAN.experiments)
COMPARED = ["runs", "tokens", "baseline", *sum(LIKE_PUBLISHED.values(), [])]
REPLICATION = {"source": config["published"], "like": LIKE_PUBLISHED}


rule compare_published:
    input:
        **{name: PLAN.table(name) for name in COMPARED},
        published=ancient(config["published"]),
        facts=PLAN.facts(COMPARED),
    output:
        published=PLAN.table("published"),
        verdicts=PLAN.table("verdicts"),
        facts="results/tables/published.provenance.json",
    log:
        "results/logs/compare_published.log",
    conda:
        "../../envs/tables.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        tables=COMPARED,
        like=LIKE_PUBLISHED,
        contents=contents_of(config["published"]),
        resamples=config["effects"]["resamples"],
        seed=config["effects"]["seed"],
        code=code_of("compare_published.py"),
    message:
        "comparing with what was published"
    script:
        "../scripts/compare_published.py"
