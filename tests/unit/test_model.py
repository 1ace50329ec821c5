"""A job runs the weights that its checkpoint holds, in whatever file they are, and no others."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from project import ROOT
from safetensors.torch import load_file, save_file
from transformers import BlipForQuestionAnswering

from blip_tracing.errors import InputError
from blip_tracing.given.checkpoint import weights_files
from blip_tracing.models import load as model
from blip_tracing.models.load import encode_pictures, load_model

MINIATURE = ROOT / "resources/miniature/checkpoint"
QUERY = "text_encoder.encoder.layer.3.attention.self.query.weight"
Weights = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(MINIATURE, tmp_path / "checkpoint")


@pytest.fixture
def weights() -> Weights:
    return load_file(MINIATURE / "model.safetensors")


def load(folder: Path, dtype: str = "float32") -> BlipForQuestionAnswering:
    return load_model(str(folder), torch.device("cpu"), dtype)


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as refused:
        load(folder)
    message = str(refused.value)
    assert "\n" not in message
    return message


# --- the formats of weights


def save_in_two(folder: Path, suffix: str, save: Callable[[Weights, Path], None]) -> None:
    """Save the folder's weights as two files and their index, in the whole one's place."""
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem, _, ending = suffix.rpartition(".")
    names = sorted(whole)
    files = {name: f"{stem}-0000{1 + (name > names[100])}-of-00002.{ending}" for name in names}
    for file in set(files.values()):
        save({name: whole[name] for name in names if files[name] == file}, folder / file)
    (folder / f"{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def as_shards(folder: Path) -> None:
    save_in_two(
        folder, "model.safetensors", lambda part, file: save_file(part, file, {"format": "pt"})
    )


def as_pytorch(folder: Path) -> None:
    """As older versions of transformers saved: all of the state, tied tensors and buffers too."""
    state = load(folder).state_dict()
    (folder / "model.safetensors").unlink()
    state["text_encoder.embeddings.position_ids"] = torch.arange(32)[None]
    torch.save(state, folder / "pytorch_model.bin")


def as_pytorch_shards(folder: Path) -> None:
    save_in_two(folder, "pytorch_model.bin", torch.save)


def assert_equal(found: BlipForQuestionAnswering, expected: Weights) -> None:
    state = found.state_dict()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


@pytest.mark.parametrize("save", [as_shards, as_pytorch, as_pytorch_shards])
def test_the_same_weights_in_other_files_are_the_same_model(
    folder: Path, weights: Weights, save: Callable[[Path], None]
) -> None:
    save(folder)
    assert weights_files(folder)[0].name != "model.safetensors"
    assert_equal(load(folder), weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_in_another_format_are_run_in_the_configured_one(
    folder: Path, weights: Weights, dtype: torch.dtype
) -> None:
    rounded = {name: tensor.to(dtype) for name, tensor in weights.items()}
    save_file(rounded, folder / "model.safetensors", {"format": "pt"})
    loaded = load(folder)
    assert loaded.dtype == torch.float32
    assert_equal(loaded, {name: tensor.float() for name, tensor in rounded.items()})


def test_the_head_is_tied_to_the_decoders_words(folder: Path) -> None:
    decoder = load(folder).text_decoder
    assert decoder.cls.predictions.decoder.weight is decoder.bert.embeddings.word_embeddings.weight


# --- what the library would run in silence


def save(folder: Path, weights: Weights) -> None:
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.fixture
def unplanned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the job with what the library reports, as though the lists of tensors had passed."""
    monkeypatch.setattr(model, "check_checkpoint", lambda directory: None)


@pytest.mark.usefixtures("unplanned")
def test_a_tensor_that_the_library_would_draw_at_random_is_refused(
    folder: Path, weights: Weights
) -> None:
    del weights[QUERY]
    save(folder, weights)
    assert refusal(folder).startswith(
        f"{folder}: lacks 1 tensor of BlipForQuestionAnswering, the first {QUERY}; "
    )


@pytest.mark.usefixtures("unplanned")
def test_what_the_library_would_leave_out_is_refused(folder: Path, weights: Weights) -> None:
    save(folder, {**weights, "itm_head.weight": torch.zeros(2, 4)})
    assert "holds 1 tensor that BlipForQuestionAnswering has no place for, the first itm_h" in (
        refusal(folder)
    )


@pytest.mark.usefixtures("unplanned")
def test_a_shape_that_is_not_the_configurations_is_refused(folder: Path, weights: Weights) -> None:
    save(folder, {**weights, QUERY: torch.zeros(64, 32)})
    assert f"than config.json gives, the first {QUERY} (64 × 32, not 64 × 64)" in refusal(folder)


@pytest.mark.usefixtures("unplanned")
def test_layers_that_only_the_configuration_has_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 4
    (folder / "config.json").write_text(json.dumps(config))
    assert refusal(folder).startswith(
        f"{folder}: lacks 12 tensors of BlipForQuestionAnswering, "
        "the first vision_model.encoder.layers.3.layer_norm1.bias; "
    )


@pytest.mark.usefixtures("unplanned")
@pytest.mark.parametrize("content", [b"", b"not weights"])
def test_what_the_library_cannot_read_is_one_line(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert refusal(folder).startswith(f"{folder}: cannot be loaded (")


def test_a_job_reads_the_lists_of_tensors_again(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1])
    assert refusal(folder).startswith(f"{folder}/model.safetensors: is cut short (")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_named(
    folder: Path, weights: Weights, number: float
) -> None:
    weights[QUERY][2, 3] = number
    save(folder, weights)
    assert refusal(folder) == (
        f"{folder}: NaN or infinite numbers are in 1 tensor, the first {QUERY}; "
        "give weights that are finite"
    )


# --- the pictures


def test_a_picture_of_another_size_than_the_models_is_refused(folder: Path) -> None:
    """The model would read it with the positions of another part of the picture."""
    blip = load(folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["size"] = {"height": 24, "width": 24}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError) as refused:
        encode_pictures(blip, str(folder), [Image.new("RGB", (9, 9))])
    assert str(refused.value) == (
        f"{folder}: its picture processor gives 24 × 24 pixels, its model reads 48 × 48; "
        "copy the processor of this model"
    )


@pytest.mark.parametrize("content", [None, "{", '{"resample": "x"}'])
def test_a_processor_that_cannot_be_used_is_one_line(folder: Path, content: str | None) -> None:
    blip = load(folder)
    path = folder / "preprocessor_config.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError) as refused:
        encode_pictures(blip, str(folder), [Image.new("RGB", (9, 9))])
    assert str(refused.value).startswith(f"{folder}: its picture processor ")
    assert "\n" not in str(refused.value)
