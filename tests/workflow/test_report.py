"""What a run leaves to be read: Snakemake's own report, where the time went, and the last line."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import collect_runtimes
import numpy as np
import pandas as pd
import pytest
from project import planned_jobs, run

from blip_tracing.drawing import runtimes
from blip_tracing.drawing.figures import save_figure
from blip_tracing.machinery.tables import read_table
from blip_tracing.vocabulary.sites import SITES
from blip_tracing.vocabulary.tables import TABLES

MODEL = "resources/miniature/checkpoint"
# Those with a row a cell stay out: a large sheet makes them gigabytes.
SMALL_TABLES = [
    "baseline", "excluded", "families", "negatives", "run_means", "runs", "summary", "tokens",
]  # fmt: skip
EXPERIMENTS = ("patching", "tracing")
SITE = next(iter(SITES))
LAST_LINE = (
    "Reports: reports/index.html (baseline, patching, tracing, runtime beside it), "
    "tables in results/tables/"
)


# ---- Snakemake's own report --------------------------------------------------------------------


class Report:
    """What `snakemake --report report.zip` made: its page, and the files beside the page."""

    def __init__(self, archive: Path) -> None:
        with ZipFile(archive) as zipped:
            self.page = zipped.read("report/report.html").decode()
            self.files = {name.removeprefix("report/") for name in zipped.namelist()}
        self.results: dict[str, dict[str, Any]] = self.assigned("results")
        self.categories: dict[str, dict[str, list[str]]] = self.assigned("categories")

    def assigned(self, name: str) -> Any:
        """What the page's script of that name assigns to its variable."""
        (value,) = re.findall(rf'<script id="{name}">\s+var \w+ = (.*);$', self.page, re.MULTILINE)
        return json.loads(value)


