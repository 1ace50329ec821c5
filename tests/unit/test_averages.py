"""Published averages over fresh noise against a run whose cells share their draws: known truth."""

import numpy as np
import pandas as pd
import pytest
from compare_averages import hold
from project import ROOT

from blip_tracing.errors import InputError
from blip_tracing.meaning.replication.averages import (
    ABSENT,
    MET,
    MISSED,
    REACH,
    averaged,
    compare_averages,
    floor_words,
    level_at,
    structure_of,
)
from blip_tracing.meaning.replication.compare import AGREES, CANNOT_TELL, DIFFERS
from blip_tracing.meaning.replication.published_averages import (
    Held,
    are_averages,
    held_against,
    read_averages,
)
from blip_tracing.vocabulary.corruptions import Corruption
from blip_tracing.vocabulary.experiment import BASE, SOURCE, Experiment, Run

EXAMPLES, LAYERS, POSITIONS, CLEAN = 60, 3, 4, 0.7
ENCODER, DECODER = "encoder.block_output", "decoder.block_output"
PALIT = ROOT / "resources/published/palit_200_samples.csv"
PURPLE = ROOT / "resources/published/palit_attn_window3_purple.csv"


def truth_of(generator, examples=EXAMPLES):
    """What a draw gives: of each example at each place, p with some probability, else nothing.

    Most draws of noise hide an answer and a few do not, so that values are rare and large. The
    encoder's last layer brings the answer back save at [SEP]; the decoder's last is the clean run.
    """
    shares = {(ENCODER, layer, position): 0.02 for layer in range(LAYERS)
              for position in range(POSITIONS)}  # fmt: skip
    shares |= {(ENCODER, LAYERS - 1, position): 0.25 for position in range(POSITIONS - 1)}
    shares |= {(DECODER, layer, 0): (0.02, 0.5, 1.0)[layer] for layer in range(LAYERS)}
    clean = generator.uniform(0.4, 1, examples)
    wanted = generator.beta(8, 8, examples) * 2  # how easily an example is brought back
    return shares, clean, wanted


def draw(generator, share, clean, wanted):
    """One draw of all examples at a place: (E,)."""
    revived = generator.random(len(clean)) < np.minimum(share * wanted, 1)
    return np.where(revived | (share == 1), clean, 0.0)


def published_of(generator, truth):
    """A table of averages, each over one fresh draw an example."""
    shares, clean, wanted = truth
    rows = [
        ("mean", site, layer, position, 1, len(clean), draw(generator, share, clean, wanted).mean())
        for (site, layer, position), share in shares.items()
    ]
    rows.append(
        ("floor", ENCODER, None, None, 1, len(clean), draw(generator, 0.02, clean, wanted).mean())
    )
    rows.append(("clean", "", None, None, 1, len(clean), clean.mean()))
    columns = ["quantity", "site", "layer", "position", "window", "examples", "value"]
    table = pd.DataFrame(rows, columns=columns).assign(error=5e-5)
    return table.astype({"layer": "Int64", "position": "Int64"})


def tables_of(generator, truth, draws=10, fresh=False):
    """The run's cells and runs; what decides of a draw is shared by its cells, unless fresh."""
    shares, clean, wanted = truth
    cells, runs = (
        [],
        [{"example": f"e{n}", "run": "base", "p_base": p} for n, p in enumerate(clean)],
    )
    for number in range(draws):
        chance = generator.random(len(clean))
        for (site, layer, position), share in shares.items():
            chance = generator.random(len(clean)) if fresh else chance
            p = np.where((chance < share * wanted) | (share == 1), clean, 0.0)
            cells += [
                {"example": f"e{n}", "site": site, "layer": layer, "position": position,
                 "noise_level": 5.0, "draw": number, "p_base": p[n]}
                for n in range(len(clean))
            ]  # fmt: skip
        floor = np.where(chance < 0.02 * wanted, clean, 0.0)
        runs += [
            {"example": f"e{n}", "run": "noisy", "noise_level": 5.0, "draw": number,
             "p_base": floor[n]}
            for n in range(len(clean))
        ]  # fmt: skip
    return pd.DataFrame(cells), pd.DataFrame(runs)


