"""A multiverse: which places are found whichever way the question is asked.

A published map is one of many that the same measurements could have given: of another level,
corruption, quantity, null, site, threshold or seed (Steegen, Tuerlinckx, Gelman & Vanpaemel 2016,
Increasing transparency through a multiverse analysis; Simonsohn, Simmons & Nelson 2020,
Specification curve analysis). So each is asked, and what is told of a place is the share of the
universes that find it, of those that say something, and which choice decides.

A share of universes is no probability and has no interval: universes share their pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from blip_tracing.meaning.evidence import VERDICTS
from blip_tracing.meaning.summary import CELL
from blip_tracing.meaning.universes import CHOICES, UNIVERSES
from blip_tracing.vocabulary.tables import FALSE_MARKS

TABLE = ["universe", *UNIVERSES]
# What a reader calls a choice.
WORDS = {
    "corruption": "corruption",
    "draw_seed": "seed of the draws",
    "experiment": "experiment",
    "noise_level": "level",
    "site": "site",
    "quantity": "quantity",
    "null": "null",
    "threshold": "threshold",
    "seed": "seed of the tests",
}
# A choice that is made within others: its share is what it adds to theirs.
WITHIN = {
    "draw_seed": ["corruption"],
    "experiment": ["corruption", "draw_seed"],
    "noise_level": ["corruption", "draw_seed", "experiment"],
}
# The share of the variance of being found from which a choice is said to decide.
DECIDES = 0.5
# How many of the places that do not survive are told of.
TOLD = 5
SURVIVES, NONE_SURVIVES, ALONE, SILENT = (
    "survives in all", "none survives", "no multiverse: one universe alone", "nothing is said",
)  # fmt: skip
LAST_PICTURES = "not known without each picture: that takes seven"
ONE_PICTURE = "hangs on single pictures"
TOGETHER = "several choices together decide"


def conclude(
    universes: Sequence[pd.DataFrame], negatives: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The universes of all experiments, numbered, and what is concluded from them.

    universes: of `universes_of`, an experiment each; negatives: that table. An experiment whose
    negative controls got marks says nothing, as nothing of it is marked anywhere.
    """
    table = pd.concat(universes, ignore_index=True)
    exceeded = negatives.loc[negatives["exceeded"].astype(bool), "experiment"]
    withheld = table["experiment"].isin(exceeded) & (table["reason"] == "")
    table = table.assign(
        reason=table["reason"].mask(withheld, FALSE_MARKS), found=table["found"] & ~withheld
    )
    number = table.groupby(CHOICES, dropna=False, sort=False).ngroup()
    table = table.assign(universe=number)[TABLE]
    verdicts = [row for about, rows in scopes(table) for row in _verdicts(about, rows)]
    return table, pd.DataFrame(verdicts, columns=VERDICTS)


