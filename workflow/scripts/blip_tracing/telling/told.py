"""What a finished run left behind, and what is told of it: data alone, filled in by `story`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from blip_tracing.given.methods import Method
from blip_tracing.meaning.roles import role_names
from blip_tracing.telling.words import Pair
from blip_tracing.vocabulary.experiment import Experiment, experiments_of
from blip_tracing.vocabulary.metrics import ALWAYS, METRICS, Metric, further_of
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.sites import SITES
from blip_tracing.vocabulary.tables import INCLUDED

# Marks of averages, which a test over pictures gives, and of one example, over its draws.
MARK, OWN_MARK = "○", "◆"


@dataclass(frozen=True)
class Measure:
    """What maps can show of a cell: a column of theirs.

    label: in the page's switch; note: what it is; quantity: the change that it is, in the tables;
    words: of what it is the change, with `{}` for the answer that is followed; bounded: whether it
    changes by at most 1; metric: whose change it is, if it is one's own.
    """

    name: str
    label: str
    note: str
    quantity: str
    words: str
    bounded: bool = False
    metric: Metric | None = None

    def seen(self, experiment: Experiment) -> int:
        """−1 where maps show the opposite of the number in tables, else 1."""
        return self.metric.seen(experiment) if self.metric else 1

    def change_words(self, answer: str) -> str:
        """`change in p(red)`."""
        return f"change in {self.words.format(answer)}"


def _measure_of(metric: Metric, name: str, note: str) -> Measure:
    return Measure(name, metric.label, note, metric.change, metric.words, metric.bounded, metric)


_FURTHER = [name for name in METRICS if name not in ALWAYS]
_MEASURES = (
    _measure_of(METRICS["probability"], "value", "of the answer that is followed"),
    Measure("log_odds", "log-odds", "log p/(1 − p)", "log_odds_change", "log-odds({})"),
    _measure_of(
        METRICS["logit_difference"],
        "logit_difference",
        "of the answer that is followed minus the other",
    ),
    *(_measure_of(METRICS[name], name, METRICS[name].meaning) for name in _FURTHER),
)
# The first is shown at once, the others by the page's switch, where the run has them.
MEASURES = {measure.name: measure for measure in _MEASURES}
FIRST = _MEASURES[0]
# What every map's table of cells holds, beside the further measures of its run; columns that are
# neither are shown of a cell as they are.
CELLS = ["layer", "place", "label", "value", "log_odds", "logit_difference", "low", "high",
         "marked"]  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What a finished run left behind, as far as the story needs it.

    config: with its defaults filled in; pictures: example → path, in the sheet's order, of the
    examples that are shown. tables: by name as in `results/tables/`, those that there are:
    baseline, runs, tokens, run_means, summary, families, negatives, excluded and verdicts whole;
    effects and those of the experiments of the shown examples; controls as `count_controls` counts
    them, and `turns` as `read_turns` reads it. provenance: by the name of the stage. overrides:
    what was given on the command line with --config. source_pictures: the pictures of the shown
    examples' source runs, where they are others; boxes: of things in the sheet's pictures; units:
    example → what is resampled, where that is not the example itself; method: the published one
    that the configuration names.
    """

    config: Mapping[str, Any]
    config_files: Sequence[str]
    pictures: Mapping[str, str]
    tables: Mapping[str, pd.DataFrame]
    provenance: Mapping[str, Mapping[str, Any]]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    source_pictures: Mapping[str, str] = field(default_factory=dict)
    boxes: Sequence[str] = ("",)
    units: Mapping[str, str] = field(default_factory=dict)
    method: Method | None = None

    @property
    def experiments(self) -> list[Experiment]:
        """The experiments, in the configuration's order."""
        return list(experiments_of(self.config).values())

    @property
    def tested(self) -> Metric:
        """The metric that is tested and marked."""
        return METRICS[self.config["effects"]["metric"]]

    @property
    def measures(self) -> list[Measure]:
        """What its maps can show."""
        further = further_of(self.config["metrics"], self.tested.name)
        return [one for one in _MEASURES if one.name not in _FURTHER or one.name in further]

    @property
    def count(self) -> int:
        """The number of examples."""
        return self.tables["runs"]["example"].nunique()

    @property
    def roles(self) -> list[str]:
        """The roles of tokens, in their order."""
        return [rule["role"] for rule in self.config["effects"]["roles"]]

    def roles_of(self, site: str) -> list[str]:
        """The roles of positions at a site, in their order."""
        return self.roles_at(SITES[site].tower)

    def roles_at(self, tower: str) -> list[str]:
        """The roles of a tower's positions, in their order."""
        return list(role_names(self.config["effects"]["roles"], self.boxes)[tower])

    def differing_at(self, site: str) -> str:
        """The role of the tokens that differ, where a site's positions have it; else ""."""
        return self.differing if self.differing in self.roles_of(site) else ""

    def differing_in(self, experiment: Experiment) -> str:
        """The same at an experiment's primary site, where single positions or roles are told
        apart and some example has one that differs; else "".
        """
        role = self.differing_at(self.primary(experiment)["site"])
        turns = self.tables["turns"]
        mine = turns[turns["experiment"] == experiment.name]
        return role if (mine["token_role"] == role).any() else ""

    @property
    def differing(self) -> str:
        """The role of the tokens in which the two questions differ; "" where no rule names it."""
        rules = self.config["effects"]["roles"]
        return next((rule["role"] for rule in rules if rule.get("pair") == "differs"), "")

    def primary(self, experiment: Experiment) -> Any:
        """The row of `families` at whose site and level conclusions are drawn."""
        families = self.tables["families"]
        mine = families[(families["experiment"] == experiment.name) & families["primary"]]
        return mine.iloc[0]

    def summary(self, family: Any, quantity: str, group: str = ALL) -> pd.DataFrame:
        """The summary's rows of a family by layer and role, of the included examples.

        family: what has an experiment, site and noise_level, such as a row of `families`; at a site
        of heads rows are by layer and head, at all positions or those of its token_role.
        """
        rows = self.tables["summary"]
        found = rows[
            (rows["experiment"] == family["experiment"])
            & (rows["site"] == family["site"])
            & at_level(rows["noise_level"], family["noise_level"])
            & (rows["quantity"] == quantity)
            & (rows["group"] == group)
            & (rows["among"] == INCLUDED)
            & rows["layer"].notna()
        ]
        if not SITES[family["site"]].heads:
            return found
        return found[found["token_role"] == role_of(family)]

    def tested_changes(self, family: Any, quantity: str = "") -> pd.DataFrame:
        """The same of the tested metric's change, or of its contrast with the null, as it is seen:
        of the answer that is followed.
        """
        rows = self.summary(family, quantity or self.tested.change)
        named = next(asked for asked in self.experiments if asked.name == family["experiment"])
        if self.tested.seen(named) > 0:
            return rows
        return rows.assign(mean=-rows["mean"], low=-rows["high"], high=-rows["low"])


