"""What a finished run tells, as facts, tables and captions; how it looks is the renderers' matter.

Words and numbers that a reader sees are made here, so that the page and the supplement say the
same. Nothing here is HTML or LaTeX: renderers escape what they show. Text holds only letters that
the figures' font has (`words.printable`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import yaml

from blip_tracing.meaning.replication.averages import BOUND
from blip_tracing.meaning.replication.compare import LEAST_P
from blip_tracing.meaning.statistics import FEWEST_PICTURES
from blip_tracing.telling.analysed import analyses_of
from blip_tracing.telling.findings import findings_of
from blip_tracing.telling.maps import (
    average_maps,
    example_group,
    example_maps,
    limits_of,
    marks_caption,
    measures_caption,
    own_marks_caption,
)
from blip_tracing.telling.method import method_of_run
from blip_tracing.telling.overview import depth_curves, group_table, overview_of
from blip_tracing.telling.phrases import (
    corrupted_words,
    level_sign,
    method_of,
    reference_of,
    restored_words,
    title_of,
)
from blip_tracing.telling.places import state_words, towers_words, window_words
from blip_tracing.telling.replicated import averages_in_words, expectations_in_words
from blip_tracing.telling.told import (
    Example,
    Run,
    Story,
    Strip,
    is_true,
    sites_of,
)
from blip_tracing.telling.toy import toy_words
from blip_tracing.telling.words import (
    CLEAN_RUN,
    how_many,
    level_axis,
    level_noun,
    listed,
    pair_of,
    percent,
    printable,
    with_differences,
    with_interval,
)
from blip_tracing.vocabulary.corruptions import KINDS
from blip_tracing.vocabulary.experiment import BASE, EACH, QUESTIONS, Experiment
from blip_tracing.vocabulary.tables import ALL_CONTRIBUTIONS, ALL_HEADS, CEILING, NO_OP, UNRELATED

RUNNERS_UP = 2
LEAST_SHOWN = 0.001
CONTROLS = {
    NO_OP: "a state is replaced by itself: nothing may change",
    CEILING: "the donor's states at all positions: its own run must come out",
    UNRELATED: "an unrelated example's state (the null): tests compare with it",
    ALL_HEADS: "all heads at once: as the whole of what the sublayer adds",
    ALL_CONTRIBUTIONS: "the embeddings and all that layers add: the donor's run must come out",
}


def tell(run: Run) -> Story:
    """The story of a run."""
    means = noise_means(run)
    verdicts = list_verdicts(run)
    controls = list_controls(run)
    excluded = count_excluded(run)
    examples = tuple(tell_example(run, example) for example in run.pictures)
    groups, groups_caption = group_table(run)
    able = list_able(run)
    negatives, negatives_caption = list_negatives(run)
    return Story(
        title="Causal tracing of BLIP: where one state suffices",
        lead=f"{lead_of(run)} {toy_words(recorded(run, 'weights_sha256'))}".strip(),
        strip=strip_of(run, examples),
        findings=tuple(findings_of(run, controls, verdicts)),
        overview=overview_of(run),
        methods=tuple(map(method_of, run.experiments)),
        facts=list_facts(run),
        examples=examples,
        examples_caption=_examples_caption(run),
        maps_caption=_maps_caption(run),
        depths=tuple(depth_curves(run)),
        averages=tuple(average_maps(run)),
        marks_caption=marks_caption(run),
        measures=tuple(run.measures),
        measures_caption=measures_caption(run),
        groups=groups,
        groups_caption=groups_caption,
        means=means,
        floors=example_floors(run, means),
        means_caption=_means_caption(run, means),
        verdicts=verdicts,
        verdicts_caption=_verdicts_caption(verdicts),
        expectations=expectations_of(run),
        published_method=method_of_run(run),
        analyses=tuple(analyses_of(run)),
        able=able,
        able_caption=_able_caption(run, able),
        negatives=negatives,
        negatives_caption=negatives_caption,
        controls=controls,
        controls_caption=_controls_caption(controls),
        excluded=excluded,
        excluded_caption=_excluded_caption(run, excluded),
        command=command_of(run),
        versions=list_versions(run),
        config=config_of(run),
        sign=level_sign(*run.experiments),
    )


# ---- at a glance -------------------------------------------------------------------------------


def lead_of(run: Run) -> str:
    """The run in one sentence."""
    model = printable(run.config["model"]["name"])
    asked = how_many(run.count, "example")
    if not run.experiments:
        return f"{model} answered two questions about the picture of each of {asked}."
    return (
        f"In {asked}, {pair_words(run)} each, states of {model}'s {_towers(run)} were replaced, "
        "one place at a time: where does so little suffice to change the answer, or to "
        "bring it back?"
    )


def pair_words(run: Run) -> str:
    """What the two runs of an example are of: `a picture with two questions`."""
    if not run.source_pictures:
        return "a picture with two questions"
    runs = run.tables["runs"]
    texts = runs[runs["run"].isin(QUESTIONS)].groupby("example")["text"].nunique()
    if (texts == 1).all() and set(run.source_pictures) == set(run.pictures):
        return "one question about two pictures"
    return "two questions, about one picture or two,"


def _towers(run: Run) -> str:
    return towers_words(site for _, site in sites_of(run))


def strip_of(run: Run, examples: Sequence[Example]) -> Strip | None:
    """The first example at a glance, with its map of the experiment that is not corrupted, else of
    the first one; None where nothing was put in.
    """
    if not examples or not run.experiments:
        return None
    first = examples[0]
    clean = [place for place, asked in enumerate(run.experiments) if not asked.corrupted]
    experiment = run.experiments[clean[0] if clean else 0]
    site = run.primary(experiment)["site"]
    group = example_group(run, first.pair.example, experiment, site, limits_of(run))
    one = next(one for one in group.maps if one.primary)
    beside = tuple(replace(other, name=f"strip-{other.name}") for other in one.beside)
    shown = replace(one, name=f"strip-{one.name}", idle=False, beside=beside)
    donor = first.pair.text(experiment.donor.question)
    picture = " about the source picture" if first.source_picture else ""
    put = (
        f"the run of the question “{donor}”{picture}"
        if experiment.donor.question != experiment.receiver.question
        else "the clean run"
    )
    answer = first.pair.answer(experiment.followed)
    return Strip(
        example=first,
        questions=with_differences(first.pair.base_question, first.pair.source_question),
        map=replace(group, maps=(shown,), idle=""),
        caption=(
            f"Each cell: how p({answer}) changes when {state_words(experiment, site)} is replaced "
            f"by what {put} has there. Layers count from 0. The floor is p({answer}) with "
            "nothing put in, the total effect what the whole other run has more."
        ),
    )


# ---- what was asked ----------------------------------------------------------------------------


def list_facts(run: Run) -> pd.DataFrame:
    """The model, the examples, the experiments and the machine: fact, value."""
    shown = "" if run.count == len(run.pictures) else f"; the first {len(run.pictures)} shown here"
    commit = recorded(run, "commit")
    facts = {
        "model": recorded(run, "model"),
        "commit": commit or "none: a local directory, known by its weights",
        "weights": f"sha256 {recorded(run, 'weights_sha256')}",
        "examples": f"{run.count}, from {run.config['examples']}{shown}",
    }
    for experiment in run.experiments:
        ends = f"{experiment.donor.name} into {experiment.receiver.name}"
        facts[experiment.name] = _listed(
            [f"{ends}, at {_listed(experiment.sites)}", *_ways_of(experiment)]
        )
    for noisy in {asked.corrupted.name: asked.corrupted for asked in run.experiments
                  if asked.corrupted}.values():  # fmt: skip
        levels = _listed(f"{level:g}" for level in sorted(noisy.levels))
        corruption = noisy.corruption
        assert corruption is not None
        kind = KINDS[corruption.kind]
        facts[f"{noisy.name}: {level_noun(kind.sign)}s{' σ' if kind.sign == 'σ' else ''}"] = levels
        if kind.drawn:
            own = ", drawn anew for every cell" if corruption.fresh else ""
            facts[f"{noisy.name}: noise draws"] = (
                f"{noisy.draws} at each level, seed {corruption.seed}{own}"
            )
    facts["ran on"] = f"{recorded(run, 'device')}, {recorded(run, 'dtype')}"
    return pd.DataFrame({"fact": facts.keys(), "value": map(printable, facts.values())})


def _ways_of(experiment: Experiment) -> list[str]:
    """How an experiment goes about it, where that is not one layer and position at a time."""
    heads = _listed(map(str, experiment.heads))
    return list(
        filter(
            None,
            [
                window_words(experiment),
                f"positions: {experiment.positions}" if experiment.positions != EACH else "",
                f"heads {heads}" if heads else "",
            ],
        )
    )


def list_versions(run: Run) -> pd.DataFrame:
    """Python and the packages that the numbers depend on: package, version."""
    met: dict[str, list[str]] = {}
    for facts in run.provenance.values():
        records = [{"python": version} for version in _each(facts["python"])]
        for record in [*records, *_each(facts["packages"])]:
            for package, version in record.items():
                met.setdefault(package, []).append(version)
    versions = {package: _listed(dict.fromkeys(found)) for package, found in met.items()}
    return pd.DataFrame({"package": versions.keys(), "version": versions.values()})


def command_of(run: Run) -> str:
    """The command that makes the run again, from the project's folder."""
    words = ["snakemake", "--cores", "all"]
    if run.config_files:
        words += ["--configfile", *run.config_files]
    if run.overrides:
        given = run.overrides.items()
        values = {key: value if isinstance(value, str) else json.dumps(value)
                  for key, value in given}  # fmt: skip
        words += ["--config", *(f"{key}={value}" for key, value in values.items())]
    return shlex.join(words)


