"""Hold a run against published averages of many examples, with what any faithful run must show."""

import logging
from collections.abc import Mapping
from typing import Any

import pandas as pd

from blip_tracing.given.provenance import merge_facts, write_facts
from blip_tracing.machinery.files import check_files, digests
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import read_table, write_table
from blip_tracing.meaning.replication.averages import (
    averaged,
    compare_averages,
    floor_words,
    structure_of,
)
from blip_tracing.meaning.replication.published_averages import (
    ENCODER_OUTPUT,
    Held,
    read_averages,
)

logger = logging.getLogger(__name__)


def hold(
    published: pd.DataFrame, tables: Mapping[str, pd.DataFrame], held: Held, layers: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Each published average beside the run's, a verdict on each map, and the expectations.

    tables: the run's `runs` and those of the experiments; layers: of a text tower.
    """

    def measured(*of: tuple[str, str]) -> Any:
        cells = [table[table["site"] == site] for site, table in ((s, tables[n]) for s, n in of)]
        return averaged(
            pd.concat(cells), tables["runs"], held.run, held.level, held.drawn, held.fresh
        )

    run = measured(*held.cells.items())
    whole = measured((ENCODER_OUTPUT, held.whole)).cells if held.whole else None
    numbers, verdicts = compare_averages(published, run, held.same_examples, seed)
    told = floor_words(published, tables["runs"], held.run, verdicts)
    return numbers, told, structure_of(run, layers, whole, published)


def main(snakemake: Any) -> None:
    """Write the comparison, its verdicts, the expectations and their facts."""
    files, output, params = snakemake.input, snakemake.output, snakemake.params
    with log_to(snakemake.log[0]):
        paths = {name: files[name] for name in params.tables}
        check_files(files.facts, paths.values())
        published = read_averages(files.published)
        tables = {name: read_table(path) for name, path in paths.items()}
        numbers, verdicts, expectations = hold(
            published, tables, Held(**params.held), params.layers, params.seed
        )
        for verdict in verdicts.to_dict("records"):
            logger.info("%(title)s: %(verdict)s. %(where)s", verdict)
        written = [output.published, output.verdicts, output.expectations]
        for path, table in zip(written, (numbers, verdicts, expectations), strict=True):
            write_table(table, path)
        facts = merge_facts(files.facts, written)
        given = {"published": digests([files.published]), "held": params.held}
        write_facts({**facts, **given, "seed": params.seed}, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
