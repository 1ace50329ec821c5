"""Effects: what an intervention changes against its reference, cell by cell and role by role.

The answer that is followed is that of the donor's question. The reference is the receiver's own
run, into which nothing was put (of the same level and draw where it is corrupted: the floor); the
target is the donor's own run, to which the intervention leads. The null is the same intervention
with unrelated examples' states. LD is the logit of the base answer minus the source answer's.

Beside p and LD stand the further metrics that are asked (`metrics.further_of`), each with its
change from the reference. One metric is tested: its change, its contrast with the null, its marks.

A cell is a layer, a head and a position, of a level and a draw: whole numbers, the head −1 where a
site has none, level and draw 0 where nothing is corrupted. Tables for readers have no column `head`
where no site of heads is asked, and no number in it at other sites.
"""

from collections.abc import Iterable, Sequence
from zlib import crc32

import numpy as np
import pandas as pd

from blip_tracing.meaning.marks import known_cells, map_test
from blip_tracing.meaning.roles import ALIKE, POSITION
from blip_tracing.meaning.statistics import SIGNIFICANT
from blip_tracing.vocabulary.experiment import BASE, QUESTIONS, SOURCE, Experiment, Run
from blip_tracing.vocabulary.metrics import ALWAYS, METRICS, Metric
from blip_tracing.vocabulary.roles import ALL, NO_ROLE
from blip_tracing.vocabulary.sites import SITES
from blip_tracing.vocabulary.tables import (
    CEILING,
    NO_OP,
    NOT_OWN,
    ONE_ANSWER,
    SMALL_EFFECT,
    SMALL_PRIMARY,
    SMALL_RANGE,
    UNRELATED,
    WITHOUT_NULL,
    WITHOUT_ROLE,
)

# A probability of 0 has no logarithm; less than this float32 does not hold at full precision.
LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)
# Nor has what is missing to 1, of which float32 tells no less than this.
LEAST_REST = float(np.finfo(np.float32).epsneg)
# In logits; a share of less than this would tell of rounding rather than of effects.
LEAST_LOGIT_RANGE = 0.1
# The share of the clean probability below which the noise of a draw hid the answer, and of the
# total effect from which an intervention turned it.
HALF = 0.5

VARIANT = ["level", "draw"]
CELL = ["layer", "head", "position"]
NO_HEAD = -1
# What is measured of one example at one level; the noise level goes with it, to be shown.
RUN = ["experiment", "example", "site", "level", "noise_level"]
MAP = ["example", "site", "level"]
EXAMPLE = ["picture", "group", "included"]
# Of each draw of a cell, and averaged over draws and positions.
MEASURED = [
    "probability", "probability_change", "log_probability_change", "log_odds_change",
    "logit_difference_change", "normalised", "hidden_change", "contrast",
]  # fmt: skip
# Of an example's cells of one role and layer together.
OF_POSITIONS = ["turned", "largest_change"]
QUANTITIES = [*MEASURED, *OF_POSITIONS]
# The tested metric's change under each half of an example's nulls, by turns.
HALVES = ["first_null", "second_null"]
# The metric that is tested, where no other is asked for.
TESTED = "probability"
EFFECTS = [
    "experiment", "example", "group", "site", "noise_level", *CELL, "token", "token_role",
    "probability_change", "log_probability_change", "log_odds_change", "logit_difference_change",
    "normalised", "hidden_change", "total_effect", "below_threshold", "included", "null_change",
    "contrast", "known", "p_map", "marked",
]  # fmt: skip
EXCLUDED = ["example", "experiment", "site", "noise_level", "rows", "reason", "value"]
# What an example's runs say of a family, beside the means over all its cells.
RUN_FACTS = [
    "reference", "target", "total_effect", "logit_range", "hidden_share", "third_mass",
    "one_answer",
]  # fmt: skip


def changes_of(further: Iterable[str]) -> list[str]:
    """What the changes of further metrics are called."""
    return [METRICS[name].change for name in further]


def effect_columns(further: Iterable[str]) -> list[str]:
    """The columns of the table `effects`, where these further metrics are asked."""
    place = EFFECTS.index("normalised")
    return [*EFFECTS[:place], *changes_of(further), *EFFECTS[place:]]


