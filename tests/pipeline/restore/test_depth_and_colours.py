"""Frames of 8 and 16 bits, light beyond white, and what colours mean."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageCms
from short_recordings import GEOMETRY, found, restore

from spikedeblur.configs.schema import Config
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.frames.colours import Colours, colours_of
from spikedeblur.pipeline.frames.images import read_frame, read_rgb, write_png, write_png16
from spikedeblur.pipeline.methods.network import ModelMethod
from spikedeblur.pipeline.restore import job
from spikedeblur.pipeline.restore.record import RECORD, restored_files
from spikedeblur.pipeline.sequences.recording import RecordingSequence
from spikedeblur.pipeline.spikes import SideFile, write_side_file


class Ramp(torch.nn.Module):
    """A stand-in for the network: values between the steps of 16 bits, some out of range."""

    def forward(self, rgb: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
        return torch.linspace(-0.1, 1.1, rgb.numel()).view(rgb.shape)


def read_png16(path: Path) -> np.ndarray:
    """(H, W, 3) uint16 by FFmpeg, which did not write it."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as picture:
        frame = next(picture.decode(video=0))
    assert frame.format.name == "rgb48be"
    return frame.to_ndarray(format="rgb48le")


def test_sixteen_bits_hold_what_the_network_gave_to_half_a_step(recording, monkeypatch) -> None:
    pytest.importorskip("cv2")
    config = Config.model_validate({"DATA": {"CLIP_LEN": 3}})
    monkeypatch.setattr(
        job.Restoring, "open", lambda how, run: ModelMethod(Ramp(), config, tile=0, device="cpu")
    )
    best = recording / "run" / "checkpoints" / "best.pt"
    best.parent.mkdir(parents=True)
    best.write_bytes(b"weights")
    restore(recording, run=recording / "run", bits=16)
    files = restored_files(recording / "out")
    restored = np.stack([read_png16(path) for path in files]).astype(np.float64) / 65535
    given = Ramp()(torch.empty(1, 3, 3, 96, 96), None)[0].permute(0, 2, 3, 1).double().numpy()
    assert np.abs(restored - given.clip(0, 1)).max() <= 0.5 / 65535 + 1e-12
    assert len(np.unique(restored)) > 20_000


def test_frames_of_other_bits_are_other_frames(recording) -> None:
    pytest.importorskip("cv2")
    restore(recording)
    eight = json.loads((recording / "out" / RECORD).read_text())["inputs"]
    with pytest.raises(job.RestoreError, match=r"other inputs \(bits\)"):
        restore(recording, bits=16)
    assert restore(recording, bits=16, overwrite=True).restored == 3
    assert restore(recording, bits=16).kept == 3
    sixteen = json.loads((recording / "out" / RECORD).read_text())["inputs"]
    assert sixteen == eight | {"bits": 16}  # records of earlier releases stay valid
    with pytest.raises(job.RestoreError, match=r"other inputs \(bits\)"):
        restore(recording)
    (recording / "out" / "0031.png").unlink()
    assert restore(recording, bits=16).restored == 1
    whole = read_png16(recording / "out" / "0031.png")
    assert restore(recording, overwrite=True).restored == 3
    step = np.abs(whole / 257.0 - read_rgb(recording / "out" / "0031.png"))
    assert step.max() <= 0.5 + 1 / 257


