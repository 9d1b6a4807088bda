"""Validation: quality of a model on windows that are not trained on."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..frames.panels import Row, draw_panels
from ..sequences.contract import Span
from .clock import Clock
from .data.loader import collate
from .data.order import ClipIndex
from .objective import psnr, to_inputs
from .run.checkpoint import Checkpoints
from .run.records import Position, Records
from .session import Session
from .step import Learner
from .stop import StopRequest

SHOWN = 4
"""Windows in a validation's picture, evenly spread over those that are validated."""

SHOWN_SIDE = 256
"""Most pixels that are shown of a side, from the middle."""

ZOOM = 2
"""Side of the square that a pixel becomes in the picture, in pixels."""


class ShownWindow(NamedTuple):
    """A window that was validated, for the picture."""

    number: int
    """Number of the window among those that are shown."""
    title: str
    psnr_blur: float
    """PSNR of the blurred frame, in dB, as validated."""
    psnr: float
    images: tuple[np.ndarray, ...]
    """Blur, output and sharp frame, each (H, W, 3) uint8."""


class Validator:
    """Validates a run before its first step, every TRAIN.VAL_INTERVAL steps and after the last.

    The averaged weights are validated where there are any; of several the best are kept. PSNR is
    that of output rounded to 8 bits.
    """

    def __init__(self, session: Session, learner: Learner, at: Position, clock: Clock) -> None:
        self._session, self._at, self._clock = session, at, clock
        self._learner, self._model = learner, learner.model
        self._shown = _spread(session.validation.index)
        self._sums_by_store: list[list[float]] = []
        self.psnr_blur: float | None = None
        """PSNR of the blurred input at the last validation, in dB; None: there was none."""
        self.by_store: dict[str, dict[str, float]] = {}
        """PSNR of the output and of the blurred input at the last validation, in dB, and the number
        of windows, of each of several stores that have some."""

    @property
    def is_due(self) -> bool:
        """Whether this step is one to validate after, and is not validated yet."""
        step, interval = self._at.step, self._session.config.TRAIN.VAL_INTERVAL
        due = step == self._session.steps or step % interval == 0
        return due and step != self._at.validated_step

    def validate(self, stop: StopRequest, records: Records, checkpoints: Checkpoints) -> bool:
        """Validate, record the PSNR, and write the checkpoint of the best step so far.

        Returns:
            False if `stop` became true on any process before all clips were done.
        """
        before = self._clock.total("validation")
        self._clock.start("validation")
        means: dict[float | None, float] = {}
        pictures, by_store = {}, {}
        for decay, model in self._learner.kept():
            self._model = model
            sums, pictures[decay] = self._restore_all(stop)
            if bool(sums[3]):
                self._clock.start("saving")
                return False
            means[decay], self.psnr_blur = sums[0] / sums[2], sums[1] / sums[2]
            by_store[decay] = self._sums_by_store
        self._clock.start("saving")
        finite = {decay: mean for decay, mean in means.items() if math.isfinite(mean)}
        chosen = max(finite or means, key=means.__getitem__)
        mean, self._learner.best_decay = means[chosen], chosen
        self.by_store = {
            part.name: {"psnr": own / windows, "psnr_blur": blur / windows, "windows": int(windows)}
            for part, (own, blur, windows) in zip(
                self._session.splits.parts, by_store[chosen], strict=False
            )
            if windows
        }
        best = self._at.note_validation(mean)
        values: dict[str, Any] = {
            "seconds": self._clock.total("validation") - before,
            "psnr": mean if math.isfinite(mean) else None,
            "psnr_blur": self.psnr_blur,
            "windows": int(sums[2]),
            "best": best,
        }
        if len(means) > 1:
            values |= {f"psnr_ema_{decay}": finite.get(decay) for decay in means}
        if self.by_store:
            values["stores"] = self.by_store
        records.validation(values, pictures[chosen])
        if best:
            checkpoints.write("best")
        return True

    def described(self) -> str:
        """Return a line about the PSNR of each store at the last validation."""
        return ", ".join(
            f"{name} {values['psnr']:.2f} dB (blurred input {values['psnr_blur']:.2f} dB)"
            for name, values in self.by_store.items()
        )

    @torch.no_grad()
    def _restore_all(self, stop: StopRequest) -> tuple[list[float], np.ndarray | None]:
        """Restore every clip to validate on, dealt to the processes in turn.

        Only the middle of each frame is taken, at most 2 * DATA.CROP_SIZE on a side: without
        gradients that fits wherever training does, and does not grow with the data's frames.

        Returns:
            Sums over all processes: PSNR and the blurred input's PSNR of all windows in dB, the
            number of windows, and of processes that were stopped; and a picture (H, W, 3) uint8
            of `SHOWN` windows, the same in each validation: blur, output and sharp in a row each,
            with PSNR; on the first process only.
        """
        session, model = self._session, self._model
        samples, data, group = session.validation, session.config.DATA, session.group
        was_training = model.training
        model.eval()
        sums = np.zeros(4)
        shown: list[ShownWindow] = []
        parts = session.splits.parts
        of_stores = np.zeros((len(parts), 3))
        ends = np.cumsum([part.validation for part in parts])
        for clip in range(group.rank, len(samples.index), group.world):
            if stop:
                sums[3] = 1
                break
            shape = samples.sequences[samples.index[clip].sequence].frame_shape
            rows, columns = (_middle(side, 2 * data.CROP_SIZE, samples.ratio) for side in shape)
            batch = collate([samples.cut(clip, rows, columns)])
            raw = samples.sequences[0].windows_are_raw
            inputs = to_inputs(batch, group.device, data.NORM, raw=raw)
            with session.precision.autocast():
                output = model(inputs.blur, inputs.voxels)
            output = to_8_bits(output)[0]  # (T, 3, H, W)
            blur, sharp = inputs.blur[0], inputs.sharp[0]
            of_output, of_blur = psnr(output, sharp).tolist(), psnr(blur, sharp).tolist()
            sums += [sum(of_output), sum(of_blur), output.shape[0], 0]
            if parts:
                store = np.searchsorted(ends, samples.index[clip].sequence, side="right")
                of_stores[store] += [sum(of_output), sum(of_blur), output.shape[0]]
            for number, t in self._shown.get(clip, ()):
                images = tuple(_shown_part(frames[t]) for frames in (blur, output, sharp))
                title = f"{batch['seq'][0]}, frame {batch['frame_index'][0][t]}"
                shown.append(ShownWindow(number, title, of_blur[t], of_output[t], images))
        model.train(was_training)
        total = group.sum(sums.tolist())
        if parts:
            summed = group.sum(of_stores.ravel().tolist())
            self._sums_by_store = np.reshape(summed, (-1, 3)).tolist()
        windows = sorted(window for of_process in group.gather(shown) for window in of_process)
        return total, _drawn(windows) if group.is_first and windows else None


