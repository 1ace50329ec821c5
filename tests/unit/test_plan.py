"""What is planned follows from the configuration and the sheet alone."""

from dataclasses import replace

import pytest

from blip_tracing.given.plan import CLEAN_FILES, Plan, cut, group, level_label
from blip_tracing.given.settings import fill_config
from blip_tracing.vocabulary.corruptions import Corruption
from blip_tracing.vocabulary.experiment import described, run_from
from blip_tracing.vocabulary.sites import SITES, VISION


def config_of(**given):
    """The default's two experiments, all else as given."""
    return fill_config(
        {
            "model": {"name": "m", "layers": {"encoder": 6, "decoder": 6, "vision": 3}},
            "examples": "sheet.tsv",
            "runs": {"noisy": {"of": "base", "corrupt": {"levels": [0.5, 1, 20], "draws": 2}}},
            "experiments": {
                "patching": {"receiver": "base", "donor": "source"},
                "tracing": {"receiver": "noisy", "donor": "base"},
            },
            **given,
        }
    )


def sheet(count, picture="p{}"):
    return [
        {"example": f"e{number}", "image": picture.format(number), "base_question": "q",
         "source_question": "s", "image_sha256": "", "base_answer": "", "source_answer": ""}
        for number in range(count)
    ]  # fmt: skip


def test_a_sheet_is_cut_into_shards_in_order():
    assert cut("abcde", 2) == {"0000": ["a", "b"], "0001": ["c", "d"], "0002": ["e"]}


def test_groups_are_called_after_their_ends():
    assert group([0.1, 1, 20], 2, level_label) == {"0.1-1.0": [0.1, 1], "20.0": [20]}


def test_a_job_is_some_layers_or_some_levels_of_all_sites():
    plan = Plan(config_of(layers_per_job=4, noise_levels_per_job=2), sheet(2))
    assert {label: part.layers for label, part in plan.parts["patching"].items()} == {
        "layers_0-3": [0, 1, 2, 3],
        "layers_4-5": [4, 5],
    }
    assert {label: part.levels for label, part in plan.parts["tracing"].items()} == {
        "levels_0.5-1.0": [0.5, 1],
        "levels_20.0": [20],
    }
    assert plan.asked("tracing", "levels_20.0")["receiver"]["corruption"]["levels"] == [20]


@pytest.mark.parametrize(
    ("sites", "layers"),
    [
        (["encoder.mlp"], 6),
        (["vision.mlp"], 3),
        (["decoder.mlp"], 8),
        (["vision.mlp", "encoder.block_input"], 6),
        (["encoder.mlp", "decoder.mlp", "vision.mlp"], 8),
    ],
)
def test_jobs_cut_the_layers_of_the_deepest_tower_that_is_asked_for(sites, layers):
    model = {"name": "m", "layers": {"encoder": 6, "decoder": 8, "vision": 3}}
    experiments = {
        "put": {"receiver": "base", "donor": "source", "sites": sites},
        "noise": {"receiver": "noisy", "donor": "source", "sites": sites},
    }
    config = config_of(model=model, experiments=experiments, layers_per_job=2)
    plan = Plan(config, sheet(1))
    done = [layer for part in plan.parts["put"].values() for layer in part.layers]
    assert done == list(range(layers))
    assert [part.layers for part in plan.parts["noise"].values()] == [done] * 3
    assert plan.asked("put", next(iter(plan.parts["put"])))["sites"] == sites


@pytest.mark.parametrize("site", SITES)
def test_a_null_needs_pictures_where_its_states_are_not_kept(site):
    """Kept are those between the blocks of the question encoder, which the decoder reads."""
    put = {"receiver": "base", "donor": "source"}
    experiments = {
        "one": {**put, "sites": [site]},
        "both": {**put, "sites": list({"encoder.block_input": 0, site: 0})},
    }
    plan = Plan(config_of(experiments=experiments), two_questions())
    kept = site.startswith("decoder.") or site in ("encoder.block_input", "encoder.block_output")
    needed = {} if kept else {"e0": "p0", "e1": "p1"}
    for name in experiments:
        assert plan.null_pictures(name, "0000") == needed


def two_questions():
    return [row | {"base_question": f"q{number}"} for number, row in enumerate(sheet(2))]


