"""Bad input ends in one line before any job starts, and what was computed stays."""

import inspect
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from project import ROOT, copy_project, run, snakemake
from refusals import refusal
from safetensors.numpy import load_file, save_file

from blip_tracing.given.plan import Plan
from blip_tracing.given.planning import Known, check_config_file, check_named_files, read_inputs
from blip_tracing.meaning.replication.published import check_run, read_published
from blip_tracing.meaning.replication.published_averages import (
    are_averages,
    held_against,
    read_averages,
)
from blip_tracing.vocabulary.sites import SITES

pytestmark = pytest.mark.workflow

CONFIG, SHEET = "config/config.yaml", "config/examples.tsv"
SITE = next(iter(SITES))
OTHER = next(site for site in SITES if site != SITE)
LAYERS, CORRUPT = "layers: {encoder: 6, decoder: 6, vision: 3}", "runs.noisy.corrupt"
ROW = "animal_shirt\tresources/miniature/images/animal_shirt.png\twhat is the color of the animal"


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("clean") / "project")


@pytest.fixture
def project(clean):
    """The project, its inputs put back after each test and its outputs deleted."""
    kept = {path: (clean / path).read_text() for path in (CONFIG, SHEET)}
    yield clean
    for path, text in kept.items():
        (clean / path).write_text(text)
    for folder in ("results", "reports"):
        shutil.rmtree(clean / folder, ignore_errors=True)


def line_of_a_run(project: Path) -> str:
    """The one line with which Snakemake ends; no job has started."""
    done = snakemake(project)
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if not line.startswith("Using workflow")]
    assert len(lines) == 1, done.stdout
    assert not (project / "results").exists()
    return lines[0]


