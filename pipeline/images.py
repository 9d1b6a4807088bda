"""Colour frames in and out: 8-bit RGB from PNG, JPEG or BMP, PNG written atomically."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ..errors import SpikeDeblurError
from .files import atomic_write

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
"""File name endings that are read, in lower case."""

_FORMATS = ("PNG", "JPEG", "BMP")
_EXIF_ORIENTATION = 0x0112


class ImageError(SpikeDeblurError):
    """An image is missing, damaged, or of a kind whose colours would have to be guessed."""


def read_rgb(
    path: str | os.PathLike[str], shape: tuple[int, int] | None = None
) -> npt.NDArray[np.uint8]:
    """Read an 8-bit image as (H, W, 3) uint8 RGB; gray is repeated on the three channels.

    Args:
        path: PNG, JPEG or BMP.
        shape: (H, W) that it must have, in pixels.

    Raises:
        ImageError: missing, damaged, another size, or of a kind that is not plain 8-bit colour
            (alpha, CMYK, 16 bit, a rotation in its EXIF data, a decompression bomb).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                _require_plain(path, image)
                if shape is not None and (image.height, image.width) != tuple(shape):
                    raise ImageError(
                        f"{path}: expected {shape[0]}x{shape[1]} pixels (height x width) as in "
                        f"the rest of its sequence, got {image.height}x{image.width}; check for "
                        "a frame of another sequence"
                    )
                return np.asarray(image.convert("RGB"))
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{path}: expected an image, found none; check the path") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{path}: the image claims to be too large to be a frame; {error}"
        ) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ImageError(
            f"{path}: expected a PNG, JPEG or BMP image, but it can't be read ({error}); copy or "
            "make it again"
        ) from error


def write_png(path: str | os.PathLike[str], rgb: npt.NDArray[np.uint8]) -> None:
    """Write (H, W, 3) or (H, W) uint8 as PNG, atomically."""
    with atomic_write(path) as aside:
        # Level 1 is 4 times as fast as the default for 10 % more bytes on noisy frames.
        Image.fromarray(np.ascontiguousarray(rgb)).save(aside, format="PNG", compress_level=1)


def list_images(folder: Path) -> list[Path]:
    """Return the image files of a folder, sorted by name."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def _require_plain(path: str | os.PathLike[str], image: Image.Image) -> None:
    if image.mode not in ("RGB", "L", "P") or "transparency" in image.info:
        raise ImageError(
            f"{path}: expected 8-bit RGB or gray, got mode {image.mode!r}"
            f"{' with transparency' if 'transparency' in image.info else ''}; convert it to "
            "8-bit RGB first"
        )
    if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        raise ImageError(
            f"{path}: the EXIF data ask for a rotation, which spikes don't know of; rotate the "
            "pixels and remove the tag"
        )
