"""On a GPU: the CPU's numbers, in float32 arithmetic that is float32."""

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from project import ROOT
from transformers import BlipForQuestionAnswering

from blip_tracing.engine.batch import Batch
from blip_tracing.engine.batches import tokens_a_batch
from blip_tracing.engine.cells import measure, score_run
from blip_tracing.engine.donors import UnrelatedRuns
from blip_tracing.given.pictures import open_picture
from blip_tracing.given.tokens import load_tokenizer
from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.models.load import encode_pixels, load_model, process_pictures
from blip_tracing.vocabulary.corruptions import QUESTION_EMBEDDINGS, Corruption
from blip_tracing.vocabulary.experiment import BASE, SOURCE, TOGETHER, Experiment, Run
from blip_tracing.vocabulary.sites import SITES, VISION, places_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

Found = dict[str, torch.Tensor]
CHECKPOINT = str(ROOT / "resources/miniature/checkpoint")
PICTURES = {
    BASE: ROOT / "resources/miniature/images/animal_shirt.png",
    SOURCE: ROOT / "resources/miniature/images/animal_red.png",
}
QUESTIONS = {
    question: f"what is the color of the {thing}"
    for question, thing in ((BASE, "animal"), (SOURCE, "shirt"))
}
# Probabilities alone: the bounds below are theirs.
METRIC = ["probability"]
BASE_RUN, SOURCE_RUN = Run(BASE, BASE), Run(SOURCE, SOURCE)
NOISY = Run("noisy", BASE, Corruption("gaussian", QUESTION_EMBEDDINGS, (0.5, 2.0, 10.0), 10, 0))
# The donor of tracing sees the receiver's picture, which the vision tower's sites would leave as
# it is.
TEXT = tuple(name for name, site in SITES.items() if site.tower != VISION)
EXPERIMENTS = (
    Experiment("patching", BASE_RUN, SOURCE_RUN, tuple(SITES), regions=3),
    Experiment("windows", BASE_RUN, SOURCE_RUN, tuple(SITES), window=3, positions=TOGETHER),
    Experiment("tracing", NOISY, BASE_RUN, TEXT),
)


def make_batch(model: ResumableBlip, blip: BlipForQuestionAnswering, answers: list[str]) -> Batch:
    """The first example, each of whose questions is about a picture of its own, with its null."""
    tokenizer = load_tokenizer(CHECKPOINT)
    ids = [[[tokenizer.token_to_id(word) for word in answer.split()] for answer in answers]]
    longest = max(map(len, ids[0]))
    padded = torch.tensor([[[*answer, *[-1] * (longest - len(answer))] for answer in ids[0]]])
    runs = {}
    for question, words in QUESTIONS.items():
        (pixels,) = process_pictures(blip, CHECKPOINT, [open_picture(PICTURES[question])])
        images = encode_pixels(blip, pixels)[None]
        inputs = model.embed(torch.tensor([tokenizer.encode(words).ids]))[:, None]
        pictures = model.read_pictures(images)
        runs[question] = model.run(inputs, pictures, padded, pixels[None, None])
    tokens = runs[BASE].stream.shape[3]
    null = UnrelatedRuns([runs[SOURCE]], torch.tensor([[0]]), torch.arange(tokens)[None, None])
    return Batch(["animal_shirt"], runs, padded, images, null)


@cache
def trace(device: str, dtype: str = "float32", answers: Sequence[str] = ("brown", "red")) -> Found:
    """Probabilities of a corrupted run and of all cells and nulls on one device, named."""
    with torch.inference_mode():
        blip = load_model(CHECKPOINT, torch.device(device), dtype)
        model = ResumableBlip(blip)
        batch = make_batch(model, blip, list(answers))
        found = {"floor": score_run(model, batch, NOISY, METRIC)}
        for experiment in EXPERIMENTS:
            for site in experiment.sites:
                layers = range(model.layers[SITES[site].tower])
                names = places_of([site], layers, experiment.window)
                places = {place: str(of_place[0]) for place, of_place in names.items()}
                measured = measure(model, batch, experiment, places, 1, METRIC)
                for place, part in measured.items():
                    assert part.null is not None
                    found[f"{experiment.name} {places[place]}"] = part.cells
                    found[f"{experiment.name} {places[place]} null"] = part.null
    return {name: torch.stack(list(part.columns.values())) for name, part in found.items()}


@pytest.mark.parametrize("answers", [("brown", "red"), ("red brown", "red")])
def test_a_gpu_gives_the_cpus_probabilities_within_one_in_ten_thousand(answers):
    """At every site of all towers; also where an answer has several tokens."""
    found, expected = (trace(device, answers=answers) for device in ("cuda", "cpu"))
    assert found.keys() == expected.keys()
    for name, cells in found.items():
        torch.testing.assert_close(cells, expected[name], atol=1e-4, rtol=0, msg=name)


def test_bfloat16_stays_near_float32():
    found, expected = trace("cuda", "bfloat16"), trace("cpu")
    for experiment in EXPERIMENTS:
        off = [
            (cells - expected[name]).abs().flatten()
            for name, cells in found.items()
            if name.startswith(experiment.name)
        ]
        assert torch.cat(off).mean() < 0.02, experiment.name


def test_batches_are_sized_to_the_free_memory():
    model = ResumableBlip(load_model(CHECKPOINT, torch.device("cuda"), "float32"))
    assert tokens_a_batch(model, 9) > 0
