"""How far a job has come: lines in its log, a bar on a terminal, neither a flood."""

import os
import pty
import sys
import time
from pathlib import Path

from blip_tracing.machinery import progress
from blip_tracing.machinery.logs import log_to, terminal
from blip_tracing.machinery.progress import Progress


def work(examples: int, log: Path, seconds_each: float = 0) -> str:
    """What a job's log holds after so many examples of fifty interventions each."""
    with log_to(log), Progress(examples, "tracing block_input") as count:
        for _ in range(examples):
            time.sleep(seconds_each)
            count.add(1, 50)
    return log.read_text()


def test_a_finished_job_says_what_it_did_in_one_line(tmp_path):
    lines = work(1000, tmp_path / "job.log").splitlines()
    assert len(lines) == 1
    assert "tracing block_input: 1000 of 1000 examples, 50,000 interventions, " in lines[0]


def test_a_long_job_says_now_and_then_how_much_is_left(tmp_path, monkeypatch):
    clock = iter(range(0, 100_000, 3))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    lines = work(40, tmp_path / "job.log").splitlines()
    assert 2 < len(lines) < 40
    assert "s left" in lines[0]


def test_without_a_terminal_there_is_no_bar(tmp_path):
    with log_to(tmp_path / "job.log"):
        assert terminal() is None


def test_on_a_terminal_there_is_a_bar_and_the_log_has_none(tmp_path):
    """The bar passes the log by, on the terminal that the job was started from."""
    main, job_side = pty.openpty()
    saved = os.dup(2)
    try:
        sys.stderr.flush()
        os.dup2(job_side, 2)
        log = work(5, tmp_path / "job.log", seconds_each=0.2)
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    shown = os.read(main, 100_000).decode()
    assert "tracing block_input" in shown
    assert "interventions/s" in shown
    assert "\r" not in log
