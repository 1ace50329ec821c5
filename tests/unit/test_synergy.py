"""What is done together is held against the sum of what each part does, example by example."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up_effects import CHANGES, RULES, evidence_of, role_means
from refusals import refusal, with_key
from synthetic_tables import NOISY, made_up_experiments

from blip_tracing.drawing.analyses.synergy import synergy_figure
from blip_tracing.given.settings import fill_config
from blip_tracing.meaning.analyses.synergy import (
    ADDITIVE,
    NOT_SHOWN,
    NOTHING,
    ONE_PART,
    SUB,
    SUPER,
    TABLE,
    analyse,
)
from blip_tracing.vocabulary.experiment import BASE, Experiment
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.tables import CEILING, NO_OP

ROLES = ("first", "second")
MANY, LAYERS, PARTS = 24, 5, 3
PROBABILITY, LOG_ODDS, LOGITS = CHANGES[:3]


def experiments(**joint: Any) -> list[Experiment]:
    return made_up_experiments(
        noise_levels=(5.0,),
        ends={"joint": (NOISY, BASE), "singles": (NOISY, BASE)},
        settings={"joint": joint},
    )


def noise(seed: int, roles: int = 2, size: float = 0.01, examples: int = MANY) -> np.ndarray:
    return size * np.random.default_rng(seed).normal(size=(examples, LAYERS, roles))


def compared(
    folder: Path,
    together: Any,
    alone: Any,
    positions: str = "roles",
    parts: Any = PARTS,
    missing: int = 0,
    window: int = 1,
    known: Any = "",
    **told: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Table and verdicts of effects together, and of the mean of each role's single positions."""
    asked = experiments(positions=positions, window=window)
    shape = (together[CHANGES[0]] if isinstance(together, Mapping) else together).shape
    roles = [ALL] if positions == "all" else ROLES[: shape[2]]
    tables = [
        role_means(asked[0], together, roles, known=known, **told),
        role_means(asked[1], alone, ROLES, positions=parts, **told),
    ]
    settings = {"pairs": [{"joint": "joint", "singles": "singles"}], "least_logits": 0.1}
    return analyse(evidence_of(folder, tables, asked, settings, missing))


def kinds(table: pd.DataFrame, quantity: str = PROBABILITY) -> dict[tuple[int, str], str]:
    rows = table[table["quantity"] == quantity]
    return {
        (layer, role): kind
        for layer, role, kind in zip(rows["layer"], rows["token_role"], rows["kind"], strict=True)
    }


def claims(table: pd.DataFrame, verdicts: pd.DataFrame) -> set[str]:
    """What is claimed of cells and in the verdicts, but that nothing is shown or is there."""
    return {*table["kind"], *verdicts["verdict"]} - {NOT_SHOWN, NOTHING}


def rows_of(table: pd.DataFrame, quantity: str) -> list[Any]:
    return list(table[table["quantity"] == quantity].itertuples())


# --- what is planted


def test_parts_that_are_needed_together_do_more_than_their_sum(tmp_path: Path) -> None:
    """An AND gate at the first role: each alone does nothing, all together everything."""
    together, alone = noise(1), noise(2, size=0.002)
    together[:, :, 0] += 0.6
    table, verdicts = compared(tmp_path, together, alone)
    found = kinds(table)
    assert {found[layer, "first"] for layer in range(LAYERS)} == {SUPER}
    assert {found[layer, "second"] for layer in range(LAYERS)} == {NOTHING}
    told = verdicts.set_index("statement")["verdict"]
    assert told["super-additive in probability"] == f"{LAYERS} of {2 * LAYERS} places"
    assert told["sub-additive in probability"] == NOT_SHOWN


def test_parts_that_carry_the_same_do_less_than_their_sum(tmp_path: Path) -> None:
    """An OR gate: each alone does all that all do together."""
    together, alone = noise(1), noise(2)
    together[:, :, 0] += 0.6
    alone[:, :, 0] += 0.6
    alone[:, :, 1] /= 10
    table, verdicts = compared(tmp_path, together, alone)
    found = kinds(table)
    assert {found[layer, "first"] for layer in range(LAYERS)} == {SUB}
    ratio = verdicts[verdicts["statement"].str.startswith("probability together over the sum")]
    assert ratio["value"].iloc[0] == pytest.approx(1 / PARTS, rel=0.05)
    assert ratio["low"].iloc[0] < ratio["value"].iloc[0] < ratio["high"].iloc[0]
    assert ratio["verdict"].iloc[0] == SUB


