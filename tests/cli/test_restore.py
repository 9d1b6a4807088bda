"""`spikedeblur restore` as a user types it, on simulated and aligned scenes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from spikedeblur.cli import main
from spikedeblur.pipeline.align import align
from spikedeblur.pipeline.evaluate.metrics import psnr
from spikedeblur.pipeline.frames.images import read_rgb
from spikedeblur.pipeline.frames.video import read_video, write_video
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.rig import Rig


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("restore")
    simulate(folder, scene_clips("test", 1, (64, 64), 65), Rig(), workers=1)
    align(folder, "x4k1000fps", log=folder / "log.txt", manifest=folder / "m.json")
    return folder


def arguments(data: Path, out: Path, *more: object) -> list[str]:
    (blur,) = {path.parent for path in data.glob("test_blurry_33/*/*/*.png")}
    clip = blur.relative_to(data / "test_blurry_33")
    spikes = data / "test_spike_2xds" / clip / "spike.dat"
    paths = ["--blur", blur, "--spikes", spikes, "--out", out]
    return ["restore", *map(str, paths), *map(str, more)]


def mean_psnr(data: Path, folder: Path) -> float:
    (sharp,) = {path.parent for path in data.glob("test_fullRGB/*/*/*.png")}
    names = [path.name for path in sorted(folder.glob("*.png"))]
    assert names == ["0016.png", "0031.png", "0046.png"]
    return float(np.mean([psnr(read_rgb(folder / n), read_rgb(sharp / n)) for n in names]))


def test_sdm_gains_over_blur_on_a_simulated_scene(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = data / "log.txt"
    assert main(arguments(data, tmp_path / "sdm", "--method", "sdm", "--log", log)) == 0
    assert "3 frames restored by sdm" in capsys.readouterr().out
    assert main(arguments(data, tmp_path / "blur", "--method", "blur", "--log", log)) == 0
    gain = mean_psnr(data, tmp_path / "sdm") - mean_psnr(data, tmp_path / "blur")
    print(f"SDM gains {gain:.2f} dB")
    assert gain > 1
    assert main(arguments(data, tmp_path / "sdm", "--method", "sdm", "--log", log)) == 0
    assert "0 frames restored by sdm" in capsys.readouterr().out


def test_the_gain_that_was_taken_is_printed(data: Path, tmp_path: Path, capsys) -> None:
    more = ["--method", "tfp", "--log", data / "log.txt"]
    assert main(arguments(data, tmp_path / "a", *more)) == 0
    assert f"3 frames restored by tfp in {tmp_path / 'a'}, gain 0.5\n" in capsys.readouterr().out
    assert main(arguments(data, tmp_path / "b", *more, "--gain", 0.7)) == 0
    assert ", gain 0.7\n" in capsys.readouterr().out
    words = arguments(data, tmp_path / "c", *more)
    at = words.index("--spikes") + 1
    shutil.copy(words[at], tmp_path / "alone.dat")
    words[at] = str(tmp_path / "alone.dat")
    words += ["--geometry", "32x32,bottom-up", "--rate", "8000", "--seq", "test/scenes/00000"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    (measured,) = re.findall(r"gain ([\d.]+) as the blurred frames show it", printed)
    assert abs(float(measured) - 0.5) < 0.01
    assert main(arguments(data, tmp_path / "d", "--method", "blur", *more[2:])) == 0
    assert ", gain" not in capsys.readouterr().out


def test_path_says_the_gain_that_it_measured_whatever_is_given(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--method", "path", "--log", data / "log.txt", "--gain", 0.7]
    assert main(arguments(data, tmp_path / "a", *more)) == 0
    said = capsys.readouterr()
    (measured,) = re.findall(r"gain ([\d.]+) as the blurred frames show it", said.out)
    assert abs(float(measured) - 0.5) < 0.01
    assert main(arguments(data, tmp_path / "a", *more)) == 0
    assert ", gain" not in capsys.readouterr().out, "nothing was restored, so none was taken"


def test_exposure_and_frame_rate_do_without_a_log(data: Path, tmp_path: Path) -> None:
    by_log, by_number = tmp_path / "a", tmp_path / "b"
    log = data / "log.txt"
    assert main(arguments(data, by_log, "--method", "sdm", "--log", log)) == 0
    more = ["--exposure", 33, "--fps", 1000]
    assert main(arguments(data, by_number, "--method", "sdm", *more)) == 0
    for path in sorted(by_log.glob("*.png")):
        assert path.read_bytes() == (by_number / path.name).read_bytes()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--exposure", "33", "--fps", "1000"], "--method path"),
        (["--method", "sdm"], "--log"),
        (["--method", "sdm", "--exposure", "33"], "--fps"),
        (["--method", "sdm", "--run", "x", "--log", "y"], "takes no trained model"),
        (["--method", "sdn", "--log", "y"], "sdn"),
    ],
)
def test_wrong_use_exits_with_2(
    more: list[str],
    message: str,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(arguments(data, tmp_path / "out", *more)) == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_an_unusable_input_exits_with_1_and_one_paragraph(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--method", "sdm", "--exposure", 33, "--fps", 100]
    assert main(arguments(data, tmp_path / "out", *more)) == 1
    error = capsys.readouterr().err
    assert "check rate, fps" in error
    assert "Traceback" not in error


def test_videos_go_in_and_come_out(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    (blur,) = {path.parent for path in data.glob("test_blurry_33/*/*/*.png")}
    write_video(tmp_path / "blur.mp4", sorted(blur.glob("*.png")), 30)
    numbers = ["--method", "sdm", "--exposure", 33, "--fps", 1000]
    command = arguments(data, tmp_path / "out", *numbers, "--step", 15)
    command[command.index("--blur") + 1] = str(tmp_path / "blur.mp4")
    assert main([*command, "--video", str(tmp_path / "sharp.mp4")]) == 0
    names = [path.name for path in sorted((tmp_path / "out").glob("*.png"))]
    assert names == ["000016.png", "000031.png", "000046.png"]
    assert main(arguments(data, tmp_path / "png", *numbers)) == 0
    sharp = list(read_video(tmp_path / "sharp.mp4", 3))
    for name, frame in zip(("0016", "0031", "0046"), sharp, strict=True):
        assert psnr(frame, read_rgb(tmp_path / "png" / f"{name}.png")) > 28


def test_spikes_that_can_not_be_used_are_told_before_a_video_is_decoded(
    data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("av")
    (blur,) = {path.parent for path in data.glob("test_blurry_33/*/*/*.png")}
    write_video(tmp_path / "blur.mp4", sorted(blur.glob("*.png")), 30)
    command = arguments(data, tmp_path / "out", "--method", "sdm", "--exposure", 33, "--fps", 1000)
    command[command.index("--blur") + 1] = str(tmp_path / "blur.mp4")
    command[command.index("--spikes") + 1] = str(tmp_path / "none.dat")
    assert main(command) == 1
    assert not (tmp_path / "out").exists()


def test_sixteen_bits_make_no_video(data: Path, tmp_path: Path, capsys) -> None:
    pytest.importorskip("cv2")
    more = ["--method", "sdm", "--exposure", 33, "--fps", 1000]
    assert main(arguments(data, tmp_path / "out", *more, "--bits", 16)) == 0
    png = (tmp_path / "out" / "0031.png").read_bytes()
    assert (png[24], png[25]) == (16, 2)  # depth, and colour type RGB
    capsys.readouterr()
    video = ["--bits", 16, "--video", tmp_path / "x.mp4"]
    assert main(arguments(data, tmp_path / "other", *more, *video)) == 2
    assert "8-bit frames" in " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def two_recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    for split, scenes in (("test", 2), ("val", 1)):
        simulate(folder, scene_clips(split, scenes, (32, 32), 65), Rig(), workers=1)
    align(folder, "x4k1000fps", log=folder / "log.txt", manifest=folder / "m.json")
    return folder


def test_a_manifest_restores_each_recording_as_by_itself(
    two_recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = two_recordings, tmp_path / "all"
    command = ["restore", "--manifest", str(folder / "m.json"), "--split", "test"]
    command += ["--method", "sdm", "--frames-per-exposure", "2", "--out", str(out)]
    assert main(command) == 0
    assert "12 frames of 2 recordings restored by sdm" in capsys.readouterr().out
    for clip in ("00000", "00001"):
        one = ["restore", "--blur", str(folder / "test_blurry_33/scenes" / clip)]
        one += ["--spikes", str(folder / "test_spike_2xds/scenes" / clip / "spike.dat")]
        one += ["--log", str(folder / "log.txt"), "--method", "sdm"]
        one += ["--frames-per-exposure", "2", "--out", str(tmp_path / clip)]
        assert main(one) == 0
        alone, together = tmp_path / clip, out / "test/scenes" / clip
        frames = sorted(alone.glob("*.png"))
        assert len(frames) == 6
        for frame in frames:
            assert frame.read_bytes() == (together / frame.name).read_bytes()
    assert not (out / "val").exists()
    (out / "test/scenes/00001/0016_0.png").unlink()
    capsys.readouterr()
    assert main(command) == 0
    assert "1 frame of 2 recordings restored by sdm" in capsys.readouterr().out
    assert main([*command, "--short-bins", "3"]) == 1
    assert "short_bins" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--blur", "x"], "leave out --blur"),
        (["--split", "dev"], "expected train, val or test, got dev"),
    ],
)
def test_a_manifest_beside_one_recordings_options_exits_with_2(
    more: list[str],
    message: str,
    two_recordings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["restore", "--manifest", str(two_recordings / "m.json"), "--method", "sdm"]
    assert main([*command, "--out", str(tmp_path / "out"), *more]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
