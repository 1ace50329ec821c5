"""Every cell of every kind of experiment is one pass of the unmodified model with a torch hook."""

from contextlib import contextmanager
from dataclasses import replace as altered
from functools import cache

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
from blip_tracing.models.intervene import replace
from blip_tracing.models.plain import PlainBlip
from blip_tracing.vocabulary.corruptions import Corruption
from blip_tracing.vocabulary.experiment import BASE, BY_ROLE, SOURCE, TOGETHER, Experiment, Run
from blip_tracing.vocabulary.metrics import METRICS
from blip_tracing.vocabulary.sites import (
    DECODER,
    ENCODER,
    SITES,
    VISION,
    places_of,
    window_of,
)
from blip_tracing.vocabulary.tables import ALL_CONTRIBUTIONS, ALL_HEADS, CEILING, NO_OP

VOCABULARY, LAYERS, WIDTH, LEVELS, DRAWS = 101, 3, 48, (0.7, 4.0), 2
QUESTIONS = {BASE: [2, 17, 40, 8, 63, 71, 3], SOURCE: [2, 17, 41, 8, 63, 90, 3]}
# Two donors of other lengths, and which of their positions stands for each.
OTHERS = [[2, 9, 41, 8, 12, 90, 17, 40, 3], [2, 63, 41, 3]]
PLACES_IN = [[0, 2, 1, 5, 5, 7, 8], [0, 1, 1, 2, 0, 3, 3]]
TOKENS = len(QUESTIONS[BASE])
# What the small model itself answers to the two questions, so that effects are large.
ANSWERS = torch.tensor([[22], [53]])
# Two answers in full, of which the second is shorter.
WHOLE = [[22, 5, 9], [53, 7]]
PADDED = torch.tensor([[22, 5, 9], [53, 7, -1]])
HEADS = (1, 3)
CORRUPTION = Corruption("gaussian", "question.embeddings", LEVELS, DRAWS, seed=3)
BASE_RUN, SOURCE_RUN, NOISY = Run(BASE, BASE), Run(SOURCE, SOURCE), Run("noisy", BASE, CORRUPTION)
TEXT = tuple(name for name, site in SITES.items() if site.tower != VISION)
# What rounding moves little; a rank may change where two logits are nearly equal.
SMOOTH = ("probability", "logit")
EXPERIMENTS = {
    "patching": Experiment("patching", BASE_RUN, SOURCE_RUN, TEXT, heads=HEADS),
    "tracing": Experiment("tracing", NOISY, BASE_RUN, TEXT, heads=HEADS),
    "noising": Experiment("noising", BASE_RUN, NOISY, TEXT, heads=HEADS),
}
STREAM = [name for name in TEXT if SITES[name].boundary is not None]
INSIDE = [name for name in TEXT if SITES[name].boundary is None]
# Of the streams every layer, of the other sites one; `test_models` has all.
CELLS = [
    *((name, layer) for name in STREAM for layer in range(LAYERS)),
    *((name, 1) for name in INSIDE),
]
PLACES = {
    place: str(names[0])
    for sites, layers in ((STREAM, range(LAYERS)), (INSIDE, [1]))
    for place, names in places_of(sites, layers).items()
}
# One of each kind.
FEW = {
    SITES[name].place(1): name
    for name in (
        "encoder.block_input",
        "encoder.self_attention_heads",
        "encoder.mlp",
        "decoder.block_output",
        "decoder.cross_attention_heads",
    )
}


@pytest.fixture(scope="module")
def blip():
    return random_blip(VOCABULARY, hidden=WIDTH, image_text_hidden=16, layers=LAYERS)


@pytest.fixture(scope="module")
def image(blip):
    pixels = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(5))
    return oracle.image_states(blip, pixels)


def clean_run(model, question, image, answers=None):
    """One example's, of one variant; image: (1, S, D)."""
    with torch.inference_mode():
        inputs = model.embed(torch.tensor([question]))[:, None]
        return model.run(inputs, model.read_pictures(image), answers)


