"""Turn a shard's measurements into effects, their means over roles, and what is left out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pandas as pd

from blip_tracing.given.provenance import merge_facts, write_facts
from blip_tracing.machinery.files import check_files
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import read_table, table_writer, write_table
from blip_tracing.meaning.effects import (
    EFFECTS,
    average_cells,
    average_draws,
    average_roles,
    classify,
    list_excluded,
    measure_cells,
)
from blip_tracing.meaning.roles import assign_roles
from blip_tracing.vocabulary.experiment import experiment_from

Cells = Mapping[str, Sequence[tuple[str, str]]]


def measure_shard(
    experiments: Mapping[str, Mapping[str, Any]], cells: Cells, runs: pd.DataFrame
) -> Iterator[pd.DataFrame]:
    """Yield measured cells, all layers of the levels that they are of, experiment by experiment.

    experiments: as `described`; cells: each one's files of cells and of controls. A job does all
    layers of some levels, whose file is in memory alone; without levels, it does some layers.
    """
    for name, described in experiments.items():
        experiment = experiment_from(described)
        parts = [[paths] for paths in cells[name]] if experiment.levels else [cells[name]]
        for files in parts:
            measured, controls = (
                pd.concat(map(read_table, paths), ignore_index=True)
                for paths in zip(*files, strict=True)
            )
            yield measure_cells(experiment, measured, controls, runs)


def main(snakemake: Any) -> None:
    """Write the shard's effects, their means and exclusions, and their facts."""
    files, output, params = snakemake.input, snakemake.output, snakemake.params
    with log_to(snakemake.log[0]):
        check_files(files.facts, sorted(set(files) - set(files.facts)))
        runs = pd.concat([read_table(path) for path in files.runs], ignore_index=True)
        roles = assign_roles(read_table(files.tokens), params.roles)
        excluded = []
        with ExitStack() as stack:
            add_effects, add_roles, add_cells = (
                stack.enter_context(table_writer(path))
                for path in (output.effects, output.role_means, output.cell_means)
            )
            for measured in measure_shard(params.experiments, params.cells, runs):
                cells = classify(measured, roles, params.total_effect)
                effects = average_draws(cells)
                add_effects(effects[EFFECTS])
                add_roles(average_roles(cells))
                add_cells(average_cells(cells))
                excluded.append(list_excluded(effects, runs))
        write_table(pd.concat(excluded), output.excluded)
        written = [output.effects, output.role_means, output.cell_means, output.excluded]
        facts = merge_facts(files.facts, written)
        rules = {"total_effect": params.total_effect, "roles": params.roles}
        write_facts({**facts, **rules}, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
