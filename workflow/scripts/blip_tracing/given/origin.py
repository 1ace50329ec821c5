"""Where the workflow comes from: its citation file, and the commit of its clone."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

CITATION = "CITATION.cff"


def origin_of(project: Path) -> dict[str, Any]:
    """Authors (name, and orcid where given), licence (SPDX), repository and commit of a project.

    "" or nothing where it is not known, as in a copy without a history. A commit ends in "-dirty"
    where files that git knows have been changed since.
    """
    path = project / CITATION
    cited = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {
        "authors": [_author(author) for author in cited.get("authors", [])],
        "licence": str(cited.get("license", "")),
        "repository": str(cited.get("repository-code", "")),
        "commit": _commit(project),
    }


def _author(author: dict[str, Any]) -> dict[str, str]:
    person = " ".join(str(author[key]) for key in ("given-names", "family-names") if key in author)
    kind = "Person" if person else "Organization"
    return {
        "kind": kind,
        "name": person or str(author.get("name", "")),
        "orcid": str(author.get("orcid", "")),
    }


def _commit(project: Path) -> str:
    # A copy inside another repository has none of its own.
    if not (project / ".git").exists():
        return ""
    asked = ["git", "-C", str(project), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run([*asked, "--exclude=*"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
