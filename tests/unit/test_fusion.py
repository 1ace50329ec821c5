"""Where question and picture meet: kinds of places that are planted, and claims not to be made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import planted_study
import pytest
import torch
from planted import Plant, plant
from planted_study import PLACES, Asked, Population, make_population
from transformers import BlipForQuestionAnswering

from blip_tracing.drawing.analyses.fusion import effects_figure, kinds_figure, runs_figure
from blip_tracing.drawing.figures import save_figure
from blip_tracing.engine.cells import measure, score_run
from blip_tracing.meaning.analyses.fusion import (
    BOTH,
    ENDS,
    FUSED,
    INSTEAD,
    NEITHER,
    NOT_SHOWN,
    PICTURE,
    QUESTION,
    RESTORED,
    TOGETHER,
    analyse,
)
from blip_tracing.meaning.evidence import Evidence
from blip_tracing.meaning.summary import Rules
from blip_tracing.vocabulary.corruptions import PICTURE_STATES, QUESTION_EMBEDDINGS, Corruption
from blip_tracing.vocabulary.experiment import BASE, SOURCE, Experiment, Run
from blip_tracing.vocabulary.tables import NO_OP

SITE, LAYERS, ROLES = "encoder.block_input", 5, ("[CLS]", "word", "[SEP]")
UNSEEN = Corruption("multiplicative", PICTURE_STATES, (5.0,), 2, 1)
NOISY = Corruption("gaussian", QUESTION_EMBEDDINGS, (1.0, 5.0), 2, 0)
RUNS = {
    NEITHER: Run(BASE, BASE),
    QUESTION: Run("noisy", BASE, NOISY),
    PICTURE: Run("unseen", BASE, UNSEEN),
    BOTH: Run("lost", BASE, Corruption(*(NOISY.kind, NOISY.at, NOISY.levels, 2, 0), also=UNSEEN)),
}
EXPERIMENTS = {
    end: Experiment(f"restoring_{end}", RUNS[end], RUNS[NEITHER], (SITE,)) for end in ENDS
}
PRIMARY = {QUESTION: 1, PICTURE: 0, BOTH: 1}
RULES = Rules(total_effect=0.05, least_effect=0.02, resamples=400, seed=0)
# What each run gives the answer when nothing is restored: both parts are needed.
FLOORS = {NEITHER: 0.95, QUESTION: 0.1, PICTURE: 0.12, BOTH: 0.05}
# The scores that restoring a place gives where the question, the picture, or both are corrupted.
Place = tuple[int, str]
Scores = Mapping[Place, tuple[float, float, float]]
QUESTION_PART = (0.9, FLOORS[PICTURE], FLOORS[PICTURE])
PICTURE_PART = (FLOORS[QUESTION], 0.9, FLOORS[QUESTION])
ANSWER = (0.9, 0.9, 0.9)
PLANTED: Scores = {
    **dict.fromkeys(product([0, 1, 2], ["word"]), QUESTION_PART),
    (1, "[CLS]"): PICTURE_PART,
    **dict.fromkeys(product([2, 3, 4], ["[SEP]"]), ANSWER),
}


def study(
    folder: Path,
    restored: Scores = PLANTED,
    floors: Mapping[str, float] = FLOORS,
    pictures: int = 12,
    a_picture: int = 1,
    spread: float = 0.01,
    null: Callable[[np.ndarray], np.ndarray] = np.zeros_like,
    known: Mapping[str, list[Place]] | None = None,
    seed: int = 0,
) -> Evidence:
    """The tables of a study in which restoring places gives these scores, with some spread.

    Each picture has its own; what carries nothing leaves the floor. null: the change that an
    unrelated state makes, from the example's own; known: end → places that are no-ops there.
    """
    random = np.random.default_rng(seed)
    names = [f"e{number:02}" for number in range(pictures * a_picture)]
    shown = [f"p{number // a_picture:02}" for number in range(len(names))]
    own = {end: level + spread * random.normal(size=len(names)) for end, level in floors.items()}
    roles, cells = [], []
    for place, end in enumerate(ENDS):
        total = own[NEITHER] - own[end]
        told: dict[str, Any] = {
            "experiment": f"restoring_{end}", "site": SITE, "level": PRIMARY[end],
            "noise_level": 5.0, "example": names, "picture": shown, "group": "all",
            "included": total >= RULES.total_effect, "head": -1,
        }  # fmt: skip
        cells.append(
            pd.DataFrame(
                {**told, "reference": own[end], "total_effect": total, "one_answer": False}
            )
        )
        for layer, role in product(range(LAYERS), ROLES):
            score = restored.get((layer, role))
            change = spread * random.normal(size=len(names))
            if score is not None:
                change += score[place] - floors[end]
            is_known = (layer, role) in (known or {}).get(end, [])
            change = np.zeros(len(names)) if is_known else change
            roles.append(
                pd.DataFrame(
                    {
                        **told, "layer": layer, "token_role": role, "known": NO_OP * is_known,
                        "probability_change": change, "contrast": change - null(change),
                    }
                )
            )  # fmt: skip
    return evidence_of(folder, pd.concat(roles), pd.concat(cells), runs_of(names, own))


def evidence_of(
    folder: Path, roles: pd.DataFrame, cells: pd.DataFrame, runs: pd.DataFrame, rules: Rules = RULES
) -> Evidence:
    """What an analysis of these tables reads."""
    roles.to_parquet(folder / "role_means.parquet")
    cells.to_parquet(folder / "cell_means.parquet")
    return Evidence(
        {end: f"restoring_{end}" for end in ENDS},
        {each.name: each for each in EXPERIMENTS.values()},
        {f"restoring_{end}": PRIMARY[end] for end in ENDS},
        rules,
        [str(folder / "role_means.parquet")],
        [str(folder / "cell_means.parquet")],
        runs,
    )


PLANT = Plant(layer=2)


def runs_of(names: list[str], own: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """The table `runs`: two draws about each run's score; other levels than the primary mislead."""
    parts = []
    for end, run in RUNS.items():
        for level, draw in product(run.levels or [np.nan], range(run.draws)):
            p = own[end] + (0.03 if draw else -0.03) * bool(run.levels)
            p = np.full(len(names), 0.5) if level == 1 else p
            parts.append(
                pd.DataFrame(
                    {
                        "example": names, "run": run.name, "question": BASE, "noise_level": level,
                        "draw": draw, "p_base": p, "logit_base": 10 * p, "logit_source": 1.0,
                    }
                )
            )  # fmt: skip
    source = parts[0].assign(run=SOURCE, question=SOURCE, p_base=0.0)
    return pd.concat([*parts, source], ignore_index=True)