def batch_of(model, image, unrelated=True, answers=ANSWERS):
    """One example: its clean runs and, as its null, runs of other questions of other pictures."""
    with torch.inference_mode():
        pictures = model.read_pictures(image)
        runs = {
            name: model.run(model.embed(torch.tensor([question]))[:, None], pictures, answers[None])
            for name, question in QUESTIONS.items()
        }
    others = [clean_run(model, question, image.flip(2)) for question in OTHERS]
    null = UnrelatedRuns(others, torch.tensor([[1, 0]]), torch.tensor([PLACES_IN[::-1]]))
    return Batch(["example"], runs, answers[None], image, null if unrelated else None)


@pytest.fixture(scope="module")
def model(blip):
    return ResumableBlip(blip)


@pytest.fixture(scope="module")
def batch(model, image):
    return batch_of(model, image)


def measured(
    model,
    batch,
    name,
    null_draws=None,
    levels=LEVELS,
    metrics=tuple(METRICS),
    places=PLACES,
    **asked,
):
    experiment = altered(EXPERIMENTS[name].at(levels), **asked)
    with torch.inference_mode():
        return measure(model, batch, experiment, places, null_draws, metrics)


def variants(name):
    """The noise (T, D) of each variant of an experiment; none where nothing is corrupted."""
    if EXPERIMENTS[name].corrupted is None:
        return [torch.zeros(TOKENS, WIDTH)]
    return [
        level * draw_noise(CORRUPTION.seed, "example", draw, TOKENS, WIDTH)
        for level in LEVELS
        for draw in range(DRAWS)
    ]


@pytest.fixture(scope="module")
def truth_of(blip, image):
    """One pass of the unmodified model, done once for all backends."""

    @cache
    def states(run, row, site, layer, other, answers):
        """What is put in: for each position of the receiver's, under each answer in the decoder."""
        if other is not None:
            question, picture, noise = OTHERS[other], image.flip(2), None
        else:
            question, picture, noise = QUESTIONS[run.question], image, variants("tracing")[row]
        with under(blip, noise if run.corruption and other is None else None):
            if SITES[site].tower == DECODER:
                return oracle.decoder_states(
                    blip, question, picture, WHOLE[:answers] if answers else [[22]], site, layer
                )
            found = oracle.site_states(blip, question, picture, site, layer)
        return found if other is None else found[PLACES_IN[other]]

    @cache
    def truth(name, site, layers, row, positions, head=None, other=None, answers=0):
        """Logits (V,) of the first token, and what follows it in each of so many whole answers."""
        experiment = EXPERIMENTS[name]
        puts = [
            oracle.Put(
                site, layer, positions,
                states(experiment.donor, row, site, layer, other, answers), head,
            )
            for layer in layers
        ]  # fmt: skip
        receiver = experiment.receiver
        with under(blip, variants(name)[row] if receiver.corruption else None):
            return oracle.outcome(
                blip,
                QUESTIONS[receiver.question],
                image,
                WHOLE[:answers] if answers else [[22]],
                puts,
            )

    return truth


@contextmanager
def under(blip, noise):
    """While it lasts, runs are corrupted by noise (T, D), unless it is None."""
    if noise is None:
        yield
        return
    handle = oracle.hook(blip, "encoder.block_input", 0, lambda states: states + noise)
    yield
    handle.remove()


def agree(found, truth, what=None, answers=ANSWERS):
    """The scores of one run are those of the truth's logits and of what follows."""
    logits, rest = truth
    first = answers[:, 0]
    behind = rest if answers.shape[1] > 1 else torch.zeros(len(first))
    probability, logit = logits.softmax(-1)[first] * behind.exp(), logits[first] + behind
    for number, answer in enumerate(("base", "source")):
        assert abs(found.columns[f"p_{answer}"] - probability[number]) < 1e-5, what
        assert abs(found.columns[f"logit_{answer}"] - logit[number]) < 2e-4, what