def test_what_adds_up_is_additive(tmp_path: Path) -> None:
    alone = 0.1 + noise(2)
    together = PARTS * alone + noise(3, size=0.002)
    table, verdicts = compared(tmp_path, together, alone)
    assert set(kinds(table).values()) == {ADDITIVE}
    assert claims(table, verdicts) == {ADDITIVE}


def test_what_adds_up_in_logits_alone_is_the_scales_doing(tmp_path: Path) -> None:
    """Far below one half probabilities grow faster than log-odds: three steps from p = 0.01."""

    def probability(log_odds: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-log_odds))

    floor = np.log(0.01 / 0.99)
    alone = 1.0 + noise(2)
    together = PARTS * alone + noise(3, size=0.005)
    scales = {
        end: {
            PROBABILITY: probability(floor + effect) - probability(np.array(floor)),
            LOG_ODDS: effect, LOGITS: effect, CHANGES[3]: effect,
        }
        for end, effect in (("together", together), ("alone", alone))
    }  # fmt: skip
    table, verdicts = compared(tmp_path, scales["together"], scales["alone"])
    assert set(kinds(table).values()) == {SUPER}
    assert set(kinds(table, LOG_ODDS).values()) == {ADDITIVE}
    told = verdicts[verdicts["statement"] == "not additive in probability, additive in log-odds"]
    assert told["value"].tolist() == [2 * LAYERS]


# --- held to a plain computation


def test_a_role_is_held_against_the_sum_over_its_positions(tmp_path: Path) -> None:
    """Examples with one position there say nothing of it; means are over the others."""
    together, alone = 0.3 + noise(1, size=0.1), 0.1 + noise(2, size=0.03)
    parts = np.ones((MANY, LAYERS, 2), dtype=int)
    parts[:, :, 0] = np.random.default_rng(3).integers(1, 5, (MANY, 1))
    table = compared(tmp_path, together, alone, parts=parts)[0]
    assert list(table.columns) == TABLE
    for row in rows_of(table, PROBABILITY):
        role = ROLES.index(row.token_role)
        chosen = parts[:, row.layer, role] > 1
        if not chosen.any():
            assert (row.known, row.kind) == (ONE_PART, ONE_PART)
            assert np.isnan(row.difference)
            continue
        one, of = together[chosen, row.layer, role], alone[chosen, row.layer, role]
        total = of * parts[chosen, row.layer, role]
        assert row.together == pytest.approx(one.mean())
        assert row.sum == pytest.approx(total.mean())
        assert row.difference == pytest.approx((one - total).mean())
        assert row.difference_low < row.difference < row.difference_high
        assert row.ratio == pytest.approx(one.mean() / total.mean())
        assert row.parts == pytest.approx(parts[chosen, row.layer, role].mean())
        assert row.pictures == chosen.sum()


def test_a_window_is_held_against_the_sum_over_its_layers(tmp_path: Path) -> None:
    """From ⌊n/2⌋ layers below to ⌈n/2⌉ − 1 above, as far as there are any."""
    together, alone = 0.3 + noise(1, size=0.1), 0.1 + noise(2, size=0.1)
    table = compared(tmp_path, together, alone, positions="each", window=3)[0]
    for row in rows_of(table, LOGITS):
        role = ROLES.index(row.token_role)
        layers = [n for n in range(row.layer - 1, row.layer + 2) if 0 <= n < LAYERS]
        total = alone[:, layers, role].sum(axis=1)
        assert row.sum == pytest.approx(total.mean())
        assert row.difference == pytest.approx((together[:, row.layer, role] - total).mean())
        assert row.parts == len(layers)


def test_all_positions_are_held_against_the_sum_over_every_role(tmp_path: Path) -> None:
    together, alone = 0.3 + noise(1, 1, size=0.1), 0.1 + noise(2, size=0.1)
    table = compared(tmp_path, together, alone, positions="all")[0]
    rows = table[table["quantity"] == PROBABILITY]
    assert rows["token_role"].tolist() == [ALL] * LAYERS
    total = PARTS * alone.sum(axis=2)
    assert rows["sum"].tolist() == pytest.approx(total.mean(axis=0))
    assert rows["difference"].tolist() == pytest.approx((together[:, :, 0] - total).mean(axis=0))


