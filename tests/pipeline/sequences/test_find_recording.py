"""A recording is found from files and options: frames, times, spike settings."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from short_recordings import BY_NUMBER, GEOMETRY, by_log, found

from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.clocks.camera import CameraClock
from spikedeblur.pipeline.frames.images import write_png
from spikedeblur.pipeline.sequences.find_recording import (
    ExposureTimes,
    find_frames,
    find_recording,
    settle_spikes,
)
from spikedeblur.pipeline.sequences.recording import RecordingError
from spikedeblur.pipeline.spikes import SideFile, write_side_file
from spikedeblur.pipeline.spikes.settings import SpikeOptions, SpikeSettingsError
from spikedeblur.pipeline.spikes.sidefile import write_folder_side_file


@pytest.mark.parametrize(
    "given",
    [{}, {"exposure": 33}, {"fps": 1000.0}, {"log": "x", "fps": 1000.0}],
)
def test_times_that_are_missing_or_given_twice_are_refused(given) -> None:
    with pytest.raises(
        RecordingError, match=r"--frame-rate 30 --shutter 16ms.*or --log; or.*--exposure and --fps"
    ):
        ExposureTimes(**given)


def test_videos_and_steps_go_together(recording) -> None:
    with pytest.raises(RecordingError, match="leave out --step"):
        found(recording, ExposureTimes(exposure=33, fps=1000.0, step=15))
    with pytest.raises(RecordingError, match="frames have no numbers"):
        find_recording(
            recording / "x.mp4",
            recording / "spike.dat",
            ExposureTimes(log=recording / "align.txt"),
            decode_to=recording / "out",
        )


def test_a_frame_without_a_row_is_named(recording) -> None:
    write_png(recording / "test_blurry_33/Type1/clip/0032.png", np.zeros((96, 96, 3), np.uint8))
    with pytest.raises(RecordingError, match=r"0032\.png.*frame 32"):
        by_log(recording)


def settled(dat: Path, **keywords):
    return settle_spikes(dat, SpikeOptions(**keywords))


def test_what_is_not_known_of_the_spikes_must_be_said(tmp_path: Path) -> None:
    dat = tmp_path / "x.dat"
    with pytest.raises(SpikeSettingsError, match="--geometry"):
        settled(dat)
    with pytest.raises(SpikeSettingsError, match="--rate"):
        settled(dat, geometry=GEOMETRY)
    preset = settled(dat, geometry="spk-gopro")
    assert (preset.rate, preset.gain, preset.first) == (1920.0, 0.5, 0.0)
    assert settled(dat, geometry=GEOMETRY, rate=100.0).gain is None


@pytest.mark.parametrize("gain", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_gain_is_refused(tmp_path: Path, gain: float) -> None:
    with pytest.raises(SpikeSettingsError, match="--gain above 0"):
        settled(tmp_path / "x.dat", geometry=GEOMETRY, rate=100.0, gain=gain)


def test_an_option_wins_over_the_side_file_with_a_warning(tmp_path: Path) -> None:
    dat = tmp_path / "x.dat"
    write_side_file(dat, SideFile(geometry=GEOMETRY, rate=100.0, gain=0.5, first=2.0))
    assert settled(dat).first == 2.0
    assert settled(dat).warnings == ()
    chosen = settled(dat, rate=200.0, geometry="48x48,top-down")
    assert chosen.rate == 200.0
    assert not chosen.geometry.flip_rows
    assert len(chosen.warnings) == 2
    moved = settled(dat, first=1.5)
    assert moved.first == 1.5
    assert moved.warnings == ("--first 1.5 taken over the side file's 2",)


def test_a_folders_side_file_does_not_say_when_one_file_begins(tmp_path: Path) -> None:
    write_folder_side_file(tmp_path, SideFile(geometry=GEOMETRY, rate=100.0))
    with pytest.raises(RecordingError, match="--first"):
        settled(tmp_path / "0031.dat")
    chosen = settled(tmp_path / "0031.dat", first=0.5)
    assert (chosen.first, chosen.warnings) == (0.5, ())
    assert settled(tmp_path / "spike.dat").first == 0.0


def test_interpolated_names_count_in_fours(tmp_path: Path) -> None:
    for name in ("0004.png", "0007_002.png"):
        write_png(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    assert list(find_frames(tmp_path)) == [16, 31]
    (tmp_path / "cover.png").write_bytes(b"")
    with pytest.raises(RecordingError, match=r"cover\.png"):
        find_frames(tmp_path)


def test_a_file_that_is_no_image_is_refused_as_blurred_frames(recording) -> None:
    with pytest.raises(RecordingError, match=r"spike\.dat: expected a folder of blurred frames or"):
        find_recording(recording / "spike.dat", recording / "spike.dat", BY_NUMBER)


def test_what_a_folder_lacks_or_holds_besides_is_said(recording) -> None:
    clip = recording / "test_blurry_33/Type1/clip"
    images = sorted(clip.glob("*.png"))
    assert not any("missing" in warning for warning in found(recording).settings.warnings)
    (clip / "0600.webp").write_bytes(images[0].read_bytes())
    images[0].rename(clip / "0000.png")  # outside the recording, if it were exposed so early
    images[1].unlink()
    by_clock = ExposureTimes(camera=CameraClock(frame_rate=100, shutter=5e-3))
    warnings = " ".join(found(recording, by_clock).settings.warnings)
    assert "0600.webp: not read by ending" in warnings
    (clip / "00.png").write_bytes((clip / "0000.png").read_bytes())
    with pytest.raises(RecordingError, match=r"00\.png and 0000\.png are both the frame"):
        found(recording, by_clock)
    (clip / "00.png").rename(clip / "other_1.png")
    warnings = " ".join(found(recording, by_clock).settings.warnings)
    assert "names are of several kinds, such as 0000.png and other_1.png" in warnings


def test_a_hole_in_the_numbers_is_named(recording) -> None:
    clip = recording / "test_blurry_33/Type1/clip"
    frame = (clip / "0031.png").read_bytes()
    for number in (32, 33, 35):
        (clip / f"{number:04d}.png").write_bytes(frame)
    for number in (16, 46):
        (clip / f"{number:04d}.png").unlink()
    assert any(
        "after 0033.png comes 0035.png; the frames between them are missing" in warning
        for warning in found(recording).settings.warnings
    )


@pytest.mark.parametrize("gain", [1e308, 1e-308, 5e-324, 1e7])
def test_a_gain_that_no_camera_has_is_refused(recording, gain) -> None:
    with pytest.raises(SpikeDeblurError, match="expected --gain of 1e-06 to 1e\\+06"):
        found(recording, gain=gain)
    side = recording / "spike.dat.json"
    side.write_text(re.sub(r'"gain": [0-9.]+', f'"gain": {gain}', side.read_text()))
    with pytest.raises(SpikeDeblurError, match=r"spike\.dat\.json.*gain"):
        found(recording)
