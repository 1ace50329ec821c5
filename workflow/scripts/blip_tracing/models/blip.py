"""What both ways of running BLIP have alike: its sizes, and how a question is embedded.

Shapes: as in `models.family`.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import BlipForQuestionAnswering

from blip_tracing.models.family import blocks_of, bytes_a_token, heads_of


class BlipModel(nn.Module):
    """The part of a `TracedModel` that does not depend on how its blocks are run."""

    def __init__(self, blip: BlipForQuestionAnswering) -> None:
        super().__init__()
        self.config = blip.config
        self.embeddings = blip.text_encoder.embeddings

    @property
    def layers(self) -> dict[str, int]:
        """The number of blocks of each tower."""
        return blocks_of(self.config)

    @property
    def heads(self) -> dict[str, int]:
        """The number of attention heads of each tower's blocks."""
        return heads_of(self.config)

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

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """The first block's inputs (G, T, D) of questions (G, T)."""
        return self.embeddings(input_ids=token_ids.to(self.device))

    def embed_words(self, token_ids: torch.Tensor) -> torch.Tensor:
        """The embeddings (G, T, D) of questions' tokens, before positions and norm."""
        return self.embeddings.word_embeddings(token_ids.to(self.device))

    def finish_embedding(self, words: torch.Tensor) -> torch.Tensor:
        """The first block's inputs (G, R, T, D) of embeddings, to a copy of which BLIP adds."""
        flat = words.flatten(0, 1).clone()
        return self.embeddings(inputs_embeds=flat).unflatten(0, words.shape[:2])
