"""Effects, role means, exclusions and the summary, each against a plain loop over the rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import measure_effects
import numpy as np
import pandas as pd
import pytest
import summarize_effects

from blip_tracing.given.provenance import digests
from blip_tracing.machinery.tables import read_table, sort_rows, write_table
from blip_tracing.meaning import summary as summary_rules
from blip_tracing.meaning.effects import (
    MEASURED,
    QUANTITIES,
    average_cells,
    average_draws,
    average_roles,
    by_level,
    classify,
    enclosing_answers,
    inclusion,
    list_excluded,
    measure_cells,
    probability_of_neither,
    run_facts,
)
from blip_tracing.meaning.roles import Known, assign_roles, cell_positions
from blip_tracing.meaning.statistics import (
    detectable_mean,
    heterogeneity_test,
    max_t_test,
    selection_frequencies,
)
from blip_tracing.vocabulary.corruptions import KINDS, PLACES, Corruption
from blip_tracing.vocabulary.experiment import (
    BASE,
    PICTURE_ONLY,
    SOURCE,
    Experiment,
    Run,
    described,
)
from blip_tracing.vocabulary.metrics import NEEDED, columns_of
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.sites import SITES
from blip_tracing.vocabulary.tables import (
    CEILING,
    NO_OP,
    NOT_OWN,
    ONE_ANSWER,
    REASONS,
    SMALL_EFFECT,
    SMALL_PRIMARY,
    SMALL_RANGE,
    UNRELATED,
    WITHOUT_NULL,
    WITHOUT_ROLE,
)
from blip_tracing.vocabulary.tables import INCLUDED as INCLUDED_ROWS

Tables = dict[str, pd.DataFrame]

LAYERS, DRAWS, NULL_DRAWS, DONORS = 2, 5, 2, 3
NOISE_LEVELS = (2.0, 0.5)
THRESHOLD = 0.05
RULES = summary_rules.Rules(THRESHOLD, least_effect=0.02, resamples=200, seed=0)
PRIMARY = 1
SITE = next(iter(SITES))
SCORES = columns_of(NEEDED)
BASE_RUN, SOURCE_RUN = Run(BASE, BASE), Run(SOURCE, SOURCE)
NOISY = Run(
    "noisy", BASE, Corruption(next(iter(KINDS)), next(iter(PLACES)), NOISE_LEVELS, DRAWS, seed=0)
)
EXPERIMENTS = {
    "patching": Experiment("patching", BASE_RUN, SOURCE_RUN, (SITE,)),
    "tracing": Experiment("tracing", NOISY, BASE_RUN, (SITE,)),
    "noising": Experiment("noising", BASE_RUN, NOISY, (SITE,)),
}
ROLES = [
    {"role": "start", "token": r"\[CLS\]"},
    {"role": "before it", "before": "it"},
    {"role": "it", "pair": "differs"},
    {"role": "end", "token": r"\[SEP\]"},
]
# What makes each example special: see `make_tables`. Questions of unequal lengths and roles.
QUESTIONS = {
    "plain": ("what is the dog", "what is the cat"),
    "small": ("the big dog here", "the big cat here"),
    "alone": ("dog", "cat"),
    "same": ("is it a dog", "is it a cat"),
    "close": ("a dog", "a cat"),
    "own": ("what is a dog", "what is a cat"),
    **{f"more{number}": ("what is the dog", "what is the cat") for number in range(7)},
}
# Two of them share a picture; of the kinds of question, one has two pictures.
PICTURES = {name: "shared" if name in ("more0", "more1") else f"{name}.png" for name in QUESTIONS}
GROUPS = {name: "few" if name in ("more5", "more6") else "many" for name in QUESTIONS}
INCLUDED = ("plain", "alone", "close", *(name for name in QUESTIONS if name.startswith("more")))
# The files of a shard's runs.
RUN_FILES = ("clean", NOISY.name)
AVERAGED = ["probability_change", "log_probability_change", "log_odds_change",
            "logit_difference_change", "normalised", "hidden_change", "null_change",
            "contrast"]  # fmt: skip


def tokens_of(question: str) -> list[str]:
    return ["[CLS]", *question.split(), "[SEP]"]


def made_up_scores(
    example: str, random: np.random.Generator, p_base: float, p_source: float
) -> dict[str, np.float32]:
    """Scores near these probabilities."""
    p_base, p_source = p_base + 0.01 * random.random(), p_source + 0.01 * random.random()
    if example == "same":
        p_source = p_base
    logits = 10 + (0.01 * random.random(2) if example == "close" else np.log([p_base, p_source]))
    names = ("p_base", "p_source", "logit_base", "logit_source")
    return dict(zip(names, map(np.float32, (p_base, p_source, *logits)), strict=True))


def make_tables(examples: Iterable[str] = QUESTIONS) -> Tables:
    """A shard's tables with made-up scores. Of the examples

    small: its answers are about as likely in every run; alone: has no unrelated example;
    same: both its questions have one answer; close: the logits of its runs hardly differ;
    own: the base answer that is followed is not the model's first.
    The null of a corrupted experiment is measured at the first draws only, that of another with
    several donors; some of its states are matched.
    """
    tables: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("runs", "tokens", "baseline", *EXPERIMENTS, "controls")
    }
    for example in examples:
        random = np.random.default_rng(list(example.encode()))

        scores = partial(made_up_scores, example, random)
        small = example == "small"
        questions = dict(zip((BASE, SOURCE), map(tokens_of, QUESTIONS[example]), strict=True))
        # The answers of one example only begin alike.
        ids = {BASE: 1, SOURCE: 1 if example in ("same", "plain") else 2}
        words = {BASE: "word one", SOURCE: "word one" if example == "same" else "word two"}
        for question, chances in ((BASE, (0.8, 0.1)), (SOURCE, (0.1, 0.12 if small else 0.7))):
            tables["runs"].append(
                {"example": example, "run": question, "answer_id": ids[question],
                 "answer": words[question],
                 **scores(*chances)}
            )  # fmt: skip
            first = 3 if (example, question) == ("own", BASE) else ids[question]
            tables["baseline"] += [
                {"example": example, "question": question, "rank": rank, "token_id": token_id}
                for rank, token_id in ((1, first), (2, 9))
            ]
            tables["tokens"] += [
                {
                    "example": example,
                    "question": question,
                    "position": position,
                    "token": token,
                    "token_id": 100 + position,
                }
                for position, token in enumerate(questions[question])
            ]
        for level, draw in product(NOISY.levels, range(NOISY.draws)):
            # At the first level the noise of some draws hides nothing.
            corrupted = 0.79 if small or (draw > 2 and level == 2) else random.uniform(0.1, 0.3)
            tables["runs"].append(
                {"example": example, "run": NOISY.name, "noise_level": level, "draw": draw,
                 "answer_id": ids[BASE], "answer": words[BASE], **scores(corrupted, 0.2)}
            )  # fmt: skip
        for name, experiment in EXPERIMENTS.items():
            there = {"example": example, "site": SITE}
            of_experiment = {**there, "experiment": name}
            tables["controls"] += [
                {**of_experiment, "control": control, "layer": 0, **scores(0.5, 0.5)}
                for control in (NO_OP, CEILING)
            ]
            for layer in range(LAYERS):
                for position, token in enumerate(questions[experiment.receiver.question]):
                    cell = {"layer": layer, "position": position}
                    words = {"token": token}
                    if experiment.donor.question != experiment.receiver.question:
                        words["source_token"] = questions[experiment.donor.question][position]
                    for variant in variants_of(experiment):
                        at = dict(zip(("noise_level", "draw"), variant, strict=False))
                        chances = random.uniform(0.1, 0.8), random.uniform(0.1, 0.7)
                        tables[name].append({**there, **cell, **words, **at, **scores(*chances)})
                        if example == "alone" or at.get("draw", 0) >= NULL_DRAWS:
                            continue
                        null = {"control": UNRELATED, "donor": "other", "difference": math.nan}
                        tables["controls"] += [
                            {**of_experiment, **null, **cell, **at, "donor_number": donor,
                             "matched": bool(random.random() < 0.6),
                             **scores(random.random(), random.random())}
                            for donor in ([at["draw"] % DONORS] if at else range(DONORS))
                        ]  # fmt: skip
    frames = {name: pd.DataFrame(rows) for name, rows in tables.items()}
    whole = dict.fromkeys(("draw", "position", "donor_number"), "Int32")
    frames["controls"] = frames["controls"].astype(whole)
    return frames


def variants_of(asked: Run | Experiment) -> list[tuple[float, int] | tuple[()]]:
    """The levels and draws at which a run or an experiment is measured; one alone without any."""
    return list(product(asked.levels, range(asked.draws))) if asked.levels else [()]


def rows_of(table: pd.DataFrame) -> list[Any]:
    return list(table.itertuples(index=False))


def by(table: pd.DataFrame, *names: str) -> dict[tuple, Any]:
    """The rows by their values of some columns, each of which only one row has."""
    rows = {tuple(getattr(row, name) for name in names): row for row in rows_of(table)}
    assert len(rows) == len(table)
    return rows


def p(row: Any, answer: str) -> float:
    return float(getattr(row, f"p_{answer}"))


def difference(row: Any) -> float:
    return float(row.logit_base) - float(row.logit_source)


def expected_draws(tables: Tables, experiment: Experiment) -> list[dict[str, Any]]:
    """What each draw of each cell should be, by the definitions, one row after another."""
    runs = tables["runs"].fillna({"noise_level": -1, "draw": 0})
    scored = by(runs, "example", "run", "noise_level", "draw")
    cell = ["example", "layer", "position", *(["noise_level", "draw"] if experiment.levels else [])]
    controls = tables["controls"]
    nulls: dict[tuple, list[Any]] = {}
    of_experiment = controls["experiment"] == experiment.name
    for row in rows_of(controls[(controls["control"] == UNRELATED) & of_experiment]):
        nulls.setdefault(tuple(getattr(row, name) for name in cell), []).append(row)
    followed = experiment.donor.question
    expected = []
    for row in rows_of(tables[experiment.name]):
        level, draw = (row.noise_level, row.draw) if experiment.levels else (math.nan, 0)

        def draws_of(run: Run, row: Any = row, level: float = level) -> list[Any]:
            if run.corruption is None:
                return [scored[row.example, run.name, -1, 0]]
            return [scored[row.example, run.name, level, n] for n in range(DRAWS)]

        references, targets = draws_of(experiment.receiver), draws_of(experiment.donor)
        reference = references[draw if experiment.receiver.corruption else 0]
        null = nulls.get(tuple(getattr(row, name) for name in cell), [])
        change = p(row, followed) - p(reference, followed)
        contrast = p(row, followed) - mean([p(one, followed) for one in null])
        halves: list[list[float]] = [[], []]
        for one in null:
            half = (int(one.donor_number) + crc32(row.example.encode())) % 2
            halves[half].append(p(one, followed) - p(reference, followed))
        noisy = experiment.corrupted
        hidden = noisy and p(draws_of(noisy)[draw], BASE) < p(draws_of(BASE_RUN)[0], BASE) / 2
        span = mean(list(map(difference, targets))) - mean(list(map(difference, references)))
        moved = difference(row) - difference(reference)
        expected.append(
            {
                "example": row.example,
                "noise_level": level,
                "draw": draw,
                "layer": row.layer,
                "position": row.position,
                "token": row.token,
                "probability": p(row, followed),
                "probability_change": change,
                "log_probability_change": math.log(p(row, followed) / p(reference, followed)),
                "log_odds_change": log_odds(p(row, followed)) - log_odds(p(reference, followed)),
                "logit_difference_change": moved,
                "hidden_change": change if hidden else math.nan,
                "first_null": mean(halves[0]),
                "second_null": mean(halves[1]),
                "normalised": moved / span if abs(span) >= 0.1 else math.nan,
                "null_change": change - contrast,
                "contrast": contrast,
                "total_effect": mean([p(run, followed) for run in targets])
                - mean([p(run, followed) for run in references]),
                # Noise that is put into a clean run lowers what is followed.
                "sign": -1 if experiment.name == "noising" else 1,
                "logit_range": span,
            }
        )
    return expected


def log_odds(chance: float) -> float:
    return math.log(chance) - math.log1p(-chance)


def below_threshold(draw: dict[str, Any]) -> bool:
    return draw["sign"] * draw["total_effect"] < THRESHOLD


def mean(values: list[float]) -> float:
    """The mean of those that are there; NaN where none is."""
    there = [value for value in values if not math.isnan(value)]
    return sum(there) / len(there) if there else math.nan


def same(found: float, expected: Any) -> bool:
    return found == pytest.approx(expected, rel=1e-8, abs=1e-9, nan_ok=True)


@pytest.fixture(scope="module")
def tables() -> Tables:
    return make_tables()


@pytest.fixture(scope="module", params=list(EXPERIMENTS.values()), ids=list(EXPERIMENTS))
def experiment(request: pytest.FixtureRequest) -> Experiment:
    return request.param


@pytest.fixture(scope="module")
def draws(tables: Tables, experiment: Experiment) -> list[dict[str, Any]]:
    return expected_draws(tables, experiment)


def cells_of(tables: Tables, experiment: Experiment) -> pd.DataFrame:
    controls = tables["controls"][tables["controls"]["experiment"] == experiment.name]
    cells = measure_cells(experiment, tables[experiment.name], controls, tables["runs"])
    known = Known(assign_roles(tables["tokens"], ROLES))
    positions = cell_positions(experiment, tables[experiment.name], known)
    examples = described_examples(tables, experiment)
    return classify(cells, positions, examples, experiment, THRESHOLD)


def rule_of(tables: Tables, experiment: Experiment) -> pd.DataFrame:
    primary = PRIMARY if experiment.levels else 0
    return inclusion(experiment, tables["runs"], tables["baseline"], primary, THRESHOLD)


def described_examples(tables: Tables, experiment: Experiment) -> pd.DataFrame:
    names = tables["runs"]["example"].unique()
    rows = [(name, PICTURES[name], GROUPS[name]) for name in names]
    table = pd.DataFrame(rows, columns=["example", "picture", "group"])
    return table.join(rule_of(tables, experiment)["included"], on="example")


@pytest.fixture(scope="module")
def cells(tables: Tables, experiment: Experiment) -> pd.DataFrame:
    return cells_of(tables, experiment)


@pytest.fixture(scope="module")
def effects(cells: pd.DataFrame) -> pd.DataFrame:
    return average_draws(cells, RULES.least_effect, RULES.resamples, RULES.seed)


def test_an_effect_is_the_mean_of_its_draws(
    effects: pd.DataFrame, draws: list[dict[str, Any]], experiment: Experiment
) -> None:
    places = {(d["example"], d["noise_level"], d["layer"], d["position"]) for d in draws}
    assert len(effects) == len(places) > 0
    for row in rows_of(effects):
        of_cell = [
            d for d in draws
            if (d["example"], d["layer"], d["position"]) == (row.example, row.layer, row.position)
            and (math.isnan(row.noise_level) or d["noise_level"] == row.noise_level)
        ]  # fmt: skip
        assert len(of_cell) == experiment.draws
        for quantity in AVERAGED:
            assert same(getattr(row, quantity), mean([d[quantity] for d in of_cell])), quantity
        assert same(row.total_effect, of_cell[0]["total_effect"])
        assert row.below_threshold == below_threshold(of_cell[0])
        assert row.token == of_cell[0]["token"]
        assert (row.experiment, row.site) == (experiment.name, SITE)


def test_each_position_has_its_role(effects: pd.DataFrame) -> None:
    small = effects[(effects["example"] == "small") & (effects["layer"] == 0)]
    roles = small.drop_duplicates("position").sort_values("position")["token_role"]
    assert roles.tolist() == ["start", "before it", "before it", "it", "", "end"]


def test_a_cell_without_a_null_has_no_contrast(effects: pd.DataFrame) -> None:
    alone = effects["example"] == "alone"
    for quantity in ("null_change", "contrast"):
        assert effects.loc[alone, quantity].isna().all()
        assert effects.loc[~alone, quantity].notna().all()


def test_a_share_of_too_little_is_not_there(effects: pd.DataFrame) -> None:
    """An example below the threshold keeps its own, flagged."""
    guarded = effects["example"].isin(["close", "same"])
    assert effects.loc[guarded, "normalised"].isna().all()
    assert effects.loc[~guarded, "normalised"].notna().all()
    assert effects.loc[effects["example"] == "small", "below_threshold"].all()


def test_a_share_is_0_at_the_reference_and_1_at_the_target(tables: Tables) -> None:
    base, source = (
        tables["runs"].query("example == 'plain' and run == @run").iloc[0] for run in (BASE, SOURCE)
    )
    patching = tables["patching"].query("example == 'plain'").iloc[:2].reset_index(drop=True)
    patching.loc[0, SCORES], patching.loc[1, SCORES] = base[SCORES], source[SCORES]
    found = measure_cells(
        EXPERIMENTS["patching"], patching, tables["controls"].iloc[:0], tables["runs"]
    )
    assert found["normalised"].tolist() == pytest.approx([0, 1])


def test_the_target_of_a_corrupted_donor_is_its_mean_at_the_level(tables: Tables) -> None:
    """Its draws at another level, however far off, do not count."""
    noisy = tables["runs"][tables["runs"]["run"] == NOISY.name]
    other = noisy["noise_level"] == NOISE_LEVELS[0]
    shifted = tables["runs"].copy()
    shifted.loc[other.index[other], ["p_base", "logit_base"]] += 0.5
    asked = EXPERIMENTS["noising"]
    before, after = (
        measure_cells(asked, tables["noising"], tables["controls"].iloc[:0], runs)
        for runs in (tables["runs"], shifted)
    )
    of_plain = noisy[noisy["example"] == "plain"].astype({"p_base": float})
    plain = of_plain.groupby("noise_level")["p_base"].mean().to_dict()
    clean = tables["runs"].query("example == 'plain' and run == @BASE")["p_base"].iloc[0]
    effects = before[before["example"] == "plain"].groupby("noise_level")["total_effect"]
    assert (effects.nunique() == 1).all()
    for level in NOISE_LEVELS:
        assert same(effects.first()[level], plain[level] - float(clean))
    changed = after["noise_level"] == NOISE_LEVELS[0]
    for quantity in ("total_effect", "logit_range"):
        moved = after[quantity] - before[quantity]
        assert moved[changed].to_numpy() == pytest.approx(0.5, abs=1e-6)
        assert (moved[~changed] == 0).all()


def test_levels_are_told_apart_by_the_nine_digits_that_tables_print() -> None:
    """What a level lost beyond them does not make it another; its number is its place."""
    levels = (1.00000002, 1 / 3, 1.00000001, 0.0)
    printed = [float(f"{level:.9g}") for level in levels]
    beyond = [level * (1 + 1e-12) for level in levels]
    for given in (levels, printed, beyond):
        table = pd.DataFrame({"noise_level": reversed(given), "draw": pd.array([3, 2, 1, 0])})
        found = by_level(table, levels)
        assert found["level"].tolist() == [3, 2, 1, 0]
        assert found["draw"].tolist() == [3, 2, 1, 0]
        assert found["noise_level"].tolist() == list(reversed(given))
        assert set(found[["level", "draw"]].dtypes) == {np.dtype("int64")}


def test_what_has_no_levels_is_at_one_level_in_one_draw() -> None:
    found = by_level(pd.DataFrame({"example": ["a", "b"]}), ())
    assert found[["level", "draw"]].to_numpy().tolist() == [[0, 0], [0, 0]]
    assert found["noise_level"].isna().all()


def test_a_probability_of_0_has_a_logarithm(tables: Tables) -> None:
    least = float(np.finfo(np.float32).tiny)
    patching = tables["patching"].iloc[:1].assign(p_source=np.float32(0))
    nothing = tables["controls"].iloc[:0]
    found = measure_cells(EXPERIMENTS["patching"], patching, nothing, tables["runs"]).iloc[0]
    expected = math.log(least) - math.log(found["reference_probability"])
    assert found["log_probability_change"] == pytest.approx(expected)


def of_positions(draws: list[dict[str, Any]]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """The draws of each cell."""
    cells: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for draw in draws:
        cells.setdefault((draw["layer"], draw["position"]), []).append(draw)
    return cells


def families_of(draws: list[dict[str, Any]]) -> dict[tuple[str, float], list[dict[str, Any]]]:
    """The draws of each example and level, −1 where there is none."""
    families: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for draw in draws:
        level = -1 if math.isnan(draw["noise_level"]) else draw["noise_level"]
        families.setdefault((draw["example"], level), []).append(draw)
    return families


def test_a_role_mean_is_over_its_positions_of_their_means_over_draws(
    effects: pd.DataFrame, draws: list[dict[str, Any]], tables: Tables
) -> None:
    """Turned is a role where one of its positions covers half of the total effect."""
    roles = assign_roles(tables["tokens"], ROLES).set_index(["example", "position"])["token_role"]
    means = average_roles(effects).fillna({"noise_level": -1})
    found = by(means, "example", "noise_level", "layer", "token_role")
    expected = set()
    for (example, level), of_family in families_of(draws).items():
        of_role: dict[tuple, list[list[dict[str, Any]]]] = {}
        for (layer, position), cell in of_positions(of_family).items():
            if roles[example, position]:
                of_role.setdefault((layer, roles[example, position]), []).append(cell)
        small, sign = below_threshold(of_family[0]), of_family[0]["sign"]
        for place, cells in of_role.items():
            row = found[(example, level, *place)]
            expected.add((example, level, *place))
            for quantity in [*MEASURED, "first_null", "second_null"]:
                value = mean([mean([d[quantity] for d in cell]) for cell in cells])
                left_out = quantity == "normalised" and small
                assert same(getattr(row, quantity), math.nan if left_out else value), quantity
            reach = [sign * mean([d["probability_change"] for d in cell]) for cell in cells]
            assert same(row.largest_change, sign * max(reach))
            half = sign * of_family[0]["total_effect"] / 2
            assert same(row.turned, math.nan if small else float(max(reach) >= half))
            assert (row.picture, row.group) == (PICTURES[example], GROUPS[example])
            assert row.positions == len(cells)
    assert found.keys() == expected


def test_the_mean_over_all_cells_stands_beside_what_the_runs_say(
    effects: pd.DataFrame, draws: list[dict[str, Any]], tables: Tables, experiment: Experiment
) -> None:
    controls = tables["controls"][tables["controls"]["experiment"] == experiment.name]
    facts = run_facts(experiment, tables["runs"])
    means = average_cells(effects, facts, controls, experiment).fillna({"noise_level": -1})
    found = by(means, "example", "noise_level")
    runs = tables["runs"].fillna({"noise_level": -1, "draw": 0})
    followed = experiment.donor.question
    assert found.keys() == families_of(draws).keys()
    for (example, level), of_family in families_of(draws).items():
        row = found[example, level]

        def own(run: Run, example: str = example, level: float = level) -> list[Any]:
            of_run = (runs["example"] == example) & (runs["run"] == run.name)
            return rows_of(
                runs[of_run & (runs["noise_level"] == (level if run.corruption else -1))]
            )

        assert same(row.reference, mean([p(r, followed) for r in own(experiment.receiver)]))
        assert same(row.target, mean([p(r, followed) for r in own(experiment.donor)]))
        assert same(row.total_effect, of_family[0]["total_effect"])
        both = [p(r, BASE) + (p(r, SOURCE) if example != "same" else 0)
                for r in own(experiment.receiver)]  # fmt: skip
        assert same(row.third_mass, mean([1 - one for one in both]))
        if experiment.corrupted:
            clean = p(own(BASE_RUN)[0], BASE)
            hidden = [float(p(r, BASE) < clean / 2) for r in own(experiment.corrupted)]
            assert same(row.hidden_share, mean(hidden))
        else:
            assert math.isnan(row.hidden_share)
        assert row.one_answer == (example == "same")
        nulls = controls[(controls["control"] == UNRELATED) & (controls["example"] == example)]
        nulls = nulls if level == -1 else nulls[nulls["noise_level"] == level]
        assert same(row.matched_share, mean([float(one) for one in nulls["matched"]]))
        assert row.draws == experiment.draws
        assert row.null_draws == (0 if example == "alone" else min(NULL_DRAWS, experiment.draws))
        values = [mean([d["contrast"] for d in cell]) for cell in of_positions(of_family).values()]
        assert same(row.contrast, mean(values))


def test_an_example_is_included_by_one_rule(tables: Tables, experiment: Experiment) -> None:
    """Distinct answers, the model's own, and a total effect at the primary level."""
    rule = rule_of(tables, experiment)
    small = set(rule.index[rule[SMALL_PRIMARY]])
    # Where noise goes in or out, one answer for both questions has an effect too.
    assert small == ({"small", "same"} if experiment.name == "patching" else {"small"})
    assert set(rule.index[rule[ONE_ANSWER]]) == {"same"}
    assert set(rule.index[rule[NOT_OWN]]) == {"own"}
    assert set(rule.index[rule["included"]]) == set(INCLUDED)


