"""A wrong configuration is said in one line that names the key and the mend."""

import copy
import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from refusals import LEVELS, SCHEMAS, SHIPPED, SMALLEST, refusal, with_key

from blip_tracing.given.settings import TABLE_DIGITS, fill_config
from blip_tracing.machinery.tables import FLOAT_FORMAT
from blip_tracing.vocabulary.config import TAKEN, Config
from blip_tracing.vocabulary.corruptions import KINDS, PLACES
from blip_tracing.vocabulary.experiment import BASE, CLEAN, PICTURE_ONLY, QUESTIONS, SOURCE
from blip_tracing.vocabulary.keys import LARGEST
from blip_tracing.vocabulary.metrics import METRICS
from blip_tracing.vocabulary.sites import SITES

SITE = next(iter(SITES))
CONFIG_SCHEMA = json.loads((SCHEMAS / "config.schema.json").read_text())
SHEET_SCHEMA = yaml.safe_load((SCHEMAS / "examples.schema.yaml").read_text())


def config_refusal(config: dict[str, Any]) -> str:
    return refusal(fill_config, config)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_the_shipped_configurations_are_right_and_whole(path: Path) -> None:
    """But for the few keys that most studies leave alone."""
    shown: Any = yaml.safe_load(path.read_text())
    left_out = {"window": 1, "positions": "each", "heads": [], "regions": 6}
    unasked = {"published": "", "averages": {"same_examples": False}, "method": "", "analyses": {}}
    whole = unasked | shown
    whole["effects"] = {"metric": "probability", **shown["effects"]}
    whole["experiments"] = {
        name: left_out | experiment for name, experiment in shown["experiments"].items()
    }
    whole["runs"] = {
        name: run | {"corrupt": {"fresh": False} | run["corrupt"]}
        for name, run in shown["runs"].items()
    }
    assert fill_config(shown) == whole


def test_the_smallest_configuration_is_enough() -> None:
    assert fill_config(SMALLEST)["experiments"] == {}


def test_what_is_given_is_left_as_it_is() -> None:
    given = copy.deepcopy(SMALLEST)
    fill_config(given)
    assert given == SMALLEST


def test_the_defaults_of_every_group_are_filled_in() -> None:
    given = {
        **SMALLEST,
        "runs": {"noisy": {"of": BASE, "corrupt": {}}},
        "experiments": {"tracing": {"receiver": "noisy", "donor": BASE}},
    }
    assert fill_config(given) == {
        "model": {**SMALLEST["model"], "revision": "main", "dtype": "float32"},
        "device": "auto",
        "examples": "config/examples.tsv",
        "runs": {
            "noisy": {
                "of": BASE,
                "corrupt": {
                    "kind": "gaussian",
                    "at": "question.embeddings",
                    "role": "",
                    "levels": [0.1, 0.5, 1, 2, 5, 10, 20],
                    "unit": "absolute",
                    "fresh": False,
                    "draws": 10,
                    "seed": 0,
                },
            }
        },
        "experiments": {
            "tracing": {
                "receiver": "noisy",
                "donor": BASE,
                "sites": ["encoder.block_input"],
                "window": 1,
                "positions": "each",
                "heads": [],
                "regions": 6,
            }
        },
        "analyses": {},
        "metrics": ["probability", "logit"],
        "shard_size": 16,
        "layers_per_job": 1,
        "noise_levels_per_job": 1,
        "controls": {"donors": 5, "seed": 0},
        "effects": {
            "total_effect": 0.05,
            "metric": "probability",
            "least_effect": 0.02,
            "roles": [
                {"role": "[CLS]", "token": r"\[CLS\]"},
                {"role": "before it", "before": "differing word"},
                {"role": "differing word", "pair": "differs"},
                {"role": "after it", "after": "differing word", "token": r"(?!\[SEP\]).*"},
                {"role": "[SEP]", "token": r"\[SEP\]"},
            ],
            "resamples": 2000,
            "seed": 0,
        },
        "tables": {"format": "csv"},
        "method": "",
        "published": "",
        "averages": {"same_examples": False},
        "report": {"examples": 12, "draws_at": 1.0},
    }


