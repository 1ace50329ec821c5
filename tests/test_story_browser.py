"""The story's page as a browser shows it, on a laptop, on a phone and on paper."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from stories import SHOWN, made_up_run, write_page

from blip_tracing.story import Map, Story, tell

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.expected_conditions import (  # noqa: E402
    presence_of_element_located,
)
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.browser

PROGRAMS = {"Chromium": ("chromium", "chromium-browser", "google-chrome"),
            "its driver, chromedriver": ("chromedriver",)}  # fmt: skip
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
)
WIDTHS = (1280, 400)
PATIENCE = 20
# Of a page of A4, in inches.
PAPER = {"paperWidth": 8.27, "paperHeight": 11.69}

Chrome = webdriver.Chrome


@pytest.fixture(scope="module")
def programs() -> dict[str, str]:
    """Where the browser and its driver lie."""
    found = {name: next(filter(None, map(shutil.which, names)), "")
             for name, names in PROGRAMS.items()}  # fmt: skip
    if missing := [name for name, path in found.items() if not path]:
        pytest.skip(f"no {' and no '.join(missing)} on the path")
    return found


@pytest.fixture(scope="module")
def browser(programs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    binary, driver = programs.values()
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Story, Path]:
    """A story and its page."""
    folder = tmp_path_factory.mktemp("told")
    run = made_up_run(folder)
    write_page(run, folder / "index.html")
    return tell(run), folder / "index.html"


@pytest.fixture(params=WIDTHS)
def opened(browser: Chrome, told: tuple[Story, Path], request: pytest.FixtureRequest) -> Chrome:
    return show(browser, told[1], request.param)


def show(browser: Chrome, page: Path, width: int) -> Chrome:
    """The browser with the page in a window so wide."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("browser")  # empties it of what came before
    browser.get(page.as_uri())
    return browser


def draw_all(browser: Chrome) -> None:
    """Scroll every plot into view, and wait until it is drawn."""
    for plot in browser.find_elements(By.CLASS_NAME, "plot"):
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
        inside = (By.CSS_SELECTOR, f"[id='{plot.get_attribute('id')}'] .main-svg")
        WebDriverWait(browser, PATIENCE).until(presence_of_element_located(inside))


def point_at(browser: Chrome, one: Map, cell: Any) -> str:
    """Move the pointer to a cell of a map; the answer is what the page then shows beside it."""
    plot = browser.find_element(By.ID, one.name)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    wait = WebDriverWait(browser, PATIENCE)
    ground = wait.until(lambda _: plot.find_element(By.CSS_SELECTOR, ".bglayer rect, .bg"))
    rows, layers = one.cells["place"].nunique(), one.cells["layer"].nunique()
    area = ground.size
    across = ((cell["layer"] + 0.5) / layers - 0.5) * area["width"]
    down = ((cell["place"] + 0.5) / rows - 0.5) * area["height"]
    label = browser.find_element(By.ID, "told")

    ActionChains(browser).move_to_element_with_offset(ground, across, down).perform()
    expected = f"layer {cell['layer']}, {cell['label']}"
    wait.until(lambda _: label.text.startswith(expected))
    return label.text


def test_the_console_stays_empty(opened: Chrome) -> None:
    draw_all(opened)
    assert opened.get_log("browser") == []


def test_every_picture_and_every_font_is_shown(opened: Chrome) -> None:
    widths = opened.execute_script("return [...document.images].map((i) => i.naturalWidth)")
    assert len(widths) == len(SHOWN)
    assert all(width > 0 for width in widths)
    states = opened.execute_async_script(
        "const done = arguments[0];"
        "document.fonts.ready.then(() => done([...document.fonts].map((f) => f.status)))"
    )
    assert states == ["loaded"] * 3


def test_nothing_is_wider_than_the_window(opened: Chrome) -> None:
    draw_all(opened)
    inside, whole = opened.execute_script(
        "return [innerWidth, document.scrollingElement.scrollWidth]"
    )
    assert whole <= inside
    # Nor is anything cut that cannot be scrolled to.
    cut = opened.execute_script(
        "return [...document.querySelectorAll('body *:not(svg *)')].filter((e) => "
        "e.getBoundingClientRect().right > innerWidth && !e.closest('.table, pre'))"
        ".map((e) => e.outerHTML.slice(0, 100))"
    )
    assert cut == []


def test_names_of_rows_and_layers_lie_inside_their_plots(opened: Chrome) -> None:
    draw_all(opened)
    outside = opened.execute_script(
        "return [...document.querySelectorAll('.plot')].flatMap((plot) => {"
        "  const frame = plot.getBoundingClientRect();"
        "  return [...plot.querySelectorAll('text')].filter((text) => {"
        "    const box = text.getBoundingClientRect();"
        "    return box.left < frame.left - 1 || box.right > frame.right + 1"
        "      || box.bottom > frame.bottom + 1 || box.top < frame.top - 1;"
        "  }).map((text) => `${plot.id}: ${text.textContent}`);"
        "})"
    )
    assert outside == []


def test_pointing_at_a_cell_shows_its_value(opened: Chrome, told: tuple[Story, Path]) -> None:
    story, _ = told
    group = story.examples[1].maps[-1]
    one = group.maps[-1]
    for _, cell in one.cells.iloc[[0, -1]].iterrows():
        head, value, *others = point_at(opened, one, cell).splitlines()
        assert head == f"layer {cell['layer']}, {cell['label']}"
        numbers = [f"{cell[name]:+.3f}".replace("-", "−") for name in ("value", "low", "high")]
        assert value == "{}: {} ({} to {})".format(group.measure, *numbers)
        assert others == [f"unrelated example's state: {cell[one.cells.columns[-1]]}"]
    box = opened.find_element(By.ID, "told").rect
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= opened.execute_script("return innerWidth")


def test_pointing_at_an_average_shows_its_test(opened: Chrome, told: tuple[Story, Path]) -> None:
    (one,) = told[0].averages[0].maps
    shown = point_at(opened, one, one.cells.iloc[0])
    assert "p (family): 0.500" in shown
    assert "examples: 3" in shown


def test_the_printed_page_has_every_map(browser: Chrome, told: tuple[Story, Path]) -> None:
    """Also those that nobody has scrolled to."""
    pypdf = pytest.importorskip("pypdf", reason="pypdf is not installed")
    story, page = told
    show(browser, page, WIDTHS[0])
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, **PAPER})
    reader = pypdf.PdfReader(BytesIO(base64.b64decode(printed["data"])))
    text = "".join("".join(sheet.extract_text() for sheet in reader.pages).split())
    maps = [one for shown in story.examples for group in shown.maps for one in group.maps]
    last_rows = [one.cells["label"].iloc[-1] for one in maps]
    assert text.count("8[SEP]") + text.count("9[SEP]") == len(last_rows)
    images = sum(len(sheet.images) for sheet in reader.pages)
    averages = sum(len(group.maps) for group in story.averages)
    assert images >= len(maps) + averages + len(SHOWN)
