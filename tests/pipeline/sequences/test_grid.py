"""Light in the frame's grid: crops, readers, and frames restored from light resampled before."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_sets import DataSet, make_data_set

import spikedeblur
from spikedeblur.configs.schema import NormConfig
from spikedeblur.pipeline.adapt.camera import Camera
from spikedeblur.pipeline.frames.images import read_rgb
from spikedeblur.pipeline.methods.contract import Method, MethodClip
from spikedeblur.pipeline.methods.exposures import Exposures
from spikedeblur.pipeline.methods.path import PathMethod
from spikedeblur.pipeline.sequences.arrays import ArraySequence
from spikedeblur.pipeline.sequences.contract import WindowSequence
from spikedeblur.pipeline.sequences.find_recording import recordings_of
from spikedeblur.pipeline.sequences.grid import GridError, GridSequence, in_frame_grid
from spikedeblur.pipeline.sequences.light import LightSequence, seen_by
from spikedeblur.pipeline.sequences.recording import RecordingSequence
from spikedeblur.pipeline.sequences.stored import open_store
from spikedeblur.pipeline.sequences.unified import UnifiedFiles, open_windows
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.spikes.registration import Registration
from spikedeblur.pipeline.train.data.order import ClipIndex
from spikedeblur.pipeline.train.data.samples import ClipSamples

LIGHT, COUNTS = NormConfig(MODE="relative"), NormConfig()
ODD = (48, 68)  # of spikes of 20x36: light in 48x68
SEQ = "val/b/two"
both_norms = pytest.mark.parametrize("norm", [LIGHT, COUNTS], ids=["light", "counts"])


def resampled_plainly(planes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Light up to each edge, by the polynomial through six edges around it, then differences."""
    for axis, new in ((-2, shape[0]), (-1, shape[1])):
        light = np.moveaxis(planes.astype(np.float64), axis, 0)
        old = len(light)
        mirrored = np.concatenate([light[::-1], light, light[::-1]])
        until = np.concatenate([0 * mirrored[:1], mirrored.cumsum(0)])
        edges = []
        for edge in np.arange(new + 1) * old / new:
            around = np.arange(-2, 4) + int(edge + 1e-9)
            powers = np.linalg.inv(np.vander(around - edge, 6, increasing=True))
            edges.append(np.tensordot(powers[0], until[around + old], 1))
        planes = np.moveaxis(np.diff(np.stack(edges), axis=0) * new / old, 0, axis)
    return planes.clip(0)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """Random spikes of 20x36 and frames of 48x68."""
    return make_data_set(tmp_path_factory.mktemp("odd"), frame_shape=ODD)


def stored(data: DataSet, kind: str = "packed") -> WindowSequence:
    store = data.root.parent / f"{kind}.zarr"
    if not store.exists():
        data.voxelize(store, kind=kind)
    return open_store(store, "val")[0]


@both_norms
@pytest.mark.parametrize("kind", ["packed", "counts"])
def test_light_is_resampled_and_a_crop_is_the_whole_cut(odd: DataSet, kind: str, norm) -> None:
    sequence = stored(odd, kind)
    (seen,) = seen_by(norm, [sequence])
    seen = pickle.loads(pickle.dumps(seen))
    own = (LightSequence(sequence) if norm is LIGHT else sequence).voxels(0, 5)
    whole = seen.voxels(0, 5)
    assert seen.voxel_shape == ODD
    assert whole.shape == (5, 8, *ODD)
    assert whole.dtype == seen.voxel_dtype == ("float16" if norm is LIGHT else "float32")
    np.testing.assert_allclose(whole, resampled_plainly(own, ODD), rtol=1e-3, atol=2e-3)
    for rows, columns in (((3, 17), (10, 31)), ((0, 1), (67, 68)), ((40, 48), (0, 8))):
        crop = seen.voxels(1, 4, rows, columns)
        np.testing.assert_array_equal(crop, whole[1:4, :, slice(*rows), slice(*columns)])
    with pytest.raises(IndexError, match="pixels 0:49"):
        seen.voxels(0, 1, (0, 49))
    np.testing.assert_array_equal(seen.blur(1, 2, (3, 9)), sequence.blur(1, 2, (3, 9)))


@both_norms
@pytest.mark.parametrize("length", [None, 1e9])
def test_a_training_crop_is_the_part_of_the_whole(odd: DataSet, norm, length) -> None:
    from spikedeblur.pipeline.train.data.cache import LRUCache

    seen = seen_by(norm, [stored(odd)])
    whole, cache = seen[0].voxels(0, 5), None if length is None else LRUCache(length / 2**30)
    samples = ClipSamples(seen, ClipIndex.every_start([5], 5), crop_size=16, cache=cache)
    sample = samples.cut(0, (8, 24), (33, 49))
    np.testing.assert_array_equal(sample["voxels"], whole[..., 8:24, 33:49])
    assert samples.sample(0, 0)["voxels"].shape == (5, 8, 16, 16)