def line_of_the_plan(project: Path) -> str:
    """The same, read as the rule files read it, without the seconds that Snakemake takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        return refusal(plan)


def plan() -> None:
    """Read what is given in this folder and plan the run, as `rules/common.smk` does."""
    check_config_file(CONFIG)
    config = yaml.safe_load(Path(CONFIG).read_text())
    sheet: Any = read_inputs(config, [CONFIG])
    check_named_files(config, sheet)
    averages = are_averages(config["published"])
    plan = Plan(config, sheet.to_dict("records"), Known, averages)
    if averages:
        published = read_averages(config["published"])
        held_against(published, config["published"], plan.experiments, plan.primary_levels,
                     config["averages"], len(plan.examples))  # fmt: skip
    elif config["published"]:
        published = read_published(config["published"])
        check_run(published, config["published"], plan.examples, plan.experiments)


def test_the_plan_here_makes_the_checks_of_the_rule_files() -> None:
    """Save those of the command line, of the machine and of the page that a run has made."""
    rules = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    called = set(re.findall(r"\b((?:check|read)_\w+)\(", rules))
    here = set(re.findall(r"\b((?:check|read)_\w+)\(", inspect.getsource(plan)))
    assert called - here == {"read_overrides", "check_device", "check_clock"}


FAULTS = [
    (CONFIG, "  name: resources", "  nam: resources", "model.nam is not a known key"),
    (CONFIG, f"  {LAYERS}\n", "", "model.layers is missing"),
    (CONFIG, "draws: 10", "draws: ten", f"{CORRUPT}.draws: 'ten' is text"),
    (CONFIG, "[0.1,", "[-0.1,", f"{CORRUPT}.levels[0]: -0.1 is less than the minimum of 0"),
    (CONFIG, f"[{SITE}]", "[zebra]", "experiments.patching.sites[0]: 'zebra' is unknown"),
    (CONFIG, "encoder: 6", "encoder: 7", "model.layers.encoder is 7, but"),
    (CONFIG, "vision: 3", "vision: 4", "model.layers.vision is 4, but"),
    (CONFIG, LAYERS, "layers: 6", "model.layers: is of the first version: write layers: {enc"),
    (CONFIG, "\nruns:", "\ntracing: {samples: 3}\nruns:", "tracing: is of the first version: "),
    (CONFIG, "donor: source", "donor: base", "experiments.patching: 'base' is both receiver"),
    (CONFIG, "donor: source", "donor: sorce", "is not a run; did you mean source?"),
    (CONFIG, "  patching:", "  summary:", "experiments.summary: is another table's or page's"),
    (CONFIG, "examples.tsv", "exmples.tsv", "config/exmples.tsv: there is no such file"),
    (CONFIG, "miniature/checkpoint", "miniature/chekpoint", "there is no directory"),
    (CONFIG, "  layers:", "\tlayers:", "config.yaml, line 10: is not YAML (found char"),
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
    (SHEET, "resources/miniature/images/animal_shirt.png", "http://[::1", "is no address"),
    (SHEET, "resources/miniature/images/animal_shirt.png", "/dev/zero", "it is a device, not"),
    (CONFIG, "config/examples.tsv", "/dev/zero", "it is a device, not a file"),
    (CONFIG, "  name: res", "  name: a{b}/res", "takes { and } in a path for wildcards"),
    (
        CONFIG,
        "\nreport:",
        "\npublished: README.md\nreport:",
        "README.md: cannot be read as",
    ),
    (CONFIG, "seed: 0", f"seed: {10**20}", "is more than the maximum of 92233720368547758"),
    (CONFIG, "[0.1, 0.5,", "[0.1, 1.0000000001,", "has more than the 9 digits that tables"),
]
# One of each kind: of a key, a file, the sheet, what the sheet names, and what is published.
KINDS = (
    "model.nam is not a known key", "is not YAML (found char", "row 3 (example 'animal_shirt')",
    "is no picture", "README.md: cannot be read as",
)  # fmt: skip


def make_fault(project: Path, path: str, old: str, new: str) -> None:
    text = (project / path).read_text()
    assert old in text
    (project / path).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(("path", "old", "new", "message"), FAULTS)
def test_one_line_names_the_thing(project, path, old, new, message):
    make_fault(project, path, old, new)
    assert message in line_of_the_plan(project)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_ends_with_the_line_and_no_job_starts(project, kind):
    (fault,) = [fault for fault in FAULTS if kind in fault[-1]]
    make_fault(project, *fault[:-1])
    assert line_of_a_run(project) == line_of_the_plan(project)


@pytest.mark.parametrize("content", ["- model\n", "model: {name: x\n"])
def test_a_given_file_that_is_no_configuration_ends_without_a_traceback(project, content):
    """Snakemake reads it before the workflow, and has its own words for what is wrong."""
    (project / "given.yaml").write_text(content)
    done = snakemake(project, "--configfile", "given.yaml")
    assert done.returncode == 1
    assert "Config file " in done.stdout
    assert "Traceback" not in done.stdout
    assert not (project / "results").exists()


@pytest.mark.parametrize("given", ["none.yaml", "config", "picture.png"])
def test_a_given_file_that_cannot_be_read_ends_in_a_last_line_that_says_so(project, given):
    """Snakemake reads it before the workflow, with a traceback, as the manual says."""
    shutil.copy(project / "resources/miniature/images/hat_box.png", project / "picture.png")
    done = snakemake(project, "--configfile", given)
    assert done.returncode == 1
    last = done.stdout.strip().splitlines()[-1]
    assert re.match(r"(FileNotFound|IsADirectory|UnicodeDecode)Error: ", last), done.stdout
    assert not (project / "results").exists()


def test_a_pipe_as_sheet_is_refused_before_any_job(project):
    reading, writing = os.pipe()
    try:
        done = snakemake(project, "--config", f"examples=/dev/fd/{reading}", pass_fds=(reading,))
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == (
        f"/dev/fd/{reading}: cannot be read (it is a pipe, not a file); give a file"
    )


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("results/cells/tracing/levels_3.0/0000.parquet", "part 'levels_3.0'"),
        ("results/cells/noising/levels_0.1-20.0/0000.parquet", "experiment 'noising'"),
        ("results/cells/patching/layers_9/0000.parquet", "part 'layers_9'"),
        ("results/baseline/0009.csv", "shard '0009'"),
        ("results/images/one.json", "shard 'one'"),
        ("results/effects/0009.parquet", "shard '0009'"),
    ],
)
def test_a_target_that_is_not_configured_is_named_with_what_is(project, path, known):
    several = ("--config", "shard_size=2")
    done = snakemake(project, "--dry-run", "--quiet", "all", *several, "--", path)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith(f"a file asked for is of {known}, which this configuration does not")


@pytest.mark.parametrize(
    "path", ["results/cells/tracing/levels_3.0/0000.parquet", "results/baseline/0009.csv"]
)
def test_a_target_that_is_not_configured_is_named_where_one_job_measures_all(project, path):
    done = snakemake(project, "--dry-run", "--", path)
    assert done.returncode == 1
    assert f"No rule to produce {path} " in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    "path", ["reports/none.html", "results/pictures/none.png", "results/runs/none/0000.parquet"]
)
def test_a_target_that_no_rule_makes_is_named(project, path):
    done = snakemake(project, "--dry-run", "--", path)
    assert done.returncode == 1
    assert f"No rule to produce {path} " in done.stdout
    assert "Traceback" not in done.stdout


def test_groups_of_the_command_line_join_those_of_the_file(project):
    printed = run(
        project,
        "--dry-run",
        "--config",
        "runs={noisy: {corrupt: {levels: [1, 3]}}}",
        "report={draws_at: 3}",
        "effects={primary_level: 1}",
        f"experiments={{patching: {{sites: [{OTHER}, {SITE}]}}}}",
        "noise_levels_per_job=1",
    )
    for made in ("tracing, levels_1.0,", "tracing, levels_3.0,", "patching, layers_0-5,"):
        assert made in printed
    printed = run(
        project,
        "--dry-run",
        "--config",
        "experiments={patching: {sites: []}}",
        "noise_levels_per_job=1",
    )
    assert "tracing, levels_" in printed
    assert "patching, layers_" not in printed
    done = snakemake(project, "--config", "runs={noisy: {corrupt: {draws: many}}}")
    assert done.stdout.splitlines()[-1] == (
        f"--config: {CORRUPT}.draws: 'many' is text, not a whole number"
    )


def test_paths_with_brackets_blanks_and_accents_work(project):
    odd = project / "a [1] *? é"
    odd.mkdir()
    shutil.copytree(project / "resources/miniature/checkpoint", odd / "m[0]")
    shutil.copy(project / "resources/miniature/images/hat_box.png", odd / "p[x].png")
    (odd / "s[2].tsv").write_text(
        "example\timage\tbase_question\tsource_question\n"
        "one\ta [1] *? é/p[x].png\twhat is the color of the hat\twhat is the color of the box\n"
    )
    config = ["examples=a [1] *? é/s[2].tsv", "model={name: 'a [1] *? é/m[0]'}"]
    run(project, "results/tables/baseline.csv", "--config", *config)
    assert "one" in (project / "results/tables/baseline.csv").read_text()
    shutil.rmtree(odd)


def test_a_configuration_of_two_files_is_checked_as_one(project):
    (project / "one.yaml").write_text(
        f"model: {{name: resources/miniature/checkpoint, {LAYERS}}}\n"
        "experiments: {patching: {receiver: base, donor: source}}\n"
    )
    (project / "two.yaml").write_text(
        "examples: config/examples.tsv\nexperiments: {patching: {sites: mlp}}\n"
    )
    done = snakemake(project, "--configfile", "one.yaml", "two.yaml")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == (
        f"{project}/one.yaml + {project}/two.yaml: "
        "experiments.patching.sites: 'mlp' is text, not a list"
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


def test_an_answer_with_a_word_that_the_tokenizer_lacks_is_refused(project):
    (project / SHEET).write_text(
        "example\timage\tbase_question\tsource_question\tbase_answer\n"
        f"{ROW}\twhat is the color of the shirt\tred zyx\n"
    )
    done = snakemake(project)
    assert done.returncode == 1
    assert (
        "row 2 (example 'animal_shirt'), base_answer: 'zyx' is not a word that the tokenizer knows"
    ) in done.stdout


def test_pairs_of_different_lengths_are_refused_unless_nothing_is_patched(project):
    (project / SHEET).write_text(
        f"example\timage\tbase_question\tsource_question\n{ROW}\twhat is on the left\n"
    )
    done = snakemake(project, "--dry-run")
    assert done.returncode == 1
    assert "base_question has 9 tokens, source_question 7" in done.stdout
    config = (project / CONFIG).read_text()
    assert f"[{SITE}]" in config
    (project / CONFIG).write_text(config.replace(f"[{SITE}]", "[]", 1))
    done = snakemake(project, "--dry-run")
    assert done.returncode == 0, done.stdout
    assert "tracing" in done.stdout
    assert "patching" not in done.stdout


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


# --- checkpoints

MINIATURE = "resources/miniature/checkpoint"
QUERY = "text_encoder.encoder.layer.3.attention.self.query.weight"


def lose_a_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[QUERY]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def rename_all(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    renamed = {f"x.{name}": tensor for name, tensor in weights.items()}
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})


def cut(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:1000])


def point_to_lfs(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


def lose_the_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def set_in_config(folder: Path, key: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    *parts, last = key.split(".")
    place = config
    for part in parts:
        place = place[part]
    place[last] = value
    (folder / "config.json").write_text(json.dumps(config))


def lose_the_architecture(folder: Path) -> None:
    set_in_config(folder, "architectures", None)


def write_a_number_as_a_word(folder: Path) -> None:
    set_in_config(folder, "text_config.num_hidden_layers", "six")


def claim_99_layers(folder: Path) -> None:
    set_in_config(folder, "vision_config.num_hidden_layers", 99)


def lose_a_word(folder: Path) -> None:
    saved = json.loads((folder / "tokenizer.json").read_text())
    del saved["model"]["vocab"]["brown"]
    (folder / "tokenizer.json").write_text(json.dumps(saved))


def gain_a_word(folder: Path) -> None:
    saved = json.loads((folder / "tokenizer.json").read_text())
    saved["model"]["vocab"]["okapi"] = 33
    (folder / "tokenizer.json").write_text(json.dumps(saved))


def put_into_braces(folder: Path) -> Path:
    return folder.rename(folder.with_name("é {1}"))


def give_a_file(folder: Path) -> Path:
    return folder / "vocab.txt"


def use_checkpoint(project: Path, path: Path) -> None:
    text = (project / CONFIG).read_text()
    assert MINIATURE in text
    (project / CONFIG).write_text(text.replace(MINIATURE, f"'{path}'", 1))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lose_a_tensor,
            f"model.safetensors: lacks 1 tensor of BlipForQuestionAnswering, the first {QUERY}",
        ),
        (
            claim_99_layers,
            "model.safetensors: lacks 1,152 tensors of BlipForQuestionAnswering, the",
        ),
        (
            rename_all,
            "holds 367 tensors that BlipForQuestionAnswering has no place for, the first x.",
        ),
        (cut, "model.safetensors: is cut short or no safetensors file; copy it again"),
        (point_to_lfs, "model.safetensors: is a git-lfs pointer and not the weights; fetch them"),
        (lose_the_processor, "preprocessor_config.json: is missing; copy the picture processor"),
        (lose_the_architecture, "config.json: names no architectures; give a checkpoint of Blip"),
        (
            write_a_number_as_a_word,
            "config.json: text_config.num_hidden_layers is 'six', not a whole",
        ),
        (lose_a_word, "its tokenizer has no word for 1 of the model's 33, the first number 12"),
        (gain_a_word, "its tokenizer has 'okapi' as number 33, but the model has 33 words"),
        (put_into_braces, "é {1}: Snakemake takes { and } in a path for wildcards; rename it"),
        (give_a_file, "vocab.txt is a file; give the checkpoint's directory"),
    ],
)
def test_a_checkpoint_that_would_run_wrongly_is_one_line(project, tmp_path, harm, message):
    folder = shutil.copytree(project / MINIATURE, tmp_path / "checkpoint")
    use_checkpoint(project, harm(folder) or folder)
    assert message in line_of_the_plan(project)


def test_a_run_of_such_a_checkpoint_ends_with_the_line(project, tmp_path):
    folder = shutil.copytree(project / MINIATURE, tmp_path / "checkpoint")
    lose_a_tensor(folder)
    use_checkpoint(project, folder)
    assert line_of_a_run(project) == line_of_the_plan(project)


def test_weights_that_are_not_finite_stop_the_first_job_in_one_line(project, tmp_path):
    folder = shutil.copytree(project / MINIATURE, tmp_path / "checkpoint")
    weights = load_file(folder / "model.safetensors")
    weights[QUERY][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    use_checkpoint(project, folder)
    done = snakemake(project, "results/images/0000.safetensors", cores=1)
    assert done.returncode == 1
    assert (
        f"\n{folder}: NaN or infinite numbers are in 1 tensor, the first {QUERY}; " in done.stdout
    )
    assert "Traceback" not in done.stdout
    assert not (project / "results/images/0000.safetensors").exists()


def test_an_answer_that_the_tokenizer_has_no_word_for_is_shown_by_its_number(project, tmp_path):
    """The embedding may be larger than the tokenizer, and such a word may be the best answer."""
    folder = shutil.copytree(project / MINIATURE, tmp_path / "checkpoint")
    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        if name.endswith("word_embeddings.weight"):
            weights[name] = np.concatenate([tensor, tensor[:3]])
    bias = "text_decoder.cls.predictions.bias"
    weights[bias] = np.concatenate([weights[bias], np.array([0, 0, 99], np.float32)])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    set_in_config(folder, "text_config.vocab_size", 36)
    use_checkpoint(project, folder)
    done = snakemake(project, "results/baseline/0000.csv")
    assert done.returncode == 0, done.stdout
    assert "its tokenizer has 33 words, the model 36; answers beyond are shown by" in done.stdout
    table = pd.read_csv(project / "results/baseline/0000.csv")
    assert set(table.loc[table["rank"] == 1, "token"]) == {"[id 35]"}


def test_a_checkpoint_whose_folder_has_an_odd_name_is_run(project, tmp_path):
    folder = shutil.copytree(project / MINIATURE, tmp_path / "a [b] é #1, 50% 'x'")
    use_checkpoint(project, Path(str(folder).replace("'", "''")))
    done = snakemake(project, "results/images/0000.safetensors", cores=1)
    assert done.returncode == 0, done.stdout
