"""Clips to record: folders of sharp frames, videos, or embedded scenes.

<folder>/<split>/<group>/<clip>/0000.png ...       X4K1000FPS, decoded
<folder>/encoded_<split>/<group>/<clip>.mp4        as it is downloaded; also <split>/...
"""

from __future__ import annotations

import hashlib
import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import SpikeDeblurError
from ..frames.colours import read_srgb
from ..frames.images import RGB, ImageError, image_shape
from ..frames.listing import (
    FrameFiles,
    folder_names,
    left_out_around,
    list_frames,
    subfolders,
)
from ..frames.video import (
    VIDEO_SUFFIX,
    VideoError,
    count_frames,
    read_video,
    video_colours,
    video_shape,
)
from ..host.reporter import SILENT, Reporter
from . import display
from .scenes import render_scene

SPLITS = ("train", "val", "test")

EXTENDED = 1000
"""Number of the first frame that the extended X-TEST adds to a clip; they are 32 apart."""

_MAX_SCENES = 100_000
"""Most scenes of a split, since their names have five digits."""

_FASTEST = 8
"""Largest speed of a scene, which takes 19 times as long to render as speed 1, and more memory."""


class SimulateError(SpikeDeblurError):
    """Frames or settings from which no recording can be simulated."""


@dataclass(frozen=True, slots=True)
class SourceClip:
    """A clip's name, and where its sharp frames come from."""

    seq: str
    """Name of the clip, `<split>/<group>/<clip>`."""
    frames: tuple[Path, ...] = ()
    """Consecutive frame files, or one video; empty for an embedded scene."""
    first: int = 0
    """Number of the first frame."""
    size: tuple[int, int] = (0, 0)
    """(H, W) of an embedded scene, in pixels."""
    length: int = 0
    """Frames of a video or an embedded scene."""
    fastest: float = 1.0
    """Largest speed of an embedded scene, in the usual speed."""

    @property
    def n_frames(self) -> int:
        """Frames in the clip."""
        return self.length or len(self.frames)

    @property
    def is_video(self) -> bool:
        """Whether `frames` is one video."""
        return bool(self.frames) and self.frames[0].suffix.lower() == VIDEO_SUFFIX

    @property
    def is_display(self) -> bool:
        """Whether the clip is an embedded scene for the eye."""
        return not self.frames and self.seq.startswith(f"{display.SPLIT}/")

    def shape(self) -> tuple[int, int]:
        """Return (H, W) of the first frame, from its header."""
        if self.is_video:
            return video_shape(self.frames[0])
        return image_shape(self.frames[0]) if self.frames else self.size

    def render(self, seed: int) -> Iterator[RGB]:
        """Yield the clip's frames (H, W, 3) uint8 sRGB."""
        if not self.frames:
            random = rng(seed, self.seq, "scene")
            if self.is_display:
                yield from display.render_display(random, self.size, self.length)
            else:
                yield from render_scene(random, self.size, self.length, self.fastest)
        elif self.is_video:
            if not (colours := video_colours(self.frames[0])).are_srgb:
                raise VideoError(
                    f"{self.frames[0]}: expected colours near sRGB, such as BT.709's, found "
                    f"{colours.describe()}; convert the video to BT.709"
                )
            yield from read_video(self.frames[0], self.length)
        else:
            shape = None
            for path in self.frames:
                frame = read_srgb(path, shape)
                shape = frame.shape[:2]
                yield frame

    def frames_sha256(self) -> str | None:
        """Return the hex SHA-256 of all frame files in order; None: an embedded scene."""
        if not self.frames:
            return None
        digest = hashlib.sha256()
        for path in self.frames:
            digest.update(path.read_bytes())
        return digest.hexdigest()


def scene_clips(
    split: str, scenes: int, size: tuple[int, int], length: int, fastest: float = 1.0
) -> list[SourceClip]:
    """Return embedded scenes of one split, each made from its name and the rig's seed.

    Args:
        split: train, val, test, or show: scenes for the eye, with lettering, of one speed.
        scenes: number of scenes.
        size: (H, W) in pixels.
        length: frames of a scene.
        fastest: largest speed, in the usual speed; each scene's is drawn between 1 and this.

    Raises:
        SimulateError: a number, size or speed out of range.
    """
    if not 1 <= fastest <= _FASTEST:
        raise SimulateError(f"expected --fastest of 1 to {_FASTEST}, got {fastest:g}")
    if not 1 <= scenes <= _MAX_SCENES:
        raise SimulateError(
            f"expected --scenes of 1 to {_MAX_SCENES}, got {scenes}; take another --seed and "
            "folder for more"
        )
    if min(size) < 16:
        raise SimulateError(f"expected --size of at least 16x16, got {size[0]}x{size[1]}")
    return [
        SourceClip(seq=f"{split}/scenes/{i:05d}", size=size, length=length, fastest=fastest)
        for i in range(scenes)
    ]


