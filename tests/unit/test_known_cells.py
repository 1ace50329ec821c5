"""What is said to be known of a cell is so, and of no other cell, on the unmodified model.

A random BLIP is run with torch hooks: at each site, layer and set of positions, one or several
layers at once, one run's states are put into another's. What comes out is the receiver's, the
donor's, or neither, to rounding; the rules that are held to it never ran a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import pytest
import torch
from checkpoints import random_blip, small_vocabulary

from blip_tracing.meaning.effects import classify
from blip_tracing.meaning.roles import Known, assign_roles, cell_positions, role_names
from blip_tracing.vocabulary.corruptions import Corruption
from blip_tracing.vocabulary.experiment import BASE, POSITIONS, SOURCE, Experiment, Run
from blip_tracing.vocabulary.sites import INPUT, SITES, window_of

WORDS = small_vocabulary()
LAYERS, HEADS, SIDE, REGIONS = 2, 2, 3, 2
# Which regions of a 2 × 2 grid hold the centre of each patch of a 3 × 3 grid, row by row.
REGION_OF_PATCH = [1, 2, 2, 3, 4, 4, 3, 4, 4]
BOXES = "thing=0,0,0.5,0.5; other thing=0.5,0,1,0.5"
OF_REGION = {1: "thing", 2: "other thing", 3: "background", 4: "background"}
NOISE = Corruption("gaussian", "question.embeddings", (1.0,), 1, 0)
RULES = [
    {"role": "start", "token": r"\[CLS\]"},
    {"role": "it", "pair": "differs"},
    {"role": "rest", "token": "what|is|the"},
]
# Of two differing words one has another role, or none.
APART = [{"role": "asks", "token": "what|who"}, {"role": "it", "pair": "differs"}]
LACKING = [{"role": "it", "token": "shirt"}]


@dataclass(frozen=True)
class Case:
    """Two runs: questions, pictures by number, corruptions of the receiver, and an answer."""

    base: str = "what is the shirt"
    source: str = "what is the animal"
    source_picture: int = 0
    corrupt: Sequence[str] = ()
    rules: Sequence[Mapping[str, str]] = field(default_factory=lambda: RULES)
    answer: Sequence[str] = ("red",)

    @property
    def experiment(self) -> Experiment:
        base, source = Run(BASE, BASE), Run(SOURCE, SOURCE)
        if self.corrupt:
            first, *further = [replace(NOISE, at=at) for at in self.corrupt]
            noisy = Run("noisy", BASE, replace(first, also=next(iter(further), None)))
            return Experiment("tracing", noisy, base, tuple(SITES), regions=REGIONS)
        return Experiment("patching", base, source, tuple(SITES), regions=REGIONS)

    def tokens(self, question: str) -> list[str]:
        return ["[CLS]", *(self.base if question == BASE else self.source).split(), "[SEP]"]


CASES = {
    "another word": Case(),
    "another word, an answer of two tokens": Case(answer=("blue", "green")),
    "two other words of a role": Case(base="who is the shirt"),
    "two other words of two roles": Case(base="who is the shirt", rules=APART),
    "two other words, one without a role": Case(base="who is the shirt", rules=LACKING),
    "another picture": Case(source="what is the shirt", source_picture=1),
    "another word and picture": Case(source_picture=1),
    "noise in the question": Case(corrupt=["question.embeddings"]),
    "noise in the picture": Case(corrupt=["picture.states"]),
    "noise in both": Case(corrupt=["question.embeddings", "picture.states"]),
    "noise in the pixels": Case(corrupt=["picture.pixels"]),
}

Change = Callable[[torch.Tensor], torch.Tensor | None]


@pytest.fixture(scope="module")
def blip() -> Any:
    return random_blip(
        len(WORDS), hidden=16, layers=LAYERS, heads=HEADS, intermediate=24, initializer_range=0.5
    ).double()


class Traced:
    """A case's runs, with states changed on the way."""

    def __init__(self, blip: Any, case: Case) -> None:
        self.blip, self.case = blip, case
        generator = torch.Generator().manual_seed(3)
        shapes = [
            (2, 3, 24, 24), (1, len(case.tokens(BASE)), 16), (1, SIDE**2 + 1, 16), (3, 24, 24),
        ]  # fmt: skip
        self.pixels, self.noise, self.picture_noise, self.pixel_noise = (
            torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes
        )

    def module(self, site: str, layer: int) -> torch.nn.Module:
        blocks = {
            "encoder": self.blip.text_encoder.encoder.layer,
            "decoder": self.blip.text_decoder.bert.encoder.layer,
            "vision": self.blip.vision_model.encoder.layers,
        }[SITES[site].tower]
        return blocks[layer].get_submodule(SITES[site].module)

    def hook(self, site: str, layer: int, change: Change) -> Any:
        module = self.module(site, layer)
        if SITES[site].hook == INPUT:

            def change_input(_: Any, args: Any) -> None:
                # In place: the residual around a vision block's MLP reads the same tensor.
                if (changed := change(args[0])) is not None:
                    args[0].copy_(changed)

            return module.register_forward_pre_hook(change_input)
        return module.register_forward_hook(lambda _, args, output: change(output))

    @torch.inference_mode()
    def run(self, run: Run, changes: Sequence[tuple[str, int, Change]], rows: int) -> torch.Tensor:
        """What `rows` runs answer, (rows, …): of one token the whole distribution."""
        case, corrupt = self.case, self.case.corrupt if run.corruption else ()
        ids = torch.tensor([[WORDS.index(token) for token in case.tokens(run.question)]] * rows)
        picture = case.source_picture if run.question == SOURCE else 0
        answer = [WORDS.index(token) for token in case.answer]
        with ExitStack() as stack:
            if "question.embeddings" in corrupt:
                noisy = self.hook("encoder.block_input", 0, lambda states: states + self.noise)
                stack.callback(noisy.remove)
            for site, layer, change in changes:
                stack.callback(self.hook(site, layer, change).remove)
            pixels = self.pixels[picture].expand(rows, -1, -1, -1)
            if "picture.pixels" in corrupt:
                pixels = pixels + self.pixel_noise
            image = self.blip.vision_model(pixel_values=pixels).last_hidden_state
            if "picture.states" in corrupt:
                image = image + self.picture_noise
            question = self.blip.text_encoder(input_ids=ids, encoder_hidden_states=image)
            followed = torch.tensor([[self.blip.decoder_start_token_id, *answer[:-1]]] * rows)
            logits = self.blip.text_decoder(
                input_ids=followed, encoder_hidden_states=question.last_hidden_state
            ).logits
        chances = logits.log_softmax(-1)
        if len(answer) == 1:
            return chances[:, 0]
        return chances[:, range(len(answer)), answer]

    def states(self, run: Run) -> dict[tuple[str, int], torch.Tensor]:
        """What flows through every site, (T, W) each."""
        seen: dict[tuple[str, int], torch.Tensor] = {}

        def keep(site: str, layer: int) -> Change:
            def change(states: torch.Tensor) -> None:
                seen[site, layer] = states[0].clone()

            return change

        self.run(run, [(s, n, keep(s, n)) for s in SITES for n in range(LAYERS)], 1)
        return seen


