"""X4K1000FPS with blur and spikes, as `simulate` writes it and Spk-X4K1000FPS is published.

    <root>/val_blurry_33/<group>/<clip>/0031.png
    <root>/val_spike_2xds/<group>/<clip>/spike.dat        one stream a clip, or
    <root>/val_spike_2xds_33/<group>/<clip>/0031.dat      one file an exposure
    <root>/val_fullRGB/<group>/<clip>/0031.png            sharp; all frames or only these

Names are frame numbers at 1000 frames a second. If any frame of a split, blurred or sharp, has an
interpolated name (`0031_002`), the whole split is interpolated to 4000 frames a second, since a
clip's only blurred frame may happen to have a plain name.
Where a clip has both a stream and files, the stream is read: it has spikes outside the exposures.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

from ...frames.listing import (
    IMAGE_SUFFIXES,
    names_are_interpolated,
    shorten,
    subfolders,
    walk_folders,
)
from ...spikes.dat import SPIKE_SUFFIXES
from ...spikes.presets import PRESETS
from .contract import AlignmentError, FoundSequence, in_order
from .pairing import index_frames, is_stream_name, leftovers, pair_frames

NAME = "x4k1000fps"
NEEDS = "<split>_blurry_<L>/ and <split>_spike_2xds/ or <split>_spike_2xds_<L>/"
VARIANTS = ()

DEFAULT_EXPOSURE = 33
RECORDED_FPS = 1000.0
INTERPOLATED_FPS = 4000.0
STREAM = "spike.dat"

# X-TRAIN, X-TEST and val as their makers publish them: sharp frames, or one video for each clip.
_RAW = (
    *(f"{split}/*/*/*.png" for split in ("train", "val", "test")),
    *(f"{top}/*/*.mp4" for top in ("encoded_*", "train", "val", "test")),
)

_BLUR = re.compile(r"(.+)_blurry_([1-9][0-9]{0,5})")
_SPIKES = re.compile(r"(.+)_spike_([1-9][0-9]?)xds(?:_([1-9][0-9]{0,5}))?")
# The two splits that the makers of Spk-X4K1000FPS publish, at the sizes that they chose.
_PUBLISHED = {"train": "spk-x4k-train", "val": "spk-x4k-val"}


def recognise(root: Path) -> str | None:
    """Return what in `root` shows this layout; None: nothing does."""
    names = _subfolders(root)
    blur, spikes = (next(filter(kind.fullmatch, names), None) for kind in (_BLUR, _SPIKES))
    return f"{blur}/ and {spikes}/" if blur and spikes else None


def find(root: Path, exposure: int | None, variant: str | None = None) -> list[FoundSequence]:
    """Return all clips of all splits, in order of `seq`."""
    exposure = DEFAULT_EXPOSURE if exposure is None else exposure
    blurs = list(filter(_BLUR.fullmatch, _subfolders(root)))
    if not blurs:
        require_not_raw(root)
        raise AlignmentError(
            f"{root}: expected {NEEDS} for the layout {NAME}, found "
            f"{shorten(_subfolders(root)) or 'no folders'}; give the folder that holds them"
        )
    splits = sorted({name.rpartition("_blurry_")[0] for name in blurs})
    for split in splits:
        if f"{split}_blurry_{exposure}" not in blurs:
            raise AlignmentError(
                f"{root}: expected {split}_blurry_{exposure} for --exposure {exposure}, found "
                f"{shorten(blurs)}; give the --exposure that is there"
            )
    sequences = (sequence for split in splits for sequence in _find_split(root, split, exposure))
    return in_order(root, NEEDS, sequences)


def require_not_raw(root: Path) -> None:
    """Refuse sharp high-speed frames alone, as X4K1000FPS is published.

    Raises:
        AlignmentError: names what was found and the command that makes blur and spikes of it.
    """
    paths = (path for pattern in _RAW for path in root.glob(pattern))
    raw = next((path for path in paths if path.parent.name not in ("blur", "sharp")), None)
    if raw is not None:
        clip = (raw if raw.suffix == ".mp4" else raw.parent).relative_to(root)
        raise AlignmentError(
            f"{root}: sharp high-speed frames as in X4K1000FPS ({clip}), without "
            f"blurred frames and spikes; make them with `spikedeblur simulate OUT --frames {root}` "
            "and align OUT"
        )


def _find_split(root: Path, split: str, exposure: int) -> list[FoundSequence]:
    blur_top = root / f"{split}_blurry_{exposure}"
    sharp_top = root / f"{split}_fullRGB"
    scale = _spike_scale(root, split, exposure)
    stream_top = root / f"{split}_spike_{scale}xds"
    window_top = root / f"{split}_spike_{scale}xds_{exposure}"

    blurred, sharp, streams, windowed = map(
        _files_below, (blur_top, sharp_top, stream_top, window_top)
    )
    clips = [
        clip
        for clip, names in blurred.items()
        if any(name.lower().endswith(IMAGE_SUFFIXES) for name in names)
    ]
    if not clips:
        raise AlignmentError(
            f"{blur_top}: expected <group>/<clip>/<centre>.png, found no images; add them"
        )
    if clips[0] == "":
        raise AlignmentError(
            f"{blur_top}: expected images in <group>/<clip>/, found {blurred[''][0]} at the top; "
            "put each clip in its own folder"
        )
    interpolated = names_are_interpolated(
        name.rpartition(".")[0] for clip in clips for name in blurred[clip] + sharp[clip]
    )
    orphans = [
        f"{top / clip}: no blurred frames of this clip; left out"
        for top, files in ((stream_top, streams), (window_top, windowed), (sharp_top, sharp))
        for clip in sorted(files.keys() - set(clips))
        if clip
    ]
    sequences = []
    for clip in clips:
        warnings: list[str] = []
        index = partial(index_frames, warnings=warnings, interpolated=interpolated)
        blurs = index(blur_top / clip, names=blurred[clip])
        sharps = index(sharp_top / clip, names=sharp[clip])
        stream = next(filter(is_stream_name, streams[clip]), None)
        own_files = stream is None
        if stream is None:
            spikes = index(window_top / clip, names=windowed[clip], suffixes=SPIKE_SUFFIXES)
        else:
            spikes = dict.fromkeys(blurs, stream_top / clip / stream)
            beside = [name for name in streams[clip] if not name.lower().endswith(SPIKE_SUFFIXES)]
            index(stream_top / clip, names=tuple(beside), suffixes=SPIKE_SUFFIXES)
        if not blurs:
            orphans += warnings
            orphans.append(f"{blur_top / clip}: no frame in it has a frame's name; left out")
            continue
        expected = f"{stream_top}/{clip}/{STREAM} or a .dat of the same name in {window_top}/{clip}"
        windows = pair_frames(blurs, sharps, spikes, expected)
        if own_files:
            warnings += leftovers(blurs, spikes)
        sequences.append(
            FoundSequence(
                seq=f"{split}/{clip}",
                windows=windows,
                exposure=exposure,
                fps=INTERPOLATED_FPS if interpolated else RECORDED_FPS,
                own_files=own_files,
                preset=PRESETS[_PUBLISHED[split]] if interpolated and split in _PUBLISHED else None,
                spike_scale=scale,
                warnings=tuple(warnings),
            )
        )
    if not sequences:
        raise AlignmentError(
            f"{blur_top}: expected names such as 0031.png, {shorten(orphans)}; rename them"
        )
    sequences[0] = replace(sequences[0], warnings=(*sequences[0].warnings, *orphans))
    return sequences


def _spike_scale(root: Path, split: str, exposure: int) -> int:
    """Return k of the one `<split>_spike_<k>xds` that fits."""
    matches = [match for match in map(_SPIKES.fullmatch, _subfolders(root)) if match]
    matches = [match for match in matches if match[1] == split]
    scales = {int(match[2]) for match in matches if match[3] in (None, str(exposure))}
    if len(scales) == 1:
        return scales.pop()
    names = shorten([match[0] for match in matches]) or "none"
    names += f"; add the spikes of exposure {exposure}"
    if scales:
        sizes = ", ".join(f"{split}_spike_{scale}xds" for scale in sorted(scales))
        names = f"{sizes}; keep one in this folder"
    raise AlignmentError(
        f"{root}: expected one spike size for {split}, {split}_spike_2xds or "
        f"{split}_spike_2xds_{exposure}, found {names}"
    )


def _files_below(top: Path) -> defaultdict[str, tuple[str, ...]]:
    """Return the names of the files in each folder below `top`, by the folder's path from `top`."""
    files: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    if top.is_dir():
        start = len(str(top)) + 1
        files.update(
            (str(folder)[start:], names) for folder, _, names in walk_folders(top) if names
        )
    return files


def _subfolders(root: Path) -> list[str]:
    return [path.name for path in subfolders(root)]
