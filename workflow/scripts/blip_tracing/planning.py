"""What is checked while the Snakefile is read, before any job starts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from snakemake.logging import logger  # type: ignore[import-untyped]
from snakemake.utils import validate  # type: ignore[import-untyped]

from blip_tracing.checkpoint import checkpoint_files, is_local, known_directory
from blip_tracing.errors import InputError
from blip_tracing.inputs import (
    check_against_checkpoint,
    check_config,
    check_pictures,
    load_sheet,
)
from blip_tracing.run_lock import WRITTEN

SCHEMAS = Path(__file__).parents[2] / "schemas"


@contextmanager
def ending_in_one_line() -> Iterator[None]:
    """Show an InputError as its one line, and end Snakemake there."""
    try:
        yield
    except InputError as error:
        logger.error(str(error))
        sys.exit(1)


def check_config_file(path: str | os.PathLike[str]) -> None:
    """Check that a configuration is a YAML (or JSON) group of keys, each given once.

    Raises InputError, `file, line: what is wrong; mend`.
    """
    text = _read_text(path)
    try:
        keys = _load_once(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InputError(
            f"{os.fspath(path)}, line {mark.line + 1 if mark else 1}: is not YAML "
            f"({' '.join(str(error.problem or error.context).split())}); mend the line"
        ) from error
    except yaml.YAMLError as error:  # a character that YAML does not allow
        reason = " ".join(str(error).split())
        raise InputError(f"{os.fspath(path)}: is not YAML ({reason}); mend it") from error
    except ValueError as error:  # a date such as 2026-13-01, a number of thousands of digits
        raise InputError(
            f"{os.fspath(path)}: holds a value that YAML cannot read ({error}); mend it"
        ) from error
    except RecursionError as error:
        raise InputError(f"{os.fspath(path)}: is nested too deeply; write it out flat") from error
    if not isinstance(keys, dict):
        raise InputError(
            f"{os.fspath(path)}: holds no keys; begin with config/config.yaml, which holds all"
        )


def _read_text(path: str | os.PathLike[str]) -> str:
    with _read_faults():
        content = Path(path).read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{os.fspath(path)}, line {line}: is not UTF-8 text; save it as UTF-8"
        ) from error


def _load_once(text: str) -> object:
    """The content of a JSON or YAML text; YAMLError where a key is given twice."""
    try:
        return json.loads(text)
    except ValueError:
        return yaml.load(text, Loader=_EachKeyOnce)


class _EachKeyOnce(yaml.SafeLoader):
    """YAML's own loader lets the last of two equal keys win, without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"{key.value} is given twice; keep it once"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


@cache
def config_schema() -> dict[str, Any]:
    """The schema that describes every key of the configuration."""
    return yaml.safe_load((SCHEMAS / "config.schema.yaml").read_text(encoding="utf-8"))


def read_inputs(config: dict[str, Any], files: Sequence[str | os.PathLike[str]]) -> pd.DataFrame:
    """Check the configuration, fill in its defaults, and check and return the sheet.

    files: those that the configuration was read from.
    Raises InputError on the first fault, in one line that names the file.
    """
    for path in files:
        check_config_file(path)
    check_config(config, config_schema(), " + ".join(map(str, files)))
    validate(config, str(SCHEMAS / "config.schema.yaml"))
    if config["model"]["name"].startswith("~"):
        config["model"]["name"] = str(Path(config["model"]["name"]).expanduser())
    sheet = load_sheet(config["examples"])
    validate(sheet, str(SCHEMAS / "examples.schema.yaml"))
    return sheet


def check_named_files(config: dict[str, Any], sheet: pd.DataFrame) -> list[str]:
    """Check what jobs would otherwise trip over; once, not in every job's own process.

    config: its defaults filled in.
    Returns one-line warnings. Raises InputError on the first fault.
    """
    with _read_faults():
        if config["published"] and not Path(config["published"]).is_file():
            raise InputError(
                f"published: there is no file {config['published']}; mend its path, or leave "
                "it out to compare with nothing"
            )
        check_pictures(sheet, config["examples"])
        warnings = [
            f"{folder}: is read-only, so nothing can be made there"
            for folder in WRITTEN
            if Path(folder).exists() and not os.access(folder, os.W_OK)
        ]
        directory = known_directory(**config["model"])
        if not directory:
            return warnings
        if is_local(config["model"]["name"]):
            checkpoint_files(directory)
        return warnings + check_against_checkpoint(config, sheet, directory, config["examples"])


@contextmanager
def _read_faults() -> Iterator[None]:
    """Name in one line the file that cannot be read."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename}: cannot be read ({error.strerror}); mend its path or its rights"
        ) from error