def put_in(donor: torch.Tensor, masks: torch.Tensor, heads: Sequence[int]) -> Change:
    """Put a donor's states (T, W) in at (rows, T), of a head its part of the width."""
    width = donor.shape[-1] // HEADS
    columns = torch.ones(len(heads), donor.shape[-1], dtype=torch.bool)
    for row, head in enumerate(heads):
        if head >= 0:
            columns[row] = torch.arange(donor.shape[-1]) // width == head

    def change(states: torch.Tensor) -> torch.Tensor:
        return torch.where(masks[..., None] & columns[:, None], donor, states)

    return change


def tokens_of(case: Case) -> pd.DataFrame:
    """The table `tokens` of one example."""
    rows = [
        ("a", question, position, token)
        for question in (BASE, SOURCE)
        for position, token in enumerate(case.tokens(question))
    ]
    return pd.DataFrame(rows, columns=["example", "question", "position", "token"])


def sets_of(case: Case, tower: str, mode: str) -> dict[int, list[int]]:
    """Each cell's number and which positions of the tower it puts in."""
    if tower == "encoder":
        whole = list(range(len(case.tokens(BASE))))
        roles = assign_roles(tokens_of(case), case.rules)["token_role"].tolist()
        ordered = [rule["role"] for rule in case.rules]
    elif tower == "decoder":
        whole = list(range(len(case.answer)))
        roles, ordered = ["[DEC]", *["answer"] * (len(whole) - 1)], ["[DEC]", "answer"]
    else:
        whole = list(range(SIDE**2 + 1))
        roles = ["[CLS]", *(OF_REGION[region] for region in REGION_OF_PATCH)]
        ordered = ["[CLS]", "thing", "other thing", "background"]
    if mode == "all":
        return {0: whole}
    if mode == "roles":
        named = {n: [at for at in whole if roles[at] == role] for n, role in enumerate(ordered)}
        return {number: at for number, at in named.items() if at}
    if tower == "vision":
        patches = [(0, 0), *((at, REGION_OF_PATCH[at - 1]) for at in whole[1:])]
        return {n: [at for at, region in patches if region == n] for n in range(REGIONS**2 + 1)}
    return {at: [at] for at in whole}


