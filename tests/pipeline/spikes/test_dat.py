import os
import resource
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from spike_streams import packed, plain_bits, spans, streams

from spikedeblur.pipeline.spikes import (
    SpikeFile,
    SpikeFileError,
    SpikeGeometry,
    SpikeGeometryError,
    SpikeWindowError,
    load_spike_dat,
    parse_geometry,
    read_spikes,
    write_spikes,
)
from spikedeblur.pipeline.spikes.dat import pack_spikes
from spikedeblur.pipeline.spikes.reconstruct import tfp
from spikedeblur.pipeline.spikes.rolling import RolledSpikes

EIGHT = parse_geometry("8x8,bottom-up")
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@in_one_folder
@given(stream=streams(), data=st.data())
def test_what_is_written_reads_back_bit_for_bit_in_any_crop(tmp_path, stream, data):
    geometry, spikes = stream
    path = tmp_path / "spike.dat"
    write_spikes(path, spikes, geometry)
    assert path.stat().st_size == -(-len(spikes) * geometry.frame_bits // 8)
    start, stop = data.draw(spans(len(spikes)))
    rows, columns = data.draw(spans(geometry.shape[0])), data.draw(spans(geometry.shape[1]))
    cropped = read_spikes(path, geometry, start, stop, rows, columns)
    # Padding at the end of tiny streams can pass for a frame; those that were written are first.
    assert SpikeFile.open(path, geometry).n_frames >= len(spikes)
    np.testing.assert_array_equal(cropped, spikes[start:stop, slice(*rows), slice(*columns)])


@settings(max_examples=30)
@given(streams(max_frames=5))
def test_bits_lie_where_the_format_says(stream):
    geometry, spikes = stream
    packed = pack_spikes(spikes, geometry)
    np.testing.assert_array_equal(plain_bits(packed, geometry)[: len(spikes)], spikes)


@in_one_folder
@given(stream=streams())
def test_all_spikes_are_counted(tmp_path, stream):
    geometry, spikes = stream
    write_spikes(tmp_path / "spike.dat", spikes, geometry)
    spike_file = SpikeFile.open(tmp_path / "spike.dat", geometry)
    assume(spike_file.encoding == "packed")  # few pixels' bits may be bytes of one value, too
    assert spike_file.count_spikes(0, len(spikes)) == spikes.sum()
    assert (
        spike_file.count_spikes(len(spikes) // 2, len(spikes)) == spikes[len(spikes) // 2 :].sum()
    )


@pytest.mark.parametrize("order", ["bottom-up", "top-down"])
def test_one_byte_a_pixel_is_recognised_by_its_values(tmp_path, order):
    geometry = parse_geometry(f"6x9,{order}")
    spikes = (np.random.default_rng(0).random((40, 6, 9)) < 0.4).astype(np.uint8)
    stored = spikes[:, ::-1] if geometry.flip_rows else spikes
    (tmp_path / "bytes.dat").write_bytes(stored.tobytes())
    spike_file = SpikeFile.open(tmp_path / "bytes.dat", geometry)
    assert (spike_file.encoding, spike_file.n_frames) == ("bytes", 40)
    np.testing.assert_array_equal(spike_file.read(), spikes)
    np.testing.assert_array_equal(
        spike_file.counts(8, rows=(1, 5), columns=(2, 9)),
        spikes.reshape(8, 5, 6, 9).sum(axis=1)[:, 1:5, 2:9],
    )
    assert spike_file.count_spikes(3, 9) == spikes[3:9].sum()


def test_a_packed_file_is_not_taken_for_bytes(tmp_path):
    spikes = (np.random.default_rng(1).random((64, 8, 8)) < 0.3).astype(np.uint8)
    write_spikes(tmp_path / "spike.dat", spikes, EIGHT)
    assert SpikeFile.open(tmp_path / "spike.dat", EIGHT).encoding == "packed"


def test_darkness_is_read_as_packed(tmp_path):
    (tmp_path / "dark.dat").write_bytes(bytes(640))
    assert SpikeFile.open(tmp_path / "dark.dat", EIGHT).n_frames == 80


def test_a_prophesee_file_is_refused_by_name(tmp_path):
    path = tmp_path / "events.dat"
    path.write_bytes(b"% Data file containing CD events.\n% Version 2\n" + bytes(1000))
    with pytest.raises(SpikeFileError, match=r"events\.dat.*Prophesee"):
        SpikeFile.open(path, EIGHT)


def test_spikes_that_begin_like_text_are_not_taken_for_prophesee(tmp_path):
    path = tmp_path / "spike.dat"
    path.write_bytes(b"% " + bytes([255] * 62))
    assert SpikeFile.open(path, EIGHT).n_frames == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (bytes(9), "whole 8x8 samples"), (None, "found none")],
)
def test_a_file_that_holds_no_whole_frames_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "cut.dat"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpikeFileError, match=rf"cut\.dat.*{message}"):
        SpikeFile.open(path, EIGHT)


