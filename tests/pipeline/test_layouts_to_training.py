"""Every data set's folders through align, split, voxelize and a training step, as published."""

from __future__ import annotations

import json

import pytest
from aligning import run_align
from layout_trees import TREES
from training_sets import SMALL

from spikedeblur.configs import load_config
from spikedeblur.pipeline.align.layouts import LAYOUTS
from spikedeblur.pipeline.align.split import split
from spikedeblur.pipeline.evaluate import evaluate
from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.train.job import train
from spikedeblur.pipeline.train.run.runs import read_metrics
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest


@pytest.mark.slow
@pytest.mark.parametrize("name", TREES)
def test_folders_become_a_step_of_training(tmp_path, name):
    tree = TREES[name](tmp_path / "data")
    manifest = tmp_path / "a.json"
    layout = "auto" if name in LAYOUTS else tree.layout
    found, _ = run_align(
        tmp_path / "data", layout, manifest.with_suffix(".txt"), verify=False, **tree.options
    )
    assert name not in LAYOUTS or found.layout == tree.layout
    voxelize_manifest(manifest, tmp_path / "s.zarr", VoxelizeOptions(bins=8), Workers(count=1))
    for sequence in open_store(tmp_path / "s.zarr"):
        counts = sequence.voxels(0, sequence.length).sum(axis=(1, 2, 3))
        indices = [int(i) for i in sequence.frame_index]
        assert counts.tolist() == [tree.windows[sequence.seq, i][2] for i in indices]
    more = (f"DATA.ROOT={tmp_path / 's.zarr'}", "TRAIN.MAX_STEPS=1", "DATA.CROP_SIZE=32")
    config = load_config("configs/deblur/quickstart.yaml", (*SMALL, *more))
    summary = train(config, tmp_path / "run")
    assert summary.step == 1
    (line,) = [line for line in read_metrics(tmp_path / "run") if line["kind"] == "train"]
    assert line["loss"] > 0
    data = json.loads((tmp_path / "run/environment.json").read_text())["data"]
    kinds = {"spk-gopro": ["blur_gamma"], "s-vrt-gopro": ["blur"]}
    assert data["blur_kinds"] == kinds.get(found.layout, [])


def test_a_split_is_what_training_and_evaluation_read(tmp_path):
    tree = TREES["spk-gopro"](tmp_path / "data")
    manifest = tmp_path / "a.json"
    run_align(tmp_path / "data", tree.layout, manifest.with_suffix(".txt"), verify=False)
    seeds = range(8)
    moved = next(seed for seed in seeds if split(manifest, val=0.5, seed=seed).moved)
    split(manifest, val=0.5, seed=moved)
    voxelize_manifest(manifest, tmp_path / "s.zarr", VoxelizeOptions(bins=8), Workers(count=1))
    (validated,) = open_store(tmp_path / "s.zarr", "val")
    assert validated.seq == "train/GOPR0372_07_00"
    more = (f"DATA.ROOT={tmp_path / 's.zarr'}", "TRAIN.MAX_STEPS=1", "DATA.CROP_SIZE=32")
    train(load_config("configs/deblur/quickstart.yaml", (*SMALL, *more)), tmp_path / "run")
    assert {line["kind"] for line in read_metrics(tmp_path / "run")} >= {"train", "val"}
    result = evaluate(tmp_path / "s.zarr", split="val", methods=("blur", "sdm")).to_json()
    assert list(result["sequences"]) == ["train/GOPR0372_07_00"]
    assert result["blur_kind"] == "blur_gamma"
