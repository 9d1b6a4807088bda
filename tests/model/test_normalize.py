import math

import numpy as np
import pytest
import torch

from spikedeblur.configs.schema import NormConfig
from spikedeblur.model import normalize_counts
from spikedeblur.model.normalize import NormalizeError


def counts_of(shape=(2, 3, 4, 5, 6), high=9, dtype=torch.uint8):
    return torch.from_numpy(np.random.default_rng(0).integers(0, high, shape)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_log1p_is_the_references_and_needs_nothing_else(dtype):
    counts = counts_of(dtype=dtype)
    out = normalize_counts(counts, torch.zeros(2, 3), None, NormConfig())
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out, np.log1p(counts.to(torch.int64).numpy()), rtol=1e-6)


def test_mean_and_std_follow_log1p():
    counts = counts_of()
    out = normalize_counts(counts, torch.full((2, 3), 9), None, NormConfig(MEAN=0.5, STD=2.0))
    np.testing.assert_allclose(
        out, (np.log1p(counts.double().numpy()) - 0.5) / 2, rtol=1e-5, atol=1e-6
    )


def test_zero_std_does_not_divide_by_zero():
    out = normalize_counts(counts_of(), torch.full((2, 3), 9), None, NormConfig(STD=0.0))
    assert out.isfinite().all()


def test_null_mean_and_std_change_nothing():
    counts, samples = counts_of(), torch.full((2, 3), 9)
    plain = normalize_counts(counts, samples, None, NormConfig())
    null = normalize_counts(counts, samples, None, NormConfig(MEAN=None, STD=None))
    assert torch.equal(plain, null)


@pytest.mark.parametrize("samples", [4, 5, 7, 33, 257])
def test_rate_divides_each_bin_by_its_own_samples_and_the_gain(samples):
    bins = 4
    sizes = np.zeros(bins)
    for j in range(samples):  # the definition: sample j is in bin floor(j K / N)
        sizes[math.floor(j * bins / samples)] += 1
    counts = counts_of((1, bins, 2, 2))
    out = normalize_counts(counts, torch.tensor([samples]), 0.25, NormConfig(MODE="rate"))
    expected = counts.numpy() / sizes[None, :, None, None] / 0.25
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_rate_of_a_constant_light_does_not_depend_on_samples_threshold_or_bin():
    # 40 and 80 samples at two gains, light 0.5: spikes a bin = light * gain * samples a bin.
    counts = torch.stack(
        [torch.full((4, 2, 2), 0.5 * 0.4 * 10), torch.full((4, 2, 2), 0.5 * 0.2 * 20)]
    )
    out = normalize_counts(
        counts, torch.tensor([40, 80]), torch.tensor([0.4, 0.2]), NormConfig(MODE="rate")
    )
    torch.testing.assert_close(out, torch.full_like(out, 0.5))


def test_relative_is_the_deviation_from_the_mean_over_bins():
    counts = counts_of((2, 4, 3, 3))
    samples, gain = torch.tensor([8, 16]), 0.5
    rate = counts.numpy() / np.array([2, 4])[:, None, None, None] / gain
    mean = rate.mean(1, keepdims=True)
    expected = np.clip((rate - mean) / (mean + 0.05), -3, 3)
    out = normalize_counts(counts, samples, gain, NormConfig(MODE="relative"))
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_relative_stays_within_three():
    counts = torch.zeros(1, 32, 1, 1, dtype=torch.uint8)
    counts[0, 7] = 200
    out = normalize_counts(counts, torch.tensor([320]), None, NormConfig(MODE="relative"))
    assert out.max() == 3


def test_relative_takes_gain_one_where_it_is_unknown():
    counts, samples = counts_of((2, 4, 3, 3)), torch.tensor([8, 8])
    norm = NormConfig(MODE="relative")
    one = normalize_counts(counts, samples, 1.0, norm)
    assert torch.equal(normalize_counts(counts, samples, None, norm), one)
    mixed = normalize_counts(counts, samples, torch.tensor([float("nan"), 0.5]), norm)
    assert torch.equal(mixed[0], one[0])
    assert not torch.equal(mixed[1], one[1])


@pytest.mark.parametrize("gain", [None, float("nan")])
def test_rate_without_gain_says_how_to_give_it(gain):
    with pytest.raises(NormalizeError, match="--gain"):
        normalize_counts(counts_of((1, 4, 2, 2)), torch.tensor([8]), gain, NormConfig(MODE="rate"))


@pytest.mark.parametrize(
    ("samples", "gain", "expected"),
    [
        (torch.tensor([3]), 1.0, "at least 4 spike samples"),
        (torch.tensor([8, 8]), 1.0, "one number of samples a window"),
        (torch.tensor([8]), 0.0, "gain above 0"),
    ],
)
def test_impossible_input_is_refused(samples, gain, expected):
    with pytest.raises(NormalizeError, match=expected):
        normalize_counts(counts_of((1, 4, 2, 2)), samples, gain, NormConfig(MODE="rate"))
