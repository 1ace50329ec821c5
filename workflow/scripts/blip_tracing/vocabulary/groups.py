"""The configuration's groups but for its analyses: keys, types, defaults, ranges, meanings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from blip_tracing.vocabulary.keys import (
    LARGEST,
    CorruptionKind,
    CorruptionPlace,
    Group,
    Index,
    LevelUnit,
    MetricName,
    Name,
    Number,
    Part,
    Positions,
    Positive,
    Question,
    Seed,
    SiteName,
    Text,
    unique,
)


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


class AlsoCorrupt(Group):
    """A corruption of the picture beside one of the question."""

    kind: CorruptionKind = Field("multiplicative", description="how the picture is changed")
    at: CorruptionPlace = Field("picture.states", description="which of its states are changed")
    level: Number = Field(description="how much, at all levels of the question's corruption")
    seed: Seed = Field(
        1, description="of its draws, as many as the question's, which have another seed"
    )


class Corrupt(Group):
    """A corruption of a run."""

    kind: CorruptionKind = Field("gaussian", description="how states are changed")
    at: CorruptionPlace = Field("question.embeddings", description="which states are changed")
    levels: Annotated[list[Number], Field(min_length=1), AfterValidator(unique)] = Field(
        [0.1, 0.5, 1, 2, 5, 10, 20], description="how much; what a level is depends on the kind"
    )
    unit: LevelUnit = Field(
        "absolute",
        description="what the levels of Gaussian noise on a question count in: itself, or standard "
        "deviations (std) of the states that are changed, over all examples of the sheet",
    )
    role: str = Field(
        "",
        description="what alone is changed: of a question the tokens of a role of effects.roles, "
        "of a picture the patches on a box of the sheet, or on none (background); empty for all",
    )
    fresh: bool = Field(
        False,
        description="whether every cell has draws of its own, as in Palit et al., and a corrupted "
        "run of its own; else an example's cells share each draw",
    )
    draws: Positive = Field(10, description="draws at each level; 1 where the kind draws nothing")
    seed: Seed = Field(
        0, description="where the generator starts; the same seed gives the same results"
    )
    also: AlsoCorrupt | None = Field(
        None, description="what is done to the picture too, where this is done to the question"
    )


class RunSpec(Group):
    """A run beside base and source."""

    of: Question = Field(description="the question that is run, base or source")
    corrupt: Corrupt = Field(description="what hides its answer")


class ExperimentSpec(Group):
    """The states of a donor run put into a receiver run."""

    receiver: Name = Field(description="the run that is intervened on, base, source or one of runs")
    donor: Name = Field(description="the run whose states are put into it")
    sites: Annotated[list[SiteName], AfterValidator(unique)] = Field(
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
    heads: Annotated[list[Index], AfterValidator(unique)] = Field(
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
    of: Text | None = Field(None, description="another role, which the token is one of")
    answer: Question | None = Field(
        None,
        description="the question whose answer begins with the token that stands there in it, as "
        "in a question of two choices",
    )
    part: Part | None = Field(
        None,
        description="which of the tokens for which the other rules hold: the first, the last, or "
        "those between",
    )


class Effects(Group):
    """How effects are derived from the measurements, averaged and tested."""

    total_effect: Annotated[float, Field(ge=0, le=1)] = Field(
        0.05,
        description="the least total effect, in probability, of an example that is included",
    )
    metric: MetricName = Field(
        "probability",
        description="the metric, of those in metrics, whose change and contrast with the null are "
        "tested and marked; analyses are of probability",
    )
    least_effect: Number = Field(
        0.02,
        description="the least change of a cell that is marked, in the units of effects.metric",
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


class Averages(Group):
    """How a run is held against published averages over examples."""

    same_examples: bool = Field(
        False, description="whether the sheet's examples are those that the averages are over"
    )
    run: Name | None = Field(
        None,
        description="the corrupted run that is held against them, where experiments restore in "
        "several",
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