def recorded(run: Run, fact: str) -> str:
    """What the stages recorded of a fact: one value, or all that they met; "" for none."""
    values = [value for facts in run.provenance.values() for value in _each(facts.get(fact))]
    return _listed(dict.fromkeys(str(value) for value in values if value))


def config_of(run: Run) -> str:
    """The configuration, its defaults filled in, as a file that can be given."""
    # As JSON first: what stands in it twice would else be written once and referred to.
    plain = json.loads(json.dumps(run.config))
    return yaml.safe_dump(
        plain, sort_keys=False, allow_unicode=True, default_flow_style=None, width=88
    )


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _listed(words: Any) -> str:
    return ", ".join(words)


# ---- noise levels ------------------------------------------------------------------------------


def noise_means(run: Run) -> pd.DataFrame:
    """Mean p(base answer) by noise level, a row a run and level: the columns of `Story.means`."""
    columns = ["run", "noise_level", "mean", "low", "high", "examples", "draws", "hidden", "third",
               "noise_in_sd"]  # fmt: skip
    traced = [(experiment, site) for experiment, site in sites_of(run)
              if experiment.corrupted and experiment.followed == BASE]  # fmt: skip
    if not traced:
        return pd.DataFrame(columns=columns)
    summary, means = run.tables["summary"], run.tables["run_means"]
    whole = summary[
        summary["layer"].isna()
        & (summary["quantity"] == "probability")
        & (summary["group"] == "all")
        & (summary["among"] == "all")
    ]
    names = {experiment.name for experiment, _ in traced}
    parts = {CLEAN_RUN: means[means["run"] == BASE]}
    for experiment, site in traced:
        label = restored_words(experiment, site)
        rows = (whole["experiment"] == experiment.name) & (whole["site"] == site)
        parts[label if len(names) == 1 else f"{experiment.name}: {label}"] = whole[rows]
    # Of experiments with one corrupted run those that restore in it say what it is called.
    ordered = sorted(traced, key=lambda asked: -asked[0].direction)
    noisy: dict[str, str] = {}
    for experiment, _ in ordered:
        if experiment.corrupted:
            noisy.setdefault(experiment.corrupted.name, corrupted_words(experiment))
    for name, label in sorted(noisy.items()):
        parts[label if len(noisy) == 1 else f"{label} ({name})"] = means[means["run"] == name]
    sorted_parts = [
        rows.sort_values("noise_level").assign(run=name) for name, rows in parts.items()
    ]
    return pd.concat(sorted_parts, ignore_index=True).reindex(columns=columns)