def looked_at(site):
    """Of a site, the (head, position, number of the unit) of the cells that are compared here.

    All of the streams, some of the others, which `test_models` compares one by one.
    """
    site = SITES[site]
    count = TOKENS if site.tower == ENCODER else 1
    positions = range(count) if site.boundary is not None or count == 1 else (2, 5)
    for number, head in enumerate(HEADS if site.heads else [None]):
        for position in positions:
            yield head, position, number * count + position


@pytest.mark.parametrize("backend", [ResumableBlip, PlainBlip])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_cell_agrees_and_so_does_the_null(blip, image, truth_of, backend, name):
    model = backend(blip)
    found = measured(model, batch_of(model, image), name)
    rows = range(len(variants(name)))
    for site, layer in CELLS:
        part = found[SITES[site].place(layer)]
        for head, position, unit in looked_at(site):
            at = (name, site, (layer,))
            for row in rows:
                truth = truth_of(*at, row, (position,), head)
                agree(part.cells[0, row, unit], truth, (site, layer, row, unit))
            # The donors in the batch's order: all where nothing is drawn, else one a draw.
            for row in range(part.null[0].columns["p_base"].shape[0]):
                truth = truth_of(*at, row % len(rows), (position,), head, (1, 0)[row % 2])
                agree(part.null[0, row, unit], truth, (site, layer, row, unit))


@pytest.mark.parametrize("backend", [ResumableBlip, PlainBlip])
def test_whole_answers_are_scored_by_all_their_tokens(blip, image, truth_of, backend):
    """Cells and null; in the decoder at [DEC] and at each token that both answers have or one."""
    model = backend(blip)
    batch = batch_of(model, image, answers=PADDED)
    sites = ("encoder.mlp", "encoder.block_output", *TEXT[10:])
    places = {SITES[site].place(1): site for site in sites}
    found = measured(model, batch, "patching", places=places)
    for site in sites:
        part = found[SITES[site].place(1)]
        count = TOKENS if SITES[site].tower == ENCODER else 3
        heads = HEADS if SITES[site].heads else [None]
        assert part.cells.columns["p_base"].shape == (1, 1, len(heads) * count)
        for number, head in enumerate(heads):
            for position in (0, 1, 2):
                at = ("patching", site, (1,), 0, (position,), head)
                unit = number * count + position
                agree(part.cells[0, 0, unit], truth_of(*at, answers=2), at, PADDED)
                for row, other in enumerate((1, 0)):
                    truth = truth_of(*at, other, answers=2)
                    agree(part.null[0, row, unit], truth, at, PADDED)


@pytest.mark.parametrize("name", ["patching", "tracing"])
@pytest.mark.parametrize("window", [2, 3])
def test_a_window_puts_in_each_layers_own_states(model, batch, truth_of, name, window):
    for site in ("encoder.block_input", "encoder.block_output", "encoder.mlp",
                 "encoder.cross_attention_heads", "decoder.cross_attention_state"):  # fmt: skip
        places = {place: site for place in places_of([site], range(LAYERS), window)}
        found = measured(model, batch, name, places=places, window=window)
        assert len(found) == LAYERS
        for layer in range(LAYERS):
            part = found[SITES[site].place(layer, window)]
            layers = tuple(window_of(layer, window, LAYERS))
            for head, position, unit in looked_at(site):
                truth = truth_of(name, site, layers, len(variants(name)) - 1, (position,), head)
                agree(part.cells[0, -1, unit], truth, (site, layer, unit))
            if name == "patching":
                truth = truth_of(name, site, layers, 0, (0,), head, 1)
                agree(part.null[0, 0, unit - position], truth, (site, layer))


