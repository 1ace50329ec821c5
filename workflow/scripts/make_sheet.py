r"""Turn a dataset of questions about pictures into an examples sheet.

    python workflow/scripts/make_sheet.py color_coco_qa.csv config/color.tsv \
        --model Salesforce/blip-vqa-base --pairs same-picture --correct --sample 1000

The CSV has the form in which Palit et al. (2023) published theirs: train_image_id_count,
question_count and answer_count hold the picture's COCO id, a question and its one-word answer.
Run it in the project's folder, where the workflow will look for the pictures. Every row that does
not become an example is listed beside the sheet, with the reason.

With --form the examples are those of a published method: palit-2023 takes that CSV; svo-probes the
CSV of SVO-Probes, its pictures at --pictures; mit-states the folder of MIT-States' pictures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, lru_cache
from pathlib import Path

import pandas as pd
from tokenizers import Tokenizer
from tqdm import tqdm

from blip_tracing.errors import InputError, run_command
from blip_tracing.given.checkpoint import fetch_from_hub, is_local, read_architecture
from blip_tracing.given.downloads import download_picture
from blip_tracing.given.pairs import (
    PAIRINGS,
    Drop,
    Pair,
    Question,
    Reason,
    chance,
    check_template,
    count_reasons,
    draw_pairs,
    log_of,
    read_dataset,
    screen,
    sheet_of,
)
from blip_tracing.given.pictures import is_url, open_picture, picture_path
from blip_tracing.given.stimuli import (
    IMAGE,
    PALIT_EXAMPLES,
    TEXT,
    Choice,
    choice_row,
    mit_choices,
    palit_examples,
    palit_sheet,
    svo_choices,
)
from blip_tracing.given.tokens import load_tokenizer, tokenize, unknown_words
from blip_tracing.machinery.files import written_whole
from blip_tracing.machinery.tables import write_table

QUESTIONS, PALIT, SVO, MIT = "questions", "palit-2023", "svo-probes", "mit-states"
# The model's first answer token to a question about a picture, by its id or path.
AskOfAny = Callable[[int | str, str], str]
COCO = "http://images.cocodataset.org/train2017/{id:012d}.jpg"


@contextmanager
def ask_model(directory: str, device: str, pictures: str, cores: int) -> Iterator[AskOfAny]:
    """Load the model; what is yielded gives its first answer token to a question about a picture.

    A picture is fetched when it is first asked about, to where the workflow looks for it.
    cores: how many torch may use; threads of small models lose more by waiting than they gain.
    """
    import torch

    from blip_tracing.models.blip_vqa import PictureMemory, ResumableBlip
    from blip_tracing.models.load import encode_pictures, load_model, use_device, use_threads

    use_threads(cores)
    tokenizer = load_tokenizer(directory)
    with use_device(device, jobs_per_gpu=1) as place, torch.inference_mode():
        blip = load_model(directory, place, "float32")
        model = ResumableBlip(blip)

        @lru_cache(maxsize=1)
        def look_at(picture: int | str) -> PictureMemory:
            file = open_picture(fetch(pictures.format(id=picture)))
            (states,) = encode_pictures(blip, directory, [file])
            return model.read_pictures(states[None])

        @cache
        def ask(picture: int | str, question: str) -> str:
            token_ids = [token_id for _, token_id, _ in tokenize(tokenizer, question)]
            inputs = model.embed(torch.tensor([token_ids]))
            logits = model.run(inputs[:, None], look_at(picture)).logits
            assert logits is not None
            return tokenizer.id_to_token(int(logits.argmax())) or ""

        yield ask


def fetch(image: str) -> str:
    """The file of a picture, fetched unless it is there."""
    path = picture_path(image)
    if is_url(image) and not Path(path).is_file():
        download_picture(image, path)
    return path


def drop_without_picture(
    questions: list[Question], pictures: str
) -> tuple[list[Question], list[Drop]]:
    """Drop the questions whose picture should lie on this machine and does not."""
    kept, dropped = [], []
    for question in questions:
        image = pictures.format(id=question.picture)
        if is_url(image) or Path(image).is_file():
            kept.append(question)
        else:
            dropped.append(Drop(question.row, question.text, Reason.NO_PICTURE, image))
    return kept, dropped


def pair_all(
    questions: list[Question], directory: str, arguments: argparse.Namespace
) -> tuple[list[Pair], list[Drop]]:
    """Pair the questions as the command line says; a bar shows how far the model has come."""
    sample = arguments.sample
    total = min(len(questions), sample or len(questions))
    asking = (
        ask_model(directory, arguments.device, arguments.pictures, arguments.cores)
        if arguments.correct
        else nullcontext()
    )
    pairs: list[Pair] = []
    dropped: list[Drop] = []
    with asking as ask, tqdm(total=total, unit=" questions", disable=ask is None) as bar:
        pairing = PAIRINGS[arguments.pairs]
        for outcome in draw_pairs(questions, pairing, arguments.seed, sample, ask):
            if isinstance(outcome, Pair):
                pairs.append(outcome)
            else:
                dropped.append(outcome)
            bar.update(sample is None or isinstance(outcome, Pair))
    return pairs, dropped


def choose(
    arguments: argparse.Namespace, tokenizer: Tokenizer, directory: str
) -> tuple[pd.DataFrame, list[Drop]]:
    """NOTICE's examples of two choices, in an order that the seed decides where there is a sample.

    A row is kept where its pictures are there and, with --correct, the model's first answer token
    is that of the right word.
    """
    source, seed, sample = arguments.questions, arguments.seed, arguments.sample
    if arguments.form == SVO:
        outcomes = svo_choices(source, arguments.pictures)
    else:
        outcomes = mit_choices(source, seed, arguments.adjectives)
    dropped = [outcome for outcome in outcomes if isinstance(outcome, Drop)]
    choices = [outcome for outcome in outcomes if isinstance(outcome, Choice)]
    if sample:
        choices.sort(key=lambda choice: chance(seed, f"sample {choice.name}", choice.row))
    asking = (
        ask_model(directory, arguments.device, "{id}", arguments.cores)
        if arguments.correct
        else nullcontext()
    )
    rows: list[dict[str, str]] = []
    with asking as ask:
        for choice in tqdm(choices, unit=" choices", disable=ask is None):
            outcome = (
                Drop(choice.row, choice.prompt, Reason.FULL)
                if len(rows) == sample
                else settle(choice, arguments.change, tokenizer, seed, ask)
            )
            if isinstance(outcome, Drop):
                dropped.append(outcome)
            else:
                rows.append(outcome)
    return pd.DataFrame(rows), dropped


def settle(
    choice: Choice, change: str, tokenizer: Tokenizer, seed: int, ask: AskOfAny | None
) -> dict[str, str] | Drop:
    """The row of a choice, or why it is none."""
    for image in (choice.image, choice.other_image):
        if not is_url(image) and not Path(image).is_file():
            return Drop(choice.row, choice.prompt, Reason.NO_PICTURE, image)
    unknown = unknown_words(tokenizer, choice.prompt)
    if unknown:
        return Drop(choice.row, choice.prompt, Reason.UNKNOWN_WORD, " ".join(unknown))
    row = choice_row(choice, change, tokenizer, seed)
    if isinstance(row, Drop) or ask is None:
        return row
    said, right = ask(choice.image, choice.prompt), tokenize(tokenizer, choice.answer)[1][0]
    return row if said == right else Drop(choice.row, choice.prompt, Reason.WRONG, said)


def examples_of(
    arguments: argparse.Namespace, directory: str
) -> tuple[pd.DataFrame, list[Drop], str]:
    """The sheet's rows, the dropped rows, and what was given, in words."""
    positions, tokenizer = read_architecture(directory).positions, load_tokenizer(directory)
    if arguments.form in (SVO, MIT):
        sheet, dropped = choose(arguments, tokenizer, directory)
        return sheet, dropped, str(arguments.questions)
    dataset = read_dataset(arguments.questions)
    given = f"{len(dataset):,} rows of {arguments.questions}"
    if arguments.form == PALIT:
        count = arguments.sample or PALIT_EXAMPLES
        kept, dropped = palit_examples(dataset, tokenizer, count=count)
        sheet = palit_sheet(kept, arguments.pictures) if kept else pd.DataFrame()
        return sheet, dropped, given
    questions, unfit = screen(dataset, tokenizer, positions, arguments.words)
    questions, unseen = drop_without_picture(questions, arguments.pictures)
    pairs, unpaired = pair_all(questions, directory, arguments)
    return sheet_of(pairs, arguments.pictures), unfit + unseen + unpaired, given