def run_of(generator, truth, draws=10, drawn=True, fresh=False):
    cells, runs = tables_of(generator, truth, draws, fresh)
    return averaged(cells, runs, "noisy", 5.0, drawn, fresh)


def verdicts(published, run, same=True):
    _, found = compare_averages(published, run, same, 0)
    return found.set_index("quantity")


@pytest.mark.parametrize("site", [ENCODER, DECODER])
def test_a_faithful_run_differs_hardly_ever(site, monkeypatch):
    """By 1 % of simulations each: in 40 replications five or more happen in 1 of 1000."""
    monkeypatch.setattr("blip_tracing.meaning.replication.averages.WORLDS", 200)
    generator = np.random.default_rng(1)
    found = []
    for _ in range(40):
        truth = truth_of(generator)
        published = published_of(generator, truth)
        found.append(verdicts(published, run_of(generator, truth)).loc[site, "verdict"])
    assert found.count(DIFFERS) < 5


def test_of_fresh_draws_cells_fall_outside_one_by_one(monkeypatch):
    """A faithful run whose cells have draws of their own, told as such: its p is about uniform."""
    monkeypatch.setattr("blip_tracing.meaning.replication.averages.WORLDS", 100)
    generator, p = np.random.default_rng(13), []
    for _ in range(30):
        truth = truth_of(generator)
        run = run_of(generator, truth, fresh=True)
        p.append(verdicts(published_of(generator, truth), run).loc[ENCODER, "p"])
    # A mean of 30 uniform numbers: 0.5 ± 0.16 at three standard errors.
    assert abs(np.mean(p) - 0.5) < 0.16


def test_a_run_of_fresh_draws_of_something_else_differs():
    generator = np.random.default_rng(14)
    truth = truth_of(generator)
    published = published_of(generator, truth)
    published.loc[published["site"] == ENCODER, "value"] += 0.1
    found = verdicts(published, run_of(generator, truth, fresh=True))
    assert found.loc[ENCODER, "verdict"] == DIFFERS
    assert found.loc[DECODER, "verdict"] != DIFFERS


@pytest.mark.parametrize("wrong", ["a layer off", "half", "another corruption"])
def test_a_run_of_something_else_differs(wrong):
    generator = np.random.default_rng(2)
    truth = truth_of(generator)
    published, run = published_of(generator, truth), run_of(generator, truth)
    of_map = published["site"] == ENCODER
    if wrong == "a layer off":
        published.loc[of_map, "layer"] = (published.loc[of_map, "layer"] + 1) % LAYERS
    elif wrong == "half":
        published.loc[of_map, "value"] /= 2
    else:
        published.loc[of_map, "value"] += 0.1
    found = verdicts(published, run)
    assert found.loc[ENCODER, "verdict"] == DIFFERS
    assert found.loc[DECODER, "verdict"] != DIFFERS
    assert found.loc["clean", "verdict"] == AGREES


def test_a_standard_error_is_how_far_replications_lie_apart(monkeypatch):
    """Of the same examples, the spread of published minus run over many of both."""
    monkeypatch.setattr("blip_tracing.meaning.replication.averages.WORLDS", 1)
    generator = np.random.default_rng(3)
    truth = truth_of(generator)
    apart, told = [], []
    for _ in range(60):
        published, run = published_of(generator, truth), run_of(generator, truth, draws=6)
        numbers, _ = compare_averages(published, run, True, 0)
        one = numbers[(numbers["site"] == DECODER) & (numbers["layer"] == 1)].iloc[0]
        apart.append(one["value"] - one["reproduced"])
        told.append(one["standard_error"])
        assert one["high"] - one["low"] == pytest.approx(2 * REACH * one["standard_error"])
    assert np.std(apart) == pytest.approx(np.mean(told), rel=0.3)


def test_of_other_examples_the_error_is_larger():
    generator = np.random.default_rng(4)
    truth = truth_of(generator)
    published, run = published_of(generator, truth), run_of(generator, truth)
    same, other = (compare_averages(published, run, known, 0)[0] for known in (True, False))
    cells = published["quantity"] == "mean"
    assert (other.loc[cells, "standard_error"] >= same.loc[cells, "standard_error"]).all()
    last = cells & (published["site"] == DECODER) & (published["layer"] == LAYERS - 1)
    # What nothing but the example decides.
    assert same.loc[last, "standard_error"].item() < 1e-4
    assert other.loc[last, "standard_error"].item() > 0.01


