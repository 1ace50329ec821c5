"""Made-up effects by example, of which the truth is known, for the tests of analyses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from blip_tracing.meaning.evidence import Evidence
from blip_tracing.meaning.summary import Rules
from blip_tracing.vocabulary.experiment import Experiment

RULES = Rules(total_effect=0.05, least_effect=0.02, resamples=400, seed=0)
CHANGES = ("probability_change", "log_odds_change", "logit_difference_change", "normalised")


def role_means(
    experiment: Experiment,
    changes: np.ndarray | Mapping[str, np.ndarray],
    roles: Sequence[str],
    pictures: Sequence[str] | None = None,
    **told: Any,
) -> pd.DataFrame:
    """The table `role_means` of an experiment at its first site and level.

    changes: (N, layers, roles), of all quantities or by name, NaN where an example lacks a role;
    the null changes nothing. told: other columns, each a value or an array of that shape.
    """
    by_name = changes if isinstance(changes, Mapping) else dict.fromkeys(CHANGES, changes)
    shape = by_name[CHANGES[0]].shape
    example, layer, role = (of.ravel().tolist() for of in np.indices(shape))
    rows = pd.DataFrame(
        {
            "experiment": experiment.name,
            "example": [f"e{number:03d}" for number in example],
            "site": experiment.sites[0],
            "level": 0,
            "noise_level": experiment.levels[0] if experiment.levels else np.nan,
            "picture": [pictures[n] if pictures else f"p{n:03d}" for n in example],
            "group": "all",
            "included": True,
            "layer": layer,
            "head": -1,
            "token_role": [roles[number] for number in role],
            "known": "",
            "positions": 1,
            **{name: values.ravel() for name, values in by_name.items()},
            "contrast": by_name[CHANGES[0]].ravel(),
        }
    )
    rows = rows.assign(
        **{name: np.broadcast_to(np.asarray(value), shape).ravel() for name, value in told.items()}
    )
    return rows[rows[CHANGES[0]].notna()]


def evidence_of(
    folder: Path,
    tables: Sequence[pd.DataFrame],
    experiments: Sequence[Experiment],
    settings: Mapping[str, Any],
    missing: int = 0,
) -> Evidence:
    """What an analysis reads, written to files; missing: cells of each example without a role."""
    whole = pd.concat(tables, ignore_index=True)
    keys = ["experiment", "example", "site", "level"]
    cells = whole.groupby(keys)["positions"].sum().rename("cells").reset_index()
    for name, table in (("roles", whole), ("cells", cells.assign(cells=cells["cells"] + missing))):
        table.to_parquet(folder / f"{name}.parquet", index=False)
    return Evidence(
        settings=settings,
        experiments={experiment.name: experiment for experiment in experiments},
        primary={experiment.name: 0 for experiment in experiments},
        rules=RULES,
        role_means=[str(folder / "roles.parquet")],
        cell_means=[str(folder / "cells.parquet")],
        runs=pd.DataFrame(),
    )
