"""Snakemake submitting to the SLURM that is found here, and the faults that a cluster has."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

# The executor looks ten seconds later each time that nothing has ended: begin low.
SOON = ("--slurm-init-seconds-before-status-checks", "2")
# What `squeue` calls what a test asks about.
COLUMNS = {
    "JobID": "number",
    "State": "state",
    "NodeList": "node",
    "Partition": "partition",
    "Account": "account",
    "Feature": "constraint",
    "NumCPUs": "cores",
    "MinMemory": "memory",
    "TimeLimit": "time_limit",
    "tres-per-job": "gpus",
}


def command(*words: str) -> str:
    """What a SLURM command prints; fails as the command fails."""
    return subprocess.run(words, check=True, text=True, capture_output=True, timeout=60).stdout


def missing() -> str:
    """What submitting to SLURM lacks here, or nothing."""
    if not find_spec("snakemake_executor_plugin_slurm"):
        return "no executor for SLURM here: pip install -r requirements-slurm.txt"
    if not shutil.which("sbatch"):
        return "no SLURM here: no sbatch on the PATH"
    try:
        nodes = command("sinfo", "--noheader", "--Node", "--states=idle,mixed", "--format=%N")
    except (subprocess.SubprocessError, FileNotFoundError):
        return "no SLURM here: its controller does not answer"
    return "" if nodes else "SLURM has no node here that is up and free"


@dataclass(frozen=True)
class Job:
    """A job as SLURM lists it."""

    number: str
    state: str
    node: str
    partition: str
    account: str
    constraint: str
    cores: str
    memory: str
    time_limit: str
    gpus: str

    def cancel(self) -> None:
        command("scancel", self.number)

    def stop(self) -> None:
        """Freeze the job's processes, on whatever node they are."""
        command("scancel", "--signal=STOP", self.number)

    def process_ids(self) -> list[int]:
        """The job's processes; its node's daemon must be on this machine."""
        listed = command("scontrol", "listpids", self.number, self.node)
        rows = [line.split() for line in listed.splitlines()[1:]]
        return [int(row[0]) for row in rows if int(row[0]) > 0]


@dataclass
class Submission:
    """Snakemake at work in a project, submitting to SLURM."""

    project: Path
    process: subprocess.Popen[bytes]
    printed: Path

    def jobs(self, rule: str) -> list[Job]:
        """The rule's jobs so far, the first submitted first."""
        wanted = ",".join(f"{column}:|" for column in ("Comment", "WorkDir", *COLUMNS))
        listed = command("squeue", "--noheader", "--states=all", "--me", f"--Format={wanted}")
        jobs = []
        for line in listed.splitlines():
            comment, folder, *values = map(str.strip, line.split("|"))
            if re.match(rf"rule_{rule}(_|$)", comment) and folder == str(self.project):
                jobs.append(Job(**dict(zip(COLUMNS.values(), values, strict=False))))
        return sorted(jobs, key=lambda job: int(job.number))

    def in_mid_run(self, rule: str) -> Job:
        """Wait until the rule's first job is at work: its script has opened its log."""
        logs = self.project / "results/logs"
        self.until(lambda: (logs / f"{rule}.log").exists() or any((logs / rule).rglob("*.log")))
        return self.jobs(rule)[0]

    def attempt(self, number: int, rule: str) -> Job:
        """Wait until SLURM has started the rule's job for this time."""
        self.until(lambda: [job.state for job in self.jobs(rule)][number - 1 :] == ["RUNNING"])
        return self.jobs(rule)[number - 1]

    def until(self, condition: Callable[[], bool], seconds: float = 240) -> None:
        """Wait until the condition holds; fail, and show what is, when it does not in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.describe()
            time.sleep(0.1)

    def finish(self, seconds: float = 1200) -> str:
        """Wait until Snakemake has ended well; what it printed."""
        self.until(lambda: self.process.poll() is not None, seconds)
        assert self.process.returncode == 0, self.describe()
        return self.printed.read_text()

    def describe(self) -> str:
        return self.printed.read_text() + command("squeue", "--states=all", "--me")


@contextmanager
def submitting(
    project: Path, *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[Submission]:
    """Start Snakemake by the profile that ships; at the end stop it and its jobs, if need be."""
    words = [sys.executable, "-m", "snakemake", "--profile", "profiles/slurm", *SOON, *arguments]
    printed = project / "snakemake.txt"
    with printed.open("wb") as output:
        process = subprocess.Popen(
            words,
            cwd=project,
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Submission(project.resolve(), process, printed)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(120)


def kill_daemon(pid_file: str, node: str = "") -> None:
    """End a daemon at once, as a power cut would; `pid_file` is SLURM's setting."""
    settings = command("scontrol", "show", "config")
    found = re.search(rf"^{pid_file} *= (.*)$", settings, re.MULTILINE)
    assert found, f"SLURM does not say its {pid_file}"
    os.kill(int(Path(found[1].replace("%n", node)).read_text()), signal.SIGKILL)


@contextmanager
def node_lost(node: str) -> Iterator[None]:
    """The node's daemon is gone meanwhile; the processes that it has started live on."""
    kill_daemon("SlurmdPidFile", node)
    try:
        yield
    finally:
        command("slurmd", "-N", node)


@contextmanager
def nodes_drained() -> Iterator[None]:
    """No job starts meanwhile: all wait in the queue."""
    nodes = ",".join(command("sinfo", "--noheader", "--Node", "--format=%N").split())
    command("scontrol", "update", f"nodename={nodes}", "state=drain", "reason=test")
    try:
        yield
    finally:
        command("scontrol", "update", f"nodename={nodes}", "state=resume")


@contextmanager
def controller_away() -> Iterator[None]:
    """The controller is gone meanwhile."""
    kill_daemon("SlurmctldPidFile")
    try:
        yield
    finally:
        command("slurmctld")
