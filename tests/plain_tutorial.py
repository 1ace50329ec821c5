"""What the tutorial would have printed of the miniature: its loops, one cell a forward pass.

Every noisy cell has noise of its own, as in the tutorial, from a generator that is none of the
workflow's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import oracle
import pandas as pd
import torch
from project import ROOT
from transformers import BlipForQuestionAnswering
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from blip_tracing.given.pictures import open_picture
from blip_tracing.given.tokens import load_tokenizer
from blip_tracing.meaning.replication.published import COLUMNS, WHOLE_NUMBERS
from blip_tracing.vocabulary.sites import SITES

CHECKPOINT = ROOT / "resources/miniature/checkpoint"
EXAMPLE = "animal_shirt"
# What the tutorial's figures call a layer.
SITE = SITES["encoder.block_input"].name
QUESTIONS = {
    "base": "what is the color of the animal",
    "source": "what is the color of the shirt",
}
NOISE_LEVELS, ITERATED, ITERATIONS = (2.0, 5.0), 5.0, 5

Rows = Iterator[dict[str, Any]]


@dataclass
class Tutorial:
    """The miniature with the example's two questions, and their clean runs."""

    model: BlipForQuestionAnswering
    image: torch.Tensor
    ids: dict[str, list[int]]
    words: dict[int, str]
    clean: dict[str, torch.Tensor]
    noise: torch.Generator

    @property
    def cells(self) -> list[tuple[int, int]]:
        layers = range(len(self.model.text_encoder.encoder.layer))
        return [(layer, position) for layer in layers for position in range(len(self.ids["base"]))]

    def answer(self, question: str) -> dict[str, Any]:
        """The columns that name the answer to that question."""
        token_id = int(self.clean[question].argmax())
        return {
            "example": EXAMPLE,
            "question": question,
            "token": self.words[token_id],
            "token_id": token_id,
        }

    def probability(self, question: str, logits: torch.Tensor) -> float:
        return float(logits.softmax(-1)[self.clean[question].argmax()])


def open_tutorial(seed: int = 20_231_227) -> Tutorial:
    """Load the miniature and ask both questions; the seed is that of the noise."""
    model = BlipForQuestionAnswering.from_pretrained(CHECKPOINT).eval()
    picture = open_picture(ROOT / f"resources/miniature/images/{EXAMPLE}.png")
    processor = BlipImageProcessorPil.from_pretrained(CHECKPOINT)
    image = oracle.image_states(model, processor(picture, return_tensors="pt")["pixel_values"])
    tokenizer = load_tokenizer(CHECKPOINT)
    ids = {name: tokenizer.encode(text).ids for name, text in QUESTIONS.items()}
    return Tutorial(
        model=model,
        image=image,
        ids=ids,
        words={number: word for word, number in tokenizer.get_vocab().items()},
        clean={name: oracle.answer_logits(model, ids[name], image) for name in ids},
        noise=torch.Generator().manual_seed(seed),
    )


def publish(tutorial: Tutorial) -> pd.DataFrame:
    """All that the tutorial published, as `published.read_published` reads it."""
    rows = [
        *top_tokens(tutorial),
        *patching_map(tutorial),
        *noise_levels(tutorial),
        *iterations(tutorial),
    ]
    whole: dict[str, str] = dict.fromkeys(WHOLE_NUMBERS, "Int64")
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(whole)


def top_tokens(tutorial: Tutorial) -> Rows:
    for question, logits in tutorial.clean.items():
        best = logits.topk(10).indices.tolist()
        columns = {
            "top_logit": (logits, 5),
            "top_probability": (logits.softmax(-1), 4),
        }
        for quantity, (values, digits) in columns.items():
            for rank, token_id in enumerate(best, start=1):
                token = {"token": tutorial.words[token_id], "token_id": token_id, "rank": rank}
                row = {**tutorial.answer(question), **token, "quantity": quantity}
                yield {**row, **printed(float(values[token_id]), digits)}


def patching_map(tutorial: Tutorial, site: str = SITE, width: int | None = None) -> Rows:
    """p(source answer) by the place patched at a site, called SITE as the tutorial has it.

    width: of the states that are replaced, from their beginning on; all of it by default.
    """
    base, source = tutorial.ids["base"], tutorial.ids["source"]
    for layer, position in tutorial.cells:
        run = (tutorial.model, base, tutorial.image, site, layer)
        state = oracle.site_states(tutorial.model, source, tutorial.image, site, layer)[position]
        if width:
            kept = oracle.site_states(*run)[position]
            state = torch.cat([state[:width], kept[width:]])
        p = tutorial.probability("source", oracle.patched_logits(*run, position, state))
        place = {"site": SITE, "layer": layer, "position": position}
        yield {"quantity": "patching", **tutorial.answer("source"), **place, **printed(p, 4)}


def noise_levels(tutorial: Tutorial, levels: Sequence[float] = NOISE_LEVELS) -> Rows:
    for level in levels:
        cells = traced_map(tutorial, level)
        noisy = {**tutorial.answer("base"), "site": SITE, "noise_level": level}
        for (layer, position), p in cells.items():
            place = {"layer": layer, "position": position, "draws": 1}
            yield {"quantity": "noise_cell", **noisy, **place, **printed(p, 3)}
        mean = printed(sum(cells.values()) / len(cells), 4)
        yield {"quantity": "noise_mean", **noisy, "draws": 1, **mean}


def iterations(tutorial: Tutorial, level: float = ITERATED) -> Rows:
    noisy = {**tutorial.answer("base"), "site": SITE, "noise_level": level}
    maps = [traced_map(tutorial, level) for _ in range(ITERATIONS)]
    for draw, cells in enumerate(maps):
        drawn = {"draw": draw, "draws": 1}
        for (layer, position), p in cells.items():
            place = {"layer": layer, "position": position}
            yield {"quantity": "iteration_cell", **noisy, **drawn, **place, **printed(p, 3)}
        mean = printed(sum(cells.values()) / len(cells), 4)
        yield {"quantity": "iteration_mean", **noisy, **drawn, **mean}
    for layer, position in tutorial.cells:
        mean = printed(sum(cells[layer, position] for cells in maps) / len(maps), 4)
        place = {"layer": layer, "position": position, "draws": len(maps)}
        yield {"quantity": "mean_cell", **noisy, **place, **mean}


def traced_map(tutorial: Tutorial, level: float) -> dict[tuple[int, int], float]:
    """p(base answer) by the place restored, each under noise drawn for it alone."""
    ids = tutorial.ids["base"]
    clean = {
        layer: oracle.site_states(tutorial.model, ids, tutorial.image, SITE, layer)
        for layer, _ in tutorial.cells
    }
    cells = {}
    for layer, position in tutorial.cells:
        noise = level * torch.randn(clean[0].shape, generator=tutorial.noise)
        logits = oracle.restored_logits(
            tutorial.model,
            ids,
            tutorial.image,
            noise,
            SITE,
            layer,
            position,
            clean[layer][position],
        )
        cells[layer, position] = tutorial.probability("base", logits)
    return cells


def printed(value: float, digits: int) -> dict[str, Any]:
    """A value as it would be printed, and the error of its rounding."""
    return {"value": round(value, digits), "error": 0.5 * 10**-digits, "origin": "printed"}
