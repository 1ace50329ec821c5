"""Time the whole workflow on a dataset of drawn scenes, in a fresh copy of the project.

    python benchmarks/dataset.py [--scenes N] [--cores N] [--device cpu|cuda] [--folder F] [--plan]

Scenes are drawn, `make_sheet.py` makes an example of each (two questions about colours that the
miniature answers rightly), and Snakemake measures it all: both sites, seven noise levels, ten draws
and the null. `--plan` stops once the graph is built. The copy is kept where `--folder` names one.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import pyarrow.compute as pc
import pyarrow.dataset as ds
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))

from project import copy_project

from blip_tracing.given.checkpoint import read_architecture
from blip_tracing.vocabulary.corruptions import QUESTION_EMBEDDINGS
from blip_tracing.vocabulary.experiment import BASE, SOURCE
from blip_tracing.vocabulary.tables import UNRELATED

CHECKPOINT = "resources/miniature/checkpoint"
SCENES = "scenes"
SHEET = "config/scenes.tsv"
CONFIG = "config/scenes.yaml"
SITES = ["encoder.block_input", "encoder.block_output"]
NOISE_LEVELS = [0.1, 0.5, 1, 2, 5, 10, 20]
# "what is the color of the animal": nine tokens with [CLS] and [SEP], as in the tutorial.
WORDS = 7
# The miniature answers one question in a hundred wrongly, and its scene is then left out.
SCENES_AN_EXAMPLE = 1.05
PLANS = 3
NOISY = "noisy"
EXPERIMENTS = {
    "patching": {"receiver": BASE, "donor": SOURCE, "sites": SITES},
    "tracing": {"receiver": NOISY, "donor": BASE, "sites": SITES},
}


def configuration(layers: dict[str, int], device: str) -> dict:
    """What is measured, in few and large jobs; layers: of each tower."""
    noise = {"kind": "gaussian", "at": QUESTION_EMBEDDINGS, "levels": NOISE_LEVELS, "draws": 10}
    return {
        "model": {"name": CHECKPOINT, "layers": layers},
        "device": device,
        "examples": SHEET,
        "shard_size": 64,
        "layers_per_job": layers["encoder"],
        "noise_levels_per_job": len(NOISE_LEVELS),
        "runs": {NOISY: {"of": BASE, "corrupt": noise}},
        "experiments": EXPERIMENTS,
        "tables": {"format": "parquet"},
        "report": {"draws_at": 2},
    }


def seconds(project: Path, *command: str) -> float:
    """Wall time of a Python command in the project; ends here, showing its output, if it fails."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command],
        cwd=project,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}")
    return time.perf_counter() - start


def prepare(project: Path, examples: int, device: str) -> dict[str, float]:
    """Draw the scenes, make the sheet and write the configuration; the seconds of each step."""
    scenes = int(examples * SCENES_AN_EXAMPLE) + 1
    drawing = ["resources/miniature/draw_scenes.py", SCENES, "--scenes", str(scenes)]
    sheet = ["workflow/scripts/make_sheet.py", f"{SCENES}/questions.csv", SHEET]
    sheet += ["--model", CHECKPOINT, "--pictures", f"{SCENES}/{{id:012d}}.png"]
    sheet += ["--pairs", "same-picture", "--words", str(WORDS), "--correct"]
    sheet += ["--sample", str(examples), "--device", device]
    times = {
        f"drawing {scenes:,} scenes": seconds(project, *drawing),
        "making the sheet": seconds(project, *sheet),
    }
    model = read_architecture(project / CHECKPOINT)
    text, vision = model.text.layers, model.vision.layers
    layers = {"encoder": text, "decoder": text, "vision": vision}
    content = yaml.safe_dump(configuration(layers, device))
    (project / CONFIG).write_text(content, encoding="utf-8")
    return times


def snakemake(project: Path, cores: int, *arguments: str) -> float:
    """Wall time of a Snakemake command on the dataset."""
    # Looked at every second, the default, the waiting jobs keep a quarter of a core busy.
    pace = ["--max-jobs-per-timespan", "6000/60s"]
    command = ["-m", "snakemake", "--cores", str(cores), "--configfile", CONFIG, *pace]
    return seconds(project, *command, *arguments)


def count_interventions(tables: Path) -> dict[str, int]:
    """Rows of results and of null controls, each of which is an intervention and its run."""
    counts = {name: ds.dataset(tables / f"{name}.parquet").count_rows() for name in EXPERIMENTS}
    null = pc.field("control") == UNRELATED
    return counts | {UNRELATED: ds.dataset(tables / "controls.parquet").count_rows(filter=null)}


def describe_jobs(jobs: pd.DataFrame) -> str:
    """A line a rule: how many jobs, their time and the largest memory."""
    table = jobs.groupby("rule", sort=False).agg(
        jobs=("seconds", "size"), seconds=("seconds", "sum"), largest_MiB=("memory_mib", "max")
    )
    return table.sort_values("seconds", ascending=False).round(1).to_string()


def report(project: Path, run: float, processor: float) -> None:
    """Print what the run did, its rate and its jobs."""
    counts = count_interventions(project / "results/tables")
    total = sum(counts.values())
    print(f"{run:8.1f} s the whole run, {processor:.0f} s of processor time")
    print(f"{total:,} interventions: " + ", ".join(f"{n:,} {name}" for name, n in counts.items()))
    print(f"{total / run:,.0f} interventions a second")
    jobs = pd.read_csv(project / "results/runtimes.csv")
    print(f"{jobs['memory_mib'].max():,.0f} MiB the largest memory of a job\n")
    print(describe_jobs(jobs))


def measure(project: Path, arguments: argparse.Namespace) -> None:
    """Prepare, plan and run, printing each time as it is known."""
    cores = f"{arguments.cores} of {os.cpu_count()} cores"
    print(f"{platform.machine()}, {cores}, device {arguments.device}")
    print(f"{arguments.scenes:,} examples, miniature checkpoint, float32")
    for step, taken in prepare(project, arguments.scenes, arguments.device).items():
        print(f"{taken:8.1f} s {step}", flush=True)
    plans = [snakemake(project, arguments.cores, "--dry-run", "--quiet") for _ in range(PLANS)]
    print(f"{statistics.median(plans):8.1f} s building the graph (snakemake -n)", flush=True)
    if arguments.plan:
        return
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = snakemake(project, arguments.cores)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    report(project, run, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=1000, help="examples, one a scene")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path, help="a new folder for the copy, which is kept")
    parser.add_argument("--plan", action="store_true", help="build the graph alone")
    return parser.parse_args()


def main() -> None:
    """Measure in a copy of the project, so that nothing computed before is of use."""
    arguments = parse()
    if arguments.folder:
        measure(copy_project(arguments.folder), arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(copy_project(Path(folder) / "project"), arguments)


if __name__ == "__main__":
    main()
