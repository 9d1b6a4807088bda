"""What training on a clip costs in floating-point operations, and how many the device can take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .phases import Phase
from .precision import Precision
from .session import Session
from .step import Learner

_SIDE = {"cpu": 512, "cuda": 4096}
"""Side of the square matrices whose product measures the peak."""
_REPEATS = 5


@dataclass(frozen=True, slots=True)
class Work:
    """Operations of a clip, and the most that a device takes in a second."""

    clip_flops: int
    """Floating-point operations of training on one clip."""
    peak: float
    """Floating-point operations a second of a large matrix product on one process's device."""

    def tflops(self, clips_per_s: float) -> float:
        """Return TFLOP/s at a rate of clips."""
        return clips_per_s * self.clip_flops / 1e12

    def share(self, clips_per_s: float, processes: int) -> float:
        """Return the share of the peak of all processes that a rate of clips takes, 0 to 1."""
        return clips_per_s * self.clip_flops / (processes * self.peak)


def measure_work(session: Session, learner: Learner) -> dict[int, Work]:
    """Count a clip's operations in each phase, by its first step, and measure the device's peak."""
    peak = measure_peak(learner.precision)
    return {phase.start: Work(count_clip_flops(phase, learner), peak) for phase in session.phases}


@torch.no_grad()
def count_clip_flops(phase: Phase, learner: Learner) -> int:
    """Return the floating-point operations of training on one clip of a phase.

    Counted is one forward pass of the network, by torch's `FlopCounterMode`: matrix products,
    convolutions and attention, a multiplication and its addition as two. It is taken three times,
    because the gradient of a product takes two more. Left out are the loss, the optimizer, what is
    only added, sampled or normalised, and what is computed twice to save memory.
    """
    samples, config, device = phase.training, phase.config, learner.precision.device
    length, side = int(samples.index.length.max()), config.DATA.CROP_SIZE
    small = side // samples.ratio
    blur = torch.zeros(1, length, 3, side, side, device=device)
    voxels = torch.zeros(1, length, config.DATA.K, small, small, device=device)
    counter = FlopCounterMode(display=False, custom_mapping=_deformable())
    learner.model.eval()
    with counter, learner.precision.autocast():
        learner.model.forward(blur, voxels)  # not as it may be compiled
    learner.model.train()
    return 3 * int(counter.get_total_flops())


def _deformable() -> dict[Any, Any]:
    """Return the count of torchvision's deformable convolution, which torch doesn't know."""
    import torchvision  # noqa: F401  # makes its operators known

    def count(x: Any, weight: Any, *rest: Any, out_shape: Any = None, **options: Any) -> int:
        batch, channels, height, width = out_shape
        return 2 * batch * channels * height * width * weight[1] * weight[2] * weight[3]

    return {torch.ops.torchvision.deform_conv2d: count}


def measure_peak(precision: Precision) -> float:
    """Return the floating-point operations a second of a large matrix product, the best of some.

    It is in the numbers that the forward pass computes in, and on as many threads.
    """
    device = precision.device
    side = _SIDE.get(device.type, 512)
    matrix = torch.ones(side, side, device=device, dtype=precision.dtype or torch.float32)
    out = matrix @ matrix
    seconds = []
    for _ in range(_REPEATS):
        _wait(device)
        began = time.perf_counter()
        torch.mm(matrix, matrix, out=out)
        _wait(device)
        seconds.append(time.perf_counter() - began)
    return 2.0 * side**3 / min(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
