"""What can be asked of several experiments together: a group of keys an analysis."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from blip_tracing.vocabulary.keys import (
    Group,
    Head,
    HeadScore,
    Name,
    NullName,
    Number,
    Positive,
    Quantity,
    QuantityName,
    Seed,
    SiteName,
    Text,
    unique,
)
from blip_tracing.vocabulary.multiverse import NULLS


class Pair(Group):
    """Two experiments whose receivers and donors are each other's."""

    sufficient: Name = Field(description="the experiment that brings the answer back")
    necessary: Name = Field(description="the one that takes it away, at the same sites")


class Directions(Group):
    """Which places suffice for the answer, and which it needs."""

    pairs: Annotated[list[Pair], Field(min_length=1)] = Field(
        description="of experiments: sufficient (receiver corrupted, donor clean), necessary (the "
        "other way round, with the same window, positions, heads and regions)"
    )


class Measure(Group):
    """What a change is measured in, and the least of it that counts."""

    quantity: QuantityName = Field(description="as the table of effects calls it")
    least: Annotated[list[Number], Field(min_length=1), AfterValidator(unique)] = Field(
        [0.0], description="the least changes, in the quantity's unit, one a universe"
    )


class Multiverse(Group):
    """The ways to ask where the answer is, each of which is a universe with all others."""

    experiments: Annotated[list[Name], Field(min_length=1), AfterValidator(unique)] = Field(
        description="at all their levels and sites"
    )
    quantities: Annotated[list[Measure], Field(min_length=1)] = Field(
        [Measure(quantity="probability_change", least=[0.02])],
        description="what changes are measured in (quantity), each with its least changes (least), "
        "as many for each",
    )
    spreads: Annotated[list[Number], AfterValidator(unique)] = Field(
        [],
        description="thresholds beside these: so many standard deviations of a map's means above "
        "their mean (2 in NOTICE)",
    )
    nulls: Annotated[list[NullName], Field(min_length=1), AfterValidator(unique)] = Field(
        list(NULLS),
        description="what a change is tested against: the reference alone (none), or what an "
        "unrelated state does too (unrelated)",
    )
    seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(unique)] = Field(
        [0], description="seeds of the tests' sign flips"
    )
    top: Positive | None = Field(
        None,
        description="how many places the top set has at most, all that are found where it is left "
        "out",
    )


class Fusion(Group):
    """Which places carry the question, the picture, or both: the donor clean in all three."""

    question: Name = Field(description="the experiment whose receiver has its question corrupted")
    picture: Name = Field(description="the one whose receiver has its picture corrupted")
    both: Name = Field(
        description="the one whose receiver has both corrupted (also), each as in the others"
    )


class Confirm(Group):
    """Claims that one half of the sheet gives, tested once on the other."""

    experiments: Annotated[list[Name], Field(min_length=1), AfterValidator(unique)] = Field(
        description="whose places may be claimed, at their sites and the primary level"
    )
    claims: Positive = Field(
        3, description="how many places are claimed at most; each one more costs the others power"
    )
    share: Annotated[float, Field(ge=0.1, le=0.9)] = Field(
        0.5, description="of the pictures, in the long run, that claims are drawn from"
    )
    salt: str = Field(
        "", description="any text; another one splits otherwise, before anything is measured"
    )


class Methods(Group):
    """Which methods find the same places."""

    experiments: dict[Text, Name] = Field(
        description="of each method, by what a reader calls it, the experiment"
    )
    quantities: Annotated[list[Quantity], Field(min_length=1), AfterValidator(unique)] = Field(
        ["probability_change", "log_odds_change", "logit_difference_change", "normalised"],
        description="by which maps are compared, the first of them in what is concluded",
    )
    alike: Annotated[float, Field(ge=0, le=1)] = Field(
        0.8,
        description="the rank correlation of two maps, as a share of what their noise allows, from "
        "which on they agree, and below which they differ",
    )


class JointPair(Group):
    """Two experiments, of which one puts in together what the other puts in one by one."""

    joint: Name = Field(description="the experiment that puts in several layers or positions")
    singles: Name = Field(description="the one that puts in each of them alone")


class Synergy(Group):
    """What places do together beyond what each does alone."""

    pairs: Annotated[list[JointPair], Field(min_length=1)] = Field(
        description="of experiments: joint (roles, all, or a window), singles (each position, or a "
        "window of 1)"
    )
    least_logits: Number = Field(
        0.1,
        description="the least difference in log-odds or logits that counts; in probability it is "
        "effects.least_effect",
    )


class SelectedHeads(Group):
    """Which heads score far above the others at one token (Golovanevsky et al. 2025)."""

    experiments: Annotated[list[Name], Field(min_length=1), AfterValidator(unique)] = Field(
        description="experiments with sites of heads of the question encoder; a head that is kept "
        "in all of them is universal"
    )
    role: Text = Field(description="the role, of one token, at which heads are scored")
    score: HeadScore = Field(
        "logit_difference_change", description="what a head is scored by, in absolute value"
    )
    deviations: Number = Field(
        2, description="how many standard deviations above the mean of all heads a kept one scores"
    )
    expected_at: SiteName = Field(
        "encoder.cross_attention_heads", description="the site of the heads that are expected"
    )
    expected: Annotated[list[Head], AfterValidator(unique)] = Field(
        [], description="heads that were published, like L5.H3, to be counted among those kept"
    )


class Analyses(Group):
    """What is asked of several experiments together; what is left out is not asked."""

    directions: Directions | None = Field(
        None, description="sufficient against necessary, place by place"
    )
    multiverse: Multiverse | None = Field(
        None, description="what is found whichever way the question is asked"
    )
    fusion: Fusion | None = Field(
        None, description="where what the answer needs of question and picture comes together"
    )
    confirm: Confirm | None = Field(
        None, description="claims drawn from one half of the sheet, tested once on the other"
    )
    methods: Methods | None = Field(
        None, description="methods and metrics side by side, map by map"
    )
    synergy: Synergy | None = Field(
        None, description="joint restoration against the sum of singles"
    )
    selected_heads: SelectedHeads | None = Field(
        None, description="the heads that score highest at one token, and those that were published"
    )
