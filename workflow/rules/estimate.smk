# Estimate: what a run will cost, said before it (`snakemake --cores 1 estimate`).


rule estimate:
    log:
        "results/logs/estimate.log",
    localrule: True
    conda:
        "../../envs/model.yaml"
    params:
        rows=PLAN.rows,
    message:
        "estimating what this configuration costs"
    script:
        "../scripts/estimate.py"
