"""Sufficient against necessary: what a place does restored alone, and what it does corrupted alone.

Restoring finds what suffices, a cross-section of the computation; corrupting one place of the clean
run finds what is needed. They disagree where several places carry the same (each suffices, none is
needed) or where several are needed together (each is needed, none suffices): Heimersheim & Nanda
2024, How to use and interpret activation patching, sections 2.3 and 2.4. So both are told of every
place, with the tests of what it is and of their difference.

**Sufficient** is a place whose restoring passes both tests of a mark (`marks`): above the floor,
and beyond what an unrelated example's clean state brings there, since any clean state could undo
some of what the noise does. Where one half of the unrelated states, tested against the other, is
found in more cells than the level allows, nothing is called sufficient.

**Necessary** is one whose corrupting takes more than the least effect from the clean run, and that
alone. What an unrelated state does is no rival of this claim. A place is needed where the answer
does not survive without that state, whatever stands there instead; so where it is, an unrelated
state takes the answer as well, and a test against it finds less the more the place is needed. It is
told beside, with a test of its own: noise is a state that the network never sees, and where the
clean state of another example, which it does see, takes the answer too, the place is needed for
what it says and not only to be whole.

**Redundant** is a place that suffices and is shown not to be needed: that what corrupting it takes
lies below the least effect is a hypothesis with a test (one side of Schuirmann 1987, A comparison
of the two one-sided tests procedure), for a test of necessity that fails shows nothing. Like
all tests here it supposes that pictures scatter evenly about their mean. A loss that is total but
rare is not excluded by a sample that lacks it: of n pictures without one that holds only of losses
in more than 1 − 0.05^(1/n) of pictures, which the conclusion says.

Both effects are told in probability and as shares of the total effect, which is one and the same
(clean less corrupted): sums of changes over sums of total effects. **Apart** are the two where
restoring less taking differs from zero by more than the least effect, either way. That need not be
the network's doing: probabilities saturate, so that of two places whose logits add up each can
bring much from a low floor and take little from a sure answer, or little and much. Shares of the
logit difference, in which contributions add up, tell: where they differ the same way, by more than
the share that the least effect is of the total, the places do not just add up; where they do not,
the softmax's threshold is enough to explain it.

Every hypothesis is tested over all open cells of a map, family-wise; the groups of the sheet
together, as one family, each in the examples of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from blip_tracing.meaning.effects import HALVES, NO_HEAD
from blip_tracing.meaning.evidence import VERDICTS, Evidence
from blip_tracing.meaning.marks import PValues, cell_tests, marks_of, of_enough
from blip_tracing.meaning.statistics import (
    ENDS,
    FEWEST_PICTURES,
    SIGNIFICANT,
    heterogeneity_test,
    max_t_test,
    mean_intervals,
    named_means,
)
from blip_tracing.meaning.summary import TESTED, Arranged, Rules, arrange, known_of
from blip_tracing.vocabulary.experiment import Experiment
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.tables import FALSE_MARKS, FEW_NULLS, FEW_PICTURES, NO_NULL

BOTH, SUFFICIENT, NECESSARY, REDUNDANT = "both", "sufficient", "necessary", "redundant"
NEITHER, UNTESTED, KNOWN = "neither shown", "not tested", "known"
# What a kind says of a place, in the order of telling.
MEANINGS = {
    BOTH: "sufficient and necessary",
    SUFFICIENT: "sufficient, whether needed is open",
    NECESSARY: "necessary, not shown to suffice",
    REDUNDANT: "redundant: sufficient, and shown not to be needed",
}
# Which direction does more where they differ.
RESTORING, TAKING, NOT_APART = "restoring", "taking", "not shown"
MEANS = [
    "restored", "taken", "unrelated_restored", "unrelated_taken",
    "restored_share", "taken_share", "difference",
    "restored_logits", "taken_logits", "difference_logits",
]  # fmt: skip
TESTS = [
    "p_sufficient", "p_necessary", "p_unneeded", "p_unrelated_takes", "p_restoring", "p_taking",
    "p_restoring_logits", "p_taking_logits",
]  # fmt: skip
KEYS = ["sufficient", "necessary", "site", "noise_level", "group", "layer", "head", "token_role"]
TABLE = [
    *KEYS, "known", "pictures", *(f"{name}{end}" for name in MEANS for end in ENDS), *TESTS,
    "kind", "apart", "apart_logits",
]  # fmt: skip
MEASURES = ["probability", TESTED, "contrast", "normalised", *HALVES]


class Direction(NamedTuple):
    """One direction's effects, above zero towards what it is to do; all (N, M).

    change: in probability; contrast: what an unrelated state does less; logits: the share of the
    logit difference's range; first, second: the change under either half of the unrelated states;
    before: the probability in the reference; rising: whether change is of a probability that rises,
    or falls.
    """

    change: np.ndarray
    contrast: np.ndarray
    logits: np.ndarray
    first: np.ndarray
    second: np.ndarray
    before: np.ndarray
    rising: bool

    def mapped(self, change: Callable[[np.ndarray], np.ndarray]) -> Direction:
        """The same with each array changed."""
        return Direction(
            change(self.change),
            change(self.contrast),
            change(self.logits),
            change(self.first),
            change(self.second),
            change(self.before),
            self.rising,
        )

    @property
    def unrelated(self) -> np.ndarray:
        """What an unrelated example's clean state does."""
        return self.change - self.contrast

    @property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The ends (M,) of the range of a cell's mean change: those of a probability."""
        before = mean_of(self.before)
        return (-before, 1 - before) if self.rising else (before - 1, before)


