"""Checkpoints written by hand, without torch: tiny, whole, and all zeros."""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from blip_tracing.given.architecture import TIED, Architecture, Shape, expected_tensors

BYTES_OF = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I8": 1, "F8_E4M3": 1}
WORDS = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "red", "[DEC]", "[ENC]"]
STACK = {"hidden_size": 4, "intermediate_size": 6, "num_attention_heads": 2}
CONFIG: dict[str, Any] = {
    "model_type": "blip",
    "architectures": ["BlipForQuestionAnswering"],
    "text_config": {
        **STACK,
        "num_hidden_layers": 7,
        "max_position_embeddings": 40,
        "vocab_size": len(WORDS),
        "bos_token_id": WORDS.index("[DEC]"),
    },
    "vision_config": {**STACK, "num_hidden_layers": 2, "image_size": 8, "patch_size": 4},
}


def saved_tensors(config: dict[str, Any] = CONFIG) -> dict[str, Shape]:
    """The tensors that `save_pretrained` writes: of tied ones, the first alone."""
    tensors = expected_tensors(Architecture.from_config(config, "config.json"))
    return {name: shape for name, shape in tensors.items() if name not in TIED}


def write_safetensors(path: Path, tensors: Mapping[str, Shape], dtype: str = "F32") -> None:
    """Write zeros of the given shapes."""
    header, end = {}, 0
    for name, shape in tensors.items():
        begin, end = end, end + prod(shape) * BYTES_OF[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))


def write_checkpoint(folder: Path, config: dict[str, Any] = CONFIG) -> Path:
    """A whole checkpoint: configuration, weights, tokenizer and picture processor."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors", saved_tensors(config))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "preprocessor_config.json").write_text('{"size": {"height": 8, "width": 8}}')
    (folder / "README.md").write_text("about the model")
    return folder
