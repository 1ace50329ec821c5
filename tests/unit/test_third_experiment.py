"""An experiment beside the two of the tutorial is told and drawn everywhere.

Noising puts a corrupted run's states into a clean one: it takes the answer away.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import render_report
from drawn import figure_of, shown_texts
from stories import CONFIG, made_up_run, write_page
from synthetic_tables import ENDS, NOISY
from test_render import NOTEBOOKS, WORKFLOW
from test_render import TEMPLATE as NOTEBOOK_PAGE
from test_supplement import (
    MORE,
    TEMPLATES,
    check_texts,
    document_of,
    pages_of,
    unspaced,
    with_settings,
    words_of,
)
from write_supplement import tables_in_latex

from blip_tracing.drawing import figures
from blip_tracing.drawing.journal_figures import WIDTHS, journal_figures
from blip_tracing.given.settings import fill_config
from blip_tracing.meaning.effects import classify
from blip_tracing.meaning.roles import Known, cell_positions
from blip_tracing.telling.methods import methods_of
from blip_tracing.telling.story import tell
from blip_tracing.telling.told import Run, Story
from blip_tracing.telling.words import CORRUPTED_RUN, NOTHING_RESTORED
from blip_tracing.vocabulary.experiment import BASE, Experiment, described
from blip_tracing.vocabulary.views import figure_names

NAME, TITLE, EXAMPLE = "taking_away", "Taking away", "ball_kite"
THIRD = {NAME: (BASE, NOISY)}
LEVELS = (0.5, 2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("third")


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    made_up = made_up_run(
        folder, shown=[EXAMPLE], ends={**ENDS, **THIRD}, noise_levels=LEVELS, draws=2
    )
    return with_settings(made_up)


@pytest.fixture(scope="module")
def story(run: Run) -> Story:
    return tell(run)


@pytest.fixture(scope="module")
def asked(run: Run) -> Experiment:
    return next(asked for asked in run.experiments if asked.name == NAME)


def test_it_is_configured_alone() -> None:
    ends = {"receiver": BASE, "donor": NOISY}
    config = {**CONFIG, "experiments": {**CONFIG["experiments"], NAME: ends}}
    assert set(fill_config(config)["experiments"]) == {*ENDS, NAME}


def test_its_story_says_what_it_takes_away(run: Run, story: Story) -> None:
    method = story.methods[-1]
    assert method.startswith(f"{TITLE}: the base question's run is repeated")
    assert "becomes less probable" in method
    finding = next(text for text in story.findings if text.startswith(TITLE))
    summary = run.tables["summary"]
    rows = summary[
        (summary["experiment"] == NAME)
        & (summary["site"] == run.experiments[-1].sites[0])
        & (summary["noise_level"] == run.primary(run.experiments[-1])["noise_level"])
        & summary["layer"].notna()
        & (summary["quantity"] == "probability_change")
        & (summary["group"] == "all")
        & (summary["among"] == "included")
    ]
    assert f"{rows['mean'].min():+.3f}".replace("-", "−") in finding
    facts = story.facts.set_index("fact")["value"]
    assert facts[NAME].startswith("noisy into base, at ")


def test_marks_and_changes_of_its_cells_are_the_tables(run: Run, story: Story) -> None:
    effects = run.tables["effects"]
    (shown,) = story.examples
    groups = [group for group in shown.maps if group.title.startswith(TITLE)]
    assert groups
    for group in groups:
        for one, level in zip(group.maps, LEVELS, strict=True):
            rows = effects[
                (effects["experiment"] == NAME)
                & (effects["example"] == EXAMPLE)
                & (effects["noise_level"] == level)
                & (effects["site"] == group.title.removeprefix(f"{TITLE}, "))
            ].set_index(["position", "layer"])
            cells = one.cells.set_index(["place", "layer"])
            assert cells["marked"].to_dict() == rows["marked"].to_dict()
            assert cells["value"].to_dict() == pytest.approx(rows["probability_change"].to_dict())
            assert (cells["value"] < 0).any()


def test_what_takes_away_enough_counts_in_normalised_averages(asked: Experiment) -> None:
    cells = pd.DataFrame(
        {
            "example": ["much", "little", "the wrong way"],
            "position": 0,
            "site": asked.sites[0],
            "layer": 0,
            "total_effect": [-0.6, -0.01, 0.6],
            "direction": asked.direction,
        }
    )
    roles = cells[["example", "position"]].assign(token_role="noun", differs=False)
    positions = cell_positions(asked, cells, Known(roles))
    told: dict[str, Any] = {"picture": "a.png", "group": "a kind", "included": True}
    counted = classify(cells, positions, cells[["example"]].assign(**told), asked, 0.05)
    assert counted["below_threshold"].tolist() == [False, True, True]


def test_a_corrupted_run_is_called_by_what_is_done_with_it(run: Run, story: Story) -> None:
    assert NOTHING_RESTORED in set(story.means["run"])
    config = {**run.config, "experiments": {NAME: run.config["experiments"][NAME]}}
    alone = Run(config, run.config_files, run.pictures, run.tables, run.provenance)
    runs = set(tell(alone).means["run"])
    assert CORRUPTED_RUN in runs
    assert NOTHING_RESTORED not in runs
    assert {f"one {site} put in" for site in run.experiments[-1].sites} < runs


def test_its_page_is_written(run: Run, tmp_path: Path) -> None:
    page = write_page(run, tmp_path / "index.html")
    (site, *_) = run.experiments[-1].sites
    for level in LEVELS:
        assert f'id="average-{NAME}-{site}-{level:g}"' in page
        assert f'id="example-{EXAMPLE}-{NAME}-{site}-{level:g}"' in page


@pytest.mark.parametrize(
    ("plot", "level"),
    [
        (figures.level_maps, ()),
        (figures.level_means, ()),
        (figures.draw_maps, LEVELS[:1]),
        (figures.mean_map, LEVELS[:1]),
    ],
)
def test_its_figures_are_drawn(
    run: Run, asked: Experiment, plot: Callable[..., Any], level: tuple[float, ...]
) -> None:
    cells, runs = run.tables[NAME], run.tables["runs"]
    figure = plot(cells, runs, asked, EXAMPLE, asked.sites[0], *level).draw()
    try:
        figure.draw_without_rendering()
        check_texts(figure)
        words = " ".join(text for text, _ in shown_texts(figure))
        assert f"one {asked.sites[0]} put in" in words
        assert "restored" not in words
    finally:
        plt.close(figure)


@pytest.mark.parametrize("width", WIDTHS.values())
def test_its_figures_for_print_are_drawn(run: Run, story: Story, width: float) -> None:
    drawn = [
        figure
        for figure in journal_figures(story)
        if NAME in figure.name or figure.name == "noise_levels"
    ]
    sites = run.experiments[-1].sites
    assert {figure.name for figure in drawn} == {
        "noise_levels",
        f"depth_{NAME}_{sites[0]}",
        *(f"roles_{NAME}_{site}" for site in sites),
        *(f"{NAME}_{site}_{EXAMPLE}" for site in sites),
    }
    for journal_figure in drawn:
        figure = figure_of(journal_figure.draw(width))
        try:
            figure.draw_without_rendering()
            check_texts(figure)
        finally:
            plt.close(figure)


def test_its_notebook_runs(run: Run, asked: Experiment, folder: Path, tmp_path: Path) -> None:
    names = ("runs", NAME, "tokens", "summary", "run_means")
    parameters = {
        "tables": {name: str(folder / "tables" / f"{name}.csv") for name in names},
        "figures": str(tmp_path / "figures"),
        "examples": [EXAMPLE],
        "draws_at": LEVELS[0],
        "experiment": described(asked),
        "scripts": str(WORKFLOW / "scripts"),
    }
    page = tmp_path / "page.html"
    render_report.render(
        NOTEBOOKS / "experiment.ipynb", parameters, tmp_path / "out.ipynb", page, NOTEBOOK_PAGE
    )
    text = page.read_text(encoding="utf-8")
    assert f"<title>{TITLE}</title>" in text
    assert CORRUPTED_RUN in text
    assert {file.stem for file in (tmp_path / "figures").glob("*.png")} == set(
        figure_names(asked, EXAMPLE)
    )


def test_its_supplement_is_written(run: Run, story: Story) -> None:
    words = words_of(pages_of(document_of(story)))
    titles = {group.title for group in story.averages if group.title.startswith(TITLE)}
    assert titles
    for told in (*titles, story.methods[-1]):
        assert unspaced(told) in words
    methods = " ".join(methods_of(run, story, TEMPLATES.methods, MORE).split())
    assert f"**{TITLE}.** We put the state of the base question's run with Gaussian" in methods
    assert "We restored the state of the base question's run into" in methods
    assert NAME.replace("_", r"\_") in tables_in_latex(run, TEMPLATES.tables)["effects.tex"]
