"""Against what was published: the mechanism proved where the truth is known, on the miniature."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable
from html import unescape
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from drawn import shown_texts, shrunk
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from plain_tutorial import EXAMPLE, SITE, Tutorial, open_tutorial, patching_map, publish
from project import BLIP_FILES, ROOT, planned_jobs, run, snakemake

from blip_tracing.drawing.palette import BLUE
from blip_tracing.drawing.replication_figures import FIGURES
from blip_tracing.errors import InputError
from blip_tracing.given.settings import fill_config
from blip_tracing.given.sheet import load_sheet
from blip_tracing.machinery.tables import read_table
from blip_tracing.meaning.replication.compare import (
    ABSENT,
    AGREES,
    CANNOT_TELL,
    DIFFERS,
    FACTOR,
    SHIFTED,
    SHIFTS,
    SHOWN,
    TOO_FEW,
    Redrawn,
    as_published,
    best_shift,
    compare,
    disagreeing,
    judge,
    power_of,
    simulate,
)
from blip_tracing.meaning.replication.published import (
    KEYS,
    check_run,
    figures_of,
    like_published,
    read_published,
)
from blip_tracing.vocabulary.corruptions import QUESTION_EMBEDDINGS, Corruption
from blip_tracing.vocabulary.experiment import BASE, SOURCE, Experiment, Run, experiments_of
from blip_tracing.vocabulary.sites import SITES

SHIPPED = ROOT / "resources/published/tutorial.csv"
TABLES = ("baseline", "runs", "tokens", "patching", "tracing")
# What flows out of a block, of which the published site is the input.
OUTPUT = SITES["encoder.block_output"].name
WIDTH = 64
EXACT = ("top_logit", "top_probability", "patching")
NOISY = ("noise_mean", "iteration_mean", "mean_cell")

Tables = dict[str, pd.DataFrame]
Verdicts = dict[str, dict[Hashable, Any]]


# ---- what ships --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> pd.DataFrame:
    return read_published(SHIPPED)


def test_all_that_the_tutorial_published_ships(shipped: pd.DataFrame) -> None:
    cells = 12 * 9
    assert shipped["quantity"].value_counts().to_dict() == {
        "top_logit": 20,
        "top_probability": 20,
        "patching": cells,
        "noise_cell": 7 * cells,
        "noise_mean": 7,
        "iteration_cell": 10 * cells,
        "iteration_mean": 10,
        "mean_cell": cells,
    }
    maps = shipped[shipped["layer"].notna()]
    for _, cells_of_one in maps.groupby(["quantity", "noise_level", "draw"], dropna=False):
        places = set(zip(cells_of_one["layer"], cells_of_one["position"], strict=True))
        assert places == {(layer, position) for layer in range(12) for position in range(9)}


def test_the_shipped_numbers_are_what_they_can_be(shipped: pd.DataFrame) -> None:
    assert not shipped.duplicated(list(KEYS)).any()
    assert (shipped["error"] > 0).all()
    assert set(shipped["origin"]) == {"printed", "figure"}
    assert set(shipped.loc[shipped["layer"].notna(), "site"]) == {SITE}
    probabilities = shipped[shipped["quantity"] != "top_logit"]
    assert probabilities["value"].between(0, 1).all()
    assert (probabilities["error"] < 0.006).all()
    answers = {("base", "top_logit"): "brown", ("source", "top_logit"): "red"}
    firsts = shipped[shipped["rank"] == 1].set_index(["question", "quantity"])["token"]
    assert {key: firsts[key] for key in answers} == answers


def test_the_shipped_maps_have_the_printed_means(shipped: pd.DataFrame) -> None:
    for cell, mean, keys in (
        ("noise_cell", "noise_mean", ["noise_level"]),
        ("iteration_cell", "iteration_mean", ["noise_level", "draw"]),
    ):
        of_cells = shipped[shipped["quantity"] == cell].groupby(keys)["value"].mean()
        printed = shipped[shipped["quantity"] == mean].set_index(keys)["value"]
        assert of_cells.to_numpy() == pytest.approx(printed[of_cells.index].to_numpy(), abs=5e-4)


def test_patching_what_the_questions_share_changes_nothing(shipped: pd.DataFrame) -> None:
    """At layer 0 only the noun differs: elsewhere p(red) is the base run's, there the source's."""
    patched = shipped[(shipped["quantity"] == "patching") & (shipped["layer"] == 0)]
    red = shipped[(shipped["quantity"] == "top_probability") & (shipped["token"] == "red")]
    p = red.set_index("question")["value"]
    at = patched.set_index("position")["value"]
    assert at[7] == p["source"]
    assert set(at.drop(7)) == {p["base"]}


def test_the_full_replication_can_be_held_against_it(shipped: pd.DataFrame) -> None:
    sheet = pd.read_csv(ROOT / "config/blip-vqa-base.tsv", sep="\t")
    config = fill_config(yaml.safe_load((ROOT / "config/blip-vqa-base.yaml").read_text()))
    check_run(shipped, SHIPPED, list(sheet["example"]), experiments_of(config))


def test_the_full_replication_runs_what_it_names_and_nothing_newer() -> None:
    """A branch moves, and an address may give another picture one day."""
    config = yaml.safe_load((ROOT / "config/blip-vqa-base.yaml").read_text())
    assert re.fullmatch("[0-9a-f]{40}", config["model"]["revision"])
    (row,) = load_sheet(ROOT / "config/blip-vqa-base.tsv").to_dict("records")
    assert re.fullmatch("[0-9a-f]{64}", row["image_sha256"])
    given = BLIP_FILES / "coco-000000458864.jpg"
    if given.is_file():
        assert hashlib.sha256(given.read_bytes()).hexdigest() == row["image_sha256"]


def test_the_full_replication_compares_thirty_draws_at_the_iterated_level() -> None:
    """Beside ten at each of the seven published levels."""
    config = fill_config(yaml.safe_load((ROOT / "config/blip-vqa-base.yaml").read_text()))
    experiments = experiments_of(config)
    draws = {
        (name, level): experiments[name].draws
        for name in like_published(experiments)["tracing"]
        for level in experiments[name].levels
    }
    levels = (0.1, 0.5, 1, 2, 5, 10, 20)
    assert all(draws["tracing", level] == 10 for level in levels)
    assert max(count for (_, level), count in draws.items() if level == 1) == 30


def test_the_replication_follows_the_answers_that_the_published_numbers_are_of(
    shipped: pd.DataFrame,
) -> None:
    """Else a checkpoint that answers otherwise gives no numbers to compare with them."""
    sheet = pd.read_csv(ROOT / "config/blip-vqa-base.tsv", sep="\t").set_index("example")
    followed = shipped[~shipped["quantity"].isin(["top_logit", "top_probability"])]
    assert set(followed["quantity"]) == set(shipped["quantity"]) - {"top_logit", "top_probability"}
    for example, row in sheet.iterrows():
        part = followed[followed["example"] == example]
        patched = part["quantity"] == "patching"
        assert set(part.loc[patched, "token"]) == {row["source_answer"]}
        assert set(part.loc[~patched, "token"]) == {row["base_answer"]}


# ---- tables that are refused -------------------------------------------------------------------

HEADER = f"{','.join(KEYS)},value,error,origin"
PATCH = f"patching,a,source,,red,22,{SITE},,,,0,7,0.6,0.002,figure"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quantity,value\npatching,1\n", "has no column example; its columns are quantity,"),
        (f"{HEADER}\n{PATCH.replace('patching', 'pach')}\n", "row 2: 'pach' is no quantity; known"),
        (
            f"{HEADER}\n{PATCH.replace('source', 'red')}\n",
            "row 2: question is 'red'; write base",
        ),
        (f"{HEADER}\n{PATCH.replace('0,7', ',7')}\n", "row 2: layer is empty; patching needs it"),
        (f"{HEADER}\n{PATCH.replace('0.6', 'x')}\n", "row 2: value 'x' is no number"),
        (f"{HEADER}\n{PATCH.replace('0,7', '0.5,7')}\n", "row 2: layer '0.5' is no whole number"),
        (f"{HEADER}\n{PATCH}\n{PATCH}\n", "row 3: has the keys of a row above; keep it once"),
    ],
)
def test_a_wrong_table_is_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "published.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        read_published(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_table_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file; mend published in the config"):
        read_published(tmp_path / "published.csv")


LACKING = (
    f"is of patching at {SITE}, where no experiment puts source into base; add {SITE} to the sites "
    "of one, or leave published empty"
)
CLEAN = {name: Run(name, name) for name in (BASE, SOURCE)}


def noisy(at: str = QUESTION_EMBEDDINGS, question: str = BASE) -> Run:
    return Run("noisy", question, Corruption("gaussian", at, (1.0,), 10, 0))


def asked(
    name: str, receiver: Run = CLEAN[BASE], donor: Run = CLEAN[SOURCE], site: str = SITE
) -> dict[str, Experiment]:
    return {name: Experiment(name, receiver, donor, (site,))}


@pytest.mark.parametrize(
    ("examples", "experiments", "message"),
    [
        (["b"], asked("patching"), "is of example 'a', which the sheet lacks; name its row so"),
        (["a"], asked("patching", site=OUTPUT), LACKING),
        # An experiment without a site is none of the run's.
        (["a"], {}, LACKING),
        (["a"], asked("tracing", noisy(), CLEAN[BASE]), LACKING),
        (
            ["a"],
            asked("patching", donor=noisy()),
            "is of patching, which puts source into base; experiments.patching puts noisy into "
            f"base and is not compared; add such an experiment at {SITE}, or leave published empty",
        ),
    ],
)
def test_what_a_run_lacks_is_told(
    tmp_path: Path, examples: list[str], experiments: dict[str, Experiment], message: str
) -> None:
    path = tmp_path / "published.csv"
    path.write_text(f"{HEADER}\n{PATCH}\n")
    published = read_published(path)
    check_run(published, path, ["a", "b"], asked("of_another_name"))
    with pytest.raises(InputError, match=re.escape(message)):
        check_run(published, path, examples, experiments)


@pytest.mark.parametrize(
    ("experiment", "like"),
    [
        (asked("swap"), {"patching": ["swap"], "tracing": []}),
        (asked("revive", noisy(), CLEAN[BASE]), {"patching": [], "tracing": ["revive"]}),
        (asked("patching", CLEAN[SOURCE], CLEAN[BASE]), {"patching": [], "tracing": []}),
        (asked("tracing", CLEAN[BASE], noisy()), {"patching": [], "tracing": []}),
        (asked("tracing", noisy(), CLEAN[SOURCE]), {"patching": [], "tracing": []}),
        (asked("tracing", noisy("elsewhere"), CLEAN[BASE]), {"patching": [], "tracing": []}),
        (asked("tracing", noisy(question=SOURCE), CLEAN[BASE]), {"patching": [], "tracing": []}),
    ],
)
def test_an_experiment_is_what_it_does_not_what_it_is_called(
    experiment: dict[str, Experiment], like: dict[str, list[str]]
) -> None:
    assert like_published(experiment) == like


def test_of_two_experiments_that_do_the_same_the_one_with_more_draws_is_taken() -> None:
    """At a level that both have; what one alone has stays, and nothing is mixed."""
    places = [(level, draw) for level in (1.0, 2.0) for draw in range(2)]
    few = pd.DataFrame(places, columns=["noise_level", "draw"]).assign(
        example="a", site=SITE, p_base=0.1
    )
    many = pd.DataFrame({"noise_level": 1.0, "draw": range(5)}).assign(
        example="a", site=SITE, p_base=0.9
    )
    tables = {"few": few, "many": many, "swap": few.drop(columns=["noise_level", "draw"])}
    tables |= dict.fromkeys(("runs", "tokens", "baseline"), pd.DataFrame())
    like = {"patching": ["swap"], "tracing": ["few", "many"]}
    taken = as_published(tables, like)
    values = taken["tracing"].groupby("noise_level")["p_base"].agg([set, len])
    assert values.to_dict("index") == {1.0: {"set": {0.9}, "len": 5}, 2.0: {"set": {0.1}, "len": 2}}
    assert len(taken["patching"]) == len(few)
    assert set(as_published(tables, {"patching": [], "tracing": ["few"]})) == {
        "runs", "tokens", "baseline", "tracing",
    }  # fmt: skip


# ---- intervals ---------------------------------------------------------------------------------


def redrawn_of(draws: np.ndarray, fresh: int, whole: bool, numbers: int) -> Redrawn:
    return Redrawn(
        example="a",
        rows=pd.RangeIndex(numbers),
        draws=draws,
        fresh=fresh,
        whole=whole,
        error=np.zeros(numbers),
        cells=None if whole else pd.MultiIndex.from_product([range(draws.shape[1] // 4), range(4)]),
    )


@pytest.mark.parametrize(("fresh", "whole"), [(10, False), (1, True)])
def test_an_interval_of_many_draws_holds_95_percent_of_fresh_means(fresh: int, whole: bool) -> None:
    generator = np.random.default_rng(0)
    cells = 40
    draws = generator.beta(0.5, 1, size=(400, cells))
    group = redrawn_of(draws, fresh, whole, numbers=200 if whole else cells)
    low, high = group.interval(np.arange(len(draws)), 1000, generator)
    truth = generator.beta(0.5, 1, size=(200, fresh, cells)).mean(axis=1)
    published = truth.mean(axis=1, keepdims=True) if whole else truth
    inside = (low <= published) & (published <= high)
    assert inside.mean() == pytest.approx(0.95, abs=0.03)


def test_few_draws_of_rare_values_leave_more_than_5_percent_outside() -> None:
    """Why the count is judged by simulated replications."""
    generator = np.random.default_rng(0)
    draws = np.where(generator.random((10, 60)) < 0.07, 0.9, 0.01)
    outside = simulate([redrawn_of(draws, 10, False, 60)], generator).outside
    assert outside.mean() > 1.4 * 0.05 * 60


def test_what_the_draws_share_puts_numbers_outside_together() -> None:
    generator = np.random.default_rng(0)
    apart = generator.random((10, 60))
    together = np.repeat(generator.random((10, 1)), 60, axis=1)
    spreads = [
        simulate([redrawn_of(draws, 10, False, 60)], generator).outside.std()
        for draws in (apart, together)
    ]
    assert spreads[1] > 2 * spreads[0]


# ---- agrees, differs, cannot tell --------------------------------------------------------------

LAYERS, POSITIONS = 12, 9


def made_up_map(random: np.random.Generator) -> np.ndarray:
    """Expectations (L, P) that peak at one position and fall from layer to layer."""
    layers, positions = np.arange(LAYERS)[:, None], np.arange(POSITIONS)
    peak = 0.6 * np.exp(-((positions - 6) ** 2) / 2 - (layers - 4) ** 2 / 8)
    return 0.05 + peak + random.uniform(0, 0.02, peak.shape)


def replication(
    draws: int, spread: float, factor: float = 1.0, off: int = 0, seed: int = 0
) -> dict[Hashable, Any]:
    """The verdict where the truth is known: a published map of ten fresh draws a cell, and a run
    of `draws` whose expectation is `factor` times that, `off` layers off.
    """
    random = np.random.default_rng(seed)
    truth = made_up_map(random)
    fresh = truth + random.normal(0, spread, (10, *truth.shape))
    of_run = factor * np.roll(truth, off, axis=0) + random.normal(0, spread, (draws, *truth.shape))
    places = pd.MultiIndex.from_product([range(LAYERS), range(POSITIONS)]).to_frame(
        index=False, name=["layer", "position"]
    )
    cells_of = places.assign(example="a", question=BASE, token="red", token_id=7, site=SITE)
    published = cells_of.assign(
        quantity="mean_cell", noise_level=1.0, draws=10, rank=np.nan, draw=np.nan,
        value=fresh.mean(0).ravel(), error=1e-4,
    ).astype({"rank": "Int64", "draw": "Int64"})  # fmt: skip
    maps = [
        cells_of.assign(noise_level=1.0, draw=draw, p_base=cells.ravel())
        for draw, cells in enumerate(of_run)
    ]
    run = {
        "tokens": pd.DataFrame(columns=["example", "question", "position", "token"]),
        "runs": pd.DataFrame([{"example": "a", "question": BASE, "answer_id": 7}]),
        "baseline": pd.DataFrame(
            columns=["example", "question", "token_id", "logit", "probability"], dtype=float
        ),
        "tracing": pd.concat(maps),
    }
    compared = compare(published, run, resamples=100, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        # These tell how many numbers would agree, and nothing of the verdict.
        patch.setattr(f"{judge.__module__}.RESAMPLES_A_WORLD", 10)
        return by_quantity(judge(compared, run, seed))["mean_cell"]


def test_a_faithful_run_with_much_to_go_by_agrees() -> None:
    verdict = replication(draws=30, spread=0.05)
    assert (verdict["verdict"], verdict["shift"]) == (AGREES, 0)
    assert verdict["power"] > 0.95
    assert verdict["correlation_low"] < verdict["correlation"] < verdict["correlation_high"]
    assert verdict["correlation_low"] > 0.9


def test_a_faithful_run_with_little_to_go_by_cannot_tell() -> None:
    """Its noise hides a difference of a layer: to find none is no agreement."""
    verdict = replication(draws=10, spread=0.6)
    assert verdict["verdict"] == CANNOT_TELL
    assert verdict["power"] < 0.5


@pytest.mark.parametrize("spread", [0.05, 0.6])
@pytest.mark.parametrize(
    ("factor", "off"), [(0.5, 0), (1 / FACTOR, 0), (FACTOR, 0), (1, 1), (1, -1)]
)
def test_a_wrong_run_does_not_agree(spread: float, factor: float, off: int) -> None:
    verdict = replication(draws=10, spread=spread, factor=factor, off=off)
    assert verdict["verdict"] in (DIFFERS, CANNOT_TELL)
    if spread == 0.05:
        assert verdict["verdict"] == DIFFERS
        assert factor != 1 or verdict["shift"] == off


@pytest.mark.parametrize("off", SHIFTS)
def test_the_best_shift_is_by_how_many_layers_the_run_is_off(off: int) -> None:
    random = np.random.default_rng(0)
    truth = made_up_map(random)
    rows = [
        {"example": "a", "noise_level": np.nan, "draw": np.nan, "layer": layer,
         "position": position, "published": truth[layer, position],
         "reproduced": truth[layer - off, position]}
        for layer in range(LAYERS) for position in range(POSITIONS)
        if 0 <= layer - off < LAYERS
    ]  # fmt: skip
    assert best_shift(pd.DataFrame(rows)) == off


def test_numbers_that_are_no_map_have_no_shift() -> None:
    numbers = pd.DataFrame({"layer": [np.nan], "published": [0.5], "reproduced": [0.5]})
    assert np.isnan(best_shift(numbers))


def test_power_is_the_lesser_of_a_halved_run_and_one_that_is_a_layer_off() -> None:
    """A map that is the same in all layers cannot be told from itself a layer off."""
    generator = np.random.default_rng(0)
    cells = pd.MultiIndex.from_product([range(LAYERS), range(POSITIONS)])
    draws = 0.5 + generator.normal(0, 0.02, (20, len(cells)))
    alike = Redrawn("a", pd.RangeIndex(len(cells)), draws, 10, False, np.zeros(len(cells)), cells)
    assert power_of([alike], generator) < 0.1
    layers = np.asarray(cells.get_level_values(0))
    stepped = Redrawn("a", alike.rows, draws + 0.1 * (layers % 2), 10, False, alike.error, cells)
    assert power_of([stepped], generator) > 0.95


# ---- the miniature, published by the plain loop ------------------------------------------------


@pytest.fixture(scope="module")
def tutorial() -> Tutorial:
    return open_tutorial()


@pytest.fixture(scope="module")
def published(tutorial: Tutorial) -> pd.DataFrame:
    return publish(tutorial)


@pytest.fixture(scope="module")
def tables(default_run: Path) -> Tables:
    return {
        name: read_table(default_run / f"results/tables/{name}.csv", [EXAMPLE]) for name in TABLES
    }


def verdicts_of(published: pd.DataFrame, tables: Tables) -> Verdicts:
    """Quantity → its row of the verdicts."""
    compared = compare(published, tables, resamples=1000, seed=0)
    return by_quantity(judge(compared, tables, seed=0))


def by_quantity(verdicts: pd.DataFrame) -> Verdicts:
    return {row["quantity"]: row for row in verdicts.to_dict("records")}


def with_patches(tables: Tables, tutorial: Tutorial, **how: object) -> Tables:
    """The run, had it patched as the plain loop does with these arguments."""
    places = pd.DataFrame(patching_map(tutorial, **how))[["layer", "position", "value"]]  # type: ignore[arg-type]
    rows = tables["patching"].merge(places, on=["layer", "position"])
    rows = rows.assign(p_source=rows["value"]).drop(columns="value")
    return {**tables, "patching": rows}


@pytest.mark.workflow
def test_what_the_plain_loop_publishes_is_reproduced(
    published: pd.DataFrame, tables: Tables
) -> None:
    verdicts = verdicts_of(published, tables)
    for quantity in EXACT:
        assert verdicts[quantity]["verdict"] == AGREES
    for quantity in NOISY:
        # Ten draws may not be enough to show that it agrees.
        assert verdicts[quantity]["verdict"] in (AGREES, CANNOT_TELL)
        assert verdicts[quantity]["p"] > 0.05
    assert verdicts["patching"]["shift"] == 0
    assert verdicts["patching"]["correlation"] == pytest.approx(1, abs=1e-3)
    assert verdicts["mean_cell"]["correlation_low"] > 0
    for quantity, numbers in zip(EXACT, (20, 20, 54), strict=True):
        verdict = verdicts[quantity]
        assert (verdict["compared"], verdict["agree"], verdict["where"]) == (numbers, numbers, "")


@pytest.mark.workflow
def test_single_draws_are_shown_and_not_judged(published: pd.DataFrame, tables: Tables) -> None:
    verdicts = verdicts_of(published, tables)
    for quantity in ("noise_cell", "iteration_cell"):
        assert verdicts[quantity]["verdict"] == SHOWN
        assert verdicts[quantity]["compared"] == 0


@pytest.mark.workflow
def test_one_changed_cell_differs_and_is_named(published: pd.DataFrame, tables: Tables) -> None:
    changed = with_a_wrong_cell(published)
    verdict = verdicts_of(changed, tables)["patching"]
    assert verdict["verdict"] == DIFFERS
    assert verdict["agree"] == 53
    assert verdict["where"].startswith("layer 2, position 7 (animal ← shirt): published 0.3")
    wrong = disagreeing(compare(changed, tables, resamples=100, seed=0))
    assert wrong.iloc[0]["place"] == "layer 2, position 7 (animal ← shirt)"


def with_a_wrong_cell(published: pd.DataFrame) -> pd.DataFrame:
    """At layer 2 the patch turns the miniature's answer with a probability of 0.2, not 0.3."""
    changed = published.copy()
    place = (changed["quantity"] == "patching") & (changed["layer"] == 2)
    changed.loc[place & (changed["position"] == 7), "value"] += 0.1
    return changed


