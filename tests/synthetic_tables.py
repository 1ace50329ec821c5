"""Made-up tables with the columns and the shapes of the workflow's own, for the report tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

NOISE_LEVELS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
COLOR_WORDS = ("brown", "red", "white", "black", "green", "blue", "yellow", "pink", "gray", "tan")


@dataclass(frozen=True)
class Asked:
    """An example: its two questions and their answers."""

    base_question: str
    source_question: str
    base_answer: str
    source_answer: str


ASKED = {
    "animal_shirt": Asked(
        "what is the color of the animal", "what is the color of the shirt", "brown", "red"
    ),
    "ball_kite": Asked(
        "what is the big color of the ball", "what is the big color of the kite", "blue", "green"
    ),
    "hat_box": Asked("what is at the very top today", "what is at the very bottom today",
                     "black", "white"),
}  # fmt: skip


def tokens_of(question: str) -> list[str]:
    return ["[CLS]", *question.split(), "[SEP]"]


def write_tables(
    folder: Path,
    asked: dict[str, Asked] = ASKED,
    layers: int = 6,
    sites: Sequence[str] = ("block_input",),
    noise_levels: Sequence[float] = NOISE_LEVELS,
    samples: int = 10,
    unknown_words: Sequence[str] = (),
) -> Path:
    """Write all six tables for these examples into the folder."""
    random = np.random.default_rng(0)
    tables = {
        "baseline": pd.concat([_baseline(name, pair, random) for name, pair in asked.items()]),
        "answers": pd.concat([_answers(name, pair) for name, pair in asked.items()]),
        "tokens": pd.concat([_tokens(name, pair, unknown_words) for name, pair in asked.items()]),
        "patching": pd.concat(
            [_patching(name, pair, site, layers, random)
             for name, pair in asked.items() for site in sites]
        ),
        "tracing": pd.concat(
            [_tracing(name, pair, site, layers, noise_levels, samples, random)
             for name, pair in asked.items() for site in sites]
        ),
        "floor": pd.concat([_floor(name, noise_levels, samples, random) for name in asked]),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def write_derived_tables(folder: Path, with_null: bool = True) -> Path:
    """Write what is derived from the tables that `write_tables` wrote there, and the controls.

    with_null: whether the examples have an unrelated one. Changes in probability are those of
    the tables; of the rest, numbers are made up: an interval is 0.05 to each side, and cells of
    the noun in layer 0 alone have a p below 0.05.
    """
    random = np.random.default_rng(1)
    tables = {
        name: pd.read_csv(folder / f"{name}.csv", keep_default_na=False)
        for name in ("answers", "patching", "tracing", "floor")
    }
    effects = _effects(tables, random)
    if not with_null:
        effects = effects.assign(null_change=np.nan, contrast=np.nan)
    derived = {
        "effects": effects,
        "summary": pd.concat([_run_means(tables), _summary(effects)]),
        "controls": _controls(effects),
        "excluded": _excluded(effects),
    }
    for name, table in derived.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def write_verdicts(folder: Path) -> Path:
    """Write the verdicts on three published quantities, one of which differs."""
    rows = [
        ("top_logit", "logits of the most probable first tokens", 20, 20, 20.0, np.nan,
         "agrees", ""),
        ("patching", "patching map, cell by cell", 216, 215, 216.0, np.nan, "differs",
         "layer 7, position 7 (animal ← shirt): published 0.1000 ± 5e-05, reproduced 0.2000"),
        ("noise_cell", "cells of the noise levels", 0, 0, np.nan, np.nan,
         "unseeded, shown as a distribution", ""),
    ]  # fmt: skip
    columns = ["quantity", "title", "compared", "agree", "expected", "p", "verdict", "where"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "verdicts.csv", index=False)
    return folder


def write_pictures(folder: Path, asked: dict[str, Asked] = ASKED) -> dict[str, str]:
    """Draw a small picture for every example; the answer maps examples to paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for number, name in enumerate(asked):
        picture = Image.new("RGB", (240 + 80 * number, 240), (176, 212, 236))
        pencil = ImageDraw.Draw(picture)
        pencil.rectangle((0, 150, 600, 240), fill=(176, 204, 142))
        pencil.ellipse((40, 80, 120, 180), fill=(126, 76, 38))
        pencil.rectangle((140, 70, 220, 190), fill=(212, 32, 38))
        paths[name] = str(folder / f"{name}.png")
        picture.save(paths[name])
    return paths


