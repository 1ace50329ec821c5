# What all stages share: checked inputs, the shards, and the digests that make results stale.

import logging
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "workflow/scripts"))

from blip_tracing.checkpoint import checkpoint_digests, checkpoint_files, is_local
from blip_tracing.contents import content_digest, content_digests
from blip_tracing.devices import check_device, slow_precision
from blip_tracing.graph import Place, cut, group, noise_label, pictures_of, unrelated_rows
from blip_tracing.pictures import is_url, picture_path
from blip_tracing.planning import (
    Known,
    check_clock,
    check_config_file,
    check_named_files,
    ending_in_one_line,
    read_inputs,
    read_overrides,
)
from blip_tracing.run_lock import begin_run, stop_when_over
from blip_tracing.staleness import code_digest

SCRIPTS = Path(workflow.basedir) / "workflow/scripts"
DEFAULT_CONFIG = "config/config.yaml"

# Snakemake writes a log of its own, each line of which would show a traceback on a full disk.
logging.raiseExceptions = False

# A job that waited in a cluster's queue while its run was killed. Here and not in its script:
# Snakemake deletes a job's outputs, which may be the next run's by now, before it starts the script.
if not workflow.is_main_process:
    with ending_in_one_line():
        stop_when_over(f"{Path.cwd()}: this job is not begun")

# A file given with --configfile stands alone: nothing of the default is merged into it.
if not workflow.overwrite_configfiles:
    with ending_in_one_line():
        check_config_file(DEFAULT_CONFIG)

    configfile: DEFAULT_CONFIG


with ending_in_one_line():
    # Merged into the files' by Snakemake already, but as text.
    OVERRIDES = read_overrides(
        workflow.config_settings.config, workflow.config_settings.config_args
    )
    SHEET = read_inputs(config, workflow.configfiles, OVERRIDES)
    if workflow.is_main_process:
        for warning in check_named_files(config, SHEET):
            logger.warning(warning)


onstart:
    # Here and not above: jobs are about to run, as they are not on a dry run or a --summary.
    with ending_in_one_line():
        if workflow.local_exec:  # a cluster's head node needs no GPU, and its jobs go elsewhere
            check_device(config["device"])
            if warning := slow_precision(config["device"], config["model"]["dtype"]):
                logger.warning(warning)
        if warning := begin_run(Path.cwd()):
            logger.warning(warning)
        check_clock(config, SHEET)


ROWS = SHEET.to_dict("records")
EXAMPLES = [row["example"] for row in ROWS]
SHARDS = Known("shard", cut(ROWS, config["shard_size"]))
PICTURE_SHARDS = Known("shard", cut(pictures_of(ROWS), config["shard_size"]))
PICTURE_SHARD_OF = {image: shard for shard, images in PICTURE_SHARDS.items() for image in images}
REMOTE_PICTURES = {
    Path(picture_path(row["image"])).name: row for row in reversed(ROWS) if is_url(row["image"])
}
CHECKSUM_OF = {row["image"]: row["image_sha256"] for row in ROWS}
UNRELATED = unrelated_rows(ROWS)
SHARD_OF = {row["example"]: shard for shard, rows in SHARDS.items() for row in rows}
# For the rules' messages.
PLACE, PICTURE_PLACE = Place(len(SHARDS)), Place(len(PICTURE_SHARDS))
MODEL = config["model"]["name"]
LAYERS = Known("layers", group(range(config["model"]["layers"]), config["layers_per_job"], str))
NOISE_LEVELS = Known(
    "noise_levels",
    group(config["tracing"]["noise_levels"], config["noise_levels_per_job"], noise_label),
)
SITES = {
    experiment: Known("site", {site: site for site in config[experiment]["sites"]})
    for experiment in ["patching", "tracing"]
}
LARGE_TABLES = {"patching", "tracing", "controls", "effects"}
# What a job that runs the model asks a scheduler for.
GPUS = 0 if config["device"] == "cpu" else 1


wildcard_constraints:
    # One name of a file; `Known` says which there are.
    layers=r"[^/]+",
    noise_levels=r"[^/]+",
    picture="|".join(map(re.escape, REMOTE_PICTURES)) or "none",
    shard=r"[^/]+",
    site=r"[^/]+",


def code_of(script):
    """The digest of a script and the modules it uses, which reruns a rule when it changes."""
    return code_digest(str(SCRIPTS / script))


def contents_of(*paths):
    """The digest of given files, which reruns a rule when it changes, whatever the files' times."""
    return lambda wildcards: content_digest(paths)


def model_contents(wildcards):
    """The digests of a local checkpoint's files; those of a Hub model are its commit's."""
    return checkpoint_digests(MODEL) if is_local(MODEL) else {}


def picture_contents(wildcards):
    """The digest that each picture of a shard must have: a fetched one's is the sheet's, if any."""
    images = PICTURE_SHARDS[wildcards.shard]
    found = content_digests({image: [image] for image in images if not is_url(image)})
    return {image: found[image] if image in found else CHECKSUM_OF[image] for image in images}


def picture_input(image):
    """A picture as a rule's input; of a given one the contents decide, as parameters do."""
    path = picture_path(image)
    return path if is_url(image) else ancient(path)


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
