"""The story as a PDF: text that can be selected, fonts embedded, the same bytes for the same story.

Lengths are in points, unless said otherwise.
"""

import io
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import matplotlib
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.font_manager import FontProperties, findfont
from reportlab.graphics.shapes import STATE_DEFAULTS, Circle, Drawing, Rect, String
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import inch, mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import (
    CondPageBreak,
    Flowable,
    Image,
    KeepTogether,
    Paragraph,
    Preformatted,
    SimpleDocTemplate,
    Table,
)

from blip_tracing.figures import (
    CLEAN_RUN,
    FONT,
    HAIRLINE,
    INK,
    ORANGE,
    PALE_INK,
    PALETTE,
    TEXT_SIZE,
    TICK_SIZE,
    save_figure,
)
from blip_tracing.journal_figures import MEANS_HEIGHT, mean_levels
from blip_tracing.pictures import open_picture
from blip_tracing.story import Example, Map, MapGroup, Story

BOLD, MONO = f"{FONT} Bold", f"{FONT} Mono"
MARGIN = 20 * mm
# Reportlab's own, inside the margins.
FRAME_PADDING = 6
TEXT_WIDTH = A4[0] - 2 * MARGIN
# Less the frame's padding and a heading with its caption.
PAGE_HEIGHT = A4[1] - 2 * MARGIN - 130
BODY = ParagraphStyle(
    "body", fontName=FONT, bulletFontName=FONT, fontSize=8.5, leading=12, textColor=INK,
    spaceAfter=4,
)  # fmt: skip
SMALL = ParagraphStyle("small", BODY, fontSize=TEXT_SIZE, leading=10, spaceAfter=0)
FINDING = ParagraphStyle("finding", BODY, leftIndent=10)
CAPTION = ParagraphStyle("caption", SMALL, textColor=PALE_INK, spaceAfter=6)
CODE = ParagraphStyle("code", SMALL, fontName=MONO, fontSize=TICK_SIZE, leading=8.5)
HEADINGS = [
    ParagraphStyle(
        f"heading {depth}", BODY, fontName=BOLD, fontSize=size, leading=1.3 * size,
        spaceBefore=size, spaceAfter=4,
    )
    for depth, size in enumerate((16, 12, 10, 8.5))
]  # fmt: skip
TITLE, SECTION, PART, DETAIL = HEADINGS
# So much is kept together with a heading.
HEADED = 130.0
CODE_LETTERS = 110
PICTURE_WIDTH, PICTURE_PIXELS = 55 * mm, 600
NOTHING = "–"

# Of maps.
CELL_HEIGHT, STRIP_HEIGHT, FOOT_HEIGHT, GAP = 11.0, 13.0, 11.0, 10.0
WIDEST_CELL, NUMBERED_CELL, NARROW_CELL = 34.0, 22.0, 15.0
CELL_TEXT_SIZE = 6.0
LABEL_GAP = 3.0
MARK_RADIUS, MARK_GAP = 1.5, 2.4
# Of a digit's height, as a share of the font's size.
HALF_DIGIT = 0.36
SWATCH, SWATCHES = 26.0, 5
LAYER_WIDTH = 9.0
# Of red, green and blue in the lightness of a colour; darker fills bear white numbers.
LUMINANCE, DARK = (0.2126, 0.7152, 0.0722), 0.5


def write_document(story: Story, file: BinaryIO) -> None:
    """Write the story's pages into an open file."""
    register_fonts()
    document = SimpleDocTemplate(
        file,
        pagesize=A4,
        leftMargin=MARGIN - FRAME_PADDING,
        rightMargin=MARGIN - FRAME_PADDING,
        topMargin=MARGIN - FRAME_PADDING,
        bottomMargin=MARGIN - FRAME_PADDING,
        title=story.title,
        author="",
        lang="en",
        initialFontName=FONT,
        invariant=True,
    )
    document.build(list(_pages(story)), onFirstPage=_number_page, onLaterPages=_number_page)


def register_fonts() -> None:
    """Have reportlab embed the fonts that matplotlib brings along."""
    for name, properties in (
        (FONT, FontProperties(family=FONT)),
        (BOLD, FontProperties(family=FONT, weight="bold")),
        (MONO, FontProperties(family=MONO)),
    ):
        pdfmetrics.registerFont(TTFont(name, findfont(properties)))
    # A drawing begins with this font, which would else be listed in the file, not embedded.
    STATE_DEFAULTS["fontName"] = FONT
    pdfmetrics.registerFontFamily(FONT, normal=FONT, bold=BOLD, italic=FONT, boldItalic=BOLD)


