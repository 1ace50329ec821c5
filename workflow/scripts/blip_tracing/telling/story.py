"""What a finished run tells, as facts, tables and captions; how it looks is the renderers' matter.

Words and numbers that a reader sees are made here, so that the page and the supplement say the
same. Nothing here is HTML or LaTeX: renderers escape what they show. Text holds only letters that
the figures' font has (`words.printable`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import yaml

from blip_tracing.meaning.effects import by_level
from blip_tracing.meaning.statistics import FEWEST_RESAMPLED, mean_intervals
from blip_tracing.telling.phrases import (
    corrupted_words,
    followed_words,
    method_of,
    moves_words,
    reference_of,
    restored_words,
    title_of,
)
from blip_tracing.telling.words import (
    CLEAN_RUN,
    Pair,
    how_many,
    pair_of,
    position_labels,
    printable,
    signed,
    with_interval,
)
from blip_tracing.vocabulary.experiment import BASE, QUESTIONS, Experiment, experiments_of
from blip_tracing.vocabulary.tables import CEILING, NO_OP, NULL

SIGNIFICANT = 0.05
MARK = "○"
LIMITS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
# What every map's table of cells holds; columns beside these are shown of a cell as they are.
CELLS = ["layer", "place", "label", "value", "low", "high", "marked"]
RUNNERS_UP = 2
LEAST_SHOWN = 0.001
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
CONTROLS = {
    NO_OP: "a state is replaced by itself: nothing may change",
    CEILING: "the donor's states at all positions: its own run must come out",
    NULL: "an unrelated example's state: no outcome is known, the tests compare with it",
}


@dataclass(frozen=True)
class Run:
    """What a finished run left behind, as far as the story needs it.

    config: with its defaults filled in; pictures: example → path, in the sheet's order, of the
    examples that are shown. tables: by name as in `results/tables/`, those that there are:
    baseline, runs, tokens, run_means, summary, excluded and verdicts whole; effects and those of
    the experiments of the shown examples; controls as `count_controls` counts them. provenance: by
    the name of the stage. overrides: what was given on the command line with --config.
    """

    config: Mapping[str, Any]
    config_files: Sequence[str]
    pictures: Mapping[str, str]
    tables: Mapping[str, pd.DataFrame]
    provenance: Mapping[str, Mapping[str, Any]]
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def experiments(self) -> list[Experiment]:
        """The experiments, in the configuration's order."""
        return list(experiments_of(self.config).values())

    @property
    def count(self) -> int:
        """The number of examples."""
        return self.tables["runs"]["example"].nunique()


@dataclass(frozen=True)
class Map:
    """One heatmap.

    name: its own among all maps, of letters, digits, `_`, `.` and `-`, the same in every run.
    cells: one row a cell: layer, place (the row, from the top, 0 first), label (the row's name),
    value, low and high (95 % interval, NaN where there is none), marked, and then columns of text
    (details, "" for none) named as a reader should see them.
    """

    name: str
    title: str
    cells: pd.DataFrame


@dataclass(frozen=True)
class MapGroup:
    """Heatmaps read side by side: the same rows, and one scale of colours from -limit to limit.

    measure: what a cell's value is; rows: what the rows are; marks: what a marked cell is, or why
    none is marked.
    """

    title: str
    measure: str
    rows: str
    limit: float
    caption: str
    marks: str
    maps: tuple[Map, ...]


@dataclass(frozen=True)
class Example:
    """One example that is shown.

    answers: question, text, answer, probability, others (the next answers in words).
    """

    pair: Pair
    picture: str
    answers: pd.DataFrame
    unknown_words: tuple[str, ...]
    maps: tuple[MapGroup, ...]


@dataclass(frozen=True)
class Story:
    """All that is told, in the order of telling.

    findings: one sentence each. methods: what the experiments are. facts: fact, value. averages:
    maps over roles. means: run, noise_level (NaN for the clean run), mean, low, high, examples,
    draws; empty where nothing was traced. verdicts: quantity, compared, agree, expected, verdict,
    where; or None. controls: experiment, control, meaning, checked, idle (those of them that could
    not have failed), effect, largest (these missing where no outcome is known). excluded:
    experiment, reason, examples, rows. versions: package, version. config: text of a configuration
    file that gives the run again.
    """

    title: str
    findings: tuple[str, ...]
    methods: tuple[str, ...]
    facts: pd.DataFrame
    examples: tuple[Example, ...]
    examples_caption: str
    maps_caption: str
    averages: tuple[MapGroup, ...]
    means: pd.DataFrame
    means_caption: str
    verdicts: pd.DataFrame | None
    verdicts_caption: str
    controls: pd.DataFrame
    controls_caption: str
    excluded: pd.DataFrame
    excluded_caption: str
    command: str
    versions: pd.DataFrame
    config: str


