"""Marks stand where the answer is planted, and nowhere else.

What is planted is first held to the unmodified model, cell by cell.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import oracle
import pandas as pd
import pytest
import torch
from measure_effects import Shard, measure_experiment
from planted import CARRIERS, LAYERS, ROLES, Pair, Plant, make_pairs, plant, tokenizer
from planted_study import (
    CELLS,
    SITE,
    Asked,
    Map,
    MeasuredBatch,
    choose_donors,
    fit_roles,
    make_population,
    maps_of,
    measure_population,
    pictures_of,
)

from blip_tracing.engine.draws import draw_noise
from blip_tracing.engine.scores import Scores
from blip_tracing.machinery.tables import cells_table
from blip_tracing.meaning.analyses.directions import (
    BOTH,
    NECESSARY,
    NEITHER,
    NOT_APART,
    REDUNDANT,
    RESTORING,
    TAKING,
    analyse,
)
from blip_tracing.meaning.evidence import Evidence
from blip_tracing.meaning.marks import cell_tests
from blip_tracing.meaning.roles import Known
from blip_tracing.meaning.summary import Rules, finish_experiment, summarize_family
from blip_tracing.vocabulary.experiment import Experiment
from blip_tracing.vocabulary.tables import HIDES_NOTHING, INCLUDED, UNRELATED

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.marks import RECIPES, mark, to_find, without_known

PLANTED = Plant(layer=2, carrier="[SEP]")
LEVELS = (0.1, 3.0)
ASKED = Asked(examples=16, levels=LEVELS, draws=5, donors=3)
RULES = Rules(total_effect=0.05, least_effect=0.02, resamples=500, seed=0)


@pytest.mark.parametrize("planted", [PLANTED, Plant(4, "[SEP]", 3), Plant(1, "is", 2)], ids=str)
def test_the_unmodified_model_answers_by_the_planted_cells_alone(planted: Plant) -> None:
    """Each cell patched, and restored under noise, is one pass with a torch hook."""
    model, carried = plant(planted), planted.carried_by()
    pairs = make_pairs(4, seed=7)
    restored: dict[tuple[int, bool], list[float]] = {}
    for number, (pair, pixels) in enumerate(zip(pairs, pictures_of(4, 7), strict=True)):
        image = oracle.image_states(model, pixels[None])
        base, source = pair.answers
        asked = {
            name: oracle.answer_logits(model, ids, image).softmax(-1)
            for name, ids in (("base", pair.base), ("source", pair.source))
        }
        assert asked["base"][base] > 0.95
        assert asked["source"][source] > 0.95
        noises = [3 * draw_noise(0, str(number), draw, len(pair.base), 64) for draw in range(2)]
        floors = [
            oracle.corrupted_logits(model, pair.base, image, noise).softmax(-1)[base]
            for noise in noises
        ]
        for layer in range(LAYERS):
            donor, clean = (
                oracle.site_states(model, ids, image, SITE, layer)
                for ids in (pair.source, pair.base)
            )
            for at, role in enumerate(pair.roles):
                logits = oracle.patched_logits(model, pair.base, image, SITE, layer, at, donor[at])
                turned = float(logits.softmax(-1)[source] - asked["base"][source])
                # The role "before it" has several tokens, of which one carries.
                carries = carried[layer] == role and carries_at(pair, planted, at, layer)
                assert turned > 0.95 if carries else abs(turned) < 0.002, (layer, at)
                for noise, floor in zip(noises, floors, strict=True):
                    logits = oracle.restored_logits(
                        model, pair.base, image, noise, SITE, layer, at, clean[at]
                    )
                    brought = float(logits.softmax(-1)[base] - floor)
                    restored.setdefault((layer, carries), []).append(brought)
    for (layer, carries), brought_back in restored.items():
        mean = np.mean(brought_back)
        assert mean > 0.5 if carries else abs(mean) < 0.02, (layer, carries)


def carries_at(pair: Pair, planted: Plant, at: int, layer: int) -> bool:
    """Whether a token of the carrying role is the one that carries: of several, the word `is`."""
    if layer <= planted.layer or planted.carrier != "is":
        return True
    return at == pair.base.index(tokenizer().get_vocab()["is"])


def test_a_pair_differs_in_one_word_and_has_two_answers() -> None:
    for pair in make_pairs(40, seed=1):
        differ = [
            at for at, ids in enumerate(zip(pair.base, pair.source, strict=True)) if len({*ids}) > 1
        ]
        assert differ == [pair.word]
        assert len({*pair.answers}) == 2
        assert [role for role in ROLES if role in pair.roles] == list(dict.fromkeys(pair.roles))
        assert set(CARRIERS.values()) <= {*pair.roles}


def test_donors_have_neither_answer_and_stand_at_the_same_role() -> None:
    pairs = make_pairs(20, seed=2)
    for pair, donors in zip(pairs, choose_donors(pairs, 5, seed=0), strict=True):
        assert len({*donors}) == 5
        for donor in donors:
            other = pairs[donor]
            assert other.answers[0] not in pair.answers
            places = fit_roles(torch.arange(len(other.base))[None, :, None], other, pair)[0, :, 0]
            for at, place in enumerate(places.tolist()):
                if pair.roles[at] in other.roles:
                    assert other.roles[place] == pair.roles[at]
            assert places[pair.word] == other.word


@pytest.fixture(scope="module")
def batches() -> list[MeasuredBatch]:
    return list(measure_population(make_population(PLANTED, ASKED), ASKED))


@pytest.fixture(scope="module")
def maps(batches: list[MeasuredBatch]) -> dict[tuple[str, float], Map]:
    return maps_of(batches, ASKED)


def test_every_map_and_metric_marks_what_is_planted_and_nothing_else(maps) -> None:
    everyone = np.arange(ASKED.examples)
    for (name, level), of in maps.items():
        open_cells = without_known(of, name)
        wanted = to_find(PLANTED, of, name)
        assert wanted.sum() == {("patching", 0.0): 5, ("tracing", 3.0): 6}.get((name, level), 0)
        for recipe, (rule, metric) in RECIPES.items():
            if rule is mark:
                found = {CELLS[at] for at in np.flatnonzero(mark(open_cells, everyone, metric))}
                assert found == {CELLS[at] for at in np.flatnonzero(wanted)}, (name, level, recipe)


def test_against_the_null_alone_noise_that_hides_nothing_is_marked(maps) -> None:
    """What the two tests together are there for."""
    of = maps["tracing", 0.1]
    rule, metric = RECIPES["against the null alone, all draws"]
    assert (
        np.abs(of.change["probability"]).max(where=~np.isnan(of.change["probability"]), initial=0)
        < 0.02
    )
    assert rule(of, np.arange(ASKED.examples), metric).sum() >= 6


def test_a_cell_that_few_pictures_have_hides_no_other() -> None:
    """A place that carries nothing changes alike in all: of four, a flip in eight is as far out."""
    random = np.random.default_rng(0)
    change = np.full((12, 2), np.nan)
    change[:, 0] = 0.6 + 0.2 * random.normal(size=12)
    change[:4, 1] = 0.0
    found = cell_tests(change, change, None, 0.02, 2000, 0).both
    assert found[0] < 0.01
    assert np.isnan(found[1])


def test_the_tables_say_so(batches: list[MeasuredBatch]) -> None:
    """The whole rule: one inclusion, both tests, the run's own negative controls."""
    for name, experiment in ASKED.experiments.items():
        tables = tables_of(batches, experiment)
        primary = max(len(experiment.levels) - 1, 0)
        shard = Shard(
            tables["runs"],
            tables["baseline"],
            Known(tables["roles"]),
            tables["examples"],
            {name: primary},
        )
        measured = measure_experiment(experiment, tables["cells"], tables["controls"], shard, RULES)
        of_cells = measured.cell_means
        families = [
            summarize_family(
                of_level, of_cells[of_cells["level"] == level], experiment, primary, RULES
            )
            for level, of_level in measured.role_means.groupby("level")
        ]
        summary, facts, negatives = finish_experiment(families, RULES)
        assert not negatives["exceeded"].any()
        assert (facts["included"] == ASKED.examples).all()
        for (_, level), rows in summary.groupby(["site", "noise_level"], dropna=False):
            marked = rows[rows["marked"] & (rows["among"] == INCLUDED)]
            found = set(zip(marked["layer"], marked["token_role"], strict=True))
            planted = set(PLANTED.carried_by().items())
            if name == "patching":
                planted -= {(0, "differing word")}  # known: putting it in is asking
            assert found == (set() if level == 0.1 else planted), (name, level)
        if experiment.levels:
            assert HIDES_NOTHING in set(negatives["control"])


