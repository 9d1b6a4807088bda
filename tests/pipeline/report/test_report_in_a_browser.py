"""The page as people use it: sliders, tables, playback, light and dark, phone, keyboard."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from browser import Console, chromium, faint_texts
from PIL import Image

from spikedeblur.pipeline.report import write_report

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def path(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report([trained / "runs/fast"], out)
    return out


@pytest.fixture
def show(browser, path):
    """Open the page, offline; nothing may be said on the console by the test's end."""
    console = Console()
    opened = []

    def open_page(**how):
        context = browser.new_context(offline=True, **how)
        opened.append(context)
        page = context.new_page()
        console.listen(page)
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn]", timeout=60_000)
        return page

    yield open_page
    for context in opened:
        context.close()
    assert console.said == []


def pixels(element) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("L"), float)


def test_every_picture_and_chart_is_drawn(show):
    page = show()
    for image in page.query_selector_all(".stage img"):
        assert image.evaluate("image => image.complete && image.naturalWidth > 0")
    for element in page.query_selector_all(".stage, .screen, [data-chart]"):
        element.scroll_into_view_if_needed()
        assert pixels(element).std() > 2, element.evaluate("e => e.outerHTML.slice(0, 80)")
    assert page.locator("[data-chart] svg").count() == page.locator("[data-chart]").count()


def test_the_line_between_two_pictures_moves_by_keyboard_and_mouse(show):
    page = show()
    stage = page.locator(".stage").first
    stage.scroll_into_view_if_needed()
    slider = stage.locator("input")
    slider.focus()
    slider.press("End")
    blurred = pixels(stage)
    slider.press("Home")
    restored = pixels(stage)
    assert np.abs(blurred - restored).mean() > 0.5
    box = stage.bounding_box()
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"])
    assert 70 <= int(slider.input_value()) <= 80
    page.locator(".compare select").nth(1).select_option(label="sharp")
    assert page.locator(".stage output.right").first.inner_text() == "sharp"


def test_a_heading_sorts_its_column_both_ways(show):
    page = show()
    table = page.locator("table.sortable", has_text="Lag of the spikes")
    column = "tr => +tr.cells[4].dataset.value"
    table.locator("th button", has_text="correlation").click()
    first = table.locator("tbody tr").evaluate_all(f"rows => rows.map({column})")
    assert len(set(first)) > 2
    assert first == sorted(first, reverse=True)
    table.locator("th button", has_text="correlation").press("Enter")
    second = table.locator("tbody tr").evaluate_all(f"rows => rows.map({column})")
    assert second == sorted(first)
    assert table.locator("th[aria-sort=ascending]").inner_text().startswith("correlation")


def test_the_whole_cell_of_a_heading_sorts(show):
    page = show()
    heading = page.locator("table.results thead th").nth(3)
    box = heading.bounding_box()
    for x, y in ((2, 2), (box["width"] - 2, box["height"] - 2)):
        before = heading.get_attribute("aria-sort")
        page.mouse.click(box["x"] + x, box["y"] + y)
        assert heading.get_attribute("aria-sort") != before


@pytest.mark.parametrize("scroll", [0, 10_000])
def test_the_models_column_and_the_names_stay_in_sight_on_a_phone(show, scroll):
    page = show(viewport={"width": 400, "height": 850})
    table = page.locator("table.results")
    table.locator("xpath=..").evaluate(f"e => {{ e.scrollLeft = {scroll}; }}")
    for cell in (table.locator("tbody td").last, table.locator("thead th").last):
        box = cell.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 400
    assert table.locator("tbody th").first.bounding_box()["x"] >= 0


def test_five_pictures_stand_in_a_row_with_a_part_of_each(show):
    page = show(viewport={"width": 1280, "height": 900})
    panels = page.locator(".strip .panel")
    captions = [text.split()[0] for text in panels.locator("p").all_inner_texts()]
    assert captions == ["blur", "SDM", "path", "model", "sharp"]
    tops = {round(panels.nth(i).bounding_box()["y"]) for i in range(5)}
    assert len(tops) == 1
    image = page.locator(".compare .stage img").first
    height, width = (int(image.get_attribute(name)) for name in ("height", "width"))
    left, top, wide, tall = json.loads(page.locator(".compare").first.get_attribute("data-part"))
    for i, name in enumerate(captions):
        stored = page.locator(f".compare .stage img[alt={name}]").first.evaluate(
            """image => { const c = document.createElement("canvas");
            c.width = image.naturalWidth; c.height = image.naturalHeight;
            const d = c.getContext("2d"); d.drawImage(image, 0, 0);
            return [...d.getImageData(0, 0, c.width, c.height).data]; }"""
        )
        frame = Image.fromarray(np.array(stored, np.uint8).reshape(height, width, 4)).convert("L")
        box = [left * width, top * height, (left + wide) * width, (top + tall) * height]
        part = frame.crop([round(side) for side in box])
        shown = pixels(panels.nth(i).locator(".part"))
        seen = Image.fromarray(shown.astype(np.uint8)).resize(part.size, Image.Resampling.BOX)
        assert np.abs(np.asarray(seen, float) - np.asarray(part)).mean() < 4, name


def test_each_pair_has_a_part_and_a_sentence(show):
    page = show()
    figure = page.locator(".compare").first
    figure.locator("select").first.select_option(label="TFI")
    assert figure.locator(".what").inner_text().startswith("TFI: texture from interval")
    assert figure.locator(".part img").first.get_attribute("alt") == "TFI, zoomed part"
    offered = figure.locator("select").first.locator("option").all_inner_texts()
    headings = page.locator("table.results thead th").all_inner_texts()
    assert offered == [*headings[2:], "sharp"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_every_text_is_legible(show, scheme, width):
    page = show(color_scheme=scheme, viewport={"width": width, "height": 850})
    assert faint_texts(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_playback_shows_another_instant_and_moves_the_rasters_line(show):
    page = show()
    screen, slider = page.locator(".screen"), page.locator(".player input")
    slider.focus()
    slider.press("Home")
    before, line = pixels(screen), pixels(page.locator("[data-chart=raster]"))
    slider.press("End")
    page.wait_for_timeout(200)
    assert np.abs(pixels(screen) - before).mean() > 1
    assert np.abs(pixels(page.locator("[data-chart=raster]")) - line).max() > 20
    button = page.locator(".player button")
    button.click()
    page.wait_for_timeout(300)
    button.click()
    assert slider.input_value() != "0"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_systems_colours_and_can_be_switched(show, scheme):
    page = show(color_scheme=scheme)
    page.evaluate("scrollTo(0, 0)")

    def brightness() -> float:
        return float(np.median(np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"))))

    assert (brightness() > 128) == (scheme == "light")
    page.locator("#theme").click()
    assert (brightness() > 128) != (scheme == "light")


def test_nothing_is_wider_than_a_phone(show):
    page = show(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_all_that_can_be_operated_has_a_name_and_takes_focus(show):
    page = show()
    names = page.evaluate(
        """() => [...document.querySelectorAll("a, button, input, select, summary")].map((e) =>
        e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.[0]?.textContent)"""
    )
    assert all(names)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    marks = """() => [...document.querySelectorAll("a, button, input, select, summary")]
        .filter((e) => e.checkVisibility()).forEach((e, i) => { e.dataset.control = i; })"""
    page.evaluate(marks)
    controls = page.evaluate("document.querySelectorAll('[data-control]').length")
    reached = {page.evaluate("document.activeElement.dataset.control")}
    for _ in range(2 * controls):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.dataset.control"))
    assert {str(i) for i in range(controls)} <= reached
