"""Each token of a question takes the first role whose rules all hold for it."""

from collections.abc import Sequence

import pandas as pd
import pytest

from blip_tracing.errors import InputError
from blip_tracing.meaning.roles import assign_roles, roles_of
from blip_tracing.vocabulary.config import Config
from blip_tracing.vocabulary.experiment import runs_of
from blip_tracing.vocabulary.groups import Effects
from blip_tracing.vocabulary.roles import Rule, check_roles, rules_of_whole

Rules = list[dict[str, str]]
DEFAULT: Rules = [rule.model_dump(exclude_none=True) for rule in Effects().roles]
BEFORE, IT, AFTER = "before it", "differing word", "after it"


def tokens_of(question: str) -> list[str]:
    return ["[CLS]", *question.split(), "[SEP]"]


def roles(base: str, source: str, rules: Sequence[Rule]) -> list[str]:
    check_roles(rules)
    return roles_of(tokens_of(base), tokens_of(source), rules)


def test_the_default_tells_what_stands_before_the_word_that_differs() -> None:
    found = roles("what color is the dog", "what color is the cat", DEFAULT)
    assert found == ["[CLS]", BEFORE, BEFORE, BEFORE, BEFORE, IT, "[SEP]"]


def test_the_default_tells_what_stands_after_it_too_but_not_the_end() -> None:
    found = roles("what thing is white today", "what thing is green today", DEFAULT)
    assert found == ["[CLS]", BEFORE, BEFORE, BEFORE, IT, AFTER, "[SEP]"]


def test_what_no_rule_holds_for_has_no_role() -> None:
    rules = [rule for rule in DEFAULT if rule["role"] != AFTER]
    found = roles("what thing is white today", "what thing is green today", rules)
    assert found == ["[CLS]", BEFORE, BEFORE, BEFORE, IT, "", "[SEP]"]


def test_nothing_stands_before_a_role_that_the_example_lacks() -> None:
    assert roles("what is it", "what is it", DEFAULT) == ["[CLS]", "", "", "", "[SEP]"]


def test_before_and_after_are_of_the_first_and_the_last_token() -> None:
    rules = [
        {"role": "early", "before": "noun"},
        {"role": "late", "after": "noun"},
        {"role": "noun", "pair": "differs"},
    ]
    found = roles("is red or blue nice", "is pink or grey nice", rules)
    assert found == ["early", "early", "noun", "", "noun", "late", "late"]


@pytest.mark.parametrize(
    ("base", "source", "expected"),
    [
        # Beyond the source question's end a token differs; the ends themselves never do.
        ("a b c", "a", ["same", "same", "differs", "differs", "same"]),
        ("a", "a b c", ["same", "same", "same"]),
        ("a b", "b", ["same", "differs", "differs", "same"]),
    ],
)
def test_questions_of_different_lengths_are_compared_position_by_position(
    base: str, source: str, expected: list[str]
) -> None:
    rules = [{"role": "differs", "pair": "differs"}, {"role": "same", "pair": "same"}]
    assert roles(base, source, rules) == expected


def test_a_pattern_matches_the_whole_token() -> None:
    rules = [{"role": "colour", "token": "red|blue"}, {"role": "piece", "token": "##.*"}]
    assert roles("redder red ##ish", "a b c", rules) == ["", "", "colour", "piece", ""]


def test_all_rules_of_a_role_hold_and_the_first_such_role_is_taken() -> None:
    rules = [
        {"role": "new colour", "token": "red|blue", "pair": "differs"},
        {"role": "colour", "token": "red|blue"},
        {"role": "rest"},
    ]
    found = roles("red and blue", "red and pink", rules)
    assert found == ["rest", "colour", "rest", "new colour", "rest"]


def test_a_role_that_others_refer_to_is_what_earlier_roles_have_left_it() -> None:
    """The number differs too, but is no noun, so "big" stands before the noun "dogs"."""
    rules = [
        {"role": "number", "token": "two|three"},
        {"role": "before", "before": "noun"},
        {"role": "noun", "pair": "differs"},
    ]
    found = roles("two big dogs", "three big cats", rules)
    assert found == ["before", "number", "before", "noun", ""]


