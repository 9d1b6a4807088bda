"""Sharp frames from a video file, such as those that X4K1000FPS is downloaded as.

Needs PyAV, the extra `video`. Colours are converted as FFmpeg does by default: by the matrix and
range that the stream names, BT.601 and limited range where it names none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import SpikeDeblurError

if TYPE_CHECKING:
    from av.container import InputContainer

VIDEO_SUFFIX = ".mp4"

RGB = npt.NDArray[np.uint8]


class VideoError(SpikeDeblurError):
    """A video can't be read, or is of a kind whose pixels would have to be guessed."""


def count_frames(path: Path) -> int:
    """Return the number of frames that the file's index has; decodes nothing.

    Raises:
        VideoError: missing, not a video, or no PyAV.
    """
    with _opened(path) as video:
        stream = video.streams.video[0]
        return stream.frames or sum(packet.size > 0 for packet in video.demux(stream))


def video_shape(path: Path) -> tuple[int, int]:
    """Return (H, W) in pixels. Raises as `count_frames` does."""
    with _opened(path) as video:
        return video.streams.video[0].height, video.streams.video[0].width


def read_video(path: Path, n_frames: int) -> Iterator[RGB]:
    """Yield the frames (H, W, 3) uint8 RGB, in order of time, one at a time in memory.

    Args:
        path: the file.
        n_frames: frames that it must have, as `count_frames` says.

    Raises:
        VideoError: not that many frames can be decoded, more than 8 bits, or rotated.
    """
    read = 0
    with _opened(path) as video:
        for frame in video.decode(video=0):
            if frame.format.components[0].bits > 8:
                raise VideoError(
                    f"{path}: expected 8 bits a channel, found {frame.format.name}; convert it to "
                    "8 bits, with the gamma that you mean"
                )
            if frame.rotation:
                raise VideoError(
                    f"{path}: its metadata rotate it by {frame.rotation} degrees, which does not "
                    "fit spikes; store the pixels upright"
                )
            read += 1
            yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    if read != n_frames:
        raise VideoError(
            f"{path}: expected the {n_frames} frames of its index, decoded {read}; the file is "
            "cut or damaged: download it again"
        )


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    av = _pyav(path)
    try:
        with av.open(str(path)) as video:
            if not video.streams.video:
                raise VideoError(f"{path}: expected a video, found none in the file")
            yield video
    except av.FFmpegError as error:
        raise VideoError(f"{path}: can't read the video ({error.strerror}); restore it") from error


def _pyav(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise VideoError(
            f"{path}: reading videos needs PyAV; install spikedeblur[video], or decode the clip "
            "to frames 0000.png, 0001.png, ..."
        ) from error
    return av
