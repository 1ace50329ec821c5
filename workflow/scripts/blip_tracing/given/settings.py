"""The configuration checked against its model, every fault in one line; its defaults filled in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from blip_tracing.errors import InputError
from blip_tracing.given.sheet import check_path
from blip_tracing.given.text import closest, shortened, shown, text_fault, unknown
from blip_tracing.vocabulary.config import Config
from blip_tracing.vocabulary.keys import Group
from blip_tracing.vocabulary.roles import check_roles

# Whole numbers up to here are written out rather than with an exponent.
LONGEST_DIGITS = 10**16
# Below the one, noise is lost in float32; beyond the other, its squares in a layer norm overflow.
LEAST_LEVEL, LARGEST_LEVEL = 1e-30, 1e18
# Of the tables' FLOAT_FORMAT.
TABLE_DIGITS = 9
# So many choices are all named, else the closest: of few, the one that is meant may look otherwise.
FEW = 4
# The first version's keys, and what stands in their place.
OLD_KEYS = ("patching", "tracing")
NEW_FORM = (
    "is of the first version: write runs: {noisy: {of: base, corrupt: {levels: …}}} and "
    "experiments: {patching: {receiver: base, donor: source}, tracing: {receiver: noisy, donor: "
    "base}}, as config/config.yaml does"
)
# An unknown key goes before a missing one, since it is often the missing one misspelt.
RANK = {"extra_forbidden": 0, "missing": 1}
KINDS = {
    "model_type": "a group of keys",
    "dict_type": "a group of keys",
    "list_type": "a list",
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "float_type": "a finite number",
    "finite_number": "a finite number",
}


def fill_config(given: dict[str, Any]) -> dict[str, Any]:
    """The configuration with its defaults filled in; what is not given and has none is left out.

    Stricter than its schema alone: text holds no control characters and paths no braces, names that
    refer to others do, no two levels of a run have one label, report.draws_at and
    effects.primary_level are levels of every corrupted run and controls.null_draws no more than its
    draws, and the rules of effects.roles are such that roles can be told by them.
    Raises InputError on the first fault: `key: what is wrong; mend`. An unknown key goes before a
    missing one, since it is often the missing one misspelt.
    """
    try:
        _check_form(given)
        _check_text(given, set())
        config = _validated(given)
    except RecursionError as error:  # YAML lets a list hold itself
        raise InputError("is nested without end; write out what is meant") from error
    filled = config.model_dump(exclude_none=True)
    _check_paths(filled)
    for name, run in config.runs.items():
        _check_levels(f"runs.{name}.corrupt.levels", run.corrupt.levels)
        if also := run.corrupt.also:
            _check_level(f"runs.{name}.corrupt.also.level", also.level)
    _check_draws(config)
    check_roles(filled["effects"]["roles"])
    return filled


def _validated(given: dict[str, Any]) -> Config:
    try:
        return Config.model_validate(given)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        fault = min(faults, key=lambda fault: RANK.get(fault["type"], 2))
        raise InputError(_explain(fault)) from error


def _check_paths(config: dict[str, Any]) -> None:
    paths = {"model.name": config["model"]["name"], "examples": config["examples"]}
    paths |= {key: config[key] for key in ("method", "published")}
    for key, path in paths.items():
        try:
            check_path(path)
        except InputError as error:
            raise InputError(f"{key}: {error}") from error


def _check_levels(place: str, levels: Sequence[float]) -> None:
    """Check that every table, path and figure can tell the levels apart."""
    places: dict[str, int] = {}
    for number, level in enumerate(levels):
        key = f"{place}[{number}]"
        _check_level(key, level)
        label = f"{level:g}"
        if places.setdefault(label, number) != number:
            raise InputError(
                f"{key}: {level} and {levels[places[label]]} are both called {label} "
                "in the figures; keep one"
            )


def _check_level(key: str, level: float) -> None:
    """Check that float32 and every table can hold a level."""
    if level and not LEAST_LEVEL <= level <= LARGEST_LEVEL:
        raise InputError(
            f"{key}: {level} is beyond what float32 computes with; "
            f"give 0, or {LEAST_LEVEL:g} to {LARGEST_LEVEL:g}"
        )
    kept = f"{level:.{TABLE_DIGITS}g}"
    if float(kept) != level:
        raise InputError(
            f"{key}: {level} has more than the {TABLE_DIGITS} digits that tables keep; "
            f"write {_written(float(kept))}"
        )
    if f"{level:g}".startswith("-"):
        raise InputError(f"{key}: {level} is zero with a sign; write 0")


def _check_draws(config: Config) -> None:
    """Check that each corrupted run that is used has the draws that the others' keys ask for."""
    null_draws = config.controls.null_draws
    levels = {"report.draws_at": config.report.draws_at}
    if config.effects.primary_level is not None:
        levels["effects.primary_level"] = config.effects.primary_level
    for name in config.used_runs():
        corrupt, key = config.runs[name].corrupt, f"runs.{name}.corrupt"
        for asked, level in levels.items():
            if level not in corrupt.levels:
                raise InputError(
                    f"{asked}: {_written(level)} is not in {key}.levels; "
                    f"give one of {', '.join(map(_written, corrupt.levels))}"
                )
        if null_draws is not None and null_draws > corrupt.draws:
            raise InputError(
                f"controls.null_draws: {null_draws} is more than the {corrupt.draws} of "
                f"{key}.draws, which the null shares; give at most {corrupt.draws}"
            )


def _check_form(given: dict[str, Any]) -> None:
    old = next((key for key in OLD_KEYS if key in given), None)
    if old:
        raise InputError(f"{old}: {NEW_FORM}")
    model = given.get("model")
    if isinstance(model, dict) and type(model.get("layers")) is int:
        raise InputError(
            "model.layers: is of the first version: write layers: {encoder: "
            f"{model['layers']}, decoder: {model['layers']}, vision: …}}, the blocks of each tower"
        )


