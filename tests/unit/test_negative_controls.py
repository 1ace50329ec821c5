"""Negative controls on the miniature: where nothing can be found, nothing is marked.

Drawn scenes are measured by a plain batched loop over the unmodified Hugging Face model, trained
and with fresh random weights, and told by the rules of the workflow: at 6, 12 and 30 pictures.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from measure_effects import Measured, Shard, measure_experiment
from transformers import AutoTokenizer, BlipForQuestionAnswering
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from blip_tracing.meaning.roles import Known, assign_roles
from blip_tracing.meaning.statistics import max_t_test
from blip_tracing.meaning.summary import Rules, finish_experiment, summarize_family
from blip_tracing.vocabulary.corruptions import KINDS, PLACES, Corruption
from blip_tracing.vocabulary.experiment import BASE, SOURCE, Experiment, Run
from blip_tracing.vocabulary.groups import Effects
from blip_tracing.vocabulary.tables import (
    CEILING,
    EQUAL_TOKENS,
    HIDES_NOTHING,
    NO_OP,
    NOTHING_HIDDEN,
    SAME_ANSWER,
    UNRELATED,
    UNRELATED_SOURCE,
)

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "resources/miniature/checkpoint"
sys.path.insert(0, str(ROOT / "resources/miniature"))

import scenes  # noqa: E402

EXAMPLES, DONORS, DRAWS = 30, 2, 5
NUMBERS = (6, 12, EXAMPLES)
QUIET, LOUD = 0.1, 5.0
SITE = "encoder.block_input"
RULES = Rules(total_effect=0.05, least_effect=0.02, resamples=1000, seed=0)
ROLES = [rule.model_dump(exclude_none=True) for rule in Effects().roles]
NOISE = Corruption(next(iter(KINDS)), next(iter(PLACES)), (QUIET, LOUD), DRAWS, seed=0)
CLEAN = Run(BASE, BASE)
PATCHING = Experiment("patching", CLEAN, Run(SOURCE, SOURCE), (SITE,))
TRACING = Experiment("tracing", Run("noisy", BASE, NOISE), CLEAN, (SITE,))


@dataclass
class Asked:
    """A scene: two questions about it, their tokens and the model's answers to them."""

    name: str
    image: torch.Tensor
    questions: dict[str, str]
    ids: dict[str, list[int]]
    answers: list[int]
    states: dict[str, torch.Tensor]


