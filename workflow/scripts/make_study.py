"""Lay out a study: a folder with a configuration, a sheet and a README; results will lie in it.

python workflow/scripts/make_study.py ../my-study
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from pathlib import Path

from blip_tracing.errors import InputError
from blip_tracing.given.places import WORKFLOW

README = WORKFLOW / "resources/study/README.md"
COPIED = ("config/config.yaml", "config/examples.tsv")


def make_study(folder: Path) -> None:
    """Write the study's files into a folder that is not there yet, or empty.

    Raises InputError where the folder holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there already; give the study another name")
    (folder / "config").mkdir(parents=True)
    for name in COPIED:
        shutil.copyfile(WORKFLOW / name, folder / name)
    readme = README.read_text(encoding="utf-8")
    named = readme.replace("STUDY", folder.resolve().name).replace(
        "PROJECT", shlex.quote(str(WORKFLOW))
    )
    (folder / "README.md").write_text(named, encoding="utf-8")


def main() -> None:
    """Lay out the study that the command line names."""
    parser = argparse.ArgumentParser(description="Lay out a study in a folder of its own.")
    parser.add_argument("folder", type=Path)
    try:
        make_study(parser.parse_args().folder)
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