def measure_cells(
    experiment: Experiment,
    cells: pd.DataFrame,
    controls: pd.DataFrame,
    runs: pd.DataFrame,
    metric: str = TESTED,
    further: Sequence[str] = (),
) -> pd.DataFrame:
    """Compare each draw of each cell with its reference, its target and its null.

    cells, controls, runs: the experiment's table, `controls` and `runs`, of the same examples; of
    the controls the null's rows count, and an example, or a draw, may have none or several; metric:
    that is tested, one of `metrics.ALWAYS` or of `further`, the further ones. Returns the cells, a
    row as they have it, by level and draw, with
    probability: of the followed answer; direction: 1 where an effect is to raise it, −1 to lower;
    towards: the same of the tested metric;
    probability_change: from the reference; log_probability_change, log_odds_change: the same of
    log p and of log p/(1 − p); logit_difference_change: the same of LD;
    hidden: whether the noise of the draw hid the answer; hidden_change: the change where it did;
    total_effect, logit_range: what the target has more than the reference, of p and of LD, each
    the mean over its draws;
    normalised: logit_difference_change / logit_range, NaN where the range is less than 0.1 logits,
    which is little beside the rounding of what is divided by it;
    null_change: the mean null's probability_change; tested_null: the same of the tested metric;
    contrast: the tested metric minus its mean null; first_null, second_null: its change under
    either half of the donors, or of the draws of one; all NaN where a draw has no null;
    of each further metric its number, by the metric's name, and the number's change.
    """
    levels = [name for name in further if not _needs_own_reference(METRICS[name], experiment)]
    table = _scores(cells, experiment, further=further).assign(experiment=experiment.name)
    for end, run in (("reference", experiment.receiver), ("target", experiment.donor)):
        kept = levels if end == "reference" else []
        scores = _run_scores(runs, run, experiment, kept).add_prefix(f"{end}_")
        keys = ["example", *(VARIANT if run.corruption else [])]
        table = table.merge(
            scores,
            left_on=keys,
            right_on=[f"{end}_{key}" for key in keys],
            how="left",
            validate="many_to_one",
        )
    if own := [name for name in further if name not in levels]:
        table = table.merge(
            _unchanged(controls, experiment, own),
            on=["example", *VARIANT],
            how="left",
            validate="many_to_one",
        )
    table = table.merge(
        _nulls(controls, experiment, metric),
        on=[*MAP, "draw", *CELL],
        how="left",
        validate="many_to_one",
    )
    facts = run_facts(experiment, runs)[["example", "level", "total_effect", "logit_range"]]
    table = table.merge(facts, on=["example", "level"], how="left", validate="many_to_one")
    table = table.merge(
        hidden_draws(experiment, runs),
        on=["example", *VARIANT],
        how="left",
        validate="many_to_one",
    )
    before, after = table["reference_probability"], table["probability"]
    moved = table["logit_difference"] - table["reference_logit_difference"]
    logit_range = table["logit_range"]
    change = after - before
    tested_before = table[f"reference_{metric}"]
    return table.assign(
        direction=experiment.direction,
        towards=METRICS[metric].towards(experiment),
        probability_change=change,
        log_probability_change=_log(after) - _log(before),
        log_odds_change=_log_odds(after) - _log_odds(before),
        logit_difference_change=moved,
        normalised=moved / logit_range.where(logit_range.abs() >= LEAST_LOGIT_RANGE),
        hidden_change=change.where(table["hidden"]),
        null_change=table["null_probability"] - before,
        tested_null=table["null_tested"] - tested_before,
        contrast=table[metric] - table["null_tested"],
        **{half: table[half] - tested_before for half in HALVES},
        **{METRICS[name].change: table[name] - table[f"reference_{name}"] for name in further},
    )


def _needs_own_reference(metric: Metric, experiment: Experiment) -> bool:
    """Whether `runs` does not have the reference's number: a distance from the experiment's target.

    A run is scored there by its distance from the clean run of its own question.
    """
    return metric.of_target and experiment.donor.name != experiment.receiver.question


