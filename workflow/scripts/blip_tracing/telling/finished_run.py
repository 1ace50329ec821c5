"""Read what a finished run left behind, as far as its story needs it."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as ds

from blip_tracing.given.methods import read_method
from blip_tracing.machinery.files import read_record
from blip_tracing.machinery.tables import PARQUET, read_table
from blip_tracing.telling.overview import read_turns
from blip_tracing.telling.told import Run

CONTROLS, EFFECTS = "controls", "effects"
# A control vouches for something only where a fault would be far beyond what is tolerated.
TELLING = 10


def read_run(files: Mapping[str, str], facts: Iterable[str], params: Any) -> Run:
    """Read what the story needs of the run's tables, by name, and of its stages' facts.

    params: the rule's `config`, `config_files`, `overrides`, `pictures`, `source_pictures`, and
    `boxes` and `units`, the sheet's.
    """
    shown = list(params.pictures)
    # A row a cell: of a large sheet these are not read whole.
    of_shown = (EFFECTS, *params.config["experiments"])
    tables = {
        name: read_table(path, shown if name in of_shown else None)
        for name, path in files.items()
        if name != CONTROLS
    }
    if CONTROLS in files:
        tables[CONTROLS] = count_controls(files[CONTROLS])
    if EFFECTS in files:
        tables["turns"] = read_turns(files[EFFECTS], tables["families"])
    return Run(
        config=params.config,
        config_files=params.config_files,
        overrides=params.overrides,
        pictures=params.pictures,
        source_pictures=params.source_pictures,
        boxes=params.boxes,
        units=params.units,
        method=read_method(path) if (path := params.config.get("method")) else None,
        tables=tables,
        provenance={stage_of(path): read_record(path, ["files"]) for path in facts},
    )


def count_controls(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Count a table of controls: experiment, control, checked, idle, effect, largest.

    checked: its runs; idle: those that could not have failed, since a fault would have moved no
    probability by TELLING times the tolerance; effect: by how much it would, the median; largest:
    difference. All but checked are missing where no outcome is known.
    Reads five columns, since the nulls of a large sheet are millions of rows.
    """
    keys, numbers = ["experiment", "control"], ["difference", "tolerance", "effect"]
    # Guessed types would go wrong: an unrelated example's rows have no difference.
    types = {**dict.fromkeys(keys, pa.string()), **dict.fromkeys(numbers, pa.float64())}
    csv = ds.CsvFileFormat(convert_options=pa.csv.ConvertOptions(column_types=types))
    kind: Any = "parquet" if Path(path).suffix == PARQUET else csv
    rows = ds.dataset(path, format=kind).to_table([*keys, *numbers])
    counted = rows.group_by(keys, use_threads=False).aggregate([([], "count_all")]).to_pandas()
    known = rows.filter(pc.is_finite(rows["difference"])).to_pandas()
    known["idle"] = known["effect"] < TELLING * known["tolerance"]
    outcomes = known.groupby(keys).agg(
        idle=("idle", "sum"), effect=("effect", "median"), largest=("difference", "max")
    )
    counted = counted.rename(columns={"count_all": "checked"}).join(outcomes, on=keys)
    return counted.astype({"idle": "Int64"})


def stage_of(path: str) -> str:
    """`results/tables/tracing.provenance.json` is of the stage tracing."""
    return Path(path).name.split(".")[0]
