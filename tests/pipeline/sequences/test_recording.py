"""Windows of a recording that is read without a store."""

from __future__ import annotations

import numpy as np
import pytest
from short_recordings import found

from spikedeblur.pipeline.sequences.recording import RecordingError, RecordingSequence


def test_an_exposure_too_short_for_the_models_bins_is_refused(recording) -> None:
    slow = found(recording, rate=100.0)
    with pytest.raises(RecordingError, match="32 bins"):
        RecordingSequence(slow, 32)
    assert RecordingSequence(slow, None).bins == 4


@pytest.mark.parametrize("at", [-1 / 3, 0.0, 1 / 3])
def test_windows_around_another_instant_have_its_times(at, recording, moving_scene) -> None:
    sequence = RecordingSequence(found(recording), 16, at=at)
    lasts = (sequence.samples - 1) / moving_scene.rate
    np.testing.assert_allclose(sequence.t1 - sequence.t0, lasts)
    sample = 1 / moving_scene.rate
    middles = np.array(moving_scene.centres) / 1000 + at * (0.032 + sample)
    np.testing.assert_allclose((sequence.t0 + sequence.t1) / 2, middles, atol=sample)


def test_crops_of_a_recording_are_cut_exactly(recording) -> None:
    sequence = RecordingSequence(found(recording), 32)
    assert sequence.voxel_dtype == sequence.voxels(0, 1).dtype
    voxels = sequence.voxels(0, 2)
    np.testing.assert_array_equal(
        sequence.voxels(0, 2, (8, 24), (16, 40)), voxels[:, :, 8:24, 16:40]
    )
    np.testing.assert_array_equal(
        sequence.blur(1, 2, (16, 48), (32, 80)), sequence.blur(1, 2)[:, 16:48, 32:80]
    )
    assert sequence.spikes(0).sum() == voxels[0].sum()
