"""Contents decide, not times: whatever is replaced, cut or edited is noticed and named."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from encode_images import check_expected
from project import copy_project, edit_config, keep_examples, planned_jobs, run, snakemake
from safetensors.torch import load_file, save_file

from blip_tracing.errors import InputError
from blip_tracing.given.checkpoint import Checkpoint, checkpoint_digests, known_directory
from blip_tracing.given.pictures import check_answered
from blip_tracing.machinery import contents
from blip_tracing.machinery.contents import content_digest, content_digests
from blip_tracing.machinery.files import check_files, check_one_model, read_record

LONG_AGO = 1_000_000_000


# --- the digests and their memory


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a file `given`, whose digest is remembered at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(contents, "GRAIN_NS", -1)
    (tmp_path / "given").write_text("one")
    return tmp_path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was read to be digested."""
    read: list[Any] = []
    digest = contents.sha256_of

    def count(paths: list[str]) -> str:
        read.extend(paths)
        return digest(paths)

    monkeypatch.setattr(contents, "sha256_of", count)
    return read


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_file_is_read_once(folder: Path, read: list[Any]) -> None:
    assert [content_digest(["given"]) for _ in range(3)] == [sha256("one")] * 3
    assert len(read) == 1
    os.utime("given")
    assert content_digest(["given"]) == sha256("one")


def test_files_together_have_the_digest_of_one_after_the_other(folder: Path) -> None:
    (folder / "more").write_text("two")
    found = content_digests({"all": ["given", "more"], "last": ["more"]})
    assert found == {"all": sha256("onetwo"), "last": sha256("two")}
    assert content_digests({"all": ["given", "more"]}) == {"all": sha256("onetwo")}


def in_place(folder: Path) -> None:
    before = (folder / "given").stat()
    (folder / "given").write_text("two")
    os.utime("given", ns=(before.st_atime_ns, before.st_mtime_ns))


def copied_with_its_times(folder: Path) -> None:
    shutil.copy2("other", "given")


def moved(folder: Path) -> None:
    os.replace("other", "given")


def pointed_elsewhere(folder: Path) -> None:
    (folder / "given").unlink()
    (folder / "given").symlink_to(folder / "other")


@pytest.mark.parametrize("replace", [in_place, copied_with_its_times, moved, pointed_elsewhere])
def test_another_file_of_the_same_size_and_time_is_noticed(
    folder: Path, replace: Callable[[Path], None]
) -> None:
    assert content_digest(["given"]) == sha256("one")
    (folder / "other").write_text("two")
    same = (folder / "given").stat()
    os.utime("other", ns=(same.st_atime_ns, same.st_mtime_ns))
    time.sleep(0.05)  # past the grain of the file system's clock
    replace(folder)
    assert content_digest(["given"]) == sha256("two")


def test_a_file_changed_just_now_is_not_remembered(
    folder: Path, read: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "GRAIN_NS", 3_600_000_000_000)
    assert [content_digest(["given"]) for _ in range(2)] == [sha256("one")] * 2
    assert len(read) == 2


def test_a_file_changed_while_it_is_read_is_not_remembered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = contents.sha256_of

    def be_overtaken(paths: list[str]) -> str:
        found = digest(paths)
        (folder / "given").write_text("another")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(contents, "sha256_of", be_overtaken)
        content_digest(["given"])
    assert content_digest(["given"]) == sha256("another")


@pytest.mark.parametrize(
    "damage", [b"", b'{"a', b"\xff", b"[1]", b'{"a": 1}', b'{"a": {}}', b'{"a": {"sha256": 5}}']
)
def test_a_damaged_memory_is_begun_anew(folder: Path, read: list[Any], damage: bytes) -> None:
    content_digest(["given"])
    Path(contents.MEMORY).write_bytes(damage)
    assert [content_digest(["given"]) for _ in range(2)] == [sha256("one")] * 2
    assert len(read) == 2


