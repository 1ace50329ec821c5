"""What is seen of every tower: regions over their picture, heads, sites in a row, windows."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from drawn import figure_of, shown_texts, shrunk
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image
from plotnine import ggplot
from stories import made_up_run, write_page
from synthetic_tables import (
    BEST_HEAD,
    DIFFERING,
    HEADS,
    PATCHES,
    REGION_ROLES,
    ROLES,
    Asked,
    made_up_experiments,
)

from blip_tracing.drawing import figures, panels
from blip_tracing.drawing.journal_figures import WIDTHS, change_maps, journal_figures
from blip_tracing.drawing.palette import fill
from blip_tracing.drawing.panels import KEPT_GREY, Heading, Panel, overlay, site_row, tinted
from blip_tracing.printing.document import write_document
from blip_tracing.printing.latex import role_effects_table
from blip_tracing.telling.methods import methods_of
from blip_tracing.telling.phrases import how_to_read, method_of, put_words
from blip_tracing.telling.places import state_words, window_words
from blip_tracing.telling.story import tell
from blip_tracing.telling.told import MARK, OWN_MARK, MapGroup, Run, Story
from blip_tracing.vocabulary.experiment import BASE, SOURCE
from blip_tracing.vocabulary.sites import SITES
from blip_tracing.vocabulary.views import figure_names, side_by_side

REPORT = Path(__file__).resolve().parents[2] / "workflow/report"
NOISY = "noisy"
LEVELS, LAYERS, DRAWS, SIDE = (0.5, 2.0), 3, 5, 6
# The level in the middle, of two the higher.
PRIMARY = 2.0
EXAMPLE = "example_1"
MANY = {
    f"example_{number}": Asked(
        f"what is the color of the animal number {number}",
        f"what is the color of the shirt number {number}", "light brown", "red",
    )
    for number in range(7)
}  # fmt: skip
STREAM, ATTENTION, MLP, ANSWER = (
    "encoder.block_output", "encoder.self_attention", "encoder.mlp", "decoder.block_output",
)  # fmt: skip
REGIONS, CROSS = "vision.block_output", "encoder.cross_attention_heads"
ENDS = {
    "pictures": (BASE, SOURCE), "heads": (BASE, SOURCE), "parts": (BASE, SOURCE),
    "windows": (BASE, SOURCE), "joint": (BASE, SOURCE), "noisy_pictures": (NOISY, BASE),
    "noisy_parts": (NOISY, BASE), "noisy_heads": (NOISY, BASE),
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "pictures": {"sites": (REGIONS,), "regions": SIDE},
    "heads": {"sites": (CROSS, "vision.self_attention_heads")},
    "parts": {"sites": (STREAM, ATTENTION, MLP, ANSWER)},
    "windows": {"sites": (MLP,), "window": 3},
    "joint": {"sites": (MLP,), "positions": "roles"},
    "noisy_pictures": {"sites": ("vision.mlp",), "regions": 2},
    "noisy_parts": {"sites": (STREAM, MLP)},
    "noisy_heads": {"sites": (CROSS,), "heads": (0, BEST_HEAD)},
}


def run_of(folder: Path, *names: str, **changes: Any) -> Run:
    """A run of these experiments, one example shown."""
    settings: dict[str, Any] = {
        "asked": MANY, "shown": [EXAMPLE], "two_pictures": True, "layers": LAYERS,
        "noise_levels": LEVELS, "draws": DRAWS,
        "ends": {name: ENDS[name] for name in names},
        "settings": {name: SETTINGS[name] for name in names}, **changes,
    }  # fmt: skip
    return made_up_run(folder, **settings)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_of(tmp_path_factory.mktemp("towers"), *ENDS)


@pytest.fixture(scope="module")
def story(run: Run) -> Story:
    return tell(run)


@pytest.fixture(scope="module")
def page(run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_page(run, tmp_path_factory.mktemp("page") / "index.html")


def changed(run: Run, name: str, **columns: Any) -> Run:
    return replace(run, tables={**run.tables, name: run.tables[name].assign(**columns)})


def shown(story: Story, title: str) -> MapGroup:
    """The example's group of this title."""
    return next(group for group in story.examples[0].maps if group.title == title)


def average(story: Story, title: str) -> MapGroup:
    return next(group for group in story.averages if group.title == title)


def effects_of(run: Run, experiment: str, site: str) -> pd.DataFrame:
    effects = run.tables["effects"]
    return effects[
        (effects["experiment"] == experiment)
        & (effects["example"] == EXAMPLE)
        & (effects["site"] == site)
    ]


# ---- regions over their picture ----------------------------------------------------------------


def test_single_regions_are_drawn_over_the_receivers_picture(run: Run, story: Story) -> None:
    group = shown(story, f"Pictures, {REGIONS}")
    assert group.regions == SIDE
    assert group.picture == run.pictures[EXAMPLE]
    assert group.source_picture == run.source_pictures[EXAMPLE] != group.picture
    (one,) = group.maps
    rows = effects_of(run, "pictures", REGIONS).set_index(["position", "layer"])
    cells = one.cells.set_index(["place", "layer"])
    assert len(cells) == LAYERS * (SIDE**2 + 1)
    assert cells["value"].to_dict() == pytest.approx(rows["probability_change"].to_dict())
    assert cells["shows"].to_dict() == rows["token_role"].to_dict()
    # The first row's last region and the second row's first.
    assert (cells.loc[(SIDE, 0), "label"], cells.loc[(SIDE + 1, 0), "label"]) == (
        f"{SIDE} r1c{SIDE}", f"{SIDE + 1} r2c1",
    )  # fmt: skip


