"""The container's recipes, as far as they can be checked without an engine that builds them."""

import json
import re
import shlex

import pytest
import yaml
from project import ROOT

MANUAL = (ROOT / "config/environments.md").read_text()


def read_dockerfile() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, in order."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    instructions = [line for line in lines if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in instructions]


def arguments_of(instruction: str) -> list[str]:
    return [arguments for name, arguments in read_dockerfile() if name == instruction]


def definition() -> dict[str, list[str]]:
    """The sections of the manual's Apptainer definition, its header under the empty name."""
    (text,) = re.findall(r"^Bootstrap: docker\n.*?(?=^EOF$)", MANUAL, re.MULTILINE | re.DOTALL)
    header, *sections = re.split(r"^%", text, flags=re.MULTILINE)
    parts = {name: lines for name, *lines in map(str.splitlines, sections)}
    return {
        name: [line.strip() for line in lines if line.strip()]
        for name, lines in {"": header.splitlines(), **parts}.items()
    }


def python_of_the_environments() -> str:
    content = yaml.safe_load((ROOT / "envs/model.yaml").read_text())
    (python,) = (part for part in content["dependencies"] if str(part).startswith("python="))
    return python.removeprefix("python=")


def test_the_image_has_the_environments_python():
    assert arguments_of("FROM") == [f"python:{python_of_the_environments()}-slim"]


def test_the_image_installs_the_requirements_and_nothing_else():
    (copied,) = arguments_of("COPY")
    source, target = copied.split()
    assert (ROOT / source) == ROOT / "requirements.txt"
    (command,) = arguments_of("RUN")
    program, verb, *options = shlex.split(command)
    assert (program, verb) == ("pip", "install")
    assert options[-2:] == ["--requirement", target]
    assert all(option.startswith("--") for option in options[:-2])


def test_nothing_is_sent_to_the_engine_but_what_is_copied():
    """Neither `.venv` nor results, which are gigabytes."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line.strip() and not line.startswith("#")]
    copied = [source for copy in arguments_of("COPY") for source in copy.split()[:-1]]
    assert rules == ["*", *(f"!{source}" for source in copied)]


def test_the_image_runs_snakemake_in_the_mounted_folder():
    order = [name for name, _ in read_dockerfile()]
    assert order[0] == "FROM"
    assert order[-3:] == ["WORKDIR", "ENTRYPOINT", "CMD"]
    assert arguments_of("WORKDIR") == ["/project"]
    assert json.loads(arguments_of("ENTRYPOINT")[0]) == ["snakemake"]
    assert json.loads(arguments_of("CMD")[0]) == ["--cores", "all"]
    assert '"$PWD:/project"' in MANUAL


def test_the_apptainer_definition_is_the_dockerfile_again():
    recipe = definition()
    assert recipe[""] == ["Bootstrap: docker", f"From: {arguments_of('FROM')[0]}"]
    assert recipe["files"] == arguments_of("COPY")
    assert recipe["post"] == arguments_of("RUN")
    assert recipe["runscript"] == ['exec snakemake "$@"']
    # Apptainer gives the user's own home and name, so of the surroundings only this is left.
    assert recipe["environment"] == ["export PYTHONNOUSERSITE=1"]
    assert "PYTHONNOUSERSITE=1" in arguments_of("ENV")[0]


@pytest.mark.parametrize("flag", ["--gpus all", "--nv"])
def test_the_manual_says_how_to_use_gpus(flag):
    assert flag in MANUAL
