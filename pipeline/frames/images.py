"""Colour frames in and out: upright RGB of 8 or 16 bits; PNGs are atomic.

Pillow quietly cuts images of 16 bits to 8 and ignores a rotation in the EXIF data; a network
trained on such frames is wrong in a way that nobody sees. So OpenCV reads those of 16 bits, and
files that are not plain are refused.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import SpikeDeblurError
from ..host.extras import from_extra
from ..host.files import atomic_write
from ..host.reading import open_file, read_file

MAX_SIDE = 1 << 15
"""Largest side of a frame, in pixels."""

_MOST_BYTES = 1 << 28
"""Most bytes of an image file: 44 million pixels of 16 bits without compression."""

RGB = npt.NDArray[np.uint8]
DeepRGB = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
FrameType = Literal["uint8", "uint16"]

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
"""Formats that are read, by Pillow's names."""
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_GRAY, _RGB = 1, 2  # values of _PHOTOMETRIC
_ORIENTATION = 0x0112
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""First bytes of a PNG."""
_HEADER_END = 33  # bytes of a PNG's signature and its first chunk


class ImageError(SpikeDeblurError):
    """An image is missing, damaged, or of a kind whose colours would have to be guessed."""


def read_rgb(path: str | os.PathLike[str], shape: tuple[int, int] | None = None) -> RGB:
    """Read an image of 8 bits as (H, W, 3) uint8 RGB; see `decode_frame`.

    Raises:
        ImageError: as `decode_frame`, or more than 8 bits.
    """
    return decode_rgb(read_image(Path(path)), Path(path), shape)


def decode_rgb(content: bytes, path: Path, shape: tuple[int, int] | None = None) -> RGB:
    """Decode an image of 8 bits to (H, W, 3) uint8 RGB, as `read_rgb` does."""
    frame = decode_frame(content, path, shape)
    if frame.dtype != np.uint8:
        raise ImageError(
            f"{path}: expected 8 bits a channel, found 16; convert the frames to 8 bits, with the "
            "gamma that you mean"
        )
    return np.asarray(frame, np.uint8)


def read_frame(path: str | os.PathLike[str], shape: tuple[int, int] | None = None) -> DeepRGB:
    """Read an image file as (H, W, 3) RGB, uint8 or uint16; see `decode_frame`."""
    return decode_frame(read_image(Path(path)), Path(path), shape)


def decode_frame(content: bytes, path: Path, shape: tuple[int, int] | None = None) -> DeepRGB:
    """Decode the bytes of a PNG, TIFF, JPEG or BMP to (H, W, 3) RGB, uint8 or uint16 as stored.

    Gray and palette images, and an alpha that is opaque everywhere, are converted, because
    nothing is lost.

    Args:
        content: the file's bytes.
        path: where they are from, for messages.
        shape: (H, W) that it must have, in pixels; None: any.

    Raises:
        ImageError: not an image, cut, another size, CMYK, transparent, rotated by EXIF, neither 8
            nor 16 bits, or 16 bits without OpenCV, the extra `png16`.
    """
    with explained(path), Image.open(io.BytesIO(content), formats=FORMATS) as image:
        # Before decoding: the header may claim any size.
        if shape is not None and (image.height, image.width) != tuple(shape):
            raise ImageError(
                f"{path}: expected {shape[0]}x{shape[1]} pixels as in the sequence's first "
                f"frame, found {image.height}x{image.width}; all frames must have one size"
            )
        if max(image.size) > MAX_SIDE:
            raise ImageError(
                f"{path}: expected sides of at most {MAX_SIDE} pixels, found "
                f"{image.height}x{image.width}; crop or resize it"
            )
        if image.getexif().get(_ORIENTATION, 1) != 1:
            raise ImageError(
                f"{path}: the EXIF data rotates this image, which does not fit spikes; store "
                "the pixels upright and remove the EXIF orientation"
            )
        if getattr(image, "n_frames", 1) > 1:
            raise ImageError(
                f"{path}: expected one image, found {getattr(image, 'n_frames', 1)} pages; store "
                "one file a frame"
            )
        if _depth(image, content, path) == 16:
            return _decode_16(content, path)
        return _to_rgb(image, path)


def frame_type(path: Path) -> FrameType:
    """Return the type in which `read_frame` returns an image; reads the header only.

    Raises:
        ImageError: missing, not an image, or neither 8 nor 16 bits.
    """
    with explained(path), open_file(path) as file:
        start = file.read(25)
        if start.startswith(PNG_SIGNATURE) and len(start) == 25:
            return "uint16" if start[24] == 16 else "uint8"
        file.seek(0)
        with Image.open(file, formats=FORMATS) as image:
            return "uint16" if _depth(image, start, path) == 16 else "uint8"


def read_image(path: Path) -> bytes:
    """Return the bytes of an image file.

    Raises:
        ImageError: missing, no regular file, or larger than the largest image could be.
    """
    with explained(path):
        return read_file(path, _MOST_BYTES)


def _depth(image: Image.Image, content: bytes, path: Path) -> int:
    """Return 8 or 16, the bits of a channel, from an image's header."""
    depth, whole = 8, not image.mode.startswith("F")
    if content.startswith(PNG_SIGNATURE):
        depth = max(8, content[24])
    elif image.format == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        depth = max(8, *np.atleast_1d(tags.get(_BITS_PER_SAMPLE, 1)).tolist())
        whole = whole and set(np.atleast_1d(tags.get(_SAMPLE_FORMAT, 1)).tolist()) == {1}
        if depth == 16 and tags.get(_PHOTOMETRIC) not in (_GRAY, _RGB):
            raise ImageError(
                f"{path}: expected a gray or RGB image of 16 bits, found another kind of colours "
                f"(TIFF's PhotometricInterpretation {tags.get(_PHOTOMETRIC)}); convert it to RGB"
            )
    if depth not in (8, 16) or not whole:
        raise ImageError(
            f"{path}: expected whole numbers of 8 or 16 bits a channel, found {depth} bits"
            f"{'' if whole else ' that are no whole numbers'}; convert the frames, with the gamma "
            "that you mean"
        )
    return depth


