"""What is shown of a recording or a store is what the pipeline computes of it."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikedeblur.pipeline.clocks.camera import CameraClock
from spikedeblur.pipeline.frames.images import write_png
from spikedeblur.pipeline.methods.contract import restored_frames, restored_instants
from spikedeblur.pipeline.methods.make_method import make_method
from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.sequences.find_recording import ExposureTimes, find_recording
from spikedeblur.pipeline.spikes import SpikeGeometry, tfi, tfp, write_side_file, write_spikes
from spikedeblur.pipeline.spikes.settings import SpikeOptions
from spikedeblur.pipeline.spikes.sidefile import SideFile
from spikedeblur.pipeline.view import ViewError, open_clips, open_recording
from spikedeblur.pipeline.view.page import as_png, histogram
from spikedeblur.pipeline.view.recordings import picture, span

GEOMETRY = SpikeGeometry(height=12, width=16, flip_rows=True)


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> tuple[Path, np.ndarray]:
    path = tmp_path_factory.mktemp("view") / "spike.dat"
    spikes = (np.random.default_rng(0).random((100, 12, 16)) < 0.3).astype(np.uint8)
    write_spikes(path, spikes, GEOMETRY)
    write_side_file(path, SideFile(geometry=GEOMETRY.describe(), rate=1000.0, gain=0.5, made_by={}))
    return path, spikes


def test_pictures_of_a_file_are_those_of_its_spikes(recording):
    path, spikes = recording
    (group,) = open_clips(path)
    clip = group.clip(0)
    assert (clip.samples, clip.shape, clip.rate, clip.gain) == (100, (12, 16), 1000.0, 0.5)
    assert clip.kinds == ("spikes", "TFP", "TFI", "bin", "light")

    def shown(kind: str) -> tuple[np.ndarray, tuple[int, int]]:
        seen = picture(clip, kind, 40, 21, 8)
        return seen.values, seen.samples

    values, samples = shown("spikes")
    np.testing.assert_array_equal(values, spikes[40])
    assert samples == (40, 41)
    values, samples = shown("TFP")
    np.testing.assert_allclose(values, tfp(spikes[30:51], 0.5))
    assert samples == (30, 51)
    np.testing.assert_array_equal(shown("TFI")[0], tfi(spikes, 40, 0.5))
    values, samples = shown("bin")
    assert samples == (38, 50)  # bin floor(40 * 8 / 100) = 3
    np.testing.assert_allclose(values, tfp(spikes[38:50], 0.5))
    values, samples = shown("light")
    assert samples == (30, 51)
    np.testing.assert_allclose(values, intervals_by_hand(spikes, 30, 51) / 21 / 0.5, rtol=1e-5)


def intervals_by_hand(spikes: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Spread each spike evenly since the one before; return what falls in [start, stop)."""
    light = np.zeros(spikes.shape[1:])
    for y, x in np.ndindex(light.shape):
        fired = np.flatnonzero(spikes[:, y, x]) + 0.5
        assert fired[0] < start
        assert fired[-1] > stop
        for a, b in itertools.pairwise(fired):
            light[y, x] += max(min(b, stop) - max(a, start), 0) / (b - a)
    return light


def test_an_unknown_gain_makes_the_brightest_pixels_white(recording, tmp_path):
    path, spikes = recording
    bare = tmp_path / "bare.dat"
    bare.write_bytes(path.read_bytes())
    clip = open_clips(bare, SpikeOptions(geometry="12x16,bottom-up"))[0].clip(0)
    seen = picture(clip, "TFP", 40, 21, 8).values
    rates = spikes[30:51].mean(0)
    np.testing.assert_allclose(seen, rates / np.percentile(rates, 99.5), rtol=1e-5)


def test_path_is_what_the_method_restores_and_follows_the_instant(store):
    clip = open_clips(store)[0].clip(1)
    sequence = open_store(store)[0]
    expected = next(f for i, f in restored_frames(make_method("path"), sequence) if i == 1)
    middle = picture(clip, "path", clip.samples // 2, 33, 8).values
    np.testing.assert_array_equal(np.rint(255 * middle), expected)
    blur = picture(clip, "blur", 0, 33, 8).values
    np.testing.assert_array_equal(np.rint(255 * blur), sequence.blur(1, 2)[0])
    first = picture(clip, "path", 0, 33, 8).values
    wanted = [[i == 1] * 2 for i in range(sequence.length)]
    at = -(clip.samples - 1) / 2 / clip.samples
    frames = list(restored_instants(make_method("path"), sequence, [at, 0.0], wanted))
    np.testing.assert_array_equal(np.rint(255 * first), frames[0][2])
    assert np.abs(first - middle).max() > 0.05


def test_frames_and_a_stream_are_seen_by_exposure(recording, tmp_path):
    path, spikes = recording
    for i in range(2):
        write_png(tmp_path / f"shot{i}.png", np.full((24, 32, 3), 40 + 100 * i, np.uint8))
    times = ExposureTimes(camera=CameraClock(frame_rate=25.0, shutter=0.03))
    group = open_recording(find_recording(tmp_path, path, times))
    assert list(group.clips) == ["shot0.png", "shot1.png"]
    clip = group.clip(1)
    assert clip.begins == pytest.approx(0.04)
    assert (clip.blur == 140).all()
    assert {"path", "blur"} < set(clip.kinds)
    assert "sharp" not in clip.kinds
    np.testing.assert_array_equal(clip.spikes(0, clip.samples), spikes[40 : 40 + clip.samples])
    with pytest.raises(ViewError, match="expected a picture among spikes, TFP"):
        picture(clip, "sharp", 0, 1, 1)


def test_contrast_stretches_light_between_black_and_white():
    values = np.array([[0.1, 0.2, 0.3, 0.9]], np.float32)
    shown = np.asarray(Image.open(io.BytesIO(as_png(values, 0.1, 0.3))))
    np.testing.assert_array_equal(shown, [[0, 128, 255, 255]])


def test_histogram_counts_pixels_by_their_spikes(recording):
    _, spikes = recording
    fired = spikes[30:51].sum(0)
    found = histogram(tfp(spikes[30:51]), 21)
    assert found["step"] == pytest.approx(1 / 21)
    np.testing.assert_array_equal(found["pixels"], np.bincount(fired.reshape(-1)))


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
