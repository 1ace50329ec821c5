"""Time this engine beside the tutorial's way, in one process, on random weights of BLIP's shape.

    python benchmarks/speed.py [--shape base|small] [--device cpu|cuda] [--cells N]

The workload is the tutorial's for one example: a patch at every layer and position, a traced cell
at each for seven noise levels, and for ten draws at one level. The tutorial's way runs a few cells
and is extrapolated to all of them; the engine runs them all.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from pyvene import (
    ConstantSourceIntervention,
    IntervenableConfig,
    IntervenableModel,
    LocalistRepresentationIntervention,
    RepresentationConfig,
    VanillaIntervention,
    type_to_dimension_mapping,
    type_to_module_mapping,
)
from pyvene.models.blip.modelings_blip import BlipWrapper
from transformers import BlipConfig, BlipForQuestionAnswering, BlipTextConfig, BlipVisionConfig

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))

from benchmarks.bound import Shape, block, decoder, vision_block
from blip_tracing.engine.batch import Batch
from blip_tracing.engine.cells import measure, score_run
from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.models.intervene import INPUT_HOOK
from blip_tracing.vocabulary.corruptions import QUESTION_EMBEDDINGS, Corruption
from blip_tracing.vocabulary.experiment import BASE, QUESTIONS, SOURCE, Experiment, Run
from blip_tracing.vocabulary.metrics import NEEDED
from blip_tracing.vocabulary.sites import SITES, places_of

SITE = SITES["encoder.block_input"]  # what the tutorial's "block_output" was
BASE_RUN, SOURCE_RUN = Run(BASE, BASE), Run(SOURCE, SOURCE)
NOISE_LEVELS = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0]
REPEATS = 10
TOKENS = 9


SHAPES = {
    "base": Shape(768, 12, 12, 3072, 30_524, 384, 16),
    "small": Shape(64, 3, 4, 128, 200, 32, 8),
}


def build_model(shape: Shape, spread: float = 0.02) -> BlipForQuestionAnswering:
    """A BLIP of this shape with random weights; spread: their standard deviation."""
    shared = {
        "initializer_range": spread,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
    }
    text = BlipTextConfig(
        **shared,
        vocab_size=shape.vocabulary,
        encoder_hidden_size=shape.hidden,
        bos_token_id=shape.vocabulary - 2,
    )
    vision = BlipVisionConfig(**shared, image_size=shape.image_size, patch_size=shape.patch_size)
    config = BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    torch.manual_seed(0)
    return BlipForQuestionAnswering(config).eval()


class WholeBlip(BlipWrapper):
    """pyvene's wrapper, which the tutorial intervenes on: one call is a whole forward pass."""

    @property
    def device(self) -> torch.device:
        """What pyvene 0.1.8 reads of a model, and its own BlipWrapper lacks."""
        return self.model_text_enc.device


# At the true width, as in the tutorial's day (pyvene's mapping has since shrunk to a third of it).
COMPONENT = SITE.component
type_to_module_mapping[WholeBlip] = {COMPONENT: ("model_text_enc.encoder.layer[%s]", INPUT_HOOK)}
type_to_dimension_mapping[WholeBlip] = {COMPONENT: ("text_config.hidden_size",)}


class UnitNoise(ConstantSourceIntervention, LocalistRepresentationIntervention):
    """Adds fresh Gaussian noise of σ = 1, as the tutorial does for every cell."""

    def forward(self, base, source=None, subspaces=None):
        return base + torch.randn_like(base)


def run_tutorial_patch(model: WholeBlip, base: dict, source: dict, layer: int, position: int):
    """One patched cell the tutorial's way: the source's whole run, then the base's."""
    config = IntervenableConfig(
        RepresentationConfig(layer, COMPONENT, "pos", 1), intervention_types=VanillaIntervention
    )
    place = [[[position]]]
    return IntervenableModel(config, model)(base, [source], {"sources->base": (place, place)})


