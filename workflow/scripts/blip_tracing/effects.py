"""Effects: what an intervention changes against its reference, cell by cell and role by role.

The answer that is followed is the source answer where the base run is patched and the base answer
where it is traced. The reference is the run into which nothing was put: the clean base run, or
the corrupted run of the same noise draw (the floor). The target is the run towards which the
intervention leads: the clean source run, or the clean base run. The null is the same intervention
with an unrelated example's state. LD is the logit of the base answer minus the source answer's.

A cell is a layer and a position; traced, it is measured once a noise draw (`sample`). A patch has
no draw: its sample is -1 and its noise level NaN.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from blip_tracing.roles import ALL, NO_ROLE

PATCHING, TRACING, FLOOR, CLEAN = "patching", "tracing", "floor", "clean"
ALL_LAYERS = -1
WITHOUT_DRAW = {"noise_level": np.nan, "sample": -1}

# A probability of 0 has no logarithm; less than this float32 does not hold at full precision.
LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)
# In logits; a share of less than this would tell of rounding rather than of effects.
LEAST_LOGIT_RANGE = 0.1

RUN = ["experiment", "example", "site", "noise_level"]
DRAW = ["example", "noise_level", "sample"]
CELL = ["layer", "position"]
QUANTITIES = [
    "probability", "probability_change", "log_probability_change", "logit_difference",
    "normalised", "contrast",
]  # fmt: skip
EFFECTS = [
    *RUN, *CELL, "token", "role", "probability_change", "log_probability_change",
    "logit_difference", "normalised", "total_effect", "below_threshold", "null_change", "contrast",
]  # fmt: skip
ROLE_MEANS = [*RUN, "sample", "layer", "role", *QUANTITIES]
EXCLUDED = ["example", "experiment", "site", "noise_level", "rows", "reason", "value"]

SMALL_EFFECT = "total effect below the threshold"
ONE_ANSWER = "both questions have one answer"
SMALL_RANGE = "logit differences of reference and target too close"
WITHOUT_ROLE = "no role"
WITHOUT_NULL = "no unrelated example"
REASONS = [SMALL_EFFECT, ONE_ANSWER, SMALL_RANGE, WITHOUT_ROLE, WITHOUT_NULL]


def patching_cells(
    patching: pd.DataFrame, controls: pd.DataFrame, answers: pd.DataFrame
) -> pd.DataFrame:
    """Measure each patch: the columns of `measure_cells`.

    patching, controls, answers: those tables of the same examples; of the controls the null's
    rows count, and an example may have none.
    """
    return measure_cells(
        PATCHING,
        _scores(patching.assign(**WITHOUT_DRAW), "source"),
        _clean_runs(answers, "base", "source").assign(**WITHOUT_DRAW),
        _clean_runs(answers, "source", "source"),
        _null(controls.assign(**WITHOUT_DRAW), "source"),
    )


def tracing_cells(
    tracing: pd.DataFrame, floor: pd.DataFrame, controls: pd.DataFrame, answers: pd.DataFrame
) -> pd.DataFrame:
    """Measure each draw of each traced cell: the columns of `measure_cells`.

    tracing, floor, controls, answers: those tables of the same examples, the floor at least at
    the traced noise levels; of the controls the null's rows count, and an example, or a draw, may
    have none.
    """
    return measure_cells(
        TRACING,
        _scores(tracing, "base"),
        _scores(floor, "base"),
        _clean_runs(answers, "base", "base"),
        _null(controls, "base"),
    )


def measure_cells(
    experiment: str,
    cells: pd.DataFrame,
    reference: pd.DataFrame,
    target: pd.DataFrame,
    null: pd.DataFrame,
) -> pd.DataFrame:
    """Compare each draw of each cell with its reference, its target and its null.

    All tables hold `probability` (of the answer that is followed) and `logit_difference` (LD), of:
    cells: each draw of each cell, with site and token; reference: each draw; target: each example;
    null: draws of cells. Returns the cells, a row as they have it, with
    probability_change: from the reference; log_probability_change: the same of its logarithm;
    total_effect: the target's probability minus the reference's, the mean over draws;
    logit_range: the same of LD;
    normalised: the share (LD - LD of the reference) / logit_range, NaN where the range is less
    than 0.1 logits, which is little beside the rounding of what is divided by it;
    null_change: the null's probability_change; contrast: the probability minus the null's; both
    NaN where a draw has no null.
    """
    reference = reference.rename(columns=_prefixed("reference"))
    draws = reference.groupby(["example", "noise_level"], dropna=False)
    for score in ("probability", "logit_difference"):
        reference[f"mean_{score}"] = draws[f"reference_{score}"].transform("mean")
    table = (
        cells.assign(experiment=experiment)
        .merge(reference, on=DRAW, how="left", validate="many_to_one")
        .merge(
            target.rename(columns=_prefixed("target")),
            on="example",
            how="left",
            validate="many_to_one",
        )
        .merge(
            null.rename(columns=_prefixed("null")),
            on=["site", *DRAW, *CELL],
            how="left",
            validate="many_to_one",
        )
    )
    before = table["reference_probability"]
    logit_range = table["target_logit_difference"] - table["mean_logit_difference"]
    moved = table["logit_difference"] - table["reference_logit_difference"]
    return table.assign(
        probability_change=table["probability"] - before,
        log_probability_change=_log(table["probability"]) - _log(before),
        total_effect=table["target_probability"] - table["mean_probability"],
        logit_range=logit_range,
        normalised=moved / logit_range.where(logit_range.abs() >= LEAST_LOGIT_RANGE),
        null_change=table["null_probability"] - before,
        contrast=table["probability"] - table["null_probability"],
    )


def classify(cells: pd.DataFrame, roles: pd.DataFrame, total_effect: float) -> pd.DataFrame:
    """The cells with the role of their token and whether their example's effect is too small.

    roles: example, position, role; total_effect: the least, in probability, with which an
    example counts in normalised averages.
    """
    table = cells.merge(roles, on=["example", "position"], how="left", validate="many_to_one")
    return table.assign(below_threshold=table["total_effect"] < total_effect)


def average_draws(cells: pd.DataFrame) -> pd.DataFrame:
    """The effects: one row a cell, means over its draws (over those with a null, of the null's).

    cells: classified. Columns: those of the table `effects`, and logit_range.
    """
    averaged = ["probability_change", "log_probability_change", "logit_difference", "normalised",
                "null_change", "contrast"]  # fmt: skip
    shared = ["total_effect", "below_threshold", "logit_range"]
    groups = cells.groupby([*RUN, *CELL, "token", "role"], dropna=False, sort=False)
    effects = groups.agg(dict.fromkeys(averaged, "mean") | dict.fromkeys(shared, "first"))
    return effects.reset_index()[[*EFFECTS, "logit_range"]]


def average_roles(cells: pd.DataFrame) -> pd.DataFrame:
    """The table `role_means`: each draw's means over the positions of a role, layer by layer.

    cells: classified. Role "all" of layer -1 is the mean over all cells, those of no role
    included. Of an example below the threshold no normalised value is there.
    """
    counted = cells.assign(normalised=cells["normalised"].mask(cells["below_threshold"]))
    draw = [*RUN, "sample"]
    of_a_role = counted[counted["role"] != NO_ROLE]
    means = [
        part.groupby(keys, dropna=False, sort=False)[QUANTITIES].mean().reset_index()
        for part, keys in ((of_a_role, [*draw, "layer", "role"]), (counted, draw))
    ]
    means[1] = means[1].assign(layer=ALL_LAYERS, role=ALL)
    return pd.concat([part[ROLE_MEANS] for part in means], ignore_index=True)


def list_runs(answers: pd.DataFrame, floors: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The runs without intervention as rows of `role_means`: p(base answer), and nothing else.

    Experiment "clean": the base run of each example; "floor": each corrupted run.
    """
    clean = answers.loc[answers["role"] == "base", ["example", "p_base"]]
    runs = [clean.assign(experiment=CLEAN, **WITHOUT_DRAW)]
    runs += [floor[[*DRAW, "p_base"]].assign(experiment=FLOOR) for floor in floors]
    return (
        pd.concat(runs, ignore_index=True)
        .rename(columns={"p_base": "probability"})
        .assign(site="", layer=ALL_LAYERS, role=ALL)
        .reindex(columns=ROLE_MEANS)
        .astype(dict.fromkeys(QUANTITIES, "float64"))
    )


def list_excluded(effects: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """What averages leave out, and why: the table `excluded`.

    effects: as `average_draws` returns them. One row an example (of one experiment, site and
    noise level) and reason, with the number of cells and the value that decided, if one did.
    """
    groups = effects.assign(without_role=effects["role"] == NO_ROLE).groupby(
        RUN, dropna=False, sort=False
    )
    runs = groups.agg(
        cells=("layer", "size"),
        without_role=("without_role", "sum"),
        with_null=("contrast", "count"),
        total_effect=("total_effect", "first"),
        below_threshold=("below_threshold", "first"),
        logit_range=("logit_range", "first"),
    ).reset_index()
    one_answer = runs["example"].isin(_with_one_answer(answers))
    small_range = ~one_answer & (runs["logit_range"].abs() < LEAST_LOGIT_RANGE)
    parts = [
        _left_out(SMALL_EFFECT, runs[runs["below_threshold"]], value="total_effect"),
        _left_out(ONE_ANSWER, runs[one_answer]),
        _left_out(SMALL_RANGE, runs[small_range], value="logit_range"),
        _left_out(WITHOUT_ROLE, runs[runs["without_role"] > 0], rows="without_role"),
        _left_out(WITHOUT_NULL, runs[runs["with_null"] == 0]),
    ]
    return pd.concat(parts, ignore_index=True)


def join_excluded(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables `excluded` as one, reason after reason, so that no grouping into parts shows."""
    return pd.concat(parts, ignore_index=True).sort_values(
        "reason", key=lambda reasons: reasons.map(REASONS.index), kind="stable", ignore_index=True
    )


def _left_out(
    reason: str, runs: pd.DataFrame, rows: str = "cells", value: str | None = None
) -> pd.DataFrame:
    return runs.assign(reason=reason, rows=runs[rows], value=runs[value] if value else np.nan)[
        EXCLUDED
    ]


def _with_one_answer(answers: pd.DataFrame) -> pd.Index:
    distinct = answers.groupby("example")["answer_id"].nunique()
    return distinct.index[distinct == 1]


def _clean_runs(answers: pd.DataFrame, role: str, followed: str) -> pd.DataFrame:
    """How the clean run of each example's base or source question scores: one row an example."""
    return _scores(answers[answers["role"] == role], followed)


def _null(controls: pd.DataFrame, followed: str) -> pd.DataFrame:
    return _scores(controls[controls["control"] == "null"], followed)


def _scores(table: pd.DataFrame, followed: str) -> pd.DataFrame:
    """The columns that say where a row belongs, and its `probability` and `logit_difference`.

    followed: the question, base or source, whose answer's probability it is.
    """
    whole = [name for name in ("sample", *CELL) if name in table]
    return (
        table[[name for name in ("example", "site", "noise_level", "token") if name in table]]
        .assign(**{name: table[name].astype("int64") for name in whole})
        .assign(
            probability=table[f"p_{followed}"].astype("float64"),
            logit_difference=table["logit_base"].astype("float64")
            - table["logit_source"].astype("float64"),
        )
    )


def _prefixed(prefix: str) -> dict[str, str]:
    return {name: f"{prefix}_{name}" for name in ("probability", "logit_difference")}


def _log(probability: pd.Series) -> pd.Series:
    return np.log(probability.clip(lower=LEAST_PROBABILITY))