@pytest.mark.parametrize("name", ["tracing", "noising"])
def test_inclusion_looks_at_the_primary_level_alone(tables: Tables, name: str) -> None:
    runs = tables["runs"].copy()
    other = (runs["noise_level"] == NOISE_LEVELS[1 - PRIMARY]) & (runs["example"] == "plain")
    runs.loc[other, "p_base"] = np.float32(0.8)
    assert rule_of({**tables, "runs": runs}, EXPERIMENTS[name])["included"]["plain"]
    at_primary = (runs["noise_level"] == NOISE_LEVELS[PRIMARY]) & (runs["example"] == "plain")
    runs.loc[at_primary, "p_base"] = np.float32(0.85)  # noise that raises it has no effect either
    assert not rule_of({**tables, "runs": runs}, EXPERIMENTS[name])["included"]["plain"]


def test_what_is_known_of_a_cell(effects: pd.DataFrame, experiment: Experiment) -> None:
    """Before the first block: equal tokens put in what is there, the differing one asks anew."""
    for row in rows_of(effects):
        base, source = (tokens_of(question) for question in QUESTIONS[row.example])
        expected = "no_op" if base[row.position] == source[row.position] else "ceiling"
        first = experiment.name == "patching" and row.layer == 0
        assert row.known == (expected if first else "")


