"""Corrupted inputs of runs, the same whatever the batch, the device or the order of jobs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt

import torch

from blip_tracing.engine.batch import Batch
from blip_tracing.models.family import Pictures, RunStates, TracedModel, pixels_of
from blip_tracing.vocabulary.corruptions import (
    DEVIATIONS,
    KINDS,
    PICTURE_PIXELS,
    PICTURE_STATES,
    QUESTION_EMBEDDINGS,
    QUESTION_WORDS,
    Corruption,
)
from blip_tracing.vocabulary.experiment import Run

Variant = tuple[float, int]
Inputs = tuple[torch.Tensor, Pictures, torch.Tensor | None]


def draw_noise(
    seed: int, example: str, draw: int, *shape: int, cell: str | None = None
) -> torch.Tensor:
    """Return standard normal noise of a shape (tokens, width), float32 on the CPU.

    The generator is keyed by (seed, example, draw) alone, so that all layers, positions, sites and
    levels of a draw share their noise (torch promises the same numbers within one release only, so
    a test pins them): the pairing of ROME (Meng et al. 2022, section 2.1;
    `causal_trace.py`, which corrupts a batch once and restores within it).

    cell: the name of one that has draws of its own (Palit et al. 2023, `trace_with_patch`, which
    draws in every call), shared by its levels and its null.
    """
    named = [seed, example, draw, *([] if cell is None else [cell])]
    key = hashlib.sha256("\n".join(map(str, named)).encode()).digest()
    generator = torch.Generator(device="cpu").manual_seed(int.from_bytes(key[:8], "big") >> 1)
    return torch.randn(*shape, generator=generator, device="cpu")


def draws_of(
    corruption: Corruption,
    examples: Sequence[str],
    states: torch.Tensor,
    draws: Sequence[int],
    cells: Sequence[str] | None = None,
) -> torch.Tensor:
    """The noise (G, M, …) of M draws of G examples whose states (G, …) they change.

    cells: of each example, the cell whose own draws they are; None for those that all share.
    """
    shape, seed = states.shape[1:], corruption.seed
    shared: list[str | None] = [None] * len(examples)
    of = list(zip(examples, cells or shared, strict=True))
    made = {
        draw: torch.stack([draw_noise(seed, name, draw, *shape, cell=cell) for name, cell in of])
        for draw in dict.fromkeys(draws)
    }
    return torch.stack([made[draw] for draw in draws], dim=1).to(states)


def corrupt(
    corruption: Corruption,
    batch: Batch,
    states: torch.Tensor,
    variants: Sequence[Variant],
    cells: Sequence[str] | None = None,
) -> torch.Tensor:
    """States (G, …) of examples at each of M variants, a level and a draw: (G, M, …)."""
    kind, unit = KINDS[corruption.kind], batch.unit if corruption.unit == DEVIATIONS else 1.0
    around = [1] * (states.ndim - 1)
    levels = torch.tensor([level * unit for level, _ in variants]).to(states)
    draws = states.new_zeros(())
    if kind.drawn:
        numbers = [draw for _, draw in variants]
        draws = draws_of(corruption, batch.examples, states, numbers, cells)
    changed = kind.apply(states[:, None], draws, levels.reshape(-1, *around))
    if not corruption.role:
        return changed
    assert batch.changed is not None
    mask = PLACES[corruption.at].mask(batch.changed, states)
    return torch.where(mask[:, None], changed, states[:, None])


def run_corrupted(
    model: TracedModel,
    batch: Batch,
    run: Run,
    variants: Sequence[Variant],
    cells: Sequence[str] | None = None,
) -> RunStates:
    """A corrupted run of each example at each of M variants; cells: as `draws_of` has them."""
    assert run.corruption is not None
    clean, also = batch.runs[run.question], run.corruption.also
    inputs, pictures, pixels = _begun(model, batch, run.question, run.corruption, variants, cells)
    if also:
        (level,) = also.levels
        fixed = [(level, draw) for _, draw in variants]
        _, pictures, pixels = _begun(model, batch, run.question, also, fixed, cells)
    return model.run(inputs, pictures, clean.answers, pixels)


def _begun(
    model: TracedModel,
    batch: Batch,
    question: str,
    corruption: Corruption,
    variants: Sequence[Variant],
    cells: Sequence[str] | None,
) -> Inputs:
    """What a question's runs begin from under one corruption."""
    place = PLACES[corruption.at]
    changed = corrupt(corruption, batch, place.read(model, batch, question), variants, cells)
    return place.give(model, batch.runs[question], changed)


