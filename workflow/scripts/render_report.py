"""Run a report's notebook with papermill and write it out, executed, and as a web page.

The page needs no network and no other file: pictures lie inside it, and it runs no scripts.
"""

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import FileSystemLoader
from nbformat import NotebookNode

from blip_tracing.given.pictures import check_answered
from blip_tracing.machinery.files import check_files, written_whole
from blip_tracing.machinery.logs import log_to

TERMINAL_COLORS = re.compile(r"\x1b\[[0-9;]*m")
HEADING = re.compile(r"# (.+)")

# Papermill's cell of the parameters given, to which it also gives a random name.
INJECTED = "injected-parameters"


class ReportError(RuntimeError):
    """A cell of the notebook failed; the message is the cell's error with its traceback."""


def render(
    notebook: str | os.PathLike[str],
    parameters: Mapping[str, Any],
    executed: str | os.PathLike[str],
    page: str | os.PathLike[str],
    template: str | os.PathLike[str],
) -> None:
    """Run the notebook with the parameters; write it with its outputs, and as a web page.

    Relative paths among the parameters count from the current folder; template: of the page. Both
    files appear whole, after all cells have run, or not at all.
    """
    result = titled(without_the_hour(execute(notebook, parameters)))
    contents = {executed: nbformat.writes(result), page: page_of(result, template)}
    for path, content in contents.items():
        with written_whole(path) as file:
            file.write(content.encode())


def execute(notebook: str | os.PathLike[str], parameters: Mapping[str, Any]) -> NotebookNode:
    """The notebook with the outputs that it has with these parameters.

    Raises ReportError when a cell fails.
    """
    with job_surroundings():
        # These read Jupyter's folders from the environment when they are imported.
        import papermill
        from papermill.exceptions import PapermillExecutionError

        from blip_tracing.printing.notebooks import HERE

        try:
            return papermill.execute_notebook(
                nbformat.read(notebook, as_version=4),
                None,
                parameters=dict(parameters),
                engine_name=HERE,
                kernel_name="python3",
                cwd=Path.cwd(),
                progress_bar=False,
            )
        except PapermillExecutionError as error:
            traceback = TERMINAL_COLORS.sub("", "\n".join(error.traceback))
            raise ReportError(
                f"{os.fspath(notebook)}: {error.ename}: {error.evalue}\n{traceback}"
            ) from None


def without_the_hour(notebook: NotebookNode) -> NotebookNode:
    """The executed notebook without times, random names and addresses in memory.

    The same tables then give the same bytes.
    """
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        if INJECTED in cell.metadata.get("tags", []):
            cell.id = INJECTED
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        for output in cell.get("outputs", []):
            if "text/html" in output.get("data", {}):
                output.data.pop("text/plain", None)
    return notebook


def titled(notebook: NotebookNode) -> NotebookNode:
    """The executed notebook, titled as its first heading; without one it keeps its own title."""
    texts = [
        output.get("data", {}).get("text/markdown", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    ]
    texts += [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    headings = (heading for text in texts if (heading := HEADING.match(text)))
    if first := next(headings, None):
        notebook.metadata.title = first[1]
    return notebook


def page_of(notebook: NotebookNode, template: str | os.PathLike[str]) -> str:
    """An executed notebook as one self-contained HTML page, by a Jinja template for nbconvert."""
    from nbconvert.exporters import HTMLExporter

    exporter = HTMLExporter(
        extra_loaders=[FileSystemLoader(Path(template).parent)],
        template_file=Path(template).name,
        exclude_anchor_links=True,
    )
    page, _ = exporter.from_notebook_node(notebook)
    return page


@contextmanager
def job_surroundings() -> Iterator[None]:
    """An environment in which cells run in a job: nothing of the user's, no home needed."""
    with tempfile.TemporaryDirectory(prefix="report-") as folder:
        changes = {
            "IPYTHONDIR": folder,
            "JUPYTER_CONFIG_DIR": folder,
            "JUPYTER_DATA_DIR": folder,
            "JUPYTER_RUNTIME_DIR": folder,
            "JUPYTER_PLATFORM_DIRS": "1",
            "MPLBACKEND": "agg",
            **matplotlib_folder(),
        }
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def matplotlib_folder() -> dict[str, str]:
    """MPLCONFIGDIR for a job whose home takes no files, or nothing where it need not be set.

    One folder a user is kept between jobs: matplotlib takes seconds to list the fonts anew.
    """
    if "MPLCONFIGDIR" in os.environ or os.access(os.environ.get("HOME", ""), os.W_OK):
        return {}
    folder = Path(tempfile.gettempdir(), f"matplotlib-of-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    return {"MPLCONFIGDIR": str(folder)}


def main(snakemake: Any) -> None:
    """Run as the script of the rules `render_*`."""
    files = snakemake.input
    with log_to(snakemake.log[0]):
        check_files(files.facts, files.tables)
        check_answered(files.get("picture_facts", []), files.get("pictures", []))
        # It is an output, and of tables in which nothing was found there may be no figure.
        Path(snakemake.output.figures).mkdir(parents=True, exist_ok=True)
        render(
            files.notebook,
            snakemake.params.parameters,
            snakemake.output.notebook,
            snakemake.output.page,
            snakemake.input.template,
        )


if "snakemake" in globals():
    main(globals()["snakemake"])
