"""The supplement: what a journal asks of figures, tables and words, always the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from drawn import figure_of, shown_texts, shrunk
from matplotlib.transforms import Bbox
from PIL import Image
from project import ROOT, copy_project, planned_jobs, run
from stories import SHOWN, SITES, made_up_run, with_experiments
from synthetic_tables import DIFFERING, ROLES, Asked
from write_supplement import (
    Again,
    Templates,
    files_of_the_run,
    tables_in_latex,
    write_supplement,
)

from blip_tracing.drawing.figures import CLEAN_RUN, answer_maps
from blip_tracing.drawing.journal_figures import (
    WIDTHS,
    change_maps,
    colour_levels,
    journal_figures,
    mean_levels,
)
from blip_tracing.drawing.palette import PALETTE, changes
from blip_tracing.given.origin import origin_of
from blip_tracing.given.places import named
from blip_tracing.printing import latex
from blip_tracing.printing.crate import VERSION, Origin
from blip_tracing.printing.document import overview_caption, write_document
from blip_tracing.printing.page import means_table
from blip_tracing.telling.methods import methods_of
from blip_tracing.telling.story import tell
from blip_tracing.telling.told import Run, Story
from blip_tracing.telling.words import brief
from blip_tracing.vocabulary.sites import SITES as SITE_TABLE
from blip_tracing.vocabulary.tables import SMALL_EFFECT, UNRELATED

TEMPLATES = Templates(
    *(str(ROOT / "workflow/report" / name)
      for name in ("story.typ", "tables.tex.j2", "methods.md.j2", "references.bib"))
)  # fmt: skip
MORE = {"pictures": 3, "given_answers": False, "snakemake": "9.9.9"}
# Points.
SMALLEST_PRINT, INCH, MILLIMETRE = 6.0, 72, 72 / 25.4
NO_FLOORS = pd.DataFrame(columns=["example", "noise_level", "mean"])
LONG = Asked(
    "what is the color of the internationalization that stands behind the big red house",
    "what is the color of the extraordinariness that stands behind the big red house",
    "a-rather-long-answer",
    "another-such-answer",
)


def with_settings(made_up: Run, **sections: Any) -> Run:
    """The run with these sections of its configuration."""
    config = {**made_up.config, **sections}
    return replace(made_up, config=config)


def with_sites(made_up: Run, **sites: Sequence[str]) -> Run:
    """The run with these sites of its experiments; with none, an experiment is left out."""
    return replace(made_up, config=with_experiments(made_up.config, **sites))


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made_up_run(tmp_path_factory.mktemp("made_up"))


@pytest.fixture(scope="module")
def story(made_up: Run) -> Story:
    return tell(made_up)


# ---- the document ------------------------------------------------------------------------------


def pages_of(pdf: bytes) -> Sequence[Any]:
    pypdf = pytest.importorskip("pypdf", reason="pypdf, which reads PDFs, is not installed")
    return pypdf.PdfReader(io.BytesIO(pdf)).pages


def document_of(story: Story) -> bytes:
    with TemporaryDirectory() as folder:
        file = Path(folder, "story.pdf")
        write_document(story, TEMPLATES.pages, file)
        return file.read_bytes()


def words_of(pages: Sequence[Any]) -> str:
    """The pages' text without white space, which lines break at any place."""
    return unspaced("".join(page.extract_text() for page in pages))


def unspaced(text: str) -> str:
    return "".join(text.split())


def fonts_of(page: Any) -> dict[str, bool]:
    """The fonts that a page uses, and whether each lies in the file as TrueType."""
    fonts = {}
    for font in page["/Resources"].get("/Font", {}).values():
        font = font.get_object()
        font = font.get("/DescendantFonts", [font])[0].get_object()
        described = font.get("/FontDescriptor", {})
        fonts[str(font["/BaseFont"])] = (
            "/FontFile2" in described.get_object() if described else False
        )
    return fonts


@pytest.fixture(scope="module")
def pages(story: Story) -> Sequence[Any]:
    return pages_of(document_of(story))


def test_the_document_tells_the_story(pages: Sequence[Any], story: Story) -> None:
    words = words_of(pages)
    assert story.verdicts is not None
    told = [
        story.title, story.lead, *story.findings, story.able_caption,
        *(curve.caption for curve in story.depths), *story.methods, *story.facts["value"],
        story.means_caption,
        *(example.pair.source_question for example in story.examples),
        *(group.caption for group in story.averages),
        *story.verdicts["where"], *story.controls["meaning"], *story.excluded["reason"],
        story.excluded_caption, *story.versions["version"],
        # Pages end between its lines.
        *story.config.splitlines(),
    ]  # fmt: skip
    assert [text for text in told if unspaced(text) not in words] == []


def test_a_table_that_fits_a_page_is_on_one(pages: Sequence[Any], story: Story) -> None:
    """Its caption too. Where it stands, a page ends within it."""
    means = means_table(story.means)
    rows = ["".join(map(str, row)) for row in means.itertuples(index=False)]
    assert len(rows) == len(set(rows)) == 3
    (page,) = [page for page in pages if "Thesameinnumbers." in words_of([page])]
    assert [row for row in rows if unspaced(row) not in words_of([page])] == []


