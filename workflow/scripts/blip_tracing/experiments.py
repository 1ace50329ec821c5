"""The tutorial's experiments on a batch of examples, as arrays: the engine does the work.

Shapes: examples G, blocks L, tokens T, width D, noise levels N, noise draws S, donors M,
answers K, vocabulary V.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from blip_tracing.engine import (
    ImageMemory,
    ResumableBlip,
    patch_all_positions,
    patch_positions,
    score_answers,
    state_index,
)
from blip_tracing.errors import MeasurementError

# Bounds the memory of a batch: BLIP-base's feed-forward states of so many tokens take 200 MB.
TOKENS_A_BATCH = 16_384
# Beyond this a GPU is busy all the time, and larger batches gain nothing.
TOKENS_A_GPU_BATCH = 262_144

Rows = TypeVar("Rows", torch.Tensor, list)
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """The clean runs of examples whose questions have equally many tokens.

    examples: G names; memory: their images' keys and values; states: (G, L + 1, T, D) of the runs
    "base", "source" (for patching) and "unrelated" (of an unrelated example each, where there is
    one); logits: (G, V) of the first answer token, of the runs "base" and "source", as they were
    recorded; answer_ids: (G, K), the base answer's token and the source answer's.
    """

    examples: list[str]
    memory: ImageMemory
    states: dict[str, torch.Tensor]
    logits: dict[str, torch.Tensor]
    answer_ids: torch.Tensor


@dataclass(frozen=True)
class Scores:
    """Probability and logit of answers, float32 on the CPU, of one shape (G, …, K)."""

    probability: torch.Tensor
    logit: torch.Tensor

    def unflatten(self, shape: tuple[int, ...]) -> "Scores":
        """Give the second axis the shape of several."""
        return Scores(self.probability.unflatten(1, shape), self.logit.unflatten(1, shape))

    def __getitem__(self, index: tuple) -> "Scores":
        return Scores(self.probability[index], self.logit[index])


@dataclass(frozen=True)
class Control:
    """A run whose outcome is known before: its scores, and its distance from that outcome.

    scores: (G, …, K); difference: (G, …), the largest absolute difference in probability; effect:
    (G, …), the difference that there would be, had other states been put in or none.
    """

    scores: Scores
    difference: torch.Tensor
    effect: torch.Tensor

    def __getitem__(self, index: tuple) -> "Control":
        return Control(self.scores[index], self.difference[index], self.effect[index])


@dataclass(frozen=True)
class Traced:
    """What tracing gives: floor (G, N, S, K), cells and null (G, N, S, L, T, K) with null's own S.

    no_op, all_restored: controls (G, N, L) at the first draw, all positions at once.
    """

    floor: Scores
    cells: Scores
    null: Scores | None
    no_op: Control
    all_restored: Control


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


# ---- patching ----------------------------------------------------------------------------------


def patch_layer(model: ResumableBlip, batch: Batch, site: str, layer: int) -> Scores:
    """Patch each position of one layer with each donor's state (the vanilla intervention).

    Donors: the source run and, where there is one, the unrelated example (the null).
    Returns scores (G, M, T, K).
    """
    index = state_index(site, layer)
    runs = [batch.states[run] for run in ("source", "unrelated") if run in batch.states]
    donors = torch.stack([states[:, index] for states in runs], dim=1)
    hidden = batch.states["base"][:, index, None].expand_as(donors)
    logits = patch_positions(model, batch.memory, site, layer, hidden, donors)
    return score(logits, batch, f"{site} layer {layer}")


def check_patches(
    model: ResumableBlip, batch: Batch, site: str, layer: int
) -> tuple[Control, Control]:
    """Patch all positions from the example itself (no-op) and from its source run (ceiling).

    The first must leave the base run's answer distribution, the second give the source run's.
    Each control is of shape (G,).
    """
    index = state_index(site, layer)
    base, source = (batch.states[run][:, index, None] for run in ("base", "source"))
    no_op, ceiling = check_layer(model, batch, site, layer, base, source, batch.logits["source"])
    first = (slice(None), 0)
    return no_op[first], ceiling[first]


# ---- tracing -----------------------------------------------------------------------------------


def trace_noise(
    model: ResumableBlip,
    batch: Batch,
    site: str,
    noise_levels: Sequence[float],
    noise: torch.Tensor,
    null_samples: int = 0,
) -> Traced:
    """Corrupt the first block's input and restore the clean state at each layer and position.

    noise: standard normal draws (G, S, T, D), scaled by each of the `noise_levels` (σ). A level
    and draw is corrupted once. null_samples: the draws at which an unrelated example's state is
    put in the clean one's place too.
    """
    clean = batch.states["base"]
    levels = torch.tensor(noise_levels, dtype=clean.dtype, device=clean.device)
    corrupted = clean[:, :1, None] + levels[:, None, None, None] * noise[:, None].to(clean)
    floor, cells = trace_runs(model, batch, site, clean, corrupted)
    null = None
    if null_samples and "unrelated" in batch.states:
        unrelated = batch.states["unrelated"]
        _, null = trace_runs(model, batch, site, unrelated, corrupted[:, :, :null_samples])
    no_op, all_restored = check_traces(model, batch, site, corrupted[:, :, 0])
    return Traced(floor, cells, null, no_op, all_restored)


def trace_runs(
    model: ResumableBlip, batch: Batch, site: str, donor: torch.Tensor, corrupted: torch.Tensor
) -> tuple[Scores, Scores]:
    """Trace corrupted first inputs (G, N, S, T, D), the donor's states (G, L + 1, T, D) put back.

    Returns the scores with nothing restored (G, N, S, K), the floor, and restored
    (G, N, S, L, T, K).
    """
    shape = corrupted.shape[1:3]
    runs = corrupted.flatten(1, 2).transpose(0, 1)
    trace = partial(trace_batch, model, batch, site, donor)
    batches = in_batches(trace, runs, runs_a_batch(model, batch))
    floors, cells = zip(*batches, strict=True)
    return join(floors).unflatten(shape), join(cells).unflatten(shape)


def trace_batch(
    model: ResumableBlip,
    batch: Batch,
    site: str,
    donor: torch.Tensor,
    corrupted: torch.Tensor,
) -> tuple[Scores, Scores]:
    """Trace corrupted first inputs (R, G, T, D) at once: scores (G, R, K) and (G, R, L, T, K)."""
    states, floor_logits = run_corrupted(model, batch, corrupted.transpose(0, 1))
    floor = score(floor_logits, batch, "nothing restored")
    layers = []
    for layer in range(len(model.blocks)):
        index = state_index(site, layer)
        logits = patch_positions(
            model, batch.memory, site, layer, states[index], donor[:, index, None]
        )
        layers.append(score(logits, batch, f"{site} layer {layer}"))
    return floor, Scores(
        torch.stack([scores.probability for scores in layers], dim=2),
        torch.stack([scores.logit for scores in layers], dim=2),
    )


def check_traces(
    model: ResumableBlip, batch: Batch, site: str, corrupted: torch.Tensor
) -> tuple[Control, Control]:
    """Restore, at all positions of a layer, what is there (no-op) and the clean states.

    The first must leave the corrupted run's answer distribution, the second give the clean one.
    corrupted: first inputs (G, N, T, D). Each control is of shape (G, N, L).
    """
    states, _ = run_corrupted(model, batch, corrupted)
    layers = []
    for layer in range(len(model.blocks)):
        index = state_index(site, layer)
        clean = batch.states["base"][:, index, None]
        layers.append(
            check_layer(model, batch, site, layer, states[index], clean, batch.logits["base"])
        )
    no_ops, restored = zip(*layers, strict=True)
    return stack_controls(no_ops), stack_controls(restored)


def run_corrupted(
    model: ResumableBlip, batch: Batch, corrupted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run first inputs (G, R, T, D): states (L + 1, G, R, T, D) and logits (G, R, V)."""
    shape = corrupted.shape[:2]
    states, logits = model.run_through(corrupted.flatten(0, 1), batch.memory)
    return states.unflatten(1, shape), logits.unflatten(0, shape)