def test_few_draws_cannot_tell_and_neither_do_wide_intervals():
    generator = np.random.default_rng(5)
    truth = truth_of(generator)
    published = published_of(generator, truth)
    found = verdicts(published, run_of(generator, truth, draws=3))
    assert found.loc[DECODER, "verdict"] == CANNOT_TELL
    assert np.isnan(found.loc[DECODER, "p"])
    few = truth_of(generator, examples=8)
    found = verdicts(published_of(generator, few), run_of(generator, few, draws=6))
    assert found.loc[DECODER, "bound"] > 0.05
    assert found.loc[DECODER, "verdict"] in (CANNOT_TELL, DIFFERS)


def test_enough_examples_and_draws_agree():
    generator = np.random.default_rng(6)
    truth = truth_of(generator, examples=3000)
    found = verdicts(published_of(generator, truth), run_of(generator, truth, draws=8))
    assert found.loc[[ENCODER, DECODER], "verdict"].tolist() == [AGREES, AGREES]
    assert (found["bound"] <= 0.05).all()


@pytest.mark.parametrize(
    ("by", "verdict"),
    [(0.0, AGREES), (0.00008, AGREES), (0.0002, DIFFERS), (0.01, DIFFERS)],
)
def test_what_draws_nothing_is_held_to_its_digits(by, verdict):
    generator = np.random.default_rng(7)
    truth = truth_of(generator)
    table, runs = tables_of(generator, truth, draws=1)
    run = averaged(table, runs, "noisy", 5.0, drawn=False)
    published = published_of(generator, truth)
    means = table.groupby(["site", "layer", "position"])["p_base"].mean()
    cells = published["quantity"] == "mean"
    keys = published.loc[cells, ["site", "layer", "position"]].astype(
        {"layer": int, "position": int}
    )
    published.loc[cells, "value"] = means.loc[list(keys.itertuples(index=False))].to_numpy() + by
    assert verdicts(published, run).loc[DECODER, "verdict"] == verdict
    # One cell that is off is enough.
    published.loc[cells, "value"] -= by
    published.loc[published.index[cells][-1], "value"] += by
    assert verdicts(published, run).loc[DECODER, "verdict"] == verdict


# ---- what any faithful run must show -----------------------------------------------------------


def whole_of(truth, off=0.0):
    """Cells of an experiment that puts in all positions at once."""
    cells = [
        {"example": f"e{n}", "site": ENCODER, "layer": LAYERS - 1, "position": 0, "draw": 0,
         "noise_level": 5.0, "p_base": p + off}
        for n, p in enumerate(truth[1])
    ]  # fmt: skip
    keys = ["example", "site", "layer", "position", "draw"]
    return pd.DataFrame(cells).set_index(keys)["p_base"]


def test_the_expectations_of_a_faithful_run_are_met():
    generator = np.random.default_rng(8)
    truth = truth_of(generator)
    found = structure_of(run_of(generator, truth), LAYERS, whole_of(truth))
    assert found["verdict"].tolist() == [MET] * 4


@pytest.mark.parametrize(
    ("missed", "at"),
    [("floor", 0), ("decoder", 1), ("whole", 2), ("end", 3)],
)
def test_a_run_that_misses_an_expectation_is_told_which(missed, at):
    generator = np.random.default_rng(9)
    truth = truth_of(generator)
    cells, runs = tables_of(generator, truth)
    if missed == "floor":
        runs.loc[runs["run"] == "noisy", "p_base"] += 0.4
    if missed == "decoder":
        one = (cells["site"] == DECODER) & (cells["layer"] == LAYERS - 1)
        cells.loc[cells[one].index[5], "p_base"] += 0.001
    if missed == "end":
        end = (cells["layer"] == LAYERS - 1) & (cells["position"] == POSITIONS - 1)
        cells.loc[end, "p_base"] += 0.2
    run = averaged(cells, runs, "noisy", 5.0)
    found = structure_of(run, LAYERS, whole_of(truth, 0.001 if missed == "whole" else 0.0))
    assert found["verdict"].iloc[at] == MISSED
    others = found["verdict"].drop(at)
    # With a floor of its own kind the share of [SEP] is another too.
    assert (others == MET).all() or missed == "floor"


