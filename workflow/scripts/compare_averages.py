r"""Hold a finished run against averages that were published of many examples.

    python workflow/scripts/compare_averages.py resources/published/palit_200_samples.csv \
        results/tables --run noisy --level 5 --cells encoder decoder --whole together

prints, and writes beside the tables, each published average beside the run's with what its standard
error allows, a verdict on each map, and expectations that any faithful run meets. Without --level
it says at which level the run's floor is the published one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from blip_tracing.errors import InputError
from blip_tracing.machinery.tables import read_table, write_table
from blip_tracing.meaning.replication.averages import (
    FLOOR,
    Averaged,
    averaged,
    compare_averages,
    level_at,
    read_averages,
    structure_of,
)


def find_table(folder: Path, name: str) -> pd.DataFrame:
    """A table of a run, as CSV or Parquet."""
    for suffix in ("csv", "parquet"):
        if (path := folder / f"{name}.{suffix}").is_file():
            return read_table(path)
    raise InputError(f"{folder}: has no table {name}; give the folder and experiments of a run")


def hold(arguments: argparse.Namespace) -> str:
    """Compare, write the tables and say what came out."""
    published, folder = read_averages(arguments.published), arguments.tables
    runs = find_table(folder, "runs")
    if arguments.level is None:
        (floor,) = published.loc[published["quantity"] == FLOOR, "value"].head(1)
        level = level_at(runs, arguments.run, floor)
        return f"The floor of {floor:g} is met at level {level:.4f}: measure there, give --level."

    def measured(*names: str) -> Averaged:
        cells = pd.concat([find_table(folder, name) for name in names])
        return averaged(cells, runs, arguments.run, arguments.level, not arguments.constant)

    run = measured(*arguments.cells)
    whole = measured(arguments.whole).cells if arguments.whole else None
    numbers, verdicts = compare_averages(published, run, not arguments.other_examples, 0)
    structure = structure_of(run, arguments.layers, whole)
    for name, table in (("averages", numbers), ("maps", verdicts), ("structure", structure)):
        write_table(table, folder / f"{arguments.published.stem}.{name}.csv")
    return "\n\n".join(table.to_string(index=False) for table in (verdicts, structure))


def parse(command: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("published", type=Path, help="a table of published averages")
    parser.add_argument("tables", type=Path, help="the folder of a run's tables")
    parser.add_argument("--run", default="noisy", help="the corrupted run (default: noisy)")
    parser.add_argument("--level", type=float, help="the level that is compared")
    parser.add_argument("--cells", nargs="+", default=[], help="experiments with its cells")
    parser.add_argument("--whole", default="", help="one that puts in all positions at once")
    parser.add_argument("--layers", type=int, default=12, help="of a text tower (default: 12)")
    parser.add_argument(
        "--other-examples", action="store_true", help="the run's examples are not those published"
    )
    parser.add_argument("--constant", action="store_true", help="the corruption draws nothing")
    return parser.parse_args(command)


def main() -> int:
    """Run the command; wrong input ends it with one line and exit code 1."""
    try:
        print(hold(parse()))
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
