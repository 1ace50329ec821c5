"""What a run is scored by, against plain loops over its logits."""

import math

import numpy as np
import pytest
import torch

from blip_tracing.engine.scores import Judge
from blip_tracing.models.family import Outcome
from blip_tracing.vocabulary.config import Config
from blip_tracing.vocabulary.metrics import METRICS, NEEDED, Answered, columns_of

ROWS, WORDS = 3, 7
# Of each row: the base answer and the source answer, padded; both begin alike in the second, and
# are one in the third.
ANSWERS = torch.tensor([[[2, -1], [5, 1]], [[4, 1], [4, 3]], [[6, 0], [6, 0]]])
REST = torch.tensor([[0.0, -0.7], [-0.2, -1.1], [-0.4, -0.4]])


@pytest.fixture
def logits():
    return torch.randn(ROWS, WORDS, generator=torch.Generator().manual_seed(0)) * 2


@pytest.fixture
def target():
    return torch.randn(ROWS, WORDS, generator=torch.Generator().manual_seed(1)) * 2


def measured(metric, logits, target, answers=ANSWERS, rest=REST):
    found = METRICS[metric].measure(Answered(logits, answers, rest, target))
    assert found.shape == (len(logits), len(METRICS[metric].columns))
    return found.squeeze(-1).numpy()


def softmax(row):
    powers = [math.exp(logit) for logit in row.tolist()]
    return [power / sum(powers) for power in powers]


def chances(row, number):
    """The probability of each followed answer of a row: of its first token times that of others."""
    found = softmax(row)
    return [
        found[answer[0]] * math.exp(rest)
        for answer, rest in zip(ANSWERS[number].tolist(), REST[number].tolist(), strict=True)
    ]


def test_the_probability_is_that_of_the_whole_answer(logits, target):
    truth = [chances(row, number) for number, row in enumerate(logits)]
    assert measured("probability", logits, target) == pytest.approx(np.array(truth))


def test_the_logits_and_their_difference_are_those_of_whole_answers(logits, target):
    truth = [
        [float(row[first]) + float(rest) for (first, _), rest in zip(answers, rests, strict=True)]
        for row, answers, rests in zip(logits, ANSWERS, REST, strict=True)
    ]
    assert measured("logit", logits, target) == pytest.approx(np.array(truth))
    differences = [base - source for base, source in truth]
    found = measured("logit_difference", logits, target)
    assert found == pytest.approx(differences, abs=1e-6)


def test_equal_answers_count_once_and_those_that_only_begin_alike_twice(logits, target):
    pairs = [chances(row, number) for number, row in enumerate(logits)]
    truth = [sum(pairs[0]), sum(pairs[1]), pairs[2][0]]
    found = measured("answer_probability", logits, target)
    assert found == pytest.approx(truth)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_answer_that_goes_on_from_the_other_is_a_part_of_it(logits, target, order):
    """Of "blue" and "blue hat" the probability of either is that of "blue"."""
    answers = torch.tensor([[[2, -1], [2, 1]]] * ROWS)[:, list(order)]
    rest = torch.tensor([[0.0, -0.1]] * ROWS)[:, list(order)]
    truth = [softmax(row)[2] for row in logits]
    assert measured("answer_probability", logits, target, answers, rest) == pytest.approx(truth)


def test_the_rank_is_the_place_in_the_order_of_likelihood(logits, target):
    truth = []
    for row, answers in zip(logits.tolist(), ANSWERS.tolist(), strict=True):
        order = sorted(range(WORDS), key=lambda word: -row[word])
        truth.append([order.index(first) + 1 for first, _ in answers])
    assert measured("rank", logits, target).tolist() == truth


def test_words_as_likely_as_the_answer_do_not_rank_before_it(target):
    flat = torch.zeros(ROWS, WORDS)
    assert measured("rank", flat, target).tolist() == [[1, 1]] * ROWS


def test_the_divergence_is_from_the_targets_distribution(logits, target):
    """The sum over words of the target's probability times the difference of the logarithms."""
    truth = []
    for row, other in zip(logits, target, strict=True):
        ours, theirs = softmax(row), softmax(other)
        parts = (p * (math.log(p) - math.log(q)) for p, q in zip(theirs, ours, strict=True))
        truth.append(sum(parts))
    assert measured("kl", logits, target) == pytest.approx(truth, abs=1e-6)
    swapped = measured("kl", target, logits)
    assert swapped != pytest.approx(truth, abs=1e-2), "it has a direction"
    assert measured("kl", target, target) == pytest.approx([0] * ROWS, abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_a_run_is_scored_the_same_alone_and_among_others(metric, logits, target):
    """Leading dimensions broadcast: one target for every position of a row."""
    many = torch.stack([logits, target], dim=1)
    answers = ANSWERS[:, None].expand(ROWS, 2, 2, 2)
    together = METRICS[metric].measure(Answered(many, answers, REST[:, None], target[:, None]))
    for number, part in enumerate((logits, target)):
        alone = METRICS[metric].measure(Answered(part, ANSWERS, REST, target))
        torch.testing.assert_close(together[:, number], alone)


def test_metrics_have_columns_of_their_own():
    columns = columns_of(METRICS)
    assert len(set(columns)) == len(columns)
    assert columns_of(["kl", "rank"]) == ["kl", "rank_base", "rank_source"]


def test_the_default_metrics_are_those_that_effects_are_measured_by():
    assert tuple(Config.model_fields["metrics"].default) == NEEDED


@pytest.mark.parametrize("rest", [None, REST[:, None]])
def test_scores_have_a_column_for_each_of_a_metrics(logits, target, rest):
    judge = Judge(list(METRICS), ANSWERS, ["a", "b", "c"])
    found = Outcome(logits[:, None], rest)
    scores = judge.score(found, Outcome(target[:, None]), "here")
    assert list(scores.columns) == columns_of(METRICS)
    assert {values.shape for values in scores.columns.values()} == {(ROWS, 1)}
    truth = measured("probability", logits, target, rest=torch.zeros(2) if rest is None else REST)
    columns = [scores.columns[name][:, 0] for name in METRICS["probability"].columns]
    assert torch.stack(columns, -1).numpy() == pytest.approx(truth)