def to_8_bits(image: Tensor) -> Tensor:
    """Return float32 in [0, 1], rounded to the values that a PNG holds."""
    return (image.float().clamp(0, 1) * 255).round() / 255


def _middle(side: int, most: int, ratio: int) -> Span:
    length = min(side, most // ratio * ratio)
    start = (side - length) // (2 * ratio) * ratio
    return start, start + length


def _spread(index: ClipIndex) -> dict[int, list[tuple[int, int]]]:
    """Return which windows are shown: by clip, the number of each and its place in the clip."""
    ends = np.cumsum([index[clip].length for clip in range(len(index))])
    total = int(ends[-1])
    shown: dict[int, list[tuple[int, int]]] = {}
    for number in range(min(SHOWN, total)):
        window = (2 * number + 1) * total // (2 * min(SHOWN, total))
        clip = int(np.searchsorted(ends, window, side="right"))
        shown.setdefault(clip, []).append((number, window - int(ends[clip]) + index[clip].length))
    return shown


def _shown_part(image: Tensor) -> np.ndarray:
    """Return the middle of (3, H, W) in [0, 1] as (H, W, 3) uint8."""
    top, left = (max(0, side - SHOWN_SIDE) // 2 for side in image.shape[1:])
    part = image[:, top : top + SHOWN_SIDE, left : left + SHOWN_SIDE]
    return (part * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def _drawn(windows: list[ShownWindow]) -> np.ndarray:
    def row(window: ShownWindow) -> Row:
        captions = f"blur {window.psnr_blur:.2f} dB", f"output {window.psnr:.2f} dB", "sharp"
        return Row(window.title, list(zip(captions, window.images, strict=True)))

    return draw_panels([row(window) for window in windows], ZOOM)
