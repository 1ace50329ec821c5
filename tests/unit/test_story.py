"""The story: every section says what the tables say; its page needs nothing but itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from jinja2 import Environment, FileSystemLoader
from jinja2.meta import find_referenced_templates
from stories import (
    CONFIG,
    FACTS,
    LAYERS,
    NOISE_LEVELS,
    SHOWN,
    SITES,
    TEMPLATE,
    links_of,
    made_up_run,
    scored_by_all,
    with_experiments,
    write_page,
)
from synthetic_tables import ASKED, DIFFERING, NOISY, ROLES, Asked
from tell_story import addresses

from blip_tracing.machinery.tables import read_table, write_table
from blip_tracing.printing.page import STEPS, controls_table, lines_of, means_table, page_of
from blip_tracing.telling.findings import counts_words
from blip_tracing.telling.finished_run import count_controls, stage_of
from blip_tracing.telling.maps import student_interval
from blip_tracing.telling.story import tell
from blip_tracing.telling.told import CELLS, MARK, OWN_MARK, Map, MapGroup, Run, Story
from blip_tracing.telling.words import with_interval
from blip_tracing.vocabulary.metrics import METRICS
from blip_tracing.vocabulary.tables import CEILING, NO_OP, SMALL_EFFECT, UNRELATED

EXAMPLE = "ball_kite"
INPUT, OUTPUT = SITES
PRIMARY = NOISE_LEVELS[1]
# Enough pictures to be tested.
MANY = {
    f"example_{number}": Asked(
        f"what is the color of the animal number {number}",
        f"what is the color of the shirt number {number}", "brown", "red",
    )
    for number in range(8)
}  # fmt: skip


@dataclass
class ShownCell:
    """A cell of a map as it stands in the page; None in place of a title where there is none."""

    title: str | None
    colour: str | None
    text: str = ""


@dataclass
class ShownMap:
    """A map as it stands in the page, row by row, and the numbers of its layers."""

    rows: list[list[ShownCell]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)


class Reader(HTMLParser):
    """Collects what a page loads and links to, its ids, its text and scripts, and its maps."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.scripts = ""
        self.styles = ""
        self.tags: set[str] = set()
        self.maps: dict[str, ShownMap] = {}
        self.inside = ""
        self.map: ShownMap | None = None
        # Of a map: its foot, or the kind of cell that was met last.
        self.part = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.inside = tag
        self.tags.add(tag)
        self.ids += [given["id"] or ""] if "id" in given else []
        for name in ("src", "srcset", "data", "href", "action"):
            if name in given:
                target = self.links if tag == "a" else self.loads
                target.append(given[name] or "")
        if given.get("class") == "map":
            self.map = self.maps[given["id"] or ""] = ShownMap()
        elif tag == "tfoot":
            self.part = tag
        elif self.map and tag == "th":
            self.part = given["scope"] or ""
            if self.part == "row":
                self.map.labels.append("")
                self.map.rows.append([])
            else:
                self.map.layers.append("")
        elif self.map and tag == "td" and self.part != "tfoot":
            self.part = tag
            self.map.rows[-1].append(ShownCell(given.get("title"), given.get("class")))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""
        if tag == "table":
            self.map, self.part = None, ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts += data
        elif self.inside == "style":
            self.styles += data
        elif data.strip():
            self.texts.append(" ".join(data.split()))
        if self.map and self.part == "row":
            self.map.labels[-1] += data
        elif self.map and self.part == "col":
            self.map.layers[-1] += data.strip()
        elif self.map and self.part == "td":
            self.map.rows[-1][-1].text += data.strip()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made_up_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of enough pictures."""
    return made_up_run(tmp_path_factory.mktemp("tested"), asked=MANY, shown=list(MANY)[:2])


@pytest.fixture(scope="module")
def story(run: Run) -> Story:
    return tell(run)


@pytest.fixture(scope="module")
def page(run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_page(run, tmp_path_factory.mktemp("page") / "index.html")


@pytest.fixture(scope="module")
def reader(page: str) -> Reader:
    return Reader(page)


def changed(run: Run, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Run:
    """The run with one table changed."""
    return replace(run, tables={**run.tables, name: change(run.tables[name].copy())})


def without(run: Run, *experiments: str) -> Run:
    """The run without sites of these experiments."""
    return replace(run, config=with_experiments(CONFIG, **dict.fromkeys(experiments, ())))


def group_of(groups: tuple[MapGroup, ...], experiment: str, site: str) -> MapGroup:
    return next(group for group in groups if group.title == f"{experiment}, {site}")


def maps_of(story: Story, example: str, experiment: str, site: str) -> MapGroup:
    shown = next(shown for shown in story.examples if shown.pair.example == example)
    return group_of(shown.maps, experiment, site)


def all_maps(story: Story) -> list[Map]:
    return [one for group in all_groups(story) for one in group.maps]


def all_groups(story: Story) -> list[MapGroup]:
    """Those of the strip, of averages and of examples."""
    strip = [story.strip.map] if story.strip else []
    return [*strip, *story.averages, *(group for shown in story.examples for group in shown.maps)]


def finding(run: Run, beginning: str) -> str:
    """The findings that begin so, as one text."""
    return " ".join(text for text in tell(run).findings if text.startswith(beginning))


def with_families(run: Run, **columns: Any) -> Run:
    return changed(run, "families", lambda families: families.assign(**columns))


# ---- what was asked ----------------------------------------------------------------------------


def test_the_facts_say_what_was_asked(story: Story) -> None:
    assert dict(story.facts.itertuples(index=False)) == {
        "model": "a-lab/blip",
        "commit": FACTS["commit"],
        "weights": f"sha256 {FACTS['weights_sha256']}",
        "examples": "3, from config/some.tsv; the first 2 shown here",
        "patching": f"source into base, at {INPUT}, {OUTPUT}",
        "tracing": f"base into noisy, at {INPUT}, {OUTPUT}",
        "noisy: noise levels σ": "0, 0.5, 2",
        "noisy: noise draws": "6 at each level, seed 3",
        "ran on": "cpu, cuda, float32",
    }


def test_a_local_model_has_no_commit(run: Run) -> None:
    local = replace(run, provenance={"baseline": {**FACTS, "commit": ""}})
    facts = tell(local).facts.set_index("fact")["value"]
    assert facts["commit"] == "none: a local directory, known by its weights"


def test_each_example_has_its_questions_and_the_models_answers(run: Run, story: Story) -> None:
    assert [shown.pair.example for shown in story.examples] == list(SHOWN)
    shown = next(shown for shown in story.examples if shown.pair.example == EXAMPLE)
    baseline = run.tables["baseline"]
    asked = baseline[(baseline["example"] == EXAMPLE) & (baseline["question"] == "base")]
    second = asked.sort_values("rank").iloc[1]
    base, source = shown.answers.to_dict("records")
    assert (base["question"], source["question"]) == ("base", "source")
    assert (base["text"], base["answer"]) == (ASKED[EXAMPLE].base_question, "blue")
    assert (source["text"], source["answer"]) == (ASKED[EXAMPLE].source_question, "green")
    assert base["probability"] == pytest.approx(0.889)
    assert source["probability"] == pytest.approx(0.617)
    assert base["others"].startswith(f"{second['token']} {second['probability']:.3f}, ")
    assert base["others"].count(",") == 1


def test_words_that_the_tokenizer_does_not_know_are_named(tmp_path: Path) -> None:
    story = tell(made_up_run(tmp_path, unknown_words=["kite"]))
    assert [shown.unknown_words for shown in story.examples] == [(), ("kite",)]


# ---- averages ----------------------------------------------------------------------------------


def rows_of_summary(
    run: Run, experiment: str, site: str, quantity: str, level: float | None
) -> pd.DataFrame:
    """The summary's rows of one map, by role and layer."""
    summary = run.tables["summary"]
    at = summary["noise_level"].isna() if level is None else summary["noise_level"] == level
    return summary[
        (summary["experiment"] == experiment)
        & (summary["site"] == site)
        & (summary["quantity"] == quantity)
        & (summary["group"] == "all")
        & (summary["among"] == "included")
        & summary["layer"].notna()
        & at
    ].set_index(["token_role", "layer"])


