"""Effects: what an intervention changes against its reference, cell by cell and role by role.

The answer that is followed is that of the donor's question. The reference is the receiver's own
run, into which nothing was put (of the same level and draw where it is corrupted: the floor); the
target is the donor's own run, to which the intervention leads. The null is the same intervention
with an unrelated example's states. LD is the logit of the base answer minus the source answer's.

A cell is a layer and a position, of a level and a draw: whole numbers, 0 and 0 where nothing is
corrupted.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from blip_tracing.vocabulary.experiment import Experiment, Run
from blip_tracing.vocabulary.roles import NO_ROLE
from blip_tracing.vocabulary.tables import (
    NULL,
    ONE_ANSWER,
    SMALL_EFFECT,
    SMALL_RANGE,
    WITHOUT_NULL,
    WITHOUT_ROLE,
)

# A probability of 0 has no logarithm; less than this float32 does not hold at full precision.
LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)
# In logits; a share of less than this would tell of rounding rather than of effects.
LEAST_LOGIT_RANGE = 0.1

VARIANT = ["level", "draw"]
CELL = ["layer", "position"]
# What is measured of one example at one level; the noise level goes with it, to be shown.
RUN = ["experiment", "example", "site", "level", "noise_level"]
QUANTITIES = [
    "probability", "probability_change", "log_probability_change", "logit_difference",
    "normalised", "contrast",
]  # fmt: skip
EFFECTS = [
    "experiment", "example", "site", "noise_level", *CELL, "token", "token_role",
    "probability_change", "log_probability_change", "logit_difference", "normalised",
    "total_effect", "below_threshold", "null_change", "contrast",
]  # fmt: skip
EXCLUDED = ["example", "experiment", "site", "noise_level", "rows", "reason", "value"]


def measure_cells(
    experiment: Experiment, cells: pd.DataFrame, controls: pd.DataFrame, runs: pd.DataFrame
) -> pd.DataFrame:
    """Compare each draw of each cell with its reference, its target and its null.

    cells, controls, runs: the experiment's table, `controls` and `runs`, of the same examples; of
    the controls the null's rows count, and an example, or a draw, may have none. Returns the
    cells, a row as they have it, by level and draw, with
    probability: of the followed answer; logit_difference: LD;
    probability_change: from the reference; log_probability_change: the same of its logarithm;
    total_effect: the target's probability minus the reference's, each the mean over its draws;
    direction: 1 where that is to be above zero, −1 where below;
    logit_range: the same of LD;
    normalised: the share (LD - LD of the reference) / logit_range, NaN where the range is less
    than 0.1 logits, which is little beside the rounding of what is divided by it;
    null_change: the null's probability_change; contrast: the probability minus the null's; both
    NaN where a draw has no null.
    """
    nulls = controls[controls["control"] == NULL]
    table = _scores(cells, experiment).assign(experiment=experiment.name)
    for end, run in (("reference", experiment.receiver), ("target", experiment.donor)):
        table = table.merge(
            _run_scores(runs, run, experiment).add_prefix(f"{end}_"),
            left_on=["example", *(VARIANT if run.corruption else [])],
            right_on=[f"{end}_{key}" for key in ["example", *(VARIANT if run.corruption else [])]],
            how="left",
            validate="many_to_one",
        )
    null = _scores(nulls, experiment)[["example", "site", *VARIANT, *CELL, "probability"]]
    table = table.merge(
        null.rename(columns={"probability": "null_probability"}),
        on=["example", "site", *VARIANT, *CELL],
        how="left",
        validate="many_to_one",
    )
    before = table["reference_probability"]
    logit_range = table["target_mean_logit_difference"] - table["reference_mean_logit_difference"]
    moved = table["logit_difference"] - table["reference_logit_difference"]
    return table.assign(
        probability_change=table["probability"] - before,
        log_probability_change=_log(table["probability"]) - _log(before),
        total_effect=table["target_mean_probability"] - table["reference_mean_probability"],
        direction=experiment.direction,
        logit_range=logit_range,
        normalised=moved / logit_range.where(logit_range.abs() >= LEAST_LOGIT_RANGE),
        null_change=table["null_probability"] - before,
        contrast=table["probability"] - table["null_probability"],
    )


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


def classify(cells: pd.DataFrame, roles: pd.DataFrame, total_effect: float) -> pd.DataFrame:
    """The cells with the role of their token and whether their example's effect is too small.

    roles: example, position, token_role; total_effect: the least, in probability and in the
    experiment's direction, with which an example counts in normalised averages.
    """
    table = cells.merge(roles, on=["example", "position"], how="left", validate="many_to_one")
    towards = table["direction"] * table["total_effect"]
    return table.assign(below_threshold=towards < total_effect)


def average_draws(cells: pd.DataFrame) -> pd.DataFrame:
    """The effects: one row a cell, means over its draws (over those with a null, of the null's).

    cells: classified. Columns: those of the table `effects`, level and logit_range.
    """
    averaged = ["probability_change", "log_probability_change", "logit_difference", "normalised",
                "null_change", "contrast"]  # fmt: skip
    shared = ["total_effect", "below_threshold", "logit_range"]
    groups = cells.groupby([*RUN, *CELL, "token", "token_role"], dropna=False, sort=False)
    effects = groups.agg(dict.fromkeys(averaged, "mean") | dict.fromkeys(shared, "first"))
    return effects.reset_index()[[*EFFECTS, "level", "logit_range"]]


def average_roles(cells: pd.DataFrame) -> pd.DataFrame:
    """The table `role_means`: each draw's means over the positions of a role, layer by layer.

    cells: classified. Of an example below the threshold no normalised value is there.
    """
    with_role = _counted(cells[cells["token_role"] != NO_ROLE])
    return _means(with_role, [*RUN, "draw", "layer", "token_role"])


def average_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """The table `cell_means`: each draw's means over all cells, those of no role included."""
    return _means(_counted(cells), [*RUN, "draw"])


def _counted(cells: pd.DataFrame) -> pd.DataFrame:
    return cells.assign(normalised=cells["normalised"].mask(cells["below_threshold"]))


def _means(cells: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    return cells.groupby(keys, dropna=False, sort=False)[QUANTITIES].mean().reset_index()


def list_excluded(effects: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """What averages leave out, and why: the table `excluded`.

    effects: as `average_draws` returns them. One row an example (of one experiment, site and
    noise level) and reason, with the number of cells and the value that decided, if one did.
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
    one_answer = measured["example"].isin(_with_one_answer(runs))
    small_range = ~one_answer & (measured["logit_range"].abs() < LEAST_LOGIT_RANGE)
    parts = [
        _left_out(SMALL_EFFECT, measured[measured["below_threshold"]], value="total_effect"),
        _left_out(ONE_ANSWER, measured[one_answer]),
        _left_out(SMALL_RANGE, measured[small_range], value="logit_range"),
        _left_out(WITHOUT_ROLE, measured[measured["without_role"] > 0], rows="without_role"),
        _left_out(WITHOUT_NULL, measured[measured["with_null"] == 0]),
    ]
    return pd.concat(parts, ignore_index=True)


def _left_out(
    reason: str, runs: pd.DataFrame, rows: str = "cells", value: str | None = None
) -> pd.DataFrame:
    return runs.assign(reason=reason, rows=runs[rows], value=runs[value] if value else np.nan)[
        EXCLUDED
    ]


def _with_one_answer(runs: pd.DataFrame) -> pd.Index:
    distinct = runs.groupby("example")["answer_id"].nunique()
    return distinct.index[distinct == 1]


def _run_scores(runs: pd.DataFrame, run: Run, experiment: Experiment) -> pd.DataFrame:
    """A run's own scores, and their means over its draws: a row an example, level and draw."""
    scores = _scores(runs[runs["run"] == run.name], experiment, run.levels)
    means = scores.groupby(["example", "level"])[["probability", "logit_difference"]]
    return scores[["example", *VARIANT, "probability", "logit_difference"]].join(
        means.transform("mean").add_prefix("mean_")
    )


def _scores(
    table: pd.DataFrame, experiment: Experiment, levels: Sequence[float] | None = None
) -> pd.DataFrame:
    """The columns that say where a row belongs, and its `probability` and `logit_difference`."""
    keyed = by_level(table, experiment.levels if levels is None else levels)
    names = ["example", "site", "noise_level", *VARIANT, *CELL, "token"]
    whole = {name: keyed[name].astype("int64") for name in CELL if name in keyed}
    return keyed[[name for name in names if name in keyed]].assign(
        **whole,
        probability=keyed[f"p_{experiment.followed}"].astype("float64"),
        logit_difference=keyed["logit_base"].astype("float64")
        - keyed["logit_source"].astype("float64"),
    )


def _log(probability: pd.Series) -> pd.Series:
    return np.log(probability.clip(lower=LEAST_PROBABILITY))
