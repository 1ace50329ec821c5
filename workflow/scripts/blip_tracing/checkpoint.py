"""The model's checkpoint: where its files lie, which commit they are, and their digest."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blip_tracing.errors import InputError
from blip_tracing.files import read_json, sha256_of, written_whole

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
# Everything beside the weights that decides what the model answers.
SETTINGS = (
    CONFIG,
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
# A repository on the Hub also holds the same weights for other libraries, each as large again.
FETCHED = (*SETTINGS, "model*.safetensors", WEIGHTS_INDEX)
# Where the workflow records the model that it found.
RECORD = "results/model.json"
ARCHITECTURE = "BlipForQuestionAnswering"
# What BLIP takes where config.json leaves a number out.
DEFAULT_LAYERS = 12
DEFAULT_POSITIONS = 512
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to be loaded from `directory`.

    `name` and `revision` are as configured; `commit` is the Hub commit that `revision` meant when
    it was fetched ("" for a local directory); `layers` counts the text encoder's layers;
    `weights_sha256` is what `cat <weights files in order of name> | sha256sum` prints.
    """

    name: str
    revision: str
    commit: str
    directory: str
    layers: int
    weights_sha256: str

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the record, whole or not at all."""
        with written_whole(path) as file:
            file.write((json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Read a record that `to_json` wrote."""
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))


def is_local(name: str) -> bool:
    """Whether `model.name` is a directory (there or not) rather than a Hub id.

    A Hub id is `owner/name` or `name`; a directory that exists goes before a Hub id of its name.
    """
    return Path(name).is_dir() or name.startswith(".") or not HUB_ID.fullmatch(name)


def known_directory(name: str, revision: str, record: str = RECORD, **others: object) -> str:
    """Where the model lies, as far as can be said without fetching it; "" where it cannot.

    A local directory is known; a Hub model once `record` says where an earlier run found it.
    """
    if is_local(name):
        return name
    if not Path(record).is_file():
        return ""
    found = Checkpoint.from_json(record)
    same = (found.name, found.revision) == (name, revision)
    return found.directory if same and Path(found.directory).is_dir() else ""


def resolve(name: str, revision: str) -> Checkpoint:
    """Find the model, fetching it from the Hub where `name` is a Hub id.

    A revision that is already in the Hub's cache is found there without a network.
    Raises InputError when there is no such model, or its files are incomplete.
    """
    if is_local(name):
        directory, commit = name, ""
    else:
        directory = fetch_from_hub(name, revision)
        commit = Path(directory).name
    return Checkpoint(
        name=name,
        revision=revision,
        commit=commit,
        directory=directory,
        layers=text_layers(directory),
        weights_sha256=sha256_of(weights_files(directory)),
    )


def fetch_from_hub(name: str, revision: str) -> str:
    """The folder of a Hub model's snapshot, fetched unless it is in the cache.

    Raises InputError naming the model, the revision and the mend.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return snapshot_download(name, revision=revision, allow_patterns=list(FETCHED))
    except HFValidationError as error:
        mend = "give an existing directory or a Hub id like Salesforce/blip-vqa-base"
        raise InputError(
            f"model.name: {name!r} is neither a directory nor a Hub id; {mend}"
        ) from error
    except GatedRepoError as error:
        mend = "ask for access on its page, then log in with `hf auth login`"
        raise InputError(f"model.name: {name} is gated on the Hub; {mend}") from error
    except RepositoryNotFoundError as error:
        mend = "check its spelling, or log in with `hf auth login` where it is private"
        raise InputError(
            f"model.name: there is neither a directory nor a Hub model {name}; {mend}"
        ) from error
    except RevisionNotFoundError as error:
        mend = "name a branch, a tag or a commit that it has"
        raise InputError(f"model.revision: {name} has no revision {revision!r}; {mend}") from error
    except LocalEntryNotFoundError as error:
        mend = "connect once (and unset HF_HUB_OFFLINE), or give model.name a directory"
        raise InputError(
            f"model.name: there is no directory {name}, the Hub cannot be reached, and its cache "
            f"here lacks {name} at revision {revision!r} or some of its files; {mend}"
        ) from error
    except Exception as error:  # the client's HTTP library raises classes of its own
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"model.name: {name} could not be fetched ({reason}); try again"
        ) from error


def checkpoint_files(directory: str | os.PathLike[str]) -> list[str]:
    """The files whose change makes results stale: configuration, tokenizer, processor, weights.

    Raises InputError when there is no such directory, no configuration or no complete weights.
    """
    _read_config(directory)
    settings = [path for name in SETTINGS if (path := Path(directory) / name).is_file()]
    return [str(path) for path in (*settings, *weights_files(directory))]


def weights_files(directory: str | os.PathLike[str]) -> list[Path]:
    """The safetensors files that make up the weights, in order of name.

    Raises InputError when there are none, or a shard that the index names is missing.
    """
    whole, index = Path(directory) / WEIGHTS, Path(directory) / WEIGHTS_INDEX
    if whole.is_file():
        return [whole]
    if not index.is_file():
        raise InputError(
            f"{os.fspath(directory)}: holds no {WEIGHTS}; give a checkpoint saved as safetensors"
        )
    shards = [
        Path(directory) / name for name in sorted(set(read_json(index)["weight_map"].values()))
    ]
    for shard in shards:
        if not shard.is_file():
            raise InputError(f"{shard}: is missing, though {WEIGHTS_INDEX} names it; fetch it")
    return shards


def text_layers(directory: str | os.PathLike[str]) -> int:
    """Number of layers of the checkpoint's text encoder.

    Raises InputError when the directory holds no BLIP that answers questions.
    """
    return int(_text_config(directory).get("num_hidden_layers", DEFAULT_LAYERS))


def text_positions(directory: str | os.PathLike[str]) -> int:
    """The most tokens, `[CLS]` and `[SEP]` included, that the text encoder can read.

    Raises InputError when the directory holds no BLIP that answers questions.
    """
    return int(_text_config(directory).get("max_position_embeddings", DEFAULT_POSITIONS))


def _text_config(directory: str | os.PathLike[str]) -> dict[str, Any]:
    return _read_config(directory).get("text_config") or {}


def _read_config(directory: str | os.PathLike[str]) -> dict[str, Any]:
    path = Path(directory) / CONFIG
    if not path.parent.is_dir():
        raise InputError(
            f"model.name: there is no directory {path.parent}; "
            "give the checkpoint's directory or a Hub id like Salesforce/blip-vqa-base"
        )
    if not path.is_file():
        raise InputError(f"{path}: is missing; give a checkpoint in Hugging Face's layout")
    config = read_json(path)
    # Another BLIP would load too, with random weights where its own are missing.
    architectures = config.get("architectures") or [ARCHITECTURE]
    if config.get("model_type") != "blip" or ARCHITECTURE not in architectures:
        raise InputError(
            f"{path}: is a {config.get('model_type')} model ({', '.join(architectures)}); "
            f"give a checkpoint of {ARCHITECTURE}"
        )
    return config
