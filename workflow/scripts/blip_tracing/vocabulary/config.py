"""The whole configuration, stated once: keys, types, defaults, ranges and what each key means.

The JSON schema, the manual's table and the defaults derive from these classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from blip_tracing.vocabulary.corruptions import (
    DEVIATIONS,
    KINDS,
    OF_TOKENS,
    PLACES,
    UNITS,
)
from blip_tracing.vocabulary.experiment import CLEAN, PICTURE_ONLY, POSITIONS, QUESTIONS
from blip_tracing.vocabulary.metrics import METRICS, NEEDED
from blip_tracing.vocabulary.sites import SITES, misnamed, towers_of
from blip_tracing.vocabulary.tables import TABLES

# Of whole numbers: numpy and the tables have 64 bits for one.
LARGEST = 2**63 - 1
# The name of a run or an experiment: a wildcard, a file's and a table's name.
NAME = r"[a-z][a-z0-9_]*"
# What an experiment cannot be called: its table and its page would take another's place.
TAKEN = (
    *TABLES, "index", "runtime", "runtimes", "replication", "supplement", CLEAN, "all",
    "model", "commit", "weights", "examples",
)  # fmt: skip


def _unique(values: list[Any]) -> list[Any]:
    for number, value in enumerate(values):
        if value in values[:number]:
            raise PydanticCustomError("given_twice", "{value}", {"value": value})
    return values


def _site(name: Any) -> Any:
    """A site's name; refused in words of its own where what it stands for elsewhere is known."""
    if isinstance(name, str) and name not in SITES and (fault := misnamed(name)):
        raise PydanticCustomError("misnamed", "{fault}", {"fault": fault})
    return name


Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Seed = Annotated[int, Field(ge=0, le=LARGEST)]
Index = Annotated[int, Field(ge=0, le=LARGEST)]
Number = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(pattern=f"^{NAME}$", max_length=40)]
if TYPE_CHECKING:  # which knows no Literal of what is registered
    Question = str
    SiteName = str
    Positions = str
    MetricName = str
    CorruptionKind = str
    CorruptionPlace = str
    LevelUnit = str
else:
    Question = Literal[tuple(QUESTIONS)]
    SiteName = Annotated[Literal[tuple(SITES)], BeforeValidator(_site)]
    Positions = Literal[tuple(POSITIONS)]
    MetricName = Literal[tuple(METRICS)]
    CorruptionKind = Literal[tuple(KINDS)]
    CorruptionPlace = Literal[tuple(PLACES)]
    LevelUnit = Literal[tuple(UNITS)]


