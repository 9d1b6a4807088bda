from __future__ import annotations

import numpy as np
import pytest
import torch

from spikedeblur.configs.schema.data import SpikeAugmentConfig
from spikedeblur.model import delay
from spikedeblur.pipeline.spikes.intervals import light_of_spikes
from spikedeblur.pipeline.train.data.spike_augment import (
    as_other_cameras,
    augment_spikes,
    grain,
    raise_threshold,
    raise_threshold_of_light,
    thin,
    tint,
)


def fired(light: np.ndarray, threshold: float, phase: np.ndarray) -> np.ndarray:
    """Spikes in total (K, h, w) of integrate-and-fire pixels that keep what is left over."""
    return np.floor((light.cumsum(0) + phase) / threshold)


@pytest.mark.parametrize("factor", [1, 2, 3, 7])
def test_every_nth_spike_is_a_spike_of_an_n_times_higher_threshold(factor):
    rng = np.random.default_rng(factor)
    light = rng.integers(0, 40, (16, 5, 6)) / 8  # exact in binary
    phase = rng.integers(0, 8, (5, 6)) / 8
    counts = np.diff(fired(light, 1, phase), axis=0, prepend=np.floor(phase)[None])
    higher = raise_threshold(torch.from_numpy(counts), torch.tensor(float(factor))).numpy()
    # The random phase is one that the higher threshold could have had: what it counts is the
    # total over the factor, rounded up or down, at every instant.
    exact = fired(light, 1, phase) / factor
    total = higher.cumsum(0)
    assert np.all(total >= np.floor(exact))
    assert np.all(total <= np.ceil(exact + 1e-9))
    assert np.array_equal(higher, counts) == (factor == 1)


@pytest.mark.parametrize("factor", [1.0, 2.0, 3.5, 8.0])
def test_light_at_a_higher_threshold_is_as_a_camera_of_that_threshold_tells_it(factor):
    rng = np.random.default_rng(0)
    samples, bins, beside = 256, 32, 64
    pace = np.linspace(0.4, 1, samples + 2 * beside)[:, None, None]
    light = pace * rng.uniform(0.3, 1, (1, 24, 24))

    def seen(threshold: float) -> np.ndarray:
        total = np.floor((light.cumsum(0) + rng.uniform(0, threshold, (1, 24, 24))) / threshold)
        spikes = np.diff(total, axis=0, prepend=total[:1]).astype(np.uint8)
        return light_of_spikes(spikes, bins, beside, samples)

    truth = light[beside:-beside].reshape(bins, -1, 24, 24).sum(1)
    given = torch.from_numpy(seen(1.0))[None]
    raised = raise_threshold_of_light(given, torch.full((1, 1, 1, 1), factor))[0].numpy()
    ours, camera = (np.sqrt(np.mean((factor * x - truth) ** 2)) for x in (raised, seen(factor)))
    assert abs((factor * raised - truth).mean()) < 0.02 * truth.mean()
    assert 0.6 < ours / camera < 1.4
    assert np.array_equal(raised, given[0].numpy()) == (factor == 1)


def test_no_light_stays_none_at_any_threshold():
    dark = torch.zeros(2, 8, 3, 3)
    found = raise_threshold_of_light(dark, torch.tensor([1.0, 8.0])[:, None, None, None])
    assert found.isfinite().all()
    assert found.max() < 1e-3


def test_light_keeps_its_form_and_counts_stay_whole():
    options = SpikeAugmentConfig(CHANCE=1, THRESHOLD=4)
    given = batch()
    found = []
    for voxels in (given["voxels"], given["voxels"].half()):
        torch.manual_seed(0)
        found.append(augment_spikes(given | {"voxels": voxels}, options)["voxels"])
    counts, light = found
    assert torch.equal(counts, counts.round())
    assert not torch.equal(light, light.round())
    assert light.sum() == pytest.approx(counts.sum().item(), rel=0.03)


def batch(clips: int = 40) -> dict:
    generator = torch.Generator().manual_seed(1)
    counts = torch.randint(0, 8, (clips, 2, 8, 16, 16), dtype=torch.uint8, generator=generator)
    return {
        "voxels": counts,
        "samples": torch.full((clips, 2), 64),
        "gain": torch.full((clips,), 0.5),
    }