def test_windows_and_crops_outside_are_refused(tmp_path):
    write_spikes(tmp_path / "s.dat", np.ones((4, 8, 8)), EIGHT)
    with pytest.raises(SpikeWindowError):
        read_spikes(tmp_path / "s.dat", EIGHT, 2, 5)
    with pytest.raises(SpikeGeometryError):
        read_spikes(tmp_path / "s.dat", EIGHT, rows=(4, 9))


def test_values_other_than_0_and_1_are_not_written(tmp_path):
    with pytest.raises(SpikeGeometryError, match="0 and 1"):
        write_spikes(tmp_path / "s.dat", np.full((1, 8, 8), 2), EIGHT)
    with pytest.raises(SpikeGeometryError, match=r"\(1, 7, 8\)"):
        write_spikes(tmp_path / "s.dat", np.zeros((1, 7, 8)), EIGHT)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "s.dat"
    write_spikes(path, np.ones((4, 8, 8)), EIGHT)
    before = path.read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_spikes(path, np.zeros((9, 8, 8)), EIGHT)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.dat"]


def test_load_spike_dat_is_the_whole_file(tmp_path):
    spikes = (np.random.default_rng(2).random((20, 8, 8)) < 0.5).astype(np.uint8)
    write_spikes(tmp_path / "s.dat", spikes, EIGHT)
    np.testing.assert_array_equal(load_spike_dat(tmp_path / "s.dat", EIGHT), spikes)


def test_a_window_of_a_large_file_touches_only_its_own_pages(tmp_path):
    geometry = SpikeGeometry(height=512, width=512, flip_rows=True)
    path = tmp_path / "large.dat"
    with path.open("wb") as file:  # 256 MB without a single block on the disk
        file.truncate(8192 * 512 * 512 // 8)
        file.seek(100)
        file.write(b"\xff")
    SpikeFile.open(path, geometry)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    read_spikes(path, geometry, 4000, 4010, rows=(0, 64), columns=(64, 128))
    touched = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) * 4096
    assert touched < 16e6


@settings(max_examples=200)
@given(stream=streams(), data=st.data(), as_bytes=st.booleans())
def test_packed_samples_are_upright_rows_of_whole_bytes(tmp_path_factory, stream, data, as_bytes):
    geometry, spikes = stream
    path = tmp_path_factory.mktemp("dat") / "spike.dat"
    if as_bytes:
        height, width = geometry.shape
        assume(height * width >= 8)
        assume(spikes.sum() >= 16)  # fewer can't be told from packed bits
        geometry = SpikeGeometry(height=height, width=width, flip_rows=True)
        spikes[:, ::-1].tofile(path)
    else:
        write_spikes(path, spikes, geometry)
    start, stop = data.draw(spans(len(spikes)))
    found = packed(SpikeFile.open(path, geometry), start, stop)
    np.testing.assert_array_equal(
        found, np.packbits(spikes[start:stop], axis=-1, bitorder="little")
    )


