"""Examples that are measured together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from blip_tracing.engine.donors import UnrelatedRuns
from blip_tracing.engine.scores import Judge
from blip_tracing.models.family import RunStates
from blip_tracing.vocabulary.experiment import SOURCE


@dataclass(frozen=True)
class Batch:
    """Examples whose questions have equally many tokens, and their clean runs.

    runs: the clean runs by question, "base" and "source", one variant each; answers: (G, K, A), the
    token ids of the base answer and the source answer, padded with −1; images: the states of their
    pictures (G, S, D); unrelated: the runs of their donors, as many of each, where they have any;
    roles: tower → the number of each position's role (G, P), −1 for none, where an experiment puts
    in the positions of a role together. For a corrupted run: source_images: the states of the
    pictures that the source runs see (G, S, D), None where they are the same; token_ids: (G, T) of
    each question; changed: which tokens of its question it changes (G, T), or which states of its
    picture (G, S), None for all; unit: what its levels count in.
    """

    examples: list[str]
    runs: dict[str, RunStates]
    answers: torch.Tensor
    images: torch.Tensor
    unrelated: UnrelatedRuns | None = None
    roles: Mapping[str, torch.Tensor] = field(default_factory=dict)
    source_images: torch.Tensor | None = None
    token_ids: Mapping[str, torch.Tensor] = field(default_factory=dict)
    changed: torch.Tensor | None = None
    unit: float = 1.0

    def images_of(self, question: str) -> torch.Tensor:
        """The states (G, S, D) of the pictures that the runs of a question see."""
        own = self.source_images
        return own if question == SOURCE and own is not None else self.images

    @property
    def tokens(self) -> int:
        """T."""
        return next(iter(self.runs.values())).stream.shape[3]

    def judge(self, metrics: Sequence[str]) -> Judge:
        """What scores its runs."""
        return Judge(metrics, self.answers, self.examples)
