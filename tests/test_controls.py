"""Controls on the engine: what they vouch for, and where they could not have failed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import oracle
import pandas as pd
import pytest
import torch
from checkpoints import random_blip, sharpen
from transformers import BlipForQuestionAnswering

from blip_tracing.controls import NO_OP, TOLERANCE, known_outcomes
from blip_tracing.engine import ResumableBlip, state_index
from blip_tracing.experiments import Batch, check_patches, run_question, trace_noise
from blip_tracing.noise import draw_samples
from blip_tracing.runs import TELLING, count_controls
from blip_tracing.tables import write_table

SITES = ("block_input", "block_output")
VOCABULARY, LAYERS, NOISE = 101, 3, 4.0
BASE, SOURCE = [2, 17, 40, 8, 63, 71, 3], [2, 17, 41, 8, 63, 90, 3]


@dataclass(frozen=True)
class Case:
    """A network by the size of its random weights, a pair of questions, a noise level."""

    weights: float = 0.3
    source: tuple[int, ...] = tuple(SOURCE)
    noise_level: float = NOISE


def ask(
    blip: BlipForQuestionAnswering, source: tuple[int, ...] = tuple(SOURCE)
) -> tuple[ResumableBlip, Batch]:
    """The clean runs of one example."""
    pixels = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        model = ResumableBlip(blip)
        memory = model.read_images(oracle.image_states(blip, pixels))
        runs = [run_question(model, memory, question) for question in (BASE, list(source))]
    states, logits = (
        {"base": base[None], "source": source[None]} for base, source in zip(*runs, strict=True)
    )
    return model, Batch(["one"], memory, states, logits, torch.tensor([[22, 53]]))


def count(case: Case, folder: Path) -> pd.DataFrame:
    """Patch and trace one example at both sites, and count the controls as the reports do."""
    blip = random_blip(VOCABULARY, layers=LAYERS, initializer_range=case.weights)
    model, batch = ask(blip, case.source)
    with torch.inference_mode():
        tables = [table for site in SITES for table in measure(model, batch, site, case)]
    write_table(pd.concat(tables), folder / "controls.parquet")
    return count_controls(folder / "controls.parquet")


def measure(model: ResumableBlip, batch: Batch, site: str, case: Case) -> list[pd.DataFrame]:
    """The controls of both experiments at a site."""
    tables = []
    for layer in range(LAYERS):
        no_op, ceiling = (control[:, None] for control in check_patches(model, batch, site, layer))
        axes: dict[str, list] = {"example": ["one"], "layer": [layer]}
        outcomes = {NO_OP: no_op, "ceiling": ceiling}
        tables += known_outcomes("patching", site, axes, outcomes, "float32")
    noise = draw_samples(3, "one", 1, len(BASE), model.width)[None]
    traced = trace_noise(model, batch, site, [case.noise_level], noise)
    axes = {"example": ["one"], "noise_level": [case.noise_level], "layer": list(range(LAYERS))}
    outcomes = {NO_OP: traced.no_op, "all_restored": traced.all_restored}
    return tables + known_outcomes("tracing", site, axes, outcomes, "float32")


def idle_runs(case: Case, folder: Path) -> dict[Any, int]:
    """Of the six runs (a layer and site) of each control, how many could not have failed."""
    counted = count(case, folder).set_index(["experiment", "control"])
    assert set(counted["checked"]) == {len(SITES) * LAYERS}
    return counted["idle"].to_dict()


EVERY = len(SITES) * LAYERS
PATCHING = {("patching", NO_OP), ("patching", "ceiling")}
TRACING = {("tracing", NO_OP), ("tracing", "all_restored")}


@pytest.mark.parametrize(
    ("case", "idle"),
    [
        (Case(), set()),
        # Of one question, asked twice, the states are the same.
        (Case(source=tuple(BASE)), PATCHING),
        (Case(noise_level=0.0), TRACING),
        (Case(noise_level=1e-9), TRACING),
    ],
    ids=["effects are large", "one question twice", "no noise", "hardly any noise"],
)
def test_a_control_is_idle_where_there_is_nothing_to_miss(
    tmp_path: Path, case: Case, idle: set[tuple[str, str]]
) -> None:
    expected = {control: EVERY * (control in idle) for control in PATCHING | TRACING}
    assert idle_runs(case, tmp_path) == expected


def test_an_untrained_network_answers_alike_whatever_is_put_in(tmp_path: Path) -> None:
    """Its weights are as large as a fresh network's."""
    idle = idle_runs(Case(weights=0.02), tmp_path)
    assert idle["patching", "ceiling"] == EVERY
    assert idle["tracing", "all_restored"] == EVERY


# ---- a deep network, as the full-size test has one ---------------------------------------------


def put_nothing(model, memory, site, layer, hidden, replacement, positions):
    """In place of `engine.intervene`."""
    return model(hidden, memory, layer, site)


def put_a_third(model, memory, site, layer, hidden, replacement, positions):
    """In place of `engine.intervene`: as many numbers as pyvene's own mapping would exchange."""
    width = replacement.shape[-1] // 3
    hidden[..., :width] = replacement[..., :width]
    return model(hidden, memory, layer, site)


def next_state(site, layer):
    """In place of `engine.state_index`: off by a layer."""
    return state_index(site, layer) + 1


FAULTS: dict[str, list[Any]] = {
    "blip_tracing.engine.intervene": [put_nothing, put_a_third],
    "blip_tracing.experiments.state_index": [next_state],
}


def deep_blip() -> BlipForQuestionAnswering:
    """Twelve layers."""
    return random_blip(
        VOCABULARY, hidden=384, layers=12, heads=12, intermediate=1536, initializer_range=0.1
    )


@pytest.mark.parametrize(
    ("place", "fault"), [(place, fault) for place in FAULTS for fault in FAULTS[place]]
)
def test_a_sharpened_deep_network_shows_every_fault(
    place: str, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = ask(sharpen(deep_blip()))
    monkeypatch.setattr(place, fault)
    with torch.inference_mode():
        for layer in range(11):
            _, ceiling = check_patches(model, batch, "block_input", layer)
            assert ceiling.difference.item() > TELLING * TOLERANCE["float32"]


def test_without_it_all_states_become_one_and_controls_are_idle() -> None:
    model, batch = ask(deep_blip())
    with torch.inference_mode():
        _, ceiling = check_patches(model, batch, "block_input", 0)
    assert ceiling.effect.item() < TELLING * TOLERANCE["float32"]
