"""What kills a run, or stands in its way, costs the same command once more and nothing else."""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import psutil  # type: ignore[import-untyped]
import pytest
from project import ROOT, copy_project, edit_config, keep_examples, run, snakemake

from blip_tracing.errors import InputError
from blip_tracing.machinery import lock as run_lock
from blip_tracing.machinery.files import written_whole
from blip_tracing.machinery.lock import RUN, begin_run
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import write_table

SCRIPTS = ROOT / "workflow/scripts"
NAMES = ("baseline", "tokens", "runs", "patching", "controls")
TARGETS = [f"results/tables/{name}.csv" for name in NAMES]
SMALL = {
    "device: auto": "device: cpu",  # a job that is held up here would hold up others' GPU
    "donor: base\n    sites: [encoder.block_input]": "donor: base\n    sites: []",
    "layers_per_job: 6": "layers_per_job: 3",  # two jobs, of which one is left to do
}
PART = "patching/layers_0-2"


@pytest.fixture
def outside_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN, "")  # put back when the test ends


# --- a run that is killed, for real


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project whose tables are made. Do not change it."""
    project = copy_project(tmp_path_factory.mktemp("undisturbed") / "project")
    edit_config(project, SMALL)
    keep_examples(project, 2)
    run(project, *TARGETS)
    return project


@pytest.fixture
def project(undisturbed: Path, tmp_path: Path) -> Path:
    """The same, with some of the patches still to be made, and their tables."""
    project = shutil.copytree(undisturbed, tmp_path / "project", symlinks=True)
    shutil.rmtree(project / "results/cells" / PART)
    for name in ("patching", "controls"):
        (project / f"results/tables/{name}.csv").unlink()
    return project


def tables(project: Path) -> dict[str, bytes]:
    """Every table's bytes; provenance lies beside the tables and is none."""
    files = sorted((project / "results/tables").glob("*.csv"))
    return {file.name: file.read_bytes() for file in files}


def assert_tables_are_those_of(undisturbed: Path, project: Path) -> None:
    expected = tables(undisturbed)
    assert list(expected) == sorted(f"{name}.csv" for name in NAMES)
    assert tables(project) == expected
    assert not list((project / "results").rglob(".*.part"))


def times_of_writing(project: Path) -> dict[Path, int]:
    files = (project / "results/cells").rglob("*.*")
    return {file: file.stat().st_mtime_ns for file in files}


