"""Made-up tables with the columns and the shapes of the workflow's own, for the report tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from blip_tracing.machinery.tables import read_table
from blip_tracing.vocabulary.corruptions import KINDS, QUESTION_EMBEDDINGS, Corruption
from blip_tracing.vocabulary.experiment import (
    BASE,
    BY_ROLE,
    EACH,
    QUESTIONS,
    SOURCE,
    Experiment,
    Run,
)
from blip_tracing.vocabulary.metrics import NEEDED, columns_of
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.sites import DECODER, ENCODER, SITES
from blip_tracing.vocabulary.tables import CEILING, NO_OP, SMALL_EFFECT, UNRELATED

SITE = next(iter(SITES))
NOISE_LEVELS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
COLOR_WORDS = ("brown", "red", "white", "black", "green", "blue", "yellow", "pink", "gray", "tan")
NOISY = "noisy"
PICTURE_ONLY = "picture_only"
# Receiver and donor of each experiment.
ENDS = {"patching": (BASE, SOURCE), "tracing": (NOISY, BASE)}
SCORES = columns_of(NEEDED)
SUMMARY = ["experiment", "site", "noise_level", "group", "among", "layer", "head", "token_role",
           "quantity", "mean", "low", "high", "examples", "pictures", "draws", "known", "p_floor",
           "p_null", "p_family", "p_study", "chosen", "marked", "sum_of_singles"]  # fmt: skip
EFFECTS = ["experiment", "example", "group", "site", "noise_level", "layer", "head", "position",
           "token", "token_role", "probability_change", "log_probability_change", "log_odds_change",
           "logit_difference_change", "normalised", "hidden_change", "total_effect",
           "below_threshold", "included", "null_change", "contrast", "known", "p_map",
           "marked"]  # fmt: skip
FAMILIES = ["experiment", "site", "noise_level", "examples", "included", "pictures", "primary",
            "reference", "target", "total_effect", "hidden_share", "third_mass", "tested", "reason",
            "cells", "marked", "detectable", "matched_share", "heterogeneity_p"]  # fmt: skip
FAMILY = ["experiment", "site", "noise_level"]
DIFFERING = "differing word"
ROLES = ("[CLS]", "before it", DIFFERING, "after it", "[SEP]")
FEWEST_PICTURES, LEAST_DRAWS = 6, 5
TOTAL_EFFECT, LEAST_EFFECT = 0.05, 0.02
# Of the clean states that the made-up noise changes.
STATE_SD = 0.99
# Roles of the other towers' positions; the things' boxes are the left half and the upper right.
DECODER_ROLES = ("[DEC]", "answer")
THING, OTHER_THING, BACKGROUND = "thing", "other thing", "background"
REGION_ROLES = ("[CLS]", THING, OTHER_THING, BACKGROUND)
BOXES = f"{THING}=0,0,0.5,1; {OTHER_THING}=0.5,0,1,0.5"
HEADS, BEST_HEAD = 4, 2
# Of a picture cut into all its patches.
PATCHES = 4
Settings = Mapping[str, Mapping[str, Any]]


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


class At(NamedTuple):
    """A position, or several put in together, and what is there in receiver and donor."""

    position: int
    token: str
    source_token: str
    role: str


def positions_at(experiment: Experiment, site: str, pair: Asked) -> list[At]:
    """The positions of a cell, in the order of the tables."""
    each = list(_each_position(experiment, SITES[site].tower, pair))
    if experiment.positions == EACH:
        return each
    order = {ENCODER: ROLES, DECODER: DECODER_ROLES}.get(SITES[site].tower, REGION_ROLES)
    parts = order if experiment.positions == BY_ROLE else [ALL]
    joint = []
    for number, role in enumerate(parts):
        there = [at for at in each if role in (at.role, ALL)]
        if there:
            tokens, brought = (
                " ".join(map(str, column)) for column in list(zip(*there, strict=True))[1:3]
            )
            joint.append(At(number, tokens, brought.strip(), role))
    return joint


def _each_position(experiment: Experiment, tower: str, pair: Asked) -> Iterator[At]:
    if tower == ENCODER:
        ours, theirs = (
            tokens_of(pair.text(run.question)) for run in (experiment.receiver, experiment.donor)
        )
        base, source = (tokens_of(pair.text(question)) for question in QUESTIONS)
        differs = [at for at, token in enumerate(base) if token != source[at]]
        for at, (token, brought) in enumerate(zip(ours, theirs, strict=True)):
            role = (
                token if token in ("[CLS]", "[SEP]")
                else "before it" if at < min(differs, default=99)
                else "after it" if at > max(differs, default=99)
                else DIFFERING
            )  # fmt: skip
            yield At(at, token, brought, role)
    elif tower == DECODER:
        answer = pair.answer(experiment.followed).split()
        for at, token in enumerate(["[DEC]", *answer[:-1]]):
            yield At(at, token, "", DECODER_ROLES[min(at, 1)])
    else:
        yield At(0, "[CLS]", "", "[CLS]")
        side, letter = (experiment.regions, "r") if experiment.regions else (PATCHES, "p")
        for at in range(side**2):
            row, column = divmod(at, side)
            upper, left = row < side / 2, column < side / 2
            role = THING if left else OTHER_THING if upper else BACKGROUND
            yield At(at + 1, f"{letter}{row + 1}c{column + 1}", "", role)


def made_up_experiments(
    sites: Sequence[str] = (SITE,),
    noise_levels: Sequence[float] = NOISE_LEVELS,
    draws: int = 10,
    ends: Mapping[str, tuple[str, str]] = ENDS,
    settings: Settings | None = None,
) -> list[Experiment]:
    """Experiments between the runs base, source and noisy, by their receiver and donor.

    settings: by name, what is asked of one experiment otherwise (sites, window, positions, …).
    """
    noise = Corruption(next(iter(KINDS)), QUESTION_EMBEDDINGS, tuple(noise_levels), draws, 0)
    runs = {question: Run(question, question) for question in QUESTIONS}
    runs[NOISY] = Run(NOISY, BASE, noise)
    return [
        Experiment(
            name,
            runs[receiver],
            runs[donor],
            **{"sites": tuple(sites), **dict((settings or {}).get(name, {}))},
        )
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
    settings: Settings | None = None,
) -> Path:
    """Write `baseline`, `tokens`, `runs` and each experiment's table into the folder.

    ends, settings: of the experiments, as `made_up_experiments` takes them.
    """
    random = np.random.default_rng(0)
    experiments = made_up_experiments(sites, noise_levels, draws, ends, settings)
    corrupted = {asked.corrupted.name: asked.corrupted for asked in experiments if asked.corrupted}
    tables = {
        "baseline": pd.concat([_baseline(name, pair, random) for name, pair in asked.items()]),
        "tokens": pd.concat([_tokens(name, pair, unknown_words) for name, pair in asked.items()]),
        "runs": pd.concat(
            [_clean_runs(asked), _picture_only(asked)]
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
    _write(folder, tables)
    return folder


def _write(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Without the columns that no row of a table fills, of those that only some sites have."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        empty = [
            column
            for column in ("head", "source_token", "sum_of_singles")
            if column in table and table[column].replace("", np.nan).isna().all()
        ]
        table.drop(columns=empty).to_csv(folder / f"{name}.csv", index=False)


def write_derived_tables(
    folder: Path,
    with_null: bool = True,
    ends: Mapping[str, tuple[str, str]] = ENDS,
    settings: Settings | None = None,
) -> Path:
    """Write what is derived from the tables that `write_tables` wrote there, and the controls.

    with_null: whether the examples have an unrelated one. Changes in probability, floors and
    targets are those of the tables. Of the rest, numbers are made up: every example has a picture
    of its own and the first half of them a group; from six of them on intervals are 0.05 to each
    side, and the differing word in layers 1 and 2 is marked where a family is tested, layer 1
    chosen in most resamples; of heads it is head BEST_HEAD, of regions the role THING, of the
    decoder [DEC]. In an example's map the same cell of layer 1 is marked where it may be. Where
    several layers are put in together, the sum of the single ones is half as large.
    """
    random = np.random.default_rng(1)
    experiments = made_up_experiments(ends=ends, settings=settings)
    runs = read_table(folder / "runs.csv")
    tables = {asked.name: read_table(folder / f"{asked.name}.csv") for asked in experiments}
    parts = [_effects(asked, tables[asked.name], runs, random) for asked in experiments]
    effects = pd.concat(parts, ignore_index=True)
    if not with_null:
        effects = effects.assign(null_change=np.nan, contrast=np.nan, marked=False)
    families = pd.concat([_families(asked, effects, runs) for asked in experiments])
    derived = {
        "effects": effects[EFFECTS],
        "summary": _summary(effects, families, tables, experiments),
        "families": families[FAMILIES],
        "negatives": _negatives(families),
        "run_means": _run_means(runs),
        "controls": _controls(effects),
        "excluded": _excluded(effects),
    }
    _write(folder, derived)
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
    table = pd.DataFrame(rows, columns=columns).assign(
        correlation=[np.nan, 0.97, np.nan], correlation_low=[np.nan, 0.9, np.nan],
        correlation_high=[np.nan, 0.99, np.nan], shift=[np.nan, 1, np.nan],
        power=[np.nan, 0.85, np.nan],
    )  # fmt: skip
    table.to_csv(folder / "verdicts.csv", index=False)
    return folder


def write_pictures(
    folder: Path, asked: Mapping[str, Asked] = ASKED, thing: tuple[int, int, int] = (126, 76, 38)
) -> dict[str, str]:
    """Draw a small picture for every example; the answer maps examples to paths.

    thing: the colour of its left thing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for number, name in enumerate(asked):
        picture = Image.new("RGB", (240 + 80 * number, 240), (176, 212, 236))
        pencil = ImageDraw.Draw(picture)
        pencil.rectangle((0, 150, 600, 240), fill=(176, 204, 142))
        pencil.ellipse((40, 80, 120, 180), fill=thing)
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
        [_run(name, pair, question).assign(noise_level=np.nan, draw=np.nan, state_sd=np.nan)
         .assign(**{score: values[number] for score, values in scores.items()})
         for name, pair in asked.items() for number, question in enumerate(QUESTIONS)]
    ).pipe(_with_logits)  # fmt: skip


