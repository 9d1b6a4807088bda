"""The pictures of a report: windows before and after, and what the spikes saw in one of them."""

from __future__ import annotations

import base64
import io
import itertools
import operator
from collections import Counter
from collections.abc import Sequence as Several
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import SpikeDeblurError
from ..evaluate.metrics import psnr
from ..evaluate.picture import blurred_part
from ..frames.images import to_uint8
from ..host.reporter import Parts
from ..methods.contract import Method, restored_frames
from ..methods.make_method import METHODS, UNTRAINED, ModelOptions, make_method
from ..methods.parts import GUESSES as OF_METHODS
from ..methods.parts import parts_of
from ..methods.shared import SharedExposures
from ..sequences.contract import WindowSequence
from ..sequences.kept import KeptSequence
from ..sequences.lag import likeness_curve
from ..sequences.linear_frames import shown_in_8_bits, with_linear_frames
from ..sequences.stored import StoreSequence
from ..spikes import samples_per_bin
from .material import ReportMaterial, Run
from .words import title

LOSSLESS_SIDE = 512
"""Largest side of pictures that are kept to the bit, in pixels."""

MAX_SIDE = 1280
"""Largest side of a picture, in pixels; larger ones are reduced to it."""

INSTANTS = 48
"""Most pictures of a playback."""

PLAYBACK_SIDE = 400
"""Largest side of a playback's pictures, in pixels; larger ones are reduced to it."""

SPRITE_COLUMNS = 7
"""Pictures of a playback that lie side by side in the one that holds them all."""

SHORT = 0.12
"""Share of the exposure that each picture of a playback looks at."""

_RASTER_BYTES = 64 * 2**20
_HISTOGRAM_BINS = 32
_READING = (
    "Each dark dot is a spike. Brighter pixels fire more often; what moves leaves slanted lines."
)


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of a window."""

    name: str
    """What shows it: blur, a method, a run's model, or sharp."""
    uri: str
    psnr: float | None
    """PSNR against the sharp frame, in dB."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A window, blurred and restored."""

    title: str
    panels: tuple[Panel, ...]
    shape: tuple[int, int]
    """(H, W) of the frames, in pixels."""
    left: int = 0
    """Index of the panel on the left at first; on the right is the last but the sharp one."""
    part: tuple[float, float, float, float] | None = None
    """Left, top, width and height of the zoomed part, as shares of the frame; None: unknown."""
    side_by_side: tuple[int, ...] = ()
    """Indices of the panels that the page shows beside each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Playback:
    """One exposure as the spike camera saw it."""

    seq: str
    frame: int
    sprite: str
    """URI of the instants' pictures in one, `columns` side by side."""
    columns: int
    rows: int
    times: tuple[float, ...]
    """Times of the instants, in ms from the exposure's start."""
    width: int
    height: int
    raster: str | None
    """URI of the spikes of one row of pixels: time to the right, columns downwards."""
    raster_row: int
    raster_times: tuple[float, float]
    """First and last time of the raster, in ms from the exposure's start."""
    samples: int
    rates: tuple[tuple[float, int], ...]
    """Histogram: a rate in spikes a sample, and how many pixels have about that rate."""
    likeness: tuple[tuple[float, float], ...]
    """An offset in ms, and the correlation of the spikes there with the sharp frame."""
    reading: str
    """How to read the raster, or why there is none."""


Chosen = tuple[str, WindowSequence, int]
"""Heading, sequence and window of a comparison."""

GUESSES = OF_METHODS | {"picture": 0.05, "playback": 0.15, "page": 0.4}
"""Time to draw a picture, the playback and the page, as `methods.parts.GUESSES`."""


