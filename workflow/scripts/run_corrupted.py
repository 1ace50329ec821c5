"""Score a shard's corrupted runs with nothing put in, at every level and draw: the floor."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from blip_tracing.engine.cells import Batch, score_run
from blip_tracing.engine.clean_runs import CleanFiles, CleanRuns, Corrupted, Row
from blip_tracing.engine.draws import clean_spread
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import cells_table, read_table, write_table
from blip_tracing.meaning.roles import roles_by
from blip_tracing.models.loaded import Loaded, open_model
from blip_tracing.vocabulary.experiment import Run, run_from
from blip_tracing.vocabulary.roles import ask_answers

SAME = ["question", "text", "answer", "answer_id"]


def corrupt_shard(
    loaded: Loaded,
    files: CleanFiles,
    rows: Sequence[Row],
    run: Run,
    metrics: Sequence[str],
    table: str,
    facts: str,
) -> None:
    """Write the run's part of the table `runs`, and its facts."""
    assert run.corruption is not None
    clean = CleanRuns(loaded.traced, files, rows, corrupted=corrupted_by(run))
    own, *_ = files.runs
    asked = read_table(own).set_index(["run", "example"]).loc[run.question, SAME]

    def work(batch: Batch) -> list[pd.DataFrame]:
        return [scored(loaded, run, metrics, batch)]

    variants, pictures = len(run.levels) * run.draws, run.corruption.of_picture
    (scores,) = clean.measure(variants, work, run.name, in_pictures=pictures)
    columns = [name for name in scores if name != "example"]
    whole = scores.join(asked, on="example").assign(run=run.name)
    write_table(whole[["example", "run", *SAME, *columns]], table)
    loaded.vouch(facts, [table], seed=run.corruption.seed)


def corrupted_by(run: Run) -> Corrupted:
    """A corrupted run, and how the roles of its tokens are told."""
    assert run.corruption is not None
    rules = run.corruption.role_rules
    return Corrupted(run, roles_by(rules), ask_answers(rules))


def scored(loaded: Loaded, run: Run, metrics: Sequence[str], batch: Batch) -> pd.DataFrame:
    """One row an example, level and draw; state_sd: of the states before they are changed."""
    scores = score_run(loaded.traced, batch, run, metrics)
    axes: Mapping[str, list] = {
        "example": batch.examples,
        "noise_level": list(run.levels),
        "draw": list(range(run.draws)),
    }
    rows = cells_table(dict(axes), {name: part.numpy() for name, part in scores.columns.items()})
    spreads = clean_spread(loaded.traced, batch, run).tolist()
    of_example = dict(zip(batch.examples, spreads, strict=True))
    return rows.assign(state_sd=rows["example"].map(of_example).astype("float32"))


def main(snakemake: Any) -> None:
    """Run as the script of the rule `run_corrupted`."""
    files, output, params = snakemake.input, snakemake.output, snakemake.params
    clean = CleanFiles(files.images, files.states, files.tokens, files.runs, files.facts)
    run = run_from(params.run)
    with (
        log_to(snakemake.log[0]),
        open_model(files.facts, **params.model, **params.place) as loaded,
        torch.inference_mode(),
    ):
        corrupt_shard(loaded, clean, params.rows, run, params.metrics, output.table, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
