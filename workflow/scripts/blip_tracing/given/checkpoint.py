"""The model's checkpoint: where its files lie, which commit they are, and their digest."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from blip_tracing.errors import InputError
from blip_tracing.given.architecture import Architecture
from blip_tracing.given.weights import check_tensors
from blip_tracing.machinery.contents import content_digests
from blip_tracing.machinery.files import read_json, read_record, written_whole

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
# In the order in which transformers takes them; an index names the files that weights are cut into.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
WEIGHTS_INDEX = "{}.index.json"
# Everything beside the weights that decides what the model answers.
SETTINGS = (
    CONFIG,
    PREPROCESSOR,
    PROCESSOR,
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
# A repository on the Hub also holds the same weights for other libraries, each as large again:
# PyTorch's own files are fetched only where there are no others.
FETCHED = (*SETTINGS, "model*.safetensors", "model.safetensors.index.json")
FETCHED_OTHERWISE = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
# Where the workflow records the model that it found.
RECORD = "results/model.json"
# The side in pixels of the pictures that BLIP's processor makes, where nothing else is said.
DEFAULT_SIZE = 384
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to be loaded from `directory`.

    `name` and `revision` are as configured; `commit` is the Hub commit that `revision` meant when
    it was fetched ("" for a local directory); `layers` counts the text encoder's layers;
    `weights_sha256` is what `cat <weights files in order of name> | sha256sum` prints;
    `settings_sha256` holds the digest of each file of SETTINGS that is there, by its name.
    """

    name: str
    revision: str
    commit: str
    directory: str
    layers: int
    weights_sha256: str
    settings_sha256: dict[str, str]

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the record, whole or not at all."""
        with written_whole(path) as file:
            file.write((json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Read a record that `to_json` wrote; InputError when it was damaged since."""
        names = [field.name for field in fields(cls)]
        record = read_record(path, names)
        return cls(**{name: record[name] for name in names})

    def check_unchanged(self, record: str | os.PathLike[str]) -> None:
        """Check that the directory holds the files that `record`, this one's file, speaks of.

        Raises InputError naming the file that was replaced since. That the whole directory is gone
        is for who loads the model to say.
        """
        if not Path(self.directory).is_dir():
            return
        found = checkpoint_digests(self.directory)
        recorded = {"": self.weights_sha256, **self.settings_sha256}
        for name in {**recorded, **found}:
            if recorded.get(name) != found.get(name):
                file = Path(self.directory) / name if name else weights_files(self.directory)[0]
                raise InputError(
                    f"{file}: is not what {os.fspath(record)} records (replaced since); put it "
                    f"back, or delete {os.fspath(record)}, and the next run begins anew "
                    "with what is there"
                )


def is_local(name: str) -> bool:
    """Whether `model.name` is a path (there or not) rather than a Hub id.

    A Hub id is `owner/name` or `name`; a path that exists goes before a Hub id of its name.
    """
    return Path(name).exists() or name.startswith(".") or not HUB_ID.fullmatch(name)


