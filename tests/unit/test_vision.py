"""Sites of the vision tower agree with the unmodified model with a torch hook, in both models."""

import functools
from itertools import product
from typing import Any

import oracle
import oracle_vision
import pytest
import torch
from checkpoints import random_blip
from project import ROOT
from torch.testing import assert_close

from blip_tracing.given.pictures import open_picture
from blip_tracing.given.tokens import load_tokenizer, tokenize
from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.models.family import Patch
from blip_tracing.models.load import load_model, process_pictures
from blip_tracing.models.plain import PlainBlip
from blip_tracing.vocabulary.regions import region_patches
from blip_tracing.vocabulary.sites import SITES, Place, window_of

MINIATURE = ROOT / "resources/miniature"
LAYERS, HEADS, SIDE, WIDTH = 4, 3, 5, 48
STATES = SIDE**2 + 1
EXACT = 1e-9
SEEN = tuple(name for name, site in SITES.items() if site.tower == "vision")
CELLS = [(site, layer) for site in SEEN for layer in range(LAYERS)]
QUESTIONS = [[2, 17, 40, 8, 63, 71, 3], [2, 17, 41, 8, 63, 90, 3]]
# [CLS], regions of four and of one patch, all patches at once.
UNITS = [*region_patches(SIDE, 2)[:3], [25], list(range(STATES))]


@pytest.fixture(scope="module")
def blip():
    """Vision and text towers of other numbers of layers and heads; 5 × 5 patches.

    In float64, where rounding hides nothing: its random weights let float32's grow to 1e-5.
    """
    return random_blip(
        101, hidden=WIDTH, layers=3, heads=4, image_size=40, patch_size=8,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=52,
    ).double()  # fmt: skip


@pytest.fixture(scope="module", params=[ResumableBlip, PlainBlip])
def model(request, blip):
    return request.param(blip)


@pytest.fixture(scope="module")
def pixels():
    """Of two examples, three pictures each."""
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, 3, 3, 40, 40, generator=generator, dtype=torch.float64)


def run_of(model, blip, pixels):
    """Two examples' questions about as many pictures as there are (G, R, 3, h, w)."""
    with torch.inference_mode():
        states = blip.vision_model(pixel_values=pixels.flatten(0, 1)).last_hidden_state
        pictures = model.read_pictures(states.unflatten(0, pixels.shape[:2]))
        inputs = model.embed(torch.tensor(QUESTIONS))[:, None].expand(-1, pixels.shape[1], -1, -1)
        return model.run(inputs, pictures, pixels=pixels)


@pytest.fixture(scope="module")
def receiver(model, blip, pixels):
    return run_of(model, blip, pixels)


@pytest.fixture(scope="module")
def donor(model, blip, pixels):
    """The other example's pictures."""
    return run_of(model, blip, pixels.flip(0))


def patch_of(model, donor, places, units, rows):
    """A patch of units, patches and a head each, the donor's variants being the rows."""
    positions = torch.zeros(2, len(units), STATES, dtype=torch.bool)
    for number, (patches, _) in enumerate(units):
        positions[:, number, patches] = True
    donors = [model.states_at(donor, place)[:, rows] for place in places]
    return Patch(places, donors, positions, [head for _, head in units])


@pytest.fixture(scope="module")
def truth(blip, pixels):
    """Logits of one pass of the unmodified model, each made once for both models."""

    @functools.cache
    def patched(example, variant, row, site, layers, unit, head):
        other = pixels[1 - example, [row]]
        put_in = {
            (site, each): oracle_vision.site_states(blip, other, site, each) for each in layers
        }
        part = slice(None) if head is None else slice(16 * head, 16 * head + 16)
        own = pixels[example, [variant]]
        image = oracle_vision.patched_image(blip, own, put_in, UNITS[unit], part)
        return oracle.answer_logits(blip, QUESTIONS[example], image)

    return patched


@pytest.mark.parametrize(("site", "layer"), CELLS)
def test_what_flows_through_a_site_is_what_a_hook_sees_there(
    blip, model, receiver, pixels, site, layer
):
    with torch.inference_mode():
        states = model.states_at(receiver, SITES[site].place(layer))
    for example in range(2):
        for variant in range(3):
            truth = oracle_vision.site_states(blip, pixels[example, [variant]], site, layer)
            assert_close(states[example, variant], truth, atol=EXACT, rtol=0)


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize(("site", "layer"), CELLS)
def test_every_patched_cell_agrees(model, receiver, donor, truth, site, layer, window):
    """Into variants 2 and 0; at a site of heads, the first and the last, and all at once."""
    of, layers = [2, 0], window_of(layer, window, LAYERS)
    heads = [None, 0, HEADS - 1] if SITES[site].heads else [None]
    units = list(product(range(len(UNITS)), heads))
    with torch.inference_mode():
        places = [SITES[site].place(each) for each in layers]
        chosen = [(UNITS[unit], head) for unit, head in units]
        found = model.patch(receiver, patch_of(model, donor, places, chosen, [0, 1]), of).logits
    for example, row, number in product(range(2), range(2), range(len(units))):
        expected = truth(example, of[row], row, site, layers, *units[number])
        assert_close(found[example, row, number], expected, atol=EXACT, rtol=0)


