"""Figures of what suffices against what is needed."""

from collections.abc import Mapping, Sequence

import pandas as pd
from plotnine import aes, geom_text, ggplot

from blip_tracing.drawing.analyses.role_maps import LEAST_LIMIT, role_maps
from blip_tracing.drawing.figures import TICK_SIZE, maps, ordered
from blip_tracing.drawing.journal_figures import colour_levels
from blip_tracing.drawing.palette import INK, changes
from blip_tracing.meaning.analyses.directions import (
    BOTH,
    KNOWN,
    NECESSARY,
    NOT_APART,
    REDUNDANT,
    SUFFICIENT,
    kinds_in_example,
)
from blip_tracing.telling.places import is_drawn_by_head, mean_words, row_labels, rows_words
from blip_tracing.telling.words import pair_of
from blip_tracing.vocabulary.experiment import Experiment

# What is written in a cell: a map of kinds is read without colours.
LETTERS = {BOTH: "B", SUFFICIENT: "S", NECESSARY: "N", REDUNDANT: "R", KNOWN: "–"}
LEGEND = {
    "B": "sufficient and necessary", "S": "sufficient", "N": "necessary",
    "R": "redundant (sufficient, shown not to be needed)", "–": "known beforehand",
}  # fmt: skip
RESTORED, TAKEN, KIND = "restored alone", "corrupted alone", "what the place is"
DIFFERENCE = "the first less the second"


def effects_figure(cells: pd.DataFrame, roles: Sequence[str], about: str) -> ggplot:
    """Both effects of every place, side by side, their difference, and what the place is.

    cells: the table `directions` of a pair at a site, of one group; about: which, for the title.
    Rings: where the first two are apart; how often in logits too is said.
    """
    letters = cells["kind"].map(LETTERS).fillna("")
    panels = {
        RESTORED: cells.assign(value=cells["restored_share"]),
        TAKEN: cells.assign(value=cells["taken_share"]),
        DIFFERENCE: cells.assign(value=cells["difference"], marked=cells["apart"] != NOT_APART),
        KIND: cells.assign(value=0.0, letter=letters),
    }
    drawn = {
        strip: rows.assign(
            marked=rows.get("marked", False), letter=rows.get("letter", pd.Series("", rows.index))
        )
        for strip, rows in panels.items()
    }
    apart = cells[cells["apart"] != NOT_APART]
    in_logits = int((apart["apart"] == apart["apart_logits"]).sum())
    rings = (
        [f"rings: the two differ ({in_logits} of {len(apart)} in logits too)"] if len(apart) else []
    )
    return _with_letters(
        role_maps(
            drawn,
            roles,
            title=f"What a place brings back, and what it takes away: {about}",
            subtitle=["; ".join(["shares of the total effect", *rings]), _legend(letters)],
            legend="share",
        )
    )


def example_figure(
    effects: pd.DataFrame,
    runs: pd.DataFrame,
    pair: Mapping[str, Experiment],
    example: str,
    site: str,
    noise_level: float,
) -> ggplot:
    """The same of one example: both changes in probability, and what its draws show of each place.

    effects, runs: the tables; pair: "sufficient", "necessary" → its experiment. At a site of heads
    a cell is the mean over positions, of which nothing is shown by test.
    """
    one, other = (
        effects[
            (effects["experiment"] == asked.name)
            & (effects["example"] == example)
            & (effects["site"] == site)
            & ((effects["noise_level"] - noise_level).abs() <= 1e-9 * noise_level)
        ]
        for asked in (pair["sufficient"], pair["necessary"])
    )
    labels, (restored, taken) = _rows(one, other, pair["sufficient"], site)
    asked = pair_of(runs, example)
    panels = {
        f"{strip}, {sign} p({asked.answer(pair['sufficient'].followed)})": rows.assign(
            p=direction * rows["probability_change"], letter=""
        )
        for strip, sign, rows, direction in (
            (RESTORED, "gain in", restored, 1), (TAKEN, "loss of", taken, -1)
        )
    }  # fmt: skip
    subtitle = [asked.asked(pair["sufficient"].followed), f"σ = {noise_level:g}"]
    if is_drawn_by_head(site):
        subtitle[1] += f", {mean_words(pair['sufficient'], site)}"
    else:
        kinds = pd.Series(kinds_in_example(restored, taken), restored.index)
        letters = kinds.map(LETTERS).fillna("")
        panels[f"{KIND}, over the draws"] = restored.assign(p=0.0, letter=letters)
        subtitle.append(_legend(letters))
    cells = pd.concat([rows.assign(panel=strip) for strip, rows in panels.items()])
    limit = max(LEAST_LIMIT, -(-float(cells["p"].abs().max()) // LEAST_LIMIT) * LEAST_LIMIT)
    return _with_letters(
        maps(
            cells.assign(panel=ordered(cells["panel"], list(panels))),
            labels,
            title=f"{asked.example}: what each place brings back, and what it takes away",
            subtitle=[line for line in subtitle if line],
            legend="change",
            side=rows_words(pair["sufficient"], site),
            levels=colour_levels(limit),
            colors=changes(),
        )
    )


def _rows(
    one: pd.DataFrame, other: pd.DataFrame, asked: Experiment, site: str
) -> tuple[dict[int, str], tuple[pd.DataFrame, pd.DataFrame]]:
    """The rows' names from the top, and both directions' cells in one order; `position` is a row's
    place.
    """
    row = "head" if is_drawn_by_head(site) else "position"
    named = row_labels(one, asked, site)
    places = {number: place for place, number in enumerate(sorted(named))}
    found = []
    for cells in (one, other):
        if row == "head":
            cells = cells.groupby(["layer", row], as_index=False)[["probability_change"]].mean()
        placed = cells.assign(position=cells[row].map(places))
        found.append(placed.sort_values(["layer", "position"], ignore_index=True))
    return {place: named[number] for number, place in places.items()}, (found[0], found[1])


def _legend(letters: pd.Series) -> str:
    """What the letters that are there mean."""
    there = [
        f"{letter} {meaning}" for letter, meaning in LEGEND.items() if (letters == letter).any()
    ]
    return ", ".join(there) or "no place is shown to be sufficient or necessary"


def _with_letters(plot: ggplot) -> ggplot:
    """The map with what column `letter` says written in its cells."""
    written = plot.data[plot.data["letter"] != ""]
    if written.empty:
        return plot
    letters = geom_text(
        aes(label="letter"), data=written, size=TICK_SIZE, color=INK, fontweight="bold",
        va="center_baseline",
    )  # fmt: skip
    return plot + letters
