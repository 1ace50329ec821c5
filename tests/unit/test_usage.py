"""What a job took is what the system counts of it and its children, to the job's end."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT

from blip_tracing.machinery.usage import MEASURED

BURN = "import time\nwhile time.process_time() < {seconds}: pass"
FILL = "held = bytearray({mib} << 20)"


def take(log: Path, work: str, start: tuple[str, ...] = ()) -> dict[str, float]:
    """What a process that does the work in its log leaves beside it."""
    program = f"import subprocess, sys\nfrom blip_tracing.machinery.logs import log_to\n{work}"
    subprocess.run(
        [*start, sys.executable, "-c", program, log],
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow/scripts")},
        check=False,
        capture_output=True,
    )
    return json.loads(log.with_suffix(".usage.json").read_text())


def in_log(work: str) -> str:
    return "with log_to(sys.argv[1]):\n" + "\n".join(f"    {line}" for line in work.splitlines())


def in_child(work: str) -> str:
    return f"subprocess.run([sys.executable, '-c', {work!r}], check=True)"


def processor_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def test_processor_time_is_the_jobs_and_its_childrens(tmp_path: Path) -> None:
    before = processor_seconds()
    work = BURN.format(seconds=0.5) + "\n" + in_child(BURN.format(seconds=0.7))
    found = take(tmp_path / "job.log", in_log(work))
    assert 1.2 <= found["cpu_seconds"] <= processor_seconds() - before + 0.01


def test_memory_is_the_largest_processs_peak_though_it_was_given_back(tmp_path: Path) -> None:
    own = take(tmp_path / "own.log", in_log(FILL.format(mib=300) + "\ndel held"))
    childs = take(tmp_path / "child.log", in_log(in_child(FILL.format(mib=300))))
    for found in (own, childs):
        assert 300 < found["memory_mib"] < 400


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system keeps no /proc")
def test_memory_is_not_that_of_the_process_that_started_the_job(tmp_path: Path) -> None:
    """The system's own count begins with what Snakemake's process held as it started the job."""
    starter = (
        f"import resource, subprocess, sys\n{FILL.format(mib=300)}\n"
        "subprocess.run(sys.argv[1:], check=True)"
    )
    work = "import resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    found = take(tmp_path / "job.log", in_log(work), (sys.executable, "-c", starter))
    assert int((tmp_path / "job.log").read_text()) > 300 << 10
    assert found["memory_mib"] < 100


def test_time_runs_from_the_processs_start(tmp_path: Path) -> None:
    found = take(tmp_path / "job.log", "import time; time.sleep(0.6)\n" + in_log("pass"))
    assert 0.6 <= found["seconds"] < 60
    assert list(found) == list(MEASURED)


def test_a_job_that_failed_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        take(tmp_path / "job.log", in_log("1 / 0"))
