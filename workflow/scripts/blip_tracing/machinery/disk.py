"""What is said where the disk takes no more."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from blip_tracing.errors import InputError

# What only writing meets: a full disk, a quota used up, a file system that is read-only.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@contextmanager
def naming_what_finds_no_room(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the disk's refusal to take the file `path` into one line; let other errors through."""
    try:
        yield
    except OSError as error:
        if error.errno in REFUSALS:
            raise cannot_be_written(path, error) from error
        raise


def cannot_be_written(path: str | os.PathLike[str], error: OSError) -> InputError:
    """The error that names a file or folder which cannot be written, and why."""
    return InputError(
        f"{os.fspath(path)}: cannot be written ({error.strerror}); "
        "mend that and give the same command again"
    )
