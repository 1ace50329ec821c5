"""Model and pictures from outside, through the workflow: fetched once, recorded, then offline."""

import functools
import http.server
import json
import shutil
import threading

import pytest
from project import copy_project, run, snakemake

pytestmark = pytest.mark.workflow

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The miniature under a Hub id in a cache of the Hub's layout, and no way to the Hub itself."""
    repository = tmp_path / "cache/models--someone--miniature"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(COMMIT)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return repository / "snapshots" / COMMIT


@pytest.fixture
def server(tmp_path):
    """A server of the folder `served`, and the paths that were asked of it."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *arguments):
            pass

    (tmp_path / "served").mkdir()
    handler = functools.partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


def test_a_hub_model_and_a_picture_by_address_give_the_same_answers(
    default_run, tmp_path, hub, server
):
    address, asked = server
    project = copy_project(tmp_path / "project")
    shutil.copytree(project / "resources/miniature/checkpoint", hub)
    shutil.copy(project / "resources/miniature/images/animal_shirt.png", tmp_path / "served")
    config = (project / "config/config.yaml").read_text()
    config = config.replace("resources/miniature/checkpoint", "someone/miniature")
    (project / "config/config.yaml").write_text(config)
    sheet = (project / "config/examples.tsv").read_text()
    sheet = sheet.replace(
        "resources/miniature/images/animal_shirt.png", f"{address}/animal_shirt.png"
    )
    (project / "config/examples.tsv").write_text(sheet)

    run(project, "results/tables/baseline.csv")
    table = "results/tables/baseline.csv"
    assert (project / table).read_bytes() == (default_run / table).read_bytes()
    assert json.loads((project / "results/model.json").read_text())["commit"] == COMMIT
    facts = json.loads((project / "results/tables/baseline.provenance.json").read_text())
    assert (facts["model"], facts["commit"]) == ("someone/miniature", COMMIT)
    assert asked == ["/animal_shirt.png"]
    assert "Nothing to be done" in run(project, table)

    # A row that does not fit the model is found before any job, once the model is known.
    with (project / "config/examples.tsv").open("a") as file:
        file.write(f"bad\t{address}/animal_shirt.png\twhat is red\twhat is the color of the hat\n")
    done = snakemake(project, table)
    assert done.returncode == 1
    assert "row 6 (example 'bad'): base_question has 5 tokens" in done.stdout
    assert asked == ["/animal_shirt.png"]