def compare(
    material: ReportMaterial,
    methods: Several[tuple[str, Method]],
    chosen: Several[Chosen],
    work: Parts,
) -> tuple[Comparison, ...]:
    """Return the chosen windows as methods restore them.

    A method that can't restore a window is left out; `material.notes` then says why.

    Args:
        material: takes the notes.
        methods: by name, as `choose_methods` returns them.
        chosen: as `choose_windows` returns them.
        work: hears of each part of the methods' work, and of each picture.
    """
    shared = SharedExposures()
    for _, method in methods:
        if method.shared is not None:
            method.shared = shared
    ready = [method for _, method in methods]
    parts = Counter({"picture": len(chosen) * len(methods), "playback": 1, "page": 1})
    for _, sequence, window in chosen:
        try:
            parts.update(parts_of(ready, sequence, partial(operator.eq, window)))
        except SpikeDeblurError:
            continue  # noted where the method restores
    work.expect(parts)
    shared.heard = work.did
    comparisons = []
    for heading, stored, window in chosen:
        sequence = KeptSequence(*with_linear_frames([stored]))
        wanted = partial(operator.eq, window)
        sharp = None
        if sequence.has_sharp:
            sharp = shown_in_8_bits(sequence, sequence.sharp(window, window + 1)[0])
        panels: list[Panel] = []
        part = None
        for name, method in methods:
            try:
                frame = next(f for _, f in restored_frames(method, sequence, wanted))
                if name == "blur" and sharp is not None:
                    part = _part(frame, sharp)
                panels.append(_panel(name, frame, sharp))
            except SpikeDeblurError as error:
                if str(error) not in material.notes:
                    material.notes.append(str(error))
            work.did("picture", name, finished=1)
        if sharp is not None:
            panels.append(_panel("sharp", sharp))
        names = [panel.name for panel in panels]
        shown = ("blur", "SDM", "path", *(model_name(run, material.runs) for run in material.runs))
        comparisons.append(
            Comparison(
                heading,
                tuple(panels),
                sequence.frame_shape,
                _left(panels, material.runs),
                part,
                tuple(names.index(name) for name in (*shown, "sharp") if name in names),
            )
        )
    return tuple(comparisons)


def _part(
    blur: npt.NDArray[np.uint8], sharp: npt.NDArray[np.uint8]
) -> tuple[float, float, float, float]:
    height, width = sharp.shape[:2]
    rows, columns = blurred_part(blur, sharp)
    return (
        columns.start / width,
        rows.start / height,
        (columns.stop - columns.start) / width,
        (rows.stop - rows.start) / height,
    )


def validated(material: ReportMaterial) -> tuple[tuple[str, str], ...]:
    """Return name and URI of the last picture of each run's validation, where there is no store."""
    if material.sequences:
        return ()
    pictures = []
    for run in material.runs:
        if run.samples:
            with Image.open(run.samples[-1], formats=("PNG",)) as image:
                uri = to_uri(np.asarray(image.convert("RGB")))
            step = int(run.samples[-1].stem.removeprefix("step_"))
            pictures.append((f"{run.name}: validation at step {step}", uri))
    return tuple(pictures)


def _panel(
    name: str, frame: npt.NDArray[np.uint8], sharp: npt.NDArray[np.uint8] | None = None
) -> Panel:
    return Panel(name, to_uri(frame), None if sharp is None else psnr(frame, sharp))


def choose_windows(material: ReportMaterial) -> list[tuple[str, WindowSequence, int]]:
    """Return (title, sequence, window) of the windows to show.

    A scene for the eye comes first, if the store has one, then the median improvement.
    """
    return [*_for_the_eye(material), *_by_improvement(material)]


def _for_the_eye(material: ReportMaterial) -> list[tuple[str, WindowSequence, int]]:
    return [
        (
            f"For the eye, neither trained nor scored: {sequence.seq}, frame "
            f"{sequence.frame_index[sequence.length // 2]}",
            sequence,
            sequence.length // 2,
        )
        for sequence in material.display[:1]
    ]


