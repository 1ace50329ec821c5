"""The published methods' twins on the miniature, each run whole up to its tables."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from compare_averages import hold, parse
from project import ROOT, copy_project, run

from blip_tracing.machinery.tables import read_table
from blip_tracing.meaning.replication.averages import MET

MINIATURE = {
    "name": "resources/miniature/checkpoint",
    "layers": {"encoder": 6, "decoder": 6, "vision": 3},
}


def twin(project: Path, name: str, sheet: str, **changes: Any) -> dict[str, Any]:
    """Write the configuration of that name for the miniature, one job for each stage."""
    config = yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())
    config |= {"model": MINIATURE, "examples": sheet, "device": "cpu", "layers_per_job": 6}
    for window in (each for each in config["experiments"].values() if each.get("window", 1) > 6):
        window["window"] = 5
    config |= changes
    (project / f"config/{name}-twin.yaml").write_text(yaml.safe_dump(config))
    return config


@pytest.mark.parametrize(
    ("name", "sheet"),
    [
        ("palit-2023", "config/examples.tsv"),
        ("rome-style", "config/examples.tsv"),
        ("notice-2025", "config/pictures.tsv"),
    ],
)
def test_the_twin_on_the_miniature_runs_whole(tmp_path: Path, name: str, sheet: str) -> None:
    project = copy_project(tmp_path / "project")
    config = twin(project, name, sheet)
    for noisy in config["runs"].values():
        noisy["corrupt"]["draws"] = 2
    twin(project, name, sheet, runs=config["runs"])
    names = [*config["experiments"], "controls"]
    wanted = [f"results/tables/{each}.parquet" for each in names]
    run(project, *wanted, "results/tables/summary.csv", "results/tables/runs.csv",
        "--configfile", f"config/{name}-twin.yaml")  # fmt: skip
    for each, experiment in config["experiments"].items():
        cells = read_table(project / f"results/tables/{each}.parquet")
        assert set(cells["site"]) == set(experiment["sites"])
        assert not cells[["p_base", "p_source"]].isna().any().any()
    if name == "palit-2023":
        command = ["resources/published/palit_200_samples.csv", str(project / "results/tables")]
        options = "--level 5 --cells encoder decoder --whole together --layers 6 --other-examples"
        hold(parse([str(ROOT / command[0]), *command[1:], *options.split()]))
        structure = read_table(project / "results/tables/palit_200_samples.structure.csv")
        # Of the miniature's reading of [SEP] nothing follows: it is the published model's.
        assert structure["verdict"].tolist()[:3] == [MET] * 3
