"""Wrong input is said in one line that names the file, the row or key, and the mend."""

import copy
import datetime as dt
import hashlib
import json
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

import pandas as pd
import pytest
import yaml
from jsonschema import Draft202012Validator
from PIL import Image
from snakemake.cli import parse_config  # type: ignore[import-untyped]
from snakemake.utils import validate  # type: ignore[import-untyped]
from snakemake_interface_executor_plugins.utils import (  # type: ignore[import-untyped]
    format_cli_arg,
)

from blip_tracing.errors import InputError
from blip_tracing.inputs import (
    COLUMNS,
    REQUIRED_COLUMNS,
    TABLE_DIGITS,
    check_against_checkpoint,
    check_config,
    check_pictures,
    load_sheet,
)
from blip_tracing.planning import (
    Known,
    check_config_file,
    check_named_files,
    read_inputs,
    read_overrides,
)
from blip_tracing.published import read_published
from blip_tracing.tables import FLOAT_FORMAT
from blip_tracing.tokens import load_tokenizer

ROOT = Path(__file__).parents[1]
SCHEMAS = ROOT / "workflow/schemas"
CONFIG_SCHEMA = yaml.safe_load((SCHEMAS / "config.schema.yaml").read_text())
SHEET_SCHEMA = yaml.safe_load((SCHEMAS / "examples.schema.yaml").read_text())
SHIPPED = [ROOT / "config/config.yaml", ROOT / "config/blip-vqa-base.yaml"]
SMALLEST = {"model": {"name": "a/b", "layers": 6}, "examples": "config/examples.tsv"}

HEADER = "example\timage\tbase_question\tsource_question"
GOOD_ROW = "shirt\timages/shirt.png\twhat is the color\twhat is the shirt"


def refusal(check: Callable[..., object], *arguments: object) -> str:
    """The message of the InputError that the check ends with, which is one line."""
    with pytest.raises(InputError) as refused:
        check(*arguments)
    message = str(refused.value)
    assert "\n" not in message
    return message


# --- the configuration


def with_key(path: str, value: object) -> dict[str, Any]:
    """The default configuration with one key set (groups made on the way)."""
    config = yaml.safe_load(SHIPPED[0].read_text())
    *groups, key = path.split(".")
    group = config
    for name in groups:
        group = group.setdefault(name, {})
    group[key] = value
    return config


