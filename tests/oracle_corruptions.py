"""Corruptions of the unmodified Hugging Face model: a hook where the states are, and one pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import BlipForQuestionAnswering

Change = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def corrupted(model: BlipForQuestionAnswering, at: str, change: Change) -> Iterator[None]:
    """Change the states (N, D) that one example has at a place, in each pass within.

    A picture's states are not made in such a pass: give the changed ones to it (`changed_picture`).
    """
    encoder = model.text_encoder
    if at == "question.word_embeddings":
        handle = encoder.embeddings.word_embeddings.register_forward_hook(
            lambda module, args, output: change(output[0].clone())[None]
        )
    elif at == "question.embeddings":
        handle = encoder.encoder.layer[0].register_forward_pre_hook(
            lambda module, args: (change(args[0][0].clone())[None], *args[1:])
        )
    else:
        yield
        return
    try:
        yield
    finally:
        handle.remove()


@torch.inference_mode()
def changed_picture(
    model: BlipForQuestionAnswering, pixels: torch.Tensor, at: str, change: Change
) -> torch.Tensor:
    """The picture's states (1, S, D) that the question encoder reads, of pixels (1, 3, h, w)."""
    if at == "picture.pixels":
        pixels = change(pixels[0].clone())[None]
    image = model.vision_model(pixel_values=pixels).last_hidden_state
    return change(image[0].clone())[None] if at == "picture.states" else image


def on_patches(change: Change, on: list[bool], side: int) -> Change:
    """The same change of pixels (3, h, w), only of those patches that are on; on: [CLS] first.

    side: of the grid of patches.
    """

    def changed(pixels: torch.Tensor) -> torch.Tensor:
        found, size = change(pixels.clone()), pixels.shape[1] // side
        for y in range(pixels.shape[1]):
            for x in range(pixels.shape[2]):
                if not on[1 + (y // size) * side + x // size]:
                    found[:, y, x] = pixels[:, y, x]
        return found

    return changed


def by_hand(kind: str, level: float, noise: torch.Tensor, on: list[bool] | None = None) -> Change:
    """A kind of change, row by row; on: which rows are changed, None for all."""

    def change(states: torch.Tensor) -> torch.Tensor:
        for row in range(len(states)):
            if on is not None and not on[row]:
                continue
            if kind == "gaussian":
                states[row] = states[row] + level * noise[row]
            elif kind == "multiplicative":
                factors = 1 + level * noise[row]
                states[row] = states[row] * factors
            elif kind == "scale":
                states[row] = states[row] * level
            else:
                raise KeyError(kind)
        return states

    return change
