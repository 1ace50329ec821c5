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
    made_up_run,
    with_experiments,
    write_page,
)
from synthetic_tables import ASKED, NOISY, Asked
from tell_story import addresses

from blip_tracing.machinery.tables import write_table
from blip_tracing.printing.page import STEPS, controls_table, lines_of
from blip_tracing.telling.finished_run import count_controls, stage_of
from blip_tracing.telling.story import CELLS, MARK, Map, MapGroup, Run, Story, tell
from blip_tracing.vocabulary.tables import CEILING, NO_OP, NULL, SMALL_EFFECT

EXAMPLE = "ball_kite"
INPUT, OUTPUT = SITES


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
    groups = [*story.averages, *(group for example in story.examples for group in example.maps)]
    return [one for group in groups for one in group.maps]


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


def test_averages_are_the_summarys_layer_by_role(run: Run, story: Story) -> None:
    summary = run.tables["summary"]
    for experiment in ("Patching", "Tracing"):
        group = group_of(story.averages, experiment, OUTPUT)
        levels = [None] if experiment == "Patching" else list(NOISE_LEVELS)
        assert [one.title for one in group.maps] == [
            "" if level is None else f"σ = {level:g}" for level in levels
        ]
        for one, level in zip(group.maps, levels, strict=True):
            rows = summary[
                (summary["experiment"] == experiment.lower())
                & (summary["site"] == OUTPUT)
                & (summary["quantity"] == "probability_change")
                & (summary["noise_level"].isna() if level is None
                   else summary["noise_level"] == level)
            ].set_index(["token_role", "layer"])  # fmt: skip
            cells = one.cells.set_index(["label", "layer"])
            assert list(one.cells["label"].unique()) == ["[CLS]", "before noun", "noun", "[SEP]"]
            for ours, theirs in (("value", "mean"), ("low", "low"), ("high", "high")):
                assert cells[ours].to_dict() == pytest.approx(rows[theirs].to_dict())


def test_cells_of_averages_tell_contrast_and_test(run: Run, story: Story) -> None:
    cells = group_of(story.averages, "Patching", INPUT).maps[0].cells
    cell: Any = cells.set_index(["label", "layer"]).loc[("noun", 0)]
    summary = run.tables["summary"]
    contrast = summary[
        (summary["experiment"] == "patching")
        & (summary["site"] == INPUT)
        & (summary["quantity"] == "contrast")
        & (summary["token_role"] == "noun")
        & (summary["layer"] == 0)
    ].iloc[0]
    assert cell["minus the null"] == (
        f"{contrast['mean']:+.3f} ({contrast['low']:+.3f} to {contrast['high']:+.3f})"
    )
    assert cell["p (family)"] == "0.010"
    assert cell["examples"] == "3"


def test_a_sheet_too_small_for_the_test_says_so(story: Story) -> None:
    for group in story.averages:
        assert "No cell can be marked: with 3 examples" in group.marks
        assert "2/2³ = 0.25" in group.marks


def test_cells_below_005_are_marked_and_the_test_is_named(run: Run) -> None:
    large = changed(run, "summary", lambda table: table.assign(examples=8))
    for group in tell(large).averages:
        cells = pd.concat([one.cells for one in group.maps])
        marked = cells[cells["marked"]]
        assert set(zip(marked["label"], marked["layer"], strict=True)) == {("noun", 0)}
        assert f"{MARK} marks cells with p < 0.05 ({len(marked)} of {len(cells)})" in group.marks
        assert "Westfall & Young" in group.marks
        assert "an unrelated example's state" in group.marks


def test_a_large_sheet_in_which_nothing_stands_out_says_so(run: Run) -> None:
    dull = changed(run, "summary", lambda table: table.assign(examples=8, p_family=0.7))
    group = group_of(tell(dull).averages, "Patching", INPUT)
    assert group.marks.startswith("No cell is marked: there is none with p < 0.05 (0 of 12)")
    assert not group.maps[0].cells["marked"].any()


def test_a_test_against_the_floor_says_so(run: Run) -> None:
    def against_floor(summary: pd.DataFrame) -> pd.DataFrame:
        return summary.assign(examples=8, against=summary["against"].replace("null", "floor"))

    group = group_of(tell(changed(run, "summary", against_floor)).averages, *("Tracing", SITES[0]))
    assert "against the floor (nothing restored)" in group.marks
    assert "minus the floor" in group.maps[0].cells


def test_one_example_cannot_be_tested(run: Run) -> None:
    one = changed(run, "summary", lambda table: table.assign(examples=1, p_family=np.nan))
    group = group_of(tell(one).averages, "Patching", INPUT)
    assert group.marks == "No cell is marked: a test over examples needs two of them at least."
    assert group.caption.startswith("Change in p(source answer) when")


