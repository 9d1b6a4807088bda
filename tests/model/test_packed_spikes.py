"""Counts and light of packed spikes by torch: NumPy's numbers, which are tested elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from spikedeblur.model import counts_of_packed, light_of_packed, packed_spikes
from spikedeblur.pipeline.host.device_memory import memory_taken
from spikedeblur.pipeline.spikes import SpikeGeometry, SpikeWindowError, count_spikes
from spikedeblur.pipeline.spikes.intervals import light_of_spikes

H, W = 6, 24

# n samples, those before the exposure, N of the exposure, K bins
FORMS = [
    (385, 64, 257, 32),
    (257, 0, 257, 32),
    (49, 8, 33, 32),
    (41, 8, 33, 8),
    (9, 4, 1, 1),
    (30, 3, 20, 20),
    (700, 0, 700, 2),  # bins of more samples than a byte counts
    (2600, 500, 1600, 3),
]

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def stream(rate: float, n: int, seed: int = 0) -> np.ndarray:
    """Return (n, H, W) uint8 of 0/1, in which some pixels never fire."""
    random = np.random.default_rng(seed)
    return ((random.random((n, H, W)) < rate) & (random.random((H, W)) < 0.9)).astype(np.uint8)


def packed(spikes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.packbits(spikes, axis=-1, bitorder="little"))


@pytest.mark.parametrize("rate", [0.6, 0.1, 0.02, 0.003, 0.0])
@pytest.mark.parametrize(("n", "before", "samples", "bins"), FORMS)
def test_light_is_that_of_numpy_to_the_last_bit(n, before, samples, bins, rate):
    spikes = stream(rate, n)
    found = light_of_packed(packed(spikes), bins, before, samples)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), light_of_spikes(spikes, bins, before, samples))


@pytest.mark.parametrize(("samples", "bins"), [(33, 32), (257, 32), (600, 2), (513, 2), (510, 2)])
def test_counts_are_those_of_numpy_and_of_their_type(samples, bins):
    spikes = stream(0.7, samples)
    bits = packed(spikes)
    geometry = SpikeGeometry(height=H, width=W, flip_rows=False)
    expected = count_spikes(bits.numpy().reshape(-1), geometry, bins)
    found = counts_of_packed(bits, bins).numpy()
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_windows_are_computed_apart_and_rows_may_be_taken_one_by_one(monkeypatch):
    spikes = np.stack([stream(0.2, 49, seed) for seed in range(6)])
    bits = packed(spikes).view(2, 3, 49, H, W // 8)
    light, counts = light_of_packed(bits, 8, 8, 33), counts_of_packed(bits, 8)
    assert light.shape == counts.shape == (2, 3, 8, H, W)
    monkeypatch.setattr(packed_spikes, "_AT_ONCE_BYTES", 1)
    assert torch.equal(light_of_packed(bits, 8, 8, 33), light)
    assert torch.equal(counts_of_packed(bits, 8), counts)
    for found, one in zip(light.flatten(0, 1), spikes, strict=True):
        np.testing.assert_array_equal(found.numpy(), light_of_spikes(one, 8, 8, 33))


@pytest.mark.parametrize("rate", [0.3, 0.02])
def test_samples_without_spikes_stand_for_those_that_are_not_known(rate):
    spikes = stream(rate, 40)
    silent = np.concatenate([np.zeros_like(spikes[:5]), spikes, np.zeros_like(spikes[:7])])
    light = light_of_packed(packed(silent), 8, 5 + 3, 33)
    np.testing.assert_array_equal(light.numpy(), light_of_spikes(spikes, 8, 3, 33))


def test_fewer_samples_than_bins_are_refused():
    with pytest.raises(SpikeWindowError, match="at least one sample a bin"):
        light_of_packed(packed(stream(0.1, 10)), 8, 4, 6)


@pytest.mark.parametrize("make", [light_of_packed, counts_of_packed])
def test_memory_is_bounded_whatever_the_rows(monkeypatch, make):
    limit = 16 * 2**20  # at once, all rows would take twenty times as much
    monkeypatch.setattr(packed_spikes, "_AT_ONCE_BYTES", limit)
    bits = torch.randint(256, (48, 1024, 32), dtype=torch.uint8)
    make(bits[:, :8], 32)
    taken = memory_taken(lambda: make(bits, 32), torch.device("cpu"))
    output = 32 * 1024 * 256 * (4 if make is light_of_packed else 1)
    assert taken < output + 3 * limit


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="torch is built for CPUs only")
@pytest.mark.parametrize("make", [light_of_packed, counts_of_packed])
def test_a_gpu_is_not_waited_for_and_all_is_made_there(make):
    with FakeTensorMode():  # refuses tensors of two devices, and to read numbers back
        bits = torch.empty(2, 3, 49, H, W // 8, dtype=torch.uint8, device="cuda")
        found = make(bits, 8)
    assert found.device.type == "cuda"
    assert found.shape == (2, 3, 8, H, W)


@needs_cuda
@pytest.mark.parametrize(("n", "before", "samples", "bins"), FORMS)
def test_a_gpu_makes_the_same_within_a_step_of_float16(n, before, samples, bins):
    bits = torch.stack([packed(stream(rate, n)) for rate in (0.6, 0.1, 0.02, 0.003)])
    expected = light_of_packed(bits, bins, before, samples).half()
    found = light_of_packed(bits.cuda(), bins, before, samples).half().cpu()
    steps = (found.view(torch.int16).int() - expected.view(torch.int16).int()).abs()
    assert steps.max() <= 1
    exposure = bits[:, before : before + samples]
    counts = counts_of_packed(exposure.cuda(), bins).cpu()
    assert torch.equal(counts.int(), counts_of_packed(exposure, bins).int())
