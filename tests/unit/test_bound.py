"""The benchmark's floating-point bound is what torch counts of the unmodified model's blocks."""

from __future__ import annotations

import sys
from math import prod
from pathlib import Path

import pytest
import torch
from checkpoints import random_blip
from torch.utils.flop_counter import FlopCounterMode

from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.models.family import Patch
from blip_tracing.vocabulary.sites import DECODER, SITES, VISION

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.bound import Shape, block, decoder, operations, vision_block

SHAPE = Shape(
    hidden=48,
    layers=3,
    heads=4,
    intermediate=80,
    vocabulary=60,
    image_size=24,
    patch_size=8,
)
TOKENS, STATES, D = 5, 10, 48


def fused(queries, keys, *rest, **settings) -> int:
    """Operations of fused attention of these shapes, which torch does not count on a CPU."""
    *rows, count, size = queries
    return 2 * 2 * prod(rows) * count * keys[-2] * size


ON_CPU = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: fused}


def counted(work) -> int:
    """Floating-point operations of the products in a call."""
    with (
        torch.inference_mode(),
        FlopCounterMode(display=False, custom_mapping=ON_CPU) as counter,
    ):
        work()
    return counter.get_total_flops()


@pytest.fixture(scope="module")
def blip():
    return random_blip(SHAPE.vocabulary, layers=SHAPE.layers)


def projected(count: int) -> int:
    """Operations of keys and values of so many states."""
    return 2 * 2 * count * D * D


def test_a_block_of_the_question_encoder_is_all_but_its_pictures_projections(blip):
    layer = blip.text_encoder.encoder.layer[0]
    hidden, picture = torch.randn(1, TOKENS, D), torch.randn(1, STATES, D)
    whole = counted(lambda: layer(hidden, encoder_hidden_states=picture))
    assert 2 * block(SHAPE, TOKENS) == whole - projected(STATES)


def test_a_block_of_the_vision_tower_is_whole(blip):
    layer = blip.vision_model.encoder.layers[0]
    assert 2 * vision_block(SHAPE) == counted(lambda: layer(torch.randn(1, STATES, D)))


@pytest.mark.parametrize("tokens", [1, TOKENS])
def test_the_decoder_is_all_but_its_idle_query_and_key_and_reads_many_states_for_less(blip, tokens):
    """Of one token, self-attention is its value; folded projections act once, not once a state."""
    states, start = torch.randn(1, tokens, D), torch.tensor([[58]])
    whole = counted(lambda: blip.text_decoder(input_ids=start, encoder_hidden_states=states))
    busy = whole - SHAPE.layers * (projected(1) + 2 * 2 * D)
    if tokens == 1:
        assert 2 * decoder(SHAPE, tokens) == busy
    else:
        assert busy - SHAPE.layers * projected(tokens) < 2 * decoder(SHAPE, tokens) < busy


def test_what_is_put_in_at_a_later_layer_or_sublayer_needs_less():
    for tower in ("encoder", "decoder", "vision"):
        of_tower = [site for site in SITES.values() if site.tower == tower]
        found = [
            operations(SHAPE, site, layer, window=1, tokens=TOKENS, put=1)
            for layer in range(SHAPE.layers)
            for site in of_tower
        ]
        assert found == sorted(found, reverse=True)
        assert found[0] > found[-1] > 0


def test_a_window_is_run_from_its_first_layer():
    site = SITES["encoder.mlp"]

    def cost(layer: int, window: int) -> float:
        return operations(SHAPE, site, layer, window, TOKENS, put=1)

    assert cost(2, 3) == cost(1, 1)
    assert cost(0, 3) == cost(0, 1) > cost(1, 1)


@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
def test_no_cell_of_the_engine_takes_less(blip, site):
    model, count = ResumableBlip(blip), {VISION: STATES, DECODER: 1}.get(site.tower, TOKENS)
    pixels, answers = torch.randn(1, 1, 3, 24, 24), torch.tensor([[[7], [8]]])
    with torch.inference_mode():
        pictures = model.read_pictures(blip.vision_model(pixels[0]).last_hidden_state)
        inputs = model.embed(torch.arange(TOKENS)[None])[:, None]
        run = model.run(inputs, pictures, answers, pixels)
    positions = torch.arange(count)[None, None] == 0
    heads = [1] if site.heads else [None]
    for layer in range(SHAPE.layers):
        place = site.place(layer)
        with torch.inference_mode():
            patch = Patch([place], [model.states_at(run, place)], positions, heads)
        least = operations(SHAPE, site, layer, window=1, tokens=TOKENS, put=1)
        assert 0 < least <= counted(lambda patch=patch: model.patch(run, patch, [0]))
