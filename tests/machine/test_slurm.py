"""On a running SLURM, whatever goes wrong there, the tables are those of an undisturbed run."""

import getpass
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import slurm
from project import copy_project, run
from slurm import Job, controller_away, node_lost, nodes_drained, submitting

from blip_tracing.given.sheet import load_sheet

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(slurm.missing()), reason=slurm.missing()),
]
# A machine's administrator could stop a cluster that others use, so tests stop nothing unasked.
needs_daemons = pytest.mark.skipif(
    not os.environ.get("SLURM_TO_BREAK"),
    reason="stops daemons of SLURM: set SLURM_TO_BREAK=1 where all of them run on this machine "
    "and no one else needs them",
)

NAMES = ("baseline", "patching", "runs", "tokens", "tracing")
TABLES = [f"results/tables/{name}.csv" for name in NAMES]
# By default one job runs the model; apart, so many.
AT_ONCE = "measure_at_once"
APART = {"encode_images": 1, "answer_questions": 1, "run_corrupted": 1, "intervene": 3}
# Of `render_runtime` too.
REPORT_RULES = ("render", "tell_story")
LOCAL_RULES = (
    "fetch_model", "measure_effects", "collect_table", "collect_cells", "collect_effects",
    "collect_runtimes", "all",
)  # fmt: skip
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Ended:
    """A run that ended well: where, and the jobs that SLURM had for it, by rule."""

    project: Path
    jobs: dict[str, list[Job]]
    requests: list[str] = field(default_factory=list)


def run_all(project: Path) -> Ended:
    with submitting(project) as submitted:
        submitted.finish()
        rules = (AT_ONCE, *APART, *REPORT_RULES, *LOCAL_RULES)
        return Ended(project, {rule: submitted.jobs(rule) for rule in rules})


def cancel_in_mid_run(project: Path) -> Ended:
    with submitting(project, *TABLES) as submitted:
        submitted.in_mid_run(AT_ONCE).cancel()
        submitted.finish()
        return Ended(project, {AT_ONCE: submitted.jobs(AT_ONCE)})


def hang_in_mid_run(project: Path) -> Ended:
    one_minute = ("--set-resources", f"{AT_ONCE}:runtime=attempt")
    with submitting(project, *TABLES, *one_minute) as submitted:
        submitted.in_mid_run(AT_ONCE).stop()
        submitted.finish()
        return Ended(project, {AT_ONCE: submitted.jobs(AT_ONCE)})


