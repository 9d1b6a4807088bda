import hashlib
from pathlib import Path

import numpy as np
import pytest
from aligning import Listener
from PIL import Image

from spikedeblur import __version__
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.frames.images import (
    ImageError,
    read_rgb,
    write_png,
)
from spikedeblur.pipeline.frames.listing import FrameNameError
from spikedeblur.pipeline.frames.srgb import decode_srgb, encode_srgb
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import SimulateError, folder_clips, scene_clips
from spikedeblur.pipeline.simulate.record import area_mean
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.spikes import SpikeFile, read_side_file, tfp
from spikedeblur.pipeline.spikes.camera import luminance

SMALL = Rig(exposure=5, stride=3, spikes_per_frame=4)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_clip(folder: Path, frames: np.ndarray, first: int = 0) -> None:
    for i, frame in enumerate(frames, start=first):
        write_png(folder / f"{i:04d}.png", frame)


@pytest.fixture
def random_frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, 16, 24, 3), dtype=np.uint8)


def test_blur_is_the_mean_of_the_exposure_and_sharp_its_centre(tmp_path, random_frames):
    write_clip(tmp_path / "in/val/g/c", random_frames)
    simulate(tmp_path / "out", folder_clips(tmp_path / "in"), SMALL, workers=1)
    blurred = sorted((tmp_path / "out/val_blurry_5/g/c").iterdir())
    assert [path.name for path in blurred] == ["0002.png", "0005.png", "0008.png"]
    for path in blurred:
        centre = int(path.stem)
        mean = random_frames[centre - 2 : centre + 3].mean(axis=0)
        np.testing.assert_allclose(read_rgb(path), mean, atol=0.5 + 1e-9)
        sharp = read_rgb(tmp_path / "out/val_fullRGB/g/c" / path.name)
        np.testing.assert_array_equal(sharp, random_frames[centre])


def test_linear_light_averages_light_and_records_light(tmp_path, random_frames):
    frames = np.repeat(random_frames[:1], 11, axis=0)
    frames[::2] = 255 - frames[::2]
    write_clip(tmp_path / "in/val/g/c", frames)
    linear = Rig(exposure=5, stride=3, spikes_per_frame=40, linear_light=True)
    simulate(tmp_path / "out", folder_clips(tmp_path / "in"), linear, workers=1)
    light = decode_srgb(frames)
    expected = encode_srgb(light[3:8].mean(axis=0))
    blurred = read_rgb(tmp_path / "out/val_blurry_5/g/c/0005.png")
    assert np.abs(blurred.astype(int) - expected).max() <= 1
    spike_path = tmp_path / "out/val_spike_2xds/g/c/spike.dat"
    side = read_side_file(spike_path)
    picture = tfp(SpikeFile.open(spike_path, side.spike_geometry()).read(), side.gain)
    mean = area_mean(luminance(light[:10].mean(axis=0) + (light[10] - light[0]) / 20), 2)
    np.testing.assert_allclose(picture, mean, atol=0.02)


def test_srgb_codes_survive_the_way_to_light_and_back():
    codes = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(encode_srgb(decode_srgb(codes)), codes)


def test_spikes_hold_the_interpolated_light_at_the_recorded_clock(tmp_path):
    gray = np.linspace(20, 220, 11).astype(np.uint8)
    frames = np.broadcast_to(gray[:, None, None, None], (11, 16, 16, 3))
    write_clip(tmp_path / "in/train/g/c", frames, first=40)
    simulate(tmp_path / "out", folder_clips(tmp_path / "in"), SMALL, workers=1)
    spike_path = tmp_path / "out/train_spike_2xds/g/c/spike.dat"
    side = read_side_file(spike_path)
    assert (side.rate, side.first, side.gain) == (4000.0, 0.04, 0.5)
    spikes = SpikeFile.open(spike_path, side.spike_geometry()).read()
    assert spikes.shape == (41, 8, 8)  # ten intervals of four samples, and the last frame
    light = np.interp(np.arange(41) / 4, np.arange(11), gray / 255.0)
    np.testing.assert_allclose(
        spikes.mean(axis=(1, 2)).cumsum(), light.cumsum() * side.gain, atol=0.3
    )
    assert (tmp_path / "out/train_blurry_5/g/c/0042.png").is_file()


