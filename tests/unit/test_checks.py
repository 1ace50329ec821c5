"""What does not fit the sheet, a picture or the checkpoint, is said in one line."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from PIL import Image
from project import ROOT
from refusals import GOOD_ROW, HEADER, SHIPPED, SMALLEST, refusal, write_sheet

from blip_tracing.given.checks import (
    check_against_checkpoint,
    check_corrupted_regions,
    check_own_pictures,
    check_pictures,
)
from blip_tracing.given.settings import fill_config
from blip_tracing.given.sheet import load_sheet
from blip_tracing.given.tokens import load_tokenizer
from blip_tracing.vocabulary.corruptions import (
    PICTURE_PIXELS,
    PICTURE_STATES,
    QUESTION_EMBEDDINGS,
)
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


def test_a_source_picture_that_is_none_is_named(tmp_path: Path) -> None:
    picture = tmp_path / "shirt.png"
    Image.new("RGB", (4, 4)).save(picture)
    row = f"shirt\t{picture}\tq\tr\tnone.png"
    sheet = load_sheet(write_sheet(tmp_path, HEADER + "\tsource_image", row))
    assert refusal(check_pictures, sheet, "s.tsv") == (
        "s.tsv, row 2 (example 'shirt'), source_image: none.png: there is no such file; mend its "
        "path"
    )


def seeing(receiver: str, donor: str, at: str = QUESTION_EMBEDDINGS, **given: Any) -> dict:
    """A configuration with an experiment at a site of the vision tower; at: what is corrupted."""
    asked = {"receiver": receiver, "donor": donor, "sites": ["vision.mlp"], **given}
    runs = {"noisy": {"of": BASE, "corrupt": {"at": at}}}
    return fill_config({**SMALLEST, "runs": runs, "experiments": {"seeing": asked}})


def test_a_picture_whose_pixels_are_corrupted_is_another(tmp_path: Path) -> None:
    one = load_sheet(write_sheet(tmp_path, HEADER, GOOD_ROW))
    config = seeing("noisy", BASE)
    assert "see the same picture" in refusal(check_own_pictures, config, one, "s.tsv")
    config["runs"]["noisy"]["corrupt"]["at"] = "picture.pixels"
    check_own_pictures(config, one, "s.tsv")


THING, OTHER = "shirt=0,0,0.5,0.5", "shoe=0,0,1,1"


def on_region(role: str, of: str = BASE) -> dict:
    """A configuration that corrupts the patches of a role alone."""
    noise = {"at": "picture.states", "role": role, "levels": [1]}
    return fill_config({**SMALLEST, "runs": {"noisy": {"of": of, "corrupt": noise}}})


@pytest.mark.parametrize(
    ("role", "boxes", "told"),
    [
        (
            "shirt", ["", ""],
            "runs.noisy.corrupt.role: 'shirt' is a region of a picture, and no row of s.tsv has "
            "boxes; add them to the sheet, or leave it out",
        ),
        (
            "background", ["", ""],
            "runs.noisy.corrupt.role: 'background' is a region of a picture, and no row of s.tsv "
            "has boxes; add them to the sheet, or leave it out",
        ),
        (
            "shrit", [THING, THING],
            "runs.noisy.corrupt.role: 'shrit' is no box of a row; did you mean shirt?",
        ),
        # Which is in no region.
        (
            "[CLS]", [THING, OTHER],
            "runs.noisy.corrupt.role: '[CLS]' is no box of a row; known are shirt, shoe, "
            "background",
        ),
        (
            "shirt", [THING, OTHER],
            "s.tsv, row 3 (example 'b'), boxes: has no 'shirt', where alone noisy is corrupted; "
            "add it, or leave the example out",
        ),
        (
            "picture", [THING, ""],
            "s.tsv, row 2 (example 'a'), boxes: has no 'picture', where alone noisy is corrupted; "
            "add it, or leave the example out",
        ),
    ],
)  # fmt: skip
def test_a_region_that_alone_is_corrupted_is_on_every_picture(
    tmp_path: Path, role: str, boxes: list[str], told: str
) -> None:
    rows = [f"{name}\tx.png\tq\tr\t{box}" for name, box in zip("ab", boxes, strict=True)]
    sheet = load_sheet(write_sheet(tmp_path, HEADER + "\tboxes", *rows))
    assert refusal(check_corrupted_regions, on_region(role), sheet, "s.tsv") == told


def test_a_region_that_every_picture_has_can_be_corrupted(tmp_path: Path) -> None:
    """Of the picture that the boxes are of: image, not source_image."""
    header, path = f"{HEADER}\tsource_image\tboxes", "s.tsv"
    sheet = load_sheet(write_sheet(tmp_path, header, f"a\tx.png\tq\tr\ty.png\t{THING}"))
    for role in ("shirt", "background", ""):
        check_corrupted_regions(on_region(role), sheet, path)
    assert refusal(check_corrupted_regions, on_region("shirt", SOURCE), sheet, path) == (
        "s.tsv, row 2 (example 'a'), source_image: is what noisy sees, and boxes are of image; "
        "leave out runs.noisy.corrupt.role, or corrupt a run of base"
    )
    plain = load_sheet(write_sheet(tmp_path, header, "a\tx.png\tq\tr\ty.png"))
    for of in (BASE, SOURCE):
        check_corrupted_regions(on_region("picture", of), plain, path)


def test_at_a_site_of_vision_receiver_and_donor_see_different_pictures(tmp_path: Path) -> None:
    header, path = HEADER + "\tsource_image", "s.tsv"
    both = load_sheet(write_sheet(tmp_path, header, "a\tx.png\tq\tq\ty.png"))
    check_own_pictures(seeing(BASE, SOURCE), both, path)
    check_own_pictures(seeing(SOURCE, BASE), both, path)
    assert refusal(check_own_pictures, seeing("noisy", BASE), both, path) == (
        "experiments.seeing: receiver and donor see the same picture, so that they do not differ "
        "at vision.mlp; let one of them be of source, with a source_image"
    )
    for last in ("", "\tx.png"):
        rows = ["a\tx.png\tq\tq\ty.png", f"b\tx.png\tq\tr{last}"]
        sheet = load_sheet(write_sheet(tmp_path, header, *rows))
        assert refusal(check_own_pictures, seeing(BASE, SOURCE), sheet, path) == (
            "s.tsv, row 3 (example 'b'), source_image: is the base run's picture, and experiment "
            "seeing puts what one picture gives at vision.mlp into another's run; name another "
            "picture, or leave out that experiment"
        )
        text = fill_config({**SMALLEST, "experiments": {"t": {"receiver": BASE, "donor": SOURCE}}})
        check_own_pictures(text, sheet, path)


def test_a_corrupted_picture_is_another_at_the_sites_before_it_is_corrupted_only(
    tmp_path: Path,
) -> None:
    one = load_sheet(write_sheet(tmp_path, HEADER, "a\tx.png\tq\tr"))
    check_own_pictures(seeing("noisy", BASE, PICTURE_PIXELS), one, "s.tsv")
    behind = seeing("noisy", BASE, PICTURE_STATES)
    assert refusal(check_own_pictures, behind, one, "s.tsv") == (
        "experiments.seeing: picture.states lie behind vision.mlp, which they leave as it is; "
        "corrupt picture.pixels, or leave out the sites of vision"
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
        "num_attention_heads": TEXT_HEADS,
    }
    config = {"model_type": "blip", "architectures": ["BlipForQuestionAnswering"]}
    vision = {
        "num_hidden_layers": LAYERS["vision"],
        "num_attention_heads": VISION_HEADS,
        "image_size": 8 * SIDE,
        "patch_size": 8,
    }
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
    assert check_row(checkpoint, "what is the shirt\twhat is the color\treddish\tred shirt") == []
    assert check_row(checkpoint, "what is the shirt\twhat is the color\t" + "red " * 12) == []


@pytest.mark.parametrize(("tower", "number"), LAYERS.items())
def test_the_layers_are_the_checkpoints(checkpoint: Path, tower: str, number: int) -> None:
    check = check_against_checkpoint
    sheet = load_sheet(write_sheet(checkpoint.parent, HEADER, GOOD_ROW))
    config = fill_config({**SMALLEST, "model": {"name": "a/b", "layers": {**LAYERS, tower: 12}}})
    assert refusal(check, config, sheet, checkpoint, "config/examples.tsv") == (
        f"model.layers.{tower} is 12, but {checkpoint}/config.json has {number}; "
        f"set model.layers.{tower} to {number}"
    )


# Of the checkpoint below: 4 heads in the text towers, 2 in the vision tower; 3 × 3 patches.
TEXT_HEADS, VISION_HEADS, SIDE = 4, 2, 3


def check_experiment(checkpoint: Path, *sites: str, **asked: object) -> list[str]:
    given = {"receiver": BASE, "donor": SOURCE, "sites": list(sites), "regions": SIDE, **asked}
    return check_row(checkpoint, ROW_THAT_FITS, experiments={"some": given})


@pytest.mark.parametrize(
    ("site", "heads"),
    [
        ("encoder.self_attention_heads", TEXT_HEADS),
        ("decoder.cross_attention_heads", TEXT_HEADS),
        ("vision.self_attention_heads", VISION_HEADS),
    ],
)
def test_a_head_that_the_tower_does_not_have_is_named(
    checkpoint: Path, site: str, heads: int
) -> None:
    tower, _, _ = site.partition(".")
    assert check_experiment(checkpoint, site, heads=[heads - 1, 0]) == []
    assert refusal(lambda: check_experiment(checkpoint, site, heads=[0, heads])) == (
        f"experiments.some.heads[1]: {heads} is not a head of the {tower} tower, which has "
        f"{heads}, counted from 0; give at most {heads - 1}"
    )


def test_heads_count_in_towers_with_a_site_of_heads_alone(checkpoint: Path) -> None:
    sites = ("encoder.self_attention_heads", "vision.mlp")
    assert check_experiment(checkpoint, *sites, heads=[VISION_HEADS]) == []


def test_a_grid_of_more_regions_than_patches_is_named(checkpoint: Path) -> None:
    for regions in (0, 1, 2, SIDE):
        assert check_experiment(checkpoint, "vision.mlp", regions=regions) == []
    assert refusal(lambda: check_experiment(checkpoint, "vision.mlp", regions=SIDE + 1)) == (
        "experiments.some.regions: 4 is more than the 3 patches that a picture has across; give "
        "at most 3, or 0 for every patch"
    )
    assert check_experiment(checkpoint, "encoder.mlp", regions=SIDE + 1) == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "what is the shirt\twhat is the shirt\t" + "red " * 13,
            ", base_answer: has 13 tokens, the model answers 12 at most; "
            "give another, or none for the model's own",
        ),
        (
            "what is the shirt\twhat is the shirt\tred\tred okapi",
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
