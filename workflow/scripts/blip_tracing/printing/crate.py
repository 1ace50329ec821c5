"""The description of the supplement that machines read: an RO-Crate, https://w3id.org/ro/crate.

It describes the run by the profile Workflow Run Crate (S. Leo et al., "Recording provenance of
workflow runs with RO-Crate", PLOS ONE 2024): a workflow, what was given to it, what it made. Who
ran it and when is not known to it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

from rocrate.model import ComputerLanguage
from rocrate.rocrate import ROCrate

METADATA = "ro-crate-metadata.json"
# The one that the profiles of RUN_PROFILES are of.
VERSION = "1.1"
# RO-Crate demands a date. The day of the run would make every run's bytes its own, so it is the
# first that a zip archive can hold, until the author puts the day of publication in its place.
UNDATED = date(1980, 1, 1)
# RO-Crate demands a licence as well.
UNLICENSED = {
    "@id": "#licence",
    "@type": "CreativeWork",
    "name": "not chosen yet",
    "description": "for the authors to choose",
}
PROFILE = {
    "@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE",
    "@type": "CreativeWork",
    "name": "Bioschemas ComputationalWorkflow",
    "description": "how workflows are described",
}
# Of the whole: each profile rests on those before.
RUN_PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
SNAKEMAKE = "https://snakemake.readthedocs.io"
FORMATS = {
    ".bib": "application/x-bibtex",
    ".cff": "application/yaml",
    ".csv": "text/csv",
    ".json": "application/json",
    ".md": "text/markdown",
    ".ipynb": "application/x-ipynb+json",
    ".parquet": "application/vnd.apache.parquet",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".py": "text/x-python",
    ".smk": "text/plain",
    ".tex": "application/x-tex",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/plain",
    ".yaml": "application/yaml",
}


class Described(NamedTuple):
    """A file of the crate and what it is, in a sentence."""

    path: Path
    description: str


class RunFiles(NamedTuple):
    """Names in the crate: of the workflow's entry, what was given to the run and what it made."""

    workflow: str
    given: Sequence[str]
    made: Sequence[str]


@dataclass(frozen=True)
class Origin:
    """Where the workflow comes from, as `given.origin` finds it; "" where it is not known.

    authors: kind (Person or Organization), name, orcid; licence: an SPDX identifier.
    """

    authors: Sequence[Mapping[str, str]] = ()
    licence: str = ""
    repository: str = ""
    commit: str = ""


def describe(
    files: Mapping[str, Described],
    run: RunFiles,
    title: str,
    description: str,
    snakemake: str,
    origin: Origin,
) -> str:
    """The text of the crate's metadata file.

    files: by their names in the crate; snakemake: its version. The same arguments give the same
    text.
    """
    crate = ROCrate(version=VERSION)
    crate.name, crate.description, crate.datePublished = title, description, UNDATED
    crate.license = licence = crate.add_jsonld(_licence(origin.licence))
    authors = [crate.add_jsonld(_author(author)) for author in origin.authors]
    crate.creator = authors
    language = crate.add(
        ComputerLanguage(
            crate, SNAKEMAKE, {"name": "Snakemake", "url": SNAKEMAKE, "version": snakemake}
        )
    )
    crate.add_jsonld(dict(PROFILE))
    crate.root_dataset["conformsTo"] = [
        crate.add_jsonld(
            {"@id": address, "@type": "CreativeWork", "name": name,
             "version": address.rsplit("/", 1)[1]}
        )
        for address, name in RUN_PROFILES.items()
    ]  # fmt: skip
    for name, (path, words) in sorted(files.items()):
        properties = {"name": name, "description": words, "contentSize": str(path.stat().st_size)}
        kind = FORMATS.get(path.suffix)
        if kind:
            properties["encodingFormat"] = kind
        if name == run.workflow:
            crate.mainEntity = crate.add_workflow(path, name, lang=language, properties=properties)
            crate.mainEntity["license"] = licence
            crate.mainEntity["conformsTo"] = {"@id": PROFILE["@id"]}
            crate.mainEntity["creator"] = authors
            if origin.repository:
                crate.mainEntity["codeRepository"] = origin.repository
            if origin.commit:
                crate.mainEntity["version"] = origin.commit
        else:
            crate.add_file(path, name, properties=properties)
    action = {
        "@id": "#run",
        "@type": "CreateAction",
        "name": title,
        "instrument": {"@id": run.workflow},
        "object": [{"@id": name} for name in sorted(run.given)],
        "result": [{"@id": name} for name in sorted(run.made)],
        "actionStatus": {"@id": "http://schema.org/CompletedActionStatus"},
    }
    crate.root_dataset["mentions"] = [crate.add_jsonld(action)]
    return json.dumps(crate.metadata.generate(), indent=2, ensure_ascii=False) + "\n"


def _licence(spdx: str) -> dict[str, str]:
    if not spdx:
        return dict(UNLICENSED)
    return {
        "@id": f"https://spdx.org/licenses/{spdx}",
        "@type": "CreativeWork",
        "name": spdx,
        "description": "of the workflow; results are under it unless their authors say otherwise",
    }


def _author(author: Mapping[str, str]) -> dict[str, str]:
    name = author["name"]
    return {
        "@id": author["orcid"] or f"#{'-'.join(name.lower().split())}",
        "@type": author["kind"],
        "name": name,
    }
