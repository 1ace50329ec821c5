"""What a run will cost is counted from the plan, and is what torch counts where the model runs."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from checkpoints import random_blip
from estimate import told
from test_plan import config_of, sheet
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from blip_tracing.engine.batch import Batch
from blip_tracing.engine.cells import measure
from blip_tracing.given.architecture import Architecture
from blip_tracing.given.cost import BLIP_BASE, Lengths, Nulls, Sizes, costs_of
from blip_tracing.given.plan import Part, Plan
from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.models.family import Patch
from blip_tracing.vocabulary.corruptions import Corruption
from blip_tracing.vocabulary.experiment import Experiment, Run
from blip_tracing.vocabulary.sites import SITES, places_of, window_of

TUTORIAL = {
    "noisy": {"of": "base", "corrupt": {"levels": [0.1, 0.5, 1, 2, 5, 10, 20], "draws": 10}}
}
LAYERS = {"encoder": 12, "decoder": 12, "vision": 12}
ROLES, NINE = 5, Lengths(9)
# All layers in one job, and stages apart none the less.
APART = {"layers_per_job": 12, "shard_size": 1}


def plan_of(rows=2, **given):
    model = {"name": "m", "layers": LAYERS}
    return Plan(config_of(**{"model": model, "runs": TUTORIAL, **given}), sheet(rows))


def costs(plan, lengths=NINE):
    each = dict.fromkeys(plan.examples, lengths)
    return {cost.stage: cost for cost in costs_of(plan, BLIP_BASE, each)}


def put(*sites, **asked):
    return {"put": {"receiver": "base", "donor": "source", "sites": list(sites), **asked}}


# --- jobs and cells


def test_cells_and_jobs_are_those_of_the_tables():
    found = costs(plan_of())
    assert found["intervene patching"].cells == 2 * 12 * 9
    assert found["intervene tracing"].cells == 2 * 12 * 9 * 7 * 10
    assert found["intervene tracing"].jobs == 7
    assert found["intervene patching"].jobs == 12
    assert found["encode_images"].cells == 0


@pytest.mark.parametrize(
    ("asked", "cells"),
    [
        (put("encoder.mlp", window=3), 12 * 9),
        (put("encoder.mlp", positions="all"), 12),
        (put("encoder.mlp", positions="roles"), 12 * ROLES),
        (put("encoder.cross_attention_heads"), 12 * 12 * 9),
        (put("encoder.cross_attention_heads", heads=[3, 7]), 12 * 2 * 9),
        # heads are of sites of heads alone
        (put("encoder.cross_attention_heads", "encoder.mlp", heads=[3]), 2 * 12 * 9),
        # [DEC], and the one token that is read of an answer of two
        (put("decoder.block_output"), 12 * 2),
        (put("decoder.block_output", positions="roles"), 12 * 2),
        # [CLS] and regions, or [CLS] and 24 × 24 patches
        (put("vision.block_output"), 12 * 37),
        (put("vision.block_output", regions=4), 12 * 17),
        (put("vision.block_output", regions=0), 12 * 577),
        # [CLS], two boxes, and the rest
        (put("vision.block_output", positions="roles"), 12 * 4),
        (put("vision.self_attention_heads", positions="all"), 12 * 12),
        (put("encoder.mlp", "decoder.mlp", "vision.mlp"), 12 * (9 + 2 + 37)),
    ],
)
def test_every_head_and_position_of_every_layer_is_a_cell(asked, cells):
    lengths = Lengths(9, answer=2, boxes=2)
    found = costs(plan_of(experiments=asked), lengths)["intervene put"]
    assert found.cells == 2 * cells


def test_a_tower_of_fewer_layers_has_fewer_cells():
    model = replace(BLIP_BASE, vision=replace(BLIP_BASE.vision, layers=3))
    asked = plan_of(experiments=put("encoder.mlp", "vision.mlp"), layers_per_job=1)
    (found,) = (
        cost
        for cost in costs_of(asked, model, dict.fromkeys(asked.examples, NINE))
        if cost.stage == "intervene put"
    )
    assert found.cells == 2 * (12 * 9 + 3 * 37)


def test_one_job_is_counted_as_one():
    found = costs(plan_of(layers_per_job=12, noise_levels_per_job=7))
    assert list(found) == ["measure_at_once"]
    assert found["measure_at_once"].jobs == 1


# --- operations of an experiment


def test_a_second_name_of_a_place_costs_one_place_more():
    """block_output[l] is block_input[l + 1]: of 24 names 13 places are measured."""
    both = ["encoder.block_input", "encoder.block_output"]
    one, two = (costs(plan_of(experiments=put(*sites), **APART)) for sites in (both[:1], both))
    first, second = one["intervene put"], two["intervene put"]
    assert second.cells == 2 * first.cells
    decoder_alone = Sizes(BLIP_BASE, ROLES).decoder(NINE)
    # Both rows of the sheet are of one question, and each is the other's only donor.
    rows = 2 * ((1 + 1) * 9 + 4)
    assert second.operations - first.operations == pytest.approx(rows * decoder_alone)


def test_a_corrupted_picture_is_projected_anew_in_each_variant():
    """To keys and values of 577 states, 768 wide, in each of twelve blocks."""
    projected = 2 * 12 * 577 * 768 * 768 * 2  # of keys and values, two operations each
    told = {}
    for at in ("question.embeddings", "picture.states"):
        runs = {"noisy": {"of": "base", "corrupt": {"levels": [1, 5], "draws": 3, "at": at}}}
        told[at] = costs(plan_of(runs=runs, **APART))
    for stage in ("run_corrupted noisy", "intervene tracing"):
        text, picture = (told[at][stage].operations for at in told)
        assert picture - text == pytest.approx(2 * 2 * 3 * projected)


def test_fresh_noise_costs_a_corrupted_run_a_cell():
    """Each of which reads a picture of its own, where cells that share draws read but a few."""
    found = {}
    for fresh in (False, True):
        corrupt = {"levels": [1, 5], "draws": 3, "at": "picture.states", "fresh": fresh}
        plan = plan_of(runs={"noisy": {"of": "base", "corrupt": corrupt}}, **APART)
        found[fresh] = costs(plan)
    shared, fresh = (found[key]["intervene tracing"] for key in (False, True))
    sizes = Sizes(BLIP_BASE, ROLES)
    own = sizes.run(NINE) + sizes.reading()
    assert fresh.cells == shared.cells == 2 * 12 * 9 * 2 * 3
    assert fresh.operations - shared.operations == pytest.approx(fresh.cells * own)
    assert found[True]["run_corrupted noisy"] == found[False]["run_corrupted noisy"]


def test_more_tokens_and_draws_cost_more():
    short, long = costs(plan_of(), Lengths(6)), costs(plan_of(), Lengths(12))
    assert long["intervene tracing"].operations > 3 * short["intervene tracing"].operations


def test_windows_that_differ_cost_a_place_each():
    """A run into which three layers are put begins at the first of them."""
    sizes = Sizes(BLIP_BASE, ROLES)
    found = costs(plan_of(experiments=put("encoder.mlp_neurons", window=3), **APART))
    blocks = sum(12 - max(0, layer - 1) for layer in range(12))
    rows = (1 + 1) * 9 + 4
    resumed = rows * (blocks * sizes.encoder_block(9) + 12 * sizes.decoder(NINE))
    # The states of the donor, of its null's, and of the receiver at each place of each window.
    windows = [len(window_of(layer, 3, 12)) for layer in range(12)]
    donors = 3 * sum(windows) * sizes.encoder_block(9)
    pictures = 2 * sizes.reading()
    assert found["intervene put"].operations == pytest.approx(2 * (resumed + donors + pictures))


def test_a_cell_costs_what_its_place_does_by_its_cells():
    """Both streams of the encoder, twelve layers deep, and a head's part of a block inside."""
    sizes = Sizes(BLIP_BASE, ROLES)
    stream = plan_of(experiments=put("encoder.block_input")).experiments["put"]
    block, decoder = sizes.encoder_block(9), sizes.decoder(NINE)
    truth = sum((12 - layer) * block + decoder for layer in range(12)) / 12
    assert sizes.a_cell(stream, NINE) == pytest.approx(truth)
    heads = plan_of(experiments=put("encoder.cross_attention_heads")).experiments["put"]
    truth = sum((11 - layer) * block + decoder + block / 9 for layer in range(12)) / 12
    assert sizes.a_cell(heads, NINE) == pytest.approx(truth)