class BothWays(Asked):
    """Also what corrupting one place of the clean run takes."""

    @property
    def experiments(self) -> dict[str, Experiment]:
        asked = super().experiments
        restoring = asked["tracing"]
        taking = Experiment("taking", restoring.donor, restoring.receiver, restoring.sites)
        return {**asked, "taking": taking}


@pytest.mark.parametrize(
    ("needs_both", "kind", "apart"), [(False, REDUNDANT, RESTORING), (True, NECESSARY, TAKING)]
)
def test_gates_of_two_carriers_are_told_by_both_directions(
    tmp_path: Path, needs_both: bool, kind: str, apart: str
) -> None:
    """Up to the moving head the content word is both; behind it the carriers are what is planted.

    Noise at one carrier troubles the answer by some hundredths, so that a fifth is what counts. The
    two that are needed together add up in logits, and one alone stays below the opponent.
    """
    planted = Plant(2, "[SEP]", second="[CLS]", needs_both=needs_both)
    asked = BothWays(examples=12, levels=(3.0,), draws=5, donors=ASKED.donors)
    rules = replace(RULES, least_effect=0.2)
    batches = list(measure_population(make_population(planted, asked), asked))
    paths: dict[str, list[str]] = {"role_means": [], "cell_means": []}
    chosen = {name: asked.experiments[name] for name in ("tracing", "taking")}
    for name, experiment in chosen.items():
        tables = tables_of(batches, experiment)
        shard = Shard(
            tables["runs"],
            tables["baseline"],
            Known(tables["roles"]),
            tables["examples"],
            {name: 0},
        )
        measured = measure_experiment(experiment, tables["cells"], tables["controls"], shard, rules)
        for kind_of_means, of in paths.items():
            of.append(str(tmp_path / f"{kind_of_means}-{name}.parquet"))
            getattr(measured, kind_of_means).to_parquet(of[-1])
    pair = {"sufficient": "tracing", "necessary": "taking"}
    evidence = Evidence(
        {"pairs": [pair]}, chosen, dict.fromkeys(chosen, 0), rules, **paths, runs=pd.DataFrame()
    )
    table, _ = analyse(evidence)
    kinds = table.set_index(["layer", "token_role"])[["kind", "apart", "apart_logits"]]
    claimed = kinds[kinds["kind"] != NEITHER]
    alike, logits = (NOT_APART, NOT_APART), NOT_APART if needs_both else apart
    word = {(layer, "differing word"): (BOTH, *alike) for layer in range(3)}
    carriers = {at: (kind, apart, logits) for at in product(range(3, LAYERS), ("[CLS]", "[SEP]"))}
    assert dict(zip(claimed.index, claimed.itertuples(index=False, name=None), strict=True)) == {
        **word,
        **carriers,
    }
    others = kinds[kinds["kind"] == NEITHER]
    assert (others[["apart", "apart_logits"]] == NOT_APART).all(axis=None)


