"""A sheet in two halves: which rows are in which, and what each half is planned from."""

import random
from typing import Any

import pandas as pd
import pytest
from refusals import refusal, with_key
from test_plan import config_of, sheet

from blip_tracing.given import checks
from blip_tracing.given.checks import check_halves
from blip_tracing.given.halves import CONFIRMING, EXPLORING, halves_of, pictures_in
from blip_tracing.given.places import WORKFLOW
from blip_tracing.given.plan import CLAIMS, CLEAN_FILES, Plan
from blip_tracing.given.settings import fill_config
from blip_tracing.meaning.statistics import FEWEST_PICTURES, SIGNIFICANT

Row = dict[str, str]
ASKED = {"confirm": {"experiments": ["patching"]}}


def asked_of(rows: list[Row]) -> list[Row]:
    """Every row asks what no other asks, so that each can be each other's null."""
    return [row | {"base_question": f"q{row['example']}"} for row in rows]


def halved(rows: list[Row], **given: Any) -> Plan:
    return Plan(config_of(analyses=ASKED, **given), rows)


def test_a_row_that_is_added_moves_no_other_nor_does_the_order() -> None:
    rows = sheet(60)
    before = halves_of(rows[:40], 0.5, "")
    assert set(before.values()) == {EXPLORING, CONFIRMING}
    shuffled = random.Random(0).sample(rows, len(rows))
    after = halves_of(shuffled, 0.5, "")
    assert {name: after[name] for name in before} == before
    assert halves_of(rows, 0.5, "") == after
    assert halves_of(rows, 0.5, "another") != after


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_a_share_of_the_pictures_explores_and_a_larger_one_takes_more_to_it(share: float) -> None:
    rows = sheet(2000)
    exploring = {name for name, half in halves_of(rows, share, "").items() if half == EXPLORING}
    # Within four standard deviations of a fair draw.
    assert abs(len(exploring) - 2000 * share) < 4 * (2000 * share * (1 - share)) ** 0.5
    more = {name for name, half in halves_of(rows, 0.9, "").items() if half == EXPLORING}
    assert exploring < more


def test_rows_that_share_a_picture_are_together_whichever_comes_first() -> None:
    rows = sheet(40, picture="p{}.png")
    for number in range(0, 38, 2):  # a chain of all even rows
        rows[number]["source_image"] = f"p{number + 2}.png"
    for order in (rows, rows[::-1]):
        halves = halves_of(order, 0.5, "")
        assert len({halves[f"e{number}"] for number in range(0, 40, 2)}) == 1
        assert pictures_in(order, halves) == {
            half: len({n if n % 2 else 0 for n in range(40) if halves[f"e{n}"] == half})
            for half in (EXPLORING, CONFIRMING)
        }
    assert halves_of(rows, 0.5, "") == halves_of(rows[::-1], 0.5, "")


def test_where_the_workflow_lies_says_nothing() -> None:
    named = sheet(30, picture="resources/miniature/images/{}.png")
    found = [row | {"image": str(WORKFLOW / row["image"])} for row in named]
    assert halves_of(named, 0.5, "") == halves_of(found, 0.5, "")


def test_each_half_has_shards_and_pictures_of_its_own() -> None:
    rows = sheet(50)
    plan = halved(rows, shard_size=8)
    assert not plan.at_once
    for half in (EXPLORING, CONFIRMING):
        of_half = [row for row in rows if plan.halves[row["example"]] == half]
        shards = plan.shards_of(half)
        assert [row for shard in shards for row in plan.shards[shard]] == of_half
        assert all(len(plan.shards[shard]) <= 8 for shard in shards)
        pictures = {row["image"] for row in of_half}
        encoded = [name for name in plan.picture_shards if name.startswith(half)]
        assert {image for name in encoded for image in plan.picture_shards[name]} == pictures
    assert [plan.half_of(shard) for shard in plan.shards] == [
        *[EXPLORING] * len(plan.shards_of(EXPLORING)),
        *[CONFIRMING] * len(plan.shards_of(CONFIRMING)),
    ]


def test_a_longer_exploring_half_leaves_the_confirming_shards_alone() -> None:
    rows = sheet(60)
    more = next(
        row for row in sheet(90)[60:] if halves_of([row], 0.5, "")[row["example"]] == EXPLORING
    )
    few, many = (halved(part, shard_size=8) for part in (rows, [*rows, more]))
    for shard in few.shards_of(CONFIRMING):
        assert many.shards[shard] == few.shards[shard]
        assert many.null_of(shard) == few.null_of(shard)


def test_an_examples_null_is_of_its_own_half() -> None:
    plan = halved(asked_of(sheet(40)))
    assert len(plan.pools) == 40
    for example, pool in plan.pools.items():
        assert {plan.halves[row["example"]] for row in pool.rows} == {plan.halves[example]}
    for shard in plan.shards:
        files = plan.clean_files(shard, "states")
        half = plan.half_of(shard)
        assert set(files) <= {
            CLEAN_FILES["states"].format(shard=name) for name in plan.shards_of(half)
        }


def test_only_the_confirming_half_waits_for_the_claims() -> None:
    plan = halved(sheet(40))
    waits = {shard: plan.claims_before(shard) for shard in plan.shards}
    assert waits == {
        shard: [CLAIMS] if plan.half_of(shard) == CONFIRMING else [] for shard in plan.shards
    }
    assert not any(map(Plan(config_of(), sheet(40)).claims_before, ["0000", "0001"]))


