"""The truth: one forward pass of the unmodified Hugging Face model a cell, with a torch hook."""

import torch
from transformers import BlipForQuestionAnswering

Hooked = torch.utils.hooks.RemovableHandle


@torch.inference_mode()
def answer_logits(
    model: BlipForQuestionAnswering, token_ids: list[int], pixels: torch.Tensor
) -> torch.Tensor:
    """Logits (V,) of the first answer token, as `BlipForQuestionAnswering.forward` computes them.

    (That method keeps its decoder's logits to itself, so its three calls stand here.)
    """
    input_ids = torch.tensor([token_ids])
    image = model.vision_model(pixel_values=pixels).last_hidden_state
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
    pixels: torch.Tensor,
    site: str,
    layer: int,
) -> torch.Tensor:
    """The states (T, D) that flow through a site in a clean run."""
    seen: list[torch.Tensor] = []
    handle = hook(model, site, layer, lambda states: seen.append(states.clone()))
    answer_logits(model, token_ids, pixels)
    handle.remove()
    return seen[0][0]


def hook(model: BlipForQuestionAnswering, site: str, layer: int, change) -> Hooked:
    """Call `change` on the states (1, T, D) at a site; what it returns, if anything, goes on."""
    block = model.text_encoder.encoder.layer[layer]
    if site == "block_output":
        return block.register_forward_hook(lambda module, args, output: change(output))

    def change_input(module, args):
        changed = change(args[0])
        return None if changed is None else (changed, *args[1:])

    return block.register_forward_pre_hook(change_input)


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
    source: list[int],
    pixels: torch.Tensor,
    site: str,
    layer: int,
    position: int,
) -> torch.Tensor:
    """Logits of the base question with the source question's state at one place."""
    donor = site_states(model, source, pixels, site, layer)
    handle = hook(model, site, layer, replace(position, donor[position]))
    logits = answer_logits(model, base, pixels)
    handle.remove()
    return logits


def corrupted_logits(
    model: BlipForQuestionAnswering,
    question: list[int],
    pixels: torch.Tensor,
    noise: torch.Tensor,
    restored: tuple[str, int, int] | None = None,
) -> torch.Tensor:
    """Logits under noise (T, D) on the first block's input, with one clean state put back.

    restored: (site, layer, position), or None for the floor.
    """
    clean = None if restored is None else site_states(model, question, pixels, *restored[:2])
    handles = [hook(model, "block_input", 0, lambda states: states + noise)]
    if restored is not None and clean is not None:
        site, layer, position = restored
        handles.append(hook(model, site, layer, replace(position, clean[position])))
    logits = answer_logits(model, question, pixels)
    for handle in handles:
        handle.remove()
    return logits
