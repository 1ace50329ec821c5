"""A multiverse finds what is there whichever way is asked, and claims nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import render_report
from drawn import figure_of, shown_texts, shrunk
from matplotlib.figure import Figure
from refusals import SMALLEST, refusal
from test_render import NOTEBOOKS, TEMPLATE, WORKFLOW

from blip_tracing.drawing import figures
from blip_tracing.drawing.analyses.multiverse import choices, curve, share_map
from blip_tracing.given.plan import Plan
from blip_tracing.given.settings import fill_config
from blip_tracing.machinery.tables import write_table
from blip_tracing.meaning.analyses.multiverse import (
    ALONE,
    LAST_PICTURES,
    NONE_SURVIVES,
    ONE_PICTURE,
    SILENT,
    SURVIVES,
    by_choice,
    conclude,
    deciding,
    scopes,
    shares,
)
from blip_tracing.meaning.effects import HALVES, QUANTITIES
from blip_tracing.meaning.statistics import left_out_tests, max_t_test
from blip_tracing.meaning.summary import Rules
from blip_tracing.meaning.universes import EVERY_PLACE, overlap, universes_of
from blip_tracing.vocabulary.analyses import orientation
from blip_tracing.vocabulary.corruptions import Corruption
from blip_tracing.vocabulary.experiment import BASE, SOURCE, Experiment, Run
from blip_tracing.vocabulary.tables import (
    CEILING,
    FALSE_MARKS,
    FEW_NULLS,
    FEW_PICTURES,
    NOTHING_HIDDEN,
)

RULES = Rules(total_effect=0.05, least_effect=0.02, resamples=500, seed=0)
SITE, OTHER_SITE, HEADS = "encoder.block_output", "encoder.mlp", "encoder.self_attention_heads"
# As tables sort them.
ROLES = ("[CLS]", "[SEP]", "differing word")
LAYERS = 4
CELLS = list(product(range(LAYERS), ROLES))
STRONG, OF_ONE = (1, "differing word"), (2, "[SEP]")
WAYS: dict[str, Any] = {
    "quantities": [
        {"quantity": "probability_change", "least": [0.02]},
        {"quantity": "log_odds_change", "least": [0.1]},
        {"quantity": "normalised", "least": [0.02]},
    ],
    "spreads": [],
    "nulls": ["none", "unrelated"],
    "seeds": [0],
}
ONE_QUANTITY = {**WAYS, "quantities": WAYS["quantities"][:1]}
Values = Mapping[str, np.ndarray]


def experiment(name: str = "restoring", seed: int = 0, **otherwise: Any) -> Experiment:
    noise = Corruption("gaussian", "question.embeddings", (5.0,), 5, seed)
    ends = {"receiver": Run("noisy", BASE, noise), "donor": Run(BASE, BASE), "sites": (SITE,)}
    return Experiment(name, **{**ends, **otherwise})


def nothing(examples: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Changes that are noise about zero, in every quantity: (N, M)."""
    random = np.random.default_rng(seed)
    shape = (examples, len(CELLS))
    return {name: random.normal(0, 0.05, shape) for name in [*QUANTITIES, *HALVES]}


def planted(examples: int = 12, seed: int = 0) -> dict[str, np.ndarray]:
    """The strong place in every quantity; beside it, one that the log odds alone find."""
    values, random = nothing(examples, seed), np.random.default_rng(seed + 100)
    for quantity in ("probability_change", "log_odds_change", "normalised", "contrast"):
        values[quantity][:, CELLS.index(STRONG)] = random.uniform(0.4, 0.6, examples)
    for quantity in ("log_odds_change", "contrast"):
        values[quantity][:, CELLS.index(OF_ONE)] = random.uniform(0.4, 0.6, examples)
    return values


