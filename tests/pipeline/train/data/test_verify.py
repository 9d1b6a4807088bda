"""A bit of a store that flipped before a run is seen by what reads it: `train` and `evaluate`."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_sets import make_data_set

from spikedeblur.configs.schema import Config
from spikedeblur.pipeline.evaluate import evaluate
from spikedeblur.pipeline.evaluate.job import Evaluating
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.train.data.order import ClipIndex
from spikedeblur.pipeline.train.data.samples import ClipSamples
from spikedeblur.pipeline.train.data.splits import open_splits


@pytest.fixture
def flipped(tmp_path: Path) -> Path:
    """A store in which one bit of one of val's blurred frames is another."""
    store = tmp_path / "s.zarr"
    make_data_set(tmp_path).voxelize(store, kind="packed")
    shard = store / "val/b/two/blur/c/0/0/0/0"
    content = bytearray(shard.read_bytes())
    content[500] ^= 16
    shard.write_bytes(content)
    return store


def sample(store: Path, **more: bool) -> None:
    """Read what `train` reads first of the split with the flipped bit."""
    data = {"ROOT": str(store), "TRAIN_SPLIT": "val", "VAL_SPLIT": "train", "K": 8, **more}
    train, *_ = open_splits(Config.model_validate({"DATA": data}))
    index = ClipIndex.every_start([s.length for s in train], 2)
    ClipSamples(train, index, crop_size=16).sample(0, 0)


def test_train_refuses_a_flipped_bit_unless_told_not_to_look(flipped: Path) -> None:
    with pytest.raises(StoreError, match=r"val/b/two: blur/c/0/0/0/0: expected CRC-32"):
        sample(flipped)
    sample(flipped, VERIFY=False)


def test_evaluate_refuses_a_flipped_bit_unless_told_not_to_look(flipped: Path) -> None:
    with pytest.raises(StoreError, match=r"val/b/two: blur/c/0/0/0/0: expected CRC-32"):
        evaluate(flipped, split="val", methods=["blur"])
    evaluate(flipped, split="val", methods=["blur"], how=Evaluating(verify=False))
