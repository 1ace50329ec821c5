"""Against published averages: the workflow on the miniature, what was published a plain loop."""

from __future__ import annotations

from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from compare_averages import hold
from plain_palit import publish
from project import EXAMPLES, ROOT, copy_project, run
from twins import twin

from blip_tracing.given.sheet import load_sheet
from blip_tracing.machinery.tables import read_table
from blip_tracing.meaning.replication.averages import MET
from blip_tracing.meaning.replication.compare import AGREES, CANNOT_TELL, DIFFERS
from blip_tracing.meaning.replication.published_averages import Held

DECODER, LAYERS, LEVEL = "decoder.block_output", 6, 5.0
# Of the miniature's four examples so many that all of a map can be told to within 0.05.
DRAWS, FEW = 400, 3
HELD = Held("noisy", LEVEL, True, False, {DECODER: "decoder"}, "together", same_examples=True)


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    rows: Any = load_sheet(ROOT / "config/examples.tsv").to_dict("records")
    return publish(rows[:EXAMPLES], [DECODER], LEVEL, DRAWS, seed=20_230_822)


@pytest.fixture(scope="module")
def finished(published: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The method's twin run whole, of the decoder, against the plain loop's averages."""
    project = copy_project(tmp_path_factory.mktemp("averages") / "project")
    published.to_csv(project / "published.csv", index=False)
    config = twin(project, "palit-2023", "config/examples.tsv")
    del config["experiments"]["encoder"]
    config["runs"]["noisy"]["corrupt"]["draws"] = DRAWS
    changes = {key: config[key] for key in ("experiments", "runs")}
    config = twin(
        project, "palit-2023", "config/examples.tsv", **changes, published="published.csv",
        controls={"donors": 1, "null_draws": 1}, report={"examples": 1, "draws_at": LEVEL},
    )  # fmt: skip
    config["effects"]["resamples"] = 200
    (project / "config/palit-2023-twin.yaml").write_text(yaml.safe_dump(config))
    run(project, "reports/replication.html", "reports/index.html", "--configfile",
        "config/palit-2023-twin.yaml")  # fmt: skip
    return project


def verdicts_of(
    published: pd.DataFrame, finished: Path, draws: int = DRAWS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The verdicts by quantity, and the expectations, of the run's first draws."""
    tables = {}
    for name, ending in (("runs", "csv"), ("decoder", "parquet"), ("together", "parquet")):
        table = read_table(finished / f"results/tables/{name}.{ending}")
        tables[name] = table[~(table["draw"] >= draws)]
    _, verdicts, expectations = hold(published, tables, HELD, LAYERS, 0)
    return verdicts.set_index("quantity"), expectations


@pytest.mark.workflow
def test_a_faithful_run_agrees_and_says_so(finished: Path) -> None:
    verdicts = read_table(finished / "results/tables/verdicts.csv").set_index("quantity")
    assert verdicts["verdict"].to_dict() == {
        DECODER: AGREES, f"floor {DECODER}": AGREES, "clean": AGREES,
    }  # fmt: skip
    expectations = read_table(finished / "results/tables/expectations.csv")
    # Without the encoder's cells [SEP] cannot be told.
    assert expectations["verdict"].tolist()[:3] == [MET] * 3
    for page in ("replication", "index"):
        text = unescape((finished / f"reports/{page}.html").read_text(encoding="utf-8"))
        assert f"cells of {DECODER}" in text
        assert "Of 3 published quantities that were judged 3 agree with this run" in text
        assert expectations["expectation"][1] in text
    log = (finished / "results/logs/compare_averages.log").read_text()
    assert f"cells of {DECODER}: agrees" in log
    drawn = {path.name for path in (finished / "reports/figures/replication").glob("*.png")}
    assert drawn == {f"averages_{DECODER}.png", f"difference_{DECODER}.png"}


@pytest.mark.workflow
def test_a_map_that_is_a_layer_off_differs(published: pd.DataFrame, finished: Path) -> None:
    of_map = published["quantity"] == "mean"
    shifted = published.assign(
        layer=published["layer"].where(~of_map, (published["layer"] + 1) % LAYERS)
    )
    verdicts, expectations = verdicts_of(shifted, finished)
    assert verdicts.loc[DECODER, "verdict"] == DIFFERS
    assert str(verdicts.loc[DECODER, "where"]).startswith("layer ")
    assert verdicts.loc["clean", "verdict"] == AGREES
    assert expectations["verdict"].tolist()[:3] == [MET] * 3


@pytest.mark.workflow
def test_few_draws_cannot_tell(published: pd.DataFrame, finished: Path) -> None:
    verdicts, _ = verdicts_of(published, finished, FEW)
    assert set(verdicts.loc[[DECODER, f"floor {DECODER}"], "verdict"]) == {CANNOT_TELL}
