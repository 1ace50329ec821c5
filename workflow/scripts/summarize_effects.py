"""Average effects over examples: a mean with its interval for each layer, role and quantity.

One family (an experiment at a site and a noise level) is in memory at a time.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq

from blip_tracing.effects import ALL_LAYERS, QUANTITIES, TRACING
from blip_tracing.files import check_files
from blip_tracing.logs import log_to
from blip_tracing.provenance import merge_facts, write_facts
from blip_tracing.statistics import max_t_test, mean_intervals
from blip_tracing.tables import table_writer

FAMILY = ["experiment", "site", "noise_level"]
SUMMARY = [
    *FAMILY, "layer", "role", "quantity", "mean", "low", "high", "examples", "draws",
    "t", "p_family", "against",
]  # fmt: skip
CONTRAST = "contrast"
# An interval ends where the quantity does.
RANGES = {"probability": (0, 1), "probability_change": (-1, 1), CONTRAST: (-1, 1)}


def families_of(paths: Sequence[str]) -> list[tuple[str, str, float]]:
    """The families (experiment, site, noise level) that each of these tables `role_means` has."""
    first = pq.read_table(paths[0], columns=FAMILY).to_pandas().drop_duplicates()
    return list(first.itertuples(index=False, name=None))


def read_family(
    paths: Sequence[str], experiment: str, site: str, noise_level: float
) -> pd.DataFrame:
    """The rows of one family, of all tables `role_means`; noise level NaN for a patch."""
    level = pc.field("noise_level")
    chosen = (
        (pc.field("experiment") == experiment)
        & (pc.field("site") == site)
        & (level.is_null() if np.isnan(noise_level) else level == noise_level)
    )
    return pq.read_table(list(paths), filters=chosen).to_pandas()


def summarize_family(rows: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """The table `summary` of one family, whatever the order of its rows.

    rows: of `role_means`. A row a layer (missing: the mean over all cells), role and quantity
    that an example has. Where no trace has a null, contrasts are those against the floor. They
    are tested, all layers and roles as one family; the mean over all cells is not.
    """
    traced_without_null = rows["experiment"].iat[0] == TRACING and rows[CONTRAST].isna().all()
    if traced_without_null:
        rows = rows.assign(contrast=rows["probability_change"])
    values, cells = arrange(rows)
    summary = cells.merge(pd.Series(QUANTITIES, name="quantity"), how="cross")
    flat = values.reshape(*values.shape[:2], -1)
    summary = summary.join(mean_intervals(flat, resamples, seed))
    for quantity, limits in RANGES.items():
        chosen = summary["quantity"] == quantity
        summary.loc[chosen, ["low", "high"]] = summary.loc[chosen, ["low", "high"]].clip(*limits)
    contrasts = summary["quantity"] == CONTRAST
    tested = contrasts & (summary["layer"] != ALL_LAYERS)
    test = max_t_test(mean_of_draws(flat[:, :, tested]), resamples, seed)
    summary.loc[tested, "t"], summary.loc[tested, "p_family"] = test
    summary["against"] = np.where(contrasts, "floor" if traced_without_null else "null", "")
    layer = summary["layer"].astype("Int64")
    summary["layer"] = layer.mask(layer == ALL_LAYERS)
    family = rows[FAMILY].drop_duplicates()
    return family.merge(summary[summary["examples"] > 0], how="cross")[SUMMARY]


def arrange(rows: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    """The quantities as an array (examples, draws, cells, quantities), and the cells' names.

    Everything is sorted by name, so that resamples do not depend on the order of rows.
    """
    example, examples = pd.factorize(rows["example"], sort=True)
    draw, draws = pd.factorize(rows["sample"], sort=True)
    cell, cells = pd.factorize(pd.MultiIndex.from_frame(rows[["layer", "role"]]), sort=True)
    values = np.full((len(examples), len(draws), len(cells), len(QUANTITIES)), np.nan)
    values[example, draw, cell] = rows[QUANTITIES]
    return values, cells.set_names(["layer", "role"]).to_frame(index=False)


def mean_of_draws(values: np.ndarray) -> np.ndarray:
    """Means (examples, cells) over the draws that have a value; NaN where none has."""
    counts = (~np.isnan(values)).sum(axis=1)
    return np.nansum(values, axis=1) / np.where(counts, counts, np.nan)


def main(snakemake: Any) -> None:
    """Write the summary of all shards, family by family, and its facts."""
    files, output, params = snakemake.input, snakemake.output, snakemake.params
    with log_to(snakemake.log[0]):
        check_files(files.facts, files.role_means)
        with table_writer(output.summary) as append:
            for family in families_of(files.role_means):
                rows = read_family(files.role_means, *family)
                append(summarize_family(rows, params.resamples, params.seed))
        facts = merge_facts(files.facts, [output.summary])
        write_facts({**facts, "resamples": params.resamples, "seed": params.seed}, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
