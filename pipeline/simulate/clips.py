"""Clips to be recorded: folders of sharp frames, videos of them, or embedded scenes.

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
import numpy.typing as npt

from ...errors import SpikeDeblurError
from ..frames.images import ImageError, image_shape, read_rgb
from ..frames.listing import list_images
from ..frames.video import VIDEO_SUFFIX, count_frames, read_video, video_shape
from ..host.reporter import SILENT, Reporter
from .scenes import render_scene

SPLITS = ("train", "val", "test")

EXTENDED = 1000
"""Number from which the frames of the extended X-TEST are counted; they are 32 apart."""

_MAX_SCENES = 100_000

_FASTEST = 8
"""Rendering a scene of this speed takes 19 times as long as one of speed 1, and its memory."""

RGB = npt.NDArray[np.uint8]


class SimulateError(SpikeDeblurError):
    """Frames or settings from which no recording can be simulated."""


@dataclass(frozen=True, slots=True)
class SourceClip:
    """One task: a clip's place in the data set and where its frames come from."""

    seq: str
    """`<split>/<group>/<clip>`."""
    frames: tuple[Path, ...] = ()
    """Consecutive frame files, or one video; empty for an embedded scene."""
    first: int = 0
    """Number of the first frame."""
    size: tuple[int, int] = (0, 0)
    """(H, W) of an embedded scene."""
    length: int = 0
    """Frames of a video or an embedded scene."""
    fastest: float = 1.0
    """How many times as fast as usual an embedded scene may move."""

    @property
    def n_frames(self) -> int:
        """Frames in the clip."""
        return self.length or len(self.frames)

    @property
    def is_video(self) -> bool:
        """Whether `frames` is one video."""
        return bool(self.frames) and self.frames[0].suffix.lower() == VIDEO_SUFFIX

    def shape(self) -> tuple[int, int]:
        """Return (H, W) of the first frame; reads no more than its header."""
        if self.is_video:
            return video_shape(self.frames[0])
        return image_shape(self.frames[0]) if self.frames else self.size

    def render(self, seed: int) -> Iterator[RGB]:
        """Yield the clip's frames (H, W, 3) uint8."""
        if not self.frames:
            random = rng(seed, self.seq, "scene")
            yield from render_scene(random, self.size, self.length, self.fastest)
            return
        if self.is_video:
            yield from read_video(self.frames[0], self.length)
            return
        first = read_rgb(self.frames[0])
        yield first
        for path in self.frames[1:]:
            yield read_rgb(path, first.shape[:2])

    def frames_sha256(self) -> str | None:
        """Return the hex SHA-256 of the frame files, one after the other; None: no files."""
        if not self.frames:
            return None
        digest = hashlib.sha256()
        for path in self.frames:
            digest.update(path.read_bytes())
        return digest.hexdigest()


def scene_clips(
    split: str, scenes: int, size: tuple[int, int], length: int, fastest: float = 1.0
) -> list[SourceClip]:
    """Plan `scenes` embedded scenes of one split; each is made from its name and the seed.

    Each moves at a speed drawn between the usual one and `fastest` times it.
    """
    if not 1 <= fastest <= _FASTEST:
        raise SimulateError(f"expected a speed of 1 to {_FASTEST}, got {fastest:g}")
    if scenes < 1 or min(size) < 16:
        raise SimulateError(
            f"expected at least one scene of at least 16x16 pixels, got {scenes} of "
            f"{size[0]}x{size[1]}"
        )
    if scenes > _MAX_SCENES:
        raise SimulateError(
            f"expected at most {_MAX_SCENES} scenes, since their names have five digits, got "
            f"{scenes}; take another --seed and folder for more"
        )
    return [
        SourceClip(seq=f"{split}/scenes/{i:05d}", size=size, length=length, fastest=fastest)
        for i in range(scenes)
    ]


def folder_clips(
    folder: Path, splits: tuple[str, ...] = SPLITS, reporter: Reporter = SILENT
) -> list[SourceClip]:
    """Find X4K1000FPS clips: frames `folder/<split>/<group>/<clip>/0000.png...`, or videos.

    A clip that is there as frames and as video is taken from its frames.

    Args:
        folder: holds the splits.
        splits: those to look for.
        reporter: hears in notes which frames are left out.

    Raises:
        SimulateError: no clip there, or frames missing inside one.
        VideoError: a video that can't be read, or no PyAV to read it with.
    """
    clips: list[SourceClip] = []
    for split in splits:
        for path in sorted(folder.glob(f"{split}/*/*/")):
            frames = list_images(path)
            if not frames:
                raise SimulateError(
                    f"{path}: expected frames 0000.png, 0001.png, ..., found no PNG, JPEG or BMP; "
                    "remove the folder or put the frames there"
                )
            clips.append(_frames_clip(f"{split}/{path.parent.name}/{path.name}", frames, reporter))
        decoded = {clip.seq for clip in clips}
        for top in (f"encoded_{split}", split):
            for path in sorted(folder.glob(f"{top}/*/*{VIDEO_SUFFIX}")):
                seq = f"{split}/{path.parent.name}/{path.stem}"
                if seq not in decoded:
                    clips.append(SourceClip(seq=seq, frames=(path,), length=count_frames(path)))
                    decoded.add(seq)
    if not clips:
        raise SimulateError(
            f"{folder}: expected frames at {'|'.join(splits)}/<group>/<clip>/0000.png, or videos "
            "encoded_<split>/<group>/<clip>.mp4, found none; check the folder, or take --scenes "
            "for embedded scenes"
        )
    return clips


def _frames_clip(seq: str, frames: list[Path], reporter: Reporter) -> SourceClip:
    numbered = sorted((_frame_number(frame), frame) for frame in frames)
    numbers = [number for number, _ in numbered]
    folder = frames[0].parent
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
            numbered, numbers = numbered[: len(recorded)], recorded
    first = numbers[0]
    if not _consecutive(numbers):
        gap = next(i for i in range(first, numbers[-1] + 1) if numbers.count(i) != 1)
        raise SimulateError(
            f"{folder}: expected consecutive frames, one each, but frame {gap} is there "
            f"{numbers.count(gap)} times; a blur can't be averaged over a gap"
        )
    return SourceClip(seq=seq, frames=tuple(frame for _, frame in numbered), first=first)


def _consecutive(numbers: list[int]) -> bool:
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _frame_number(path: Path) -> int:
    if not path.stem.isdecimal():
        raise ImageError(
            f"{path}: expected a frame number as name, such as 0000.png, got {path.stem!r}"
        )
    return int(path.stem)


def rng(seed: int, seq: str, purpose: str) -> np.random.Generator:
    """Return the generator of one clip's scene or camera, which depends on its name alone."""
    return np.random.default_rng([seed, zlib.crc32(seq.encode()), zlib.crc32(purpose.encode())])
