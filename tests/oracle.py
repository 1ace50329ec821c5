"""The truth: one forward pass of the unmodified Hugging Face model a cell, with a torch hook."""

import torch
from transformers import BlipForQuestionAnswering

Hooked = torch.utils.hooks.RemovableHandle
# Of a block: the module whose output is what the component adds to the stream.
INSIDE = {"self_attention": "attention.output.dense"}


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
    """Call `change` on the states (1, T, D) at a site; what it returns, if anything, goes on."""
    block = model.text_encoder.encoder.layer[layer]
    component = site.removeprefix("encoder.")
    if component == "block_output" or component in INSIDE:
        module = block.get_submodule(INSIDE.get(component, ""))
        return module.register_forward_hook(lambda module, args, output: change(output))

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