def embedded_at(at: str, model: TracedModel, token_ids: torch.Tensor) -> torch.Tensor:
    """The states (G, T, D) of questions (G, T) at a place that has one a token."""
    return model.embed_words(token_ids) if at == QUESTION_WORDS else model.embed(token_ids)


def clean_spread(model: TracedModel, batch: Batch, run: Run) -> torch.Tensor:
    """The standard deviation, of each example, of the clean states that the run changes: (G,).

    Where levels count in standard deviations, that which they count in, the same for all.
    """
    corruption = run.corruption
    assert corruption is not None
    if corruption.unit == DEVIATIONS:
        return torch.full((len(batch.examples),), batch.unit, dtype=torch.float64)
    states = PLACES[corruption.at].read(model, batch, run.question).double()
    if batch.changed is not None:
        mask = PLACES[corruption.at].mask(batch.changed, states).expand_as(states)
        each = zip(states, mask, strict=True)
        return torch.stack([own[at].std(correction=0) for own, at in each]).cpu()
    return states.flatten(1).std(dim=1, correction=0).cpu()


def _of_states(changed: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """All numbers (G, N, 1) of those that are changed."""
    return changed[..., None]


@dataclass(frozen=True)
class Place:
    """A place of `vocabulary.corruptions`.

    read: the clean states (G, …) of a question's runs; give: what the runs begin from when they
    are changed to (G, M, …) instead: first inputs, pictures and, where they are kept, pixels; mask:
    of which tokens, or of which of a picture's states, are changed (G, N), what it is of the states
    (G, …), broadcasting.
    """

    read: Callable[[TracedModel, Batch, str], torch.Tensor]
    give: Callable[[TracedModel, RunStates, torch.Tensor], Inputs]
    mask: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = _of_states


def _of_pixels(changed: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """The pixels (G, 1, h, w) of those patches (G, 1 + P), behind [CLS], that are changed."""
    side = isqrt(changed.shape[1] - 1)
    patches = changed[:, None, 1:].unflatten(2, (side, side))
    height, width = (size // side for size in pixels.shape[2:])
    return patches.repeat_interleave(height, dim=2).repeat_interleave(width, dim=3)


def _with_states(model: TracedModel, clean: RunStates, states: torch.Tensor) -> Inputs:
    inputs = clean.stream[0].expand(-1, states.shape[1], -1, -1)
    return inputs, model.read_pictures(states), None


def _with_pixels(model: TracedModel, clean: RunStates, pixels: torch.Tensor) -> Inputs:
    inputs, pictures, _ = _with_states(model, clean, model.see(pixels))
    return inputs, pictures, pixels


PLACES = {
    QUESTION_WORDS: Place(
        lambda model, batch, question: embedded_at(
            QUESTION_WORDS, model, batch.token_ids[question]
        ),
        lambda model, clean, words: (model.finish_embedding(words), clean.pictures, clean.pixels),
    ),
    QUESTION_EMBEDDINGS: Place(
        lambda model, batch, question: batch.runs[question].stream[0][:, 0],
        lambda model, clean, inputs: (inputs, clean.pictures, clean.pixels),
    ),
    PICTURE_STATES: Place(lambda model, batch, question: batch.images_of(question), _with_states),
    PICTURE_PIXELS: Place(
        lambda model, batch, question: pixels_of(batch.runs[question])[:, 0],
        _with_pixels,
        _of_pixels,
    ),
}
