"""Scores of runs, and the check that they are numbers.

Shapes: examples G, answers K, vocabulary V.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from blip_tracing.errors import MeasurementError
from blip_tracing.models.family import Outcome
from blip_tracing.vocabulary.metrics import METRICS, Answered


@dataclass(frozen=True)
class Scores:
    """What the columns of a table say of runs: name → float32 on the CPU, all of one shape (G, …).

    It can be indexed and reshaped as each of them.
    """

    columns: dict[str, torch.Tensor]

    def __getitem__(self, index: tuple | slice) -> Scores:
        return Scores({name: values[index] for name, values in self.columns.items()})

    def unflatten(self, shape: tuple[int, ...]) -> Scores:
        """Give the second axis the shape of several."""
        return Scores({name: part.unflatten(1, shape) for name, part in self.columns.items()})

    @staticmethod
    def join(parts: Sequence[Scores], dim: int) -> Scores:
        """Concatenate along an axis that they have."""
        return Scores(
            {
                name: torch.cat([part.columns[name] for part in parts], dim=dim)
                for name in parts[0].columns
            }
        )

    @staticmethod
    def stack(parts: Sequence[Scores], dim: int) -> Scores:
        """Join along an axis that is new."""
        return Scores(
            {
                name: torch.stack([part.columns[name] for part in parts], dim=dim)
                for name in parts[0].columns
            }
        )


@dataclass(frozen=True)
class Judge:
    """Scores logits by metrics on the answers that are followed.

    metrics: their names; answers: (G, K, A) token ids, of the base answer and of the source
    answer, padded with −1; examples: G names, for errors.
    """

    metrics: Sequence[str]
    answers: torch.Tensor
    examples: Sequence[str]

    def score(self, found: Outcome, target: Outcome, place: str) -> Scores:
        """Score outcomes (G, …); target: of the run that they lead to, broadcasting.

        Raises MeasurementError, naming the first example and the place, at NaN or infinity.
        """
        for part in (found.logits, found.rest):
            if part is not None:
                check_finite(part, self.examples, place)
        logits = found.logits.float()
        shape = (len(logits), *[1] * (logits.ndim - 2), *self.answers.shape[1:])
        answers = self.answers.to(logits.device).reshape(shape)
        answers = answers.expand(*logits.shape[:-1], *self.answers.shape[1:])
        rest = logits.new_zeros(()) if found.rest is None else found.rest.float()
        runs = Answered(logits, answers, rest, target.logits.float())
        columns: dict[str, torch.Tensor] = {}
        for name in self.metrics:
            metric = METRICS[name]
            measured = metric.measure(runs).cpu()
            columns.update(zip(metric.columns, measured.unbind(-1), strict=True))
        return Scores(columns)


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