@pytest.mark.parametrize("index", range(LAYERS + 1))
def test_all_patches_of_the_stream_give_the_run_of_the_donors_picture(
    model, receiver, donor, index
):
    place, everywhere = Place("vision", index, None), [(list(range(STATES)), None)]
    with torch.inference_mode():
        patch = patch_of(model, donor, [place], everywhere, [0, 1, 2])
        found = model.patch(receiver, patch, [0, 1, 2]).logits[:, :, 0]
    assert_close(found, donor.logits, atol=EXACT, rtol=0)
    assert (found - receiver.logits).abs().amax(-1).min() > 0.1


@pytest.mark.parametrize(("site", "layer"), CELLS)
def test_what_is_there_put_in_changes_nothing(model, receiver, site, layer):
    with torch.inference_mode():
        places, units = [SITES[site].place(layer)], [(list(range(STATES)), None)]
        patch = patch_of(model, receiver, places, units, [0, 1, 2])
        found = model.patch(receiver, patch, [0, 1, 2]).logits[:, :, 0]
    assert_close(found.softmax(-1), receiver.logits.softmax(-1), atol=EXACT, rtol=0)


def test_a_run_is_left_as_it_was(model, blip, pixels, donor):
    """Its pixels, and what is kept of them."""
    own = pixels.clone()
    run = run_of(model, blip, own)
    with torch.inference_mode():
        before = [model.states_at(run, SITES[site].place(1)).clone() for site in SEEN]
        units = [(list(range(STATES)), None)]
        for site, layer in CELLS:
            model.patch(run, patch_of(model, donor, [SITES[site].place(layer)], units, [0]), [1])
        after = [model.states_at(run, SITES[site].place(1)) for site in SEEN]
    assert torch.equal(own, pixels)
    assert all(map(torch.equal, before, after))


@pytest.mark.parametrize("tokens", [3, 20])
def test_rows_read_pictures_of_their_own(blip, tokens):
    """Both where folding pays (12 queries of 48 numbers) and where it does not."""
    layer = blip.text_encoder.encoder.layer[1]
    block: Any = ResumableBlip(blip).blocks[1]
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(4, tokens, WIDTH, generator=generator, dtype=torch.float64)
    pictures = torch.randn(4, STATES, WIDTH, generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        found = block.read_on(hidden, pictures)
        for row in range(4):
            truth = layer(hidden[[row]], encoder_hidden_states=pictures[[row]])
            assert_close(found[[row]], truth, atol=EXACT, rtol=0)


def test_the_miniature_agrees_in_float32():
    """Whose answer to a question about two pictures, with a thing exchanged, is turned."""
    blip = load_model(str(MINIATURE / "checkpoint"), torch.device("cpu"), "float32")
    pictures = [
        open_picture(MINIATURE / f"images/{name}.png") for name in ("hat_box", "hat_yellow")
    ]
    seen = list(process_pictures(blip, str(MINIATURE / "checkpoint"), pictures))
    tokenizer, model = load_tokenizer(MINIATURE / "checkpoint"), ResumableBlip(blip)
    question = [token for _, token, _ in tokenize(tokenizer, "what is the color of the hat")]
    with torch.inference_mode():
        base, source = (
            model.run(
                model.embed(torch.tensor([question]))[:, None],
                model.read_pictures(blip.vision_model(pixel_values=one[None]).last_hidden_state),
                pixels=one[None, None],
            )
            for one in seen
        )
    assert base.outcome.logits.argmax() != source.outcome.logits.argmax()
    regions = region_patches(6, 2)
    sets = torch.zeros(1, len(regions), 37, dtype=torch.bool)
    for number, patches in enumerate(regions):
        sets[0, number, patches] = True
    for site, layer in product(SEEN, range(3)):
        place, head = SITES[site].place(layer), 1 if SITES[site].heads else None
        with torch.inference_mode():
            patch = Patch([place], [model.states_at(source, place)], sets, [head] * len(regions))
            found = model.patch(base, patch, [0]).logits[0, 0].softmax(-1)
        put_in = {(site, layer): oracle_vision.site_states(blip, seen[1][None], site, layer)}
        part = slice(None) if head is None else slice(16, 32)
        for number, patches in enumerate(regions):
            image = oracle_vision.patched_image(blip, seen[0][None], put_in, patches, part)
            expected = oracle.answer_logits(blip, question, image).softmax(-1)
            assert_close(found[number], expected, atol=1e-5, rtol=0)
