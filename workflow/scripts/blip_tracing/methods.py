"""The methods paragraphs of a paper, from the facts of the run that they describe."""

import os
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from blip_tracing.effects import PATCHING, TRACING
from blip_tracing.statistics import CONFIDENCE, FEWEST_RESAMPLED
from blip_tracing.story import Run, Story, recorded
from blip_tracing.words import how_many

LINE = 100


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
    return "\n\n".join(map(lines_of, paragraphs)) + "\n"


def facts_of(run: Run, story: Story) -> dict[str, Any]:
    """What the template needs of a run."""
    config = run.config
    known = story.controls.dropna(subset="largest")
    idle = int(known["idle"].sum())
    telling = int(known["checked"].sum()) - idle
    return {
        "model": recorded(run, "model"),
        "commit": recorded(run, "commit"),
        "weights": recorded(run, "weights_sha256"),
        "device": recorded(run, "device"),
        "dtype": recorded(run, "dtype"),
        "layers": config["model"]["layers"],
        "examples": run.tables["answers"]["example"].nunique(),
        "patching": config[PATCHING]["sites"],
        "tracing": config[TRACING]["sites"],
        "noise_levels": [f"{level:g}" for level in sorted(config[TRACING]["noise_levels"])],
        "samples": config[TRACING]["samples"],
        "seed": config[TRACING]["seed"],
        "null_samples": min(config["controls"]["null_samples"], config[TRACING]["samples"]),
        "null": "null" in set(story.controls["control"]),
        "telling": f"{telling:,}" if telling else "",
        "idle": f"{idle:,}" if idle else "",
        "largest": f"{known['largest'].max():.1g}" if len(known) else "",
        "total_effect": config["effects"]["total_effect"],
        "roles": [rule["role"] for rule in config["effects"]["roles"]],
        "resamples": config["effects"]["resamples"],
        "confidence": CONFIDENCE,
        "fewest_resampled": FEWEST_RESAMPLED,
        "excluded_caption": story.excluded_caption,
        "excluded": story.excluded.to_dict("records"),
        "versions": list(story.versions.itertuples(index=False, name=None)),
    }


def lines_of(paragraph: str) -> str:
    """The paragraph in lines of one length, whatever the template's were."""
    return textwrap.fill(
        " ".join(paragraph.split()), LINE, break_long_words=False, break_on_hyphens=False
    )
