"""Spk-GoPro: GOPRO_Large with simulated spikes, as published with SpkDeblurNet.

    <root>/GOPRO_Large/<split>/GOPR0372_07_00/blur_gamma/000047.png     or blur/
    <root>/GOPRO_Large/<split>/GOPR0372_07_00/sharp/000047.png
    <root>/GOPRO_Large_spike_seq/<split>/GOPR0372_07_00/spike/000047.dat

The number between underscores says how many sharp frames yy, at 240 a second, make a blurred
one. A file holds 8 yy spike samples, of which 0 to 8 (yy - 1) are the exposure and 8 (yy // 2)
is the sharp frame; the last file of a sequence may end with the exposure, 7 samples shorter.
Published loaders centre at the file's middle instead, 2.1 ms late.
One recording, GOPR0372, was cut into several sequences: they are one scene.
Blurred frames follow each other without gap, so frame n is centred at n yy + yy // 2.
"""

from __future__ import annotations

import re
from pathlib import Path

from ...frames.listing import IMAGE_SUFFIXES, folder_names
from ...spikes.presets import PRESETS
from .contract import AlignmentError, FoundSequence, index_frames, leftovers, pair_frames

NAME = "spk-gopro"
NEEDS = "GOPRO_Large/ beside GOPRO_Large_spike_seq/"

FPS = 240.0
IMAGES = "GOPRO_Large"
SPIKES = "GOPRO_Large_spike_seq"
# The published one first. Results on the two do not compare, so all sequences have the same.
VARIANTS = ("blur_gamma", "blur")

_NAME = re.compile(r"GOPR[0-9]+_([0-9]{2})_[0-9]{2}")


def recognise(root: Path) -> str | None:
    """Return what in `root` shows this layout, or None."""
    if (root / IMAGES).is_dir() and (root / SPIKES).is_dir():
        return f"{IMAGES}/ and {SPIKES}/"
    return None


def find(root: Path, exposure: int | None, variant: str | None = None) -> list[FoundSequence]:
    """Return all sequences, by seq; the exposure comes from each sequence's name."""
    if recognise(root) is None:
        raise AlignmentError(
            f"{root}: expected {NEEDS} for the layout {NAME}; give the folder that holds both"
        )
    folders = [path for path in (root / IMAGES).glob("*/*/") if not path.name.startswith(".")]
    if not folders:
        raise AlignmentError(f"{root / IMAGES}: expected <split>/<sequence>/, found none")
    wanted = VARIANTS if variant is None else (variant,)
    kind = next((v for v in wanted if all((path / v).is_dir() for path in folders)), None)
    if kind is None:
        raise AlignmentError(
            f"{root / IMAGES}: expected {' or '.join(wanted)} in every sequence, one kind for "
            "all; complete them or move the others away"
        )
    found = [_find_sequence(root, folder, kind, exposure) for folder in folders]
    return sorted(found, key=lambda sequence: sequence.seq)


def _find_sequence(root: Path, folder: Path, kind: str, exposure: int | None) -> FoundSequence:
    match = _NAME.fullmatch(folder.name)
    if match is None or int(match[1]) % 2 == 0:
        raise AlignmentError(
            f"{folder}: expected a name such as GOPR0372_07_00, with an odd number of averaged "
            "frames in the middle; rename the folder or move it away"
        )
    averaged = int(match[1])
    if exposure not in (None, averaged):
        raise AlignmentError(
            f"{folder}: its name says an exposure of {averaged} frames, --exposure says "
            f"{exposure}; leave --exposure out, as it differs by sequence"
        )
    split = folder.parent.name
    blur_folder = folder / kind
    spike_folder = root / SPIKES / split / folder.name / "spike"
    blurs, warnings = index_frames(blur_folder, folder_names(blur_folder), IMAGE_SUFFIXES)
    sharps, more = index_frames(folder / "sharp", folder_names(folder / "sharp"), IMAGE_SUFFIXES)
    spikes, others = index_frames(spike_folder, folder_names(spike_folder), (".dat",))
    warnings += more + others
    if not blurs:
        raise AlignmentError(f"{blur_folder}: expected images such as 000047.png, found none")
    windows = pair_frames(
        blurs,
        sharps,
        spikes,
        f"a .dat of the same name in {spike_folder}",
        centre=lambda n: n * averaged + averaged // 2,
    )
    return FoundSequence(
        seq=f"{split}/{folder.name}",
        windows=windows,
        exposure=averaged,
        fps=FPS,
        own_files=True,
        tail_samples=(7, 0),
        preset=PRESETS["spk-gopro"],
        blur_kind=kind,
        scene=folder.name.split("_")[0],
        warnings=(*warnings, *leftovers(blurs, spikes, sharps)),
    )
