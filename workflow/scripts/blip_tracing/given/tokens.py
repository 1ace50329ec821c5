"""What the model reads: the tokens of a question, without loading the model's libraries."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from blip_tracing.errors import InputError
from blip_tracing.machinery.files import read_json
from blip_tracing.vocabulary.roles import END, START

UNKNOWN = "[UNK]"
# What begins a token that goes on with a word.
CONTINUES = "##"
# Never split, even where a question spells them out.
SPECIAL = ("[PAD]", UNKNOWN, START, END, "[MASK]")


def load_tokenizer(checkpoint_dir: str | os.PathLike[str]) -> Tokenizer:
    """The checkpoint's tokenizer, never padding and never truncating.

    Read from tokenizer.json or, where there is none, built from vocab.txt as BERT's.
    Raises InputError when the folder holds neither or what it holds cannot be read.
    """
    folder = Path(checkpoint_dir)
    whole, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    if whole.is_file():
        tokenizer = _read_tokenizer(whole)
    elif vocabulary.is_file():
        tokenizer = _bert_tokenizer(vocabulary, _tokenizer_settings(folder))
    else:
        raise InputError(
            f"{folder}: holds neither tokenizer.json nor vocab.txt; "
            "copy the tokenizer beside the weights"
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def tokenize(tokenizer: Tokenizer, question: str) -> list[tuple[str, int, str]]:
    """The question's tokens in order: (token, token id, the piece of the question it stands for).

    The first and last are `[CLS]` and `[SEP]`, which stand for no text ("").
    """
    encoding = tokenizer.encode(question)
    return [
        (token, token_id, question[start:end])
        for token, token_id, (start, end) in zip(
            encoding.tokens, encoding.ids, encoding.offsets, strict=True
        )
    ]


def unknown_words(tokenizer: Tokenizer, question: str) -> list[str]:
    """The question's words that become `[UNK]`, as they are written, in order."""
    return [text for token, _, text in tokenize(tokenizer, question) if token == UNKNOWN]


def answer_token_ids(tokenizer: Tokenizer, answer: str) -> list[int]:
    """The ids of an answer's tokens, in order.

    Raises InputError when a word of it is none that the tokenizer knows, or it has no word.
    """
    encoding = tokenizer.encode(answer, add_special_tokens=False)
    if unknown := unknown_words(tokenizer, answer):
        raise InputError(f"{unknown[0]!r} is not a word that the tokenizer knows")
    if not encoding.ids:
        raise InputError(f"{answer!r} has no word")
    return encoding.ids


def answer_token_id(tokenizer: Tokenizer, answer: str) -> int:
    """The id of the one token that is `answer`.

    Raises InputError when the answer is several tokens or a word that the tokenizer lacks.
    """
    first, *others = answer_token_ids(tokenizer, answer)
    if others:
        tokens = [token_name(tokenizer, token_id) for token_id in (first, *others)]
        raise InputError(f"{answer!r} is {len(tokens)} tokens ({' '.join(tokens)}), not one")
    return first


def answer_name(tokenizer: Tokenizer, token_ids: Sequence[int]) -> str:
    """An answer's tokens as one text: `light blue`, `reddish` of red and ##dish."""
    names = [token_name(tokenizer, token_id) for token_id in token_ids]
    return " ".join(names).replace(f" {CONTINUES}", "")


def token_name(tokenizer: Tokenizer, token_id: int) -> str:
    """The token of an id, or `[id 30523]` where the tokenizer has no word for it."""
    return tokenizer.id_to_token(token_id) or f"[id {token_id}]"


def check_vocabulary(
    tokenizer: Tokenizer, vocabulary: int, start: int, directory: str | os.PathLike[str]
) -> list[str]:
    """Check that the tokenizer's ids are the model's; vocabulary: how many words the model has.

    The model may have more at the end, as when its embedding was padded: an answer is then shown
    by its id (`token_name`), and a one-line warning is returned. BLIP's own two, [DEC] (`start`)
    and [ENC] after it, need no word.
    Raises InputError when the tokenizer has a word that the model has not, or none for an id
    before its last.
    """
    ids = {token_id: token for token, token_id in tokenizer.get_vocab().items()}
    count, last = len(ids), max(ids, default=-1)
    mend = "copy the tokenizer of this model"
    if last >= vocabulary:
        raise InputError(
            f"{os.fspath(directory)}: its tokenizer has {ids[last]!r} as number {last:,}, but the "
            f"model has {vocabulary:,} words, counted from 0; {mend}"
        )
    holes = [token_id for token_id in range(last) if not ids.get(token_id)]
    if holes:
        raise InputError(
            f"{os.fspath(directory)}: its tokenizer has no word for {len(holes):,} of the model's "
            f"{vocabulary:,}, the first number {holes[0]:,}; {mend}"
        )
    if set(range(last + 1, vocabulary)) <= {start, start + 1}:
        return []
    return [
        f"{os.fspath(directory)}: its tokenizer has {count:,} words, the model {vocabulary:,}; "
        f"answers beyond are shown by number, as [id {vocabulary - 1}]"
    ]


def _read_tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower class
        raise InputError(f"{path}: is not a tokenizer ({error}); fetch it again") from error


def _tokenizer_settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return {}
    return read_json(path)


def _bert_tokenizer(path: Path, settings: dict[str, Any]) -> Tokenizer:
    vocabulary = _read_vocabulary(path)
    # BERT's defaults, which tokenizer_config.json leaves out where they hold.
    strip_accents = settings.get("strip_accents")
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=bool(settings.get("do_lower_case", True)),
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
        strip_accents=None if strip_accents is None else bool(strip_accents),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(
        (END, vocabulary[END]), (START, vocabulary[START])
    )
    tokenizer.add_special_tokens([token for token in SPECIAL if token in vocabulary])
    return tokenizer


def _read_vocabulary(path: Path) -> dict[str, int]:
    try:
        # Only "\n" ends a token: some of BERT's tokens are themselves other line separators.
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text ({error}); fetch it again") from error
    vocabulary = {token.removesuffix("\r"): token_id for token_id, token in enumerate(lines)}
    for token in (UNKNOWN, START, END):
        if token not in vocabulary:
            raise InputError(f"{path}: has no token {token}; give BERT's vocabulary")
    return vocabulary
