"""What given files hold, as digests, each file read once and not again until it changes.

Contents decide what is stale, not times: `cp -p`, `rsync -a`, `mv` and a symlink pointed elsewhere
put files in place that are older than the results. The digests are remembered, since every job's
own Snakemake asks for them and a checkpoint may have gigabytes.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from blip_tracing.errors import InputError
from blip_tracing.machinery.files import sha256_of, written_whole

MEMORY = ".snakemake/digests.json"
SHA256 = re.compile("[0-9a-f]{64}")
# The coarsest grain of a file system's clock: a file that was changed so lately could change once
# more and look the same.
GRAIN_NS = 2_000_000_000

Group = Iterable[str | os.PathLike[str]]


def content_digests(groups: Mapping[str, Group]) -> dict[str, str]:
    """By name, the sha256 of each group of files, one after the other, as `sha256_of` gives it.

    A file is the one that was read before while its size, inode, times of change and of last
    change of status are the same; nothing that puts a file in place can set the last. Where the
    memory cannot be read or written, files are read again.
    Raises OSError when a file cannot be read.
    """
    known = _remembered()
    learned: dict[str, Any] = {}
    found = {}
    for name, group in groups.items():
        paths = [os.path.realpath(path) for path in group]
        key, marks = "\0".join(paths), _marks(paths)
        if known.get(key, {}).get("marks") == marks:
            found[name] = known[key]["sha256"]
            continue
        found[name] = sha256_of(paths)
        if marks == _marks(paths) and _settled(marks):
            learned[key] = {"marks": marks, "sha256": found[name]}
    if learned:
        _remember(learned)
    return found


def content_digest(paths: Group) -> str:
    """The sha256 of files one after the other; see `content_digests`."""
    return content_digests({"": paths})[""]


def _marks(paths: Iterable[str]) -> list[list[int]]:
    """What tells a file from the one that was there before."""
    return [
        [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]
        for found in map(os.stat, paths)
    ]


def _settled(marks: Iterable[list[int]]) -> bool:
    now = time.time_ns()
    return all(abs(now - changed) > GRAIN_NS for *_, changed in marks)


def _remembered() -> dict[str, Any]:
    """The entries of the memory that can be used; none where it is not there or damaged."""
    try:
        with open(MEMORY, encoding="utf-8") as file:
            entries = json.load(file)
        return {key: entry for key, entry in entries.items() if SHA256.fullmatch(entry["sha256"])}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _remember(learned: Mapping[str, Any]) -> None:
    """Add to the memory, whole or not at all; of two at once one may be lost and is read again."""
    with suppress(OSError, InputError), written_whole(MEMORY) as file:
        file.write(json.dumps({**_remembered(), **learned}).encode())
