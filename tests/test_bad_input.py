"""Bad input ends in one line before any job starts, and what was computed stays."""

import pytest
from project import copy_project, snakemake

pytestmark = pytest.mark.workflow

CONFIG, SHEET = "config/config.yaml", "config/examples.tsv"
ROW = "animal_shirt\tresources/miniature/images/animal_shirt.png\twhat is the color of the animal"


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("clean") / "project")


@pytest.fixture
def project(clean):
    """The project, its inputs put back after each test."""
    kept = {path: (clean / path).read_text() for path in (CONFIG, SHEET)}
    yield clean
    for path, text in kept.items():
        (clean / path).write_text(text)


@pytest.mark.parametrize(
    ("path", "old", "new", "message"),
    [
        (CONFIG, "  name: resources", "  nam: resources", "model.nam is not a known key"),
        (CONFIG, "  layers: 6\n", "", "model.layers is missing"),
        (CONFIG, "samples: 10", "samples: ten", "tracing.samples: 'ten' is text"),
        (CONFIG, "[0.1,", "[-0.1,", "tracing.noise_levels[0]: -0.1 is less than the minimum of 0"),
        (CONFIG, "[block_input]", "[mlp]", "patching.sites[0]: 'mlp' is unknown"),
        (CONFIG, "  layers: 6\n", "  layers: 7\n", "model.layers is 7, but"),
        (CONFIG, "examples.tsv", "exmples.tsv", "config/exmples.tsv: there is no such file"),
        (CONFIG, "miniature/checkpoint", "miniature/chekpoint", "there is no directory"),
        (CONFIG, "  layers: 6", "\tlayers: 6", "config.yaml, line 10: is not YAML (found char"),
        (
            CONFIG,
            "device: auto",
            "device: cpu\ndevice: cuda",
            "device is given twice; keep it once",
        ),
        (SHEET, "ball_kite\t", "animal_shirt\t", "row 3 (example 'animal_shirt'), example:"),
        (SHEET, "what is the color of the ball", " ", "base_question: is empty"),
        (SHEET, "what is the color of the ball", "what " * 99, "has 101 tokens, the model reads"),
        (SHEET, "images/animal_shirt.png", "scenes.py", "is no picture"),
        (SHEET, "images/animal_shirt.png", "a{b}.png", "takes { and } in a path for wildcards"),
    ],
)
def test_one_line_names_the_thing_and_no_job_starts(project, path, old, new, message):
    text = (project / path).read_text()
    assert old in text
    (project / path).write_text(text.replace(old, new, 1))
    done = snakemake(project)
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if not line.startswith("Using workflow")]
    assert len(lines) == 1, done.stdout
    assert message in lines[0]
    assert not (project / "results").exists()


@pytest.mark.parametrize("content", ["- model\n", "model: {name: x\n"])
def test_a_given_file_that_is_no_configuration_ends_without_a_traceback(project, content):
    """Snakemake reads it before the workflow, and has its own words for what is wrong."""
    (project / "given.yaml").write_text(content)
    done = snakemake(project, "--configfile", "given.yaml")
    assert done.returncode == 1
    assert "Config file " in done.stdout
    assert "Traceback" not in done.stdout
    assert not (project / "results").exists()


def test_a_configuration_of_two_files_is_checked_as_one(project):
    (project / "one.yaml").write_text("model: {name: resources/miniature/checkpoint, layers: 6}\n")
    (project / "two.yaml").write_text("examples: config/examples.tsv\ntracing: {sites: mlp}\n")
    done = snakemake(project, "--configfile", "one.yaml", "two.yaml")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == (
        f"{project}/one.yaml + {project}/two.yaml: tracing.sites: 'mlp' is text, not a list"
    )


def test_a_sheet_as_a_spreadsheet_saves_it_is_planned(project):
    """A byte-order mark, Windows line ends, trailing blanks and tabs, questions in any script."""
    picture = "resources/miniature/images/animal_shirt.png"
    lines = [
        "example\timage\tbase_question\tsource_question\t\t",
        f"one\t{picture}\tчто это \tгде это\t \t",
        "",
        f"two\t{picture}  \t什么?\t誰か!\u3000\t\t",
        f"three\t{picture}\tما هذا؟\tمن هذا؟",
        "\t\t\t\t\t",
    ]
    (project / SHEET).write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    done = snakemake(project, "--dry-run")
    assert done.returncode == 0, done.stdout
    assert (
        "row 2 (example 'one'), source_question: the tokenizer does not know 'где'" in done.stdout
    )
    assert "Traceback" not in done.stdout


def test_an_answer_that_is_several_tokens_is_refused(project):
    (project / SHEET).write_text(
        "example\timage\tbase_question\tsource_question\tbase_answer\n"
        f"{ROW}\twhat is the color of the shirt\tred brown\n"
    )
    done = snakemake(project)
    assert done.returncode == 1
    assert "row 2 (example 'animal_shirt'), base_answer: 'red brown' is 2 tokens" in done.stdout


def test_pairs_of_different_lengths_are_refused_unless_nothing_is_patched(project):
    (project / SHEET).write_text(
        f"example\timage\tbase_question\tsource_question\n{ROW}\twhat is on the left\n"
    )
    done = snakemake(project, "--dry-run")
    assert done.returncode == 1
    assert "base_question has 9 tokens, source_question 7" in done.stdout
    config = (project / CONFIG).read_text()
    (project / CONFIG).write_text(config.replace("[block_input]", "[]", 1))
    done = snakemake(project, "--dry-run")
    assert done.returncode == 0, done.stdout
    assert "patch_layer" not in done.stdout


def test_a_folder_in_the_home_directory_is_found(project, monkeypatch):
    monkeypatch.setenv("HOME", str(project / "resources/miniature"))
    config = (project / CONFIG).read_text()
    (project / CONFIG).write_text(config.replace("resources/miniature/", "~/"))
    done = snakemake(project, "--dry-run")
    assert done.returncode == 0, done.stdout


def test_a_gpu_that_is_absent_is_refused(project, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config = (project / CONFIG).read_text()
    (project / CONFIG).write_text(config.replace("device: auto", "device: cuda"))
    done = snakemake(project)
    assert done.returncode == 1
    assert "device: cuda, but this machine has no CUDA device" in done.stdout
    assert not (project / "results").exists()


def test_a_fault_leaves_earlier_results_alone(finished):
    before = sorted(path for path in (finished / "results").rglob("*") if path.is_file())
    config = (finished / CONFIG).read_text()
    (finished / CONFIG).write_text(config.replace("seed: 0", "seed: zero"))
    assert snakemake(finished).returncode == 1
    assert before == sorted(path for path in (finished / "results").rglob("*") if path.is_file())


def test_words_that_the_tokenizer_does_not_know_are_named_and_reported(project):
    (project / SHEET).write_text(
        f"example\timage\tbase_question\tsource_question\n{ROW}\twhat is the color of the zebra\n"
    )
    done = snakemake(project, "reports/baseline.html")
    assert done.returncode == 0, done.stdout
    assert (
        "source_question: the tokenizer does not know 'zebra', which becomes [UNK]" in done.stdout
    )
    page = (project / "reports/baseline.html").read_text()
    assert "does not know" in page
    assert "zebra" in page
