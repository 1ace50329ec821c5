"""A job's log holds all that the job says and why it failed; the terminal shows one line."""

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from blip_tracing.errors import InputError
from blip_tracing.machinery.logs import log_to

SCRIPTS = Path(__file__).parents[2] / "workflow/scripts"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs/fetch/model.log"


def test_everything_that_is_said_lands_in_the_log(
    log: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with log_to(log):
        print("printed")
        print("complained", file=sys.stderr)
        logging.getLogger("somewhere.deep").info("noted")
        warnings.warn("beware", stacklevel=1)
        subprocess.run(["sh", "-c", "echo child; echo cry >&2"], check=True)
        os.write(2, b"from below\n")
    assert capfd.readouterr() == ("", "")
    said = log.read_text()
    for words in ("printed", "complained", "INFO somewhere.deep: noted", "UserWarning: beware"):
        assert words in said
    assert "child\ncry\nfrom below\n" in said


def test_afterwards_all_is_as_before(
    log: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    root = logging.getLogger()
    caplog.set_level(logging.ERROR)
    before = (root.level, list(root.handlers), sys.stdout, sys.stderr, sys.excepthook)
    with log_to(log):
        print("inside")
    assert (root.level, list(root.handlers), sys.stdout, sys.stderr, sys.excepthook) == before
    print("outside")
    subprocess.run(["sh", "-c", "echo child"], check=True)
    assert capfd.readouterr().out == "outside\nchild\n"
    assert log.read_text() == "inside\n"


def test_an_older_log_is_replaced(log: Path) -> None:
    for words in ("first", "second"):
        with log_to(log):
            print(words)
    assert log.read_text() == "second\n"


def test_the_log_is_there_before_anything_is_said(log: Path) -> None:
    with log_to(log):
        assert log.is_file()
        print("at once")
        assert log.read_text() == "at once\n"


def run_job(log: Path, failure: str) -> subprocess.CompletedProcess[str]:
    """A process that says something and fails inside its log, as a script of Snakemake's does."""
    program = f"""
from blip_tracing.errors import InputError
from blip_tracing.machinery.logs import log_to
with log_to({str(log)!r}):
    print("before")
    {failure}
"""
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
    )


def test_wrong_input_is_one_line_in_the_log_and_on_the_terminal(log: Path) -> None:
    job = run_job(log, 'raise InputError("config.yaml: model: is empty")')
    assert job.returncode == 1
    assert (job.stdout, job.stderr) == ("", "config.yaml: model: is empty\n")
    assert log.read_text() == "before\nconfig.yaml: model: is empty\n"


def test_a_fault_of_the_program_leaves_its_traceback_in_the_log(log: Path) -> None:
    job = run_job(log, "1 / 0")
    assert job.returncode == 1
    assert job.stderr == f"ZeroDivisionError: division by zero (traceback in {log})\n"
    said = log.read_text()
    assert said.startswith("before\nTraceback (most recent call last):\n")
    assert said.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize("failure", [InputError("config.yaml: wrong"), RuntimeError("broken")])
def test_a_failure_is_let_through(
    log: Path, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # put back when the test ends
    with pytest.raises(type(failure)) as raised, log_to(log):
        raise failure
    assert raised.value is failure
