"""Claims on disk, and the ledger: what was tested before on the same pictures confirms no more."""

import json
from pathlib import Path
from typing import Any

import pytest
from refusals import refusal

from blip_tracing.given.claims import (
    Use,
    digest_of,
    read_claims,
    record_claims,
    record_test,
    write_claims,
)
from blip_tracing.given.halves import CONFIRMING, EXPLORING

FIRST = Use(times=1, before=0, seen=0)


def claim_at(layer: int, estimate: float = 0.4) -> dict[str, Any]:
    return {"described": {"name": "tracing"}, "site": "encoder.mlp", "level": 0, "layer": layer,
            "head": -1, "token_role": "noun", "direction": 1, "change": estimate}  # fmt: skip


def claimed(
    *layers: int,
    exploring: str = "abc",
    confirming: str = "xyz",
    model: str = "m",
    estimate: float = 0.4,
) -> dict[str, Any]:
    """Claims at these layers; the pictures of each half by their letters."""
    return {
        "claims": [claim_at(layer, estimate) for layer in layers],
        "halves": [[f"of {unit}", unit, half]
                   for half, units in ((EXPLORING, exploring), (CONFIRMING, confirming))
                   for unit in units],
        "rules": {"least_effect": 0.02},
        "weights_sha256": model,
        "settings_sha256": "s",
        "code": "c",
    }  # fmt: skip


@pytest.fixture
def tell(tmp_path: Path) -> Any:
    """Writes claims, and tests them if asked to: how the test stands, or nothing."""

    def told(claims: dict[str, Any], tested: bool = True) -> Use | None:
        write_claims(claims, tmp_path / "claims.json")
        sealed = read_claims(tmp_path / "claims.json")
        record_claims(sealed, tmp_path / "ledger")
        return record_test(sealed, tmp_path / "ledger") if tested else None

    return told


def test_claims_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "claims.json"
    write_claims(claimed(1, 2), path)
    read = read_claims(path)
    assert {key: read[key] for key in claimed()} == claimed(1, 2)
    assert read["digest"] != read["sha256"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"layer": 1', '"layer": 3'),
        ('"change": 0.4', '"change": 0.5'),
        ('"code": "c"', '"code": "d"'),
        ('"xyz"', '"xy"'),
        ('"least_effect": 0.02', '"least_effect": 0.0'),
        ('"digest": "', '"digest": "0'),
        ('"sha256": "', '"sha256": "0'),
    ],
)
def test_claims_that_were_edited_are_refused(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "claims.json"
    write_claims({**claimed(1, 2), "of": "xyz"}, path)
    text = path.read_text()
    assert before in text
    path.write_text(after.join(text.rsplit(before, 1)))
    assert refusal(read_claims, path) == (
        f"{path}: its digest is not that of its content (edited by hand, or cut short); write it "
        "again with `snakemake --forcerun claims`"
    )


def test_claims_that_were_cut_short_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "claims.json"
    write_claims(claimed(1, 2), path)
    path.write_text(path.read_text()[:-3])
    assert refusal(read_claims, path).startswith(f"{path}: is not what its job wrote (cut short")


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})


def test_the_first_test_confirms_and_so_does_the_same_made_again(tell: Any) -> None:
    assert FIRST.confirms
    assert tell(claimed(1, 2)) == FIRST
    # A release or a rounding changes estimates, and not what is tested.
    assert tell({**claimed(1, 2, estimate=0.41), "code": "another"}) == FIRST


@pytest.mark.parametrize(
    "second",
    [
        claimed(1, 3),
        claimed(1),
        claimed(1, 2, confirming="xyw"),
        {**claimed(1, 2), "rules": {"least_effect": 0.0}},
    ],
    ids=["another claim", "fewer claims", "some of the pictures", "another least effect"],
)
def test_another_test_on_the_same_pictures_confirms_nothing(tell: Any, second: Any) -> None:
    assert tell(claimed(1, 2)) == FIRST
    use = tell(second)
    assert use == Use(times=2, before=1, seen=0)
    assert not use.confirms
    third = tell(claimed(5))
    assert (third.times, third.confirms) == (3, False)
    # That which was first stays so: nothing was known of the pictures when it was made.
    assert tell(claimed(1, 2)) == Use(times=3, before=0, seen=0)


def test_other_pictures_and_another_model_are_fresh(tell: Any) -> None:
    assert tell(claimed(1, 2)) == FIRST
    assert tell(claimed(1, 3, exploring="xyz", confirming="uvw")) == FIRST
    assert tell(claimed(4, model="another")) == FIRST


def test_pictures_that_claims_were_drawn_from_confirm_no_others(tell: Any) -> None:
    """As when another salt is tried after the first half was looked at."""
    assert tell(claimed(1, exploring="abc", confirming="xyz"), tested=False) is None
    use = tell(claimed(2, exploring="xbc", confirming="ayz"))
    assert use == Use(times=1, before=0, seen=1)
    assert not use.confirms


def test_claims_that_were_never_tested_use_nothing_up(tell: Any) -> None:
    for layer in range(4):
        tell(claimed(layer), tested=False)
    assert tell(claimed(9)) == FIRST


def test_a_damaged_ledger_is_not_overlooked(tell: Any, tmp_path: Path) -> None:
    tell(claimed(1))
    (entry,) = (tmp_path / "ledger").glob("*.json")
    entry.write_text(json.dumps({"digest": "x"}))
    message = refusal(tell, claimed(2))
    assert message.startswith(f"{entry}: is not what its job wrote")
