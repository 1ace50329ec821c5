"""The supplement's tables in LaTeX, by the package booktabs, long ones by longtable.

What the model or the sheet says is escaped; headings and numbers are LaTeX already.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import yaml
from jinja2 import Environment, StrictUndefined

from blip_tracing.telling.told import is_known
from blip_tracing.telling.words import with_interval
from blip_tracing.vocabulary.experiment import QUESTIONS
from blip_tracing.vocabulary.metrics import METRICS, Metric
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.tables import INCLUDED

# Captions, by the tables' labels, and letters that pdfLaTeX's fonts lack.
WORDS = yaml.safe_load(Path(__file__).parents[3].joinpath("report/latex.yaml").read_text("utf-8"))
CAPTIONS, SYMBOLS = WORDS["captions"], WORDS["symbols"]
LAST_LETTER = 0xFF
NOTHING = "--"
PROBABILITY = METRICS["probability"]
CHANGE, NORMALISED, CONTRAST = "probability_change", "normalised", "contrast"
TURNED = "turned"


def document(names: Iterable[str], template: str | os.PathLike[str]) -> str:
    """A document of the tables in these files, which stand beside it, by a Jinja template."""
    # Braces and per cent signs are LaTeX's own.
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True,
        block_start_string="((*", block_end_string="*))",
        variable_start_string="(((", variable_end_string=")))",
    )  # fmt: skip
    written = Path(template).read_text(encoding="utf-8")
    return environment.from_string(written).render(names=names)


def answers_table(runs: pd.DataFrame, examples: Sequence[str]) -> str:
    """What was asked of these examples, and how probable both answers are."""
    rows = _of_examples(runs, examples)
    rows = rows[rows["run"].isin(QUESTIONS)]
    table = pd.DataFrame(
        {
            "Example": rows["example"],
            "Run": rows["run"],
            "Question": rows["text"],
            "Answer": rows["answer"],
            r"$p(\mathrm{base})$": rows["p_base"].map(number),
            r"$p(\mathrm{source})$": rows["p_source"].map(number),
        }
    )
    caption = CAPTIONS["answers"]
    words = ["Example", "Run", "Question", "Answer"]
    return booktabs(table, words, caption, "answers", {"Question": "p{5.5cm}"})


def baseline_table(baseline: pd.DataFrame, examples: Sequence[str]) -> str:
    """The most probable first answer tokens of these examples, rank by rank."""
    rows = _of_examples(baseline, examples)
    asked = {
        question: rows[rows["question"] == question].set_index(["example", "rank"])
        for question in QUESTIONS
    }
    base = asked["base"]
    table = base.index.to_frame(index=False).astype(str)
    table = table.set_axis(["Example", "Rank"], axis=1)
    table["Example"] = table["Example"].mask(table["Example"].duplicated(), "")
    words = ["Example"]
    for role, part in asked.items():
        word = f"{role.capitalize()} question"
        words.append(word)
        part = part.reindex(base.index)
        table[word] = part["token"].to_numpy()
        table[f"Logit ({role})"] = part["logit"].map(number).to_numpy()
        table[f"$p$ ({role})"] = part["probability"].map(number).to_numpy()
    caption = CAPTIONS["baseline"]
    return booktabs(table, words, caption, "baseline")


def effects_table(summary: pd.DataFrame, tested: Metric = PROBABILITY) -> str:
    """The effects of all cells of an experiment together, with intervals; tested: the metric."""
    rows = _counted(summary)
    caption = CAPTIONS["effects"]
    return _effects(rows[rows["layer"].isna()], caption, "effects", tested, by_role=False)


def role_effects_table(summary: pd.DataFrame, tested: Metric = PROBABILITY) -> str:
    """The effects of each layer and role, with intervals and tests, of the tested metric."""
    rows = _counted(summary)
    caption = CAPTIONS["role-effects"]
    of_heads = rows["head"].notna() if "head" in rows else False
    rows = rows[rows["layer"].notna() & ((rows["token_role"] != ALL) | of_heads)]
    return _effects(rows, caption, "role-effects", tested, by_role=True)


def _counted(summary: pd.DataFrame) -> pd.DataFrame:
    return summary[(summary["group"] == ALL) & (summary["among"] == INCLUDED)]


def replication_table(verdicts: pd.DataFrame) -> str:
    """The published figures' quantities with their verdicts."""
    table = pd.DataFrame(
        {
            "Quantity": verdicts["title"],
            "Numbers": verdicts["compared"].map(str),
            "Agree": verdicts["agree"].map(str),
            "Expected": verdicts["expected"].map(lambda value: number(value, 1)),
            "$p$": verdicts["p"].map(number),
            "Verdict": verdicts["verdict"],
            "Worst": verdicts["where"],
        }
    )
    caption = CAPTIONS["replication"]
    widths = {"Quantity": "p{4cm}", "Verdict": "p{2.5cm}", "Worst": "p{4.5cm}"}
    return booktabs(table, ["Quantity", "Verdict", "Worst"], caption, "replication", widths)