def _unchanged(
    controls: pd.DataFrame, experiment: Experiment, names: Sequence[str]
) -> pd.DataFrame:
    """The reference's numbers by example, level and draw, from runs that got the states they had.

    There are such controls at the first draw of each level; a later one has no number.
    """
    rows = by_level(controls[controls["control"] == NO_OP], experiment.levels)
    numbers = {
        f"reference_{name}": rows[METRICS[name].column(experiment.followed)].astype("float64")
        for name in names
    }
    scores = rows[["example", *VARIANT]].assign(**numbers)
    return scores.groupby(["example", *VARIANT], sort=False).first().reset_index()


def run_facts(experiment: Experiment, runs: pd.DataFrame) -> pd.DataFrame:
    """What the runs without an intervention say of each example at each level.

    Columns example, level, noise_level and RUN_FACTS: reference and target, the followed answer's
    mean probability in either; total_effect and logit_range, the difference of those and of LD's
    means; hidden_share, of draws whose noise hid the answer (NaN where nothing is corrupted);
    third_mass, the reference's mean probability of neither answer; one_answer, whether both
    questions have the same.
    """
    ends = {
        end: _run_scores(runs, run, experiment).groupby(["example", "level"], sort=False).first()
        for end, run in (("reference", experiment.receiver), ("target", experiment.donor))
    }
    levels = pd.DataFrame(
        {"level": range(max(1, len(experiment.levels))),
         "noise_level": list(experiment.levels) or [np.nan]}
    )  # fmt: skip
    answers = runs[runs["run"].isin(QUESTIONS)].groupby("example", sort=False)["answer"]
    facts = (answers.nunique() == 1).rename("one_answer").reset_index().merge(levels, how="cross")
    for end, scores in ends.items():
        run = experiment.receiver if end == "reference" else experiment.donor
        # A run without levels is one and the same at all of them.
        at = facts[["example", "level"]].assign(level=facts["level"] if run.corruption else 0)
        found = scores.reindex(pd.MultiIndex.from_frame(at))
        facts[end] = found["mean_probability"].to_numpy()
        facts[f"{end}_ld"] = found["mean_logit_difference"].to_numpy()
        if end == "reference":
            facts["third_mass"] = found["mean_third"].to_numpy()
    hidden = hidden_draws(experiment, runs).groupby(["example", "level"])["hidden"].mean()
    known = hidden.reindex(pd.MultiIndex.from_frame(facts[["example", "level"]])).to_numpy(float)
    return facts.assign(
        total_effect=facts["target"] - facts["reference"],
        logit_range=facts["target_ld"] - facts["reference_ld"],
        hidden_share=known if experiment.corrupted else np.nan,
    )[["example", "level", "noise_level", *RUN_FACTS]]


def hidden_draws(experiment: Experiment, runs: pd.DataFrame) -> pd.DataFrame:
    """Whether the noise hid the answer: example, level, draw, hidden.

    It did where the corrupted run gives the answer to its question less than half of the clean
    run's probability, whatever is restored afterwards. What is not corrupted hides nothing.
    """
    run = experiment.corrupted
    if run is None:
        alone = pd.DataFrame({"example": runs["example"].unique()})
        return alone.assign(level=0, draw=0, hidden=False)
    answer = f"p_{run.question}"
    rows = by_level(runs[runs["run"] == run.name], run.levels)
    clean = runs[runs["run"] == run.question].set_index("example")[answer].astype("float64")
    hidden = rows[answer].astype("float64") < HALF * rows["example"].map(clean)
    return rows[["example", *VARIANT]].assign(hidden=hidden)


def by_level(table: pd.DataFrame, levels: Sequence[float]) -> pd.DataFrame:
    """The table with whole-numbered `level` and `draw`; 0 and 0 where it has no levels.

    levels: those of the run, in the configuration's order, one of which each row's noise level is.
    """
    if not levels:
        return table.assign(level=0, draw=0, noise_level=np.nan)
    # As tables print them: no two levels of a configuration look alike there.
    numbers = {f"{level:.9g}": number for number, level in enumerate(levels)}
    printed = table["noise_level"].map("{:.9g}".format)
    return table.assign(
        level=printed.map(numbers).astype("int64"), draw=table["draw"].astype("int64")
    )


