from __future__ import annotations

import numpy as np
import pytest
import torch
from training_sets import MemorySequence, tiny_config

from spikedeblur.errors import SpikeDeblurError
from spikedeblur.model import gain_from_blur, normalize_counts
from spikedeblur.pipeline.train import precision
from spikedeblur.pipeline.train.data.loader import collate
from spikedeblur.pipeline.train.data.order import ClipIndex
from spikedeblur.pipeline.train.data.samples import ClipSamples
from spikedeblur.pipeline.train.objective import Objective, psnr, to_inputs
from spikedeblur.pipeline.train.precision import Precision

CPU = torch.device("cpu")


def test_psnr_is_that_of_the_mean_square_error_of_each_clip():
    sharp = torch.full((2, 3, 3, 4, 4), 0.5)
    output = sharp + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1, 1)
    assert psnr(output, sharp).tolist() == pytest.approx([20, 40], abs=1e-3)
    assert psnr(sharp, sharp).tolist() == pytest.approx([100, 100])


def test_psnr_sees_the_output_clamped():
    sharp = torch.ones(1, 3, 4, 4)
    assert psnr(sharp + 5, sharp).item() == pytest.approx(100)


def test_a_batch_is_normalised_with_each_samples_own_gain():
    sequences = [MemorySequence("train/a", gain=0.5), MemorySequence("train/b", gain=None)]
    samples = ClipSamples(sequences, ClipIndex.every_start([4, 4], 2), crop_size=8)
    batch = collate([samples.sample(0, 0), samples.sample(0, 4)])
    assert batch["seq"] == ["train/a", "train/b"]
    assert batch["voxels"].dtype == torch.uint8
    norm = tiny_config(DATA={"NORM": {"MODE": "relative"}}).DATA.NORM
    inputs = to_inputs(batch, CPU, norm)
    shown = gain_from_blur(batch["voxels"][1], batch["samples"][1], batch["blur"][1] / 255)
    for b, gain in enumerate((0.5, shown)):  # the blurred frame shows it where it is not known
        expected = normalize_counts(batch["voxels"][b], batch["samples"][b], gain, norm)
        torch.testing.assert_close(inputs.voxels[b], expected)
    np.testing.assert_allclose(inputs.sharp + inputs.blur, 1, rtol=1e-6)


def test_voxels_with_log1p_done_are_taken_as_they_are():
    samples = ClipSamples(
        [MemorySequence(voxel_dtype="float32")], ClipIndex.every_start([4], 2), crop_size=8
    )
    batch = collate([samples.sample(0, 0)])
    inputs = to_inputs(batch, CPU, tiny_config().DATA.NORM, raw=False)
    assert inputs.voxels is batch["voxels"]


def test_a_term_without_weight_is_not_built():
    objective = Objective(tiny_config().LOSS)  # VGG would need weights that are not here
    x, y = torch.rand(1, 1, 3, 8, 8), torch.rand(1, 1, 3, 8, 8)
    expected = torch.sqrt((x - y) ** 2 + 1e-6).mean()
    assert objective(x, y).item() == pytest.approx(expected.item(), rel=1e-6)


def test_precision_by_device(monkeypatch):
    for computes, chosen in ((False, None), (True, torch.bfloat16)):
        monkeypatch.setattr(precision, "cpu_computes_bf16", lambda computes=computes: computes)
        assert Precision.choose("auto", CPU).dtype is chosen
    assert Precision.choose("bf16", CPU).dtype is torch.bfloat16
    assert not Precision.choose("bf16", CPU).scaler().is_enabled()
    with Precision.choose("bf16", CPU).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.bfloat16
    with pytest.raises(SpikeDeblurError, match="fp16 needs a GPU"):
        Precision.choose("fp16", CPU)