@pytest.mark.parametrize("site", ["encoder.block_output", "encoder.self_attention_heads"])
def test_the_positions_of_a_role_are_put_in_together(model, batch, truth_of, site):
    """Roles 0, 1 and 2 of a question; what has none is put in by none; all is every position."""
    roles = torch.tensor([[0, 2, -1, 1, 2, 2, 0]])
    of = [(0, 6), (3,), (1, 4, 5)]
    with_roles = altered(batch, roles={ENCODER: roles})
    place = SITES[site].place(1)
    asked = {"name": "patching", "places": {place: site}}
    joint = measured(model, with_roles, **asked, positions=BY_ROLE)[place]
    whole = measured(model, batch, **asked, positions=TOGETHER)[place]
    for number, head in enumerate(HEADS if SITES[site].heads else [None]):
        for role, positions in enumerate(of):
            unit = number * len(of) + role
            truth = truth_of("patching", site, (1,), 0, positions, head)
            agree(joint.cells[0, 0, unit], truth, (role, head))
            truth = truth_of("patching", site, (1,), 0, positions, head, 0)
            agree(joint.null[0, 1, unit], truth, (role, head))
        truth = truth_of("patching", site, (1,), 0, tuple(range(TOKENS)), head)
        agree(whole.cells[0, 0, number], truth, head)


def test_without_a_choice_all_heads_are_asked(model, batch):
    place = SITES["encoder.cross_attention_heads"].place(2)
    asked = {"name": "patching", "places": {place: "heads"}}
    chosen = measured(model, batch, **asked)[place].cells
    every = measured(model, batch, **asked, heads=())[place].cells
    assert every.columns["p_base"].shape == (1, 1, 4 * TOKENS)
    for number, head in enumerate(HEADS):
        for column, values in chosen.columns.items():
            torch.testing.assert_close(
                values[..., number * TOKENS : (number + 1) * TOKENS],
                every.columns[column][..., head * TOKENS : (head + 1) * TOKENS],
                atol=1e-4, rtol=0,
            )  # fmt: skip


