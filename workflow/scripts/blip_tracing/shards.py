"""What the jobs of a shard hand on: picture states, clean states, tokens and answers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from safetensors import safe_open

from blip_tracing.checkpoint import Checkpoint
from blip_tracing.engine import ResumableBlip
from blip_tracing.experiments import Batch, examples_a_batch, in_batches
from blip_tracing.files import MODEL, check_files, check_one_model, read_record
from blip_tracing.model import model_of, name_device
from blip_tracing.progress import Progress
from blip_tracing.tables import read_table, sort_examples
from blip_tracing.tensors import read_image

ROLES = ("base", "source")

Row = Mapping[str, str]


@dataclass(frozen=True)
class LoadedModel:
    """A model on its device, and the facts that every result of the job carries."""

    checkpoint: Checkpoint
    model: ResumableBlip
    device_name: str


@contextmanager
def open_model(job: Any) -> Iterator[LoadedModel]:
    """Make a job's model resumable, holding its device while it is used.

    Raises InputError unless what the job begins from was made by the model that it loads.
    """
    facts = [job.input.model, *job.input.facts]
    check_one_model({path: read_record(path, MODEL) for path in facts})
    with model_of(job) as (checkpoint, blip):
        yield LoadedModel(checkpoint, ResumableBlip(blip), name_device(blip.device))


class CleanRuns:
    """A shard's clean runs as `answer_baseline` left them, read a batch at a time."""

    def __init__(
        self, model: ResumableBlip, job: Any, roles: Sequence[str], first_layer: int = 0
    ) -> None:
        """Find the files of a job (its `snakemake` object), checked to be as they were written.

        roles: of the questions whose states the job needs; first_layer: the first layer whose
        cross-attention it needs.
        """
        files, params = job.input, job.params
        check_files(files.facts, [*files.images, *files.states, files.tokens, files.answers])
        tokens = read_table(files.tokens)
        self.model, self.files, self.roles, self.first_layer = model, files, roles, first_layer
        self.rows: Sequence[Row] = params.rows
        self.unrelated: Mapping[str, str] = params.unrelated
        self.tokens = tokens.groupby(["example", "role"])["token"].agg(list)
        self.answer_ids = read_table(files.answers).set_index(["example", "role"])["answer_id"]

    def measure(
        self, runs: int, work: Callable[[Batch], list[pd.DataFrame]], what: str
    ) -> tuple[pd.DataFrame, ...]:
        """Work through the shard; return the tables that `work` makes of a batch, joined.

        runs: how many rows an example and position the work makes; what: the work's name, for
        the log. Rows come in the sheet's order of examples.
        """
        parts: list[list[pd.DataFrame]] = []
        with Progress(len(self.rows), what) as progress, ExitStack() as files:
            self.states = [
                files.enter_context(safe_open(path, "pt", device=str(self.model.device)))
                for path in self.files.states
            ]

            def work_through(rows: list[Row]) -> list[pd.DataFrame]:
                tables = work(self.read(rows))
                progress.add(len(rows), len(tables[0]))
                return tables

            for rows in self._alike():
                size = examples_a_batch(self.model, self._length(rows[0]), runs, self._patches())
                parts += in_batches(work_through, rows, size)
        examples = [row["example"] for row in self.rows]
        return tuple(
            sort_examples(pd.concat(tables, ignore_index=True), examples)
            for tables in zip(*parts, strict=True)
        )

    def read(self, rows: Sequence[Row]) -> Batch:
        """The clean runs of rows that are alike in length and in having an unrelated example."""
        images = [read_image(self.files.images, row["image"], self.model.device) for row in rows]
        examples = [row["example"] for row in rows]
        states, logits = (
            {
                role: torch.stack([self._tensor(name(example, role)) for example in examples])
                for role in self.roles
            }
            for name in (states_of, logits_of)
        )
        if examples[0] in self.unrelated:
            tokens = states["base"].shape[2]
            others = [
                self._tensor(states_of(self.unrelated[example], "base")) for example in examples
            ]
            states["unrelated"] = torch.stack([fit_length(other, tokens) for other in others])
        ids = [[self.answer_ids[example, role] for role in ROLES] for example in examples]
        memory = self.model.read_images(torch.stack(images), self.first_layer)
        return Batch(examples, memory, states, logits, torch.tensor(ids))

    def _alike(self) -> list[list[Row]]:
        groups: dict[tuple[int, bool], list[Row]] = {}
        for row in self.rows:
            kind = self._length(row), row["example"] in self.unrelated
            groups.setdefault(kind, []).append(row)
        return list(groups.values())

    def _length(self, row: Row) -> int:
        return len(self.tokens[row["example"], "base"])

    def _patches(self) -> int:
        image = read_image(self.files.images, self.rows[0]["image"], torch.device("cpu"))
        return image.shape[0]

    def _tensor(self, name: str) -> torch.Tensor:
        for file in self.states:
            if name in file.keys():  # noqa: SIM118 (the reader is no mapping)
                return file.get_tensor(name)
        raise KeyError(f"{name}: no shard holds it")


def states_of(example: str, role: str) -> str:
    """What a clean run's states (L + 1, T, D) are called in its shard's file."""
    return f"{example}/{role}"


def logits_of(example: str, role: str) -> str:
    """What a clean run's logits (V,) of the first answer token are called there."""
    return f"{example}/{role}/logits"


def fit_length(states: torch.Tensor, tokens: int) -> torch.Tensor:
    """States (L + 1, T', D) as (L + 1, T, D): cut, or the last position, `[SEP]`, repeated."""
    return states[:, torch.arange(tokens).clamp(max=states.shape[1] - 1)]