def kinds(table: pd.DataFrame) -> dict[Place, str]:
    """Each place that is said to carry something."""
    found = table[table["kind"] != NOT_SHOWN]
    places = zip(found["layer"], found["token_role"], strict=True)
    return dict(zip(places, found["kind"], strict=True))


def verdict(verdicts: pd.DataFrame, statement: str) -> pd.Series:
    (row,) = (row for _, row in verdicts.iterrows() if row["statement"] == statement)
    return row


def test_what_is_planted_is_found_and_nothing_else(tmp_path: Path) -> None:
    table, verdicts = analyse(study(tmp_path))
    named = {QUESTION_PART: QUESTION, PICTURE_PART: PICTURE, ANSWER: FUSED}
    assert kinds(table) == {place: named[scores] for place, scores in PLANTED.items()}
    counts = {"question": "3 of 15 places", "picture": "1 of 15 places", "fused": "3 of 15 places"}
    for kind, said in counts.items():
        assert verdict(verdicts, f"places: {kind}")["verdict"] == said
    assert verdict(verdicts, "first layer with a fused place")["value"] == 2
    onset = verdict(verdicts, "first layer with half of the most that is fused")
    assert list(onset[["value", "low", "high"]]) == [2, 2, 2]
    assert onset["verdict"] == "layer 2 in 100% of resamples"


