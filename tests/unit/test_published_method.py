"""What was done and what a publication did, told of the runs that have what it must have alone."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import ROOT
from stories import made_up_run, write_page

from blip_tracing.errors import InputError
from blip_tracing.given.methods import Method, changes_of, read_method
from blip_tracing.given.settings import fill_config
from blip_tracing.printing.document import write_document
from blip_tracing.telling.method import blocks_of, claim_of, method_of_run
from blip_tracing.telling.methods import methods_of
from blip_tracing.telling.story import tell
from blip_tracing.telling.told import Block, Run
from blip_tracing.vocabulary.corruptions import KINDS

METHODS = sorted((ROOT / "config/methods").glob("*.md"))
NAMES = [path.stem for path in METHODS]


def config_of(name: str) -> dict[str, Any]:
    return fill_config(yaml.safe_load((ROOT / f"config/{name}.yaml").read_text(encoding="utf-8")))


# ---- what ships --------------------------------------------------------------------------------


def test_every_named_configuration_has_its_method_and_the_index_names_all() -> None:
    assert set(NAMES) == {
        "blip-vqa-base", "palit-2023", "palit-2023-scale", "rome-style", "notice-2025",
    }  # fmt: skip
    index = (ROOT / "config/methods.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert config_of(name)["method"] == f"config/methods/{name}.md"
        assert f"(methods/{name}.md)" in index
        assert f"`{name}.yaml`" in index


@pytest.mark.parametrize("name", NAMES)
def test_a_named_configuration_has_what_its_method_must_have(name: str) -> None:
    method = read_method(ROOT / f"config/methods/{name}.md")
    assert changes_of(method.must, config_of(name)) == []
    # Of every run that is corrupted, and of every experiment that is asked, something is said.
    assert set(method.must) <= {"examples", "runs", "experiments"}
    for asked in method.must["experiments"].values():
        assert {"receiver", "donor", "window", "positions"} <= set(asked)
    for run in method.must.get("runs", {}).values():
        drawn = KINDS[run["corrupt"]["kind"]].drawn
        # The level of what draws nothing is solved for.
        said = {"levels", "draws"} if drawn else set()
        assert {"kind", "at", "role", *said} <= set(run["corrupt"])


@pytest.mark.parametrize("name", NAMES)
def test_its_text_says_what_was_done_there_and_here_and_what_differs(name: str) -> None:
    blocks = blocks_of(read_method(ROOT / f"config/methods/{name}.md").text)
    strong = [text for block in blocks for text, style in block.words if style == "strong"]
    for heading in ("What was done there.", "What is done here.", "Where it differs, and why."):
        assert heading in strong
    (table,) = (block for block in blocks if block.kind == "table")
    assert [cell[0][0] for cell in table.rows[0]] == ["there", "here", "why"]
    assert {len(row) for row in table.rows} == {3}


# ---- a run that is another ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("palit-2023", "runs.noisy.corrupt.levels", [3], "is [3] instead of [5]"),
        ("palit-2023", "runs.noisy.corrupt.kind", "scale", "is scale instead of multiplicative"),
        ("palit-2023", "runs.noisy.corrupt.at", "picture.pixels",
         "is picture.pixels instead of picture.states"),
        ("palit-2023", "runs.noisy.corrupt.draws", 1, "is 1 instead of 10"),
        ("palit-2023", "experiments.decoder.sites", [], "is [] instead of [decoder.block_output]"),
        ("rome-style", "experiments.windows.window", 5, "is 5 instead of 10"),
        ("rome-style", "runs.noisy.corrupt.role", "", 'is "" instead of noun'),
        ("rome-style", "runs.noisy.corrupt.unit", "absolute", "is absolute instead of std"),
        ("notice-2025", "experiments.heads.receiver", "base", "is base instead of source"),
        ("notice-2025", "experiments.heads.heads", [3], "is [3] instead of []"),
        ("blip-vqa-base", "experiments.tracing.positions", "all", "is all instead of each"),
    ],
)  # fmt: skip
def test_what_a_run_changes_is_said_in_one_line_and_the_method_is_not_claimed(
    name: str, key: str, value: Any, said: str
) -> None:
    config = deepcopy(config_of(name))
    *path, last = key.split(".")
    group = config
    for part in path:
        group = group[part]
    group[last] = value
    method = read_method(ROOT / config["method"])
    assert changes_of(method.must, config) == [f"{key} {said}"]
    claim, is_it = claim_of(method, config)
    assert not is_it
    assert f"is not that of {method.title}" in claim
    assert f"{key} {said}" in claim
    assert "\n" not in claim
    told = method_of_run(run_of(config, method))
    assert told
    assert told.blocks == ()


def run_of(config: dict[str, Any], method: Method | None) -> Run:
    return Run(config, [], {}, {}, {}, method=method)


def test_a_run_that_is_the_methods_tells_its_text() -> None:
    config = config_of("palit-2023")
    method = read_method(ROOT / config["method"])
    told = method_of_run(run_of(config, method))
    assert told
    assert "must have to be called so (palit-2023.md)" in told.claim
    assert told.blocks == blocks_of(method.text)
    assert len(told.blocks) > 5


def test_a_run_that_names_no_method_tells_none() -> None:
    assert method_of_run(run_of(config_of("palit-2023"), None)) is None


def test_an_experiment_or_a_run_that_is_left_out_is_a_change_and_one_more_is_none() -> None:
    config = config_of("palit-2023")
    must = read_method(ROOT / config["method"]).must
    more = deepcopy(config)
    more["experiments"]["another"] = more["experiments"]["encoder"]
    more["runs"]["another"] = more["runs"]["noisy"]
    assert changes_of(must, more) == []
    del more["experiments"]["encoder"]
    del more["runs"]["noisy"]
    assert changes_of(must, more) == ["runs.noisy is left out", "experiments.encoder is left out"]


def test_lists_and_numbers_are_compared_by_what_they_hold() -> None:
    must = {"levels": [1, 5], "sites": ["a", "b"]}
    assert changes_of(must, {"levels": [5.0, 1.0], "sites": ["b", "a"]}) == []
    assert len(changes_of(must, {"levels": [5.0], "sites": ["b", "a", "c"]})) == 2


# ---- what a text holds -------------------------------------------------------------------------


def test_markdown_becomes_words_and_how_they_are_set() -> None:
    text = (
        "# Title\n\nWords that **are\nstrong** and *slant* and `code` and [a link](http://x.y).\n\n"
        "## Below\n\n- one\n- **two**\n\n| there | here |\n| --- | --- |\n| `a` | b, *c* |\n"
    )
    assert blocks_of(text) == (
        Block(
            "paragraph",
            (
                ("Words that ", ""), ("are", "strong"), (" ", "strong"), ("strong", "strong"),
                (" and ", ""), ("slant", "emphasis"), (" and ", ""), ("code", "code"),
                (" and ", ""), ("a link", ""), (".", ""),
            ),
        ),
        Block("heading", (("Below", ""),)),
        Block("item", (("one", ""),)),
        Block("item", (("two", "strong"),)),
        Block(
            "table",
            rows=(
                ((("there", ""),), (("here", ""),)),
                ((("a", "code"),), (("b, ", ""), ("c", "emphasis"))),
            ),
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    "raw", ["<script>alert(1)</script>", "a <b onclick=x>bold</b> word", "<!-- hidden -->"]
)
def test_raw_html_is_words(raw: str) -> None:
    """So that the page's template escapes it."""
    (block, *_) = blocks_of(f"{raw}\n\nmore")
    assert "".join(text for text, _ in block.words) == raw