@dataclass(frozen=True)
class Map:
    """One heatmap.

    name: its own among all maps, of letters, digits, `_`, `.` and `-`, the same in every run.
    cells: one row a cell: layer, place (the row, from the top, 0 first), label (the row's name),
    value (the change in probability), log_odds and logit_difference (the changes of these, the
    latter of the followed answer minus the other), low and high (95 % interval of value, NaN where
    there is none), marked, the run's further measures, and then columns of text (details, "" for
    none) named as a reader should see them. primary: whether conclusions are drawn at its level.
    idle: whether the noise hid nothing there, so that there is nothing to see. beside: maps to
    compare it with.
    """

    name: str
    title: str
    cells: pd.DataFrame
    level: float = np.nan
    primary: bool = True
    idle: bool = False
    beside: tuple[Map, ...] = ()

    def with_beside(self) -> tuple[Map, ...]:
        """Itself, then what stands beside it."""
        return (self, *self.beside)


@dataclass(frozen=True)
class MapGroup:
    """Heatmaps read side by side, with the same rows.

    measure: what a cell's value is; rows: what the rows are; limits: measure → the end of its
    scale of colours, which goes from -limit to limit and is one for all maps; marks: what a marked
    cell is, or why none is marked; mark: how it looks; idle: one line on the maps whose noise hid
    nothing, "" where there are none. regions: where rows are [CLS] and then single regions of a
    picture, row by row, how many a side it has, so that they are drawn over it; picture: that one,
    and source_picture the donor's where it is another, "" for none. by_site: whether the maps are
    of sites, each with rows of its own, rather than of levels. answer: that is followed, in the
    words of a measure; sign: what a level is called.
    """

    title: str
    measure: str
    rows: str
    limits: Mapping[str, float]
    caption: str
    marks: str
    mark: str
    maps: tuple[Map, ...]
    idle: str = ""
    regions: int = 0
    picture: str = ""
    source_picture: str = ""
    by_site: bool = False
    answer: str = ""
    sign: str = "σ"

    @property
    def all_maps(self) -> list[Map]:
        """Its maps, each with those beside it."""
        return [shown for one in self.maps for shown in one.with_beside()]

    @property
    def limit(self) -> float:
        """The end of the scale of changes in probability."""
        return self.limits["value"]


@dataclass(frozen=True)
class Example:
    """One example that is shown.

    answers: question, text, answer, probability, others (the next answers in words);
    source_picture: of the source run, "" where it is the same.
    """

    pair: Pair
    picture: str
    source_picture: str
    answers: pd.DataFrame
    unknown_words: tuple[str, ...]
    maps: tuple[MapGroup, ...]


@dataclass(frozen=True)
class Strip:
    """The first example at a glance.

    questions: of the base and the source question, each its words, and whether it differs there.
    """

    example: Example
    questions: tuple[tuple[tuple[str, bool], ...], ...]
    map: MapGroup
    caption: str