def scopes(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """What is concluded about apart: each site, and all whose places can be compared."""
    for axes, rows in table.groupby("axes", sort=False):
        sites = rows["site"].unique()
        for site in sites:
            yield str(site), rows[rows["site"] == site]
        if len(sites) > 1:
            yield f"all sites of {axes}", rows


def telling(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the universes that say something."""
    return rows[rows["reason"].fillna("") == ""]


def several(rows: pd.DataFrame) -> bool:
    """Whether more than one universe says something, the tests' seeds not counted."""
    ways = [choice for choice in CHOICES if choice != "seed"]
    return len(telling(rows)[ways].drop_duplicates()) > 1


def shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Each place of a scope, the most often found first, none where nothing is said.

    Columns CELL; found, tested: in how many universes; share: of those that say something; kept:
    in how many it is found without each picture too; asked: in how many that is known; p: the
    largest; pictures: the fewest; survives: whether all say so, and more than one does.
    """
    said = telling(rows)
    universes = said["universe"].nunique()
    counted = said.assign(
        tested=said["p"].notna(), kept=said["stays"] == 1, asked=said["stays"].notna()
    )
    cells = counted.groupby(CELL, dropna=False, sort=True).agg(
        found=("found", "sum"),
        tested=("tested", "sum"),
        kept=("kept", "sum"),
        asked=("asked", "sum"),
        p=("p", "max"),
        pictures=("pictures", "min"),
    )
    cells = cells.assign(
        share=cells["found"] / max(universes, 1),
        survives=(cells["found"] == universes) & (cells["kept"] == universes) & several(rows),
    )
    return cells.reset_index().sort_values("share", ascending=False, kind="stable")


def by_choice(rows: pd.DataFrame) -> pd.DataFrame:
    """The share of the universes that find a place, by each choice: CELL, dimension, choice, share.

    Of the dimensions that are varied.
    """
    said = telling(rows)
    parts = []
    for dimension in varied(said):
        named = said.assign(choice=said[dimension].map(choice_words))
        universes = named.groupby("choice")["universe"].nunique()
        found = named.groupby([*CELL, "choice"], sort=False)["found"].sum().reset_index()
        share = found["found"] / found["choice"].map(universes)
        parts.append(found.assign(dimension=dimension, share=share))
    columns = [*CELL, "dimension", "choice", "share"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def varied(rows: pd.DataFrame) -> list[str]:
    """The choices that differ between these universes, beyond what those around them say."""

    def ways(by: list[str]) -> int:
        return len(rows[by].drop_duplicates()) if by else 1

    return [
        name for name in CHOICES if ways([*WITHIN.get(name, []), name]) > ways(WITHIN.get(name, []))
    ]


def choice_words(choice: object) -> str:
    """What was chosen, in words: a level as tables print it, none where nothing is corrupted."""
    if isinstance(choice, float):
        return "none" if choice != choice else f"{choice:g}"
    return str(choice)


def deciding(rows: pd.DataFrame) -> pd.DataFrame:
    """How much of each place's variance over universes each choice makes: a row a place.

    Being found is 1 or 0, its variance over the universes that say something. Of a choice it is
    the share that lies between its values (η², first order), of one within others what it adds to
    theirs. What is missing to 1 is made by choices together. NaN where a place is found in all
    universes or in none.
    """
    said = telling(rows)
    found = said.pivot_table(index="universe", columns=CELL, values="found", fill_value=0)
    choices = said.drop_duplicates("universe").set_index("universe").loc[found.index, CHOICES]
    centred = found - found.mean()
    total = (centred**2).sum()
    total = total.where(total > 0)

    def between(by: list[str]) -> pd.Series:
        if not by:
            return total * 0
        groups = choices.groupby(by, dropna=False, sort=False).ngroup()
        return (centred.groupby(groups).transform("mean") ** 2).sum()

    made = {
        name: (between([*WITHIN.get(name, []), name]) - between(WITHIN.get(name, []))) / total
        for name in CHOICES
    }
    return pd.DataFrame(made).clip(0, 1).reset_index()


def place_words(cell: pd.Series) -> str:
    """A place in words: layer 3, [SEP]; of a head its number too."""
    head = f", head {int(cell['head'])}" if cell["head"] >= 0 else ""
    return f"layer {int(cell['layer'])}{head}, {cell['token_role']}"


def _verdicts(about: str, rows: pd.DataFrame) -> Iterator[list[object]]:
    silent = rows[rows["reason"].fillna("") != ""].drop_duplicates("universe")
    said, count = telling(rows), rows["universe"].nunique()
    telling_ones = said["universe"].nunique()
    why = "".join(
        f"; {number}: {reason}" for reason, number in silent["reason"].value_counts().items()
    )
    pictures = rows["pictures"].max()
    yield _row(about, "universes that say something", telling_ones, np.nan, pictures,
               f"{telling_ones} of {count}{why}")  # fmt: skip
    if not several(rows):
        lacking = ALONE if telling_ones else SILENT
        yield _row(about, "what survives in all of them", np.nan, np.nan, pictures, lacking)
        return
    places = shares(rows)
    for _, cell in places[places["survives"]].iterrows():
        yield _row(about, place_words(cell), cell["share"], cell["p"], cell["pictures"], SURVIVES)
    if not places["survives"].any():
        yield _row(about, "what survives in all of them", 0.0, np.nan, pictures, NONE_SURVIVES)
    made = deciding(rows).set_index(CELL)
    others = places[~places["survives"] & (places["found"] > 0)]
    for _, cell in others.head(TOLD).iterrows():
        said_of = _why_not(cell, said, made.loc[tuple(cell[CELL])])
        yield _row(about, f"{place_words(cell)}: share of universes", cell["share"], np.nan,
                   cell["pictures"], said_of)  # fmt: skip
    halves = said.drop_duplicates("universe")[["overlap", "overlap_by_chance"]].mean()
    if halves.notna().all():
        by_chance = f"{halves['overlap_by_chance']:.2f} by chance"
        yield _row(about, "overlap of top sets from halves of the pictures", halves["overlap"],
                   np.nan, pictures, by_chance)  # fmt: skip


def _why_not(cell: pd.Series, said: pd.DataFrame, made: pd.Series) -> str:
    """Why a place that some universe finds does not survive."""
    universes = said["universe"].nunique()
    if cell["found"] == universes:
        return LAST_PICTURES if cell["asked"] < universes else ONE_PICTURE
    own = varied(said)
    names = [name for name in own if made[name] >= DECIDES]
    if not names:
        return TOGETHER
    # What changes with a choice around it, and never alone.
    along = [
        inner
        for inner in ("draw_seed", "noise_level")
        if inner not in own
        and said[inner].nunique(dropna=False) > 1
        and set(WITHIN[inner]) & set(names)
    ]
    words = " or ".join(WORDS[name] for name in [*names, *along])
    return f"{words} decides: not varied apart" if " or " in words else f"the {words} decides"


def _row(
    about: str, statement: str, value: float, p: float, pictures: float, verdict: str
) -> list[object]:
    return [about, statement, value, np.nan, np.nan, p, pictures, verdict]
