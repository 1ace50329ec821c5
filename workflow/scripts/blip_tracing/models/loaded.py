"""A model on its device for as long as a job uses it, and the facts of what the job writes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from transformers import BlipForQuestionAnswering

from blip_tracing.given.checkpoint import Checkpoint
from blip_tracing.given.provenance import describe_job, write_facts
from blip_tracing.machinery.devices import slow_precision
from blip_tracing.machinery.files import MODEL, check_one_model, read_record
from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.models.load import load_model, name_device, use_device, use_threads

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A model on its device. blip: as transformers loaded it; traced: the same, resumable."""

    checkpoint: Checkpoint
    blip: BlipForQuestionAnswering
    traced: ResumableBlip
    dtype: str
    code: str

    def vouch(self, path: str, files: Iterable[str], **facts: Any) -> None:
        """Write the facts of files that the job wrote."""
        device = name_device(self.blip.device)
        described = describe_job(self.checkpoint, device, self.dtype, self.code, files, **facts)
        write_facts(described, path)


@contextmanager
def open_model(
    facts: Iterable[str],
    record: str,
    contents: Mapping[str, str],
    device: str,
    dtype: str,
    code: str,
    threads: int,
    jobs_per_gpu: int,
) -> Iterator[Loaded]:
    """Load the model of a record, holding its device while it is used.

    facts: of what the job begins from; device: as configured; threads: what torch may use; code:
    the digest of the job's code; contents: the digests of the checkpoint's files, which are there
    to make what the job wrote stale.
    Raises InputError unless the files are those that the record names, and what the job begins
    from was made by the same model.
    """
    use_threads(threads)
    check_one_model({path: read_record(path, MODEL) for path in (record, *facts)})
    checkpoint = Checkpoint.from_json(record)
    checkpoint.check_unchanged(record)
    with use_device(device, jobs_per_gpu) as place:
        if warning := slow_precision(place.type, dtype):
            logger.warning(warning)
        blip = load_model(checkpoint.directory, place, dtype)
        checkpoint.check_unchanged(record)  # nor while it was loaded
        yield Loaded(checkpoint, blip, ResumableBlip(blip), dtype, code)
