"""BLIP that answers questions, made resumable: a job computes nothing twice.

It works on the weights of an unmodified `BlipForQuestionAnswering`, in an order of its own:

- a run resumes from the cached stream between any two blocks of the question encoder;
- the keys and values of a picture are computed once a block (`read_pictures`) and shared by all
  rows of that picture, by folding the rows into the query dimension;
- the first answer token is the decoder's only position, so that its self-attention is the value
  projection, and the projections of its cross-attention move from the states to the one query.

Shapes: as in `models.family`; rows in all B, heads H, head width E, pictures P.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import BlipForQuestionAnswering

from blip_tracing.models.family import RunStates, bytes_a_token, expand_positions
from blip_tracing.models.intervene import (
    OUTPUT_HOOK,
    collect,
    modules_of,
    pyvene_name,
    register,
    replace,
)
from blip_tracing.vocabulary.sites import Place

# A module of transformers: its children are attributes that no type describes.
Layer = Any
STREAM = "stream"


@dataclass(frozen=True)
class PictureMemory:
    """What the question encoder's cross-attention reads of G examples' pictures.

    keys, values: one tensor (G, R, H, S, E) a block, R being 1 where an example's variants share
    a picture; None for blocks before the first one needed.
    """

    keys: Sequence[torch.Tensor | None]
    values: Sequence[torch.Tensor | None]

    def of(self, variants: Sequence[int]) -> PictureMemory:
        """The same with one picture a row (P, H, S, E): G of them where variants share theirs."""
        return PictureMemory(
            [_rows(keys, variants) for keys in self.keys],
            [_rows(values, variants) for values in self.values],
        )


def _rows(part: torch.Tensor | None, variants: Sequence[int]) -> torch.Tensor | None:
    if part is None:
        return None
    return part[:, 0] if part.shape[1] == 1 else part[:, list(variants)].flatten(0, 1)


class EncoderBlock(nn.Module):
    """One block of the question encoder; its cross-attention reads keys and values made before."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def read_pictures(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Project pictures' states (G, R, S, D) to keys and values, each (G, R, H, S, E)."""
        attention = self.layer.crossattention.self
        keys, values = (
            split_heads(project(states), attention.num_attention_heads).contiguous()
            for project in (attention.key, attention.value)
        )
        return keys, values

    def forward(
        self, hidden: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """Map states (B, T, D) to (B, T, D); row b reads picture b // (B / P)."""
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
    """A `TracedModel`: BLIP's question encoder and answer decoder, resumable between any blocks.

    `boundaries` mark the stream before, between and behind the blocks, where pyvene hooks it.
    """

    def __init__(self, blip: BlipForQuestionAnswering) -> None:
        super().__init__()
        self.config = blip.config
        self.embeddings = blip.text_encoder.embeddings
        self.blocks = nn.ModuleList(
            EncoderBlock(layer) for layer in blip.text_encoder.encoder.layer
        )
        self.boundaries = nn.ModuleList(nn.Identity() for _ in range(len(self.blocks) + 1))
        self.decoder = AnswerDecoder(blip.text_decoder, blip.decoder_start_token_id)
        self.eval()

    @property
    def layers(self) -> dict[str, int]:
        """The number of blocks of each tower."""
        return {"encoder": len(self.blocks)}

    @property
    def width(self) -> int:
        """The question encoder's hidden size D."""
        return self.config.text_config.hidden_size

    @property
    def device(self) -> torch.device:
        """Where the weights are; pyvene asks for it."""
        return self.embeddings.word_embeddings.weight.device

    def bytes_a_token(self, tokens: int) -> float:
        """What a token of a question of so many takes while a block is run."""
        weight = self.embeddings.word_embeddings.weight
        return bytes_a_token(self.config.text_config, weight, tokens)

    def read_pictures(self, states: torch.Tensor, first_layer: int = 0) -> PictureMemory:
        """Project states (G, S, D) or (G, R, S, D) to the keys and values of the blocks."""
        states = states if states.ndim == 4 else states[:, None]
        blocks: list[Any] = list(self.blocks)
        pairs = [block.read_pictures(states) for block in blocks[first_layer:]]
        skipped = [None] * first_layer
        return PictureMemory(
            keys=[*skipped, *(keys for keys, _ in pairs)],
            values=[*skipped, *(values for _, values in pairs)],
        )

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """The first block's inputs (G, T, D) of questions (G, T)."""
        return self.embeddings(input_ids=token_ids.to(self.device))

    def run(self, inputs: torch.Tensor, pictures: PictureMemory) -> RunStates:
        """Run first inputs (G, R, T, D) to the first answer token."""
        shape = inputs.shape[:2]
        memory = pictures.of(range(shape[1]))
        states = [inputs.flatten(0, 1)]
        for block, keys, values in zip(self.blocks, memory.keys, memory.values, strict=True):
            states.append(block(states[-1], keys, values))
        logits = self.decoder(states[-1]).unflatten(0, shape)
        return RunStates(pictures, torch.stack(states).unflatten(1, shape), logits)

    def states_at(self, run: RunStates, place: Place) -> torch.Tensor:
        """What flows through a place in each variant: (G, R, T, D)."""
        if place.inner is None:
            return run.stream[place.index]
        every = range(run.variants)
        hidden = self._variants(run, place, every)
        memory = run.pictures.of(every)
        inputs = {"hidden": hidden, "memory": memory, "index": place.index, "blocks": 1}
        (states,), _ = collect(self, [_hooked(place)], inputs, hidden.shape)
        return states.unflatten(0, run.stream.shape[1:3])

    def patch_each(
        self, run: RunStates, place: Place, donors: torch.Tensor, of: Sequence[int]
    ) -> torch.Tensor:
        """Put each position of donors (G, M, T, D) in turn into a variant each: (G, M, T, V)."""
        examples, rows, tokens, width = donors.shape
        hidden = self._variants(run, place, of).repeat_interleave(tokens, dim=0)
        positions = expand_positions(tokens, examples * rows)
        logits = self._replace(run, place, hidden, donors.reshape(-1, 1, width), positions, of)
        return logits.reshape(examples, rows, tokens, -1)

    def patch_all(
        self, run: RunStates, place: Place, donors: torch.Tensor, of: Sequence[int]
    ) -> torch.Tensor:
        """Put all positions of donors (G, M, T, D) at once into a variant each: (G, M, V)."""
        examples, rows, tokens, _ = donors.shape
        hidden = self._variants(run, place, of).clone()
        positions = [range(tokens)] * (examples * rows)
        logits = self._replace(run, place, hidden, donors.flatten(0, 1), positions, of)
        return logits.unflatten(0, (examples, rows))

    def resume(self, run: RunStates, place: Place, of: Sequence[int]) -> torch.Tensor:
        """Run variants on from a place with nothing put in: logits (G, M, V)."""
        logits = self(self._variants(run, place, of), run.pictures.of(of), place.index)
        return logits.unflatten(0, (-1, len(of)))

    def forward(
        self, hidden: torch.Tensor, memory: PictureMemory, index: int, blocks: int | None = None
    ) -> torch.Tensor:
        """Resume before block `index` from states (B, T, D); return logits (B, V).

        blocks: run so many of them alone and return their states (B, T, D). pyvene writes into
        `hidden` in place: pass a copy of anything that is needed again.
        """
        end = len(self.blocks) if blocks is None else index + blocks
        for layer in range(index, end):
            hidden = self.boundaries[layer](hidden)
            hidden = self.blocks[layer](hidden, memory.keys[layer], memory.values[layer])
        return self.decoder(self.boundaries[end](hidden)) if blocks is None else hidden

    def _variants(self, run: RunStates, place: Place, of: Sequence[int]) -> torch.Tensor:
        """The stream (G · M, T, D) of a variant each."""
        return run.stream[place.index][:, list(of)].flatten(0, 1)

    def _replace(
        self,
        run: RunStates,
        place: Place,
        hidden: torch.Tensor,
        donors: torch.Tensor,
        positions: Sequence[Sequence[int]],
        of: Sequence[int],
    ) -> torch.Tensor:
        inputs = {"hidden": hidden, "memory": run.pictures.of(of), "index": place.index}
        return replace(self, *_hooked(place), inputs, donors, positions)


def _hooked(place: Place) -> tuple[str, int]:
    """Where pyvene finds a place: a name and a layer."""
    return pyvene_name(place.inner) if place.inner else STREAM, place.index


# Sites inside a block are the unmodified layer's own modules.
register(
    ResumableBlip,
    {STREAM: ("boundaries[%s]", OUTPUT_HOOK)} | modules_of({"encoder": "blocks[%s].layer"}),
    width="text_config.hidden_size",
)


def split_heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    """Turn (…, N, H · E) into (…, H, N, E)."""
    return states.unflatten(-1, (heads, -1)).transpose(-3, -2)


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
