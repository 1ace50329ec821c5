"""The command that turns a dataset of questions into a sheet, run on drawn scenes."""

import csv
import functools
import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from make_sheet import ask_model, parse
from oracle import answer_logits, image_states
from PIL import Image
from project import ROOT, copy_project, planned_jobs
from snakemake.utils import validate  # type: ignore[import-untyped]
from transformers import AutoTokenizer, BlipForQuestionAnswering
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from blip_tracing.given.checks import check_against_checkpoint, check_pictures
from blip_tracing.given.pairs import COLUMNS, Reason
from blip_tracing.given.pictures import picture_path
from blip_tracing.given.settings import fill_config
from blip_tracing.given.sheet import load_sheet
from blip_tracing.vocabulary.experiment import BASE, SOURCE

CHECKPOINT = ROOT / "resources/miniature/checkpoint"
SCENES = 20
# Two questions of each of three kinds about a scene.
ROWS = 6 * SCENES
LOCAL = "scenes/{id:012d}.png"
# Of so many rows the answer is changed to a wrong one.
MISTAKES = 6


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `scenes/`: pictures, and their questions with some wrong answers."""
    folder = tmp_path_factory.mktemp("drawn")
    drawing = ROOT / "resources/miniature/draw_scenes.py"
    command = [sys.executable, str(drawing), "scenes", "--scenes", str(SCENES), "--seed", "5"]
    subprocess.run(command, cwd=folder, check=True)
    questions = pd.read_csv(folder / "scenes/questions.csv", index_col=0)
    color = questions["question_count"].str.contains("color")
    mistaken = questions[color].index[:MISTAKES]
    shifted = {"red": "blue"}
    questions.loc[mistaken, "answer_count"] = [
        shifted.get(answer, "red") for answer in questions.loc[mistaken, "answer_count"]
    ]
    questions.to_csv(folder / "scenes/questions.csv")
    return folder


def make_sheet(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, on the scenes there."""
    script = ROOT / "workflow/scripts/make_sheet.py"
    command = [sys.executable, str(script), "scenes/questions.csv", *arguments]
    return subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False)


def made(
    folder: Path, name: str, *arguments: str, pictures: str = LOCAL
) -> subprocess.CompletedProcess[str]:
    """Make `<name>.tsv`, which succeeds."""
    options = ["--model", str(CHECKPOINT), "--pictures", pictures, *arguments]
    done = make_sheet(folder, f"{name}.tsv", *options)
    assert done.returncode == 0, done.stderr
    return done


