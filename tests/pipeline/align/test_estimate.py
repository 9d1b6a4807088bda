"""What `align` does with what the frames show."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from aligning import run_align
from alignment_cases import Moved, furthest, record_moved
from PIL import Image

from spikedeblur.pipeline.align import AlignmentError, read_manifest
from spikedeblur.pipeline.align.correct_clock import correct_clock
from spikedeblur.pipeline.align.manifest import AlignedSequence, FileRecord, Verification, Window
from spikedeblur.pipeline.align.summary import summarise
from spikedeblur.pipeline.spikes import parse_geometry, read_spikes, write_spikes
from spikedeblur.pipeline.spikes.sidefile import read_side_file

DAT = "val_spike_2xds/Type1/TEST01_003_f0433/spike.dat"


def run(root: Path, *, warnings: list[str] | None = None, **options):
    log = root / "o" / "a.txt"
    manifest, heard = run_align(root, "x4k1000fps", log, exposure=9, **options)
    if warnings is not None:
        warnings += heard
    return manifest


def late(root: Path, samples: float) -> None:
    """Let the side file say that the recording began `samples` later than it did."""
    side = read_side_file(root / DAT)
    assert side is not None
    assert side.rate is not None
    changed = json.loads((root / f"{DAT}.json").read_text())
    changed["first"] = side.first + samples / side.rate
    (root / f"{DAT}.json").write_text(json.dumps(changed))


def test_lag_and_drift_go_into_the_clock_exactly():
    window = Window(
        frame_index=1, t0=0.5, t1=0.6, spike_count=0, spikes="a.dat", first=0.25, blur="a.png"
    )
    seen = FileRecord(size=1, mtime_ns=1)
    sequence = AlignedSequence(
        seq="val/a",
        geometry="8x8,top-down",
        rate=1000.0,
        windows=(window,),
        files={"a.dat": seen, "a.png": seen},
    )
    found = Verification(
        lag_frames=12.5,
        lag_seconds=0.0125,
        correlation=0.9,
        confident=True,
        at_frame=300.0,
        drift_ppm=2000.0,
        drift_error_ppm=100.0,
    )
    corrected = correct_clock(sequence, found)
    for time in (0.3, 0.55, 2.0):
        before = (time - 0.25) * 1000
        expected = before + 12.5 + 0.002 * (before - 300)
        after = (time - corrected.windows[0].first) * corrected.rate
        assert after == pytest.approx(expected, abs=1e-9)
    unclear = found.model_copy(update={"drift_error_ppm": 1000.0})
    assert correct_clock(sequence, unclear).rate == 1000.0


def test_estimate_counts_the_spikes_that_a_right_clock_would(tmp_path, make_clip):
    make_clip(tmp_path, speed=1.5)
    right = run(tmp_path).sequences[0]
    late(tmp_path, -6)
    wrong = run(tmp_path, estimate=False).sequences[0]
    assert wrong.verification.lag_frames == pytest.approx(-6, abs=0.5)
    assert not wrong.verification.applied
    corrected = run(tmp_path, estimate=True).sequences[0]
    assert corrected.verification.applied
    assert corrected.windows[0].first == pytest.approx(right.windows[0].first, abs=0.5 / 4000)
    assert [w.spike_count for w in corrected.windows] == [w.spike_count for w in right.windows]
    assert [w.t0 for w in corrected.windows] == [w.t0 for w in right.windows]


def test_exposures_outside_the_corrected_recording_are_left_out_by_name(tmp_path, make_clip):
    make_clip(tmp_path, speed=1.5)
    # Cut the recording's beginning: its first exposure (frame 8, from sample 16) goes with it.
    geometry = parse_geometry("32x40,bottom-up")
    spikes = read_spikes(tmp_path / DAT, geometry)
    write_spikes(tmp_path / DAT, spikes[24:], geometry)
    with pytest.raises(Exception, match="needs spike samples"):
        run(tmp_path)
    warnings: list[str] = []
    (sequence,) = run(tmp_path, estimate=True, warnings=warnings).sequences
    assert [w.frame_index for w in sequence.windows] == [16, 24]
    assert any("frames 8 are outside" in warning for warning in warnings)
    assert sequence.windows[0].first == pytest.approx(24 / 4000, abs=0.5 / 4000)


def test_a_corrected_lag_is_no_warning_and_is_told_as_an_option(tmp_path, make_clip):
    make_clip(tmp_path, speed=1.5, frames=60)
    late(tmp_path, -20)
    warnings: list[str] = []
    run(tmp_path, warnings=warnings)
    assert ["of the exposure" in warning for warning in warnings] == [True]
    corrected = run(tmp_path, estimate=True, strict=True)
    summary = summarise(corrected, "a.txt", "a.json", [])
    (option,) = summary.corrections.values()
    first = corrected.sequences[0].windows[0].first
    assert option == f"--first {1e3 * first:.3f}ms"
    run(tmp_path, warnings=warnings)
    assert len(warnings) == 2, "without --estimate it is a warning again"


def test_nothing_is_corrected_that_the_frames_do_not_prove(tmp_path, make_clip):
    make_clip(tmp_path, speed=0.0, lag=5)
    (sequence,) = run(tmp_path, estimate=True).sequences
    assert sequence.windows[0].first == 0.0
    assert not sequence.verification.applied


def test_second_run_measures_nothing_again_and_gives_the_same_bytes(
    tmp_path, make_clip, monkeypatch
):
    make_clip(tmp_path, speed=1.5, lag=4)
    run(tmp_path, estimate=True)
    first = (tmp_path / "o" / "a.json").read_bytes()
    assert run(tmp_path).sequences[0].verification.applied is False
    run(tmp_path, estimate=True)
    assert (tmp_path / "o" / "a.json").read_bytes() == first
    monkeypatch.setattr("spikedeblur.pipeline.align.measure.dataset.look", None)
    run(tmp_path, estimate=True)
    assert (tmp_path / "o" / "a.json").read_bytes() == first


def test_result_does_not_depend_on_workers(tmp_path, make_clip):
    for i in range(3):
        make_clip(tmp_path, f"val/Type1/clip{i}", seed=i, speed=1.5, lag=3 * i)
    run(tmp_path, estimate=True, workers=1)
    one = (tmp_path / "o" / "a.json").read_bytes()
    (tmp_path / "o" / "a.json").unlink()
    (tmp_path / "o" / "a.txt").unlink()
    run(tmp_path, estimate=True, workers=3)
    assert (tmp_path / "o" / "a.json").read_bytes() == one


def test_exchanged_recordings_are_named(tmp_path, make_clip):
    for i in range(2):
        make_clip(tmp_path, f"val/Type1/clip{i}", seed=i, speed=1.5)
    files = [tmp_path / f"val_spike_2xds/Type1/clip{i}/spike.dat" for i in range(2)]
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, reversed(contents), strict=True):
        file.write_bytes(content)
    warnings: list[str] = []
    sequences = run(tmp_path, warnings=warnings).sequences
    assert [s.verification.problem for s in sequences] == ["swapped", "swapped"]
    assert "val/Type1/clip1" in sequences[0].verification.warning
    assert sum("files are swapped" in warning for warning in warnings) == 2


def test_a_wrong_row_order_is_named_with_the_option_that_mends_it(tmp_path, make_clip):
    make_clip(tmp_path, speed=1.5)
    (sequence,) = run(tmp_path, geometry="32x40,top-down").sequences
    assert sequence.verification.problem == "rows flipped"
    assert "--geometry 32x40,bottom-up" in sequence.verification.warning


def test_calibration_is_kept_and_another_size_refused(tmp_path, make_clip):
    make_clip(tmp_path, speed=1.5)
    content = {"homography": [[2, 0, 1], [0, 2, 0], [0, 0, 1]], "spike_size": [32, 40]}
    file = tmp_path / "c.json"
    file.write_text(json.dumps({**content, "frame_size": [64, 80]}))
    run(tmp_path, calibration=file)
    (sequence,) = read_manifest(tmp_path / "o" / "a.json").sequences
    assert sequence.space.by == "calibration"
    assert sequence.registration().matrix[2] == 1.0
    file.write_text(json.dumps({**content, "frame_size": [64, 64]}))
    with pytest.raises(AlignmentError, match="calibration is for"):
        run(tmp_path, calibration=file)
    with pytest.raises(AlignmentError, match="give one"):
        run(tmp_path, calibration=file, estimate_space="affine")


@pytest.fixture(scope="module")
def moved() -> Moved:
    return record_moved(1, 96, shift=(6.0, -4.0), turn=2.0, scale=0.97, length=65)


def test_place_and_lag_are_found_together_and_kept_where_nothing_changed(moved, tmp_path):
    moved.write(tmp_path, (24, 32, 40), late=20.0)
    how = {"estimate": True, "estimate_space": "similarity", "workers": 1}
    manifest, _ = run_align(tmp_path, "x4k1000fps", tmp_path / "o" / "a.txt", **how)
    (sequence,) = manifest.sequences
    assert furthest(sequence.registration(), moved.place) < 0.7
    assert sequence.verification.applied
    assert sequence.windows[0].first == pytest.approx(0, abs=2.5 / 8000)
    assert sequence.space.error_pixels < 1
    again, _ = run_align(tmp_path, "x4k1000fps", tmp_path / "o" / "a.txt", **how)
    assert again == manifest


def test_frames_that_do_not_show_the_place_are_told(moved, tmp_path):
    moved.write(tmp_path, (32,))
    blur = next(tmp_path.glob("val_blurry_*/moved/clip/*.png"))
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    Image.fromarray(noise).save(blur)
    manifest, warnings = run_align(
        tmp_path, "x4k1000fps", tmp_path / "o" / "a.txt", estimate_space="similarity"
    )
    assert manifest.sequences[0].space is None
    assert any("both cameras are taken to see the same; give --calibration" in w for w in warnings)
