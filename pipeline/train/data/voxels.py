"""Voxels of a batch, from its packed spikes, on the device that trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ....model import counts_of_packed, light_of_packed
from ...sequences.light import BESIDE


def make_voxels(batch: dict[str, Any], device: torch.device, *, light: bool) -> Tensor:
    """Return the voxels of a batch, as samples without packed spikes have them.

    Windows of as many samples are computed together, whatever clips they are of.

    Args:
        batch: as `loader.collate` gives it of samples with `ClipSamples.beside`.
        device: where they are made.
        light: light from intervals; else counts.

    Returns:
        (B, T, K, h, w) float16 light in spikes, or integer counts, on the device.
    """
    spikes = batch["spikes"].to(device, non_blocking=True)  # (S + 1, h, b)
    _, height, row = spikes.shape
    windows, samples = batch["spans"].flatten(0, 1), batch["samples"].flatten()  # (B * T, ...)
    bins, silent = batch["bins"][0], len(spikes) - 1
    lengths = samples.unique().tolist()
    dtype = torch.float16 if light else torch.uint8
    if not light and max(lengths) > 255 * bins:
        dtype = torch.int32
    voxels = torch.empty(len(windows), bins, height, 8 * row, dtype=dtype, device=device)
    for length in lengths:
        chosen = (samples == length).nonzero()[:, 0]
        first, start, stop = windows[chosen, :, None].unbind(1)  # (W, 1)
        beside = int(BESIDE * length) if light else 0
        places = start + torch.arange(-beside, length + beside)  # (W, n)
        places = torch.where((places >= first) & (places < stop), places, silent)
        packed = spikes[places.to(device)]  # (W, n, h, b)
        if light:
            made = light_of_packed(packed, bins, beside, length)
        else:
            made = counts_of_packed(packed, bins)
        voxels[chosen.to(device)] = made.to(dtype)
    clips = voxels.unflatten(0, batch["samples"].shape)  # (B, T, K, h, 8 * b)
    turned = []
    for clip, (left, right), (turns, flip) in zip(
        clips, batch["columns"], batch["turned"], strict=True
    ):
        clip = torch.rot90(clip[..., left:right], turns, (-2, -1))
        turned.append(clip.flip(-1) if flip else clip)
    return torch.stack(turned)