def test_windows_of_roles_are_held_against_the_sum_over_both(tmp_path: Path) -> None:
    together, alone = noise(1), 0.1 + noise(2, size=0.1)
    rows = compared(tmp_path, together, alone, window=2)[0]
    rows = rows[(rows["quantity"] == PROBABILITY) & (rows["token_role"] == "first")]
    total = PARTS * alone[:, :, 0]
    expected = [total[:, 0].mean(), *(total[:, n - 1 : n + 1].sum(axis=1).mean() for n in (1, 2))]
    assert rows["sum"].tolist()[:3] == pytest.approx(expected)
    assert rows["parts"].tolist()[:3] == [PARTS, 2 * PARTS, 2 * PARTS]


def test_heads_of_a_role_are_held_against_the_sum_over_its_positions(tmp_path: Path) -> None:
    """The mean over all positions, that a head has too, is no part of it."""
    asked = made_up_experiments(
        ("encoder.self_attention_heads",),
        noise_levels=(5.0,),
        ends={"joint": (NOISY, BASE), "singles": (NOISY, BASE)},
        settings={"joint": {"positions": "roles"}},
    )
    together, alone = 0.3 + noise(1), 0.1 + noise(2)
    tables = []
    for experiment, made, parts in ((asked[0], together, 1), (asked[1], alone, PARTS)):
        heads = np.broadcast_to(np.arange(2), made.shape)
        for role in ("first", ALL):
            tables.append(role_means(experiment, made, [role] * 2, head=heads, positions=parts))
    settings = {"pairs": [{"joint": "joint", "singles": "singles"}], "least_logits": 0.1}
    table = analyse(evidence_of(tmp_path, tables, asked, settings))[0]
    rows = rows_of(table, PROBABILITY)
    assert [(row.head, row.token_role) for row in rows] == [(0, "first"), (1, "first")] * LAYERS
    for row in rows:
        assert row.sum == pytest.approx(PARTS * alone[:, row.layer, row.head].mean())


def test_what_has_one_part_is_not_drawn(tmp_path: Path) -> None:
    parts = np.ones((MANY, LAYERS, 2), dtype=int)
    parts[:, :, 0] = PARTS
    table = compared(tmp_path, 0.6 + noise(1), noise(2, size=0.002), parts=parts)[0]
    drawn = synergy_figure(table[table["quantity"] == PROBABILITY], ROLES).data
    assert set(drawn["token_role"]) == {"first"}
    marked = drawn[drawn["marked"]]
    assert set(marked["panel"]) == {"the first less the second"}
    assert len(marked) == LAYERS


# --- what must not be said


def test_nothing_is_claimed_of_noise(tmp_path: Path) -> None:
    table, verdicts = compared(tmp_path, noise(1, size=0.1), noise(2, size=0.1))
    assert claims(table, verdicts) == set()


def test_nothing_is_claimed_where_nothing_is_done(tmp_path: Path) -> None:
    """That nothing adds up to nothing is no finding."""
    table, verdicts = compared(tmp_path, noise(1, size=1e-4), noise(2, size=1e-4))
    assert set(table["kind"]) == {NOTHING}
    assert claims(table, verdicts) == set()


def test_a_difference_that_does_not_count_is_not_told_apart_from_the_sum(tmp_path: Path) -> None:
    alone = 0.1 + noise(2, size=0.001)
    table, verdicts = compared(tmp_path, PARTS * alone + RULES.least_effect / 2, alone)
    assert set(kinds(table).values()) == {ADDITIVE}
    assert claims(table, verdicts) == {ADDITIVE}


@pytest.mark.parametrize("pictures", [1, 5])
def test_nothing_is_claimed_of_fewer_than_six_pictures(tmp_path: Path, pictures: int) -> None:
    table, verdicts = compared(
        tmp_path, 0.6 + noise(1), noise(2, size=0.002),
        pictures=[f"{n % pictures}" for n in range(MANY)],
    )  # fmt: skip
    assert claims(table, verdicts) == set()
    assert table[["difference_low", "ratio", "p_more"]].isna().all(axis=None)


def test_nothing_is_claimed_where_the_noise_hides_nothing(tmp_path: Path) -> None:
    """Then no example is included."""
    table, verdicts = compared(tmp_path, 0.6 + noise(1), noise(2), included=False)
    assert claims(table, verdicts) == set()


def test_one_part_is_no_finding(tmp_path: Path) -> None:
    """Put in together it is what it is alone, whatever rounding says."""
    alone = 0.3 + noise(1)
    table, verdicts = compared(tmp_path, alone + 1e-6, alone, parts=1)
    assert set(table["kind"]) == {ONE_PART}
    assert verdicts.empty


