"""The font of everything that is shown: matplotlib brings it, so all looks the same anywhere.

Its files are found without importing matplotlib, since what is told needs only its letters.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from fontTools.ttLib import TTFont

FONT = "DejaVu Sans"
FILES = {"normal": "DejaVuSans.ttf", "bold": "DejaVuSans-Bold.ttf", "mono": "DejaVuSansMono.ttf"}


def font_file(face: str = "normal") -> Path:
    """Where the file of a face lies: normal, bold or mono."""
    matplotlib = find_spec("matplotlib")
    assert matplotlib is not None
    assert matplotlib.origin is not None
    return Path(matplotlib.origin).parent / "mpl-data/fonts/ttf" / FILES[face]


@cache
def letters() -> frozenset[str]:
    """Every character that the font has."""
    with TTFont(font_file(), lazy=True) as font:
        return frozenset(map(chr, font.getBestCmap()))