def test_neither_picture_of_an_example_is_its_nulls():
    rows = [row | {"base_question": f"q{number}"} for number, row in enumerate(sheet(4))]
    rows[0]["source_image"] = "p2"
    plan = Plan(config_of(), rows)
    assert [row["example"] for row in plan.pools["e0"].rows] == ["e1", "e3"]
    assert [row["example"] for row in plan.pools["e2"].rows] == ["e1", "e3"]
    assert "e0" not in Plan(config_of(), [rows[0], rows[2]]).pools


def test_what_a_job_is_asked_does_not_depend_on_the_other_levels():
    """Else a level that is added would make the others' results stale."""
    alone = {"noisy": {"of": "base", "corrupt": {"levels": [1], "draws": 2}}}
    both = {"noisy": {"of": "base", "corrupt": {"levels": [1, 20], "draws": 2}}}
    asked = [
        Plan(config_of(runs=runs, noise_levels_per_job=1), sheet(1)).asked("tracing", "levels_1.0")
        for runs in (alone, both)
    ]
    assert asked[0] == asked[1]


def test_the_rules_of_roles_are_asked_of_a_run_that_changes_a_roles_tokens():
    """So that another rule makes the results of those runs stale, and of no others."""
    rules = {"effects": {"roles": [{"role": "noun", "pair": "differs"}]}}
    for role, known in (("noun", ((("role", "noun"), ("pair", "differs")),)), ("", ())):
        corrupt = {"levels": [0.5, 1, 20], "draws": 2, "role": role}
        runs = {"noisy": {"of": "base", "corrupt": corrupt}}
        run = Plan(config_of(runs=runs, **rules), sheet(1)).corrupted["noisy"]
        assert run.corruption
        assert run.corruption.rules == known
        assert run_from(described(run)) == run


@pytest.mark.parametrize(("at", "kept"), [("picture.pixels", True), ("picture.states", False)])
def test_pixels_are_kept_for_runs_that_change_them(at, kept):
    runs = {"noisy": {"of": "base", "corrupt": {"levels": [0.5, 1, 20], "draws": 2, "at": at}}}
    assert Plan(config_of(runs=runs), sheet(1)).keeps_pixels == kept
    assert not Plan(config_of(runs=runs, experiments={}), sheet(1)).keeps_pixels


@pytest.mark.parametrize(("at", "kept"), [("picture.pixels", True), ("picture.states", False)])
def test_a_run_whose_picture_is_corrupted_too_is_what_it_is_described_as(at, kept):
    also = {"kind": "gaussian", "at": at, "level": 3, "seed": 7}
    corrupt = {"levels": [0.5, 1, 20], "draws": 2, "also": also}
    plan = Plan(config_of(runs={"noisy": {"of": "base", "corrupt": corrupt}}), sheet(1))
    run = plan.corrupted["noisy"]
    assert run.corruption
    assert run.corruption.also == Corruption("gaussian", at, (3.0,), 2, 7)
    assert run_from(described(run)) == run
    assert run.corruption.of_picture
    assert plan.experiments["tracing"].in_pictures
    assert run.at([20]).corruption == replace(run.corruption, levels=(20,))
    assert plan.keeps_pixels == kept


@pytest.mark.parametrize("unit", ["absolute", "std"])
def test_what_counts_in_the_sheets_deviations_reads_all_shards_tokens(unit):
    """And is stale when a row is added; other runs are not."""
    corrupt = {"levels": [0.5, 1, 20], "draws": 2, "unit": unit}
    runs = {"noisy": {"of": "base", "corrupt": corrupt}}
    plan = Plan(config_of(runs=runs, shard_size=1), sheet(3))
    shards = {"0000", "0001", "0002"}
    for kind in ("tokens", "facts"):
        every = {CLEAN_FILES[kind].format(shard=shard) for shard in shards}
        for shard in shards:
            own = CLEAN_FILES[kind].format(shard=shard)
            asked = plan.corrupted_token_files(shard, "noisy", kind)
            assert asked[0] == own
            assert set(asked) == (every if unit == "std" else {own})
            asked = plan.token_files(shard, "tracing", kind)
            assert asked[0] == own
            without = plan.clean_files(shard, kind)
            assert set(asked) == (every if unit == "std" else set(without))
            assert plan.token_files(shard, "patching", kind) == without
            facts = plan.clean_facts(shard, "tracing")
            assert set(plan.token_files(shard, "tracing", "facts")) <= set(facts)


def test_one_job_does_all_where_there_is_one_of_each():
    assert Plan(config_of(layers_per_job=6, noise_levels_per_job=3), sheet(16)).at_once
    assert not Plan(config_of(layers_per_job=6, noise_levels_per_job=3), sheet(17)).at_once
    assert not Plan(config_of(layers_per_job=6, noise_levels_per_job=2), sheet(16)).at_once
    assert not Plan(config_of(layers_per_job=5, noise_levels_per_job=3), sheet(16)).at_once


