"""What is checked while the Snakefile is read, before any job starts."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from snakemake.logging import logger  # type: ignore[import-untyped]
from snakemake.utils import update_config, validate  # type: ignore[import-untyped]

from blip_tracing.errors import InputError
from blip_tracing.given.checkpoint import (
    SETTINGS,
    WEIGHTS,
    WEIGHTS_INDEX,
    check_checkpoint,
    checkpoint_digests,
    checkpoint_files,
    is_local,
    known_directory,
)
from blip_tracing.given.checks import (
    check_against_checkpoint,
    check_corrupted_regions,
    check_halves,
    check_own_pictures,
    check_pictures,
)
from blip_tracing.given.methods import read_method
from blip_tracing.given.pictures import PICTURES, is_url, pictures_of
from blip_tracing.given.places import found
from blip_tracing.given.settings import fill_config
from blip_tracing.given.sheet import load_sheet, records_of
from blip_tracing.machinery.contents import content_digests
from blip_tracing.machinery.files import check_file, read_bytes
from blip_tracing.machinery.lock import WRITTEN

# Clocks of a network's disks differ by so much.
SLACK_SECONDS = 60
COMMAND_LINE = "--config"
# Names that an error lists at most.
LISTED = 8
SCHEMAS = Path(__file__).parents[3] / "schemas"


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
    if not isinstance(_load_once(_read_text(path), os.fspath(path)), dict):
        raise InputError(
            f"{os.fspath(path)}: holds no keys; begin with config/config.yaml, which holds all"
        )


def read_overrides(read: Mapping[str, Any], entries: Sequence[str]) -> dict[str, Any]:
    """What --config gives, by key, its groups and lists read as in a file.

    read: the same as Snakemake read it, which takes every value inside a group for text.
    entries: each `key=value` as it was given.
    Raises InputError for an entry that is no YAML, or that would not reach a job as it is.
    """
    overrides: dict[str, Any] = {}
    for entry in entries:
        key, _, text = entry.partition("=")
        if not _reaches_jobs(entry):
            raise InputError(
                f"{COMMAND_LINE} {entry}: would not reach a job as it is; put it in a file"
            )
        value = read[key]
        if isinstance(value, (dict, list)):
            value = _load_once(text, f"{COMMAND_LINE} {key}")
        update_config(overrides, {key: value})
    return overrides


def _reaches_jobs(entry: str) -> bool:
    """Whether a cluster's job gets an entry of --config: Snakemake gives its repr to a shell."""
    quoted = repr(entry)
    expanded = quoted.startswith('"') and re.search("[$`]", entry)
    try:
        return not expanded and shlex.split(quoted) == [entry]
    except ValueError:  # quotes of both kinds
        return False


def _source(message: str, files: Sequence[object], overrides: Mapping[str, Any]) -> str:
    """Where the keys that a message is about were given."""
    # None is of a file where a `module` statement writes it out.
    given = " + ".join(map(str, files)) or "the configuration"
    group = re.match(r"[\w.]+(?=:)", message)
    keys = [
        key
        for key in _dotted_keys(overrides)
        if _names(message, key) or (group and key.startswith(f"{group[0]}."))
    ]
    if any(message.startswith(key) for key in keys):
        return COMMAND_LINE
    return f"{given} + {COMMAND_LINE}" if keys else given


def _dotted_keys(group: Mapping[str, Any], at: str = "") -> Iterator[str]:
    for name, value in group.items():
        if isinstance(value, Mapping) and value:
            yield from _dotted_keys(value, f"{at}{name}.")
        else:
            yield f"{at}{name}"


def _names(message: str, key: str) -> bool:
    return re.search(rf"(?<![\w./]){re.escape(key)}(?![\w.]\w)", message) is not None


def _read_text(path: str | os.PathLike[str]) -> str:
    with _read_faults():
        content = read_bytes(path)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{os.fspath(path)}, line {line}: is not UTF-8 text; save it as UTF-8"
        ) from error


def _load_once(text: str, source: str) -> object:
    """The content of a JSON or YAML text; InputError where it is neither, or gives a key twice."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return yaml.load(text, Loader=_EachKeyOnce)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InputError(
            f"{source}, line {mark.line + 1 if mark else 1}: is not YAML "
            f"({' '.join(str(error.problem or error.context).split())}); mend the line"
        ) from error
    except yaml.YAMLError as error:  # a character that YAML does not allow
        reason = " ".join(str(error).split())
        raise InputError(f"{source}: is not YAML ({reason}); mend it") from error
    except ValueError as error:  # a date such as 2026-13-01, a number of thousands of digits
        raise InputError(
            f"{source}: holds a value that YAML cannot read ({error}); mend it"
        ) from error
    except RecursionError as error:
        raise InputError(f"{source}: is nested too deeply; write it out flat") from error


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


def read_config(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """A configuration file's text, and what it asks, defaults filled in.

    For commands beside a run. Raises InputError, naming the file, on the first fault.
    """
    text = _read_text(path)
    given = _load_once(text, os.fspath(path))
    if not isinstance(given, dict):
        raise InputError(f"{os.fspath(path)}: holds no keys; give a configuration")
    try:
        return text, fill_config(given)
    except InputError as error:
        raise InputError(f"{os.fspath(path)}: {error}") from error


def read_inputs(
    config: dict[str, Any],
    files: Sequence[str | os.PathLike[str]],
    overrides: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Check the configuration, fill in its defaults, and check and return the sheet.

    files: those that the configuration was read from; overrides: what --config gave, with which
    the configuration is brought up to date first.
    Raises InputError on the first fault, in one line that names the file, or --config.
    """
    for path in files:
        check_config_file(path)
    update_config(config, overrides or {})
    try:
        filled = fill_config(config)
    except InputError as error:
        raise InputError(f"{_source(str(error), files, overrides or {})}: {error}") from error
    config.clear()
    config.update(filled)
    if config["model"]["name"].startswith("~"):
        # Of a user who is not there it stays as it is, where Path raises.
        config["model"]["name"] = os.path.expanduser(config["model"]["name"])  # noqa: PTH111
    config["model"]["name"] = found(config["model"]["name"])
    for key in ("method", "published"):
        config[key] = found(config[key])
    sheet = load_sheet(config["examples"])
    validate(sheet, str(SCHEMAS / "examples.schema.yaml"))
    for column in PICTURES:
        sheet[column] = sheet[column].map(lambda image: image if is_url(image) else found(image))
    return sheet


