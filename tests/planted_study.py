"""Studies of planted miniatures: their cells measured with the engine, and what a rule marks.

A population of examples is measured once; studies are parts of it. What lies on the axes of arrays:
examples N, draws S, cells M (layers times roles, layer by layer); NaN where an example has no token
of a role.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from planted import CHECKPOINT, LAYERS, ROLES, Pair, Plant, make_pairs, plant
from transformers import BlipForQuestionAnswering
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from blip_tracing.engine.batch import Batch
from blip_tracing.engine.cells import measure, run_variants, score_run, variants_of
from blip_tracing.engine.scores import Scores
from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.models.family import Patch, RunStates
from blip_tracing.vocabulary.corruptions import QUESTION_EMBEDDINGS, Corruption
from blip_tracing.vocabulary.experiment import BASE, QUESTIONS, SOURCE, Experiment, Run
from blip_tracing.vocabulary.sites import SITES, places_of

sys.path.insert(0, str(Path(__file__).parents[1] / "resources/miniature"))

from scenes import draw_scene, random_scene

SITE = next(iter(SITES))
PLACES = {place: str(names[0]) for place, names in places_of([SITE], range(LAYERS)).items()}
SCORED = ("probability", "logit")
EXAMPLES_A_BATCH = 16
DRAWN_AT = 96
CELLS = list(product(range(LAYERS), ROLES))
METRICS = ("probability", "log-odds", "logit difference")
# What float32 tells a probability from 0 and 1 by.
LEAST = 1e-7


@dataclass(frozen=True)
class Asked:
    """What is measured of a population of so many examples.

    donors: unrelated examples for each one's null; draw d takes donor d modulo their number.
    """

    examples: int
    levels: tuple[float, ...]
    draws: int
    donors: int = 5
    seed: int = 0

    @property
    def experiments(self) -> dict[str, Experiment]:
        """Patching and tracing, as the default configuration has them."""
        noise = Corruption("gaussian", QUESTION_EMBEDDINGS, self.levels, self.draws, self.seed)
        base, source, noisy = Run(BASE, BASE), Run(SOURCE, SOURCE), Run("noisy", BASE, noise)
        return {
            "patching": Experiment("patching", base, source, (SITE,)),
            "tracing": Experiment("tracing", noisy, base, (SITE,)),
        }


@dataclass(frozen=True)
class Measured:
    """An experiment on a batch of examples.

    cells: (G, M, L, T), null: (G, M', L, T), M' the variants, or the donors where nothing is
    corrupted; reference, target: the receiver's own run and the donor's (G, M), M of one run 1.
    """

    cells: Scores
    null: Scores
    reference: Scores
    target: Scores


@dataclass(frozen=True)
class MeasuredBatch:
    """Examples of one template, their numbers in the population, and their experiments."""

    numbers: list[int]
    pairs: list[Pair]
    experiments: dict[str, Measured]


@dataclass(frozen=True)
class Map:
    """An experiment at a level, averaged over each role's positions.

    change: by metric (N, S, M), towards the answer that is followed, from the reference; contrast:
    the same from the null, at each draw, or of each donor where nothing is corrupted;
    total_effect: (N,), in probability.
    """

    change: dict[str, np.ndarray]
    contrast: dict[str, np.ndarray]
    total_effect: np.ndarray


def pictures_of(count: int, seed: int) -> torch.Tensor:
    """Scenes by chance as the vision tower reads them: (N, 3, height, width)."""
    random = np.random.default_rng(seed)
    drawn = [draw_scene(random_scene(random), DRAWN_AT) for _ in range(count)]
    processor = BlipImageProcessorPil.from_pretrained(CHECKPOINT)
    return processor(drawn, return_tensors="pt")["pixel_values"]


def choose_donors(pairs: Sequence[Pair], count: int, seed: int) -> list[list[int]]:
    """For each pair, other pairs by chance whose base question has neither of its answers.

    Those with a token of every role that the pair has come first.
    """
    random = np.random.default_rng(seed)
    chosen = []
    for pair in pairs:
        apart = [n for n, other in enumerate(pairs) if other.answers[0] not in pair.answers]
        order = [int(n) for n in random.permutation(apart)]
        missing = {n: len(set(pair.roles) - set(pairs[n].roles)) for n in order}
        chosen.append(sorted(order, key=missing.__getitem__)[:count])
    return chosen


def fit_roles(states: torch.Tensor, donor: Pair, receiver: Pair) -> torch.Tensor:
    """A donor's states (L + 1, T', D) at the receiver's positions: its token of the same role.

    Where a role has several the same one of them, or the last; where it has none, [CLS]'s state.
    """
    places = []
    for at, role in enumerate(receiver.roles):
        ordinal = receiver.roles[:at].count(role)
        there = [place for place, other in enumerate(donor.roles) if other == role] or [0]
        places.append(there[min(ordinal, len(there) - 1)])
    return states[:, places]


@dataclass(frozen=True)
class Population:
    """A planted miniature and the clean runs of its examples, each with its donors' numbers."""

    blip: BlipForQuestionAnswering
    model: ResumableBlip
    pairs: list[Pair]
    images: torch.Tensor
    runs: list[dict[str, RunStates]]
    donors: list[list[int]]

    def batches(self) -> Iterator[list[int]]:
        """The numbers of examples of one template, a few at a time."""
        for template in sorted({pair.template for pair in self.pairs}):
            alike = [n for n, pair in enumerate(self.pairs) if pair.template == template]
            for start in range(0, len(alike), EXAMPLES_A_BATCH):
                yield alike[start : start + EXAMPLES_A_BATCH]

    def batch(self, of: Sequence[int]) -> Batch:
        """These examples as the engine takes them."""
        pictures = self.model.read_pictures(self.images[list(of)])
        runs = {}
        for question in QUESTIONS:
            parts = [self.runs[n][question] for n in of]
            stream = torch.cat([part.stream for part in parts], dim=1)
            logits = torch.cat([part.logits for part in parts if part.logits is not None])
            runs[question] = RunStates(pictures, stream, logits)
        answers = torch.tensor([self.pairs[n].answers for n in of])[..., None]
        return Batch([f"example-{n}" for n in of], runs, answers, self.images[list(of)])

    def unrelated(self, of: Sequence[int]) -> torch.Tensor:
        """The states of these examples' donors at their positions: (L + 1, G, K, T, D)."""
        fitted = [
            torch.stack(
                [
                    fit_roles(self.runs[d][BASE].stream[:, 0, 0], self.pairs[d], self.pairs[n])
                    for d in self.donors[n]
                ],
                dim=1,
            )
            for n in of
        ]
        return torch.stack(fitted, dim=1)


