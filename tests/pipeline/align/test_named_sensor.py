"""`align` names the sensor's file in the manifest: the option's, a side file's or a layout's."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from small_clips import GEOMETRY

from spikedeblur.cli import main
from spikedeblur.pipeline.align import AlignOptions
from spikedeblur.pipeline.align.job import align
from spikedeblur.pipeline.align.manifest import Manifest, ManifestError, read_manifest
from spikedeblur.pipeline.align.named_sensor import UNCORRECTED
from spikedeblur.pipeline.calibrate.sensor_file import SensorRecord, write_sensor
from spikedeblur.pipeline.host.reporter import Reporter
from spikedeblur.pipeline.sequences.find_recording import recordings_of
from spikedeblur.pipeline.spikes import parse_geometry
from spikedeblur.pipeline.spikes.named_sensor import sensor_hash
from spikedeblur.pipeline.spikes.sensor import Sensor, SensorError
from spikedeblur.pipeline.spikes.settings import SpikeOptions
from spikedeblur.pipeline.spikes.sidefile import SideFile, write_side_file

SHAPE = parse_geometry(GEOMETRY).shape
DAT = "val_spike_2xds/Type1/TEST01_003_f0433/spike.dat"


class Heard(Reporter):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def write(path: Path, shape: tuple[int, int] = SHAPE, gain: float = 1.0) -> Path:
    plane, none = np.full(shape, gain, np.float32), np.zeros(shape, np.bool_)
    record = SensorRecord(shape=shape, geometry=GEOMETRY, even=False, sources={}, found={})
    sensor = Sensor(plane, np.zeros(shape, np.float32), none, none, none)
    write_sensor(path, sensor, record, overwrite=True)
    return path


def run(root: Path, layout: str = "x4k1000fps", **options) -> tuple[Manifest, list[str]]:
    heard, out = Heard(), root.parent / "o"
    options = {"exposure": 9} | options
    manifest = align(
        root,
        layout,
        log=out / "a.txt",
        manifest=out / "a.json",
        options=AlignOptions(**options),
        reporter=heard,
    )
    assert read_manifest(out / "a.json") == manifest
    return manifest, heard.notes


def test_the_option_wins_over_the_side_file_and_without_either_nothing_is_written(
    tmp_path: Path, make_clip
):
    root = tmp_path / "data"
    make_clip(root)
    manifest, notes = run(root)
    assert manifest.sequences[0].sensor is None
    assert '"sensor"' not in (tmp_path / "o/a.json").read_text()
    assert UNCORRECTED not in notes

    beside, given = write(root / "beside.zarr"), write(tmp_path / "given.zarr", gain=0.9)
    side = SideFile(
        geometry=GEOMETRY,
        rate=4000.0,
        gain=0.5,
        sensor=os.path.relpath(beside, (root / DAT).parent),
    )
    write_side_file(root / DAT, side)
    manifest, notes = run(root)  # which takes over what did not change
    named = manifest.sequences[0].sensor
    assert named is not None
    assert (named.file, named.sha256) == ("beside.zarr", sensor_hash(beside))
    assert notes.count(UNCORRECTED) == 1
    (recording,) = recordings_of(tmp_path / "o/a.json")
    assert recording.settings.sensor == beside

    manifest, _ = run(root, spikes=SpikeOptions(sensor=given))
    named = manifest.sequences[0].sensor
    assert named is not None
    assert (named.file, named.sha256) == ("../given.zarr", sensor_hash(given))
    (recording,) = recordings_of(tmp_path / "o/a.json")
    assert recording.settings.sensor == given
    (recording,) = recordings_of(tmp_path / "o/a.json", sensor="other.zarr")
    assert recording.settings.sensor == Path("other.zarr")
    assert run(root, spikes=SpikeOptions(sensor=given), verify=False)[1].count(UNCORRECTED) == 0


def test_a_layout_file_names_the_sensor_from_the_data_sets_folder(tmp_path: Path, make_clip):
    root = tmp_path / "data"
    make_clip(root, side=False)
    write(root / "pixels.zarr")
    layout = tmp_path / "mine.yaml"
    layout.write_text(
        "name: mine\nsplit: val\n"
        'blur: "val_blurry_9/{scene}/{clip}/{frame}.png"\n'
        'spikes:\n  files: "val_spike_2xds/{scene}/{clip}/spike.dat"\n'
        f"  geometry: {GEOMETRY}\n  rate: 4000\n  gain: 0.5\n  sensor: pixels.zarr\n"
        "frames: {fps: 1000, exposure: 9}\n"
    )
    manifest, _ = run(root, str(layout), exposure=None)
    named = manifest.sequences[0].sensor
    assert named is not None
    assert named.file == "pixels.zarr"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, r"pixels\.zarr: expected a sensor's file .*found nothing"),
        (lambda path: path.mkdir(), r"pixels\.zarr: expected a sensor's file .*found something"),
        (lambda path: write(path, (5, 7)), r"pixels\.zarr: expected a sensor of .*found one of"),
    ],
    ids=["none", "other", "size"],
)
def test_what_is_no_sensor_of_this_camera_is_refused(tmp_path: Path, make_clip, make, expected):
    root = tmp_path / "data"
    make_clip(root)
    make(tmp_path / "pixels.zarr")
    with pytest.raises(SensorError, match=expected):
        run(root, spikes=SpikeOptions(sensor=tmp_path / "pixels.zarr"))
    assert not (tmp_path / "o/a.json").exists()


@pytest.mark.parametrize("file", ["/etc/passwd", "", "a\\u0000b"])
def test_a_manifest_with_an_impossible_path_of_a_sensor_is_refused(
    tmp_path: Path, make_clip, file: str
):
    root = tmp_path / "data"
    make_clip(root)
    run(root, spikes=SpikeOptions(sensor=write(tmp_path / "s.zarr")))
    path = tmp_path / "o/a.json"
    path.write_text(path.read_text().replace("../s.zarr", file))
    with pytest.raises(ManifestError, match="expected a relative path"):
        read_manifest(path)


def test_check_and_restore_as_typed_say_what_they_correct(
    tmp_path: Path, make_clip, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    make_clip(tmp_path / "d")
    monkeypatch.chdir(tmp_path)
    write(Path("s.zarr"), gain=1.0)
    line = "align d --layout x4k1000fps --exposure 9 --sensor s.zarr --log l.txt --manifest m.json"
    assert main(line.split()) == 0
    assert UNCORRECTED in " ".join(capsys.readouterr().err.split())
    main(["check", "m.json"])
    assert "lags are measured on light" in " ".join(capsys.readouterr().err.split())
    assert main(["restore", "--method", "tfp", "--manifest", "m.json", "--out", "sharp"]) == 0
    capsys.readouterr()
    write(Path("s.zarr"), gain=0.5)
    main(["check", "m.json"])
    assert "s.zarr, changed since it was aligned" in " ".join(capsys.readouterr().out.split())
    assert main(["restore", "--method", "tfp", "--manifest", "m.json", "--out", "other"]) == 1
    assert "s.zarr, changed since it was aligned" in capsys.readouterr().err
