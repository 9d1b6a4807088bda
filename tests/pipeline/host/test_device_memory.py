from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_sets import tiny_config

from spikedeblur.pipeline.host.device_memory import (
    NotEnoughMemoryError,
    explained_shortage,
    write_memory_snapshot,
)
from spikedeblur.pipeline.train.memory_advice import training_advice


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError("2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 2.00 GiB"),
    ],
)
def test_a_shortage_of_memory_says_what_helps(error):
    with (
        pytest.raises(NotEnoughMemoryError, match=r"^step 3: out of memory .*2\.00.*; do less$"),
        explained_shortage("step 3", "do less"),
    ):
        raise error


def test_another_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match=r"^shapes$"), explained_shortage("step 3", "do less"):
        raise RuntimeError("shapes")


def test_a_real_allocation_that_is_too_large_is_recognised():
    with (
        pytest.raises(NotEnoughMemoryError, match="out of memory"),
        explained_shortage("step 1", "do less"),
    ):
        torch.empty(2**58, dtype=torch.uint8)


def test_a_snapshot_is_written_for_a_gpu_only_and_may_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(
        torch.cuda.memory, "_dump_snapshot", lambda name: Path(name).write_bytes(b"held")
    )
    gpu, path = torch.device("cuda", 0), tmp_path / "memory_0.pickle"
    assert not write_memory_snapshot(path, torch.device("cpu"))
    assert not path.exists()
    assert write_memory_snapshot(path, gpu)
    assert path.read_bytes() == b"held"
    assert not write_memory_snapshot(tmp_path / "none" / "memory.pickle", gpu)


def test_advice_names_settings_that_are_not_at_their_least_already():
    config = tiny_config(BATCH_SIZE=4, DATA={"CROP_SIZE": 32, "CLIP_LEN": 5})
    advice = training_advice(config)
    assert "TRAIN.BATCH_SIZE=2 with TRAIN.GRADIENT_ACCUMULATION_STEPS=4" in advice
    assert "DATA.CROP_SIZE=16 (a quarter)" in advice
    assert "DATA.CLIP_LEN=4 (20% less)" in advice
    assert "USE_CHECKPOINT_FFN=true" not in advice  # on already
    assert "MODEL.RECOMPUTE='[attention, feed_forward, warping, block, stage]'" in advice

    def with_model(config, **keys):
        return config.model_copy(update={"MODEL": config.MODEL.model_copy(update=keys)})

    bare = with_model(config, USE_CHECKPOINT_FFN=False)
    assert "MODEL.USE_CHECKPOINT_FFN=true (about 45% less" in training_advice(bare)
    every = ("attention", "feed_forward", "warping", "block", "stage")
    least = tiny_config(BATCH_SIZE=1, DATA={"CROP_SIZE": 8, "CLIP_LEN": 2})
    least = with_model(least, RECOMPUTE=every, USE_CHECKPOINT_FFN=False)
    assert training_advice(least) == "use a smaller network, or a device with more memory"
