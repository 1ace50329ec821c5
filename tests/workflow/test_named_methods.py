"""The published methods' twins on the miniature, each run whole up to its tables."""

from pathlib import Path

import numpy as np
import oracle
import pandas as pd
import pytest
import solve_level
import torch
import yaml
from plain_tutorial import EXAMPLE, Tutorial, open_tutorial
from project import copy_project, run
from twins import twin

from blip_tracing.machinery.tables import read_table
from blip_tracing.meaning.replication.compare import AGREES, DIFFERS
from blip_tracing.meaning.replication.published_averages import COLUMNS

# Of each example with two pictures, what the model answers about either.
CHOICES = {
    "shirt_blue": ("red", "blue"), "ball_green": ("blue", "green"),
    "hat_yellow": ("black", "yellow"),
    "box_pink": ("green", "pink"), "kite_blue": ("white", "blue"), "animal_red": ("white", "red"),
    "shirt_black": ("blue", "black"), "box_yellow": ("red", "yellow"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "sheet"),
    [
        ("palit-2023", "config/examples.tsv"),
        ("rome-style", "config/examples.tsv"),
        ("notice-2025", "config/pictures.tsv"),
    ],
)
def test_the_twin_on_the_miniature_runs_whole(tmp_path: Path, name: str, sheet: str) -> None:
    project = copy_project(tmp_path / "project")
    config = twin(project, name, sheet)
    for noisy in config["runs"].values():
        noisy["corrupt"]["draws"] = 2
    # The sheet is not that of the published averages.
    twin(project, name, sheet, runs=config["runs"], published="")
    names = [*config["experiments"], "controls"]
    wanted = [f"results/tables/{each}.parquet" for each in names]
    run(project, *wanted, "results/tables/summary.csv", "results/tables/runs.csv",
        "--configfile", f"config/{name}-twin.yaml")  # fmt: skip
    for each, experiment in config["experiments"].items():
        cells = read_table(project / f"results/tables/{each}.parquet")
        assert set(cells["site"]) == set(experiment["sites"])
        assert not cells[["p_base", "p_source"]].isna().any().any()


def test_notices_heads_are_scored_at_the_right_answer(tmp_path: Path) -> None:
    """In questions of two choices; by a plain loop over the table of cells."""
    project = copy_project(tmp_path / "project")
    pictures = pd.read_csv(project / "config/pictures.tsv", sep="\t").set_index("example")
    rows = pictures.loc[list(CHOICES), ["image", "source_image", "base_question"]]
    answers = np.array(list(CHOICES.values()))
    # The right answer is either the first or the second choice.
    order = [(0, 1) if number % 2 else (1, 0) for number in range(len(rows))]
    named = [" ".join(of[list(at)]) for of, at in zip(answers, order, strict=True)]
    asked = rows["base_question"] + " " + named
    sheet = rows.assign(
        base_question=asked, source_question=asked, base_answer=answers[:, 0],
        source_answer=answers[:, 1],
    )  # fmt: skip
    sheet.to_csv(project / "config/choices.tsv", sep="\t")
    config = twin(project, "notice-2025", "config/choices.tsv", layers_per_job=6)
    site = "encoder.cross_attention_heads"
    experiments = {"heads": {**config["experiments"]["heads"], "sites": [site]}}
    twin(project, "notice-2025", "config/choices.tsv", experiments=experiments,
         effects={**config["effects"], "resamples": 200})  # fmt: skip
    tables = project / "results/tables"
    wanted = ["selected_heads.csv", "heads.parquet", "effects.parquet"]
    run(project, *(f"results/tables/{name}" for name in wanted), "reports/selected_heads.html",
        "--configfile", "config/notice-2025-twin.yaml")  # fmt: skip
    table = read_table(tables / "selected_heads.csv").set_index(["layer", "head"])
    effects = read_table(tables / "effects.parquet")
    included = effects.loc[effects["included"], "example"].unique()
    assert len(included) >= 6
    cells = read_table(tables / "heads.parquet")
    right = cells["token"] == cells["example"].map({name: of[0] for name, of in CHOICES.items()})
    at = cells[right & cells["example"].isin(included)]
    assert (at.groupby(["example", "layer", "head"]).size() == 1).all()
    scores = at.groupby(["layer", "head"])["p_base"].mean()
    assert table["score"].to_numpy() == pytest.approx(scores[table.index].to_numpy(), abs=1e-6)
    kept = scores >= scores.mean() + 2 * scores.std(ddof=0)
    assert table["kept"].tolist() == kept[table.index].tolist()
    page = (project / "reports/selected_heads.html").read_text(encoding="utf-8")
    assert "heads of 24 are kept by the rule" in page


