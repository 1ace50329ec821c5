"""Every model agrees, cell by cell, with a plain loop over the unmodified Hugging Face model."""

from functools import cache

import oracle
import pytest
import torch
from checkpoints import random_blip
from pyvene import type_to_dimension_mapping

from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.models.family import Patch
from blip_tracing.models.intervene import MODULES, Hooked, pyvene_name
from blip_tracing.models.plain import PlainBlip
from blip_tracing.vocabulary.sites import (
    DECODER,
    ENCODER,
    SITES,
    Place,
    contribution_of,
    places_of,
    whole_of,
    window_of,
)

VOCABULARY, LAYERS, WIDTH, HEADS = 101, 3, 45, 5
BASE, SOURCE = [2, 17, 40, 8, 63, 71, 3], [2, 17, 41, 8, 63, 90, 3]
# Two followed answers, in full: one of three tokens, one of two.
ANSWERS = [[22, 5, 9], [53, 7]]
LONGEST = max(map(len, ANSWERS))
PADDED = torch.tensor([[[*answer, *[-1] * (LONGEST - len(answer))] for answer in ANSWERS]])
TEXT = [site for site in SITES.values() if site.tower in (ENCODER, DECODER)]
CELLS = [(site, layer) for site in TEXT for layer in range(LAYERS)]
STREAM = [(site, layer) for site, layer in CELLS if site.boundary is not None]
OF_HEADS = [(site, layer) for site, layer in CELLS if site.heads]
MODELS = [ResumableBlip, PlainBlip]
by_cell = pytest.mark.parametrize(
    ("site", "layer"), CELLS, ids=[f"{site.name}-{layer}" for site, layer in CELLS]
)
by_site = pytest.mark.parametrize("site", TEXT, ids=[site.name for site in TEXT])


@pytest.fixture(scope="module")
def blip():
    """Odd sizes, `image_text_hidden_size` 16; the vision tower has other layers and heads."""
    return random_blip(
        VOCABULARY, hidden=WIDTH, heads=HEADS, intermediate=77, image_text_hidden=16,
        layers=LAYERS, num_hidden_layers=2, num_attention_heads=3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def image(blip):
    pixels = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(5))
    return oracle.image_states(blip, pixels)


@pytest.fixture(scope="module", params=MODELS)
def model(request, blip):
    return request.param(blip)


def run_of(model, image, question, answers=PADDED):
    """The clean run of one example, one variant."""
    with torch.inference_mode():
        inputs = model.embed(torch.tensor([question]))[:, None].clone()
        return model.run(inputs, model.read_pictures(image), answers)


@pytest.fixture(scope="module")
def runs(model, image):
    return [run_of(model, image, question) for question in (BASE, SOURCE)]


@pytest.fixture(scope="module")
def truth(blip, image):
    """Passes of the unmodified model, each done once for both models."""

    class Truth:
        @staticmethod
        @cache
        def states(site, layer):
            """Of the source question's run."""
            if SITES[site].tower == DECODER:
                return oracle.decoder_states(blip, SOURCE, image, ANSWERS, site, layer)
            return oracle.site_states(blip, SOURCE, image, site, layer)

        @staticmethod
        @cache
        def patched(site, layers, positions, head=None):
            """Of the base question's run, with them put in."""
            puts = [
                oracle.Put(site, layer, positions, Truth.states(site, layer), head)
                for layer in layers
            ]
            return oracle.outcome(blip, BASE, image, ANSWERS, puts)

    return Truth


def positions_of(tower):
    """How many positions tables count, and which of the model's each of them is."""
    if tower == ENCODER:
        return [[position] for position in range(len(BASE))]
    # [DEC], then the tokens of one answer behind those of the other.
    return [[0], *([at, LONGEST - 1 + at] for at in range(1, LONGEST))]


def sets_of(tower, chosen):
    """Sets of positions as the model takes them: (1, P, T)."""
    counted = positions_of(tower)
    sets = torch.zeros(1, len(chosen), max(map(max, counted)) + 1, dtype=torch.bool)
    for number, positions in enumerate(chosen):
        for position in positions:
            sets[0, number, counted[position]] = True
    return sets