def test_numbers_are_the_plain_means(tmp_path: Path) -> None:
    evidence = study(tmp_path)
    table, verdicts = analyse(evidence)
    rows = pd.read_parquet(tmp_path / "role_means.parquet")
    floors = pd.read_parquet(tmp_path / "cell_means.parquet").pivot(
        index="example", columns="experiment", values="reference"
    )
    floors.columns = floors.columns.str.removeprefix("restoring_")
    for place in table.itertuples():
        at = rows[(rows["layer"] == place.layer) & (rows["token_role"] == place.token_role)]
        change = at.pivot(index="example", columns="experiment", values="probability_change")
        change.columns = change.columns.str.removeprefix("restoring_")
        for end in ENDS:
            assert getattr(place, RESTORED[end]) == pytest.approx(change[end].mean())
        larger = floors[[QUESTION, PICTURE]].max(axis=1)
        beyond = change[BOTH] + floors[BOTH] - larger
        assert place.beyond == pytest.approx(beyond.mean())
        through = change[QUESTION] + change[PICTURE] - change[BOTH]
        assert place.interaction == pytest.approx(through.mean())
        for name in (*RESTORED.values(), "beyond", "interaction"):
            low, value, high = (getattr(place, f"{name}{end}") for end in ("_low", "", "_high"))
            assert low <= value <= high
    runs = evidence.runs
    chosen = runs[runs["noise_level"].isna() | (runs["noise_level"] == 5)]
    means = chosen.groupby("run")["p_base"].mean()
    for end, run in RUNS.items():
        told = verdict(verdicts, f"probability, {end} corrupted")
        assert told["value"] == pytest.approx(means[run.name])
        assert told["low"] <= told["value"] <= told["high"]
        told = verdict(verdicts, f"logit difference, {end} corrupted")
        assert told["value"] == pytest.approx(10 * means[run.name] - 1)
    expected = means[BASE] - means["noisy"] - means["unseen"] + means["lost"]
    found = verdict(verdicts, "interaction, probability")
    assert found["value"] == pytest.approx(expected)
    assert found["verdict"] == TOGETHER
    assert verdict(verdicts, "interaction, logit difference")["verdict"] == TOGETHER


def test_p_is_that_of_every_sign_flip(tmp_path: Path) -> None:
    """Of seven pictures all 128 are tried; the family is written out again, in a loop."""
    evidence = study(tmp_path, pictures=7, spread=0.1)
    table, _ = analyse(evidence)
    rows = pd.read_parquet(tmp_path / "role_means.parquet")
    floor = pd.read_parquet(tmp_path / "cell_means.parquet").groupby("experiment")["reference"]
    f = {end: floor.get_group(f"restoring_{end}").to_numpy() for end in ENDS}
    columns: dict[tuple[Place, str], np.ndarray] = {}
    for place in product(range(LAYERS), ROLES):
        at = rows[(rows["layer"] == place[0]) & (rows["token_role"] == place[1])]
        c = {end: at[at["experiment"] == f"restoring_{end}"].sort_values("example") for end in ENDS}
        change = {end: of["probability_change"].to_numpy() for end, of in c.items()}
        for end in ENDS:
            columns[place, end] = change[end] - 0.02
            columns[place, f"{end} null"] = c[end]["contrast"].to_numpy() - 0.02
        beyond = change[BOTH] + f[BOTH] - np.maximum(f[QUESTION], f[PICTURE])
        columns[place, "beyond"] = beyond - 0.02
        for end in (QUESTION, PICTURE):
            columns[place, f"half of {end}"] = change[BOTH] - change[end] / 2

    def t_of(values: np.ndarray) -> float:
        return float(values.mean() / (values.std(ddof=1) / np.sqrt(len(values))))

    largest = []
    for signs in product([1, -1], repeat=7):
        flipped = [abs(t_of(np.array(signs) * values)) for values in columns.values()]
        largest.append(max(flipped))
    for place in table.itertuples():
        each = [v for (where, _), v in columns.items() if where == (place.layer, place.token_role)]
        p = [
            np.mean([one >= t_of(v) * (1 - 1e-9) for one in largest]) if t_of(v) > 0 else 1
            for v in each
        ]
        assert place.p_fused == pytest.approx(max(p))


