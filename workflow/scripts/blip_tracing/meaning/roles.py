"""The common axis of examples: the role of each token, by rules, and of what a cell puts in."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from math import isqrt
from types import MappingProxyType

import pandas as pd

from blip_tracing.vocabulary.experiment import BY_ROLE, EACH, QUESTIONS, TOGETHER, Experiment
from blip_tracing.vocabulary.regions import picture_roles, region_roles
from blip_tracing.vocabulary.roles import (
    ALL,
    ANSWER,
    DEC,
    DECODER_ROLES,
    END,
    NO_ROLE,
    START,
    Answered,
    Rule,
    answered_at,
    part_of,
    settling_order,
)
from blip_tracing.vocabulary.sites import DECODER, ENCODER, SITES, VISION

# What is known of the positions that a cell puts in together.
ALIKE = ["equal", "covers", "whole", "same_question", "same_picture"]
POSITION = ["tower", "example", "position"]


def assign_roles(
    tokens: pd.DataFrame, rules: Sequence[Rule], runs: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The role of each token of the base questions: example, position, token_role ("" for none).

    tokens, runs: these tables, the latter where a rule asks for the answer; rules: those of
    `effects.roles`, as `check_roles` lets them pass.
    differs: whether the source question has another token there, or none.
    """
    ordered = tokens.sort_values(["example", "question", "position"])
    questions = ordered.groupby(["example", "question"])["token"].agg(list)
    answers = answers_of(ordered, runs) if runs is not None else {}
    parts = []
    for example in tokens["example"].unique():
        base, source = questions[example, "base"], questions[example, "source"]
        answered = {name: answers.get((example, name), ()) for name in QUESTIONS}
        roles = roles_of(base, source, rules, answered)
        differs = [at >= len(source) or base[at] != source[at] for at in range(len(base))]
        parts.append(
            pd.DataFrame(
                {"example": example, "position": range(len(base)), "token_role": roles,
                 "differs": differs}
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def answers_of(tokens: pd.DataFrame, runs: pd.DataFrame) -> dict[tuple[str, str], list[int]]:
    """(example, question) → where the question names its own answer; of these tables."""
    clean = runs[runs["run"].isin(QUESTIONS)].set_index(["example", "run"])["answer_id"]
    ids = tokens.groupby(["example", "question"])["token_id"].agg(list)
    return {key: answered_at(ids[key], clean[key]) for key in ids.index}


def roles_of(
    base: Sequence[str],
    source: Sequence[str],
    rules: Sequence[Rule],
    answered: Answered = MappingProxyType({}),
) -> list[str]:
    """The role of each token of one base question: the first whose rules all hold, else "".

    token: the regular expression matches the whole token. pair: the token "differs" from the
    source question's at its position, or is the "same"; what stands beyond the source question's
    end differs, and [CLS] and [SEP], which every question has, never do. before, after: the token
    stands before the first or after the last token of another role; neither holds where the
    example has no token of that role. of: the token is one of another role's. answer: the question
    of that name has the first token of its own answer there (`answered`), whichever of the two the
    tokens are. part: of those for which the others hold the first, the last or those between.
    A role that others refer to has the tokens that hold to its rules and to those of no role listed
    before it, save roles that refer to it themselves.
    Raises InputError for roles that refer to each other in a circle.
    """
    names = [rule["role"] for rule in rules]
    holding: dict[str, Set[int]] = {}
    owned: dict[str, Set[int]] = {}
    for rule in settling_order(rules):
        name = rule["role"]
        held = {at for at in range(len(base)) if _holds(rule, at, base, source, owned, answered)}
        if "part" in rule:
            held = set(part_of(held, rule["part"]))
        listed_before = names[: names.index(name)]
        owned[name] = held.difference(*(holding.get(other, ()) for other in listed_before))
        holding[name] = held
    return [
        next((name for name in names if at in holding[name]), NO_ROLE) for at in range(len(base))
    ]


def roles_by(
    rules: Sequence[Rule],
) -> Callable[[Sequence[str], Sequence[str], Answered], list[str]]:
    """What tells roles by these rules, from a question's tokens, the other's, and `Answered`."""

    def told(base: Sequence[str], source: Sequence[str], answered: Answered) -> list[str]:
        return roles_of(base, source, rules, answered)

    return told


def _holds(
    rule: Rule,
    at: int,
    base: Sequence[str],
    source: Sequence[str],
    owned: Mapping[str, Set[int]],
    answered: Answered,
) -> bool:
    """Whether all rules of a role hold for the token at a position; `owned`: settled roles."""
    return (
        ("token" not in rule or re.fullmatch(rule["token"], base[at]) is not None)
        and ("pair" not in rule or (rule["pair"] == "differs") == _differs(at, base, source))
        and ("before" not in rule or at < min(owned[rule["before"]], default=at))
        and ("after" not in rule or at > max(owned[rule["after"]], default=at))
        and ("of" not in rule or at in owned[rule["of"]])
        and ("answer" not in rule or at in answered.get(rule["answer"], ()))
    )


def _differs(at: int, base: Sequence[str], source: Sequence[str]) -> bool:
    if base[at] in (START, END):
        return False
    return at >= len(source) or base[at] != source[at]


def role_names(rules: Sequence[Rule], boxes: Iterable[str]) -> dict[str, Sequence[str]]:
    """The roles of each tower in their order, which numbers them where they are put in together.

    rules: of `effects.roles`; boxes: the whole sheet's, in whose order names appear.
    """
    return {
        ENCODER: [rule["role"] for rule in rules],
        DECODER: DECODER_ROLES,
        VISION: picture_roles(boxes),
    }


@dataclass(frozen=True)
class Known:
    """What is known of examples before they are measured, beside their cells.

    roles: of `assign_roles`; names: of `role_names`; boxes: example → its boxes in the sheet;
    exchanged: the examples whose source run sees another picture.
    """

    roles: pd.DataFrame
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    boxes: Mapping[str, str] = field(default_factory=dict)
    exchanged: Set[str] = frozenset()


def cell_positions(experiment: Experiment, cells: pd.DataFrame, known: Known) -> pd.DataFrame:
    """What a cell's position is: one, those of a role, or all of them, as the experiment asks.

    cells: the experiment's, of whole examples. Returns a row a tower, example and position, with
    its token_role ("" where it has none); of the states that are put in there, before the first
    block: equal, whether donor and receiver have the same; covers, whether nowhere else they
    differ; whole, whether they are all that the tower has; same_question, same_picture: whether
    donor and receiver are asked and shown the same, corruptions aside.
    """
    one_question = experiment.receiver.question == experiment.donor.question
    tokens = known.roles.assign(differs=known.roles["differs"] & (not one_question))
    towers = {site: SITES[site].tower for site in experiment.sites}
    there = cells.assign(tower=cells["site"].map(towers))[POSITION].drop_duplicates()
    parts = []
    for tower in dict.fromkeys(towers.values()):
        names, own = known.names.get(tower, []), there[there["tower"] == tower]
        if tower == ENCODER:
            part = _of_question(experiment, tokens, names)
        elif tower == DECODER:
            part = _of_answer(experiment, own, names)
        else:
            part = _of_picture(experiment, own, names, known.boxes)
        parts.append(part.assign(tower=tower))
    table = pd.concat(parts, ignore_index=True)
    differing = tokens.groupby("example")["differs"].any()
    return table.assign(
        same_question=~table["example"].map(differing).eq(True),
        same_picture=one_question or ~table["example"].isin(known.exchanged),
    )[[*POSITION, "token_role", *ALIKE]]


def _of_question(
    experiment: Experiment, tokens: pd.DataFrame, names: Sequence[str]
) -> pd.DataFrame:
    """Of the encoder: tokens, those of a role, or all; tokens have `differs` as the runs do."""
    if experiment.positions == BY_ROLE:
        numbers = {name: number for number, name in enumerate(names)}
        put = tokens.assign(position=tokens["token_role"].map(numbers)).dropna(subset="position")
        put = put.astype({"position": "int64"})
    elif experiment.positions == EACH:
        put = tokens
    else:
        put = tokens.assign(position=0, token_role=ALL)
    cells = (
        put.groupby(["example", "position"], sort=False)
        .agg(
            token_role=("token_role", "first"),
            differing=("differs", "sum"),
            tokens=("differs", "size"),
        )
        .reset_index()
    )
    whole = tokens.groupby("example")["differs"].agg(["sum", "size"])
    return cells.assign(
        equal=cells["differing"] == 0,
        covers=cells["differing"] == cells["example"].map(whole["sum"]),
        whole=cells["tokens"] == cells["example"].map(whole["size"]),
    )


def _of_answer(experiment: Experiment, there: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Of the decoder: [DEC] and the tokens of the answer that is followed, alike in all runs."""
    alone = there.groupby("example")["position"].transform("size") == 1
    if experiment.positions == EACH:
        roles = [DEC if at == 0 else ANSWER for at in there["position"]]
    else:
        roles = _named(experiment, there, names)
    return there.assign(token_role=roles, equal=True, covers=alone, whole=alone)


def _of_picture(
    experiment: Experiment, there: pd.DataFrame, names: Sequence[str], boxes: Mapping[str, str]
) -> pd.DataFrame:
    """Of the vision tower: [CLS], which is the same before the first block, and regions."""
    together = experiment.positions == TOGETHER
    if experiment.positions == EACH:
        side = isqrt(int(there["position"].max()))
        of_example = {
            example: region_roles(side, experiment.regions, boxes.get(example, ""))
            for example in there["example"].unique()
        }
        roles = [
            of_example[example][at]
            for example, at in zip(there["example"], there["position"], strict=True)
        ]
    else:
        roles = _named(experiment, there, names)
    return there.assign(
        token_role=roles,
        equal=(there["position"] == 0) & (not together),
        covers=together,
        whole=together,
    )


def _named(experiment: Experiment, there: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The role that each position is the number of; of all positions the name of the whole."""
    if experiment.positions == TOGETHER:
        return [ALL] * len(there)
    return [names[number] for number in there["position"]]
