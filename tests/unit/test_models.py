"""Every model agrees, cell by cell, with a plain loop over the unmodified Hugging Face model."""

import oracle
import pytest
import torch
from checkpoints import random_blip
from pyvene import type_to_dimension_mapping

from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.models.plain import PlainBlip
from blip_tracing.vocabulary.sites import SITES, places_of

VOCABULARY, LAYERS = 101, 3
BASE, SOURCE = [2, 17, 40, 8, 63, 71, 3], [2, 17, 41, 8, 63, 90, 3]
CELLS = [(site, layer) for site in SITES for layer in range(LAYERS)]
STREAM = [(site, layer) for site, layer in CELLS if SITES[site].boundary is not None]


@pytest.fixture(scope="module")
def blip():
    """Odd sizes: hidden 48, `image_text_hidden_size` 16, 3 layers."""
    return random_blip(VOCABULARY, hidden=48, image_text_hidden=16, layers=LAYERS)


@pytest.fixture(scope="module")
def image(blip):
    pixels = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(5))
    return oracle.image_states(blip, pixels)


@pytest.fixture(scope="module", params=[ResumableBlip, PlainBlip])
def model(request, blip):
    return request.param(blip)


@pytest.fixture(scope="module")
def runs(model, image):
    """The clean runs of BASE and SOURCE, one example, one variant each."""
    with torch.inference_mode():
        pictures = model.read_pictures(image)
        inputs = model.embed(torch.tensor([BASE, SOURCE]))
        return [model.run(part[None, None].clone(), pictures) for part in inputs]


def test_a_run_gives_the_models_own_logits(blip, image, runs):
    for run, question in zip(runs, (BASE, SOURCE), strict=True):
        truth = oracle.answer_logits(blip, question, image)
        torch.testing.assert_close(run.logits[0, 0], truth, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("site", "layer"), CELLS)
def test_what_flows_through_a_site_is_what_a_hook_sees_there(blip, image, model, runs, site, layer):
    with torch.inference_mode():
        states = model.states_at(runs[0], SITES[site].place(layer))[0, 0]
    truth = oracle.site_states(blip, BASE, image, site, layer)
    torch.testing.assert_close(states, truth, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("site", "layer"), CELLS)
def test_every_patched_cell_agrees(blip, image, model, runs, site, layer):
    base, source = runs
    place = SITES[site].place(layer)
    with torch.inference_mode():
        donors = model.states_at(source, place)
        logits = model.patch_each(base, place, donors, [0])[0, 0]
    donor = oracle.site_states(blip, SOURCE, image, site, layer)
    for position in range(len(BASE)):
        truth = oracle.patched_logits(blip, BASE, image, site, layer, position, donor[position])
        torch.testing.assert_close(
            logits[position].softmax(-1), truth.softmax(-1), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(logits[position], truth, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("site", "layer"), STREAM)
def test_all_positions_of_the_stream_give_the_donors_run(model, runs, site, layer):
    base, source = runs
    place = SITES[site].place(layer)
    with torch.inference_mode():
        logits = model.patch_all(base, place, model.states_at(source, place), [0])
        alone = model.resume(base, place, [0])
    torch.testing.assert_close(logits, source.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(alone, base.logits, atol=1e-4, rtol=0)
    assert (logits - alone).abs().max() > 0.1


def test_variants_and_their_own_pictures_are_not_mixed_up(blip, model):
    """Two examples, three variants, each with a picture of its own; one variant twice."""
    pixels = torch.randn(6, 3, 24, 24, generator=torch.Generator().manual_seed(8))
    noise = torch.randn(2, 3, len(BASE), 48, generator=torch.Generator().manual_seed(9))
    site, layer, of = next(iter(SITES)), 1, [2, 0, 2, 1]
    place = SITES[site].place(layer)
    with torch.inference_mode():
        images = blip.vision_model(pixel_values=pixels).last_hidden_state
        pictures = model.read_pictures(images.unflatten(0, (2, 3)))
        questions = model.embed(torch.tensor([BASE, SOURCE]))
        run = model.run(questions[:, None] + noise, pictures)
        donors = torch.randn(2, 4, len(BASE), 48, generator=torch.Generator().manual_seed(1))
        logits = model.patch_each(run, place, donors, of)
    for example, question in enumerate((BASE, SOURCE)):
        for row, variant in enumerate(of):
            image = images[[3 * example + variant]]
            truth = oracle.restored_logits(
                blip, question, image, noise[example, variant], site, layer, 4,
                donors[example, row, 4],
            )  # fmt: skip
            torch.testing.assert_close(logits[example, row, 4], truth, atol=1e-4, rtol=0)


def test_a_run_is_left_as_it_was(model, runs):
    base, source = runs
    before = base.stream.clone(), source.stream.clone()
    with torch.inference_mode():
        for place in places_of(SITES, range(LAYERS)):
            donors = model.states_at(source, place)
            model.patch_each(base, place, donors, [0])
            model.patch_all(base, place, donors, [0])
            model.resume(base, place, [0])
    assert torch.equal(base.stream, before[0])
    assert torch.equal(source.stream, before[1])


def test_interventions_are_as_wide_as_the_states(model):
    """pyvene's own BLIP mapping would swap `image_text_hidden_size` of 48 numbers."""
    assert set(type_to_dimension_mapping[type(model)].values()) == {("text_config.hidden_size",)}


def test_a_site_with_two_names_is_measured_once():
    places = places_of(["encoder.block_input", "encoder.block_output"], range(LAYERS))
    assert len(places) == LAYERS + 1
    names = places[SITES["encoder.block_input"].place(1)]
    assert names == [("encoder.block_input", 1), ("encoder.block_output", 0)]
