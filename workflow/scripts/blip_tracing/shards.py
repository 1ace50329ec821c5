"""What the jobs of a shard hand on: picture states, clean states, tokens and answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import safe_open

from blip_tracing.checkpoint import Checkpoint
from blip_tracing.engine import ImageMemory, ResumableBlip
from blip_tracing.model import model_of, name_device
from blip_tracing.tables import read_table
from blip_tracing.tensors import read_image

ROLES = ("base", "source")


@dataclass(frozen=True)
class LoadedModel:
    """A model on its device, and the facts that every result of the job carries."""

    checkpoint: Checkpoint
    model: ResumableBlip
    device_name: str


@dataclass(frozen=True)
class CleanRuns:
    """One example's two questions, answered without intervention.

    base, source: states (L + 1, T, D) on the model's device; memory: the image's keys and values;
    answer_ids: (2,), the base answer's token and the source answer's.
    """

    example: str
    base: torch.Tensor
    source: torch.Tensor
    base_tokens: list[str]
    source_tokens: list[str]
    answer_ids: torch.Tensor
    memory: ImageMemory


@contextmanager
def open_model(job: Any) -> Iterator[LoadedModel]:
    """Make a job's model resumable, holding its device while it is used."""
    with model_of(job) as (checkpoint, blip):
        yield LoadedModel(checkpoint, ResumableBlip(blip), name_device(blip.device))


def read_clean_runs(
    model: ResumableBlip, files: Any, rows: list[dict[str, str]], first_layer: int = 0
) -> Iterator[CleanRuns]:
    """Yield the clean runs of each row of a shard, as `answer_baseline` left them.

    files: the job's inputs, named `images`, `states`, `tokens` and `answers`; rows: the shard's
    rows of the sheet; first_layer: the first layer whose cross-attention the job needs.
    """
    tokens = read_table(files.tokens).groupby(["example", "role"])["token"].agg(list)
    answer_ids = read_table(files.answers).set_index(["example", "role"])["answer_id"]
    with safe_open(files.states, framework="pt", device=str(model.device)) as states:
        for row in rows:
            example = row["example"]
            image = read_image(files.images, row["image"], model.device)
            yield CleanRuns(
                example=example,
                base=states.get_tensor(f"{example}/base"),
                source=states.get_tensor(f"{example}/source"),
                base_tokens=tokens[example, "base"],
                source_tokens=tokens[example, "source"],
                answer_ids=torch.tensor([answer_ids[example, role] for role in ROLES]),
                memory=model.read_images(image[None], first_layer),
            )