ROLES = "effects.roles"
DRAWS, SEED = "runs.noisy.corrupt.draws", "runs.noisy.corrupt.seed"


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
        (LEVELS, [], ": is empty; give how much; what a level is depends on the kind"),
        (LEVELS, 1.0, ": 1.0 is a number, not a list"),
        (DRAWS, 0, ": 0 is less than the minimum of 1"),
        (DRAWS, True, ": true is a yes or no, not a whole number"),
        ("runs.noisy.corrupt.drwas", 3, " is not a known key; did you mean draws?"),
        (
            "experiments.tracing.sites",
            ["zebra"],
            f"[0]: 'zebra' is unknown; known are {', '.join(SITES)}",
        ),
        (
            "experiments.patching.sites",
            [SITE, SITE],
            f": {SITE!r} is given twice; keep it once",
        ),
        ("model", None, ": is empty, not a group of keys"),
        ("model.layers.encoder", "6", ": '6' is text, not a whole number; write 6 without quotes"),
        ("model.layers.encoder", 6.0, ": 6.0 is a number, not a whole number"),
        ("model.layers", "6", ": '6' is text, not a group of keys"),
        ("model.layers.vison", 3, " is not a known key; did you mean vision?"),
        ("model.dtype", "float16", ": 'float16' is unknown; known are float32, float64, bfloat16"),
        ("model.name", "", ": is empty; give the checkpoint's directory, or a Hub id like"),
        ("model.name", ["a"], ": is a list, not text"),
        ("model.revision", 1234567, ": 1234567 is a number, not text"),
        ("device", "gpu", ": 'gpu' is unknown; known are auto, cpu, cuda"),
        ("device", None, ": is empty, not text; known are auto, cpu, cuda"),
        ("device", ["cpu"], ": is a list, not text; known are auto, cpu, cuda"),
        (
            "zebra",
            1,
            f" is not a known key; known are {', '.join(Config.model_fields)}",
        ),
        (
            "report.draws_at",
            3,
            f": 3 is not in {LEVELS}; give one of 0.1, 0.5, 1, 2, 5, 10, 20",
        ),
        (DRAWS, 2**63, f": 9223372036854775808 is more than the maximum of {LARGEST}"),
        (SEED, 10**20, f": 100000000000000000000 is more than the maximum of {LARGEST}"),
        (SEED, -(10**20), ": -100000000000000000000 is less than the minimum of 0"),
        (SEED, "1e3", ": '1e3' is text, not a whole number; write 1000 without quotes"),
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
            [2**53, 1.0],
            "[0]: 9007199254740992.0 has more than the 9 digits that tables keep; "
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
            for key in ("model.name", "examples", "method", "published")
        ),
        (LEVELS, [10**400, 1.0], f"[0]: 1{'0' * 79}… is a number, not a finite number"),
        ("model.name", "x" * 200 + "\n", ": holds the control character U+000A, which no editor"),
        ("model.name", "\ud800", ": holds the control character U+D800, which no editor shows"),
        ("model.revision", dt.date(2026, 11, 23), ": 2026-11-23 is a date, not text"),
        ("model.revision", {"a", "b"}, ": is a set, not text"),
        ("device", "g" * 200, f": '{'g' * 79}… is unknown; known are auto, cpu, cuda"),
        (
            "controls.null_draws",
            11,
            f": 11 is more than the 10 of {DRAWS}, which the null shares; give at most 10",
        ),
        ("effects.total_effect", 1.5, ": 1.5 is more than the maximum of 1"),
        (ROLES, [], ": is empty; give the axis on which questions of different lengths"),
        (ROLES, [{"role": "noun", "paar": "same"}], "[0].paar is not a known key; did you mean"),
        (
            ROLES,
            [{"role": "a", "pair": "some"}],
            "[0].pair: 'some' is unknown; known are differs",
        ),
        (ROLES, [{"pair": "same"}], "[0].role is missing: give the role's name"),
        (ROLES, [{"role": ""}], "[0].role: is empty; give the role's name"),
        (ROLES, [{"role": "a", "token": ""}], "[0].token: is empty; give a regular expression"),
        (ROLES, [{"role": "a", "token": "(b"}], "[0].token: '(b' is no regular expression"),
        (ROLES, [{"role": "a"}, {"role": "a"}], "[1].role: 'a' is given twice"),
        (ROLES, [{"role": "a", "before": "b"}], "[0].before: 'b' is not a role; known are a"),
        (ROLES, [{"role": "a", "after": "a"}], ": refer to each other in a circle: a"),
        (
            ROLES,
            [{"role": "a", "after": "b"}, {"role": "b", "before": "a"}],
            ": refer to each other in a circle: ",
        ),
        ("metrics", [], ": is empty; give what each run is scored by"),
        ("metrics", ["logit"], ": probability is missing, which effects are measured by; add it"),
        ("metrics", ["probability"], ": logit is missing, which effects are measured by; add it"),
        ("metrics", ["zebra"], f"[0]: 'zebra' is unknown; known are {', '.join(METRICS)}"),
        ("runs", ["noisy"], ": is a list, not a group of keys"),
        ("runs.noisy", None, ": is empty, not a group of keys"),
        ("runs.noisy.of", "noisy", ": 'noisy' is unknown; known are base, source"),
        (
            "runs.noisy.corrupt.kind",
            "zebra",
            f": 'zebra' is unknown; known are {', '.join(KINDS)}",
        ),
        (
            "runs.noisy.corrupt.at",
            "zebra",
            f": 'zebra' is unknown; known are {', '.join(PLACES)}",
        ),
        *(
            (f"runs.{name}", {"of": BASE, "corrupt": {}}, message)
            for name, message in {
                BASE: ": base and source are always there; take another name",
                SOURCE: ": base and source are always there; take another name",
                CLEAN: ": is what base and source are; take another name",
                PICTURE_ONLY: ": is always there; take another name",
                "Noisy": ": 'Noisy' is no name; use a-z, 0-9 and _, and begin with a letter",
                "a b": ": 'a b' is no name; use a-z, 0-9 and _, and begin with a letter",
                "2noisy": ": '2noisy' is no name; use a-z, 0-9 and _, and begin with a letter",
                "é": ": 'é' is no name; use a-z, 0-9 and _, and begin with a letter",
                "": ": '' is no name; use a-z, 0-9 and _, and begin with a letter",
                "[key]": ": '[key]' is no name; use a-z, 0-9 and _, and begin with a letter",
                "n" * 41: ": has more than 40 characters; shorten it",
            }.items()
        ),
        *(
            (
                f"experiments.{name}",
                {"receiver": BASE, "donor": SOURCE},
                ": is another table's or page's; take another name",
            )
            for name in TAKEN
        ),
        *(
            ("experiments.patching.sites", [given], f"[0]: {given!r}: {message}")
            for given, message in {
                "vision.cross_attention": (
                    "the vision tower has no cross-attention; "
                    "write encoder.cross_attention, decoder.cross_attention"
                ),
                "vision.cross_attention_heads": (
                    "the vision tower has no cross-attention; write encoder.cross_attention_heads,"
                ),
                "mlp": "is of a tower: write encoder.mlp, decoder.mlp, vision.mlp",
                "encoder.attention_output": (
                    "is what pyvene calls the stream after self-attention, residual and norm; "
                    "write encoder.self_attention_state"
                ),
                "attention_output": (
                    "is what pyvene calls the stream after self-attention, residual and norm; "
                    "write encoder.self_attention_state"
                ),
                "decoder.mlp_output": (
                    "is what pyvene calls the stream that a block leaves; "
                    "write decoder.block_output"
                ),
                "crossattention_block": (
                    "is what NOTICE calls the context of a cross-attention head, before the "
                    "output projection; write encoder.cross_attention_heads"
                ),
                "attention_value_output": (
                    "is what pyvene calls the context of a self-attention head, before the "
                    "output projection; write encoder.self_attention_heads"
                ),
            }.items()
        ),
        # No publication's name there: the vision tower has no cross-attention either way.
        ("experiments.patching.sites", ["vision.mlp_input"], "[0]: 'vision.mlp_input' is unknown"),
        ("experiments.patching.sites", ["vison.mlp"], "[0]: 'vison.mlp' is unknown; did you mean"),
        ("experiments.patching.sites", [3], "[0]: 3 is a number, not text; known are encoder.blo"),
        ("experiments.patching.window", 0, ": 0 is less than the minimum of 1"),
        (
            "experiments.patching.window",
            7,
            ": 7 is more than the 6 layers of the encoder tower; give at most 6",
        ),
        (
            "experiments.patching.positions",
            "role",
            ": 'role' is unknown; known are each, roles, all",
        ),
        (
            "experiments.patching.heads",
            [0],
            ": none of its sites has heads; leave heads out, or give a site like "
            "encoder.self_attention_heads",
        ),
        ("experiments.patching.heads", [-1], "[0]: -1 is less than the minimum of 0"),
        ("experiments.patching.heads", [1, 1], ": 1 is given twice; keep it once"),
        ("experiments.patching.regions", -1, ": -1 is less than the minimum of 0"),
        ("experiments.Two", {}, ".receiver is missing: give the run that is intervened on"),
        (
            "experiments.two words",
            {"receiver": BASE, "donor": SOURCE},
            ": 'two words' is no name; use a-z, 0-9 and _, and begin with a letter",
        ),
        (
            "experiments.tracing.receiver",
            "nosy",
            ": 'nosy' is not a run; did you mean noisy?",
        ),
        (
            "experiments.tracing.donor",
            "zebra",
            ": 'zebra' is not a run; known are base, source, noisy",
        ),
        (
            "experiments.patching",
            {"receiver": BASE, "donor": BASE},
            ": 'base' is both receiver and donor, so that nothing would change; give another run",
        ),
        (
            "experiments.tracing",
            {"receiver": "noisy", "donor": "noisy"},
            ": 'noisy' is both receiver and donor, so that nothing would change; give another run",
        ),
    ],
)
def test_a_wrong_key_is_named_with_its_mend(path: str, value: object, message: str) -> None:
    assert config_refusal(with_key(path, value)).startswith(f"{path}{message}")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("model.name", "model.name is missing: give the checkpoint's directory, or a Hub id"),
        ("model.layers", "model.layers is missing: give the number of blocks of each tower"),
        ("model.layers.encoder", "model.layers.encoder is missing: give blocks of the question"),
        ("model", "model is missing: give the model to trace"),
        ("examples", "examples is missing: give the sheet of examples, a tab-separated file"),
        ("runs.noisy.of", "runs.noisy.of is missing: give the question that is run, base or"),
        ("runs.noisy.corrupt", "runs.noisy.corrupt is missing: give what hides its answer"),
        (
            "experiments.tracing.donor",
            "experiments.tracing.donor is missing: give the run whose states are put into it",
        ),
    ],
)
def test_a_missing_key_is_named_with_its_meaning(path: str, message: str) -> None:
    config = yaml.safe_load(SHIPPED[0].read_text())
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


