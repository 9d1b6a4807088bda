"""Names of frames, and what a folder holds beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from spikedeblur.pipeline.frames.listing import (
    FrameNameError,
    left_out_around,
    list_frames,
    names_are_interpolated,
    subfolders,
    walk_folders,
)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_frames_come_by_number_and_all_else_is_named(tmp_path):
    touch(tmp_path, "10.png", "9.JPG", "8.TIFF", "cover.png", "notes.txt", ".hidden.png", "a.json")
    touch(tmp_path, "@eaDir/7.png")
    listed = list_frames(tmp_path)
    assert [(n, path.name) for n, path in listed.frames.items()] == [
        (8, "8.TIFF"),
        (9, "9.JPG"),
        (10, "10.png"),
    ]
    sentences = " ".join(listed.left_out())
    assert "cover.png: not a frame's name" in sentences
    assert "notes.txt" in sentences
    assert "hidden" not in sentences
    assert "a.json" not in sentences


def test_two_files_of_one_number_are_refused_by_name(tmp_path):
    touch(tmp_path, "01.png", "1.tif")
    with pytest.raises(FrameNameError, match=r"01\.png and 1\.tif are both frame 1"):
        list_frames(tmp_path)


@pytest.mark.parametrize(
    ("stems", "interpolated"),
    [
        (["0007", "0011_001"], True),
        (["0001_001", "0001_002"], False),
        (["0001", "0002"], False),
        ([], False),
    ],
)
def test_names_with_a_part_are_interpolated_only_beside_plain_ones(stems, interpolated):
    assert names_are_interpolated(stems) is interpolated


def test_folders_of_file_servers_are_skipped_and_links_followed(tmp_path):
    touch(tmp_path, "disk/c/1.png", "data/@eaDir/c/1.png", "data/#recycle/2.png", "data/.x/3.png")
    (tmp_path / "data/clip").symlink_to(tmp_path / "disk/c")
    assert [path.name for path in subfolders(tmp_path / "data")] == ["clip"]
    walked = {folder.name: names for folder, _, names in walk_folders(tmp_path / "data")}
    assert walked == {"data": (), "clip": ("1.png",)}


def test_folders_with_data_of_which_none_is_read_are_named(tmp_path):
    touch(tmp_path, "a/1.png", "a/2.webp", "b/1.HEIC", "c/d/x.mov", "e/notes.txt", "0.dat")
    (sentence,) = left_out_around(tmp_path, [tmp_path / "a/1.png"])
    assert sentence.endswith("not read: in ., b, c/d")
    everything = [tmp_path / name for name in ("a/1.png", "b/1.HEIC", "c/d/x.mov", "0.dat")]
    assert left_out_around(tmp_path, everything) == []
