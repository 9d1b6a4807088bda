"""A step whose loss is no number, that does not fit in memory, or whose data can't be read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from training_runs import mixture, run_fit
from training_sets import TinyNetwork, UnreadableSequence, tiny_config

from spikedeblur.pipeline.host.device_memory import NotEnoughMemoryError
from spikedeblur.pipeline.train import memory_advice
from spikedeblur.pipeline.train.step import NonFiniteError
from spikedeblur.pipeline.weights.checkpoint import read_checkpoint
from spikedeblur.pipeline.weights.files import checkpoint_path


class Breaks(TinyNetwork):
    """Its output is not a number from the fourth step on, in training."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, rgb, voxels):
        self.calls += self.training
        output = super().forward(rgb, voxels)
        return output * float("nan") if self.training and self.calls >= 7 else output


def test_a_loss_that_is_no_number_stops_before_the_weights_change(tmp_path):
    model = Breaks()
    with pytest.raises(NonFiniteError, match=r"step 4: the loss is nan \(samples: .*frames"):
        run_fit(tmp_path, tiny_config(), model=model)
    assert all(torch.isfinite(p).all() for p in model.parameters())


class TooLarge(TinyNetwork):
    """Its second step takes more memory than there is."""

    calls = 0

    def forward(self, rgb, voxels):
        self.calls += self.training
        if self.calls > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return super().forward(rgb, voxels)


def test_a_step_that_does_not_fit_says_which_setting_helps(tmp_path):
    with pytest.raises(NotEnoughMemoryError, match=r"^step 2: .*TRAIN.BATCH_SIZE=1 with") as raised:
        run_fit(tmp_path, tiny_config(), model=TooLarge())
    assert "The checkpoint of step 1 is written; go on with --resume" in str(raised.value)
    assert "memory_viz" not in str(raised.value)  # there is no GPU
    assert read_checkpoint(checkpoint_path(tmp_path, "last"))["step"] == 1


def test_a_shortage_names_the_snapshot_of_a_gpu_taken_while_the_step_is_still_held(
    tmp_path, monkeypatch
):
    held = []

    def snapshot(path: Path, device: torch.device) -> bool:
        error = sys.exc_info()[1]
        assert isinstance(error, NotEnoughMemoryError)
        assert isinstance(error.__cause__, torch.OutOfMemoryError)
        held.append(error.__cause__.__traceback__)
        return path == tmp_path / "memory_0.pickle"

    monkeypatch.setattr(memory_advice, "write_memory_snapshot", snapshot)
    with pytest.raises(NotEnoughMemoryError, match=rf"held the memory: {tmp_path}/memory_0.pickle"):
        run_fit(tmp_path, tiny_config(), model=TooLarge())
    assert held[0] is not None


def test_an_update_that_was_cut_short_is_no_checkpoint(tmp_path, monkeypatch):
    config = tiny_config(SAVE_INTERVAL=2)
    whole, updates = torch.optim.AdamW.step, []

    def step(self, closure=None):
        updates.append(whole(self))
        if len(updates) == 4:  # the weights are changed already
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(NotEnoughMemoryError, match=r"^step 4: ") as raised:
        run_fit(tmp_path, config)
    assert "is written" not in str(raised.value)
    assert read_checkpoint(checkpoint_path(tmp_path, "last"))["step"] == 2


class BadGradient(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, rgb, voxels):
        return rgb + torch.sqrt(self.scale.abs())  # finite, but its slope at 0 is not


def test_a_gradient_that_is_no_number_stops_too(tmp_path):
    model = BadGradient()
    with pytest.raises(NonFiniteError, match="step 1: the gradient's norm"):
        run_fit(tmp_path, tiny_config(), model=model)
    assert model.scale.item() == 0


def test_a_step_names_the_store_of_what_it_can_not_read(tmp_path):
    data = mixture()
    broken = UnreadableSequence("train/a", 9)
    data = data._replace(training=[*data.training[:3], broken, *data.training[4:]])
    config = tiny_config(ON_ERROR="skip")
    summary = run_fit(tmp_path, config, data=data)
    assert list(summary.unread) == ["two.zarr:train/a"]
