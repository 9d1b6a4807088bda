"""A sensor's file reaches all that reads spikes: counts, light, methods, crops and stores."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_sets import DataSet, make_data_set

from spikedeblur.cli import main
from spikedeblur.pipeline.calibrate.sensor_file import SensorRecord, read_sensor, write_sensor
from spikedeblur.pipeline.methods.contract import MethodClip
from spikedeblur.pipeline.methods.exposures import Exposures
from spikedeblur.pipeline.methods.tfp_tfi_sdm import TfiMethod, TfpMethod
from spikedeblur.pipeline.sequences.contract import WindowSequence, sensor_of
from spikedeblur.pipeline.sequences.corrected import correct_sequences, correction
from spikedeblur.pipeline.sequences.find_recording import recordings_of, settle_spikes
from spikedeblur.pipeline.sequences.grid import in_frame_grid
from spikedeblur.pipeline.sequences.light import LightSequence
from spikedeblur.pipeline.sequences.recording import Recording, RecordingSequence
from spikedeblur.pipeline.sequences.stored import open_store
from spikedeblur.pipeline.spikes import (
    SideFile,
    read_side_file,
    samples_per_bin,
    write_spikes,
)
from spikedeblur.pipeline.spikes.between import Between
from spikedeblur.pipeline.spikes.camera import SpikeCamera
from spikedeblur.pipeline.spikes.presets import parse_geometry
from spikedeblur.pipeline.spikes.reconstruct import sdm
from spikedeblur.pipeline.spikes.registration import Registration
from spikedeblur.pipeline.spikes.sensor import PixelCorrection, Sensor, SensorError
from spikedeblur.pipeline.spikes.settings import SpikeOptions, SpikeSettings
from spikedeblur.pipeline.spikes.sidefile import format_side_file, side_file_path
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.view.recordings import OF_SPIKES, open_clips, picture
from spikedeblur.pipeline.voxelize import voxelize_manifest

SEQ = "val/b/two"


def write(path: Path, shape: tuple[int, int], seed: int = 0, *, overwrite: bool = False) -> Sensor:
    """Write a sensor's file with random pixels."""
    rng = np.random.default_rng(seed)
    bad = rng.random(shape) < 0.05
    gain = rng.uniform(0.8, 1.2, shape).astype(np.float32)
    dark = rng.uniform(0, 0.01, shape).astype(np.float32)
    sensor = Sensor(gain, dark, bad, np.zeros(shape, np.bool_), bad)
    record = SensorRecord(
        shape=shape, geometry=f"{shape[0]}x{shape[1]},bottom-up", even=False, sources={}, found={}
    )
    write_sensor(path, sensor, record, overwrite=overwrite)
    return sensor


@pytest.fixture
def own(tmp_path: Path) -> DataSet:
    return make_data_set(tmp_path / "data", centres=(4, 10), exposure=5, seqs=(SEQ,))


def recorded(data: DataSet, sensor: Path | None = None) -> Recording:
    (recording,) = recordings_of(data.manifest, sensor=sensor)
    return recording


def test_counts_and_light_of_a_recording_are_those_of_equal_pixels(own: DataSet, tmp_path: Path):
    plain = RecordingSequence(recorded(own), 8)
    sensor = PixelCorrection(write(tmp_path / "s.zarr", plain.voxel_shape))
    found = RecordingSequence(recorded(own, tmp_path / "s.zarr"), 8)
    each = np.stack([samples_per_bin(int(n), 8) for n in plain.samples])
    expected = sensor.corrected(plain.voxels(0, 2), each)
    np.testing.assert_array_equal(found.voxels(0, 2), expected)
    assert found.voxel_dtype == found.voxels(0, 1).dtype == "float32"
    light = LightSequence(found).voxels(0, 2)
    assert light.dtype == LightSequence(found).voxel_dtype == "float16"
    raw = LightSequence(plain).voxels(0, 2).astype(np.float32)
    np.testing.assert_allclose(light, sensor.corrected(raw, each), atol=0.02)
    assert np.abs(light - raw).max() > 0.2
    # Spikes are as they were recorded: no bit can be half a spike.
    np.testing.assert_array_equal(found.spikes(0), plain.spikes(0))


