"""The peer: what a skilled user writes by hand in an hour, without this project, to patch BLIP.

The unmodified Hugging Face model and torch hooks. A picture is encoded once, states are cached by
hooks, and the cells of a layer are the rows of a batch. The towers before the patched one are run
once; the patched one and those behind it run whole for each row. Shapes: rows U, tokens or picture
states T, width W, vocabulary V.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import BlipForQuestionAnswering

INPUT, OUTPUT = "input", "output"
# Of a block: where a component flows, "" being the block itself.
TEXT = {
    "block_input": ("", INPUT),
    "self_attention_heads": ("attention.output.dense", INPUT),
    "self_attention": ("attention.output.dense", OUTPUT),
    "self_attention_state": ("attention.output", OUTPUT),
    "cross_attention_heads": ("crossattention.output.dense", INPUT),
    "cross_attention": ("crossattention.output.dense", OUTPUT),
    "cross_attention_state": ("crossattention.output", OUTPUT),
    "mlp_neurons": ("output.dense", INPUT),
    "mlp": ("output.dense", OUTPUT),
    "block_output": ("", OUTPUT),
}
VISION = {
    "block_input": ("", INPUT),
    "self_attention_heads": ("self_attn.projection", INPUT),
    "self_attention": ("self_attn.projection", OUTPUT),
    "self_attention_state": ("layer_norm2", INPUT),
    "mlp_neurons": ("mlp.fc2", INPUT),
    "mlp": ("mlp.fc2", OUTPUT),
    "block_output": ("", OUTPUT),
}
# Rows at once; attention over a picture's own states takes 16 MB a row and block at BLIP-base's
# size, several times over.
ROWS_OF_PICTURES, ROWS = 8, 128

Change = Callable[[torch.Tensor], torch.Tensor | None]


@dataclass(frozen=True)
class Asked:
    """A question about a picture, and what the towers made of it.

    tokens: (1, T); pixels: (1, 3, height, width); picture, question: the last states of the vision
    tower and of the question encoder, (1, S, D) and (1, T, D).
    """

    tokens: torch.Tensor
    pixels: torch.Tensor
    picture: torch.Tensor
    question: torch.Tensor


def ask(blip: BlipForQuestionAnswering, tokens: torch.Tensor, pixels: torch.Tensor) -> Asked:
    """Run both encoders once."""
    picture = blip.vision_model(pixel_values=pixels).last_hidden_state
    return Asked(tokens, pixels, picture, _read(blip, tokens, picture))


def cache(
    blip: BlipForQuestionAnswering, asked: Asked, site: str, layers: Sequence[int]
) -> list[torch.Tensor]:
    """What flows through a site of these layers in a run: (1, T, W) each."""
    seen: dict[int, torch.Tensor] = {}
    with ExitStack() as hooks:
        for layer in layers:

            def keep(states: torch.Tensor, layer: int = layer) -> None:
                seen[layer] = states.clone()

            hooks.enter_context(_hooked(blip, site, layer, keep))
        _answer(blip, asked, site.split(".")[0], 1)
    return [seen[layer] for layer in layers]


def patch(
    blip: BlipForQuestionAnswering,
    receiver: Asked,
    site: str,
    layers: Sequence[int],
    donors: Sequence[torch.Tensor],
    masks: torch.Tensor,
) -> torch.Tensor:
    """First answer token's logits (U, V) of the receiver with a donor's states put in.

    donors: (1, T, W) of each layer; masks: (U, T, 1) or (U, T, W), which of them a row puts in.
    """
    tower = site.split(".")[0]
    rows = ROWS_OF_PICTURES if tower == "vision" else ROWS
    logits = []
    for mask in masks.split(rows):
        with ExitStack() as hooks:
            for layer, donor in zip(layers, donors, strict=True):

                def put(
                    states: torch.Tensor, mask: torch.Tensor = mask, donor: torch.Tensor = donor
                ) -> torch.Tensor:
                    return torch.where(mask, donor, states)

                hooks.enter_context(_hooked(blip, site, layer, put))
            logits.append(_answer(blip, receiver, tower, len(mask)))
    return torch.cat(logits)


def masks_of(positions: torch.Tensor, width: int, heads: int) -> torch.Tensor:
    """Masks (H · P, T, W) that put in each head in turn at each of positions (P, T)."""
    of_head = torch.arange(heads, device=positions.device).repeat_interleave(width // heads)
    parts = of_head == torch.arange(heads, device=positions.device)[:, None]
    return (parts[:, None, None] & positions[None, :, :, None]).flatten(0, 1)


def _answer(blip: BlipForQuestionAnswering, asked: Asked, tower: str, rows: int) -> torch.Tensor:
    """Run the tower and those behind it for so many rows: logits (U, V)."""
    picture, question = asked.picture, asked.question
    if tower == "vision":
        pixels = asked.pixels.expand(rows, -1, -1, -1)
        picture = blip.vision_model(pixel_values=pixels).last_hidden_state
    if tower != "decoder":
        question = _read(blip, asked.tokens.expand(rows, -1), picture.expand(rows, -1, -1))
    start = torch.full((rows, 1), blip.decoder_start_token_id, device=question.device)
    return blip.text_decoder(
        input_ids=start, encoder_hidden_states=question.expand(rows, -1, -1)
    ).logits[:, -1]


def _read(
    blip: BlipForQuestionAnswering, tokens: torch.Tensor, picture: torch.Tensor
) -> torch.Tensor:
    return blip.text_encoder(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        encoder_hidden_states=picture,
        encoder_attention_mask=torch.ones_like(picture[..., 0], dtype=torch.long),
    ).last_hidden_state


@contextmanager
def _hooked(
    blip: BlipForQuestionAnswering, site: str, layer: int, change: Change
) -> Iterator[None]:
    """Call `change` on what flows through a site; what it returns, if anything, goes on."""
    tower, component = site.split(".")
    blocks: dict[str, nn.ModuleList] = {
        "encoder": blip.text_encoder.encoder.layer,
        "decoder": blip.text_decoder.bert.encoder.layer,
        "vision": blip.vision_model.encoder.layers,
    }
    path, end = (VISION if tower == "vision" else TEXT)[component]
    module = blocks[tower][layer].get_submodule(path)

    def before(module: nn.Module, args: tuple) -> None:
        # In place, since a residual goes round the module that reads a block's input or a state.
        if (changed := change(args[0])) is not None:
            args[0].copy_(changed)

    if end == INPUT:
        handle = module.register_forward_pre_hook(before)
    else:
        handle = module.register_forward_hook(lambda module, args, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def regions_of(grid: int, patches: int) -> torch.Tensor:
    """Masks (1 + k², 1 + N²) of [CLS] and of a k × k grid's regions over N × N patches.

    A patch belongs to the region in which its centre lies; grid: k.
    """
    along = ((torch.arange(patches) + 0.5) * grid / patches).long()
    region = 1 + grid * along[:, None] + along
    of_state = torch.cat([torch.zeros(1, dtype=torch.long), region.flatten()])
    return of_state == torch.arange(1 + grid**2)[:, None]
