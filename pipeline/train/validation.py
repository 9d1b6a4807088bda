"""Quality of a model on windows that are not trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..sequences.contract import Span
from .data.loader import collate
from .objective import psnr, to_inputs
from .session import Session


@dataclass(frozen=True, slots=True)
class Validation:
    """Mean PSNR over windows in dB, of output rounded to 8 bits and of the blurred input."""

    psnr: float
    psnr_blur: float
    windows: int
    picture: np.ndarray | None
    """(H, 3 W, 3) uint8: blur, output, sharp of the first clip's middle window; on the first
    process only."""


@torch.no_grad()
def validate(session: Session, model: nn.Module, stopping: Callable[[], bool]) -> Validation | None:
    """Restore every clip to validate on, dealt to the processes in turn.

    Only the middle of each frame is taken, at most 2 * DATA.CROP_SIZE on a side: without
    gradients that fits wherever training does, and does not grow with the data's frames.

    Returns:
        None if `stopping` returned true on any process before all clips were done.
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
    """Return float32 in [0, 1], rounded to the values that a PNG holds."""
    return (image.float().clamp(0, 1) * 255).round() / 255


def _middle(side: int, most: int, ratio: int) -> Span:
    length = min(side, most // ratio * ratio)
    start = (side - length) // (2 * ratio) * ratio
    return start, start + length


def _side_by_side(*images: Tensor) -> np.ndarray:
    joined = torch.cat(images, dim=-1)  # (3, H, 3 W)
    pixels: np.ndarray = (joined * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return pixels
