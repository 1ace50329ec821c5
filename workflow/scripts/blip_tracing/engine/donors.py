"""Unrelated examples whose states are the null: which of a pool, and which of their positions."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import pad

from blip_tracing.models.family import RunStates, TracedModel
from blip_tracing.vocabulary.roles import NO_ROLE
from blip_tracing.vocabulary.sites import DECODER, ENCODER, Place


@dataclass(frozen=True)
class Candidate:
    """An example of a pool: its base question's tokens and their roles, its own answer's id."""

    name: str
    tokens: Sequence[str]
    roles: Sequence[str]
    answer: int


@dataclass(frozen=True)
class Donor:
    """An unrelated example of an example: what it is `of` the pool.

    positions: whose state each of the example's positions takes; matched: whether it is of the
    same role and place within it, and no rule had to give way.
    """

    of: Candidate
    positions: list[int]
    matched: list[bool]

    @property
    def name(self) -> str:
        """The example that it is."""
        return self.of.name


def choose_donors(
    example: str,
    roles: Sequence[str],
    followed: Collection[int],
    pool: Sequence[Candidate],
    count: int,
    seed: int,
) -> tuple[list[Candidate], bool]:
    """The first `count` of a pool whose own answer is none of those followed, and whether any is.

    First come those that have every role that the example's tokens have, of these those closest to
    it in length, then in an order drawn from the seed and the names. Where no answer is another,
    that rule gives way.
    """
    wanted = set(roles) - {NO_ROLE}

    def rank(candidate: Candidate) -> tuple[bool, int, bytes]:
        distance = abs(len(candidate.roles) - len(roles))
        key = f"{seed}\n{example}\n{candidate.name}".encode()
        return not wanted <= set(candidate.roles), distance, hashlib.sha256(key).digest()

    ranked = sorted(pool, key=rank)
    others = [candidate for candidate in ranked if candidate.answer not in followed]
    return (others or ranked)[:count], bool(others)


def match_positions(roles: Sequence[str], others: Sequence[str]) -> tuple[list[int], list[bool]]:
    """For each token of a question, which token of another stands for it, and whether it matches.

    roles, others: the role of each token of the two. The token that is the k-th of its role takes
    the other's k-th of that role, or the last that there is, which does not match; one whose role
    the other lacks, or that has none, takes the same relative place.
    """
    positions, matched = [], []
    for at, role in enumerate(roles):
        ordinal = roles[:at].count(role)
        same = [place for place, other in enumerate(others) if other == role != NO_ROLE]
        last = len(others) - 1
        relative = (2 * at * last + len(roles) - 1) // (2 * (len(roles) - 1))
        positions.append(same[min(ordinal, len(same) - 1)] if same else relative)
        matched.append(ordinal < len(same))
    return positions, matched


@dataclass(frozen=True)
class UnrelatedRuns:
    """The clean runs of the donors of G examples, K of each, and what is taken of them.

    runs: of the donors of a length each, as long as they are; donors: (G, K), the number of each
    example's, counted through the runs; positions: (G, K, T), of a donor for each of an example's.
    """

    runs: Sequence[RunStates]
    donors: torch.Tensor
    positions: torch.Tensor

    @property
    def count(self) -> int:
        """K."""
        return self.donors.shape[1]

    def at(self, model: TracedModel, place: Place, answers: torch.Tensor) -> torch.Tensor:
        """What takes each position's place: (G, K, T, W).

        In the question encoder the state of the position that stands for it, elsewhere that of the
        same position; answers: (G, K', A), those that are followed, as the decoder reads them.
        """
        if place.tower == DECODER and answers.shape[-1] > 1:
            return self._decoded(model, place, answers)
        states = [model.states_at(run, place)[:, 0] for run in self.runs]
        longest = max(part.shape[1] for part in states)
        padded = torch.cat([pad(part, (0, 0, 0, longest - part.shape[1])) for part in states])
        if place.tower == ENCODER:
            return padded[self.donors[..., None], self.positions]
        return padded[self.donors]

    def _decoded(self, model: TracedModel, place: Place, answers: torch.Tensor) -> torch.Tensor:
        """The donors' states under each example's answers, example by example."""
        found = []
        for own, donors in zip(answers, self.donors, strict=True):
            runs = (
                replace(run, answers=own.expand(run.stream.shape[1], -1, -1)) for run in self.runs
            )
            states = torch.cat([model.states_at(run, place)[:, 0] for run in runs])
            found.append(states[donors])
        return torch.stack(found)
