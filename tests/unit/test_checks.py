"""What does not fit the sheet, a picture or the checkpoint, is said in one line."""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image
from project import ROOT
from refusals import GOOD_ROW, HEADER, SHIPPED, SMALLEST, refusal, write_sheet

from blip_tracing.given.checks import check_against_checkpoint, check_pictures
from blip_tracing.given.settings import fill_config
from blip_tracing.given.sheet import load_sheet
from blip_tracing.given.tokens import load_tokenizer
from blip_tracing.vocabulary.experiment import BASE, SOURCE

# --- the pictures


def sheet_with(folder: Path, image: str, sha256: str = "") -> pd.DataFrame:
    row = f"shirt\t{image}\twhat is the color\twhat is the shirt\t{sha256}"
    return load_sheet(write_sheet(folder, HEADER + "\timage_sha256", row))


def picture_refusal(folder: Path, image: str, sha256: str = "") -> str:
    message = refusal(check_pictures, sheet_with(folder, image, sha256), "config/examples.tsv")
    start = "config/examples.tsv, row 2 (example 'shirt'), "
    assert message.startswith(start)
    return message.removeprefix(start)


def test_a_picture_that_is_there_is_accepted_and_an_address_left_alone(tmp_path: Path) -> None:
    picture = tmp_path / "shirt.png"
    Image.new("RGB", (4, 4)).save(picture)
    checksum = hashlib.sha256(picture.read_bytes()).hexdigest()
    check_pictures(sheet_with(tmp_path, str(picture), checksum), "config/examples.tsv")
    check_pictures(sheet_with(tmp_path, "https://192.0.2.1/a.png", checksum), "examples.tsv")


def test_a_picture_that_is_none_is_named(tmp_path: Path) -> None:
    text = tmp_path / "shirt.png"
    text.write_text("no picture")
    assert picture_refusal(tmp_path, str(text)) == (
        f"image: {text}: is no picture that Pillow knows; give a JPEG or PNG file"
    )
    assert picture_refusal(tmp_path, "none.png") == (
        "image: none.png: there is no such file; mend its path"
    )
    assert picture_refusal(tmp_path, str(tmp_path)) == (
        f"image: {tmp_path}: cannot be opened as a picture (Is a directory)"
    )
    assert picture_refusal(tmp_path, "ftp://host/a.png") == (
        "image: ftp://host/a.png: is not http(s); download it, give its path"
    )


def test_a_picture_with_another_checksum_is_named(tmp_path: Path) -> None:
    picture = tmp_path / "shirt.png"
    Image.new("RGB", (4, 4)).save(picture)
    found = hashlib.sha256(picture.read_bytes()).hexdigest()
    assert picture_refusal(tmp_path, str(picture), "0" * 64) == (
        f"image_sha256: the sha256 of {picture} is {found}; mend the cell or replace the picture"
    )


# --- the checkpoint

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [*SPECIAL, "what", "is", "the", "color", "of", "shirt", "red", "##dish"]
LAYERS, POSITIONS = SMALLEST["model"]["layers"], 12
# One of both questions, one of one.
EXPERIMENTS = {
    "runs": {"noisy": {"of": BASE, "corrupt": {}}},
    "experiments": {
        "patching": {"receiver": BASE, "donor": SOURCE},
        "tracing": {"receiver": "noisy", "donor": BASE},
    },
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    set_vocabulary(folder, len(WORDS))
    return folder


def set_vocabulary(folder: Path, size: int, start: int = len(WORDS) - 1) -> None:
    """Give the model so many words, `start` among them the one with which answers begin."""
    text = {
        "num_hidden_layers": LAYERS["encoder"],
        "max_position_embeddings": POSITIONS,
        "vocab_size": size,
        "bos_token_id": start,
    }
    config = {"model_type": "blip", "architectures": ["BlipForQuestionAnswering"]}
    vision = {"num_hidden_layers": LAYERS["vision"]}
    (folder / "config.json").write_text(
        json.dumps({**config, "text_config": text, "vision_config": vision})
    )


def check_row(checkpoint: Path, row: str, **config: object) -> list[str]:
    """Check one row: base question, source question and, if given, the answers to both."""
    header = HEADER + "\tbase_answer\tsource_answer"
    path = write_sheet(checkpoint.parent, header, f"one\tx.png\t{row}")
    given = fill_config({**SMALLEST, **EXPERIMENTS, **config})
    return check_against_checkpoint(given, load_sheet(path), checkpoint, "config/examples.tsv")


def row_refusal(checkpoint: Path, row: str) -> str:
    message = refusal(check_row, checkpoint, row)
    start = "config/examples.tsv, row 2 (example 'one')"
    assert message.startswith(start)
    return message.removeprefix(start)


def test_what_fits_the_checkpoint_brings_no_warning(checkpoint: Path) -> None:
    assert check_row(checkpoint, "what is the shirt\twhat is the color\tred\tColor") == []


@pytest.mark.parametrize(("tower", "number"), LAYERS.items())
def test_the_layers_are_the_checkpoints(checkpoint: Path, tower: str, number: int) -> None:
    check = check_against_checkpoint
    sheet = load_sheet(write_sheet(checkpoint.parent, HEADER, GOOD_ROW))
    config = fill_config({**SMALLEST, "model": {"name": "a/b", "layers": {**LAYERS, tower: 12}}})
    assert refusal(check, config, sheet, checkpoint, "config/examples.tsv") == (
        f"model.layers.{tower} is 12, but {checkpoint}/config.json has {number}; "
        f"set model.layers.{tower} to {number}"
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "what is the shirt\twhat is the shirt\treddish",
            ", base_answer: 'reddish' is 2 tokens (red ##dish); an answer is one token; "
            "give another, or none for the model's own",
        ),
        (
            "what is the shirt\twhat is the shirt\tred\tokapi",
            ", source_answer: 'okapi' is not a word that the tokenizer knows; "
            "give another, or none for the model's own",
        ),
        (
            "what is the shirt\t" + "what " * (POSITIONS - 1),
            ", source_question: has 13 tokens, the model reads 12; shorten it",
        ),
        (
            "what is the color of the shirt\twhat is the reddish shirt",
            ": base_question has 9 tokens, source_question 8, and an experiment puts one's states "
            "into the other's run, which needs equally many; reword one, or leave out that "
            "experiment",
        ),
        (
            "what\t\u200b\u200c",
            ", source_question: has no word that can be seen; ask something",
        ),
    ],
)
def test_a_row_that_does_not_fit_is_named_with_its_mend(
    checkpoint: Path, row: str, message: str
) -> None:
    assert row_refusal(checkpoint, row) == message


