"""pyvene defines and applies every intervention; here is the one call of it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import nn

# On import it prints that it would like a library which is not needed here.
with redirect_stdout(io.StringIO()):
    from pyvene import (
        CollectIntervention,
        IntervenableConfig,
        IntervenableModel,
        RepresentationConfig,
        VanillaIntervention,
        type_to_dimension_mapping,
        type_to_module_mapping,
    )

from blip_tracing.vocabulary.sites import INPUT, SITES, Site

INPUT_HOOK = "register_forward_pre_hook"
OUTPUT_HOOK = "register_forward_hook"


def pyvene_name(site: Site) -> str:
    """A site as pyvene calls it: its keys may hold no dot."""
    return site.name.replace(".", "_")


def modules_of(blocks: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """pyvene's mapping of all sites; blocks: tower → path of its blocks, %s for the layer."""
    return {
        pyvene_name(site): (
            ".".join(part for part in (blocks[site.tower], site.module) if part),
            INPUT_HOOK if site.hook == INPUT else OUTPUT_HOOK,
        )
        for site in SITES.values()
        if site.tower in blocks
    }


def register(model: type[nn.Module], modules: Mapping[str, tuple[str, str]], width: str) -> None:
    """Tell pyvene a model's sites: name → (module path with %s for the layer, hook).

    width: the configuration's key of the states' true width. (pyvene's own mapping of BLIP takes
    `image_text_hidden_size`, 256 where the states are 768 wide: it patches a third.)
    """
    type_to_module_mapping[model] = dict(modules)
    type_to_dimension_mapping[model] = dict.fromkeys(modules, (width,))


def replace(
    model: nn.Module,
    site: str,
    layer: int,
    inputs: dict[str, Any],
    replacement: torch.Tensor,
    positions: Sequence[Sequence[int]],
) -> torch.Tensor:
    """Replace U positions a row at a site of the model called with `inputs`; what it returns.

    replacement: (B, U, D); positions: B times U indices. pyvene writes in place into what flows
    through the site.
    """
    config = IntervenableConfig(
        RepresentationConfig(layer, site, "pos", replacement.shape[1]),
        intervention_types=VanillaIntervention,
    )
    intervenable = IntervenableModel(config, model)
    (key,) = intervenable.representations
    _, found = intervenable(
        inputs,
        unit_locations={"sources->base": (None, [[list(places) for places in positions]])},
        source_representations={key: replacement},
    )
    return found


def collect(
    model: nn.Module, sites: Sequence[tuple[str, int]], inputs: dict[str, Any], shape: torch.Size
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Call the model with `inputs` and collect what flows through sites (name, layer).

    shape: (B, T, …) of it. Returns the states, each (B, T, D), and what the model returns.
    """
    rows, tokens = shape[:2]
    config = IntervenableConfig(
        [RepresentationConfig(layer, site, "pos", tokens) for site, layer in sites],
        intervention_types=CollectIntervention,
    )
    intervenable = IntervenableModel(config, model)
    everywhere = [list(range(tokens))] * rows
    (_, collected), found = intervenable(inputs, unit_locations={"base": [everywhere] * len(sites)})
    return [states.reshape(rows, tokens, -1) for states in collected], found
