"""The pictures of a report: windows before and after, and what the spikes saw in one of them."""

from __future__ import annotations

import base64
import io
import itertools
import operator
from collections.abc import Sequence as Several
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import SpikeDeblurError
from ..evaluate.metrics import psnr
from ..frames.images import to_8_bits, to_uint8
from ..host.reporter import SILENT, Reporter
from ..methods.contract import Method, restored_frames
from ..methods.make_method import ModelOptions
from ..methods.shared import SharedExposures
from ..methods.tfp_tfi_sdm import BlurMethod, SdmMethod, TfpMethod
from ..sequences.contract import WindowSequence
from ..sequences.kept import KeptSequence
from ..sequences.lag import likeness_curve
from ..sequences.stored import StoreSequence
from ..spikes import samples_per_bin
from .material import ReportMaterial, Run

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


def compare(
    material: ReportMaterial, reporter: Reporter = SILENT, *, restore: bool = True
) -> tuple[Comparison, ...]:
    """Return the windows with the median, the least and the most gain over blur.

    Without a store, they are the last picture of each run's validation. A model that can't restore
    a window is left out; `material.notes` then says why.
    """
    if not material.sequences:
        return tuple(_of_validation(run) for run in material.runs if run.samples)
    methods = _methods(material, restore)
    chosen = choose_windows(material)
    done, total = 0, len(chosen) * len(methods)
    reporter.progress(done, total)
    shared = SharedExposures()
    for _, method in methods:
        if method.shared is not None:
            method.shared = shared
    comparisons = []
    for title, stored, window in chosen:
        sequence = KeptSequence(stored)
        wanted = partial(operator.eq, window)
        sharp = None
        if sequence.has_sharp:
            sharp = to_8_bits(sequence.sharp(window, window + 1)[0])
        panels = []
        for name, method in methods:
            try:
                frame = next(f for _, f in restored_frames(method, sequence, wanted))
                panels.append(_panel(name, frame, sharp))
            except SpikeDeblurError as error:
                if str(error) not in material.notes:
                    material.notes.append(str(error))
            done += 1
            reporter.progress(done, total, name)
        if sharp is not None:
            panels.append(_panel("sharp", sharp))
        left = _left(panels, material.runs)
        comparisons.append(Comparison(title, tuple(panels), sequence.frame_shape, left))
    return tuple(comparisons)


def _panel(
    name: str, frame: npt.NDArray[np.uint8], sharp: npt.NDArray[np.uint8] | None = None
) -> Panel:
    return Panel(name, to_uri(frame), None if sharp is None else psnr(frame, sharp))


def choose_windows(material: ReportMaterial) -> list[tuple[str, WindowSequence, int]]:
    """Return (title, sequence, window) of the windows to show; the median gain comes first."""
    by_name = {sequence.seq: sequence for sequence in material.sequences}
    scores = material.runs[0].evaluation
    frames = [frame for frame in scores.get("frames", ()) if frame["seq"] in by_name]
    guided = [name for name in ("model", "sdm") if name in scores.get("methods", ())]
    if not frames or not guided or "blur" not in scores["methods"]:
        sequence = material.sequences[0]
        middle = sequence.length // 2
        return [(f"{sequence.seq}, frame {sequence.frame_index[middle]}", sequence, middle)]

    def gain(frame: dict[str, Any]) -> float:
        return float(frame[guided[0]]["psnr"] - frame["blur"]["psnr"])

    ordered = sorted(frames, key=gain)
    places = {"median gain": (len(ordered) - 1) // 2, "least gain": 0, "most gain": -1}
    chosen: list[tuple[str, WindowSequence, int]] = []
    for what, place in places.items():
        frame = ordered[place]
        sequence = by_name[frame["seq"]]
        (windows,) = np.nonzero(np.asarray(sequence.frame_index) == frame["frame"])
        if len(windows) and (sequence, int(windows[0])) not in [c[1:] for c in chosen]:
            title = f"{what}, {gain(frame):+.2f} dB: {frame['seq']}, frame {frame['frame']}"
            chosen.append((title, sequence, int(windows[0])))
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


def _methods(material: ReportMaterial, restore: bool) -> list[tuple[str, Method]]:
    scores = material.runs[0].evaluation
    methods: list[tuple[str, Method]] = [("blur", BlurMethod())]
    if all(sequence.windows_are_raw for sequence in material.sequences):
        for name, make in (("TFP", TfpMethod), ("SDM", SdmMethod)):
            width = scores.get(f"{name.lower()}_bins")
            methods.append((name, make(width) if width else make()))
    for run in material.runs:
        if run.weights_sha256 is None or not restore:
            continue
        try:
            methods.append((model_name(run, material.runs), ModelOptions().open(run.folder)))
        except SpikeDeblurError as error:
            material.notes.append(f"{run.name}: {error}")
    return methods


def model_name(run: Run, runs: Several[Run]) -> str:
    """Return what the page calls a run's model."""
    return "model" if len(runs) == 1 else run.name


def _left(panels: Several[Panel], runs: Several[Run]) -> int:
    """Return the index of the first of several models; 0, the blurred frame, without several."""
    names = [run.name for run in runs]
    models = [i for i, panel in enumerate(panels) if len(runs) > 1 and panel.name in names]
    return models[0] if len(models) > 1 else 0


def _of_validation(run: Run) -> Comparison:
    with Image.open(run.samples[-1], formats=("PNG",)) as image:
        joined = np.asarray(image.convert("RGB"))
    height, width = joined.shape[0], joined.shape[1] // 3
    blur, model, sharp = (joined[:, i * width : (i + 1) * width] for i in range(3))
    panels = (_panel("blur", blur, sharp), _panel("model", model, sharp), _panel("sharp", sharp))
    step = int(run.samples[-1].stem.removeprefix("step_"))
    title = f"{run.name}: first clip of validation, step {step}"
    return Comparison(title, panels, (height, width))


def to_uri(pixels: npt.NDArray[np.uint8], *, lossless: bool = True, reduce: bool = True) -> str:
    """Return (H, W, 3) or (H, W) uint8 as a data URI with a WebP."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if reduce:
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    kept = lossless and max(image.size) <= LOSSLESS_SIDE
    content = io.BytesIO()
    image.save(content, format="WEBP", lossless=kept, quality=90, method=4)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
