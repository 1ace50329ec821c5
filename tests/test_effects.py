"""Effects, role means, exclusions and the summary, each against a plain loop over the rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import measure_effects
import numpy as np
import pandas as pd
import pytest
import summarize_effects

from blip_tracing.effects import (
    ONE_ANSWER,
    QUANTITIES,
    SMALL_EFFECT,
    SMALL_RANGE,
    WITHOUT_NULL,
    WITHOUT_ROLE,
    average_draws,
    average_roles,
    classify,
    join_excluded,
    list_excluded,
    list_runs,
    patching_cells,
    tracing_cells,
)
from blip_tracing.provenance import digests
from blip_tracing.roles import assign_roles
from blip_tracing.tables import read_table, sort_examples, write_table

Tables = dict[str, pd.DataFrame]

LAYERS, DRAWS, NULL_DRAWS = 2, 3, 2
NOISE_LEVELS = (0.5, 2.0)
THRESHOLD = 0.05
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
    The null is traced at the first draws only.
    """
    tables: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("answers", "tokens", "patching", "tracing", "floor", "controls")
    }
    for example in examples:
        random = np.random.default_rng(list(example.encode()))

        scores = partial(made_up_scores, example, random)
        small = example == "small"
        base, source = map(tokens_of, QUESTIONS[example])
        for role, tokens, chances in (
            ("base", base, (0.8, 0.1)), ("source", source, (0.1, 0.12 if small else 0.7))
        ):  # fmt: skip
            answer_id = 1 if example == "same" or role == "base" else 2
            tables["answers"].append(
                {"example": example, "role": role, "answer_id": answer_id, **scores(*chances)}
            )
            tables["tokens"] += [
                {"example": example, "role": role, "position": position, "token": token}
                for position, token in enumerate(tokens)
            ]
        draws = [(level, draw) for level in NOISE_LEVELS for draw in range(DRAWS)]
        for level, draw in draws:
            corrupted = 0.79 if small else random.uniform(0.1, 0.3)
            tables["floor"].append(
                {"example": example, "noise_level": level, "sample": draw, **scores(corrupted, 0.2)}
            )
        for layer in range(LAYERS):
            for position, token in enumerate(base):
                place = {"example": example, "site": "block_input", "layer": layer,
                         "position": position}  # fmt: skip
                words = {"token": token, "source_token": source[position]}
                null = {"control": "null", "donor": "other", "difference": math.nan}
                tables["patching"].append(
                    {**place, **words, **scores(random.uniform(0.1, 0.8), random.uniform(0.1, 0.7))}
                )
                patched_null = {"experiment": "patching", "noise_level": math.nan, "sample": None}
                if example != "alone":
                    tables["controls"].append(
                        {**place, **null, **patched_null, **scores(random.random(), 0.2)}
                    )
                for level, draw in draws:
                    at = {**place, "noise_level": level, "sample": draw}
                    tables["tracing"].append(
                        {**at, "token": token, **scores(random.uniform(0.1, 0.8), 0.1)}
                    )
                    if example != "alone" and draw < NULL_DRAWS:
                        tables["controls"].append(
                            {**at, **null, "experiment": "tracing", **scores(random.random(), 0.1)}
                        )
        for experiment, control in (("patching", "ceiling"), ("tracing", "no_op")):
            tables["controls"].append(
                {"example": example, "site": "block_input", "experiment": experiment,
                 "control": control, "layer": 0, "position": None, **scores(0.5, 0.5)}
            )  # fmt: skip
    frames = {name: pd.DataFrame(rows) for name, rows in tables.items()}
    whole = dict.fromkeys(("sample", "position"), "Int32")
    frames["controls"] = frames["controls"].astype(whole)
    return frames


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


