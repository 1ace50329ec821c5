"""Which questions of a dataset become examples, with which source, and why the others do not."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import ROOT
from tokenizers import Tokenizer

from blip_tracing.errors import InputError
from blip_tracing.given.pairs import (
    PAIRINGS,
    SOURCES_TRIED,
    Ask,
    Drop,
    Pair,
    Question,
    Reason,
    check_template,
    count_reasons,
    draw_pairs,
    log_of,
    read_dataset,
    screen,
    sheet_of,
)
from blip_tracing.given.tokens import load_tokenizer

HEADER = ",train_image_id_count,question_count,answer_count"
SHIRT, HAT, BOX = (f"what is the color of the {thing}" for thing in ("shirt", "hat", "box"))
POSITIONS = 32


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(ROOT / "resources/miniature/checkpoint")


def write(folder: Path, *rows: str) -> Path:
    path = folder / "questions.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    return path


def dataset(*rows: tuple[object, str, str]) -> pd.DataFrame:
    """A dataset as `read_dataset` gives it, its first row being row 2."""
    table = pd.DataFrame(rows, columns=["picture", "question", "answer"], dtype=str)
    table.insert(0, "row", range(2, 2 + len(rows)))
    return table


def asked(tokenizer: Tokenizer, *rows: tuple[object, str, str]) -> list[Question]:
    """The questions of rows that can all be asked."""
    questions, dropped = screen(dataset(*rows), tokenizer, POSITIONS)
    assert not dropped
    return questions


def outcomes(
    questions: list[Question],
    pairs: str,
    sample: int | None = None,
    seed: int = 0,
    ask: Ask | None = None,
) -> tuple[list[Pair], dict[int, Drop]]:
    """The pairs in the order drawn, and what was dropped by its row."""
    drawn = list(draw_pairs(questions, PAIRINGS[pairs], seed, sample, ask))
    assert len(drawn) == len(questions)
    dropped = {outcome.row: outcome for outcome in drawn if isinstance(outcome, Drop)}
    return [outcome for outcome in drawn if isinstance(outcome, Pair)], dropped


# --- reading


def test_rows_are_numbered_as_a_spreadsheet_shows_them(tmp_path: Path) -> None:
    path = write(tmp_path, f"0,23004,{SHIRT},red", "", '7,5,"where, now",  tall   tree ', "8,9")
    assert read_dataset(path).values.tolist() == [
        [2, "23004", SHIRT, "red"],
        [3, "", "", ""],
        [4, "5", "where, now", "tall tree"],
        [5, "9", "", ""],
    ]


def test_answers_that_look_like_nothing_are_words(tmp_path: Path) -> None:
    assert read_dataset(write(tmp_path, "0,1,what is it,null"))["answer"].tolist() == ["null"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read (No such file or directory); give a file"),
        (b"", "is not a table (No columns to parse from file); save it"),
        (b"\xff\xfe,", "is not a table ("),
        (b'a,b\n1,"2\n', "is not a table ("),
        (
            b",train_image_id_count,question,answer_count\n0,1,what,red\n",
            "has no column question_count; its first line names train_image_id_count, "
            "question_count, answer_count",
        ),
    ],
)
def test_what_is_no_dataset_is_named_in_one_line(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "questions.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_dataset(path)
    assert str(refused.value).startswith(f"{path}: {message}")
    assert "\n" not in str(refused.value)


# --- rows that cannot be asked


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        (("1.0", SHIRT, "red"), Reason.PICTURE_ID, "1.0"),
        (("", SHIRT, "red"), Reason.PICTURE_ID, ""),
        ((1, "", "red"), Reason.EMPTY, ""),
        ((1, SHIRT, ""), Reason.EMPTY, ""),
        ((1, "what thing is red", "hat"), Reason.WORDS, "4"),
        ((1, "what is the Color of the okapi", "red"), Reason.UNKNOWN_WORD, "okapi"),
        ((1, SHIRT, "light blue"), Reason.ANSWER, "light blue"),
        ((1, SHIRT, "mauve"), Reason.ANSWER, "mauve"),
    ],
)
def test_a_row_that_cannot_be_asked_says_why(
    tokenizer: Tokenizer, row: tuple, reason: Reason, detail: str
) -> None:
    questions, dropped = screen(dataset(row), tokenizer, POSITIONS, words=7)
    assert questions == []
    assert dropped == [Drop(2, row[1], reason, detail)]


def test_a_question_is_no_longer_than_the_model_reads(tokenizer: Tokenizer) -> None:
    row = (1, SHIRT, "red")
    assert screen(dataset(row), tokenizer, positions=9)[1] == []
    assert screen(dataset(row), tokenizer, positions=8)[1] == [Drop(2, SHIRT, Reason.LENGTH, "9")]


def test_a_question_is_asked_of_a_picture_once(tokenizer: Tokenizer) -> None:
    rows = [(1, SHIRT, "red"), (2, SHIRT, "red"), (1, SHIRT.upper(), "Red")]
    questions, dropped = screen(dataset(*rows), tokenizer, POSITIONS)
    assert [question.row for question in questions] == [2, 3]
    assert dropped == [Drop(4, SHIRT.upper(), Reason.REPEATED, "row 2")]


def test_a_question_with_two_answers_is_not_asked(tokenizer: Tokenizer) -> None:
    rows = [(1, SHIRT, "red"), (1, HAT, "blue"), (1, SHIRT, "blue")]
    questions, dropped = screen(dataset(*rows), tokenizer, POSITIONS)
    assert [question.text for question in questions] == [HAT]
    assert dropped == [Drop(row, SHIRT, Reason.TWO_ANSWERS, "red blue") for row in (2, 4)]


# --- pairs


def test_questions_about_one_picture_are_paired_one_way(tokenizer: Tokenizer) -> None:
    questions = asked(tokenizer, (1, SHIRT, "red"), (1, HAT, "blue"), (2, BOX, "pink"))
    pairs, dropped = outcomes(questions, "same-picture")
    ((base, source),) = [(pair.base.text, pair.source.text) for pair in pairs]
    assert {base, source} == {SHIRT, HAT}
    mirrored = next(question.row for question in questions if question.text == source)
    assert {row: drop.reason for row, drop in dropped.items()} == {
        mirrored: Reason.MIRRORED,
        4: Reason.ALONE,
    }


@pytest.mark.parametrize("other", [("what thing is red", "shirt"), (HAT, "red")])
def test_questions_about_one_picture_are_as_long_and_have_different_answers(
    tokenizer: Tokenizer, other: tuple[str, str]
) -> None:
    questions = asked(tokenizer, (1, SHIRT, "red"), (1, *other))
    pairs, dropped = outcomes(questions, "same-picture")
    assert pairs == []
    assert {drop.reason for drop in dropped.values()} == {Reason.ALONE}


def test_a_swapped_question_comes_from_any_picture_and_may_differ_anywhere(
    tokenizer: Tokenizer,
) -> None:
    questions = asked(
        tokenizer,
        (1, "what is at the top", "hat"),
        (2, "what is at the bottom", "box"),
        (3, "what thing is red", "hat"),
        (4, "what is the red", "hat"),
        (5, "what is on the top", "hat"),
    )
    pairs, dropped = outcomes(questions, "swap-noun")
    first = questions[0]
    sources = {pair.source.row for pair in pairs if pair.base is first}
    assert sources < {3, 6}
    assert len(sources) == 1
    assert dropped == {
        row: Drop(row, text, Reason.UNLIKE)
        for row, text in [(4, "what thing is red"), (5, "what is the red")]
    }


def test_common_words_are_swapped_in_more_often(tokenizer: Tokenizer) -> None:
    rows = [(picture, SHIRT, "red") for picture in range(40)]
    rows += [(picture, HAT, "red") for picture in range(100, 190)]
    rows += [(picture, BOX, "red") for picture in range(200, 210)]
    pairs, _ = outcomes(asked(tokenizer, *rows), "swap-noun")
    sources = [pair.source.text for pair in pairs if pair.base.text == SHIRT]
    assert len(sources) == 40
    assert 30 < sources.count(HAT) < 40


# --- the sample


def many(tokenizer: Tokenizer) -> list[Question]:
    """Two questions about each of fifty pictures."""
    rows = [(n, text, color) for n in range(50) for text, color in [(SHIRT, "red"), (HAT, "blue")]]
    return asked(tokenizer, *rows)


@pytest.mark.parametrize("pairs", PAIRINGS)
def test_a_larger_sample_goes_on_where_a_smaller_one_ended(
    tokenizer: Tokenizer, pairs: str
) -> None:
    questions = many(tokenizer)
    small, dropped = outcomes(questions, pairs, sample=10)
    large, _ = outcomes(questions, pairs, sample=20)
    whole, _ = outcomes(questions, pairs)
    assert len(small) == 10
    assert small == large[:10] == whole[:10]
    assert sum(drop.reason is Reason.FULL for drop in dropped.values()) > 50


def test_seeds_draw_different_samples(tokenizer: Tokenizer) -> None:
    questions = many(tokenizer)
    drawn = {tuple(outcomes(questions, "same-picture", 10, seed)[0]) for seed in range(3)}
    assert len(drawn) == 3


# --- what the model answers


class Model:
    """Answers from a table, and counts what it is asked."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers
        self.asked: list[tuple[int, str]] = []

    def __call__(self, picture: int, question: str) -> str:
        self.asked.append((picture, question))
        return self.answers[question]