def test_roles_may_refer_to_roles_that_refer_to_others() -> None:
    rules = [
        {"role": "between", "after": "early", "before": "end"},
        {"role": "early", "before": "verb"},
        {"role": "verb", "token": "is"},
        {"role": "end", "token": r"\[SEP\]"},
    ]
    found = roles("what is it", "what is it", rules)
    assert found == ["early", "early", "between", "between", "end"]


def test_each_example_has_a_row_a_token_of_its_base_question() -> None:
    """With its role, and whether the source question's differs; whatever the order of the rows."""
    pairs = {"b": ("the dog", "the cat"), "a": ("dog", "dog")}
    rows = [
        (example, which, position, token)
        for example, pair in pairs.items()
        for which, question in zip(("base", "source"), pair, strict=True)
        for position, token in enumerate(tokens_of(question))
    ]
    tokens = pd.DataFrame(rows, columns=["example", "question", "position", "token"])
    found = assign_roles(tokens.iloc[::-1], DEFAULT).sort_values(["example", "position"])
    assert [tuple(row) for row in found.itertuples(index=False)] == [
        ("a", 0, "[CLS]", False), ("a", 1, "", False), ("a", 2, "[SEP]", False),
        ("b", 0, "[CLS]", False), ("b", 1, BEFORE, False), ("b", 2, IT, True),
        ("b", 3, "[SEP]", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            [{"role": "early", "before": "nuon"}, {"role": "noun", "pair": "differs"}],
            "effects.roles[0].before: 'nuon' is not a role; known are early, noun",
        ),
        (
            [{"role": "start", "token": "[CLS"}],
            "effects.roles[0].token: '[CLS' is no regular expression",
        ),
        (
            [{"role": "noun"}, {"role": "noun", "token": "dog"}],
            "effects.roles[1].role: 'noun' is given twice; name each role once",
        ),
        (
            [{"role": "all"}],
            "effects.roles[0].role: 'all' is the mean over all cells; take another name",
        ),
        (
            [{"role": "a", "before": "b"}, {"role": "b", "after": "a"}],
            "effects.roles: refer to each other in a circle: ",
        ),
        ([{"role": "a", "after": "a"}], "effects.roles: refer to each other in a circle: a;"),
    ],
)
def test_rules_that_say_nothing_are_refused_in_one_line(rules: Rules, message: str) -> None:
    with pytest.raises(InputError) as refused:
        check_roles(rules)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


# ---- parts of a role, and the answer that a question names -------------------------------------

SUBJECT = [
    {"role": "before the subject", "before": "noun"},
    {"role": "last subject token", "of": "noun", "part": "last"},
    {"role": "first subject token", "of": "noun", "part": "first"},
    {"role": "middle subject tokens", "of": "noun", "part": "middle"},
    {"role": "last token", "after": "noun", "part": "last"},
    {"role": "first subsequent token", "after": "noun", "part": "first"},
    {"role": "further tokens", "after": "noun", "part": "middle"},
    {"role": "noun", "pair": "differs"},
]


@pytest.mark.parametrize(
    ("base", "source", "expected"),
    [
        ("is cat red", "is dog red", ["last", "first subsequent", "last token"]),
        (
            "is fire truck red",
            "is green kite red",
            ["first", "last", "first subsequent", "last token"],
        ),
        (
            "is an old fire truck so very red",
            "is the big green kite so very red",
            ["first", "middle", "middle", "last", "first subsequent", "further", "further",
             "last token"],
        ),
        ("is cat", "is dog", ["last", "last token"]),
    ],
)  # fmt: skip
def test_a_subject_of_any_length_has_a_first_a_middle_and_a_last_token(
    base: str, source: str, expected: list[str]
) -> None:
    """What follows it too; of one token the last is meant, since it is listed first."""
    names = {
        "first": "first subject token", "middle": "middle subject tokens",
        "last": "last subject token", "first subsequent": "first subsequent token",
        "further": "further tokens", "last token": "last token",
    }  # fmt: skip
    before = ["before the subject"] * 2
    assert roles(base, source, SUBJECT) == [*before, *(names[part] for part in expected)]


