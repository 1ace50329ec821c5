"""The level of a floor: where a probability crosses it, and the configuration that then has it."""

from pathlib import Path

import pytest
import yaml
from project import ROOT
from refusals import refusal
from solve_level import (
    corrupted_run,
    levels_of_example,
    pair_at,
    parse,
    roots,
    row_of,
    solve,
    with_level,
)

from blip_tracing.given.settings import fill_config

CONFIG = ROOT / "config/palit-2023-scale.yaml"
TRIED = [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("floor", "levels"),
    [
        (0.36, [0.6]),
        # At a level that is looked at itself it is found once.
        (0.25, [0.5]),
        (1.0, [1.0]),
    ],
)
def test_it_is_where_the_probability_is_the_floor(floor: float, levels: list[float]) -> None:
    """Of level squared the root, to the last digit that tables keep."""
    assert roots(lambda level: level**2, floor, TRIED, "runs.scaled") == pytest.approx(levels)
    (found,) = roots(lambda level: level**2, 0.5, TRIED, "runs.scaled")
    assert found == 0.707106781


def test_all_that_are_enclosed_are_told() -> None:
    found = roots(lambda level: (level - 0.4) ** 2, 0.04, TRIED, "runs.scaled")
    assert found == pytest.approx([0.2, 0.6])


def test_a_floor_that_no_level_gives_is_one_line() -> None:
    told = refusal(roots, lambda level: 0.1 + level / 2, 0.7, TRIED, "runs.scaled")
    assert told == (
        "runs.scaled: from level 0 to 1 the answer has 0.1000 to 0.6000, and never 0.7; give other "
        "levels with --between"
    )
    # Nor where the level changes nothing, be it the floor.
    assert "never 0.7" in refusal(roots, lambda level: 0.7, 0.7, TRIED, "runs.scaled")


def test_the_level_takes_the_place_of_the_levels_and_nothing_else() -> None:
    text = CONFIG.read_text()
    written = with_level(text, "scaled", 0.812345678, "c.yaml")
    assert written == text.replace("[0.7691]", "[0.812345678]").replace(
        "draws_at: 0.7691", "draws_at: 0.812345678"
    )
    filled = fill_config(yaml.safe_load(written))
    assert filled["runs"]["scaled"]["corrupt"]["levels"] == [0.812345678]


def test_several_levels_and_the_primary_one_become_that_one() -> None:
    text = CONFIG.read_text().replace("levels: [0.7691]", "levels: [&it 0.7691, 1]")
    alias = text.replace("draws_at: 0.7691", "draws_at: *it")
    assert refusal(with_level, alias, "scaled", 0.5, "c.yaml") == (
        "c.yaml: report.draws_at is an alias; write out its level"
    )
    text = text.replace("total_effect: 0.05", "total_effect: 0.05\n  primary_level: 1")
    filled = fill_config(yaml.safe_load(with_level(text, "scaled", 0.5, "c.yaml")))
    assert filled["runs"]["scaled"]["corrupt"]["levels"] == [0.5]
    assert filled["effects"]["primary_level"] == filled["report"]["draws_at"] == 0.5


def test_levels_that_are_not_written_are_named() -> None:
    text = CONFIG.read_text().replace("      levels: [0.7691]\n", "")
    assert refusal(with_level, text, "scaled", 0.5, "c.yaml") == (
        "c.yaml: runs.scaled.corrupt.levels is left out; write it there"
    )
    assert pair_at(yaml.compose("runs: 5"), ("runs", "scaled")) is None


@pytest.mark.parametrize("indent", ["      ", "        "])
def test_levels_by_lines_become_that_one(indent: str) -> None:
    by_lines = f"levels:\n{indent}- 0.7691\n{indent}- 1"
    text = CONFIG.read_text().replace("levels: [0.7691]", by_lines)
    expected = text.replace(by_lines, "levels: [0.5]").replace("at: 0.7691", "at: 0.5")
    assert with_level(text, "scaled", 0.5, "c.yaml") == expected


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["--run", "scalde"], "--run: 'scalde' is no run; did you mean scaled?"),
        (["--run", "base"], "--run: 'base' is no run; known are scaled"),
        (
            ["--example", "purple"],
            "--example: 'purple' is no example; known are purple_character",
        ),
    ],
)
def test_what_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, changes: list[str], told: str
) -> None:
    monkeypatch.chdir(ROOT)
    given = ["--run", "scaled", "--example", "purple_character", "--floor", "0.5"]
    assert refusal(solve, parse([str(CONFIG), *given, *changes])) == told


def test_a_level_in_deviations_of_the_sheet_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    text = CONFIG.read_text().replace("kind: scale", "kind: gaussian")
    text = text.replace("unit: absolute", "unit: std").replace(
        "at: picture.states", "at: question.embeddings"
    )
    (tmp_path / "c.yaml").write_text(text)
    given = ["--run", "scaled", "--example", "purple_character", "--floor", "0.5"]
    assert refusal(solve, parse([str(tmp_path / "c.yaml"), *given])) == (
        "runs.scaled.corrupt.unit: std is of a whole sheet, and one example is run here; make it "
        "absolute"
    )


def test_the_level_of_noise_on_a_role_alone_is_solved_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the miniature: between no noise and one that hides the answer."""
    monkeypatch.chdir(ROOT)
    given = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    given["runs"]["noisy"]["corrupt"] |= {"role": "differing word", "draws": 2}
    config = fill_config(given)
    row, run = row_of(config, "animal_shirt"), corrupted_run(config, "noisy")
    found = levels_of_example(config, row, run, 0.9, [0.0, 5.0, 20.0], 1)
    assert found
    assert all(0 < level < 20 for level in found)
