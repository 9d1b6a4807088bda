"""A sensor that a manifest names travels with the store, and all who read it are given it."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from data_sets import GEOMETRY, DataSet, make_data_set, pack_plainly
from s3_server import environment, make_bucket, s3_server
from training_sets import tiny_config

from spikedeblur.configs.schema import NormConfig
from spikedeblur.pipeline.align.manifest import read_manifest, write_manifest
from spikedeblur.pipeline.align.named_sensor import NamedSensor
from spikedeblur.pipeline.calibrate.sensor_file import SensorRecord, read_sensor, write_sensor
from spikedeblur.pipeline.evaluate import Evaluating, evaluate
from spikedeblur.pipeline.host.reporter import Reporter
from spikedeblur.pipeline.sequences.contract import sensor_of
from spikedeblur.pipeline.sequences.find_recording import recordings_of
from spikedeblur.pipeline.sequences.light import LightSequence, seen_by
from spikedeblur.pipeline.sequences.recording import RecordingSequence
from spikedeblur.pipeline.sequences.stored import StoreSequence, open_store
from spikedeblur.pipeline.sequences.unified import UnifiedFiles, open_windows
from spikedeblur.pipeline.spikes import read_side_file
from spikedeblur.pipeline.spikes.camera import SpikeCamera
from spikedeblur.pipeline.spikes.named_sensor import sensor_hash
from spikedeblur.pipeline.spikes.sensor import Sensor, SensorError
from spikedeblur.pipeline.spikes.sidefile import write_folder_side_file
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.storage.locate import open_storage
from spikedeblur.pipeline.train.data.loader import open_loader
from spikedeblur.pipeline.train.data.order import ClipIndex, StepPlan
from spikedeblur.pipeline.train.data.samples import ClipSamples, SampleError
from spikedeblur.pipeline.train.data.splits import Splits
from spikedeblur.pipeline.train.objective import to_inputs
from spikedeblur.pipeline.voxelize import VoxelizeOptions, voxelize_manifest
from spikedeblur.pipeline.voxelize.check import check_store

SHAPE = GEOMETRY.shape
CPU = torch.device("cpu")
both_kinds = pytest.mark.parametrize("kind", ["packed", "counts"])


def write(path: Path, seed: int = 0, *, flaws: bool = True) -> Sensor:
    shape = SHAPE
    rng = np.random.default_rng(seed)
    gain = rng.uniform(0.8, 1.2, shape).astype(np.float32)
    dark = np.full(shape, 0.01 * flaws, np.float32)
    bad = (rng.random(shape) < 0.05) & flaws
    sensor = Sensor(gain, dark, bad, np.zeros(shape, np.bool_), bad)
    record = SensorRecord(
        shape=shape, geometry=f"{shape[0]}x{shape[1]},bottom-up", even=False, sources={}, found={}
    )
    write_sensor(path, sensor, record, overwrite=True)
    return sensor


def name(data: DataSet, path: Path) -> None:
    """Have the manifest name a sensor, as `align --sensor` does."""
    manifest = read_manifest(data.manifest)
    file = Path(os.path.relpath(path, data.root)).as_posix()
    named = NamedSensor(file=file, sha256=sensor_hash(path))
    sequences = tuple(s.model_copy(update={"sensor": named}) for s in manifest.sequences)
    write_manifest(data.manifest, manifest.model_copy(update={"sequences": sequences}))


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    made = make_data_set(tmp_path / "d")
    write(tmp_path / "pixels.zarr")
    name(made, tmp_path / "pixels.zarr")
    return made


def own_of(sequence: object) -> StoreSequence:
    assert isinstance(sequence, StoreSequence)
    return sequence


@both_kinds
def test_known_gains_come_back_as_the_light_of_equal_pixels(tmp_path: Path, kind: str):
    sensor = write(tmp_path / "pixels.zarr", flaws=False)
    rows, columns = np.meshgrid(*(np.arange(side) for side in SHAPE), indexing="ij")
    light = (0.3 + 0.2 * np.sin(rows / 4 + columns / 5)).astype(np.float32)
    stores = []
    for differs in (False, True):
        made = make_data_set(tmp_path / str(differs), centres=(20,), exposure=39)
        for seq, random in made.spikes.items():
            seen = light * sensor.gain if differs else light
            camera = SpikeCamera(threshold=1.0)
            spikes = np.stack(list(camera.record([seen] * len(random), np.random.default_rng(0))))
            dat = made.root / "raw" / seq / "spike.dat"
            stat = dat.stat()
            pack_plainly(spikes.astype(np.uint8)).tofile(dat)
            os.utime(dat, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        if differs:
            name(made, tmp_path / "pixels.zarr")
        made.voxelize(tmp_path / f"{differs}.zarr", kind=kind)
        stores.append(open_store(tmp_path / f"{differs}.zarr", "train"))
    ((ideal,), (corrected,)) = stores
    counts = [s.voxels(0, 1).astype(float).sum(1) for s in (ideal, corrected)]
    # A count is of charge that is less than a spike off, at both ends and in either recording.
    assert np.abs(counts[0] - counts[1]).max() < 1 + 1 / 0.8
    raw = own_of(corrected).recorded_counts(0, 1, ((0, SHAPE[0]), (0, SHAPE[1]))).sum(1)
    assert np.abs(raw - counts[0]).max() > 5


@both_kinds
def test_a_store_gives_what_its_recordings_give(data: DataSet, tmp_path: Path, kind: str):
    data.voxelize(tmp_path / "s.zarr", kind=kind)
    stored = open_store(tmp_path / "s.zarr")
    for sequence, recording in zip(stored, recordings_of(data.manifest), strict=True):
        from_file = RecordingSequence(recording, sequence.bins)
        assert sensor_of(from_file) is not None
        assert sequence.voxel_dtype == "float32"
        np.testing.assert_array_equal(sequence.voxels(0, 3), from_file.voxels(0, 3))
        again = pickle.loads(pickle.dumps(sequence))
        crop = again.voxels(1, 2, (3, 17), (9, 30))
        np.testing.assert_array_equal(crop, sequence.voxels(0, 2)[1:2, :, 3:17, 9:30])
        if kind == "packed":
            light = [LightSequence(s).voxels(1, 3) for s in (sequence, from_file)]
            np.testing.assert_array_equal(*light)
            four = own_of(sequence).counted_in(4).voxels(0, 2).sum(1)
            np.testing.assert_allclose(four, sequence.voxels(0, 2).sum(1), rtol=1e-4, atol=1e-4)
    # One correction serves all sequences of a camera.
    assert sensor_of(stored[0]) is sensor_of(stored[1])
    assert check_store(tmp_path / "s.zarr", manifest=data.manifest).whole


@both_kinds
def test_spikes_and_frames_have_the_same_bytes_with_a_sensor_and_without(
    data: DataSet, tmp_path: Path, kind: str
):
    data.voxelize(tmp_path / "with.zarr", kind=kind)
    make_data_set(tmp_path / "plain").voxelize(tmp_path / "without.zarr", kind=kind)
    stores = [tmp_path / f"{which}.zarr" for which in ("with", "without")]
    files = [
        {p.relative_to(s).as_posix(): p.read_bytes() for p in s.rglob("*") if p.is_file()}
        for s in stores
    ]
    more = files[0].keys() - files[1].keys()
    assert more
    assert all("/sensor_" in key for key in more)
    assert all(files[0][k] == v for k, v in files[1].items() if not k.endswith("zarr.json"))
    without = open_store(stores[1])[0]
    assert sensor_of(without) is None
    assert not any("sensor" in key for key in own_of(without).record.model_dump(mode="json"))


@pytest.mark.parametrize("norm", [NormConfig(), NormConfig(MODE="relative")], ids=["log1p", "rel"])
def test_training_loads_corrected_windows_in_any_number_of_processes(
    data: DataSet, tmp_path: Path, norm: NormConfig
):
    data.voxelize(tmp_path / "s.zarr")
    recordings = [RecordingSequence(recording, 8) for recording in recordings_of(data.manifest)]
    stored = open_store(tmp_path / "s.zarr", "train")
    index = ClipIndex.every_start([stored[0].length], 2)
    batches = []
    for workers in (0, 2):
        samples = ClipSamples(seen_by(norm, stored), index, crop_size=24, seed=5)
        with open_loader(samples, StepPlan(index, 2), 0, 2, workers=workers, pin=False) as steps:
            made = [to_inputs(batch, CPU, norm).voxels.clone() for step in steps for batch in step]
        batches.append(made)
    for here, there in zip(*batches, strict=True):
        assert here.isfinite().all()
        torch.testing.assert_close(here, there, rtol=0, atol=0)
    (windows,) = seen_by(norm, recordings[:1])
    (mine,) = seen_by(norm, stored)
    np.testing.assert_array_equal(windows.voxels(0, 2), mine.voxels(0, 2))


def test_spikes_that_a_sensor_corrects_are_not_sent_to_the_device_as_bits(
    data: DataSet, tmp_path: Path
):
    data.voxelize(tmp_path / "s.zarr")
    splits = Splits(
        open_store(tmp_path / "s.zarr", "train"), open_store(tmp_path / "s.zarr", "val")
    )
    config = tiny_config()
    packed, why = splits.packs(config, torch.device("cuda"))
    assert not packed
    assert "a sensor corrects the pixels of train/a/one there" in (why or "")
    on = config.DATA.model_copy(update={"SPIKES_ON_DEVICE": True})
    with pytest.raises(SampleError, match=r"train/a/one: DATA.SPIKES_ON_DEVICE: .* a sensor"):
        splits.packs(config.model_copy(update={"DATA": on}), torch.device("cuda"))


def test_evaluate_corrects_by_the_stores_sensor_and_another_one_overrides_it(
    data: DataSet, tmp_path: Path
):
    data.voxelize(tmp_path / "s.zarr")
    make_data_set(tmp_path / "plain").voxelize(tmp_path / "plain.zarr")
    how = Evaluating(sensor=tmp_path / "pixels.zarr")
    own, given, plain = (
        evaluate(tmp_path / f"{store}.zarr", split="val", methods=("tfp",), how=how)
        for store, how in (("s", Evaluating()), ("plain", how), ("plain", Evaluating()))
    )
    sha256 = read_sensor(tmp_path / "pixels.zarr").sha256
    assert (own.sensor_sha256, given.sensor_sha256, plain.sensor_sha256) == (sha256, sha256, None)
    assert own.methods == given.methods
    assert own.methods != plain.methods
    write(tmp_path / "other.zarr", seed=1)
    how = Evaluating(sensor=tmp_path / "other.zarr")
    other = evaluate(tmp_path / "s.zarr", split="val", methods=("tfp",), how=how)
    assert other.methods not in (own.methods, plain.methods)


def test_another_sensor_makes_another_store(data: DataSet, tmp_path: Path):
    data.voxelize(tmp_path / "s.zarr")
    assert data.voxelize(tmp_path / "s.zarr").sequences_kept == 2
    write(tmp_path / "pixels.zarr", seed=1)
    with pytest.raises(SensorError, match=r"pixels\.zarr, changed since it was aligned; align"):
        data.voxelize(tmp_path / "s.zarr")
    with pytest.raises(SensorError, match="changed since it was aligned"):
        recordings_of(data.manifest)
    name(data, tmp_path / "pixels.zarr")
    with pytest.raises(StoreError, match="another sensor"):
        data.voxelize(tmp_path / "s.zarr")
    assert data.voxelize(tmp_path / "s.zarr", overwrite=True).sequences_written == 2


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("which", ["gain", "dark", "flaws"])
def test_a_damaged_sensor_is_named_and_mended(data: DataSet, tmp_path: Path, which: str):
    store = tmp_path / "s.zarr"
    data.voxelize(store)
    file = store / "train/a/one" / f"sensor_{which}" / "c/0/0"
    whole = file.read_bytes()
    damage(file)
    with pytest.raises(StoreError, match=rf"train/a/one: sensor_{which}/c/0/0, .* is not what was"):
        open_store(store)[0].voxels(0, 1)
    assert [f.problem for f in check_store(store).findings] == ["damaged"]
    file.unlink()
    with pytest.raises(StoreError, match=rf"sensor_{which}/c/0/0 is missing.* `voxelize --check`"):
        open_store(store)
    data.voxelize(store, check=True)
    assert file.read_bytes() == whole


def test_a_record_without_its_maps_is_refused(data: DataSet, tmp_path: Path):
    data.voxelize(tmp_path / "s.zarr")
    sequence = own_of(open_store(tmp_path / "s.zarr")[0])
    arrays = tuple(s for s in sequence.record.arrays if s.name != "sensor_dark")
    sequence.record = sequence.record.model_copy(update={"arrays": arrays})
    with pytest.raises(StoreError, match="expected the map sensor_dark of its sensor"):
        sequence.voxels(0, 1)


@pytest.mark.slow
def test_a_sensor_travels_through_a_bucket(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with s3_server() as address:
        make_bucket(address, "spikes")
        for variable, value in environment(address).items():
            monkeypatch.setenv(variable, value)
        data.voxelize(tmp_path / "s.zarr")
        shutil.move(tmp_path / "pixels.zarr", data.root.parent / "pixels.zarr")
        name(data, data.root.parent / "pixels.zarr")
        there = open_storage("s3://spikes/set")
        for path in data.root.parent.rglob("*"):
            if path.is_file():
                there.write(path.relative_to(data.root.parent).as_posix(), [path.read_bytes()])
        manifest = f"s3://spikes/set/{data.manifest.name}"
        remote = DataSet(**(vars(data) | {"manifest": manifest}))
        remote.voxelize("s3://spikes/store.zarr")  # type: ignore[arg-type]
        for here, far in zip(
            open_store(tmp_path / "s.zarr"), open_store("s3://spikes/store.zarr"), strict=True
        ):
            np.testing.assert_array_equal(here.voxels(0, 2), far.voxels(0, 2))
            assert sensor_of(far) is not None


def test_a_unified_folder_is_corrected_by_the_sensor_that_its_side_files_name(
    data: DataSet, tmp_path: Path
):
    warned: list[str] = []
    heard = Reporter()
    heard.warn = warned.append  # type: ignore[method-assign]
    options = VoxelizeOptions(bins=8, format="npy")
    voxelize_manifest(data.manifest, tmp_path / "tree", options, reporter=heard)
    assert len(warned) == 2
    assert "name it as `sensor` in spikes.json there" in warned[0]
    data.voxelize(tmp_path / "s.zarr")
    (stored,) = open_store(tmp_path / "s.zarr", "train")
    for folder in (tmp_path / "tree").rglob("spike"):
        side = read_side_file(folder / "000002.dat")
        assert side is not None
        named = side.model_copy(
            update={"sensor": os.path.relpath(tmp_path / "pixels.zarr", folder)}
        )
        write_folder_side_file(folder, named)
    for precomputed in (True, False):
        files = UnifiedFiles(log_paths=[data.log], precomputed=precomputed)
        (unified,) = open_windows(tmp_path / "tree", "train", bins=8, files=files)
        assert unified.voxel_dtype == "float32"
        crop = (1, 4, (3, 17), (9, 30))
        np.testing.assert_array_equal(unified.voxels(*crop), stored.voxels(*crop))


@pytest.mark.parametrize("precomputed", [True, False])
def test_spikes_whose_sensor_only_the_manifest_names_are_not_read_without_it(
    data: DataSet, tmp_path: Path, precomputed: bool
):
    data.voxelize(tmp_path / "tree", format="npy")
    files = UnifiedFiles(log_paths=[data.log], precomputed=precomputed)
    with pytest.raises(StoreError, match=r"align knows the sensor of .*train/a/one.* spikes\.json"):
        open_windows(tmp_path / "tree", "train", bins=8, files=files)
