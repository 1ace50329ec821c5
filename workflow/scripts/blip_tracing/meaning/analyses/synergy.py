"""Together against the sum of singles: do places do more together than each does alone?

Put in one by one, places that are needed together show nothing, and places that carry the same all
show the same: so windows of layers did more than their layers' sum (Zhang & Nanda 2024, Towards
best practices of activation patching, section 5), and late single positions look weak. What is put
in together, less the sum of its parts put in alone, is paired by example. It is the sum of all
interactions of two parts and more (Grabisch & Roubens 1999, An axiomatic approach to the concept
of interaction among players: Möbius), of two parts the interaction itself.

A probability is bounded, so that two effects can sum to more than there is, and a logistic curve
makes of what is additive before it something that is not. So the same is told of log-odds and of
the logit difference, and where only the probability is not additive, it is the scale.

What is known beforehand is no finding: what has one part, has no effect by construction, or is a
ceiling of parts all of which are known. A ceiling of other parts is told: what they do is not
known, nor, therefore, the difference.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from blip_tracing.meaning.beside import JOINED
from blip_tracing.meaning.effects import whole_or_missing
from blip_tracing.meaning.evidence import VERDICTS, Evidence
from blip_tracing.meaning.marks import of_enough
from blip_tracing.meaning.statistics import (
    ENDS,
    FEWEST_PICTURES,
    SIGNIFICANT,
    by_picture,
    equivalence_test,
    jackknife,
    max_t_test,
    mean_intervals,
    named_means,
    ratio_interval,
)
from blip_tracing.meaning.summary import CELL, TESTED, Arranged, Rules, arrange, known_of
from blip_tracing.vocabulary.analyses import QUANTITY_WORDS, orientation
from blip_tracing.vocabulary.experiment import TOGETHER, Experiment
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.sites import window_of
from blip_tracing.vocabulary.tables import CEILING, NO_OP

SUPER, SUB, ADDITIVE = "super-additive", "sub-additive", "additive"
NOTHING, NOT_SHOWN, ONE_PART = "no effect", "not shown", "one part"
SCALES = (TESTED, "log_odds_change", "logit_difference_change")
SUM = "sum_of_"
EFFECTS = ("together", "sum", "difference")
TABLE = [
    "joint", "singles", "site", "noise_level", "quantity", *CELL, "known", "parts",
    *(f"{name}{end}" for name in (*EFFECTS, "ratio") for end in ENDS),
    "p_more", "p_less", "p_additive", "pictures", "kind",
]  # fmt: skip


def analyse(evidence: Evidence) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What is put in together beside the sum of its parts, and how many are of which kind."""
    maps = [
        found
        for pair in evidence.settings["pairs"]
        for found in _maps_of(evidence, pair["joint"], pair["singles"])
    ]
    table = pd.concat(maps, ignore_index=True)
    verdicts = pd.DataFrame(_verdicts(table), columns=VERDICTS)
    return table.assign(head=whole_or_missing(table["head"])), verdicts


def _maps_of(evidence: Evidence, joint: str, singles: str) -> Iterator[pd.DataFrame]:
    together, alone = (evidence.experiments[name] for name in (joint, singles))
    for site in together.sites:
        if site not in alone.sites:
            continue
        families = [evidence.primary_family(name, site) for name in (joint, singles)]
        rows, parts = (evidence.by_role(family) for family in families)
        counts = evidence.by_example(families[1]).set_index("example")["cells"]
        found = paired(rows, parts, counts, together, alone)
        least = {name: evidence.settings["least_logits"] for name in SCALES}
        least[TESTED] = evidence.rules.least_effect
        told = {"joint": joint, "singles": singles, "site": site}
        for table in compare(found, together, least, evidence.rules):
            yield table.assign(**told, noise_level=rows["noise_level"].iloc[0])[TABLE]


def paired(
    rows: pd.DataFrame,
    parts: pd.DataFrame,
    cells: pd.Series,
    joint: Experiment,
    singles: Experiment,
) -> pd.DataFrame:
    """The joint experiment's `role_means` with what their parts sum to, example by example.

    rows, parts: `role_means` of both, of all layers; cells: how many each example has in `singles`.
    Added: parts, how many there are; sum_of_<quantity> of each scale; parts_known, whether all of
    them are known beforehand. Rows without sums, as where an example has positions of no role that
    are part of the whole, are left out.
    """
    summed = parts.assign(count=1, all_known=parts["known"] != "")[
        [*JOINED, *SCALES, "positions", "count", "all_known"]
    ]
    if joint.positions != singles.positions:
        summed = _over_positions(summed, cells, joint.positions == TOGETHER)
    if joint.window != singles.window:
        summed = _over_windows(summed, joint.window)
    summed = summed.rename(columns={name: f"{SUM}{name}" for name in SCALES})
    summed = summed.rename(columns={"count": "parts", "all_known": "parts_known"})
    return rows.merge(summed.drop(columns="positions"), on=JOINED, validate="one_to_one")


