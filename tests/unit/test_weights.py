"""What a file of weights holds is known without loading it, and must be the whole model."""

import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from project import ROOT
from stored import CONFIG, saved_tensors, write_safetensors

from blip_tracing.errors import InputError
from blip_tracing.given.architecture import TIED, Architecture, expected_tensors
from blip_tracing.given.weights import Stored, check_tensors, list_tensors

MINIATURE = ROOT / "resources/miniature/checkpoint"
MODEL = Architecture.from_config(CONFIG, "config.json")
QUERY = "text_encoder.encoder.layer.3.attention.self.query.weight"
MEND = "; save the whole model with BlipForQuestionAnswering.save_pretrained"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def refusal(path: Path, model: Architecture = MODEL) -> str:
    with pytest.raises(InputError) as refused:
        check_tensors([path], model)
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


# --- all tensors and no others


def test_a_whole_model_passes(path: Path) -> None:
    write_safetensors(path, saved_tensors())
    check_tensors([path], MODEL)


@pytest.mark.parametrize("pair", TIED.items())
def test_of_tied_tensors_either_is_enough_and_both_may_be_there(
    path: Path, pair: tuple[str, str]
) -> None:
    everything = expected_tensors(MODEL)
    for left_out in (pair[:1], pair[1:], ()):
        write_safetensors(path, {name: s for name, s in everything.items() if name not in left_out})
        check_tensors([path], MODEL)
    write_safetensors(path, {name: s for name, s in everything.items() if name not in pair})
    assert (
        refusal(path)
        == f"lacks 2 tensors of BlipForQuestionAnswering, the first {min(pair)}" + MEND
    )


def test_of_tensors_that_the_configuration_unties_both_must_be_there(path: Path) -> None:
    config = {**CONFIG, "tie_word_embeddings": False}
    config["text_config"] = {**CONFIG["text_config"], "tie_word_embeddings": False}
    write_safetensors(path, saved_tensors())
    assert refusal(path, Architecture.from_config(config, "config.json")) == (
        "lacks 2 tensors of BlipForQuestionAnswering, the first "
        "text_decoder.cls.predictions.decoder.bias" + MEND
    )


def test_buffers_and_names_of_older_checkpoints_pass(path: Path) -> None:
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): shape
        for name, shape in saved_tensors().items()
    }
    assert tensors.keys() != saved_tensors().keys()
    tensors["text_encoder.embeddings.position_ids"] = (1, 512)
    tensors["text_decoder.bert.embeddings.position_ids"] = (1, 512)
    write_safetensors(path, tensors)
    check_tensors([path], MODEL)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (
            lambda name: name != QUERY,
            f"lacks 1 tensor of BlipForQuestionAnswering, the first {QUERY}",
        ),
        (
            lambda name: "text_decoder" not in name,
            f"lacks {len([n for n in expected_tensors(MODEL) if 'text_decoder' in n])} tensors of "
            "BlipForQuestionAnswering, the first text_decoder.bert.embeddings.LayerNorm.bias",
        ),
        (lambda name: False, f"lacks {len(expected_tensors(MODEL))} tensors of "),
    ],
)
def test_missing_tensors_are_counted_and_the_first_is_named(
    path: Path, kept: Any, message: str
) -> None:
    write_safetensors(path, {name: s for name, s in saved_tensors().items() if kept(name)})
    assert refusal(path).startswith(message)


def test_layers_that_only_the_configuration_has_are_missing(path: Path) -> None:
    config = {**CONFIG, "vision_config": {**CONFIG["vision_config"], "num_hidden_layers": 99}}
    write_safetensors(path, saved_tensors())
    message = refusal(path, Architecture.from_config(config, "config.json"))
    assert message.startswith(
        f"lacks {97 * 12:,} tensors of BlipForQuestionAnswering, "
        "the first vision_model.encoder.layers.10.layer_norm1.bias"
    )


def test_a_tensor_that_the_model_has_no_place_for_is_named(path: Path) -> None:
    write_safetensors(path, {**saved_tensors(), "itm_head.weight": (2, 4)})
    assert refusal(path) == (
        "holds 1 tensor that BlipForQuestionAnswering has no place for, the first itm_head.weight"
        + MEND
    )


def test_names_with_a_prefix_are_both_missing_and_unexpected(path: Path) -> None:
    write_safetensors(path, {f"x.{name}": shape for name, shape in saved_tensors().items()})
    every, saved = len(expected_tensors(MODEL)), len(saved_tensors())
    assert refusal(path).startswith(
        f"lacks {every} tensors of BlipForQuestionAnswering, the first "
        f"text_decoder.bert.embeddings.LayerNorm.bias; holds {saved} tensors that "
        "BlipForQuestionAnswering has no place for, the first x.text_decoder."
    )


def test_a_tensor_of_another_shape_is_named_with_both(path: Path) -> None:
    write_safetensors(
        path, {**saved_tensors(), QUERY: (4, 5), "text_decoder.cls.predictions.bias": ()}
    )
    assert refusal(path) == (
        "holds 2 tensors of another shape than config.json gives, the first "
        "text_decoder.cls.predictions.bias (one number, not 7)" + MEND
    )


@pytest.mark.parametrize("dtype", ["I8", "F8_E4M3"])
def test_quantized_weights_are_refused(path: Path, dtype: str) -> None:
    write_safetensors(path, saved_tensors(), dtype)
    assert (
        f"number format than F64, F32, F16, BF16, the first {min(saved_tensors())} ({dtype})"
        in (refusal(path))
    )


@pytest.mark.parametrize("dtype", ["F64", "F16", "BF16"])
def test_weights_in_another_floating_point_format_pass(path: Path, dtype: str) -> None:
    write_safetensors(path, saved_tensors(), dtype)
    check_tensors([path], MODEL)


