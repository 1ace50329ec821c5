"""What the manual says of a cluster's jobs is what Snakemake plans."""

import math
import re

import pytest
import yaml
from project import ROOT, copy_project, planned_jobs

MANUAL = (ROOT / "config/cluster.md").read_text()
MODEL_RULES = ("encode_images", "answer_baseline", "patch_layer", "trace_noise")


def jobs_by_the_manual(
    rows: int, pictures: int, shard_size: int, sites: tuple[int, int],
    layers: int, layers_per_job: int, levels: int, levels_per_job: int,
) -> int:  # fmt: skip
    """The manual's formula, read from its text, for one configuration."""
    (formula,) = re.findall(r"^    (P \+ S.*(?:\n     .*)*)", MANUAL, re.MULTILINE)
    numbers = {
        "layers_per_job": layers_per_job,
        "noise_levels_per_job": levels_per_job,
        "patching sites": sites[0],
        "tracing sites": sites[1],
        "layers": layers,
        "noise levels": levels,
        "P": math.ceil(pictures / shard_size),
        "S": math.ceil(rows / shard_size),
    }
    for name, number in numbers.items():
        formula = re.sub(rf"\b{name}\b", str(number), formula)
    python = formula.replace("⌈", "math.ceil(").replace("⌉", ")").replace("×", "*")
    return eval(" ".join(python.split()), {"math": math})


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with seven rows about three pictures."""
    project = copy_project(tmp_path_factory.mktemp("cluster") / "project")
    sheet = project / "config/examples.tsv"
    header, *rows = sheet.read_text().splitlines()
    assert len(rows) == len({row.split("\t")[1] for row in rows}) >= 3
    seven = [f"row{n}\t" + rows[n % 3].split("\t", 1)[1] for n in range(7)]
    sheet.write_text("\n".join([header, *seven]) + "\n")
    return project


@pytest.mark.workflow
@pytest.mark.parametrize(
    ("shard_size", "sites", "layers_per_job", "levels", "levels_per_job"),
    [
        (16, (1, 1), 6, 7, 7),
        (2, (2, 2), 1, 7, 1),  # four shards of rows, two of pictures
        (3, (2, 1), 4, 5, 2),  # nothing goes in without a rest
        (3, (0, 2), 6, 3, 2),
        (3, (1, 0), 5, 3, 1),
    ],
)
def test_the_manual_counts_the_jobs_that_run_the_model(
    project, shard_size, sites, layers_per_job, levels, levels_per_job
):
    config = yaml.safe_load((project / "config/config.yaml").read_text())
    names = ["block_input", "block_output"]
    config |= {
        "shard_size": shard_size,
        "layers_per_job": layers_per_job,
        "noise_levels_per_job": levels_per_job,
    }
    config["patching"]["sites"], config["tracing"]["sites"] = (names[:count] for count in sites)
    config["tracing"]["noise_levels"] = [2.0, *range(3, 2 + levels)]
    (project / "config/counted.yaml").write_text(yaml.safe_dump(config))
    planned = planned_jobs(project, "--configfile", "config/counted.yaml")
    by_the_manual = jobs_by_the_manual(
        7, 3, shard_size, sites, config["model"]["layers"], layers_per_job, levels, levels_per_job
    )
    assert sum(planned[rule] for rule in MODEL_RULES) == by_the_manual


def test_the_manuals_table_follows_its_formula():
    rows = re.findall(r"^\| (\d+) \| (\d+), (\d+) \| ([\d,]+) \|", MANUAL, re.MULTILINE)
    assert len(rows) == 6
    for row in rows:
        shard_size, layers, levels, jobs = (int(cell.replace(",", "")) for cell in row)
        assert jobs_by_the_manual(1000, 1000, shard_size, (2, 2), 12, layers, 7, levels) == jobs
