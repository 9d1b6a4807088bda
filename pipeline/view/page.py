"""The page that shows clips: Panel for its parts, Bokeh for its pictures."""

from __future__ import annotations

import secrets
import tempfile
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tornado.httputil import HTTPServerRequest
from tornado.routing import Matcher, Rule
from tornado.web import ErrorHandler, RedirectHandler

from ...errors import SpikeDeblurError
from ..frames.images import to_uint8
from ..host.extras import from_extra
from .recordings import MOST_SAMPLES, Pictures, ViewedClip, ViewedGroup, pictures

ADDRESS = "127.0.0.1"
"""Where the page is served: only this machine reaches it. Its other users do, but have no token."""

_SIDE = 300
_HISTOGRAM_BINS = 40
_BAR = "#0b6fb8"
_OF_SPIKES = ("spikes", "TFP", "TFI", "bin")


class Page:
    """The parts of one visitor's page, and what happens when one of them is moved."""

    def __init__(self, groups: Sequence[ViewedGroup]) -> None:
        import panel as pn

        self._groups = {group.name: group for group in groups}
        first = groups[0]
        self.group = pn.widgets.Select(name="Sequence", options=list(self._groups))
        self.clip = pn.widgets.Select(name="Exposure", options=list(first.clips))
        self.instant = pn.widgets.Player(
            name="Sample", start=0, end=1, value=0, interval=60, loop_policy="loop", width=_SIDE
        )
        self.length = pn.widgets.EditableIntSlider(
            name="Window of TFP, samples", start=1, end=MOST_SAMPLES, value=33
        )
        self.bins = pn.widgets.IntInput(name="Bins (K)", start=1, end=4096, value=32)
        self.facts = pn.pane.Markdown("")
        frames = [f for f in ("blur", "sharp") if any(f in group.frames for group in groups)]
        self._views = {name: _View(name) for name in (*_OF_SPIKES, *frames)}
        self._histogram = _Histogram()
        self._shown: ViewedClip | None = None
        self.group.param.watch(self._choose_group, "value")
        self.clip.param.watch(self._choose_clip, "value")
        for widget in (self.instant, self.length, self.bins):
            widget.param.watch(self._show, "value")
        self._choose_clip()

    def layout(self) -> Any:
        """Return the page."""
        import panel as pn

        controls = [self.instant, self.length, self.bins, self.facts]
        if len(self._groups) > 1 or len(self.clip.options) > 1:
            controls = [self.group, self.clip, *controls]
        figures = [view.figure for view in self._views.values()]
        count = len(_OF_SPIKES)
        for together in (figures[:count], figures[count:]):  # pictures of one size
            for other in together[1:]:
                other.x_range, other.y_range = together[0].x_range, together[0].y_range
        panes = [pn.pane.Bokeh(figure) for figure in (*figures, self._histogram.figure)]
        return pn.Row(
            pn.Column(*controls, width=_SIDE + 20), pn.FlexBox(*panes), sizing_mode="stretch_width"
        )

    def _choose_group(self, *_: Any) -> None:
        clips = list(self._groups[self.group.value].clips)
        self.clip.options = clips
        if self.clip.value != clips[0]:
            self.clip.value = clips[0]
        else:
            self._choose_clip()

    def _choose_clip(self, *_: Any) -> None:
        group = self._groups[self.group.value]
        shown = self._shown = group.clip(list(group.clips).index(self.clip.value))
        for name, frame in (("blur", shown.blur), ("sharp", shown.sharp)):
            if name in self._views:
                self._views[name].show(frame)
        self.bins.end = shown.samples
        self.bins.value = min(self.bins.value or 1, shown.samples)
        self.length.end = min(shown.samples, MOST_SAMPLES)
        self.length.value = min(self.length.value, self.length.end)
        self.instant.end = shown.samples - 1
        self.instant.value = shown.samples // 2
        self._show()

    def _show(self, *_: Any) -> None:
        clip = self._shown
        if clip is None:
            return
        instant = min(int(self.instant.value or 0), clip.samples - 1)
        seen = pictures(clip, instant, int(self.length.value or 1), int(self.bins.value or 1))
        light = float(np.percentile(seen.tfp, 99.5)) if clip.gain is None else 1.0
        scale = max(light, 1e-6)
        self._views["spikes"].show(255 * seen.spikes)
        for name, plane in (("TFP", seen.tfp), ("TFI", seen.tfi), ("bin", seen.bin)):
            self._views[name].show(to_uint8(plane / scale))
        self._views["bin"].figure.title.text = f"bin {seen.bin_index} of {self.bins.value}"
        self._histogram.show(seen.rates, seen.window[1] - seen.window[0])
        self.facts.object = _facts(clip, instant, seen)


def _figure(title: str, tools: str, **more: Any) -> Any:
    """Return an empty figure of Bokeh's, as large as all others."""
    from bokeh.plotting import figure

    empty = figure(
        title=title, width=_SIDE, height=_SIDE, tools=tools, toolbar_location="above", **more
    )
    empty.toolbar.logo = None
    return empty


