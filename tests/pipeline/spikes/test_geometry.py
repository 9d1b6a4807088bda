import pytest
from hypothesis import given
from spike_streams import geometries

from spikedeblur.pipeline.spikes import (
    PRESETS,
    SpikeGeometry,
    SpikeGeometryError,
    parse_geometry,
)


@given(geometries())
def test_a_described_geometry_reads_back_the_same(geometry):
    assert parse_geometry(geometry.describe()) == geometry


def test_a_bare_size_is_refused_because_it_leaves_the_row_order_open():
    with pytest.raises(SpikeGeometryError, match="row order"):
        parse_geometry("250x400")


@pytest.mark.parametrize(
    "spec", ["", "250", "250x", "axb,top-down", "250x400,sideways", "250x400,top-down,drop=9:5"]
)
def test_what_is_no_spec_is_refused(spec):
    with pytest.raises(SpikeGeometryError):
        parse_geometry(spec)


@pytest.mark.parametrize(
    ("preset", "frame_bytes", "shape"),
    [
        ("vidar", 12_500, (250, 400)),
        ("vidar-raw", 13_000, (250, 400)),
        ("sps100", 125_000, (1000, 1000)),
        ("sps100-raw", 128_000, (1000, 1000)),
        ("spift", 50_000, (500, 800)),
        ("spk-gopro", 28_800, (360, 640)),
        ("spk-x4k-train", 18_432, (384, 384)),
        ("spk-x4k-val", 8_192, (256, 256)),
        ("s-sdm-gopro", 7_200, (180, 320)),
        ("s-sdm-gopro-full", 115_200, (720, 1280)),
    ],
)
def test_presets_have_the_published_frame_sizes(preset, frame_bytes, shape):
    geometry = PRESETS[preset].geometry
    assert geometry.frame_bits == 8 * frame_bytes
    assert geometry.shape == shape


def test_only_spift_is_stored_top_down():
    assert [name for name, p in PRESETS.items() if not p.geometry.flip_rows] == ["spift"]


@given(geometries())
def test_every_whole_number_of_frames_is_counted(geometry):
    for n_frames in (1, 2, 7, 8, 33):
        assert geometry.count_frames(-(-n_frames * geometry.frame_bits // 8)) == n_frames


def test_gopro_files_are_whole_frames_of_360x640_not_of_the_reference_documents_sizes():
    geometry = parse_geometry("spk-gopro")
    assert geometry.count_frames(1_612_800) == 56
    assert geometry.count_frames(2_534_400) == 88
    assert geometry.count_frames(2_995_200) == 104


def test_a_cut_file_is_refused_with_the_numbers():
    geometry = parse_geometry("250x400,bottom-up")
    with pytest.raises(SpikeGeometryError, match="12499 bytes"):
        geometry.count_frames(12_499)


@pytest.mark.parametrize("sides", [(0, 8), (8, 0), (1, 7), (-1, 9)])
def test_impossible_sides_are_refused(sides):
    with pytest.raises(SpikeGeometryError):
        SpikeGeometry(height=sides[0], width=sides[1], flip_rows=True)


def test_dropping_every_column_is_refused():
    with pytest.raises(SpikeGeometryError, match="leaves no column"):
        SpikeGeometry(height=4, width=8, flip_rows=True, drop_columns=((0, 8),))


def test_columns_that_hold_no_pixels_are_dropped_where_the_cameras_write_them():
    raw = parse_geometry("sps100-raw")
    assert raw.drop_columns == ((500, 512), (1000, 1012))
    assert raw.shape == (1000, 1000)
    assert parse_geometry("vidar-raw").shape == parse_geometry("vidar").shape == (250, 400)