def test_a_list_that_aliases_repeat_without_end_is_read_once() -> None:
    """Ten lists, each of ten times the one before: ten thousand million texts, written out."""
    bomb: Any = ["text"] * 10
    for _ in range(9):
        bomb = [bomb] * 10
    assert config_refusal(with_key("device", bomb)) == (
        "device: is a list, not text; known are auto, cpu, cuda"
    )
    assert config_refusal(with_key(LEVELS, [("pair", bomb)])) == (
        f"{LEVELS}[0]: is a tuple, not a finite number"
    )


def test_a_number_that_python_does_not_write_out_is_named() -> None:
    """YAML reads one of any length where it is hexadecimal."""
    huge: Any = 1 << 20_000
    of_thousands = "a whole number of thousands of digits is"
    for path, value, message in [
        (SEED, huge, f"{of_thousands} more than the maximum of {LARGEST}"),
        (SEED, -huge, f"{of_thousands} less than the minimum of 0"),
        ("device", huge, f"{of_thousands} a number, not text; known are auto, cpu, cuda"),
        ("report.draws_at", huge, f"{of_thousands} a number, not a finite number"),
    ]:
        assert config_refusal(with_key(path, value)) == f"{path}: {message}"
    assert config_refusal({**SMALLEST, huge: 1}).startswith(f"the key {of_thousands} a number, n")


