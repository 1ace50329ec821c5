"""What a run says on the terminal: a line a job, and all that went wrong.

Snakemake tells of each job in eight lines or more. Its own log file still has them all.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from snakemake.logging import (  # type: ignore[import-untyped]
    ColorizingTextHandler,
    LogEvent,
    get_event,
)

# What the line of the next job says too, or the message of the first and last job.
ASIDE = {
    LogEvent.JOB_STARTED, LogEvent.JOB_FINISHED, LogEvent.PROGRESS, LogEvent.RESOURCES_INFO,
    LogEvent.RUN_INFO,
}  # fmt: skip
# These have no event to be known by.
ASIDE_TEXTS = (
    "Select jobs to execute", "Using shell: ", "Building DAG of jobs",
    "Assuming unrestricted shared filesystem usage", "Conda environments: ignored",
)  # fmt: skip


class LineAJob(logging.Formatter):
    """Filter and formatter of a terminal's handler: a job is one line, other news are dropped."""

    def __init__(self, handler: ColorizingTextHandler, dry: Callable[[], bool]) -> None:
        """dry: whether this is a dry run, which stays as it is: it is read for its details."""
        super().__init__()
        self.handler, self.dry, self.others = handler, dry, handler.formatter
        self.done = self.total = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        event = get_event(record)
        if self.dry():
            return True
        if event == LogEvent.RUN_INFO:
            self.total = getattr(record, "stats", {}).get("total", 0)
        if event == LogEvent.PROGRESS:
            self.done, self.total = record.done, record.total  # type: ignore[attr-defined]
        if event == LogEvent.JOB_INFO:
            # Else the handler puts a blank line above.
            self.handler.last_msg_was_job_info = True
        return event not in ASIDE and not (event is None and is_aside(record))

    def format(self, record: logging.LogRecord) -> str:
        """The line of a job whose rule has words for it, else what Snakemake says."""
        words = getattr(record, "rule_msg", None)
        if words and get_event(record) == LogEvent.JOB_INFO and not self.dry():
            clock = time.strftime("%H:%M:%S", time.localtime(record.created))
            return f"{clock}  {self.done} of {self.total} done, now {words}"
        return self.others.format(record)


def is_aside(record: logging.LogRecord) -> bool:
    """Whether a message without an event is of no use to a reader."""
    return str(record.msg).startswith(ASIDE_TEXTS)


def shorten(logger: logging.Logger, dry: Callable[[], bool]) -> None:
    """Have the logger's handlers of a terminal say a line a job, unless it is a dry run."""
    for handler in logger.handlers:
        if isinstance(handler, ColorizingTextHandler):
            lines = LineAJob(handler, dry)
            handler.addFilter(lines)
            handler.setFormatter(lines)
