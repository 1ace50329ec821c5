"""The published method that a run is of: its text as blocks, or what the run changes.

Markdown is read by mistune; what comes out are words and how they are set, so that renderers escape
what they show, raw HTML too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import mistune

from blip_tracing.given.methods import Method, changes_of
from blip_tracing.telling.told import Block, Run, ToldMethod, Words
from blip_tracing.telling.words import printable

PLAIN, STRONG, EMPHASIS, CODE = "", "strong", "emphasis", "code"
STYLES = {"strong": STRONG, "emphasis": EMPHASIS, "codespan": CODE}
PARAGRAPH, HEADING, ITEM, TABLE = "paragraph", "heading", "item", "table"


def method_of_run(run: Run) -> ToldMethod | None:
    """The method that the configuration names, if it names one.

    Its text is told only of a run that has what the method must have; else what the run changes.
    """
    if run.method is None:
        return None
    claim, is_it = claim_of(run.method, run.config)
    title = printable(run.method.title)
    return ToldMethod(title, printable(claim), blocks_of(run.method.text) if is_it else ())


def claim_of(method: Method, config: Mapping[str, Any]) -> tuple[str, bool]:
    """What may be said of a run, and whether it is the method's.

    config: with its defaults filled in.
    """
    changes = changes_of(method.must, config)
    if not changes:
        return f"This run has all that it must have to be called so ({method.name}).", True
    return (
        f"This run is not that of {method.title}, which its configuration names ({method.name}): "
        f"{'; '.join(changes)}.",
        False,
    )


def blocks_of(text: str) -> tuple[Block, ...]:
    """A Markdown text as blocks; its first heading, the title, is left out."""
    read = mistune.create_markdown(renderer=None, plugins=["table"])
    tokens: Any = read(text)
    blocks = [block for token in tokens for block in _blocks(token)]
    titled = bool(blocks) and blocks[0].kind == HEADING
    return tuple(blocks[titled:])


def _blocks(token: Mapping[str, Any]) -> Iterator[Block]:
    kind = token["type"]
    if kind == "table":
        head, *body = token["children"]
        rows = [head, *(row for part in body for row in part["children"])]
        cells = tuple(tuple(_words(cell) for cell in row["children"]) for row in rows)
        yield Block(TABLE, rows=cells)
    elif kind == "list":
        for item in token["children"]:
            yield Block(ITEM, tuple(part for child in item["children"] for part in _words(child)))
    elif kind == "block_code":
        yield Block(PARAGRAPH, ((printable(token["raw"].strip()), CODE),))
    elif words := _words(token):
        yield Block(HEADING if kind == "heading" else PARAGRAPH, words)


def _words(token: Mapping[str, Any], style: str = PLAIN) -> Words:
    """What a token says: words, and how they are set; the innermost setting counts."""
    kind = token["type"]
    if kind in ("softbreak", "linebreak"):
        return ((" ", style),)
    own = STYLES.get(kind, style)
    if "children" in token:
        return tuple(part for child in token["children"] for part in _words(child, own))
    text = printable(token.get("raw", "").strip("\n"))
    return ((text, own),) if text else ()