@dataclass(frozen=True)
class Sides:
    """Both directions at one map, over the same N examples and M cells.

    total: each example's total effect, (N,), which is one for both; examples: example, picture,
    group; cells: group, layer, head, token_role; known: what is known of each cell, (M,).
    """

    restored: Direction
    taken: Direction
    total: np.ndarray
    examples: pd.DataFrame
    cells: pd.DataFrame
    known: np.ndarray

    @property
    def pictures(self) -> list[str]:
        """Each example's picture."""
        return self.examples["picture"].tolist()

    @property
    def open(self) -> Sides:
        """At the cells of which nothing is known beforehand."""
        kept = self.known == ""
        return Sides(
            self.restored.mapped(lambda of: of[:, kept]),
            self.taken.mapped(lambda of: of[:, kept]),
            self.total,
            self.examples,
            self.cells[kept],
            self.known[kept],
        )

    def by_group(self, groups: Sequence[str]) -> Sides:
        """Each group's cells side by side as one family, NaN in the examples of others."""
        own = [(self.examples["group"] == group).to_numpy()[:, None] for group in groups]

        def apart(values: np.ndarray) -> np.ndarray:
            return np.concatenate([np.where(mine, values, np.nan) for mine in own], axis=1)

        return Sides(
            self.restored.mapped(apart),
            self.taken.mapped(apart),
            self.total,
            self.examples,
            pd.concat([self.cells.assign(group=group) for group in groups], ignore_index=True),
            np.tile(self.known, len(groups)),
        )

    def groups(self) -> tuple[list[str], list[str]]:
        """The groups that have six pictures, and those that have fewer; none where there is one."""
        pictures = self.examples.groupby("group")["picture"].nunique()
        if len(pictures) < 2:
            return [], []
        enough = pictures >= FEWEST_PICTURES
        return pictures.index[enough].tolist(), pictures.index[~enough].tolist()


def mean_of(values: np.ndarray) -> np.ndarray:
    """Each cell's mean over the examples that have it: (M,), NaN where none has."""
    there = (~np.isnan(values)).sum(axis=0)
    return np.nansum(values, axis=0) / np.where(there > 0, there, np.nan)