def inclusion(
    experiment: Experiment,
    runs: pd.DataFrame,
    baseline: pd.DataFrame,
    primary: int,
    total_effect: float,
) -> pd.DataFrame:
    """The one rule by which examples are included: a row an example, indexed by its name.

    An example is left out where both its questions have one answer, where a followed answer is not
    the model's own first one to its question, and where the total effect at the primary level
    (`primary`, its number), in the experiment's direction, is below `total_effect`. Columns: each
    of these reasons, included, and value, the total effect that decided.
    """
    first = baseline[baseline["rank"] == 1].set_index(["example", "question"])["token_id"]
    clean = runs[runs["run"].isin(QUESTIONS)]
    own = (
        clean["answer_id"].to_numpy()
        == first.reindex(pd.MultiIndex.from_frame(clean[["example", "run"]])).to_numpy()
    )
    facts = run_facts(experiment, runs)
    rule = facts[facts["level"] == primary].set_index("example")
    table = pd.DataFrame(
        {
            ONE_ANSWER: rule["one_answer"],
            NOT_OWN: ~pd.Series(own, clean["example"]).groupby(level=0).all().reindex(rule.index),
            SMALL_PRIMARY: ~(experiment.direction * rule["total_effect"] >= total_effect),
        }
    )
    return table.assign(included=~table.any(axis=1), value=rule["total_effect"])


def classify(
    cells: pd.DataFrame,
    positions: pd.DataFrame,
    examples: pd.DataFrame,
    experiment: Experiment,
    total_effect: float,
) -> pd.DataFrame:
    """The cells with the role of their position, and what is known of them and their example.

    cells: of all layers; positions: of `cell_positions`; examples: example, picture, group,
    included; total_effect: the least, in probability and in the experiment's direction, with which
    an example counts in normalised averages and among those turned.
    """
    towers = {site: SITES[site].tower for site in experiment.sites}
    table = cells.assign(tower=cells["site"].map(towers))
    table = table.merge(positions, on=POSITION, how="left", validate="many_to_one")
    table["token_role"] = table["token_role"].fillna(NO_ROLE)
    table[ALIKE] = table[ALIKE].eq(True)
    table = table.merge(examples[["example", *EXAMPLE]], on="example", how="left")
    towards = table["direction"] * table["total_effect"]
    known = known_cells(table, experiment)
    return table.assign(below_threshold=towards < total_effect, known=known).drop(
        columns=["tower", *ALIKE]
    )


def average_draws(
    cells: pd.DataFrame,
    least: float = 0.0,
    resamples: int = 2000,
    seed: int = 0,
    metric: str = TESTED,
    further: Sequence[str] = (),
) -> pd.DataFrame:
    """The effects: one row a cell, means over its draws (over those with a null, of the null's).

    cells: classified; least, resamples, seed: of the test of each example's map; metric, further:
    as `measure_cells` takes them. Columns: those of the table `effects`, and what role means are
    made of. p_map tests a cell's draws, as `map_test` does. Marked is a cell below 0.05 there whose
    change exceeds `least` and the largest positive mean null of its map, where the noise of a draw
    hid the answer and nothing is known.
    """
    tested = METRICS[metric].change
    averaged = [*MEASURED, "null_change", "tested_null", *HALVES, *further, *changes_of(further)]
    shared = [
        "total_effect", "below_threshold", "logit_range", "direction", "towards", "known", *EXAMPLE,
    ]  # fmt: skip
    groups = cells.groupby([*RUN, *CELL, "token", "token_role"], dropna=False, sort=False)
    effects = groups.agg(
        **{name: (name, "mean") for name in averaged},
        **{name: (name, "first") for name in shared},
        draws=("draw", "size"),
        null_draws=("contrast", "count"),
    ).reset_index()
    p_map = _map_tests(cells, tested, least, resamples, seed)
    effects = effects.merge(p_map, on=[*MAP, *CELL], how="left")
    change = effects["towards"] * effects[tested]
    null = effects["towards"] * effects["tested_null"]
    largest = null.groupby([effects[key] for key in MAP]).transform("max").clip(lower=0)
    return effects.assign(
        marked=(effects["p_map"] < SIGNIFICANT)
        & (change >= least)
        & (change > largest)
        & effects["hidden_change"].notna()
        & (effects["known"] == "")
    )


