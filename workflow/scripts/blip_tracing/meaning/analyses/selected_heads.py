"""Heads that stand out at one token, by the rule of NOTICE, and how much there is to it.

A head is kept where the mean over examples of its absolute score at one token lies at least two
standard deviations above the mean of all heads of a site; universal are those that are kept in
several experiments (Golovanevsky et al. 2025, What Do VLMs NOTICE?; `circuit_analysis`, cell 1).
That rule keeps some of any heads, those of noise too: about one in forty lies so far out. So beside
it stand, of each head, whether it acts (the tests of marks, upward or downward, over all heads of
the site) and the share of resamples of pictures in which it is kept; and of what experiments share,
how likely random choices of as many heads would share so many.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from blip_tracing.meaning.evidence import VERDICTS, Evidence
from blip_tracing.meaning.marks import cell_tests, marks_of
from blip_tracing.meaning.statistics import (
    ENDS,
    SIGNIFICANT,
    chosen_frequencies,
    mean_intervals,
    named_means,
)
from blip_tracing.meaning.summary import TESTED, Rules, arrange, known_of
from blip_tracing.vocabulary.analyses import HEAD_SCORES, orientation
from blip_tracing.vocabulary.experiment import Experiment
from blip_tracing.vocabulary.sites import ENCODER, SITES

# Kept in so many resamples, a head's choice does not hang on which pictures there are.
STABLE = 0.95
# What heads differ by is rounding where their spread is less of their mean.
ROUNDING = 1e-6
HEAD = ["layer", "head"]
SITE = ["experiment", "site"]
TABLE = [
    *SITE, "noise_level", "token_role", *HEAD, "known", "score", "score_low", "score_high",
    "threshold", "kept", "kept_share", "p", "acts", "shown", "universal", "expected",
    *(f"{name}{end}" for name in HEAD_SCORES for end in ENDS), "pictures",
]  # fmt: skip


def analyse(evidence: Evidence) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every head of the sites with its score, whether it is kept, and what that is worth."""
    settings = evidence.settings
    asked = [
        (name, site)
        for name in settings["experiments"]
        for site in evidence.experiments[name].sites
        if SITES[site].heads and SITES[site].tower == ENCODER
    ]
    whole = pd.concat([selected(evidence, *of) for of in asked], ignore_index=True)
    named = [head_name(*head) in settings["expected"] for head in whole[HEAD].to_numpy()]
    table = whole.assign(
        universal=_in_all(whole, asked),
        expected=np.array(named, dtype=bool) & (whole["site"] == settings["expected_at"]),
    )
    told = pd.DataFrame(_verdicts(table, asked, settings), columns=VERDICTS)
    return table.reindex(columns=TABLE), told


def head_name(layer: int, head: int) -> str:
    """As the publication writes it, counted from 0: `L5.H3`."""
    return f"L{layer}.H{head}"


def selected(evidence: Evidence, name: str, site: str) -> pd.DataFrame:
    """The heads of an experiment's site at the primary level, over the included examples.

    Without rows where none of these has a token of the role.
    """
    settings, experiment = evidence.settings, evidence.experiments[name]
    rows = evidence.by_role(evidence.primary_family(name, site))
    level = rows["noise_level"].iloc[0]
    there = rows[rows["included"] & (rows["token_role"] == settings["role"])]
    if there.empty:
        return pd.DataFrame(columns=TABLE)
    found = _heads_of(there, experiment, settings, evidence.rules)
    return found.assign(experiment=name, site=site, noise_level=level, token_role=settings["role"])


def _heads_of(
    rows: pd.DataFrame, experiment: Experiment, settings: Mapping[str, Any], rules: Rules
) -> pd.DataFrame:
    part = arrange(rows, [*HEAD_SCORES, "contrast"])
    known = known_of(rows, part.cells)
    # A probability is of the answer that is followed, whichever way that is to go.
    towards = {
        name: part.of(name) * (1 if name == "probability" else orientation(experiment, name))
        for name in HEAD_SCORES
    }
    score = np.abs(towards[settings["score"]])

    def means(values: np.ndarray, name: str) -> pd.DataFrame:
        found = mean_intervals(values, rules.resamples, rules.seed, part.pictures)
        return named_means(found, name)

    def above(of: np.ndarray) -> np.ndarray:
        return stand_out(of, settings["deviations"]) & (known == "")

    told = [means(score, "score"), *(means(values, name) for name, values in towards.items())]
    mean = told[0]["score"].to_numpy()[None]
    chosen = above(mean)[0]
    share = chosen_frequencies(score, above, rules.resamples, rules.seed, part.pictures)
    p, acts = _acting(
        towards[TESTED], experiment.direction * part.of("contrast"), known, part, rules
    )
    columns = pd.concat([part.cells.reset_index(drop=True), *told], axis=1)
    return columns.assign(
        known=known,
        threshold=threshold_of(mean, settings["deviations"])[0],
        kept=chosen,
        kept_share=share,
        p=p,
        acts=acts,
        shown=chosen & acts & (share >= STABLE),
        pictures=rows["picture"].nunique(),
    )


def threshold_of(means: np.ndarray, deviations: float) -> np.ndarray:
    """So many standard deviations above the mean of all heads: (B,) of means (B, M)."""
    return np.nanmean(means, axis=1) + deviations * np.nanstd(means, axis=1)


