"""A copy of the project in a folder of its own, and Snakemake run in it as a user would."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from blip_tracing.project import ROOT as ROOT
from blip_tracing.project import copy_project as copy_project

# A folder with BERT's vocab.txt (30,522 words) and the tutorial's picture, which do not ship.
BLIP_FILES = Path(os.environ.get("BLIP_VQA_BASE_FILES", "nowhere"))


def snakemake(
    project: Path, *arguments: str, cores: int = 2, pass_fds: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in the project; standard output and error come back joined."""
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), *arguments]
    return subprocess.run(
        command,
        cwd=project,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        pass_fds=pass_fds,
    )


def run(project: Path, *arguments: str) -> str:
    """Run Snakemake and fail, showing what it printed, unless it succeeds."""
    done = snakemake(project, *arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


def planned_jobs(project: Path, *arguments: str) -> Counter[str]:
    """How many jobs of each rule a dry run would start, `all` left out."""
    printed = run(project, "--dry-run", *arguments)
    counts = Counter(
        {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", printed, re.MULTILINE)}
    )
    assert counts or "Nothing to be done" in printed, printed
    for aside in ("all", "total"):
        counts.pop(aside, None)
    return counts
