"""Average effects over examples: a mean with its interval for each layer, role and quantity.

One family (an experiment at a site and a level) is in memory at a time.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq

from blip_tracing.given.provenance import merge_facts, write_facts
from blip_tracing.machinery.files import check_files
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import read_table, table_writer, write_table
from blip_tracing.meaning.effects import QUANTITIES, by_level
from blip_tracing.meaning.statistics import max_t_test, mean_intervals
from blip_tracing.vocabulary.experiment import Run, run_from
from blip_tracing.vocabulary.roles import ALL

CELL = ["layer", "token_role"]
SUMMARY = [
    "experiment", "site", "noise_level", *CELL, "quantity", "mean", "low", "high", "examples",
    "draws", "t", "p_family", "against",
]  # fmt: skip
RUN_MEANS = ["run", "noise_level", "mean", "low", "high", "examples", "draws"]
CONTRAST = "contrast"
# An interval ends where the quantity does.
RANGES = {"probability": (0, 1), "probability_change": (-1, 1), CONTRAST: (-1, 1)}


class Family(NamedTuple):
    """What is summarized, and tested, together."""

    experiment: str
    site: str
    level: int


def families_of(paths: Sequence[str]) -> list[Family]:
    """The families that each of these tables `role_means` has, in its order."""
    first = pq.read_table(paths[0], columns=list(Family._fields)).to_pandas().drop_duplicates()
    return [Family(*row) for row in first.itertuples(index=False, name=None)]


def read_family(paths: Sequence[str], family: Family) -> pd.DataFrame:
    """The rows of one family, of all these tables."""
    chosen = pc.scalar(True)
    for key, value in family._asdict().items():
        chosen = chosen & (pc.field(key) == value)
    return pq.read_table(list(paths), filters=chosen).to_pandas()


def summarize_family(
    of_roles: pd.DataFrame, of_cells: pd.DataFrame, corrupted: bool, resamples: int, seed: int
) -> pd.DataFrame:
    """The table `summary` of one family, whatever the order of its rows.

    of_roles, of_cells: of `role_means` and `cell_means`; corrupted: whether a run is, so that the
    floor is something to test against. A row a layer and role (missing layer, role "all": the mean
    over all cells) and quantity that an example has. Where no cell has a null, contrasts of a
    corrupted experiment are those against the floor. They are tested, all layers and roles as one
    family; the mean over all cells is not.
    """
    against_floor = corrupted and bool(of_roles[CONTRAST].isna().all())
    if against_floor:
        of_roles, of_cells = (
            rows.assign(contrast=rows["probability_change"]) for rows in (of_roles, of_cells)
        )
    cells = summarize(of_roles, resamples, seed)
    whole = summarize(of_cells.assign(layer=0, token_role=ALL), resamples, seed)
    cells = cells.join(test_contrasts(of_roles, resamples, seed), on=[*CELL, "quantity"])
    summary = pd.concat([whole.assign(layer=np.nan), cells], ignore_index=True)
    summary["layer"] = summary["layer"].astype("Int64")
    contrasts = summary["quantity"] == CONTRAST
    summary["against"] = np.where(contrasts, "floor" if against_floor else "null", "")
    family = of_roles[["experiment", "site", "noise_level"]].drop_duplicates()
    return family.merge(summary[summary["examples"] > 0], how="cross").reindex(columns=SUMMARY)


def summarize(rows: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Means with intervals: layer, token_role, quantity, mean, low, high, examples, draws."""
    values, cells = arrange(rows)
    summary = cells.merge(pd.Series(QUANTITIES, name="quantity"), how="cross")
    flat = values.reshape(*values.shape[:2], -1)
    summary = summary.join(mean_intervals(flat, resamples, seed))
    for quantity, limits in RANGES.items():
        chosen = summary["quantity"] == quantity
        summary.loc[chosen, ["low", "high"]] = summary.loc[chosen, ["low", "high"]].clip(*limits)
    return summary


def test_contrasts(rows: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """The family's test: t and p_family by layer, token_role and quantity (the contrast)."""
    values, cells = arrange(rows)
    contrast = values[..., QUANTITIES.index(CONTRAST)]
    test = max_t_test(mean_of_draws(contrast), resamples, seed)
    tested = cells.assign(quantity=CONTRAST, t=test.t, p_family=test.p)
    return tested.set_index([*CELL, "quantity"])


def arrange(rows: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    """The quantities as an array (examples, draws, cells, quantities), and the cells' names.

    Everything is sorted by name, so that resamples do not depend on the order of rows.
    """
    example, examples = pd.factorize(rows["example"], sort=True)
    draw, draws = pd.factorize(rows["draw"], sort=True)
    cell, cells = pd.factorize(pd.MultiIndex.from_frame(rows[CELL]), sort=True)
    values = np.full((len(examples), len(draws), len(cells), len(QUANTITIES)), np.nan)
    values[example, draw, cell] = rows[QUANTITIES]
    return values, cells.set_names(CELL).to_frame(index=False)


def mean_of_draws(values: np.ndarray) -> np.ndarray:
    """Means (examples, cells) over the draws that have a value; NaN where none has."""
    counts = (~np.isnan(values)).sum(axis=1)
    return np.nansum(values, axis=1) / np.where(counts, counts, np.nan)


def average_run(runs: pd.DataFrame, run: Run, resamples: int, seed: int) -> pd.DataFrame:
    """The table `run_means` of one run: mean p(base answer), level by level.

    runs: the table `runs`.
    """
    rows = by_level(runs[runs["run"] == run.name], run.levels)
    parts = []
    for _, level in rows.groupby("level"):
        by_draw = level.pivot(index="example", columns="draw", values="p_base").sort_index()
        means = mean_intervals(by_draw.to_numpy("float64")[..., None], resamples, seed)
        means[["low", "high"]] = means[["low", "high"]].clip(0, 1)
        parts.append(means.assign(run=run.name, noise_level=level["noise_level"].to_numpy()[0]))
    return pd.concat(parts, ignore_index=True)[RUN_MEANS]


def main(snakemake: Any) -> None:
    """Write the summary of all shards, family by family, the runs' means, and their facts."""
    files, output, params = snakemake.input, snakemake.output, snakemake.params
    numbers = params.resamples, params.seed
    with log_to(snakemake.log[0]):
        means = [*files.role_means, *files.cell_means]
        check_files(files.facts, [*means, *files.runs])
        with table_writer(output.summary) as append:
            for family in families_of(files.role_means):
                of_roles, of_cells = (
                    read_family(paths, family) for paths in (files.role_means, files.cell_means)
                )
                corrupted = params.corrupted[family.experiment]
                append(summarize_family(of_roles, of_cells, corrupted, *numbers))
        runs = pd.concat([read_table(path) for path in files.runs], ignore_index=True)
        averaged = [average_run(runs, run_from(run), *numbers) for run in params.runs]
        # Without a corrupted run none is averaged.
        empty = pd.DataFrame(columns=RUN_MEANS)
        whole = pd.concat(averaged, ignore_index=True) if averaged else empty
        write_table(whole, output.run_means)
        facts = merge_facts(files.facts, [output.summary, output.run_means])
        given = {"resamples": params.resamples, "seed": params.seed}
        write_facts({**facts, **given}, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