def example_floors(run: Run, means: pd.DataFrame) -> pd.DataFrame:
    """example, noise_level, mean: p(base answer) with noise and nothing restored, of each example.

    Where they are so few that no interval is given; else empty.
    """
    columns = ["example", "noise_level", "mean"]
    names = {asked.corrupted.name for asked in run.experiments
             if asked.corrupted and asked.followed == BASE}  # fmt: skip
    noisy = means[means["noise_level"].notna()]
    if noisy.empty or noisy["low"].notna().any():
        return pd.DataFrame(columns=columns)
    runs = run.tables["runs"]
    rows = runs[runs["run"].isin(names)]
    floors = rows.groupby(["example", "noise_level"])["p_base"].mean().rename("mean")
    return floors.reset_index()[columns]


def _means_caption(run: Run, means: pd.DataFrame) -> str:
    if means.empty:
        return ""
    noisy = means[means["noise_level"].notna()]
    examples, draws = int(noisy["examples"].max()), int(noisy["draws"].max())
    sign = level_sign(*run.experiments)
    drawn = f" and {how_many(draws, 'noise draw')}" if draws > 1 or sign == "σ" else ""
    over = f"{how_many(examples, 'example')}{drawn}"
    deviations = (
        " σ / sd: σ in standard deviations of the clean states that the noise changes."
        if noisy["noise_in_sd"].notna().any()
        else ""
    )
    ends = (
        "Brackets: 95 % intervals, the picture as unit; they assume no more than that "
        "probabilities lie between 0 and 1, and so allow for pictures unlike these."
        if noisy["low"].notna().any()
        else f"Below {FEWEST_PICTURES} pictures there are no intervals: a thin line is an example "
        "with nothing restored."
    )
    return (
        f"Mean p(base answer) over {over}, and over all places, by {level_axis(sign)}. {ends} Hid "
        "the answer: the share of draws in which it fell below half of the clean run's. Third "
        f"answers: the probability on answers to neither question.{deviations}"
    )


