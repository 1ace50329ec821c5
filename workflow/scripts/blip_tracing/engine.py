"""Patching and tracing of BLIP's text encoder: pyvene intervenes, a job computes nothing twice.

`ResumableBlip` runs the text encoder from any site of any block and decodes the first answer
token. It works on the weights of an unmodified `BlipForQuestionAnswering`, in its own order:

- the keys and values of an image are computed once a block (`read_images`) and shared by all rows
  of that image, by folding the rows into the query dimension;
- the first answer token is the decoder's only position, so that its self-attention is the value
  projection, and the projections of its cross-attention move from the states to the one query.

Shapes: images G, rows of an image R, rows in all B = G · R, tokens T, width D, heads H,
head width E, patches of an image S, vocabulary V, blocks L.
"""

import io
import math
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import BlipForQuestionAnswering

# On import it prints that it would like a library which is not needed here.
with redirect_stdout(io.StringIO()):
    from pyvene import (
        IntervenableConfig,
        IntervenableModel,
        RepresentationConfig,
        VanillaIntervention,
        type_to_dimension_mapping,
        type_to_module_mapping,
    )

# A module of transformers: its children are attributes that no type describes.
Layer = Any

INPUT_HOOK = "register_forward_pre_hook"
OUTPUT_HOOK = "register_forward_hook"


@dataclass(frozen=True)
class ImageMemory:
    """What the text encoder's cross-attention reads of G images.

    keys, values: one tensor (G, H, S, E) a block; None for blocks before the first one needed.
    """

    keys: Sequence[torch.Tensor | None]
    values: Sequence[torch.Tensor | None]


