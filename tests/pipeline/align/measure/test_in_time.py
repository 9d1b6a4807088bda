"""One question, asked by all stages: are spikes and frames of one time and one scene?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from alignment_cases import Truth, make_wrong, of_another, record_scene, record_still

from spikedeblur.pipeline.align.measure.in_time import NOTABLE, look
from spikedeblur.pipeline.align.measure.verify import FrameAt
from spikedeblur.pipeline.spikes import SpikeClock, SpikeFile, parse_geometry, write_spikes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Truth]:
    folder = tmp_path_factory.mktemp("scenes")
    return [record_scene(folder, i, (96, 96), seed=i) for i in (1, 3)]


def blurred(frames: list[FrameAt]) -> list[FrameAt]:
    return [replace(frame, sharp=None) for frame in frames]


@pytest.mark.parametrize("share", [0.0, 0.03, -0.03])
def test_a_lag_of_less_than_a_twentieth_of_the_exposure_fits(scenes, share) -> None:
    samples = scenes[0].frames()[0].samples
    measured = look(scenes[0].frames(lag=share * samples, sharp=False))
    assert measured is not None
    assert measured.problem is None
    assert measured.warning is None
    assert not measured.is_wrong


@pytest.mark.parametrize("share", [0.08, 0.5, 1.4, -0.08, -0.5, -1.4])
def test_a_larger_lag_is_named_with_its_size(scenes, share) -> None:
    samples = scenes[0].frames()[0].samples
    measured = look(scenes[0].frames(lag=share * samples, sharp=False))
    assert measured is not None
    assert abs(share) > NOTABLE
    assert measured.problem == ("late" if share > 0 else "early")
    assert measured.confident
    assert measured.is_wrong
    assert not measured.is_unlike
    assert measured.lag_frames == pytest.approx(share * samples, abs=2)
    come = f"come {measured.problem} by {abs(measured.lag_frames) / samples:.1%} of the exposure"
    assert f"{come} (lag {measured.lag_frames:+.1f} samples" in measured.warning


def test_spikes_of_another_scene_are_not_alike(scenes) -> None:
    measured = look(blurred(of_another(scenes[0], scenes[1])))
    assert measured is not None
    assert measured.problem == "unlike"
    assert measured.is_unlike
    assert measured.is_wrong


@pytest.mark.parametrize("problem", ["columns flipped", "transposed", "geometry"])
def test_spikes_that_are_read_wrongly_are_not_alike(scenes, problem) -> None:
    measured = look(blurred(make_wrong(scenes[0], problem, np.random.default_rng(0))))
    assert measured is not None
    assert measured.problem == problem
    assert measured.is_unlike


def test_few_spikes_are_not_taken_for_those_of_another_scene(tmp_path: Path) -> None:
    """One spike in two exposures: the frames are theirs, and yet hardly like them."""
    dark = record_scene(tmp_path, 1, (96, 96), threshold=400.0, noise=0.002, seed=1)
    measured = look(dark.frames(sharp=False))
    assert measured is not None
    assert measured.problem == "unsure"
    assert "too few" in measured.warning
    assert not measured.is_wrong


@pytest.mark.parametrize("flat", [True, False])
def test_where_nothing_moves_nothing_is_said_to_be_wrong(tmp_path: Path, flat: bool) -> None:
    measured = look(blurred(record_still(tmp_path, 0, flat=flat)))
    assert measured is not None
    assert measured.problem == ("flat" if flat else "still")
    assert not measured.is_wrong


@pytest.mark.parametrize("other", [False, True])
def test_spikes_of_just_one_exposure_are_compared_as_they_are(scenes, tmp_path, other) -> None:
    """There is no room in the stream to look at other lags."""
    frame = scenes[0].frames(sharp=False)[3]
    start, stop = frame.clock.samples(frame.t0, frame.t1)
    spikes = scenes[1 if other else 0].spikes()[start:stop]
    geometry = parse_geometry(scenes[0].geometry)
    write_spikes(tmp_path / "alone.dat", spikes, geometry)
    clock = SpikeClock(rate=frame.clock.rate, first=frame.t0)
    alone = replace(
        frame, spikes=SpikeFile.open(tmp_path / "alone.dat", geometry), clock=clock, sharp=None
    )
    measured = look([alone])
    assert (measured is None) == (not other)
    if other:
        assert measured.is_unlike