def test_of_two_differing_tokens_neither_is_the_other_question(tables: Tables) -> None:
    plain = {name: table[table["example"] == "plain"].copy() for name, table in tables.items()}
    other = (plain["tokens"]["question"] == SOURCE) & (plain["tokens"]["position"] == 1)
    plain["tokens"].loc[other, "token"] = "which"
    found = cells_of(plain, EXPERIMENTS["patching"])
    first = found[found["layer"] == 0].set_index("position")["known"]
    assert first.tolist() == ["no_op", "", "no_op", "no_op", "", "no_op"]


def largest_t(signs: Sequence[int], cells: Sequence[Sequence[float]]) -> list[float]:
    flipped = [np.array(cell) * signs for cell in cells]
    return [float(f.mean() / (f.std(ddof=1) / math.sqrt(len(f)))) for f in flipped]


def test_an_examples_marks_are_of_its_draws_and_its_map(
    effects: pd.DataFrame, draws: list[dict[str, Any]], experiment: Experiment
) -> None:
    """All 32 sign flips of its five draws, upward; above the largest positive null of its map."""
    found = by(effects.fillna({"noise_level": -1}), "example", "noise_level", "layer", "position")
    for (example, level), of_family in families_of(draws).items():
        cells, sign = of_positions(of_family), of_family[0]["sign"]
        moved = {at: [sign * d["probability_change"] - 0.02 for d in cell]
                 for at, cell in cells.items()}  # fmt: skip
        if experiment.levels:
            flips = [max(largest_t(signs, list(moved.values())))
                     for signs in product((1, -1), repeat=DRAWS)]  # fmt: skip
            own = dict(zip(cells, largest_t([1] * DRAWS, list(moved.values())), strict=True))
        nulls = [sign * mean([d["null_change"] for d in cell]) for cell in cells.values()]
        for at, cell in cells.items():
            row = found[(example, level, *at)]
            if not experiment.levels:
                assert math.isnan(row.p_map)
                assert not row.marked
                continue
            reached = float(np.mean([flip >= own[at] - 1e-9 for flip in flips]))
            assert same(row.p_map, reached if own[at] > 0 else 1.0)
            change = mean(moved[at]) + 0.02
            hidden = any(not math.isnan(d["hidden_change"]) for d in cell)
            beyond = example != "alone" and change > max(0, *nulls)
            assert row.marked == (row.p_map < 0.05 and change >= 0.02 and beyond and hidden)