class Passing(WindowSequence):
    """A sequence that reads another one, and knows nothing of sensors."""

    def __init__(self, sequence: WindowSequence) -> None:
        self._sequence = sequence

    def __getattr__(self, name: str):
        return getattr(self._sequence, name)

    def _read_voxels(self, start, stop, box):
        return self._sequence.voxels(start, stop, *box)

    def _read_frames(self, kind, start, stop, box):
        return getattr(self._sequence, kind)(start, stop, *box)

    def _read_spikes(self, window, beside, box):
        return self._sequence.spikes_beside(window, beside, *box)


@pytest.mark.parametrize("kind", ["packed", "counts"])
def test_what_reads_a_corrected_sequence_corrects_it_once(own: DataSet, tmp_path: Path, kind: str):
    own.voxelize(tmp_path / "s.zarr", kind=kind)
    (sequence,) = open_store(tmp_path / "s.zarr")
    write(tmp_path / "pixels.zarr", sequence.voxel_shape)
    correct_sequences([sequence], tmp_path / "pixels.zarr")
    passing = Passing(sequence)
    np.testing.assert_array_equal(passing.voxels(0, 2), sequence.voxels(0, 2))
    light = LightSequence(sequence).voxels(0, 2)
    np.testing.assert_array_equal(LightSequence(passing).voxels(0, 2), light)
    np.testing.assert_array_equal(Passing(LightSequence(sequence)).voxels(0, 2), light)
    if kind == "packed":
        clip = MethodClip(0, 1, 0, 1)
        np.testing.assert_array_equal(TfiMethod()(passing, clip), TfiMethod()(sequence, clip))


@pytest.mark.parametrize("kind", ["packed", "counts"])
def test_a_store_is_corrected_as_the_recording_is_in_crops_and_processes_too(
    own: DataSet, tmp_path: Path, kind: str
):
    own.voxelize(tmp_path / "s.zarr", kind=kind)
    (sequence,) = open_store(tmp_path / "s.zarr")
    write(tmp_path / "pixels.zarr", sequence.voxel_shape)
    correct_sequences([sequence], tmp_path / "pixels.zarr")
    recording = RecordingSequence(recorded(own, tmp_path / "pixels.zarr"), sequence.bins)
    whole = sequence.voxels(0, 2)
    np.testing.assert_allclose(whole, recording.voxels(0, 2), rtol=1e-5, atol=1e-5)
    for windows in (sequence, LightSequence(sequence)):
        again = pickle.loads(pickle.dumps(windows))
        crop = again.voxels(1, 2, (3, 17), (9, 30))
        np.testing.assert_array_equal(crop, windows.voxels(0, 2)[1:2, :, 3:17, 9:30])
    if kind == "packed":
        np.testing.assert_allclose(
            sequence.counted_in(4).voxels(0, 2).sum(1), whole.sum(1), rtol=1e-4, atol=1e-4
        )


def test_registered_spikes_are_corrected_by_the_pixels_that_saw_them(own: DataSet, tmp_path: Path):
    recording = recorded(own)
    shape = recording.settings.geometry.shape
    frame = RecordingSequence(recording, 8).frame_shape
    sensor = write(tmp_path / "s.zarr", shape)
    moved = Registration((2.0, 0, -8, 0, 2, 4, 0, 0, 1), shape, frame)
    settings = replace(recording.settings, registration=moved)
    plain = RecordingSequence(replace(recording, settings=settings), 8)
    settings = replace(settings, sensor=tmp_path / "s.zarr")
    found = RecordingSequence(replace(recording, settings=settings), 8)
    sources = moved.sources()
    seen = (sources >= 0) & ~sensor.filled.reshape(-1)[sources]
    gain, dark = (m.reshape(-1)[sources] for m in (sensor.gain, sensor.dark))
    samples = samples_per_bin(int(plain.samples[0]), 8)[:, None, None]
    expected = (plain.voxels(0, 1)[0] - samples * dark) / gain
    np.testing.assert_allclose(found.voxels(0, 1)[0][:, seen], expected[:, seen], rtol=1e-4)
    assert (found.voxels(0, 1)[0][:, sources < 0] == 0).all()