def _over_positions(parts: pd.DataFrame, cells: pd.Series, whole: bool) -> pd.DataFrame:
    """Sums over the positions of each role, or of all where an example's cells all have a role.

    A row is the mean over `positions` of them; those of a head's mean over all are left out.
    """
    parts = parts[parts["token_role"] != ALL]
    sums = parts.assign(
        count=parts["positions"], **{name: parts[name] * parts["positions"] for name in SCALES}
    )
    if not whole:
        return sums
    there = sums.groupby("example")["positions"].sum()
    complete = there.index[there == cells.reindex(there.index)]
    chosen = sums[sums["example"].isin(complete)].assign(token_role=ALL)
    return _summed(chosen, JOINED)


def _over_windows(parts: pd.DataFrame, window: int) -> pd.DataFrame:
    """Sums over the window of layers about each layer; none where a layer of it is missing."""
    layers = int(parts["layer"].max()) + 1
    windows = {layer: window_of(layer, window, layers) for layer in range(layers)}
    belongs = pd.DataFrame(
        [(layer, single) for layer, of in windows.items() for single in of],
        columns=["layer", "single"],
    )
    sums = parts.rename(columns={"layer": "single"}).merge(belongs, on="single")
    there = sums.groupby(JOINED)["single"].transform("size")
    return _summed(sums[there == sums["layer"].map({n: len(of) for n, of in windows.items()})])


def _summed(rows: pd.DataFrame, keys: Sequence[str] = JOINED) -> pd.DataFrame:
    added = rows.groupby(list(keys), as_index=False)
    sums = added[[*SCALES, "positions", "count"]].sum()
    return sums.assign(all_known=added["all_known"].all()["all_known"])


def compare(
    rows: pd.DataFrame, experiment: Experiment, least: dict[str, float], rules: Rules
) -> Iterator[pd.DataFrame]:
    """Each scale's comparison of a family, a row a cell.

    rows: of `paired`; experiment: the joint one; least: by scale, the difference that counts.
    Examples of a single part say nothing and are left out of their cell.
    """
    included = rows[rows["included"]]
    several = included.assign(
        **{
            name: included[name].where(included["parts"] > 1)
            for name in [*SCALES, *(f"{SUM}{name}" for name in SCALES)]
        }
    )
    columns = [*SCALES, *(f"{SUM}{name}" for name in SCALES), "parts", "parts_known"]
    part = arrange(several, columns)
    known = known_before(part, known_of(included, part.cells))
    for scale in SCALES:
        yield _of_scale(part, known, scale, orientation(experiment, scale), least[scale], rules)


def known_before(part: Arranged, joint: np.ndarray) -> np.ndarray:
    """Why the difference of each cell is known beforehand (M,); "" where it is not.

    joint: what is known of the cells put in together.
    """
    one = ~(part.of("parts") > 1).any(axis=0)
    parts_known = ((part.of("parts_known") == 1) | np.isnan(part.of("parts"))).all(axis=0)
    no_op = joint == NO_OP
    return np.select([one, no_op, (joint == CEILING) & parts_known], [ONE_PART, NO_OP, CEILING], "")


def _of_scale(
    part: Arranged, known: np.ndarray, scale: str, sign: int, least: float, rules: Rules
) -> pd.DataFrame:
    together, alone = (sign * part.of(name) for name in (scale, f"{SUM}{scale}"))
    difference = together - alone
    open_cells = known == ""
    told: dict[str, pd.Series] = {}
    for name, values in zip(EFFECTS, (together, alone, difference), strict=True):
        means = mean_intervals(values, rules.resamples, rules.seed, part.pictures)
        told |= {str(column): of for column, of in named_means(means, name).items()}
    tests = pd.DataFrame(np.nan, part.cells.index, ["p_more", "p_less", "p_additive", "p_nothing"])
    tests.loc[open_cells] = _tests(
        difference[:, open_cells], together[:, open_cells], part.pictures, least, rules
    )
    ratios = [_ratio(together[:, [n]], alone[:, [n]], part.pictures) for n in range(len(known))]
    more, less, additive, nothing = (tests[name] < SIGNIFICANT for name in tests)
    kind = np.select(
        [known != "", more, less, additive & nothing, additive],
        [known, SUPER, SUB, NOTHING, ADDITIVE],
        NOT_SHOWN,
    )
    counts = part.of("parts")
    several = np.where(counts > 1, counts, np.nan)
    return part.cells.assign(
        quantity=scale,
        known=known,
        parts=_mean(np.where((known == ONE_PART), counts, several)),
        **told,
        **{f"ratio{end}": [ratio[n] for ratio in ratios] for n, end in enumerate(ENDS)},
        **tests.drop(columns="p_nothing"),
        pictures=by_picture(difference, part.pictures).pictures,
        kind=kind,
    )


