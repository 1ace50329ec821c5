"""Load a checkpoint onto a device: the model as Hugging Face made it, and its picture processor."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import BlipForQuestionAnswering
from transformers.utils import logging as transformers_logging

from blip_tracing.checkpoint import Checkpoint
from blip_tracing.devices import claim_device, cuda_devices, lock_folder
from blip_tracing.errors import InputError


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

    Raises InputError when the directory is gone, as a Hub's cache may be.
    """
    if not Path(directory).is_dir():
        raise InputError(
            f"{directory}: the model is no longer there; "
            "fetch it again with snakemake --forcerun fetch_model"
        )
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    transformers_logging.disable_progress_bar()
    model = BlipForQuestionAnswering.from_pretrained(
        directory, dtype=getattr(torch, dtype), local_files_only=True
    )
    return model.to(device).eval()


@contextmanager
def model_of(job: Any) -> Iterator[tuple[Checkpoint, BlipForQuestionAnswering]]:
    """Load the model of a job (its `snakemake` object), holding its device while it is used."""
    use_threads(job.threads)
    checkpoint = Checkpoint.from_json(job.input.model)
    with use_device(job.config["device"], job.resources.get("jobs_per_gpu", 1)) as device:
        yield checkpoint, load_model(checkpoint.directory, device, job.params.dtype)


def encode_pictures(
    model: BlipForQuestionAnswering, directory: str, pictures: Iterable[Image.Image]
) -> list[torch.Tensor]:
    """Encode RGB pictures, one at a time, to the vision model's last states (S, D) each.

    The processor is the Pillow one, which the tutorial's numbers were made with.
    """
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    processor = BlipImageProcessorPil.from_pretrained(directory, local_files_only=True)
    states = []
    with torch.inference_mode():
        for picture in pictures:
            pixels = processor(images=[picture], return_tensors="pt")["pixel_values"]
            encoded = model.vision_model(pixel_values=pixels.to(model.device, model.dtype))
            states.append(encoded.last_hidden_state[0])
    return states
