"""The story's page as a browser shows it, on a laptop, on a phone and on paper."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stories import SHOWN, SITES, made_up_run, scored_by_all, write_page
from synthetic_tables import Asked

from blip_tracing.telling.story import tell
from blip_tracing.telling.told import MARK, Map, MapGroup, Story
from blip_tracing.telling.words import brief, with_interval

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
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
# Pixels of a letter.
SMALLEST = 7
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


def start(programs: dict[str, str], profile: Path, **preferences: Any) -> Chrome:
    binary, driver = programs.values()
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", preferences)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(driver))


@pytest.fixture(scope="module")
def browser(programs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    chrome = start(programs, tmp_path_factory.mktemp("profile"))
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def without_scripts(
    programs: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Chrome]:
    off = {"profile.managed_default_content_settings.javascript": 2}
    chrome = start(programs, tmp_path_factory.mktemp("profile"), **off)
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Story, Path]:
    """A story and its page."""
    folder = tmp_path_factory.mktemp("told")
    run = scored_by_all(made_up_run(folder))
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


def see_all(browser: Chrome) -> None:
    """Have everything laid out, not only what is near the window."""
    browser.execute_script(
        "document.head.insertAdjacentHTML('beforeend',"
        " '<style>.group { content-visibility: visible !important; }</style>');"
        "document.querySelectorAll('details').forEach((details) => { details.open = true; })"
    )


def cell_of(browser: Chrome, one: Map, cell: Any) -> WebElement:
    row = f"[id='{one.name}'] tbody tr:nth-child({cell['place'] + 1})"
    return browser.find_element(By.CSS_SELECTOR, f"{row} td:nth-of-type({cell['layer'] + 1})")


def point_at(browser: Chrome, one: Map, cell: Any) -> str:
    """Move the pointer to a cell of a map; the answer is what the page then shows beside it."""
    place = cell_of(browser, one, cell)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", place)
    ActionChains(browser).move_to_element(place).perform()
    return shown_beside(browser)


def shown_beside(browser: Chrome) -> str:
    label = browser.find_element(By.ID, "told")
    WebDriverWait(browser, PATIENCE).until(lambda _: label.is_displayed())
    return label.text


def press(browser: Chrome, *keys: str) -> str:
    """Press keys one after the other; the answer is the first line that the page then shows."""
    ActionChains(browser).send_keys(*keys).perform()
    return shown_beside(browser).splitlines()[0]


def head_of(cell: Any) -> str:
    return f"layer {cell['layer']}, {cell['label']}"


def test_the_console_stays_empty(opened: Chrome) -> None:
    see_all(opened)
    assert opened.get_log("browser") == []


def test_every_picture_and_every_font_is_shown(opened: Chrome) -> None:
    widths = opened.execute_script("return [...document.images].map((i) => i.naturalWidth)")
    # That of the first example also stands at the beginning.
    assert len(widths) == len(SHOWN) + 1
    assert all(width > 0 for width in widths)
    states = opened.execute_async_script(
        "const done = arguments[0];"
        "document.fonts.ready.then(() => done([...document.fonts].map((f) => f.status)))"
    )
    assert states == ["loaded"] * 3


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1), (100, 480)])
def test_a_picture_of_any_shape_keeps_to_its_place(
    browser: Chrome, tmp_path: Path, shape: tuple[int, int]
) -> None:
    run = made_up_run(tmp_path)
    for path in run.pictures.values():
        Image.new("RGB", shape, "red").save(path)
    write_page(run, tmp_path / "index.html")
    show(browser, tmp_path / "index.html", WIDTHS[0])
    see_all(browser)
    sides = browser.execute_script(
        "return [...document.images].map((i) => [i.clientWidth, i.clientHeight])"
    )
    assert len(sides) == len(SHOWN) + 1
    assert all(0 < width < 300 and height < 300 for width, height in sides), sides


def test_nothing_is_wider_than_the_window(opened: Chrome) -> None:
    see_all(opened)
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


def darkness_at_the_sides(table: WebElement) -> tuple[float, float]:
    """How much darker than white the outermost pixels of a table are, on the left and right."""
    shown = np.asarray(Image.open(BytesIO(table.screenshot_as_png)).convert("L"), float)
    return tuple(float(np.median(255 - strip)) for strip in (shown[:, 1], shown[:, -2]))  # type: ignore[return-value]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_is_shaded_where_it_can_be_scrolled_to(
    browser: Chrome, told: tuple[Story, Path], width: int
) -> None:
    opened = show(browser, told[1], width)
    tables = opened.find_elements(By.CSS_SELECTOR, ".table:not(.overview)")
    wider = [
        table
        for table in tables
        if opened.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth",
                                 table)
    ]  # fmt: skip
    assert bool(wider) == (width == 400)
    for table in tables:
        left, right = darkness_at_the_sides(table)
        assert left < 5
        assert (right > 20) == (table in wider)
    for table in wider:
        opened.execute_script("arguments[0].scrollLeft = 9999", table)
        left, right = darkness_at_the_sides(table)
        assert left > 20
        assert right < 5


@pytest.fixture(params=[(2, 1280), (2, 400), (12, 1280), (12, 400), (24, 400)])
def crowded(browser: Chrome, tmp_path: Path, request: pytest.FixtureRequest) -> Chrome:
    """A page of few or many layers, with long words, in a window of some width."""
    layers, width = request.param
    long = "what is the color of the internationalization that stands behind it"
    asked = {"x": Asked(long, long.replace("internationalization", "extraordinariness"), "a", "b")}
    run = made_up_run(tmp_path, shown=["x"], asked=asked, layers=layers, draws=2)
    write_page(run, tmp_path / "index.html")
    return show(browser, tmp_path / "index.html", width)


def test_no_word_of_a_map_or_of_the_chart_is_cut_or_lies_on_another(crowded: Chrome) -> None:
    see_all(crowded)
    faults = crowded.execute_script(
        "const shown = (e) => parseFloat(getComputedStyle(e).fontSize) > 0 && e.textContent.trim();"
        "const boxOf = (e) => { const range = document.createRange();"
        "  range.selectNodeContents(e.firstChild); return range.getBoundingClientRect(); };"
        "return [...document.querySelectorAll('.map, .chart')].flatMap((plot) => {"
        "  const frame = plot.getBoundingClientRect();"
        "  const texts = [...plot.querySelectorAll('th, td, .level > span, .across span')]"
        "    .filter(shown).map((e) => [e, boxOf(e)]);"
        "  return texts.flatMap(([e, box], place) => {"
        "    const cut = box.left < frame.left - 1 || box.right > frame.right + 1;"
        "    const [after, next] = texts[place + 1] ?? [];"
        "    const over = next && next.top < box.bottom - 1 && next.bottom > box.top + 1"
        "      && next.left < box.right - 1 && next.right > box.left + 1;"
        "    return cut || over ? [`${plot.id}: ${e.textContent} ${cut ? 'cut' : 'over'}`] : [];"
        "  });"
        "})"
    )
    assert faults == []


def test_numbers_in_cells_are_legible_or_not_there(crowded: Chrome) -> None:
    see_all(crowded)
    sizes = crowded.execute_script(
        "return [...document.querySelectorAll('.map td, .map th')]"
        ".map((e) => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert all(size == 0 or size >= SMALLEST for size in sizes)
    assert any(size > 0 for size in sizes)


def test_the_page_asks_for_no_other_address(browser: Chrome, told: tuple[Story, Path]) -> None:
    browser.get("about:blank")
    browser.get_log("performance")
    show(browser, told[1], WIDTHS[0])
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in sent
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert told[1].as_uri() in asked
    outside = [url for url in asked if url != told[1].as_uri() and not url.startswith("data:")]
    assert outside == []


def test_zero_is_white_and_words_are_dark(opened: Chrome) -> None:
    white, dark = "rgb(255, 255, 255)", "rgb(26, 26, 26)"
    ground, ink, plain, loss, gain = opened.execute_script(
        "const look = (e) => getComputedStyle(e);"
        "const ground = (at) => look(document.querySelector(at)).backgroundColor;"
        "return [ground('body'), look(document.body).color,"
        "  ground('.map tbody td:not([class])'), ground('[class^=loss]'), ground('[class^=gain]')]"
    )
    assert (ground, ink) == (white, dark)
    assert plain in (white, "rgba(0, 0, 0, 0)")
    assert len({white, loss, gain}) == 3


def test_pointing_at_a_cell_shows_its_value(opened: Chrome, told: tuple[Story, Path]) -> None:
    story, _ = told
    group = story.examples[1].maps[-1]
    one = primary_of(group)
    see_all(opened)
    for _, cell in one.cells.iloc[[0, -1]].iterrows():
        head, value, *others = point_at(opened, one, cell).splitlines()
        assert head == head_of(cell)
        numbers = [f"{cell[name]:+.3f}".replace("-", "−") for name in ("value", "low", "high")]
        assert value == "{}: {} ({} to {})".format(group.measure, *numbers)
        assert others == [f"null: {cell['null']}", f"hidden: {cell['hidden']}"]
    box = opened.find_element(By.ID, "told").rect
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= opened.execute_script("return innerWidth")


def test_pointing_at_an_average_shows_its_test(opened: Chrome, told: tuple[Story, Path]) -> None:
    (one,) = told[0].averages[0].maps
    shown = point_at(opened, one, one.cells.iloc[0])
    assert "minus the null: " in shown
    assert "examples: 3" in shown


def test_pointing_at_the_chart_shows_its_means(opened: Chrome, told: tuple[Story, Path]) -> None:
    points = opened.find_elements(By.CSS_SELECTOR, "#noise ~ .chart .runs .square i")
    means = told[0].means
    rows = means[means["run"] == "nothing restored"].to_dict("records")
    for point, row in zip(points, rows, strict=True):
        opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
        ActionChains(opened).move_to_element(point).perform()
        assert shown_beside(opened).splitlines() == [
            f"nothing restored, σ = {row['noise_level']:g}",
            f"{row['mean']:.3f}",
        ]


def test_the_browser_does_not_show_what_the_page_shows(
    opened: Chrome, told: tuple[Story, Path]
) -> None:
    """Its own label would lie over the page's."""
    (one,) = told[0].averages[0].maps
    cell = one.cells.iloc[0]
    words = point_at(opened, one, cell)
    place = cell_of(opened, one, cell)
    assert not place.get_attribute("title")
    assert place.get_attribute("aria-label") == words


