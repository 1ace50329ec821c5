"""The description of the supplement that machines read: an RO-Crate, https://w3id.org/ro/crate.

Only what is known of every run is said: who ran it, and under which licence the results are, is
for their author to add.
"""

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import NamedTuple

from rocrate.model import ComputerLanguage
from rocrate.rocrate import ROCrate

METADATA = "ro-crate-metadata.json"
# RO-Crate demands a date. The day of the run would make every run's bytes its own, so it is the
# first that a zip archive can hold, until the author puts the day of publication in its place.
UNDATED = date(1980, 1, 1)
# RO-Crate demands a licence of the whole as well.
UNLICENSED = {
    "@id": "#licence-of-the-results",
    "@type": "CreativeWork",
    "name": "not chosen yet",
    "description": "for the authors of the results to choose",
}
LICENCE = {
    "@id": "https://spdx.org/licenses/MIT",
    "@type": "CreativeWork",
    "name": "MIT License",
    "description": "of the workflow, not of the results",
}
PROFILE = {
    "@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE",
    "@type": "CreativeWork",
    "name": "Bioschemas ComputationalWorkflow",
    "description": "how workflows are described",
}
SNAKEMAKE = "https://snakemake.readthedocs.io"
FORMATS = {
    ".bib": "application/x-bibtex",
    ".csv": "text/csv",
    ".json": "application/json",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".pdf": "application/pdf",
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


def describe(
    files: Mapping[str, Described], workflow: str, title: str, description: str, snakemake: str
) -> str:
    """The text of the crate's metadata file.

    files: by their names in the crate; workflow: the name, among these, of the workflow's entry;
    snakemake: its version. The same arguments give the same text.
    """
    crate = ROCrate()
    crate.name, crate.description, crate.datePublished = title, description, UNDATED
    crate.license = crate.add_jsonld(dict(UNLICENSED))
    licence = crate.add_jsonld(dict(LICENCE))
    language = crate.add(
        ComputerLanguage(
            crate, SNAKEMAKE, {"name": "Snakemake", "url": SNAKEMAKE, "version": snakemake}
        )
    )
    crate.add_jsonld(dict(PROFILE))
    for name, (path, words) in sorted(files.items()):
        properties = {"name": name, "description": words, "contentSize": str(path.stat().st_size)}
        kind = FORMATS.get(path.suffix)
        if kind:
            properties["encodingFormat"] = kind
        if name == workflow:
            crate.mainEntity = crate.add_workflow(path, name, lang=language, properties=properties)
            crate.mainEntity["license"] = licence
            crate.mainEntity["conformsTo"] = {"@id": PROFILE["@id"]}
        else:
            crate.add_file(path, name, properties=properties)
    return json.dumps(crate.metadata.generate(), indent=2, ensure_ascii=False) + "\n"
