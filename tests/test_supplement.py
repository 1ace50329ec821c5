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
from typing import Any
from zipfile import ZipFile

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.transforms import Bbox
from project import ROOT, run
from stories import CONFIG, SHOWN, made_up_run
from synthetic_tables import Asked
from test_figures import shown_texts, shrunk
from write_supplement import files_of_the_run, tables_in_latex, write_supplement

from blip_tracing import latex
from blip_tracing.document import write_document
from blip_tracing.figures import CLEAN_RUN, PALETTE
from blip_tracing.journal_figures import WIDTHS, journal_figures, mean_levels
from blip_tracing.methods import methods_of
from blip_tracing.story import Run, Story, tell

TEMPLATE = str(ROOT / "workflow/report/methods.md.j2")
REFERENCES = str(ROOT / "workflow/report/references.bib")
MORE = {"pictures": 3, "given_answers": False, "snakemake": "9.9.9"}
# Points.
SMALLEST_PRINT, INCH = 6.0, 72
LONG = Asked(
    "what is the color of the internationalization that stands behind the big red house",
    "what is the color of the extraordinariness that stands behind the big red house",
    "a-rather-long-answer",
    "another-such-answer",
)


def with_settings(made_up: Run, **sections: Any) -> Run:
    """The run with these sections of its configuration, and with what others leave out."""
    return replace(made_up, config={**CONFIG, "controls": {"null_samples": 1}, **sections})


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return with_settings(made_up_run(tmp_path_factory.mktemp("made_up")))


@pytest.fixture(scope="module")
def story(made_up: Run) -> Story:
    return tell(made_up)


# ---- the document ------------------------------------------------------------------------------


def pages_of(pdf: bytes) -> Sequence[Any]:
    pypdf = pytest.importorskip("pypdf", reason="pypdf, which reads PDFs, is not installed")
    return pypdf.PdfReader(io.BytesIO(pdf)).pages


def document_of(story: Story) -> bytes:
    file = io.BytesIO()
    write_document(story, file)
    return file.getvalue()


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
        story.title, *story.findings, *story.methods, *story.facts["value"], story.means_caption,
        *(example.pair.source_question for example in story.examples),
        *(group.caption for group in story.averages),
        *story.verdicts["where"], *story.controls["meaning"], *story.excluded["reason"],
        story.excluded_caption, *story.versions["version"], story.config,
    ]  # fmt: skip
    assert [text for text in told if unspaced(text) not in words] == []


def test_the_document_prints_the_number_of_every_cell(pages: Sequence[Any], story: Story) -> None:
    text = "\n".join(page.extract_text() for page in pages)
    groups = [*story.averages, *(group for example in story.examples for group in example.maps)]
    values = pd.concat([part.cells["value"] for group in groups for part in group.maps])
    numbers = {f"{round(value, 2) + 0:.2f}" for value in values}
    assert numbers <= set(re.findall(r"-?\d\.\d\d(?!\d)", text))
    assert "-0.00" not in text


def test_the_document_holds_its_fonts(pages: Sequence[Any]) -> None:
    fonts = {name: held for page in pages for name, held in fonts_of(page).items()}
    assert len(fonts) == 3
    assert all(fonts.values())


def test_a_story_of_little_makes_a_document(made_up: Run) -> None:
    """Neither traced nor compared with what was published, and no example has a null."""
    alone = {name: made_up.tables[name] for name in made_up.tables if name != "verdicts"}
    alone["controls"] = alone["controls"].iloc[:0]
    alone["excluded"] = alone["excluded"].iloc[:0]
    alone["summary"] = alone["summary"].query("quantity != 'contrast'")
    patched = with_settings(made_up, tracing={**CONFIG["tracing"], "sites": []})
    words = words_of(pages_of(document_of(tell(replace(patched, tables=alone)))))
    assert "Noiselevels" not in words
    assert "Replication" not in words
    assert unspaced("Nothing was left out.") in words


# ---- figures -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Many layers, long words."""
    site = {"sites": ["block_input"]}
    crowded = made_up_run(
        tmp_path_factory.mktemp("crowded"),
        asked={"x": LONG},
        shown=["x"],
        layers=24,
        noise_levels=(0, 0.9, 1, 20),
        samples=2,
        sites=site["sites"],
    )
    return with_settings(crowded, patching=site, tracing={**CONFIG["tracing"], **site})


@pytest.mark.parametrize("width", WIDTHS.values())
def test_figures_fit_their_column_in_letters_of_six_points(crowded: Run, width: float) -> None:
    sites = {name: crowded.config[name]["sites"] for name in ("patching", "tracing")}
    drawn = list(journal_figures(tell(crowded), crowded.tables, ["x"], sites))
    assert [figure.name for figure in drawn] == [
        "roles_patching_block_input", "roles_tracing_block_input", "noise_levels",
        "patching_block_input_x", "tracing_block_input_x",
    ]  # fmt: skip
    for journal_figure in drawn:
        figure = journal_figure.draw(width).draw()
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
        figure = mean_levels(means.assign(mean=0.5, low=0.4, high=0.6), WIDTHS["one_column"]).draw()
    try:
        figure.draw_without_rendering()
        check_texts(figure)
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


def test_each_effect_stands_in_its_place(made_up: Run) -> None:
    summary = made_up.tables["summary"]
    text = latex.role_effects_table(summary)
    cell = summary.query(
        "experiment == 'tracing' and site == 'block_output' and noise_level == 0.5 "
        "and layer == 0 and role == 'noun'"
    ).set_index("quantity")
    means = [
        latex.interval(pd.Series(cell.loc[name])) for name in ("probability_change", "contrast")
    ]
    row = rf"tracing & block\_output & 0.5 & noun & 0 & {means[0]} & -- & {means[1]} & $3.00$"
    assert f"{row} & $0.0100$" in text