def write_sheet(sheet: pd.DataFrame, path: Path) -> None:
    """Write the sheet as tab-separated text, whole or not at all."""
    with written_whole(path) as file:
        sheet.to_csv(file, sep="\t", index=False, lineterminator="\n")


def make_sheet(arguments: argparse.Namespace) -> str:
    """Write the sheet and the log of dropped rows; returns what was done, in one paragraph.

    Raises InputError when something given is wrong or no row is left; the log is written then too.
    """
    if arguments.form == SVO and arguments.pictures == COCO:
        raise InputError("--pictures: COCO has none of SVO-Probes'; say where they lie, {id} in it")
    check_template(arguments.pictures)
    name, revision = arguments.model, arguments.revision
    directory = name if is_local(name) else fetch_from_hub(name, revision)
    sheet, dropped, given = examples_of(arguments, directory)
    log = arguments.sheet.with_suffix(".dropped.csv")
    write_table(log_of(dropped), log)
    reasons = f"{len(dropped):,} rows dropped, listed in {log}: {count_reasons(dropped)}"
    if not len(sheet):
        raise InputError(f"{arguments.questions}: no row makes an example; {reasons}")
    write_sheet(sheet, arguments.sheet)
    asked_for = f" (of {arguments.sample:,} asked for)" if arguments.sample else ""
    return f"{arguments.sheet}: {len(sheet):,} examples{asked_for} out of {given}. {reasons}."


