"""The clean runs of a shard as the job that answered its questions left them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from math import isqrt
from typing import Any

import pandas as pd
import torch
from safetensors import safe_open
from torch.nn.utils.rnn import pad_sequence

from blip_tracing.engine.batch import Batch
from blip_tracing.engine.batches import examples_a_batch, in_batches
from blip_tracing.engine.donors import (
    Candidate,
    Donor,
    UnrelatedRuns,
    choose_donors,
    match_positions,
)
from blip_tracing.engine.draws import embedded_at
from blip_tracing.errors import InputError
from blip_tracing.given.pictures import picture_of, pictures_of
from blip_tracing.machinery.files import check_files
from blip_tracing.machinery.progress import Progress
from blip_tracing.machinery.tables import read_table, sort_rows
from blip_tracing.machinery.tensors import has_tensor, read_image
from blip_tracing.models.family import Pictures, RunStates, TracedModel
from blip_tracing.vocabulary.corruptions import DEVIATIONS
from blip_tracing.vocabulary.experiment import BASE, QUESTIONS, SOURCE, Run
from blip_tracing.vocabulary.regions import region_roles
from blip_tracing.vocabulary.roles import Answered, answered_at

Row = Mapping[str, str]
Roles = Callable[[Sequence[str], Sequence[str], Answered], list[str]]

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
    tokens, from them, those of the other question of its row, and where both name their answers;
    by_answer: whether the latter is asked.
    """

    pools: Mapping[str, Mapping[str, Any]]
    pictures: Mapping[str, str]
    donors: int
    seed: int
    receiver: str
    roles: Roles
    by_answer: bool = False


@dataclass(frozen=True)
class Corrupted:
    """The corrupted run that is measured beside the clean ones.

    roles: those of a question's tokens, from them, those of the other question of its row and where
    both name their answers (by_answer: if that is asked), told by the rules of the corruption.
    """

    run: Run
    roles: Roles
    by_answer: bool = False


@dataclass(frozen=True)
class _Seen:
    """What G examples' runs see: states (G, S, D), what the model reads of them, and pixels.

    pixels: (G, 1, 3, height, width), None where they were not kept.
    """

    states: torch.Tensor
    pictures: Pictures
    pixels: torch.Tensor | None