@pytest.mark.parametrize("layers", [1, 6])
def test_the_one_job_writes_what_the_jobs_apart_write(layers):
    """So that collection does not ask which it was."""
    plan = Plan(config_of(layers_per_job=6, noise_levels_per_job=3), sheet(3))
    written = plan.job_files()
    steps = [written["images"], written["clean"], *written["runs"].values()]
    files = {path for step in [*steps, *written["cells"].values()] for path in step.values()}
    asked = {
        path
        for table in plan.tables
        for path in [*plan.table_parts(table), *plan.table_facts(table)]
        if not path.startswith(("results/effects", "results/excluded"))
    }
    assert asked <= files
    assert {*plan.picture_files("0000", "json"), *plan.clean_files("0000", "states")} <= files


def test_an_experiment_without_a_site_is_left_out():
    none = {"receiver": "base", "donor": "source", "sites": []}
    plan = Plan(config_of(experiments={"patching": none}), sheet(1))
    assert plan.tables == ["baseline", "tokens", "runs"]
    assert not plan.corrupted


def test_any_number_of_experiments_has_tables_of_their_names():
    sites = [name for name, site in SITES.items() if site.tower != VISION]
    experiments = {
        "noising": {"receiver": "base", "donor": "noisy", "sites": sites},
        "again": {"receiver": "noisy", "donor": "base"},
        "third": {"receiver": "noisy", "donor": "source"},
    }
    plan = Plan(config_of(experiments=experiments), sheet(1))
    assert set(experiments) <= set(plan.tables)
    assert list(plan.corrupted) == ["noisy"]
    assert plan.table_parts("runs") == [
        "results/runs/clean/0000.parquet",
        "results/runs/noisy/0000.parquet",
    ]


def test_large_tables_have_the_configured_format():
    plan = Plan(config_of(tables={"format": "parquet"}), sheet(1))
    assert plan.table("tracing") == "results/tables/tracing.parquet"
    assert plan.table("runs") == "results/tables/runs.csv"


def test_a_shard_that_needs_anothers_clean_runs_names_them_after_its_own():
    plan = Plan(config_of(shard_size=1), sheet(2))
    assert plan.clean_files("0001", "facts") == [
        "results/clean/0001.json",
        "results/clean/0000.json",
    ]


def test_a_shards_examples_are_described_by_their_pictures_and_boxes():
    """A row without them shows one picture and has none; the sheet's boxes come once, in order."""
    rows = sheet(4)
    rows[1] |= {"source_image": "other", "boxes": "hat=0,0,1,1"}
    rows[2] |= {"source_image": "", "boxes": "hat=0,0,1,1"}
    plan = Plan(config_of(shard_size=3), rows)
    assert [[row[0], *row[1:3], row[4]] for row in plan.described_examples("0000")] == [
        ["e0", "p0", False, ""], ["e1", "p1", True, "hat=0,0,1,1"],
        ["e2", "p2", False, "hat=0,0,1,1"],
    ]  # fmt: skip
    assert plan.boxes == ["", "hat=0,0,1,1"]


def test_rows_that_share_either_picture_are_one_unit():
    """Also those that share one only by way of a third row; others stay apart."""
    rows = sheet(6)
    rows[0] |= {"source_image": "s"}
    rows[2] |= {"source_image": "s"}
    rows[3] |= {"image": "p2"}
    rows[4] |= {"source_image": "p3"}
    units = Plan(config_of(), rows).units
    assert len({units[name] for name in ("e0", "e2", "e3")}) == 1
    assert len(set(units.values())) == 4
    assert units["e5"] == "p5"


def test_an_analysis_page_reads_its_tables_and_those_whose_examples_it_shows():
    pair = {"sufficient": "tracing", "necessary": "taking"}
    experiments = {
        "tracing": {"receiver": "noisy", "donor": "base"},
        "taking": {"receiver": "base", "donor": "noisy"},
    }
    analyses = {"directions": {"pairs": [pair]}}
    plan = Plan(config_of(experiments=experiments, analyses=analyses), sheet(2))
    assert plan.pages["directions"].tables == [
        "directions", "directions_verdicts", "effects", "runs",
    ]  # fmt: skip
    assert "directions" not in Plan(config_of(), sheet(2)).pages