def positive(text: str) -> int:
    """A whole number of 1 or more, as argparse reads it."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def parse(command: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("questions", type=Path, help="the dataset, a CSV or a folder")
    parser.add_argument("sheet", type=Path, help="the examples sheet to write, a TSV")
    parser.add_argument("--model", required=True, help="a checkpoint's directory, or its Hub id")
    parser.add_argument("--revision", default="main", help="of a Hub model (default: main)")
    parser.add_argument(
        "--form",
        choices=[QUESTIONS, PALIT, SVO, MIT],
        default=QUESTIONS,
        help="what the file is, and whose examples are made of it (default: questions, in pairs)",
    )
    parser.add_argument(
        "--change",
        choices=[IMAGE, TEXT],
        default=IMAGE,
        help="of svo-probes and mit-states: whether the other run sees another picture (SIP) or "
        "reads other choices (STR)",
    )
    parser.add_argument(
        "--adjectives",
        nargs="+",
        default=[],
        help="of mit-states: those asked about (default: all)",
    )
    parser.add_argument(
        "--pairs",
        choices=PAIRINGS,
        default="same-picture",
        help="same-picture: with another question about the picture, of another answer; "
        "swap-noun: with a question of the dataset that differs in exactly one token",
    )
    parser.add_argument("--words", type=positive, help="keep questions of exactly so many words")
    parser.add_argument(
        "--correct", action="store_true", help="keep questions that the model answers rightly"
    )
    parser.add_argument("--sample", type=positive, help="stop at so many examples (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument(
        "--pictures",
        default=COCO,
        help="address or path of a picture, {id} for its id (default: COCO's server)",
    )
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="for --correct"
    )
    parser.add_argument(
        "--cores", type=positive, default=1, help="for --correct on a CPU (default: 1)"
    )
    return parser.parse_args(command)


def main() -> int:
    """Run the command."""
    return run_command(lambda: make_sheet(parse()))


if __name__ == "__main__":
    sys.exit(main())