def _map_tests(
    cells: pd.DataFrame, tested: str, least: float, resamples: int, seed: int
) -> pd.DataFrame:
    """The p of each cell's draws, example by example: MAP, CELL, p_map; tested: the change."""
    ordered = cells.sort_values([*MAP, "draw", *CELL])
    change = (ordered["towards"] * ordered[tested]).to_numpy()
    parts = []
    for rows in ordered.groupby(MAP, sort=False).indices.values():
        draws = ordered["draw"].iloc[rows].nunique()
        values = change[rows].reshape(draws, -1)
        first = ordered[[*MAP, *CELL]].iloc[rows[: values.shape[1]]]
        parts.append(first.assign(p_map=map_test(values, resamples, seed, least)))
    return pd.concat(parts)


def average_roles(effects: pd.DataFrame, further: Sequence[str] = ()) -> pd.DataFrame:
    """The table `role_means`: each example's means over the positions of a role, by layer.

    effects: as `average_draws` returns them; further: metrics. Of an example below the threshold no
    normalised value is there, nor whether it was turned: whether a position covers half of the
    total effect. largest_change is the one position's whose change reaches farthest. A cell of
    roles is known to be a no-op where all its positions are, and a ceiling where one is. A head has
    the mean over all its positions too, under the role "all". positions: how many cells a
    row is the mean of.
    """
    of_heads = effects[(effects["head"] != NO_HEAD) & (effects["token_role"] != ALL)]
    rows = pd.concat([effects[effects["token_role"] != NO_ROLE], of_heads.assign(token_role=ALL)])
    rows = _counted(rows)
    reach = rows["direction"] * rows["probability_change"]
    covered = reach >= HALF * rows["direction"] * rows["total_effect"]
    rows = rows.assign(
        turned=covered.astype("float64").mask(rows["below_threshold"]),
        largest_change=reach,
        no_op=rows["known"] == NO_OP,
        ceiling=rows["known"] == CEILING,
    )
    keys = [*RUN, *EXAMPLE, "layer", "head", "token_role"]
    beside = [*further, *changes_of(further)]
    means = rows.groupby(keys, dropna=False, sort=False).agg(
        **{name: (name, "mean") for name in [*MEASURED, *HALVES, *beside]},
        **{name: (name, "max") for name in OF_POSITIONS},
        direction=("direction", "first"),
        no_op=("no_op", "all"),
        ceiling=("ceiling", "any"),
        positions=("layer", "size"),
    )
    means["largest_change"] *= means["direction"]
    known = np.select([means["ceiling"], means["no_op"]], [CEILING, NO_OP], "")
    kept = means.assign(known=known).reset_index()
    return kept[[*keys, "known", "positions", *QUANTITIES, *HALVES, *beside]]


def average_cells(
    effects: pd.DataFrame,
    facts: pd.DataFrame,
    controls: pd.DataFrame,
    experiment: Experiment,
    further: Sequence[str] = (),
) -> pd.DataFrame:
    """The table `cell_means`: each example's means over all cells, and what its runs say.

    effects: as `average_draws` returns them; facts: as `run_facts` does; controls: of the
    experiment; further: metrics. draws, null_draws: how many a cell has; cells: how many cells an
    example has; matched_share: the share of null states that were of the same role and place within
    it (NaN where none is there, or it is not recorded).
    """
    means = _counted(effects).groupby([*RUN, *EXAMPLE], dropna=False, sort=False).agg(
        **{name: (name, "mean") for name in [*MEASURED, *further, *changes_of(further)]},
        below_threshold=("below_threshold", "first"),
        draws=("draws", "max"),
        null_draws=("null_draws", "max"),
        cells=("layer", "size"),
    ).reset_index()  # fmt: skip
    means = means.merge(
        facts.drop(columns="noise_level"), on=["example", "level"], how="left"
    ).assign(
        layer=-1,
        head=NO_HEAD,
        token_role=ALL,
        known="",
        **dict.fromkeys([*OF_POSITIONS, *HALVES], np.nan),
    )
    nulls = controls[controls["control"] == UNRELATED]
    if "matched" not in nulls or nulls.empty:
        return means.assign(matched_share=np.nan)
    keyed = by_level(nulls, experiment.levels)
    keyed["matched"] = keyed["matched"].astype("float64")
    share = keyed.groupby(MAP, sort=False)["matched"].mean().rename("matched_share")
    return means.merge(share.reset_index(), on=MAP, how="left")