def config_refusal(config: dict[str, Any]) -> str:
    return refusal(check_config, config, CONFIG_SCHEMA)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_the_shipped_configurations_are_right_and_whole(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    check_config(config, CONFIG_SCHEMA)
    nothing_to_compare_with = {"published": ""}
    assert filled(config) == nothing_to_compare_with | config, "it shows every key"


def test_the_smallest_configuration_is_enough() -> None:
    check_config(SMALLEST, CONFIG_SCHEMA)


def filled(config: dict[str, Any]) -> dict[str, Any]:
    config = copy.deepcopy(config)
    validate(config, str(SCHEMAS / "config.schema.yaml"))
    return config


def test_snakemake_fills_in_the_defaults_of_every_group() -> None:
    assert filled(SMALLEST) == {
        "model": {"name": "a/b", "layers": 6, "revision": "main", "dtype": "float32"},
        "device": "auto",
        "examples": "config/examples.tsv",
        "shard_size": 16,
        "layers_per_job": 1,
        "noise_levels_per_job": 1,
        "patching": {"sites": ["block_input"]},
        "tracing": {
            "sites": ["block_input"],
            "noise_levels": [0.1, 0.5, 1, 2, 5, 10, 20],
            "samples": 10,
            "seed": 0,
        },
        "controls": {"null_samples": 1},
        "effects": {
            "total_effect": 0.05,
            "roles": [
                {"role": "[CLS]", "token": r"\[CLS\]"},
                {"role": "before noun", "before": "noun"},
                {"role": "noun", "pair": "differs"},
                {"role": "[SEP]", "token": r"\[SEP\]"},
            ],
            "resamples": 2000,
        },
        "tables": {"format": "csv"},
        "published": "",
        "report": {"examples": 12, "draws_at": 1.0},
    }


ROLES = "effects.roles"
LEVELS = "tracing.noise_levels"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (LEVELS, [0.1, 1.0, -1], "[2]: -1 is less than the minimum of 0"),
        (
            LEVELS,
            ["1e-1", 1.0],
            "[0]: '1e-1' is text, not a finite number; write 0.1 without quotes",
        ),
        (LEVELS, [1.0, "loud"], "[1]: 'loud' is text, not a finite number"),
        (LEVELS, [1.0, "inf"], "[1]: 'inf' is text, not a finite number"),
        (LEVELS, [float("inf"), 1.0], "[0]: inf is a number, not a finite number"),
        (LEVELS, [float("nan"), 1.0], "[0]: nan is a number, not a finite number"),
        (LEVELS, [1, 2, 1.0], ": 1.0 is given twice; keep it once"),
        (LEVELS, [], ": is empty; give standard deviations of the Gaussian noise"),
        (LEVELS, 1.0, ": 1.0 is a number, not a list"),
        ("tracing.samples", 0, ": 0 is less than the minimum of 1"),
        ("tracing.samples", True, ": true is a yes or no, not a whole number"),
        ("tracing.smaples", 3, " is not a known key; did you mean samples?"),
        (
            "tracing.sites",
            ["block_inputs"],
            "[0]: 'block_inputs' is unknown; known are block_input, block_output",
        ),
        (
            "patching.sites",
            ["block_output", "block_output"],
            ": 'block_output' is given twice; keep it once",
        ),
        ("model", None, ": is empty, not a group of keys"),
        ("model.layers", "6", ": '6' is text, not a whole number; write 6 without quotes"),
        ("model.layers", 6.0, ": 6.0 is a number, not a whole number"),
        ("model.dtype", "float16", ": 'float16' is unknown; known are float32, float64, bfloat16"),
        ("model.name", "", ": is empty; give the checkpoint's directory, or a Hub id like"),
        ("model.name", ["a"], ": is a list, not text"),
        ("model.revision", 1234567, ": 1234567 is a number, not text"),
        ("device", "gpu", ": 'gpu' is unknown; known are auto, cpu, cuda"),
        (
            "zebra",
            1,
            f" is not a known key; known are {', '.join(CONFIG_SCHEMA['properties'])}",
        ),
        (
            "report.draws_at",
            3,
            ": 3 is not in tracing.noise_levels; give one of 0.1, 0.5, 1, 2, 5, 10, 20",
        ),
        (
            "tracing.samples",
            2**63,
            ": 9223372036854775808 is not in the range from 1 to 9223372036854775807",
        ),
        (
            "tracing.seed",
            10**20,
            ": 100000000000000000000 is not in the range from 0 to 9223372036854775807",
        ),
        ("tracing.seed", -(10**20), ": -100000000000000000000 is not in the range from 0 to 92"),
        ("tracing.seed", "1e3", ": '1e3' is text, not a whole number; write 1000 without quotes"),
        (
            LEVELS,
            ["1.0e38", 1.0],
            "[0]: '1.0e38' is text, not a finite number; write 1.0e+38 without quotes",
        ),
        (
            LEVELS,
            ["1e-300", 1.0],
            "[0]: '1e-300' is text, not a finite number; write 1.0e-300 without quotes",
        ),
        (
            LEVELS,
            [1.0000000001, 1.0],
            "[0]: 1.0000000001 has more than the 9 digits that tables keep; write 1",
        ),
        (
            LEVELS,
            [1 / 3, 1.0],
            "[0]: 0.3333333333333333 has more than the 9 digits that tables keep; "
            "write 0.333333333",
        ),
        (
            LEVELS,
            [2**53 + 1, 1.0],
            "[0]: 9007199254740993 has more than the 9 digits that tables keep; "
            "write 9007199250000000",
        ),
        (
            LEVELS,
            [1.0, 2, 1.000001],
            "[2]: 1.000001 and 1.0 are both called 1 in the figures; keep one",
        ),
        (
            LEVELS,
            [5e-324, 1.0],
            "[0]: 5e-324 is beyond what float32 computes with; give 0, or 1e-30 to 1e+18",
        ),
        (LEVELS, [1.0, 1e19], "[1]: 1e+19 is beyond what float32 computes with; give 0, or"),
        (LEVELS, [1.0, -0.0], "[1]: -0.0 is zero with a sign; write 0"),
        *(
            (key, "a{b}", ": a{b}: Snakemake takes { and } in a path for wildcards; rename it")
            for key in ("model.name", "examples", "published")
        ),
        (LEVELS, [10**400, 1.0], f"[0]: 1{'0' * 79}… is a number, not a finite number"),
        ("model.name", "x" * 200 + "\n", ": holds the control character U+000A, which no editor"),
        ("model.revision", dt.date(2026, 11, 23), ": 2026-11-23 is a date, not text"),
        ("device", "g" * 200, f": '{'g' * 79}… is unknown; known are auto, cpu, cuda"),
        (
            "controls.null_samples",
            11,
            ": 11 is more than the 10 of tracing.samples, whose draws the null shares; "
            "give at most 10",
        ),
        (ROLES, [], ": is empty; give the common axis of questions of different lengths"),
        (ROLES, [{"role": "noun", "paar": "same"}], "[0].paar is not a known key; did you mean"),
        (ROLES, [{"pair": "same"}], "[0].role is missing: give the role's name"),
        (ROLES, [{"role": "a", "token": "(b"}], "[0].token: '(b' is no regular expression"),
        (ROLES, [{"role": "a"}, {"role": "a"}], "[1].role: 'a' is given twice"),
        (ROLES, [{"role": "a", "before": "b"}], "[0].before: 'b' is not a role; known are a"),
        (ROLES, [{"role": "a", "after": "a"}], ": refer to each other in a circle: a"),
        (
            ROLES,
            [{"role": "a", "after": "b"}, {"role": "b", "before": "a"}],
            ": refer to each other in a circle: ",
        ),
    ],
)
def test_a_wrong_key_is_named_with_its_mend(path: str, value: object, message: str) -> None:
    assert config_refusal(with_key(path, value)).startswith(f"{path}{message}")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("model.name", "model.name is missing: give the checkpoint's directory, or a Hub id"),
        ("model.layers", "model.layers is missing: give number of layers of the text encoder"),
        ("model", "model is missing: give the model to trace"),
        ("examples", "examples is missing: give the sheet of examples, a tab-separated file"),
    ],
)
def test_a_missing_key_is_named_with_its_meaning(path: str, message: str) -> None:
    config = copy.deepcopy(SMALLEST)
    *groups, key = path.split(".")
    group: Any = config
    for name in groups:
        group = group[name]
    del group[key]
    assert config_refusal(config).startswith(message)


