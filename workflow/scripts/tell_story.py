"""Write the page that tells a run's story, with everything that it shows inside it."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from blip_tracing.given.pictures import check_answered
from blip_tracing.machinery.files import check_files, written_whole
from blip_tracing.machinery.logs import log_to
from blip_tracing.printing.page import Links, page_of
from blip_tracing.telling.finished_run import read_run
from blip_tracing.telling.story import tell


def addresses(paths: Iterable[str], page: str | os.PathLike[str]) -> dict[str, str]:
    """Name → address relative to the page, for each file."""
    folder = Path(page).parent
    return {Path(path).name: Path(os.path.relpath(path, folder)).as_posix() for path in paths}


def main(snakemake: Any) -> None:
    """Run as the script of the rule `tell_story`."""
    files, params, page = snakemake.input, snakemake.params, snakemake.output.page
    # Else it names every table of every font.
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    with log_to(snakemake.log[0]):
        tables = {name: files[name] for name in params.tables}
        check_files([*files.facts, *files.picture_facts], tables.values())
        check_answered(files.picture_facts, files.pictures)
        links = Links(
            tables=addresses(tables.values(), page),
            reports=addresses(params.reports, page),
            figures={example: addresses(paths, page) for example, paths in params.figures.items()},
        )
        run = read_run(tables, files.facts, params)
        with written_whole(page) as file:
            file.write(page_of(tell(run), links, files.template).encode())


if "snakemake" in globals():
    main(globals()["snakemake"])
