"""What a run is scored by: a metric is a row of the table `METRICS`.

Each makes its columns from the first answer token's logits and from what follows that token, and
says what its change from the reference tells of an intervention. Tensors come and go without torch
being named here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from blip_tracing.vocabulary.experiment import BASE, QUESTIONS, Experiment

Tensor = Any


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

    columns: what they are called in tables; measure: from runs to (…, C), C columns; label, words:
    what readers call the number, in short and with `{}` for the answer that is followed; unit: what
    follows a change of it, where it has one. lowest, highest: its range; falls: whether it is the
    less, the better the followed answer does; of_base: whether it is the base answer's against the
    source's, so that of the followed one it may be the opposite; of_target: whether it is a
    distance from the run that an intervention leads to.
    """

    name: str
    columns: tuple[str, ...]
    meaning: str
    measure: Callable[[Answered], Tensor]
    label: str
    words: str
    unit: str = ""
    lowest: float = -math.inf
    highest: float = math.inf
    falls: bool = False
    of_base: bool = False
    of_target: bool = False

    @property
    def change(self) -> str:
        """What its change from the reference is called in tables."""
        return f"{self.name}_change"

    @property
    def bounded(self) -> bool:
        """Whether its range ends on both sides."""
        return math.isfinite(self.lowest) and math.isfinite(self.highest)

    def column(self, followed: str) -> str:
        """Of its columns, that of the answer that is followed, or the one that there is."""
        return self.columns[QUESTIONS.index(followed) % len(self.columns)]

    def seen(self, experiment: Experiment) -> int:
        """−1 where the followed answer's number is the opposite of that in tables, else 1."""
        return -1 if self.of_base and experiment.followed != BASE else 1

    def towards(self, experiment: Experiment) -> int:
        """1 where an effect of the experiment raises its number in tables, −1 where it lowers it.

        A distance from the run that is led to falls, whatever that run is.
        """
        if self.of_target:
            return -1
        return self.seen(experiment) * experiment.direction * (-1 if self.falls else 1)

    def rises(self, experiment: Experiment) -> int:
        """The same of the number that readers see."""
        return self.seen(experiment) * self.towards(experiment)


def _of_each(prefix: str) -> tuple[str, ...]:
    """The columns of a number that each followed answer has."""
    return tuple(f"{prefix}_{answer}" for answer in QUESTIONS)


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
        lambda runs: runs.probabilities, "probability", "p({})", lowest=0, highest=1,
    ),
    Metric(
        "logit", _of_each("logit"),
        "its first token's logit, before the softmax, and the log-probability of further ones",
        lambda runs: runs.first + runs.rest, "logit", "logit({})", " logits",
    ),
    Metric(
        "logit_difference", ("logit_difference",), "the base answer's logit less the source's",
        lambda runs: -(runs.first + runs.rest).diff(dim=-1), "logit difference",
        "logit({}) − logit(other)", " logits", of_base=True,
    ),
    Metric(
        "answer_probability", ("answer_probability",),
        "probability of either followed answer; once where they are one or one begins the other",
        _either, "p(base) + p(source)", "p(base) + p(source)", lowest=0, highest=1,
    ),
    Metric(
        "rank", _of_each("rank"), "place of the answer's first token among all tokens; 1 is best",
        _rank, "rank", "rank({})", " places", lowest=1, falls=True,
    ),
    Metric(
        "kl", ("kl",),
        "divergence (Kullback-Leibler, in nats) of the first token's distribution from that of the "
        "run that the intervention leads to",
        _divergence, "KL divergence", "the divergence from the donor's run", " nats", lowest=0,
        of_target=True,
    ),
)  # fmt: skip
METRICS = {metric.name: metric for metric in _ROWS}
# Those that effects are measured by.
NEEDED = ("probability", "logit")
# Those whose changes these give, whatever else is asked.
ALWAYS = ("probability", "logit_difference")


def columns_of(metrics: Iterable[str]) -> list[str]:
    """The columns of these metrics, in order."""
    return [column for name in metrics for column in METRICS[name].columns]


def further_of(metrics: Iterable[str], tested: str) -> tuple[str, ...]:
    """The metrics whose changes are told beside those of `ALWAYS`, in order.

    They are what is asked beyond what effects need, and the metric that is tested.
    """
    asked = {*metrics} - {*NEEDED} | {tested}
    return tuple(name for name in METRICS if name in asked and name not in ALWAYS)
