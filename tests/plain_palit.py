"""What Palit et al. (2023) would have published of the miniature: their loop, fresh noise a cell.

The vision tower's output is multiplied by N(1, level²), the clean state of one place is put back,
and the probability of the clean run's own answer is averaged over examples and draws. The noise is
from a generator that is none of the workflow's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import oracle
import pandas as pd
import torch
from project import ROOT
from transformers import BlipForQuestionAnswering
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from blip_tracing.given.pictures import open_picture
from blip_tracing.given.tokens import load_tokenizer
from blip_tracing.meaning.replication.published_averages import COLUMNS

CHECKPOINT = ROOT / "resources/miniature/checkpoint"
DIGITS = 4
Rows = Sequence[Mapping[str, str]]


@torch.inference_mode()
def publish(rows: Rows, sites: Sequence[str], level: float, draws: int, seed: int) -> pd.DataFrame:
    """The averages over rows of a sheet, so many fresh draws of each, as they are published.

    sites: those of the maps.
    """
    model = BlipForQuestionAnswering.from_pretrained(CHECKPOINT).eval()
    noise = torch.Generator().manual_seed(seed)
    found = pd.DataFrame(
        [cell for row in rows for cell in _of_example(model, row, sites, level, draws, noise)]
    )
    keys = ["quantity", "site", "layer", "position"]
    means = found.groupby(keys, dropna=False, sort=False)["value"].mean().round(DIGITS)
    told = {"window": 1, "examples": draws * len(rows), "error": 0.5 * 10**-DIGITS}
    return means.reset_index().assign(**told)[COLUMNS]


def _of_example(
    model: BlipForQuestionAnswering,
    row: Mapping[str, str],
    sites: Sequence[str],
    level: float,
    draws: int,
    noise: torch.Generator,
) -> Iterator[dict[str, Any]]:
    processor = BlipImageProcessorPil.from_pretrained(CHECKPOINT)
    pixels = processor(open_picture(ROOT / row["image"]), return_tensors="pt")["pixel_values"]
    image = oracle.image_states(model, pixels)
    ids = load_tokenizer(CHECKPOINT).encode(row["base_question"]).ids
    clean = _answers(model, ids, image)[0].softmax(-1)
    answer = int(clean.argmax())

    def noisy() -> float:
        factors = 1 + level * torch.randn(draws, *image.shape[1:], generator=noise)
        return float(_answers(model, ids, image * factors).softmax(-1)[:, answer].mean())

    for site in sites:
        positions = len(ids) if site.startswith("encoder") else 1
        for layer in range(len(model.text_encoder.encoder.layer)):
            states = oracle.site_states(model, ids, image, site, layer)
            for position in range(positions):
                handle = oracle.hook(model, site, layer, oracle.replace(position, states[position]))
                yield {"quantity": "mean", "site": site, "layer": layer, "position": position,
                       "value": noisy()}  # fmt: skip
                handle.remove()
        yield {"quantity": "floor", "site": site, "value": noisy()}
    yield {"quantity": "clean", "site": "", "value": float(clean[answer])}


def _answers(model: BlipForQuestionAnswering, ids: list[int], images: torch.Tensor) -> torch.Tensor:
    """Logits (B, V) of the first answer token to one question about B pictures' states."""
    asked = torch.tensor([ids] * len(images))
    question = model.text_encoder(
        input_ids=asked,
        attention_mask=torch.ones_like(asked),
        encoder_hidden_states=images,
        encoder_attention_mask=torch.ones(images.shape[:-1], dtype=torch.long),
    ).last_hidden_state
    answer = model.text_decoder(
        input_ids=torch.full((len(images), 1), model.decoder_start_token_id),
        encoder_hidden_states=question,
        encoder_attention_mask=torch.ones_like(asked),
    )
    return answer.logits[:, -1]
