"""Every cell of every kind of experiment is one pass of the unmodified model with a torch hook."""

import oracle
import pytest
import torch
from checkpoints import random_blip

from blip_tracing.engine.batch import Batch
from blip_tracing.engine.batches import in_batches
from blip_tracing.engine.cells import measure, score_run
from blip_tracing.engine.controls import Control, check_control
from blip_tracing.engine.donors import UnrelatedRuns
from blip_tracing.engine.draws import draw_noise
from blip_tracing.engine.scores import Scores
from blip_tracing.errors import MeasurementError
from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.models.family import RunStates
from blip_tracing.models.plain import PlainBlip
from blip_tracing.vocabulary.corruptions import Corruption
from blip_tracing.vocabulary.experiment import BASE, SOURCE, Experiment, Run
from blip_tracing.vocabulary.metrics import METRICS
from blip_tracing.vocabulary.sites import SITES, places_of
from blip_tracing.vocabulary.tables import CEILING, NO_OP

VOCABULARY, LAYERS, WIDTH, LEVELS, DRAWS = 101, 3, 48, (0.7, 4.0), 2
QUESTIONS = {BASE: [2, 17, 40, 8, 63, 71, 3], SOURCE: [2, 17, 41, 8, 63, 90, 3]}
# Two donors of other lengths, and which of their positions stands for each.
OTHERS = [[2, 9, 41, 8, 12, 90, 17, 40, 3], [2, 63, 41, 3]]
PLACES_IN = [[0, 2, 1, 5, 5, 7, 8], [0, 1, 1, 2, 0, 3, 3]]
TOKENS = len(QUESTIONS[BASE])
# What the small model itself answers to the two questions, so that effects are large.
ANSWERS = torch.tensor([22, 53])
CORRUPTION = Corruption("gaussian", "question.embeddings", LEVELS, DRAWS, seed=3)
BASE_RUN, SOURCE_RUN, NOISY = Run(BASE, BASE), Run(SOURCE, SOURCE), Run("noisy", BASE, CORRUPTION)
ALL = tuple(SITES)
# What rounding moves little; a rank may change where two logits are nearly equal.
SMOOTH = ("probability", "logit")
EXPERIMENTS = {
    "patching": Experiment("patching", BASE_RUN, SOURCE_RUN, ALL),
    "tracing": Experiment("tracing", NOISY, BASE_RUN, ALL),
    "noising": Experiment("noising", BASE_RUN, NOISY, ALL),
}
PLACES = {place: str(names[0]) for place, names in places_of(ALL, range(LAYERS)).items()}


@pytest.fixture(scope="module")
def blip():
    return random_blip(VOCABULARY, hidden=WIDTH, image_text_hidden=16, layers=LAYERS)


@pytest.fixture(scope="module")
def image(blip):
    pixels = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(5))
    return oracle.image_states(blip, pixels)


def clean_run(model, question, image):
    """One example's, of one variant; image: (1, S, D)."""
    with torch.inference_mode():
        inputs = model.embed(torch.tensor([question]))[:, None]
        return model.run(inputs, model.read_pictures(image))


def batch_of(model, image, unrelated=True):
    """One example: its clean runs and, as its null, runs of other questions of other pictures."""
    with torch.inference_mode():
        pictures = model.read_pictures(image)
        runs = {
            name: model.run(model.embed(torch.tensor([question]))[:, None], pictures)
            for name, question in QUESTIONS.items()
        }
    others = [clean_run(model, question, image.flip(1)) for question in OTHERS]
    null = UnrelatedRuns(others, torch.tensor([[1, 0]]), torch.tensor([PLACES_IN[::-1]]))
    return Batch(["example"], runs, ANSWERS[None], image, null if unrelated else None)


@pytest.fixture(scope="module")
def model(blip):
    return ResumableBlip(blip)


@pytest.fixture(scope="module")
def batch(model, image):
    return batch_of(model, image)


def measured(model, batch, name, null_draws=None, levels=LEVELS, metrics=tuple(METRICS)):
    experiment = EXPERIMENTS[name].at(levels)
    with torch.inference_mode():
        return measure(model, batch, experiment, PLACES, null_draws, metrics)


def variants(name):
    """The noise (T, D) of each variant of an experiment; none where nothing is corrupted."""
    if EXPERIMENTS[name].corrupted is None:
        return [torch.zeros(TOKENS, WIDTH)]
    return [
        level * draw_noise(CORRUPTION.seed, "example", draw, TOKENS, WIDTH)
        for level in LEVELS
        for draw in range(DRAWS)
    ]


def noise_of(run, noise):
    return noise if run.corruption else torch.zeros_like(noise)