def tell(run: Run) -> Story:
    """The story of a run."""
    averages = tuple(average_maps(run))
    means = noise_means(run)
    verdicts = list_verdicts(run)
    controls = list_controls(run)
    excluded = count_excluded(run)
    return Story(
        title=f"Causal tracing of {printable(run.config['model']['name'])}",
        findings=tuple(_findings(run, controls, verdicts)),
        methods=tuple(map(method_of, run.experiments)),
        facts=list_facts(run),
        examples=tuple(tell_example(run, example) for example in run.pictures),
        examples_caption=_examples_caption(run),
        maps_caption=_maps_caption(run),
        averages=averages,
        means=means,
        means_caption=_means_caption(means),
        verdicts=verdicts,
        verdicts_caption=_verdicts_caption(verdicts),
        controls=controls,
        controls_caption=_controls_caption(controls),
        excluded=excluded,
        excluded_caption=_excluded_caption(run, excluded),
        command=command_of(run),
        versions=list_versions(run),
        config=yaml.safe_dump(
            run.config, sort_keys=False, allow_unicode=True, default_flow_style=None, width=88
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
        facts[experiment.name] = f"{ends}, at {_listed(experiment.sites)}"
    for noisy in {asked.corrupted.name: asked.corrupted for asked in run.experiments
                  if asked.corrupted}.values():  # fmt: skip
        levels = _listed(f"{level:g}" for level in sorted(noisy.levels))
        seed = noisy.corruption.seed if noisy.corruption else ""
        facts |= {
            f"{noisy.name}: noise levels σ": levels,
            f"{noisy.name}: noise draws": f"{noisy.draws} at each level, seed {seed}",
        }
    facts["ran on"] = f"{recorded(run, 'device')}, {recorded(run, 'dtype')}"
    return pd.DataFrame({"fact": facts.keys(), "value": map(printable, facts.values())})


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


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _listed(words: Any) -> str:
    return ", ".join(words)


# ---- averages over examples --------------------------------------------------------------------


def average_maps(run: Run) -> Iterator[MapGroup]:
    """Maps layer × role of the mean change in probability, one group an experiment and site."""
    for experiment, site in _experiments(run):
        summary = run.tables["summary"]
        inside = (summary["experiment"] == experiment.name) & summary["layer"].notna()
        limit = _limit(summary.loc[inside & _is(summary, "probability_change"), "mean"])
        family = summary[inside & (summary["site"] == site)]
        maps = tuple(
            Map(
                name=_name("average", experiment.name, site, level=level),
                title=_level(level),
                cells=_role_cells(rows, [rule["role"] for rule in run.config["effects"]["roles"]]),
            )
            for level, rows in _by_level(family)
        )
        count = int(family["examples"].max())
        answer = followed_words(experiment)
        yield MapGroup(
            title=title_of(experiment, site),
            measure=f"change in p({answer})",
            rows="role",
            limit=limit,
            caption=(
                f"{f'Mean over {count} examples of the change' if count > 1 else 'Change'} in "
                f"p({answer}) when the state of one layer at a token of the role is put in. "
                f"{reference_of(experiment)}"
            ),
            marks=_family_marks(family[_is(family, "contrast")]),
            maps=maps,
        )


def _role_cells(rows: pd.DataFrame, roles: Sequence[str]) -> pd.DataFrame:
    """A map of averages. rows: of the summary, one family's; roles: in the order to be shown."""
    there = [role for role in roles if role in set(rows["token_role"])]
    changes, contrasts = (
        rows[_is(rows, quantity)] for quantity in ("probability_change", "contrast")
    )
    paired = changes.merge(
        contrasts, on=["layer", "token_role"], how="left", suffixes=("", "_contrast")
    )
    against = _listed(sorted(set(contrasts["against"])))
    cells = paired.assign(
        layer=paired["layer"].astype(int),
        place=paired["token_role"].map(there.index),
        label=paired["token_role"].map(printable),
        value=paired["mean"],
        marked=paired["p_family_contrast"] < SIGNIFICANT,
    )[CELLS]
    details: dict[str, Any] = {
        f"minus the {against}": [
            with_interval(*ends)
            for ends in paired[["mean_contrast", "low_contrast", "high_contrast"]].to_numpy()
        ],
        "p (family)": paired["p_family_contrast"].map(_p),
        "examples": paired["examples"].map("{:g}".format),
    }
    return cells.assign(**details).sort_values(["place", "layer"], ignore_index=True)


def _family_marks(contrasts: pd.DataFrame) -> str:
    """What the marks of averages say, or why there are none."""
    tested = contrasts[contrasts["p_family"].notna()]
    if contrasts.empty:
        return (
            "No cell is marked: all rows of the sheet show one picture, so there is no unrelated "
            "example to test against."
        )
    if tested.empty:
        return "No cell is marked: a test over examples needs two of them at least."
    examples = int(tested["examples"].max())
    least = 2 / 2**examples
    if least >= SIGNIFICANT:
        return (
            f"No cell can be marked: with {examples} examples the least p that the test of sign "
            f"flips can give is 2/2{str(examples).translate(SUPERSCRIPTS)} = {least:g}. It takes "
            "six examples for p < 0.05."
        )
    against = (
        "the null (the same intervention with an unrelated example's state)"
        if "null" in set(tested["against"])
        else "the floor (nothing restored)"
    )
    marked = int((tested["p_family"] < SIGNIFICANT).sum())
    found = f"{MARK} marks cells" if marked else "No cell is marked: there is none"
    return (
        f"{found} with p < 0.05 ({marked} of {len(tested)}) against {against}, by the max-T test "
        "of Westfall & Young with sign flips of the examples' contrasts, corrected for all layers "
        "and roles of a map."
    )


# ---- noise levels ------------------------------------------------------------------------------


def noise_means(run: Run) -> pd.DataFrame:
    """Mean p(base answer) by noise level: run, noise_level, mean, low, high, examples, draws."""
    columns = ["run", "noise_level", "mean", "low", "high", "examples", "draws"]
    traced = [(experiment, site) for experiment, site in _experiments(run)
              if experiment.corrupted and experiment.followed == BASE]  # fmt: skip
    if not traced:
        return pd.DataFrame(columns=columns)
    summary, means = run.tables["summary"], run.tables["run_means"]
    whole = summary[summary["layer"].isna() & _is(summary, "probability")]
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
    return pd.concat(sorted_parts, ignore_index=True)[columns]


def _means_caption(means: pd.DataFrame) -> str:
    if means.empty:
        return ""
    noisy = means[means["noise_level"].notna()]
    examples, draws = int(noisy["examples"].max()), int(noisy["draws"].max())
    over = f"{how_many(examples, 'example')} and {how_many(draws, 'noise draw')}"
    return (
        f"Mean p(base answer) over {over}, and over all places, by noise level σ. "
        f"Bars and brackets: 95 % intervals {_interval_method(examples)}."
    )


def _interval_method(examples: int) -> str:
    if examples == 1:
        return "over the noise draws of the one example"
    if examples < FEWEST_RESAMPLED:
        return "over the examples, by Student's t"
    return "by a bootstrap of two levels, the examples and their noise draws"


# ---- example by example ------------------------------------------------------------------------


def tell_example(run: Run, example: str) -> Example:
    """One example: its picture, its questions with their answers, and its maps."""
    tokens = run.tables["tokens"]
    unknown = tokens[(tokens["example"] == example) & tokens["unknown"]]
    return Example(
        pair=pair_of(run.tables["runs"], example),
        picture=run.pictures[example],
        answers=_answers(run, example),
        unknown_words=tuple(map(printable, unknown["word"].unique())),
        maps=tuple(
            _example_group(run, example, experiment, site) for experiment, site in _experiments(run)
        ),
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


def _example_group(run: Run, example: str, experiment: Experiment, site: str) -> MapGroup:
    """The maps layer × position of one example, one a noise level where a run is corrupted."""
    answer = pair_of(run.tables["runs"], example).answer(experiment.followed)
    effects = run.tables["effects"]
    done = effects[(effects["experiment"] == experiment.name) & (effects["example"] == example)]
    rows = done[done["site"] == site]
    table = run.tables[experiment.name]
    labels = position_labels(table[table["example"] == example])
    intervals = _draw_intervals(run, example, experiment, site) if experiment.corrupted else None
    maps = []
    for level, cells in _by_level(rows):
        largest = cells["null_change"].abs().max()
        null = "" if np.isnan(largest) else f"null up to {largest:.3f}"
        title = ", ".join(filter(None, (_level(level), null)))
        name = _name("example", example, experiment.name, site, level=level)
        towards = experiment.direction * cells["probability_change"]
        marked = cells.assign(marked=towards > largest)
        maps.append(Map(name, title, _cells(marked, labels, intervals)))
    over = f", mean over {experiment.draws} noise draws" if experiment.draws > 1 else ""
    return MapGroup(
        title=title_of(experiment, site),
        measure=f"change in p({answer})",
        rows="position and token",
        limit=_limit(done["probability_change"]),
        caption=f"Change in p({answer}), the {followed_words(experiment)}{over}.",
        marks=_missing_null(rows),
        maps=tuple(maps),
    )


def _cells(
    cells: pd.DataFrame,
    labels: Mapping[int, str],
    intervals: pd.DataFrame | None,
) -> pd.DataFrame:
    """A map of an example. cells: its effects, and whether each is `marked`."""
    places = {position: place for place, position in enumerate(sorted(labels))}
    if intervals is None:
        ends = pd.DataFrame(np.nan, index=cells.index, columns=["low", "high"])
    else:
        keys = ["noise_level", "layer", "position"]
        ends = cells[keys].join(intervals, on=keys)[["low", "high"]]
    table = cells.assign(
        place=cells["position"].map(places),
        label=cells["position"].map(labels),
        value=cells["probability_change"],
        low=ends["low"],
        high=ends["high"],
    )[CELLS]
    details = pd.DataFrame({"unrelated example's state": cells["null_change"].map(signed)})
    return table.join(details).sort_values(["place", "layer"], ignore_index=True)


def _draw_intervals(run: Run, example: str, experiment: Experiment, site: str) -> pd.DataFrame:
    """Intervals of the mean change over draws: low, high by noise level, layer and position."""
    table, runs = run.tables[experiment.name], run.tables["runs"]
    rows = by_level(
        table[(table["example"] == example) & (table["site"] == site)], experiment.levels
    )
    receiver = experiment.receiver
    alone = by_level(
        runs[(runs["run"] == receiver.name) & (runs["example"] == example)], receiver.levels
    )
    draw = ["level", "draw"] if receiver.corruption else []
    score = f"p_{experiment.followed}"
    reference = alone[[*draw, score]].rename(columns={score: "reference"})
    rows = rows.merge(reference, on=draw) if draw else rows.merge(reference, how="cross")
    changes = rows.assign(change=rows[score] - rows["reference"]).pivot(
        index="draw", columns=["noise_level", "layer", "position"], values="change"
    )
    settings = run.config["effects"]["resamples"], run.config["effects"]["seed"]
    intervals = mean_intervals(changes.to_numpy(float)[np.newaxis], *settings)
    return intervals[["low", "high"]].clip(-1, 1).set_axis(changes.columns)


def _missing_null(rows: pd.DataFrame) -> str:
    if rows["null_change"].notna().any():
        return ""
    return (
        "No cell is marked: the sheet has no unrelated example (another picture) for this one, "
        "whose state would show what any state does."
    )


def _examples_caption(run: Run) -> str:
    if run.count == len(run.pictures):
        return ""
    return (
        f"The first {len(run.pictures)} of {run.count} examples (report.examples in the "
        "configuration); averages and tables are of all."
    )


def _maps_caption(run: Run) -> str:
    """How to read the maps of single examples."""
    if "effects" not in run.tables:
        return ""
    reading = " ".join(
        f"{title_of(experiment)}: {reference_of(experiment)[0].lower()}"
        f"{reference_of(experiment)[1:]}"
        for experiment in run.experiments
    )
    if run.tables["effects"]["null_change"].isna().all():
        return reading
    return (
        f"{reading} {MARK} marks cells whose change is larger than the largest, of either sign, "
        "that an unrelated example's state made anywhere in the same map (the null): a help to "
        "the eye, not a test."
    )


# ---- trust -------------------------------------------------------------------------------------


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
        "Every job runs these controls beside its results. Largest difference: the farthest, in "
        "probability, that any of them came out from what must come out. A job whose control "
        "fails stops, and its results are not used. Effect: how far off a run would have been had "
        "no state been put in, or, where a state is replaced by itself, had the other run’s been "
        "put in; the median. A run where that is less than ten times what is tolerated could not "
        "fail, and vouches for nothing."
    )


def count_excluded(run: Run) -> pd.DataFrame:
    """experiment, reason, examples (distinct), rows: what averages leave out."""
    columns = ["experiment", "reason", "examples", "rows"]
    if "excluded" not in run.tables:
        return pd.DataFrame(columns=columns)
    groups = run.tables["excluded"].groupby(["experiment", "reason"], sort=False)
    counted = groups.agg(examples=("example", "nunique"), rows=("rows", "sum")).reset_index()
    return counted[columns]


def _excluded_caption(run: Run, excluded: pd.DataFrame) -> str:
    if excluded.empty:
        return "Nothing was left out."
    least = run.config["effects"]["total_effect"]
    return (
        "Examples and rows (cells, at each site and noise level) by the reason why averages leave "
        f"them out. A total effect (target minus reference) below {least:g}, or one answer to "
        "both questions, leaves an example out of normalised averages alone; a token of no role "
        "is in no average by role; without an unrelated example there is no contrast to test."
    )


def list_verdicts(run: Run) -> pd.DataFrame | None:
    """quantity (in words), compared, agree, expected, verdict, where; None where none is there."""
    if "verdicts" not in run.tables:
        return None
    verdicts = run.tables["verdicts"]
    columns = ["quantity", "compared", "agree", "expected", "verdict", "where"]
    return verdicts.assign(quantity=verdicts["title"])[columns]


def _verdicts_caption(verdicts: pd.DataFrame | None) -> str:
    if verdicts is None:
        return ""
    return (
        "Each published quantity held against this run. Expected: how many numbers would agree in "
        "a faithful replication, of noise that cannot be drawn again by chance alone. Where: the "
        "worst number that does not agree."
    )


# ---- findings ----------------------------------------------------------------------------------


def _findings(run: Run, controls: pd.DataFrame, verdicts: pd.DataFrame | None) -> Iterator[str]:
    """The run in a few sentences; strengths are described here, and tested in the maps."""
    for experiment in run.experiments:
        summary = run.tables["summary"]
        rows = summary[
            (summary["experiment"] == experiment.name)
            & summary["layer"].notna()
            & _is(summary, "probability_change")
        ]
        best: Any = rows.iloc[(experiment.direction * rows["mean"]).argmax()]
        count = int(best["examples"])
        change = with_interval(best["mean"], best["low"], best["high"])
        level = f" at {_level(best['noise_level'])}" if experiment.corrupted else ""
        yield (
            f"{title_of(experiment)}: {best['site']} of layer {best['layer']:g} at the role "
            f"“{printable(best['token_role'])}”{level} {moves_words(experiment)} "
            f"p({followed_words(experiment)}) the most: {change}, "
            f"{f'mean over {count} examples' if count > 1 else 'in the one example'}."
        )
    if not controls.empty:
        yield _vouched(controls)
    if verdicts is not None:
        judged = verdicts[verdicts["verdict"].isin(["agrees", "differs"])]
        yield (
            f"{(judged['verdict'] == 'agrees').sum()} of {len(judged)} published quantities agree "
            "with this run."
        )


def _vouched(controls: pd.DataFrame) -> str:
    """What the controls show: nothing is claimed of those that could not have failed."""
    known = controls[controls["largest"].notna()]
    checked, idle = int(known["checked"].sum()), int(known["idle"].sum())
    if idle == checked:
        return (
            f"None of the {checked:,} control runs whose outcome is known could have failed here: "
            "a fault would have changed next to nothing, so they vouch for nothing."
        )
    if idle:
        return (
            f"All {checked - idle:,} control runs that could have failed gave their known outcome, "
            f"to within {known['largest'].max():.1g} in probability; {idle:,} more could not have "
            "failed here and vouch for nothing."
        )
    return (
        f"All {checked:,} control runs whose outcome is known gave it, to within "
        f"{known['largest'].max():.1g} in probability."
    )


# ---- words -------------------------------------------------------------------------------------


def _experiments(run: Run) -> Iterator[tuple[Experiment, str]]:
    for experiment in run.experiments:
        for site in experiment.sites:
            yield experiment, site


def _by_level(rows: pd.DataFrame) -> Iterator[tuple[float, pd.DataFrame]]:
    """The rows of each noise level in their order; those of patches have the level NaN."""
    level: Any
    for level, part in rows.groupby("noise_level", dropna=False):
        yield float(level), part


def _is(rows: pd.DataFrame, quantity: str) -> pd.Series:
    return rows["quantity"] == quantity


def _limit(values: pd.Series) -> float:
    """The end of the scale of colours: round, and no less than any value."""
    return next((limit for limit in LIMITS if limit >= values.abs().max()), LIMITS[-1])


def _name(*parts: str, level: float) -> str:
    return "-".join([*parts, *([] if np.isnan(level) else [f"{level:g}"])])


def _level(noise_level: float) -> str:
    return "" if np.isnan(noise_level) else f"σ = {noise_level:g}"


def _p(value: float) -> str:
    if np.isnan(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