class Group(BaseModel):
    """A group of keys: no other than these, each of its own type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Layers(Group):
    """The number of blocks of each tower."""

    encoder: Positive = Field(
        description="blocks of the question encoder (num_hidden_layers of text_config)"
    )
    decoder: Positive = Field(description="blocks of the answer decoder, of the same text_config")
    vision: Positive = Field(
        description="blocks of the vision tower (num_hidden_layers of vision_config)"
    )


class Model(Group):
    """The model that is traced."""

    name: Text = Field(
        description="the checkpoint's directory, or a Hub id like Salesforce/blip-vqa-base"
    )
    revision: Text = Field(
        "main", description="the Hub's branch, tag or commit; a local directory has none"
    )
    layers: Layers = Field(
        description="the number of blocks of each tower; jobs are planned before the model is there"
    )
    dtype: Literal["float32", "float64", "bfloat16"] = Field(
        "float32", description="the number format that the model is run in"
    )


class Corrupt(Group):
    """A corruption of a run."""

    kind: CorruptionKind = Field("gaussian", description="how states are changed")
    at: CorruptionPlace = Field("question.embeddings", description="which states are changed")
    levels: Annotated[list[Number], Field(min_length=1), AfterValidator(_unique)] = Field(
        [0.1, 0.5, 1, 2, 5, 10, 20], description="how much; what a level is depends on the kind"
    )
    unit: LevelUnit = Field(
        "absolute",
        description="what the levels of Gaussian noise on a question count in: itself, or standard "
        "deviations (std) of the states that are changed, over all examples of the sheet",
    )
    role: str = Field(
        "",
        description="the role, of those in effects.roles, whose tokens alone are changed; empty "
        "for all",
    )
    draws: Positive = Field(10, description="draws at each level; 1 where the kind draws nothing")
    seed: Seed = Field(
        0, description="where the generator starts; the same seed gives the same results"
    )


class RunSpec(Group):
    """A run beside base and source."""

    of: Question = Field(description="the question that is run, base or source")
    corrupt: Corrupt = Field(description="what hides its answer")


class ExperimentSpec(Group):
    """The states of a donor run put into a receiver run."""

    receiver: Name = Field(description="the run that is intervened on, base, source or one of runs")
    donor: Name = Field(description="the run whose states are put into it")
    sites: Annotated[list[SiteName], AfterValidator(_unique)] = Field(
        ["encoder.block_input"], description="where; empty to leave the experiment out"
    )
    window: Positive = Field(
        1, description="how many consecutive layers are put in together, about each layer"
    )
    positions: Positions = Field(
        "each",
        description="what a cell puts in: each position in turn, those of a role together (roles), "
        "or all of them",
    )
    heads: Annotated[list[Index], AfterValidator(_unique)] = Field(
        [], description="which heads of a site of heads, by number from 0; empty for all"
    )
    regions: Index = Field(
        6,
        description="side of the grid of regions that a picture is cut into at a site of the "
        "vision tower; 0 for every patch",
    )


class Controls(Group):
    """The controls that every job computes beside its results."""

    donors: Positive = Field(
        5, description="how many unrelated examples an example's null takes, if there are"
    )
    null_draws: Positive | None = Field(
        None,
        description="draws at which an unrelated example's state is put in too, all where it is "
        "left out; each costs as much as a draw of the results",
    )
    seed: Seed = Field(
        0, description="seed of the order in which unrelated examples are drawn from those alike"
    )


class RoleRule(Group):
    """A role of tokens and the rules that hold for them."""

    role: Text = Field(description="the role's name")
    token: Text | None = Field(None, description="a regular expression that the token matches")
    pair: Literal["differs", "same"] | None = Field(
        None, description="whether the token differs between base and source question"
    )
    before: Text | None = Field(
        None, description="another role, before whose first token the token stands"
    )
    after: Text | None = Field(
        None, description="another role, after whose last token the token stands"
    )


class Effects(Group):
    """How effects are derived from the measurements, averaged and tested."""

    total_effect: Annotated[float, Field(ge=0, le=1)] = Field(
        0.05,
        description="the least total effect, in probability, of an example that is included",
    )
    least_effect: Annotated[float, Field(ge=0, le=1)] = Field(
        0.02, description="the least change, in probability, of a cell that is marked"
    )
    primary_level: Number | None = Field(
        None,
        description="the level of each corrupted run at which conclusions are drawn and examples "
        "are included; left out, the middle one",
    )
    roles: Annotated[list[RoleRule], Field(min_length=1)] = Field(
        [
            RoleRule(role="[CLS]", token=r"\[CLS\]"),
            RoleRule(role="before it", before="differing word"),
            RoleRule(role="differing word", pair="differs"),
            RoleRule(role="after it", after="differing word", token=r"(?!\[SEP\]).*"),
            RoleRule(role="[SEP]", token=r"\[SEP\]"),
        ],
        description="the axis on which questions of different lengths are averaged: each token "
        "takes the first role whose rules all hold",
    )
    resamples: Annotated[int, Field(ge=100, le=LARGEST)] = Field(
        2000, description="bootstrap resamples and sign flips behind intervals and tests"
    )
    seed: Seed = Field(0, description="seed of the resampling behind intervals and tests")


class Pair(Group):
    """Two experiments whose receivers and donors are each other's."""

    sufficient: Name = Field(description="the experiment that brings the answer back")
    necessary: Name = Field(description="the one that takes it away, at the same sites")


class Directions(Group):
    """Which places suffice for the answer, and which it needs."""

    pairs: Annotated[list[Pair], Field(min_length=1)] = Field(
        description="of experiments: sufficient (receiver corrupted, donor clean), necessary (the "
        "other way round)"
    )


