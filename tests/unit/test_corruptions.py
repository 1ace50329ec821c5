"""Every corruption is the unmodified model's with the same draws, changed by a hook."""

import itertools
from dataclasses import replace
from functools import partial

import oracle
import oracle_vision
import pytest
import torch
from checkpoints import random_blip
from oracle_corruptions import by_hand, changed_picture, corrupted, on_patches

from blip_tracing.engine.batch import Batch
from blip_tracing.engine.cells import measure, score_run
from blip_tracing.engine.draws import clean_spread, draw_noise, run_corrupted
from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.models.plain import PlainBlip
from blip_tracing.vocabulary.corruptions import KINDS, OF_TOKENS, PLACES, Corruption
from blip_tracing.vocabulary.experiment import BASE, SOURCE, Experiment, Run
from blip_tracing.vocabulary.sites import SITES

VOCABULARY, LAYERS, WIDTH, LEVELS, DRAWS = 101, 3, 48, (0.4, 2.0), 2
# Two examples, each with a base and a source question and a picture; the roles of the base's.
QUESTIONS = [
    {BASE: [2, 17, 40, 8, 63, 71, 3], SOURCE: [2, 17, 41, 8, 63, 90, 3]},
    {BASE: [2, 9, 40, 12, 63, 50, 3], SOURCE: [2, 9, 40, 12, 90, 17, 3]},
]
ROLES = [["[CLS]", "", "noun", "", "", "noun", "[SEP]"], ["[CLS]", "", "", "", "noun", "", "[SEP]"]]
# Of [CLS] and of the patches of a picture of three by three, row by row.
PATCHES = [
    ["[CLS]", "thing", "thing", "background", *["thing"] * 2, *["background"] * 4],
    ["[CLS]", *["background"] * 5, "thing", "background", "background", "thing"],
]
NAMES = ["cat", "dog"]
ANSWERS = torch.tensor([[22, 53], [53, 22]])
ASKED = [
    (kind, at, on)
    for kind, at in itertools.product(KINDS, PLACES)
    for on in ("", "noun" if at in OF_TOKENS else "thing")
]


@pytest.fixture(scope="module")
def blip():
    """In float64, where rounding hides nothing."""
    return random_blip(VOCABULARY, hidden=WIDTH, image_text_hidden=16, layers=LAYERS).double()


@pytest.fixture(scope="module")
def pixels():
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, 3, 24, 24, generator=generator, dtype=torch.float64)


def batch_of(model, pixels, run, examples=(0, 1), unit=1.0):
    ids = {
        question: torch.tensor([QUESTIONS[number][question] for number in examples])
        for question in (BASE, SOURCE)
    }
    with torch.inference_mode():
        own = pixels[list(examples), None]
        states = model.see(own)[:, 0]
        pictures = model.read_pictures(states)
        answers = ANSWERS[list(examples)][..., None]
        runs = {
            question: model.run(model.embed(asked)[:, None], pictures, answers, own)
            for question, asked in ids.items()
        }
    role, changed = run.corruption.role, None
    if role:
        changed = torch.tensor([on_of(run.corruption, number) for number in examples])
    names = [NAMES[number] for number in examples]
    return Batch(names, runs, answers, states, token_ids=ids, changed=changed, unit=unit)


def on_of(corruption, number):
    """Which tokens or states of the picture are changed; None for all."""
    roles = PATCHES[number] if corruption.on_patches else ROLES[number]
    return [each == corruption.role for each in roles] if corruption.role else None


def run_of(kind, at, on="", unit="absolute"):
    draws = DRAWS if KINDS[kind].drawn else 1
    return Run("noisy", BASE, Corruption(kind, at, LEVELS, draws, 3, on, unit))