@pytest.fixture(scope="module")
def project(default_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(default_run, tmp_path_factory.mktemp("report") / "project")


@pytest.fixture(scope="module")
def report(project: Path) -> Report:
    """Made where every address is out of reach."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy"):
            patch.setenv(name, "http://127.0.0.1:9")
        run(project, "--report", "report.zip")
    return Report(project / "report.zip")


@pytest.mark.workflow
def test_the_report_shows_every_page_figure_and_small_table_once(
    report: Report, project: Path
) -> None:
    pages = {path.name for path in (project / "reports").glob("*.html")}
    figures = {
        str(path.relative_to(project)) for path in (project / "reports/figures").glob("*/*.png")
    }
    assert {f"{name}.html" for name in (*EXPERIMENTS, "runtime")} < pages
    assert not any(TABLES[name].large for name in SMALL_TABLES)
    assert report.results.keys() == {
        *(f"reports/{name}" for name in pages),
        *figures,
        *(f"results/tables/{name}.csv" for name in SMALL_TABLES),
    }
    assert {result["data_uri"] for result in report.results.values()} < report.files


@pytest.mark.workflow
def test_the_report_needs_no_network(report: Report) -> None:
    assert not re.search(r"(src|href)=\"?https?:", report.page)


@pytest.mark.workflow
def test_results_are_found_by_kind_and_experiment(report: Report) -> None:
    assert {name: set(parts) for name, parts in report.categories.items()} == {
        "Reports": {"Other"},  # the only part is not shown as one
        "Figures": {"baseline", *EXPERIMENTS, "runtime"},
        "Tables": {"Other"},
    }
    for experiment, paths in report.categories["Figures"].items():
        assert all(Path(path).parent.name == experiment for path in paths)


@pytest.mark.workflow
def test_labels_tell_results_of_a_list_from_one_another(report: Report) -> None:
    for parts in report.categories.values():
        for paths in parts.values():
            labels = [tuple(report.results[path]["labels"].items()) for path in paths]
            assert len(set(labels)) == len(paths)
            # A list whose results have different labels breaks the page's script.
            assert len({tuple(name for name, _ in result) for result in labels}) == 1
    reports = [report.results[path]["labels"]["report"]
               for path in report.categories["Reports"]["Other"]]  # fmt: skip
    assert report.results["reports/index.html"]["labels"] == {"report": "1 The whole run"}
    # As the page sorts them.
    assert min(reports, key=str.lower) == "1 The whole run"
    name = f"levels_{SITE}_hat_box"
    figure = report.results[f"reports/figures/tracing/{name}.png"]
    assert figure["labels"] == {"figure": name}


@pytest.mark.workflow
def test_every_caption_states_model_n_seed_and_unit(report: Report) -> None:
    for path, result in report.results.items():
        caption = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", result["caption"]))
        shown = 1 if path.startswith("reports/figures/") and "runtime" not in path else 4
        assert f"Model {MODEL}, float32; n = {shown} example" in caption, path
        assert re.search(r"seed (is )?0\b", caption), path
        assert re.search(r"0 to 1|seconds, minutes or hours", caption), path


@pytest.mark.workflow
def test_the_first_page_says_what_was_run(report: Report) -> None:
    description = report.assigned("workflow-desc")
    for fact in (MODEL, "config/examples.tsv", "0.1, 0.5, 1, 2, 5, 10, 20", "10 draws, seed 0"):
        assert fact in description


@pytest.mark.workflow
def test_the_report_has_each_rules_run_time(report: Report) -> None:
    jobs = report.assigned("runtimes")["data"]["values"]
    seconds = {job["rule"]: job["runtime"] for job in jobs}
    assert {"fetch_model", "measure_at_once", "measure_effects", "render"} <= seconds.keys()
    assert seconds["measure_at_once"] > 1


# ---- where the time goes -----------------------------------------------------------------------


def leave_usage(folder: Path, job: str, seconds: float, memory: float, processor: float) -> str:
    """A job's log, and beside it what the job took."""
    log = folder / "logs" / f"{job}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    usage = {"seconds": seconds, "memory_mib": memory, "cpu_seconds": processor}
    log.with_suffix(".usage.json").write_text(json.dumps(usage))
    return str(log)


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    """Two jobs of one rule, a job of a rule with one, and one that left nothing."""
    logs = [
        leave_usage(tmp_path, "intervene/tracing/levels_1.0/0000", 90.5, 500.5, 40),
        leave_usage(tmp_path, "intervene/tracing/levels_1.0/0001", 60, 2048, 30),
        leave_usage(tmp_path, "render/tracing", 0.25, 300, 0.5),
        str(tmp_path / "logs/encode_images/0000.log"),
    ]
    return collect_runtimes.read_runtimes(logs, ["cuda A", "cuda B", "cpu", "cpu"])


def test_the_table_has_a_row_a_job(table: pd.DataFrame) -> None:
    assert table["rule"].tolist() == ["intervene"] * 2 + ["render", "encode_images"]
    assert table["job"].tolist() == [
        "tracing/levels_1.0/0000", "tracing/levels_1.0/0001", "tracing", "0000",
    ]  # fmt: skip
    assert table["device"].tolist() == ["cuda A", "cuda B", "cpu", "cpu"]
    np.testing.assert_equal(table["seconds"].tolist(), [90.5, 60, 0.25, np.nan])
    np.testing.assert_equal(table["memory_mib"].tolist(), [500.5, 2048, 300, np.nan])
    np.testing.assert_equal(table["cpu_seconds"].tolist(), [40, 30, 0.5, np.nan])


def test_rules_are_listed_with_the_longest_first(table: pd.DataFrame) -> None:
    rules = runtimes.by_rule(table)
    assert rules.index.tolist() == ["intervene", "render", "encode_images"]
    assert rules["jobs"].tolist() == [2, 1, 1]
    assert rules["measured"].tolist() == [2, 1, 0]
    longest = rules.loc["intervene"]
    assert (longest["seconds"], longest["longest"], longest["cpu_seconds"]) == (150.5, 90.5, 70)
    assert (longest["memory_mib"], longest["device"]) == (2048, "cuda A, cuda B")
    assert longest["share"] == pytest.approx(150.5 / 150.75)
    assert rules.loc["encode_images"].isna().sum() == 5


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.25, "0.2 s"), (99, "99.0 s"), (150, "2.5 min"), (7200, "2.0 h"), (np.nan, "–")],
)
def test_a_duration_is_in_a_unit_that_reads_well(seconds: float, words: str) -> None:
    assert runtimes.duration(seconds) == words


@pytest.mark.parametrize(("mib", "words"), [(512.4, "512 MiB"), (2048, "2.0 GiB"), (np.nan, "–")])
def test_memory_is_in_a_unit_that_reads_well(mib: float, words: str) -> None:
    assert runtimes.memory(mib) == words


@pytest.mark.filterwarnings("error")
def test_the_figure_names_every_rule_device_and_number(table: pd.DataFrame, tmp_path: Path) -> None:
    (svg,) = save_figure(
        runtimes.runtime_bars(runtimes.by_rule(table)), tmp_path / "runtime", ["svg"]
    )
    text = svg.read_text()
    for words in ("intervene", "encode_images", "2.5 min", "2.0 GiB", "gpu", "cpu", "–"):
        assert f"{words}</text>" in text


@pytest.mark.filterwarnings("error")
def test_the_figure_can_do_without_any_number(table: pd.DataFrame, tmp_path: Path) -> None:
    nothing = table.assign(seconds=np.nan, cpu_seconds=np.nan, memory_mib=np.nan)
    assert save_figure(runtimes.runtime_bars(runtimes.by_rule(nothing)), tmp_path / "runtime")


