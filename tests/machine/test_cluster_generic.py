"""Nothing in the rules knows SLURM: another scheduler's submit command runs the same graph."""

import os
import re
from importlib.util import find_spec

import pytest
import yaml
from project import ROOT, copy_project, run

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.skipif(
        not find_spec("snakemake_executor_plugin_cluster_generic"),
        reason="no executor for other schedulers here: pip install -r requirements-cluster.txt",
    ),
]

# A scheduler of two lines: it notes what it was asked for, runs the job, and says its number.
QSUB = """#!/bin/sh
echo "$@" >> asked.txt
for script; do :; done
sh "$script" > "$script.log" 2>&1 &
echo $!
"""


@pytest.fixture
def project(tmp_path):
    """A project with the manual's profile for SGE, and a `qsub` to go with it."""
    project = copy_project(tmp_path / "project")
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "config/cluster.md").read_text(), re.DOTALL)
    (profile,) = (block for block in blocks if "qsub" in block)
    (project / "profiles/sge").mkdir()
    (project / "profiles/sge/config.yaml").write_text(profile)
    command = project / "bin/qsub"
    command.parent.mkdir()
    command.write_text(QSUB)
    command.chmod(0o755)
    return project


def test_the_same_graph_gives_the_same_tables(project, default_run, monkeypatch):
    monkeypatch.setenv("PATH", f"{project / 'bin'}{os.pathsep}{os.environ['PATH']}")
    run(project, "--profile", "profiles/sge", "--seconds-between-status-checks", "1")
    tables = sorted((default_run / "results/tables").glob("*.csv"))
    assert len(tables) == 12
    for table in tables:
        found = project / "results/tables" / table.name
        assert found.read_bytes() == table.read_bytes(), table.name
    # One job runs the model, on a GPU; summary, page and four notebooks are made without.
    asked = [line.partition("/.snakemake/")[0] for line in (project / "asked.txt").open()]
    assert sum("gpu=1" in line and "h_rt=0:60:0" in line for line in asked) == 1
    assert sum("gpu=0" in line and "h_rt=0:60:0" in line for line in asked) == 1
    assert sum("gpu=0" in line and "h_rt=0:30:0" in line for line in asked) == 5


def test_the_manuals_profiles_are_yaml():
    text = (ROOT / "config/cluster.md").read_text()
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        assert yaml.safe_load(block)
