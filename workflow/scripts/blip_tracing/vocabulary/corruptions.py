"""What can hide an answer: a corruption is a kind (how), a place (where), levels and draws.

Tensors come and go without torch being named here: what is written is arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from blip_tracing.vocabulary.roles import Rule

Tensor = Any


@dataclass(frozen=True)
class Kind:
    """How states are changed: `apply(states, draw, level)` broadcasts level over draw over states.

    draw: standard normal numbers of the states' shape; level: as configured; words: what a reader
    calls it; amount: the same at a level; drawn: whether the draws matter, so that there can be
    several; adds: whether a level is the size of what is added, and can be held against that of
    the states; noun: what does something to the states, in a sentence; sign: what a level is
    called, as in `σ = 5`.
    """

    name: str
    words: str
    amount: str
    meaning: str
    apply: Callable[[Tensor, Tensor, Tensor], Tensor]
    drawn: bool = True
    adds: bool = False
    noun: str = "noise"
    sign: str = "σ"


_KINDS = (
    Kind(
        "gaussian",
        "Gaussian noise",
        "noise of σ = {level}",
        "adds N(0, σ²) to each number; a level is σ",
        lambda states, draw, level: states + level * draw,
        adds=True,
    ),
    Kind(
        "multiplicative",
        "multiplicative Gaussian noise",
        "multiplicative noise of σ = {level}",
        "multiplies each number by one of N(1, σ²); a level is σ",
        lambda states, draw, level: states * (1 + level * draw),
    ),
    Kind(
        "scale",
        "a constant factor",
        "a factor of {level}",
        "multiplies all numbers by a level; nothing is drawn, and 1 changes nothing",
        lambda states, draw, level: states * level,
        drawn=False,
        noun="scaling",
        sign="factor",
    ),
)
KINDS = {kind.name: kind for kind in _KINDS}

QUESTION_WORDS = "question.word_embeddings"
QUESTION_EMBEDDINGS = "question.embeddings"
PICTURE_PIXELS = "picture.pixels"
PICTURE_STATES = "picture.states"
PLACES = {
    QUESTION_WORDS: "the embeddings of the question's tokens, before positions are added and the "
    "norm is taken (as in ROME)",
    QUESTION_EMBEDDINGS: "the question encoder's first block input (the tutorial's)",
    PICTURE_PIXELS: "the picture's numbers as the vision tower reads them, scaled and normalized",
    PICTURE_STATES: "the vision tower's last states, after its norm, of [CLS] and all patches "
    "(as in Palit et al.)",
}
# Those that have a state a token, so that tokens of a role can be changed alone.
OF_TOKENS = (QUESTION_WORDS, QUESTION_EMBEDDINGS)

# What a level counts in.
ABSOLUTE, DEVIATIONS = "absolute", "std"
UNITS = (ABSOLUTE, DEVIATIONS)


@dataclass(frozen=True)
class Corruption:
    """A corruption of a run, at each of `levels` in each of `draws` (0, 1, …) of a seed.

    role: the one whose tokens, or of a picture whose patches, alone are changed, "" for all that
    the place has; unit: one of UNITS; fresh: whether every cell has draws of its own, where else
    all of an example share one; rules: those that tell the roles of tokens, none where `role` is of
    no token, each as pairs of key and value; also: a corruption of the picture beside this one of
    the question, at its one level at all of these and in as many draws, whose seed is another: its
    noise is then that of a run which has it alone.
    """

    kind: str
    at: str
    levels: tuple[float, ...]
    draws: int
    seed: int
    role: str = ""
    unit: str = ABSOLUTE
    fresh: bool = False
    rules: tuple[tuple[tuple[str, str], ...], ...] = ()
    also: Corruption | None = None

    @property
    def parts(self) -> tuple[Corruption, ...]:
        """Itself, and what is corrupted beside it."""
        return (self, self.also) if self.also else (self,)

    @property
    def role_rules(self) -> list[Rule]:
        """The rules as `effects.roles` has them."""
        return [dict(rule) for rule in self.rules]

    @property
    def of_picture(self) -> bool:
        """Whether it changes the picture, so that each variant of the run has one of its own."""
        return any(part.on_patches for part in self.parts)

    @property
    def on_patches(self) -> bool:
        """Whether what it changes itself, and so its role, is of a picture and not of tokens."""
        return self.at not in OF_TOKENS

    @property
    def words(self) -> str:
        """What a reader calls it, and what is corrupted beside it."""
        also = f" and, on its picture, {KINDS[self.also.kind].words}" if self.also else ""
        return f"{KINDS[self.kind].words}{also}"

    @property
    def beside(self) -> str:
        """What is corrupted beside it, with its amount: ` and a factor of 2 on the picture`."""
        return f" and {self.also.amount(*self.also.levels)} on the picture" if self.also else ""

    def amount(self, level: float) -> str:
        """What it is at a level, in words: `noise of σ = 3 standard deviations`."""
        unit = " standard deviations" if self.unit == DEVIATIONS else ""
        return KINDS[self.kind].amount.format(level=f"{level:g}{unit}")

    def in_deviations(self, level: float, sd: float) -> float:
        """A level in standard deviations of the states that are changed; NaN where it is none."""
        if not KINDS[self.kind].adds or not sd:
            return float("nan")
        return level if self.unit == DEVIATIONS else level / sd
