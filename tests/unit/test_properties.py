"""Whatever is wrong with a sheet or a configuration ends in one readable line."""

import copy
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from project import ROOT, copy_project, snakemake
from snakemake.common.configfile import load_configfile  # type: ignore[import-untyped]

from blip_tracing.errors import InputError
from blip_tracing.given.planning import check_config_file, check_named_files, read_inputs
from blip_tracing.given.sheet import COLUMNS, REQUIRED_COLUMNS
from blip_tracing.vocabulary.config import TAKEN, Config
from blip_tracing.vocabulary.experiment import CLEAN, PICTURE_ONLY, QUESTIONS
from blip_tracing.vocabulary.keys import NAME
from blip_tracing.vocabulary.metrics import NEEDED

# The same draws each time: a test that fails today failed yesterday.
DRAWS = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
CONFIG = "config/config.yaml"
GOOD_CONFIG = yaml.safe_load((ROOT / CONFIG).read_text())
GOOD_SHEET = (ROOT / GOOD_CONFIG["examples"]).read_text()
SCHEMA = Config.model_json_schema()
UNSEEN = "\0\x01\x07\x0b\x1b\x7f\x85\u2028\u2029"

Draw = Callable[[st.SearchStrategy[Any]], Any]


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def plan(config_file: Path) -> None:
    """What reading the Snakefile does before it makes rules."""
    check_config_file(config_file)
    config = load_configfile(config_file)
    check_named_files(config, read_inputs(config, [config_file]))


def refusal(config_file: Path) -> str:
    """The one readable line in which planning ends, or "" where nothing is wrong."""
    try:
        plan(config_file)
    except InputError as error:
        message = str(error)
        assert not set(message) & set(UNSEEN + "\t\r\n")
        assert len(message) < 5000
        return message
    return ""


# --- configurations


KeyPath = tuple[str, ...]


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """What a schema is, where it only refers to one; of a key that may be empty, what it holds."""
    if "anyOf" in schema:
        held, _ = schema["anyOf"]
        return {**schema, **resolved(held), "may_be_empty": True}
    if "$ref" not in schema:
        return schema
    return {**SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], **schema}


def keys(schema: dict[str, Any], config: dict[str, Any], at: KeyPath = ()) -> dict[KeyPath, dict]:
    """Every key of a configuration, groups too, by its path; names of one's own are as it has them.

    Each key's schema says too whether it is `needed`.
    """
    found: dict[KeyPath, dict] = {}
    properties = dict(schema.get("properties", {}))
    for named in schema.get("patternProperties", {}).values():
        properties |= dict.fromkeys(config, named)
    for name, key in properties.items():
        key = resolved(key)
        found[(*at, name)] = {**key, "needed": name in schema.get("required", [])}
        # A group that may be left out, and is, has no keys to break.
        if key["type"] == "object" and (name in config or not key.get("may_be_empty")):
            found |= keys(key, config.get(name, {}), (*at, name))
    return found


KEYS = keys(SCHEMA, GOOD_CONFIG)
GROUPS = [path for path, key in KEYS.items() if key["type"] == "object"]
TEXTS = [path for path, key in KEYS.items() if key["type"] == "string"]
LISTS = [path for path, key in KEYS.items() if key["type"] == "array"]
REQUIRED = [path for path, key in KEYS.items() if key["needed"]]
ITEMS = {path: resolved(KEYS[path]["items"]) for path in LISTS}
# The names of one's own.
RUNS, EXPERIMENTS = list(GOOD_CONFIG["runs"]), list(GOOD_CONFIG["experiments"])
CORRUPT = ("runs", RUNS[0], "corrupt")


def test_the_keys_that_are_drawn_from_are_all_there() -> None:
    assert {(*CORRUPT, "levels"), ("experiments", EXPERIMENTS[0], "sites")} < set(LISTS)
    assert {("runs", RUNS[0], "of"), ("model", "layers", "vision")} < set(REQUIRED)