def test_what_is_known_beforehand_is_no_finding(tmp_path: Path) -> None:
    known = np.full((MANY, LAYERS, 2), "", dtype=object)
    known[:, 0], known[:, 1] = NO_OP, CEILING
    together, alone = 0.6 + noise(1), noise(2, size=0.002)
    found = kinds(compared(tmp_path, together, alone, known=known)[0])
    assert found[0, "first"] == NO_OP
    # That all together are the clean run is known; what each alone does is not.
    assert found[1, "first"] == found[2, "first"] == SUPER
    asked = experiments(positions="roles")
    tables = [role_means(asked[0], together, ROLES, known=known),
              role_means(asked[1], alone, ROLES, positions=PARTS, known=known)]  # fmt: skip
    settings = {"pairs": [{"joint": "joint", "singles": "singles"}], "least_logits": 0.1}
    found = kinds(analyse(evidence_of(tmp_path, tables, asked, settings))[0])
    assert (found[1, "first"], found[2, "first"]) == (CEILING, SUPER)


def test_no_sum_is_told_of_an_example_with_positions_of_no_role(tmp_path: Path) -> None:
    """They are part of the whole, and what they do alone is not known."""
    together, alone = 0.6 + noise(1, 1), noise(2, size=0.002)
    table, verdicts = compared(tmp_path, together, alone, positions="all", missing=1)
    assert claims(table, verdicts) == set()


def test_a_layer_that_is_missing_leaves_its_windows_out(tmp_path: Path) -> None:
    together, alone = 0.6 + noise(1), noise(2)
    alone[:, 2] = np.nan
    table = compared(tmp_path, together, alone, positions="each", window=3)[0]
    assert sorted(set(table["layer"])) == [0, 4]


@pytest.mark.parametrize("seed", range(3))
def test_effects_are_counted_towards_the_donor(tmp_path: Path, seed: int) -> None:
    """Taking away: together the answer falls by more than the sum of what each takes."""
    ends = {"joint": (BASE, NOISY), "singles": (BASE, NOISY)}
    asked = made_up_experiments(
        noise_levels=(5.0,), ends=ends, settings={"joint": {"positions": "roles"}}
    )
    tables = [
        role_means(asked[0], -0.6 + noise(seed), ROLES),
        role_means(asked[1], noise(seed + 9, size=0.002), ROLES, positions=PARTS),
    ]
    settings = {"pairs": [{"joint": "joint", "singles": "singles"}], "least_logits": 0.1}
    table = analyse(evidence_of(tmp_path, tables, asked, settings))[0]
    assert set(kinds(table).values()) == {SUPER}
    assert (table["together"] > 0).all()


# --- how it is asked for

SINGLES = {"receiver": "noisy", "donor": "base", "sites": ["encoder.mlp"]}


@pytest.mark.parametrize(
    ("joint", "singles", "message"),
    [
        ({"positions": "roles"}, {}, ""),
        ({"positions": "all"}, {}, ""),
        ({"window": 3}, {}, ""),
        ({"window": 3, "positions": "roles"}, {"positions": "roles"}, ""),
        ({"positions": "roles", "window": 3}, {"window": 3}, ""),
        ({}, {}, ": joint puts in no more than singles; give it roles or a window"),
        (
            {"positions": "all"},
            {"positions": "roles"},
            ": singles does not put in the positions of joint one by one; give it positions: each",
        ),
        ({"window": 3}, {"window": 2}, ": singles has a window too; give one whose window is 1"),
        (
            {"receiver": "base", "donor": "noisy", "window": 3},
            {},
            ": joint and singles are of other runs; give both the same",
        ),
        (
            {"sites": ["encoder.block_input"], "window": 3},
            {},
            ": joint and singles have no site in common; give them one",
        ),
        (
            {"sites": ["vision.mlp"], "window": 3, "regions": 3},
            {"sites": ["vision.mlp"]},
            ": joint and singles have other regions; give both the same",
        ),
        (
            {"sites": [], "window": 3},
            {},
            ".joint: 'joint' is not an experiment with a site; known are",
        ),
    ],
)
def test_what_has_no_sum_of_singles_is_one_line(
    joint: dict[str, Any], singles: dict[str, Any], message: str
) -> None:
    config = with_key("analyses.synergy", {"pairs": [{"joint": "joint", "singles": "singles"}]})
    config["runs"] = {"noisy": {"of": "base", "corrupt": {"levels": [2.0]}}}
    config["effects"].pop("primary_level", None)
    config["experiments"] = {"joint": SINGLES | joint, "singles": SINGLES | singles}
    if message:
        assert refusal(fill_config, config).startswith(f"analyses.synergy.pairs[0]{message}")
    else:
        assert fill_config(config)["analyses"]["synergy"]["least_logits"] == 0.1