def _counted(effects: pd.DataFrame) -> pd.DataFrame:
    return effects.assign(normalised=effects["normalised"].mask(effects["below_threshold"]))


def list_excluded(effects: pd.DataFrame, rule: pd.DataFrame, corrupted: bool) -> pd.DataFrame:
    """What averages leave out, and why: the table `excluded`.

    effects: as `average_draws` returns them; rule: as `inclusion` does; corrupted: whether there
    are levels, so that the total effect of one is not that of another. One row an example (of one
    experiment, site and noise level) and reason, with the number of cells and the value that
    decided, if one did.
    """
    groups = effects.assign(without_role=effects["token_role"] == NO_ROLE).groupby(
        RUN, dropna=False, sort=False
    )
    measured = groups.agg(
        cells=("layer", "size"),
        without_role=("without_role", "sum"),
        with_null=("contrast", "count"),
        total_effect=("total_effect", "first"),
        below_threshold=("below_threshold", "first"),
        logit_range=("logit_range", "first"),
    ).reset_index()
    measured = measured.join(rule, on="example")
    small_range = ~measured[ONE_ANSWER] & (measured["logit_range"].abs() < LEAST_LOGIT_RANGE)
    parts = [
        _left_out(ONE_ANSWER, measured[measured[ONE_ANSWER]]),
        _left_out(NOT_OWN, measured[measured[NOT_OWN]]),
        _left_out(SMALL_PRIMARY, measured[measured[SMALL_PRIMARY] & corrupted], value="value"),
        _left_out(SMALL_EFFECT, measured[measured["below_threshold"]], value="total_effect"),
        _left_out(SMALL_RANGE, measured[small_range], value="logit_range"),
        _left_out(WITHOUT_ROLE, measured[measured["without_role"] > 0], rows="without_role"),
        _left_out(WITHOUT_NULL, measured[measured["with_null"] == 0]),
    ]
    return pd.concat(parts, ignore_index=True)


def _left_out(
    reason: str, runs: pd.DataFrame, rows: str = "cells", value: str | None = None
) -> pd.DataFrame:
    told = runs[value].to_numpy("float64") if value else np.nan
    return runs.drop(columns="value").assign(reason=reason, rows=runs[rows], value=told)[EXCLUDED]


def _nulls(controls: pd.DataFrame, experiment: Experiment, metric: str) -> pd.DataFrame:
    """The nulls' mean probability and tested metric by cell and draw, and the latter's halves.

    Halves are of the donors where an example has several, else of the draws. Which of the two is
    the first turns with the example's name: donors are numbered by how well they match.
    """
    nulls = controls[controls["control"] == UNRELATED]
    further = () if metric in ALWAYS else (metric,)
    scores = _scores(nulls, experiment, further=further)
    keys = [*MAP, "draw", *CELL]
    donor = (
        nulls["donor_number"].fillna(0).astype("int64").to_numpy()
        if "donor_number" in nulls
        else np.zeros(len(nulls), dtype="int64")
    )
    several = pd.Series(donor).groupby(scores["example"].to_numpy()).transform("nunique") > 1
    turn = scores["example"].map(
        {name: crc32(name.encode()) for name in scores["example"].unique()}
    )
    number = np.where(several, donor, scores["draw"]) + turn.to_numpy("int64")
    for half, name in enumerate(HALVES):
        scores[name] = scores[metric].where(number % 2 == half)
    scores = scores.assign(null_probability=scores["probability"], null_tested=scores[metric])
    means = scores.groupby(keys, sort=False)[["null_probability", "null_tested", *HALVES]].mean()
    return means.reset_index()