class Plain:
    """A model, and runs of it with states replaced, many at once."""

    def __init__(self, model: BlipForQuestionAnswering) -> None:
        self.model = model.eval()
        self.layers = model.text_encoder.encoder.layer
        self.tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
        self.processor = BlipImageProcessorPil.from_pretrained(CHECKPOINT)

    @torch.inference_mode()
    def logits(self, ids: list[int], image: torch.Tensor, changes: Any = (), rows: int = 1) -> Any:
        """Logits (rows, V); changes: layers, each with what is done to its input (rows, T, D)."""
        hooks = [
            self.layers[layer].register_forward_pre_hook(
                lambda module, args, change=change: (change(args[0]), *args[1:])
            )
            for layer, change in changes
        ]
        inputs, picture = torch.tensor([ids] * rows), image.expand(rows, -1, -1)
        seen = self.model.text_encoder(input_ids=inputs, encoder_hidden_states=picture)
        for hook in hooks:
            hook.remove()
        start = torch.full((rows, 1), self.model.decoder_start_token_id)
        states = seen.last_hidden_state
        return self.model.text_decoder(input_ids=start, encoder_hidden_states=states).logits[:, 0]

    def states(self, ids: list[int], image: torch.Tensor) -> torch.Tensor:
        """What each block reads of a question alone: (layers, T, D)."""
        kept: list[torch.Tensor] = []

        def keep(states: torch.Tensor) -> torch.Tensor:
            kept.append(states[0].clone())
            return states

        self.logits(ids, image, [(layer, keep) for layer in range(len(self.layers))])
        return torch.stack(kept)

    def ask(self, name: str, scene: Any, distinct: bool) -> Asked | None:
        """Two questions of one kind about a scene, whose answers differ if they are to."""
        pixels = self.processor([scenes.draw_scene(scene, 96)], return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            image = self.model.vision_model(pixel_values=pixels).last_hidden_state
        for one, other in combinations(scenes.questions_about(scene), 2):
            texts = {BASE: one.text, SOURCE: other.text}
            ids = {key: self.tokenizer(text).input_ids for key, text in texts.items()}
            best = [int(self.logits(found, image).argmax()) for found in ids.values()]
            alike = one.kind == other.kind and len(ids[BASE]) == len(ids[SOURCE])
            if alike and (best[0] != best[1] or not distinct):
                states = {key: self.states(found, image) for key, found in ids.items()}
                return Asked(name, image, texts, ids, best, states)
        return None


def scored(logits: torch.Tensor, answers: list[int]) -> dict[str, np.ndarray]:
    """Both answers' probabilities and logits, a row each."""
    chances, names = logits.softmax(-1), (BASE, SOURCE)
    return {
        **{f"p_{name}": chances[:, a].numpy() for name, a in zip(names, answers, strict=True)},
        **{f"logit_{name}": logits[:, a].numpy() for name, a in zip(names, answers, strict=True)},
    }


def put_in(states: torch.Tensor, positions: Sequence[int]) -> Any:
    """A change that puts one state (rows, D) a row at its position."""

    def change(inputs: torch.Tensor) -> torch.Tensor:
        inputs = inputs.clone()
        inputs[range(len(inputs)), list(positions)] = states
        return inputs

    return change


def measured(plain: Plain, distinct: bool) -> dict[str, pd.DataFrame]:
    """The tables of both experiments over drawn scenes, each with a picture of its own."""
    random = np.random.default_rng(4)
    asked: list[Asked] = []
    while len(asked) < EXAMPLES:
        found = plain.ask(f"e{len(asked):02d}", scenes.random_scene(random), distinct)
        asked += [found] if found else []
    tables: dict[str, list[pd.DataFrame]] = {
        name: [] for name in ("runs", "baseline", "tokens", "patching", "tracing", "controls")
    }
    for number, one in enumerate(asked):
        others = [*asked[number + 1 :], *asked[:number]]
        fit = [o for o in others if o.answers[0] not in one.answers or not distinct][:DONORS]
        measure_one(plain, one, fit, tables)
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}


