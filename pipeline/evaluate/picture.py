"""The picture of an evaluation: blurred, restored and sharp frames side by side."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...version import __version__
from ..frames.panels import Row, draw_panels
from ..host.files import StrPath, atomic_write
from ..host.locks import only_writer_of
from ..host.overwrite import require_free
from ..methods.contract import restored_frames
from ..methods.make_method import make_method
from ..methods.shared import SharedExposures
from ..sequences.corrected import correct_sequences
from ..sequences.kept import KeptSequence
from ..sequences.linear_frames import shown_in_8_bits, with_linear_frames
from ..simulate.display import SPLIT as SHOW
from .job import Evaluating, evaluate
from .metrics import psnr
from .scores import Evaluation, EvaluationError, WindowScores

_SOFTWARE = "spikedeblur"

Frame = npt.NDArray[np.uint8]


class Shown(NamedTuple):
    """The window of a picture."""

    seq: str
    frame_index: int


def require_own_picture(path: StrPath, *, overwrite: bool = False) -> None:
    """Refuse to replace a file that is no picture of `before_after`, before any work is done.

    Raises:
        OverwriteError: another file is there, and `overwrite` is not set; or a folder is.
        EvaluationError: the name is not a PNG's.
    """
    from PIL import Image

    def is_ours(path: Path) -> bool:
        with Image.open(path, formats=("PNG",)) as image:
            return str(image.info.get("Software", "")).startswith(_SOFTWARE)

    if Path(path).suffix.lower() != ".png":
        raise EvaluationError(f"{path}: expected a name that ends in .png; change it")
    require_free(path, overwrite=overwrite, is_ours=is_ours, what="a picture")


def before_after(
    store: StrPath,
    run: StrPath | None,
    split: str,
    out_png: StrPath,
    *,
    evaluation: Evaluation | None = None,
    options: Evaluating = Evaluating(),  # noqa: B008  # frozen
    overwrite: bool = False,
) -> Shown:
    """Write blur | SDM | path | model | sharp, with PSNR above each and a zoomed part below.

    The window shown is that of a scene for the eye, if the store has one; else the one whose
    improvement over the blurred frame, by the model (by SDM where there is no run), is the median
    of the split: neither the best nor the worst. The part is where the blurred frame is farthest
    from the sharp one, whatever the methods make of it.

    Args:
        store: Zarr store with sharp frames.
        run: a run folder or an exported model; None: the picture has no model.
        split: train, val or test.
        out_png: the picture; a former one is replaced.
        evaluation: evaluation of the same store, run and split, so that nothing is computed
            twice; None, or without blur, sdm or model: one is made.
        options: how the model is run, and the spike pixels' sensor.
        overwrite: replace any file of that name.

    Returns:
        The window shown.

    Raises:
        SpikeDeblurError: as `evaluate` and `require_own_picture`.
    """
    from ..sequences.stored import has_split, open_store

    require_own_picture(out_png, overwrite=overwrite)
    names = ("blur", "sdm") if run is None else ("blur", "sdm", "model")
    if evaluation is None or not set(names) <= evaluation.methods.keys():
        how = replace(options, lpips=None, motion=False)
        evaluation = evaluate(store, run=run, split=split, methods=names, how=how)
    displayed = open_store(store, SHOW) if has_split(store, SHOW) else []
    recorded = next((s for s in displayed if s.has_sharp), None)
    if recorded is not None:
        shown = Shown(recorded.seq, int(recorded.frame_index[recorded.length // 2]))
    else:
        median = median_window(evaluation, names[-1])
        shown = Shown(median.seq, median.frame_index)
        recorded = next(s for s in open_store(store, split) if s.seq == shown.seq)
    if options.sensor is not None:
        correct_sequences([recorded], options.sensor)
    sequence = KeptSequence(*with_linear_frames([recorded], options.curve))
    window = int(np.flatnonzero(np.asarray(sequence.frame_index) == shown.frame_index)[0])
    assert evaluation.sdm_bins is not None
    methods = [make_method("blur"), make_method("sdm", evaluation.sdm_bins), make_method("path")]
    if run is not None:
        methods.append(options.open(run))
    shared = SharedExposures()
    sharp = shown_in_8_bits(sequence, sequence.sharp(window, window + 1)[0])
    panels = []
    for method in methods:
        if method.shared is not None:
            method.shared = shared
        frame = next(f for i, f in restored_frames(method, sequence, lambda i: i == window))
        name = "SDM" if method.name == "sdm" else method.name
        panels.append((f"{name} {psnr(frame, sharp):.2f} dB", frame))
    panels.append(("sharp", sharp))
    with only_writer_of(out_png):
        require_own_picture(out_png, overwrite=overwrite)
        _write_picture(Path(out_png), panels)
    return shown


def median_window(evaluation: Evaluation, method: str) -> WindowScores:
    """Return the window whose improvement in PSNR over blur is the median (the lower of two)."""
    improvements = [w.scores[method].psnr - w.scores["blur"].psnr for w in evaluation.windows]
    return evaluation.windows[improvements.index(statistics.median_low(improvements))]


PART = 3
"""Times that a side of the zoomed part fits into that of the frame."""

_TWICE = 512
"""Widest frames that are shown at twice their size, in pixels."""

_SMALLEST_PANEL = 320
"""Least width of a panel, in pixels."""

_LETTERS = 20
"""Width of a panel, in the size of its caption's letters."""


def blurred_part(blur: Frame, sharp: Frame) -> tuple[slice, slice]:
    """Return rows and columns of the part, 1/PART of each side, in which two frames differ most."""
    error = np.square(blur.astype(np.float64) - sharp).sum(axis=2)  # (H, W)
    height, width = (max(side // PART, 1) for side in error.shape)
    sums = np.pad(error, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    boxes = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width]
    boxes += sums[:-height, :-width]
    top, left = map(int, np.unravel_index(boxes.argmax(), boxes.shape))
    return slice(top, top + height), slice(left, left + width)


def draw_comparison(panels: Sequence[tuple[str, Frame]]) -> Frame:
    """Return panels side by side with captions above, and below them a part of each, zoomed.

    Pixels become squares, so that nothing is smoothed. A frame marks the part.

    Args:
        panels: captions and frames (H, W, 3) uint8; the first is the blurred one, the last sharp.
    """
    rows, columns = blurred_part(panels[0][1], panels[-1][1])
    width = panels[0][1].shape[1]
    zoom = max(2 if width <= _TWICE else 1, -(-_SMALLEST_PANEL // width))
    y, x = (slice(zoom * part.start, zoom * part.stop) for part in (rows, columns))
    marked, parts = [], []
    for caption, frame in panels:
        large = frame.repeat(zoom, 0).repeat(zoom, 1)
        part = large[y, x]
        parts.append(("", part.repeat(PART, 0).repeat(PART, 1)))
        for edge in (part[:2], part[-2:], part[:, :2], part[:, -2:]):
            edge[:] = _MARK
        marked.append((caption, large))
    return draw_panels([Row("", marked), Row("", parts)], text=zoom * width // _LETTERS)


_MARK = (255, 196, 0)


def _write_picture(path: Path, panels: Sequence[tuple[str, Frame]]) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    picture = Image.fromarray(draw_comparison(panels))
    mark = PngInfo()
    mark.add_text("Software", f"{_SOFTWARE} {__version__}")
    with atomic_write(path) as file:
        picture.save(file, format="PNG", pnginfo=mark)