def test_lists_that_hold_themselves_are_refused() -> None:
    first: list[Any] = []
    second: list[Any] = []
    first.append(first)
    second.append(second)
    message = config_refusal(with_key(LEVELS, [first, second]))
    assert message == "is nested without end; write out what is meant"


def test_a_misspelt_key_is_said_before_the_one_that_is_missing_for_it() -> None:
    config = {"modle": SMALLEST["model"], "examples": SMALLEST["examples"]}
    required_first = {"required": None, **CONFIG_SCHEMA} | {"required": CONFIG_SCHEMA["required"]}
    for schema in (CONFIG_SCHEMA, required_first):
        message = refusal(check_config, config, schema)
        assert message == "modle is not a known key; did you mean model?"


def test_levels_and_draws_matter_only_where_something_is_traced() -> None:
    levels = {"noise_levels": [0.5, 2]}
    assert config_refusal(SMALLEST | {"tracing": levels}) == (
        "report.draws_at: 1.0 is not in tracing.noise_levels; give one of 0.5, 2"
    )
    untraced = {"tracing": levels | {"sites": []}, "controls": {"null_samples": 20}}
    check_config(SMALLEST | untraced, CONFIG_SCHEMA)


def test_levels_that_have_labels_of_their_own_are_kept() -> None:
    levels = [0, 1e-30, 0.123456789, 1, 1.00001, 123456, 1e18]
    config = with_key(LEVELS, levels)
    config["report"]["draws_at"] = 0.123456789
    check_config(config, CONFIG_SCHEMA)
    assert f"%.{TABLE_DIGITS}g" == FLOAT_FORMAT
    assert [float(FLOAT_FORMAT % level) for level in levels] == levels


@pytest.mark.parametrize("number", ["1e38", "1e-300", "1e-1", "1e5", "1e20", "1.5e3"])
def test_a_number_is_suggested_as_yaml_reads_it(number: str) -> None:
    message = config_refusal(with_key(LEVELS, [1.0, number]))
    (written,) = re.findall("write (.*) without quotes", message)
    assert yaml.safe_load(written) == float(number)


def keys(schema: dict[str, Any], at: str = "") -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, key in schema.get("properties", {}).items():
        found |= {f"{at}{name}": key} | keys(key, f"{at}{name}.")
    return found


@pytest.mark.parametrize("schema", [CONFIG_SCHEMA, SHEET_SCHEMA], ids=["config", "sheet"])
def test_every_key_is_described_and_every_optional_one_has_a_right_default(
    schema: dict[str, Any],
) -> None:
    Draft202012Validator.check_schema(schema)
    required = {*schema["required"], *(f"model.{name}" for name in ("name", "layers"))}
    for name, key in keys(schema).items():
        assert key["description"], name
        assert ("default" in key) == (name not in required), name
        if "default" in key:
            resolved = {**key, "$defs": schema.get("$defs", {})}
            Draft202012Validator(resolved).validate(key["default"])


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
        "tracing={samples: 3, noise_levels: [0.5, 1]}",
        "tracing={'seed': 7}",
        'patching={"sites": ["block_output"]}',
        "published=",
        "model={revision: '123', layers: 6}",
    )
    assert given == {
        "examples": "my own.tsv",
        "shard_size": 3,
        "tracing": {"samples": 3, "noise_levels": [0.5, 1], "seed": 7},
        "patching": {"sites": ["block_output"]},
        "published": None,
        "model": {"revision": "123", "layers": 6},
    }


