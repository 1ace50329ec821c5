"""Image × question: which places carry what the answer needs of either, and which of both at once.

The receiver's question is corrupted, its picture, or both, with the same noise in either way. That
makes a factorial of runs, whose scores f (n: neither corrupted; q, p, b) have the interaction
I = f_n − f_q − f_p + f_b: what is lost by corrupting one after the other, less what is lost by
both. It depends on the scale (probabilities end at 0 and 1), so it is told in logits too.

Then a place is restored in each corrupted run. Let R be the score with it restored, and

    Q = R_q − f_q,   P = R_p − f_p,   B = R_b − f_b

its effects. Restoring a place in all runs leaves the interaction f_n − R_q − R_p + R_b, so that
Q + P − B of I goes through it (in the manner of VanderWeele 2014, A unification of mediation and
interaction: a 4-way decomposition, Epidemiology 25, who tells what of an effect is mediated, what
interacts, and what does both; here the exposures are two, the corruptions, and the mediator is a
place). That alone does not say what the place carries: one that holds all of the question stops the
question's corruption from mattering, and the interaction with it, as one that holds the answer
does. What tells is how far the effects reach.

- A place that carries the question's part alone is clean already where the picture is corrupted,
  so that P = 0; where both are, restoring it leaves the picture's corruption: R_b ≤ f_p.
- One that carries the picture's part alone has Q = 0 and R_b ≤ f_q.
- One that carries what the answer needs of both, fused, restores in every run, and little of that
  depends on what else is corrupted: Q, P and B are above zero, B is more than half of Q and of P
  (where each part needs the other clean, B is small beside them), and R_b lies above f_q and f_p,
  which neither part alone can pass: `beyond`, R_b less the larger of the two (example by example),
  is above zero.

The bounds take it that restoring a part does no more than restoring all of it, which a model need
not obey; so none of these alone makes a place fused: the first block's input, which cannot hold the
picture, has P = 0 by construction. A place that holds most of both parts side by side, rather than
bound into one, is called fused too; restoring does not tell these apart. Noise in the picture may
also hide an answer that owes the picture nothing, by drowning what the question's words carry; what
is needed of the picture is then that it be quiet, and a place past its reach counts as fused. What
a place lacks may be needed with it (Heimersheim & Nanda 2024, How to use and interpret activation
patching, section 2.3): what is not shown is not absent.

Sites that say where this happens are those of the question encoder: the stream (`block_input`,
`block_output`), where what is fused stands, and `cross_attention`, what a block reads of the
picture at the question's bidding: its contribution depends on both, so that it can be fused at the
first layer already. In the decoder's stream, where the answer is put together, it ends.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import pandas as pd

from blip_tracing.meaning.effects import EXAMPLE, HALF, LEAST_LOGIT_RANGE, by_level
from blip_tracing.meaning.evidence import VERDICTS, Evidence
from blip_tracing.meaning.marks import of_enough, why_untested
from blip_tracing.meaning.statistics import (
    ENDS as ENDS_OF_MEANS,
)
from blip_tracing.meaning.statistics import (
    FEWEST_PICTURES,
    SIGNIFICANT,
    TAILS,
    by_picture,
    max_t_test,
    mean_intervals,
    named_means,
    resampled_means,
)
from blip_tracing.meaning.summary import CELL, TESTED, Arranged, Rules, arrange, known_of
from blip_tracing.vocabulary.experiment import QUESTIONS, Experiment, Run
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.tables import FEW_PICTURES, NO_OP, NOTHING_HIDDEN

QUESTION, PICTURE, BOTH = ENDS = ("question", "picture", "both")
PARTS = (QUESTION, PICTURE)
NEITHER, FUSED, NOT_SHOWN = "neither", "fused", "not shown"
KINDS = (QUESTION, PICTURE, FUSED)
BEYOND, INTERACTION = "beyond", "interaction"
TOLD = (*ENDS, BEYOND, INTERACTION)
# Their columns.
RESTORED = {end: f"restored_{end}" for end in ENDS}
TABLE = [
    "site", "noise_level", *CELL, "known",
    *(f"{RESTORED.get(name, name)}{end}" for name in TOLD for end in ENDS_OF_MEANS),
    "p_interaction", *(f"p_{kind}" for kind in KINDS), "pictures", "kind",
]  # fmt: skip
# What is said of the runs themselves.
RUNS = "the runs, nothing restored"
PROBABILITY, LOGITS = "probability", "logit difference"
MEASURED = "measured"
# How many layers the verdict on where fusion begins names.
MOST_LAYERS = 3
TOGETHER, INSTEAD = "each needs the other", "one stands in for the other"


def analyse(evidence: Evidence) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every place with its effects under each corruption and its kind; the factorial of runs."""
    asked = _experiments(evidence)
    tables, verdicts = [], list(_of_runs(evidence))
    for site in asked[QUESTION].sites:
        if all(site in each.sites for each in asked.values()):
            table, said = _of_site(evidence, site)
            tables.append(table)
            verdicts += said
    return pd.concat(tables, ignore_index=True), pd.DataFrame(verdicts, columns=VERDICTS)


