"""One place states each version; the environments say the same."""

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, version

import pytest
import yaml
from project import ROOT

PIN = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)$", re.MULTILINE)
REQUIREMENTS = dict(PIN.findall((ROOT / "requirements.txt").read_text()))
ENVIRONMENTS = {path.stem: path for path in sorted((ROOT / "envs").glob("*.yaml"))}
SCRIPTS = sorted((ROOT / "workflow/scripts").rglob("*.py"))


def pins_of(environment: str) -> dict[str, str]:
    content = yaml.safe_load(ENVIRONMENTS[environment].read_text())
    (pip,) = [part["pip"] for part in content["dependencies"] if isinstance(part, dict)]
    return dict(PIN.findall("\n".join(pip)))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_environments_pin_what_the_requirements_pin(environment):
    pins = pins_of(environment)
    assert pins
    assert {name: REQUIREMENTS.get(name) for name in pins} == pins


def test_only_the_model_needs_torch():
    assert [name for name in ENVIRONMENTS if "torch" in pins_of(name)] == ["model"]


def test_what_is_installed_is_what_is_pinned():
    assert {name: version(name).split("+")[0] for name in REQUIREMENTS} == REQUIREMENTS


def test_every_library_that_the_code_imports_is_pinned():
    distributions = packages_distributions()
    imported = {
        name.split(".")[0]
        for path in SCRIPTS
        for node in ast.walk(ast.parse(path.read_text()))
        for name in imported_names(node)
    }
    outside = imported - set(sys.stdlib_module_names) - {"blip_tracing"}
    missing = {
        name
        for name in outside
        if not {d.lower().replace("-", "_") for d in distributions[name]}
        & {r.lower().replace("-", "_") for r in REQUIREMENTS}
    }
    assert not missing


def imported_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module]
    return []


def test_no_address_of_a_package_index_is_anywhere():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, text=True, capture_output=True, check=True
    ).stdout
    index = re.compile(rb"pypi\.org|download\.pytorch|index" + rb"-url")
    assert listed
    assert not [path for path in listed.splitlines() if index.search((ROOT / path).read_bytes())]
