"""A copy of the project in a folder of its own, and Snakemake run in it as a user would."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What a run needs of a fresh clone.
PARTS = (
    "Snakefile", "README.md", "LICENSE", "CITATION.cff", "requirements.txt",
    "workflow", "config", "resources", "profiles", "envs",
)  # fmt: skip


# Rows of the default sheet in a copy: more would cost time and try nothing new.
EXAMPLES = 4
# A folder with BERT's vocab.txt (30,522 words) and the tutorial's picture, which do not ship.
BLIP_FILES = Path(os.environ.get("BLIP_VQA_BASE_FILES", "nowhere"))


def copy_project(destination: Path) -> Path:
    """Copy what a fresh clone holds, nothing of what was computed, into a new folder.

    Of the sheet the first EXAMPLES rows alone.
    """
    destination.mkdir(parents=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(
                source, destination / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy2(source, destination)
    keep_examples(destination, EXAMPLES)
    return destination


def edit_config(project: Path, changes: Mapping[str, str]) -> None:
    """Replace texts in the project's configuration, which must hold each of them."""
    config = project / "config/config.yaml"
    text = config.read_text(encoding="utf-8")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    config.write_text(text, encoding="utf-8")


def keep_examples(project: Path, count: int) -> None:
    """Cut the project's sheet down to its first examples."""
    sheet = project / "config/examples.tsv"
    header, *rows = sheet.read_text(encoding="utf-8").splitlines()
    sheet.write_text("\n".join([header, *rows[:count]]) + "\n", encoding="utf-8")


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