@pytest.mark.parametrize(
    ("path", "value", "meant"),
    [
        ("experiments.tracing.sites", [f"{SITE}s"], SITE),
        ("metrics", ["logits"], "logit"),
        ("runs.noisy.corrupt.kind", "gausian", "gaussian"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_one_that_is_meant(
    path: str, value: object, meant: str
) -> None:
    message = config_refusal(with_key(path, value))
    assert meant in re.split("[ ,?]+", message.partition(" is unknown; ")[2])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (1, "the key 1 is a number, not text; put it in quotes or mend it"),
        (True, "the key true is a yes or no, not text; put it in quotes or mend it"),
        (None, "the key is empty, not text; put it in quotes or mend it"),
        (dt.date(2026, 1, 1), "the key 2026-01-01 is a date, not text; put it in quotes or mend"),
        (("a", "b"), "the key is a tuple, not text; put it in quotes or mend it"),
        ("a\0b", "the key 'a\\x00b' holds the control character U+0000, which no editor shows"),
        ("a\u2028b", "the key 'a\\u2028b' holds the control character U+2028, which no editor"),
        ("a" * 5000, f"the key '{'a' * 79}… has 5,000 characters; 4,096 are the most"),
    ],
)
def test_a_key_that_is_no_text_is_named(key: Any, message: str) -> None:
    assert config_refusal({**SMALLEST, key: 1}).startswith(message)
    for group in ("model", "runs", "experiments"):
        config = with_key(f"{group}.x", 1)
        config[group][key] = config[group].pop("x")
        assert config_refusal(config).startswith(f"{group}: {message}")


def test_the_name_that_a_library_has_for_keys_is_a_key_like_others() -> None:
    assert config_refusal({**SMALLEST, "[key]": 1}).startswith("[key] is not a known key; known")
    nested = with_key("runs.[key]", {"zebra": 1})
    assert config_refusal(nested).startswith("runs.[key].zebra is not a known key; known are of")


def test_a_misspelt_key_is_said_before_the_one_that_is_missing_for_it() -> None:
    config = {"modle": SMALLEST["model"], "examples": SMALLEST["examples"]}
    for given in (config, dict(reversed(config.items()))):
        assert config_refusal(given) == "modle is not a known key; did you mean model?"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"patching": {"sites": ["block_input"]}}, "patching: is of the first version: write "),
        ({"tracing": {"noise_levels": [1, 2]}}, "tracing: is of the first version: write "),
        ({"tracing": None}, "tracing: is of the first version: write "),
    ],
)
def test_a_group_of_the_first_version_is_answered_with_the_new_form(
    given: dict[str, Any], message: str
) -> None:
    old = {**SMALLEST, "model": {"name": "a/b", "layers": 6}, "zebra": 1, **given}
    refused = config_refusal(old)
    assert refused.startswith(message)
    assert len(refused) < 300
    shown = re.search(r"write runs: (\{.*\}) and experiments: (\{.*\}), as", refused)
    assert shown, refused
    runs, experiments = (yaml.safe_load(text) for text in shown.groups())
    runs["noisy"]["corrupt"]["levels"] = [1]
    assert fill_config({**SMALLEST, "runs": runs, "experiments": experiments})