nothing = st.none()
words = st.text(max_size=20)
long_words = st.integers(min_value=1, max_value=10_000).map(lambda length: "é" * length)
texts = words | long_words
yes_or_no = st.booleans()
fractions = st.floats(allow_nan=False, allow_infinity=False)
not_finite = st.sampled_from([math.inf, -math.inf, math.nan, 10**400, -(10**400)])
dates = st.dates() | st.datetimes()
lists: st.SearchStrategy[list] = st.recursive(
    st.just([]), lambda inner: st.lists(inner | words, max_size=3), max_leaves=20
)
groups: st.SearchStrategy[dict] = st.recursive(
    st.just({}), lambda inner: st.dictionaries(words, inner | words, max_size=3), max_leaves=20
)
odd = nothing | dates | st.binary(max_size=8) | st.sets(words, max_size=3)


def wrong_values(key: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that are not what a key's schema asks for."""
    match key["type"]:
        case "object":
            return odd | texts | yes_or_no | fractions | lists
        case "array":
            return odd | texts | yes_or_no | fractions | groups
        case "string":
            others = odd | yes_or_no | fractions | not_finite | lists | groups
            known = key.get("enum", [key["const"]] if "const" in key else [])
            if known:
                return others | texts.filter(lambda word: word not in known)
            return others | st.just("") if key.get("minLength") else others
        case "integer":
            too_few = st.integers(max_value=key["minimum"] - 1)
            return odd | texts | yes_or_no | fractions | not_finite | lists | groups | too_few
        case "number":
            below = st.floats(max_value=key["minimum"], exclude_max=True)
            return odd | texts | yes_or_no | not_finite | lists | groups | below
    raise AssertionError(key["type"])


def set_key(config: dict[str, Any], path: KeyPath, value: object) -> None:
    *above, name = path
    for group in above:
        config = config.setdefault(group, {})
    config[name] = value


def get_key(config: dict[str, Any], path: KeyPath) -> Any:
    value: Any = config
    for name in path:
        value = value.get(name, KEYS[path].get("default"))
    return value


def a_wrong_value(draw: Draw, config: dict[str, Any]) -> None:
    path = draw(st.sampled_from(list(KEYS)))
    wrong = wrong_values(KEYS[path])
    if KEYS[path].get("may_be_empty"):
        wrong = wrong.filter(lambda value: value is not None)
    set_key(config, path, draw(wrong))


def a_wrong_item(draw: Draw, config: dict[str, Any]) -> None:
    path = draw(st.sampled_from(LISTS))
    values = list(get_key(config, path))
    values.insert(draw(st.integers(0, len(values))), draw(wrong_values(ITEMS[path])))
    set_key(config, path, values)


def a_missing_key(draw: Draw, config: dict[str, Any]) -> None:
    *above, name = draw(st.sampled_from(REQUIRED))
    del get_key(config, tuple(above))[name]


def an_unknown_key(draw: Draw, config: dict[str, Any]) -> None:
    group = draw(st.sampled_from([(), *GROUPS]))
    known = [path[-1] for path in KEYS if path[:-1] == group]
    name = draw(
        st.integers() | yes_or_no | nothing | dates | texts.filter(lambda w: w not in known)
    )
    set_key(config, (*group, name), draw(texts))


def a_repeated_item(draw: Draw, config: dict[str, Any]) -> None:
    plain = [path for path in LISTS if ITEMS[path]["type"] != "object"]
    path = draw(st.sampled_from([path for path in plain if get_key(config, path)]))
    values = list(get_key(config, path))
    values.insert(draw(st.integers(0, len(values))), draw(st.sampled_from(values)))
    set_key(config, path, values)


def draws_that_are_not_there(draw: Draw, config: dict[str, Any]) -> None:
    corrupt = get_key(config, CORRUPT)
    if draw(yes_or_no):
        level = st.floats(0, 1e6).filter(lambda level: level not in corrupt["levels"])
        group, key = draw(st.sampled_from([("report", "draws_at"), ("effects", "primary_level")]))
        config[group][key] = draw(level)
    else:
        config["controls"]["null_draws"] = draw(st.integers(corrupt["draws"] + 1))


def a_name_that_cannot_be(draw: Draw, config: dict[str, Any]) -> None:
    kept_runs = (*QUESTIONS, CLEAN, PICTURE_ONLY)
    group, kept = draw(st.sampled_from([("runs", kept_runs), ("experiments", TAKEN)]))
    old = draw(st.sampled_from(list(config[group])))
    bad = texts.filter(lambda name: not re.fullmatch(NAME, name) or len(name) > 40)
    other = st.integers() | yes_or_no | nothing | dates | st.binary(max_size=8)
    name = draw(bad | other | st.sampled_from(kept) | st.integers(41, 9000).map("n".__mul__))
    config[group][name] = config[group].pop(old)


def an_experiment_of_no_two_runs(draw: Draw, config: dict[str, Any]) -> None:
    name = draw(st.sampled_from(EXPERIMENTS))
    config["runs"]["other"] = copy.deepcopy(config["runs"][RUNS[0]])
    runs = [*QUESTIONS, *config["runs"]]
    unknown = st.from_regex(NAME, fullmatch=True).filter(lambda run: run not in runs)
    ends = draw(
        st.sampled_from(runs).map(lambda run: (run, run))
        | st.permutations([RUNS[0], "other"])
        | st.tuples(st.sampled_from(runs), unknown)
        | st.tuples(unknown, st.sampled_from(runs))
    )
    config["experiments"][name] |= dict(zip(["receiver", "donor"], ends, strict=True))


def a_metric_too_few(draw: Draw, config: dict[str, Any]) -> None:
    config["metrics"].remove(draw(st.sampled_from(NEEDED)))


def a_form_of_before(draw: Draw, config: dict[str, Any]) -> None:
    old = {
        "patching": st.just({"sites": ["block_input"]}) | groups | nothing | texts,
        "tracing": st.just({"noise_levels": [1, 2], "samples": 3}) | groups | nothing | texts,
        "layers": st.integers(),
    }
    key = draw(st.sampled_from(list(old)))
    (config["model"] if key == "layers" else config)[key] = draw(old[key])


def roles_that_tell_nothing(draw: Draw, config: dict[str, Any]) -> None:
    roles = config["effects"]["roles"]
    other = draw(words.filter(lambda word: word not in {role["role"] for role in roles}))
    broken = st.sampled_from(["(", "[", "*", "a{2,1}", "(?P<n", "\\", "a{99999999999}", "(" * 5000])
    wrong = {
        "twice": st.just({"role": "differing word"}),
        "unknown": st.just({"role": "new", "before": other or "?"}),
        "itself": st.just({"role": "new", "after": "new"}),
        "pattern": broken.map(lambda pattern: {"role": "new", "token": pattern}),
        "kept": st.just({"role": "all"}),
        "empty": st.just({"role": ""}),
    }
    roles.insert(draw(st.integers(0, len(roles))), draw(wrong[draw(st.sampled_from(list(wrong)))]))


def an_unseen_character(draw: Draw, config: dict[str, Any]) -> None:
    path = draw(st.sampled_from(TEXTS))
    text = get_key(config, path)
    at = draw(st.integers(0, len(text)))
    set_key(config, path, text[:at] + draw(st.sampled_from(UNSEEN)) + text[at:])


def files_that_are_not_there(draw: Draw, config: dict[str, Any]) -> None:
    path = draw(st.sampled_from([("examples",), ("published",), ("model", "name")]))
    set_key(config, path, "./" + draw(texts.filter(bool)) + "/none")


def another_model(draw: Draw, config: dict[str, Any]) -> None:
    layers = config["model"]["layers"]
    tower = draw(st.sampled_from(list(layers)))
    layers[tower] = draw(st.integers(min_value=1).filter(lambda number: number != layers[tower]))


CONFIG_FAULTS = [
    a_wrong_value,
    a_wrong_item,
    a_missing_key,
    an_unknown_key,
    a_repeated_item,
    draws_that_are_not_there,
    a_name_that_cannot_be,
    an_experiment_of_no_two_runs,
    a_metric_too_few,
    a_form_of_before,
    roles_that_tell_nothing,
    an_unseen_character,
    files_that_are_not_there,
    another_model,
]


@st.composite
def broken_configs(draw: Draw) -> bytes:
    """A configuration with a fault, as YAML in blocks or in brackets."""
    config = copy.deepcopy(GOOD_CONFIG)
    draw(st.sampled_from(CONFIG_FAULTS))(draw, config)
    style, order = draw(st.sampled_from([None, False, True])), draw(yes_or_no)
    return yaml.safe_dump(config, default_flow_style=style, sort_keys=order).encode()


TEXT = (ROOT / CONFIG).read_text()
# Ten lists, each of ten times the one before.
BOMB = "a0: &a0 x\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 11)
)
NO_CONFIG = [
    b"",
    b"# nothing but a comment\n",
    b"- model\n- device\n",
    b"just words\n",
    b"6\n",
    b"null\n",
    b"[model, device]\n",
    b'["model"]',
    b"a: &a [*a]\n",
    b"a: *nowhere\n",
    b"a: b: c\n",
    b"a: 'b\n",
    b"a: !!python/name:os.system ''\n",
    b"a: !unknown b\n",
    b"? [a, b]\n: c\n",
    b"? {a: b}\n: c\n",
    b"%YAML 9.9\n---\na: b\n",
    b"a: b\n---\na: c\n",
    b"a: 2026-02-31\n",
    b"a: " + b"9" * 5000 + b"\n",
    b"a: " + b"[" * 3000 + b"]" * 3000 + b"\n",
    b"a: " + b"[" * 150 + b"]" * 150 + b"\n",
    TEXT.replace("seed: 0", "seed: 0x" + "f" * 5000).encode(),
    TEXT.replace("device: auto", 'device: "\\ud800"').encode(),
    TEXT.replace("device: auto", "device: !!set {a, b}").encode(),
    TEXT.replace("device: auto", "device: !!pairs [a: b, a: c]").encode(),
    TEXT.replace("  noisy:", "  ? [a, b]\n  :").encode(),
    TEXT.replace("  noisy:", "  <<:").encode(),
    TEXT.replace("  noisy:", "  '[key]':").encode(),
    BOMB.encode(),
    b"{" * 3000,
    TEXT.encode("utf-16"),
    TEXT.encode("utf-32"),
    TEXT.replace("#", "é").encode("latin-1"),
    TEXT.replace("  ", "\t").encode(),
    TEXT.replace("device: auto", "device: auto\ndevice: cpu").encode(),
    TEXT.replace("device: auto", "device: auto\0").encode(),
    TEXT.replace("device: auto", "device auto").encode(),
    b"\x89PNG\r\n\x1a\n" + bytes(100),
    GOOD_SHEET.encode(),
]