class _View:
    """One picture."""

    def __init__(self, name: str) -> None:
        from bokeh.models import ColumnDataSource

        self.source = ColumnDataSource({"image": [], "w": [], "h": []})
        tools = "pan,wheel_zoom,box_zoom,reset,save"
        self.figure = _figure(name, tools, match_aspect=True, visible=False)
        self.figure.axis.visible = False
        self.figure.image_rgba("image", x=0, y=0, dw="w", dh="h", source=self.source)
        self.figure.grid.visible = False

    def show(self, pixels: npt.NDArray[np.uint8] | None) -> None:
        """Show (h, w) or (h, w, 3) uint8; None: hide."""
        self.figure.visible = pixels is not None
        if pixels is None:
            return
        rgba = np.empty((*pixels.shape[:2], 4), np.uint8)
        rgba[..., :3] = pixels[..., None] if pixels.ndim == 2 else pixels
        rgba[..., 3] = 255
        packed = rgba[::-1].copy().view(np.uint32)[..., 0]  # the first row is at the bottom
        height, width = packed.shape
        self.source.data = {"image": [packed], "w": [width], "h": [height]}


class _Histogram:
    """Histogram of the pixels' rates."""

    def __init__(self) -> None:
        from bokeh.models import ColumnDataSource

        self.source = ColumnDataSource({"left": [], "right": [], "pixels": []})
        self.figure = _figure(
            "rates in the window",
            "pan,wheel_zoom,reset,hover",
            tooltips=[("from", "@left{0.000}"), ("pixels", "@pixels")],
            x_axis_label="spikes a sample",
            y_axis_label="pixels",
        )
        bars = {"left": "left", "right": "right", "bottom": 0, "top": "pixels"}
        self.figure.quad(**bars, source=self.source, fill_color=_BAR, line_color=None)

    def show(self, rates: npt.NDArray[np.float32], samples: int) -> None:
        """Show the rates (h, w) of a window of so many samples."""
        # A bar for each number of spikes that a pixel may have, or for several of them.
        spikes = max(round(float(rates.max()) * samples), 1)
        step = -(-(spikes + 1) // _HISTOGRAM_BINS) / samples
        edges = (np.arange(-(-(spikes + 1) // (step * samples)) + 1) * step) - 0.5 / samples
        amounts, edges = np.histogram(rates, edges)
        self.source.data = {"left": edges[:-1], "right": edges[1:], "pixels": amounts}


def _facts(clip: ViewedClip, instant: int, seen: Pictures) -> str:
    """Return a table in Markdown."""
    sample = clip.begin + instant
    time = f"{1000 * sample / clip.rate:.3f} ms" if clip.rate else "no rate known"
    rows = [
        ("sample", f"{sample} of {clip.begin + clip.samples} ({time})"),
        ("window", f"{seen.window[0]} to {seen.window[1] - 1}"),
        ("bin", f"{seen.bin_index}: samples {seen.bin_samples[0]} to {seen.bin_samples[1] - 1}"),
        ("pixels", f"{clip.shape[0]}x{clip.shape[1]}"),
        ("mean rate", f"{float(seen.rates.mean()):.4f} spikes a sample"),
        ("gain", f"{clip.gain:g}" if clip.gain else "not known: pictures are scaled to fit"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


class _WithoutToken(Matcher):
    """Matches requests whose path does not begin with the token, whatever they ask for."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        first = request.path.lstrip("/").partition("/")[0]
        # A comparison that ends at the first difference would show by its time how far it got.
        return None if secrets.compare_digest(first.encode(), self._token) else {}


def serve(
    groups: Sequence[ViewedGroup],
    *,
    port: int = 0,
    browser: bool = True,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Show clips on a page of this machine, to anyone who has its address, until interrupted.

    Args:
        groups: the clips, from `open_clips`.
        port: port of the page; 0: any free one.
        browser: open a browser on the page.
        on_ready: called with the page's address, which holds a new random token; any other
            address is not found.

    Raises:
        SpikeDeblurError: Panel is not installed.
        OSError: the port is taken.
    """
    with from_extra("view", "spikedeblur view needs Panel", SpikeDeblurError):
        import panel as pn
    pn.extension(notifications=False)
    token = secrets.token_urlsafe()
    icon = {"url": f"/{token}/static/extensions/panel/images/favicon.ico"}
    server = pn.serve(
        {"/": lambda: Page(groups).layout()},
        address=ADDRESS,
        port=port,
        show=False,
        start=False,
        title="spikedeblur view",
        verbose=False,
        prefix=token,
        extra_patterns=[("/favicon.ico", RedirectHandler, icon)],
        allow_websocket_origin=[f"{ADDRESS}:{port}"] if port else None,
    )
    # Before all routes: Bokeh has some that its prefix does not move.
    server._tornado.add_handlers(
        ".*", [Rule(_WithoutToken(token), ErrorHandler, {"status_code": 404})]
    )
    url = f"http://{ADDRESS}:{server.port}/{token}/"
    on_ready(url)
    server.start()
    with tempfile.TemporaryDirectory() as private:
        if browser:
            server.io_loop.add_callback(_open_browser, url, Path(private))
        server.run_until_shutdown()  # Ctrl-C and SIGTERM end it


def _open_browser(url: str, private: Path) -> None:
    """Open a browser on a file that leads to the address, since all users see a command's words."""
    page = private / "view.html"
    page.write_text(f'<meta http-equiv="refresh" content="0; url={url}">')
    webbrowser.open(page.as_uri())
