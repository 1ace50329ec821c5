"""The benchmark of sites times the same work both ways, and says what it extrapolates."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import sites, speed
from benchmarks.bound import Shape, operations
from blip_tracing.vocabulary.sites import SITES

SHAPE = Shape(
    hidden=32, layers=3, heads=2, intermediate=40, vocabulary=200, image_size=48, patch_size=8
)


@pytest.fixture(scope="module")
def example():
    with torch.inference_mode():
        return sites.prepare(SHAPE, torch.device("cpu"))


@pytest.fixture(scope="module", params=sites.WORKLOADS, ids=lambda workload: workload.name)
def workload(request):
    return request.param


@pytest.fixture(scope="module")
def timed(example, workload):
    with torch.inference_mode():
        return sites.time_both(example, SHAPE, workload, 1)


def test_both_ways_give_the_same_logits(timed):
    assert timed.difference < 1e-3


def test_cells_are_all_layers_positions_and_heads_and_those_of_the_null(timed, workload):
    positions = {"encoder": 9, "decoder": 1, "vision": 37}[workload.tower]
    heads = [2 if site.endswith("_heads") else 1 for site in workload.sites]
    null = 0 if workload.name in ("encoder heads", "vision regions") else 5
    assert timed.cells == 3 * positions * sum(heads) * (1 + null)


def test_the_bound_is_the_sum_over_cells(timed, workload):
    rows = timed.cells // 3 // sum(2 if site.endswith("_heads") else 1 for site in workload.sites)
    put = 1  # 36 patches and [CLS] are 37 regions
    total = 0.0
    for site in workload.sites:
        count = rows * (2 if SITES[site].heads else 1)
        for layer in range(3):
            for _ in range(count):
                total += operations(SHAPE, SITES[site], layer, workload.window, 9, put)
    assert timed.operations == pytest.approx(total)


def test_what_is_extrapolated_is_said(timed, workload, capsys):
    sites.report(dict.fromkeys((each.name for each in sites.WORKLOADS), timed), SHAPE, 1e9)
    printed = capsys.readouterr().out
    assert "vision regions: the engine at layers 1, extrapolated to all" in printed
    assert "encoder stream: the engine at layers" not in printed
    assert "the skilled user's way: one layer of each site, extrapolated to all" in printed


@pytest.mark.parametrize("count", [3, 12])
def test_a_sample_of_layers_lies_evenly_about_their_middle(workload, count):
    layers = list(workload.layers(count))
    assert sum(layers) / len(layers) == (count - 1) / 2


def test_the_engine_runs_the_tutorials_experiment_stage_by_stage():
    shape = speed.SHAPES["small"]
    blip = speed.build_model(shape)
    tokens = torch.arange(10, 10 + speed.TOKENS)[None]
    pixels = torch.randn(1, 3, shape.image_size, shape.image_size)
    inputs = {"base": tokens, "source": tokens + 20, "pixels": pixels}
    with torch.inference_mode():
        for work in speed.run_engine(blip, inputs).values():
            work()
