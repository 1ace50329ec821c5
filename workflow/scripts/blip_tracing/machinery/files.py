"""Files written whole or not at all, read as JSON, and their digests."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from blip_tracing.errors import InputError
from blip_tracing.machinery.disk import naming_what_finds_no_room
from blip_tracing.machinery.lock import stop_when_over

BLOCK_BYTES = 1 << 20
# What a job's facts say of the model that it ran.
MODEL = ("weights_sha256", "settings_sha256")
# More than any sheet, configuration or vocabulary holds; reading on would only end in no memory.
LARGEST_TEXT_BYTES = 1 << 28
# Reading these can wait for ever, or never end.
NO_FILES = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


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
            stop_when_over(f"{target}: not written")
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def check_file(path: str | os.PathLike[str]) -> None:
    """Check, without opening it, that there is a file at `path` whose reading ends.

    Raises OSError, its reason in `strerror`, where there is none, or a folder, pipe, socket or
    device.
    """
    mode = Path(path).stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        kind = NO_FILES.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", os.fspath(path))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file that is given as text.

    Raises OSError where there is no such file, or one of more than LARGEST_TEXT_BYTES.
    """
    check_file(path)
    if Path(path).stat().st_size > LARGEST_TEXT_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), os.fspath(path))
    return Path(path).read_bytes()


def sha256_of(paths: Iterable[str | os.PathLike[str]]) -> str:
    """Digest of the files' contents one after the other, as 64 hex digits.

    For one file it is what `sha256sum` prints. Raises OSError for a folder, pipe or device.
    """
    digest = hashlib.sha256()
    for path in paths:
        check_file(path)
        with open(path, "rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in a file; InputError when the file holds anything else."""
    try:
        content = json.loads(read_bytes(path).decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{os.fspath(path)}: is not JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{os.fspath(path)}: is not a JSON object; fetch it again")
    return content


def read_record(path: str | os.PathLike[str], keys: Iterable[str]) -> dict[str, Any]:
    """The JSON object that a job left beside its results, which has all of the keys.

    Raises InputError when it was cut short or edited since.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        record = None
    if not isinstance(record, dict) or not record.keys() >= set(keys):
        raise not_as_written(path)
    return record


def not_as_written(path: str | os.PathLike[str]) -> InputError:
    """The error that names a result which was damaged."""
    return InputError(
        f"{os.fspath(path)}: is not what its job wrote (cut short, or edited by hand); delete it, "
        "and the next run makes it again"
    )


def digests(paths: Iterable[str]) -> dict[str, str]:
    """Each file's sha256, by its path."""
    return {str(path): sha256_of([path]) for path in paths}


def check_files(facts: Iterable[str], paths: Iterable[str]) -> None:
    """Check files against the digests that the jobs which wrote them left in their facts.

    Raises InputError when a file was cut short or edited since, or when the facts are of more
    than one model.
    """
    records = {path: read_record(path, ["files"]) for path in facts}
    check_one_model(records)
    known = {
        path: digest for record in records.values() for path, digest in record["files"].items()
    }
    for path, digest in digests(paths).items():
        if known.get(path) != digest:
            raise not_as_written(path)


def check_one_model(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that jobs' facts, by the facts' paths, are of one model, as far as they are of any.

    What two models gave must not stand in one table, whatever the files' times say.
    Raises InputError naming the first that is of another model.
    """
    models = {
        path: [record[key] for key in MODEL]
        for path, record in records.items()
        if record.keys() >= set(MODEL)
    }
    for path, model in models.items():
        first = next(iter(models))
        if model != models[first]:
            raise InputError(
                f"{path}: is of another model than {first}; delete both, and the next run makes "
                "them again"
            )
