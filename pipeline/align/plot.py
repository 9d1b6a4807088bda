"""A page that shows whether an alignment is right: pictures and the correlation by sequence.

Each sequence has a blurred frame, its sharp frame, the TFP at the time that the frames show,
frame and TFP in a chequerboard (edges run through it where both fit), and the correlation over
the lag. The page is HTML without scripts and without other files; problems come first.
"""

from __future__ import annotations

import base64
import html
import io
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..frames.images import read_frame, to_8_bits
from ..host.files import write_text
from ..host.overwrite import require_free
from ..host.reading import read_start
from ..spikes.rolling import open_spikes
from .manifest import AlignedSequence, Manifest, Window
from .measure.dataset import frames_of
from .measure.lag import Match
from .measure.verify import FrameAt, find_best
from .readout import delays_of
from .verification import FRAMES_OF_KIND

MOST_SEQUENCES = 200
"""Most sequences on one page: those with a problem, then others, spread over the data set."""

_MARK = "<!-- spikedeblur align -->"
_WIDTH = 232
"""Width of a picture on the page, in pixels."""
_MEASURED = (None, "edge", "rival", "unsure", "sharp apart", "rolling shutter", "late", "early")
"""Problems with which a lag was measured."""
_TILES = 8
"""Tiles of the chequerboard, from left to right."""
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
svg tspan{fill:var(--mark)}
"""

RGB = npt.NDArray[np.uint8]
Map = Callable[[Callable[[AlignedSequence], str], list[AlignedSequence]], Iterable[str]]


def require_page_free(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Refuse to replace a file that is no such page.

    Raises:
        OverwriteError: a folder or another file is there.
    """
    require_free(
        path,
        overwrite=overwrite,
        is_ours=lambda page: _MARK.encode() in read_start(page, 200),
        what="an alignment page",
    )


def write_page(path: str | os.PathLike[str], manifest: Manifest, root: Path, each: Map) -> None:
    """Write the page of a manifest's sequences.

    Args:
        path: HTML file.
        manifest: the data set as aligned; of a corrected clock, the page shows what lag is left.
        root: the data set's folder.
        each: `map`, or a pool's.
    """
    shown = _chosen(manifest.sequences)
    sections = each(lambda sequence: _section(sequence, root), shown)
    write_text(path, _page(manifest, len(shown), sections))


