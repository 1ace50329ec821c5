"""Tables of published numbers: what they hold, and what a run must have to be held against one.

Light enough to run while the Snakefile is parsed, so that a wrong table stops before any job.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from blip_tracing.errors import InputError
from blip_tracing.machinery.files import read_bytes
from blip_tracing.vocabulary.corruptions import KINDS, QUESTION_EMBEDDINGS
from blip_tracing.vocabulary.experiment import BASE, QUESTIONS, SOURCE, Experiment, Run

# What a row is of, beside its value.
KEYS = (
    "quantity", "example", "question", "rank", "token", "token_id", "site", "noise_level", "draw",
    "draws", "layer", "position",
)  # fmt: skip
COLUMNS = (*KEYS, "value", "error", "origin")
WORDS = ("quantity", "example", "question", "token", "site", "origin")
WHOLE_NUMBERS = ("rank", "token_id", "draw", "draws", "layer", "position")


@dataclass(frozen=True)
class Quantity:
    """A kind of published number.

    experiment: what it was measured by, `baseline` or one of PUBLISHED; needs: the columns that
    its rows fill; unseeded: whether it depends on noise that nobody can draw again; judged: whether
    a run is held against it, or only shown beside it.
    """

    experiment: str
    title: str
    needs: tuple[str, ...]
    unseeded: bool = False
    judged: bool = True


_ANSWERED = ("rank", "token_id")
_CELL = ("site", "layer", "position")
_NOISY = ("site", "noise_level", "draws")
QUANTITIES = {
    "top_logit": Quantity("baseline", "logits of the most probable first tokens", _ANSWERED),
    "top_probability": Quantity("baseline", "probabilities of these tokens", _ANSWERED),
    "patching": Quantity("patching", "cells of the patching map", _CELL),
    "noise_cell": Quantity(
        "tracing", "cells of the noise levels", (*_NOISY, *_CELL), unseeded=True, judged=False
    ),
    "noise_mean": Quantity("tracing", "mean of each noise level", _NOISY, unseeded=True),
    "iteration_cell": Quantity(
        "tracing", "cells of the iterations", (*_NOISY, *_CELL), unseeded=True, judged=False
    ),
    "iteration_mean": Quantity("tracing", "mean of each iteration", _NOISY, unseeded=True),
    "mean_cell": Quantity(
        "tracing", "cells’ means over the iterations", (*_NOISY, *_CELL), unseeded=True
    ),
}


def _noisy(run: Run) -> bool:
    """Whether a run is the base question's with Gaussian noise on all its embeddings."""
    corrupted = run.corruption
    return (
        run.question == BASE
        and corrupted is not None
        and (corrupted.kind, corrupted.at) == ("gaussian", QUESTION_EMBEDDINGS)
        and not corrupted.also
    )


# What the published experiments were, whatever a configuration calls its own: in words, and
# whether one is that.
PUBLISHED: dict[str, tuple[str, Callable[[Experiment], bool]]] = {
    "patching": (
        f"{SOURCE} into {BASE}",
        lambda asked: (asked.donor, asked.receiver) == (Run(SOURCE, SOURCE), Run(BASE, BASE)),
    ),
    "tracing": (
        f"{BASE} into the {BASE} run with {KINDS['gaussian'].words} at {QUESTION_EMBEDDINGS}",
        lambda asked: asked.donor == Run(BASE, BASE) and _noisy(asked.receiver),
    ),
}

# The replication report's figures, each with the quantity that it is of.
FIGURES = {
    "patching": "patching",
    "patching_difference": "patching",
    "noise_means": "noise_mean",
    "noise_cells": "noise_cell",
    "iteration_means": "iteration_mean",
    "mean_cells": "mean_cell",
}


