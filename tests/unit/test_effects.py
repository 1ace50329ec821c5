"""Effects, role means, exclusions and the summary, each against a plain loop over the rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import measure_effects
import numpy as np
import pandas as pd
import pytest
import summarize_effects

from blip_tracing.given.provenance import digests
from blip_tracing.machinery.tables import read_table, sort_rows, write_table
from blip_tracing.meaning.effects import (
    QUANTITIES,
    average_cells,
    average_draws,
    average_roles,
    by_level,
    classify,
    list_excluded,
    measure_cells,
)
from blip_tracing.meaning.roles import assign_roles
from blip_tracing.vocabulary.corruptions import KINDS, PLACES, Corruption
from blip_tracing.vocabulary.experiment import BASE, SOURCE, Experiment, Run, described
from blip_tracing.vocabulary.metrics import METRICS, columns_of
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.sites import SITES
from blip_tracing.vocabulary.tables import (
    CEILING,
    NO_OP,
    NULL,
    ONE_ANSWER,
    REASONS,
    SMALL_EFFECT,
    SMALL_RANGE,
    WITHOUT_NULL,
    WITHOUT_ROLE,
)

Tables = dict[str, pd.DataFrame]

LAYERS, DRAWS, NULL_DRAWS = 2, 3, 2
NOISE_LEVELS = (2.0, 0.5)
THRESHOLD = 0.05
SITE = next(iter(SITES))
SCORES = columns_of(METRICS)
BASE_RUN, SOURCE_RUN = Run(BASE, BASE), Run(SOURCE, SOURCE)
NOISY = Run(
    "noisy", BASE, Corruption(next(iter(KINDS)), next(iter(PLACES)), NOISE_LEVELS, DRAWS, seed=0)
)
EXPERIMENTS = {
    "patching": Experiment("patching", BASE_RUN, SOURCE_RUN, (SITE,)),
    "tracing": Experiment("tracing", NOISY, BASE_RUN, (SITE,)),
    "noising": Experiment("noising", BASE_RUN, NOISY, (SITE,)),
}
RULES = [
    {"role": "start", "token": r"\[CLS\]"},
    {"role": "before noun", "before": "noun"},
    {"role": "noun", "pair": "differs"},
    {"role": "end", "token": r"\[SEP\]"},
]
# What makes each example special: see `make_tables`. Questions of unequal lengths and roles.
QUESTIONS = {
    "plain": ("what is the dog", "what is the cat"),
    "small": ("the big dog here", "the big cat here"),
    "alone": ("dog", "cat"),
    "same": ("is it a dog", "is it a cat"),
    "close": ("a dog", "a cat"),
}
# The files of a shard's runs.
RUN_FILES = ("clean", NOISY.name)
AVERAGED = ["probability_change", "log_probability_change", "logit_difference", "normalised",
            "null_change", "contrast"]  # fmt: skip


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
    same: both its questions have one answer; close: the logits of its runs hardly differ.
    The null of a corrupted experiment is measured at the first draws only.
    """
    tables: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("runs", "tokens", *EXPERIMENTS, "controls")
    }
    for example in examples:
        random = np.random.default_rng(list(example.encode()))

        scores = partial(made_up_scores, example, random)
        small = example == "small"
        questions = dict(zip((BASE, SOURCE), map(tokens_of, QUESTIONS[example]), strict=True))
        ids = {BASE: 1, SOURCE: 1 if example == "same" else 2}
        for question, chances in ((BASE, (0.8, 0.1)), (SOURCE, (0.1, 0.12 if small else 0.7))):
            tables["runs"].append(
                {"example": example, "run": question, "answer_id": ids[question],
                 **scores(*chances)}
            )  # fmt: skip
            tables["tokens"] += [
                {"example": example, "question": question, "position": position, "token": token}
                for position, token in enumerate(questions[question])
            ]
        for level, draw in product(NOISY.levels, range(NOISY.draws)):
            corrupted = 0.79 if small else random.uniform(0.1, 0.3)
            tables["runs"].append(
                {"example": example, "run": NOISY.name, "noise_level": level, "draw": draw,
                 "answer_id": ids[BASE], **scores(corrupted, 0.2)}
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
                        if example != "alone" and at.get("draw", 0) < NULL_DRAWS:
                            null = {"control": NULL, "donor": "other", "difference": math.nan}
                            tables["controls"].append(
                                {**of_experiment, **null, **cell, **at,
                                 **scores(random.random(), 0.2)}
                            )  # fmt: skip
    frames = {name: pd.DataFrame(rows) for name, rows in tables.items()}
    whole = dict.fromkeys(("draw", "position"), "Int32")
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
    nulls = by(
        controls[(controls["control"] == NULL) & (controls["experiment"] == experiment.name)], *cell
    )
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
        null = nulls.get(tuple(getattr(row, name) for name in cell))
        change = p(row, followed) - p(reference, followed)
        contrast = p(row, followed) - p(null, followed) if null else math.nan
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
                "logit_difference": difference(row),
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


def below_threshold(draw: dict[str, Any]) -> bool:
    return draw["sign"] * draw["total_effect"] < THRESHOLD


def mean(values: list[float]) -> float:
    """The mean of those that are there; NaN where none is."""
    there = [value for value in values if not math.isnan(value)]
    return sum(there) / len(there) if there else math.nan


def same(found: float, expected: float) -> bool:
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
    return classify(cells, assign_roles(tables["tokens"], RULES), THRESHOLD)


@pytest.fixture(scope="module")
def cells(tables: Tables, experiment: Experiment) -> pd.DataFrame:
    return cells_of(tables, experiment)


@pytest.fixture(scope="module")
def effects(cells: pd.DataFrame) -> pd.DataFrame:
    return average_draws(cells)


@pytest.fixture(scope="module")
def means(cells: pd.DataFrame) -> pd.DataFrame:
    """Both tables of means, that over all cells under the role "all" of a layer -1."""
    return joined_means(average_roles(cells), average_cells(cells))


def joined_means(role_means: pd.DataFrame, cell_means: pd.DataFrame) -> pd.DataFrame:
    whole = cell_means.assign(layer=-1, token_role=ALL)
    return pd.concat([role_means, whole], ignore_index=True)


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
    assert roles.tolist() == ["start", "before noun", "before noun", "noun", "", "end"]


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


def test_a_role_mean_is_over_its_positions_draw_by_draw(
    means: pd.DataFrame, draws: list[dict[str, Any]], tables: Tables
) -> None:
    roles = assign_roles(tables["tokens"], RULES).set_index(["example", "position"])["token_role"]
    of_role: dict[tuple, list[dict[str, Any]]] = {}
    for d in draws:
        level = "none" if math.isnan(d["noise_level"]) else d["noise_level"]
        role = roles[d["example"], d["position"]]
        draw = (d["example"], level, d["draw"])
        of_role.setdefault((*draw, -1, ALL), []).append(d)
        if role:
            of_role.setdefault((*draw, d["layer"], role), []).append(d)
    assert len(means) == len(of_role)
    for row in rows_of(means):
        level = "none" if math.isnan(row.noise_level) else row.noise_level
        members = of_role[row.example, level, row.draw, row.layer, row.token_role]
        excluded = below_threshold(members[0])
        for quantity in QUANTITIES:
            values = [d[quantity] for d in members]
            if quantity == "normalised" and excluded:
                values = [math.nan]
            assert same(getattr(row, quantity), mean(values)), quantity


def test_a_draw_without_a_null_has_no_contrast(means: pd.DataFrame, experiment: Experiment) -> None:
    plain = means[means["example"] == "plain"]
    with_null = sorted(set(plain.loc[plain["contrast"].notna(), "draw"]))
    assert with_null == list(range(min(NULL_DRAWS, experiment.draws)))


def test_what_is_left_out_is_listed_with_its_reason(
    effects: pd.DataFrame, draws: list[dict[str, Any]], tables: Tables, experiment: Experiment
) -> None:
    excluded = list_excluded(effects, tables["runs"])
    levels = list(experiment.levels) or [math.nan]
    expected = []
    for example, (question, _) in QUESTIONS.items():
        for level in levels:
            first = next(
                d for d in draws
                if d["example"] == example and (math.isnan(level) or d["noise_level"] == level)
            )  # fmt: skip
            rows = LAYERS * len(tokens_of(question))
            reasons = {
                SMALL_EFFECT: (below_threshold(first), rows, first["total_effect"]),
                ONE_ANSWER: (example == "same", rows, math.nan),
                SMALL_RANGE: (example == "close", rows, first["logit_range"]),
                WITHOUT_ROLE: (example == "small", LAYERS, math.nan),
                WITHOUT_NULL: (example == "alone", rows, math.nan),
            }
            expected += [
                (example, experiment.name, SITE, level, rows, reason, value)
                for reason, (holds, rows, value) in reasons.items()
                if holds
            ]
    order = ["example", "noise_level", "reason"]
    names = ["example", "experiment", "site", "noise_level", "rows", "reason", "value"]
    assert excluded.columns.tolist() == names
    assert {"small", "same", "close", "alone"} == set(excluded["example"])
    pd.testing.assert_frame_equal(
        excluded.sort_values(order, ignore_index=True),
        pd.DataFrame(expected, columns=names).sort_values(order, ignore_index=True),
        check_dtype=False,
    )


def test_what_is_left_out_stands_in_one_order_however_levels_share_jobs(
    effects: pd.DataFrame, tables: Tables
) -> None:
    parts = [part for _, part in effects.groupby("noise_level", sort=False, dropna=False)]
    orders = {"example": list(QUESTIONS), "reason": list(REASONS)}
    one, several = (
        sort_rows(
            pd.concat([list_excluded(part, tables["runs"]) for part in jobs], ignore_index=True),
            orders,
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
        "runs": [str(folder / f"runs-{name}.parquet") for name in RUN_FILES],
    }
    write_table(tables["tokens"], written["tokens"])
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
            input=Files(**written, facts=[str(facts)]),
            output=output,
            params=SimpleNamespace(
                experiments={name: described(EXPERIMENTS[name]) for name in experiments},
                cells=cells,
                roles=RULES,
                total_effect=THRESHOLD,
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
            tables["controls"] = tables["controls"].query("control != @NULL")
        measured.append(measure(folder / "-".join(shard), tables, experiments))
        runs += [str(folder / "-".join(shard) / f"runs-{name}.parquet") for name in RUN_FILES]
    facts = folder / "runs.json"
    facts.write_text(json.dumps({"model": "miniature", "files": digests(runs)}))
    output = Files(
        summary=str(folder / "summary.csv"),
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
                corrupted={name: bool(EXPERIMENTS[name].corrupted) for name in experiments},
                runs=[described(run) for run in (BASE_RUN, NOISY)],
                resamples=200,
                seed=0,
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
    made = summary_file.parent / "-".join(QUESTIONS)
    return joined_means(
        *(read_table(made / f"made-{name}.parquet") for name in ("role_means", "cell_means"))
    )


def test_the_summary_is_the_mean_over_examples_of_their_means_over_draws(
    summary: pd.DataFrame, all_means: pd.DataFrame
) -> None:
    names = ["experiment", "site", "noise_level", "layer", "token_role"]
    # A key that equals itself: NaN does not.
    found = by(summary.fillna({"noise_level": -1, "layer": -1}), *names, "quantity")
    values: dict[tuple, dict[str, list[float]]] = {}
    for row in rows_of(all_means.fillna({"noise_level": -1})):
        for quantity in QUANTITIES:
            value = getattr(row, quantity)
            if not math.isnan(value):
                key = (*(getattr(row, name) for name in names), quantity)
                values.setdefault(key, {}).setdefault(row.example, []).append(value)
    assert found.keys() == values.keys()
    for key, by_example in values.items():
        check_mean(found[key], by_example)


def check_mean(row: Any, by_example: dict[str, list[float]]) -> None:
    """A row of a summary is of these examples' values at their draws."""
    draws = {len(draws) for draws in by_example.values()}
    assert same(row.mean, mean([mean(draws) for draws in by_example.values()]))
    assert (row.examples, {row.draws}) == (len(by_example), draws)
    if (row.examples, row.draws) == (1, 1):
        assert math.isnan(row.low)
        assert math.isnan(row.high)
    else:
        assert row.low <= row.mean <= row.high


def test_runs_without_intervention_have_the_mean_of_their_probability(
    summary_file: Path, tables: Tables
) -> None:
    found = by(read_table(summary_file.with_name("run_means.csv")).fillna(-1), "run", "noise_level")
    values: dict[tuple, dict[str, list[float]]] = {}
    for row in rows_of(tables["runs"].query("run != @SOURCE").fillna({"noise_level": -1})):
        of_run = values.setdefault((row.run, row.noise_level), {})
        of_run.setdefault(row.example, []).append(p(row, BASE))
    assert found.keys() == values.keys()
    for key, by_example in values.items():
        check_mean(found[key], by_example)
        assert found[key].low >= 0
        assert found[key].high <= 1


def test_the_normalised_mean_leaves_out_examples_below_the_threshold(
    summary: pd.DataFrame,
) -> None:
    over_all = summary[(summary["token_role"] == ALL) & (summary["experiment"] == "patching")]
    examples = over_all.set_index("quantity")["examples"]
    assert examples["probability"] == len(QUESTIONS)
    assert examples["contrast"] == len(QUESTIONS) - len(["alone"])
    assert examples["normalised"] == len(QUESTIONS) - len(["small", "same", "close"])


def test_intervals_end_where_the_quantity_does(summary: pd.DataFrame) -> None:
    """With so few examples they would reach far beyond."""
    for quantity, (least, most) in summarize_effects.RANGES.items():
        chosen = summary[summary["quantity"] == quantity]
        assert chosen["low"].min() >= least
        assert chosen["high"].max() <= most


def test_contrasts_of_layers_and_roles_are_tested_and_nothing_else(summary: pd.DataFrame) -> None:
    """At most 2 to the power of 5 sign flips are there, so that many sizes of p."""
    contrasts = summary["quantity"] == "contrast"
    tested = contrasts & summary["layer"].notna()
    assert summary.loc[contrasts, "against"].unique().tolist() == ["null"]
    assert (summary.loc[~contrasts, "against"] == "").all()
    assert summary.loc[tested, ["t", "p_family"]].notna().all(axis=None)
    assert summary.loc[~tested, ["t", "p_family"]].isna().all(axis=None)
    assert (summary.loc[tested, "p_family"] * 2**5 % 1 == 0).all()


def test_without_any_null_corrupted_experiments_are_contrasted_with_the_floor(
    tmp_path: Path,
) -> None:
    found = read_table(summarize(tmp_path, [tuple(QUESTIONS)], with_null=False))
    contrasts = found[found["quantity"] == "contrast"].reset_index(drop=True)
    changes = found[found["quantity"] == "probability_change"]
    corrupted = [name for name, asked in EXPERIMENTS.items() if asked.corrupted]
    traced = changes[changes["experiment"].isin(corrupted)].reset_index(drop=True)
    assert set(contrasts["experiment"]) == set(corrupted)
    assert set(contrasts["against"]) == {"floor"}
    assert contrasts["mean"].tolist() == traced["mean"].tolist()
    for name in corrupted:
        assert contrasts.loc[contrasts["experiment"] == name, "p_family"].notna().any()


@pytest.mark.parametrize(
    "shards",
    [
        [("plain", "small"), ("alone", "same"), ("close",)],
        [("close", "same", "alone"), ("small", "plain")],
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


def test_layers_of_several_files_give_the_same_means_as_one_file(
    tmp_path: Path, tables: Tables
) -> None:
    """The mean over all cells is over the layers of all jobs, whichever did them."""
    roles = assign_roles(tables["tokens"], RULES)
    made = []
    for layers_per_job in (LAYERS, 1):
        folder = tmp_path / str(layers_per_job)
        _, cells = write_parts(folder, tables, ["patching"], layers_per_job)
        assert len(cells["patching"]) == LAYERS // layers_per_job
        asked = {"patching": described(EXPERIMENTS["patching"])}
        (measured,) = measure_effects.measure_shard(asked, cells, tables["runs"])
        classified = classify(measured, roles, THRESHOLD)
        made.append(joined_means(average_roles(classified), average_cells(classified)))
    one, several = (
        table.sort_values(["example", "layer", "token_role"], ignore_index=True) for table in made
    )
    pd.testing.assert_frame_equal(several, one, rtol=1e-12)


def test_the_effects_are_one_table_of_all_jobs(summary_file: Path, tables: Tables) -> None:
    made = summary_file.parent / "-".join(QUESTIONS)
    effects = read_table(made / "made-effects.parquet")
    assert list(effects["experiment"].unique()) == list(EXPERIMENTS)
    for name, experiment in EXPERIMENTS.items():
        expected = average_draws(cells_of(tables, experiment))[effects.columns]
        keys = ["example", "noise_level", "layer", "position"]
        pd.testing.assert_frame_equal(
            effects[effects["experiment"] == name].sort_values(keys, ignore_index=True),
            expected.sort_values(keys, ignore_index=True),
        )
    assert set(read_table(made / "made-excluded.csv")["reason"]) == set(REASONS)


def test_what_was_made_vouches_for_its_files(summary_file: Path) -> None:
    made = summary_file.parent / "-".join(QUESTIONS)
    facts = json.loads((made / "made-facts.json").read_text())
    assert {Path(path).name for path in facts["files"]} == {
        "made-effects.parquet", "made-role_means.parquet", "made-cell_means.parquet",
        "made-excluded.csv",
    }  # fmt: skip
    assert (facts["model"], facts["roles"]) == ("miniature", RULES)
    summary_facts = json.loads(summary_file.with_suffix(".json").read_text())
    assert summary_facts["resamples"] == 200
    assert [Path(path).name for path in summary_facts["files"]] == ["summary.csv", "run_means.csv"]
