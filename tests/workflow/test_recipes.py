"""The manual's recipes, run as they stand there, one after the other in one folder."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import random_blip, save_checkpoint, small_vocabulary
from project import ROOT, copy_project

pytestmark = pytest.mark.workflow

MANUAL = (ROOT / "config/README.md").read_text()
RECIPES = MANUAL[MANUAL.index("## Recipes") : MANUAL.index("## Machines")]
BLOCK = re.compile(r"^### (.+?)$.*?^```sh\n(.+?)^```", re.MULTILINE | re.DOTALL)
COMMANDS = dict(BLOCK.findall(RECIPES.partition("### On a cluster")[0]))
MADE = {
    "Trace my own picture": ["reports/index.html", "reports/figures/baseline/mine.pdf"],
    "Another BLIP checkpoint": ["reports/index.html"],
    "A dataset of questions": ["results/tables/effects.parquet", "config/scenes.dropped.csv"],
    "Attach to a paper": ["reports/supplement.zip"],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A fresh copy with what a user would bring: a picture and a checkpoint."""
    folder = copy_project(tmp_path_factory.mktemp("recipes") / "project")
    shutil.copy(ROOT / "resources/miniature/images/animal_shirt.png", folder / "my-picture.png")
    vocabulary = small_vocabulary()
    save_checkpoint(folder / "path/to/checkpoint", random_blip(len(vocabulary)), vocabulary)
    return folder


def test_every_recipe_is_tried():
    assert list(COMMANDS) == list(MADE)


@pytest.mark.parametrize("recipe", MADE)
def test_a_recipe_gives_what_it_promises(project, recipe):
    began = (project / "my-picture.png").stat().st_mtime
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euc", COMMANDS[recipe]],
        cwd=project,
        env={**os.environ, "PATH": path},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    for name in MADE[recipe]:
        assert (project / name).stat().st_mtime > began
