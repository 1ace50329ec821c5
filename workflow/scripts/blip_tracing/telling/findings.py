"""The run in a few sentences, each of which the run's own tests support, or says that none does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from blip_tracing.meaning.effects import HALF
from blip_tracing.meaning.replication.compare import AGREES, CANNOT_TELL, DIFFERS
from blip_tracing.meaning.statistics import FEWEST_PICTURES, SIGNIFICANT
from blip_tracing.meaning.summary import least_fall
from blip_tracing.telling.phrases import (
    acted_words,
    amount_words,
    followed_words,
    moves_words,
    title_of,
    turns_words,
)
from blip_tracing.telling.places import is_drawn_by_head, one_words, role_words, window_words
from blip_tracing.telling.told import Run, at_level, is_known, is_true
from blip_tracing.telling.words import (
    how_many,
    level_words,
    listed,
    p_words,
    percent,
    printable,
    runs_of_numbers,
    signed,
    with_interval,
)
from blip_tracing.vocabulary import experiment as vocabulary
from blip_tracing.vocabulary.experiment import PICTURE_ONLY, Experiment
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.tables import (
    CEILING,
    FALSE_MARKS,
    FEW_NULLS,
    FEW_PICTURES,
    NO_NULL,
    NOTHING_HIDDEN,
)

# Cells that together were the largest in so many resamples cannot be told from the best.
ENOUGH = 0.95
# Reasons of `families` for which a description of the examples still makes sense.
DESCRIBED = (FEW_PICTURES, NO_NULL, FEW_NULLS)
# As many heads are named one by one.
MOST_NAMED = 8


def findings_of(run: Run, controls: pd.DataFrame, verdicts: pd.DataFrame | None) -> Iterator[str]:
    """One sentence or two each, in the order of the experiments; controls and verdicts last."""
    corrupted: set[str] = set()
    for experiment in run.experiments:
        primary = run.primary(experiment)
        noisy = experiment.corrupted
        if noisy and noisy.name not in corrupted:
            corrupted.add(noisy.name)
            yield corruption_of(run, noisy, primary["noise_level"])
        if primary["included"] == 0:
            yield (
                f"{_named(experiment, primary)}: none of the {primary['examples']} examples can "
                "show an effect (see what was left out), so nothing is said."
            )
            continue
        if tells_turns(run, experiment, primary):
            yield turned_by_layer(run, experiment, primary)
        yield from tested(run, experiment, primary)
        yield from elsewhere(run, experiment, primary)
        yield from damaged(run, experiment, primary)
        yield from unrelated(run, experiment, primary)
    if not controls.empty:
        yield vouched(controls)
    if verdicts is not None:
        yield replicated(verdicts)


def replicated(verdicts: pd.DataFrame) -> str:
    """How many published quantities this run agrees with, differs from, and cannot tell of."""
    counts = verdicts["verdict"].value_counts()
    agree, differ, open_ = (int(counts.get(name, 0)) for name in (AGREES, DIFFERS, CANNOT_TELL))
    return (
        f"Of {agree + differ + open_} published quantities that were judged {agree} "
        f"{'agrees' if agree == 1 else 'agree'} with this run, {differ} "
        f"{'differs' if differ == 1 else 'differ'}, and of {open_} it cannot be told."
    )


# ---- patching: the share turned, layer by layer ------------------------------------------------


def tells_turns(run: Run, experiment: Experiment, primary: Any) -> bool:
    """Whether it is told layer by layer how often the differing word's state turns the answer."""
    site = primary["site"]
    if experiment.corrupted or not run.differing_at(site) or is_drawn_by_head(site):
        return False
    return bool(run.summary(primary, "turned")["token_role"].eq(run.differing).any())


