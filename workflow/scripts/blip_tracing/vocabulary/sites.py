"""Where an intervention can take place: a site is a row of the table `SITES`.

The schema, the wildcards, the manual's table and the tests' parameters derive from it; nothing
outside this table asks which site it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True)
class Site:
    """A place that every block of a tower has.

    tower: the sequence of blocks; component: what of a block; module: the path inside a block of
    the module whose input or output (`hook`) it is, "" for the block itself; boundary: of the
    stream between blocks, how many blocks beyond the site's own it lies (0 before the block, 1
    behind it); None for a site inside a block.
    """

    tower: str
    component: str
    hook: str
    meaning: str
    module: str = ""
    boundary: int | None = None

    @property
    def name(self) -> str:
        """`tower.component`, as configuration and tables write it."""
        return f"{self.tower}.{self.component}"

    def place(self, layer: int) -> Place:
        """What is measured at this site of a layer; the same for sites that are one."""
        if self.boundary is None:
            return Place(self.tower, layer, self)
        return Place(self.tower, layer + self.boundary, None)


@dataclass(frozen=True)
class Place:
    """A site of a layer, under one name where it has two: a block's output is the next's input.

    index: the layer of an inner site; on the stream, how many blocks come before.
    """

    tower: str
    index: int
    inner: Site | None


_ROWS = (
    Site("encoder", "block_input", INPUT, "the stream that a block reads", boundary=0),
    Site("encoder", "block_output", OUTPUT, "the stream that a block leaves", boundary=1),
)
SITES = {site.name: site for site in _ROWS}


def places_of(sites: Iterable[str], layers: Sequence[int]) -> dict[Place, list[tuple[str, int]]]:
    """Each place that the sites of these layers come to, with all its names (site, layer)."""
    places: dict[Place, list[tuple[str, int]]] = {}
    for name in sites:
        for layer in layers:
            places.setdefault(SITES[name].place(layer), []).append((name, layer))
    return places
