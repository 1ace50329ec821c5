"""What the tests of given files share: good and wrong configurations and sheets, and refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import ROOT

from blip_tracing.errors import InputError

SCHEMAS = ROOT / "workflow/schemas"
SHIPPED = [ROOT / "config/config.yaml", ROOT / "config/blip-vqa-base.yaml"]
SMALLEST: dict[str, Any] = {
    "model": {"name": "a/b", "layers": {"encoder": 6, "decoder": 6, "vision": 3}},
    "examples": "config/examples.tsv",
}
LEVELS = "runs.noisy.corrupt.levels"
HEADER = "example\timage\tbase_question\tsource_question"
GOOD_ROW = "shirt\timages/shirt.png\twhat is the color\twhat is the shirt"


def refusal(check: Callable[..., object], *arguments: object) -> str:
    """The message of the InputError that the check ends with, which is one line."""
    with pytest.raises(InputError) as refused:
        check(*arguments)
    message = str(refused.value)
    assert "\n" not in message
    return message


def with_key(path: str, value: object) -> dict[str, Any]:
    """The default configuration with one key set (groups made on the way)."""
    config = yaml.safe_load(SHIPPED[0].read_text())
    *groups, key = path.split(".")
    group = config
    for name in groups:
        group = group.setdefault(name, {})
    group[key] = value
    return config


def write_sheet(folder: Path, *lines: str) -> Path:
    path = folder / "examples.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