def test_layers_of_the_first_version_are_answered_with_the_new_form() -> None:
    refused = config_refusal({**SMALLEST, "model": {"name": "a/b", "layers": 12}})
    assert refused == (
        "model.layers: is of the first version: write layers: {encoder: 12, decoder: 12, "
        "vision: …}, the blocks of each tower"
    )


def test_levels_and_draws_matter_only_where_something_is_traced() -> None:
    corrupt = {"levels": [0.5, 2]}
    runs = {"noisy": {"of": BASE, "corrupt": corrupt}}
    tracing = {"receiver": "noisy", "donor": BASE}
    given = {**SMALLEST, "runs": runs, "experiments": {"tracing": tracing}}
    assert config_refusal(given) == f"report.draws_at: 1 is not in {LEVELS}; give one of 0.5, 2"
    many = {**given, "report": {"draws_at": 2}, "controls": {"null_draws": 20}}
    assert config_refusal(many).startswith("controls.null_draws: 20 is more than the 10 of runs")
    untraced = {"tracing": {**tracing, "sites": []}}
    fill_config({**given, "experiments": untraced, "controls": {"null_draws": 20}})
    fill_config({**given, "experiments": {}, "controls": {"null_draws": 20}})


def test_every_run_that_is_used_has_the_level_and_the_draws() -> None:
    config = with_key("runs.other", {"of": SOURCE, "corrupt": {"levels": [1], "draws": 3}})
    del config["effects"]["primary_level"]
    fill_config(config)
    config["experiments"]["noising"] = {"receiver": SOURCE, "donor": "other"}
    assert config_refusal(config) == (
        "report.draws_at: 2 is not in runs.other.corrupt.levels; give one of 1"
    )
    config["report"]["draws_at"] = 2.0000000001
    assert config_refusal(config).startswith("report.draws_at: 2.0000000001 is not in runs.noisy")
    config["report"]["draws_at"] = 2
    config["runs"]["other"]["corrupt"]["levels"] = [1, 2]
    fill_config(config)
    config["effects"]["primary_level"] = 3
    assert config_refusal(config) == (
        "effects.primary_level: 3 is not in runs.noisy.corrupt.levels; "
        "give one of 0.1, 0.5, 1, 2, 5, 10, 20"
    )
    config["effects"]["primary_level"] = 5
    assert config_refusal(config) == (
        "effects.primary_level: 5 is not in runs.other.corrupt.levels; give one of 1, 2"
    )
    config["effects"]["primary_level"] = 1
    fill_config(config)
    config["controls"]["null_draws"] = 4
    assert config_refusal(config) == (
        "controls.null_draws: 4 is more than the 3 of runs.other.corrupt.draws, which the null "
        "shares; give at most 3"
    )