# ---- scores and controls -----------------------------------------------------------------------


def score(logits: torch.Tensor, batch: Batch, place: str) -> Scores:
    """Score each example's answers (G, …, K) in logits (G, …, V)."""
    check_finite(logits, batch.examples, place)
    axes = (len(logits), *[1] * (logits.ndim - 2), -1)
    return Scores(*score_answers(logits, batch.answer_ids.reshape(axes)))


def check_finite(logits: torch.Tensor, examples: Sequence[str], place: str) -> None:
    """Check logits (G, …, V); a sum is finite just where all it sums is, and costs the least.

    Raises MeasurementError, naming the first example and the place, at NaN or infinity.
    """
    finite = logits.float().sum(-1).isfinite().reshape(len(logits), -1).all(1)
    if not finite.all():
        raise MeasurementError(
            f"example {examples[int(finite.int().argmin())]!r}, {place}: the logits hold NaN or "
            "infinity; look at the checkpoint's weights, or run it in model.dtype float32"
        )


def check_layer(
    model: ResumableBlip,
    batch: Batch,
    site: str,
    layer: int,
    hidden: torch.Tensor,
    donor: torch.Tensor,
    recorded: torch.Tensor,
) -> tuple[Control, Control]:
    """Patch all positions of runs with their own states, and with those of a recorded run.

    hidden: states (G, N, T, D) of the runs at the site; donor: (G, 1, T, D) of the recorded run;
    recorded: its logits (G, V), which do not come from this job, so that other weights show.
    The first control must give the runs left alone, the second the recorded run; each is (G, N).
    The first would miss the effect of the donor's states, the second that of putting none in.
    """
    place = f"{site} layer {layer}"
    alone = model(hidden.flatten(0, 1).clone(), batch.memory, layer, site)
    alone = alone.unflatten(0, hidden.shape[:2])
    unchanged, replaced = (
        patch_all_positions(model, batch.memory, site, layer, hidden, states)
        for states in (hidden, donor)
    )
    return (
        compare(unchanged, alone, replaced, batch, place),
        compare(replaced, recorded[:, None], alone, batch, place),
    )