def analyse(evidence: Evidence) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every place of each pair with both its effects and what it is; and how many are what.

    At a site of heads there are two maps: of the means over all positions, and of each role.
    """
    tables, verdicts = [], []
    for pair, site in _shared_sites(evidence):
        asked = evidence.experiments[pair["sufficient"]]
        about = f"{asked.name} and {pair['necessary']} at {site}"
        level = asked.levels[evidence.primary[asked.name]]
        found = list(_maps_of(evidence, pair, site))
        if not found:
            verdicts.append(verdict(about, "what places are", UNTESTED, "no example included"))
        for where, sides in found:
            table, groups_differ = tell(sides, evidence.rules)
            said = (*conclusions(table), *of_groups(table, sides, groups_differ))
            verdicts += [verdict(f"{about}{where}", *each) for each in said]
            tables.append(table.assign(**pair, site=site, noise_level=level)[TABLE])
    whole = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=TABLE)
    return whole, pd.DataFrame(verdicts, columns=VERDICTS)


def _shared_sites(evidence: Evidence) -> Iterator[tuple[Mapping[str, str], str]]:
    """Each pair with each site that both its experiments have."""
    for pair in evidence.settings["pairs"]:
        one, other = (evidence.experiments[pair[end]] for end in ("sufficient", "necessary"))
        for site in one.sites:
            if site in other.sites:
                yield pair, site


def _maps_of(evidence: Evidence, pair: Mapping[str, str], site: str) -> Iterator[tuple[str, Sides]]:
    """The maps of a site at the primary level, and what each is of beside the site, in words."""
    ends = [pair["sufficient"], pair["necessary"]]
    families = [evidence.primary_family(name, site) for name in ends]
    rows = [evidence.by_role(family) for family in families]
    both = set.intersection(*(set(of.loc[of["included"], "example"]) for of in rows))
    if not both:
        return
    total = evidence.by_example(families[0]).set_index("example")["total_effect"]
    kept = [of[of["example"].isin(both)] for of in rows]
    of_heads = (kept[0]["head"] != NO_HEAD).any()
    parts = {", mean over positions": True, ", role by role": False} if of_heads else {"": None}
    for where, whole in parts.items():
        chosen = [of if whole is None else of[(of["token_role"] == ALL) == whole] for of in kept]
        if len(chosen[0]):
            yield where, _sides(evidence, ends, chosen, total)


def _sides(
    evidence: Evidence, ends: Sequence[str], rows: Sequence[pd.DataFrame], total: pd.Series
) -> Sides:
    """rows: of `role_means`, of each direction; total: of each example."""
    restored, taken = (arrange(of, MEASURES) for of in rows)
    first, second = (known_of(of, restored.cells) for of in rows)
    return Sides(
        _direction(restored, evidence.experiments[ends[0]]),
        _direction(taken, evidence.experiments[ends[1]]),
        total.reindex(restored.examples["example"]).abs().to_numpy(),
        restored.examples,
        restored.cells.assign(group=ALL),
        np.where(first != "", first, second),
    )


def _direction(arranged: Arranged, experiment: Experiment) -> Direction:
    sign, change = experiment.direction, arranged.of(TESTED)
    return Direction(
        sign * change,
        sign * arranged.of("contrast"),
        arranged.of("normalised"),
        sign * arranged.of(HALVES[0]),
        sign * arranged.of(HALVES[1]),
        arranged.of("probability") - change,
        sign > 0,
    )


def tell(sides: Sides, rules: Rules) -> tuple[pd.DataFrame, float]:
    """A map's rows of the table, those of its groups behind them; and the p of groups that differ.

    That is of the effects of either direction in any open cell, over groups of six pictures.
    """
    groups, _ = sides.groups()
    parts = [_told(sides, rules)]
    if groups:
        parts.append(_told(sides.by_group(groups), rules))
    return pd.concat(parts, ignore_index=True), _groups_differ(sides, groups, rules)


def _groups_differ(sides: Sides, groups: Sequence[str], rules: Rules) -> float:
    there = sides.examples["group"].isin(groups).to_numpy()
    cells = sides.open
    changes = np.concatenate([cells.restored.change, cells.taken.change], axis=1)[there]
    if len(groups) < 2 or not changes.size:
        return np.nan
    of = sides.examples[there]
    return heterogeneity_test(
        changes, of["group"].tolist(), rules.resamples, rules.seed, of["picture"].tolist()
    )


def _told(sides: Sides, rules: Rules) -> pd.DataFrame:
    """Every cell with its means, the tests of what it is, and what it is."""
    table = sides.cells.reset_index(drop=True).assign(known=sides.known)
    for name, means in _means(sides, rules):
        table["pictures"] = means["pictures"]
        table[named_means(means, name).columns] = named_means(means, name)
    open_cells = sides.known == ""
    for name, p in _tests(sides.open, rules).items():
        table.loc[open_cells, name] = p
    return table.assign(
        kind=kinds_of(table, rules.least_effect),
        apart=apart_of(table),
        apart_logits=apart_of(table, "_logits"),
    )


def _means(sides: Sides, rules: Rules) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each mean with its interval; of shares, ratios of sums to those of total effects."""
    total = sides.total[:, None]
    # Of a share, in units of the mean total effect of the examples that have the cell.
    unit = mean_of(np.where(np.isnan(sides.restored.change), np.nan, total))
    anywhere = -np.inf, np.inf

    def means(
        values: np.ndarray, range_of: Sequence[np.ndarray | float], share: bool = False
    ) -> pd.DataFrame:
        low, high = ((end / unit if share else end) for end in range_of)
        return mean_intervals(
            values / total if share else values,
            rules.resamples,
            rules.seed,
            sides.pictures,
            low,
            high,
            weights=sides.total if share else None,
        )

    restored, taken = sides.restored, sides.taken
    for name, side in {"restored": restored, "taken": taken}.items():
        yield name, means(side.change, side.ends)
        yield f"unrelated_{name}", means(side.unrelated, side.ends)
        yield f"{name}_share", means(side.change, side.ends, share=True)
        yield f"{name}_logits", means(side.logits, anywhere)
    # A difference of two probabilities can be so much that bounds would leave nothing to tell.
    yield "difference", means(restored.change - taken.change, anywhere, share=True)
    yield "difference_logits", means(restored.logits - taken.logits, anywhere)


