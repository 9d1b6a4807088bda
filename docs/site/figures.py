"""The figures of the pages, computed by the code that they explain."""

from __future__ import annotations

import base64
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt
import vl_convert
from PIL import Image

from spikedeblur.pipeline.evaluate.metrics import psnr
from spikedeblur.pipeline.frames.images import read_rgb, to_uint8, write_png
from spikedeblur.pipeline.restore import Restoring, restore
from spikedeblur.pipeline.sequences.find_recording import ExposureTimes, find_recording
from spikedeblur.pipeline.simulate.record import area_mean
from spikedeblur.pipeline.simulate.scenes import render_scene
from spikedeblur.pipeline.spikes import (
    parse_geometry,
    samples_per_bin,
    sdm,
    tfi,
    tfp,
    write_spikes,
)
from spikedeblur.pipeline.spikes.camera import SpikeCamera, luminance
from spikedeblur.pipeline.spikes.settings import SpikeOptions

EXPOSURE, PER_FRAME, FPS = 33, 8, 1000.0
_INK, _MUTED, _RULE = (
    f"var(--color-{name})"
    for name in ("foreground-primary", "foreground-secondary", "background-border")
)
_FIRST, _SECOND = "var(--figure-1)", "var(--figure-2)"


def spikes() -> str:
    """A pixel's integral over time, and its spikes, for a bright and a dark pixel."""
    camera = SpikeCamera(threshold=2.0)
    rows: list[dict[str, Any]] = []
    for name, light in (("bright pixel, luminance 0.8", 0.8), ("dark pixel, luminance 0.25", 0.25)):
        frame = np.full((1, 1), light, np.float32)
        fired = list(camera.record((frame for _ in range(64)), np.random.default_rng(3)))
        phase = np.random.default_rng(3).uniform(0, camera.threshold)
        integral = phase
        for sample, spike in enumerate(fired):
            integral += light
            rows.append(
                {"pixel": name, "sample": sample, "integral": integral, "spike": bool(spike.any())}
            )
            integral -= camera.threshold * bool(spike.any())
    base = alt.Chart(alt.Data(values=rows))
    line = base.mark_line(interpolate="step-after", color=_FIRST).encode(
        x=alt.X("sample:Q", title="sample"), y=alt.Y("integral:Q", title="integral of light")
    )
    fired_at = (
        base.transform_filter("datum.spike")
        .mark_point(shape="triangle-down", filled=True, size=60, color=_SECOND, opacity=1)
        .encode(x="sample:Q", y="integral:Q")
    )
    panels = [
        alt.layer(line, fired_at)
        .transform_filter(alt.datum.pixel == name)
        .properties(title=name, width=560, height=110)
        for name in dict.fromkeys(row["pixel"] for row in rows)
    ]
    return _svg(alt.vconcat(*panels), "Light is summed until the threshold; then the pixel fires")


def exposure() -> str:
    """The spikes of one row while something moves, and the exposure of a frame."""
    stream, _ = _recording()
    change = stream[:128].mean(axis=0) - stream[-128:].mean(axis=0)
    row = stream[:, np.abs(change).mean(axis=1).argmax()]  # (samples, w), where most moves
    picture = _uri(255 * (1 - row.T.astype(np.uint8)))
    ms = 1000 / (FPS * PER_FRAME)
    t0, t1 = _span()
    image = (
        alt.Chart(
            alt.Data(
                values=[{"a": 0, "b": len(row) * ms, "u": picture, "y0": 0, "y1": row.shape[1]}]
            )
        )
        .mark_image(aspect=False)
        .encode(
            x=alt.X(
                "a:Q", title="time, ms", scale=alt.Scale(domain=[0, len(row) * ms], nice=False)
            ),
            x2="b:Q",
            y=alt.Y("y0:Q", title="column", scale=alt.Scale(domain=[row.shape[1], 0], nice=False)),
            y2="y1:Q",
            url="u:N",
        )
    )
    edges = (
        alt.Chart(
            alt.Data(values=[{"t": t0 * ms, "what": "t0"}, {"t": (t1 - 1) * ms, "what": "t1"}])
        )
        .mark_rule(color=_SECOND, strokeWidth=2)
        .encode(x="t:Q")
    )
    return _svg(
        (image + edges).properties(width=560, height=220),
        "Spikes of one row of pixels; between the lines is the exposure of one blurred frame",
    )


def bins() -> str:
    """How many samples fall into each bin, where bins do not divide them."""
    rows = [
        {"bin": i, "samples": int(n), "exposure": f"{samples} samples into 32 bins"}
        for samples in (56, 88)
        for i, n in enumerate(samples_per_bin(samples, 32))
    ]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(color=_FIRST)
        .encode(
            x=alt.X(
                "bin:O", title="bin", axis=alt.Axis(labelAngle=0, values=list(range(0, 32, 4)))
            ),
            y=alt.Y("samples:Q", title="samples", axis=alt.Axis(tickMinStep=1)),
            row=alt.Row(
                "exposure:N", title=None, header=alt.Header(labelOrient="top", labelColor=_INK)
            ),
        )
        .properties(width=560, height=80)
    )
    return _svg(chart, "Bins hold unequal numbers of samples")