@pytest.mark.parametrize(
    ("place", "pictures", "readings"),
    [("question.embeddings", 0, 0), ("picture.states", 0, 1), ("picture.pixels", 1, 1)],
)
def test_a_corrupted_picture_is_read_anew_in_every_draw(place, pictures, readings):
    runs = {"noisy": {"of": "base", "corrupt": {"at": place, "levels": [1], "draws": 3}}}
    found = costs(plan_of(runs=runs))["run_corrupted noisy"]
    sizes = Sizes(BLIP_BASE, ROLES)
    each = sizes.run(NINE) + pictures * sizes.picture + readings * sizes.reading()
    assert found.operations == pytest.approx(2 * (3 * each + sizes.reading()))


@pytest.mark.parametrize(("place", "pictures"), [("picture.states", 0), ("picture.pixels", 1)])
def test_a_picture_that_is_corrupted_too_is_read_anew_in_every_draw(place, pictures):
    corrupt = {"levels": [1], "draws": 3, "also": {"at": place, "level": 5}}
    runs = {"noisy": {"of": "base", "corrupt": corrupt}}
    found = costs(plan_of(runs=runs))["run_corrupted noisy"]
    sizes = Sizes(BLIP_BASE, ROLES)
    each = sizes.run(NINE) + pictures * sizes.picture + sizes.reading()
    assert found.operations == pytest.approx(2 * (3 * each + sizes.reading()))


