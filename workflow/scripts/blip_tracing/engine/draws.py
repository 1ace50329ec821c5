"""Corrupted inputs of runs, the same whatever the batch, the device or the order of jobs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch

from blip_tracing.engine.batch import Batch
from blip_tracing.models.family import RunStates, TracedModel
from blip_tracing.vocabulary.corruptions import KINDS, QUESTION_EMBEDDINGS, Corruption
from blip_tracing.vocabulary.experiment import Run

Variant = tuple[float, int]


def draw_noise(seed: int, example: str, draw: int, tokens: int, width: int) -> torch.Tensor:
    """Return standard normal noise of shape (tokens, width), float32 on the CPU.

    The generator is keyed by (seed, example, draw) alone, so that all layers, positions, sites and
    levels of a draw share their noise (torch promises the same numbers within one release only, so
    a test pins them): the pairing of ROME (Meng et al. 2022, section 2.1;
    `causal_trace.py`, which corrupts a batch once and restores within it).
    """
    key = hashlib.sha256(f"{seed}\n{example}\n{draw}".encode()).digest()
    generator = torch.Generator(device="cpu").manual_seed(int.from_bytes(key[:8], "big") >> 1)
    return torch.randn(tokens, width, generator=generator, device="cpu")


def draws_of(corruption: Corruption, examples: Sequence[str], states: torch.Tensor) -> torch.Tensor:
    """The draws (G, S, T, D) of G examples whose states (G, T, D) they change."""
    rows, width = states.shape[1:]
    noise = [
        torch.stack(
            [
                draw_noise(corruption.seed, example, draw, rows, width)
                for draw in range(corruption.draws)
            ]
        )
        for example in examples
    ]
    return torch.stack(noise).to(states)


def corrupt(
    corruption: Corruption,
    examples: Sequence[str],
    states: torch.Tensor,
    variants: Sequence[Variant],
) -> torch.Tensor:
    """States (G, T, D) of examples at each of M variants, a level and a draw: (G, M, T, D)."""
    levels = torch.tensor([level for level, _ in variants]).to(states)
    draws = draws_of(corruption, examples, states)[:, [draw for _, draw in variants]]
    return KINDS[corruption.kind].apply(states[:, None], draws, levels[:, None, None])


def run_corrupted(
    model: TracedModel, batch: Batch, run: Run, variants: Sequence[Variant]
) -> RunStates:
    """A corrupted run of each example at each of M variants."""
    assert run.corruption is not None
    return PLACES[run.corruption.at](model, batch, run, variants)


def _question_embeddings(
    model: TracedModel, batch: Batch, run: Run, variants: Sequence[Variant]
) -> RunStates:
    assert run.corruption is not None
    clean = batch.runs[run.question]
    states = CHANGED[run.corruption.at](batch, run.question)
    inputs = corrupt(run.corruption, batch.examples, states, variants)
    return model.run(inputs, clean.pictures)


def clean_spread(batch: Batch, run: Run) -> torch.Tensor:
    """The standard deviation, of each example, of the clean states that the run changes: (G,)."""
    assert run.corruption is not None
    states = CHANGED[run.corruption.at](batch, run.question)
    return states.double().flatten(1).std(dim=1, correction=0).cpu()


# Of each place of `vocabulary.corruptions`: how it is corrupted, and which states (G, …) that
# changes.
PLACES = {QUESTION_EMBEDDINGS: _question_embeddings}
CHANGED: dict[str, Callable[[Batch, str], torch.Tensor]] = {
    QUESTION_EMBEDDINGS: lambda batch, question: batch.runs[question].stream[0][:, 0]
}