class CleanRuns:
    """A shard's clean runs, read a batch at a time.

    tokens: (example, question) → its tokens. Once they are measured: answers: (example, question)
    → the token ids of the answer that is followed; donors: example → its unrelated examples.
    """

    answers: dict[tuple[str, str], list[int]]
    donors: dict[str, list[Donor]]

    def __init__(
        self,
        model: TracedModel,
        files: CleanFiles,
        rows: Sequence[Row],
        null: Null | None = None,
        first_layer: int = 0,
        corrupted: Corrupted | None = None,
    ) -> None:
        """Check that the files are as they were written, and read the tables.

        first_layer: the first whose cross-attention is needed. Where the levels of the corrupted
        run count in standard deviations, the tokens of the whole sheet are among the files.
        """
        check_files(files.facts, [*files.pictures, *files.states, *files.tokens, *files.runs])
        self.model, self.files, self.rows = model, files, rows
        self.null, self.first_layer, self.corrupted = null, first_layer, corrupted
        tokens = pd.concat(map(read_table, files.tokens))
        grouped = tokens.groupby(["example", "question"])
        self.tokens, self.token_ids = grouped["token"].agg(list), grouped["token_id"].agg(list)

    def measure(
        self,
        variants: int,
        work: Callable[[Batch], list[pd.DataFrame]],
        what: str,
        in_pictures: bool = False,
    ) -> tuple[pd.DataFrame, ...]:
        """Work through the shard; return the tables that `work` makes of a batch, joined.

        variants: how many rows an example and position the work makes; what: the work's name, for
        the log; in_pictures: whether positions are a picture's, and a row all of its states. Rows
        come in the sheet's order of examples.
        """
        parts: list[list[pd.DataFrame]] = []
        with Progress(len(self.rows), what) as progress, ExitStack() as files:
            self._states = [
                files.enter_context(safe_open(path, "pt", device=str(self.model.device)))
                for path in self.files.states
            ]
            self.answers = {
                (row["example"], question): self._tensor(
                    answer_of(row["example"], question)
                ).tolist()
                for row in self.rows
                for question in QUESTIONS
            }
            self.donors = self._choose_donors()

            def work_through(rows: list[Row]) -> list[pd.DataFrame]:
                tables = work(self.read(rows))
                progress.add(len(rows), len(tables[0]))
                return tables

            for rows in self._alike():
                first = rows[0]["example"]
                pictures = self._picture_states * len(pictures_of(rows[:1]))
                if self.null and self.null.pictures:
                    pictures += self._picture_states * len(self.donors[first])
                if in_pictures:
                    pictures += variants * self._picture_states**2
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
        shown = [tuple(picture_of(row, question) for row in rows) for question in QUESTIONS]
        # Runs of the same pictures share what is made of them, by which they are known.
        seen = {images: self._seen(images) for images in dict.fromkeys(shown)}
        examples = [row["example"] for row in rows]
        ids = [self.answers[example, question] for example in examples for question in QUESTIONS]
        answers = padded(ids).unflatten(0, (-1, len(QUESTIONS)))
        runs = {
            question: self._answered(
                RunStates(
                    seen[images].pictures,
                    self._stack([states_of(example, question) for example in examples], dim=1)[
                        :, :, None
                    ],
                    self._stack([logits_of(example, question) for example in examples], dim=0)[
                        :, None
                    ],
                    answers=answers,
                    pixels=seen[images].pixels,
                )
            )
            for question, images in zip(QUESTIONS, shown, strict=True)
        }
        base, source = (seen[images].states for images in shown)
        return Batch(
            examples,
            runs,
            answers,
            base,
            self._unrelated(examples),
            source_images=source,
            token_ids={question: self._ids(examples, question) for question in QUESTIONS},
            changed=self._changed(examples),
            unit=self._unit,
        )

    def _seen(self, images: Sequence[str]) -> _Seen:
        """What runs of an example each see."""
        states = torch.stack([self._image(image) for image in images])
        names = [pixels_name(image) for image in images]
        kept = has_tensor(self.files.pictures, names[0])
        pixels = torch.stack([self._image(name) for name in names])[:, None] if kept else None
        return _Seen(states, self.model.read_pictures(states, self.first_layer), pixels)

    def _answered(self, run: RunStates) -> RunStates:
        """The run with what the followed answers' further tokens get, which is not kept."""
        return replace(run, rest=self.model.answer(run).rest) if run.whole_answers else run

    def _ids(self, examples: Sequence[str], question: str) -> torch.Tensor:
        return torch.tensor([self.token_ids[example, question] for example in examples])

    def _changed(self, examples: Sequence[str]) -> torch.Tensor | None:
        """Which tokens (G, T), or of a picture which states (G, S), the corrupted run changes.

        None where it changes all. Raises InputError where an example has none of its role.
        """
        corruption = self.corrupted and self.corrupted.run.corruption
        if not self.corrupted or not corruption or not corruption.role:
            return None
        run, changed = self.corrupted.run, []
        for example in examples:
            if corruption.on_patches:
                what, roles = "patch of the picture", self._patch_roles[example]
                mend = "widen its box"
            else:
                what = f"token of the {run.question} question"
                roles = self._roles(example, run.question, self.corrupted)
                mend = "mend effects.roles"
            if corruption.role not in roles:
                raise InputError(
                    f"runs.{run.name}.corrupt.role: no {what} of example {example!r} has the role "
                    f"{corruption.role!r}; {mend}, or leave the example out"
                )
            changed.append([role == corruption.role for role in roles])
        return torch.tensor(changed, device=self.model.device)

    @cached_property
    def _patch_roles(self) -> dict[str, list[str]]:
        """Example → the role of each state of its picture, each patch being a region."""
        side = isqrt(self._picture_states - 1)
        return {row["example"]: region_roles(side, 0, row.get("boxes", "")) for row in self.rows}

    @cached_property
    def _unit(self) -> float:
        """What a level counts in: 1, or the standard deviation of what is changed in the sheet.

        That is one over all numbers of the states of all examples' tokens (Meng et al. 2022,
        `causal_trace.py`: of the embeddings of all subjects' tokens).
        """
        corruption = self.corrupted and self.corrupted.run.corruption
        if not self.corrupted or not corruption or corruption.unit != DEVIATIONS:
            return 1.0
        question = self.corrupted.run.question
        states = []
        # In an order that shards do not change, nor then the last digit.
        for example in sorted(example for example, asked in self.tokens.index if asked == question):
            embedded = embedded_at(corruption.at, self.model, self._ids([example], question))
            changed = self._changed([example])
            states.append(embedded[0] if changed is None else embedded[changed])
        return torch.cat(states).double().std(correction=0).item()

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
            example: self._choose(example, self.null, candidates)
            for example in donors
            if example in self.null.pools
        }
        return donors | chosen

    def _choose(self, example: str, null: Null, candidates: Mapping[str, Candidate]) -> list[Donor]:
        """The unrelated examples of an example; what had to give way is said in the log."""
        pool = null.pools[example]
        roles = self._roles(example, null.receiver, null)
        followed = {self.answers[example, question][0] for question in QUESTIONS}
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

    def roles(self, example: str, question: str) -> list[str]:
        """The role of each token of one of an example's questions."""
        return self._roles(example, question, self.null) if self.null else []

    def _roles(self, example: str, question: str, told: Null | Corrupted) -> list[str]:
        other = SOURCE if question == BASE else BASE
        answered = self._answered_at(example) if told.by_answer else {}
        return told.roles(self.tokens[example, question], self.tokens[example, other], answered)

    def _answered_at(self, example: str) -> Answered:
        """Where each of an example's questions names its answer."""
        return {
            question: answered_at(
                self.token_ids[example, question],
                int(self._tensor(answer_of(example, question))[0]),
            )
            for question in QUESTIONS
        }

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
        seen = self._seen([self.null.pictures[donor] for donor in donors])
        return RunStates(seen.pictures, stream, pixels=seen.pixels)

    def _image(self, image: str) -> torch.Tensor:
        return read_image(self.files.pictures, image, self.model.device)

    def _alike(self) -> list[list[Row]]:
        groups: dict[tuple[int, ...], list[Row]] = {}
        for row in self.rows:
            example = row["example"]
            lengths = (
                len(kept[example, question])
                for kept in (self.tokens, self.answers)
                for question in QUESTIONS
            )
            pictures = len(pictures_of([row]))
            groups.setdefault((*lengths, pictures, len(self.donors[example])), []).append(row)
        return list(groups.values())

    def _stack(self, names: Sequence[str], dim: int) -> torch.Tensor:
        return torch.stack([self._tensor(name) for name in names], dim)

    def _tensor(self, name: str) -> torch.Tensor:
        for file in self._states:
            if name in file.keys():  # noqa: SIM118 (the reader is no mapping)
                return file.get_tensor(name)
        raise KeyError(f"{name}: no shard holds it")


def pixels_name(image: str) -> str:
    """What a picture's pixels (3, height, width) are called beside its states, if they are kept."""
    return f"{image}/pixels"


def states_of(example: str, question: str) -> str:
    """What a clean run's states (L + 1, T, D) are called in its shard's file."""
    return f"{example}/{question}"


def logits_of(example: str, question: str) -> str:
    """What a clean run's logits (V,) of the first answer token are called there."""
    return f"{example}/{question}/logits"


def answer_of(example: str, question: str) -> str:
    """What the token ids (A,) of the answer that is followed are called there."""
    return f"{example}/{question}/answer"


def padded(answers: Sequence[Sequence[int]]) -> torch.Tensor:
    """The token ids of answers (N, A), those that are shorter padded with −1."""
    return pad_sequence([torch.tensor(ids) for ids in answers], True, -1)
