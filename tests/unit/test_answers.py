"""Answers of several tokens are followed as wholes, from the sheet to the tables."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from answer_questions import CleanOutput, answer_shard
from checkpoints import random_blip, save_checkpoint, small_vocabulary
from intervene import Asked, CellsOutput, intervene_shard
from transformers import BlipForQuestionAnswering

from blip_tracing.engine.batch import Batch
from blip_tracing.engine.clean_runs import CleanFiles, CleanRuns, Null
from blip_tracing.given.checkpoint import Checkpoint
from blip_tracing.given.tokens import load_tokenizer, tokenize
from blip_tracing.machinery.tables import read_table
from blip_tracing.machinery.tensors import write_tensors
from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.models.loaded import Loaded
from blip_tracing.vocabulary.experiment import (
    BASE,
    BY_ROLE,
    EACH,
    PICTURE_ONLY,
    POSITIONS,
    SOURCE,
    TOGETHER,
    Experiment,
    Run,
)
from blip_tracing.vocabulary.metrics import METRICS
from blip_tracing.vocabulary.roles import DECODER_ROLES

LAYERS, WIDTH, STATES = 2, 48, 5
WORDS = small_vocabulary()
# Of one token, of two and of three; the model's own; and pairs that begin alike.
ANSWERS = {
    "one": ("red", "blue"),
    "two": ("red blue", "green"),
    "three": ("Red blue green", "red blue"),
    "own": ("", "brown red"),
}


def row_of(example: str) -> dict[str, str]:
    base, source = ANSWERS[example]
    return {
        "example": example, "image": "p", "base_question": "what is the animal",
        "source_question": "what is the shirt", "base_answer": base, "source_answer": source,
        "image_sha256": "",
    }  # fmt: skip


@pytest.fixture(scope="module")
def blip() -> BlipForQuestionAnswering:
    return random_blip(len(WORDS), hidden=WIDTH, layers=LAYERS)


@pytest.fixture(scope="module")
def loaded(blip: BlipForQuestionAnswering, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = save_checkpoint(tmp_path_factory.mktemp("checkpoint"), blip, WORDS)
    checkpoint = Checkpoint("m", "main", "", str(folder), LAYERS, "", {})
    return Loaded(checkpoint, blip, ResumableBlip(blip), "float32", "code")


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(STATES, WIDTH, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def files(
    loaded: Loaded, image: torch.Tensor, tmp_path_factory: pytest.TempPathFactory
) -> CleanFiles:
    """A shard whose questions are answered."""
    folder = tmp_path_factory.mktemp("clean")
    pictures, facts = str(folder / "images.safetensors"), str(folder / "images.json")
    write_tensors({"p": image}, pictures)
    loaded.vouch(facts, [pictures])
    names = {"baseline": "csv", "tokens": "csv", "runs": "parquet", "states": "safetensors"}
    paths = {name: str(folder / f"{name}.{suffix}") for name, suffix in names.items()}
    output = CleanOutput(**paths, facts=str(folder / "clean.json"))
    rows = [row_of(example) for example in ANSWERS]
    with torch.inference_mode():
        answer_shard(loaded, rows, [pictures], [facts], list(METRICS), output)
    return CleanFiles(
        [pictures], [output.states], [output.tokens], [output.runs], [facts, output.facts]
    )


def answered(blip: Any, image: torch.Tensor, question: list[int], answer: list[int]) -> float:
    """The probability of an answer: token after token, each after those before it."""
    with torch.inference_mode():
        states = blip.text_encoder(
            input_ids=torch.tensor([question]), encoder_hidden_states=image[None]
        ).last_hidden_state
        read, probability = [blip.decoder_start_token_id], 1.0
        for token in answer:
            logits = blip.text_decoder(
                input_ids=torch.tensor([read]), encoder_hidden_states=states
            ).logits[0, -1]
            probability *= float(logits.softmax(-1)[token])
            read.append(token)
    return probability


def followed(blip: Any, image: torch.Tensor, ids: dict[str, list[int]], example: str) -> Any:
    """The token ids of both answers: as the sheet has them, else the likeliest first token."""
    found = []
    for question, words in zip((BASE, SOURCE), ANSWERS[example], strict=True):
        if words:
            found.append([WORDS.index(word) for word in words.lower().split()])
        else:
            likelihood = [
                answered(blip, image, ids[question], [word]) for word in range(len(WORDS))
            ]
            found.append([max(range(len(WORDS)), key=likelihood.__getitem__)])
    return found


def test_every_run_scores_whole_answers(
    blip: Any, loaded: Loaded, image: torch.Tensor, files: CleanFiles
) -> None:
    tokenizer = load_tokenizer(loaded.checkpoint.directory)
    row = row_of("one")
    asked = {BASE: row["base_question"], SOURCE: row["source_question"], PICTURE_ONLY: ""}
    ids = {
        run: [token_id for _, token_id, _ in tokenize(tokenizer, text)]
        for run, text in asked.items()
    }
    runs = read_table(files.runs[0])
    assert len(runs) == 3 * len(ANSWERS)
    for found in runs.to_dict("records"):
        answers = followed(blip, image, ids, found["example"])
        for name, answer in zip((BASE, SOURCE), answers, strict=True):
            truth = answered(blip, image, ids[found["run"]], answer)
            assert found[f"p_{name}"] == pytest.approx(truth, abs=1e-6, rel=1e-4)


def rows_of(files: CleanFiles) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of the table `runs` by example and run."""
    rows: list[dict[str, Any]] = read_table(files.runs[0]).to_dict("records")  # type: ignore[assignment]
    return {(row["example"], row["run"]): row for row in rows}