def tables_of(batches: list[MeasuredBatch], experiment: Experiment) -> dict[str, pd.DataFrame]:
    """What the workflow's jobs would have written of an experiment."""
    parts: dict[str, list[pd.DataFrame]] = {}

    def add(table: str, rows: pd.DataFrame) -> None:
        parts.setdefault(table, []).append(rows)

    for batch in batches:
        names = [f"example-{n}" for n in batch.numbers]
        measured = batch.experiments[experiment.name]
        patched = batch.experiments["patching"]
        tokens = {n: pair for n, pair in zip(names, batch.pairs, strict=True)}
        levels, draws = list(experiment.levels), list(range(experiment.draws))
        variants: dict[str, list] = {"noise_level": levels, "draw": draws} if levels else {}
        positions = range(len(batch.pairs[0].base))
        place = {"layer": list(range(LAYERS)), "position": list(positions)}
        cells = cells_table({"example": names, **variants, **place}, arrays(measured.cells))
        pairs = [tokens[example] for example in cells["example"]]
        cells["token"] = [str(p.base[at]) for p, at in zip(pairs, cells["position"], strict=True)]
        if not levels:
            cells["source_token"] = [
                str(p.source[at]) for p, at in zip(pairs, cells["position"], strict=True)
            ]
        add("cells", cells.assign(site=SITE))
        donors: dict[str, list] = {} if levels else {"donor_number": list(range(ASKED.donors))}
        nulls = cells_table(
            {"example": names, **variants, **donors, **place}, arrays(measured.null)
        )
        if levels:
            nulls["donor_number"] = nulls["draw"] % ASKED.donors
        add("controls", nulls.assign(site=SITE, control=UNRELATED))
        ends: list[tuple[str, Scores, dict[str, list]]] = [
            ("base", patched.reference, {}),
            ("source", patched.target, {}),
        ]
        if levels:
            corrupted = experiment.receiver.corruption
            noisy = measured.reference if corrupted else measured.target
            ends.append(("noisy", noisy, variants))
        for run, scores, axes in ends:
            rows = cells_table({"example": names, **axes}, arrays(scores))
            answer = [tokens[e].answers[int(run == "source")] for e in rows["example"]]
            add("runs", rows.assign(run=run, answer_id=answer, answer=[*map(str, answer)]))
        for question, number in (("base", 0), ("source", 1)):
            ids = [pair.answers[number] for pair in batch.pairs]
            add(
                "baseline",
                pd.DataFrame({"example": names, "question": question, "rank": 1, "token_id": ids}),
            )
        add("examples", pd.DataFrame({"example": names, "picture": names, "group": "one"}))
        for example, pair in tokens.items():
            add(
                "roles",
                pd.DataFrame(
                    {
                        "example": example,
                        "position": list(positions),
                        "token_role": pair.roles,
                        "differs": [a != b for a, b in zip(pair.base, pair.source, strict=True)],
                    }
                ),
            )
    return {name: pd.concat(rows, ignore_index=True) for name, rows in parts.items()}


def arrays(scores: Scores) -> dict[str, np.ndarray]:
    return {name: values.numpy() for name, values in scores.columns.items()}