class EncoderBlock(nn.Module):
    """One block of the text encoder; its cross-attention reads keys and values made before."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def read_images(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Project image states (G, S, D) to keys and values, each (G, H, S, E)."""
        attention = self.layer.crossattention.self
        keys, values = (
            split_heads(project(images), attention.num_attention_heads).contiguous()
            for project in (attention.key, attention.value)
        )
        return keys, values

    def forward(
        self, hidden: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """Map states (B, T, D) to (B, T, D); row b reads image b // (B / G)."""
        attended, _ = self.layer.attention(hidden)
        cross = self.layer.crossattention
        folded = attended.reshape(keys.shape[0], -1, attended.shape[-1])
        queries = split_heads(cross.self.query(folded), cross.self.num_attention_heads)
        context = scaled_dot_product_attention(queries, keys, values)
        context = context.transpose(1, 2).reshape(attended.shape)
        return self.layer.feed_forward_chunk(cross.output(context, attended))


class AnswerDecoder(nn.Module):
    """The answer decoder at its first position, where its input is [DEC] alone."""

    def __init__(self, decoder: Layer, start_token_id: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.start_token_id = start_token_id

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Map the encoder's last states (B, T, D) to logits of the first answer token (B, V)."""
        start = torch.full((1, 1), self.start_token_id, device=states.device)
        hidden = self.decoder.bert.embeddings(input_ids=start)[:, 0].expand(len(states), -1)
        for layer in self.decoder.bert.encoder.layer:
            hidden = attend_to_itself(layer.attention, hidden)
            hidden = attend_to_states(layer.crossattention, hidden, states)
            hidden = layer.feed_forward_chunk(hidden)
        return self.decoder.cls(hidden)


class ResumableBlip(nn.Module):
    """BLIP's question encoder and answer decoder, resumable at any site of any block.

    `block_ends` mark each block's output, so that a run can also resume behind a block.
    """

    def __init__(self, blip: BlipForQuestionAnswering) -> None:
        super().__init__()
        self.config = blip.config
        self.embeddings = blip.text_encoder.embeddings
        self.blocks = nn.ModuleList(
            EncoderBlock(layer) for layer in blip.text_encoder.encoder.layer
        )
        self.block_ends = nn.ModuleList(nn.Identity() for _ in self.blocks)
        self.decoder = AnswerDecoder(blip.text_decoder, blip.decoder_start_token_id)
        self.eval()

    @property
    def width(self) -> int:
        """The text encoder's hidden size D."""
        return self.config.text_config.hidden_size

    @property
    def device(self) -> torch.device:
        """Where the weights are; pyvene asks for it."""
        return self.embeddings.word_embeddings.weight.device

    def read_images(self, images: torch.Tensor, first_layer: int = 0) -> ImageMemory:
        """Project image states (G, S, D) to the keys and values of blocks from `first_layer`."""
        blocks: list[Any] = list(self.blocks)
        pairs = [block.read_images(images) for block in blocks[first_layer:]]
        skipped = [None] * first_layer
        return ImageMemory(
            keys=[*skipped, *(keys for keys, _ in pairs)],
            values=[*skipped, *(values for _, values in pairs)],
        )

    def forward(
        self, hidden: torch.Tensor, memory: ImageMemory, layer: int, site: str
    ) -> torch.Tensor:
        """Resume at `site` of block `layer` from states (B, T, D); return logits (B, V).

        pyvene writes into `hidden` in place: pass a copy of anything that is needed again.
        """
        for index in range(layer, len(self.blocks)):
            if index > layer or site == "block_input":
                hidden = self.blocks[index](hidden, memory.keys[index], memory.values[index])
            hidden = self.block_ends[index](hidden)
        return self.decoder(hidden)

    def run_through(
        self, hidden: torch.Tensor, memory: ImageMemory
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run all blocks from the first block's input (B, T, D).

        Returns the states before, between and after the blocks (L + 1, B, T, D) and the logits
        of the first answer token (B, V).
        """
        states = [hidden]
        for block, keys, values in zip(self.blocks, memory.keys, memory.values, strict=True):
            states.append(block(states[-1], keys, values))
        return torch.stack(states), self.decoder(states[-1])


# This project's own mapping, at the true width of what flows through the site. (pyvene's mapping
# takes BLIP's `image_text_hidden_size`, 256 where the states are 768 wide: it patches a third.)
type_to_module_mapping[ResumableBlip] = {
    "block_input": ("blocks[%s]", INPUT_HOOK),
    "block_output": ("block_ends[%s]", OUTPUT_HOOK),
}
type_to_dimension_mapping[ResumableBlip] = {
    site: ("text_config.hidden_size",) for site in type_to_module_mapping[ResumableBlip]
}


def split_heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    """Turn (G, N, H · E) into (G, H, N, E)."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend_to_itself(attention: Layer, hidden: torch.Tensor) -> torch.Tensor:
    """Self-attention (B, D) of a sequence of one token: all weight is on its own value."""
    return attention.output(attention.self.value(hidden), hidden)


def attend_to_states(attention: Layer, hidden: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Cross-attention of one query (B, D) to states (B, T, D), without projecting the states.

    q · (W h + b) = (Wᵀ q) · h + const, the constant cancels in the softmax, and the weights of
    the values sum to one; so both projections act once a row rather than once a token.
    """
    inner = attention.self
    heads = inner.num_attention_heads
    queries = inner.query(hidden).unflatten(-1, (heads, -1)) / math.sqrt(inner.attention_head_size)
    key_weight = inner.key.weight.unflatten(0, (heads, -1))
    value_weight = inner.value.weight.unflatten(0, (heads, -1))
    folded = torch.einsum("bhe,hed->bhd", queries, key_weight)
    weights = torch.softmax(folded @ states.transpose(1, 2), dim=-1)
    context = torch.einsum("bhd,hed->bhe", weights @ states, value_weight).flatten(1)
    return attention.output(context + inner.value.bias, hidden)


def state_index(site: str, layer: int) -> int:
    """Index, in the L + 1 states of `run_through`, of what flows through `site` of `layer`."""
    return layer + (site == "block_output")


def intervene(
    model: ResumableBlip,
    memory: ImageMemory,
    site: str,
    layer: int,
    hidden: torch.Tensor,
    replacement: torch.Tensor,
    positions: Sequence[Sequence[int]],
) -> torch.Tensor:
    """Replace U positions a row at a site, through pyvene, and finish the run.

    hidden: states (B, T, D) at the site, overwritten; replacement: (B, U, D); positions: B times
    U indices into T. Returns logits of the first answer token (B, V).
    """
    units = replacement.shape[1]
    config = IntervenableConfig(
        RepresentationConfig(layer, site, "pos", units), intervention_types=VanillaIntervention
    )
    intervenable = IntervenableModel(config, model)
    (key,) = intervenable.representations
    _, logits = intervenable(
        {"hidden": hidden, "memory": memory, "layer": layer, "site": site},
        unit_locations={"sources->base": (None, [[list(places) for places in positions]])},
        source_representations={key: replacement},
    )
    return logits


def patch_positions(
    model: ResumableBlip,
    memory: ImageMemory,
    site: str,
    layer: int,
    hidden: torch.Tensor,
    donor: torch.Tensor,
) -> torch.Tensor:
    """Patch each position in turn with the donor's state: the cells of one layer.

    hidden: states at the site (G, N, T, D), N runs an image (noise draws, or donors);
    donor: states at the site (G, N, T, D), or (G, 1, T, D) for one that all runs share.
    Returns logits (G, N, T, V); index 2 is the patched position.
    """
    images, runs, tokens, width = hidden.shape
    rows = hidden.repeat_interleave(tokens, dim=1).reshape(-1, tokens, width)
    replacement = donor.expand(-1, runs, -1, -1).reshape(-1, 1, width)
    positions = [[position] for position in range(tokens)] * (images * runs)
    logits = intervene(model, memory, site, layer, rows, replacement, positions)
    return logits.reshape(images, runs, tokens, -1)


def patch_all_positions(
    model: ResumableBlip,
    memory: ImageMemory,
    site: str,
    layer: int,
    hidden: torch.Tensor,
    donor: torch.Tensor,
) -> torch.Tensor:
    """Patch all positions at once with the donor's states; shapes as in `patch_positions`.

    Returns logits (G, N, V).
    """
    images, runs, tokens, _ = hidden.shape
    rows = hidden.flatten(0, 1).clone()
    replacement = donor.expand(-1, runs, -1, -1).flatten(0, 1)
    positions = [range(tokens)] * (images * runs)
    logits = intervene(model, memory, site, layer, rows, replacement, positions)
    return logits.unflatten(0, (images, runs))


def score_answers(logits: torch.Tensor, answer_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return probabilities and logits of answers, each (..., K), float32 on the CPU.

    logits: (..., V); answer_ids: integers that broadcast against (..., K).
    """
    logits = logits.float()
    ids = answer_ids.to(logits.device).expand(*logits.shape[:-1], -1)
    chosen = logits.gather(-1, ids)
    probabilities = (chosen - logits.logsumexp(-1, keepdim=True)).exp()
    return probabilities.cpu(), chosen.cpu()
