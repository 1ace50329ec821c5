"""Where a path of the configuration or the sheet leads: into the study, else into the workflow."""

import os
from collections.abc import Iterable
from pathlib import Path, PurePath

# What ships with the workflow lies below it: the miniature, its pictures, the published numbers.
WORKFLOW = Path(__file__).parents[4]


def found(path: str) -> str:
    """The path as it is where the study's folder has it, else the workflow's own file of that name.

    A path that neither has stays as it is, for the check that names it.
    """
    # Of a path that is too long it is said that there is none, where Path raises.
    if not path or os.path.exists(path):  # noqa: PTH110
        return path
    own = str(WORKFLOW / path)
    return own if os.path.exists(own) else path  # noqa: PTH110


def named(paths: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Files by their names in a folder from which the run can be made again, and those of none.

    A name leads from the study's folder, or where `found` took the workflow's own file, from the
    workflow's. What lies elsewhere has none.
    """
    names, elsewhere = {}, []
    for path in paths:
        relative = os.path.relpath(path, WORKFLOW) if PurePath(path).is_absolute() else path
        name = os.path.normpath(relative)
        if PurePath(name).is_absolute() or name.startswith(os.pardir):
            elsewhere.append(path)
        else:
            names[PurePath(name).as_posix()] = path
    return names, elsewhere
