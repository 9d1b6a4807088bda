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
