"""Collect what the jobs took, from Snakemake's benchmark files: one row a job."""

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from blip_tracing.files import read_json
from blip_tracing.logs import log_to
from blip_tracing.tables import write_table

# Snakemake's names for seconds, processor seconds and the resident memory's peak in MiB.
MEASURED = {"s": "seconds", "cpu_time": "cpu_seconds", "max_rss": "memory_mib"}
# What Snakemake writes of a job that ended before it was looked at.
MISSING = ["NA", "-"]


def read_runtimes(benchmarks: Sequence[str], devices: Sequence[str]) -> pd.DataFrame:
    """The table `runtimes`: rule, job, device, and seconds, cpu_seconds and memory_mib.

    benchmarks: the jobs' files, called `…/benchmarks/<rule>/<job>.tsv`, or `<rule>.tsv` of a rule
    with one job. A job whose file is not there has its row, with nothing measured.
    """
    rows = [
        {**job_of(path), "device": device, **measured(path)}
        for path, device in zip(benchmarks, devices, strict=True)
    ]
    return pd.DataFrame(rows, columns=["rule", "job", "device", *MEASURED.values()])


def job_of(benchmark: str) -> dict[str, str]:
    """The rule, and the job among its jobs, by the name of the job's benchmark file."""
    parts = PurePath(benchmark).with_suffix("").parts
    rule, *job = parts[parts.index("benchmarks") + 1 :]
    return {"rule": rule, "job": "/".join(job)}


def measured(benchmark: str) -> dict[str, float]:
    """The numbers in a benchmark file; none where there is no such file."""
    if not Path(benchmark).exists():
        return {}
    numbers = pd.read_csv(benchmark, sep="\t", usecols=list(MEASURED), na_values=MISSING)
    return dict(zip(MEASURED.values(), numbers[list(MEASURED)].to_numpy(float)[0], strict=True))


def main(snakemake: Any) -> None:
    """Write the table; the facts of a job that ran the model name its device."""
    files = snakemake.input
    with log_to(snakemake.log[0]):
        devices = [read_json(path)["device"] for path in files.facts] + ["cpu"] * len(files.others)
        write_table(read_runtimes(snakemake.params.benchmarks, devices), snakemake.output[0])


if "snakemake" in globals():
    main(globals()["snakemake"])
