"""Hold a run against published numbers: each beside the run's, and a verdict on each quantity."""

import logging
from typing import Any

from blip_tracing.given.provenance import merge_facts, write_facts
from blip_tracing.machinery.files import check_files, digests
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import read_table, write_table
from blip_tracing.meaning.replication.compare import as_published, compare, judge
from blip_tracing.meaning.replication.published import read_published

logger = logging.getLogger(__name__)


def main(snakemake: Any) -> None:
    """Write the comparison, its verdicts and its facts."""
    files, output, params = snakemake.input, snakemake.output, snakemake.params
    with log_to(snakemake.log[0]):
        paths = {name: files[name] for name in params.tables}
        check_files(files.facts, paths.values())
        published = read_published(files.published)
        examples = list(published["example"].unique())
        tables = {name: read_table(path, examples) for name, path in paths.items()}
        run = as_published(tables, params.like)
        compared = compare(published, run, params.resamples, params.seed)
        verdicts = judge(compared, run, params.seed)
        for verdict in verdicts.to_dict("records"):
            logger.info("%(title)s: %(verdict)s. %(where)s", verdict)
        write_table(compared, output.published)
        write_table(verdicts, output.verdicts)
        facts = merge_facts(files.facts, [output.published, output.verdicts])
        given = {"published": digests([files.published]), "resamples": params.resamples}
        write_facts({**facts, **given, "seed": params.seed}, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
