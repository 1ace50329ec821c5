"""The methods paragraphs of a paper, from the facts of the run that they describe."""

import os
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from blip_tracing.meaning.statistics import CONFIDENCE, FEWEST_PICTURES
from blip_tracing.telling.method import claim_of
from blip_tracing.telling.phrases import (
    amount_words,
    followed_words,
    reference_of,
    run_words,
    title_of,
)
from blip_tracing.telling.places import (
    WORDS,
    all_places_words,
    is_drawn_by_head,
    towers_in_order,
    window_words,
)
from blip_tracing.telling.story import recorded
from blip_tracing.telling.told import FIRST, Run, Story, sites_of
from blip_tracing.telling.words import how_many, listed, percent
from blip_tracing.vocabulary import experiment as vocabulary
from blip_tracing.vocabulary.corruptions import (
    ABSOLUTE,
    DEVIATIONS,
    KINDS,
    PLACES,
    QUESTION_EMBEDDINGS,
)
from blip_tracing.vocabulary.experiment import EACH, Experiment
from blip_tracing.vocabulary.sites import DECODER, ENCODER, SITES, VISION, towers_of
from blip_tracing.vocabulary.tables import UNRELATED
from blip_tracing.vocabulary.views import is_drawn_over_picture

LINE = 100
# The kind, place, role and unit of the tutorial's corruption.
TUTORIAL = ("gaussian", QUESTION_EMBEDDINGS, "", ABSOLUTE)


def methods_of(
    run: Run, story: Story, template: str | os.PathLike[str], more: Mapping[str, Any]
) -> str:
    """The template filled in with what the run did.

    more: of the sheet, `pictures` (their number) and `given_answers` (whether it names answers),
    and `snakemake`, the version.
    """
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    text = environment.from_string(Path(template).read_text(encoding="utf-8"))
    filled = text.render({**facts_of(run, story), **more, "count": how_many})
    paragraphs = re.split(r"\n{2,}", filled.strip())
    return "\n\n".join([*map(lines_of, paragraphs), *_published_method(run)]) + "\n"


def _published_method(run: Run) -> Iterator[str]:
    """What the publication did and where the run differs, or what makes it another method."""
    if run.method:
        claim, is_it = claim_of(run.method, run.config)
        yield f"# What was done, and what {run.method.title} did"
        yield lines_of(claim)
        if is_it:
            yield re.sub(r"\A# .*\n+", "", run.method.text).strip()


def facts_of(run: Run, story: Story) -> dict[str, Any]:
    """What the template needs of a run."""
    config = run.config
    sites = [site for _, site in sites_of(run)]
    known = story.controls.dropna(subset="largest")
    idle = int(known["idle"].sum())
    telling = int(known["checked"].sum()) - idle
    return {
        "model": recorded(run, "model"),
        "commit": recorded(run, "commit"),
        "weights": recorded(run, "weights_sha256"),
        "device": recorded(run, "device"),
        "dtype": recorded(run, "dtype"),
        "towers": towers_and_layers(run),
        "encoder": ENCODER in towers_of(sites),
        "decoder": DECODER in towers_of(sites),
        "regions": run.roles_at(VISION) if VISION in towers_of(sites) else [],
        "heads": any(map(is_drawn_by_head, sites)),
        "rows": "role, or head" if any(map(is_drawn_by_head, sites)) else "role",
        "examples": run.count,
        "two_pictures": bool(run.source_pictures),
        "experiments": [experiment_facts(experiment) for experiment in run.experiments],
        "corrupted": list({asked.corrupted.name: run_facts(run, asked.corrupted)
                           for asked in run.experiments if asked.corrupted}.values()),
        "null_draws": config["controls"].get("null_draws"),
        "donors": config["controls"]["donors"],
        "matched": _matched(run),
        "least_effect": f"{config['effects']['least_effect']:g}{run.tested.unit}",
        "tested_metric": "" if run.tested is FIRST.metric else run.tested.label,
        "measures": listed(measure.label for measure in run.measures[1:]),
        "tested": bool(run.experiments) and bool(run.tables["families"]["tested"].any()),
        "primary": [primary_facts(run, experiment) for experiment in run.experiments],
        "differing": run.differing,
        "false_marks": story.negatives_caption.split(". ")[0] if story.negatives_caption else "",
        "null": UNRELATED in set(story.controls["control"]),
        "telling": f"{telling:,}" if telling else "",
        "idle": f"{idle:,}" if idle else "",
        "largest": f"{known['largest'].max():.1g}" if len(known) else "",
        "total_effect": config["effects"]["total_effect"],
        "roles": [rule["role"] for rule in config["effects"]["roles"]],
        "resamples": config["effects"]["resamples"],
        "confidence": CONFIDENCE,
        "fewest": FEWEST_PICTURES,
        "excluded_caption": story.excluded_caption,
        "excluded": story.excluded.to_dict("records"),
        "versions": list(story.versions.itertuples(index=False, name=None)),
        "seed": config["effects"]["seed"],
    }  # fmt: skip


