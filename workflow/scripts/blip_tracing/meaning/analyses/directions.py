"""Sufficient against necessary: what a place does restored alone, and what it does corrupted alone.

Restoring finds what suffices, a cross-section of the computation; corrupting one place of the clean
run finds what is needed. They disagree where several places carry the same (each suffices, none is
needed) or where several are needed together (Heimersheim & Nanda 2024, How to use and interpret
activation patching, sections 2.3 and 2.4). So both are told of every place, with the test of their
difference.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from blip_tracing.meaning.evidence import VERDICTS, Evidence
from blip_tracing.meaning.marks import cell_tests, marks_of
from blip_tracing.meaning.statistics import SIGNIFICANT, max_t_test, mean_intervals
from blip_tracing.meaning.summary import TESTED, arrange, known_of

BOTH, SUFFICIENT, NECESSARY, NEITHER = "both", "sufficient", "necessary", "neither"
TABLE = [
    "sufficient", "necessary", "site", "noise_level", "layer", "head", "token_role", "known",
    "restored", "restored_low", "restored_high", "taken", "taken_low", "taken_high", "difference",
    "p_difference", "pictures", "kind",
]  # fmt: skip


def analyse(evidence: Evidence) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every place of each pair with both its effects, and how many are of which kind."""
    maps = [
        found
        for pair in evidence.settings["pairs"]
        for found in _maps_of(evidence, pair["sufficient"], pair["necessary"])
    ]
    table = pd.concat(maps, ignore_index=True)
    return table, pd.DataFrame(_verdicts(table), columns=VERDICTS)


def _maps_of(evidence: Evidence, sufficient: str, necessary: str) -> Iterator[pd.DataFrame]:
    one, other = evidence.experiments[sufficient], evidence.experiments[necessary]
    for site in one.sites:
        if site in other.sites:
            yield _map_of(evidence, sufficient, necessary, site)


def _map_of(evidence: Evidence, sufficient: str, necessary: str, site: str) -> pd.DataFrame:
    """The places of a site at the primary level, over the examples that both include."""
    rules, tested, means, arranged = evidence.rules, [], [], []
    rows = {
        name: evidence.by_role(evidence.primary_family(name, site))
        for name in (sufficient, necessary)
    }
    both = set.intersection(*(set(of.loc[of["included"], "example"]) for of in rows.values()))
    for name, of in rows.items():
        kept = of[of["example"].isin(both)]
        direction = evidence.experiments[name].direction
        part = arrange(kept, [TESTED, "contrast"])
        change, contrast = direction * part.of(TESTED), direction * part.of("contrast")
        p = cell_tests(
            change, contrast, part.pictures, rules.least_effect, rules.resamples, rules.seed
        )
        tested.append(marks_of(p, change, rules.least_effect))
        means.append(mean_intervals(change, rules.resamples, rules.seed, part.pictures))
        arranged.append((part, change, known_of(kept, part.cells)))
    (part, restored, known), (_, taken, known_too) = arranged
    # Restoring at no layer and taking there too are alike: two sides.
    upward, downward = (
        max_t_test(values, rules.resamples, rules.seed, part.pictures)
        for values in (restored - taken, taken - restored)
    )
    p = np.fmin(upward.p, downward.p)
    kind = np.select(
        [tested[0] & tested[1], tested[0], tested[1]], [BOTH, SUFFICIENT, NECESSARY], NEITHER
    )
    columns = {
        f"{name}{end}": table[of]
        for name, table in zip(("restored", "taken"), means, strict=True)
        for end, of in (("", "mean"), ("_low", "low"), ("_high", "high"))
    }
    return part.cells.assign(
        sufficient=sufficient,
        necessary=necessary,
        site=site,
        noise_level=rows[sufficient]["noise_level"].iloc[0],
        known=np.where(known != "", known, known_too),
        **columns,
        difference=means[0]["mean"] - means[1]["mean"],
        p_difference=p,
        pictures=means[0]["pictures"],
        kind=kind,
    )[TABLE]


def _verdicts(table: pd.DataFrame) -> Iterator[list[object]]:
    for (sufficient, necessary, site), cells in table.groupby(
        ["sufficient", "necessary", "site"], sort=False
    ):
        about = f"{sufficient} and {necessary} at {site}"
        open_cells = cells[cells["known"] == ""]
        apart = int((open_cells["p_difference"] < SIGNIFICANT).sum())
        pictures = int(cells["pictures"].max())
        for kind in (BOTH, SUFFICIENT, NECESSARY):
            count = int((open_cells["kind"] == kind).sum())
            said = f"{count} of {len(open_cells)} places"
            yield [about, kind, count, np.nan, np.nan, np.nan, pictures, said]
        yield [
            about, "restoring and taking differ", apart, np.nan, np.nan,
            open_cells["p_difference"].min(), pictures, "yes" if apart else "not shown",
        ]  # fmt: skip
