"""The loss that training minimises, and the network's inputs of a batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...configs.schema.data import NormConfig, SpikeAugmentConfig
from ...configs.schema.train import LossConfig
from ...model import (
    CharbonnierLoss,
    RawWindows,
    VGGPerceptualLoss,
    measure_conditions,
    network_inputs,
    unit_range,
)
from .data.spike_augment import as_other_cameras, thin
from .data.voxels import make_voxels

_LEAST_MSE = 1e-10  # 100 dB, for images that are equal


class Objective(nn.Module):
    """Weighted sum of the terms whose weight is not 0.

    Raises:
        SpikeDeblurError: the perceptual term's weights can't be had.
    """

    def __init__(self, loss: LossConfig) -> None:
        super().__init__()
        self.terms = nn.ModuleList()
        self.weights: list[float] = []
        if loss.CHARBONNIER.WEIGHT:
            self.terms.append(CharbonnierLoss(loss.CHARBONNIER.DELTA))
            self.weights.append(loss.CHARBONNIER.WEIGHT)
        vgg = loss.VGG_PERCEPTUAL
        if vgg.WEIGHT:
            self.terms.append(VGGPerceptualLoss(vgg.LAYERS, vgg.WEIGHTS))
            self.weights.append(vgg.WEIGHT)

    def forward(self, output: Tensor, sharp: Tensor) -> Tensor:
        """(B, T, 3, H, W) float32 in [0, 1], twice -> scalar."""
        pairs = zip(self.weights, self.terms, strict=True)
        return torch.stack([weight * term(output, sharp) for weight, term in pairs]).sum()


class Inputs(NamedTuple):
    """A batch on the device."""

    blur: Tensor
    """(B, T, 3, H, W) float32 in [0, 1]."""
    voxels: Tensor
    """(B, T, K, h, w) float32, normalised."""
    sharp: Tensor
    """(B, T, 3, H, W) float32 in [0, 1]."""


def to_inputs(
    batch: dict[str, Any],
    device: torch.device,
    norm: NormConfig,
    *,
    raw: bool = True,
    augment: SpikeAugmentConfig | None = None,
    thinning: int = 0,
) -> Inputs:
    """Copy a collated batch to the device as bytes, and make the network's inputs there.

    Counts or light are made of packed spikes first, the same as other batches have. Gain and lag
    are measured on the crop, after augmentation; see `model.inputs`.

    Args:
        batch: as `loader.collate` gives it.
        device: the device of the model.
        norm: how counts are normalised.
        raw: False: log1p of the voxels is done already, and they are taken as they are.
        augment: how clips are changed first, each by its own seed; spikes only if they are raw.
            None: not at all.
        thinning: seed of the windows that are left of all clips of a step.
    """
    if "spikes" in batch:
        light = norm.MODE == "relative"
        batch = batch | {"voxels": make_voxels(batch, device, light=light)}
    if augment is not None and augment.THIN > 0:
        batch = thin(batch, augment, thinning)
    blur, sharp = (unit_range(batch[n].to(device, non_blocking=True)) for n in ("blur", "sharp"))
    voxels = batch["voxels"].to(device, non_blocking=True)
    if not raw:
        return Inputs(blur, voxels, sharp)
    if norm.MODE == "log1p" and voxels.is_floating_point():
        voxels = voxels.clamp(min=0)  # see `PixelCorrection.corrected`
    if augment is not None and augment.changes_clips:
        batch = batch | {"blur": blur, "sharp": sharp, "voxels": voxels}
        batch = as_other_cameras(batch, augment)
        blur, sharp, voxels = batch["blur"], batch["sharp"], batch["voxels"]
    windows = RawWindows(blur, voxels, batch["samples"])
    gain = batch["gain"][:, None].expand(windows.samples.shape)  # (B, T)
    conditions = measure_conditions([windows], gain, norm)
    return Inputs(*network_inputs(windows, conditions, norm), sharp)


def psnr(output: Tensor, sharp: Tensor) -> Tensor:
    """Return the PSNR of each image or clip in dB for the range [0, 1], (B, ...) -> (B,)."""
    error = (output.detach().clamp(0, 1) - sharp).square().flatten(1).mean(1)
    return -10 * error.clamp(min=_LEAST_MSE).log10()
