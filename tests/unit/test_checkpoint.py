"""The model is found in a directory or in the Hub's cache, and its files are known."""

import hashlib
import json
import logging
import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from fetch_model import fetch_model
from stored import CONFIG, saved_tensors, write_checkpoint, write_safetensors

from blip_tracing.errors import InputError
from blip_tracing.given.checkpoint import (
    Checkpoint,
    check_checkpoint,
    checkpoint_files,
    fetch_from_hub,
    is_local,
    read_architecture,
    resolve,
    weights_files,
)
from blip_tracing.given.settings import fill_config
from blip_tracing.vocabulary.experiment import BASE, SOURCE

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def settings_sha256(folder: Path) -> dict[str, str]:
    names = ("config.json", "preprocessor_config.json", "vocab.txt")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint")


def sha256_of_weights(directory: Path) -> str:
    return hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()


def refusal(name: str, revision: str = "main") -> str:
    with pytest.raises(InputError) as refused:
        resolve(name, revision)
    message = str(refused.value)
    assert "\n" not in message
    return message


# --- a directory


def test_a_directory_is_taken_as_it_is(directory: Path) -> None:
    assert resolve(str(directory), "main") == Checkpoint(
        name=str(directory),
        revision="main",
        commit="",
        directory=str(directory),
        layers=7,
        weights_sha256=sha256_of_weights(directory),
        settings_sha256=settings_sha256(directory),
    )


def test_a_name_is_a_directory_where_one_is_or_no_hub_id_looks_so(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory.parent)
    assert is_local("checkpoint")
    assert is_local("resources/miniature/none")
    for name in ("./none", "../none", "/none", "~/none"):
        assert is_local(name)
    assert not is_local("Salesforce/blip-vqa-base")
    assert not is_local("blip")


def test_the_record_is_read_as_it_was_written(directory: Path, tmp_path: Path) -> None:
    checkpoint = resolve(str(directory), "main")
    record = tmp_path / "results/model.json"
    checkpoint.to_json(record)
    assert Checkpoint.from_json(record) == checkpoint
    assert json.loads(record.read_text())["layers"] == 7
    assert list(record.parent.iterdir()) == [record]


def test_results_hang_on_configuration_tokenizer_processor_and_weights(directory: Path) -> None:
    (directory / "preprocessor_config.json").write_text("{}")
    files = [Path(path).name for path in checkpoint_files(directory)]
    assert files == ["config.json", "preprocessor_config.json", "vocab.txt", "model.safetensors"]


def test_numbers_that_the_configuration_leaves_out_are_blips_own(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    bare = {key: CONFIG[key] for key in ("model_type", "architectures")}
    (tmp_path / "config.json").write_text(json.dumps(bare))
    defaults, found = transformers.BlipTextConfig(), read_architecture(tmp_path)
    assert found.text.layers == defaults.num_hidden_layers
    assert found.positions == defaults.max_position_embeddings
    assert found.start == defaults.bos_token_id


def shard(directory: Path, name: str = "model", suffix: str = "safetensors") -> list[Path]:
    """Cut the weights into two files, the second first in the index."""
    whole = directory / "model.safetensors"
    if whole.is_file():
        whole.unlink()
    tensors = list(saved_tensors().items())
    parts = {f"{name}-2.{suffix}": tensors[:9], f"{name}-1.{suffix}": tensors[9:]}
    for file, part in parts.items():
        write_safetensors(directory / file, dict(part))
    index = {tensor: file for file, part in parts.items() for tensor, _ in part}
    (directory / f"{name}.{suffix}.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    return [directory / file for file in sorted(parts)]


def test_shards_are_one_digest_in_order_of_name(directory: Path) -> None:
    first, second = shard(directory)
    found = resolve(str(directory), "main").weights_sha256
    assert found == hashlib.sha256(first.read_bytes() + second.read_bytes()).hexdigest()
    second.unlink()
    assert refusal(str(directory)) == (
        f"{directory}/model-2.safetensors: is missing, "
        "though model.safetensors.index.json names it; fetch it"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "has no weight_map from tensors to files; fetch it again"),
        ('{"weight_map": []}', "has no weight_map from tensors to files"),
        ('{"weight_map": {"a": 1}}', "has no weight_map from tensors to files"),
        ('{"weight_map": {"a": "model-1.safetensors"}}', "has no metadata; fetch it again, or "),
    ],
)
def test_an_index_that_cannot_be_used_is_named(directory: Path, content: str, message: str) -> None:
    shard(directory)
    (directory / "model.safetensors.index.json").write_text(content)
    assert message in refusal(str(directory))