def test_the_table_of_examples_says_that_it_has_those_that_are_shown_alone(story: Story) -> None:
    assert story.overview is not None
    words = overview_caption(story.overview)
    assert words == f"The 2 of 3 examples that are shown here. {story.overview.caption}"
    rows = tuple(replace(row, shown=True) for row in story.overview.rows)
    assert overview_caption(replace(story.overview, rows=rows)) == story.overview.caption


def rows_of_maps(text: str) -> list[str]:
    """The lines of the text that are a map's row: a name, then numbers."""
    return re.findall(r"^.+?((?: −?(?:\.\d\d|\d))+)$", text, re.MULTILINE)


def test_the_document_prints_the_number_of_every_cell_in_its_place(
    pages: Sequence[Any], story: Story
) -> None:
    rows = rows_of_maps("\n".join(page.extract_text() for page in pages))
    groups = [*story.averages, *(group for example in story.examples for group in example.maps)]
    groups = [*groups, *([story.strip.map] if story.strip else [])]
    # Of levels at which the noise hid nothing a line takes the place.
    for cells in (part.cells for group in groups for part in group.maps if not part.idle):
        for _, row in cells.sort_values("layer").groupby("place"):
            numbers = "".join(f" {brief(value)}" for value in row["value"])
            assert numbers in rows, f"{row['label'].iloc[0]}{numbers}"


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.414, ".41"), (-0.066, "−.07"), (0.999, "1"), (-1, "−1"), (-0.004, "0"), (0, "0"),
     (np.nan, "")],
)  # fmt: skip
def test_a_cells_number_is_as_short_as_its_room(value: float, written: str) -> None:
    assert brief(value) == written


def test_the_document_holds_its_fonts(pages: Sequence[Any]) -> None:
    fonts = {name: held for page in pages for name, held in fonts_of(page).items()}
    assert {name.split("+")[1] for name in fonts} == {
        "DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono",
    }  # fmt: skip
    assert all(fonts.values())


def test_figures_and_tables_are_numbered_and_the_sections_listed(story: Story) -> None:
    pypdf = pytest.importorskip("pypdf", reason="pypdf, which reads PDFs, is not installed")
    reader = pypdf.PdfReader(io.BytesIO(document_of(story)))
    text = "\n".join(page.extract_text() for page in reader.pages)
    maps = len(story.averages) + sum(len(example.maps) for example in story.examples)
    # The strip, the curves by depth, and the means by noise level.
    assert re.findall(r"^Figure S(\d+)\.", text, re.MULTILINE) == [
        str(number + 1) for number in range(1 + len(story.depths) + maps + 1)
    ]
    # The overview, groups, means, verdicts, what can be said, controls, what was left out.
    assert re.findall(r"^Table S(\d+)\.", text, re.MULTILINE) == list("1234567")
    sections = [entry.title for entry in reader.outline if not isinstance(entry, list)]
    assert sections == [
        "Findings", "All examples", "Averages over the examples", "By noise level",
        "Against the published figures", "Example by example", "How far to trust this", "Method",
        "Run it again", "The configuration, with its defaults",
    ]  # fmt: skip
    # Readers for the blind find the order of words, tables and headings.
    assert reader.root_object["/MarkInfo"]["/Marked"]
    assert reader.root_object["/Lang"] == "en"


def test_the_same_story_makes_the_same_document(story: Story, monkeypatch: Any) -> None:
    first = document_of(story)
    monkeypatch.setenv("TYPST_FONT_PATHS", "/usr/share/fonts")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    assert document_of(story) == first


MARKUP = r"""#set $x$ *b* _i_ <l> @ref \ "q" = - + / // `r` ~ -- ... [c] {d} ' #panic()"""


@pytest.mark.parametrize(
    ("question", "shown"),
    [
        (MARKUP, MARKUP),
        ("= heading", "= heading"),
        ("这 是 什么", "U+8FD9 U+662F U+4EC0U+4E48"),
        ("what is \u0628 and \N{GRINNING FACE}", "what is \u0628 and \N{GRINNING FACE}"),
        ("what \N{FAMILY}\a", "what U+1F46AU+0007"),
        ("what is " + 9 * "internationalization", "what is " + 9 * "internationalization"),
    ],
)
def test_any_letters_come_out_as_text(tmp_path: Path, question: str, shown: str) -> None:
    asked = Asked(f"{question} x", f"{question} y", "#panic()", "红")
    made_up = with_settings(
        made_up_run(tmp_path, asked={"x": asked}, shown=["x"], layers=2, draws=2, sites=SITES[:1]),
        examples="config/表 #x.tsv",
    )
    words = words_of(pages_of(document_of(tell(made_up))))
    for text in (shown, "#panic()", "change in p(U+7EA2)", "config/U+8868 #x.tsv"):
        assert unspaced(text) in words


