"""The miniature BLIP that ships: what it answers, how big it is, and that its scripts redraw it."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, BertTokenizer, BlipForQuestionAnswering
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from blip_tracing.vocabulary.regions import boxes_of

ROOT = Path(__file__).resolve().parents[2]
MINIATURE = ROOT / "resources" / "miniature"
CHECKPOINT = MINIATURE / "checkpoint"
sys.path.insert(0, str(MINIATURE))

import draw_examples  # noqa: E402
import scenes  # noqa: E402

# Training uses the streams of seed 0.
FRESH_SEED = 20_260_101


class Miniature:
    """The shipped checkpoint, loaded as the published one is."""

    def __init__(self) -> None:
        self.model = BlipForQuestionAnswering.from_pretrained(CHECKPOINT).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
        self.processor = BlipImageProcessorPil.from_pretrained(CHECKPOINT)

    @torch.no_grad()
    def answers(self, pictures: list[Image.Image], questions: list[str]) -> list[tuple[str, float]]:
        """Each question's first answer token and its probability; questions of equal length."""
        pixels = self.processor(pictures, return_tensors="pt")["pixel_values"]
        ids = self.tokenizer(questions, return_tensors="pt").input_ids
        image = self.model.vision_model(pixel_values=pixels).last_hidden_state
        encoded = self.model.text_encoder(
            input_ids=ids, encoder_hidden_states=image
        ).last_hidden_state
        start = torch.full((len(questions), 1), self.model.decoder_start_token_id)
        logits = self.model.text_decoder(input_ids=start, encoder_hidden_states=encoded).logits
        best = logits[:, 0].softmax(-1).max(-1)
        words = self.tokenizer.convert_ids_to_tokens(best.indices.tolist())
        return list(zip(words, best.values.tolist(), strict=True))


@pytest.fixture(scope="module")
def miniature() -> Miniature:
    return Miniature()


def examples() -> list[dict[str, str]]:
    with (ROOT / "config" / "examples.tsv").open(newline="", encoding="utf-8") as sheet:
        return list(csv.DictReader(sheet, delimiter="\t"))


@pytest.mark.parametrize("draw_size", [96, 384])
def test_colors_of_fresh_scenes(miniature: Miniature, draw_size: int) -> None:
    rng = np.random.default_rng(FRESH_SEED + draw_size)
    pictures, asked = [], []
    for _ in range(300 if draw_size == 96 else 100):
        scene = scenes.random_scene(rng)
        colors = [q for q in scenes.questions_about(scene) if q.kind == "color"]
        pictures += [scenes.draw_scene(scene, draw_size)] * len(colors)
        asked += colors
    found = miniature.answers(pictures, [question.text for question in asked])
    hits = [word == q.answer for (word, _), q in zip(found, asked, strict=True)]
    assert np.mean(hits) >= 0.97


def test_checkpoint_is_small() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= 5 * 1024 * 1024


def test_question_is_nine_tokens() -> None:
    for tokenizer in (
        AutoTokenizer.from_pretrained(CHECKPOINT),
        BertTokenizer.from_pretrained(CHECKPOINT),
    ):
        ids = tokenizer("what is the color of the animal").input_ids
        words = ["[CLS]", "what", "is", "the", "color", "of", "the", "animal", "[SEP]"]
        assert tokenizer.convert_ids_to_tokens(ids) == words


def test_every_word_of_every_scene_is_known() -> None:
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    rng = np.random.default_rng(FRESH_SEED)
    for layout in scenes.LAYOUTS:
        for _ in range(50):
            for question in scenes.questions_about(scenes.random_scene(rng, layout)):
                ids = tokenizer(f"{question.text} {question.answer}").input_ids
                assert tokenizer.unk_token_id not in ids
                assert len(ids) == len(question.text.split()) + 3


def test_default_sheet_is_answered(miniature: Miniature) -> None:
    for row in examples():
        truth = {
            question.text: question.answer
            for question in scenes.questions_about(draw_examples.EXAMPLES[row["example"]])
        }
        with Image.open(ROOT / row["image"]) as picture:
            for column in ("base_question", "source_question"):
                [(answer, probability)] = miniature.answers([picture], [row[column]])
                assert answer == truth[row[column]], (row["example"], column)
                assert probability > 0.9, (row["example"], column)


