"""Spikes and frames of a batch changed to those of other cameras, on the device.

Letters in shapes: B clips, T windows, K bins, h and w a voxel grid's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ....configs.schema.data import SpikeAugmentConfig
from ....model import delay

_LEAST_HOT = 0.02
"""Least dark rate of a hot pixel, in spikes a sample; at 1 it fires always."""
_LEAST_GAIN = 0.2
_DARK_SPREAD = 0.3
"""Spread of the logarithm of dark rates."""
_FAINT = 1e-4
"""Light of dark bins, in spikes a bin; so little reaches no threshold."""


@contextmanager
def drawn_from(seed: int, device: torch.device) -> Iterator[None]:
    """Have torch draw random numbers from a seed, and from where it was afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def as_other_cameras(batch: dict[str, Any], options: SpikeAugmentConfig) -> dict[str, Any]:
    """Return the batch with each clip changed by its own seed, whatever clips are beside it.

    Args:
        batch: `blur`, `sharp` (B, T, 3, H, W) in [0, 1], `voxels`, `samples` and `gain` as
            `augment_spikes` takes them, on one device; `changes`, B seeds.
        options: largest change of each kind.
    """
    names = ("blur", "sharp", "voxels", "samples", "gain")
    changed = []
    for number, seed in enumerate(batch["changes"]):
        one = {name: batch[name][number : number + 1] for name in names}
        with drawn_from(seed, one["voxels"].device):
            one = augment_spikes(one, options)
            if options.TINT > 0:
                one["blur"], one["sharp"] = tint(one["blur"], one["sharp"], options)
            if options.GRAIN > 0:
                one["blur"] = grain(one["blur"], options)
        changed.append(one)
    return batch | {name: torch.cat([one[name] for one in changed]) for name in names}


def augment_spikes(batch: dict[str, Any], options: SpikeAugmentConfig) -> dict[str, Any]:
    """Return the batch that another camera would have recorded; each clip has its own.

    A higher threshold is exact where its factor is a whole number: integrate-and-fire keeps what
    is left over after a spike, so every f-th spike of a pixel is a spike at f times the threshold,
    from a random phase on.

    Args:
        batch: `voxels` (B, T, K, h, w) raw counts, or floating: light from intervals; `samples`
            (B, T) spike samples a window, `gain` (B) spikes a sample at unit luminance; on one
            device. Random numbers are torch's.
        options: largest change of each kind.
    """
    counts = batch["voxels"].to(torch.float32)
    clips, device = len(counts), counts.device
    samples = batch["samples"].to(counts, non_blocking=True)
    samples = samples[..., None, None, None] / counts.shape[2]  # a bin
    changed = torch.rand(clips, device=device) < options.CHANCE

    def amounts(most: float) -> Tensor:
        return _of_clip(changed * torch.rand(clips, device=device) * most)

    def kept(lost: float, *shape: int) -> Tensor:
        share = amounts(lost)
        return torch.rand(clips, 1, 1, *shape, device=device) >= share

    factor = torch.exp(torch.rand(clips, device=device) * math.log(options.THRESHOLD))
    factor = torch.where(changed, factor, 1.0)
    if options.THRESHOLD > 1:
        is_light = batch["voxels"].is_floating_point()
        raised = raise_threshold_of_light if is_light else raise_threshold
        counts = raised(counts, _of_clip(factor))
    if max(options.PIXELS, options.DARK, options.HOT) > 0:
        sizes = [amounts(most) for most in (options.PIXELS, options.DARK, options.HOT)]
        counts = with_unequal_pixels(
            counts, samples, *sizes, whole=not batch["voxels"].is_floating_point()
        )
    if options.NOISE > 0:
        expected = amounts(options.NOISE) * (samples - counts).clamp(min=0)
        false = torch.poisson(expected.expand_as(counts))
        counts = torch.minimum(counts + false, torch.maximum(samples, counts))
    if options.DEAD > 0:
        counts = counts * kept(options.DEAD, *counts.shape[-2:])
    if options.ROWS > 0:
        counts = counts * kept(options.ROWS, counts.shape[-2], 1)
    if options.LATE > 0:
        by = changed * (2 * torch.rand(clips, device=device) - 1) * options.LATE
        bins = (by * counts.shape[2]).round().long()[:, None].expand(counts.shape[:2])
        counts = delay(counts, bins)
    gain = batch["gain"].to(device, non_blocking=True) / factor
    return batch | {"voxels": counts, "gain": gain}


def thin(batch: dict[str, Any], options: SpikeAugmentConfig, seed: int) -> dict[str, Any]:
    """Return the batch, by chance with only some of its windows, the same of all clips.

    Args:
        batch: `blur`, `sharp`, `voxels`, `samples` (B, T, ...).
        options: THIN, the chance.
        seed: seed of the step, so that all its batches are left the same windows.
    """
    windows = batch["samples"].shape[1]
    random = torch.Generator().manual_seed(seed)
    if windows == 1 or torch.rand((), generator=random) >= options.THIN:
        return batch
    number = int(torch.randint(1, windows, (), generator=random))
    kept = torch.randperm(windows, generator=random)[:number].sort().values
    names = ("blur", "sharp", "voxels", "samples")
    return batch | {name: batch[name][:, kept.to(batch[name].device)] for name in names}


