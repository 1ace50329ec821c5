"""Ask what one experiment measured in every way that the multiverse has."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from measure_effects import Measured, measure_shard, read_shard

from blip_tracing.given.provenance import merge_facts, write_facts
from blip_tracing.machinery.files import check_files
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import write_table
from blip_tracing.meaning.summary import Rules
from blip_tracing.meaning.universes import universes_of
from blip_tracing.vocabulary.experiment import experiment_from
from blip_tracing.vocabulary.roles import Rule


def measured_parts(
    parts: Sequence[Mapping[str, Any]],
    described: Mapping[str, Any],
    primary: int,
    roles: Sequence[Rule],
    boxes: Sequence[str],
    rules: Rules,
) -> list[Measured]:
    """What an experiment measured, shard after shard, level after level.

    parts: as `Plan.universe_parts` gives them.
    """
    name = described["name"]
    found: list[Measured] = []
    for part in parts:
        shard = read_shard(part, part["examples"], roles, boxes, {name: primary})
        found += measure_shard({name: described}, {name: part["cells"]}, shard, rules)
    return found


def main(snakemake: Any) -> None:
    """Write the experiment's universes and their facts."""
    files, output, params = snakemake.input, snakemake.output, snakemake.params
    rules = Rules(**params.rules)
    with log_to(snakemake.log[0]):
        check_files(files.facts, files.measured)
        found = measured_parts(
            params.parts, params.experiment, params.primary, params.roles, params.boxes, rules
        )
        universes = universes_of(
            experiment_from(params.experiment),
            pd.concat([part.role_means for part in found], ignore_index=True),
            pd.concat([part.cell_means for part in found], ignore_index=True),
            params.settings,
            rules,
        )
        write_table(universes, output.table)
        facts = merge_facts(files.facts, [output.table])
        write_facts({**facts, **params.rules, "settings": params.settings}, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