def compare(
    logits: torch.Tensor,
    expected: torch.Tensor,
    otherwise: torch.Tensor,
    batch: Batch,
    place: str,
) -> Control:
    """A control of shape (G, N) from its logits, the expected ones and those that a fault gives.

    All are (G, N, V), the expected ones perhaps (G, 1, V).
    """
    return Control(
        score(logits, batch, place), distance(logits, expected), distance(otherwise, expected)
    )


def distance(logits: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The largest absolute difference in probability of logits (G, N, V): (G, N), on the CPU."""
    one, other = (part.float().softmax(-1) for part in (logits, others))
    return (one - other).abs().amax(-1).cpu()


def stack_controls(controls: Sequence[Control]) -> Control:
    """Join the layers' controls along a last axis of their own: (G, N, L)."""
    return Control(
        Scores(
            torch.stack([control.scores.probability for control in controls], dim=2),
            torch.stack([control.scores.logit for control in controls], dim=2),
        ),
        torch.stack([control.difference for control in controls], dim=2),
        torch.stack([control.effect for control in controls], dim=2),
    )


def join(scores: Sequence[Scores]) -> Scores:
    """Concatenate scores along their second axis."""
    return Scores(
        torch.cat([part.probability for part in scores], dim=1),
        torch.cat([part.logit for part in scores], dim=1),
    )


# ---- batches -----------------------------------------------------------------------------------


def runs_a_batch(model: ResumableBlip, batch: Batch) -> int:
    """How many runs an example fit a batch, where each becomes one row of T tokens a position."""
    examples, _, tokens, _ = batch.states["base"].shape
    return max(1, tokens_a_batch(model, tokens) // (examples * tokens**2))


def examples_a_batch(model: ResumableBlip, tokens: int, runs: int, image_states: int) -> int:
    """How many examples of so many runs fit a batch; an image's keys and values count too."""
    tokens_an_example = runs * tokens**2 + 2 * image_states
    return max(1, tokens_a_batch(model, tokens) // tokens_an_example)


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


def in_batches(work: Callable[[Rows], Result], rows: Rows, size: int) -> list[Result]:
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