def folder_clips(
    folder: Path, splits: tuple[str, ...] = SPLITS, reporter: Reporter = SILENT
) -> list[SourceClip]:
    """Return X4K1000FPS's clips: frames `folder/<split>/<group>/<clip>/0000.png...`, or videos.

    Where a clip is there as frames and as video, the frames are read.

    Args:
        folder: folder that holds the splits.
        splits: names of the splits to look for.
        reporter: hears in notes which frames are left out.

    Raises:
        SimulateError: no clip, or frames missing inside one.
        VideoError: a video that can't be read, or no PyAV to read it with.
    """
    clips: dict[str, SourceClip] = {}
    for split in splits:
        for path in (path for group in subfolders(folder / split) for path in subfolders(group)):
            listed = list_frames(path, interpolated=False)
            if not listed.frames and not listed.unnamed:
                raise SimulateError(
                    f"{path}: expected frames 0000.png, 0001.png, ..., found no PNG, JPEG, BMP or "
                    "TIFF; remove the folder or put the frames there"
                )
            seq = f"{split}/{path.parent.name}/{path.name}"
            clips[seq] = _frames_clip(seq, listed, reporter)
        for top in (f"encoded_{split}", split):
            for path in _videos_below(folder / top, reporter):
                seq = f"{split}/{path.parent.name}/{path.stem}"
                if seq not in clips:
                    clips[seq] = SourceClip(seq=seq, frames=(path,), length=count_frames(path))
    if not clips:
        raise SimulateError(
            f"{folder}: expected frames at {'|'.join(splits)}/<group>/<clip>/0000.png, or videos "
            "encoded_<split>/<group>/<clip>.mp4, found none; check the folder, or take --scenes "
            "for embedded scenes"
        )
    for sentence in left_out_around(
        folder, (path for clip in clips.values() for path in clip.frames)
    ):
        reporter.note(sentence)
    return list(clips.values())


def _videos_below(top: Path, reporter: Reporter) -> Iterator[Path]:
    """Yield the videos of a split's groups, and note what else lies beside them."""
    for group in subfolders(top):
        names = folder_names(group)
        videos = [name for name in names if name.lower().endswith(VIDEO_SUFFIX)]
        yield from (group / name for name in videos)
        others = [name for name in names if name not in videos]
        if videos:
            for sentence in list_frames(group, names=others, suffixes=()).left_out():
                reporter.note(sentence)


def _frames_clip(seq: str, listed: FrameFiles, reporter: Reporter) -> SourceClip:
    if listed.unnamed:
        path = listed.unnamed[0]
        raise ImageError(
            f"{path}: expected a frame number as name, such as 0000.png, got {path.stem!r}; "
            "rename it"
        )
    for sentence in listed.left_out():
        reporter.note(sentence)
    numbers = list(listed.frames)
    folder = listed.frames[numbers[0]].parent
    if not _consecutive(numbers):
        recorded = [number for number in numbers if number < EXTENDED]
        apart = {b - a for a, b in itertools.pairwise(numbers[len(recorded) :])}
        if apart == {32} and not recorded:
            raise SimulateError(
                f"{folder}: frames are 32 apart, as in the extended X-TEST; a blur can't be "
                "averaged over what is missing between them, so take the clips of X-TEST itself"
            )
        if apart <= {32} and recorded and _consecutive(recorded):
            reporter.note(
                f"{seq}: frames from {numbers[len(recorded)]} on, of the extended X-TEST, left out"
            )
            numbers = recorded
    first = numbers[0]
    if not _consecutive(numbers):
        gap = next(i for i in range(first, numbers[-1] + 1) if i not in listed.frames)
        raise SimulateError(
            f"{folder}: expected consecutive frames, but frame {gap} is missing; a blur can't be "
            "averaged over a gap"
        )
    chosen = tuple(listed.frames[number] for number in numbers)
    return SourceClip(seq=seq, frames=chosen, first=first)


def _consecutive(numbers: list[int]) -> bool:
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def rng(seed: int, seq: str, purpose: str) -> np.random.Generator:
    """Return the random generator of one clip's scene or camera, whatever other clips there are."""
    return np.random.default_rng([seed, zlib.crc32(seq.encode()), zlib.crc32(purpose.encode())])
