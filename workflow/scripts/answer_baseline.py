"""Answer a shard's base and source questions, with no intervention (the tutorial's first part).

Writes the top ten answer tokens, each question's answer and its probability, the questions'
tokens, the clean states from which every intervention resumes, and the clean logits, which the
interventions' controls must give again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from tokenizers import Tokenizer

from blip_tracing.engine import ImageMemory, ResumableBlip, score_answers
from blip_tracing.experiments import check_finite, run_question
from blip_tracing.files import check_files
from blip_tracing.logs import log_to
from blip_tracing.provenance import describe_job, write_facts
from blip_tracing.shards import ROLES, logits_of, open_model, states_of
from blip_tracing.tables import write_table
from blip_tracing.tensors import read_image, write_tensors
from blip_tracing.tokens import UNKNOWN, answer_token_id, load_tokenizer, token_name, tokenize

TOP = 10


@dataclass(frozen=True)
class Answered:
    """One question's clean run.

    tokens: one row a position; states: (L + 1, T, D); logits: (V,) of the first answer token.
    """

    role: str
    question: str
    tokens: pd.DataFrame
    states: torch.Tensor
    logits: torch.Tensor


def answer(
    model: ResumableBlip, memory: ImageMemory, tokenizer: Tokenizer, role: str, question: str
) -> Answered:
    """Run one question about one image."""
    tokens = list_tokens(tokenizer, question)
    states, logits = run_question(model, memory, tokens["token_id"].tolist())
    return Answered(role, question, tokens, states, logits)


def list_tokens(tokenizer: Tokenizer, question: str) -> pd.DataFrame:
    """The question's tokens, one row a position, with the word that each stands for."""
    table = pd.DataFrame(tokenize(tokenizer, question), columns=["token", "token_id", "word"])
    table.insert(0, "position", range(len(table)))
    return table.assign(unknown=table["token"] == UNKNOWN)


def rank_answers(tokenizer: Tokenizer, answered: Answered) -> pd.DataFrame:
    """The most likely first answer tokens, best first."""
    everything = torch.arange(len(answered.logits))
    probabilities, logits = score_answers(answered.logits, everything)
    best = logits.topk(min(TOP, len(logits))).indices.tolist()
    return pd.DataFrame(
        {
            "role": answered.role,
            "question": answered.question,
            "rank": range(1, len(best) + 1),
            "token": [token_name(tokenizer, token_id) for token_id in best],
            "token_id": best,
            "logit": logits[best].numpy(),
            "probability": probabilities[best].numpy(),
        }
    )


def score_pair(tokenizer: Tokenizer, pair: list[Answered], given: list[str]) -> pd.DataFrame:
    """How each of the two runs scores both answers: those of the sheet, else the model's own."""
    ids = [
        answer_token_id(tokenizer, word) if word else int(answered.logits.argmax())
        for answered, word in zip(pair, given, strict=True)
    ]
    logits = torch.stack([answered.logits for answered in pair])
    probability, logit = (scores.numpy() for scores in score_answers(logits, torch.tensor(ids)))
    return pd.DataFrame(
        {
            "role": [answered.role for answered in pair],
            "question": [answered.question for answered in pair],
            "answer": [token_name(tokenizer, token_id) for token_id in ids],
            "answer_id": ids,
            "p_base": probability[:, 0],
            "p_source": probability[:, 1],
            "logit_base": logit[:, 0],
            "logit_source": logit[:, 1],
        }
    )


def tables_of(
    tokenizer: Tokenizer, row: Mapping[str, str], pair: list[Answered]
) -> dict[str, pd.DataFrame]:
    """One row's part of the tables `baseline`, `answers` and `tokens`."""
    tables = {
        "baseline": pd.concat([rank_answers(tokenizer, answered) for answered in pair]),
        "answers": score_pair(tokenizer, pair, [row[f"{role}_answer"] for role in ROLES]),
        "tokens": pd.concat([put_first(answered.tokens, role=answered.role) for answered in pair]),
    }
    return {name: put_first(table, example=row["example"]) for name, table in tables.items()}


def put_first(table: pd.DataFrame, **column: str) -> pd.DataFrame:
    """The table with a column of one value in front."""
    ((name, value),) = column.items()
    table = table.copy()
    table.insert(0, name, value)
    return table


def main(snakemake: Any) -> None:
    """Answer each row of the shard and write its tables and states."""
    files, output, params = snakemake.input, snakemake.output, snakemake.params
    with log_to(snakemake.log[0]), open_model(snakemake) as loaded, torch.inference_mode():
        check_files(files.facts, files.images)
        tokenizer = load_tokenizer(loaded.checkpoint.directory)
        tables, tensors = [], {}
        for row in params.rows:
            image = read_image(files.images, row["image"], loaded.model.device)
            memory = loaded.model.read_images(image[None])
            pair = [
                answer(loaded.model, memory, tokenizer, role, row[f"{role}_question"])
                for role in ROLES
            ]
            for run in pair:
                check_finite(run.logits[None], [row["example"]], f"{run.role} question")
            tables.append(tables_of(tokenizer, row, pair))
            for run in pair:
                tensors[states_of(row["example"], run.role)] = run.states
                tensors[logits_of(row["example"], run.role)] = run.logits
        for name in ("baseline", "answers", "tokens"):
            write_table(pd.concat([part[name] for part in tables]), output[name])
        write_tensors(tensors, output.states)
        written = [output.baseline, output.answers, output.tokens, output.states]
        facts = describe_job(
            loaded.checkpoint, loaded.device_name, params.dtype, params.code, written
        )
        write_facts(facts, output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
