"""S-VRT GoPro: Spk-GoPro with its frames in the folders that VRT's training scripts make.

    <root>/GOPRO_Large/train_GT_blurred/GOPR0372_07_00/000047.png
    <root>/GOPRO_Large/train_GT/GOPR0372_07_00/000047.png                      sharp
    <root>/GOPRO_Large_spike_seq/train/GOPR0372_07_00/spike/000047.dat

Only the folders differ: numbers, exposures and spikes are as `spk_gopro` says. The scripts take the
frames of the folders `blur` and `sharp`, so the blur is the linear average.
"""

from __future__ import annotations

from pathlib import Path

from ...frames.listing import subfolders
from .contract import FoundSequence, in_order
from .spk_gopro import BLURRED, GT, IMAGES, SPIKES, blurred_folders, find_clip

NAME = "s-vrt-gopro"
NEEDS = f"{IMAGES}/<split>{BLURRED}/ and {IMAGES}/<split>{GT}/ beside {SPIKES}/"
VARIANTS = ()

BLUR_KIND = "blur"


def recognise(root: Path) -> str | None:
    """Return what in `root` shows this layout; None: nothing does."""
    folders = blurred_folders(root)
    if folders and (root / SPIKES).is_dir():
        return f"{IMAGES}/{folders[0].name}/ and {SPIKES}/"
    return None


def find(root: Path, exposure: int | None, variant: str | None = None) -> list[FoundSequence]:
    """Return all sequences in order of `seq`; the exposure comes from each sequence's name."""
    sequences = []
    for folder in blurred_folders(root):
        split = folder.name.removesuffix(BLURRED)
        sharp = root / IMAGES / f"{split}{GT}"
        sequences += [
            find_clip(root, split, clip, sharp / clip.name, BLUR_KIND, exposure)
            for clip in subfolders(folder)
        ]
    return in_order(root, f"{NEEDS}, with <sequence>/ in each", sequences)
