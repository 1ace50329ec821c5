"""What text may hold, and how an error shows it."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence

# What an editor does not show, and what would end an error's one line: control characters, the
# separators of lines and paragraphs, and halves of a character, which no file can hold.
UNSEEN = ("Cc", "Zl", "Zp", "Cs")
LONGEST_SHOWN = 80
LONGEST_TEXT = 4096


def text_fault(text: str) -> str:
    """What no name, path, question or answer has, or ""."""
    if len(text) > LONGEST_TEXT:
        return f"has {len(text):,} characters; {LONGEST_TEXT:,} are the most"
    if found := unseen(text):
        return f"holds {found}, which no editor shows; remove it"
    return ""


def unseen(text: str) -> str:
    """The first character of a text that cannot be seen, by its number, or ""."""
    found = (character for character in text if unicodedata.category(character) in UNSEEN)
    return next((f"the control character U+{ord(character):04X}" for character in found), "")


def shown(value: object) -> str:
    """A value as a reader recognizes it, of bounded length."""
    try:
        return shortened(repr(value))
    except ValueError:  # Python does not write out a whole number of thousands of digits
        return "a whole number of thousands of digits"


def shortened(text: str) -> str:
    """The text, its end cut off where it is long."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def unknown(place: str, name: str, known: Sequence[str], kind: str) -> str:
    """What is said of a name that is none of those known, with the closest, if any is close."""
    return f"{place} is not a known {kind}; {closest(name, known)}"


def closest(name: str, known: Sequence[str]) -> str:
    """`did you mean …?`, or what is known."""
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
