"""Makes the library importable as the jobs import it, and runs the default graph once."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

# The small models here gain nothing from threads, which fight over the cores with other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[1] / "workflow/scripts"), str(Path(__file__).parent)]


# Files of tests that take minutes come first, so that at the end no worker waits for another's.
FIRST = ("workflow", "machine", "unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests by their folder; within it they keep their order."""
    items.sort(key=lambda item: FIRST.index(item.path.parent.name))


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one of the session's processes makes; the others wait for it and find it."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, half = root / name, root / f"{name}.half"
    with FileLock(root / f"{name}.lock"):
        if not folder.exists():
            shutil.rmtree(half, ignore_errors=True)  # what a process that failed has left
            make(half)
            half.rename(folder)
    return folder


@pytest.fixture(scope="session")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which the default graph has been run. Do not change it."""
    from project import copy_project, run

    return made_once(tmp_path_factory, "default", lambda folder: run(copy_project(folder)))


@pytest.fixture
def finished(default_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be changed by one test."""
    return shutil.copytree(default_run, tmp_path / "project")
