"""A study is a folder: results lie in it, and nothing is written into the workflow's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from make_study import make_study
from project import ROOT, copy_project, edit_config, keep_examples

from blip_tracing.errors import InputError
from blip_tracing.given.places import found

pytestmark = pytest.mark.workflow

TABLES = "results/tables/patching.csv"
SMALL = {"levels: [0.1, 0.5, 1, 2, 5, 10, 20]": "levels: [2]", "draws: 10": "draws: 1",
         "primary_level: 5": "primary_level: 2",
         "resamples: 2000": "resamples: 100", "  examples: 4": "  examples: 1"}  # fmt: skip


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    """A copy of the project, read-only in effect: it must stay as it is."""
    return copy_project(tmp_path_factory.mktemp("a folder") / "größe")


@pytest.fixture
def study(tmp_path):
    """A small study, in a folder with a blank and letters that are not ASCII."""
    folder = tmp_path / "my study ñ"
    make_study(folder)
    edit_config(folder, SMALL)
    keep_examples(folder, 2)
    return folder


def content(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


def snakemake_in(study: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
        cwd=study,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_directory_of_ones_own_holds_all_results(workflow, study):
    before = content(workflow)
    snakemake_in(study.parent, "-s", str(workflow / "Snakefile"), "--directory", str(study))
    assert (study / TABLES).is_file()
    assert (study / "reports/index.html").is_file()
    assert content(workflow) == before
    # A second run has nothing to do, and another study beside it knows nothing of it.
    again = snakemake_in(study, "-s", str(workflow / "Snakefile"), "--dry-run")
    assert "Nothing to be done" in again
    other = study.parent / "other"
    make_study(other)
    snakemake_in(other, "-s", str(workflow / "Snakefile"), "results/model.json")
    assert content(other) & {TABLES, "reports/index.html"} == set()


MODULE = """
configfile: "config/config.yaml"


module blip:
    snakefile: {snakefile!r}
    config: config


use rule * from blip


use rule measure_effects from blip as measure_effects with:
    message:
        "measured my own way"


rule mine:
    default_target: True
    input:
        rules.all.input,
"""


def test_a_study_uses_the_workflow_as_a_module_and_overrides_a_rule(workflow, study):
    before = content(workflow)
    snakefile = study / "Snakefile"
    snakefile.write_text(MODULE.format(snakefile=str(workflow / "workflow/Snakefile")))
    printed = snakemake_in(study, "--until", "tell_story")
    assert (study / TABLES).is_file()
    assert (study / "reports/index.html").is_file()
    assert "measured my own way" in printed
    assert content(workflow) == before


def test_snakedeploy_deploys_a_local_clone(workflow, tmp_path):
    deploy = shutil.which("snakedeploy") or shutil.which(
        "snakedeploy", path=os.fspath(Path(sys.executable).parent)
    )
    if deploy is None:
        pytest.skip("needs snakedeploy (pip install snakedeploy)")
    study = tmp_path / "deployed"
    subprocess.run(
        [deploy, "deploy-workflow", str(workflow), str(study), "--branch", "main"], check=True
    )
    snakefile = study / "workflow/Snakefile"
    text = snakefile.read_text()
    # Of a local clone it leaves out the clone's folder, as the manual says.
    assert '"workflow/Snakefile"' in text
    snakefile.write_text(
        text.replace('"workflow/Snakefile"', repr(str(workflow / "workflow/Snakefile")))
    )
    printed = snakemake_in(study, "--dry-run")
    assert "measure_at_once" in printed
    assert not (study / "resources").exists()


def test_a_path_is_the_studys_own_before_it_is_the_workflows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = "resources/miniature/checkpoint"
    assert found(shipped) == str(ROOT / shipped)
    Path(shipped).mkdir(parents=True)
    assert found(shipped) == shipped
    assert found("nowhere/at/all") == "nowhere/at/all"
    assert found("") == ""


def test_a_study_is_laid_out_in_an_empty_folder_only(tmp_path):
    make_study(tmp_path / "one")
    assert content(tmp_path / "one") == {
        "README.md", "config", "config/config.yaml", "config/examples.tsv",
    }  # fmt: skip
    readme = (tmp_path / "one/README.md").read_text()
    assert len(readme.strip().splitlines()) <= 10
    assert f"snakemake -s {ROOT}/Snakefile --directory ." in readme
    with pytest.raises(InputError, match="is there already; give the study another name"):
        make_study(tmp_path / "one")