def _decode_16(content: bytes, path: Path) -> npt.NDArray[np.uint16]:
    cv2 = require_png16(path, "reading 16 bits", ", or convert the frames to 8 bits")
    if content.startswith(PNG_SIGNATURE):
        with Image.open(io.BytesIO(content)) as image:
            image.verify()  # OpenCV may take a damaged file for a picture
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16:
        raise ImageError(f"{path}: can't read the image of 16 bits; restore the file")
    if decoded.ndim == 2:
        return np.repeat(decoded[..., None], 3, axis=-1)
    if decoded.shape[2] == 4:
        _require_opaque(int(decoded[..., 3].min()), 65535, path)
    return np.ascontiguousarray(decoded[..., 2::-1])


def _require_opaque(lowest: int, opaque: int, path: Path) -> None:
    if lowest != opaque:
        raise ImageError(
            f"{path}: expected an opaque image, found alpha down to {lowest}; flatten it on "
            "the background that you mean"
        )


def image_shape(path: Path) -> tuple[int, int]:
    """Return (H, W) of an image file, in pixels; reads the header only.

    Raises:
        ImageError: missing or not an image.
    """
    with explained(path), open_file(path) as file:
        start = file.read(24)
        # The size is at a fixed place in a PNG; Pillow takes ten times as long to find it.
        if len(start) == 24 and start.startswith(PNG_SIGNATURE) and start[12:16] == b"IHDR":
            width, height = struct.unpack(">II", start[16:])
            return height, width
        file.seek(0)
        with Image.open(file, formats=FORMATS) as image:
            return image.height, image.width


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


SRGB = png_chunk(b"sRGB", b"\0")
"""Chunk of a PNG that says that its colours are sRGB, to be shown as they look best."""