CORRUPT = "runs.noisy.corrupt"


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (
            {"role": "differing wrod"},
            ".role: 'differing wrod' is not a role; did you mean differing word?",
        ),
        ({"unit": "sd"}, ".unit: 'sd' is unknown; known are absolute, std"),
        (
            {"at": "picture.states", "unit": "std"},
            ".unit: std is of Gaussian noise on a question, not of gaussian at picture.states; "
            "leave it out",
        ),
        (
            {"kind": "multiplicative", "unit": "std"},
            ".unit: std is of Gaussian noise on a question, not of multiplicative at "
            "question.embeddings; leave it out",
        ),
        ({"kind": "scale", "draws": 10}, ".draws: scale draws nothing; leave it out"),
        (
            {"also": {}},
            ".also.level is missing: give how much, at all levels of the question's corruption",
        ),
        (
            {"also": {"level": 5, "seed": 0}},
            ".also.seed: 0 is the question's too, so that both "
            "would have the same noise; give another",
        ),
        (
            {"also": {"level": 5, "at": "question.embeddings"}},
            ".also.at: question.embeddings is "
            "the question's, as question.embeddings is; give a place of the picture",
        ),
        (
            {"at": "picture.pixels", "also": {"level": 5}},
            ".also: picture.pixels is the picture's, "
            "which also is for; corrupt the question, or leave it out",
        ),
        (
            {"also": {"level": 1e300}},
            ".also.level: 1e+300 is beyond what float32 computes with; give 0, or 1e-30 to 1e+18",
        ),
        ({"kind": "scale", "fresh": True}, ".fresh: scale draws nothing; leave it out"),
        ({"fresh": "yes"}, ".fresh: 'yes' is text, not true or false"),
    ],
)
def test_a_corruption_that_cannot_be_is_one_line(corrupt: dict[str, Any], message: str) -> None:
    runs = {"noisy": {"of": BASE, "corrupt": corrupt}}
    refused = config_refusal({**SMALLEST, "runs": runs})
    assert refused == f"{CORRUPT}{message}"


def test_what_draws_nothing_has_one_draw() -> None:
    def draws(**corrupt: Any) -> int:
        runs = {"noisy": {"of": BASE, "corrupt": corrupt}}
        filled = fill_config({**SMALLEST, "runs": runs})
        assert fill_config(filled) == filled
        return filled["runs"]["noisy"]["corrupt"]["draws"]

    assert draws(kind="scale", levels=[0.77], at="picture.states") == 1
    assert draws(kind="scale", levels=[0.77], draws=1) == 1
    assert draws(kind="multiplicative", levels=[5]) == 10
    assert draws(kind="scale", also={"kind": "scale", "level": 2, "seed": 0}) == 1
    assert draws(kind="scale", also={"level": 2}) == 10


def test_a_window_is_at_most_its_smallest_tower() -> None:
    """The default's towers have 6, 6 and 3 layers."""
    three = {"receiver": BASE, "donor": SOURCE, "window": 3}
    fill_config(with_key("experiments.seen", {**three, "sites": ["vision.mlp", "encoder.mlp"]}))
    four = {**three, "window": 4, "sites": ["encoder.mlp", "vision.mlp"]}
    assert config_refusal(with_key("experiments.seen", four)) == (
        "experiments.seen.window: 4 is more than the 3 layers of the vision tower; give at most 3"
    )
    fill_config(with_key("experiments.seen", {**four, "sites": ["encoder.mlp", "decoder.mlp"]}))


def test_every_site_and_every_heads_number_can_be_asked() -> None:
    both = {"receiver": BASE, "donor": SOURCE, "sites": list(SITES), "heads": [0, 3]}
    assert fill_config(with_key("experiments.all_of_them", both))
    noisy = {"receiver": "noisy", "donor": SOURCE, "sites": ["vision.block_output"]}
    assert fill_config(with_key("experiments.swapped", noisy))


