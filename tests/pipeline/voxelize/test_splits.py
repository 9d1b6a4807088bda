"""A store's splits are its manifest's, whatever the folders are called."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from data_sets import DataSet, make_data_set

from spikedeblur.cli import main
from spikedeblur.pipeline.align.manifest import read_manifest, write_manifest
from spikedeblur.pipeline.evaluate import evaluate
from spikedeblur.pipeline.evaluate.scores import EvaluationError
from spikedeblur.pipeline.inspect import inspect
from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.sequences.provenance import describe_data
from spikedeblur.pipeline.storage.base import StoreError

SEQS = ("test/t/five", "train/a-b/two", "train/a/one", "train/c/three", "val/d/four")


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return make_data_set(tmp_path, seqs=SEQS, centres=(2, 4))


def assign(data: DataSet, **splits: str) -> None:
    """Put sequences, by the last part of their names, in splits."""
    manifest = read_manifest(data.manifest)
    sequences = tuple(
        s.model_copy(update={"assigned_split": splits.get(s.seq.rsplit("/")[-1])})
        for s in manifest.sequences
    )
    write_manifest(data.manifest, manifest.model_copy(update={"sequences": sequences}))


def splits(store: Path) -> dict[str, list[str]]:
    found = {}
    for name in ("train", "val", "test"):
        try:
            found[name] = [sequence.seq for sequence in open_store(store, name)]
        except StoreError:
            found[name] = []
    return found


def test_sequences_keep_their_names_and_are_read_in_their_split(data: DataSet, tmp_path: Path):
    assign(data, one="val", four="train")
    data.voxelize(tmp_path / "s.zarr")
    assert splits(tmp_path / "s.zarr") == {
        "train": ["train/a-b/two", "train/c/three", "val/d/four"],
        "val": ["train/a/one"],
        "test": ["test/t/five"],
    }
    # Order is by folder, as in a whole store, so that a run's order is its data's alone.
    assert [s.seq for s in open_store(tmp_path / "s.zarr")] == sorted(
        SEQS, key=lambda seq: seq.split("/")
    )
    assert inspect(tmp_path / "s.zarr").facts["splits"] == "test, train, val"


def test_dealing_anew_moves_sequences_without_writing_them_again(data: DataSet, tmp_path: Path):
    data.voxelize(tmp_path / "s.zarr")
    assert splits(tmp_path / "s.zarr")["val"] == ["val/d/four"]
    assign(data, three="val", four="train")
    summary = data.voxelize(tmp_path / "s.zarr")
    assert (summary.sequences_kept, summary.sequences_written) == (5, 0)
    assert splits(tmp_path / "s.zarr")["val"] == ["train/c/three"]
    assign(data)
    data.voxelize(tmp_path / "s.zarr")
    assert splits(tmp_path / "s.zarr")["val"] == ["val/d/four"]


def test_a_dry_run_moves_nothing(data: DataSet, tmp_path: Path):
    data.voxelize(tmp_path / "s.zarr")
    assign(data, three="val")
    data.voxelize(tmp_path / "s.zarr", dry_run=True)
    assert splits(tmp_path / "s.zarr")["val"] == ["val/d/four"]


def test_an_empty_split_says_which_there_are(data: DataSet, tmp_path: Path):
    assign(data, four="train", five="train")
    data.voxelize(tmp_path / "s.zarr")
    with pytest.raises(StoreError, match=r"no split 'val'.*it has train; .*split MANIFEST --val"):
        open_store(tmp_path / "s.zarr", "val")


def test_a_missing_val_split_is_made_as_the_messages_say(data: DataSet, tmp_path: Path, capsys):
    assign(data, four="train", five="train")
    assert main(["voxelize", str(data.manifest), str(tmp_path / "s.zarr")]) == 0
    note = capsys.readouterr().err
    assert "no sequences of the split val" in note
    (command,) = re.findall(r"`spikedeblur (split .*?)`", note)
    assert main([*shlex.split(command), "--val", "0.3"]) == 0
    capsys.readouterr()
    assert main(["voxelize", str(data.manifest), str(tmp_path / "s.zarr")]) == 0
    assert "split val" not in capsys.readouterr().err
    assert splits(tmp_path / "s.zarr")["val"]


def test_the_unified_layout_cant_say_it_so_it_refuses(data: DataSet, tmp_path: Path):
    assign(data, one="val")
    with pytest.raises(StoreError, match=r"train/a/one.*--by folders"):
        data.voxelize(tmp_path / "tree", format="npy")
    assert not (tmp_path / "tree").exists()


def test_damaged_splits_are_refused(data: DataSet, tmp_path: Path):
    data.voxelize(tmp_path / "s.zarr")
    path = tmp_path / "s.zarr/zarr.json"
    content = json.loads(path.read_text())
    content["attributes"]["splits"] = {"train/a/one": 3}
    path.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="expected splits by sequence"):
        open_store(tmp_path / "s.zarr", "train")


def test_the_kind_of_blur_is_recorded_and_named_with_the_data(data: DataSet, tmp_path: Path):
    manifest = read_manifest(data.manifest)
    data.voxelize(tmp_path / "plain.zarr")
    kinds = tuple(s.model_copy(update={"blur_kind": "blur_gamma"}) for s in manifest.sequences)
    write_manifest(data.manifest, manifest.model_copy(update={"sequences": kinds}))
    data.voxelize(tmp_path / "gamma.zarr")
    described = [
        describe_data(open_store(tmp_path / name, "train")) for name in ("plain.zarr", "gamma.zarr")
    ]
    assert [d["blur_kinds"] for d in described] == [[], ["blur_gamma"]]
    assert open_store(tmp_path / "gamma.zarr")[0].record.blur_kind == "blur_gamma"


def test_kinds_of_blur_are_not_averaged_over(data: DataSet, tmp_path: Path):
    manifest = read_manifest(data.manifest)
    kinds = dict(zip(SEQS, ("blur", "blur", "blur_gamma", "blur", "blur"), strict=True))
    sequences = tuple(s.model_copy(update={"blur_kind": kinds[s.seq]}) for s in manifest.sequences)
    write_manifest(data.manifest, manifest.model_copy(update={"sequences": sequences}))
    data.voxelize(tmp_path / "s.zarr")
    with pytest.raises(EvaluationError, match="blur and blur_gamma are mixed in the split train"):
        evaluate(tmp_path / "s.zarr", split="train", methods=("blur",))
    assert evaluate(tmp_path / "s.zarr", split="val", methods=("blur",)).blur_kind == "blur"
