"""Where an intervention can take place: a site is a row of the table `SITES`.

The schema, the wildcards, the manual's table and the tests' parameters derive from it; nothing
outside this table asks which site it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

INPUT, OUTPUT = "input", "output"
ENCODER, DECODER, VISION = "encoder", "decoder", "vision"
# The position's own state alone, other positions of its tower, what cross-attention reads.
OWN, SELF, CROSS = range(3)


@dataclass(frozen=True)
class Site:
    """A place that every block of a tower has.

    tower: the sequence of blocks; component: what of a block; module: the path inside a block of
    the module whose input or output (`hook`) it is, "" for the block itself; boundary: of the
    stream between blocks, how many blocks beyond the site's own it lies (0 before the block, 1
    behind it), None for a site inside a block; heads: whether its states fall into the parts of
    single heads, each of which is put in alone; adds: whether they are what a sublayer adds to the
    stream; aliases: what publications and pyvene call it.
    """

    tower: str
    component: str
    hook: str
    meaning: str
    module: str = ""
    boundary: int | None = None
    heads: bool = False
    adds: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`tower.component`, as configuration and tables write it."""
        return f"{self.tower}.{self.component}"

    @property
    def kept(self) -> bool:
        """Whether a run keeps its states: the stream of the question encoder."""
        return self.tower == ENCODER and self.boundary is not None

    @property
    def stream(self) -> bool:
        """Whether what follows in its tower reads nothing else of the blocks up to there."""
        return self.boundary is not None or self.component.endswith("_state")

    @property
    def mixes(self) -> int:
        """What its block has put into a position's state by then: one of OWN, SELF and CROSS."""
        if self.boundary == 0:
            return OWN
        return SELF if self.component.startswith("self_attention") else CROSS

    @property
    def entry(self) -> bool:
        """Whether all that a block reads of another tower enters there."""
        return self.component == "cross_attention"

    def place(self, layer: int, window: int = 1) -> Place:
        """What is measured at this site of a layer; the same for sites that are one.

        Windows of sites that are one are cut differently at the ends of the tower, and keep apart.
        """
        if self.boundary is None or window > 1:
            return Place(self.tower, layer, self)
        return Place(self.tower, layer + self.boundary, None)


@dataclass(frozen=True)
class Place:
    """A site of a layer, under one name where it has two: a block's output is the next's input.

    index: the layer of an inner site; on the stream, how many blocks come before. inner: the site
    inside a block, or that a window is of; None on the stream.
    """

    tower: str
    index: int
    inner: Site | None


def _text_sites(tower: str) -> Iterator[Site]:
    """Those of a post-norm block of BLIP's text model: sublayer, residual, norm, three times."""

    def site(component: str, hook: str, meaning: str, **facts: Any) -> Site:
        return Site(tower, component, hook, meaning, **facts)

    yield site("block_input", INPUT, "the stream that a block reads", boundary=0)
    for name, module in (("self_attention", "attention"), ("cross_attention", "crossattention")):
        words = name.replace("_", "-")
        dense = f"{module}.output.dense"
        yield site(
            f"{name}_heads", INPUT, f"the context of a {words} head, before the output projection",
            module=dense, heads=True,
        )  # fmt: skip
        yield site(f"{name}", OUTPUT, f"what {words} adds to the stream", module=dense, adds=True)
        yield site(
            f"{name}_state", OUTPUT, f"the stream after {words}, residual and norm",
            module=f"{module}.output",
        )  # fmt: skip
    yield site(
        "mlp_neurons", INPUT, "the MLP's neurons, after the activation", module="output.dense"
    )
    yield site("mlp", OUTPUT, "what the MLP adds to the stream", module="output.dense", adds=True)
    yield site("block_output", OUTPUT, "the stream that a block leaves", boundary=1)


_VISION = (
    Site("vision", "block_input", INPUT, "the stream that a block reads", boundary=0),
    Site(
        "vision", "self_attention_heads", INPUT,
        "the context of a self-attention head, before the output projection",
        module="self_attn.projection", heads=True,
    ),
    Site(
        "vision", "self_attention", OUTPUT, "what self-attention adds to the stream",
        module="self_attn.projection", adds=True,
    ),
    Site(
        "vision", "self_attention_state", INPUT, "the stream after self-attention and residual",
        module="layer_norm2",
    ),
    Site(
        "vision", "mlp_neurons", INPUT, "the MLP's neurons, after the activation", module="mlp.fc2"
    ),
    Site("vision", "mlp", OUTPUT, "what the MLP adds to the stream", module="mlp", adds=True),
    Site("vision", "block_output", OUTPUT, "the stream that a block leaves", boundary=1),
)  # fmt: skip
# Aliases: Palit et al. 2023 (their `trace_with_patch` kinds), NOTICE (Golovanevsky et al. 2025,
# `patching_utils.py`) and pyvene 0.1.8 (`modelings_intervenable_blip.py`), which calls some of
# them what they are not.
_ALIASES = {
    "encoder.self_attention_state": ("Palit: attention", "pyvene: attention_output"),
    "encoder.cross_attention_state": ("Palit: crossattention", "pyvene: mlp_input"),
    "encoder.block_output": (
        "Palit: question encoder", "NOTICE: output", "pyvene: block_output, mlp_output",
    ),
    "encoder.block_input": ("pyvene: block_input, attention_input",),
    "encoder.self_attention_heads": (
        "NOTICE: attention_block", "pyvene: attention_value_output (all heads)",
    ),
    "encoder.cross_attention_heads": ("NOTICE: crossattention_block",),
    "decoder.block_output": ("Palit: answer decoder",),
}  # fmt: skip