def measure_one(
    plain: Plain, one: Asked, donors: list[Asked], tables: dict[str, list[pd.DataFrame]]
) -> None:
    """Add one example's rows to the tables."""
    words = {key: plain.tokenizer.convert_ids_to_tokens(ids) for key, ids in one.ids.items()}
    tables["tokens"] += [
        pd.DataFrame({"example": one.name, "question": key, "position": range(len(found)),
                      "token": found}) for key, found in words.items()
    ]  # fmt: skip
    for question, answer in zip((BASE, SOURCE), one.answers, strict=True):
        named = {"example": one.name, "run": question, "answer_id": answer, "answer": str(answer)}
        clean = scored(plain.logits(one.ids[question], one.image), one.answers)
        tables["runs"].append(pd.DataFrame({**named, **clean}))
        told = {"example": [one.name], "question": question, "rank": 1, "token_id": answer}
        tables["baseline"].append(pd.DataFrame(told))
    length, width = len(one.ids[BASE]), one.states[BASE].shape[-1]
    ours = range(length)
    # Each donor's states by layer and our position; the treatment's first.
    null = [d.states[BASE][:, [min(p, d.states[BASE].shape[1] - 1) for p in ours]] for d in donors]
    generator = torch.Generator().manual_seed(int(one.name[1:]))
    noise = torch.randn(DRAWS, length, width, generator=generator)
    for level in (QUIET, LOUD):
        floor = plain.logits(
            one.ids[BASE], one.image, [(0, lambda s, level=level: s + level * noise)], DRAWS
        )
        named = {"example": one.name, "run": "noisy", "answer_id": one.answers[0],
                 "answer": str(one.answers[0]),
                 "noise_level": level, "draw": range(DRAWS)}  # fmt: skip
        tables["runs"].append(pd.DataFrame({**named, **scored(floor, one.answers)}))
    for layer in range(len(plain.layers)):
        cell = {"example": one.name, "site": SITE, "layer": layer}
        put = [one.states[SOURCE], *null]
        states = torch.cat([part[layer] for part in put])
        positions = list(ours) * len(put)
        changes = [(layer, put_in(states, positions))]
        rows = pd.DataFrame(
            {**cell, "position": positions,
             **scored(plain.logits(one.ids[BASE], one.image, changes, len(states)), one.answers)}
        )  # fmt: skip
        rows["put"] = np.repeat(range(-1, len(put) - 1), length)
        both = {"token": words[BASE], "source_token": words[SOURCE]}
        tables["patching"].append(rows[rows["put"] < 0].assign(**both).drop(columns="put"))
        tables["controls"].append(as_control(rows, "patching"))
        for level in (QUIET, LOUD):
            # Draw by draw, every position; the null of draw d has donor d mod K.
            put = [one.states[BASE][layer]] * DRAWS + [
                null[d % DONORS][layer] for d in range(DRAWS)
            ]
            drawn = noise.repeat_interleave(length, 0).repeat(2, 1, 1)
            changes = [
                (0, lambda s, level=level, drawn=drawn: s + level * drawn),
                (layer, put_in(torch.cat(put), list(ours) * 2 * DRAWS)),
            ]
            logits = plain.logits(one.ids[BASE], one.image, changes, len(drawn))
            rows = pd.DataFrame(
                {**cell, "position": list(ours) * 2 * DRAWS, "noise_level": level,
                 "draw": np.tile(np.repeat(range(DRAWS), length), 2),
                 **scored(logits, one.answers)}
            )  # fmt: skip
            rows["put"] = np.where(rows.index < DRAWS * length, -1, rows["draw"] % DONORS)
            tokens = [word for _ in range(DRAWS) for word in words[BASE]]
            restored = rows[rows["put"] < 0].assign(token=tokens)
            tables["tracing"].append(restored.drop(columns="put"))
            tables["controls"].append(as_control(rows, "tracing"))


def as_control(rows: pd.DataFrame, experiment: str) -> pd.DataFrame:
    nulls = rows[rows["put"] >= 0].rename(columns={"put": "donor_number"})
    return nulls.assign(control=UNRELATED, experiment=experiment)


@pytest.fixture(scope="module")
def trained() -> dict[str, pd.DataFrame]:
    return measured(Plain(BlipForQuestionAnswering.from_pretrained(CHECKPOINT)), distinct=True)


@pytest.fixture(scope="module")
def untrained() -> dict[str, pd.DataFrame]:
    shape = BlipForQuestionAnswering.from_pretrained(CHECKPOINT).config
    torch.manual_seed(1)
    return measured(Plain(BlipForQuestionAnswering(shape)), distinct=False)


@dataclass
class Told:
    """What the rules make of an experiment."""

    measured: Measured
    summary: pd.DataFrame
    families: pd.DataFrame
    negatives: pd.DataFrame


def tell(tables: dict[str, pd.DataFrame], experiment: Experiment, count: int) -> Told:
    """Measure and summarize the first examples."""
    names = [f"e{number:02d}" for number in range(count)]
    part = {key: table[table["example"].isin(names)] for key, table in tables.items()}
    cells = part[experiment.name].reset_index(drop=True)
    controls = part["controls"][part["controls"]["experiment"] == experiment.name]
    primary = experiment.primary(LOUD)
    sheet = pd.DataFrame({"example": names, "picture": names, "group": "a kind"})
    shard = Shard(
        part["runs"].reset_index(drop=True), part["baseline"],
        Known(assign_roles(part["tokens"], ROLES)), sheet, {experiment.name: primary},
    )  # fmt: skip
    found = measure_experiment(experiment, cells, controls, shard, RULES)
    families = [
        summarize_family(
            found.role_means[found.role_means["level"] == level],
            found.cell_means[found.cell_means["level"] == level],
            experiment, primary, RULES,
        )
        for level in sorted(found.cell_means["level"].unique())
    ]  # fmt: skip
    return Told(found, *finish_experiment(families, RULES))


