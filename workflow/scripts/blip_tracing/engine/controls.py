"""Controls beside the results: runs whose outcome is known before.

A control that misses its outcome stops the job: none of its numbers could be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from blip_tracing.engine.scores import Scores
from blip_tracing.errors import MeasurementError
from blip_tracing.vocabulary.tables import NO_OP

# Both sides of a no-op go through the same arithmetic.
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


def distance(logits: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The largest absolute difference in probability of logits (G, M, V): (G, M), on the CPU."""
    one, other = (part.float().softmax(-1) for part in (logits, others))
    return (one - other).abs().amax(-1).cpu()


def tolerance_of(control: str, dtype: str) -> float:
    """How far off its outcome, in probability, rounding may put a control."""
    return NO_OP_TOLERANCE if control == NO_OP else TOLERANCE[dtype]


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
