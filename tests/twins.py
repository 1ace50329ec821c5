"""The published methods' configurations, asked of the miniature."""

from pathlib import Path
from typing import Any

import yaml
from project import ROOT

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