def of_control(told: Told, control: str) -> list[tuple[int, int]]:
    """Cells and false marks of a control, map by map."""
    rows = told.negatives[told.negatives["control"] == control]
    return list(rows[["cells", "false_marks"]].itertuples(index=False, name=None))


@pytest.mark.parametrize("count", NUMBERS)
def test_noise_without_any_effect_is_not_marked(trained: Any, count: int) -> None:
    """Nothing changes by more than 0.004, and the rule before marked cells of the map."""
    told = tell(trained, TRACING, count)
    family = told.families[told.families["noise_level"] == QUIET].iloc[0]
    assert (family["tested"], family["reason"]) == (False, NOTHING_HIDDEN)
    ((cells, false_marks),) = of_control(told, HIDES_NOTHING)
    assert (cells >= 24, false_marks) == (True, 0)
    rows = told.measured.role_means[told.measured.role_means["noise_level"] == QUIET]
    assert rows["probability_change"].abs().max() < 0.004
    contrast = rows.pivot(index="example", columns=["layer", "token_role"], values="contrast")
    values = contrast.dropna(axis=1).to_numpy()
    old = max_t_test(values * np.sign(values.mean(axis=0)), 1000, 0).p < 0.05
    assert old.sum() >= {6: 0, 12: 1, 30: 3}[count], "the rule before"
    quiet = told.measured.effects[told.measured.effects["noise_level"] == QUIET]
    assert not quiet["marked"].any()


@pytest.mark.parametrize("count", NUMBERS)
def test_equal_tokens_and_the_ceiling_are_known_and_unmarked(trained: Any, count: int) -> None:
    told = tell(trained, PATCHING, count)
    ((cells, false_marks),) = of_control(told, EQUAL_TOKENS)
    assert (cells >= 3, false_marks) == (True, 0)
    known = told.summary.set_index(["layer", "token_role"])["known"]
    first = known.loc[0].groupby("token_role").max()
    assert first[first != ""].to_dict() == {
        "[CLS]": NO_OP, "before it": NO_OP, "differing word": CEILING, "[SEP]": NO_OP,
    }  # fmt: skip
    assert not told.summary.loc[told.summary["known"] != "", "marked"].any()


@pytest.mark.parametrize("count", NUMBERS)
@pytest.mark.parametrize("experiment", [PATCHING, TRACING], ids=lambda each: each.name)
def test_an_unrelated_donor_as_source_is_within_its_level(
    trained: Any, experiment: Experiment, count: int
) -> None:
    told = tell(trained, experiment, count)
    ((cells, false_marks),) = of_control(told, UNRELATED_SOURCE)
    assert false_marks <= 0.05 * cells
    assert not told.negatives["exceeded"].any()


@pytest.mark.parametrize("count", NUMBERS)
@pytest.mark.parametrize("experiment", [PATCHING, TRACING], ids=lambda each: each.name)
def test_an_untrained_network_gets_no_mark(
    untrained: Any, experiment: Experiment, count: int
) -> None:
    told = tell(untrained, experiment, count)
    assert not told.summary["marked"].any()
    assert not told.measured.effects["marked"].any()
    assert (told.families["included"] == 0).all()
    if experiment is PATCHING:
        ((cells, false_marks),) = of_control(told, SAME_ANSWER)
        assert (cells >= 15, false_marks) == (True, 0)


def test_what_is_there_is_found(trained: Any) -> None:
    """Beyond the ceiling: the differing word of layer 1 in patching, and some cell in tracing."""
    told = tell(trained, PATCHING, EXAMPLES)
    marked = told.summary[told.summary["marked"]]
    assert (1, "differing word") in set(zip(marked["layer"], marked["token_role"], strict=True))
    assert told.families["tested"].all()
    told = tell(trained, TRACING, EXAMPLES)
    marked = told.summary[told.summary["marked"]]
    assert set(marked["noise_level"]) == {LOUD}
    assert (marked["mean"] >= RULES.least_effect).all()
