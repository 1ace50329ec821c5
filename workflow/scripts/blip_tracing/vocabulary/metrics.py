"""What a run is scored by: a metric is a row of the table `METRICS`.

Each makes its columns from the logits of the first answer token. Tensors come and go without torch
being named here. Shapes: logits (…, V); answers (…, K), the ids of the answers that are followed;
target (…, V), the logits of the run that an intervention leads to; all broadcast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Tensor = Any
FOLLOWED = ("base", "source")


@dataclass(frozen=True)
class Metric:
    """A number a run has for each followed answer: columns `prefix_base` and `prefix_source`.

    measure: from logits, answers and target to (…, K).
    """

    name: str
    prefix: str
    meaning: str
    measure: Callable[[Tensor, Tensor, Tensor], Tensor]

    @property
    def columns(self) -> list[str]:
        """The table's columns, one for each followed answer."""
        return [f"{self.prefix}_{answer}" for answer in FOLLOWED]


def _logit(logits: Tensor, answers: Tensor, target: Tensor) -> Tensor:
    return logits.gather(-1, answers)


def _probability(logits: Tensor, answers: Tensor, target: Tensor) -> Tensor:
    return (logits.gather(-1, answers) - logits.logsumexp(-1, keepdim=True)).exp()


_ROWS = (
    Metric("probability", "p", "probability of the answer", _probability),
    Metric("logit", "logit", "its logit, before the softmax", _logit),
)
METRICS = {metric.name: metric for metric in _ROWS}


def columns_of(metrics: Iterable[str]) -> list[str]:
    """The columns of these metrics, in order."""
    return [column for name in metrics for column in METRICS[name].columns]