def interventions(plan, experiment):
    """Rows of all positions that the places of one example cost, beside the controls'."""
    sizes, asked = Sizes(BLIP_BASE, ROLES), plan.experiments[experiment]
    resumed = sum(
        (12 - layer) * sizes.encoder_block(9) + sizes.decoder(NINE) for layer in range(12)
    )
    levels = max(1, len(asked.levels))
    runs = levels * asked.draws * sizes.run(NINE) if asked.corrupted else 0
    read = sum(sizes.reading(min(part.layers)) for part in plan.parts[experiment].values())
    operations = costs(plan)[f"intervene {experiment}"].operations / len(plan.examples)
    return ((operations - runs - read) / resumed - 4 * levels) / 9


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
    model = {"name": "m", "layers": LAYERS}
    plan = Plan(config_of(model=model, runs=TUTORIAL, controls=controls), rows)
    assert interventions(plan, "patching") == pytest.approx(patching)
    assert interventions(plan, "tracing") == pytest.approx(tracing)
    alone = Plan(config_of(model=model, runs=TUTORIAL, controls=controls), rows[:1])
    assert interventions(alone, "tracing") == pytest.approx(7 * 10)


def test_an_estimate_says_that_it_is_extrapolated_and_what_it_assumes():
    lengths = {"e0": NINE, "e1": NINE}
    text = told(costs_of(plan_of(), BLIP_BASE, lengths), 1e11, "a core", ["no tokenizer"])
    assert "extrapolated from 100 GFLOP/s" in text
    assert text.endswith("assumed: no tokenizer")


# --- against torch's counter

SMALL = {"layers": 3, "heads": 4, "hidden": 48, "intermediate": 80, "image_size": 24}
TOKENS, VARIANTS, VOCABULARY = 6, 2, 37
# Norms, softmax and the like are no products, and torch does not count them either.
TOLERANCE = 0.001


@pytest.fixture(scope="module")
def blip():
    return random_blip(VOCABULARY, **SMALL)


@pytest.fixture(scope="module")
def model(blip):
    return ResumableBlip(blip)


@pytest.fixture(scope="module")
def sizes(blip):
    return Sizes(Architecture.from_config(blip.config.to_dict() | NAMED, "small"), ROLES)


NAMED = {"architectures": ["BlipForQuestionAnswering"]}