def known_directory(name: str, revision: str, record: str = RECORD, **others: object) -> str:
    """Where the model lies, as far as can be said without fetching it; "" where it cannot.

    A local directory is known; a Hub model once `record` says where an earlier run found it.
    """
    if is_local(name):
        return name
    if not Path(record).is_file():
        return ""
    try:
        found = Checkpoint.from_json(record)
    except InputError:  # for the jobs to name, which cannot do without it
        return ""
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
    check_checkpoint(directory)
    digests = checkpoint_digests(directory)
    return Checkpoint(
        name=name,
        revision=revision,
        commit=commit,
        directory=directory,
        layers=read_architecture(directory).text.layers,
        weights_sha256=digests.pop(""),
        settings_sha256=digests,
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
        folder = snapshot_download(name, revision=revision, allow_patterns=list(FETCHED))
        if not any(Path(folder).glob("model*.safetensors")):
            snapshot_download(name, revision=revision, allow_patterns=list(FETCHED_OTHERWISE))
        return folder
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
    read_architecture(directory)
    return [str(path) for path in (*_settings_files(directory), *weights_files(directory))]


def checkpoint_digests(directory: str | os.PathLike[str]) -> dict[str, str]:
    """The digests of the checkpoint's files: of each setting by its name, of all weights by "".

    Raises InputError when the weights are not complete.
    """
    settings = {path.name: [path] for path in _settings_files(directory)}
    return content_digests({"": weights_files(directory), **settings})


def _settings_files(directory: str | os.PathLike[str]) -> list[Path]:
    return [path for name in SETTINGS if (path := Path(directory) / name).is_file()]


def weights_files(directory: str | os.PathLike[str]) -> list[Path]:
    """The files that make up the weights, in order of name, as transformers would choose them.

    Raises InputError when there are none, or a shard that the index names is missing.
    """
    for name in WEIGHTS:
        whole, index = Path(directory) / name, _index_of(directory, name)
        if whole.is_file():
            return [whole]
        if index.is_file():
            return _shards(index)
    raise InputError(
        f"{os.fspath(directory)}: holds no {' and no '.join(WEIGHTS)}; "
        "give a checkpoint in Hugging Face's layout"
    )


def _index_of(directory: str | os.PathLike[str], name: str) -> Path:
    return Path(directory) / WEIGHTS_INDEX.format(name)


def _shards(index: Path) -> list[Path]:
    content = read_json(index)
    names = content.get("weight_map")
    if not isinstance(names, dict) or not names or not all(map(_is_text, names.values())):
        raise InputError(f"{index}: has no weight_map from tensors to files; fetch it again")
    if not isinstance(content.get("metadata"), dict):  # unused, but transformers asks for it
        raise InputError(f'{index}: has no metadata; fetch it again, or add "metadata": {{}}')
    shards = [index.parent / name for name in sorted(set(names.values()))]
    for shard in shards:
        if not shard.is_file():
            raise InputError(f"{shard}: is missing, though {index.name} names it; fetch it")
    return shards


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def read_architecture(directory: str | os.PathLike[str]) -> Architecture:
    """The model's sizes as its config.json gives them.

    Raises InputError when the directory holds no BLIP that answers questions.
    """
    path = Path(directory) / CONFIG
    if path.parent.is_file():
        raise InputError(
            f"model.name: {path.parent} is a file; give the checkpoint's directory or a Hub id "
            "like Salesforce/blip-vqa-base"
        )
    if not path.parent.is_dir():
        raise InputError(
            f"model.name: there is no directory {path.parent}; "
            "give the checkpoint's directory or a Hub id like Salesforce/blip-vqa-base"
        )
    if not path.is_file():
        raise InputError(f"{path}: is missing; give a checkpoint in Hugging Face's layout")
    return Architecture.from_config(read_json(path), str(path))


def check_checkpoint(directory: str | os.PathLike[str]) -> None:
    """Check that weights and picture processor are whole and are those that config.json describes.

    The weights' lists of tensors are read, not the weights.
    Raises InputError naming the file that is missing, damaged or of another model.
    """
    model = read_architecture(directory)
    check_tensors(weights_files(directory), model)
    _check_processor(directory, model.image_size)


def _check_processor(directory: str | os.PathLike[str], image_size: int) -> None:
    """The model reads a smaller picture too, with the positions of another part of it."""
    settings, path = _processor_settings(directory)
    size = settings.get("size", DEFAULT_SIZE)
    if isinstance(size, int):
        size = {"height": size, "width": size}
    if size != {"height": image_size, "width": image_size} or not settings.get("do_resize", True):
        raise InputError(
            f"{path}: does not scale pictures to the {image_size} × {image_size} pixels that "
            f"{CONFIG} gives (vision_config.image_size); copy the processor of this model"
        )


def _processor_settings(directory: str | os.PathLike[str]) -> tuple[dict[str, Any], Path]:
    """The picture processor's settings and their file, in transformers' order of preference."""
    whole, own = Path(directory) / PROCESSOR, Path(directory) / PREPROCESSOR
    if whole.is_file() and isinstance(settings := read_json(whole).get("image_processor"), dict):
        return settings, whole
    if not own.is_file():
        raise InputError(f"{own}: is missing; copy the picture processor beside the weights")
    return read_json(own), own