def test_keys_move_between_the_cells_of_a_map(opened: Chrome, told: tuple[Story, Path]) -> None:
    one = primary_of(told[0].examples[1].maps[-1])
    see_all(opened)
    cells = one.cells.set_index(["place", "layer"], drop=False)
    opened.execute_script(f"document.querySelector(\"[id='{one.name}'] [tabindex='0']\").focus()")
    last = cells["layer"].max()
    for keys, place in [
        ([Keys.ARROW_RIGHT], (0, 1)),
        ([Keys.ARROW_DOWN, Keys.ARROW_DOWN], (2, 1)),
        ([Keys.ARROW_LEFT], (2, 0)),
        # There is nothing beyond the edges.
        ([Keys.ARROW_LEFT], (2, 0)),
        ([Keys.END], (2, last)),
        ([Keys.HOME, Keys.ARROW_UP], (1, 0)),
        ([Keys.ARROW_UP, Keys.ARROW_UP], (0, 0)),
    ]:
        assert press(opened, *keys) == head_of(cells.loc[place])
    ActionChains(opened).send_keys(Keys.ESCAPE).perform()
    assert not opened.find_element(By.ID, "told").is_displayed()


def test_the_tab_key_stops_once_at_each_map(opened: Chrome, told: tuple[Story, Path]) -> None:
    story, _ = told
    first, second = map(primary_of, story.examples[0].maps[-2:])
    see_all(opened)
    opened.execute_script(f"document.querySelector(\"[id='{first.name}'] [tabindex='0']\").focus()")
    inside = press(opened, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    # Between the maps there is the slider of the second.
    assert press(opened, Keys.TAB, Keys.TAB) == head_of(second.cells.iloc[0])
    # And comes back to where it was.
    back = ActionChains(opened).key_down(Keys.SHIFT)
    back.send_keys(Keys.TAB, Keys.TAB).key_up(Keys.SHIFT).perform()
    assert shown_beside(opened).splitlines()[0] == inside
    stops = opened.execute_script(
        "return [...document.querySelectorAll('[role=grid]')]"
        ".map((grid) => grid.querySelectorAll(\"[tabindex='0']\").length)"
    )
    assert set(stops) == {1}


def test_keys_move_along_and_between_the_lines_of_the_chart(opened: Chrome) -> None:
    opened.execute_script(
        "document.querySelector('#noise ~ .chart .runs [tabindex=\"0\"]').focus()"
    )
    assert press(opened, Keys.ARROW_DOWN) == f"one {SITES[0]} restored, σ = 0"
    assert press(opened, Keys.ARROW_RIGHT) == f"one {SITES[0]} restored, σ = 0.5"
    assert press(opened, Keys.ARROW_UP, Keys.END) == "clean run, σ = 2"


def test_a_tapped_cell_stays_told(browser: Chrome, told: tuple[Story, Path]) -> None:
    """A finger has no place when it is lifted."""
    show(browser, told[1], WIDTHS[1])
    (one,) = told[0].averages[0].maps
    cell = one.cells.iloc[-1]
    place = cell_of(browser, one, cell)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", place)
    box = browser.execute_script(
        "const b = arguments[0].getBoundingClientRect(); return [b.x + b.width / 2, b.y + 5]", place
    )
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        touch = {"x": box[0], "y": box[1]}
        for kind, points in (("touchStart", [touch]), ("touchEnd", [])):
            event = {"type": kind, "touchPoints": points}
            browser.execute_cdp_cmd("Input.dispatchTouchEvent", event)
        assert shown_beside(browser).splitlines()[0] == head_of(cell)
    finally:
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


def test_the_page_reads_without_scripts(without_scripts: Chrome, told: tuple[Story, Path]) -> None:
    story, page = told
    for width in WIDTHS:
        show(without_scripts, page, width)
        group = story.averages[-1]
        one = group.maps[-1]
        for _, cell in one.cells.iloc[[0, -1]].iterrows():
            place = cell_of(without_scripts, one, cell)
            assert place.text.removesuffix(MARK).strip() == brief(cell["value"])
            # What the browser shows by itself.
            value = with_interval(cell["value"], cell["low"], cell["high"])
            assert (place.get_attribute("title") or "").splitlines()[0] == value
        line = without_scripts.find_element(By.CSS_SELECTOR, ".chart polyline")
        assert line.rect["width"] > 100
        hidden = without_scripts.find_elements(By.CLASS_NAME, "scripted")
        assert not any(element.is_displayed() for element in hidden)
        # All levels are there, side by side, and examples open without a script.
        shown = without_scripts.find_elements(By.CSS_SELECTOR, "#averages ~ section > .maps > .at")
        assert len(shown) == sum(not one.idle for group in story.averages for one in group.maps)
        assert all(one.is_displayed() for one in shown)
        example = without_scripts.find_element(By.CSS_SELECTOR, "details.example")
        example.find_element(By.TAG_NAME, "summary").click()
        assert example.find_element(By.CLASS_NAME, "map").is_displayed()
        assert not without_scripts.find_element(By.ID, "told").is_displayed()


def test_the_printed_page_has_every_map(browser: Chrome, told: tuple[Story, Path]) -> None:
    """Also those that nobody has scrolled to."""
    pypdf = pytest.importorskip("pypdf", reason="pypdf is not installed")
    story, page = told
    show(browser, page, WIDTHS[0])
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, **PAPER})
    reader = pypdf.PdfReader(BytesIO(base64.b64decode(printed["data"])))
    text = "".join("".join(sheet.extract_text() for sheet in reader.pages).split())
    maps = [one for shown in story.examples for group in shown.maps for one in group.maps]
    assert story.strip
    maps += story.strip.map.maps
    last_rows = [one.cells["label"].iloc[-1] for one in maps]
    assert text.count("8[SEP]") + text.count("9[SEP]") == len(last_rows)
    averages = sum(len(group.maps) for group in story.averages)
    assert text.count("layer012") == len(maps) + averages


