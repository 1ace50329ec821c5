"""Turn a shard's measurements into effects, their means over roles, and what is left out."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from blip_tracing.effects import (
    EFFECTS,
    average_draws,
    average_roles,
    classify,
    join_excluded,
    list_excluded,
    list_runs,
    patching_cells,
    tracing_cells,
)
from blip_tracing.files import check_files
from blip_tracing.logs import log_to
from blip_tracing.provenance import merge_facts, write_facts
from blip_tracing.roles import assign_roles
from blip_tracing.tables import read_table, table_writer, write_table


def measure_shard(
    files: Any, answers: pd.DataFrame, floors: Sequence[pd.DataFrame]
) -> Iterator[pd.DataFrame]:
    """Yield the cells of all patches, then those of one file of traces after the other.

    files: the job's inputs `patching` and `tracing`, and `patching_controls` and
    `tracing_controls` in the same order, none where there was no such experiment; floors: the
    tables `floor` of all noise levels. One file of traces is in memory at a time.
    """
    if files.patching:
        patches, controls = (
            pd.concat([read_table(path) for path in paths])
            for paths in (files.patching, files.patching_controls)
        )
        yield patching_cells(patches, controls, answers)
    for paths in zip(files.tracing, files.tracing_controls, strict=True):
        traces, controls = map(read_table, paths)
        yield tracing_cells(traces, pd.concat(floors), controls, answers)


def main(snakemake: Any) -> None:
    """Write the shard's effects, role means and exclusions, and their facts."""
    files, output, params = snakemake.input, snakemake.output, snakemake.params
    with log_to(snakemake.log[0]):
        check_files(files.facts, sorted(set(files) - set(files.facts)))
        answers = read_table(files.answers)
        floors = [read_table(path) for path in files.floor]
        roles = assign_roles(read_table(files.tokens), params.roles)
        excluded = []
        with (
            table_writer(output.effects) as add_effects,
            table_writer(output.role_means) as add_means,
        ):
            add_means(list_runs(answers, floors))
            for measured in measure_shard(files, answers, floors):
                cells = classify(measured, roles, params.total_effect)
                effects = average_draws(cells)
                add_effects(effects[EFFECTS])
                add_means(average_roles(cells))
                excluded.append(list_excluded(effects, answers))
        write_table(join_excluded(excluded), output.excluded)
        facts = merge_facts(files.facts, [output.effects, output.role_means, output.excluded])
        rules = {"total_effect": params.total_effect, "roles": params.roles}
        write_facts({**facts, **rules}, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
