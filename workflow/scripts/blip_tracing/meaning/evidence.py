"""What analyses of several experiments read: effects by example, family by family.

An analysis is a module of `meaning/analyses` with a function `analyse`, from `Evidence` to its
table and its verdicts, in that order.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq

from blip_tracing.meaning.summary import Family, Rules
from blip_tracing.vocabulary.experiment import Experiment, experiment_from

# A conclusion: what it is about (a map, a pair of them), what is said of it with a number, its
# interval and p (NaN where there is none), over how many pictures, and the verdict in a word.
VERDICTS = ["about", "statement", "value", "low", "high", "p", "pictures", "verdict"]


def families_of(paths: Sequence[str]) -> list[Family]:
    """The families that each of these tables `role_means` has, in its order."""
    first = pq.read_table(paths[0], columns=list(Family._fields)).to_pandas().drop_duplicates()
    return [Family(*row) for row in first.itertuples(index=False, name=None)]


def read_family(paths: Sequence[str], family: Family) -> pd.DataFrame:
    """The rows of one family, of all these tables."""
    chosen = pc.scalar(True)
    for key, value in family._asdict().items():
        chosen = chosen & (pc.field(key) == value)
    return pq.read_table(list(paths), filters=chosen).to_pandas()


@dataclass(frozen=True)
class Evidence:
    """A run's effects, and what an analysis is asked of them.

    settings: the analysis's group of the configuration; experiments: by name; primary: the number
    of each one's primary level; role_means, cell_means: files, one a shard; runs: that table.
    """

    settings: Mapping[str, Any]
    experiments: Mapping[str, Experiment]
    primary: Mapping[str, int]
    rules: Rules
    role_means: Sequence[str]
    cell_means: Sequence[str]
    runs: pd.DataFrame

    @classmethod
    def asked(
        cls,
        params: Any,
        role_means: Sequence[str],
        cell_means: Sequence[str] = (),
        runs: pd.DataFrame | None = None,
    ) -> Evidence:
        """By a rule's parameters: settings, experiments (as `described`), primary and rules."""
        experiments = {name: experiment_from(each) for name, each in params.experiments.items()}
        return cls(
            params.settings,
            experiments,
            params.primary,
            Rules(**params.rules),
            role_means,
            cell_means,
            pd.DataFrame() if runs is None else runs,
        )

    def primary_family(self, experiment: str, site: str) -> Family:
        """That of a site at the level that conclusions are drawn at."""
        return Family(experiment, site, self.primary[experiment])

    def by_role(self, family: Family) -> pd.DataFrame:
        """A family's `role_means`: each example's means over the positions of a role, by layer."""
        return read_family(self.role_means, family)

    def by_example(self, family: Family) -> pd.DataFrame:
        """A family's `cell_means`: each example's mean over all cells, and what its runs say."""
        return read_family(self.cell_means, family)


def where_words(row: Mapping[Hashable, Any]) -> str:
    """Where a row of effects is, its experiment and site among it, in words."""
    head = "" if pd.isna(row["head"]) else f", head {row['head']:.0f}"
    where = f"{row['experiment']} at {row['site']}, layer {row['layer']}{head}"
    return f"{where}, {row['token_role']}"