def test_the_tables_compile(made_up: Run, tmp_path: Path) -> None:
    """Of words that would be commands too."""
    program = next(filter(shutil.which, ("pdflatex", "tectonic")), None)
    if program is None:
        pytest.skip("LaTeX (pdflatex or tectonic) is not installed, so no table is compiled")
    odd = made_up.tables["answers"].assign(answer="[50 % & _x_ \\ {$~^#} σ水é]", example="[a_b")
    compile_tables(
        replace(made_up, tables={**made_up.tables, "answers": odd}, pictures={"[a_b": ""}),
        program,
        tmp_path,
    )


def compile_tables(told: Run, program: str, folder: Path) -> None:
    for name, text in tables_in_latex(told).items():
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
    return " ".join(methods_of(made_up, tell(made_up), TEMPLATE, {**MORE, **more}).split())


def test_the_methods_say_what_was_done(made_up: Run) -> None:
    text = methods(made_up)
    for fact in (
        "`a-lab/blip` (commit 0123456789abcdef; SHA-256 of its weights abab",
        "on cpu, cuda", "(3 layers)", "3 examples", "3 pictures", "(0, 0.5, 2)",
        "6 draws of the noise",
        "(block_input, block_output)", "seed (3)", "200 resamples", "below 0.05",
        "[CLS], before noun, noun, [SEP]", "at the first draw", "Snakemake 9.9.9", "torch 2.9.0",
        "tracing, total effect below the threshold, 1 example (",
    ):  # fmt: skip
        assert fact in text


def test_the_methods_say_nothing_that_was_not_done(made_up: Run) -> None:
    patched = with_settings(made_up, tracing={**CONFIG["tracing"], "sites": []})
    assert not re.findall("Causal tracing|Gaussian|traced|draws? of", methods(patched))
    traced = with_settings(made_up, patching={"sites": []})
    assert not re.findall("Patching|patched", methods(traced))
    controls = made_up.tables["controls"].query("control != 'null'")
    alone = methods(replace(made_up, tables={**made_up.tables, "controls": controls}))
    assert "There is no null, since all examples are of one picture." in alone


def test_the_methods_cite_what_the_references_list(made_up: Run) -> None:
    listed = re.findall(r"^@\w+\{(\w+),$", Path(REFERENCES).read_text(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(re.findall(r"@(\w+)", methods(made_up))) == set(listed)


# ---- the archive -------------------------------------------------------------------------------


def write_small(made_up: Run, folder: Path) -> Path:
    """A supplement of one example, patched only."""
    folder.mkdir()
    small = with_settings(
        made_up,
        tracing={**CONFIG["tracing"], "sites": []},
        patching={"sites": ["block_input"]},
    )
    kept = {}
    for name in ("examples.tsv", "Snakefile", "requirements.txt", "facts.provenance.json"):
        kept[name] = folder / name
        kept[name].write_text(f"what {name} holds\n")
    files = files_of_the_run(
        {},
        [str(kept["facts.provenance.json"])],
        str(kept["examples.tsv"]),
        [str(kept["Snakefile"]), str(kept["requirements.txt"])],
    )
    pictures = {name: made_up.pictures[name] for name in SHOWN[:1]}
    archive = folder / "supplement.zip"
    write_supplement(replace(small, pictures=pictures), files, REFERENCES, TEMPLATE, MORE, archive)
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
    assert described["./"]["mainEntity"] == {"@id": "workflow/Snakefile"}
    assert "ComputationalWorkflow" in described["workflow/Snakefile"]["@type"]
    readme = held["README.md"].decode()
    assert all(f"- `{name}`: " in readme for name in names - itself - {"README.md"})
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
    config.write_text(config.read_text().replace("  examples: 12", "  examples: 1"))
    run(finished, "reports/supplement.zip")
    archive = finished / "reports/supplement.zip"
    check_archive(archive)
    with ZipFile(archive) as held:
        held.extractall(tmp_path)
    tables = finished / "results/tables"
    assert {path.name for path in tables.iterdir()} == {
        path.name for path in (tmp_path / "tables").iterdir()
    }
    resolved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert resolved["effects"]["resamples"] == 2000, "a default is missing"
    facts = json.loads((tables / "tracing.provenance.json").read_text())
    methods = (tmp_path / "methods.md").read_text()
    words = words_of(pages_of((tmp_path / "supplement.pdf").read_bytes()))
    for fact in (facts["weights_sha256"], facts["packages"]["torch"]):
        assert fact in methods
        assert fact in words
    assert "Nothing to be done" in run(finished, "reports/supplement.zip")
    check_crate(archive, tmp_path)


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
    """Keep in a validator's cache the words' definitions, as if it had fetched them."""
    import requests
    import rocrate
    import urllib3

    answer = requests.Response()
    definitions = Path(rocrate.__file__).parent / "data/ro-crate.jsonld"
    answer._content = definitions.read_bytes()
    answer.url = json.loads(answer.content)["@id"]
    answer.status_code = 200
    answer.headers["Content-Type"] = "application/ld+json"
    answer.request = requests.Request("GET", answer.url).prepare()
    answer.raw = urllib3.HTTPResponse(headers=dict(answer.headers), status=200)
    session.cache.save_response(answer)
