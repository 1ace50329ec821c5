"""Noise drawn anew for every cell: the unmodified model, cell by cell, with those draws."""

import itertools
from dataclasses import replace

import oracle
import pytest
import torch
from oracle_corruptions import corrupted
from test_corruptions import ANSWERS, LAYERS, QUESTIONS, batch_of, blip, pixels, truth_of

from blip_tracing.engine import draws as engine_draws
from blip_tracing.engine.cells import measure, score_run
from blip_tracing.engine.donors import UnrelatedRuns
from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.models.plain import PlainBlip
from blip_tracing.vocabulary.corruptions import Corruption
from blip_tracing.vocabulary.experiment import BASE, TOGETHER, Experiment, Run
from blip_tracing.vocabulary.sites import SITES, places_of
from blip_tracing.vocabulary.tables import CEILING, NO_OP

__all__ = ["blip", "pixels"]
CLEAN = Run(BASE, BASE)
POSITIONS = len(QUESTIONS[0][BASE])
METRICS = ["probability", "logit"]
STREAM = "encoder.block_output"


def noisy(at, fresh=True, levels=(0.4, 2.0), draws=2, role=""):
    kind = "multiplicative" if at == "picture.states" else "gaussian"
    return Run("noisy", BASE, Corruption(kind, at, levels, draws, 3, role, fresh=fresh))


def restoring(run, *sites, **ways):
    return Experiment("tracing", run, CLEAN, sites, **ways)


def measured(model, batch, experiment, layers=range(LAYERS)):
    places = places_of(experiment.sites, layers, experiment.window)
    with torch.inference_mode():
        return measure(model, batch, experiment, dict.fromkeys(places, "there"), None, METRICS)


def cells_of(model, batch, experiment, layer=1):
    """p(base answer) at the first site of a layer: (G, M, U)."""
    place = SITES[experiment.sites[0]].place(layer, experiment.window)
    return measured(model, batch, experiment, [layer])[place].cells.columns["p_base"]


@pytest.mark.parametrize("backend", [ResumableBlip, PlainBlip])
@pytest.mark.parametrize("at", ["picture.states", "picture.pixels", "question.word_embeddings"])
@pytest.mark.parametrize("restores", [True, False])
def test_a_cell_is_of_a_corrupted_run_of_its_own(blip, pixels, backend, at, restores):
    """It is put into that run or, where the donor is corrupted, taken from it."""
    model, run = backend(blip), noisy(at)
    ends = (run, CLEAN) if restores else (CLEAN, run)
    batch = batch_of(model, pixels, run)
    found = measured(model, batch, Experiment("asked", ends[0], ends[1], (STREAM,)))
    for number, layer, position in itertools.product((0, 1), range(LAYERS), (0, 4)):
        question, image = QUESTIONS[number][BASE], oracle.image_states(blip, pixels[[number]])
        own = oracle.site_states(blip, question, image, STREAM, layer)[position]
        cells = found[SITES[STREAM].place(layer)].cells.columns["p_base"][number]
        cell = f"encoder {layer + 1} stream; all; {position}"
        for row, (level, draw) in enumerate(itertools.product(run.levels, range(run.draws))):
            change, changed = truth_of(blip, pixels, number, run, level, draw, cell)
            where = (STREAM, layer, position)
            with corrupted(blip, at, change):
                taken = oracle.site_states(blip, question, changed, STREAM, layer)[position]
                logits = oracle.patched_logits(blip, question, changed, *where, own)
            if not restores:
                logits = oracle.patched_logits(blip, question, image, *where, taken)
            p = logits.softmax(-1)[ANSWERS[number, 0]]
            assert abs(cells[row, position] - p) < 1e-5, (layer, row, position)


@pytest.mark.parametrize(
    ("site", "ways", "names"),
    [
        (STREAM, {}, [f"encoder 2 stream; all; {at}" for at in range(POSITIONS)]),
        (
            "encoder.cross_attention_heads",
            {"heads": (2, 0), "positions": TOGETHER},
            [f"encoder 1 cross_attention_heads; {head}; 0 1 2 3 4 5 6" for head in (2, 0)],
        ),
        (
            "encoder.self_attention_state",
            {"window": 2},
            [
                f"encoder 0 self_attention_state, encoder 1 self_attention_state; all; {at}"
                for at in range(POSITIONS)
            ],
        ),
        ("decoder.block_output", {}, ["decoder 2 stream; all; 0"]),
        ("vision.mlp", {"regions": 0}, [f"vision 1 mlp; all; {at}" for at in range(10)]),
    ],
)
def test_all_but_the_draws_is_as_where_they_are_shared(
    blip, pixels, monkeypatch, site, ways, names
):
    """A draw is known by what is put in: places, head and positions."""
    model = ResumableBlip(blip)
    at = "picture.pixels" if site.startswith("vision") else "picture.states"
    fresh, shared = (restoring(noisy(at, fresh), site, **ways) for fresh in (True, False))
    batch = batch_of(model, pixels, fresh.receiver)
    expected, own = cells_of(model, batch, shared), cells_of(model, batch, fresh)
    asked: dict[str | None, None] = {}
    draw_noise = engine_draws.draw_noise

    def draw_the_shared(*key, cell=None):
        asked[cell] = None
        return draw_noise(*key)

    monkeypatch.setattr(engine_draws, "draw_noise", draw_the_shared)
    torch.testing.assert_close(cells_of(model, batch, fresh), expected, atol=1e-6, rtol=1e-5)
    assert list(asked) == [None, *names]
    assert not torch.allclose(own, expected, atol=1e-4)


