"""The clean runs of a shard as the job that answered its questions left them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import pandas as pd
import torch
from safetensors import safe_open

from blip_tracing.engine.batch import Batch
from blip_tracing.engine.batches import examples_a_batch, in_batches
from blip_tracing.engine.donors import (
    Candidate,
    Donor,
    UnrelatedRuns,
    choose_donors,
    match_positions,
)
from blip_tracing.machinery.files import check_files
from blip_tracing.machinery.progress import Progress
from blip_tracing.machinery.tables import read_table, sort_rows
from blip_tracing.machinery.tensors import read_image
from blip_tracing.models.family import RunStates, TracedModel
from blip_tracing.vocabulary.experiment import BASE, QUESTIONS, SOURCE

Row = Mapping[str, str]
Roles = Callable[[Sequence[str], Sequence[str]], list[str]]

# Of a null: where it is, and what the table `controls` says of its donor.
DONOR_KEYS = ["example", "donor_number", "position"]
DONOR_COLUMNS = ["donor", "donor_token", "donor_role", "matched"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CleanFiles:
    """Where the clean runs of a shard, and of the shards of its unrelated examples, lie.

    pictures: the pictures' states; states: the runs' own; tokens, runs: their tables; facts: what
    vouches for all of them. Each but the pictures has the shard's own file first.
    """

    pictures: Sequence[str]
    states: Sequence[str]
    tokens: Sequence[str]
    runs: Sequence[str]
    facts: Sequence[str]


@dataclass(frozen=True)
class Null:
    """Whose states are put in as the null.

    pools: example → its pool: the names of its `donors`, and what was `relaxed` for there to be
    any, or ""; pictures: donor → picture, where its run is not kept at the experiment's sites and
    has to be made again; donors: how many an example takes; seed: of the order that they are drawn
    in; receiver: the question whose positions they are put into; roles: the roles of a question's
    tokens, from them and those of the other question of its row.
    """

    pools: Mapping[str, Mapping[str, Any]]
    pictures: Mapping[str, str]
    donors: int
    seed: int
    receiver: str
    roles: Roles


class CleanRuns:
    """A shard's clean runs, read a batch at a time.

    tokens: (example, question) → its tokens; donors: example → its unrelated examples, once they
    are measured.
    """

    donors: dict[str, list[Donor]]

    def __init__(
        self,
        model: TracedModel,
        files: CleanFiles,
        rows: Sequence[Row],
        null: Null | None = None,
        first_layer: int = 0,
    ) -> None:
        """Check that the files are as they were written, and read the tables.

        first_layer: the first whose cross-attention is needed.
        """
        check_files(files.facts, [*files.pictures, *files.states, *files.tokens, *files.runs])
        self.model, self.files, self.rows = model, files, rows
        self.null, self.first_layer = null, first_layer
        tokens, runs = (pd.concat(map(read_table, paths)) for paths in (files.tokens, files.runs))
        self.tokens = tokens.groupby(["example", "question"])["token"].agg(list)
        self.answer_ids = runs.set_index(["example", "run"])["answer_id"]

    def measure(
        self, variants: int, work: Callable[[Batch], list[pd.DataFrame]], what: str
    ) -> tuple[pd.DataFrame, ...]:
        """Work through the shard; return the tables that `work` makes of a batch, joined.

        variants: how many rows an example and position the work makes; what: the work's name, for
        the log. Rows come in the sheet's order of examples.
        """
        parts: list[list[pd.DataFrame]] = []
        with Progress(len(self.rows), what) as progress, ExitStack() as files:
            self._states = [
                files.enter_context(safe_open(path, "pt", device=str(self.model.device)))
                for path in self.files.states
            ]
            self.donors = self._choose_donors()

            def work_through(rows: list[Row]) -> list[pd.DataFrame]:
                tables = work(self.read(rows))
                progress.add(len(rows), len(tables[0]))
                return tables

            for rows in self._alike():
                first = rows[0]["example"]
                pictures = self._picture_states
                if self.null and self.null.pictures:
                    pictures *= 1 + len(self.donors[first])
                size = examples_a_batch(
                    self.model, len(self.tokens[first, BASE]), variants, pictures
                )
                parts += in_batches(work_through, rows, size)
        examples = [row["example"] for row in self.rows]
        return tuple(
            sort_rows(pd.concat(tables, ignore_index=True), {"example": examples})
            for tables in zip(*parts, strict=True)
        )

    def read(self, rows: Sequence[Row]) -> Batch:
        """The clean runs of rows that are alike in length and have equally many donors."""
        images = [self._image(row["image"]) for row in rows]
        states = torch.stack(images)
        pictures = self.model.read_pictures(states, self.first_layer)
        examples = [row["example"] for row in rows]
        runs = {
            question: RunStates(
                pictures,
                self._stack([states_of(example, question) for example in examples], dim=1)[
                    :, :, None
                ],
                self._stack([logits_of(example, question) for example in examples], dim=0)[:, None],
            )
            for question in QUESTIONS
        }
        ids = [
            [self.answer_ids[example, question] for question in QUESTIONS] for example in examples
        ]
        return Batch(examples, runs, torch.tensor(ids), states, self._unrelated(examples))

    @cached_property
    def _picture_states(self) -> int:
        first = self.rows[0]["image"]
        return read_image(self.files.pictures, first, torch.device("cpu")).shape[0]

    def donor_table(self, examples: Sequence[str]) -> pd.DataFrame:
        """Whose state is put where: a row an example, donor and position, as `controls` has it."""
        rows = [
            (example, number, position, donor.name, donor.of.tokens[other],
             donor.of.roles[other], donor.matched[position])
            for example in examples
            for number, donor in enumerate(self.donors[example])
            for position, other in enumerate(donor.positions)
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=[*DONOR_KEYS, *DONOR_COLUMNS])

    def _choose_donors(self) -> dict[str, list[Donor]]:
        """The unrelated examples of each example; none where it has no pool."""
        donors: dict[str, list[Donor]] = {row["example"]: [] for row in self.rows}
        if self.null is None:
            return donors
        names = {name for pool in self.null.pools.values() for name in pool["donors"]}
        candidates = {name: self._candidate(name, self.null) for name in names}
        chosen = {
            example: self._choose(example, self.null, candidates) for example in self.null.pools
        }
        return donors | chosen

    def _choose(self, example: str, null: Null, candidates: Mapping[str, Candidate]) -> list[Donor]:
        """The unrelated examples of an example; what had to give way is said in the log."""
        pool = null.pools[example]
        roles = self._roles(example, null.receiver, null)
        followed = {int(self.answer_ids[example, question]) for question in QUESTIONS}
        chosen, others = choose_donors(
            example,
            roles,
            followed,
            [candidates[name] for name in pool["donors"]],
            null.donors,
            null.seed,
        )
        if pool["relaxed"]:
            logger.warning(
                "example %r: every row of another picture asks its %s question; its null is of "
                "such rows, none of them matched", example, pool["relaxed"],
            )  # fmt: skip
        if not others:
            logger.warning(
                "example %r: every row of its pool has one of the followed answers; its null is "
                "of such rows, none of them matched", example,
            )  # fmt: skip
        kept = others and not pool["relaxed"]
        donors = []
        for candidate in chosen:
            positions, matched = match_positions(roles, candidate.roles)
            donors.append(Donor(candidate, positions, [kept and same for same in matched]))
        return donors

    def _candidate(self, name: str, null: Null) -> Candidate:
        answer = int(self._tensor(logits_of(name, BASE)).argmax())
        return Candidate(name, self.tokens[name, BASE], self._roles(name, BASE, null), answer)

    def _roles(self, example: str, question: str, null: Null) -> list[str]:
        other = SOURCE if question == BASE else BASE
        return null.roles(self.tokens[example, question], self.tokens[example, other])

    def _unrelated(self, examples: Sequence[str]) -> UnrelatedRuns | None:
        """The runs of the examples' donors, each read once."""
        chosen = [self.donors[example] for example in examples]
        if not chosen[0]:
            return None
        names = dict.fromkeys(donor.name for donors in chosen for donor in donors)
        lengths: dict[int, list[str]] = {}
        for name in names:
            lengths.setdefault(len(self.tokens[name, BASE]), []).append(name)
        numbers = {name: n for n, name in enumerate(chain.from_iterable(lengths.values()))}
        return UnrelatedRuns(
            [self._clean_runs(alike) for alike in lengths.values()],
            torch.tensor([[numbers[donor.name] for donor in donors] for donors in chosen]),
            torch.tensor([[donor.positions for donor in donors] for donors in chosen]),
        )

    def _clean_runs(self, donors: Sequence[str]) -> RunStates:
        """Runs of equal length; with what they read where they have to be made again."""
        assert self.null is not None
        stream = self._stack([states_of(donor, BASE) for donor in donors], dim=1)[:, :, None]
        if not self.null.pictures:
            return RunStates(None, stream)
        images = torch.stack([self._image(self.null.pictures[donor]) for donor in donors])
        return RunStates(self.model.read_pictures(images, self.first_layer), stream)

    def _image(self, image: str) -> torch.Tensor:
        return read_image(self.files.pictures, image, self.model.device)

    def _alike(self) -> list[list[Row]]:
        groups: dict[tuple[int, ...], list[Row]] = {}
        for row in self.rows:
            example = row["example"]
            lengths = (len(self.tokens[example, question]) for question in QUESTIONS)
            groups.setdefault((*lengths, len(self.donors[example])), []).append(row)
        return list(groups.values())

    def _stack(self, names: Sequence[str], dim: int) -> torch.Tensor:
        return torch.stack([self._tensor(name) for name in names], dim)

    def _tensor(self, name: str) -> torch.Tensor:
        for file in self._states:
            if name in file.keys():  # noqa: SIM118 (the reader is no mapping)
                return file.get_tensor(name)
        raise KeyError(f"{name}: no shard holds it")


def states_of(example: str, question: str) -> str:
    """What a clean run's states (L + 1, T, D) are called in its shard's file."""
    return f"{example}/{question}"


def logits_of(example: str, question: str) -> str:
    """What a clean run's logits (V,) of the first answer token are called there."""
    return f"{example}/{question}/logits"