def marked_of(tables: Tables, change: float, null: float, floor: float = 0.1) -> pd.Series:
    """The marks of an example whose one cell, of three, is changed in every draw."""
    tables = {name: table.copy() for name, table in tables.items()}
    random = np.random.default_rng(0)
    noisy = tables["runs"]["run"] == NOISY.name
    tables["runs"].loc[noisy, "p_base"] = np.float32(floor)
    for name in ("tracing", "controls"):
        table = tables[name]
        table["p_base"] = floor + random.uniform(0, 1e-3, len(table))
        there = (table["layer"] == 1) & (table["position"] == 1)
        if name == "controls":
            there = (table["layer"] == 0) & (table["position"] == 2)
        moved = table["p_base"] + (change if name == "tracing" else null)
        table["p_base"] = table["p_base"].mask(there, moved)
    effects = average_draws(cells_of(tables, EXPERIMENTS["tracing"]), 0.02, 200, 0)
    return effects[effects["example"] == "plain"].set_index(["layer", "position"])["marked"]


def test_a_mark_of_an_example_is_restored_hidden_and_beyond_any_state(tables: Tables) -> None:
    plain = {name: table[table["example"] == "plain"] if name != "baseline" else table
             for name, table in tables.items()}  # fmt: skip
    assert set(marked_of(plain, 0.5, 0.0).pipe(lambda marks: marks.index[marks])) == {(1, 1)}
    assert not marked_of(plain, 0.01, 0.0).any(), "smaller than the least effect"
    assert not marked_of(plain, -0.5, 0.0).any(), "downwards"
    assert not marked_of(plain, 0.5, 0.6).any(), "an unrelated state does more elsewhere"
    assert marked_of(plain, 0.5, -0.6).any(), "what an unrelated state destroys sets no bar"
    assert not marked_of(plain, 0.2, 0.0, floor=0.6).any(), "the noise hid nothing"