def primary_of(group: MapGroup) -> Map:
    """The map that the slider shows at first."""
    return next(one for one in group.maps if one.primary)


def test_the_switch_shows_another_measure_in_all_maps(
    opened: Chrome, told: tuple[Story, Path]
) -> None:
    see_all(opened)
    group = told[0].averages[0]
    (one,) = group.maps
    cell = one.cells.iloc[int(one.cells["value"].abs().argmax())]
    section = opened.find_element(By.ID, one.name).find_element(By.XPATH, "ancestor::section")
    key = section.find_element(By.CLASS_NAME, "key")
    first, *others = told[0].measures
    assert [measure.name for measure in others] == list(group.limits)[1:]
    assert {"answer_probability", "rank", "kl"} < {measure.name for measure in others}
    for measure in others:
        name, near = measure.name, 0.006 if measure.bounded else 0.06
        opened.find_element(By.CSS_SELECTOR, f"[name=measure][value={name}]").click()
        place = cell_of(opened, one, cell)
        whole = abs(cell[name]) >= 9.95
        assert not measure.bounded or place.text == brief(cell[name])
        shown = float(place.text.replace("−", "-"))
        assert shown == pytest.approx(cell[name], abs=0.5 if whole else near)
        step = round(20 * cell[name] / group.limits[name])
        assert place.get_attribute("class") == f"{'gain' if step > 0 else 'loss'}{abs(step)}"
        words = measure.change_words(group.answer)
        assert words[1:] in section.find_element(By.CSS_SELECTOR, ".head > p").text
        limit = f"{group.limits[name]:g}"
        assert key.text.splitlines() == [words, f"−{limit}", f"+{limit}"]
        head, value, *_ = point_at(opened, one, cell).splitlines()
        assert head == head_of(cell)
        told_words, number = value.rsplit(": ", 1)
        assert told_words == words
        assert float(number.replace("−", "-")) == pytest.approx(cell[name], abs=near / 10)
    opened.find_element(By.CSS_SELECTOR, f"[name=measure][value={first.name}]").click()
    assert cell_of(opened, one, cell).text == brief(cell["value"])
    assert key.text.splitlines()[0] == group.measure
    assert group.caption in section.find_element(By.CSS_SELECTOR, ".head > p").text


