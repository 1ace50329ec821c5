"""The figures: every label is there, the printed means are the table's, nothing is cut."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from drawn import shown_texts, shrunk
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from plotnine import ggplot
from synthetic_tables import (
    ASKED,
    ENDS,
    Asked,
    made_up_experiments,
    tokens_of,
    write_pictures,
    write_tables,
)

from blip_tracing.drawing import figures
from blip_tracing.machinery.tables import read_table
from blip_tracing.vocabulary.experiment import Experiment, described
from blip_tracing.vocabulary.sites import SITES

SCRIPTS = Path(figures.__file__).parents[2]
INPUT, SITE = "encoder.block_input", "encoder.block_output"
EXAMPLE, LAYERS, DRAWS = "ball_kite", 6, 10
NAMES = ("baseline", "runs", *ENDS)
PATCHING, TRACING = made_up_experiments(list(SITES))
MAGIC = {".pdf": b"%PDF-", ".svg": b"<?xml", ".png": b"\x89PNG\r\n\x1a\n"}

Tables = dict[str, pd.DataFrame]


def read_tables(folder: Path) -> Tables:
    return {name: read_table(folder / f"{name}.csv") for name in NAMES}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("tables")
    return read_tables(write_tables(folder, layers=LAYERS, sites=(INPUT, SITE), draws=DRAWS))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def words(
    tables: Tables, pictures: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[str]]:
    """The text of every figure of the example, as it can be selected in the SVG."""
    patched = tables["patching"], tables["runs"], PATCHING, EXAMPLE, SITE
    traced = tables["tracing"], tables["runs"], TRACING, EXAMPLE, SITE
    plots = {
        "baseline": figures.baseline(
            tables["baseline"], tables["runs"], EXAMPLE, pictures[EXAMPLE]
        ),
        "patching": figures.answer_maps(*patched),
        "levels": figures.level_maps(*traced),
        "means": figures.level_means(*traced),
        "draws": figures.draw_maps(*traced, 1.0),
        "mean": figures.mean_map(*traced, 1.0),
    }
    folder = tmp_path_factory.mktemp("figures")
    return {
        name: texts_of(figures.save_figure(plot, folder / name, ["svg"])[0])
        for name, plot in plots.items()
    }


def texts_of(svg: Path) -> list[str]:
    texts = ElementTree.parse(svg).iter("{http://www.w3.org/2000/svg}text")
    return [" ".join("".join(text.itertext()).split()) for text in texts]


def cells_of(tables: Tables) -> pd.DataFrame:
    tracing = tables["tracing"]
    return tracing[(tracing["example"] == EXAMPLE) & (tracing["site"] == SITE)]


@pytest.mark.parametrize("name", ["levels", "draws", "mean"])
def test_every_position_with_its_token_and_every_layer_is_named(
    words: dict[str, list[str]], name: str
) -> None:
    tokens = tokens_of(ASKED[EXAMPLE].base_question)
    assert {f"{position} {token}" for position, token in enumerate(tokens)} <= set(words[name])
    assert {str(layer) for layer in range(LAYERS)} <= set(words[name])


def test_a_patched_position_names_both_tokens_where_they_differ(
    words: dict[str, list[str]],
) -> None:
    assert {"0 [CLS]", "7 the", "8 ball ← kite", "9 [SEP]"} <= set(words["patching"])
    assert {str(layer) for layer in range(LAYERS)} <= set(words["patching"])


def test_patching_facets_name_the_answers(words: dict[str, list[str]]) -> None:
    assert {"source answer: p(green)", "base answer: p(blue)"} <= set(words["patching"])


def test_each_noise_level_prints_the_mean_of_its_cells(
    words: dict[str, list[str]], tables: Tables
) -> None:
    means = cells_of(tables).groupby("noise_level")["p_base"].mean()
    strips = {f"σ = {level:g}, mean {mean:.3f}" for level, mean in means.items()}
    assert len(strips) == 7
    assert strips <= set(words["levels"])


def test_each_draw_prints_the_mean_of_its_cells(
    words: dict[str, list[str]], tables: Tables
) -> None:
    cells = cells_of(tables)
    means = cells[cells["noise_level"] == 1].groupby("draw")["p_base"].mean()
    strips = {f"draw {draw}, mean {mean:.3f}" for draw, mean in means.items()}
    assert len(strips) == DRAWS
    assert strips <= set(words["draws"])


def test_the_mean_map_prints_the_mean_over_draws(
    words: dict[str, list[str]], tables: Tables
) -> None:
    cells = cells_of(tables)
    mean = cells.loc[cells["noise_level"] == 1, "p_base"].mean()
    assert f"σ = 1, mean {mean:.3f}" in words["mean"]


def test_the_means_name_their_three_runs_and_every_noise_level(
    words: dict[str, list[str]],
) -> None:
    assert {"clean run", f"one {SITE} restored", "nothing restored"} <= set(words["means"])
    assert {"0.1", "0.5", "1", "2", "5", "10", "20"} <= set(words["means"])


def test_the_baseline_prints_questions_tokens_and_probabilities(
    words: dict[str, list[str]], tables: Tables
) -> None:
    text = " ".join(words["baseline"])
    assert ASKED[EXAMPLE].base_question in text
    assert ASKED[EXAMPLE].source_question in text
    rows = tables["baseline"][tables["baseline"]["example"] == EXAMPLE]
    assert set(rows["token"]) <= set(words["baseline"])
    assert {f"{p:.3f}" for p in rows["probability"] if p >= 0.0005} <= set(words["baseline"])


@pytest.mark.parametrize("name", ["patching", "levels", "means", "draws", "mean"])
def test_titles_say_example_question_and_site(words: dict[str, list[str]], name: str) -> None:
    text = " ".join(words[name])
    assert EXAMPLE in text
    assert ASKED[EXAMPLE].base_question in text
    assert SITE in text


def test_a_figure_is_three_files_and_is_closed(tables: Tables, tmp_path: Path) -> None:
    before = plt.get_fignums()
    plot = figures.mean_map(tables["tracing"], tables["runs"], TRACING, EXAMPLE, SITE, 1.0)
    files = figures.save_figure(plot, tmp_path / "new" / "with.dots")
    assert [file.name for file in files] == ["with.dots.pdf", "with.dots.svg", "with.dots.png"]
    for file in files:
        assert file.read_bytes().startswith(MAGIC[file.suffix])
    assert b"/FontFile2" in files[0].read_bytes(), "the PDF embeds no TrueType font"
    assert sorted(tmp_path.joinpath("new").iterdir()) == sorted(files)
    assert plt.get_fignums() == before


DRAW_AGAIN = """
import json, sys
sys.path[:0] = sys.argv[1:2]
from blip_tracing.drawing import figures
from blip_tracing.machinery.tables import read_table
from blip_tracing.vocabulary.experiment import experiment_from
patching, runs = (read_table(f"{sys.argv[2]}/{name}.csv") for name in ("patching", "runs"))
asked = experiment_from(json.loads(sys.argv[4]))
plot = figures.answer_maps(patching, runs, asked, "animal_shirt", asked.sites[0])
figures.save_figure(plot, sys.argv[3])
"""


def test_the_same_tables_give_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    folder = write_tables(tmp_path / "tables")
    tables = read_tables(folder)
    plot = figures.answer_maps(tables["patching"], tables["runs"], PATCHING, "animal_shirt", INPUT)
    first = [file.read_bytes() for file in figures.save_figure(plot, tmp_path / "first")]
    again = [file.read_bytes() for file in figures.save_figure(plot, tmp_path / "again")]
    paths = map(str, (SCRIPTS, folder, tmp_path / "other"))
    script = [sys.executable, "-c", DRAW_AGAIN, *paths, json.dumps(described(PATCHING))]
    subprocess.run(script, check=True)
    other = [(tmp_path / f"other.{kind}").read_bytes() for kind in figures.FORMATS]
    assert first == again
    assert first == other


# ---- nothing cut, nothing overlapping ----------------------------------------------------------

SHORT = Asked("what animal", "which thing", "brown", "red")
LONG_SITE = "decoder.cross_attention_state"
LONG = Asked(
    "what is the color of the internationalization that stands behind the big red wooden house "
    "over there",
    "what is the color of the extraordinariness that stands behind the big red wooden house "
    "over there",
    "a-rather-long-answer",
    "another-such-answer",
)
Draw = Callable[[Tables, str], Figure]
A_PICTURE = SCRIPTS.parents[1] / "resources" / "miniature" / "images" / "animal_shirt.png"


def drawn_by(plot: Callable[..., ggplot], experiment: Experiment, *level: float) -> Draw:
    def draw(tables: Tables, name: str) -> Figure:
        cells = tables[experiment.name]
        return plot(cells, tables["runs"], experiment, name, cells["site"].iloc[0], *level).draw()

    return draw


DRAWN: dict[str, Draw] = {
    "baseline": lambda tables, name: figures.baseline(
        tables["baseline"], tables["runs"], name, A_PICTURE
    ),
    "patching": drawn_by(figures.answer_maps, PATCHING),
    "levels": drawn_by(figures.level_maps, TRACING),
    "means": drawn_by(figures.level_means, TRACING),
    "draws": drawn_by(figures.draw_maps, TRACING, 1),
    "mean": drawn_by(figures.mean_map, TRACING, 1),
}


@pytest.fixture(
    scope="module",
    params=[(2, SHORT, INPUT), (12, LONG, LONG_SITE), (24, LONG, INPUT)],
    ids=["2-short", "12-long", "24-long"],
)
def odd_tables(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    layers, asked, site = request.param
    return read_tables(
        write_tables(
            tmp_path_factory.mktemp("odd"),
            {"x": asked},
            layers=layers,
            sites=[site],
            noise_levels=(0, 0.9, 1, 20),
            draws=2,
        )
    )


@pytest.mark.parametrize("name", DRAWN)
def test_no_text_is_cut_and_no_tick_labels_overlap(odd_tables: Tables, name: str) -> None:
    figure = DRAWN[name](odd_tables, "x")
    figure.draw_without_rendering()
    try:
        shown = list(shown_texts(figure))
        assert len(shown) > 10
        for text, box in shown:
            assert box.x0 >= figure.bbox.x0 - 1, f"{text!r} is cut on the left"
            assert box.x1 <= figure.bbox.x1 + 1, f"{text!r} is cut on the right"
            assert box.y0 >= figure.bbox.y0 - 1, f"{text!r} is cut at the bottom"
            assert box.y1 <= figure.bbox.y1 + 1, f"{text!r} is cut at the top"
        for (first, box), (second, other) in combinations(shown, 2):
            assert not Bbox.intersection(shrunk(box), shrunk(other)), f"{first!r} on {second!r}"
    finally:
        plt.close(figure)


def test_facets_fill_a_page_as_large_as_they_can() -> None:
    page = (6.2, 8.0)
    assert figures._columns(10, 1.2, 2.0, *page) == 5
    assert figures._columns(7, 1.5, 2.0, *page) == 4
    assert figures._columns(2, 3.0, 2.0, *page) == 2
    assert figures._columns(1, 9.0, 2.0, *page) == 1


# ---- words -------------------------------------------------------------------------------------


def test_tokens_that_look_like_missing_values_stay_words(tmp_path: Path) -> None:
    asked = Asked("null is nan NA", "null is 007 NA", "nan", "null")
    tables = read_tables(write_tables(tmp_path, {"1": asked}, draws=1))
    plot = figures.answer_maps(tables["patching"], tables["runs"], PATCHING, "1", INPUT)
    texts = texts_of(figures.save_figure(plot, tmp_path / "figure", ["svg"])[0])
    assert {"1 null", "3 nan ← 007", "4 NA", "source answer: p(null)"} <= set(texts)


def test_lines_break_between_words_and_inside_only_one_too_long() -> None:
    lines = figures.wrap_text("what is the color " + "x" * 60, 8, 2).split("\n")
    assert lines[0] == "what is the color"
    assert all(figures.text_width(line, 8) <= 2 for line in lines)
    assert "".join(lines[1:]) == "x" * 60


def test_noise_levels_too_close_to_be_named_are_left_blank() -> None:
    names = figures._apart([0, 1, 1.01, 2], ["1", "10", "10.2", "100"], 3)
    assert names == ["1", "10", "", "100"]


@pytest.mark.parametrize(
    ("example", "site", "level", "message"),
    [
        ("nobody", SITE, 1.0, "no rows with example 'nobody'"),
        (EXAMPLE, "nowhere", 1.0, "no rows with example 'ball_kite', site 'nowhere'"),
        (EXAMPLE, SITE, 3.0, "no rows at noise level 3, only 0.1, 0.5, 1"),
    ],
)
def test_what_the_table_lacks_is_named(
    tables: Tables, example: str, site: str, level: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        figures.mean_map(tables["tracing"], tables["runs"], TRACING, example, site, level)
