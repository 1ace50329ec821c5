"""Trains the miniature BLIP on drawn scenes and writes it in Hugging Face layout.

    python train.py --output checkpoint

The defaults make the checkpoint that ships.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scenes import (
    COLORS,
    PLACE_PHRASES,
    THINGS,
    Question,
    Scene,
    ask_color,
    ask_place,
    ask_thing,
    draw_scene,
    questions_about,
    random_scene,
)
from torch.nn.functional import cross_entropy
from transformers import BertTokenizer, BlipConfig, BlipForQuestionAnswering
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

log = logging.getLogger("train")

# Sizes that training scenes are drawn at, in turn: mostly small ones, which are quick to draw.
DRAW_SIZES = (96, 96, 96, 96, 96, 96, 96, 240)
EVALUATION_SIZES = (96, 480)
IMAGE_SIZE = 48
SCENES_PER_BATCH = 64
# Two questions share a picture, since encoding pictures is half of the work.
QUESTIONS_PER_SCENE = 2
LEARNING_RATE = 8e-4
# Share of the steps spent on scenes of one thing, before those of two.
FIRST_PHASE = 0.15
POOL_SIZES = {"single": 4_000, "pair": 24_000}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# As in the published checkpoint, these two come after all words.
BLIP_SPECIAL = ("[DEC]", "[ENC]")


def build_vocabulary() -> dict[str, int]:
    """Every word of every question and answer, each a token, with the special tokens."""
    questions = [
        *map(ask_color, THINGS),
        *map(ask_thing, COLORS),
        *map(ask_place, PLACE_PHRASES),
    ]
    words = sorted({word for question in questions for word in question.split()})
    return {token: index for index, token in enumerate([*SPECIAL, *words, *BLIP_SPECIAL])}


def build_tokenizer(vocabulary: dict[str, int]) -> BertTokenizer:
    """A BERT tokenizer of whole words."""
    tokenizer = BertTokenizer(vocab=vocabulary, model_max_length=32)
    tokenizer.add_special_tokens({"additional_special_tokens": list(BLIP_SPECIAL)})
    return tokenizer


def build_processor() -> BlipImageProcessorPil:
    """The image processor that every picture passes, in training and later."""
    return BlipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})


def build_model(vocabulary: dict[str, int]) -> BlipForQuestionAnswering:
    """The untrained model, of the published one's parts at a small size."""
    shared = {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        # With the library's default of 0.02 the model never binds a colour to its thing.
        "initializer_range": 0.08,
    }
    text = {
        **shared,
        "vocab_size": len(vocabulary),
        "num_hidden_layers": 6,
        "max_position_embeddings": 32,
        "pad_token_id": vocabulary["[PAD]"],
        "bos_token_id": vocabulary["[DEC]"],
        "sep_token_id": vocabulary["[SEP]"],
        "eos_token_id": vocabulary["[SEP]"],
    }
    vision = {**shared, "num_hidden_layers": 3, "image_size": IMAGE_SIZE, "patch_size": 8}
    # Unlike the hidden size on purpose: nothing that reads the model may confuse the two.
    config = BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=32)
    return BlipForQuestionAnswering(config)


def pixels_of(
    scenes: Sequence[Scene], draw_sizes: Sequence[int], processor: BlipImageProcessorPil
) -> torch.Tensor:
    """The scenes drawn and processed: float32 [scenes, 3, IMAGE_SIZE, IMAGE_SIZE].

    Scenes take their sizes from `draw_sizes` in turn.
    """
    sizes = itertools.cycle(draw_sizes)
    chunks = []
    for start in range(0, len(scenes), 500):
        pictures = [draw_scene(scene, next(sizes)) for scene in scenes[start : start + 500]]
        chunks.append(processor(pictures, return_tensors="pt")["pixel_values"])
    return torch.cat(chunks)


class Pool:
    """Scenes with their pixels and questions, drawn once and asked about many times."""

    def __init__(self, scenes: Sequence[Scene], processor: BlipImageProcessorPil) -> None:
        self.pixels = pixels_of(scenes, DRAW_SIZES, processor)
        self.questions = [questions_about(scene) for scene in scenes]

    def sample(self, rng: np.random.Generator) -> tuple[torch.Tensor, list[Question]]:
        """Pixels [SCENES_PER_BATCH, 3, side, side] by chance, and each scene's questions in turn.

        The questions of one scene differ, and there are QUESTIONS_PER_SCENE of them.
        """
        rows = rng.integers(len(self.questions), size=SCENES_PER_BATCH)
        asked: list[Question] = []
        for row in rows:
            choices = self.questions[row]
            picks = rng.choice(len(choices), size=QUESTIONS_PER_SCENE, replace=False)
            asked.extend(choices[pick] for pick in picks)
        return self.pixels[torch.from_numpy(rows)], asked