def stand_out(means: np.ndarray, deviations: float) -> np.ndarray:
    """Which of the means (B, M) reach the threshold; none where all are alike but for rounding."""
    alike = np.nanstd(means, axis=1) <= ROUNDING * np.abs(np.nanmean(means, axis=1))
    return (means >= threshold_of(means, deviations)[:, None]) & ~alike[:, None]


def _acting(
    change: np.ndarray, contrast: np.ndarray, known: np.ndarray, part: Any, rules: Rules
) -> tuple[np.ndarray, np.ndarray]:
    """The p of each head, the lesser of upward and downward, and whether either marks it."""
    p, acts = np.full(len(known), np.nan), np.zeros(len(known), dtype=bool)
    tested = known == ""
    if not tested.any():
        return p, acts
    for sign in (1, -1):
        values = sign * change[:, tested]
        found = cell_tests(
            values, sign * contrast[:, tested], part.pictures, rules.least_effect,
            rules.resamples, rules.seed,
        )  # fmt: skip
        p[tested] = np.fmin(p[tested], found.both)
        acts[tested] |= marks_of(found, values, rules.least_effect)
    return p, acts


def _in_all(table: pd.DataFrame, asked: Sequence[tuple[str, str]]) -> pd.Series:
    """Whether a head is kept in every experiment that has its site, where several have."""
    experiments = table["site"].map(Counter(site for _, site in asked))
    kept = table.groupby(["site", *HEAD])["kept"].transform("sum")
    return (experiments > 1) & (kept == experiments)


# ---- what is concluded -------------------------------------------------------------------------


def _verdicts(
    table: pd.DataFrame, asked: Sequence[tuple[str, str]], settings: Mapping[str, Any]
) -> Iterator[list[object]]:
    found = {of: heads for of, heads in table.groupby(SITE, sort=False)}
    for name, site in asked:
        about = f"{name} at {site}, {settings['role']}"
        if (name, site) in found:
            yield from _of_map(about, found[name, site])
        else:
            yield [
                about, "heads are kept by the rule", 0, np.nan, np.nan, np.nan, 0,
                "no included example has a token of this role",
            ]  # fmt: skip
    for site in dict.fromkeys(site for _, site in asked):
        maps = [found[of].set_index(HEAD) for of in asked if of[1] == site and of in found]
        if len(maps) == sum(of[1] == site for of in asked):
            yield from _of_site(site, maps, settings)


def _of_map(about: str, heads: pd.DataFrame) -> Iterator[list[object]]:
    pictures, shown = int(heads["pictures"].max()), heads[heads["shown"]]
    kept = heads[heads["kept"]]
    yield [
        about, f"heads of {len(heads)} are kept by the rule", len(kept), np.nan, np.nan, np.nan,
        pictures, _listed(kept),
    ]  # fmt: skip
    yield [
        about, "of these act, and are kept whichever pictures there are", len(shown), np.nan,
        np.nan, heads["p"].min(), pictures, _listed(shown) or "none is shown to",
    ]  # fmt: skip


def _of_site(
    site: str, maps: Sequence[pd.DataFrame], settings: Mapping[str, Any]
) -> Iterator[list[object]]:
    """What experiments share, and how many of the published heads are among what is kept.

    maps: the heads of each experiment.
    """
    first, count = maps[0], len(maps[0])
    pictures = int(min(heads["pictures"].min() for heads in maps))
    common = first[np.all([heads.loc[first.index, "kept"] for heads in maps], axis=0)]
    shown = first[np.all([heads.loc[first.index, "shown"] for heads in maps], axis=0)]
    if len(maps) > 1:
        names = ", ".join(heads["experiment"].iloc[0] for heads in maps)
        p = shared_by_chance(len(common), [int(heads["kept"].sum()) for heads in maps], count)
        yield [
            site, f"heads are kept in all of {names}", len(common), np.nan, np.nan, p, pictures,
            _concluded(common, shown, p),
        ]  # fmt: skip
    named = first[first["expected"]]
    if len(named):
        met = common[common["expected"]]
        p = shared_by_chance(len(met), [len(common), len(named)], count)
        yield [
            site, f"of the published {_listed(named)} are kept", len(met), np.nan, np.nan, p,
            pictures, _concluded(met, shown[shown["expected"]], p),
        ]  # fmt: skip


def _concluded(kept: pd.DataFrame, shown: pd.DataFrame, p: float) -> str:
    """What may be said of heads that are shared: who they are, where chance does not explain it."""
    if kept.empty:
        return "none"
    if p >= SIGNIFICANT:
        return f"{_listed(kept)}, as chance may share"
    return f"{_listed(shown)}, more than by chance" if len(shown) else "not shown"


def shared_by_chance(shared: int, chosen: Sequence[int], heads: int) -> float:
    """How likely random choices of so many heads each share at least as many: hypergeometric."""
    first, *others = chosen
    # Of a number of heads in common, how likely it is; a choice more keeps some of them.
    common = np.zeros(heads + 1)
    common[first] = 1
    numbers = np.arange(heads + 1)
    for count in others:
        left = [hypergeom(heads, number, count).pmf(numbers) for number in numbers]
        common = common @ np.array(left)
    return float(min(1.0, common[shared:].sum()))


def _listed(heads: pd.DataFrame) -> str:
    found = heads.reset_index()[HEAD].sort_values(HEAD).to_numpy()
    return ", ".join(head_name(*head) for head in found)