def test_only_one_end_of_an_experiment_is_corrupted() -> None:
    config = with_key("runs.other", {"of": SOURCE, "corrupt": {"levels": [2]}})
    config["experiments"]["both"] = {"receiver": "noisy", "donor": "other"}
    assert config_refusal(config) == (
        "experiments.both: both receiver and donor are corrupted; let one of them be base or source"
    )


@pytest.mark.parametrize("metric", ["probability", "logit"])
def test_metrics_are_free_where_nothing_is_measured(metric: str) -> None:
    config = with_key("metrics", [metric])
    for experiment in config["experiments"].values():
        experiment["sites"] = []
    assert fill_config(config)["metrics"] == [metric]


@pytest.mark.parametrize(
    ("effects", "metrics", "message"),
    [
        (
            {"metric": "rank", "least_effect": 3},
            ["probability", "logit"],
            "effects.metric: rank is not in metrics, by which runs are scored; add it there",
        ),
        (
            {"metric": "kl"},
            ["probability", "logit", "kl"],
            "effects.least_effect: the default is of probability, and kl is tested; give one in "
            "its units",
        ),
        (
            {"least_effect": 2},
            ["probability", "logit"],
            "effects.least_effect: 2 is more than probability can change by; give at most 1",
        ),
    ],
)
def test_a_metric_that_cannot_be_tested_is_one_line(
    effects: dict[str, Any], metrics: list[str], message: str
) -> None:
    config = with_key("metrics", metrics)
    config["effects"] = effects
    assert config_refusal(config) == message


def test_analyses_are_of_the_change_in_probability() -> None:
    config = with_key("metrics", ["probability", "logit", "rank"])
    config["experiments"]["noising"] = {"receiver": BASE, "donor": "noisy"}
    config["analyses"] = {
        "directions": {"pairs": [{"sufficient": "tracing", "necessary": "noising"}]}
    }
    fill_config(config)
    config["effects"] = {"metric": "rank", "least_effect": 3}
    assert config_refusal(config) == (
        "effects.metric: the analysis directions compares changes in probability; leave out "
        "effects.metric or analyses.directions"
    )


@pytest.mark.parametrize("metric", METRICS)
def test_any_metric_that_is_asked_can_be_tested(metric: str) -> None:
    config = with_key("metrics", list(METRICS))
    config["effects"] = {"metric": metric, "least_effect": 0.5}
    assert fill_config(config)["effects"]["metric"] == metric


@pytest.mark.parametrize("receiver", [*QUESTIONS, "noisy"])
@pytest.mark.parametrize("donor", [*QUESTIONS, "noisy"])
def test_any_two_runs_make_an_experiment(receiver: str, donor: str) -> None:
    config = with_key("experiments.new", {"receiver": receiver, "donor": donor})
    if receiver == donor:
        assert config_refusal(config).startswith("experiments.new: ")
    else:
        fill_config(config)


def test_levels_that_have_labels_of_their_own_are_kept() -> None:
    levels = [0, 1e-30, 0.123456789, 1, 1.00001, 123456, 1e18]
    config = with_key(LEVELS, levels)
    config["report"]["draws_at"] = 0.123456789
    config["effects"]["primary_level"] = 123456
    assert fill_config(config)["runs"]["noisy"]["corrupt"]["levels"] == levels
    assert f"%.{TABLE_DIGITS}g" == FLOAT_FORMAT
    assert [float(FLOAT_FORMAT % level) for level in levels] == levels


@pytest.mark.parametrize("number", ["1e38", "1e-300", "1e-1", "1e5", "1e20", "1.5e3"])
def test_a_number_is_suggested_as_yaml_reads_it(number: str) -> None:
    message = config_refusal(with_key(LEVELS, [1.0, number]))
    (written,) = re.findall("write (.*) without quotes", message)
    assert yaml.safe_load(written) == float(number)


def keys(
    schema: dict[str, Any], whole: dict[str, Any], at: str = ""
) -> dict[str, tuple[dict[str, Any], bool]]:
    """Every key of a schema by its dotted name, and whether it must be given."""
    found: dict[str, tuple[dict[str, Any], bool]] = {}
    for name, key in schema.get("properties", {}).items():
        found[f"{at}{name}"] = key, name in schema.get("required", [])
        inner, below = key, f"{at}{name}."
        if "items" in inner:
            inner = inner["items"]
        for named in inner.get("patternProperties", {}).values():
            inner, below = named, f"{below}<name>."
        if "$ref" in inner:
            inner = whole["$defs"][inner["$ref"].removeprefix("#/$defs/")]
        found |= keys(inner, whole, below)
    return found