def test_keys_choose_what_the_maps_show(opened: Chrome, told: tuple[Story, Path]) -> None:
    group = told[0].averages[0]
    chosen = opened.find_element(By.CSS_SELECTOR, "[name=measure]:checked")
    section = opened.find_element(By.ID, group.maps[0].name).find_element(
        By.XPATH, "ancestor::section"
    )
    for measure in told[0].measures[1:]:
        chosen.send_keys(Keys.ARROW_RIGHT)
        chosen = opened.find_element(By.CSS_SELECTOR, "[name=measure]:checked")
        assert chosen.get_attribute("value") == measure.name
        shown = section.find_element(By.CSS_SELECTOR, ".key .measure").get_attribute("textContent")
        assert shown == measure.change_words(group.answer)


def test_a_slider_chooses_the_noise_level(opened: Chrome, told: tuple[Story, Path]) -> None:
    group = next(group for group in told[0].averages if len(group.maps) > 1)
    shown = [one for one in group.maps if not one.idle]
    at_first, last = primary_of(group), shown[-1]
    assert at_first is not last
    frame = opened.find_element(By.ID, last.name)
    assert opened.find_element(By.ID, at_first.name).is_displayed()
    assert not frame.is_displayed()
    slider = frame.find_element(By.XPATH, "ancestor::section//input[@type='range']")
    slider.send_keys(Keys.END)
    assert frame.is_displayed()
    assert not opened.find_element(By.ID, at_first.name).is_displayed()
    assert slider.get_attribute("aria-valuetext") == f"σ = {last.level:g}"


