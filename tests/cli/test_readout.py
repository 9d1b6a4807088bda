"""A colour camera with a rolling shutter, as a user types it: --readout."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from rolling_camera import (
    CAMERA,
    GEOMETRY,
    PERIOD,
    RATE,
    SCALE,
    SIDE,
    START,
    photograph,
    record,
    sharp,
)
from rolling_scenes import photograph_rows

from spikedeblur.cli import main
from spikedeblur.pipeline.clocks import CameraClock
from spikedeblur.pipeline.evaluate.metrics import psnr
from spikedeblur.pipeline.frames.images import read_rgb
from spikedeblur.pipeline.frames.listing import list_images
from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.sequences.find_recording import (
    ExposureTimes,
    find_recording,
    recordings_of,
)
from spikedeblur.pipeline.sequences.recording import RecordingSequence
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import SourceClip
from spikedeblur.pipeline.simulate.record import clip_folders
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.spikes import parse_geometry, read_spikes
from spikedeblur.pipeline.spikes.settings import SpikeOptions

READOUTS = {"rolling": 0.02, "upwards": -0.02, "still": 0.0}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`spike.dat`; and the frames of a camera with each readout, in a folder of its name."""
    folder = tmp_path_factory.mktemp("bench")
    record(folder / "spike.dat")
    for name, readout in READOUTS.items():
        photograph(folder / name, readout)
    return folder


def restore(bench: Path, blur: str, out: Path, *more: str, method: str = "sdm") -> int:
    paths = ["--blur", str(bench / blur), "--spikes", str(bench / "spike.dat"), "--out", str(out)]
    return main(["restore", *paths, "--method", method, *CAMERA, *more])


def quality(out: Path, readout: float) -> float:
    """Return the mean PSNR against rows in the middle of their own exposures."""
    inner = slice(8, -8), slice(8, -8)
    frames = [read_rgb(out / f"{i:04d}.png")[inner] for i in range(len(list_images(out)))]
    return float(np.mean([psnr(f, sharp(i, readout)[inner]) for i, f in enumerate(frames)]))


def qualities(bench: Path, out: Path, method: str) -> dict[str, float]:
    """Return the PSNR of each camera's frames, and of the rolling one's without its readout."""
    found = {}
    for name, blur, more in (
        ("still", "still", ()),
        ("rolling", "rolling", ("--readout", "20ms")),
        ("upwards", "upwards", ("--readout", "-20ms")),
        ("unknown", "rolling", ()),
    ):
        assert restore(bench, blur, out / name, *more, method=method) == 0
        found[name] = quality(out / name, READOUTS[blur])
    return found


def test_rows_are_restored_as_well_as_those_of_a_global_shutter(bench, tmp_path) -> None:
    found = qualities(bench, tmp_path, "sdm")
    assert abs(found["rolling"] - found["still"]) < 0.3, found
    assert abs(found["upwards"] - found["still"]) < 0.3, found
    assert found["unknown"] < found["rolling"] - 0.5, found


@pytest.mark.slow
def test_paths_are_found_in_rows_as_under_a_global_shutter(bench, tmp_path) -> None:
    few = tmp_path / "few"
    for name in READOUTS:
        (few / name).mkdir(parents=True)
        for i in range(3):
            (few / name / f"{i:04d}.png").write_bytes((bench / name / f"{i:04d}.png").read_bytes())
    for file in bench.glob("spike.dat*"):
        (few / file.name).symlink_to(file)
    found = qualities(few, tmp_path, "path")
    assert found["rolling"] > found["still"] - 0.3, found
    assert found["upwards"] > found["still"] - 0.6, found
    assert found["unknown"] < found["rolling"] - 3, found


