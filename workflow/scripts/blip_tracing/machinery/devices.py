"""Which GPU a job takes: a free one, by a file lock that its death releases.

Snakemake counts GPUs but assigns none, so jobs that run side by side on one machine agree here.
"""

import ctypes
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from filelock import FileLock, Timeout

from blip_tracing.errors import InputError

POLL_SECONDS = 0.5
# What Linux calls a processor's instructions for bfloat16: x86's two sets, and ARM's.
BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
UUID_BYTES = 16

logger = logging.getLogger(__name__)


def cuda_devices() -> list[str]:
    """The identities (UUIDs) of the CUDA devices that the driver shows this process, in order.

    CUDA_VISIBLE_DEVICES, and what a scheduler hands the job, are respected by the driver. An
    identity belongs to one physical device, whatever number it has in this process. Asks the
    driver itself: it needs no torch, and does not say whether torch was built for CUDA.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    return [device_identity(driver, index) for index in range(count.value)]


def check_device(device: str) -> None:
    """Check that the machine has what `device: cuda` asks for; auto and cpu always pass.

    Raises InputError when there is no CUDA device.
    """
    if device == "cuda" and not cuda_devices():
        raise InputError(
            "device: cuda, but this machine has no CUDA device; set device to auto or cpu"
        )


def slow_precision(
    device: str, dtype: str, processor: str | os.PathLike[str] = "/proc/cpuinfo"
) -> str | None:
    """A warning, one line, where `dtype` is bfloat16 on a CPU without instructions for it.

    device: auto, cpu or cuda; processor: where Linux describes its processors. None where there is
    nothing to warn of, or no such file, as on other systems.
    """
    if dtype != "bfloat16" or device == "cuda" or (device == "auto" and cuda_devices()):
        return None
    try:
        described = Path(processor).read_text(encoding="utf-8")
    except OSError:
        return None
    if BFLOAT16 & set(described.split()):
        return None
    return (
        "model.dtype: bfloat16 on a processor that has no instructions for it takes several times "
        "as long as float32 (eight times where it was measured); set it to float32"
    )


def device_identity(driver: ctypes.CDLL, index: int) -> str:
    """The UUID of one device as 32 hex digits."""
    device, uuid = ctypes.c_int(0), (ctypes.c_ubyte * UUID_BYTES)()
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetUuid_v2(ctypes.byref(uuid), device)
    return bytes(uuid).hex()


def lock_folder() -> Path:
    """Where this user's jobs on this machine keep their locks."""
    return Path(tempfile.gettempdir()) / f"blip-causal-tracing-{os.getuid()}"


@contextmanager
def claim_device(
    devices: Sequence[str], jobs_per_gpu: int, folder: Path, poll: float = POLL_SECONDS
) -> Iterator[int]:
    """Hold one of `jobs_per_gpu` places on a device, waiting while all are taken.

    Yields the device's index in `devices`. Places on idle devices go first. The lock is the
    operating system's, so that it ends with the process, however that dies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, index = wait_for_place(devices, jobs_per_gpu, folder, poll)
    try:
        yield index
    finally:
        lock.release()


def wait_for_place(
    devices: Sequence[str], jobs_per_gpu: int, folder: Path, poll: float
) -> tuple[FileLock, int]:
    """Take the first free place, in order of how many share the device."""
    waiting = False
    while True:
        for place, (index, device) in product(range(jobs_per_gpu), enumerate(devices)):
            lock = FileLock(folder / f"{device}-{place}.lock")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            return lock, index
        if not waiting:
            logger.info("all places on %d devices are taken; waiting", len(devices))
            waiting = True
        time.sleep(poll)
