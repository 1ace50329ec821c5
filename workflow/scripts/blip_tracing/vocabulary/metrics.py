"""What a run is scored by: a metric is a row of the table `METRICS`.

Each makes its columns from the first answer token's logits and from what follows that token.
Tensors come and go without torch being named here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Tensor = Any
FOLLOWED = ("base", "source")


@dataclass(frozen=True)
class Answered:
    """Runs that are scored, and the run that they lead to; leading dimensions broadcast.

    logits: (…, V) of the first answer token; answers: (…, K, A), the token ids of the answers that
    are followed, padded with −1; rest: (…, K), the log-probability of each one's further tokens, 0
    where it has none; target: (…, V), the first token's logits in the run that an intervention
    leads to.
    """

    logits: Tensor
    answers: Tensor
    rest: Tensor
    target: Tensor

    @property
    def first(self) -> Tensor:
        """The logits (…, K) of each followed answer's first token."""
        return self.logits.gather(-1, self.answers[..., 0])

    @property
    def probabilities(self) -> Tensor:
        """The probability (…, K) of each followed answer, of all its tokens."""
        return (self.first - self.logits.logsumexp(-1, keepdim=True) + self.rest).exp()


@dataclass(frozen=True)
class Metric:
    """Numbers that a run has: one for each followed answer, or one for both.

    columns: what they are called in tables; measure: from runs to (…, C), C columns.
    """

    name: str
    columns: tuple[str, ...]
    meaning: str
    measure: Callable[[Answered], Tensor]


def _of_each(prefix: str) -> tuple[str, ...]:
    """The columns of a number that each followed answer has."""
    return tuple(f"{prefix}_{answer}" for answer in FOLLOWED)


def _divergence(runs: Answered) -> Tensor:
    ours, theirs = (logits.log_softmax(-1) for logits in (runs.logits, runs.target))
    return (theirs.exp() * (theirs - ours)).sum(-1, keepdim=True)


def _rank(runs: Answered) -> Tensor:
    """1 and how many tokens are more likely; answer by answer, for there are many tokens."""
    ranks = runs.first.clone()
    for answer, logit in enumerate(runs.first.unbind(-1)):
        ranks[..., answer] = (runs.logits > logit[..., None]).sum(-1) + 1
    return ranks


def _either(runs: Answered) -> Tensor:
    """The sum, or the shorter's alone where the other begins with it: that is a part of it."""
    one, other = runs.answers.unbind(-2)
    nested = ((one == other) | (one < 0) | (other < 0)).all(-1, keepdim=True)
    found = runs.probabilities
    return found.amax(-1, keepdim=True).where(nested, found.sum(-1, keepdim=True))


_ROWS = (
    Metric(
        "probability", _of_each("p"), "probability of the answer, of all its tokens",
        lambda runs: runs.probabilities,
    ),
    Metric(
        "logit", _of_each("logit"),
        "its first token's logit, before the softmax, and the log-probability of further ones",
        lambda runs: runs.first + runs.rest,
    ),
    Metric(
        "logit_difference", ("logit_difference",), "the base answer's logit less the source's",
        lambda runs: -(runs.first + runs.rest).diff(dim=-1),
    ),
    Metric(
        "answer_probability", ("answer_probability",),
        "probability of either followed answer; once where they are one or one begins the other",
        _either,
    ),
    Metric(
        "rank", _of_each("rank"), "place of the answer's first token among all tokens; 1 is best",
        _rank,
    ),
    Metric(
        "kl", ("kl",),
        "divergence (Kullback-Leibler, in nats) of the first token's distribution from that of the "
        "run that the intervention leads to, which is the reference",
        _divergence,
    ),
)  # fmt: skip
METRICS = {metric.name: metric for metric in _ROWS}
# Those that effects are measured by.
NEEDED = ("probability", "logit")


def columns_of(metrics: Iterable[str]) -> list[str]:
    """The columns of these metrics, in order."""
    return [column for name in metrics for column in METRICS[name].columns]
