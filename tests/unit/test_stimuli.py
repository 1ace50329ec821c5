"""Sheets of published methods' examples, from small files in the form of their datasets."""

import contextlib
import itertools
import sys
from pathlib import Path

import pandas as pd
import pytest
from checkpoints import SPECIAL, STARTS, random_blip, save_checkpoint
from make_sheet import make_sheet, parse
from PIL import Image
from project import BLIP_FILES
from tokenizers import Tokenizer

from blip_tracing.errors import InputError
from blip_tracing.given.pairs import Drop, Reason, read_dataset
from blip_tracing.given.sheet import load_sheet
from blip_tracing.given.stimuli import (
    Choice,
    choice_row,
    mit_choices,
    palit_examples,
    palit_sheet,
    svo_choices,
)
from blip_tracing.given.tokens import load_tokenizer, tokenize

# The eight rows that Palit et al. lost, of 208, with BERT's vocabulary: their last words.
LOST = ("raincoat", "frisbee", "frisbee", "frisbee", "linens", "canoes", "towell", "washer")
KEPT = ("cat", "shirt", "bus", "umbrella", "train", "dog", "flower", "motorcycle", "vase", "truck")

WORDS = (
    "what is the color of cat dog bus rain ##coat red ripe or this apple ? girl boy man sit run "
    "beach grass old new sliced"
)


