"""What is put in where, in words: the one place where they follow from a site's tower."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from blip_tracing.telling.words import listed, position_labels, printable
from blip_tracing.vocabulary.experiment import BY_ROLE, EACH, TOGETHER, Experiment
from blip_tracing.vocabulary.roles import ALL
from blip_tracing.vocabulary.sites import DECODER, ENCODER, SITES, TOWERS, VISION, towers_of

# Letters of the tokens of a role, as a row's name.
LONGEST_LABEL = 28


@dataclass(frozen=True)
class Tower:
    """A tower's words.

    name: its own; place, places: what its positions are; axis: of a map, whose rows they are;
    role: what a position's role says of it.
    """

    name: str
    place: str
    places: str
    axis: str
    role: str


WORDS = {
    ENCODER: Tower(
        "question encoder", "token", "tokens", "position and token",
        "the token’s place in the question",
    ),
    DECODER: Tower(
        "answer decoder", "answer token", "answer tokens", "answer token",
        "[DEC], which begins the answer, or a token of it",
    ),
    VISION: Tower(
        "vision tower", "region", "regions", "region of the picture",
        "what the region shows: a thing, the background, or [CLS], which is no region",
    ),
}  # fmt: skip


def words_of(site: str) -> Tower:
    """The words of the tower that a site is in."""
    return WORDS[SITES[site].tower]


def towers_in_order(sites: Iterable[str]) -> list[str]:
    """The towers that these sites are in, in the design's order."""
    return sorted(towers_of(sites), key=TOWERS.index)


def towers_words(sites: Iterable[str]) -> str:
    """`question encoder and answer decoder`: the towers of these sites."""
    return listed(WORDS[tower].name for tower in towers_in_order(sites))


def is_drawn_by_head(site: str) -> bool:
    """Whether a map's rows are heads rather than positions."""
    return SITES[site].heads


def rows_words(experiment: Experiment, site: str) -> str:
    """What the rows of a map of one example are."""
    if is_drawn_by_head(site):
        return "head"
    if experiment.positions == BY_ROLE:
        return "role, put in together"
    if experiment.positions == TOGETHER:
        return f"all {words_of(site).places} together"
    return words_of(site).axis


def mean_words(experiment: Experiment, site: str) -> str:
    """What a map by head is a mean over; "" where a cell is all there is."""
    if experiment.positions == TOGETHER:
        return ""
    what = "roles" if experiment.positions == BY_ROLE else words_of(site).places
    return f"mean over {what}"


def role_words(role: str, site: str) -> str:
    """A role as a row or line is called: its name, or `all tokens` where all are put in."""
    return f"all {words_of(site).places}" if role == ALL else printable(role)


def joint_words(experiment: Experiment, site: str) -> str:
    """What is put in at once: `, all tokens of a role together`; "" where positions are alone."""
    places = words_of(site).places
    return {
        EACH: "",
        BY_ROLE: f", all {places} of a role together",
        TOGETHER: f", all {places} together",
    }[experiment.positions]


def window_words(experiment: Experiment) -> str:
    """The layers of a window: `3 layers about ℓ (ℓ−1 to ℓ+1)`; "" for a single layer."""
    window = experiment.window
    if window == 1:
        return ""
    before, behind = window // 2, -(-window // 2) - 1
    last = f"ℓ+{behind}" if behind else "ℓ"
    return f"{window} layers about ℓ (ℓ−{before} to {last})"


def thing_words(experiment: Experiment, site: str) -> str:
    """What a cell puts in, by its site's name: `one encoder.mlp`, `one head of …`."""
    layers = f"{experiment.window} layers of " if experiment.window > 1 else ""
    head = "one head of " if is_drawn_by_head(site) else "one " if is_single(experiment) else ""
    return f"{head}{layers}{site}{joint_words(experiment, site)}"


def is_single(experiment: Experiment) -> bool:
    """Whether a cell puts in one position of one layer."""
    return experiment.window == 1 and experiment.positions == EACH


def state_words(experiment: Experiment, site: str) -> str:
    """What a cell puts in: `the state of one layer at one token`, `one head of one layer at …`."""
    tower = words_of(site)
    at = {
        EACH: f"one {tower.place}",
        BY_ROLE: f"all {tower.places} of one role together",
        TOGETHER: f"all {tower.places} together",
    }[experiment.positions]
    return _state_at(experiment, site, at)


def _state_at(experiment: Experiment, site: str, at: str) -> str:
    what = "one head" if is_drawn_by_head(site) else "the state"
    return f"{what} of {window_words(experiment) or 'one layer'} at {at}"


def one_words(experiment: Experiment, site: str) -> str:
    """A cell in few words, `one state` or `one head`, where it is one place of one layer."""
    if not is_single(experiment):
        return state_words(experiment, site)
    return "one head" if is_drawn_by_head(site) else "one state"


def suffices_words(experiment: Experiment) -> str:
    """What suffices where an effect is large: `that one state`, or what is put in together."""
    return "that one state suffices" if is_single(experiment) else "those states together suffice"


def role_state_words(experiment: Experiment, site: str) -> str:
    """The same where places are told by their role, which those of single heads are not."""
    tower = words_of(site)
    if experiment.positions == TOGETHER or (
        is_drawn_by_head(site) and experiment.positions == EACH
    ):
        return state_words(experiment, site)
    if experiment.positions == BY_ROLE:
        at = f"all {tower.places} of the role together ({tower.role})"
    else:
        at = f"one {tower.place} of the role ({tower.role})"
    return _state_at(experiment, site, at)


def all_places_words(experiment: Experiment) -> str:
    """Where its cells put in: `one layer and token at a time`, each kind of place once."""
    found: dict[str, None] = {}
    for site in experiment.sites:
        tower = words_of(site)
        head = ", head" if is_drawn_by_head(site) else ""
        at = {
            EACH: f"one layer{head} and {tower.place}",
            BY_ROLE: f"one layer{head} and all {tower.places} of a role",
            TOGETHER: f"one layer{head} and all its {tower.places}",
        }[experiment.positions]
        found[f"{at} of the {tower.name} at a time"] = None
    return ", or ".join(found)


def all_states_words(experiment: Experiment, sites: Iterable[str]) -> str:
    """What the cells of these sites put in, each kind of place once, and its tower."""
    found = dict.fromkeys(
        f"{state_words(experiment, site)} of the {words_of(site).name}" for site in sites
    )
    return " or ".join(found)


def row_labels(cells: pd.DataFrame, experiment: Experiment, site: str) -> dict[int, str]:
    """The number of each row of a map, a position or a head → its name.

    cells: of one example at the site: the experiment's table, or its effects, which know the roles.
    """
    if is_drawn_by_head(site):
        return {int(head): f"head {int(head)}" for head in sorted(cells["head"].unique())}
    if experiment.positions == EACH:
        return position_labels(cells)
    if experiment.positions == TOGETHER:
        return {0: f"all {words_of(site).places}"}
    name = "token_role" if "token_role" in cells else "token"
    rows = cells.drop_duplicates("position").sort_values("position")
    return {
        int(position): _shortened(printable(words))
        for position, words in zip(rows["position"], rows[name], strict=True)
    }


def _shortened(words: str) -> str:
    return words if len(words) <= LONGEST_LABEL else f"{words[: LONGEST_LABEL - 1].rstrip()}…"