def turned_by_layer(run: Run, experiment: Experiment, primary: Any) -> str:
    """In how many examples the state at the differing word turns the answer, layer by layer."""
    turned = _of_role(run.summary(primary, "turned"), run.differing)
    changes = _of_role(run.tested_changes(primary), run.differing)
    counts = (turned["mean"] * turned["examples"]).round().astype(int).to_dict()
    must = {
        layer: {CEILING: " (there it must: it is asking the other question)"}.get(known, "")
        for layer, known in changes["known"].fillna("").items()
    }
    count = int(turned["examples"].max())
    return (
        f"{_named(experiment, primary)}: {acted_words(experiment)} the one state at the "
        f"“{printable(run.differing)}” {turns_words(experiment)} (covers at least half of the "
        f"total effect) in {counts_words(counts, must, count)}.{_described(primary)}"
    )


def counts_words(counts: dict[Any, int], notes: dict[Any, str], of: int) -> str:
    """`12 of 12 examples at layer 0 (note), 9 at layer 1, none at layers 2 to 5`."""
    groups: list[tuple[list[int], int, str]] = []
    for layer in sorted(counts):
        same = counts[layer], notes.get(layer, "")
        if groups and groups[-1][1:] == same:
            groups[-1][0].append(int(layer))
        else:
            groups.append(([int(layer)], *same))
    words: list[str] = []
    for layers, count, note in groups:
        number = f"{count} of {how_many(of, 'example')}" if not words else f"{count or 'none'}"
        where = f"layer{'s' if len(layers) > 1 else ''} {runs_of_numbers(layers)}"
        words.append(f"{number} at {where}{note}")
    return ", ".join(words)


def _described(primary: Any) -> str:
    if primary["pictures"] >= FEWEST_PICTURES:
        return ""
    return (
        f" This describes {how_many(primary['pictures'], 'picture')}; a test needs "
        f"{FEWEST_PICTURES} at least."
    )


# ---- what was tested ---------------------------------------------------------------------------


def tested(run: Run, experiment: Experiment, primary: Any) -> Iterator[str]:
    """The marked cells that cannot be told from the best, or why there are none."""
    named = _named(experiment, primary)
    changes = run.tested_changes(primary)
    if not primary["tested"]:
        if primary["reason"] == FALSE_MARKS:
            yield (
                f"{named}: the negative controls, in which nothing can be found, were marked more "
                "often than chance allows; therefore nothing is marked and nothing claimed."
            )
        elif primary["reason"] not in DESCRIBED:
            yield f"{named}: not tested ({primary['reason']}), and nothing is claimed."
        elif not tells_turns(run, experiment, primary):
            yield f"{named}: {_largest(run, experiment, primary, changes)}"
        return
    marked = changes[is_true(changes["marked"]) & ~is_known(changes)]
    cells, of = int(primary["cells"]), _cells_words(primary)
    if marked.empty:
        found = primary["detectable"]
        power = (
            ""
            if pd.isna(found)
            else f"; in a cell of typical spread a mean change of {found:.2f}{run.tested.unit} "
            "would have been found with 80 % probability"
        )
        yield (
            f"{named}: none of {cells} {of} stands out from both the floor and an unrelated "
            f"example's state (p < 0.05, {how_many(primary['pictures'], 'picture')}){power}."
        )
        return
    best = undecided(marked)
    top = best.iloc[0]
    change = with_interval(top["mean"], top["low"], top["high"])
    moved = moves_words(experiment, run.tested)
    share = best["chosen"].sum()
    choice = (
        f"It was the largest of all {of}"
        if len(best) == 1
        else "They cannot be told from one another: together they held the largest effect"
    )
    missing = "" if share >= ENOUGH else f", so {_one(primary)} without a mark may be larger"
    families = run.tables["families"]
    several = (families["experiment"] == experiment.name).sum() > 1
    overall = int((marked["p_study"] < SIGNIFICANT).sum())
    also = f" ({overall} of them also over all levels and sites)" if several else ""
    study = f"; over all levels and sites {_p(top['p_study'])}" if several else ""
    at = "" if len(best) == 1 else f" at {_place(top)}"
    heads = named_heads(run, experiment, primary) if len(marked) > 1 else ""
    yield (
        f"{named}: of {cells} tested {of} {len(marked)} stand{'s' if len(marked) == 1 else ''} "
        f"out from both the floor and an unrelated example's state{also}. Of these, "
        f"{acted_words(experiment)} {one_words(experiment, primary['site'])} {moved} most at "
        f"{places_words(best)}: {change}{at} ({_p(top['p_family'])}{study}). {choice} in "
        f"{percent(share)} of resamples of the pictures{missing}."
        f"{f' All of them: {heads}.' if heads else ''}"
    )


