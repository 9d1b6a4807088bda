"""What only a folder can do wrong: full disks, links, removals that are cut short."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spikedeblur.pipeline.storage import folder as folder_module
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.storage.folder import Folder
from spikedeblur.pipeline.storage.locate import open_storage


def test_locations_of_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_storage("s.zarr").location == str(tmp_path / "s.zarr")
    assert open_storage(Path("a/../s.zarr")).location == str(tmp_path / "s.zarr")
    assert open_storage((tmp_path / "a b").as_uri()).location == str(tmp_path / "a b")
    with pytest.raises(StoreError, match="file:///"):
        open_storage("file://host/s.zarr")


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    storage = Folder(str(tmp_path))
    storage.write("c", [b"old"])
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="c: cannot write it: no space left on device; make room"):
        storage.write("c", [b"new"])
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert storage.read("c") == b"old"
    storage.write("c", [b"new"], durable=False)


def test_a_removal_that_is_cut_short_leaves_nothing_to_be_found(tmp_path, monkeypatch):
    def stop(path: object) -> None:
        raise KeyboardInterrupt

    storage = Folder(str(tmp_path))
    storage.write("train/a/zarr.json", [b"{}"])
    monkeypatch.setattr(folder_module.shutil, "rmtree", stop)
    with pytest.raises(KeyboardInterrupt):
        storage.remove("train/a")
    assert storage.sizes() == {}
    assert storage.folders("train") == []


def test_a_link_to_a_folder_is_removed_and_not_what_it_points_to(tmp_path):
    Folder(str(tmp_path)).write("elsewhere/c", [b"1"])
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "link").symlink_to(tmp_path / "elsewhere")
    storage = open_storage(tmp_path / "s")
    assert storage.sizes() == {"link/c": 1}
    storage.remove("link")
    assert storage.sizes() == {}
    assert (tmp_path / "elsewhere" / "c").exists()