def test_levels_in_deviations_are_counted_over_a_half() -> None:
    """Else the exploring half would wait for the confirming one, which waits for the claims."""
    corrupt = {"levels": [0.5, 1, 20], "draws": 2, "unit": "std"}
    plan = halved(sheet(40), shard_size=4, runs={"noisy": {"of": "base", "corrupt": corrupt}})
    for half in (EXPLORING, CONFIRMING):
        shards = plan.shards_of(half)
        every = {CLEAN_FILES["tokens"].format(shard=name) for name in shards}
        for shard in shards:
            files = plan.corrupted_token_files(shard, "noisy")
            assert files[0] == CLEAN_FILES["tokens"].format(shard=shard)
            assert set(files) == every


def test_without_halves_nothing_is_planned_otherwise() -> None:
    rows = asked_of(sheet(40))
    plan = Plan(config_of(), rows)
    assert list(plan.shards) == ["0000", "0001", "0002"]
    assert plan.halves == {}
    assert plan.half_of("0000") == ""
    assert "confirm" not in plan.pages
    assert not {"halves", "confirm"} & {*plan.told}
    # Of one block of 16 rows, whichever half they would be in.
    assert {row["example"] for row in plan.pools["e0"].rows} == {f"e{n}" for n in range(1, 16)}


def test_what_a_run_in_halves_tells() -> None:
    plan = halved(sheet(40))
    assert {"confirm", "confirm_verdicts", "halves"} <= {*plan.told}
    assert plan.pages["confirm"].tables == ["confirm", "confirm_verdicts", "halves"]
    assert plan.facts(["halves"]) == ["results/tables/confirm.provenance.json"]
    assert plan.timed["results/logs/claims.log"] == CLAIMS
    assert plan.timed["results/logs/confirm.log"] == "results/tables/confirm.csv"


# --- what is asked for


def asking(**confirm: Any) -> dict[str, Any]:
    config = with_key("analyses.confirm", {"experiments": ["patching"], **confirm})
    config["experiments"]["again"] = dict(config["experiments"]["patching"])
    return config


@pytest.mark.parametrize(
    ("confirm", "message"),
    [
        (
            {"experiments": ["nothing"]},
            "experiments[0]: 'nothing' is not an experiment with a site; did you mean patching?",
        ),
        ({"experiments": []}, "experiments: is empty; give whose places may be claimed, at their "
                              "sites and the primary level"),
        ({"experiments": ["patching", "patching"]},
         "experiments: 'patching' is given twice; keep it once"),
        ({"experiments": ["patching", "tracing", "again"]},
         "experiments[2]: again asks what patching asks; keep one of them"),
        ({"share": 0.05}, "share: 0.05 is less than the minimum of 0.1"),
        ({"share": 1}, "share: 1 is more than the maximum of 0.9"),
        ({"claims": 0}, "claims: 0 is less than the minimum of 1"),
        ({"salt": 1}, "salt: 1 is a number, not text"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_of_halves_is_refused(confirm: dict[str, Any], message: str) -> None:
    told = refusal(fill_config, asking(**confirm))
    assert told == f"analyses.confirm.{message}"


def test_experiments_at_other_sites_ask_something_else() -> None:
    config = asking(experiments=["patching", "again"])
    config["experiments"]["again"]["sites"] = ["encoder.mlp"]
    assert fill_config(config)["analyses"]["confirm"] == {
        "experiments": ["patching", "again"], "claims": 3, "share": 0.5, "salt": "",
    }  # fmt: skip


def checked(count: int, **confirm: Any) -> list[str]:
    sheet_of = pd.DataFrame(sheet(count)).assign(source_image="", source_image_sha256="")
    return check_halves(fill_config(asking(**confirm)), sheet_of, "s.tsv")


def test_a_sheet_with_one_half_alone_is_refused() -> None:
    # Of one picture one half is always empty.
    half = CONFIRMING if halves_of(sheet(1), 0.5, "") == {"e0": EXPLORING} else EXPLORING
    assert refusal(checked, 1) == (
        f"s.tsv: none of its 1 pictures fall into the {half} half that analyses.confirm asks for; "
        "add rows, or give another salt before anything is measured"
    )


def test_halves_in_which_nothing_can_be_found_are_warned_of() -> None:
    assert checked(40) == []
    few = pictures_in(sheet(8), halves_of(sheet(8), 0.5, ""))
    assert checked(8) == [
        f"analyses.confirm: {few[EXPLORING]} pictures explore and {few[CONFIRMING]} confirm, where "
        "each half needs six; add rows, or give another salt before anything is measured"
    ]
    wanted = {EXPLORING: 10, CONFIRMING: 6}
    salts = map(str, range(100))
    salt = next(s for s in salts if pictures_in(sheet(16), halves_of(sheet(16), 0.5, s)) == wanted)
    assert checked(16, claims=3, salt=salt) == []
    assert checked(16, claims=4, salt=salt) == [
        "analyses.confirm.claims: 6 pictures can confirm none of more than 3 claims; give at most 3"
    ]


def test_the_numbers_are_those_of_the_tests() -> None:
    assert (checks.FEWEST_PICTURES, checks.SIGNIFICANT) == (FEWEST_PICTURES, SIGNIFICANT)


def test_runs_without_halves_are_asked_nothing() -> None:
    config = fill_config(with_key("analyses", {}))
    assert check_halves(config, pd.DataFrame(sheet(1)), "s.tsv") == []
