"""The common axis of questions of different lengths: each token's role, by rules."""

import re
from collections.abc import Mapping, Sequence, Set
from graphlib import CycleError, TopologicalSorter

import pandas as pd

from blip_tracing.errors import InputError
from blip_tracing.tokens import END, START

# The name under which the mean over all cells stands where a role's name stands.
ALL = "all"
NO_ROLE = ""
KEY = "effects.roles"
REFERENCES = ("before", "after")

Rule = Mapping[str, str]


def check_roles(rules: Sequence[Rule]) -> None:
    """Check the rules of `effects.roles`, which the schema has passed.

    Raises InputError for a name that is given twice or kept for the mean over all cells, a
    pattern that is no regular expression, a rule that names no role, and roles that refer to each
    other in a circle.
    """
    names = [rule["role"] for rule in rules]
    for number, rule in enumerate(rules):
        key = f"{KEY}[{number}]"
        if rule["role"] == ALL:
            raise InputError(f"{key}.role: {ALL!r} is the mean over all cells; take another name")
        if rule["role"] in names[:number]:
            raise InputError(f"{key}.role: {rule['role']!r} is given twice; name each role once")
        try:
            re.compile(rule.get("token", ""))
        except (re.error, OverflowError, RecursionError) as error:
            raise InputError(
                f"{key}.token: {rule['token']!r} is no regular expression ({error}); "
                "put a backslash before a character that stands for itself"
            ) from error
        for reference in REFERENCES:
            if reference in rule and rule[reference] not in names:
                raise InputError(
                    f"{key}.{reference}: {rule[reference]!r} is not a role; "
                    f"known are {', '.join(names)}"
                )
    _settling_order(rules)


def assign_roles(tokens: pd.DataFrame, rules: Sequence[Rule]) -> pd.DataFrame:
    """The role of each token of the base questions: example, position, role ("" for none).

    tokens: the table `tokens`; rules: those of `effects.roles`, as `check_roles` lets them pass.
    """
    ordered = tokens.sort_values(["example", "role", "position"])
    questions = ordered.groupby(["example", "role"])["token"].agg(list)
    parts = []
    for example in tokens["example"].unique():
        base, source = questions[example, "base"], questions[example, "source"]
        roles = roles_of(base, source, rules)
        parts.append(
            pd.DataFrame({"example": example, "position": range(len(base)), "role": roles})
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
    for rule in _settling_order(rules):
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


def _settling_order(rules: Sequence[Rule]) -> list[Rule]:
    """The roles, those that refer to others after them, else as they are listed."""
    listed = {rule["role"]: rule for rule in rules}
    sorter = TopologicalSorter(
        {name: [rule[r] for r in REFERENCES if r in rule] for name, rule in listed.items()}
    )
    try:
        sorter.prepare()
    except CycleError as error:
        circle = ", ".join(dict.fromkeys(error.args[1]))
        raise InputError(
            f"{KEY}: refer to each other in a circle: {circle}; "
            "find one of them by token or pair alone"
        ) from error
    order = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=list(listed).index)
        order += [listed[name] for name in ready]
        sorter.done(*ready)
    return order
