"""Examples that are measured together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from blip_tracing.engine.donors import UnrelatedRuns
from blip_tracing.engine.scores import Judge
from blip_tracing.models.family import RunStates


@dataclass(frozen=True)
class Batch:
    """Examples whose questions have equally many tokens, and their clean runs.

    runs: the clean runs by question, "base" and "source", one variant each; answers: (G, K), the
    token ids of the base answer and the source answer; images: the states of their pictures
    (G, S, D); unrelated: the runs of their donors, as many of each, where they have any.
    """

    examples: list[str]
    runs: dict[str, RunStates]
    answers: torch.Tensor
    images: torch.Tensor
    unrelated: UnrelatedRuns | None = None

    @property
    def tokens(self) -> int:
        """T."""
        return next(iter(self.runs.values())).stream.shape[3]

    def judge(self, metrics: Sequence[str]) -> Judge:
        """What scores its runs."""
        return Judge(metrics, self.answers, self.examples)
