"""Fitting a model to a recording without sharp frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_sets import SMALL

from spikedeblur.configs import load_config
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.model import build_model
from spikedeblur.pipeline.adapt import Adapting, job
from spikedeblur.pipeline.adapt.camera import INSTANTS
from spikedeblur.pipeline.frames.images import write_png
from spikedeblur.pipeline.sequences.find_recording import ExposureTimes, find_recording
from spikedeblur.pipeline.sequences.recording import Recording
from spikedeblur.pipeline.spikes import SideFile, parse_geometry, write_side_file, write_spikes
from spikedeblur.pipeline.trained import load_trained
from spikedeblur.pipeline.trained.model_file import write_model
from spikedeblur.pipeline.weights.exported import describe_model

GEOMETRY = "48x48,bottom-up"
CONFIG = load_config("configs/deblur/quickstart.yaml", SMALL)


@pytest.fixture
def recording(moving_scene, tmp_path: Path) -> Recording:
    for centre, frame in zip(moving_scene.centres, moving_scene.blur, strict=True):
        write_png(tmp_path / "blur" / f"{centre:04d}.png", frame)
    dat = tmp_path / "spike.dat"
    write_spikes(dat, moving_scene.spikes, parse_geometry(GEOMETRY))
    write_side_file(
        dat, SideFile(geometry=GEOMETRY, rate=moving_scene.rate, gain=moving_scene.gain)
    )
    return find_recording(tmp_path / "blur", dat, ExposureTimes(exposure=33, fps=1000.0))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    write_model(tmp_path / "start.safetensors", build_model(CONFIG), CONFIG, {})
    return tmp_path / "start.safetensors"


def test_the_loss_falls_and_the_model_is_one_that_restore_takes(recording, model, tmp_path):
    # A start that is its base, or follows motion, explains these clean spikes already.
    keys = [*SMALL, "MODEL.SPIKE_MOTION=false", "MODEL.FUSE.IDENTITY_INIT=false"]
    blind = load_config("configs/deblur/quickstart.yaml", keys)
    torch.manual_seed(0)
    write_model(model, build_model(blind), blind, {}, overwrite=True)
    out = tmp_path / "out.safetensors"
    summary = job.adapt(
        model, [recording], out, how=Adapting(steps=40, learning_rate=2e-3, crop=32)
    )
    assert summary.loss_after < 0.97 * summary.loss_before
    assert (summary.recordings, summary.exposures) == (1, 3)
    adapted, config = load_trained(out)
    norm = config.DATA.NORM
    assert config == job.for_camera(blind, norm.CURVE, norm.TRUST)
    start, _ = load_trained(model)
    weights = dict(start.named_parameters())
    assert any(not torch.equal(p, weights[name]) for name, p in adapted.named_parameters())
    assert len(describe_model(out)["adapted_from_sha256"]) == 64


def test_what_a_trial_has_measured_serves_training(recording, monkeypatch):
    """Trials run without gradients; the gain and the lag they measure are kept."""
    monkeypatch.setattr(job, "TRIALS", 2)
    unknown = replace(recording, settings=replace(recording.settings, gain=None))
    clips = job._Clips([unknown], CONFIG, Adapting(crop=16, device="cpu"))
    model = build_model(CONFIG)
    before = clips.trial(model, CONFIG.DATA.NORM)
    clips.loss(model, np.random.default_rng(0), CONFIG.DATA.NORM).backward()
    assert clips.trial(model, CONFIG.DATA.NORM) == before
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_training_that_makes_it_worse_is_not_kept(recording, model, tmp_path):
    out = tmp_path / "out.safetensors"
    how = Adapting(steps=3, learning_rate=0.1, crop=32)
    summary = job.adapt(model, [recording], out, how=how)
    assert summary.loss_after <= summary.loss_before
    adapted, _ = load_trained(out)
    start, _ = load_trained(model)
    for (name, kept), given in zip(adapted.named_parameters(), start.parameters(), strict=True):
        if not name.startswith("vrt.conv_last"):  # that may be halved
            assert torch.equal(kept, given), name


def test_the_same_seed_gives_the_same_model(recording, model, tmp_path):
    files = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        job.adapt(model, [recording], file, how=Adapting(steps=3, crop=16, seed=seed))
    one, two, other = (file.read_bytes() for file in files)
    assert one == two != other


def test_perfect_frames_fulfil_both_terms(recording, moving_scene):
    """The sharp frames themselves have a much lower loss than the blurred ones have."""
    camera = job.Camera(recording, 32, CONFIG.DATA.NORM)
    clip = camera.clip(np.random.default_rng(0), 3, 96, job.fit_curve([camera]))
    frames = moving_scene.sharp.transpose(0, 3, 1, 2) / np.float32(255)  # (T, 3, H, W)
    # A pixel a frame: the scene a quarter of the exposure later has moved by so many pixels.
    shifts = [round((m + 0.5) / INSTANTS * 33 - 16.5) for m in range(INSTANTS)]
    sharp = np.stack([np.roll(frames, -shift, axis=-1) for shift in shifts])
    inner = (..., slice(18, 78))  # what was rolled in is another scene
    cut = replace(clip, exposed=clip.exposed[inner], light=clip.light[..., 9:39])
    everywhere = np.ones(cut.light.shape[-2:], bool)
    truth = job._loss(torch.from_numpy(sharp[inner]), cut, everywhere)
    blurred = clip.exposed.expand(sharp.shape)[inner]
    assert truth < 0.8 * job._loss(blurred, cut, everywhere)


def test_the_curve_from_spikes_to_light_is_the_cameras(recording, moving_scene):
    curve = job.fit_curve([job.Camera(recording, 32, CONFIG.DATA.NORM)])
    for light in (0.3, 0.5, 0.7):
        assert np.polyval(curve, light * moving_scene.gain) == pytest.approx(light, abs=0.02)


def test_hidden_pixels_show_a_neighbours_spikes_and_others_their_own():
    rng = np.random.default_rng(0)
    counts = np.arange(2 * 3 * 6 * 7).reshape(2, 3, 6, 7)
    hidden = np.zeros((6, 7), bool)
    hidden[[0, 2, 5], [0, 3, 6]] = True  # corners have neighbours inside only
    for _ in range(50):
        seen = job.hide(counts, hidden, rng)
        np.testing.assert_array_equal(seen[..., ~hidden], counts[..., ~hidden])
        for y, x in np.argwhere(hidden):
            (there,) = np.argwhere(counts[0, 0] == seen[0, 0, y, x])
            assert np.abs(there - (y, x)).max() == 1
            np.testing.assert_array_equal(seen[..., y, x], counts[..., there[0], there[1]])


def test_what_is_compared_is_seen_where_spikes_are_hidden_alone(recording):
    camera = job.Camera(recording, 32, CONFIG.DATA.NORM)
    clip = camera.clip(np.random.default_rng(0), 3, 96, job.fit_curve([camera]))
    restored = clip.exposed.repeat(INSTANTS, 1, 1, 1, 1).requires_grad_()
    hidden = np.zeros(clip.light.shape[-2:], bool)
    hidden[10, 20] = True
    job._loss(restored, clip, hidden).backward()
    assert restored.grad is not None
    touched = restored.grad.abs().amax((0, 1, 2)) > 1e-9  # (S, S); reblur is fulfilled as it is
    ratio = clip.exposed.shape[-1] // clip.light.shape[-1]
    rows, columns = torch.nonzero(touched, as_tuple=True)
    assert {int(y) // ratio for y in rows} == {10}
    assert {int(x) // ratio for x in columns} == {20}


def test_what_can_not_be_adapted_to_is_refused(recording, model, tmp_path):
    out = tmp_path / "out.safetensors"
    with pytest.raises(SpikeDeblurError, match="multiple of 16"):
        job.adapt(model, [recording], out, how=Adapting(crop=20))
    with pytest.raises(SpikeDeblurError, match="is there already"):
        job.adapt(model, [recording], model)
    with pytest.raises(SpikeDeblurError, match=r"ends in \.safetensors"):
        job.adapt(model, [recording], tmp_path / "x.pt")
    assert not out.exists()
