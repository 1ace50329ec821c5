r"""Solve for the level of a corruption at which an example's answer has a given probability.

    python workflow/scripts/solve_level.py config/palit-2023-scale.yaml \
        --run scaled --example purple_character --floor 0.7348 --write

runs the example's corrupted run, nothing put in, at levels --between two, and prints each level
between neighbours of which the floor lies, to the last digit that tables keep. With --write the
level, which must be the only one, takes the place of the run's levels in the configuration, and of
what else there must be one of them. Run it in the study's folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import yaml

from blip_tracing.errors import InputError, run_command
from blip_tracing.given.pictures import pictures_of
from blip_tracing.given.planning import read_config
from blip_tracing.given.settings import TABLE_DIGITS, fill_config
from blip_tracing.given.sheet import load_sheet, records_of
from blip_tracing.given.text import closest, shown
from blip_tracing.machinery.files import written_whole
from blip_tracing.vocabulary.corruptions import DEVIATIONS
from blip_tracing.vocabulary.experiment import Run, runs_of

# Levels at which the run is looked at, to see between which the floor lies.
LOOKS = 17
# Other keys whose level must be one of the run's.
BESIDE = (("effects", "primary_level"), ("report", "draws_at"))
Row = dict[str, str]


def solve(arguments: argparse.Namespace) -> str:
    """Solve, write where that is asked for, and say what came out."""
    text, config = read_config(arguments.config)
    run, row = corrupted_run(config, arguments.run), row_of(config, arguments.example)
    low, high = arguments.between
    tried = [low + (high - low) * look / (LOOKS - 1) for look in range(LOOKS)]
    levels = levels_of_example(config, row, run, arguments.floor, tried, arguments.cores)
    listed = ", ".join(f"{level:.{TABLE_DIGITS}g}" for level in levels)
    if arguments.write:
        if len(levels) > 1:
            raise InputError(
                f"runs.{run.name}: the floor of {arguments.floor:g} is met at levels {listed}; "
                "narrow --between to the one that is meant"
            )
        content = with_level(text, run.name, levels[0], str(arguments.config))
        with written_whole(arguments.config) as file:
            file.write(content.encode())
    return listed


def corrupted_run(config: dict[str, Any], name: str) -> Run:
    """The run of that name; InputError where there is none whose level can be solved for."""
    run = runs_of(config).get(name)
    if run is None or run.corruption is None:
        raise InputError(f"--run: {shown(name)} is no run; {closest(name, list(config['runs']))}")
    if run.corruption.unit == DEVIATIONS:
        raise InputError(
            f"runs.{name}.corrupt.unit: {DEVIATIONS} is of a whole sheet, and one example is run "
            "here; make it absolute"
        )
    return run


def row_of(config: dict[str, Any], example: str) -> Row:
    """The sheet's row of an example; InputError where there is none."""
    sheet = load_sheet(config["examples"])
    rows = {record["example"]: record for _, record in records_of(sheet)}
    if example not in rows:
        raise InputError(f"--example: {shown(example)} is no example; {closest(example, [*rows])}")
    return rows[example]


def levels_of_example(
    config: dict[str, Any], row: Row, run: Run, floor: float, tried: Sequence[float], cores: int
) -> list[float]:
    """The levels at which the example's answer has that probability, mean over the run's draws."""
    # Here, so that wrong input is told before the libraries are there.
    import torch
    from answer_questions import CleanOutput, answer_shard
    from encode_images import encode_shard
    from fetch_model import fetch_model
    from make_sheet import fetch
    from run_corrupted import corrupted_by

    from blip_tracing.engine.batch import Batch
    from blip_tracing.engine.cells import score_run
    from blip_tracing.engine.clean_runs import CleanFiles, CleanRuns
    from blip_tracing.models.loaded import open_model

    assert run.corruption is not None
    name, revision = config["model"]["name"], config["model"]["revision"]
    checkpoint = fetch_model(name, revision, config, config["examples"])
    for picture in pictures_of([row]):
        fetch(picture)
    with TemporaryDirectory() as folder:
        record, images, seen = (f"{folder}/{name}" for name in ("model.json", "images", "seen"))
        baseline, tokens, tabled = (
            f"{folder}/{name}.parquet" for name in ("baseline", "tokens", "runs")
        )
        clean = CleanOutput(baseline, tokens, tabled, f"{folder}/states", f"{folder}/clean")
        checkpoint.to_json(record)
        device, dtype = config["device"], config["model"]["dtype"]
        opened = open_model([], record, {}, device, dtype, code="", threads=cores, jobs_per_gpu=1)
        with opened as loaded, torch.inference_mode():
            encode_shard(loaded, dict.fromkeys(pictures_of([row]), ""), True, images, seen)
            answer_shard(loaded, [row], [images], [seen], config["metrics"], clean)
            files = CleanFiles(
                [images], [clean.states], [clean.tokens], [clean.runs], [seen, clean.facts]
            )

            def answered(batch: Batch, level: float) -> float:
                scores = score_run(loaded.traced, batch, run.at([level]), config["metrics"])
                return float(scores.columns[f"p_{run.question}"].mean())

            def work(batch: Batch) -> list[pd.DataFrame]:
                found = roots(partial(answered, batch), floor, tried, f"runs.{run.name}")
                return [pd.DataFrame({"example": row["example"], "level": found})]

            runs = CleanRuns(loaded.traced, files, [row], corrupted=corrupted_by(run))
            (found,) = runs.measure(1, work, run.name, run.corruption.of_picture)
    return found["level"].tolist()


