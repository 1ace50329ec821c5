"""How much fits the device at once, and working through the rest batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from blip_tracing.models.family import TracedModel

# Bounds the memory of a batch: BLIP-base's feed-forward states of so many tokens take 200 MB.
TOKENS_A_BATCH = 16_384
# Beyond this a GPU is busy all the time, and larger batches gain nothing.
TOKENS_A_GPU_BATCH = 262_144

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


def variants_a_batch(model: TracedModel, examples: int, tokens: int) -> int:
    """How many variants of each example fit a batch, where each becomes a row a position."""
    return max(1, tokens_a_batch(model, tokens) // (examples * tokens**2))


def units_a_batch(model: TracedModel, rows: int, tokens: int) -> int:
    """How many units of so many rows of T positions fit a batch."""
    return max(1, tokens_a_batch(model, tokens) // (rows * tokens))


def examples_a_batch(model: TracedModel, tokens: int, variants: int, picture_states: int) -> int:
    """How many examples of so many variants fit a batch; a picture's keys and values count too."""
    tokens_an_example = variants * tokens**2 + 2 * picture_states
    return max(1, tokens_a_batch(model, tokens) // tokens_an_example)


def tokens_a_batch(model: TracedModel, tokens: int) -> int:
    """How many tokens of questions of T tokens the model's device takes at once."""
    if model.device.type != "cuda":
        return TOKENS_A_BATCH
    free, _ = torch.cuda.mem_get_info(model.device)
    return min(TOKENS_A_GPU_BATCH, int(free / 2 / model.bytes_a_token(tokens)))


def in_batches(work: Callable[[Any], Result], rows: Sequence[Any], size: int) -> list[Result]:
    """Work through rows in batches of `size`, halved when the device's memory runs out.

    Raises torch.OutOfMemoryError when a single row does not fit.
    """
    results = []
    while len(rows):
        try:
            results.append(work(rows[:size]))
        except torch.OutOfMemoryError:
            size = min(size, len(rows)) // 2
            if not size:
                raise
        else:
            rows = rows[size:]
            continue
        # Out here, since the exception keeps the failed batch's memory as long as it is handled.
        torch.cuda.empty_cache()
        logger.warning("the device's memory ran out: batches of %d from here", size)
    return results