def gain() -> str:
    """Spikes a sample over luminance, for three thresholds."""
    light = np.linspace(0, 1, 21, dtype=np.float32)
    rows = []
    for threshold in (1.0, 2.0, 4.0):
        camera = SpikeCamera(threshold=threshold)
        frame = np.repeat(light[None], 16, axis=0)
        fired = np.stack(list(camera.record((frame for _ in range(400)), np.random.default_rng(0))))
        for value, rate in zip(light, fired.mean(axis=(0, 1)), strict=True):
            rows.append(
                {
                    "luminance": float(value),
                    "rate": float(rate),
                    "camera": f"threshold {threshold:g}: gain {camera.gain:g}",
                }
            )
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point=True)
        .encode(
            x=alt.X("luminance:Q", title="luminance"),
            y=alt.Y("rate:Q", title="spikes a sample"),
            color=alt.Color(
                "camera:N",
                title=None,
                scale=alt.Scale(range=[_FIRST, _SECOND, "var(--figure-3)"]),
                legend=alt.Legend(orient="top-left", labelLimit=240),
            ),
        )
        .properties(width=560, height=220)
    )
    return _svg(chart, "Measured rate of a simulated camera: a straight line through zero")


@cache
def reconstructions() -> str:
    """One exposure as blur, TFP, TFI, SDM, path, the shipped model and the sharp truth."""
    stream, frames = _recording()
    t0, t1 = _span()
    inside = stream[t0:t1].astype(np.uint8)
    middle = len(inside) // 2
    first = (len(frames) - EXPOSURE) // 2
    blurred = frames[first : first + EXPOSURE].mean(axis=0) / np.float32(255)
    short = tfp(inside[middle - 16 : middle + 17], 0.5)
    gray = {
        "TFP, whole exposure": to_uint8(tfp(inside, 0.5)),
        "TFP, 33 samples": to_uint8(short),
        "TFI": to_uint8(tfi(inside, middle, 0.5)),
    }
    colour = {
        "SDM": to_uint8(sdm(blurred.astype(np.float32), short, tfp(inside, 0.5))),
        **_restored(to_uint8(blurred), stream),
    }
    sharp = frames[len(frames) // 2]
    cells = "".join(
        f'<figure><img src="{_uri(picture)}" alt="{name}"><figcaption>{name}</figcaption></figure>'
        for name, picture in (
            _scored("blur", to_uint8(blurred), sharp),
            *gray.items(),
            *(_scored(name, picture, sharp) for name, picture in colour.items()),
            ("sharp", sharp),
        )
    )
    return f'<div class="strip">{cells}</div>'


def _scored(
    name: str, picture: npt.NDArray[np.uint8], sharp: npt.NDArray[np.uint8]
) -> tuple[str, npt.NDArray[np.uint8]]:
    """Return a picture with its name and PSNR."""
    return f"{name}, {psnr(picture, sharp):.1f} dB", picture


def _restored(
    blurred: npt.NDArray[np.uint8], stream: npt.NDArray[np.bool_]
) -> dict[str, npt.NDArray[np.uint8]]:
    """Return the frame (H, W, 3) that `path` and the shipped model restore."""
    height, width = stream.shape[1:]
    geometry = f"{height}x{width},bottom-up"
    with tempfile.TemporaryDirectory() as folder:
        spikes, frame = Path(folder, "spike.dat"), Path(folder, "frames/0024.png")
        write_spikes(spikes, stream, parse_geometry(geometry))
        write_png(frame, blurred)
        recording = find_recording(
            frame.parent,
            spikes,
            ExposureTimes(exposure=EXPOSURE, fps=FPS),
            SpikeOptions(geometry=geometry, rate=FPS * PER_FRAME, gain=0.5),
        )
        ways = {"path": Restoring(method="path"), "model": Restoring(run="small")}
        pictures = {}
        for name, how in ways.items():
            restore(recording, Path(folder, name), how)
            pictures[name] = read_rgb(Path(folder, name, frame.name))
    return pictures


FIGURES: dict[str, Callable[[], str]] = {
    each.__name__: each for each in (spikes, exposure, bins, gain, reconstructions)
}


def _recording() -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint8]]:
    """Return the spikes (samples, h, w) and the frames (T, H, W, 3) of a procedural scene."""
    rng = np.random.default_rng(5)
    frames = np.stack(list(render_scene(rng, (192, 192), 49)))
    light = [area_mean(luminance(frame), 2) for frame in frames]

    def between() -> Iterator[npt.NDArray[np.float32]]:
        for i in range((len(light) - 1) * PER_FRAME + 1):
            a, part = divmod(i, PER_FRAME)
            b = min(a + 1, len(light) - 1)
            yield light[a] + (light[b] - light[a]) * np.float32(part / PER_FRAME)

    return np.stack(list(SpikeCamera(threshold=2.0).record(between(), rng))), frames


def _span() -> tuple[int, int]:
    """Return the first sample of the middle frame's exposure, and one past its last."""
    first = (49 - EXPOSURE) // 2 * PER_FRAME
    return first, first + (EXPOSURE - 1) * PER_FRAME + 1


def _uri(pixels: npt.NDArray[np.uint8]) -> str:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(content, format="WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"


def _svg(chart: Any, caption: str) -> str:
    """Return a chart as SVG inside of the page, in the page's own colours."""
    styled = (
        chart.configure(background="transparent", font="system-ui, sans-serif")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=_MUTED,
            titleColor=_MUTED,
            titleFontWeight="normal",
            gridColor=_RULE,
            domainColor=_RULE,
            tickColor=_RULE,
        )
        .configure_title(color=_INK, fontSize=12, fontWeight="normal", anchor="start")
        .configure_legend(labelColor=_INK)
    )
    svg = vl_convert.vegalite_to_svg(json.dumps(styled.to_dict()))
    return f'<figure class="drawn">{svg}<figcaption>{caption}</figcaption></figure>'
