import math

import numpy as np
import pytest
import torch

from spikedeblur.configs.schema import NormConfig
from spikedeblur.model import gain_from_blur, normalize_counts
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


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_the_blurred_frame_shows_the_gain_of_each_window(dtype):
    rng = np.random.default_rng(0)
    gains = torch.tensor([[0.5, 0.125]])
    gray = torch.from_numpy(rng.uniform(0.2, 1, (1, 2, 1, 8, 8))).float()
    blur = gray.expand(1, 2, 3, 8, 8)  # luminance is what each channel is
    samples = torch.tensor([[1600, 1600]])
    rate = torch.nn.functional.avg_pool2d(gray.flatten(0, 1), 2).unflatten(0, (1, 2))  # 4x4
    a_bin = (400 * gains[..., None, None, None] * rate).expand(1, 2, 4, 4, 4)
    counts = a_bin.round().to(dtype)
    torch.testing.assert_close(gain_from_blur(counts, samples, blur), gains, rtol=0.02, atol=0)


def test_no_light_or_no_spikes_show_no_gain():
    dark, light = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    spikes, none = torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)
    for counts, blur in ((spikes, dark), (none, light)):
        assert gain_from_blur(counts, torch.tensor([4]), blur).tolist() == [1.0]


def test_a_straight_curve_is_the_gain():
    counts, samples = counts_of(), torch.full((2, 3), 40)
    by_gain = normalize_counts(counts, samples, 0.25, NormConfig(MODE="relative"))
    norm = NormConfig(MODE="relative", CURVE=(4.0, 0.0))
    torch.testing.assert_close(normalize_counts(counts, samples, None, norm), by_gain)


def test_trust_is_for_relative_deviations():
    with pytest.raises(ValueError, match="for MODE relative"):
        NormConfig(TRUST=0.5)


def test_a_curve_takes_away_false_spikes_and_bends_light():
    # Light 0.4 in the first half and 0.6 in the second; the camera sees its square, and noise.
    light = torch.tensor([0.4, 0.4, 0.6, 0.6])[:, None, None]
    rate = 0.25 * light**2 + 0.1
    counts = (rate * 1000).expand(4, 2, 2)
    around = 0.25 * 0.26 + 0.1  # the mean rate
    truth = (light**2 - 0.26) / (2 * 0.26**0.5) / (0.26**0.5 + 0.05)  # by the square root's slope
    near = np.linspace(around - 0.02, around + 0.02, 9)
    fit = np.polyfit(near, np.sqrt((near - 0.1) / 0.25), 3)
    norm = NormConfig(MODE="relative", CURVE=tuple(float(c) for c in fit))
    found = normalize_counts(counts, torch.tensor(4000), None, norm)
    torch.testing.assert_close(found, truth.expand(4, 2, 2), rtol=0.01, atol=0.001)
    with pytest.raises(ValueError, match="for MODE relative"):
        NormConfig(CURVE=(1.0, 0.0))
