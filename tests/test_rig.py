"""The guide of a rig restores its example: clocks apart, a rolling shutter, dropped frames."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from pages import DOCS, blocks, run_page

from spikedeblur.cli import main
from spikedeblur.pipeline.align.calibration import read_calibration
from spikedeblur.pipeline.evaluate.metrics import psnr
from spikedeblur.pipeline.frames.images import read_rgb
from spikedeblur.pipeline.frames.listing import list_images
from spikedeblur.pipeline.simulate.bench import LAYOUT_TEXT, Bench, simulate_bench
from spikedeblur.pipeline.spikes import (
    parse_geometry,
    read_side_file,
    read_spikes,
    write_side_file,
    write_spikes,
)
from spikedeblur.pipeline.spikes.frame_grid import grid_shape

PAGE = DOCS / "how-to/own-camera.md"


MIRROR, SQUARE, LAYOUT, FILE_A_FRAME, THIRD_CAMERA = (text for _, text in blocks(PAGE, "yaml"))
ONE_CLOCK = replace(Bench(), size=(24, 32), spike_size=(12, 16), readout=0.0, late=0.0, flaws=None)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bench of few pixels, whose cameras have one clock."""
    folder = tmp_path_factory.mktemp("tiny")
    simulate_bench(folder, ONE_CLOCK)
    return folder


def test_the_layout_file_that_the_guide_explains_is_the_one_of_the_example() -> None:
    assert LAYOUT == LAYOUT_TEXT


def test_the_calibration_turns_a_mirror_image_back(tmp_path) -> None:
    file = tmp_path / "mirror.yaml"
    file.write_text(MIRROR)
    # The middle of the first spike pixel lies between the last two columns of the frame.
    x, y, one = np.array(read_calibration(file).matrix).reshape(3, 3) @ (0.5, 0.5, 1.0)
    assert (x / one, y / one) == pytest.approx((639.0, 1.0))


def test_square_pixels_lie_in_the_frames_of_the_example_as_the_guide_says(tmp_path) -> None:
    file, bench = tmp_path / "square.yaml", Bench()
    file.write_text(SQUARE)
    found = read_calibration(file)
    assert (found.spike_shape, found.frame_shape) == (bench.spike_size, bench.size)
    corners = found.to_spikes(np.array([[0.0, 0.0], [640.0, 480.0], [320.0, 240.0]]))
    inside = 640 / 1.92 / 2  # spike pixels that the frame shows on each side of the middle
    expected = [[200 - inside, 0], [200 + inside, 250], [200, 125]]
    np.testing.assert_allclose(corners, expected)


@pytest.mark.parametrize(
    ("spikes", "frames", "light"),
    re.findall(r"^\| (\d+x\d+) \| (\d+x\d+) \| (\d+x\d+)", PAGE.read_text("utf-8"), re.MULTILINE),
)
def test_light_lies_in_the_grids_of_the_guide(spikes: str, frames: str, light: str) -> None:
    of_spikes, of_frames, grid = (tuple(map(int, x.split("x"))) for x in (spikes, frames, light))
    assert grid_shape(of_frames, of_spikes) == grid


def test_a_file_for_each_frame_has_samples_before_and_after_as_drawn(tiny, tmp_path) -> None:
    take = tmp_path / "take1"
    shutil.copytree(tiny / "take1/frames", take / "frames")
    shutil.copy(tiny / "take1/stamps.csv", take)
    geometry = parse_geometry("12x16,bottom-up")
    whole = read_spikes(tiny / "take1/spike.dat", geometry)
    side = read_side_file(tiny / "take1/spike.dat")
    counts = []
    for name, i in enumerate(ONE_CLOCK.kept, start=1):
        first = round(20_000 * ONE_CLOCK.begins(i))
        counts.append(int(whole[first : first + 240].sum()))
        dat = take / f"spikes/{name:04d}.dat"
        dat.parent.mkdir(exist_ok=True)
        write_spikes(dat, whole[first - 100 : first + 300], geometry)
        write_side_file(dat, side)
    assert align_by(tmp_path, FILE_A_FRAME) == 0
    (sequence,) = json.loads((tmp_path / "o.json").read_text())["sequences"]
    assert [window["spike_count"] for window in sequence["windows"]] == counts


