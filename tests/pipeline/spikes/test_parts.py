"""A recording in several files reads as the one that they were cut from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from spike_streams import packed, plain_counts

from spikedeblur.pipeline.inspect import inspect
from spikedeblur.pipeline.spikes import (
    SideFile,
    SpikeFile,
    SpikeFileError,
    SpikeWindowError,
    parse_geometry,
    read_side_file,
    write_side_file,
    write_spikes,
)
from spikedeblur.pipeline.spikes.convert import convert
from spikedeblur.pipeline.spikes.parts import hash_stream, is_stream, open_stream
from spikedeblur.pipeline.spikes.sidefile import SideFileError

SPEC = "8x16,bottom-up"
GEOMETRY = parse_geometry(SPEC)


@pytest.fixture
def spikes() -> np.ndarray:
    return (np.random.default_rng(3).random((60, 8, 16)) < 0.4).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path, spikes: np.ndarray) -> Path:
    """Parts of 7, 3 and 50 frames, whose names sort otherwise than their numbers."""
    (tmp_path / "parts").mkdir()
    for name, part in (("rec_2", spikes[:7]), ("rec_9", spikes[7:10]), ("rec_10", spikes[10:])):
        write_spikes(tmp_path / "parts" / f"{name}.dat", part, GEOMETRY)
    return tmp_path / "parts"


@pytest.mark.parametrize("pattern", ["", "rec_*.dat", "rec_*"])
def test_a_folder_and_a_pattern_read_as_the_whole(folder, spikes, pattern):
    write_side_file(folder / "rec_2.dat", SideFile(geometry=SPEC))
    for other in ("rec_9.dat", "rec_10.dat"):
        write_side_file(folder / other, SideFile(geometry=SPEC))
    stream = open_stream(folder / pattern, GEOMETRY)
    assert stream.n_frames == 60
    np.testing.assert_array_equal(stream.read(), spikes)
    np.testing.assert_array_equal(
        stream.read(5, 12, rows=(2, 6), columns=(3, 9)), spikes[5:12, 2:6, 3:9]
    )
    np.testing.assert_array_equal(stream.counts(4, 1, 58), plain_counts(spikes[1:58], 4))
    np.testing.assert_array_equal(stream.counts(2, 20, 40), plain_counts(spikes[20:40], 2))
    np.testing.assert_allclose(stream.tfp(2, 50), spikes[2:50].mean(axis=0), rtol=1e-6)
    assert stream.count_spikes(6, 11) == spikes[6:11].sum()


def test_packed_rows_and_the_hash_are_those_of_the_whole(folder, spikes, tmp_path):
    write_spikes(tmp_path / "whole.dat", spikes, GEOMETRY)
    whole = SpikeFile.open(tmp_path / "whole.dat", GEOMETRY)
    np.testing.assert_array_equal(
        packed(open_stream(folder, GEOMETRY), 3, 30), packed(whole, 3, 30)
    )
    content = (tmp_path / "whole.dat").read_bytes()
    assert hash_stream(folder) == hashlib.sha256(content).hexdigest()
    assert hash_stream(tmp_path / "whole.dat") == hash_stream(folder)


def test_samples_outside_are_refused(folder):
    with pytest.raises(SpikeWindowError, match="0:60, got 50:61"):
        open_stream(folder, GEOMETRY).read(50, 61)


def test_a_part_that_is_no_whole_number_of_frames_is_named(folder):
    content = (folder / "rec_9.dat").read_bytes()
    (folder / "rec_9.dat").write_bytes(content[:-3])
    with pytest.raises(SpikeFileError, match=r"rec_9\.dat: expected whole 8x16 samples"):
        open_stream(folder, GEOMETRY)


def test_a_folder_or_pattern_without_spikes_is_refused(tmp_path):
    assert not is_stream(tmp_path)
    with pytest.raises(SpikeFileError, match=r"no file that ends in \.dat or \.bin"):
        open_stream(tmp_path, GEOMETRY)
    with pytest.raises(SpikeFileError, match=r"no\*\.dat: expected files of this pattern"):
        open_stream(tmp_path / "no*.dat", GEOMETRY)


def test_the_first_part_says_what_is_recorded_and_none_may_contradict(folder):
    for name in ("rec_2", "rec_9", "rec_10"):
        side = SideFile(geometry=SPEC, rate=20000, first=0.5 if name == "rec_2" else 1.0)
        write_side_file(folder / f"{name}.dat", side)
    assert read_side_file(folder).first == 0.5
    write_side_file(folder / "rec_10.dat", SideFile(geometry=SPEC, rate=40000))
    with pytest.raises(SideFileError, match=r"rec_10\.dat: its side file disagrees"):
        read_side_file(folder)


def test_parts_with_different_sensors_are_refused(tmp_path):
    for i in (1, 2):
        (tmp_path / f"r_{i}.dat").write_bytes(b"")
        side = SideFile(geometry="8x8,bottom-up", rate=1000.0, sensor=f"s{i}.zarr")
        write_side_file(tmp_path / f"r_{i}.dat", side)
    with pytest.raises(SideFileError, match=r"r_2\.dat: its side file disagrees .* sensor"):
        read_side_file(tmp_path)


def test_inspect_and_convert_take_parts(folder, spikes, tmp_path):
    facts = inspect(folder, SPEC).facts
    assert (facts["frames"], facts["files"]) == (60, "3, rec_2.dat to rec_10.dat")
    summary = convert(folder / "rec_*.dat", tmp_path / "joined.dat", geometry=SPEC)
    assert summary.frames == 60
    np.testing.assert_array_equal(SpikeFile.open(tmp_path / "joined.dat", GEOMETRY).read(), spikes)


def test_counts_take_the_type_that_the_window_needs_wherever_it_lies(tmp_path):
    spikes = np.ones((500, 8, 16), np.uint8)
    for name, part in (("a_1.dat", spikes[:250]), ("a_2.dat", spikes[250:])):
        write_spikes(tmp_path / name, part, GEOMETRY)
    counts = open_stream(tmp_path / "a_*.dat", GEOMETRY).counts(1, 200, 450)
    assert counts.dtype == np.uint8
    assert (counts == 250).all()
