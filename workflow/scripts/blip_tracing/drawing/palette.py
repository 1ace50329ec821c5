"""The colours of everything that is shown, whatever draws it."""

from collections.abc import Sequence

INK, PALE_INK, HAIRLINE = "#1A1A1A", "#595959", "#DCDCE2"
# From the palette of Okabe and Ito, told apart by colour-blind readers.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#B4B4B4"
# Of lines side by side, as many as there are; orange is left to the run with nothing restored.
LINES = (BLUE, GREEN, "#CC79A7", "#56B4E9")

PALETTE = "Purples"
# Nothing is white, though the palette begins a shade off; then the palette by eighths.
GAINS = ("#ffffff", "#efedf5", "#dadaeb", "#bcbddc", "#9e9ac8", "#807cba", "#6950a3", "#53268f",
         "#3f007d")  # fmt: skip
LOSSES = ("#ffffff", ORANGE)
STOPS = 16


def fill(share: float) -> str:
    """The colour of a change: orange at −1, white at 0, dark purple at 1."""
    return _between(GAINS if share > 0 else LOSSES, abs(share))


def changes() -> list[str]:
    """The colours of changes from −1 to 1, evenly: white is in the middle, for none."""
    return [fill(stop / STOPS) for stop in range(-STOPS, STOPS + 1)]


def ink_on(color: str) -> str:
    """Black or white, whichever is easier to read on the colour; at least 4.5 to 1 on any."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
              for part in (channel / 255 for channel in _channels(color))]  # fmt: skip
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # The two contrasts, by the WCAG's definition.
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


def _between(stops: Sequence[str], share: float) -> str:
    """The colour at a share of the way along evenly spaced stops."""
    along = min(share, 1) * (len(stops) - 1)
    before = min(int(along), len(stops) - 2)
    ends = zip(_channels(stops[before]), _channels(stops[before + 1]), strict=True)
    mixed = (round(first + (last - first) * (along - before)) for first, last in ends)
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _channels(color: str) -> list[int]:
    return [int(color[place : place + 2], 16) for place in (1, 3, 5)]