def truth_of(blip, image, name, site, layer, noise, position, other=None):
    """One pass of the unmodified model: logits (V,); other: the unrelated donor that is put in."""
    experiment = EXPERIMENTS[name]
    if other is None:
        donor, donor_noise = experiment.donor, noise_of(experiment.donor, noise)
        question = QUESTIONS[donor.question]
        states = oracle.corrupted_states(blip, question, image, donor_noise, site, layer)
        state = states[position]
    else:
        states = oracle.site_states(blip, OTHERS[other], image.flip(1), site, layer)
        state = states[PLACES_IN[other][position]]
    return oracle.restored_logits(
        blip, QUESTIONS[experiment.receiver.question], image, noise_of(experiment.receiver, noise),
        site, layer, position, state,
    )  # fmt: skip


def agree(found, logits, what):
    """The scores of one run are those of the truth's logits."""
    probability, logit = logits.softmax(-1)[ANSWERS], logits[ANSWERS]
    for number, answer in enumerate(("base", "source")):
        assert abs(found.columns[f"p_{answer}"] - probability[number]) < 1e-5, what
        assert abs(found.columns[f"logit_{answer}"] - logit[number]) < 1e-4, what


@pytest.mark.parametrize("backend", [ResumableBlip, PlainBlip])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_cell_agrees_and_so_does_the_null(blip, image, backend, name):
    model = backend(blip)
    found = measured(model, batch_of(model, image), name)
    noises = variants(name)
    for site in ALL:
        for layer in range(LAYERS):
            part = found[SITES[site].place(layer)]
            for position in range(TOKENS):
                for row, noise in enumerate(noises):
                    truth = truth_of(blip, image, name, site, layer, noise, position)
                    agree(part.cells[0, row, position], truth, (site, layer, row, position))
                # The donors in the batch's order: all where nothing is drawn, else one a draw.
                for row in range(part.null[0].columns["p_base"].shape[0]):
                    other, noise = (1, 0)[row % 2], noises[row % len(noises)]
                    truth = truth_of(blip, image, name, site, layer, noise, position, other)
                    agree(part.null[0, row, position], truth, (site, layer, row, position))