def run_without_network(project: Path) -> Ended:
    """Model and pictures come from a server that the jobs, apart, cannot reach."""
    config, sheet = project / "config/config.yaml", project / "config/examples.tsv"
    with serving(project / "resources/miniature") as (address, requests):
        for old, new in {
            "resources/miniature/checkpoint": "lab/miniature",
            "layers_per_job: 6": "layers_per_job: 3",
        }.items():
            assert old in config.read_text()
            config.write_text(config.read_text().replace(old, new))
        sheet.write_text(sheet.read_text().replace("resources/miniature", address))
        environment = {
            "PATH": f"{cut_srun(project / 'bin')}{os.pathsep}{os.environ['PATH']}",
            "HF_ENDPOINT": address,
            "HF_HOME": str(project / "hub"),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        with submitting(project, *TABLES, environment=environment) as submitted:
            submitted.finish()
            jobs = {rule: submitted.jobs(rule) for rule in APART}
    return Ended(project, jobs, requests)


def cut_srun(folder: Path) -> Path:
    """A folder for the PATH with an `srun` that starts its command without a network.

    The executor's jobs start their work by `srun`, which itself needs the network.
    """
    folder.mkdir()
    cut = "unshare --map-root-user --net"
    if subprocess.run([*cut.split(), "true"], check=False).returncode:
        # No right to that here: only keep the libraries from finding their way.
        nowhere = "http://127.0.0.1:9"
        cut = f"env HF_HUB_OFFLINE=1 HF_ENDPOINT={nowhere} http_proxy={nowhere} NO_PROXY= no_proxy="
    (folder / "srun").write_text(
        "#!/bin/sh\n"
        "options=\n"
        'while [ "${1#-}" != "$1" ]; do options="$options $1"; shift; done\n'
        f'echo "$options" >> {folder}/cut.txt\n'
        f'exec {shutil.which("srun")} $options {cut} "$@"\n'
    )
    (folder / "srun").chmod(0o755)
    return folder


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A Hub with the model lab/miniature, and pictures; its address and the files asked for."""
    asked: list[str] = []
    listing = [
        {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": path.name}
        for path in (folder / "checkpoint").iterdir()
    ]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/api/models/lab/miniature/tree/"):
                self.answer(json.dumps(listing).encode(), "application/json")
            elif path.startswith("/api/models/lab/miniature"):
                about = {"id": "lab/miniature", "sha": COMMIT, "siblings": []}
                self.answer(json.dumps(about).encode(), "application/json")
            else:
                file = path.replace(f"/lab/miniature/resolve/{COMMIT}/", "/checkpoint/")
                if self.command == "GET":
                    asked.append(Path(file).name)
                kind = "image/png" if file.endswith("png") else "application/octet-stream"
                self.answer((folder / file[1:]).read_bytes(), kind)

        do_HEAD = do_GET

        def answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{Path(self.path).name}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.fixture(scope="module")
def side_by_side(tmp_path_factory) -> dict[str, Future[Ended]]:
    """Runs at the same time, since each waits most of its time: for SLURM, and to look again."""
    runs = {
        "all": run_all,
        "no network": run_without_network,
        "cancelled": cancel_in_mid_run,
        "hung": hang_in_mid_run,
    }
    folders = {name: tmp_path_factory.mktemp("slurm") / "project" for name in runs}
    with ThreadPoolExecutor() as pool:
        for folder in folders.values():
            copy_project(folder)
        return {name: pool.submit(does, folders[name]) for name, does in runs.items()}


def assert_same_tables(project: Path, default_run: Path) -> None:
    for table in TABLES:
        assert (project / table).read_bytes() == (default_run / table).read_bytes(), table


def test_the_whole_graph_gives_the_same_tables(side_by_side, default_run):
    ended = side_by_side["all"].result()
    assert_same_tables(ended.project, default_run)
    assert "Nothing to be done" in run(ended.project)


def test_one_job_runs_the_model_and_asks_for_a_gpu(side_by_side):
    jobs = side_by_side["all"].result().jobs
    (job,) = jobs[AT_ONCE]
    assert (job.gpus, job.cores, job.memory) == ("gres:gpu:1", "2", "4000M")
    assert job.time_limit == "1:00:00"
    assert not any(jobs[rule] for rule in APART)


@pytest.mark.parametrize("rule", APART)
def test_rules_that_run_the_model_ask_for_a_gpu(side_by_side, rule):
    jobs = side_by_side["no network"].result().jobs[rule]
    assert len(jobs) == APART[rule]
    for job in jobs:
        assert (job.gpus, job.cores, job.memory) == ("gres:gpu:1", "2", "4000M")
        assert job.time_limit == "30:00"


@pytest.mark.parametrize("rule", REPORT_RULES)
def test_reports_ask_for_no_gpu(side_by_side, rule):
    jobs = side_by_side["all"].result().jobs[rule]
    assert jobs
    for job in jobs:
        assert (job.gpus, job.cores, job.memory) == ("N/A", "1", "4000M")


@pytest.mark.parametrize("rule", LOCAL_RULES)
def test_rules_of_seconds_are_not_submitted(side_by_side, rule):
    assert side_by_side["all"].result().jobs[rule] == []


def test_jobs_need_no_network(side_by_side, default_run):
    """Model and pictures are fetched where Snakemake runs, each file once."""
    ended = side_by_side["no network"].result()
    assert_same_tables(ended.project, default_run)
    assert len((ended.project / "bin/cut.txt").read_text().splitlines()) == sum(APART.values())
    pictures = {
        Path(image).name for image in load_sheet(ended.project / "config/examples.tsv")["image"]
    }
    assert len(ended.requests) == len(set(ended.requests))
    assert {"model.safetensors", *pictures} <= set(ended.requests)


def test_a_cancelled_job_is_submitted_again_and_asks_for_more(side_by_side, default_run):
    ended = side_by_side["cancelled"].result()
    first, second = ended.jobs[AT_ONCE]
    assert (first.state, second.state) == ("CANCELLED", "COMPLETED")
    assert (second.cores, second.memory, second.time_limit) == ("4", "8000M", "2:00:00")
    assert_same_tables(ended.project, default_run)


def test_a_job_over_its_time_is_given_more(side_by_side, default_run):
    ended = side_by_side["hung"].result()
    first, second = ended.jobs[AT_ONCE]
    assert (first.state, second.state) == ("TIMEOUT", "COMPLETED")
    assert (first.time_limit, second.time_limit) == ("1:00", "2:00")
    assert_same_tables(ended.project, default_run)


@needs_daemons
def test_the_controller_is_away_and_then_a_node_is_lost(default_run, tmp_path):
    """The node's old process goes on writing while the retry writes the same files."""
    working, frozen = copy_project(tmp_path / "working"), copy_project(tmp_path / "frozen")
    with submitting(working, *TABLES) as one, submitting(frozen, *TABLES) as other:
        lost = other.in_mid_run(AT_ONCE)
        lost.stop()
        old = lost.process_ids()
        one.in_mid_run(AT_ONCE)
        with controller_away():
            time.sleep(40)
        with node_lost(lost.node):
            assert other.attempt(2, AT_ONCE).node != lost.node
            living = [process for process in old if is_alive(process)]
            assert living
            for process in living:
                os.kill(process, signal.SIGCONT)
            other.finish()
            other.until(lambda: not any(map(is_alive, old)))
        one.finish()
        assert [job.state for job in one.jobs(AT_ONCE)] == ["COMPLETED"]
        states = [job.state for job in other.jobs(AT_ONCE)]
    assert states == ["NODE_FAIL", "COMPLETED"]
    assert_same_tables(working, default_run)
    assert_same_tables(frozen, default_run)


@needs_daemons
def test_a_job_that_a_killed_run_left_in_the_queue_ends_as_it_starts(default_run, tmp_path):
    project = copy_project(tmp_path / "project")
    with ExitStack() as second_run:
        with nodes_drained():
            with submitting(project, *TABLES) as killed:
                killed.until(lambda: bool(killed.jobs(AT_ONCE)))
                killed.process.kill()
                killed.process.wait()
            submitted = second_run.enter_context(submitting(project, *TABLES))
            submitted.until(lambda: len(submitted.jobs(AT_ONCE)) == 2)
        submitted.finish()
        left, repeated = submitted.jobs(AT_ONCE)
    assert (left.state, repeated.state) == ("FAILED", "COMPLETED")
    (said,) = (project / ".snakemake/slurm_logs").rglob(f"{left.number}.log")
    assert said.read_text() == (
        f"{project}: this job is not begun: its run was killed, another has begun\n"
    )
    assert_same_tables(project, default_run)


def is_alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def test_where_jobs_go_is_set_in_the_profile_alone(tmp_path):
    """Its lines work as they stand once the # is taken away."""
    account = known_account()
    if not account:
        pytest.skip("SLURM keeps no accounts here, or none for this user")
    project = copy_project(tmp_path / "project")
    partition = slurm.command("sinfo", "--noheader", "--format=%R").split()[-1]
    use(project, "slurm_partition: gpu", f"slurm_partition: {partition}")
    use(project, "slurm_account: lab", f"slurm_account: {account}")
    use(project, "gpu_model: a100", "gpu_model: none_has_this")
    use(project, "constraint: avx512")
    with submitting(project, "results/tables/baseline.csv", "--retries", "0") as submitted:
        submitted.until(lambda: submitted.process.poll() is not None)
    asked = submitted.printed.read_text()
    assert f" -p {partition} " in asked
    assert f" -A {account} " in asked
    assert " -C avx512 " in asked
    assert " --gpus=none_has_this:1 " in asked
    assert "SLURM sbatch failed" in asked


def known_account() -> str:
    """An account that this user may have charged, where SLURM keeps accounts."""
    user = getpass.getuser()
    listed = slurm.command("sacctmgr", "-n", "-s", "list", "user", user, "format=account%99")
    return listed.split()[0] if listed.split() else ""


def use(project: Path, line: str, instead: str = "") -> None:
    """Take the # from a line of the profile."""
    profile = project / "profiles/slurm/config.yaml"
    text = profile.read_text()
    assert text.count(f"# {line}\n") == 1
    profile.write_text(text.replace(f"# {line}\n", f"{instead or line}\n"))
