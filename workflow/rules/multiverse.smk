# The multiverse of analyses: a job an experiment, which no other experiment makes stale.

ASKED_OF_ALL = config["analyses"][MULTIVERSE]


# From the measurements themselves: the means that other analyses read are of all experiments.
rule universes:
    input:
        measured=lambda wildcards: [
            path
            for part in PLAN.universe_parts(wildcards.asked)
            for path in [
                part["tokens"],
                part["baseline"],
                *part["runs"],
                *(path for paths in part["cells"] for path in paths),
            ]
        ],
        facts=lambda wildcards: [
            path for part in PLAN.universe_parts(wildcards.asked) for path in part["facts"]
        ],
    output:
        table="results/universes/{asked}.parquet",
        facts="results/universes/{asked}.json",
    log:
        "results/logs/universes/{asked}.log",
    wildcard_constraints:
        asked=one_of(ASKED_OF_ALL["experiments"]),
    conda:
        "../../envs/tables.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        parts=lambda wildcards: PLAN.universe_parts(wildcards.asked),
        experiment=lambda wildcards: described(PLAN.experiments[wildcards.asked]),
        primary=lambda wildcards: PLAN.primary_levels[wildcards.asked],
        settings={name: value for name, value in ASKED_OF_ALL.items() if name != "experiments"},
        roles=config["effects"]["roles"],
        boxes=PLAN.boxes,
        rules=PLAN.effect_rules,
        code=code_of("universes.py"),
    message:
        "asking in every way: {wildcards.asked}"
    script:
        "../scripts/universes.py"


rule multiverse:
    input:
        universes=collect("results/universes/{asked}.parquet", asked=ASKED_OF_ALL["experiments"]),
        facts=collect("results/universes/{asked}.json", asked=ASKED_OF_ALL["experiments"]),
        negatives="results/tables/negatives.csv",
        summary_facts="results/tables/summary.provenance.json",
    output:
        table=report(
            f"results/tables/{MULTIVERSE}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": MULTIVERSE},
        ),
        verdicts=report(
            f"results/tables/{MULTIVERSE}_verdicts.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": f"{MULTIVERSE}_verdicts"},
        ),
        facts=f"results/tables/{MULTIVERSE}.provenance.json",
    log:
        f"results/logs/analyse/{MULTIVERSE}.log",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        code=code_of("multiverse.py"),
    message:
        "collecting the multiverse"
    script:
        "../scripts/multiverse.py"
