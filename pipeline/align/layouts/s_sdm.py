"""S-SDM GOPRO: GOPRO_Large_all interpolated eightfold, as published with S-SDM.

    <root>/<split>/blur_data/GOPR0372_07_00/000019.png
    <root>/<split>/sharp_data/GOPR0372_07_00/000019.png
    <root>/<split>/spike_data/GOPR0372_07_00/000019.dat    180x320, or spike_full/ of 720x1280

A blurred frame averages 97 interpolated frames, 1920 a second: 13 of the 240 that were recorded.
Names count recorded frames, so the middle of 000019 is interpolated frame 152, and the next
exposure begins 7 frames after this one ends: names go 6, 19, 32. Each spike file has 20 samples
more on both sides, so the first blurred frame of a sequence, and often the last, has none.
"""

from __future__ import annotations

from pathlib import Path

from ...frames.listing import IMAGE_SUFFIXES, folder_names, shorten
from ...spikes.presets import PRESETS
from .contract import AlignmentError, FoundSequence, index_frames, leftovers, pair_frames

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
    """Return what in `root` shows this layout, or None."""
    for blur in sorted(root.glob(f"*/{BLUR}")):
        there = [name for name in VARIANTS if (blur.parent / name).is_dir()]
        if there:
            return f"{blur.parent.name}/{BLUR}/ and {blur.parent.name}/{there[0]}/"
    return None


def find(root: Path, exposure: int | None, variant: str | None = None) -> list[FoundSequence]:
    """Return all sequences of all splits, by seq."""
    if exposure not in (None, EXPOSURE):
        raise AlignmentError(
            f"{root}: the layout {NAME} has exposures of {EXPOSURE} frames, --exposure says "
            f"{exposure}; leave --exposure out"
        )
    splits = sorted(path.parent for path in root.glob(f"*/{BLUR}") if path.is_dir())
    if not splits:
        raise AlignmentError(
            f"{root}: expected {NEEDS} for the layout {NAME}, found none; give the folder that "
            "holds the splits"
        )
    wanted = VARIANTS if variant is None else (variant,)
    kind = next((v for v in wanted if all((split / v).is_dir() for split in splits)), None)
    if kind is None:
        raise AlignmentError(
            f"{root}: no spikes for {', '.join(split.name for split in splits)}; expected "
            f"{' or '.join(wanted)} in every split, one kind for all"
        )
    found = [
        _find_sequence(split, folder.name, kind)
        for split in splits
        for folder in sorted((split / BLUR).iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    ]
    if not found:
        raise AlignmentError(f"{splits[0] / BLUR}: expected folders of sequences, found none")
    return sorted(found, key=lambda sequence: sequence.seq)


def _find_sequence(split: Path, name: str, kind: str) -> FoundSequence:
    def frames(top: str, suffixes: tuple[str, ...]) -> tuple[dict[int, Path], list[str]]:
        folder = split / top / name
        return index_frames(folder, folder_names(folder), suffixes)

    blurs, warnings = frames(BLUR, IMAGE_SUFFIXES)
    sharps, more = frames(SHARP, IMAGE_SUFFIXES)
    spikes, others = frames(kind, (".dat",))
    warnings += more + others
    if not blurs:
        raise AlignmentError(
            f"{split / BLUR / name}: expected images such as 000019.png, found "
            f"{shorten(warnings) or 'none'}"
        )
    inner = {n: path for n, path in blurs.items() if n in spikes or n not in _ends(blurs)}
    # sharp_data may hold the frames between too, so those without blurred frame mean nothing.
    warnings += leftovers(blurs, spikes)
    return FoundSequence(
        seq=f"{split.name}/{name}",
        windows=pair_frames(
            inner or blurs,
            sharps,
            spikes,
            f"a .dat of the same name in {split / kind / name}",
            centre=lambda n: n * INTERPOLATION,
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


def _ends(blurs: dict[int, Path]) -> tuple[int, int]:
    return min(blurs), max(blurs)
