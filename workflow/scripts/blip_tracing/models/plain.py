"""Any Hugging Face model through pyvene's hooks: right at every site, a whole pass a row.

What a family must say is a `forward` from the first block's inputs to the answer, and where its
towers' blocks are. It is what the fast models are held to, and what a family starts with. Shapes:
as in `models.family`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
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
    collect,
    modules_of,
    puts_of,
    pyvene_name,
    register,
    replace,
)
from blip_tracing.vocabulary.sites import DECODER, ENCODER, SITES, VISION, Place


class PlainBlip(BlipModel):
    """A `TracedModel`: an unmodified `BlipForQuestionAnswering`, hooked."""

    def __init__(self, blip: BlipForQuestionAnswering) -> None:
        super().__init__(blip)
        self.blip = blip
        self.eval()

    def read_pictures(self, states: torch.Tensor, first_layer: int = 0) -> torch.Tensor:
        """The states themselves, (G, R, S, D): the model projects them in each pass."""
        return states if states.ndim == 4 else states[:, None]

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        """The states (G, R, S, D) of pictures' pixels (G, R, 3, height, width)."""
        states = self.blip.vision_model(pixel_values=pixels.flatten(0, 1)).last_hidden_state
        return states.unflatten(0, pixels.shape[:2])

    def run(
        self,
        inputs: torch.Tensor,
        pictures: torch.Tensor,
        answers: torch.Tensor | None = None,
        pixels: torch.Tensor | None = None,
    ) -> RunStates:
        """Run first inputs (G, R, T, D) to the answer; answers and pixels are kept as they are."""
        shape = inputs.shape[:2]
        bare = RunStates(pictures, inputs[None], answers=answers)
        places = [Place(ENCODER, index, None) for index in range(self.layers[ENCODER] + 1)]
        call = self._call(bare, range(shape[1]), 1)
        states, found = collect(self, [self._hooked(place) for place in places], call)
        stream, found = torch.stack(states).unflatten(1, shape), found.unflatten(shape)
        return RunStates(pictures, stream, found.logits, found.rest, answers, pixels)

    def answer(self, run: RunStates) -> Outcome:
        """What its runs answer, made again: logits (G, R, V)."""
        found = self(**self._call(run, range(run.variants), 1))
        return found.unflatten((-1, run.variants))

    def states_at(self, run: RunStates, place: Place) -> torch.Tensor:
        """What flows through a place in each variant: (G, R, T, W)."""
        if place.tower == ENCODER and place.inner is None:
            return run.stream[place.index]
        call = self._call(run, range(run.variants), 1, place.tower)
        (states,), _ = collect(self, [self._hooked(place)], call)
        return states.unflatten(0, (-1, run.variants))

    def patch(self, run: RunStates, patch: Patch, of: Sequence[int]) -> Outcome:
        """Put each unit in turn into a variant each of the run: logits (G, M, U, V)."""
        units, tower = len(patch.heads), patch.places[0].tower
        puts = puts_of(patch, self._hooked, self.heads[tower])
        found = replace(self, puts, self._call(run, of, units, tower))
        return found.unflatten((-1, len(of), units))

    def forward(
        self,
        hidden: torch.Tensor,
        answers: torch.Tensor | None,
        pictures: torch.Tensor | None = None,
        pixels: torch.Tensor | None = None,
    ) -> Outcome:
        """What first inputs (B, T, D) about pictures lead to: logits (B, V), rest (B, K).

        answers: (B, K, A); pictures: their states (B, S, D), or pixels (B, 3, height, width).
        """
        if pictures is None:
            pictures = self.blip.vision_model(pixel_values=pixels).last_hidden_state
        mask = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        question = self.blip.text_encoder(
            encoder_embeds=hidden,
            attention_mask=mask,
            encoder_hidden_states=pictures,
            encoder_attention_mask=torch.ones_like(pictures[..., 0], dtype=torch.long),
        ).last_hidden_state
        ids, positions, sight = read_answers(answers, self.blip.decoder_start_token_id)
        unseen = None if sight is None else ~sight[None, None].to(hidden.device)
        answer = self.blip.text_decoder(
            input_ids=ids.expand(len(hidden), -1).to(hidden.device),
            position_ids=positions[None].to(hidden.device),
            attention_mask=None if unseen is None else torch.finfo(hidden.dtype).min * unseen,
            encoder_hidden_states=question,
            encoder_attention_mask=mask,
        )
        first = answer.logits[:, 0]
        if answers is None or sight is None:
            return Outcome(first)
        return Outcome(first, log_probability_of_rest(lambda at: answer.logits[:, at], answers))

    def _call(
        self, run: RunStates, of: Sequence[int], repeats: int, tower: str = ENCODER
    ) -> dict[str, Any]:
        """The model's arguments for a variant each, every one `repeats` times in a row.

        tower: that of the sites; a run begins with the pixels where it is the vision tower.
        """
        seen = {"pictures": run.pictures} if tower != VISION else {"pixels": pixels_of(run)}
        rows = {
            name: variant_rows(part, of).repeat_interleave(repeats, dim=0)
            for name, part in {"hidden": run.stream[0], **seen}.items()
        }
        answers = run.answers
        if answers is not None:
            answers = answers.to(self.device).repeat_interleave(len(of) * repeats, dim=0)
        return {**rows, "answers": answers}

    def _hooked(self, place: Place) -> tuple[str, int]:
        """Where pyvene finds a place: a site's name and a layer."""
        if place.inner is not None:
            return pyvene_name(place.inner), place.index
        last = place.index == self.layers[place.tower]
        component = "block_output" if last else "block_input"
        return pyvene_name(SITES[f"{place.tower}.{component}"]), place.index - last


register(
    PlainBlip,
    modules_of(
        {
            ENCODER: "blip.text_encoder.encoder.layer[%s]",
            DECODER: "blip.text_decoder.bert.encoder.layer[%s]",
            VISION: "blip.vision_model.encoder.layers[%s]",
        }
    ),
)