def write_png(path: str | os.PathLike[str], rgb: RGB, colours: bytes = SRGB) -> None:
    """Write (H, W, 3) or (H, W) uint8 as PNG, atomically.

    Args:
        path: the file.
        rgb: its numbers.
        colours: chunks that say what these mean; see `Colours.chunks`.
    """
    content = io.BytesIO()
    # Level 1 is 4 times as fast as the default for 10 % more bytes on noisy frames.
    Image.fromarray(np.ascontiguousarray(rgb)).save(content, format="PNG", compress_level=1)
    _write_with(path, content.getbuffer(), colours)


def _write_with(path: str | os.PathLike[str], png: bytes | memoryview, chunks: bytes) -> None:
    with atomic_write(path) as file:
        file.write(png[:_HEADER_END])
        file.write(chunks)
        file.write(png[_HEADER_END:])


def require_png16(
    path: str | os.PathLike[str],
    what: str = "writing 16-bit PNG",
    otherwise: str = ", or write 8 bits",
) -> Any:
    """Return OpenCV, which reads and writes 16 bits; called before any work, too.

    Raises:
        ImageError: no OpenCV; names `path`.
    """
    with from_extra("png16", f"{path}: {what} needs OpenCV", ImageError, otherwise):
        import cv2
    return cv2


def write_png16(
    path: str | os.PathLike[str], rgb: npt.NDArray[np.uint16], colours: bytes = SRGB
) -> None:
    """Write (H, W, 3) uint16 as PNG of 16 bits a channel, atomically; Pillow has no such mode.

    Raises:
        ImageError: no OpenCV, the extra `png16`.
    """
    cv2 = require_png16(path)
    _, encoded = cv2.imencode(".png", rgb[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    _write_with(path, encoded.tobytes(), colours)


def to_unit(frames: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """Return frames of whole numbers as float32 in [0, 1], over the whole range of their type."""
    return np.asarray(frames / np.float32(np.iinfo(frames.dtype).max), np.float32)


def to_8_bits(frames: npt.NDArray[np.integer]) -> RGB:
    """Return frames of 16 bits rounded to 8, and those of 8 as they are."""
    if frames.dtype == np.uint8:
        return np.asarray(frames, np.uint8)
    return np.asarray((frames.astype(np.uint32) + 128) // 257, np.uint8)


def to_16_bits(frames: npt.NDArray[np.integer]) -> npt.NDArray[np.uint16]:
    """Return frames of 8 bits as the same shares of the range of 16, and those of 16 unchanged."""
    if frames.dtype == np.uint16:
        return np.asarray(frames, np.uint16)
    return frames.astype(np.uint16) * np.uint16(257)


def as_type(frames: DeepRGB, dtype: FrameType, path: Path) -> DeepRGB:
    """Return frames in a sequence's type; those of 8 bits fit into 16.

    Raises:
        ImageError: frames of 16 bits where the sequence has 8; names `path`.
    """
    if frames.dtype == dtype:
        return frames
    if dtype == "uint16":
        return to_16_bits(frames)
    raise ImageError(
        f"{path}: expected 8 bits a channel as in the sequence's first frame, found 16; all frames "
        "of a sequence must have as many"
    )


def to_bytes(values: npt.NDArray[np.floating]) -> RGB:
    """Return values of 0 to 255 as uint8, rounded half up; values outside are clipped."""
    return np.asarray(np.clip(np.floor(values + 0.5), 0, 255), np.uint8)


def _to_rgb(image: Image.Image, path: Path) -> RGB:
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        rgba = image.convert("RGBA")
        _require_opaque(int(np.asarray(rgba)[..., 3].min()), 255, path)
        return np.asarray(rgba)[..., :3]
    if image.mode not in ("RGB", "L", "P"):
        raise ImageError(
            f"{path}: expected an RGB image, found mode {image.mode}; convert it to RGB"
        )
    return np.asarray(image.convert("RGB"))


@contextmanager
def explained(path: Path) -> Iterator[None]:
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