def test_averages_are_the_summarys_layer_by_role(tested: Run) -> None:
    story = tell(tested)
    for experiment in ("Patching", "Tracing"):
        group = group_of(story.averages, experiment, OUTPUT)
        levels = [None] if experiment == "Patching" else list(NOISE_LEVELS)
        for one, level in zip(group.maps, levels, strict=True):
            cells = one.cells.set_index(["label", "layer"])
            assert list(one.cells["label"].unique()) == list(ROLES)
            for measure, quantity, sign in (
                ("value", "probability_change", 1),
                ("log_odds", "log_odds_change", 1),
                # The tables have base minus source, maps the followed answer minus the other.
                ("logit_difference", "logit_difference_change",
                 -1 if experiment == "Patching" else 1),
            ):  # fmt: skip
                rows = rows_of_summary(tested, experiment.lower(), OUTPUT, quantity, level)
                assert cells[measure].to_dict() == pytest.approx((sign * rows["mean"]).to_dict())
            rows = rows_of_summary(tested, experiment.lower(), OUTPUT, "probability_change", level)
            for end in ("low", "high"):
                assert cells[end].to_dict() == pytest.approx(rows[end].to_dict())


def test_each_average_says_its_floor_and_how_often_the_noise_hid_the_answer(tested: Run) -> None:
    families = tested.tables["families"].query(f"experiment == 'tracing' and site == '{INPUT}'")
    families = families.set_index("noise_level")
    for one, level in zip(group_of(tell(tested).averages, "Tracing", INPUT).maps, NOISE_LEVELS,
                          strict=True):  # fmt: skip
        family = families.loc[level]
        assert one.title == (
            f"σ = {level:g}, floor {family['reference']:.3f}, hid the answer in "
            f"{100 * family['hidden_share']:.0f} % of draws"
        )


def test_cells_of_averages_tell_contrast_and_tests(tested: Run) -> None:
    cells = group_of(tell(tested).averages, "Patching", INPUT).maps[0].cells
    cell: Any = cells.set_index(["label", "layer"]).loc[(DIFFERING, 1)]
    contrasts = rows_of_summary(tested, "patching", INPUT, "contrast", None)
    contrast: Any = contrasts.loc[(DIFFERING, 1)]
    assert cell["minus the null"] == (
        f"{contrast['mean']:+.3f} ({contrast['low']:+.3f} to {contrast['high']:+.3f})"
    )
    assert (cell["p against the floor"], cell["p against the null"]) == ("0.010", "0.005")
    assert cell["p over all levels and sites"] == "0.020"
    assert cell["examples"] == "8"


@pytest.mark.parametrize(("reason", "times"), [("the corruption hid nothing", 0), ("no null", 1)])
def test_why_a_level_is_not_tested_is_said_once(tested: Run, reason: str, times: int) -> None:
    """The line of the levels at which the noise hid nothing says so of them."""

    def untested(families: pd.DataFrame) -> pd.DataFrame:
        weak = families["noise_level"] == 0
        return families.assign(tested=~weak, reason=families["reason"].mask(weak, reason))

    for group in tell(changed(tested, "families", untested)).averages:
        if group.title.startswith("Tracing"):
            assert group.idle.count("the corruption hid nothing") == 1
            assert group.marks.count(reason) == times


def test_levels_at_which_the_noise_hid_nothing_are_folded_into_a_line(tested: Run) -> None:
    for group in tell(tested).averages:
        idle = [one.level for one in group.maps if one.idle]
        if group.title.startswith("Tracing"):
            assert idle == [0]
            assert group.idle.startswith("σ = 0: the corruption hid nothing")
        else:
            assert idle == []
            assert group.idle == ""
    shown = group_of(tell(with_families(tested, hidden_share=0.5)).averages, "Tracing", INPUT)
    assert not any(one.idle for one in shown.maps)


def test_a_sheet_too_small_for_the_test_says_so(story: Story) -> None:
    assert story.marks_caption == ""
    for group in story.averages:
        assert group.marks.startswith("No cell is marked: fewer than six pictures.")
        assert not any(one.cells["marked"].any() for one in group.maps)


def test_marks_are_the_summarys_and_both_tests_are_named(tested: Run) -> None:
    story = tell(tested)
    for group in story.averages:
        cells = pd.concat([one.cells for one in group.maps])
        marked = cells[cells["marked"]]
        assert set(zip(marked["label"], marked["layer"], strict=True)) == {
            (DIFFERING, 1), (DIFFERING, 2)
        }  # fmt: skip
        assert group.marks.startswith("2 of 15 cells are marked")
        assert (
            "With 8 pictures a mean change of 0.21 in probability is found with 80 % probability"
            in group.marks
        )
    for words in (MARK, "at least 0.02", "floor", "null", "both of two tests", "signs of the"):
        assert words in story.marks_caption


def test_a_cell_whose_outcome_is_known_is_never_marked(tested: Run) -> None:
    everything = changed(tested, "summary", lambda rows: rows.assign(marked=True, known="ceiling"))
    for group in tell(everything).averages:
        assert not any(one.cells["marked"].any() for one in group.maps)


def test_an_untrained_network_has_no_marks_and_no_claim(tested: Run, tmp_path: Path) -> None:
    """All examples are left out: nothing can be shown, and nothing is said to be."""
    empty = with_families(tested, included=0, tested=False, marked=0, reason="no example counts")
    none = changed(empty, "summary", lambda rows: rows[rows["among"] == "all"])
    none = changed(none, "turns", lambda rows: rows.assign(included=False))
    told = tell(none)
    assert told.averages == told.depths == ()
    assert MARK not in Reader(write_page(none, tmp_path / "index.html")).texts
    for title in ("Patching", "Tracing"):
        assert finding(none, title).endswith(
            "none of the 8 examples can show an effect (see what was left out), so nothing is said."
        )


def test_a_sheet_of_one_picture_has_nothing_to_test_against(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, with_null=False)
    story = tell(run)
    assert "has no unrelated example" in maps_of(story, EXAMPLE, "Tracing", INPUT).marks
    assert not any(one.cells["marked"].any() for one in all_maps(story))
    assert OWN_MARK not in story.maps_caption
    assert not any("unrelated" in text for text in story.findings)
    assert not any(line.startswith("unrelated") for curve in story.depths
                   for line in curve.lines["run"])  # fmt: skip