@torch.inference_mode()
def make_population(planted: Plant, asked: Asked) -> Population:
    """Run both questions of each example about its picture."""
    blip = plant(planted)
    model = ResumableBlip(blip)
    pairs = make_pairs(asked.examples, asked.seed)
    pixels = pictures_of(asked.examples, asked.seed)
    images = torch.cat([blip.vision_model(part).last_hidden_state for part in pixels.split(64)])
    runs = []
    for pair, image in zip(pairs, images, strict=True):
        pictures = model.read_pictures(image[None])
        asked_ids = {BASE: pair.base, SOURCE: pair.source}
        runs.append(
            {
                name: model.run(model.embed(torch.tensor([ids]))[:, None], pictures)
                for name, ids in asked_ids.items()
            }
        )
    return Population(
        blip, model, pairs, images, runs, choose_donors(pairs, asked.donors, asked.seed)
    )


@torch.inference_mode()
def measure_population(population: Population, asked: Asked) -> Iterator[MeasuredBatch]:
    """Measure each experiment, template by template."""
    for of in population.batches():
        batch, unrelated = population.batch(of), population.unrelated(of)
        experiments = {
            name: _measure(population.model, batch, experiment, unrelated)
            for name, experiment in asked.experiments.items()
        }
        yield MeasuredBatch(of, [population.pairs[n] for n in of], experiments)


