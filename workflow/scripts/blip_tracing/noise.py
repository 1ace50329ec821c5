"""Seeded Gaussian noise, the same whatever the batch, the device or the order of jobs."""

import hashlib

import torch


def draw_noise(seed: int, example: str, sample: int, tokens: int, width: int) -> torch.Tensor:
    """Return standard normal noise of shape (tokens, width), float32 on the CPU.

    The generator is keyed by (seed, example, sample) alone, so that all layers, positions and
    noise levels of a draw share their noise: the pairing of ROME (Meng et al. 2022, section 2.1;
    `causal_trace.py`, which corrupts a batch once and restores within it).
    """
    key = hashlib.sha256(f"{seed}\n{example}\n{sample}".encode()).digest()
    generator = torch.Generator(device="cpu").manual_seed(int.from_bytes(key[:8], "big") >> 1)
    return torch.randn(tokens, width, generator=generator)


def draw_samples(seed: int, example: str, samples: int, tokens: int, width: int) -> torch.Tensor:
    """Return the draws 0 … samples - 1 stacked: shape (samples, tokens, width)."""
    draws = (draw_noise(seed, example, sample, tokens, width) for sample in range(samples))
    return torch.stack(list(draws))
