"""A miniature whose answer is carried by places that are known, because its weights put it there.

`plant` writes the text weights of the miniature by hand. Sixty-four dimensions are shared out:

- CODE: which content word (a thing or a colour) stands at a position; set by its embedding alone.
- WORD, CARRIER: flags, high at content words and at the carrier's token, low elsewhere.
- HEARD: the content word that a position was told of; empty in every embedding.
- the rest, the background: random embeddings, positions, and whatever the blocks make of them.

The first head of block `layer` gives every position, by a query that is a constant, the CODE of the
position whose WORD flag is highest, in HEARD. The decoder's first head reads, by a constant too,
HEARD of the position whose CARRIER flag is highest, and names the answer that goes with it.
Everything else in the encoder (all other heads, cross-attention, feed-forward) is random, reads all
dimensions, and writes into the background alone; the decoder's other heads take the mean background
of all positions and let it trouble the answers a little (`leak`).

Hence the truth. CODE is written nowhere, and read by one head of one block: up to that block's
input what decides the answer stands at the content word and nowhere else. HEARD is written by that
head alone and read by the decoder at the carrier alone: from the next block's input on the answer
stands at the carrier. Other positions are told as well; no one asks them. A pair's two questions
differ in the content word, so these cells (`carried_by`), and no others, turn the answer when
patched, and bring it back when restored under noise: layer normalization makes of noise, however
large, a state of the common length, in which no flag is as high as a clean one. What other cells do
goes through the background, by the length that layer normalization divides by and by the leak, and
under noise by which noisy positions are left to be taken for the content word.
`tests/unit/test_planted.py` holds the unmodified model to this, cell by cell.

A second carrier makes a gate of the two. Where its CARRIER flag is high too, the decoder hears
what either says: from the moving head on each suffices and none is needed. Where `needs_both`, it
has a flag of its own (SECOND, a dimension taken from the background), by which a second head of the
decoder reads, and a word that no one asks for (`OPPONENT`) is likelier than what one head alone
says: each is needed and none suffices.

The picture feeds the background alone. Which answer goes with a word is arbitrary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertTokenizerFast, BlipConfig, BlipForQuestionAnswering

CHECKPOINT = Path(__file__).parents[1] / "resources/miniature/checkpoint"
THINGS = ("shirt", "animal", "ball", "box", "hat", "kite")
COLORS = ("red", "green", "blue", "yellow", "brown", "black", "white", "pink")
CONTENT = (*THINGS, *COLORS)
ANSWERS = (*COLORS[:6], *THINGS, "left", "right")
# Question, and the content words that fit its gap; "is" stands once in each.
TEMPLATES = (
    ("what is the color of the {}", THINGS),
    ("what thing is {}", COLORS),
    ("what color is the {} on the left", THINGS),
    ("what thing is {} at the top", COLORS),
)
ROLES = ("[CLS]", "before it", "differing word", "after it", "[SEP]")
WORD_ROLE = ROLES[2]
# The role of the token that carries the answer from the moving head on.
CARRIERS = {"[CLS]": "[CLS]", "is": "before it", "[SEP]": "[SEP]"}

WIDTH, LAYERS = 64, 6
CODE = range(len(CONTENT))
WORD, CARRIER = 14, 15
HEARD = range(16, 16 + len(ANSWERS))
BACKGROUND = range(HEARD.stop, WIDTH)
SECOND = WIDTH - 1
# Of the decoder's last state: constants, so that a faint answer is not made a loud one.
STEADY = range(32, 40)

# A clean state has the length 8 (√64), so a flag of 4 is four standard deviations of noise.
LOUD, QUIET = 4.0, -1.5
# Loud beside a listener's own noise: else a carrier without noise would hear better.
MOVED = 12.0
# Of the scores by which flags are looked for; what was heard leaves the others smaller.
SHARPNESS, READ_SHARPNESS = 3.0, 18.0
READ = 1.5
ANSWER_SCALE, OTHER_WORDS = 1.7, -4.0
# Of two carriers that are needed together: a word and its logit, between what one head says (13, at
# most 17) and both (20). Faint, then scaled up, since layer normalization makes the loud alike.
OPPONENT, OPPOSING = "[UNK]", 18.0
FAINT, SCALED_UP = 0.3, 4.0
# What a sublayer of the encoder adds to each background dimension, as a share of its spread.
STIRRING = 0.2

Layer = Any


@dataclass(frozen=True)
class Plant:
    """Where the answer stands: `layer` is the block whose head moves it, `carrier` a token.

    seed: of the background; leak: how much of it the decoder lets into the answers' logits; second:
    another such token, "" for none; needs_both: whether the answer needs both, or has it of either.
    """

    layer: int = 2
    carrier: str = "[SEP]"
    seed: int = 0
    leak: float = 0.3
    second: str = ""
    needs_both: bool = False

    def carried_by(self) -> dict[int, str]:
        """The role whose state, at each layer's input, decides the answer; of one carrier."""
        return {
            layer: WORD_ROLE if layer <= self.layer else CARRIERS[self.carrier]
            for layer in range(LAYERS)
        }


