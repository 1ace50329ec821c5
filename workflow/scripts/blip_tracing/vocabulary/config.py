"""The whole configuration, stated once: keys, types, defaults, ranges and what each key means.

The JSON schema, the manual's table and the defaults derive from these classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, Field, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from blip_tracing.vocabulary.analysis_checks import check_analyses
from blip_tracing.vocabulary.analysis_groups import Analyses
from blip_tracing.vocabulary.corruptions import DEVIATIONS, KINDS, OF_TOKENS
from blip_tracing.vocabulary.experiment import CLEAN, PICTURE_ONLY, QUESTIONS
from blip_tracing.vocabulary.groups import (
    AlsoCorrupt,
    Averages,
    Controls,
    Corrupt,
    Effects,
    ExperimentSpec,
    Model,
    Report,
    RunSpec,
    TablesSpec,
)
from blip_tracing.vocabulary.keys import Group, MetricName, Name, Positive, Text, refuse, unique
from blip_tracing.vocabulary.metrics import METRICS, NEEDED
from blip_tracing.vocabulary.sites import SITES, towers_of
from blip_tracing.vocabulary.tables import TABLES

# What an experiment cannot be called: its table and its page would take another's place.
TAKEN = (
    *TABLES, "index", "runtime", "runtimes", "replication", "supplement", CLEAN, "all",
    "model", "commit", "weights", "examples",
)  # fmt: skip


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
    metrics: Annotated[list[MetricName], Field(min_length=1), AfterValidator(unique)] = Field(
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
    method: str = Field(
        "",
        description="a Markdown file about the published method that this configuration is of; "
        "empty for none",
    )
    published: str = Field(
        "",
        description="a table of published figures, or of averages over examples, to compare with; "
        "empty for none",
    )
    averages: Averages = Field(Averages(), description="how published averages are compared with")
    report: Report = Field(Report(), description="what the reports show")

    @model_validator(mode="after")
    def _names_are_free_and_known(self) -> Config:
        for name in self.runs:
            if name in QUESTIONS:
                refuse(("runs", name), "base and source are always there; take another name")
            if name == CLEAN:
                refuse(("runs", name), "is what base and source are; take another name")
            if name == PICTURE_ONLY:
                refuse(("runs", name), "is always there; take another name")
        runs = [*QUESTIONS, *self.runs]
        for name, experiment in self.experiments.items():
            if name in TAKEN:
                refuse(("experiments", name), "is another table's or page's; take another name")
            for end in ("receiver", "donor"):
                run = getattr(experiment, end)
                if run not in runs:
                    place = ["experiments", name, end]
                    context = {"place": place, "run": run, "known": runs}
                    raise PydanticCustomError("unknown_run", "{run} is not a run", context)
            if experiment.receiver == experiment.donor:
                refuse(
                    ("experiments", name),
                    f"{experiment.donor!r} is both receiver and donor, so that nothing would "
                    "change; give another run for one",
                )
            if {experiment.receiver, experiment.donor} <= set(self.runs):
                refuse(
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
            if corrupt.role and tokens and corrupt.role not in roles:
                context = {"place": [*key, "role"], "role": corrupt.role, "known": roles}
                raise PydanticCustomError("unknown_role", "{role} is not a role", context)
            if corrupt.unit == DEVIATIONS and not (kind.adds and tokens):
                refuse(
                    (*key, "unit"),
                    f"{DEVIATIONS} is of Gaussian noise on a question, not of {corrupt.kind} at "
                    f"{corrupt.at}; leave it out",
                )
            if (
                corrupt.role
                and corrupt.unit == DEVIATIONS
                and any(rule.answer for rule in self.effects.roles)
            ):
                refuse(
                    (*key, "role"),
                    f"{DEVIATIONS} is of the whole sheet, before its questions are answered, and a "
                    "rule of effects.roles asks for the answer; give absolute levels, other rules",
                )
            if also := corrupt.also:
                _check_also((*key, "also"), corrupt, also)
            drawn = kind.drawn or bool(also and KINDS[also.kind].drawn)
            if not drawn and "draws" not in corrupt.model_fields_set:
                corrupt.draws = 1
            if not drawn and corrupt.draws != 1:
                refuse((*key, "draws"), f"{corrupt.kind} draws nothing; leave it out")
            if not kind.drawn and corrupt.fresh:
                refuse((*key, "fresh"), f"{corrupt.kind} draws nothing; leave it out")
        return self

    @model_validator(mode="after")
    def _sites_fit_what_is_put_in(self) -> Config:
        for name, experiment in self.experiments.items():
            place = ("experiments", name)
            sites = [SITES[site] for site in experiment.sites]
            for tower in towers_of(experiment.sites):
                layers = getattr(self.model.layers, tower)
                if experiment.window > layers:
                    refuse(
                        (*place, "window"),
                        f"{experiment.window} is more than the {layers} layers of the {tower} "
                        f"tower; give at most {layers}",
                    )
            if experiment.heads and sites and not any(site.heads for site in sites):
                refuse(
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
                refuse(("metrics",), f"{metric} is missing, which effects are measured by; add it")
        return self

    @model_validator(mode="after")
    def _metric_can_be_tested(self) -> Config:
        effects, key = self.effects, ("effects", "metric")
        metric = METRICS[effects.metric]
        measured = any(experiment.sites for experiment in self.experiments.values())
        if measured and metric.name not in self.metrics:
            refuse(key, f"{metric.name} is not in metrics, by which runs are scored; add it there")
        default = Effects.model_fields["metric"].default
        if metric.name != default and "least_effect" not in effects.model_fields_set:
            refuse(
                ("effects", "least_effect"),
                f"the default is of {default}, and {metric.name} is tested; give one in its units",
            )
        if metric.bounded and effects.least_effect > metric.highest - metric.lowest:
            refuse(
                ("effects", "least_effect"),
                f"{effects.least_effect:g} is more than {metric.name} can change by; give at most "
                f"{metric.highest - metric.lowest:g}",
            )
        for name in Analyses.model_fields:
            if metric.name != default and getattr(self.analyses, name) is not None:
                refuse(
                    key,
                    f"the analysis {name} compares changes in {default}; leave out effects.metric "
                    f"or analyses.{name}",
                )
        return self

    @model_validator(mode="after")
    def _analyses_can_be_made(self) -> Config:
        check_analyses(self)
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


def _check_also(place: tuple[str, ...], corrupt: Corrupt, also: AlsoCorrupt) -> None:
    """Refuse two corruptions of one thing, or two that would have the same numbers for noise."""
    if corrupt.at not in OF_TOKENS:
        refuse(
            place,
            f"{corrupt.at} is the picture's, which {place[-1]} is for; corrupt the question, or "
            "leave it out",
        )
    if also.at in OF_TOKENS:
        refuse(
            (*place, "at"),
            f"{also.at} is the question's, as {corrupt.at} is; give a place of the picture",
        )
    if KINDS[corrupt.kind].drawn and KINDS[also.kind].drawn and also.seed == corrupt.seed:
        refuse(
            (*place, "seed"),
            f"{also.seed} is the question's too, so that both would have the same noise; give "
            "another",
        )


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
