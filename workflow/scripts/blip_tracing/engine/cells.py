"""The intervention: an experiment on a batch of examples, as arrays.

Whatever the experiment, a cell is one variant of the receiver (a level and a draw; one alone where
nothing is corrupted) into which one position of the donor is put at one place.

Shapes: examples G, variants M (levels N times draws S), tokens T, answers K, vocabulary V.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from blip_tracing.engine.batch import Batch
from blip_tracing.engine.batches import in_batches, variants_a_batch
from blip_tracing.engine.controls import Control, distance
from blip_tracing.engine.draws import Variant, run_corrupted
from blip_tracing.engine.scores import Judge, Scores
from blip_tracing.models.family import RunStates, TracedModel
from blip_tracing.vocabulary.experiment import Experiment, Run
from blip_tracing.vocabulary.sites import Place
from blip_tracing.vocabulary.tables import CEILING, NO_OP

# The one variant of a run that nothing corrupts.
CLEAN: tuple[Variant, ...] = ((0.0, 0),)


@dataclass(frozen=True)
class Measured:
    """What is measured at one place: cells (G, M, T), the null (G, M', T) or None, controls (G, N).

    The null's variants are those of the first draws, draw d with donor d mod K; where there are no
    draws, its K donors. A control is at the first draw of each level.
    """

    cells: Scores
    null: Scores | None
    controls: dict[str, Control]


@dataclass(frozen=True)
class Chosen:
    """The rows of a run that some variants of an experiment are: of: the run's variant for each."""

    run: RunStates
    of: list[int]

    def at(self, model: TracedModel, place: Place) -> torch.Tensor:
        """What flows through a place: (G, M, T, D)."""
        return model.states_at(self.run, place)[:, self.of]

    def logits(self) -> torch.Tensor:
        """(G, M, V)."""
        assert self.run.logits is not None
        return self.run.logits[:, self.of]


def variants_of(asked: Run | Experiment) -> list[Variant]:
    """The levels and draws at which a run or an experiment is measured, level by level."""
    variants = [(level, draw) for level in asked.levels for draw in range(asked.draws)]
    return variants or list(CLEAN)


def run_variants(model: TracedModel, batch: Batch, run: Run, variants: Sequence[Variant]) -> Chosen:
    """A run at each of the variants; one that nothing corrupts is the same at all."""
    clean = batch.runs[run.question]
    if run.corruption is None:
        return Chosen(clean, [0] * len(variants))
    corrupted = run_corrupted(model, batch, run, variants)
    return Chosen(corrupted, list(range(len(variants))))


def score_run(model: TracedModel, batch: Batch, run: Run, metrics: Sequence[str]) -> Scores:
    """The run's own scores at its levels and draws, nothing put in: (G, N, S)."""
    judge, target = batch.judge(metrics), batch.runs[run.question].logits
    assert target is not None

    def work(variants: list[Variant]) -> Scores:
        logits = run_variants(model, batch, run, variants).logits()
        return judge.score(logits, target, f"run {run.name}")

    variants = variants_of(run)
    # A variant is one row here, where an intervention makes a row a position.
    size = variants_a_batch(model, len(batch.examples), batch.tokens) * batch.tokens
    scores = Scores.join(in_batches(work, variants, size), dim=1)
    return scores.unflatten((len(variants) // run.draws, run.draws))


def measure(
    model: TracedModel,
    batch: Batch,
    experiment: Experiment,
    places: Mapping[Place, str],
    null_draws: int | None,
    metrics: Sequence[str],
) -> dict[Place, Measured]:
    """Put each position of the donor, and of the null, into the receiver, at each place.

    places: with the name of each, for errors; null_draws: the draws, from the first, at which an
    unrelated example's states are put in too, None for all. A run is made once a level and draw,
    whatever the number of places.
    """
    variants = variants_of(experiment)
    work = partial(_measure_variants, model, batch, experiment, places, null_draws, metrics)
    size = variants_a_batch(model, len(batch.examples), batch.tokens)
    parts = in_batches(work, variants, size)
    return {place: _join([part[place] for part in parts]) for place in places}


def _measure_variants(
    model: TracedModel,
    batch: Batch,
    experiment: Experiment,
    places: Mapping[Place, str],
    null_draws: int | None,
    metrics: Sequence[str],
    variants: list[Variant],
) -> dict[Place, Measured]:
    receiver = run_variants(model, batch, experiment.receiver, variants)
    donor = run_variants(model, batch, experiment.donor, variants)
    judge, target = batch.judge(metrics), donor.logits()
    first = [row for row, (_, draw) in enumerate(variants) if draw == 0]
    nulls = _nulls(batch, experiment, variants, null_draws)
    size = variants_a_batch(model, len(batch.examples), batch.tokens)
    measured = {}
    for place, name in places.items():
        put = partial(_put, model, receiver, target, place, judge, name)
        donors = donor.at(model, place)
        cells = put(donors, list(range(len(variants))))
        null = None
        if batch.unrelated and nulls:
            null = _put_unrelated(put, batch.unrelated.at(model, place), nulls, size)
        controls = _controls(model, receiver, donor, donors, target, place, judge, name, first)
        measured[place] = Measured(cells, null, controls)
    return measured


def _nulls(
    batch: Batch, experiment: Experiment, variants: Sequence[Variant], null_draws: int | None
) -> list[tuple[int, int]]:
    """The variants at which there is a null, each with the number of its donor."""
    if batch.unrelated is None:
        return []
    count = batch.unrelated.count
    if experiment.corrupted is None:
        return [(0, number) for number in range(count)]
    return [
        (row, draw % count)
        for row, (_, draw) in enumerate(variants)
        if null_draws is None or draw < null_draws
    ]


def _put(
    model: TracedModel,
    receiver: Chosen,
    target: torch.Tensor,
    place: Place,
    judge: Judge,
    name: str,
    states: torch.Tensor,
    rows: list[int],
) -> Scores:
    """Score what comes of states (G, M, T, D) put into these variants, position by position."""
    of = [receiver.of[row] for row in rows]
    logits = model.patch_each(receiver.run, place, states, of)
    return judge.score(logits, target[:, rows, None], name)


def _put_unrelated(
    put: Callable[[torch.Tensor, list[int]], Scores],
    states: torch.Tensor,
    nulls: Sequence[tuple[int, int]],
    size: int,
) -> Scores:
    """Score the null, `size` rows at a time; states: of each donor (G, K, T, D).

    It is apart from the cells, whose batches then do not depend on how many nulls there are.
    """

    def work(chosen: Sequence[tuple[int, int]]) -> Scores:
        rows, donors = ([pair[end] for pair in chosen] for end in (0, 1))
        return put(states[:, donors], rows)

    return Scores.join(in_batches(work, nulls, size), dim=1)


def _controls(
    model: TracedModel,
    receiver: Chosen,
    donor: Chosen,
    donors: torch.Tensor,
    target: torch.Tensor,
    place: Place,
    judge: Judge,
    name: str,
    rows: list[int],
) -> dict[str, Control]:
    """Put in, at all positions, what is there, and the donor's states; (G, N) at these rows.

    The first must leave the receiver's answer distribution and would miss the effect of the
    donor's states; the second must give, where the place is all that the answer is made from, the
    donor's own, and would miss that of putting none in. Between blocks it is all where both read
    the same pictures, or where no block comes after it.
    """
    if not rows:
        return {}
    of = [receiver.of[row] for row in rows]
    own = model.states_at(receiver.run, place)[:, of]
    # In as large a batch as the no-op: else rounding alone would tell them apart.
    alone = model.resume(receiver.run, place, of * 2)[:, : len(rows)]
    both = model.patch_all(receiver.run, place, torch.cat([own, donors[:, rows]], dim=1), of * 2)
    unchanged, replaced = both.split(len(rows), dim=1)
    expected = target[:, rows]

    def control(found: torch.Tensor, known: torch.Tensor, otherwise: torch.Tensor) -> Control:
        scores = judge.score(found, expected, name)
        return Control(scores, distance(found, known), distance(otherwise, known))

    controls = {NO_OP: control(unchanged, alone, replaced)}
    same = receiver.run.pictures is donor.run.pictures
    if place.inner is None and (same or place.index == model.layers[place.tower]):
        controls[CEILING] = control(replaced, expected, alone)
    return controls


def _join(parts: Sequence[Measured]) -> Measured:
    """One place's parts, variant after variant."""
    nulls = [part.null for part in parts if part.null]
    controlled = [part.controls for part in parts if part.controls]
    return Measured(
        Scores.join([part.cells for part in parts], dim=1),
        Scores.join(nulls, dim=1) if nulls else None,
        {
            name: Control.join([controls[name] for controls in controlled], dim=1)
            for name in controlled[0]
        },
    )