def test_voxels_with_log1p_done_are_resampled_as_light(odd: DataSet, tmp_path: Path) -> None:
    odd.voxelize(tmp_path / "tree", format="npy")
    for path in (tmp_path / "tree").rglob("*.npy"):
        np.save(path, np.log1p(np.load(path).astype(np.float32)))
    files = UnifiedFiles(log_paths=[odd.log], precomputed=True)
    sequence = open_windows(tmp_path / "tree", "val", bins=8, files=files)[0]
    assert not sequence.windows_are_raw
    (seen,) = seen_by(COUNTS, [sequence])
    expected = np.log1p(resampled_plainly(np.expm1(sequence.voxels(0, 5)), ODD))
    np.testing.assert_allclose(seen.voxels(0, 5), expected, atol=1e-4)


def test_a_whole_ratio_changes_nothing(data: DataSet) -> None:
    for sequence in (stored(data), LightSequence(stored(data))):
        assert in_frame_grid(sequence) is sequence


def test_shapes_of_different_fields_need_a_registration(tmp_path: Path) -> None:
    data = make_data_set(tmp_path, frame_shape=(72, 40), seqs=(SEQ,), centres=(4, 10))
    (recording,) = recordings_of(data.manifest)
    with pytest.raises(GridError, match=r"val/b/two: .*one is turned; turn the frames by a qua"):
        in_frame_grid(RecordingSequence(recording, 8))
    with pytest.raises(GridError, match="20x36 and frames of 72x40"):
        Exposures(RecordingSequence(recording, 8))
    turned = Registration((0, 2, 0, 2, 0, 0, 0, 0, 1), (20, 36), (72, 40))
    known = replace(recording, settings=replace(recording.settings, registration=turned))
    (seen,) = seen_by(LIGHT, [RecordingSequence(known, 8)])
    assert isinstance(seen, GridSequence)
    assert seen.voxel_shape == (72, 40)  # the spikes' bits are brought to 20x36 of it


def test_adapt_reads_what_restore_does(odd: DataSet) -> None:
    recording = recordings_of(odd.manifest)[1]
    camera = Camera(recording, 8, LIGHT)
    crop = camera.clip(np.random.default_rng(0), 3, 16, (1.0, 0.0))
    assert crop.windows.voxels.shape == (4, 3, 8, 16, 16)
    assert crop.light.shape == (4, 3, 16, 16)
    rates, lights = camera.seen()
    assert rates.shape == lights.shape == (5 * 46 * 66,)
    assert rates.mean() == pytest.approx(0.4, abs=0.01)


class PreResampled(ArraySequence):
    """A recording whose light was resampled beforehand, by other code."""

    def __init__(self, own: ArraySequence, shape: tuple[int, int]) -> None:
        self.__dict__.update(own.__dict__)
        light = LightSequence(own).voxels(0, own.length)
        self._light = resampled_plainly(light, shape)
        self.voxel_shape = shape

    def _read_light(self, window, beside, box, out) -> None:
        out[...] = self._light[window][:, slice(*box[0]), slice(*box[1])]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> ArraySequence:
    """Three exposures of a scene in 48x64 pixels, and spikes of 25x40."""
    folder = tmp_path_factory.mktemp("scene")
    clips = scene_clips("test", 1, (48, 64), 57)
    simulate(folder, clips, Rig(spike_size=(25, 40), stride=12), workers=1)
    dat = folder / "test_spike_2xds/scenes/00000/spike.dat"
    spikes = spikedeblur.read_spikes(dat, spikedeblur.parse_geometry("25x40,bottom-up"))
    frames = sorted((folder / "test_blurry_33/scenes/00000").iterdir())
    exposures = np.array([[8 * (int(f.stem) - 16), 8 * (int(f.stem) + 16)] for f in frames])
    return ArraySequence(np.stack([read_rgb(f) for f in frames]), spikes, exposures, 0.5)


@pytest.mark.parametrize("name", ["path", "small"])
def test_a_frame_is_the_one_from_light_resampled_before(scene: ArraySequence, name: str) -> None:
    method: Method = PathMethod(device="cpu")
    if name == "small":
        method = spikedeblur.load("small", device="cpu")._method
    clip = MethodClip(0, 3, 0, 3)
    found = method(scene, clip)
    expected = method(PreResampled(scene, (48, 64)), clip)
    assert np.abs(found - scene.blur(0, 3) / 255).max() > 0.05
    assert np.abs(found - expected).max() <= 1 / 255