@pytest.mark.workflow
def test_every_job_of_a_run_is_counted_with_its_device(default_run: Path) -> None:
    folder = default_run / "results/logs"
    logs = {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.log")}
    rows = read_table(default_run / "results/runtimes.csv").fillna({"job": ""})
    counted = set((rows["rule"] + "/" + rows["job"]).str.rstrip("/"))
    assert logs - counted == {"collect_runtimes", "render_runtime"}
    assert counted <= logs
    assert (rows[["seconds", "cpu_seconds", "memory_mib"]] > 0).all(axis=None)
    facts = json.loads((default_run / "results/clean/0000.json").read_text())
    of_the_model = rows["rule"] == "measure_at_once"
    assert of_the_model.sum() == 1
    assert set(rows.loc[of_the_model, "device"]) == {facts["device"]}
    assert set(rows.loc[rows["rule"].str.startswith("render"), "device"]) == {"cpu"}


@pytest.mark.workflow
def test_the_page_shows_time_memory_and_device_of_each_rule(default_run: Path) -> None:
    page = (default_run / "reports/runtime.html").read_text()
    rows = read_table(default_run / "results/runtimes.csv")
    for rule, row in runtimes.by_rule(rows).iterrows():
        for words in (
            rule, row["device"], runtimes.duration(row["seconds"]),
            runtimes.memory(row["memory_mib"]),
        ):  # fmt: skip
            assert re.search(rf"<t[dh][^>]*>{re.escape(str(words))}</t[dh]>", page), (rule, words)
    assert not re.search(r"(src|href)=\"?https?:|<script", page)


@pytest.mark.workflow
def test_what_a_job_took_makes_nothing_stale_when_it_is_deleted_or_newer(finished: Path) -> None:
    usages = list((finished / "results/logs").rglob("*.usage.json"))
    assert usages
    for path in usages:
        path.touch()
    assert planned_jobs(finished) == Counter()
    for path in usages:
        path.unlink()
    assert planned_jobs(finished) == Counter()
    (finished / "reports/runtime.html").unlink()
    assert planned_jobs(finished) == Counter(render_runtime=1)
    (finished / "results/runtimes.csv").unlink()
    assert planned_jobs(finished) == Counter(collect_runtimes=1, render_runtime=1)


# ---- the page ----------------------------------------------------------------------------------


@pytest.mark.workflow
def test_the_page_of_the_default_run_is_light(default_run: Path) -> None:
    assert (default_run / "reports/index.html").stat().st_size < 1.5e6


# ---- the last line -----------------------------------------------------------------------------


@pytest.mark.workflow
def test_a_run_ends_with_a_line_that_says_where_the_reports_are(finished: Path) -> None:
    for nothing_done in ((), ("--dry-run",), ("--lint",)):
        assert "Reports:" not in run(finished, *nothing_done)
    quick = ("results/tables/tokens.csv", "--forcerun", "collect_table")
    index = finished / "reports/index.html"
    index.unlink(missing_ok=True)
    # A table alone was asked for.
    assert "Reports:" not in run(finished, *quick)
    index.write_text("<ul class='other'><li>no finding</li></ul>")
    assert "Reports:" not in run(finished, "--dry-run", *quick)
    printed = run(finished, *quick).splitlines()
    assert not [line for line in printed if line.startswith("Found:")]
    page = '<ul class="findings">\n  <li>p(“a &amp; <b>b</b>”) is\n  0.5.</li>\n<li>More.</li></ul>'
    index.write_text(page)
    printed = run(finished, *quick).splitlines()
    assert printed.count(LAST_LINE) == 1
    # What was found, and where.
    assert printed[printed.index(LAST_LINE) - 1] == "Found: p(“a & b”) is 0.5."
    # What Snakemake itself adds is where its own log is, and the time.
    assert len(printed) - printed.index(LAST_LINE) <= 3


@pytest.mark.workflow
def test_the_page_says_which_jobs_are_not_counted(finished: Path) -> None:
    usage = finished / "results/logs/measure_at_once.usage.json"
    usage.unlink()
    run(finished, "--forcerun", "collect_runtimes")
    page = (finished / "reports/runtime.html").read_text()
    assert "Of 1 of them it is not known" in page


@pytest.mark.workflow
def test_a_job_is_told_in_its_message_and_without_lists_of_files(finished: Path) -> None:
    printed = run(finished, "--forcerun", "render_runtime")
    first, runtime, reports, *found_and_logs = printed.strip().splitlines()
    assert first.startswith("Using workflow specific profile")
    assert runtime.endswith("  0 of 2 done, now rendering the report of what the jobs took")
    assert reports.endswith("  1 of 2 done, now the reports and tables are there")
    assert len(found_and_logs) == 4
    for aside in ("Reason:", "Host:", "    input: ", "    output: "):
        assert aside not in printed
    # A dry run still counts the jobs, and gives the reasons where it is asked for them.
    assert planned_jobs(finished, "--forcerun", "render_runtime") == Counter(render_runtime=1)
    assert "Reason:" in run(finished, "-n", "--quiet", "host", "--forcerun", "render_runtime")