def test_a_third_cameras_frames_are_numbered_as_drawn(tiny, tmp_path) -> None:
    shutil.copytree(tiny / "take1", tmp_path / "take1")
    drawn = re.findall(r"sharp frames +([\d ]+)\.\.\.", PAGE.read_text(encoding="utf-8"))[0]
    shutil.rmtree(tmp_path / "take1/sharp")
    for number in range(30):
        frame = tiny / "take1/sharp/IMG_0001.png"
        target = tmp_path / f"take1/sharp/{number:04d}.png"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(frame, target)
    assert drawn.split() == [str(number) for number in range(12)]
    assert align_by(tmp_path, THIRD_CAMERA) == 0
    (sequence,) = json.loads((tmp_path / "o.json").read_text())["sequences"]
    pairs = {window["frame_index"]: window["sharp"] for window in sequence["windows"]}
    assert pairs[1] == "take1/sharp/0005.png"
    assert pairs[2] == "take1/sharp/0009.png"


def align_by(folder: Path, more: str) -> int:
    """Align a bench by the guide's layout file with other keys in place of its own."""
    content = yaml.safe_load(LAYOUT) | yaml.safe_load(more)
    layout = folder / "layout.yaml"
    layout.write_text(yaml.safe_dump(content))
    words = ["align", folder, "--layout", layout, "--log", folder / "o.txt", "--no-verify"]
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every command of the guide was run."""
    folder = tmp_path_factory.mktemp("guided")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_page(PAGE)
    return folder


@pytest.fixture(scope="module")
def ideal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same scene recorded by cameras of one clock, without rolling shutter, nothing dropped."""
    folder = tmp_path_factory.mktemp("ideal")
    simulate_bench(folder, replace(Bench(), readout=0.0, late=0.0, dropped=()))
    camera = ["--frame-rate", "30", "--shutter", "12ms", "--start", "50ms"]
    take = [*("--blur", str(folder / "take1/frames")), "--spikes", str(folder / "take1/spike.dat")]
    for name, how in METHODS.items():
        assert main(["restore", *take, *camera, *how, "--out", str(folder / name)]) == 0
    return folder


METHODS = {"sharp-path": ("--method", "path")}
"""By the folder that the guide restores to; with `--model small` it comes to the same."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_guide_finds_lag_and_readout_as_it_says(guided: Path) -> None:
    bench, page = Bench(), PAGE.read_text(encoding="utf-8")
    (sequence,) = json.loads((guided / "outputs/logs/align_rig.json").read_text())["sequences"]
    assert sequence["verification"]["lag_seconds"] == pytest.approx(bench.late, abs=1e-4)
    first = sequence["windows"][0]["first"]
    assert first == pytest.approx(-bench.late, abs=1e-4)
    assert set(re.findall(r"--first (-7\S*)ms", page)) == {f"{1e3 * first:.3f}"}
    unread = ["align", str(guided / "bench"), "--layout", str(guided / "bench/layout.yaml")]
    assert main([*unread, "--log", str(guided / "again.txt")]) == 0
    (sequence,) = json.loads((guided / "again.json").read_text())["sequences"]
    assert sequence["verification"]["problem"] == "rolling shutter"
    assert sequence["verification"]["readout"] == pytest.approx(bench.readout, abs=1e-3)
    assert f"--readout {1e3 * sequence['verification']['readout']:.3g}ms" in page


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", METHODS)
def test_the_rig_is_restored_as_well_as_a_recording_of_ideal_cameras(name, guided, ideal) -> None:
    bench = Bench()
    rig = quality(guided / name / "test/take1", guided / "bench/take1/sharp")
    twin = quality(ideal / name, ideal / "take1/sharp")
    kept = [twin[i] for i in bench.kept]
    print(f"{name}: {np.mean(rig):.2f} dB, {np.mean(kept):.2f} by ideal cameras")
    assert len(rig) == 6
    assert len(twin) == 8
    assert np.mean(rig) > np.mean(kept) - 0.5


def quality(restored: Path, sharp: Path) -> list[float]:
    """Return the PSNR of each restored frame, in dB."""
    files = list_images(restored)
    return [psnr(read_rgb(file), read_rgb(sharp / file.name)) for file in files]