def test_what_was_not_measured_is_said():
    generator = np.random.default_rng(10)
    run = run_of(generator, truth_of(generator))
    found = structure_of(run, LAYERS)
    assert found["verdict"].tolist() == [MET, MET, ABSENT, MET]


# ---- the published tables, and the command -----------------------------------------------------


def test_the_tables_hold_what_was_published():
    """As the notebook prints it; the last decoder layer is the clean run by construction."""
    table = read_averages(PALIT)
    means = table[table["quantity"] == "mean"].set_index(["site", "layer", "position"])["value"]
    assert means.groupby("site").size().to_dict() == {ENCODER: 108, DECODER: 12}
    last = [means[ENCODER, 11, position] for position in range(9)]
    assert last == [0.1755, 0.1695, 0.1987, 0.1837, 0.1446, 0.1495, 0.1861, 0.0924, 0.0074]
    early = means[ENCODER][means[ENCODER].index.get_level_values("layer") < 11]
    assert early.between(0.0017, 0.0069).all()
    (clean,) = table.loc[table["quantity"] == "clean", "value"]
    assert means[DECODER, 11, 0] == pytest.approx(clean, abs=5e-5)
    assert (table["examples"] == 200).all()
    purple = read_averages(PURPLE)
    assert (purple["quantity"] == "mean").sum() == 216
    assert set(purple.loc[purple["quantity"] == "mean", "window"]) == {3}


@pytest.mark.parametrize("floor", [0.7348, 0.5])
def test_the_level_of_a_floor_lies_between_two_levels(floor):
    runs = pd.DataFrame(
        {"run": "scaled", "noise_level": [0.6, 0.8, 1.0], "p_base": [0.4, 0.7, 0.8], "draw": 0}
    )
    expected = 0.8 + 0.2 * 0.0348 / 0.1 if floor > 0.7 else 0.6 + 0.2 * 0.1 / 0.3
    assert level_at(runs, "scaled", floor) == pytest.approx(expected)
    with pytest.raises(InputError, match=r"none beside each other have 0\.9 between them"):
        level_at(runs, "scaled", 0.9)


def held(drawn=True, whole="", **cells):
    sites = {"encoder": ENCODER, "decoder": DECODER}
    return Held(
        "noisy", 5.0, drawn, False, {sites[name]: of for name, of in cells.items()}, whole, True
    )


def test_a_runs_tables_are_compared_and_told():
    """Of an experiment with other sites and levels the published ones alone."""
    generator = np.random.default_rng(11)
    truth = truth_of(generator)
    cells, runs = tables_of(generator, truth)
    published = published_of(generator, truth)
    elsewhere = pd.concat([cells.assign(site="encoder.mlp"), cells.assign(noise_level=1.0)])
    tables = {
        "first": pd.concat([cells[cells["site"] == ENCODER], elsewhere]),
        "second": cells[cells["site"] == DECODER],
        "runs": runs,
        "whole": whole_of(truth).reset_index().assign(noise_level=5.0),
    }
    asked = held(encoder="first", decoder="second", whole="whole")
    assert asked.tables == ["first", "second", "whole"]
    numbers, verdicts, structure = hold(published, tables, asked, LAYERS, 0)
    plain = compare_averages(published, averaged(cells, runs, "noisy", 5.0), True, 0)
    pd.testing.assert_frame_equal(numbers, plain[0])
    assert verdicts["title"].tolist() == [
        f"cells of {ENCODER}", f"cells of {DECODER}", f"floor {ENCODER}", "the clean run",
    ]  # fmt: skip
    assert structure["verdict"].tolist() == [MET] * 4
    _, _, without = hold(published, tables, held(encoder="first", decoder="second"), LAYERS, 0)
    assert without["verdict"].tolist() == [MET, MET, ABSENT, MET]