def test_cells_that_share_draws_are_the_floor_where_nothing_is_put_in_and_fresh_ones_vary(
    blip, pixels
):
    """Noise on the noun alone: other tokens have their clean states before the first block."""
    model = ResumableBlip(blip)
    found = {}
    for fresh in (False, True):
        run = noisy("question.embeddings", fresh, role="noun")
        batch = batch_of(model, pixels, run)
        with torch.inference_mode():
            floor = score_run(model, batch, run, METRICS).columns["p_base"].flatten(1)
        cells = cells_of(model, batch, restoring(run, "encoder.block_input"), layer=0)
        found[fresh] = (cells - floor[..., None])[0][:, [0, 1, 3, 4, 6]]
    assert found[False].abs().max() < 1e-6
    for row in found[True]:
        apart = (row[:, None] - row).abs() + torch.eye(len(row))
        assert apart.min() > 1e-6
        assert row.abs().min() > 1e-6


def test_both_have_the_same_expectation(blip, pixels):
    """Over many draws, cell by cell, within the standard error of the difference."""
    model, draws, means, errors = ResumableBlip(blip), 400, [], []
    for fresh in (False, True):
        run = noisy("question.embeddings", fresh, levels=(1.0,), draws=draws)
        batch = batch_of(model, pixels, run, [0])
        cells = cells_of(model, batch, restoring(run, STREAM))[0].double()
        means.append(cells.mean(0))
        errors.append(cells.std(0) / draws**0.5)
    clean = batch.runs[BASE].outcome.logits[0, 0].softmax(-1)[ANSWERS[0, 0]]
    error = torch.hypot(*errors)
    # Seven cells: beyond 3.5 standard errors lies one family in 300.
    assert ((means[0] - means[1]).abs() < 3.5 * error).all()
    # What the tolerance would not forgive: that nothing were restored, or everything.
    assert ((means[0] - clean).abs() > 3.5 * error).any()
    assert (means[0].max() - means[0].min()) > 3.5 * error.max()


def test_a_cell_depends_on_nothing_beside_it(blip, pixels):
    """Not on examples, levels, draws, layers, sites or heads that are measured with it."""
    model, run = ResumableBlip(blip), noisy("picture.states")
    sites = ("encoder.block_output", "encoder.cross_attention_heads")
    together = measured(model, batch_of(model, pixels, run), restoring(run, *sites))
    alone = Run("noisy", BASE, Corruption("multiplicative", "picture.states", (2.0,), 1, 3,
                                          fresh=True))  # fmt: skip
    batch = batch_of(model, pixels, alone, [1])
    stream = cells_of(model, batch, restoring(alone, STREAM))
    head = cells_of(model, batch, restoring(alone, sites[1], heads=(3,)))
    whole, heads = (together[SITES[site].place(1)].cells.columns["p_base"][1, 2] for site in sites)
    torch.testing.assert_close(stream[0, 0], whole, atol=1e-6, rtol=1e-5)
    of_head = heads.unflatten(0, (-1, POSITIONS))[3]
    torch.testing.assert_close(head[0, 0], of_head, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("fresh", [True, False])
def test_the_null_is_put_into_the_run_of_its_cell(blip, pixels, fresh):
    """Were the unrelated states the donor's own, each null would be its cell."""
    model, run = ResumableBlip(blip), noisy("picture.states", fresh)
    batch = batch_of(model, pixels, run)
    own = torch.tensor([[0], [1]])
    positions = torch.arange(POSITIONS).expand(2, 1, -1)
    batch = replace(batch, unrelated=UnrelatedRuns([batch.runs[BASE]], own, positions))
    for found in measured(model, batch, restoring(run, STREAM, "encoder.mlp")).values():
        for column in ("p_base", "logit_source"):
            assert torch.equal(found.null.columns[column], found.cells.columns[column])


@pytest.mark.parametrize("fresh", [True, False])
def test_controls_are_of_the_floors_run(blip, pixels, fresh):
    """What is there put in changes nothing; the clean run's last states give its answer."""
    model, run = ResumableBlip(blip), noisy("picture.states", fresh)
    batch = batch_of(model, pixels, run)
    with torch.inference_mode():
        floor = score_run(model, batch, run, METRICS).columns["p_base"][..., 0]
    found = measured(model, batch, restoring(run, STREAM))
    for place, at_place in found.items():
        control = at_place.controls[NO_OP]
        assert control.difference.max() < 1e-6
        torch.testing.assert_close(control.scores.columns["p_base"], floor, atol=1e-6, rtol=1e-5)
        if place.index == LAYERS:
            assert at_place.controls[CEILING].difference.max() < 1e-6
