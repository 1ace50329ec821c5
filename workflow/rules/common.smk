# What all stages share: checked inputs, the shards, and the digests that make results stale.

import logging
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "workflow/scripts"))

from blip_tracing.checkpoint import checkpoint_files, is_local
from blip_tracing.devices import check_device
from blip_tracing.graph import Place, cut, group, noise_label, pictures_of, unrelated_rows
from blip_tracing.pictures import is_url, picture_path
from blip_tracing.planning import (
    check_config_file,
    check_named_files,
    ending_in_one_line,
    read_inputs,
)
from blip_tracing.run_lock import begin_run
from blip_tracing.staleness import code_digest

SCRIPTS = Path(workflow.basedir) / "workflow/scripts"
DEFAULT_CONFIG = "config/config.yaml"

# Snakemake writes a log of its own, each line of which would show a traceback on a full disk.
logging.raiseExceptions = False

# A file given with --configfile stands alone: nothing of the default is merged into it.
if not workflow.overwrite_configfiles:
    with ending_in_one_line():
        check_config_file(DEFAULT_CONFIG)

    configfile: DEFAULT_CONFIG


with ending_in_one_line():
    SHEET = read_inputs(config, workflow.configfiles)
    if workflow.is_main_process:
        for warning in check_named_files(config, SHEET):
            logger.warning(warning)


onstart:
    # Here and not above: jobs are about to run, as they are not on a dry run or a --summary.
    with ending_in_one_line():
        if workflow.local_exec:  # a cluster's head node needs no GPU
            check_device(config["device"])
        if warning := begin_run(Path.cwd()):
            logger.warning(warning)


ROWS = SHEET.to_dict("records")
EXAMPLES = [row["example"] for row in ROWS]
SHARDS = cut(ROWS, config["shard_size"])
PICTURE_SHARDS = cut(pictures_of(ROWS), config["shard_size"])
PICTURE_SHARD_OF = {image: shard for shard, images in PICTURE_SHARDS.items() for image in images}
REMOTE_PICTURES = {
    Path(picture_path(row["image"])).name: row for row in reversed(ROWS) if is_url(row["image"])
}
UNRELATED = unrelated_rows(ROWS)
SHARD_OF = {row["example"]: shard for shard, rows in SHARDS.items() for row in rows}
# For the rules' messages.
PLACE, PICTURE_PLACE = Place(len(SHARDS)), Place(len(PICTURE_SHARDS))
MODEL = config["model"]["name"]
LAYERS = group(range(config["model"]["layers"]), config["layers_per_job"], str)
NOISE_LEVELS = group(config["tracing"]["noise_levels"], config["noise_levels_per_job"], noise_label)
LARGE_TABLES = {"patching", "tracing", "controls", "effects"}
# What a job that runs the model asks a scheduler for.
GPUS = 0 if config["device"] == "cpu" else 1


wildcard_constraints:
    layers=r"[0-9-]+",
    noise_levels=r"[0-9.e+-]+",
    picture="|".join(map(re.escape, REMOTE_PICTURES)) or "none",
    shard=r"\d+",
    site=r"block_input|block_output",


def code_of(script):
    """The digest of a script and the modules it uses, which reruns a rule when it changes."""
    return code_digest(str(SCRIPTS / script))


def growing(amount):
    """A resource that grows with each attempt at a job, for profiles that retry."""
    return lambda wildcards, attempt: amount * attempt


def rows_of(wildcards):
    """The sheet's rows of a shard."""
    return SHARDS[wildcards.shard]


def unrelated_to(wildcards):
    """Example → the unrelated example that is its null, for the rows of a shard."""
    examples = [row["example"] for row in SHARDS[wildcards.shard]]
    return {name: UNRELATED[name]["example"] for name in examples if name in UNRELATED}


def encoded_pictures_of(suffix):
    """The files, by suffix, of the picture shards that hold the pictures of a shard's rows."""

    def files(wildcards):
        shards = {PICTURE_SHARD_OF[row["image"]] for row in SHARDS[wildcards.shard]}
        return [f"results/images/{shard}.{suffix}" for shard in sorted(shards)]

    return files


def clean_runs_of(path):
    """The files of a shard and of those that hold its unrelated examples, its own first."""

    def files(wildcards):
        others = {SHARD_OF[name] for name in unrelated_to(wildcards).values()}
        shards = [wildcards.shard, *sorted(others - {wildcards.shard})]
        return [path.format(shard=shard) for shard in shards]

    return files


def facts_of_clean_runs(wildcards):
    """What vouches for the files that a shard's interventions begin from."""
    baseline = clean_runs_of("results/baseline/{shard}.json")
    return encoded_pictures_of("json")(wildcards) + baseline(wildcards)


def table(name):
    """Where a whole table lies; those with a row a cell are in the configured format."""
    suffix = config["tables"]["format"] if name in LARGE_TABLES else "csv"
    return f"results/tables/{name}.{suffix}"