def roots(
    answered: Callable[[float], float], floor: float, tried: Sequence[float], run: str
) -> list[float]:
    """Where a probability by level crosses the floor, between neighbours of the levels tried.

    Raises InputError, naming the run, where no two neighbours enclose it.
    """
    from scipy.optimize import brentq

    found = [answered(level) for level in tried]
    levels = []
    for place in range(len(tried) - 1):
        low, high = found[place : place + 2]
        if low != high and min(low, high) <= floor <= max(low, high):
            root = brentq(lambda level: answered(level) - floor, tried[place], tried[place + 1])
            levels.append(float(f"{root:.{TABLE_DIGITS}g}"))
    if not levels:
        raise InputError(
            f"{run}: from level {tried[0]:g} to {tried[-1]:g} the answer has {min(found):.4f} to "
            f"{max(found):.4f}, and never {floor:g}; give other levels with --between"
        )
    return list(dict.fromkeys(levels))


def with_level(text: str, run: str, level: float, source: str) -> str:
    """The configuration's text with this level alone, all else as it is written.

    Raises InputError where the file does not write out the levels, or would not do any more.
    """
    written = f"{level:.{TABLE_DIGITS}g}"
    root = yaml.compose(text)
    found = {path: pair_at(root, path) for path in (("runs", run, "corrupt", "levels"), *BESIDE)}
    levels, *beside = found.values()
    if levels is None:
        raise InputError(f"{source}: runs.{run}.corrupt.levels is left out; write it there")
    spans = [(*span_of(*levels), f" [{written}]")]
    for path, pair in zip(BESIDE, beside, strict=True):
        if pair is None:
            continue
        start, end = span_of(*pair)
        if end <= start:  # what an alias stands for was written before
            raise InputError(f"{source}: {'.'.join(path)} is an alias; write out its level")
        spans.append((start, end, f" {written}"))
    for start, end, words in sorted(spans, reverse=True):
        text = text[:start] + words + text[end:]
    fill_config(yaml.safe_load(text))
    return text


def span_of(key: yaml.Node, value: yaml.Node) -> tuple[int, int]:
    """From behind a key's colon to the end of its value; YAML's end of a list by lines is later."""
    last = value
    if isinstance(value, yaml.SequenceNode) and not value.flow_style:
        last = value.value[-1]
    return key.end_mark.index + 1, last.end_mark.index


def pair_at(
    root: yaml.Node | None, path: Sequence[str]
) -> tuple[yaml.ScalarNode, yaml.Node] | None:
    """A key of a YAML text and its value, None where it is not there."""
    node, pair = root, None
    for part in path:
        if not isinstance(node, yaml.MappingNode):
            return None
        pair = next((pair for pair in node.value if pair[0].value == part), None)
        node = pair and pair[1]
    return pair


def parse(command: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="the configuration, a YAML file")
    parser.add_argument("--run", required=True, help="the corrupted run whose level is solved for")
    parser.add_argument("--example", required=True, help="the sheet's example")
    parser.add_argument(
        "--floor", type=float, required=True, help="the probability that its answer is to have"
    )
    parser.add_argument(
        "--between",
        type=float,
        nargs=2,
        default=(0.0, 1.0),
        metavar=("LOW", "HIGH"),
        help="the levels that are looked between (default: 0 1)",
    )
    parser.add_argument("--write", action="store_true", help="write the level into the file")
    parser.add_argument("--cores", type=int, default=1, help="on a CPU (default: 1)")
    return parser.parse_args(command)


def main() -> int:
    """Run the command."""
    return run_command(lambda: solve(parse()))


if __name__ == "__main__":
    sys.exit(main())
