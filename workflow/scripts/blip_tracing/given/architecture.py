"""BLIP for question answering as a checkpoint's config.json describes it, without its library.

The numbers are checked here, and the tensors that follow from them are listed: a checkpoint that
lacks some would otherwise be run with random ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

from blip_tracing.errors import InputError
from blip_tracing.vocabulary.sites import VISION

NAME = "BlipForQuestionAnswering"
# What BLIP takes where config.json leaves a number out.
TEXT_DEFAULTS = {
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 8,
    "vocab_size": 30524,
    "max_position_embeddings": 512,
}
VISION_DEFAULTS = {
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "image_size": 384,
    "patch_size": 16,
}
DEFAULT_START, DEFAULT_PADDING = 30522, 0
# Far more than any model has, and few enough to be listed in a moment.
MOST_LAYERS, MOST = 1000, 1_000_000
COLOR_CHANNELS = 3
# Which tensors are one, unless config.json unties them: a file may hold either name, or both.
TIED = {
    "text_decoder.cls.predictions.decoder.weight": (
        "text_decoder.bert.embeddings.word_embeddings.weight"
    ),
    "text_decoder.cls.predictions.decoder.bias": "text_decoder.cls.predictions.bias",
}

Shape = tuple[int, ...]
Tensors = Iterable[tuple[str, Shape]]


@dataclass(frozen=True)
class Stack:
    """The sizes of a transformer: layers, width of its states and of its feed-forward, heads."""

    layers: int
    width: int
    inner_width: int
    heads: int


@dataclass(frozen=True)
class Architecture:
    """What config.json says about a BLIP for question answering, as far as it is used here.

    vocabulary: words that can be answered; positions: tokens that can be read; image_size and
    patch_size: in pixels; start: the id of [DEC], with which every answer begins; tied: whether
    the tensors of TIED are one.
    """

    text: Stack
    vision: Stack
    vocabulary: int
    positions: int
    image_size: int
    patch_size: int
    start: int
    tied: bool

    def tower(self, name: str) -> Stack:
        """The sizes of a tower: question encoder and answer decoder have the same."""
        return self.vision if name == VISION else self.text

    @property
    def side(self) -> int:
        """How many patches a picture has across and down."""
        return self.image_size // self.patch_size

    @classmethod
    def from_config(cls, config: dict[str, Any], source: str) -> Architecture:
        """Read the content of a config.json; source: its path.

        Raises InputError when it describes another model, or a number cannot be.
        """
        _check_model(config, source)
        text = _numbers(config, "text_config", TEXT_DEFAULTS, source)
        vision = _numbers(config, "vision_config", VISION_DEFAULTS, source)
        if text["hidden_size"] != vision["hidden_size"]:
            raise InputError(
                f"{source}: text_config.hidden_size is {text['hidden_size']}, "
                f"vision_config.hidden_size {vision['hidden_size']}, but {NAME} reads the "
                "question's states as it reads the picture's; give a checkpoint with equal ones"
            )
        if vision["patch_size"] > vision["image_size"]:
            raise InputError(
                f"{source}: vision_config.patch_size is {vision['patch_size']}, more than its "
                f"image_size of {vision['image_size']}; fetch it again"
            )
        tokens = config.get("text_config") or {}
        last = text["vocab_size"] - 1
        start = tokens.get("bos_token_id", DEFAULT_START)
        padding = tokens.get("pad_token_id", DEFAULT_PADDING)
        _check_number(start, 0, last, f"{source}: text_config.bos_token_id")
        if padding is not None:
            _check_number(padding, 0, last, f"{source}: text_config.pad_token_id")
        return cls(
            text=_stack(text),
            vision=_stack(vision),
            vocabulary=text["vocab_size"],
            positions=text["max_position_embeddings"],
            image_size=vision["image_size"],
            patch_size=vision["patch_size"],
            start=start,
            tied=any(
                bool(part.get("tie_word_embeddings", True))
                for part in (config, config.get("text_config") or {})
            ),
        )


def _check_model(config: dict[str, Any], source: str) -> None:
    named = config.get("architectures")
    if not named:
        # Another BLIP would load too, were it not for this name.
        raise InputError(
            f"{source}: names no architectures; give a checkpoint of {NAME}, or add "
            f'"architectures": ["{NAME}"] where it is one'
        )
    names = [str(name) for name in named] if isinstance(named, list) else [str(named)]
    if config.get("model_type") != "blip" or NAME not in names:
        raise InputError(
            f"{source}: is a {config.get('model_type')} model ({', '.join(names)}); "
            f"give a checkpoint of {NAME}"
        )
    if "transformers_weights" in config:
        raise InputError(
            f"{source}: transformers_weights points to other weights; "
            "give a checkpoint whose weights bear their usual names"
        )


def _numbers(
    config: dict[str, Any], part: str, defaults: dict[str, int], source: str
) -> dict[str, int]:
    given = config.get(part) or {}
    if not isinstance(given, dict):
        raise InputError(f"{source}: {part} is not a JSON object; fetch it again")
    numbers = {key: given.get(key, default) for key, default in defaults.items()}
    for key, number in numbers.items():
        most = MOST_LAYERS if key == "num_hidden_layers" else MOST
        _check_number(number, 1, most, f"{source}: {part}.{key}")
    width, heads = numbers["hidden_size"], numbers["num_attention_heads"]
    if width % heads:
        raise InputError(
            f"{source}: {part}.hidden_size is {width}, which num_attention_heads ({heads}) does "
            "not divide; fetch it again"
        )
    return numbers


def _check_number(number: object, least: int, most: int, name: str) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        raise InputError(
            f"{name} is {_shown(number)}, not a whole number from {least:,} to {most:,}; "
            "fetch the file again"
        )


def _shown(value: object) -> str:
    """A JSON value as it is written, shortened."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else ascii(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _stack(numbers: dict[str, int]) -> Stack:
    return Stack(
        numbers["num_hidden_layers"],
        numbers["hidden_size"],
        numbers["intermediate_size"],
        numbers["num_attention_heads"],
    )


