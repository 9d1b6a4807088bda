"""A camera's own clock, as a user types it: frame rate and shutter, tables, edges, stamps."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import yaml
from bench_camera import GEOMETRY, blurred, photograph, record, scene

from spikedeblur.cli import main
from spikedeblur.model.neighbours import Near
from spikedeblur.pipeline.evaluate.metrics import psnr
from spikedeblur.pipeline.frames.images import read_rgb, to_uint8, write_png
from spikedeblur.pipeline.frames.listing import list_images
from spikedeblur.pipeline.frames.video import read_video
from spikedeblur.pipeline.methods.exposures import Exposures
from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.spikes import parse_geometry, read_spikes

RATE = 8000.0
PERIOD, SHUTTER, START = 0.02, 0.016 + 1 / RATE, 0.0045
"""Seventeen sharp frames of 1000 Hz in each twenty: their samples, both ends included."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`spike.dat`; and eleven frames, in `named/` by number, in `own/` as cameras name them."""
    folder = tmp_path_factory.mktemp("bench")
    record(folder / "spike.dat", 0.25, RATE)
    for i in range(11):
        at = START + i * PERIOD
        frame = blurred(at, at + SHUTTER)
        # The sharp frame in the middle is number 12.5 + 20 i of 1000 Hz, so 25 + 40 i of 2000 Hz.
        write_png(folder / "named" / f"{25 + 40 * i:04d}.png", frame)
        write_png(folder / "own" / f"IMG_{i}.png", frame)
    return folder


CAMERA = ["--frame-rate", "50", "--shutter", "16.125ms", "--start", "4.5ms"]


def restore(bench: Path, blur: Path | str, out: Path, *more: object) -> int:
    paths = ["--blur", bench / blur, "--spikes", bench / "spike.dat", "--out", out]
    method = [] if "--method" in more or "--model" in more else ["--method", "sdm"]
    return main(["restore", *map(str, (*paths, *method, *more))])


@pytest.mark.parametrize("method", ["sdm", "path"])
def test_a_frame_rate_and_a_shutter_restore_as_renamed_frames_do(method, bench, tmp_path) -> None:
    how = ["--method", method]
    assert restore(bench, "own", tmp_path / "own", *CAMERA, *how) == 0
    averaged = ["--fps", 2000, "--exposure", 33]
    assert restore(bench, "named", tmp_path / "named", *averaged, *how) == 0
    for i in range(11):
        own, named = (
            tmp_path / "own" / f"IMG_{i}.png",
            tmp_path / "named" / f"{25 + 40 * i:04d}.png",
        )
        assert own.read_bytes() == named.read_bytes(), i
    assert len(list_images(tmp_path / "own")) == 11


def test_one_frame_alone_is_timed_as_among_those_of_its_folder(bench, tmp_path) -> None:
    assert restore(bench, "own", tmp_path / "all", *CAMERA) == 0
    assert restore(bench, "own/IMG_10.png", tmp_path / "one", *CAMERA) == 0
    (alone,) = list_images(tmp_path / "one")
    assert alone.read_bytes() == (tmp_path / "all" / alone.name).read_bytes()
    assert alone.name == "IMG_10.png"


def test_a_table_and_a_log_of_edges_restore_as_the_frame_rate_does(bench, tmp_path) -> None:
    assert restore(bench, "own", tmp_path / "rate", *CAMERA) == 0
    starts = [1e3 * (START + i * PERIOD) for i in range(11)]
    table = tmp_path / "table.csv"
    rows = [
        f"IMG_{i}.png;{at:.6f};{at + 16.125:.6f}".replace(".", ",") for i, at in enumerate(starts)
    ]
    table.write_text("file;start [ms];end [ms]\n" + "\n".join(rows).replace(",png", ".png"))
    edges = tmp_path / "edges.csv"
    pulses = [f"{1e3 * at:.3f},1\n{1e3 * at + 16125:.3f},0\n" for at in starts]
    edges.write_text("time_us,edge\n" + "".join(pulses))
    for times in (table, edges):
        assert restore(bench, "own", tmp_path / times.stem, "--times", times) == 0
        for file in list_images(tmp_path / "rate"):
            assert (tmp_path / times.stem / file.name).read_bytes() == file.read_bytes()
    record = json.loads((tmp_path / "table" / "restore.json").read_text())
    assert record["sources"]["times"] == str(table)