def test_light_that_frames_clip_is_kept_in_sixteen_bits(recording, moving_scene) -> None:
    brighter = 1.5  # so that a tenth of the frame is beyond white
    for centre, frame in zip(moving_scene.centres, moving_scene.blur, strict=True):
        light = (frame * brighter).clip(0, 255).round().astype(np.uint8)
        write_png(recording / "test_blurry_33/Type1/clip" / f"{centre:04d}.png", light)
    side = SideFile(geometry=GEOMETRY, rate=moving_scene.rate, gain=moving_scene.gain / brighter)
    write_side_file(recording / "spike.dat", side)
    restore(recording, bits=16, headroom=4, method="path")
    record = json.loads((recording / "out" / RECORD).read_text())
    assert record["inputs"]["white"] == 16384
    found = read_png16(recording / "out/0031.png") / 16384
    truth = moving_scene.sharp[1] / 255 * brighter
    inside = moving_scene.blur[1].max(-1) * brighter >= 255
    assert 0.02 < inside.mean() < 0.5
    error = np.square(found - truth)[inside].mean()
    clipped = np.square(found.clip(0, 1) - truth)[inside].mean()
    assert 10 * np.log10(clipped / error) > 3
    assert restore(recording, bits=16, headroom=4, method="path").kept == 3
    with pytest.raises(job.RestoreError, match=r"other inputs \(white\)"):
        restore(recording, bits=16, method="path")


def test_light_beyond_white_needs_sixteen_bits() -> None:
    with pytest.raises(job.RestoreError, match="--bits 16"):
        job.Restoring(method="path", headroom=4)


def test_sixteen_bits_without_opencv_are_refused_before_anything_is_written(
    recording, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SpikeDeblurError, match=r"spikedeblur\[png16\]"):
        restore(recording, bits=16)
    assert not (recording / "out").exists()


@pytest.mark.parametrize("method", ["blur", "sdm"])
def test_16_bits_in_are_16_bits_out(recording, moving_scene, method) -> None:
    """Values between the levels of 8 bits survive, and a colour profile is carried."""
    clip = recording / "test_blurry_33/Type1/clip"
    colours = Colours(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    rng = np.random.default_rng(5)
    deep = {}
    for centre, frame in zip(moving_scene.centres, moving_scene.blur, strict=True):
        between = frame.astype(np.uint16) * 257 + rng.integers(1, 120, frame.shape, np.uint16)
        deep[centre] = np.minimum(between, 65534)
        write_png16(clip / f"{centre:04d}.png", deep[centre], colours.chunks())
    assert RecordingSequence(found(recording), 32).frame_dtype == "uint16"
    restore(recording, method=method, bits=16)
    for centre, frame in deep.items():
        restored = read_frame(recording / "out" / f"{centre:04d}.png")
        assert restored.dtype == np.uint16
        assert colours_of(recording / "out" / f"{centre:04d}.png") == colours
        if method == "blur":
            np.testing.assert_array_equal(restored, frame)
    if method == "sdm":
        fine = read_frame(recording / "out/0031.png").astype(float)
        for centre in moving_scene.centres:  # the same frames, cut to 8 bits
            write_png16(clip / f"{centre:04d}.png", deep[centre] // 257 * 257)
        restore(recording, "cut", method=method, bits=16)
        cut = read_frame(recording / "cut/0031.png").astype(float)
        assert 0 < np.abs(fine - cut).mean() < 257


def test_frames_of_8_and_16_bits_are_not_mixed_where_bits_would_be_lost(recording) -> None:
    clip = recording / "test_blurry_33/Type1/clip"
    write_png16(clip / "0046.png", np.zeros((96, 96, 3), np.uint16))
    with pytest.raises(
        SpikeDeblurError, match=r"0046\.png: expected 8 bits a channel as in the se"
    ):
        restore(recording)


def test_frames_that_mean_different_colours_are_named_and_keep_theirs(recording) -> None:
    clip = recording / "test_blurry_33/Type1/clip"
    linear = Colours(gamma=100_000)
    write_png(clip / "0031.png", read_rgb(clip / "0031.png"), linear.chunks())
    summary = restore(recording)
    (warning,) = (warning for warning in summary.warnings if "colours differ" in warning)
    assert "0016.png has none" in warning
    assert "0031.png has a gamma of 1" in warning
    assert colours_of(recording / "out/0031.png") == linear
    assert colours_of(recording / "out/0016.png") == Colours()
