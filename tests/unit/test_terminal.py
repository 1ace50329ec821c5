"""A run's terminal shows a line a job, and of what goes wrong all that Snakemake says."""

from __future__ import annotations

import io
import logging
import re
from typing import Any

import pytest
from snakemake.logging import (  # type: ignore[import-untyped]
    ColorizingTextHandler,
    DefaultFormatter,
    LogEvent,
)

from blip_tracing.machinery.terminal import shorten

LINE = r"\d\d:\d\d:\d\d  "
FAILED: dict[str, Any] = {
    "rule_name": "render", "msg": "rendering", "rule_msg": "rendering", "jobid": 3, "input": [],
    "output": ["a.html"], "log": [], "conda_env": None, "shellcmd": None, "aux": {},
}  # fmt: skip
NAMELESS: dict[str, Any] = {
    "rule_name": "mine", "rule_msg": None, "local": False, "is_checkpoint": False, "input": [],
    "output": [], "log": [], "jobid": 4, "benchmark": None, "wildcards": {}, "priority": 0,
    "threads": 1, "resources": {}, "reason": "",
}  # fmt: skip


class Terminal:
    """Snakemake's logger with its own handler, as at the start of a run."""

    def __init__(self, dry: bool = False, shortened: bool = True) -> None:
        self.text = io.StringIO()
        self.logger = logging.Logger("of a test")
        handler = ColorizingTextHandler(stream=self.text, formatter=DefaultFormatter(["reason"]))
        self.logger.addHandler(handler)
        self.file = io.StringIO()
        kept = logging.StreamHandler(self.file)
        kept.setFormatter(DefaultFormatter(["reason"]))
        self.logger.addHandler(kept)
        if shortened:
            shorten(self.logger, lambda: dry)

    def say(self, event: LogEvent | None, text: str | None = None, **facts: Any) -> None:
        self.logger.info(text, extra={"event": event, **facts} if event else {})

    def run_a_job(self) -> None:
        """What Snakemake says of the second of three jobs."""
        self.say(None, "Building DAG of jobs...")
        self.say(LogEvent.RESOURCES_INFO, "Provided cores: 2", cores=2)
        self.say(LogEvent.RUN_INFO, "Job stats:\ntotal 3\n", stats={"total": 3})
        self.say(LogEvent.PROGRESS, done=1, total=3)
        self.say(None, "Select jobs to execute...")
        self.say(LogEvent.JOB_STARTED, "Execute 1 jobs...", jobs=[3])
        self.say(LogEvent.JOB_INFO, jobid=3, rule_msg="rendering the page", reason="")
        self.say(LogEvent.JOB_FINISHED, "Finished jobid: 3 (Rule: render)", job_id=3)


def untimed(log: str) -> str:
    return re.sub(r"^\[.*:.*:.*\]", "", log, flags=re.MULTILINE)


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def test_a_job_is_one_line_that_says_how_far_the_run_is(terminal: Terminal) -> None:
    terminal.run_a_job()
    assert re.fullmatch(LINE + "1 of 3 done, now rendering the page\n", terminal.text.getvalue())


def test_before_the_first_is_done_the_number_of_jobs_is_known(terminal: Terminal) -> None:
    terminal.say(LogEvent.RUN_INFO, "Job stats:\ntotal 3\n", stats={"total": 3})
    terminal.say(LogEvent.JOB_INFO, jobid=1, rule_msg="fetching")
    assert re.fullmatch(LINE + "0 of 3 done, now fetching\n", terminal.text.getvalue())


def test_snakemakes_own_log_keeps_everything(terminal: Terminal) -> None:
    plain = Terminal(shortened=False)
    for one in (terminal, plain):
        one.run_a_job()
    assert untimed(terminal.file.getvalue()) == untimed(plain.file.getvalue())
    assert "Select jobs to execute" in terminal.file.getvalue()


def test_a_dry_run_is_told_as_snakemake_tells_it() -> None:
    dry, plain = Terminal(dry=True), Terminal(shortened=False)
    for one in (dry, plain):
        one.run_a_job()
    assert "Job stats" in dry.text.getvalue()
    assert untimed(dry.text.getvalue()) == untimed(plain.text.getvalue())


@pytest.mark.parametrize(
    ("event", "text", "facts"),
    [
        (LogEvent.JOB_ERROR, None, FAILED),
        (LogEvent.JOB_INFO, None, NAMELESS),
        (LogEvent.ERROR, "WorkflowError: no", {}),
        (LogEvent.SHELLCMD, "touch a", {}),
        (None, "config.yaml: devic is not a known key", {}),
        (None, "Nothing to be done (all requested files are present and up to date).", {}),
    ],
)
def test_all_else_is_as_snakemake_says_it(
    terminal: Terminal, event: LogEvent | None, text: str | None, facts: dict[str, Any]
) -> None:
    plain = Terminal(shortened=False)
    for one in (terminal, plain):
        made = {"levelname": "INFO", "levelno": logging.INFO, "msg": text, "event": event}
        one.logger.handle(logging.makeLogRecord({**made, **facts}))
    assert untimed(terminal.text.getvalue()).strip() == untimed(plain.text.getvalue()).strip()
    assert terminal.text.getvalue().strip()
