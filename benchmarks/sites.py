"""Time each kind of site beside a skilled user's way and the floating-point bound, in one process.

    python benchmarks/sites.py [--shape base|small] [--device cpu|cuda] [--rounds N]

Patching of one example (a source question about another picture), on random weights of BLIP's
shape: every layer and position, and head or region, of each kind of site. The engine does what a
job does: its time holds the donors' states, the controls (four rows a place, not counted as cells)
and, but where noted, the null of five unrelated examples, whose rows are cells as any. The skilled
user's way (`skilled.py`) is timed on one layer of each site, since a cell costs it the same at
every layer, and extrapolated. The two alternate, the quickest of the rounds counting for each.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch.nn.functional import linear
from transformers import BlipForQuestionAnswering

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))

from checkpoints import sharpen

from benchmarks.bound import Shape, operations
from benchmarks.skilled import Asked, ask, cache, masks_of, patch, regions_of
from benchmarks.speed import SHAPES, TOKENS, build_model, product_rate, seconds
from blip_tracing.engine.batch import Batch
from blip_tracing.engine.cells import measure
from blip_tracing.engine.donors import UnrelatedRuns
from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.vocabulary.experiment import BASE, SOURCE, Experiment, Run
from blip_tracing.vocabulary.sites import ENCODER, SITES, VISION, places_of, window_of

HEADS = ("self_attention_heads", "cross_attention_heads")
CONTRIBUTIONS = ("self_attention", "cross_attention", "mlp")
REGIONS = 6
DONORS = 5
# What the project aims at: seconds of an example's heads, shares of the bound, GiB.
HEADS_SECONDS, TEXT_SHARE, VISION_SHARE, MEMORY = 45, 0.65, 0.6, 4


@dataclass(frozen=True)
class Workload:
    """What is timed: the engine at every `step`-th layer of sites of one tower.

    step: 1 for all; the layers in between are extrapolated, their cost being linear in the layer;
    null: whether the null is measured too.
    """

    name: str
    sites: tuple[str, ...]
    window: int = 1
    step: int = 1
    null: bool = True

    @property
    def tower(self) -> str:
        """The tower of its sites."""
        return SITES[self.sites[0]].tower

    def layers(self, count: int) -> range:
        """The layers that the engine is timed at, as many left out at the end as at the start."""
        return range(self.step // 2, count, self.step)


def of(tower: str, *components: str) -> tuple[str, ...]:
    """Site names."""
    return tuple(f"{tower}.{component}" for component in components)


WORKLOADS = (
    Workload("encoder stream", of("encoder", "block_input")),
    Workload("encoder contributions", of("encoder", *CONTRIBUTIONS)),
    Workload("encoder heads", of("encoder", *HEADS), null=False),
    Workload("encoder windows of 3", of("encoder", *CONTRIBUTIONS), window=3),
    Workload("decoder", of("decoder", "block_input", *CONTRIBUTIONS, *HEADS)),
    Workload("vision regions", of("vision", "block_input"), step=3, null=False),
)


@dataclass(frozen=True)
class Timed:
    """A workload's cells, the operations that they need at least, and both ways' seconds.

    difference: the largest between the two ways' logits, of what the cells' logits span.
    """

    cells: int
    operations: float
    engine: float
    skilled: float
    difference: float

    def row(self, name: str, rate: float) -> str:
        """A line of the table; rate: operations a second."""
        share = self.operations / rate / self.engine
        return (
            f"{name:22} {self.cells:6,} {self.cells / self.engine:10.1f} "
            f"{self.cells / self.skilled:10.2f} {self.skilled / self.engine:7.1f} {share:9.2f}"
        )


HEADER = (
    f"{'kind of site':22} {'cells':>6} {'engine':>10} {'skilled':>10} {'ratio':>7} {'of bound':>9}"
)


@dataclass(frozen=True)
class Example:
    """Both ways' clean runs of one example: base and source question, each about its picture.

    batch: as the engine has them, with the runs of five unrelated examples.
    """

    model: ResumableBlip
    batch: Batch
    blip: BlipForQuestionAnswering
    asked: dict[str, Asked]


def prepare(shape: Shape, device: torch.device) -> Example:
    """A random BLIP and an example of two questions about two pictures."""
    # So that deep blocks pass on what is put in, and the two ways' answers can be told apart.
    blip = sharpen(build_model(shape, spread=1.5 / shape.hidden**0.5)).to(device)
    model = ResumableBlip(blip)
    base = torch.arange(10, 10 + TOKENS, device=device)[None]
    pixels = torch.randn(2, 3, shape.image_size, shape.image_size, device=device)
    answers = torch.tensor([[[1], [2]]], device=device)
    asked, runs = {}, {}
    for name, tokens, picture in zip((BASE, SOURCE), (base, base + 20), pixels, strict=True):
        asked[name] = ask(blip, tokens, picture[None])
        read = model.read_pictures(asked[name].picture)
        runs[name] = model.run(
            model.embed(tokens)[:, None], read, answers, pixels=picture[None, None]
        )
    others = base + 40 + 20 * torch.arange(DONORS, device=device)[:, None]
    read = model.read_pictures(asked[BASE].picture.flip(1).expand(DONORS, -1, -1))
    unrelated = UnrelatedRuns(
        [model.run(model.embed(others)[:, None], read)],
        torch.arange(DONORS)[None],
        torch.arange(TOKENS).expand(1, DONORS, -1),
    )
    batch = Batch(["benchmark"], runs, answers, asked[BASE].picture, unrelated)
    return Example(model, batch, blip, asked)


Found = dict[tuple[str, int], torch.Tensor]


def run_engine(example: Example, workload: Workload, layers: Sequence[int]) -> Found:
    """Logits (U, K) of both answers at each site and layer, as a job measures them."""
    experiment = Experiment(
        "patching", Run(BASE, BASE), Run(SOURCE, SOURCE), workload.sites, workload.window,
        regions=REGIONS,
    )  # fmt: skip
    names = places_of(workload.sites, layers, workload.window)
    places = {place: f"{site} layer {layer}" for place, ((site, layer), *_) in names.items()}
    batch = example.batch if workload.null else replace(example.batch, unrelated=None)
    measured = measure(example.model, batch, experiment, places, None, ["logit"])
    return {
        name: torch.stack(list(measured[place].cells.columns.values()), -1)[0, 0]
        for place, of_place in names.items()
        for name in of_place
    }


def masks_at(example: Example, shape: Shape, site: str) -> torch.Tensor:
    """The rows of a layer of a site as the skilled user masks them, (U, T, 1 or W)."""
    tower = SITES[site].tower
    if tower == VISION:
        positions = regions_of(REGIONS, shape.image_size // shape.patch_size)
    else:
        positions = torch.eye(TOKENS if tower == ENCODER else 1, dtype=torch.bool)
    positions = positions.to(example.model.device)
    if SITES[site].heads:
        return masks_of(positions, shape.hidden, shape.heads)
    return positions[..., None]


def run_skilled(
    example: Example,
    shape: Shape,
    workload: Workload,
    layer: int,
    donors: dict[str, list[torch.Tensor]],
) -> Found:
    """The same at one layer of each site, the skilled user's way; donors: a site's, by layer."""
    layers = window_of(layer, workload.window, shape.layers)
    found = {}
    for site in workload.sites:
        states = [donors[site][at] for at in layers]
        masks = masks_at(example, shape, site)
        logits = patch(example.blip, example.asked[BASE], site, layers, states, masks)
        found[site, layer] = logits[:, example.batch.answers[0, :, 0]].cpu()
    return found


def least_operations(shape: Shape, workload: Workload, cells: dict[str, int]) -> float:
    """Of a whole workload; cells: how many a layer of each site has."""
    patches = shape.image_states / (1 + REGIONS**2)
    put = patches if workload.tower == VISION else 1
    return sum(
        cells[site] * operations(shape, SITES[site], layer, workload.window, TOKENS, put)
        for site in workload.sites
        for layer in range(shape.layers)
    )


def time_both(example: Example, shape: Shape, workload: Workload, count: int) -> Timed:
    """Let the engine and the skilled user alternate; the quickest of each counts, for the whole."""
    device, layers = example.model.device, workload.layers(shape.layers)
    middle = layers[len(layers) // 2]
    every = range(shape.layers)
    donors = {
        site: cache(example.blip, example.asked[SOURCE], site, every) for site in workload.sites
    }
    engine = partial(run_engine, example, workload, layers)
    skilled = partial(run_skilled, example, shape, workload, middle, donors)
    rounds = [(timed(engine, device), timed(skilled, device)) for _ in range(count)]
    (_, found), (_, known) = rounds[0]
    mine, theirs = (min(taken for taken, _ in of_way) for of_way in zip(*rounds, strict=True))
    rows = 1 + (DONORS if workload.null else 0)
    cells = {site: rows * len(found[site, middle]) for site in workload.sites}
    return Timed(
        sum(cells.values()) * shape.layers,
        least_operations(shape, workload, cells),
        mine * shape.layers / len(layers),
        theirs * rows * shape.layers,
        difference_of(found, known),
    )


def timed(work: Callable[[], Found], device: torch.device) -> tuple[float, Found]:
    """How long one call takes, and what it gives."""
    found: list[Found] = []
    return seconds(lambda: found.append(work()), device), found[0]


def difference_of(found: Found, known: Found) -> float:
    """The largest difference of the logits that both have, of what these span."""
    pairs = [(found[name], known[name]) for name in known]
    furthest = torch.cat([(one - other).abs().amax(0) for one, other in pairs])
    both = torch.cat(list(known.values()))
    return float(furthest.max() / (both.amax(0) - both.amin(0)).max())


def rate_of(shape: Shape, device: torch.device) -> float:
    """Operations a second of float32 products: the best of square ones and of those that occur."""
    best, d, f = product_rate(device), shape.hidden, shape.intermediate
    for rows in (TOKENS**2, shape.heads * TOKENS**2, 8 * shape.image_states):
        for width, out in ((d, d), (d, f), (f, d)):
            states = torch.randn(rows, width, device=device)
            weight = torch.randn(out, width, device=device)
            work = partial(linear, states, weight)
            quickest = min(seconds(work, device) for _ in range(5))
            best = max(best, 2 * rows * width * out / quickest)
    return best


def peak_memory() -> float:
    """The most that this process has held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def warm_up(example: Example, shape: Shape) -> None:
    """One layer of every workload through the engine alone, which shows what memory it takes."""
    for workload in WORKLOADS:
        run_engine(example, workload, [shape.layers // 2])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=2, help="of engine and skilled user in turn")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    """Print the table, and what is aimed at beside what was found."""
    arguments = parse()
    shape, device = SHAPES[arguments.shape], torch.device(arguments.device)
    torch.backends.cuda.matmul.allow_tf32 = False
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, {torch.get_num_threads()} threads, float32, torch {torch.__version__}")
    print(f"BLIP of shape {arguments.shape}, random weights; one example, {TOKENS} tokens, patched")
    example = prepare(shape, device)
    warm_up(example, shape)
    memory = peak_memory()
    rate, table = rate_of(shape, device), {}
    for workload in WORKLOADS:
        table[workload.name] = time_both(example, shape, workload, arguments.rounds)
        rate = max(rate, rate_of(shape, device))
    report(table, shape, rate)
    print(f"peak memory: {memory:.2f} GiB the engine, below {MEMORY} aimed at; ", end="")
    print(f"{peak_memory():.2f} GiB with the skilled user's way")
    if device.type == "cuda":
        print(
            f"of the device: {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB, both ways"
        )


def report(table: dict[str, Timed], shape: Shape, rate: float) -> None:
    """Print the table and its aims; rate: operations a second of this machine."""
    print(f"cells a second, at {rate / 1e9:.0f} GFLOP/s of matrix products:\n\n{HEADER}")
    for name, of_kind in table.items():
        print(of_kind.row(name, rate))
    print()
    for workload in WORKLOADS:
        layers = ", ".join(map(str, workload.layers(shape.layers)))
        if workload.step > 1:
            print(f"{workload.name}: the engine at layers {layers}, extrapolated to all")
    print("the skilled user's way: one layer of each site, extrapolated to all")
    print("cells hold the null's but of encoder heads and vision regions")
    heads, vision = table["encoder heads"], table["vision regions"]
    print(f"heads of an example: {heads.engine:.1f} s, {HEADS_SECONDS} s aimed at")
    print(f"regions of an example: {vision.engine:.1f} s", end="")
    print(f"; of the bound {vision.operations / rate / vision.engine:.2f}, {VISION_SHARE} aimed at")
    print(f"text sites: {TEXT_SHARE} of the bound and twice the skilled user's rate aimed at")
    difference = max(of_kind.difference for of_kind in table.values())
    print(f"both ways' logits differ by at most {difference:.0e} of what the cells span")


if __name__ == "__main__":
    main()
