"""The tutorial's experiments on one example, as arrays: the engine does the work.

Shapes: blocks L, tokens T, width D, noise draws S, answers K.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from blip_tracing.engine import (
    ImageMemory,
    ResumableBlip,
    patch_positions,
    score_answers,
    state_index,
)

# Bounds the memory of a batch: BLIP-base's feed-forward states of so many tokens take 200 MB.
TOKENS_A_BATCH = 16_384
# Beyond this a GPU is busy all the time, and larger batches gain nothing.
TOKENS_A_GPU_BATCH = 262_144

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scores:
    """Probability and logit of answers, float32 on the CPU, of one shape."""

    probability: torch.Tensor
    logit: torch.Tensor

    def unflatten(self, shape: torch.Size) -> "Scores":
        """Give the first axis the shape of several."""
        return Scores(self.probability.unflatten(0, shape), self.logit.unflatten(0, shape))


def run_question(
    model: ResumableBlip, memory: ImageMemory, token_ids: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Answer one question about one image, with no intervention.

    Returns the states before, between and after the blocks (L + 1, T, D) and the first answer
    token's logits (V,).
    """
    hidden = model.embeddings(input_ids=torch.tensor([token_ids], device=model.device))
    states, logits = model.run_through(hidden, memory)
    return states[:, 0], logits[0]


def patch_layer(
    model: ResumableBlip,
    memory: ImageMemory,
    site: str,
    layer: int,
    base: torch.Tensor,
    source: torch.Tensor,
    answer_ids: torch.Tensor,
) -> Scores:
    """Patch each position of one layer with the source run's state (the vanilla intervention).

    base, source: states (L + 1, T, D) of the two runs; answer_ids: (K,). Returns scores (T, K).
    """
    index = state_index(site, layer)
    logits = patch_positions(
        model, memory, site, layer, base[index][None, None], source[index][None]
    )
    return Scores(*score_answers(logits[0, 0], answer_ids))


def trace_noise(
    model: ResumableBlip,
    memory: ImageMemory,
    site: str,
    noise_levels: list[float],
    clean: torch.Tensor,
    noise: torch.Tensor,
    answer_ids: torch.Tensor,
) -> tuple[Scores, Scores]:
    """Corrupt the first block's input and restore the clean state at each layer and position.

    clean: states (L + 1, T, D) of the clean run; noise: standard normal draws (S, T, D), scaled
    by each of N `noise_levels` (σ); answer_ids: (K,). A level and draw is corrupted once.
    Returns the scores with nothing restored (N, S, K), the floor, and restored (N, S, L, T, K).
    """
    levels = torch.tensor(noise_levels, dtype=clean.dtype, device=clean.device)
    corrupted = clean[0] + levels[:, None, None, None] * noise.to(clean)
    trace = partial(trace_batch, model, memory, site, clean, answer_ids)
    batches = in_batches(trace, corrupted.flatten(0, 1), runs_a_batch(model, clean.shape[1]))
    floors, cells = zip(*batches, strict=True)
    shape = corrupted.shape[:2]
    return join(floors).unflatten(shape), join(cells).unflatten(shape)


def trace_batch(
    model: ResumableBlip,
    memory: ImageMemory,
    site: str,
    clean: torch.Tensor,
    answer_ids: torch.Tensor,
    corrupted: torch.Tensor,
) -> tuple[Scores, Scores]:
    """Trace corrupted first inputs (S, T, D) at once: scores (S, K) and (S, L, T, K)."""
    states, floor_logits = model.run_through(corrupted, memory)
    floor = Scores(*score_answers(floor_logits, answer_ids))
    layers = list(restore_layers(model, memory, site, clean, states, answer_ids))
    return floor, Scores(
        torch.stack([scores.probability for scores in layers], dim=1),
        torch.stack([scores.logit for scores in layers], dim=1),
    )


def restore_layers(
    model: ResumableBlip,
    memory: ImageMemory,
    site: str,
    clean: torch.Tensor,
    corrupted: torch.Tensor,
    answer_ids: torch.Tensor,
) -> Iterator[Scores]:
    """Restore, layer by layer, each position of corrupted runs (L + 1, S, T, D): (S, T, K)."""
    for layer in range(len(model.blocks)):
        index = state_index(site, layer)
        logits = patch_positions(
            model, memory, site, layer, corrupted[index][None], clean[index][None]
        )
        yield Scores(*score_answers(logits[0], answer_ids))


def runs_a_batch(model: ResumableBlip, tokens: int) -> int:
    """How many corrupted runs fit a batch, where each becomes one row of T tokens a position."""
    return max(1, tokens_a_batch(model, tokens) // tokens**2)


def tokens_a_batch(model: ResumableBlip, tokens: int) -> int:
    """How many tokens of questions of T tokens the model's device takes at once."""
    if model.device.type != "cuda":
        return TOKENS_A_BATCH
    free, _ = torch.cuda.mem_get_info(model.device)
    sizes = model.config.text_config
    # What a block holds at once: states here and there, feed-forward states; a row's logits.
    numbers = 8 * sizes.hidden_size + 2 * sizes.intermediate_size + 3 * sizes.vocab_size / tokens
    number = model.embeddings.word_embeddings.weight.element_size()
    return min(TOKENS_A_GPU_BATCH, int(free / 2 / (number * numbers)))


def in_batches(
    work: Callable[[torch.Tensor], Result], rows: torch.Tensor, size: int
) -> list[Result]:
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
        logger.warning("the device's memory ran out: %d runs a batch from here", size)
    return results


def join(scores: tuple[Scores, ...]) -> Scores:
    """Concatenate scores along their first axis."""
    return Scores(
        torch.cat([part.probability for part in scores]), torch.cat([part.logit for part in scores])
    )
