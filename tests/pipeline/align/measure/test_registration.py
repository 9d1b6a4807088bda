"""Where the spikes lie in the frames: planted, found, applied once."""

from __future__ import annotations

import json

import numpy as np
import pytest
from alignment_cases import furthest, record_moved, same_view
from PIL import Image

from spikedeblur.pipeline.align.calibration import CalibrationError, read_calibration
from spikedeblur.pipeline.align.measure.registration import register, seen_by_spikes
from spikedeblur.pipeline.spikes.registration import Registration


@pytest.fixture(scope="module")
def moved():
    """(pairs of TFP and blurred frame, the true registration) of a 128x128 scene."""
    recording = record_moved(3, 128, shift=(7.0, -5.0), turn=2.0, scale=1.06)
    return recording.pairs(16, 22), recording.place


@pytest.mark.parametrize("model", ["similarity", "affine", "homography"])
def test_planted_shift_turn_and_scale_are_found(moved, model):
    pairs, truth = moved
    assert furthest(same_view(truth.spike_shape, truth.frame_shape), truth) > 5
    found = register(pairs, model)
    assert furthest(found.registration, truth) < 0.5
    assert found.correlation > 0.99
    assert 0 < found.error < 1.0


def planted(matrix: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """TFP (64, 64) and frame (128, 128) of a sum of waves, each evaluated where it is seen."""
    random = np.random.default_rng(4)
    waves = [(*random.uniform(-0.3, 0.3, 2), random.uniform(0, 2 * np.pi)) for _ in range(40)]

    def light(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        image = sum(np.cos(u * x + v * y + phase) for u, v, phase in waves)
        return (0.5 + 0.02 * image).astype(np.float32)

    def centres(side: int) -> np.ndarray:
        y, x = np.mgrid[:side, :side] + 0.5
        return np.stack([x, y, np.ones_like(x)])  # (3, side, side)

    x, y, depth = np.tensordot(matrix, centres(64), 1)
    return [(light(x / depth, y / depth), light(*centres(128)[:2]))]


@pytest.mark.parametrize(
    ("model", "shear", "perspective"), [("affine", 0.06, 0.0), ("homography", 0.03, 4e-4)]
)
def test_far_shifts_turns_shears_and_perspective_are_found(model, shear, perspective):
    c, s = 1.9 * np.cos(0.08), 1.9 * np.sin(0.08)
    matrix = np.array([[c, -s + shear, 24.0], [s, c, -15.0], [perspective, -perspective, 1.0]])
    truth = Registration(tuple(matrix.ravel()), (64, 64), (128, 128))
    assert furthest(same_view((64, 64), (128, 128)), truth) > 25
    assert furthest(register(planted(matrix), model).registration, truth) < 0.1


def test_nothing_is_found_on_flat_images(moved):
    flat = [(np.full_like(tfp, 0.3), blur) for tfp, blur in moved[0]]
    assert register(flat) is None


def test_spikes_of_another_scene_are_not_registered_with_confidence(moved):
    other = np.random.default_rng(0).random((16, 16), np.float32)
    image = Image.fromarray(other).resize((128, 128), Image.Resampling.BICUBIC)
    found = register([(tfp, np.asarray(image, np.float32)) for tfp, _ in moved[0]])
    assert found is None or found.confidence < 0.9


def test_a_frame_seen_by_the_spikes_looks_like_their_tfp(moved):
    pairs, truth = moved
    seen = seen_by_spikes(pairs[0][1], truth)
    known = np.isfinite(seen)
    assert 0.5 < known.mean() < 1
    assert np.corrcoef(seen[known], pairs[0][0][known])[0, 1] > 0.98
    elsewhere = seen_by_spikes(pairs[0][1], same_view(truth.spike_shape, truth.frame_shape))
    assert np.corrcoef(elsewhere[known], pairs[0][0][known])[0, 1] < 0.95


@pytest.mark.parametrize("ending", ["json", "yaml"])
@pytest.mark.parametrize("rows", [2, 3])
def test_calibration_files_are_read(tmp_path, ending, rows):
    matrix = [[2.0, 0.1, 3.0], [0.0, 2.0, -1.0], [0.0, 0.0, 1.0]][:rows]
    text = json.dumps({"homography": matrix, "spike_size": [20, 30], "frame_size": [40, 60]})
    path = tmp_path / f"c.{ending}"
    path.write_text(text)  # JSON is YAML
    found = read_calibration(path)
    assert found.matrix == (2.0, 0.1, 3.0, 0.0, 2.0, -1.0, 0.0, 0.0, 1.0)


def test_calibration_from_pixel_centres_is_moved_by_half_a_pixel(tmp_path):
    content = {
        "homography": [[2.0, 0.0, 0.5], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]],
        "spike_size": [20, 30],
        "frame_size": [40, 60],
        "origin": "centre",
    }
    path = tmp_path / "c.json"
    path.write_text(json.dumps(content))
    # Halving an image puts the centre of pixel j between those of 2 j and 2 j + 1.
    assert read_calibration(path) == same_view((20, 30), (40, 60))


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2",
        "{}",
        '{"homography": [[1, 0, 0]], "spike_size": [8, 8], "frame_size": [8, 8]}',
        '{"homography": [[0,0,0],[0,0,0],[0,0,0]], "spike_size": [8, 8], "frame_size": [8, 8]}',
        '{"homography": [[1,0,0],[0,1,0]], "spike_size": [8, 8], "frame_size": [8, 8], "x": 1}',
    ],
)
def test_unusable_calibration_is_refused_by_name(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(CalibrationError, match=r"c\.json"):
        read_calibration(path)
    with pytest.raises(CalibrationError, match=r"none\.json"):
        read_calibration(tmp_path / "none.json")