def answer_logits(
    model: BlipForQuestionAnswering,
    tokenizer: BertTokenizer,
    pixels: torch.Tensor,
    picture_of: torch.Tensor,
    questions: Sequence[Question],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits at [DEC] and at the answer, [questions, 2, vocabulary], and answer ids, [questions].

    Question i is asked about the picture `pixels[picture_of[i]]`.
    """
    asked = tokenizer([question.text for question in questions], padding=True, return_tensors="pt")
    answers = [question.answer for question in questions]
    answer_ids = torch.tensor(tokenizer.convert_tokens_to_ids(answers))
    image = model.vision_model(pixel_values=pixels).last_hidden_state[picture_of]
    encoded = model.text_encoder(
        input_ids=asked.input_ids,
        attention_mask=asked.attention_mask,
        encoder_hidden_states=image,
        encoder_attention_mask=torch.ones(image.shape[:2], dtype=torch.long),
    ).last_hidden_state
    start = torch.full_like(answer_ids, model.decoder_start_token_id)
    logits = model.text_decoder(
        input_ids=torch.stack([start, answer_ids], dim=1),
        encoder_hidden_states=encoded,
        encoder_attention_mask=asked.attention_mask,
        use_cache=False,
    ).logits
    return logits, answer_ids


def train(
    model: BlipForQuestionAnswering,
    tokenizer: BertTokenizer,
    pools: dict[str, Pool],
    rng: np.random.Generator,
    steps: int,
) -> None:
    """Trains `model` in place: first on scenes of one thing, then on scenes of two."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=LEARNING_RATE, total_steps=steps, pct_start=0.1
    )
    picture_of = torch.arange(SCENES_PER_BATCH).repeat_interleave(QUESTIONS_PER_SCENE)
    model.train()
    started = time.monotonic()
    for step in range(steps):
        pool = pools["single" if step < FIRST_PHASE * steps else "pair"]
        pixels, asked = pool.sample(rng)
        logits, answers = answer_logits(model, tokenizer, pixels, picture_of, asked)
        # The end of the answer is learnt too, so that `generate` stops after one word.
        end = torch.full_like(answers, tokenizer.sep_token_id)
        loss = cross_entropy(logits[:, 0], answers) + 0.1 * cross_entropy(logits[:, 1], end)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            right = (logits[:, 0].argmax(-1) == answers).float().mean()
            log.info(
                "step %d of %d: loss %.4f, right %.3f, %.0f s",
                step + 1,
                steps,
                loss,
                right,
                time.monotonic() - started,
            )


@torch.no_grad()
def accuracy(
    model: BlipForQuestionAnswering,
    tokenizer: BertTokenizer,
    processor: BlipImageProcessorPil,
    scenes: Sequence[Scene],
    draw_size: int,
) -> dict[str, float]:
    """The share of right first answer tokens per kind of question, over every question."""
    model.eval()
    asked, right = Counter[str](), Counter[str]()
    for start in range(0, len(scenes), 50):
        chunk = scenes[start : start + 50]
        pixels = pixels_of(chunk, (draw_size,), processor)
        questions = [questions_about(scene) for scene in chunk]
        picture_of = torch.tensor([i for i, several in enumerate(questions) for _ in several])
        flat = list(itertools.chain.from_iterable(questions))
        logits, answers = answer_logits(model, tokenizer, pixels, picture_of, flat)
        hits = (logits[:, 0].argmax(-1) == answers).tolist()
        for question, hit in zip(flat, hits, strict=True):
            asked[question.kind] += 1
            right[question.kind] += hit
    return {kind: right[kind] / asked[kind] for kind in sorted(asked)}


def save(
    output: Path,
    model: BlipForQuestionAnswering,
    tokenizer: BertTokenizer,
    processor: BlipImageProcessorPil,
) -> None:
    """Writes the checkpoint's files into the folder `output`."""
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    processor.save_pretrained(output)
    vocabulary = tokenizer.get_vocab()
    words = sorted(vocabulary, key=lambda word: vocabulary[word])
    (output / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--held-out", type=int, default=1000, help="scenes in the evaluation")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "checkpoint")
    return parser.parse_args()


def main() -> None:
    """Draws, trains, evaluates on scenes that training did not see, and saves."""
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    # Independent streams, so that the number of steps does not change what is held out.
    drawing, sampling, held_out = (
        np.random.default_rng(stream) for stream in np.random.SeedSequence(arguments.seed).spawn(3)
    )
    started = time.monotonic()
    vocabulary = build_vocabulary()
    tokenizer, processor = build_tokenizer(vocabulary), build_processor()
    model = build_model(vocabulary)
    singles = [random_scene(drawing, "single") for _ in range(POOL_SIZES["single"])]
    pairs = [random_scene(drawing) for _ in range(POOL_SIZES["pair"])]
    pools = {"single": Pool(singles, processor), "pair": Pool(pairs, processor)}
    log.info(
        "%d parameters; scenes drawn in %.0f s", model.num_parameters(), time.monotonic() - started
    )
    train(model, tokenizer, pools, sampling, arguments.steps)
    save(arguments.output, model, tokenizer, processor)
    log.info(
        "trained and saved after %.0f s (%.0f s of processor time)",
        time.monotonic() - started,
        time.process_time(),
    )
    scenes = [random_scene(held_out) for _ in range(arguments.held_out)]
    for draw_size in EVALUATION_SIZES:
        found = accuracy(model, tokenizer, processor, scenes, draw_size)
        log.info("%d held-out scenes drawn at %d: %s", len(scenes), draw_size, json.dumps(found))


if __name__ == "__main__":
    main()