def test_parts_side_by_side_that_need_the_rest_are_not_fused(tmp_path: Path) -> None:
    """Each restores a little while the other part is clean elsewhere, and almost nothing alone."""
    floors = {NEITHER: 0.95, QUESTION: 0.05, PICTURE: 0.05, BOTH: 0.05}
    table, _ = analyse(study(tmp_path, {(2, "word"): (0.4, 0.4, 0.12)}, floors))
    assert kinds(table) == {}


def test_what_the_picture_alone_gives_is_not_fused(tmp_path: Path) -> None:
    """The question's noise hides half: a whole picture and a trace of the question do that much."""
    floors = {NEITHER: 0.95, QUESTION: 0.55, PICTURE: 0.05, BOTH: 0.05}
    table, _ = analyse(study(tmp_path, {(2, "[CLS]"): (0.65, 0.9, 0.55)}, floors))
    assert kinds(table) == {}


def test_of_a_picture_that_is_not_used_nothing_is_said(tmp_path: Path) -> None:
    """Its corruption changes nothing, and the question's is all there is to restore."""
    floors = {NEITHER: 0.95, QUESTION: 0.1, PICTURE: 0.95, BOTH: 0.1}
    restored = {(2, "word"): (0.9, 0.95, 0.9), (3, "[SEP]"): (0.9, 0.95, 0.9)}
    table, verdicts = analyse(study(tmp_path, restored, floors))
    assert kinds(table) == {}
    reason = "not tested: the corruption hid nothing (picture corrupted)"
    assert verdict(verdicts, "places")["verdict"] == reason
    assert not verdicts["statement"].str.startswith("first layer").any()
    for scale in ("probability", "logit difference"):
        assert verdict(verdicts, f"interaction, {scale}")["verdict"] == NOT_SHOWN


def test_of_noise_that_hides_nothing_nothing_is_said(tmp_path: Path) -> None:
    table, verdicts = analyse(study(tmp_path, {}, dict.fromkeys(FLOORS, 0.95), spread=1e-7))
    assert kinds(table) == {}
    assert "hid nothing" in verdict(verdicts, "places")["verdict"]
    for scale in ("probability", "logit difference"):
        assert verdict(verdicts, f"interaction, {scale}")["verdict"] == NOT_SHOWN


def test_what_any_state_does_is_carried_nowhere(tmp_path: Path) -> None:
    """All places are alike, and an unrelated example's state restores as much."""
    everywhere = dict.fromkeys(product(range(LAYERS), ROLES), ANSWER)
    table, verdicts = analyse(study(tmp_path, everywhere, null=np.copy))
    assert kinds(table) == {}
    assert verdict(verdicts, "places that the interaction goes through")["value"] == 0
    assert verdict(verdicts, "first layer with a fused place")["verdict"] == NOT_SHOWN


@pytest.mark.parametrize(("pictures", "a_picture"), [(5, 1), (5, 3)])
def test_below_six_pictures_nothing_is_tested(
    tmp_path: Path, pictures: int, a_picture: int
) -> None:
    table, verdicts = analyse(study(tmp_path, pictures=pictures, a_picture=a_picture))
    assert kinds(table) == {}
    ends = [f"{end}{which}" for end in RESTORED.values() for which in ("_low", "_high")]
    assert table[ends].isna().all(axis=None)
    reason = "not tested: fewer than six pictures"
    for statement in ("places", "interaction, probability", "interaction, logit difference"):
        assert verdict(verdicts, statement)["verdict"] == reason


