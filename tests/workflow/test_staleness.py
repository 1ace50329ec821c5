"""Only what is stale is rebuilt: after a finished run, a dry run names exactly those jobs."""

import re
import shutil
from collections import Counter

import pytest
import yaml
from project import ROOT, planned_jobs, run, snakemake

from blip_tracing.machinery.staleness import code_digest, code_files

pytestmark = pytest.mark.workflow

SCRIPTS = ROOT / "workflow/scripts"
# What any change of a measurement brings with it: the pages that show all of the run.
STORY = {"tell_story": 1, "collect_runtimes": 1, "render_runtime": 1}
# Each table and each report by name, as the rules that make them have it as their wildcard.
SCORED = {"patching", "tracing", "controls"}
MEASURED = {"effects", "excluded"}
# What has a row a cell a rule of its own collects, and another the effects, whose marks wait for
# the negative controls: each time that these are counted anew.
LARGE = SCORED | {"effects"}
CLEAN = {"baseline", "tokens", "runs"}
REPORTS = {"baseline", "patching", "tracing"}
EFFECTS = {"measure_effects": 1, "summarize_effects": 1, "collect_effects": 1, **STORY}
# The jobs that run the model where each experiment is several: patching two, tracing one.
APART = {"layers_per_job": 3, "shard_size": 4}
RUNS = {"answer_questions": 1, "run_corrupted": 1, "intervene": 3}


def jobs(tables=(), reports=(), **others):
    """What `planned_jobs` counts, and the names of the tables collected and reports rendered."""
    counted = Counter(others) + Counter(
        collect_cells=len(SCORED.intersection(tables)),
        collect_table=len(set(tables) - LARGE),
        render=len(reports),
    )
    return counted, set(tables), set(reports)


def planned(project):
    """The jobs that a dry run would start, in the form of `jobs`."""
    printed = run(project, "--dry-run")
    collected = re.findall(r"^Job \d+: collecting the table (\w+)$", printed, re.MULTILINE)
    rendered = re.findall(r"^Job \d+: rendering the report (\w+)$", printed, re.MULTILINE)
    return planned_jobs(project), {*collected}, {*rendered}


@pytest.fixture(scope="module")
def run_apart(default_run, tmp_path_factory):
    """The finished run again, by jobs apart. Do not change it."""
    project = shutil.copytree(default_run, tmp_path_factory.mktemp("apart") / "project")
    config = project / "config/config.yaml"
    asked = {**yaml.safe_load(config.read_text()), **APART}
    asked["report"]["examples"] = 1  # figures of more would show nothing new here
    config.write_text(yaml.safe_dump(asked))
    run(project)
    return project


@pytest.fixture
def apart(run_apart, tmp_path):
    """A copy of it, to be changed by one test."""
    return shutil.copytree(run_apart, tmp_path / "apart")


def edit(project, path, old, new):
    """Replace text in a file of the project, which must hold it."""
    text = (project / path).read_text()
    assert old in text
    (project / path).write_text(text.replace(old, new, 1))


def append(project, path, text):
    with (project / path).open("a") as file:
        file.write(text)


def test_a_second_run_has_nothing_to_do(finished):
    assert "Nothing to be done" in run(finished)
    assert planned_jobs(finished) == Counter()


def test_a_comment_in_the_readme_changes_nothing(finished):
    append(finished, "README.md", "\n<!-- a comment -->\n")
    assert planned_jobs(finished) == Counter()


def test_jobs_apart_begin_anew_where_one_job_measured_all_and_give_its_tables(finished, run_apart):
    config = finished / "config/config.yaml"
    config.write_text((run_apart / "config/config.yaml").read_text())
    assert planned(finished) == jobs(
        encode_images=1, **RUNS, tables=CLEAN | SCORED | MEASURED, reports=REPORTS, **EFFECTS
    )
    for table in (finished / "results/tables").glob("*.csv"):
        assert (run_apart / "results/tables" / table.name).read_bytes() == table.read_bytes()


def test_a_noise_level_reruns_its_jobs_its_collection_and_its_reports(apart):
    edit(apart, "config/config.yaml", "- 20\n", "- 20\n      - 50\n")
    # The seven levels there were are one job, which stays; the new one is a job of its own. What
    # nothing is put into is one job at all levels, and every report reads its table.
    assert planned(apart) == jobs(
        run_corrupted=1, intervene=1,
        tables={"runs", "tracing", "controls", *MEASURED}, reports=REPORTS, **EFFECTS,
    )  # fmt: skip


def test_a_row_appended_to_the_sheet_touches_the_last_shard_and_the_nulls_of_its_block(apart):
    row = (
        "extra\tresources/miniature/images/animal_shirt.png\twhat thing is red\twhat thing is brown"
    )
    append(apart, "config/examples.tsv", row + "\n")
    # The picture is an old one, encoded in the first shard: no picture is encoded. The row can be
    # the null of the others of its block of sixteen, which the first shard's are.
    assert planned(apart) == jobs(
        **{**RUNS, "intervene": 6}, tables=CLEAN | SCORED | MEASURED, reports=REPORTS,
        **{**EFFECTS, "measure_effects": 2},
    )  # fmt: skip
    run(apart, "results/clean/0001.safetensors")
    first, second = (apart / f"results/clean/{shard}.safetensors" for shard in ("0000", "0001"))
    assert first.stat().st_mtime < second.stat().st_mtime