def test_pytorchs_files_are_taken_where_there_are_no_others(directory: Path) -> None:
    shards = shard(directory, "pytorch_model", "bin")
    assert weights_files(directory) == shards
    (directory / "pytorch_model.bin").touch()
    assert weights_files(directory) == [directory / "pytorch_model.bin"]
    shards = shard(directory)
    assert weights_files(directory) == shards
    write_safetensors(directory / "model.safetensors", saved_tensors())
    assert weights_files(directory) == [directory / "model.safetensors"]


def test_a_directory_without_weights_is_named(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    message = (
        f"{directory}: holds no model.safetensors and no pytorch_model.bin; "
        "give a checkpoint in Hugging Face's layout"
    )
    assert refusal(str(directory)) == message
    with pytest.raises(InputError, match=r"holds no model\.safetensors"):
        checkpoint_files(directory)


def test_weights_of_another_model_are_named(directory: Path) -> None:
    write_safetensors(directory / "model.safetensors", {})
    assert refusal(str(directory)).startswith(f"{directory}/model.safetensors: lacks ")


def test_a_file_is_no_checkpoint(directory: Path) -> None:
    assert refusal(str(directory / "README.md")) == (
        f"model.name: {directory}/README.md is a file; "
        "give the checkpoint's directory or a Hub id like Salesforce/blip-vqa-base"
    )


# --- the picture processor


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("preprocessor_config.json", {"size": {"height": 8, "width": 8}}),
        ("preprocessor_config.json", {"size": 8, "do_resize": True}),
        ("processor_config.json", {"image_processor": {"size": {"height": 8, "width": 8}}}),
    ],
)
def test_the_processor_is_found_where_transformers_saves_it(
    directory: Path, name: str, settings: dict[str, object]
) -> None:
    (directory / "preprocessor_config.json").unlink()
    (directory / name).write_text(json.dumps(settings))
    check_checkpoint(directory)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing; copy the picture processor beside the weights"),
        ("", "is not JSON ("),
        ("[]", "is not a JSON object"),
        ("{}", "does not scale pictures to the 8 × 8 pixels that config.json gives"),
        ('{"size": {"height": 4, "width": 8}}', "does not scale pictures to the 8 × 8 pixels"),
        ('{"size": {"shortest_edge": 8}}', "does not scale pictures to the 8 × 8 pixels"),
        ('{"size": 8, "do_resize": false}', "does not scale pictures to the 8 × 8 pixels"),
    ],
)
def test_a_processor_that_does_not_fit_the_model_is_named(
    directory: Path, content: str | None, message: str
) -> None:
    path = directory / "preprocessor_config.json"
    path.unlink() if content is None else path.write_text(content)
    assert refusal(str(directory)).startswith(f"{path}: {message}")


# --- what is no checkpoint


def test_a_directory_that_is_not_there_is_named() -> None:
    assert refusal("resources/miniature/none") == (
        "model.name: there is no directory resources/miniature/none; "
        "give the checkpoint's directory or a Hub id like Salesforce/blip-vqa-base"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing; give a checkpoint in Hugging Face's layout"),
        ("{", "is not JSON ("),
        ("[]", "is not a JSON object; fetch it again"),
        ("[" * 100_000, "is not JSON ("),
        ('{"model_type": "blip"}', "names no architectures"),
        (
            '{"model_type": "bert", "architectures": ["BertModel"]}',
            "is a bert model (BertModel); give a checkpoint of BlipForQuestionAnswering",
        ),
        (
            '{"model_type": "blip", "architectures": ["BlipForConditionalGeneration"]}',
            "is a blip model (BlipForConditionalGeneration); "
            "give a checkpoint of BlipForQuestionAnswering",
        ),
    ],
)
def test_what_is_no_blip_is_named(directory: Path, content: str | None, message: str) -> None:
    path = directory / "config.json"
    path.unlink() if content is None else path.write_text(content)
    assert refusal(str(directory)).startswith(f"{path}: {message}")


def test_the_miniature_is_a_checkpoint() -> None:
    directory = ROOT / "resources/miniature/checkpoint"
    assert resolve(str(directory), "main").layers == 6
    assert weights_files(directory) == [directory / "model.safetensors"]


# --- the rule that fetches it


def fetch(directory: Path, source_question: str) -> Checkpoint:
    sheet = directory.parent / "examples.tsv"
    sheet.write_text(
        f"example\timage\tbase_question\tsource_question\none\tx.png\tokapi\t{source_question}\n"
    )
    config = fill_config(
        {
            "model": {"name": "a/b", "layers": {"encoder": 7, "decoder": 7, "vision": 2}},
            "examples": str(sheet),
            "experiments": {"patching": {"receiver": BASE, "donor": SOURCE}},
        }
    )
    return fetch_model(str(directory), "main", config, str(sheet))


