"""The page's and the document's first lines say where the model is a toy, and only there."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from project import ROOT
from stories import FACTS, made_up_run, write_page

from blip_tracing.given.checkpoint import checkpoint_digests
from blip_tracing.printing.document import content_of
from blip_tracing.telling import toy
from blip_tracing.telling.story import tell
from blip_tracing.telling.told import Run

CHECKPOINT = ROOT / "resources/miniature/checkpoint"
CLAIM = "nothing here is a claim about BLIP itself"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made_up_run(tmp_path_factory.mktemp("run"))


def of_weights(run: Run, weights: str) -> Run:
    return replace(run, provenance={"baseline": {**FACTS, "weights_sha256": weights}})


def first_lines(page: str) -> str:
    (lead,) = re.findall(r'<p class="lead">(.*?)</p>', page, re.DOTALL)
    return lead


def test_a_run_of_the_miniature_says_so_first(run: Run, tmp_path: Path) -> None:
    """By its weights: the configuration calls it a-lab/blip here."""
    miniature = of_weights(run, checkpoint_digests(CHECKPOINT)[""])
    page = write_page(miniature, tmp_path / "index.html")
    assert "a miniature" in first_lines(page)
    assert CLAIM in first_lines(page)
    assert CLAIM in content_of(tell(miniature), tmp_path)["lead"]


@pytest.mark.parametrize("weights", ["ab" * 32, "", hashlib.sha256(b"").hexdigest()])
def test_a_run_of_another_model_does_not(run: Run, tmp_path: Path, weights: str) -> None:
    other = of_weights(run, weights)
    assert CLAIM not in write_page(other, tmp_path / "index.html")
    assert CLAIM not in content_of(tell(other), tmp_path)["lead"]


def test_a_checkpoint_in_the_miniatures_folder_is_no_miniature_for_that(run: Run) -> None:
    model = {**run.config["model"], "name": "resources/miniature/checkpoint"}
    assert CLAIM not in tell(replace(run, config={**run.config, "model": model})).lead


def test_a_workflow_without_the_miniature_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = checkpoint_digests(CHECKPOINT)[""]
    assert toy.toy_words(weights)
    kept = shutil.copy(CHECKPOINT / "model.safetensors", tmp_path / "kept")
    monkeypatch.setattr(toy, "MINIATURE", tmp_path / "gone")
    assert toy.toy_words(weights) == ""
    monkeypatch.setattr(toy, "MINIATURE", Path(kept))
    assert toy.toy_words(weights)
