"""One exposure as `path` sees it, and how it moves."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from ...model.neighbours import Motion, light_in, motion_in


class Exposure:
    """One exposure: frames and spikes of the same field, and how it moves."""

    def __init__(
        self, blur: Tensor, voxels: Tensor, gain: float, late: float, brightest: float
    ) -> None:
        self.blur = blur
        """(1, 3, H, W), `filled`."""
        self.voxels = voxels
        """(1, K, h, w), relative; H / h = W / w, a whole number."""
        self.gain = gain
        """Spikes a sample at unit luminance, as this blurred frame shows it; NaN: it is dark."""
        self.late = late
        """Time by which its spikes came late, as a share of the exposure."""
        self.brightest = brightest
        """Value of the frame from which on it may be clipped."""

    @cached_property
    def motion(self) -> Motion:
        """How its light moves."""
        return motion_in(light_in(self.blur, self.voxels))

    def as_beside(self, other: Exposure) -> tuple[Tensor, Tensor, float]:
        """Return the exposure as bright as if exposed like another one.

        Spikes tell by how much: their camera exposes all alike.

        Returns:
            (1, 3, H, W), the blurred frame; (1, K, h, w), the luminance in each bin; and the most
            that the camera shows of it.
        """
        brightness = self.gain / other.gain
        blur = self.blur * brightness
        return blur, light_in(blur, self.voxels), brightness * self.brightest