@dataclass(frozen=True)
class Pair:
    """Two questions that differ in their content word, and the answers planted for them.

    Token ids as the model reads them; word: the position of the content word.
    """

    base: list[int]
    source: list[int]
    answers: tuple[int, int]
    word: int
    template: int

    @property
    def roles(self) -> list[str]:
        """The role of each token."""
        end = len(self.base) - 1
        return [
            ROLES[0]
            if at == 0
            else ROLES[4]
            if at == end
            else ROLES[2 + (at > self.word) - (at < self.word)]
            for at in range(end + 1)
        ]


def tokenizer() -> BertTokenizerFast:
    """The miniature's."""
    return BertTokenizerFast.from_pretrained(CHECKPOINT)


def make_pairs(count: int, seed: int) -> list[Pair]:
    """Pairs by chance, templates in turn."""
    random = np.random.default_rng(seed)
    ids = tokenizer().get_vocab()
    pairs = []
    for number in range(count):
        template = number % len(TEMPLATES)
        text, words = TEMPLATES[template]
        base, source = (str(word) for word in random.choice(words, size=2, replace=False))
        questions = [
            [ids["[CLS]"], *(ids[word] for word in text.format(gap).split()), ids["[SEP]"]]
            for gap in (base, source)
        ]
        answers = tuple(ids[ANSWERS[CONTENT.index(gap)]] for gap in (base, source))
        pairs.append(
            Pair(questions[0], questions[1], answers, questions[0].index(ids[base]), template)
        )
    return pairs


@torch.no_grad()
def plant(planted: Plant) -> BlipForQuestionAnswering:
    """The miniature with such text weights; its vision tower stays as it was trained."""
    shipped = BlipForQuestionAnswering.from_pretrained(CHECKPOINT)
    config = BlipConfig.from_pretrained(CHECKPOINT)
    config.text_config.initializer_range = 1 / WIDTH**0.5
    torch.manual_seed(planted.seed)
    model = BlipForQuestionAnswering(config).eval()
    model.vision_model.load_state_dict(shipped.vision_model.state_dict())
    ids = tokenizer().get_vocab()
    _embed(model, ids, planted)
    if planted.needs_both:
        _flag_second(model.text_encoder, ids[planted.second])
    for block in model.text_encoder.encoder.layer:
        _keep_to_background(block)
        if planted.needs_both:
            _leave_second(block)
    _move(model.text_encoder.encoder.layer[planted.layer].attention)
    for block in model.text_decoder.bert.encoder.layer:
        _silence(block)
    _read(model.text_decoder.bert.encoder.layer[0].crossattention, planted.leak)
    _answer(model.text_decoder, ids)
    if planted.needs_both:
        _need_both(model.text_decoder, ids)
    return model


def _embed(model: BlipForQuestionAnswering, ids: dict[str, int], planted: Plant) -> None:
    embeddings = model.text_encoder.embeddings
    words = embeddings.word_embeddings.weight
    words[:] = 0
    words[:, list(BACKGROUND)] = torch.randn(len(words), len(BACKGROUND))
    words[:, [WORD, CARRIER]] = QUIET
    for code, word in zip(CODE, CONTENT, strict=True):
        words[ids[word], [code, WORD]] = LOUD
    words[ids[planted.carrier], CARRIER] = LOUD
    if planted.second and not planted.needs_both:
        words[ids[planted.second], CARRIER] = LOUD
    positions = embeddings.position_embeddings.weight
    positions[:] = 0
    positions[:, list(BACKGROUND)] = torch.randn(len(positions), len(BACKGROUND)) / 2


def _flag_second(encoder: Layer, carrier: int) -> None:
    """The SECOND flag is high at a token's embedding, low at all others."""
    encoder.embeddings.word_embeddings.weight[:, SECOND] = QUIET
    encoder.embeddings.word_embeddings.weight[carrier, SECOND] = LOUD
    encoder.embeddings.position_embeddings.weight[:, SECOND] = 0


