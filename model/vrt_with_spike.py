"""The restoration network: VRT on blurred frames, with spikes fused into its encoder.

Letters in shape comments: B clips, T frames, K bins, C channels, H and W rows and columns,
s MODEL.TRUNK_SCALE.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..third_party.VRT import VRT, pad_to_multiple
from .fusion import MultiScaleTemporalCrossAttnFuse
from .instants import about_instant, moved_to
from .motion_deblur import MAPS, sharp_along_motion
from .neighbours import Near, light_in, motion_in
from .normalize import LIMIT
from .spike_attention import SpikeTemporalSA
from .spike_encoder import SpikeEncoder3D
from .spike_motion import INTEGRALS, about

STAGE_MULTIPLE = 8  # stages 1-4 run at 1, 1/2, 1/4, 1/8
SHORT = 5 / 32
"""Width of SDM's short window, as a share of the exposure."""
LEAST = 0.5
"""Share of the light along the motion that a network leaves at least: less, beside bright edges, is
a blot that no camera saw."""
STILL, MOVING = 0.5, 1.0
"""Speed in pixels an exposure up to which a network leaves its base alone, and how much more lets
it correct in full: it could only add what it takes for noise, where all is sharp."""
FAST = math.expm1(LIMIT)
"""Speed in pixels an exposure beyond which a network corrects the less, the faster things move: all
such speeds look alike to it."""
REACH = 8
"""Pixels around what moves where a network corrects, too."""


