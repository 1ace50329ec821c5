"""Files of weights: which tensors they hold, read without loading them, and whether all are there.

A tensor may be absent only where it is tied to one that is there, and only buffers that the model
makes itself (`position_ids`) may be there besides.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from blip_tracing.errors import InputError
from blip_tracing.given.architecture import NAME, TIED, Architecture, Shape, expected_tensors

BYTES_OF = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
# What safetensors itself takes at most; and a list of names and shapes is far smaller.
LONGEST_LIST = 100_000_000
LFS_POINTER = b"version https://git-lfs"
# Made anew by the model; older versions of transformers saved them.
BUFFER = re.compile(r"(^|\.)position_ids$")
# The names that BERT's first checkpoints gave, which transformers reads as today's.
OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
COPY_AGAIN = "copy it again"


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file: its shape, and its number format as safetensors calls it."""

    shape: Shape
    dtype: str


def check_tensors(paths: Iterable[str | os.PathLike[str]], model: Architecture) -> None:
    """Check that files of weights hold the model's tensors, all and no others, in their shapes.

    Only the lists of tensors are read.
    Raises InputError naming the file, the first tensor that is wrong and the number of them.
    """
    files = [Path(path) for path in paths]
    found: dict[str, Stored] = {}
    for path in files:
        stored = list_tensors(path)
        _check_formats(stored, path)
        found.update(stored)
    source = str(files[0]) if len(files) == 1 else f"{files[0].parent} ({len(files)} files)"
    shapes = {_present_name(name): tensor.shape for name, tensor in found.items()}
    expected = expected_tensors(model)
    refuse_wrong_tensors(
        source,
        missing=_without_tied(expected.keys() - shapes.keys(), shapes, model.tied),
        unexpected=shapes.keys() - expected.keys(),
        misshapen={
            name: (shapes[name], shape)
            for name, shape in expected.items()
            if name in shapes and shapes[name] != shape
        },
    )


def refuse_wrong_tensors(
    source: str,
    missing: Collection[str],
    unexpected: Collection[str],
    misshapen: Mapping[str, tuple[Shape, Shape]],
) -> None:
    """Raise InputError unless there are none of these, buffers that the model makes aside.

    source: where they are (or are not); misshapen: each name's shape there and in the model.
    """
    unexpected = [name for name in unexpected if not BUFFER.search(name)]
    faults = []
    if missing:
        faults.append(f"lacks {count_tensors(missing)} of {NAME}, the first {min(missing)}")
    if unexpected:
        faults.append(
            f"holds {count_tensors(unexpected)} that {NAME} has no place for, the first "
            + min(unexpected)
        )
    if misshapen:
        name = min(misshapen)
        there, here = (" × ".join(map(str, shape)) or "one number" for shape in misshapen[name])
        faults.append(
            f"holds {count_tensors(misshapen)} of another shape than config.json gives, the first "
            f"{name} ({there}, not {here})"
        )
    if faults:
        mend = f"save the whole model with {NAME}.save_pretrained"
        raise InputError(f"{source}: {'; '.join(faults)}; {mend}")


def count_tensors(names: Collection[str]) -> str:
    """How many there are, in words."""
    return f"{len(names):,} tensor{'s' if len(names) > 1 else ''}"


def _without_tied(missing: Iterable[str], present: Collection[str], tied: bool) -> list[str]:
    """The missing tensors that are not tied to one that is present."""
    pairs = {**TIED, **{source: target for target, source in TIED.items()}} if tied else {}
    return [name for name in missing if pairs.get(name) not in present]


def _present_name(name: str) -> str:
    for old, new in OLD_NAMES.items():
        name = name.replace(old, new)
    return name


def _check_formats(tensors: Mapping[str, Stored], path: Path) -> None:
    wrong = [
        name
        for name, tensor in tensors.items()
        if tensor.dtype not in BYTES_OF and not BUFFER.search(name)
    ]
    if wrong:
        raise InputError(
            f"{path}: holds {count_tensors(wrong)} in another number format than "
            f"{', '.join(BYTES_OF)}, the first {min(wrong)} ({tensors[min(wrong)].dtype}); "
            "save it in one of these"
        )


# --- what a file holds


def list_tensors(path: str | os.PathLike[str]) -> dict[str, Stored]:
    """The tensors of a safetensors or PyTorch file by name, none of them loaded.

    Raises InputError when the file is empty, cut short, a git-lfs pointer or of another kind.
    """
    path = Path(path)
    size = path.stat().st_size
    if not size:
        raise InputError(f"{path}: is empty; {COPY_AGAIN}")
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise InputError(
                f"{path}: is a git-lfs pointer and not the weights; fetch them with `git lfs pull`"
            )
        file.seek(0)
        if path.suffix == ".safetensors":
            return _list_safetensors(file, size, path)
        return _list_pytorch(file, path)


def _list_safetensors(file: BinaryIO, size: int, path: Path) -> dict[str, Stored]:
    length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, LONGEST_LIST):
        raise InputError(f"{path}: is cut short or no safetensors file; {COPY_AGAIN}")
    try:
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = {name: _stored(entry) for name, entry in header.items()}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    # Whatever else the header may be: not text, not JSON, or JSON of another form.
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise InputError(f"{path}: is no safetensors file; {COPY_AGAIN}") from error
    if 8 + length + end != size:
        state = "is cut short" if size < 8 + length + end else "is longer than it should be"
        raise InputError(
            f"{path}: {state} ({size:,} bytes, {8 + length + end:,} by its header); {COPY_AGAIN}"
        )
    return tensors


def _stored(entry: dict[str, Any]) -> Stored:
    shape, dtype = tuple(map(int, entry["shape"])), str(entry["dtype"])
    begin, end = map(int, entry["data_offsets"])
    if end - begin != math.prod(shape) * BYTES_OF.get(dtype, 0) and dtype in BYTES_OF:
        raise ValueError(f"{end - begin} bytes are no {dtype} of shape {shape}")
    return Stored(shape, dtype)


def _list_pytorch(file: BinaryIO, path: Path) -> dict[str, Stored]:
    try:
        with zipfile.ZipFile(file) as archive:
            (listed,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if archive.getinfo(listed).file_size > LONGEST_LIST:
                raise ValueError("its list of tensors is too long")
            with archive.open(listed) as pickled:
                held = _ListOfTensors(pickled).load()
        for name, value in held.items():
            if not isinstance(value, Stored):
                raise ValueError(f"{name} is no tensor")
        return dict(held)
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{path}: is cut short, or not what torch.save writes since its version 1.6; "
            f"{COPY_AGAIN}, or save it as safetensors"
        ) from error
    # A pickle that is damaged, or holds more than tensors, fails with any class.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: holds no plain list of tensors ({reason}); save the model's state_dict "
            "alone, or as safetensors"
        ) from error


class _Rebuild:
    """Stands for the functions by which torch makes a tensor, or a parameter from one."""

    __slots__ = ()

    def __call__(self, made_from: object, offset: object = 0, size: Any = (), *_: object) -> object:
        if isinstance(made_from, Stored):  # a parameter, which is a tensor already
            return made_from
        return Stored(tuple(map(int, size)), str(made_from))


class _ListOfTensors(pickle.Unpickler):
    """Reads what torch.save pickles, and of all that a pickle can name only what tensors need."""

    KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
        ("torch._utils", "_rebuild_parameter"): _Rebuild(),
        **{("torch", storage): dtype for storage, dtype in STORAGES.items()},
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return self.KNOWN[module, name]

    def persistent_load(self, identity: Any) -> Any:
        """A storage is given as ("storage", its type, its key, its device, its length)."""
        return identity[1]
