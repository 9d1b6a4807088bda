"""Published geometries by name, and the SPEC by which people write one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator

from .geometry import SpikeGeometry, SpikeGeometryError

NOT_PUBLISHED = "not published"


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikePreset:
    """What all `.dat` files of a published source have in common."""

    geometry: SpikeGeometry
    source: str
    rate: float | None = None
    """Spike samples a second, in Hz; None where the source has more than one, or names none."""
    rate_note: str = NOT_PUBLISHED
    """What is known of a rate that is None, in a few words."""
    gain: float | None = None
    """Spikes a sample at unit luminance; None where it is not known."""


def _bottom_up(
    height: int,
    width: int,
    source: str,
    *drop: tuple[int, int],
    rate: float | None = None,
    rate_note: str = NOT_PUBLISHED,
    gain: float | None = None,
) -> SpikePreset:
    geometry = SpikeGeometry(height=height, width=width, flip_rows=True, drop_columns=drop)
    return SpikePreset(geometry=geometry, source=source, rate=rate, rate_note=rate_note, gain=gain)


_OF_CAMERAS = "20000 or 40000, as the camera was set"

PRESETS: dict[str, SpikePreset] = {
    "vidar": _bottom_up(
        250,
        400,
        "Vidar gen-1 / sps10 camera; recVidarReal2019, PKU-Vidar-DVS, RSB",
        rate_note=_OF_CAMERAS,
    ),
    "vidar-raw": _bottom_up(
        250,
        416,
        "the same camera with row headers in columns 400 to 415",
        (400, 416),
        rate_note=_OF_CAMERAS,
    ),
    "reds-spike": _bottom_up(250, 400, "REDS-spike", gain=0.6),
    "sps100": _bottom_up(
        1000, 1000, "sps100 / M1K40 camera, headers stripped", rate_note=_OF_CAMERAS
    ),
    "sps100-raw": _bottom_up(
        1000,
        1024,
        "sps100 camera with sync words in columns 500 to 511 and 1000 to 1011",
        *((500, 512), (1000, 1012)),
        rate_note=_OF_CAMERAS,
    ),
    "spift": SpikePreset(
        geometry=SpikeGeometry(height=500, width=800, flip_rows=False, pad_frames=True),
        source="SPIFT / PHM (SPCS simulator), top-down",
    ),
    "spk-gopro": _bottom_up(360, 640, "Spk-GoPro", rate=1920.0, gain=0.5),
    "spk-x4k-train": _bottom_up(384, 384, "Spk-X4K1000FPS train", rate=4000.0, gain=0.5),
    "spk-x4k-val": _bottom_up(256, 256, "Spk-X4K1000FPS val", rate=4000.0, gain=0.5),
    "s-sdm-gopro": _bottom_up(180, 320, "S-SDM GOPRO", rate=1920.0, gain=0.993),
    "s-sdm-gopro-full": _bottom_up(720, 1280, "S-SDM GOPRO, full size", rate=1920.0, gain=0.993),
}

_SPEC_HELP = (
    "give a preset's name or HxW,bottom-up|top-down[,padded][,msb-first][,bayer=RGGB]"
    "[,drop=START:STOP][,columns=START:STOP], for example 250x400,bottom-up"
)


@lru_cache(maxsize=1024)
def parse_geometry(spec: str) -> SpikeGeometry:
    """Read a SPEC: a preset's name or `HxW,bottom-up|top-down`, and words after it.

    `padded`: each frame begins on a byte. `msb-first`: the first pixel of a byte is its most
    significant bit. `bayer=RGGB`: colour filters, whose rates are brought to one; see `mosaic`.
    `drop=400:416`: columns that are no pixels. `columns=0:1000`: the only ones that are.

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
    pad_frames = msb_first = False
    bayer: str | None = None
    drop: list[tuple[int, int]] = []
    width = int(match[2])
    for word in words:
        columns = re.fullmatch(r"(drop|columns)=(\d{1,6}):(\d{1,6})", word)
        if word in ("bottom-up", "top-down"):
            flip_rows = word == "bottom-up"
        elif word == "padded":
            pad_frames = True
        elif word == "msb-first":
            msb_first = True
        elif word.startswith("bayer="):
            bayer = word.removeprefix("bayer=").upper()
        elif columns is not None:
            start, stop = int(columns[2]), int(columns[3])
            if columns[1] == "drop":
                drop.append((start, stop))
            elif start < stop <= width:
                drop += [part for part in ((0, start), (stop, width)) if part[0] < part[1]]
            else:
                raise SpikeGeometryError(
                    f"geometry {spec!r}: expected columns inside 0:{width}, got {start}:{stop}; "
                    "check columns=START:STOP"
                )
        else:
            raise SpikeGeometryError(f"geometry {spec!r}: {word!r} is not known; {_SPEC_HELP}")
    if flip_rows is None:
        raise SpikeGeometryError(
            f"geometry {spec!r} leaves the row order open, and data sets differ; write "
            f"{size},bottom-up (cameras and most simulators) or {size},top-down"
        )
    return SpikeGeometry(
        height=int(match[1]),
        width=width,
        flip_rows=flip_rows,
        pad_frames=pad_frames,
        bayer=bayer,
        msb_first=msb_first,
        drop_columns=tuple(sorted(drop)),
    )


def _require_geometry(spec: str) -> str:
    parse_geometry(spec)
    return spec


GeometrySpec = Annotated[str, AfterValidator(_require_geometry)]
"""A SPEC in a file that pydantic checks."""