def test_the_longest_question_fits(checkpoint: Path) -> None:
    longest = "what " * (POSITIONS - 2)
    assert check_row(checkpoint, f"{longest}\t{longest}") == []


def test_questions_in_any_script_are_read(checkpoint: Path) -> None:
    warnings = check_row(checkpoint, "что это 什么\tكيف حال\u200cک 👩\u200d🎨?")
    assert len(warnings) == 2 + 2 + 4
    assert "base_question: the tokenizer does not know 'что', which becomes [UNK]" in warnings[0]


@pytest.mark.parametrize(
    "patching", [{}, {"patching": {"receiver": BASE, "donor": SOURCE, "sites": []}}]
)
def test_questions_of_different_lengths_can_be_traced(
    checkpoint: Path, patching: dict[str, object]
) -> None:
    tracing = {"tracing": {"receiver": "noisy", "donor": BASE}}
    row = "what is the shirt\twhat"
    assert check_row(checkpoint, row, experiments={**tracing, **patching}) == []
    assert check_row(checkpoint, row, experiments={}) == []


def test_every_unknown_word_is_warned_of_once_a_question(checkpoint: Path) -> None:
    warnings = check_row(checkpoint, "what is the Okapi okapi Okapi\twhat of red shirt the zebra")
    where = "config/examples.tsv, row 2 (example 'one'), "
    assert warnings == [
        f"{where}base_question: the tokenizer does not know 'Okapi', which becomes [UNK]",
        f"{where}base_question: the tokenizer does not know 'okapi', which becomes [UNK]",
        f"{where}source_question: the tokenizer does not know 'zebra', which becomes [UNK]",
    ]


ROW_THAT_FITS = "what is the shirt\twhat is the color"


def test_blips_own_two_words_need_no_name(checkpoint: Path) -> None:
    """As in BLIP's first checkpoints: BERT's vocabulary, and an embedding two words larger."""
    set_vocabulary(checkpoint, len(WORDS) + 2, start=len(WORDS))
    assert check_row(checkpoint, ROW_THAT_FITS) == []


def test_words_of_the_model_beyond_the_tokenizers_are_warned_of(checkpoint: Path) -> None:
    set_vocabulary(checkpoint, 16)
    assert check_row(checkpoint, ROW_THAT_FITS) == [
        f"{checkpoint}: its tokenizer has 12 words, the model 16; "
        "answers beyond are shown by number, as [id 15]"
    ]


def test_a_tokenizer_with_words_that_the_model_has_not_is_refused(checkpoint: Path) -> None:
    set_vocabulary(checkpoint, 11, start=0)
    assert refusal(check_row, checkpoint, ROW_THAT_FITS) == (
        f"{checkpoint}: its tokenizer has '##dish' as number 11, but the model has 11 words, "
        "counted from 0; copy the tokenizer of this model"
    )


@pytest.mark.parametrize("as_whole", [False, True])
def test_a_tokenizer_that_lost_a_word_is_refused(checkpoint: Path, as_whole: bool) -> None:
    if as_whole:
        load_tokenizer(checkpoint).save(str(checkpoint / "tokenizer.json"))
        saved = json.loads((checkpoint / "tokenizer.json").read_text())
        del saved["model"]["vocab"]["red"]
        (checkpoint / "tokenizer.json").write_text(json.dumps(saved))
    else:
        (checkpoint / "vocab.txt").write_text("\n".join(WORDS).replace("red", ""))
    assert refusal(check_row, checkpoint, ROW_THAT_FITS) == (
        f"{checkpoint}: its tokenizer has no word for 1 of the model's 12, the first number 10; "
        "copy the tokenizer of this model"
    )


def test_the_default_sheet_fits_the_miniature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = fill_config(yaml.safe_load(SHIPPED[0].read_text()))
    sheet = load_sheet(config["examples"])
    check_pictures(sheet, config["examples"])
    assert check_against_checkpoint(config, sheet, config["model"]["name"], "sheet") == []
