"""The engine agrees, cell by cell, with a plain loop over the unmodified model."""

import copy

import oracle
import pytest
import torch
from checkpoints import random_blip
from pyvene import type_to_dimension_mapping

from blip_tracing.controls import check_control
from blip_tracing.engine import ResumableBlip, intervene, score_answers, state_index
from blip_tracing.errors import MeasurementError
from blip_tracing.experiments import (
    Batch,
    Control,
    Scores,
    Traced,
    check_patches,
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


def batch_of(model, memory, base, source, unrelated=None):
    """A batch of one example, from its runs' states (L + 1, T, D)."""
    states = {"base": base[None], "source": source[None]}
    logits = {run: model.decoder(states[run][:, -1]) for run in states}
    if unrelated is not None:
        states["unrelated"] = unrelated[None]
    return Batch(["example"], memory, states, logits, ANSWERS[None])


@pytest.fixture(scope="module")
def batch(runs):
    model, memory, base, source = runs
    with torch.inference_mode():
        return batch_of(model, memory, base, source)


def null_of(traced: Traced) -> Scores:
    """The null, which is there because the batch has unrelated examples."""
    assert traced.null is not None
    return traced.null


def probabilities(logits):
    return logits.softmax(-1)[..., ANSWERS]


def test_a_clean_run_gives_the_models_own_logits(blip, image, runs):
    model, memory, *_ = runs
    with torch.inference_mode():
        _, logits = run_question(model, memory, BASE)
    torch.testing.assert_close(logits, oracle.answer_logits(blip, BASE, image), atol=1e-4, rtol=0)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("layer", range(3))
def test_every_patched_cell_agrees(blip, image, runs, batch, site, layer):
    model, *_ = runs
    with torch.inference_mode():
        scores = patch_layer(model, batch, site, layer)[0, 0]
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
def test_every_traced_cell_and_the_floor_agree(blip, image, runs, batch, site):
    model, *_ = runs
    noise = draw_samples(3, "example", 2, len(BASE), model.width)
    with torch.inference_mode():
        traced = trace_noise(model, batch, site, [0.7, 4.0], noise[None])
    floor, cells = traced.floor[0,], traced.cells[0,]
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
        intervene(model, memory, "block_input", 1, hidden, source[1][None, [4]], [[4]])
    # pyvene writes in place, so what the block read is still there.
    assert torch.equal(hidden[0, 4], source[1][4])
    assert torch.equal(hidden[0, :4], base[1][:4])
    assert torch.equal(hidden[0, 5:], base[1][5:])


def test_the_next_blocks_input_is_a_blocks_output(runs, batch):
    model, *_ = runs
    assert state_index("block_input", 2) == state_index("block_output", 1)
    with torch.inference_mode():
        behind = patch_layer(model, batch, "block_output", 1)
        before = patch_layer(model, batch, "block_input", 2)
    torch.testing.assert_close(behind.probability, before.probability, atol=1e-6, rtol=0)


def test_the_two_sites_of_a_layer_differ(runs, batch):
    model, *_ = runs
    with torch.inference_mode():
        inputs, outputs = (patch_layer(model, batch, site, 1) for site in SITES)
    assert (inputs.probability - outputs.probability).abs().max() > 1e-3


def test_patching_leaves_the_cached_states_alone(runs, batch):
    model, _, base, source = runs
    before = base.clone(), source.clone()
    with torch.inference_mode():
        for site in SITES:
            patch_layer(model, batch, site, 0)
            check_patches(model, batch, site, 0)
            trace_noise(model, batch, site, [1.0], torch.ones(1, 1, *base[0].shape))
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
        batch = batch_of(model, memory, base, base)
        noise = draw_samples(0, "example", 5, len(BASE), model.width)[None]
        expected = trace_noise(model, batch, "block_input", [1.0, 2.0], noise)
        monkeypatch.setattr("blip_tracing.experiments.TOKENS_A_BATCH", tokens_a_batch)
        found = trace_noise(model, batch, "block_input", [1.0, 2.0], noise)
    torch.testing.assert_close(found.cells.logit, expected.cells.logit, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.floor.logit, expected.floor.logit, atol=1e-6, rtol=0)


def test_a_batch_that_does_not_fit_is_halved_and_gives_the_same_numbers(runs, batch, monkeypatch):
    model, *_ = runs
    noise = draw_samples(0, "example", 5, len(BASE), model.width)[None]
    with torch.inference_mode():
        expected = trace_noise(model, batch, "block_input", [1.0, 2.0], noise)
    sizes = []

    def with_little_memory(*arguments):
        sizes.append(len(arguments[-1]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("pretended")
        return trace_batch(*arguments)

    monkeypatch.setattr("blip_tracing.experiments.trace_batch", with_little_memory)
    with torch.inference_mode():
        found = trace_noise(model, batch, "block_input", [1.0, 2.0], noise)
    assert sizes == [10, 5, 2, 2, 2, 2, 2]
    for part, whole in ((found.cells, expected.cells), (found.floor, expected.floor)):
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


@pytest.mark.parametrize("site", SITES)
def test_examples_of_one_batch_are_as_if_alone(blip, runs, site):
    """Two pictures, two pairs of questions, each the other's unrelated example."""
    model, *_ = runs
    pictures = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(8))
    pairs = [(BASE, SOURCE), (SOURCE, [2, 9, 41, 8, 12, 90, 3])]
    noise = torch.stack([draw_samples(0, name, 2, len(BASE), model.width) for name in "ab"])
    with torch.inference_mode():
        images = blip.vision_model(pixel_values=pictures).last_hidden_state
        alone = []
        for image, questions in zip(images, pairs, strict=True):
            memory = model.read_images(image[None])
            alone.append([run_question(model, memory, question)[0] for question in questions])
        states = {
            "base": torch.stack([base for base, _ in alone]),
            "source": torch.stack([source for _, source in alone]),
            "unrelated": torch.stack([base for base, _ in reversed(alone)]),
        }
        logits = {run: model.decoder(states[run][:, -1]) for run in ("base", "source")}
        memory = model.read_images(images)
        batch = Batch(["a", "b"], memory, states, logits, ANSWERS.expand(2, 2))
        together = patch_layer(model, batch, site, 1)
        traced = trace_noise(model, batch, site, [1.0, 3.0], noise, null_samples=1)
        for index, (base, source) in enumerate(alone):
            memory = model.read_images(images[[index]])
            one = batch_of(model, memory, base, source, alone[1 - index][0])
            parts = trace_noise(model, one, site, [1.0, 3.0], noise[[index]], null_samples=1)
            for found, expected in (
                (together, patch_layer(model, one, site, 1)),
                (traced.cells, parts.cells),
                (traced.floor, parts.floor),
                (null_of(traced), null_of(parts)),
            ):
                torch.testing.assert_close(
                    found.probability[index], expected.probability[0], atol=1e-6, rtol=0
                )


def test_one_layer_and_one_token_will_do(pixels):
    blip = random_blip(VOCABULARY, layers=1, seed=4)
    with torch.inference_mode():
        model = ResumableBlip(blip)
        memory = model.read_images(blip.vision_model(pixel_values=pixels).last_hidden_state)
        base, _ = run_question(model, memory, [5])
        source, logits = run_question(model, memory, [6])
        scores = patch_layer(model, batch_of(model, memory, base, source), "block_input", 0)[0, 0]
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


# ---- controls ----------------------------------------------------------------------------------


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("layer", range(3))
def test_a_patch_from_itself_changes_nothing_and_of_all_positions_gives_the_source(
    blip, image, runs, batch, site, layer
):
    model, *_ = runs
    with torch.inference_mode():
        no_op, ceiling = check_patches(model, batch, site, layer)
    for control, question in ((no_op, BASE), (ceiling, SOURCE)):
        truth = oracle.answer_logits(blip, question, image)
        torch.testing.assert_close(
            control.scores.probability[0], probabilities(truth), atol=1e-5, rtol=0
        )
    assert no_op.difference.item() <= 1e-6
    assert ceiling.difference.item() <= 1e-6


@pytest.mark.parametrize("site", SITES)
def test_all_restored_is_the_clean_run_and_nothing_restored_the_floor(
    blip, image, runs, batch, site
):
    model, *_ = runs
    noise = draw_samples(3, "example", 2, len(BASE), model.width)[None]
    with torch.inference_mode():
        traced = trace_noise(model, batch, site, [0.7, 4.0], noise)
    clean = probabilities(oracle.answer_logits(blip, BASE, image))
    shape = traced.all_restored.difference.shape
    assert shape == (1, 2, 3)
    torch.testing.assert_close(
        traced.all_restored.scores.probability, clean.expand(*shape, 2), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        traced.no_op.scores.probability,
        traced.floor.probability[:, :, :1].expand(*shape, 2),
        atol=1e-6,
        rtol=0,
    )
    assert traced.no_op.difference.max() <= 1e-6
    assert traced.all_restored.difference.max() <= 1e-6


@pytest.mark.parametrize("site", SITES)
def test_the_null_brings_the_unrelated_examples_states(blip, image, runs, site):
    """Patched for patching; restored under the first draws for tracing."""
    model, memory, base, source = runs
    other = [2, 30, 31, 32, 33, 34, 3]
    noise = draw_samples(3, "example", 2, len(BASE), model.width)
    with torch.inference_mode():
        unrelated, _ = run_question(model, memory, other)
        batch = batch_of(model, memory, base, source, unrelated)
        patched = patch_layer(model, batch, site, 1)[0, 1]
        traced = trace_noise(model, batch, site, [4.0], noise[None], null_samples=1)
    donor = oracle.site_states(blip, other, image, site, 1)
    null = null_of(traced)
    assert null.probability.shape == (1, 1, 1, 3, len(BASE), 2)
    for position in range(len(BASE)):
        truth = oracle.patched_logits(blip, BASE, image, site, 1, position, donor[position])
        torch.testing.assert_close(
            patched.probability[position], probabilities(truth), atol=1e-5, rtol=0
        )
        truth = oracle.restored_logits(
            blip, BASE, image, 4.0 * noise[0], site, 1, position, donor[position]
        )
        torch.testing.assert_close(
            null.probability[0, 0, 0, 1, position], probabilities(truth), atol=1e-5, rtol=0
        )


def test_a_control_that_misses_its_outcome_names_example_layer_and_difference():
    scores = Scores(torch.zeros(2, 1, 2), torch.zeros(2, 1, 2))
    axes: dict[str, list] = {"example": ["cat", "dog"], "layer": [4]}
    for size, shown in ((0.25, "0.25"), (torch.nan, "nan")):
        control = Control(scores, torch.tensor([[0.0], [size]]), torch.ones(2, 1))
        with pytest.raises(MeasurementError, match=f"'dog', block_input layer 4: .* is {shown} in"):
            check_control(control, "ceiling", axes, "block_input", 1e-5)
    control = Control(scores, torch.zeros(2, 1), torch.ones(2, 1))
    check_control(control, "ceiling", axes, "block_input", 1e-5)


def test_a_patch_of_a_third_of_the_width_misses_the_ceiling(runs, batch, monkeypatch):
    """What pyvene's own mapping would do: the control finds it."""
    model, *_ = runs

    def a_third(model, memory, site, layer, hidden, replacement, positions):
        rows = torch.arange(len(hidden))[:, None]
        places = torch.tensor([list(places) for places in positions])
        width = replacement.shape[-1] // 3
        hidden[rows, places, :width] = replacement[..., :width]
        return model(hidden, memory, layer, site)

    monkeypatch.setattr("blip_tracing.engine.intervene", a_third)
    with torch.inference_mode():
        _, ceiling = check_patches(model, batch, "block_input", 1)
    assert ceiling.difference.item() > 1e-3


def furthest(logits, others):
    """The largest difference in probability of two runs."""
    return (logits.softmax(-1) - others.softmax(-1)).abs().max().item()


@pytest.mark.parametrize("site", SITES)
def test_a_control_says_what_it_would_have_missed(blip, image, runs, batch, site):
    """The effect of putting nothing in; for the no-op, of putting the other run's states in."""
    model, *_ = runs
    noise = draw_samples(3, "example", 1, len(BASE), model.width)
    base, source = (oracle.answer_logits(blip, question, image) for question in (BASE, SOURCE))
    with torch.inference_mode():
        traced = trace_noise(model, batch, site, [0.0, 4.0], noise[None])
        patches = [check_patches(model, batch, site, layer) for layer in range(3)]
    for layer, (no_op, ceiling) in enumerate(patches):
        for effect in (no_op.effect.item(), ceiling.effect.item()):
            assert effect == pytest.approx(furthest(base, source), abs=1e-5)
            assert effect > 0.1
        for index, level in enumerate([0.0, 4.0]):
            corrupted = oracle.corrupted_logits(blip, BASE, image, level * noise[0])
            for control in (traced.no_op, traced.all_restored):
                effect = control.effect[0, index, layer].item()
                assert effect == pytest.approx(furthest(corrupted, base), abs=1e-5)
                assert (effect > 0.1) == (level > 0)


def test_where_nothing_is_put_in_a_control_is_as_far_off_as_its_effect(runs, batch, monkeypatch):
    model, *_ = runs

    def nothing(model, memory, site, layer, hidden, replacement, positions):
        return model(hidden, memory, layer, site)

    monkeypatch.setattr("blip_tracing.engine.intervene", nothing)
    with torch.inference_mode():
        _, ceiling = check_patches(model, batch, "block_input", 1)
    assert ceiling.difference.item() == pytest.approx(ceiling.effect.item(), abs=1e-6)
    assert ceiling.difference.item() > 0.1


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("part", ["text_decoder", "text_encoder"])
def test_other_weights_than_the_clean_runs_had_miss_the_controls(blip, batch, site, part):
    """The outcome is what was recorded, not what these weights make of the recorded states."""
    other = copy.deepcopy(blip)
    encoder = {
        "text_decoder": other.text_decoder.bert.encoder, "text_encoder": other.text_encoder.encoder
    }[part]  # fmt: skip
    seeded = torch.Generator().manual_seed(1)
    torch.nn.init.normal_(encoder.layer[-1].output.dense.weight, std=0.3, generator=seeded)
    model = ResumableBlip(other)
    noise = torch.zeros(1, 1, len(BASE), model.width)
    # Behind the last block there is nothing of the encoder left to run.
    layer = 2 if part == "text_decoder" or site == "block_input" else 1
    with torch.inference_mode():
        _, ceiling = check_patches(model, batch, site, layer)
        traced = trace_noise(model, batch, site, [1.0], noise)
    assert ceiling.difference.item() > 1e-3
    assert traced.all_restored.difference[0, 0, layer].item() > 1e-3


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_numbers_that_are_not_finite_stop_and_name_example_and_layer(runs, wrong):
    model, memory, base, source = runs
    broken = source.clone()
    broken[2, 4, 7] = wrong
    with torch.inference_mode(), pytest.raises(MeasurementError) as caught:
        patch_layer(model, batch_of(model, memory, base, broken), "block_input", 2)
    assert "example 'example', block_input layer 2: the logits hold NaN" in str(caught.value)
    assert "\n" not in str(caught.value)
