"""The reports: notebooks that run on the tables, and pages that need nothing but themselves."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import papermill
import pytest
import render_report
from IPython import get_ipython
from nbformat import NotebookNode
from synthetic_tables import (
    NOISY,
    ROLES,
    made_up_experiments,
    write_derived_tables,
    write_pictures,
    write_tables,
)

from blip_tracing.machinery.tables import read_table
from blip_tracing.printing import notebooks
from blip_tracing.vocabulary.experiment import BASE, SOURCE, Experiment, described
from blip_tracing.vocabulary.views import figure_names

WORKFLOW = Path(__file__).resolve().parents[2] / "workflow"
NOTEBOOKS = WORKFLOW / "notebooks"
TEMPLATE = WORKFLOW / "report/notebook.html.j2"
NOTEBOOK_NAMES = ("baseline", "experiment", "replication", "runtime")

EXAMPLE = "ball_kite"
LEVELS, DRAWS_AT = (0.5, 1.0), 0.5
SITES = ("encoder.block_input", "encoder.block_output")
ENDS = {
    "patching": (BASE, SOURCE), "tracing": (NOISY, BASE), "everywhere": (BASE, SOURCE),
    "noisy_picture": (NOISY, BASE), "joint": (BASE, SOURCE),
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    # Of every tower: a row of sites, heads, and regions over their picture.
    "everywhere": {"sites": ("encoder.mlp", "encoder.cross_attention_heads",
                             "decoder.block_output", "vision.block_output"), "regions": 2},
    "noisy_picture": {"sites": ("vision.mlp",), "regions": 0, "window": 2},
    "joint": {"sites": ("encoder.mlp",), "positions": "roles"},
}  # fmt: skip
EXPERIMENTS = {asked.name: asked for asked in made_up_experiments(SITES, LEVELS, 2, ENDS, SETTINGS)}
REPORTS = ("baseline", *EXPERIMENTS)
TABLES = ("baseline", "tokens", "runs", "summary", "run_means", *EXPERIMENTS)


def stems_of(report: str) -> list[str]:
    """The figures of a report, without ending."""
    if report not in EXPERIMENTS:
        return [EXAMPLE]
    return figure_names(EXPERIMENTS[report], EXAMPLE)


def tables_in(folder: Path) -> dict[str, str]:
    """What the rules tell a notebook: where each table lies."""
    return {name: str(folder / f"{name}.csv") for name in TABLES}


@dataclass
class Report:
    """What one rendering left behind."""

    name: str
    folder: Path
    page: str
    notebook: NotebookNode


class Reader(HTMLParser):
    """Collects a page's tags, what they load, and the text that a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "data")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