def test_shards_are_checked_as_one(tmp_path: Path) -> None:
    tensors = list(saved_tensors().items())
    shards = [tmp_path / "model-1.safetensors", tmp_path / "model-2.safetensors"]
    write_safetensors(shards[0], dict(tensors[:50]))
    write_safetensors(shards[1], dict(tensors[50:]))
    check_tensors(shards, MODEL)
    write_safetensors(shards[1], dict(tensors[51:]))
    with pytest.raises(InputError) as refused:
        check_tensors(shards, MODEL)
    assert str(refused.value).startswith(
        f"{tmp_path} (2 files): lacks 1 tensor of BlipForQuestionAnswering, the first "
        + tensors[50][0]
    )


# --- safetensors


def header(text: bytes, body: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + body


def entry(**changes: object) -> bytes:
    fields: dict[str, object] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}
    return header(json.dumps({"a": fields}).encode(), bytes(4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; copy it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "is a git-lfs pointer and not the weights; fetch them with `git lfs pull`",
        ),
        (b"{}", "is cut short or no safetensors file; copy it again"),
        (b"\x80\x02}q\x00." * 9, "is cut short or no safetensors file"),
        (header(b"{}" + b" " * 9)[:-4], "is cut short or no safetensors file"),
        (header(b"\xff\xff"), "is no safetensors file"),
        (header(b"[1]"), "is no safetensors file"),
        (header(b'{"a": 1}'), "is no safetensors file"),
        (header(b"[" * 100_000), "is no safetensors file"),
        (entry(shape="x"), "is no safetensors file"),
        (entry(data_offsets=[0]), "is no safetensors file"),
        (entry(shape=[2]), "is no safetensors file"),
        (entry()[:-1], "is cut short ("),
        (entry() + b"x", "is longer than it should be ("),
    ],
)
def test_what_is_no_whole_safetensors_file_is_named(
    path: Path, content: bytes, message: str
) -> None:
    path.write_bytes(content)
    assert refusal(path).startswith(message)


def test_a_file_that_is_cut_short_says_how_much_is_there(path: Path) -> None:
    content = (MINIATURE / "model.safetensors").read_bytes()
    path.write_bytes(content[:1_000_000])
    assert refusal(path) == (
        f"is cut short (1,000,000 bytes, {len(content):,} by its header); copy it again"
    )


def test_the_list_is_the_librarys(path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(MINIATURE / "model.safetensors", "np") as file:
        names = list(file.keys())
        slices = {name: file.get_slice(name) for name in names}
        listed = {n: Stored(tuple(s.get_shape()), s.get_dtype()) for n, s in slices.items()}
    assert list_tensors(MINIATURE / "model.safetensors") == listed


# --- PyTorch's files


@pytest.fixture
def torch_path(tmp_path: Path) -> Path:
    return tmp_path / "pytorch_model.bin"


def test_a_pytorch_file_is_listed_as_it_was_saved(torch_path: Path) -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2).half()
    state = OrderedDict(layer.state_dict())
    state["parameter"] = torch.nn.Parameter(torch.zeros(5, dtype=torch.bfloat16))
    state["cut from a larger one"] = torch.zeros(9, 9, dtype=torch.float64)[2:4, ::3]
    state["position_ids"] = torch.arange(4)[None]
    torch.save(state, torch_path)
    assert list_tensors(torch_path) == {
        "weight": Stored((2, 3), "F16"),
        "bias": Stored((2,), "F16"),
        "parameter": Stored((5,), "BF16"),
        "cut from a larger one": Stored((2, 3), "F64"),
        "position_ids": Stored((1, 4), "I64"),
    }
    whole = torch_path.read_bytes()
    torch_path.write_bytes(whole[: len(whole) // 2])
    assert refusal(torch_path).startswith("is cut short, or not what torch.save writes since its ")


def test_a_model_saved_by_pytorch_passes_and_what_it_lacks_is_named(torch_path: Path) -> None:
    torch = pytest.importorskip("torch")
    state = {name: torch.zeros(shape) for name, shape in expected_tensors(MODEL).items()}
    torch.save(state, torch_path)
    check_tensors([torch_path], MODEL)
    del state[QUERY]
    torch.save(state, torch_path)
    assert (
        refusal(torch_path)
        == f"lacks 1 tensor of BlipForQuestionAnswering, the first {QUERY}" + MEND
    )


def test_the_old_format_of_pytorch_is_named(torch_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({}, torch_path, _use_new_zipfile_serialization=False)
    assert refusal(torch_path).startswith("is cut short, or not what torch.save writes since its ")


def test_a_training_checkpoint_is_named(torch_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"model": {"weight": torch.zeros(1)}, "epoch": 3}, torch_path)
    assert refusal(torch_path).startswith("holds no plain list of tensors (model is no tensor); ")


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def write_pickle(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)


def test_a_pickle_that_calls_anything_else_is_refused_and_calls_nothing(
    torch_path: Path, tmp_path: Path
) -> None:
    write_pickle(torch_path, pickle.dumps({"a": Calls(Path.touch, tmp_path / "called")}))
    message = refusal(torch_path)
    assert message.startswith("holds no plain list of tensors (it names ")
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("content", [b"", b"\x80", pickle.dumps([1]), pickle.dumps(None)])
def test_a_damaged_pickle_is_refused(torch_path: Path, content: bytes) -> None:
    write_pickle(torch_path, content)
    assert refusal(torch_path).startswith("holds no plain list of tensors (")


def test_an_archive_without_a_list_of_tensors_is_refused(torch_path: Path) -> None:
    with zipfile.ZipFile(torch_path, "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    assert refusal(torch_path).startswith("holds no plain list of tensors (")