def _number_page(canvas: Any, document: Any) -> None:
    canvas.setFont(FONT, TICK_SIZE)
    canvas.setFillColor(PALE_INK)
    canvas.drawCentredString(A4[0] / 2, MARGIN / 2, f"{document.page}")


def _pages(story: Story) -> Iterator[Flowable]:
    yield _text(story.title, TITLE)
    for finding in story.findings:
        yield Paragraph(escape(finding), FINDING, bulletText="•")
    yield from _heading("Methods")
    for method in story.methods:
        yield _text(method, BODY)
    yield from _table(story.facts, [90, None], head=False)
    yield from _heading("Examples", story.examples_caption, story.maps_caption)
    for example in story.examples:
        yield from _example(example)
    yield from _heading("Averages over examples")
    for group in story.averages:
        yield from _map_group(group, PART)
    if not story.means.empty:
        yield from _noise_levels(story)
    if story.verdicts is not None:
        yield from _heading("Replication", story.verdicts_caption)
        yield from _table(_in_words(story.verdicts), [110, 55, 40, 50, 90, None])
    if not story.controls.empty:
        yield from _heading("Controls", story.controls_caption)
        controls = story.controls.rename(columns={"largest": "largest difference"})
        yield from _table(_in_words(controls, "{:.1e}"), [60, 64, None, 50, 60])
    yield from _heading("Left out of averages", story.excluded_caption)
    if not story.excluded.empty:
        yield from _table(_in_words(story.excluded), [70, None, 60, 60])
    yield from _heading("To run it again")
    yield Preformatted(story.command, CODE)
    yield from _heading("Versions")
    yield from _table(story.versions, [90, None], head=False)
    yield from _heading("Configuration")
    yield Preformatted(story.config, CODE, maxLineLength=CODE_LETTERS)


def _noise_levels(story: Story) -> Iterator[Flowable]:
    yield from _heading("Noise levels", story.means_caption)
    with TemporaryDirectory() as folder:
        plot = mean_levels(story.means, TEXT_WIDTH / inch)
        (path,) = save_figure(plot, Path(folder, "noise_levels"), ["png"])
        png = io.BytesIO(path.read_bytes())
    yield Image(png, TEXT_WIDTH, MEANS_HEIGHT * inch)
    noisy = story.means.dropna(subset="noise_level")
    levels = [f"{level:g}" for level in sorted(noisy["noise_level"].unique())]
    means = pd.DataFrame({"noise level σ": [*levels, CLEAN_RUN]})
    for run, rows in noisy.groupby("run", sort=False):
        words = rows.sort_values("noise_level").apply(_interval, axis=1)
        means[run] = [*words, ""]
    clean = story.means[story.means["run"] == CLEAN_RUN]
    means.iloc[-1, 1] = clean.apply(_interval, axis=1).squeeze()
    yield from _table(means, [80, *[None] * (means.shape[1] - 1)])


def _example(example: Example) -> Iterator[Flowable]:
    answers = example.answers.assign(
        probability=example.answers["probability"].map("{:.3f}".format)
    )
    width, widths = TEXT_WIDTH - PICTURE_WIDTH - 8, [34, None, 42, 56, 76]
    if not answers["others"].any():
        answers, widths = answers.drop(columns="others"), widths[:-1]
    beside = Table(
        [[_picture(example.picture), list(_table(answers, widths, width))]],
        colWidths=[PICTURE_WIDTH + 8, width],
        style=[
            ("FONTNAME", (0, 0), (-1, -1), FONT),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ],
        hAlign="LEFT",
    )
    yield KeepTogether([_text(example.pair.example, PART), beside])
    if example.unknown_words:
        words = ", ".join(example.unknown_words)
        yield _text(f"The tokenizer does not know: {words}.", BODY)
    for group in example.maps:
        yield from _map_group(group, DETAIL)


def _heading(text: str, *captions: str) -> Iterator[Flowable]:
    """A heading of a section, not alone at the foot of a page."""
    yield CondPageBreak(HEADED)
    yield _text(text, SECTION)
    for caption in filter(None, captions):
        yield _text(caption, CAPTION)


def _text(text: str, style: ParagraphStyle) -> Paragraph:
    return Paragraph(escape(text), style)


