"""Validation: quality of a model on windows that are not trained on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..sequences.contract import Span
from .clock import Clock
from .data.loader import collate
from .objective import psnr, to_inputs
from .run.checkpoint import Checkpoints
from .run.records import Position, Records
from .session import Session
from .step import Learner
from .stop import StopRequest


class Validator:
    """Validates a run before its first step, every TRAIN.VAL_INTERVAL steps and after the last.

    The averaged weights are validated where there are any. PSNR is that of output rounded to 8
    bits.
    """

    def __init__(self, session: Session, learner: Learner, at: Position, clock: Clock) -> None:
        self._session, self._at, self._clock = session, at, clock
        self._sums_by_store: list[list[float]] = []
        self._model = learner.model if learner.average is None else learner.average
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
        sums, picture = self._restore_all(stop)
        self._clock.start("saving")
        if bool(sums[3]):
            return False
        mean, self.psnr_blur = sums[0] / sums[2], sums[1] / sums[2]
        self.by_store = {
            part.name: {"psnr": own / windows, "psnr_blur": blur / windows, "windows": int(windows)}
            for part, (own, blur, windows) in zip(
                self._session.splits.parts, self._sums_by_store, strict=False
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
        if self.by_store:
            values["stores"] = self.by_store
        records.validation(values, picture)
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
            number of windows, and of processes that were stopped; and a picture (H, 3 W, 3) uint8
            of the first clip's middle window: blur, output, sharp; on the first process only.
        """
        session, model = self._session, self._model
        samples, data, group = session.validation, session.config.DATA, session.group
        was_training = model.training
        model.eval()
        sums = np.zeros(4)
        parts = session.splits.parts
        of_stores = np.zeros((len(parts), 3))
        ends = np.cumsum([part.validation for part in parts])
        picture = None
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
            sums[0] += psnr(output, sharp).sum().item()
            sums[1] += psnr(blur, sharp).sum().item()
            sums[2] += output.shape[0]
            if parts:
                number = samples.index[clip].sequence
                own = (psnr(output, sharp), psnr(blur, sharp), torch.ones(len(output)))
                store = int(np.searchsorted(ends, number, side="right"))
                of_stores[store] += [values.sum().item() for values in own]
            if clip == 0:
                middle = output.shape[0] // 2
                picture = _side_by_side(blur[middle], output[middle], sharp[middle])
        model.train(was_training)
        if parts:
            sums_by_store = group.sum(of_stores.ravel().tolist())
            self._sums_by_store = np.reshape(sums_by_store, (-1, 3)).tolist()
        return group.sum(sums.tolist()), picture


def to_8_bits(image: Tensor) -> Tensor:
    """Return float32 in [0, 1], rounded to the values that a PNG holds."""
    return (image.float().clamp(0, 1) * 255).round() / 255


def _middle(side: int, most: int, ratio: int) -> Span:
    length = min(side, most // ratio * ratio)
    start = (side - length) // (2 * ratio) * ratio
    return start, start + length


def _side_by_side(*images: Tensor) -> np.ndarray:
    joined = torch.cat(images, dim=-1)  # (3, H, 3 W)
    return (joined * 255).round().byte().permute(1, 2, 0).cpu().numpy()
