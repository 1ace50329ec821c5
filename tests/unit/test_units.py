"""What a cell puts in: which positions of a tower, of which head, and what it is called."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from blip_tracing.engine.batch import Batch
from blip_tracing.engine.positions import Positions
from blip_tracing.engine.units import join_roles, single_positions, units_of
from blip_tracing.vocabulary.experiment import (
    BASE,
    BY_ROLE,
    EACH,
    SOURCE,
    TOGETHER,
    Experiment,
    Run,
)
from blip_tracing.vocabulary.roles import DECODER_ROLES
from blip_tracing.vocabulary.sites import DECODER, ENCODER, SITES, VISION

BOTH = Batch(["a", "b"], {}, torch.zeros(2, 2, 3, dtype=torch.long), torch.zeros(2, 17, 4))
ASKED = Experiment("patching", Run(BASE, BASE), Run(SOURCE, SOURCE), (), regions=2)


class FourHeads:
    """All that units ask of a model."""

    @property
    def heads(self):
        return {ENCODER: 4, DECODER: 4, VISION: 4}


def chosen(sets):
    """Of each set, the numbers of the positions in it."""
    return [row.nonzero().flatten().tolist() for row in sets]


def test_a_question_has_a_position_a_token():
    assert chosen(single_positions(BOTH, ASKED, ENCODER, 3)) == [[0], [1], [2]]


def test_the_decoders_are_dec_and_the_tokens_of_both_answers_side_by_side():
    """[DEC], then tokens 1 and 2 of the base answer, then those of the source answer."""
    assert chosen(single_positions(BOTH, ASKED, DECODER, 5)) == [[0], [1, 3], [2, 4]]
    single = replace(BOTH, answers=BOTH.answers[..., :1])
    assert chosen(single_positions(single, ASKED, DECODER, 1)) == [[0]]


def test_a_pictures_are_cls_and_regions_of_patches():
    """Of 4 × 4 patches in 2 × 2 regions; none but single patches where regions is 0."""
    regions = [[0], [1, 2, 5, 6], [3, 4, 7, 8], [9, 10, 13, 14], [11, 12, 15, 16]]
    assert chosen(single_positions(BOTH, ASKED, VISION, 17)) == regions
    each = single_positions(BOTH, replace(ASKED, regions=0), VISION, 17)
    assert chosen(each) == [[number] for number in range(17)]


def test_a_role_joins_positions_and_may_be_absent():
    single = single_positions(BOTH, ASKED, VISION, 17)
    roles = torch.tensor([[0, 1, 1, -1, 2], [0, 2, 2, 2, 2]])
    one, other = join_roles(single, roles)
    assert chosen(one) == [[0], [1, 2, 3, 4, 5, 6, 7, 8], [11, 12, 15, 16]]
    assert chosen(other) == [[0], [], list(range(1, 17))]


@pytest.mark.parametrize(
    ("together", "sets"),
    [
        (EACH, [[[0], [1], [2]]] * 2),
        (BY_ROLE, [[[0, 2], [1]], [[0], [1, 2]]]),
        (TOGETHER, [[[0, 1, 2]]] * 2),
    ],
)
@pytest.mark.parametrize(
    ("site", "asked", "heads"),
    [
        ("encoder.mlp", (), [None]),
        ("encoder.mlp", (2,), [None]),
        ("encoder.cross_attention_heads", (), [0, 1, 2, 3]),
        ("encoder.cross_attention_heads", (3, 1), [3, 1]),
    ],
)
def test_units_are_each_head_at_each_set_of_positions(together, sets, site, asked, heads):
    batch = replace(BOTH, roles={ENCODER: torch.tensor([[0, 1, 0], [0, 1, 1]])})
    experiment = replace(ASKED, positions=together, heads=asked)
    place = SITES[site].place(1)
    model: Any = FourHeads()
    units = units_of(model, batch, experiment, place, 3)
    assert len(units) == len(heads) * len(sets[0])
    donors = torch.zeros(2, 1, 3, 8)
    patch = units.patch([place], [donors], range(len(units)))
    assert list(patch.heads) == [head for head in heads for _ in sets[0]]
    assert [chosen(example) for example in patch.positions] == [own * len(heads) for own in sets]
    last = units.patch([place], [donors], [len(units) - 1])
    assert last.heads == [heads[-1]]
    assert [chosen(example) for example in last.positions] == [[own[-1]] for own in sets]


NAMES = {
    ENCODER: (
        [["[CLS]", "the", "red", "the", "[SEP]"]],
        [["a", "b", "c", "b", ""]],
        ("a", "b", "d"),
    ),
    DECODER: ([["[DEC]", "light", ""]], [["[DEC]", "answer", "answer"]], DECODER_ROLES),
    VISION: (
        [["[CLS]", "r1c1", "r1c2", "r2c1", "r2c2"]],
        [["[CLS]", "cup", "background", "cup", "background"]],
        ("[CLS]", "cup", "plate", "background"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("tower", "together", "called"),
    [
        (ENCODER, EACH, ["[CLS]", "the", "red", "the", "[SEP]"]),
        (ENCODER, BY_ROLE, ["[CLS]", "the the", ""]),
        (ENCODER, TOGETHER, ["[CLS] the red the [SEP]"]),
        (DECODER, EACH, ["[DEC]", "light", ""]),
        (DECODER, BY_ROLE, ["[DEC]", "light"]),
        (DECODER, TOGETHER, ["[DEC] light"]),
        (VISION, EACH, ["[CLS]", "r1c1", "r1c2", "r2c1", "r2c2"]),
        (VISION, BY_ROLE, ["[CLS]", "cup", "", "background"]),
        (VISION, TOGETHER, ["[CLS] cup background"]),
    ],
)
def test_a_unit_is_called_by_what_it_puts_in_and_one_of_nothing_by_none(tower, together, called):
    names, roles, order = NAMES[tower]
    positions = Positions(tower, together, {"token": names}, roles, order)
    assert positions.units("token") == [called]
