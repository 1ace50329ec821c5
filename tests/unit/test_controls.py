"""Controls on the engine: what they vouch for, and where they could not have failed."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import oracle
import pandas as pd
import pytest
import torch
from checkpoints import random_blip, sharpen
from intervene import Asked, Part, control_rows
from transformers import BlipForQuestionAnswering

from blip_tracing.engine.batch import Batch
from blip_tracing.engine.cells import measure
from blip_tracing.engine.controls import TOLERANCE, Control
from blip_tracing.machinery.tables import write_table
from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.models.intervene import replace
from blip_tracing.telling.finished_run import TELLING, count_controls
from blip_tracing.vocabulary.corruptions import KINDS, QUESTION_EMBEDDINGS, Corruption
from blip_tracing.vocabulary.experiment import BASE, SOURCE, Experiment, Run
from blip_tracing.vocabulary.metrics import METRICS
from blip_tracing.vocabulary.sites import SITES, Place, places_of
from blip_tracing.vocabulary.tables import CEILING, NO_OP

# The sites whose states are all that the answer is made from, so that their ceiling is known.
STREAM = tuple(name for name, site in SITES.items() if site.kept)
INPUTS = ("encoder.block_input",)
VOCABULARY, LAYERS, NOISE, DTYPE = 101, 3, 4.0, "float32"
BASE_IDS, SOURCE_IDS = [2, 17, 40, 8, 63, 71, 3], [2, 17, 41, 8, 63, 90, 3]
EXAMPLE = "one"


@dataclass(frozen=True)
class Case:
    """A network by the size of its random weights, a pair of questions, a noise level."""

    weights: float = 0.3
    source: tuple[int, ...] = tuple(SOURCE_IDS)
    noise_level: float = NOISE


def experiments(noise_level: float = NOISE, sites: tuple[str, ...] = STREAM) -> list[Experiment]:
    """Patching, tracing and noising."""
    corruption = Corruption(next(iter(KINDS)), QUESTION_EMBEDDINGS, (noise_level,), 1, seed=3)
    base, source = Run(BASE, BASE), Run(SOURCE, SOURCE)
    noisy = Run("noisy", BASE, corruption)
    return [
        Experiment("patching", base, source, sites),
        Experiment("tracing", noisy, base, sites),
        Experiment("noising", base, noisy, sites),
    ]


def ask(
    blip: BlipForQuestionAnswering, source: tuple[int, ...] = tuple(SOURCE_IDS)
) -> tuple[ResumableBlip, Batch]:
    """The clean runs of one example."""
    pixels = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        model = ResumableBlip(blip)
        images = oracle.image_states(blip, pixels)
        pictures = model.read_pictures(images)
        runs = {
            name: model.run(model.embed(torch.tensor([question]))[:, None], pictures)
            for name, question in ((BASE, BASE_IDS), (SOURCE, list(source)))
        }
    return model, Batch([EXAMPLE], runs, torch.tensor([[[22], [53]]]), images)


def count(case: Case, folder: Path) -> pd.DataFrame:
    """Do the experiments on one example, and count their controls as the reports do."""
    model, batch = ask(
        random_blip(VOCABULARY, layers=LAYERS, initializer_range=case.weights), case.source
    )
    tables = [controls_of(model, batch, asked) for asked in experiments(case.noise_level)]
    write_table(pd.concat(tables), folder / "controls.parquet")
    return count_controls(folder / "controls.parquet")


def controls_of(model: ResumableBlip, batch: Batch, experiment: Experiment) -> pd.DataFrame:
    """The controls of an experiment at all its sites, as its job writes them."""
    layers = list(range(LAYERS))
    asked = Asked(experiment, layers, 1, list(METRICS), DTYPE)
    places = {place: str(place) for place in places_of(experiment.sites, layers)}
    with torch.inference_mode():
        measured = measure(model, batch, experiment, places, 1, asked.metrics)
    # The clean runs are asked for unrelated examples alone, which there are none of.
    no_runs: Any = None
    no_names: Any = None
    parts = [
        Part(
            SITES[site],
            layers,
            [measured[SITES[site].place(layer)] for layer in layers],
            [],
            no_names,
        )
        for site in experiment.sites
    ]
    return pd.concat([control_rows(part, no_runs, asked, batch) for part in parts])


def idle_runs(case: Case, folder: Path) -> dict[Any, int]:
    """Of the runs (a layer and site) of each control, how many could not have failed."""
    counted = count(case, folder).set_index(["experiment", "control"])
    assert set(counted["checked"]) == {EVERY}
    return counted["idle"].to_dict()


EVERY = len(STREAM) * LAYERS
PATCHING, TRACING, NOISING = (
    {(experiment.name, control) for control in (NO_OP, CEILING)} for experiment in experiments()
)


@pytest.mark.parametrize(
    ("case", "idle"),
    [
        (Case(), set()),
        # Of one question, asked twice, the states are the same.
        (Case(source=tuple(BASE_IDS)), PATCHING),
        (Case(noise_level=0.0), TRACING | NOISING),
        (Case(noise_level=1e-9), TRACING | NOISING),
    ],
    ids=["effects are large", "one question twice", "no noise", "hardly any noise"],
)
def test_a_control_is_idle_where_there_is_nothing_to_miss(
    tmp_path: Path, case: Case, idle: set[tuple[str, str]]
) -> None:
    expected = {control: EVERY * (control in idle) for control in PATCHING | TRACING | NOISING}
    assert idle_runs(case, tmp_path) == expected


def test_an_untrained_network_answers_alike_whatever_is_put_in(tmp_path: Path) -> None:
    """Its weights are as large as a fresh network's."""
    idle = idle_runs(Case(weights=0.02), tmp_path)
    for experiment in experiments():
        assert idle[experiment.name, CEILING] == EVERY