# ---- files that are none -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# A method\n", "has no head; begin it with title and must between lines of ---"),
        ("---\ntitle: [\n---\nwords\n", "its head is not YAML"),
        ("---\n- title\n---\nwords\n", "has no head"),
        ("---\ntitle: a\n---\nwords\n", "its head has no title or no group must"),
        ("---\nmust: {}\n---\nwords\n", "its head has no title or no group must"),
    ],
)
def test_a_file_that_is_no_method_is_told_in_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "method.md"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read_method(path)
    assert str(refused.value).startswith(f"{path}: {message}")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"method: .*nowhere\.md cannot be read \(No such file"):
        read_method(tmp_path / "nowhere.md")


def test_a_method_is_known_by_its_files_name_wherever_it_lies(tmp_path: Path) -> None:
    """So that what is told does not depend on the machine."""
    shipped = read_method(METHODS[0])
    copy = tmp_path / METHODS[0].name
    copy.write_bytes(METHODS[0].read_bytes())
    assert read_method(copy) == shipped
    assert replace(shipped, name="other.md") != shipped


# ---- where it is told --------------------------------------------------------------------------

TEXT = (
    "# A title\n\n**What was done there.** A state & <i>another</i>, `at.a_site`.\n\n"
    "| there | here | why |\n| --- | --- | --- |\n| *one* draw | ten | [cheaper](http://x.y) |\n"
)
MORE = {"pictures": 3, "given_answers": False, "snakemake": "9.9.9"}
SAID = ("A state & <i>another</i>, ", "at.a_site", "draw", "ten", "cheaper")
REPORT = ROOT / "workflow/report"