def test_a_sheet_of_one_picture_has_nothing_to_test_against(tmp_path: Path) -> None:
    story = tell(made_up_run(tmp_path, with_null=False))
    patching = group_of(story.averages, "Patching", INPUT)
    assert "all rows of the sheet show one picture" in patching.marks
    of_example = maps_of(story, EXAMPLE, "Patching", INPUT)
    assert "has no unrelated example" in of_example.marks
    assert not any(one.cells["marked"].any() for one in all_maps(story))
    assert MARK not in story.maps_caption


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
    assert (shown["high"] - shown["low"]).tolist() == pytest.approx([0.1] * 3)
    assert story.means.loc[0, "mean"] == pytest.approx(0.889)
    assert "3 examples and 6 noise draws" in story.means_caption


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
    largest = rows["null_change"].abs().max()
    assert cells["marked"].to_dict() == (rows["probability_change"] > largest).to_dict()
    assert 0 < cells["marked"].sum() < len(cells)
    assert one.title == f"null up to {largest:.3f}"


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
        largest = rows["null_change"].abs().max()
        assert cells["marked"].to_dict() == (rows["probability_change"] > largest).to_dict()
        assert (cells["low"] <= cells["value"]).all()
        assert (cells["value"] <= cells["high"]).all()


def test_of_one_draw_there_is_no_interval(tmp_path: Path) -> None:
    story = tell(made_up_run(tmp_path, draws=1))
    assert maps_of(story, EXAMPLE, "Tracing", INPUT).maps[0].cells["low"].isna().all()


def test_the_scale_of_colours_holds_every_value(story: Story) -> None:
    for group in [*story.averages, *(group for shown in story.examples for group in shown.maps)]:
        assert all((one.cells["value"].abs() <= group.limit).all() for one in group.maps)


def test_every_map_has_its_own_name(story: Story) -> None:
    names = [one.name for one in all_maps(story)]
    assert len(set(names)) == len(names) == (len(SHOWN) + 1) * len(SITES) * (1 + len(NOISE_LEVELS))
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)


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
        "quantity", "compared", "agree", "expected", "verdict", "where",
    ]  # fmt: skip
    assert story.verdicts["quantity"][0] == "logits of the most probable first tokens"
    assert "1 of 2 published quantities agree with this run." in story.findings


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
    assert np.isnan(counted.loc[("tracing", NULL), "largest"])
    known = 2 * runs * (1 + len(NOISE_LEVELS))
    assert (
        f"All {known} control runs whose outcome is known gave it, to within 2e-07 in probability."
        in story.findings
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_controls_are_counted_from_either_format(tmp_path: Path, suffix: str) -> None:
    table = pd.DataFrame(
        {
            "experiment": "patching",
            "control": [NULL, NULL, NO_OP, NO_OP],
            "difference": [np.nan, np.nan, 3e-8, 1e-8],
            "tolerance": [np.nan, np.nan, 1e-6, 1e-6],
            "effect": [np.nan, np.nan, 9e-6, 0.2],
        }
    )
    write_table(table, tmp_path / f"controls.{suffix}")
    counted: Any = count_controls(tmp_path / f"controls.{suffix}").set_index("control")
    assert counted["checked"].to_dict() == {"null": 2, "no_op": 2}
    assert counted.loc["no_op", "largest"] == pytest.approx(3e-8)
    assert np.isnan(counted.loc["null", "largest"])
    # Nine tolerances were at stake in one run, which could not tell a fault from rounding.
    assert counted.loc["no_op", "idle"] == 1
    assert counted.loc["no_op", "effect"] == pytest.approx((9e-6 + 0.2) / 2)
    assert pd.isna(counted.loc["null", "idle"])


def with_idle_controls(run: Run, idle: Sequence[int]) -> Run:
    """The run, so many of each known control's runs idle."""
    controls = run.tables["controls"].copy()
    controls.loc[controls["largest"].notna(), "idle"] = idle
    return replace(run, tables={**run.tables, "controls": controls})


def test_nothing_is_claimed_of_controls_that_could_not_fail(run: Run) -> None:
    known = run.tables["controls"].dropna(subset="largest")
    checked = int(known["checked"].sum())
    (finding,) = [text for text in tell(with_idle_controls(run, [3, 0, 2, 0])).findings
                  if "control" in text]  # fmt: skip
    assert finding == (
        f"All {checked - 5} control runs that could have failed gave their known outcome, to "
        "within 2e-07 in probability; 5 more could not have failed here and vouch for nothing."
    )
    (finding,) = [text for text in tell(with_idle_controls(run, known["checked"].tolist())).findings
                  if "control" in text]  # fmt: skip
    assert finding.startswith(f"None of the {checked} control runs whose outcome is known could")
    assert "gave" not in finding


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
            "rows": rows,
        }
    ]
    assert "below 0.05" in story.excluded_caption
    nothing = changed(run, "excluded", lambda table: table.iloc[:0])
    assert tell(nothing).excluded_caption == "Nothing was left out."


# ---- findings, and how to run it again ---------------------------------------------------------


