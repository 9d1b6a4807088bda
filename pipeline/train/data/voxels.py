"""Voxels of a batch, from its packed spikes, on the device that trains."""

from __future__ import annotations

from typing import Any

import numpy as np
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
    silent, (height, row) = len(spikes) - 1, spikes.shape[1:]
    bins = batch["bins"][0]
    samples = np.array(batch["samples"].tolist()).ravel()  # (B * T)
    spans = np.array(batch["spans"].tolist()).reshape(-1, 3, 1)  # (B * T, 3, 1)
    deep = samples.max() > 255 * bins
    dtype = torch.float16 if light else torch.int32 if deep else torch.uint8
    voxels = torch.empty(len(spans), bins, height, 8 * row, dtype=dtype, device=device)
    for length in np.unique(samples).tolist():
        (chosen,) = np.nonzero(samples == length)  # (W)
        first, start, stop = spans[chosen].swapaxes(0, 1)  # each (W, 1)
        beside = int(BESIDE * length) if light else 0
        places = start + np.arange(-beside, length + beside)  # (W, n)
        places = np.where((places >= first) & (places < stop), places, silent)
        packed = spikes[torch.from_numpy(places).to(device)]  # (W, n, h, b)
        made = (
            light_of_packed(packed, bins, beside, length)
            if light
            else counts_of_packed(packed, bins)
        )
        voxels[torch.from_numpy(chosen).to(device)] = made.to(dtype)
    clips = voxels.unflatten(0, batch["samples"].shape[:2])  # (B, T, K, h, 8 * b)
    turned = []
    for clip, (left, right), (turns, flip) in zip(
        clips, batch["columns"], batch["turned"], strict=True
    ):
        clip = torch.rot90(clip[..., left:right], turns, (-2, -1))
        turned.append(clip.flip(-1) if flip else clip)
    return torch.stack(turned)
