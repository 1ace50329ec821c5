"""The manual's recipes, run as they stand there, one after the other in one folder."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from checkpoints import random_blip, save_checkpoint, small_vocabulary
from estimate import lengths_of
from project import ROOT, copy_project

from blip_tracing.given.checkpoint import read_architecture
from blip_tracing.given.cost import Sizes
from blip_tracing.given.plan import Plan
from blip_tracing.given.settings import fill_config
from blip_tracing.given.sheet import load_sheet, records_of
from blip_tracing.machinery.tables import read_table
from blip_tracing.vocabulary.experiment import BY_ROLE
from blip_tracing.vocabulary.metrics import METRICS, columns_of
from blip_tracing.vocabulary.sites import SITES, TOWERS

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
    "Every kind of site": ["reports/index.html", "reports/things.html"],
}
COMPONENTS = yaml.safe_load((ROOT / "config/components.yaml").read_text())


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


def test_the_components_are_of_every_kind():
    asked = COMPONENTS["experiments"].values()
    sites = {site for experiment in asked for site in experiment["sites"]}
    assert {SITES[site].tower for site in sites} == set(TOWERS)
    assert {SITES[site].tower for site in sites if SITES[site].heads} == set(TOWERS)
    for key, kind in {"window": 3, "positions": BY_ROLE, "regions": 6}.items():
        assert kind in [experiment.get(key) for experiment in asked]
    assert set(COMPONENTS["metrics"]) == set(METRICS)


def test_the_components_have_as_many_rows_as_were_estimated(project):
    """After the recipe above. Roles that an example lacks have no row: these have all."""
    config = fill_config(COMPONENTS)
    sheet = load_sheet(ROOT / config["examples"])
    plan = Plan(config, [row for _, row in records_of(sheet)])
    lengths, _ = lengths_of(plan, str(ROOT / config["model"]["name"]))
    sizes = Sizes(
        read_architecture(ROOT / config["model"]["name"]), len(config["effects"]["roles"])
    )
    for name, experiment in plan.experiments.items():
        table = read_table(project / plan.table(name))
        assert len(table) == sum(sizes.cells(experiment, each) for each in lengths.values())
        assert set(table["site"]) == set(experiment.sites)
        assert set(columns_of(METRICS)) <= set(table)
        assert not table[columns_of(METRICS)].isna().any().any()


def test_the_miniature_binds_colour_to_thing_as_the_manual_says(project):
    """After the recipe above: what the manual tells of the maps is what the tables hold."""
    things = read_table(project / "results/tables/things.parquet")
    summary = read_table(project / "results/tables/summary.csv")
    put_in = summary[
        (summary["experiment"] == "things")
        & (summary["site"] == "vision.block_output")
        & (summary["quantity"] == "probability_change")
        & (summary["group"] == "all")
        & (summary["among"] == "all")
    ].set_index(["token_role", "layer"])["mean"]
    assert (put_in["thing"] > 0.9).all()
    assert (put_in.drop(["thing", "all"], level="token_role") < 0.1).all()
    heads = things[things["site"] == "vision.self_attention_heads"]
    assert heads["p_source"].max() < 0.01

    carried = read_table(project / "results/tables/carriers.parquet")
    by_head = carried.groupby(["site", "layer", "head"], dropna=False)["p_source"].mean()
    assert by_head["encoder.cross_attention", 4].item() > 0.9
    of_heads = by_head["encoder.cross_attention_heads", 4]
    assert of_heads.idxmax() == 0
    assert of_heads.drop(0).max() < 0.01

    controls = read_table(project / "results/tables/controls.parquet")
    without = controls[
        (controls["control"] == "unrelated") & (controls["experiment"] == "carriers")
    ]
    left = without.groupby(["site", "layer", "head"], dropna=False)["p_base"].mean()
    assert left["encoder.cross_attention", 4].item() < 0.1
    ablated = left["encoder.cross_attention_heads", 4]
    assert ablated[0] < 0.5
    assert (ablated.drop(0) > 0.9).all()