def test_what_is_left_out_is_listed_with_its_reason(
    effects: pd.DataFrame, draws: list[dict[str, Any]], tables: Tables, experiment: Experiment
) -> None:
    rule = rule_of(tables, experiment)
    excluded = list_excluded(effects, rule, bool(experiment.levels))
    expected = []
    for (example, level), of_family in families_of(draws).items():
        first = of_family[0]
        rows = LAYERS * len(tokens_of(QUESTIONS[example][0]))
        at_primary = next(
            d["total_effect"] for d in draws
            if d["example"] == example
            and (level == -1 or d["noise_level"] == NOISE_LEVELS[PRIMARY])
        )  # fmt: skip
        primary_small = level != -1 and first["sign"] * at_primary < THRESHOLD
        reasons = {
            ONE_ANSWER: (example == "same", rows, math.nan),
            NOT_OWN: (example == "own", rows, math.nan),
            SMALL_PRIMARY: (primary_small, rows, at_primary),
            SMALL_EFFECT: (below_threshold(first), rows, first["total_effect"]),
            SMALL_RANGE: (example == "close", rows, first["logit_range"]),
            WITHOUT_ROLE: (example == "small", LAYERS, math.nan),
            WITHOUT_NULL: (example == "alone", rows, math.nan),
        }
        expected += [
            (example, experiment.name, SITE, math.nan if level == -1 else level, *rest)
            for reason, (holds, count, value) in reasons.items()
            for rest in [(count, reason, value)]
            if holds
        ]
    order = ["example", "noise_level", "reason"]
    names = ["example", "experiment", "site", "noise_level", "rows", "reason", "value"]
    assert excluded.columns.tolist() == names
    assert {"small", "same", "close", "alone", "own"} == set(excluded["example"])
    pd.testing.assert_frame_equal(
        excluded.sort_values(order, ignore_index=True),
        pd.DataFrame(expected, columns=names).sort_values(order, ignore_index=True),
        check_dtype=False,
    )


def test_what_is_left_out_stands_in_one_order_however_levels_share_jobs(
    effects: pd.DataFrame, tables: Tables, experiment: Experiment
) -> None:
    rule = rule_of(tables, experiment)
    parts = [part for _, part in effects.groupby("noise_level", sort=False, dropna=False)]
    orders = {"example": list(QUESTIONS), "reason": list(REASONS)}
    one, several = (
        sort_rows(
            pd.concat([list_excluded(part, rule, True) for part in jobs], ignore_index=True), orders
        )
        for jobs in ([effects], parts)
    )
    pd.testing.assert_frame_equal(several, one)


# --- the jobs


class Files(list):
    """A job's files, by name and as a list, as Snakemake hands them over."""

    def __init__(self, **named: str | list[str]) -> None:
        self.named = named
        for paths in named.values():
            self.extend([paths] if isinstance(paths, str) else paths)

    def __getattr__(self, name: str) -> Any:
        return self.named[name]


def write_parts(
    folder: Path, tables: Tables, experiments: Iterable[str], layers_per_job: int = 1
) -> tuple[dict[str, Any], dict[str, list[tuple[str, str]]]]:
    """Write a shard's tables as the jobs do: one a level, or some layers where there is none.

    The second is each experiment's files of cells and of controls.
    """
    folder.mkdir(parents=True)
    runs = tables["runs"]
    corrupted = runs["run"] == NOISY.name
    of_runs = (runs[~corrupted].drop(columns=["noise_level", "draw"]), runs[corrupted])
    written: dict[str, Any] = {
        "tokens": str(folder / "tokens.csv"),
        "baseline": str(folder / "baseline.csv"),
        "runs": [str(folder / f"runs-{name}.parquet") for name in RUN_FILES],
    }
    write_table(tables["tokens"], written["tokens"])
    write_table(tables["baseline"], written["baseline"])
    for path, table in zip(written["runs"], of_runs, strict=True):
        write_table(table, path)
    cells: dict[str, list[tuple[str, str]]] = {}
    for name in experiments:
        controls = tables["controls"][tables["controls"]["experiment"] == name]
        cells[name] = []
        parts: Iterable[Any] = EXPERIMENTS[name].levels or range(0, LAYERS, layers_per_job)
        for part in parts:
            paths = []
            for kind, table in (("cells", tables[name]), ("controls", controls)):
                chosen = (
                    table["noise_level"] == part
                    if EXPERIMENTS[name].levels
                    else table["layer"].between(part, part + layers_per_job - 1)
                )
                paths.append(str(folder / f"{kind}-{name}-{part}.parquet"))
                write_table(table[chosen], paths[-1])
            cells[name].append((paths[0], paths[1]))
    written["cells"] = [path for parts in cells.values() for paths in parts for path in paths]
    return written, cells