def test_where_the_picture_cannot_be_it_is_not(tmp_path: Path) -> None:
    """Before the first block is what the question's words give, whatever the numbers."""
    first = [(0, role) for role in ROLES]
    restored = {(0, "word"): QUESTION_PART, (0, "[CLS]"): ANSWER, (2, "[SEP]"): ANSWER}
    evidence = study(tmp_path, restored, known={PICTURE: first})
    table, verdicts = analyse(evidence)
    assert kinds(table) == {(0, "word"): QUESTION, (0, "[CLS]"): QUESTION, (2, "[SEP]"): FUSED}
    assert table.loc[table["layer"] == 0, ["p_picture", "p_fused"]].isna().all(axis=None)
    assert verdict(verdicts, "places: fused")["verdict"] == "1 of 12 places"


@pytest.mark.parametrize(
    ("floors", "said"),
    [
        ({NEITHER: 0.9, QUESTION: 0.6, PICTURE: 0.5, BOTH: 0.2}, NOT_SHOWN),
        ({NEITHER: 0.9, QUESTION: 0.8, PICTURE: 0.8, BOTH: 0.1}, INSTEAD),
    ],
)
def test_an_interaction_is_of_more_or_less_than_the_sum(
    tmp_path: Path, floors: Mapping[str, float], said: str
) -> None:
    _, verdicts = analyse(study(tmp_path, {}, floors))
    assert verdict(verdicts, "interaction, probability")["verdict"] == said
    assert verdict(verdicts, "interaction, logit difference")["verdict"] == said


def test_places_that_carry_nothing_are_seldom_named(tmp_path: Path) -> None:
    """Of 40 studies at most 5 % and three standard errors of that have a place of any kind."""
    named, passed = 0, 0
    for seed in range(40):
        table, verdicts = analyse(study(tmp_path, {}, spread=0.05, pictures=8, seed=seed))
        named += bool(kinds(table))
        passed += verdict(verdicts, "places that the interaction goes through")["value"] > 0
    assert max(named, passed) <= 40 * 0.05 + 3 * np.sqrt(40 * 0.05 * 0.95)


def test_which_layer_is_first_is_as_uncertain_as_the_pictures(tmp_path: Path) -> None:
    """About half of the most is fused a layer before the others, give or take some."""
    early = {(1, "[SEP]"): (0.6, 0.6, 0.52), **dict.fromkeys(product([2, 3, 4], ["[SEP]"]), ANSWER)}
    table, verdicts = analyse(study(tmp_path, early, spread=0.05))
    assert kinds(table)[1, "[SEP]"] == FUSED
    onset = verdict(verdicts, "first layer with half of the most that is fused")
    assert (onset["low"], onset["high"]) == (1, 2)
    assert {"layer 1 in", "layer 2 in"} <= {part[:10] for part in onset["verdict"].split(", ")}


@pytest.mark.parametrize("pictures", [12, 5])
def test_figures_are_drawn_of_enough_pictures_and_of_few(tmp_path: Path, pictures: int) -> None:
    table, verdicts = analyse(study(tmp_path, pictures=pictures))
    drawn = {
        "runs": runs_figure(verdicts),
        "effects": effects_figure(table, ROLES),
        "kinds": kinds_figure(table, ROLES),
    }
    for name, figure in drawn.items():
        assert save_figure(figure, tmp_path / name)
    bars = "intervals" in drawn["runs"].labels.subtitle
    assert bars == (pictures >= 6)


def test_what_adds_up_has_no_interaction_to_go_through_a_place(tmp_path: Path) -> None:
    """Restoring the question brings back as much whatever the picture is."""
    floors = {NEITHER: 0.9, QUESTION: 0.6, PICTURE: 0.5, BOTH: 0.2}
    additive, both = {(1, "word"): (0.9, 0.5, 0.5)}, {(1, "word"): QUESTION_PART}
    for restored, place_floors, count in ((additive, floors, 0), (both, FLOORS, 1)):
        _, verdicts = analyse(study(tmp_path, restored, place_floors))
        assert verdict(verdicts, "places that the interaction goes through")["value"] == count


