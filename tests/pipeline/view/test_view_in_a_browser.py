"""The page on this machine: pictures that follow the controls, by mouse, keyboard and phone."""

from __future__ import annotations

import io
import signal
import time
from urllib.request import urlopen

import numpy as np
import psutil
import pytest
from browser import Console, chromium, faint_texts
from PIL import Image
from viewing import view

from spikedeblur.pipeline.frames.images import write_png
from spikedeblur.pipeline.spikes import parse_geometry, write_spikes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def show(browser, server):
    """Open the page; nothing may be said on the console, nor asked elsewhere, by the test's end."""
    console, asked, opened = Console(), [], []

    def open_page(**how):
        context = browser.new_context(**how)
        opened.append(context)
        page = context.new_page()
        console.listen(page)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server[1])
        page.wait_for_selector("html[data-shown]", timeout=60_000)
        return page

    yield open_page
    for context in opened:
        context.close()
    assert [a for a in asked if not a.startswith((server[1], "data:", "blob:"))] == []
    assert console.said == []


def act(page, do) -> None:
    """Do something, and wait until the page shows what came of it."""
    before = int(page.locator("html").get_attribute("data-shown"))
    do()
    until(page, f"+document.documentElement.dataset.shown > {before}")


def until(page, true: str) -> None:
    """Wait for an expression; the page's own policy forbids Playwright to do so inside of it."""
    deadline = time.monotonic() + 60
    while not page.evaluate(true):
        assert time.monotonic() < deadline, true
        page.wait_for_timeout(30)


def pixels(page, image: str = "#picture") -> np.ndarray:
    """Return a picture of the page as it came, before it was enlarged."""
    data = page.evaluate(
        """(name) => {
            const image = document.querySelector(name);
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
            return [canvas.height, canvas.width, [...data]];
        }""",
        image,
    )
    height, width, values = data
    rgba = np.array(values, np.uint8).reshape(height, width, 4)
    is_gray = (rgba[..., :3] == rgba[..., :1]).all()
    return rgba[..., 0] if is_gray else rgba[..., :3]


def pixels_of_save(page) -> np.ndarray:
    with urlopen(page.evaluate("document.getElementById('save').href")) as answer:
        return np.asarray(Image.open(io.BytesIO(answer.read())))


def test_pictures_are_those_of_the_controls(show, store):
    from spikedeblur.pipeline.sequences import open_store
    from spikedeblur.pipeline.spikes import tfp

    page = show()
    sequence = open_store(store)[0]
    spikes = sequence.spikes(0)
    half = len(spikes) // 2
    expected = 255 * np.clip(tfp(spikes[half - 16 : half + 17], sequence.gain), 0, 1)
    assert np.abs(pixels(page) - expected).max() <= 0.51
    assert np.array_equal(pixels(page, "#second"), sequence.blur(0, 1)[0])
    for kind in ("spikes", "TFI", "bin", "light", "path", "sharp"):
        act(page, lambda kind=kind: page.locator("#kind").select_option(kind))
        shown = pixels(page)
        assert shown.std() > 5, kind
        assert np.array_equal(shown, pixels_of_save(page)), kind
    assert np.array_equal(pixels(page), sequence.sharp(0, 1)[0])
    last = open_store(store)[-1]
    act(page, lambda: page.locator("#group").select_option(label="val/scenes/00000"))
    act(page, lambda: page.locator("#clip").select_option(label="frame 46"))
    assert np.array_equal(pixels(page), last.sharp(2, 3)[0])
    assert page.locator("h1").inner_text() == "val/scenes/00000"
    assert "spike" in page.locator("#facts").inner_text()


def test_time_is_in_milliseconds_and_the_keyboard_moves_it(show):
    page = show()
    slider = page.locator("#instant")
    slider.focus()
    act(page, lambda: slider.press("Home"))
    assert page.locator("#time").inner_text() == "0.000 ms, sample 0 of 257"
    act(page, lambda: slider.press("ArrowRight"))
    assert page.locator("#time").inner_text() == "0.125 ms, sample 1 of 257"  # 8000 Hz
    first = pixels(page)
    play = page.locator("#play")
    play.focus()
    act(page, lambda: play.press("Enter"))
    until(page, "+document.getElementById('instant').value > 3")
    play.press("Enter")
    assert int(slider.input_value()) > 3
    assert play.get_attribute("aria-pressed") == "false"
    assert first.shape == pixels(page).shape


