"""The common axis of questions of different lengths: each token's role, by rules."""

import re
from collections.abc import Mapping, Sequence, Set

import pandas as pd

from blip_tracing.given.tokens import END, START
from blip_tracing.vocabulary.roles import NO_ROLE, Rule, settling_order


def assign_roles(tokens: pd.DataFrame, rules: Sequence[Rule]) -> pd.DataFrame:
    """The role of each token of the base questions: example, position, token_role ("" for none).

    tokens: the table `tokens`; rules: those of `effects.roles`, as `check_roles` lets them pass.
    """
    ordered = tokens.sort_values(["example", "question", "position"])
    questions = ordered.groupby(["example", "question"])["token"].agg(list)
    parts = []
    for example in tokens["example"].unique():
        base, source = questions[example, "base"], questions[example, "source"]
        roles = roles_of(base, source, rules)
        parts.append(
            pd.DataFrame({"example": example, "position": range(len(base)), "token_role": roles})
        )
    return pd.concat(parts, ignore_index=True)


def roles_of(base: Sequence[str], source: Sequence[str], rules: Sequence[Rule]) -> list[str]:
    """The role of each token of one base question: the first whose rules all hold, else "".

    token: the regular expression matches the whole token. pair: the token "differs" from the
    source question's at its position, or is the "same"; what stands beyond the source question's
    end differs, and [CLS] and [SEP], which every question has, never do. before, after: the token
    stands before the first or after the last token of another role; neither holds where the
    example has no token of that role. A role that others refer to has the tokens that hold to its
    rules and to those of no role listed before it, save roles that refer to it themselves.
    Raises InputError for roles that refer to each other in a circle.
    """
    names = [rule["role"] for rule in rules]
    holding: dict[str, Set[int]] = {}
    owned: dict[str, Set[int]] = {}
    for rule in settling_order(rules):
        name = rule["role"]
        held = {at for at in range(len(base)) if _holds(rule, at, base, source, owned)}
        listed_before = names[: names.index(name)]
        owned[name] = held.difference(*(holding.get(other, ()) for other in listed_before))
        holding[name] = held
    return [
        next((name for name in names if at in holding[name]), NO_ROLE) for at in range(len(base))
    ]


def _holds(
    rule: Rule, at: int, base: Sequence[str], source: Sequence[str], owned: Mapping[str, Set[int]]
) -> bool:
    """Whether all rules of a role hold for the token at a position; `owned`: settled roles."""
    return (
        ("token" not in rule or re.fullmatch(rule["token"], base[at]) is not None)
        and ("pair" not in rule or (rule["pair"] == "differs") == _differs(at, base, source))
        and ("before" not in rule or at < min(owned[rule["before"]], default=at))
        and ("after" not in rule or at > max(owned[rule["after"]], default=at))
    )


def _differs(at: int, base: Sequence[str], source: Sequence[str]) -> bool:
    if base[at] in (START, END):
        return False
    return at >= len(source) or base[at] != source[at]
