"""Light and the codes of sRGB (IEC 61966-2-1), in both directions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .images import RGB, DeepRGB, to_bytes


def decode_srgb(image: DeepRGB) -> npt.NDArray[np.float32]:
    """Return the linear light in [0, 1] of sRGB of 8 or 16 bits."""
    largest = np.iinfo(image.dtype).max
    code = np.arange(largest + 1) / largest
    table = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    return table.astype(np.float32)[image]


def encode_srgb(light: npt.NDArray[np.floating]) -> RGB:
    """Return linear light in [0, 1] as 8-bit sRGB."""
    code = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return to_bytes(255 * code)
