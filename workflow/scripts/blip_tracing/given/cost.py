"""What a plan will cost: jobs, cells and floating-point operations, without running the model.

Products alone are counted, two operations a multiply-add. A resumed run needs its remaining
blocks, the answer decoder at one position and the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from blip_tracing.given.architecture import Architecture
from blip_tracing.given.plan import Plan
from blip_tracing.vocabulary.experiment import Experiment
from blip_tracing.vocabulary.sites import places_of

HEAD_WIDTH = 64
# What each variant's controls add, as rows of all positions: left alone, itself, the donor's.
CONTROL_ROWS = 3


@dataclass(frozen=True)
class Cost:
    """Of a stage: its jobs, the cells that its tables get (0 for what has none), operations."""

    stage: str
    jobs: int
    cells: int
    operations: float


def costs_of(plan: Plan, model: Architecture, tokens: Mapping[str, int]) -> list[Cost]:
    """The cost of each stage that runs the model. tokens: example → its question's tokens."""
    sizes = Sizes(model)
    shards, pictures = len(plan.shards), sum(map(len, plan.picture_shards.values()))
    costs = [
        Cost("encode_images", len(plan.picture_shards), 0, pictures * sizes.picture),
        Cost("answer_questions", shards, 0, sum(2 * sizes.run(t) for t in tokens.values())),
    ]
    for run in plan.corrupted.values():
        passes = len(run.levels) * run.draws
        operations = sum(passes * sizes.run(t) for t in tokens.values())
        costs.append(Cost(f"run_corrupted {run.name}", shards, 0, operations))
    for name, experiment in plan.experiments.items():
        each = [
            sizes.experiment(experiment, nulls_of(plan, experiment, example), t)
            for example, t in tokens.items()
        ]
        operations = sum(part for part, _ in each)
        cells = sum(count for _, count in each)
        costs.append(Cost(f"intervene {name}", shards * len(plan.parts[name]), cells, operations))
    if not plan.at_once:
        return costs
    cells, operations = sum(cost.cells for cost in costs), sum(cost.operations for cost in costs)
    return [Cost("measure_at_once", 1, cells, operations)]


def nulls_of(plan: Plan, experiment: Experiment, example: str) -> int:
    """How many nulls of an example a cell has, at each level.

    One a draw at which there is one, whatever the number of donors; without draws one a donor.
    """
    if example not in plan.pools:
        return 0
    controls = plan.config["controls"]
    if experiment.corrupted is None:
        return min(controls["donors"], len(plan.pools[example].rows))
    return min(controls.get("null_draws", experiment.draws), experiment.draws)


class Sizes:
    """Floating-point operations of a model's parts."""

    def __init__(self, model: Architecture) -> None:
        """Take the sizes from config.json."""
        self.text, self.vision, self.vocabulary = model.text, model.vision, model.vocabulary
        self.patches = (model.image_size // model.patch_size) ** 2 + 1

    @property
    def picture(self) -> float:
        """Encoding a picture, and projecting it to keys and values once a block."""
        d, f, s = self.vision.width, self.vision.inner_width, self.patches
        encoder = self.vision.layers * s * (4 * d * d + 2 * s * d + 2 * d * f)
        return 2 * (encoder + self.text.layers * 2 * s * d * self.text.width)

    def block(self, tokens: int) -> float:
        """One block of the question encoder, a question of so many tokens."""
        d, f, s = self.text.width, self.text.inner_width, self.patches
        token = 4 * d * d + 2 * tokens * d + 2 * d * d + 2 * s * d + 2 * d * f
        return 2 * tokens * token

    def decoder(self, tokens: int) -> float:
        """The answer decoder at its first position, and the vocabulary."""
        d, f = self.text.width, self.text.inner_width
        layer = 6 * d * d + 2 * (d // HEAD_WIDTH or 1) * tokens * d + 2 * d * f
        return 2 * (self.text.layers * layer + d * d + d * self.vocabulary)

    def run(self, tokens: int) -> float:
        """A whole run of a question."""
        return self.text.layers * self.block(tokens) + self.decoder(tokens)

    def experiment(self, experiment: Experiment, nulls: int, tokens: int) -> tuple[float, int]:
        """Operations, and cells, of one example: every place once, with controls.

        nulls: how many a cell has, at each level.
        """
        levels = max(1, len(experiment.levels))
        variants = levels * experiment.draws
        rows = (variants + levels * nulls) * tokens
        rows += CONTROL_ROWS * levels
        resumed = sum(
            (self.text.layers - place.index) * self.block(tokens) + self.decoder(tokens)
            for place in places_of(experiment.sites, range(self.text.layers))
        )
        corrupted = variants * self.run(tokens) if experiment.corrupted else 0
        cells = variants * tokens * self.text.layers * len(experiment.sites)
        return corrupted + rows * resumed, cells