def _picture_only(asked: Mapping[str, Asked]) -> pd.DataFrame:
    """The picture with a question of no words: a reference for the floors."""
    parts = [_run(name, pair, BASE) for name, pair in asked.items()]
    rows = pd.concat(parts).assign(run=PICTURE_ONLY, text="")
    return rows.assign(p_base=0.2, p_source=0.1).pipe(_with_logits)


def _corrupted_runs(name: str, pair: Asked, run: Run, random: np.random.Generator) -> pd.DataFrame:
    index = pd.MultiIndex.from_product(
        [run.levels, range(run.draws)], names=["noise_level", "draw"]
    )
    drawn = index.to_frame(index=False)
    drawn["p_base"] = np.exp(-drawn["noise_level"]) * 0.7 + 0.05 * random.random(len(drawn))
    drawn["p_source"] = 0.3 * drawn["p_base"] + 0.01
    asked = _run(name, pair, run.question).assign(run=run.name, state_sd=STATE_SD)
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
    rows = []
    for layer, head, at in _cells_at(experiment, site, layers, pair):
        depth = layer / layers
        carries = at.role in (DIFFERING, THING, "[DEC]", ALL) and head in (None, BEST_HEAD)
        p_source = 0.62 * (1 - depth) if carries else 0.3 * depth**2
        p_source += 0.01 * random.random()
        p_base = 0.9 - 1.3 * p_source
        rows.append(
            (name, site, layer, head, at.position, at.token, at.source_token, p_base, p_source)
        )
    columns = ["example", "site", "layer", "head", "position", "token", "source_token",
               "p_base", "p_source"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).pipe(_with_logits)


