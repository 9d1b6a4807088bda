"""Colour frames in and out: upright RGB, read with 8 bits, written with 8 or 16; PNGs are atomic.

Pillow quietly cuts 16-bit PNGs to 8 bits and ignores a rotation in the EXIF data; a network
trained on such frames is wrong in a way that nobody sees. Files that are not plain are refused.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import SpikeDeblurError
from ..host.extras import from_extra
from ..host.files import atomic_write

MAX_SIDE = 1 << 15
"""Largest side of a frame, in pixels."""

RGB = npt.NDArray[np.uint8]

_FORMATS = ("PNG", "JPEG", "BMP")
_ORIENTATION = 0x0112
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class ImageError(SpikeDeblurError):
    """An image is missing, damaged, or of a kind whose colours would have to be guessed."""


def read_rgb(path: str | os.PathLike[str], shape: tuple[int, int] | None = None) -> RGB:
    """Read an image file as (H, W, 3) uint8 RGB; see `decode_rgb`."""
    path = Path(path)
    with _explained(path):
        content = path.read_bytes()
    return decode_rgb(content, path, shape)


def decode_rgb(content: bytes, path: Path, shape: tuple[int, int] | None = None) -> RGB:
    """Decode the bytes of a PNG, JPEG or BMP to (H, W, 3) uint8 RGB.

    Gray and palette images, and an alpha that is opaque everywhere, are converted, because
    nothing is lost.

    Args:
        content: the file's bytes.
        path: where they are from, for messages.
        shape: (H, W) that it must have, in pixels; None: any.

    Raises:
        ImageError: not an image, cut, another size, 16 bits, CMYK, transparent, rotated by EXIF.
    """
    with _explained(path), Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        # Before decoding: the header may claim any size.
        if shape is not None and (image.height, image.width) != tuple(shape):
            raise ImageError(
                f"{path}: expected {shape[0]}x{shape[1]} pixels as in the sequence's first "
                f"frame, found {image.height}x{image.width}; all frames must have one size"
            )
        if max(image.size) > MAX_SIDE:
            raise ImageError(
                f"{path}: expected sides of at most {MAX_SIDE} pixels, found "
                f"{image.height}x{image.width}"
            )
        depth = content[24] if content.startswith(_PNG_SIGNATURE) else 8
        if depth > 8 or image.mode.startswith(("I", "F")):
            raise ImageError(
                f"{path}: expected 8 bits a channel, found more (mode {image.mode}); convert the "
                "frames to 8 bits, with the gamma that you mean"
            )
        if image.getexif().get(_ORIENTATION, 1) != 1:
            raise ImageError(
                f"{path}: the EXIF data rotates this image, which does not fit spikes; store "
                "the pixels upright and remove the EXIF orientation"
            )
        return _to_rgb(image, path)


def image_shape(path: Path) -> tuple[int, int]:
    """Return (H, W) of an image file, in pixels; reads the header only.

    Raises:
        ImageError: missing or not an image.
    """
    with _explained(path), path.open("rb") as file:
        start = file.read(24)
        # The size is at a fixed place in a PNG; Pillow takes ten times as long to find it.
        if len(start) == 24 and start.startswith(_PNG_SIGNATURE) and start[12:16] == b"IHDR":
            width, height = struct.unpack(">II", start[16:])
            return height, width
        file.seek(0)
        with Image.open(file, formats=_FORMATS) as image:
            return image.height, image.width


def write_png(path: str | os.PathLike[str], rgb: RGB) -> None:
    """Write (H, W, 3) or (H, W) uint8 as PNG, atomically."""
    with atomic_write(path) as file:
        # Level 1 is 4 times as fast as the default for 10 % more bytes on noisy frames.
        Image.fromarray(np.ascontiguousarray(rgb)).save(file, format="PNG", compress_level=1)


def require_png16(path: str | os.PathLike[str]) -> Any:
    """Return OpenCV, which writes 16 bits; called before any work, too.

    Raises:
        ImageError: no OpenCV; names `path`.
    """
    what = f"{path}: writing 16-bit PNG needs OpenCV"
    with from_extra("png16", what, ImageError, ", or write 8 bits"):
        import cv2
    return cv2


def write_png16(path: str | os.PathLike[str], rgb: npt.NDArray[np.uint16]) -> None:
    """Write (H, W, 3) uint16 as PNG of 16 bits a channel, atomically; Pillow has no such mode.

    Raises:
        ImageError: no OpenCV, the extra `png16`.
    """
    cv2 = require_png16(path)
    _, content = cv2.imencode(".png", rgb[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    with atomic_write(path) as file:
        file.write(content)


def to_bytes(values: npt.NDArray[np.floating]) -> RGB:
    """Return values of 0 to 255 as uint8, rounded half up; values outside are clipped."""
    return np.asarray(np.clip(np.floor(values + 0.5), 0, 255), np.uint8)


def _to_rgb(image: Image.Image, path: Path) -> RGB:
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        rgba = image.convert("RGBA")
        lowest = rgba.getchannel("A").getextrema()[0]
        if lowest != 255:
            raise ImageError(
                f"{path}: expected an opaque image, found alpha down to {lowest}; flatten it on "
                "the background that you mean"
            )
        return np.asarray(rgba)[..., :3]
    if image.mode not in ("RGB", "L", "P"):
        raise ImageError(
            f"{path}: expected an RGB image, found mode {image.mode}; convert it to RGB"
        )
    return np.asarray(image.convert("RGB"))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn Pillow's and the system's errors about one file into an `ImageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{path}: expected an image, found none; check the path") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise ImageError(f"{path}: can't read the image ({error}); restore the file") from error


def to_uint8(frames: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Return values in [0, 1] as uint8, rounded to nearest; values outside are clipped."""
    return to_bytes(255.0 * frames)


def to_uint16(frames: npt.NDArray[np.floating]) -> npt.NDArray[np.uint16]:
    """Return values in [0, 1] as uint16, rounded to nearest; values outside are clipped."""
    # float32 has too few digits to round 65,535 steps to the nearest.
    scaled = np.clip(frames.astype(np.float64), 0.0, 1.0) * 65535.0
    return np.asarray(scaled + 0.5).astype(np.uint16)
