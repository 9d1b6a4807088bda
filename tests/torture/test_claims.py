"""Files that claim what they don't hold, or are none: little memory, no wait, one sentence."""

from __future__ import annotations

import io
import os
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from spikedeblur.pipeline.spikes import parse_geometry
from spikedeblur.pipeline.spikes.dat import SpikeFile

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA bounds all memory there only"),
]

MEMORY = 800 * 10**6
"""Bytes that a command may take; those without torch take 150 million."""
SECONDS = 60
"""Most seconds of a command, on a busy machine."""


def spikedeblur(*words: object) -> tuple[int, str]:
    """Run a command in bounds; returns its exit code and what it wrote to stderr."""

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))

    done = subprocess.run(
        [sys.executable, "-m", "spikedeblur", *map(str, words)],
        capture_output=True,
        text=True,
        preexec_fn=bound,
        timeout=SECONDS,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def header(shape: tuple[int, ...], dtype: str = "<f8") -> bytes:
    content = io.BytesIO()
    description = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content, description)
    return content.getvalue()


def sparse(path: Path, head: bytes, size: int) -> Path:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    return path


def zipped(path: Path, shape: tuple[int, ...]) -> Path:
    content = header(shape) + bytes(10**9)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a.npy", content)
    return path


def npz_of_huge_frames(folder: Path) -> Path:
    return zipped(folder / "a.npz", (2, 11_000, 11_000))


def npz_of_large_frames(folder: Path) -> Path:
    return zipped(folder / "a.npz", (50_000, 4_000, 4_000))


def npy_of_huge_frames(folder: Path) -> Path:
    return sparse(folder / "a.npy", header((8, 11_000, 11_000)), 8 * 11_000**2 * 8)


def npy_of_more_than_it_holds(folder: Path) -> Path:
    return sparse(folder / "a.npy", header((10**9, 1000, 1000)), 10**6)


def hdf5(folder: Path, **how: object) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        made = file.create_dataset("a", dtype="u1", **how)
        if not how.get("external"):
            made[:1, :1, :1] = 1
    return folder / "a.h5"


def hdf5_of_one_chunk(folder: Path) -> Path:
    return hdf5(folder, shape=(10**6, 1000, 1000), chunks=(64, 100, 100), compression="gzip")


def hdf5_of_a_huge_chunk(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        # Written past the filters: 2 GB of zeros would take minutes.
        made = file.create_dataset(
            "a", (2000, 1000, 1000), "u1", chunks=(2000, 1000, 1000), compression="gzip"
        )
        made.id.write_direct_chunk((0, 0, 0), bytes(2 * 10**6))
    return folder / "a.h5"


def hdf5_of_another_file(folder: Path) -> Path:
    (folder / "other").write_bytes(bytes([0, 1] * 64))
    return hdf5(folder, shape=(2, 8, 8), external=[(str(folder / "other"), 0, 128)])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (npz_of_huge_frames, "pixels"),
        (npz_of_large_frames, "ends in sample"),
        (npy_of_huge_frames, "pixels"),
        (npy_of_more_than_it_holds, "not a NumPy file"),
        (hdf5_of_one_chunk, "lacks data"),
        (hdf5_of_a_huge_chunk, "at most 134217728 bytes"),
        (hdf5_of_another_file, "other files"),
    ],
)
def test_arrays_are_converted_in_pieces_or_refused(
    make: Callable[[Path], Path], said: str, tmp_path: Path
) -> None:
    source = make(tmp_path)
    code, error = spikedeblur("convert", source, tmp_path / "out.dat")
    assert code == 1, error
    assert source.name in error
    assert said in error
    assert not (tmp_path / "out.dat").exists()


@pytest.mark.parametrize("geometry", ["1000x1000,bottom-up", "1000x1001,top-down,padded", None])
def test_a_terabyte_of_zeros_is_described_from_a_part_of_it(
    geometry: str | None, tmp_path: Path
) -> None:
    source = sparse(tmp_path / "a.dat", b"", 1001 * 1000 * 1000 * 1000)
    options = () if geometry is None else ("--geometry", geometry)
    code, error = spikedeblur("inspect", source, *options)
    assert code == 0, error


def test_a_large_file_of_a_byte_a_pixel_is_known_by_parts_of_it(tmp_path: Path) -> None:
    source = sparse(tmp_path / "a.dat", b"", 2000 * 2048 * 2048)
    with source.open("r+b") as file:
        file.write(bytes([1, 0] * 1000))
    code, error = spikedeblur("inspect", source, "--geometry", "2048x2048,bottom-up")
    assert code == 0, error
    assert SpikeFile.open(source, parse_geometry("2048x2048,bottom-up")).encoding == "bytes"


