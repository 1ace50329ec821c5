"""On a GPU: the CPU's numbers, in float32 arithmetic that is float32."""

import pytest
import torch
from project import ROOT

from blip_tracing.engine import ResumableBlip
from blip_tracing.experiments import (
    Batch,
    patch_layer,
    run_question,
    tokens_a_batch,
    trace_noise,
)
from blip_tracing.model import encode_pictures, load_model
from blip_tracing.noise import draw_samples
from blip_tracing.pictures import open_picture
from blip_tracing.tokens import load_tokenizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

CHECKPOINT = str(ROOT / "resources/miniature/checkpoint")
PICTURE = ROOT / "resources/miniature/images/animal_shirt.png"
LEVELS = [0.5, 2.0, 10.0]


def trace(device: str, dtype: str = "float32") -> list[torch.Tensor]:
    """Probabilities of all patched and traced cells of the first example on one device."""
    tokenizer = load_tokenizer(CHECKPOINT)
    asked = [f"what is the color of the {thing}" for thing in ("animal", "shirt")]
    ids = torch.tensor([tokenizer.token_to_id(color) for color in ("brown", "red")])
    with torch.inference_mode():
        blip = load_model(CHECKPOINT, torch.device(device), dtype)
        model = ResumableBlip(blip)
        (image,) = encode_pictures(blip, CHECKPOINT, [open_picture(PICTURE)])
        memory = model.read_images(image[None])
        runs = [run_question(model, memory, tokenizer.encode(question).ids) for question in asked]
        states, logits = (
            {"base": base[None], "source": source[None]} for base, source in zip(*runs, strict=True)
        )
        noise = draw_samples(0, "animal_shirt", 10, states["base"].shape[2], model.width)
        batch = Batch(["animal_shirt"], memory, states, logits, ids[None])
        patched = [
            patch_layer(model, batch, site, layer).probability
            for site in ("block_input", "block_output")
            for layer in range(len(model.blocks))
        ]
        traced = trace_noise(model, batch, "block_input", LEVELS, noise[None])
    return [torch.stack(patched), traced.floor.probability, traced.cells.probability]


def test_a_gpu_gives_the_cpus_probabilities_within_one_in_ten_thousand():
    for found, expected in zip(trace("cuda"), trace("cpu"), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_bfloat16_stays_near_float32():
    for found, expected in zip(trace("cuda", "bfloat16"), trace("cpu"), strict=True):
        assert (found - expected).abs().mean() < 0.02


def test_batches_are_sized_to_the_free_memory():
    model = ResumableBlip(load_model(CHECKPOINT, torch.device("cuda"), "float32"))
    assert tokens_a_batch(model, 9) > 0
