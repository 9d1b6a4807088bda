"""Other cameras than the one that recorded: spikes of a batch changed on the device.

Letters in shapes: B clips, T windows, K bins, h and w a voxel grid's.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...configs.schema import SpikeAugmentConfig
from ...model import delay


def augment_spikes(batch: dict[str, Any], options: SpikeAugmentConfig) -> dict[str, Any]:
    """Return the batch as another camera would have recorded it; each clip for itself.

    A higher threshold is exact where its factor is a whole number: integrate-and-fire keeps what
    is left over after a spike, so every f-th spike of a pixel is a spike at f times the threshold,
    from a random phase on.

    Args:
        batch: `voxels` (B, T, K, h, w) raw counts, `samples` (B, T) spike samples a window, `gain`
            (B) spikes a sample at unit luminance; on one device. Random numbers are torch's.
        options: what may change, and how far.
    """
    counts = batch["voxels"].to(torch.float32)
    clips, device = len(counts), counts.device
    samples = batch["samples"].to(counts)[..., None, None, None] / counts.shape[2]  # a bin
    changed = torch.rand(clips, device=device) < options.CHANCE

    factor = torch.exp(torch.rand(clips, device=device) * math.log(options.THRESHOLD))
    factor = torch.where(changed, factor, 1.0)
    if options.THRESHOLD > 1:
        counts = raise_threshold(counts, _of_clip(factor))
    if options.NOISE > 0:
        share = _of_clip(changed * torch.rand(clips, device=device) * options.NOISE)
        false = torch.poisson((share * (samples - counts).clamp(min=0)).expand_as(counts))
        counts = torch.minimum(counts + false, torch.maximum(samples, counts))
    if options.DEAD > 0:
        share = _of_clip(changed * torch.rand(clips, device=device) * options.DEAD)
        counts = counts * (torch.rand(clips, 1, 1, *counts.shape[-2:], device=device) >= share)
    if options.ROWS > 0:
        share = _of_clip(changed * torch.rand(clips, device=device) * options.ROWS)
        counts = counts * (torch.rand(clips, 1, 1, counts.shape[-2], 1, device=device) >= share)
    if options.LATE > 0:
        by = changed * (2 * torch.rand(clips, device=device) - 1) * options.LATE
        bins = (by * counts.shape[2]).round().long()[:, None].expand(counts.shape[:2])
        counts = delay(counts, bins)
    return batch | {"voxels": counts, "gain": batch["gain"].to(device) / factor}


def tint(blur: Tensor, sharp: Tensor, options: SpikeAugmentConfig) -> tuple[Tensor, Tensor]:
    """Return frames (B, T, 3, H, W) of another exposure and white; each clip for itself."""
    clips, device = len(blur), blur.device
    changed = torch.rand(clips, 1, device=device) < options.CHANCE
    darker = changed * torch.rand(clips, 3, device=device) * options.TINT
    factor = (1 - darker)[:, None, :, None, None]
    return blur * factor, sharp * factor


def grain(blur: Tensor, options: SpikeAugmentConfig) -> Tensor:
    """Return frames (B, T, 3, H, W) in [0, 1] with noise; each clip for itself."""
    clips, device = len(blur), blur.device
    changed = torch.rand(clips, device=device) < options.CHANCE
    deviation = _of_clip(changed * torch.rand(clips, device=device) * options.GRAIN)
    return (blur + deviation * torch.randn_like(blur)).clamp(0, 1)


def raise_threshold(counts: Tensor, factor: Tensor) -> Tensor:
    """Return the counts (..., K, h, w) of a threshold `factor` times as high, at least 1."""
    total = counts.cumsum(-3)
    phase = torch.rand_like(total[..., :1, :, :]) * factor
    total = torch.div(total + phase, factor, rounding_mode="floor")
    before = torch.div(phase, factor, rounding_mode="floor")
    return torch.diff(total, dim=-3, prepend=before)


def _of_clip(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1, 1)