def test_the_result_depends_on_neither_workers_nor_other_clips(tmp_path):
    clips = scene_clips("train", 3, (32, 32), 11)
    simulate(tmp_path / "one", clips, SMALL, workers=1)
    simulate(tmp_path / "two", clips, SMALL, workers=2)
    simulate(tmp_path / "last", clips[2:], SMALL, workers=1)
    one = snapshot(tmp_path / "one")
    assert one == snapshot(tmp_path / "two")
    assert snapshot(tmp_path / "last").items() <= one.items()


def test_a_second_run_keeps_what_is_there_and_other_settings_are_refused(tmp_path):
    clips = scene_clips("test", 2, (32, 32), 11)
    assert simulate(tmp_path, clips, SMALL, workers=1).written == 2
    before = snapshot(tmp_path)
    again = simulate(tmp_path, clips, SMALL, workers=1)
    assert (again.written, again.kept) == (0, 2)
    other = Rig(exposure=5, stride=3, spikes_per_frame=4, threshold=3.0)
    with pytest.raises(SimulateError, match=r"spike\.dat.*--overwrite"):
        simulate(tmp_path, clips, other, workers=1)
    assert snapshot(tmp_path) == before
    assert simulate(tmp_path, clips, other, workers=1, overwrite=True).written == 2
    assert read_side_file(tmp_path / "test_spike_2xds/scenes/00000/spike.dat").gain == 1 / 3


def test_a_killed_clip_is_made_again_with_the_same_result(tmp_path, monkeypatch):
    clips = scene_clips("train", 2, (32, 32), 11)
    simulate(tmp_path / "whole", clips, SMALL, workers=1)

    class Killed(BaseException):
        pass

    def killed(*arguments):
        raise Killed

    from spikedeblur.pipeline.simulate import record as job

    monkeypatch.setattr(job, "write_side_file", killed)
    with pytest.raises(Killed):
        simulate(tmp_path / "cut", clips, SMALL, workers=1)
    monkeypatch.undo()
    simulate(tmp_path / "cut", clips, SMALL, workers=1)
    assert snapshot(tmp_path / "cut") == snapshot(tmp_path / "whole")


def test_frames_of_another_origin_are_not_removed(tmp_path):
    clips = scene_clips("val", 1, (32, 32), 11)
    write_clip(tmp_path / "val_fullRGB/scenes/00000", np.zeros((2, 8, 8, 3), np.uint8))
    before = snapshot(tmp_path)
    with pytest.raises(SimulateError, match=r"val_fullRGB/scenes/00000: holds files"):
        simulate(tmp_path, clips, SMALL, workers=1)
    assert snapshot(tmp_path) == before
    assert simulate(tmp_path, clips, SMALL, workers=1, overwrite=True).written == 1


@pytest.mark.parametrize("folder", ["val_blurry_5", "val_spike_2xds/g", "val_fullRGB/g/c"])
def test_nothing_is_replaced_through_a_link_out_of_the_output(tmp_path, random_frames, folder):
    write_clip(tmp_path / "in/val/g/c", random_frames)
    clips, out = folder_clips(tmp_path / "in"), tmp_path / "out"
    simulate(out, clips, SMALL, workers=1)
    (out / folder).rename(tmp_path / "elsewhere")
    (out / folder).symlink_to(tmp_path / "elsewhere")
    before = snapshot(tmp_path)
    with pytest.raises(SpikeDeblurError, match="is a link that leaves"):
        simulate(out, clips, SMALL, workers=1, overwrite=True)
    assert snapshot(tmp_path) == before


