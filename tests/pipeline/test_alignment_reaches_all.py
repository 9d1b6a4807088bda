"""What `align` finds about clock and place reaches every reader, once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from aligning import run_align
from alignment_cases import Moved, record_moved

from spikedeblur.pipeline.evaluate.metrics import psnr
from spikedeblur.pipeline.frames.images import read_rgb
from spikedeblur.pipeline.restore import Restoring, restore
from spikedeblur.pipeline.sequences.find_recording import ExposureTimes, find_recording
from spikedeblur.pipeline.sequences.recording import RecordingSequence
from spikedeblur.pipeline.sequences.stored import open_store
from spikedeblur.pipeline.sequences.unified import UnifiedFiles, open_unified
from spikedeblur.pipeline.spikes import SpikeFile, parse_geometry
from spikedeblur.pipeline.spikes.registration import RegisteredSpikes
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest

SEQ = "val/moved/clip"
CENTRES = (24, 32, 40)
CALIBRATION = {
    "homography": [[2, 0, 6], [0, 2, -4]],
    "spike_size": [48, 48],
    "frame_size": [96, 96],
}


@pytest.fixture(scope="module")
def moved() -> Moved:
    return record_moved(1, 96, shift=(6.0, -4.0), turn=2.0, scale=0.97, length=65)


@pytest.fixture(scope="module")
def aligned(moved, tmp_path_factory) -> Path:
    """A folder with the recording, 20 samples late by its side file, aligned."""
    root = tmp_path_factory.mktemp("moved")
    moved.write(root, CENTRES, late=20.0)
    log = root / "o" / "a.txt"
    run_align(root, "x4k1000fps", log, estimate=True, estimate_space="similarity", workers=1)
    return root


def test_store_restore_and_file_give_the_same_counts(aligned, moved):
    store = aligned / "a.zarr"
    voxelize_manifest(aligned / "o" / "a.json", store, VoxelizeOptions(bins=8), Workers(count=1))
    (sequence,) = open_store(store)
    dat = aligned / "val_spike_2xds" / "moved" / "clip" / "spike.dat"
    blur = aligned / "val_blurry_33" / "moved" / "clip"
    found = find_recording(blur, dat, ExposureTimes(log=aligned / "o/a.txt"))
    settings, exposures = found.settings, found.exposures
    recording = RecordingSequence(found, 8)
    assert sequence.record.registered_by == settings.registration.matrix
    counts = sequence.voxels(0, 3)
    np.testing.assert_array_equal(recording.voxels(0, 3), counts)
    np.testing.assert_array_equal(
        recording.voxels(1, 2, (5, 30), (9, 40)), sequence.voxels(1, 2, (5, 30), (9, 40))
    )
    file = SpikeFile.open(dat, parse_geometry("48x48,bottom-up"))
    seen = RegisteredSpikes(file, settings.registration)
    start, stop = settings.clock.samples(exposures[0].t0, exposures[0].t1)
    np.testing.assert_array_equal(seen.counts(8, start, stop), counts[0])


def test_restoring_gains_from_it(aligned, moved):
    blur = aligned / "val_blurry_33" / "moved" / "clip"
    dat = aligned / "val_spike_2xds" / "moved" / "clip" / "spike.dat"

    def quality(out: str) -> float:
        frames = [read_rgb(aligned / out / f"{c:04d}.png") for c in CENTRES]
        sharp = [read_rgb(aligned / "val_fullRGB/moved/clip" / f"{c:04d}.png") for c in CENTRES]
        inner = slice(16, -16), slice(16, -16)
        return float(
            np.mean([psnr(f[inner], s[inner]) for f, s in zip(frames, sharp, strict=True)])
        )

    by_log, by_number = (
        find_recording(blur, dat, times)
        for times in (
            ExposureTimes(log=aligned / "o" / "a.txt"),
            ExposureTimes(exposure=33, fps=1000.0),
        )
    )
    with_log = restore(by_log, aligned / "right", Restoring(method="sdm"))
    assert any("registered" in warning for warning in with_log.warnings)
    assert any("clock corrected" in warning for warning in with_log.warnings)
    restore(by_number, aligned / "wrong", Restoring(method="sdm"))
    assert quality("right") > quality("wrong") + 2


def test_dat_files_read_directly_are_refused_where_align_corrected_them(tmp_path, moved):
    moved.write(tmp_path / "x", CENTRES, late=20.0)
    for kind, name in (("val_blurry_33", "blur"), ("val_fullRGB", "sharp")):
        folder = tmp_path / "val" / "clip" / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / kind / "moved" / "clip").rename(folder)
    stream = tmp_path / "x" / "val_spike_2xds" / "moved" / "clip"
    for name in ("spike.dat", "spike.dat.json"):
        (stream / name).rename(tmp_path / "val" / "clip" / name)
    log = tmp_path / "o" / "a.txt"
    options = {"fps": 1000.0, "exposure": 33, "verify": False}
    calibration = tmp_path / "c.json"
    calibration.write_text(json.dumps(CALIBRATION))
    run_align(tmp_path, "unified", log, calibration=calibration, **options)
    files = UnifiedFiles(log_paths=[log], precomputed=False)
    with pytest.raises(StoreError, match="voxelize"):
        open_unified(tmp_path, "val", bins=8, files=files)
    run_align(tmp_path, "unified", log, **options)
    assert open_unified(tmp_path, "val", bins=8, files=files)
