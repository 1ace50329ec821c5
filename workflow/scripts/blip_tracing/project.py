"""The project's own files, and copies of them: all configurations write to one `results/`."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[3]
# What a run needs of a fresh clone.
PARTS = (
    "Snakefile", "README.md", "LICENSE", "requirements.txt",
    "workflow", "config", "resources", "profiles", "envs",
)  # fmt: skip


def copy_project(destination: Path) -> Path:
    """Copy what a fresh clone holds, nothing of what was computed, into a new folder."""
    destination.mkdir(parents=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(
                source, destination / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy2(source, destination)
    return destination