def test_rows_of_the_overview_are_sorted_and_filtered(
    opened: Chrome, told: tuple[Story, Path]
) -> None:
    overview = told[0].overview
    assert overview
    table = opened.find_element(By.ID, "rows")

    def names() -> list[str]:
        rows = table.find_elements(By.CSS_SELECTOR, "tbody tr")
        return [row.find_element(By.TAG_NAME, "td").text for row in rows if row.is_displayed()]

    assert names() == [row.example for row in overview.rows]
    heads = table.find_elements(By.CSS_SELECTOR, "thead tr:last-child th")
    floor = next(head for head in heads if head.text.startswith("floor"))
    for order in (1, -1):
        floor.send_keys(Keys.ENTER)
        ranked = sorted(overview.rows, key=lambda row: order * round(row.floor, 2))
        assert names() == [row.example for row in ranked]
    field = opened.find_element(By.ID, "filter")
    field.send_keys("kite")
    assert names() == ["ball_kite"]
    assert opened.find_element(By.ID, "found").text == "1 of 3"


def test_a_link_to_an_example_unfolds_it(opened: Chrome, told: tuple[Story, Path]) -> None:
    name = told[0].examples[1].pair.example
    link = opened.find_element(By.CSS_SELECTOR, f"#rows a[href='#of-{name}']")
    opened.execute_script("arguments[0].click()", link)
    example = opened.find_element(By.ID, f"of-{name}").find_element(By.XPATH, "ancestor::details")
    WebDriverWait(opened, PATIENCE).until(lambda _: example.get_attribute("open"))
    assert example.find_element(By.CLASS_NAME, "map").is_displayed()