# ---- a deep network, as the full-size test has one ---------------------------------------------

DEEP = 12


def put_nothing(model, puts, inputs):
    """In place of `intervene.replace`."""
    return model(**inputs)


def put_a_third(model, puts, inputs):
    """In place of `intervene.replace`: as many numbers as pyvene's own mapping would exchange."""
    narrow = []
    for put in puts:
        width = put.states.shape[-1]
        third = torch.arange(width) < width // 3
        narrow.append(dataclasses.replace(put, chosen=put.chosen & third))
    return replace(model, narrow, inputs)


def next_states(model, run, place):
    """In place of `ResumableBlip.states_at`: off by a layer."""
    return run.stream[place.index + 1]


FAULTS: dict[str, list[Any]] = {
    "blip_tracing.models.blip_vqa.replace": [put_nothing, put_a_third],
    "blip_tracing.models.blip_vqa.ResumableBlip.states_at": [next_states],
}


def deep_blip() -> BlipForQuestionAnswering:
    """Twelve layers."""
    return random_blip(
        VOCABULARY, hidden=384, layers=DEEP, heads=12, intermediate=1536, initializer_range=0.1
    )


def ceilings(model: ResumableBlip, batch: Batch, layers: range) -> dict[Place, Control]:
    """The ceiling of each layer's input, patching."""
    patching, *_ = experiments(sites=INPUTS)
    places = {place: str(place) for place in places_of(INPUTS, layers)}
    with torch.inference_mode():
        measured = measure(model, batch, patching, places, 1, list(METRICS))
    return {place: part.controls[CEILING] for place, part in measured.items()}


@pytest.mark.parametrize(
    ("place", "fault"), [(place, fault) for place in FAULTS for fault in FAULTS[place]]
)
def test_a_sharpened_deep_network_shows_every_fault(
    place: str, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = ask(sharpen(deep_blip()))
    layers = range(DEEP - 1)
    for ceiling in ceilings(model, batch, layers).values():
        assert ceiling.difference.item() <= TOLERANCE[DTYPE]
    monkeypatch.setattr(place, fault)
    found = ceilings(model, batch, layers)
    assert len(found) == len(layers)
    for ceiling in found.values():
        assert ceiling.difference.item() > TELLING * TOLERANCE[DTYPE]


def test_without_it_all_states_become_one_and_controls_are_idle() -> None:
    model, batch = ask(deep_blip())
    (ceiling,) = ceilings(model, batch, range(1)).values()
    assert ceiling.effect.item() < TELLING * TOLERANCE[DTYPE]