TOWERS = (ENCODER, DECODER, VISION)
# What a position is, and which roles it can have.
POSITIONS_OF = {
    ENCODER: ("a token of the receiver's question, from 0, [CLS]", "those of `effects.roles`"),
    DECODER: (
        "0 is [DEC], j the j-th token of the followed answer, all of which but the last is read",
        "`[DEC]`, `answer`",
    ),
    VISION: (
        "0 is [CLS], then the regions of a grid of `regions` × `regions`, row by row from the top "
        "left; a patch is of the region in which its centre lies",
        "`[CLS]`, the names of the sheet's `boxes`, `background`; without boxes `[CLS]`, `picture`",
    ),
}
SITES = {
    site.name: replace(site, aliases=_ALIASES.get(site.name, ()))
    for site in (*_text_sites(ENCODER), *_text_sites(DECODER), *_VISION)
}


def misnamed(name: str) -> str:
    """What a name that is no site's stands for elsewhere, and what to write; "" if for nothing.

    A component without its tower, one that the tower does not have, or what a publication or
    pyvene calls a site, its tower before it or not.
    """
    tower, dot, component = name.partition(".")
    if not dot:
        tower, component = "", name
    having = [site.name for site in SITES.values() if site.component == component]
    if having and not dot:
        return f"is of a tower: write {', '.join(having)}"
    if having and tower in TOWERS:
        lacking = component.removesuffix("_heads").removesuffix("_state").replace("_", "-")
        return f"the {tower} tower has no {lacking}; write {', '.join(having)}"
    for site in SITES.values():
        for who, names in (alias.split(": ") for alias in site.aliases):
            if component in (called.partition(" (")[0] for called in names.split(", ")):
                meant = f"{tower or site.tower}.{site.component}"
                if meant in SITES:
                    return f"is what {who} calls {SITES[meant].meaning}; write {meant}"
    return ""


def towers_of(sites: Iterable[str], with_heads: bool = False) -> list[str]:
    """The towers that sites are of, each once; with_heads: those of sites of heads alone."""
    known = (SITES[name] for name in sites)
    return list(dict.fromkeys(site.tower for site in known if site.heads or not with_heads))


def window_of(layer: int, window: int, layers: int) -> range:
    """The layers that a window of n about a layer covers, cut at both ends of L.

    From l − ⌊n/2⌋ to l + ⌈n/2⌉ − 1, as ROME's `causal_trace.py` has it (`trace_important_window`).
    """
    return range(max(0, layer - window // 2), min(layers, layer - (-window // 2)))


def window_at(place: Place, window: int, layers: int) -> list[Place]:
    """The places that a window of n about a place covers, of a tower of L layers."""
    if window == 1 or place.inner is None:
        return [place]
    return [place.inner.place(layer) for layer in window_of(place.index, window, layers)]


def contribution_of(heads: Site) -> Site:
    """What the heads of a site add to the stream, all together: behind the output projection."""
    return next(
        site
        for site in SITES.values()
        if (site.tower, site.module, site.adds) == (heads.tower, heads.module, True)
    )


def whole_of(tower: str, layers: int) -> list[Place]:
    """What a tower's stream is the sum of: its first states, and all that is added to them."""
    adding = [site for site in SITES.values() if site.tower == tower and site.adds]
    added = [site.place(layer) for layer in range(layers) for site in adding]
    return [Place(tower, 0, None), *added]


def places_of(
    sites: Iterable[str], layers: Sequence[int], window: int = 1
) -> dict[Place, list[tuple[str, int]]]:
    """Each place that the sites of these layers come to, with all its names (site, layer)."""
    places: dict[Place, list[tuple[str, int]]] = {}
    for name in sites:
        for layer in layers:
            places.setdefault(SITES[name].place(layer, window), []).append((name, layer))
    return places