def test_a_job_of_a_cluster_is_given_the_same() -> None:
    entries = [
        "examples=it's é.tsv",
        "tracing={samples: 3, noise_levels: [0.5, 1]}",
        "effects={roles: [{role: 'a b', token: '[a-z]+'}]}",
        "model={'revision': '123'}",
    ]
    handed_on = shlex.split(format_cli_arg("--config", entries))
    assert overrides(*handed_on[1:]) == overrides(*entries)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            "tracing={seed: 1, seed: 2}",
            "--config tracing, line 1: is not YAML (seed is given twice; keep it once); mend the",
        ),
        ("tracing={seed: 2026-13-45}", "--config tracing: holds a value that YAML cannot read"),
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
        (["tracing={samples: three}"], "--config: tracing.samples: 'three' is text, not a whole"),
        (["tracing={smaples: 3}"], "--config: tracing.smaples is not a known key; did you mean"),
        (["zebra=1"], "--config: zebra is not a known key"),
        (["tracing=3"], "--config: tracing: 3 is a number, not a group of keys"),
        (
            ["tracing={noise_levels: [1, 3]}"],
            "one.yaml + --config: report.draws_at: 2 is not in tracing.noise_levels; give one of",
        ),
        (["shard_size=3"], "one.yaml: tracing.seed: 'zero' is text, not a whole number"),
    ],
)
def test_the_fault_of_the_command_line_is_not_blamed_on_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, entries: list[str], message: str
) -> None:
    config = with_key("tracing.seed", "zero" if "shard_size=3" in entries else 0)
    monkeypatch.chdir(tmp_path)
    Path("one.yaml").write_text(yaml.safe_dump(config))
    assert refusal(read_inputs, config, ["one.yaml"], overrides(*entries)).startswith(message)


def test_what_the_command_line_gives_joins_the_files_groups() -> None:
    config = with_key("tracing.seed", 5)
    read_inputs(
        config, [], overrides("tracing={samples: 3}", f"examples={ROOT}/config/examples.tsv")
    )
    assert config["tracing"] == {
        "sites": ["block_input"],
        "noise_levels": [0.1, 0.5, 1, 2, 5, 10, 20],
        "samples": 3,
        "seed": 5,
    }


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


# --- configuration, sheet and files together


def test_the_shipped_inputs_are_planned_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load(SHIPPED[0].read_text())
    assert check_named_files(config, read_inputs(config, [SHIPPED[0]])) == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("published", "tutorial.csv", "published: there is no file tutorial.csv; mend its path"),
        ("model.name", "resources/miniature", "resources/miniature/config.json: is missing"),
        ("model.name", "README.md", "model.name: README.md is a file; give the checkpoint's dir"),
        ("model.name", "x" * 300, f"{'x' * 300}: cannot be read (File name too long)"),
    ],
)
def test_a_file_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, path: str, value: str, message: str
) -> None:
    monkeypatch.chdir(ROOT)
    config = with_key(path, value)
    assert refusal(check_named_files, filled(config), read_inputs(config, [])).startswith(message)


def test_weights_that_are_missing_are_named_before_any_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load(SHIPPED[0].read_text())
    shutil.copytree(config["model"]["name"], tmp_path / "checkpoint")
    (tmp_path / "checkpoint/model.safetensors").unlink()
    config["model"]["name"] = str(tmp_path / "checkpoint")
    message = refusal(check_named_files, config, read_inputs(config, []))
    assert message.startswith(f"{tmp_path / 'checkpoint'}: holds no model.safetensors")


# --- the sheet


def write_sheet(folder: Path, *lines: str) -> Path:
    path = folder / "examples.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def sheet_refusal(path: Path) -> str:
    message = refusal(load_sheet, path)
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def test_the_schema_of_the_sheet_names_the_columns() -> None:
    assert tuple(SHEET_SCHEMA["properties"]) == COLUMNS
    assert tuple(SHEET_SCHEMA["required"]) == REQUIRED_COLUMNS


