"""Turn a shard's measurements into effects, their means over roles, and what is left out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pandas as pd

from blip_tracing.given.claims import read_claims
from blip_tracing.given.provenance import merge_facts, write_facts
from blip_tracing.machinery.files import check_files
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import read_table, table_writer, write_table
from blip_tracing.meaning.effects import (
    average_cells,
    average_draws,
    average_roles,
    classify,
    effect_columns,
    inclusion,
    list_excluded,
    measure_cells,
    run_facts,
    show_heads,
)
from blip_tracing.meaning.roles import Known, assign_roles, cell_positions, role_names
from blip_tracing.meaning.summary import Rules
from blip_tracing.vocabulary.experiment import Experiment, experiment_from
from blip_tracing.vocabulary.roles import Rule

Cells = Mapping[str, Sequence[tuple[str, str]]]


@dataclass(frozen=True)
class Shard:
    """What is known of a shard's examples beside their cells.

    examples: example, picture, group; primary: the number of each experiment's primary level.
    """

    runs: pd.DataFrame
    baseline: pd.DataFrame
    known: Known
    examples: pd.DataFrame
    primary: Mapping[str, int]


@dataclass(frozen=True)
class Measured:
    """Effects of an experiment, all layers of the levels that they are of, and their means."""

    effects: pd.DataFrame
    role_means: pd.DataFrame
    cell_means: pd.DataFrame
    excluded: pd.DataFrame


def read_shard(
    files: Mapping[str, Any],
    examples: Sequence[Sequence[Any]],
    roles: Sequence[Rule],
    boxes: Sequence[str],
    primary: Mapping[str, int],
) -> Shard:
    """What is known of a shard's examples; files: runs (several), baseline and tokens.

    examples: as `Plan.described_examples` has them; roles: the rules; boxes: the sheet's.
    """
    sheet = pd.DataFrame(examples, columns=["example", "picture", "exchanged", "group", "boxes"])
    runs = pd.concat([read_table(path) for path in files["runs"]], ignore_index=True)
    return Shard(
        runs,
        read_table(files["baseline"]),
        Known(
            assign_roles(read_table(files["tokens"]), roles, runs),
            role_names(roles, boxes),
            dict(zip(sheet["example"], sheet["boxes"], strict=True)),
            frozenset(sheet.loc[sheet["exchanged"], "example"]),
        ),
        sheet[["example", "picture", "group"]],
        primary,
    )


def measure_shard(
    experiments: Mapping[str, Mapping[str, Any]], cells: Cells, shard: Shard, rules: Rules
) -> Iterator[Measured]:
    """Yield what was measured, experiment by experiment.

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
            yield measure_experiment(experiment, measured, controls, shard, rules)


def measure_experiment(
    experiment: Experiment,
    cells: pd.DataFrame,
    controls: pd.DataFrame,
    shard: Shard,
    rules: Rules,
) -> Measured:
    """Measure some levels' cells, or all of an experiment without levels."""
    primary = shard.primary[experiment.name]
    rule = inclusion(experiment, shard.runs, shard.baseline, primary, rules.total_effect)
    examples = shard.examples.join(rule["included"], on="example")
    asked = rules.metric, rules.further
    measured = measure_cells(experiment, cells, controls, shard.runs, *asked)
    positions = cell_positions(experiment, cells, shard.known)
    classified = classify(measured, positions, examples, experiment, rules.total_effect)
    effects = average_draws(classified, rules.least_effect, rules.resamples, rules.seed, *asked)
    facts = run_facts(experiment, shard.runs)
    return Measured(
        effects[effect_columns(rules.further)],
        average_roles(effects, rules.further),
        average_cells(effects, facts, controls, experiment, rules.further),
        list_excluded(effects, rule, experiment.corrupted is not None),
    )


def main(snakemake: Any) -> None:
    """Write the shard's effects, their means and exclusions, and their facts."""
    files, output, params = snakemake.input, snakemake.output, snakemake.params
    rules = Rules(**params.rules)
    experiments = [experiment_from(described) for described in params.experiments.values()]
    with log_to(snakemake.log[0]):
        check_files(files.facts, sorted(set(files) - {*files.facts, *files.claims}))
        for path in files.claims:
            read_claims(path)
        given = {"runs": files.runs, "baseline": files.baseline, "tokens": files.tokens}
        shard = read_shard(given, params.examples, params.roles, params.boxes, params.primary)
        excluded = []
        with ExitStack() as stack:
            add_effects, add_roles, add_cells = (
                stack.enter_context(table_writer(path))
                for path in (output.effects, output.role_means, output.cell_means)
            )
            for measured in measure_shard(params.experiments, params.cells, shard, rules):
                add_effects(show_heads(measured.effects, experiments))
                add_roles(measured.role_means)
                add_cells(measured.cell_means)
                excluded.append(measured.excluded)
        write_table(pd.concat(excluded), output.excluded)
        written = [output.effects, output.role_means, output.cell_means, output.excluded]
        facts = merge_facts(files.facts, written)
        write_facts({**facts, **params.rules, "roles": params.roles}, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
