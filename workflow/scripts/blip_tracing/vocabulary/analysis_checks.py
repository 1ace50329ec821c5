"""Which analyses can be asked of a configuration's experiments, each refusal in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic_core import PydanticCustomError

from blip_tracing.vocabulary.analysis_groups import Analyses, Fusion, Pair, SelectedHeads
from blip_tracing.vocabulary.experiment import BY_ROLE, EACH, TOGETHER, middle
from blip_tracing.vocabulary.groups import Effects, ExperimentSpec, RunSpec
from blip_tracing.vocabulary.keys import must_be, refuse
from blip_tracing.vocabulary.sites import ENCODER, SITES, towers_of


class Asked(Protocol):
    """A configuration, as far as analyses depend on it."""

    @property
    def runs(self) -> Mapping[str, RunSpec]:
        """Those beside base and source."""

    @property
    def experiments(self) -> Mapping[str, ExperimentSpec]:
        """By name."""

    @property
    def effects(self) -> Effects:
        """How they are measured."""

    @property
    def analyses(self) -> Analyses:
        """What is asked of them."""


def check_analyses(config: Asked) -> None:
    """Refuse what cannot be asked of these experiments (PydanticCustomError)."""
    _directions_can_be_told(config)
    _multiverse_can_be_told(config)
    _fusion_can_be_told(config)
    _claims_can_be_drawn(config)
    _maps_can_be_compared(config)
    _heads_are_there(config)


def _directions_can_be_told(config: Asked) -> None:
    asked = [name for name, each in config.experiments.items() if each.sites]
    if directions := config.analyses.directions:
        for number, pair in enumerate(directions.pairs):
            place = ("analyses", "directions", "pairs", number)
            for end in ("sufficient", "necessary"):
                must_be((*place, end), getattr(pair, end), asked)
            _check_pair(config, place, pair)
            if pair in directions.pairs[:number]:
                refuse(place, "is given twice; keep it once")


def _multiverse_can_be_told(config: Asked) -> None:
    if not (asked := config.analyses.multiverse):
        return
    place = ("analyses", "multiverse")
    known = [name for name, each in config.experiments.items() if each.sites]
    for number, name in enumerate(asked.experiments):
        must_be((*place, "experiments", number), name, known)
        for other in asked.experiments[:number]:
            if _are_one(config, name, other):
                refuse(
                    (*place, "experiments", number),
                    f"{name} and {other} measure the same, which would count twice; leave one "
                    "out, or give one's corrupted run another seed",
                )
    names = [measure.quantity for measure in asked.quantities]
    if len(set(names)) < len(names):
        refuse((*place, "quantities"), "has a quantity twice; give its least changes together")
    if len({len(measure.least) for measure in asked.quantities}) > 1:
        refuse(
            (*place, "quantities"),
            "have not as many least changes each, by which thresholds are compared; give each "
            "as many",
        )


def _are_one(config: Asked, name: str, other: str) -> bool:
    """Whether two experiments have a cell of the same site and level in common."""
    one, two = config.experiments[name], config.experiments[other]
    alike = ("window", "positions", "heads", "regions")
    if any(getattr(one, key) != getattr(two, key) for key in alike):
        return False
    if not set(one.sites) & set(two.sites):
        return False
    return _same_run(config, one.receiver, two.receiver) and _same_run(config, one.donor, two.donor)


def _same_run(config: Asked, name: str, other: str) -> bool:
    """Whether two runs are the same at one level at least."""
    if name not in config.runs or other not in config.runs:
        return name == other
    one, two = config.runs[name], config.runs[other]
    levels = set(one.corrupt.levels) & set(two.corrupt.levels)
    same: dict[str, Any] = {"levels": []}
    return (
        bool(levels)
        and one.of == two.of
        and (one.corrupt.model_copy(update=same) == two.corrupt.model_copy(update=same))
    )


def _check_pair(config: Asked, place: tuple[str | int, ...], pair: Pair) -> None:
    """Refuse two experiments that do not say of the same places what suffices and is needed."""
    one, other = (config.experiments[name] for name in (pair.sufficient, pair.necessary))
    if (one.receiver, one.donor) != (other.donor, other.receiver):
        refuse(
            place,
            f"{pair.necessary} does not put into the donor of {pair.sufficient} what "
            "its receiver has; exchange receiver and donor in one of them",
        )
    if one.receiver not in config.runs:
        refuse(
            (*place, "sufficient"),
            f"the receiver of {pair.sufficient} is {one.receiver}, which is not corrupted; "
            "give the experiment that restores in a corrupted run",
        )
    if (of := config.runs[one.receiver].of) != one.donor:
        refuse(
            (*place, "sufficient"),
            f"{pair.sufficient} puts {one.donor} into the corrupted {of}, so that each "
            f"direction follows another answer; give one whose donor is {of}",
        )
    for key in ("window", "positions", "heads", "regions"):
        if getattr(one, key) != getattr(other, key):
            refuse(
                place,
                f"{pair.sufficient} and {pair.necessary} differ in {key}, so that their "
                "places are not the same; give both the same",
            )
    if not {*one.sites} & {*other.sites}:
        refuse(
            place,
            f"{pair.sufficient} and {pair.necessary} have no site in common; give both "
            f"{one.sites[0]}",
        )


def _fusion_can_be_told(config: Asked) -> None:
    if fusion := config.analyses.fusion:
        asked = [name for name, each in config.experiments.items() if each.sites]
        for end, name in fusion:
            must_be(("analyses", "fusion", end), name, asked)
        _check_fusion(config, fusion)


def _claims_can_be_drawn(config: Asked) -> None:
    asked = [name for name, each in config.experiments.items() if each.sites]
    if confirm := config.analyses.confirm:
        for number, name in enumerate(confirm.experiments):
            place = ("analyses", "confirm", "experiments", number)
            must_be(place, name, asked)
            for before in confirm.experiments[:number]:
                if _are_one(config, name, before):
                    refuse(place, f"{name} asks what {before} asks; keep one of them")


def _maps_can_be_compared(config: Asked) -> None:
    asked = [name for name, each in config.experiments.items() if each.sites]
    if methods := config.analyses.methods:
        _methods_can_be_compared(config, methods.experiments, asked)
    if synergy := config.analyses.synergy:
        for number, joined in enumerate(synergy.pairs):
            place = ("analyses", "synergy", "pairs", number)
            for end in ("joint", "singles"):
                must_be((*place, end), getattr(joined, end), asked)
            _joint_has_singles(config, place, joined.joint, joined.singles)


def _methods_can_be_compared(config: Asked, methods: dict[str, str], asked: list[str]) -> None:
    place = ("analyses", "methods", "experiments")
    if len(methods) < 2:
        refuse(place, "fewer than two methods are not compared; give another")
    for number, (method, name) in enumerate(methods.items()):
        must_be((*place, method), name, asked)
        if name in [*methods.values()][:number]:
            refuse((*place, method), f"{name} is another method's too; keep it once")
    sites = [site for name in methods.values() for site in config.experiments[name].sites]
    if len(set(sites)) == len(sites):
        refuse(place, "no two of them have a site in common; give them one")


def _joint_has_singles(
    config: Asked, place: tuple[str | int, ...], joint: str, singles: str
) -> None:
    one, other = config.experiments[joint], config.experiments[singles]
    if (one.receiver, one.donor) != (other.receiver, other.donor):
        refuse(place, f"{joint} and {singles} are of other runs; give both the same")
    if not set(one.sites) & set(other.sites):
        refuse(place, f"{joint} and {singles} have no site in common; give them one")
    gathered = one.positions != other.positions
    if gathered and (other.positions != EACH or one.positions not in (BY_ROLE, TOGETHER)):
        refuse(
            place,
            f"{singles} does not put in the positions of {joint} one by one; give it "
            f"positions: {EACH}",
        )
    wider = one.window != other.window
    if wider and other.window != 1:
        refuse(place, f"{singles} has a window too; give one whose window is 1")
    if not gathered and not wider:
        refuse(place, f"{joint} puts in no more than {singles}; give it roles or a window")
    if one.regions != other.regions and "vision" in towers_of(one.sites):
        refuse(place, f"{joint} and {singles} have other regions; give both the same")


def _heads_are_there(config: Asked) -> None:
    asked = [name for name, each in config.experiments.items() if each.sites]
    if heads := config.analyses.selected_heads:
        _heads_can_be_selected(config, heads, asked)


def _heads_can_be_selected(config: Asked, heads: SelectedHeads, asked: list[str]) -> None:
    key = ("analyses", "selected_heads")
    roles = [rule.role for rule in config.effects.roles]
    if heads.role not in roles:
        context = {"place": [*key, "role"], "role": heads.role, "known": roles}
        raise PydanticCustomError("unknown_role", "{role} is not a role", context)
    met: dict[tuple[object, ...], str] = {}
    for number, name in enumerate(heads.experiments):
        place = (*key, "experiments", number)
        must_be(place, name, asked)
        experiment = config.experiments[name]
        sites = [SITES[site] for site in experiment.sites]
        if not any(site.heads and site.tower == ENCODER for site in sites):
            refuse(place, f"{name} has no site of the question encoder's heads; add one")
        if experiment.heads:
            refuse(
                place,
                f"{name} has some heads alone, and a head is held against all of a site; "
                "leave heads out of it",
            )
        if experiment.positions == TOGETHER:
            refuse(place, f"{name} puts in all positions at once; give one with each or roles")
        ends = (experiment.receiver, experiment.donor, experiment.window)
        if ends in met:
            refuse(
                place,
                f"{name} does what {met[ends]} does, so that they share their heads; give another",
            )
        met[ends] = name


def _check_fusion(config: Asked, fusion: Fusion) -> None:
    """Refuse experiments that are no factorial: a question corrupted, its picture, and both so."""
    asked = {end: config.experiments[name] for end, name in fusion}
    runs = {end: config.runs.get(each.receiver) for end, each in asked.items()}
    for end, run in runs.items():
        if run is None or asked[end].donor != run.of:
            refuse(
                ("analyses", "fusion", end),
                f"{getattr(fusion, end)} does not restore a corrupted run by its own clean one; "
                "exchange its receiver or donor",
            )
    question, picture, both = (run.model_dump() for run in runs.values() if run)
    if both != _with_picture(question, picture, config.effects.primary_level):
        refuse(
            ("analyses", "fusion", "both"),
            f"the run of {fusion.both} is not that of {fusion.question} with the picture corrupted "
            f"as in {fusion.picture}; give it the former's keys, and in also the latter's kind, at "
            "and seed, and its primary level, all in the same draws",
        )
    for end, each in asked.items():
        for key in ("window", "positions", "heads", "regions"):
            if getattr(each, key) != getattr(asked["question"], key):
                refuse(
                    ("analyses", "fusion", end),
                    f"{getattr(fusion, end)} has another {key} than {fusion.question}; give the "
                    "same",
                )
    if not set.intersection(*(set(each.sites) for each in asked.values())):
        refuse(("analyses", "fusion"), "its experiments have no site in common; give them one")


def _with_picture(
    question: dict[str, Any], picture: dict[str, Any], primary: float | None
) -> dict[str, Any]:
    """The run of a question whose picture is corrupted too as in another; {} if there is none."""
    corrupt, seen = question["corrupt"], picture["corrupt"]
    alike = question["of"] == picture["of"] and corrupt["draws"] == seen["draws"]
    if corrupt["also"] or seen["also"] or not alike:
        return {}
    level = middle(seen["levels"]) if primary is None else primary
    also = {"kind": seen["kind"], "at": seen["at"], "level": level, "seed": seen["seed"]}
    return {**question, "corrupt": {**corrupt, "also": also}}
