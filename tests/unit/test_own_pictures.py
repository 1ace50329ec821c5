"""Runs of pictures of their own, from the sheet to the cells, against the unmodified model."""

from pathlib import Path
from typing import Any

import numpy as np
import oracle
import oracle_vision
import pandas as pd
import pytest
import torch
from answer_questions import CleanOutput, answer_shard
from checkpoints import random_blip, save_checkpoint, small_vocabulary
from encode_images import encode_shard
from intervene import Asked, CellsOutput, intervene_shard, null_of, role_orders
from PIL import Image
from safetensors import safe_open

from blip_tracing.engine.clean_runs import CleanFiles, logits_of
from blip_tracing.given.checkpoint import Checkpoint
from blip_tracing.given.pictures import open_picture, picture_of
from blip_tracing.given.plan import CLEAN_FILES, Plan
from blip_tracing.given.settings import fill_config
from blip_tracing.machinery.tables import read_table
from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.models.load import process_pictures
from blip_tracing.models.loaded import Loaded
from blip_tracing.vocabulary.experiment import BASE, SOURCE
from blip_tracing.vocabulary.regions import region_patches
from blip_tracing.vocabulary.tables import ALL_CONTRIBUTIONS, ALL_HEADS, CEILING, NO_OP, UNRELATED

LAYERS, SIDE, REGIONS = {"encoder": 3, "decoder": 3, "vision": 2}, 3, 2
SEEN = ["vision.block_input", "vision.self_attention_heads", "vision.mlp"]
READ = ["encoder.block_input", "encoder.cross_attention"]
NAMES = ("a", "b", "c", "d", "e")
# The same question about two pictures; two questions about two; two about one.
ROWS = [
    ("cat", "a", "b", "what is the color of the animal", "what is the color of the animal"),
    ("dog", "c", "d", "what color is the shirt", "what color is the animal"),
    ("owl", "e", "", "where is the red shirt", "where is the brown shirt"),
]


@pytest.fixture(scope="module")
def blip() -> Any:
    """In float64, where rounding hides nothing; it answers with words alone."""
    blip = random_blip(
        len(small_vocabulary()), layers=3, num_hidden_layers=2, num_attention_heads=3
    ).double()
    with torch.no_grad():
        blip.text_decoder.cls.predictions.decoder.bias[[*range(5), -2, -1]] = -100
    return blip