def test_the_side_file_records_what_the_clip_was_made_from(tmp_path, random_frames):
    write_clip(tmp_path / "in/val/g/c", random_frames)
    simulate(tmp_path / "out", folder_clips(tmp_path / "in"), SMALL, workers=1)
    made_by = read_side_file(tmp_path / "out/val_spike_2xds/g/c/spike.dat").made_by
    files = sorted((tmp_path / "in/val/g/c").iterdir())
    content = b"".join(path.read_bytes() for path in files)
    assert made_by["frames_sha256"] == hashlib.sha256(content).hexdigest()
    assert made_by["version"] == __version__
    assert {name: made_by[name] for name in SMALL.recorded()} == SMALL.recorded()


def test_scenes_that_were_drawn_another_way_are_not_kept(tmp_path, monkeypatch):
    clips = scene_clips("test", 1, (32, 32), 11)
    simulate(tmp_path, clips, SMALL, workers=1)
    monkeypatch.setattr("spikedeblur.pipeline.simulate.record.REVISION", 1)
    with pytest.raises(SimulateError, match=r"spike\.dat.*--overwrite"):
        simulate(tmp_path, clips, SMALL, workers=1)


def test_a_gap_in_the_frames_is_refused_by_name(tmp_path, random_frames):
    write_clip(tmp_path / "train/g/c", random_frames)
    (tmp_path / "train/g/c/0004.png").unlink()
    with pytest.raises(SimulateError, match=r"frame 4 is missing"):
        folder_clips(tmp_path)


def test_too_few_frames_for_the_exposure_are_refused_by_name(tmp_path, random_frames):
    write_clip(tmp_path / "train/g/c", random_frames)
    with pytest.raises(SimulateError, match=r"train/g/c: expected at least 33 frames"):
        simulate(tmp_path / "out", folder_clips(tmp_path), Rig(), workers=1)
    assert not (tmp_path / "out").exists()


def test_odd_sides_and_frames_of_another_size_are_refused_by_name(tmp_path, random_frames):
    write_clip(tmp_path / "a/train/g/c", random_frames[:, :15])
    with pytest.raises(SimulateError, match="15x24"):
        simulate(tmp_path / "out", folder_clips(tmp_path / "a"), SMALL, workers=1)
    write_clip(tmp_path / "b/train/g/c", random_frames)
    write_png(tmp_path / "b/train/g/c/0007.png", random_frames[0, :14])
    with pytest.raises(ImageError, match=r"0007\.png.*14x24"):
        simulate(tmp_path / "out", folder_clips(tmp_path / "b"), SMALL, workers=1)


def test_a_bad_clip_in_a_worker_keeps_its_message(tmp_path, random_frames):
    for clip in "abc":
        write_clip(tmp_path / "in/train/g" / clip, random_frames)
    (tmp_path / "in/train/g/b/0003.png").write_bytes(b"not a picture")
    with pytest.raises(ImageError, match=r"b/0003\.png"):
        simulate(tmp_path / "out", folder_clips(tmp_path / "in"), SMALL, workers=2)


def test_an_empty_folder_says_what_was_expected(tmp_path):
    with pytest.raises(SimulateError, match=r"<group>/<clip>/0000\.png"):
        folder_clips(tmp_path)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_jpeg_and_bmp_frames_are_read(tmp_path, random_frames, suffix):
    folder = tmp_path / "in/test/g/c"
    folder.mkdir(parents=True)
    for i, frame in enumerate(random_frames):
        Image.fromarray(frame).save(folder / f"{i:04d}{suffix}")
    assert simulate(tmp_path / "out", folder_clips(tmp_path / "in"), SMALL, workers=1).windows == 3


@pytest.mark.parametrize("wrong", [{"exposure": 4}, {"stride": 0}, {"fps": 0.0}])
def test_impossible_rigs_are_refused(wrong):
    with pytest.raises(SpikeDeblurError):
        Rig(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": float("nan")}, {"threshold": 0.0}, {"noise": 1.0}, {"fps": 1e308}],
)
def test_an_impossible_camera_is_refused_before_a_scene_is_rendered(wrong):
    with pytest.raises(SpikeDeblurError, match=r"expected"):
        Rig(**wrong)