def _check_text(value: object, seen: set[int], path: tuple[str | int, ...] = ()) -> None:
    """Check each text and each key; once, however often YAML's aliases repeat a group or list."""
    if id(value) in seen:
        return
    match value:
        case dict():
            for key, inner in value.items():
                _check_key(key, path)
                _check_text(inner, seen, (*path, key))
        case list():
            for index, inner in enumerate(value):
                _check_text(inner, seen, (*path, index))
        case str() if fault := text_fault(value):
            raise InputError(f"{dotted(path)}: {fault}")
    if isinstance(value, dict | list):
        seen.add(id(value))


def _check_key(key: object, path: tuple[str | int, ...]) -> None:
    where = f"{dotted(path)}: " if path else ""
    if not isinstance(key, str):
        raise InputError(f"{where}the key {_as_given(key)}, not text; put it in quotes or mend it")
    if fault := text_fault(key):
        raise InputError(f"{where}the key {shown(key)} {fault}")


def _explain(fault: Any) -> str:
    context, value = fault.get("ctx", {}), fault["input"]
    path = tuple(context.get("place", fault["loc"]))
    if path[-1:] == ("[key]",) and fault["type"] not in RANK:  # of a name of one's own
        path = path[:-1]
    key = dotted(path)
    match fault["type"]:
        case "extra_forbidden":
            known = list(_group_at(path[:-1]).model_fields)
            return unknown(key, str(path[-1]), known, "key")
        case "missing":
            meaning = _group_at(path[:-1]).model_fields[str(path[-1])].description
            return f"{key} is missing: give {meaning}"
        case kind if kind in KINDS:
            return f"{key}: {_as_given(value)}, not {KINDS[kind]}{_number_hint(value, kind)}"
        case "literal_error":
            known = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            if not isinstance(value, str):
                return f"{key}: {_as_given(value)}, not text; known are {', '.join(known)}"
            mend = f"known are {', '.join(known)}" if len(known) <= FEW else closest(value, known)
            return f"{key}: {shown(value)} is unknown; {mend}"
        case "given_twice":
            return f"{key}: {shown(context['value'])} is given twice; keep it once"
        case "too_short" | "string_too_short":
            return f"{key}: is empty; give {_description_at(path)}"
        case "string_too_long":
            return f"{key}: has more than {context['max_length']} characters; shorten it"
        case "string_pattern_mismatch" if path[-2:-1] == ("expected",):
            return f"{key}: {shown(value)} is no head; write a layer and a head, like L5.H3"
        case "string_pattern_mismatch":
            return f"{key}: {shown(value)} is no name; use a-z, 0-9 and _, and begin with a letter"
        case "greater_than_equal":
            return f"{key}: {shown(value)} is less than the minimum of {context['ge']}"
        case "less_than_equal":
            return f"{key}: {shown(value)} is more than the maximum of {context['le']}"
        case "unknown_run":
            run = context["run"]
            return f"{key}: {shown(run)} is not a run; {closest(run, context['known'])}"
        case "unknown_experiment":
            name = context["experiment"]
            return (
                f"{key}: {shown(name)} is not an experiment with a site; "
                f"{closest(name, context['known'])}"
            )
        case "unknown_role":
            role = context["role"]
            return f"{key}: {shown(role)} is not a role; {closest(role, context['known'])}"
        case "misnamed":
            return f"{key}: {shown(value)}: {context['fault']}"
        case "refused":
            return f"{key}: {context['reason']}"
        case _:
            return f"{key}: {shortened(fault['msg'])}"


def _group_at(path: Sequence[object]) -> type[Group]:
    """The group of keys at a place; one of a name of one's own, or in a list, by its kind."""
    group: Any = Config
    for part in path:
        if isinstance(group, type) and issubclass(group, Group):
            group = _given(group.model_fields[str(part)].annotation)
        else:
            group = get_args(group)[-1]
    return group


def _given(annotation: Any) -> Any:
    """A key's type where it is given: that of a group which may be left out is the group."""
    kinds = get_args(annotation)
    return kinds[0] if kinds[1:] == (type(None),) else annotation


def _description_at(path: Sequence[object]) -> str:
    field = path[:-1] if isinstance(path[-1], int) else path
    return _group_at(field[:-1]).model_fields[str(field[-1])].description or ""


def dotted(path: Iterable[object]) -> str:
    """A key's place as it is written: `runs.noisy.corrupt.levels[1]`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in path]
    return shortened("".join(parts).removeprefix("."))


def _as_given(value: object) -> str:
    match value:
        case None:
            return "is empty"
        case dict():
            return "is a group of keys"
        case list():
            return "is a list"
        case bool():
            return f"{str(value).lower()} is a yes or no"
        case str():
            return f"{shown(value)} is text"
        case int() | float():
            return f"{shown(value)} is a number"
        case date():
            return f"{value} is a date"
        case _:  # YAML knows sets, bytes and pairs too
            return f"is a {type(value).__name__}"


def _number_hint(value: object, kind: str) -> str:
    """YAML reads 1e-1 as text, which nobody expects: how it is written to be read as a number."""
    if not isinstance(value, str) or kind not in ("int_type", "float_type"):
        return ""
    try:
        number = float(value)
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    return f"; write {_written(number)} without quotes"


def _written(number: float) -> str:
    """A number as YAML reads it: with a point before an exponent, and a sign behind the e."""
    short = number.is_integer() and abs(number) < LONGEST_DIGITS
    return yaml.safe_dump(int(number) if short else number).splitlines()[0]
