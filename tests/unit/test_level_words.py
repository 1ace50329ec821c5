"""Each kind of corruption is told in its own words, wherever a level is told."""

import copy
import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from stories import NOISY, made_up_run, write_page

from blip_tracing.telling.findings import corruption_of
from blip_tracing.telling.phrases import (
    amount_words,
    how_to_read,
    level_sign,
    method_of,
    reference_of,
)
from blip_tracing.telling.story import tell
from blip_tracing.telling.told import Run
from blip_tracing.vocabulary.corruptions import KINDS, Corruption
from blip_tracing.vocabulary.experiment import BASE, Experiment
from blip_tracing.vocabulary.experiment import Run as Asked

# What is said of other publications, whatever the run, and of a table that has noise alone.
OTHERS = re.compile(r"cells of the noise levels|of noise that cannot be drawn again|the run noisy")


def tracing(kind: str, restores: bool = True, **how: Any) -> Experiment:
    draws = 10 if KINDS[kind].drawn else 1
    run = Asked(NOISY, BASE, Corruption(kind, "picture.states", (0.5, 0.9), draws, 0, **how))
    ends = (run, Asked(BASE, BASE))
    return Experiment("traced", *(ends if restores else ends[::-1]), ("encoder.mlp",))


def told_of(experiment: Experiment) -> str:
    parts = (method_of, reference_of, how_to_read)
    return " ".join(part(experiment) for part in parts)


@pytest.mark.parametrize("restores", [True, False])
def test_a_factor_is_no_noise_and_has_no_sigma(restores: bool) -> None:
    said = told_of(tracing("scale", restores)).replace("(noisy)", "")
    assert "noise" not in said
    assert "σ" not in said
    assert "scaling" in said
    assert amount_words(tracing("scale", restores), 0.5) == "factor = 0.5"


@pytest.mark.parametrize("kind", ["gaussian", "multiplicative"])
def test_of_noise_it_is_said_whether_cells_share_draws(kind: str) -> None:
    shared, fresh = (told_of(tracing(kind, fresh=each)) for each in (False, True))
    assert "differences between tiles are not differences between draws" in shared
    assert "the same noise and nothing put in" in shared
    assert "differences between tiles are in part differences between draws" in fresh
    assert "not differences" not in fresh
    assert "the same noise" not in fresh
    assert amount_words(tracing(kind), 5) == "σ = 5"


def test_levels_of_two_kinds_are_called_neither() -> None:
    plain = Experiment("patched", Asked(BASE, BASE), Asked("source", "source"), ("encoder.mlp",))
    assert level_sign(tracing("scale"), tracing("gaussian")) == "level"
    assert level_sign(tracing("scale"), plain) == "factor"
    assert level_sign(plain) == "σ"
    assert amount_words(plain, np.nan) == ""


def scaled_run(folder: Path) -> Run:
    """A made-up run whose corruption is a factor, in one draw."""
    run = made_up_run(folder, draws=1)
    config = copy.deepcopy(dict(run.config))
    config["runs"][NOISY]["corrupt"] |= {"kind": "scale", "at": "picture.states"}
    means = run.tables["run_means"].assign(noise_in_sd=np.nan)
    return replace(run, config=config, tables={**run.tables, "run_means": means})


def test_the_page_of_a_scaled_run_tells_of_no_noise(tmp_path: Path) -> None:
    """In all that a reader sees; the configuration is shown as it is given."""
    run = scaled_run(tmp_path)
    text = write_page(run, tmp_path / "page.html")
    shown = re.sub(r"<(script|style|pre)\b.*?</\1>", "", text, flags=re.DOTALL)
    words = OTHERS.sub("", html.unescape(re.sub(r"<[^>]+>", "\n", shown)))
    found = [line for line in words.splitlines() if re.search("σ|[Nn]oise", line)]
    assert found == []
    assert "factor = 0.5" in words
    assert "By factor" in words
    facts = tell(run).facts.set_index("fact")["value"]
    assert facts[f"{NOISY}: factors"] == "0, 0.5, 2"
    assert f"{NOISY}: noise draws" not in facts


@pytest.mark.parametrize(
    ("hidden", "told"),
    [
        ([0.0, 0.0, 1.0], ": the corruption hid nothing, as noise of σ = 5 did in most"),
        # Of those that hide it, the one that takes least away.
        ([0.0, 0.9, 1.0], ": the corruption hid nothing, as noise of σ = 2 did in most"),
        ([0.0, 0.3, 0.5], ": the corruption hid nothing, nor did it at any other level"),
        ([0.0], ": the corruption hid nothing."),
        ([0.6, 0.9, 1.0], None),
    ],
)
def test_where_the_answer_is_not_hidden_the_level_is_named_that_would(
    tmp_path: Path, hidden: list[float], told: str | None
) -> None:
    run = made_up_run(tmp_path)
    levels = [1.0, 2.0, 5.0][: len(hidden)]
    rows = pd.DataFrame(
        {"run": NOISY, "noise_level": levels, "mean": [0.7, 0.3, 0.1][: len(hidden)],
         "hidden": hidden, "third": np.nan, "noise_in_sd": np.nan}
    )  # fmt: skip
    clean = pd.DataFrame([{"run": BASE, "mean": 0.9}])
    changed = replace(run, tables={**run.tables, "run_means": pd.concat([rows, clean])})
    noisy = Asked(NOISY, BASE, Corruption("gaussian", "question.embeddings", tuple(levels), 5, 0))
    sentence = corruption_of(changed, noisy, 1.0)
    assert (told in sentence) if told else ("hid nothing" not in sentence)
