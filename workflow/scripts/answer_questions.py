"""Answer a shard's base and source questions, with no intervention (the tutorial's first part).

Writes the top ten answer tokens, how both runs, and one of the picture alone, score both answers,
the questions' tokens, and the clean states and logits from which every intervention resumes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from tokenizers import Tokenizer

from blip_tracing.engine.clean_runs import answer_of, logits_of, padded, states_of
from blip_tracing.engine.scores import Judge, check_finite
from blip_tracing.given.pictures import picture_of, pictures_of
from blip_tracing.given.tokens import (
    UNKNOWN,
    answer_name,
    answer_token_ids,
    load_tokenizer,
    token_name,
    tokenize,
)
from blip_tracing.machinery.files import check_files
from blip_tracing.machinery.logs import log_to
from blip_tracing.machinery.tables import write_table
from blip_tracing.machinery.tensors import read_image, write_tensors
from blip_tracing.models.family import Outcome, Pictures, RunStates, TracedModel
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

    question: base, source or picture_only; text: its words; tokens: one row a position; run: of one
    example and variant.
    """

    question: str
    text: str
    tokens: pd.DataFrame
    run: RunStates

    @property
    def states(self) -> torch.Tensor:
        """Between the blocks of the question encoder: (L + 1, T, D)."""
        return self.run.stream[:, 0, 0]

    @property
    def logits(self) -> torch.Tensor:
        """Of the first answer token: (V,)."""
        return self.run.outcome.logits[0, 0]


def answer(
    model: TracedModel, pictures: Pictures, tokenizer: Tokenizer, question: str, text: str
) -> Answered:
    """Run one question about one picture."""
    tokens = list_tokens(tokenizer, text)
    inputs = model.embed(torch.tensor([tokens["token_id"].tolist()]))
    return Answered(question, text, tokens, model.run(inputs[:, None], pictures))


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


def follow(tokenizer: Tokenizer, pair: Sequence[Answered], given: Sequence[str]) -> list[list[int]]:
    """The token ids of the answers that are followed: the sheet's, else the model's own first."""
    return [
        answer_token_ids(tokenizer, words) if words else [int(answered.logits.argmax())]
        for answered, words in zip(pair, given, strict=True)
    ]


def whole_answers(model: TracedModel, runs: Sequence[Answered], answers: torch.Tensor) -> Outcome:
    """What runs of one example answer, with what the further tokens of answers (1, K, A) get.

    logits: (1, runs, V).
    """
    found = []
    for answered in runs:
        run = replace(answered.run, answers=answers)
        found.append(model.answer(run) if run.whole_answers else run.outcome)
    rest = [outcome.rest for outcome in found if outcome.rest is not None]
    return Outcome(
        torch.cat([outcome.logits for outcome in found], dim=1),
        torch.cat(rest, dim=1) if rest else None,
    )


def score_runs(
    model: TracedModel,
    tokenizer: Tokenizer,
    runs: Sequence[Answered],
    followed: Sequence[Sequence[int]],
    metrics: Sequence[str],
) -> pd.DataFrame:
    """How the runs of the pair, and of the picture alone, score the answers that are followed.

    The picture alone, whose scores are to be held against a base question's, has that one's beside
    them.
    """
    answers = padded(followed)[None]
    found = whole_answers(model, runs, answers)
    target = found.each(lambda part: part[:, [0, 1, 0]])
    scores = Judge(metrics, answers, [""]).score(found, target, "clean runs")
    beside = [*followed, followed[0]]
    return pd.DataFrame(
        {
            "run": [answered.question for answered in runs],
            "question": [*(answered.question for answered in runs[:2]), ""],
            "text": [answered.text for answered in runs],
            "answer": [answer_name(tokenizer, ids) for ids in beside],
            "answer_id": [ids[0] for ids in beside],
            **{name: values[0].numpy() for name, values in scores.columns.items()},
        }
    )


def tables_of(
    model: TracedModel,
    tokenizer: Tokenizer,
    row: Mapping[str, str],
    runs: Sequence[Answered],
    followed: Sequence[Sequence[int]],
    metrics: Sequence[str],
) -> dict[str, pd.DataFrame]:
    """One row's part of the tables `baseline`, `runs` and `tokens`; runs: of the pair, and more."""
    pair = runs[:2]
    tables = {
        "baseline": pd.concat([rank_answers(tokenizer, answered) for answered in pair]),
        "runs": score_runs(model, tokenizer, runs, followed, metrics),
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
        pictures = {
            name: loaded.traced.read_pictures(read_image(images, name, loaded.traced.device)[None])
            for name in pictures_of([row])
        }
        pair = [
            answer(
                loaded.traced, pictures[picture_of(row, question)], tokenizer, question,
                row[f"{question}_question"],
            )
            for question in QUESTIONS
        ]  # fmt: skip
        alone = answer(loaded.traced, pictures[row["image"]], tokenizer, PICTURE_ONLY, "")
        for answered in (*pair, alone):
            check_finite(answered.logits[None], [row["example"]], f"{answered.question} question")
        given = [row[f"{question}_answer"] for question in QUESTIONS]
        followed = follow(tokenizer, pair, given)
        for answered, ids in zip(pair, followed, strict=True):
            tensors[states_of(row["example"], answered.question)] = answered.states
            tensors[logits_of(row["example"], answered.question)] = answered.logits
            tensors[answer_of(row["example"], answered.question)] = torch.tensor(ids)
        runs = [*pair, alone]
        tables.append(tables_of(loaded.traced, tokenizer, row, runs, followed, metrics))
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
