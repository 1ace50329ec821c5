"""The truth: one forward pass of the unmodified Hugging Face model a cell, with a torch hook."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import BlipForQuestionAnswering

Hooked = torch.utils.hooks.RemovableHandle
# Of a block of either text tower: the module whose input or output a component is.
IN, OUT = "in", "out"
INSIDE = {
    "block_input": ("", IN),
    "self_attention_heads": ("attention.output.dense", IN),
    "self_attention": ("attention.output.dense", OUT),
    "self_attention_state": ("attention.output", OUT),
    "cross_attention_heads": ("crossattention.output.dense", IN),
    "cross_attention": ("crossattention.output.dense", OUT),
    "cross_attention_state": ("crossattention.output", OUT),
    "mlp_neurons": ("output.dense", IN),
    "mlp": ("output.dense", OUT),
    "block_output": ("", OUT),
}


@torch.inference_mode()
def image_states(model: BlipForQuestionAnswering, pixels: torch.Tensor) -> torch.Tensor:
    """The vision model's last states (1, S, D) of one picture (1, 3, height, width)."""
    return model.vision_model(pixel_values=pixels).last_hidden_state


@torch.inference_mode()
def answer_logits(
    model: BlipForQuestionAnswering, token_ids: list[int], image: torch.Tensor
) -> torch.Tensor:
    """Logits (V,) of the first answer token, as `BlipForQuestionAnswering.forward` computes them.

    (That method keeps its decoder's logits to itself, so its three calls stand here and in
    `image_states`.) image: (1, S, D).
    """
    input_ids = torch.tensor([token_ids])
    question = model.text_encoder(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        encoder_hidden_states=image,
        encoder_attention_mask=torch.ones(image.shape[:-1], dtype=torch.long),
    ).last_hidden_state
    answer = model.text_decoder(
        input_ids=torch.tensor([[model.decoder_start_token_id]]),
        encoder_hidden_states=question,
        encoder_attention_mask=torch.ones_like(input_ids),
    )
    return answer.logits[0, -1]


def site_states(
    model: BlipForQuestionAnswering,
    token_ids: list[int],
    image: torch.Tensor,
    site: str,
    layer: int,
) -> torch.Tensor:
    """The states (T, D) that flow through a site in a clean run."""
    seen: list[torch.Tensor] = []
    handle = hook(model, site, layer, lambda states: seen.append(states.clone()))
    answer_logits(model, token_ids, image)
    handle.remove()
    return seen[0][0]


def hook(model: BlipForQuestionAnswering, site: str, layer: int, change) -> Hooked:
    """Call `change` on the states (1, T, W) at a site; what it returns, if anything, goes on."""
    tower, _, component = site.rpartition(".")
    towers = {"decoder": model.text_decoder.bert, "encoder": model.text_encoder}
    path, side = INSIDE[component]
    module = towers[tower or "encoder"].encoder.layer[layer].get_submodule(path)
    if side == OUT:
        return module.register_forward_hook(lambda module, args, output: change(output))

    def change_input(module, args):
        changed = change(args[0])
        return None if changed is None else (changed, *args[1:])

    return module.register_forward_pre_hook(change_input)


def replace(position: int, state: torch.Tensor):
    """A change that puts `state` (D,) at one position."""

    def change(states: torch.Tensor) -> torch.Tensor:
        states = states.clone()
        states[:, position] = state
        return states

    return change


def patched_logits(
    model: BlipForQuestionAnswering,
    base: list[int],
    image: torch.Tensor,
    site: str,
    layer: int,
    position: int,
    state: torch.Tensor,
) -> torch.Tensor:
    """Logits of the base question with another run's state (D,) at one place."""
    handle = hook(model, site, layer, replace(position, state))
    logits = answer_logits(model, base, image)
    handle.remove()
    return logits


def corrupted_states(
    model: BlipForQuestionAnswering,
    question: list[int],
    image: torch.Tensor,
    noise: torch.Tensor,
    site: str,
    layer: int,
) -> torch.Tensor:
    """The states (T, D) that flow through a site under noise (T, D) on the first block's input."""
    noisy = hook(model, "block_input", 0, lambda states: states + noise)
    states = site_states(model, question, image, site, layer)
    noisy.remove()
    return states


