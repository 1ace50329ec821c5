"""The engine agrees, cell by cell, with a plain loop over the unmodified model."""

import oracle
import pytest
import torch
from checkpoints import random_blip
from pyvene import type_to_dimension_mapping

from blip_tracing.engine import ResumableBlip, intervene, score_answers, state_index
from blip_tracing.experiments import (
    in_batches,
    patch_layer,
    run_question,
    trace_batch,
    trace_noise,
)
from blip_tracing.noise import draw_noise, draw_samples

SITES = ["block_input", "block_output"]
VOCABULARY = 101
BASE, SOURCE = [2, 17, 40, 8, 63, 71, 3], [2, 17, 41, 8, 63, 90, 3]
# What the small model itself answers to BASE and to SOURCE, so that effects are large.
ANSWERS = torch.tensor([22, 53])


@pytest.fixture(scope="module")
def blip():
    """Odd sizes: hidden 48, `image_text_hidden_size` 16, 3 layers."""
    return random_blip(VOCABULARY, hidden=48, image_text_hidden=16, layers=3)


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def image(blip, pixels):
    return oracle.image_states(blip, pixels)


@pytest.fixture(scope="module")
def runs(blip, image):
    """The resumable model, the image's keys and values, and both clean runs' states."""
    with torch.inference_mode():
        model = ResumableBlip(blip)
        memory = model.read_images(image)
        base, _ = run_question(model, memory, BASE)
        source, _ = run_question(model, memory, SOURCE)
    return model, memory, base, source


def probabilities(logits):
    return logits.softmax(-1)[..., ANSWERS]


def test_a_clean_run_gives_the_models_own_logits(blip, image, runs):
    model, memory, *_ = runs
    with torch.inference_mode():
        _, logits = run_question(model, memory, BASE)
    torch.testing.assert_close(logits, oracle.answer_logits(blip, BASE, image), atol=1e-4, rtol=0)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("layer", range(3))
def test_every_patched_cell_agrees(blip, image, runs, site, layer):
    model, memory, base, source = runs
    with torch.inference_mode():
        scores = patch_layer(model, memory, site, layer, base, source, ANSWERS)
    donor = oracle.site_states(blip, SOURCE, image, site, layer)
    truth = torch.stack(
        [
            oracle.patched_logits(blip, BASE, image, site, layer, position, donor[position])
            for position in range(len(BASE))
        ]
    )
    torch.testing.assert_close(scores.probability, probabilities(truth), atol=1e-5, rtol=0)
    torch.testing.assert_close(scores.logit, truth[:, ANSWERS], atol=1e-4, rtol=0)


@pytest.mark.parametrize("site", SITES)
def test_every_traced_cell_and_the_floor_agree(blip, image, runs, site):
    model, memory, base, _ = runs
    noise = draw_samples(3, "example", 2, len(BASE), model.width)
    with torch.inference_mode():
        floor, cells = trace_noise(model, memory, site, [0.7, 4.0], base, noise, ANSWERS)
    for index, sample in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        scaled = [0.7, 4.0][index] * noise[sample]
        truth = oracle.corrupted_logits(blip, BASE, image, scaled)
        torch.testing.assert_close(
            floor.probability[index, sample], probabilities(truth), atol=1e-5, rtol=0
        )
        for layer in range(3):
            clean = oracle.site_states(blip, BASE, image, site, layer)
            for position in range(len(BASE)):
                truth = oracle.restored_logits(
                    blip, BASE, image, scaled, site, layer, position, clean[position]
                )
                torch.testing.assert_close(
                    cells.probability[index, sample, layer, position],
                    probabilities(truth),
                    atol=1e-5,
                    rtol=0,
                )


def test_interventions_are_as_wide_as_the_states(runs):
    """pyvene's own BLIP mapping would swap `image_text_hidden_size` of 48 numbers."""
    model, memory, base, source = runs
    assert set(type_to_dimension_mapping[ResumableBlip].values()) == {("text_config.hidden_size",)}
    hidden = base[1][None].clone()
    with torch.inference_mode():
        intervene(model, memory, "block_input", 1, hidden, source[1][[4]], [4])
    # pyvene writes in place, so what the block read is still there.
    assert torch.equal(hidden[0, 4], source[1][4])
    assert torch.equal(hidden[0, :4], base[1][:4])
    assert torch.equal(hidden[0, 5:], base[1][5:])


def test_the_next_blocks_input_is_a_blocks_output(runs):
    model, memory, base, source = runs
    assert state_index("block_input", 2) == state_index("block_output", 1)
    with torch.inference_mode():
        behind = patch_layer(model, memory, "block_output", 1, base, source, ANSWERS)
        before = patch_layer(model, memory, "block_input", 2, base, source, ANSWERS)
    torch.testing.assert_close(behind.probability, before.probability, atol=1e-6, rtol=0)


def test_the_two_sites_of_a_layer_differ(runs):
    model, memory, base, source = runs
    with torch.inference_mode():
        inputs, outputs = (
            patch_layer(model, memory, site, 1, base, source, ANSWERS) for site in SITES
        )
    assert (inputs.probability - outputs.probability).abs().max() > 1e-3


