"""The intervention: an experiment on a batch of examples, as arrays.

Whatever the experiment, a cell is one variant of the receiver (a level and a draw; one alone where
nothing is corrupted) into which one unit of the donor (`engine.units`) is put at one place.

Shapes: examples G, variants M (levels N times draws S), units U, a tower's positions T, width W of
a site, answers K, vocabulary V.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from blip_tracing.engine.batch import Batch
from blip_tracing.engine.batches import in_batches, units_a_batch, variants_a_batch
from blip_tracing.engine.controls import Control, distance
from blip_tracing.engine.draws import Variant, run_corrupted
from blip_tracing.engine.scores import Judge, Scores
from blip_tracing.engine.units import Units, units_of
from blip_tracing.models.family import Outcome, Patch, RunStates, TracedModel
from blip_tracing.vocabulary.experiment import Experiment, Run
from blip_tracing.vocabulary.sites import (
    ENCODER,
    VISION,
    Place,
    contribution_of,
    whole_of,
    window_at,
)
from blip_tracing.vocabulary.tables import ALL_CONTRIBUTIONS, ALL_HEADS, CEILING, NO_OP

# The one variant of a run that nothing corrupts.
CLEAN: tuple[Variant, ...] = ((0.0, 0),)
# What the towers make of so many is kept while they are patched: of BLIP-base's, 70 MB each.
PICTURES_A_BATCH = 8


@dataclass(frozen=True)
class Measured:
    """What is measured at one place: cells (G, M, U), the null (G, M', U) or None, controls (G, N).

    Units are those of the first head at each position, then those of the next. The null's variants
    are those of the first draws, draw d with donor d mod K; where there are no draws, its K donors.
    A control is at the first draw of each level.
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
        """What flows through a place: (G, M, T, W)."""
        return model.states_at(self.run, place)[:, self.of]

    def outcome(self) -> Outcome:
        """What they answer: logits (G, M, V)."""
        return self.run.outcome[:, self.of]


def variants_of(asked: Run | Experiment) -> list[Variant]:
    """The levels and draws at which a run or an experiment is measured, level by level."""
    variants = [(level, draw) for level in asked.levels for draw in range(asked.draws)]
    return variants or list(CLEAN)


def run_variants(
    model: TracedModel,
    batch: Batch,
    run: Run,
    variants: Sequence[Variant],
    cells: Sequence[str] | None = None,
) -> Chosen:
    """A run at each of the variants; one that nothing corrupts is the same at all.

    cells: of each example, the cell whose own run it is; None for that of its floor and controls.
    """
    clean = batch.runs[run.question]
    if run.corruption is None:
        return Chosen(clean, [0] * len(variants))
    corrupted = run_corrupted(model, batch, run, variants, cells)
    return Chosen(corrupted, list(range(len(variants))))


def score_run(model: TracedModel, batch: Batch, run: Run, metrics: Sequence[str]) -> Scores:
    """The run's own scores at its levels and draws, nothing put in: (G, N, S)."""
    judge, target = batch.judge(metrics), batch.runs[run.question].outcome

    def work(variants: list[Variant]) -> Scores:
        found = run_variants(model, batch, run, variants).outcome()
        return judge.score(found, target, f"run {run.name}")

    variants = variants_of(run)
    # A variant is one row here, where an intervention makes a row a position.
    size = variants_a_batch(model, len(batch.examples), batch.tokens) * batch.tokens
    if run.corruption and run.corruption.of_picture:
        size = min(size, pictures_a_batch(model, batch))
    scores = Scores.join(in_batches(work, variants, size), dim=1)
    return scores.unflatten((len(variants) // run.draws, run.draws))


def pictures_a_batch(model: TracedModel, batch: Batch) -> int:
    """How many variants of each example fit a batch, where each has a picture of its own."""
    rows = min(PICTURES_A_BATCH, units_a_batch(model, 1, batch.images.shape[1]))
    return max(1, rows // len(batch.examples))


def measure(
    model: TracedModel,
    batch: Batch,
    experiment: Experiment,
    places: Mapping[Place, str],
    null_draws: int | None,
    metrics: Sequence[str],
) -> dict[Place, Measured]:
    """Put each unit of the donor, and of the null, into the receiver, at each place.

    places: those of `places_of` for the experiment's window, with the name of each, for errors;
    null_draws: the draws, from the first, at which an unrelated example's states are put in too,
    None for all. A run is made once a level and draw, whatever the number of places; where noise is
    fresh, once more for each cell, whose null is put into the same run. Controls are of the first.
    """
    variants = variants_of(experiment)
    work = partial(_measure_variants, model, batch, experiment, places, null_draws, metrics)
    size = variants_a_batch(model, len(batch.examples), batch.tokens)
    if experiment.in_pictures:
        size = min(size, pictures_a_batch(model, batch))
    parts = in_batches(work, variants, size)
    return {place: _join([part[place] for part in parts]) for place in places}


@dataclass(frozen=True)
class _Exchange:
    """What goes where at some variants: all but the place.

    first: the rows that are the first draw of their level; target: what the donor answers.
    """

    model: TracedModel
    receiver: Chosen
    donor: Chosen
    first: list[int]
    target: Outcome
    judge: Judge

    def put(
        self,
        window: Sequence[Place],
        units: Units,
        name: str,
        donors: Sequence[torch.Tensor],
        rows: list[int],
    ) -> Scores:
        """Score what comes of states (G, M, T, W) put into these variants, unit by unit."""
        of = [self.receiver.of[row] for row in rows]
        examples, variants, positions = donors[0].shape[:3]

        def work(chosen: Sequence[int]) -> Scores:
            found = self.model.patch(self.receiver.run, units.patch(window, donors, chosen), of)
            return self.judge.score(found, self.target[:, rows, None], name)

        size = units_a_batch(self.model, examples * variants, positions)
        return Scores.join(in_batches(work, range(len(units)), size), dim=2)

    def put_whole(self, places: Sequence[Place], donors: Sequence[torch.Tensor]) -> Outcome:
        """What comes of states (G, N, T, W) put into the first draws, at all positions at once.

        (G, N, 2), the second being what comes of putting in nothing, in the same batch.
        """
        of = [self.receiver.of[row] for row in self.first]
        examples, rows, positions = donors[0].shape[:3]
        sets = torch.tensor([True, False])[None, :, None].expand(examples, 2, positions)
        patch = Patch(places, donors, sets, [None, None])
        return self.model.patch(self.receiver.run, patch, of * (rows // len(of)))

    def at(self, chosen: Chosen, place: Place) -> torch.Tensor:
        """What flows through a place at the first draws: (G, N, T, W)."""
        return self.model.states_at(chosen.run, place)[:, [chosen.of[row] for row in self.first]]


def _measure_variants(
    model: TracedModel,
    batch: Batch,
    experiment: Experiment,
    places: Mapping[Place, str],
    null_draws: int | None,
    metrics: Sequence[str],
    variants: list[Variant],
) -> dict[Place, Measured]:
    exchange_of = partial(_exchange_of, model, batch, experiment, metrics, variants)
    exchange = exchange_of(None)
    nulls = _nulls(batch, experiment, variants, null_draws)
    size = variants_a_batch(model, len(batch.examples), batch.tokens)
    summed: set[str] = set()
    measured = {}
    for place, name in places.items():
        window = window_at(place, experiment.window, model.layers[place.tower])
        donors = [exchange.donor.at(model, at) for at in window]
        units = units_of(model, batch, experiment, place, donors[0].shape[2])
        unrelated = [
            batch.unrelated.at(model, at, batch.answers)
            for at in window
            if batch.unrelated and nulls
        ]
        put = partial(_put_units, window, name, unrelated, nulls, size)
        if experiment.fresh:
            cells, null = _put_apart(put, exchange_of, window, units)
        else:
            cells, null = put(exchange, donors, units)
        first = exchange.first
        controls = _controls(exchange, window, donors, name) if first else {}
        if first and _begins_contributions(place) and place.tower not in summed:
            summed.add(place.tower)
            controls |= _sum_up(exchange, place.tower, name)
        measured[place] = Measured(cells, null, controls)
    return measured


def _put_units(
    window: Sequence[Place],
    name: str,
    unrelated: Sequence[torch.Tensor],
    nulls: Sequence[tuple[int, int]],
    size: int,
    exchange: _Exchange,
    donors: Sequence[torch.Tensor],
    units: Units,
) -> tuple[Scores, Scores | None]:
    """Cells (G, M, U) and their null (G, M', U); unrelated: the states of the null's donors."""
    put = partial(exchange.put, window, units, name)
    cells = put(donors, list(range(donors[0].shape[1])))
    return cells, _put_unrelated(put, unrelated, nulls, size) if unrelated else None


def _put_apart(
    put: Callable[..., tuple[Scores, Scores | None]],
    exchange_of: Callable[[Sequence[str]], _Exchange],
    window: Sequence[Place],
    units: Units,
) -> tuple[Scores, Scores | None]:
    """The same, each unit into runs of its own, which are drawn for it."""
    cells, nulls = [], []
    for unit in (units.only(number) for number in range(len(units))):
        exchange = exchange_of(unit.names(window))
        donors = [exchange.donor.at(exchange.model, at) for at in window]
        cell, null = put(exchange, donors, unit)
        cells.append(cell)
        nulls += [null] if null else []
    return Scores.join(cells, dim=2), Scores.join(nulls, dim=2) if nulls else None


def _exchange_of(
    model: TracedModel,
    batch: Batch,
    experiment: Experiment,
    metrics: Sequence[str],
    variants: Sequence[Variant],
    cells: Sequence[str] | None,
) -> _Exchange:
    """Both ends at these variants; cells: as `run_variants` has them."""
    receiver, donor = (
        run_variants(model, batch, run, variants, cells)
        for run in (experiment.receiver, experiment.donor)
    )
    first = [row for row, (_, draw) in enumerate(variants) if draw == 0]
    return _Exchange(model, receiver, donor, first, donor.outcome(), batch.judge(metrics))


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


def _put_unrelated(
    put: Callable[[Sequence[torch.Tensor], list[int]], Scores],
    states: Sequence[torch.Tensor],
    nulls: Sequence[tuple[int, int]],
    size: int,
) -> Scores:
    """Score the null, `size` rows at a time; states: of each donor (G, K, T, W), at each place.

    It is apart from the cells, whose batches then do not depend on how many nulls there are.
    """

    def work(chosen: Sequence[tuple[int, int]]) -> Scores:
        rows, donors = ([pair[end] for pair in chosen] for end in (0, 1))
        return put([part[:, donors] for part in states], rows)

    return Scores.join(in_batches(work, nulls, size), dim=1)


def _controls(
    exchange: _Exchange, window: Sequence[Place], donors: Sequence[torch.Tensor], name: str
) -> dict[str, Control]:
    """Put in, at all positions, what is there, and the donor's states; (G, N) at the first draws.

    The first must leave the receiver's answer distribution and would miss the effect of the
    donor's states; the second must give the donor's own where the place is all that the answer is
    made from, and, of heads, what the sublayer's whole contribution gives, and would miss that of
    putting none in.
    """
    count = len(exchange.first)
    given = [part[:, exchange.first] for part in donors]
    own = [exchange.at(exchange.receiver, place) for place in window]
    both = [torch.cat(pair, dim=1) for pair in zip(own, given, strict=True)]
    found = exchange.put_whole(window, both)
    unchanged, alone, replaced = (
        found[:, :count, 0],
        found[:, :count, 1],
        found[:, count:, 0],
    )

    def control(found: Outcome, known: Outcome, otherwise: Outcome) -> Control:
        scores = exchange.judge.score(found, exchange.target[:, exchange.first], name)
        return Control(scores, distance(found, known), distance(otherwise, known))

    controls = {NO_OP: control(unchanged, alone, replaced)}
    if _settles(exchange, window[-1]):
        controls[CEILING] = control(replaced, exchange.target[:, exchange.first], alone)
    site = window[0].inner
    if site is not None and site.heads:
        added = [contribution_of(site).place(place.index) for place in window]
        whole = exchange.put_whole(added, [exchange.at(exchange.donor, at) for at in added])
        controls[ALL_HEADS] = control(replaced, whole[:, :, 0], alone)
    return controls


def _settles(exchange: _Exchange, place: Place) -> bool:
    """Whether the states of all positions at a place are all that the answer is made from.

    Between blocks they are where nothing else is read behind it that the two runs do not share:
    by the question encoder the picture, by the decoder the question, behind the vision tower the
    question's tokens.
    """
    receiver, donor = exchange.receiver, exchange.donor
    if place.inner is not None:
        return False
    if place.tower == VISION:
        tokens = (run.run.stream[0][:, run.of] for run in (receiver, donor))
        return torch.equal(*tokens)
    last = place.index == exchange.model.layers[place.tower]
    return last or (place.tower == ENCODER and receiver.run.pictures is donor.run.pictures)


def _begins_contributions(place: Place) -> bool:
    return place.inner is not None and place.inner.adds and place.index == 0


def _sum_up(exchange: _Exchange, tower: str, name: str) -> dict[str, Control]:
    """Put in a tower's first states and all that its sublayers add: it must be the donor's run.

    That is so where its last states settle the answer.
    """
    layers = exchange.model.layers[tower]
    if not _settles(exchange, Place(tower, layers, None)):
        return {}
    places = whole_of(tower, layers)
    donors = [exchange.at(exchange.donor, place) for place in places]
    found, target = exchange.put_whole(places, donors), exchange.target[:, exchange.first]
    scores = exchange.judge.score(found[:, :, 0], target, name)
    difference, effect = (distance(found[:, :, which], target) for which in (0, 1))
    return {ALL_CONTRIBUTIONS: Control(scores, difference, effect)}


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
