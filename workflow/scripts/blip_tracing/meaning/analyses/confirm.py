"""Explore, then confirm: claims drawn from one half of the pictures, tested once on the other.

Whoever picks the largest of many effects and tests it on the numbers that it was picked by finds
too much, and too large a one (the winner's curse). Here the picking and the test share no picture:
claims are the places that stand out most in the exploring half, whatever the family; the confirming
half then meets these claims alone, each with the two hypotheses of a mark (`meaning.marks`), one
side, and Holm's correction over the claims (Holm 1979, A simple sequentially rejective multiple
test procedure). So they err, together, in at most 5 of 100 studies, however they were picked.

Effects are changes in probability in the experiment's direction, from the reference (change) and
from the null's (beyond null). Shapes: examples N, cells M.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from blip_tracing.given.claims import Use
from blip_tracing.given.halves import CONFIRMING
from blip_tracing.meaning.effects import whole_or_missing
from blip_tracing.meaning.evidence import VERDICTS, Evidence, where_words
from blip_tracing.meaning.marks import of_enough, why_untested
from blip_tracing.meaning.statistics import (
    CONFIDENCE,
    ENDS,
    FEWEST_PICTURES,
    SIGNIFICANT,
    MaxT,
    by_picture,
    holm,
    max_t_test,
)
from blip_tracing.meaning.summary import CELL, TESTED, Rules, arrange, known_of, summarize
from blip_tracing.vocabulary.experiment import described
from blip_tracing.vocabulary.tables import FEW_PICTURES, NO_NULL

CONFIRMED, NOT_CONFIRMED, NOT_TESTED = "confirmed", "not confirmed", "not tested"
# What passes on pictures that had been looked at before.
PASSED = "passed, not confirmatory"
NOTHING_STANDS_OUT = "no effect above the least and beyond the null's"
KNOWN_BEFOREHAND = "known beforehand there"
CLAIM = ["claim", "experiment", "site", "noise_level", *CELL, "direction"]
OF_HALF = [f"{name}{end}" for name in ("change", "beyond_null") for end in ENDS]
TABLE = [
    *CLAIM, *(f"explored_{name}" for name in OF_HALF), "explored_pictures", "predicted_low",
    *(f"found_{name}" for name in OF_HALF), "found_pictures", "shrinkage", "least_effect",
    "p_floor", "p_null", "p", "p_holm", "reason", "verdict", "digest",
]  # fmt: skip


@dataclass(frozen=True)
class Cells:
    """A family's included examples of one half.

    places: CELL and known; change, contrast: (N, M), above zero as they are to go; means: OF_HALF
    and pictures, a row a cell.
    """

    places: pd.DataFrame
    change: np.ndarray
    contrast: np.ndarray
    pictures: list[str]
    means: pd.DataFrame


def cells_of(evidence: Evidence, experiment: str, site: str) -> Cells | None:
    """The cells of a site at the primary level; None where no example is included."""
    rows = evidence.by_role(evidence.primary_family(experiment, site))
    kept = rows[rows["included"]]
    if kept.empty:
        return None
    direction = evidence.experiments[experiment].direction
    part = arrange(kept, ["probability", TESTED, "contrast"])
    means = dict(summarize(part, [TESTED, "contrast"], evidence.rules))
    told = {}
    for name, quantity in (("change", TESTED), ("beyond_null", "contrast")):
        ends = ("low", "high") if direction > 0 else ("high", "low")
        for end, column in (("", "mean"), ("_low", ends[0]), ("_high", ends[1])):
            told[f"{name}{end}"] = direction * means[quantity][column]
    return Cells(
        part.cells.assign(known=known_of(kept, part.cells)),
        direction * part.of(TESTED),
        direction * part.of("contrast"),
        part.pictures,
        pd.DataFrame({**told, "pictures": means[TESTED]["pictures"]}),
    )


def claimed_cells(
    claims: Sequence[Mapping[str, Any]], evidence: Evidence
) -> list[tuple[Cells | None, int | None]]:
    """Of each claim the cells of its map in a half, and which of them it is; None for none."""
    maps = {(claim["experiment"], claim["site"]) for claim in claims}
    known = {of: cells_of(evidence, *of) for of in sorted(maps)}
    found = []
    for claim in claims:
        cells = known[claim["experiment"], claim["site"]]
        found.append((cells, _place_of(claim, cells) if cells else None))
    return found


def draw_claims(evidence: Evidence, others: int) -> list[dict[str, Any]]:
    """The claims of the exploring half, the clearest first, in plain values.

    evidence: of that half alone; others: how many pictures the confirming half has. A place can be
    claimed where nothing is known beforehand, six pictures have it with a null, and both means
    exceed the least effect; the clearest has the largest t, of the two hypotheses the lesser.
    """
    found = pd.DataFrame(_candidates(evidence, others))
    if found.empty:
        return []
    found = found.sort_values("t", ascending=False, kind="stable")
    chosen = found.head(evidence.settings["claims"]).to_dict("records")
    return [
        {"claim": number, **{str(key): _plain(value) for key, value in claim.items()}}
        for number, claim in enumerate(chosen, 1)
    ]


def _candidates(evidence: Evidence, others: int) -> Iterator[dict[str, Any]]:
    """What can be claimed, map after map, each place with its t."""
    for name in evidence.settings["experiments"]:
        experiment, level = evidence.experiments[name], evidence.primary[name]
        of_experiment = {
            "experiment": name,
            "described": described(experiment),
            "level": level,
            "noise_level": experiment.levels[level] if experiment.levels else None,
            "direction": experiment.direction,
        }
        for site in experiment.sites:
            if cells := cells_of(evidence, name, site):
                for place in _standing_out(cells, evidence.rules, others):
                    yield {**of_experiment, "site": site, **place}


def _standing_out(cells: Cells, rules: Rules, others: int) -> Iterator[dict[str, Any]]:
    """The places of a map that can be claimed."""
    t = np.minimum(
        _tested(cells.change, cells.pictures, rules).t,
        _tested(cells.contrast, cells.pictures, rules).t,
    )
    above = (cells.means[["change", "beyond_null"]] > rules.least_effect).all(axis=1)
    unknown = cells.places["known"] == ""
    for at in np.flatnonzero(above & unknown & (t > 0)):
        yield {
            **{key: cells.places[key].iloc[at] for key in CELL},
            **{key: cells.means[key].iloc[at] for key in (*OF_HALF, "pictures")},
            "predicted_low": predicted_low(cells.change[:, at], cells.pictures, others),
            "t": t[at],
        }


def predicted_low(values: np.ndarray, pictures: Sequence[str], others: int) -> float:
    """What the mean of as many other pictures exceeds in 95 of 100 studies, were none picked.

    values: (N,). The one-sided prediction interval of a mean from a mean (Patil, Peng & Leek 2016,
    What should researchers expect when they replicate studies?), of pictures that vary normally. It
    knows nothing of the choice: of a place chosen as the largest more studies fall below.
    """
    means = _of_pictures(values[:, None], pictures)
    error = means.std(ddof=1) * np.sqrt(1 / len(means) + 1 / others)
    return float(means.mean() - student.ppf(CONFIDENCE, len(means) - 1) * error)


def why_nothing(evidence: Evidence) -> str:
    """Why an exploring half gives no claims."""
    of_sites = [
        cells_of(evidence, name, site)
        for name in evidence.settings["experiments"]
        for site in evidence.experiments[name].sites
    ]
    there = [cells for cells in of_sites if cells]
    if not any(cells.means["pictures"].max() >= FEWEST_PICTURES for cells in there):
        return FEW_PICTURES
    if all(np.isnan(cells.contrast).all() for cells in there):
        return NO_NULL
    return NOTHING_STANDS_OUT


def confirm_claims(
    claims: Sequence[Mapping[str, Any]], evidence: Evidence, use: Use, digest: str
) -> pd.DataFrame:
    """The table `confirm`: each claim, and what the confirming half says of it.

    evidence: of that half alone; use: how this test stands among all; digest: of the claims.
    """
    found = claimed_cells(claims, evidence)
    rows = [_met(claim, *place, evidence.rules) for claim, place in zip(claims, found, strict=True)]
    table = pd.DataFrame(rows, columns=[name for name in TABLE if name not in ("p_holm", "digest")])
    table["p_holm"] = holm(table["p"].to_numpy("float64"))
    table["shrinkage"] = table["found_change"] - table["explored_change"]
    table["least_effect"] = evidence.rules.least_effect
    means = table[["found_change", "found_beyond_null"]]
    large = means.ge(table["least_effect"], axis=0).all(axis=1)
    passed = (table["p_holm"] < SIGNIFICANT) & large
    table["verdict"] = np.select(
        [table["reason"] != "", passed], [NOT_TESTED, CONFIRMED if use.confirms else PASSED],
        NOT_CONFIRMED,
    )  # fmt: skip
    table["head"] = whole_or_missing(table["head"])
    # Of digits alone a reader of tables would make a number.
    return table.assign(digest=f"sha256:{digest}").reindex(columns=TABLE)


def _met(
    claim: Mapping[str, Any], cells: Cells | None, at: int | None, rules: Rules
) -> dict[str, Any]:
    """A claim beside what its cell in the confirming half says of it."""
    told = {
        **{key: claim[key] for key in CLAIM},
        **{f"explored_{key}": claim[key] for key in (*OF_HALF, "pictures")},
        "predicted_low": claim["predicted_low"],
        "found_pictures": 0,
        "reason": FEW_PICTURES,
    }
    if cells is None or at is None:
        return told
    there = ~np.isnan(cells.contrast[:, at])
    with_null = len({name for name, own in zip(cells.pictures, there, strict=True) if own})
    found = cells.means.iloc[at]
    reason = why_untested(int(found["pictures"]), with_null, True)
    if cells.places["known"].iloc[at]:
        reason = KNOWN_BEFOREHAND
    told |= {f"found_{key}": found[key] for key in (*OF_HALF, "pictures")}
    told |= {"found_pictures": int(found["pictures"]), "reason": reason}
    if not reason:
        floor, null = (
            float(_tested(values[:, [at]], cells.pictures, rules).p[0])
            for values in (cells.change, cells.contrast)
        )
        told |= {"p_floor": floor, "p_null": null, "p": max(floor, null)}
    return told


def shrinkage(
    claims: Sequence[Mapping[str, Any]], exploring: Evidence, confirming: Evidence
) -> list[float]:
    """How much larger the claimed effects are in the confirming half: value, low, high, pictures.

    Over each half's pictures, of each its mean over the claimed places; Welch's interval of 95 %,
    none where a half has fewer than six pictures; pictures: of the confirming half. It takes the
    claims as given: that they were chosen by the exploring half is what is to be seen.
    """
    halves = [_claimed(claims, evidence) for evidence in (exploring, confirming)]
    counts = [len(values) for values in halves]
    if not all(counts):
        return [np.nan, np.nan, np.nan, counts[1]]
    value = halves[1].mean() - halves[0].mean()
    if min(counts) < FEWEST_PICTURES:
        return [value, np.nan, np.nan, counts[1]]
    errors = np.array([values.var(ddof=1) / len(values) for values in halves])
    if not errors.sum():
        return [value, value, value, counts[1]]
    freedom = errors.sum() ** 2 / (errors**2 / (np.array(counts) - 1)).sum()
    reach = student.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(errors.sum())
    return [value, value - reach, value + reach, counts[1]]


def verdicts_of(
    table: pd.DataFrame,
    use: Use,
    sizes: Sequence[float],
    pictures: Mapping[str, int],
    why: str,
    digest: str,
) -> pd.DataFrame:
    """What is concluded, a row a conclusion.

    table: `confirm`; sizes: of `shrinkage`; pictures: half → how many it has; why: there are no
    claims, if there are none.
    """
    confirming = pictures[CONFIRMING]
    rows = [*_of_claims(table), _of_all(table, why, digest, confirming)]
    if len(table):
        rows.append(_of_sizes(sizes))
    rows.append(_of_use(use, confirming))
    rows.append(["all other numbers of this run", "averages over both halves", np.nan, np.nan,
                 np.nan, np.nan, sum(pictures.values()), "exploratory"])  # fmt: skip
    return pd.DataFrame(rows, columns=VERDICTS)


def _of_claims(table: pd.DataFrame) -> Iterator[list[object]]:
    for claim in table.to_dict("records"):
        about = f"claim {claim['claim']}: {where_words(claim)}"
        before = f"{claim['explored_change']:.3g} in {claim['explored_pictures']} pictures explored"
        reason = f" ({claim['reason']})" if claim["reason"] else ""
        yield [
            about, f"its effect in the confirming half; {before}", claim["found_change"],
            claim["found_change_low"], claim["found_change_high"], claim["p_holm"],
            claim["found_pictures"], f"{claim['verdict']}{reason}",
        ]  # fmt: skip


def _of_all(table: pd.DataFrame, why: str, digest: str, pictures: int) -> list[object]:
    about = f"the claims, sha256 {digest[:12]}"
    if table.empty:
        return [about, why, 0, np.nan, np.nan, np.nan, pictures, "nothing is claimed"]
    confirmed = int((table["verdict"] == CONFIRMED).sum())
    return [about, "confirmed, with Holm’s correction over all", confirmed, np.nan, np.nan,
            np.nan, pictures, f"{confirmed} of {len(table)}"]  # fmt: skip


def _of_sizes(sizes: Sequence[float]) -> list[object]:
    value, low, high, pictures = sizes
    if np.isnan(low):
        said = FEW_PICTURES
    elif high < 0:
        said = "smaller than explored"
    else:
        said = "larger than explored" if low > 0 else "no difference shown"
    return ["the size of the claimed effects", "confirming less exploring half", value, low, high,
            np.nan, int(pictures), said]  # fmt: skip


def _of_use(use: Use, pictures: int) -> list[object]:
    if use.seen:
        said = f"claims had been drawn from {use.seen} of its pictures: no p here confirms"
    elif use.before:
        said = f"used {use.times} times: no p here confirms"
    elif use.times > 1:
        said = f"used {use.times} times, for these claims first"
    else:
        said = "used once"
    return ["the confirming half", "sets of claims that were tested on it", use.times, np.nan,
            np.nan, np.nan, pictures, said]  # fmt: skip


def _tested(values: np.ndarray, pictures: Sequence[str], rules: Rules) -> MaxT:
    """One-sided t and p of values (N, M) above the least effect."""
    return max_t_test(
        of_enough(values, pictures), rules.resamples, rules.seed, pictures, rules.least_effect, 1
    )


def _claimed(claims: Sequence[Mapping[str, Any]], evidence: Evidence) -> np.ndarray:
    """Each picture's mean change over the claimed places that it has."""
    parts = [
        pd.DataFrame({"picture": cells.pictures, "value": cells.change[:, at]})
        for cells, at in claimed_cells(claims, evidence)
        if cells is not None and at is not None
    ]
    if not parts:
        return np.array([])
    values = pd.concat(parts).dropna()
    return values.groupby("picture")["value"].mean().to_numpy()


def _place_of(claim: Mapping[str, Any], cells: Cells) -> int | None:
    """The number of a claim's cell in a half; None where no included example has it."""
    places = cells.places
    same = np.logical_and.reduce([places[key] == claim[key] for key in CELL])
    return int(np.flatnonzero(same)[0]) if same.any() else None


def _of_pictures(values: np.ndarray, pictures: Sequence[str]) -> np.ndarray:
    """Each picture's mean (P,) of one cell, of those that have it."""
    sums, counts = by_picture(values, pictures)
    return (sums / np.where(counts > 0, counts, np.nan))[counts > 0]


def _plain(value: Any) -> Any:
    """A number as JSON has it, none where it is missing."""
    number = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(number, float) and np.isnan(number) else number
