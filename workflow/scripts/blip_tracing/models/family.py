"""What the engine asks of a model, whatever its family.

Shapes: examples G, variants of a run R (its levels and draws), rows M (a variant each), units U,
tokens T, width D, pictures' states S, vocabulary V, blocks L, followed answers K, their tokens A.

The answer decoder reads [DEC] and, behind it, all tokens but the last of each followed answer in
turn: 1 + K · (A − 1) positions, of which a token sees [DEC] and those before it in its own answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from blip_tracing.vocabulary.sites import DECODER, ENCODER, VISION, Place

Pictures = Any


@dataclass(frozen=True)
class Outcome:
    """What runs answer: logits (…, V) of the first answer token, and what follows it.

    rest: (…, K), the log-probability of each followed answer's further tokens, each after those
    before it; None where every answer is one token.
    """

    logits: torch.Tensor
    rest: torch.Tensor | None = None

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Outcome:
        """The same change of both."""
        return Outcome(change(self.logits), None if self.rest is None else change(self.rest))

    def __getitem__(self, index: Any) -> Outcome:
        return self.each(lambda part: part[index])

    def unflatten(self, shape: tuple[int, ...]) -> Outcome:
        """Give the first axis the shape of several."""
        return self.each(lambda part: part.unflatten(0, shape))


@dataclass(frozen=True)
class Patch:
    """What is put in: states of G examples' donors, M rows, at a window of places, U units each.

    places: the window's, one alone where it is 1; donors: at each place, the states (G, M, T, W)
    that are there in the donor, of all T positions that the place has (tokens, or a picture's
    patches), W wide; positions: (G, U, T), which of them each unit puts in; heads: U of them,
    which head's part of the width, None for the whole.
    """

    places: Sequence[Place]
    donors: Sequence[torch.Tensor]
    positions: torch.Tensor
    heads: Sequence[int | None]

    def everywhere(self, heads: Sequence[int | None]) -> Patch:
        """The same states at all positions; a unit a head."""
        examples, _, tokens = self.positions.shape
        every = self.positions.new_ones(examples, len(heads), tokens)
        return replace(self, positions=every, heads=heads)


@dataclass(frozen=True)
class RunStates:
    """Runs of G examples, R variants each, as far as they are kept.

    pictures: what the model made of their pictures (`read_pictures`); stream: before, between and
    behind the blocks of the question encoder (L + 1, G, R, T, D); logits: of the first answer
    token (G, R, V), None where they were not kept; rest: (G, R, K), as an `Outcome` has it;
    answers: (G, K, A), the token ids of the followed answers, padded with −1, None where each is
    one token that nobody reads; pixels: of their pictures, (G, 1 or R, 3, height, width), kept
    where a site of the vision tower is asked.
    """

    pictures: Pictures
    stream: torch.Tensor
    logits: torch.Tensor | None = None
    rest: torch.Tensor | None = None
    answers: torch.Tensor | None = None
    pixels: torch.Tensor | None = None

    @property
    def variants(self) -> int:
        """R."""
        return self.stream.shape[2]

    @property
    def whole_answers(self) -> bool:
        """Whether an answer that is followed has more than one token."""
        return self.answers is not None and self.answers.shape[-1] > 1

    @property
    def outcome(self) -> Outcome:
        """What they answer, where it was kept."""
        assert self.logits is not None
        return Outcome(self.logits, self.rest)


class TracedModel(Protocol):
    """A model whose runs can be intervened on, at the sites of `vocabulary.sites`."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def layers(self) -> dict[str, int]:
        """The number of blocks of each tower."""

    @property
    def heads(self) -> dict[str, int]:
        """The number of attention heads of each tower's blocks."""

    @property
    def width(self) -> int:
        """D, of the question encoder."""

    def bytes_a_token(self, tokens: int) -> float:
        """What a token of a question of so many takes while a block is run."""

    def read_pictures(self, states: torch.Tensor, first_layer: int = 0) -> Pictures:
        """Prepare the pictures' states (G, S, D), or (G, R, S, D) where each variant has its own.

        first_layer: the first block that is going to read them.
        """

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        """The states (G, R, S, D) of pictures' pixels (G, R, 3, height, width)."""

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """The first block's inputs (G, T, D) of questions (G, T)."""

    def embed_words(self, token_ids: torch.Tensor) -> torch.Tensor:
        """The embeddings (G, T, D) of questions' tokens, before positions and norm."""

    def finish_embedding(self, words: torch.Tensor) -> torch.Tensor:
        """The first block's inputs (G, R, T, D) of such embeddings; these are left as they are."""

    def run(
        self,
        inputs: torch.Tensor,
        pictures: Pictures,
        answers: torch.Tensor | None = None,
        pixels: torch.Tensor | None = None,
    ) -> RunStates:
        """Run first inputs (G, R, T, D) to the answer; answers and pixels are kept as they are."""

    def answer(self, run: RunStates) -> Outcome:
        """What its runs answer, made again: logits (G, R, V)."""

    def states_at(self, run: RunStates, place: Place) -> torch.Tensor:
        """What flows through a place in each variant: (G, R, T, W), T positions of its tower.

        At a site of heads it is the context of all of them, side by side.
        """

    def patch(self, run: RunStates, patch: Patch, of: Sequence[int]) -> Outcome:
        """Put each unit in turn into a variant each of the run: logits (G, M, U, V).

        of: M indices of variants. Behind a window's first place the run goes on with what was put
        in, so that of several places each receives what the others leave. All are of one tower.
        """