# ---- at a glance -------------------------------------------------------------------------------


def test_the_page_opens_with_the_first_example(run: Run, story: Story) -> None:
    assert "animal_shirt" not in story.title
    assert "3 examples" in story.lead
    assert story.strip
    assert story.strip.example is story.examples[0]
    base, source = story.strip.questions
    assert [word for word, differs in base if differs] == ["animal"]
    assert [word for word, differs in source if differs] == ["shirt"]
    (one,) = story.strip.map.maps
    same = maps_of(story, "animal_shirt", "Patching", INPUT).maps[0]
    pd.testing.assert_frame_equal(one.cells, same.cells)


def test_every_example_has_a_row_with_what_the_tables_say_of_it(run: Run, story: Story) -> None:
    assert story.overview
    assert [row.example for row in story.overview.rows] == list(ASKED)
    assert [row.shown for row in story.overview.rows] == [name in SHOWN for name in ASKED]
    runs, turns = run.tables["runs"], run.tables["turns"]
    for row in story.overview.rows:
        noisy = runs[
            (runs["example"] == row.example)
            & (runs["run"] == NOISY)
            & (runs["noise_level"] == PRIMARY)
        ]
        assert row.floor == pytest.approx(noisy["p_base"].mean())
        for effect, name in zip(row.effects, ("patching", "tracing"), strict=True):
            mine = turns[(turns["example"] == row.example) & (turns["experiment"] == name)]
            word = mine[mine["token_role"] == DIFFERING].set_index("layer")
            assert list(effect.changes) == pytest.approx(word["change"].tolist())
            deep = [layer for layer in word.index if word.loc[layer, "covered"] >= 0.5]
            assert effect.depth == max(deep, default=None)
            assert effect.null == pytest.approx(mine["null"].max())
    patched = [row.effects[0].depth for row in story.overview.rows]
    assert any(depth is not None for depth in patched)
    assert None in [row.effects[1].depth for row in story.overview.rows]


def test_turns_are_the_primary_cells_of_all_examples(tmp_path: Path) -> None:
    """By a plain loop over the table of effects."""
    run = made_up_run(tmp_path, shown=SHOWN[:1])
    effects = read_table(tmp_path / "tables/effects.csv")
    keys = ["experiment", "example", "layer", "token_role"]
    turns: Any = run.tables["turns"].set_index(keys)
    seen = 0
    for experiment, level in (("patching", None), ("tracing", PRIMARY)):
        for example in ASKED:
            for layer in range(LAYERS):
                cells = effects[
                    (effects["experiment"] == experiment)
                    & (effects["example"] == example)
                    & (effects["site"] == INPUT)
                    & (effects["layer"] == layer)
                    & (effects["token_role"] == DIFFERING)
                    & (effects["noise_level"].isna() if level is None
                       else effects["noise_level"] == level)
                ]  # fmt: skip
                told = turns.loc[(experiment, example, layer, DIFFERING)]
                assert told["change"] == pytest.approx(cells["probability_change"].max())
                total = cells["total_effect"].iloc[0]
                assert told["null_covered"] == pytest.approx(cells["null_change"].max() / total)
                seen += 1
    assert seen == 2 * len(ASKED) * LAYERS


def test_flags_say_why_an_example_is_left_out(tested: Run) -> None:
    first, second = list(MANY)[:2]
    left_out = changed(
        tested, "turns", lambda turns: turns.assign(included=turns["example"] != first)
    )
    rows = {row.example: row for row in tell(left_out).overview.rows}  # type: ignore[union-attr]
    assert rows[first].flags == (SMALL_EFFECT,)
    assert rows[second].flags == ()


def test_the_curve_by_depth_is_the_share_turned_with_the_null(tested: Run) -> None:
    for curve, (name, level) in zip(
        tell(tested).depths, (("patching", None), ("tracing", PRIMARY)), strict=True
    ):
        rows: Any = rows_of_summary(tested, name, INPUT, "turned", level)
        for role in ROLES:
            line = curve.lines[curve.lines["run"] == role].set_index("layer")
            assert line["mean"].to_dict() == pytest.approx(rows.loc[role, "mean"].to_dict())
        null = curve.lines[curve.lines["run"] == "unrelated state"]
        assert null["layer"].tolist() == list(range(LAYERS))
        assert null["mean"].tolist() == [0] * LAYERS
        # Clopper and Pearson's of none of eight.
        assert null["high"].to_numpy() == pytest.approx(1 - 0.025 ** (1 / 8), abs=0.06)
        assert null["low"].to_numpy() == pytest.approx(0, abs=1e-9)


def test_the_null_of_few_pictures_has_no_interval(tested: Run) -> None:
    of_three = {example: f"picture {number % 3}" for number, example in enumerate(MANY)}
    for curve in tell(replace(tested, units=of_three)).depths:
        null = curve.lines[curve.lines["run"] == "unrelated state"]
        assert null["mean"].tolist() == [0] * LAYERS
        assert null[["low", "high"]].isna().all(axis=None)


def test_groups_are_told_apart_only_by_their_test(tested: Run, run: Run) -> None:
    story = tell(tested)
    assert set(story.groups["group"]) == {"kind 1", "kind 2"}
    assert "mean changes differ somewhere in the map (p = 0.03)" in story.groups_caption
    alike = tell(with_families(tested, heterogeneity_p=0.4)).groups_caption
    assert "mean changes are not seen to differ (p = 0.4)" in alike
    assert "differ somewhere" not in alike
    assert "p =" not in tell(run).groups_caption


# ---- noise levels ------------------------------------------------------------------------------


def test_means_stand_beside_the_clean_run_and_the_floor(run: Run, story: Story) -> None:
    assert list(story.means["run"].unique()) == [
        "clean run",
        *(f"one {site} restored" for site in SITES),
        "nothing restored",
    ]
    runs = run.tables["runs"]
    floor = runs[runs["run"] == NOISY].groupby("noise_level")["p_base"].mean()
    shown = story.means[story.means["run"] == "nothing restored"].set_index("noise_level")
    assert shown["mean"].to_dict() == pytest.approx(floor.to_dict())
    assert story.means.loc[0, "mean"] == pytest.approx(0.889)
    assert "3 examples and 6 noise draws" in story.means_caption


def test_below_six_pictures_a_line_an_example_takes_the_intervals_place(
    run: Run, story: Story, tested: Run
) -> None:
    assert story.means["low"].isna().all()
    assert "there are no intervals: a thin line is an example" in story.means_caption
    runs = run.tables["runs"]
    alone = runs[runs["run"] == NOISY].groupby(["example", "noise_level"])["p_base"].mean()
    lines = story.floors.set_index(["example", "noise_level"])["mean"]
    assert lines.to_dict() == pytest.approx(alone.to_dict())
    enough = tell(tested)
    assert enough.floors.empty
    assert "thin line" not in enough.means_caption