def expected_draws(tables: Tables, experiment: str) -> list[dict[str, Any]]:
    """What each draw of each cell should be, by the definitions, one row after another."""
    answers = by(tables["answers"], "example", "role")
    floors = by(tables["floor"], "example", "noise_level", "sample")
    controls = tables["controls"].query("control == 'null' and experiment == @experiment")
    cell = ["example", "layer", "position"]
    nulls = by(controls, *cell, *(["noise_level", "sample"] if experiment == "tracing" else []))
    expected = []
    for row in rows_of(tables[experiment]):
        at: tuple = (row.example, row.layer, row.position)
        if experiment == "patching":
            followed, level, draw = "source", math.nan, -1
            reference = answers[row.example, "base"]
            references = [reference]
        else:
            followed, level, draw = "base", row.noise_level, row.sample
            reference = floors[row.example, level, draw]
            references = [floors[row.example, level, n] for n in range(DRAWS)]
            at = (*at, level, draw)
        target, null = answers[row.example, followed], nulls.get(at)
        change = p(row, followed) - p(reference, followed)
        contrast = p(row, followed) - p(null, followed) if null else math.nan
        span = difference(target) - mean([difference(run) for run in references])
        moved = difference(row) - difference(reference)
        expected.append(
            {
                "example": row.example,
                "noise_level": level,
                "sample": draw,
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
                "total_effect": p(target, followed)
                - mean([p(run, followed) for run in references]),
                "logit_range": span,
            }
        )
    return expected


def mean(values: list[float]) -> float:
    """The mean of those that are there; NaN where none is."""
    there = [value for value in values if not math.isnan(value)]
    return sum(there) / len(there) if there else math.nan


def same(found: float, expected: float) -> bool:
    return found == pytest.approx(expected, rel=1e-8, abs=1e-9, nan_ok=True)


@pytest.fixture(scope="module")
def tables() -> Tables:
    return make_tables()


@pytest.fixture(scope="module", params=["patching", "tracing"])
def experiment(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def draws(tables: Tables, experiment: str) -> list[dict[str, Any]]:
    return expected_draws(tables, experiment)


def cells_of(tables: Tables, experiment: str) -> pd.DataFrame:
    controls = tables["controls"][tables["controls"]["experiment"] == experiment]
    if experiment == "patching":
        cells = patching_cells(tables["patching"], controls, tables["answers"])
    else:
        cells = tracing_cells(tables["tracing"], tables["floor"], controls, tables["answers"])
    return classify(cells, assign_roles(tables["tokens"], RULES), THRESHOLD)


@pytest.fixture(scope="module")
def cells(tables: Tables, experiment: str) -> pd.DataFrame:
    return cells_of(tables, experiment)


@pytest.fixture(scope="module")
def effects(cells: pd.DataFrame) -> pd.DataFrame:
    return average_draws(cells)


@pytest.fixture(scope="module")
def role_means(cells: pd.DataFrame) -> pd.DataFrame:
    return average_roles(cells)


def test_an_effect_is_the_mean_of_its_draws(
    effects: pd.DataFrame, draws: list[dict[str, Any]], experiment: str
) -> None:
    places = {(d["example"], d["noise_level"], d["layer"], d["position"]) for d in draws}
    assert len(effects) == len(places) > 0
    for row in rows_of(effects):
        of_cell = [
            d for d in draws
            if (d["example"], d["layer"], d["position"]) == (row.example, row.layer, row.position)
            and (math.isnan(row.noise_level) or d["noise_level"] == row.noise_level)
        ]  # fmt: skip
        assert len(of_cell) == (1 if experiment == "patching" else DRAWS)
        for quantity in AVERAGED:
            assert same(getattr(row, quantity), mean([d[quantity] for d in of_cell])), quantity
        assert same(row.total_effect, of_cell[0]["total_effect"])
        assert row.below_threshold == (of_cell[0]["total_effect"] < THRESHOLD)
        assert row.token == of_cell[0]["token"]
        assert (row.experiment, row.site) == (experiment, "block_input")


def test_each_position_has_its_role(effects: pd.DataFrame) -> None:
    small = effects[(effects["example"] == "small") & (effects["layer"] == 0)]
    roles = small.drop_duplicates("position").sort_values("position")["role"]
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
        tables["answers"].query("example == 'plain' and role == @role").iloc[0]
        for role in ("base", "source")
    )
    scores = ["p_base", "p_source", "logit_base", "logit_source"]
    patching = tables["patching"].query("example == 'plain'").iloc[:2].reset_index(drop=True)
    patching.loc[0, scores], patching.loc[1, scores] = base[scores], source[scores]
    found = patching_cells(patching, tables["controls"].iloc[:0], tables["answers"])
    assert found["normalised"].tolist() == pytest.approx([0, 1])