@contextlib.contextmanager
def running(project: Path) -> Iterator[psutil.Process]:
    """Snakemake at work on the tables; killed at the end, with its jobs, where it still is."""
    with (project / "snakemake.txt").open("wb") as printed:
        process = psutil.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "2", *TARGETS],
            cwd=project,
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        for each in [process, *jobs_of(project)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()


def jobs_of(project: Path) -> list[psutil.Process]:
    """The processes that run the project's scripts, whoever is their parent now."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(f"{project}/.snakemake/scripts/" in word for word in process.info["cmdline"] or [])
    ]


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def at_work(project: Path) -> psutil.Process:
    """The process of the job that is left to do, once it has opened its log."""
    log = project / f"results/logs/intervene/{PART}/0000.log"
    log.unlink()
    until(log.exists)
    (job,) = (job for job in jobs_of(project) if job.name().startswith("python"))
    return job


@pytest.mark.workflow
def test_a_job_is_killed(undisturbed: Path, project: Path) -> None:
    with running(project) as first:
        at_work(project).kill()
        first.wait()
    assert first.returncode == 1
    assert "Error in rule intervene" in (project / "snakemake.txt").read_text()
    run(project, *TARGETS)
    assert_tables_are_those_of(undisturbed, project)


@pytest.mark.workflow
def test_snakemake_is_killed_and_its_job_lives_on(undisturbed: Path, project: Path) -> None:
    """While it lives no other run begins here; afterwards its job cannot spoil the next one's."""
    left = project / "results/images/.0000.safetensors.1.part"
    with running(project) as first:
        job = at_work(project)
        job.suspend()
        left.write_text("half of what a job that was killed long ago wrote")
        second = snakemake(project, *TARGETS)
        assert second.returncode == 1
        assert second.stdout.splitlines()[-1] == (
            f"{project}: another Snakemake is at work in this folder; wait until it has ended, or "
            "work in a clone of the project"
        )
        assert "Traceback" not in second.stdout
        assert snakemake(project, "--summary", *TARGETS).returncode == 0
        assert left.exists()
        first.kill()
        first.wait()
        run(project, *TARGETS)
        assert_tables_are_those_of(undisturbed, project)
        before = times_of_writing(project)
        job.resume()
        until(lambda: not job.is_running() or job.status() == psutil.STATUS_ZOMBIE)
    assert times_of_writing(project) == before
    assert_tables_are_those_of(undisturbed, project)


def start_from_the_queue(project: Path) -> subprocess.CompletedProcess[str]:
    """What a cluster's queue holds for a job, started after the job's run has been killed."""
    record = project / run_lock.RECORD
    submitted = [
        "--target-jobs", "intervene:experiment=patching,part=layers_0-2,shard=0000",
        "--allowed-rules", "intervene", "--force", "--mode", "remote", "--no-hooks",
        "--keep-incomplete",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(RUN, f"an-older-run@{record}")
        return snakemake(project, *submitted)


@pytest.mark.workflow
def test_a_queued_job_whose_run_was_killed_ends_before_it_touches_anything(
    undisturbed: Path, tmp_path: Path
) -> None:
    """Snakemake deletes a job's outputs, here those of the run that has begun since, first."""
    project = shutil.copytree(undisturbed, tmp_path / "project", symlinks=True)
    before = times_of_writing(project)
    ended = start_from_the_queue(project)
    assert ended.returncode == 1
    assert ended.stdout == (
        f"{project}: this job is not begun: its run was killed, another has begun\n"
    )
    assert times_of_writing(project) == before


# --- a disk that takes nothing


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A file system in memory at the folder; gives a function that mounts it anew with options."""

    def mount(*options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", *options, "tmpfs", str(folder)]
        subprocess.run(command, check=True, capture_output=True, text=True)

    try:
        mount(f"size={size}")
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        pytest.skip(f"a small disk wants root and the right to mount one: {reason.strip()}")
    try:
        yield lambda option: mount(f"remount,{option}")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no room on the folder's disk; returns the file to delete."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


@pytest.mark.workflow
def test_the_disk_is_full_or_read_only(undisturbed: Path, project: Path) -> None:
    results = project / "results"
    kept = shutil.move(results, project / "kept")
    results.mkdir()
    with small_disk(results, "8m") as remount:
        shutil.copytree(kept, results, dirs_exist_ok=True)
        with running(project) as first:
            at_work(project)
            filler = fill(results)
            first.wait()
        assert first.returncode == 1
        printed = (project / "snakemake.txt").read_text()
        assert "Traceback" not in printed
        (line,) = {line for line in printed.splitlines() if "No space left" in line}
        assert line.startswith(f"results/cells/{PART}/0000.parquet: cannot be")
        assert not list(results.glob(f"c*/{PART}/0000.*"))  # cells and controls

        assert f"{results}: cannot be written (No space left on device)" in refused(project)
        filler.unlink()
        remount("ro")
        assert "results: is read-only, so nothing can be made there\n" in refused(project)
        remount("rw")
        run(project, *TARGETS)
        assert_tables_are_those_of(undisturbed, project)


@pytest.mark.workflow
def test_the_disk_of_the_whole_project_is_full(project: Path, tmp_path: Path) -> None:
    """Where Snakemake cannot even write its own log."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk, "32m"):
        shutil.copytree(project, disk / "project")
        fill(disk)
        assert f"{disk}/project/results: cannot be written (No" in refused(disk / "project")


def refused(project: Path) -> str:
    """What Snakemake prints when it ends before any job."""
    done = snakemake(project, *TARGETS)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert "Error in rule" not in done.stdout
    return done.stdout


@pytest.mark.usefixtures("outside_a_run")
def test_a_run_that_cannot_write_does_not_begin(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    with small_disk(tmp_path / "results", "64k") as remount:
        remount("ro")
        with pytest.raises(InputError) as refused:
            begin_run(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path / 'results'}: cannot be written (Read-only file system); "
        "mend that and give the same command again"
    )


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_table_that_finds_no_room_is_named_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    table = pd.DataFrame({"example": "one", "p_base": np.arange(100_000.0)})
    with small_disk(tmp_path, "64k"):
        with pytest.raises(InputError) as refused:
            write_table(table, tmp_path / name)
        assert str(refused.value) == (
            f"{tmp_path / name}: cannot be written (No space left on device); "
            "mend that and give the same command again"
        )
        assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_read_is_not_taken_for_one_that_cannot_be_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(FileNotFoundError), written_whole(tmp_path / "a"):
        (tmp_path / "none").read_bytes()


def test_a_log_that_finds_no_room_does_not_hide_what_happened() -> None:
    failure = InputError("config.yaml: wrong")
    with pytest.raises(InputError) as raised, log_to("/dev/full"):
        raise failure
    assert raised.value is failure


def test_a_log_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("no folder")
    log = str(tmp_path / "logs/a.log")
    program = f"from blip_tracing.machinery.logs import log_to\nwith log_to({log!r}):\n  1"
    job = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
    )
    assert job.stderr == (
        f"{tmp_path / 'logs/a.log'}: cannot be written (File exists); "
        "mend that and give the same command again\n"
    )


# --- the lock of a run

HOLD = """
import sys
from pathlib import Path
from blip_tracing.machinery.lock import RUN, begin_run
print(begin_run(Path(sys.argv[1])), flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def another_run(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.usefixtures("outside_a_run")
def test_one_run_a_folder_and_death_frees_it(tmp_path: Path) -> None:
    with another_run(tmp_path) as other:
        with pytest.raises(InputError, match=f"^{tmp_path}: another Snakemake is at work"):
            begin_run(tmp_path)
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert begin_run(tmp_path) == ""


@pytest.mark.usefixtures("outside_a_run")
def test_a_file_system_without_locks_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert begin_run(tmp_path) == (
        f"{tmp_path}: the file system knows no locks (No locks available); "
        "see to it yourself that no other Snakemake works in this folder"
    )


@pytest.mark.usefixtures("outside_a_run")
def test_a_job_whose_run_was_killed_writes_nothing_once_another_has_begun(tmp_path: Path) -> None:
    begin_run(tmp_path)
    table = tmp_path / "table.csv"
    with written_whole(table) as file:
        file.write(b"of this run")
    (tmp_path / run_lock.RECORD).write_text("another")
    with pytest.raises(InputError, match="its run was killed"), written_whole(table) as file:
        file.write(b"of the run before")
    assert table.read_bytes() == b"of this run"


@pytest.mark.usefixtures("outside_a_run")
def test_a_job_whose_run_was_killed_does_not_begin_once_another_has(tmp_path: Path) -> None:
    """Of a group's jobs, which follow one another, the first may have begun before."""
    begin_run(tmp_path)
    (tmp_path / run_lock.RECORD).write_text("another")
    log = tmp_path / "job.log"
    log.write_text("said by a job of the other run")
    program = (
        f"from blip_tracing.machinery.logs import log_to\nwith log_to({str(log)!r}):\n"
        "  print('begun')"
    )
    job = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
    )
    assert (job.returncode, job.stdout) == (1, "")
    assert job.stderr == f"{log}: this job is not begun: its run was killed, another has begun\n"
    assert log.read_text() == "said by a job of the other run"


@pytest.mark.usefixtures("outside_a_run")
def test_a_run_begins_without_what_killed_jobs_left(tmp_path: Path) -> None:
    (tmp_path / "results/deep").mkdir(parents=True)
    left, kept = tmp_path / "results/deep/.a.csv.12.part", tmp_path / "results/deep/a.csv"
    for file in (left, kept):
        file.write_text("")
    begin_run(tmp_path)
    assert (left.exists(), kept.exists()) == (False, True)
    assert (tmp_path / "reports").is_dir()