@pytest.fixture(scope="module", params=REPORTS)
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Each report of three examples, one of them drawn, rendered in a folder of its own."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    write_tables(
        folder / "tables",
        sites=SITES,
        layers=3,
        noise_levels=LEVELS,
        draws=2,
        unknown_words=["kite"],
        ends=ENDS,
        settings=SETTINGS,
    )
    write_derived_tables(folder / "tables", ends=ENDS, settings=SETTINGS)
    parameters: dict[str, Any] = {
        "tables": tables_in(Path("tables")),
        "figures": "figures",
        "examples": [EXAMPLE],
        "scripts": str(WORKFLOW / "scripts"),
    }
    if name == "baseline":
        parameters["pictures"] = write_pictures(folder / "pictures")
    else:
        parameters |= {"draws_at": DRAWS_AT, "experiment": described(EXPERIMENTS[name])}
        if name in ("everywhere", "noisy_picture"):
            pictures = write_pictures(folder / "pictures")
            parameters |= {"pictures": pictures, "source_pictures": pictures}
        if name == "joint":
            parameters["roles"] = {"encoder": list(ROLES)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # Neither a home nor the user's settings are there in a job.
        patch.setenv("HOME", "/nonexistent")
        render_report.render(
            NOTEBOOKS / f"{'experiment' if name in EXPERIMENTS else name}.ipynb",
            parameters,
            folder / "out.ipynb",
            folder / "out.html",
            TEMPLATE,
        )
    page = (folder / "out.html").read_text(encoding="utf-8")
    return Report(name, folder, page, nbformat.read(folder / "out.ipynb", as_version=4))


def test_the_page_needs_no_network_and_runs_no_script(report: Report) -> None:
    reader = Reader(report.page)
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    assert reader.loads
    assert all(address.startswith("data:image/png;base64,") for address in reader.loads)
    assert not re.search(r"@import|url\(", report.page)


def test_the_page_has_a_title(report: Report) -> None:
    words = report.name.replace("_", " ").capitalize()
    title = "Baseline answers" if report.name == "baseline" else words
    assert f"<title>{title}</title>" in report.page


def test_every_figure_is_saved_three_times_and_shown_once(report: Report) -> None:
    saved = {file.name for file in (report.folder / "figures").iterdir()}
    assert saved == {
        f"{stem}.{kind}" for stem in stems_of(report.name) for kind in ("pdf", "svg", "png")
    }
    assert Reader(report.page).tags.count("img") == len(stems_of(report.name))
    shown = [output for cell in report.notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in shown if "image/png" in output.get("data", {})]
    assert len(pictures) == len(stems_of(report.name))


def test_the_code_is_in_the_page_but_folded_away(report: Report) -> None:
    assert '<pre class="code">' in report.page
    assert "#code:not(:checked) ~ .code { display: none; }" in report.page


def test_the_sources_of_the_method_are_named(report: Report) -> None:
    assert all(name in report.page for name in ("Palit", "Meng", "Arora", "pyvene"))


def test_the_layers_of_the_published_figures_are_explained(report: Report) -> None:
    """Where a side of the question encoder's blocks is asked for, and nowhere else."""
    explained = "is what the published figures call layer ℓ" in report.page
    assert explained == (report.name in ("patching", "tracing"))


def test_the_cells_left_nothing_on_standard_error(report: Report) -> None:
    outputs = [output for cell in report.notebook.cells for output in cell.get("outputs", [])]
    assert [output for output in outputs if output.output_type == "stream"] == []


def test_the_tables_say_what_they_should(report: Report) -> None:
    texts = Reader(report.page).texts
    tables = report.folder / "tables"
    assert "Warning: the tokenizer does not know every word of the questions." in texts
    assert "kite" in texts
    if report.name == "baseline":
        runs = read_table(tables / "runs.csv")
        assert f"{runs.loc[runs['run'] == 'base', 'p_base'].mean():.3f}" in texts
        return
    asked = EXPERIMENTS[report.name]
    summary = read_table(tables / "summary.csv")
    run_means = read_table(tables / "run_means.csv")
    means = [
        summary[(summary["quantity"] == "probability") & (summary["experiment"] == asked.name)]
    ]
    if asked.corrupted:
        means.append(run_means[run_means["run"] == asked.corrupted.name])
    assert all(len(rows) for rows in means)
    # Of three pictures there are no intervals.
    for row in pd.concat(means).itertuples():
        assert f"{row.mean:.3f}" in texts
    cells = read_table(tables / f"{asked.name}.csv")
    drawn = cells[cells["example"] == EXAMPLE]
    if asked.corrupted:
        drawn = drawn[drawn["noise_level"] == DRAWS_AT]
    drawn = drawn[~drawn["site"].isin(["vision.block_output", "vision.mlp"])]
    heads = drawn["head"].notna() if "head" in drawn else pd.Series(False, drawn.index)
    for mapped, rows in ((drawn[~heads], "position"), (drawn[heads], "head")):
        if mapped.empty:
            continue
        for mean in mapped.groupby(["site", "layer", rows])[f"p_{asked.followed}"].mean():
            assert f"{mean:.3f}" in texts
    if report.name in ("patching", "tracing"):
        assert "9 [SEP]" in texts


def test_positions_that_are_put_in_together_are_called_by_their_role(report: Report) -> None:
    texts = Reader(report.page).texts
    assert ("differing word" in texts) == (report.name == "joint")
    assert ("head 0" in texts) == (report.name == "everywhere")


@pytest.mark.parametrize("name", NOTEBOOK_NAMES)
def test_a_stored_notebook_has_no_outputs_and_ids_that_stay(name: str) -> None:
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    # A tool's own ids are random digits; these are words.
    assert all(re.fullmatch(r"[a-z-]+", cell.id) for cell in notebook.cells)
    assert [cell.id for cell in code if "parameters" in cell.metadata.get("tags", [])] == [
        "parameters"
    ]


# ---- cells without a kernel of their own -------------------------------------------------------

SHOWN = (
    "print('one'); print('two')",
    "import sys; _ = sys.stderr.write('aside')",
    "from IPython.display import HTML, Image, display\nprint('first')\n"
    "display(HTML('<b>1</b>'), Image(data=b'png', format='png', alt='a picture'))\nprint('last')",
    "import pandas as pd\npd.DataFrame({'a': [1]})",
    "5;",
    "None",
    "a = 3\na + 4",
)


def test_cells_show_what_a_kernel_would_show(tmp_path: Path) -> None:
    notebook = nbformat.read(stored(tmp_path / "some.ipynb", *SHOWN), as_version=4)

    def executed(engine: str | None) -> NotebookNode:
        return papermill.execute_notebook(
            deepcopy(notebook), None, {}, engine, progress_bar=False, kernel_name="python3"
        )

    kernels, ours = executed(None), executed(notebooks.HERE)

    def cells(of: NotebookNode) -> list[Any]:
        kept = render_report.without_the_hour(of).cells
        return [(cell.source, cell.execution_count, cell.outputs) for cell in kept]

    assert cells(ours) == cells(kernels)
    assert ours.metadata.language_info == kernels.metadata.language_info
    assert [cell.outputs for cell in ours.cells].count([]) == 2


@pytest.mark.parametrize("last", ["7", "1 / 0", "not python"])
def test_cells_leave_the_process_as_it_was(tmp_path: Path, last: str) -> None:
    notebook = stored(tmp_path / "some.ipynb", "import sys\nsys.path.insert(0, 'here')", last)
    before = sys.modules["__main__"], list(sys.path), sys.displayhook, sys.excepthook
    with suppress(render_report.ReportError):
        render_report.execute(notebook, {})
    after = sys.modules["__main__"], list(sys.path), sys.displayhook, sys.excepthook
    assert after == before
    assert get_ipython() is None


def test_no_name_of_one_notebook_is_known_to_the_next(tmp_path: Path) -> None:
    render_report.execute(stored(tmp_path / "some.ipynb", "mine = 1"), {})
    with pytest.raises(render_report.ReportError, match="NameError: name 'mine'"):
        render_report.execute(stored(tmp_path / "other.ipynb", "mine"), {})


# ---- failures ----------------------------------------------------------------------------------


def stored(path: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"title": "A title"}), path)
    return path


