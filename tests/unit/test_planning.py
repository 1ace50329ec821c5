"""What is checked while the Snakefile is read, files and command line together."""

import copy
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import ROOT
from refusals import HEADER, SHIPPED, refusal, with_key, write_sheet
from snakemake.cli import parse_config  # type: ignore[import-untyped]
from snakemake_interface_executor_plugins.utils import (  # type: ignore[import-untyped]
    format_cli_arg,
)

from blip_tracing.errors import InputError
from blip_tracing.given.checks import check_pictures
from blip_tracing.given.planning import (
    Known,
    check_config_file,
    check_named_files,
    check_own_folders,
    read_inputs,
    read_overrides,
)
from blip_tracing.given.sheet import load_sheet
from blip_tracing.meaning.replication.published import read_published

# --- the configuration's file


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- model\n", ": holds no keys; begin with config/config.yaml, which holds all"),
        (b"", ": holds no keys; begin with config/config.yaml, which holds all"),
        (b"model:\n\tname: x\n", ", line 2: is not YAML (found character '\\t' that cannot start"),
        (b"device: cpu\nmodel: {name: x\n", ", line 3: is not YAML (expected ',' or '}', but got"),
        (b"a: !!python/object:os.system x\n", ", line 1: is not YAML (could not determine a const"),
        (b"device: cpu\n\ndevice: cuda\n", ", line 3: is not YAML (device is given twice; keep"),
        (b"device: caf\xe9\n", ", line 1: is not UTF-8 text; save it as UTF-8"),
        ("device: cpu\n".encode("utf-16"), ", line 1: is not UTF-8 text; save it as UTF-8"),
        (b"device: c\0pu\n", ": is not YAML (unacceptable character #x0000"),
        (b"a: 2026-13-45\n", ": holds a value that YAML cannot read (month must be in 1..12"),
        (b"a: " + b"[" * 5000, ": is nested too deeply; write it out flat"),
    ],
)
def test_what_is_no_configuration_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    assert refusal(check_config_file, path).startswith(f"{path}{message}")


def test_a_configuration_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    for path, reason in [
        (tmp_path / "none.yaml", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ]:
        message = refusal(check_config_file, path)
        assert message == f"{path}: cannot be read ({reason}); mend its path or its rights"


def test_json_and_merge_keys_and_a_byte_order_mark_are_yaml_too(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for content in (
        '{\n\t"device": "cpu"\n}',
        "\ufeffdevice: cpu\n",
        "a: &a {x: 1}\nb: &b {x: 2}\nc:\n  <<: *a\n  <<: *b\n",
    ):
        path.write_text(content, encoding="utf-8")
        check_config_file(path)


# --- the command line


def overrides(*entries: str) -> dict[str, Any]:
    return read_overrides(parse_config(entries), entries)


def test_groups_of_the_command_line_are_typed_as_in_a_file() -> None:
    given = overrides(
        "examples=my own.tsv",
        "shard_size=3",
        "runs={noisy: {corrupt: {draws: 3, levels: [0.5, 1]}}}",
        "runs={'noisy': {'corrupt': {'seed': 7}}}",
        'experiments={"patching": {"sites": ["encoder.block_output"]}}',
        "published=",
        "model={revision: '123', layers: {encoder: 6}}",
    )
    assert given == {
        "examples": "my own.tsv",
        "shard_size": 3,
        "runs": {"noisy": {"corrupt": {"draws": 3, "levels": [0.5, 1], "seed": 7}}},
        "experiments": {"patching": {"sites": ["encoder.block_output"]}},
        "published": None,
        "model": {"revision": "123", "layers": {"encoder": 6}},
    }


def test_a_job_of_a_cluster_is_given_the_same() -> None:
    entries = [
        "examples=it's é.tsv",
        "runs={noisy: {corrupt: {draws: 3, levels: [0.5, 1]}}}",
        "effects={roles: [{role: 'a b', token: '[a-z]+'}]}",
        "model={'revision': '123'}",
    ]
    handed_on = shlex.split(format_cli_arg("--config", entries))
    assert overrides(*handed_on[1:]) == overrides(*entries)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            "runs={noisy: {of: base, of: source}}",
            "--config runs, line 1: is not YAML (of is given twice; keep it once); mend the",
        ),
        ("effects={seed: 2026-13-45}", "--config effects: holds a value that YAML cannot read"),
        (
            r"model={name: a\b}",
            r"--config model={name: a\b}: would not reach a job as it is; put it in a file",
        ),
        (
            """model={name: 'a', revision: "b"}""",
            """--config model={name: 'a', revision: "b"}: would not reach a job as it is; put""",
        ),
        (
            "model={name: '$HOME'}",
            "--config model={name: '$HOME'}: would not reach a job as it is; put it in a file",
        ),
    ],
)
def test_what_the_command_line_cannot_give_is_said(entry: str, message: str) -> None:
    assert refusal(overrides, entry).startswith(message)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            ["runs={noisy: {corrupt: {draws: three}}}"],
            "--config: runs.noisy.corrupt.draws: 'three' is text, not a whole",
        ),
        (
            ["runs={noisy: {corrupt: {drwas: 3}}}"],
            "--config: runs.noisy.corrupt.drwas is not a known key; did you mean",
        ),
        (["zebra=1"], "--config: zebra is not a known key"),
        (["runs=3"], "--config: runs: 3 is a number, not a group of keys"),
        (
            ["runs={noisy: {corrupt: {levels: [1, 3]}}}"],
            "one.yaml + --config: report.draws_at: 2 is not in runs.noisy.corrupt.levels; give one",
        ),
        (
            ["experiments={patching: {donor: base}}"],
            "one.yaml + --config: experiments.patching: 'base' is both receiver and donor, so",
        ),
        (
            ["experiments={patching: {donor: sorce}}"],
            "--config: experiments.patching.donor: 'sorce' is not a run; did you mean source?",
        ),
        (["tracing=3"], "--config: tracing: is of the first version: write runs: "),
        (["tracing={samples: 3}"], "one.yaml + --config: tracing: is of the first version: write"),
        (["model={layers: 6}"], "--config: model.layers: is of the first version: write layers: "),
        (["shard_size=3"], "one.yaml: runs.noisy.corrupt.seed: 'zero' is text, not a whole number"),
    ],
)
def test_the_fault_of_the_command_line_is_not_blamed_on_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, entries: list[str], message: str
) -> None:
    config = with_key("runs.noisy.corrupt.seed", "zero" if "shard_size=3" in entries else 0)
    monkeypatch.chdir(tmp_path)
    Path("one.yaml").write_text(yaml.safe_dump(config))
    assert refusal(read_inputs, config, ["one.yaml"], overrides(*entries)).startswith(message)