def test_a_memory_that_cannot_be_written_costs_reading_only(folder: Path, read: list[Any]) -> None:
    Path(contents.MEMORY).parent.write_text("no folder")
    assert [content_digest(["given"]) for _ in range(2)] == [sha256("one")] * 2
    assert len(read) == 2


# --- results against their records


@pytest.mark.parametrize("damage", [b"", b'{"files": {', b"[]", b"{}", b"\xff\xfe"])
def test_damaged_facts_are_named(tmp_path: Path, damage: bytes) -> None:
    facts = tmp_path / "facts.json"
    facts.write_bytes(damage)
    with pytest.raises(InputError) as refused:
        read_record(facts, ["files"])
    assert str(refused.value) == (
        f"{facts}: is not what its job wrote (cut short, or edited by hand); delete it, and the "
        "next run makes it again"
    )


def test_a_file_that_no_facts_vouch_for_is_refused(tmp_path: Path) -> None:
    (tmp_path / "facts.json").write_text('{"files": {}}')
    (tmp_path / "table.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match=r"table\.csv: is not what its job wrote"):
        check_files([str(tmp_path / "facts.json")], [str(tmp_path / "table.csv")])


@pytest.mark.parametrize("changed", ["weights_sha256", "settings_sha256"])
def test_results_of_two_models_are_not_mixed(changed: str) -> None:
    ours = {"weights_sha256": "ab", "settings_sha256": {"config.json": "cd"}, "files": {}}
    check_one_model({"a.json": ours, "b.json": dict(ours), "c.json": {"files": {}}})
    with pytest.raises(InputError) as refused:
        check_one_model({"a.json": ours, "b.json": {**ours, changed: "ef"}})
    assert str(refused.value) == (
        "b.json: is of another model than a.json; delete both, and the next run makes them again"
    )


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """A checkpoint of made-up files, and `model.json`, which records it."""
    monkeypatch.chdir(tmp_path)
    folder = Path("checkpoint")
    folder.mkdir()
    for name in ("config.json", "vocab.txt", "model.safetensors"):
        (folder / name).write_text(name)
    digests = checkpoint_digests(folder)
    weights = digests.pop("")
    checkpoint = Checkpoint("checkpoint", "main", "", "checkpoint", 7, weights, digests)
    checkpoint.to_json("model.json")
    return checkpoint


def test_a_checkpoint_is_held_against_its_record(recorded: Checkpoint) -> None:
    Checkpoint.from_json("model.json").check_unchanged("model.json")


@pytest.mark.parametrize(
    "name", ["config.json", "vocab.txt", "model.safetensors", "tokenizer.json"]
)
def test_a_checkpoints_file_that_was_replaced_or_added_is_named(
    recorded: Checkpoint, name: str
) -> None:
    Path("checkpoint", name).write_text("another")
    with pytest.raises(InputError) as refused:
        recorded.check_unchanged("model.json")
    assert str(refused.value) == (
        f"checkpoint/{name}: is not what model.json records (replaced since); put it back, or "
        "delete model.json, and the next run begins anew with what is there"
    )


def test_a_checkpoints_file_that_was_taken_away_is_named(recorded: Checkpoint) -> None:
    Path("checkpoint/vocab.txt").unlink()
    with pytest.raises(
        InputError, match=r"^checkpoint/vocab\.txt: is not what model\.json records"
    ):
        recorded.check_unchanged("model.json")


@pytest.mark.parametrize("damage", ["", '{"name": "checkpoint"', "[]", "{}"])
def test_a_damaged_record_of_the_model_is_named_and_plans_nothing(
    recorded: Checkpoint, damage: str
) -> None:
    Path("model.json").write_text(damage)
    with pytest.raises(InputError, match=r"^model\.json: is not what its job wrote"):
        Checkpoint.from_json("model.json")
    assert known_directory("lab/blip", "main", record="model.json") == ""


def test_a_picture_is_held_against_the_record_of_its_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("picture.png").write_text("picture")
    Path("facts.json").write_text(json.dumps({"pictures": {"picture.png": sha256("picture")}}))
    check_answered(["facts.json"], ["picture.png"])
    Path("picture.png").write_text("another")
    with pytest.raises(InputError) as refused:
        check_answered(["facts.json"], ["picture.png"])
    assert str(refused.value) == (
        "picture.png: is not the picture that was answered about (replaced since); put that one "
        "back, or delete facts.json, and the next run asks about this one"
    )


def test_a_picture_replaced_while_the_run_is_under_way_is_named() -> None:
    check_expected(
        {"a.png": "ab", "https://x.org/b.png": "cd"}, {"a.png": "ab", "https://x.org/b.png": ""}
    )
    with pytest.raises(InputError, match=r"^a\.png: was replaced while the run was under way"):
        check_expected({"a.png": "ab"}, {"a.png": "cd"})


# --- through the workflow

CHECKPOINT = "resources/miniature/checkpoint"
WEIGHTS = f"{CHECKPOINT}/model.safetensors"
PICTURE = "resources/miniature/images/animal_shirt.png"
TRACED = "results/tables/tracing.csv"
SMALL = {
    "device: auto": "device: cpu",
    "[0.1, 0.5, 1, 2, 5, 10, 20]": "[2, 5]",
    "noise_levels_per_job: 7": "noise_levels_per_job: 1",
    "draws: 10": "draws: 2",
    "resamples: 2000": "resamples: 100",
    "  examples: 4": "  examples: 1",
}


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of three examples in which everything has been run. Do not change it."""
    project = copy_project(tmp_path_factory.mktemp("small") / "project")
    edit_config(project, SMALL)
    keep_examples(project, 3)
    run(project, "all", "reports/supplement.zip")
    return project


@pytest.fixture
def project(small_run: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed by one test."""
    return shutil.copytree(small_run, tmp_path / "project", symlinks=True)


def other_weights(path: Path) -> None:
    tensors = load_file(path)
    changed = {
        name: tensor * 1.15 if "output.dense" in name else tensor
        for name, tensor in tensors.items()
    }
    save_file(changed, path, metadata={"format": "pt"})


def another_line(path: Path) -> None:
    path.write_text(path.read_text() + "\n")


def another_picture(path: Path) -> None:
    path.write_bytes(path.with_name("hat_box.png").read_bytes())


REPLACEMENTS = {
    WEIGHTS: other_weights,
    f"{CHECKPOINT}/tokenizer_config.json": another_line,
    f"{CHECKPOINT}/preprocessor_config.json": another_line,
    PICTURE: another_picture,
    "workflow/report/story.html.j2": another_line,
    "workflow/report/methods.md.j2": another_line,
    "config/examples.tsv": another_line,
}
FIRST_STALE = {
    **dict.fromkeys(REPLACEMENTS, "write_supplement"),
    **dict.fromkeys([path for path in REPLACEMENTS if CHECKPOINT in path], "fetch_model"),
    PICTURE: "encode_images",
    "workflow/report/story.html.j2": "tell_story",
}


@pytest.mark.workflow
@pytest.mark.parametrize("path", REPLACEMENTS)
def test_an_older_file_in_a_files_place_makes_its_readers_stale(project: Path, path: str) -> None:
    """Until the first is back: then nothing is, and a file touched is no other file."""
    targets = ["all", "reports/supplement.zip"]
    first = project / path
    shutil.copy2(first, project / "kept")
    REPLACEMENTS[path](first)
    os.utime(first, (LONG_AGO, LONG_AGO))
    stale = planned_jobs(project, *targets)
    assert stale[FIRST_STALE[path]] == 1
    if path in (WEIGHTS, PICTURE):
        assert {"answer_questions", "run_corrupted", "intervene", "tell_story"} <= stale.keys()
    os.replace(project / "kept", first)
    assert not planned_jobs(project, *targets)
    first.touch()
    assert not planned_jobs(project, *targets)


@pytest.mark.workflow
def test_a_model_directory_pointed_elsewhere_is_another_model(project: Path) -> None:
    checkpoint, first, second = project / CHECKPOINT, project / "first", project / "second"
    shutil.move(checkpoint, first)
    shutil.copytree(first, second)
    other_weights(second / "model.safetensors")
    os.utime(second / "model.safetensors", (LONG_AGO, LONG_AGO))
    checkpoint.symlink_to(first)
    assert not planned_jobs(project)
    checkpoint.unlink()
    checkpoint.symlink_to(second)
    assert planned_jobs(project)["intervene"] == 3


def add_a_noise_level(project: Path) -> None:
    config = project / "config/config.yaml"
    config.write_text(config.read_text().replace("[2, 5]", "[2, 5, 20]"))


def lines_of(project: Path, *arguments: str) -> set[str]:
    """What a Snakemake that fails says, without a traceback."""
    done = snakemake(project, *arguments)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout
    return set(done.stdout.splitlines())


@pytest.mark.workflow
def test_a_model_swapped_behind_the_back_of_a_run_is_refused(project: Path) -> None:
    """Swapped once the graph is planned, that is; `--touch` gives the same: nothing is stale."""
    other_weights(project / WEIGHTS)
    os.utime(project / WEIGHTS, (LONG_AGO, LONG_AGO))
    run(project, "--touch")
    add_a_noise_level(project)
    assert planned_jobs(project, TRACED)["intervene"] == 1
    assert (
        f"{WEIGHTS}: is not what results/model.json records (replaced since); put it back, or "
        "delete results/model.json, and the next run begins anew with what is there"
    ) in lines_of(project, TRACED)
    (project / "results/model.json").unlink()
    assert planned_jobs(project, TRACED)["intervene"] == 3


@pytest.mark.workflow
def test_facts_of_another_model_stop_the_job_that_begins_from_them(project: Path) -> None:
    facts = project / "results/clean/0000.json"
    record = json.loads(facts.read_text())
    facts.write_text(json.dumps({**record, "weights_sha256": "ab" * 32}))
    add_a_noise_level(project)
    assert (
        "results/clean/0000.json: is of another model than results/model.json; delete both, "
        "and the next run makes them again"
    ) in lines_of(project, TRACED)


@pytest.mark.workflow
def test_no_page_shows_another_picture_than_the_one_answered_about(project: Path) -> None:
    another_picture(project / PICTURE)
    os.utime(project / PICTURE, (LONG_AGO, LONG_AGO))
    run(project, "--touch", "all", "reports/supplement.zip")
    config = project / "config/config.yaml"
    config.write_text(config.read_text().replace("  examples: 1", "  examples: 2"))
    line = (
        f"{PICTURE}: is not the picture that was answered about (replaced since); put that one "
        "back, or delete results/images/0000.json, and the next run asks about this one"
    )
    for page in ("reports/baseline.html", "reports/index.html", "reports/supplement.zip"):
        assert line in lines_of(project, page)
    (project / "results/images/0000.json").unlink()
    assert planned_jobs(project)["encode_images"] == 1


@pytest.mark.workflow
@pytest.mark.parametrize("path", [PICTURE, "results/clean/0000.safetensors"])
def test_a_file_dated_ahead_is_named_before_a_job_works_in_vain(project: Path, path: str) -> None:
    """As all files are once the clock is set back. Where nothing is stale nothing is said."""
    tomorrow = time.time() + 86_400
    os.utime(project / path, (tomorrow, tomorrow))
    add_a_noise_level(project)
    (line,) = (line for line in lines_of(project, TRACED) if line.startswith(path))
    assert line.startswith(f"{path}: is dated 20")
    assert line.endswith(
        ", ahead of the clock; set the clock right, or date what is ahead anew with `touch`"
    )
    assert not (project / "results/cells/tracing/levels_20.0").exists()
    (project / path).touch()
    assert planned_jobs(project, TRACED)["intervene"] >= 1


def edited(whole: bytes) -> bytes:
    return whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:]


