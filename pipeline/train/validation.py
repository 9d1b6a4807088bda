"""How good the averaged weights are on windows that are not trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..sequences.contract import Span
from .clock import Clock
from .data.loader import collate
from .objective import psnr, to_inputs

if TYPE_CHECKING:
    from .run.checkpoint import Checkpoints
    from .run.records import Position, Records
    from .session import Session
    from .step import Learner
    from .stop import StopRequest


@dataclass(frozen=True, slots=True)
class Validation:
    """Means over windows, in dB, on output rounded to 8 bits."""

    psnr: float
    psnr_blur: float
    windows: int
    picture: np.ndarray | None
    """(H, 3 W, 3) uint8: blur, output, sharp of the first clip's middle window; on the first
    process only."""


class Validator:
    """Validates a run every TRAIN.VAL_INTERVAL steps and after the last one."""

    def __init__(self, session: Session, learner: Learner, at: Position, clock: Clock) -> None:
        self._session, self._at, self._clock = session, at, clock
        self._model = learner.model if learner.average is None else learner.average
        self.psnr_blur: float | None = None
        """PSNR of the blurred input at the last validation, in dB; None: there was none."""

    @property
    def is_due(self) -> bool:
        """Whether this step is one to validate after, and is not validated yet."""
        at = self._at
        due = (
            at.step == self._session.steps or not at.step % self._session.config.TRAIN.VAL_INTERVAL
        )
        return due and at.step != at.validated_step

    def validate(self, stop: StopRequest, records: Records, checkpoints: Checkpoints) -> bool:
        """Validate, record what is found, and write the checkpoint of the best step so far.

        Returns:
            False if `stop` became true on any process before all clips were done.
        """
        before = self._clock.total("validation")
        self._clock.start("validation")
        validation = validate(self._session, self._model, lambda: bool(stop))
        self._clock.start("saving")
        if validation is None:
            return False
        self.psnr_blur = validation.psnr_blur
        best = self._at.note_validation(validation)
        seconds = self._clock.total("validation") - before
        records.validation(validation, seconds, best=best)
        if best:
            checkpoints.write("best")
        return True


@torch.no_grad()
def validate(
    session: Session, model: nn.Module, stopping: Callable[[], bool] = lambda: False
) -> Validation | None:
    """Restore every clip to validate on, dealt to the processes in turn.

    Only the middle of each frame is taken, at most 2 * DATA.CROP_SIZE on a side: without
    gradients that fits wherever training does, and does not grow with the data's frames.

    Returns:
        None if `stopping` said so on any process before all clips were done.
    """
    samples, data, group = session.validation, session.config.DATA, session.group
    was_training = model.training
    model.eval()
    sums = np.zeros(3)
    picture = None
    stopped = False
    for clip in range(group.rank, len(samples.index), group.world):
        stopped = stopping()
        if stopped:
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
        sums += (
            psnr(output, sharp).sum().item(),
            psnr(blur, sharp).sum().item(),
            output.shape[0],
        )
        if clip == 0:
            middle = output.shape[0] // 2
            picture = _side_by_side(blur[middle], output[middle], sharp[middle])
    model.train(was_training)
    *totals, any_stopped = group.sum([*sums.tolist(), float(stopped)])
    if any_stopped:
        return None
    windows = int(totals[2])
    return Validation(totals[0] / windows, totals[1] / windows, windows, picture)


def to_8_bits(image: Tensor) -> Tensor:
    """Return float32 in [0, 1] as a PNG would hold it."""
    return (image.float().clamp(0, 1) * 255).round() / 255


def _middle(side: int, most: int, ratio: int) -> Span:
    length = min(side, most // ratio * ratio)
    start = (side - length) // (2 * ratio) * ratio
    return start, start + length


def _side_by_side(*images: Tensor) -> np.ndarray:
    joined = torch.cat(images, dim=-1)  # (3, H, 3 W)
    pixels: np.ndarray = (joined * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return pixels