@pytest.mark.parametrize(
    ("notebook", "reports"), [("baseline", {"baseline"}), ("experiment", {"patching", "tracing"})]
)
def test_a_notebook_reruns_its_reports_alone(finished, notebook, reports):
    edit(finished, f"workflow/notebooks/{notebook}.ipynb", "# ", "# A better title: ")
    assert planned(finished) == jobs(reports=reports, collect_runtimes=1, render_runtime=1)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (
            "engine/controls",
            jobs(
                run_corrupted=1,
                intervene=3,
                tables={"runs", *SCORED, *MEASURED},
                reports=REPORTS,
                **EFFECTS,
            ),
        ),
        ("drawing/figures", jobs(reports=REPORTS, collect_runtimes=1, render_runtime=1)),
        (
            "meaning/statistics",
            jobs(tables=MEASURED, reports={"patching", "tracing"}, **EFFECTS),
        ),
        ("telling/story", jobs(**STORY)),
    ],
)
def test_a_module_reruns_exactly_the_rules_that_use_it(apart, module, expected):
    append(apart, f"workflow/scripts/blip_tracing/{module}.py", "\n# a change\n")
    assert planned(apart) == expected


def test_a_script_reruns_its_rule(apart):
    append(apart, "workflow/scripts/intervene.py", "\n# a change\n")
    assert planned(apart) == jobs(
        intervene=3, tables=SCORED | MEASURED, reports={"patching", "tracing"}, **EFFECTS
    )


@pytest.mark.parametrize(
    "module",
    ["encode_images", "intervene", "measure_at_once", "blip_tracing/given/tokens"],
)
def test_what_the_one_job_does_reruns_it(finished, module):
    append(finished, f"workflow/scripts/{module}.py", "\n# a change\n")
    assert planned_jobs(finished)["measure_at_once"] == 1


def test_a_file_touched_but_not_changed_reruns_nothing(apart):
    (apart / "workflow/scripts/blip_tracing/engine/cells.py").touch()
    (apart / "workflow/scripts/intervene.py").touch()
    (apart / "workflow/notebooks/experiment.ipynb").touch()
    assert planned_jobs(apart) == Counter()


def test_a_table_that_was_deleted_is_made_again_as_it_was(finished):
    table = finished / "results/tables/tracing.csv"
    before = table.read_bytes()
    table.unlink()
    assert planned(finished) == jobs(tables={"tracing"}, reports={"tracing"}, **STORY)
    run(finished, "results/tables/tracing.csv")
    assert table.read_bytes() == before


def test_figures_that_were_deleted_are_drawn_again(finished):
    shutil.rmtree(finished / "reports/figures/patching")
    assert planned(finished) == jobs(reports={"patching"}, collect_runtimes=1, render_runtime=1)


@pytest.mark.parametrize(
    ("path", "table"),
    [
        ("cells/tracing/levels_0.1-20.0/0000.parquet", "tracing"),
        ("clean/0000.safetensors", "patching"),
        ("role_means/0000.parquet", "summary"),
    ],
)
def test_a_result_cut_short_is_noticed_by_the_job_that_reads_it(apart, path, table):
    """Once it is deleted, as the error says, the same command gives the same table."""
    made = f"results/tables/{table}.csv"
    cut, before = apart / "results" / path, (apart / made).read_bytes()
    cut.write_bytes(cut.read_bytes()[:-100])
    stopped = snakemake(apart, made)
    assert stopped.returncode == 1
    assert f"results/{path}: is not what its job wrote" in stopped.stdout
    assert "Traceback" not in stopped.stdout
    cut.unlink()
    run(apart, made)
    assert (apart / made).read_bytes() == before


def test_the_digest_follows_imports_of_imports():
    names = {file.name for file in code_files(SCRIPTS / "intervene.py")}
    assert {"intervene.py", "draws.py", "clean_runs.py", "blip_vqa.py", "errors.py"} <= names
    assert "figures.py" not in names


def test_the_digest_follows_a_script_that_a_script_imports():
    names = {file.name for file in code_files(SCRIPTS / "measure_at_once.py")}
    apart = {"encode_images.py", "answer_questions.py", "run_corrupted.py", "intervene.py"}
    assert {"measure_at_once.py", "tokens.py", *apart} <= names


def test_the_digest_reads_a_notebooks_imports():
    files = code_files(ROOT / "workflow/notebooks/experiment.ipynb")
    assert "figures.py" in {file.name for file in files}


def test_the_digest_is_the_same_for_the_same_content(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import blip_tracing.engine.draws\n")
    digests = [code_digest.__wrapped__(str(script)) for _ in range(2)]
    script.write_text("import blip_tracing.machinery.tables\n")
    digests.append(code_digest.__wrapped__(str(script)))
    assert digests[0] == digests[1] != digests[2]
