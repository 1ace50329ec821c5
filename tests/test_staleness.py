"""Only what is stale is rebuilt: after a finished run, a dry run names exactly those jobs."""

from collections import Counter

import pytest
from project import ROOT, planned_jobs, run, snakemake

from blip_tracing.staleness import code_digest, code_files

pytestmark = pytest.mark.workflow

SCRIPTS = ROOT / "workflow/scripts"
# What any change of a measurement brings with it: the pages that show all of the run.
STORY = {"tell_story": 1, "collect_runtimes": 1, "render_runtime": 1}
REPORTS = {"render_baseline": 1, "render_patching": 1, "render_tracing": 1}
COLLECTIONS = {"collect_baseline": 1, "collect_patching": 1, "collect_tracing": 1}
EXPERIMENTS = {"answer_baseline": 1, "patch_layer": 1, "trace_noise": 1}
# What follows a patch or a trace besides its own collection. The tracing report shows averages.
EFFECTS = {
    "measure_effects": 1,
    "collect_effects": 1,
    "collect_controls": 1,
    "summarize_effects": 1,
    "render_tracing": 1,
    **STORY,
}


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


def test_a_noise_level_reruns_its_jobs_its_collection_and_its_report(finished):
    edit(finished, "config/config.yaml", "10, 20]", "10, 20, 50]")
    # The seven levels there were are one job, which stays; the new one is a job of its own.
    assert planned_jobs(finished) == Counter(trace_noise=1, collect_tracing=1, **EFFECTS)


def test_a_row_appended_to_the_sheet_touches_the_last_shard_alone(finished):
    edit(finished, "config/config.yaml", "shard_size: 16", "shard_size: 4")
    run(finished)
    row = (
        "extra\tresources/miniature/images/animal_shirt.png\twhat thing is red\twhat thing is brown"
    )
    append(finished, "config/examples.tsv", row + "\n")
    # The picture is an old one, encoded in the first shard: no picture is encoded.
    assert planned_jobs(finished) == Counter({**EXPERIMENTS, **COLLECTIONS, **REPORTS, **EFFECTS})
    run(finished, "--quiet", "all")
    first = finished / "results/patching/block_input/layers_0-5/0000.parquet"
    second = finished / "results/patching/block_input/layers_0-5/0001.parquet"
    assert first.stat().st_mtime < second.stat().st_mtime


@pytest.mark.parametrize("report", ["baseline", "patching", "tracing"])
def test_a_notebook_reruns_its_report_alone(finished, report):
    edit(finished, f"workflow/notebooks/{report}.ipynb", "# ", "# A better title: ")
    assert planned_jobs(finished) == Counter(
        {f"render_{report}": 1, "collect_runtimes": 1, "render_runtime": 1}
    )


@pytest.mark.parametrize(
    ("module", "rules"),
    [
        ("noise", {"trace_noise": 1, "collect_tracing": 1, **EFFECTS}),
        ("figures", {**REPORTS, **STORY}),
        ("engine", {**EXPERIMENTS, **COLLECTIONS, **REPORTS, **EFFECTS}),
        (
            "statistics",
            {"summarize_effects": 1, "render_tracing": 1, **STORY},
        ),
    ],
)
def test_a_module_reruns_exactly_the_rules_that_use_it(finished, module, rules):
    append(finished, f"workflow/scripts/blip_tracing/{module}.py", "\n# a change\n")
    assert planned_jobs(finished) == Counter(rules)


def test_a_script_reruns_its_rule(finished):
    append(finished, "workflow/scripts/patch_layer.py", "\n# a change\n")
    assert planned_jobs(finished) == Counter(
        patch_layer=1, collect_patching=1, render_patching=1, **EFFECTS
    )


def test_a_file_touched_but_not_changed_reruns_nothing(finished):
    (finished / "workflow/scripts/blip_tracing/engine.py").touch()
    (finished / "workflow/scripts/patch_layer.py").touch()
    (finished / "workflow/notebooks/tracing.ipynb").touch()
    assert planned_jobs(finished) == Counter()


def test_what_was_deleted_is_made_again(finished):
    (finished / "results/tables/floor.csv").unlink()
    assert planned_jobs(finished) == Counter(collect_tracing=1, render_tracing=1, **STORY)
    run(finished)
    (finished / "reports/figures/patching_block_input_hat_box.pdf").unlink()
    assert planned_jobs(finished) == Counter(
        render_patching=1, collect_runtimes=1, render_runtime=1
    )


@pytest.mark.parametrize(
    ("path", "reader", "table"),
    [
        ("tracing/block_input/noise_0.1-20.0/0000.parquet", "collect_tracing", "tracing"),
        ("states/0000.safetensors", "collect_patching", "patching"),
        ("role_means/0000.parquet", "summarize_effects", "summary"),
    ],
)
def test_a_result_cut_short_is_noticed_by_the_job_that_reads_it(finished, path, reader, table):
    """Once it is deleted, as the error says, the same command gives the same table."""
    cut, made = finished / "results" / path, finished / f"results/tables/{table}.csv"
    before = made.read_bytes()
    cut.write_bytes(cut.read_bytes()[:-100])
    stopped = snakemake(finished, reader)
    assert stopped.returncode == 1
    assert f"results/{path}: is not what its job wrote" in stopped.stdout
    assert "Traceback" not in stopped.stdout
    cut.unlink()
    run(finished, reader)
    assert made.read_bytes() == before


def test_the_digest_follows_imports_of_imports():
    names = {file.name for file in code_files(SCRIPTS / "trace_noise.py")}
    assert {"trace_noise.py", "noise.py", "shards.py", "model.py", "errors.py"} <= names
    assert "figures.py" not in names


def test_the_digest_reads_a_notebooks_imports():
    files = code_files(ROOT / "workflow/notebooks/tracing.ipynb")
    assert "figures.py" in {file.name for file in files}


def test_the_digest_is_the_same_for_the_same_content(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import blip_tracing.noise\n")
    digests = [code_digest.__wrapped__(str(script)) for _ in range(2)]
    script.write_text("import blip_tracing.tables\n")
    digests.append(code_digest.__wrapped__(str(script)))
    assert digests[0] == digests[1] != digests[2]
