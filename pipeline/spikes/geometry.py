"""Which bit of a packed spike file is which pixel. No I/O here.

The file has no header and its size proves nothing: 1,612,800 bytes are 56 frames of
360x640 or 224 of 180x320. The caller says; we check.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from ...errors import SpikeDeblurError

MAX_SIDE = 2**16
"""Pixels, far above any camera: what a file claims is refused before memory is asked for."""


class SpikeGeometryError(SpikeDeblurError):
    """The geometry is impossible, ambiguous, or does not fit the data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikeGeometry:
    """How spikes lie in a `.dat` file: one bit a pixel, least significant bit first."""

    height: int
    """Rows in the file, in pixels."""
    width: int
    """Columns in the file, in pixels, those to drop included."""
    flip_rows: bool
    """True if rows are stored bottom-up. No default: data sets differ."""
    pad_frames: bool = False
    """True if every frame starts on a byte; False if bits run on."""
    drop_columns: tuple[tuple[int, int], ...] = ()
    """Column ranges [start, stop) that hold row headers, not pixels."""

    def __post_init__(self) -> None:
        # Under 8 pixels, padding at the file's end could pass for a frame.
        if min(self.height, self.width) < 1 or self.height * self.width < 8:
            raise SpikeGeometryError(
                "expected positive sides and at least 8 pixels, got "
                f"{self.height}x{self.width}; check height and width"
            )
        if max(self.height, self.width) > MAX_SIDE:
            raise SpikeGeometryError(
                f"expected sides of at most {MAX_SIDE} pixels, got {self.height}x{self.width}; "
                "check height and width"
            )
        end = 0
        for start, stop in self.drop_columns:
            if not end <= start < stop <= self.width:
                raise SpikeGeometryError(
                    f"expected ascending column ranges to drop inside 0:{self.width}, got "
                    f"{self.drop_columns}; check drop=START:STOP"
                )
            end = stop
        if self.visible_width < 1:
            raise SpikeGeometryError(
                f"drop={self.drop_columns} leaves no column of {self.width}; check drop=START:STOP"
            )

    @property
    def visible_width(self) -> int:
        """Columns that hold pixels."""
        return self.width - sum(stop - start for start, stop in self.drop_columns)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the decoded image."""
        return self.height, self.visible_width

    @property
    def pixels(self) -> int:
        """Bits that a frame uses in the file."""
        return self.height * self.width

    @property
    def frame_bits(self) -> int:
        """Bits from one frame's start to the next."""
        return (self.pixels + 7) // 8 * 8 if self.pad_frames else self.pixels

    @property
    def rows_are_bytes(self) -> bool:
        """Whether every row begins on a byte."""
        return self.width % 8 == 0 and self.frame_bits % 8 == 0

    def stored_bytes(self, n_frames: int) -> int:
        """Return the file size, in bytes, of `n_frames` packed frames."""
        return (n_frames * self.frame_bits + 7) // 8

    def count_frames(self, n_bytes: int) -> int:
        """Return the number of packed frames in `n_bytes`.

        Raises:
            SpikeGeometryError: not a whole number of frames, or none.
        """
        n_frames, spare_bits = divmod(8 * n_bytes, self.frame_bits)
        if n_frames == 0 or spare_bits >= 8:
            raise SpikeGeometryError(
                f"expected whole {self.height}x{self.width} frames of {self.frame_bits} bits, "
                f"got {n_bytes} bytes ({n_frames} frames, {spare_bits} bits over); check for "
                "a cut file or another geometry"
            )
        return n_frames

    def describe(self) -> str:
        """Return the geometry as the SPEC that `parse_geometry` reads."""
        parts = [f"{self.height}x{self.width}", "bottom-up" if self.flip_rows else "top-down"]
        if self.pad_frames:
            parts.append("padded")
        parts += [f"drop={start}:{stop}" for start, stop in self.drop_columns]
        return ",".join(parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikePreset:
    """A published source of `.dat` files and what is known of all its files."""

    geometry: SpikeGeometry
    source: str
    rate: float | None = None
    """Spike frames a second, in Hz; None where the source has more than one."""
    gain: float | None = None
    """Spikes a sample at unit luminance; None where it is not known."""


def _bottom_up(height: int, width: int, *drop: tuple[int, int]) -> SpikeGeometry:
    return SpikeGeometry(height=height, width=width, flip_rows=True, drop_columns=drop)


PRESETS: dict[str, SpikePreset] = {
    "vidar": SpikePreset(
        geometry=_bottom_up(250, 400),
        source="Vidar gen-1 / sps10 camera; recVidarReal2019, PKU-Vidar-DVS, RSB",
    ),
    "vidar-raw": SpikePreset(
        geometry=_bottom_up(250, 416, (400, 416)),
        source="the same camera with row headers in columns 400 to 415",
    ),
    "reds-spike": SpikePreset(geometry=_bottom_up(250, 400), source="REDS-spike", gain=0.6),
    "sps100": SpikePreset(
        geometry=_bottom_up(1000, 1000), source="sps100 / M1K40 camera, headers stripped"
    ),
    "sps100-raw": SpikePreset(
        geometry=_bottom_up(1000, 1024, (500, 512), (1000, 1012)),
        source="sps100 camera with sync words in columns 500 to 511 and 1000 to 1011",
    ),
    "spift": SpikePreset(
        geometry=SpikeGeometry(height=500, width=800, flip_rows=False, pad_frames=True),
        source="SPIFT / PHM (SPCS simulator), top-down",
    ),
    "spk-gopro": SpikePreset(
        geometry=_bottom_up(360, 640), source="Spk-GoPro", rate=1920.0, gain=0.5
    ),
    "spk-x4k-train": SpikePreset(
        geometry=_bottom_up(384, 384), source="Spk-X4K1000FPS train", rate=4000.0, gain=0.5
    ),
    "spk-x4k-val": SpikePreset(
        geometry=_bottom_up(256, 256), source="Spk-X4K1000FPS val", rate=4000.0, gain=0.5
    ),
    "s-sdm-gopro": SpikePreset(
        geometry=_bottom_up(180, 320), source="S-SDM GOPRO", rate=1920.0, gain=0.993
    ),
    "s-sdm-gopro-full": SpikePreset(
        geometry=_bottom_up(720, 1280), source="S-SDM GOPRO, full size", rate=1920.0, gain=0.993
    ),
}

_SPEC_HELP = (
    "give a preset's name or HxW,bottom-up|top-down[,padded][,drop=START:STOP], "
    "for example 250x400,bottom-up"
)


@lru_cache(maxsize=1024)
def parse_geometry(spec: str) -> SpikeGeometry:
    """Read a SPEC: a preset's name or `HxW,bottom-up|top-down[,padded][,drop=400:416]`.

    Raises:
        SpikeGeometryError: not a SPEC, or one that leaves the row order open.
    """
    if spec in PRESETS:
        return PRESETS[spec].geometry
    size, *words = [word.strip() for word in spec.split(",")]
    match = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", size)
    if match is None:
        raise SpikeGeometryError(
            f"geometry {spec!r} is neither HxW nor a preset ({', '.join(PRESETS)}); {_SPEC_HELP}"
        )
    flip_rows: bool | None = None
    pad_frames = False
    drop: list[tuple[int, int]] = []
    for word in words:
        columns = re.fullmatch(r"drop=(\d{1,6}):(\d{1,6})", word)
        if word in ("bottom-up", "top-down"):
            flip_rows = word == "bottom-up"
        elif word == "padded":
            pad_frames = True
        elif columns is not None:
            drop.append((int(columns[1]), int(columns[2])))
        else:
            raise SpikeGeometryError(f"geometry {spec!r}: {word!r} is not known; {_SPEC_HELP}")
    if flip_rows is None:
        raise SpikeGeometryError(
            f"geometry {spec!r} leaves the row order open, and data sets differ; write "
            f"{size},bottom-up (cameras and most simulators) or {size},top-down"
        )
    return SpikeGeometry(
        height=int(match[1]),
        width=int(match[2]),
        flip_rows=flip_rows,
        pad_frames=pad_frames,
        drop_columns=tuple(sorted(drop)),
    )
