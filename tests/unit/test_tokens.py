"""What the model reads is known without loading the model's libraries."""

import json
from pathlib import Path

import pytest
from project import BLIP_FILES, ROOT
from tokenizers import Tokenizer

from blip_tracing.errors import InputError
from blip_tracing.given.tokens import (
    answer_name,
    answer_token_id,
    answer_token_ids,
    load_tokenizer,
    tokenize,
    unknown_words,
)

MINIATURE = ROOT / "resources/miniature/checkpoint"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [*SPECIAL, "what", "is", "the", "color", "of", "?", "shirt", "red", "##dish"]
TRICKY = (
    "what is the color of the animal",
    "What IS the Shirt?",
    "don't",
    "café au lait, 2nd row... ok?!",
    "reddish\tshirt 颜色",
    "is that an okapi [SEP] or a [MASK]",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


def test_a_question_is_its_tokens_between_the_start_and_the_end(tokenizer: Tokenizer) -> None:
    assert tokenize(tokenizer, "What is reddish") == [
        ("[CLS]", 2, ""),
        ("what", 4, "What"),
        ("is", 5, "is"),
        ("red", 11, "red"),
        ("##dish", 12, "dish"),
        ("[SEP]", 3, ""),
    ]


def test_unknown_words_are_named_as_they_are_written(tokenizer: Tokenizer) -> None:
    question = "what is the Okapi of the shirt, okapi?"
    assert unknown_words(tokenizer, question) == ["Okapi", ",", "okapi"]
    assert unknown_words(tokenizer, "what is the color") == []


def test_an_answer_is_one_known_token(tokenizer: Tokenizer) -> None:
    assert answer_token_id(tokenizer, "Red") == WORDS.index("red")


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        ("Red", ["red"]),
        ("reddish", ["red", "##dish"]),
        ("red  shirt", ["red", "shirt"]),
        ("the reddish shirt", ["the", "red", "##dish", "shirt"]),
    ],
)
def test_an_answer_of_several_tokens_is_all_of_them(
    tokenizer: Tokenizer, answer: str, tokens: list[str]
) -> None:
    ids = answer_token_ids(tokenizer, answer)
    assert ids == [WORDS.index(token) for token in tokens]
    assert answer_name(tokenizer, ids) == " ".join(answer.lower().split())


@pytest.mark.parametrize("answer", ["okapi", "red okapi", " ", "\u200b"])
def test_an_answer_without_a_known_word_is_refused(tokenizer: Tokenizer, answer: str) -> None:
    with pytest.raises(InputError, match=r"not a word that the tokenizer knows|has no word"):
        answer_token_ids(tokenizer, answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("reddish", "'reddish' is 2 tokens (red ##dish), not one"),
        ("red okapi", "'okapi' is not a word that the tokenizer knows"),
        ("", "'' has no word"),
    ],
)
def test_what_is_to_be_one_token_and_is_not_is_refused(
    tokenizer: Tokenizer, answer: str, message: str
) -> None:
    with pytest.raises(InputError) as refused:
        answer_token_id(tokenizer, answer)
    assert str(refused.value) == message


def test_capitals_count_where_the_checkpoint_says_so(folder: Path) -> None:
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps({"do_lower_case": False}))
    assert unknown_words(load_tokenizer(folder), "What is Red") == ["What", "Red"]


def test_a_whole_tokenizer_goes_before_a_vocabulary(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/vocab.txt").write_text("\n".join([*WORDS, "okapi"]))
    load_tokenizer(tmp_path / "other").save(str(folder / "tokenizer.json"))
    assert unknown_words(load_tokenizer(folder), "what okapi") == []


def test_a_saved_tokenizer_neither_pads_nor_truncates(folder: Path, tokenizer: Tokenizer) -> None:
    tokenizer.enable_padding(length=20)
    tokenizer.enable_truncation(max_length=4)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert len(tokenize(load_tokenizer(folder), "what is the color of the shirt")) == 9


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "{}: holds neither tokenizer.json nor vocab.txt"),
        ({"tokenizer.json": b"{"}, "{}/tokenizer.json: is not a tokenizer"),
        ({"vocab.txt": b"what\nis\n"}, "{}/vocab.txt: has no token [UNK]"),
        ({"vocab.txt": b"\xff"}, "{}/vocab.txt: is not UTF-8 text"),
        (
            {"vocab.txt": b"[UNK]\n[CLS]\n[SEP]", "tokenizer_config.json": b"["},
            "{}/tokenizer_config.json: is not JSON",
        ),
    ],
)
def test_what_is_no_tokenizer_is_named(
    tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as refused:
        load_tokenizer(tmp_path)
    assert str(refused.value).startswith(message.format(tmp_path))
    assert "\n" not in str(refused.value)


def read_as_the_model_does(folder: Path, question: str) -> list[int]:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)(question)["input_ids"]


@pytest.mark.parametrize("question", TRICKY)
def test_the_miniature_reads_the_same_tokens(question: str) -> None:
    tokens = tokenize(load_tokenizer(MINIATURE), question)
    assert [token_id for _, token_id, _ in tokens] == read_as_the_model_does(MINIATURE, question)


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    """BERT's vocabulary as an old checkpoint keeps it: vocab.txt and no tokenizer.json."""
    if not (BLIP_FILES / "vocab.txt").is_file():
        pytest.skip("BLIP_VQA_BASE_FILES names no folder with vocab.txt")
    (tmp_path / "vocab.txt").write_bytes((BLIP_FILES / "vocab.txt").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    return tmp_path


def test_a_vocabulary_alone_is_read_as_transformers_reads_it(bert_folder: Path) -> None:
    tokenizer = load_tokenizer(bert_folder)
    for question in TRICKY:
        ids = [token_id for _, token_id, _ in tokenize(tokenizer, question)]
        assert ids == read_as_the_model_does(bert_folder, question)


def test_the_tutorials_question_is_nine_tokens_and_its_answers_one(bert_folder: Path) -> None:
    tokenizer = load_tokenizer(bert_folder)
    assert tokenizer.get_vocab_size() == 30522
    assert len(tokenize(tokenizer, "what is the color of the animal")) == 9
    assert answer_token_id(tokenizer, "red") == 2417
    assert answer_token_id(tokenizer, "brown") == 2829