def rows_of_sheet(tables: Tables) -> list[list[Any]]:
    names = tables["tokens"]["example"].unique()
    return [[name, PICTURES[name], False, GROUPS[name], ""] for name in names]


def primary_of(experiments: Iterable[str]) -> dict[str, int]:
    return {name: PRIMARY if EXPERIMENTS[name].levels else 0 for name in experiments}


def measure(folder: Path, tables: Tables, experiments: Sequence[str]) -> Files:
    """Run the job of one shard."""
    written, cells = write_parts(folder, tables, experiments)
    facts = folder / "facts.json"
    facts.write_text(json.dumps({"model": "miniature", "files": digests(Files(**written))}))
    names = {"effects": "parquet", "role_means": "parquet", "cell_means": "parquet",
             "excluded": "csv", "facts": "json"}  # fmt: skip
    output = Files(
        **{name: str(folder / f"made-{name}.{suffix}") for name, suffix in names.items()}
    )
    measure_effects.main(
        SimpleNamespace(
            input=Files(**written, facts=[str(facts)], claims=[]),
            output=output,
            params=SimpleNamespace(
                experiments={name: described(EXPERIMENTS[name]) for name in experiments},
                cells=cells,
                examples=rows_of_sheet(tables),
                primary=primary_of(experiments),
                roles=ROLES,
                boxes=[""],
                rules=asdict(RULES),
            ),
            log=[str(folder / "measure.log")],
        )
    )
    return output


def summarize(
    folder: Path,
    shards: list[tuple[str, ...]],
    experiments: Sequence[str] = tuple(EXPERIMENTS),
    with_null: bool = True,
) -> Path:
    """Run the jobs of all shards, then the summary's: its path."""
    measured, runs = [], []
    for shard in shards:
        tables = make_tables(shard)
        if not with_null:
            tables["controls"] = tables["controls"].query("control != @UNRELATED")
        measured.append(measure(folder / "-".join(shard), tables, experiments))
        runs += [str(folder / "-".join(shard) / f"runs-{name}.parquet") for name in RUN_FILES]
    facts = folder / "runs.json"
    facts.write_text(json.dumps({"model": "miniature", "files": digests(runs)}))
    output = Files(
        summary=str(folder / "summary.csv"),
        families=str(folder / "families.csv"),
        negatives=str(folder / "negatives.csv"),
        run_means=str(folder / "run_means.csv"),
        facts=str(folder / "summary.json"),
    )
    summarize_effects.main(
        SimpleNamespace(
            input=Files(
                role_means=[files.role_means for files in measured],
                cell_means=[files.cell_means for files in measured],
                runs=runs,
                facts=[*(files.facts for files in measured), str(facts)],
            ),
            output=output,
            params=SimpleNamespace(
                experiments={name: described(EXPERIMENTS[name]) for name in experiments},
                primary=primary_of(experiments),
                pictures=PICTURES,
                runs=[described(run) for run in (BASE_RUN, NOISY)],
                rules=asdict(RULES),
            ),
            log=[str(folder / "summarize.log")],
        )
    )
    return Path(output.summary)


@pytest.fixture(scope="module")
def summary_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return summarize(tmp_path_factory.mktemp("summary"), [tuple(QUESTIONS)])


@pytest.fixture(scope="module")
def summary(summary_file: Path) -> pd.DataFrame:
    return read_table(summary_file)


@pytest.fixture(scope="module")
def all_means(summary_file: Path) -> pd.DataFrame:
    """Each example's means, of roles and over all cells, as the job wrote them."""
    made = summary_file.parent / "-".join(QUESTIONS)
    parts = [read_table(made / f"made-{name}.parquet") for name in ("role_means", "cell_means")]
    return pd.concat(parts, ignore_index=True).fillna({"noise_level": -1})


FAMILY = ["experiment", "site", "noise_level"]
CELL = ["layer", "token_role"]


def test_the_summary_is_the_mean_over_examples_of_their_means(
    summary: pd.DataFrame, all_means: pd.DataFrame
) -> None:
    """Over all, over those included, and by group of these; an interval where six pictures are."""
    whole = summary.fillna({"noise_level": -1, "layer": -1})
    found = by(whole, *FAMILY, *CELL, "group", "among", "quantity")
    values: dict[tuple, list[Any]] = {}
    for row in rows_of(all_means):
        place = [getattr(row, name) for name in (*FAMILY, *CELL)]
        for quantity in QUANTITIES:
            if math.isnan(getattr(row, quantity)):
                continue
            kinds = [(ALL, ALL)]
            if row.included:
                kinds.append((ALL, INCLUDED_ROWS))
                if row.layer >= 0 and quantity in ("probability_change", "turned", "contrast"):
                    kinds.append((row.group, INCLUDED_ROWS))
            for kind in kinds:
                values.setdefault((*place, *kind, quantity), []).append(row)
    assert found.keys() == values.keys()
    assert {key[5] for key in found} == {ALL, "few", "many"}
    for key, rows in values.items():
        row, quantity = found[key], key[-1]
        assert same(row.mean, mean([getattr(one, quantity) for one in rows]))
        pictures = len({one.picture for one in rows})
        assert (row.examples, row.pictures) == (len(rows), pictures)
        levels = EXPERIMENTS[key[0]].levels
        drawn = NULL_DRAWS if quantity == "contrast" else DRAWS
        assert row.draws == (drawn if levels else 1)
        if pictures < 6:
            assert math.isnan(row.low)
            assert math.isnan(row.high)
        else:
            assert row.low <= row.mean <= row.high


def test_intervals_end_where_the_quantity_does(summary: pd.DataFrame) -> None:
    limits = {"probability": (0, 1), "turned": (0, 1), "probability_change": (-1, 1),
              "contrast": (-1, 1), "hidden_change": (-1, 1), "largest_change": (-1, 1)}  # fmt: skip
    for quantity, (least, most) in limits.items():
        chosen = summary[summary["quantity"] == quantity].dropna(subset="low")
        assert len(chosen)
        assert chosen["low"].min() >= least
        assert chosen["high"].max() <= most


