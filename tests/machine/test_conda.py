"""`snakemake --use-conda`: the graph inside the environments of envs/, made by the conda at hand.

Snakemake itself runs from envs/snakemake.yaml. It puts its own libraries at the end of each
script's search path, so what a job's environment lacked would be found where these tests run, but
is not there.
"""

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from project import ROOT, copy_project, planned_jobs

pytestmark = [pytest.mark.conda, pytest.mark.workflow]

REPORTS = {
    "render": 3,
    "tell_story": 1,
    # Collected anew whenever a page is.
    "collect_runtimes": 1,
    "render_runtime": 1,
}
GRAPH = {
    "fetch_model": 1,
    "measure_at_once": 1,
    "collect_table": 4,
    "collect_cells": 3,
    "collect_effects": 1,
    "measure_effects": 1,
    "summarize_effects": 1,
    **REPORTS,
}


def execute(*command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command with the user's own Python packages out of sight; outputs come joined."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, "PYTHONNOUSERSITE": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


def libraries_in(python: Path) -> dict[str, str]:
    """What an environment holds of its own, by name in small letters, with the version."""
    listed = execute(python, "-I", "-m", "pip", "list", "--format", "json")
    return {library["name"].lower(): library["version"] for library in json.loads(listed.stdout)}


@pytest.fixture(scope="session")
def starter(tmp_path_factory):
    """The Python of an environment that holds what starts the workflow."""
    if not shutil.which("conda"):
        pytest.skip("there is no `conda` command on the PATH")
    folder = tmp_path_factory.mktemp("starter") / "environment"
    file = ROOT / "envs/snakemake.yaml"
    done = execute("conda", "env", "create", "--quiet", "--file", file, "--prefix", folder)
    assert done.returncode == 0, done.stdout
    return folder / "bin/python"


@pytest.fixture(scope="session")
def prefix(tmp_path_factory):
    """Where all tests' environments lie: what `--conda-prefix` shares."""
    return tmp_path_factory.mktemp("prefix")


@pytest.fixture(scope="session")
def snakemake(starter, prefix):
    """Runs Snakemake in a project, its jobs in the environments."""

    def run(project: Path) -> subprocess.CompletedProcess[str]:
        options = ("--cores", 2, "--use-conda", "--conda-prefix", prefix)
        return execute(starter, "-m", "snakemake", *options, cwd=project)

    return run


@pytest.fixture(scope="session")
def conda_run(snakemake, tmp_path_factory):
    """A copy of the project in which the default graph has run with conda. Do not change it."""
    project = copy_project(tmp_path_factory.mktemp("conda") / "project")
    done = snakemake(project)
    assert done.returncode == 0, done.stdout
    return project


@pytest.fixture
def finished(conda_run, tmp_path):
    """A copy of the finished run, to be changed by one test."""
    return shutil.copytree(conda_run, tmp_path / "project")


def edit(path: Path, old: str, new: str) -> None:
    """Replace text in a file, which must hold it."""
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def test_snakemake_is_started_without_the_jobs_libraries(starter):
    libraries = libraries_in(starter)
    assert "snakemake" in libraries
    assert not libraries.keys() & {"torch", "transformers", "pyvene", "plotnine", "papermill"}


def test_the_tables_are_those_without_conda(conda_run, default_run):
    tables = sorted((default_run / "results/tables").glob("*.csv"))
    assert tables
    for table in tables:
        found = conda_run / "results/tables" / table.name
        assert found.read_bytes() == table.read_bytes(), table.name


def test_the_reports_are_there(conda_run, default_run):
    made = {path.relative_to(default_run) for path in (default_run / "reports").rglob("*.*")}
    assert made == {path.relative_to(conda_run) for path in (conda_run / "reports").rglob("*.*")}


def test_each_environment_holds_its_pins_and_what_they_require(conda_run, prefix):
    files = sorted(prefix.glob("*.yaml"))
    assert len(files) == 3
    for file in files:
        python = file.with_suffix("") / "bin/python"
        checked = execute(python, "-I", "-m", "pip", "check")
        assert checked.returncode == 0, checked.stdout
        # A build's name, such as torch's `+cpu`, is not part of the pin.
        found = {name: version.split("+")[0] for name, version in libraries_in(python).items()}
        pins = dict(re.findall(r"- ([\w.-]+)==(\S+)", file.read_text()))
        assert pins
        assert pins == {name: found.get(name) for name in pins}


def test_a_second_run_has_nothing_to_do(conda_run, prefix):
    assert planned_jobs(conda_run, "--use-conda", "--conda-prefix", str(prefix)) == Counter()


@pytest.mark.parametrize(
    ("environment", "library", "stale"),
    [
        ("report", "plotnine", REPORTS),
        ("model", "pyvene", {rule: n for rule, n in GRAPH.items() if rule != "fetch_model"}),
        ("tables", "requests", GRAPH),
    ],
)
def test_a_changed_environment_reruns_its_rules_and_what_follows(
    finished, prefix, environment, library, stale
):
    edit(finished / f"envs/{environment}.yaml", f"{library}==", f"{library}==1.")
    planned = planned_jobs(finished, "--use-conda", "--conda-prefix", str(prefix))
    assert planned == Counter(stale)


def test_leaving_conda_reruns_everything(conda_run):
    """So the manual says to keep to one of the two in a folder."""
    assert planned_jobs(conda_run) == Counter(GRAPH)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("python=3.11", "python=0.1"),
        ("papermill==", "papermill==0.0."),
        ("dependencies:", "dependencies: ["),
    ],
    ids=["no-such-python", "no-such-library", "not-yaml"],
)
def test_a_broken_environment_file_stops_the_run_before_its_first_job(
    snakemake, conda_run, tmp_path, old, new
):
    project = copy_project(tmp_path / "project")
    edit(project / "envs/report.yaml", old, new)
    done = snakemake(project)
    assert done.returncode != 0
    assert re.search(r"Could not create conda environment from \S*envs/report\.yaml", done.stdout)
    assert not (project / "results").exists()


def test_an_environment_file_that_is_missing_is_named(snakemake, conda_run, tmp_path):
    project = copy_project(tmp_path / "project")
    (project / "envs/report.yaml").unlink()
    done = snakemake(project)
    assert done.returncode != 0
    assert "envs/report.yaml" in done.stdout
    assert not (project / "results").exists()