def elsewhere(run: Run, experiment: Experiment, primary: Any) -> Iterator[str]:
    """What is marked at the experiment's other sites, at the level of conclusions, or nothing."""
    families = run.tables["families"]
    mine = families[
        (families["experiment"] == experiment.name)
        & (families["site"] != primary["site"])
        & at_level(families["noise_level"], primary["noise_level"])
        & families["tested"]
    ]
    without = []
    for site, of_site in mine.groupby("site", sort=False):
        family = of_site.iloc[0]
        marked = named_marks(run, experiment, family)
        if marked:
            yield (
                f"{_named(experiment, family)}: {_cells_words(family)} that stand out from both "
                f"the floor and an unrelated example's state: {marked}."
            )
        else:
            without.append((str(site), float(family["detectable"])))
    if without:
        sites, found = zip(*without, strict=True)
        yield (
            f"{title_of(experiment)}: at {listed(sites)} nothing stands out"
            f"{_power_words(found, run.tested.unit)}."
        )


def damaged(run: Run, experiment: Experiment, primary: Any) -> Iterator[str]:
    """Where the logit difference moves as it is to and both answers lose, counted, if anywhere.

    Nothing is said where that was not tested: of fewer than six pictures, of an intervention that
    is to take an answer, of a run that is not scored by the probability of both.
    """
    families = run.tables["families"]
    if "damaged" not in families:
        return
    mine = families[
        (families["experiment"] == experiment.name)
        & at_level(families["noise_level"], primary["noise_level"])
        & families["tested"]
        & (families["damaged"] > 0)
    ].drop_duplicates("site")
    where = [
        f"{int(family['damaged'])} of {int(family['cells'])} {_cells_words(family)} at "
        f"{family['site']}"
        for family in mine.to_dict("records")
    ]
    if where:
        effects = run.config["effects"]
        least = least_fall(run.tested, effects["least_effect"], effects["total_effect"])
        yield (
            f"{title_of(experiment)}: in {listed(where)} the logit difference moves towards the "
            f"{followed_words(experiment)} while p(base) + p(source) falls by more than {least:g} "
            "(both tested over the pictures, p < 0.05 for all cells of a map): there the model is "
            "damaged, and the logit difference alone does not show what a state carries."
        )


def _power_words(found: Sequence[float], unit: str) -> str:
    """`; a mean change of 0.02 to 0.09 would …`; "" where it is not known."""
    known = sorted({f"{least:.2f}" for least in found if not np.isnan(least)})
    if not known:
        return ""
    change = " to ".join(dict.fromkeys([known[0], known[-1]]))
    return f"; a mean change of {change}{unit} would have been found with 80 % probability"


def named_heads(run: Run, experiment: Experiment, family: Any) -> str:
    """The marked heads as `named_marks` has them; "" where the site has no heads."""
    return named_marks(run, experiment, family) if is_drawn_by_head(family["site"]) else ""


def named_marks(run: Run, experiment: Experiment, family: Any) -> str:
    """`head 2 of layer 4, +0.310 (+0.200 to +0.400); …`: the marked cells, the largest first.

    "" where none of them is marked.
    """
    changes = run.tested_changes(family)
    marked = changes[is_true(changes["marked"]) & ~is_known(changes)]
    if marked.empty:
        return ""
    order = run.tested.rises(experiment) * marked["mean"]
    rows = marked.loc[order.sort_values(ascending=False, kind="stable").index]
    words = [
        f"{_place(row, 'of')}, {with_interval(row['mean'], row['low'], row['high'])}"
        for row in rows.head(MOST_NAMED).to_dict("records")
    ]
    more = len(rows) - len(words)
    return "; ".join([*words, *([f"and {more} more"] if more else [])])


