"""Any Hugging Face model through pyvene's hooks: right at every site, a whole pass a row.

What a family must say is a `forward` from the first block's inputs to the first answer token's
logits, and where its towers' blocks are. It is what the fast models are held to, and what a family
starts with. Shapes: as in `models.family`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import BlipForQuestionAnswering

from blip_tracing.models.family import RunStates, bytes_a_token, expand_positions
from blip_tracing.models.intervene import collect, modules_of, pyvene_name, register, replace
from blip_tracing.vocabulary.sites import SITES, Place


class PlainBlip(nn.Module):
    """A `TracedModel`: an unmodified `BlipForQuestionAnswering`, hooked."""

    def __init__(self, blip: BlipForQuestionAnswering) -> None:
        super().__init__()
        self.blip, self.config = blip, blip.config
        self.eval()

    @property
    def layers(self) -> dict[str, int]:
        """The number of blocks of each tower."""
        return {"encoder": len(self.blip.text_encoder.encoder.layer)}

    @property
    def width(self) -> int:
        """The question encoder's hidden size D."""
        return self.config.text_config.hidden_size

    @property
    def device(self) -> torch.device:
        """Where the weights are; pyvene asks for it."""
        return self.blip.device

    def bytes_a_token(self, tokens: int) -> float:
        """What a token of a question of so many takes while a block is run."""
        weight = self.blip.text_encoder.embeddings.word_embeddings.weight
        return bytes_a_token(self.config.text_config, weight, tokens)

    def read_pictures(self, states: torch.Tensor, first_layer: int = 0) -> torch.Tensor:
        """The states themselves, (G, R, S, D): the model projects them in each pass."""
        return states if states.ndim == 4 else states[:, None]

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """The first block's inputs (G, T, D) of questions (G, T)."""
        return self.blip.text_encoder.embeddings(input_ids=token_ids.to(self.device))

    def run(self, inputs: torch.Tensor, pictures: torch.Tensor) -> RunStates:
        """Run first inputs (G, R, T, D) to the first answer token."""
        shape = inputs.shape[:2]
        call = self._call(RunStates(pictures, inputs[None]), range(shape[1]), 1)
        names = [
            (pyvene_name(SITES["encoder.block_input"]), layer)
            for layer in range(self.layers["encoder"])
        ]
        last = (pyvene_name(SITES["encoder.block_output"]), self.layers["encoder"] - 1)
        states, logits = collect(self, [*names, last], call, inputs.flatten(0, 1).shape)
        stream = torch.stack(states).unflatten(1, shape)
        return RunStates(pictures, stream, logits.unflatten(0, shape))

    def states_at(self, run: RunStates, place: Place) -> torch.Tensor:
        """What flows through a place in each variant: (G, R, T, D)."""
        if place.inner is None:
            return run.stream[place.index]
        shape = run.stream.shape[1:3]
        call = self._call(run, range(run.variants), 1)
        (states,), _ = collect(self, [self._hooked(place)], call, call["hidden"].shape)
        return states.unflatten(0, shape)

    def patch_each(
        self, run: RunStates, place: Place, donors: torch.Tensor, of: Sequence[int]
    ) -> torch.Tensor:
        """Put each position of donors (G, M, T, D) in turn into a variant each: (G, M, T, V)."""
        examples, rows, tokens, width = donors.shape
        logits = replace(
            self,
            *self._hooked(place),
            self._call(run, of, tokens),
            donors.reshape(-1, 1, width),
            expand_positions(tokens, examples * rows),
        )
        return logits.reshape(examples, rows, tokens, -1)

    def patch_all(
        self, run: RunStates, place: Place, donors: torch.Tensor, of: Sequence[int]
    ) -> torch.Tensor:
        """Put all positions of donors (G, M, T, D) at once into a variant each: (G, M, V)."""
        examples, rows, tokens, _ = donors.shape
        logits = replace(
            self,
            *self._hooked(place),
            self._call(run, of, 1),
            donors.flatten(0, 1),
            [range(tokens)] * (examples * rows),
        )
        return logits.unflatten(0, (examples, rows))

    def resume(self, run: RunStates, place: Place, of: Sequence[int]) -> torch.Tensor:
        """Run variants with nothing put in: logits (G, M, V)."""
        return self(**self._call(run, of, 1)).unflatten(0, (-1, len(of)))

    def forward(self, hidden: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
        """Logits of the first answer token (B, V), of first inputs (B, T, D), states (B, S, D)."""
        mask = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        question = self.blip.text_encoder(
            encoder_embeds=hidden,
            attention_mask=mask,
            encoder_hidden_states=pictures,
            encoder_attention_mask=torch.ones_like(pictures[..., 0], dtype=torch.long),
        ).last_hidden_state
        start = torch.full((len(hidden), 1), self.blip.decoder_start_token_id, device=hidden.device)
        answer = self.blip.text_decoder(
            input_ids=start, encoder_hidden_states=question, encoder_attention_mask=mask
        )
        return answer.logits[:, -1]

    def _call(self, run: RunStates, of: Sequence[int], repeats: int) -> dict[str, torch.Tensor]:
        """The model's arguments for a variant each, every one `repeats` times in a row."""
        hidden = run.stream[0][:, list(of)]
        shared = run.pictures.shape[1] == 1
        pictures = run.pictures[:, [0] * len(of) if shared else list(of)]
        return {
            name: part.flatten(0, 1).repeat_interleave(repeats, dim=0)
            for name, part in (("hidden", hidden), ("pictures", pictures))
        }

    def _hooked(self, place: Place) -> tuple[str, int]:
        """Where pyvene finds a place: a site's name and a layer."""
        if place.inner is not None:
            return pyvene_name(place.inner), place.index
        last = place.index == self.layers[place.tower]
        component = "block_output" if last else "block_input"
        return pyvene_name(SITES[f"{place.tower}.{component}"]), place.index - last


register(
    PlainBlip,
    modules_of({"encoder": "blip.text_encoder.encoder.layer[%s]"}),
    width="text_config.hidden_size",
)
