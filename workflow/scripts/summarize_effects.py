"""Average effects over examples: means with intervals, tests, marks, and what vouches for them.

One family (an experiment at a site and a level) is in memory at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from blip_tracing.given.provenance import merge_facts, write_facts
from blip_tracing.machinery.files import check_files
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import read_table, table_writer, write_table
from blip_tracing.meaning.beside import add_beside
from blip_tracing.meaning.effects import (
    HALF,
    by_level,
    enclosing_answers,
    probability_of_neither,
)
from blip_tracing.meaning.evidence import families_of, read_family
from blip_tracing.meaning.statistics import mean_intervals
from blip_tracing.meaning.summary import (
    Family,
    Rules,
    can_be_damage,
    finish_experiment,
    maps_of,
    never_told,
    summarize_family,
)
from blip_tracing.vocabulary.experiment import (
    PICTURE_ONLY,
    Experiment,
    Run,
    experiment_from,
    run_from,
)

RUN_MEANS = [
    "run", "noise_level", "mean", "low", "high", "examples", "pictures", "draws", "hidden", "third",
    "state_sd", "noise_in_sd",
]  # fmt: skip


def summarize(
    role_means: Sequence[str],
    cell_means: Sequence[str],
    experiments: dict[str, Any],
    primary: dict[str, int],
    rules: Rules,
) -> Iterator[tuple[pd.DataFrame, ...]]:
    """The tables `summary`, `families` and `negatives`, experiment by experiment.

    experiments: as `described`; primary: the number of each one's primary level.
    """
    all_asked = {name: experiment_from(described) for name, described in experiments.items()}
    left_out = never_told(list(all_asked.values()))
    without = ["token_role"] if "head" in left_out else []
    if not any(can_be_damage(asked, rules.further) for asked in all_asked.values()):
        without.append("damaged")
    for name, families in groupby(families_of(role_means), lambda family: family.experiment):
        experiment = all_asked[name]
        summarized = [
            summarize_family(*means, experiment, primary[name], rules)
            for family in families
            for means in read_maps(role_means, cell_means, family, all_asked)
        ]
        summary, *others = finish_experiment(summarized, rules)
        yield (
            summary.drop(columns=left_out),
            *(table.drop(columns=without, errors="ignore") for table in others),
        )


def read_maps(
    role_means: Sequence[str],
    cell_means: Sequence[str],
    family: Family,
    experiments: Mapping[str, Experiment],
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """A family's maps, with what other experiments say of their changes."""
    rows = add_beside(
        read_family(role_means, family),
        experiments[family.experiment],
        family.site,
        experiments.values(),
        lambda other: read_family(role_means, family._replace(experiment=other.name)),
    )
    return maps_of(rows, read_family(cell_means, family))


def average_run(
    runs: pd.DataFrame, run: Run, pictures: dict[str, str], resamples: int, seed: int
) -> pd.DataFrame:
    """The table `run_means` of one run: mean p(base answer), level by level.

    runs: the table `runs`; pictures: each example's. hidden: the share of draws whose noise hid
    the answer; third: the mean probability of neither answer; noise_in_sd: the level in standard
    deviations of the states that are corrupted, state_sd, where it is the size of what is added.
    """
    clean = runs[runs["run"] == run.question].set_index("example")
    rows = by_level(runs[runs["run"] == run.name], run.levels).sort_values("example")
    enclosing = rows["example"].map(enclosing_answers(runs))
    rows = rows.assign(
        p_base=rows["p_base"].astype("float64"),
        third=probability_of_neither(rows, enclosing),
        picture=rows["example"].map(pictures),
    )
    if run.corruption:
        answer = f"p_{run.question}"
        before = rows["example"].map(clean[answer].astype("float64"))
        rows["hidden"] = (rows[answer].astype("float64") < HALF * before).astype("float64")
    parts = []
    for _, level in rows.groupby("level"):
        groups = level.groupby("example")
        of_example = groups["p_base"].mean()
        # Of one example the draws are the units.
        alone = len(of_example) == 1
        values = level["p_base"] if alone else of_example
        units = None if alone else groups["picture"].first().tolist()
        means = mean_intervals(values.to_numpy()[:, None], resamples, seed, units, 0.0, 1.0)
        noise, sd = level["noise_level"].to_numpy()[0], mean_of(level, "state_sd")
        parts.append(
            means.assign(
                run=run.name, noise_level=noise, examples=len(of_example),
                pictures=level["picture"].nunique(), draws=int(groups.size().max()),
                hidden=mean_of(level, "hidden"), third=level["third"].mean(), state_sd=sd,
                noise_in_sd=run.corruption.in_deviations(noise, sd) if run.corruption else np.nan,
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)[RUN_MEANS]


def mean_of(rows: pd.DataFrame, column: str) -> float:
    """The mean of a column; NaN where there is none."""
    return float(rows[column].mean()) if column in rows else np.nan


def main(snakemake: Any) -> None:
    """Write the summary of all shards, family by family, the runs' means, and their facts."""
    files, output, params = snakemake.input, snakemake.output, snakemake.params
    rules = Rules(**params.rules)
    with log_to(snakemake.log[0]):
        check_files(files.facts, [*files.role_means, *files.cell_means, *files.runs])
        names = ("summary", "families", "negatives")
        with ExitStack() as stack:
            append = [stack.enter_context(table_writer(getattr(output, name))) for name in names]
            for tables in summarize(
                files.role_means, files.cell_means, params.experiments, params.primary, rules
            ):
                for add, table in zip(append, tables, strict=True):
                    add(table)
        runs = pd.concat([read_table(path) for path in files.runs], ignore_index=True)
        averaged = [run_from(run) for run in params.runs]
        if (runs["run"] == PICTURE_ONLY).any():
            averaged.append(Run(PICTURE_ONLY, ""))
        means = [
            average_run(runs, run, params.pictures, rules.resamples, rules.seed) for run in averaged
        ]
        # Without a corrupted run none is averaged.
        empty = pd.DataFrame(columns=RUN_MEANS)
        write_table(pd.concat(means, ignore_index=True) if means else empty, output.run_means)
        written = [*(getattr(output, name) for name in names), output.run_means]
        write_facts({**merge_facts(files.facts, written), **params.rules}, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
