"""Where a result comes from: model, weights, versions, device, precision, seed, code."""

import json
import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from blip_tracing.given.checkpoint import Checkpoint
from blip_tracing.machinery.files import digests, read_record, written_whole

PACKAGES = ("torch", "transformers", "pyvene", "tokenizers", "numpy", "pandas", "pyarrow", "pillow")


def describe_job(
    checkpoint: Checkpoint,
    device: str,
    dtype: str,
    code: str,
    files: Iterable[str],
    **facts: Any,
) -> dict:
    """The facts that a job's numbers depend on, and digests of the files that it wrote.

    `facts` holds those of one experiment alone.
    """
    return {
        "model": checkpoint.name,
        "revision": checkpoint.revision,
        "commit": checkpoint.commit,
        "weights_sha256": checkpoint.weights_sha256,
        "settings_sha256": checkpoint.settings_sha256,
        "device": device,
        "dtype": dtype,
        "code": code,
        **facts,
        "files": digests(files),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in PACKAGES},
    }


def write_facts(facts: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write facts as JSON, whole or not at all."""
    with written_whole(path) as file:
        file.write((json.dumps(facts, indent=2) + "\n").encode())


def merge_facts(paths: Iterable[str], files: Iterable[str]) -> dict[str, Any]:
    """Join the jobs' facts: one value where all agree, else the list of the values met.

    files: what was made of theirs, whose digests take the place of theirs.
    """
    records = [read_record(path, ["files"]) for path in paths]
    merged = {key: unite([record.get(key) for record in records]) for key in records[0]}
    return {**merged, "files": digests(files)}


def unite(values: list[Any]) -> Any:
    """The value that all share, or the distinct values in order of first appearance."""
    distinct: list[Any] = []
    for value in values:
        if value not in distinct:
            distinct.append(value)
    return distinct[0] if len(distinct) == 1 else distinct