def test_a_fetched_model_is_given_once_the_sheet_fits_it(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert fetch(directory, "zebra") == resolve(str(directory), "main")
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [message.split(", which")[0].split()[-1] for message in said] == ["'okapi'", "'zebra'"]


def test_a_sheet_that_does_not_fit_the_fetched_model_stops_the_job(directory: Path) -> None:
    with pytest.raises(InputError, match="base_question has 3 tokens, source_question 4"):
        fetch(directory, "zebra okapi")


# --- the Hub's cache


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache as the Hub's client leaves it: snapshots by commit, and what `main` meant."""
    cache = tmp_path / "hub"
    repository = cache / "models--lab--blip"
    snapshot = write_checkpoint(repository / "snapshots" / COMMIT)
    blob = repository / "blobs" / sha256_of_weights(snapshot)
    blob.parent.mkdir()
    (snapshot / "model.safetensors").rename(blob)
    (snapshot / "model.safetensors").symlink_to(Path("../../blobs") / blob.name)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    return cache


def resolve_offline(
    cache: Path, name: str, revision: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Resolve in a fresh process, since the Hub's client reads its environment when imported."""
    program = """
import sys
from blip_tracing.given.checkpoint import resolve
from blip_tracing.errors import InputError
from fetch_model import fetch_model
try:
    resolve(*sys.argv[1:3]).to_json(sys.argv[3])
except InputError as error:
    sys.exit(str(error))
"""
    return subprocess.run(
        [sys.executable, "-c", program, name, revision, str(cache / "model.json")],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "workflow/scripts"),
            "HF_HUB_CACHE": str(cache),
            "HF_HUB_OFFLINE": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_cached_hub_model_is_found_offline_at_its_commit(cache: Path, revision: str) -> None:
    found = resolve_offline(cache, "lab/blip", revision)
    assert found.returncode == 0, found.stderr
    assert Checkpoint.from_json(cache / "model.json") == Checkpoint(
        name="lab/blip",
        revision=revision,
        commit=COMMIT,
        directory=str(cache / "models--lab--blip/snapshots" / COMMIT),
        layers=7,
        weights_sha256=sha256_of_weights(cache / "models--lab--blip/snapshots" / COMMIT),
        settings_sha256=settings_sha256(cache / "models--lab--blip/snapshots" / COMMIT),
    )


@pytest.mark.parametrize(("name", "revision"), [("lab/none", "main"), ("lab/blip", "v2")])
def test_a_hub_model_that_cannot_be_had_is_one_line(cache: Path, name: str, revision: str) -> None:
    found = resolve_offline(cache, name, revision)
    assert found.returncode == 1
    assert found.stderr == (
        f"model.name: there is no directory {name}, the Hub cannot be reached, and its cache here "
        f"lacks {name} at revision '{revision}' or some of its files; "
        "connect once (and unset HF_HUB_OFFLINE), or give model.name a directory\n"
    )
    assert not (cache / "model.json").exists()


@pytest.mark.parametrize(
    ("held", "fetched"),
    [
        ({"model-1.safetensors", "pytorch_model-1.bin", "vocab.txt"}, {"model-1.safetensors"}),
        ({"pytorch_model.bin", "flax_model.msgpack", "vocab.txt"}, {"pytorch_model.bin"}),
    ],
)
def test_pytorchs_weights_are_fetched_only_where_there_are_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: set[str], fetched: set[str]
) -> None:
    def fetch(name: str, revision: str, allow_patterns: list[str]) -> str:
        for file in held:
            if any(fnmatch(file, pattern) for pattern in allow_patterns):
                (tmp_path / file).touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert fetch_from_hub("lab/blip", "main") == str(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == fetched | {"vocab.txt"}


def test_a_hub_that_does_not_answer_is_one_line(cache: Path) -> None:
    unreachable = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "*"}
    found = resolve_offline(cache, "lab/none", "main", **unreachable)
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1].startswith("model.name: there is no directory lab/none, ")


def test_a_name_that_is_no_hub_id_is_one_line(cache: Path) -> None:
    found = resolve_offline(cache, "lab/blip--base", "main")
    assert found.returncode == 1
    assert found.stderr == (
        "model.name: 'lab/blip--base' is neither a directory nor a Hub id; "
        "give an existing directory or a Hub id like Salesforce/blip-vqa-base\n"
    )