@settings(DRAWS, max_examples=260)
@given(content=broken_configs() | st.sampled_from(NO_CONFIG))
def test_a_broken_configuration_ends_in_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    message = refusal(file)
    named = (str(file), GOOD_CONFIG["model"]["name"], "there is no directory", "/none")
    assert any(name in message for name in named), message


# --- sheets

Rows = list[list[str]]
GOOD_ROWS = [line.split("\t") for line in GOOD_SHEET.splitlines()]
OPTIONAL_COLUMNS = [column for column in COLUMNS if column not in REQUIRED_COLUMNS]
any_row = st.integers(1, len(GOOD_ROWS) - 1)
cells = st.text(max_size=20).filter(lambda cell: not re.search('[\t\r\n"]', cell))


def put(rows: Rows, row: int, column: str, cell: str) -> None:
    """Set a cell, adding its column to the sheet where it has none."""
    if column not in rows[0]:
        rows[0].append(column)
    for cells_of_row in rows:
        cells_of_row.extend([""] * (len(rows[0]) - len(cells_of_row)))
    rows[row][rows[0].index(column)] = cell


def a_column_missing(draw: Draw, rows: Rows) -> None:
    at = draw(st.integers(0, 3))
    for row in rows:
        del row[at]


def a_column_unknown(draw: Draw, rows: Rows) -> None:
    new = draw(cells.filter(lambda cell: cell.strip() and cell.strip() not in OPTIONAL_COLUMNS))
    rows[0].insert(draw(st.integers(0, 4)), new)