def truth_of(blip, pixels, number, run, level, draw, cell=None):
    """The change by hand, and the picture's states that the question encoder reads."""
    corruption = run.corruption
    shape = {
        "picture.pixels": (3, 24, 24),
        "picture.states": (1 + 3 * 3, WIDTH),
    }.get(corruption.at, (len(QUESTIONS[number][BASE]), WIDTH))
    noise = draw_noise(corruption.seed, NAMES[number], draw, *shape, cell=cell).double()
    on = on_of(corruption, number)
    change = by_hand(corruption.kind, level, noise, on if shape[1:] == (WIDTH,) else None)
    if on and corruption.at == "picture.pixels":
        change = on_patches(change, on, 3)
    return change, changed_picture(blip, pixels[[number]], corruption.at, change)


def logits_of(model, batch, run, variants):
    """What a corrupted run answers at these levels and draws: (G, M, V)."""
    logits = run_corrupted(model, batch, run, variants).logits
    assert logits is not None
    return logits


def variants_of(run):
    return list(itertools.product(run.levels, range(run.draws)))


def check_restored(blip, pixels, model, run, site, truth, every):
    """The clean states of a site, one position at a time, in a corrupted run: as a hook puts them.

    truth: the change by hand and the picture, of a number, a level and a draw; every: so many-th
    position is looked at.
    """
    batch = batch_of(model, pixels, run)
    places = {SITES[site].place(layer): f"layer {layer}" for layer in range(LAYERS)}
    experiment = Experiment("tracing", run, Run(BASE, BASE), (site,))
    with torch.inference_mode():
        found = measure(model, batch, experiment, places, None, ["probability", "logit"])
    for number, layer in itertools.product((0, 1), range(LAYERS)):
        question = QUESTIONS[number][BASE]
        image = oracle.image_states(blip, pixels[[number]])
        states = oracle.site_states(blip, question, image, site, layer)
        cells = found[SITES[site].place(layer)].cells.columns["p_base"][number]
        for row, (level, draw) in enumerate(variants_of(run)):
            change, picture = truth(number=number, level=level, draw=draw)
            for position in range(0, len(question), every):
                with corrupted(blip, run.corruption.at, change):
                    logits = oracle.patched_logits(
                        blip, question, picture, site, layer, position, states[position]
                    )
                p = logits.softmax(-1)[ANSWERS[number, 0]]
                assert abs(cells[row, position] - p) < 1e-5, (layer, row, position)