def test_both_questions_about_a_picture_are_answered_rightly(tokenizer: Tokenizer) -> None:
    questions = asked(tokenizer, (1, SHIRT, "red"), (1, HAT, "blue"), (1, BOX, "pink"))
    model = Model({SHIRT: "red", HAT: "pink", BOX: "pink"})
    pairs, dropped = outcomes(questions, "same-picture", ask=model)
    assert [{pair.base.text, pair.source.text} for pair in pairs] == [{SHIRT, BOX}]
    assert dropped[3] == Drop(3, HAT, Reason.WRONG, "pink")


def test_a_right_answer_beside_wrong_ones_makes_no_pair(tokenizer: Tokenizer) -> None:
    questions = asked(tokenizer, (1, SHIRT, "red"), (1, HAT, "blue"))
    pairs, dropped = outcomes(
        questions, "same-picture", ask=Model(dict.fromkeys([SHIRT, HAT], "red"))
    )
    assert pairs == []
    assert dropped[2].reason is Reason.SOURCES_WRONG
    assert dropped[3].reason is Reason.WRONG


def test_a_swapped_question_changes_the_models_answer(tokenizer: Tokenizer) -> None:
    questions = asked(tokenizer, (1, SHIRT, "red"), (2, HAT, "blue"), (3, BOX, "pink"))
    model = Model({SHIRT: "red", HAT: "red", BOX: "pink"})
    pairs, dropped = outcomes(questions, "swap-noun", ask=model)
    assert {(pair.base.text, pair.source.text) for pair in pairs} in (
        {(SHIRT, BOX), (BOX, SHIRT)},
        {(SHIRT, BOX), (BOX, HAT)},
    )
    assert dropped == {3: Drop(3, HAT, Reason.WRONG, "red")}
    assert all((pair.base.picture, pair.source.text) in model.asked for pair in pairs)