def _run_scores(
    runs: pd.DataFrame, run: Run, experiment: Experiment, further: Sequence[str] = ()
) -> pd.DataFrame:
    """A run's own scores, and means over its draws of those always there, by example and draw."""
    own = runs[runs["run"] == run.name]
    scores = _scores(own, experiment, run.levels, further)
    enclosing = scores["example"].map(enclosing_answers(runs))
    scores = scores.assign(third=probability_of_neither(own, enclosing))
    means = scores.groupby(["example", "level"])[[*ALWAYS, "third"]]
    return scores[["example", *VARIANT, *ALWAYS, *further]].join(
        means.transform("mean").add_prefix("mean_")
    )


def enclosing_answers(runs: pd.DataFrame) -> pd.Series:
    """The question whose followed answer the other's is or begins with, "" where neither does.

    runs: the table `runs`; indexed by example. `blue hat` is a part of what `blue` stands for.
    """
    clean = runs[runs["run"].isin(QUESTIONS)].set_index(["example", "run"])
    texts = clean["answer"].astype(str).unstack()
    alike = clean["answer_id"].unstack().nunique(axis=1) == 1
    found = []
    for base, source, begin_alike in zip(texts[BASE], texts[SOURCE], alike, strict=True):
        if base == source or (begin_alike and source.startswith(base)):
            found.append(BASE)
        else:
            found.append(SOURCE if begin_alike and base.startswith(source) else "")
    return pd.Series(found, texts.index)


def probability_of_neither(rows: pd.DataFrame, enclosing: pd.Series) -> pd.Series:
    """What is left beside p_base and p_source; enclosing, of each row: see enclosing_answers."""
    p_base, p_source = (rows[f"p_{question}"].astype("float64") for question in QUESTIONS)
    return 1 - p_base.mask(enclosing == SOURCE, 0) - p_source.mask(enclosing == BASE, 0)


def _scores(
    table: pd.DataFrame,
    experiment: Experiment,
    levels: Sequence[float] | None = None,
    further: Sequence[str] = (),
) -> pd.DataFrame:
    """The columns that say where a row belongs, and its numbers by metric, of the followed answer.

    These are `probability`, `logit_difference` and the further ones.
    """
    keyed = by_level(table, experiment.levels if levels is None else levels)
    names = ["example", "site", "noise_level", *VARIANT, *CELL, "token"]
    whole = {name: keyed[name].astype("int64") for name in CELL if name in keyed and name != "head"}
    if "layer" in keyed:
        head = keyed["head"] if "head" in keyed else pd.Series(NO_HEAD, keyed.index)
        whole["head"] = head.fillna(NO_HEAD).astype("int64")
    return keyed[[name for name in names if name in keyed]].assign(
        **whole,
        probability=keyed[f"p_{experiment.followed}"].astype("float64"),
        logit_difference=keyed["logit_base"].astype("float64")
        - keyed["logit_source"].astype("float64"),
        **{
            name: keyed[METRICS[name].column(experiment.followed)].astype("float64")
            for name in further
        },
    )


def _log(probability: pd.Series) -> pd.Series:
    return np.log(probability.clip(lower=LEAST_PROBABILITY))


def _log_odds(probability: pd.Series) -> pd.Series:
    return _log(probability) - np.log((1 - probability).clip(lower=LEAST_REST))


def show_heads(table: pd.DataFrame, experiments: Iterable[Experiment]) -> pd.DataFrame:
    """The table as a reader has it: `head` missing where there is none, and left out where no
    experiment is at a site of heads.
    """
    if not asks_heads(experiments):
        return table.drop(columns="head")
    return table.assign(head=whole_or_missing(table["head"]))


def whole_or_missing(numbers: pd.Series) -> pd.Series:
    """Whole numbers as a reader has them: missing where −1 says that there is none."""
    return numbers.where(numbers >= 0).astype("Int64")


def asks_heads(experiments: Iterable[Experiment]) -> bool:
    """Whether any of the experiments is at a site of heads."""
    return any(SITES[site].heads for experiment in experiments for site in experiment.sites)