def test_contrast_and_names_of_saved_pictures(show):
    page = show()
    before = pixels(page).astype(float)
    page.locator("#black").focus()
    act(page, lambda: page.locator("#black").press("PageUp"))
    black = int(page.locator("#black").input_value()) / 100
    assert black > 0
    expected = np.clip((before / 255 - black) / (1 - black), 0, 1) * 255
    assert np.abs(pixels(page) - expected).max() < 2
    act(page, lambda: page.locator("#fit").click())
    assert np.percentile(pixels(page), 99) > 240
    act(page, lambda: page.locator("#reset").click())
    assert np.array_equal(pixels(page), before)
    with page.expect_download() as saved:
        page.locator("#save").press("Enter")
    assert saved.value.suggested_filename == "scenes_00000_frame_16_TFP_16.000_ms.png"


def test_both_pictures_scroll_together_when_enlarged(show):
    page = show()
    page.locator("#zoom").select_option("8")
    panes = page.locator(".scroll")
    panes.first.evaluate("e => { e.scrollTop = e.scrollHeight; }")
    until(page, "document.querySelectorAll('.scroll')[1].scrollTop > 0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_it_is_legible_in_light_and_dark_on_a_phone_and_a_desk(show, scheme, width):
    page = show(color_scheme=scheme, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert faint_texts(page) == []
    page.evaluate("scrollTo(0, 0)")
    picture = page.locator("#picture").bounding_box()
    assert picture["width"] > (0.9 if width == 400 else 0.4) * width
    assert picture["y"] + picture["height"] < 800, "the large picture is seen without scrolling"
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"))
    assert (np.median(shot[:40]) > 128) == (scheme == "light")
    page.locator("#theme").press("Enter")
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"))
    assert (np.median(shot[:40]) > 128) != (scheme == "light")


def test_every_control_has_a_name_and_is_reached_by_tab(show):
    page = show()
    controls = "a, button, input, select"
    names = page.evaluate(
        f"""() => [...document.querySelectorAll("{controls}")].map((e) =>
        e.getAttribute("aria-label") || e.labels?.[0]?.textContent || e.textContent.trim())"""
    )
    assert all(names)
    reached = set()
    for _ in range(len(names) + 6):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    ids = page.evaluate(f"[...document.querySelectorAll('{controls}')].map((e) => e.id)")
    assert set(ids) <= reached


def test_names_are_shown_as_text(browser, tmp_path):
    path = tmp_path / "<img src=x onerror=document.title=1>&amp;.dat"
    spikes = np.random.default_rng(0).random((40, 12, 16)) < 0.3
    write_spikes(path, spikes.astype(np.uint8), parse_geometry("12x16,bottom-up"))
    with view(path, "--geometry", "12x16,bottom-up") as (_, url):
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector("html[data-shown]", timeout=60_000)
        assert page.locator("h1").inner_text() == str(path)
        assert page.locator("img").count() == 2
        assert page.title() != "1"
        assert page.locator("#time").inner_text() == "sample 20 of 40"
        assert "not known: no rate was given" in page.locator("#facts").inner_text()
        assert page.locator("#second").is_hidden()  # no frame to stand beside the spikes
        page.close()


def test_a_blurred_frame_stands_beside_its_spikes(browser, tmp_path):
    spikes = (np.random.default_rng(0).random((200, 12, 16)) < 0.3).astype(np.uint8)
    write_spikes(tmp_path / "spike.dat", spikes, parse_geometry("12x16,bottom-up"))
    write_png(tmp_path / "frames/shot.png", np.full((24, 32, 3), 90, np.uint8))
    options = ("--blur", tmp_path / "frames", "--frame-rate", "8", "--shutter", "100ms")
    options += ("--geometry", "12x16,bottom-up", "--rate", "1000", "--gain", "0.5")
    with view(tmp_path / "spike.dat", *options) as (_, url):
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector("html[data-shown]", timeout=60_000)
        assert (pixels(page, "#second") == 90).all()
        act(page, lambda: page.locator("#kind").select_option("spikes"))
        assert np.array_equal(
            pixels(page), 255 * spikes[int(page.locator("#instant").input_value())]
        )
        page.close()


def test_only_this_machine_is_let_in_and_ctrl_c_ends_it(server):
    process, url = server
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(process.pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) in (0, 130)
    assert process.stderr.read() == ""
    assert url