def test_nothing_else_is_drawn_over_a_picture(story: Story) -> None:
    over = [group.title for group in story.examples[0].maps if group.regions]
    assert over == [f"Pictures, {REGIONS}", "Noisy pictures, vision.mlp"]
    assert not any(group.regions for group in story.averages)


def test_of_all_patches_the_tokens_say_how_many_there_are(tmp_path: Path) -> None:
    whole = {"pictures": {"sites": (REGIONS,), "regions": 0}}
    told = tell(run_of(tmp_path, "pictures", settings=whole))
    group = shown(told, f"Pictures, {REGIONS}")
    assert group.regions == PATCHES
    assert set(group.maps[0].cells["place"]) == set(range(PATCHES**2 + 1))


class Overlays(HTMLParser):
    """Of a page, each overlay's panels: layer → rows of cells (class, title, text, marked)."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, dict[int, list[list[list[Any]]]]] = {}
        self.rows: list[list[list[Any]]] | None = None
        self.classes: dict[str, list[str]] = {}
        self.name, self.inside = "", ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("class") == "over":
            self.name = given["id"] or ""
            self.found[self.name] = {}
        elif tag == "i" and (given.get("class") or "").startswith("seen "):
            self.classes.setdefault(self.name, []).append((given["class"] or "").split()[1])
        elif tag == "table":
            layer = given.get("data-layer")
            self.rows = None
            if layer is not None:
                self.rows = self.found[self.name][int(layer)] = []
        elif self.rows is not None and tag == "tr":
            self.rows.append([])
        elif self.rows is not None and tag == "td":
            self.rows[-1].append([given.get("class"), given.get("title"), "", False])
        elif self.rows is not None and tag == "b":
            self.rows[-1][-1][3] = True
        self.inside = tag

    def handle_data(self, data: str) -> None:
        if self.rows and self.inside == "td":
            self.rows[-1][-1][2] += data


def test_the_page_has_a_panel_a_layer_with_each_region_in_its_place(
    story: Story, page: str
) -> None:
    group = shown(story, f"Pictures, {REGIONS}")
    (one,) = group.maps
    overlays = Overlays(page)
    found = overlays.found[one.name]
    assert list(found) == list(range(LAYERS))
    cells = one.cells.set_index(["layer", "place"])
    for layer, rows in found.items():
        assert [len(row) for row in rows] == [SIDE] * SIDE
        for number, (colour, title, text, marked) in enumerate(c for row in rows for c in row):
            cell: Any = cells.loc[(layer, number + 1)]
            step = round(20 * cell["value"] / group.limit)
            assert colour == (f"{'gain' if step > 0 else 'loss'}{abs(step)}" if step else None)
            assert f"shows: {cell['shows']}" in title
            assert float(text.replace("−", "-")) == pytest.approx(cell["value"], abs=0.005)
            assert not marked
    # [CLS] is no region: a map of one row beside them.
    assert f'id="{one.name}-cls"' in page


def test_a_picture_lies_in_the_page_once_however_many_layers_are_drawn_over_it(page: str) -> None:
    overlays = Overlays(page)
    pictures = {name for classes in overlays.classes.values() for name in classes}
    assert pictures == {"seen-0"}
    assert page.count(".seen-0 { background-image") == 1
    # The card's two, at a reader's size.
    assert len(set(re.findall(r'src="(data:image/jpeg[^"]*)"', page))) == 2


def test_marks_over_a_picture_are_the_effects(run: Run, tmp_path: Path) -> None:
    """And without marks nothing is said to be marked."""
    plain = shown(tell(changed(run, "effects", marked=False)), "Noisy pictures, vision.mlp")
    assert OWN_MARK not in plain.marks
    assert not any(one.cells["marked"].any() for one in plain.maps)
    effects = run.tables["effects"]
    one = (effects["site"] == "vision.mlp") & (effects["position"] == 3) & (effects["layer"] == 1)
    marked = changed(run, "effects", marked=one)
    overlays = Overlays(write_page(marked, tmp_path / "index.html"))
    group = shown(tell(marked), "Noisy pictures, vision.mlp")
    for one_map in group.maps:
        for layer, rows in overlays.found[one_map.name].items():
            # Of a grid of two the third region begins the second row.
            there = [[cell[3] for cell in row] for row in rows]
            assert there == [[False, False], [layer == 1, False]]


# ---- heads -------------------------------------------------------------------------------------


def test_a_map_of_heads_is_the_mean_over_positions_beside_that_at_the_differing_word(
    run: Run, story: Story
) -> None:
    group = shown(story, f"Heads, {CROSS}")
    (one,) = group.maps
    (word,) = one.beside
    assert group.rows == "head"
    assert "mean over tokens" in one.title
    assert word.title == "at “animal”"
    rows = effects_of(run, "heads", CROSS)
    for drawn, chosen in ((one, rows), (word, rows[rows["token_role"] == DIFFERING])):
        cells = drawn.cells.set_index(["label", "layer"])
        assert len(cells) == HEADS * LAYERS
        for head in range(HEADS):
            for layer in range(LAYERS):
                at = chosen[(chosen["head"] == head) & (chosen["layer"] == layer)]
                value = cells.loc[(f"head {head}", layer), "value"]
                assert value == pytest.approx(at["probability_change"].mean())


def test_other_towers_have_no_differing_word(story: Story) -> None:
    (one,) = shown(story, "Heads, vision.self_attention_heads").maps
    assert one.beside == ()
    assert "mean over regions" in one.title


def test_only_the_heads_that_were_asked_for_have_a_row(story: Story) -> None:
    one = shown(story, f"Noisy heads, {CROSS}").maps[0]
    assert list(one.cells["label"].unique()) == ["head 0", f"head {BEST_HEAD}"]
    assert sorted(one.cells["place"].unique()) == [0, 1]


def test_a_mean_over_positions_is_not_marked_in_one_example(run: Run) -> None:
    """What is tested of one example is a head at a place."""
    group = shown(tell(changed(run, "effects", marked=True)), f"Noisy heads, {CROSS}")
    for one in group.maps:
        assert not one.cells["marked"].any()
        assert one.beside[0].cells["marked"].all()
    assert "a mean over places is not tested" in group.marks


def test_averages_of_heads_are_the_summarys_at_all_positions_and_at_the_word(
    run: Run, story: Story
) -> None:
    one = average(story, f"Heads, {CROSS}").maps[0]
    summary = run.tables["summary"]
    rows = summary[
        (summary["experiment"] == "heads") & (summary["site"] == CROSS)
        & (summary["quantity"] == "probability_change") & (summary["group"] == "all")
        & (summary["among"] == "included") & summary["layer"].notna()
    ]  # fmt: skip
    for drawn, role in ((one, "all"), (one.beside[0], DIFFERING)):
        mine = rows[rows["token_role"] == role]
        found = drawn.cells.set_index(["layer", "label"])["value"].to_dict()
        assert found == pytest.approx(
            {(row.layer, f"head {row.head:g}"): row.mean for row in mine.itertuples()}
        )
        assert drawn.cells["marked"].sum() == mine["marked"].eq(True).sum() == 2


def test_marked_heads_are_named_with_their_effects(run: Run, story: Story) -> None:
    summary = run.tables["summary"]
    marked = summary[
        (summary["site"] == CROSS) & (summary["experiment"] == "heads")
        & (summary["token_role"] == "all") & summary["marked"].eq(True)
        & (summary["among"] == "included")
    ]  # fmt: skip
    words = [
        f"head {row.head:g} of layer {row.layer:g}, {row.mean:+.3f} "
        f"({row.low:+.3f} to {row.high:+.3f})"
        for row in marked.itertuples()
    ]
    assert len(words) == 2
    told = average(story, f"Heads, {CROSS}").marks
    finding = next(text for text in story.findings if text.startswith(f"Heads, {CROSS}"))
    assert "of 12 tested heads 2 stand out" in finding
    for head in words:
        assert head.replace("-", "−") in told
        assert head.replace("-", "−") in finding
    other = next(text for text in story.findings if text.startswith("Heads, vision"))
    assert f"head {BEST_HEAD} of layer 1" in other


def test_no_head_is_named_where_none_is_marked(run: Run) -> None:
    told = tell(changed(run, "summary", marked=False))
    words = [*told.findings, *(group.marks for group in told.averages)]
    assert not any(re.search(r"head \d", text) for text in words)
    finding = next(text for text in told.findings if text.startswith(f"Heads, {CROSS}"))
    assert "none of 12 heads stands out" in finding


# ---- sites in a row ----------------------------------------------------------------------------


def test_sites_stand_side_by_side_with_the_maps_that_each_has(run: Run, story: Story) -> None:
    row = shown(story, "Parts, side by side")
    assert row.by_site
    assert [one.title for one in row.maps] == [STREAM, ATTENTION, MLP, ANSWER]
    for one in row.maps:
        rows = effects_of(run, "parts", one.title).set_index(["position", "layer"])
        cells = one.cells.set_index(["place", "layer"])
        assert cells["value"].to_dict() == pytest.approx(rows["probability_change"].to_dict())
    # The followed answer is of one token.
    assert list(row.maps[-1].cells["label"].unique()) == ["0 [DEC]"]
    assert row.rows == "position and token, or answer token"


def test_a_row_takes_the_place_of_its_maps_unless_they_have_levels(story: Story) -> None:
    titles = [group.title for group in story.examples[0].maps]
    assert not any(title.startswith("Parts, encoder") for title in titles)
    assert [title for title in titles if title.startswith("Noisy parts")] == [
        "Noisy parts, side by side", f"Noisy parts, {STREAM}", f"Noisy parts, {MLP}",
    ]  # fmt: skip
    noisy = shown(story, "Noisy parts, side by side")
    assert f"σ = {PRIMARY:g}" in noisy.caption
    alone = shown(story, f"Noisy parts, {MLP}")
    primary = next(one for one in alone.maps if one.level == PRIMARY)
    pd.testing.assert_frame_equal(noisy.maps[1].cells, primary.cells)


def test_both_sides_of_a_block_are_no_comparison() -> None:
    both = {"sites": ("encoder.block_input", "encoder.block_output")}
    heads = {"sites": (CROSS, MLP)}
    for settings in (both, heads, {"sites": (MLP,)}):
        (asked,) = made_up_experiments(ends={"x": (BASE, SOURCE)}, settings={"x": settings})
        assert side_by_side(asked) == ()
    (parts,) = made_up_experiments(
        ends={"x": (BASE, SOURCE)}, settings={"x": {"sites": (STREAM, CROSS, REGIONS, MLP)}}
    )
    assert side_by_side(parts) == (STREAM, MLP)


# ---- windows, joint positions, and words -------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "words"),
    [(1, ""), (2, "2 layers about ℓ (ℓ−1 to ℓ)"), (3, "3 layers about ℓ (ℓ−1 to ℓ+1)"),
     (10, "10 layers about ℓ (ℓ−5 to ℓ+4)")],
)  # fmt: skip
def test_a_window_names_its_layers(window: int, words: str) -> None:
    (asked,) = made_up_experiments(
        ends={"x": (BASE, SOURCE)}, settings={"x": {"sites": (MLP,), "window": window}}
    )
    assert window_words(asked) == words


def test_a_windows_map_stands_beside_the_sum_of_its_layers(run: Run, story: Story) -> None:
    group = average(story, f"Windows, {MLP}")
    (one,) = group.maps
    (sums,) = one.beside
    assert "3 layers about ℓ (ℓ−1 to ℓ+1)" in group.caption
    assert sums.title == "sum of the single layers"
    at = ["label", "layer"]
    # The made-up sum is half of the window's effect.
    assert sums.cells.set_index(at)["value"].to_dict() == pytest.approx(
        (one.cells.set_index(at)["value"] / 2).to_dict()
    )
    for other in story.averages:
        if other is not group:
            assert "sum of the" not in other.caption
            assert all(drawn.title != sums.title for drawn in other.all_maps)


def test_without_a_run_of_single_layers_there_is_no_sum(run: Run) -> None:
    alone = changed(run, "summary", sum_of_singles=np.nan)
    assert average(tell(alone), f"Windows, {MLP}").maps[0].beside == ()


def test_positions_put_in_together_are_called_so(story: Story) -> None:
    group = shown(story, f"Joint, {MLP}")
    assert group.rows == "role, put in together"
    assert "all tokens of one role together" in group.caption
    there = list(group.maps[0].cells["label"].unique())
    assert there == [role for role in ROLES if role in there]
    assert "together" in average(story, f"Joint, {MLP}").caption


def test_all_positions_together_are_called_by_their_tower(tmp_path: Path) -> None:
    """By the map's row, the curve's line and the findings; none speaks of a role called so."""
    sites = {"heads": (MLP,), "pictures": (REGIONS,)}
    settings = {name: {"sites": site, "positions": "all"} for name, site in sites.items()}
    told = tell(run_of(tmp_path, "heads", "pictures", settings=settings))
    for group, curve, name in zip(
        told.averages, told.depths, ("all tokens", "all regions"), strict=True
    ):
        assert list(group.maps[0].cells["label"].unique()) == [name]
        assert name in set(curve.lines["run"])
    assert "“all”" not in " ".join(told.findings)


def test_an_axis_title_that_is_longer_than_its_axis_is_left_out(tmp_path: Path) -> None:
    """A single row is named; of more rows the axis has its title."""
    joint = {"heads": {"sites": (MLP,), "positions": "all"}, "joint": SETTINGS["joint"]}
    one = run_of(tmp_path, "heads", "joint", settings=joint)
    texts = {}
    for experiment in one.experiments:
        figure = figure_of(
            figures.answer_maps(
                one.tables[experiment.name], one.tables["runs"], experiment, EXAMPLE, MLP
            )
        )
        texts[experiment.name] = closed(figure)
    assert "all tokens" in texts["heads"]
    assert "all tokens together" not in texts["heads"]
    assert "role, put in together" in texts["joint"]


def test_what_suffices_is_one_state_only_where_one_is_put_in(run: Run) -> None:
    asked = {experiment.name: experiment for experiment in run.experiments}
    assert "that one state suffices" in method_of(asked["parts"])
    for name in ("windows", "joint"):
        assert "one state" not in method_of(asked[name])
        assert "those states together suffice" in method_of(asked[name])
        assert not put_words(asked[name], MLP).startswith("one ")
    assert put_words(asked["parts"], MLP).startswith(f"one {MLP} of ")


def test_a_figures_arrow_is_explained_only_where_one_can_stand(run: Run) -> None:
    asked = {experiment.name: experiment for experiment in run.experiments}
    assert "An arrow" in how_to_read(asked["parts"])
    for name in ("pictures", "heads", "joint"):
        assert "arrow" not in how_to_read(asked[name])


def test_a_row_of_sites_says_what_is_put_in_at_those_it_shows(tmp_path: Path) -> None:
    sites = {"parts": {"sites": (STREAM, MLP, CROSS), "positions": "roles"}}
    told = tell(run_of(tmp_path, "parts", settings=sites))
    caption = shown(told, "Parts, side by side").caption
    assert "all tokens of one role together" in caption
    assert "head" not in caption


def test_colours_too_pale_to_see_are_told_by_their_largest_change(run: Run, story: Story) -> None:
    """Over a picture and in a row, where no number stands."""
    titles = ("Pictures, vision.block_output", "Parts, side by side")
    effects = run.tables["effects"]
    of_both = effects["experiment"].isin(["pictures", "parts"])
    pale = effects["probability_change"].where(~of_both, -0.001)
    told = tell(changed(run, "effects", probability_change=pale))
    for title in titles:
        assert "No colour" not in shown(story, title).caption
        assert (
            "No colour is to be seen: the largest change is −0.001." in shown(told, title).caption
        )


# ---- what is marked at other sites -------------------------------------------------------------


def test_a_finding_names_what_stands_out_at_every_site_and_where_nothing_does(run: Run) -> None:
    """The first site's cells have findings of their own."""
    summary, families = run.tables["summary"], run.tables["families"]
    of_sites = families["experiment"].eq("parts") & families["site"].isin([ATTENTION, MLP])
    tested = families.assign(
        tested=families["tested"] | of_sites,
        detectable=families["detectable"].mask(of_sites, 0.07),
    )
    at = summary["experiment"].eq("parts") & summary["quantity"].eq("probability_change")
    at &= summary["known"].fillna("").eq("") & summary["layer"].eq(1)
    at &= summary["token_role"].eq(DIFFERING) & summary["site"].eq(MLP)
    marked = summary["marked"].mask(summary["site"].isin([ATTENTION, MLP]), False).mask(at, True)
    tables = {**run.tables, "families": tested, "summary": summary.assign(marked=marked)}
    findings = tell(replace(run, tables=tables)).findings
    (found,) = [text for text in findings if text.startswith(f"Parts, {MLP}: ")]
    row = summary[at & summary["among"].eq("included") & summary["group"].eq("all")].iloc[0]
    assert f": “{DIFFERING}” in layer 1, {row['mean']:+.3f} (" in found
    (nothing,) = [text for text in findings if "nothing stands out" in text and ATTENTION in text]
    assert nothing.startswith("Parts: at ")
    assert MLP not in nothing
    assert "a mean change of 0.07 would have been found" in nothing


