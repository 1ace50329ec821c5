"""Runs and experiments: what is asked, as the configuration names it.

An experiment puts, into a receiver run, at a site, at positions, the states of a donor run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from blip_tracing.vocabulary.corruptions import OF_TOKENS, Corruption
from blip_tracing.vocabulary.roles import rules_of_whole
from blip_tracing.vocabulary.sites import SITES, VISION

BASE, SOURCE = "base", "source"
QUESTIONS = (BASE, SOURCE)
# Both runs in one, as files are called by it.
CLEAN = "clean"
# What the picture alone gives: a run of the question [CLS] [SEP], a reference for floors.
PICTURE_ONLY = "picture_only"


@dataclass(frozen=True)
class Run:
    """A forward pass: one of an example's two questions about its picture, corrupted or not."""

    name: str
    question: str
    corruption: Corruption | None = None

    @property
    def levels(self) -> tuple[float, ...]:
        """The levels at which it is corrupted; none where it is not."""
        return self.corruption.levels if self.corruption else ()

    @property
    def draws(self) -> int:
        """How many runs it is at a level."""
        return self.corruption.draws if self.corruption else 1

    def at(self, levels: Sequence[float]) -> Run:
        """The same run at these levels alone, where it is corrupted."""
        if self.corruption is None:
            return self
        return replace(self, corruption=replace(self.corruption, levels=tuple(levels)))


# Which positions a cell puts in: one at a time, those of a role together, or all of them.
EACH, BY_ROLE, TOGETHER = "each", "roles", "all"
POSITIONS = (EACH, BY_ROLE, TOGETHER)


@dataclass(frozen=True)
class Experiment:
    """The states of `donor` put into `receiver` at `sites`, every layer and position in turn.

    window: layers put in together; positions: one of POSITIONS; heads: those of a site of heads,
    all where empty; regions: a picture's k × k grid of regions, 0 for every patch.
    """

    name: str
    receiver: Run
    donor: Run
    sites: tuple[str, ...]
    window: int = 1
    positions: str = EACH
    heads: tuple[int, ...] = ()
    regions: int = 6

    @property
    def followed(self) -> str:
        """The question whose answer is followed: the donor's, to which the intervention leads."""
        return self.donor.question

    @property
    def direction(self) -> int:
        """1 where the donor's states are to bring the answer that is followed, −1 to take it."""
        return -1 if self.donor.corruption else 1

    @property
    def corrupted(self) -> Run | None:
        """The run whose levels and draws the cells have; None where neither is corrupted."""
        return next((run for run in (self.receiver, self.donor) if run.corruption), None)

    @property
    def levels(self) -> tuple[float, ...]:
        """The levels at which it is measured; none where nothing is corrupted."""
        return self.corrupted.levels if self.corrupted else ()

    @property
    def draws(self) -> int:
        """The draws of a level; one where nothing is corrupted."""
        return self.corrupted.draws if self.corrupted else 1

    @property
    def fresh(self) -> bool:
        """Whether every cell has a corrupted run of its own, with draws of its own."""
        run = self.corrupted
        return bool(run and run.corruption and run.corruption.fresh)

    @property
    def in_pictures(self) -> bool:
        """Whether rows have pictures of their own: at a site of vision, or a corrupted picture."""
        seen = any(SITES[site].tower == VISION for site in self.sites)
        run = self.corrupted
        return seen or bool(run and run.corruption and run.corruption.of_picture)

    def primary(self, asked: float | None = None) -> int:
        """The number of the level that conclusions are drawn at: that asked for, else the middle.

        0 where it has no levels.
        """
        levels = self.levels
        if not levels:
            return 0
        return levels.index(middle(levels) if asked is None else asked)

    def at(self, levels: Sequence[float]) -> Experiment:
        """The same experiment at these levels alone."""
        return replace(self, receiver=self.receiver.at(levels), donor=self.donor.at(levels))


def middle(levels: Sequence[float]) -> float:
    """The level in the middle; of an even number of them the higher of the two there."""
    return sorted(levels)[len(levels) // 2]


def runs_of(config: Mapping[str, Any]) -> dict[str, Run]:
    """All runs of a checked configuration, by name: base, source, and those it describes."""
    runs = {name: Run(name, name) for name in QUESTIONS}
    for name, spec in config["runs"].items():
        corrupt = spec["corrupt"]
        role = corrupt["role"] if corrupt["at"] in OF_TOKENS else ""
        rules = rules_of_whole(config["effects"]["roles"], role) if role else []
        if also := corrupt.get("also"):
            corrupt = {**corrupt, "also": _as_drawn(also, corrupt["draws"])}
        runs[name] = Run(name, spec["of"], _corruption(corrupt, (rule.items() for rule in rules)))
    return runs


def _as_drawn(also: Mapping[str, Any], draws: int) -> dict[str, Any]:
    """A corruption beside another as one of its own: at its one level, in the other's draws."""
    kept = {key: value for key, value in also.items() if key != "level"}
    return {**kept, "levels": [also["level"]], "draws": draws}


def _corruption(described: Mapping[str, Any], rules: Iterable[Iterable[Any]]) -> Corruption:
    """A corruption of plain lists; rules: each as pairs of key and value."""
    levels = tuple(map(float, described["levels"]))
    pairs = tuple(tuple((key, value) for key, value in rule) for rule in rules)
    also = described.get("also")
    made = {"levels": levels, "rules": pairs, "also": also and _corruption(also, ())}
    return Corruption(**{**described, **made})


def experiments_of(config: Mapping[str, Any]) -> dict[str, Experiment]:
    """The experiments of a checked configuration that have a site, by name."""
    runs = runs_of(config)
    return {
        name: Experiment(
            name,
            runs[spec["receiver"]],
            runs[spec["donor"]],
            tuple(spec["sites"]),
            spec["window"],
            spec["positions"],
            tuple(spec["heads"]),
            spec["regions"],
        )
        for name, spec in config["experiments"].items()
        if spec["sites"]
    }


def described(asked: Run | Experiment) -> dict[str, Any]:
    """A run or an experiment in plain dictionaries and lists, as a rule's parameter is compared."""
    return json.loads(json.dumps(asdict(asked)))


def run_from(described: Mapping[str, Any]) -> Run:
    """The run that `described` describes."""
    corruption = described["corruption"]
    if corruption:
        corruption = _corruption(corruption, corruption["rules"])
    return Run(described["name"], described["question"], corruption)


def experiment_from(described: Mapping[str, Any]) -> Experiment:
    """The experiment that `described` describes."""
    return Experiment(
        described["name"],
        run_from(described["receiver"]),
        run_from(described["donor"]),
        tuple(described["sites"]),
        described["window"],
        described["positions"],
        tuple(described["heads"]),
        described["regions"],
    )
