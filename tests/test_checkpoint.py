"""The model is found in a directory or in the Hub's cache, and its files are known."""

import hashlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fetch_model import fetch_model

from blip_tracing.checkpoint import (
    Checkpoint,
    checkpoint_files,
    is_local,
    resolve,
    text_positions,
    weights_files,
)
from blip_tracing.errors import InputError

ROOT = Path(__file__).parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {
    "model_type": "blip",
    "architectures": ["BlipForQuestionAnswering"],
    "text_config": {"num_hidden_layers": 7, "max_position_embeddings": 40},
}
WEIGHTS = b"weights"


def write_checkpoint(folder: Path, config: object = CONFIG) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\n")
    (folder / "README.md").write_text("about the model")
    return folder


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint")


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
        weights_sha256=hashlib.sha256(WEIGHTS).hexdigest(),
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
    folder = write_checkpoint(tmp_path / "bare", {"model_type": "blip"})
    defaults = transformers.BlipTextConfig()
    assert resolve(str(folder), "main").layers == defaults.num_hidden_layers
    assert text_positions(folder) == defaults.max_position_embeddings


def test_shards_are_one_digest_in_order_of_name(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    for name, content in (("model-2.safetensors", b"two"), ("model-1.safetensors", b"one")):
        (directory / name).write_bytes(content)
    index = {"weight_map": {"b": "model-2.safetensors", "a": "model-1.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    found = resolve(str(directory), "main").weights_sha256
    assert found == hashlib.sha256(b"onetwo").hexdigest()
    (directory / "model-2.safetensors").unlink()
    assert refusal(str(directory)) == (
        f"{directory}/model-2.safetensors: is missing, "
        "though model.safetensors.index.json names it; fetch it"
    )


def test_a_directory_without_weights_is_named(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").touch()
    message = f"{directory}: holds no model.safetensors; give a checkpoint saved as safetensors"
    assert refusal(str(directory)) == message
    with pytest.raises(InputError, match=r"holds no model\.safetensors"):
        checkpoint_files(directory)


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
    config = {"model": {"layers": 7}, "patching": {"sites": ["block_input"]}}
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
    blob = repository / "blobs" / hashlib.sha256(WEIGHTS).hexdigest()
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
from blip_tracing.checkpoint import resolve
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
        weights_sha256=hashlib.sha256(WEIGHTS).hexdigest(),
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