def arrays_of(rows: pd.DataFrame, quantity: str) -> tuple[np.ndarray, list[str], list[tuple]]:
    """A family's values (examples, cells) with the examples' pictures and the cells' names."""
    table = rows.pivot(index=["example", "picture"], columns=CELL, values=quantity)
    return table.to_numpy(), list(table.index.get_level_values(1)), [*table.columns.to_flat_index()]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_both_hypotheses_are_tested_of_included_examples_where_nothing_is_known(
    summary: pd.DataFrame, summary_file: Path, all_means: pd.DataFrame, name: str
) -> None:
    """In the experiment's direction, by picture; p_study over all levels; nowhere else."""
    of_summary = summary[summary["experiment"] == name].fillna({"noise_level": -1})
    tested = (
        (of_summary["quantity"] == "probability_change")
        & (of_summary["group"] == ALL)
        & (of_summary["among"] == INCLUDED_ROWS)
        & of_summary["layer"].notna()
    )
    p_values = ["p_floor", "p_null", "p_family", "p_study", "chosen"]
    assert of_summary.loc[~tested, p_values].isna().all(axis=None)
    assert not of_summary.loc[~tested, "marked"].any()
    assert (of_summary.loc[~tested, "known"] == "").all()
    found = by(of_summary[tested], "noise_level", *CELL)
    rows = all_means[(all_means["experiment"] == name) & all_means["included"]]
    rows = rows[rows["layer"] >= 0]
    sign = EXPERIMENTS[name].direction
    families = read_table(summary_file.with_name("families.csv")).fillna({"noise_level": -1})
    told = by(families[families["experiment"] == name], "noise_level")
    whole: list[list[np.ndarray]] = [[], []]
    places: list[tuple] = []
    for level, family in rows.groupby("noise_level", sort=False):
        known = family[family["known"] != ""]
        for row in rows_of(known.drop_duplicates(CELL)):
            of_known = found[level, row.layer, row.token_role]
            assert of_known.known == row.known
            assert math.isnan(of_known.p_family)
            assert not of_known.marked
        assert (len(known) > 0) == (name == "patching")
        unknown = family[family["known"] == ""]
        change, pictures, cells = arrays_of(unknown, "probability_change")
        contrast, *_ = arrays_of(unknown, "contrast")
        p_floor, p_null = (
            max_t_test(sign * values, 200, 0, pictures, 0.02).p for values in (change, contrast)
        )
        chosen = selection_frequencies(sign * change, 200, 0, pictures)
        marked = 0
        for number, cell in enumerate(cells):
            row = found[(level, *cell)]
            assert same(row.p_floor, p_floor[number])
            assert same(row.p_null, p_null[number])
            assert row.p_family == max(row.p_floor, row.p_null)
            assert same(row.chosen, chosen[number])
            assert row.marked == (row.p_family < 0.05)
            assert row.p_study >= row.p_family - 0.05
            marked += row.marked
            places.append((level, *cell))
        one = told[(level,)]
        assert (one.cells, one.marked, one.tested, one.reason) == (len(cells), marked, True, "")
        assert same(
            one.detectable,
            max(detectable_mean(sign * v, 200, 0, pictures, 0.02) for v in (change, contrast)),
        )
        groups = [GROUPS[example] for example in sorted(unknown["example"].unique())]
        assert same(
            one.heterogeneity_p, heterogeneity_test(sign * change, groups, 200, 0, pictures)
        )
        for values, part in zip(whole, (change, contrast), strict=True):
            values.append(sign * part)
    study = np.maximum(*(max_t_test(np.hstack(v), 200, 0, pictures, 0.02).p for v in whole))
    for place, p_study in zip(places, study, strict=True):
        assert same(found[place].p_study, p_study)


def test_a_family_is_told_by_its_included_examples(
    summary_file: Path, all_means: pd.DataFrame
) -> None:
    families = read_table(summary_file.with_name("families.csv")).fillna({"noise_level": -1})
    found = by(families, *FAMILY)
    whole = all_means[all_means["layer"] < 0]
    groups = dict(list(whole.groupby(FAMILY, sort=False)))
    assert found.keys() == groups.keys()
    for key, rows in groups.items():
        row, included = found[key], rows[rows["included"]]
        assert (row.examples, row.included) == (len(QUESTIONS), len(INCLUDED))
        assert row.pictures == len(INCLUDED) - 1
        assert row.primary == (key[2] in (-1, NOISE_LEVELS[PRIMARY]))
        for name in ("reference", "target", "total_effect", "third_mass", "matched_share"):
            assert same(getattr(row, name), mean(included[name].tolist())), name
        assert same(row.hidden_share, mean(included["hidden_share"].tolist()))


def test_runs_without_intervention_have_the_mean_of_their_probability(
    summary_file: Path, tables: Tables
) -> None:
    table = read_table(summary_file.with_name("run_means.csv"))
    assert table.columns.tolist() == summarize_effects.RUN_MEANS
    found = by(table.fillna({"noise_level": -1}), "run", "noise_level")
    runs = tables["runs"].query("run != @SOURCE").fillna({"noise_level": -1})
    groups = dict(list(runs.groupby(["run", "noise_level"])))
    clean = {row.example: p(row, BASE) for row in rows_of(runs[runs["run"] == BASE])}
    assert found.keys() == groups.keys()
    for key, rows in groups.items():
        row, members = found[key], rows_of(rows)
        examples = [[p(m, BASE) for m in members if m.example == e] for e in QUESTIONS]
        assert same(row.mean, mean([mean(one) for one in examples]))
        assert (row.examples, row.pictures) == (len(QUESTIONS), len(QUESTIONS) - 1)
        assert row.draws == len(examples[0])
        assert 0 <= row.low <= row.mean <= row.high <= 1
        third = [1 - p(m, BASE) - (p(m, SOURCE) if m.example != "same" else 0) for m in members]
        assert same(row.third, mean(third))
        hidden = [float(p(m, BASE) < clean[m.example] / 2) for m in members]
        assert same(row.hidden, mean(hidden) if key[0] == NOISY.name else math.nan)


def test_the_picture_alone_and_the_states_spread_are_told_where_they_are_measured(
    tables: Tables,
) -> None:
    runs = tables["runs"].copy()
    runs.loc[runs["run"] == NOISY.name, "state_sd"] = 0.8
    alone = runs[runs["run"] == BASE].assign(run=PICTURE_ONLY, p_base=np.float32(0.25))
    both = pd.concat([runs, alone], ignore_index=True)
    noisy = summarize_effects.average_run(both, NOISY, PICTURES, 200, 0)
    assert noisy["state_sd"].tolist() == pytest.approx([0.8, 0.8])
    assert noisy["noise_in_sd"].tolist() == pytest.approx([level / 0.8 for level in NOISE_LEVELS])
    picture = summarize_effects.average_run(both, Run(PICTURE_ONLY, ""), PICTURES, 200, 0).iloc[0]
    assert (picture["run"], picture["mean"]) == (PICTURE_ONLY, 0.25)
    assert picture[["noise_level", "hidden", "state_sd"]].isna().all()


def test_of_one_example_the_draws_are_the_units_of_a_runs_mean(tables: Tables) -> None:
    runs = tables["runs"].query("example == 'plain'")
    many = Run("noisy", BASE, replace(NOISY.corruption, draws=7, levels=(2.0,)))  # type: ignore[type-var]
    drawn = runs[runs["run"] == NOISY.name].iloc[[0] * 7].assign(draw=range(7), noise_level=2.0)
    both = pd.concat([runs[runs["run"] != NOISY.name], drawn], ignore_index=True)
    found = summarize_effects.average_run(both, many, PICTURES, 200, 0).iloc[0]
    assert found["low"] < found["mean"] < found["high"]
    assert (found["examples"], found["pictures"], found["draws"]) == (1, 1, 7)
    five = summarize_effects.average_run(runs, NOISY, PICTURES, 200, 0)
    assert five[["low", "high"]].isna().all(axis=None)