def test_a_higher_threshold_lowers_rate_and_gain_alike():
    torch.manual_seed(0)
    given = batch()
    out = augment_spikes(given, SpikeAugmentConfig(CHANCE=1, THRESHOLD=4))
    before, after = (x["voxels"].float().mean((1, 2, 3, 4)) for x in (given, out))
    assert torch.allclose(after / before, out["gain"] / 0.5, rtol=0.02)
    assert 0.12 < out["gain"].min() < 0.2
    assert out["gain"].max() > 0.4


def test_only_some_clips_are_changed():
    torch.manual_seed(0)
    given = batch(200)
    options = SpikeAugmentConfig(CHANCE=0.3, THRESHOLD=4, NOISE=0.1, DEAD=0.2)
    out = augment_spikes(given, options)
    same = (out["voxels"] == given["voxels"]).flatten(1).all(1)
    assert 120 < same.sum() < 160
    assert torch.equal(out["gain"][same], given["gain"][same])


def test_noise_adds_its_share_of_false_spikes_and_no_more_than_there_are_samples():
    torch.manual_seed(0)
    given = batch() | {"voxels": torch.zeros(40, 2, 8, 16, 16, dtype=torch.uint8)}
    counts = augment_spikes(given, SpikeAugmentConfig(CHANCE=1, NOISE=0.5))["voxels"]
    share = counts.mean((1, 2, 3, 4)) / 8
    assert 0.4 < share.max() < 0.5
    assert share.min() < 0.05
    assert counts.max() <= 8


def test_dead_pixels_stay_dead_for_the_whole_clip():
    torch.manual_seed(0)
    given = batch() | {"voxels": torch.ones(40, 2, 8, 16, 16, dtype=torch.uint8)}
    alive = augment_spikes(given, SpikeAugmentConfig(CHANCE=1, DEAD=0.4))["voxels"]
    share = 1 - alive.mean((1, 2, 3, 4))
    assert 0.3 < share.max() < 0.45
    assert torch.equal(alive.amin((1, 2)), alive.amax((1, 2)))


@pytest.mark.parametrize("light", [False, True])
def test_pixels_have_gains_of_their_own_that_last_for_the_clip(light: bool):
    torch.manual_seed(0)
    voxels = torch.full((40, 3, 8, 16, 16), 16, dtype=torch.uint8)
    given = batch() | {"voxels": voxels.half() if light else voxels}
    given["samples"] = torch.full((40, 3), 8 * 64)
    out = augment_spikes(given, SpikeAugmentConfig(CHANCE=1, PIXELS=0.1))["voxels"]
    rates = out.sum(2) / (8 * 16)  # (40, 3, 16, 16), relative
    spread = rates.mean(1).flatten(1).std(1)
    assert 0.08 < spread.max() < 0.12
    assert spread.min() < 0.03
    # A gain is of the pixel: windows agree to the one spike that chance decides.
    assert (rates - rates.mean(1, keepdim=True)).abs().max() <= (0 if light else 1.01 / 128) + 1e-6
    assert light or torch.equal(out, out.round())
    assert rates.mean() == pytest.approx(1, abs=0.01)


def test_pixels_fire_in_the_dark_and_some_are_hot():
    torch.manual_seed(0)
    given = batch() | {"voxels": torch.zeros(40, 2, 8, 32, 32, dtype=torch.uint8)}
    given["samples"] = torch.full((40, 2), 8 * 100)
    out = augment_spikes(given, SpikeAugmentConfig(CHANCE=1, DARK=0.01))["voxels"]
    rates = out.mean((1, 2)) / 100
    assert 0.008 < rates.mean((1, 2)).max() < 0.012
    out = augment_spikes(given, SpikeAugmentConfig(CHANCE=1, HOT=0.2))["voxels"]
    fired = (out.sum((1, 2)) > 0).float()
    assert 0.15 < fired.mean((1, 2)).max() < 0.22
    assert out.max() <= 100
    none = augment_spikes(given, SpikeAugmentConfig(CHANCE=0, PIXELS=0.1, DARK=0.01, HOT=0.2))
    assert torch.equal(none["voxels"].to(torch.uint8), given["voxels"])


def test_the_same_seed_gives_the_same():
    options = SpikeAugmentConfig(THRESHOLD=4, NOISE=0.1, DEAD=0.1, PIXELS=0.1, DARK=0.01, HOT=0.1)
    found = []
    for _ in range(2):
        torch.manual_seed(5)
        found.append(augment_spikes(batch(), options)["voxels"])
    assert torch.equal(*found)


