"""Which code a job depends on, as a digest: a rule's parameter, so that a change reruns the rule.

Snakemake sees a changed script, but not a changed module that the script imports.
"""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

# The folder of the scripts, and of the package: both are imported from there.
SCRIPTS = Path(__file__).parents[2]


@cache
def code_digest(path: str) -> str:
    """Digest of a script or notebook and of all of the project's modules that it comes to import.

    Twelve hex digits that change exactly when the content of one of those files does.
    """
    digest = hashlib.sha256()
    for file in sorted(code_files(Path(path).resolve())):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def code_files(path: Path) -> set[Path]:
    """The file itself and the project's modules that it imports, directly or not."""
    found: set[Path] = set()
    pending = [path]
    while pending:
        file = pending.pop()
        if file not in found:
            found.add(file)
            pending.extend(imported_modules(file))
    return found


def imported_modules(path: Path) -> list[Path]:
    """The package's modules and the scripts that one file names in its imports, wherever in it."""
    return _imported_by(source_of(path))


@cache  # the scripts share most modules, and each start of Snakemake asks for every script's
def _imported_by(source: str) -> list[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    files = {SCRIPTS.joinpath(*name.split(".")).with_suffix(".py") for name in names}
    return sorted(file for file in files if file.is_file())


def source_of(path: Path) -> str:
    """The Python source of a script, or of a notebook's code cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
    return "\n".join("".join(cell["source"]) for cell in cells)
