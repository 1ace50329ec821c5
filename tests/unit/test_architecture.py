"""The tensors that follow from a config.json are those that transformers makes of it."""

import copy
import json
from typing import Any

import pytest
from project import ROOT

from blip_tracing.errors import InputError
from blip_tracing.given.architecture import TIED, Architecture, expected_tensors

MINIATURE: dict[str, Any] = json.loads(
    (ROOT / "resources/miniature/checkpoint/config.json").read_text()
)
BARE = {"model_type": "blip", "architectures": ["BlipForQuestionAnswering"]}
ODD = [
    MINIATURE,
    {
        **BARE,
        "text_config": {
            "num_hidden_layers": 1,
            "hidden_size": 12,
            "intermediate_size": 20,
            "num_attention_heads": 3,
            "vocab_size": 7,
            "max_position_embeddings": 5,
            "bos_token_id": 6,
        },
        "vision_config": {
            "num_hidden_layers": 3,
            "hidden_size": 12,
            "intermediate_size": 9,
            "num_attention_heads": 2,
            "image_size": 35,
            "patch_size": 16,
        },
    },
    # BLIP-base's own sizes: all that a config.json leaves out.
    BARE,
    {**BARE, "text_config": None, "vision_config": {"num_hidden_layers": 2}},
    {**BARE, "tie_word_embeddings": False, "text_config": {"tie_word_embeddings": False}},
    {**BARE, "tie_word_embeddings": False},
]


@pytest.mark.parametrize("config", ODD)
def test_the_tensors_are_those_of_the_library(config: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        built = transformers.BlipForQuestionAnswering(
            transformers.BlipConfig.from_dict(copy.deepcopy(config))
        )
    architecture = Architecture.from_config(config, "config.json")
    shapes = {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
    assert expected_tensors(architecture) == shapes
    assert built.all_tied_weights_keys == (TIED if architecture.tied else {})
    assert architecture.start == built.decoder_start_token_id


def with_number(part: str, key: str, value: object) -> dict[str, Any]:
    config = copy.deepcopy(MINIATURE)
    config[part][key] = value
    return config


def refusal(config: dict[str, Any]) -> str:
    with pytest.raises(InputError) as refused:
        Architecture.from_config(config, "config.json")
    message = str(refused.value)
    assert message.startswith("config.json: ")
    assert "\n" not in message
    return message.removeprefix("config.json: ")


SIZES = ["num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads"]
READ = [
    *(("text_config", key) for key in [*SIZES, "vocab_size", "max_position_embeddings"]),
    *(("text_config", key) for key in ["bos_token_id", "pad_token_id"]),
    *(("vision_config", key) for key in [*SIZES, "image_size", "patch_size"]),
]


@pytest.mark.parametrize(("part", "key"), READ)
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("six", "'six'"),
        ("6", "'6'"),
        (True, "true"),
        (-1, "-1"),
        (10**30, str(10**30)),
        (float("nan"), "nan"),
        (6.0, "6.0"),
        ([6], "[6]"),
        ("x\n" * 99, "'x\\nx\\n"),
    ],
)
def test_what_is_no_number_of_its_kind_is_named(
    part: str, key: str, value: object, shown: str
) -> None:
    message = refusal(with_number(part, key, value))
    assert message.startswith(f"{part}.{key} is {shown}")
    assert "not a whole number from " in message


@pytest.mark.parametrize(("part", "key"), [place for place in READ if place[1][-2:] != "id"])
@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (None, "null")])
def test_a_size_is_one_or_more(part: str, key: str, value: object, shown: str) -> None:
    assert refusal(with_number(part, key, value)).startswith(f"{part}.{key} is {shown}, not a")


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("text_config", "num_attention_heads", 5, "text_config.hidden_size is 64, which num_"),
        ("vision_config", "num_attention_heads", 5, "vision_config.hidden_size is 64, which num_"),
        ("vision_config", "hidden_size", 32, "text_config.hidden_size is 64, vision_config."),
        ("vision_config", "patch_size", 49, "vision_config.patch_size is 49, more than its image"),
        ("text_config", "bos_token_id", 33, "text_config.bos_token_id is 33, not a whole number"),
        ("text_config", "bos_token_id", None, "text_config.bos_token_id is null, not a whole "),
    ],
)
def test_numbers_that_do_not_go_together_are_named(
    part: str, key: str, value: object, message: str
) -> None:
    assert refusal(with_number(part, key, value)).startswith(message)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("architectures", None, "names no architectures; give a checkpoint of BlipForQuestionAns"),
        ("architectures", [], "names no architectures"),
        ("architectures", "BlipModel", "is a blip model (BlipModel)"),
        ("architectures", [1], "is a blip model (1)"),
        ("model_type", "bert", "is a bert model (BlipForQuestionAnswering)"),
        ("text_config", [1], "text_config is not a JSON object"),
        ("vision_config", "large", "vision_config is not a JSON object"),
        ("transformers_weights", "other.safetensors", "transformers_weights points to other"),
    ],
)
def test_another_model_is_named(key: str, value: object, message: str) -> None:
    assert refusal({**MINIATURE, key: value}).startswith(message)


def test_a_model_without_padding_is_one() -> None:
    assert Architecture.from_config(with_number("text_config", "pad_token_id", None), "config.json")