def test_a_failing_cell_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    notebook = stored(tmp_path / "bad.ipynb", "print('so far')", "{}['no such token']")
    with pytest.raises(render_report.ReportError) as failure:
        render_report.render(notebook, {}, tmp_path / "out.ipynb", tmp_path / "out.html", TEMPLATE)
    message = str(failure.value)
    assert message.splitlines()[0] == f"{notebook}: KeyError: 'no such token'"
    assert "{}['no such token']" in message
    assert "\x1b" not in message
    assert list(tmp_path.iterdir()) == [notebook]


def test_what_a_cell_shows_cannot_become_markup(tmp_path: Path) -> None:
    notebook = stored(tmp_path / "some.ipynb", "print('<b>1 < 2</b>')", "'<i>'")
    render_report.render(notebook, {}, tmp_path / "out.ipynb", tmp_path / "out.html", TEMPLATE)
    page = (tmp_path / "out.html").read_text()
    assert "&lt;b&gt;1 &lt; 2&lt;/b&gt;" in page
    assert not {"b", "i"} & set(Reader(page).tags)


def test_a_job_without_a_home_keeps_one_font_list_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", "/nonexistent")
    folder = render_report.matplotlib_folder()["MPLCONFIGDIR"]
    assert Path(folder).is_dir()
    assert render_report.matplotlib_folder()["MPLCONFIGDIR"] == folder
    monkeypatch.setenv("HOME", str(tmp_path))
    assert render_report.matplotlib_folder() == {}


def render_experiment(folder: Path, asked: Experiment) -> str:
    """The page of an experiment, of made-up tables and of no example."""
    tables = write_derived_tables(write_tables(folder / "tables", ends=ENDS), ends=ENDS)
    parameters = {
        "tables": tables_in(tables),
        "figures": str(folder),
        "experiment": described(asked),
        "scripts": str(WORKFLOW / "scripts"),
    }
    page = folder / "page.html"
    render_report.render(
        NOTEBOOKS / "experiment.ipynb", parameters, folder / "out.ipynb", page, TEMPLATE
    )
    return page.read_text()


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    patching = made_up_experiments()[0]
    first = render_experiment(tmp_path, patching), (tmp_path / "out.ipynb").read_bytes()
    again = render_experiment(tmp_path, patching), (tmp_path / "out.ipynb").read_bytes()
    assert first == again
