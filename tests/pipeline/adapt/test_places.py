"""Fitting a model to spikes of other sizes and places than the frames', and of unequal pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from aligning import Listener
from training_sets import SMALL

from spikedeblur.configs import load_config
from spikedeblur.model import build_model
from spikedeblur.pipeline.adapt import Adapting, job
from spikedeblur.pipeline.adapt.camera import AdaptError, Camera, fit_curve
from spikedeblur.pipeline.calibrate.sensor_file import SensorRecord, read_sensor, write_sensor
from spikedeblur.pipeline.frames.images import write_png
from spikedeblur.pipeline.sequences.find_recording import ExposureTimes, find_recording
from spikedeblur.pipeline.sequences.recording import Recording
from spikedeblur.pipeline.spikes import SideFile, parse_geometry, write_side_file, write_spikes
from spikedeblur.pipeline.spikes.registration import Registration
from spikedeblur.pipeline.spikes.sensor import Sensor
from spikedeblur.pipeline.trained.model_file import write_model
from spikedeblur.pipeline.weights.exported import describe_model

CONFIG = load_config("configs/deblur/quickstart.yaml", SMALL)


def recorded(scene, spikes: np.ndarray, folder: Path) -> Recording:
    """Return the scene's frames with other spikes."""
    for centre, frame in zip(scene.centres, scene.blur, strict=True):
        write_png(folder / "blur" / f"{centre:04d}.png", frame)
    geometry = f"{spikes.shape[1]}x{spikes.shape[2]},bottom-up"
    write_spikes(folder / "spike.dat", spikes, parse_geometry(geometry))
    side = SideFile(geometry=geometry, rate=scene.rate, gain=scene.gain)
    write_side_file(folder / "spike.dat", side)
    times = ExposureTimes(exposure=33, fps=1000.0)
    return find_recording(folder / "blur", folder / "spike.dat", times)


@pytest.fixture
def corner(moving_scene, tmp_path: Path) -> Recording:
    """Spikes of the size of the frames' pixels, which see 48x48 of them in a corner."""
    fine = moving_scene.spikes[:, :24, :24].repeat(2, axis=1).repeat(2, axis=2)
    found = recorded(moving_scene, fine, tmp_path)
    place = Registration((1, 0, 0, 0, 1, 0, 0, 0, 1), (48, 48), (96, 96))
    return replace(found, settings=replace(found.settings, registration=place, warnings=()))


def test_where_no_spike_camera_looks_nothing_is_learnt_from_darkness(corner, moving_scene) -> None:
    camera = Camera(corner, 32, CONFIG.DATA.NORM)
    curve = fit_curve([camera])
    for light in (0.3, 0.5, 0.7):
        assert np.polyval(curve, light * moving_scene.gain) == pytest.approx(light, abs=0.03)
    clip = camera.clip(np.random.default_rng(0), 3, 96, curve)
    inside = np.zeros((48, 48), bool)
    inside[:24, :24] = True
    np.testing.assert_array_equal(clip.seen, inside)


def test_a_crop_without_spikes_still_has_a_loss(corner) -> None:
    clip = Camera(corner, 32, CONFIG.DATA.NORM).clip(np.random.default_rng(0), 3, 96, (1.0, 0.0))
    restored = clip.exposed.repeat(4, 1, 1, 1, 1)
    assert job._loss(restored, clip, np.zeros((48, 48), bool)).isfinite()


def test_spikes_beside_the_frames_are_refused(corner) -> None:
    place = Registration((1, 0, 500, 0, 1, 0, 0, 0, 1), (48, 48), (96, 96))
    beside = replace(corner, settings=replace(corner.settings, registration=place))
    with pytest.raises(AdaptError, match=r"spike\.dat: .* outside of the frames"):
        Camera(beside, 32, CONFIG.DATA.NORM)


def test_what_is_odd_about_a_recording_is_told_and_what_was_used_is_in_the_model(
    moving_scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "TRIALS", 1)
    monkeypatch.setattr(job, "TRUSTS", (1.0,))
    tall = moving_scene.spikes[:, :40]  # 40x48 spikes over all of 96x96
    found = recorded(moving_scene, tall, tmp_path)
    ones = np.ones((40, 48), np.float32)
    sensor = Sensor(ones, 0 * ones, hot=ones < 0, dead=ones < 0, filled=ones < 0)
    record = SensorRecord(
        shape=(40, 48), geometry="40x48,bottom-up", even=False, sources={}, found={}
    )
    write_sensor(tmp_path / "sensor.zarr", sensor, record)
    settings = replace(found.settings, sensor=tmp_path / "sensor.zarr")
    torch.manual_seed(0)
    write_model(tmp_path / "start.safetensors", build_model(CONFIG), CONFIG, {})
    listener, out = Listener(), tmp_path / "out.safetensors"
    how = Adapting(steps=1, crop=16, force=True)
    recording = replace(found, settings=settings)
    job.adapt(tmp_path / "start.safetensors", [recording], out, how=how, reporter=listener)
    assert "spikes of 40x48 are taken to see all of the 96x96 frames" in " ".join(listener.warnings)
    expected = [read_sensor(tmp_path / "sensor.zarr").sha256]
    assert describe_model(out)["adapt"]["sensor_sha256"] == expected


def test_a_model_remembers_that_frames_were_srgb(
    moving_scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "TRIALS", 1)
    monkeypatch.setattr(job, "TRUSTS", (1.0,))
    recording = recorded(moving_scene, moving_scene.spikes, tmp_path)
    write_model(tmp_path / "start.safetensors", build_model(CONFIG), CONFIG, {})
    for curve in ("srgb", "linear"):
        out = tmp_path / f"{curve}.safetensors"
        how = Adapting(steps=1, crop=16, force=True, curve=curve)
        job.adapt(tmp_path / "start.safetensors", [recording], out, how=how)
        facts = describe_model(out)["adapt"]
        assert facts.get("curve") == (["srgb"] if curve == "srgb" else None)
