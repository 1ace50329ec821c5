"""What a drawn figure shows: its texts and where they stand."""

from collections.abc import Iterator

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from plotnine import ggplot


def figure_of(plot: ggplot | Figure) -> Figure:
    """What is drawn, however."""
    return plot.draw() if isinstance(plot, ggplot) else plot


def shown_texts(figure: Figure) -> Iterator[tuple[str, Bbox]]:
    """Each text that is seen, and its box."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_visible() and text.get_text().strip():
            yield text.get_text(), text.get_window_extent()


def shrunk(box: Bbox) -> Bbox:
    """Without the pixel of rounding at each side."""
    return Bbox.from_extents(box.x0 + 1, box.y0 + 1, box.x1 - 1, box.y1 - 1)