def test_the_strongest_effect_of_each_experiment_is_named(run: Run, story: Story) -> None:
    summary = run.tables["summary"]
    for experiment, finding in zip(("patching", "tracing"), story.findings[:2], strict=True):
        rows = summary[
            (summary["experiment"] == experiment) & (summary["quantity"] == "probability_change")
        ]
        best: Any = rows.nlargest(1, "mean").iloc[0]
        assert f"layer {best['layer']:g} at the role “{best['token_role']}”" in finding
        assert f"{best['mean']:+.3f} ({best['low']:+.3f} to {best['high']:+.3f})" in finding


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
    for name in ("effects", "summary"):
        tables[name] = tables[name][tables[name]["experiment"] != absent]
    story = tell(replace(without(run, absent), tables=tables))
    groups = [*story.averages, *(group for shown in story.examples for group in shown.maps)]
    assert {group.title.split(",")[0] for group in groups} == {other}
    assert len(story.methods) == 1
    assert story.means.empty == (absent == "tracing")


def test_a_run_of_answers_alone_is_told(run: Run, tmp_path: Path) -> None:
    tables = {name: run.tables[name] for name in ("baseline", "runs", "tokens")}
    bare = replace(without(run, *CONFIG["experiments"]), tables=tables)
    story = tell(bare)
    assert story.findings == ()
    assert [len(shown.answers) for shown in story.examples] == [2, 2]
    sections = Reader(write_page(bare, tmp_path / "index.html")).ids
    assert {"asked", "again", "files"} <= set(sections)
    assert not {"averages", "noise", "controls", "excluded"} & set(sections)


# ---- the page ----------------------------------------------------------------------------------


def test_every_section_is_there(reader: Reader) -> None:
    sections = ["asked", "averages", "noise", "replication", "examples", "controls", "excluded",
                "again", "files"]  # fmt: skip
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
    ]
    assert [sentence for sentence in sentences if sentence not in text] == []
    for row in story.means.itertuples():
        assert f"{row.mean:.3f} ({row.low:.3f} to {row.high:.3f})" in text


def test_every_map_of_the_story_is_there_with_its_cells(story: Story, reader: Reader) -> None:
    assert set(reader.maps) == {one.name for one in all_maps(story)}
    group = maps_of(story, EXAMPLE, "Tracing", OUTPUT)
    one = group.maps[1]
    shown = reader.maps[one.name]
    assert shown.layers == [str(layer) for layer in range(LAYERS)]
    assert shown.labels == list(one.cells.drop_duplicates("place")["label"])
    assert shown.labels[8] == "8 ball"
    state = "unrelated example's state"
    for cell in one.cells.to_dict("records"):
        there = shown.rows[cell["place"]][cell["layer"]]
        numbers = [f"{cell[name]:+.3f}".replace("-", "−") for name in ("value", "low", "high")]
        value, null = (there.title or "").split("\n")
        assert value == "{} ({} to {})".format(*numbers).replace("+0.000", "0.000")
        assert null == f"{state}: {cell[state]}"
        assert there.text.endswith(MARK) == cell["marked"]
        number = float(there.text.removesuffix(MARK).replace("−", "-"))
        assert number == pytest.approx(cell["value"], abs=0.005)
        step = round(STEPS * cell["value"] / group.limit)
        colour = f"{'gain' if step > 0 else 'loss'}{abs(step)}" if step else None
        assert there.colour == colour


def test_a_row_may_lack_cells_of_some_layers(run: Run, tmp_path: Path) -> None:
    def with_a_gap(summary: pd.DataFrame) -> pd.DataFrame:
        return summary[(summary["token_role"] != "noun") | (summary["layer"] != 1)]

    page = write_page(changed(run, "summary", with_a_gap), tmp_path / "index.html")
    noun = Reader(page).maps[f"average-patching-{INPUT}"].rows[2]
    assert [cell.title is None for cell in noun] == [False, True, False]
    assert noun[1].text == ""


def test_nothing_in_the_page_waits_for_a_script(page: str, reader: Reader) -> None:
    assert "noscript" not in reader.tags
    assert len(reader.scripts.encode()) < 10_000
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
    lines = list(lines_of(means))
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
        told = f"{row.mean:.3f} ({row.low:.3f} to {row.high:.3f})"
        assert f'title="{row.run}, σ = {row.noise_level:g}&#10;{told}"' in page


def test_three_sites_are_told_as_two_are(tmp_path: Path) -> None:
    sites = [INPUT, OUTPUT, "encoder.mlp"]
    run = made_up_run(tmp_path, sites=sites)
    shown = Reader(write_page(run, tmp_path / "index.html"))
    for experiment in ("patching", "tracing"):
        of_each = [sum(f"-{experiment}-{site}" in name for name in shown.maps) for site in sites]
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
    assert len(page.encode()) < 4e6
    cells = sum(len(row) for one in Reader(page).maps.values() for row in one.rows)
    assert cells == (12 * 12 + 4) * 12 * 2 * (1 + 7)


def test_cells_have_the_columns_that_renderers_rely_on(story: Story) -> None:
    for one in all_maps(story):
        assert list(one.cells.columns[: len(CELLS)]) == CELLS
        assert all(isinstance(text, str) for text in one.cells[one.cells.columns[-1]])