def _tests(sides: Sides, rules: Rules) -> dict[str, np.ndarray]:
    """The family-wise p of each hypothesis at each cell, (M,)."""
    least, restored, taken = rules.least_effect, sides.restored, sides.taken
    # What the least effect is of the total one.
    share = least / float(sides.total.mean())

    def above(values: np.ndarray, floor: float) -> np.ndarray:
        values = of_enough(values, sides.pictures)
        return max_t_test(values, rules.resamples, rules.seed, sides.pictures, floor).p

    def beyond(change: np.ndarray, null: np.ndarray) -> PValues:
        return cell_tests(change, change - null, sides.pictures, least, rules.resamples, rules.seed)

    false_marks = marks_of(beyond(restored.first, restored.second), restored.first, least).sum()
    sufficient = beyond(restored.change, restored.unrelated).both
    misled = false_marks > SIGNIFICANT * len(sufficient)
    return {
        "p_sufficient": np.full_like(sufficient, np.nan) if misled else sufficient,
        "p_necessary": above(taken.change, least),
        "p_unneeded": above(-taken.change, -least),
        "p_unrelated_takes": above(taken.unrelated, least),
        "p_restoring": above(restored.change - taken.change, least),
        "p_taking": above(taken.change - restored.change, least),
        "p_restoring_logits": above(restored.logits - taken.logits, share),
        "p_taking_logits": above(taken.logits - restored.logits, share),
    }


def kinds_of(table: pd.DataFrame, least: float) -> np.ndarray:
    """What each place is, by its tests; both effects at least `least` where they are claimed."""
    sufficient = (table["p_sufficient"] < SIGNIFICANT) & (table["restored"] >= least)
    necessary = (table["p_necessary"] < SIGNIFICANT) & (table["taken"] >= least)
    unneeded = (table["p_unneeded"] < SIGNIFICANT) & (table["taken"] < least)
    untested = table[["p_sufficient", "p_necessary"]].isna().any(axis=1)
    return np.select(
        [
            table["known"] != "", sufficient & necessary, sufficient & unneeded, sufficient,
            necessary, untested,
        ],
        [KNOWN, BOTH, REDUNDANT, SUFFICIENT, NECESSARY, UNTESTED],
        NEITHER,
    )  # fmt: skip


def apart_of(table: pd.DataFrame, of: str = "") -> np.ndarray:
    """Which direction does more at each place, if either is shown to; of: "" or "_logits"."""
    return np.select(
        [table[f"p_{direction}{of}"] < SIGNIFICANT for direction in (RESTORING, TAKING)],
        [RESTORING, TAKING],
        NOT_APART,
    )


def kinds_in_example(restored: pd.DataFrame, taken: pd.DataFrame) -> np.ndarray:
    """What each place of one example is over the draws of its noise: BOTH, SUFFICIENT, NECESSARY.

    restored, taken: its `effects` in either direction, of the same cells in the same order.
    Sufficient is what is marked there; necessary where the draws' changes exceed the least effect
    over its map (`p_map`), by whatever an unrelated state does. That it is not needed has no test
    there, so that none is redundant. It says nothing of other pictures.
    """
    sufficient = restored["marked"].to_numpy(bool)
    necessary = (taken["p_map"] < SIGNIFICANT).to_numpy()
    known = ((restored["known"] != "").to_numpy()) | ((taken["known"] != "").to_numpy())
    return np.select(
        [known, sufficient & necessary, sufficient, necessary],
        [KNOWN, BOTH, SUFFICIENT, NECESSARY],
        NEITHER,
    )


# ---- what is concluded -------------------------------------------------------------------------