def read_drops(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.dropped.csv", keep_default_na=False)


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "scenes/questions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--pairs", "same-picture"],
        ["--pairs", "swap-noun"],
        ["--pairs", "swap-noun", "--words", "7", "--sample", "10", "--seed", "3"],
        ["--pairs", "same-picture", "--correct", "--sample", "10"],
    ],
    ids=" ".join,
)
def test_the_sheet_is_what_the_workflow_takes_and_every_row_is_accounted_for(
    drawn: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(drawn)
    printed = made(drawn, "sheet", *arguments).stdout

    sheet = load_sheet("sheet.tsv")
    validate(sheet, str(ROOT / "workflow/schemas/examples.schema.yaml"))
    check_pictures(sheet, "sheet.tsv")
    config = fill_config(
        {
            "model": {"name": "a/b", "layers": {"encoder": 6, "decoder": 6, "vision": 3}},
            "examples": "sheet.tsv",
            "experiments": {"patching": {"receiver": BASE, "donor": SOURCE}},
        }
    )
    assert check_against_checkpoint(config, sheet, CHECKPOINT, "sheet.tsv") == []
    assert (sheet["base_answer"] == "").all()
    if "--sample" in arguments:
        assert len(sheet) == 10

    rows, drops = read_rows(drawn), read_drops(drawn, "sheet")
    kept = [int(name.split("_")[1]) for name in sheet["example"]]
    assert sorted(kept + drops["row"].tolist()) == list(range(2, 2 + len(rows)))
    for name, image, question in sheet[["example", "image", "base_question"]].values:
        row = rows[int(name.split("_")[1]) - 2]
        assert row["question_count"] == question
        assert LOCAL.format(id=int(row["train_image_id_count"])) == image
    assert drops["question"].tolist() == [
        rows[row - 2]["question_count"] for row in drops["row"].tolist()
    ]

    assert printed.count("\n") == 1
    assert f"sheet.tsv: {len(sheet)} examples" in printed
    assert f"{len(drops)} rows dropped, listed in sheet.dropped.csv: " in printed
    for reason, count in drops["reason"].value_counts().items():
        assert f"{count}: {reason}" in printed


def test_the_same_seed_gives_the_same_files_and_another_seed_others(drawn: Path) -> None:
    arguments = ["--pairs", "swap-noun", "--sample", "20"]
    for name, seed in [("first", "1"), ("again", "1"), ("other", "2")]:
        made(drawn, name, *arguments, "--seed", seed)
    for suffix in ("tsv", "dropped.csv"):
        first, again, other = (
            (drawn / f"{name}.{suffix}").read_bytes() for name in ("first", "again", "other")
        )
        assert first == again != other


def test_a_swapped_question_differs_in_exactly_one_token(drawn: Path) -> None:
    made(drawn, "swapped", "--pairs", "swap-noun")
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    sheet = load_sheet(drawn / "swapped.tsv")
    assert len(sheet) > SCENES
    for questions in sheet[["base_question", "source_question"]].values.tolist():
        base, source = (tokenizer(question).input_ids for question in questions)
        assert len(base) == len(source)
        assert sum(a != b for a, b in zip(base, source, strict=True)) == 1


class Truth:
    """What the unmodified Hugging Face model answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = BlipForQuestionAnswering.from_pretrained(CHECKPOINT).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
        self.processor = BlipImageProcessorPil.from_pretrained(CHECKPOINT)
        self.seen: dict[str, torch.Tensor] = {}

    def look_at(self, image: str) -> torch.Tensor:
        with Image.open(self.folder / image) as picture:
            pixels = self.processor(picture, return_tensors="pt")["pixel_values"]
        return image_states(self.model, pixels)

    def answer(self, image: str, question: str) -> str:
        if image not in self.seen:
            self.seen[image] = self.look_at(image)
        logits = answer_logits(self.model, self.tokenizer(question).input_ids, self.seen[image])
        return self.tokenizer.convert_ids_to_tokens(int(torch.argmax(logits)))


@pytest.mark.parametrize("pairs", ["same-picture", "swap-noun"])
def test_only_what_the_model_answers_rightly_is_kept(drawn: Path, pairs: str) -> None:
    made(drawn, pairs, "--pairs", pairs, "--correct")
    truth, rows = Truth(drawn), read_rows(drawn)
    answers = {
        (LOCAL.format(id=int(row["train_image_id_count"])), row["question_count"]): row[
            "answer_count"
        ]
        for row in rows
    }
    sheet = load_sheet(drawn / f"{pairs}.tsv")
    assert len(sheet) > SCENES
    for image, base, source in sheet[["image", "base_question", "source_question"]].values:
        assert truth.answer(image, base) == answers[image, base]
        if pairs == "same-picture":
            assert truth.answer(image, source) == answers[image, source]
        assert truth.answer(image, base) != truth.answer(image, source)

    drops = read_drops(drawn, pairs)
    wrong = drops[drops["reason"] == Reason.WRONG]
    assert 0 < len(wrong) < 2 * MISTAKES
    for row, said in wrong[["row", "detail"]].values:
        picture, question, answer = (rows[row - 2][column] for column in COLUMNS)
        assert truth.answer(LOCAL.format(id=int(picture)), question) == said != answer


def test_questions_whose_picture_is_not_there_are_dropped(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn / "scenes", tmp_path / "scenes")
    (tmp_path / "scenes/000000000003.png").unlink()
    made(tmp_path, "sheet")
    drops = read_drops(tmp_path, "sheet")
    missing = drops[drops["reason"] == Reason.NO_PICTURE]
    assert set(missing["detail"]) == {"scenes/000000000003.png"}
    assert len(missing) == sum(row["train_image_id_count"] == "3" for row in read_rows(drawn))


@pytest.fixture
def server(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """The address of a server of the scenes, and the paths that were asked of it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, format: str, *arguments: object) -> None:
            """Keep quiet."""

    handler = functools.partial(Handler, directory=str(drawn / "scenes"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


@pytest.mark.workflow
def test_pictures_are_fetched_as_needed_and_never_again(
    drawn: Path, tmp_path: Path, server: tuple[str, list[str]]
) -> None:
    address, asked = server
    project = copy_project(tmp_path / "project")
    shutil.copytree(drawn / "scenes", project / "scenes")
    arguments = ["--words", "7", "--correct", "--sample", "4"]
    done = made(project, "config/examples", *arguments, pictures=f"{address}/{{id:012d}}.png")
    assert "4/4" in done.stderr, "a bar shows how far the model has come"

    sheet = load_sheet(project / "config/examples.tsv")
    assert len(sheet) == 4
    assert all((project / picture_path(image)).is_file() for image in sheet["image"])
    drops = read_drops(project, "config/examples")
    looked_at = set(sheet["image"]) | {
        f"{address}/{int(read_rows(project)[row - 2]['train_image_id_count']):012d}.png"
        for row in drops.loc[drops["reason"].isin([Reason.WRONG, Reason.SOURCES_WRONG]), "row"]
    }
    assert sorted(asked) == sorted(image.removeprefix(address) for image in looked_at)

    made(project, "config/examples", *arguments, pictures=f"{address}/{{id:012d}}.png")
    assert len(asked) == len(looked_at)
    assert "fetch_image" not in planned_jobs(project)


def test_the_model_is_asked_on_the_cores_that_are_given(
    drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One unless told otherwise: on a busy machine torch's threads wait for one another."""
    monkeypatch.chdir(drawn)
    for options, cores in (([], 1), (["--cores", "2"], 2)):
        arguments = parse(["questions.csv", "sheet.tsv", "--model", str(CHECKPOINT), *options])
        before = torch.get_num_threads()
        torch.set_num_threads(3)
        try:
            with ask_model(str(CHECKPOINT), "cpu", LOCAL, arguments.cores) as ask:
                assert torch.get_num_threads() == cores
                assert ask(1, "what is the color of the animal")
        finally:
            torch.set_num_threads(before)


def test_a_picture_that_cannot_be_fetched_is_named(
    drawn: Path, tmp_path: Path, server: tuple[str, list[str]]
) -> None:
    shutil.copytree(drawn / "scenes", tmp_path / "scenes")
    pictures = f"{server[0]}/no/{{id}}.png"
    options = ["--model", str(CHECKPOINT), "--pictures", pictures, "--correct"]
    done = make_sheet(tmp_path, "sheet.tsv", *options)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "the server answered 404" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "sheet.tsv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--model", "./nowhere"],
            "model.name: there is no directory nowhere; "
            "give the checkpoint's directory or a Hub id like Salesforce/blip-vqa-base",
        ),
        (
            ["--pictures", "scenes/all.png"],
            "--pictures scenes/all.png: names one picture for all; write {id} in it",
        ),
        (
            ["--words", "3"],
            f"scenes/questions.csv: no row makes an example; {ROWS} rows dropped, listed in "
            f"sheet.dropped.csv: {ROWS}: {Reason.WORDS}",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    drawn: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    shutil.copytree(drawn / "scenes", tmp_path / "scenes")
    options = ["--model", str(CHECKPOINT), "--pictures", LOCAL, *arguments]
    done = make_sheet(tmp_path, "sheet.tsv", *options)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [message]
    assert not (tmp_path / "sheet.tsv").exists()


def test_drawn_scenes_are_a_dataset_whose_first_scenes_do_not_depend_on_their_number(
    drawn: Path, tmp_path: Path
) -> None:
    drawing = ROOT / "resources/miniature/draw_scenes.py"
    command = [sys.executable, str(drawing), str(tmp_path), "--scenes", "3", "--seed", "5"]
    subprocess.run(command, check=True)
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == ["000000000001.png", "000000000002.png", "000000000003.png"]
    for name in pictures:
        assert (tmp_path / name).read_bytes() == (drawn / "scenes" / name).read_bytes()
    header, *lines = (tmp_path / "questions.csv").read_text().splitlines()
    assert header == ",train_image_id_count,question_count,answer_count"
    assert len(lines) == 3 * ROWS / SCENES