def booktabs(
    table: pd.DataFrame,
    words: Sequence[str],
    caption: str,
    label: str,
    widths: Mapping[str, str] | None = None,
    size: str = "footnotesize",
) -> str:
    """A table in LaTeX that may break over pages.

    words: the columns to be escaped; all others, the headings and the caption are LaTeX. widths:
    column → its LaTeX type, where it is not as wide as its content. size: of the text.
    """
    types = {**dict.fromkeys(map(str, table), "r"), **dict.fromkeys(words, "l"), **(widths or {})}
    table = table.reset_index(drop=True)
    table = table.assign(**{name: table[name].map(spelled) for name in words})
    style = table.style.hide(axis="index")
    style.format(_unbracketed, escape="latex", subset=list(words))
    text = style.to_latex(
        column_format="@{}" + "".join(ragged(types[name]) for name in map(str, table)) + "@{}",
        hrules=True,
        environment="longtable",
        caption=caption,
        label=f"tab:{label}",
    )
    return f"{{\\{size}\n{text}}}\n"


def number(value: float, digits: int = 3) -> str:
    """A number in LaTeX, a dash where there is none."""
    # Adding 0 takes the sign from a rounded -0.
    return NOTHING if pd.isna(value) else f"${round(value, digits) + 0:.{digits}f}$"


def interval(row: pd.Series) -> str:
    """A mean with its interval, as far as there are any."""
    return with_interval(row["mean"], row["low"], row["high"], number, "{} [{}, {}]")


def spelled(text: str) -> str:
    """The text, with letters that LaTeX's usual fonts lack as `U+4E2D`."""
    return "".join(
        letter
        if letter in SYMBOLS or (ord(letter) <= LAST_LETTER and letter.isprintable())
        else f"U+{ord(letter):04X}"
        for letter in text
    )


def ragged(column: str) -> str:
    return rf">{{\raggedright\arraybackslash}}{column}" if column.startswith("p") else column


def _unbracketed(cell: object) -> str:
    """An escaped cell that does not look like an option of the line break before it."""
    escaped = str(cell)
    for letter, command in SYMBOLS.items():
        escaped = escaped.replace(letter, command)
    return escaped.replace("[", "{[}")


def _of_examples(table: pd.DataFrame, examples: Sequence[str]) -> pd.DataFrame:
    return table[table["example"].isin(examples)]


def _effects(rows: pd.DataFrame, caption: str, label: str, tested: Metric, by_role: bool) -> str:
    further = [] if tested is PROBABILITY else [tested.change]
    if further:
        caption = f"{caption} Tested: the change in {tested.label}, of which contrasts are too."
    keys = ["experiment", "site", "noise_level", "layer", "token_role"]
    headed = by_role and "head" in rows and rows["head"].notna().any()
    if headed:
        keys.insert(4, "head")
    # Every experiment's layers in order, and the roles as the summary has them.
    rows = rows.assign(interval=rows.apply(interval, axis=1))
    wide = rows.pivot(index=keys, columns="quantity", values="interval")
    tests = rows[rows["quantity"] == tested.change].set_index(keys)
    cells = pd.MultiIndex.from_frame(rows[keys].drop_duplicates())
    # Not every run has all quantities: without a null there is no contrast.
    wide = wide.reindex(cells, columns=[CHANGE, NORMALISED, CONTRAST, TURNED, *further])
    tests = tests.reindex(cells)
    named = wide.index.to_frame(index=False)
    columns = {
        "Experiment": named["experiment"],
        "Site": named["site"],
        r"$\sigma$": named["noise_level"].map(lambda level: f"{level:g}", na_action="ignore"),
        "Layer": named["layer"].map(lambda layer: f"{layer:.0f}", na_action="ignore"),
        **(
            {"Head": named["head"].map(lambda head: f"{head:.0f}", na_action="ignore")}
            if headed
            else {}
        ),
        "Role": named["token_role"],
        "Change": wide[CHANGE].to_numpy(),
        **({"Tested": wide[tested.change].to_numpy()} if further else {}),
    }
    if by_role:
        columns |= {"Turned": wide[TURNED].to_numpy(), "Contrast": wide[CONTRAST].to_numpy()}
        columns |= {
            name: tests[column].map(number).to_numpy()
            for name, column in (("$p$ (floor)", "p_floor"), ("$p$ (null)", "p_null"),
                                 ("$p$ (all)", "p_study"), ("Chosen", "chosen"))
        }  # fmt: skip
        marked = tests["marked"].eq(True).to_numpy()
        known = is_known(tests).to_numpy()
        columns[""] = [
            "known" if same else r"$\circ$" if mark else ""
            for same, mark in zip(known, marked, strict=True)
        ]
    else:
        columns |= {
            "Normalised": wide[NORMALISED].to_numpy(),
            "Contrast": wide[CONTRAST].to_numpy(),
        }
    table = pd.DataFrame(columns).astype(object).fillna(NOTHING)
    if not by_role:
        table = table.drop(columns=["Role", "Layer"])
    words = [name for name in ("Experiment", "Site", "Role") if name in table]
    return booktabs(table, words, caption, label, size="scriptsize")
