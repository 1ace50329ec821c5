"""Write what derives from the vocabulary: the schema, and the manual's tables between its marks.

    make manual

A table in config/README.md stands between `<!-- keys -->` and `<!-- end -->`; the mark names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic_core import PydanticUndefined

from blip_tracing.given.cost import BLIP_BASE, Lengths, Sizes
from blip_tracing.vocabulary.config import Config, keys_of
from blip_tracing.vocabulary.corruptions import KINDS, PLACES
from blip_tracing.vocabulary.experiment import BASE, SOURCE, Experiment, Run
from blip_tracing.vocabulary.metrics import METRICS
from blip_tracing.vocabulary.sites import POSITIONS_OF, SITES, Site
from blip_tracing.vocabulary.tables import TABLES

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "workflow/schemas/config.schema.json"
MANUAL = ROOT / "config/README.md"
MARKED = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
# The tutorial's question, and an answer of one token.
NINE_TOKENS = Lengths(9)
TYPES = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`"}


def schema() -> str:
    """The configuration's JSON schema, as the file holds it."""
    described = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(),
    }
    return json.dumps(described, indent=2, ensure_ascii=False) + "\n"


def filled_in(manual: str) -> str:
    """The manual with each marked table as the vocabulary has it; an unknown mark is a KeyError."""
    return MARKED.sub(lambda found: found[1] + tables()[found[2]] + found[3], manual)


def tables() -> dict[str, str]:
    """The manual's tables by the names of their marks, as Markdown."""
    return {
        "keys": table(
            ("key", "type", "default", "meaning"), (key_row(key, field) for key, field in keys_of())
        ),
        "sites": table(
            ("site", "what flows through it", "elsewhere called", "cells", "GFLOP a cell"),
            map(site_row, SITES.values()),
        ),
        "positions": table(
            ("tower", "a position", "roles"),
            ((f"`{tower}`", *words) for tower, words in POSITIONS_OF.items()),
        ),
        "corruptions": table(
            ("kind", "what it does"), ((f"`{name}`", kind.meaning) for name, kind in KINDS.items())
        ),
        "places": table(("at", "what is changed"), _coded(PLACES)),
        "metrics": table(
            ("metric", "columns", "meaning"),
            (
                (f"`{name}`", ", ".join(f"`{column}`" for column in metric.columns), metric.meaning)
                for name, metric in METRICS.items()
            ),
        ),
        "tables": table(
            ("table", "a row is"), ((f"`{name}`", kept.meaning) for name, kept in TABLES.items())
        ),
    }


def site_row(site: Site) -> tuple[str, str, str, str, str]:
    """A site's row: its names elsewhere, and what it costs in one example at BLIP-base's size."""
    asked = Experiment(site.name, Run(BASE, BASE), Run(SOURCE, SOURCE), (site.name,))
    sizes = Sizes(BLIP_BASE, len(Config.model_fields["effects"].default.roles))
    cells, a_cell = sizes.cells(asked, NINE_TOKENS), sizes.a_cell(asked, NINE_TOKENS)
    aliases = "; ".join(site.aliases)
    return f"`{site.name}`", site.meaning, aliases, f"{cells:,}", f"{a_cell / 1e9:.2g}"


def key_row(key: str, field: Any) -> tuple[str, str, str, str]:
    """A key's row in the manual's table."""
    return f"`{key}`", type_of(field.annotation), default_of(field), field.description


def type_of(annotation: Any) -> str:
    """A key's type in words."""
    if get_origin(annotation) is Annotated:
        return type_of(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is list:
        inner = type_of(get_args(annotation)[0])
        return f"list of {inner}" if "`" in inner else f"list of {inner}s"
    if get_origin(annotation) is dict:
        return f"{type_of(get_args(annotation)[1])} by name"
    if get_origin(annotation) in (Union, UnionType):  # of a type with None, for what is left out
        return type_of(get_args(annotation)[0])
    return TYPES.get(annotation, "rule")


def default_of(field: Any) -> str:
    """A key's default as configuration writes it."""
    if field.default is PydanticUndefined:
        return "required"
    if field.default in ("", None):
        return "none"
    if isinstance(field.default, list) and not all(
        isinstance(value, str | int | float) for value in field.default
    ):
        return "see below"
    if isinstance(field.default, list):
        return f"`[{', '.join(map(str, field.default))}]`"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f"`{field.default}`"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(header)
    lines = [head, ["---"] * len(head), *map(list, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _coded(meanings: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(f"`{name}`", meaning) for name, meaning in meanings.items()]


def main() -> None:
    """Write the schema and fill in the manual."""
    SCHEMA.write_text(schema(), encoding="utf-8")
    MANUAL.write_text(filled_in(MANUAL.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