def test_tfp_and_tfi_show_the_light_of_equal_pixels(own: DataSet, tmp_path: Path):
    plain = RecordingSequence(recorded(own), 8)
    plain.gain = 0.5
    sensor = PixelCorrection(write(tmp_path / "s.zarr", plain.voxel_shape))
    found = RecordingSequence(recorded(own, tmp_path / "s.zarr"), 8)
    found.gain = 0.5
    for windows in (plain, found):
        windows.frame_shape = windows.voxel_shape  # nothing is enlarged
    clip = MethodClip(0, 1, 0, 1)
    for method in (TfpMethod(3), TfiMethod()):
        before, after = (method(windows, clip)[0, ..., 0] for windows in (plain, found))
        expected = sensor.corrected(before * 0.5, 1) / 0.5
        np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5)


def test_the_viewer_shows_planes_of_equal_pixels_and_spikes_as_they_are(
    own: DataSet, tmp_path: Path
):
    recording = recorded(own)
    geometry = recording.settings.geometry
    sensor = PixelCorrection(write(tmp_path / "s.zarr", geometry.shape))
    options = SpikeOptions(geometry=geometry.describe(), rate=1000, gain=0.5)
    found = []
    for named in (options, replace(options, sensor=tmp_path / "s.zarr")):
        (group,) = open_clips(recording.dat, named)
        found.append({kind: picture(group.clip(0), kind, 20, 9, 4).values for kind in OF_SPIKES})
    plain, equal = found
    np.testing.assert_array_equal(equal["spikes"], plain["spikes"])
    for name in ("TFP", "TFI", "bin", "light"):
        expected = sensor.corrected(plain[name], 1 / 0.5)
        np.testing.assert_allclose(equal[name], expected, rtol=1e-4, atol=1e-5)


def test_light_between_exposures_is_corrected_as_that_in_them_is(own: DataSet, tmp_path: Path):
    """`path` reads spikes beside an exposure itself, to follow motion across a gap."""
    plain = RecordingSequence(recorded(own), 8)
    write(tmp_path / "s.zarr", plain.voxel_shape)
    found = RecordingSequence(recorded(own, tmp_path / "s.zarr"), 8)
    shown = Exposures(found)
    across = shown._light_after(0, (-0.5, 0.5), 8)
    assert across is not None
    within = in_frame_grid(LightSequence(found)).voxels(0, 1).astype(np.float32)
    samples = int(found.samples[0])
    gain = shown.exposure(0).gain
    if shown.exposure(0).late:
        pytest.skip("the exposure's bins are moved by their lag")
    expected = within / np.float32(gain * samples / 8)
    np.testing.assert_allclose(across.numpy(), expected, rtol=2e-3, atol=2e-3)


def test_a_side_file_names_the_sensor_of_its_recording(own: DataSet, tmp_path: Path):
    recording = recorded(own)
    shape = recording.settings.geometry.shape
    write(tmp_path / "pixels.zarr", shape)
    side = read_side_file(recording.dat) or SideFile(
        geometry=recording.settings.geometry.describe(), rate=recording.settings.rate
    )
    assert "sensor" not in format_side_file(side)  # which former releases would refuse
    up = "../" * (len(recording.dat.relative_to(tmp_path).parts) - 1)
    named = side.model_copy(update={"sensor": f"{up}pixels.zarr"})
    side_file_path(recording.dat).write_text(format_side_file(named))
    assert recorded(own).settings.sensor == tmp_path / "pixels.zarr"
    assert settle_spikes(recording.dat, SpikeOptions(first=0.0)).sensor == tmp_path / "pixels.zarr"
    assert sensor_of(RecordingSequence(recorded(own), 8)) is not None
    write(tmp_path / "pixels.zarr", (5, 7), overwrite=True)
    beside = side_file_path(recording.dat).name
    with pytest.raises(SensorError, match=rf"{beside}: the sensor that it names can't be used"):
        RecordingSequence(recorded(own), 8)
    other = SpikeOptions(sensor="other.zarr", first=0.0)
    assert settle_spikes(recording.dat, other).sensor == Path("other.zarr")