def test_the_table_names_the_whole_answer_and_the_id_of_its_first_token(files: CleanFiles) -> None:
    runs = rows_of(files)
    for example, pair in ANSWERS.items():
        for run, words in zip((BASE, SOURCE), pair, strict=True):
            row = runs[example, run]
            if words:
                assert row["answer"] == words.lower()
            assert row["answer_id"] == WORDS.index(row["answer"].split()[0])
        assert runs[example, PICTURE_ONLY]["answer"] == runs[example, BASE]["answer"]


def test_a_batch_has_whole_answers_and_what_their_further_tokens_get(
    loaded: Loaded, files: CleanFiles
) -> None:
    """Examples whose answers differ in length are in batches of their own."""
    batches: list[Batch] = []

    def keep(batch: Batch) -> list[pd.DataFrame]:
        batches.append(batch)
        return [pd.DataFrame({"example": batch.examples})]

    with torch.inference_mode():
        CleanRuns(loaded.traced, files, [row_of(example) for example in ANSWERS]).measure(
            1, keep, ""
        )
    found = {example: batch for batch in batches for example in batch.examples}
    assert [batch.examples for batch in batches] == [[example] for example in ANSWERS]
    red, blue, green = (WORDS.index(word) for word in ("red", "blue", "green"))
    assert found["one"].answers.tolist() == [[[red], [blue]]]
    assert found["two"].answers.tolist() == [[[red, blue], [green, -1]]]
    assert found["three"].answers.tolist() == [[[red, blue, green], [red, blue, -1]]]
    runs = rows_of(files)
    assert found["one"].runs[BASE].rest is None
    for example in ("two", "three", "own"):
        for question in (BASE, SOURCE):
            outcome = found[example].runs[question].outcome
            scores = found[example].judge(["probability"]).score(outcome, outcome, "here")
            for answer in ("p_base", "p_source"):
                kept = runs[example, question][answer]
                assert float(scores.columns[answer]) == pytest.approx(kept, rel=1e-5)


@pytest.mark.parametrize("receiver", [BASE, SOURCE])
@pytest.mark.parametrize("positions", POSITIONS)
def test_cells_of_the_decoder_are_at_the_tokens_that_the_followed_answer_has(
    loaded: Loaded, files: CleanFiles, tmp_path: Path, receiver: str, positions: str
) -> None:
    """All but its last, which nothing reads, however long the other answer is."""
    donor = SOURCE if receiver == BASE else BASE
    sites = ("decoder.block_output", "decoder.cross_attention_heads")
    ends = Run(receiver, receiver), Run(donor, donor)
    asked = Experiment("x", *ends, sites, positions=positions)
    null = Null({}, {}, 1, 0, receiver, lambda own, *_: [""] * len(own))
    roles = {"decoder": DECODER_ROLES}
    job = Asked(asked, list(range(LAYERS)), None, ["probability", "kl"], "float32", roles)
    output = CellsOutput(*(str(tmp_path / name) for name in ("a.parquet", "b.parquet", "c.json")))
    with torch.inference_mode():
        rows = [row_of(example) for example in ANSWERS]
        intervene_shard(loaded, files, rows, null, job, output)
    cells, runs = read_table(output.table), rows_of(files)
    groups: Any = cells.groupby(["example", "site", "layer", "head"], dropna=False)
    for (example, site, _, head), found in groups:
        assert pd.isna(head) == (site == sites[0])
        read = runs[example, donor]["answer"].split()[:-1]
        named = {
            EACH: ["[DEC]", *read],
            BY_ROLE: ["[DEC]", " ".join(read)] if read else ["[DEC]"],
            TOGETHER: [" ".join(["[DEC]", *read])],
        }[positions]
        assert found["token"].tolist() == named
        # What is put in behind [DEC] leaves the first token's distribution as far off as it was.
        behind = found.loc[found["position"] > 0, "kl"]
        assert behind.nunique() <= 1 or behind.max() - behind.min() < 1e-5
        assert not behind.size or abs(behind.iloc[0] - found["kl"].iloc[0]) > 1e-5
