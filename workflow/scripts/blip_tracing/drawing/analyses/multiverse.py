"""Figures of a multiverse: every universe with what it finds, and which choices decide."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from plotnine import (
    aes,
    element_blank,
    geom_text,
    geom_tile,
    ggplot,
    labs,
    scale_color_identity,
    scale_fill_gradientn,
    scale_fill_manual,
    scale_x_continuous,
    scale_y_reverse,
    theme,
)

from blip_tracing.drawing.analyses.role_maps import role_maps
from blip_tracing.drawing.figures import (
    LABEL_SHARE,
    LINE_HEIGHT,
    PAGE_WIDTH,
    TICK_SIZE,
    look,
    text_width,
    titled_frame,
    wrap_text,
)
from blip_tracing.drawing.palette import GAINS, GREY, HAIRLINE, PALE_INK, fill, ink_on
from blip_tracing.meaning.analyses.multiverse import (
    WORDS,
    by_choice,
    choice_words,
    deciding,
    place_words,
    shares,
    telling,
    varied,
)
from blip_tracing.meaning.summary import CELL
from blip_tracing.telling.words import printable

# How many places the figures tell one by one.
PLACES, COLUMNS = 8, 6
STABLE, FOUND, NOT_FOUND, SILENT, CHOSEN = (
    "found, stable", "found, not stable", "not found", "nothing is said", "the choice",
)  # fmt: skip
FILLS = {
    STABLE: GAINS[-2], FOUND: GAINS[4], NOT_FOUND: GAINS[1], SILENT: GREY, CHOSEN: PALE_INK,
}  # fmt: skip
# Between blocks of rows, in lines.
GAP = 0.7
# What the tiles' panel is less wide and high than the figure, beside its labels.
MARGIN, FOOT = 0.3, 0.75


@dataclass(frozen=True)
class Rows:
    """The rows of a figure from the top: where each lies and how high it is, in lines."""

    labels: dict[str, str]
    places: dict[str, float]
    heights: dict[str, float]

    @property
    def lines(self) -> float:
        """All rows and gaps together."""
        return max(at + self.heights[row] / 2 for row, at in self.places.items())

    @property
    def width(self) -> float:
        """Inches of the widest label."""
        words = (line for label in self.labels.values() for line in label.split("\n"))
        return max(text_width(line, TICK_SIZE) for line in words)

    def axis(self) -> scale_y_reverse:
        """The labels at their rows."""
        return scale_y_reverse(
            breaks=list(self.places.values()),
            labels=[self.labels[row] for row in self.places],
            limits=(self.lines + GAP / 2, -GAP / 2),
            minor_breaks=[],
            expand=(0, 0),
        )


def rows_of(blocks: Sequence[Mapping[str, str]]) -> Rows:
    """Rows block by block, each by its key with its label, which is broken where it is long."""
    labels, places, heights, at = {}, {}, {}, 0.0
    for block in blocks:
        for row, words in block.items():
            labels[row] = wrap_text(printable(words), TICK_SIZE, LABEL_SHARE * PAGE_WIDTH)
            heights[row] = float(labels[row].count("\n") + 1)
            places[row] = at + heights[row] / 2
            at += heights[row]
        at += GAP
    return Rows(labels, places, heights)


def share_map(cells: pd.DataFrame, roles: Sequence[str], about: str) -> ggplot:
    """The share of the universes that find each place, of those that say something.

    cells: of `shares`. Rings: what survives in all.
    """
    return role_maps(
        {about: cells.assign(value=cells["share"], marked=cells["survives"])},
        roles,
        title="In how many universes a place is found",
        subtitle=["share of the universes that say something; rings: survives in all"],
        legend="share",
        shares=True,
    )


def curve(rows: pd.DataFrame, about: str) -> ggplot | None:
    """Every universe of a scope as a column: which of the top places it finds, and its choices.

    rows: of the table `multiverse`. Those that find most stand left, those that say nothing right.
    None where there is one universe alone.
    """
    places = shares(rows)
    top = places[places["found"] > 0].head(PLACES)
    said = telling(rows)
    order = _ordered(rows)
    if len(order) < 2:
        return None
    named = {place_words(cell): f"{place_words(cell)}: {percent(cell['share'])}"
             for _, cell in top.iterrows()}  # fmt: skip
    ways = {
        name: {f"{name}={choice}": f"{WORDS[name]}: {choice}" for choice in _choices(order, name)}
        for name in varied(order)
    }
    axis = rows_of([block for block in (named, *ways.values()) if block])
    tiles = pd.DataFrame(
        [*_places_found(rows, order, top), *_chosen(order, ways)],
        columns=["universe", "row", "kind"],
    ).assign(
        x=lambda table: table["universe"].map(order["x"]),
        y=lambda table: table["row"].map(axis.places),
        height=lambda table: table["row"].map(axis.heights) - 0.25,
    )
    kinds = [kind for kind in FILLS if (tiles["kind"] == kind).any()]
    count, silent = len(order), len(order) - said["universe"].nunique()
    aside = f"; {silent} more say nothing, on the right" if silent else ""
    return (
        ggplot(tiles, aes("x", "y", fill="kind", height="height"))
        + geom_tile(width=0.86 if count < 120 else 1.0)
        + axis.axis()
        + scale_x_continuous(expand=(0, 0.2), minor_breaks=[])
        + scale_fill_manual(values=FILLS, breaks=kinds, limits=kinds)
        + labs(x=f"universe ({count - silent} that say something{aside})", y="", fill="")
        + look()
        + titled_frame(
            PAGE_WIDTH,
            axis.lines * LINE_HEIGHT + FOOT,
            f"What each universe finds: {about}",
            [_subtitle(top, places)],
        )
        + theme(
            panel_grid=element_blank(),
            axis_title_y=element_blank(),
            legend_title=element_blank(),
            legend_position="bottom",
            legend_key_height=9,
            legend_box_spacing=0.1 / PAGE_WIDTH,
        )
    )


def choices(rows: pd.DataFrame, about: str) -> ggplot | None:
    """The share of universes that find each of the top places, by choice, and what choices make.

    rows: of the table `multiverse`; None where no choice varies or nothing is found.
    """
    places = shares(rows)
    top = places[places["found"] > 0].head(COLUMNS)
    varying = varied(telling(rows))
    if top.empty or not varying:
        return None
    blocks = [
        {
            **{f"{name}={choice}": f"{WORDS[name]}: {choice}"
               for choice in _choices(telling(rows), name)},
            name: f"made by the {WORDS[name]}",
        }
        for name in varying
    ]  # fmt: skip
    axis = rows_of(blocks)
    panel = PAGE_WIDTH - axis.width - MARGIN
    names = {
        place_words(cell): wrap_text(
            printable(place_words(cell)), TICK_SIZE, panel / len(top) - 0.08
        )
        for _, cell in top.iterrows()
    }
    columns = {place: number for number, place in enumerate(names)}
    found = by_choice(rows).assign(
        place=lambda table: table.apply(place_words, axis=1),
        row=lambda table: table["dimension"] + "=" + table["choice"],
    )
    found = found[found["place"].isin(columns)]
    made = deciding(rows).assign(place=lambda table: table.apply(place_words, axis=1))
    made = made[made["place"].isin(columns)].melt(["place"], varying, "row", "share")

    def put(table: pd.DataFrame) -> pd.DataFrame:
        words = table["share"].map(lambda share: "–" if share != share else percent(share))
        return table.assign(
            x=table["place"].map(columns),
            y=table["row"].map(axis.places),
            height=table["row"].map(axis.heights),
            words=words,
        )

    shaded = put(found).assign(ink=lambda table: table["share"].map(lambda of: ink_on(fill(of))))
    lines = max(name.count("\n") + 1 for name in names.values())
    return (
        ggplot(shaded, aes("x", "y"))
        + geom_tile(aes(fill="share", height="height"), color=HAIRLINE, size=0.3)
        + geom_text(aes(label="words", color="ink"), size=TICK_SIZE)
        + geom_text(put(made).assign(ink=PALE_INK), aes(label="words", color="ink"),
                    size=TICK_SIZE, fontstyle="italic")
        + axis.axis()
        + scale_x_continuous(
            breaks=list(columns.values()),
            labels=list(names.values()),
            minor_breaks=[],
            limits=(-0.5, len(columns) - 0.5),
            expand=(0, 0),
        )
        + scale_fill_gradientn(list(GAINS), limits=(0, 1), guide=None)
        + scale_color_identity()
        + labs(x="", y="")
        + look()
        + titled_frame(
            PAGE_WIDTH,
            axis.lines * LINE_HEIGHT + (lines + 1) * LINE_HEIGHT + 0.2,
            f"Which choice makes the difference: {about}",
            ["share of the universes with a choice that find the place; in italics, what a choice "
             "makes of the variance over universes"],
        )
        + theme(
            panel_grid=element_blank(),
            axis_title=element_blank(),
        )
    )  # fmt: skip


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """The universes, a row each, with x: those that find most first, the silent last."""
    each = rows.groupby("universe", sort=False).agg(
        found=("found", "sum"),
        silent=("reason", lambda reason: bool(reason.fillna("").ne("").all())),
        **{name: (name, "first") for name in WORDS},
    )
    each = each.sort_values(
        ["silent", "found", *WORDS],
        ascending=[True, False, *[True] * len(WORDS)],
        kind="stable",
    )
    return each.assign(x=range(1, len(each) + 1))


def _choices(universes: pd.DataFrame, name: str) -> list[str]:
    """The choices of a dimension in order: of numbers by their size, else as they first appear."""
    values = universes[name].drop_duplicates()
    return [choice_words(value) for value in (
        values.sort_values() if pd.api.types.is_numeric_dtype(values) else values.sort_index()
    )]  # fmt: skip


def _places_found(
    rows: pd.DataFrame, order: pd.DataFrame, top: pd.DataFrame
) -> Iterator[tuple[Hashable, str, str]]:
    found = rows[rows["found"]].set_index(["universe", *CELL])["stays"] == 1
    stable = found.to_dict()
    for _, cell in top.iterrows():
        key = tuple(cell[CELL])
        for universe, silent in order["silent"].items():
            here = stable.get((universe, *key))
            kind = NOT_FOUND if here is None else STABLE if here else FOUND
            yield universe, place_words(cell), SILENT if silent else kind


def _chosen(
    order: pd.DataFrame, ways: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[Hashable, str, str]]:
    for name in ways:
        for universe, choice in order[name].items():
            yield universe, f"{name}={choice_words(choice)}", CHOSEN


def percent(share: float) -> str:
    """A share as the figures tell it."""
    return f"{100 * share:.0f} %"


def _subtitle(top: pd.DataFrame, places: pd.DataFrame) -> str:
    if top.empty:
        return "no universe finds a place; below: what each chooses"
    others = int((places["found"] > 0).sum()) - len(top)
    more = f", of which the {len(top)} most often found are shown" if others else ""
    return (
        f"{len(top) + others} places are found by some{more}, with their share of the universes "
        "that say something, stable where they are found without any one picture too; below: what "
        "each universe chooses"
    )