@pytest.mark.slow
@pytest.mark.parametrize("scene", [0, 2])
def test_fast_scenes_of_20_ms_are_restored_as_by_a_global_shutter(scene, tmp_path, capsys) -> None:
    clip = SourceClip(seq=f"val/scenes/{scene:05d}", size=(128, 128), length=163, fastest=5.0)
    found = {}
    for name, readout in (("global", 0.0), ("rolling", 0.02)):
        root = tmp_path / name
        simulate(root, [clip], Rig(), workers=1)
        truth = photograph_rows(root, clip, Rig(), readout)
        spikes, blur, _ = clip_folders(root, clip, Rig())
        for known in dict.fromkeys((0.0, readout)):
            out = tmp_path / f"{name}_{known:g}"
            words = ["restore", "--blur", blur, "--spikes", spikes / "spike.dat", "--out", out]
            words += ["--exposure", 33, "--fps", 1000, "--method", "sdm", "--readout", f"{known}s"]
            assert main([str(word) for word in words]) == 0
            each = [psnr(read_rgb(out / file), rows) for file, rows in truth.items()]
            found[f"{name}, {known:g} s"] = float(np.mean(each))
    assert found["rolling, 0.02 s"] > found["global, 0 s"] - 0.3, found
    assert found["rolling, 0 s"] < found["rolling, 0.02 s"] - 1, found
    capsys.readouterr()
    align = ["align", tmp_path / "rolling", "--layout", "x4k1000fps"]
    align += ["--log", tmp_path / "a.txt", "--manifest", tmp_path / "a.json"]
    assert main([str(word) for word in align]) == 0
    assert "give --readout" in " ".join(capsys.readouterr().err.split())
    seen = sequence_of(tmp_path / "a.json")["verification"]["readout"]
    assert seen == pytest.approx(0.02, abs=0.001)


LAYOUT = {
    "name": "bench",
    "split": "test",
    "blur": "{clip}/rgb/{frame}.png",
    "spikes": {"files": "spike.dat"},
    "camera": {"frame_rate": 40, "shutter": "12ms", "start": "30ms"},
}


@pytest.fixture
def clip(bench, tmp_path):
    """A function that makes the folder and the layout file of one camera's frames."""

    def make(name: str, **camera: object) -> list[str]:
        root = tmp_path / f"data_{name}"
        (root / "clip").mkdir(parents=True, exist_ok=True)
        for link, target in (("clip/rgb", name), ("spike.dat", "spike.dat")):
            if not (root / link).exists():
                (root / link).symlink_to(bench / target)
        if not (root / "spike.dat.json").exists():
            (root / "spike.dat.json").symlink_to(bench / "spike.dat.json")
        layout = tmp_path / "layout.yaml"
        layout.write_text(yaml.safe_dump(LAYOUT | {"camera": LAYOUT["camera"] | camera}))
        products = ["--log", tmp_path / f"{name}.txt", "--manifest", tmp_path / f"{name}.json"]
        return [str(part) for part in ("align", root, "--layout", layout, *products)]

    return make


def sequence_of(file: Path) -> dict:
    return json.loads(file.read_text())["sequences"][0]


@pytest.mark.parametrize("name", ["rolling", "upwards"])
def test_align_names_a_rolling_shutter_and_its_readout(name, clip, tmp_path, capsys) -> None:
    align = clip(name)
    assert main([*align, "--strict"]) == 1
    assert "as under a rolling shutter: give --readout " in capsys.readouterr().err
    assert main(align) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "as under a rolling shutter: give --readout " in said
    seen = sequence_of(tmp_path / f"{name}.json")["verification"]["readout"]
    assert seen == pytest.approx(READOUTS[name], rel=0.1)
    assert main([*align, "--readout", f"{1e3 * READOUTS[name]:g}ms", "--strict"]) == 0
    sequence = sequence_of(tmp_path / f"{name}.json")
    assert sequence["readout"] == READOUTS[name]
    assert "readout" not in sequence["verification"]
    assert abs(sequence["verification"]["lag_frames"]) < 1.5


def test_align_says_nothing_of_a_global_shutter(clip, tmp_path, capsys) -> None:
    assert main([*clip("still"), "--strict"]) == 0
    said = capsys.readouterr().out
    assert "Next: spikedeblur restore --model small --manifest" in said, "nothing to train on"
    sequence = sequence_of(tmp_path / "still.json")
    assert "readout" not in sequence
    assert "readout" not in sequence["verification"]