def _experiments(evidence: Evidence) -> dict[str, Experiment]:
    return {end: evidence.experiments[evidence.settings[end]] for end in ENDS}


# ---- the runs ----------------------------------------------------------------------------------


def _of_runs(evidence: Evidence) -> Iterator[list[object]]:
    """The mean of each run on both scales, and their interaction.

    Over the examples whose questions have two answers, whatever the noise does to them: a choice
    of those that it hides would be one of large interactions.
    """
    asked, rules = _experiments(evidence), evidence.rules
    family = evidence.primary_family(evidence.settings[QUESTION], asked[QUESTION].sites[0])
    examples = evidence.by_example(family)
    examples = examples[~examples["one_answer"].astype(bool)].sort_values("example")
    pictures, names = examples["picture"].tolist(), examples["example"]
    runs = {NEITHER: asked[QUESTION].donor, **{end: asked[end].receiver for end in ENDS}}
    level = {end: evidence.primary[evidence.settings[end]] for end in ENDS}
    scores = {
        end: _scores(evidence.runs, run, level.get(end, 0)).reindex(names)
        for end, run in runs.items()
    }
    scales = {PROBABILITY: (0.0, 1.0), LOGITS: (-np.inf, np.inf)}
    for scale, (lowest, highest) in scales.items():
        values = np.stack([scores[end][scale].to_numpy() for end in runs], axis=1)
        means = mean_intervals(values, rules.resamples, rules.seed, pictures, lowest, highest)
        for end, mean in zip(runs, means.itertuples(), strict=True):
            yield [
                RUNS, run_statement(scale, end), mean.mean, mean.low, mean.high, np.nan,
                mean.pictures, MEASURED,
            ]  # fmt: skip
    yield from _interactions(scores, pictures, rules)


def run_statement(scale: str, corrupted: str) -> str:
    """What is said of the factorial's run in which this is corrupted."""
    return f"{scale}, {corrupted} corrupted"


def _scores(runs: pd.DataFrame, run: Run, level: int) -> pd.DataFrame:
    """A run's mean scores over its draws at a level, by example; towards its own answer."""
    (other,) = set(QUESTIONS) - {run.question}
    rows = by_level(runs[runs["run"] == run.name], run.levels)
    rows = rows[rows["level"] == level]
    found = pd.DataFrame(
        {
            "example": rows["example"],
            PROBABILITY: rows[f"p_{run.question}"].astype("float64"),
            LOGITS: rows[f"logit_{run.question}"].astype("float64") - rows[f"logit_{other}"],
        }
    )
    return found.groupby("example").mean()