@pytest.mark.parametrize("backend", [ResumableBlip, PlainBlip])
@pytest.mark.parametrize(("kind", "at", "on"), ASKED)
def test_a_corrupted_run_is_the_unmodified_models(blip, pixels, backend, kind, at, on):
    """Its answer, and its stream between any two blocks, at every level and draw."""
    model, run = backend(blip), run_of(kind, at, on)
    batch = batch_of(model, pixels, run)
    variants = variants_of(run)
    with torch.inference_mode():
        found = run_corrupted(model, batch, run, variants)
        scores = score_run(model, batch, run, ["probability"])
    for number, (row, (level, draw)) in itertools.product((0, 1), enumerate(variants)):
        change, picture = truth_of(blip, pixels, number, run, level, draw)
        question = QUESTIONS[number][BASE]
        with corrupted(blip, at, change):
            expected = oracle.answer_logits(blip, question, picture).softmax(-1)
            for layer in range(LAYERS):
                states = oracle.site_states(blip, question, picture, "encoder.block_output", layer)
                torch.testing.assert_close(
                    found.stream[layer + 1, number, row], states, atol=1e-6, rtol=1e-6
                )
        for answer, column in enumerate(("p_base", "p_source")):
            p = scores.columns[column][number, row // run.draws, row % run.draws]
            assert abs(p - expected[ANSWERS[number, answer]]) < 1e-5


@pytest.mark.parametrize(("kind", "at", "on"), ASKED)
def test_every_corruption_changes_the_answer_and_two_of_them_differ(blip, pixels, kind, at, on):
    """Else agreement with the truth would tell nothing."""
    model = ResumableBlip(blip)
    asked = [run_of(*other) for other in ASKED]
    with torch.inference_mode():
        clean = batch_of(model, pixels, asked[0]).runs[BASE].logits[:, 0].softmax(-1)
        answers = [
            logits_of(model, batch_of(model, pixels, run), run, [(LEVELS[1], 0)])[:, 0].softmax(-1)
            for run in asked
        ]
    own = answers[ASKED.index((kind, at, on))]
    others = [other for other in answers if other is not own]
    for other in (clean, *others):
        assert ((own - other).abs().amax(dim=1) > 1e-3).all()


@pytest.mark.parametrize("backend", [ResumableBlip, PlainBlip])
@pytest.mark.parametrize(
    ("kind", "at", "on"),
    [
        ("multiplicative", "picture.states", ""),
        ("gaussian", "picture.pixels", ""),
        ("gaussian", "picture.pixels", "thing"),
        ("multiplicative", "picture.states", "thing"),
        ("gaussian", "question.word_embeddings", "noun"),
    ],
)
def test_clean_states_put_into_a_corrupted_run_give_what_a_hook_gives(
    blip, pixels, backend, kind, at, on
):
    """Where the picture is corrupted, all blocks behind the patch still read the corrupted one."""
    model, run = backend(blip), run_of(kind, at, on)
    site, truth = "encoder.block_output", partial(truth_of, blip, pixels, run=run)
    check_restored(blip, pixels, model, run, site, truth, every=1)


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_does_not_depend_on_the_examples_and_variants_beside_it(blip, pixels, kind, at):
    model, run = ResumableBlip(blip), run_of(kind, at)
    variants = variants_of(run)
    with torch.inference_mode():
        together = logits_of(model, batch_of(model, pixels, run), run, variants)
        for number, (row, variant) in itertools.product((0, 1), enumerate(variants)):
            alone = logits_of(model, batch_of(model, pixels, run, [number]), run, [variant])
            torch.testing.assert_close(alone[0, 0], together[number, row], atol=1e-6, rtol=1e-6)


def test_a_run_on_a_role_shares_its_noise_with_the_run_on_all_tokens(blip, pixels):
    model = ResumableBlip(blip)
    asked = [run_of("gaussian", "question.embeddings", role) for role in ("", "noun")]
    batches = [batch_of(model, pixels, run) for run in asked]
    with torch.inference_mode():
        clean = batches[0].runs[BASE].stream[0][:, 0]
        every, noun = (
            run_corrupted(model, batch, run, [(2.0, 1)]).stream[0][:, 0]
            for batch, run in zip(batches, asked, strict=True)
        )
    for number, roles in enumerate(ROLES):
        for position, role in enumerate(roles):
            same = every if role == "noun" else clean
            assert torch.equal(noun[number, position], same[number, position])


def test_the_clean_states_are_left_as_they_were(blip, pixels):
    """BLIP adds the positions to the embeddings that it is given, in place."""
    model = ResumableBlip(blip)
    ids = torch.tensor([question[BASE] for question in QUESTIONS])
    words = model.embed_words(ids)[:, None]
    kept = words.clone()
    with torch.inference_mode():
        finished = model.finish_embedding(words)
    assert torch.equal(words, kept)
    torch.testing.assert_close(finished[:, 0], model.embed(ids))


@pytest.mark.parametrize(("at", "on"), [one[1:] for one in ASKED if one[0] == "gaussian"])
def test_the_spread_is_of_the_states_that_are_changed(blip, pixels, at, on):
    model = ResumableBlip(blip)
    run = run_of("gaussian", at, on)
    found = clean_spread(model, batch_of(model, pixels, run), run)
    for number in (0, 1):
        ids = torch.tensor([QUESTIONS[number][BASE]])
        embeddings = blip.text_encoder.embeddings
        states = (
            {
                "question.word_embeddings": embeddings.word_embeddings(ids)[0],
                "question.embeddings": embeddings(input_ids=ids)[0],
                "picture.states": oracle.image_states(blip, pixels[[number]])[0],
                "picture.pixels": pixels[number],
            }[at]
            .detach()
            .double()
            .numpy()
        )
        changed = on_of(run.corruption, number)
        if on and at == "picture.pixels":
            kept = torch.tensor(changed[1:]).reshape(3, 1, 3, 1).expand(3, 8, 3, 8)
            states = states[:, kept.reshape(24, 24).numpy()]
        elif on:
            states = states[changed]
        assert found[number].item() == pytest.approx(states.std(), rel=1e-6)


def test_a_level_counts_in_the_unit(blip, pixels):
    """σ of 3 standard deviations of 0.25 each is a σ of 0.75."""
    model = ResumableBlip(blip)
    relative = run_of("gaussian", "question.word_embeddings", "noun", "std")
    absolute = run_of("gaussian", "question.word_embeddings", "noun")
    with torch.inference_mode():
        batch = batch_of(model, pixels, relative, unit=0.25)
        of_unit = logits_of(model, batch, relative, [(3.0, 1)])
        plain = logits_of(model, batch_of(model, pixels, absolute), absolute, [(0.75, 1)])
        spread = clean_spread(model, batch, relative)
    assert torch.equal(of_unit, plain)
    assert spread.tolist() == [0.25, 0.25]


def test_a_level_is_told_in_standard_deviations_only_where_it_is_added():
    absolute, relative = (
        run_of("gaussian", "question.embeddings", unit=unit).corruption
        for unit in ("absolute", "std")
    )
    assert absolute.in_deviations(3.0, 0.5) == 6
    assert relative.in_deviations(3.0, 0.5) == 3
    for kind in ("multiplicative", "scale"):
        level = run_of(kind, "picture.states").corruption.in_deviations(3.0, 0.5)
        assert level != level


@pytest.mark.parametrize("backend", [ResumableBlip, PlainBlip])
def test_clean_patches_put_into_the_tower_of_a_picture_with_noise_give_what_a_hook_gives(
    blip, pixels, backend
):
    """The receiver's vision tower begins with the corrupted pixels, draw by draw."""
    model, run = backend(blip), run_of("gaussian", "picture.pixels")
    batch, site = batch_of(model, pixels, run), "vision.block_output"
    places = {SITES[site].place(layer): f"layer {layer}" for layer in range(LAYERS)}
    experiment = Experiment("tracing", run, Run(BASE, BASE), (site,), regions=0)
    with torch.inference_mode():
        found = measure(model, batch, experiment, places, None, ["probability", "logit"])
    for number, layer in itertools.product((0, 1), range(LAYERS)):
        own, question = pixels[[number]], QUESTIONS[number][BASE]
        states = oracle_vision.site_states(blip, own, site, layer)
        cells = found[SITES[site].place(layer)].cells.columns["p_base"][number]
        assert cells.shape[-1] == 10
        for (row, (level, draw)), patch in itertools.product(
            enumerate(variants_of(run)), range(0, 10, 3)
        ):
            noisy = own + level * draw_noise(3, NAMES[number], draw, 3, 24, 24).double()
            image = oracle_vision.patched_image(blip, noisy, {(site, layer): states}, [patch])
            p = oracle.answer_logits(blip, question, image).softmax(-1)[ANSWERS[number, 0]]
            assert abs(cells[row, patch] - p) < 1e-5, (layer, row, patch)


def test_of_the_source_question_its_own_picture_is_corrupted(blip, pixels):
    model = ResumableBlip(blip)
    corruption = Corruption("multiplicative", "picture.states", LEVELS, DRAWS, 3)
    run = Run("noisy", SOURCE, corruption)
    batch = batch_of(model, pixels, run, [0])
    other = oracle.image_states(blip, pixels[[1]])
    with torch.inference_mode():
        found = run_corrupted(model, replace(batch, source_images=other), run, [(2.0, 1)])
    noise = draw_noise(3, "cat", 1, 10, WIDTH).double()
    truth = oracle.answer_logits(blip, QUESTIONS[0][SOURCE], other * (1 + 2.0 * noise))
    assert found.logits is not None
    torch.testing.assert_close(found.logits[0, 0], truth, atol=1e-6, rtol=1e-6)


OF_THE_PICTURE = 0.7


def run_of_both(kind, at, question="question.embeddings", unit="absolute"):
    """Gaussian noise on the question's nouns, and a corruption of its picture with another seed."""
    draws = DRAWS if KINDS[kind].drawn else 1
    also = Corruption(kind, at, (OF_THE_PICTURE,), draws, 4)
    noise = Corruption("gaussian", question, LEVELS, draws, 3, "noun", unit, also=also)
    return Run("noisy", BASE, noise)


def truth_of_both(blip, pixels, number, run, level, draw):
    """The change of the question by hand, and the picture's states, each as if it were alone."""
    also = Run("picture", BASE, run.corruption.also)
    change, _ = truth_of(blip, pixels, number, run, level, draw)
    _, picture = truth_of(blip, pixels, number, also, OF_THE_PICTURE, draw)
    return change, picture


OF_PICTURE = [at for at in PLACES if at not in OF_TOKENS]


@pytest.mark.parametrize("backend", [ResumableBlip, PlainBlip])
@pytest.mark.parametrize("question", OF_TOKENS)
@pytest.mark.parametrize(("kind", "at"), list(itertools.product(KINDS, OF_PICTURE)))
def test_a_run_of_two_corruptions_is_the_unmodified_models(
    blip, pixels, backend, question, kind, at
):
    model, run = backend(blip), run_of_both(kind, at, question)
    batch = batch_of(model, pixels, run)
    variants = variants_of(run)
    with torch.inference_mode():
        found = logits_of(model, batch, run, variants)
        scores = score_run(model, batch, run, ["probability"])
    for number, (row, (level, draw)) in itertools.product((0, 1), enumerate(variants)):
        change, picture = truth_of_both(blip, pixels, number, run, level, draw)
        with corrupted(blip, question, change):
            expected = oracle.answer_logits(blip, QUESTIONS[number][BASE], picture)
        # As far as float32 knows a level.
        torch.testing.assert_close(found[number, row], expected, atol=1e-5, rtol=1e-5)
        p = scores.columns["p_base"][number, row // run.draws, row % run.draws]
        assert abs(p - expected.softmax(-1)[ANSWERS[number, 0]]) < 1e-5


@pytest.mark.parametrize("backend", [ResumableBlip, PlainBlip])
@pytest.mark.parametrize("site", ["encoder.block_output", "encoder.cross_attention"])
def test_clean_states_put_into_a_run_of_two_corruptions_give_what_a_hook_gives(
    blip, pixels, backend, site
):
    """All blocks behind the patch go on reading the corrupted picture."""
    model, run = backend(blip), run_of_both("multiplicative", "picture.states")
    truth = partial(truth_of_both, blip, pixels, run=run)
    check_restored(blip, pixels, model, run, site, truth, every=2)


@pytest.mark.parametrize("at", OF_PICTURE)
def test_of_two_corruptions_each_has_the_noise_that_it_has_alone(blip, pixels, at):
    """So that runs with either, and with both, are one draw in four ways."""
    model, both = ResumableBlip(blip), run_of_both("multiplicative", at)
    first, also = both.corruption, both.corruption.also
    silent = replace(first, also=replace(also, levels=(0.0,)))
    alone = Run("question", BASE, replace(first, also=None)), Run("picture", BASE, also)
    halves = Run("question", BASE, silent), both
    with torch.inference_mode():
        batch = batch_of(model, pixels, both)
        for run, half, level, own in zip(
            alone, halves, (2.0, 0.0), (2.0, OF_THE_PICTURE), strict=True
        ):
            one = logits_of(model, batch if run is alone[0] else batch_of(model, pixels, run),
                            run, [(own, 1)])  # fmt: skip
            torch.testing.assert_close(one, logits_of(model, batch, half, [(level, 1)]))


def test_the_unit_of_a_question_is_not_its_pictures(blip, pixels):
    model = ResumableBlip(blip)
    relative, absolute = (
        run_of_both("gaussian", "picture.states", unit=unit) for unit in ("std", "absolute")
    )
    with torch.inference_mode():
        batch = batch_of(model, pixels, relative, unit=0.25)
        of_unit = logits_of(model, batch, relative, [(3.0, 1)])
        plain = logits_of(model, batch, absolute, [(0.75, 1)])
    assert torch.equal(of_unit, plain)