def frame(path: Path, kind: str) -> None:
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "endless":
            path.symlink_to("/dev/zero")
        case "terabyte":
            sparse(path, b"\x89PNG\r\n\x1a\n", 10**12)
        case "loop":
            path.symlink_to(path.name)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    scene = ("--scenes", 1, "--split", "test", "--size", "32x32", "--length", 60, "--stride", 11)
    code, error = spikedeblur("simulate", out, *scene, "--exposure", 11, "--workers", 1)
    assert code == 0, error
    return out


@pytest.mark.parametrize("kind", ["pipe", "endless", "terabyte", "loop"])
@pytest.mark.parametrize("what", ["restore", "align", "simulate"])
def test_a_frame_that_is_no_file_is_named(what: str, kind: str, data: Path, tmp_path: Path) -> None:
    frames = tmp_path / "x/test_blurry_11/scenes/00000"
    spikes = tmp_path / "x/test_spike_2xds/scenes/00000"
    for copy, source in ((frames, "test_blurry_11"), (spikes, "test_spike_2xds")):
        copy.mkdir(parents=True)
        for file in (data / source / "scenes/00000").iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
    bad = sorted(frames.iterdir())[1]
    bad.unlink()
    frame(bad, kind)
    times = ("--exposure", 11)
    if what == "restore":
        code, error = spikedeblur(
            *("restore", "--method", "sdm", "--blur", frames, "--spikes", spikes / "spike.dat"),
            *(*times, "--fps", 1000, "--out", tmp_path / "out"),
        )
    elif what == "align":
        code, error = spikedeblur(
            *("align", tmp_path / "x", "--layout", "x4k1000fps", *times),
            *("--log", tmp_path / "log.txt"),
        )
    else:
        clips = tmp_path / "f/test/a"
        clips.mkdir(parents=True)
        (clips / "b").mkdir()
        for i, file in enumerate(sorted(frames.iterdir())):
            file.rename(clips / "b" / f"{i:04d}.png")
        bad = clips / "b/0001.png"
        code, error = spikedeblur(
            *("simulate", tmp_path / "out", "--frames", tmp_path / "f", "--exposure", 3),
            *("--stride", 1, "--workers", 1),
        )
    assert code == 1, error
    assert bad.name in error


def test_a_video_that_claims_more_frames_than_it_has_is_refused(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        for i in range(5):
            picture = np.full((32, 32, 3), 40 * i, np.uint8)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        video.mux(stream.encode())
    content = bytearray(path.read_bytes())
    sizes, times = content.index(b"stsz"), content.index(b"stts")
    content[sizes + 8 : sizes + 16] = struct.pack(">II", 1, 2**31 - 1)
    content[times + 12 : times + 16] = struct.pack(">I", 2**31 - 1)
    path.write_bytes(content)
    (tmp_path / "a.dat").write_bytes(bytes(8 * 1000))
    code, error = spikedeblur(
        *("restore", "--method", "sdm", "--blur", path, "--spikes", tmp_path / "a.dat"),
        *("--geometry", "8x8,top-down", "--rate", 1000, "--gain", 1),
        *("--exposure", 3, "--fps", 1000, "--out", tmp_path / "out"),
    )
    assert code == 1, error
    assert "a.mp4" in error


def test_a_playlist_named_as_a_video_opens_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("av")
    other = tmp_path / "secret.ts"
    os.mkfifo(other)  # whoever opened it would wait
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n"
    (tmp_path / "a.mp4").write_text(playlist)
    (tmp_path / "a.dat").write_bytes(bytes(8 * 1000))
    code, error = spikedeblur(
        *("restore", "--method", "sdm", "--blur", tmp_path / "a.mp4"),
        *("--spikes", tmp_path / "a.dat", "--geometry", "8x8,top-down", "--rate", 1000),
        *("--exposure", 3, "--fps", 1000, "--out", tmp_path / "out"),
    )
    assert code == 1, error
    assert "a.mp4" in error


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "environment.json"])
@pytest.mark.parametrize("kind", ["pipe", "endless", "terabyte"])
def test_a_run_folder_of_what_is_no_file_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("DATA: {ROOT: x}\n")
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / name).unlink(missing_ok=True)
    frame(tmp_path / name, kind)
    code, error = spikedeblur("report", tmp_path)
    assert code == 1, error
    assert name in error


def test_a_picture_of_a_few_bytes_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    frames = tmp_path / "f/test/a/b"
    frames.mkdir(parents=True)
    for i in range(5):
        picture = io.BytesIO()
        Image.new("RGB", (16, 16)).save(picture, "PNG")
        content = bytearray(picture.getvalue())
        content[16:24] = struct.pack(">II", 8_000, 8_000)
        (frames / f"{i:04d}.png").write_bytes(content)
    code, error = spikedeblur(
        *("simulate", tmp_path / "out", "--frames", tmp_path / "f", "--exposure", 3),
        *("--stride", 1, "--workers", 1),
    )
    assert code == 1, error
    assert ".png" in error
