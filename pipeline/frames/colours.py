"""What colours the numbers of a frame's file mean, and how a PNG says it.

A file that says nothing means sRGB. What it says of other colours is carried to what is made of its
numbers, since no restoring method changes what they mean; what can't be carried is refused.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageCms

from ..host.reading import open_file
from .images import FORMATS, PNG_SIGNATURE, RGB, SRGB, ImageError, explained, png_chunk, read_rgb

_SRGB_GAMMA = 45455  # what gAMA holds for sRGB, in 100,000ths
_SRGB_POINTS = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)  # what cHRM holds for it
_ADOBE_GAMMA = 45470
_ADOBE_POINTS = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
_CLOSE = 500  # in 100,000ths: the difference of numbers that mean the same
_SAME_LEVELS = 2  # difference, of 255, up to which a profile's colours are those of sRGB

# Values of H.273 whose colours are close enough to sRGB's, unspecified ones among them.
_USUAL_PRIMARIES = (0, 1, 2, 3, 5, 6, 7)
_USUAL_TRANSFER = (0, 1, 2, 3, 6, 13)

_MOST_CHUNKS = 10_000  # chunks that are looked at before the picture of a PNG

_COLOR_SPACE, _EXIF, _INTEROP, _INDEX = 0xA001, 0x8769, 0xA005, 1  # tags of EXIF
_TRANSFER_FUNCTION, _WHITE_POINT, _PRIMARIES = 301, 318, 319  # tags of TIFF
_BMP_SPACE = 70  # place in a BMP of its colour space, if its header is that long
_BMP_PROFILES = (b"DEBM", b"KNIL")  # MBED and LINK, the least byte first


@dataclass(frozen=True, slots=True)
class Colours:
    """What the numbers of a frame mean; all None: sRGB."""

    icc: bytes | None = None
    """ICC profile, for RGB."""
    coded: tuple[int, int] | None = None
    """Primaries and transfer function as ITU-T H.273 numbers them."""
    gamma: int | None = None
    """Exponent from light to numbers, in 100,000ths."""
    points: tuple[int, ...] | None = None
    """x and y of white, red, green and blue, in 100,000ths."""

    @property
    def are_srgb(self) -> bool:
        """Whether the numbers mean what they would in sRGB, within two levels of 255."""
        if self.coded is not None:
            return self.coded[0] in _USUAL_PRIMARIES and self.coded[1] in _USUAL_TRANSFER
        if self.icc is not None:
            return _is_srgb_profile(self.icc)
        return (self.gamma is None or abs(self.gamma - _SRGB_GAMMA) <= _CLOSE) and (
            self.points is None
            or max(abs(a - b) for a, b in zip(self.points, _SRGB_POINTS, strict=True)) <= _CLOSE
        )

    def chunks(self) -> bytes:
        """Return the chunks of a PNG that say it."""
        chunks = b""
        if self.coded is not None:
            chunks += png_chunk(b"cICP", bytes([*self.coded, 0, 1]))
        if self.icc is not None:
            chunks += png_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(self.icc))
        if self.gamma is not None:
            chunks += png_chunk(b"gAMA", struct.pack(">I", self.gamma))
        if self.points is not None:
            chunks += png_chunk(b"cHRM", struct.pack(">8I", *self.points))
        return chunks or SRGB

    def describe(self) -> str:
        """Return what says it, for messages."""
        if self.coded is not None:
            return f"primaries {self.coded[0]} and transfer function {self.coded[1]} of H.273"
        if self.icc is not None:
            return "an ICC profile"
        parts = []
        if self.gamma is not None:
            parts.append(f"a gamma of {1e5 / self.gamma:.3g}")
        if self.points is not None:
            parts.append("primaries of its own")
        return " and ".join(parts) or "none, which means sRGB"


def colours_of(path: str | os.PathLike[str], content: bytes | None = None) -> Colours:
    """Return what an image file says of its colours; reads its header only.

    Args:
        path: the file.
        content: its bytes, where they are known.

    Raises:
        ImageError: missing, not an image, or what it says can't be carried: a profile of other
            colours than RGB, numbers of less than the full range, or a transfer function by table.
    """
    path = Path(path)
    with explained(path), open_file(path) if content is None else io.BytesIO(content) as file:
        with Image.open(file, formats=FORMATS) as image:
            icc = image.info.get("icc_profile")
            if icc and icc[16:20] != b"RGB ":
                kind = icc[16:20].decode("ascii", "replace").strip()
                raise ImageError(
                    f"{path}: expected a colour profile for RGB, found one for {kind}, which "
                    "restored frames can't carry; convert the frames to sRGB, or remove the profile"
                )
            icc = bytes(icc) if icc else None
            if image.format == "TIFF":
                return Colours(icc) if icc else _of_tiff(image, path)
            if image.format == "JPEG":
                return Colours(icc) if icc else _of_exif(image)
            if image.format == "PNG":
                return _of_png(file, icc, path)
            if image.format == "BMP" and _read_at(file, _BMP_SPACE, 4) in _BMP_PROFILES:
                raise ImageError(
                    f"{path}: expected a BMP without a colour profile, found one, which is not "
                    "read; convert the frames to PNG"
                )
        return Colours()


def read_srgb(path: str | os.PathLike[str], shape: tuple[int, int] | None = None) -> RGB:
    """Read an image of 8 bits as (H, W, 3) uint8 sRGB; colours of an ICC profile are converted.

    Raises:
        ImageError: as `read_rgb` and `colours_of`, or colours that can't be converted.
    """
    colours = convertible_colours(path)
    frame = read_rgb(path, shape)
    return frame if colours.icc is None else _converted(frame, colours.icc, Path(path))


def convertible_colours(path: str | os.PathLike[str]) -> Colours:
    """Return what an image says of its colours, where it is sRGB or an ICC profile leads there.

    Raises:
        ImageError: as `colours_of`, or other colours.
    """
    colours = colours_of(path)
    if colours.are_srgb:
        return Colours()
    if colours.icc is None or colours.coded is not None:
        raise ImageError(
            f"{path}: expected colours in sRGB or with an ICC profile, found "
            f"{colours.describe()}; convert the frames to sRGB"
        )
    return colours


def common_colours(colours: dict[str, Colours]) -> str | None:
    """Return a sentence about frames that mean different colours by the same numbers; None: none.

    Args:
        colours: what each frame says, by the name of its file.
    """
    (name, first), *others = colours.items()
    for other, found in others:
        if found != first and not (found.are_srgb and first.are_srgb):
            return (
                f"colours differ: {name} has {first.describe()}, {other} has {found.describe()}; "
                "their numbers do not compare, so convert all frames to one colour space"
            )
    return None


def colours_of_video(primaries: int, transfer: int) -> Colours:
    """Return the colours of a video, from their numbers in ITU-T H.273."""
    if primaries in _USUAL_PRIMARIES and transfer in _USUAL_TRANSFER:
        return Colours()
    return Colours(
        coded=(
            1 if primaries in (0, 2, 3) else primaries,
            13 if transfer in (0, 2, 3) else transfer,
        )
    )


def _read_at(file: IO[bytes], place: int, length: int) -> bytes:
    file.seek(place)
    return file.read(length)


def _of_png(file: IO[bytes], icc: bytes | None, path: Path) -> Colours:
    found: dict[bytes, bytes] = {}
    at = len(PNG_SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        head = _read_at(file, at, 8)
        if len(head) < 8 or head[4:] == b"IDAT":
            break
        (length,) = struct.unpack(">I", head[:4])
        if head[4:] in (b"cICP", b"sRGB", b"gAMA", b"cHRM"):
            found.setdefault(head[4:], file.read(min(length, 64)))
        at += length + 12
    coded = found.get(b"cICP")
    if coded is not None and (len(coded) != 4 or coded[2] != 0 or coded[3] != 1):
        raise ImageError(
            f"{path}: expected RGB of the full range, found colours coded as {[*coded]} (cICP); "
            "convert the frames to sRGB"
        )
    gamma = found.get(b"gAMA")
    points = found.get(b"cHRM")
    if (gamma is not None and (len(gamma) != 4 or not any(gamma))) or (
        points is not None and len(points) != 32
    ):
        raise ImageError(
            f"{path}: its chunks gAMA and cHRM hold no gamma and no primaries; remove them"
        )
    if icc is not None or b"sRGB" in found:
        gamma = points = None
    return Colours(
        icc,
        (coded[0], coded[1]) if coded else None,
        struct.unpack(">I", gamma)[0] if gamma else None,
        struct.unpack(">8I", points) if points else None,
    )


def _of_tiff(image: Image.Image, path: Path) -> Colours:
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    if _TRANSFER_FUNCTION in tags:
        raise ImageError(
            f"{path}: expected an ICC profile or none, found a transfer function by table (TIFF's "
            "tag 301), which restored frames can't carry; convert the frames to sRGB"
        )
    if _PRIMARIES not in tags:
        return Colours()
    white = tags.get(_WHITE_POINT, (0.3127, 0.329))
    points = tuple(round(1e5 * float(x)) for x in (*white, *tags[_PRIMARIES]))
    if len(points) != 8 or not all(0 <= point < 1 << 31 for point in points):
        raise ImageError(f"{path}: its tags 318 and 319 hold no primaries; remove them")
    return Colours(gamma=_SRGB_GAMMA, points=points)


def _of_exif(image: Image.Image) -> Colours:
    """Return what a camera notes in a JPEG without profile: Adobe RGB, or nothing."""
    exif = image.getexif()
    index = exif.get_ifd(_INTEROP).get(_INDEX, "") if exif else ""
    if str(index).startswith("R03") or (exif and exif.get_ifd(_EXIF).get(_COLOR_SPACE) == 2):
        return Colours(gamma=_ADOBE_GAMMA, points=_ADOBE_POINTS)
    return Colours()


def _is_srgb_profile(icc: bytes) -> bool:
    steps = np.linspace(0, 255, 6).astype(np.uint8)
    every = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    try:
        seen = _converted(every, icc, Path())
    except ImageError:
        return False
    return int(np.abs(seen.astype(int) - every).max()) <= _SAME_LEVELS


def _converted(frame: RGB, icc: bytes, path: Path) -> RGB:
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        image = ImageCms.profileToProfile(
            Image.fromarray(frame),
            profile,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        )
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise ImageError(
            f"{path}: can't convert its colours to sRGB by its ICC profile ({error}); convert the "
            "frames, or remove the profile"
        ) from error
    assert image is not None, "not in place"
    return np.asarray(image)
