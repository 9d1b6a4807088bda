"""One page to see that an alignment is right: pictures and the correlation curve, by sequence.

Blurred frame, sharp frame, TFP where the images say that it belongs, frame and TFP in a
chequerboard (edges run through where both fit), and the correlation over the lag. HTML without
scripts and without other files; what looks wrong comes first.
"""

from __future__ import annotations

import base64
import html
import io
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import SpikeDeblurError
from ..frames.images import read_rgb
from ..host.files import write_text
from ..spikes.registration import open_spikes
from .manifest import AlignedSequence, Manifest, Verification, Window
from .measure.dataset import frames_of
from .measure.lag import Match
from .measure.verify import find_best

MOST_SEQUENCES = 200
"""On one page: those with a problem, then others, spread over the data set."""

_MARK = "<!-- spikedeblur align -->"
_WIDTH = 232
"""Of a picture, in pixels."""
_MEASURED = (None, "edge", "rival", "unsure", "sharp apart")
"""Problems with which there is a lag to speak of."""
_TILES = 8
"""Of the chequerboard, across."""
_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#657083;--line:#d8dde5;--ground:#fff;
--good:#18794e;--bad:#c0362c;--mark:#2463eb}
@media (prefers-color-scheme:dark){:root{--ink:#e6eaf0;--soft:#98a2b3;--line:#333c4a;
--ground:#12161c;--good:#4cc38a;--bad:#ff8077;--mark:#7aa5ff}}
body{margin:2rem auto;max-width:1320px;padding:0 1rem;background:var(--ground);color:var(--ink);
font:14px/1.45 system-ui,sans-serif}
h1{font-size:1.35rem;margin:0 0 .2rem}p{margin:.2rem 0}
.soft{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}
section{border-top:1px solid var(--line);padding:.8rem 0 1rem}
h2{font-size:1rem;margin:0;overflow-wrap:anywhere}
.row{display:flex;flex-wrap:wrap;gap:.7rem;margin-top:.5rem;align-items:flex-start}
figure{margin:0}figcaption{font-size:12px;color:var(--soft);margin-top:.15rem}
figure img{display:block;width:232px;border-radius:3px}
svg{display:block;background:transparent}svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
"""

RGB = npt.NDArray[np.uint8]
Map = Callable[[Callable[[AlignedSequence], str], list[AlignedSequence]], Iterable[str]]


class PageError(SpikeDeblurError):
    """The page can't be written where it was asked for."""


def require_page_free(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Refuse to replace a file that is not such a page.

    Raises:
        PageError: it is there, and something else.
    """
    page = Path(path)
    if page.is_dir():
        raise PageError(f"{page}: is a folder; give --plot a file, such as {page / 'align.html'}")
    if page.exists() and not overwrite:
        with page.open("rb") as file:
            if _MARK.encode() not in file.read(200):
                raise PageError(
                    f"{page}: there, but not a page that align wrote; give another --plot, or "
                    "--overwrite to replace it"
                )


def write_page(path: str | os.PathLike[str], manifest: Manifest, root: Path, each: Map) -> None:
    """Write the page of a manifest's sequences.

    Args:
        path: HTML file.
        manifest: as aligned; with a corrected clock, the page shows what is left.
        root: the data set's folder.
        each: `map`, or a pool's.
    """
    shown = _chosen(manifest.sequences)
    sections = each(lambda sequence: _section(sequence, root), shown)
    write_text(path, _page(manifest, len(shown), sections))


def _chosen(sequences: Sequence[AlignedSequence]) -> list[AlignedSequence]:
    odd = [s for s in sequences if s.verification is None or s.verification.problem]
    even = [s for s in sequences if s not in odd] if len(odd) < len(sequences) else []
    odd = odd[:MOST_SEQUENCES]
    room = MOST_SEQUENCES - len(odd)
    if len(even) > room:
        even = [even[i * len(even) // room] for i in range(room)] if room else []
    return odd + even


def _page(manifest: Manifest, shown: int, sections: Iterable[str]) -> str:
    found = [s.verification for s in manifest.sequences]
    proved = sum(v is not None and v.confident for v in found)
    applied = sum(v is not None and v.applied for v in found)
    windows = sum(len(s.windows) for s in manifest.sequences)
    problems: dict[str, int] = {}
    for one in found:
        if one is not None and one.problem:
            problems[one.problem] = problems.get(one.problem, 0) + 1
    named = ", ".join(f"{n} {name}" for name, n in sorted(problems.items()))
    left = len(manifest.sequences) - shown
    lines = [
        "<!DOCTYPE html>",
        _MARK,
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width"><title>Alignment</title>',
        f"<style>{_STYLE}</style></head><body>",
        "<h1>Do spikes and frames fit?</h1>",
        f"<p>{_many(len(manifest.sequences), 'sequence')}, {_many(windows, 'exposure')}; layout "
        f"{html.escape(manifest.layout)} at {manifest.fps:g} frames a second; "
        f"spikedeblur {html.escape(manifest.version)}</p>",
        f'<p><span class="good">{proved} proved</span>'
        + (f", clock corrected in {applied}" if applied else "")
        + (f'; <span class="bad">{html.escape(named)}</span>' if named else "")
        + (f"; {left} more not shown" if left else "")
        + "</p>",
        '<p class="soft">Right: the curve has one peak, at the dashed line (the timeline); the '
        "TFP shows the sharp frame; edges run on through the chequerboard.</p>",
    ]
    return "\n".join([*lines, *sections, "</body></html>"]) + "\n"


def _many(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


@dataclass(frozen=True, slots=True)
class _Shown:
    window: Window
    middle: int
    """Sample of the TFP's middle."""
    width: int


def _section(sequence: AlignedSequence, root: Path) -> str:
    found = sequence.verification
    match = _match(sequence, root, found)
    parts = [
        "<section>",
        f"<h2>{html.escape(sequence.seq)}</h2>",
        f"<p>{_words(sequence, found)}</p>",
        '<div class="row">',
    ]
    shown = _window(sequence, root, match)
    blur = read_rgb(root / sequence.windows[len(sequence.windows) // 2].blur)
    if shown is not None:
        blur = read_rgb(root / shown.window.blur)
        sharp = read_rgb(root / shown.window.sharp) if shown.window.sharp else None
        tfp = _tfp(sequence, root, shown)
        parts.append(_figure(blur, f"blurred, frame {shown.window.frame_index}"))
        if sharp is not None:
            parts.append(_figure(sharp, "sharp"))
        caption = f"TFP of {shown.width} samples"
        parts.append(_figure(tfp, caption + (", registered" if sequence.space else "")))
        board = _chequered(sharp if sharp is not None else blur, tfp)
        parts.append(_figure(board, ("sharp" if sharp is not None else "blurred") + " and TFP"))
    else:
        parts.append(_figure(blur, "blurred; its exposure is outside the recording"))
    if match is not None:
        parts.append(_curve(match))
    return "\n".join([*parts, "</div>", "</section>"])


def _match(sequence: AlignedSequence, root: Path, found: Verification | None) -> Match | None:
    if found is None:
        return None
    finding = find_best(frames_of(sequence, root), found.by)
    return None if finding is None else finding.match


def _words(sequence: AlignedSequence, found: Verification | None) -> str:
    words = []
    if found is None:
        words.append('<span class="soft">not verified</span>')
    else:
        to_ms = 1000 / sequence.rate
        lag = f"lag {found.lag_frames:+.2f}"
        if found.error_frames is not None:
            lag += f" &plusmn; {found.error_frames:.2f}"
        lag += f" samples ({found.lag_frames * to_ms:+.3f} ms)"
        if found.problem not in _MEASURED:
            lag = "no lag"
        state = "good" if found.confident and not found.problem else "bad"
        what = found.problem or ("proved" if found.confident else "not proved")
        words.append(
            f'<span class="{state}">{html.escape(what)}</span>: {lag}, by the {found.by} frames, '
            f"confidence {found.confidence:.2f}, correlation {found.correlation:.3f}"
        )
        if found.drift_ppm is not None and found.drift_error_ppm is not None:
            words.append(f"drift {found.drift_ppm:+.0f} &plusmn; {found.drift_error_ppm:.0f} ppm")
        if found.applied:
            words.append("<b>clock corrected by it; below is what is left</b>")
        if found.warning:
            words.append(f'<span class="bad">{html.escape(found.warning)}</span>')
    if sequence.space is not None:
        error = sequence.space.error_pixels
        words.append(
            f"registered by {sequence.space.by}"
            + (f", corners to &plusmn; {error:.2f} frame pixels" if error is not None else "")
        )
    return "; ".join(words)


def _window(sequence: AlignedSequence, root: Path, match: Match | None) -> _Shown | None:
    """Return the middlemost exposure whose TFP lies inside the recording."""
    frames = frames_of(sequence, root)
    lag = match.lag if match is not None else 0.0
    order = sorted(range(len(frames)), key=lambda i: abs(i - (len(frames) - 1) / 2))
    for i in order:
        frame = frames[i]
        width = (
            match.width if match is not None and frame.sharp and match.width < frame.samples else 0
        )
        width = width or max(5, frame.samples // 8)
        middle = round(frame.at + lag)
        if width // 2 <= middle < frame.spikes.n_frames - width // 2:
            return _Shown(sequence.windows[i], middle, width)
    return None


def _tfp(sequence: AlignedSequence, root: Path, shown: _Shown) -> RGB:
    path = root / shown.window.spikes
    spikes = open_spikes(path, sequence.spike_geometry(), sequence.registration())
    start = max(0, shown.middle - shown.width // 2)
    stop = min(spikes.n_frames, start + shown.width)
    rate = spikes.counts(1, start, stop)[0].astype(np.float32)
    top = float(np.percentile(rate, 99.5)) or 1.0
    # As bright as a photograph: spikes are linear in light or in gamma, and seldom at full scale.
    gray = np.clip(rate / top, 0, 1) * 255
    return np.repeat(np.rint(gray).astype(np.uint8)[..., None], 3, axis=-1)


def _chequered(frame: RGB, tfp: RGB) -> RGB:
    height, width = frame.shape[:2]
    other = np.asarray(Image.fromarray(tfp).resize((width, height), Image.Resampling.BILINEAR))
    gray = np.asarray(Image.fromarray(frame).convert("L"), np.float32)
    light = other[..., 0].astype(np.float32)
    spread = float(light.std()) or 1.0
    # One brightness and contrast, so that only what does not fit shows.
    light = (light - light.mean()) * float(gray.std()) / spread + gray.mean()
    tile = max(8, width // _TILES)
    y, x = np.mgrid[:height, :width] // tile
    board = np.where((y + x) % 2 == 0, gray, np.clip(light, 0, 255))
    return np.repeat(np.rint(board).astype(np.uint8)[..., None], 3, axis=-1)


def _figure(image: RGB, caption: str) -> str:
    picture = Image.fromarray(image)
    height = max(1, round(_WIDTH * picture.height / picture.width))
    how = Image.Resampling.LANCZOS if picture.width > _WIDTH else Image.Resampling.BICUBIC
    file = io.BytesIO()
    picture.resize((_WIDTH, height), how).save(file, format="JPEG", quality=82)
    data = base64.b64encode(file.getvalue()).decode()
    text = html.escape(caption)
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" width="{_WIDTH}" height="{height}" '
        f'alt="{text}"><figcaption>{text}</figcaption></figure>'
    )


def _curve(match: Match) -> str:
    """Return the correlation over the lag as SVG: timeline dashed, peak and rival marked."""
    width, height, left, right, top, bottom = 340, 190, 34, 10, 16, 30
    known = np.isfinite(match.curve)
    lags, values = match.lags[known], match.curve[known]
    low = math.floor(10 * float(values.min())) / 10
    high = max(math.ceil(10 * float(values.max())) / 10, low + 0.1)
    first, last = float(match.lags[0]), float(match.lags[-1])

    def x(lag: float) -> float:
        return left + (lag - first) / max(last - first, 1e-9) * (width - left - right)

    def y(value: float) -> float:
        return top + (high - value) / (high - low) * (height - top - bottom)

    line = " ".join(
        f"{x(float(lag)):.1f},{y(float(value)):.1f}"
        for lag, value in zip(lags, values, strict=True)
    )
    floor = height - bottom
    marks = [
        f'<line x1="{left}" y1="{floor}" x2="{width - right}" y2="{floor}" stroke="var(--line)"/>'
    ]
    marks += [
        f'<text x="{left - 5}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.1f}</text>'
        for value in (low, high)
    ]
    marks += [
        f'<text x="{x(lag):.1f}" y="{floor + 14}" text-anchor="middle">{lag:.0f}</text>'
        for lag in (first, 0.0, last)
        if lag == 0.0 or abs(x(lag) - x(0.0)) > 40
    ]
    marks.append(
        f'<line x1="{x(0):.1f}" y1="{top}" x2="{x(0):.1f}" y2="{floor}" stroke="var(--soft)" '
        'stroke-dasharray="3 3"/>'
    )
    marks.append(f'<polyline points="{line}" fill="none" stroke="var(--ink)" stroke-width="1.3"/>')
    peak_x, peak_y = x(match.lag), y(min(match.peak, high))
    marks.append(f'<circle cx="{peak_x:.1f}" cy="{peak_y:.1f}" r="4" fill="var(--mark)"/>')
    beside = peak_x > width / 2
    marks.append(
        f'<text x="{peak_x + (-8 if beside else 8):.1f}" y="{peak_y + 4:.1f}" '
        f'text-anchor="{"end" if beside else "start"}" style="fill:var(--mark)">'
        f"{match.lag:+.1f}</text>"
    )
    if match.rival is not None and match.rival_lag is not None:
        rival_x, rival_y = x(match.rival_lag), y(match.rival)
        marks.append(
            f'<circle cx="{rival_x:.1f}" cy="{rival_y:.1f}" r="3.5" fill="none" '
            'stroke="var(--bad)"/>'
        )
    marks.append(
        f'<text x="{(left + width - right) / 2}" y="{height - 3}" text-anchor="middle">'
        "lag, samples</text>"
    )
    return (
        f'<figure><svg width="{width}" height="{height}" role="img" aria-label="correlation over '
        f'lag, peak at {match.lag:+.1f} samples">{"".join(marks)}</svg>'
        "<figcaption>correlation; dot: peak, ring: best rival</figcaption></figure>"
    )
