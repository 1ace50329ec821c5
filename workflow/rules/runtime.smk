# Runtime: what every job took, collected from what each left beside its log.


# Waits for what the jobs wrote and reads what is there beside their logs. Were that its input, a
# file that was deleted would be made again: by rerunning its job, the model's included.
rule collect_runtimes:
    input:
        facts=PLAN.timed_on_device.values(),
        others=PLAN.timed.values(),
    output:
        table="results/runtimes.csv",
        facts="results/runtimes.provenance.json",
    log:
        "results/logs/collect_runtimes.log",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        logs=[*PLAN.timed_on_device, *PLAN.timed],
        code=code_of("collect_runtimes.py"),
    message:
        "collecting what the jobs took"
    script:
        "../scripts/collect_runtimes.py"