def test_of_cells_whose_outcome_is_known_there_are_so_many_and_a_curve_says_which(
    run: Run, story: Story
) -> None:
    summary = run.tables["summary"]
    at = summary["experiment"].eq("joint") & summary["quantity"].eq("probability_change")
    at &= summary["layer"].eq(1) & summary["token_role"].eq(DIFFERING)
    told = tell(changed(run, "summary", known=summary["known"].mask(at, "ceiling"), marked=False))
    named = f"It must at “{DIFFERING}” in layer 1, where all of the donor's run is put in."
    title = f"Joint, {MLP}"

    def curve(of: Story) -> str:
        return next(one.caption for one in of.depths if one.title == title)

    assert named in curve(told)
    assert "It must" not in curve(story)
    assert "(the outcome of 1 more is known before)" in average(told, title).marks
    assert "known before" not in average(story, title).marks


# ---- one question about two pictures -----------------------------------------------------------


def test_the_lead_and_captions_say_that_two_pictures_are_asked_one_question(run: Run) -> None:
    runs = run.tables["runs"]
    base = runs[runs["run"] == BASE].set_index("example")["text"]
    same = runs["text"].where(runs["run"] != SOURCE, runs["example"].map(base))
    one = tell(changed(run, "runs", text=same))
    assert "one question about two pictures each" in one.lead
    for told, there in ((one, True), (tell(run), False)):
        *_, figure = journal_figures(told)
        assert ("about the source picture → red" in figure.caption) == there
    assert "two questions, about one picture or two, each" in tell(run).lead
    for texts, named in ((runs.assign(text=same), True), (runs, False)):
        bars = figures.baseline(run.tables["baseline"], texts, EXAMPLE, run.pictures[EXAMPLE])
        assert ("source question, source picture" in closed(bars, lambda _: None)) == named
    assert "a picture with two questions each" in tell(replace(run, source_pictures={})).lead