def _measure(
    model: ResumableBlip, batch: Batch, experiment: Experiment, unrelated: torch.Tensor
) -> Measured:
    found = measure(model, batch, experiment, PLACES, 0, SCORED)
    variants, donors = variants_of(experiment), unrelated.shape[2]
    receiver = run_variants(model, batch, experiment.receiver, variants)
    of, donor = [0] * donors, list(range(donors))
    if experiment.corrupted:
        of, donor = receiver.of, [draw % donors for _, draw in variants]
    judge, nulls = batch.judge(SCORED), []
    single = torch.eye(batch.tokens, dtype=torch.bool).expand(len(batch.examples), -1, -1)
    for place, name in PLACES.items():
        patch = Patch([place], [unrelated[place.index][:, donor]], single, [None] * batch.tokens)
        outcome = model.patch(receiver.run, patch, of)
        nulls.append(judge.score(outcome, outcome, name))
    ends = [score_run(model, batch, run, SCORED) for run in (experiment.receiver, experiment.donor)]
    return Measured(
        Scores.stack([found[place].cells for place in PLACES], dim=2),
        Scores.stack(nulls, dim=2),
        *map(_flat, ends),
    )


def _flat(scores: Scores) -> Scores:
    return Scores({name: values.flatten(1) for name, values in scores.columns.items()})


def maps_of(batches: Sequence[MeasuredBatch], asked: Asked) -> dict[tuple[str, float], Map]:
    """Each experiment's map at each level, 0 where nothing is corrupted, of the population."""
    numbers = np.concatenate([batch.numbers for batch in batches]).argsort()
    maps = {}
    for name, experiment in asked.experiments.items():
        levels = experiment.levels or (0.0,)
        parts = [_of_roles(batch, name, len(levels)) for batch in batches]
        # (N, levels, S, M) and (N, levels)
        change, contrast = (
            {metric: np.concatenate([part[which][metric] for part in parts])[numbers]
             for metric in METRICS}
            for which in (0, 1)
        )  # fmt: skip
        total = np.concatenate([part[2] for part in parts])[numbers]
        for at, level in enumerate(levels):
            maps[name, level] = Map(
                {metric: values[:, at] for metric, values in change.items()},
                {metric: values[:, at] for metric, values in contrast.items()},
                total[:, at],
            )
    return maps


def _of_roles(
    batch: MeasuredBatch, name: str, levels: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    measured = batch.experiments[name]
    followed = 1 if name == "patching" else 0
    change, contrast = {}, {}
    for metric in METRICS:
        cells, null = (
            _role_means(followed_by(metric, scores, followed), batch.pairs)
            for scores in (measured.cells, measured.null)
        )
        reference = followed_by(metric, measured.reference, followed)
        moved = cells - reference[..., None]
        change[metric], contrast[metric] = (
            values.reshape(len(values), levels, -1, len(CELLS)) for values in (moved, cells - null)
        )
    ends = [
        followed_by("probability", scores, followed).reshape(len(batch.pairs), -1)
        for scores in (measured.reference, measured.target)
    ]
    before = ends[0].reshape(len(batch.pairs), levels, -1).mean(-1)
    return change, contrast, ends[1].mean(1)[:, None] - before


def followed_by(metric: str, scores: Scores, followed: int) -> np.ndarray:
    """A metric of the followed answer: 0 the base question's, 1 the source question's."""
    names = ["base", "source"]
    if metric == "logit difference":
        ours, theirs = names[followed], names[1 - followed]
        return (scores.columns[f"logit_{ours}"] - scores.columns[f"logit_{theirs}"]).numpy()
    p = scores.columns[f"p_{names[followed]}"].numpy().astype("float64")
    if metric == "probability":
        return p
    p = p.clip(LEAST, 1 - LEAST)
    return np.log(p / (1 - p))


def _role_means(values: np.ndarray, pairs: Sequence[Pair]) -> np.ndarray:
    """Values (G, M, L, T) averaged over each role's positions: (G, M, cells)."""
    roles = np.array(pairs[0].roles)
    means = np.full((*values.shape[:3], len(ROLES)), np.nan)
    for at, role in enumerate(ROLES):
        if (roles == role).any():
            means[..., at] = values[..., roles == role].mean(-1)
    return means.reshape(*values.shape[:2], -1)