def test_what_the_noise_did_stands_beside_the_means(tested: Run) -> None:
    story = tell(tested)
    table = means_table(story.means).set_index("σ")
    means = tested.tables["run_means"]
    for row in means[means["run"] == NOISY].to_dict("records"):
        told: Any = table.loc[f"{row['noise_level']:g}"]
        assert told["hid the answer"] == f"{100 * row['hidden']:.0f} %"
        assert told["third answers"] == f"{100 * row['third']:.0f} %"
        assert float(told["σ / sd"]) == pytest.approx(row["noise_in_sd"], rel=0.05)


# ---- example by example ------------------------------------------------------------------------


def test_patching_maps_are_of_changes_in_the_source_answer(run: Run, story: Story) -> None:
    group = maps_of(story, EXAMPLE, "Patching", INPUT)
    assert group.measure == "change in p(green)"
    (one,) = group.maps
    effects = run.tables["effects"]
    rows = effects[
        (effects["experiment"] == "patching")
        & (effects["example"] == EXAMPLE)
        & (effects["site"] == INPUT)
    ].set_index(["position", "layer"])
    cells = one.cells.set_index(["place", "layer"])
    assert cells["value"].to_dict() == pytest.approx(rows["probability_change"].to_dict())
    assert dict(zip(one.cells["place"], one.cells["label"], strict=True))[8] == "8 ball ← kite"
    assert cells["low"].isna().all()
    # There are no draws to test it by.
    assert not cells["marked"].any()
    assert group.marks.startswith("No cell is marked: there are no draws")
    total = rows["total_effect"].iloc[0]
    assert one.title == f"floor 0.006, total effect +{total:.3f}"


def test_tracing_maps_are_of_changes_by_noise_level(run: Run, story: Story) -> None:
    group = maps_of(story, EXAMPLE, "Tracing", OUTPUT)
    assert group.measure == "change in p(blue)"
    assert [one.title.split(",")[0] for one in group.maps] == ["σ = 0", "σ = 0.5", "σ = 2"]
    effects = run.tables["effects"]
    for one, level in zip(group.maps, NOISE_LEVELS, strict=True):
        rows = effects[
            (effects["experiment"] == "tracing")
            & (effects["example"] == EXAMPLE)
            & (effects["site"] == OUTPUT)
            & (effects["noise_level"] == level)
        ].set_index(["position", "layer"])
        cells = one.cells.set_index(["place", "layer"])
        assert cells["value"].to_dict() == pytest.approx(rows["probability_change"].to_dict())
        assert cells.loc[(8, 0), "label"] == "8 ball"
        assert cells["marked"].to_dict() == rows["marked"].to_dict()
        runs = run.tables["runs"]
        floor = runs[
            (runs["run"] == NOISY) & (runs["example"] == EXAMPLE) & (runs["noise_level"] == level)
        ]["p_base"].mean()
        assert f"floor {floor:.3f}" in one.title
        assert (cells["low"] <= cells["value"]).all()
        assert (cells["value"] <= cells["high"]).all()


def test_of_one_draw_there_is_no_interval(tmp_path: Path) -> None:
    story = tell(made_up_run(tmp_path, draws=1))
    assert maps_of(story, EXAMPLE, "Tracing", INPUT).maps[0].cells["low"].isna().all()


def test_the_scale_of_colours_holds_every_value(story: Story) -> None:
    """And is one for all maps of the page."""
    assert len({tuple(group.limits.items()) for group in all_groups(story)}) == 1
    for group in all_groups(story):
        for measure, limit in group.limits.items():
            assert all((one.cells[measure].abs() <= limit).all() for one in group.maps)


def test_marks_of_an_example_look_unlike_those_of_averages(run: Run) -> None:
    story = tell(changed(run, "effects", lambda effects: effects.assign(marked=True)))
    assert {group.mark for group in story.averages} == {MARK}
    assert {group.mark for shown in story.examples for group in shown.maps} == {OWN_MARK}
    assert OWN_MARK != MARK
    assert f"{OWN_MARK} marks cells that stand out over the draws" in story.maps_caption


def test_an_examples_interval_is_students_over_its_draws() -> None:
    draws = pd.DataFrame({"cell": [0.1, 0.3, 0.2, 0.5]})
    from scipy import stats

    ends = stats.t.interval(0.95, len(draws) - 1, draws["cell"].mean(), stats.sem(draws["cell"]))
    interval = student_interval(draws).loc["cell"]
    assert (interval["low"], interval["high"]) == pytest.approx(ends)
    assert student_interval(draws.iloc[:1]).isna().all(axis=None)


def test_every_map_has_its_own_name(story: Story) -> None:
    names = [one.name for one in all_maps(story)]
    maps = (len(SHOWN) + 1) * len(SITES) * (1 + len(NOISE_LEVELS))
    assert len(set(names)) == len(names) == maps + 1
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)


def test_a_run_that_corrupts_nothing_is_told_from_tables_without_noise_levels(tested: Run) -> None:
    kept = {
        name: table[table["experiment"] == "patching"] if "experiment" in table else table
        for name, table in tested.tables.items()
        if name != "tracing"
    }
    runs = kept["runs"][kept["runs"]["run"].isin(["base", "source"])]
    kept["runs"] = runs.drop(columns=["noise_level", "draw"])
    config = {**with_experiments(tested.config, tracing=()), "runs": {}}
    story = tell(replace(tested, tables=kept, config=config))
    assert [group.title for group in story.examples[0].maps] == [
        group.title for group in tell(tested).examples[0].maps if "Tracing" not in group.title
    ]
    assert story.means.empty


def test_only_the_first_examples_are_told_one_by_one(story: Story, tmp_path: Path) -> None:
    assert story.examples_caption.startswith("The first 2 of 3 examples")
    everything = tell(made_up_run(tmp_path, shown=list(ASKED)))
    assert len(everything.examples) == 3
    assert everything.examples_caption == ""
    assert "3, from config/some.tsv" in set(everything.facts["value"])


# ---- trust -------------------------------------------------------------------------------------


def test_verdicts_are_told_in_words(story: Story) -> None:
    assert story.verdicts is not None
    assert list(story.verdicts.columns) == [
        "quantity", "compared", "agree", "expected", "correlation", "shift", "power", "verdict",
        "where",
    ]  # fmt: skip
    assert story.verdicts["quantity"][0] == "logits of the most probable first tokens"
    assert (
        "Of 2 published quantities that were judged 1 agrees with this run, 1 differs, and of 0 it "
        "cannot be told." in story.findings
    )


def test_without_published_figures_there_are_no_verdicts(run: Run) -> None:
    tables = {name: table for name, table in run.tables.items() if name != "verdicts"}
    story = tell(replace(run, tables=tables))
    assert story.verdicts is None
    assert not any("published" in finding for finding in story.findings)