@pytest.mark.parametrize("name", ["rolling", "upwards"])
def test_stores_logs_and_manifests_give_each_row_its_own_exposure(
    name, bench, clip, tmp_path
) -> None:
    flag = f"{1e3 * READOUTS[name]:g}ms"
    assert main([*clip(name, readout=flag), "--no-verify"]) == 0
    log, manifest = tmp_path / f"{name}.txt", tmp_path / f"{name}.json"
    clock = CameraClock(frame_rate=40.0, shutter=0.012, start=0.03)
    typed = SpikeOptions(readout=READOUTS[name])
    by_flag = find_recording(bench / name, bench / "spike.dat", ExposureTimes(camera=clock), typed)
    by_log = find_recording(
        bench / name, bench / "spike.dat", ExposureTimes(log=log, seq="test/clip")
    )
    (by_manifest,) = recordings_of(manifest)
    sequences = [RecordingSequence(found, 16) for found in (by_flag, by_log, by_manifest)]
    for kind in ("packed", "counts"):
        store = tmp_path / f"{kind}.zarr"
        words = ["voxelize", manifest, store, "--bins", 16, "--kind", kind, "--workers", 1]
        assert main([str(word) for word in words]) == 0
        sequences += open_store(store)
    packed = sequences[3]
    # Truth: rows of the file, each read alone.
    whole = read_spikes(bench / "spike.dat", parse_geometry(GEOMETRY))
    for row in (0, 20, SIDE // SCALE - 1):
        late = READOUTS[name] * (SCALE * row + 0.5) / (SIDE - 1)
        first = [math.floor(RATE * at + 0.5) for at in (START + 2 * PERIOD, late)]
        spikes = whole[sum(first) : sum(first) + 96, row]
        counts = spikes.reshape(16, 6, -1).sum(axis=1)
        for sequence in sequences:
            assert sequence.samples[2] == 96
            np.testing.assert_array_equal(sequence.voxels(2, 3)[0, :, row], counts)
        for sequence in sequences[:4]:
            np.testing.assert_array_equal(sequence.spikes(2)[:, row], spikes)
    for sequence in sequences[:3]:
        around, before = sequence.spikes_beside(2, 30, (5, 40), (3, 20))
        inside = slice(before, before + 96)
        np.testing.assert_array_equal(around[inside], packed.spikes(2)[:, 5:40, 3:20])
        assert len(around) == 156
    for sequence in sequences:
        np.testing.assert_array_equal(sequence.t0, sequences[0].t0)
    assert packed.record.readout == READOUTS[name]


CORNER = 6.0, -4.0


@pytest.fixture(scope="module")
def moved(bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `bench`, but the spike camera looks further to the right and up; `calibration.yaml`."""
    folder = tmp_path_factory.mktemp("moved")
    record(folder / "spike.dat", CORNER)
    for name in ("rolling", "still"):
        (folder / name).symlink_to(bench / name)
    calibration = {
        "homography": [[SCALE, 0, CORNER[0]], [0, SCALE, CORNER[1]]],
        "spike_size": [SIDE // SCALE] * 2,
        "frame_size": [SIDE] * 2,
    }
    (folder / "calibration.yaml").write_text(yaml.safe_dump(calibration))
    (folder / "layout.yaml").write_text(
        yaml.safe_dump(LAYOUT | {"split": "test", "blur": "{clip}/{frame}.png"})
    )
    return folder


def align_moved(moved: Path, work: Path, *more: str) -> dict:
    """Align the rolling camera's frames with the spikes beside them; returns the sequence."""
    root = work / "data"
    root.mkdir(exist_ok=True)
    for name in ("rolling", "spike.dat", "spike.dat.json"):
        if not (root / name).exists():
            (root / name).symlink_to(moved / name)
    words = ["align", root, "--layout", moved / "layout.yaml", "--overwrite"]
    words += ["--log", work / "a.txt", "--manifest", work / "a.json", *more]
    assert main([str(word) for word in words]) == 0
    return sequence_of(work / "a.json")


def test_a_readout_is_seen_and_undone_where_spikes_are_registered(moved, tmp_path) -> None:
    calibration = "--calibration", str(moved / "calibration.yaml")
    seen = align_moved(moved, tmp_path, *calibration)["verification"]
    assert seen["problem"] == "rolling shutter"
    assert seen["readout"] == pytest.approx(0.02, abs=0.0005)
    known = align_moved(moved, tmp_path, *calibration, "--readout", "20ms")
    assert known["verification"]["problem"] is None
    assert abs(known["verification"]["lag_frames"]) < 1
    found = {
        name: restored_moved(moved, tmp_path / name, blur, *more)
        for name, blur, more in (
            ("still", "still", (*CAMERA, *calibration)),
            ("rolling", "rolling", (*CAMERA, *calibration, "--readout", "20ms")),
            ("by_log", "rolling", ("--log", str(tmp_path / "a.txt"), "--seq", "test/rolling")),
            ("unknown", "rolling", (*CAMERA, *calibration)),
        )
    }
    assert abs(found["rolling"] - found["still"]) < 0.3, found
    assert found["unknown"] < found["rolling"] - 0.5, found
    by_flag, by_log = (list_images(tmp_path / name) for name in ("rolling", "by_log"))
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(by_flag, by_log, strict=True))


def restored_moved(moved: Path, out: Path, blur: str, *more: str) -> float:
    """Restore frames by SDM; returns the PSNR."""
    paths = ["--blur", str(moved / blur), "--spikes", str(moved / "spike.dat"), "--out", str(out)]
    assert main(["restore", *paths, "--method", "sdm", *more]) == 0
    return quality(out, READOUTS[blur])


def test_the_place_of_spikes_is_found_under_a_known_readout(moved, tmp_path) -> None:
    given = "--estimate-space", "similarity", "--readout", "20ms"
    sequence = align_moved(moved, tmp_path, *given)
    matrix = np.reshape(sequence["space"]["matrix"], (3, 3))
    for x, y in ((0, 0), (48, 0), (0, 48), (48, 48)):
        place = matrix @ (x, y, 1)
        expected = SCALE * x + CORNER[0], SCALE * y + CORNER[1]
        np.testing.assert_allclose(place[:2] / place[2], expected, atol=0.5)
    assert sequence["verification"]["problem"] is None


def test_the_record_of_a_product_names_the_readout(bench, tmp_path) -> None:
    assert restore(bench, "rolling", tmp_path / "a", "--readout", "20ms") == 0
    assert json.loads((tmp_path / "a/restore.json").read_text())["inputs"]["readout"] == 0.02
    assert restore(bench, "rolling", tmp_path / "b") == 0
    assert "readout" not in (tmp_path / "b/restore.json").read_text()
    assert restore(bench, "rolling", tmp_path / "c", "--readout", "0") == 0
    frames = [list_images(tmp_path / name) for name in "bc"]
    assert all(b.read_bytes() == c.read_bytes() for b, c in zip(*frames, strict=True))
    assert restore(bench, "rolling", tmp_path / "a", "--readout", "21ms") == 1


@pytest.mark.parametrize(
    ("typed", "code", "expected"),
    [
        ("soon", 2, "s, ms, us or ns, found 'soon'"),
        ("nan", 2, "found 'nan'"),
        ("20 lines", 2, "found '20 lines'"),
        ("20", 1, "or --readout"),
        ("-50ms", 1, "or --readout"),
        ("100ms", 1, "or --readout"),
        ("1e99", 2, "found '1e99'"),
    ],
)
def test_readouts_that_cannot_be_are_told(typed, code, expected, bench, tmp_path, capsys) -> None:
    assert restore(bench, "rolling", tmp_path / "out", "--readout", typed) == code
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert expected in error
    assert "Traceback" not in error
    assert not list(tmp_path.glob("out/*.png"))


def test_a_layout_file_refuses_a_readout_that_is_no_time(clip, capsys) -> None:
    for readout in ("soon", float("nan")):
        assert main(clip("rolling", readout=readout)) == 1
        assert "readout" in capsys.readouterr().err
