"""Spk-GoPro: GOPRO_Large with simulated spikes, as published with SpkDeblurNet.

    <root>/GOPRO_Large/<split>/GOPR0372_07_00/blur_gamma/000047.png     or blur/
    <root>/GOPRO_Large/<split>/GOPR0372_07_00/sharp/000047.png
    <root>/GOPRO_Large_spike_seq/<split>/GOPR0372_07_00/spike/000047.dat

The number yy between underscores says how many sharp frames, 240 a second, make a blurred one. A
file holds 8 yy spike samples: samples 0 to 8 (yy - 1) are the exposure, and sample 8 (yy // 2) is
at the sharp frame. The last file of a sequence may end with the exposure, 7 samples shorter.
Published loaders centre the exposure at the file's middle instead, 2.1 ms late.
Blurred frames follow each other without gap, so frame n is centred at n yy + yy // 2.
Sequences cut from one recording, such as GOPR0372, are one scene.
"""

from __future__ import annotations

import re
from pathlib import Path

from ...frames.listing import subfolders
from ...host.reporter import counted
from ...spikes.dat import SPIKE_SUFFIXES
from ...spikes.presets import PRESETS
from .contract import AlignmentError, FoundSequence, choose_variant, in_order
from .pairing import index_frames, leftovers, pair_frames

NAME = "spk-gopro"
NEEDS = "GOPRO_Large/ beside GOPRO_Large_spike_seq/"

FPS = 240.0
IMAGES = "GOPRO_Large"
SPIKES = "GOPRO_Large_spike_seq"
GT, BLURRED = "_GT", "_GT_blurred"
"""Endings of a split's folders in the layout s-vrt-gopro."""
# The published kind first. Results on the two do not compare, so all sequences have the same.
VARIANTS = ("blur_gamma", "blur")

_NAME = re.compile(r"GOPR[0-9]+_([0-9]{2})_[0-9]{2}")


def recognise(root: Path) -> str | None:
    """Return what in `root` shows this layout; None: nothing does."""
    if not ((root / IMAGES).is_dir() and (root / SPIKES).is_dir()):
        return None
    if blurred_folders(root) and not any((clip / "sharp").is_dir() for clip in _clips(root)):
        return None  # the layout s-vrt-gopro, whose scripts move frames out of these folders
    return f"{IMAGES}/ and {SPIKES}/"


def find(root: Path, exposure: int | None, variant: str | None = None) -> list[FoundSequence]:
    """Return all sequences in order of `seq`; the exposure comes from each sequence's name."""
    folders = _clips(root)
    kind = choose_variant(root / IMAGES, folders, VARIANTS, variant)
    sequences = (
        find_clip(root, folder.parent.name, folder / kind, folder / "sharp", kind, exposure)
        for folder in folders
    )
    return in_order(root, f"{NEEDS}, with <split>/<sequence>/ in both", sequences)


def blurred_folders(root: Path) -> list[Path]:
    """Return the folders `<split>_GT_blurred`, which the layout s-vrt-gopro has."""
    return [path for path in subfolders(root / IMAGES) if path.name.endswith(BLURRED)]


def _clips(root: Path) -> list[Path]:
    splits = [path for path in subfolders(root / IMAGES) if not path.name.endswith((GT, BLURRED))]
    return [clip for split in splits for clip in subfolders(split)]


def find_clip(
    root: Path, split: str, blur: Path, sharp: Path, kind: str, exposure: int | None
) -> FoundSequence:
    """Return one sequence.

    Args:
        root: the data set's folder.
        split: train or test.
        blur: folder of the blurred frames.
        sharp: folder of the sharp frames; it or its parent has the sequence's name.
        kind: how the blurred frames were averaged, blur or blur_gamma.
        exposure: what the user says of the exposure; None: nothing.

    Raises:
        AlignmentError: a name without an odd number of averaged frames, or another exposure.
    """
    folder = sharp.parent if sharp.name == "sharp" else sharp
    match = _NAME.fullmatch(folder.name)
    if match is None or int(match[1]) % 2 == 0:
        raise AlignmentError(
            f"{folder}: expected a name such as GOPR0372_07_00, with an odd number of averaged "
            "frames in the middle; rename the folder or move it away"
        )
    averaged = int(match[1])
    if exposure not in (None, averaged):
        raise AlignmentError(
            f"{folder}: its name says an exposure of {counted(averaged, 'frame')}, --exposure says "
            f"{exposure}; leave --exposure out, as it differs by sequence"
        )
    spike_folder = root / SPIKES / split / folder.name / "spike"
    warnings: list[str] = []
    blurs = index_frames(blur, warnings, example="000047.png")
    sharps = index_frames(sharp, warnings)
    spikes = index_frames(spike_folder, warnings, suffixes=SPIKE_SUFFIXES)
    expected = f"a .dat of the same name in {spike_folder}"
    return FoundSequence(
        seq=f"{split}/{folder.name}",
        windows=pair_frames(
            blurs, sharps, spikes, expected, centre=lambda n: n * averaged + averaged // 2
        ),
        exposure=averaged,
        fps=FPS,
        own_files=True,
        tail_samples=(7, 0),
        preset=PRESETS["spk-gopro"],
        blur_kind=kind,
        scene=folder.name.split("_")[0],
        warnings=(*warnings, *leftovers(blurs, spikes, sharps)),
    )
