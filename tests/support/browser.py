"""A headless Chromium for tests of pages; skipped with a reason where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Console:
    """What pages said that they should not: warnings, errors, requests to a network."""

    said: list[str] = field(default_factory=list)

    def listen(self, page: Any) -> None:
        page.on("console", lambda m: self._note(m.type, m.text))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("requestfailed", lambda request: self.said.append(f"failed: {request.url[:200]}"))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning", "assert"):
            self.said.append(f"{kind}: {text}")


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a playwright browser."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        # Root, as in a container, has no sandbox; the pages are our own.
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


_FAINT = """
() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (front, back) => back.map((v, i) => front[i] * front[3] + v * (1 - front[3]));
  const luminance = (colour) => colour.map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const faint = [];
  let seen = 0;
  while (texts.nextNode()) {
    const text = texts.currentNode.data.trim();
    const element = texts.currentNode.parentElement;
    const style = getComputedStyle(element);
    const hidden = element.closest("script, style, option") || !element.getClientRects().length;
    if (!text || hidden || style.visibility === "hidden") continue;
    let back = [255, 255, 255];
    const around = [];
    for (let each = element; each; each = each.parentElement) around.unshift(each);
    for (const each of around) back = over(rgba(getComputedStyle(each).backgroundColor), back);
    const ink = over(rgba(element instanceof SVGElement ? style.fill : style.color), back);
    const [light, dark] = [luminance(ink), luminance(back)].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    seen += 1;
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) faint.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return seen > 20 ? faint : ["hardly any text was found"];
}
"""


def faint_texts(page: Any) -> list[str]:
    """Return the texts of a page whose contrast is below that of WCAG 2 AA, by computed styles."""
    return page.evaluate(_FAINT)
