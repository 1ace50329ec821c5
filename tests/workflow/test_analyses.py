"""All of `config/analyses.yaml` on the miniature: each analysis has its page, tables, verdicts."""

from html import unescape
from pathlib import Path

import pandas as pd
import pytest
import yaml
from project import ROOT, copy_project, run

from blip_tracing.machinery.tables import read_table
from blip_tracing.meaning.evidence import VERDICTS
from blip_tracing.vocabulary.analyses import ANALYSES

pytestmark = pytest.mark.workflow

CONFIG = yaml.safe_load((ROOT / "config/analyses.yaml").read_text())
ASKED = list(CONFIG["analyses"])


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of fewer draws; the experiments' own pages are not asked for."""
    project = copy_project(tmp_path_factory.mktemp("analyses") / "project")
    # Leaving one picture out takes seven, which all twelve rows have.
    (project / "config/examples.tsv").write_text((ROOT / "config/examples.tsv").read_text())
    for noisy in CONFIG["runs"].values():
        noisy["corrupt"]["draws"] = 3
    CONFIG["effects"]["resamples"] = 200
    CONFIG["report"]["examples"] = 1
    (project / "config/few.yaml").write_text(yaml.safe_dump(CONFIG))
    pages = [f"reports/{name}.html" for name in ["index", *ASKED]]
    run(project, *pages, "--configfile", "config/few.yaml")
    return project


def verdicts_of(project: Path, name: str) -> pd.DataFrame:
    return read_table(project / f"results/tables/{name}_verdicts.csv")


def test_all_analyses_but_the_one_of_halves_are_asked() -> None:
    assert {*ASKED, "confirm"} == set(ANALYSES)


@pytest.mark.parametrize("name", ASKED)
def test_an_analysis_is_told_on_its_page_and_on_the_first(analysed: Path, name: str) -> None:
    verdicts = verdicts_of(analysed, name)
    assert list(verdicts) == VERDICTS
    assert len(verdicts)
    assert verdicts["verdict"].notna().all()
    index, own = (
        unescape((analysed / f"reports/{page}.html").read_text(encoding="utf-8"))
        for page in ("index", name)
    )
    assert f'id="analysis-{name}"' in index
    assert f'href="{name}.html"' in index
    for verdict in verdicts["verdict"].unique():
        assert verdict in index
        assert verdict in own


def test_at_the_decoders_last_stream_every_universe_finds_the_one_place(analysed: Path) -> None:
    """[DEC] is all that is left there of what the decoder has read: a place that must be found."""
    verdicts = verdicts_of(analysed, "multiverse")
    last = f"layer {CONFIG['model']['layers']['decoder'] - 1}, [DEC]"
    found = verdicts[(verdicts["about"] == "decoder.block_input") & (verdicts["statement"] == last)]
    assert found["verdict"].tolist() == ["survives in all"]


def test_all_positions_together_do_no_more_than_give_the_clean_answer(analysed: Path) -> None:
    """So that the sum of many, each of which brings some of it back, cannot be reached."""
    table = read_table(analysed / "results/tables/synergy.csv")
    whole = table[(table["joint"] == "whole") & (table["quantity"] == "probability_change")]
    families = read_table(analysed / "results/tables/families.csv")
    effect = families.loc[families["experiment"] == "whole", "total_effect"].iloc[0]
    assert (whole["together"] <= effect + 1e-3).all()