# ---- example by example ------------------------------------------------------------------------


def tell_example(run: Run, example: str) -> Example:
    """One example: its picture, its questions with their answers, and its maps."""
    tokens = run.tables["tokens"]
    unknown = tokens[(tokens["example"] == example) & tokens["unknown"]]
    return Example(
        pair=pair_of(run.tables["runs"], example),
        picture=run.pictures[example],
        source_picture=run.source_pictures.get(example, ""),
        answers=_answers(run, example),
        unknown_words=tuple(map(printable, unknown["word"].unique())),
        maps=tuple(example_maps(run, example)),
    )


def _answers(run: Run, example: str) -> pd.DataFrame:
    runs, baseline = (
        table[table["example"] == example] for table in (run.tables["runs"], run.tables["baseline"])
    )
    rows = []
    for asked in runs[runs["run"].isin(QUESTIONS)].to_dict("records"):
        ranked = baseline[baseline["question"] == asked["question"]].sort_values("rank")
        others = ranked[ranked["token_id"] != asked["answer_id"]].head(RUNNERS_UP)
        others = others[others["probability"] >= LEAST_SHOWN]
        named = zip(others["token"], others["probability"], strict=True)
        rows.append(
            {
                "question": asked["question"],
                "text": printable(asked["text"]),
                "answer": printable(asked["answer"]),
                "probability": asked[f"p_{asked['question']}"],
                "others": _listed(f"{printable(token)} {p:.3f}" for token, p in named),
            }
        )
    return pd.DataFrame(rows)


def _examples_caption(run: Run) -> str:
    if run.count == len(run.pictures):
        return ""
    return (
        f"The first {len(run.pictures)} of {run.count} examples are shown one by one "
        "(report.examples in the configuration); averages and tables are of all."
    )