def test_sheet_of_pictures_is_what_is_drawn_and_is_answered(miniature: Miniature) -> None:
    """A row's two pictures differ in one thing, and in the answer to its one question."""
    sheet = ROOT / "config" / "pictures.tsv"
    with sheet.open(encoding="utf-8") as file:
        header, *written = csv.reader(file, delimiter="\t")
    assert tuple(header) == draw_examples.COLUMNS
    rows = list(map(tuple, written))
    assert rows == draw_examples.sheet_rows("resources/miniature/images")
    assert len({row[1] for row in rows}) == len({row[2] for row in rows}) == len(rows)
    for name, base, source, question, again, *_ in rows:
        assert question == again
        exchange = draw_examples.EXCHANGES[name]
        answers = []
        for path, scene in ((base, draw_examples.EXAMPLES[exchange.example]),
                            (source, exchange.scene)):  # fmt: skip
            truth = {asked.text: asked.answer for asked in scenes.questions_about(scene)}
            with Image.open(ROOT / path) as picture:
                [(answer, probability)] = miniature.answers([picture], [question])
            assert answer == truth[question], (name, path)
            assert probability > 0.9, (name, path)
            answers.append(answer)
        assert answers[0] != answers[1]


def test_pictures_differ_in_the_box_of_the_thing_alone() -> None:
    """But for a soft edge of its shadow, and the last bow of a kite's tail."""
    side = draw_examples.SIZE
    margin = side / 50
    for name, exchange in draw_examples.EXCHANGES.items():
        left, top, right, bottom = boxes_of(exchange.boxes)["thing"]
        pair = [
            np.asarray(scenes.draw_scene(scene, side), dtype=int)
            for scene in (draw_examples.EXAMPLES[exchange.example], exchange.scene)
        ]
        rows, columns = np.nonzero(np.abs(pair[0] - pair[1]).max(axis=-1) > 30)
        assert left * side - margin <= columns.min() <= columns.max() <= right * side + margin, name
        assert top * side - margin <= rows.min() <= rows.max() <= bottom * side + margin, name


def test_default_sheet_asks_four_of_each_kind() -> None:
    """Twelve, since the family-wise test finds little with fewer."""
    kinds = []
    for row in examples():
        asked = scenes.questions_about(draw_examples.EXAMPLES[row["example"]])
        kind = {question.text: question.kind for question in asked}
        assert kind[row["base_question"]] == kind[row["source_question"]], row["example"]
        kinds.append(kind[row["base_question"]])
    assert Counter(kinds) == {"color": 4, "thing": 4, "place": 4}
    names = [row["example"] for row in examples()]
    assert names == list(draw_examples.EXAMPLES)
    assert names[:4] == ["animal_shirt", "ball_kite", "hat_box", "shirt_hat"]
    assert len({row["base_question"] for row in examples()}) == len(names)


def test_pictures_of_the_default_sheet_are_small() -> None:
    for path in (MINIATURE / "images").glob("*.png"):
        assert path.stat().st_size < 32 * 1024, path.name


def test_paired_questions_have_equal_lengths() -> None:
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    for row in examples():
        asked = (row["base_question"], row["source_question"])
        lengths = {len(tokenizer(question).input_ids) for question in asked}
        assert len(lengths) == 1, row["example"]


def test_generate_stops_after_the_answer(miniature: Miniature) -> None:
    with Image.open(MINIATURE / "images" / "animal_shirt.png") as picture:
        pixels = miniature.processor(picture, return_tensors="pt")["pixel_values"]
    asked = miniature.tokenizer("what is the color of the animal", return_tensors="pt")
    written = miniature.model.generate(
        input_ids=asked.input_ids, pixel_values=pixels, max_new_tokens=5
    )
    assert miniature.tokenizer.decode(written[0], skip_special_tokens=True) == "brown"


def test_examples_are_redrawn_to_the_pixel() -> None:
    shipped = {path.stem for path in (MINIATURE / "images").glob("*.png")}
    assert shipped == set(draw_examples.SCENES)
    for name, scene in draw_examples.SCENES.items():
        drawn = np.asarray(scenes.draw_scene(scene, draw_examples.SIZE))
        with Image.open(MINIATURE / "images" / f"{name}.png") as picture:
            assert np.array_equal(drawn, np.asarray(picture)), name


def test_same_generator_gives_the_same_scenes() -> None:
    first, second = (scenes.random_scene(np.random.default_rng(7)) for _ in range(2))
    assert first == second
    assert len({placed.thing for placed in first.things}) == 2
    assert len({placed.color for placed in first.things}) == 2


def test_nothing_is_cut() -> None:
    rng = np.random.default_rng(FRESH_SEED)
    for layout in scenes.LAYOUTS:
        for _ in range(200):
            for placed in scenes.random_scene(rng, layout).things:
                for middle in (placed.x, placed.y):
                    assert placed.scale <= middle <= 1 - placed.scale


def test_unknown_backdrop_is_refused() -> None:
    backdrop = scenes.Backdrop("sea", (0, 0, 0), (0, 0, 0), 0.5, 0.0)
    with pytest.raises(ValueError, match="unknown backdrop 'sea'"):
        scenes.draw_scene(scenes.Scene(backdrop, ()), 24)
