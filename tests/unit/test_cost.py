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
    # Both rows of the sheet are of one question, and each is the other's only donor.
    rows = 2 * ((1 + 1) * 9 + 3)
    assert second.operations - first.operations == pytest.approx(rows * decoder_alone)


def test_more_tokens_and_draws_cost_more():
    short, long = costs(plan_of(), 6), costs(plan_of(), 12)
    assert long["intervene tracing"].operations > 3 * short["intervene tracing"].operations


def interventions(plan, experiment):
    """Rows of all positions that the places of one example cost, beside the controls'."""
    sizes, asked = Sizes(BASE), plan.experiments[experiment]
    resumed = sum(
        (12 - layer) * sizes.block(9) + sizes.decoder(9) for layer in range(12)
    )  # fmt: skip
    levels = max(1, len(asked.levels))
    runs = levels * asked.draws * sizes.run(9) if asked.corrupted else 0
    operations = costs(plan)[f"intervene {experiment}"].operations / len(plan.examples)
    return ((operations - runs) / resumed - 3 * levels) / 9


@pytest.mark.parametrize(
    ("controls", "patching", "tracing"),
    [
        # Without draws a null a donor; with draws one a draw, whatever the number of donors.
        ({}, 1 + 5, 7 * (10 + 10)),
        ({"donors": 2}, 1 + 2, 7 * (10 + 10)),
        ({"donors": 50}, 1 + 7, 7 * (10 + 10)),
        ({"null_draws": 3}, 1 + 5, 7 * (10 + 3)),
    ],
)
def test_the_null_is_counted(controls, patching, tracing):
    rows = [row | {"base_question": f"q{n}"} for n, row in enumerate(sheet(8))]
    model = {"name": "m", "layers": SIZES}
    plan = Plan(config_of(model=model, runs=TUTORIAL, controls=controls), rows)
    assert interventions(plan, "patching") == pytest.approx(patching)
    assert interventions(plan, "tracing") == pytest.approx(tracing)
    alone = Plan(config_of(model=model, runs=TUTORIAL, controls=controls), rows[:1])
    assert interventions(alone, "tracing") == pytest.approx(7 * 10)


def test_an_estimate_says_that_it_is_extrapolated_and_what_it_assumes():
    text = told(costs_of(plan_of(), BASE, {"e0": 9, "e1": 9}), 1e11, "a core", ["no tokenizer"])
    assert "extrapolated from 100 GFLOP/s" in text
    assert text.endswith("assumed: no tokenizer")
