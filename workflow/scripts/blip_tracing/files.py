"""Files written whole or not at all, read as JSON, and their digests."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from blip_tracing.disk import naming_what_finds_no_room
from blip_tracing.errors import InputError
from blip_tracing.run_lock import run_is_over

BLOCK_BYTES = 1 << 20


@contextmanager
def written_whole(destination: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that appears at `destination` only once all of it is on the disk.

    The bytes go to a hidden file in the same folder (a rename is atomic only within a file
    system), which takes the destination's place when the block ends and is removed when it fails.
    Raises InputError when the disk does not take it, or when the run that started this job was
    killed and another has begun since, with whose results this one's would mix.
    """
    target = Path(destination)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with naming_what_finds_no_room(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if run_is_over():
                raise InputError(f"{target}: not written: its run was killed, another has begun")
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def sha256_of(paths: Iterable[str | os.PathLike[str]]) -> str:
    """Digest of the files' contents one after the other, as 64 hex digits.

    For one file it is what `sha256sum` prints.
    """
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in a file; InputError when the file holds anything else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{os.fspath(path)}: is not JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{os.fspath(path)}: is not a JSON object; fetch it again")
    return content


def digests(paths: Iterable[str]) -> dict[str, str]:
    """Each file's sha256, by its path."""
    return {str(path): sha256_of([path]) for path in paths}


def check_files(facts: Iterable[str], paths: Iterable[str]) -> None:
    """Check files against the digests that the jobs which wrote them left in their facts.

    Raises InputError when a file was cut short or edited since.
    """
    known: dict[str, str] = {}
    for path in facts:
        known.update(read_json(path)["files"])
    for path, digest in digests(paths).items():
        if known[path] != digest:
            raise InputError(
                f"{path}: is not what its job wrote (cut short, or edited by hand); delete it, "
                "and the next run makes it again"
            )
