"""What the engine asks of a model, whatever its family.

Shapes: examples G, variants of a run R (its levels and draws), rows M (a variant each), tokens T,
width D, pictures' states S, vocabulary V, blocks L.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from blip_tracing.vocabulary.sites import Place

Pictures = Any


@dataclass(frozen=True)
class RunStates:
    """Runs of G examples, R variants each, as far as they are kept.

    pictures: what the model made of their pictures (`read_pictures`); stream: before, between and
    behind the blocks of the question encoder (L + 1, G, R, T, D); logits: of the first answer
    token (G, R, V), None where they were not kept.
    """

    pictures: Pictures
    stream: torch.Tensor
    logits: torch.Tensor | None = None

    @property
    def variants(self) -> int:
        """R."""
        return self.stream.shape[2]


class TracedModel(Protocol):
    """A model whose runs can be intervened on, at the sites of `vocabulary.sites`."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def layers(self) -> dict[str, int]:
        """The number of blocks of each tower."""

    @property
    def width(self) -> int:
        """D, of the question encoder."""

    def bytes_a_token(self, tokens: int) -> float:
        """What a token of a question of so many takes while a block is run."""

    def read_pictures(self, states: torch.Tensor, first_layer: int = 0) -> Pictures:
        """Prepare the pictures' states (G, S, D), or (G, R, S, D) where each variant has its own.

        first_layer: the first block that is going to read them.
        """

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """The first block's inputs (G, T, D) of questions (G, T)."""

    def run(self, inputs: torch.Tensor, pictures: Pictures) -> RunStates:
        """Run first inputs (G, R, T, D) to the first answer token."""

    def states_at(self, run: RunStates, place: Place) -> torch.Tensor:
        """What flows through a place in each variant: (G, R, T, D)."""

    def patch_each(
        self, run: RunStates, place: Place, donors: torch.Tensor, of: Sequence[int]
    ) -> torch.Tensor:
        """Put each position of donors (G, M, T, D) in turn into a variant each of the run.

        of: M indices of variants. Returns logits (G, M, T, V); index 2 is the patched position.
        """

    def patch_all(
        self, run: RunStates, place: Place, donors: torch.Tensor, of: Sequence[int]
    ) -> torch.Tensor:
        """Put all positions of donors (G, M, T, D) at once into a variant each: (G, M, V)."""

    def resume(self, run: RunStates, place: Place, of: Sequence[int]) -> torch.Tensor:
        """Run variants on from a place with nothing put in: logits (G, M, V)."""


def bytes_a_token(config: Any, weight: torch.Tensor, tokens: int) -> float:
    """What a token of a question of so many takes, of a text model of this configuration.

    A block holds states here and there and feed-forward states; a row has logits.
    """
    numbers = 8 * config.hidden_size + 2 * config.intermediate_size + 3 * config.vocab_size / tokens
    return weight.element_size() * numbers


def expand_positions(positions: int, rows: int) -> list[list[int]]:
    """Each position in turn, for each of `rows` runs: what pyvene takes as unit locations."""
    return [[position] for position in range(positions)] * rows