def test_the_fault_of_what_no_file_holds_is_said() -> None:
    config = with_key("device", "gpu")
    assert refusal(read_inputs, config, []) == (
        "the configuration: device: 'gpu' is unknown; known are auto, cpu, cuda"
    )
    assert refusal(read_inputs, with_key("device", "gpu"), [], {"device": "gpu"}).startswith(
        "--config: device: 'gpu' is unknown"
    )


def test_what_the_command_line_gives_joins_the_files_groups() -> None:
    config = with_key("runs.noisy.corrupt.seed", 5)
    expected = copy.deepcopy(config["runs"])
    expected["noisy"]["corrupt"] |= {"draws": 3, "fresh": False}
    fewer = "runs={noisy: {corrupt: {draws: 3}}}"
    read_inputs(config, [], overrides(fewer, f"examples={ROOT}/config/examples.tsv"))
    assert config["runs"] == expected


# --- what is asked for on the command line


def test_a_value_of_a_wildcard_that_is_not_there_ends_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    known = Known("shard", {"0000": ["a"], "0001": ["b"]})
    assert known["0001"] == ["b"]
    with pytest.raises(SystemExit):
        known["0002"]
    assert [record.getMessage() for record in caplog.records] == [
        "a file asked for is of shard '0002', which this configuration does not have; "
        "known are 0000, 0001"
    ]


# --- the folder


@pytest.mark.parametrize("closed", [".", ".snakemake", ".snakemake/iocache"])
def test_a_folder_that_is_another_users_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closed: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".snakemake/iocache").mkdir(parents=True)
    for folder in (".", ".snakemake", ".snakemake/iocache"):
        Path(folder).chmod(0o777)
    if closed == ".":
        shutil.rmtree(".snakemake")
    assert as_nobody(check_own_folders) == ""
    Path(closed).chmod(0o555)
    try:
        message = as_nobody(check_own_folders)
    finally:
        Path(closed).chmod(0o755)
    assert message.startswith(f"{tmp_path / closed}: cannot be written, and Snakemake keeps")


