"""Light and the codes of sRGB (IEC 61966-2-1), in both directions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .images import RGB, DeepRGB, to_bytes


def decode_srgb(image: DeepRGB) -> npt.NDArray[np.float32]:
    """Return the linear light in [0, 1] of sRGB of 8 or 16 bits."""
    largest = np.iinfo(image.dtype).max
    table = light_of_codes(np.arange(largest + 1) / largest)
    return table.astype(np.float32)[image]


def encode_srgb(light: npt.NDArray[np.floating]) -> RGB:
    """Return linear light in [0, 1] as 8-bit sRGB."""
    return to_bytes(255 * codes_of_light(light))


def light_of_codes(codes: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return the linear light of sRGB's codes, 1 being white; codes may be more."""
    bent = ((np.maximum(codes, 0) + 0.055) / 1.055) ** 2.4
    return np.where(codes <= 0.04045, codes / 12.92, bent)


def codes_of_light(light: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return the codes of sRGB of linear light, 1 being white; light may be more."""
    bent = 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055
    return np.where(light <= 0.0031308, light * 12.92, bent)
