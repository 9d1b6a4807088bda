"""`LOSS`: what training makes small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from .values import Name, NaturalFloat, PositiveFloat, Section

VGGLayer = Literal["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"]


class CharbonnierConfig(Section):
    """mean(sqrt((x - y)^2 + DELTA^2))."""

    DELTA: PositiveFloat = 1e-3
    """Where the loss turns from quadratic to linear, in units of the image range [0, 1]."""
    WEIGHT: NaturalFloat = 1.0
    """Weight in the total; 0 switches the term off."""


class VGGPerceptualConfig(Section):
    """L1 distance of VGG16 features."""

    LAYERS: Annotated[tuple[VGGLayer, ...], Field(min_length=1, max_length=5)] = ("relu3_3",)
    """Layers whose distances are averaged."""
    WEIGHT: NaturalFloat = 0.1
    """Weight in the total; 0 switches the term off and needs no VGG weights."""
    WEIGHTS: Name | None = None
    """File with torchvision's VGG16 weights (.pth or .safetensors). null: torchvision's
    own ImageNet weights, downloaded once."""


class LossConfig(Section):
    """The sum of weighted terms."""

    CHARBONNIER: CharbonnierConfig = CharbonnierConfig()
    """Pixel term."""
    VGG_PERCEPTUAL: VGGPerceptualConfig = VGGPerceptualConfig()
    """Perceptual term."""

    def misfits(self) -> Iterator[str]:
        """Yield why values do not fit each other."""
        if self.CHARBONNIER.WEIGHT == self.VGG_PERCEPTUAL.WEIGHT == 0:
            yield "expected a term with a WEIGHT above 0, got 0 for both"