def test_a_store_has_the_sensor_that_a_side_file_names(own: DataSet, tmp_path: Path):
    recording = recorded(own)
    shape = recording.settings.geometry.shape
    side = read_side_file(recording.dat) or SideFile(
        geometry=recording.settings.geometry.describe(), rate=recording.settings.rate
    )
    named = side.model_copy(
        update={"sensor": os.path.relpath(tmp_path / "p", recording.dat.parent)}
    )
    side_file_path(recording.dat).write_text(format_side_file(named))
    with pytest.raises(
        SensorError, match=r"sensor that its side file names can't be used.*nothing"
    ):
        voxelize_manifest(own.manifest, tmp_path / "none.zarr")
    write(tmp_path / "p", (5, 7))
    with pytest.raises(SensorError, match=r"side file names can't be used.*found one of 5x7"):
        voxelize_manifest(own.manifest, tmp_path / "wrong.zarr")
    write(tmp_path / "p", shape, overwrite=True)
    voxelize_manifest(own.manifest, tmp_path / "d.zarr")
    (sequence,) = open_store(tmp_path / "d.zarr")
    assert sequence.record.sensor_sha256 == read_sensor(tmp_path / "p").sha256
    recording = RecordingSequence(recorded(own), sequence.bins)
    np.testing.assert_array_equal(sequence.voxels(0, 2), recording.voxels(0, 2))


def test_another_cameras_file_is_refused(own: DataSet, tmp_path: Path):
    write(tmp_path / "s.zarr", (5, 7))
    with pytest.raises(SensorError, match=r"s\.zarr: expected a sensor of .*found one of 5x7"):
        RecordingSequence(recorded(own, tmp_path / "s.zarr"), 8)
    with pytest.raises(SensorError, match=r"none\.zarr: .*found nothing"):
        RecordingSequence(recorded(own, tmp_path / "none.zarr"), 8)
    plain = RecordingSequence(recorded(own), 8)
    write(tmp_path / "fits.zarr", plain.voxel_shape)
    settings = recorded(own, tmp_path / "fits.zarr").settings
    coloured = replace(settings, geometry=replace(settings.geometry, bayer="RGGB"))
    with pytest.raises(SensorError, match="colour filters"):
        RecordingSequence(replace(recorded(own), settings=coloured), 8)
    with pytest.raises(StoreError, match="voxelize"):
        correct_sequences([plain], tmp_path / "fits.zarr")


@pytest.mark.parametrize("right", [True, False])
def test_a_pattern_that_is_upside_down_is_refused(tmp_path: Path, right: bool):
    """Row orders of two files may differ; what they show upright must not."""
    shape, rng = (24, 32), np.random.default_rng(1)
    gain = rng.normal(1, 0.08, shape).astype(np.float32)
    none = np.zeros(shape, np.bool_)
    sensor = Sensor(gain, np.zeros_like(gain), none, none, none)
    record = SensorRecord(shape=shape, geometry="24x32,top-down", even=False, sources={}, found={})
    write_sensor(tmp_path / "s.zarr", sensor, record)
    seen = gain if right else gain[::-1]
    rows, columns = np.meshgrid(*(np.arange(side) / 5 for side in shape), indexing="ij")
    light = np.float32(0.5) + np.float32(0.3) * np.sin(rows + columns).astype(np.float32)
    camera = SpikeCamera(threshold=2.0).record([light * seen] * 400, rng)
    geometry = parse_geometry("24x32,bottom-up")
    write_spikes(tmp_path / "a.dat", np.stack(list(camera)), geometry)
    settings = SpikeSettings(geometry=geometry, rate=1000.0, first=0.0, gain=0.5)
    if right:
        correction(tmp_path / "s.zarr", tmp_path / "a.dat", settings)
        return
    # What lies before the part that is read shows the pattern the right way up.
    (tmp_path / "a.dat").unlink()
    camera = SpikeCamera(threshold=2.0)
    light_of = [light * gain] * 4096 + [light * seen] * 400
    write_spikes(tmp_path / "a.dat", np.stack(list(camera.record(light_of, rng))), geometry)
    settings = replace(settings, between=Between(start=4.096))
    with pytest.raises(SensorError, match=r"s\.zarr: .* upside down"):
        correction(tmp_path / "s.zarr", tmp_path / "a.dat", settings)