def test_regions_stand_in_the_order_of_their_roles(story: Story) -> None:
    one = average(story, f"Pictures, {REGIONS}").maps[0]
    assert list(one.cells["label"].unique()) == list(REGION_ROLES)


def words_in(run: Run) -> str:
    """All that a reader is told of a run's experiments."""
    told = tell(run)
    groups = [*told.averages, *(group for example in told.examples for group in example.maps)]
    assert told.strip
    assert told.overview
    more = {"pictures": 3, "given_answers": False, "snakemake": "9.9.9"}
    methods = methods_of(run, told, REPORT / "methods.md.j2", more)
    return "\n".join(
        [told.lead, *told.findings, *told.methods, told.strip.caption, told.overview.caption,
         told.maps_caption, told.marks_caption, told.able_caption, told.excluded_caption,
         *(curve.caption for curve in told.depths), told.means_caption,
         *(f"{group.caption} {group.rows} {group.marks}" for group in groups),
         # The answers are words, and the null's question is not that of a site.
         methods.split("**Pictures.**")[1].split("**Controls.**")[0]]
    )  # fmt: skip


def test_of_the_vision_tower_nothing_speaks_of_tokens_or_the_question_encoder(
    tmp_path: Path,
) -> None:
    words = words_in(run_of(tmp_path, "pictures", "noisy_pictures"))
    assert "vision tower" in words
    assert "region" in words
    assert not re.search(r"\btokens?\b|question encoder|answer decoder|differing word", words)


