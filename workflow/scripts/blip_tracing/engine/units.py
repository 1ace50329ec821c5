"""What a cell puts in: a unit, which is a set of positions of a tower, of one head or of all.

Shapes: examples G, units U, sets of positions P, a tower's positions T as the model has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import torch

from blip_tracing.engine.batch import Batch
from blip_tracing.models.family import Patch, TracedModel
from blip_tracing.vocabulary.experiment import BY_ROLE, EACH, Experiment
from blip_tracing.vocabulary.regions import region_patches
from blip_tracing.vocabulary.sites import DECODER, VISION, Place


@dataclass(frozen=True)
class Units:
    """The units of a place: each of its heads (None for the whole), each at each set of positions.

    sets: (G, P, T); a set that is empty puts in nothing.
    """

    sets: torch.Tensor
    heads: Sequence[int | None]

    def __len__(self) -> int:
        return len(self.heads) * self.sets.shape[1]

    def only(self, unit: int) -> Units:
        """One of the units, alone."""
        count = self.sets.shape[1]
        return Units(self.sets[:, [unit % count]], [self.heads[unit // count]])

    def names(self, places: Sequence[Place]) -> list[str]:
        """Of each example, what the first unit puts in at these places, as noise is keyed by it.

        The same wherever the same is put in, whatever else an experiment asks.
        """
        where = ", ".join(
            f"{place.tower} {place.index} {place.inner.component if place.inner else 'stream'}"
            for place in places
        )
        (head, *_), found = self.heads, []
        for positions in self.sets[:, 0]:
            numbers = " ".join(map(str, positions.nonzero().flatten().tolist()))
            found.append(f"{where}; {'all' if head is None else head}; {numbers}")
        return found

    def patch(
        self, places: Sequence[Place], donors: Sequence[torch.Tensor], chosen: Sequence[int]
    ) -> Patch:
        """Donors' states (G, M, T, W) put in at each of the places by some of the units."""
        count = self.sets.shape[1]
        at = [unit % count for unit in chosen]
        return Patch(places, donors, self.sets[:, at], [self.heads[u // count] for u in chosen])


def units_of(
    model: TracedModel, batch: Batch, experiment: Experiment, place: Place, positions: int
) -> Units:
    """The units of an experiment at a place whose tower has so many positions."""
    heads: Sequence[int | None] = [None]
    if place.inner is not None and place.inner.heads:
        heads = experiment.heads or range(model.heads[place.tower])
    single = single_positions(batch, experiment, place.tower, positions)
    sets = single.expand(len(batch.examples), -1, -1)
    if experiment.positions == BY_ROLE:
        sets = join_roles(single, batch.roles[place.tower])
    elif experiment.positions != EACH:
        sets = sets.any(1, keepdim=True)
    return Units(sets, heads)


def single_positions(
    batch: Batch, experiment: Experiment, tower: str, positions: int
) -> torch.Tensor:
    """A tower's positions one by one, as tables count them: (P, T).

    A question's tokens; [DEC] and the j-th token of either answer; [CLS] and a picture's regions.
    """
    if tower == DECODER:
        length = batch.answers.shape[-1]
        of = torch.arange(length - 1).repeat(batch.answers.shape[1]) + 1
        return torch.cat([torch.tensor([0]), of]) == torch.arange(length)[:, None]
    if tower == VISION:
        regions = region_patches(isqrt(positions - 1), experiment.regions)
        rows = torch.zeros(len(regions), positions, dtype=torch.bool)
        for row, patches in zip(rows, regions, strict=True):
            row[patches] = True
        return rows
    return torch.eye(positions, dtype=torch.bool)


def join_roles(single: torch.Tensor, roles: torch.Tensor) -> torch.Tensor:
    """The positions (P, T) of each role together: (G, R, T); roles: of each (G, P), −1 for none."""
    numbers = torch.arange(int(roles.max()) + 1)
    of_role = roles[:, None] == numbers[:, None]
    return (of_role[..., None] & single).any(2)
