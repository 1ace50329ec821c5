"""Where question and picture meet, on the miniature: what is known to be true of it."""

from pathlib import Path

import yaml
from project import ROOT, copy_project, keep_examples, run

from blip_tracing.machinery.tables import read_table
from blip_tracing.meaning.analyses.fusion import FUSED, PICTURE, QUESTION, RESTORED
from blip_tracing.vocabulary.tables import NO_OP

FEWEST = 6


def test_before_the_first_cross_attention_no_place_carries_the_picture(tmp_path: Path) -> None:
    """Whatever the noise; and a clean word put back changes nothing where it is clean already."""
    project = copy_project(tmp_path / "project")
    (project / "config/examples.tsv").write_text((ROOT / "config/examples.tsv").read_text())
    keep_examples(project, FEWEST)
    config = yaml.safe_load((ROOT / "config/analyses.yaml").read_text())
    asked = config["analyses"]["fusion"]
    config["analyses"] = {"fusion": asked}
    config["experiments"] = {name: config["experiments"][name] for name in asked.values()}
    for experiment in config["experiments"].values():
        experiment["sites"] = ["encoder.block_input"]
        config["runs"][experiment["receiver"]]["corrupt"]["draws"] = 2
    config["runs"] = {
        each["receiver"]: config["runs"][each["receiver"]]
        for each in config["experiments"].values()
    }
    config["effects"] |= {"resamples": 200, "total_effect": 0}
    (project / "config/fusion.yaml").write_text(yaml.safe_dump(config))
    run(project, "reports/fusion.html", "--configfile", "config/fusion.yaml")
    table = read_table(project / "results/tables/fusion.csv")
    first = table[table["layer"] == 0]
    assert set(first["known"]) == {NO_OP}
    assert first[RESTORED[PICTURE]].abs().max() < 1e-6
    assert first[RESTORED[QUESTION]].abs().max() > 1e-3
    assert not first["kind"].isin([PICTURE, FUSED]).any()
    assert table["pictures"].max() == FEWEST
    verdicts = read_table(project / "results/tables/fusion_verdicts.csv")
    places = verdicts[verdicts["about"] == "encoder.block_input"]
    said = dict(zip(places["statement"], places["verdict"], strict=True))
    layers = table["layer"].nunique()
    for kind in (PICTURE, FUSED):
        could = said[f"places: {kind}"].split()[-2]
        assert int(could) == len(table) * (layers - 1) // layers