def _maps_caption(run: Run) -> str:
    """How to read the maps of single examples."""
    if "effects" not in run.tables:
        return ""
    titles: dict[str, list[str]] = {}
    for experiment in run.experiments:
        titles.setdefault(reference_of(experiment), []).append(title_of(experiment))
    reading = " ".join(
        f"{listed(alike)}: {reference[0].lower()}{reference[1:]}"
        for reference, alike in titles.items()
    )
    cells = "Of a cell, null is the change that an unrelated example's state makes there"
    if any(asked.receiver.corruption for asked in run.experiments):
        cells += (
            ", and hidden the change over the draws in which the corruption hid the answer alone"
        )
    return f"{reading} {cells}. {own_marks_caption(run)}".rstrip()


# ---- trust -------------------------------------------------------------------------------------


def list_able(run: Run) -> pd.DataFrame:
    """What each experiment is able to say at its primary site and level, in words."""
    rows = []
    for experiment in run.experiments:
        primary = run.primary(experiment)
        hidden, matched = primary["hidden_share"], primary["matched_share"]
        found = primary["detectable"]
        rows.append(
            {
                "experiment": title_of(experiment, primary["site"]),
                level_sign(*run.experiments): _level(primary["noise_level"]),
                "examples": int(primary["examples"]),
                "included": int(primary["included"]),
                "pictures": int(primary["pictures"]),
                "tested": "yes" if primary["tested"] else f"no: {primary['reason']}",
                "found with 80 %": "" if np.isnan(found) else f"{found:.2f}",
                "hid the answer": "" if np.isnan(hidden) else percent(hidden),
                "null of the same role": "" if np.isnan(matched) else percent(matched),
            }
        )
    return pd.DataFrame(rows)


def _level(level: float) -> str:
    """A level in a table; nothing where nothing is corrupted."""
    return "" if np.isnan(level) else f"{level:g}"


def _able_caption(run: Run, able: pd.DataFrame) -> str:
    if able.empty:
        return ""
    return (
        f"Found with 80 %: the least mean change in {run.tested.label} that a test at this number "
        "of pictures finds with 80 % probability. Included: examples with two answers, both the "
        "model's own, and a total effect large enough. Null of the same role: the share of "
        "unrelated states that come from a place of the same role."
    )


def list_negatives(run: Run) -> tuple[pd.DataFrame, str]:
    """The negative controls in words, and what they say; empty where there are none."""
    if "negatives" not in run.tables or run.tables["negatives"].empty:
        return pd.DataFrame(), ""
    negatives = run.tables["negatives"]
    false, cells = int(negatives["false_marks"].sum()), int(negatives["cells"].sum())
    exceeded = negatives.loc[is_true(negatives["exceeded"]), "experiment"].unique()
    table = pd.DataFrame(
        {
            "experiment": negatives["experiment"],
            "site": negatives["site"],
            level_sign(*run.experiments): negatives["noise_level"].map(_level),
            "control": negatives["control"],
            "false marks": negatives["false_marks"].astype(int),
            "cells": negatives["cells"].astype(int),
            "exceeded": negatives["exceeded"].map({True: "yes", False: "no"}),
        }
    )
    # Of heads there is a family a role, beside that over all positions.
    if "token_role" in negatives and negatives["token_role"].notna().any():
        roles = negatives["token_role"].fillna("").astype(str).map(printable)
        table.insert(2, "role", roles)
    verdict = (
        f"Exceeded in {', '.join(map(str, exceeded))}: nothing is marked there."
        if len(exceeded)
        else "No more than chance allows."
    )
    return table, (
        f"False marks on negative controls: {false} of {cells} cells. In these comparisons there "
        "is no difference to find, so a mark is an error: a corruption that hides nothing, equal "
        "tokens, questions with one answer, and one half of the unrelated donors taken for the "
        f"source, the other for its null. {verdict}"
    )


def list_controls(run: Run) -> pd.DataFrame:
    """experiment, control, meaning, checked, idle, effect, largest: as counted, in words."""
    columns = ["experiment", "control", "meaning", "checked", "idle", "effect", "largest"]
    if "controls" not in run.tables:
        return pd.DataFrame(columns=columns)
    counted = run.tables["controls"]
    return counted.assign(meaning=counted["control"].map(CONTROLS).fillna(""))[columns]