def put(model, runs, places, chosen, heads=(None,)):
    """The source's states put into the base's run: each set of positions, of each head."""
    base, source = runs
    with torch.inference_mode():
        donors = [model.states_at(source, place) for place in places]
        sets = sets_of(places[0].tower, chosen).repeat(1, len(heads), 1)
        of = [head for head in heads for _ in chosen]
        found = model.patch(base, Patch(places, donors, sets, of), [0])
    return found[0, 0]


def assert_agree(found, known, what=None):
    """The first token's distribution, and what follows it, of one cell."""
    logits, rest = known
    for ours, theirs in (
        (found.logits.softmax(-1), logits.softmax(-1)),
        (found.rest.exp(), rest.exp()),
    ):
        assert (ours - theirs).abs().max() < 1e-5, what
    torch.testing.assert_close(found.logits, logits, atol=2e-4, rtol=0)


def test_a_run_gives_the_models_own_outcome(blip, image, runs):
    for run, question in zip(runs, (BASE, SOURCE), strict=True):
        assert_agree(run.outcome[0, 0], oracle.outcome(blip, question, image, ANSWERS))
        truth = oracle.answer_logits(blip, question, image)
        torch.testing.assert_close(run.logits[0, 0], truth, atol=1e-4, rtol=0)


def test_a_run_can_be_answered_again(model, runs):
    with torch.inference_mode():
        again = model.answer(runs[0])
    torch.testing.assert_close(again.logits, runs[0].logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(again.rest, runs[0].rest, atol=1e-5, rtol=0)


@by_cell
def test_what_flows_through_a_site_is_what_a_hook_sees_there(truth, model, runs, site, layer):
    with torch.inference_mode():
        found = model.states_at(runs[1], site.place(layer))[0, 0]
    known = truth.states(site.name, layer)
    if site.tower == ENCODER:
        torch.testing.assert_close(found, known, atol=1e-4, rtol=0)
        return
    for answer, states in enumerate(known):
        at = [0, *(1 + answer * (LONGEST - 1) + token for token in range(len(states) - 1))]
        torch.testing.assert_close(found[at], states, atol=1e-4, rtol=0)


@by_cell
def test_every_cell_agrees_at_each_position_of_each_head(truth, model, runs, site, layer):
    count = len(positions_of(site.tower))
    heads = range(HEADS) if site.heads else [None]
    found = put(model, runs, [site.place(layer)], [[at] for at in range(count)], heads)
    for number, head in enumerate(heads):
        for position in range(count):
            known = truth.patched(site.name, (layer,), (position,), head)
            assert_agree(found[number * count + position], known, (head, position))


@by_site
def test_several_positions_at_once_and_none(truth, image, blip, model, runs, site):
    count = len(positions_of(site.tower))
    chosen = [list(range(count)), [0, count - 1], []]
    head = HEADS - 1 if site.heads else None
    found = put(model, runs, [site.place(1)], chosen, [head])
    for number, positions in enumerate(chosen):
        assert_agree(found[number], truth.patched(site.name, (1,), tuple(positions), head))
    assert_agree(found[2], oracle.outcome(blip, BASE, image, ANSWERS))
    assert (found.logits[0] - found.logits[2]).abs().max() > 1e-3


@by_site
@pytest.mark.parametrize("window", [2, 3])
def test_a_window_puts_in_each_layers_own_states_at_once(truth, model, runs, site, window):
    count = len(positions_of(site.tower))
    head = 1 if site.heads else None
    for layer in range(LAYERS):
        layers = window_of(layer, window, LAYERS)
        places = [site.place(at) for at in layers]
        found = put(model, runs, places, [[0], list(range(count))], [head])
        for number, positions in enumerate([(0,), tuple(range(count))]):
            assert_agree(found[number], truth.patched(site.name, tuple(layers), positions, head))


def test_windows_are_cut_at_both_ends_as_romes_are():
    """`causal_trace.py`: range(max(0, layer - window // 2), min(L, layer - (-window // 2)))."""
    assert [list(window_of(layer, 3, 4)) for layer in range(4)] == [
        [0, 1],
        [0, 1, 2],
        [1, 2, 3],
        [2, 3],
    ]
    assert [list(window_of(layer, 2, 3)) for layer in range(3)] == [[0], [0, 1], [1, 2]]
    assert [list(window_of(layer, 1, 3)) for layer in range(3)] == [[0], [1], [2]]


@pytest.mark.parametrize(("site", "layer"), STREAM)
def test_all_positions_of_the_stream_give_the_donors_run(model, runs, site, layer):
    """Of the encoder, where both read one picture; of the decoder behind its last block."""
    base, source = runs
    place = site.place(layer)
    everything = list(range(len(positions_of(site.tower))))
    found = put(model, runs, [place], [everything, []])
    settled = site.tower == ENCODER or place.index == LAYERS
    for name, known in (("logits", source.logits), ("rest", source.rest)):
        difference = (getattr(found, name)[0] - known[0, 0]).abs().max()
        assert (difference < 1e-4) == settled
    assert_agree(found[1], (base.logits[0, 0], base.rest[0, 0]))


@pytest.mark.parametrize(("site", "layer"), OF_HEADS)
def test_all_heads_at_once_are_the_sublayers_contribution(model, runs, site, layer):
    everything = [list(range(len(positions_of(site.tower)))), [0]]
    heads, one, none = (
        put(model, runs, [site.place(layer)], chosen, [head])
        for chosen, head in ((everything, None), (everything, 0), ([[], []], None))
    )
    whole = put(model, runs, [contribution_of(site).place(layer)], everything)
    torch.testing.assert_close(heads.logits, whole.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(heads.rest, whole.rest, atol=1e-4, rtol=0)
    # Before anything is read, the decoder's states are the same in every run.
    same = site.name == "decoder.self_attention_heads" and layer == 0
    assert ((whole.logits - none.logits).abs().max() < 1e-4) == same
    assert ((whole.logits - one.logits).abs().max() < 1e-4) == same


@pytest.mark.parametrize("tower", [ENCODER, DECODER])
def test_first_states_and_all_contributions_are_the_donors_run(model, image, runs, tower):
    """Even where the donor saw another picture; less one reading, and they are not."""
    base = runs[0]
    source = run_of(model, image.flip(2), SOURCE)
    everything = [list(range(len(positions_of(tower))))]
    places = whole_of(tower, LAYERS)
    found = put(model, (base, source), places, everything)
    torch.testing.assert_close(found.logits[0], source.logits[0, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(found.rest[0], source.rest[0, 0], atol=1e-4, rtol=0)
    less = put(model, (base, source), [*places[:-2], places[-1]], everything)
    assert (less.logits[0] - source.logits[0, 0]).abs().max() > 1e-3


@by_site
def test_putting_in_what_is_there_changes_nothing(model, runs, site):
    """But for rounding, where what is there was made in a batch of another size."""
    base = runs[0]
    everything = list(range(len(positions_of(site.tower))))
    tolerance = 1e-6 if isinstance(model, ResumableBlip) else 1e-5
    for layer in range(LAYERS):
        found = put(model, (base, base), [site.place(layer)], [everything, []])
        difference = (found.logits[0].softmax(-1) - found.logits[1].softmax(-1)).abs().max()
        assert difference < tolerance


def test_answers_of_one_token_give_what_they_did_without_any(model, image):
    single = PADDED[..., :1]
    for place in places_of([site.name for site in TEXT], range(LAYERS)):
        found = []
        for answers in (None, single):
            base, source = (run_of(model, image, question, answers) for question in (BASE, SOURCE))
            assert base.rest is None
            with torch.inference_mode():
                donors = [model.states_at(source, place)]
                sets = torch.ones(1, 1, donors[0].shape[2], dtype=torch.bool)
                found.append(model.patch(base, Patch([place], donors, sets, [None]), [0]))
        assert found[0].rest is None
        assert torch.equal(found[0].logits, found[1].logits)


def test_what_pads_an_answer_changes_nothing(model, image, runs):
    """The same answers, padded further."""
    further = torch.nn.functional.pad(PADDED, (0, 2), value=-1)
    longer = run_of(model, image, BASE, further)
    torch.testing.assert_close(longer.rest, runs[0].rest, atol=1e-5, rtol=0)


def test_variants_and_their_own_pictures_are_not_mixed_up(blip, model):
    """Two examples, three variants, each with a picture of its own; one variant twice."""
    pixels = torch.randn(6, 3, 24, 24, generator=torch.Generator().manual_seed(8))
    noise = torch.randn(2, 3, len(BASE), WIDTH, generator=torch.Generator().manual_seed(9))
    site, layer, of = "encoder.block_input", 1, [2, 0, 2, 1]
    place = SITES[site].place(layer)
    with torch.inference_mode():
        images = blip.vision_model(pixel_values=pixels).last_hidden_state
        pictures = model.read_pictures(images.unflatten(0, (2, 3)))
        questions = model.embed(torch.tensor([BASE, SOURCE]))
        run = model.run(questions[:, None] + noise, pictures)
        donors = torch.randn(2, 4, len(BASE), WIDTH, generator=torch.Generator().manual_seed(1))
        each = torch.eye(len(BASE), dtype=torch.bool).expand(2, -1, -1)
        patch = Patch([place], [donors], each, [None] * len(BASE))
        logits = model.patch(run, patch, of).logits
    for example, question in enumerate((BASE, SOURCE)):
        for row, variant in enumerate(of):
            image = images[[3 * example + variant]]
            truth = oracle.restored_logits(
                blip, question, image, noise[example, variant], site, layer, 4,
                donors[example, row, 4],
            )  # fmt: skip
            torch.testing.assert_close(logits[example, row, 4], truth, atol=2e-4, rtol=0)


def test_each_example_has_its_own_positions_and_answers(blip, image, model):
    """Two examples at once are as each alone, at an inner site of either tower."""
    answers = torch.tensor([[[22, 5, 9], [53, 7, -1]], [[4, -1, -1], [8, 6, 30]]])
    for site, count in (("encoder.mlp", len(BASE)), ("decoder.cross_attention_heads", 5)):
        place, heads = SITES[site].place(1), [3 if SITES[site].heads else None] * 2
        sets = torch.rand(2, 2, count, generator=torch.Generator().manual_seed(4)) > 0.5
        sets[..., 0] = True
        with torch.inference_mode():
            pairs = [
                model.run(model.embed(torch.tensor(ids))[:, None],
                          model.read_pictures(image.repeat(2, 1, 1)), answers)
                for ids in ([BASE, SOURCE], [SOURCE, BASE])
            ]  # fmt: skip
            donors = model.states_at(pairs[1], place)
            both = model.patch(pairs[0], Patch([place], [donors], sets, heads), [0])
            for number, question in enumerate((BASE, SOURCE)):
                alone = run_of(model, image, question, answers[[number]])
                own = Patch([place], [donors[[number]]], sets[[number]], heads)
                found = model.patch(alone, own, [0])
                torch.testing.assert_close(both.logits[[number]], found.logits, atol=1e-4, rtol=0)
                torch.testing.assert_close(both.rest[[number]], found.rest, atol=1e-4, rtol=0)


def test_a_run_is_left_as_it_was(model, runs):
    base, source = runs
    before = base.stream.clone(), source.stream.clone()
    for place in places_of([site.name for site in TEXT], range(LAYERS)):
        put(model, runs, [place], [[0], [0, 1]])
    assert torch.equal(base.stream, before[0])
    assert torch.equal(source.stream, before[1])


def test_interventions_are_as_wide_as_the_states(model):
    """pyvene's own BLIP mapping would swap `image_text_hidden_size` of 45 numbers."""
    assert type_to_dimension_mapping[Hooked] == {}
    assert {pyvene_name(site) for site in TEXT} <= set(MODULES[type(model)])


def test_a_site_with_two_names_is_measured_once():
    places = places_of(["encoder.block_input", "encoder.block_output"], range(LAYERS))
    assert len(places) == LAYERS + 1
    names = places[Place(ENCODER, 1, None)]
    assert names == [("encoder.block_input", 1), ("encoder.block_output", 0)]