def test_more_spikes_than_the_disk_holds_are_refused_and_nothing_is_written(tmp_path):
    clips = scene_clips("val", 1, (999_999, 999_999), 11)
    with pytest.raises(SimulateError, match=r"MB of spikes, found .* MB free"):
        simulate(tmp_path / "out", clips, Rig(exposure=5, spike_scale=1), workers=1)
    assert not list(tmp_path.iterdir())


def test_more_scenes_than_their_names_can_tell_apart_are_refused():
    with pytest.raises(SimulateError, match=r"--scenes of 1 to 100000"):
        scene_clips("val", 1_000_000_000, (16, 16), 11)


def test_odd_sides_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(SimulateError, match=r"val/scenes/00000: .*33x47"):
        simulate(tmp_path / "out", scene_clips("val", 1, (33, 47), 11), SMALL, workers=1)
    assert not list(tmp_path.iterdir())


def test_a_number_there_twice_at_the_end_is_named(tmp_path, random_frames):
    write_clip(tmp_path / "val/g/c", random_frames[:2])
    write_png(tmp_path / "val/g/c/01.png", random_frames[0])
    with pytest.raises(FrameNameError, match=r"0001.png and 01.png are both frame 1"):
        folder_clips(tmp_path)


def test_frames_of_the_extended_test_set_are_left_out_and_told(tmp_path, random_frames):
    folder = tmp_path / "test/Type1/TEST01"
    write_clip(folder, random_frames)
    for number in range(1000, 1256, 32):
        write_png(folder / f"{number:04d}.png", random_frames[0])
    listener = Listener()
    (clip,) = folder_clips(tmp_path, reporter=listener)
    assert (clip.first, clip.n_frames) == (0, 11)
    assert listener.notes == [
        "test/Type1/TEST01: frames from 1000 on, of the extended X-TEST, left out"
    ]
    for i in range(11):
        (folder / f"{i:04d}.png").unlink()
    with pytest.raises(SimulateError, match="32 apart, as in the extended X-TEST"):
        folder_clips(tmp_path)


def test_spikes_of_any_size_see_the_mean_light_on_their_pixels(tmp_path):
    plane = np.random.default_rng(0).integers(40, 216, (6, 10), dtype=np.uint8)
    frames = np.broadcast_to(plane.repeat(5, 0).repeat(6, 1)[..., None], (11, 30, 60, 3))
    write_clip(tmp_path / "in/val/g/c", frames)
    rig = Rig(exposure=5, stride=3, spikes_per_frame=40, spike_size=(12, 25))
    simulate(tmp_path / "out", folder_clips(tmp_path / "in"), rig, workers=1)
    spike_path = tmp_path / "out/val_spike_2xds/g/c/spike.dat"
    side = read_side_file(spike_path)
    assert side.made_by["spike_size"] == "12x25"
    assert side.geometry == "12x25,bottom-up"
    picture = tfp(SpikeFile.open(spike_path, side.spike_geometry()).read(), side.gain)
    np.testing.assert_allclose(picture.mean(), plane.mean() / 255, atol=0.005)
    whole = picture.reshape(6, 2, 5, 5).mean((1, 3))  # 5x6 of 10x12 frame pixels
    expected = plane.reshape(6, 5, 2).mean(2) / 255
    np.testing.assert_allclose(whole, expected, atol=0.02)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (Rig(exposure=5, spike_scale=5), "multiples of --spike-scale 5, got 32x32; give --spike-s"),
        (Rig(exposure=5, spike_size=(4, 4)), None),
    ],
)
def test_a_scale_that_does_not_divide_is_told_what_does(tmp_path, how, message):
    clips = scene_clips("train", 1, (32, 32), 11)
    if message is None:
        assert simulate(tmp_path, clips, how, workers=1).written == 1
        assert Rig(exposure=5).recorded().keys() == how.recorded().keys() - {"spike_size"}
        return
    with pytest.raises(SimulateError, match=message):
        simulate(tmp_path, clips, how, workers=1)