def _interactions(
    scores: Mapping[str, pd.DataFrame], pictures: list[str], rules: Rules
) -> Iterator[list[object]]:
    """The interaction on both scales, tested on both sides, all as one family.

    Of less than the least effect, or of 0.1 logits, none is claimed: it may be rounding.
    """
    values = (scores[NEITHER] - scores[QUESTION] - scores[PICTURE] + scores[BOTH]).to_numpy()
    least = np.array([rules.least_effect, LEAST_LOGIT_RANGE])
    means = mean_intervals(values, rules.resamples, rules.seed, pictures)
    sides = of_enough(np.concatenate([values - least, -values - least], axis=1), pictures)
    upward, downward = np.split(max_t_test(sides, rules.resamples, rules.seed, pictures).p, 2)
    for scale, mean, up, down in zip(
        scores[NEITHER], means.itertuples(), upward, downward, strict=True
    ):
        verdict = TOGETHER if up < SIGNIFICANT else INSTEAD if down < SIGNIFICANT else NOT_SHOWN
        if len(set(pictures)) < FEWEST_PICTURES:
            verdict = f"not tested: {FEW_PICTURES}"
        yield [
            RUNS, f"{INTERACTION}, {scale}", mean.mean, mean.low, mean.high, min(up, down),
            mean.pictures, verdict,
        ]  # fmt: skip


# ---- places ------------------------------------------------------------------------------------


def _change(end: str) -> str:
    return f"{end}_change"


def _null(end: str) -> str:
    return f"{end}_null"


def _floor(end: str) -> str:
    return f"{end}_floor"


