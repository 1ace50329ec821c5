"""pyvene defines and applies every intervention; here is the one call of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

# On import it prints that it would like a library which is not needed here.
with redirect_stdout(io.StringIO()):
    from pyvene import (
        CollectIntervention,
        ConstantSourceIntervention,
        IntervenableConfig,
        IntervenableModel,
        LocalistRepresentationIntervention,
        RepresentationConfig,
        type_to_dimension_mapping,
        type_to_module_mapping,
    )

from blip_tracing.models.family import Patch
from blip_tracing.vocabulary.sites import INPUT, SITES, Place, Site

INPUT_HOOK = "register_forward_pre_hook"
OUTPUT_HOOK = "register_forward_hook"


@dataclass(frozen=True)
class Put:
    """States that are put in at a site of a layer, as pyvene calls it, and where.

    states: (N, 1 or U, T, W) for the N · U rows of a batch; chosen: (N or 1, 1 or U, T, 1 or W),
    true where they take the place of what is there.
    """

    site: str
    layer: int
    states: torch.Tensor
    chosen: torch.Tensor


class Replacing(ConstantSourceIntervention, LocalistRepresentationIntervention):
    """pyvene's vanilla intervention on the chosen positions and numbers of each row alone."""

    def __init__(self, put: Put) -> None:
        super().__init__()
        self.put = put

    def forward(
        self, base: torch.Tensor, source: None = None, subspaces: None = None
    ) -> torch.Tensor:
        """Replace in what flows through the site, (B, T, W)."""
        rows = base.unflatten(0, (len(self.put.states), -1))
        return torch.where(self.put.chosen, self.put.states, rows).flatten(0, 1)


def puts_of(patch: Patch, name: Callable[[Place], tuple[str, int]], heads: int) -> list[Put]:
    """A patch at each of its places.

    name: a place as pyvene finds it, a name and a layer; heads: the tower's number of them.
    """
    return [
        Put(
            *name(place),
            donors.flatten(0, 1)[:, None],
            positions_of(patch) & _columns(patch.heads, heads, donors),
        )
        for place, donors in zip(patch.places, patch.donors, strict=True)
    ]


def positions_of(patch: Patch) -> torch.Tensor:
    """Which positions each unit puts in, for the rows of each example: (G · M, U, T, 1)."""
    donors = patch.donors[0]
    chosen = patch.positions.to(donors.device).repeat_interleave(donors.shape[1], dim=0)
    return chosen[..., None]


def _columns(chosen: Sequence[int | None], heads: int, states: torch.Tensor) -> torch.Tensor:
    """Which numbers of a state each unit puts in, (U, 1, W), or (1, 1, 1) where it is all."""
    if all(head is None for head in chosen):
        return torch.ones(1, 1, 1, dtype=torch.bool, device=states.device)
    of = torch.arange(states.shape[-1], device=states.device) // (states.shape[-1] // heads)
    every = torch.ones_like(of, dtype=torch.bool)
    return torch.stack([every if head is None else of == head for head in chosen])[:, None]


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


# The sites of each class of models: name → (module path with %s for the layer, hook).
MODULES: dict[type[nn.Module], dict[str, tuple[str, str]]] = {}


def register(model: type[nn.Module], modules: Mapping[str, tuple[str, str]]) -> None:
    """Say where a model's sites are: name → (module path with [%s] for the layer, hook)."""
    MODULES[model] = dict(modules)


class Hooked(nn.Module):
    """What pyvene is given: the modules of a model that it hooks, and the call of the model.

    Not the model itself, for pyvene walks through all modules of what it is given at each call,
    which takes longer than a small batch.
    """

    config = None

    def __init__(self, model: nn.Module, sites: Sequence[tuple[str, int]]) -> None:
        super().__init__()
        paths = [
            MODULES[type(model)][site][0].replace("[%s]", f".{layer}") for site, layer in sites
        ]
        self.hooked = nn.ModuleList(map(model.get_submodule, paths))
        self.call = model.__call__

    def forward(self, **inputs: Any) -> Any:
        """Call the model."""
        return self.call(**inputs)


# With no width, which is to say the whole. (pyvene's own mapping of BLIP takes
# `image_text_hidden_size`, 256 where the states are 768 wide: it patches a third.)
type_to_module_mapping[Hooked] = {hook: ("hooked[%s]", hook) for hook in (INPUT_HOOK, OUTPUT_HOOK)}
type_to_dimension_mapping[Hooked] = {}


def _intervenable(
    model: nn.Module, sites: Sequence[tuple[str, int]], interventions: Sequence[nn.Module]
) -> IntervenableModel:
    """The model with an intervention at each of its sites (name, layer)."""
    modules = MODULES[type(model)]
    config = IntervenableConfig(
        [
            RepresentationConfig(number, modules[site][1], intervention=intervention)
            for number, ((site, _), intervention) in enumerate(
                zip(sites, interventions, strict=True)
            )
        ]
    )
    return IntervenableModel(config, Hooked(model, sites))


def replace(model: nn.Module, puts: Sequence[Put], inputs: dict[str, Any]) -> Any:
    """Put states in at one or more sites of the model called with `inputs`; what it returns.

    pyvene writes in place into what flows through a site.
    """
    sites = [(put.site, put.layer) for put in puts]
    _, found = _intervenable(model, sites, [Replacing(put) for put in puts])(inputs)
    return found


def collect(
    model: nn.Module, sites: Sequence[tuple[str, int]], inputs: dict[str, Any]
) -> tuple[list[torch.Tensor], Any]:
    """Call the model with `inputs` and collect what flows through sites (name, layer).

    Returns the states, each (B, T, W), and what the model returns.
    """
    collecting = [CollectIntervention() for _ in sites]
    (_, collected), found = _intervenable(model, sites, collecting)(inputs)
    return collected, found
