"""The page that shows clips, served to one machine by Tornado, which comes with Dask.

The page asks for one picture at a time, by its address: the server keeps no state of a visitor.
"""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import signal
import tempfile
import webbrowser
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.netutil import bind_sockets
from tornado.routing import Matcher, Rule
from tornado.web import Application, ErrorHandler, RedirectHandler, RequestHandler

from ...errors import SpikeDeblurError
from ..frames.images import to_uint8
from .recordings import (
    MOST_SAMPLES,
    Picture,
    Plane,
    ViewedClip,
    ViewedGroup,
    ViewError,
    picture,
    rates_in,
    span,
)

ADDRESS = "127.0.0.1"
"""Where the page is served: only this machine reaches it. Its other users do, but have no token."""

_TEMPLATES = Path(__file__).parent / "templates"
_FILES = {
    "": ("view.html", "text/html"),
    "view.css": ("view.css", "text/css"),
    "view.js": ("view.js", "text/javascript"),
}
"""File and type of each part of the page, by its name below the token."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src blob: data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_HISTOGRAM_BINS = 40


class _WithoutToken(Matcher):
    """Matches requests whose path does not begin with the token, whatever they ask for."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        first = request.path.lstrip("/").partition("/")[0]
        # A comparison that ends at the first difference would show by its time how far it got.
        return None if secrets.compare_digest(first.encode(), self._token) else {}


class _Handler(RequestHandler):
    """An answer with the page's headers."""

    def initialize(self, groups: Sequence[ViewedGroup], worker: ThreadPoolExecutor) -> None:
        self._groups, self._worker = groups, worker

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in _HEADERS.items():
            self.set_header(name, value)

    def _number(self, name: str, low: int, high: int) -> int:
        text = self.get_argument(name)
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ViewError(f"expected {name} of {low} to {high}, got {text!r}")
        return int(text)

    async def _answer(self, make: Callable[[], Any]) -> Any:
        """Return what `make` returns, by the one thread that reads; None: it was refused."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, make)
        except (SpikeDeblurError, OSError, IndexError) as error:
            self.set_status(400)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.write(str(error))
            return None

    def _clip(self) -> ViewedClip:
        group = self._groups[self._number("group", 0, len(self._groups) - 1)]
        return group.clip(self._number("clip", 0, len(group.clips) - 1))


class _File(_Handler):
    """A part of the page itself."""

    def get(self, name: str) -> None:
        file, kind = _FILES[name]
        self.set_header("Content-Type", f"{kind}; charset=utf-8")
        self.write((_TEMPLATES / file).read_bytes())


class _Groups(_Handler):
    """The names of all there is to see."""

    def get(self) -> None:
        groups = [
            {"name": group.name, "clips": list(group.clips), "finding": group.finding}
            for group in self._groups
        ]
        self.write({"groups": groups})


class _Clip(_Handler):
    """What is known of a clip."""

    async def get(self) -> None:
        found = await self._answer(lambda: described(self._clip()))
        if found is not None:
            self.write(found)


class _Picture(_Handler):
    """A PNG, with what it shows as JSON in the header X-Facts."""

    async def get(self) -> None:
        def make() -> tuple[bytes, dict[str, Any]]:
            clip = self._clip()
            instant = self._number("instant", 0, clip.samples - 1)
            length = self._number("length", 1, MOST_SAMPLES)
            bins = self._number("bins", 1, clip.samples)
            black, white = (self._number(name, 0, 1000) / 100 for name in ("black", "white"))
            seen = picture(clip, self.get_argument("kind"), instant, length, bins)
            return as_png(seen.values, black, white), facts(clip, seen, instant, length)

        made = await self._answer(make)
        if made is not None:
            png, about = made
            self.set_header("Content-Type", "image/png")
            self.set_header("X-Facts", json.dumps(about))
            self.write(png)


def described(clip: ViewedClip) -> dict[str, Any]:
    """Return what the page must know of a clip before it asks for pictures."""
    return {
        "samples": clip.samples,
        "shape": list(clip.shape),
        "rate": clip.rate,
        "gain": clip.gain,
        "begins": clip.begins,
        "kinds": list(clip.kinds),
        "longest": min(clip.samples, MOST_SAMPLES),
    }


def facts(clip: ViewedClip, seen: Picture, instant: int, length: int) -> dict[str, Any]:
    """Return figures beside a picture: its samples, its contrast, and the rates in TFP's window."""
    start, stop = span(clip, instant, length)
    rates = rates_in(clip, start, stop)
    low, high = np.percentile(seen.values, (1, 99))
    return {
        "samples": list(seen.samples),
        "window": [start, stop],
        "mean_rate": float(rates.mean()),
        "fit": [float(low), float(high)],
        "rates": histogram(rates, stop - start),
    }


