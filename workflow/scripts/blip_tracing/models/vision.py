"""BLIP's vision tower, resumable between any two of its blocks.

Shapes: pictures B, or G examples' of R variants (1 where they share theirs); patches and [CLS] S;
width D; blocks L.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.weak import WeakTensorKeyDictionary

# The streams of so many numbers are kept, of the pictures asked for last (400 MB in float32).
KEPT_NUMBERS = 100_000_000


class VisionBlock(nn.Module):
    """One block, through the modules of an unmodified `BlipEncoderLayer`, where pyvene hooks it."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map the stream (B, S, D) to the next.

        What a hook before `layer_norm2` writes into its input in place, the residual around the MLP
        has too.
        """
        attention = self.layer.self_attn
        projected = attention.qkv(self.layer.layer_norm1(hidden))
        parts = projected.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = parts
        context = scaled_dot_product_attention(queries, keys, values, scale=attention.scale)
        state = hidden + attention.projection(context.transpose(1, 2).flatten(2))
        return state + self.layer.mlp(self.layer.layer_norm2(state))


class VisionTower(nn.Module):
    """The vision tower of a `BlipVisionModel`.

    `boundaries` mark the stream before, between and behind the blocks, where pyvene hooks it.
    """

    def __init__(self, vision: Any) -> None:
        super().__init__()
        self.embeddings, self.post_layernorm = vision.embeddings, vision.post_layernorm
        self.blocks = nn.ModuleList(VisionBlock(layer) for layer in vision.encoder.layers)
        self.boundaries = nn.ModuleList(nn.Identity() for _ in range(len(self.blocks) + 1))
        self._streams = WeakTensorKeyDictionary()

    def stream(self, pixels: torch.Tensor) -> torch.Tensor:
        """Before, between and behind the blocks: (L + 1, G, R, S, D) of pictures (G, R, 3, h, w).

        That of the pixels asked for last is kept, within bounds: all places of a job begin from it.
        """
        if (kept := self._streams.get(pixels)) is not None:
            return kept
        states = [self.embeddings(pixels.flatten(0, 1))]
        for block in self.blocks:
            states.append(block(states[-1]))
        stream = torch.stack(states).unflatten(1, pixels.shape[:2])
        if sum(map(torch.Tensor.numel, self._streams.values())) + stream.numel() > KEPT_NUMBERS:
            self._streams.clear()
        if stream.numel() <= KEPT_NUMBERS:
            self._streams[pixels] = stream
        return stream

    def forward(self, hidden: torch.Tensor, blocks: range) -> torch.Tensor:
        """Run blocks from the stream (B, S, D)."""
        for index in blocks:
            hidden = self.blocks[index](self.boundaries[index](hidden))
        return hidden

    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        """The states that text reads (B, S, D), of the last block's."""
        return self.post_layernorm(self.boundaries[-1](hidden))