def test_a_sheet_is_text_in_known_columns_by_its_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "examples.tsv"
    path.write_bytes(
        "\ufeffsource_answer\texample\timage\tbase_question\tsource_question\t\t\r\n"
        "\r\n"
        " red\t007 \timages/a.png\twhat  is it?\twhat is she\t \r\n"
        "\t\t\r\n"
        '\tNA\timages/a.png\t"what is a ""shirt"""\tnull\r\n'
        "\r\n".encode()
    )
    sheet = load_sheet(path)
    assert list(sheet.columns) == list(COLUMNS)
    assert sheet.index.tolist() == [3, 5]
    assert sheet["example"].tolist() == ["007", "NA"]
    assert sheet["source_answer"].tolist() == ["red", ""]
    assert sheet["base_question"].tolist() == ["what  is it?", 'what is a "shirt"']
    assert sheet["source_question"].tolist() == ["what is she", "null"]
    assert (sheet[["base_answer", "image_sha256"]] == "").all(axis=None)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["Unix", "Windows", "old Mac"])
def test_a_line_ends_as_any_editor_ends_it(tmp_path: Path, end: str) -> None:
    path = tmp_path / "examples.tsv"
    path.write_bytes(end.join([HEADER, "", GOOD_ROW]).encode())
    assert load_sheet(path)["source_question"].to_dict() == {3: "what is the shirt"}


def test_snakemake_accepts_what_is_loaded_and_leaves_it_alone(tmp_path: Path) -> None:
    sheet = load_sheet(write_sheet(tmp_path, HEADER, GOOD_ROW))
    before = sheet.copy()
    validate(sheet, str(SCHEMAS / "examples.schema.yaml"))
    pd.testing.assert_frame_equal(sheet, before)


@pytest.mark.parametrize("name", ["examples.tsv", "blip-vqa-base.tsv"])
def test_the_shipped_sheets_begin_with_the_tutorials_pair(name: str) -> None:
    first = load_sheet(ROOT / "config" / name).iloc[0]
    assert first["example"] == "animal_shirt"
    assert first["base_question"] == "what is the color of the animal"
    assert first["source_question"] == "what is the color of the shirt"


def test_a_checksum_holds_for_all_rows_of_its_picture(tmp_path: Path) -> None:
    checksum = hashlib.sha256(b"").hexdigest()
    sheet = load_sheet(
        write_sheet(
            tmp_path,
            HEADER + "\timage_sha256",
            "a\tx.png\tq\tr",
            f"b\tx.png\tq\tr\t{checksum.upper()}",
            "c\ty.png\tq\tr",
        )
    )
    assert sheet["image_sha256"].tolist() == [checksum, checksum, ""]


UNSAFE = (
    "files are called by it; use only letters (A-Z, a-z), digits, _, - and . "
    "and begin with a letter, a digit or _"
)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("two\tx.png\t \twhat", "base_question: is empty; fill it in or remove the row"),
        ("two\tx.png\twhat", "source_question: is empty; fill it in or remove the row"),
        ("two\t\twhat\twhat", "image: is empty; fill it in or remove the row"),
        ("a/b\tx.png\twhat\twhat", f"example: {UNSAFE}"),
        ("..\tx.png\twhat\twhat", f"example: {UNSAFE}"),
        ("chien_é\tx.png\twhat\twhat", f"example: {UNSAFE}"),
        (
            "One\tx.png\twhat\twhat",
            "example: row 2 has that name too (capitals do not count); give each row its own",
        ),
        (
            "two\tx.png\twhat\twhat\tnot hex",
            "image_sha256: is not 64 hex digits; paste what `sha256sum` prints",
        ),
        (
            "two\tone.png\twhat\twhat\t" + "0" * 64,
            "image_sha256: row 2 gives the same image another; keep one",
        ),
        (
            "two\tx.png\tw\x1bhat\twhat",
            "base_question: holds the control character U+001B, which no editor shows; remove it",
        ),
        (
            "two\tx.png\twhat\twh\u2028at",
            "source_question: holds the control character U+2028, which no editor shows; remove it",
        ),
        (
            "two\tx.png\twhat\t" + "what " * 1000,
            "source_question: has 4,999 characters; 4,096 are the most",
        ),
    ],
)
def test_a_wrong_cell_is_named_with_its_mend(tmp_path: Path, row: str, message: str) -> None:
    example = row.split("\t")[0]
    assert row_3_refusal(tmp_path, row) == f" (example {example!r}), {message}"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("\tx.png\twhat\twhat", ", example: is empty; fill it in or remove the row"),
        (
            "two\tx.png\twhat\twhat\t\t\tred",
            ": has 7 cells where the header has 5 columns; remove the tabs too many",
        ),
        (
            'two\tx.png\t"what\twhat',
            ': cannot be read (unexpected end of data); close or remove its double quotes (")',
        ),
        (
            'two\tx.png\t"what" is it\twhat',
            ": cannot be read (a tab expected after '\"'); close or remove its double quotes (\")",
        ),
        (
            'two\tx.png\t"what\nis"\twhat',
            ": a cell goes on over the line's end; close or remove its double quotes (\")",
        ),
    ],
)
def test_a_wrong_row_is_named_with_its_mend(tmp_path: Path, row: str, message: str) -> None:
    assert row_3_refusal(tmp_path, row) == message


