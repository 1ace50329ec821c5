"""Jobs side by side on one machine share its GPUs out; pretended devices stand for them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from project import ROOT, copy_project, run

from blip_tracing.errors import InputError
from blip_tracing.machinery import devices
from blip_tracing.machinery.devices import check_device, claim_device, cuda_devices, slow_precision

HOLD = """
import sys, time
from pathlib import Path
from blip_tracing.machinery.devices import claim_device
names, places, folder = sys.argv[1].split(","), int(sys.argv[2]), Path(sys.argv[3])
with claim_device(names, places, folder, poll=0.02) as index:
    print(index, flush=True)
    sys.stdin.readline()
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "workflow/scripts")}


@pytest.fixture
def hold(tmp_path):
    """Start processes that hold a place on one of the pretended devices."""
    held = []

    def start(names="a,b", places=1):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, names, str(places), str(tmp_path)],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        held.append(process)
        return process

    yield start
    for process in held:
        process.kill()
        process.communicate()


def claimed(process: subprocess.Popen) -> int:
    """The index that the process came to hold; waits for it."""
    assert process.stdout is not None
    return int(process.stdout.readline())


def try_to_claim(names: list[str], places: int, folder: Path) -> int | None:
    """The index of a free place, or None when all are taken."""
    try:
        with claim_device(names, places, folder, poll=-1) as index:
            return index
    except ValueError:  # time.sleep refuses the negative poll: there was something to wait for
        return None


def test_each_process_takes_a_device_of_its_own(hold):
    assert {claimed(hold()), claimed(hold())} == {0, 1}


def test_a_third_process_waits_until_one_is_free(hold, tmp_path):
    first, second = hold(), hold()
    freed = claimed(first)
    claimed(second)
    third = hold()
    time.sleep(0.3)
    assert try_to_claim(["a", "b"], 1, tmp_path) is None
    first.communicate("done\n")
    assert claimed(third) == freed


def test_a_killed_process_releases_its_device(hold):
    first, second = hold(), hold()
    freed = claimed(first)
    claimed(second)
    third = hold()
    first.send_signal(signal.SIGKILL)
    assert claimed(third) == freed


def test_several_jobs_share_a_device_where_the_profile_says_so(hold, tmp_path):
    indices = [claimed(hold(places=2)) for _ in range(4)]
    assert sorted(indices) == [0, 0, 1, 1]
    # Idle devices go first: nothing shares while one is free.
    assert sorted(indices[:2]) == [0, 1]
    assert try_to_claim(["a", "b"], 2, tmp_path) is None


def test_a_device_known_by_another_number_is_the_same_device(hold, tmp_path):
    """Another process may see fewer devices; its first may be this one's second."""
    claimed(hold("a,b"))
    assert claimed(hold("b")) == 0
    assert try_to_claim(["b", "a"], 1, tmp_path) is None


def test_only_cuda_needs_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cuda_devices", list)
    check_device("auto")
    check_device("cpu")
    with pytest.raises(InputError, match="device: cuda, but this machine has no CUDA device"):
        check_device("cuda")
    monkeypatch.setattr(devices, "cuda_devices", lambda: ["a", "b"])
    check_device("cuda")


def test_bfloat16_is_warned_of_on_a_cpu_without_its_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without, x86, arm = (tmp_path / name for name in ("without", "x86", "arm"))
    without.write_text("processor : 0\nflags : fpu avx2 avx512f\n")
    x86.write_text("processor : 0\nflags : fpu avx2 avx512f avx512_bf16\n")
    arm.write_text("processor : 0\nFeatures : fp asimd bf16\n")
    monkeypatch.setattr(devices, "cuda_devices", list)
    for device in ("cpu", "auto"):
        warning = slow_precision(device, "bfloat16", without)
        assert warning is not None
        assert warning.startswith("model.dtype: bfloat16")
        assert "\n" not in warning
        assert slow_precision(device, "float32", without) is None
        for processor in (x86, arm, tmp_path / "of another system"):
            assert slow_precision(device, "bfloat16", processor) is None
    assert slow_precision("cuda", "bfloat16", without) is None
    monkeypatch.setattr(devices, "cuda_devices", lambda: ["a"])
    assert slow_precision("auto", "bfloat16", without) is None
    assert slow_precision("cpu", "bfloat16", without)


@pytest.mark.workflow
def test_a_run_warns_of_bfloat16_before_its_first_job(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    config = project / "config/config.yaml"
    config.write_text(config.read_text().replace("dtype: float32", "dtype: bfloat16"))
    warning = slow_precision("auto", "bfloat16")
    printed = run(project, "results/model.json").splitlines()
    assert sum(line == warning for line in printed) == (warning is not None)


def count_cuda_devices(environment: dict[str, str]) -> int:
    """What a fresh process counts: the driver looks at the environment once a process."""
    program = "from blip_tracing.machinery.devices import cuda_devices; print(len(cuda_devices()))"
    printed = subprocess.run(
        [sys.executable, "-c", program],
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        check=True,
        text=True,
    )
    return int(printed.stdout)


def test_the_driver_counts_the_devices_that_torch_sees() -> None:
    assert count_cuda_devices({"CUDA_VISIBLE_DEVICES": ""}) == 0
    if torch.version.cuda:
        assert count_cuda_devices({}) == torch.cuda.device_count()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_identities_are_the_devices_own():
    assert len(set(cuda_devices())) == torch.cuda.device_count()