def cut_short(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def emptied(whole: bytes) -> bytes:
    return b""


# What is asked for, so that the job runs which reads such a file.
PATCHED = "cells/patching/layers_0-5/0000.parquet"
NOISY = "cells/tracing/levels_2.0/0000.parquet"
READERS = {
    "baseline/0000.csv": "results/tables/baseline.csv",
    "cell_means/0000.parquet": "results/tables/summary.csv",
    PATCHED: "results/effects/0000.parquet",
    NOISY: TRACED,
    "clean/0000.safetensors": f"results/{NOISY}",
    "controls/patching/layers_0-5/0000.parquet": "results/tables/controls.csv",
    "controls/tracing/levels_2.0/0000.parquet": "results/effects/0000.parquet",
    "effects/0000.parquet": "results/tables/effects.csv",
    "excluded/0000.csv": "results/tables/excluded.csv",
    "images/0000.safetensors": "results/baseline/0000.csv",
    "role_means/0000.parquet": "results/tables/summary.csv",
    "runs/clean/0000.parquet": f"results/{PATCHED}",
    "runs/noisy/0000.parquet": "results/tables/runs.csv",
    "runtimes.csv": "reports/runtime.html",
    "tables/baseline.csv": "reports/baseline.html",
    "tables/controls.csv": "reports/index.html",
    "tables/families.csv": "reports/index.html",
    "tables/negatives.csv": "results/tables/effects.csv",
    "tables/effects.csv": "reports/index.html",
    "tables/excluded.csv": "reports/supplement.zip",
    "tables/patching.csv": "reports/patching.html",
    "tables/run_means.csv": "reports/tracing.html",
    "tables/runs.csv": "reports/baseline.html",
    "tables/summary.csv": "reports/tracing.html",
    "tables/tokens.csv": "reports/patching.html",
    "tables/tracing.csv": "reports/tracing.html",
    "tokens/0000.csv": f"results/{PATCHED}",
    # What vouches for others, and for the model.
    "clean/0000.json": "results/tables/baseline.csv",
    "images/0000.json": "results/baseline/0000.csv",
    "model.json": "results/images/0000.json",
    "runs/noisy/0000.json": "results/tables/runs.csv",
    "tables/tracing.provenance.json": "reports/tracing.html",
}
DAMAGES = [edited, cut_short, emptied]


@pytest.mark.workflow
def test_every_kind_of_result_is_damaged_below(small_run: Path) -> None:
    records = list((small_run / "results").rglob("*.json"))
    vouched = {
        path.removeprefix("results/").replace("levels_5.0", "levels_2.0")
        for record in records
        for path in json.loads(record.read_text()).get("files", {})
    }
    assert len(vouched) == 27
    assert vouched == {path for path in READERS if not path.endswith(".json")}


@pytest.mark.workflow
@pytest.mark.parametrize(("number", "path"), list(enumerate(READERS)))
def test_a_damaged_result_is_named_by_the_job_that_reads_it(
    project: Path, number: int, path: str
) -> None:
    damaged = project / "results" / path
    damage = cut_short if path.endswith(".json") else DAMAGES[number % 3]
    damaged.write_bytes(damage(damaged.read_bytes()))
    assert (
        f"results/{path}: is not what its job wrote (cut short, or edited by hand); delete it, "
        "and the next run makes it again"
    ) in lines_of(project, READERS[path])
    # A job that failed leaves nothing: what was asked for is to be made again, as below.
    assert not (project / READERS[path]).exists()


@pytest.mark.workflow
def test_what_is_deleted_as_the_line_says_is_made_again(project: Path) -> None:
    """With what was asked for, which the job that failed left unmade."""
    damaged = {f"results/{path}" for path in READERS}
    asked = sorted(damaged | set(READERS.values()))
    for path in asked:
        (project / path).unlink()
    printed = run(project, "--dry-run", "--quiet", "host", "--", *asked)
    missing = re.findall(r"^ *Reason: Missing output files: (.*?)(?:;|$)", printed, re.MULTILINE)
    assert damaged <= {path for listed in missing for path in listed.split(", ")}