def test_patching_leaves_the_cached_states_alone(runs):
    model, memory, base, source = runs
    before = base.clone(), source.clone()
    with torch.inference_mode():
        for site in SITES:
            patch_layer(model, memory, site, 0, base, source, ANSWERS)
            trace_noise(model, memory, site, [1.0], base, torch.ones(1, *base[0].shape), ANSWERS)
    assert torch.equal(before[0], base)
    assert torch.equal(before[1], source)


@pytest.mark.parametrize("tokens_a_batch", [1, 100, 10**6])
def test_batches_of_any_size_give_the_same_numbers(pixels, monkeypatch, tokens_a_batch):
    """In float64, where rounding cannot hide a row that reads another."""
    blip = random_blip(VOCABULARY).double()
    with torch.inference_mode():
        model = ResumableBlip(blip)
        images = blip.vision_model(pixel_values=pixels.double()).last_hidden_state
        memory = model.read_images(images)
        base, _ = run_question(model, memory, BASE)
        noise = draw_samples(0, "example", 5, len(BASE), model.width)
        expected = trace_noise(model, memory, "block_input", [1.0, 2.0], base, noise, ANSWERS)
        monkeypatch.setattr("blip_tracing.experiments.TOKENS_A_BATCH", tokens_a_batch)
        found = trace_noise(model, memory, "block_input", [1.0, 2.0], base, noise, ANSWERS)
    for part, whole in zip(found, expected, strict=True):
        torch.testing.assert_close(part.logit, whole.logit, atol=1e-6, rtol=0)


def test_a_batch_that_does_not_fit_is_halved_and_gives_the_same_numbers(runs, monkeypatch):
    model, memory, base, _ = runs
    noise = draw_samples(0, "example", 5, len(BASE), model.width)
    with torch.inference_mode():
        expected = trace_noise(model, memory, "block_input", [1.0, 2.0], base, noise, ANSWERS)
    sizes = []

    def with_little_memory(*arguments):
        sizes.append(len(arguments[-1]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("pretended")
        return trace_batch(*arguments)

    monkeypatch.setattr("blip_tracing.experiments.trace_batch", with_little_memory)
    with torch.inference_mode():
        found = trace_noise(model, memory, "block_input", [1.0, 2.0], base, noise, ANSWERS)
    assert sizes == [10, 5, 2, 2, 2, 2, 2]
    for part, whole in zip(found, expected, strict=True):
        torch.testing.assert_close(part.probability, whole.probability, atol=1e-5, rtol=0)


def test_a_single_row_that_does_not_fit_is_an_error():
    def never(rows):
        raise torch.OutOfMemoryError("pretended")

    with pytest.raises(torch.OutOfMemoryError):
        in_batches(never, torch.zeros(4, 1), 4)


def test_rows_of_several_images_read_their_own(blip, runs):
    model, *_ = runs
    pictures = torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(8))
    with torch.inference_mode():
        images = blip.vision_model(pixel_values=pictures).last_hidden_state
        together = model.read_images(images)
        hidden = model.embeddings(input_ids=torch.tensor([BASE] * 3))
        _, logits = model.run_through(hidden, together)
    for index in range(3):
        truth = oracle.answer_logits(blip, BASE, images[[index]])
        torch.testing.assert_close(logits[index], truth, atol=1e-4, rtol=0)


def test_one_layer_and_one_token_will_do(pixels):
    blip = random_blip(VOCABULARY, layers=1, seed=4)
    with torch.inference_mode():
        model = ResumableBlip(blip)
        memory = model.read_images(blip.vision_model(pixel_values=pixels).last_hidden_state)
        base, _ = run_question(model, memory, [5])
        source, logits = run_question(model, memory, [6])
        scores = patch_layer(model, memory, "block_input", 0, base, source, ANSWERS)
    torch.testing.assert_close(scores.probability[0], probabilities(logits), atol=1e-6, rtol=0)


def test_noise_depends_on_seed_example_and_draw_alone():
    one = draw_noise(0, "cat", 4, 9, 48)
    assert torch.equal(draw_samples(0, "cat", 6, 9, 48)[4], one)
    assert not torch.equal(draw_noise(1, "cat", 4, 9, 48), one)
    assert not torch.equal(draw_noise(0, "dog", 4, 9, 48), one)
    assert not torch.equal(draw_noise(0, "cat", 5, 9, 48), one)


def test_noise_is_standard_normal():
    noise = draw_samples(0, "cat", 50, 9, 768)
    assert noise.mean().abs() < 0.01
    assert (noise.std() - 1).abs() < 0.01


def test_scores_are_the_softmax_and_the_logits():
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    probability, logit = score_answers(logits, torch.tensor([2, 0]))
    torch.testing.assert_close(probability, logits.softmax(-1)[:, [2, 0]])
    assert logit.tolist() == [[3.0, 1.0]]