def test_a_probability_of_0_has_a_logarithm(tables: Tables) -> None:
    least = float(np.finfo(np.float32).tiny)
    patching = tables["patching"].iloc[:1].assign(p_source=np.float32(0))
    found = patching_cells(patching, tables["controls"].iloc[:0], tables["answers"]).iloc[0]
    expected = math.log(least) - math.log(found["reference_probability"])
    assert found["log_probability_change"] == pytest.approx(expected)


def test_a_role_mean_is_over_its_positions_draw_by_draw(
    role_means: pd.DataFrame, draws: list[dict[str, Any]], tables: Tables
) -> None:
    roles = assign_roles(tables["tokens"], RULES).set_index(["example", "position"])["role"]
    of_role: dict[tuple, list[dict[str, Any]]] = {}
    for d in draws:
        level = "none" if math.isnan(d["noise_level"]) else d["noise_level"]
        role = roles[d["example"], d["position"]]
        draw = (d["example"], level, d["sample"])
        of_role.setdefault((*draw, -1, "all"), []).append(d)
        if role:
            of_role.setdefault((*draw, d["layer"], role), []).append(d)
    assert len(role_means) == len(of_role)
    for row in rows_of(role_means):
        level = "none" if math.isnan(row.noise_level) else row.noise_level
        members = of_role[row.example, level, row.sample, row.layer, row.role]
        excluded = members[0]["total_effect"] < THRESHOLD
        for quantity in QUANTITIES:
            values = [d[quantity] for d in members]
            if quantity == "normalised" and excluded:
                values = [math.nan]
            assert same(getattr(row, quantity), mean(values)), quantity


def test_a_draw_without_a_null_has_no_contrast(role_means: pd.DataFrame, experiment: str) -> None:
    plain = role_means[role_means["example"] == "plain"]
    with_null = sorted(set(plain.loc[plain["contrast"].notna(), "sample"]))
    assert with_null == ([-1] if experiment == "patching" else list(range(NULL_DRAWS)))