def test_all_tokens_of_a_role_are_of_it_where_its_parts_come_last() -> None:
    found = roles("is an old cat red", "is the big dog red", rules_of_whole(SUBJECT, "noun"))
    assert found[2:5] == ["noun"] * 3
    assert "noun" not in roles("is an old cat red", "is the big dog red", SUBJECT)
    assert rules_of_whole(DEFAULT, IT) == DEFAULT


def test_a_corruption_of_a_role_is_of_its_parts_too() -> None:
    corrupt = {"at": "question.word_embeddings", "role": "noun", "levels": [1]}
    config = Config.model_validate(
        {
            "model": {"name": "m", "layers": {"encoder": 1, "decoder": 1, "vision": 1}},
            "examples": "e",
            "runs": {"noisy": {"of": "base", "corrupt": corrupt}},
            "effects": {"roles": SUBJECT},
        }
    ).model_dump(exclude_none=True)
    noise = runs_of(config)["noisy"].corruption
    assert noise
    base, source = (tokens_of(f"is {words} red") for words in ("an old cat", "the big dog"))
    found = roles_of(base, source, noise.role_rules)
    assert [at for at, role in enumerate(found) if role == noise.role] == [2, 3, 4]


CHOICE = [
    {"role": "right answer", "answer": "base", "part": "first"},
    {"role": "other answer", "answer": "source"},
    {"role": "before or", "before": "or"},
    {"role": "or", "token": "or"},
]


def test_the_answer_that_a_question_names_has_a_role() -> None:
    """The first token that is the answer's first, with [CLS] counted; both questions alike."""
    base, source = tokens_of("is red hat red or blue"), tokens_of("is red hat pink or blue")
    answered = {"base": [2, 4], "source": [6]}
    other = ["before or"] * 2
    expected = [*other, "right answer", *other, "or", "other answer", ""]
    assert roles_of(base, source, CHOICE, answered) == expected
    assert roles_of(source, base, CHOICE, answered) == expected


def test_a_question_that_does_not_name_its_answer_has_no_such_role() -> None:
    base = tokens_of("is red or blue")
    nowhere: list[dict[str, list[int]]] = [{}, {"base": [], "source": []}]
    for answered in nowhere:
        assert "right answer" not in roles_of(base, base, CHOICE, answered)


def test_where_the_answer_stands_is_read_from_the_runs() -> None:
    """By the id of its first token, question by question; a run of another name is none."""
    words = {"a": ("is red or blue", "is pink or blue"), "b": ("is red or blue", "is red or blue")}
    ids = {word: number for number, word in enumerate(tokens_of("is or red blue pink"))}
    tokens = pd.DataFrame(
        [
            (example, which, at, word, ids[word])
            for example, pair in words.items()
            for which, question in zip(("base", "source"), pair, strict=True)
            for at, word in enumerate(tokens_of(question))
        ],
        columns=["example", "question", "position", "token", "token_id"],
    )
    runs = pd.DataFrame(
        [("a", "base", ids["red"]), ("a", "source", ids["blue"]), ("a", "noisy", ids["is"]),
         ("b", "base", ids["blue"]), ("b", "source", 99)],
        columns=["example", "run", "answer_id"],
    )  # fmt: skip
    found = assign_roles(tokens, CHOICE, runs).set_index(["example", "position"])["token_role"]
    assert found["a"].tolist() == ["before or", "before or", "right answer", "or", "other answer",
                                   ""]  # fmt: skip
    assert found["b"].tolist() == ["before or", "before or", "before or", "or", "right answer", ""]