@dataclass(frozen=True)
class RowEffect:
    """What an experiment shows of an example at its primary site and level.

    total_effect: in probability; changes: by layer, the largest at the differing word; depth: the
    last layer at which the answer turns, None where at none; null: the largest change that an
    unrelated example's state makes. NaN for what there is not.
    """

    total_effect: float
    changes: tuple[float, ...]
    depth: int | None
    null: float


@dataclass(frozen=True)
class OverviewRow:
    """An example in the overview: floor is p(base answer) with noise, NaN without."""

    example: str
    shown: bool
    questions: tuple[tuple[tuple[str, bool], ...], ...]
    answers: tuple[str, str]
    p_clean: float
    floor: float
    effects: tuple[RowEffect, ...]
    group: str
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Overview:
    """All examples, a row each; experiments: titles, in the order of a row's effects."""

    experiments: tuple[str, ...]
    rows: tuple[OverviewRow, ...]
    level: float
    grouped: bool
    caption: str


@dataclass(frozen=True)
class DepthCurve:
    """Shares by layer. lines: run (the line's name), layer, mean, low, high."""

    title: str
    caption: str
    lines: pd.DataFrame


# Words, and how they are set: "", "strong", "emphasis" or "code".
Words = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Block:
    """A block of a text: kind: paragraph, heading, item (of a list), or table.

    words: of all but a table; rows: of a table, its head first, each cell's words.
    """

    kind: str
    words: Words = ()
    rows: tuple[tuple[Words, ...], ...] = ()


@dataclass(frozen=True)
class ToldMethod:
    """The published method that a configuration names.

    claim: whether the run is that, in a sentence that else says what it changes; blocks: what was
    done there and here, none where the run is not that.
    """

    title: str
    claim: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Answered:
    """What an analysis of several experiments concludes; verdicts: in words, a row a conclusion."""

    name: str
    title: str
    question: str
    verdicts: pd.DataFrame


@dataclass(frozen=True)
class Story:
    """All that is told, in the order of telling.

    lead: the run in one sentence. measures: what its maps can show, the first at once;
    measures_caption: what these are, and of which marks are. findings: one sentence each.
    methods: what the experiments are. facts: fact, value. averages: maps over roles;
    marks_caption: what their marks are. groups: the share turned by group and layer, in words.
    means: run, noise_level (NaN for the clean run), mean, low, high, examples, draws, and of
    corrupted runs hidden, third and noise_in_sd; empty where nothing was traced. floors:
    example, noise_level, mean: p(base answer) with noise, where examples are too few for an
    interval. verdicts: quantity, compared, agree, expected, correlation, shift, power (of
    averages largest, bound), verdict, where; or None. expectations: what a faithful replication
    must show, in words. published_method: that of the configuration, or None. analyses: of
    several experiments. able: what the run is able to say, in words. negatives: in words.
    controls: experiment, control, meaning, checked, idle (those of them that could not have
    failed), effect, largest (these missing where no outcome is known). excluded: experiment,
    reason, examples, rows. versions: package, version. config: text of a configuration file
    that gives the run again. sign: what levels are called.
    """

    title: str
    lead: str
    strip: Strip | None
    findings: tuple[str, ...]
    overview: Overview | None
    methods: tuple[str, ...]
    facts: pd.DataFrame
    examples: tuple[Example, ...]
    examples_caption: str
    maps_caption: str
    depths: tuple[DepthCurve, ...]
    averages: tuple[MapGroup, ...]
    marks_caption: str
    measures: tuple[Measure, ...]
    measures_caption: str
    groups: pd.DataFrame
    groups_caption: str
    means: pd.DataFrame
    floors: pd.DataFrame
    means_caption: str
    verdicts: pd.DataFrame | None
    verdicts_caption: str
    expectations: pd.DataFrame
    published_method: ToldMethod | None
    analyses: tuple[Answered, ...]
    able: pd.DataFrame
    able_caption: str
    negatives: pd.DataFrame
    negatives_caption: str
    controls: pd.DataFrame
    controls_caption: str
    excluded: pd.DataFrame
    excluded_caption: str
    command: str
    versions: pd.DataFrame
    config: str
    sign: str = "σ"


def at_level(levels: pd.Series, level: float) -> pd.Series:
    """Whether each noise level is this one; NaN is that of what is not corrupted."""
    if np.isnan(level):
        return levels.isna()
    # A CSV's reader may miss a number by its last bit.
    return pd.Series(np.isclose(levels, level, rtol=1e-9, atol=0), levels.index)


def role_of(family: Any) -> str:
    """The role at whose positions a family of heads is; that of all where it says none."""
    role = family.get("token_role")
    return role if isinstance(role, str) and role else ALL


def is_known(rows: pd.DataFrame) -> pd.Series:
    """Whether a row's outcome is the same by construction, so that it is no finding."""
    return rows["known"].fillna("") != ""


def is_true(column: pd.Series) -> pd.Series:
    """Whether it holds, of what is missing in some rows."""
    return column.eq(True)


def sites_of(run: Run) -> Iterator[tuple[Experiment, str]]:
    """Each experiment with each of its sites."""
    for experiment in run.experiments:
        for site in experiment.sites:
            yield experiment, site
