"""What the positions of a tower are called in an example, and whose states stand there in the null.

In order of their numbers: of a question its tokens; of the decoder [DEC] and the tokens of the
answer that is followed, but the last, which nothing reads; of a picture [CLS] and its regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np
import pandas as pd

from blip_tracing.engine.clean_runs import DONOR_COLUMNS, DONOR_KEYS, CleanRuns
from blip_tracing.vocabulary.experiment import BY_ROLE, EACH, Experiment
from blip_tracing.vocabulary.regions import region_names, region_roles
from blip_tracing.vocabulary.roles import ANSWER, DEC, NO_ROLE
from blip_tracing.vocabulary.sites import DECODER, ENCODER, VISION

# The words of both questions at a place, as the tables have them.
TOKEN, SOURCE_TOKEN = "token", "source_token"


@dataclass(frozen=True)
class Positions:
    """The positions of a tower in each example of a batch, and which are put in together.

    together: one of `experiment.POSITIONS`; names: column → of each example, what each position
    is called, "" where it has none; roles: of each example, the name of each one's role; order: the
    roles by number.
    """

    tower: str
    together: str
    names: dict[str, list[list[str]]]
    roles: list[list[str]]
    order: Sequence[str]

    @property
    def numbers(self) -> list[list[int]]:
        """Of each example, the number of each position's role, −1 for none."""
        known = {role: number for number, role in enumerate(self.order)}
        return [[known.get(role, -1) for role in roles] for roles in self.roles]

    @property
    def members(self) -> list[list[list[int]]]:
        """Of each example, the positions that each unit puts in."""
        found = []
        for names, numbers in zip(self.names[TOKEN], self.numbers, strict=True):
            there = [at for at, name in enumerate(names) if name]
            if self.together == EACH:
                found.append([[at] if name else [] for at, name in enumerate(names)])
            elif self.together == BY_ROLE:
                roles = range(len(self.order))
                found.append([[at for at in there if numbers[at] == role] for role in roles])
            else:
                found.append([there])
        return found

    def units(self, column: str) -> list[list[str]]:
        """Of each example, what each unit is called, "" where it puts in nothing.

        Of one position its name; of several their names, of a picture those of their roles.
        """
        roles = self.tower == VISION and self.together != EACH
        called = self.roles if roles else self.names[column]
        return [
            [
                " ".join(dict.fromkeys(words) if roles else words)
                for words in ([names[at] for at in unit] for unit in units)
            ]
            for names, units in zip(called, self.members, strict=True)
        ]

    def name(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows, as many an example, with their units' names; those that put in nothing left out."""
        examples = np.repeat(np.arange(len(self.roles)), len(rows) // len(self.roles))
        for column in self.names:
            words = np.array(self.units(column), dtype=object)
            rows[column] = words[examples, rows["position"].to_numpy(dtype=int)]
        return rows[rows[TOKEN] != ""]

    def donors(self, runs: CleanRuns, examples: Sequence[str]) -> pd.DataFrame:
        """Whose states each unit takes in the null, as `CleanRuns.donor_table` has it of positions.

        A unit matches where all of its positions do; outside of the question encoder every one does
        unless a rule had to give way.
        """
        table = runs.donor_table(examples)
        if (self.tower, self.together) == (ENCODER, EACH):
            return table
        found = []
        for example, units, called in zip(examples, self.members, self.units(TOKEN), strict=True):
            own = table[table["example"] == example]
            for number, donor in own.groupby("donor_number"):
                for unit, (held, name) in enumerate(zip(units, called, strict=True)):
                    role = self.order[unit] if self.together == BY_ROLE else NO_ROLE
                    matched = donor["matched"].any()
                    if self.tower == ENCODER:
                        taken = donor.set_index("position").loc[held]
                        name, matched = " ".join(taken["donor_token"]), taken["matched"].all()
                    whose = donor["donor"].iloc[0]
                    found.append((example, number, unit, whose, name, role, bool(matched)))
        return pd.DataFrame(found, columns=[*DONOR_KEYS, *DONOR_COLUMNS])


def positions_of(
    runs: CleanRuns,
    experiment: Experiment,
    tower: str,
    examples: Sequence[str],
    order: Sequence[str],
    picture_states: int,
    answers: Sequence[Sequence[str]],
) -> Positions:
    """Those of a tower in these examples.

    order: the tower's roles by number; picture_states: how many a picture has; answers: of each
    example, the tokens of the answer that is followed which the decoder reads, equally many, "" for
    what it has not.
    """
    if tower == DECODER:
        names = {TOKEN: [[DEC, *answer] for answer in answers]}
        roles = [[DEC, *[ANSWER] * len(answer)] for answer in answers]
    elif tower == VISION:
        side = isqrt(picture_states - 1)
        boxes = {row["example"]: row.get("boxes", "") for row in runs.rows}
        names = {TOKEN: [region_names(side, experiment.regions) for _ in examples]}
        roles = [region_roles(side, experiment.regions, boxes[example]) for example in examples]
    else:
        ends = {TOKEN: experiment.receiver.question}
        if experiment.donor.question != experiment.receiver.question:
            ends[SOURCE_TOKEN] = experiment.donor.question
        names = {
            column: [runs.tokens[example, question] for example in examples]
            for column, question in ends.items()
        }
        roles = [runs.roles(example, experiment.receiver.question) for example in examples]
    return Positions(tower, experiment.positions, names, roles, order)