def _controls_caption(controls: pd.DataFrame) -> str:
    if controls.empty:
        return ""
    return (
        "Every job runs these controls beside its results. Largest difference: the largest "
        "deviation from the expected probability. A job whose control "
        "fails stops, and its results are not used. Effect: how far off a run would have been had "
        "no state been put in, or, where a state is replaced by itself, had the other run’s been "
        "put in; the median. A run where that is less than ten times what is tolerated could not "
        "fail, and tells nothing."
    )


def count_excluded(run: Run) -> pd.DataFrame:
    """experiment, reason, examples (distinct), by level (examples at each), rows: what averages
    leave out.
    """
    columns = ["experiment", "reason", "examples", "by level", "rows"]
    if "excluded" not in run.tables:
        return pd.DataFrame(columns=columns)
    groups = run.tables["excluded"].groupby(["experiment", "reason"], sort=False)
    counted = groups.agg(examples=("example", "nunique"), rows=("rows", "sum"))
    counted["by level"] = [
        "; ".join(
            f"{level:g}: {count}"
            for level, count in rows.groupby("noise_level")["example"].nunique().items()
        )
        for _, rows in groups
    ]
    return counted.reset_index()[columns]


def _excluded_caption(run: Run, excluded: pd.DataFrame) -> str:
    if excluded.empty:
        return "Nothing was left out."
    least = run.config["effects"]["total_effect"]
    return (
        "Examples, with their rows (cells, at each site and level), by the reason why "
        "averages leave them out; an example with two reasons is counted under both. Averages and "
        "tests are of included examples alone: two distinct answers, both the model's own, and a "
        f"total effect (target minus reference, at the primary level) of at least {least:g}. A "
        "place of no role is in no average by role; without an unrelated example there is no null."
    )


def list_verdicts(run: Run) -> pd.DataFrame | None:
    """The verdicts, quantity and correlation in words; None where none is there.

    Columns: quantity, compared, agree, expected, of single figures correlation, shift and power, of
    averages largest and bound, verdict, where.
    """
    if "verdicts" not in run.tables:
        return None
    verdicts = run.tables["verdicts"]
    if "bound" in verdicts:
        return averages_in_words(verdicts)
    columns = [
        "quantity", "compared", "agree", "expected", "correlation", "shift", "power", "verdict",
        "where",
    ]  # fmt: skip
    correlations = verdicts[["correlation", "correlation_low", "correlation_high"]].to_numpy(float)
    return verdicts.assign(
        quantity=verdicts["title"],
        correlation=["" if np.isnan(ends[0]) else with_interval(*ends) for ends in correlations],
    )[columns]


def expectations_of(run: Run) -> pd.DataFrame:
    """What a faithful replication must show, in words; empty where none is asked."""
    if "expectations" not in run.tables:
        return pd.DataFrame()
    return expectations_in_words(run.tables["expectations"])


def _verdicts_caption(verdicts: pd.DataFrame | None) -> str:
    if verdicts is None:
        return ""
    if "bound" in verdicts:
        return (
            "Each published map of averages held against this run: how many averages lie inside "
            "the 95 % interval that the run’s draws and examples predict, and how many would in a "
            "faithful replication. Largest: difference. Bound: the largest difference that is not "
            f"refused. A map differs where fewer than {percent(LEAST_P)} of simulated "
            "replications lie as far off; it agrees where it does not and the bound is at most "
            f"{BOUND:g}; else it cannot be told. Where: the average farthest outside."
        )
    return (
        "Each published quantity held against this run. Expected: how many numbers would agree "
        "in a faithful replication, of noise that cannot be drawn again by chance alone. "
        "Correlation: of both maps, with a 95 % interval over the draws. Shift: by how many "
        "layers this run's map fits the published one best. Power: how often a run with half "
        "the probabilities, or a map one layer off, would be found to differ, the lesser of "
        "both. Agrees is said where the difference lies within a stated bound, not where none "
        "is seen. Where: the worst number that does not agree."
    )