def test_a_name_that_no_file_can_have_is_named(tmp_path: Path) -> None:
    message = row_3_refusal(tmp_path, f"{'n' * 101}\tx.png\twhat\twhat")
    assert message == (
        f" (example '{'n' * 79}…), example: has 101 characters and files are called by it; "
        "100 are the most"
    )


def row_3_refusal(folder: Path, row: str) -> str:
    first = "one\tone.png\twhat is it\twhat is she\t" + "a" * 64
    message = sheet_refusal(write_sheet(folder, HEADER + "\timage_sha256", first, row))
    assert message.startswith(", row 3")
    return message.removeprefix(", row 3")


NEEDED = "example, image, base_question, source_question"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "example\timage\tbase_question",
            f"column source_question is missing; the sheet needs {NEEDED}",
        ),
        (
            HEADER + "\tbase_anwser",
            "'base_anwser' is not a known column; did you mean base_answer?",
        ),
        (
            HEADER + "\tnotes",
            f"'notes' is not a known column; known are {NEEDED}, "
            "base_answer, source_answer, image_sha256",
        ),
        (HEADER + "\texample", "column example is there twice; remove one"),
        (HEADER + "\t\tbase_answer", "column 5 has no name; name or remove it"),
        (HEADER.replace("\t", ","), "has no tabs; save the sheet as tab-separated text"),
    ],
)
def test_a_wrong_header_is_named_with_its_mend(tmp_path: Path, header: str, message: str) -> None:
    assert sheet_refusal(write_sheet(tmp_path, header, GOOD_ROW)) == f", row 1: {message}"


SAVE_AS_TEXT = "save the sheet as tab-separated UTF-8 text"
BINARY = f": is not UTF-8 text but a binary file or UTF-16; {SAVE_AS_TEXT}"
EMPTY = f": is empty; its first line names the columns {NEEDED}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", EMPTY),
        (b"\n \t\n", EMPTY),
        (HEADER.encode() + b"\n\n", ": has no rows below its header; add an example"),
        (b"PK\x03\x04\0\0", BINARY),
        (HEADER.encode("utf-16"), BINARY),
        (HEADER.encode() + b"\ncaf\xe9\t", f", row 2: is not UTF-8 text; {SAVE_AS_TEXT}"),
        (
            HEADER.encode() + b'\n"' + b"long " * 50_000,
            ", row 2: cannot be read (field larger than field limit (131072)); "
            'close or remove its double quotes (")',
        ),
    ],
    ids=["empty", "blank", "no rows", "zip", "UTF-16", "Latin-1", "endless cell"],
)
def test_what_is_no_sheet_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "examples.tsv"
    path.write_bytes(content)
    assert sheet_refusal(path) == message


