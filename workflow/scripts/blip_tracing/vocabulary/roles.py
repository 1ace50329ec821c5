"""The rules of token roles: what can be asked, and whether it can be told by."""

import re
from collections.abc import Collection, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from blip_tracing.errors import InputError

# The name under which the mean over all cells stands where a role's name stands.
ALL = "all"
NO_ROLE = ""
# What a question begins and ends with.
START, END = "[CLS]", "[SEP]"
# The roles of the decoder's positions: the one that begins an answer, and its tokens.
DEC, ANSWER = "[DEC]", "answer"
DECODER_ROLES = (DEC, ANSWER)
KEY = "effects.roles"
REFERENCES = ("before", "after", "of")
# Which of several tokens that hold to a role's other rules; of one, the first is the last.
FIRST, MIDDLE, LAST = PARTS = ("first", "middle", "last")

Rule = Mapping[str, str]
# Question → the positions at which it names its own answer, as a question of two choices does.
Answered = Mapping[str, Collection[int]]


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
    settling_order(rules)


def ask_answers(rules: Sequence[Rule]) -> bool:
    """Whether a rule asks where a question names its answer."""
    return any("answer" in rule for rule in rules)


def answered_at(token_ids: Sequence[int], answer_id: int) -> list[int]:
    """Where a question names its answer: the positions of the token that the answer begins with."""
    return [at for at, token_id in enumerate(token_ids) if token_id == answer_id]


def part_of(positions: Collection[int], part: str) -> list[int]:
    """The first of some positions, the last, or those between; of one position no middle."""
    ordered = sorted(positions)
    return {FIRST: ordered[:1], LAST: ordered[-1:], MIDDLE: ordered[1:-1]}[part]


def rules_of_whole(rules: Sequence[Rule], role: str) -> list[Rule]:
    """The rules by which all tokens of a role are of it, those of its parts included.

    A token takes the first role that it holds to, so its parts (`of`) come last.
    """
    return sorted(rules, key=lambda rule: rule.get("of") == role)


def settling_order(rules: Sequence[Rule]) -> list[Rule]:
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