def tables(
    values: Values,
    asked: Experiment,
    site: str = SITE,
    total: float = 0.5,
    known: Mapping[tuple[int, str], str] | None = None,
    head: int = -1,
    included: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`role_means` and `cell_means` of one map, a picture each example."""
    rows = []
    for example in range(len(values["contrast"])):
        for cell, (layer, role) in enumerate(CELLS):
            rows.append(
                {"experiment": asked.name, "example": f"e{example:02d}", "site": site, "level": 0,
                 "noise_level": 5.0, "picture": f"p{example:02d}", "group": "",
                 "included": included,
                 "layer": layer, "head": head, "token_role": role,
                 "known": (known or {}).get((layer, role), ""),
                 **{name: of[example, cell] for name, of in values.items()}}
            )  # fmt: skip
    of_roles = pd.DataFrame(rows)
    of_cells = of_roles.drop_duplicates("example").assign(total_effect=total)
    return of_roles, of_cells


def asked_of(
    values: Values, ways: Mapping[str, Any] = WAYS, asked: Experiment | None = None, **given: Any
) -> pd.DataFrame:
    asked = asked or experiment()
    return universes_of(asked, *tables(values, asked, **given), ways, RULES)


def concluded(
    universes: list[pd.DataFrame], exceeded: tuple[str, ...] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    names = [name for of in universes for name in of["experiment"].unique()]
    negatives = pd.DataFrame({"experiment": names, "exceeded": [n in exceeded for n in names]})
    return conclude(universes, negatives)


def told(verdicts: pd.DataFrame, verdict: str) -> list[str]:
    return verdicts.loc[verdicts["verdict"] == verdict, "statement"].tolist()


def place(cell: tuple[int, str]) -> str:
    return f"layer {cell[0]}, {cell[1]}"


# --- leaving a picture out


def test_without_a_picture_the_tests_are_those_of_the_rest() -> None:
    random = np.random.default_rng(3)
    values = random.normal(0.2, 0.3, (11, 5))
    values[random.random(values.shape) < 0.1] = np.nan
    pictures = [f"p{number % 8}" for number in range(11)]
    found = left_out_tests(values, 2000, 0, pictures, 0.05)
    for row, picture in enumerate(sorted(set(pictures))):
        rest = np.array([name != picture for name in pictures])
        there = [len({p for p, v in zip(np.array(pictures)[rest], values[rest, cell], strict=True)
                      if v == v}) for cell in range(5)]  # fmt: skip
        enough = np.where(np.array(there) < 6, np.nan, values[rest])
        alone = max_t_test(enough, 2000, 0, list(np.array(pictures)[rest]), 0.05).p
        np.testing.assert_allclose(found[row], alone)


def test_of_six_pictures_none_can_be_left_out() -> None:
    assert np.isnan(left_out_tests(np.ones((6, 2)), 2000, 0)).all()


# --- a planted truth


def test_the_strong_place_survives_and_that_of_one_quantity_does_not() -> None:
    table, verdicts = concluded(
        [asked_of(planted()), asked_of(planted(seed=1), asked=experiment("again", 1))]
    )
    assert told(verdicts, SURVIVES) == [place(STRONG)]
    found = shares(table).set_index(["layer", "token_role"])
    assert found.loc[STRONG, "share"] == 1
    assert found.loc[OF_ONE, "share"] == pytest.approx(1 / 3)
    assert found["share"].drop([STRONG, OF_ONE]).max() < 0.5
    assert told(verdicts, "the quantity decides") == [f"{place(OF_ONE)}: share of universes"]


def test_noise_survives_nowhere() -> None:
    for seed in range(10):
        table, verdicts = concluded(
            [asked_of(nothing(12, seed)), asked_of(nothing(12, seed), asked=experiment("again", 1))]
        )
        assert (table["reason"] == "").all()
        assert not told(verdicts, SURVIVES)
        assert told(verdicts, NONE_SURVIVES) == ["what survives in all of them"]


def test_a_universe_is_what_a_plain_computation_gives() -> None:
    values = planted()
    ways = {**WAYS, "quantities": [{"quantity": "probability_change", "least": [0.02, 0.45]}]}
    table, _ = concluded([asked_of(values, ways)])
    for (least, null), rows in table.groupby(["least", "null"]):
        assert isinstance(least, float)
        floor = max_t_test(values["probability_change"], 500, 0, None, least).p
        beyond = max_t_test(values["contrast"], 500, 0, None, least).p
        p = np.maximum(floor, beyond) if null == "unrelated" else floor
        np.testing.assert_allclose(rows["p"], p)
        mean = values["probability_change"].mean(axis=0)
        np.testing.assert_array_equal(rows["found"], (p < 0.05) & (mean >= least))
    assert set(table["threshold"]) == {"least change 1", "least change 2"}


def test_a_spread_is_the_mean_of_the_map_and_deviations_more() -> None:
    values, ways = planted(), {**WAYS, "spreads": [2], "nulls": ["none"]}
    rows = asked_of(values, ways)
    rows = rows[(rows["threshold"] == "mean + 2 sd") & (rows["quantity"] == "probability_change")]
    means = values["probability_change"].mean(axis=0)
    assert rows["least"].unique() == pytest.approx([means.mean() + 2 * means.std()])
    assert rows.loc[rows["found"], "layer"].tolist() == [STRONG[0]]


def test_the_variance_is_shared_out_among_choices_that_are_crossed() -> None:
    """Found where the null is none or the quantity the first: by hand, of 2 × 2 universes."""
    rows = [
        {"universe": number, "layer": 0, "head": -1, "token_role": "[CLS]", "reason": "",
         "found": null == "none" or quantity == "a", "quantity": quantity, "null": null,
         **dict.fromkeys(["corruption", "draw_seed", "experiment", "noise_level", "site",
                          "threshold", "seed"], 0)}
        for number, (quantity, null) in enumerate(product("ab", ("none", "unrelated")))
    ]  # fmt: skip
    made = deciding(pd.DataFrame(rows)).iloc[0]
    # Of 3/4 found, the variance is 3/16; a choice's halves have 1 and 1/2: 1/16.
    assert made["quantity"] == made["null"] == pytest.approx(1 / 3)
    assert made[["site", "threshold", "seed", "experiment"]].eq(0).all()
    found = by_choice(pd.DataFrame(rows)).set_index(["dimension", "choice"])["share"]
    assert found.to_dict() == {
        ("quantity", "a"): 1,
        ("quantity", "b"): 0.5,
        ("null", "none"): 1,
        ("null", "unrelated"): 0.5,
    }


def test_choices_that_were_not_varied_apart_are_both_named() -> None:
    strong = planted()
    one = asked_of(strong, {**ONE_QUANTITY, "nulls": ["none"]})
    weak = asked_of(nothing(12), {**WAYS, "quantities": WAYS["quantities"][1:2],
                                  "nulls": ["unrelated"]})  # fmt: skip
    _, verdicts = concluded([one, weak])
    assert told(verdicts, "quantity or null or threshold decides: not varied apart") == []
    assert told(verdicts, "quantity or null decides: not varied apart") == [
        f"{place(STRONG)}: share of universes"
    ]


def test_what_changes_with_another_choice_alone_is_named_with_it() -> None:
    """Another corruption has other draws too: which of them makes the difference is not known."""
    other = Corruption("scale", "picture.states", (0.1,), 1, 7)
    dimmed = experiment("dimmed", receiver=Run("dim", BASE, other))
    _, verdicts = concluded([asked_of(planted()), asked_of(nothing(12), asked=dimmed)])
    assert f"{place(STRONG)}: share of universes" in told(
        verdicts, "corruption or seed of the draws decides: not varied apart"
    )


# --- what must not be claimed


def test_places_all_alike_are_no_finding() -> None:
    values = {name: np.full((12, len(CELLS)), 0.3) for name in nothing(1)}
    for top in ({}, {"top": 3}):
        table, verdicts = concluded([asked_of(values, {**WAYS, **top})])
        assert not told(verdicts, SURVIVES)
        assert not table["found"].any()
    table, verdicts = concluded([asked_of(values)])
    assert set(table["reason"]) == {EVERY_PLACE}
    assert told(verdicts, SILENT) == ["what survives in all of them"]


def test_of_places_alike_but_for_noise_none_is_known_to_be_on_top() -> None:
    ways, claimed = {**WAYS, "top": 2}, 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        values = nothing(12, seed)
        for quantity in ("probability_change", "log_odds_change", "normalised", "contrast"):
            values[quantity] = random.normal(0.3, 0.1, values[quantity].shape)
        _, verdicts = concluded([asked_of(values, ways)])
        claimed += len(told(verdicts, SURVIVES))
    assert claimed <= 1


def test_the_top_set_has_the_strongest_alone() -> None:
    values = planted(20)
    for quantity in ("probability_change", "log_odds_change", "normalised", "contrast"):
        values[quantity][:, 0] = np.random.default_rng(7).uniform(0.1, 0.2, 20)
    ways = {**ONE_QUANTITY, "top": 1}
    table, verdicts = concluded([asked_of(values, ways)])
    assert told(verdicts, SURVIVES) == [place(STRONG)]
    assert table.loc[table["found"], "layer"].unique().tolist() == [STRONG[0]]


def test_where_nothing_is_hidden_nothing_is_said() -> None:
    table, verdicts = concluded([asked_of(planted(), total=0.01)])
    assert set(table["reason"]) == {NOTHING_HIDDEN}
    assert told(verdicts, SILENT)
    assert not table["found"].any()


def test_fewer_than_six_pictures_say_nothing() -> None:
    table, verdicts = concluded([asked_of(planted(5))])
    assert set(table["reason"]) == {FEW_PICTURES}
    assert told(verdicts, SILENT)
    assert not told(verdicts, SURVIVES)
    assert table[["low", "high", "stays", "overlap"]].isna().all(axis=None)


def test_of_six_pictures_it_is_not_known_what_holds_without_one() -> None:
    _, verdicts = concluded([asked_of(planted(6), ONE_QUANTITY)])
    assert not told(verdicts, SURVIVES)
    assert told(verdicts, LAST_PICTURES) == [f"{place(STRONG)}: share of universes"]


def test_a_place_that_one_picture_makes_does_not_survive() -> None:
    """Of eight pictures seven must agree for a p below 0.05: one less, and it is gone."""
    values = nothing(8)
    for quantity in ("probability_change", "log_odds_change", "normalised", "contrast"):
        values[quantity][:] = 0
        values[quantity][:, 0] = [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, -0.02, 0.02]
    values["probability_change"][:, 1:] = np.random.default_rng(0).normal(-0.1, 0.01, (8, 11))
    _, verdicts = concluded([asked_of(values)])
    found = [*told(verdicts, ONE_PICTURE), *told(verdicts, SURVIVES)]
    whole = max_t_test(values["probability_change"], 500, 0, None, 0.02).p[0] < 0.05
    without = [
        max_t_test(np.delete(values["probability_change"], out, 0), 500, 0, None, 0.02).p[0] < 0.05
        for out in range(8)
    ]
    assert whole
    assert not all(without)
    assert found == [f"{place(CELLS[0])}: share of universes"]


def test_one_universe_is_no_multiverse_nor_are_its_seeds() -> None:
    ways = {**ONE_QUANTITY, "nulls": ["none"]}
    for seeds in ([0], [0, 1, 2]):
        table, verdicts = concluded([asked_of(planted(), {**ways, "seeds": seeds})])
        assert table["universe"].nunique() == len(seeds)
        assert not told(verdicts, SURVIVES)
        assert told(verdicts, ALONE) == ["what survives in all of them"]


def test_a_universe_that_says_nothing_is_no_support() -> None:
    values = planted()
    values["contrast"][5:] = np.nan
    table, verdicts = concluded([asked_of(values)])
    assert set(table.loc[table["null"] == "unrelated", "reason"]) == {FEW_NULLS}
    counts = verdicts[verdicts["statement"] == "universes that say something"]
    assert counts["verdict"].tolist() == [f"3 of 6; 3: {FEW_NULLS}"]
    assert shares(table).set_index(["layer", "token_role"]).loc[STRONG, "found"] == 3


def test_an_experiment_with_marks_on_negative_controls_is_no_support() -> None:
    again = asked_of(planted(), asked=experiment("again", 1))
    table, verdicts = concluded([asked_of(planted()), again], ("again",))
    assert set(table.loc[table["experiment"] == "again", "reason"]) == {FALSE_MARKS}
    assert not table.loc[table["experiment"] == "again", "found"].any()
    assert told(verdicts, SURVIVES) == [place(STRONG)]
    _, verdicts = concluded([again], ("again",))
    assert told(verdicts, SILENT) == ["what survives in all of them"]


def test_a_place_that_is_known_beforehand_is_none() -> None:
    table, verdicts = concluded([asked_of(planted(), known={STRONG: CEILING})])
    assert not told(verdicts, SURVIVES)
    assert not ((table["layer"] == STRONG[0]) & (table["token_role"] == STRONG[1])).any()


def test_a_place_that_one_experiment_cannot_have_does_not_survive() -> None:
    again = asked_of(planted(), asked=experiment("again", 1), known={STRONG: CEILING})
    _, verdicts = concluded([asked_of(planted()), again])
    assert not told(verdicts, SURVIVES)


def test_sites_are_told_apart_and_together_where_their_axes_agree() -> None:
    both = [
        asked_of(planted(), asked=experiment("restoring", sites=(SITE, OTHER_SITE)), site=site)
        for site in (SITE, OTHER_SITE)
    ]
    heads = asked_of(planted(), asked=experiment("heads", sites=(HEADS,)), site=HEADS, head=0)
    _, verdicts = concluded([*both, heads])
    survive = verdicts[verdicts["verdict"] == SURVIVES]
    assert survive["about"].tolist() == [SITE, OTHER_SITE, "all sites of encoder", HEADS]
    assert survive["statement"].iloc[-1] == "layer 1, head 0, differing word"


def test_halves_of_places_alike_overlap_by_chance() -> None:
    random = np.random.default_rng(0)
    alike = [
        overlap(random.normal(size=(12, 24)), [f"p{n}" for n in range(12)], 3, 0) for _ in range(60)
    ]
    mean = np.mean([each["overlap"] for each in alike])
    # Of two sets of 3 of 24: plain counting over random pairs of sets.
    sets = [set(random.choice(24, 3, replace=False)) for _ in range(4000)]
    counted = [len(a & b) / len(a | b) for a, b in zip(sets[::2], sets[1::2], strict=True)]
    assert alike[0]["overlap_by_chance"] == pytest.approx(np.mean(counted), abs=0.01)
    assert mean == pytest.approx(np.mean(counted), abs=0.04)
    tied = overlap(np.zeros((12, 24)), [f"p{n}" for n in range(12)], 3, 0)
    assert tied["overlap"] == pytest.approx(np.mean(counted), abs=0.03)


def test_changes_are_told_towards_what_is_to_be_brought() -> None:
    base, source = Run(BASE, BASE), Run(SOURCE, SOURCE)
    noisy = experiment().receiver
    signs = {
        (noisy, base): (1, 1), (base, noisy): (-1, -1), (base, source): (1, -1),
    }  # fmt: skip
    for (receiver, donor), (probability, difference) in signs.items():
        asked = experiment(receiver=receiver, donor=donor)
        assert orientation(asked, "probability_change") == probability
        assert orientation(asked, "logit_difference_change") == difference
        assert orientation(asked, "normalised") == 1


# --- figures and page


def drawn_scopes(universes: list[pd.DataFrame]) -> Iterator[Figure]:
    """Every figure of every scope."""
    table, _ = concluded(universes)
    for about, rows in scopes(table):
        found = shares(rows)
        plots = [curve(rows, about), choices(rows, about)]
        plots += [share_map(found, ROLES, about)] if len(found) else []
        for plot in filter(None, plots):
            with figures.print_style():
                yield figure_of(plot)
        plt.close("all")


def test_figures_hold_all_that_they_say() -> None:
    many = {**WAYS, "spreads": [1, 2], "seeds": [0, 1]}
    apart = experiment("a_long_name_of_an_experiment", 1)
    seen = []
    for figure in drawn_scopes(
        [asked_of(planted(), many), asked_of(planted(seed=1), many, asked=apart)]
    ):
        figure.draw_without_rendering()
        texts = [(text, box) for text, box in shown_texts(figure) if box.width]
        for text, box in texts:
            assert box.x0 >= 0 and box.y0 >= 0, text  # noqa: PT018
            assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text  # noqa: PT018
        for (one, box), (other, beside) in combinations(texts, 2):
            assert not shrunk(box).overlaps(shrunk(beside)), f"{one!r} and {other!r}"
        seen.append({text for text, _ in texts})
    assert f"{place(STRONG)}: 100 %" in seen[0]
    assert {"null: unrelated", "threshold: mean + 2 sd", "seed of the draws: 1"} <= seen[0]
    assert {"made by the quantity", "33 %"} <= seen[1]
    assert len(seen) == 3


@pytest.mark.parametrize(
    "universes",
    [
        lambda: [asked_of(nothing(12), ONE_QUANTITY)],
        lambda: [asked_of(planted(5))],
        lambda: [asked_of(planted(), {**ONE_QUANTITY, "nulls": ["none"]})],
        lambda: [asked_of(planted(), known=dict.fromkeys(CELLS, CEILING))],
        lambda: [asked_of(planted(), total=0.0), asked_of(planted(), asked=experiment("b", 1))],
        lambda: [asked_of(planted(), included=False)],
    ],
    ids=["nothing found", "few pictures", "one universe", "no open place", "half of it silent",
         "no example"],
)  # fmt: skip
def test_what_says_little_is_drawn_all_the_same(
    universes: Callable[[], list[pd.DataFrame]],
) -> None:
    for figure in drawn_scopes(universes()):
        figure.draw_without_rendering()


def test_the_page_has_survivors_in_bold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, found in (("some", planted()), ("none", nothing(12))):
        folder = tmp_path / name
        folder.mkdir()
        ways = ONE_QUANTITY
        for table, stem in zip(
            concluded([asked_of(found, ways)]), ("multiverse", "multiverse_verdicts"), strict=True
        ):
            write_table(table, folder / f"{stem}.csv")
        monkeypatch.chdir(folder)
        parameters = {
            "tables": {stem: f"{stem}.csv" for stem in ("multiverse", "multiverse_verdicts")},
            "figures": "figures", "settings": ways, "roles": list(ROLES), "experiments": {},
            "scripts": str(WORKFLOW / "scripts"),
        }  # fmt: skip
        render_report.render(
            NOTEBOOKS / "multiverse.ipynb", parameters, folder / "page.ipynb", folder / "page.html",
            TEMPLATE,
        )  # fmt: skip
    bold = f"<strong>{place(STRONG)}</strong>"
    assert bold in (tmp_path / "some/page.html").read_text(encoding="utf-8")
    page = (tmp_path / "none/page.html").read_text(encoding="utf-8")
    assert "<strong>layer" not in page
    assert f"{SITE}: none" in page


# --- configuration and plan


def config(**changes: Any) -> dict[str, Any]:
    def noise(**corrupt: Any) -> dict[str, Any]:
        return {"of": "base", "corrupt": corrupt}

    return {
        **SMALLEST,
        "runs": {"noisy": noise(levels=[1, 2], draws=2), "same": noise(levels=[2, 5], draws=2),
                 "again": noise(levels=[1, 2], draws=2, seed=1)},
        "experiments": {
            name: {"receiver": run, "donor": "base"}
            for name, run in (("one", "noisy"), ("two", "same"), ("three", "again"))
        },
        "effects": {"primary_level": 2},
        "report": {"draws_at": 2},
        "analyses": {"multiverse": {"experiments": ["one", "three"], **changes}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experiments": ["one", "tree"]},
         "analyses.multiverse.experiments[1]: 'tree' is not an experiment with a site; "
         "did you mean three?"),
        ({"experiments": ["one", "two"]},
         "analyses.multiverse.experiments[1]: two and one measure the same, which would count "
         "twice; leave one out, or give one's corrupted run another seed"),
        ({"quantities": [{"quantity": "normalised"}] * 2},
         "analyses.multiverse.quantities: has a quantity twice; give its least changes together"),
        ({"quantities": [{"quantity": "normalised", "least": [0, 1]},
                         {"quantity": "log_odds_change"}]},
         "analyses.multiverse.quantities: have not as many least changes each, by which thresholds "
         "are compared; give each as many"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_one_line(changes: dict[str, Any], message: str) -> None:
    assert refusal(fill_config, config(**changes)) == message


def test_an_experiments_universes_depend_on_no_other() -> None:
    rows = [{"example": "a", "image": "a.png", "base_question": "b", "source_question": "s"}]
    plan = Plan(fill_config(config()), rows)
    (part,) = plan.universe_parts("three")
    files = [part["tokens"], part["baseline"], *part["runs"], *part["facts"],
             *(path for paths in part["cells"] for path in paths)]  # fmt: skip
    assert len(part["cells"]) == 2
    assert not [path for path in files if "noisy" in path or "/one/" in path or "/two/" in path]
    assert {"results/runs/again/0000.parquet", "results/cells/three/levels_1.0/0000.parquet",
            "results/controls/three/levels_2.0/0000.parquet"} <= set(files)  # fmt: skip