def _tests(
    difference: np.ndarray,
    together: np.ndarray,
    pictures: Sequence[str],
    least: float,
    rules: Rules,
) -> np.ndarray:
    """The family-wise p of each cell: more, less, as much, and nothing put in together: (M, 4)."""
    apart, effect = (of_enough(values, pictures) for values in (difference, together))
    how = (rules.resamples, rules.seed, pictures)
    return np.stack(
        [
            max_t_test(apart, *how, least).p,
            max_t_test(-apart, *how, least).p,
            equivalence_test(apart, least, *how),
            equivalence_test(effect, least, *how),
        ],
        axis=1,
    )


def _ratio(together: np.ndarray, alone: np.ndarray, pictures: Sequence[str]) -> tuple[float, ...]:
    """The mean effect together over the mean sum, with its interval; NaN where that may be zero."""
    above, below = (by_picture(values, pictures) for values in (together, alone))
    there = (above.counts > 0)[:, 0]
    if there.sum() < FEWEST_PICTURES:
        return (np.nan,) * 3
    kept = np.vstack([np.ones(there.sum()), 1 - np.eye(there.sum())])
    sums = kept @ np.hstack([above.sums, below.sums])[there]
    means = sums / (kept @ above.counts[there])
    return ratio_interval(*jackknife(means), int(there.sum()) - 1)


def _mean(values: np.ndarray) -> np.ndarray:
    there = ~np.isnan(values)
    return np.nansum(values, axis=0) / np.where(there.any(axis=0), there.sum(axis=0), np.nan)


def _verdicts(table: pd.DataFrame) -> Iterator[list[object]]:
    for (joint, singles, site), rows in table.groupby(["joint", "singles", "site"], sort=False):
        about = f"{joint} against {singles} at {site}"
        open_cells = rows[rows["known"] == ""]
        pictures = int(rows["pictures"].max())
        by_scale = {str(of): cells for of, cells in open_cells.groupby("quantity", sort=False)}
        for scale, cells in by_scale.items():
            yield from _of_kinds(about, scale, cells, pictures)
        if by_scale:
            yield from _of_the_scale(about, by_scale, pictures)
            yield from _of_ratio(about, by_scale[TESTED])


def _of_kinds(about: str, scale: str, cells: pd.DataFrame, pictures: int) -> Iterator[list[object]]:
    for kind, p in ((SUPER, "p_more"), (SUB, "p_less")):
        count = int((cells["kind"] == kind).sum())
        yield [
            about, f"{kind} in {QUANTITY_WORDS[scale]}", count, np.nan, np.nan, cells[p].min(),
            pictures, f"{count} of {len(cells)} places" if count else NOT_SHOWN,
        ]  # fmt: skip


def _of_the_scale(
    about: str, by_scale: dict[str, pd.DataFrame], pictures: int
) -> Iterator[list[object]]:
    """How many are not additive in probability alone, if any."""
    kinds = {scale: cells.set_index(CELL)["kind"] for scale, cells in by_scale.items()}
    apart = kinds[TESTED].isin([SUPER, SUB])
    count = int((apart & (kinds["log_odds_change"] == ADDITIVE)).sum())
    if count:
        yield [
            about, "not additive in probability, additive in log-odds", count, np.nan, np.nan,
            np.nan, pictures, f"the scale’s doing at {count} of {int(apart.sum())} places",
        ]  # fmt: skip


def _of_ratio(about: str, cells: pd.DataFrame) -> Iterator[list[object]]:
    """The ratio where most is done together, if the sum is above zero there.

    The place is chosen by its effect, so that the verdict is the map's, not that of its interval.
    """
    there = cells.dropna(subset="together")
    if there.empty:
        return
    largest = there.iloc[int(there["together"].argmax())]
    if np.isnan(largest["ratio"]):
        return
    head = "" if largest["head"] < 0 else f"head {largest['head']}, "
    place = f"layer {largest['layer']}, {head}{largest['token_role']}"
    yield [
        about, f"probability together over the sum, where most is done: {place}", largest["ratio"],
        largest["ratio_low"], largest["ratio_high"], np.nan, int(largest["pictures"]),
        largest["kind"],
    ]  # fmt: skip