@settings(max_examples=60)
@given(stream=streams(max_frames=40), data=st.data())
def test_tfp_is_that_of_the_decoded_spikes(tmp_path_factory, stream, data):
    geometry, spikes = stream
    path = tmp_path_factory.mktemp("tfp") / "clip.dat"
    write_spikes(path, spikes, geometry)
    start, stop = data.draw(spans(len(spikes)))
    found = SpikeFile.open(path, geometry).tfp(start, stop)
    np.testing.assert_array_equal(found, tfp(spikes[start:stop]))


def test_tfp_of_more_samples_than_a_bin_can_count(tmp_path):
    geometry = SpikeGeometry(height=1, width=8, flip_rows=False)
    spikes = np.ones((70_000, 1, 8), np.uint8)
    spikes[::2, :, 3] = 0
    write_spikes(tmp_path / "long.dat", spikes, geometry)
    file = SpikeFile.open(tmp_path / "long.dat", geometry)
    assert file.tfp().tolist() == [[1, 1, 1, 0.5, 1, 1, 1, 1]]
    with pytest.raises(SpikeWindowError, match="at most 65535 samples, got 70000"):
        file.counts(1)


def test_the_bit_order_stands_in_one_place(repository):
    said = [
        path.relative_to(repository).as_posix()
        for path in sorted((repository / "pipeline").rglob("*.py"))
        if "bitorder" in path.read_text()
    ]
    assert said == ["pipeline/spikes/packed.py"]


@pytest.mark.parametrize("high", [1, 3, 128, 255])
def test_bytes_of_any_two_values_are_bytes(tmp_path, high):
    geometry = parse_geometry("16x24,top-down")
    spikes = (np.random.default_rng(2).random((16, 16, 24)) < 0.2).astype(np.uint8)
    (tmp_path / "b.bin").write_bytes((spikes * high).astype(np.uint8).tobytes())
    file = SpikeFile.open(tmp_path / "b.bin", geometry)
    assert (file.encoding, file.n_frames) == ("bytes", 16)
    np.testing.assert_array_equal(file.read(), spikes)
    np.testing.assert_array_equal(file.counts(2), spikes.reshape(2, 8, 16, 24).sum(axis=1))


@pytest.mark.parametrize("kind", ["even", "saturated with headers", "one hot pixel"])
def test_packed_bits_of_two_byte_values_are_not_taken_for_bytes(tmp_path, kind):
    geometry = parse_geometry("16x16,bottom-up" + ",drop=0:3" * (kind == "saturated with headers"))
    spikes = np.zeros((64, *geometry.shape), np.uint8)
    if kind == "even":
        spikes[::2] = 1
    elif kind == "saturated with headers":
        spikes[:] = 1
    else:
        spikes[::3, 4, 2] = 1
    write_spikes(tmp_path / "p.dat", spikes, geometry)
    file = SpikeFile.open(tmp_path / "p.dat", geometry)
    assert file.encoding == "packed"
    np.testing.assert_array_equal(file.read(), spikes)


@pytest.mark.parametrize("spec", ["8x16,bottom-up", "5x11,top-down", "6x16,bottom-up,drop=3:5"])
def test_the_most_significant_bit_may_come_first(tmp_path, spec):
    geometry = parse_geometry(f"{spec},msb-first")
    assert parse_geometry(geometry.describe()) == geometry
    spikes = (np.random.default_rng(4).random((24, *geometry.shape)) < 0.4).astype(np.uint8)
    write_spikes(tmp_path / "s.dat", spikes, parse_geometry(spec))
    bits = np.unpackbits(np.fromfile(tmp_path / "s.dat", np.uint8), bitorder="little")
    np.packbits(bits, bitorder="big").tofile(tmp_path / "m.dat")
    file = SpikeFile.open(tmp_path / "m.dat", geometry)
    np.testing.assert_array_equal(file.read(0, 24), spikes)
    np.testing.assert_array_equal(packed(file, 2, 9), np.packbits(spikes[2:9], -1, "little"))
    assert pack_spikes(spikes, geometry).tobytes() == (tmp_path / "m.dat").read_bytes()