# Of the miniature's example, where nothing is known beforehand: its answer keeps a good part.
SCALE, STATES = 0.64, ("encoder.self_attention_state", "encoder.cross_attention_state")


def windows_by_hand(asked: Tutorial, scale: float) -> pd.DataFrame:
    """What the older state would have printed: p of the clean answer, to four digits.

    The picture's states are scaled, and the clean run's put back about each layer and position.
    """
    question, answer = asked.ids["base"], int(asked.clean["base"].argmax())
    layers, scaled = len(asked.model.text_encoder.encoder.layer), asked.image * scale
    rows = []
    for site in STATES:
        clean = [
            oracle.site_states(asked.model, question, asked.image, site, at) for at in range(layers)
        ]
        for layer in range(layers):
            # Their window of three, cut at both ends.
            covered = range(max(0, layer - 1), min(layers, layer + 2))
            for position in range(len(question)):
                puts = [oracle.Put(site, at, [position], clean[at]) for at in covered]
                logits, _ = oracle.outcome(asked.model, question, scaled, [[answer]], puts)
                p = float(logits.softmax(-1)[answer])
                rows.append(("mean", site, layer, position, 3, 1, round(p, 4), 5e-5))
    logits = oracle.answer_logits(asked.model, question, scaled)
    floor = round(float(logits.softmax(-1)[answer]), 4)
    return pd.DataFrame([("floor", "", None, None, 1, 1, floor, 5e-5), *rows], columns=COLUMNS)


def test_the_older_states_scale_is_solved_for_from_the_floor_run_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of the plain loop agree; those of another constant do not."""
    project, name = copy_project(tmp_path / "project"), "palit-2023-scale"
    (project / "config/one.tsv").write_text(
        "".join((project / "config/examples.tsv").read_text().splitlines(True)[:2])
    )
    twin(project, name, "config/one.tsv", published="", method="")
    with torch.inference_mode():
        published = windows_by_hand(open_tutorial(), SCALE)
    floor = published.loc[0, "value"]
    monkeypatch.chdir(project)
    path = project / f"config/{name}-twin.yaml"
    command = [str(path), "--run", "scaled", "--example", EXAMPLE, "--floor", str(floor)]
    (solved,) = map(float, solve_level.solve(solve_level.parse([*command, "--write"])).split(", "))
    assert solved == pytest.approx(SCALE, abs=0.001)
    config = yaml.safe_load(path.read_text())
    assert config["runs"]["scaled"]["corrupt"]["levels"] == [solved]
    for off, verdict in ((0.0, AGREES), (0.01, DIFFERS)):
        of_map = published["quantity"] == "mean"
        file = f"config/by_{off:g}.csv"
        published.assign(value=published["value"] + off * of_map).to_csv(file, index=False)
        path.write_text(yaml.safe_dump(config | {"published": file}))
        run(project, "results/tables/verdicts.csv", "--configfile", str(path))
        found = read_table(project / "results/tables/verdicts.csv").set_index("quantity")
        assert found.loc[[*STATES], "verdict"].tolist() == [verdict] * 2
        assert found.loc[[*STATES], "compared"].tolist() == [6 * 9] * 2
        assert found.loc["floor", "verdict"] == AGREES