def _baseline(name: str, pair: Asked, random: np.random.Generator) -> pd.DataFrame:
    parts = []
    for role, question, answer in _questions(pair):
        others = [word for word in COLOR_WORDS if word != answer][:9]
        probability = np.sort(random.dirichlet([0.3] * 40))[::-1][:10]
        parts.append(
            pd.DataFrame(
                {
                    "example": name,
                    "role": role,
                    "question": question,
                    "rank": range(1, 11),
                    "token": [answer, *others],
                    "token_id": [_word_id(word) for word in [answer, *others]],
                    "logit": 12 + np.log(probability),
                    "probability": probability,
                }
            )
        )
    return pd.concat(parts)


def _answers(name: str, pair: Asked) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "example": name,
            "role": ["base", "source"],
            "question": [pair.base_question, pair.source_question],
            "answer": [pair.base_answer, pair.source_answer],
            "answer_id": [_word_id(pair.base_answer), _word_id(pair.source_answer)],
            "p_base": [0.889, 0.004],
            "p_source": [0.006, 0.617],
            "logit_base": [13.9, 8.1],
            "logit_source": [8.5, 13.1],
        }
    )


def _tokens(name: str, pair: Asked, unknown_words: Sequence[str]) -> pd.DataFrame:
    rows = []
    for role, question, _ in _questions(pair):
        for position, word in enumerate(tokens_of(question)):
            unknown = word in unknown_words
            token = "[UNK]" if unknown else word
            rows.append((name, role, position, token, _word_id(token), word, unknown))
    columns = ["example", "role", "position", "token", "token_id", "word", "unknown"]
    return pd.DataFrame(rows, columns=columns)


