"""Clips as videos: what X4K1000FPS is downloaded as."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from spikedeblur.cli import main
from spikedeblur.pipeline.frames.colours import Colours, colours_of
from spikedeblur.pipeline.frames.images import ImageError, read_rgb, write_png
from spikedeblur.pipeline.frames.video import (
    VideoError,
    count_frames,
    decode_frames,
    decoded_files,
    read_video,
    video_shape,
)
from spikedeblur.pipeline.frames.video import write_video as to_video
from spikedeblur.pipeline.host.overwrite import OverwriteError
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import folder_clips
from spikedeblur.pipeline.simulate.rig import Rig

av = pytest.importorskip("av")

SMALL = Rig(exposure=5, stride=3, spikes_per_frame=4)
CLIP = "encoded_train/002/occ008.320.mp4"


def smooth_frames(n: int = 11, height: int = 48, width: int = 64) -> np.ndarray:
    """(n, height, width, 3) uint8 that a video keeps nearly as they are."""
    y, x = np.mgrid[:height, :width]
    t = np.arange(n)[:, None, None]
    planes = [128 + 90 * np.sin((x + 2 * t) / 9 + k) * np.cos(y / 11) for k in range(3)]
    return np.stack(planes, axis=-1).round().astype(np.uint8)


def write_video(path: Path, frames: np.ndarray, pixels: str = "yuv444p") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=30, options={"crf": "4", "bf": "2"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        for frame in frames:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        video.mux(stream.encode())


def test_frames_come_in_order_and_nearly_as_they_were_encoded(tmp_path):
    frames = smooth_frames()
    write_video(tmp_path / "a.mp4", frames)
    assert count_frames(tmp_path / "a.mp4") == 11
    assert video_shape(tmp_path / "a.mp4") == (48, 64)
    decoded = np.stack(list(read_video(tmp_path / "a.mp4", 11)))
    assert np.abs(decoded.astype(int) - frames).mean() < 2
    nearest = [
        np.abs(decoded[i].astype(int) - frames).mean(axis=(1, 2, 3)).argmin() for i in (1, 9)
    ]
    assert nearest == [1, 9]


def test_a_clip_is_recorded_from_its_video_as_from_its_frames(tmp_path):
    write_video(tmp_path / "in" / CLIP, smooth_frames())
    (clip,) = folder_clips(tmp_path / "in")
    assert (clip.seq, clip.n_frames, clip.shape()) == ("train/002/occ008.320", 11, (48, 64))
    decoded = list(read_video(tmp_path / "in" / CLIP, 11))
    simulate(tmp_path / "out", [clip], SMALL, workers=1)
    for i, frame in enumerate(decoded):
        write_png(tmp_path / f"png/train/002/occ008.320/{i:04d}.png", frame)
    simulate(tmp_path / "same", folder_clips(tmp_path / "png"), SMALL, workers=1)
    names = [p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.*")]
    images = [name for name in names if name.suffix in (".png", ".dat")]
    assert len(images) == 3 + 3 + 1
    for name in images:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "same" / name).read_bytes()
    again = simulate(tmp_path / "out", folder_clips(tmp_path / "in"), SMALL, workers=1)
    assert (again.written, again.kept) == (0, 1)


def test_decoded_frames_go_before_the_video(tmp_path):
    write_video(tmp_path / CLIP, smooth_frames())
    write_png(tmp_path / "train/002/occ008.320/0000.png", smooth_frames(1)[0])
    write_video(tmp_path / "train/003/occ009.mp4", smooth_frames(6))
    first, second = folder_clips(tmp_path)
    assert (first.is_video, first.n_frames) == (False, 1)
    assert (second.seq, second.is_video, second.n_frames) == ("train/003/occ009", True, 6)


def test_the_command_takes_videos(tmp_path, capsys):
    write_video(tmp_path / "in" / CLIP, smooth_frames(33))
    out = tmp_path / "out"
    done = main(["simulate", str(out), "--frames", str(tmp_path / "in"), "--workers", "1"])
    assert done == 0, capsys.readouterr().err
    assert read_rgb(out / "train_blurry_33/002/occ008.320/0016.png").shape == (48, 64, 3)


def test_a_cut_video_is_named(tmp_path):
    write_video(tmp_path / "a.mp4", smooth_frames())
    with pytest.raises(VideoError, match=r"a\.mp4: expected the 12 frames.*decoded 11"):
        list(read_video(tmp_path / "a.mp4", 12))
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(VideoError, match=r"a\.mp4: can't read the video"):
        count_frames(tmp_path / "a.mp4")


def test_more_than_8_bits_are_refused(tmp_path):
    write_video(tmp_path / "a.mp4", smooth_frames(), "yuv420p10le")
    with pytest.raises(VideoError, match="8 bits a channel"):
        list(read_video(tmp_path / "a.mp4", 11))


def test_without_pyav_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / CLIP).parent.mkdir(parents=True)
    (tmp_path / CLIP).touch()
    with pytest.raises(VideoError, match=r"spikedeblur\[video\]"):
        folder_clips(tmp_path)


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_images_become_a_video_of_the_same_pictures(tmp_path, size):
    frames = smooth_frames(5, *size)
    images = [tmp_path / f"{i}.png" for i in range(5)]
    for path, frame in zip(images, frames, strict=True):
        write_png(path, frame)
    to_video(tmp_path / "out.mp4", images, 25)
    decoded = np.stack(list(read_video(tmp_path / "out.mp4", 5)))
    assert np.abs(decoded.astype(int) - frames).mean() < 3
    with pytest.raises(OverwriteError, match="there already"):
        to_video(tmp_path / "out.mp4", images, 25)
    with pytest.raises(VideoError, match=r"\.mp4"):
        to_video(tmp_path / "out.avi", images, 25)


def test_a_video_that_fails_leaves_nothing(tmp_path):
    frames = smooth_frames(2)
    write_png(tmp_path / "0.png", frames[0])
    write_png(tmp_path / "1.png", frames[1][:40])
    with pytest.raises(ImageError, match=r"1\.png"):
        to_video(tmp_path / "out.mp4", [tmp_path / "0.png", tmp_path / "1.png"], 25)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png"]


CODES = (120, 100, 170)
"""Y, Cb and Cr of the videos below."""


def write_plain(path: Path, *, matrix: int, full: bool, primaries: int, transfer: int) -> None:
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=30, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv444p"
        codec = stream.codec_context
        codec.colorspace, codec.color_range = matrix, 2 if full else 1
        codec.color_primaries, codec.color_trc = primaries, transfer
        frame = av.VideoFrame(64, 48, "yuv444p")
        for plane, code in zip(frame.planes, CODES, strict=True):
            plane.update(bytes([code]) * plane.buffer_size)
        video.mux(stream.encode(frame))
        video.mux(stream.encode())


def rgb_by_h273(red: float, blue: float, full: bool) -> np.ndarray:
    """RGB of `CODES` by the formulas of ITU-T H.273, from the weights of red and blue in luma."""
    y, cb, cr = CODES
    luma = y / 255 if full else (y - 16) / 219
    cb, cr = ((c - 128) / (255 if full else 224) for c in (cb, cr))
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    return 255 * np.array([r, (luma - red * r - blue * b) / (1 - red - blue), b])


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("matrix", "red", "blue"),
    [(1, 0.2126, 0.0722), (2, 0.299, 0.114), (6, 0.299, 0.114), (9, 0.2627, 0.0593)],
)
def test_matrix_and_range_of_a_video_are_used(tmp_path, matrix, red, blue, full) -> None:
    write_plain(tmp_path / "a.mp4", matrix=matrix, full=full, primaries=1, transfer=1)
    (frame,) = read_video(tmp_path / "a.mp4", 1)
    assert np.abs(frame[24, 32] - rgb_by_h273(red, blue, full)).max() < 1.5


def test_wide_colours_of_a_video_stand_in_its_frames(tmp_path) -> None:
    for name, coded in (("hdr", (9, 16)), ("plain", (1, 1))):
        path = tmp_path / f"{name}.mp4"
        write_plain(path, matrix=9, full=False, primaries=coded[0], transfer=coded[1])
        files = decoded_files(path, tmp_path, range(1))
        decode_frames(path, files)
        assert colours_of(files[0]) == Colours(coded=coded if name == "hdr" else None)
    (tmp_path / "in/train/g").mkdir(parents=True)
    (tmp_path / "hdr.mp4").rename(tmp_path / "in/train/g/c.mp4")
    (clip,) = folder_clips(tmp_path / "in")
    with pytest.raises(VideoError, match=r"c\.mp4: expected colours near sRGB.*9 and.*16"):
        list(clip.render(0))


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_a_written_video_names_its_colours_and_has_them(tmp_path, size) -> None:
    colour = np.array([200, 60, 30])
    write_png(tmp_path / "0.png", np.broadcast_to(colour, (*size, 3)).astype(np.uint8))
    to_video(tmp_path / "out.mp4", [tmp_path / "0.png"], 25)
    with av.open(str(tmp_path / "out.mp4")) as video:
        codec = video.streams.video[0].codec_context
        tags = (codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range)
        assert tuple(map(int, tags)) == (1, 13, 1, 1)
        frame = next(video.decode(video=0))
        codes = [bytes(plane)[10] for plane in frame.planes]
    r, g, b = colour / 255
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    truth = [16 + 219 * y, 128 + 224 * (b - y) / 1.8556, 128 + 224 * (r - y) / 1.5748]
    assert np.abs(np.subtract(codes, truth)).max() < 2
    assert b"colr" in (tmp_path / "out.mp4").read_bytes()


def test_a_second_video_in_a_file_is_not_passed_over(tmp_path) -> None:
    with av.open(str(tmp_path / "two.mp4"), "w") as video:
        streams = [video.add_stream("libx264", rate=30) for _ in range(2)]
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for stream in streams:
            frame = av.VideoFrame.from_ndarray(smooth_frames(1)[0], format="rgb24")
            video.mux([*stream.encode(frame), *stream.encode()])
    with pytest.raises(VideoError, match=r"two\.mp4: expected one video, found 2"):
        count_frames(tmp_path / "two.mp4")