def pixels_of(run: RunStates) -> torch.Tensor:
    """The pixels (G, 1 or R, 3, height, width) of runs that are asked at a site of vision."""
    assert run.pixels is not None, "pixels are kept where a site of the vision tower is asked"
    return run.pixels


def variant_rows(part: torch.Tensor, of: Sequence[int]) -> torch.Tensor:
    """A copy of a variant each (G · M, …), of G examples' (G, 1 or R, …), 1 where all are one."""
    return part[:, [0] * len(of) if part.shape[1] == 1 else list(of)].flatten(0, 1)


def read_answers(
    answers: torch.Tensor | None, start: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """What the decoder reads of followed answers (G, K, A), at which positions, and what sees what.

    Ids (G, Q), what pads being token 0, which nothing reads; (1, 1) where each answer is one
    token. Positions (Q,): 0 for [DEC], j for the j-th token of an answer. Sight (Q, Q): whether the
    token of a row reads that of a column, None where [DEC] is alone.
    """
    if answers is None or answers.shape[-1] == 1:
        return torch.full((1, 1), start), torch.zeros(1, dtype=torch.long), None
    examples, count, length = answers.shape
    ids = torch.cat(
        [torch.full((examples, 1), start), answers[..., :-1].cpu().clamp(min=0).flatten(1)], 1
    )
    positions = torch.cat([torch.tensor([0]), torch.arange(1, length).repeat(count)])
    branch = torch.cat([torch.tensor([-1]), torch.arange(count).repeat_interleave(length - 1)])
    earlier = positions[:, None] >= positions
    return ids, positions, earlier & ((branch[:, None] == branch) | (branch == -1))


def log_probability_of_rest(
    next_logits: Callable[[int], torch.Tensor], answers: torch.Tensor
) -> torch.Tensor:
    """The log-probability (B, K) of the answers' (B, K, A) tokens behind the first.

    next_logits: the logits (B, V) behind a position of the decoder, made one at a time, for there
    are many tokens to a vocabulary.
    """
    rest = torch.zeros(answers.shape[:-1], device=answers.device)
    at = 0
    for answer in range(answers.shape[1]):
        for token in answers[:, answer, 1:].unbind(-1):
            at += 1
            logits = next_logits(at).float()
            found = logits.gather(-1, token.clamp(min=0)[:, None])[:, 0] - logits.logsumexp(-1)
            rest[:, answer] += found.where(token >= 0, 0.0)
    return rest


def blocks_of(config: Any) -> dict[str, int]:
    """The number of blocks of each tower of a BLIP of this configuration."""
    text = config.text_config.num_hidden_layers
    return {ENCODER: text, DECODER: text, VISION: config.vision_config.num_hidden_layers}


def heads_of(config: Any) -> dict[str, int]:
    """The number of attention heads of each tower's blocks."""
    text = config.text_config.num_attention_heads
    return {ENCODER: text, DECODER: text, VISION: config.vision_config.num_attention_heads}


def bytes_a_token(config: Any, weight: torch.Tensor, tokens: int) -> float:
    """What a token of a question of so many takes, of a text model of this configuration.

    A block holds states here and there and feed-forward states; a row has logits.
    """
    numbers = 8 * config.hidden_size + 2 * config.intermediate_size + 3 * config.vocab_size / tokens
    return weight.element_size() * numbers
