"""Collect what the jobs took, from what each left beside its log: one row a job."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import pandas as pd

from blip_tracing.given.provenance import write_facts
from blip_tracing.machinery.files import digests, read_json, read_record
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import write_table
from blip_tracing.machinery.usage import MEASURED, usage_beside


def read_runtimes(logs: Sequence[str], devices: Sequence[str]) -> pd.DataFrame:
    """The table `runtimes`: rule, job, device, and seconds, cpu_seconds and memory_mib.

    logs: the jobs' logs, called `…/logs/<rule>/<job>.log`, or `<rule>.log` of a rule with one job.
    A job that left nothing beside its log has its row, with nothing measured.
    """
    rows = [
        {**job_of(log), "device": device, **taken(log)}
        for log, device in zip(logs, devices, strict=True)
    ]
    return pd.DataFrame(rows, columns=["rule", "job", "device", *MEASURED])


def job_of(log: str) -> dict[str, str]:
    """The rule, and the job among its jobs, by the name of the job's log."""
    parts = PurePath(log).with_suffix("").parts
    rule, *job = parts[parts.index("logs") + 1 :]
    return {"rule": rule, "job": "/".join(job)}


def taken(log: str) -> dict[str, float]:
    """What a job took; nothing where it is not known."""
    usage = usage_beside(log)
    return read_json(usage) if usage.exists() else {}


def main(snakemake: Any) -> None:
    """Write the table; the facts of a job that ran the model name its device."""
    files, output = snakemake.input, snakemake.output
    with log_to(snakemake.log[0]):
        records = [read_record(path, ["device"]) for path in files.facts]
        devices = [record["device"] for record in records] + ["cpu"] * len(files.others)
        write_table(read_runtimes(snakemake.params.logs, devices), output.table)
        write_facts({"files": digests([output.table])}, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
