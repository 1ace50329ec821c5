# Collection: the shards' parts of a table become the whole table, with its provenance beside it.


rule collect_table:
    input:
        parts=lambda wildcards: PLAN.table_parts(wildcards.table),
        facts=lambda wildcards: PLAN.table_facts(wildcards.table),
        claims=[CLAIMS] if PLAN.halves else [],
    output:
        table=report(
            "results/tables/{table}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        facts="results/tables/{table}.provenance.json",
    log:
        "results/logs/collect_table/{table}.log",
    wildcard_constraints:
        table=one_of(name for name in PLAN.tables if not PLAN.is_large(name)),
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        n=len(PLAN.examples),
        orders=PLAN.orders,
        code=code_of("collect_table.py"),
    message:
        "collecting the table {wildcards.table}"
    script:
        "../scripts/collect_table.py"


# Those with a row a cell stay out of Snakemake's own report: a large sheet makes them gigabytes.
use rule collect_table as collect_cells with:
    output:
        table=f"results/tables/{{table}}.{config['tables']['format']}",
        facts="results/tables/{table}.provenance.json",
    log:
        "results/logs/collect_cells/{table}.log",
    wildcard_constraints:
        table=one_of(name for name in PLAN.tables if PLAN.is_large(name) and name != "effects"),
    # `use rule` does not hand it on.
    localrule: True


# Their marks wait for the run's negative controls, which all shards are needed for.
rule collect_effects:
    input:
        parts=PLAN.table_parts("effects"),
        facts=PLAN.table_facts("effects"),
        negatives="results/tables/negatives.csv",
        summary_facts="results/tables/summary.provenance.json",
    output:
        table=f"results/tables/effects.{config['tables']['format']}",
        facts="results/tables/effects.provenance.json",
    log:
        "results/logs/collect_effects/effects.log",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        n=len(PLAN.examples),
        orders=PLAN.orders,
        code=code_of("collect_effects.py"),
    message:
        "collecting the table effects"
    script:
        "../scripts/collect_effects.py"
