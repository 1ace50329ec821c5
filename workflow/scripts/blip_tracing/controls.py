"""Controls beside the results: runs whose outcome is known, and the null of an unrelated example.

A control that misses its outcome stops the job: none of its numbers could be trusted.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from blip_tracing.errors import MeasurementError
from blip_tracing.experiments import Control, Scores
from blip_tracing.tables import cells_table

NO_OP = "no_op"
# Both sides of a no-op go through the same arithmetic.
NO_OP_TOLERANCE = 1e-6
# A run resumed in another batch is rounded differently (seen at BLIP-base's size, float32 on a CPU:
# 5e-6; a fault such as a third of the width is thousands of times as far off), and bfloat16 keeps
# two to three digits.
TOLERANCE = {"float64": 1e-6, "float32": 1e-4, "bfloat16": 0.1}

COLUMNS = (
    "experiment", "example", "control", "donor", "site", "noise_level", "sample", "layer",
    "position", "p_base", "p_source", "logit_base", "logit_source", "difference", "tolerance",
    "effect",
)  # fmt: skip
TYPES = {
    **dict.fromkeys(("noise_level", "tolerance"), "float64"),
    **dict.fromkeys(("difference", "effect"), "float32"),
    **dict.fromkeys(("sample", "layer", "position"), "Int32"),
}


def score_columns(scores: Scores) -> dict[str, np.ndarray]:
    """Scores (…, 2) of the base and the source answer as a table's columns of arrays (…)."""
    return {
        "p_base": scores.probability[..., 0].numpy(),
        "logit_base": scores.logit[..., 0].numpy(),
        "p_source": scores.probability[..., 1].numpy(),
        "logit_source": scores.logit[..., 1].numpy(),
    }


def control_rows(
    experiment: str,
    name: str,
    site: str,
    axes: dict[str, list],
    control: Control,
    tolerance: float = np.nan,
    donors: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """A control's part of the table, its columns COLUMNS; what does not apply is missing.

    axes: name → labels, "example" first, in the order of the control's dimensions; tolerance: of
    the difference; donors: example → the example whose state was brought; each its own, unless
    given.
    """
    values = {"difference": control.difference.numpy(), "effect": control.effect.numpy()}
    rows = cells_table(axes, {**score_columns(control.scores), **values})
    rows["donor"] = rows["example"].map(donors) if donors else rows["example"]
    rows = rows.assign(experiment=experiment, control=name, site=site, tolerance=tolerance)
    return rows.reindex(columns=list(COLUMNS)).astype(TYPES)


def known_outcomes(
    experiment: str, site: str, axes: dict[str, list], controls: Mapping[str, Control], dtype: str
) -> list[pd.DataFrame]:
    """Check the controls whose outcome is known, by name, and give each one's part of the table.

    Raises MeasurementError when one misses its outcome by more than the model's `dtype` explains.
    """
    tables = []
    for name, control in controls.items():
        tolerance = NO_OP_TOLERANCE if name == NO_OP else TOLERANCE[dtype]
        check_control(control, name, axes, site, tolerance)
        tables.append(control_rows(experiment, name, site, axes, control, tolerance))
    return tables


def null_control(scores: Scores) -> Control:
    """The null: no outcome is known before, so difference and effect are missing (NaN)."""
    missing = torch.full(scores.probability.shape[:-1], torch.nan)
    return Control(scores, missing, missing)


def check_control(
    control: Control, name: str, axes: dict[str, list], site: str, tolerance: float
) -> None:
    """Check a control whose dimensions are the axes, "example" first.

    Raises MeasurementError that names example, layer and the difference when it is beyond the
    tolerance (in probability) or is not a number.
    """
    failed = ~(control.difference <= tolerance)
    if not failed.any():
        return
    first = tuple(failed.nonzero()[0].tolist())
    place = {axis: labels[index] for (axis, labels), index in zip(axes.items(), first, strict=True)}
    level = f", σ = {place['noise_level']:g}" if "noise_level" in place else ""
    raise MeasurementError(
        f"example {place['example']!r}, {site} layer {place['layer']}{level}: the control {name} "
        f"is {float(control.difference[first]):.2g} in probability from its known outcome "
        f"(at most {tolerance:g}); the results of this job would be wrong"
    )
