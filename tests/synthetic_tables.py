"""Made-up tables with the columns and the shapes of the workflow's own, for the report tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from blip_tracing.machinery.tables import read_table
from blip_tracing.vocabulary.corruptions import KINDS, QUESTION_EMBEDDINGS, Corruption
from blip_tracing.vocabulary.experiment import BASE, QUESTIONS, SOURCE, Experiment, Run
from blip_tracing.vocabulary.metrics import METRICS, columns_of
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.sites import SITES
from blip_tracing.vocabulary.tables import CEILING, NO_OP, NULL, SMALL_EFFECT

SITE = next(iter(SITES))
NOISE_LEVELS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
COLOR_WORDS = ("brown", "red", "white", "black", "green", "blue", "yellow", "pink", "gray", "tan")
NOISY = "noisy"
# Receiver and donor of each experiment.
ENDS = {"patching": (BASE, SOURCE), "tracing": (NOISY, BASE)}
SCORES = columns_of(METRICS)
SUMMARY = ["experiment", "site", "noise_level", "layer", "token_role", "quantity", "mean", "low",
           "high", "examples", "draws", "t", "p_family", "against"]  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """An example: its two questions and their answers."""

    base_question: str
    source_question: str
    base_answer: str
    source_answer: str

    def text(self, question: str) -> str:
        return self.base_question if question == BASE else self.source_question

    def answer(self, question: str) -> str:
        return self.base_answer if question == BASE else self.source_answer


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


def made_up_experiments(
    sites: Sequence[str] = (SITE,),
    noise_levels: Sequence[float] = NOISE_LEVELS,
    draws: int = 10,
    ends: Mapping[str, tuple[str, str]] = ENDS,
) -> list[Experiment]:
    """Experiments between the runs base, source and noisy, by their receiver and donor."""
    noise = Corruption(next(iter(KINDS)), QUESTION_EMBEDDINGS, tuple(noise_levels), draws, 0)
    runs = {question: Run(question, question) for question in QUESTIONS}
    runs[NOISY] = Run(NOISY, BASE, noise)
    return [
        Experiment(name, runs[receiver], runs[donor], tuple(sites))
        for name, (receiver, donor) in ends.items()
    ]


def write_tables(
    folder: Path,
    asked: Mapping[str, Asked] = ASKED,
    layers: int = 6,
    sites: Sequence[str] = (SITE,),
    noise_levels: Sequence[float] = NOISE_LEVELS,
    draws: int = 10,
    unknown_words: Sequence[str] = (),
    ends: Mapping[str, tuple[str, str]] = ENDS,
) -> Path:
    """Write `baseline`, `tokens`, `runs` and each experiment's table into the folder.

    ends: receiver and donor of each experiment, as `made_up_experiments` takes them.
    """
    random = np.random.default_rng(0)
    experiments = made_up_experiments(sites, noise_levels, draws, ends)
    corrupted = {asked.corrupted.name: asked.corrupted for asked in experiments if asked.corrupted}
    tables = {
        "baseline": pd.concat([_baseline(name, pair, random) for name, pair in asked.items()]),
        "tokens": pd.concat([_tokens(name, pair, unknown_words) for name, pair in asked.items()]),
        "runs": pd.concat(
            [_clean_runs(asked)]
            + [_corrupted_runs(name, pair, run, random)
               for name, pair in asked.items() for run in corrupted.values()]
        ),
    }  # fmt: skip
    for experiment in experiments:
        make = _corrupted_cells if experiment.corrupted else _clean_cells
        tables[experiment.name] = pd.concat(
            [make(name, pair, experiment, site, layers, random)
             for name, pair in asked.items() for site in experiment.sites]
        )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def write_derived_tables(
    folder: Path, with_null: bool = True, ends: Mapping[str, tuple[str, str]] = ENDS
) -> Path:
    """Write what is derived from the tables that `write_tables` wrote there, and the controls.

    with_null: whether the examples have an unrelated one. Changes in probability are those of
    the tables; of the rest, numbers are made up: an interval is 0.05 to each side, and cells of
    the noun in layer 0 alone have a p below 0.05.
    """
    random = np.random.default_rng(1)
    experiments = made_up_experiments(ends=ends)
    runs = read_table(folder / "runs.csv")
    tables = {asked.name: read_table(folder / f"{asked.name}.csv") for asked in experiments}
    parts = [_changes(asked, tables[asked.name], runs) for asked in experiments]
    effects = _effects(pd.concat(parts, ignore_index=True), random)
    if not with_null:
        effects = effects.assign(null_change=np.nan, contrast=np.nan)
    whole = pd.concat([_whole(asked, tables[asked.name]) for asked in experiments])
    derived = {
        "effects": effects,
        "summary": pd.concat([whole, _summary(effects)]),
        "run_means": _run_means(runs),
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
    for question in QUESTIONS:
        answer = pair.answer(question)
        others = [word for word in COLOR_WORDS if word != answer][:9]
        probability = np.sort(random.dirichlet([0.3] * 40))[::-1][:10]
        parts.append(
            pd.DataFrame(
                {
                    "example": name,
                    "question": question,
                    "text": pair.text(question),
                    "rank": range(1, 11),
                    "token": [answer, *others],
                    "token_id": [_word_id(word) for word in [answer, *others]],
                    "logit": 12 + np.log(probability),
                    "probability": probability,
                }
            )
        )
    return pd.concat(parts)


def _tokens(name: str, pair: Asked, unknown_words: Sequence[str]) -> pd.DataFrame:
    rows = []
    for question in QUESTIONS:
        for position, word in enumerate(tokens_of(pair.text(question))):
            unknown = word in unknown_words
            token = "[UNK]" if unknown else word
            rows.append((name, question, position, token, _word_id(token), word, unknown))
    columns = ["example", "question", "position", "token", "token_id", "word", "unknown"]
    return pd.DataFrame(rows, columns=columns)


def _clean_runs(asked: Mapping[str, Asked]) -> pd.DataFrame:
    scores = {"p_base": [0.889, 0.004], "p_source": [0.006, 0.617]}
    return pd.concat(
        [_run(name, pair, question).assign(noise_level=np.nan, draw=np.nan)
         .assign(**{score: values[number] for score, values in scores.items()})
         for name, pair in asked.items() for number, question in enumerate(QUESTIONS)]
    ).pipe(_with_logits)  # fmt: skip


def _corrupted_runs(name: str, pair: Asked, run: Run, random: np.random.Generator) -> pd.DataFrame:
    index = pd.MultiIndex.from_product(
        [run.levels, range(run.draws)], names=["noise_level", "draw"]
    )
    drawn = index.to_frame(index=False)
    drawn["p_base"] = np.exp(-drawn["noise_level"]) * 0.7 + 0.05 * random.random(len(drawn))
    drawn["p_source"] = 0.3 * drawn["p_base"] + 0.01
    asked = _run(name, pair, run.question).assign(run=run.name)
    return asked.merge(drawn, how="cross").pipe(_with_logits)


def _run(name: str, pair: Asked, question: str) -> pd.DataFrame:
    answer = pair.answer(question)
    row = {"example": name, "run": question, "question": question, "text": pair.text(question),
           "answer": answer, "answer_id": _word_id(answer)}  # fmt: skip
    return pd.DataFrame([row])


def _with_logits(rows: pd.DataFrame) -> pd.DataFrame:
    logits = {f"logit_{answer}": 12 + np.log(rows[f"p_{answer}"]) for answer in QUESTIONS}
    others = [column for column in rows if column not in SCORES]
    return rows.assign(**logits)[[*others, *SCORES]]


def _clean_cells(
    name: str,
    pair: Asked,
    experiment: Experiment,
    site: str,
    layers: int,
    random: np.random.Generator,
) -> pd.DataFrame:
    """Cells of an experiment in which nothing is corrupted."""
    ours, theirs = (
        tokens_of(pair.text(run.question)) for run in (experiment.receiver, experiment.donor)
    )
    rows = []
    for layer in range(layers):
        for position, (token, source_token) in enumerate(zip(ours, theirs, strict=True)):
            depth = layer / layers
            p_source = 0.62 * (1 - depth) if token != source_token else 0.3 * depth**2
            p_source += 0.01 * random.random()
            p_base = 0.9 - 1.3 * p_source
            rows.append((name, site, layer, position, token, source_token, p_base, p_source))
    columns = ["example", "site", "layer", "position", "token", "source_token",
               "p_base", "p_source"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).pipe(_with_logits)


def _corrupted_cells(
    name: str,
    pair: Asked,
    experiment: Experiment,
    site: str,
    layers: int,
    random: np.random.Generator,
) -> pd.DataFrame:
    """Cells between a corrupted and a clean run of one question."""
    tokens = tokens_of(pair.text(experiment.receiver.question))
    index = pd.MultiIndex.from_product(
        [experiment.levels, range(experiment.draws), range(layers), range(len(tokens))],
        names=["noise_level", "draw", "layer", "position"],
    )
    cells = index.to_frame(index=False)
    depth = cells["layer"] / layers
    kept = np.exp(-cells["noise_level"])
    chance = random.beta(0.4, 0.4, len(cells))
    if experiment.receiver.corruption:
        restored = kept + depth**3 * 0.4
        p_base = np.clip(restored * 0.6 + 0.3 * chance * restored, 0.001, 0.95)
    else:
        p_base = np.clip(0.889 - (1 - kept) * (1 - depth) * 0.8 * chance, 0.001, 0.95)
    where = cells.assign(
        example=name, site=site, token=cells["position"].map(dict(enumerate(tokens)))
    )[["example", "site", "layer", "position", "token", "noise_level", "draw"]]
    return where.assign(p_base=p_base, p_source=0.05).pipe(_with_logits)


def _changes(experiment: Experiment, cells: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The mean over draws of each cell's change in the followed answer's probability."""
    score = f"p_{experiment.followed}"
    keys = ["example", *(["noise_level", "draw"] if experiment.receiver.corruption else [])]
    alone = runs[runs["run"] == experiment.receiver.name]
    before = cells.merge(alone[[*keys, score]], on=keys, how="left", suffixes=("", "_before"))
    changes = before.assign(
        experiment=experiment.name,
        probability_change=before[score] - before[f"{score}_before"],
        noise_level=before.get("noise_level", np.nan),
    )
    cell = ["experiment", "example", "site", "noise_level", "layer", "position", "token"]
    groups = changes.groupby(cell, sort=False, dropna=False)
    return groups["probability_change"].mean().reset_index()


