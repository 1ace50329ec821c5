"""Runs a notebook's cells in this process, where a kernel of its own would import all anew.

What the cells show is kept as a kernel would keep it, so that the executed notebook is the same.
"""

from __future__ import annotations

import io
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from nbformat import NotebookNode
from nbformat.v4 import new_output
from papermill.engines import Engine, NotebookExecutionManager, papermill_engines
from traitlets.config import Config

# The name by which papermill knows the engine.
HERE = "here"

LANGUAGE = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
    "version": platform.python_version(),
}


class Results(DisplayHook):
    """Keeps the value of a cell's last line."""

    shell: Shell

    def write_output_prompt(self) -> None:
        """Print nothing."""

    def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:
        """Keep the value in all its formats."""
        output = new_output(
            "execute_result", format_dict, metadata=md_dict or {},
            execution_count=self.prompt_count,
        )  # fmt: skip
        self.shell.outputs.append(output)

    def finish_displayhook(self) -> None:
        """Print nothing."""


class Displays(DisplayPublisher):
    """Keeps what a cell displays."""

    shell: Shell

    def publish(self, data: Any, metadata: Any = None, source: Any = None, **_: Any) -> None:
        """Keep the thing displayed in all its formats."""
        self.shell.outputs.append(new_output("display_data", data, metadata=metadata or {}))


class Printed(io.TextIOBase):
    """Keeps what a cell prints, lines that follow one another as one output."""

    def __init__(self, outputs: list[NotebookNode], name: str) -> None:
        """name: stdout or stderr."""
        self.outputs, self.name = outputs, name

    def write(self, text: str) -> int:
        """Keep the text."""
        last = self.outputs[-1] if self.outputs else {}
        if last.get("name") == self.name:
            last["text"] += text
        elif text:
            self.outputs.append(new_output("stream", name=self.name, text=text))
        return len(text)


class Shell(InteractiveShell):
    """IPython without a terminal: `outputs` has what the cell at work has shown so far."""

    displayhook_class = Results
    display_pub_class = Displays

    def __init__(self, **settings: Any) -> None:
        self.outputs: list[NotebookNode] = []
        super().__init__(**settings)

    def _showtraceback(self, etype: Any, evalue: Any, stb: list[str]) -> None:
        self.outputs.append(
            new_output("error", ename=etype.__name__, evalue=str(evalue), traceback=stb)
        )

    def run(self, cell: NotebookNode) -> bool:
        """Run a cell and give it its outputs; whether all went well."""
        self.outputs = []
        cell.execution_count = self.execution_count
        with (
            redirect_stdout(Printed(self.outputs, "stdout")),
            redirect_stderr(Printed(self.outputs, "stderr")),
        ):
            result = self.run_cell(cell.source, store_history=True)
        cell.outputs = self.outputs
        return result.success


class Here(Engine):
    """Papermill's engine that runs the cells in this process, one after the other to an error."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, **_: Any
    ) -> None:
        """Run the cells of `nb_man.nb`; after one that fails no other runs."""
        nb_man.nb.metadata.language_info = LANGUAGE
        with shell() as running:
            for number, cell in enumerate(nb_man.nb.cells):
                nb_man.cell_start(cell, number)
                if cell.cell_type == "code" and not running.run(cell):
                    nb_man.cell_exception(cell, number)
                    return
                nb_man.cell_complete(cell, number)


papermill_engines.register(HERE, Here)


@contextmanager
def shell() -> Iterator[Shell]:
    """The one IPython shell of this process; afterwards the process is as it was."""
    main, path = sys.modules["__main__"], list(sys.path)
    try:
        yield Shell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    finally:
        Shell.clear_instance()
        sys.modules["__main__"], sys.path[:] = main, path