@pytest.mark.parametrize("size", [(1, 20000), (20000, 1), (100, 480), (1, 1), (1600, 1200)])
def test_a_picture_of_any_shape_is_bounded_on_both_sides(
    story: Story, size: tuple[int, int], tmp_path: Path
) -> None:
    Image.new("RGB", size, "red").save(tmp_path / "x.png")
    example = replace(story.examples[0], picture=str(tmp_path / "x.png"))
    document = document_of(replace(story, examples=(example,)))
    shown = [sides for page in pages_of(document) for sides in sides_of_pictures(page)]
    # At the beginning, and with its maps.
    assert len(shown) == 2
    for sides in shown:
        assert max(sides) == pytest.approx(32 * MILLIMETRE, rel=0.01)


def sides_of_pictures(page: Any) -> list[tuple[float, float]]:
    """Width and height, in points, at which a page draws its pictures."""
    sides = []

    def visit(operator: bytes, operands: Any, matrix: Any, _: Any) -> None:
        if operator == b"Do":
            drawn = page["/Resources"]["/XObject"][operands[0]]
            if drawn["/Subtype"] == "/Image":
                sides.append((abs(matrix[0]), abs(matrix[3])))

    page.extract_text(visitor_operand_before=visit)
    return sides


def test_any_number_of_sites_examples_and_layers_makes_a_document(tmp_path: Path) -> None:
    sites = [site for site, place in SITE_TABLE.items() if not place.heads][:6]
    names = [f"example_{number}" for number in range(7)]
    made_up = made_up_run(
        tmp_path, asked=dict.fromkeys(names, LONG), shown=names, sites=sites, layers=48, draws=2
    )
    story = tell(replace(made_up, pictures=dict(list(made_up.pictures.items())[:2])))
    words = words_of(pages_of(document_of(story)))
    assert len(story.averages) == 2 * len(sites)
    for group in (*story.averages, *story.examples[-1].maps):
        assert unspaced(f"{group.title}. {group.caption}") in words
    for name in story.means["run"].unique():
        assert unspaced(name) in words


def test_a_question_longer_than_a_page_goes_on_in_another_map(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(130)]
    asked = Asked(" ".join([*words, "x"]), " ".join([*words, "y"]), "a", "b")
    made_up = made_up_run(
        tmp_path, asked={"x": asked}, shown=["x"], layers=2, draws=2, sites=SITES[:1]
    )
    pages = pages_of(document_of(tell(with_sites(made_up, tracing=()))))
    rows = re.findall(r"^(\d+) (w\d+|x)", "\n".join(page.extract_text() for page in pages), re.M)
    # At the beginning, where the first example stands, and with that example.
    assert [word for _, word in rows if word != "x"] == 2 * words
    for page in pages:
        heights = heights_of_words(page)
        assert min(heights) > 0, "words are cut at a page's foot"
        assert max(heights) < float(page.mediabox.height)


def heights_of_words(page: Any) -> list[float]:
    """How high above the page's lower edge its words stand, in points."""
    heights: list[float] = []

    def visit(text: str, matrix: Any, of_text: Any, *_: Any) -> None:
        if text.strip():
            heights.append(of_text[5] * matrix[3] + matrix[5])

    page.extract_text(visitor_text=visit)
    return heights


def test_a_story_of_little_makes_a_document(made_up: Run) -> None:
    """Neither traced nor compared with what was published, and no example has a null."""
    alone = {name: made_up.tables[name] for name in made_up.tables if name != "verdicts"}
    alone["controls"] = alone["controls"].iloc[:0]
    alone["excluded"] = alone["excluded"].iloc[:0]
    alone["summary"] = alone["summary"].query("quantity != 'contrast'")
    alone["negatives"] = alone["negatives"].iloc[:0]
    patched = with_sites(made_up, tracing=())
    words = words_of(pages_of(document_of(tell(replace(patched, tables=alone)))))
    assert "Noiselevels" not in words
    assert "Replication" not in words
    assert unspaced("Nothing was left out.") in words


# ---- figures -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Many layers, long words."""
    return made_up_run(
        tmp_path_factory.mktemp("crowded"),
        asked={"x": LONG},
        shown=["x"],
        layers=24,
        noise_levels=(0, 0.9, 1, 20),
        draws=2,
        sites=SITES[:1],
    )


@pytest.mark.parametrize("width", WIDTHS.values())
def test_figures_fit_their_column_in_letters_of_six_points(crowded: Run, width: float) -> None:
    (site,) = SITES[:1]
    drawn = list(journal_figures(tell(crowded)))
    assert [figure.name for figure in drawn] == [
        f"depth_patching_{site}", f"depth_tracing_{site}",
        f"roles_patching_{site}", f"roles_tracing_{site}", "noise_levels",
        f"patching_{site}_x", f"tracing_{site}_x",
    ]  # fmt: skip
    for journal_figure in drawn:
        figure = figure_of(journal_figure.draw(width))
        figure.draw_without_rendering()
        try:
            assert figure.get_figwidth() == pytest.approx(width)
            check_texts(figure)
        finally:
            plt.close(figure)


