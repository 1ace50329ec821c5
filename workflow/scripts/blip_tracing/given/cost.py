"""What a plan will cost: jobs, cells and floating-point operations, without running the model.

Products alone are counted, two operations a multiply-add, in the order in which the engine works.
A run into which something is put goes on from there: its tower's remaining blocks, what comes
behind that tower, and the vocabulary. What is put in inside one block is first carried through that
block, once a variant and head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from blip_tracing.given.architecture import MOST_LAYERS, Architecture
from blip_tracing.given.plan import Part, Plan
from blip_tracing.vocabulary.corruptions import PICTURE_PIXELS, PICTURE_STATES
from blip_tracing.vocabulary.experiment import BY_ROLE, QUESTIONS, TOGETHER, Experiment, Run
from blip_tracing.vocabulary.roles import DECODER_ROLES
from blip_tracing.vocabulary.sites import (
    DECODER,
    ENCODER,
    SITES,
    VISION,
    Place,
    Site,
    towers_of,
    whole_of,
    window_of,
)

# The sizes of Salesforce/blip-vqa-base.
BLIP_BASE = Architecture.from_config(
    {
        "model_type": "blip",
        "architectures": ["BlipForQuestionAnswering"],
        "text_config": {"num_attention_heads": 12},
    },
    "BLIP-base",
)
COLORS = 3
# What a level's controls add, as rows of all positions: itself and the donor's, each beside a run
# left alone; at a site of heads all that they add together, beside one left alone.
CONTROL_ROWS, HEAD_CONTROL_ROWS = 4, 2
# Roles of the vision tower beside the boxes' names: [CLS] and what no box covers.
OTHER_VISION_ROLES = 2


@dataclass(frozen=True)
class Cost:
    """Of a stage: its jobs, the cells that its tables get (0 for what has none), operations."""

    stage: str
    jobs: int
    cells: int
    operations: float


@dataclass(frozen=True)
class Lengths:
    """Of an example: tokens of its question and of its longer answer, boxes on its picture."""

    question: int
    answer: int = 1
    boxes: int = 0


def costs_of(plan: Plan, model: Architecture, lengths: Mapping[str, Lengths]) -> list[Cost]:
    """The cost of each stage that runs the model; lengths: of each example."""
    sizes = Sizes(model, len(plan.config["effects"]["roles"]))
    shards, pictures = len(plan.shards), sum(map(len, plan.picture_shards.values()))
    answering = sum(sizes.reading() + 2 * sizes.run(each) for each in lengths.values())
    costs = [
        Cost("encode_images", len(plan.picture_shards), 0, pictures * sizes.picture),
        Cost("answer_questions", shards, 0, answering),
    ]
    for run in plan.corrupted.values():
        passes = len(run.levels) * run.draws
        operations = sum(
            sizes.reading() + passes * sizes.corrupted(run, each) for each in lengths.values()
        )
        costs.append(Cost(f"run_corrupted {run.name}", shards, 0, operations))
    for name, experiment in plan.experiments.items():
        parts = list(plan.parts[name].values())
        operations, cells = 0.0, 0
        for example, each in lengths.items():
            nulls = Nulls(*nulls_of(plan, experiment, example))
            operations += sum(sizes.part(experiment, part, nulls, each) for part in parts)
            cells += sizes.cells(experiment, each)
        costs.append(Cost(f"intervene {name}", shards * len(parts), cells, operations))
    if not plan.at_once:
        return costs
    cells, operations = sum(cost.cells for cost in costs), sum(cost.operations for cost in costs)
    return [Cost("measure_at_once", 1, cells, operations)]


@dataclass(frozen=True)
class Nulls:
    """Of an example: unrelated donors, and nulls that a cell has at each level."""

    donors: int
    a_level: int


def nulls_of(plan: Plan, experiment: Experiment, example: str) -> tuple[int, int]:
    """How many donors an example has, and how many nulls a cell of it, at each level.

    One a draw at which there is one, whatever the number of donors; without draws one a donor.
    """
    if example not in plan.pools:
        return 0, 0
    controls = plan.config["controls"]
    donors = min(controls["donors"], len(plan.pools[example].rows))
    if experiment.corrupted is None:
        return donors, donors
    return donors, min(controls.get("null_draws", experiment.draws), experiment.draws)


class Sizes:
    """Floating-point operations of a model's parts."""

    def __init__(self, model: Architecture, roles: int) -> None:
        """Take the sizes from config.json; roles: how many a question's tokens can have."""
        self.model, self.roles = model, roles
        self.text, self.vision, self.vocabulary = model.text, model.vision, model.vocabulary
        self.states = model.side**2 + 1

    # Blocks and what comes behind them.

    @property
    def picture(self) -> float:
        """Encoding a picture."""
        pixels = COLORS * self.model.patch_size**2
        patches = 2 * (self.states - 1) * pixels * self.vision.width
        return patches + self.vision.layers * self.vision_block()

    def reading(self, first_layer: int = 0) -> float:
        """Projecting a picture to the keys and values of the question encoder's blocks."""
        layers = max(0, self.text.layers - first_layer)
        return 2 * layers * 2 * self.states * self.vision.width * self.text.width

    def vision_block(self) -> float:
        """One block of the vision tower."""
        d, f, s = self.vision.width, self.vision.inner_width, self.states
        return 2 * s * (4 * d * d + 2 * s * d + 2 * d * f)

    def encoder_block(self, tokens: int, own_picture: bool = False) -> float:
        """One block of the question encoder, a question of T tokens.

        own_picture: of a row that shares its picture with none, so that the projections of the
        picture's states act on the queries instead.
        """
        d, f, s = self.text.width, self.text.inner_width, self.states
        seen = 2 * d * d + 2 * s * d
        if own_picture:
            seen = 2 * d * d + 2 * d * self.vision.width + 2 * self.text.heads * s * d
        return 2 * tokens * (4 * d * d + 2 * tokens * d + seen + 2 * d * f)

    def decoder_block(self, lengths: Lengths) -> float:
        """One block of the answer decoder, at all its positions."""
        d, f, reads = self.text.width, self.text.inner_width, self.reads(lengths)
        itself = 2 * d * d if reads == 1 else 4 * d * d + 2 * reads * d
        seen = 4 * d * d + 2 * self.text.heads * lengths.question * d
        return 2 * reads * (itself + seen + 2 * d * f)

    def words(self, lengths: Lengths) -> float:
        """The logits of the vocabulary behind each position of the decoder."""
        d = self.text.width
        return 2 * self.reads(lengths) * (d * d + d * self.vocabulary)

    @staticmethod
    def reads(lengths: Lengths) -> int:
        """The decoder's positions: [DEC], and all tokens but the last of both answers."""
        return 1 + len(QUESTIONS) * (lengths.answer - 1)

    def decoder(self, lengths: Lengths) -> float:
        """The whole answer decoder."""
        return self.text.layers * self.decoder_block(lengths) + self.words(lengths)

    def run(self, lengths: Lengths, own_picture: bool = False) -> float:
        """A whole run of a question about a picture that is encoded and read."""
        block = self.encoder_block(lengths.question, own_picture)
        return self.text.layers * block + self.decoder(lengths)

    def corrupted(self, run: Run, lengths: Lengths) -> float:
        """A corrupted run, in one draw; of a corrupted picture what is made of it is made anew."""
        at = {part.at for part in run.corruption.parts} if run.corruption else set()
        encoded = self.picture if PICTURE_PIXELS in at else 0
        read = self.reading() if at & {PICTURE_PIXELS, PICTURE_STATES} else 0
        return encoded + read + self.run(lengths)

    def block(self, tower: str, lengths: Lengths) -> float:
        """One block of a tower."""
        if tower == ENCODER:
            return self.encoder_block(lengths.question)
        return self.decoder_block(lengths) if tower == DECODER else self.vision_block()

    def behind(self, tower: str, lengths: Lengths) -> float:
        """What comes behind a tower's last block."""
        if tower == ENCODER:
            return self.decoder(lengths)
        return self.words(lengths) if tower == DECODER else self.run(lengths, own_picture=True)

    # Interventions.

    def units(self, experiment: Experiment, tower: str, lengths: Lengths) -> int:
        """How many cells a place and head have: positions, or the most roles that there can be."""
        if experiment.positions == TOGETHER:
            return 1
        regions = experiment.regions**2 or self.states - 1
        positions = {ENCODER: lengths.question, DECODER: lengths.answer, VISION: 1 + regions}[tower]
        if experiment.positions == BY_ROLE:
            roles = {
                ENCODER: self.roles,
                DECODER: len(DECODER_ROLES),
                VISION: OTHER_VISION_ROLES + lengths.boxes,
            }[tower]
            return min(roles, positions)
        return positions

    def heads(self, experiment: Experiment, site: Site) -> int:
        """How many heads are put in one by one; 1 where a site has none."""
        if not site.heads:
            return 1
        return len(experiment.heads) or self.model.tower(site.tower).heads

    def cells(self, experiment: Experiment, lengths: Lengths) -> int:
        """The rows that the experiment's table has of one example."""
        variants = max(1, len(experiment.levels)) * experiment.draws
        sites = [SITES[name] for name in experiment.sites]
        return variants * sum(
            self.model.tower(site.tower).layers
            * self.heads(experiment, site)
            * self.units(experiment, site.tower, lengths)
            for site in sites
        )

    def a_cell(self, experiment: Experiment, lengths: Lengths) -> float:
        """What a cell takes in the mean over layers, controls, nulls and pictures left aside."""
        put = sum(
            self.patch(
                site, places, 1, self.heads(experiment, site),
                self.units(experiment, site.tower, lengths), lengths,
            )
            for site, places in self.windows(experiment, range(MOST_LAYERS))
        )  # fmt: skip
        return put / self.cells(experiment, lengths)

    def part(self, experiment: Experiment, part: Part, nulls: Nulls, lengths: Lengths) -> float:
        """Operations of one example in a job: every place once, with controls and nulls."""
        levels = max(1, len(part.levels))
        variants = levels * experiment.draws
        run = experiment.corrupted
        corrupted = variants * self.corrupted(run, lengths) if run else 0
        return (
            self._read(experiment, min(part.layers), nulls.donors)
            + corrupted
            + self._decoded(experiment, variants, nulls.donors, lengths)
            + levels * self._contributions(experiment, part, lengths)
            + sum(
                self._cells(experiment, site, places, variants, levels * nulls.a_level, lengths)
                + self.controls(site, places, levels, lengths)
                + self.donors(site, places, variants + nulls.donors, lengths)
                for site, places in self.windows(experiment, part.layers)
            )
        )

    def _cells(
        self,
        experiment: Experiment,
        site: Site,
        places: Sequence[Place],
        variants: int,
        nulls: int,
        lengths: Lengths,
    ) -> float:
        """The cells of a window of places, and their nulls; fresh ones each with its own runs."""
        heads, units = self.heads(experiment, site), self.units(experiment, site.tower, lengths)
        if not experiment.fresh:
            return self.patch(site, places, variants + nulls, heads, units, lengths)
        run = experiment.corrupted
        own = self.corrupted(run, lengths) if run else 0
        if site.tower == DECODER:  # whose stream is made in each run
            own += self.text.layers * self.decoder_block(lengths)
        donors = variants if experiment.donor.corruption else 1
        apart = self.patch(site, places, variants + nulls, 1, 1, lengths)
        states = self.donors(site, places, donors, lengths)
        return heads * units * (variants * own + apart + states)

    def _read(self, experiment: Experiment, first_layer: int, donors: int) -> float:
        """Reading the pictures: the example's, and those of donors that are run again.

        Where a picture's states are put in, they are encoded anew, once a job.
        """
        sites = [SITES[name] for name in experiment.sites]
        kept = all(
            site.tower == DECODER or (site.tower == ENCODER and site.boundary is not None)
            for site in sites
        )
        towers = towers_of(experiment.sites)
        first = first_layer if towers == [ENCODER] else 0
        read = (1 + (0 if kept else donors)) * self.reading(first)
        return read + ((len(QUESTIONS) + donors) * self.picture if VISION in towers else 0)

    def _decoded(
        self, experiment: Experiment, variants: int, donors: int, lengths: Lengths
    ) -> float:
        """The decoder's stream of each run, once, where something is put in there."""
        if DECODER not in towers_of(experiment.sites):
            return 0.0
        runs = (variants if experiment.corrupted else 1) + 1 + donors
        return runs * self.text.layers * self.decoder_block(lengths)

    def windows(
        self, experiment: Experiment, layers: Iterable[int]
    ) -> list[tuple[Site, list[Place]]]:
        """What is put in at once, about each of these layers; what has two names is there once."""
        windows = {}
        for name, layer in product(experiment.sites, layers):
            site, deep = SITES[name], self.model.tower(SITES[name].tower).layers
            if layer < deep:
                covered = window_of(layer, experiment.window, deep)
                places = [site.place(each) for each in covered]
                windows[site.place(layer, experiment.window)] = (site, places)
        return list(windows.values())

    def patch(
        self,
        site: Site,
        places: Sequence[Place],
        variants: int,
        heads: int,
        units: int,
        lengths: Lengths,
    ) -> float:
        """Putting in, at a window of places, units of so many heads, each into a variant."""
        once = heads * self.block(site.tower, lengths) if self._finished(places) else 0
        return variants * once + variants * heads * units * self.resumed(places, lengths)

    def resumed(self, places: Sequence[Place], lengths: Lengths) -> float:
        """A run that goes on from a window of places."""
        tower = places[0].tower
        start = places[0].index + self._finished(places)
        blocks = self.model.tower(tower).layers - start
        return blocks * self.block(tower, lengths) + self.behind(tower, lengths)

    @staticmethod
    def _finished(places: Sequence[Place]) -> bool:
        """Whether the block is carried out with what is put in, before positions are told apart."""
        return len(places) == 1 and places[0].inner is not None

    def controls(self, site: Site, places: Sequence[Place], levels: int, lengths: Lengths) -> float:
        """The runs whose outcome is known, and the receiver's states that are put in there."""
        rows = CONTROL_ROWS + HEAD_CONTROL_ROWS * site.heads
        states = self.donors(site, places, 1 + site.heads, lengths)
        return levels * (self.patch(site, places, rows // 2, 1, 2, lengths) + states)

    def _contributions(self, experiment: Experiment, part: Part, lengths: Lengths) -> float:
        """The control of all that a tower's sublayers add, once a job that begins with them."""
        added = [SITES[name] for name in experiment.sites if SITES[name].adds]
        operations = 0.0
        for tower in dict.fromkeys(site.tower for site in added if 0 in part.layers):
            places = whole_of(tower, self.model.tower(tower).layers)
            site = next(site for site in added if site.tower == tower)
            operations += self.patch(site, places, 1, 1, 2, lengths)
            operations += self.donors(site, places, 1, lengths)
        return operations

    def donors(self, site: Site, places: Sequence[Place], runs: int, lengths: Lengths) -> float:
        """The states of so many runs at places where they are not kept."""
        inner = sum(place.inner is not None for place in places)
        return runs * inner * self.block(site.tower, lengths)
