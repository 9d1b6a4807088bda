import pytest

from spikedeblur.pipeline.spikes import SideFile, read_side_file, write_side_file
from spikedeblur.pipeline.spikes.sidefile import (
    SideFileError,
    side_file_path,
    write_folder_side_file,
)

SIDE = SideFile(geometry="8x8,bottom-up", rate=8000.0, gain=0.5, made_by={"tool": "test"})


def test_a_side_file_reads_back_the_same(tmp_path):
    write_side_file(tmp_path / "spike.dat", SIDE)
    assert read_side_file(tmp_path / "spike.dat") == SIDE


def test_a_files_own_side_file_goes_before_the_folders(tmp_path):
    folder = SIDE.model_copy(update={"gain": 0.25})
    write_folder_side_file(tmp_path, folder)
    assert read_side_file(tmp_path / "0001.dat") == folder
    write_side_file(tmp_path / "0001.dat", SIDE)
    assert read_side_file(tmp_path / "0001.dat") == SIDE


def test_no_side_file_is_none(tmp_path):
    assert read_side_file(tmp_path / "spike.dat") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"geometry": "8x8"}',
        b'{"geometry": "8x8,top-down", "gain": -1}',
        b'{"geometry": "8x8,top-down", "rate": NaN}',
        b'{"geometry": "8x8,top-down", "surprise": 1}',
        b'{"geometry": "8x8,top-down", "schema_version": 2}',
        b'{"geometry": 5}' + b" " * (1 << 20),
    ],
)
def test_a_side_file_that_is_not_ours_is_refused_by_name(tmp_path, content):
    side_file_path(tmp_path / "spike.dat").write_bytes(content)
    with pytest.raises(SideFileError, match=r"spike\.dat\.json"):
        read_side_file(tmp_path / "spike.dat")


@pytest.mark.parametrize("key", ["rate", "gain"])
def test_any_rate_and_gain_above_0_can_be_recorded(tmp_path, key):
    side = SIDE.model_copy(update={key: 0.001})
    write_side_file(tmp_path / "spike.dat", side)
    assert read_side_file(tmp_path / "spike.dat") == side
    (tmp_path / "spike.dat.json").write_text(f'{{"geometry": "8x8,top-down", "{key}": 0}}')
    with pytest.raises(SideFileError, match=key):
        read_side_file(tmp_path / "spike.dat")
