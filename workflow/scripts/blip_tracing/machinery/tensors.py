"""Named tensors on disk, as safetensors."""

import os
from collections.abc import Mapping, Sequence

import torch
from safetensors import safe_open
from safetensors.torch import save

from blip_tracing.machinery.files import written_whole


def write_tensors(tensors: Mapping[str, torch.Tensor], path: str | os.PathLike[str]) -> None:
    """Write named tensors as safetensors, whole or not at all."""
    with written_whole(path) as file:
        file.write(save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}))


def read_image(paths: Sequence[str], image: str, device: torch.device) -> torch.Tensor:
    """Find what is kept of a picture, as its states (S, D), in the files of the picture shards."""
    for path in paths:
        with safe_open(path, framework="pt", device=str(device)) as file:
            if image in file.keys():  # noqa: SIM118 (the reader is no mapping)
                return file.get_tensor(image)
    raise KeyError(f"{image}: no picture shard holds it")


def has_tensor(paths: Sequence[str], name: str) -> bool:
    """Whether one of the files holds a tensor of this name."""
    for path in paths:
        with safe_open(path, framework="pt") as file:
            if name in file.keys():  # noqa: SIM118 (as above)
                return True
    return False
