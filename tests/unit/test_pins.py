"""One place states each version; the environments say the same, and hold what their rules need."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import ROOT

from blip_tracing.given.plan import Page, Plan
from blip_tracing.given.settings import fill_config
from blip_tracing.given.sheet import load_sheet
from blip_tracing.machinery.staleness import code_files, source_of

PIN = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)$", re.MULTILINE)
REQUIREMENTS = dict(PIN.findall((ROOT / "requirements.txt").read_text()))
ENVIRONMENTS = {path.stem: path for path in sorted((ROOT / "envs").glob("*.yaml"))}
SCRIPTS = ROOT / "workflow/scripts"
WORKFLOW = ROOT / "workflow"
ENTRIES = [ROOT / "Snakefile", WORKFLOW / "Snakefile"]
RULE_FILES = [*ENTRIES, *sorted((WORKFLOW / "rules").glob("*.smk"))]
RULE = re.compile(r"^(?:rule|checkpoint|use rule (?P<like>\w+) as) (?P<name>\w+)(?: with)?:")
DISTRIBUTIONS = packages_distributions()

# Runs no rule: Snakemake is started from it.
STARTER = "snakemake"
# Whose pages, each made by a notebook, are all that there are.
CONFIGURED = ("blip-vqa-base", "analyses", "confirm")
# Who runs a notebook by hand starts this kernel; nothing imports it.
NAMED_ONLY = {"report": {"ipykernel"}}
# The rule files read schemas with the library by which Snakemake reads its configuration.
BROUGHT_BY_SNAKEMAKE = {"pyyaml"}


@dataclass(frozen=True)
class Rule:
    name: str
    environment: str
    code: tuple[Path, ...]


def pages() -> Iterator[Page]:
    """The pages of runs that together have every one."""
    for name in CONFIGURED:
        config = fill_config(yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()))
        rows: Any = load_sheet(ROOT / config["examples"]).to_dict("records")
        for averages in (False, True):
            yield from Plan(config, rows, averages=averages).pages.values()


def read_rules() -> list[Rule]:
    """The rules that run a script, as far as their text tells."""
    rules: dict[str, Rule] = {}
    for path in RULE_FILES:
        for block in re.split(r"^(?=(?:use )?rule |checkpoint )", path.read_text(), flags=re.M):
            head = RULE.match(block)
            environment = re.search(r'conda:\s+"(?:\.\./)+envs/(\w+)\.yaml"', block)
            script = re.search(r'script:\s+"\.\./scripts/(\w+\.py)"', block)
            if head and environment and script:
                code = (SCRIPTS / script[1], *notebooks_of(block), *chosen_by(block))
                rules[head["name"]] = Rule(head["name"], environment[1], code)
            elif head and head["like"] in rules:
                # What it does not say is as in the other; ours say no environment and no script.
                like = rules[head["like"]]
                code = (like.code[0], *notebooks_of(block))
                rules[head["name"]] = Rule(head["name"], like.environment, code)
    return list(rules.values())


def notebooks_of(block: str) -> list[Path]:
    """The notebooks that a rule runs: one, or one a page."""
    names = re.findall(r'notebook=own\("notebooks/(\w+)\.ipynb"\)', block)
    if "notebook=notebook_of" in block:
        names = sorted({page.notebook for page in pages()})
    return [WORKFLOW / f"notebooks/{name}.ipynb" for name in names]


def chosen_by(block: str) -> list[Path]:
    """The modules of which a rule's script imports one by its name: an analysis each."""
    if "meaning/analyses/" not in block:
        return []
    return sorted((SCRIPTS / "blip_tracing/meaning/analyses").glob("*.py"))


RULES = read_rules()


def pins_of(environment: str) -> dict[str, str]:
    content = yaml.safe_load(ENVIRONMENTS[environment].read_text())
    (pip,) = [part["pip"] for part in content["dependencies"] if isinstance(part, dict)]
    return dict(PIN.findall("\n".join(pip)))


def outside_imports(path: Path) -> set[str]:
    """The modules, neither Python's nor this project's, that a file names in its imports."""
    if path in RULE_FILES:
        names = re.findall(r"^(?:from|import) ([\w.]+)", path.read_text(), re.MULTILINE)
    else:
        tree = ast.parse(source_of(path))
        names = [name for node in ast.walk(tree) for name in imported_names(node)]
    own = {"blip_tracing", *(script.stem for script in SCRIPTS.glob("*.py"))}
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names - own


def imported_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module]
    return []


def spelled_alike(name: str) -> str:
    return name.lower().replace("-", "_")


def libraries_of(module: str) -> set[str]:
    """The libraries on the package index that bring a module: `PIL` comes with pillow."""
    return {spelled_alike(name) for name in DISTRIBUTIONS.get(module, [module])}


