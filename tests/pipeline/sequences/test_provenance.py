"""One hash for what was trained on or evaluated: the same when moved, another when changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from data_sets import DataSet
from training_sets import MemorySequence

from spikedeblur.pipeline.sequences.provenance import describe_data
from spikedeblur.pipeline.sequences.unified import UnifiedFiles, open_windows


@pytest.mark.parametrize("change", [{"length": 5}, {"gain": 0.25}, {"seq": "train/z"}])
def test_other_data_has_another_hash(change):
    same = [describe_data([MemorySequence()])["sha256"] for _ in range(2)]
    assert same[0] == same[1] != describe_data([MemorySequence(**change)])["sha256"]


@pytest.mark.parametrize("form", ["zarr", "npy"])
def test_the_hash_stays_when_the_data_is_moved(data: DataSet, tmp_path: Path, form: str) -> None:
    files = UnifiedFiles(log_paths=[data.log])

    def described(root: Path) -> dict[str, object]:
        return describe_data(open_windows(root, "train", bins=8, files=files))

    data.voxelize(tmp_path / "here", format=form)
    before = described(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert described(tmp_path / "there") == before
    assert len(before["manifests_sha256"]) == (1 if form == "zarr" else 0)


def test_another_file_in_a_unified_folder_is_noticed(data: DataSet, tmp_path: Path) -> None:
    data.voxelize(tmp_path / "tree", format="npy")

    files = UnifiedFiles(log_paths=[data.log])

    def digest() -> str:
        sequences = open_windows(tmp_path / "tree", "train", bins=8, files=files)
        return describe_data(sequences)["sha256"]

    before = digest()
    picture = next((tmp_path / "tree/train").rglob("blur/*.png"))
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert digest() != before
