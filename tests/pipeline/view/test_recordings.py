"""What is shown of a recording or a store is what the pipeline computes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training_sets import make_store

from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.spikes import SpikeGeometry, tfi, tfp, write_side_file, write_spikes
from spikedeblur.pipeline.spikes.settings import SpikeOptions
from spikedeblur.pipeline.spikes.sidefile import SideFile
from spikedeblur.pipeline.view import ViewError, open_clips
from spikedeblur.pipeline.view.recordings import pictures, span

GEOMETRY = SpikeGeometry(height=12, width=16, flip_rows=True)


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> tuple[Path, np.ndarray]:
    path = tmp_path_factory.mktemp("view") / "spike.dat"
    spikes = (np.random.default_rng(0).random((100, 12, 16)) < 0.3).astype(np.uint8)
    write_spikes(path, spikes, GEOMETRY)
    write_side_file(path, SideFile(geometry=GEOMETRY.describe(), rate=1000.0, gain=0.5, made_by={}))
    return path, spikes


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("store"))


def test_pictures_of_a_file_are_those_of_its_spikes(recording):
    path, spikes = recording
    (group,) = open_clips(path)
    clip = group.clip(0)
    assert (clip.samples, clip.shape, clip.rate, clip.gain) == (100, (12, 16), 1000.0, 0.5)
    found = pictures(clip, 40, 21, 8)
    np.testing.assert_array_equal(found.spikes, spikes[40])
    np.testing.assert_allclose(found.tfp, tfp(spikes[30:51], 0.5))
    np.testing.assert_array_equal(found.tfi, tfi(spikes, 40, 0.5))
    assert (found.bin_index, found.bin_samples) == (3, (38, 50))  # floor(40 * 8 / 100)
    np.testing.assert_allclose(found.bin, tfp(spikes[38:50], 0.5))


def test_a_folder_with_a_stream_is_its_stream(recording):
    path, _ = recording
    assert open_clips(path.parent)[0].name == open_clips(path)[0].name


@pytest.mark.parametrize(
    ("instant", "length", "expected"),
    [(0, 21, (0, 21)), (99, 21, (79, 100)), (50, 21, (40, 61)), (3, 1, (3, 4)), (7, 999, (0, 100))],
)
def test_windows_stay_inside_and_keep_their_length(recording, instant, length, expected):
    clip = open_clips(recording[0])[0].clip(0)
    assert span(clip, instant, length) == expected


def test_a_stores_windows_have_their_frames_and_spikes(store):
    groups = open_clips(store)
    sequences = open_store(store)
    assert [group.name for group in groups] == [sequence.seq for sequence in sequences]
    clip = groups[1].clip(2)
    np.testing.assert_array_equal(clip.sharp, sequences[1].sharp(2, 3)[0])
    np.testing.assert_array_equal(clip.blur, sequences[1].blur(2, 3)[0])
    spikes = sequences[1].spikes(2)
    np.testing.assert_allclose(clip.rates(5, 30), tfp(spikes[5:30]))
    assert groups[1].clips[2] == "frame 46"


def test_one_sequence_or_split_of_a_store_can_be_named(store):
    assert [group.name for group in open_clips(store / "val/scenes/00000")] == ["val/scenes/00000"]
    assert len(open_clips(store / "train")) == 3


def test_what_can_not_be_looked_at_is_refused(tmp_path, recording):
    with pytest.raises(ViewError, match="found nothing"):
        open_clips(tmp_path / "missing")
    with pytest.raises(ViewError, match="found none of these"):
        open_clips(tmp_path)
    bare = tmp_path / "bare.dat"
    bare.write_bytes(recording[0].read_bytes())
    with pytest.raises(ValueError, match="no side file gives the geometry"):
        open_clips(bare)
    clip = open_clips(bare, SpikeOptions(geometry="12x16,bottom-up"))[0].clip(0)
    assert (clip.rate, clip.gain) == (None, None)
