"""What the analyses of several experiments conclude, in words."""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import pandas as pd

from blip_tracing.meaning.analyses.methods import NIL, OPPOSITE
from blip_tracing.telling.told import Answered, Run
from blip_tracing.telling.words import percent, printable
from blip_tracing.vocabulary.analyses import ANALYSES, HEAD_SCORES

DIGITS = "{:.3g}"
REFUTED = {NIL: "no effect", OPPOSITE: "the opposite"}


def analyses_of(run: Run) -> Iterator[Answered]:
    """Each analysis that the run was asked for."""
    for name, analysis in ANALYSES.items():
        if analysis.verdicts in run.tables:
            told = in_words(run.tables[analysis.verdicts])
            yield Answered(name, analysis.title, analysis.question, told)


def in_words(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Conclusions as a reader sees them: about, statement, value with its interval, p, verdict."""
    ends = verdicts[["value", "low", "high"]].to_numpy(float)
    return pd.DataFrame(
        {
            "about": verdicts["about"].map(printable),
            "statement": verdicts["statement"].map(printable),
            "value (95 % interval)": [_with_interval(*of) for of in ends],
            "p": ["" if p != p else f"{p:.3f}" for p in verdicts["p"]],
            "pictures": verdicts["pictures"],
            "verdict": verdicts["verdict"].map(printable),
        }
    )


def contradictions_in_words(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of contradictions of the table `methods`, as a reader sees them.

    The method that marks the cell comes first, then the one that shows nothing or the opposite.
    """
    told = []
    for row in rows.to_dict("records"):
        refuting, shown = row["verdict"].split()
        marking = "second" if refuting == "first" else "first"
        head = "" if pd.isna(row["head"]) else f"head {row['head']:.0f}, "
        told.append(
            {
                "cell": printable(f"layer {row['layer']:.0f}, {head}{row['token_role']}"),
                "marked by": printable(row[marking]),
                "effect": _effect(row, marking),
                "not so by": printable(row[refuting]),
                "its effect": _effect(row, refuting),
                "shown there": REFUTED[shown],
            }
        )
    return pd.DataFrame(told)


def _effect(row: Mapping[Hashable, Any], side: str) -> str:
    return _with_interval(*(row[f"{side}_effect{end}"] for end in ("", "_low", "_high")))


def kept_heads(heads: pd.DataFrame) -> pd.DataFrame:
    """The heads of `selected_heads` that are kept, or were published, as a reader sees them."""
    told = heads[heads["kept"] | heads["expected"]]
    return pd.DataFrame(
        {
            "head": [f"L{layer}.H{head}" for layer, head in told[["layer", "head"]].to_numpy()],
            **{
                title: [_with_interval(*of) for of in told[[name, *_ends(name)]].to_numpy(float)]
                for name, title in {"score": "mean |score|", **HEAD_SCORES}.items()
            },
            **{word: ["yes" if yes else "no" for yes in told[word]]
               for word in ("kept", "acts", "shown", "universal", "expected")},
            "kept in resamples": [
                "" if share != share else percent(share) for share in told["kept_share"]
            ],
        }
    )  # fmt: skip


def _ends(name: str) -> list[str]:
    return [f"{name}_low", f"{name}_high"]


def _with_interval(value: float, low: float, high: float) -> str:
    if value != value:
        return ""
    told = DIGITS.format(value)
    return told if low != low else f"{told} ({DIGITS.format(low)} to {DIGITS.format(high)})"
