"""`check`: each thing that can be wrong is broken on purpose, one at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from aligning import run_align
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spikedeblur.cli import main
from spikedeblur.pipeline.align import ManifestError, read_manifest, write_manifest
from spikedeblur.pipeline.align.check import check_manifest
from spikedeblur.pipeline.align.check.stream import (
    MIN_SPIKES,
    SpikeSums,
    find_bad_pixels,
    neighbour_median,
)
from spikedeblur.pipeline.align.manifest import Verification
from spikedeblur.pipeline.host.files import sha256_file
from spikedeblur.pipeline.spikes import SpikeFile, SpikeGeometry, parse_geometry, write_spikes

SEQ = "val/Type1/TEST01_003_f0433"
CLIP = "Type1/TEST01_003_f0433"
DAT = f"val_spike_2xds/{CLIP}/spike.dat"
BLUR = f"val_blurry_9/{CLIP}"
SHARP = f"val_fullRGB/{CLIP}"
GEOMETRY = parse_geometry("32x40,bottom-up")


def aligned(root: Path, **options: object) -> Path:
    options = {"verify": False, "exposure": 9} | options
    run_align(root, "x4k1000fps", root / "o/a.txt", **options)
    return root / "o/a.json"


@pytest.fixture
def manifest(tmp_path, make_clip) -> Path:
    make_clip(tmp_path)
    return aligned(tmp_path)


def kinds(manifest: Path) -> set[str]:
    (sequence,) = check_manifest(manifest).sequences
    return {finding.kind for finding in sequence.findings if finding.wrong}


def test_sound_data_has_nothing_wrong_and_its_gain_is_measured(manifest):
    found = check_manifest(manifest)
    (sequence,) = found.sequences
    assert (found.wrong, sequence.findings) == (0, ())
    assert sequence.gain_measured == pytest.approx(0.5, rel=0.02)
    assert sequence.rate_measured is None
    assert "fewer than 4 exposures" in sequence.rate_unknown
    files = [p for p in manifest.parents[1].rglob("*.*") if p.suffix in (".png", ".dat")]
    assert found.files == len(files)
    assert found.bytes == sum(path.stat().st_size for path in files)


def drop(root: Path) -> None:
    (root / BLUR / "0016.png").unlink()


def cut(root: Path) -> None:
    data = (root / DAT).read_bytes()
    (root / DAT).write_bytes(data[:-100])


def shorten_by_frames(root: Path) -> None:
    data = (root / DAT).read_bytes()
    (root / DAT).write_bytes(data[: -40 * 160])


def flip_bit_keeping_time(root: Path) -> None:
    stat = (root / DAT).stat()
    data = bytearray((root / DAT).read_bytes())
    data[5000] ^= 1
    (root / DAT).write_bytes(data)
    os.utime(root / DAT, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def touch_image(root: Path) -> None:
    os.utime(root / SHARP / "0016.png", ns=(1, 1))


def resize_image(root: Path) -> None:
    path = root / SHARP / "0016.png"
    Image.open(path).resize((32, 32)).save(path)


def blacken(root: Path) -> None:
    path = root / BLUR / "0016.png"
    Image.fromarray(np.ones((64, 80, 3), np.uint8)).save(path)


def freeze(root: Path) -> None:
    (root / BLUR / "0016.png").write_bytes((root / BLUR / "0008.png").read_bytes())


def spoil_image(root: Path) -> None:
    path = root / BLUR / "0016.png"
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (drop, {"missing"}),
        (cut, {"changed", "cut"}),
        (shorten_by_frames, {"changed", "exposure"}),
        (flip_bit_keeping_time, {"changed"}),
        (touch_image, {"changed"}),
        (resize_image, {"changed", "size"}),
        (blacken, {"changed", "black"}),
        (freeze, {"changed", "frozen"}),
        (spoil_image, {"changed", "unreadable"}),
    ],
)
def test_damage_is_found_and_named(manifest, damage, expected):
    damage(manifest.parents[1])
    assert kinds(manifest) == expected


def test_a_folder_that_is_gone_is_one_error(manifest):
    write_manifest(manifest, read_manifest(manifest).model_copy(update={"root": "../gone"}))
    with pytest.raises(ManifestError, match=r"expected its data set in .*gone"):
        check_manifest(manifest)


def test_many_missing_files_are_one_finding(manifest):
    for path in (manifest.parents[1] / BLUR).iterdir():
        path.unlink()
    (sequence,) = check_manifest(manifest).sequences
    (finding,) = sequence.findings
    assert finding.message.startswith("3 of 7 files are missing: val_blurry_9/")


def test_spikes_copied_anew_are_a_note_only(manifest):
    os.utime(manifest.parents[1] / DAT, ns=(1, 1))
    found = check_manifest(manifest)
    assert found.wrong == 0
    assert [f.kind for f in found.sequences[0].findings] == ["touched"]


def respike(root: Path, change) -> Path:
    spikes = SpikeFile.open(root / DAT, GEOMETRY).read()
    change(spikes)
    write_spikes(root / DAT, spikes, GEOMETRY)
    return aligned(root)


def test_dead_and_hot_pixels_are_counted_and_rows_named(manifest):
    root = manifest.parents[1]

    def few(spikes):
        spikes[:, 5, 7] = 0

    respike(root, few)
    (sequence,) = check_manifest(manifest).sequences
    assert (sequence.dead_pixels, sequence.hot_pixels) == (1, 0)
    assert [(f.kind, f.wrong) for f in sequence.findings] == [("dead", False)]

    def more(spikes):
        spikes[:, 20] = 0
        spikes[:, 8, 1::4] = 1

    respike(root, more)
    (sequence,) = check_manifest(manifest).sequences
    assert (sequence.dead_pixels, sequence.hot_pixels) == (1, 10)
    assert {f.kind for f in sequence.findings if f.wrong} == {"dead", "hot"}
    assert any("row 20" in f.message for f in sequence.findings)


def test_lost_samples_are_found(manifest):
    def lose(spikes):
        spikes[60:64] = 0

    respike(manifest.parents[1], lose)
    assert kinds(manifest) == {"empty"}


@pytest.mark.parametrize(("gain", "wrong"), [(0.5, False), (0.55, False), (0.25, True)])
def test_a_gain_that_the_frames_contradict_is_wrong(tmp_path, make_clip, gain, wrong):
    make_clip(tmp_path)
    found = kinds(aligned(tmp_path, gain=gain))
    assert found == ({"gain"} if wrong else set())


def test_an_unstated_gain_is_measured_for_a_note(tmp_path, make_clip):
    make_clip(tmp_path, side=False)
    aligned(tmp_path, geometry="32x40,bottom-up", rate=4000.0)
    (sequence,) = check_manifest(tmp_path / "o/a.json").sequences
    (finding,) = sequence.findings
    assert (finding.kind, finding.wrong) == ("gain", False)
    assert "0.50" in finding.message


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("rate", [4000.0, 3960.0])
def test_a_rate_is_judged_where_frames_in_motion_tell_it(tmp_path, make_clip, rate, verify):
    make_clip(tmp_path, centres=tuple(range(8, 121, 28)), frames=129)
    manifest = aligned(tmp_path, rate=rate, verify=verify)
    (sequence,) = check_manifest(manifest).sequences
    assert sequence.rate_measured == pytest.approx(4000, rel=0.002)
    assert {f.kind for f in sequence.findings} == (set() if rate == 4000 else {"rate"})


def test_a_rate_that_nothing_shows_is_not_judged(tmp_path, make_clip):
    make_clip(tmp_path, centres=tuple(range(8, 121, 28)), frames=129, flat=True)
    (sequence,) = check_manifest(aligned(tmp_path)).sequences
    assert sequence.rate_measured is None
    assert "do not prove" in sequence.rate_unknown


def test_the_lag_is_shown_and_whether_the_clock_was_corrected(tmp_path, make_clip, capsys):
    make_clip(tmp_path, centres=tuple(range(8, 121, 28)), frames=129)
    manifest = aligned(tmp_path, verify=False)
    (sequence,) = check_manifest(manifest).sequences
    assert abs(sequence.lag) < 0.25e-3  # a sample of 4000 Hz
    content = read_manifest(manifest)
    lag = {"lag_frames": 4.0, "lag_seconds": 0.001, "correlation": 0.9, "confident": True}
    for applied in (False, True):
        found = Verification(**lag, applied=applied)
        (known,) = content.sequences
        known = known.model_copy(update={"verification": found})
        write_manifest(manifest, content.model_copy(update={"sequences": (known,)}))
        main(["check", str(manifest)])
        printed = capsys.readouterr().out
        assert "+1.000" in printed
        assert ("+1.000 corrected" in printed) is applied


def test_a_lag_that_nothing_shows_is_a_dash(tmp_path, make_clip):
    make_clip(tmp_path, centres=tuple(range(8, 121, 28)), frames=129, flat=True)
    assert check_manifest(aligned(tmp_path)).sequences[0].lag is None


def test_the_command_reports_and_exits_by_what_it_found(manifest, capsys):
    assert main(["check", str(manifest)]) == 0
    assert "nothing wrong in 1 sequence," in capsys.readouterr().out
    drop(manifest.parents[1])
    assert main(["check", str(manifest), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["kind"], report["wrong"]) == ("manifest", 1)
    assert report["sequences"][0]["findings"][0]["kind"] == "missing"
    assert main(["check", str(manifest)]) == 1
    assert "WRONG val/Type1/TEST01_003_f0433" in capsys.readouterr().out
    assert main(["check", "data"]) == 1


def test_the_report_does_not_depend_on_workers(tmp_path, make_clip):
    for seed in range(4):
        make_clip(tmp_path, f"val/T/c{seed}", seed=seed)
    manifest = aligned(tmp_path)
    assert check_manifest(manifest, workers=1) == check_manifest(manifest, workers=4)


geometries = st.builds(
    SpikeGeometry,
    height=st.integers(3, 9),
    width=st.integers(3, 17),
    flip_rows=st.booleans(),
    pad_frames=st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(geometry=geometries, n=st.integers(1, 600), seed=st.integers(0, 99))
def test_sums_in_blocks_are_those_of_all_samples(tmp_path_factory, geometry, n, seed):
    from spikedeblur.pipeline.align.check import stream as stream_check

    path = tmp_path_factory.mktemp("sums") / "spike.dat"
    spikes = np.random.default_rng(seed).integers(0, 2, (n, *geometry.shape), np.uint8)
    spikes[n // 2] = 0
    write_spikes(path, spikes, geometry)
    whole, blocks = (SpikeSums(np.zeros(geometry.shape, np.int64)) for _ in range(2))
    assert whole.add(SpikeFile.open(path, geometry)) == sha256_file(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_check, "BLOCK_BYTES", 64)
        assert blocks.add(SpikeFile.open(path, geometry)) == sha256_file(path)
    np.testing.assert_array_equal(whole.spikes, spikes.sum(axis=0))
    np.testing.assert_array_equal(blocks.spikes, whole.spikes)
    assert whole.samples == blocks.samples == n
    if geometry.frame_bits % 8 == 0:
        assert whole.empty_samples == (spikes.sum(axis=(1, 2)) == 0).sum()


def test_median_is_of_the_24_around(tmp_path):
    values = np.random.default_rng(0).integers(0, 1000, (70, 9))
    found = neighbour_median(values)
    around = np.delete(values[30:35, 2:7].reshape(-1), 12)
    assert found[32, 4] == np.median(around)


def test_a_dark_corner_has_no_dead_pixels():
    sums = SpikeSums(np.zeros((20, 30), np.int64))
    sums.spikes[:, 15:] = 300
    sums.samples = 1000
    bad = find_bad_pixels(sums)
    assert (bad.dead, bad.hot, bad.dead_lines, bad.hot_lines) == (0, 0, (), ())


def test_pixels_are_judged_from_so_few_samples_on():
    for samples, hot in ((MIN_SPIKES, True), (MIN_SPIKES - 1, False)):
        pixel, line = (SpikeSums(np.zeros((9, 9), np.int64)) for _ in range(2))
        pixel.spikes[4, 4] = pixel.samples = samples
        assert find_bad_pixels(pixel).hot == hot
        line.spikes[3] = line.samples = samples
        assert find_bad_pixels(line).hot_lines == ("row 3",) * hot


@pytest.mark.parametrize(
    ("name", "geometry", "light"),
    [
        ("reds_spike/203_part1_key_id151.dat", "reds-spike", True),
        ("reds_spike/203_part2_key_id151.dat", "reds-spike", True),
        ("uhsr/uhsr_224x224.dat", "224x224,bottom-up", False),
    ],
)
def test_recordings_of_others_have_no_bad_pixels_until_they_are_given_some(
    realdata, name, geometry, light
):
    file = SpikeFile.open(realdata / name, parse_geometry(geometry))
    sums = SpikeSums(np.zeros(file.geometry.shape, np.int64))
    sums.add(file)
    found = find_bad_pixels(sums)
    assert (found.dead, found.hot, found.dead_lines, found.hot_lines) == (0, 0, (), ())
    assert sums.empty_samples == 0
    assert found.judged > 0.8 if light else found.judged == 0
    busiest = np.unravel_index(neighbour_median(sums.spikes).argmax(), sums.spikes.shape)
    sums.spikes[busiest] = 0
    quiet = np.unravel_index(neighbour_median(sums.spikes).argmin(), sums.spikes.shape)
    sums.spikes[quiet] = sums.samples
    found = find_bad_pixels(sums)
    assert (found.dead, found.hot) == (1 if light else 0, 1)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(tmp_path, make_clip):
    make_clip(tmp_path)
    code = (
        "import sys; from spikedeblur.pipeline.align.check import check_manifest;"
        "check_manifest(sys.argv[1], workers=1);"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    peaks = []
    data = (tmp_path / DAT).read_bytes()
    for repeats in (200, 2000):
        (tmp_path / DAT).write_bytes(data * repeats)
        manifest = aligned(tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", code, str(manifest)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout) * 1024)
    assert (tmp_path / DAT).stat().st_size > 40e6
    assert peaks[1] - peaks[0] < 4e6
