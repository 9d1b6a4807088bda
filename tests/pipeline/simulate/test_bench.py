"""A bench with two cameras: what each records, and what its files say and do not say."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spikedeblur.cli import main
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.frames.images import read_rgb
from spikedeblur.pipeline.frames.listing import list_images
from spikedeblur.pipeline.simulate import bench as module
from spikedeblur.pipeline.simulate.bench import Bench, simulate_bench
from spikedeblur.pipeline.simulate.clips import SimulateError, rng
from spikedeblur.pipeline.simulate.flaws import Flaws
from spikedeblur.pipeline.simulate.scenes import render_scene
from spikedeblur.pipeline.spikes import SpikeFile, read_side_file
from spikedeblur.pipeline.spikes.camera import luminance

TINY = Bench(
    size=(24, 32), spike_size=(12, 16), spike_rate=4000, frames=3, dropped=(1,), flaws=None
)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    simulate_bench(folder, TINY)
    return folder


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """Frames of the tiny bench's scene (N, H, W, 3)."""
    frames = render_scene(rng(0, "bench", "scene"), TINY.size, TINY.scene_frames, speed=TINY.speed)
    return np.stack(list(frames)).astype(float)


def row_at(scene: np.ndarray, row: int, instant: float) -> np.ndarray:
    """Return a row of the scene at an instant in seconds, between two of its frames."""
    place = instant * TINY.scene_rate
    n = int(place)
    return scene[n, row] + (place - n) * (scene[n + 1, row] - scene[n, row])


def stamps(folder: Path) -> dict[str, float]:
    """Return when each frame begins by the recorder's table, in seconds."""
    with (folder / "take1/stamps.csv").open(newline="") as file:
        return {row["file"]: float(row["start_ms"]) / 1e3 for row in csv.DictReader(file)}


def test_each_row_is_exposed_at_its_own_time_later_than_the_stamps_say(recorded, scene) -> None:
    for name, stamp in stamps(recorded).items():
        blurred = read_rgb(recorded / "take1/frames" / name)
        sharp = read_rgb(recorded / "take1/sharp" / name)
        for row in (0, 11, 23):
            start = stamp + 0.007 + 0.020 * row / 23
            instants = start + 0.012 * (np.arange(400) + 0.5) / 400
            mean = np.mean([row_at(scene, row, at) for at in instants], axis=0)
            np.testing.assert_allclose(blurred[row], mean, atol=0.6)
            np.testing.assert_allclose(sharp[row], row_at(scene, row, start + 0.006), atol=0.6)


def test_lost_frames_show_in_the_stamps_and_not_in_the_names(recorded) -> None:
    names = ["IMG_0001.png", "IMG_0002.png"]
    assert [path.name for path in list_images(recorded / "take1/frames")] == names
    starts = stamps(recorded)
    assert list(starts) == names
    assert np.diff(list(starts.values())) == pytest.approx(2 / 30, abs=1e-6)


def test_spikes_hold_the_light_of_the_scene_by_the_clock_of_the_side_file(recorded, scene) -> None:
    side = read_side_file(recorded / "take1/spike.dat")
    assert (side.rate, side.first) == (4000.0, 0.0)
    file = SpikeFile.open(recorded / "take1/spike.dat", side.spike_geometry())
    assert file.n_frames == 5 * (TINY.scene_frames - 1) + 1
    light = luminance((scene / 255).astype(np.float32))
    light = light.reshape(len(light), 12, 2, 16, 2).mean(axis=(2, 4))
    for first in (40, 90):
        seen = file.tfp(5 * first, 5 * first + 200) / side.gain
        between = light[first : first + 40].mean(axis=0), light[first + 1 : first + 41].mean(axis=0)
        expected = 0.6 * between[0] + 0.4 * between[1]
        np.testing.assert_allclose(seen, expected, atol=0.02)


def test_one_seed_gives_one_recording_and_another_gives_another(recorded, tmp_path) -> None:
    simulate_bench(tmp_path / "same", TINY)
    assert files(tmp_path / "same") == files(recorded)
    simulate_bench(tmp_path / "other", replace(TINY, seed=1))
    assert files(tmp_path / "other")["take1/spike.dat"] != files(recorded)["take1/spike.dat"]


def test_a_recording_is_kept_and_others_are_replaced_only_on_demand(tmp_path) -> None:
    assert simulate_bench(tmp_path, TINY).written
    layout = tmp_path / "layout.yaml"
    layout.write_text(layout.read_text() + "  readout: 20ms\n")
    before = files(tmp_path)
    assert not simulate_bench(tmp_path, TINY).written
    other = replace(TINY, seed=1)
    with pytest.raises(SimulateError, match=r"spike\.dat.*--overwrite"):
        simulate_bench(tmp_path, other)
    assert files(tmp_path) == before
    assert simulate_bench(tmp_path, other, overwrite=True).written
    assert files(tmp_path) != before


@pytest.mark.parametrize("name", ["take1/spike.dat", "take1/notes.txt", "layout.yaml"])
def test_files_of_others_are_not_replaced(name, tmp_path) -> None:
    (tmp_path / "take1").mkdir()
    (tmp_path / name).write_text("mine")
    with pytest.raises(SpikeDeblurError, match=r"--overwrite"):
        simulate_bench(tmp_path, TINY)
    assert files(tmp_path) == {name: b"mine"}


def test_what_a_stopped_run_left_is_not_taken_for_a_recording(
    recorded, tmp_path, monkeypatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "end_recording", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            simulate_bench(tmp_path, TINY)
    assert read_side_file(tmp_path / "take1/spike.dat") is None
    assert simulate_bench(tmp_path, TINY).written
    assert files(tmp_path) == files(recorded)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["--rig", "--scenes", "1", "--size", "64x64"], "leave out --scenes, --size"),
        (["--rig", "--fps", "1000"], "leave out --fps"),
        ([], "one of --frames, --scenes or --rig, got none"),
    ],
)
def test_options_that_the_rig_decides_are_refused(typed, expected, tmp_path, capsys) -> None:
    assert main(["simulate", str(tmp_path / "out"), *typed]) == 2
    assert expected in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_more_flaws_than_pixels_leave_nothing(tmp_path) -> None:
    bench = Bench(flaws=Flaws(hot=10**6))
    with pytest.raises(SimulateError, match="at most half"):
        simulate_bench(tmp_path / "bench", bench)
    assert not list(tmp_path.iterdir())