def _by_improvement(material: ReportMaterial) -> list[tuple[str, WindowSequence, int]]:
    by_name = {sequence.seq: sequence for sequence in material.sequences}
    scores = material.runs[0].evaluation
    frames = [frame for frame in scores.get("frames", ()) if frame["seq"] in by_name]
    guided = [name for name in ("model", "sdm") if name in scores.get("methods", ())]
    if not frames or not guided or "blur" not in scores["methods"]:
        sequence = material.sequences[0]
        middle = sequence.length // 2
        return [(f"{sequence.seq}, frame {sequence.frame_index[middle]}", sequence, middle)]

    def improvement(frame: dict[str, Any]) -> float:
        return float(frame[guided[0]]["psnr"] - frame["blur"]["psnr"])

    ordered = sorted(frames, key=improvement)
    places = {"median": (len(ordered) - 1) // 2, "least": 0, "most": -1}
    chosen: list[tuple[str, WindowSequence, int]] = []
    for what, place in places.items():
        frame = ordered[place]
        sequence = by_name[frame["seq"]]
        (windows,) = np.nonzero(np.asarray(sequence.frame_index) == frame["frame"])
        if len(windows) and (sequence, int(windows[0])) not in [c[1:] for c in chosen]:
            better = f"{what.capitalize()} improvement over blur, {improvement(frame):+.2f} dB"
            heading = f"{better}: {frame['seq']}, frame {frame['frame']}"
            chosen.append((heading, sequence, int(windows[0])))
    return chosen


def play(sequence: WindowSequence, window: int) -> Playback | None:
    """Return the playback of a window's spikes; None where the store has no raw counts."""
    if not sequence.windows_are_raw:
        return None
    samples = int(sequence.samples[window])
    t0, t1 = float(sequence.t0[window]), float(sequence.t1[window])
    step = 1000 * (t1 - t0) / max(samples - 1, 1)  # ms
    fine = sequence
    if isinstance(sequence, StoreSequence) and sequence.has_spikes:
        fine = sequence.counted_in(min(INSTANTS, int(np.min(sequence.samples))))
    counts = fine.voxels(window, window + 1)[0]  # (n, h, w)
    in_bin = samples_per_bin(samples, len(counts))
    rate = counts.sum(0, dtype=np.uint32) / np.float32(samples)
    width = max(1, round(SHORT * len(counts)))
    half = (width - 1) // 2
    scale = fine.gain or max(float(np.percentile(rate, 99)), 1e-6)
    pictures = []
    for i in range(len(counts)):
        part = slice(max(i - half, 0), max(i - half, 0) + width)
        light = counts[part].sum(0, dtype=np.uint32) / np.float32(in_bin[part].sum() * scale)
        pictures.append(to_uint8(light))
    edges = np.concatenate([[0], np.cumsum(in_bin)])
    raster, row, reading = _raster(sequence, window, counts)
    amounts, borders = np.histogram(rate, _HISTOGRAM_BINS, (0.0, max(float(rate.max()), 1e-6)))
    offsets, curve = likeness_curve(sequence, window) if sequence.has_sharp else ((), ())
    return Playback(
        seq=sequence.seq,
        frame=int(sequence.frame_index[window]),
        sprite=_sprite(pictures),
        columns=SPRITE_COLUMNS,
        rows=-(-len(pictures) // SPRITE_COLUMNS),
        times=tuple(float(step * (a + b - 1) / 2) for a, b in itertools.pairwise(edges)),
        width=counts.shape[2],
        height=counts.shape[1],
        raster=raster,
        raster_row=row,
        raster_times=(0.0, step * (samples - 1)),
        samples=samples,
        rates=tuple((float(border), int(n)) for border, n in zip(borders, amounts, strict=False)),
        likeness=tuple(
            (float(1000 * (t1 - t0) * x), float(y)) for x, y in zip(offsets, curve, strict=True)
        ),
        reading=reading,
    )


def _sprite(pictures: Several[npt.NDArray[np.uint8]]) -> str:
    small = [Image.fromarray(picture) for picture in pictures]
    for image in small:
        image.thumbnail((PLAYBACK_SIDE, PLAYBACK_SIDE))
    width, height = small[0].size
    rows = -(-len(small) // SPRITE_COLUMNS)
    joined = Image.new("L", (SPRITE_COLUMNS * width, rows * height))
    for i, image in enumerate(small):
        joined.paste(image, (i % SPRITE_COLUMNS * width, i // SPRITE_COLUMNS * height))
    return to_uri(np.asarray(joined), lossless=False, reduce=False)


def _raster(
    sequence: WindowSequence, window: int, counts: npt.NDArray[Any]
) -> tuple[str | None, int, str]:
    """Return a picture of the spikes of the row that changes most, that row, and how to read it.

    The picture is None where single spikes can't be shown; the text then says why.
    """
    third = max(1, len(counts) // 3)
    change = np.abs(counts[:third].mean(0) - counts[-third:].mean(0)).mean(1)  # (h,)
    row = int(change.argmax())
    if not isinstance(sequence, StoreSequence) or not sequence.has_spikes:
        return None, row, "The store holds counts in bins, so single spikes can't be shown."
    if int(sequence.samples[window]) * counts.shape[2] > _RASTER_BYTES:
        return None, row, "The exposure is too long for a picture of its spikes."
    spikes = sequence.spikes(window, (row, row + 1))[:, 0]  # (samples, w)
    return to_uri(255 * (1 - spikes.T)), row, _READING


def choose_methods(material: ReportMaterial, restore: bool) -> list[tuple[str, Method]]:
    """Return the methods of the table of results, in its order; all that can be without one.

    Without a store there are none.
    """
    if not material.sequences:
        return []
    scores = material.runs[0].evaluation
    shown = scores.get("methods", METHODS)
    sequences = [*material.sequences, *material.display]
    raw = all(sequence.windows_are_raw for sequence in sequences)
    spikes = all(sequence.has_spikes for sequence in sequences)
    possible = {
        name
        for name, method in UNTRAINED.items()
        if (raw or not method.needs_raw)
        and (spikes or not method.needs_spikes)
        and (restore or not method.needs_torch)
    }
    methods: list[tuple[str, Method]] = [
        (title(name), make_method(name, scores.get(f"{name}_bins")))
        for name in ("blur", *(name for name in shown if name != "blur"))
        if name in possible
    ]
    if not restore:
        return methods
    models = [
        (model_name(run, material.runs), run.folder) for run in material.runs if run.has_model
    ]
    control = scores.get("control")
    if "rgb" in shown and control is not None:
        if Path(control).exists():
            models.insert(0, (title("rgb"), Path(control)))
        else:
            material.notes.append(
                f"The model {control} is not there: no pictures by {title('rgb')}"
            )
    for name, source in models:
        try:
            methods.append((name, ModelOptions().open(source)))
        except SpikeDeblurError as error:
            material.notes.append(f"{name}: {error}")
    return methods


def model_name(run: Run, runs: Several[Run]) -> str:
    """Return what the page calls a run's model."""
    return "model" if len(runs) == 1 else run.name


def _left(panels: Several[Panel], runs: Several[Run]) -> int:
    """Return the index of the first of several models; 0, the blurred frame, without several."""
    names = [run.name for run in runs]
    models = [i for i, panel in enumerate(panels) if len(runs) > 1 and panel.name in names]
    return models[0] if len(models) > 1 else 0


def to_uri(pixels: npt.NDArray[np.uint8], *, lossless: bool = True, reduce: bool = True) -> str:
    """Return (H, W, 3) or (H, W) uint8 as a data URI with a WebP."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if reduce:
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    kept = lossless and max(image.size) <= LOSSLESS_SIDE
    content = io.BytesIO()
    image.save(content, format="WEBP", lossless=kept, quality=90, method=4)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