def test_a_region_of_columns_is_kept(tmp_path):
    geometry = parse_geometry("8x32,bottom-up,columns=4:20")
    assert geometry == parse_geometry("8x32,bottom-up,drop=0:4,drop=20:32")
    assert geometry.shape == (8, 16)
    with pytest.raises(SpikeGeometryError, match="columns inside 0:32, got 4:33"):
        parse_geometry("8x32,bottom-up,columns=4:33")


@pytest.mark.parametrize("encoding", ["bytes", "packed"])
def test_a_file_larger_than_what_is_looked_at_is_read_as_a_small_one(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of 1 kB stand for those of 4 MB."""
    monkeypatch.setattr("spikedeblur.pipeline.spikes.dat._FIRST_BYTES", 64)
    monkeypatch.setattr("spikedeblur.pipeline.spikes.dat._SCAN_BYTES", 1024)
    monkeypatch.setattr("spikedeblur.pipeline.spikes.dat._MOST_SCANNED", 8)
    geometry = SpikeGeometry(height=16, width=16, flip_rows=False)
    spikes = np.random.default_rng(0).random((2000, 16, 16)) < 0.1
    if encoding == "bytes":
        spikes.astype(np.uint8).tofile(tmp_path / "a.dat")
    else:
        write_spikes(tmp_path / "a.dat", spikes, geometry)
    file = SpikeFile.open(tmp_path / "a.dat", geometry)
    assert (file.encoding, file.n_frames) == (encoding, 2000)
    np.testing.assert_array_equal(file.read(), spikes)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "spec", ["250x400,top-down", "250x401,top-down", "251x401,bottom-up,padded"]
)
def test_a_terabyte_of_zeros_is_opened_from_a_part_of_it(spec: str, tmp_path: Path) -> None:
    geometry = parse_geometry(spec)
    with (tmp_path / "a.dat").open("wb") as file:
        whole = geometry.pixels * -(-geometry.frame_bits // 8)  # frames of either encoding
        file.truncate(10**12 // whole * whole)  # takes no disk
    assert SpikeFile.open(tmp_path / "a.dat", geometry).encoding == "packed"


def test_columns_between_several_dropped_ranges_are_read_from_their_places(tmp_path):
    """The preset sps100-raw has such headers in the middle and at the end."""
    bits = (np.random.default_rng(5).random((20, 4, 32)) < 0.5).astype(np.uint8)
    (tmp_path / "s.dat").write_bytes(np.packbits(bits, bitorder="little").tobytes())
    geometry = parse_geometry("4x32,top-down,drop=6:10,drop=20:23,drop=29:32")
    kept = np.delete(bits, [*range(6, 10), *range(20, 23), *range(29, 32)], axis=2)
    spikes = SpikeFile.open(tmp_path / "s.dat", geometry)
    np.testing.assert_array_equal(spikes.read(0, 20), kept)
    for start, stop in ((0, 22), (3, 9), (5, 17), (12, 22), (16, 22)):
        counted = spikes.counts(1, 0, 20, columns=(start, stop))
        np.testing.assert_array_equal(counted[0], kept[:, :, start:stop].sum(axis=0))


@pytest.mark.parametrize("window", [(3, 3), (5, 4), (-1, 3), (0, 21)])
def test_a_window_without_samples_or_outside_of_them_is_refused(tmp_path, window):
    write_spikes(tmp_path / "s.dat", np.zeros((20, 8, 8), np.uint8), EIGHT)
    spikes = SpikeFile.open(tmp_path / "s.dat", EIGHT)
    rolled = RolledSpikes(spikes, np.zeros(8, np.int64))
    out = np.empty((20, 8, 1), np.uint8)
    plain = spikes.read, spikes.tfp, spikes.count_spikes
    for read in (*plain, partial(spikes.packed, out=out), partial(rolled.packed, out=out)):
        with pytest.raises(SpikeWindowError, match="expected samples inside 0:20"):
            read(*window)