def a_cell_empty(draw: Draw, rows: Rows) -> None:
    put(rows, draw(any_row), draw(st.sampled_from(REQUIRED_COLUMNS)), draw(st.text(" \u3000\xa0")))


def a_cell_too_many(draw: Draw, rows: Rows) -> None:
    rows[draw(any_row)] += ["", draw(cells.filter(str.strip))]


def a_row_cut_short(draw: Draw, rows: Rows) -> None:
    del rows[draw(any_row)][draw(st.integers(1, 3)) :]


def a_name_no_file_can_have(draw: Draw, rows: Rows) -> None:
    bad = cells.filter(lambda cell: not re.fullmatch("[A-Za-z0-9_][A-Za-z0-9_.-]*", cell.strip()))
    put(rows, draw(any_row), "example", draw(bad | st.integers(101, 5000).map("n".__mul__)))


def a_name_given_twice(draw: Draw, rows: Rows) -> None:
    row = rows[draw(any_row)]
    name = draw(st.sampled_from([row[0], row[0].upper(), f" {row[0]}  "]))
    rows.insert(draw(any_row), [name, *row[1:]])


def a_wrong_checksum(draw: Draw, rows: Rows) -> None:
    wrong = cells.filter(str.strip) | st.text("0123456789abcdefABCDEF", min_size=64, max_size=64)
    put(rows, draw(any_row), "image_sha256", draw(wrong))


