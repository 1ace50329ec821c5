"""What is planned follows from the configuration and the sheet alone."""

import pytest

from blip_tracing.given.plan import Plan, cut, group, level_label
from blip_tracing.given.settings import fill_config
from blip_tracing.vocabulary.sites import SITES


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


def test_what_a_job_is_asked_does_not_depend_on_the_other_levels():
    """Else a level that is added would make the others' results stale."""
    alone = {"noisy": {"of": "base", "corrupt": {"levels": [1], "draws": 2}}}
    both = {"noisy": {"of": "base", "corrupt": {"levels": [1, 20], "draws": 2}}}
    asked = [
        Plan(config_of(runs=runs, noise_levels_per_job=1), sheet(1)).asked("tracing", "levels_1.0")
        for runs in (alone, both)
    ]
    assert asked[0] == asked[1]


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
    experiments = {
        "noising": {"receiver": "base", "donor": "noisy", "sites": list(SITES)},
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
