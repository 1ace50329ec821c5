# What the supplement's archive holds so that the run can be made again from it.

from blip_tracing.given.places import named

# What a run needs of the project, in its folders.
PROJECT_PARTS = ["Snakefile", "LICENSE", "CITATION.cff", "requirements*.txt", "config/**/*.md"]
PROJECT_PARTS += [f"{folder}/**/*" for folder in ("workflow", "envs", "profiles")]
# A larger checkpoint is for its reader to fetch.
LARGEST_CHECKPOINT = 32 * 2**20


def project_files():
    """The workflow's own files by their names in its folder."""
    root = WORKFLOW.parent
    files = {path for part in PROJECT_PARTS for path in root.glob(part) if path.is_file()}
    kept = sorted(path for path in files if "__pycache__" not in path.parts)
    return {path.relative_to(root).as_posix(): os.path.relpath(path) for path in kept}


def local_checkpoint():
    """The files of a local checkpoint that is small enough for the archive."""
    files = checkpoint_files(MODEL) if is_local(MODEL) else []
    return files if sum(map(os.path.getsize, files)) <= LARGEST_CHECKPOINT else []


def given_files():
    """What was given to the run, by names in the archive, and what has none there."""
    pictures = [image for image in PLAN.checksums if image and not is_url(image)]
    texts = [config[key] for key in ("method", "published") if config[key]]
    return named([config["examples"], *texts, *local_checkpoint(), *pictures])


def lacking():
    """What a reader of the archive has to find elsewhere, in words."""
    _, elsewhere = given_files()
    said = [f"{len(elsewhere)} given files from outside the study’s folder"] if elsewhere else []
    if not is_local(MODEL):
        said.append(f"the model {MODEL}, which the run fetches")
    elif not local_checkpoint():
        said.append("the checkpoint, whose digests stand in the provenance of each table")
    if PLAN.remote_pictures:
        said.append("pictures of the sheet that have an address, which the run fetches")
    return said


def config_again():
    """The configuration, its paths those of the archive."""
    names, _ = given_files()
    own_names = {path: name for name, path in names.items()}
    model, _ = named([MODEL]) if is_local(MODEL) else ({MODEL: MODEL}, [])
    return {
        **config,
        "model": {**config["model"], "name": next(iter(model), MODEL)},
        "examples": own_names.get(config["examples"], config["examples"]),
        **{key: own_names.get(config[key], config[key]) for key in ("method", "published")},
    }