def _leave_second(block: Layer) -> None:
    """No sublayer of an encoder block writes into the SECOND flag."""
    for part in (block.attention, block.crossattention, block):
        part.output.dense.weight[SECOND] = 0


def _keep_to_background(block: Layer) -> None:
    """All sublayers of an encoder block write into the background alone."""
    for dense in (
        block.attention.output.dense,
        block.crossattention.output.dense,
        block.output.dense,
    ):
        dense.weight[: BACKGROUND.start] = 0
        dense.weight[BACKGROUND.start :] *= STIRRING * (WIDTH / dense.in_features) ** 0.5


def _move(attention: Layer) -> None:
    """The first head tells every position the code of the one whose WORD flag is highest."""
    _look_for(WORD, attention.self, SHARPNESS)
    for at, code, heard in zip(range(len(CODE)), CODE, HEARD, strict=True):
        attention.self.value.weight[at, code] = 1
        attention.output.dense.weight[heard, at] = MOVED


def _look_for(flag: int, attention: Layer, sharpness: float, head: int = 0) -> None:
    """A head weighs positions by a flag, whoever asks; its values are empty."""
    size = attention.attention_head_size
    first = head * size
    for linear in (attention.query, attention.key, attention.value):
        linear.weight[first : first + size] = 0
        linear.bias[first : first + size] = 0
    attention.query.bias[first] = size**0.5
    attention.key.weight[first, flag] = sharpness


def _silence(block: Layer) -> None:
    """A decoder block that leaves its input as it is."""
    for dense in (
        block.attention.output.dense,
        block.crossattention.output.dense,
        block.output.dense,
    ):
        dense.weight[:] = 0
        dense.bias[:] = 0


def _read(attention: Layer, leak: float) -> None:
    """The first head reads HEARD at the carrier; the others the mean background, times `leak`."""
    size, inner, dense = attention.self.attention_head_size, attention.self, attention.output.dense
    inner.query.weight[:] = 0
    inner.query.bias[:] = 0
    inner.value.weight[:, : BACKGROUND.start] = 0
    dense.weight[list(HEARD), size:] = leak * torch.randn(len(HEARD), WIDTH - size) / size**0.5
    _look_for(CARRIER, inner, READ_SHARPNESS)
    for at, heard in enumerate(HEARD):
        inner.value.weight[at, heard] = 1
        dense.weight[heard, at] = READ
    dense.weight[:, size - (size - len(HEARD)) : size] = 0


def _need_both(decoder: Layer, ids: dict[str, int]) -> None:
    """The second head reads HEARD where the SECOND flag is highest; one alone does not answer."""
    attention = decoder.bert.encoder.layer[0].crossattention
    size, inner, dense = attention.self.attention_head_size, attention.self, attention.output.dense
    _look_for(SECOND, inner, READ_SHARPNESS, head=1)
    dense.weight[:, size : 2 * size] = 0
    for at, heard in enumerate(HEARD):
        inner.value.weight[size + at, heard] = 1
        dense.weight[heard, size + at] = READ
    dense.weight[list(HEARD)] *= FAINT
    decoder.bert.embeddings.word_embeddings.weight[:, list(HEARD)] *= SCALED_UP
    decoder.cls.predictions.bias[ids[OPPONENT]] = OPPOSING


def _answer(decoder: Layer, ids: dict[str, int]) -> None:
    """Each HEARD dimension speaks for one answer; the words are also the decoder's inputs."""
    decoder.bert.embeddings.position_embeddings.weight[:] = 0
    words = decoder.bert.embeddings.word_embeddings.weight
    words[:] = 0
    words[ids["[DEC]"], list(BACKGROUND)] = torch.randn(len(BACKGROUND))
    words[ids["[DEC]"], list(STEADY)] = 0  # else it would be an answer, and a loud one
    head = decoder.cls.predictions
    head.transform.dense.weight[:] = 0
    head.transform.dense.bias[:] = 0
    head.transform.dense.bias[list(STEADY)] = LOUD
    head.bias[:] = OTHER_WORDS
    for heard, answer in zip(HEARD, ANSWERS, strict=True):
        head.transform.dense.weight[heard, heard] = 1
        words[ids[answer], heard] = ANSWER_SCALE
        head.bias[ids[answer]] = 0