def test_the_scores_of_a_corrupted_run_agree(blip, image, model, batch):
    with torch.inference_mode():
        floor = score_run(model, batch, NOISY, list(METRICS))
    for row, noise in enumerate(variants("tracing")):
        truth = oracle.corrupted_logits(blip, QUESTIONS[BASE], image, noise)
        agree(floor[0, row // DRAWS, row % DRAWS], truth, row)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_controls_come_out_and_say_what_they_would_have_missed(model, batch, name):
    for place, part in measured(model, batch, name).items():
        no_op = part.controls[NO_OP]
        assert no_op.difference.shape == (1, len(variants(name)[::DRAWS]))
        # Inside a block the states themselves are made in a batch of another size.
        assert no_op.difference.max() <= (0 if place.inner is None else 1e-6)
        assert no_op.effect.min() > 1e-3
        # Inside a block the residual goes round: all positions do not make the donor's run.
        assert (CEILING in part.controls) == (place.inner is None)
        if ceiling := part.controls.get(CEILING):
            assert ceiling.difference.max() < 1e-4
            assert ceiling.effect.min() > 1e-3


def test_where_the_pictures_differ_only_the_last_boundary_has_a_ceiling(model, batch):
    """Behind an earlier one the blocks still read the receiver's picture."""
    pictures = model.read_pictures(batch.images + 1)
    other = model.run(batch.runs[SOURCE].stream[0], pictures)
    runs = {**batch.runs, SOURCE: other}
    found = measured(model, Batch(["example"], runs, ANSWERS[None], batch.images), "patching")
    for place, part in found.items():
        last = place.inner is None and place.index == LAYERS
        assert (CEILING in part.controls) == last
        if last:
            assert part.controls[CEILING].difference.max() < 1e-4


def test_an_example_without_an_unrelated_one_has_no_null(model, image):
    found = measured(model, batch_of(model, image, unrelated=False), "tracing")
    assert all(part.null is None for part in found.values())


@pytest.mark.parametrize("tokens_a_batch", [1, 60, 10**6])
def test_batches_of_any_size_give_the_same_numbers(blip, image, monkeypatch, tokens_a_batch):
    """In float64, where rounding cannot hide a row that reads another."""
    model = ResumableBlip(random_blip(VOCABULARY, hidden=WIDTH).double())
    batch = batch_of(model, image.double())
    for name in EXPERIMENTS:
        expected = measured(model, batch, name)
        with monkeypatch.context() as patch:
            patch.setattr("blip_tracing.engine.batches.TOKENS_A_BATCH", tokens_a_batch)
            found = measured(model, batch, name)
        for place, part in found.items():
            for kind in ("cells", "null"):
                for column, values in getattr(part, kind).columns.items():
                    known = getattr(expected[place], kind).columns[column]
                    torch.testing.assert_close(values, known, atol=1e-9, rtol=0)


def test_a_level_does_not_depend_on_the_others(model, batch):
    """What makes it right to add a level without measuring the others again."""
    both = measured(model, batch, "tracing")
    alone = measured(model, batch, "tracing", levels=LEVELS[1:])
    for place, part in alone.items():
        for column, values in part.cells.columns.items():
            torch.testing.assert_close(
                values, both[place].cells.columns[column][:, DRAWS:], atol=1e-5, rtol=0
            )


def test_examples_of_one_batch_are_as_if_alone(blip, model):
    """Two pictures, two pairs of questions, each with two donors, one of which they share."""
    pixels = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(8))
    pairs = [list(QUESTIONS.values()), [QUESTIONS[SOURCE], [2, 9, 41, 8, 12, 90, 3]]]
    # Two of one length, run together, and a longer one.
    chosen, places = torch.tensor([[0, 2], [1, 0]]), torch.tensor([[0, 1, 2, 3, 3, 2, 1]] * 2)
    with torch.inference_mode():
        images = blip.vision_model(pixel_values=pixels).last_hidden_state
        inputs = model.embed(torch.tensor([OTHERS[1], [2, 12, 90, 3]]))[:, None]
        short = model.run(inputs, model.read_pictures(images))
        donors = [short, clean_run(model, OTHERS[0], images[:1])]
        alone = []
        for image, pair in zip(images, pairs, strict=True):
            pictures = model.read_pictures(image[None])
            runs = [model.run(model.embed(torch.tensor([q]))[:, None], pictures) for q in pair]
            alone.append(dict(zip((BASE, SOURCE), runs, strict=True)))
        own = model.read_pictures(images)
        together = Batch(
            ["a", "b"],
            {
                name: RunStates(
                    own,
                    torch.cat([runs[name].stream for runs in alone], dim=1),
                    torch.cat([runs[name].logits for runs in alone]),
                )
                for name in alone[0]
            },
            ANSWERS.expand(2, 2),
            images,
            UnrelatedRuns(donors, chosen, torch.stack([places] * 2)),
        )
    for name in EXPERIMENTS:
        found = measured(model, together, name, metrics=SMOOTH)
        for number, example in enumerate("ab"):
            own_null = UnrelatedRuns(donors, chosen[[number]], places[None])
            one = Batch([example], alone[number], ANSWERS[None], images[[number]], own_null)
            for place, part in measured(model, one, name, metrics=SMOOTH).items():
                for kind in ("cells", "null"):
                    for column, values in getattr(part, kind).columns.items():
                        both = getattr(found[place], kind).columns[column]
                        torch.testing.assert_close(both[number], values[0], atol=1e-4, rtol=0)


def test_a_patch_of_a_third_of_the_width_misses_the_ceiling(model, batch, monkeypatch):
    """What pyvene's own mapping would do: the control finds it."""

    def a_third(model, site, layer, inputs, replacement, positions):
        hidden = inputs["hidden"]
        rows = torch.arange(len(hidden))[:, None]
        places = torch.tensor([list(places) for places in positions])
        width = replacement.shape[-1] // 3
        hidden[rows, places, :width] = replacement[..., :width]
        return model(**inputs)

    monkeypatch.setattr("blip_tracing.models.blip_vqa.replace", a_third)
    part = measured(model, batch, "patching")[SITES["encoder.block_input"].place(1)]
    assert part.controls[CEILING].difference.item() > 1e-3


def test_a_control_that_misses_its_outcome_names_example_layer_and_difference():
    scores = Scores({"p_base": torch.zeros(2, 1)})
    axes: dict[str, list] = {"example": ["cat", "dog"], "layer": [4]}
    for size, shown in ((0.25, "0.25"), (torch.nan, "nan")):
        control = Control(scores, torch.tensor([[0.0], [size]]), torch.ones(2, 1))
        with pytest.raises(MeasurementError, match=f"'dog', a.site layer 4: .* is {shown} in"):
            check_control(control, CEILING, axes, "a.site", 1e-5)
    check_control(Control(scores, torch.zeros(2, 1), torch.ones(2, 1)), CEILING, axes, "", 1e-5)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_numbers_that_are_not_finite_stop_and_name_example_and_place(model, batch, wrong):
    source = batch.runs[SOURCE]
    broken = RunStates(source.pictures, source.stream.clone(), source.logits)
    broken.stream[2, 0, 0, 4, 7] = wrong
    with pytest.raises(MeasurementError) as caught:
        measured(
            model,
            Batch(["cat"], {**batch.runs, SOURCE: broken}, ANSWERS[None], batch.images),
            "patching",
        )
    assert "example 'cat', ('encoder.block_input', 2): the logits hold NaN" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_batch_that_does_not_fit_is_halved_and_a_single_row_that_does_not_is_an_error():
    sizes = []

    def with_little_memory(rows):
        sizes.append(len(rows))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("pretended")
        return list(rows)

    parts = in_batches(with_little_memory, list(range(10)), 10)
    assert [row for part in parts for row in part] == list(range(10))
    assert sizes == [10, 5, 2, 2, 2, 2, 2]

    def never(rows):
        raise torch.OutOfMemoryError("pretended")

    with pytest.raises(torch.OutOfMemoryError):
        in_batches(never, [1, 2], 2)