def undecided(marked: pd.DataFrame) -> pd.DataFrame:
    """The fewest marked cells that held the largest effect in 95 % of resamples, or as near as
    they come: the set that cannot be told from the best.
    """
    ranked = marked.sort_values(["chosen", "layer"], ascending=[False, True])
    before = ranked["chosen"].cumsum() - ranked["chosen"]
    kept = ranked[(before < ENOUGH) & (ranked["chosen"] > 0)]
    return kept if len(kept) else ranked.head(1)


def places_words(cells: pd.DataFrame) -> str:
    """`“differing word” in layers 1 and 2; “[SEP]” in layer 5`; `head 2 in layer 4`."""
    words = []
    by_head = is_drawn_by_head(cells["site"].iloc[0])
    for row, rows in cells.groupby("head" if by_head else "token_role", sort=False):
        layers = sorted(map(int, rows["layer"]))
        where = f"layer{'s' if len(layers) > 1 else ''} {runs_of_numbers(layers)}"
        words.append(
            f"{f'head {row:g}' if by_head else _role(row, rows['site'].iloc[0])} in {where}"
        )
    return "; ".join(words)


def _largest(run: Run, experiment: Experiment, primary: Any, changes: pd.DataFrame) -> str:
    """A description of these examples: never of a cell whose outcome is known."""
    rows = changes[~is_known(changes)]
    if rows.empty:
        return "not tested: what each of its cells does is known beforehand."
    top = rows.iloc[(run.tested.rises(experiment) * rows["mean"]).argmax()]
    what = run.tested.words.format(followed_words(experiment))
    reason = primary["reason"]
    untested = (
        f"only {how_many(primary['pictures'], 'picture')}; a test needs {FEWEST_PICTURES}"
        if reason == DESCRIBED[0]
        else reason
    )
    return (
        f"not tested ({untested}). In "
        f"{'the one example' if primary['included'] == 1 else 'these examples'} the largest mean "
        f"change in {what}, {signed(top['mean'])}, stands at "
        f"{_place(top)}: a description, which says nothing of other examples."
    )


# ---- the null, the corruption, the controls ----------------------------------------------------


def unrelated(run: Run, experiment: Experiment, primary: Any) -> Iterator[str]:
    """An unrelated example's state that turns the answer too."""
    turns = run.tables["turns"]
    mine = turns[
        (turns["experiment"] == experiment.name) & turns["included"] & turns["null_covered"].notna()
    ]
    most = mine.groupby("example")[["null_covered", "covered"]].max()
    turned, own = (int((most[name] >= HALF).sum()) for name in most)
    if turned:
        yield (
            f"{_named(experiment, primary)}: in the mean over the donors, an unrelated example's "
            f"state (the null) also {turns_words(experiment)} at some place in {turned} of "
            f"{how_many(len(most), 'example')}, the state of the example's own run in {own}; a "
            "turn alone need not come of what the state says."
        )


def corruption_of(run: Run, noisy: vocabulary.Run, noise_level: float) -> str:
    """Whether the corruption hid the answer, and where its probability went."""
    means = run.tables["run_means"]
    rows = means[means["run"] == noisy.name]
    row = rows[at_level(rows["noise_level"], noise_level)].iloc[0]
    clean = means.loc[(means["run"] == noisy.question), "mean"]
    assert noisy.corruption is not None
    deviations = (
        f" ({row['noise_in_sd']:.2g} standard deviations of the states that it changes)"
        if not pd.isna(row["noise_in_sd"])
        else ""
    )
    sentence = f"With {noisy.corruption.amount(noise_level)}{deviations}{noisy.corruption.beside} "
    if len(clean) and row["mean"] < clean.iloc[0]:
        sentence += (
            f"the mean probability of the base answer falls from {clean.iloc[0]:.3f} to "
            f"{row['mean']:.3f}"
        )
    else:
        sentence += f"the mean probability of the base answer is {row['mean']:.3f}"
    if row["hidden"] == 0:
        sentence += f"; in no draw did it fall below half of the clean run's: {NOTHING_HIDDEN}"
        sentence += _would_hide(rows, noisy)
    elif not pd.isna(row["hidden"]):
        sentence += f"; in {percent(1 - row['hidden'])} of draws it did not fall below half"
    if not pd.isna(row["third"]):
        sentence += (
            f", and {percent(row['third'])} of all probability lies on answers to neither question"
        )
    alone = means.loc[means["run"] == PICTURE_ONLY, "mean"]
    if len(alone):
        sentence += f". With the picture and no question it is {alone.iloc[0]:.3f}"
    return f"{sentence}."