def counted(work):
    """The operations of the products that a call makes, attention's on a processor among them."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def attend(queries, keys, values, *_, out_shape=None, **__):
        return sdpa_flop_count(queries, keys, values)

    with (
        torch.inference_mode(),
        FlopCounterMode(display=False, custom_mapping={attention: attend}) as counter,
    ):
        found = work()
    return counter.get_total_flops(), found


def states_of(blip):
    with torch.inference_mode():
        pixels = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
        return blip.vision_model(pixel_values=pixels).last_hidden_state


def runs_of(model, blip, answers):
    """One example's run, twice as variants."""
    with torch.inference_mode():
        pixels = torch.randn(1, 1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
        inputs = model.embed(torch.tensor([[2, 5, 6, 7, 8, 3]]))[:, None].expand(
            -1, VARIANTS, -1, -1
        )
        return model.run(inputs.clone(), model.read_pictures(states_of(blip)), answers, pixels)


ANSWERS = {1: torch.tensor([[[9], [10]]]), 3: torch.tensor([[[9, 4, 5], [10, 6, -1]]])}


def test_a_picture_costs_what_torch_counts(blip, sizes):
    pixels = torch.zeros(1, 3, 24, 24)
    found, _ = counted(lambda: blip.vision_model(pixel_values=pixels))
    assert found == pytest.approx(sizes.picture, rel=TOLERANCE)


def test_reading_a_picture_costs_what_torch_counts(model, blip, sizes):
    states = states_of(blip)
    for first in range(3):
        found, _ = counted(partial(model.read_pictures, states, first))
        assert found == pytest.approx(sizes.reading(first), rel=TOLERANCE)


@pytest.mark.parametrize("length", ANSWERS)
def test_a_run_costs_what_torch_counts(model, blip, sizes, length):
    with torch.inference_mode():
        pictures = model.read_pictures(states_of(blip))
        inputs = model.embed(torch.tensor([[2, 5, 6, 7, 8, 3]]))[:, None]
    found, _ = counted(lambda: model.run(inputs, pictures, ANSWERS[length]))
    assert found == pytest.approx(sizes.run(Lengths(TOKENS, length)), rel=TOLERANCE)


@pytest.mark.parametrize(("layer", "window", "length"), [(1, 1, 3), (2, 2, 1)])
@pytest.mark.parametrize("site", SITES)
def test_an_intervention_costs_what_torch_counts(model, blip, sizes, site, layer, window, length):
    row = SITES[site]
    places = [row.place(at) for at in window_of(layer, window, 3)]
    run, heads = runs_of(model, blip, ANSWERS[length]), [0, 2] if row.heads else [None]
    positions = 2
    with torch.inference_mode():
        donors = [model.states_at(run, place) for place in places]
    size = donors[0].shape[2]
    units = torch.zeros(1, positions * len(heads), size, dtype=torch.bool)
    units[..., 0] = True
    patch = Patch(places, donors, units, [head for head in heads for _ in range(positions)])
    found, outcome = counted(lambda: model.patch(run, patch, range(VARIANTS)))
    assert outcome.logits.shape == (1, VARIANTS, positions * len(heads), VOCABULARY)
    lengths = Lengths(TOKENS, length)
    truth = sizes.patch(row, places, VARIANTS, len(heads), positions, lengths)
    assert found == pytest.approx(truth, rel=TOLERANCE)


# --- a job as the engine does it

NOISY = Run("noisy", "base", Corruption("gaussian", "question.embeddings", (1.0, 2.0), 3, 0))
FRESH = Run(
    "noisy", "base", Corruption("multiplicative", "picture.states", (1.0,), 3, 0, fresh=True)
)
BASE_RUN, SOURCE_RUN = Run("base", "base"), Run("source", "source")
EXPERIMENTS = [
    Experiment("a", BASE_RUN, SOURCE_RUN, ("encoder.block_input", "encoder.block_output")),
    Experiment("a", BASE_RUN, SOURCE_RUN, ("encoder.mlp", "encoder.cross_attention_heads")),
    Experiment("a", BASE_RUN, SOURCE_RUN, ("encoder.self_attention",), window=3),
    Experiment("a", BASE_RUN, SOURCE_RUN, ("encoder.mlp",), positions="all"),
    Experiment("a", BASE_RUN, SOURCE_RUN, ("decoder.block_output", "decoder.mlp_neurons")),
    Experiment("a", BASE_RUN, SOURCE_RUN, ("vision.block_output", "vision.mlp"), regions=2),
    Experiment("a", BASE_RUN, SOURCE_RUN, ("vision.self_attention_heads",), regions=0, heads=(1,)),
    Experiment("a", NOISY, BASE_RUN, ("encoder.block_input", "encoder.cross_attention")),
    *(Experiment("a", *ends, ("encoder.cross_attention",)) for ends in (
        (FRESH, BASE_RUN), (BASE_RUN, FRESH),
    )),
    Experiment("a", FRESH, BASE_RUN, ("encoder.self_attention_heads",), heads=(0, 2)),
    Experiment("a", FRESH, BASE_RUN, ("decoder.block_output", "encoder.block_output")),
]  # fmt: skip


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda asked: asked.sites[0])
def test_a_job_costs_about_what_torch_counts(model, blip, sizes, experiment):
    """But for the one control a job that puts in all contributions, and a picture read before."""
    answers, layers = ANSWERS[3], list(range(3))
    with torch.inference_mode():
        states, runs = [], {}
        for seed, question in enumerate(("base", "source")):
            pixels = torch.randn(1, 1, 3, 24, 24, generator=torch.Generator().manual_seed(seed))
            states.append(blip.vision_model(pixel_values=pixels[0]).last_hidden_state)
            inputs = model.embed(torch.tensor([[2, 5, 6, 7 + seed, 8, 3]]))[:, None]
            pictures = model.read_pictures(states[-1])
            runs[question] = model.run(inputs, pictures, answers, pixels)
    batch = Batch(["one"], runs, answers, states[0])
    places = dict.fromkeys(places_of(experiment.sites, layers, experiment.window), "here")
    found, measured = counted(
        lambda: measure(model, batch, experiment, places, None, ["probability"])
    )
    cells = {part.cells.columns["p_base"].shape for part in measured.values()}
    lengths, part = Lengths(TOKENS, 3), Part(layers, list(experiment.levels))
    units = sizes.units(experiment, SITES[experiment.sites[0]].tower, lengths)
    variants = max(1, len(experiment.levels)) * experiment.draws
    assert all(shape[:2] == (1, variants) and shape[2] % units == 0 for shape in cells)
    truth = sizes.part(experiment, part, Nulls(0, 0), lengths) - sizes.reading()
    assert found == pytest.approx(truth, rel=0.1)
