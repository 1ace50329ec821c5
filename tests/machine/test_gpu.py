"""On a GPU: the CPU's numbers, in float32 arithmetic that is float32."""

import pytest
import torch
from project import ROOT

from blip_tracing.engine.batch import Batch
from blip_tracing.engine.batches import tokens_a_batch
from blip_tracing.engine.cells import measure, score_run
from blip_tracing.given.pictures import open_picture
from blip_tracing.given.tokens import load_tokenizer
from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.models.load import encode_pictures, load_model
from blip_tracing.vocabulary.corruptions import QUESTION_EMBEDDINGS, Corruption
from blip_tracing.vocabulary.experiment import BASE, SOURCE, Experiment, Run
from blip_tracing.vocabulary.sites import SITES, places_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

CHECKPOINT = str(ROOT / "resources/miniature/checkpoint")
PICTURE = ROOT / "resources/miniature/images/animal_shirt.png"
QUESTIONS = {
    question: f"what is the color of the {thing}"
    for question, thing in ((BASE, "animal"), (SOURCE, "shirt"))
}
# Probabilities alone: the bounds below are theirs.
METRIC = ["probability"]
BASE_RUN, SOURCE_RUN = Run(BASE, BASE), Run(SOURCE, SOURCE)
NOISY = Run("noisy", BASE, Corruption("gaussian", QUESTION_EMBEDDINGS, (0.5, 2.0, 10.0), 10, 0))
EXPERIMENTS = (
    Experiment("patching", BASE_RUN, SOURCE_RUN, tuple(SITES)),
    Experiment("tracing", NOISY, BASE_RUN, tuple(SITES)),
)


def trace(device: str, dtype: str = "float32") -> list[torch.Tensor]:
    """Probabilities of a corrupted run and of all cells of the first example on one device."""
    tokenizer = load_tokenizer(CHECKPOINT)
    answers = torch.tensor([[tokenizer.token_to_id(color) for color in ("brown", "red")]])
    with torch.inference_mode():
        blip = load_model(CHECKPOINT, torch.device(device), dtype)
        model = ResumableBlip(blip)
        (image,) = encode_pictures(blip, CHECKPOINT, [open_picture(PICTURE)])
        pictures = model.read_pictures(image[None])
        runs = {
            question: model.run(
                model.embed(torch.tensor([tokenizer.encode(words).ids]))[:, None], pictures
            )
            for question, words in QUESTIONS.items()
        }
        batch = Batch(["animal_shirt"], runs, answers, image[None])
        scores = [score_run(model, batch, NOISY, METRIC)]
        for experiment in EXPERIMENTS:
            names = places_of(experiment.sites, range(len(model.blocks)))
            places = {
                place: f"{site} layer {layer}" for place, ((site, layer), *_) in names.items()
            }
            measured = measure(model, batch, experiment, places, 0, METRIC)
            scores += [part.cells for part in measured.values()]
    return [torch.stack(list(part.columns.values())) for part in scores]


def test_a_gpu_gives_the_cpus_probabilities_within_one_in_ten_thousand():
    for found, expected in zip(trace("cuda"), trace("cpu"), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_bfloat16_stays_near_float32():
    for found, expected in zip(trace("cuda", "bfloat16"), trace("cpu"), strict=True):
        assert (found - expected).abs().mean() < 0.02


def test_batches_are_sized_to_the_free_memory():
    model = ResumableBlip(load_model(CHECKPOINT, torch.device("cuda"), "float32"))
    assert tokens_a_batch(model, 9) > 0
