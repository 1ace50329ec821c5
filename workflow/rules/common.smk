# What all stages share: checked inputs, the plan, and the digests that make results stale.

import logging
import os
import re
import sys
from pathlib import Path

# Beside this file, wherever the study lies.
WORKFLOW = Path(str(workflow.current_basedir)).parent
SCRIPTS = WORKFLOW / "scripts"
sys.path.insert(0, str(SCRIPTS))

from blip_tracing.given.checkpoint import checkpoint_digests, checkpoint_files, is_local
from blip_tracing.machinery.contents import content_digest, content_digests
from blip_tracing.machinery.devices import check_device, slow_precision
from blip_tracing.given.plan import CLAIMS, CLEAN_FILES, IMAGES, Plan
from blip_tracing.given.pictures import is_url, picture_path
from blip_tracing.given.planning import (
    Known,
    check_clock,
    check_config_file,
    check_named_files,
    ending_in_one_line,
    read_inputs,
    read_overrides,
)
from blip_tracing.machinery.lock import begin_run, stop_when_over
from blip_tracing.machinery.staleness import code_digest
from blip_tracing.machinery.terminal import shorten
from blip_tracing.meaning.replication.published_averages import are_averages
from blip_tracing.vocabulary.experiment import described
from blip_tracing.vocabulary.multiverse import MULTIVERSE

DEFAULT_CONFIG = "config/config.yaml"

# Snakemake writes a log of its own, each line of which would show a traceback on a full disk.
logging.raiseExceptions = False

# A line a job. What a cluster's job says of itself is for its own log.
if workflow.is_main_process:
    shorten(logger, lambda: workflow.dryrun)

# A job that waited in a cluster's queue while its run was killed. Here and not in its script:
# Snakemake deletes a job's outputs, which may be the next run's by now, before it starts the script.
if not workflow.is_main_process:
    with ending_in_one_line():
        stop_when_over(f"{Path.cwd()}: this job is not begun")

# A file given with --configfile stands alone: nothing of the default is merged into it. Neither is
# it into what a `module` statement gives, which is there by now beside what --config gives.
if not workflow.overwrite_configfiles and set(config) <= set(workflow.config_settings.config):
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


PLAN = Plan(config, SHEET.to_dict("records"), Known, are_averages(config["published"]))
MODEL = config["model"]["name"]
# What a job that runs the model asks a scheduler for.
GPUS = 0 if config["device"] == "cpu" else 1


def one_of(names):
    """The wildcard that is one of these names."""
    return "|".join(map(re.escape, names)) or "none"


wildcard_constraints:
    # One name of a file; the plan's `Known` says which there are.
    experiment=r"[^/]+",
    part=r"[^/]+",
    picture=one_of(PLAN.remote_pictures),
    run=one_of(PLAN.corrupted),
    shard=r"[^/]+",
    suffix="csv|parquet",


def code_of(script):
    """The digest of a script and the modules it uses, which reruns a rule when it changes."""
    return code_digest(str(SCRIPTS / script))


def contents_of(*paths):
    """The digest of given files, which reruns a rule when it changes, whatever the files' times."""
    return lambda wildcards: content_digest(paths)


def model_contents(wildcards):
    """The digests of a local checkpoint's files; those of a Hub model are its commit's."""
    return checkpoint_digests(MODEL) if is_local(MODEL) else {}


def picture_contents(images):
    """The digest that each picture must have: a fetched one's is the sheet's, if any."""
    given = {image: [picture_path(image)] for image in images if not is_url(image)}
    found = content_digests(given)
    return {image: found.get(image, PLAN.checksums[image]) for image in images}


def picture_input(image):
    """A picture as a rule's input; of a given one the contents decide, as parameters do."""
    path = picture_path(image)
    return path if is_url(image) else ancient(path)


def own(path):
    """A file of the workflow's own, from where the study lies."""
    return os.path.relpath(WORKFLOW / path)


def notebook_of(wildcards):
    """The notebook that makes a page."""
    return own(f"notebooks/{PLAN.pages[wildcards.page].notebook}.ipynb")


def cell_parts(shard):
    """Every experiment's files of cells and of controls, of a shard."""
    return {
        name: [
            tuple(paths)
            for paths in zip(
                PLAN.cell_files(name, shard, "cells", "parquet"),
                PLAN.cell_files(name, shard, "controls", "parquet"),
                strict=True,
            )
        ]
        for name in PLAN.experiments
    }


def growing(amount):
    """A resource that grows with each attempt at a job, for profiles that retry."""
    return lambda wildcards, attempt: amount * attempt


def model_for(script):
    """What a job opens the model with, which reruns it when it changes; `open_model` has the rest."""
    return lambda wildcards: {
        "contents": model_contents(wildcards),
        "record": "results/model.json",
        "dtype": config["model"]["dtype"],
        "code": code_of(script),
    }


def place_of_model(wildcards, threads, resources):
    """Where a job runs the model, which changes no number: apart, for it must rerun no job."""
    return {
        "device": config["device"],
        "threads": threads,
        "jobs_per_gpu": resources.get("jobs_per_gpu", 1),
    }