def _cells_at(
    experiment: Experiment, site: str, layers: int, pair: Asked
) -> Iterator[tuple[int, int | None, At]]:
    heads: Sequence[int | None] = (
        (experiment.heads or range(HEADS)) if SITES[site].heads else [None]
    )
    for layer in range(layers):
        for head in heads:
            for at in positions_at(experiment, site, pair):
                yield layer, head, at


def _corrupted_cells(
    name: str,
    pair: Asked,
    experiment: Experiment,
    site: str,
    layers: int,
    random: np.random.Generator,
) -> pd.DataFrame:
    """Cells between a corrupted and a clean run of one question."""
    drawn = pd.MultiIndex.from_product(
        [experiment.levels, range(experiment.draws)], names=["noise_level", "draw"]
    ).to_frame(index=False)
    places = pd.DataFrame(
        [(layer, head, at.position, at.token, at.role)
         for layer, head, at in _cells_at(experiment, site, layers, pair)],
        columns=["layer", "head", "position", "token", "role"],
    )  # fmt: skip
    cells = drawn.merge(places, how="cross")
    depth = cells["layer"] / layers
    kept = np.exp(-cells["noise_level"])
    chance = random.beta(0.4, 0.4, len(cells))
    if experiment.receiver.corruption:
        restored = kept + depth**3 * 0.4
        p_base = np.clip(restored * 0.6 + 0.3 * chance * restored, 0.001, 0.95)
    else:
        p_base = np.clip(0.889 - (1 - kept) * (1 - depth) * 0.8 * chance, 0.001, 0.95)
    where = cells.assign(example=name, site=site)[
        ["example", "site", "layer", "head", "position", "token", "noise_level", "draw"]
    ]
    return where.assign(p_base=p_base, p_source=0.05).pipe(_with_logits)