def test_whole_rows_are_silent():
    torch.manual_seed(0)
    out = augment_spikes(batch(), SpikeAugmentConfig(CHANCE=1, ROWS=0.5))["voxels"]
    silent = out.sum((1, 2)) == 0  # (B, h, w)
    rows = silent.all(-1)
    assert torch.equal(silent.any(-1), rows)
    assert 0.15 < rows.float().mean() < 0.35


def test_spikes_come_late_or_early_by_whole_bins():
    torch.manual_seed(0)
    given = batch(100)
    out = augment_spikes(given, SpikeAugmentConfig(CHANCE=1, LATE=0.25))["voxels"]
    moves = {
        next(
            b
            for b in range(-4, 5)
            if torch.equal(delay(one.float(), torch.full((len(one),), b)), c)
        )
        for one, c in zip(given["voxels"], out, strict=True)
    }
    assert moves == {-2, -1, 0, 1, 2}  # of 8 bins


def test_both_frames_darken_alike_and_each_colour_for_itself():
    torch.manual_seed(0)
    blur, sharp = torch.rand(50, 2, 3, 4, 4) + 0.1, torch.rand(50, 2, 3, 4, 4) + 0.1
    darker, too = tint(blur, sharp, SpikeAugmentConfig(CHANCE=0.5, TINT=0.4))
    factor = (darker / blur).mean((1, 3, 4))  # (B, 3)
    torch.testing.assert_close(darker, blur * factor[:, None, :, None, None])
    torch.testing.assert_close(too, sharp * factor[:, None, :, None, None])
    unchanged = (factor > 0.9999).all(1)
    assert 15 < unchanged.sum() < 35
    assert 0.6 <= factor.min() < 0.7
    assert (factor[~unchanged].std(1) > 1e-3).all()


def test_grain_is_of_another_strength_in_each_clip():
    torch.manual_seed(0)
    blur = torch.full((60, 2, 3, 16, 16), 0.5)
    grained = grain(blur, SpikeAugmentConfig(CHANCE=0.5, GRAIN=0.04))
    strength = (grained - blur).flatten(1).std(1)  # (B,)
    changed = strength > 0
    assert 20 < changed.sum() < 40
    assert 0.03 < strength.max() < 0.042
    assert strength[changed].min() < 0.01
    assert abs(float((grained - blur).mean())) < 1e-3


def test_grain_stays_in_range():
    dark = grain(torch.zeros(4, 1, 3, 8, 8), SpikeAugmentConfig(CHANCE=1, GRAIN=0.5))
    assert dark.min() == 0
    assert dark.max() <= 1


def test_some_steps_see_only_some_windows_in_order():
    clips = {
        name: torch.arange(3).view(1, 3, *[1] * (ndim - 2)).expand(2, *[3] * (ndim - 1))
        for name, ndim in (("blur", 5), ("sharp", 5), ("voxels", 5), ("samples", 2))
    }
    seen = []
    for seed in range(400):
        out = thin(clips, SpikeAugmentConfig(THIN=0.5), seed)
        (kept,) = {tuple(x.flatten(2).amax(-1)[0].tolist()) for x in list(out.values())[:3]}
        assert out["samples"][1].tolist() == list(kept)
        seen.append(kept)
    assert 160 < seen.count((0, 1, 2)) < 240
    assert set(seen) == {(0, 1, 2), (0, 1), (0, 2), (1, 2), (0,), (1,), (2,)}
    assert thin(clips, SpikeAugmentConfig(), 0) is clips


def test_a_clip_is_changed_alike_in_whatever_batch_it_comes():
    options = SpikeAugmentConfig(
        CHANCE=0.7, THRESHOLD=4, NOISE=0.1, DEAD=0.2, ROWS=0.1, LATE=0.2, TINT=0.3, GRAIN=0.02
    )
    frames = torch.rand(2, 6, 2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    whole = batch(6) | {"blur": frames[0], "sharp": frames[1], "changes": [4, 8, 15, 16, 23, 42]}
    out = as_other_cameras(whole, options)
    assert not torch.equal(out["voxels"], whole["voxels"])
    state = torch.get_rng_state()
    for part in ([0, 1, 2], [5], [4, 3]):
        some = {name: value[part] for name, value in whole.items() if name != "changes"}
        seeds = [whole["changes"][clip] for clip in part]
        changed = as_other_cameras(some | {"changes": seeds}, options)
        for name in ("blur", "sharp", "voxels", "gain"):
            assert torch.equal(changed[name], out[name][part]), name
    assert torch.equal(torch.get_rng_state(), state)