class Analyses(Group):
    """What is asked of several experiments together; what is left out is not asked."""

    directions: Directions | None = Field(
        None, description="sufficient against necessary, place by place"
    )


class TablesSpec(Group):
    """How tables are written."""

    format: Literal["csv", "parquet"] = Field(
        "csv", description="of the tables with a row a cell; parquet for hundreds of examples"
    )


class Report(Group):
    """What the reports show of the tables."""

    examples: Positive = Field(
        12, description="how many of the sheet's first examples are drawn one by one"
    )
    draws_at: Number = Field(
        1.0, description="the level of each corrupted run whose draws are shown one by one"
    )


class Config(Group):
    """What is measured. Where it is measured (cores, GPUs, clusters) is the profiles' matter."""

    model: Model = Field(description="the model to trace, with at least its name and layers")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where the model runs; auto takes a GPU where there is one"
    )
    examples: Text = Field(description="the sheet of examples, a tab-separated file")
    runs: dict[Name, RunSpec] = Field(
        {}, description="runs beside base and source, by name: a question, corrupted"
    )
    experiments: dict[Name, ExperimentSpec] = Field(
        {}, description="what is put where, by name: receiver, donor, sites"
    )
    metrics: Annotated[list[MetricName], Field(min_length=1), AfterValidator(_unique)] = Field(
        ["probability", "logit"], description="what each run is scored by"
    )
    shard_size: Positive = Field(
        16, description="how many consecutive rows of the sheet make one job"
    )
    layers_per_job: Positive = Field(
        1,
        description="how many layers one job of an experiment without corrupted runs does; more "
        "saves the time to load the model again, fewer run side by side",
    )
    noise_levels_per_job: Positive = Field(
        1, description="how many levels one job of an experiment with a corrupted run does"
    )
    controls: Controls = Field(Controls(), description="the controls beside the results")
    effects: Effects = Field(Effects(), description="how effects are averaged and tested")
    analyses: Analyses = Field(
        Analyses(), description="what is asked of several experiments together"
    )
    tables: TablesSpec = Field(TablesSpec(), description="how tables are written")
    published: str = Field(
        "", description="a table of published figures to compare with; empty for none"
    )
    report: Report = Field(Report(), description="what the reports show")

    @model_validator(mode="after")
    def _names_are_free_and_known(self) -> Config:
        for name in self.runs:
            if name in QUESTIONS:
                _refuse(("runs", name), "base and source are always there; take another name")
            if name == CLEAN:
                _refuse(("runs", name), "is what base and source are; take another name")
            if name == PICTURE_ONLY:
                _refuse(("runs", name), "is always there; take another name")
        runs = [*QUESTIONS, *self.runs]
        for name, experiment in self.experiments.items():
            if name in TAKEN:
                _refuse(("experiments", name), "is another table's or page's; take another name")
            for end in ("receiver", "donor"):
                run = getattr(experiment, end)
                if run not in runs:
                    place = ["experiments", name, end]
                    context = {"place": place, "run": run, "known": runs}
                    raise PydanticCustomError("unknown_run", "{run} is not a run", context)
            if experiment.receiver == experiment.donor:
                _refuse(
                    ("experiments", name),
                    f"{experiment.donor!r} is both receiver and donor, so that nothing would "
                    "change; give another run for one",
                )
            if {experiment.receiver, experiment.donor} <= set(self.runs):
                _refuse(
                    ("experiments", name),
                    "both receiver and donor are corrupted; let one of them be base or source",
                )
        return self

    @model_validator(mode="after")
    def _corruptions_can_be_made(self) -> Config:
        roles = [rule.role for rule in self.effects.roles]
        for name, run in self.runs.items():
            corrupt, key = run.corrupt, ("runs", name, "corrupt")
            kind, tokens = KINDS[corrupt.kind], corrupt.at in OF_TOKENS
            if corrupt.role and not tokens:
                _refuse((*key, "role"), f"{corrupt.at} has no tokens; leave it out")
            if corrupt.role and corrupt.role not in roles:
                context = {"place": [*key, "role"], "role": corrupt.role, "known": roles}
                raise PydanticCustomError("unknown_role", "{role} is not a role", context)
            if corrupt.unit == DEVIATIONS and not (kind.adds and tokens):
                _refuse(
                    (*key, "unit"),
                    f"{DEVIATIONS} is of Gaussian noise on a question, not of {corrupt.kind} at "
                    f"{corrupt.at}; leave it out",
                )
            if not kind.drawn and "draws" not in corrupt.model_fields_set:
                corrupt.draws = 1
            if not kind.drawn and corrupt.draws != 1:
                _refuse((*key, "draws"), f"{corrupt.kind} draws nothing; leave it out")
        return self

    @model_validator(mode="after")
    def _sites_fit_what_is_put_in(self) -> Config:
        for name, experiment in self.experiments.items():
            place = ("experiments", name)
            sites = [SITES[site] for site in experiment.sites]
            for tower in towers_of(experiment.sites):
                layers = getattr(self.model.layers, tower)
                if experiment.window > layers:
                    _refuse(
                        (*place, "window"),
                        f"{experiment.window} is more than the {layers} layers of the {tower} "
                        f"tower; give at most {layers}",
                    )
            if experiment.heads and sites and not any(site.heads for site in sites):
                _refuse(
                    (*place, "heads"),
                    "none of its sites has heads; leave heads out, or give a site like "
                    f"{sites[0].tower}.self_attention_heads",
                )
        return self

    @model_validator(mode="after")
    def _effects_can_be_measured(self) -> Config:
        for metric in NEEDED:
            if metric not in self.metrics and any(
                experiment.sites for experiment in self.experiments.values()
            ):
                _refuse(("metrics",), f"{metric} is missing, which effects are measured by; add it")
        return self

    @model_validator(mode="after")
    def _analyses_can_be_made(self) -> Config:
        asked = [name for name, each in self.experiments.items() if each.sites]
        if directions := self.analyses.directions:
            for number, pair in enumerate(directions.pairs):
                place = ("analyses", "directions", "pairs", number)
                for end in ("sufficient", "necessary"):
                    _known((*place, end), getattr(pair, end), asked)
                one, other = (self.experiments[name] for name in (pair.sufficient, pair.necessary))
                if (one.receiver, one.donor) != (other.donor, other.receiver):
                    _refuse(
                        place,
                        f"{pair.necessary} does not put into the donor of {pair.sufficient} what "
                        "its receiver has; exchange receiver and donor in one of them",
                    )
        return self

    def used_runs(self) -> list[str]:
        """The corrupted runs that an experiment with a site uses, in order of configuration."""
        named = {
            run
            for experiment in self.experiments.values()
            if experiment.sites
            for run in (experiment.receiver, experiment.donor)
        }
        return [name for name in self.runs if name in named]


def _known(place: tuple[str | int, ...], name: str, known: list[str]) -> None:
    """Refuse the name of an experiment that is not there or has no site."""
    if name not in known:
        context = {"place": list(place), "experiment": name, "known": known}
        raise PydanticCustomError("unknown_experiment", "{experiment} is unknown", context)


def _refuse(place: tuple[str | int, ...], reason: str) -> None:
    raise PydanticCustomError("refused", "{reason}", {"place": list(place), "reason": reason})


def keys_of(group: type[Group] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key that holds a value, by its dotted name; `<name>` stands for a name of one's own."""
    for name, field in group.model_fields.items():
        key = f"{prefix}{name}"
        inner = _group_within(field.annotation)
        if inner is None or get_origin(field.annotation) is list:
            yield key, field
        elif get_origin(field.annotation) is dict:
            yield from keys_of(inner, f"{key}.<name>.")
        else:
            yield from keys_of(inner, f"{key}.")


def _group_within(annotation: Any) -> type[Group] | None:
    """The group of keys that a field is, or holds by name."""
    if isinstance(annotation, type) and issubclass(annotation, Group):
        return annotation
    for inner in get_args(annotation):
        if found := _group_within(inner):
            return found
    return None