def histogram(rates: Plane, samples: int) -> dict[str, Any]:
    """Return the step in spikes a sample, and how many pixels have each rate, over `samples`.

    A bar is a number of spikes that a pixel may have, or several of them.
    """
    spikes = max(round(float(rates.max()) * samples), 1)
    step = -(-(spikes + 1) // _HISTOGRAM_BINS)
    edges = np.arange(-(-(spikes + 1) // step) + 1) * step / samples - 0.5 / samples
    amounts, _ = np.histogram(rates, edges)
    return {"step": step / samples, "pixels": amounts.tolist()}


def as_png(values: Plane, black: float, white: float) -> bytes:
    """Return light (h, w) or (H, W, 3) as a PNG, with `black` and `white` at the range's ends."""
    stretched = (values - np.float32(black)) / np.float32(max(white - black, 0.01))
    content = io.BytesIO()
    Image.fromarray(to_uint8(stretched)).save(content, format="PNG", compress_level=1)
    return content.getvalue()


def serve(
    groups: Sequence[ViewedGroup],
    *,
    port: int = 0,
    browser: bool = True,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Show clips on a page of this machine, to anyone who has its address, until interrupted.

    Args:
        groups: the clips, from `open_clips` or `open_recording`.
        port: port of the page; 0: any free one.
        browser: open a browser on the page.
        on_ready: called with the page's address, which holds a new random token; any other
            address is not found.

    Raises:
        OSError: the port is taken.
    """
    asyncio.run(_serve(groups, port, browser, on_ready))


async def _serve(
    groups: Sequence[ViewedGroup], port: int, browser: bool, on_ready: Callable[[str], None]
) -> None:
    token = secrets.token_urlsafe()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    worker = ThreadPoolExecutor(1)
    shared = {"groups": groups, "worker": worker}
    application = Application(
        [
            Rule(_WithoutToken(token), ErrorHandler, {"status_code": 404}),
            (f"/{token}", RedirectHandler, {"url": f"/{token}/", "permanent": False}),
            (f"/{token}/(|view.css|view.js)", _File, shared),
            (f"/{token}/groups", _Groups, shared),
            (f"/{token}/clip", _Clip, shared),
            (f"/{token}/picture", _Picture, shared),
        ],
        default_handler_class=ErrorHandler,
        default_handler_args={"status_code": 404},
        log_function=lambda handler: None,  # addresses hold the token
    )
    sockets = bind_sockets(port, ADDRESS)
    server = HTTPServer(application)
    server.add_sockets(sockets)
    url = f"http://{ADDRESS}:{sockets[0].getsockname()[1]}/{token}/"
    on_ready(url)
    with tempfile.TemporaryDirectory() as private:
        if browser:
            _open_browser(url, Path(private))
        await stop.wait()
    server.stop()
    worker.shutdown(wait=False, cancel_futures=True)


def _open_browser(url: str, private: Path) -> None:
    """Open a browser on a file that leads to the address, since all users see a command's words."""
    page = private / "view.html"
    page.write_text(f'<meta http-equiv="refresh" content="0; url={url}">')
    webbrowser.open(page.as_uri())
