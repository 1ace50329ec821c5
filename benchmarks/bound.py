"""The fewest floating-point operations that a cell needs, when nothing known is computed again.

Known are the donor's states, the receiver's states wherever no patch has come yet, and whatever a
picture's or the question encoder's unpatched states are projected to. A cell needs what lies behind
its patch: of a patch between blocks every block behind it; of a patch inside a block that block's
remaining sublayers for the tokens that were put in, since they act on each token alone, and then
every block behind it; then the towers behind, and the vocabulary's logits at the first answer
position. (The first block behind a patch knows the keys and queries of the other tokens; they are
counted all the same, about a fifth of that one block.) Products alone are counted, a multiply-add
as two. With width D, MLP F, heads H, tokens T, picture states S, vocabulary V and blocks L:

- a block of the question encoder, a token: 6 D² (projections of both attentions, less the cross-
  attention's keys and values, which belong to the picture) + 2 T D + 2 S D + 2 D F;
- where the picture itself is patched, its keys and values are new in each row: 2 S D² + 2 T S D a
  block, or, with both projections folded into the T queries, 2 T D² + 2 H T S D, whichever is less;
- a block of the vision tower, a state: 4 D² + 2 S D + 2 D F;
- a block of the decoder at its first position: 2 D² (a sequence of one attends to itself alone),
  2 D² + 2 D F, and the cross-attention's 2 T D where the encoder's states are known; where they are
  patched 2 T D² + 2 T D or, folded, 2 D² + 2 H T D, whichever is less;
- the logits: D² + D V.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))

from blip_tracing.vocabulary.sites import DECODER, ENCODER, VISION, Site, window_of


@dataclass(frozen=True)
class Shape:
    """Sizes of a BLIP: the text config's and the vision config's hidden size are the same."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    image_size: int
    patch_size: int

    @property
    def image_states(self) -> int:
        """States of one image: its patches and the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


def operations(shape: Shape, site: Site, layer: int, window: int, tokens: int, put: float) -> float:
    """Floating-point operations of a cell: a patch of `put` tokens or patches at a site.

    window: of layers about `layer`; tokens: T, of the question.
    """
    first = window_of(layer, window, shape.layers)[0]
    return 2 * _BEHIND[site.tower](shape, site, first, tokens, put)


def block(shape: Shape, tokens: int) -> float:
    """Multiply-adds of a question encoder's block whose picture is known, all T tokens."""
    return tokens * (_self_attention(shape, tokens) + _cross_attention(shape) + _mlp(shape))


def vision_block(shape: Shape) -> float:
    """Multiply-adds of a block of the vision tower, all S states."""
    return shape.image_states * (_self_attention(shape, shape.image_states) + _mlp(shape))


def decoder(shape: Shape, tokens: int) -> float:
    """Multiply-adds of the decoder, from T states that are new in each row to the logits."""
    d, heads = shape.hidden, shape.heads
    read = min(2 * tokens * d * d + 2 * tokens * d, 2 * d * d + 2 * heads * tokens * d)
    return shape.layers * (4 * d * d + read + _mlp(shape)) + _head(shape)


def _behind_encoder(shape: Shape, site: Site, layer: int, tokens: int, put: float) -> float:
    rest = put * _rest(shape, site, _cross_attention(shape))
    return rest + _whole(shape, site, layer) * block(shape, tokens) + decoder(shape, tokens)


def _behind_decoder(shape: Shape, site: Site, layer: int, tokens: int, put: float) -> float:
    d = shape.hidden
    cross = 2 * d * d + 2 * tokens * d
    a_block = 2 * d * d + cross + _mlp(shape)
    return _rest(shape, site, cross) + _whole(shape, site, layer) * a_block + _head(shape)


def _behind_vision(shape: Shape, site: Site, layer: int, tokens: int, put: float) -> float:
    d, states = shape.hidden, shape.image_states
    folded = 2 * tokens * d * d + 2 * shape.heads * tokens * states * d
    read = min(2 * states * d * d + 2 * tokens * states * d, folded)
    own = block(shape, tokens) - 2 * tokens * states * d + read
    tower = put * _rest(shape, site, 0) + _whole(shape, site, layer) * vision_block(shape)
    return tower + shape.layers * own + decoder(shape, tokens)


_BEHIND = {ENCODER: _behind_encoder, DECODER: _behind_decoder, VISION: _behind_vision}


def _whole(shape: Shape, site: Site, layer: int) -> int:
    """How many whole blocks lie behind a site of a layer."""
    return shape.layers - layer - (1 if site.boundary is None else site.boundary)


def _rest(shape: Shape, site: Site, cross: float) -> float:
    """Multiply-adds of a block behind a site inside it, a token; cross: its cross-attention's."""
    if site.boundary is not None:
        return 0
    # Of one head only its own rows of the output projection.
    output = shape.hidden**2 / shape.heads
    return {
        "self_attention_heads": output + cross + _mlp(shape),
        "self_attention": cross + _mlp(shape),
        "self_attention_state": cross + _mlp(shape),
        "cross_attention_heads": output + _mlp(shape),
        "cross_attention": _mlp(shape),
        "cross_attention_state": _mlp(shape),
        "mlp_neurons": _mlp(shape) / 2,
        "mlp": 0,
    }[site.component]


def _self_attention(shape: Shape, tokens: int) -> float:
    return 4 * shape.hidden**2 + 2 * tokens * shape.hidden


def _cross_attention(shape: Shape) -> float:
    return 2 * shape.hidden**2 + 2 * shape.image_states * shape.hidden


def _mlp(shape: Shape) -> float:
    return 2 * shape.hidden * shape.intermediate


def _head(shape: Shape) -> float:
    return shape.hidden**2 + shape.hidden * shape.vocabulary