def test_how_many_are_expected_inside_is_what_replications_have():
    generator = np.random.default_rng(13)
    truth = truth_of(generator)
    found = verdicts(published_of(generator, truth), run_of(generator, truth))
    cells = found.loc[[ENCODER, DECODER]]
    assert (cells["expected"] <= cells["compared"]).all()
    assert (cells["expected"] > 0.7 * cells["compared"]).all()
    few = verdicts(published_of(generator, truth), run_of(generator, truth, draws=3))
    assert np.isnan(few.loc[ENCODER, "expected"])
    assert few.loc[ENCODER, "where"] == ""


def test_where_a_map_differs_is_said_and_nothing_where_it_agrees():
    generator = np.random.default_rng(14)
    truth = truth_of(generator)
    published, run = published_of(generator, truth), run_of(generator, truth)
    off = (published["site"] == ENCODER) & (published["layer"] == 0) & (published["position"] == 2)
    published.loc[off, "value"] = 0.9
    found = verdicts(published, run)
    worst = found.loc[ENCODER, "where"]
    assert worst.startswith("layer 0, position 2: published 0.9000, predicted")
    assert found.loc["clean", "where"] == ""


def test_a_floor_that_differs_is_told_at_which_level_it_would_not():
    runs = pd.DataFrame(
        {"run": "noisy", "noise_level": [0.6, 0.8, 1.0], "p_base": [0.4, 0.7, 0.8], "draw": 0}
    )
    published = pd.DataFrame(
        [("floor", ENCODER, 0.75), ("floor", DECODER, 0.9), ("floor", "", 0.7)],
        columns=["quantity", "site", "value"],
    )
    found = pd.DataFrame(
        {
            "quantity": [f"floor {ENCODER}", f"floor {DECODER}", "floor"],
            "verdict": [DIFFERS, DIFFERS, AGREES],
            "where": ["a", "b", ""],
        }
    )
    told = floor_words(published, runs, "noisy", found)["where"].tolist()
    assert told == ["a; it is at level 0.9000", "b; between no two of this run's levels it is", ""]


def test_what_the_publication_does_not_have_is_not_expected():
    """Of a corruption that hides nothing neither a floor nor that [SEP] brings nothing back."""
    generator = np.random.default_rng(15)
    truth = truth_of(generator)
    run = run_of(generator, truth)
    published = published_of(generator, truth)
    assert len(structure_of(run, LAYERS, published=published)) == 4
    published.loc[published["quantity"] == "floor", "value"] = 0.6
    assert len(structure_of(run, LAYERS, published=published)) == 2
    purple = structure_of(run, LAYERS, published=read_averages(PURPLE))
    assert not purple["expectation"].str.contains("hides|SEP").any()


# ---- what of a run is compared -----------------------------------------------------------------

NOISE = Corruption("multiplicative", "picture.states", (1.0, 5.0), 10, 0)
NOISY, CLEAN_RUN = Run("noisy", BASE, NOISE), Run(BASE, BASE)
SAME, OTHERS = {"same_examples": True}, {"same_examples": False}


def restoring(name, *sites, receiver=NOISY, donor=CLEAN_RUN, **more):
    return Experiment(name, receiver, donor, sites, **more)


def held_by(*asked, published=PALIT, settings=SAME, examples=200):
    experiments = {each.name: each for each in asked}
    table = read_averages(published)
    return held_against(table, published, experiments, dict.fromkeys(experiments, 1), settings,
                        examples)  # fmt: skip


BOTH = (restoring("one", ENCODER), restoring("two", DECODER))


def test_what_is_compared_follows_from_what_experiments_are():
    """Whatever they are called, and beside others that are no such thing."""
    found = held_by(
        restoring("backwards", ENCODER, receiver=CLEAN_RUN, donor=NOISY),
        restoring("window", ENCODER, window=3),
        *BOTH,
        restoring("again", ENCODER, "encoder.mlp"),
        restoring("at_once", "encoder.mlp", ENCODER, positions="all"),
    )
    assert found == Held(
        "noisy", 5.0, True, False, {ENCODER: "one", DECODER: "two"}, "at_once", same_examples=True
    )