def run_tutorial_trace(model: WholeBlip, base: dict, layer: int, position: int):
    """One traced cell the tutorial's way: two whole runs as sources, then the corrupted one."""
    config = IntervenableConfig(
        [RepresentationConfig(at, COMPONENT, "pos", 1) for at in (0, layer)],
        intervention_types=[UnitNoise, VanillaIntervention],
    )
    places = [[list(range(TOKENS))], [[position] * TOKENS]]
    return IntervenableModel(config, model)(base, [base, base], {"sources->base": (places, places)})


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, the device's queue included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def time_tutorial(
    blip: BlipForQuestionAnswering, inputs: dict, cells: int, device: torch.device
) -> tuple[float, float]:
    """Mean seconds a patched and a traced cell, over `cells` cells spread over the layers."""
    model = WholeBlip(blip)
    layers = len(blip.text_encoder.encoder.layer)
    base = {"input_ids": inputs["base"], "pixel_values": inputs["pixels"]}
    source = {"input_ids": inputs["source"], "pixel_values": inputs["pixels"]}
    places = [(n * layers // cells, n % TOKENS) for n in range(cells)]
    run_tutorial_patch(model, base, source, 0, 0)  # warm up
    patch = [
        seconds(partial(run_tutorial_patch, model, base, source, *place), device)
        for place in places
    ]
    trace = [seconds(partial(run_tutorial_trace, model, base, *place), device) for place in places]
    return sum(patch) / cells, sum(trace) / cells


def run_engine(blip: BlipForQuestionAnswering, inputs: dict) -> dict[str, Callable[[], object]]:
    """The engine's stages, in order, as calls that share their results."""
    model = ResumableBlip(blip)
    names = places_of([SITE.name], range(len(model.blocks)))
    places = {place: f"{site} layer {layer}" for place, ((site, layer), *_) in names.items()}
    metrics = list(NEEDED)
    kept: dict = {}

    def prepare() -> None:
        images = blip.vision_model(pixel_values=inputs["pixels"]).last_hidden_state
        pictures = model.read_pictures(images)
        runs = {
            question: model.run(model.embed(inputs[question])[:, None], pictures)
            for question in QUESTIONS
        }
        kept["batch"] = Batch(["benchmark"], runs, torch.tensor([[[0], [1]]]), images)

    def patch() -> None:
        patching = Experiment("patching", BASE_RUN, SOURCE_RUN, (SITE.name,))
        measure(model, kept["batch"], patching, places, 0, metrics)

    def trace(noise_levels: list[float], draws: int) -> None:
        noise = Corruption("gaussian", QUESTION_EMBEDDINGS, tuple(noise_levels), draws, seed=0)
        noisy = Run("noisy", BASE, noise)
        tracing = Experiment("tracing", noisy, BASE_RUN, (SITE.name,))
        score_run(model, kept["batch"], noisy, metrics)
        measure(model, kept["batch"], tracing, places, 0, metrics)

    return {
        "image and clean runs": prepare,
        "patches": patch,
        "noise levels": lambda: trace(NOISE_LEVELS, 1),
        "repeats": lambda: trace([1.0], REPEATS),
    }


def product_rate(device: torch.device) -> float:
    """Floating-point operations a second of float32 matrix products, the best of several sizes."""
    best = 0.0
    for size in (512, 1024, 2048) if device.type == "cpu" else (2048, 4096, 8192):
        left, right = torch.randn(2, size, size, device=device)
        for _ in range(5):
            best = max(best, 2 * size**3 / seconds(partial(torch.matmul, left, right), device))
    return best


def operations(shape: Shape) -> float:
    """Floating-point operations that the engine's way needs for the whole workload.

    Products alone, two operations a multiply-add. A resumed run needs its remaining blocks, the
    decoder at one position (projections of the query, not of the states) and the vocabulary.
    """
    d, layers = shape.hidden, shape.layers
    a_block, answer = block(shape, TOKENS), decoder(shape, TOKENS)
    memory = layers * 2 * shape.image_states * d * d
    vision = layers * vision_block(shape)
    resumed = sum((layers - layer) * a_block + answer for layer in range(layers)) * TOKENS
    run = layers * a_block + answer
    draws = len(NOISE_LEVELS) + REPEATS
    return 2 * (vision + memory + 2 * run + resumed + draws * (run + resumed))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--cells", type=int, default=6, help="cells of the tutorial's way to time")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    """Run both ways and print their times, ratios and the peak memory."""
    arguments = parse()
    shape, device = SHAPES[arguments.shape], torch.device(arguments.device)
    torch.set_default_device(device)  # pyvene's wrapper makes its image mask there
    torch.backends.cuda.matmul.allow_tf32 = False
    blip = build_model(shape).to(device)
    tokens = torch.arange(10, 10 + TOKENS)[None]
    pixels = torch.randn(1, 3, shape.image_size, shape.image_size)
    inputs = {"base": tokens, "source": tokens + 20, "pixels": pixels}
    inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
    cells = shape.layers * TOKENS
    traced = cells * (len(NOISE_LEVELS) + REPEATS)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    parameters = sum(parameter.numel() for parameter in blip.parameters()) / 1e6
    print(f"{name}, {torch.get_num_threads()} threads, float32, torch {torch.__version__}")
    print(f"BLIP of shape {arguments.shape}: {parameters:.0f} M parameters, random weights")
    print(f"workload: {cells} patches, {traced} traced cells")

    rate = product_rate(device)
    stages = run_engine(blip, inputs)
    for work in stages.values():  # the first call of a size pays for allocations
        work()
    times = {stage: seconds(work, device) for stage, work in stages.items()}
    engine = sum(times.values())
    patch, trace = time_tutorial(blip, inputs, arguments.cells, device)
    tutorial = cells * patch + traced * trace
    rate = max(rate, product_rate(device))
    bound = operations(shape) / rate

    print(f"the tutorial's way, {arguments.cells} cells of each kind timed:")
    print(f"  {patch:.3f} s a patch, {trace:.3f} s a traced cell")
    print(f"  {tutorial:.0f} s for the whole workload (extrapolated)")
    print("this engine, the whole workload run:")
    for stage, taken in times.items():
        print(f"  {taken:.2f} s {stage}")
    print(f"  {engine:.2f} s in all, {(cells + traced) / engine:.0f} interventions a second")
    print(f"  {tutorial / engine:.0f} times as fast as the tutorial's way")
    print(f"floating-point bound: {operations(shape) / 1e12:.2f} TFLOP at {rate / 1e9:.0f} GFLOP/s")
    print(f"  {bound:.2f} s; the engine takes {engine / bound:.2f} times that")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of this process: {peak:.2f} GiB")
    print(
        f"speed-up over the tutorial's way: {tutorial / engine:.0f}×; "
        f"of the flop bound: {bound / engine:.2f}×"
    )


if __name__ == "__main__":
    main()