def read_published(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table of published numbers (COLUMNS; resources/published/README.md describes them).

    Numbers that a row does not have are missing, words that it does not have are "".
    Raises InputError when the file is no such table.
    """
    name = os.fspath(path)
    try:
        content = io.BytesIO(read_bytes(name))
        table = pd.read_csv(content, dtype=str, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(
            f"{name}: there is no such file; mend published in the config, or leave it empty"
        ) from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(
            f"{name}: cannot be read as CSV ({reason}); give a table like those in "
            "resources/published"
        ) from error
    if missing := [column for column in COLUMNS if column not in table]:
        raise InputError(f"{name}: has no column {missing[0]}; its columns are {_listed(COLUMNS)}")
    table = table[list(COLUMNS)]
    _check_quantities(table, name)
    numbers = [column for column in COLUMNS if column not in WORDS]
    table = table.assign(**{column: _numbers(table[column], name) for column in numbers})
    _check_keys(table, name)
    whole: dict[str, str] = dict.fromkeys(WHOLE_NUMBERS, "Int64")
    return table.astype(whole)


def check_run(
    published: pd.DataFrame,
    path: str | os.PathLike[str],
    examples: Sequence[str],
    experiments: Mapping[str, Experiment],
) -> None:
    """Check that a run of these examples and experiments (with a site, by name) can be compared.

    Raises InputError that names what the run lacks.
    """
    name = os.fspath(path)
    for example in published["example"].unique():
        if example not in examples:
            raise InputError(
                f"{name}: is of example {example!r}, which the sheet lacks; name its row so, "
                "or leave published empty"
            )
    kinds = published["quantity"].map({key: QUANTITIES[key].experiment for key in QUANTITIES})
    at_sites = published.assign(kind=kinds)[published["site"] != ""]
    like = like_published(experiments)
    for kind, site in at_sites[["kind", "site"]].drop_duplicates().itertuples(index=False):
        if not any(site in experiments[known].sites for known in like[kind]):
            raise InputError(f"{name}: {_lacking(kind, site, experiments)}")


def like_published(experiments: Mapping[str, Experiment]) -> dict[str, list[str]]:
    """The names of the experiments that are what was published, by its names.

    What counts is which run's states are put into which, and how that is corrupted.
    """
    return {
        kind: [name for name, asked in experiments.items() if same(asked)]
        for kind, (_, same) in PUBLISHED.items()
    }


def _lacking(kind: str, site: str, experiments: Mapping[str, Experiment]) -> str:
    words, same = PUBLISHED[kind]
    asked = experiments.get(kind)
    if asked and not same(asked):
        return (
            f"is of {kind}, which puts {words}; experiments.{kind} puts {asked.donor.name} into "
            f"{asked.receiver.name} and is not compared; add such an experiment at {site}, "
            "or leave published empty"
        )
    return (
        f"is of {kind} at {site}, where no experiment puts {words}; add {site} to the sites of "
        "one, or leave published empty"
    )


def figures_of(published: pd.DataFrame, example: str) -> list[str]:
    """The figures that the report draws of an example."""
    there = set(published.loc[published["example"] == example, "quantity"])
    return [figure for figure, quantity in FIGURES.items() if quantity in there]


def _check_quantities(table: pd.DataFrame, name: str) -> None:
    for row, record in enumerate(table.to_dict("records"), start=2):
        quantity = QUANTITIES.get(record["quantity"])
        if quantity is None:
            raise InputError(
                f"{name}, row {row}: {record['quantity']!r} is no quantity; "
                f"known are {_listed(QUANTITIES)}"
            )
        if record["question"] not in QUESTIONS:
            raise InputError(
                f"{name}, row {row}: question is {record['question']!r}; "
                f"write {' or '.join(QUESTIONS)}"
            )
        for column in ("example", *quantity.needs, "value", "error"):
            if not record[column]:
                raise InputError(
                    f"{name}, row {row}: {column} is empty; {record['quantity']} needs it"
                )


def _numbers(texts: pd.Series, name: str) -> pd.Series:
    numbers = pd.to_numeric(texts, errors="coerce")
    whole = texts.name in WHOLE_NUMBERS
    wrong = texts[(texts != "") & (numbers.isna() | (whole & (numbers % 1 != 0)))]
    if not wrong.empty:
        kind = "whole number" if whole else "number"
        raise InputError(
            f"{name}, row {wrong.index[0] + 2}: {texts.name} {wrong.iloc[0]!r} is no {kind}"
        )
    return numbers


def _check_keys(table: pd.DataFrame, name: str) -> None:
    twice = table[table.duplicated([key for key in KEYS if key != "token"])]
    if not twice.empty:
        raise InputError(
            f"{name}, row {twice.index[0] + 2}: has the keys of a row above; keep it once"
        )


def _listed(names: Sequence[str] | Mapping[str, Quantity]) -> str:
    return ", ".join(names)
