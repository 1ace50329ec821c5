"""Where a path of the configuration or the sheet leads: into the study, else into the workflow."""

import os
from pathlib import Path

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
