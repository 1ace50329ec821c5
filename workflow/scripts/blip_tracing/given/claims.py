"""Claims on disk: sealed by their digest, and the ledger of what was claimed and tested on what.

A test confirms once. So that a second one on the same pictures is seen to be one, a ledger keeps an
entry for each set of claims, in a folder that no job deletes. It knows of the runs in this folder
and of no others.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blip_tracing.errors import InputError
from blip_tracing.given.halves import CONFIRMING, EXPLORING, HALVES
from blip_tracing.given.provenance import write_facts
from blip_tracing.machinery.files import read_record

SEAL = "sha256"
# What is tested, on which pictures of which model: who tests it again tests the same. Estimates and
# versions, which a rounding or a release can change, are none of it.
TESTED = ("claims", "halves", "rules", "weights_sha256", "settings_sha256")
# Of a claim.
PLACE = ("described", "site", "level", "layer", "head", "token_role", "direction")
DIGITS = 16


@dataclass(frozen=True)
class Use:
    """How a test stands among all that the ledger knows of.

    times: tests of other claims, and this one, that met some of these pictures; before: those that
    had when this one was first made; seen: its pictures that claims had been drawn from by then.
    """

    times: int
    before: int
    seen: int

    @property
    def confirms(self) -> bool:
        """Whether nothing was known of its pictures when it was made."""
        return not self.before and not self.seen


def write_claims(claims: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write claims with the digest of what is tested, under the digest of all of it."""
    named = {**claims, "digest": digest_of(_tested(claims))}
    write_facts({**named, SEAL: digest_of(named)}, path)


def read_claims(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The claims that `write_claims` wrote.

    Raises InputError where they are not what was written, whatever the file's time says.
    """
    claims = read_record(path, [*TESTED, "digest", SEAL])
    named = {key: value for key, value in claims.items() if key != SEAL}
    if claims[SEAL] != digest_of(named) or claims["digest"] != digest_of(_tested(claims)):
        raise InputError(
            f"{os.fspath(path)}: its digest is not that of its content (edited by hand, or cut "
            "short); write it again with `snakemake --forcerun claims`"
        )
    return claims


def digest_of(content: Any) -> str:
    """The sha256 of plain content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def record_claims(claims: Mapping[str, Any], ledger: Path) -> None:
    """Note which pictures these claims were drawn from, where it is not noted yet."""
    path = _entry_of(claims, ledger)
    if not path.exists():
        units = {
            half: sorted({unit for _, unit, own in claims["halves"] if own == half})
            for half in HALVES
        }
        model = [claims["weights_sha256"], claims["settings_sha256"]]
        write_facts({"digest": claims["digest"], "model": model, **units, "tested": None}, path)


def record_test(claims: Mapping[str, Any], ledger: Path) -> Use:
    """Note that these claims are tested, and say how that test stands among all.

    What was known when they were first tested stays noted: the same test made again is the same.
    """
    record_claims(claims, ledger)
    path = _entry_of(claims, ledger)
    own = read_record(path, ["tested", *HALVES])
    others = [
        entry
        for entry in _entries(ledger)
        if entry["digest"] != own["digest"] and entry["model"] == own["model"]
    ]
    asked = set(own[CONFIRMING])
    tested = [
        entry["digest"] for entry in others if entry["tested"] and asked & {*entry[CONFIRMING]}
    ]
    if not own["tested"]:
        explored = {unit for entry in others for unit in entry[EXPLORING]}
        own["tested"] = {"before": sorted(tested), "seen": sorted(asked & explored)}
        write_facts(own, path)
    known = own["tested"]
    return Use(1 + len(tested), len(known["before"]), len(known["seen"]))


def _entries(ledger: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(ledger.glob("*.json")):
        yield read_record(path, ["digest", "model", "tested", *HALVES])


def _entry_of(claims: Mapping[str, Any], ledger: Path) -> Path:
    return ledger / f"{claims['digest'][:DIGITS]}.json"


def _tested(claims: Mapping[str, Any]) -> dict[str, Any]:
    places = [{key: claim[key] for key in PLACE} for claim in claims["claims"]]
    return {**{key: claims[key] for key in TESTED}, "claims": places}
