"""What a job took: its time, processor time and memory, as its own process counts them at its end.

A scheduler's or Snakemake's samples miss what comes after the last of them; the system's own count
misses only how the process is cleared away (with torch loaded a second of processor time).
"""

import json
import os
import re
import resource
import sys
import time
from pathlib import Path

from blip_tracing.machinery.files import written_whole

ENDING = ".usage.json"
MEASURED = ("seconds", "cpu_seconds", "memory_mib")
# The unit of `ru_maxrss`.
MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
MIB = 1 << 20

_imported = time.monotonic()


def usage_beside(log: str | os.PathLike[str]) -> Path:
    """The file that says what a job took, by the job's log."""
    return Path(log).with_suffix(ENDING)


def write_usage(path: str | os.PathLike[str]) -> None:
    """Write what this process has taken so far, with its child processes that have ended.

    seconds: since the process began. cpu_seconds: of all its threads and children, in the user's
    mode and the system's. memory_mib: the resident memory's peak, of the largest process.
    """
    own, children = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    processor = sum(usage.ru_utime + usage.ru_stime for usage in (own, children))
    memory = max(_own_peak_bytes(own), children.ru_maxrss * MAXRSS_BYTES)
    taken = (_seconds_alive(), processor, memory / MIB)
    numbers = {name: round(number, 3) for name, number in zip(MEASURED, taken, strict=True)}
    with written_whole(path) as file:
        file.write((json.dumps(numbers) + "\n").encode())


def _own_peak_bytes(usage: resource.struct_rusage) -> int:
    """The most memory that this process had at a time.

    Linux counts in `ru_maxrss` also what the program had that started this one, here Snakemake.
    """
    status = Path("/proc/self/status")
    peak = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.M) if status.exists() else None
    return int(peak[1]) * 1024 if peak else usage.ru_maxrss * MAXRSS_BYTES


def _seconds_alive() -> float:
    """Seconds since this process began; where the system keeps no /proc, since this module did."""
    if not Path("/proc/self/stat").exists():
        return time.monotonic() - _imported
    # The 22nd number, in clock ticks since the machine started; the 2nd is a name in parentheses.
    began = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(began) / os.sysconf("SC_CLK_TCK")