def verdict(
    about: str, statement: str, said: str, reason: str = "", value: float = np.nan,
    p: float = np.nan, pictures: int = 0,
) -> list[object]:  # fmt: skip
    """A row of VERDICTS, without an interval."""
    told = f"{said}: {reason}" if reason else said
    return [about, statement, value, np.nan, np.nan, p, pictures, told]


def conclusions(table: pd.DataFrame) -> Iterator[tuple]:
    """What a map's rows say of all examples: `verdict`'s arguments behind the first."""
    cells = table[(table["group"] == ALL) & (table["known"] == "")]
    pictures = int(table["pictures"].max())
    for kind, meaning in MEANINGS.items():
        chosen = cells["kind"] == kind
        reason = _why_untested(cells, pictures, "p_necessary" if kind == NECESSARY else "")
        yield _counted(meaning, chosen, cells, reason, pictures, _rare(kind, pictures))
    needed = cells[cells["kind"].isin([BOTH, NECESSARY])]
    if len(needed):
        yield _counted(
            "necessary, where an unrelated example’s clean state takes the answer too",
            needed["p_unrelated_takes"] < SIGNIFICANT,
            needed,
            "",
            pictures,
        )
    for direction, other in ((RESTORING, TAKING), (TAKING, RESTORING)):
        reason = _why_untested(cells, pictures, f"p_{direction}")
        yield _counted(
            f"{direction} does more than {other}",
            cells["apart"] == direction,
            cells,
            reason,
            pictures,
            p=cells[f"p_{direction}"].min(),
        )
        apart = cells[cells["apart"] == direction]
        if len(apart):
            yield _counted(
                f"of these, in shares of the logit difference too ({direction})",
                apart["apart_logits"] == direction,
                apart,
                "",
                pictures,
                p=apart[f"p_{direction}_logits"].min(),
            )


def _counted(
    statement: str, chosen: pd.Series, cells: pd.DataFrame, reason: str, pictures: int,
    note: str = "", p: float = np.nan,
) -> tuple:  # fmt: skip
    """How many of these places it is said of."""
    if reason:
        return statement, UNTESTED, reason, np.nan, np.nan, pictures
    count = int(chosen.sum())
    said = f"{count} of {len(cells)} places" if count else "not shown of any place"
    return statement, said, note if count else "", count, p, pictures


def _why_untested(cells: pd.DataFrame, pictures: int, test: str) -> str:
    """Why no place was tested; test: of one alone, "" for all that a kind needs."""
    tests = [test] if test else ["p_sufficient", "p_necessary"]
    if cells.empty:
        return "every place is known beforehand"
    if pictures < FEWEST_PICTURES:
        return FEW_PICTURES
    if cells[tests].notna().all(axis=1).any():
        return ""
    if cells["unrelated_restored"].isna().all():
        return NO_NULL
    return FEW_NULLS if cells["unrelated_restored_low"].isna().all() else FALSE_MARKS


def _rare(kind: str, pictures: int) -> str:
    """What a sample without a loss leaves open."""
    if kind != REDUNDANT:
        return ""
    share = 1 - SIGNIFICANT ** (1 / pictures)
    return f"a loss in fewer than {100 * share:.0f} % of pictures is not excluded"


def of_groups(table: pd.DataFrame, sides: Sides, differ: float) -> Iterator[tuple]:
    """What each group's rows say, and whether groups differ: `verdict`'s arguments."""
    groups, few = sides.groups()
    for group in groups:
        mine = table[table["group"] == group]
        cells, pictures = mine[mine["known"] == ""], int(mine["pictures"].max())
        counts = ", ".join(f"{kind} {(cells['kind'] == kind).sum()}" for kind in MEANINGS)
        yield f"group {group}: kinds", f"{counts} of {len(cells)}", "", np.nan, np.nan, pictures
        apart = int((cells["apart"] != NOT_APART).sum())
        p = cells[["p_restoring", "p_taking"]].min(axis=None)
        said = f"{apart} of {len(cells)} places" if apart else "not shown of any place"
        yield f"group {group}: restoring and taking differ", said, "", apart, p, pictures
    if few:
        there = sides.examples[sides.examples["group"].isin(few)]
        pictures = int(there.groupby("group")["picture"].nunique().max())
        yield f"groups {', '.join(few)}", UNTESTED, FEW_PICTURES, np.nan, np.nan, pictures
    if not np.isnan(differ):
        said = "yes" if differ < SIGNIFICANT else "not shown"
        pictures = sides.examples["picture"].nunique()
        yield "groups differ in what is restored or taken", said, "", np.nan, differ, pictures