def test_controls_are_counted_with_their_largest_difference(story: Story) -> None:
    counted: Any = story.controls.set_index(["experiment", "control"])[["checked", "largest"]]
    runs = len(ASKED) * len(SITES) * LAYERS
    assert counted.loc[("patching", CEILING)].tolist() == [runs, 2e-7]
    assert counted.loc[("patching", NO_OP)].tolist() == [runs, 0]
    assert counted.loc[("tracing", CEILING)].tolist() == [runs * len(NOISE_LEVELS), 2e-7]
    assert np.isnan(counted.loc[("tracing", UNRELATED), "largest"])
    known = 2 * runs * (1 + len(NOISE_LEVELS))
    assert (
        f"All {known} checks whose outcome is known passed (largest error in probability 2 × 10⁻⁷)."
        in story.findings
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_controls_are_counted_from_either_format(tmp_path: Path, suffix: str) -> None:
    table = pd.DataFrame(
        {
            "experiment": "patching",
            "control": [UNRELATED, UNRELATED, NO_OP, NO_OP],
            "difference": [np.nan, np.nan, 3e-8, 1e-8],
            "tolerance": [np.nan, np.nan, 1e-6, 1e-6],
            "effect": [np.nan, np.nan, 9e-6, 0.2],
        }
    )
    write_table(table, tmp_path / f"controls.{suffix}")
    counted: Any = count_controls(tmp_path / f"controls.{suffix}").set_index("control")
    assert counted["checked"].to_dict() == {UNRELATED: 2, "no_op": 2}
    assert counted.loc["no_op", "largest"] == pytest.approx(3e-8)
    assert np.isnan(counted.loc[UNRELATED, "largest"])
    # Nine tolerances were at stake in one run, which could not tell a fault from rounding.
    assert counted.loc["no_op", "idle"] == 1
    assert counted.loc["no_op", "effect"] == pytest.approx((9e-6 + 0.2) / 2)
    assert pd.isna(counted.loc[UNRELATED, "idle"])


def with_idle_controls(run: Run, idle: Sequence[int]) -> Run:
    """The run, so many of each known control's runs idle."""
    controls = run.tables["controls"].copy()
    controls.loc[controls["largest"].notna(), "idle"] = idle
    return replace(run, tables={**run.tables, "controls": controls})


def test_nothing_is_claimed_of_controls_that_could_not_fail(run: Run) -> None:
    known = run.tables["controls"].dropna(subset="largest")
    checked = int(known["checked"].sum())
    (told,) = [text for text in tell(with_idle_controls(run, [3, 0, 2, 0])).findings
               if "checks" in text]  # fmt: skip
    assert told == (
        f"All {checked - 5} checks that could have failed passed (largest error in probability "
        "2 × 10⁻⁷); 5 more could not have failed here and vouch for nothing."
    )
    (told,) = [text for text in tell(with_idle_controls(run, known["checked"].tolist())).findings
               if "checks" in text]  # fmt: skip
    assert told.startswith(f"None of the {checked} checks whose outcome is known could have failed")
    assert "passed" not in told


def test_the_page_says_how_many_controls_could_not_fail(run: Run) -> None:
    table = controls_table(tell(with_idle_controls(run, [3, 0, 2, 0])).controls)
    known = table["largest difference"] != ""
    assert table.loc[known, "could not fail"].tolist() == ["3", "0", "2", "0"]
    assert set(table.loc[known, "effect"]) == {"0.4"}
    assert set(table.loc[~known, "could not fail"]) == {""}


def test_what_was_left_out_is_counted_by_reason(run: Run, story: Story) -> None:
    rows = int(run.tables["excluded"]["rows"].sum())
    assert story.excluded.to_dict("records") == [
        {
            "experiment": "tracing",
            "reason": SMALL_EFFECT,
            "examples": 1,
            "by level": "0: 1; 0.5: 1; 2: 1",
            "rows": rows,
        }
    ]
    assert "at least 0.05" in story.excluded_caption
    nothing = changed(run, "excluded", lambda table: table.iloc[:0])
    assert tell(nothing).excluded_caption == "Nothing was left out."


# ---- findings, and how to run it again ---------------------------------------------------------


def test_patching_leads_with_the_share_turned_at_the_differing_word(tested: Run) -> None:
    effects = read_turned(tested, "patching")
    turned = {
        layer: sum(covered[layer] >= 0.5 for covered in effects.values()) for layer in range(LAYERS)
    }
    told = tell(tested).findings[0]
    assert told.startswith(f"Patching, {INPUT}: replacing the one state at the “{DIFFERING}” turns")
    # The block's input at layer 0 is the question itself.
    assert (
        f"in {turned[0]} of 8 examples at layer 0 (there it must: it is asking the other question)"
    ) in told
    numbers = re.findall(r"(\d+|none) (?:of 8 examples )?at layer", told)
    assert [0 if number == "none" else int(number) for number in numbers] == list(turned.values())


def read_turned(run: Run, experiment: str) -> dict[str, dict[int, float]]:
    """Example → layer → the share of the total effect covered at the differing word."""
    turns = run.tables["turns"]
    rows = turns[(turns["experiment"] == experiment) & (turns["token_role"] == DIFFERING)]
    return {
        str(example): dict(zip(part["layer"], part["covered"], strict=True))
        for example, part in rows.groupby("example")
    }


@pytest.mark.parametrize(
    ("counts", "notes", "words"),
    [
        ({0: 12, 1: 9, 2: 0, 3: 0, 4: 0}, {0: " (known)"},
         "12 of 12 examples at layer 0 (known), 9 at layer 1, none at layers 2 to 4"),
        ({0: 0, 1: 0}, {}, "0 of 12 examples at layers 0 and 1"),
        ({0: 12, 1: 12}, {0: "!"}, "12 of 12 examples at layer 0!, 12 at layer 1"),
    ],
)  # fmt: skip
def test_layers_of_one_count_are_said_together(
    counts: dict[int, int], notes: dict[int, str], words: str
) -> None:
    assert counts_words(counts, notes, 12) == words


def test_a_site_that_asks_no_other_question_is_not_said_to(tested: Run) -> None:
    """The block's output at layer 0 is a finding like any other."""
    families = tested.tables["families"]
    primary = (families["site"] == OUTPUT) & (families["experiment"] == "patching")
    others = families["primary"] & (families["experiment"] != "patching")
    run = with_families(tested, primary=primary | others)
    assert finding(run, f"Patching, {OUTPUT}")
    assert "it is asking the other question" not in " ".join(tell(run).findings)


def test_the_cells_that_cannot_be_told_from_the_best_are_named_together(tested: Run) -> None:
    told = finding(tested, f"Tracing, {INPUT} at σ = {PRIMARY:g}")
    assert "of 15 tested cells 2 stand out from both the floor and an unrelated example's" in told
    assert "(2 of them also over all levels and sites)" in told
    assert f"most at “{DIFFERING}” in layers 1 and 2" in told
    assert "together they held the largest effect in 98 % of resamples" in told
    assert "(p = 0.010; over all levels and sites p = 0.020)" in told

    def alone(summary: pd.DataFrame) -> pd.DataFrame:
        chosen = np.where(summary["chosen"] > 0.5, 0.97, summary["chosen"] / 10)
        return summary.assign(chosen=chosen)

    told = finding(changed(tested, "summary", alone), "Tracing")
    assert f"most at “{DIFFERING}” in layer 1:" in told
    assert "cannot be told from one another" not in told


def test_a_small_p_is_not_said_to_equal(tested: Run) -> None:
    def tiny(summary: pd.DataFrame) -> pd.DataFrame:
        return summary.assign(p_family=summary["p_family"] / 100, p_study=np.nan)

    told = finding(changed(tested, "summary", tiny), "Tracing")
    assert "(p < 0.001; over all levels and sites p = not known)" in told


def test_a_known_or_an_unmarked_cell_is_never_the_finding(tested: Run) -> None:
    def unmarked(summary: pd.DataFrame) -> pd.DataFrame:
        return summary.assign(marked=False)

    told = finding(changed(tested, "summary", unmarked), "Tracing")
    assert "none of 15 cells stands out" in told
    assert "a mean change of 0.21 would have been found with 80 % probability" in told
    assert "most at" not in told

    def known(summary: pd.DataFrame) -> pd.DataFrame:
        return summary.assign(known=np.where(summary["layer"] == 1, "no_op", summary["known"]))

    told = finding(changed(tested, "summary", known), "Tracing")
    assert f"“{DIFFERING}” in layer 2" in told
    assert "layer 1" not in told


def test_below_six_pictures_findings_describe_and_say_so(run: Run, story: Story) -> None:
    patched, _, traced, *_ = story.findings
    assert "This describes 3 pictures; a test needs 6 at least." in patched
    assert "not tested (only 3 pictures; a test needs 6)" in traced
    assert traced.endswith("a description, which says nothing of other examples.")
    changes = rows_of_summary(run, "tracing", INPUT, "probability_change", PRIMARY)
    assert f"{changes['mean'].max():+.3f}" in traced
    assert not re.search("stand out|resamples|p =", " ".join(story.findings))


def test_where_all_is_known_beforehand_nothing_is_described(run: Run) -> None:
    """As where all positions of a stream are put in together."""

    def known(summary: pd.DataFrame) -> pd.DataFrame:
        return summary.assign(known=CEILING)

    told = finding(changed(run, "summary", known), "Tracing")
    assert told.endswith("not tested: what each of its cells does is known beforehand.")


@pytest.mark.parametrize("reason", ["the corruption hid nothing", "another reason"])
def test_a_family_that_is_not_tested_claims_nothing(tested: Run, reason: str) -> None:
    told = finding(with_families(tested, tested=False, reason=reason), "Tracing")
    assert told == f"Tracing, {INPUT} at σ = {PRIMARY:g}: not tested ({reason}), and nothing is " \
                   "claimed."  # fmt: skip


def test_exceeded_negative_controls_are_said_and_nothing_is_marked(tested: Run) -> None:
    reason = "marks on negative controls"
    run = with_families(tested, tested=False, reason=reason, marked=0)
    run = changed(run, "summary", lambda rows: rows.assign(marked=False))
    run = changed(run, "negatives", lambda rows: rows.assign(false_marks=5, exceeded=True))
    told = tell(run)
    assert "therefore nothing is marked and nothing claimed" in finding(run, "Tracing")
    assert "Exceeded in patching, tracing: nothing is marked there." in told.negatives_caption
    assert not any(one.cells["marked"].any() for group in told.averages for one in group.maps)
    kept = tell(tested)
    assert "0 of 120 cells" in kept.negatives_caption
    assert "Exceeded" not in kept.negatives_caption


def test_the_noise_is_said_to_do_what_it_did(run: Run) -> None:
    means = run.tables["run_means"]
    row = means[(means["run"] == NOISY) & (means["noise_level"] == PRIMARY)].iloc[0]
    told = finding(run, "With noise of σ = 0.5 (0.51 standard deviations")
    assert f"falls from 0.889 to {row['mean']:.3f}" in told
    assert f"in {100 * (1 - row['hidden']):.0f} % of draws it did not fall below half" in told
    assert f"{100 * row['third']:.0f} % of all probability lies on answers to neither" in told
    assert "With the picture and no question it is 0.200." in told
    nothing = changed(run, "run_means", lambda rows: rows.assign(hidden=0.0, mean=0.889))
    told = finding(nothing, "With noise")
    assert "falls" not in told
    assert "the corruption hid nothing" in told
    bare = changed(run, "run_means", lambda rows: rows[rows["run"] != "picture_only"])
    assert "no question" not in finding(bare, "With noise")


def test_an_unrelated_state_that_turns_the_answer_is_among_the_findings(tested: Run) -> None:
    assert not any("also turns" in text for text in tell(tested).findings)
    names = list(MANY)[:3]

    def turning(turns: pd.DataFrame) -> pd.DataFrame:
        some = turns["example"].isin(names) & (turns["layer"] == 0)
        return turns.assign(null_covered=turns["null_covered"].mask(some, 0.9))

    told = " ".join(tell(changed(tested, "turns", turning)).findings)
    assert "an unrelated example's state (the null) also turns the answer" in told
    assert "in 3 of 8 examples" in told


def test_no_finding_speaks_of_more_than_sufficiency(tested: Run, run: Run) -> None:
    for told in (tell(tested), tell(run)):
        words = " ".join([*told.findings, *told.methods, told.lead, told.maps_caption])
        assert not re.search("carries what|hides the question|decided|needs what", words)
        assert "sufficiency" in words


def test_the_command_names_the_configuration(run: Run, story: Story) -> None:
    assert story.command == "snakemake --cores all --configfile 'config/my study.yaml'"
    assert tell(replace(run, config_files=[])).command == "snakemake --cores all"
    overridden = replace(
        run, overrides={"examples": "config/my own.tsv", "report": {"examples": 1}}
    )
    assert tell(overridden).command == (
        f"{story.command} --config 'examples=config/my own.tsv' 'report={{\"examples\": 1}}'"
    )
    assert yaml.safe_load(story.config) == CONFIG
    # Defaults that experiments share are written for each.
    assert not re.search(r"[&*]id\d", story.config)


def test_versions_met_on_several_machines_are_all_named(run: Run) -> None:
    packages = [FACTS["packages"], {**FACTS["packages"], "torch": "2.9.1"}]
    other = {**FACTS, "python": ["3.11.9", "3.12.1"], "packages": packages}
    versions = tell(replace(run, provenance={"baseline": FACTS, "tracing": other})).versions
    assert dict(versions.itertuples(index=False)) == {
        "python": "3.11.9, 3.12.1",
        "torch": "2.9.0, 2.9.1",
        "pyvene": "0.1.8",
    }


@pytest.mark.parametrize("absent", ["patching", "tracing"])
def test_an_experiment_that_was_not_made_is_not_told(run: Run, tmp_path: Path, absent: str) -> None:
    other = {"patching": "Tracing", "tracing": "Patching"}[absent]
    tables = {name: table for name, table in run.tables.items() if name != absent}
    for name in ("effects", "summary", "families", "turns", "negatives"):
        tables[name] = tables[name][tables[name]["experiment"] != absent]
    story = tell(replace(without(run, absent), tables=tables))
    assert {group.title.split(",")[0] for group in all_groups(story)} == {other}
    assert len(story.methods) == 1
    assert story.means.empty == (absent == "tracing")


def test_a_run_of_answers_alone_is_told(run: Run, tmp_path: Path) -> None:
    tables = {name: run.tables[name] for name in ("baseline", "runs", "tokens")}
    bare = replace(without(run, *CONFIG["experiments"]), tables=tables)
    story = tell(bare)
    assert story.findings == ()
    assert [len(shown.answers) for shown in story.examples] == [2, 2]
    sections = Reader(write_page(bare, tmp_path / "index.html")).ids
    assert {"examples", "asked", "again", "files"} <= set(sections)
    assert not {"overview", "averages", "noise", "trust", "findings"} & set(sections)


# ---- the page ----------------------------------------------------------------------------------


def test_every_section_is_there(reader: Reader) -> None:
    sections = ["findings", "overview", "averages", "noise", "replication", "examples", "trust",
                "asked", "again", "files"]  # fmt: skip
    assert [name for name in reader.ids if name in sections] == sections
    assert [link for link in reader.links if link.startswith("#")][: len(sections)] == [
        f"#{name}" for name in sections
    ]
    assert len(set(reader.ids)) == len(reader.ids)


def test_the_page_loads_nothing(reader: Reader) -> None:
    assert reader.loads
    assert all(address.startswith("data:image/jpeg;base64,") for address in reader.loads)
    fonts = re.findall(r"url\(\"?([^)]{12})", reader.styles)
    assert len(fonts) == 3
    assert all(address.startswith("data:font/wo") for address in fonts)
    assert "@import" not in reader.styles


def test_links_lead_to_tables_notebooks_and_figures(reader: Reader) -> None:
    leading_out = [link for link in reader.links if not link.startswith("#")]
    assert leading_out == [
        *(f"figures/baseline_{name}.pdf" for name in SHOWN),
        "patching.html",
        "patching.ipynb",
        "../results/tables/patching.csv",
    ]


def test_links_count_from_the_page() -> None:
    paths = ["results/tables/patching.csv", "reports/figures/a.pdf"]
    assert addresses(paths, "reports/index.html") == {
        "patching.csv": "../results/tables/patching.csv",
        "a.pdf": "figures/a.pdf",
    }
    assert stage_of("results/tables/tracing.provenance.json") == "tracing"


def test_the_page_says_what_the_story_says(story: Story, reader: Reader) -> None:
    text = "\n".join(reader.texts)
    sentences = [
        *story.findings,
        *story.methods,
        story.means_caption,
        story.maps_caption,
        story.excluded_caption,
        story.controls_caption,
        story.verdicts_caption,
        story.command,
        *story.facts["value"],
        *story.versions["version"],
        *(f"{group.caption} {group.marks}" for group in story.averages),
        story.lead,
        *(curve.caption for curve in story.depths),
        story.groups_caption,
        story.able_caption,
    ]
    assert [sentence for sentence in sentences if sentence not in text] == []
    for row in story.means.itertuples():
        assert f"{row.mean:.3f}" in text


def test_every_map_of_the_story_is_there_with_its_cells(story: Story, reader: Reader) -> None:
    assert set(reader.maps) == {one.name for one in all_maps(story)}
    group = maps_of(story, EXAMPLE, "Tracing", OUTPUT)
    one = group.maps[1]
    shown = reader.maps[one.name]
    assert shown.layers == [str(layer) for layer in range(LAYERS)]
    assert shown.labels == list(one.cells.drop_duplicates("place")["label"])
    assert shown.labels[8] == "8 ball"
    for cell in one.cells.to_dict("records"):
        there = shown.rows[cell["place"]][cell["layer"]]
        numbers = [f"{cell[name]:+.3f}".replace("-", "−") for name in ("value", "low", "high")]
        value, null, *hidden = (there.title or "").split("\n")
        assert value == "{} ({} to {})".format(*numbers).replace("+0.000", "0.000")
        assert null == f"null: {cell['null']}"
        where = "hidden"
        assert hidden == ([f"{where}: {cell[where]}"] if cell[where] else [])
        assert there.text.endswith(OWN_MARK) == cell["marked"]
        number = float(there.text.removesuffix(OWN_MARK).replace("−", "-"))
        assert number == pytest.approx(cell["value"], abs=0.005)
        step = round(STEPS * cell["value"] / group.limit)
        colour = f"{'gain' if step > 0 else 'loss'}{abs(step)}" if step else None
        assert there.colour == colour


def test_a_row_may_lack_cells_of_some_layers(run: Run, tmp_path: Path) -> None:
    def with_a_gap(summary: pd.DataFrame) -> pd.DataFrame:
        return summary[(summary["token_role"] != DIFFERING) | (summary["layer"] != 1)]

    page = write_page(changed(run, "summary", with_a_gap), tmp_path / "index.html")
    noun = Reader(page).maps[f"average-patching-{INPUT}"].rows[2]
    assert [cell.title is None for cell in noun] == [False, True, False]
    assert noun[1].text == ""


def test_nothing_in_the_page_waits_for_a_script(page: str, reader: Reader) -> None:
    assert "noscript" not in reader.tags
    assert len(reader.scripts.encode()) < 15_000
    assert page.index("<script>") > page.index("</main>")


def test_a_change_to_any_file_of_the_page_makes_it_again() -> None:
    folder = TEMPLATE.parent
    environment = Environment(loader=FileSystemLoader(folder))
    pending, files = [TEMPLATE.name], set()
    while pending:
        files.add(name := pending.pop())
        parsed = environment.parse((folder / name).read_text())
        pending += [other for other in find_referenced_templates(parsed) if other]
    assert len(files) > 1
    rule = (folder.parent / "rules/story.smk").read_text()
    assert [name for name in files if name not in rule] == []


@pytest.mark.parametrize("sites", [1, 3, 8])
def test_any_number_of_sites_has_lines_that_differ(sites: int) -> None:
    names = [f"one site_{number} restored" for number in range(sites)]
    noisy = [(name, level, 0.5) for name in [*names, "nothing restored"] for level in NOISE_LEVELS]
    means = pd.DataFrame(
        [("clean run", np.nan, 0.9), *noisy], columns=["run", "noise_level", "mean"]
    ).assign(low=np.nan, high=np.nan)
    lines = list(lines_of(means, "noise_level"))
    assert [line.run for line in lines] == ["clean run", *names, "nothing restored"]
    assert len({(line.color, line.dash, line.shape) for line in lines}) == sites + 2
    assert all(len(line.points) == len(NOISE_LEVELS) for line in lines)
    for level in range(len(NOISE_LEVELS)):
        places = [line.points[level].x for line in lines[1:]]
        assert len(set(places)) == len(places)
        # Nearer to their own level than to the next.
        assert all(level < len(NOISE_LEVELS) * place / 100 < level + 1 for place in places)


def test_the_chart_tells_every_mean(story: Story, page: str) -> None:
    for row in story.means.dropna(subset="noise_level").itertuples():
        told = f"{row.mean:.3f}"
        assert f'title="{row.run}, σ = {row.noise_level:g}&#10;{told}"' in page


def test_three_sites_are_told_as_two_are(tmp_path: Path) -> None:
    sites = [INPUT, OUTPUT, "encoder.mlp"]
    run = made_up_run(tmp_path, sites=sites)
    shown = Reader(write_page(run, tmp_path / "index.html"))
    for experiment in ("patching", "tracing"):
        names = [name for name in shown.maps if not name.startswith("strip")]
        of_each = [sum(f"-{experiment}-{site}" in name for name in names) for site in sites]
        assert of_each[0] > 0
        assert len(set(of_each)) == 1


def test_the_same_tables_give_the_same_page(run: Run, page: str, tmp_path: Path) -> None:
    assert write_page(run, tmp_path / "again.html") == page


def test_no_word_can_become_markup(tmp_path: Path) -> None:
    hostile = "</script><b>x</b>&amp;"
    asked = {"odd": Asked(f"what {hostile}", f"who {hostile}", hostile, "red")}
    run = made_up_run(tmp_path, shown=["odd"], asked=asked)
    page = write_page(run, tmp_path / "index.html")
    reader = Reader(page)
    assert "<b>x" not in page
    assert reader.scripts.count("</script>") == 0
    assert any(hostile in text for text in reader.texts)
    one = reader.maps[f"example-odd-patching-{INPUT}"]
    assert one.labels[2] == f"2 {hostile}"


def test_a_page_of_twelve_examples_at_full_size_stays_light(tmp_path: Path) -> None:
    words = " ".join(f"word{number}" for number in range(9))
    asked = {
        f"example_{number}": Asked(f"{words} animal", f"{words} shirt", "brown", "red")
        for number in range(12)
    }
    run = made_up_run(tmp_path, shown=list(asked), asked=asked, layers=12, draws=2,
                      noise_levels=(0.1, 0.5, 1, 2, 5, 10, 20))  # fmt: skip
    page = write_page(run, tmp_path / "index.html")
    assert len(page.encode()) < 3.9e6
    # Those of the strip, of the examples, and of the averages with their roles.
    cells = sum(len(row) for one in Reader(page).maps.values() for row in one.rows)
    assert cells == 12 * 12 + (12 * 12 + 4) * 12 * 2 * (1 + 7)


def test_a_page_of_a_thousand_examples_stays_light(tested: Run) -> None:
    """All have a row, report.examples of them their maps."""
    story = tell(tested)
    assert story.overview
    wide = tuple(
        replace(
            story.overview.rows[number % 8],
            example=f"example_of_a_large_sheet_{number}",
            shown=number < 12,
            effects=tuple(replace(effect, changes=tuple(np.linspace(1, -1, 12)))
                          for effect in story.overview.rows[0].effects),
        )
        for number in range(1000)
    )  # fmt: skip
    large = replace(story, overview=replace(story.overview, rows=wide))
    page = page_of(large, links_of(*tested.pictures), TEMPLATE)
    assert page.count("example_of_a_large_sheet_") == 1000 + 12
    # With twelve examples at full size, whose page has a test of its own, still below 5 MB.
    alone = page_of(story, links_of(*tested.pictures), TEMPLATE)
    assert len(page.encode()) - len(alone.encode()) + 3.9e6 < 5e6


@pytest.mark.parametrize("metric", ["rank", "kl", "answer_probability", "logit"])
def test_maps_have_the_change_of_every_metric_that_was_asked(tested: Run, metric: str) -> None:
    run = scored_by_all(tested, metric)
    told, quantity = tell(run), METRICS[metric].change
    assert [one.name for one in told.measures][:3] == ["value", "log_odds", "logit_difference"]
    assert metric in [one.name for one in told.measures]
    group = group_of(told.averages, "Patching", INPUT)
    (one,) = group.maps
    rows = run.summary({"experiment": "patching", "site": INPUT, "noise_level": np.nan}, quantity)
    expected = rows.set_index(["layer", "token_role"])["mean"].to_dict()
    found = one.cells.set_index(["layer", "label"])[metric].to_dict()
    assert found == pytest.approx(expected)
    assert one.cells[metric].abs().max() <= group.limits[metric]
    effects = run.tables["effects"]
    of_example = maps_of(told, next(iter(run.pictures)), "Patching", INPUT).maps[0].cells
    mine = effects[(effects["experiment"] == "patching") & (effects["site"] == INPUT)]
    mine = mine[mine["example"] == next(iter(run.pictures))]
    assert sorted(of_example[metric]) == pytest.approx(sorted(mine[quantity]))


def test_a_run_of_the_needed_metrics_offers_what_they_give(story: Story, page: str) -> None:
    assert [one.label for one in story.measures] == ["probability", "log-odds", "logit difference"]
    assert "data-rank" not in page
    assert story.measures_caption.endswith("Marks are of the change in probability, whatever is "
                                           "shown.")  # fmt: skip


def test_the_page_offers_every_measure_of_the_run(tested: Run, tmp_path: Path) -> None:
    run = scored_by_all(tested)
    text = write_page(run, tmp_path / "index.html")
    for measure in tell(run).measures:
        assert f'name="measure" value="{measure.name}"' in text
        if measure.name != "value":
            assert f' data-{measure.name}="' in text
    assert text.count('name="measure"') == len(tell(run).measures) == 6


def test_marks_and_findings_are_of_the_tested_metric(tested: Run) -> None:
    """The logit difference in tables is the base answer's less the source's; told is the other."""
    run = scored_by_all(tested, "logit_difference")
    told = tell(run)
    assert "marks a mean change in logit difference of at least 0.02 logits" in told.marks_caption
    assert "studentized bootstrap" in told.marks_caption
    assert "values are bounded" in tell(scored_by_all(tested)).marks_caption
    assert told.measures_caption.endswith(
        "Marks are of the change in logit difference, whatever is shown."
    )
    (one,) = group_of(told.averages, "Patching", INPUT).maps
    marked = one.cells[one.cells["marked"]]
    assert set(marked["layer"]) == {1, 2}
    rows = run.summary(
        {"experiment": "patching", "site": INPUT, "noise_level": np.nan}, "logit_difference_change"
    )
    top = rows[rows["marked"].eq(True) & (rows["layer"] == 1)].iloc[0]
    change = with_interval(-top["mean"], -top["high"], -top["low"])
    assert change in set(marked["tested: change in logit difference"])
    found = finding(run, "Patching")
    assert "raises logit(source answer) − logit(other) most at" in found
    assert change in found
    assert "in logit difference that a test" in told.able_caption


def test_ranks_are_said_to_be_lowered(tested: Run) -> None:
    found = finding(scored_by_all(tested, "rank"), "Patching")
    assert "lowers rank(source answer) most at" in found
    assert "+" not in found.partition("most at")[2].partition("(p ")[0]


def test_damage_is_told_once_an_experiment_where_it_is_counted(tested: Run) -> None:
    run = scored_by_all(tested)
    counted = with_families(run, damaged=2.0)
    told = [text for text in tell(counted).findings if "the model is damaged" in text]
    assert len(told) == len(run.experiments)
    cells = int(run.primary(run.experiments[0])["cells"])
    assert told[0].startswith(f"Patching: in 2 of {cells} cells at {INPUT} and 2 of {cells} cells")
    assert (
        "moves towards the source answer while p(base) + p(source) falls by more than 0.02"
        in (told[0])
    )


@pytest.mark.parametrize("families", [{"damaged": 0.0}, {"damaged": np.nan}, {},
                                      {"damaged": 2.0, "tested": False}])  # fmt: skip
def test_no_damage_is_told_where_none_is_counted_or_nothing_was_tested(
    tested: Run, families: dict[str, Any]
) -> None:
    told = tell(with_families(scored_by_all(tested), **families)).findings
    assert not any("damaged" in text for text in told)


def test_cells_have_the_columns_that_renderers_rely_on(story: Story) -> None:
    for one in all_maps(story):
        assert list(one.cells.columns[: len(CELLS)]) == CELLS
        assert all(isinstance(text, str) for text in one.cells[one.cells.columns[-1]])