def experiment_facts(experiment: Experiment) -> dict[str, Any]:
    """What the template says of an experiment."""
    return {
        "title": title_of(experiment),
        "receiver": run_words(experiment.receiver),
        "donor": run_words(experiment.donor),
        "sites": experiment.sites,
        "places": all_places_words(experiment),
        "window": window_words(experiment),
        "over_picture": _grid_words(experiment),
        "answer": followed_words(experiment),
        "reference": reference_of(experiment),
        "as_tutorial": _is_the_tutorials(experiment),
        "other_picture": experiment.receiver.question != experiment.donor.question,
        "restores": bool(experiment.receiver.corruption),
        "lowers": experiment.direction < 0,
    }


def towers_and_layers(run: Run) -> str:
    """`question encoder (12 layers) and vision tower (12 layers)`: those that have a site."""
    layers = run.config["model"]["layers"]
    towers = towers_in_order(site for _, site in sites_of(run)) or list(WORDS)
    return listed(f"{WORDS[tower].name} ({layers[tower]} layers)" for tower in towers)


def _is_the_tutorials(experiment: Experiment) -> bool:
    """Whether it is the tutorial's patching: the other question's, single places of the stream."""
    return (
        experiment.receiver.question != experiment.donor.question
        and (experiment.positions, experiment.window) == (EACH, 1)
        and all(
            SITES[site].tower == ENCODER and SITES[site].boundary is not None
            for site in experiment.sites
        )
    )


def _grid_words(experiment: Experiment) -> str:
    """`6 × 6 regions`; "" where no single region is put in."""
    if not any(is_drawn_over_picture(experiment, site) for site in experiment.sites):
        return ""
    side = experiment.regions
    return f"{side} × {side} regions" if side else "as many regions as it has patches"


def run_facts(run: Run, noisy: vocabulary.Run) -> dict[str, Any]:
    """What the template says of a corrupted run."""
    asked = noisy.corruption
    assert asked is not None
    means = run.tables["run_means"]
    sd = means.loc[means["run"] == noisy.name, "state_sd"].mean()
    return {
        "name": noisy.name,
        "tutorial": (asked.kind, asked.at, asked.role, asked.unit) == TUTORIAL and not asked.also,
        "where": PLACES[asked.at],
        "role": asked.role,
        "drawn": any(KINDS[part.kind].drawn for part in asked.parts),
        "also": asked.also
        and {
            "where": PLACES[asked.also.at],
            "amount": asked.also.amount(*asked.also.levels),
            "seed": asked.also.seed,
        },
        "fresh": asked.fresh,
        "on_patches": asked.on_patches,
        "amounts": [asked.amount(level) for level in sorted(noisy.levels)],
        "in_deviations": asked.unit == DEVIATIONS,
        "levels": [f"{level:g}" for level in sorted(noisy.levels)],
        "draws": noisy.draws,
        "seed": asked.seed,
        "state_sd": "" if pd.isna(sd) else f"{sd:.2g}",
    }


def primary_facts(run: Run, experiment: Experiment) -> str:
    """`Tracing at encoder.block_input and σ = 5`."""
    primary = run.primary(experiment)
    level = amount_words(experiment, primary["noise_level"])
    return f"{title_of(experiment)} at {primary['site']}{f' and {level}' if level else ''}"


def _matched(run: Run) -> str:
    """The share of the null's states that come from a token of the same role and place."""
    shares = run.tables["families"]["matched_share"] if run.experiments else pd.Series(dtype=float)
    return "" if shares.isna().all() else percent(shares.mean())


def lines_of(paragraph: str) -> str:
    """The paragraph in lines of one length, whatever the template's were."""
    return textwrap.fill(
        " ".join(paragraph.split()), LINE, break_long_words=False, break_on_hyphens=False
    )