def unpinned(files: Iterable[Path], pins: Iterable[str]) -> dict[str, list[str]]:
    """Modules that no pin brings, each with the files that import it."""
    known = {spelled_alike(name) for name in pins}
    missing = defaultdict(list)
    for path in sorted(files):
        for module in outside_imports(path):
            if not libraries_of(module) & known:
                missing[module].append(str(path.relative_to(ROOT)))
    return dict(missing)


def code_of(rule: Rule) -> set[Path]:
    """A rule's script and notebook, and the library modules that they come to import."""
    return {file for path in rule.code for file in code_files(path)}


def code_of_the_rule_files() -> set[Path]:
    """The rule files, and the library modules that reading them comes to import."""
    imports = re.compile(r"^from (blip_tracing[\w.]+) import", re.MULTILINE)
    modules = {
        SCRIPTS.joinpath(*module.split(".")).with_suffix(".py")
        for path in RULE_FILES
        for module in imports.findall(path.read_text())
    }
    assert all(module.is_file() for module in modules)
    return {*RULE_FILES, *(file for module in modules for file in code_files(module))}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_environments_pin_what_the_requirements_pin(environment):
    pins = pins_of(environment)
    assert pins
    assert {name: REQUIREMENTS.get(name) for name in pins} == pins


def test_only_the_model_needs_torch():
    assert [name for name in ENVIRONMENTS if "torch" in pins_of(name)] == ["model"]


def test_the_environments_have_one_python():
    pythons = {
        part
        for path in ENVIRONMENTS.values()
        for part in yaml.safe_load(path.read_text())["dependencies"]
        if str(part).startswith("python=")
    }
    assert len(pythons) == 1


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_names_one_channel(environment):
    """`nodefaults`, once a word among the channels, is a channel's name to newer conda."""
    assert yaml.safe_load(ENVIRONMENTS[environment].read_text())["channels"] == ["conda-forge"]


def test_what_is_installed_is_what_is_pinned():
    assert {name: version(name).split("+")[0] for name in REQUIREMENTS} == REQUIREMENTS


def test_every_library_that_the_code_imports_is_pinned():
    missing = unpinned(SCRIPTS.rglob("*.py"), REQUIREMENTS)
    assert not missing, f"requirements.txt pins nothing that brings {missing}"


def test_every_rule_runs_a_script_in_an_environment():
    lines = [line for path in RULE_FILES for line in path.read_text().splitlines()]
    names = {head["name"] for head in map(RULE.match, lines) if head}
    assert {rule.name for rule in RULES} == names - {"all"}
    assert {rule.environment for rule in RULES} == ENVIRONMENTS.keys() - {STARTER}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rules_environment_pins_what_its_code_imports(rule):
    """Else the job takes it from where Snakemake runs, or fails where that has nothing of it."""
    missing = unpinned(code_of(rule), pins_of(rule.environment))
    assert not missing, (
        f"envs/{rule.environment}.yaml pins nothing that brings {missing}, "
        f"which rule {rule.name} imports"
    )


def test_snakemakes_environment_pins_what_the_rule_files_import():
    missing = unpinned(code_of_the_rule_files(), {*pins_of(STARTER), *BROUGHT_BY_SNAKEMAKE})
    assert not missing, f"envs/{STARTER}.yaml pins nothing that brings {missing}"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_pins_nothing_that_its_code_does_not_import(environment):
    files = {file for rule in RULES if rule.environment == environment for file in code_of(rule)}
    files = files or code_of_the_rule_files()
    used = {
        library
        for path in files
        for module in outside_imports(path)
        for library in libraries_of(module)
    }
    pins = {spelled_alike(name) for name in pins_of(environment)}
    superfluous = pins - used - NAMED_ONLY.get(environment, set())
    assert not superfluous, f"envs/{environment}.yaml need not pin {sorted(superfluous)}"


def test_every_notebook_is_some_rules():
    run = {path for rule in RULES for path in rule.code if path.suffix == ".ipynb"}
    assert run == set((WORKFLOW / "notebooks").glob("*.ipynb"))


def test_reports_have_an_environment_of_their_own():
    """So that a change of it leaves the experiments alone."""
    drawn = {rule.name for rule in RULES if rule.environment == "report"}
    rendered = {rule.name for rule in RULES if rule.name.startswith("render")}
    assert drawn == {*rendered, "tell_story", "write_supplement"}


def test_no_address_of_a_package_index_is_anywhere():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, text=True, capture_output=True, check=True
    ).stdout
    index = re.compile(rb"pypi\.org|download\.pytorch|index" + rb"-url")
    assert listed
    assert not [path for path in listed.splitlines() if index.search((ROOT / path).read_bytes())]
