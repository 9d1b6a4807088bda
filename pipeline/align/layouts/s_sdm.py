"""S-SDM GOPRO: GOPRO_Large_all interpolated eightfold, as published with S-SDM.

    <root>/<split>/blur_data/GOPR0372_07_00/000019.png
    <root>/<split>/sharp_data/GOPR0372_07_00/000019.png
    <root>/<split>/spike_data/GOPR0372_07_00/000019.dat    180x320, or spike_full/ of 720x1280

A blurred frame averages 97 interpolated frames, 1920 a second, which span 13 recorded frames, 240
a second. Names count recorded frames: 6, 19, 32 and so on. So the middle of 000019 is interpolated
frame 152, and the next exposure begins 7 frames after this one ends. A spike file has 20 samples
before and after its exposure, so the first blurred frame of a sequence, and often the last, has
no spike file.
"""

from __future__ import annotations

from pathlib import Path

from ...frames.listing import subfolders
from ...spikes.dat import SPIKE_SUFFIXES
from ...spikes.presets import PRESETS
from .contract import AlignmentError, FoundSequence, choose_variant, in_order
from .pairing import index_frames, leftovers, pair_frames

NAME = "s-sdm"
NEEDS = "<split>/blur_data/ beside <split>/spike_data/"
VARIANTS = ("spike_data", "spike_full")

FPS = 1920.0
EXPOSURE = 97
INTERPOLATION = 8
MARGIN = 20
"""Spike samples before and after the exposure in each file."""

BLUR = "blur_data"
SHARP = "sharp_data"

_PRESETS = {"spike_data": PRESETS["s-sdm-gopro"], "spike_full": PRESETS["s-sdm-gopro-full"]}
_SCALES = {"spike_data": 4, "spike_full": 1}


def recognise(root: Path) -> str | None:
    """Return what in `root` shows this layout; None: nothing does."""
    for split in subfolders(root):
        for name in VARIANTS:
            if (split / BLUR).is_dir() and (split / name).is_dir():
                return f"{split.name}/{BLUR}/ and {split.name}/{name}/"
    return None


def find(root: Path, exposure: int | None, variant: str | None = None) -> list[FoundSequence]:
    """Return all sequences of all splits, in order of `seq`."""
    if exposure not in (None, EXPOSURE):
        raise AlignmentError(
            f"{root}: the layout {NAME} has exposures of {EXPOSURE} frames, --exposure says "
            f"{exposure}; leave it out"
        )
    splits = [path for path in subfolders(root) if (path / BLUR).is_dir()]
    kind = choose_variant(root, splits, VARIANTS, variant)
    sequences = (
        _find_sequence(split, folder.name, kind)
        for split in splits
        for folder in subfolders(split / BLUR)
    )
    return in_order(root, f"{NEEDS}, with a folder for each sequence in both", sequences)


def _find_sequence(split: Path, name: str, kind: str) -> FoundSequence:
    warnings: list[str] = []
    blurs = index_frames(split / BLUR / name, warnings, example="000019.png")
    sharps = index_frames(split / SHARP / name, warnings)
    spikes = index_frames(split / kind / name, warnings, suffixes=SPIKE_SUFFIXES)
    ends = min(blurs), max(blurs)
    inner = {n: path for n, path in blurs.items() if n in spikes or n not in ends}
    # No warning of sharp frames: sharp_data may hold those between the blurred ones too.
    warnings += leftovers(blurs, spikes)
    expected = f"a .dat of the same name in {split / kind / name}"
    return FoundSequence(
        seq=f"{split.name}/{name}",
        windows=pair_frames(
            inner or blurs, sharps, spikes, expected, centre=lambda n: n * INTERPOLATION
        ),
        exposure=EXPOSURE,
        fps=FPS,
        own_files=True,
        lead_samples=MARGIN,
        tail_samples=(MARGIN,),
        preset=_PRESETS[kind],
        spike_scale=_SCALES[kind],
        scene=name.split("_")[0],
        warnings=tuple(warnings),
    )
