"""SpyNet: optical flow by a pyramid of small networks (Ranjan and Black, arXiv 1611.00850)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .recompute import Recomputable, run
from .warping import warp

LEVELS = 6
"""Levels of the pyramid."""
SCALES = 4
"""Finest levels, whose flows are returned."""


class SpyNet(Recomputable):
    """Flow from a reference to a support image, at four scales.

    Untrained it returns zero flow (the last layers start at zero), so that a network without
    published weights starts without motion rather than with noise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.basic_module = nn.ModuleList(FlowUpdate() for _ in range(LEVELS))

    def forward(self, reference: Tensor, support: Tensor) -> list[Tensor]:
        """Estimate the flow by which warping `support` gives `reference`.

        Args:
            reference, support: (B, 3, H, W) in [0, 1], any size.

        Returns:
            Flows at 1, 1/2, 1/4, 1/8: (B, 2, H // s, W // s), at least one pixel a side;
            (x, y) in pixels of their scale.
        """
        height, width = reference.shape[-2:]
        references, supports = self._pyramid(reference), self._pyramid(support)
        flows = []
        # The description starts at half the coarsest size with zeros, which stay zeros when
        # doubled. Starting here serves sides up to 32 too, whose coarsest level is one pixel.
        flow = torch.zeros_like(references[0][:, :2])
        for level, (ref, supp, net) in enumerate(
            zip(references, supports, self.basic_module, strict=True)
        ):
            if level:
                flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            moved = warp(supp, flow, padding_mode="border")
            # Positions need more than bf16's 8 bits, so under autocast only the update is bf16.
            update = run(net, self.recompute.warping, torch.cat([ref, moved, flow], 1))
            flow = flow + update.to(flow.dtype)
            flows.append(flow)
        finest_first = flows[: -SCALES - 1 : -1]
        return [
            _resize_flow(flow, max(height // 2**s, 1), max(width // 2**s, 1))
            for s, flow in enumerate(finest_first)
        ]

    def _pyramid(self, image: Tensor) -> list[Tensor]:
        """Normalised images, coarsest first; sides are rounded up to multiples of 32."""
        size = [-(-side // 32) * 32 for side in image.shape[-2:]]
        image = F.interpolate(image, size=size, mode="bilinear", align_corners=False)
        levels = [(image - self.mean) / self.std]
        for _ in range(LEVELS - 1):
            levels.append(F.avg_pool2d(levels[-1], 2))
        return levels[::-1]


class FlowUpdate(nn.Module):
    """One level's network."""

    def __init__(self) -> None:
        super().__init__()
        widths = (8, 32, 64, 32, 16, 2)
        convs = [nn.Conv2d(narrow, wide, 7, padding=3) for narrow, wide in pairwise(widths)]
        for parameter in convs[-1].parameters():
            nn.init.zeros_(parameter)
        layers = [layer for conv in convs for layer in (conv, nn.ReLU())]
        self.basic_module = nn.Sequential(*layers[:-1])  # no ReLU at the end

    def forward(self, x: Tensor) -> Tensor:
        """Reference, moved support and flow (B, 8, H, W) -> update of the flow (B, 2, H, W)."""
        return self.basic_module(x)


def _resize_flow(flow: Tensor, height: int, width: int) -> Tensor:
    """Resize (B, 2, H, W) and scale its vectors with it."""
    wider, taller = width / flow.shape[-1], height / flow.shape[-2]
    flow = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
    return torch.stack([flow[:, 0] * wider, flow[:, 1] * taller], 1)