def test_division_beside_a_warm_pixel_keeps_the_dark_dark(own: DataSet, tmp_path: Path):
    """What is left of a hot pixel's random spikes says nothing of what moved."""
    dark = np.zeros((8, 10), np.float32)
    dark[4, 5] = 0.06
    hot, none = dark > 0, np.zeros(dark.shape, np.bool_)
    sensor = PixelCorrection(Sensor(np.ones_like(dark), dark, hot, none, none))
    noise = sensor.noise(40)
    assert noise[4, 5] == pytest.approx(np.sqrt(0.06 / 40))
    assert np.count_nonzero(noise) == 1
    blur, rng = np.full((8, 10, 3), 0.02, np.float32), np.random.default_rng(0)
    wrong = []
    for floor in (1 / 255, 1 / 255 + noise / 0.5):
        errors = []
        for _ in range(50):
            spikes = rng.random((264, 8, 10)) < dark
            short, whole = (
                sensor.corrected(part.mean(axis=0, dtype=np.float32), 1) / 0.5
                for part in (spikes[112:152], spikes)
            )
            errors.append(np.abs(sdm(blur, short, whole, floor) - blur).max())
        wrong.append(np.mean(errors))
    assert wrong[1] < 0.4 * wrong[0]


def test_simulate_calibrate_restore_and_evaluate_as_a_user_types_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)

    def type_in(line: str) -> str:
        code = main(line.split())
        said = capsys.readouterr()
        assert code == 0, said.err
        return said.out

    flaws = "--gain-spread 0.1 --dark-rate 0.002 --hot 30 --dead 10"
    type_in(f"simulate d --scenes 1 --split test --size 64x64 --length 33 --workers 1 {flaws}")
    here = "d/calibration/{}/spike.dat"
    dark, flat = here.format("dark"), here.format("flat")
    said = type_in(f"calibrate --dark {dark} --flat {flat} --out s.zarr")
    assert "s.zarr: 32x32 pixels, 30 hot, 10 dead" in said
    type_in("align d --layout x4k1000fps --log log.txt --manifest m.json")
    type_in("restore --method tfp --manifest m.json --out plain")
    type_in("restore --method tfp --manifest m.json --sensor s.zarr --out better")
    frame = "test/scenes/00000/0016.png"
    assert Path("plain", frame).read_bytes() != Path("better", frame).read_bytes()
    assert main(["restore", "--method", "tfp", "--manifest", "m.json", "--out", "better"]) == 1
    assert "sensor_sha256" in capsys.readouterr().err
    type_in("voxelize m.json d.zarr --workers 1")
    type_in("evaluate d.zarr --methods tfp --json plain.json")
    type_in("evaluate d.zarr --methods tfp --sensor s.zarr --json better.json")
    scores = [json.loads(Path(f"{name}.json").read_text()) for name in ("plain", "better")]
    assert scores[1]["methods"]["tfp"]["psnr"] > scores[0]["methods"]["tfp"]["psnr"] + 1
    assert "sensor_sha256" in scores[1]
    assert "sensor_sha256" not in scores[0]
