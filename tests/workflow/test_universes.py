"""Of a multiverse only those experiments are asked anew that are new or were changed."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import copy_project, run

from blip_tracing.machinery.tables import read_table

pytestmark = pytest.mark.workflow

TABLE = "results/tables/multiverse.csv"


def corrupted(levels: list[int], seed: int) -> dict[str, Any]:
    return {"of": "base", "corrupt": {"levels": levels, "draws": 2, "seed": seed}}


def write_config(project: Path, runs: dict[str, Any]) -> None:
    """An experiment a run, by jobs of a level each."""
    config = {
        "model": {
            "name": "resources/miniature/checkpoint",
            "layers": {"encoder": 6, "decoder": 6, "vision": 3},
        },
        "device": "cpu",
        "examples": "config/examples.tsv",
        "runs": runs,
        "experiments": {f"of_{name}": {"receiver": name, "donor": "base"} for name in runs},
        "effects": {"primary_level": 5, "resamples": 200},
        "report": {"draws_at": 5},
        "analyses": {"multiverse": {"experiments": [f"of_{name}" for name in runs]}},
    }
    (project / "config/config.yaml").write_text(yaml.safe_dump(config))


def asked_anew(project: Path) -> set[str]:
    """The experiments whose universes a dry run would make."""
    printed = run(project, "--dry-run", TABLE)
    return set(re.findall(r"asking in every way: (\w+)", printed))


def test_another_experiment_or_level_leaves_the_others_universes_as_they_are(
    tmp_path: Path,
) -> None:
    project = copy_project(tmp_path / "project")
    runs = {"noisy": corrupted([2, 5], 0), "again": corrupted([5], 1)}
    write_config(project, runs)
    run(project, TABLE)
    table = read_table(project / TABLE)
    assert set(table["experiment"]) == {"of_noisy", "of_again"}
    assert table.groupby("experiment")["noise_level"].unique().map(list).to_dict() == {
        "of_noisy": [2.0, 5.0],
        "of_again": [5.0],
    }
    assert not asked_anew(project)
    write_config(project, {**runs, "third": corrupted([5], 2)})
    assert asked_anew(project) == {"of_third"}
    write_config(project, {**runs, "again": corrupted([5, 10], 1)})
    assert asked_anew(project) == {"of_again"}