def test_without_any_null_nothing_is_tested(tmp_path: Path) -> None:
    path = summarize(tmp_path, [tuple(QUESTIONS)], with_null=False)
    found, families = read_table(path), read_table(path.with_name("families.csv"))
    assert "contrast" not in set(found["quantity"])
    assert found[["p_floor", "p_null", "p_family", "p_study"]].isna().all(axis=None)
    assert not found["marked"].any()
    assert not families["tested"].any()
    assert set(families["reason"]) == {WITHOUT_NULL}
    assert (families["cells"] == 0).all()


def test_five_pictures_are_not_tested(tmp_path: Path) -> None:
    few = ("plain", "close", "more0", "more1", "more2", "more3")
    path = summarize(tmp_path, [few])
    families = read_table(path.with_name("families.csv"))
    assert (families["pictures"] == 5).all()
    assert set(families["reason"]) == {"fewer than six pictures"}
    assert read_table(path)[["p_family", "chosen", "low"]].isna().all(axis=None)


@pytest.mark.parametrize(
    "shards",
    [
        [tuple(QUESTIONS)[:4], tuple(QUESTIONS)[4:6], tuple(QUESTIONS)[6:]],
        [tuple(reversed(QUESTIONS))[:5], tuple(reversed(QUESTIONS))[5:]],
    ],
)
def test_the_summary_is_the_same_however_the_examples_are_cut_and_ordered(
    tmp_path: Path, summary_file: Path, shards: list[tuple[str, ...]]
) -> None:
    assert summarize(tmp_path, shards).read_bytes() == summary_file.read_bytes()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_one_experiment_is_measured_without_the_others(
    tmp_path: Path, summary: pd.DataFrame, name: str
) -> None:
    found = read_table(summarize(tmp_path, [tuple(QUESTIONS)], [name]))
    expected = summary[summary["experiment"] == name].reset_index(drop=True)
    assert len(expected)
    pd.testing.assert_frame_equal(found, expected)


def shard_of(tables: Tables) -> measure_effects.Shard:
    rows = [[name, picture, group] for name, picture, _, group, _ in rows_of_sheet(tables)]
    sheet = pd.DataFrame(rows, columns=["example", "picture", "group"])
    known = Known(assign_roles(tables["tokens"], ROLES))
    return measure_effects.Shard(
        tables["runs"], tables["baseline"], known, sheet, primary_of(EXPERIMENTS)
    )


def test_layers_of_several_files_give_the_same_means_as_one_file(
    tmp_path: Path, tables: Tables
) -> None:
    """The mean over all cells is over the layers of all jobs, whichever did them."""
    made = []
    for layers_per_job in (LAYERS, 1):
        folder = tmp_path / str(layers_per_job)
        _, cells = write_parts(folder, tables, ["patching"], layers_per_job)
        assert len(cells["patching"]) == LAYERS // layers_per_job
        asked = {"patching": described(EXPERIMENTS["patching"])}
        (measured,) = measure_effects.measure_shard(asked, cells, shard_of(tables), RULES)
        made.append(pd.concat([measured.role_means, measured.cell_means], ignore_index=True))
    one, several = (
        table.sort_values(["example", "layer", "token_role"], ignore_index=True) for table in made
    )
    pd.testing.assert_frame_equal(several, one, rtol=1e-12)


def test_the_effects_are_one_table_of_all_jobs(summary_file: Path, tables: Tables) -> None:
    made = summary_file.parent / "-".join(QUESTIONS)
    effects = read_table(made / "made-effects.parquet")
    assert list(effects["experiment"].unique()) == list(EXPERIMENTS)
    for name, experiment in EXPERIMENTS.items():
        averaged = average_draws(cells_of(tables, experiment), 0.02, 200, 0)
        expected = averaged[effects.columns]
        keys = ["example", "noise_level", "layer", "position"]
        pd.testing.assert_frame_equal(
            effects[effects["experiment"] == name].sort_values(keys, ignore_index=True),
            expected.sort_values(keys, ignore_index=True),
        )
    assert set(read_table(made / "made-excluded.csv")["reason"]) == set(REASONS)


def test_a_role_of_the_answer_is_told_wherever_a_shard_is_read(
    tables: Tables, tmp_path: Path
) -> None:
    """By the jobs of effects and of universes alike, which read it by one function."""
    example = tables["tokens"]["example"].iloc[0]
    runs, tokens = tables["runs"], tables["tokens"].copy()
    (answer,) = runs.loc[(runs["example"] == example) & (runs["run"] == BASE), "answer_id"]
    named = (tokens["example"] == example) & (tokens["question"] == BASE)
    tokens.loc[named & (tokens["position"] == 2), "token_id"] = answer
    files = {name: str(tmp_path / f"{name}.csv") for name in ("runs", "baseline", "tokens")}
    written = {"runs": runs, "baseline": tables["baseline"], "tokens": tokens}
    for name, path in files.items():
        write_table(written[name], path)
    rules = [{"role": "answer", "answer": BASE}, {"role": "other", "token": ".*"}]
    shard = measure_effects.read_shard(
        {**files, "runs": [files["runs"]]}, rows_of_sheet(tables), rules, [""], primary_of(())
    )
    roles = shard.known.roles.set_index(["example", "position"])["token_role"]
    assert roles[example, 2] == "answer"
    assert set(roles.drop((example, 2))) == {"other"}


def test_what_was_made_vouches_for_its_files(summary_file: Path) -> None:
    made = summary_file.parent / "-".join(QUESTIONS)
    facts = json.loads((made / "made-facts.json").read_text())
    assert {Path(path).name for path in facts["files"]} == {
        "made-effects.parquet", "made-role_means.parquet", "made-cell_means.parquet",
        "made-excluded.csv",
    }  # fmt: skip
    assert (facts["model"], facts["roles"]) == ("miniature", ROLES)
    summary_facts = json.loads(summary_file.with_suffix(".json").read_text())
    assert summary_facts["resamples"] == 200
    made_with = ["summary.csv", "families.csv", "negatives.csv", "run_means.csv"]
    assert [Path(path).name for path in summary_facts["files"]] == made_with


@pytest.mark.parametrize(
    ("answers", "ids", "left"),
    [
        (["blue", "blue hat"], [9, 9], 0.2),
        (["blue hat", "blue"], [9, 9], 0.2),
        (["blue", "blue"], [9, 9], 0.2),
        (["blue ball", "blue hat"], [9, 9], -0.1),
        (["blue", "bluer"], [9, 11], -0.1),
    ],
)
def test_an_answer_that_begins_the_other_leaves_what_it_lacks_to_neither(answers, ids, left):
    """Of probabilities 0.8 and 0.3 the smaller is a part of the larger, or another's."""
    p_base, p_source = (0.3, 0.8) if answers == ["blue hat", "blue"] else (0.8, 0.3)
    runs = pd.DataFrame(
        {"example": "a", "run": [BASE, SOURCE], "answer": answers, "answer_id": ids}
    )
    enclosing = pd.Series([enclosing_answers(runs)["a"]])
    rows = pd.DataFrame({"p_base": [p_base], "p_source": [p_source]})
    assert probability_of_neither(rows, enclosing).tolist() == pytest.approx([left])