def _would_hide(means: pd.DataFrame, noisy: vocabulary.Run) -> str:
    """At which of the levels of a run it hid the answer in most draws, the gentlest of them.

    means: its rows of the table `run_means`.
    """
    hiding = means[means["hidden"] > HALF].sort_values("mean")
    if len(hiding):
        assert noisy.corruption is not None
        return f", as {noisy.corruption.amount(hiding['noise_level'].iloc[-1])} did in most"
    return ", nor did it at any other level" if len(means) > 1 else ""


def vouched(controls: pd.DataFrame) -> str:
    """What the controls show: nothing is claimed of those that could not have failed."""
    known = controls[controls["largest"].notna()]
    checked, idle = int(known["checked"].sum()), int(known["idle"].sum())
    largest = known["largest"].max()
    if idle == checked:
        return (
            f"None of the {checked:,} checks whose outcome is known could have failed here: a "
            "fault would have changed next to nothing, so they vouch for nothing."
        )
    error = f"(largest error in probability {error_words(largest)})"
    if idle:
        return (
            f"All {checked - idle:,} checks that could have failed passed {error}; {idle:,} more "
            "could not have failed here and vouch for nothing."
        )
    return f"All {checked:,} checks whose outcome is known passed {error}."


def error_words(value: float) -> str:
    """`2 × 10⁻⁷`; `0`."""
    if value == 0 or np.isnan(value):
        return "0"
    digits, exponent = f"{value:.0e}".split("e")
    return f"{digits} × 10{str(int(exponent)).translate(RAISED)}"


RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


# ---- words -------------------------------------------------------------------------------------


def _named(experiment: Experiment, primary: Any) -> str:
    window = window_words(experiment)
    title = ", ".join(filter(None, [title_of(experiment, primary["site"]), window]))
    return " at ".join(filter(None, [title, amount_words(experiment, primary["noise_level"])]))


def _cells_words(primary: Any) -> str:
    return "heads" if is_drawn_by_head(primary["site"]) else "cells"


def _one(primary: Any) -> str:
    return f"a {_cells_words(primary)[:-1]}"


def _place(cell: Any, of_head: str = "in") -> str:
    if is_drawn_by_head(cell["site"]):
        return f"head {cell['head']:g} {of_head} layer {cell['layer']:g}"
    return f"{_role(cell['token_role'], cell['site'])} in layer {cell['layer']:g}"


def _role(role: Any, site: str) -> str:
    """`“thing”`, or `all tokens` where these are put in together."""
    return role_words(ALL, site) if role == ALL else f"“{printable(str(role))}”"


def _p(value: float) -> str:
    """`p = 0.010`, `p < 0.001`."""
    words = p_words(value)
    return f"p {words}" if words.startswith("<") else f"p = {words or 'not known'}"


def _of_role(rows: pd.DataFrame, role: str) -> pd.DataFrame:
    return rows[rows["token_role"] == role].set_index("layer").sort_index()


def reasons_words(families: pd.DataFrame, sign: str, of_all: bool = True) -> str:
    """Why families are not tested: each reason, with its levels where it is not that of all.

    sign: what a level is called.
    """
    words: Sequence[str] = []
    for reason, rows in families.groupby("reason", sort=False):
        levels = [level_words(level, sign) for level in rows["noise_level"] if not pd.isna(level)]
        where = (
            f" ({', '.join(levels)})"
            if levels and (families["reason"].nunique() > 1 or not of_all)
            else ""
        )
        words = [*words, f"{reason}{where}"]
    return listed(words) if words else ""