def film(path: Path, frames: list[np.ndarray], ticks: list[int], **options: str) -> None:
    """Write a lossless MP4 whose stamps are in hundredths of a second."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264rgb", rate=50, options={"crf": "0", **options})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "rgb24"
        stream.codec_context.time_base = Fraction(1, 100)
        for pixels, tick in zip(frames, ticks, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 100)
            video.mux(stream.encode(frame))
        video.mux(stream.encode())


def test_a_video_with_dropped_frames_restores_as_the_folder_with_its_times(bench, tmp_path) -> None:
    kept = [i for i in range(11) if i not in (3, 4)]
    frames = [read_rgb(bench / "own" / f"IMG_{i}.png") for i in kept]
    video = tmp_path / "gaps.mp4"
    film(video, frames, [2 * i for i in kept])
    for i, frame in zip(kept, read_video(video, len(kept)), strict=True):
        write_png(tmp_path / "decoded" / f"{i}.png", frame)
    table = "start_ms,exposure_us\n" + "".join(f"{4.5 + 20 * i},16125\n" for i in kept)
    (tmp_path / "times.csv").write_text(table)
    for name, camera in (("stamps", CAMERA[2:]), ("rate", CAMERA)):
        assert restore(bench, video, tmp_path / name, *camera) == 0
    times = ["--times", tmp_path / "times.csv"]
    assert restore(bench, tmp_path / "decoded", tmp_path / "folder", *times) == 0
    for place, i in enumerate(kept):
        expected = (tmp_path / "folder" / f"{i}.png").read_bytes()
        assert (tmp_path / "stamps" / f"{place:06d}.png").read_bytes() == expected
        assert (tmp_path / "rate" / f"{place:06d}.png").read_bytes() == expected


def test_a_video_of_a_variable_rate_is_timed_by_its_stamps(bench, tmp_path) -> None:
    ticks = [0, 2, 5, 9, 11, 18]
    starts = [START + tick / 100 for tick in ticks]
    film(tmp_path / "v.mp4", [blurred(at, at + SHUTTER) for at in starts], ticks)
    assert restore(bench, tmp_path / "v.mp4", tmp_path / "out", *CAMERA[2:]) == 0
    frames = json.loads((tmp_path / "out/restore.json").read_text())["inputs"]["frames"]
    assert [frame["t0"] for frame in frames.values()] == pytest.approx(starts, abs=1e-9)


def test_an_interlaced_video_is_refused_by_name(bench, tmp_path, capsys) -> None:
    frames = [blurred(0.01 * i, 0.01 * i + 0.01) for i in range(4)]
    film(tmp_path / "tv.mp4", frames, [0, 2, 4, 6], flags="+ildct+ilme")
    assert restore(bench, tmp_path / "tv.mp4", tmp_path / "out", *CAMERA) == 1
    assert "tv.mp4: expected whole frames, found an interlaced video" in capsys.readouterr().err


@pytest.mark.parametrize("rate", [1000.0, 8000.0])
@pytest.mark.parametrize("method", ["sdm", "path"])
def test_exposures_of_any_length_are_restored_as_each_alone(rate, method, tmp_path) -> None:
    record(tmp_path / "spike.dat", 0.26, rate, threshold=0.7)
    lengths = (8, 12, 20, 33, 9, 27)
    starts = [10 + 40 * i for i in range(len(lengths))]
    exposed = {
        f"f{i}.png": (1e-3 * at, 1e-3 * (at + length))
        for i, (at, length) in enumerate(zip(starts, lengths, strict=True))
    }
    photograph(tmp_path / "all", exposed)
    header = "file,start_ms,exposure_ms\n"
    rows = [
        f"f{i},{at},{length}\n" for i, (at, length) in enumerate(zip(starts, lengths, strict=True))
    ]
    (tmp_path / "all.csv").write_text(header + "".join(rows))
    out = tmp_path / "together"
    how = ["--method", method, "--times"]
    assert restore(tmp_path, "all", out, *how, tmp_path / "all.csv") == 0
    for i, name in enumerate(exposed):
        alone = tmp_path / f"alone{i}"
        photograph(alone, {name: exposed[name]})
        (tmp_path / f"{i}.csv").write_text(header + rows[i])
        assert restore(tmp_path, alone.name, tmp_path / f"out{i}", *how, tmp_path / f"{i}.csv") == 0
        truth = to_uint8(scene(sum(exposed[name]) / 2))
        together, by_itself = (read_rgb(f / name) for f in (out, tmp_path / f"out{i}"))
        difference = psnr(together, truth) - psnr(by_itself, truth)
        print(f"{lengths[i]} ms: {psnr(together, truth):.2f} dB, {difference:+.3f} to alone")
        assert abs(difference) < 0.5


def test_path_takes_neighbours_of_other_lengths_but_not_across_dropped_frames(
    tmp_path, monkeypatch, capsys
) -> None:
    record(tmp_path / "spike.dat", 0.2, 4000.0, threshold=0.7)
    # In milliseconds: at once, after a gap of 4, at once, and after four dropped frames.
    spans = [(5, 25), (25, 33), (37, 53), (53, 63), (141, 161), (163, 172)]
    exposed = {f"IMG_{i}.png": (1e-3 * a, 1e-3 * b) for i, (a, b) in enumerate(spans)}
    photograph(tmp_path / "own", exposed)
    rows = [f"IMG_{i},{a},{b}\n" for i, (a, b) in enumerate(spans)]
    (tmp_path / "own/times.csv").write_text("file,start_ms,end_ms\n" + "".join(rows))
    neighbours = {}

    def near(exposures: Exposures, window: int) -> Near | None:
        beside = known(exposures, window)
        found = list(beside.neighbours) if beside else []
        neighbours[window] = len(found)
        return replace(beside, neighbours=found) if beside else None

    known = Exposures.near
    monkeypatch.setattr(Exposures, "near", near)
    how = ["--times", tmp_path / "own/times.csv", "--method", "path"]
    assert restore(tmp_path, "own", tmp_path / "near", *how) == 0
    assert "left out" not in capsys.readouterr().err
    # Frames 1, 3 and 5 are much shorter than those before them, which have more blur.
    assert neighbours == {0: 1, 1: 0, 2: 2, 3: 0, 4: 1, 5: 0}
    monkeypatch.setattr(Exposures, "near", lambda exposures, window: None)
    assert restore(tmp_path, "own", tmp_path / "alone", *how) == 0
    for name, (start, end) in exposed.items():
        truth = to_uint8(scene((start + end) / 2))
        blur, alone, found = (
            psnr(read_rgb(tmp_path / f / name), truth) for f in ("own", "alone", "near")
        )
        print(f"{name}: {blur:.2f} dB blurred, {alone:.2f} alone, {found:.2f} with neighbours")
        assert found > blur + 2
        assert found > alone - 0.5


def test_gaps_in_the_names_are_pointed_at(bench, tmp_path, capsys) -> None:
    for i in (0, 1, 2, 5, 6):
        write_png(tmp_path / "f" / f"IMG_{i}.png", read_rgb(bench / "own" / f"IMG_{i}.png"))
    assert restore(bench, tmp_path / "f", tmp_path / "out", *CAMERA, "--force") == 0
    assert "after IMG_2.png comes IMG_5.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "code", "expected"),
    [
        ("--frame-rate 50 --fps 50 --shutter 16ms", 2, "sharp frames, never seen"),
        ("--frame-rate 50", 2, "add the length of an exposure, such as --shutter 16ms"),
        ("--frame-rate 50 --shutter 16", 2, "at most 20 ms"),
        ("--frame-rate 50 --shutter 0", 2, "above 0, found 0 s"),
        ("--frame-rate 50 --shutter 16mm", 2, "s, ms, us or ns, found '16mm'"),
        ("--frame-rate 50 --shutter 10us", 1, "IMG_0.png: expected an exposure of 2 spike samples"),
        ("--shutter 16ms", 1, "add --frame-rate 30"),
        (
            "--frame-rate 50 --shutter 16ms --start 1s",
            1,
            "correct --frame-rate, --shutter, --start",
        ),
        ("--exposure 1 --fps 30", 1, "0025.png: expected an exposure of 2 spike samples or more"),
        ("--times three.csv", 1, "three.csv: expected 11 rows"),
        ("--times three.csv --frame-rate 50", 2, "leave --frame-rate out"),
    ],
)
def test_wrong_times_are_told_with_what_to_type(
    typed, code, expected, bench, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("three.csv").write_text("start_ms,end_ms\n1,2\n3,4\n5,6\n")
    folder = "named" if "--exposure" in typed else "own"
    assert restore(bench, folder, tmp_path / "out", *typed.split()) == code
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert expected in error
    assert not (tmp_path / "out").exists()


def test_a_layout_file_and_align_take_the_cameras_clock(bench, tmp_path) -> None:
    root = tmp_path / "data"
    for i in range(11):
        write_png(root / "clip/rgb" / f"{i:04d}.png", read_rgb(bench / "own" / f"IMG_{i}.png"))
    for name in ("spike.dat", "spike.dat.json"):
        (root / "clip" / name).write_bytes((bench / name).read_bytes())
    content = {
        "name": "bench",
        "split": "test",
        "blur": "{clip}/rgb/{frame}.png",
        "spikes": {"files": "{clip}/spike.dat"},
        "camera": {"frame_rate": 50, "shutter": "16.125ms", "start": "4.5ms"},
    }
    times = {"times": "{clip}/times.csv", "shutter": "16.125 ms"}
    rows = "".join(f"{4.5 + 20 * i}\n" for i in range(11))
    (root / "clip/times.csv").write_text("start_ms\n" + rows)
    logs = []
    for name, camera in (("rate", content["camera"]), ("table", times)):
        layout = tmp_path / f"{name}.yaml"
        layout.write_text(yaml.safe_dump({**content, "camera": camera}))
        products = ["--log", tmp_path / f"{name}.txt", "--manifest", tmp_path / f"{name}.json"]
        command = ["align", root, "--layout", layout, "--no-verify", *products]
        assert main([str(part) for part in command]) == 0
        logs.append((tmp_path / f"{name}.txt").read_bytes())
    assert logs[0] == logs[1]
    assert restore(bench, "own", tmp_path / "one", *CAMERA) == 0
    all_of_it = ["--manifest", tmp_path / "rate.json", "--method", "sdm", "--out", tmp_path / "all"]
    assert main(["restore", *map(str, all_of_it)]) == 0
    for i in range(11):
        one, together = (
            tmp_path / "one" / f"IMG_{i}.png",
            tmp_path / "all/test/clip" / f"{i:04d}.png",
        )
        assert one.read_bytes() == together.read_bytes()


def test_unequal_exposures_reach_the_store(bench, tmp_path) -> None:
    lengths = [8, 16, 11, 15.125]
    root = tmp_path / "data"
    exposed = {
        f"{i:04d}.png": (0.005 + 0.02 * i, 0.005 + 0.02 * i + length / 1000)
        for i, length in enumerate(lengths)
    }
    photograph(root / "clip/rgb", exposed)
    for name in ("spike.dat", "spike.dat.json"):
        (root / "clip" / name).write_bytes((bench / name).read_bytes())
    rows = "".join(f"{5 + 20 * i},{1000 * length}\n" for i, length in enumerate(lengths))
    (root / "clip/times.csv").write_text("start_ms,exposure_us\n" + rows)
    content = {
        "name": "bench",
        "split": "test",
        "blur": "{clip}/rgb/{frame}.png",
        "spikes": {"files": "{clip}/spike.dat"},
        "camera": {"times": "{clip}/times.csv"},
    }
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump(content))
    products = ["--log", tmp_path / "a.txt", "--manifest", tmp_path / "a.json"]
    command = ["align", root, "--layout", tmp_path / "bench.yaml", "--no-verify", *products]
    assert main([str(part) for part in command]) == 0
    spikes = read_spikes(root / "clip/spike.dat", parse_geometry(GEOMETRY))
    for kind in ("packed", "counts"):
        store = tmp_path / f"{kind}.zarr"
        command = ["voxelize", tmp_path / "a.json", store, "--bins", 32, "--kind", kind]
        assert main([str(part) for part in (*command, "--workers", 1)]) == 0
        (sequence,) = open_store(store, "test")
        assert sequence.samples.tolist() == [8 * length for length in lengths]
        voxels = sequence.voxels(0, 4)
        for i, (start, end) in enumerate(exposed.values()):
            expected = spikes[round(RATE * start) : round(RATE * end)].sum(axis=0)
            assert (voxels[i].sum(axis=0) == expected).all()
