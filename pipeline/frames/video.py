"""Frames from and to video files, such as those in which X4K1000FPS is published.

This needs PyAV, the extra `video`. Colours become RGB by the matrix and range that the stream
names, as FFmpeg does: BT.601 and limited range where it names none. What is written names its own:
BT.709, limited range, and sRGB.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import SpikeDeblurError
from ..host.extras import from_extra
from ..host.files import atomic_write, sha256_file
from ..host.locks import only_writer_of
from ..host.overwrite import require_free
from ..host.reading import open_file
from ..host.reporter import counted
from .colours import Colours, colours_of_video, read_srgb
from .images import RGB, image_shape, write_png

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

VIDEO_SUFFIX = ".mp4"

_MATRICES = (0, 1, 2, 4, 5, 6, 7, 9)  # of H.273, those by which FFmpeg makes RGB; 2: none is named
_BT709, _SRGB_TRANSFER, _LIMITED = 1, 13, 1


class VideoError(SpikeDeblurError):
    """A video can't be read, or is of a kind whose pixels would have to be guessed."""


def count_frames(path: Path) -> int:
    """Return the number of frames that the file holds; decodes nothing.

    Raises:
        VideoError: missing, not a video, no PyAV, or fewer frames than its index claims.
    """
    with _opened(path) as video:
        stream = _only_video(video, path)
        held = sum(packet.size > 0 for packet in video.demux(stream))
        if stream.frames > held:
            raise VideoError(
                f"{path}: expected the {counted(stream.frames, 'frame')} of its index, found "
                f"{held}; the file is cut or damaged; download it again"
            )
        return held


def video_shape(path: Path) -> tuple[int, int]:
    """Return (H, W) of a video, in pixels.

    Raises:
        VideoError: missing, not a video, or no PyAV.
    """
    with _opened(path) as video:
        stream = _only_video(video, path)
        return stream.height, stream.width


def video_colours(path: Path) -> Colours:
    """Return what the numbers of a video's frames mean, once they are RGB.

    Raises:
        VideoError: missing, not a video, or no PyAV.
    """
    with _opened(path) as video:
        codec = _only_video(video, path).codec_context
        return colours_of_video(int(codec.color_primaries), int(codec.color_trc))


def read_video(path: Path, n_frames: int) -> Iterator[RGB]:
    """Yield the frames (H, W, 3) uint8 RGB, in order of time, one at a time in memory.

    Args:
        path: the file.
        n_frames: frames that it must have, from `count_frames`.

    Raises:
        VideoError: not that many frames can be decoded, more than 8 bits, interlaced or rotated,
            transparent, or colours from which FFmpeg makes no RGB.
    """
    read = 0
    with _opened(path) as video:
        for frame in video.decode(_only_video(video, path)):
            if frame.format.components[0].bits > 8:
                raise VideoError(
                    f"{path}: expected 8 bits a channel, found {frame.format.name}; convert it to "
                    "8 bits, with the gamma that you mean"
                )
            if frame.interlaced_frame:
                raise VideoError(
                    f"{path}: expected whole frames, found an interlaced video, whose rows were "
                    "exposed at two instants; record progressive video, or separate its fields"
                )
            if frame.rotation:
                raise VideoError(
                    f"{path}: its metadata rotate it by {frame.rotation} degrees, which does not "
                    "fit spikes; store the pixels upright"
                )
            if int(frame.colorspace) not in _MATRICES or len(frame.format.components) == 4:
                raise VideoError(
                    f"{path}: expected opaque RGB or YCbCr, found {frame.format.name} with matrix "
                    f"{int(frame.colorspace)} of H.273; convert it to BT.709"
                )
            read += 1
            yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    if read != n_frames:
        raise VideoError(
            f"{path}: expected the {counted(n_frames, 'frame')} of its index, decoded {read}; the "
            "file is cut or damaged; download it again"
        )


def read_stamps(path: Path) -> tuple[float, ...]:
    """Return the time stamps of a video's frames, in seconds from the first; decodes nothing.

    Raises:
        VideoError: missing, not a video, no PyAV, or frames without stamps or with equal ones.
    """
    with _opened(path) as video:
        stream = _only_video(video, path)
        packets = [p for p in video.demux(stream) if p.size > 0 and not p.is_discard]
        unit = stream.time_base
    stamps = sorted(p.pts for p in packets if p.pts is not None)
    if not packets or len(stamps) < len(packets) or unit is None:
        raise VideoError(
            f"{path}: expected a time stamp of each frame, found {len(stamps)} for "
            f"{counted(len(packets), 'frame')}; give --times FILE.csv and a folder of its frames"
        )
    same = next((i for i, (a, b) in enumerate(itertools.pairwise(stamps)) if a == b), None)
    if same is not None:
        raise VideoError(
            f"{path}: expected ascending time stamps, found frames {same} and {same + 1} at "
            f"{float(stamps[same] * unit):.6f} s both; give --times FILE.csv and a folder of its "
            "frames"
        )
    return tuple(float((stamp - stamps[0]) * unit) for stamp in stamps)