class Done:
    """The jobs of a plan of one shard, done in a folder."""

    def __init__(self, folder: Path, blip: Any) -> None:
        checkpoint = str(save_checkpoint(folder / "model", blip, small_vocabulary()))
        for number, name in enumerate(NAMES):
            noise = np.random.default_rng(number).integers(0, 255, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / f"{name}.png")
        self.rows = [self.row(folder, *row) for row in ROWS]
        config = fill_config(
            {
                "model": {"name": checkpoint, "layers": LAYERS},
                "examples": "sheet.tsv",
                "device": "cpu",
                "experiments": {
                    "seeing": {
                        "receiver": BASE, "donor": SOURCE, "sites": SEEN, "regions": REGIONS,
                    },
                    "reading": {"receiver": BASE, "donor": SOURCE, "sites": READ},
                },
            }
        )  # fmt: skip
        self.plan, self.folder, self.blip = Plan(config, self.rows), folder, blip
        traced = ResumableBlip(blip)
        facts = Checkpoint("m", "main", "", checkpoint, 3, "", {})
        self.loaded = Loaded(facts, blip, traced, "float64", "code")
        self.images, self.image_facts = str(folder / "images"), str(folder / "images.json")
        shown = dict.fromkeys(self.plan.picture_shards["0000"], "")
        encode_shard(self.loaded, shown, self.plan.keeps_pixels, self.images, self.image_facts)
        self.clean = {
            name: str(folder / path.format(shard=name).replace("/", "-"))
            for name, path in CLEAN_FILES.items()
        }
        with torch.inference_mode():
            answer_shard(
                self.loaded, self.plan.shards["0000"], [self.images], [self.image_facts],
                ["probability"], CleanOutput(**self.clean),
            )  # fmt: skip
        pixels = process_pictures(blip, checkpoint, map(open_picture, shown))
        self.pixels = {name: seen[None] for name, seen in zip(shown, pixels, strict=True)}
        tokens = read_table(self.clean["tokens"])
        self.ids = tokens.groupby(["example", "question"])["token_id"].agg(list)

    @staticmethod
    def row(
        folder: Path, example: str, image: str, source_image: str, base: str, source: str
    ) -> dict[str, str]:
        given = dict.fromkeys(("base_answer", "source_answer", "image_sha256", "boxes"), "")
        paths = [f"{folder / name}.png" if name else "" for name in (image, source_image)]
        return {"example": example, "image": paths[0], "source_image": paths[1],
                "base_question": base, "source_question": source, **given}  # fmt: skip

    def seen(self, row: dict[str, str], question: str) -> torch.Tensor:
        """The pixels (1, 3, h, w) of a run."""
        return self.pixels[picture_of(row, question)]

    def image(self, row: dict[str, str], question: str) -> torch.Tensor:
        """The vision tower's last states (1, S, D) of a run."""
        return oracle.image_states(self.blip, self.seen(row, question))

    def logits(self, row: dict[str, str], question: str) -> torch.Tensor:
        """What the unmodified model answers in a run."""
        return oracle.answer_logits(
            self.blip, self.ids[row["example"], question], self.image(row, question)
        )

    def probabilities(self, row: dict[str, str], logits: torch.Tensor) -> list[float]:
        """Of what the model answers in the base run, and in the source run."""
        answers = [int(self.logits(row, question).argmax()) for question in (BASE, SOURCE)]
        return logits.softmax(-1)[answers].tolist()

    def measured(self, name: str, rows: list[dict[str, str]]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The cells and controls of an experiment on some rows."""
        output = CellsOutput(*(str(self.folder / f"{name}-{part}") for part in ("t", "c", "f")))
        experiment, null = self.plan.experiments[name], self.plan.null_of("0000")
        tower = experiment.sites[0].split(".")[0]
        layers = list(range(LAYERS[tower]))
        asked = Asked(experiment, layers, None, ["probability"], "float64", role_orders(null))
        clean = CleanFiles(
            [self.images], [self.clean["states"]], [self.clean["tokens"]], [self.clean["runs"]],
            [self.image_facts, self.clean["facts"]],
        )  # fmt: skip
        pictures = self.plan.null_pictures(name, "0000")
        with torch.inference_mode():
            chosen = null_of(null, pictures, experiment)
            intervene_shard(self.loaded, clean, rows, chosen, asked, output)
        return read_table(output.table), read_table(output.controls)


@pytest.fixture(scope="module")
def done(blip: Any, tmp_path_factory: pytest.TempPathFactory) -> Done:
    return Done(tmp_path_factory.mktemp("own_pictures"), blip)


def each(table: pd.DataFrame) -> Any:
    """The rows of a table, of no type that is checked."""
    return table.itertuples()


def agree(row: Any, expected: list[float]) -> None:
    assert [row.p_base, row.p_source] == pytest.approx(expected, abs=1e-6)  # tables are float32


def test_a_runs_answer_is_to_its_own_picture(done: Done) -> None:
    runs = read_table(done.clean["runs"]).set_index(["example", "run"])
    with safe_open(done.clean["states"], "pt") as file:
        for row in done.rows:
            for question in (BASE, SOURCE):
                truth = done.logits(row, question)
                kept = file.get_tensor(logits_of(row["example"], question))
                torch.testing.assert_close(kept, truth, atol=1e-9, rtol=0)
                agree(runs.loc[(row["example"], question)], done.probabilities(row, truth))
    # The test could not fail where pictures hardly matter.
    cat = done.rows[0]
    moved = done.logits(cat, BASE).softmax(-1) - done.logits(cat, SOURCE).softmax(-1)
    assert moved.abs().max() > 0.05


def test_every_cell_at_a_site_of_vision_agrees_and_so_does_the_null(done: Done) -> None:
    rows = {row["example"]: row for row in done.rows[:2]}
    cells, controls = done.measured("seeing", list(rows.values()))
    patches = region_patches(SIDE, REGIONS)
    heads = {"vision.self_attention_heads": 3}
    assert len(cells) == 2 * LAYERS["vision"] * len(patches) * (3 + 1 + 1)

    def truth(cell: Any, donor: torch.Tensor) -> list[float]:
        row = rows[cell.example]
        states = oracle_vision.site_states(done.blip, donor, cell.site, int(cell.layer))
        part = slice(None)
        if cell.site in heads:
            part = slice(16 * int(cell.head), 16 * int(cell.head) + 16)
        image = oracle_vision.patched_image(
            done.blip, done.seen(row, BASE), {(cell.site, int(cell.layer)): states},
            patches[int(cell.position)], part,
        )  # fmt: skip
        logits = oracle.answer_logits(done.blip, done.ids[cell.example, BASE], image)
        return done.probabilities(row, logits)

    for cell in each(cells):
        agree(cell, truth(cell, done.seen(rows[cell.example], SOURCE)))
    nulls = controls[controls["control"] == UNRELATED]
    assert len(nulls) >= len(cells)
    donors = {row["example"]: row for row in done.rows}
    for cell in each(nulls):
        agree(cell, truth(cell, done.seen(donors[cell.donor], BASE)))
    known = controls[controls["control"] != UNRELATED]
    assert set(known["control"]) == {NO_OP, CEILING, ALL_HEADS, ALL_CONTRIBUTIONS}
    assert (known["difference"] <= 1e-9).all()
    # The same question of two pictures: what the donor's picture gives, is the donor's run.
    assert set(known.loc[known["control"] == CEILING, "example"]) == {"cat"}


def test_at_a_site_of_text_the_receiver_keeps_its_own_picture(done: Done) -> None:
    """Of rows that share a picture and rows that do not, in one shard."""
    rows = {row["example"]: row for row in done.rows}
    cells, controls = done.measured("reading", list(rows.values()))
    for cell in each(cells):
        row, layer = rows[cell.example], int(cell.layer)
        base, source = done.ids[cell.example, BASE], done.ids[cell.example, SOURCE]
        states = oracle.site_states(done.blip, source, done.image(row, SOURCE), cell.site, layer)
        logits = oracle.patched_logits(
            done.blip, base, done.image(row, BASE), cell.site, layer, cell.position,
            states[cell.position],
        )  # fmt: skip
        agree(cell, done.probabilities(row, logits))
    ceilings = controls[controls["control"] == CEILING]
    # Behind an earlier block those that follow still read the receiver's own picture.
    assert set(ceilings["example"]) == {"owl"}


def test_pixels_are_kept_where_a_run_begins_with_them_and_only_there(done: Done) -> None:
    images = done.plan.picture_shards["0000"]
    with safe_open(done.images, "pt") as file:
        assert set(file.keys()) == {*images, *(f"{image}/pixels" for image in images)}
        for image in images:
            assert torch.equal(file.get_tensor(f"{image}/pixels"), done.pixels[image][0])
            states = oracle.image_states(done.blip, done.pixels[image])[0]
            assert torch.equal(file.get_tensor(image), states)
    config = done.plan.config
    reading = {"reading": config["experiments"]["reading"]}
    assert not Plan({**config, "experiments": reading}, done.rows).keeps_pixels
    path = str(done.folder / "without")
    encode_shard(done.loaded, {images[0]: ""}, False, path, str(done.folder / "without.json"))
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == [images[0]]
