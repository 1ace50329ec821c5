"""Answer a shard's base and source questions, with no intervention (the tutorial's first part).

Writes the top ten answer tokens, each question's answer and its probability, the questions'
tokens, and the clean states from which every intervention resumes.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from tokenizers import Tokenizer

from blip_tracing.engine import ResumableBlip, score_answers
from blip_tracing.experiments import run_question
from blip_tracing.logs import log_to
from blip_tracing.provenance import describe_job, write_facts
from blip_tracing.shards import ROLES, open_model
from blip_tracing.tables import write_table
from blip_tracing.tensors import read_image, write_tensors
from blip_tracing.tokens import UNKNOWN, answer_token_id, load_tokenizer, tokenize

TOP = 10


def rank_answers(tokenizer: Tokenizer, logits: torch.Tensor) -> pd.DataFrame:
    """The most likely first answer tokens from logits (V,), best first."""
    probabilities, logits = score_answers(logits, torch.arange(len(logits)))
    best = logits.topk(min(TOP, len(logits))).indices.tolist()
    return pd.DataFrame(
        {
            "rank": range(1, len(best) + 1),
            "token": [tokenizer.id_to_token(token_id) for token_id in best],
            "token_id": best,
            "logit": logits[best].numpy(),
            "probability": probabilities[best].numpy(),
        }
    )


def list_tokens(tokenizer: Tokenizer, question: str) -> pd.DataFrame:
    """The question's tokens, one row a position, with the word that each stands for."""
    table = pd.DataFrame(tokenize(tokenizer, question), columns=["token", "token_id", "word"])
    table.insert(0, "position", range(len(table)))
    return table.assign(unknown=table["token"] == UNKNOWN)


def answer_id(tokenizer: Tokenizer, given: str, logits: torch.Tensor) -> int:
    """The id of the sheet's answer or, where it gives none, of the model's own."""
    return answer_token_id(tokenizer, given) if given else int(logits.argmax())


def answer_row(
    model: ResumableBlip, tokenizer: Tokenizer, row: Mapping[str, str], image: torch.Tensor
) -> tuple[dict[str, pd.DataFrame], dict[str, torch.Tensor]]:
    """Answer both questions of one row about the picture's states (S, D).

    Returns the tables `baseline`, `answers` and `tokens`, and states (L + 1, T, D) a role.
    """
    memory = model.read_images(image[None])
    tokens = {role: list_tokens(tokenizer, row[f"{role}_question"]) for role in ROLES}
    runs = {role: run_question(model, memory, tokens[role]["token_id"].tolist()) for role in ROLES}
    logits = torch.stack([runs[role][1] for role in ROLES])
    ids = [
        answer_id(tokenizer, row[f"{role}_answer"], role_logits)
        for role, role_logits in zip(ROLES, logits, strict=True)
    ]
    probability, logit = (scores.numpy() for scores in score_answers(logits, torch.tensor(ids)))
    answers = pd.DataFrame(
        {
            "role": ROLES,
            "question": [row[f"{role}_question"] for role in ROLES],
            "answer": [tokenizer.id_to_token(token_id) for token_id in ids],
            "answer_id": ids,
            "p_base": probability[:, 0],
            "p_source": probability[:, 1],
            "logit_base": logit[:, 0],
            "logit_source": logit[:, 1],
        }
    )
    ranks = [
        rank_answers(tokenizer, runs[role][1]).assign(role=role, question=row[f"{role}_question"])
        for role in ROLES
    ]
    listed = [tokens[role].assign(role=role) for role in ROLES]
    tables = {
        "baseline": put_first(pd.concat(ranks), row["example"], ["role", "question"]),
        "answers": put_first(answers, row["example"], ["role"]),
        "tokens": put_first(pd.concat(listed), row["example"], ["role"]),
    }
    return tables, {role: runs[role][0] for role in ROLES}


def put_first(table: pd.DataFrame, example: str, columns: list[str]) -> pd.DataFrame:
    """The table with `example` and then `columns` in front."""
    table = table.assign(example=example)
    return table[
        ["example", *columns, *table.columns.difference(["example", *columns], sort=False)]
    ]


def main(snakemake: Any) -> None:
    """Answer each row of the shard and write its tables and states."""
    files, params = snakemake.input, snakemake.params
    with log_to(snakemake.log[0]), open_model(snakemake) as loaded, torch.inference_mode():
        tokenizer = load_tokenizer(loaded.checkpoint.directory)
        tables, states = [], {}
        for row in params.rows:
            image = read_image(files.images, row["image"], loaded.model.device)
            answered, runs = answer_row(loaded.model, tokenizer, row, image)
            tables.append(answered)
            states.update({f"{row['example']}/{role}": runs[role] for role in ROLES})
        for name in ("baseline", "answers", "tokens"):
            write_table(pd.concat([answered[name] for answered in tables]), snakemake.output[name])
        write_tensors(states, snakemake.output.states)
        facts = describe_job(loaded.checkpoint, loaded.device_name, params.dtype, params.code)
        write_facts(facts, snakemake.output.facts)


if "snakemake" in globals():
    main(globals()["snakemake"])