@pytest.fixture
def tokenizer(tmp_path):
    """A made-up vocabulary: `raincoat` is two pieces, `cat` and `dog` are one."""
    vocabulary = [*SPECIAL, *WORDS.split()]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return load_tokenizer(tmp_path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small random model of these words."""
    vocabulary = [*SPECIAL, *WORDS.split(), *STARTS]
    blip = random_blip(len(vocabulary))
    return str(save_checkpoint(tmp_path_factory.mktemp("checkpoint"), blip, vocabulary))


def dataset_of(folder: Path, questions: list[str]) -> pd.DataFrame:
    """A CSV as Palit et al. published theirs, read."""
    table = pd.DataFrame(
        {
            "train_image_id_count": [1000 + number for number in range(len(questions))],
            "question_count": questions,
            "answer_count": "red",
        }
    )
    table.to_csv(folder / "questions.csv")
    return read_dataset(folder / "questions.csv")


def about(*nouns: str) -> list[str]:
    return [f"what is the color of the {noun}" for noun in nouns]


def test_palits_examples_are_the_first_of_seven_words_and_nine_pieces(tokenizer, tmp_path):
    """Whatever the answer, and however often a question is asked."""
    questions = about("cat", "raincoat", "dog", "cat", "bus", "dog")
    questions.insert(1, "what is the color of cat")
    kept, dropped = palit_examples(dataset_of(tmp_path, questions), tokenizer, count=4)
    expected: list[tuple[int, str]] = []
    for row, question in enumerate(questions, start=2):
        if len(question.split()) == 7 and "raincoat" not in question and len(expected) < 4:
            expected.append((row, question))
    assert [(one.row, one.text) for one in kept] == expected
    assert {len(one.tokens) for one in kept} == {9}
    assert [(drop.row, drop.reason) for drop in dropped] == [
        (3, Reason.WORDS),
        (4, Reason.PIECES),
        (8, Reason.FULL),
    ]


def test_the_other_question_has_the_next_rows_noun(tokenizer, tmp_path):
    kept, _ = palit_examples(dataset_of(tmp_path, about("cat", "cat", "dog", "bus")), tokenizer)
    sheet = palit_sheet(kept, "{id:012d}.jpg")
    assert sheet["base_question"].tolist() == about("cat", "cat", "dog", "bus")
    assert sheet["source_question"].tolist() == about("dog", "dog", "bus", "cat")
    assert sheet["image"].iloc[0] == "000000001000.jpg"
    with pytest.raises(InputError, match="all questions end in 'cat'"):
        palit_sheet(kept[:2], "{id}")


@pytest.mark.skipif(
    not (BLIP_FILES / "vocab.txt").is_file(),
    reason="BLIP_VQA_BASE_FILES names no folder with BERT's vocab.txt",
)
def test_with_berts_vocabulary_the_lost_rows_are_the_published_ones(tmp_path):
    tokenizer = load_tokenizer(BLIP_FILES)
    words = [word for pair in itertools.zip_longest(KEPT, LOST) for word in pair if word]
    kept, dropped = palit_examples(dataset_of(tmp_path, about(*words)), tokenizer)
    assert tuple(one.text.split()[-1] for one in kept) == KEPT
    assert tuple(drop.question.split()[-1] for drop in dropped) == LOST
    assert {drop.reason for drop in dropped} == {Reason.PIECES}


SVO = [
    # positive, negative triplet, their pictures
    ("girl,sit,beach", "boy,sit,beach", "1", "2"),
    ("girl,sit,beach", "girl,run,beach", "3", "4"),
    ("man,run,grass", "man,run,beach", "5", "6"),
    ("person,run,grass", "man,run,grass", "7", "8"),
    ("girl,sit,beach", "boy,run,beach", "9", "10"),
    ("girl,sit", "boy,sit", "11", "12"),
]
SVO_COLUMNS = ["pos_triplet", "neg_triplet", "pos_image_id", "neg_image_id"]


def svo_file(folder: Path) -> Path:
    table = pd.DataFrame(SVO, columns=SVO_COLUMNS).assign(sentence="A girl sits.", subj_neg="")
    table.to_csv(folder / "svo_probes.csv", index=False)
    return folder / "svo_probes.csv"


def test_a_row_of_svo_probes_is_two_choices_each_picture_once_clean(tmp_path):
    outcomes = svo_choices(svo_file(tmp_path), "svo/{id}.jpg")
    choices = [one for one in outcomes if isinstance(one, Choice)]
    assert [(c.name, c.prompt, c.answer, c.other, c.group) for c in choices] == [
        ("2_pos", "is girl or boy sit beach?", "girl", "boy", "subject"),
        ("2_neg", "is girl or boy sit beach?", "boy", "girl", "subject"),
        ("3_pos", "is girl sit or run beach?", "sit", "run", "verb"),
        ("3_neg", "is girl sit or run beach?", "run", "sit", "verb"),
        ("4_pos", "is man run grass or beach?", "grass", "beach", "object"),
        ("4_neg", "is man run grass or beach?", "beach", "grass", "object"),
    ]
    assert [(c.image, c.other_image) for c in choices[:2]] == [
        ("svo/1.jpg", "svo/2.jpg"),
        ("svo/2.jpg", "svo/1.jpg"),
    ]
    assert [(d.row, d.reason) for d in outcomes if isinstance(d, Drop)] == [
        (5, Reason.PERSON),
        (6, Reason.TRIPLETS),
        (7, Reason.TRIPLETS),
    ]
    assert list(choices[0].vocabulary) == ["boy", "girl", "man", "person"]


def test_the_other_run_of_a_choice_sees_the_other_picture(tokenizer, tmp_path):
    choice = svo_choices(svo_file(tmp_path), "{id}.jpg")[0]
    assert isinstance(choice, Choice)
    row = row_of(choice, "image", tokenizer, 0)
    assert (row["image"], row["source_image"]) == ("1.jpg", "2.jpg")
    assert row["base_question"] == row["source_question"] == choice.prompt
    assert (row["base_answer"], row["source_answer"]) == ("girl", "boy")


def choice_of(vocabulary: list[str]) -> Choice:
    words = ("rain", "cat")
    prompt = "is rain or cat red?"
    return Choice(2, "2_pos", "a", "b", prompt, words, *words, "subject", vocabulary)


def row_of(choice: Choice | Drop, change: str, tokenizer: Tokenizer, seed: int) -> dict[str, str]:
    """The row that a choice becomes."""
    assert isinstance(choice, Choice)
    row = choice_row(choice, change, tokenizer, seed)
    assert not isinstance(row, Drop)
    return row


@pytest.mark.parametrize("seed", range(20))
def test_or_reads_two_other_words_of_the_role_in_as_many_tokens(tokenizer, seed):
    vocabulary = ["rain", "cat", "raincoat", "dog", "bus", "what"]
    choice = choice_of(vocabulary)
    row = row_of(choice, "text", tokenizer, seed)
    assert row["source_image"] == ""
    first, second = row["source_question"].removeprefix("is ").removesuffix(" red?").split(" or ")
    # Of one token, as those that they replace, and neither of them.
    assert {first, second} <= {"dog", "bus", "what"}
    assert first != second
    assert len(tokenize(tokenizer, row["source_question"])) == len(
        tokenize(tokenizer, row["base_question"])
    )
    assert row == row_of(choice, "text", tokenizer, seed)


def test_other_words_are_drawn_anew_with_another_seed(tokenizer):
    vocabulary = ["rain", "cat", "dog", "bus", "what", "is", "the"]
    choice = choice_of(vocabulary)
    drawn = {row_of(choice, "text", tokenizer, seed)["source_question"] for seed in range(40)}
    assert len(drawn) > 10


@pytest.mark.parametrize("vocabulary", [["rain", "cat", "dog"], ["rain", "cat", "raincoat", "dog"]])
def test_a_choice_that_no_words_can_replace_is_dropped(tokenizer, vocabulary):
    choice = choice_of(vocabulary)
    outcome = choice_row(choice, "text", tokenizer, 0)
    assert isinstance(outcome, Drop)
    assert outcome.reason == Reason.NO_REPLACEMENT


MIT = {"ripe apple": 3, "old apple": 2, "sliced apple": 1, "ripe dog": 1, "new bus": 2,
       "old bus": 2, "adj apple": 2}  # fmt: skip


@pytest.fixture
def mit(tmp_path):
    for name, count in MIT.items():
        (tmp_path / "mit" / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8)).save(tmp_path / "mit" / name / f"{number}.jpg")
    return tmp_path / "mit"


@pytest.mark.parametrize("seed", range(6))
def test_a_choice_of_mit_states_is_between_two_states_of_its_noun(mit, seed):
    outcomes = mit_choices(mit, seed)
    pictures = sum(count for name, count in MIT.items() if not name.startswith("adj"))
    assert len(outcomes) == pictures
    shown = []
    for choice in outcomes:
        if isinstance(choice, Drop):
            continue
        adjective, noun = Path(choice.image).parent.name.split()
        other, same = Path(choice.other_image).parent.name.split()
        assert noun == same
        assert adjective != other
        assert (choice.answer, choice.other) == (adjective, other)
        first, second = choice.words
        assert choice.prompt == f"Is this {noun} {first} or {second}?"
        assert sorted(choice.words) == sorted((adjective, other))
        assert choice.group == f"right word {'first' if first == adjective else 'second'}"
        assert Path(choice.image).is_file()
        shown += [choice.image, choice.other_image]
    assert len(shown) == len(set(shown))
    assert shown
    reasons = {one.reason for one in outcomes if isinstance(one, Drop)}
    assert reasons <= {Reason.TAKEN, Reason.NO_OTHER}
    # A dog has one state alone.
    assert any(isinstance(o, Drop) and o.question.startswith("ripe dog") for o in outcomes)


def test_adjectives_that_are_not_asked_about_are_neither_right_nor_wrong(mit):
    outcomes = mit_choices(mit, 0, ["ripe", "old"])
    words = {word for one in outcomes if isinstance(one, Choice) for word in one.words}
    assert words == {"ripe", "old"}
    left_out = [o for o in outcomes if isinstance(o, Drop) and o.reason == Reason.ADJECTIVE]
    assert {one.question.split()[0] for one in left_out} == {"sliced", "new"}


def test_a_folder_without_states_is_refused(tmp_path):
    with pytest.raises(InputError, match="no folder like 'ripe apple'"):
        mit_choices(tmp_path, 0)


@pytest.mark.parametrize("change", ["image", "text"])
def test_the_command_makes_a_sheet_of_choices(mit, change, tmp_path, monkeypatch, checkpoint):
    monkeypatch.chdir(tmp_path)
    options = ["--model", checkpoint, "--form", "mit-states", "--change", change]
    command = ["mit", "sheet.tsv", *options, "--sample", "2"]
    said = make_sheet(parse(command))
    sheet = load_sheet("sheet.tsv")
    assert len(sheet) == 2
    assert "2 examples (of 2 asked for)" in said
    dropped = pd.read_csv("sheet.dropped.csv")
    assert len(sheet) + len(dropped) == sum(n for name, n in MIT.items() if "adj" not in name)
    again = make_sheet(parse([*command[:1], "again.tsv", *command[2:]]))
    assert again.replace("again", "sheet") == said
    assert Path("again.tsv").read_bytes() == Path("sheet.tsv").read_bytes()


def test_pictures_of_svo_probes_have_to_be_given_and_be_there(tmp_path, monkeypatch, checkpoint):
    monkeypatch.chdir(tmp_path)
    svo_file(tmp_path)
    command = ["svo_probes.csv", "sheet.tsv", "--model", checkpoint, "--form", "svo-probes"]
    with pytest.raises(InputError, match="--pictures: COCO has none"):
        make_sheet(parse(command))
    with pytest.raises(InputError, match="no row makes an example"):
        make_sheet(parse([*command, "--pictures", "{id}.jpg"]))
    for picture in ("1", "2"):
        Image.new("RGB", (8, 8)).save(f"{picture}.jpg")
    make_sheet(parse([*command, "--pictures", "{id}.jpg"]))
    assert load_sheet("sheet.tsv")["example"].tolist() == ["2_pos", "2_neg"]


def test_the_command_makes_palits_sheet(tmp_path, monkeypatch, checkpoint):
    monkeypatch.chdir(tmp_path)
    nouns = ("cat", "dog", "cat")
    dataset_of(tmp_path, about(*nouns))
    command = ["questions.csv", "sheet.tsv", "--model", checkpoint, "--form", "palit-2023"]
    make_sheet(parse(command))
    sheet = load_sheet("sheet.tsv")
    assert sheet["base_question"].tolist() == about(*nouns)
    assert sheet["image"].iloc[0].endswith("/train2017/000000001000.jpg")


def test_only_choices_that_the_model_makes_rightly_are_kept(mit, tmp_path, monkeypatch, checkpoint):
    """What it says is asked of itself, by its first token."""
    monkeypatch.chdir(tmp_path)
    command = ["mit", "sheet.tsv", "--model", checkpoint, "--form", "mit-states"]
    asked = []

    def saying(word):
        def ask(picture, question):
            asked.append((picture, question))
            return word

        return ask

    monkeypatch.setattr(
        sys.modules["make_sheet"], "ask_model", lambda *_: contextlib.nullcontext(saying("ripe"))
    )
    make_sheet(parse([*command, "--correct"]))
    sheet = load_sheet("sheet.tsv")
    assert set(sheet["base_answer"]) == {"ripe"}
    assert {(row.image, row.base_question) for row in sheet.itertuples()} <= set(asked)


def test_a_choice_between_words_that_the_tokenizer_does_not_know_is_dropped(
    mit, tmp_path, monkeypatch, checkpoint
):
    monkeypatch.chdir(tmp_path)
    (mit / "old apple").rename(mit / "mossy apple")
    make_sheet(parse(["mit", "sheet.tsv", "--model", checkpoint, "--form", "mit-states"]))
    dropped = pd.read_csv("sheet.dropped.csv").query("reason == @Reason.UNKNOWN_WORD.value")
    assert len(dropped)
    assert set(dropped["detail"]) == {"mossy"}
    assert not load_sheet("sheet.tsv")["base_question"].str.contains("mossy").any()