def test_the_scores_of_a_corrupted_run_agree(blip, image, model, batch):
    with torch.inference_mode():
        floor = score_run(model, batch, NOISY, list(METRICS))
    for row, noise in enumerate(variants("tracing")):
        truth = oracle.corrupted_logits(blip, QUESTIONS[BASE], image, noise)
        agree(floor[0, row // DRAWS, row % DRAWS], (truth, None), row)


def unread(place):
    """Whether a place is before the decoder reads anything, and the same in every run."""
    return place.tower == DECODER and place.index == 0 and (
        place.inner is None or place.inner.component.startswith("self_attention")
    )  # fmt: skip


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_controls_come_out_and_say_what_they_would_have_missed(model, batch, name):
    first = {SITES[site].place(0): site for site in INSIDE}
    for place, part in measured(model, batch, name, places=PLACES | first).items():
        no_op = part.controls[NO_OP]
        assert no_op.difference.shape == (1, len(variants(name)[::DRAWS]))
        # Inside a block the states themselves are made in a batch of another size.
        kept = place.tower == ENCODER and place.inner is None
        assert no_op.difference.max() <= (0 if kept else 1e-6)
        assert (no_op.effect.min() > 1e-3) == (not unread(place))
        expected = {NO_OP}
        # Inside a block the residual goes round, and a later block of the decoder reads the
        # question: all positions do not make the donor's run.
        if place.inner is None and (place.tower == ENCODER or place.index == LAYERS):
            expected.add(CEILING)
        if place.inner and place.inner.heads:
            expected.add(ALL_HEADS)
        if place.index == 0 and place.inner and place.inner.component == "self_attention":
            expected.add(ALL_CONTRIBUTIONS)
        assert set(part.controls) == expected
        for control in expected - {NO_OP}:
            assert part.controls[control].difference.max() < 1e-4
            moved = part.controls[control].effect.min() > 1e-3
            assert moved == (control == ALL_CONTRIBUTIONS or not unread(place))


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
        if ALL_CONTRIBUTIONS in part.controls:
            assert part.controls[ALL_CONTRIBUTIONS].difference.max() < 1e-4


@pytest.mark.parametrize("control", [ALL_HEADS, ALL_CONTRIBUTIONS])
def test_a_patch_of_the_wrong_part_misses_the_new_controls(model, batch, control, monkeypatch):
    """Heads cut a number too early; contributions of a layer before."""
    site = "encoder.cross_attention_heads" if control == ALL_HEADS else "encoder.self_attention"
    place = SITES[site].place(0)
    asked = {"name": "patching", "places": {place: site}}
    good = measured(model, batch, **asked)[place].controls[control]
    states_at = ResumableBlip.states_at

    def shifted(self, run, at):
        found = states_at(self, run, at)
        added = at.inner is not None and at.inner.adds and at.index == 1
        return found.roll(1, -1) if added or (at.inner and at.inner.heads) else found

    monkeypatch.setattr(ResumableBlip, "states_at", shifted)
    wrong = measured(model, batch, **asked)[place].controls[control]
    assert good.difference.max() < 1e-4 < 1e-3 < wrong.difference.min()


def test_an_example_without_an_unrelated_one_has_no_null(model, image):
    found = measured(model, batch_of(model, image, unrelated=False), "tracing", places=FEW)
    assert all(part.null is None for part in found.values())


@pytest.mark.parametrize("tokens_a_batch", [1, 60, 10**6])
def test_batches_of_any_size_give_the_same_numbers(blip, image, monkeypatch, tokens_a_batch):
    """In float64, where rounding cannot hide a row that reads another."""
    model = ResumableBlip(random_blip(VOCABULARY, hidden=WIDTH).double())
    batch = batch_of(model, image.double(), answers=PADDED)
    for name in EXPERIMENTS:
        expected = measured(model, batch, name, places=FEW)
        with monkeypatch.context() as patch:
            patch.setattr("blip_tracing.engine.batches.TOKENS_A_BATCH", tokens_a_batch)
            found = measured(model, batch, name, places=FEW)
        for place, part in found.items():
            for kind in ("cells", "null"):
                for column, values in getattr(part, kind).columns.items():
                    known = getattr(expected[place], kind).columns[column]
                    torch.testing.assert_close(values, known, atol=1e-9, rtol=0)


def test_a_level_does_not_depend_on_the_others(model, batch):
    """What makes it right to add a level without measuring the others again."""
    both = measured(model, batch, "tracing", places=FEW)
    alone = measured(model, batch, "tracing", levels=LEVELS[1:], places=FEW)
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
            ANSWERS.expand(2, 2, 1),
            images,
            UnrelatedRuns(donors, chosen, torch.stack([places] * 2)),
        )
    for name in EXPERIMENTS:
        found = measured(model, together, name, metrics=SMOOTH, places=FEW)
        for number, example in enumerate("ab"):
            own_null = UnrelatedRuns(donors, chosen[[number]], places[None])
            one = Batch([example], alone[number], ANSWERS[None], images[[number]], own_null)
            for place, part in measured(model, one, name, metrics=SMOOTH, places=FEW).items():
                for kind in ("cells", "null"):
                    for column, values in getattr(part, kind).columns.items():
                        both = getattr(found[place], kind).columns[column]
                        torch.testing.assert_close(both[number], values[0], atol=1e-4, rtol=0)


def test_a_patch_of_a_third_of_the_width_misses_the_ceiling(model, batch, monkeypatch):
    """What pyvene's own mapping would do: the control finds it."""

    def a_third(model, puts, inputs):
        third = torch.arange(WIDTH) < WIDTH // 3
        return replace(model, [altered(put, chosen=put.chosen & third) for put in puts], inputs)

    monkeypatch.setattr("blip_tracing.models.blip_vqa.replace", a_third)
    part = measured(model, batch, "patching", places=FEW)[SITES["encoder.block_input"].place(1)]
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
