"""The page on this machine: pictures that follow the widgets, and nobody else let in."""

from __future__ import annotations

import io
import signal

import numpy as np
import psutil
import pytest
from browser import Console, chromium
from PIL import Image

pytestmark = pytest.mark.slow


def test_pictures_follow_the_widgets_and_nothing_is_fetched_from_elsewhere(server):
    _, url = server
    console, asked = Console(), []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        console.listen(page)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        page.wait_for_selector("canvas", timeout=60_000)
        page.wait_for_timeout(1500)

        def seen() -> np.ndarray:
            shot = Image.open(io.BytesIO(page.screenshot())).convert("L")
            return np.asarray(shot, float)[:, 360:]

        before = seen()
        assert before.std() > 20
        slider = page.locator("input[type=range]").first
        slider.focus()
        slider.press("Home")
        page.wait_for_timeout(1500)
        assert np.abs(seen() - before).mean() > 1
        page.locator("select").first.select_option("val/scenes/00000")
        page.wait_for_timeout(1500)
        other = seen()
        assert np.abs(other - before).mean() > 1
    foreign = [a for a in asked if not a.startswith((url, "data:", "blob:"))]
    assert foreign == []
    assert console.said == []


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
    assert "Traceback" not in process.stderr.read()
    assert url
