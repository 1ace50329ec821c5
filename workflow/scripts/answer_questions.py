"""Answer a shard's base and source questions, with no intervention (the tutorial's first part).

Writes the top ten answer tokens, how both runs, and one of the picture alone, score both answers,
the questions' tokens, and the clean states and logits from which every intervention resumes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from tokenizers import Tokenizer

from blip_tracing.engine.clean_runs import logits_of, states_of
from blip_tracing.engine.scores import Judge, check_finite
from blip_tracing.given.tokens import UNKNOWN, answer_token_id, load_tokenizer, token_name, tokenize
from blip_tracing.machinery.files import check_files
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import write_table
from blip_tracing.machinery.tensors import read_image, write_tensors
from blip_tracing.models.family import Pictures, TracedModel
from blip_tracing.models.loaded import Loaded, open_model
from blip_tracing.vocabulary.experiment import PICTURE_ONLY, QUESTIONS

TOP = 10


@dataclass(frozen=True)
class CleanOutput:
    """Where a shard's clean runs are written."""

    baseline: str
    tokens: str
    runs: str
    states: str
    facts: str


@dataclass(frozen=True)
class Answered:
    """One question's clean run.

    question: base, source or picture_only; text: its words; tokens: one row a position; states:
    (L + 1, T, D); logits: (V,) of the first answer token.
    """

    question: str
    text: str
    tokens: pd.DataFrame
    states: torch.Tensor
    logits: torch.Tensor


def answer(
    model: TracedModel, pictures: Pictures, tokenizer: Tokenizer, question: str, text: str
) -> Answered:
    """Run one question about one picture."""
    tokens = list_tokens(tokenizer, text)
    inputs = model.embed(torch.tensor([tokens["token_id"].tolist()]))
    run = model.run(inputs[:, None], pictures)
    assert run.logits is not None
    return Answered(question, text, tokens, run.stream[:, 0, 0], run.logits[0, 0])


def list_tokens(tokenizer: Tokenizer, text: str) -> pd.DataFrame:
    """The question's tokens, one row a position, with the word that each stands for."""
    table = pd.DataFrame(tokenize(tokenizer, text), columns=["token", "token_id", "word"])
    table.insert(0, "position", range(len(table)))
    return table.assign(unknown=table["token"] == UNKNOWN)


def rank_answers(tokenizer: Tokenizer, answered: Answered) -> pd.DataFrame:
    """The most likely first answer tokens, best first."""
    logits = answered.logits.float().cpu()
    best = logits.topk(min(TOP, len(logits))).indices
    return pd.DataFrame(
        {
            "question": answered.question,
            "text": answered.text,
            "rank": range(1, len(best) + 1),
            "token": [token_name(tokenizer, token_id) for token_id in best.tolist()],
            "token_id": best,
            "logit": logits[best].numpy(),
            "probability": (logits[best] - logits.logsumexp(-1)).exp().numpy(),
        }
    )


def score_runs(
    tokenizer: Tokenizer,
    pair: Sequence[Answered],
    alone: Answered,
    given: Sequence[str],
    metrics: Sequence[str],
) -> pd.DataFrame:
    """How the runs of the pair, and of the picture alone, score both answers.

    The answers are those of the sheet, else the model's own to the pair's questions. The picture
    alone, whose scores are to be held against a base question's, has that one's beside them.
    """
    ids = [
        answer_token_id(tokenizer, word) if word else int(answered.logits.argmax())
        for answered, word in zip(pair, given, strict=True)
    ]
    base, source = (answered.logits for answered in pair)
    judge = Judge(metrics, torch.tensor([ids]), [""])
    logits = torch.stack([base, source, alone.logits])[None]
    scores = judge.score(logits, torch.stack([base, source, base])[None], "clean runs")
    ids = [*ids, ids[0]]
    return pd.DataFrame(
        {
            "run": [answered.question for answered in (*pair, alone)],
            "question": [*(answered.question for answered in pair), ""],
            "text": [answered.text for answered in (*pair, alone)],
            "answer": [token_name(tokenizer, token_id) for token_id in ids],
            "answer_id": ids,
            **{name: values[0].numpy() for name, values in scores.columns.items()},
        }
    )


def tables_of(
    tokenizer: Tokenizer,
    row: Mapping[str, str],
    pair: Sequence[Answered],
    alone: Answered,
    metrics: Sequence[str],
) -> dict[str, pd.DataFrame]:
    """One row's part of the tables `baseline`, `runs` and `tokens`."""
    given = [row[f"{question}_answer"] for question in QUESTIONS]
    tables = {
        "baseline": pd.concat([rank_answers(tokenizer, answered) for answered in pair]),
        "runs": score_runs(tokenizer, pair, alone, given, metrics),
        "tokens": pd.concat(
            [put_first(answered.tokens, question=answered.question) for answered in pair]
        ),
    }
    return {name: put_first(table, example=row["example"]) for name, table in tables.items()}


def put_first(table: pd.DataFrame, **column: str) -> pd.DataFrame:
    """The table with a column of one value in front."""
    ((name, value),) = column.items()
    table = table.copy()
    table.insert(0, name, value)
    return table


def answer_shard(
    loaded: Loaded,
    rows: Sequence[Mapping[str, str]],
    images: Sequence[str],
    facts: Sequence[str],
    metrics: Sequence[str],
    output: CleanOutput,
) -> None:
    """Answer each row's questions; write its tables and states, and their facts.

    images: the files of the pictures' states; facts: what vouches for them.
    """
    check_files(facts, images)
    tokenizer = load_tokenizer(loaded.checkpoint.directory)
    tables, tensors = [], {}
    for row in rows:
        image = read_image(images, row["image"], loaded.traced.device)
        pictures = loaded.traced.read_pictures(image[None])
        pair = [
            answer(loaded.traced, pictures, tokenizer, question, row[f"{question}_question"])
            for question in QUESTIONS
        ]
        alone = answer(loaded.traced, pictures, tokenizer, PICTURE_ONLY, "")
        for answered in (*pair, alone):
            check_finite(answered.logits[None], [row["example"]], f"{answered.question} question")
        for answered in pair:
            tensors[states_of(row["example"], answered.question)] = answered.states
            tensors[logits_of(row["example"], answered.question)] = answered.logits
        tables.append(tables_of(tokenizer, row, pair, alone, metrics))
    paths = {"baseline": output.baseline, "runs": output.runs, "tokens": output.tokens}
    for name, path in paths.items():
        write_table(pd.concat([part[name] for part in tables], ignore_index=True), path)
    write_tensors(tensors, output.states)
    loaded.vouch(output.facts, [*paths.values(), output.states])


def main(snakemake: Any) -> None:
    """Run as the script of the rule `answer_questions`."""
    files, params = snakemake.input, snakemake.params
    output = CleanOutput(**snakemake.output)
    with (
        log_to(snakemake.log[0]),
        open_model(files.facts, **params.model, **params.place) as loaded,
        torch.inference_mode(),
    ):
        answer_shard(loaded, params.rows, files.images, files.facts, params.metrics, output)


if "snakemake" in globals():
    main(globals()["snakemake"])