def _changes(experiment: Experiment, cells: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The mean over draws of each cell's change in the followed answer's probability.

    hidden_change: the same over the draws in which the noise hid the answer.
    """
    score = f"p_{experiment.followed}"
    keys = ["example", *(["noise_level", "draw"] if experiment.receiver.corruption else [])]
    alone = runs[runs["run"] == experiment.receiver.name]
    before = cells.merge(alone[[*keys, score]], on=keys, how="left", suffixes=("", "_before"))
    change = before[score] - before[f"{score}_before"]
    hid = bool(experiment.receiver.corruption) & (
        before[f"{score}_before"] < _clean(runs)[before["example"]].to_numpy() / 2
    )
    changes = before.assign(
        head=before.get("head", np.nan),
        probability_change=change,
        hidden_change=change.where(hid),
        noise_level=before.get("noise_level", np.nan),
    )
    cell = ["example", "site", "noise_level", "layer", "head", "position", "token"]
    groups = changes.groupby(cell, sort=False, dropna=False)
    return groups[["probability_change", "hidden_change"]].mean().reset_index()


def _clean(runs: pd.DataFrame) -> pd.Series:
    """p(base answer) of the clean run, by example."""
    return runs[runs["run"] == BASE].set_index("example")["p_base"]


def _ends_of(experiment: Experiment, runs: pd.DataFrame) -> pd.DataFrame:
    """reference and target, a row an example (and noise level where a run is corrupted)."""
    ends = {}
    for end, run in (("reference", experiment.receiver), ("target", experiment.donor)):
        keys = ["example", *(["noise_level"] if run.corruption else [])]
        rows = runs[runs["run"] == run.name]
        means = rows.groupby(keys)[f"p_{experiment.followed}"].mean().rename(end)
        ends[end] = means.reset_index()
    corrupted = [table for table in ends.values() if "noise_level" in table]
    clean = [table for table in ends.values() if "noise_level" not in table]
    first, *others = [*corrupted, *clean]
    for other in others:
        first = first.merge(other, on="example")
    return first if corrupted else first.assign(noise_level=np.nan)


def _roles(experiment: Experiment, sites: Sequence[str], runs: pd.DataFrame) -> pd.DataFrame:
    """example, site, position, token_role: of every position, or of several put in together."""
    texts = runs[runs["run"].isin(QUESTIONS)].set_index(["example", "run"])
    rows = []
    for example in runs["example"].unique():
        base, source = (texts.loc[(example, question)] for question in QUESTIONS)
        pair = Asked(base["text"], source["text"], base["answer"], source["answer"])
        rows += [
            (example, site, at.position, at.role)
            for site in sites
            for at in positions_at(experiment, site, pair)
        ]
    return pd.DataFrame(rows, columns=["example", "site", "position", "token_role"])


def _effects(
    experiment: Experiment,
    cells: pd.DataFrame,
    runs: pd.DataFrame,
    random: np.random.Generator,
) -> pd.DataFrame:
    names = list(dict.fromkeys(cells["example"]))
    groups = {name: f"kind {1 + (2 * number >= len(names))}" for number, name in enumerate(names)}
    table = (
        _changes(experiment, cells, runs)
        .merge(_ends_of(experiment, runs), on=["example", "noise_level"])
        .merge(
            _roles(experiment, list(cells["site"].unique()), runs),
            on=["example", "site", "position"],
        )
    )
    change, total = table["probability_change"], table["target"] - table["reference"]
    null = 0.1 * (random.random(len(table)) - 0.5)
    small = experiment.direction * total < TOTAL_EFFECT
    asked_other = (table["layer"] == 0) & (experiment.corrupted is None)
    known = asked_other & (table["site"] == SITE)
    one = (table["layer"] == 1) & _is_best(table)
    table = table.assign(
        experiment=experiment.name, group=table["example"].map(groups),
        log_probability_change=0.1, log_odds_change=4 * change,
        logit_difference_change=-8 * change, normalised=change / total, total_effect=total,
        below_threshold=small, included=True, null_change=null, contrast=change - null,
        known=np.select([known & (table["token_role"] == DIFFERING), known],
                        ["ceiling", "no_op"], ""),
        p_map=np.where(one, 0.01, 0.5) if experiment.draws > 1 else np.nan,
    )  # fmt: skip
    may = (experiment.draws >= LEAST_DRAWS) & ~small & (experiment.direction * change > 0.05)
    return table.assign(marked=one & may)


def _is_best(rows: pd.DataFrame) -> pd.Series:
    """Whether a cell is at the place that carries: the differing word, the thing, [DEC], a head."""
    return rows["token_role"].isin([DIFFERING, THING, "[DEC]", ALL]) & (
        rows["head"].isna() | (rows["head"] == BEST_HEAD)
    )


def _families(experiment: Experiment, effects: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    mine = effects[effects["experiment"] == experiment.name]
    levels = sorted(mine["noise_level"].dropna().unique())
    rows = []
    for (site, level), family in mine.groupby(["site", "noise_level"], dropna=False, sort=False):
        each = family.drop_duplicates("example")
        total, count = each["total_effect"].mean(), len(each)
        reason = ""
        if count < FEWEST_PICTURES:
            reason = "fewer than six pictures"
        elif family["null_change"].isna().all():
            reason = "no unrelated example"
        elif experiment.direction * total < TOTAL_EFFECT:
            reason = "the corruption hid nothing"
        noisy = runs[runs["noise_level"] == level]
        hidden = noisy["p_base"] < _clean(runs)[noisy["example"]].to_numpy() / 2
        row = "head" if family["head"].notna().any() else "token_role"
        cells = family[["layer", row]].drop_duplicates()
        tested = not reason
        rows.append(
            {
                "experiment": experiment.name, "site": site, "noise_level": level,
                "examples": count, "included": count, "pictures": count,
                "primary": site == mine["site"].iloc[0]
                and (not levels or level == levels[len(levels) // 2]),
                "reference": each["reference"].mean(), "target": each["target"].mean(),
                "total_effect": total, "hidden_share": hidden.mean() if len(noisy) else np.nan,
                "third_mass": 0.3, "tested": tested, "reason": reason,
                "cells": len(cells) if tested else 0, "marked": 2 if tested else 0,
                "detectable": 0.21 if tested else np.nan, "matched_share": 0.9,
                "heterogeneity_p": 0.03 if tested else np.nan,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _negatives(families: pd.DataFrame) -> pd.DataFrame:
    rows = families[families["tested"]]
    return rows[FAMILY].assign(
        control="unrelated donor as source", cells=rows["cells"], false_marks=0, exceeded=False
    )


def _run_means(runs: pd.DataFrame) -> pd.DataFrame:
    chosen = runs[runs["run"] != SOURCE]
    hidden = (chosen["p_base"] < _clean(runs)[chosen["example"]].to_numpy() / 2).astype(float)
    groups = chosen.assign(hidden=hidden, third=1 - chosen["p_base"] - chosen["p_source"]).groupby(
        ["run", "noise_level"], sort=False, dropna=False
    )
    means = groups.agg(
        mean=("p_base", "mean"), examples=("example", "nunique"), rows=("example", "size"),
        hidden=("hidden", "mean"), third=("third", "mean"), state_sd=("state_sd", "mean"),
    ).reset_index()  # fmt: skip
    means["draws"] = means["rows"] // means["examples"]
    means["noise_in_sd"] = means["noise_level"] / means["state_sd"]
    means["hidden"] = means["hidden"].where(means["noise_level"].notna())
    columns = ["run", "noise_level", "mean", "low", "high", "examples", "draws", "hidden", "third",
               "state_sd", "noise_in_sd"]  # fmt: skip
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
    return _within_bounds(_with_ends(named))


def _summary(
    effects: pd.DataFrame,
    families: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    experiments: Sequence[Experiment],
) -> pd.DataFrame:
    covered = effects["probability_change"] / effects["total_effect"]
    effects = effects.assign(covered=covered.mask(effects["below_threshold"]))
    parts = [_summary_of(effects, families, ALL, True)]
    parts += [_summary_of(rows, families, str(name), False)
              for name, rows in effects.groupby("group")]  # fmt: skip
    whole = pd.concat([_whole(asked, tables[asked.name]) for asked in experiments])
    parts.append(whole.assign(group=ALL))
    summary = pd.concat(parts).assign(pictures=lambda rows: rows["examples"])
    windows = {asked.name: asked.window for asked in experiments}
    several = summary["experiment"].map(windows) > 1
    summary["sum_of_singles"] = (summary["mean"] / 2).where(
        several & summary["layer"].notna() & (summary["quantity"] == "probability_change")
    )
    both = [summary.assign(among=among) for among in ("all", "included")]
    return pd.concat(both).reindex(columns=SUMMARY)


def _summary_of(
    effects: pd.DataFrame, families: pd.DataFrame, group: str, tested: bool
) -> pd.DataFrame:
    # Of heads, the mean over all positions too.
    effects = pd.concat([effects, effects[effects["head"].notna()].assign(token_role=ALL)])
    keys = [*FAMILY, "layer", "head", "token_role"]
    by_example = effects.groupby([*keys, "example"], dropna=False).agg(
        probability_change=("probability_change", "mean"),
        log_odds_change=("log_odds_change", "mean"),
        logit_difference_change=("logit_difference_change", "mean"),
        hidden_change=("hidden_change", "mean"),
        contrast=("contrast", "mean"),
        largest=("covered", "max"),
        known=("known", "first"),
    )
    by_example["turned"] = (by_example["largest"] >= 0.5).astype(float)
    groups = by_example.reset_index().groupby(keys, dropna=False)
    counts = groups.agg(examples=("example", "nunique"), known=("known", "first"))
    parts = []
    for quantity in ("probability_change", "log_odds_change", "logit_difference_change",
                     "hidden_change", "turned", "contrast"):  # fmt: skip
        means = counts.assign(mean=groups[quantity].mean(), quantity=quantity, draws=1)
        ended = _with_ends(means.dropna(subset="mean").reset_index())
        parts.append(_within_bounds(ended) if quantity == "turned" else ended)
    changes = parts[0].merge(families[[*FAMILY, "tested", "included"]], on=FAMILY, how="left")
    if tested:
        one = _is_best(changes) & (changes["known"] == "")
        best, second = one & (changes["layer"] == 1), one & (changes["layer"] == 2)
        p = pd.Series(np.where(best | second, 0.01, 0.5)).where(changes["tested"])
        changes = changes.assign(
            p_floor=p, p_null=p / 2, p_family=p, p_study=2 * p,
            chosen=np.select([best, second], [0.7, 0.28], 0.0),
            marked=(best | second) & changes["tested"],
        )  # fmt: skip
        parts[0] = changes
    summary = pd.concat(parts).assign(group=group)
    none = summary["quantity"] != "probability_change"
    return summary.assign(known=summary["known"].mask(none, ""))


def _with_ends(means: pd.DataFrame) -> pd.DataFrame:
    """With the intervals that there are from six pictures on."""
    enough = means["examples"] >= FEWEST_PICTURES
    return means.assign(
        low=(means["mean"] - 0.05).where(enough), high=(means["mean"] + 0.05).where(enough)
    )


def _within_bounds(probabilities: pd.DataFrame) -> pd.DataFrame:
    ends = {end: probabilities[end].clip(0, 1) for end in ("low", "high")}
    return probabilities.assign(**ends)


def _controls(effects: pd.DataFrame) -> pd.DataFrame:
    """A row a control, example, site, noise level and layer; and the nulls, one a cell."""
    keys = ["experiment", "example", "site", "noise_level"]
    layers = effects.drop_duplicates([*keys, "layer"])[[*keys, "layer"]]
    nulls = effects.loc[effects["null_change"].notna(), [*keys, "layer", "head", "position"]]
    parts = [
        # The first block that is read of the column holds no number.
        nulls.assign(control=UNRELATED, difference=np.nan),
        layers.assign(control=NO_OP, difference=0.0, tolerance=1e-6, effect=0.4),
        layers.assign(control=CEILING, difference=2e-7, tolerance=1e-4, effect=0.4),
    ]
    scores = {score: 0.5 for score in SCORES}
    return pd.concat(parts).assign(donor="", draw=0, **scores)


def _excluded(effects: pd.DataFrame) -> pd.DataFrame:
    """The first example's effects are said to be below the threshold where a run is corrupted."""
    corrupted = effects[effects["noise_level"].notna()]
    of_first = corrupted[corrupted["example"] == effects["example"].iloc[0]]
    keys = ["example", "experiment", "site", "noise_level"]
    runs = of_first.groupby(keys, sort=False).size().rename("rows").reset_index()
    return runs.assign(reason=SMALL_EFFECT, value=0.01)


def _word_id(word: str) -> int:
    return 1000 + sum(map(ord, word))
