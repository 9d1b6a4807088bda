"""One clip gives a network the same tensors in training, in `restore` and in `adapt`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spikedeblur.configs.schema import Config, NormConfig
from spikedeblur.pipeline.adapt import Adapting, camera, job
from spikedeblur.pipeline.frames.images import write_png
from spikedeblur.pipeline.methods.contract import MethodClip
from spikedeblur.pipeline.methods.network import ModelMethod
from spikedeblur.pipeline.sequences.find_recording import ExposureTimes, find_recording
from spikedeblur.pipeline.sequences.light import seen_by
from spikedeblur.pipeline.sequences.recording import Recording, RecordingSequence
from spikedeblur.pipeline.spikes import SideFile, parse_geometry, write_side_file, write_spikes
from spikedeblur.pipeline.train.data.loader import collate
from spikedeblur.pipeline.train.data.order import ClipIndex
from spikedeblur.pipeline.train.data.samples import ClipSamples
from spikedeblur.pipeline.train.objective import to_inputs

GEOMETRY = "48x48,bottom-up"
BINS, SIDE, WINDOWS = 32, 96, 3
A_BIN = 32 / 1000 / BINS  # seconds: an exposure of 33 frames at 1000 Hz


class Noted(nn.Module):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, rgb: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
        self.given.append((rgb, voxels))
        return rgb


class WithSharp(RecordingSequence):
    """A recording that can be trained on."""

    has_sharp = True

    def sharp(self, start, stop, rows=None, columns=None) -> np.ndarray:
        return self.blur(start, stop, rows, columns)


@pytest.fixture(scope="module")
def in_time(moving_scene, tmp_path_factory) -> Recording:
    folder: Path = tmp_path_factory.mktemp("recording")
    for centre, frame in zip(moving_scene.centres, moving_scene.blur, strict=True):
        write_png(folder / "blur" / f"{centre:04d}.png", frame)
    dat = folder / "spike.dat"
    write_spikes(dat, moving_scene.spikes, parse_geometry(GEOMETRY))
    write_side_file(
        dat, SideFile(geometry=GEOMETRY, rate=moving_scene.rate, gain=moving_scene.gain)
    )
    return find_recording(folder / "blur", dat, ExposureTimes(exposure=33, fps=1000.0))


def recording_of(in_time: Recording, gain: float | None, late: int) -> Recording:
    """The recording with another gain and spikes late by some bins; then of one exposure."""
    settings = replace(in_time.settings, gain=gain, first=in_time.settings.first + late * A_BIN)
    exposures = in_time.exposures[1:2] if late else in_time.exposures  # others are cut off
    return replace(in_time, exposures=exposures, settings=settings)


def given_by_training(recording: Recording, norm: NormConfig) -> tuple[torch.Tensor, ...]:
    sequence = WithSharp(recording, BINS)
    index = ClipIndex.every_start([sequence.length], WINDOWS)
    samples = ClipSamples(seen_by(norm, [sequence]), index, crop_size=SIDE)
    inputs = to_inputs(collate([samples.sample(0, 0)]), torch.device("cpu"), norm)
    return inputs.blur, inputs.voxels


def given_by_restore(
    recording: Recording, norm: NormConfig, tile: int
) -> list[tuple[torch.Tensor, ...]]:
    sequence = RecordingSequence(recording, BINS)
    config = Config()
    data = config.DATA.model_copy(update={"NORM": norm, "K": BINS, "CLIP_LEN": WINDOWS})
    network = Noted()
    method = ModelMethod(network, config.model_copy(update={"DATA": data}), tile=tile, device="cpu")
    method(sequence, MethodClip(0, sequence.length, 0, sequence.length))
    return network.given


def given_by_adapt(
    recording: Recording, norm: NormConfig, patch: pytest.MonkeyPatch
) -> tuple[torch.Tensor, ...]:
    patch.setattr(camera, "INSTANTS", 1)  # the exposure's own middle
    patch.setattr(job, "HIDDEN", 0.0)
    data = Config().DATA.model_copy(update={"NORM": norm, "K": BINS, "CLIP_LEN": WINDOWS})
    config = Config().model_copy(update={"DATA": data})
    clips = job._Clips([recording], config, Adapting(crop=SIDE, device="cpu"))
    network = Noted()
    clips.loss(network, np.random.default_rng(0), norm)
    return network.given[0]


@pytest.mark.parametrize("late", [0, 3])
@pytest.mark.parametrize("gain", [0.5, None], ids=["gain", "no-gain"])
@pytest.mark.parametrize(
    "norm",
    [
        NormConfig(CORRECT_LAG=True),
        NormConfig(MODE="rate", CORRECT_LAG=True),
        NormConfig(MODE="relative"),
        NormConfig(MODE="relative", CORRECT_LAG=True),
        NormConfig(MODE="relative", CORRECT_LAG=True, CURVE=(0.5, 1.8, 0.01)),
    ],
    ids=lambda norm: f"{norm.MODE}{'-curve' * bool(norm.CURVE)}{'-lag' * norm.CORRECT_LAG}",
)
def test_a_clip_is_given_alike_in_all_three(in_time, norm, gain, late, monkeypatch):
    if norm.MODE == "rate" and gain is None:
        pytest.skip("rate needs the gain")
    recording = recording_of(in_time, gain, late)
    (whole,) = given_by_restore(recording, norm, tile=0)
    for given in (given_by_training(recording, norm), given_by_adapt(recording, norm, monkeypatch)):
        for tensor, expected in zip(given, whole, strict=True):
            same = torch.testing.assert_close if gain is None else np.testing.assert_array_equal
            same(tensor.flatten(0, 1), expected.flatten(0, 1))  # a sum's last bit may differ
    tiles = given_by_restore(recording, norm, tile=64)
    assert len(tiles) == 4
    assert torch.equal(tiles[0][0], whole[0][..., :64, :64])
    assert torch.equal(tiles[0][1], whole[1][..., :32, :32])


def test_the_gain_and_the_lag_make_a_difference(in_time):
    """So that the test above compares more than constants."""
    norm = NormConfig(MODE="relative", CORRECT_LAG=True)
    right, no_gain, late, late_left = (
        given_by_restore(recording_of(in_time, gain, bins), how, tile=0)[0][1]
        for gain, bins, how in (
            (0.5, 0, norm),
            (None, 0, norm),
            (0.5, 3, norm),
            (0.5, 3, NormConfig(MODE="relative")),
        )
    )
    assert not torch.equal(right, no_gain)
    torch.testing.assert_close(right, no_gain, rtol=0.05, atol=0.05)
    middle = right[:, 1:2]  # of three exposures
    assert (late - middle)[:, :, 3:-3].abs().mean() < 0.3 * (late_left - middle).abs().mean()