def _patching(
    name: str, pair: Asked, site: str, layers: int, random: np.random.Generator
) -> pd.DataFrame:
    base, source = tokens_of(pair.base_question), tokens_of(pair.source_question)
    rows = []
    for layer in range(layers):
        for position, (token, source_token) in enumerate(zip(base, source, strict=True)):
            depth = layer / layers
            p_source = 0.62 * (1 - depth) if token != source_token else 0.3 * depth**2
            p_source += 0.01 * random.random()
            p_base = 0.9 - 1.3 * p_source
            rows.append(
                (name, site, layer, position, token, source_token, p_base, p_source, 12.0, 9.0)
            )
    columns = ["example", "site", "layer", "position", "token", "source_token",
               "p_base", "p_source", "logit_base", "logit_source"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _tracing(
    name: str,
    pair: Asked,
    site: str,
    layers: int,
    noise_levels: Sequence[float],
    samples: int,
    random: np.random.Generator,
) -> pd.DataFrame:
    tokens = tokens_of(pair.base_question)
    index = pd.MultiIndex.from_product(
        [noise_levels, range(samples), range(layers), range(len(tokens))],
        names=["noise_level", "sample", "layer", "position"],
    )
    cells = index.to_frame(index=False)
    kept = np.exp(-cells["noise_level"]) + (cells["layer"] / layers) ** 3 * 0.4
    chance = random.beta(0.4, 0.4, len(cells))
    cells["p_base"] = np.clip(kept * 0.6 + 0.3 * chance * kept, 0.001, 0.95)
    cells["logit_base"] = 12 + np.log(cells["p_base"])
    cells.insert(0, "site", site)
    cells.insert(0, "example", name)
    cells.insert(6, "token", cells["position"].map(dict(enumerate(tokens))))
    return cells


def _floor(
    name: str, noise_levels: Sequence[float], samples: int, random: np.random.Generator
) -> pd.DataFrame:
    index = pd.MultiIndex.from_product(
        [noise_levels, range(samples)], names=["noise_level", "sample"]
    )
    draws = index.to_frame(index=False)
    draws["p_base"] = np.exp(-draws["noise_level"]) * 0.7 + 0.05 * random.random(len(draws))
    draws["logit_base"] = 12 + np.log(draws["p_base"])
    draws.insert(0, "example", name)
    return draws


def _effects(tables: dict[str, pd.DataFrame], random: np.random.Generator) -> pd.DataFrame:
    answers = tables["answers"]
    clean = answers[answers["role"] == "base"].set_index("example")["p_source"]
    patched = tables["patching"].assign(experiment="patching", noise_level=np.nan)
    before = patched["example"].map(clean)
    patched["probability_change"] = patched["p_source"] - before
    draw = ["example", "noise_level", "sample"]
    traced = tables["tracing"].merge(tables["floor"], on=draw, suffixes=("", "_floor"))
    traced["probability_change"] = traced["p_base"] - traced["p_base_floor"]
    cell = ["example", "site", "noise_level", "layer", "position", "token"]
    traced = traced.groupby(cell, sort=False)["probability_change"].mean().reset_index()
    effects = pd.concat([patched, traced.assign(experiment="tracing")], ignore_index=True)
    last = effects.groupby("example")["position"].transform("max")
    effects["role"] = np.select(
        [effects["position"] == 0, effects["position"] == last, effects["position"] == last - 1],
        ["[CLS]", "[SEP]", "noun"],
        "before noun",
    )
    effects["null_change"] = 0.1 * (random.random(len(effects)) - 0.5)
    effects["contrast"] = effects["probability_change"] - effects["null_change"]
    columns = ["experiment", *cell, "role", "probability_change", "null_change", "contrast"]
    return effects[columns].assign(
        log_probability_change=0.1, logit_difference=2.0, normalised=0.5, total_effect=0.6,
        below_threshold=False,
    )  # fmt: skip


def _run_means(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    answers, floor, tracing = (tables[name] for name in ("answers", "floor", "tracing"))
    samples = floor["sample"].nunique()
    clean = answers.loc[answers["role"] == "base", "p_base"].mean()
    parts = [
        pd.DataFrame({"experiment": ["clean"], "mean": clean, "draws": 1}),
        _level_means(floor, ["noise_level"]).assign(experiment="floor", draws=samples),
        _level_means(tracing, ["site", "noise_level"]).assign(experiment="tracing", draws=samples),
    ]
    examples = answers["example"].nunique()
    return _with_ends(
        pd.concat(parts).assign(role="all", quantity="probability", examples=examples)
    )


def _level_means(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    return rows.groupby(by)["p_base"].mean().rename("mean").reset_index()


def _summary(effects: pd.DataFrame) -> pd.DataFrame:
    keys = ["experiment", "site", "noise_level", "layer", "role"]
    groups = effects.groupby(keys, dropna=False)
    examples = groups["example"].nunique().reset_index(drop=True)
    parts = []
    for quantity in ("probability_change", "contrast"):
        means = groups[quantity].mean().rename("mean").reset_index()
        parts.append(means.assign(quantity=quantity, examples=examples, draws=1).dropna(
            subset="mean"
        ))  # fmt: skip
    stands_out = (parts[1]["layer"] == 0) & (parts[1]["role"] == "noun")
    p = np.where(stands_out, 0.01, 0.5)
    parts[1] = parts[1].assign(t=3.0, p_family=p, against="null")
    return _with_ends(pd.concat(parts))


def _with_ends(means: pd.DataFrame) -> pd.DataFrame:
    columns = ["experiment", "site", "noise_level", "layer", "role", "quantity", "mean", "low",
               "high", "examples", "draws", "t", "p_family", "against"]  # fmt: skip
    ends = {"low": means["mean"] - 0.05, "high": means["mean"] + 0.05}
    return means.assign(**ends).reindex(columns=columns)


def _controls(effects: pd.DataFrame) -> pd.DataFrame:
    """A row a control, example, site, noise level and layer; and the nulls, one a cell."""
    keys = ["experiment", "example", "site", "noise_level"]
    layers = effects.drop_duplicates([*keys, "layer"])[[*keys, "layer"]]
    whole = layers["experiment"].map({"patching": "ceiling", "tracing": "all_restored"})
    nulls = effects.loc[effects["null_change"].notna(), [*keys, "layer", "position"]]
    parts = [
        # The first block that is read of the column holds no number.
        nulls.assign(control="null", difference=np.nan),
        layers.assign(control="no_op", difference=0.0, tolerance=1e-6, effect=0.4),
        layers.assign(control=whole, difference=2e-7, tolerance=1e-4, effect=0.4),
    ]
    return pd.concat(parts).assign(donor="", sample=0, p_base=0.5, p_source=0.1)


def _excluded(effects: pd.DataFrame) -> pd.DataFrame:
    """The first example's traces are all below the threshold."""
    traced = effects[effects["experiment"] == "tracing"]
    of_first = traced[traced["example"] == traced["example"].iloc[0]]
    keys = ["example", "experiment", "site", "noise_level"]
    runs = of_first.groupby(keys, sort=False).size().rename("rows").reset_index()
    return runs.assign(reason="total effect below the threshold", value=0.01)


def _questions(pair: Asked) -> list[tuple[str, str, str]]:
    return [
        ("base", pair.base_question, pair.base_answer),
        ("source", pair.source_question, pair.source_answer),
    ]


def _word_id(word: str) -> int:
    return 1000 + sum(map(ord, word))