def test_a_sheet_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    missing = ": there is no such file; mend examples in the config"
    assert sheet_refusal(tmp_path / "none.tsv") == missing
    assert sheet_refusal(tmp_path) == ": cannot be read (Is a directory); give a file"


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
    assert picture_refusal(tmp_path, str(path)) == (
        f"image: {path}: cannot be opened as a picture {reason}"
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
    message = refusal(check_named_files, config, read_inputs(config, []))
    assert message.startswith(f"{folder / name}: cannot be read {endless[1]}; mend its path")


def test_a_text_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert sheet_refusal(path) == ": cannot be read (File too large); give a file"
    assert "(File too large)" in refusal(check_config_file, path)
    assert "(File too large)" in refusal(read_published, path)


# --- the pictures


@pytest.mark.parametrize(
    "address",
    [
        "http://[::1",
        "http://[foo]/a.png",
        "http://x:99999999/",
        "http://x:0/a.png",
        "http://x:port/a.png",
        "http://",
        "https:///a.png",
        "http://two words/a.png",
        "http://a..b/a.png",
        f"http://{'a' * 64}.org/a.png",
        "http://ex℀mple.org/a.png",
        "http://*/a.png",
    ],
)
def test_an_address_that_is_none_is_named(tmp_path: Path, address: str) -> None:
    message = sheet_refusal(write_sheet(tmp_path, HEADER, f"one	{address}	what	what"))
    assert message.startswith(f", row 2 (example 'one'), image: {address}: is no address (")


@pytest.mark.parametrize(
    "address",
    [
        "HTTP://x",
        "http://x/two words.png",
        "http://[::1]:8080/a.png",
        "https://bücher.example/ä.png?b={c}&d[e]=*",
        "http://user:word@x/a.png",
    ],
)
def test_an_address_of_any_kind_is_kept(tmp_path: Path, address: str) -> None:
    sheet = load_sheet(write_sheet(tmp_path, HEADER, f"one	{address}	what	what"))
    assert sheet["image"].tolist() == [address]


def sheet_with(folder: Path, image: str, sha256: str = "") -> pd.DataFrame:
    row = f"shirt\t{image}\twhat is the color\twhat is the shirt\t{sha256}"
    return load_sheet(write_sheet(folder, HEADER + "\timage_sha256", row))


def picture_refusal(folder: Path, image: str, sha256: str = "") -> str:
    message = refusal(check_pictures, sheet_with(folder, image, sha256), "config/examples.tsv")
    start = "config/examples.tsv, row 2 (example 'shirt'), "
    assert message.startswith(start)
    return message.removeprefix(start)


def test_a_picture_that_is_there_is_accepted_and_an_address_left_alone(tmp_path: Path) -> None:
    picture = tmp_path / "shirt.png"
    Image.new("RGB", (4, 4)).save(picture)
    checksum = hashlib.sha256(picture.read_bytes()).hexdigest()
    check_pictures(sheet_with(tmp_path, str(picture), checksum), "config/examples.tsv")
    check_pictures(sheet_with(tmp_path, "https://192.0.2.1/a.png", checksum), "examples.tsv")


def test_a_picture_that_is_none_is_named(tmp_path: Path) -> None:
    text = tmp_path / "shirt.png"
    text.write_text("no picture")
    assert picture_refusal(tmp_path, str(text)) == (
        f"image: {text}: is no picture that Pillow knows; give a JPEG or PNG file"
    )
    assert picture_refusal(tmp_path, "none.png") == (
        "image: none.png: there is no such file; mend its path"
    )
    assert picture_refusal(tmp_path, str(tmp_path)) == (
        f"image: {tmp_path}: cannot be opened as a picture (Is a directory)"
    )
    assert picture_refusal(tmp_path, "ftp://host/a.png") == (
        "image: ftp://host/a.png: is not http(s); download it, give its path"
    )


def test_a_picture_with_another_checksum_is_named(tmp_path: Path) -> None:
    picture = tmp_path / "shirt.png"
    Image.new("RGB", (4, 4)).save(picture)
    found = hashlib.sha256(picture.read_bytes()).hexdigest()
    assert picture_refusal(tmp_path, str(picture), "0" * 64) == (
        f"image_sha256: the sha256 of {picture} is {found}; mend the cell or replace the picture"
    )


# --- the device


# --- the checkpoint

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [*SPECIAL, "what", "is", "the", "color", "of", "shirt", "red", "##dish"]
LAYERS, POSITIONS = 6, 12


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    set_vocabulary(folder, len(WORDS))
    return folder


def set_vocabulary(folder: Path, size: int, start: int = len(WORDS) - 1) -> None:
    """Give the model so many words, `start` among them the one with which answers begin."""
    text = {
        "num_hidden_layers": LAYERS,
        "max_position_embeddings": POSITIONS,
        "vocab_size": size,
        "bos_token_id": start,
    }
    config = {"model_type": "blip", "architectures": ["BlipForQuestionAnswering"]}
    (folder / "config.json").write_text(json.dumps({**config, "text_config": text}))


def check_row(checkpoint: Path, row: str, **config: object) -> list[str]:
    """Check one row: base question, source question and, if given, the answers to both."""
    header = HEADER + "\tbase_answer\tsource_answer"
    path = write_sheet(checkpoint.parent, header, f"one\tx.png\t{row}")
    given = filled({**SMALLEST, **config})
    return check_against_checkpoint(given, load_sheet(path), checkpoint, "config/examples.tsv")


def row_refusal(checkpoint: Path, row: str) -> str:
    message = refusal(check_row, checkpoint, row)
    start = "config/examples.tsv, row 2 (example 'one')"
    assert message.startswith(start)
    return message.removeprefix(start)


def test_what_fits_the_checkpoint_brings_no_warning(checkpoint: Path) -> None:
    assert check_row(checkpoint, "what is the shirt\twhat is the color\tred\tColor") == []


def test_the_layers_are_the_checkpoints(checkpoint: Path) -> None:
    check = check_against_checkpoint
    sheet = load_sheet(write_sheet(checkpoint.parent, HEADER, GOOD_ROW))
    config = filled({**SMALLEST, "model": {"name": "a/b", "layers": 12}})
    assert refusal(check, config, sheet, checkpoint, "config/examples.tsv") == (
        f"model.layers is 12, but {checkpoint}/config.json has 6 text layers; set model.layers to 6"
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "what is the shirt\twhat is the shirt\treddish",
            ", base_answer: 'reddish' is 2 tokens (red ##dish); an answer is one token; "
            "give another, or none for the model's own",
        ),
        (
            "what is the shirt\twhat is the shirt\tred\tokapi",
            ", source_answer: 'okapi' is not a word that the tokenizer knows; "
            "give another, or none for the model's own",
        ),
        (
            "what is the shirt\t" + "what " * (POSITIONS - 1),
            ", source_question: has 13 tokens, the model reads 12; shorten it",
        ),
        (
            "what is the color of the shirt\twhat is the reddish shirt",
            ": base_question has 9 tokens, source_question 8, and patching needs equally many; "
            "reword one, or set patching.sites to [] to trace only",
        ),
        (
            "what\t\u200b\u200c",
            ", source_question: has no word that can be seen; ask something",
        ),
    ],
)
def test_a_row_that_does_not_fit_is_named_with_its_mend(
    checkpoint: Path, row: str, message: str
) -> None:
    assert row_refusal(checkpoint, row) == message