def corrupted_logits(
    model: BlipForQuestionAnswering, question: list[int], image: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """Logits under noise (T, D) on the first block's input, nothing restored: the floor."""
    handle = hook(model, "block_input", 0, lambda states: states + noise)
    logits = answer_logits(model, question, image)
    handle.remove()
    return logits


def restored_logits(
    model: BlipForQuestionAnswering,
    question: list[int],
    image: torch.Tensor,
    noise: torch.Tensor,
    site: str,
    layer: int,
    position: int,
    state: torch.Tensor,
) -> torch.Tensor:
    """Logits under the same noise with the clean state (D,) put back at one place."""
    noisy = hook(model, "block_input", 0, lambda states: states + noise)
    logits = patched_logits(model, question, image, site, layer, position, state)
    noisy.remove()
    return logits


@dataclass(frozen=True)
class Put:
    """States that are put in at a site of a layer, at positions, of one head or all.

    states: (T, W); in the decoder one (n, W) for each followed answer.
    """

    site: str
    layer: int
    positions: Sequence[int]
    states: Any
    head: int | None = None


@contextmanager
def put_in(
    model: BlipForQuestionAnswering, tower: str, puts: Sequence[Put], answer: int | None = None
) -> Iterator[None]:
    """While it lasts, these states take the place of what flows through the sites of a tower."""
    heads = model.config.text_config.num_attention_heads

    def change(put: Put):
        given = put.states if answer is None else put.states[answer]

        def changed(states: torch.Tensor) -> torch.Tensor:
            states, size = states.clone(), states.shape[-1] // heads
            first = 0 if put.head is None else put.head * size
            last = None if put.head is None else first + size
            for position in put.positions:
                if position < states.shape[1]:
                    states[:, position, first:last] = given[position, first:last]
            return states

        return changed

    handles = [
        hook(model, put.site, put.layer, change(put)) for put in puts if put.site.startswith(tower)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def question_states(
    model: BlipForQuestionAnswering, token_ids: list[int], image: torch.Tensor
) -> torch.Tensor:
    """The question encoder's last states (1, T, D)."""
    input_ids = torch.tensor([token_ids])
    return model.text_encoder(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        encoder_hidden_states=image,
        encoder_attention_mask=torch.ones(image.shape[:-1], dtype=torch.long),
    ).last_hidden_state


@torch.inference_mode()
def outcome(
    model: BlipForQuestionAnswering,
    token_ids: list[int],
    image: torch.Tensor,
    answers: Sequence[list[int]],
    puts: Sequence[Put] = (),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (V,) of the first answer token, and each answer's log-probability (K,) behind it.

    A pass of the decoder an answer, which reads [DEC] and all its tokens but the last.
    """
    with put_in(model, "encoder", puts):
        question = question_states(model, token_ids, image)
    rest, first = [], torch.empty(0)
    for number, answer in enumerate(answers):
        with put_in(model, "decoder", puts, number):
            logits = decoder_logits(model, question, answer)
        first = logits[0]
        behind = logits.log_softmax(-1)
        rest.append(sum((behind[at, answer[at]] for at in range(1, len(answer))), torch.zeros(())))
    return first, torch.stack(rest)


def decoder_logits(
    model: BlipForQuestionAnswering, question: torch.Tensor, answer: list[int]
) -> torch.Tensor:
    """Logits (n, V) behind [DEC] and each of an answer's tokens but the last."""
    ids = torch.tensor([[model.decoder_start_token_id, *answer[:-1]]])
    return model.text_decoder(
        input_ids=ids,
        encoder_hidden_states=question,
        encoder_attention_mask=torch.ones(question.shape[:-1], dtype=torch.long),
    ).logits[0]


@torch.inference_mode()
def decoder_states(
    model: BlipForQuestionAnswering,
    token_ids: list[int],
    image: torch.Tensor,
    answers: Sequence[list[int]],
    site: str,
    layer: int,
) -> list[torch.Tensor]:
    """What flows through a site of the decoder under each answer, (n, W)."""
    question, seen = question_states(model, token_ids, image), []
    handle = hook(model, site, layer, lambda states: seen.append(states[0].clone()))
    for answer in answers:
        decoder_logits(model, question, answer)
    handle.remove()
    return seen