def _picture(path: str) -> Image:
    pixels = open_picture(path)
    pixels.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
    png = io.BytesIO()
    pixels.save(png, "PNG")
    return Image(png, PICTURE_WIDTH, PICTURE_WIDTH * pixels.height / pixels.width)


def _interval(row: pd.Series) -> str:
    if pd.isna(row["low"]):
        return f"{row['mean']:.3f}"
    return f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _in_words(table: pd.DataFrame, number: str = "{:.4g}") -> pd.DataFrame:
    """The table as text: fractions in this format, a dash for what is missing."""

    def word(value: Any) -> str:
        if pd.isna(value):
            return NOTHING
        return number.format(value) if isinstance(value, float) else f"{value}"

    return table.map(word)


def _table(
    table: pd.DataFrame,
    widths: Sequence[float | None],
    width: float = TEXT_WIDTH,
    head: bool = True,
) -> Iterator[Flowable]:
    """A table of text, its head repeated on every page; None is a column that shares the rest."""
    rest = (width - sum(size or 0 for size in widths)) / max(1, widths.count(None))
    rows = [[f"<b>{escape(str(name))}</b>" for name in table]] if head else []
    rows += [[escape(str(word)) for word in row] for row in table.to_numpy()]
    yield Table(
        [[Paragraph(word, SMALL) for word in row] for row in rows],
        colWidths=[rest if size is None else size for size in widths],
        repeatRows=int(head),
        style=[
            ("LINEBELOW", (0, 0), (-1, -1), 0.25, HAIRLINE),
            ("LINEBELOW", (0, 0), (-1, 0), 0.5, PALE_INK if head else HAIRLINE),
            ("FONTNAME", (0, 0), (-1, -1), FONT),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("TOPPADDING", (0, 0), (-1, -1), 2),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ],
        spaceAfter=6,
        hAlign="LEFT",
    )


# ---- maps --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scale:
    """The colours of a group's maps: white for nothing, darker for more of either sign."""

    limit: float

    def fill(self, value: float) -> tuple[float, float, float]:
        share = min(1.0, abs(value) / self.limit)
        if value < 0:
            losses = LinearSegmentedColormap.from_list("losses", ["white", ORANGE])
            return losses(share)[:3]
        return matplotlib.colormaps[PALETTE](share)[:3]

    def ink(self, value: float) -> str:
        """The colour of text upon the fill."""
        light = sum(share * part for share, part in zip(LUMINANCE, self.fill(value), strict=True))
        return INK if light > DARK else "#FFFFFF"


@dataclass(frozen=True)
class _Grid:
    """Where a group's maps and their cells stand: maps in `columns` beside one another."""

    layers: Sequence[int]
    places: int
    columns: int
    label_width: float
    cell_width: float
    cell_height: float
    strip_height: float

    @property
    def map_width(self) -> float:
        return self.label_width + len(self.layers) * self.cell_width + GAP

    @property
    def height(self) -> float:
        return self.strip_height + self.places * self.cell_height + FOOT_HEIGHT + GAP


def _map_group(group: MapGroup, heading: ParagraphStyle) -> Iterator[Flowable]:
    scale = _Scale(group.limit)
    grid = _grid_of(group)
    rows = [
        _map_row(group.maps[start : start + grid.columns], grid, scale)
        for start in range(0, len(group.maps), grid.columns)
    ]
    head = [
        _text(group.title, heading),
        _text(f"{group.caption} {group.marks}".rstrip(), CAPTION),
        _colour_key(group, scale),
    ]
    yield KeepTogether([*head, rows[0]])
    yield from rows[1:]


def _grid_of(group: MapGroup) -> _Grid:
    cells = pd.concat([part.cells for part in group.maps])
    layers = sorted(int(layer) for layer in cells["layer"].unique())
    labels = max(pdfmetrics.stringWidth(label, FONT, TICK_SIZE) for label in cells["label"])
    label_width = labels + LABEL_GAP
    places = int(cells["place"].max()) + 1
    room = TEXT_WIDTH + GAP
    numbered = label_width + len(layers) * NUMBERED_CELL + GAP
    columns = max(1, min(len(group.maps), int(room / numbered)))
    strip_height = STRIP_HEIGHT if any(part.title for part in group.maps) else 0
    highest = (PAGE_HEIGHT - strip_height - FOOT_HEIGHT - GAP) / places
    return _Grid(
        layers=layers,
        places=places,
        columns=columns,
        label_width=label_width,
        cell_width=min(WIDEST_CELL, (room / columns - label_width - GAP) / len(layers)),
        cell_height=min(CELL_HEIGHT, highest),
        strip_height=strip_height,
    )


