"""LPIPS: the distance of two pictures in the features of a network that was trained to see.

Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", CVPR 2018, as torchmetrics computes it. The weights of LPIPS ship with
torchmetrics; those of the backbone are torchvision's ImageNet weights, downloaded once.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from ...errors import SpikeDeblurError

Backbone = Literal["alex", "vgg", "squeeze"]


class PerceptualError(SpikeDeblurError):
    """LPIPS can't be computed."""


class Lpips:
    """Measures the LPIPS of two frames when called."""

    def __init__(self, backbone: Backbone, device: str | None = None) -> None:
        """Load the network.

        Raises:
            PerceptualError: the weights are neither here nor can be downloaded.
        """
        import torch
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            metric = LearnedPerceptualImagePatchSimilarity(backbone, normalize=True)
        except (OSError, RuntimeError) as error:
            raise PerceptualError(
                f"LPIPS needs torchvision's ImageNet weights of {backbone}, which are not in "
                f"{torch.hub.get_dir()}/checkpoints and can't be downloaded ({error}); copy them "
                "there from a machine that has them, or leave --lpips out"
            ) from error
        self._metric = metric.to(self._device).eval()

    def __call__(self, restored: npt.NDArray[np.uint8], sharp: npt.NDArray[np.uint8]) -> float:
        """Return the distance of two frames (H, W, 3) uint8; 0 for equal frames."""
        import torch

        pair = [
            torch.from_numpy(np.ascontiguousarray(frame))
            .to(self._device)
            .permute(2, 0, 1)[None]
            .float()
            .div(255)
            for frame in (restored, sharp)
        ]
        with torch.inference_mode():
            distance = float(self._metric(*pair))
            self._metric.reset()
        return distance