def _effects(changes: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    last = changes.groupby("example")["position"].transform("max")
    position = changes["position"]
    roles = np.select(
        [position == 0, position == last, position == last - 1], ["[CLS]", "[SEP]", "noun"],
        "before noun",
    )  # fmt: skip
    null_change = 0.1 * (random.random(len(changes)) - 0.5)
    where = [column for column in changes if column != "probability_change"]
    return changes[where].assign(
        token_role=roles, probability_change=changes["probability_change"],
        log_probability_change=0.1, logit_difference=2.0, normalised=0.5, total_effect=0.6,
        below_threshold=False, null_change=null_change,
        contrast=changes["probability_change"] - null_change,
    )  # fmt: skip


def _run_means(runs: pd.DataFrame) -> pd.DataFrame:
    chosen = runs[runs["run"] != SOURCE]
    groups = chosen.groupby(["run", "noise_level"], sort=False, dropna=False)
    means = groups.agg(
        mean=("p_base", "mean"), examples=("example", "nunique"), rows=("example", "size")
    ).reset_index()
    means["draws"] = means["rows"] // means["examples"]
    columns = ["run", "noise_level", "mean", "low", "high", "examples", "draws"]
    return _within_bounds(_with_ends(means))[columns]


def _whole(experiment: Experiment, cells: pd.DataFrame) -> pd.DataFrame:
    """The summary's means over all cells."""
    keyed = cells.assign(
        noise_level=cells.get("noise_level", np.nan), draw=cells.get("draw", 0),
        mean=cells[f"p_{experiment.followed}"],
    )  # fmt: skip
    groups = keyed.groupby(["site", "noise_level"], sort=False, dropna=False)
    means = groups.agg(
        mean=("mean", "mean"), examples=("example", "nunique"), draws=("draw", "nunique")
    ).reset_index()
    named = means.assign(experiment=experiment.name, token_role=ALL, quantity="probability")
    return _within_bounds(_with_ends(named)).reindex(columns=SUMMARY)


def _summary(effects: pd.DataFrame) -> pd.DataFrame:
    keys = ["experiment", "site", "noise_level", "layer", "token_role"]
    groups = effects.groupby(keys, dropna=False)
    examples = groups["example"].nunique().reset_index(drop=True)
    parts = []
    for quantity in ("probability_change", "contrast"):
        means = groups[quantity].mean().rename("mean").reset_index()
        parts.append(means.assign(quantity=quantity, examples=examples, draws=1).dropna(
            subset="mean"
        ))  # fmt: skip
    stands_out = (parts[1]["layer"] == 0) & (parts[1]["token_role"] == "noun")
    p = np.where(stands_out, 0.01, 0.5)
    parts[1] = parts[1].assign(t=3.0, p_family=p, against=NULL)
    return _with_ends(pd.concat(parts)).reindex(columns=SUMMARY)


def _with_ends(means: pd.DataFrame) -> pd.DataFrame:
    return means.assign(low=means["mean"] - 0.05, high=means["mean"] + 0.05)


def _within_bounds(probabilities: pd.DataFrame) -> pd.DataFrame:
    ends = {end: probabilities[end].clip(0, 1) for end in ("low", "high")}
    return probabilities.assign(**ends)


def _controls(effects: pd.DataFrame) -> pd.DataFrame:
    """A row a control, example, site, noise level and layer; and the nulls, one a cell."""
    keys = ["experiment", "example", "site", "noise_level"]
    layers = effects.drop_duplicates([*keys, "layer"])[[*keys, "layer"]]
    nulls = effects.loc[effects["null_change"].notna(), [*keys, "layer", "position"]]
    parts = [
        # The first block that is read of the column holds no number.
        nulls.assign(control=NULL, difference=np.nan),
        layers.assign(control=NO_OP, difference=0.0, tolerance=1e-6, effect=0.4),
        layers.assign(control=CEILING, difference=2e-7, tolerance=1e-4, effect=0.4),
    ]
    scores = {score: 0.5 for score in SCORES}
    return pd.concat(parts).assign(donor="", draw=0, **scores)


def _excluded(effects: pd.DataFrame) -> pd.DataFrame:
    """The first example's effects are all below the threshold where a run is corrupted."""
    corrupted = effects[effects["noise_level"].notna()]
    of_first = corrupted[corrupted["example"] == effects["example"].iloc[0]]
    keys = ["example", "experiment", "site", "noise_level"]
    runs = of_first.groupby(keys, sort=False).size().rename("rows").reset_index()
    return runs.assign(reason=SMALL_EFFECT, value=0.01)


def _word_id(word: str) -> int:
    return 1000 + sum(map(ord, word))
