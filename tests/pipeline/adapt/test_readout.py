"""Fitting a model to a camera whose rows are exposed one after another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rolling_camera import PERIOD, SHUTTER, START, photograph, record
from training_sets import SMALL

from spikedeblur.configs import load_config
from spikedeblur.model import build_model
from spikedeblur.pipeline.adapt import Adapting, job
from spikedeblur.pipeline.adapt.camera import Camera, fit_curve
from spikedeblur.pipeline.clocks import CameraClock
from spikedeblur.pipeline.sequences.find_recording import ExposureTimes, find_recording
from spikedeblur.pipeline.sequences.recording import Recording
from spikedeblur.pipeline.spikes.settings import SpikeOptions
from spikedeblur.pipeline.trained.model_file import write_model
from spikedeblur.pipeline.weights.exported import describe_model

CONFIG = load_config("configs/deblur/quickstart.yaml", SMALL)
CLOCK = ExposureTimes(camera=CameraClock(frame_rate=1 / PERIOD, shutter=SHUTTER, start=START))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recording]:
    """A global and a rolling camera, and the rolling one taken for a global one."""
    folder = tmp_path_factory.mktemp("bench")
    record(folder / "spike.dat")
    found = {}
    for name, readout in (("still", 0.0), ("rolling", 0.02)):
        photograph(folder / name, readout)
        spikes = SpikeOptions(readout=readout or None)
        found[name] = find_recording(folder / name, folder / "spike.dat", CLOCK, spikes)
    rolling = found["rolling"]
    unknown = replace(rolling, settings=replace(rolling.settings, readout=None))
    return found | {"unknown": unknown}


def test_spikes_of_each_row_have_the_light_of_its_own_exposure(recordings) -> None:
    left = {}
    for name, recording in recordings.items():
        camera = Camera(recording, 16, CONFIG.DATA.NORM)
        rate, light = camera.seen()
        left[name] = float(np.std(light - np.polyval(fit_curve([camera]), rate)))
    assert left["rolling"] < 1.1 * left["still"], left
    assert left["unknown"] > 3 * left["still"], left


@pytest.mark.slow
def test_a_model_is_fitted_to_rows_as_to_whole_frames(
    recordings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "TRIALS", 2)
    torch.manual_seed(0)
    model = tmp_path / "start.safetensors"
    write_model(model, build_model(CONFIG), CONFIG, {})
    losses = {}
    for name in ("still", "rolling", "unknown"):
        out = tmp_path / f"{name}.safetensors"
        how = Adapting(steps=1, crop=16)
        losses[name] = job.adapt(model, [recordings[name]], out, how=how).loss_before
    assert losses["rolling"] < 1.2 * losses["still"], losses
    assert losses["unknown"] > 2 * losses["still"], losses
    assert describe_model(tmp_path / "rolling.safetensors")["adapt"]["readout"] == [0.02]
    assert "readout" not in describe_model(tmp_path / "unknown.safetensors")["adapt"]