@pytest.fixture(scope="module")
def told_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Run]:
    """A run that is the method's, and one that is not."""
    made_up = made_up_run(tmp_path_factory.mktemp("made_up"))
    seed = made_up.config["effects"]["seed"]
    return {
        is_it: replace(
            made_up,
            method=Method("some.md", "Some & others (1999)", {"effects": {"seed": of}}, TEXT),
        )
        for is_it, of in ((True, seed), (False, seed + 1))
    }


def texts_of(run: Run, folder: Path) -> dict[str, str]:
    """What is read in the page, the document and the methods, each without white space."""
    story = tell(run)
    page = re.sub(r"<[^>]+>", "", write_page(run, folder / "index.html").partition("<main")[2])
    write_document(story, REPORT / "story.typ", folder / "story.pdf")
    pypdf = pytest.importorskip("pypdf", reason="pypdf, which reads PDFs, is not installed")
    pages = pypdf.PdfReader(folder / "story.pdf").pages
    found = {
        "page": unescape(page),
        "document": "".join(each.extract_text() for each in pages),
        "methods": methods_of(run, story, REPORT / "methods.md.j2", MORE),
    }
    return {name: "".join(text.split()) for name, text in found.items()}


def test_the_page_the_document_and_the_methods_tell_it(
    told_runs: dict[bool, Run], tmp_path: Path
) -> None:
    for text in texts_of(told_runs[True], tmp_path).values():
        for words in ("What was done, and what Some & others (1999) did", *SAID):
            assert "".join(words.split()) in text
        assert "isnotthatof" not in text


def test_none_of_them_claims_the_method_of_a_run_that_is_another(
    told_runs: dict[bool, Run], tmp_path: Path
) -> None:
    for text in texts_of(told_runs[False], tmp_path).values():
        assert "ThisrunisnotthatofSome&others(1999)" in text
        assert "effects.seedis3insteadof4" in text
        assert "at.a_site" not in text
        assert "cheaper" not in text


def test_raw_html_is_escaped_and_a_link_leads_nowhere(
    told_runs: dict[bool, Run], tmp_path: Path
) -> None:
    page = write_page(told_runs[True], tmp_path / "index.html")
    assert "&lt;i&gt;another&lt;/i&gt;" in page
    assert "<i>another" not in page
    assert "http://x.y" not in page
    assert '<td class="words"><em>one</em> draw</td>' in page
    assert "<code>at.a_site</code>" in page