def measured(traced: Traced, experiment: Experiment) -> Iterator[dict[str, Any]]:
    """Each cell with what comes out: the receiver's (no_op), the donor's (ceiling) or neither."""
    receiver, donor = (traced.run(run, [], 1) for run in (experiment.receiver, experiment.donor))
    assert (receiver - donor).abs().max() > 0.01
    states = traced.states(experiment.donor)
    for site, layer in ((site, layer) for site in experiment.sites for layer in range(LAYERS)):
        tower = SITES[site].tower
        sets = sets_of(traced.case, tower, experiment.positions)
        heads = range(HEADS) if SITES[site].heads else [-1]
        cells = [(head, number) for head in heads for number in sets]
        masks = torch.zeros(len(cells), len(states[site, layer]), dtype=torch.bool)
        for row, (_, number) in enumerate(cells):
            masks[row, sets[number]] = True
        changes = [
            (site, each, put_in(states[site, each], masks, [head for head, _ in cells]))
            for each in window_of(layer, experiment.window, LAYERS)
        ]
        found = traced.run(experiment.receiver, changes, len(cells))
        for (head, number), row in zip(cells, found, strict=True):
            away = [float((row - end).abs().max()) for end in (receiver[0], donor[0])]
            assert all(distance < 1e-11 or distance > 1e-8 for distance in away), (site, layer)
            outcome = "no_op" if away[0] < 1e-9 else "ceiling" if away[1] < 1e-9 else ""
            yield {
                "example": "a", "site": site, "layer": layer, "head": head, "position": number,
                "outcome": outcome,
            }  # fmt: skip


def told(case: Case, experiment: Experiment, cells: pd.DataFrame) -> pd.DataFrame:
    """The cells with what is said to be known of them."""
    known = Known(
        assign_roles(tokens_of(case), case.rules),
        role_names(case.rules, [BOXES]),
        {"a": BOXES},
        frozenset({"a"} if case.source_picture else ()),
    )
    sheet = pd.DataFrame({"example": ["a"], "picture": "a", "group": "", "included": True})
    cells = cells.assign(direction=1, total_effect=1.0)
    return classify(cells, cell_positions(experiment, cells, known), sheet, experiment, 0.05)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("window", [1, 2])
def test_what_is_known_of_a_cell_holds_and_nothing_else_does(
    blip: Any, name: str, positions: str, window: int
) -> None:
    case = CASES[name]
    # Where both see one picture an experiment in the vision tower is refused.
    seen = case.source_picture or "picture.pixels" in case.corrupt
    sites = [site for site in SITES if SITES[site].tower != "vision" or seen]
    experiment = replace(case.experiment, sites=tuple(sites), positions=positions, window=window)
    cells = pd.DataFrame(measured(Traced(blip, case), experiment))
    found = told(case, experiment, cells)
    wrong = found[found["known"] != found["outcome"]]
    names = ["site", "layer", "head", "position", "known", "outcome"]
    assert wrong.empty, wrong[names].to_string()
    assert {"no_op", "ceiling", ""} <= set(found["known"])
