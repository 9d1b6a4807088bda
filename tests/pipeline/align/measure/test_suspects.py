"""Recordings whose truth is known, made wrong in time and in geometry."""

from __future__ import annotations

import re

import numpy as np
import pytest
from alignment_cases import Truth, make_wrong, of_another, record_scene, record_still

from spikedeblur.pipeline.align.measure.suspects import name_owner, name_suspect
from spikedeblur.pipeline.align.measure.verify import verify_sequence


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> tuple[Truth, Truth]:
    folder = tmp_path_factory.mktemp("scenes")
    return record_scene(folder, 0, (64, 96)), record_scene(folder, 1, (64, 96))


@pytest.mark.parametrize("kind", ["blur", "sharp"])
@pytest.mark.parametrize(("lag", "drift"), [(-287.0, 0.0), (0.4, 0.001), (143.7, -0.001)])
def test_far_lags_and_drifts_are_found_by_what_is_inside(scenes, kind, lag, drift):
    found = verify_sequence(
        scenes[0].frames(lag=lag, drift=drift, blur=kind == "blur", sharp=kind == "sharp")
    )
    assert found.by == kind
    assert found.confident, found.warning
    assert found.lag_frames == pytest.approx(lag + drift * found.at_frame, abs=1.0)
    assert found.drift_ppm == pytest.approx(1e6 * drift, abs=5 * found.drift_error_ppm)


def test_the_error_is_about_what_it_is_off(scenes):
    off = []
    for lag in (-200.0, -50.3, 12.0, 99.5, 170.2):
        found = verify_sequence(scenes[0].frames(lag=lag, sharp=False))
        assert found.error_frames < 1
        off.append((found.lag_frames - lag) / found.error_frames)
    assert np.sqrt(np.mean(np.square(off))) < 3


@pytest.mark.parametrize("problem", ["rows flipped", "columns flipped", "transposed", "geometry"])
def test_a_wrong_reading_is_named(scenes, problem):
    frames = make_wrong(scenes[0], problem, np.random.default_rng(1))
    found = verify_sequence(frames)
    assert not found.confident or found.correlation < 0.8
    named = name_suspect(frames, found)
    assert named.problem == problem
    assert (named.confident, named.confidence) == (False, 0.0)
    if problem == "geometry":
        assert "--geometry 32x48,bottom-up" in named.warning


def test_a_right_reading_is_not_suspected(scenes):
    frames = scenes[0].frames(lag=20)
    found = verify_sequence(frames)
    assert found.confident
    assert name_suspect(frames, found) == found


def test_the_owner_of_exchanged_spikes_is_named(scenes):
    frames = of_another(*scenes)
    found = name_suspect(frames, verify_sequence(frames))
    named = name_owner(frames, found, [("val/its", of_another(scenes[1], scenes[0]))])
    assert named.problem == "swapped"
    assert "val/its" in named.warning
    assert name_owner(frames, found, [("val/itself", frames)]) == found


def test_sharp_frames_of_other_instants_are_named(scenes):
    truth = scenes[0]
    late = Truth(truth.seq, truth.dat, truth.geometry, truth.blur[:-1], truth.sharp[1:])
    found = verify_sequence(late.frames())
    assert found.problem == "sharp apart"
    apart = re.search(r"lie \+([\d.]+) samples", found.warning)
    assert float(apart[1]) == pytest.approx(120, abs=1)  # 15 frames of 8 samples


@pytest.mark.parametrize("flat", [True, False])
def test_flat_and_still_scenes_are_called_unprovable(tmp_path, flat):
    found = verify_sequence(record_still(tmp_path, 0, flat=flat))
    assert not found.confident
    assert found.problem in (("flat",) if flat else ("still", "unsure", "rival"))
    assert "not proved" in found.warning or "matches as well" in found.warning


@pytest.mark.slow
@pytest.mark.parametrize("camera", [(1.0, 0.0), (5.0, 0.0), (2.0, 0.05)])
def test_lags_of_many_scenes_are_found(tmp_path, camera):
    rng = np.random.default_rng(5)
    for index in (0, 1, 2, 3, 4, 7):  # scenes 5 and 6 hardly move
        truth = record_scene(
            tmp_path, 100 + index, (64, 96), threshold=camera[0], noise=camera[1], seed=index
        )
        lag = float(rng.uniform(-300, 300))
        found = verify_sequence(truth.frames(lag=lag))
        assert found.confident, found.warning
        assert abs(found.lag_frames - lag) < (3 if camera[1] else 1)
