"""What can hide an answer: a corruption is a kind (how), a place (where), levels and draws.

Tensors come and go without torch being named here: what is written is arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Tensor = Any


@dataclass(frozen=True)
class Kind:
    """How states are changed: `apply(states, draw, level)` broadcasts level over draw over states.

    draw: standard normal numbers of the states' shape; level: as configured; words: what a reader
    calls it.
    """

    name: str
    words: str
    meaning: str
    apply: Callable[[Tensor, Tensor, Tensor], Tensor]


_KINDS = (
    Kind(
        "gaussian",
        "Gaussian noise",
        "adds N(0, σ²) to each number; a level is σ",
        lambda states, draw, level: states + level * draw,
    ),
)
KINDS = {kind.name: kind for kind in _KINDS}

QUESTION_EMBEDDINGS = "question.embeddings"
PLACES = {
    QUESTION_EMBEDDINGS: "the question encoder's first block input, all tokens (the tutorial's)",
}


@dataclass(frozen=True)
class Corruption:
    """A corruption of a run, at each of `levels` in each of `draws` (0, 1, …) of a seed."""

    kind: str
    at: str
    levels: tuple[float, ...]
    draws: int
    seed: int