def test_a_constant_draws_nothing_and_a_window_is_that_published():
    scaled = Run("scaled", BASE, Corruption("scale", "picture.states", (0.5, 0.7691), 1, 0))
    sites = ("encoder.self_attention_state", "encoder.cross_attention_state")
    found = held_by(
        restoring("single", *sites, receiver=scaled),
        restoring("windows", *sites, receiver=scaled, window=3),
        published=PURPLE,
        examples=1,
    )
    assert (found.drawn, found.level, found.whole) == (False, 0.7691, "")
    assert found.cells == dict.fromkeys(sites, "windows")


OTHER = Run("other", BASE, NOISE)


@pytest.mark.parametrize(
    ("asked", "more", "message"),
    [
        (BOTH[:1], {}, f"is of {DECODER} with a window of 1, where no experiment restores base in"),
        (
            (),
            {},
            f"is of {ENCODER} with a window of 1, where no experiment restores base in a corr",
        ),
        (
            (restoring("one", ENCODER, DECODER, donor=Run(SOURCE, SOURCE)),),
            {},
            f"is of {ENCODER} with a window of 1",
        ),
        (
            (*BOTH, restoring("three", ENCODER, DECODER, receiver=OTHER)),
            {},
            "averages.run: noisy and other could each be held against",
        ),
        (BOTH, {"settings": {**SAME, "run": "nosy"}}, "averages.run: no experiment like those of"),
        (BOTH, {"examples": 150}, "averages.same_examples: "),
        (BOTH, {"examples": 1, "settings": OTHERS}, "averages.same_examples: one example says"),
    ],
)
def test_what_a_run_lacks_is_told_in_one_line(asked, more, message):
    with pytest.raises(InputError) as refused:
        held_by(*asked, **more)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_run_that_is_named_is_compared():
    three = restoring("three", ENCODER, DECODER, receiver=OTHER)
    found = held_by(*BOTH, three, settings={**OTHERS, "run": "other"}, examples=12)
    assert (found.run, found.cells) == ("other", dict.fromkeys((ENCODER, DECODER), "three"))


def test_tables_are_told_apart_by_their_columns(tmp_path):
    assert are_averages(PALIT)
    assert are_averages(PURPLE)
    assert not are_averages(ROOT / "resources/published/tutorial.csv")
    assert not are_averages(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n"])
def test_a_table_of_another_form_is_refused(tmp_path, text):
    (tmp_path / "other.csv").write_text(text)
    with pytest.raises(InputError, match="give such a table"):
        read_averages(tmp_path / "other.csv")


def test_cells_that_some_examples_lack_are_not_compared():
    generator = np.random.default_rng(12)
    truth = truth_of(generator)
    cells, runs = tables_of(generator, truth)
    shorter = (cells["example"] == "e3") & (cells["position"] == POSITIONS - 1)
    numbers, found = compare_averages(
        published_of(generator, truth), averaged(cells[~shorter], runs, "noisy", 5.0), True, 0
    )
    means = numbers[numbers["quantity"] == "mean"]
    lacking = (means["site"] == ENCODER) & (means["position"] == POSITIONS - 1)
    assert means["reproduced"].isna().tolist() == lacking.tolist()
    found = found.set_index("quantity")
    assert found.loc[ENCODER, "compared"] == LAYERS * (POSITIONS - 1)
    where = found["where"].astype(str)
    assert where[ENCODER].endswith(f"{LAYERS} of the published averages are not in the run")
    assert "not in the run" not in where[DECODER]


def test_a_map_of_which_a_part_is_not_in_the_run_does_not_agree():
    generator = np.random.default_rng(16)
    truth = truth_of(generator, examples=3000)
    published = published_of(generator, truth)
    cells, runs = tables_of(generator, truth, draws=8)
    part = cells[~((cells["site"] == ENCODER) & (cells["position"] == 0))]
    _, found = compare_averages(published, averaged(part, runs, "noisy", 5.0), True, 0)
    found = found.set_index("quantity")
    assert found.loc[ENCODER, "verdict"] == CANNOT_TELL
    assert found.loc[DECODER, "verdict"] == AGREES
