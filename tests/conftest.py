"""Makes the library importable as the jobs import it, and runs the default graph once."""

import os
import sys
from pathlib import Path

import pytest

# The small models here gain nothing from threads, which fight over the cores with other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[1] / "workflow/scripts"), str(Path(__file__).parent)]


@pytest.fixture(scope="session")
def default_run(tmp_path_factory):
    """A copy of the project in which the default graph has been run. Do not change it."""
    from project import copy_project, run

    project = copy_project(tmp_path_factory.mktemp("default") / "project")
    run(project)
    return project


@pytest.fixture
def finished(default_run, tmp_path):
    """A copy of the finished run, to be changed by one test."""
    import shutil

    return shutil.copytree(default_run, tmp_path / "project")
