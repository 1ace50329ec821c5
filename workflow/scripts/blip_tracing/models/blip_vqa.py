"""BLIP that answers questions, made resumable: a job computes nothing twice.

It works on the weights of an unmodified `BlipForQuestionAnswering`, in an order of its own:

- a run resumes from the cached stream between any two blocks of the question encoder, or between
  any two of the answer decoder, for which the encoder is not run again;
- behind self-attention a block acts on each token alone: what is put in inside one block is put
  through the rest of it once for all positions, and goes on as states between two blocks;
- the keys and values of a picture are computed once a block (`read_pictures`) and shared by all
  rows of that picture, by folding the rows into the query dimension;
- from a block of the vision tower a run resumes with a picture of its own (`models.vision`), whose
  keys and values nothing would share;
- the decoder's cross-attention moves its projections from the states to the few queries; of an
  answer of one token [DEC] is the only position, and self-attention the value projection.

Shapes: as in `models.family`; rows in all B, heads H, head width E, pictures P, positions of the
decoder Q.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import BlipForQuestionAnswering

from blip_tracing.models.blip import BlipModel
from blip_tracing.models.family import (
    Outcome,
    Patch,
    RunStates,
    log_probability_of_rest,
    pixels_of,
    read_answers,
    variant_rows,
)
from blip_tracing.models.intervene import (
    OUTPUT_HOOK,
    Put,
    collect,
    modules_of,
    positions_of,
    puts_of,
    pyvene_name,
    register,
    replace,
)
from blip_tracing.models.vision import VisionTower
from blip_tracing.vocabulary.sites import DECODER, ENCODER, VISION, Place

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

    def read_on(self, hidden: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
        """The same of rows that each have a picture of their own: states (B, S, D).

        Projecting it to keys and values takes 4 · S · D · D multiplications, folding the
        projections into H · T queries 4 · S · D · H · T, at BLIP-base's size and nine tokens a
        seventh.
        """
        attended, _ = self.layer.attention(hidden)
        cross = self.layer.crossattention
        if cross.self.num_attention_heads * hidden.shape[1] < hidden.shape[2]:
            return self.layer.feed_forward_chunk(attend_to_states(cross, attended, pictures))
        keys, values = self.read_pictures(pictures)
        return self.forward(hidden, keys, values)


class AnswerDecoder(nn.Module):
    """The answer decoder, on [DEC] and the followed answers' tokens (`models.family`).

    `boundaries` mark the stream before, between and behind the blocks, where pyvene hooks it.
    """

    def __init__(self, decoder: Layer, start_token_id: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.start_token_id = start_token_id
        self.blocks = decoder.bert.encoder.layer
        self.boundaries = nn.ModuleList(nn.Identity() for _ in range(len(self.blocks) + 1))

    def embed(self, answers: torch.Tensor | None, rows: int) -> torch.Tensor:
        """The first block's inputs (B, Q, D), the same for all rows of an example."""
        ids, positions, _ = read_answers(answers, self.start_token_id)
        device = self.decoder.cls.predictions.bias.device
        hidden = self.decoder.bert.embeddings(
            input_ids=ids.to(device), position_ids=positions.to(device)[None]
        )
        return hidden.repeat_interleave(rows // len(hidden), dim=0)

    def forward(
        self,
        hidden: torch.Tensor,
        states: torch.Tensor,
        answers: torch.Tensor | None,
        blocks: range,
    ) -> torch.Tensor:
        """Run blocks from states (B, Q, D); row b reads the encoder's states b // (B / N).

        states: (N, T, D) of the encoder's last block.
        """
        *_, sight = read_answers(answers, self.start_token_id)
        sight = None if sight is None else sight.to(hidden.device)
        for index in blocks:
            layer: Layer = self.blocks[index]
            hidden = self.boundaries[index](hidden)
            hidden = attend_to_itself(layer.attention, hidden, sight)
            hidden = attend_to_states(layer.crossattention, hidden, states)
            hidden = layer.feed_forward_chunk(hidden)
        return hidden

    def answer(self, hidden: torch.Tensor, answers: torch.Tensor | None) -> Outcome:
        """What the last block's states (B, Q, D) say: logits (B, V), rest (B, K)."""
        hidden = self.boundaries[-1](hidden)
        logits = self.decoder.cls(hidden[:, 0])
        if answers is None or hidden.shape[1] == 1:
            return Outcome(logits)
        rows = answers.to(hidden.device).repeat_interleave(len(hidden) // len(answers), dim=0)
        rest = log_probability_of_rest(lambda at: self.decoder.cls(hidden[:, at]), rows)
        return Outcome(logits, rest)


class ResumableBlip(BlipModel):
    """A `TracedModel`: BLIP's three towers, resumable between any blocks.

    `boundaries` mark the encoder's stream before, between and behind the blocks, where pyvene
    hooks it.
    """

    def __init__(self, blip: BlipForQuestionAnswering) -> None:
        super().__init__(blip)
        self.blocks = nn.ModuleList(
            EncoderBlock(layer) for layer in blip.text_encoder.encoder.layer
        )
        self.boundaries = nn.ModuleList(nn.Identity() for _ in range(len(self.blocks) + 1))
        self.decoder = AnswerDecoder(blip.text_decoder, blip.decoder_start_token_id)
        self.vision = VisionTower(blip.vision_model)
        # The question encoder's stream of a run → its answers, and the decoder's stream.
        self._decoded = WeakTensorKeyDictionary()
        self.eval()

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

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        """The states (G, R, S, D) of pictures' pixels (G, R, 3, height, width)."""
        return self.vision.finish(self.vision.stream(pixels)[-1])

    def run(
        self,
        inputs: torch.Tensor,
        pictures: PictureMemory,
        answers: torch.Tensor | None = None,
        pixels: torch.Tensor | None = None,
    ) -> RunStates:
        """Run first inputs (G, R, T, D) to the answer; answers and pixels are kept as they are."""
        shape = inputs.shape[:2]
        memory = pictures.of(range(shape[1]))
        states = [inputs.flatten(0, 1)]
        for layer in range(len(self.blocks)):
            states.append(self._encode(states[-1], memory, range(layer, layer + 1)))
        found = self._answer(states[-1], answers)
        stream, found = torch.stack(states).unflatten(1, shape), found.unflatten(shape)
        return RunStates(pictures, stream, found.logits, found.rest, answers, pixels)

    def answer(self, run: RunStates) -> Outcome:
        """What its runs answer, made again from the encoder's last states: logits (G, R, V)."""
        found = self._answer(run.stream[-1].flatten(0, 1), run.answers)
        return found.unflatten(tuple(run.stream.shape[1:3]))

    def states_at(self, run: RunStates, place: Place) -> torch.Tensor:
        """What flows through a place in each variant: (G, R, T, W)."""
        every = range(run.variants)
        states = self._stream(run, place.tower, place.index, every)
        if place.inner is not None:
            (states,), _ = collect(self, [_hooked(place)], self._block(run, place, every, states))
        return states.unflatten(0, (-1, run.variants))

    def patch(self, run: RunStates, patch: Patch, of: Sequence[int]) -> Outcome:
        """Put each unit in turn into a variant each of the run: logits (G, M, U, V)."""
        tower, units = patch.places[0].tower, len(patch.heads)
        start = min(place.index for place in patch.places)
        if len(patch.places) == 1 and patch.places[0].inner is not None:
            puts, start = [self._finish_block(run, patch, of)], start + 1
        else:
            puts = puts_of(patch, _hooked, self.heads[tower])
        hidden = repeat_rows(self._stream(run, tower, start, of), units)
        resume = partial(self._resume, run, tower, of, start, None)
        found = replace(self, puts, {"hidden": hidden, "resume": resume})
        return found.unflatten((-1, len(of), units))

    def forward(self, hidden: torch.Tensor, resume: Callable[[torch.Tensor], Any]) -> Any:
        """What pyvene calls: go on from states (B, T, D), which it writes into in place."""
        return resume(hidden)

    def _block(
        self, run: RunStates, place: Place, of: Sequence[int], hidden: torch.Tensor
    ) -> dict[str, Any]:
        """The call that runs the block of a place alone."""
        end = place.index + 1
        return {
            "hidden": hidden,
            "resume": partial(self._resume, run, place.tower, of, place.index, end),
        }

    def _finish_block(self, run: RunStates, patch: Patch, of: Sequence[int]) -> Put:
        """What is put in inside one block, as what is then put in behind it.

        The block is run once a variant and head, all positions put in.
        """
        place, heads = patch.places[0], list(dict.fromkeys(patch.heads))
        rows = repeat_rows(self._stream(run, place.tower, place.index, of), len(heads))
        puts = puts_of(patch.everywhere(heads), _hooked, self.heads[place.tower])
        states = replace(self, puts, self._block(run, place, of, rows))
        behind = Place(place.tower, place.index + 1, None)
        finished = states.unflatten(0, (-1, len(heads)))
        if len(heads) > 1:
            finished = finished[:, [heads.index(head) for head in patch.heads]]
        return Put(*_hooked(behind), finished, positions_of(patch))

    def _stream(self, run: RunStates, tower: str, index: int, of: Sequence[int]) -> torch.Tensor:
        """A copy of a tower's stream (G · M, T, D) before a block, or behind the last."""
        if tower == VISION:
            return variant_rows(self.vision.stream(pixels_of(run))[index], of)
        stream = run.stream if tower == ENCODER else self._decoder_stream(run)
        return stream[index][:, list(of)].flatten(0, 1)

    def _decoder_stream(self, run: RunStates) -> torch.Tensor:
        """That of the decoder, (L + 1, G, R, Q, D), made once for as long as the run is kept."""
        answers, stream = self._decoded.get(run.stream, (None, None))
        if stream is None or answers is not run.answers:
            states = run.stream[-1].flatten(0, 1)
            parts = [self.decoder.embed(run.answers, len(states))]
            for block in range(len(self.decoder.blocks)):
                parts.append(self.decoder(parts[-1], states, run.answers, range(block, block + 1)))
            stream = torch.stack(parts).unflatten(1, run.stream.shape[1:3])
            self._decoded[run.stream] = (run.answers, stream)
        return stream

    def _resume(
        self,
        run: RunStates,
        tower: str,
        of: Sequence[int],
        start: int,
        end: int | None,
        hidden: torch.Tensor,
    ) -> torch.Tensor | Outcome:
        """Run a tower's blocks from states (B, T, D); with no end, as far as the answer."""
        blocks = range(start, self.layers[tower] if end is None else end)
        if tower == VISION:
            hidden = self.vision(hidden, blocks)
            return hidden if end else self._see(run, of, self.vision.finish(hidden))
        if tower == DECODER:
            states = run.stream[-1][:, list(of)].flatten(0, 1)
            hidden = self.decoder(hidden, states, run.answers, blocks)
            return hidden if end else self.decoder.answer(hidden, run.answers)
        hidden = self._encode(hidden, run.pictures.of(of), blocks)
        return hidden if end else self._answer(self.boundaries[-1](hidden), run.answers)

    def _encode(self, hidden: torch.Tensor, memory: PictureMemory, blocks: range) -> torch.Tensor:
        for layer in blocks:
            hidden = self.boundaries[layer](hidden)
            hidden = self.blocks[layer](hidden, memory.keys[layer], memory.values[layer])
        return hidden

    def _see(self, run: RunStates, of: Sequence[int], pictures: torch.Tensor) -> Outcome:
        """What the questions of variants lead to, rows (B, S, D) each with a picture of its own."""
        hidden = run.stream[0][:, list(of)].flatten(0, 1)
        hidden = repeat_rows(hidden, len(pictures) // len(hidden))
        blocks: list[Any] = list(self.blocks)
        for block in blocks:
            hidden = block.read_on(hidden, pictures)
        return self._answer(hidden, run.answers)

    def _answer(self, states: torch.Tensor, answers: torch.Tensor | None) -> Outcome:
        """What the encoder's last states (B, T, D) make the decoder answer."""
        hidden = self.decoder.embed(answers, len(states))
        hidden = self.decoder(hidden, states, answers, range(len(self.decoder.blocks)))
        return self.decoder.answer(hidden, answers)


def _hooked(place: Place) -> tuple[str, int]:
    """Where pyvene finds a place: a name and a layer."""
    return pyvene_name(place.inner) if place.inner else f"{place.tower}_{STREAM}", place.index


# Sites inside a block are the unmodified layer's own modules.
register(
    ResumableBlip,
    {
        f"{ENCODER}_{STREAM}": ("boundaries[%s]", OUTPUT_HOOK),
        f"{DECODER}_{STREAM}": ("decoder.boundaries[%s]", OUTPUT_HOOK),
        f"{VISION}_{STREAM}": ("vision.boundaries[%s]", OUTPUT_HOOK),
    }
    | modules_of(
        {
            ENCODER: "blocks[%s].layer",
            DECODER: "decoder.blocks[%s]",
            VISION: "vision.blocks[%s].layer",
        }
    ),
)


def repeat_rows(rows: torch.Tensor, units: int) -> torch.Tensor:
    """Each of the rows (N, T, D) as many times in a row as there are units."""
    return rows if units == 1 else rows.repeat_interleave(units, dim=0)


def split_heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    """Turn (…, N, H · E) into (…, H, N, E)."""
    return states.unflatten(-1, (heads, -1)).transpose(-3, -2)


def attend_to_itself(
    attention: Layer, hidden: torch.Tensor, sight: torch.Tensor | None
) -> torch.Tensor:
    """Self-attention (B, Q, D); of one token, all weight is on its own value (sight: None)."""
    inner = attention.self
    if sight is None:
        return attention.output(inner.value(hidden), hidden)
    queries, keys, values = (
        split_heads(project(hidden), inner.num_attention_heads)
        for project in (inner.query, inner.key, inner.value)
    )
    context = scaled_dot_product_attention(queries, keys, values, attn_mask=sight)
    return attention.output(context.transpose(1, 2).flatten(2), hidden)


def attend_to_states(attention: Layer, hidden: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Cross-attention of few queries (B, Q, D) to states (N, T, D), which it does not project.

    q · (W h + b) = (Wᵀ q) · h + const, the constant cancels in the softmax, and the weights of
    the values sum to one; so both projections act once a query rather than once a state. Row b
    reads states b // (B / N).
    """
    inner = attention.self
    heads = inner.num_attention_heads
    queries = inner.query(hidden) / math.sqrt(inner.attention_head_size)
    queries = queries.reshape(len(states), -1, heads, inner.attention_head_size)
    key_weight = inner.key.weight.unflatten(0, (heads, -1))
    value_weight = inner.value.weight.unflatten(0, (heads, -1))
    folded = torch.einsum("nqhe,hed->nqhd", queries, key_weight).flatten(1, 2)
    weights = torch.softmax(folded @ states.transpose(1, 2), dim=-1)
    read = (weights @ states).unflatten(1, (-1, heads))
    context = torch.einsum("nqhd,hed->nqhe", read, value_weight).reshape(*hidden.shape[:2], -1)
    return attention.output(context + inner.value.bias, hidden)
