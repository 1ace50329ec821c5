"""The truth of the vision tower: a pass of the unmodified model a cell, with a torch hook."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import torch
from transformers import BlipForQuestionAnswering

Change = Callable[[torch.Tensor], torch.Tensor | None]
Hooked = torch.utils.hooks.RemovableHandle
# Of a block: the module whose input, or output, flows through the component.
INPUTS = {
    "block_input": "",
    "self_attention_heads": "self_attn.projection",
    "self_attention_state": "layer_norm2",
    "mlp_neurons": "mlp.fc2",
}
OUTPUTS = {"self_attention": "self_attn.projection", "mlp": "mlp.fc2", "block_output": ""}


def hook(model: BlipForQuestionAnswering, site: str, layer: int, change: Change) -> Hooked:
    """Call `change` on the states (1, S, W) at a site; what it returns, if anything, goes on."""
    block = model.vision_model.encoder.layers[layer]
    component = site.removeprefix("vision.")
    if component in OUTPUTS:
        module = block.get_submodule(OUTPUTS[component])
        return module.register_forward_hook(lambda module, args, output: change(output))

    def change_input(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        # In place: the norm and the residual around the MLP read one tensor. (No other input is
        # read again, but a block's own, by its residual, which is to have the change too.)
        if (changed := change(args[0])) is not None:
            args[0].copy_(changed)

    return block.get_submodule(INPUTS[component]).register_forward_pre_hook(change_input)


@torch.inference_mode()
def site_states(
    model: BlipForQuestionAnswering, pixels: torch.Tensor, site: str, layer: int
) -> torch.Tensor:
    """The states (S, W) that flow through a site where a picture (1, 3, h, w) is seen."""
    seen: list[torch.Tensor] = []
    handle = hook(model, site, layer, lambda states: seen.append(states.clone()))
    model.vision_model(pixel_values=pixels)
    handle.remove()
    return seen[0][0]


@torch.inference_mode()
def patched_image(
    model: BlipForQuestionAnswering,
    pixels: torch.Tensor,
    put_in: Mapping[tuple[str, int], torch.Tensor],
    patches: Sequence[int],
    columns: slice = slice(None),
) -> torch.Tensor:
    """The last states (1, S, D) of a picture, states (S, W) put in at patches of sites.

    put_in: (site, layer) → the states; columns: which of their numbers.
    """
    with ExitStack() as hooks:
        for (site, layer), states in put_in.items():

            def change(there: torch.Tensor, states: torch.Tensor = states) -> torch.Tensor:
                changed = there.clone()
                for patch in patches:
                    changed[0, patch, columns] = states[patch, columns]
                return changed

            hooks.callback(hook(model, site, layer, change).remove)
        return model.vision_model(pixel_values=pixels).last_hidden_state
