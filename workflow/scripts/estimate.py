"""Say before a run what it will cost, from a calibration of seconds on this machine."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from blip_tracing.given.checkpoint import known_directory, read_architecture
from blip_tracing.given.cost import BLIP_BASE, Cost, Lengths, costs_of
from blip_tracing.given.plan import Plan
from blip_tracing.given.tokens import load_tokenizer
from blip_tracing.vocabulary.experiment import QUESTIONS

SECONDS = 1.5
ROWS = 810
# What a job takes to load its libraries, as measured on a CPU; the weights come on top.
SECONDS_A_JOB = 7.0
# Of the floating-point rate of large products, as the engine reaches it (benchmarks/results).
SHARE = 0.65


def operations_a_second(width: int, inner: int, device: str, dtype: str) -> float:
    """What this machine does in products of the model's own shape, on one thread or its GPU."""
    torch.set_num_threads(1)
    kind = getattr(torch, dtype)
    left = torch.randn(ROWS, width, device=device).to(kind)
    right = torch.randn(width, inner, device=device).to(kind)
    done, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < SECONDS:
        (left @ right).sum().item()
        done += 1
    return done * 2.0 * ROWS * width * inner / taken


def lengths_of(plan: Plan, directory: str) -> tuple[dict[str, Lengths], str]:
    """Example → tokens of its base question and of its longer answer, and how they were counted.

    An answer that is the model's own is one token.
    """
    how = ""
    if directory:
        tokenizer = load_tokenizer(directory)

        def count(text: str) -> int:
            return len(tokenizer.encode(text, add_special_tokens=False).ids)
    else:
        how = "tokens are counted as words, since the tokenizer is not here yet"

        def count(text: str) -> int:
            return len(text.split())

    lengths = {
        row["example"]: Lengths(
            count(row["base_question"]) + 2,
            max(1, *(count(row[f"{question}_answer"]) for question in QUESTIONS)),
            row.get("boxes", "").count("="),
        )
        for row in plan.rows
    }
    return lengths, how


def told(costs: Sequence[Cost], rate: float, where: str, assumed: Sequence[str]) -> str:
    """The estimate in words, a line a stage."""
    lines = [f"{'stage':<28}{'jobs':>6}{'cells':>14}{'TFLOP':>10}"]
    lines += [
        f"{cost.stage:<28}{cost.jobs:>6}{cost.cells:>14,}{cost.operations / 1e12:>10.3g}"
        for cost in costs
    ]
    jobs, cells = sum(cost.jobs for cost in costs), sum(cost.cells for cost in costs)
    operations = sum(cost.operations for cost in costs)
    seconds = operations / (rate * SHARE) + jobs * SECONDS_A_JOB
    lines += [
        f"{'all':<28}{jobs:>6}{cells:>14,}{operations / 1e12:>10.3g}",
        f"about {seconds / 3600:.2g} hours of {where} for what runs the model, extrapolated from "
        f"{rate / 1e9:,.0f} GFLOP/s measured in {SECONDS:g} s, {SHARE:.0%} of which the engine "
        f"reaches, and {SECONDS_A_JOB:g} s a job to load libraries; tables and reports come on top",
        *(f"assumed: {words}" for words in assumed),
    ]
    return "\n".join(lines)


def main(snakemake: Any) -> None:
    """Run as the script of the rule `estimate`; prints, and writes nothing."""
    params, config = snakemake.params, snakemake.config
    plan = Plan(config, params.rows)
    directory = known_directory(**config["model"])
    assumed = []
    if directory and Path(directory).is_dir():
        model = read_architecture(directory)
    else:
        model = BLIP_BASE
        assumed.append("BLIP-base's sizes, since the model is not here yet")
    lengths, how = lengths_of(plan, directory)
    assumed += [how] if how else []
    gpu = config["device"] != "cpu" and torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    rate = operations_a_second(
        model.text.width, model.text.inner_width, device, config["model"]["dtype"]
    )
    where = torch.cuda.get_device_name() if gpu else "one processor core"
    print(told(costs_of(plan, model, lengths), rate, where, assumed), flush=True)


if "snakemake" in globals():
    main(globals()["snakemake"])
