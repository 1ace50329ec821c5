"""What the manual says of a cluster's jobs is what Snakemake plans."""

import math
import re

import pytest
import yaml
from project import ROOT, copy_project, planned_jobs

from blip_tracing.vocabulary.sites import SITES, VISION

# Of whose towers every layer of the manual's formula is one.
TEXT_SITES = [name for name, site in SITES.items() if site.tower != VISION]
MANUAL = (ROOT / "config/cluster.md").read_text()
# The rules that run the model: those that may want a GPU.
RULE_FILES = [path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk"))]
MODEL_RULES = {
    name
    for text in RULE_FILES
    for name, body in re.findall(r"^rule (\w+):\n((?:    .*\n|\n)*)", text, re.MULTILINE)
    if "gpu=GPUS" in body
}


def jobs_by_the_manual(
    rows: int, pictures: int, shard_size: int, clean: int, corrupted: int,
    layers: int, layers_per_job: int, levels: int, levels_per_job: int,
) -> int:  # fmt: skip
    """The manual's formula, read from its text, for one configuration with one corrupted run.

    clean, corrupted: how many experiments.
    """
    (formula,) = re.findall(r"^    (P \+ S.*(?:\n     .*)*)", MANUAL, re.MULTILINE)
    numbers = {
        "layers_per_job": layers_per_job,
        "noise_levels_per_job": levels_per_job,
        "corrupted runs": min(corrupted, 1),
        "clean experiments": clean,
        "corrupted experiments": corrupted,
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


# Experiments by the runs they are of, all of which a sheet of seven rows can have.
CLEAN = {"patching": ("base", "source"), "back": ("source", "base")}
CORRUPTED = {"tracing": ("noisy", "base"), "noising": ("base", "noisy")}


@pytest.mark.workflow
@pytest.mark.parametrize(
    ("shard_size", "clean", "corrupted", "layers_per_job", "levels", "levels_per_job"),
    [
        (2, 1, 1, 1, 7, 1),  # four shards of rows, two of pictures
        (3, 2, 1, 4, 5, 2),  # nothing goes in without a rest
        (16, 0, 2, 6, 3, 2),
        (3, 1, 0, 5, 3, 1),
    ],
)
def test_the_manual_counts_the_jobs_that_run_the_model(
    project, shard_size, clean, corrupted, layers_per_job, levels, levels_per_job
):
    config = configured(project, shard_size, clean, corrupted, layers_per_job, levels)
    config["noise_levels_per_job"] = levels_per_job
    layers = config["model"]["layers"]["encoder"]
    assert planned_of_the_model(project, config) == jobs_by_the_manual(
        7, 3, shard_size, clean, corrupted, layers, layers_per_job, levels, levels_per_job
    )


def configured(project, shard_size, clean, corrupted, layers_per_job, levels):
    config = yaml.safe_load((project / "config/config.yaml").read_text())
    config |= {"shard_size": shard_size, "layers_per_job": layers_per_job}
    asked = [*list(CLEAN.items())[:clean], *list(CORRUPTED.items())[:corrupted]]
    config["experiments"] = {
        name: {"receiver": receiver, "donor": donor, "sites": TEXT_SITES}
        for name, (receiver, donor) in asked
    }
    config["runs"]["noisy"]["corrupt"]["levels"] = [2.0, *range(3, 2 + levels)]
    config["effects"]["primary_level"] = 2.0
    return config


def planned_of_the_model(project, config):
    (project / "config/counted.yaml").write_text(yaml.safe_dump(config))
    planned = planned_jobs(project, "--configfile", "config/counted.yaml")
    return sum(planned[rule] for rule in MODEL_RULES)


@pytest.mark.workflow
def test_where_there_is_one_of_each_the_model_runs_in_one_job(project):
    config = configured(project, 16, 1, 1, 6, 7)
    assert planned_of_the_model(project, config) == 1


def test_the_manuals_table_follows_its_formula():
    rows = re.findall(r"^\| (\d+) \| (\d+), (\d+) \| ([\d,]+) \|", MANUAL, re.MULTILINE)
    assert len(rows) == 6
    for row in rows:
        shard_size, layers, levels, jobs = (int(cell.replace(",", "")) for cell in row)
        assert jobs_by_the_manual(1000, 1000, shard_size, 1, 1, 12, layers, 7, levels) == jobs


@pytest.mark.parametrize("setting", ["profiles/slurm", "profiles/workstation", "LSF", "Kubernetes"])
def test_a_profile_gives_every_rule_that_runs_the_model_what_it_needs(setting):
    if setting.startswith("profiles/"):
        text = (ROOT / setting / "config.yaml").read_text()
    else:
        (text,) = re.findall(rf"^\*\*{setting}\*\*.*?```yaml\n(.*?)```", MANUAL, re.M | re.DOTALL)
    profile = yaml.safe_load(text)
    given = profile.get("set-resources") or profile["set-threads"]
    assert {rule.split("=")[0] for rule in given} == MODEL_RULES