def tint(blur: Tensor, sharp: Tensor, options: SpikeAugmentConfig) -> tuple[Tensor, Tensor]:
    """Return frames (B, T, 3, H, W) of another exposure and white; each clip has its own."""
    clips, device = len(blur), blur.device
    changed = torch.rand(clips, 1, device=device) < options.CHANCE
    darker = changed * torch.rand(clips, 3, device=device) * options.TINT
    factor = (1 - darker)[:, None, :, None, None]
    return blur * factor, sharp * factor


def grain(blur: Tensor, options: SpikeAugmentConfig) -> Tensor:
    """Return frames (B, T, 3, H, W) in [0, 1] with noise; each clip has its own."""
    clips, device = len(blur), blur.device
    changed = torch.rand(clips, device=device) < options.CHANCE
    deviation = _of_clip(changed * torch.rand(clips, device=device) * options.GRAIN)
    return (blur + deviation * torch.randn_like(blur)).clamp(0, 1)


def with_unequal_pixels(
    counts: Tensor, samples: Tensor, spread: Tensor, dark: Tensor, hot: Tensor, *, whole: bool
) -> Tensor:
    """Return what a sensor of unequal pixels would have recorded, the same ones in all windows.

    Args:
        counts: (B, T, K, h, w) counts, or light in spikes.
        samples: spike samples of a bin, in a shape that fits.
        spread: (B, 1, 1, 1, 1), standard deviation of the gains.
        dark: mean spikes a sample without light, in the same shape.
        hot: share of hot pixels, in the same shape.
        whole: counts, which stay whole: charge is kept from bin to bin, from a random phase on.
    """
    clips, pixels = len(counts), counts.shape[-2:]
    normal, further, chance, heat = (
        draw(clips, 1, 1, *pixels, device=counts.device)
        for draw in (torch.randn, torch.randn, torch.rand, torch.rand)
    )
    gain = (1 + spread * normal).clamp(min=_LEAST_GAIN)
    rates = dark * torch.exp(_DARK_SPREAD * further - _DARK_SPREAD**2 / 2)
    seen = gain * counts + rates * samples
    if whole:
        seen = raise_threshold(seen, torch.ones_like(seen[..., :1, :, :]))
    rates = torch.where(chance < hot, _LEAST_HOT**heat, 0.0)
    seen = seen + torch.poisson(rates * (samples - seen).clamp(min=0))
    seen = torch.minimum(seen, torch.maximum(samples, counts))
    return torch.where(spread + dark + hot > 0, seen, counts)


def raise_threshold(counts: Tensor, factor: Tensor) -> Tensor:
    """Return the counts (..., K, h, w) of a threshold `factor` times as high, at least 1."""
    total = counts.cumsum(-3)
    phase = torch.rand_like(total[..., :1, :, :]) * factor
    total = torch.div(total + phase, factor, rounding_mode="floor")
    before = torch.div(phase, factor, rounding_mode="floor")
    return torch.diff(total, dim=-3, prepend=before)


def raise_threshold_of_light(light: Tensor, factor: Tensor) -> Tensor:
    """Return the light (..., K, h, w) that spikes show at a threshold `factor` times as high.

    Light comes evenly within a bin, and beside the window as in its first and last bin. Spikes
    are where its sum passes the threshold, from a random phase on; between two of them it is
    taken to have come evenly.
    """
    pace = light.clamp(min=_FAINT)
    pace = torch.cat([pace[..., :1, :, :], pace, pace[..., -1:, :, :]], -3)  # (..., K + 2, h, w)
    width = torch.ones_like(pace)
    for end in (0, -1):  # two spikes fit beside the window
        width[..., end, :, :] = 2 * factor[..., 0, :, :] / pace[..., end, :, :]
    instants, sums = (
        F.pad(x.cumsum(-3), (0, 0, 0, 0, 1, 0)).movedim(-3, -1).contiguous()
        for x in (width, width * pace)
    )  # (..., h, w, K + 3)
    steps = factor.expand_as(light[..., :1, :, :]).movedim(-3, -1)  # (..., h, w, 1)
    phase = torch.rand_like(steps)
    edges = slice(1, -1)  # of the window's bins
    fired = (sums[..., edges] / steps + phase).floor()  # (..., h, w, K + 1)

    def instant_of(spikes: Tensor) -> Tensor:
        target = (spikes - phase) * steps
        after = torch.searchsorted(sums, target).clamp(1, sums.shape[-1] - 1)
        (low, from_), (high, to) = (
            [x.gather(-1, i) for x in (sums, instants)] for i in (after - 1, after)
        )
        return from_ + (target - low) / (high - low).clamp(min=_FAINT) * (to - from_)

    last, following = instant_of(fired), instant_of(fired + 1)
    passed = (instants[..., edges] - last) / (following - last).clamp(min=_FAINT)
    light_until = fired + passed.clamp(0, 1)
    return torch.where(factor > 1, light_until.diff(dim=-1).movedim(-1, -3), light)


def _of_clip(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1, 1)