@pytest.mark.parametrize("levels", [(0.1, 1.0, 20.0), (0.0, 0.9, 1.0), (2.0,)])
def test_runs_stand_apart_at_each_noise_level(levels: tuple[float, ...]) -> None:
    runs = [(CLEAN_RUN, [np.nan]), ("one state restored", levels), ("nothing restored", levels)]
    means = pd.DataFrame(
        [(run, level) for run, of_run in runs for level in of_run], columns=["run", "noise_level"]
    )
    with warnings.catch_warnings():
        # plotnine warns of what stands too close.
        warnings.simplefilter("error")
        figure = mean_levels(
            means.assign(mean=0.5, low=0.4, high=0.6), NO_FLOORS, WIDTHS["one_column"]
        ).draw()
    try:
        figure.draw_without_rendering()
        check_texts(figure)
    finally:
        plt.close(figure)


@pytest.mark.parametrize("width", WIDTHS.values())
@pytest.mark.parametrize("sites", range(1, 7))
def test_any_number_of_sites_is_drawn_and_each_looks_different(sites: int, width: float) -> None:
    levels = (0.1, 1.0, 5.0, 20.0)
    restored = [f"one encoder.self_attention_state_{number} restored" for number in range(sites)]
    runs = [CLEAN_RUN, *restored, "nothing restored"]
    means = pd.DataFrame([(run, level) for run in runs[1:] for level in levels])
    means = pd.concat([pd.DataFrame([(CLEAN_RUN, np.nan)]), means]).set_axis(
        ["run", "noise_level"], axis=1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = mean_levels(means.assign(mean=0.5, low=0.4, high=0.6), NO_FLOORS, width).draw()
    try:
        figure.draw_without_rendering()
        check_texts(figure)
        assert figure.get_figwidth() == pytest.approx(width)
        drawn = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines()}
        # The clean run is no line but a rule.
        assert len(drawn) == len(runs) - 1
        assert set(runs) <= {text for text, _ in shown_texts(figure)}
    finally:
        plt.close(figure)


def check_texts(figure: Any) -> None:
    """No text of a drawn figure is cut, small or on another."""
    shown = list(shown_texts(figure))
    assert len(shown) > 10
    for text, box in shown:
        inside = figure.bbox.padded(1)
        assert inside.contains(box.x0, box.y0), f"{text!r} is cut"
        assert inside.contains(box.x1, box.y1), f"{text!r} is cut"
    for (first, box), (second, other) in combinations(shown, 2):
        assert not Bbox.intersection(shrunk(box), shrunk(other)), f"{first!r} on {second!r}"
    sizes = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text)]
    assert min(sizes) >= SMALLEST_PRINT


@pytest.mark.parametrize("limit", [0.3, 0.7, 1.0])
def test_nothing_is_white_in_a_map_of_changes(limit: float) -> None:
    """Zero stands in the middle of the scale and of the colours."""
    levels, colors = colour_levels(limit), changes()
    assert (levels[0], levels[-1]) == (-limit, limit)
    assert levels[len(levels) // 2] == 0
    assert len(colors) % 2 == 1
    assert colors[len(colors) // 2] == "#ffffff"
    assert colors.count("#ffffff") == 1


def test_zero_is_white_in_every_map_that_is_drawn(crowded: Run) -> None:
    """By the colours of the drawn cells: of changes and, in notebooks, of probabilities."""
    (group, *_) = tell(crowded).averages
    cells = group.maps[0].cells.assign(value=0.0, marked=False)
    plain = replace(group, maps=(replace(group.maps[0], cells=cells),))
    assert is_white(filled(change_maps(plain, WIDTHS["one_column"])))
    patched = crowded.tables["patching"].assign(p_source=0.0, p_base=0.0)
    plot = answer_maps(patched, crowded.tables["runs"], crowded.experiments[0], "x", SITES[0])
    assert is_white(filled(plot))


def is_white(colors: set[str]) -> bool:
    """But for the last of 256 steps, by which mixed colours are rounded."""
    return bool(colors) and all(
        min(matplotlib.colors.to_rgb(color)) >= 254 / 255 for color in colors
    )


def filled(plot: Any) -> set[str]:
    """The colours of the cells of a drawn map."""
    figure = plot.draw()
    try:
        return {
            matplotlib.colors.to_hex(color)
            for axes in figure.axes
            for tiles in axes.collections
            for color in tiles.get_facecolor()
        }
    finally:
        plt.close(figure)


def test_a_narrow_figure_has_the_map_of_the_primary_level_alone(made_up: Run) -> None:
    """And a wide one all in which the noise hid something."""
    group = next(group for group in tell(made_up).averages if group.title.startswith("Tracing"))
    for width, levels in ((WIDTHS["one_column"], ["σ = 0.5"]),
                          (WIDTHS["two_columns"], ["σ = 0.5", "σ = 2"])):  # fmt: skip
        figure = figure_of(change_maps(group, width))
        try:
            figure.draw_without_rendering()
            strips = [text for text, _ in shown_texts(figure) if text.startswith("σ")]
            assert [strip.split(",")[0] for strip in strips] == levels
            assert all("floor" in " ".join(strip.split()) for strip in strips)
            # A column and its caption fit a page.
            assert figure.get_figheight() < 5
        finally:
            plt.close(figure)


def test_maps_are_legible_in_grey() -> None:
    """Lightness (of CIELAB, by the luminance of linear sRGB) falls from step to step."""
    colors = matplotlib.colormaps[PALETTE](np.linspace(0, 1, 11))[:, :3]
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16
    assert (np.diff(lightness) < -2).all()


# ---- LaTeX -------------------------------------------------------------------------------------


def test_words_are_escaped_and_numbers_are_not() -> None:
    table = pd.DataFrame({"Word": ["[SEP]", "50 % & _x_ \\", "水 σ ← ℓ"], "$p$": ["$0.100$"] * 3})
    text = latex.booktabs(table, ["Word"], "All of $p$", "all")
    assert "{[}SEP] & $0.100$ \\\\" in text
    assert r"50 \% \& \_x\_ \textbackslash" in text
    assert r"U+6C34 $\sigma$ $\leftarrow$ $\ell$" in text
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))


