"""One run at a time in a folder, and no writing by what a killed run left behind.

Snakemake's own lock outlives a killed Snakemake and then refuses the next run, so the profiles
switch it off. The lock here is the operating system's and ends with the process that holds it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import uuid
from pathlib import Path

from blip_tracing.errors import InputError
from blip_tracing.machinery.disk import cannot_be_written

LOCK = ".snakemake/run.lock"
# Names the folder's latest run; its jobs have the same name in this environment variable.
RECORD = ".snakemake/run"
RUN = "BLIP_TRACING_RUN"
# The folders that jobs write to, and what they call a file that is not whole yet.
WRITTEN = ("results", "reports")
PARTS = ".*.part"
# What file systems answer that know no locks.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
TRIAL_BYTES = 1 << 16


def begin_run(folder: Path) -> str:
    """Make this process the one that runs jobs in `folder`, until it ends, however it ends.

    What killed jobs left half-written is removed, and jobs that outlived their run can no longer
    begin (`common.smk`, `logs.log_to`) or write (`files.written_whole`).
    Returns a warning, of one line, where the file system knows no locks, else "".
    Raises InputError when another run is at work in the folder, or a folder cannot be written to.
    """
    warning = _lock(folder)
    for name in WRITTEN:
        _make_room(folder / name)
    run = uuid.uuid4().hex
    (folder / RECORD).write_text(run)
    os.environ[RUN] = f"{run}@{folder / RECORD}"
    return warning


def stop_when_over(what: str) -> None:
    """End what a job is about to do once its run has died and another has begun in its folder.

    Raises InputError, `what: its run was killed, another has begun`.
    """
    run, _, record = os.environ.get(RUN, "").partition("@")
    if run and Path(record).is_file() and Path(record).read_text() != run:
        raise InputError(f"{what}: its run was killed, another has begun")


def _lock(folder: Path) -> str:
    path = folder / LOCK
    try:
        path.parent.mkdir(exist_ok=True)
        # Left open for good: the lock is to last as long as the process. Jobs do not inherit it.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            f"{folder}: another Snakemake is at work in this folder; wait until it has ended, or "
            "work in a clone of the project"
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise cannot_be_written(path, error) from error
        return (
            f"{folder}: the file system knows no locks ({error.strerror}); "
            "see to it yourself that no other Snakemake works in this folder"
        )
    return ""


def _make_room(folder: Path) -> None:
    """Remove what killed jobs left half-written, and check that there is room to write."""
    try:
        folder.mkdir(exist_ok=True)
        for part in folder.rglob(PARTS):
            part.unlink(missing_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(TRIAL_BYTES))
    except OSError as error:
        raise cannot_be_written(folder, error) from error