def _map_row(maps: Sequence[Map], grid: _Grid, scale: _Scale) -> Drawing:
    drawing = Drawing(TEXT_WIDTH, grid.height)
    for column, part in enumerate(maps):
        _draw_map(drawing, part, column * grid.map_width + grid.label_width, grid, scale)
    return drawing


def _draw_map(drawing: Drawing, part: Map, left: float, grid: _Grid, scale: _Scale) -> None:
    """Draw a map whose cells begin at `left`."""
    top = grid.height - grid.strip_height
    size = min(TICK_SIZE, grid.cell_height)
    if part.title:
        drawing.add(_string(left, top + 3, part.title, TEXT_SIZE))
    rows = part.cells.drop_duplicates("place")
    for place, label in zip(rows["place"], rows["label"], strict=True):
        middle = top - (place + 0.5) * grid.cell_height
        drawing.add(_string(left - LABEL_GAP, middle - HALF_DIGIT * size, label, size, "end"))
    every = math.ceil(LAYER_WIDTH / grid.cell_width)
    bottom = top - grid.places * grid.cell_height
    for number, layer in enumerate(grid.layers):
        if number % every == 0:
            middle = left + (number + 0.5) * grid.cell_width
            drawing.add(_string(middle, bottom - TICK_SIZE - 1, f"{layer}", TICK_SIZE, "middle"))
    for cell in part.cells.to_dict("records"):
        x = left + grid.layers.index(cell["layer"]) * grid.cell_width
        y = top - (cell["place"] + 1) * grid.cell_height
        _draw_cell(drawing, cell, x, y, grid, scale)


def _draw_cell(
    drawing: Drawing, cell: Mapping[Hashable, Any], x: float, y: float, grid: _Grid, scale: _Scale
) -> None:
    width, height, value = grid.cell_width, grid.cell_height, cell["value"]
    drawing.add(_rectangle(x, y, width, height, scale.fill(value)))
    number = _number(value, width)
    if number and height >= CELL_TEXT_SIZE:
        middle, base = x + width / 2, y + height / 2 - HALF_DIGIT * CELL_TEXT_SIZE
        ink = scale.ink(value)
        drawing.add(_string(middle, base, number, CELL_TEXT_SIZE, "middle", ink))
    if cell["marked"]:
        right, top = x + width - MARK_GAP, y + height - MARK_GAP
        colours = {"fillColor": colors.white, "strokeColor": colors.HexColor(INK)}
        drawing.add(Circle(right, top, MARK_RADIUS, strokeWidth=0.5, **colours))


def _number(value: float, width: float) -> str:
    """The value as far as a cell has room for it, in a narrow one without the leading zero."""
    # Adding 0 takes the sign from a rounded -0.
    number = f"{round(value, 2) + 0:.2f}"
    if width >= NUMBERED_CELL:
        return number
    return number.replace("0.", ".") if width >= NARROW_CELL else ""


def _colour_key(group: MapGroup, scale: _Scale) -> Drawing:
    """What the colours mean, and the names of both axes."""
    height = 36.0
    drawing = Drawing(TEXT_WIDTH, height)
    words = f"{group.measure}; columns: layers; rows: {group.rows}"
    drawing.add(_string(0, height - 10, words, TEXT_SIZE))
    for number, share in enumerate(range(-SWATCHES, SWATCHES + 1)):
        level = group.limit * share / SWATCHES
        x = number * SWATCH
        drawing.add(_rectangle(x, height - 25, SWATCH, 9, scale.fill(level)))
        drawing.add(_string(x + SWATCH / 2, 3, f"{level:g}", TICK_SIZE, "middle"))
    return drawing


def _rectangle(
    x: float, y: float, width: float, height: float, fill: tuple[float, float, float]
) -> Rect:
    return Rect(
        x,
        y,
        width,
        height,
        fillColor=colors.Color(*fill),
        strokeColor=colors.HexColor(HAIRLINE),
        strokeWidth=0.3,
    )


def _string(
    x: float, y: float, text: str, size: float, anchor: str = "start", color: str = INK
) -> String:
    return String(
        x,
        y,
        text,
        fontName=FONT,
        fontSize=size,
        textAnchor=anchor,
        fillColor=colors.HexColor(color),
    )