def decoded_files(path: Path, folder: Path, numbers: Sequence[int]) -> list[Path]:
    """Return where a video's frames will be: `<folder>/blurred-<hash>-<first>-<step>/<n>.png`.

    Other numbers are another folder, so that no frame is taken for one of another number.

    Args:
        path: the video.
        folder: the folder above that of the frames.
        numbers: number of each frame, evenly spaced.
    """
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 0
    name = f"blurred-{sha256_file(path)[:12]}-{numbers[0]}-{step}" if numbers else "blurred"
    return [folder / name / f"{number:06d}.png" for number in numbers]


def decode_frames(path: Path, files: Sequence[Path], wanted: Sequence[Path] | None = None) -> None:
    """Write a video's frames to files; those that are there are kept, so a stopped run goes on.

    Args:
        path: the video.
        files: a PNG for each of its frames.
        wanted: those that are needed, the last of which ends the decoding; None: all.

    Raises:
        VideoError: the video can't be decoded, has more than 8 bits, or is interlaced or rotated.
    """
    missing = {file for file in (files if wanted is None else wanted) if not file.is_file()}
    if missing:
        colours = video_colours(path).chunks()
        for file, frame in zip(files, read_video(path, len(files)), strict=True):
            if file in missing:
                write_png(file, frame, colours)
                missing.remove(file)
            if not missing and wanted is not None:
                break


def decode_to_folder(path: Path, out: Path, first: int, step: int) -> Path:
    """Write a video's frames to a folder, which is returned.

    Commands use `decode_frames`; this stays as long as its former name is served.

    Args:
        path: the video.
        out: the folder above that of the frames.
        first: number of the first frame.
        step: difference of the numbers of consecutive frames.

    Raises:
        VideoError: as `decode_frames`.
    """
    numbers = range(first, first + step * count_frames(path), step)
    files = decoded_files(path, out, numbers)
    decode_frames(path, files)
    return files[0].parent


def require_new_video(path: Path, *, overwrite: bool) -> None:
    """Refuse a video that can't be written, before any work is done.

    Raises:
        VideoError: another ending, or no PyAV.
        OverwriteError: a file is there.
    """
    _pyav(path)
    if path.suffix != VIDEO_SUFFIX:
        raise VideoError(f"{path}: expected a name that ends in {VIDEO_SUFFIX}; change it")
    require_free(path, overwrite=overwrite)


def write_video(path: Path, images: Sequence[Path], fps: float, *, overwrite: bool = False) -> None:
    """Write images as H.264 in sRGB, atomically; nearly lossless, one in memory at a time.

    Args:
        path: the file, `*.mp4`.
        images: of one size, in order of time; colours of an ICC profile are converted.
        fps: frames a second at which it plays.
        overwrite: replace a file that is there.

    Raises:
        VideoError, OverwriteError: as `require_new_video`.
        ImageError: an image that can't be read, of another size than the first, or with colours
            that can't be converted.
    """
    av = _pyav(path)
    shape = image_shape(images[0])
    with only_writer_of(path):
        require_new_video(path, overwrite=overwrite)
        with atomic_write(path) as file, av.open(file, "w", format="mp4") as video:
            rate = Fraction(fps).limit_denominator(1001)
            stream = video.add_stream("libx264", rate=rate, options={"crf": "12"})
            stream.height, stream.width = shape
            even = shape[0] % 2 == 0 and shape[1] % 2 == 0
            # Half-size colour is what all players show.
            stream.pix_fmt = "yuv420p" if even else "yuv444p"
            codec = stream.codec_context
            codec.color_primaries = codec.colorspace = _BT709
            codec.color_trc, codec.color_range = _SRGB_TRANSFER, _LIMITED
            for image in images:
                frame = av.VideoFrame.from_ndarray(read_srgb(image, shape), format="rgb24")
                frame = frame.reformat(
                    format=stream.pix_fmt, dst_colorspace=_BT709, dst_color_range=_LIMITED
                )
                video.mux(stream.encode(frame))
            video.mux(stream.encode())


def _only_video(container: InputContainer, path: Path) -> VideoStream:
    """Return the video of a file, which may hold a cover picture beside it.

    Raises:
        VideoError: none in the file, or several.
    """
    covers = _pyav(path).stream.Disposition.attached_pic
    videos = [s for s in container.streams.video if not s.disposition & covers]
    if len(videos) != 1:
        raise VideoError(
            f"{path}: expected one video, found {len(videos) or 'none'} in the file; keep the one "
            "of the camera that the spikes belong to"
        )
    return videos[0]


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    av = _pyav(path)
    try:
        # MP4 alone is allowed: other formats, such as playlists, name further files and addresses.
        with open_file(path) as file, av.open(file, format="mp4") as video:
            yield video
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: can't read the video ({error.strerror}); restore it") from error


def _pyav(path: Path) -> Any:
    instead = ", or decode the clip to frames 0000.png, 0001.png, ..."
    with from_extra("video", f"{path}: reading videos needs PyAV", VideoError, instead):
        import av
    return av