@pytest.mark.workflow
def test_the_wrong_site_differs(
    published: pd.DataFrame, tables: Tables, tutorial: Tutorial
) -> None:
    """What flows out of a block where what flows in was published: all one layer off."""
    shifted = with_patches(tables, tutorial, site=OUTPUT)
    verdict = verdicts_of(published, shifted)["patching"]
    assert verdict["verdict"] == DIFFERS
    # The published layer ℓ is the run's ℓ − 1.
    assert verdict["shift"] == -1
    assert "position 7 (animal ← shirt)" in verdict["where"]


@pytest.mark.workflow
def test_a_third_of_the_width_differs(
    published: pd.DataFrame, tables: Tables, tutorial: Tutorial
) -> None:
    """As pyvene's mapping of BLIP has it: the rest of the residual stream is the base run's."""
    narrow = with_patches(tables, tutorial, width=WIDTH // 3)
    verdict = verdicts_of(published, narrow)["patching"]
    assert verdict["verdict"] == DIFFERS
    assert verdict["where"].startswith("layer 0, position 7 (animal ← shirt): ")


@pytest.mark.workflow
def test_another_noise_level_differs(published: pd.DataFrame, tables: Tables) -> None:
    levels = tables["tracing"]["noise_level"].replace({0.5: 5.0, 5.0: 0.5})
    weaker = {**tables, "tracing": tables["tracing"].assign(noise_level=levels)}
    verdicts = verdicts_of(published, weaker)
    for quantity in ("iteration_mean", "mean_cell"):
        assert verdicts[quantity]["verdict"] == DIFFERS
        assert verdicts[quantity]["p"] < 0.01
    assert verdicts["iteration_mean"]["where"].startswith("σ = 5, iteration ")


@pytest.mark.workflow
def test_block_output_is_compared_one_layer_shifted(
    published: pd.DataFrame, tables: Tables
) -> None:
    inputs = tables["patching"]
    outputs = inputs[inputs["layer"] > 0].assign(site=OUTPUT, layer=inputs["layer"] - 1)
    both = {**tables, "patching": pd.concat([inputs, outputs])}
    verdict = verdicts_of(published, both)[SHIFTED]
    assert (verdict["verdict"], verdict["compared"]) == (AGREES, 45)
    same_layer = {**tables, "patching": pd.concat([inputs, inputs.assign(site=OUTPUT)])}
    verdict = verdicts_of(published, same_layer)[SHIFTED]
    assert verdict["verdict"] == DIFFERS
    assert verdict["where"].startswith(f"{OUTPUT} layer ")


@pytest.mark.workflow
def test_a_run_of_another_answer_has_nothing_to_compare(
    published: pd.DataFrame, tables: Tables
) -> None:
    other = {**tables, "runs": tables["runs"].assign(answer_id=0)}
    verdicts = verdicts_of(published, other)
    assert verdicts["patching"]["verdict"] == DIFFERS
    where = "layer 0, position 0 ([CLS]): p(red) is not in the run; one of 54"
    assert verdicts["patching"]["where"] == where
    assert [verdicts[quantity]["verdict"] for quantity in NOISY] == [ABSENT] * 3


@pytest.mark.workflow
def test_a_few_draws_are_too_few(published: pd.DataFrame, tables: Tables) -> None:
    tracing = tables["tracing"]
    few = {**tables, "tracing": tracing[tracing["draw"] < 4]}
    verdicts = verdicts_of(published, few)
    assert [verdicts[quantity]["verdict"] for quantity in NOISY] == [TOO_FEW] * 3


@pytest.mark.workflow
def test_the_same_seed_gives_the_same_comparison(published: pd.DataFrame, tables: Tables) -> None:
    first, second = (compare(published, tables, resamples=200, seed=1) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


# ---- figures and the report --------------------------------------------------------------------


@pytest.fixture(scope="module", params=[True, False], ids=["near", "another answer"])
def full_size(request: pytest.FixtureRequest, shipped: pd.DataFrame) -> Tables:
    """A made-up run of both sites, near what was published or of other answers altogether."""
    return run_like(shipped, same_answers=request.param)


def run_like(published: pd.DataFrame, same_answers: bool) -> Tables:
    random = np.random.default_rng(0)
    asked = {BASE: ("animal", 2829), SOURCE: ("shirt", 2417)}
    runs = pd.DataFrame(
        [(EXAMPLE, run, run, f"what is the color of the {noun}", "a", answer if same_answers else 1)
         for run, (noun, answer) in asked.items()],
        columns=["example", "run", "question", "text", "answer", "answer_id"],
    ).assign(p_base=0.5)  # fmt: skip
    tokens = pd.DataFrame(
        [(EXAMPLE, question, position, token) for question, (noun, _) in asked.items()
         for position, token in enumerate(f"[CLS] what is the color of the {noun} [SEP]".split())],
        columns=["example", "question", "position", "token"],
    )  # fmt: skip
    listed = published[published["rank"].notna()]
    baseline = listed.pivot(
        index=["example", "question", "rank", "token", "token_id"],
        columns="quantity",
        values="value",
    ).rename(columns={"top_logit": "logit", "top_probability": "probability"})
    patched = published[published["quantity"] == "patching"]
    inputs = patched[["example", "site", "layer", "position"]].assign(p_source=patched["value"])
    outputs = inputs[inputs["layer"] > 0].assign(site=OUTPUT, layer=inputs["layer"] - 1)
    cells = published[published["quantity"] == "noise_cell"]
    traced = [
        cells[["example", "site", "noise_level", "layer", "position"]].assign(
            draw=draw, p_base=np.clip(cells["value"] + random.normal(0, 0.05, len(cells)), 0, 1)
        )
        for draw in range(10)
    ]
    return {
        "runs": runs,
        "tokens": tokens,
        "baseline": baseline.reset_index(),
        "patching": pd.concat([inputs, outputs]),
        "tracing": pd.concat(traced),
    }


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_of_a_figure_is_cut_or_overlaps(
    name: str, shipped: pd.DataFrame, full_size: Tables
) -> None:
    compared = compare(shipped, full_size, resamples=200, seed=0)
    figure = FIGURES[name](compared, full_size, EXAMPLE).draw()
    figure.draw_without_rendering()
    try:
        shown = list(shown_texts(figure))
        assert len(shown) > 5
        for text, box in shown:
            assert figure.bbox.x0 - 1 <= box.x0, f"{text!r} is cut on the left"
            assert box.x1 <= figure.bbox.x1 + 1, f"{text!r} is cut on the right"
            assert figure.bbox.y0 - 1 <= box.y0, f"{text!r} is cut at the bottom"
            assert box.y1 <= figure.bbox.y1 + 1, f"{text!r} is cut at the top"
        for (first, box), (second, other) in combinations(shown, 2):
            assert not Bbox.intersection(shrunk(box), shrunk(other)), f"{first!r} on {second!r}"
    finally:
        plt.close(figure)


@pytest.mark.parametrize(
    ("off", "words"), [(0, "closest with no shift"), (1, "closest +1 layer off")]
)
def test_a_map_says_how_alike_it_is_and_by_how_many_layers_it_is_off(
    off: int, words: str, shipped: pd.DataFrame
) -> None:
    tables = run_like(shipped, same_answers=True)
    patched = tables["patching"]
    inputs = patched[patched["site"] == SITE]
    moved = inputs.assign(layer=inputs["layer"] + off)
    moved = moved[moved["layer"] < 12]
    compared = compare(shipped, {**tables, "patching": moved}, resamples=100, seed=0)
    figure = FIGURES["patching_difference"](compared, tables, EXAMPLE).draw()
    try:
        said = [text for text, _ in shown_texts(figure)]
        assert any(words in text and "correlation 1.00" in text for text in said) == (off == 0)
        assert any(words in text for text in said)
    finally:
        plt.close(figure)


def constant(run: Tables) -> Tables:
    """The run, all of whose traced cells are certain to one value: no draw differs from another."""
    return {**run, "tracing": run["tracing"].assign(p_base=0.0)}


@pytest.fixture(scope="module")
def runs(shipped: pd.DataFrame) -> dict[str, Tables]:
    same = run_like(shipped, same_answers=True)
    other = run_like(shipped, same_answers=False)
    return {"same answers": same, "other answers": other, "certain": constant(same)}


def draw(figure: str, published: pd.DataFrame, run: Tables) -> Figure:
    compared = compare(published, run, resamples=200, seed=0)
    drawn = FIGURES[figure](compared, run, EXAMPLE).draw()
    drawn.draw_without_rendering()
    return drawn


@pytest.mark.parametrize("which", ["same answers", "other answers", "certain"])
def test_axes_of_probabilities_go_from_0_to_1_at_most_and_can_be_read(
    shipped: pd.DataFrame, runs: dict[str, Tables], which: str
) -> None:
    for figure, axis in (("noise_means", "xaxis"), ("iteration_means", "yaxis")):
        drawn = draw(figure, shipped, runs[which])
        try:
            for panel in drawn.axes:
                ticks = getattr(panel, axis).get_ticklocs()
                low, high = getattr(panel, axis).get_view_interval()
                shown = [tick for tick in ticks if low <= tick <= high]
                assert len(shown) >= 2
                assert min(shown) >= 0
                assert max(shown) <= 1
        finally:
            plt.close(drawn)


def dots(panel: Axes) -> list[tuple[float, float]]:
    """Where the blue dots of a panel are, those within it."""
    low, high = panel.get_xlim()
    return [
        (x, y)
        for drawn in panel.collections
        if isinstance(drawn, PathCollection)
        and same_color(tuple(np.asarray(drawn.get_facecolor())[0, :3]), BLUE)
        for x, y in np.asarray(drawn.get_offsets())
        if low <= x <= high
    ]


def test_where_an_interval_has_no_length_the_runs_mean_is_seen(
    shipped: pd.DataFrame, runs: dict[str, Tables]
) -> None:
    drawn = draw("noise_means", shipped, runs["certain"])
    try:
        assert len(drawn.axes) == 7
        assert all([x for x, _ in dots(panel)] == [0.0] for panel in drawn.axes)
    finally:
        plt.close(drawn)


def test_a_facet_without_the_runs_numbers_says_so(
    shipped: pd.DataFrame, runs: dict[str, Tables]
) -> None:
    traced = runs["same answers"]["tracing"]
    without = {**runs["same answers"], "tracing": traced[traced["noise_level"] != 2]}
    for tables, lacking in ((without, 1), (runs["other answers"], 7), (runs["same answers"], 0)):
        drawn = draw("noise_means", shipped, tables)
        try:
            said = [
                any("this run" in text.get_text() for text in panel.texts) for panel in drawn.axes
            ]
            assert sum(said) == lacking
            assert said == [not dots(panel) for panel in drawn.axes]
        finally:
            plt.close(drawn)


@pytest.mark.workflow
def test_a_run_with_published_numbers_compares_and_reports(
    finished: Path, published: pd.DataFrame
) -> None:
    """Only the comparison runs anew; the verdicts, and where one differs, stand in the page."""
    with_a_wrong_cell(published).to_csv(finished / "published.csv", index=False)
    with (finished / "config/config.yaml").open("a") as config:
        config.write("\npublished: published.csv\n")
    jobs = planned_jobs(finished)
    assert jobs["compare_published"] == jobs["render"] == 1
    measured = {"measure_at_once", "measure_effects", "collect_table", "collect_cells"}
    assert not measured & jobs.keys()
    run(finished, "--quiet", "all")
    verdict = by_quantity(read_table(finished / "results/tables/verdicts.csv"))["patching"]
    assert verdict["verdict"] == DIFFERS
    page = unescape((finished / "reports/replication.html").read_text(encoding="utf-8"))
    assert "1 differ: cells of the patching map" in page
    assert "the published patching against patching; the published tracing against tracing" in page
    assert verdict["where"] in page
    drawn = {path.name for path in (finished / "reports/figures/replication").glob("[!.]*")}
    assert drawn == {
        f"{figure}_{EXAMPLE}.{kind}"
        for figure in figures_of(published, EXAMPLE)
        for kind in ("pdf", "svg", "png")
    }
    assert not re.search(r"<(script|link|iframe)\b|@import|url\(", page)
    log = (finished / "results/logs/compare_published.log").read_text()
    assert "cells of the patching map: differs" in log


@pytest.mark.workflow
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("", "", "published: there is no file nowhere.csv; mend its path"),
        ("", "", "is of example 'another', which the sheet lacks"),
        (f"sites: [{SITE}]", f"sites: [{OUTPUT}]", LACKING),
    ],
    ids=["file", "example", "site"],
)
def test_what_cannot_be_compared_is_told_before_any_job(
    finished: Path, shipped: pd.DataFrame, old: str, new: str, message: str
) -> None:
    path = finished / "config/config.yaml"
    name = "nowhere.csv" if "nowhere" in message else "published.csv"
    path.write_text(f"{path.read_text().replace(old, new, 1) if old else path.read_text()}\n"
                    f"published: {name}\n")  # fmt: skip
    example = "another" if "another" in message else EXAMPLE
    shipped.assign(example=example).to_csv(finished / "published.csv", index=False)
    done = snakemake(finished, "--dry-run")
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if not line.startswith("Using workflow")]
    assert len(lines) == 1, done.stdout
    assert message in lines[0]