def test_the_longest_question_fits(checkpoint: Path) -> None:
    longest = "what " * (POSITIONS - 2)
    assert check_row(checkpoint, f"{longest}\t{longest}") == []


def test_questions_in_any_script_are_read(checkpoint: Path) -> None:
    warnings = check_row(checkpoint, "что это 什么\tكيف حال\u200cک 👩\u200d🎨?")
    assert len(warnings) == 2 + 2 + 4
    assert "base_question: the tokenizer does not know 'что', which becomes [UNK]" in warnings[0]


def test_questions_of_different_lengths_can_be_traced(checkpoint: Path) -> None:
    assert check_row(checkpoint, "what is the shirt\twhat", patching={"sites": []}) == []


def test_every_unknown_word_is_warned_of_once_a_question(checkpoint: Path) -> None:
    warnings = check_row(checkpoint, "what is the Okapi okapi Okapi\twhat of red shirt the zebra")
    where = "config/examples.tsv, row 2 (example 'one'), "
    assert warnings == [
        f"{where}base_question: the tokenizer does not know 'Okapi', which becomes [UNK]",
        f"{where}base_question: the tokenizer does not know 'okapi', which becomes [UNK]",
        f"{where}source_question: the tokenizer does not know 'zebra', which becomes [UNK]",
    ]


ROW_THAT_FITS = "what is the shirt\twhat is the color"


def test_blips_own_two_words_need_no_name(checkpoint: Path) -> None:
    """As in BLIP's first checkpoints: BERT's vocabulary, and an embedding two words larger."""
    set_vocabulary(checkpoint, len(WORDS) + 2, start=len(WORDS))
    assert check_row(checkpoint, ROW_THAT_FITS) == []


def test_words_of_the_model_beyond_the_tokenizers_are_warned_of(checkpoint: Path) -> None:
    set_vocabulary(checkpoint, 16)
    assert check_row(checkpoint, ROW_THAT_FITS) == [
        f"{checkpoint}: its tokenizer has 12 words, the model 16; "
        "answers beyond are shown by number, as [id 15]"
    ]


def test_a_tokenizer_with_words_that_the_model_has_not_is_refused(checkpoint: Path) -> None:
    set_vocabulary(checkpoint, 11, start=0)
    assert refusal(check_row, checkpoint, ROW_THAT_FITS) == (
        f"{checkpoint}: its tokenizer has '##dish' as number 11, but the model has 11 words, "
        "counted from 0; copy the tokenizer of this model"
    )


@pytest.mark.parametrize("as_whole", [False, True])
def test_a_tokenizer_that_lost_a_word_is_refused(checkpoint: Path, as_whole: bool) -> None:
    if as_whole:
        load_tokenizer(checkpoint).save(str(checkpoint / "tokenizer.json"))
        saved = json.loads((checkpoint / "tokenizer.json").read_text())
        del saved["model"]["vocab"]["red"]
        (checkpoint / "tokenizer.json").write_text(json.dumps(saved))
    else:
        (checkpoint / "vocab.txt").write_text("\n".join(WORDS).replace("red", ""))
    assert refusal(check_row, checkpoint, ROW_THAT_FITS) == (
        f"{checkpoint}: its tokenizer has no word for 1 of the model's 12, the first number 10; "
        "copy the tokenizer of this model"
    )


def test_the_default_sheet_fits_the_miniature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load(SHIPPED[0].read_text())
    sheet = load_sheet(config["examples"])
    check_pictures(sheet, config["examples"])
    assert check_against_checkpoint(config, sheet, config["model"]["name"], "sheet") == []


# --- their cost


def test_the_checks_load_neither_torch_nor_transformers() -> None:
    scripts = ROOT / "workflow/scripts"
    modules = ["planning", "run_lock", "downloads", "logs"]
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