def check_own_folders() -> None:
    """Check that Snakemake can keep its own records, without which it does not even plan.

    Raises InputError where another user's run, or a read-only disk, has them.
    """
    for name in ("", "iocache", "iocache/latest.pkl"):
        path = Path(".snakemake", name)
        there = next(place for place in (path, *path.parents) if place.exists())
        if not os.access(there, os.W_OK):
            raise InputError(
                f"{Path.cwd() / there}: cannot be written, and Snakemake keeps its records there; "
                "make it writable for this user, or work in a clone"
            )


def check_named_files(config: dict[str, Any], sheet: pd.DataFrame) -> list[str]:
    """Check what jobs would otherwise trip over; once, not in every job's own process.

    config: its defaults filled in.
    Returns one-line warnings. Raises InputError on the first fault.
    """
    check_own_folders()
    with _read_faults():
        if config["published"] and not Path(config["published"]).is_file():
            raise InputError(
                f"published: there is no file {config['published']}; mend its path, or leave "
                "it out to compare with nothing"
            )
        if config["method"]:
            read_method(config["method"])
        check_pictures(sheet, config["examples"])
        check_own_pictures(config, sheet, config["examples"])
        check_corrupted_regions(config, sheet, config["examples"])
        # Read here, once: every job's own process finds them remembered.
        content_digests({image: [image] for image in _given_pictures(sheet)})
        warnings = [
            f"{folder}: is read-only, so nothing can be made there"
            for folder in WRITTEN
            if Path(folder).exists() and not os.access(folder, os.W_OK)
        ]
        warnings += check_halves(config, sheet, config["examples"])
        if Path(config["model"]["name"]).is_file():
            raise InputError(
                f"model.name: {config['model']['name']} is a file; give the checkpoint's directory"
            )
        directory = known_directory(**config["model"])
        if not directory:
            return warnings
        for name in (*SETTINGS, *WEIGHTS, *map(WEIGHTS_INDEX.format, WEIGHTS)):
            if (path := Path(directory) / name).exists():
                check_file(path)
        if is_local(config["model"]["name"]) and re.search("[{}]", directory):
            raise InputError(
                f"model.name: Snakemake takes {{ and }} in {directory} for wildcards; rename it"
            )
        check_checkpoint(directory)
        if is_local(config["model"]["name"]):
            checkpoint_digests(directory)
        return warnings + check_against_checkpoint(config, sheet, directory, config["examples"])


def check_clock(config: dict[str, Any], sheet: pd.DataFrame) -> None:
    """Check that no file is dated ahead of the clock, as all are once it is set back.

    Snakemake deletes what a job wrote when an input is dated later, at the end of the job's work.
    The clock is that of the disk that the results lie on.
    Raises InputError naming the first such file.
    """
    with tempfile.TemporaryFile(dir=WRITTEN[0]) as file:
        now = os.fstat(file.fileno()).st_mtime
    given = set(_given_pictures(sheet))
    if is_local(config["model"]["name"]):
        given.update(checkpoint_files(config["model"]["name"]))
    given.update(config[key] for key in ("method", "published") if config[key])
    made = [path for folder in WRITTEN for path in Path(folder).rglob("*") if path.is_file()]
    ahead = {
        path: dated
        for path in [*sorted(given), *map(str, sorted(made))]
        if (dated := Path(path).stat().st_mtime) > now + SLACK_SECONDS
    }
    if ahead:
        path, dated = next(iter(ahead.items()))
        others = f", as are {len(ahead) - 1} other files" if len(ahead) > 1 else ""
        raise InputError(
            f"{path}: is dated {datetime.fromtimestamp(dated):%Y-%m-%d %H:%M}, ahead of the clock"
            f"{others}; set the clock right, or date what is ahead anew with `touch`"
        )


def _given_pictures(sheet: pd.DataFrame) -> list[str]:
    """The sheet's pictures that are files."""
    rows = [record for _, record in records_of(sheet)]
    return [image for image in pictures_of(rows) if not is_url(image)]


class Known(dict[str, Any]):
    """What the configuration has under each value of a wildcard.

    A value that it does not have, as a file asked for on the command line may, ends Snakemake in
    one line that names those which it has.
    """

    def __init__(self, wildcard: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.wildcard = wildcard

    def __missing__(self, value: str) -> Any:
        listed = ", ".join(list(self)[:LISTED]) + (", …" if len(self) > LISTED else "")
        with ending_in_one_line():
            raise InputError(
                f"a file asked for is of {self.wildcard} {value!r}, which this configuration "
                f"does not have; known are {listed or 'none'}"
            )


@contextmanager
def _read_faults() -> Iterator[None]:
    """Name in one line the file that cannot be read."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename}: cannot be read ({error.strerror}); mend its path or its rights"
        ) from error
