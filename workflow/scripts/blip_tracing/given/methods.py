"""A published method in a Markdown file: its text, and what a run must have to be called so.

Light enough to run while the Snakefile is parsed, so that a wrong file stops before any job.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml

from blip_tracing.errors import InputError
from blip_tracing.machinery.files import read_bytes

HEAD = re.compile(r"---\n(?P<head>.*?)\n---\n(?P<text>.*)", re.DOTALL)
FORM = "begin it with title and must between lines of ---, as those in config/methods do"


@dataclass(frozen=True)
class Method:
    """name: of its file; title: in words; must: part of a configuration; text: Markdown."""

    name: str
    title: str
    must: Mapping[str, Any]
    text: str


def read_method(path: str | os.PathLike[str]) -> Method:
    """Read a method's file; InputError in one line where it is none."""
    name = os.fspath(path)
    try:
        found = HEAD.fullmatch(read_bytes(path).decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(f"method: {name} cannot be read ({reason}); mend its path") from error
    try:
        head = yaml.safe_load(found["head"]) if found else None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name}: its head is not YAML ({reason}); {FORM}") from error
    if not found or not isinstance(head, dict):
        raise InputError(f"{name}: has no head; {FORM}")
    if not isinstance(head.get("title"), str) or not isinstance(head.get("must"), dict):
        raise InputError(f"{name}: its head has no title or no group must; {FORM}")
    return Method(PurePath(name).name, head["title"], head["must"], found["text"].strip() + "\n")


def changes_of(must: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """What a configuration (defaults filled in) has otherwise than a method must have it, in words.

    Lists are compared whatever their order; what it has beyond is no change.
    """
    return list(_changes(must, config, ""))


def _changes(must: Mapping[str, Any], given: Mapping[str, Any], at: str) -> Iterator[str]:
    for key, wanted in must.items():
        place = f"{at}{key}"
        if key not in given:
            yield f"{place} is left out"
        elif isinstance(wanted, Mapping) and isinstance(given[key], Mapping):
            yield from _changes(wanted, given[key], f"{place}.")
        elif not _alike(wanted, given[key]):
            yield f"{place} is {_written(given[key])} instead of {_written(wanted)}"


def _alike(wanted: Any, given: Any) -> bool:
    if isinstance(wanted, list) and isinstance(given, list):
        return len(wanted) == len(given) and all(value in given for value in wanted)
    return bool(wanted == given)


def _written(value: Any) -> str:
    """A value as configuration writes it: `[3]`, `std`, `""`."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).splitlines()[0]
    return '""' if value == "" else text