def test_what_is_left_out_is_listed_with_its_reason(
    effects: pd.DataFrame, draws: list[dict[str, Any]], tables: Tables, experiment: str
) -> None:
    excluded = list_excluded(effects, tables["answers"])
    levels = [math.nan] if experiment == "patching" else list(NOISE_LEVELS)
    expected = []
    for example, (question, _) in QUESTIONS.items():
        for level in levels:
            first = next(
                d for d in draws
                if d["example"] == example and (math.isnan(level) or d["noise_level"] == level)
            )  # fmt: skip
            rows = LAYERS * len(tokens_of(question))
            reasons = {
                SMALL_EFFECT: (first["total_effect"] < THRESHOLD, rows, first["total_effect"]),
                ONE_ANSWER: (example == "same", rows, math.nan),
                SMALL_RANGE: (example == "close", rows, first["logit_range"]),
                WITHOUT_ROLE: (example == "small", LAYERS, math.nan),
                WITHOUT_NULL: (example == "alone", rows, math.nan),
            }
            expected += [
                (example, experiment, "block_input", level, rows, reason, value)
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
    by_level = [part for _, part in effects.groupby("noise_level", sort=False, dropna=False)]
    one, several = (
        sort_examples(
            join_excluded([list_excluded(part, tables["answers"]) for part in parts]),
            list(QUESTIONS),
        )
        for parts in ([effects], by_level)
    )
    pd.testing.assert_frame_equal(several, one)


def test_runs_without_intervention_are_their_probability_alone(tables: Tables) -> None:
    runs = list_runs(tables["answers"], [tables["floor"]])
    assert (runs["site"] == "").all()
    assert (runs["layer"] == -1).all()
    assert (runs["role"] == "all").all()
    assert runs[QUANTITIES[1:]].isna().all(axis=None)
    draw = ["example", "noise_level", "sample"]
    floor, expected = by(runs.query("experiment == 'floor'"), *draw), by(tables["floor"], *draw)
    assert {key: row.probability for key, row in floor.items()} == {
        key: row.p_base for key, row in expected.items()
    }
    clean = by(runs.query("experiment == 'clean'"), "example", "sample")
    answers = by(tables["answers"], "example", "role")
    assert {key: row.probability for key, row in clean.items()} == {
        (example, -1): answers[example, "base"].p_base for example in QUESTIONS
    }


# --- the jobs


class Files(list):
    """A job's files, by name and as a list, as Snakemake hands them over."""

    def __init__(self, **named: str | list[str]) -> None:
        self.named = named
        for paths in named.values():
            self.extend([paths] if isinstance(paths, str) else paths)

    def __getattr__(self, name: str) -> Any:
        return self.named[name]


def write_parts(folder: Path, tables: Tables, layers: int, noise_levels: int) -> dict[str, Any]:
    """Write a shard's tables as the experiments' jobs do: one job a layer and a noise level."""
    folder.mkdir(parents=True)
    controls = tables["controls"]
    jobs = {
        "patching": (tables["patching"], "layer", range(layers)),
        "patching_controls": (controls.query("experiment == 'patching'"), "layer", range(layers)),
        "tracing": (tables["tracing"], "noise_level", NOISE_LEVELS[:noise_levels]),
        "tracing_controls": (
            controls.query("experiment == 'tracing'"), "noise_level", NOISE_LEVELS[:noise_levels]
        ),
        "floor": (tables["floor"], "noise_level", NOISE_LEVELS[:noise_levels]),
    }  # fmt: skip
    written: dict[str, Any] = {name: str(folder / f"{name}.csv") for name in ("answers", "tokens")}
    for name, path in written.items():
        write_table(tables[name], path)
    for name, (table, axis, parts) in jobs.items():
        written[name] = [str(folder / f"{name}-{part}.parquet") for part in parts]
        for path, part in zip(written[name], parts, strict=True):
            write_table(table[table[axis] == part], path)
    return written


def measure(folder: Path, tables: Tables, layers: int, noise_levels: int) -> Files:
    """Run the job of one shard."""
    written = write_parts(folder, tables, layers, noise_levels)
    facts = folder / "facts.json"
    facts.write_text(json.dumps({"model": "miniature", "files": digests(Files(**written))}))
    names = {"effects": "parquet", "role_means": "parquet", "excluded": "csv", "facts": "json"}
    output = Files(
        **{name: str(folder / f"made-{name}.{suffix}") for name, suffix in names.items()}
    )
    measure_effects.main(
        SimpleNamespace(
            input=Files(**written, facts=[str(facts)]),
            output=output,
            params=SimpleNamespace(roles=RULES, total_effect=THRESHOLD),
            log=[str(folder / "measure.log")],
        )
    )
    return output


def summarize(
    folder: Path,
    shards: list[tuple[str, ...]],
    layers: int = LAYERS,
    noise_levels: int = len(NOISE_LEVELS),
    with_null: bool = True,
) -> Path:
    """Run the jobs of all shards, then the summary's: its path."""
    measured = []
    for shard in shards:
        tables = make_tables(shard)
        if not with_null:
            tables["controls"] = tables["controls"].query("control != 'null'")
        measured.append(measure(folder / "-".join(shard), tables, layers, noise_levels))
    output = Files(summary=str(folder / "summary.csv"), facts=str(folder / "summary.json"))
    summarize_effects.main(
        SimpleNamespace(
            input=Files(
                role_means=[files.role_means for files in measured],
                facts=[files.facts for files in measured],
            ),
            output=output,
            params=SimpleNamespace(resamples=200, seed=0),
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
def all_role_means(summary_file: Path) -> pd.DataFrame:
    return read_table(summary_file.parent / "-".join(QUESTIONS) / "made-role_means.parquet")


def test_the_summary_is_the_mean_over_examples_of_their_means_over_draws(
    summary: pd.DataFrame, all_role_means: pd.DataFrame
) -> None:
    names = ["experiment", "site", "noise_level", "layer", "role"]
    # A key that equals itself: NaN does not.
    found = by(summary.fillna({"site": "", "noise_level": -1, "layer": -1}), *names, "quantity")
    values: dict[tuple, dict[str, list[float]]] = {}
    for row in rows_of(all_role_means.fillna({"noise_level": -1})):
        for quantity in QUANTITIES:
            value = getattr(row, quantity)
            if not math.isnan(value):
                key = (*(getattr(row, name) for name in names), quantity)
                values.setdefault(key, {}).setdefault(row.example, []).append(value)
    assert found.keys() == values.keys()
    for key, by_example in values.items():
        row, draws = found[key], {len(draws) for draws in by_example.values()}
        assert same(row.mean, mean([mean(draws) for draws in by_example.values()]))
        assert (row.examples, {row.draws}) == (len(by_example), draws)
        if (row.examples, row.draws) == (1, 1):
            assert math.isnan(row.low)
            assert math.isnan(row.high)
        else:
            assert row.low <= row.mean <= row.high


def test_the_normalised_mean_leaves_out_examples_below_the_threshold(
    summary: pd.DataFrame,
) -> None:
    over_all = summary[(summary["role"] == "all") & (summary["experiment"] == "patching")]
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


def test_traces_without_any_null_are_contrasted_with_the_floor(tmp_path: Path) -> None:
    found = read_table(summarize(tmp_path, [tuple(QUESTIONS)], with_null=False))
    contrasts = found[found["quantity"] == "contrast"].reset_index(drop=True)
    changes = found[found["quantity"] == "probability_change"]
    traced = changes[changes["experiment"] == "tracing"].reset_index(drop=True)
    assert set(contrasts["experiment"]) == {"tracing"}
    assert set(contrasts["against"]) == {"floor"}
    assert contrasts["mean"].tolist() == traced["mean"].tolist()
    assert contrasts["p_family"].notna().any()


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


@pytest.mark.parametrize(
    ("layers", "noise_levels", "experiments"),
    [
        (LAYERS, 0, {"clean", "patching"}),
        (0, len(NOISE_LEVELS), {"clean", "floor", "tracing"}),
    ],
)
def test_one_experiment_is_measured_without_the_other(
    tmp_path: Path, summary: pd.DataFrame, layers: int, noise_levels: int, experiments: set[str]
) -> None:
    found = read_table(summarize(tmp_path, [tuple(QUESTIONS)], layers, noise_levels))
    assert set(found["experiment"]) == experiments
    expected = summary[summary["experiment"].isin(experiments)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected)


def test_the_effects_are_one_table_of_all_jobs(summary_file: Path, tables: Tables) -> None:
    made = summary_file.parent / "-".join(QUESTIONS)
    effects = read_table(made / "made-effects.parquet")
    for experiment in ("patching", "tracing"):
        expected = average_draws(cells_of(tables, experiment))[effects.columns]
        keys = ["example", "noise_level", "layer", "position"]
        pd.testing.assert_frame_equal(
            effects[effects["experiment"] == experiment].sort_values(keys, ignore_index=True),
            expected.sort_values(keys, ignore_index=True),
        )
    reasons = set(read_table(made / "made-excluded.csv")["reason"])
    assert reasons == {SMALL_EFFECT, ONE_ANSWER, SMALL_RANGE, WITHOUT_ROLE, WITHOUT_NULL}


def test_what_was_made_vouches_for_its_files(summary_file: Path) -> None:
    made = summary_file.parent / "-".join(QUESTIONS)
    facts = json.loads((made / "made-facts.json").read_text())
    assert {Path(path).name for path in facts["files"]} == {
        "made-effects.parquet", "made-role_means.parquet", "made-excluded.csv",
    }  # fmt: skip
    assert (facts["model"], facts["roles"]) == ("miniature", RULES)
    summary_facts = json.loads(summary_file.with_suffix(".json").read_text())
    assert summary_facts["resamples"] == 200
    assert [Path(path).name for path in summary_facts["files"]] == ["summary.csv"]