@pytest.mark.parametrize("schema", [CONFIG_SCHEMA, SHEET_SCHEMA], ids=["config", "sheet"])
def test_every_key_is_described_and_every_optional_one_has_a_right_default(
    schema: dict[str, Any],
) -> None:
    Draft202012Validator.check_schema(schema)
    found = keys(schema, schema)
    for name, (key, required) in found.items():
        assert key["description"], name
        assert ("default" in key) != required, name
        if "default" in key:
            resolved = {**key, "$defs": schema.get("$defs", {})}
            Draft202012Validator(resolved).validate(key["default"])
    if schema is CONFIG_SCHEMA:
        assert {"runs.<name>.corrupt.levels", "model.layers.vision", "effects.roles.token"} < set(
            found
        )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_the_schema_takes_the_shipped_configurations(path: Path) -> None:
    Draft202012Validator(CONFIG_SCHEMA).validate(yaml.safe_load(path.read_text()))


def factorial() -> dict[str, Any]:
    """Three experiments that corrupt the question, its picture, and both."""
    noisy = {"levels": [1, 5], "draws": 4}
    unseen = {"kind": "multiplicative", "at": "picture.states", "levels": [2, 3, 9], "draws": 4}
    also = {"kind": "multiplicative", "at": "picture.states", "level": 3, "seed": 1}
    corrupt = {"noisy": noisy, "unseen": {**unseen, "seed": 1}, "lost": {**noisy, "also": also}}
    return {
        **copy.deepcopy(SMALLEST),
        "runs": {name: {"of": BASE, "corrupt": each} for name, each in corrupt.items()},
        "experiments": {name: {"receiver": name, "donor": BASE} for name in corrupt},
        "analyses": {"fusion": {"question": "noisy", "picture": "unseen", "both": "lost"}},
        "report": {"draws_at": 5},
    }


NO_FACTORIAL = (
    "analyses.fusion.both: the run of lost is not that of noisy with the picture corrupted as in "
    "unseen; give it the former's keys, and in also the latter's kind, at and seed, and its "
    "primary level, all in the same draws"
)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("analyses.fusion.both", "lots", "analyses.fusion.both: 'lots' is not an experiment with a "
         "site; did you mean lost?"),
        ("analyses.fusion.question", "unseen", NO_FACTORIAL.replace("noisy", "unseen")),
        ("analyses.fusion.both", "noisy", NO_FACTORIAL.replace("lost", "noisy")),
        ("experiments.noisy", {"receiver": BASE, "donor": "noisy"}, "analyses.fusion.question: "
         "noisy does not restore a corrupted run by its own clean one; exchange its receiver or "
         "donor"),
        ("experiments.unseen.donor", SOURCE, "analyses.fusion.picture: unseen does not restore a "
         "corrupted run by its own clean one; exchange its receiver or donor"),
        ("runs.lost.corrupt.also.level", 9, NO_FACTORIAL),
        ("runs.lost.corrupt.also.seed", 2, NO_FACTORIAL),
        ("runs.lost.corrupt.levels", [5], NO_FACTORIAL),
        ("runs.unseen.corrupt.draws", 2, NO_FACTORIAL),
        ("experiments.lost.positions", "roles", "analyses.fusion.both: lost has another positions "
         "than noisy; give the same"),
        ("experiments.unseen.sites", ["encoder.mlp"], "analyses.fusion: its experiments have no "
         "site in common; give them one"),
    ],
)  # fmt: skip
def test_what_is_no_factorial_of_question_and_picture_is_one_line(
    path: str, value: object, message: str
) -> None:
    config = factorial()
    config["report"] = {"draws_at": 5}
    *groups, key = path.split(".")
    group = config
    for name in groups:
        group = group[name]
    group[key] = value
    assert config_refusal(config) == message


def test_a_factorial_of_question_and_picture_can_be_asked() -> None:
    """At the middle level of the picture's, or at the primary one."""
    config = factorial()
    Config.model_validate(config)
    for run in ("noisy", "lost"):
        config["runs"][run]["corrupt"]["levels"] = [1, 9]
    config["runs"]["lost"]["corrupt"]["also"]["level"] = 9
    assert fill_config({**config, "effects": {"primary_level": 9}, "report": {"draws_at": 9}})
