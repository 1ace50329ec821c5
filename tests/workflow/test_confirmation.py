"""A sheet in halves, run: the claims come first, the other half meets them once."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import ROOT, copy_project, planned_jobs, run, snakemake

from blip_tracing.given.halves import CONFIRMING, EXPLORING
from blip_tracing.machinery.tables import read_table

CONFIG = ("--configfile", "config/confirm.yaml")
CLAIMS, TABLE = "results/claims.json", "results/tables/confirm.csv"
EFFECTS = "results/effects/confirming_0000.parquet"


def configure(project: Path, claims: int, donors: int = 5) -> None:
    """One experiment without noise, one job for each half and stage, so many claims."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config/confirm.yaml").read_text())
    del config["experiments"]["tracing"], config["runs"], config["effects"]["primary_level"]
    config["analyses"]["confirm"] |= {"experiments": ["patching"], "claims": claims}
    config["effects"]["resamples"] = 200
    config["controls"]["donors"] = donors
    (project / "config/confirm.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_project(tmp_path_factory.mktemp("halves") / "project")
    configure(folder, claims=3)
    return folder


def halves_with(project: Path, folder: str) -> set[str]:
    """The halves of which a folder of results has files."""
    return {path.name.split("_")[0] for path in (project / "results" / folder).rglob("*_0000.*")}


def verdict(project: Path, about: str) -> str:
    verdicts = read_table(project / "results/tables/confirm_verdicts.csv")
    return verdicts.set_index("about")["verdict"][about]


def test_the_other_half_waits_for_the_claims_and_meets_them_once(project: Path) -> None:
    # Whoever asks for the confirming half alone, or for a table of it, gets the claims before.
    for target in (EFFECTS, "results/tables/runs.csv"):
        assert planned_jobs(project, target, *CONFIG)["claims"] == 1

    run(project, "claims", *CONFIG)
    for folder in ("cells", "runs", "clean", "effects", "tokens", "images"):
        assert halves_with(project, folder) == {EXPLORING}, folder
    sealed = json.loads((project / CLAIMS).read_text())
    assert 0 < len(sealed["claims"]) <= 3
    before = (project / CLAIMS).read_bytes()

    run(project, TABLE, *CONFIG)
    assert (project / CLAIMS).read_bytes() == before
    assert halves_with(project, "cells") == {EXPLORING, CONFIRMING}
    table, halves = (
        read_table(project / f"results/tables/{name}.csv") for name in ("confirm", "halves")
    )
    assert len(table) == len(sealed["claims"])
    assert set(table["digest"]) == {f"sha256:{sealed['digest']}"}
    assert halves[["example", "picture", "half"]].to_numpy().tolist() == sealed["halves"]
    for half, shard in ((EXPLORING, "exploring_0000"), (CONFIRMING, "confirming_0000")):
        measured = read_table(project / f"results/role_means/{shard}.parquet")["example"]
        assert set(measured) == set(halves["example"][halves["half"] == half])
    assert verdict(project, "the confirming half") == "used once"

    # Other claims: they are tested anew, on what is measured already, and the page says so.
    configure(project, claims=1)
    effects_again = {"claims": 1, "measure_effects": 1, "confirm": 1}
    assert planned_jobs(project, TABLE, *CONFIG) == effects_again
    run(project, TABLE, *CONFIG)
    assert verdict(project, "the confirming half") == "used 2 times: no p here confirms"
    table = read_table(project / TABLE)
    assert len(table) == 1
    assert "confirmed" not in set(table["verdict"])

    # Edited by hand they are refused, in one line.
    path = project / CLAIMS
    path.write_text(path.read_text().replace('"direction": 1', '"direction": -1'))
    done = snakemake(project, TABLE, *CONFIG)
    assert done.returncode != 0
    assert f"{CLAIMS}: its digest is not that of its content (edited by hand" in done.stdout
    assert "Traceback" not in done.stdout
    # As the message has it; nothing of the confirming half is measured again.
    again = planned_jobs(project, TABLE, "--forcerun", "claims", *CONFIG)
    assert again == effects_again
    # What is measured otherwise is so in both halves, though the one waits for the other.
    configure(project, claims=1, donors=3)
    planned = planned_jobs(project, TABLE, *CONFIG)
    assert planned == {"intervene": 2, "measure_effects": 2, "claims": 1, "confirm": 1}