@pytest.mark.parametrize(
    ("row", "written"),
    [
        ((0.5, 0.25, 0.75), "$0.500$ [$0.250$, $0.750$]"),
        ((-0.0001, np.nan, np.nan), "$0.000$"),
        ((np.nan, np.nan, np.nan), "--"),
    ],
)
def test_a_mean_is_written_with_the_interval_that_it_has(
    row: tuple[float, float, float], written: str
) -> None:
    assert latex.interval(pd.Series(row, index=["mean", "low", "high"])) == written


def test_each_effect_stands_in_its_place(tmp_path: Path) -> None:
    asked = {f"example_{number}": LONG for number in range(6)}
    summary = made_up_run(tmp_path, asked=asked, shown=list(asked)[:1]).tables["summary"]
    text = latex.role_effects_table(summary)
    site = SITES[1]
    cell = summary.query(
        f"experiment == 'tracing' and site == '{site}' and noise_level == 0.5 "
        f"and layer == 1 and token_role == '{DIFFERING}' and group == 'all' and among == 'included'"
    ).set_index("quantity")
    means = [
        latex.interval(pd.Series(cell.loc[name]))
        for name in ("probability_change", "turned", "contrast")
    ]
    written = site.replace("_", r"\_")
    row = rf"tracing & {written} & 0.5 & 1 & {DIFFERING} & {' & '.join(means)} & "
    assert rf"{row}$0.010$ & $0.005$ & $0.020$ & $0.700$ & $\circ$ \\" in text


def test_the_tables_compile(made_up: Run, tmp_path: Path) -> None:
    """Of words that would be commands too."""
    program = next(filter(shutil.which, ("pdflatex", "tectonic")), None)
    if program is None:
        pytest.skip("LaTeX (pdflatex or tectonic) is not installed, so no table is compiled")
    odd = made_up.tables["runs"].assign(answer="[50 % & _x_ \\ {$~^#} σ水é]", example="[a_b")
    compile_tables(
        replace(made_up, tables={**made_up.tables, "runs": odd}, pictures={"[a_b": ""}),
        program,
        tmp_path,
    )