def test_of_the_decoder_nothing_speaks_of_the_question_encoder(tmp_path: Path) -> None:
    only = {"pictures": {"sites": (ANSWER,)}}
    words = words_in(run_of(tmp_path, "pictures", settings=only))
    assert "answer decoder" in words
    assert "answer token" in words
    assert not re.search(r"question encoder|vision tower|(?<!answer )\btokens?\b", words.replace(
        "or a token of it", ""))  # fmt: skip


def test_every_site_has_words_of_its_tower() -> None:
    names = {"encoder": "token", "decoder": "answer token", "vision": "region"}
    for name, site in SITES.items():
        (asked,) = made_up_experiments(
            ends={"x": (BASE, SOURCE)}, settings={"x": {"sites": [name]}}
        )
        what = "one head" if site.heads else "the state"
        assert state_words(asked, name) == f"{what} of one layer at one {names[site.tower]}"


# ---- figures -----------------------------------------------------------------------------------


def check_texts(figure: Figure) -> None:
    """No text of a drawn figure is cut, small or on another."""
    figure.draw_without_rendering()
    texts = list(shown_texts(figure))
    for text, box in texts:
        inside = figure.bbox.padded(1)
        assert inside.contains(box.x0, box.y0), f"{text!r} is cut"
        assert inside.contains(box.x1, box.y1), f"{text!r} is cut"
    for (first, box), (second, other) in combinations(texts, 2):
        assert not Bbox.intersection(shrunk(box), shrunk(other)), f"{first!r} on {second!r}"
    sizes = [float(text.get_fontsize()) for text in figure.findobj(matplotlib.text.Text)]
    assert min(sizes) >= 6


