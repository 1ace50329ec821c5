"""Runs of corrupted pictures, and what is put into them, agree with the unmodified model."""

from itertools import product

import oracle
import oracle_vision
import pytest
import torch
from checkpoints import random_blip
from torch.testing import assert_close

from blip_tracing.engine.batch import Batch
from blip_tracing.engine.cells import measure, run_variants, score_run, variants_of
from blip_tracing.engine.draws import clean_spread, draw_noise
from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.models.plain import PlainBlip
from blip_tracing.vocabulary.corruptions import KINDS, PICTURE_PIXELS, PICTURE_STATES, Corruption
from blip_tracing.vocabulary.experiment import BASE, SOURCE, Experiment, Run
from blip_tracing.vocabulary.regions import region_patches
from blip_tracing.vocabulary.sites import SITES, places_of

QUESTIONS = {BASE: [2, 17, 40, 8, 63, 71, 3], SOURCE: [2, 17, 41, 8, 63, 90, 3]}
ANSWERS, LEVELS, SEED, SIDE = torch.tensor([[[22], [53]]]), (0.5, 3.0), 7, 24
PLACES = (PICTURE_STATES, PICTURE_PIXELS)
# What a kind does to numbers, with the draw's standard normal ones: written out again.
TRUTH = {
    "gaussian": lambda states, noise, level: states + level * noise,
    "multiplicative": lambda states, noise, level: states * (1 + level * noise),
    "scale": lambda states, noise, level: level * states,
}


@pytest.fixture(scope="module")
def blip():
    """In float64, where rounding hides nothing."""
    return random_blip(101, layers=3, num_hidden_layers=2, num_attention_heads=3).double()


@pytest.fixture(scope="module")
def pixels():
    """Of the base run's picture, and of the source run's."""
    generator = torch.Generator().manual_seed(5)
    drawn = torch.randn(2, 1, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)
    return dict(zip((BASE, SOURCE), drawn, strict=True))


@pytest.fixture(scope="module", params=[ResumableBlip, PlainBlip])
def model(request, blip):
    return request.param(blip)


@pytest.fixture(scope="module")
def batch(model, blip, pixels):
    runs, states = {}, {}
    with torch.inference_mode():
        for name, question in QUESTIONS.items():
            states[name] = oracle.image_states(blip, pixels[name])
            pictures, inputs = (
                model.read_pictures(states[name]),
                model.embed(torch.tensor([question])),
            )
            runs[name] = model.run(inputs[:, None], pictures, ANSWERS, pixels[name][None])
    return Batch(["cat"], runs, ANSWERS, states[BASE], source_images=states[SOURCE])


def noisy(kind, at, question=BASE):
    return Run("noisy", question, Corruption(kind, at, LEVELS, 2, SEED))


def seen(blip, pixels, run, level, draw):
    """The pixels (1, 3, h, w), and the states (1, S, D), of a corrupted run."""
    own, change = pixels[run.question], TRUTH[run.corruption.kind]
    if run.corruption.at == PICTURE_PIXELS:
        noise = draw_noise(SEED, "cat", draw, 3 * SIDE, SIDE).double().reshape(own.shape)
        own = change(own, noise, level)
        return own, oracle.image_states(blip, own)
    states = oracle.image_states(blip, own)
    noise = draw_noise(SEED, "cat", draw, *states.shape[1:]).double()
    return own, change(states, noise, level)


@pytest.mark.parametrize(("kind", "at", "question"), [*product(KINDS, PLACES, QUESTIONS)])
def test_a_run_of_a_corrupted_picture_agrees(blip, model, batch, pixels, kind, at, question):
    run = noisy(kind, at, question)
    variants = variants_of(run)
    with torch.inference_mode():
        found = run_variants(model, batch, run, variants).outcome().logits
        scores = score_run(model, batch, run, ["probability"]).columns["p_base"]
    for row, (level, draw) in enumerate(variants):
        _, states = seen(blip, pixels, run, level, draw)
        truth = oracle.answer_logits(blip, QUESTIONS[question], states)
        assert_close(found[0, row], truth, atol=1e-9, rtol=0)
        assert scores[0, row // 2, row % 2].item() == pytest.approx(
            truth.softmax(-1)[22].item(), abs=1e-6
        )
    clean = oracle.image_states(blip, pixels[question])
    changed = pixels[question] if at == PICTURE_PIXELS else clean
    assert clean_spread(model, batch, run).item() == pytest.approx(changed.std(correction=0).item())


@pytest.mark.parametrize(("kind", "at"), [*product(KINDS, PLACES)])
def test_clean_states_of_text_put_back_agree(blip, model, batch, pixels, kind, at):
    """The receiver goes on reading its corrupted picture; the donor's states are of the clean."""
    site, run = "encoder.cross_attention", noisy(kind, at)
    experiment = Experiment("tracing", run, Run(BASE, BASE), (site,))
    places = {place: "there" for place in places_of([site], [0, 2])}
    with torch.inference_mode():
        found = measure(model, batch, experiment, places, None, ["logit"])
    clean = oracle.image_states(blip, pixels[BASE])
    for layer, (row, (level, draw)), position in product(
        [0, 2], enumerate(variants_of(run)), [0, 5]
    ):
        _, states = seen(blip, pixels, run, level, draw)
        donor = oracle.site_states(blip, QUESTIONS[BASE], clean, site, layer)[position]
        truth = oracle.patched_logits(blip, QUESTIONS[BASE], states, site, layer, position, donor)
        cells = found[SITES[site].place(layer)].cells.columns["logit_base"]
        assert cells[0, row, position].item() == pytest.approx(truth[22].item(), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_clean_states_of_vision_put_back_agree(blip, model, batch, pixels, kind):
    site, run, layer = "vision.self_attention", noisy(kind, PICTURE_PIXELS), 1
    experiment = Experiment("tracing", run, Run(BASE, BASE), (site,), regions=2)
    place, patches = SITES[site].place(layer), region_patches(3, 2)
    with torch.inference_mode():
        found = measure(model, batch, experiment, {place: "there"}, None, ["logit"])[place]
    donor = oracle_vision.site_states(blip, pixels[BASE], site, layer)
    for row, (level, draw) in enumerate(variants_of(run)):
        own, _ = seen(blip, pixels, run, level, draw)
        for position, region in enumerate(patches):
            image = oracle_vision.patched_image(blip, own, {(site, layer): donor}, region)
            truth = oracle.answer_logits(blip, QUESTIONS[BASE], image)[22].item()
            cell = found.cells.columns["logit_base"][0, row, position].item()
            assert cell == pytest.approx(truth, abs=1e-5)
