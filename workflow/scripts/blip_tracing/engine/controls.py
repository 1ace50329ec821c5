"""Controls beside the results: runs whose outcome is known before.

A control that misses its outcome stops the job: none of its numbers could be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from blip_tracing.engine.scores import Scores
from blip_tracing.errors import MeasurementError
from blip_tracing.models.family import Outcome
from blip_tracing.vocabulary.tables import NO_OP

# Both sides of a no-op go through the same arithmetic, where what is put in is kept.
NO_OP_TOLERANCE = 1e-6
# A run resumed in another batch is rounded differently (seen at BLIP-base's size, float32 on a CPU:
# 5e-6; a fault such as a third of the width is thousands of times as far off), and bfloat16 keeps
# two to three digits.
TOLERANCE = {"float64": 1e-6, "float32": 1e-4, "bfloat16": 0.1}


@dataclass(frozen=True)
class Control:
    """A run whose outcome is known before: its scores, and its distance from that outcome.

    scores: of shape (G, …); difference: (G, …), the largest absolute difference in probability;
    effect: (G, …), the difference that there would be, had other states been put in or none.
    """

    scores: Scores
    difference: torch.Tensor
    effect: torch.Tensor

    @staticmethod
    def join(parts: Sequence[Control], dim: int) -> Control:
        """Concatenate along an axis that they have."""
        return Control(
            Scores.join([part.scores for part in parts], dim),
            torch.cat([part.difference for part in parts], dim),
            torch.cat([part.effect for part in parts], dim),
        )

    @staticmethod
    def stack(parts: Sequence[Control], dim: int) -> Control:
        """Join along an axis that is new."""
        return Control(
            Scores.stack([part.scores for part in parts], dim),
            torch.stack([part.difference for part in parts], dim),
            torch.stack([part.effect for part in parts], dim),
        )


def distance(found: Outcome, known: Outcome) -> torch.Tensor:
    """The largest absolute difference in probability of outcomes (G, M): (G, M), on the CPU.

    Of any first token, and of what follows it in any answer that is followed.
    """
    one, other = (part.logits.float().softmax(-1) for part in (found, known))
    difference = (one - other).abs().amax(-1)
    if found.rest is not None and known.rest is not None:
        further = (found.rest.float().exp() - known.rest.float().exp()).abs().amax(-1)
        difference = torch.maximum(difference, further)
    return difference.cpu()


def tolerance_of(control: str, dtype: str, kept: bool) -> float:
    """How far off its outcome, in probability, rounding may put a control.

    kept: whether what is put in are states that a run keeps, and does not make again.
    """
    return NO_OP_TOLERANCE if control == NO_OP and kept else TOLERANCE[dtype]


def check_control(
    control: Control, name: str, axes: Mapping[str, Sequence], site: str, tolerance: float
) -> None:
    """Check a control whose dimensions are the axes, "example" first.

    Raises MeasurementError that names example, layer and the difference when it is beyond the
    tolerance (in probability) or is not a number.
    """
    failed = ~(control.difference <= tolerance)
    if not failed.any():
        return
    first = tuple(failed.nonzero()[0].tolist())
    place = {axis: labels[index] for (axis, labels), index in zip(axes.items(), first, strict=True)}
    level = f", level {place['noise_level']:g}" if "noise_level" in place else ""
    raise MeasurementError(
        f"example {place['example']!r}, {site} layer {place['layer']}{level}: the control {name} "
        f"is {float(control.difference[first]):.2g} in probability from its known outcome "
        f"(at most {tolerance:g}); the results of this job would be wrong"
    )
