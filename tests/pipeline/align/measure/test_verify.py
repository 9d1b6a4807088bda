from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from aligning import run_align

from spikedeblur.pipeline.align.measure.verify import FrameAt, read_luminance, verify_sequence
from spikedeblur.pipeline.spikes import SpikeClock, SpikeFile, parse_geometry


def _align(root: Path, **options):
    log = root / "o" / "a.txt"
    return run_align(root, "x4k1000fps", log, exposure=9, overwrite=True, **options)[0]


@pytest.mark.parametrize("lag", [-12, -3.5, 0, 2, 7.5, 14])
@pytest.mark.parametrize("seed", [0, 1])
def test_planted_lag_is_found_within_one_sample(tmp_path, make_clip, lag, seed):
    make_clip(tmp_path, lag=lag, seed=seed, speed=1.5)
    (sequence,) = _align(tmp_path).sequences
    found = sequence.verification
    assert found.confident, found.warning
    assert found.lag_frames == pytest.approx(lag, abs=1.0)
    assert found.lag_seconds == pytest.approx(found.lag_frames / 4000, abs=1e-8)
    assert found.correlation > 0.6


def test_lag_beyond_half_an_exposure_is_a_warning(tmp_path, make_clip):
    make_clip(tmp_path, lag=22, speed=1.5)
    (sequence,) = _align(tmp_path).sequences
    assert sequence.verification.lag_frames == pytest.approx(22, abs=1.0)
    assert sequence.verification.problem == "late"
    assert "of the exposure" in sequence.verification.warning


@pytest.mark.parametrize("scene", [{"flat": True}, {"speed": 0.0}])
def test_scene_that_proves_nothing_is_not_guessed(tmp_path, make_clip, scene):
    make_clip(tmp_path, lag=6, **scene)
    (sequence,) = _align(tmp_path).sequences
    assert not sequence.verification.confident
    assert sequence.verification.warning


def test_spikes_of_another_scene_do_not_pass(tmp_path, make_clip):
    make_clip(tmp_path, seed=0, speed=1.5)
    make_clip(tmp_path / "other", seed=5, speed=1.5)
    name = "val_spike_2xds/Type1/TEST01_003_f0433/spike.dat"
    (tmp_path / "other" / name).replace(tmp_path / name)
    (sequence,) = _align(tmp_path).sequences
    assert not sequence.verification.confident


@pytest.mark.parametrize("lag", [-20, 0, 13.5])
def test_blurred_frames_alone_show_the_lag(tmp_path, make_clip, lag):
    make_clip(tmp_path, sharp=False, lag=lag, speed=1.5)
    (sequence,) = _align(tmp_path).sequences
    found = sequence.verification
    assert found.by == "blur"
    assert found.confident, found.warning
    assert found.lag_frames == pytest.approx(lag, abs=0.5)


def test_nothing_to_compare_means_not_verified():
    assert verify_sequence([]) is None


@pytest.mark.parametrize("half", [16, 60, 140])
@pytest.mark.parametrize("part", [1, 2])
def test_real_recording_gives_its_true_centre(realdata, part, half):
    stem = realdata / "reds_spike" / f"203_part{part}_key_id151"
    spikes = SpikeFile.open(stem.with_suffix(".dat"), parse_geometry("reds-spike"))
    found = verify_sequence(
        [
            FrameAt(
                blur=None,
                sharp=stem.with_suffix(".png"),
                spikes=spikes,
                clock=SpikeClock(rate=1000.0),
                # Five samples off on purpose: the truth, index 150, is five samples earlier.
                t0=(155 - half) / 1000,
                t1=(155 + half) / 1000,
            )
        ]
    )
    assert found.confident, found.warning
    assert found.lag_frames == pytest.approx(-5, abs=1.0)


def test_real_recording_read_upside_down_is_not_accepted(realdata):
    stem = realdata / "reds_spike" / "203_part1_key_id151"
    spikes = SpikeFile.open(stem.with_suffix(".dat"), parse_geometry("250x400,top-down"))
    clock = SpikeClock(rate=1000.0)
    found = verify_sequence(
        [
            FrameAt(
                blur=None,
                sharp=stem.with_suffix(".png"),
                spikes=spikes,
                clock=clock,
                t0=0.09,
                t1=0.21,
            )
        ]
    )
    assert not found.confident
    assert "row order" in found.warning


def test_luminance_is_brought_to_spike_size_by_area_mean(tmp_path):
    from PIL import Image

    rgb = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    gray = (rgb @ np.array([0.299, 0.587, 0.114])) / 255
    expected = gray.reshape(3, 2, 4, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(read_luminance(tmp_path / "a.png", (3, 4)), expected, atol=1e-5)