class VRTWithSpike(nn.Module):
    """Restore a blurred clip with the help of spikes.

    Args:
        vrt_backbone: The published network, built with `in_chans = 3 * trunk_scale**2`.
        spike_bins: Time bins K of a voxel grid.
        channels_per_scale: Channels of the spike features; the backbone's of stages 1 to 4.
        temporal_strides, spatial_strides: See `SpikeEncoder3D`.
        tsa_heads, tsa_dropout, tsa_mlp_ratio, tsa_chunk_cfg: See `SpikeTemporalSA`.
        fuse_heads, fuse_dropout, fuse_mlp_ratio, fuse_chunk_cfg, identity_init: See
            `MultiScaleTemporalCrossAttnFuse`.
        use_spike: False: the control without spikes; there are no spike parameters.
        trunk_scale: The backbone sees frames folded by this factor (pixel unshuffle) and its
            output is unfolded; its residual then is the full-size frame. 1: as published.
        spike_skip: Number of scales, full scale first, whose spike features are added by linear
            maps before the last convolution. The maps start at zero if `identity_init`, unless that
            convolution does.
        encoder_sees_blur: The blurred frame, folded by `trunk_scale`, goes into the spike encoder
            beside the bins.
        spike_motion: Frames made sharp along the motion that spikes show (`spike_motion`), and
            light summed along it, go into the spike encoder. For voxels normalised as `relative`.
        encoder_sees_residues: With `spike_motion`, maps that show where that frame is unsure go in
            too; see `sharp_along_motion`.
        spike_trust: Factor on the voxels before the network sees them; not on those of
            `spike_motion`, which is less sensitive to noise.
        residual_base: What the network corrects: the blurred frame, as published, or that frame
            after spike-guided division (SDM), for voxels normalised as `relative`, or with
            `spike_motion` the frame made sharp along the motion. `sdm` with `identity_init` starts
            the last convolution at zero, so a new network restores its base.
        temporal_attention: Attention of spike features over time. False: left out.
        fusion: Cross-attention in stages 1 to 4. False: left out; spikes enter by the skip alone.

    Raises:
        ValueError: The backbone's input channels do not fit `trunk_scale`.
    """

    def __init__(
        self,
        vrt_backbone: VRT,
        spike_bins: int = 32,
        channels_per_scale: Sequence[int] = (96, 96, 96, 96),
        temporal_strides: Sequence[int] | None = None,
        spatial_strides: Sequence[int] | None = None,
        tsa_heads: int = 4,
        tsa_dropout: float = 0.0,
        tsa_mlp_ratio: float = 2,
        tsa_chunk_cfg: Mapping[str, Any] | None = None,
        fuse_heads: int = 4,
        fuse_dropout: float = 0.0,
        fuse_mlp_ratio: float = 2,
        fuse_chunk_cfg: Mapping[str, Any] | None = None,
        *,
        use_spike: bool = True,
        trunk_scale: int = 1,
        spike_skip: int = 0,
        encoder_sees_blur: bool = False,
        spike_motion: bool = False,
        encoder_sees_residues: bool = False,
        spike_trust: float = 1.0,
        identity_init: bool = True,
        residual_base: Literal["blur", "sdm"] = "blur",
        temporal_attention: bool = True,
        fusion: bool = True,
    ) -> None:
        super().__init__()
        if vrt_backbone.in_chans != 3 * trunk_scale**2:
            raise ValueError(
                f"expected a backbone with in_chans {3 * trunk_scale**2} for trunk_scale "
                f"{trunk_scale}, got {vrt_backbone.in_chans}"
            )
        self.vrt = vrt_backbone
        self.trunk_scale = trunk_scale
        self.use_spike = use_spike
        self.residual_base = residual_base
        self.spike_temporal_sa: SpikeTemporalSA | None = None
        self.cross_attn_fuse: MultiScaleTemporalCrossAttnFuse | None = None
        self.spike_skip: nn.Linear | None = None
        self.coarse_skips = nn.ModuleList()
        self.encoder_sees_blur = encoder_sees_blur
        self.spike_motion = spike_motion
        self._maps = MAPS if encoder_sees_residues else INTEGRALS
        self.spike_trust = spike_trust
        if identity_init and residual_base == "sdm":
            for parameter in vrt_backbone.conv_last.parameters():
                nn.init.zeros_(parameter)
        if not use_spike:
            return
        beside = vrt_backbone.in_chans if encoder_sees_blur else 0
        if spike_motion:
            beside += (3 + self._maps) * trunk_scale**2
        self.spike_encoder = SpikeEncoder3D(
            spike_bins + beside, channels_per_scale, temporal_strides, spatial_strides
        )
        if temporal_attention:
            self.spike_temporal_sa = SpikeTemporalSA(
                channels_per_scale,
                heads=tsa_heads,
                dropout=tsa_dropout,
                mlp_ratio=tsa_mlp_ratio,
                chunk_cfg=tsa_chunk_cfg,
            )
        if fusion:
            self.cross_attn_fuse = MultiScaleTemporalCrossAttnFuse(
                channels_per_scale,
                heads=fuse_heads,
                dropout=fuse_dropout,
                mlp_ratio=fuse_mlp_ratio,
                chunk_cfg=fuse_chunk_cfg,
                identity_init=identity_init,
            )
        if spike_skip:
            width = channels_per_scale[0]
            self.spike_skip = nn.Linear(width, width)
            self.coarse_skips.extend(nn.Linear(c, width) for c in channels_per_scale[1:spike_skip])
            # After a last convolution at zero, maps at zero too would get no gradient.
            if identity_init and residual_base != "sdm":
                for layer in (self.spike_skip, *self.coarse_skips):
                    nn.init.zeros_(layer.weight)
                    nn.init.zeros_(layer.bias)

    def forward(
        self,
        rgb_clip: Tensor,
        spike_vox: Tensor | None = None,
        followed: Tensor | None = None,
        instants: Sequence[float] = (),
    ) -> Tensor:
        """Restore a clip.

        Any H and W will do: both inputs are padded alike at their ends and the result is
        cropped back.

        Args:
            rgb_clip: (B, T, 3, H, W), blurred, floating point in [0, 1].
            spike_vox: (B, T, K, h, w), normalised counts of each frame's exposure. They enter at
                the trunk's size (H / s, W / s): untouched if (h, w) is that size, otherwise
                resized bilinearly; spike-guided division and motion have their own. Not read
                without spikes.
            followed: (B, T, 3 + C, H, W), what `follow` returns of these inputs; or more exactly
                `seen_of` whole frames, of which these may be a part, with what is known beside
                them. None: `follow` finds it. Not read without `spike_motion`.
            instants: For each clip, the instant whose frames are asked for, in exposures from the
                middle, -1/2 to 1/2; `followed` then is of that instant. None given: the middle. For
                `spike_motion` only.

        Returns:
            (B, T, 3, H, W); not clamped.

        Raises:
            ValueError: Shapes do not fit.
        """
        height, width = rgb_clip.shape[-2:]
        clip = self._padded(rgb_clip)
        folded = F.pixel_unshuffle(clip, self.trunk_scale)  # (B, T, 3 s^2, H / s, W / s)

        base = rgb_clip
        if self.use_spike:
            voxels = _require_voxels(rgb_clip, spike_vox)
            if self.spike_motion and followed is None:
                followed = self.follow(rgb_clip, voxels, instants)
            voxels = self.spike_trust * _about_instants(voxels, instants)
            seen = [self._at_trunk_size(rgb_clip, voxels)]
            if self.spike_motion and followed is not None:
                base = followed[:, :, :3]
                maps = self._padded(followed.clamp(max=LIMIT))
                seen.append(F.pixel_unshuffle(maps, self.trunk_scale))
            elif self.residual_base == "sdm":
                base = rgb_clip * (1 + _relative_change(voxels, rgb_clip.shape[-2:]))
            if self.encoder_sees_blur:
                seen.append(folded)
            whole = seen[0] if len(seen) == 1 else torch.cat([x.to(seen[0]) for x in seen], 2)
            spikes = self.spike_features(whole)

            def fuse(scale: int, features: Tensor) -> Tensor:
                return self._fused(scale, features, spikes[scale])

            out = self.vrt(
                folded, fuse if self.cross_attn_fuse is not None else None, self._late_skip(spikes)
            )
        else:
            out = self.vrt(folded)

        restored: Tensor = F.pixel_shuffle(out, self.trunk_scale)[..., :height, :width]
        if self.use_spike and self.residual_base == "sdm":
            restored = restored + (base - rgb_clip)
            if self.spike_motion and not self.training:
                restored = torch.maximum(restored, LEAST * base)
                if followed is not None and self._maps == MAPS:
                    restored = torch.lerp(base, restored, _trust(followed[:, :, -1:]))
        return restored

    def spike_features(self, voxels: Tensor) -> list[Tensor]:
        """Return the spike features of each scale, after attention over time.

        Args:
            voxels: (B, T, K, H, W), and beside the bins what else the encoder sees.

        Returns:
            One (B, C, T, H_i, W_i) a scale, full scale first.
        """
        features: list[Tensor] = self.spike_encoder(voxels)
        return features if self.spike_temporal_sa is None else self.spike_temporal_sa(features)

    def follow(self, rgb_clip: Tensor, spike_vox: Tensor, instants: Sequence[float] = ()) -> Tensor:
        """Return what motion within the exposure makes of a clip; without gradients.

        Args:
            rgb_clip, spike_vox, instants: The inputs of `forward`.

        Returns:
            (B, T, 3 + C, H, W) float32: sharp frames, and those of the maps of
            `sharp_along_motion` that the encoder sees.
        """
        height, width = rgb_clip.shape[-2:]
        rgb, voxels = self._padded(rgb_clip), self._at_own_size(rgb_clip, spike_vox)
        rgb, voxels = rgb.float(), voxels.float()
        with torch.no_grad(), torch.autocast(rgb_clip.device.type, enabled=False):
            if any(instants):
                clips = zip(rgb, voxels, instants, strict=True)
                sharp, maps = zip(*(_along_motion_at(*clip) for clip in clips), strict=True)
                found = torch.cat(sharp), torch.cat(maps)
            else:
                found = sharp_along_motion(rgb.flatten(0, 1), voxels.flatten(0, 1))
        followed = self.seen_of(*found)  # (B T, 3 + C, H, W)
        return followed.unflatten(0, rgb_clip.shape[:2])[..., :height, :width]

    def seen_of(self, sharp: Tensor, maps: Tensor) -> Tensor:
        """Return what the encoder sees of what `sharp_along_motion` returns: (N, 3 + C, H, W)."""
        return torch.cat([sharp, maps[:, : self._maps]], 1)

    def _padded(self, maps: Tensor) -> Tensor:
        """Pad maps of the frames' size (..., H, W) to what the backbone's scales divide."""
        return pad_to_multiple(maps, STAGE_MULTIPLE * self.trunk_scale)

    def _at_own_size(self, rgb: Tensor, voxels: Tensor) -> Tensor:
        """Pad voxels as the clip is; resize them to the trunk's size if they do not fit frames."""
        ratio = rgb.shape[-2] // voxels.shape[-2]
        multiple = STAGE_MULTIPLE * self.trunk_scale
        fits = list(rgb.shape[-2:]) == [ratio * side for side in voxels.shape[-2:]]
        if not fits or multiple % ratio:
            return self._at_trunk_size(rgb, voxels)
        return pad_to_multiple(voxels, multiple // ratio)

    def _at_trunk_size(self, rgb: Tensor, voxels: Tensor) -> Tensor:
        """Resize voxels to the trunk's full scale where they differ, and pad them as the clip."""
        size = [-(-side // self.trunk_scale) for side in rgb.shape[-2:]]
        if list(voxels.shape[-2:]) != size:
            shrinks = voxels.shape[-2] > size[0] or voxels.shape[-1] > size[1]
            maps = F.interpolate(voxels.flatten(0, 1), size, mode="bilinear", antialias=shrinks)
            voxels = maps.view(*voxels.shape[:3], *size)  # (B, T, K, H / s, W / s)
        return pad_to_multiple(voxels, STAGE_MULTIPLE)

    def _fused(self, scale: int, features: Tensor, spikes: Tensor) -> Tensor:
        """Both (B, C, T, H_i, W_i); spikes are resized if their strides gave another size."""
        if spikes.shape[-2:] != features.shape[-2:]:
            size = (spikes.shape[2], *features.shape[-2:])
            spikes = F.interpolate(spikes, size, mode="trilinear")
        assert self.cross_attn_fuse is not None
        block = self.cross_attn_fuse.fuse_blocks[scale]
        fused: Tensor = block(features.transpose(1, 2), spikes.transpose(1, 2))
        return fused.transpose(1, 2)

    def _late_skip(self, spikes: Sequence[Tensor]) -> Tensor | None:
        """Features (B, C_i, T, H_i, W_i) -> (B, C, T, H, W), by one Linear a scale."""
        if self.spike_skip is None:
            return None
        total = _mapped(self.spike_skip, spikes[0])
        for layer, features in zip(self.coarse_skips, spikes[1:], strict=False):
            enlarged = F.interpolate(_mapped(layer, features), total.shape[2:], mode="trilinear")
            total = total + enlarged
        return total


def _along_motion_at(rgb: Tensor, voxels: Tensor, time: float) -> tuple[Tensor, Tensor]:
    """Return what `sharp_along_motion` does of a clip (T, ...), at an instant of its exposures."""
    motion = motion_in(light_in(rgb, voxels))
    sharp, maps = sharp_along_motion(rgb, voxels, Near(motion, ()))
    if time == 0:
        return sharp, maps
    moved, moved_maps = moved_to(sharp, maps, rgb, voxels, time, motion)
    assert moved_maps is not None
    return moved, moved_maps


def _about_instants(voxels: Tensor, instants: Sequence[float]) -> Tensor:
    """Return voxels (B, T, K, h, w) about the instant of each clip; see `about_instant`."""
    if not any(instants):
        return voxels
    return torch.stack([about_instant(*of_clip) for of_clip in zip(voxels, instants, strict=True)])


def _require_voxels(rgb: Tensor, voxels: Tensor | None) -> Tensor:
    if voxels is None:
        raise ValueError("expected voxels (B, T, K, h, w), got None; this model uses spikes")
    if voxels.ndim != 5 or voxels.shape[:2] != rgb.shape[:2]:
        raise ValueError(
            f"expected voxels (B, T, K, h, w) with B, T of {tuple(rgb.shape)}, got "
            f"{tuple(voxels.shape)}"
        )
    return voxels


def _trust(pace: Tensor) -> Tensor:
    """(B, T, 1, H, W), log1p of the speed -> how far a network corrects, 0 to 1."""
    speed = pace.expm1()
    moves = ((speed - STILL) / MOVING).clamp(0, 1)
    side = 2 * REACH + 1  # rows first, then columns: a square of as many takes five times as long
    near = F.max_pool2d(moves.flatten(0, 1), (side, 1), 1, (REACH, 0))
    near = F.max_pool2d(near, (1, side), 1, (0, REACH)).view_as(pace)
    return near * (FAST / speed.clamp(min=FAST))


def _mapped(layer: nn.Module, features: Tensor) -> Tensor:
    """(B, C_in, T, H, W) -> (B, C_out, T, H, W)."""
    mapped: Tensor = layer(features.permute(0, 2, 3, 4, 1))  # (B, T, H, W, C_out)
    return mapped.permute(0, 4, 1, 2, 3)


def _relative_change(voxels: Tensor, size: torch.Size) -> Tensor:
    """Return how much more light than on average fell in the middle of the exposure.

    Args:
        voxels: (B, T, K, h, w), each bin's deviation from the mean, relative to it.
        size: (H, W).

    Returns:
        (B, T, 1, H, W): short TFP over exposure TFP, less 1; 0 in the dark.
    """
    change = about(voxels.flatten(0, 1), SHORT).unflatten(0, voxels.shape[:2])
    return F.interpolate(change[:, :, 0], list(size), mode="bilinear")[:, :, None]


def parameter_table(model: nn.Module) -> list[tuple[str, int]]:
    """Count parameters by part.

    Returns:
        (part, parameters) in the order of the network; parts do not overlap, so the numbers
        add up to the model's. The published network is split into its own parts (`vrt.stage1`).
    """
    parts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        depth = 2 if name.startswith("vrt.") else 1
        parts[".".join(name.split(".")[:depth])] += parameter.numel()
    return list(parts.items())