def closed(figure: Figure, check: Callable[[Figure], None] = check_texts) -> set[str]:
    """Check a figure and close it; its texts."""
    try:
        check(figure)
        return {text for text, _ in shown_texts(figure)}
    finally:
        plt.close(figure)


def regions_cells(layers: int, side: int, marked: tuple[int, int] = (-1, -1)) -> pd.DataFrame:
    random = np.random.default_rng(0)
    rows = [(layer, place, random.uniform(-1, 1), (layer, place) == marked)
            for layer in range(layers) for place in range(side**2 + 1)]  # fmt: skip
    return pd.DataFrame(rows, columns=["layer", "place", "value", "marked"])


@pytest.fixture(scope="module")
def white(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "white.png"
    Image.new("RGB", (120, 90), "white").save(path)
    return path


@pytest.mark.parametrize("width", WIDTHS.values())
@pytest.mark.parametrize(("layers", "side"), [(1, 1), (2, 24), (12, 6), (24, 3)])
@pytest.mark.parametrize("shape", [(120, 90), (20, 400), (900, 30)])
def test_an_overlay_names_every_layer_and_fits_its_page(
    layers: int, side: int, shape: tuple[int, int], width: float, tmp_path: Path
) -> None:
    Image.new("RGB", shape, "white").save(tmp_path / "x.png")
    pictures = [("picture", tmp_path / "x.png"), ("source picture", tmp_path / "x.png")]
    figure = overlay(
        regions_cells(layers, side), side, pictures, 1.0, "change in p(red)", width=width,
        heading=Heading("a title that is longer than one line of a narrow column", ["below"]),
    )  # fmt: skip
    assert figure.get_figwidth() == pytest.approx(width)
    assert figure.get_figheight() <= figures.PAGE_HEIGHT
    texts = closed(figure)
    assert {f"layer {layer}" for layer in range(layers)} <= texts
    assert {"change in p(red)", "−1", "0", "+1"} <= texts
    assert sum(text.startswith("[CLS]") for text in texts) >= 1


def test_the_colours_over_a_picture_are_those_of_the_scale() -> None:
    """Where the picture is white; its greys darken them, and no value leaves the picture alone."""
    values = np.array([[0.5, -1.0], [0.0, np.nan]])
    light, dark = (tinted(np.full((40, 60), grey), values, 1.0) for grey in (1.0, 0.0))
    assert light.shape == (40, 60, 3)
    for row, column, colour in ((5, 5, fill(0.5)), (5, 55, fill(-1)), (35, 5, "#ffffff"),
                                (35, 55, "#ffffff")):  # fmt: skip
        assert to_hex(light[row, column]) == colour
        assert dark[row, column] == pytest.approx((1 - KEPT_GREY) * np.array(to_rgb(colour)))


def marks_of(figure: Figure) -> list[tuple[int, tuple[float, float]]]:
    """The marks: the number of their axes, and where."""
    return [
        (number, (float(place[0]), float(place[1])))
        for number, axes in enumerate(figure.axes)
        for points in axes.collections
        for place in np.asarray(points.get_offsets())
    ]


def test_a_mark_stands_in_its_region_and_none_where_nothing_is_marked(white: Path) -> None:
    cells = regions_cells(2, 3, marked=(1, 6))
    figure = overlay(cells, 3, [("picture", white)], 1.0, "change", OWN_MARK)
    # The picture, then a layer's regions and its [CLS]: the sixth region ends the second row.
    assert marks_of(figure) == [(3, (2.5, 1.5))]
    plt.close(figure)
    plain = overlay(cells.assign(marked=False), 3, [("picture", white)], 1.0, "change", OWN_MARK)
    assert marks_of(plain) == []
    plt.close(plain)


def panels_of(layers: int, label: str, *sites: str) -> list[Panel]:
    random = np.random.default_rng(0)
    found = []
    for site in sites:
        rows = ("[DEC]",) if site.startswith("decoder") else ("[CLS]", label, "[SEP]")
        cells = pd.DataFrame(
            [(layer, place, random.uniform(-1, 1), False)
             for layer in range(layers) for place in range(len(rows))],
            columns=["layer", "place", "value", "marked"],
        )  # fmt: skip
        found.append(Panel(site, rows, cells))
    return found


@pytest.mark.parametrize("width", WIDTHS.values())
@pytest.mark.parametrize("layers", [1, 12, 24])
@pytest.mark.parametrize("label", ["7 animal ← shirt", "internationalization of everything"])
def test_sites_in_a_row_are_named_and_fit(layers: int, label: str, width: float) -> None:
    sites = [STREAM, ATTENTION, "encoder.cross_attention_state", MLP, ANSWER]
    figure = site_row(panels_of(layers, label, *sites), 1.0, "change in p(red)", width=width)
    assert figure.get_figwidth() == pytest.approx(width)
    assert figure.get_figheight() <= figures.PAGE_HEIGHT
    drawn = [axes for axes in figure.axes if axes.get_xlabel() == "layer"]
    assert len(drawn) == len(sites)
    texts = closed(figure)
    assert "[DEC]" in texts
    assert {"encoder.\nblock_output", "decoder.\nblock_output"} <= {
        "\n".join(text.split("\n")[:2]) for text in texts
    } | texts or layers == 1


def test_sites_of_twelve_layers_share_one_line_of_a_page_and_one_scale() -> None:
    figure = site_row(panels_of(12, "7 animal", STREAM, ATTENTION, MLP), 0.5, "change")
    maps = [axes for axes in figure.axes if axes.get_xlabel() == "layer"]
    assert len({round(axes.get_position().y0, 6) for axes in maps}) == 1
    # Row names once, since they are the same.
    assert [len(axes.get_yticks()) for axes in maps] == [3, 0, 0]
    for panel, axes in zip(panels_of(12, "7 animal", STREAM, ATTENTION, MLP), maps, strict=True):
        drawn = [to_hex(tile.get_facecolor()) for tile in axes.patches]
        assert drawn == [fill(value / 0.5) for value in panel.cells["value"]]
    closed(figure)


def test_the_notebooks_figures_of_every_kind_are_legible(run: Run) -> None:
    runs = run.tables["runs"]
    pair = MANY[EXAMPLE]
    for asked in run.experiments:
        cells = run.tables[asked.name]
        if side_by_side(asked):
            texts = closed(panels.example_row(cells, runs, asked, EXAMPLE, PRIMARY))
            assert any(pair.base_question in text for text in texts)
        for site in asked.sites:
            shown_of = cells, runs, asked, EXAMPLE, site
            if SITES[site].tower == "vision" and not SITES[site].heads:
                images = [("picture", run.pictures[EXAMPLE])]
                texts = closed(panels.example_overlay(*shown_of, images, PRIMARY))
                assert any(site in text for text in texts)
                continue
            plot: ggplot = (
                figures.level_maps(*shown_of) if asked.corrupted else figures.answer_maps(*shown_of)
            )
            texts = closed(plot.draw())
            if SITES[site].heads:
                heads = asked.heads or range(HEADS)
                assert {f"head {head}" for head in heads} <= texts


def test_an_overlay_in_a_notebook_is_of_changes_from_the_receivers_own_run(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = next(one for one in run.experiments if one.name == "noisy_pictures")
    cells, runs = run.tables[asked.name], run.tables["runs"]
    drawn: list[pd.DataFrame] = []
    kept = panels.overlay

    def overlay_of(changes: pd.DataFrame, *rest: Any, **more: Any) -> Figure:
        drawn.append(changes)
        return kept(changes, *rest, **more)

    monkeypatch.setattr(panels, "overlay", overlay_of)
    images = [("picture", run.pictures[EXAMPLE])]
    plt.close(panels.example_overlay(cells, runs, asked, EXAMPLE, "vision.mlp", images, PRIMARY))
    mine = cells[(cells["example"] == EXAMPLE) & (cells["noise_level"] == PRIMARY)]
    alone = runs[
        (runs["example"] == EXAMPLE) & (runs["run"] == NOISY) & (runs["noise_level"] == PRIMARY)
    ]
    own = alone.set_index("draw")["p_base"]
    row: Any
    for row in drawn[0].itertuples():
        at = mine[(mine["layer"] == row.layer) & (mine["position"] == row.place)]
        changes = [p - own[draw] for p, draw in zip(at["p_base"], at["draw"], strict=True)]
        assert len(changes) == DRAWS
        value = sum(changes) / DRAWS
        assert row.value == pytest.approx(value)


def drawn_journal(story: Story) -> Iterator[tuple[str, float, Figure]]:
    for one in journal_figures(story):
        for width in WIDTHS.values():
            plot = one.draw(width)
            yield one.name, width, figure_of(plot)


def test_journal_figures_of_every_kind_fit_their_column(story: Story) -> None:
    names = set()
    for name, width, figure in drawn_journal(story):
        names.add(name)
        assert figure.get_figwidth() == pytest.approx(width)
        closed(figure)
    assert {
        f"pictures_{REGIONS}_{EXAMPLE}", f"heads_{CROSS}_{EXAMPLE}", f"roles_windows_{MLP}",
        f"parts_side_by_side_{EXAMPLE}",
    } <= names  # fmt: skip


def test_a_sum_beyond_the_scale_is_drawn_at_its_end(story: Story) -> None:
    group = average(story, f"Windows, {MLP}")
    (one,) = group.maps
    far = replace(one.beside[0], cells=one.beside[0].cells.assign(value=3.0))
    plot = change_maps(replace(group, maps=(replace(one, beside=(far,)),)), WIDTHS["two_columns"])
    assert isinstance(plot, ggplot)
    figure = plot.draw()
    colours = {
        to_hex(colour)
        for axes in figure.axes[1:2]
        for tiles in axes.collections
        for colour in tiles.get_facecolor()
    }
    assert colours == {fill(1.0)}
    plt.close(figure)


# ---- files, document, tables -------------------------------------------------------------------


def test_figures_are_named_by_kind_site_and_example() -> None:
    asked = {one.name: one for one in made_up_experiments(ends=ENDS, settings=SETTINGS)}
    assert figure_names(asked["pictures"], "x") == [f"overlay_{REGIONS}_x"]
    assert figure_names(asked["noisy_pictures"], "x") == [
        "means_vision.mlp_x", "overlay_vision.mlp_x",
    ]  # fmt: skip
    assert figure_names(asked["parts"], "x") == [
        "components_x", *(f"answers_{site}_x" for site in (STREAM, ATTENTION, MLP, ANSWER)),
    ]  # fmt: skip
    assert figure_names(asked["heads"], "x") == [
        f"answers_{CROSS}_x", "answers_vision.self_attention_heads_x",
    ]  # fmt: skip


def test_the_document_draws_regions_and_rows_and_numbers_every_figure(
    story: Story, tmp_path: Path
) -> None:
    pypdf = pytest.importorskip("pypdf", reason="pypdf, which reads PDFs, is not installed")
    write_document(story, REPORT / "story.typ", tmp_path / "story.pdf")
    pages = pypdf.PdfReader(io.BytesIO((tmp_path / "story.pdf").read_bytes())).pages
    text = "\n".join(page.extract_text() for page in pages)
    for group in story.examples[0].maps:
        assert "".join(f"{group.title}.{group.caption}".split()) in "".join(text.split())
    # A panel a layer of each level of both experiments, of which the strip shows the first.
    levels = sum(
        not one.idle for group in story.examples[0].maps if group.regions for one in group.maps
    )
    assert len(re.findall(r"layer 2\b", text)) >= levels
    assert "source picture" in text
    assert "head 0" in text


def test_the_latex_table_has_a_column_of_heads_only_where_there_are_some(
    run: Run, tmp_path: Path
) -> None:
    text = role_effects_table(run.tables["summary"])
    assert "Layer & Head & Role" in text
    none = run.tables["summary"].query("head.isna()").drop(columns="head")
    assert "Layer & Role" in role_effects_table(none)
    assert MARK not in text


def test_a_mark_adds_no_facet_where_a_title_breaks_into_lines(story: Story) -> None:
    group = average(story, f"Noisy heads, {CROSS}")
    assert any(one.cells["marked"].any() for one in group.maps)
    plot = change_maps(group, WIDTHS["one_column"])
    assert isinstance(plot, ggplot)
    figure = plot.draw()
    assert len(figure.axes) == len(group.maps[1].with_beside()) == 2
    plt.close(figure)


def test_families_of_single_roles_have_no_map_of_their_own(run: Run, story: Story) -> None:
    """Theirs stands beside that of all positions, whose family has the role "all"."""
    families = run.tables["families"]
    of_heads = families["site"] == CROSS
    all_roles = pd.concat(
        [families.assign(token_role=np.where(of_heads, "all", "")),
         families[of_heads].assign(token_role=DIFFERING, primary=False, marked=0)],
        ignore_index=True,
    )  # fmt: skip
    told = tell(replace(run, tables={**run.tables, "families": all_roles}))
    for before, after in zip(story.averages, told.averages, strict=True):
        assert (before.title, before.marks) == (after.title, after.marks)
        assert [one.name for one in before.all_maps] == [one.name for one in after.all_maps]
