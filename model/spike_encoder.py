"""From voxel grids to spike features at the network's four scales."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..third_party.VRT.recompute import Recomputable, run


class SpikeEncoder3D(Recomputable):
    """Residual 3-D convolutions over time, rows and columns; the bins are the channels.

    Args:
        in_bins: Time bins K of a voxel grid.
        channels_per_scale: Channels of the features at scales 1, 1/2, 1/4, 1/8.
        temporal_strides: Stride in frames from each scale to the next; None: [1, 1, 1].
        spatial_strides: Stride in pixels from each scale to the next; None: [2, 2, 2].

    Raises:
        ValueError: The numbers of scales and strides do not fit.
    """

    def __init__(
        self,
        in_bins: int = 32,
        channels_per_scale: Sequence[int] = (96, 96, 96, 96),
        temporal_strides: Sequence[int] | None = None,
        spatial_strides: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        steps = len(channels_per_scale) - 1
        temporal = list(temporal_strides or [1] * steps)
        spatial = list(spatial_strides or [2] * steps)
        if len(temporal) != steps or len(spatial) != steps:
            raise ValueError(
                f"expected {steps} strides for {steps + 1} scales, got temporal {temporal} and "
                f"spatial {spatial}"
            )
        first = channels_per_scale[0]
        self.stem = nn.Sequential(
            Conv3d(in_bins, first, 3, padding=1),
            nn.ReLU(inplace=True),
            ResidualBlock3D(first),
            ResidualBlock3D(first),
        )
        self.downs = nn.ModuleList(
            nn.Sequential(
                Conv3d(finer, coarser, 3, stride=(t, s, s), padding=1),
                ResidualBlock3D(coarser),
                ResidualBlock3D(coarser),
            )
            for (finer, coarser), t, s in zip(
                pairwise(channels_per_scale), temporal, spatial, strict=True
            )
        )

    def forward(self, voxels: Tensor) -> list[Tensor]:
        """Encode a clip.

        Args:
            voxels: (B, T, K, H, W), floating point.

        Returns:
            One (B, C_i, T_i, H_i, W_i) a scale, full size first; channels last in memory, which
            attention over time and fusion need.
        """
        again = self.recompute.block
        x = voxels.transpose(1, 2).contiguous(memory_format=torch.channels_last_3d)
        x = run(self.stem, again, x)  # (B, C, T, H, W)
        features = [x]
        for down in self.downs:
            x = run(down, again, x)
            features.append(x)
        return [x.contiguous(memory_format=torch.channels_last_3d) for x in features]


class Conv3d(nn.Conv3d):
    """`nn.Conv3d` that a CPU computes by oneDNN, in float32 whatever the precision around it.

    In bfloat16 oneDNN's gradient of the weight reads memory that nobody wrote (torch 2.14: inputs
    of two frames with AVX-512, several clips of 64x64 with AMX), and is sometimes not a number.

    Where the rows of a single clip, in all its channels and frames, are 20480 or fewer, torch
    copies out each patch instead, in 2 to 15 times the time.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, T', H', W')."""
        if x.device.type != "cpu":
            return super().forward(x)
        x = x.float() if torch.is_autocast_enabled("cpu") else x
        with torch.autocast("cpu", enabled=False):
            if len(x) > 1 or not _by_onednn(x):
                return super().forward(x)
            if torch.is_grad_enabled():  # the gradient is oneDNN's for several clips only
                return super().forward(torch.cat([x, torch.zeros_like(x)]))[:1]
            assert not isinstance(self.padding, str)
            return torch.mkldnn_convolution(
                x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
            )


def _by_onednn(x: Tensor) -> bool:
    if torch.compiler.is_compiling():
        return False
    return x.dtype == torch.float32 and torch.backends.mkldnn.is_available()


class ResidualBlock3D(nn.Module):
    """relu(x + conv(relu(conv(x)))), 3x3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv3d(channels, channels, 3, padding=1)
        self.conv2 = Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> the same."""
        return torch.relu(x + self.conv2(torch.relu(self.conv1(x))))
