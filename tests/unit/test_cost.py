"""What a run will cost is counted from the plan, and agrees with what the engine then does."""

import pytest
from estimate import told
from test_plan import config_of, sheet

from blip_tracing.given.architecture import Architecture
from blip_tracing.given.cost import Sizes, costs_of
from blip_tracing.given.plan import Plan

BASE = Architecture.from_config(
    {"model_type": "blip", "architectures": ["BlipForQuestionAnswering"]}, "BLIP-base"
)
TUTORIAL = {
    "noisy": {"of": "base", "corrupt": {"levels": [0.1, 0.5, 1, 2, 5, 10, 20], "draws": 10}}
}
SIZES = {"encoder": 12, "decoder": 12, "vision": 12}


def plan_of(**given):
    model = {"name": "m", "layers": SIZES}
    return Plan(config_of(model=model, runs=TUTORIAL, **given), sheet(2))


def costs(plan, tokens=9):
    return {cost.stage: cost for cost in costs_of(plan, BASE, dict.fromkeys(plan.examples, tokens))}


def test_cells_and_jobs_are_those_of_the_tables():
    found = costs(plan_of())
    assert found["intervene patching"].cells == 2 * 12 * 9
    assert found["intervene tracing"].cells == 2 * 12 * 9 * 7 * 10
    assert found["intervene tracing"].jobs == 7
    assert found["intervene patching"].jobs == 12
    assert found["encode_images"].cells == 0


def test_one_job_is_counted_as_one():
    found = costs(plan_of(layers_per_job=12, noise_levels_per_job=7))
    assert list(found) == ["measure_at_once"]
    assert found["measure_at_once"].jobs == 1


def test_a_second_name_of_a_place_costs_one_place_more():
    """block_output[l] is block_input[l + 1]: of 24 names 13 places are measured."""
    both = ["encoder.block_input", "encoder.block_output"]
    one, two = (
        costs(
            plan_of(
                experiments={"patching": {"receiver": "base", "donor": "source", "sites": sites}}
            )
        )
        for sites in (both[:1], both)
    )
    first, second = one["intervene patching"], two["intervene patching"]
    assert second.cells == 2 * first.cells
    decoder_alone = Sizes(BASE).decoder(9)
    rows = 2 * ((1 + 1) * 9 + 3)
    assert second.operations - first.operations == pytest.approx(rows * decoder_alone)


def test_more_tokens_and_draws_cost_more():
    short, long = costs(plan_of(), 6), costs(plan_of(), 12)
    assert long["intervene tracing"].operations > 3 * short["intervene tracing"].operations


def test_an_estimate_says_that_it_is_extrapolated_and_what_it_assumes():
    text = told(costs_of(plan_of(), BASE, {"e0": 9, "e1": 9}), 1e11, "a core", ["no tokenizer"])
    assert "extrapolated from 100 GFLOP/s" in text
    assert text.endswith("assumed: no tokenizer")