def no_picture(draw: Draw, rows: Rows) -> None:
    others = ["config", "Snakefile", "ftp://host/a.png", "a{b}.png", "/", "http:/a.png", "~/a.png"]
    image = st.sampled_from(others) | cells.map("none/{}.png".format) | st.just("p" * 5000)
    put(rows, draw(any_row), "image", draw(image))


def questions_that_do_not_fit(draw: Draw, rows: Rows) -> None:
    question = draw(st.sampled_from(["base_question", "source_question"]))
    many = draw(st.integers(1, 3) | st.integers(10, 2000))
    put(rows, draw(any_row), question, "what " * many)


def no_answer(draw: Draw, rows: Rows) -> None:
    answer = draw(st.sampled_from(["zebra", "two words", "色", "[UNK]", "-", "re##d"]))
    put(rows, draw(any_row), draw(st.sampled_from(["base_answer", "source_answer"])), answer)


def an_unseen_character_in_a_cell(draw: Draw, rows: Rows) -> None:
    column = draw(st.sampled_from(REQUIRED_COLUMNS))
    put(rows, draw(any_row), column, f"a{draw(st.sampled_from(UNSEEN))}b")


def quotes_that_do_not_fit(draw: Draw, rows: Rows) -> None:
    row, column = draw(any_row), draw(st.integers(0, 3))
    before, after = draw(st.sampled_from([('"', ""), ('""', ""), ('"', '"\n"'), ('"a"', "")]))
    rows[row][column] = before + rows[row][column] + after


SHEET_FAULTS = [
    a_column_missing,
    a_column_unknown,
    a_cell_empty,
    a_cell_too_many,
    a_row_cut_short,
    a_name_no_file_can_have,
    a_name_given_twice,
    a_wrong_checksum,
    no_picture,
    questions_that_do_not_fit,
    no_answer,
    an_unseen_character_in_a_cell,
    quotes_that_do_not_fit,
]