@torch.inference_mode()
def measured(population: Population) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """A planted miniature's `role_means`, `cell_means` and `runs`; no null, which helps claims."""
    roles, cells, runs = [], [], []
    scored = ["probability", "logit"]
    for of in population.batches():
        batch = population.batch(of)
        scores = {end: score_run(population.model, batch, run, scored) for end, run in RUNS.items()}
        names = [f"e{number:02}" for number in of]
        for end, run in RUNS.items():
            levels, draws = run.levels or [np.nan], range(run.draws)
            for row, example in enumerate(names):
                for (at, level), draw in product(enumerate(levels), draws):
                    own = {k: float(v[row, at, draw]) for k, v in scores[end].columns.items()}
                    told = {"example": example, "run": run.name, "noise_level": level}
                    runs.append({**told, "draw": draw, **own})
        for end, experiment in EXPERIMENTS.items():
            found = measure(population.model, batch, experiment, PLACES, 0, scored)
            for row, (number, example) in enumerate(zip(of, names, strict=True)):
                clean, floor = (
                    scores[which].columns["p_base"][row, at].mean().item()
                    for which, at in ((NEITHER, 0), (end, PRIMARY[end]))
                )
                told = {
                    "experiment": experiment.name, "site": SITE, "level": PRIMARY[end],
                    "noise_level": 5.0, "example": example, "picture": example, "group": "all",
                    "included": True, "head": -1,
                }  # fmt: skip
                total = {"reference": floor, "total_effect": clean - floor}
                cells.append({**told, **total, "one_answer": False})
                at_roles = np.array(population.pairs[number].roles)
                for layer, place in enumerate(PLACES):
                    p = found[place].cells.columns["p_base"][row].unflatten(0, (-1, 2))
                    change = p[PRIMARY[end]].mean(0).numpy() - floor
                    for role in dict.fromkeys(at_roles):
                        moved = float(change[at_roles == role].mean())
                        place_of = {"layer": layer, "token_role": role, "known": ""}
                        roles.append(
                            {**told, **place_of, "probability_change": moved, "contrast": moved}
                        )
    return pd.DataFrame(roles), pd.DataFrame(cells), pd.DataFrame(runs)


def blind(planted: Plant) -> BlipForQuestionAnswering:
    """A planted miniature into whose encoder nothing of the picture comes."""
    model = plant(planted)
    for layer in model.text_encoder.encoder.layer:
        for part in layer.crossattention.output.dense.parameters():
            part.data.zero_()
    return model


@pytest.fixture(scope="module")
def unseeing() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planted_study, "plant", blind)
        population = make_population(PLANT, Asked(8, (5.0,), 2, donors=1))
    return measured(population)


@pytest.mark.parametrize("total_effect", [0.05, -1.0])
def test_of_a_network_that_does_not_use_its_picture_no_fusion_is_claimed(
    tmp_path: Path,
    unseeing: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame],
    total_effect: float,
) -> None:
    """Though places carry the answer, and even where no total effect is too small to be tested."""
    evidence = evidence_of(tmp_path, *unseeing, replace(RULES, total_effect=total_effect))
    table, verdicts = analyse(evidence)
    assert not set(kinds(table).values()) & {PICTURE, FUSED}
    assert table["restored_question"].max() > 0.3
    for scale in ("probability", "logit difference"):
        assert verdict(verdicts, f"interaction, {scale}")["verdict"] == NOT_SHOWN
    if total_effect > 0:
        assert "hid nothing (picture" in verdict(verdicts, "places")["verdict"]
    else:
        found = kinds(table)
        assert found
        assert set(found) <= set(PLANT.carried_by().items())
