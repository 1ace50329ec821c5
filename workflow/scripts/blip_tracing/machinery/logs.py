"""A job's log: everything that the job says, why it failed, and beside it what the job took."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TextIO

from blip_tracing.errors import READABLE, InputError
from blip_tracing.machinery.disk import cannot_be_written
from blip_tracing.machinery.lock import stop_when_over
from blip_tracing.machinery.usage import usage_beside, write_usage

# Where standard error went before a log took it.
_saved_error: list[int] = []

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def log_to(path: str | os.PathLike[str]) -> Iterator[None]:
    """Send what happens inside to the file `path`, and let failures through.

    The file is opened (emptied) first. Into it go the logging module from INFO up, warnings, and
    standard output and error, those of child processes and C libraries included. An error of
    one line (errors.READABLE) is written as such, any other exception with its traceback; should
    it then end the process, the terminal shows one line that names the log instead of the
    traceback again. When all went well, what the process took is written beside the log (`usage`).
    Raises InputError when the run that started this job was killed and another has begun since.
    """
    target = Path(path)
    with _opened(target) as log:
        try:
            with ExitStack() as stack:
                stack.enter_context(_descriptors_to(log))
                stack.enter_context(redirect_stdout(log))
                stack.enter_context(redirect_stderr(log))
                stack.enter_context(_logging_to(log))
                yield
            write_usage(usage_beside(target))
        except Exception as error:
            with suppress(OSError):  # a full disk: what is said below is then all there is
                if isinstance(error, READABLE):
                    log.write(f"{error}\n")
                else:
                    traceback.print_exc(file=log)
            _show_one_line(error, target)
            raise


@contextmanager
def _opened(target: Path) -> Iterator[TextIO]:
    try:
        # Before the log is emptied, which by now may be that of the next run's job.
        stop_when_over(f"{target}: this job is not begun")
        target.parent.mkdir(parents=True, exist_ok=True)
        log = target.open("w", encoding="utf-8", buffering=1)
    except InputError as error:
        _show_one_line(error, target)
        raise
    except OSError as error:
        failure = cannot_be_written(target, error)
        _show_one_line(failure, target)
        raise failure from error
    try:
        yield log
    finally:
        with suppress(OSError):
            log.close()


def terminal() -> TextIO | None:
    """The terminal that a job was started from, past the log that takes its output; or None."""
    descriptor = _saved_error[-1] if _saved_error else sys.stderr.fileno()
    if not os.isatty(descriptor):
        return None
    return open(descriptor, "w", encoding="utf-8", closefd=False)


@contextmanager
def _descriptors_to(log: TextIO) -> Iterator[None]:
    """Point the process's output and error at the log, below Python's own streams."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    saved = [(descriptor, os.dup(descriptor)) for descriptor in (1, 2)]
    _saved_error.append(saved[1][1])
    try:
        for descriptor, _ in saved:
            os.dup2(log.fileno(), descriptor)
        yield
    finally:
        _saved_error.pop()
        for descriptor, copy in saved:
            os.dup2(copy, descriptor)
            os.close(copy)


@contextmanager
def _logging_to(log: TextIO) -> Iterator[None]:
    root = logging.getLogger()
    handler = logging.StreamHandler(log)
    handler.setFormatter(logging.Formatter(FORMAT))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.setLevel(level)
        root.removeHandler(handler)


def _show_one_line(error: Exception, log: Path) -> None:
    """Have Python show one line instead of a traceback, should `error` end the process."""
    show_others = sys.excepthook

    def show(kind: type[BaseException], shown: BaseException, trace: object) -> None:
        if shown is not error:
            show_others(kind, shown, trace)  # type: ignore[arg-type]
        elif isinstance(error, READABLE):
            print(error, file=sys.stderr)
        else:
            print(f"{kind.__name__}: {error} (traceback in {log})", file=sys.stderr)

    sys.excepthook = show