@st.composite
def broken_sheets(draw: Draw) -> bytes:
    """A sheet with a fault, as one of the editors saves it."""
    rows = copy.deepcopy(GOOD_ROWS)
    draw(st.sampled_from(SHEET_FAULTS))(draw, rows)
    end = draw(st.sampled_from(["\n", "\r\n", "\r", " \t \n"]))
    text = end.join("\t".join(row) for row in rows) + draw(st.sampled_from(["", end, end * 3]))
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig"])))


NO_SHEET = [
    b"",
    b"\xef\xbb\xbf",
    b"\n\n\t\n",
    GOOD_SHEET.splitlines()[0].encode(),
    GOOD_SHEET.replace("\t", ",").encode(),
    GOOD_SHEET.replace("\t", "  ").encode(),
    GOOD_SHEET.encode("utf-16"),
    GOOD_SHEET.encode("utf-32"),
    GOOD_SHEET.replace("what", "où").encode("latin-1"),
    GOOD_SHEET.replace("what", "何").encode("shift-jis"),
    GOOD_SHEET.encode() + bytes(10),
    (ROOT / GOOD_ROWS[1][1]).read_bytes(),
    TEXT.encode(),
]


@pytest.fixture
def config_of_a_sheet(tmp_path: Path) -> tuple[Path, Path]:
    """The default configuration with a sheet of its own, both files of this test."""
    config, sheet = tmp_path / "config.yaml", tmp_path / "sheet.tsv"
    config.write_text(yaml.safe_dump({**GOOD_CONFIG, "examples": str(sheet)}))
    return config, sheet


@settings(DRAWS, max_examples=260)
@given(content=broken_sheets() | st.sampled_from(NO_SHEET))
def test_a_broken_sheet_ends_in_one_line(
    content: bytes, config_of_a_sheet: tuple[Path, Path]
) -> None:
    config, sheet = config_of_a_sheet
    sheet.write_bytes(content)
    assert refusal(config).startswith(str(sheet))


# --- anything at all


@st.composite
def damaged(draw: Draw, content: bytes) -> bytes:
    """A file after some slips of the keyboard, the editor or the disk."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 40)))
        slip = draw(st.binary(max_size=3) | st.text(max_size=3).map(str.encode))
        content = content[:start] + slip + content[end:]
    return content


@settings(DRAWS, max_examples=60)
@given(content=damaged(TEXT.encode()))
def test_a_damaged_configuration_is_planned_or_ends_in_one_line(
    content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    refusal(tmp_path / "config.yaml")


@settings(DRAWS, max_examples=60)
@given(content=damaged(GOOD_SHEET.encode()))
def test_a_damaged_sheet_is_planned_or_ends_in_one_line(
    content: bytes, config_of_a_sheet: tuple[Path, Path]
) -> None:
    config, sheet = config_of_a_sheet
    sheet.write_bytes(content)
    refusal(config)


# --- through the command line


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("clean") / "project")


@pytest.mark.workflow
@settings(DRAWS, max_examples=10)
@given(
    broken=st.tuples(st.just(CONFIG), broken_configs() | st.sampled_from(NO_CONFIG))
    | st.tuples(st.just(GOOD_CONFIG["examples"]), broken_sheets() | st.sampled_from(NO_SHEET))
)
def test_no_job_starts(broken: tuple[str, bytes], project: Path) -> None:
    path, content = broken
    (project / path).write_bytes(content)
    try:
        done = snakemake(project)
    finally:
        (project / path).write_bytes((ROOT / path).read_bytes())
    lines = [line for line in done.stdout.splitlines() if not line.startswith("Using workflow")]
    assert done.returncode == 1
    assert len(lines) == 1, done.stdout
    assert not (project / "results").exists()
