"""Load a checkpoint onto a device: the model as Hugging Face made it, and its picture processor."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import BlipForQuestionAnswering
from transformers.utils import logging as transformers_logging

from blip_tracing.errors import InputError
from blip_tracing.given.checkpoint import check_checkpoint
from blip_tracing.given.weights import count_tensors, refuse_wrong_tensors
from blip_tracing.machinery.devices import claim_device, cuda_devices, lock_folder

logger = logging.getLogger(__name__)


@contextmanager
def use_device(device: str, jobs_per_gpu: int) -> Iterator[torch.device]:
    """Hold the device that the config's `device` (auto, cpu, cuda) means; wait for a free GPU.

    Raises InputError when `cuda` is asked for and torch sees no GPU.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise InputError("device: cuda is asked for, but torch sees no GPU here; set device: auto")
    if device == "cpu" or not available:
        yield torch.device("cpu")
        return
    with claim_device(cuda_devices(), jobs_per_gpu, lock_folder()) as index:
        torch.cuda.set_device(index)
        yield torch.device("cuda", index)


def use_threads(threads: int) -> None:
    """Keep torch to the cores that Snakemake gave the job."""
    torch.set_num_threads(threads)


def name_device(device: torch.device) -> str:
    """The GPU's name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def load_model(directory: str, device: torch.device, dtype: str) -> BlipForQuestionAnswering:
    """Load the checkpoint in `directory` for inference, in exact float32 arithmetic if float32.

    Raises InputError when the directory is gone, as a Hub's cache may be, or when the library
    would fill in tensors of its own, leave some out, or load numbers that are not finite.
    """
    if not Path(directory).is_dir():
        raise InputError(
            f"{directory}: the model is no longer there; "
            "fetch it again with snakemake --forcerun fetch_model"
        )
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    transformers_logging.disable_progress_bar()
    check_checkpoint(directory)
    model, loading = _load(directory, dtype)
    refuse_wrong_tensors(
        directory,
        missing=loading["missing_keys"],
        unexpected=loading["unexpected_keys"],
        misshapen={name: (there, here) for name, there, here in loading["mismatched_keys"]},
    )
    _check_finite(model, directory)
    return model.to(device).eval()


def _load(directory: str, dtype: str) -> tuple[BlipForQuestionAnswering, dict[str, Any]]:
    try:
        return BlipForQuestionAnswering.from_pretrained(
            directory,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused by the caller, in one line
        )
    except MemoryError:
        raise
    except Exception as error:  # the library raises what it likes, on what it cannot read
        raise InputError(f"{directory}: cannot be loaded ({_one_line(error)})") from error


def _check_finite(model: BlipForQuestionAnswering, directory: str) -> None:
    wrong = [name for name, tensor in model.named_parameters() if not tensor.isfinite().all()]
    if wrong:
        raise InputError(
            f"{directory}: NaN or infinite numbers are in {count_tensors(wrong)}, the first "
            f"{wrong[0]}; give weights that are finite"
        )


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def encode_pictures(
    model: BlipForQuestionAnswering, directory: str, pictures: Iterable[Image.Image]
) -> list[torch.Tensor]:
    """Encode RGB pictures, one at a time, to the vision model's last states (S, D) each.

    Raises InputError as `process_pictures` does.
    """
    return [encode_pixels(model, pixels) for pixels in process_pictures(model, directory, pictures)]


@torch.inference_mode()
def encode_pixels(model: BlipForQuestionAnswering, pixels: torch.Tensor) -> torch.Tensor:
    """The vision model's last states (S, D) of pixels (3, height, width)."""
    return model.vision_model(pixel_values=pixels[None]).last_hidden_state[0]


def process_pictures(
    model: BlipForQuestionAnswering, directory: str, pictures: Iterable[Image.Image]
) -> Iterator[torch.Tensor]:
    """The pixels (3, height, width) that the model reads of RGB pictures, on its device.

    The processor is the Pillow one, which the tutorial's numbers were made with.
    Raises InputError when the directory's processor cannot be read, or makes pictures of a size
    that the model was not made for.
    """
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    try:
        processor = BlipImageProcessorPil.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # as above
        reason = _one_line(error)
        raise InputError(f"{directory}: its picture processor cannot be used ({reason})") from error
    side = model.config.vision_config.image_size
    for picture in pictures:
        (pixels,) = processor(images=[picture], return_tensors="pt")["pixel_values"]
        if pixels.shape[-2:] != (side, side):  # the model would read a smaller one, wrongly
            height, width = pixels.shape[-2:]
            raise InputError(
                f"{directory}: its picture processor gives {height} × {width} pixels, its "
                f"model reads {side} × {side}; copy the processor of this model"
            )
        yield pixels.to(model.device, model.dtype)