def compile_tables(told: Run, program: str, folder: Path) -> None:
    for name, text in tables_in_latex(told, TEMPLATES.tables).items():
        (folder / name).write_text(text, encoding="utf-8")
    options = ["-interaction=nonstopmode", "-halt-on-error"] if program == "pdflatex" else []
    done = subprocess.run(
        [program, *options, "tables.tex"],
        cwd=folder,
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert (folder / "tables.pdf").stat().st_size > 0


# ---- words -------------------------------------------------------------------------------------


def methods(made_up: Run, **more: Any) -> str:
    return " ".join(methods_of(made_up, tell(made_up), TEMPLATES.methods, {**MORE, **more}).split())


def test_the_methods_say_what_was_done(made_up: Run) -> None:
    text = methods(made_up)
    for fact in (
        "`a-lab/blip` (commit 0123456789abcdef; SHA-256 of its weights abab",
        "on cpu, cuda", "(3 layers)", "3 examples", "3 pictures", "(0, 0.5, 2)",
        "6 draws of the noise",
        f"({', '.join(SITES)})", "seed (3)", "200 resamples", "at least 0.05",
        ", ".join(ROLES), "at all draws", "of 5 such examples", "Snakemake 9.9.9", "torch 2.9.0",
        f"tracing, {SMALL_EFFECT}, 1 example (",
    ):  # fmt: skip
        assert fact in text


def test_the_methods_say_nothing_that_was_not_done(made_up: Run) -> None:
    patched = with_sites(made_up, tracing=())
    assert not re.findall("Causal tracing|Gaussian|traced|draws? of", methods(patched))
    traced = with_sites(made_up, patching=())
    assert not re.findall("Patching|patched", methods(traced))
    controls = made_up.tables["controls"].query(f"control != '{UNRELATED}'")
    alone = methods(replace(made_up, tables={**made_up.tables, "controls": controls}))
    assert "There is no null, since no example has an unrelated one." in alone


def test_the_methods_say_what_the_cited_did_and_where_this_run_differs(made_up: Run) -> None:
    text = methods(made_up)
    corruption = text.split("**Corruption.**")[1].split("**Patching.**")[0]
    for words in (
        "Following the tutorial of Arora", "at all positions, [CLS] and [SEP] included",
        "not the corruption of Meng et al. [-@meng2022], who add noise to the embeddings of the "
        "subject's tokens alone", "nor that of Palit et al., who corrupt the states of the "
        "picture", "the picture is not corrupted in this run", "standard deviation of 0.99",
    ):  # fmt: skip
        assert words in corruption
    assert "As in the causal tracing of Meng" not in text
    assert "port" not in text.replace("report", "").replace("support", "")
    patched = methods(with_sites(made_up, tracing=()))
    assert "Corruption" not in patched
    assert "meng2022" not in patched


@pytest.mark.parametrize(
    ("corrupt", "told", "untold"),
    [
        (
            {"kind": "scale", "at": "picture.states", "draws": 1},
            ("we changed the vision tower's last states", "a factor of 0; a factor of 0.5; "),
            ("draw is keyed", "Following the tutorial of Arora [-", "of the role", "σ ="),
        ),
        (
            {"at": "question.word_embeddings", "role": "differing word", "unit": "std"},
            (
                "the embeddings of the question's tokens", "of the role “differing word”",
                "noise of σ = 2 standard deviations", "in 6 draws at each level",
                "(over the sheet)", "draw is keyed by the seed (3)",
            ),
            ("Following the tutorial of Arora [-",),
        ),
        (
            {"also": {"kind": "multiplicative", "at": "picture.states", "level": 5, "seed": 9}},
            (
                "we changed the question encoder's first block input", "same time we changed the "
                "vision tower's last states", "multiplicative noise of σ = 5 (seed 9)",
            ),
            ("the picture is not corrupted in this run", "Following the tutorial of Arora [-"),
        ),
    ],
)  # fmt: skip
def test_the_methods_tell_which_corruption_it_was(
    made_up: Run, corrupt: dict[str, Any], told: tuple[str, ...], untold: tuple[str, ...]
) -> None:
    runs = made_up.config["runs"]
    noisy = {**runs["noisy"], "corrupt": {**runs["noisy"]["corrupt"], **corrupt}}
    other = replace(made_up, config={**made_up.config, "runs": {**runs, "noisy": noisy}})
    corruption = methods(other).split("**Corruption.**")[1].split("**Patching.**")[0]
    for words in told:
        assert words in corruption
    for words in untold:
        assert words not in corruption


def test_the_methods_describe_a_test_only_where_one_was_made(made_up: Run, tmp_path: Path) -> None:
    few = methods(made_up)
    assert "No map was tested, so no cell is marked." in few
    assert "symmetric about zero" not in few
    asked = {f"example_{number}": LONG for number in range(6)}
    many = methods(made_up_run(tmp_path, asked=asked, shown=list(asked)[:1]))
    for words in ("two tests by flipping the signs of pictures", "values less 0.02 are symmetric",
                  "single-step max-T", "The unit of resampling and of tests is the picture",
                  "whether it is necessary was not measured",
                  "Tracing at encoder.block_input and σ = 0.5"):  # fmt: skip
        assert words in many
    assert "No map was tested" not in many


def test_the_methods_claim_nothing_of_controls_that_could_not_fail(made_up: Run) -> None:
    controls = made_up.tables["controls"]
    checked = int(controls.dropna(subset="largest")["checked"].sum())

    def told(idle: pd.Series | int) -> str:
        changed = controls.assign(idle=controls["idle"].where(controls["largest"].isna(), idle))
        tables = {**made_up.tables, "controls": changed}
        return " ".join(methods(replace(made_up, tables=tables)).split())

    assert f"All {checked} of them passed, to within 2e-07 in probability." in told(0)
    assert "could not have failed" not in told(0)
    some = told(1)
    assert f"All {checked - 4} of them that could have failed passed, to within" in some
    assert "4 of them could not have failed, since a fault" in some
    none = told(controls["checked"])
    assert "All" not in none.split("Controls.")[1].split("As a null")[0]
    assert f"{checked} of them could not have failed" in none


def test_the_methods_cite_what_the_references_list(made_up: Run) -> None:
    listed = re.findall(r"^@\w+\{(\w+),$", Path(TEMPLATES.references).read_text(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    # The procedure of the tests is cited where one is made.
    assert set(re.findall(r"@(\w+)", methods(made_up))) | {"westfall1993"} == set(listed)


# ---- the archive -------------------------------------------------------------------------------


ORIGIN = Origin(
    [{"kind": "Person", "name": "Ada Lovelace", "orcid": "https://orcid.org/0000-0001"}],
    "MIT",
    "https://example.org/a/repository",
    "0123abcd",
)


def write_small(made_up: Run, folder: Path) -> Path:
    """A supplement of one example, patched only."""
    folder.mkdir()
    small = with_sites(made_up, tracing=(), patching=SITES[:1])
    project: dict[str, str] = {}
    given: dict[str, str] = {}
    for name in ("workflow/Snakefile", "requirements.txt", "config/examples.tsv", "facts.json"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"what {name} holds\n")
        (given if "config" in name else project)[name] = str(path)
    facts = project.pop("facts.json")
    again = Again(project, given, {"examples": "config/examples.tsv"}, ("a large checkpoint",))
    files = files_of_the_run({}, [facts], again)
    pictures = {name: made_up.pictures[name] for name in SHOWN[:1]}
    archive = folder / "supplement.zip"
    run = replace(small, pictures=pictures)
    write_supplement(run, files, TEMPLATES, MORE, archive, again, ORIGIN)
    return archive


def test_the_same_run_gives_the_same_bytes(made_up: Run, tmp_path: Path) -> None:
    first, again = (write_small(made_up, tmp_path / name) for name in ("first", "again"))
    with ZipFile(first) as archive, ZipFile(again) as other:
        assert archive.namelist() == other.namelist() == sorted(archive.namelist())
        for name in archive.namelist():
            assert archive.read(name) == other.read(name), name
    assert first.read_bytes() == again.read_bytes()
    check_archive(first)


def check_archive(path: Path) -> None:
    """Every file has its checksum and stands in the lists; nothing tells when or where it was."""
    with ZipFile(path) as archive:
        names = set(archive.namelist())
        held = {name: archive.read(name) for name in names}
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    sums = dict(line.split("  ")[::-1] for line in held["SHA256SUMS"].decode().splitlines())
    assert sums == {name: hashlib.sha256(held[name]).hexdigest() for name in names - {"SHA256SUMS"}}
    graph = json.loads(held["ro-crate-metadata.json"])["@graph"]
    described = {entity["@id"]: entity for entity in graph}
    itself = {"SHA256SUMS", "ro-crate-metadata.json"}
    assert {part["@id"] for part in described["./"]["hasPart"]} == names - itself
    assert all(described[name]["description"] for name in names - itself)
    entry = "run/workflow/Snakefile"
    assert described["./"]["mainEntity"] == {"@id": entry}
    assert "ComputationalWorkflow" in described[entry]["@type"]
    made = {name for name in names - itself - {"README.md"} if not name.startswith("run/")}
    (action,) = (entity for entity in graph if entity["@type"] == "CreateAction")
    assert described["./"]["mentions"] in ({"@id": action["@id"]}, [{"@id": action["@id"]}])
    assert action["instrument"] == {"@id": entry}
    assert {entity["@id"] for entity in action["result"]} == made
    assert "run/config/config.yaml" in {entity["@id"] for entity in action["object"]}
    readme = held["README.md"].decode()
    assert all(f"| `{name}` | " in readme for name in made)
    assert readme.index("Read `supplement.pdf`") < readme.index("`methods.md`") < 400
    figures = [name for name in names if name.startswith("figures/")]
    assert figures
    for name in figures:
        (page,) = pages_of(held[name])
        assert float(page.mediabox.width) == pytest.approx(WIDTHS[name.split("/")[1]] * INCH)
        assert all(fonts_of(page).values()), f"{name} lacks a font"
        assert "layer" in page.extract_text() or "noise level" in page.extract_text()


@pytest.mark.workflow
def test_the_supplement_of_a_finished_run(finished: Path, tmp_path: Path) -> None:
    config = finished / "config/config.yaml"
    # Each example costs seconds to draw.
    config.write_text(config.read_text().replace("  examples: 4", "  examples: 1"))
    run(finished, "reports/supplement.zip")
    archive = finished / "reports/supplement.zip"
    check_archive(archive)
    with ZipFile(archive) as held:
        held.extractall(tmp_path)
    tables = finished / "results/tables"
    assert {path.name for path in tables.iterdir()} == {
        path.name for path in (tmp_path / "tables").iterdir()
    }
    resolved = yaml.safe_load((tmp_path / "run/config/config.yaml").read_text())
    assert resolved["effects"]["resamples"] == 2000, "a default is missing"
    facts = json.loads((tables / "tracing.provenance.json").read_text())
    methods = (tmp_path / "methods.md").read_text()
    words = words_of(pages_of((tmp_path / "supplement.pdf").read_bytes()))
    for fact in (facts["weights_sha256"], facts["packages"]["torch"]):
        assert fact in methods
        assert fact in words
    assert "Nothing to be done" in run(finished, "reports/supplement.zip")
    check_crate(archive, tmp_path)
    # Unpacked alone, it plans the run that it came from.
    again = tmp_path / "run"
    jobs = planned_jobs(again)
    assert jobs["measure_at_once"] == 1
    assert jobs == planned_jobs(copy_project(tmp_path / "fresh"))
    shown = (again / "config/examples.tsv").read_bytes()
    assert shown == (finished / "config/examples.tsv").read_bytes()
    for name in ("workflow", "envs", "profiles"):
        assert contents_below(again, name) == contents_below(finished, name)


def contents_below(project: Path, folder: str) -> dict[Path, bytes]:
    """What the files of a folder hold, those that Python and Snakemake leave aside."""
    return {
        path.relative_to(project): path.read_bytes()
        for path in (project / folder).rglob("*")
        if path.is_file() and not {"__pycache__", ".snakemake"} & set(path.parts)
    }


# ---- where it comes from -----------------------------------------------------------------------


def test_given_files_are_called_as_the_sheet_or_the_workflow_calls_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = str(ROOT / "resources/miniature/images/hat_box.png")
    paths = ["a b/é.png", "./sub/../mine.tsv", own, "../outside.png", "/elsewhere/x.png"]
    names, elsewhere = named(paths)
    assert names == {
        "a b/é.png": "a b/é.png",
        "mine.tsv": "./sub/../mine.tsv",
        "resources/miniature/images/hat_box.png": own,
    }
    assert elsewhere == ["../outside.png", "/elsewhere/x.png"]


def test_authors_licence_and_repository_are_those_of_the_citation_file(tmp_path: Path) -> None:
    (tmp_path / "CITATION.cff").write_text(
        "authors:\n- {family-names: Lovelace, given-names: Ada, orcid: https://orcid.org/1}\n"
        "- {name: A group}\nlicense: MIT\nrepository-code: https://example.org/a\n"
    )
    origin = origin_of(tmp_path)
    assert origin == {
        "authors": [
            {"kind": "Person", "name": "Ada Lovelace", "orcid": "https://orcid.org/1"},
            {"kind": "Organization", "name": "A group", "orcid": ""},
        ],
        "licence": "MIT",
        "repository": "https://example.org/a",
        "commit": "",
    }


def test_of_a_copy_without_history_or_citation_nothing_is_claimed(tmp_path: Path) -> None:
    nothing = {"authors": [], "licence": "", "repository": "", "commit": ""}
    assert origin_of(tmp_path) == nothing
    clone = ["git", "-C", str(tmp_path)]
    subprocess.run([*clone, "init", "--quiet"], check=True)
    (tmp_path / "inside").mkdir()
    assert origin_of(tmp_path / "inside")["commit"] == ""


def test_the_commit_is_that_of_the_clone_and_says_what_was_changed_since(tmp_path: Path) -> None:
    clone = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    (tmp_path / "file").write_text("one")
    for command in (["init", "--quiet"], ["add", "file"], ["commit", "--quiet", "--message=one"]):
        subprocess.run([*clone, *command], check=True)
    head = subprocess.run(
        [*clone, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert origin_of(tmp_path)["commit"] == head
    (tmp_path / "file").write_text("two")
    assert origin_of(tmp_path)["commit"] == f"{head}-dirty"


def test_the_crate_names_who_made_it_and_from_where(made_up: Run, tmp_path: Path) -> None:
    path = write_small(made_up, tmp_path / "small")
    check_crate(path, tmp_path)
    with ZipFile(path) as archive:
        graph = json.loads(archive.read("ro-crate-metadata.json"))["@graph"]
        readme = archive.read("README.md").decode()
    described = {entity["@id"]: entity for entity in graph}
    root = described["./"]
    assert root["license"] == {"@id": "https://spdx.org/licenses/MIT"}
    assert root["creator"] == [{"@id": "https://orcid.org/0000-0001"}]
    assert described["https://orcid.org/0000-0001"]["@type"] == "Person"
    entry = described["run/workflow/Snakefile"]
    assert entry["codeRepository"] == "https://example.org/a/repository"
    assert entry["version"] == "0123abcd"
    profiles = {profile["@id"] for profile in root["conformsTo"]}
    assert "https://w3id.org/ro/wfrun/workflow/0.5" in profiles
    assert "https://example.org/a/repository (commit 0123abcd)" in readme
    assert "Not in the archive: a large checkpoint." in readme


def check_crate(archive: Path, folder: Path) -> None:
    """A validator accepts the archive, without a network: rocrate brings what it would fetch."""
    if shutil.which("rocrate-validator", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("roc-validator is not installed, so only its validation is left out")
    requests_cache = pytest.importorskip("requests_cache")
    cache = folder / "cache"
    keep_context(requests_cache.CachedSession(str(cache), backend="sqlite", expire_after=-1))
    done = subprocess.run(
        [str(Path(sys.executable).parent / "rocrate-validator"), "--no-interactive", "validate",
         "--requirement-severity", "required", "--offline", "--cache-path", str(cache),
         "--no-paging", "--verbose", str(archive)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def keep_context(session: Any) -> None:
    """Keep in a validator's cache the words' definitions, as if it had fetched them.

    rocrate brings those of a later version, where Bioschemas' words alone are defined otherwise.
    """
    import requests
    import rocrate
    import urllib3

    answer = requests.Response()
    definitions = Path(rocrate.__file__).parent / "data/ro-crate.jsonld"
    later, earlier = "https://bioschemas.org/terms/", "https://bioschemas.org/"
    answer._content = definitions.read_bytes().replace(later.encode(), earlier.encode())
    answer.url = f"https://w3id.org/ro/crate/{VERSION}/context"
    answer.status_code = 200
    answer.headers["Content-Type"] = "application/ld+json"
    answer.request = requests.Request("GET", answer.url).prepare()
    answer.raw = urllib3.HTTPResponse(headers=dict(answer.headers), status=200)
    session.cache.save_response(answer)
