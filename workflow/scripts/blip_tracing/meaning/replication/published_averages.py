"""Tables of averages over examples that were published, and what of a run is held against one.

Light enough to run while the Snakefile is parsed, so that a wrong table stops before any job.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from blip_tracing.errors import InputError
from blip_tracing.vocabulary.corruptions import KINDS
from blip_tracing.vocabulary.experiment import BASE, EACH, TOGETHER, Experiment, Run

COLUMNS = ["quantity", "site", "layer", "position", "window", "examples", "value", "error"]
MEAN, FLOOR, CLEAN = "mean", "floor", "clean"
ENCODER_OUTPUT, DECODER_OUTPUT = "encoder.block_output", "decoder.block_output"
EMPTY = "or leave published empty"


@dataclass(frozen=True)
class Held:
    """What of a run is held against published averages.

    run: the corrupted run; level: of its levels; drawn: whether its draws are of noise; fresh:
    whether each cell has draws of its own; cells: site → the experiment that restores single states
    there; whole: one that restores all positions of
    the encoder's block output at once, or ""; same_examples: whether examples are those published.
    """

    run: str
    level: float
    drawn: bool
    fresh: bool
    cells: Mapping[str, str]
    whole: str
    same_examples: bool

    @property
    def tables(self) -> list[str]:
        """The experiments, each once."""
        return list(dict.fromkeys([*self.cells.values(), *([self.whole] if self.whole else [])]))


def are_averages(path: str | os.PathLike[str]) -> bool:
    """Whether a table has the columns of averages; one that cannot be read has not."""
    try:
        return list(pd.read_csv(path, nrows=0)) == COLUMNS
    except (OSError, ValueError):
        return False


def read_averages(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table of published averages: COLUMNS (resources/published/README.md has them).

    Raises InputError where it is no such table.
    """
    try:
        table = pd.read_csv(path, dtype={"quantity": str, "site": str}, keep_default_na=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(f"{path}: cannot be read as CSV ({reason}); give such a table") from error
    if list(table) != COLUMNS:
        raise InputError(f"{path}: its columns are not {', '.join(COLUMNS)}; give such a table")
    return table.astype({"layer": "Int64", "position": "Int64"}).fillna({"site": ""})


def held_against(
    published: pd.DataFrame,
    path: str | os.PathLike[str],
    experiments: Mapping[str, Experiment],
    primary: Mapping[str, int],
    settings: Mapping[str, Any],
    examples: int,
) -> Held:
    """What of a run of these experiments, and so many examples, is held against published averages.

    primary: of each experiment, the number of its primary level; settings: the configuration's
    `averages`. Compared are the experiments that restore single states of the clean base run in one
    corrupted run of it, with the window that was published.
    Raises InputError that names what the run lacks.
    """
    name = os.fspath(path)
    means = published[published["quantity"] == MEAN]
    sites = list(means["site"].unique())
    like = [
        asked
        for asked in experiments.values()
        if _restores(asked)
        and asked.positions == EACH
        and {asked.window} == set(means["window"])
        and set(sites) & set(asked.sites)
    ]
    run = _one_run(like, name, settings.get("run"))
    cells = {}
    for site in sites:
        found = [asked.name for asked in like if asked.receiver.name == run and site in asked.sites]
        if not found:
            raise InputError(f"{name}: {_lacking(site, means, run)}")
        cells[site] = found[0]
    _check_examples(published, name, settings["same_examples"], examples)
    asked = experiments[next(iter(cells.values()))]
    corruption = asked.receiver.corruption
    assert corruption is not None
    return Held(
        run=run,
        level=asked.levels[primary[asked.name]],
        drawn=KINDS[corruption.kind].drawn,
        fresh=corruption.fresh,
        cells=cells,
        whole=next((other.name for other in experiments.values() if _restores_all(other, run)), ""),
        same_examples=settings["same_examples"],
    )


def _restores(asked: Experiment) -> bool:
    """Whether the clean base run is put into a corrupted run of it."""
    corrupted = asked.receiver
    return asked.donor == Run(BASE, BASE) and corrupted.question == BASE and bool(corrupted.levels)


def _restores_all(asked: Experiment, run: str) -> bool:
    return (
        _restores(asked)
        and asked.receiver.name == run
        and (asked.positions, asked.window) == (TOGETHER, 1)
        and ENCODER_OUTPUT in asked.sites
    )


def _one_run(like: list[Experiment], name: str, wanted: str | None) -> str:
    """The corrupted run that experiments of the published kind restore in."""
    runs = list(dict.fromkeys(asked.receiver.name for asked in like))
    if wanted is None and len(runs) > 1:
        raise InputError(
            f"averages.run: {' and '.join(runs)} could each be held against {name}; name one"
        )
    if wanted is not None and runs and wanted not in runs:
        raise InputError(
            f"averages.run: no experiment like those of {name} restores in {wanted!r}; give "
            f"{' or '.join(runs)}"
        )
    return wanted or (runs[0] if runs else "")


def _lacking(site: str, means: pd.DataFrame, run: str) -> str:
    window = ", ".join(f"{window:g}" for window in means["window"].unique())
    return (
        f"is of {site} with a window of {window}, where no experiment restores {BASE} in "
        f"{f'the run {run}' if run else 'a corrupted run of it'}, one position at a time; add one, "
        f"{EMPTY}"
    )


def _check_examples(published: pd.DataFrame, name: str, same: bool, examples: int) -> None:
    over = int(published["examples"].max())
    if same and over % examples:
        raise InputError(
            f"averages.same_examples: {name} is over {over} examples, and the sheet has "
            f"{examples}; give those examples, or leave it out"
        )
    if not same and examples < 2:
        raise InputError(
            f"averages.same_examples: one example says nothing of others, which {name} is of; give "
            "more, or say true where it is the published one"
        )
