"""The clean runs of a shard as the job that answered its questions left them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
from safetensors import safe_open

from blip_tracing.engine.batch import UNRELATED, Batch
from blip_tracing.engine.batches import examples_a_batch, in_batches
from blip_tracing.machinery.files import check_files
from blip_tracing.machinery.progress import Progress
from blip_tracing.machinery.tables import read_table, sort_rows
from blip_tracing.machinery.tensors import read_image
from blip_tracing.models.family import Pictures, RunStates, TracedModel
from blip_tracing.vocabulary.experiment import QUESTIONS

Row = Mapping[str, str]


@dataclass(frozen=True)
class CleanFiles:
    """Where the clean runs of a shard, and of the shards of its unrelated examples, lie.

    pictures: the pictures' states; states: the runs' own; tokens, runs: the shard's tables; facts:
    what vouches for all of them.
    """

    pictures: Sequence[str]
    states: Sequence[str]
    tokens: str
    runs: str
    facts: Sequence[str]


@dataclass(frozen=True)
class Null:
    """Which unrelated example's states are put in as the null.

    examples: example → its unrelated example, for those that have one; pictures: example → that
    one's picture, where its run is not kept at the experiment's sites and has to be made again.
    """

    examples: Mapping[str, str]
    pictures: Mapping[str, str]


class CleanRuns:
    """A shard's clean runs, read a batch at a time.

    tokens: (example, question) → its tokens.
    """

    def __init__(
        self,
        model: TracedModel,
        files: CleanFiles,
        rows: Sequence[Row],
        null: Null,
        first_layer: int = 0,
    ) -> None:
        """Check that the files are as they were written, and read the tables.

        first_layer: the first whose cross-attention is needed.
        """
        check_files(files.facts, [*files.pictures, *files.states, files.tokens, files.runs])
        self.model, self.files, self.rows = model, files, rows
        self.null, self.first_layer = null, first_layer
        tokens, runs = read_table(files.tokens), read_table(files.runs)
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

            def work_through(rows: list[Row]) -> list[pd.DataFrame]:
                tables = work(self.read(rows))
                progress.add(len(rows), len(tables[0]))
                return tables

            for rows in self._alike():
                tokens = len(self.tokens[rows[0]["example"], "base"])
                size = examples_a_batch(self.model, tokens, variants, self._picture_states)
                parts += in_batches(work_through, rows, size)
        examples = [row["example"] for row in self.rows]
        return tuple(
            sort_rows(pd.concat(tables, ignore_index=True), {"example": examples})
            for tables in zip(*parts, strict=True)
        )

    def read(self, rows: Sequence[Row]) -> Batch:
        """The clean runs of rows that are alike in length and in having an unrelated example."""
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
        if examples[0] in self.null.examples:
            tokens = runs["base"].stream.shape[3]
            others = [
                fit_length(self._tensor(states_of(self.null.examples[example], "base")), tokens)
                for example in examples
            ]
            stream = torch.stack(others, dim=1)[:, :, None]
            runs[UNRELATED] = RunStates(self._null_pictures(examples), stream)
        ids = [
            [self.answer_ids[example, question] for question in QUESTIONS] for example in examples
        ]
        return Batch(examples, runs, torch.tensor(ids), states)

    @cached_property
    def _picture_states(self) -> int:
        first = self.rows[0]["image"]
        return read_image(self.files.pictures, first, torch.device("cpu")).shape[0]

    def _null_pictures(self, examples: Sequence[str]) -> Pictures:
        """What the unrelated examples' runs read, where they have to be made again."""
        if not self.null.pictures:
            return None
        images = [self._image(self.null.pictures[example]) for example in examples]
        return self.model.read_pictures(torch.stack(images), self.first_layer)

    def _image(self, image: str) -> torch.Tensor:
        return read_image(self.files.pictures, image, self.model.device)

    def _alike(self) -> list[list[Row]]:
        groups: dict[tuple[int, int, bool], list[Row]] = {}
        for row in self.rows:
            example = row["example"]
            lengths = (len(self.tokens[example, question]) for question in QUESTIONS)
            groups.setdefault((*lengths, example in self.null.examples), []).append(row)  # type: ignore[arg-type]
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


def fit_length(states: torch.Tensor, tokens: int) -> torch.Tensor:
    """States (L + 1, T', D) as (L + 1, T, D): cut, or the last position, `[SEP]`, repeated."""
    return states[:, torch.arange(tokens).clamp(max=states.shape[1] - 1)]