# --- its tensors


def expected_tensors(model: Architecture) -> dict[str, Shape]:
    """Every tensor of the model, tied ones under both names, and its shape."""
    return dict(chain(_vision(model), _bert("text_encoder", model), _decoder(model)))


def _vision(model: Architecture) -> Tensors:
    width, patch = model.vision.width, model.patch_size
    patches = (model.image_size // patch) ** 2
    yield "vision_model.embeddings.class_embedding", (1, 1, width)
    yield "vision_model.embeddings.position_embedding", (1, 1 + patches, width)
    yield "vision_model.embeddings.patch_embedding.weight", (width, COLOR_CHANNELS, patch, patch)
    yield "vision_model.embeddings.patch_embedding.bias", (width,)
    for index in range(model.vision.layers):
        layer = f"vision_model.encoder.layers.{index}"
        yield from _linear(f"{layer}.self_attn.qkv", 3 * width, width)
        yield from _linear(f"{layer}.self_attn.projection", width, width)
        yield from _norm(f"{layer}.layer_norm1", width)
        yield from _linear(f"{layer}.mlp.fc1", model.vision.inner_width, width)
        yield from _linear(f"{layer}.mlp.fc2", width, model.vision.inner_width)
        yield from _norm(f"{layer}.layer_norm2", width)
    yield from _norm("vision_model.post_layernorm", width)


def _decoder(model: Architecture) -> Tensors:
    width, head = model.text.width, "text_decoder.cls.predictions"
    yield from _bert("text_decoder.bert", model)
    yield f"{head}.bias", (model.vocabulary,)
    yield from _linear(f"{head}.transform.dense", width, width)
    yield from _norm(f"{head}.transform.LayerNorm", width)
    yield from _linear(f"{head}.decoder", model.vocabulary, width)


def _bert(name: str, model: Architecture) -> Tensors:
    width = model.text.width
    yield f"{name}.embeddings.word_embeddings.weight", (model.vocabulary, width)
    yield f"{name}.embeddings.position_embeddings.weight", (model.positions, width)
    yield from _norm(f"{name}.embeddings.LayerNorm", width)
    for index in range(model.text.layers):
        layer = f"{name}.encoder.layer.{index}"
        yield from _attention(f"{layer}.attention", width, width)
        yield from _attention(f"{layer}.crossattention", width, model.vision.width)
        yield from _linear(f"{layer}.intermediate.dense", model.text.inner_width, width)
        yield from _linear(f"{layer}.output.dense", width, model.text.inner_width)
        yield from _norm(f"{layer}.output.LayerNorm", width)


def _attention(name: str, width: int, attended_width: int) -> Tensors:
    yield from _linear(f"{name}.self.query", width, width)
    yield from _linear(f"{name}.self.key", width, attended_width)
    yield from _linear(f"{name}.self.value", width, attended_width)
    yield from _linear(f"{name}.output.dense", width, width)
    yield from _norm(f"{name}.output.LayerNorm", width)


def _linear(name: str, out: int, into: int) -> Tensors:
    yield f"{name}.weight", (out, into)
    yield f"{name}.bias", (out,)


def _norm(name: str, width: int) -> Tensors:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)