def _chosen(sequences: Sequence[AlignedSequence]) -> list[AlignedSequence]:
    odd = [s for s in sequences if s.verification is None or s.verification.open_problem]
    even = [s for s in sequences if s.verification is not None and not s.verification.open_problem]
    room = max(0, MOST_SEQUENCES - len(odd))
    if len(even) > room:
        even = [even[i * len(even) // room] for i in range(room)]
    return odd[:MOST_SEQUENCES] + even


def _page(manifest: Manifest, shown: int, sections: Iterable[str]) -> str:
    measured = [s.verification for s in manifest.sequences if s.verification is not None]
    proved = sum(lag.confident for lag in measured)
    applied = sum(lag.applied for lag in measured)
    windows = sum(len(sequence.windows) for sequence in manifest.sequences)
    problems = Counter(lag.open_problem for lag in measured if lag.open_problem)
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


def _section(sequence: AlignedSequence, root: Path) -> str:
    frames = frames_of(sequence, root)
    lag = sequence.verification
    match = None if lag is None else find_best(frames, lag.by)
    place = _tfp_place(frames, match)
    if place is None:
        middle = sequence.windows[len(sequence.windows) // 2]
        blur = to_8_bits(read_frame(root / middle.blur))
        figures = [_figure(blur, "blurred; its exposure is outside the recording")]
    else:
        i, centre, width = place
        figures = _figures(sequence, sequence.windows[i], root, centre, width)
    if match is not None:
        figures.append(_curve(match))
    title = f"<section>\n<h2>{html.escape(sequence.seq)}</h2>\n<p>{_words(sequence)}</p>"
    return "\n".join([title, '<div class="row">', *figures, "</div>", "</section>"])


def _words(sequence: AlignedSequence) -> str:
    words = []
    measured = sequence.verification
    if measured is None:
        words.append('<span class="soft">not verified</span>')
    else:
        lag = f"lag {measured.lag_frames:+.2f}"
        if measured.error_frames is not None:
            lag += f" &plusmn; {measured.error_frames:.2f}"
        lag += f" samples ({measured.lag_frames * 1000 / sequence.rate:+.3f} ms)"
        if measured.problem not in _MEASURED:
            lag = "no lag"
        state = "good" if measured.confident and not measured.open_problem else "bad"
        what = measured.open_problem or ("proved" if measured.confident else "not proved")
        words.append(
            f'<span class="{state}">{html.escape(what)}</span>: {lag}, by the '
            f"{FRAMES_OF_KIND[measured.by]}, confidence {measured.confidence:.2f}, "
            f"correlation {measured.correlation:.3f}"
        )
        if measured.drift_ppm is not None and measured.drift_error_ppm is not None:
            words.append(
                f"drift {measured.drift_ppm:+.0f} &plusmn; {measured.drift_error_ppm:.0f} ppm"
            )
        if measured.applied:
            words.append("<b>clock corrected by it; below is what is left</b>")
        if measured.open_warning:
            words.append(f'<span class="bad">{html.escape(measured.open_warning)}</span>')
    if sequence.space is not None:
        error = sequence.space.error_pixels
        corners = f", corners to &plusmn; {error:.2f} frame pixels" if error is not None else ""
        words.append(f"registered by {sequence.space.by}{corners}")
    return "; ".join(words)


def _tfp_place(frames: list[FrameAt], match: Match | None) -> tuple[int, int, int] | None:
    """Return the middlemost exposure whose TFP lies inside the recording.

    Returns:
        Its index, and middle and width of the TFP, in samples; None: there is no such exposure.
    """
    lag = match.lag if match is not None else 0.0
    for i in sorted(range(len(frames)), key=lambda i: abs(i - (len(frames) - 1) / 2)):
        frame = frames[i]
        width = max(5, frame.samples // 8)
        if match is not None and frame.sharp and match.width < frame.samples:
            width = match.width
        middle = round(frame.at + lag)
        first, stop = frame.spikes.whole
        if first + width // 2 <= middle < stop - width // 2:
            return i, middle, width
    return None


def _figures(
    sequence: AlignedSequence, window: Window, root: Path, middle: int, width: int
) -> list[str]:
    blur = to_8_bits(read_frame(root / window.blur))
    sharp = to_8_bits(read_frame(root / window.sharp)) if window.sharp else None
    geometry, delays = sequence.spike_geometry(), delays_of(sequence, root, registered=True)
    spikes = open_spikes(
        root / window.spikes, geometry, sequence.registration(), delays, sequence.cut(window)
    )
    first, stop = spikes.whole
    start = max(first, middle - width // 2)
    rate = spikes.counts(1, start, min(stop, start + width))[0].astype(np.float32)
    # Scaled to a photograph's brightness, since spikes are seldom at full scale.
    tfp = _gray(np.clip(rate / (float(np.percentile(rate, 99.5)) or 1.0), 0, 1) * 255)
    registered = ", registered" if sequence.space else ""
    board = _chequered(blur if sharp is None else sharp, tfp)
    return [
        _figure(blur, f"blurred, frame {window.frame_index}"),
        *([] if sharp is None else [_figure(sharp, "sharp")]),
        _figure(tfp, f"TFP of {width} samples{registered}"),
        _figure(board, ("blurred" if sharp is None else "sharp") + " and TFP"),
    ]


def _gray(plane: npt.NDArray[np.floating]) -> RGB:
    return np.repeat(np.rint(plane).astype(np.uint8)[..., None], 3, axis=-1)


def _chequered(frame: RGB, tfp: RGB) -> RGB:
    height, width = frame.shape[:2]
    other = np.asarray(Image.fromarray(tfp).resize((width, height), Image.Resampling.BILINEAR))
    gray = np.asarray(Image.fromarray(frame).convert("L"), np.float32)
    light = other[..., 0].astype(np.float32)
    spread = float(light.std()) or 1.0
    # The TFP gets the frame's brightness and contrast, so that only what does not fit shows.
    light = (light - light.mean()) * float(gray.std()) / spread + gray.mean()
    tile = max(8, width // _TILES)
    y, x = np.mgrid[:height, :width] // tile
    return _gray(np.where((y + x) % 2 == 0, gray, np.clip(light, 0, 255)))


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
    width, height, left, right, top, floor = 340, 190, 34, 330, 16, 160
    curve = match.lobe
    known = np.isfinite(curve.curve)
    values = curve.curve[known]
    low = math.floor(10 * float(values.min())) / 10
    high = max(math.ceil(10 * float(values.max())) / 10, low + 0.1)
    first, last = float(curve.lags[0]), float(curve.lags[-1])

    def x(lag: float) -> float:
        return left + (lag - first) / max(last - first, 1e-9) * (right - left)

    def y(value: float) -> float:
        return top + (high - value) / (high - low) * (floor - top)

    def text(at: float, below: float, anchor: str, words: str) -> str:
        return f'<text x="{at:.1f}" y="{below:.1f}" text-anchor="{anchor}">{words}</text>'

    points = zip(curve.lags[known], values, strict=True)
    line = " ".join(f"{x(float(lag)):.1f},{y(float(value)):.1f}" for lag, value in points)
    ticks = [lag for lag in (first, 0.0, last) if lag == 0.0 or abs(x(lag) - x(0.0)) > 40]
    peak_x, peak_y = x(match.lag), y(min(match.peak, high))
    side, anchor = (-8, "end") if peak_x > width / 2 else (8, "start")
    marks = [
        f'<path d="M{left} {floor}H{right}" stroke="var(--line)"/>',
        f'<path d="M{x(0):.1f} {top}V{floor}" stroke="var(--soft)" stroke-dasharray="3 3"/>',
        *(text(left - 5, y(value) + 4, "end", f"{value:.1f}") for value in (low, high)),
        *(text(x(lag), floor + 14, "middle", f"{lag:.0f}") for lag in ticks),
        f'<polyline points="{line}" fill="none" stroke="var(--ink)" stroke-width="1.3"/>',
        f'<circle cx="{peak_x:.1f}" cy="{peak_y:.1f}" r="4" fill="var(--mark)"/>',
        text(peak_x + side, peak_y + 4, anchor, f"<tspan>{match.lag:+.1f}</tspan>"),
        text((left + right) / 2, height - 3, "middle", "lag, samples"),
    ]
    if curve.rival is not None:
        lag, value = curve.rival
        marks.append(
            f'<circle cx="{x(lag):.1f}" cy="{y(value):.1f}" r="3.5" '
            'fill="none" stroke="var(--bad)"/>'
        )
    return (
        f'<figure><svg width="{width}" height="{height}" role="img" aria-label="correlation over '
        f'lag, peak at {match.lag:+.1f} samples">{"".join(marks)}</svg>'
        "<figcaption>correlation; dot: peak, ring: best rival</figcaption></figure>"
    )
