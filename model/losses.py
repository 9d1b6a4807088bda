"""Training objectives."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SpikeDeblurError
from ..third_party.VRT import WeightsError, load_pretrained

VGG_LAYERS = {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22, "relu5_3": 29}
"""Index in torchvision's `vgg16().features`."""
VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)
"""Channels of each convolution (Simonyan and Zisserman, arXiv 1409.1556, D); M halves."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PROBE_SECONDS = 5.0


class LossError(SpikeDeblurError):
    """A loss can't be built or does not fit what it is given."""


class CharbonnierLoss(nn.Module):
    """mean(sqrt((input - target)^2 + delta^2)) (Charbonnier et al., ICIP 1994).

    Args:
        delta: Where the loss turns from quadratic to linear, in units of the input.
    """

    def __init__(self, delta: float = 1e-3) -> None:
        super().__init__()
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape -> scalar."""
        _check_same_shape(input, target)
        return torch.sqrt((input - target).square() + self.delta**2).mean()


class VGGPerceptualLoss(nn.Module):
    """Mean L1 distance of VGG16 features, averaged over layers (Johnson et al., ECCV 2016).

    Args:
        layers: Names of `VGG_LAYERS`.
        weights: A file (.pth or .safetensors) or state dict with torchvision's VGG16 names
            (`features.0.weight`; others are ignored). None: torchvision's ImageNet weights,
            from torch hub's cache, or downloaded to it.

    Raises:
        LossError: An unknown layer, or the weights are not there or do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layers: Sequence[str] = ("relu3_3",),
        weights: str | Path | Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        unknown = [layer for layer in layers if layer not in VGG_LAYERS]
        if unknown or not layers:
            raise LossError(
                f"expected layers of {', '.join(VGG_LAYERS)}, got {list(layers)}; "
                "correct LOSS.VGG_PERCEPTUAL.LAYERS"
            )
        self.indices = sorted({VGG_LAYERS[layer] for layer in layers})
        self.features = _vgg_features(self.indices[-1])
        # Not in the state dict, which is VGG's.
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)
        self._load(_imagenet_weights() if weights is None else weights)
        self.requires_grad_(False).eval()

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compare images in [0, 1].

        Args:
            input: (B, 3, H, W) or (B, T, 3, H, W), gradients flow to it.
            target: The same shape; no gradient.

        Returns:
            Scalar.
        """
        _check_same_shape(input, target)
        with torch.no_grad():
            wanted = self._features_of(target)
        pairs = zip(self._features_of(input), wanted, strict=True)
        return torch.stack([F.l1_loss(a, b) for a, b in pairs]).mean()

    def _features_of(self, images: Tensor) -> list[Tensor]:
        x = (images.reshape(-1, *images.shape[-3:]) - self.mean) / self.std  # (B * T, 3, H, W)
        features = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.indices:
                features.append(x)
        return features

    def _load(self, weights: str | Path | Mapping[str, Tensor]) -> None:
        if isinstance(weights, Mapping):
            state = self.state_dict()
            unfit = [k for k, v in state.items() if k not in weights or weights[k].shape != v.shape]
            if not unfit:
                self.load_state_dict({name: weights[name] for name in state})
        else:
            try:
                unfit, _ = load_pretrained(self, weights, strict=False)
            except WeightsError as error:
                raise LossError(f"LOSS.VGG_PERCEPTUAL.WEIGHTS: {error}") from error
        if unfit:
            raise LossError(
                "LOSS.VGG_PERCEPTUAL.WEIGHTS: expected torchvision's VGG16 state dict "
                f"(features.0.weight, ...), missing or of another shape: {', '.join(unfit[:4])}"
            )


def _vgg_features(last: int) -> nn.Sequential:
    """VGG16's layers 0 to `last`, numbered as in torchvision's `features`."""
    layers: list[nn.Module] = []
    channels = 3
    for step in VGG16:
        if isinstance(step, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, step, 3, padding=1), nn.ReLU(inplace=True)]
            channels = step
    return nn.Sequential(*layers[: last + 1])


def _imagenet_weights() -> Path:
    """Return torchvision's weights file, downloaded if it is not in torch hub's cache."""
    from torchvision.models import VGG16_Weights

    weights = VGG16_Weights.IMAGENET1K_V1
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not cached.is_file():
        try:
            # The download itself has no time limit; a blocked network must not hang here.
            probe = urllib.request.Request(weights.url, method="HEAD")
            urllib.request.urlopen(probe, timeout=PROBE_SECONDS).close()
            weights.get_state_dict(progress=True, check_hash=True)
        except (OSError, RuntimeError) as error:  # URLError is an OSError
            raise LossError(
                f"the perceptual loss needs torchvision's ImageNet weights of VGG16: none in "
                f"{cached}, and {weights.url} can't be fetched ({error}). Put that file there, "
                "or name it (--set LOSS.VGG_PERCEPTUAL.WEIGHTS=FILE; "
                "https://pytorch.org/vision/stable/models/vgg.html), or switch the term off "
                "(--set LOSS.VGG_PERCEPTUAL.WEIGHT=0)"
            ) from error
    return cached


def _check_same_shape(input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:  # broadcasting would give a number all the same
        shapes = f"{tuple(input.shape)} and {tuple(target.shape)}"
        raise LossError(f"expected equal shapes, got {shapes}")