@dataclass(frozen=True)
class Restored:
    """A site's places over the examples that all three experiments include.

    of: the change, contrast and floor of each end (N, M); known: end → what is known of each place
    there (M,).
    """

    of: Arranged
    known: Mapping[str, np.ndarray]
    rules: Rules

    @cached_property
    def effects(self) -> dict[str, np.ndarray]:
        """Each of TOLD: (N, M)."""
        of = {end: self.of.of(_change(end)) for end in ENDS}
        return {
            **of,
            BEYOND: of[BOTH] + self.of.of(_floor(BOTH)) - self._reference(BEYOND),
            INTERACTION: of[QUESTION] + of[PICTURE] - of[BOTH],
        }

    def _reference(self, name: str) -> np.ndarray:
        """The score (N, M) from which an effect is a change."""
        from_ends = {BEYOND: PARTS}.get(name, (name,))
        return reduce(np.maximum, (self.of.of(_floor(end)) for end in from_ends))

    def intervals(self, name: str) -> pd.DataFrame:
        """The mean of an effect at each place; a change's range ends where the probability's do."""
        values, ends = self.effects[name], (-np.inf, np.inf)
        if name != INTERACTION:
            there = ~np.isnan(values)
            sums = np.where(there, self._reference(name), 0).sum(axis=0)
            before = sums / np.maximum(there.sum(axis=0), 1)
            ends = (-before, 1 - before)
        rules = self.rules
        return mean_intervals(values, rules.resamples, rules.seed, self.of.pictures, *ends)

    def is_open(self, name: str) -> np.ndarray:
        """At which places nothing is known of an effect beforehand: (M,)."""
        ends = {BEYOND: (BOTH,), INTERACTION: ENDS}.get(name, (name,))
        return np.logical_and.reduce([self.known[end] == "" for end in ends])

    def p_of_kinds(self) -> dict[str, np.ndarray]:
        """The p of a place being of each kind: (M,), NaN where it is not tested.

        Each is the largest of its hypotheses' (an intersection–union test). All those of something
        being there are one family, and so are those of a part not being there (that restoring does
        less than the least effect), so that of 100 such maps at most 5 have a false kind, whichever
        hypotheses fail at which places. Where a part cannot be there by construction, it is not.
        """
        least, found = self.rules.least_effect, self.effects
        changes = {name: (name, found[name] - least) for name in (*ENDS, BEYOND)}
        contrasts = {_null(end): (end, self.of.of(_null(end)) - least) for end in ENDS}
        halves = {f"half {end}": (end, found[BOTH] - HALF * found[end]) for end in PARTS}
        shown = self._test(changes | contrasts | halves)
        own = {end: np.maximum(shown[end], shown[_null(end)]) for end in ENDS}
        absent = self._test({end: (end, least - found[end]) for end in PARTS})
        for end in PARTS:
            absent[end] = np.where(self.known[end] == NO_OP, 0.0, absent[end])
        return {
            QUESTION: np.maximum(own[QUESTION], absent[PICTURE]),
            PICTURE: np.maximum(own[PICTURE], absent[QUESTION]),
            FUSED: reduce(
                np.maximum, [*own.values(), shown[BEYOND], *(shown[half] for half in halves)]
            ),
        }

    def p_of_interaction(self) -> np.ndarray:
        """The p of an interaction that goes through a place, either way: (M,).

        Beyond the least effect, and beyond what goes through it where an unrelated state is put in.
        """
        least, own = self.rules.least_effect, self.effects[INTERACTION]
        question, picture, both = (self.of.of(_null(end)) for end in ENDS)
        beyond = question + picture - both
        found = self._test(
            {
                f"{name} {sign}": (INTERACTION, sign * values - least)
                for name, values in (("own", own), ("beyond", beyond))
                for sign in (1, -1)
            }
        )
        sides = (np.maximum(found[f"own {sign}"], found[f"beyond {sign}"]) for sign in (1, -1))
        return np.fmin(*sides)

    def _test(self, columns: Mapping[str, tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The p of values (N, M) above zero, all of them one family; each with its effect."""
        values = [
            of_enough(np.where(self.is_open(effect), of, np.nan), self.of.pictures)
            for effect, of in columns.values()
        ]
        rules, pictures = self.rules, self.of.pictures
        found = max_t_test(np.concatenate(values, axis=1), rules.resamples, rules.seed, pictures)
        return dict(zip(columns, np.split(found.p, len(columns)), strict=True))

    def fusion_by_layer(self) -> tuple[list[int], np.ndarray, np.ndarray]:
        """Layers, how much is fused at each (L,), and the same in each resample of pictures (B, L).

        That of a layer is the largest of its open places', and a place's the smallest of the mean
        effects that a fused one has.
        """
        of_all = (*ENDS, BEYOND)
        is_open = np.logical_and.reduce([self.is_open(name) for name in of_all])
        layers = self.of.cells["layer"].to_numpy()[is_open]
        values = np.concatenate([self.effects[name][:, is_open] for name in of_all], axis=1)
        pictures, rules = self.of.pictures, self.rules
        means = np.concatenate(
            [
                by_picture(values, pictures).mean[None],
                resampled_means(values, rules.resamples, rules.seed, pictures),
            ]
        )
        smallest = means.reshape(len(means), len(of_all), -1).min(axis=1)
        # A resample may lack the pictures that have a role.
        smallest = np.where(np.isnan(smallest), -np.inf, smallest)
        named = sorted(set(layers))
        largest = np.stack([smallest[:, layers == n].max(axis=1) for n in named], axis=1)
        return named, largest[0], largest[1:]


def _of_site(evidence: Evidence, site: str) -> tuple[pd.DataFrame, list[list[object]]]:
    """A site's rows of both tables."""
    rows = _joined(evidence, site)
    arranged = arrange(rows, [of(end) for end in ENDS for of in (_change, _null, _floor)])
    known = {end: known_of(rows.assign(known=rows[f"{end}_known"]), arranged.cells) for end in ENDS}
    chosen = arranged.among(arranged.examples["included"])
    restored = Restored(chosen, known, evidence.rules)
    reason = _why_untested(evidence, site, restored)
    means = {name: restored.intervals(name) for name in TOLD}
    p = {kind: np.full(len(chosen.cells), np.nan) for kind in (*KINDS, INTERACTION)}
    if not reason:
        p = {**restored.p_of_kinds(), INTERACTION: restored.p_of_interaction()}
    table = chosen.cells.assign(
        site=site,
        noise_level=rows["noise_level"].iloc[0],
        known=reduce(lambda one, other: np.where(one != "", one, other), known.values()),
        **{
            str(column): values
            for name, of in means.items()
            for column, values in named_means(of, RESTORED.get(name, name)).items()
        },
        **{f"p_{name}": of for name, of in p.items()},
        pictures=means[BOTH]["pictures"],
        kind=np.select([p[kind] < SIGNIFICANT for kind in KINDS], KINDS, NOT_SHOWN),
    )[TABLE]
    return table, list(_of_places(table, restored, reason))


def _joined(evidence: Evidence, site: str) -> pd.DataFrame:
    """Each example's change, contrast and floor under each corruption, by place."""
    keys = ["example", *EXAMPLE[:2], *CELL]
    parts = []
    for end in ENDS:
        family = evidence.primary_family(evidence.settings[end], site)
        rows = evidence.by_role(family)
        # Of heads there is the mean over all roles too, which is no place of its own.
        single = rows[rows["token_role"] != ALL]
        rows = rows if single.empty else single
        floors = evidence.by_example(family).set_index("example")["reference"]
        told = {TESTED: _change(end), "contrast": _null(end)}
        told |= {name: f"{end}_{name}" for name in ("known", "included")}
        kept = rows[[*keys, *told, "noise_level"]].rename(columns=told)
        parts.append(kept.assign(**{_floor(end): kept["example"].map(floors)}))
    first, *others = parts
    for other in others:
        first = first.merge(other.drop(columns="noise_level"), on=keys, validate="one_to_one")
    included = first[[f"{end}_included" for end in ENDS]].all(axis=1)
    return first.assign(included=included)


def _why_untested(evidence: Evidence, site: str, restored: Restored) -> str:
    """Why no place of a site is tested; empty where they are."""
    for end in ENDS:
        family = evidence.primary_family(evidence.settings[end], site)
        examples = evidence.by_example(family)
        effect = examples.loc[~examples["one_answer"].astype(bool), "total_effect"].mean()
        if effect < evidence.rules.total_effect:
            return f"{NOTHING_HIDDEN} ({end} corrupted)"
    without = np.isnan([restored.of.of(_null(end)) for end in ENDS]).all(axis=2).any(axis=0)
    pictures = np.array(restored.of.pictures, dtype=object)
    return why_untested(len(set(pictures)), len(set(pictures[~without])), hides=True)


# ---- what is concluded -------------------------------------------------------------------------


def _of_places(table: pd.DataFrame, restored: Restored, reason: str) -> Iterator[list[object]]:
    """How many places are of which kind, and from which layer on what is there is fused."""
    site = table["site"].iloc[0]
    pictures = int(table["pictures"].max())
    if reason:
        yield [site, "places", *[np.nan] * 4, pictures, f"not tested: {reason}"]
        return
    for kind in KINDS:
        could = int(table[f"p_{kind}"].notna().sum())
        p, count = table[f"p_{kind}"].min(), int((table["kind"] == kind).sum())
        said = f"{count} of {could} places"
        yield [site, f"places: {kind}", count, np.nan, np.nan, p, pictures, said]
    changed = table["p_interaction"]
    said = f"{int((changed < SIGNIFICANT).sum())} of {int(changed.notna().sum())} places"
    yield [
        site, "places that the interaction goes through", int((changed < SIGNIFICANT).sum()),
        np.nan, np.nan, changed.min(), pictures, said,
    ]  # fmt: skip
    fused = table[table["kind"] == FUSED]
    if fused.empty:
        yield [site, "first layer with a fused place", *[np.nan] * 4, pictures, NOT_SHOWN]
        return
    first = int(fused["layer"].min())
    p = fused.loc[fused["layer"] == first, "p_fused"].min()
    yield [
        site, "first layer with a fused place", first, np.nan, np.nan, p, pictures,
        f"layer {first}",
    ]  # fmt: skip
    yield [site, "first layer with half of the most that is fused", *_onset(restored)]


def _onset(restored: Restored) -> list[object]:
    """The layer, its interval, no p, how many pictures, and how often it is which layer.

    In each resample of pictures the first layer at which half of the most that any has is fused.
    """
    layers, own, resampled = restored.fusion_by_layer()
    first = np.array(layers)[(resampled >= HALF * resampled.max(axis=1, keepdims=True)).argmax(1)]
    low, high = np.quantile(first, TAILS, method="inverted_cdf")
    named, counts = np.unique(first, return_counts=True)
    shares = sorted(zip(counts / len(first), named, strict=True), key=lambda pair: -pair[0])
    said = ", ".join(f"layer {layer} in {share:.0%}" for share, layer in shares[:MOST_LAYERS])
    layer = layers[int((own >= HALF * own.max()).argmax())]
    pictures = restored.of.examples["picture"].nunique()
    return [layer, low, high, np.nan, pictures, f"{said} of resamples"]
