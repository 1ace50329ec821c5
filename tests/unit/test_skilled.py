"""The benchmark's peer gives right answers: it agrees with one pass of the model a cell."""

from __future__ import annotations

import sys
from pathlib import Path

import oracle
import oracle_vision
import pytest
import torch
from checkpoints import random_blip
from torch.testing import assert_close

from blip_tracing.vocabulary.sites import SITES

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.skilled import ask, cache, masks_of, patch, regions_of

WIDTH, HEADS, LAYERS = 48, 3, 3
VISION_HEADS, VISION_LAYERS, SIDE, GRID = 4, 4, 5, 2
BASE, SOURCE = [2, 11, 7, 3], [2, 9, 41, 3]
VISION = [name for name, site in SITES.items() if site.tower == "vision"]
TEXT = [name for name, site in SITES.items() if site.tower != "vision"]


@pytest.fixture(scope="module")
def blip():
    return random_blip(
        101, hidden=WIDTH, layers=LAYERS, heads=HEADS, image_size=40, patch_size=8,
        num_hidden_layers=VISION_LAYERS, num_attention_heads=VISION_HEADS,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def runs(blip, pixels):
    """Base and source question, each about a picture of its own."""
    with torch.inference_mode():
        return [
            ask(blip, torch.tensor([tokens]), pixels[[number]])
            for number, tokens in enumerate((BASE, SOURCE))
        ]


def heads_at(site: str, count: int) -> list[int | None]:
    """The heads that a site's rows put in, in their order; None for the whole."""
    return list(range(count)) if SITES[site].heads else [None]


def text_states(blip, picture, site, layer):
    """What flows through a site of either text tower in the source question's run (T, W)."""
    if site.startswith("decoder"):
        return oracle.decoder_states(blip, SOURCE, picture, [[22]], site, layer)[0]
    return oracle.site_states(blip, SOURCE, picture, site, layer)


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("site", TEXT)
def test_rows_of_the_text_towers_agree(blip, runs, site, window):
    base, source = runs
    positions = torch.eye(1 if site.startswith("decoder") else len(BASE), dtype=torch.bool)
    for layer in range(LAYERS - window + 1):
        layers = range(layer, layer + window)
        with torch.inference_mode():
            donors = cache(blip, source, site, layers)
            masks = positions[..., None]
            if SITES[site].heads:
                masks = masks_of(positions, WIDTH, HEADS)
            found = patch(blip, base, site, layers, donors, masks).softmax(-1)
        given = {each: text_states(blip, source.picture, site, each) for each in layers}
        rows = [(head, at) for head in heads_at(site, HEADS) for at in range(len(positions))]
        for row, (head, at) in enumerate(rows):
            puts = [
                oracle.Put(site, each, [at], [states] if len(positions) == 1 else states, head)
                for each, states in given.items()
            ]
            truth, _ = oracle.outcome(blip, BASE, base.picture, [[22]], puts)
            assert_close(found[row], truth.softmax(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("site", VISION)
def test_rows_of_the_vision_tower_agree(blip, pixels, runs, site, window):
    base, source = runs
    positions = regions_of(GRID, SIDE)
    for layer in range(VISION_LAYERS - window + 1):
        layers = range(layer, layer + window)
        with torch.inference_mode():
            donors = cache(blip, source, site, layers)
            masks = positions[..., None]
            if SITES[site].heads:
                masks = masks_of(positions, WIDTH, VISION_HEADS)
            found = patch(blip, base, site, layers, donors, masks).softmax(-1)
        put_in = {
            (site, each): oracle_vision.site_states(blip, pixels[[1]], site, each)
            for each in layers
        }
        for row, (head, at) in enumerate(
            (h, at) for h in heads_at(site, VISION_HEADS) for at in positions
        ):
            size = WIDTH // VISION_HEADS
            part = slice(None) if head is None else slice(head * size, (head + 1) * size)
            patches = at.nonzero()[:, 0].tolist()
            image = oracle_vision.patched_image(blip, pixels[[0]], put_in, patches, part)
            truth = oracle.answer_logits(blip, BASE, image).softmax(-1)
            assert_close(found[row], truth, atol=1e-5, rtol=0)


def test_regions_hold_each_patch_once_and_the_class_token_alone():
    masks = regions_of(GRID, SIDE)
    assert masks.shape == (1 + GRID**2, 1 + SIDE**2)
    assert masks.sum(0).tolist() == [1] * (1 + SIDE**2)
    assert masks[0].nonzero().tolist() == [[0]]
    # Of five rows of patches the centre of the third lies on the line: it is below.
    assert masks[1].nonzero()[:, 0].tolist() == [1, 2, 6, 7]
    assert masks.sum(1).tolist() == [1, 4, 6, 6, 9]