def as_nobody(check: Callable[[], None]) -> str:
    """The line of the InputError that a check ends with for a user who is not root."""
    receiving, sending = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            check()
        except InputError as error:
            os.write(sending, str(error).encode())
        finally:
            os._exit(0)
    os.close(sending)
    os.waitpid(child, 0)
    with open(receiving, encoding="utf-8") as said:
        return said.read()


# --- configuration, sheet and files together


def plan(config: dict[str, Any], *files: Path) -> list[str]:
    return check_named_files(config, read_inputs(config, files))


def test_the_shipped_inputs_are_planned_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load(SHIPPED[0].read_text())
    assert plan(config, SHIPPED[0]) == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("published", "tutorial.csv", "published: there is no file tutorial.csv; mend its path"),
        ("model.name", "resources/miniature", "resources/miniature/config.json: is missing"),
        ("model.name", "README.md", "model.name: README.md is a file; give the checkpoint's dir"),
        ("model.name", "x" * 300, f"{'x' * 300}: cannot be read (File name too long)"),
        ("published", "x" * 300, f"{'x' * 300}: cannot be read (File name too long)"),
        ("examples", "x" * 300, f"{'x' * 300}: cannot be read (File name too long)"),
        ("model.name", "~nobody-there/a", "model.name: there is no directory ~nobody-there/a; "),
    ],
)
def test_a_file_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, path: str, value: str, message: str
) -> None:
    monkeypatch.chdir(ROOT)
    config = with_key(path, value)
    assert refusal(plan, config).startswith(message)


def test_weights_that_are_missing_are_named_before_any_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load(SHIPPED[0].read_text())
    shutil.copytree(config["model"]["name"], tmp_path / "checkpoint")
    (tmp_path / "checkpoint/model.safetensors").unlink()
    config["model"]["name"] = str(tmp_path / "checkpoint")
    message = refusal(plan, config)
    assert message.startswith(f"{tmp_path / 'checkpoint'}: holds no model.safetensors")


# --- what never ends, or never begins


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(os.path.relpath(path))  # a socket's path is short


ENDLESS = {
    "a pipe": make_pipe,
    "a socket": make_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.fixture(params=ENDLESS)
def endless(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """What would be waited at for ever, and what it is."""
    path = tmp_path / "endless"
    ENDLESS[request.param](path)
    # A test that waits fails: the alarm's handler raises.
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(20)
    yield path, f"(it is {request.param}, not a file)"
    signal.alarm(0)


def test_what_never_ends_is_named_wherever_it_is_given(
    endless: tuple[Path, str], tmp_path: Path
) -> None:
    path, reason = endless
    assert refusal(load_sheet, path) == f"{path}: cannot be read {reason}; give a file"
    assert refusal(check_config_file, path).startswith(f"{path}: cannot be read {reason}; mend")
    assert refusal(read_published, path).startswith(f"{path}: cannot be read as CSV {reason}")
    sheet = load_sheet(write_sheet(tmp_path, HEADER, f"shirt\t{path}\twhat\twhat"))
    assert refusal(check_pictures, sheet, "sheet") == (
        f"sheet, row 2 (example 'shirt'), image: {path}: cannot be opened as a picture {reason}"
    )


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"]
)
def test_what_never_ends_is_named_in_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, endless: tuple[Path, str], name: str
) -> None:
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load(SHIPPED[0].read_text())
    folder = endless[0].parent / "checkpoint"
    shutil.copytree(config["model"]["name"], folder)
    (folder / name).unlink()
    endless[0].rename(folder / name)
    config["model"]["name"] = str(folder)
    message = refusal(plan, config)
    assert message.startswith(f"{folder / name}: cannot be read {endless[1]}; mend its path")


def test_a_text_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert refusal(load_sheet, path) == f"{path}: cannot be read (File too large); give a file"
    assert "(File too large)" in refusal(check_config_file, path)
    assert "(File too large)" in refusal(read_published, path)


# --- their cost


def test_the_checks_load_neither_torch_nor_transformers() -> None:
    scripts = ROOT / "workflow/scripts"
    modules = ["given.planning", "given.plan", "machinery.lock", "given.downloads"]
    modules += ["machinery.logs", "machinery.staleness"]
    program = "; ".join(f"import blip_tracing.{module}" for module in modules)
    program += "; import fetch_model, fetch_image, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(scripts)},
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split()
    heavy = re.compile(r"torch|transformers|pyvene|huggingface_hub")
    assert [module for module in loaded if heavy.fullmatch(module)] == []