def test_few_of_many_sources_are_tried(tokenizer: Tokenizer) -> None:
    words = ["animal", "ball", "hat", "box", "kite", "thing", "top", "bottom", "left"]
    rows = [(n, f"what is the color of the {word}", "red") for n, word in enumerate(words)]
    model = Model({text: "red" for _, text, _ in rows})
    pairs, dropped = outcomes(asked(tokenizer, *rows), "swap-noun", ask=model)
    assert pairs == []
    assert {drop.reason for drop in dropped.values()} == {Reason.SOURCES_SAME}
    assert len(model.asked) == len(rows) * (1 + SOURCES_TRIED)


def test_the_model_is_asked_no_more_once_the_sample_is_full(tokenizer: Tokenizer) -> None:
    model = Model({SHIRT: "red", HAT: "blue"})
    pairs, _ = outcomes(many(tokenizer), "same-picture", sample=10, ask=model)
    assert len(pairs) == 10
    assert {picture for picture, _ in model.asked} == {pair.base.picture for pair in pairs}


# --- any dataset

ANY_ROW = st.tuples(
    st.sampled_from(["1", "2", "3", "x"]),
    st.sampled_from([SHIRT, HAT, BOX, "what is at the top", "what okapi", "what thing is red", ""]),
    st.sampled_from(["red", "blue", "hat", "mauve"]),
)


@pytest.mark.parametrize("pairs", PAIRINGS)
@given(
    rows=st.lists(ANY_ROW, max_size=25), sample=st.none() | st.integers(1, 5), seed=st.integers(0)
)
def test_every_row_is_kept_or_dropped_and_every_pair_can_be_patched(
    tokenizer: Tokenizer,
    pairs: str,
    rows: list[tuple[str, str, str]],
    sample: int | None,
    seed: int,
) -> None:
    questions, unfit = screen(dataset(*rows), tokenizer, POSITIONS)
    kept, unpaired = outcomes(questions, pairs, sample, seed)
    accounted = [pair.base.row for pair in kept] + [drop.row for drop in unfit] + list(unpaired)
    assert sorted(accounted) == list(range(2, 2 + len(rows)))
    assert len({pair.either_way for pair in kept}) == len(kept)
    for pair in kept:
        assert len(pair.base.tokens) == len(pair.source.tokens)
        differing = sum(a != b for a, b in zip(pair.base.tokens, pair.source.tokens, strict=True))
        if pairs == "swap-noun":
            assert differing == 1
        else:
            assert pair.base.picture == pair.source.picture
            assert pair.base.answer != pair.source.answer


# --- the sheet and the log


def test_the_sheet_names_examples_by_picture_and_row(tokenizer: Tokenizer) -> None:
    base, source = asked(tokenizer, (458864, SHIRT, "red"), (458864, HAT, "blue"))
    assert sheet_of([Pair(base, source)], "scenes/{id:012d}.png").to_dict("records") == [
        {
            "example": "458864_2",
            "image": "scenes/000000458864.png",
            "base_question": SHIRT,
            "source_question": HAT,
        }
    ]


@pytest.mark.parametrize("pictures", ["scenes/{name}.png", "scenes/{id:q}.png", "{", "one.png"])
def test_a_template_that_names_no_picture_is_refused(pictures: str) -> None:
    with pytest.raises(InputError, match=r"^--pictures "):
        check_template(pictures)


def test_the_log_lists_drops_in_the_datasets_order_and_counts_them_by_reason() -> None:
    dropped = [
        Drop(9, HAT, Reason.WRONG, "red"),
        Drop(4, SHIRT, Reason.ALONE),
        Drop(2, BOX, Reason.WRONG, "blue"),
    ]
    assert log_of(dropped).values.tolist() == [
        [2, BOX, "the model answers it otherwise", "blue"],
        [4, SHIRT, str(Reason.ALONE), ""],
        [9, HAT, "the model answers it otherwise", "red"],
    ]
    assert count_reasons(dropped) == f"1: {Reason.ALONE}; 2: {Reason.WRONG}"
